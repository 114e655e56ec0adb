"""What was reported: the event log, how far its readers are, what transports brought, and stock positions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

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
COUNTED = pa.schema(
    [("location_id", pa.string()), ("sku", pa.string()), ("counted_us", pa.int64())]
)
TOLD_BY = pa.schema([("subject", pa.string()), ("position", pa.int64()), ("source", pa.string())])
TOLD_FROM = pa.schema([("subject", pa.string()), ("position", pa.int64()), ("told_us", pa.int64())])
"""What each event of a source is about, where it stands in its partition, and when it was told."""
# What a person calls a message by: its place, in twelve digits.
_MESSAGE_ID = (
    "LATERAL (SELECT left(encode(sha256(convert_to(concat_ws(E'\\n', transport, partition, position),"
    " 'UTF8')), 'hex'), 12) AS message_id) AS named"
)


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
    message_id: str = ""


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
        self._cursor.execute(
            "SELECT partition, position, id, type, source, subject, time, fact_count, facts FROM"
            " (SELECT *, sum(fact_count) OVER (ORDER BY position) AS total, row_number() OVER"
            " (ORDER BY position) AS number FROM event_log WHERE tenant = %s AND partition = %s"
            " AND position > %s ORDER BY position LIMIT %s) AS next"
            " WHERE number = 1 OR total <= %s ORDER BY position",
            (self.tenant, partition, after, limit, facts),
            # As text the facts would be twice as long.
            binary=True,
        )
        return [LogRow(**row) for row in self._cursor.fetchall()]

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

    def unread_by(self, readers: Mapping[str, tuple[int, str]]) -> dict[str, list[Unread]]:
        """What each consumer has not read of the one subject of a partition that it reads, by consumer.

        A consumer that has read all there is is left out.
        """
        rows = self._run(
            "SELECT told.consumer, told.subject, found.* FROM"
            " unnest(%s::text[], %s::int[], %s::text[]) AS told (consumer, partition, subject)"
            " LEFT JOIN consumer_position p ON p.tenant = %s AND p.consumer = told.consumer"
            "  AND p.partition = told.partition"
            " CROSS JOIN LATERAL (SELECT type, count(*) AS events, sum(fact_count)::bigint AS facts,"
            "  min(position) AS first, max(position) AS last, min(time) AS since FROM event_log"
            "  WHERE tenant = %s AND partition = told.partition AND subject = told.subject"
            "  AND position > coalesce(p.position, 0) GROUP BY type) AS found ORDER BY found.first",
            (
                list(readers),
                [partition for partition, _ in readers.values()],
                [subject for _, subject in readers.values()],
                *(self.tenant, self.tenant),
            ),
        )
        found: dict[str, list[Unread]] = {}
        for row in rows:
            found.setdefault(row.pop("consumer"), []).append(Unread(**row))
        return found

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

    def told_from(
        self, source: str, types: Sequence[str], places: Mapping[int, tuple[int, int]]
    ) -> pa.Table:
        """What a source told in events of some types (`TOLD_FROM`), between two places of each partition."""
        after, last = zip(*places.values(), strict=True) if places else ((), ())
        return self._copy_out(
            "SELECT e.subject, e.position, (extract(epoch FROM e.time) * 1000000)::bigint AS told_us"
            " FROM unnest(%s::int[], %s::bigint[], %s::bigint[]) AS told (partition, after, last)"
            " JOIN event_log e ON e.tenant = %s AND e.partition = told.partition"
            " AND e.position > told.after AND e.position <= told.last"
            " AND e.source = %s AND e.type = ANY(%s)",
            (list(places), list(after), list(last), self.tenant, source, list(types)),
            TOLD_FROM,
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

    def behind(self, consumer: str) -> list[int]:
        """The partitions that have events which a consumer has not read, in one order for everybody."""
        rows = self._run(
            "SELECT h.partition FROM bus_head h LEFT JOIN consumer_position p"
            " ON p.tenant = h.tenant AND p.consumer = %s AND p.partition = h.partition"
            " WHERE h.tenant = %s AND h.position > coalesce(p.position, 0) ORDER BY h.partition",
            (consumer, self.tenant),
        )
        return [row["partition"] for row in rows]

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

    def dead_letters(
        self, message_ids: Sequence[str] | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Messages that could not be read, all or those of some ids, the oldest first."""
        ids = None if message_ids is None else list(message_ids)
        rows = self._run(
            "SELECT transport, partition, position, reason, headers, body, at, message_id"
            f" FROM dead_letter, {_MESSAGE_ID}"  # a constant
            " WHERE tenant = %s AND (%s::text[] IS NULL OR message_id = ANY(%s))"
            " ORDER BY at, transport, partition, position LIMIT %s",
            (self.tenant, ids, ids, limit),
        )
        return [DeadLetter(**{**row, "headers": json.loads(row["headers"])}) for row in rows]

    def put_aside(self) -> list[dict[str, Any]]:
        """Where each message stood that could not be read, and why, without the message; oldest first."""
        return self._run(
            "SELECT message_id, transport, partition, position, reason,"
            " octet_length(body) AS size_bytes, at"
            f" FROM dead_letter, {_MESSAGE_ID}"  # a constant
            " WHERE tenant = %s ORDER BY at, transport, partition, position",
            (self.tenant,),
        )

    def drop_dead_letter(self, transport: str, partition: int, position: int) -> bool:
        """A dead letter that was dealt with: take it off; whether it was there."""
        rows = self._run(
            "DELETE FROM dead_letter WHERE tenant = %s AND transport = %s AND partition = %s"
            " AND position = %s RETURNING 1",
            (self.tenant, transport, partition, position),
        )
        return bool(rows)

    # Stock ------------------------------------------------------------------------------------------

    def counted_after(self, location_ids: Sequence[str], at: datetime) -> pa.Table:
        """The items of some locations last counted after a time: `location_id`, `sku`, `counted_us`."""
        return self._copy_out(
            "SELECT location_id, sku, (extract(epoch FROM counted_at) * 1000000)::bigint AS counted_us"
            " FROM stock_position WHERE tenant = %s AND location_id = ANY(%s) AND counted_at > %s",
            (self.tenant, list(location_ids), at),
            COUNTED,
        )

    def count_stock(self, counted: pa.Table) -> None:
        """Set the stock positions of items that were counted; an item has one from its first count on.

        `counted`: as `STOCK`, each item once, and `counted_at` of its newest count.
        """
        names = (*STOCK.names, "counted_at")
        self._run(
            "INSERT INTO stock_position SELECT %s, told.* FROM unnest(%s::text[], %s::text[],"
            "  %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::timestamptz[]) AS told"
            " ON CONFLICT (tenant, location_id, sku) DO UPDATE SET"
            "  on_hand_units = excluded.on_hand_units, on_order_units = excluded.on_order_units,"
            "  committed_units = excluded.committed_units, unmet_units = excluded.unmet_units,"
            "  counted_at = excluded.counted_at",
            (self.tenant, *(counted[name].to_pylist() for name in names)),
        )

    def move_stock(self, moves: pa.Table) -> None:
        """Move stock positions; units asked for beyond on-hand are unmet.

        `moves`: as `stock.moves` makes them, each item once. Items without a stock position are left out.
        """
        names = (
            "location_id",
            "sku",
            "on_hand_units",
            "least_units",
            "on_order_units",
            "committed_units",
        )
        # On-hand is a walk that cannot fall below nothing: the sum of its steps, plus how far below nothing
        # that sum ever was, which is what is unmet.
        self._run(
            "WITH walk AS ("
            " SELECT m.*, p.counted_at, p.on_hand_units + m.on_hand AS level,"
            "  greatest(0, -(p.on_hand_units + m.least)) AS unmet FROM unnest(%s::text[], %s::text[],"
            "  %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])"
            "  AS m(location_id, sku, on_hand, least, on_order, committed)"
            # Joined from the moves, whatever PostgreSQL expects of the positions of a tenant that is new.
            " LEFT JOIN stock_position p ON p.tenant = %s AND p.location_id = m.location_id AND p.sku = m.sku"
            ") INSERT INTO stock_position AS p SELECT %s, location_id, sku, level + unmet, on_order,"
            "  committed, unmet, counted_at FROM walk WHERE level IS NOT NULL ORDER BY location_id, sku"
            " ON CONFLICT (tenant, location_id, sku) DO UPDATE SET on_hand_units = excluded.on_hand_units,"
            "  on_order_units = p.on_order_units + excluded.on_order_units,"
            "  committed_units = p.committed_units + excluded.committed_units,"
            "  unmet_units = p.unmet_units + excluded.unmet_units",
            (*(moves[name].to_pylist() for name in names), self.tenant, self.tenant),
        )

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
