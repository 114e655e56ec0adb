"""Lineage: what each run read and wrote, as it was at the run, and which runs others have been told of.

Hides how a run's details are kept (JSON, compressed), and that a run is known by the place of what it wrote:
a range of the event log, a version of a table, or both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import pyarrow as pa

from storekeep.store.pages import packed, unpacked
from storekeep.store.waiting import Waiting

_COLUMNS: LiteralString = (
    "r.run_id::text, r.job, r.state, r.begun_at, r.ended_at, r.output, r.partition, r.first, r.last,"
    " r.version, r.facts, r.content"
)


@dataclass(frozen=True)
class Traced:
    """One run: `job`, how it ended (`complete` or `fail`), and what it wrote.

    `facts` rows of the table `output`: onto the places `first` to `last` of a `partition` of the event log,
    or into a `version` of the table in the lake (with a partition: from those places). `content` says the
    rest.
    """

    run_id: str
    job: str
    state: str
    begun_at: datetime
    ended_at: datetime
    content: Mapping[str, Any]
    output: str | None = None
    partition: int | None = None
    first: int | None = None
    last: int | None = None
    version: int | None = None
    facts: int = 0


class Traces(Waiting):
    """Runs, what they wrote, and who was told."""

    def add_traced(self, run: Traced) -> None:
        """Record a run; one that is there already stays as it is."""
        said = json.dumps(run.content, separators=(",", ":"), ensure_ascii=False)
        (page,) = packed(pa.array([said]))
        self._cursor.execute(
            "INSERT INTO lineage_run VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %b)"
            " ON CONFLICT DO NOTHING",
            (
                *(self.tenant, run.run_id, run.job, run.state, run.begun_at, run.ended_at),
                *(run.output, run.partition, run.first, run.last, run.version, run.facts),
                page.content,
            ),
        )

    def traced(self, run_id: str) -> Traced | None:
        """The run of an id."""
        rows = self._traced(
            f"SELECT {_COLUMNS} FROM lineage_run r WHERE r.tenant = %s AND r.run_id = %s",
            (self.tenant, run_id),
        )
        return rows[0] if rows else None

    def traced_places(
        self, output: str, places: Mapping[int, int], limit: int | None = None
    ) -> list[Traced]:
        """The runs that put facts of a table on the log, up to a place of each partition, newest first.

        Their `version` is that of the table that had all of it first.
        """
        return self._traced(
            "SELECT r.run_id::text, r.job, r.state, r.begun_at, r.ended_at, r.output, r.partition, r.first,"
            " r.last, (SELECT v.version FROM lineage_run v WHERE v.tenant = r.tenant"
            "  AND v.output = r.output AND v.partition = r.partition AND v.last >= r.last"
            "  AND v.version IS NOT NULL ORDER BY v.last LIMIT 1) AS version, r.facts, r.content"
            " FROM unnest(%s::int[], %s::bigint[]) AS told (partition, last)"
            " JOIN lineage_run r ON r.tenant = %s AND r.output = %s AND r.partition = told.partition"
            " AND r.first <= told.last AND r.version IS NULL"
            " ORDER BY r.ended_at DESC, r.partition, r.first DESC LIMIT %s",
            (list(places), list(places.values()), self.tenant, output, limit),
        )

    def traced_at(self, output: str, partition: int, first: int, last: int) -> list[Traced]:
        """The runs that put facts of a table on some places of the log, in their order."""
        return self._traced(
            f"SELECT {_COLUMNS} FROM lineage_run r WHERE r.tenant = %s AND r.output = %s"
            " AND r.partition = %s AND r.last >= %s AND r.first <= %s AND r.version IS NULL"
            " ORDER BY r.first",
            (self.tenant, output, partition, first, last),
        )

    def traced_versions(self, output: str, version: int, limit: int | None = None) -> list[Traced]:
        """The runs that wrote a table of the lake, up to a version of it, newest first."""
        return self._traced(
            f"SELECT {_COLUMNS} FROM lineage_run r WHERE r.tenant = %s AND r.output = %s"
            " AND r.version <= %s ORDER BY r.version DESC, r.run_id DESC LIMIT %s",
            (self.tenant, output, version, limit),
        )

    def count_traced(self, output: str, places: Mapping[int, int]) -> dict[str, int]:
        """How many runs put how many facts of a table on the log, up to a place of each partition."""
        (row,) = self._run(
            "SELECT count(*) AS runs, coalesce(sum(r.facts), 0)::bigint AS facts"
            " FROM unnest(%s::int[], %s::bigint[]) AS told (partition, last)"
            " JOIN lineage_run r ON r.tenant = %s AND r.output = %s AND r.partition = told.partition"
            " AND r.first <= told.last AND r.version IS NULL",
            (list(places), list(places.values()), self.tenant, output),
        )
        return row

    def count_traced_versions(self, output: str, version: int) -> dict[str, int]:
        """How many runs wrote how many rows of a table of the lake, up to a version of it."""
        (row,) = self._run(
            "SELECT count(*) AS runs, coalesce(sum(facts), 0)::bigint AS facts FROM lineage_run"
            " WHERE tenant = %s AND output = %s AND version <= %s",
            (self.tenant, output, version),
        )
        return row

    def untraced(
        self, types: Sequence[str], output: str, places: Mapping[int, int]
    ) -> list[dict[str, Any]]:
        """Events of some types that no run has put on the log, up to a place of each partition.

        Such came by a transport, or before lineage was kept. A row each: `partition`, `position`, `type`,
        `source`, `time`, `facts`.
        """
        return self._run(
            "SELECT e.partition, e.position, e.type, e.source, e.time, e.fact_count AS facts"
            " FROM unnest(%s::int[], %s::bigint[]) AS told (partition, last)"
            " JOIN event_log e ON e.tenant = %s AND e.partition = told.partition"
            " AND e.position <= told.last AND e.type = ANY(%s) WHERE NOT EXISTS (SELECT FROM lineage_run r"
            "  WHERE r.tenant = e.tenant AND r.output = %s AND r.partition = e.partition"
            "  AND r.last >= e.position AND r.first <= e.position AND r.version IS NULL)"
            " ORDER BY e.partition, e.position",
            (list(places), list(places.values()), self.tenant, list(types), output),
        )

    def unsent(self, target: str | None, limit: int, after: str | None = None) -> list[Traced]:
        """Runs in the order in which they ended: those of which a target was not told, or all of them.

        At most `limit`, and only those that follow the run `after`.
        """
        return self._traced(
            f"SELECT {_COLUMNS} FROM lineage_run r WHERE r.tenant = %s"
            " AND NOT EXISTS (SELECT FROM lineage_sent s"
            "  WHERE s.tenant = r.tenant AND s.target = %s AND s.run_id = r.run_id)"
            " AND (%s::uuid IS NULL OR (r.ended_at, r.run_id) > (SELECT p.ended_at, p.run_id"
            "  FROM lineage_run p WHERE p.tenant = r.tenant AND p.run_id = %s))"
            " ORDER BY r.ended_at, r.run_id LIMIT %s",
            (self.tenant, target, after, after, limit),
        )

    def mark_sent(self, target: str, run_ids: Sequence[str]) -> None:
        """A target has been told of runs."""
        self._run(
            "INSERT INTO lineage_sent SELECT %s, %s, unnest(%s::uuid[]) ON CONFLICT DO NOTHING",
            (self.tenant, target, list(run_ids)),
        )

    def _traced(self, statement: LiteralString, parameters: Sequence[Any]) -> list[Traced]:
        rows = self._run(statement, parameters)
        return [Traced(**{**row, "content": _content(row["content"])}) for row in rows]


def _content(kept: bytes) -> Mapping[str, Any]:
    (text,) = unpacked(kept, 1).to_pylist()
    content: Mapping[str, Any] = json.loads(text or "{}")
    return content
