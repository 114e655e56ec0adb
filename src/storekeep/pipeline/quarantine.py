"""Rows that could not be taken in, each with its place, its reason and what it said, until they can be.

Hides that nothing is ever taken away: a row leaves the list by a step that was noted after it.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from storekeep.lake import QUARANTINE, Kept
from storekeep.pipeline.intake import Intake

_WRITER = "quarantine"
KEPT_ASIDE: dict[str, Kept] = {"kept": QUARANTINE}
"""The tables that a question to quarantine reads, by the names it gives them."""
ASIDE = (
    "SELECT left(md5(concat_ws(chr(10), source, source_file, source_line, raw)), 16) AS id, kept.*"
    " FROM kept WHERE known_at <= $known_by"
)
"""The rows that were in quarantine by a time."""


class Quarantining(Intake):
    """From rejected rows to facts after all."""

    def put_aside(self, rejected: pa.Table) -> None:
        """Keep rejected rows in quarantine, each once: a row is the same that reads the same in its place."""
        if rejected.num_rows == 0:
            return
        with self.store.transaction(self.tenant) as tx:
            tx.position(_WRITER, 0, lock=True)
            rows = self.lake.query(
                "SELECT told.* FROM told ANTI JOIN kept USING (source, source_file, source_line, raw)"
                " ORDER BY source_file, source_line",
                tables={"kept": QUARANTINE},
                inputs={"told": rejected},
            )
            if rows.num_rows:
                position = (self.lake.written(QUARANTINE.name, _WRITER) or 0) + 1
                known = known_from(rows, self.now())
                self.lake.append(QUARANTINE, known, writer=_WRITER, position=position)


def known_from(rows: pa.Table, at: datetime) -> pa.Table:
    """The same rows, known from `at` on."""
    place = rows.column_names.index("known_at")
    times = pa.repeat(pa.scalar(at, rows.schema.field(place).type), rows.num_rows)
    return rows.set_column(place, rows.schema.field(place), times)
