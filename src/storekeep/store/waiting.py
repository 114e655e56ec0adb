"""What is still to be done or said: pending actions, breakers, requests for approval, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, cast

import pyarrow as pa

from storekeep.store.recorded import Recorded

USES = pa.schema([("limit", pa.string()), ("key", pa.string()), ("amount", pa.int64())])


@dataclass(frozen=True)
class Task:
    """A pending action: what was decided and still has to be done.

    `begun`: whether somebody may have sent it already. `dead`: whether it was given up before.
    """

    decision_id: str
    action: str
    group: str
    task: str
    attempts: int = 0
    begun: bool = False
    dead: bool = False
    expires_at: datetime | None = None


class Waiting(Recorded):
    """Work, and who waits for whom."""

    # Work still to be done --------------------------------------------------------------------------

    def add_tasks(self, tasks: pa.Table) -> None:
        """Enqueue pending actions (`decision_id`, `action`, `task_group`, `task`)."""
        self._copy_in("pending_action", tasks)

    def due_kinds(self) -> list[tuple[str, str | None]]:
        """Of which action, and of which agent, there are pending actions that are due, in order."""
        rows = self._run(
            "SELECT DISTINCT p.action, r.agent FROM pending_action p"
            " LEFT JOIN decision d USING (tenant, decision_id) LEFT JOIN run r USING (tenant, batch)"
            " WHERE p.not_before <= now()"
            " AND (p.leased_until IS NULL OR p.leased_until < now()) ORDER BY 1, 2"
        )
        return [(row["action"], row["agent"]) for row in rows]

    def lease_tasks(
        self,
        worker: str,
        limit: int,
        lease: timedelta,
        kind: tuple[str, str | None] | None = None,
        at: datetime | None = None,
    ) -> list[Task]:
        """Take pending actions that are due and that nobody holds, group by group.

        A lease that runs out gives the action back, so that a dead worker's actions are taken over. With
        `kind` only those of an action and an agent. One that was given up comes once more when it expires.
        """
        action, agent = kind or (None, None)
        rows = self._run(
            "WITH due AS (SELECT p.tenant, p.decision_id, p.begun FROM pending_action p"
            "  LEFT JOIN decision d USING (tenant, decision_id) LEFT JOIN run r USING (tenant, batch)"
            "  WHERE p.not_before <= now()"
            "  AND (p.leased_until IS NULL OR p.leased_until < now())"
            "  AND (p.dead_since IS NULL OR p.expires_at <= %s::timestamptz)"
            "  AND (%s::text IS NULL OR (p.action = %s AND r.agent IS NOT DISTINCT FROM %s::text))"
            # What takes something back goes on: it makes nothing worse.
            "  AND (p.action LIKE 'compensate:%%' OR NOT EXISTS (SELECT FROM halt h"
            "   WHERE h.tenant = p.tenant AND h.agent IN ('', r.agent)))"
            "  ORDER BY p.task_group, p.decision_id LIMIT %s FOR UPDATE OF p SKIP LOCKED)"
            " UPDATE pending_action p SET leased_until = now() + %s, leased_by = %s,"
            "  attempts = attempts + 1, begun = true FROM due"
            " WHERE p.tenant = due.tenant AND p.decision_id = due.decision_id"
            " RETURNING p.decision_id::text, p.action, p.task_group AS group, p.task, p.attempts,"
            "  due.begun, p.dead_since IS NOT NULL AS dead, p.expires_at",
            (at, action, action, agent, limit, lease, worker),
        )
        return sorted(
            (Task(**row) for row in rows), key=lambda task: (task.group, task.decision_id)
        )

    def renew_tasks(self, decision_ids: Sequence[str], worker: str, lease: timedelta) -> None:
        """Hold pending actions for longer, those that the worker holds still."""
        self._run(
            "UPDATE pending_action SET leased_until = now() + %s WHERE tenant = %s"
            " AND decision_id = ANY(%s::uuid[]) AND leased_by = %s",
            (lease, self.tenant, list(decision_ids), worker),
        )

    def late_tasks(self, at: datetime) -> list[Task]:
        """Pending actions that nobody has begun and that may be carried out no more."""
        rows = self._run(
            "SELECT decision_id::text, action, task_group AS group, task FROM pending_action"
            " WHERE tenant = %s AND expires_at <= %s AND NOT begun ORDER BY decision_id",
            (self.tenant, at),
        )
        return [Task(**row) for row in rows]

    def drop_tasks(self, decision_ids: Sequence[str], *, unbegun: bool = False) -> set[str]:
        """Pending actions that are done, or will not be: take them off; those that were there.

        With `unbegun` only those that nobody has begun.
        """
        rows = self._run(
            "DELETE FROM pending_action WHERE tenant = %s AND decision_id = ANY(%s::uuid[])"
            " AND NOT (begun AND %s) RETURNING decision_id::text",
            (self.tenant, list(decision_ids), unbegun),
        )
        return {row["decision_id"] for row in rows}

    def begun_tasks(self, decision_ids: Sequence[str]) -> dict[str, bool]:
        """Those pending actions that a worker may have begun, locked, and whether one holds them now."""
        rows = self._run(
            "SELECT decision_id::text, coalesce(leased_until >= now(), false) AS held"
            " FROM pending_action WHERE tenant = %s AND decision_id = ANY(%s::uuid[])"
            " AND begun ORDER BY decision_id FOR UPDATE",
            (self.tenant, list(decision_ids)),
        )
        return {row["decision_id"]: row["held"] for row in rows}

    def postpone_tasks(self, waits: Mapping[str, timedelta]) -> None:
        """Give pending actions back, each to be tried again after a while."""
        self._run(
            "UPDATE pending_action p SET leased_until = NULL, leased_by = NULL,"
            " not_before = now() + w.wait FROM unnest(%s::uuid[], %s::interval[]) AS w(decision_id, wait)"
            " WHERE p.tenant = %s AND p.decision_id = w.decision_id",
            (list(waits), list(waits.values()), self.tenant),
        )

    def bury_tasks(self, decision_ids: Sequence[str], at: datetime) -> set[str]:
        """Pending actions that are given up: nobody takes them any more; those that were there."""
        rows = self._run(
            "UPDATE pending_action SET leased_until = NULL, leased_by = NULL, dead_since = %s"
            " WHERE tenant = %s AND decision_id = ANY(%s::uuid[]) AND dead_since IS NULL"
            " RETURNING decision_id::text",
            (at, self.tenant, list(decision_ids)),
        )
        return {row["decision_id"] for row in rows}

    def revive_tasks(self, decision_ids: Sequence[str]) -> None:
        """Let actions that were given up be tried anew, as often as at first."""
        self._run(
            "UPDATE pending_action SET dead_since = NULL, attempts = 0, not_before = now()"
            " WHERE tenant = %s AND decision_id = ANY(%s::uuid[])",
            (self.tenant, list(decision_ids)),
        )

    def dead_tasks(self, decision_ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Actions that were given up, with what they are about, the oldest first."""
        ids = None if decision_ids is None else list(decision_ids)
        return self._run(
            "SELECT p.decision_id::text, p.action, p.attempts, p.dead_since, p.expires_at, d.agent,"
            " d.subject, d.order_group, d.money_minor, d.currency FROM pending_action p"
            " JOIN decided d USING (tenant, decision_id) WHERE p.dead_since IS NOT NULL"
            " AND (%s::uuid[] IS NULL OR p.decision_id = ANY(%s::uuid[]))"
            " ORDER BY p.dead_since, p.decision_id",
            (ids, ids),
        )

    def hasten_tasks(self, decision_ids: Sequence[str]) -> None:
        """Pending actions that were put off, and that nobody holds, are due now."""
        self._run(
            "UPDATE pending_action SET not_before = now() WHERE tenant = %s"
            " AND decision_id = ANY(%s::uuid[]) AND (leased_until IS NULL OR leased_until < now())",
            (self.tenant, list(decision_ids)),
        )

    def count_tasks(self) -> int:
        """How many pending actions there are, due or not, without those that were given up."""
        query = "SELECT count(*) AS many FROM pending_action WHERE dead_since IS NULL"
        return int(self._run(query)[0]["many"])

    # Circuit breakers and approvals -----------------------------------------------------------------

    def now(self) -> datetime:
        """The time of the database, by which workers agree on leases and breakers."""
        time: datetime = self._run("SELECT now() AS now")[0]["now"]
        return time

    def breakers(
        self, names: Sequence[str] | None = None, *, lock: bool = False
    ) -> list[dict[str, Any]]:
        """The breakers that have ever had a failure, by name; with `lock` nobody else moves them."""
        query = (
            "SELECT name, state, since, why, failed_at, try_at FROM breaker WHERE tenant = %s"
            " AND (%s::text[] IS NULL OR name = ANY(%s::text[])) ORDER BY name"
        )
        wanted = None if names is None else list(names)
        values = (self.tenant, wanted, wanted)
        return self._run(query + " FOR UPDATE" if lock else query, values)

    def add_breaker(self, name: str) -> None:
        """Keep a breaker from now on, closed; one that is there already stays as it is."""
        self._run(
            "INSERT INTO breaker VALUES (%s, %s, 'closed', now(), '', '{}', NULL)"
            " ON CONFLICT DO NOTHING",
            (self.tenant, name),
        )

    def set_breaker(self, breaker: Mapping[str, Any]) -> None:
        """Keep a breaker as it is now."""
        self._cursor.execute(
            "INSERT INTO breaker VALUES (%(tenant)s, %(name)s, %(state)s, %(since)s, %(why)s,"
            " %(failed_at)s::timestamptz[], %(try_at)s) ON CONFLICT (tenant, name) DO UPDATE SET"
            " state = excluded.state, since = excluded.since, why = excluded.why,"
            " failed_at = excluded.failed_at, try_at = excluded.try_at",
            {"tenant": self.tenant, **breaker, "failed_at": list(breaker["failed_at"])},
        )

    def add_approvals(self, rows: pa.Table) -> None:
        """Ask a role for its word on escalated decisions."""
        self._copy_in("approval_request", rows)

    def approvals(
        self, decision_ids: Sequence[str] | None = None, until: datetime | None = None
    ) -> list[dict[str, Any]]:
        """Open requests for approval with what they are about, the most money first.

        With `until`, only those whose deadline was before.
        """
        ids = None if decision_ids is None else list(decision_ids)
        return self._run(
            "SELECT a.decision_id::text, a.role, a.requested_at, a.deadline, a.safe_default, a.digest,"
            " a.rulebook_version, a.persons, a.agreed, a.proposed_by, a.changed_by, d.subject,"
            " d.order_group, d.money_minor, d.currency, d.agent, d.action, d.location_id"
            " FROM approval_request a JOIN decided d USING (tenant, decision_id)"
            " WHERE (%s::uuid[] IS NULL OR a.decision_id = ANY(%s::uuid[]))"
            " AND (%s::timestamptz IS NULL OR a.deadline < %s)"
            " ORDER BY d.money_minor DESC NULLS LAST, a.decision_id",
            (ids, ids, until, until),
        )

    def agree(self, decision_ids: Sequence[str], by: str) -> None:
        """One person agreed to requests that several have to agree to."""
        self._run(
            "UPDATE approval_request SET agreed = agreed || %s::text WHERE tenant = %s"
            " AND decision_id = ANY(%s::uuid[]) AND %s <> ALL(agreed)",
            (by, self.tenant, list(decision_ids), by),
        )

    def change_approval(self, decision_id: str, now: Mapping[str, Any]) -> None:
        """Ask for something else: `role`, `persons`, `digest`, `rulebook_version`, `changed_by`, `agreed`."""
        self._run(
            "UPDATE approval_request SET role = %(role)s, persons = %(persons)s, digest = %(digest)s,"
            " rulebook_version = %(rulebook_version)s, changed_by = %(changed_by)s, agreed = %(agreed)s"
            " WHERE tenant = %(tenant)s AND decision_id = %(decision_id)s",
            cast(Any, {"tenant": self.tenant, "decision_id": decision_id, **now}),
        )

    def drop_approvals(self, decision_ids: Sequence[str]) -> None:
        """Requests that were answered or ran out: take them off."""
        self._run(
            "DELETE FROM approval_request WHERE tenant = %s AND decision_id = ANY(%s::uuid[])",
            (self.tenant, list(decision_ids)),
        )

    # Limits -----------------------------------------------------------------------------------------

    def add_uses(self, rows: pa.Table) -> None:
        """Record what allowed decisions take from limits (`decision_id, limit_id, key, amount, used_on`)."""
        self._copy_in("limit_use", rows)

    def drop_uses(self, decision_ids: Sequence[str]) -> None:
        """Decisions that will not happen give back what they took from limits."""
        self._run(
            "DELETE FROM limit_use WHERE tenant = %s AND decision_id = ANY(%s::uuid[])",
            (self.tenant, list(decision_ids)),
        )

    def uses(
        self, limit_id: str, since: date, until: date, without: Sequence[str] = ()
    ) -> pa.Table:
        """What was taken from a limit from one day to another, both included, by key.

        What the decisions `without` took is left out.
        """
        return self._copy_out(
            "SELECT limit_id, key, sum(amount)::bigint AS amount FROM limit_use WHERE tenant = %s"
            " AND limit_id = %s AND used_on BETWEEN %s AND %s AND decision_id <> ALL(%s::uuid[])"
            " GROUP BY 1, 2 ORDER BY 2",
            (self.tenant, limit_id, since, until, list(without)),
            USES,
        )
