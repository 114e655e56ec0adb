"""Whatever is published, redelivered, read or broken off, and in which order: the log has each event once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storekeep import bus
from storekeep.bus import Message
from storekeep.bus.jetstream import JetStream
from storekeep.config import Settings
from storekeep.events import event
from storekeep.pipeline import opened
from storekeep.store import Store
from tests import shop
from tests.told import AT, sealed

SHOPS = ("DC1", "DC2", "DC3")

# What can happen: some new events of a shop are published; all from one on are published again; a worker
# reads and commits; one reads and dies; the connection is lost; something that is no event comes.
STEP = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(SHOPS), st.integers(1, 5)),
    st.tuples(st.just("again"), st.sampled_from(SHOPS), st.integers(0, 9)),
    st.tuples(st.just("read"), st.sampled_from(SHOPS), st.integers(1, 6)),
    st.tuples(st.just("die"), st.sampled_from(SHOPS), st.integers(1, 6)),
    st.tuples(st.just("lose"), st.sampled_from(SHOPS), st.just(0)),
    st.tuples(st.just("poison"), st.sampled_from(SHOPS), st.just(1)),
)


@pytest.fixture(scope="module")
def store(conninfo: str) -> Iterator[Store]:
    with Store(conninfo) as store:
        yield store


class Died(Exception):
    """A worker is killed before it commits."""


class Play:
    """One tenant's shops, what was published of each, and a worker."""

    def __init__(self, store: Store, url: str) -> None:
        self.store, self.url = store, url
        self.tenant = f"t{uuid4().hex[:12]}"
        self.transport = JetStream(url)
        self.published: dict[str, list[Message]] = {name: [] for name in SHOPS}
        self.poisons = 0

    def step(self, what: str, name: str, number: int) -> None:
        messages, partition = self.published[name], bus.partition_of(self.tenant, name)
        match what:
            case "publish":
                begin = len(messages)
                new = sealed(self.tenant, *range(begin, begin + number), location_id=name)
                messages += new
                self.transport.publish(self.tenant, partition, new)
            case "again":
                # With another id, as by one whom the server has forgotten: it stores it once more.
                for each in messages[number:]:
                    other = Message({**each.attributes, "id": uuid4().hex}, each.body)
                    self.transport.publish(self.tenant, partition, [other])
            case "read":
                self.read(partition, number)
            case "die":
                with suppress(Died), self.store.transaction(self.tenant) as tx:
                    bus.receive(tx, self.transport, partition, number)
                    raise Died
            case "lose":
                self.transport.close()
                self.transport = JetStream(self.url)
            case _:
                self.poisons += 1
                broken = Message({"id": uuid4().hex}, b"broken")
                self.transport.publish(self.tenant, partition, [broken])

    def read(self, partition: int, limit: int) -> int:
        with self.store.transaction(self.tenant) as tx:
            return bus.receive(tx, self.transport, partition, limit).messages

    def check(self) -> None:
        """After all is read, each shop's events are there once, as they were first published."""
        partitions = {name: bus.partition_of(self.tenant, name) for name in SHOPS}
        for partition in set(partitions.values()):
            while self.read(partition, 7):
                pass
        for name, partition in partitions.items():
            with self.store.transaction(self.tenant) as tx:
                ids = [each.id for each in bus.replay(tx, partition) if each.subject == name]
                assert len(tx.dead_letters()) == self.poisons
            assert ids == [each.attributes["id"] for each in self.published[name]]


@settings(max_examples=25)
@given(st.lists(STEP, max_size=14))
@example([("publish", "DC1", 3), ("die", "DC1", 2), ("read", "DC1", 2), ("again", "DC1", 0)])
def test_any_order_of_readings_deaths_and_redeliveries_brings_each_event_once(
    store: Store, nats_url: str, steps: list[tuple[str, str, int]]
) -> None:
    play = Play(store, nats_url)
    try:
        for step in steps:
            play.step(*step)
        play.check()
    finally:
        play.transport.close()


# A part of a day's lines comes by some way, its first line and how many: from a file, by the transport from
# one of two sources. After some of them it is carried.
PART = st.tuples(
    st.sampled_from(["file", "tills", "gateway"]), st.integers(0, 13), st.integers(1, 9)
)


@settings(max_examples=15)
@given(st.lists(PART, min_size=1, max_size=8), st.sets(st.integers(0, 8)))
@example([("tills", 0, 5), ("file", 3, 5), ("gateway", 0, 9), ("tills", 0, 5)], {1, 3})
def test_each_line_is_there_once_by_whichever_ways_it_came(
    home_settings: Settings, nats_url: str, parts: list[tuple[str, int, int]], carried: set[int]
) -> None:
    settings, sales = shop.new_tenant(home_settings), shop.sales(shop.FIRST_DAY, shop.FIRST_DAY)
    partition = bus.partition_of(settings.tenant, shop.LOCATION)
    with opened(settings) as pipeline, closing(JetStream(nats_url)) as transport:
        for number, (way, first, many) in enumerate(parts):
            facts = sales.slice(first, many)
            if way == "file":
                pipeline.take_in(facts, way, shop.LOCATION)
            else:
                told = event("SaleRecorded", way, shop.LOCATION, AT, facts)
                transport.publish(settings.tenant, partition, [bus.seal(told, settings.tenant)])
            if number in carried:
                pipeline.carry(transport, Counter())
        pipeline.carry(transport, Counter())
        with pipeline.store.transaction(settings.tenant) as tx:
            logged = [each.facts["line_key"] for each in bus.replay(tx, partition)]
    wanted = {
        key for _, first, many in parts for key in sales["line_key"].slice(first, many).to_pylist()
    }
    assert sorted(key for keys in logged for key in keys.to_pylist()) == sorted(wanted)
