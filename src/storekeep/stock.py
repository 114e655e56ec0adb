"""How facts move stock positions.

One definition of what each type of event does to what is on hand, on order and committed, so that the live
positions, their rebuilding and what an agent is told come from the same arithmetic. Hides the signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
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
    "SaleRecorded": (-1, 0, 0),
    "StockCounted": (0, 0, 0),
    "OrderCommitted": (0, 0, 1),
    "OrderReleased": (0, 0, -1),
    "PurchaseOrderConfirmed": (0, 1, -1),
    "PurchaseOrderCancelled": (0, -1, 0),
    "GoodsReceived": (1, -1, 0),
}


_MOVES = pa.schema(
    [
        ("place", pa.int64()),
        *((name, pa.string()) for name in ("location_id", "sku")),
        *(
            (f"{name}_units", pa.int64())
            for name in ("on_hand", "on_order", "committed", "counted")
        ),
    ]
)


def moves(events: Sequence[Event]) -> pa.Table:
    """The net change that each of some events makes to each stock position, `place` by `place`.

    Goods that customers bring back are not sold again until somebody counts them, so returns reduce what
    a batch takes from the shelf but never fill it. Of several counts of an item the last one holds.
    """
    by_type: dict[str, list[int]] = {}
    for place, each in enumerate(events):
        if each.type in _DELTAS:
            by_type.setdefault(each.type, []).append(place)
    parts = [
        _moves(type_, places, [events[place].facts for place in places])
        for type_, places in by_type.items()
    ]
    return pa.concat_tables([_MOVES.empty_table(), *parts])


def _moves(type_: str, places: Sequence[int], parts: Sequence[pa.Table]) -> pa.Table:
    """The moves that the events of one type make, each in its place."""
    wanted = ["location_id", "sku", "quantity_units", "occurred_at"]
    facts = pa.concat_tables(part.select(wanted) for part in parts).combine_chunks()
    whose = np.repeat(places, [part.num_rows for part in parts])
    facts = facts.append_column("place", pa.array(whose))
    counts = type_ == "StockCounted"
    kept = "last" if counts else "sum"
    if counts:
        facts = facts.sort_by("occurred_at")
    totals = facts.group_by(["place", "location_id", "sku"], use_threads=False).aggregate(
        [("quantity_units", kept)]
    )
    units = totals[f"quantity_units_{kept}"]
    if type_ == "SaleRecorded":
        units = pc.max_element_wise(units, 0)
    hand, ordered, committed = (pc.multiply(units, sign) for sign in _DELTAS[type_])
    return pa.table(
        {
            "place": totals["place"],
            "location_id": totals["location_id"],
            "sku": totals["sku"],
            "on_hand_units": hand,
            "on_order_units": ordered,
            "committed_units": committed,
            "counted_units": units if counts else pa.nulls(totals.num_rows, pa.int64()),
        },
        _MOVES,
    )
