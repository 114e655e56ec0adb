"""What every transport must do: bring each event once and in order, whatever breaks, and let none block.

The suite runs against the log of another home and against a real NATS JetStream server, and, by the broker
that its client library brings for tests, against Kafka.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from storekeep import bus
from storekeep.bus import Message, Received, Transport
from storekeep.bus.jetstream import JetStream
from storekeep.bus.kafka import Kafka
from storekeep.bus.remote import RemoteLog
from storekeep.config import Settings
from storekeep.errors import Permanent, Transient
from storekeep.events import Event, event
from storekeep.store import Arrival, LogRow, Store
from tests import shop
from tests.told import AT, batch, count, numbers, sealed


@pytest.fixture
def sender(there: str) -> Iterator[Store]:
    """The log of another home, that forwards."""
    with Store(there) as one:
        yield one


def place(tenant: str, location_id: str = shop.LOCATION) -> int:
    return bus.partition_of(tenant, location_id)


def logged(store: Store, tenant: str, partition: int | None = None) -> list[int]:
    """What the log holds of a partition, as the numbers of its events."""
    where = place(tenant) if partition is None else partition
    with store.transaction(tenant) as tx:
        return numbers(bus.replay(tx, where, limit=10_000))


def received(store: Store, transport: Transport, tenant: str, limit: int = 500) -> Received:
    with store.transaction(tenant) as tx:
        return bus.receive(tx, transport, place(tenant), limit)


def kept(store: Store, transport: Transport, tenant: str, *, dies: bool = False) -> Received:
    """As `received`, by somebody who takes batches too."""
    with store.transaction(tenant) as tx:

        def keep(one: bus.Batch) -> bool:
            return tx.add_arrival(Arrival("pushed", one.body.decode(), one.mapping, None, one.body))

        found = bus.receive(tx, transport, place(tenant), 3, bus.Taker(keep=keep))
        if dies:
            raise Broken
        return found


class Broken(Exception):
    """A worker dies."""


class Contract:
    """The suite; a subclass brings the transport."""

    # Reasons for a dead letter that cannot come about here.
    never: frozenset[str] = frozenset()
    carries_batches = True

    def again(self, transport: Transport) -> Transport:
        """The same transport by a connection of its own."""
        raise NotImplementedError

    def poison(self, transport: Transport, tenant: str, messages: Sequence[Message]) -> None:
        """Bring something into the transport that is no event."""
        transport.publish(tenant, place(tenant), messages)

    def test_what_is_published_is_read_as_it_was(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        told = event(
            "SaleRecorded",
            'Kasse 1 – "süß" 100%',
            shop.LOCATION,
            AT,
            shop.sales(shop.FIRST_DAY, shop.FIRST_DAY),
        )
        transport.publish(tenant, place(tenant), [bus.seal(told, tenant)])
        assert received(store, transport, tenant) == Received(1, 0, 0)
        with store.transaction(tenant) as tx:
            (found,) = bus.replay(tx, place(tenant))
        assert found == replace(told, position=1)
        assert found.id == told.id

    def test_order_is_kept_in_each_partition(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        shops = [f"store {number}" for number in range(6)]
        for number in range(40):
            name = shops[number % len(shops)]
            transport.publish(tenant, place(tenant, name), sealed(tenant, number, location_id=name))
        for name in shops:
            with store.transaction(tenant) as tx:
                while bus.receive(tx, transport, place(tenant, name), limit=3).messages:
                    pass
        for name in shops:
            found = logged(store, tenant, place(tenant, name))
            assert found == sorted(found)
        everything = [
            n for p in {place(tenant, s) for s in shops} for n in logged(store, tenant, p)
        ]
        assert sorted(everything) == list(range(40))

    def test_nothing_is_read_of_nothing(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        assert received(store, transport, tenant) == Received(0, 0, 0)
        transport.publish(tenant, place(tenant), sealed(tenant, 1))
        assert received(store, transport, tenant).fresh == 1
        assert received(store, transport, tenant) == Received(0, 0, 0)

    def test_an_event_that_is_published_again_is_in_the_log_once(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, 1, 2, 3))
        transport.publish(tenant, place(tenant), sealed(tenant, 2, 3, 4, 2))
        assert received(store, transport, tenant, limit=2).fresh == 2
        while received(store, transport, tenant, limit=2).messages:
            pass
        assert logged(store, tenant) == [1, 2, 3, 4]

    def test_five_hundred_events_in_flight_are_one_batch(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, *range(700)))
        assert received(store, transport, tenant, limit=500) == Received(500, 0, 0)
        assert received(store, transport, tenant, limit=500) == Received(200, 0, 0)
        assert logged(store, tenant) == list(range(700))

    def test_a_worker_that_dies_before_it_commits_has_read_nothing(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, *range(9)))
        for _ in range(2):
            with pytest.raises(Broken), store.transaction(tenant) as tx:  # noqa: PT012  # it is the block that fails
                assert bus.receive(tx, transport, place(tenant), 5).fresh == 5
                raise Broken
            assert logged(store, tenant) == []
        # Another worker takes over, by a connection of its own.
        other = self.again(transport)
        assert received(store, other, tenant, limit=5).fresh == 5
        other.close()
        assert received(store, transport, tenant).fresh == 4
        assert logged(store, tenant) == list(range(9))

    def test_workers_at_once_bring_each_event_once_and_in_order(
        self, transport: Transport, conninfo: str, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, *range(60)))

        def work() -> None:
            own = self.again(transport)
            with Store(conninfo) as store:
                while received(store, own, tenant, limit=4).messages:
                    pass
            own.close()

        workers = [threading.Thread(target=work) for _ in range(3)]
        for each in workers:
            each.start()
        for each in workers:
            each.join(60)
        with Store(conninfo) as store:
            assert logged(store, tenant) == list(range(60))

    def test_a_log_goes_to_another_home_by_it(
        self, transport: Transport, store: Store, sender: Store, tenant: str
    ) -> None:
        with sender.transaction(tenant) as tx:
            bus.append(tx, place(tenant), [count(number) for number in range(20)])
        with sender.transaction(tenant) as tx:
            assert bus.forward(tx, transport, place(tenant), limit=8) == 8
        with pytest.raises(Broken), sender.transaction(tenant) as tx:  # noqa: PT012  # it is the block that fails
            assert bus.forward(tx, transport, place(tenant), limit=8) == 8
            raise Broken
        with sender.transaction(tenant) as tx:
            while bus.forward(tx, transport, place(tenant), limit=5):
                pass
        while received(store, transport, tenant, limit=7).messages:
            pass
        assert logged(store, tenant) == list(range(20))

    def test_a_message_that_is_no_event_is_put_aside_and_blocks_nothing(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        good = sealed(tenant, 1, 2)
        transport.publish(tenant, place(tenant), good[:1])
        bad = {words: each for words, each in poisons(tenant).items() if words not in self.never}
        self.poison(transport, tenant, list(bad.values()))
        transport.publish(tenant, place(tenant), good[1:])
        total = Received(0, 0, 0)
        while (one := received(store, transport, tenant, limit=3)).messages:
            total = Received(*(a + b for a, b in zip(astuple(total), astuple(one), strict=True)))
        assert total == Received(2, 0, len(bad))
        assert logged(store, tenant) == [1, 2]
        with store.transaction(tenant) as tx:
            letters = tx.dead_letters()
        assert {letter.partition for letter in letters} == {place(tenant)}
        for (words, message), letter in zip(bad.items(), letters, strict=True):
            assert words in letter.reason
            assert letter.body == message.body
            assert letter.at is not None
        first = letters[0]
        with store.transaction(tenant) as tx:
            assert tx.drop_dead_letter(first.transport, first.partition, first.position)
            assert not tx.drop_dead_letter(first.transport, first.partition, first.position)
            assert tx.dead_letters() == letters[1:]

    def test_a_dead_letter_of_a_worker_that_dies_is_there_once(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        self.poison(transport, tenant, list(poisons(tenant).values())[:1])
        with pytest.raises(Broken), store.transaction(tenant) as tx:  # noqa: PT012  # it is the block that fails
            assert bus.receive(tx, transport, place(tenant)).dead == 1
            raise Broken
        assert received(store, transport, tenant).dead == 1
        with store.transaction(tenant) as tx:
            assert len(tx.dead_letters()) == 1

    def test_a_batch_is_kept_once_in_the_transaction_that_moves_the_position(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        messages = [batch(b"1"), *sealed(tenant, 7), batch(b"2"), batch(b"1", tenant=tenant)]
        if not self.carries_batches:
            with pytest.raises(Permanent, match="takes no message"):
                transport.publish(tenant, place(tenant), messages)
            return
        transport.publish(tenant, place(tenant), messages)
        with pytest.raises(Broken):
            kept(store, transport, tenant, dies=True)
        with store.transaction(tenant) as tx:
            assert tx.count_arrivals() == 0
        assert kept(store, transport, tenant) == Received(1, 0, 0, 2)
        assert kept(store, transport, tenant) == Received(0, 1, 0, 0)
        assert kept(store, transport, tenant).messages == 0
        with store.transaction(tenant) as tx:
            assert [each.body for each in tx.arrivals(9, 99)] == [b"1", b"2"]
        assert logged(store, tenant) == [7]

    def test_a_batch_that_nobody_takes_is_put_aside_as_it_came(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        if not self.carries_batches:
            return
        bad = {
            "nobody takes batches here: 'partner'": batch(b"1"),
            "has no mapping": batch(b"2", mapping=""),
            "of another tenant": batch(b"3", tenant="eve"),
            "CloudEvents 0.3": batch(b"4", specversion="0.3"),
        }
        transport.publish(tenant, place(tenant), [*bad.values(), *sealed(tenant, 1)])
        assert received(store, transport, tenant) == Received(1, 0, 4)
        with store.transaction(tenant) as tx:
            letters = tx.dead_letters()
        for (words, message), letter in zip(bad.items(), letters, strict=True):
            assert words in letter.reason
            assert (letter.body, letter.headers) == (message.body, message.attributes)

    def test_tenants_are_apart(self, transport: Transport, store: Store, tenant: str) -> None:
        other = f"{tenant}_b"
        transport.publish(tenant, place(tenant), sealed(tenant, 1))
        transport.publish(other, place(other), sealed(other, 2))
        assert received(store, transport, tenant).fresh == 1
        assert logged(store, tenant) == [1]
        assert logged(store, other) == []
        assert received(store, transport, other).fresh == 1
        assert logged(store, other) == [2]

    def test_only_postgresql_knows_how_far_a_home_has_read(
        self, transport: Transport, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, *range(4)))
        assert received(store, transport, tenant, limit=2).fresh == 2
        consumer = f"from {transport.origin(tenant)}"
        with store.transaction(tenant) as tx:
            at = tx.position(consumer, place(tenant))
            assert at > 0
            tx.move_position(consumer, place(tenant), 0)
        # Put back, all is read again, and known again.
        assert received(store, transport, tenant) == Received(2, 2, 0)
        assert logged(store, tenant) == list(range(4))


def astuple(one: Received) -> tuple[int, int, int]:
    return one.fresh, one.known, one.dead


def poisons(tenant: str) -> dict[str, Message]:
    """Messages that are no event, each by a word of the reason."""
    (good,) = sealed(tenant, 99)

    def but(body: bytes | None = None, **said: str) -> Message:
        # Each with an id of its own, so that no transport takes them for one.
        named = {**good.attributes, "id": uuid4().hex, **said}
        return Message(named, good.body if body is None else body)

    sales = shop.sales(shop.FIRST_DAY, shop.FIRST_DAY)
    other = event("SaleRecorded", "tills", shop.LOCATION, AT, sales)
    elsewhere = next(f"s{n}" for n in range(99) if place(tenant, f"s{n}") != place(tenant))
    return {
        "no event type is called": but(type="ShopBurned"),
        "not readable as stock_count: ": but(b"\x00broken"),
        "not readable as stock_count": but(good.body[: len(good.body) // 2]),
        "not readable": but(other.body),
        "at least one fact": but(empty()),
        "of another tenant": but(tenant="eve"),
        "belongs into partition": but(subject=elsewhere),
        "no zone": but(time="2026-03-02T10:00:00"),
        "not as RFC 3339": but(time="soon"),
    }


def empty() -> bytes:
    return Event("StockCounted", "s", "s", AT, count(1).facts.slice(0, 0)).body


class TestRemoteLog(Contract):
    """The log of another home, in a database of its own."""

    # A log holds events and nothing else.
    carries_batches = False
    # It has tenant and time in columns of their own, where they cannot be wrong.
    never = frozenset({"of another tenant", "no zone", "not as RFC 3339"})

    @pytest.fixture
    def transport(self, there: str) -> Iterator[Transport]:
        one = RemoteLog(Store(there), "log there")
        yield one
        one.close()

    def again(self, transport: Transport) -> Transport:
        assert isinstance(transport, RemoteLog)
        return RemoteLog(Store(transport._store._conninfo), "log there")

    def poison(self, transport: Transport, tenant: str, messages: Sequence[Message]) -> None:
        """Past what `publish` lets in, as a newer Storekeep would write it."""
        assert isinstance(transport, RemoteLog)
        with transport._store.transaction(tenant) as tx:
            tx.append_events(
                place(tenant),
                [
                    LogRow(
                        *(0, 0, said["id"], said["type"], "shelf", said["subject"], AT, 1),
                        each.body,
                    )
                    for each in messages
                    for said in (each.attributes,)
                ],
            )

    def test_a_log_takes_no_message_that_is_no_event(
        self, transport: Transport, tenant: str
    ) -> None:
        with pytest.raises(Permanent, match="ShopBurned"):
            transport.publish(tenant, place(tenant), [poisons(tenant)["no event type is called"]])


class TestJetStream(Contract):
    """A real server, started from its wheel."""

    @pytest.fixture
    def transport(self, nats_url: str) -> Iterator[Transport]:
        one = JetStream(nats_url)
        yield one
        one.close()

    def again(self, transport: Transport) -> Transport:
        assert isinstance(transport, JetStream)
        return JetStream(",".join(transport._servers))

    def test_headers_that_look_like_the_servers_own_mislead_nobody(
        self, transport: JetStream, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, 1))
        headers = {"Status": "404", "Nats-Sequence": "1", "Nats-Last-Sequence": "77"}
        subject = f"storekeep.{tenant}.{place(tenant)}"

        async def send(client: Any) -> None:
            for body in (b"", b"hm"):
                await client.jetstream().publish(subject, body, headers=headers)
            await client.jetstream().publish(subject, b"no headers at all")

        transport._ask(send)
        transport.publish(tenant, place(tenant), sealed(tenant, 2))
        assert received(store, transport, tenant) == Received(2, 0, 3)
        assert logged(store, tenant) == [1, 2]

    def test_no_consumer_is_left_at_the_server(
        self, transport: JetStream, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, 1))
        received(store, transport, tenant)

        async def consumers(client: Any) -> int:
            return len(await client.jetstream().consumers_info(f"storekeep_{tenant}"))

        assert transport._ask(consumers) == 0

    def test_a_stream_that_is_made_anew_loses_and_doubles_nothing(
        self, transport: JetStream, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, *range(5)))
        assert received(store, transport, tenant).fresh == 5

        async def remove(client: Any) -> None:
            await client.jetstream().delete_stream(f"storekeep_{tenant}")

        transport._ask(remove)
        transport.origin(tenant)
        transport.publish(tenant, place(tenant), sealed(tenant, 3, 4, 5, 6))
        assert received(store, transport, tenant) == Received(2, 2, 0)
        assert logged(store, tenant) == list(range(7))

    def test_what_was_stored_before_is_not_stored_again(
        self, transport: JetStream, store: Store, tenant: str
    ) -> None:
        """The server knows the ids of the last minutes, also in a batch that holds others."""
        transport.publish(tenant, place(tenant), sealed(tenant, 1, 2))
        transport.publish(tenant, place(tenant), sealed(tenant, 2, 3, 4))
        assert received(store, transport, tenant) == Received(4, 0, 0)

    def test_an_event_that_the_server_would_never_take_is_refused(
        self, transport: JetStream, tenant: str
    ) -> None:
        (message,) = sealed(tenant, 1)
        large = Message(message.attributes, bytes(9_000_000))
        with pytest.raises(Permanent, match="raise its max_payload"):
            transport.publish(tenant, place(tenant), [large])

    def test_the_largest_event_there_may_be_fits_the_homes_own_server(
        self, transport: JetStream, store: Store, tenant: str
    ) -> None:
        sales = shop.sales(shop.FIRST_DAY, shop.FIRST_DAY)
        names = [f"{uuid4()}" for _ in range(bus.MAX_FACTS)]
        many = sales.take([number % sales.num_rows for number in range(bus.MAX_FACTS)])
        many = many.set_column(many.column_names.index("line_key"), "line_key", [names])
        told = event("SaleRecorded", "tills", shop.LOCATION, AT, many)
        transport.publish(tenant, place(tenant), [bus.seal(told, tenant)])
        assert received(store, transport, tenant).fresh == 1

    def test_a_wrong_token_is_refused_and_not_repeated(self, nats_url: str, tenant: str) -> None:
        token = nats_url.partition("@")[0].partition("//")[2]
        one = JetStream(nats_url.replace(token, "x" + token))
        with pytest.raises(Permanent, match="does not let us in") as refused:
            one.origin(tenant)
        assert token not in str(refused.value)
        one.close()

    def test_a_server_that_is_not_there_is_waited_for_by_the_caller(self, tenant: str) -> None:
        one = JetStream("nats://me:secret@127.0.0.1:1")
        with pytest.raises(Transient, match=r"127\.0\.0\.1:1 failed") as failed:
            one.origin(tenant)
        assert "secret" not in str(failed.value)
        one.close()

    def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(
        self,
        transport: JetStream,
        conninfo: str,
        sender: Store,
        tenant: str,
        home_settings: Settings,
    ) -> None:
        """A home forwards, another receives, the server dies twice under both; they go on."""
        many, done = 200, threading.Event()
        with sender.transaction(tenant) as tx:
            bus.append(tx, place(tenant), [count(number) for number in range(many)])

        def give() -> None:
            own, given = self.again(transport), 0
            while given < many:
                with suppress(Transient), sender.transaction(tenant) as tx:
                    given += bus.forward(tx, own, place(tenant), limit=4)
                    time.sleep(0.01)
            own.close()
            done.set()

        giver = threading.Thread(target=give)
        giver.start()
        kills, until = 2, time.monotonic() + 60
        with Store(conninfo) as store:
            while (held := logged(store, tenant)) != list(range(many)):
                assert time.monotonic() < until
                assert held == list(range(len(held)))
                with suppress(Transient):
                    received(store, transport, tenant, limit=7)
                if kills and len(held) > many * (3 - kills) // 4:
                    os.kill(server_of(home_settings), signal.SIGKILL)
                    kills -= 1
        giver.join(60)
        assert done.is_set()
        assert not kills


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The broker that librdkafka brings for tests of its own: its protocol, not its disk."""
    kept = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    (one,) = kept.list_topics(timeout=5).brokers.values()
    yield f"kafka://{one.host}:{one.port}"
    del kept


