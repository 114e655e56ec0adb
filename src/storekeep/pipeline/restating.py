"""Documents that are told again when they change: what the newest telling of a line moves.

Hides that facts only add up. A line that is told as it was told before moves nothing; one that changed moves
the difference; one that is by now of another item or time is taken back where it was, and told where it is.
So it comes to the same in whatever order, and however often, a document is told: what was told as of the
latest counts, and of two tellings of one time the one with less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.ingest import Loaded, Mapping
from storekeep.lake import Lake
from storekeep.retail import SALE_LINE
from storekeep.store import RESTATED

_DOCUMENT = ("__document", "__line", "__as_of")
# What a row comes to in the order of tellings: of one time the one with less comes last.
_AFTER = "row({0}as_of, -{0}quantity_units, -{0}value_minor)"
_NEWEST = """
    SELECT told.* FROM (
      SELECT * RENAME (__document AS document, __line AS line, __as_of AS as_of) FROM told
      QUALIFY row_number() OVER (PARTITION BY __document, __line
        ORDER BY __as_of DESC, quantity_units, value_minor, sku, occurred_at, source_file, source_line) = 1
    ) AS told LEFT JOIN before USING (document, line)
    WHERE before.as_of IS NULL OR {later}
"""
_MOVES = """
    WITH both_told AS (
      SELECT newest.*, before.sku AS was_sku, before.occurred_at AS was_at,
        coalesce(before.quantity_units, 0) AS was_units, coalesce(before.value_minor, 0) AS was_minor,
        coalesce(before.sku = newest.sku AND before.occurred_at = newest.occurred_at, true) AS stays
      FROM newest LEFT JOIN before USING (document, line)),
    moved AS (
      SELECT * REPLACE (
          CASE WHEN stays THEN quantity_units - was_units ELSE quantity_units END AS quantity_units,
          CASE WHEN stays THEN value_minor - was_minor ELSE value_minor END AS value_minor),
        'moved' AS way FROM both_told
      UNION ALL
      SELECT * REPLACE (-was_units AS quantity_units, -was_minor AS value_minor, was_sku AS sku,
          was_at AS occurred_at, CAST(timezone($zone, was_at) AS DATE) AS day),
        'taken_back' AS way FROM both_told WHERE NOT stays)
    SELECT * REPLACE (md5(concat_ws('|', $source, length(document), document, length(line), line,
        epoch_us(as_of), epoch_us(occurred_at), was_units, was_minor, quantity_units, value_minor, way))
        AS line_key)
    FROM moved WHERE quantity_units <> 0 OR value_minor <> 0
    ORDER BY document, line, way
"""


class Moves(NamedTuple):
    """The facts that follow (`SALE_LINE`), how lines stand then (`RESTATED`), and those told anew."""

    facts: pa.Table
    state: pa.Table
    fresh: pa.Table


def told(mapping: Mapping, batches: Sequence[Loaded]) -> pa.Table:
    """The rows of batches, and of each its document, its line in it, and as of when it was told."""
    parts = []
    for each in batches:
        if each.restated is None:
            continue
        named = [each.rows[name].cast(pa.string()) for name in mapping.document]
        document = pc.binary_join_element_wise(*named, "/")
        columns = (document, each.restated["line"], each.restated["as_of"])
        rows = each.rows
        for name, column in zip(_DOCUMENT, columns, strict=True):
            rows = rows.append_column(name, column)
        parts.append(rows)
    return pa.concat_tables(parts)


def documents(rows: pa.Table) -> list[str]:
    """The documents that rows are of, each once."""
    return [str(each) for each in pc.unique(rows["__document"]).to_pylist()]


def moves(lake: Lake, mapping: Mapping, rows: pa.Table, before: pa.Table) -> Moves:
    """What rows move of how their lines stood before."""
    later = f"{_AFTER.format('told.')} > {_AFTER.format('before.')}"
    newest = lake.query(
        _NEWEST.format(later=later), tables={}, inputs={"told": rows, "before": before}
    )
    found = lake.query(
        _MOVES,
        tables={},
        inputs={"newest": newest, "before": before},
        parameters={
            "zone": mapping.day_time_zone or mapping.time_zone,
            "source": mapping.source,
        },
    )
    facts = found.select(list(SALE_LINE.names)).cast(SALE_LINE.arrow)
    state = newest.select(RESTATED.names).cast(RESTATED)
    return Moves(facts, state, found.filter(pc.equal(found["way"], "moved")))
