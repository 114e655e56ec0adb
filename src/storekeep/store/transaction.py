"""One tenant's view of the record: what is written through one transaction commits together or not at all.

Each module below it knows the tables of one matter; this one adds who may do what, and what is in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from storekeep.decisions import ModeChange, least_id
from storekeep.store.arrivals import Arriving
from storekeep.store.online import Online
from storekeep.store.people import People
from storekeep.store.traced import Traces


class Transaction(Arriving, People, Traces, Online):
    """One tenant's open transaction; made by `Store.transaction` only."""

    # Agents -----------------------------------------------------------------------------------------

    def add_mode(self, change: ModeChange) -> None:
        """From now on an agent may do this much; changes follow one another."""
        self._lock()
        self._run(
            "INSERT INTO agent_mode SELECT %s, coalesce(max(sequence), 0) + 1, %s, %s, %s::text[], %s, %s,"
            " %s, %s, %s FROM agent_mode WHERE tenant = %s",
            (
                *(
                    self.tenant,
                    change.agent,
                    change.agent_version,
                    list(change.groups),
                    change.mode,
                ),
                *(change.set_at, change.set_by, change.approved_by, change.reason, self.tenant),
            ),
        )

    def modes(self) -> list[ModeChange]:
        """What agents may do, the newest change first."""
        rows = self._run(
            "SELECT agent, agent_version, groups, mode, set_at, set_by, approved_by, reason"
            " FROM agent_mode WHERE tenant = %s ORDER BY sequence DESC",
            (self.tenant,),
        )
        return [ModeChange(**{**row, "groups": tuple(row["groups"])}) for row in rows]

    def halt(self, agent: str, at: datetime, by: str, reason: str) -> bool:
        """Stop all that an agent (with no name: any agent) has not done yet; False when it stands still."""
        return bool(
            self._run(
                "INSERT INTO halt VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING agent",
                (self.tenant, agent, at, by, reason),
            )
        )

    def resume(self, agent: str) -> bool:
        """Let an agent go on; False when it was not stopped."""
        return bool(
            self._run(
                "DELETE FROM halt WHERE tenant = %s AND agent = %s RETURNING agent",
                (self.tenant, agent),
            )
        )

    def halts(self) -> dict[str, dict[str, Any]]:
        """What is stopped, since when, by whom and why; the empty name stands for every agent."""
        rows = self._run(
            "SELECT agent, since, halted_by, reason FROM halt WHERE tenant = %s ORDER BY agent",
            (self.tenant,),
        )
        return {row["agent"]: row for row in rows}

    def slot(self, name: str, many: int) -> bool:
        """Take one of so many places until the transaction ends; False when all are taken."""
        return any(
            self._run(
                "SELECT pg_try_advisory_xact_lock(hashtext(%s), hashtext(%s)) AS got",
                (self.tenant, f"{name}#{place}"),
            )[0]["got"]
            for place in range(many)
        )

    def decided_lately(self, agent: str, since: datetime, subjects: Sequence[str]) -> list[str]:
        """Those of some subjects about which an agent has decided to act since a time, and may yet."""
        rows = self._run(
            "SELECT DISTINCT subject FROM decided WHERE tenant = %s AND agent = %s"
            " AND decision_id >= %s::uuid AND decided_at >= %s AND subject = ANY(%s)"
            " AND status IN ('pending', 'escalated', 'executed') ORDER BY subject",
            (self.tenant, agent, least_id(since), since, list(subjects)),
        )
        return [str(row["subject"]) for row in rows]

    # Feeds ------------------------------------------------------------------------------------------

    def add_drift(
        self, source: str, table: str, column: str, file: str, at: datetime, stops: str = ""
    ) -> None:
        """Note that a feed's files for a table differ in a column; why they are refused, where they are.

        What is noted already stays as it is.
        """
        self._run(
            "INSERT INTO feed_drift VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (self.tenant, source, table, column, bool(stops), file, at, stops),
        )

    def drop_drifts(
        self, source: str, table: str | None = None, columns: Sequence[str] = ()
    ) -> bool:
        """Nothing stops a feed's files any more (for one table, or all), and some columns are nothing new.

        False when there was neither.
        """
        rows = self._run(
            'DELETE FROM feed_drift WHERE tenant = %s AND source = %s AND "table" = coalesce(%s, "table")'
            ' AND (stops OR "column" = ANY(%s)) RETURNING source',
            (self.tenant, source, table, list(columns)),
        )
        return bool(rows)

    def drifts(self, source: str | None = None) -> list[dict[str, Any]]:
        """How files of a feed (or of all) differ from what was agreed."""
        return self._run(
            'SELECT source, "table", "column", stops, file, since, said FROM feed_drift'
            " WHERE tenant = %s AND source = coalesce(%s, source)"
            ' ORDER BY source, stops DESC, "table", "column"',
            (self.tenant, source),
        )

    # Registry ---------------------------------------------------------------------------------------

    def register(
        self, kind: str, name: str, version: str, content: str, at: datetime, by: str
    ) -> None:
        """Keep a version of a rulebook or policy for as long as there is a ledger; once is enough."""
        self._run(
            "INSERT INTO registry VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (self.tenant, kind, name, version, content, at, by),
        )

    def next_version(self, kind: str) -> int:
        """The number after the highest that a text of this kind was registered under; nobody else gets it."""
        self._lock()
        rows = self._run(
            "SELECT coalesce(max(version::bigint), 0) + 1 AS number FROM registry"
            " WHERE tenant = %s AND kind = %s",
            (self.tenant, kind),
        )
        return int(rows[0]["number"])

    def promote(
        self, kind: str, name: str, version: str, at: datetime, by: str, reason: str | None = None
    ) -> None:
        """Make a registered version the one in force; promotions follow one another."""
        self._lock()
        self._run(
            "INSERT INTO promotion SELECT %s, %s, %s, coalesce(max(sequence), 0) + 1, %s, %s, %s, %s"
            " FROM promotion WHERE tenant = %s AND kind = %s AND name = %s",
            (self.tenant, kind, name, version, at, by, reason, self.tenant, kind, name),
        )

    def promotions(self, kind: str, name: str, *, lock: bool = False) -> list[dict[str, Any]]:
        """Which versions were put in force, when, by whom and why, the newest first.

        Locked, nobody puts another one in force until the transaction ends.
        """
        if lock:
            self._lock()
        return self._run(
            "SELECT version, promoted_at, promoted_by, reason FROM promotion WHERE tenant = %s"
            " AND kind = %s AND name = %s ORDER BY sequence DESC",
            (self.tenant, kind, name),
        )

    def in_force(self, kind: str) -> dict[str, tuple[str, str]]:
        """Version and content of what is in force of a kind, by name."""
        rows = self._run(
            "SELECT DISTINCT ON (name) name, version, content FROM promotion JOIN registry"
            " USING (tenant, kind, name, version) WHERE tenant = %s AND kind = %s"
            " ORDER BY name, sequence DESC",
            (self.tenant, kind),
        )
        return {row["name"]: (row["version"], row["content"]) for row in rows}

    def decided_under(
        self, agent: str, rulebook_version: str, since: datetime
    ) -> list[dict[str, Any]]:
        """How many decisions an agent made under a version since a time, by where they stand; the money."""
        return self._run(
            "SELECT verdict, status, currency, count(*) AS many,"
            " coalesce(sum(money_minor), 0)::bigint AS money_minor FROM decided WHERE tenant = %s"
            " AND decision_id >= %s::uuid AND agent = %s AND rulebook_version = %s"
            " AND decided_at >= %s GROUP BY verdict, status, currency ORDER BY verdict, status, currency",
            (self.tenant, least_id(since), agent, rulebook_version, since),
        )

    def out_of_stock_share(self) -> float | None:
        """Of all stock positions the share with nothing on hand; None where there are none."""
        rows = self._run(
            "SELECT avg((on_hand_units = 0)::int)::float8 AS share FROM stock_position"
            " WHERE tenant = %s",
            (self.tenant,),
        )
        return None if rows[0]["share"] is None else float(rows[0]["share"])

    def registered(
        self, kind: str, name: str, version: str | None = None
    ) -> tuple[str, str] | None:
        """Version and content of a registered text: that whose version so begins, or that in force."""
        if version is None:
            rows = self._run(
                "SELECT r.version, r.content FROM promotion p JOIN registry r"
                " USING (tenant, kind, name, version) WHERE p.tenant = %s AND p.kind = %s"
                " AND p.name = %s ORDER BY p.sequence DESC LIMIT 1",
                (self.tenant, kind, name),
            )
        else:
            rows = self._run(
                "SELECT version, content FROM registry WHERE tenant = %s AND kind = %s"
                " AND name = %s AND starts_with(version, %s)",
                (self.tenant, kind, name, version),
            )
        return (rows[0]["version"], rows[0]["content"]) if len(rows) == 1 else None
