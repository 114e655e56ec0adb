"""Events between the log and what carries them from place to place: NATS, Kafka, another home's log.

The log stays where events commit together with what is made of them. A transport only brings events to it
(`receive`) and takes them from it (`forward`), each from a position that is kept in PostgreSQL and commits
with the events: what the transport itself believes to be read or acknowledged is never asked. What others
write in a format of their own comes as a batch of a feed, and is kept by whoever receives it, likewise.

Hides how an event becomes a message: a CloudEvents 1.0 envelope in binary mode, its attributes apart from its
facts, which stay the Arrow stream they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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

BATCH = "BatchPushed"
"""The type of a message whose body is a file of a feed, as somebody else's system writes it."""
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
class Batch:
    """A file of a feed that came as a message, and the mapping that says how it is written."""

    mapping: str
    body: bytes


@dataclass(frozen=True)
class Received:
    """What one reading of a transport came to.

    Events new to the log, events and batches that were there, messages put aside, batches that are new.
    """

    fresh: int
    known: int
    dead: int
    batches: int = 0

    @property
    def messages(self) -> int:
        """All messages of the reading; none when the transport has no more."""
        return self.fresh + self.known + self.dead + self.batches


class Unreadable(Exception):
    """A message is neither an event of ours nor a batch that is taken; says why."""


def _nobodys(batch: Batch) -> bool:
    raise Unreadable(f"nobody takes batches here: {batch.mapping!r}")


@dataclass(frozen=True)
class Taker:
    """What a home does with what a transport brings.

    `news` says what of the events is new by its facts; without it two events that tell the same fact are two.
    `told` notes where they stood (their positions are those of the messages) and where in the log they are.
    `keep` keeps a batch of a feed and says whether it is new, or raises `Unreadable`. `hide` hides what is in
    a message that is put aside.
    """

    news: Callable[[Sequence[Event]], Sequence[Event]] = list
    told: Callable[[str, Sequence[Event], Sequence[int | None]], object] = lambda *_: None
    keep: Callable[[Batch], bool] = _nobodys
    hide: Callable[[DeadLetter], DeadLetter] = lambda letter: letter


def receive(
    tx: Transaction,
    transport: Transport,
    partition: int,
    limit: int = 500,
    taker: Taker = Taker(),
) -> Received:
    """Bring a partition's next events from a transport into the log; all of it commits with the position.

    An event that the log has is known again by its id, so that a message which comes twice does no harm.
    A message that cannot be read is put aside as a dead letter with its reason, and those after it go on.
    """
    origin = transport.origin(tx.tenant)
    after = tx.position(f"from {origin}", partition, lock=True)
    messages = transport.read(tx.tenant, partition, after, limit)
    if not messages:
        return Received(0, 0, 0)
    events: list[Event] = []
    kept: list[bool] = []
    dead: list[DeadLetter] = []
    for each in messages:
        try:
            if is_batch(each):
                kept.append(taker.keep(unpack(each, tx.tenant)))
            else:
                events.append(replace(unseal(each, tx.tenant, partition), position=each.position))
        except Unreadable as error:
            reason = _plain(str(error))[:REASON_LETTERS]
            letter = (origin, partition, each.position, reason, each.attributes, each.body)
            dead.append(taker.hide(DeadLetter(*letter)))
    news = taker.news(events)
    places = append(tx, partition, news)
    taker.told(origin, news, places)
    fresh = [each for each in places if each is not None]
    tx.add_dead_letters(dead)
    tx.move_position(f"from {origin}", partition, messages[-1].position)
    # What came from there is there: unless something of ours has to go before it, it is not given back.
    if fresh and tx.position(f"to {origin}", partition, lock=True) == fresh[0] - 1:
        tx.move_position(f"to {origin}", partition, fresh[-1])
    known = len(events) - len(fresh) + kept.count(False)
    return Received(len(fresh), known, len(dead), kept.count(True))


def read_again(tx: Transaction, letter: DeadLetter) -> Event | Batch:
    """What a message is that was put aside; raises `Unreadable` while it is neither event nor batch."""
    message = Message(letter.headers, letter.body)
    if is_batch(message):
        return unpack(message, tx.tenant)
    return replace(unseal(message, tx.tenant, letter.partition), position=letter.position)


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


def is_batch(message: Message) -> bool:
    """Whether a message says that it is a batch of a feed, and no event of ours."""
    return message.attributes.get("type") == BATCH


def unpack(message: Message, tenant: str) -> Batch:
    """The batch of a message that came in a tenant's partition, whichever that is; raises `Unreadable`."""
    said = message.attributes
    _check_envelope(said, tenant, "mapping")
    return Batch(said["mapping"], message.body)


def _check_envelope(said: Mapping[str, str], tenant: str, own: str) -> None:
    """That an envelope has what every one needs, and an attribute of its own kind."""
    missing = [name for name in ("specversion", "id", "source", "type", own) if not said.get(name)]
    if missing:
        raise Unreadable(f"the envelope has no {', '.join(missing)}")
    if said["specversion"] != SPEC_VERSION:
        raise Unreadable(
            f"the envelope is of CloudEvents {said['specversion']}, not {SPEC_VERSION}"
        )
    if said.get("tenant", tenant) != tenant:
        raise Unreadable("it is of another tenant")


def unseal(message: Message, tenant: str, partition: int) -> Event:
    """The event of a message that came in a tenant's partition; raises `Unreadable`."""
    said = message.attributes
    _check_envelope(said, tenant, "subject")
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
