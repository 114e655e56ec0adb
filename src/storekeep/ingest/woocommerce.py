"""WooCommerce's JSON: orders, products and customers.

Hides where WooCommerce says what, and that its times are UTC without saying so. An order's line gives a row
of what was `sold`, with the order's status: a mapping says which of them are sales. An order only names its
refunds, with what each came to. Where one was asked for what came back, each line of it gives a row
(`refunded`, not above nothing); money that is of no line gives a row without an item.
"""

from __future__ import annotations

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
    number,
    number_of,
    parts_of,
    plain,
)

_NOBODY = "0"
_TOLD = ("line_items", "shipping_lines", "fee_lines")
_ROUNDED = Decimal("0.01")
_UNDONE = ("cancelled", "refunded")


def _time(thing: Json, name: str) -> str | None:
    said = cell(thing, f"{name}_gmt")
    return None if said is None else f"{said}Z"


def _id(thing: Json) -> str:
    return number_of(thing, "WooCommerce")


def _orders(thing: Json) -> list[Row]:
    order_id, lines = _id(thing), parts_of(thing, "line_items", "order")
    customer, made = cell(thing, "customer_id"), _time(thing, "date_created")
    if made is None:
        raise Fault("date_created_gmt", "this order does not say when it was made")
    shared: Row = {
        "order_id": order_id,
        "order_number": cell(thing, "number"),
        "status": asked(thing, "status"),
        "customer_id": None if customer == _NOBODY else customer,
        "currency": asked(thing, "currency"),
        "created_at": made,
        "updated_at": _time(thing, "date_modified") or made,
    }
    sold = {_id(line): {**shared, **_line(line), "kind": "sold"} for line in lines}
    if len(sold) < len(lines):
        raise Fault("line_items", "two lines of this order have one id")
    return [
        *sold.values(),
        *(row for refund in listed(thing, "refunds") for row in _refund(refund, shared, sold)),
    ]


def _line(line: Json) -> Row:
    return {
        "line_id": _id(line),
        "part": _id(line),
        "sku": cell(line, "sku"),
        "product_id": cell(line, "product_id"),
        "variation_id": cell(line, "variation_id"),
        "name": cell(line, "name"),
        "quantity": plain(number(line, "quantity")),
        "value": plain(number(line, "total")),
    }


def _refund(refund: Json, order: Row, sold: Mapping[str, Row]) -> list[Row]:
    """What came back, line by line, as of the refund; and what was paid back that no line tells of."""
    refund_id = _id(refund)
    made = _time(refund, "date_created") or order["created_at"]
    shared: Row = {**order, "kind": "refunded", "created_at": made}
    rows = [_refunded(line, refund_id, shared, sold) for line in listed(refund, "line_items")]
    if rest := _untold(refund):
        # It says the same however often its order is told anew, as long as that sells something.
        status = order["status"] if order["status"] in _UNDONE else None
        names = ("kind", "order_id", "currency", "created_at")
        row = {name: shared[name] for name in names} | {"updated_at": made, "status": status}
        rows.append({**row, "part": f"refund/{refund_id}", "value": plain(rest)})
    return rows


def _refunded(line: Json, refund_id: str, refund: Row, sold: Mapping[str, Row]) -> Row:
    told = _line(line)
    of = next(
        (
            cell(each, "value")
            for each in listed(line, "meta_data")
            if each.get("key") == "_refunded_item_id"
        ),
        None,
    )
    for name in ("quantity", "total"):
        if number(line, name) > 0:
            raise Fault(
                name, f"refund {refund_id} gives something more of a line, and takes none back"
            )
    return {
        **refund,
        **told,
        "line_id": of,
        "part": f"refund/{refund_id}/{told['line_id']}",
        # A product that is gone has its SKU only where it was sold.
        "sku": told["sku"] or sold.get(of or "", {}).get("sku"),
    }


def _untold(refund: Json) -> Decimal:
    """What was paid back (below nothing) beyond the lines of a refund, their tax, shipping and fees."""
    if "line_items" not in refund:
        return number(refund, "total")
    lines = [line for name in _TOLD for line in listed(refund, name)]
    told = sum(
        (number(line, "total") + number(line, "total_tax", "0") for line in lines), Decimal(0)
    )
    rest = -number(refund, "amount") - told
    # Each line's tax is rounded for itself.
    return rest if rest < -_ROUNDED * len(lines) else Decimal(0)


def _products(thing: Json) -> list[Row]:
    if not isinstance(thing, dict) or "regular_price" not in thing:
        raise Fault("id", "this is no product")
    categories = listed(thing, "categories")
    return [
        {
            "product_id": _id(thing),
            "sku": cell(thing, "sku"),
            "name": cell(thing, "name"),
            "type": cell(thing, "type"),
            "status": cell(thing, "status"),
            "category": cell(categories[0], "name") if categories else None,
            "price": cell(thing, "price"),
            "updated_at": _time(thing, "date_modified"),
        }
    ]


def _customers(thing: Json) -> list[Row]:
    """A customer; one that never changed tells only when it was made."""
    name = full_name(thing)
    changed = _time(thing, "date_modified") or _time(thing, "date_created")
    if changed is None:
        raise Fault("date_modified_gmt", "this customer does not say when it changed")
    return [
        {
            "customer_id": _id(thing),
            "name": name,
            "email": cell(thing, "email"),
            "phone": cell(thing, "phone", "billing"),
            "country": cell(thing, "country", "billing"),
            "updated_at": changed,
        }
    ]


KINDS: Mapping[str, Kind] = {
    "orders": Kind(
        (
            *("kind", "order_id", "order_number", "status", "line_id", "part", "sku", "product_id"),
            *("variation_id", "name", "quantity", "value", "currency", "customer_id"),
            *("created_at", "updated_at"),
        ),
        ("orders",),
        _orders,
    ),
    "products": Kind(
        (*("product_id", "sku", "name", "type", "status", "category", "price", "updated_at"),),
        ("products",),
        _products,
    ),
    "customers": Kind(
        ("customer_id", "name", "email", "phone", "country", "updated_at"),
        ("customers",),
        _customers,
    ),
}