class TestKafka(Contract):
    """Against no real broker: none can be run here."""

    @pytest.fixture
    def transport(self, broker: str) -> Iterator[Transport]:
        one = Kafka(broker)
        yield one
        one.close()

    def again(self, transport: Transport) -> Transport:
        assert isinstance(transport, Kafka)
        return Kafka(f"kafka://{transport._where}")

    def test_a_position_that_the_topic_does_not_have_stops_the_reading(
        self, transport: Kafka, store: Store, tenant: str
    ) -> None:
        transport.publish(tenant, place(tenant), sealed(tenant, 1))
        with store.transaction(tenant) as tx:
            tx.move_position(f"from {transport.origin(tenant)}", place(tenant), 77)
        with pytest.raises(Permanent, match="made anew"):
            received(store, transport, tenant)

    def test_a_broker_that_is_not_there_is_waited_for_by_the_caller(
        self, tenant: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storekeep.bus.kafka.ANSWER_SECONDS", 0.5)
        one = Kafka("kafka://me:secret@127.0.0.1:1")
        with pytest.raises(Transient, match=r"127\.0\.0\.1:1 failed") as failed:
            one.origin(tenant)
        assert "secret" not in str(failed.value)
        one.close()

    def test_an_option_that_is_unknown_is_refused(self) -> None:
        with pytest.raises(Permanent, match=r"no\.such\.option"):
            Kafka("kafka://127.0.0.1:1?no.such.option=1")


def server_of(settings: Settings) -> int:
    return int((Path(settings.home) / "nats" / "nats.pid").read_text())
