"""How facts move stock positions.

One definition of what each type of event does to what is on hand, on order and committed, so that the live
positions, their rebuilding and what an agent is told come from the same arithmetic. Hides the signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.events import Event
from storekeep.retail import ORDER_MOVE

LINES = pa.schema(
    [
        ("decision_id", pa.string()),
        ("purchase_order_id", pa.string()),
        ("location_id", pa.string()),
        ("sku", pa.string()),
        ("supplier_id", pa.string()),
        ("order_units", pa.int64()),
    ]
)


def order_moves(lines: pa.Table, verb: str, at: datetime) -> pa.Table:
    """A step in the life of ordered lines as facts: `decision_id`, keys and `order_units` in, moves out."""
    many = lines.num_rows
    keys = pc.binary_join_element_wise(lines["decision_id"], pa.scalar(verb), "/")
    order = (
        lines["purchase_order_id"]
        if "purchase_order_id" in lines.column_names
        else pa.nulls(many, pa.string())
    )
    times = pa.array([at] * many, pa.timestamp("us", tz="UTC"))
    return pa.table(
        [
            *(keys, lines["decision_id"], order, lines["location_id"], lines["sku"]),
            *(lines["supplier_id"], lines["order_units"], times, times),
        ],
        names=list(ORDER_MOVE.names),
    )


_DELTAS: Mapping[str, tuple[int, int, int]] = {
    "OrderCommitted": (0, 0, 1),
    "OrderReleased": (0, 0, -1),
    "PurchaseOrderConfirmed": (0, 1, -1),
    "PurchaseOrderCancelled": (0, -1, 0),
    "GoodsReceived": (1, -1, 0),
}


MOVING = frozenset({"SaleRecorded", "StockCounted", *_DELTAS})
"""The types of events that move stock."""
_STILL = pa.table(
    {
        **{name: pa.array([], pa.string()) for name in ("location_id", "sku")},
        **{
            name: pa.array([], pa.int64())
            for name in ("on_hand_units", "on_order_units", "committed_units", "counted_units")
        },
    }
)


def moves(each: Event) -> pa.Table:
    """The net change an event makes to each stock position.

    Goods that customers bring back are not sold again until somebody counts them, so returns reduce what
    a batch takes from the shelf but never fill it. Of several counts of an item the last one holds.
    """
    kept = "sum"
    if each.type not in MOVING:
        return _STILL
    facts = each.facts
    if each.type == "StockCounted":
        kept, facts = "last", facts.sort_by("occurred_at")
    totals = facts.group_by(["location_id", "sku"], use_threads=False).aggregate(
        [("quantity_units", kept)]
    )
    units = totals[f"quantity_units_{kept}"]
    zero = pa.array([0] * totals.num_rows, pa.int64())
    hand, ordered, committed, counted = zero, zero, zero, pa.nulls(totals.num_rows, pa.int64())
    if each.type == "SaleRecorded":
        hand = pc.negate(pc.max_element_wise(units, 0))
    elif each.type == "StockCounted":
        counted = units
    else:
        hand, ordered, committed = (pc.multiply(units, sign) for sign in _DELTAS[each.type])
    return pa.table(
        {
            "location_id": totals["location_id"],
            "sku": totals["sku"],
            "on_hand_units": hand,
            "on_order_units": ordered,
            "committed_units": committed,
            "counted_units": counted,
        }
    )
