"""What columns of other people's files are called, by what they mean: the words that a proposal goes by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MEANINGS: Mapping[str, str] = {
    "sku": "sku, item, article, artikel, artikelnr, artikelnummer, stock code, product id, product code, "
    "item code, item no, item number, item description, product, material",
    "gtin": "gtin, ean, upc, barcode, gtin13, gtin14",
    "quantity_units": "quantity, qty, units, menge, anzahl, stück, pieces, on hand, counted, stock, there, "
    "bestand, available",
    "basket_id": "receipt, receipt no, basket, invoice, invoice no, invoice number, bon, bonnr, beleg, "
    "belegnr, belegnummer, transaction, transaction id, order, order id, order number, id",
    "store_id": "store, shop, filiale, branch, store id, store no, till",
    "location_id": "location, location id, warehouse, lager, site, store, shop, filiale, country",
    "occurred_at": "time, timestamp, date, datum, at, when, invoice date, sold at, created at, order date, "
    "delivered, delivered at, delivered to client date, delivery date, counted at, reported at, updated at, "
    "zeit",
    "value_minor": "total, amount, line total, line amount, value, betrag, summe, umsatz, sales value, line "
    "item value, gross",
    "price": "price, unit price, preis, einzelpreis, item price, vk",
    "customer_id": "customer, customer id, kunde, kundennr, kundennummer, household, card, loyalty card",
    "supplier_id": "supplier, supplier id, vendor, vendor id, lieferant",
    "purchase_order_id": "purchase order, purchase order id, po, po number, po no, po so, bestellnummer",
    "delivery_id": "delivery id, delivery, lieferung, receipt line, id",
    "ordered_on": "ordered, ordered on, order date, po date, po sent to vendor date, bestelldatum",
    "scheduled_on": "scheduled, scheduled on, due, due date, promised, scheduled delivery date, liefertermin",
    "fulfilment_id": "fulfilment, fulfillment, fulfilment id, fulfillment id, shipment, parcel",
    "order_id": "order, order id, order number, order no",
    "line_id": "line, line id, position, line no",
    "status": "status, state",
    "tracking": "tracking, tracking number, tracking no",
    "name": "name, description, title, bezeichnung, product name, item name, beschreibung",
    "brand": "brand, marke, manufacturer, hersteller",
    "department": "department, abteilung",
    "category": "category, kategorie, product group, warengruppe, product category",
    "package_size": "package size, size, pack size, packung",
    "currency": "currency, currency code, währung",
}
"""The words for each meaning, the likeliest first; `price` is of one unit."""


def meaning(named: Iterable[str], word: str) -> str | None:
    """Which of a file's columns is most likely to mean a word of ours, if any is."""
    found = [
        (_likeness(name, phrase), -place, name)
        for name in named
        for place, phrase in enumerate([word.replace("_", " "), *MEANINGS[word].split(", ")])
    ]
    best = max(found, default=(0, 0, ""))
    return best[2] if best[0] > 0 else None


def _likeness(name: str, phrase: str) -> int:
    """0 for nothing alike, more the more alike: the same words run together, or some of several."""
    words, wanted = _split(name), phrase.split()
    if "".join(words) == "".join(wanted):
        return 100
    if all(each in words for each in wanted) and len(words) <= len(wanted) + 2:
        return 10 * len(wanted) - (len(words) - len(wanted))
    return 0


def _split(name: str) -> list[str]:
    """The words of a column's name: `line_items.unitPrice` has four."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-zäöü])(?=[A-ZÄÖÜ])", " ", name).lower())
