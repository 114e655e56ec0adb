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


# By how much a unit of each moves what is on hand, on order and committed.
_DELTAS: Mapping[str, tuple[int, int, int]] = {
    "SaleRecorded": (-1, 0, 0),
    "OrderCommitted": (0, 0, 1),
    "OrderReleased": (0, 0, -1),
    "PurchaseOrderConfirmed": (0, 1, -1),
    "PurchaseOrderCancelled": (0, -1, 0),
    "GoodsReceived": (1, -1, 0),
}
_ON_SHELF = frozenset(name for name, (on_hand, *_) in _DELTAS.items() if on_hand)

_UNITS = ("on_hand_units", "on_order_units", "committed_units")
_STEPS = pa.schema(
    [
        ("place", pa.int64()),
        *((name, pa.string()) for name in ("location_id", "sku")),
        *((name, pa.int64()) for name in _UNITS),
    ]
)


def oldest(events: Sequence[Event]) -> datetime | None:
    """When the first of what some events say of the shelf happened; None when none of them does."""
    found = [
        pc.min(each.facts["occurred_at"]).as_py()
        for each in events
        if each.type in _ON_SHELF and each.facts.num_rows
    ]
    return min(found, default=None)


def moves(events: Sequence[Event], counted: pa.Table | None = None) -> pa.Table:
    """By how much some events, one after the other, move each stock position: a row an item.

    `location_id`, `sku`, the net changes `on_hand_units`, `on_order_units`, `committed_units`, and
    `least_units`: the lowest that on hand came to meanwhile, seen from where it began.

    Goods that customers bring back are not sold again until somebody counts them, so returns reduce what
    a batch takes from the shelf but never fill it. What happened before an item was `counted` (`location_id`,
    `sku`, `counted_us`) is in the count, and moves nothing on hand.
    """
    by_type: dict[str, list[int]] = {}
    for place, each in enumerate(events):
        if each.type in _DELTAS:
            by_type.setdefault(each.type, []).append(place)
    parts = [
        _steps(type_, places, [events[place].facts for place in places], counted)
        for type_, places in by_type.items()
    ]
    return _walked(pa.concat_tables([_STEPS.empty_table(), *parts]).combine_chunks())


def _steps(
    type_: str, places: Sequence[int], parts: Sequence[pa.Table], counted: pa.Table | None
) -> pa.Table:
    """The net change that each event of one type makes to each item, in the event's place."""
    wanted = ["location_id", "sku", "quantity_units", "occurred_at"]
    facts = pa.concat_tables(part.select(wanted) for part in parts).combine_chunks()
    whose = np.repeat(places, [part.num_rows for part in parts])
    facts = facts.append_column("place", pa.array(whose))
    facts = facts.append_column("shelf_units", facts["quantity_units"])
    if counted is not None and counted.num_rows and type_ in _ON_SHELF:
        facts = _without_counted(facts, counted)
    totals = facts.group_by(["place", "location_id", "sku"], use_threads=False).aggregate(
        [("quantity_units", "sum"), ("shelf_units", "sum")]
    )
    units, shelf = totals["quantity_units_sum"], totals["shelf_units_sum"]
    if type_ == "SaleRecorded":
        shelf = pc.max_element_wise(shelf, 0)
    on_hand, on_order, committed = _DELTAS[type_]
    return pa.table(
        [
            *(totals["place"], totals["location_id"], totals["sku"], pc.multiply(shelf, on_hand)),
            *(pc.multiply(units, on_order), pc.multiply(units, committed)),
        ],
        schema=_STEPS,
    )


def _walked(steps: pa.Table) -> pa.Table:
    """The steps of each item put together in their order."""
    keys = [steps[name].combine_chunks().dictionary_encode() for name in ("location_id", "sku")]
    place, sku = (each.indices.to_numpy().astype(np.int64) for each in keys)
    items = place * max(1, len(keys[1].dictionary)) + sku
    order = np.lexsort((steps["place"].to_numpy(), items))
    ends = np.flatnonzero(np.diff(items[order], append=-1) != 0) + 1
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)]
    columns: dict[str, pa.Array] = {
        name: steps[name].combine_chunks().take(pa.array(order[starts]))
        for name in ("location_id", "sku")
    }
    for name in _UNITS:
        level = np.cumsum(steps[name].to_numpy()[order])
        began = np.concatenate([[0], level[ends[:-1] - 1]]).astype(np.int64)[: len(ends)]
        columns[name] = pa.array(level[ends - 1] - began, pa.int64())
        if name == "on_hand_units":
            least = np.minimum.reduceat(level, starts) if len(ends) else level
            columns["least_units"] = pa.array(least - began, pa.int64())
    return pa.table(columns)


def _without_counted(facts: pa.Table, counted: pa.Table) -> pa.Table:
    """Facts with no `shelf_units` where the item was counted after they happened."""
    keys = ["location_id", "sku"]
    facts = facts.join(counted, keys).combine_chunks()
    before = pc.less(facts["occurred_at"].cast(pa.int64()), facts["counted_us"])
    units = pc.if_else(pc.fill_null(before, fill_value=False), 0, facts["shelf_units"])
    place = facts.column_names.index("shelf_units")
    return facts.set_column(place, "shelf_units", units)
