"""Rows that could not be taken in, each with its place, its reason and what it said, until they can be.

Hides that nothing is ever taken away: a row leaves the list by a step that is noted after it. A row is known
again as a line is: by what it says, and by its number among those of its file that say the same. Rows are
kept before it is noted which run did so; what a crash left out is noted by the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa

from storekeep import ingest
from storekeep.errors import Refused
from storekeep.lake import QUARANTINE, QUARANTINE_STEPS, Kept
from storekeep.pipeline.sealing import Sealing
from storekeep.retail import REJECTED_STEP
from storekeep.store import Transaction

CORRECTED, TAKEN_IN, LEFT_OUT = "corrected", "taken_in", "left_out"
_WRITER = "quarantine"
KEPT_ASIDE: Mapping[str, Kept] = {"kept": QUARANTINE, "step": QUARANTINE_STEPS}
"""The tables that a question to quarantine reads, by the names it gives them."""
_EVERY = (
    "SELECT row_id AS id, named.*, corrected, coalesce(gone, false) AS gone FROM"
    " (SELECT md5(concat_ws(chr(10), source, source_file, source_line, raw))[:16] AS row_id, *"
    "  FROM kept WHERE known_at <= $known_by) AS named LEFT JOIN"
    " (SELECT row_id, arg_max(raw, known_at) FILTER (step = 'corrected') AS corrected,"
    "  bool_or(step <> 'corrected') AS gone FROM step WHERE known_at <= $known_by GROUP BY row_id)"
    " AS done USING (row_id)"
)
ASIDE = f"SELECT * EXCLUDE (row_id, gone) FROM ({_EVERY}) WHERE NOT gone"
"""The rows that are in quarantine as known by a time, with what they were corrected to."""
# A row that is no row says nothing by which it could be known again elsewhere.
_SAYS = (
    "concat_ws(chr(10), source, raw,"
    " CASE WHEN rule = 'malformed' THEN concat(source_file, ':', source_line) END)"
)
_NEWS = f"""
    WITH numbered AS (
      SELECT *, row_number() OVER (PARTITION BY source_file, says ORDER BY source_line) AS number
      FROM (SELECT *, {_SAYS} AS says FROM told)),
    most AS (
      SELECT says, max(many) AS many FROM (
        SELECT says, source_file, count(*) AS many FROM (SELECT *, {_SAYS} AS says FROM kept)
        SEMI JOIN numbered USING (says) GROUP BY ALL)
      GROUP BY says)
    SELECT numbered.* EXCLUDE (says, number) FROM numbered LEFT JOIN most USING (says)
    WHERE number > coalesce(many, 0)
    QUALIFY row_number() OVER (PARTITION BY says, number ORDER BY source_file, source_line) = 1
    ORDER BY source_file, source_line
