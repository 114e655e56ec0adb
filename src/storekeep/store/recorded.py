"""What was decided: the ledger's batches and entries, and where each decision stands by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import pyarrow as pa
from psycopg import sql

from storekeep.decisions import Selection
from storekeep.errors import InvariantBroken
from storekeep.store.facts import Facts

_PAGE = 8_192
ENTRIES = pa.schema(
    [
        ("batch", pa.int64()),
        ("place", pa.int64()),
        ("kind", pa.string()),
        ("decision_id", pa.string()),
        ("step", pa.string()),
        ("leaf", pa.string()),
        ("entry", pa.string()),
    ]
)
RUNS = pa.schema(
    [
        ("batch", pa.int64()),
        ("kind", pa.string()),
        ("decision_id", pa.string()),
        ("step", pa.string()),
        ("entry", pa.string()),
    ]
)
ENDS = pa.schema([("batch", pa.int64()), ("decision_id", pa.string()), ("step", pa.string())])


class Recorded(Facts):
    """The ledger and its fold."""

    # Ledger -----------------------------------------------------------------------------------------

    def ledger_head(self) -> tuple[int, str]:
        """Number and chain value of the last batch; locks the chain until the transaction ends."""
        self._lock()
        rows = self._run(
            "SELECT batch, chain FROM ledger_batch WHERE tenant = %s ORDER BY batch DESC LIMIT 1",
            (self.tenant,),
        )
        return (int(rows[0]["batch"]), str(rows[0]["chain"])) if rows else (0, "")

    def append_entries(self, entries: pa.Table) -> None:
        """Append entries of the batch that is being recorded, each with its `batch` and `place`."""
        self._copy_in("ledger_entry", entries)

    def append_seal(self, batch: Mapping[str, Any], nodes: bytes) -> None:
        """Append the seal of a batch whose entries are there, and the nodes of its tree."""
        self._run(
            "INSERT INTO ledger_batch VALUES (%(tenant)s, %(batch)s, %(batch_id)s, %(entry_count)s,"
            " %(root)s, %(previous)s, %(chain)s, %(recorded_at)s, %(signature)s, %(nodes)s)",
            cast(Any, {"tenant": self.tenant, **batch, "nodes": nodes}),
        )

    def ledger_nodes(self, batch: int, places: Sequence[int]) -> list[bytes | None]:
        """Some nodes of a batch's tree, in the order of the places; None of trees that were not kept."""
        rows = self._run(
            "SELECT substring(nodes FROM 32 * place + 1 FOR 32) AS node"
            " FROM ledger_batch, unnest(%s::integer[]) WITH ORDINALITY AS wanted(place, number)"
            " WHERE tenant = %s AND batch = %s ORDER BY number",
            (list(places), self.tenant, batch),
        )
        return [row["node"] for row in rows]

    def ledger_batches(self, first: int = 1, last: int | None = None) -> list[dict[str, Any]]:
        """The sealed batches of the chain, oldest first."""
        return self._run(
            "SELECT batch, batch_id::text, entry_count, root, previous, chain, recorded_at, signature"
            " FROM ledger_batch WHERE tenant = %s AND batch BETWEEN %s AND coalesce(%s, batch)"
            " ORDER BY batch",
            (self.tenant, first, last),
        )

    def ledger_entries(self, first: int, last: int) -> pa.Table:
        """The entries of a range of batches, in order."""
        return pa.concat_tables([ENTRIES.empty_table(), *self.ledger_pages(first, last)])

    def ledger_pages(self, first: int = -(2**63), last: int = 2**63 - 1) -> Iterator[pa.Table]:
        """The entries of a range of batches, all by default, in order, some thousands at a time."""
        after = (first, -1)
        while True:
            # The index has the order. While it does not know how much was appended just now, PostgreSQL would
            # rather sort all that follows, for every page again.
            self._run("SELECT set_config('enable_sort', 'off', true)")
            # One row of lists instead of a row for each entry: it is made and read in a tenth of the time.
            self._cursor.execute(
                "SELECT array_agg(batch) AS batch, array_agg(place::bigint) AS place,"
                " array_agg(kind) AS kind, array_agg(decision_id::text) AS decision_id,"
                " array_agg(step) AS step, array_agg(leaf) AS leaf, array_agg(entry) AS entry"
                " FROM (SELECT * FROM ledger_entry WHERE tenant = %s AND (batch, place) > (%s, %s)"
                "  AND batch <= %s ORDER BY batch, place LIMIT %s) AS page",
                (self.tenant, *after, last, _PAGE),
                binary=True,
            )
            page = self._cursor.fetchall()[0]
            self._run("SELECT set_config('enable_sort', 'on', true)")
            if page["batch"] is None:
                return
            yield pa.table([page[name] for name in ENTRIES.names], ENTRIES)
            if len(page["batch"]) < _PAGE:
                return
            after = (page["batch"][-1], page["place"][-1])

    def ledger_runs(self, first: int, last: int) -> pa.Table:
        """What was judged in a range of batches: each run's header, then its decisions but for holds."""
        return self._copy_out(
            "SELECT batch, kind, decision_id, step, entry FROM ledger_entry WHERE tenant = %s"
            " AND batch BETWEEN %s AND %s AND kind IN ('batch', 'decision')"
            " AND step IS DISTINCT FROM 'hold' ORDER BY batch, place",
            (self.tenant, first, last),
            RUNS,
        )

    def ledger_ends(self, first: int, last: int, steps: Sequence[str]) -> pa.Table:
        """The later entries of a range of batches that brought decisions by one of these steps, in order."""
        return self._copy_out(
            "SELECT batch, decision_id, step FROM ledger_entry WHERE tenant = %s"
            " AND batch BETWEEN %s AND %s AND kind NOT IN ('batch', 'decision')"
            " AND step = ANY(%s) ORDER BY batch, place",
            (self.tenant, first, last, list(steps)),
            ENDS,
        )

    def ledger_entry(self, batch: int, place: int) -> str:
        """The text of one entry; `InvariantBroken` when it is not there."""
        rows = self._run(
            "SELECT entry FROM ledger_entry WHERE tenant = %s AND batch = %s AND place = %s",
            (self.tenant, batch, place),
        )
        if not rows:
            raise InvariantBroken(f"the ledger has no entry {place} in batch {batch}")
        return str(rows[0]["entry"])

    def entries_of(self, decision_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The entries about decisions, the oldest first."""
        return self._run(
            "SELECT decision_id::text, batch, place, kind, step, entry FROM ledger_entry"
            " WHERE tenant = %s AND decision_id = ANY(%s::uuid[]) ORDER BY batch, place",
            (self.tenant, list(decision_ids)),
        )

    # Decisions: the fold of the ledger, kept for speed ----------------------------------------------

    def add_decisions(self, rows: pa.Table) -> None:
        """Add the folded state of new decisions."""
        self._copy_in("decision", rows)

    def clear_decisions(self) -> None:
        """Forget the folded states, to fold them again from the ledger."""
        self._run("DELETE FROM decision WHERE tenant = %s", (self.tenant,))

    def move_decisions(self, moves: Mapping[str, str]) -> None:
        """Set the folded state of decisions, by id, after a ledger entry about them was appended."""
        self._run(
            "UPDATE decision SET status = m.status FROM unnest(%s::uuid[], %s::text[]) AS"
            " m(decision_id, status) WHERE tenant = %s AND decision.decision_id = m.decision_id",
            (list(moves), list(moves.values()), self.tenant),
        )

    def decisions(self, chosen: Selection) -> list[dict[str, Any]]:
        """The decisions of a selection, newest first."""
        wanted = asdict(chosen)
        wanted["ids"] = None if chosen.ids is None else list(chosen.ids)
        self._cursor.execute(
            "SELECT decision_id::text, batch_id::text, decided_at, agent, agent_version,"
            " rulebook_version, action, subject, location_id, order_group, verdict, money_minor,"
            " currency, status, reverses::text FROM decision WHERE tenant = %(tenant)s"
            " AND (%(ids)s::uuid[] IS NULL OR decision_id = ANY(%(ids)s::uuid[]))"
            " AND (%(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s::uuid)"
            " AND (%(order_group)s::text IS NULL OR order_group = %(order_group)s)"
            " AND (%(status)s::text IS NULL OR status = %(status)s)"
            " AND (%(verdict)s::text IS NULL OR verdict = %(verdict)s)"
            " AND (%(agent_version)s::text IS NULL OR agent_version = %(agent_version)s)"
            " AND (%(rulebook_version)s::text IS NULL"
            "  OR starts_with(rulebook_version, %(rulebook_version)s))"
            " AND (%(location_id)s::text IS NULL OR location_id = %(location_id)s)"
            " AND (%(since)s::timestamptz IS NULL OR decided_at >= %(since)s)"
            " AND (%(until)s::timestamptz IS NULL OR decided_at < %(until)s)"
            " ORDER BY decided_at DESC, decision_id DESC LIMIT %(limit)s",
            {"tenant": self.tenant, **wanted},
        )
        return self._cursor.fetchall()

    def lock_decisions(self, decision_ids: Sequence[str]) -> dict[str, str]:
        """The state of decisions by id, locked so that nobody else moves them until the end."""
        rows = self._run(
            "SELECT decision_id::text, status FROM decision WHERE tenant = %s"
            " AND decision_id = ANY(%s::uuid[]) ORDER BY decision_id FOR UPDATE",
            (self.tenant, list(decision_ids)),
        )
        return {row["decision_id"]: row["status"] for row in rows}

    def move_money(self, money_minor: Mapping[str, int]) -> None:
        """Set the money at stake in decisions, by id, after a ledger entry that changed it was appended."""
        self._run(
            "UPDATE decision SET money_minor = m.money FROM unnest(%s::uuid[], %s::bigint[]) AS"
            " m(decision_id, money) WHERE tenant = %s AND decision.decision_id = m.decision_id",
            (list(money_minor), list(money_minor.values()), self.tenant),
        )

    def group_values(self, decision_ids: Sequence[str]) -> dict[str, int]:
        """What the whole order that each decision belongs to comes to, in minor units, by decision.

        Of the lines that its run decided, those count that are to be done, or may be, or were.
        """
        rows = self._run(
            "WITH asked AS (SELECT decision_id, batch_id, order_group FROM decision WHERE tenant = %s"
            "  AND decision_id = ANY(%s::uuid[])), worth AS (SELECT batch_id, order_group,"
            "  sum(money_minor)::bigint AS value FROM decision JOIN (SELECT DISTINCT batch_id,"
            "  order_group FROM asked) AS wanted USING (batch_id, order_group) WHERE tenant = %s"
            "  AND status IN ('escalated', 'pending', 'executed', 'reverting', 'needs_person')"
            "  GROUP BY 1, 2)"
            " SELECT decision_id::text, value FROM asked JOIN worth USING (batch_id, order_group)"
            " WHERE value IS NOT NULL",
            (self.tenant, list(decision_ids), self.tenant),
        )
        return {row["decision_id"]: row["value"] for row in rows}

    def taken_back(self, batch_id: str) -> list[str]:
        """The decisions that a revert, by the id of its ledger batch, took back or asked to."""
        rows = self._run(
            "SELECT decision_id::text FROM ledger_entry JOIN ledger_batch USING (tenant, batch)"
            " WHERE tenant = %s AND batch_id = %s AND kind = 'reversal'"
            " AND step IN ('withdrawn', 'reverting') ORDER BY place",
            (self.tenant, batch_id),
        )
        return [row["decision_id"] for row in rows]

    def proposed_again(self, decision_ids: Sequence[str]) -> dict[str, str]:
        """Which decisions were proposed again after they had been taken back, and as which."""
        rows = self._run(
            "SELECT reverses::text, decision_id::text FROM decision WHERE tenant = %s"
            " AND reverses = ANY(%s::uuid[])",
            (self.tenant, list(decision_ids)),
        )
        return {row["reverses"]: row["decision_id"] for row in rows}

    def count_decisions(self, column: str) -> dict[str, int]:
        """How many decisions there are by `verdict` or by `status`."""
        if column not in {"verdict", "status"}:
            raise InvariantBroken(f"decisions are not counted by {column!r}")
        query = sql.SQL("SELECT {0} AS name, count(*) AS many FROM decision GROUP BY {0}")
        self._cursor.execute(query.format(sql.Identifier(column)))
        return {row["name"]: row["many"] for row in self._cursor.fetchall()}

    def count_rules(self) -> list[dict[str, Any]]:
        """How often each rule spoke in the tenant's decisions, the most often first."""
        return self._run(
            "SELECT r->>'rule' AS rule, r->>'effect' AS effect, min(r->>'reason') AS reason,"
            " count(*) AS times FROM ledger_entry,"
            " jsonb_array_elements(coalesce((entry::jsonb)->'rules', '[]')) AS r"
            " WHERE tenant = %s AND kind = 'decision' GROUP BY 1, 2 ORDER BY times DESC, rule",
            (self.tenant,),
        )

    def value_by_batch(self) -> dict[str, int]:
        """The money that each run's decisions to act came to, in minor units, by batch id."""
        rows = self._run(
            "SELECT batch_id::text, sum(money_minor)::bigint AS money FROM decision"
            " WHERE tenant = %s AND status IN ('pending', 'executed') GROUP BY batch_id",
            (self.tenant,),
        )
        return {row["batch_id"]: row["money"] for row in rows}
