"""Events between the log and what carries them from place to place: NATS, Kafka, another home's log.

The log stays where events commit together with what is made of them. A transport only brings events to it
(`receive`) and takes them from it (`forward`), each from a position that is kept in PostgreSQL and commits
with the events: what the transport itself believes to be read or acknowledged is never asked.

Hides how an event becomes a message: a CloudEvents 1.0 envelope in binary mode, its attributes apart from its
facts, which stay the Arrow stream they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from storekeep.bus.log import FACTS_AT_ONCE, MAX_FACTS, append, partition_of
from storekeep.errors import InvariantBroken
from storekeep.events import (
    CONTENT_TYPE,
    EVENT_TABLES,
    SPEC_VERSION,
    Event,
    event,
    from_bytes,
)
from storekeep.store import DeadLetter, LogRow, Transaction

NAME_LETTERS = 500
REASON_LETTERS = 500


@dataclass(frozen=True)
class Message:
    """What a transport carries: an envelope's attributes, facts as bytes, a position once it has one."""

    attributes: Mapping[str, str]
    body: bytes
    position: int = 0


class Transport(Protocol):
    """What carries messages, apart by tenant and partition, in the order in which they were published."""

    def origin(self, tenant: str) -> str:
        """The name under which positions in a tenant's messages are kept.

        It changes when the messages are begun anew, since old positions then mean nothing.
        """

    def publish(self, tenant: str, partition: int, messages: Sequence[Message]) -> None:
        """Carry messages, in their order; they are safe when this returns.

        Raises `Transient` when they may or may not be: to publish them again does no harm. Raises
        `Permanent` when the transport would never take them.
        """

    def read(self, tenant: str, partition: int, after: int, limit: int) -> list[Message]:
        """The next messages after a position, oldest first, without a gap; none when there are no more."""

    def close(self) -> None:
        """Give the connection back."""


@dataclass(frozen=True)
class Received:
    """What one reading of a transport came to: events new to the log, events it had, messages put aside."""

    fresh: int
    known: int
    dead: int

    @property
    def messages(self) -> int:
        """All messages of the reading; none when the transport has no more."""
        return self.fresh + self.known + self.dead


class Unreadable(Exception):
    """A message is not an event of ours; says why."""


def receive(
    tx: Transaction,
    transport: Transport,
    partition: int,
    limit: int = 500,
    news: Callable[[Sequence[Event]], Sequence[Event]] = list,
) -> Received:
    """Bring a partition's next events from a transport into the log; all of it commits with the position.

    An event that the log has is known again by its id, so that a message which comes twice does no harm.
    `news` says what of the events is new by its facts; without it two events that tell the same fact are
    two. A message that cannot be read is put aside as a dead letter with its reason, and those after it go
    on.
    """
    origin = transport.origin(tx.tenant)
    after = tx.position(f"from {origin}", partition, lock=True)
    messages = transport.read(tx.tenant, partition, after, limit)
    if not messages:
        return Received(0, 0, 0)
    events: list[Event] = []
    dead: list[DeadLetter] = []
    for each in messages:
        try:
            events.append(unseal(each, tx.tenant, partition))
        except Unreadable as error:
            reason = _plain(str(error))[:REASON_LETTERS]
            letter = (origin, partition, each.position, reason, each.attributes, each.body)
            dead.append(DeadLetter(*letter))
    fresh = [each for each in append(tx, partition, news(events)) if each is not None]
    tx.add_dead_letters(dead)
    tx.move_position(f"from {origin}", partition, messages[-1].position)
    # What came from there is there: unless something of ours has to go before it, it is not given back.
    if fresh and tx.position(f"to {origin}", partition, lock=True) == fresh[0] - 1:
        tx.move_position(f"to {origin}", partition, fresh[-1])
    return Received(len(fresh), len(events) - len(fresh), len(dead))