"""


class Quarantining(Sealing):
    """From rejected rows to rows that can be taken in."""

    def keep_rejected(self, rejected: pa.Table) -> None:
        """Keep rejected rows in quarantine, each once however often it is read."""
        if rejected.num_rows == 0:
            return
        rejected = self._withhold(rejected)
        with self._alone_aside() as tx:
            self._trace_left(tx)
            rows = self.lake.query(_NEWS, tables={"kept": QUARANTINE}, inputs={"told": rejected})
            if rows.num_rows:
                version = self._add_aside(QUARANTINE, known_from(rows, self.now()))
                self._trace_rejected(tx, rows, QUARANTINE.name, version)

    def _trace_left(self, tx: Transaction) -> None:
        """Note what was kept last, where a crash came between that and its note."""
        name = QUARANTINE.name
        newest = self.lake.version(name)
        noted = max((run.version or 0 for run in tx.traced_versions(name, newest, 1)), default=0)
        # Version 0 has nothing in it.
        if noted >= newest:
            return
        version = self.lake.brought(name, _WRITER, self.lake.written(name, _WRITER) or 0)
        if noted < version:
            before, after = (
                self.lake.query(
                    "SELECT * FROM kept", tables={"kept": QUARANTINE}, versions={name: each}
                )
                for each in (version - 1, version)
            )
            rows = self.lake.query(
                "SELECT * FROM later EXCEPT ALL SELECT * FROM earlier",
                tables={},
                inputs={"earlier": before, "later": after},
            )
            self._trace_rejected(tx, rows, name, version)

    @contextmanager
    def _alone_aside(self) -> Iterator[Transaction]:
        """Keep others from quarantine meanwhile."""
        with self.store.transaction(self.tenant) as tx:
            tx.position(_WRITER, 0, lock=True)
            yield tx

    def _add_aside(self, kept: Kept, rows: pa.Table) -> int:
        """Append rows to one of quarantine's tables; the version that has them."""
        position = (self.lake.written(kept.name, _WRITER) or 0) + 1
        return self.lake.append(kept, rows, writer=_WRITER, position=position)

    def aside(self, source: str | None = None, rule: str | None = None) -> pa.Table:
        """The rows in quarantine, in the order of their files and lines; of one source or rule, or all.

        The columns of `rejected`, and before them `id`, behind them `corrected`: the row as it was corrected.
        """
        return self._aside(
            f"SELECT * FROM ({ASIDE}) WHERE ($source IS NULL OR source = $source)"
            " AND ($rule IS NULL OR rule = $rule) ORDER BY source, source_file, source_line, id",
            source=source,
            rule=rule,
        )

    def aside_row(self, row_id: str) -> dict[str, Any]:
        """One row, whether or not it has been taken in since (`gone`), with all `steps` taken about it."""
        found = self._aside(f"SELECT * EXCLUDE (row_id) FROM ({_EVERY}) WHERE id = $id", id=row_id)
        if found.num_rows == 0:
            raise Refused(
                f"no row {row_id} was ever in quarantine; `storekeep ingest quarantine list` shows them"
            )
        steps = self._aside(
            "SELECT step, raw, done_by, reason, known_at FROM step WHERE row_id = $id ORDER BY known_at",
            id=row_id,
        )
        return {**found.to_pylist()[0], "steps": steps.to_pylist()}

    def _aside(self, sql: str, **parameters: object) -> pa.Table:
        # Only what a question asks for may be given.
        given = {"known_by": self.now(), **parameters}
        given = {name: value for name, value in given.items() if f"${name}" in sql}
        return self.lake.query(sql, tables=KEPT_ASIDE, parameters=given)

    def correct(
        self, row_id: str, cells: Mapping[str, str], by: str, reason: str
    ) -> dict[str, Any]:
        """Write some cells of a row in quarantine anew; it stays there until it is taken in.

        Raises `Refused` when it is not there any more, or has no such cell. A row that was no row at all
        gets all its cells in this way.
        """
        with self._alone_aside():
            row = self.aside_row(row_id)
            if row["gone"]:
                raise Refused(f"row {row_id} is not in quarantine any more; nothing was changed")
            was = ingest.as_cells(row["corrected"] or row["raw"])
            if unknown := sorted(set(cells) - set(was)) if ingest.as_cells(row["raw"]) else []:
                raise Refused(
                    f"row {row_id} has no column {', '.join(unknown)}; it has {', '.join(was)}"
                )
            if hidden := sorted(name for name in cells if ingest.is_hidden(was.get(name))):
                raise Refused(
                    f"row {row_id} has {', '.join(hidden)} sealed, and what you type would not be; "
                    "have it sent again by its source"
                )
            raw = json.dumps({**was, **cells}, ensure_ascii=False, separators=(",", ":"))
            self._note_aside([(row_id, CORRECTED, raw)], by, reason)
        return self.aside_row(row_id)

    def _note_aside(
        self, done: Sequence[tuple[str, str, str]], by: str, reason: str | None
    ) -> None:
        """Note what was done about rows: of each its id, the step, and the row as it was after it."""
        now = self.now()
        rows = [
            {
                "row_id": row_id,
                "step": step,
                "raw": raw,
                "done_by": by,
                "reason": reason,
                "known_at": now,
            }
            for row_id, step, raw in done
        ]
        if rows:
            self._add_aside(QUARANTINE_STEPS, pa.Table.from_pylist(rows, REJECTED_STEP.arrow))


def known_from(rows: pa.Table, at: datetime) -> pa.Table:
    """The same rows, known from `at` on."""
    place = rows.column_names.index("known_at")
    times = pa.repeat(pa.scalar(at, rows.schema.field(place).type), rows.num_rows)
    return rows.set_column(place, rows.schema.field(place), times)
