"""What a person who approves may change: between which values, and what follows from the change.

Hides how bounds are computed. A change is only put together here; whether it may happen is for `judge` to
say, of the changed proposal as of any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.decisions import Evidence, Proposed
from storekeep.policy.judging import Rulebook, rows_read
from storekeep.policy.query import ROW

BOUNDS = pa.schema(
    [
        pa.field("subject", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("parameter", pa.string(), nullable=False),
        pa.field("at_least", pa.float64()),
        pa.field("at_most", pa.float64()),
    ]
)
"""What an approver may set a parameter to; infinite where a side is open, null where it cannot be told."""


def bounds(rulebook: Rulebook, proposed: Proposed, evidence: Evidence) -> pa.Table:
    """What each escalate rule lets an approver change of a proposal, whether it spoke or not (`BOUNDS`)."""
    if not any(rule.changes for rule in rulebook.checked.rules):
        return BOUNDS.empty_table()
    found = rulebook.query.bounds(rows_read(rulebook, proposed, evidence))
    subjects = pc.take(proposed.proposals["subject"], found[ROW].combine_chunks())
    columns = [subjects, *(found[name] for name in BOUNDS.names[1:])]
    return pa.Table.from_arrays(columns, schema=BOUNDS)


def changed(
    rulebook: Rulebook, proposed: Proposed, evidence: Evidence, values: Mapping[str, int]
) -> Proposed:
    """The same proposals with parameters set to other values, and what derives from them computed again."""
    table = proposed.proposals
    for name, value in values.items():
        table = _put(table, name, pa.repeat(pa.scalar(value), table.num_rows))
    rows = rows_read(rulebook, replace(proposed, proposals=table), evidence)
    again = rulebook.query.derive(rows)
    for name in rulebook.checked.derived:
        table = _put(table, name, again[name])
    return replace(proposed, proposals=table)


def _put(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.field(place), column.cast(table.field(place).type))
