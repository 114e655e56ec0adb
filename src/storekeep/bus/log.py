"""The event log: publish facts, and read them from a position that commits with what was made of them.

Hides how envelopes are laid out in the log, how a subject finds its partition, and how a position is kept.
Events of one subject (a location) stay in order; subjects spread over partitions, so that more workers
mean more throughput.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from storekeep.errors import InvariantBroken
from storekeep.events import EVENT_TABLES, Event, from_bytes
from storekeep.store import PARTITIONS, LogRow, Transaction

MAX_FACTS = 100_000
# What is read at once bounds the memory of a step.
FACTS_AT_ONCE = 4 * MAX_FACTS


def partition_of(tenant: str, subject: str) -> int:
    """The partition in which a tenant's events about a subject stand, in order."""
    return zlib.crc32(f"{tenant}\n{subject}".encode()) % PARTITIONS


def publish(tx: Transaction, event: Event) -> int | None:
    """Put an event on the bus; its position, or None when the bus has it already.

    It becomes visible when the transaction commits. Raises `InvariantBroken` above `MAX_FACTS` facts.
    """
    return append(tx, partition_of(tx.tenant, event.subject), [event])[0]


def append(tx: Transaction, partition: int, events: Sequence[Event]) -> list[int | None]:
    """Put events of one partition on the bus in their order, as `publish` does each of them."""
    for event in events:
        if event.facts.num_rows > MAX_FACTS:
            raise InvariantBroken(
                f"an event of {event.facts.num_rows} facts is too large; split it at {MAX_FACTS}"
            )
    return tx.append_events(partition, [_row(partition, event) for event in events])


def read(tx: Transaction, consumer: str, partition: int, limit: int = 500) -> list[Event]:
    """The events that a consumer has not read yet, oldest first; its position is locked until commit.

    At most `limit` events, and of large ones fewer. The consumer says how far it got with `advance`, in the
    same transaction as its own writes.
    """
    after = tx.position(consumer, partition, lock=True)
    return [_event(row) for row in tx.read_events(partition, after, limit, FACTS_AT_ONCE)]


def advance(tx: Transaction, consumer: str, partition: int, position: int) -> None:
    """The consumer has dealt with all events up to a position."""
    tx.move_position(consumer, partition, position)


def replay(tx: Transaction, partition: int, after: int = 0, limit: int = 500) -> list[Event]:
    """The events of a partition after a position, for nobody's account; as many as `read` gives."""
    return [_event(row) for row in tx.read_events(partition, after, limit, FACTS_AT_ONCE)]


def _row(partition: int, event: Event) -> LogRow:
    return LogRow(
        partition,
        0,
        event.id,
        event.type,
        event.source,
        event.subject,
        event.time,
        event.facts.num_rows,
        event.body,
    )


def _event(row: LogRow) -> Event:
    table = EVENT_TABLES.get(row.type)
    if table is None:
        raise InvariantBroken(f"event {row.id} on the bus has the unknown type {row.type!r}")
    facts = from_bytes(row.facts, table)
    return Event(row.type, row.source, row.subject, row.time, facts, row.position)
