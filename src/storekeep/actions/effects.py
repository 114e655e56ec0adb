"""What was done in the retailer's systems, as facts for the bus: confirmed effects come back as events.

Hides which end of an action is which fact, what of a receipt and of an order makes it up, and how what is
still to be done waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from storekeep import canonical, stock
from storekeep.actions.adapter import Order
from storekeep.decisions import Receipt
from storekeep.events import Event, event

_SOURCE = "actions"
_TOLD: Mapping[str, tuple[str, str]] = {
    "executed": ("PurchaseOrderConfirmed", "confirmed"),
    "compensated": ("PurchaseOrderCancelled", "cancelled"),
    **dict.fromkeys(
        ("failed", "dropped", "withdrawn", "rejected", "expired", "denied"),
        ("OrderReleased", "released"),
    ),
}
_KEYS = ("location_id", "sku", "supplier_id")
_LINE = frozenset({*_KEYS, "order_units"})


def orders_goods(parameters: Iterable[str]) -> bool:
    """Whether an action with these parameters orders goods, so that stock is on its way by it."""
    return {*parameters} >= _LINE


def effects(
    ends: Iterable[tuple[Order, str, Receipt | str | None]], at: datetime
) -> Iterator[Event]:
    """The events that follow from the ends that orders came to, one for each type and location."""
    grouped: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for order, end, result in ends:
        if end not in _TOLD or not orders_goods(order.parameters):
            continue
        row = {
            "decision_id": order.decision_id,
            "purchase_order_id": result.reference if isinstance(result, Receipt) else None,
            **{name: order.parameters[name] for name in (*_KEYS, "order_units")},
        }
        grouped.setdefault((*_TOLD[end], row["location_id"]), []).append(row)
    for (type_, verb, location_id), rows in sorted(grouped.items()):
        yield event(type_, _SOURCE, location_id, at, _moves(rows, verb, at))


def corrections(before: Order, after: Order, at: datetime, number: int) -> Iterator[Event]:
    """A person changed what is asked for: the old is on its way no more, the new is.

    `number` tells the changes of one decision apart.
    """
    if not orders_goods(before.parameters):
        return
    for order, type_, verb in (
        (before, *_TOLD["withdrawn"]),
        (after, "OrderCommitted", "committed"),
    ):
        row = {
            "decision_id": order.decision_id,
            "purchase_order_id": None,
            **{name: order.parameters[name] for name in (*_KEYS, "order_units")},
        }
        moves = _moves([row], f"{verb}/{number}", at)
        yield event(type_, _SOURCE, row["location_id"], at, moves)


def arrivals(receipts: Iterable[Receipt], at: datetime) -> dict[str, pa.Table]:
    """The goods that have arrived by what receipts say, as facts by location."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for receipt in receipts:
        units = receipt.details["received_units"]
        if units:
            row = {
                "decision_id": receipt.idempotency_key,
                "purchase_order_id": receipt.reference,
                **{name: receipt.details[name] for name in _KEYS},
                "order_units": units,
            }
            rows.setdefault(row["location_id"], []).append(row)
    return {location_id: _moves(rows[location_id], "received", at) for location_id in sorted(rows)}


def pending(
    orders: Sequence[Order], action: str, seed: str, expires_at: datetime | None = None
) -> pa.Table:
    """Pending actions for decisions recorded earlier; those of one seed and group belong together.

    After `expires_at` they are carried out no more.
    """
    batch = canonical.digest([seed])[:12]
    return pa.table(
        {
            "decision_id": pa.array([order.decision_id for order in orders], pa.string()),
            "action": pa.array([action] * len(orders), pa.string()),
            "task_group": pa.array([f"{order.group}/{batch}" for order in orders], pa.string()),
            "task": pa.array([canonical.text(order.parameters) for order in orders], pa.string()),
            "expires_at": pa.array([expires_at] * len(orders), pa.timestamp("us", tz="UTC")),
        }
    )


def _moves(rows: list[dict[str, Any]], verb: str, at: datetime) -> pa.Table:
    return stock.order_moves(pa.Table.from_pylist(rows, schema=stock.LINES), verb, at)
