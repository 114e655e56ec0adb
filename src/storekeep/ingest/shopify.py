"""Shopify's JSON: orders with their refunds, levels of stock, fulfilments, products, customers.

Hides where Shopify says what, and that it tells an identifier twice: as a number, which a careless reader
before us may have rounded, and within a global id. Where the two contradict each other nothing is taken in.

An order's line gives a row of what was `sold`; one for each refund of it (`refunded`, negative); and one for
what was left of it when the order was cancelled (`cancelled`, negative). A discount is taken off its line;
tax and shipping are no part of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal

from storekeep.ingest.web_cells import (
    Fault,
    Json,
    Kind,
    Row,
    asked,
    cell,
    full_name,
    listed,
    many_lines,
    number,
    number_of,
    parts_of,
    plain,
)

_GLOBAL = "gid://shopify/"


def _id(thing: Json, name: str = "id") -> str:
    """An identifier, if it is told in one way only; raises `Fault` when its two forms differ."""
    own = number_of(thing, "Shopify", name)
    told = cell(thing, "admin_graphql_api_id")
    if told is None:
        return own
    last = told.partition("?")[0].rpartition("/")[2]
    if not told.startswith(_GLOBAL) or last != own:
        raise Fault(
            name,
            f"{name} is {own}, and the global id says {last[:40]}: one of them was rounded or mistaken",
        )
    return own


# Orders -------------------------------------------------------------------------------------------------


def _orders(thing: Json) -> list[Row]:
    """The rows of an order, or of a refund that is told for itself."""
    if not isinstance(thing, dict):
        raise Fault("id", "this is no order and no refund")
    if "refund_line_items" in thing:
        return _refund(thing, asked(thing, "order_id"), None)
    order_id = _id(thing)
    lines = parts_of(thing, "line_items", "order")
    currency = asked(thing, "currency")
    shared: Row = {
        "order_id": order_id,
        "order_name": cell(thing, "name"),
        "customer_id": _customer(thing),
        "currency": currency,
        "financial_status": cell(thing, "financial_status"),
        "test": cell(thing, "test") or "false",
        "updated_at": cell(thing, "updated_at") or asked(thing, "created_at"),
    }
    _check_total(thing, lines)
    sold = {_id(line): _line(line) for line in lines}
    if len(sold) < len(lines):
        raise Fault("line_items", "two lines of this order have one id")
    rows = [{**shared, **line, "kind": "sold", "part": line["line_id"]} for line in sold.values()]
    for row in rows:
        row["happened_at"] = asked(thing, "created_at")
    returned: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for refund in listed(thing, "refunds"):
        for row in _refund(refund, order_id, currency):
            row["test"] = shared["test"]
            rows.append(row)
            left = returned[str(row["line_id"])]
            left[0] += Decimal(str(row["quantity"]))
            left[1] += Decimal(str(row["value"]))
    if cell(thing, "cancelled_at") is not None:
        rows += [
            {
                **shared,
                **line,
                "kind": "cancelled",
                "part": f"{line_id}/cancelled",
                "quantity": plain(-Decimal(str(line["quantity"])) - returned[line_id][0]),
                "value": plain(-Decimal(str(line["value"])) - returned[line_id][1]),
                "happened_at": cell(thing, "cancelled_at"),
            }
            for line_id, line in sold.items()
        ]
    return rows


def _customer(order: Json) -> str | None:
    customer = order.get("customer")
    return _id(customer) if isinstance(customer, dict) and customer.get("id") is not None else None


def _line(line: Json) -> Row:
    """What a line sold: its value is what was asked for it, less what was taken off it."""
    quantity = number(line, "quantity")
    allocated = line.get("discount_allocations")
    if allocated is None:
        off = number(line, "total_discount", "0")
    else:
        off = sum(
            (number(each, "amount") for each in listed(line, "discount_allocations")), Decimal(0)
        )
    return {
        "line_id": _id(line),
        "sku": cell(line, "sku"),
        "product_id": cell(line, "product_id"),
        "variant_id": cell(line, "variant_id"),
        "title": cell(line, "title"),
        "gift_card": cell(line, "gift_card") or "false",
        "quantity": plain(quantity),
        "value": plain(number(line, "price") * quantity - off),
    }


def _check_total(order: Json, lines: list[Json]) -> None:
    """What the lines come to is what the order says they do: before it was changed, or since."""
    if cell(order, "total_line_items_price") is None:
        return
    said = number(order, "total_line_items_price")
    before = sum((number(line, "price") * number(line, "quantity") for line in lines), Decimal(0))
    since = sum(
        (
            number(line, "price")
            * number(line, "current_quantity", plain(number(line, "quantity")))
            for line in lines
        ),
        Decimal(0),
    )
    if said not in (before, since):
        raise Fault(
            "total_line_items_price",
            f"the lines of this order come to {plain(before)}, and it says they come to {plain(said)}",
        )


def _refund(refund: Json, order_id: str, currency: str | None) -> list[Row]:
    """What came back: as old as the refund, which never changes."""
    refund_id = _id(refund)
    return [
        _refunded(each, refund, refund_id, order_id, currency)
        for each in listed(refund, "refund_line_items")
    ]


def _refunded(each: Json, refund: Json, refund_id: str, order_id: str, currency: str | None) -> Row:
    line = each.get("line_item")
    if not isinstance(line, dict):
        raise Fault("line_item", f"refund {refund_id} does not say what came back")
    _id(line)
    quantity = number(each, "quantity")
    worth = (
        number(line, "price") * quantity
        if cell(each, "subtotal") is None
        else number(each, "subtotal")
    )
    line_id = asked(each, "line_item_id")
    if line_id != asked(line, "id"):
        raise Fault("line_item_id", f"refund {refund_id} names a line and tells of another")
    return {
        "kind": "refunded",
        "order_id": order_id,
        "line_id": line_id,
        "part": f"{line_id}/refund/{refund_id}/{asked(each, 'id')}",
        "sku": cell(line, "sku"),
        "product_id": cell(line, "product_id"),
        "variant_id": cell(line, "variant_id"),
        "title": cell(line, "title"),
        "gift_card": cell(line, "gift_card") or "false",
        "quantity": plain(-quantity),
        "value": plain(-worth),
        "currency": _currency(each, "subtotal_set") or currency or _paid_in(refund),
        "test": "false",
        "happened_at": asked(refund, "created_at"),
        "updated_at": asked(refund, "created_at"),
    }


def _currency(thing: Json, name: str) -> str | None:
    inner = thing.get(name)
    money = inner.get("shop_money") if isinstance(inner, dict) else None
    return cell(money, "currency_code") if isinstance(money, dict) else None


def _paid_in(refund: Json) -> str | None:
    return next((cell(each, "currency") for each in listed(refund, "transactions")), None)


def _many(thing: Json) -> int:
    if isinstance(thing, dict) and isinstance(thing.get("refund_line_items"), list):
        return len(thing["refund_line_items"])
    return many_lines(thing)


# The others ---------------------------------------------------------------------------------------------


def _levels(thing: Json) -> list[Row]:
    """How much of an item is available at a location."""
    item, location = asked(thing, "inventory_item_id"), asked(thing, "location_id")
    told = cell(thing, "admin_graphql_api_id")
    if told is not None:
        place, _, query = told.partition("?")
        said = (place.rpartition("/")[2], query.rpartition("inventory_item_id=")[2])
        if said != (location, item):
            raise Fault(
                "inventory_item_id",
                f"it tells of item {item} at {location}, and the global id of {said[1][:40]} at "
                f"{said[0][:40]}: one of them was rounded or mistaken",
            )
    return [
        {
            "inventory_item_id": item,
            "location_id": location,
            "sku": cell(thing, "sku"),
            "available": cell(thing, "available"),
            "updated_at": asked(thing, "updated_at"),
        }
    ]


def _fulfilments(thing: Json) -> list[Row]:
    """The lines of a fulfilment."""
    fulfilment_id = _id(thing)
    return [
        {
            "fulfilment_id": fulfilment_id,
            "order_id": asked(thing, "order_id"),
            "line_id": _id(line),
            "sku": cell(line, "sku"),
            "quantity": cell(line, "quantity"),
            "status": cell(thing, "status"),
            "shipment_status": cell(thing, "shipment_status"),
            "carrier": cell(thing, "tracking_company"),
            "location_id": cell(thing, "location_id"),
            "created_at": asked(thing, "created_at"),
            "updated_at": cell(thing, "updated_at") or asked(thing, "created_at"),
        }
        for line in parts_of(thing, "line_items", "fulfilment")
    ]


def _products(thing: Json) -> list[Row]:
    """The variants of a product: what a customer buys, and what has a SKU."""
    product_id = _id(thing)
    return [
        {
            "product_id": product_id,
            "variant_id": _id(each),
            "inventory_item_id": cell(each, "inventory_item_id"),
            "sku": cell(each, "sku"),
            "barcode": cell(each, "barcode"),
            "title": cell(thing, "title"),
            "variant_title": cell(each, "title"),
            "vendor": cell(thing, "vendor"),
            "product_type": cell(thing, "product_type"),
            "status": cell(thing, "status"),
            "price": cell(each, "price"),
            "updated_at": cell(each, "updated_at") or cell(thing, "updated_at"),
        }
        for each in parts_of(thing, "variants", "product")
    ]


def _customers(thing: Json) -> list[Row]:
    """A customer, with what it agrees to; before 2024 Shopify told that of e-mail in another way as well."""
    name = full_name(thing)
    row = {
        "customer_id": _id(thing),
        "name": name,
        "email": cell(thing, "email"),
        "phone": cell(thing, "phone"),
        **_agreed(thing, "email"),
        **_agreed(thing, "sms"),
        "country": cell(thing, "country_code", "default_address"),
        "updated_at": asked(thing, "updated_at"),
    }
    accepts = cell(thing, "accepts_marketing")
    if row["email_state"] is None and accepts is not None:
        row["email_state"] = "subscribed" if accepts == "true" else "unsubscribed"
        row["email_consent_at"] = cell(thing, "accepts_marketing_updated_at")
    return [row]


def _consents(thing: Json) -> list[Row]:
    """What a customer agrees to, told for itself, as of when that changed."""
    if not isinstance(thing, dict):
        raise Fault("customer_id", "this is no customer's consent")
    customer_id = _id(thing, "customer_id" if "customer_id" in thing else "id")
    row = {**_agreed(thing, "email"), **_agreed(thing, "sms")}
    changed = row["email_consent_at"] or row["sms_consent_at"]
    if changed is None:
        raise Fault("consent_updated_at", "it tells of no consent, or not since when")
    return [{"customer_id": customer_id, **row, "updated_at": changed}]


def _agreed(thing: Json, channel: str) -> Row:
    within = f"{channel}_marketing_consent"
    state = cell(thing, "state", within)
    return {
        f"{channel}_state": state and state.lower(),
        f"{channel}_consent_at": cell(thing, "consent_updated_at", within),
    }


def stock_items(thing: Json) -> dict[str, str]:
    """By which numbers levels of stock will name the SKUs of a product."""
    return {
        str(row["inventory_item_id"]): str(row["sku"])
        for row in _products(thing)
        if row["inventory_item_id"] is not None and row["sku"] is not None
    }


KINDS: Mapping[str, Kind] = {
    "orders": Kind(
        (
            *("kind", "order_id", "order_name", "line_id", "part", "sku", "product_id"),
            *("variant_id", "title", "gift_card", "quantity", "value", "currency"),
            *("customer_id", "financial_status", "test", "happened_at", "updated_at"),
        ),
        ("orders", "order", "refund"),
        _orders,
        _many,
    ),
    "stock": Kind(
        ("inventory_item_id", "location_id", "sku", "available", "updated_at"),
        ("inventory_levels", "inventory_level"),
        _levels,
    ),
    "fulfilments": Kind(
        (
            *("fulfilment_id", "order_id", "line_id", "sku", "quantity", "status"),
            *("shipment_status", "carrier", "location_id", "created_at", "updated_at"),
        ),
        ("fulfillments", "fulfillment"),
        _fulfilments,
    ),
    "products": Kind(
        (
            *("product_id", "variant_id", "inventory_item_id", "sku", "barcode", "title"),
            *("variant_title", "vendor", "product_type", "status", "price", "updated_at"),
        ),
        ("products", "product"),
        _products,
    ),
    "customers": Kind(
        (
            *("customer_id", "name", "email", "phone", "email_state", "email_consent_at"),
            *("sms_state", "sms_consent_at", "country", "updated_at"),
        ),
        ("customers", "customer"),
        _customers,
    ),
    "consents": Kind(
        (
            *("customer_id", "email_state", "email_consent_at", "sms_state", "sms_consent_at"),
            "updated_at",
        ),
        (),
        _consents,
    ),
}
