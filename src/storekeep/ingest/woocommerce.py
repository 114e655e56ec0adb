"""WooCommerce's JSON: orders, products and customers.

Hides where WooCommerce says what, and that its times are UTC without saying so. An order's line gives a row
of what was `sold`, with the order's status: a mapping says which of them are sales. Of a refund an order
tells the total and not the lines, so it gives a row of its own (`refunded`), without an item.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    plain,
)

_NOBODY = "0"


def _time(thing: Json, name: str) -> str | None:
    said = cell(thing, f"{name}_gmt")
    return None if said is None else f"{said}Z"


def _id(thing: Json) -> str:
    own = asked(thing, "id")
    if not own.isdecimal():
        raise Fault("id", f"{own[:40]} is no identifier of WooCommerce")
    return own


def _orders(thing: Json) -> list[Row]:
    order_id, lines = (
        _id(thing) if isinstance(thing, dict) else asked(thing, "id"),
        listed(thing, "line_items"),
    )
    if not lines:
        raise Fault("line_items", "this order has no lines, or is no order")
    customer = cell(thing, "customer_id")
    shared: Row = {
        "order_id": order_id,
        "currency": asked(thing, "currency"),
        "created_at": _time(thing, "date_created"),
    }
    if shared["created_at"] is None:
        raise Fault("date_created_gmt", "this order does not say when it was made")
    rows: list[Row] = [
        {
            **shared,
            "kind": "sold",
            "status": asked(thing, "status"),
            "order_number": cell(thing, "number"),
            "customer_id": None if customer == _NOBODY else customer,
            "line_id": _id(line),
            "part": _id(line),
            "sku": cell(line, "sku"),
            "product_id": cell(line, "product_id"),
            "variation_id": cell(line, "variation_id"),
            "name": cell(line, "name"),
            "quantity": plain(number(line, "quantity")),
            "value": plain(number(line, "total")),
            "updated_at": _time(thing, "date_modified") or shared["created_at"],
        }
        for line in lines
    ]
    if len({row["line_id"] for row in rows}) < len(rows):
        raise Fault("line_items", "two lines of this order have one id")
    return rows + [
        {
            **shared,
            "kind": "refunded",
            "part": f"refund/{_id(refund)}",
            "value": plain(number(refund, "total")),
            "updated_at": shared["created_at"],
        }
        for refund in listed(thing, "refunds")
    ]


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
