"""What was reported: the event log, how far its readers are, what transports brought, and stock positions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from psycopg import sql

from storekeep.store.session import Session

PARTITIONS = 16
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

TOLD_BY = pa.schema([("subject", pa.string()), ("position", pa.int64()), ("source", pa.string())])


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
class Unread:
    """Events of one type about one subject that nobody has dealt with: how many, where, since when."""

    type: str
    subject: str
    events: int
    facts: int
    first: int
    last: int
    since: datetime


@dataclass(frozen=True)
class DeadLetter:
    """A message that a transport brought and that could not be read: where it stood, and why."""

    transport: str
    partition: int
    position: int
    reason: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime | None = None


class Facts(Session):
    """Events, positions and stock."""

    # Event log --------------------------------------------------------------------------------------

    def append_events(self, partition: int, rows: Sequence[LogRow]) -> list[int | None]:
        """Append envelopes in their order; the position of each, or None when it is there already.

        What a row says of partition and position is not read. The partition's head is locked until the
        transaction ends, so positions have no gaps and become visible in order: a consumer that has read
        position n has seen all before it.
        """
        position = self.lock_partition(partition)
        seen = {
            (row["source"], row["id"])
            for row in self._run(
                "SELECT l.source, l.id FROM event_log l JOIN unnest(%s::text[], %s::text[])"
                " AS told (source, id) USING (source, id) WHERE l.tenant = %s",
                ([row.source for row in rows], [row.id for row in rows], self.tenant),
            )
        }
        found: list[int | None] = []
        fresh: list[tuple[object, ...]] = []
        for row in rows:
            if (row.source, row.id) in seen:
                found.append(None)
                continue
            seen.add((row.source, row.id))
            position += 1
            found.append(position)
            fresh.append(
                (
                    *(self.tenant, partition, position, row.id, row.type, row.source),
                    *(row.subject, row.time, row.fact_count, row.facts),
                )
            )
        if fresh:
            self._run(
                "UPDATE bus_head SET position = %s WHERE tenant = %s AND partition = %s",
                (position, self.tenant, partition),
            )
            self._cursor.executemany(
                "INSERT INTO event_log VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %b)", fresh
            )
        return found

    def read_events(
        self, partition: int, after: int, limit: int, facts: int = 2**62
    ) -> list[LogRow]:
        """The envelopes that follow a position, oldest first: one, and more up to so many facts in all."""
        rows = self._run(
            "SELECT partition, position, id, type, source, subject, time, fact_count, facts FROM"
            " (SELECT *, sum(fact_count) OVER (ORDER BY position) AS total, row_number() OVER"
            " (ORDER BY position) AS number FROM event_log WHERE tenant = %s AND partition = %s"
            " AND position > %s ORDER BY position LIMIT %s) AS next"
            " WHERE number = 1 OR total <= %s ORDER BY position",
            (self.tenant, partition, after, limit, facts),
        )
        return [LogRow(**row) for row in rows]

    def unread(self, partition: int, subject: str | None, after: int) -> list[Unread]:
        """What follows a position, by subject and type, in the order of the log; of one subject or of all."""
        rows = self._run(
            "SELECT type, subject, count(*) AS events, sum(fact_count)::bigint AS facts,"
            " min(position) AS first, max(position) AS last, min(time) AS since FROM event_log"
            " WHERE tenant = %s AND partition = %s AND (%s::text IS NULL OR subject = %s)"
            " AND position > %s GROUP BY type, subject ORDER BY first",
            (self.tenant, partition, subject, subject, after),
        )
        return [Unread(**row) for row in rows]

    def subjects(self) -> list[str]:
        """Everything that any event is about, each once."""
        rows = self._run(
            "WITH RECURSIVE found AS ("
            "(SELECT subject FROM event_log WHERE tenant = %s ORDER BY subject LIMIT 1)"
            " UNION ALL SELECT (SELECT subject FROM event_log WHERE tenant = %s"
            "  AND subject > found.subject ORDER BY subject LIMIT 1) FROM found"
            " WHERE found.subject IS NOT NULL)"
            " SELECT subject FROM found WHERE subject IS NOT NULL",
            (self.tenant, self.tenant),
        )
        return [str(row["subject"]) for row in rows]

    def told_by(self, type_: str) -> pa.Table:
        """Who told the events of a type: `subject`, `position` and `source` of each."""
        return self._copy_out(
            "SELECT subject, position, source FROM event_log WHERE tenant = %s AND type = %s",
            (self.tenant, type_),
            TOLD_BY,
        )

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

    # Transport --------------------------------------------------------------------------------------

    def add_dead_letters(self, rows: Sequence[DeadLetter]) -> None:
        """Put aside messages that could not be read; one that is there already stays as it is."""
        self._cursor.executemany(
            "INSERT INTO dead_letter (tenant, transport, partition, position, reason, headers, body)"
            " VALUES (%s, %s, %s, %s, %s, %s, %b) ON CONFLICT DO NOTHING",
            [
                (
                    *(self.tenant, row.transport, row.partition, row.position, row.reason),
                    *(json.dumps(row.headers, sort_keys=True), row.body),
                )
                for row in rows
            ],
        )

    def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Messages that could not be read, the oldest first."""
        rows = self._run(
            "SELECT transport, partition, position, reason, headers, body, at FROM dead_letter"
            " WHERE tenant = %s ORDER BY at, transport, partition, position LIMIT %s",
            (self.tenant, limit),
        )
        return [DeadLetter(**{**row, "headers": json.loads(row["headers"])}) for row in rows]

    def drop_dead_letter(self, transport: str, partition: int, position: int) -> bool:
        """A dead letter that was dealt with: take it off; whether it was there."""
        rows = self._run(
            "DELETE FROM dead_letter WHERE tenant = %s AND transport = %s AND partition = %s"
            " AND position = %s RETURNING 1",
            (self.tenant, transport, partition, position),
        )
        return bool(rows)

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