def read_again(tx: Transaction, letter: DeadLetter) -> Event:
    """The event of a message that was put aside; raises `Unreadable` while it is none."""
    return unseal(Message(letter.headers, letter.body), tx.tenant, letter.partition)


def forward(tx: Transaction, transport: Transport, partition: int, limit: int = 500) -> int:
    """Give a partition's next events of the log to a transport; how many. The position commits with `tx`.

    At most `limit` events, and of large ones fewer; none when all have been given.
    When the commit fails they are given again: who reads them knows them again by their ids. Of what came
    from there itself `receive` gives nothing back, as long as all before it has been given.
    """
    consumer = f"to {transport.origin(tx.tenant)}"
    after = tx.position(consumer, partition, lock=True)
    rows = tx.read_events(partition, after, limit, FACTS_AT_ONCE)
    if rows:
        transport.publish(tx.tenant, partition, [seal(row, tx.tenant) for row in rows])
        tx.move_position(consumer, partition, rows[-1].position)
    return len(rows)


def seal(told: LogRow | Event, tenant: str) -> Message:
    """An event, of the log or not yet in one, as a message."""
    attributes = {
        "specversion": SPEC_VERSION,
        "id": told.id,
        "source": told.source,
        "type": told.type,
        "subject": told.subject,
        "time": told.time.astimezone(UTC).isoformat(),
        "datacontenttype": CONTENT_TYPE,
        "tenant": tenant,
    }
    body = told.body if isinstance(told, Event) else told.facts
    return Message(attributes, body, told.position or 0)


def unseal(message: Message, tenant: str, partition: int) -> Event:
    """The event of a message that came in a tenant's partition; raises `Unreadable`."""
    said = message.attributes
    missing = [
        name for name in ("specversion", "id", "source", "type", "subject") if not said.get(name)
    ]
    if missing:
        raise Unreadable(f"the envelope has no {', '.join(missing)}")
    if said["specversion"] != SPEC_VERSION:
        raise Unreadable(
            f"the envelope is of CloudEvents {said['specversion']}, not {SPEC_VERSION}"
        )
    if said.get("tenant", tenant) != tenant:
        raise Unreadable("it is of another tenant")
    for name in ("source", "subject"):
        if "\0" in said[name] or len(said[name]) > NAME_LETTERS:
            raise Unreadable(f"its {name} has a zero in it or more than {NAME_LETTERS} letters")
    right = partition_of(tenant, said["subject"])
    if right != partition:
        raise Unreadable(f"its subject belongs into partition {right}, not into {partition}")
    facts = _facts(said["type"], message.body)
    try:
        return event(said["type"], said["source"], said["subject"], _time(said), facts)
    except InvariantBroken as error:
        raise Unreadable(str(error)) from None


def _time(said: Mapping[str, str]) -> datetime:
    try:
        found = datetime.fromisoformat(said["time"])
    except (KeyError, ValueError):
        raise Unreadable("its time is missing or not as RFC 3339 has it") from None
    if found.tzinfo is None:
        raise Unreadable("its time has no zone")
    return found


def _facts(type_: str, body: bytes) -> pa.Table:
    """The facts of a body, whole and of the type's own table, so that nothing later stumbles on them."""
    table = EVENT_TABLES.get(type_)
    if table is None:
        raise Unreadable(f"no event type is called {type_!r}")
    try:
        facts = from_bytes(body, table)
        facts.validate(full=True)
    # A broken stream ends in any of these, by what of it is broken.
    except (pa.ArrowException, ValueError, TypeError, KeyError, OSError, MemoryError) as error:
        raise Unreadable(f"its facts are not readable as {table.name}: {error}") from None
    if facts.num_rows > MAX_FACTS:
        raise Unreadable(f"it has {facts.num_rows} facts; split it at {MAX_FACTS}")
    for column in table.columns:
        if facts[column.name].null_count and not column.nullable:
            raise Unreadable(f"its facts have no {column.name} in every row")
    return facts


def _plain(text: str) -> str:
    """A text without what a log or a database would not take."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
