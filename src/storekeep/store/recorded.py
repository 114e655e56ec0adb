"""What was decided: the ledger's batches and entries, and where each decision stands by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pyarrow as pa
from psycopg import sql

from storekeep.decisions import Selection, least_id
from storekeep.errors import InvariantBroken
from storekeep.store import pages
from storekeep.store.facts import Facts

_PAGES_AT_ONCE = 128
_RUN = ("decided_at", "agent", "agent_version", "rulebook_version", "action", "location_id")
_PLACES_AT_ONCE = 512
ENTRIES = pa.schema([("batch", pa.int64()), ("place", pa.int64()), ("entry", pa.string())])
_STANDING = np.dtype([("place", ">i4"), ("decision_id", "V16")])
Standing = np.ndarray[Any, np.dtype[np.void]]


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

    def append_pages(self, batch: int, place: int, packed: Sequence[pages.Page]) -> None:
        """Append pages of entries to the batch that is being recorded, from a place on."""
        self._cursor.executemany(
            "INSERT INTO ledger_page VALUES (%s, %s, %s, %s, %b)",
            [(self.tenant, batch, place + page.first, page.many, page.content) for page in packed],
        )

    def append_steps(self, batch: int, places: Mapping[int, str]) -> None:
        """Note at which places of a batch entries stand about decisions that an earlier one made."""
        self._run(
            "INSERT INTO ledger_step SELECT %s, decision_id, %s, place"
            " FROM unnest(%s::uuid[], %s::integer[]) AS told (decision_id, place)",
            (self.tenant, batch, list(places.values()), list(places)),
        )

    def append_seal(self, batch: Mapping[str, Any], nodes: bytes) -> None:
        """Append the seal of a batch whose entries are there, and the nodes of its tree."""
        self._run(
            "INSERT INTO ledger_batch VALUES (%(tenant)s, %(batch)s, %(batch_id)s, %(entry_count)s,"
            " %(root)s, %(previous)s, %(chain)s, %(recorded_at)s, %(signature)s, %(nodes)b)",
            cast(Any, {"tenant": self.tenant, **batch, "nodes": nodes}),
        )

    def ledger_nodes(self, batch: int, places: Sequence[int]) -> list[bytes]:
        """Some nodes of a batch's tree, in the order of the places; empty where there is none."""
        rows = self._run(
            "SELECT substring(nodes FROM 32 * place + 1 FOR 32) AS node"
            " FROM ledger_batch, unnest(%s::integer[]) WITH ORDINALITY AS wanted(place, number)"
            " WHERE tenant = %s AND batch = %s ORDER BY number",
            (list(places), self.tenant, batch),
        )
        return [row["node"] for row in rows]

    def ledger_tree(self, batch: int) -> bytes:
        """All nodes of a batch's tree, level by level from the leaves; nothing of a batch without a seal."""
        self._cursor.execute(
            "SELECT nodes FROM ledger_batch WHERE tenant = %s AND batch = %s",
            (self.tenant, batch),
            binary=True,
        )
        rows = self._cursor.fetchall()
        return bytes(rows[0]["nodes"]) if rows else b""

    def ledger_batches(self, first: int = 1, last: int | None = None) -> list[dict[str, Any]]:
        """The sealed batches of the chain, oldest first."""
        return self._run(
            "SELECT batch, batch_id::text, entry_count, root, previous, chain, recorded_at, signature"
            " FROM ledger_batch WHERE tenant = %s AND batch BETWEEN %s AND coalesce(%s, batch)"
            " ORDER BY batch",
            (self.tenant, first, last),
        )

    def ledger_batch_of(self, batch_id: str) -> int | None:
        """The number of the batch with an id."""
        rows = self._run(
            "SELECT batch FROM ledger_batch WHERE tenant = %s AND batch_id = %s",
            (self.tenant, batch_id),
        )
        return int(rows[0]["batch"]) if rows else None

    def ledger_entries(self, first: int, last: int) -> pa.Table:
        """The entries of a range of batches, in order."""
        return pa.concat_tables([ENTRIES.empty_table(), *self.ledger_pages(first, last)])

    def ledger_pages(self, first: int = -(2**63), last: int = 2**63 - 1) -> Iterator[pa.Table]:
        """The entries of a range of batches, all by default, in order, some thousands at a time.

        Entries whose page is damaged come as nulls.
        """
        after = (first, -1)
        while True:
            # The index has the order. While it does not know how much was appended just now, PostgreSQL would
            # rather sort all that follows, for every page again.
            self._run("SELECT set_config('enable_sort', 'off', true)")
            self._cursor.execute(
                "SELECT batch, first, entry_count, content FROM ledger_page WHERE tenant = %s"
                " AND (batch, first) > (%s, %s) AND batch <= %s ORDER BY batch, first LIMIT %s",
                (self.tenant, *after, last, _PAGES_AT_ONCE),
                binary=True,
            )
            rows = self._cursor.fetchall()
            self._run("SELECT set_config('enable_sort', 'on', true)")
            if rows:
                yield _entries(rows)
            if len(rows) < _PAGES_AT_ONCE:
                return
            after = (rows[-1]["batch"], rows[-1]["first"])

    def ledger_entry(self, batch: int, place: int) -> str:
        """The text of one entry; `InvariantBroken` when it is not there."""
        return self._entries_at([(batch, place)])[batch, place]

    def entries_of(self, decision_ids: Sequence[str]) -> list[dict[str, Any]]:
        """The entries about decisions, the oldest first: `decision_id`, `batch`, `place`, `entry`."""
        rows = self._run(
            "SELECT decision_id::text, batch, place FROM decision"
            " WHERE tenant = %s AND decision_id = ANY(%s::uuid[]) UNION ALL"
            " SELECT decision_id::text, batch, place FROM ledger_step"
            " WHERE tenant = %s AND decision_id = ANY(%s::uuid[]) ORDER BY batch, place",
            2 * (self.tenant, list(decision_ids)),
        )
        texts = self._entries_at([(row["batch"], row["place"]) for row in rows])
        return [{**row, "entry": texts[row["batch"], row["place"]]} for row in rows]

    def _entries_at(self, places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], str]:
        """The texts of entries by where they stand; `InvariantBroken` when one is not there."""
        found: dict[tuple[int, int], str] = {}
        for start in range(0, len(places), _PLACES_AT_ONCE):
            some = places[start : start + _PLACES_AT_ONCE]
            self._cursor.execute(
                "WITH held AS (SELECT DISTINCT w.batch, (SELECT max(first) FROM ledger_page p"
                "  WHERE p.tenant = %s AND p.batch = w.batch AND p.first <= w.place) AS first"
                "  FROM unnest(%s::bigint[], %s::integer[]) AS w (batch, place))"
                " SELECT batch, first, entry_count, content FROM held"
                " JOIN ledger_page USING (batch, first) WHERE tenant = %s",
                (self.tenant, *map(list, zip(*some, strict=True)), self.tenant),
                binary=True,
            )
            wanted = set(some)
            for row in self._cursor.fetchall():
                texts = pages.unpacked(row["content"], row["entry_count"])
                for at, text in enumerate(texts, row["first"]):
                    if (row["batch"], at) in wanted and text.is_valid:
                        found[row["batch"], at] = text.as_py()
        for batch, place in places:
            if (batch, place) not in found:
                raise InvariantBroken(f"the ledger has no entry {place} in batch {batch}")
        return found

    def ledger_standing(self, batch: int) -> Standing:
        """Where the entries of a batch that are about decisions are noted to stand, and about which."""
        # The index on the batch is used of each table only where each is asked for it.
        self._cursor.execute(
            "SELECT string_agg(int4send(place) || uuid_send(decision_id), '' ORDER BY place) AS told"
            " FROM (SELECT place, decision_id FROM decision WHERE tenant = %s AND batch = %s"
            " UNION ALL SELECT place, decision_id FROM ledger_step WHERE tenant = %s AND batch = %s)"
            " AS stands",
            2 * (self.tenant, batch),
            binary=True,
        )
        return np.frombuffer(self._cursor.fetchall()[0]["told"] or b"", _STANDING)

    def ledger_astray(self) -> list[dict[str, Any]]:
        """Where entries are noted to stand of batches that have no entries: `batch`, `place`."""
        return self._run(
            "SELECT batch, place FROM (SELECT batch, place FROM decision WHERE tenant = %s"
            " UNION ALL SELECT batch, place FROM ledger_step WHERE tenant = %s) AS stands"
            " WHERE batch NOT IN (SELECT batch FROM ledger_page WHERE tenant = %s) ORDER BY 1, 2",
            3 * (self.tenant,),
        )

    # Decisions: the fold of the ledger, kept for speed ----------------------------------------------

    def add_run(self, batch: int, run: Mapping[str, Any]) -> None:
        """Add what the decisions of a batch share, as the header of their run tells it."""
        self._run(
            "INSERT INTO run (tenant, batch, decided_at, agent, agent_version, rulebook_version, action,"
            " location_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (self.tenant, batch, *(run[name] for name in _RUN)),
        )

    def add_decisions(self, rows: pa.Table) -> None:
        """Add the folded state of new decisions, whose runs are there."""
        self._copy_in("decision", rows)

    def clear_decisions(self) -> None:
        """Forget the folded states, to fold them again from the ledger."""
        self._run("DELETE FROM decision WHERE tenant = %s", (self.tenant,))
        self._run("DELETE FROM run WHERE tenant = %s", (self.tenant,))

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
            " currency, status, reverses::text FROM decided JOIN ledger_batch USING (tenant, batch)"
            " WHERE tenant = %(tenant)s"
            " AND (%(ids)s::uuid[] IS NULL OR decision_id = ANY(%(ids)s::uuid[]))"
            " AND (%(batch_id)s::uuid IS NULL OR batch = (SELECT batch FROM ledger_batch"
            "  WHERE tenant = %(tenant)s AND batch_id = %(batch_id)s::uuid))"
            " AND (%(order_group)s::text IS NULL OR order_group = %(order_group)s)"
            " AND (%(status)s::text IS NULL OR status = %(status)s)"
            " AND (%(verdict)s::text IS NULL OR verdict = %(verdict)s)"
            " AND (%(agent_version)s::text IS NULL OR agent_version = %(agent_version)s)"
            " AND (%(rulebook_version)s::text IS NULL"
            "  OR starts_with(rulebook_version, %(rulebook_version)s))"
            " AND (%(location_id)s::text IS NULL OR location_id = %(location_id)s)"
            " AND (%(since)s::timestamptz IS NULL OR decided_at >= %(since)s)"
            " AND (%(until)s::timestamptz IS NULL OR decided_at < %(until)s)"
            # An id begins with its time: one index serves both.
            " AND decision_id BETWEEN %(least)s::uuid AND %(most)s::uuid"
            " ORDER BY decision_id DESC LIMIT %(limit)s",
            {
                "tenant": self.tenant,
                **wanted,
                "least": least_id(chosen.since),
                "most": least_id(chosen.until, after=True),
            },
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

        An order is the lines of a group that one run decided, and what proposed one of them again since. Of
        them those count that are to be done, or may be, or were, and those that are asked about. An order
        with a line of which no money is known is left out.
        """
        rows = self._run(
            "WITH RECURSIVE traced AS (SELECT decision_id AS asked, batch, order_group, reverses"
            "  FROM decision WHERE tenant = %(tenant)s AND decision_id = ANY(%(ids)s::uuid[])"
            " UNION ALL SELECT asked, d.batch, d.order_group, d.reverses FROM traced"
            "  JOIN decision d ON d.tenant = %(tenant)s AND d.decision_id = traced.reverses),"
            " first AS (SELECT asked, batch, order_group FROM traced WHERE reverses IS NULL),"
            " line AS (SELECT batch, order_group, decision_id, status, money_minor FROM decision"
            "  WHERE tenant = %(tenant)s AND batch = ANY(ARRAY(SELECT DISTINCT batch FROM first))"
            # As a join it would be made by reading a batch again for each of its orders.
            "  AND ((batch, order_group) IN (SELECT batch, order_group FROM first)) IS TRUE"
            " UNION ALL SELECT line.batch, line.order_group, d.decision_id, d.status, d.money_minor"
            "  FROM line JOIN decision d ON d.tenant = %(tenant)s AND d.reverses = line.decision_id),"
            " worth AS (SELECT batch, order_group, sum(money_minor)::bigint AS value FROM line"
            "  WHERE decision_id IN (SELECT asked FROM traced) OR status IN"
            "  ('escalated', 'pending', 'executed', 'reverting', 'needs_person')"
            "  GROUP BY 1, 2 HAVING count(*) = count(money_minor))"
            " SELECT asked::text AS decision_id, value FROM first"
            " JOIN worth USING (batch, order_group)",
            cast(Any, {"tenant": self.tenant, "ids": list(decision_ids)}),
        )
        return {row["decision_id"]: row["value"] for row in rows}

    def proposed_again(self, decision_ids: Sequence[str]) -> dict[str, str]:
        """Which decisions were proposed again after they had been taken back, not in shadow, and as which."""
        rows = self._run(
            "SELECT reverses::text, decision_id::text FROM decision WHERE tenant = %s"
            " AND reverses = ANY(%s::uuid[]) AND status <> 'shadowed'",
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

    def value_by_batch(self) -> dict[str, int]:
        """The money that each run's decisions to act came to, in minor units, by batch id."""
        rows = self._run(
            "SELECT batch_id::text, sum(money_minor)::bigint AS money FROM decision"
            " JOIN ledger_batch USING (tenant, batch)"
            " WHERE tenant = %s AND status IN ('pending', 'executed') GROUP BY batch_id",
            (self.tenant,),
        )
        return {row["batch_id"]: row["money"] for row in rows}


def _entries(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The entries of some pages, each with where it stands."""
    many = [row["entry_count"] for row in rows]
    firsts = np.array([row["first"] for row in rows])
    texts = [pages.unpacked(row["content"], row["entry_count"]) for row in rows]
    within = np.arange(sum(many)) - np.repeat(np.cumsum([0, *many[:-1]]), many)
    return pa.table(
        [
            np.repeat(np.array([row["batch"] for row in rows]), many),
            np.repeat(firsts, many) + within,
            pa.concat_arrays(texts),
        ],
        ENTRIES,
    )
