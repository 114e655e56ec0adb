"""One tenant's view of the record: what is written through one transaction commits together or not at all.

Hides the tables and how Arrow tables go in and out of them in bulk.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import sql

from storekeep.decisions import Selection
from storekeep.errors import InvariantBroken
from storekeep.store import binary

LOCK = 0x5704EEE9
OURSELVES = "storekeep"
PARTITIONS = 16
_PAGE = 8_192

STOCK = pa.schema(
    [
        ("location_id", pa.string()),
        ("sku", pa.string()),
        ("on_hand_units", pa.int64()),
        ("on_order_units", pa.int64()),
        ("committed_units", pa.int64()),
        ("unmet_units", pa.int64()),
    ]
)
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
USES = pa.schema([("limit", pa.string()), ("key", pa.string()), ("amount", pa.int64())])


@dataclass(frozen=True)
class LogRow:
    """One envelope of the event log, its facts still as bytes."""

    partition: int
    position: int
    id: str
    type: str
    source: str
    subject: str
    time: datetime
    fact_count: int
    facts: bytes


@dataclass(frozen=True)
class Task:
    """A pending action: what was decided and still has to be done."""

    decision_id: str
    action: str
    group: str
    task: str
    attempts: int


class Transaction:
    """One tenant's open transaction; made by `Store.transaction` only."""

    def __init__(self, cursor: psycopg.Cursor[dict[str, Any]], tenant: str) -> None:
        self._cursor = cursor
        self.tenant = tenant

    def make_tenant(self, purpose: str = "live") -> None:
        """Record that this tenant exists, and whether it is `live` or a `demo`; the first word stands."""
        self._run(
            "INSERT INTO tenant (tenant, purpose) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (self.tenant, purpose),
        )

    def purpose(self) -> str | None:
        """What the tenant was made for; None when there is no such tenant."""
        rows = self._run("SELECT purpose FROM tenant WHERE tenant = %s", (self.tenant,))
        return str(rows[0]["purpose"]) if rows else None

    def is_empty(self) -> bool:
        """Whether nothing has ever been recorded for the tenant, but by ourselves."""
        rows = self._run(
            "SELECT EXISTS (SELECT FROM event_log WHERE tenant = %s)"
            " OR EXISTS (SELECT FROM ledger_batch WHERE tenant = %s)"
            " OR EXISTS (SELECT FROM promotion WHERE tenant = %s AND promoted_by <> %s) AS has",
            (self.tenant, self.tenant, self.tenant, OURSELVES),
        )
        return not rows[0]["has"]

    # Bulk -------------------------------------------------------------------------------------------

    def _run(
        self, statement: LiteralString, parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        self._cursor.execute(statement, parameters)
        return self._cursor.fetchall() if self._cursor.description else []

    def _lock(self) -> None:
        """Keep others from what the tenant has only one of until the transaction ends."""
        self._run(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK & 0x7FFFFFFF, self.tenant)
        )

    def _copy_in(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table, this tenant's name put before them.

        PostgreSQL copies into no table with row-level security, so the rows go through a temporary one.
        """
        if rows.num_rows == 0:
            return
        incoming = f"incoming_{table}"
        columns = self._copy_temporary(incoming, sql.Identifier(table), rows)
        self._cursor.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                sql.Identifier(table), columns, columns, sql.Identifier("pg_temp", incoming)
            )
        )

    def _copy_temporary(self, incoming: str, like: sql.Composable, rows: pa.Table) -> sql.Composed:
        """Copy rows into a temporary table of the shape of another; the names of their columns."""
        here = sql.Identifier("pg_temp", incoming)
        if not self._run("SELECT to_regclass(%s) AS there", (f"pg_temp.{incoming}",))[0]["there"]:
            # What passes through is not worth the time to compress it.
            self._cursor.execute(
                sql.SQL(
                    "CREATE TEMP TABLE {} WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS"
                    " AS SELECT * FROM {} WITH NO DATA"
                ).format(sql.Identifier(incoming), like)
            )
        else:
            self._cursor.execute(sql.SQL("TRUNCATE {}").format(here))
        named = rows.add_column(0, "tenant", pa.repeat(self.tenant, rows.num_rows))
        columns = sql.SQL(", ").join(map(sql.Identifier, named.column_names))
        self._cursor.execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(columns, here))
        kinds = [column.type_code for column in self._cursor.description or ()]
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(here, columns)
        with self._cursor.copy(statement) as copy:
            copy.write(binary.HEADER)
            for part in binary.encoded(named, kinds):
                copy.write(part)
            copy.write(binary.TRAILER)
        return columns

    def _copy_out(
        self, statement: LiteralString, parameters: Sequence[Any], schema: pa.Schema
    ) -> pa.Table:
        """The rows of a query as an Arrow table of the given schema."""
        # Quoted, a text that begins with a byte order mark is not taken for a file that does.
        query = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)").format(
            sql.SQL(statement)
        )
        with self._cursor.copy(query, parameters) as copy:
            text = b"".join(copy)
        if not text:
            return schema.empty_table()
        return pa_csv.read_csv(
            io.BytesIO(text),
            read_options=pa_csv.ReadOptions(column_names=schema.names, block_size=1 << 24),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=schema,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
            ),
        ).cast(schema)

    # Event log --------------------------------------------------------------------------------------

    def append_event(
        self,
        partition: int,
        *,
        id_: str,
        type_: str,
        source: str,
        subject: str,
        time: datetime,
        fact_count: int,
        facts: bytes,
    ) -> int | None:
        """Append an envelope; its position in the partition, or None when it is there already.

        The partition's head is locked until the transaction ends, so positions have no gaps and become
        visible in order: a consumer that has read position n has seen all before it.
        """
        position = self.lock_partition(partition) + 1
        seen = self._run(
            "SELECT 1 FROM event_log WHERE tenant = %s AND source = %s AND id = %s",
            (self.tenant, source, id_),
        )
        if seen:
            return None
        self._run(
            "UPDATE bus_head SET position = %s WHERE tenant = %s AND partition = %s",
            (position, self.tenant, partition),
        )
        self._run(
            "INSERT INTO event_log VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(self.tenant, partition, position, id_, type_, source, subject),
                *(time, fact_count, facts),
            ),
        )
        return position

    def read_events(self, partition: int, after: int, limit: int) -> list[LogRow]:
        """The envelopes that follow a position, oldest first."""
        rows = self._run(
            "SELECT partition, position, id, type, source, subject, time, fact_count, facts"
            " FROM event_log WHERE tenant = %s AND partition = %s AND position > %s"
            " ORDER BY position LIMIT %s",
            (self.tenant, partition, after, limit),
        )
        return [LogRow(**row) for row in rows]

    def unread(self, partition: int, subject: str, after: int) -> dict[str, int]:
        """Which types of event about a subject follow a position, and the last position of each."""
        rows = self._run(
            "SELECT type, max(position) AS position FROM event_log WHERE tenant = %s"
            " AND partition = %s AND subject = %s AND position > %s GROUP BY type",
            (self.tenant, partition, subject, after),
        )
        return {row["type"]: row["position"] for row in rows}

    def lock_partition(self, partition: int) -> int:
        """Keep others from publishing to a partition until the transaction ends; its last position."""
        rows = self._run(
            "INSERT INTO bus_head VALUES (%s, %s, 0) ON CONFLICT (tenant, partition)"
            " DO UPDATE SET position = bus_head.position RETURNING position",
            (self.tenant, partition),
        )
        return int(rows[0]["position"])

    def heads(self) -> dict[int, int]:
        """The last position of each partition that has any events, in one order for everybody."""
        rows = self._run("SELECT partition, position FROM bus_head ORDER BY partition")
        return {row["partition"]: row["position"] for row in rows}

    def position(self, consumer: str, partition: int, *, lock: bool = False) -> int:
        """How far a consumer has read; with `lock`, nobody else moves it until the transaction ends."""
        if lock:
            self._run(
                "INSERT INTO consumer_position VALUES (%s, %s, %s, 0) ON CONFLICT DO NOTHING",
                (self.tenant, consumer, partition),
            )
            rows = self._run(
                "SELECT position FROM consumer_position"
                " WHERE tenant = %s AND consumer = %s AND partition = %s FOR UPDATE",
                (self.tenant, consumer, partition),
            )
        else:
            rows = self._run(
                "SELECT position FROM consumer_position"
                " WHERE tenant = %s AND consumer = %s AND partition = %s",
                (self.tenant, consumer, partition),
            )
        return int(rows[0]["position"]) if rows else 0

    def move_position(self, consumer: str, partition: int, position: int) -> None:
        """A consumer has read up to here; takes effect with the rest of the transaction."""
        self._run(
            "INSERT INTO consumer_position VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (tenant, consumer, partition) DO UPDATE SET position = excluded.position",
            (self.tenant, consumer, partition, position),
        )

    # Stock ------------------------------------------------------------------------------------------

    def move_stock(self, moves: pa.Table) -> int:
        """Move stock positions by a batch of net changes; units asked for beyond on-hand are unmet.

        `moves`: `location_id`, `sku`, and net changes `on_hand_units`, `on_order_units`,
        `committed_units`; `counted_units` where the shelf was counted (it replaces on-hand), else null.
        An item has a stock position from its first count on; moves of others are left out. Returns the
        units that could not be met from stock.
        """
        self._copy_temporary("incoming_stock_move", sql.Identifier("stock_move"), moves)
        rows = self._run(
            "WITH moved AS ("
            " SELECT m.*, p.on_hand_units AS before FROM pg_temp.incoming_stock_move m"
            " LEFT JOIN stock_position p USING (tenant, location_id, sku)"
            " WHERE p.sku IS NOT NULL OR m.counted_units IS NOT NULL), written AS ("
            " INSERT INTO stock_position AS p SELECT tenant, location_id, sku,"
            "  greatest(0, coalesce(counted_units, before + on_hand_units)),"
            "  on_order_units, committed_units,"
            "  greatest(0, -coalesce(counted_units, before + on_hand_units)) FROM moved"
            "  ORDER BY location_id, sku"
            " ON CONFLICT (tenant, location_id, sku) DO UPDATE SET"
            "  on_hand_units = excluded.on_hand_units,"
            "  on_order_units = p.on_order_units + excluded.on_order_units,"
            "  committed_units = p.committed_units + excluded.committed_units,"
            "  unmet_units = p.unmet_units + excluded.unmet_units)"
            " SELECT coalesce(sum(greatest(0, -coalesce(counted_units, before + on_hand_units))), 0)"
            "  AS unmet FROM moved"
        )
        return int(rows[0]["unmet"])

    def stock(self, location_id: str) -> pa.Table:
        """The stock positions of a location, one row a SKU."""
        return self._copy_out(
            "SELECT location_id, sku, on_hand_units, on_order_units, committed_units, unmet_units"
            " FROM stock_position WHERE tenant = %s AND location_id = %s ORDER BY sku",
            (self.tenant, location_id),
            STOCK,
        )

    def clear_stock(self) -> None:
        """Forget the derived stock positions, to fold them again from the event log."""
        self._run("DELETE FROM stock_position WHERE tenant = %s", (self.tenant,))

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
            " currency, status FROM decision WHERE tenant = %(tenant)s"
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

    # Work still to be done --------------------------------------------------------------------------

    def add_tasks(self, tasks: pa.Table) -> None:
        """Enqueue pending actions (`decision_id`, `action`, `task_group`, `task`)."""
        self._copy_in("pending_action", tasks)

    def lease_tasks(self, worker: str, limit: int, lease: timedelta) -> list[Task]:
        """Take pending actions that are due and that nobody holds, group by group.

        A lease that runs out gives the action back, so that a dead worker's actions are taken over.
        """
        rows = self._run(
            "WITH due AS (SELECT tenant, decision_id FROM pending_action WHERE not_before <= now()"
            "  AND (leased_until IS NULL OR leased_until < now())"
            "  ORDER BY task_group, decision_id LIMIT %s FOR UPDATE SKIP LOCKED)"
            " UPDATE pending_action p SET leased_until = now() + %s, leased_by = %s,"
            "  attempts = attempts + 1 FROM due"
            " WHERE p.tenant = due.tenant AND p.decision_id = due.decision_id"
            " RETURNING p.decision_id::text, p.action, p.task_group, p.task, p.attempts",
            (limit, lease, worker),
        )
        tasks = [
            Task(row["decision_id"], row["action"], row["task_group"], row["task"], row["attempts"])
            for row in rows
        ]
        return sorted(tasks, key=lambda task: (task.group, task.decision_id))

    def drop_tasks(self, decision_ids: Sequence[str]) -> set[str]:
        """Pending actions that are done, or will not be: take them off; those that were there."""
        rows = self._run(
            "DELETE FROM pending_action WHERE tenant = %s AND decision_id = ANY(%s::uuid[])"
            " RETURNING decision_id::text",
            (self.tenant, list(decision_ids)),
        )
        return {row["decision_id"] for row in rows}

    def begun_tasks(self, decision_ids: Sequence[str]) -> dict[str, bool]:
        """Those pending actions that a worker may have begun, locked, and whether one holds them now."""
        rows = self._run(
            "SELECT decision_id::text, coalesce(leased_until >= now(), false) AS held"
            " FROM pending_action WHERE tenant = %s AND decision_id = ANY(%s::uuid[])"
            " AND attempts > 0 ORDER BY decision_id FOR UPDATE",
            (self.tenant, list(decision_ids)),
        )
        return {row["decision_id"]: row["held"] for row in rows}

    def postpone_tasks(self, decision_ids: Sequence[str], delay: timedelta) -> None:
        """Give pending actions back, to be tried again after a while."""
        self._run(
            "UPDATE pending_action SET leased_until = NULL, leased_by = NULL,"
            " not_before = now() + %s WHERE tenant = %s AND decision_id = ANY(%s::uuid[])",
            (delay, self.tenant, list(decision_ids)),
        )

    def count_tasks(self) -> int:
        """How many pending actions there are, due or not."""
        return int(self._run("SELECT count(*) AS many FROM pending_action")[0]["many"])

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
            " a.rulebook_version, d.subject, d.order_group, d.money_minor, d.currency, d.agent"
            " FROM approval_request a JOIN decision d USING (tenant, decision_id)"
            " WHERE (%s::uuid[] IS NULL OR a.decision_id = ANY(%s::uuid[]))"
            " AND (%s::timestamptz IS NULL OR a.deadline < %s)"
            " ORDER BY d.money_minor DESC NULLS LAST, a.decision_id",
            (ids, ids, until, until),
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

    # Registry ---------------------------------------------------------------------------------------

    def register(
        self, kind: str, name: str, version: str, content: str, at: datetime, by: str
    ) -> None:
        """Keep a version of a rulebook or policy for as long as there is a ledger; once is enough."""
        self._run(
            "INSERT INTO registry VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            (self.tenant, kind, name, version, content, at, by),
        )

    def promote(self, kind: str, name: str, version: str, at: datetime, by: str) -> None:
        """Make a registered version the one in force; promotions follow one another."""
        self._lock()
        self._run(
            "INSERT INTO promotion SELECT %s, %s, %s, coalesce(max(sequence), 0) + 1, %s, %s, %s"
            " FROM promotion WHERE tenant = %s AND kind = %s AND name = %s",
            (self.tenant, kind, name, version, at, by, self.tenant, kind, name),
        )

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
