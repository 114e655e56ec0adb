"""The event bus: what is published is read once, in order and without gaps, whoever publishes and reads."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from storekeep import bus
from storekeep.errors import InvariantBroken, Transient
from storekeep.events import Event, event, from_bytes, to_bytes
from storekeep.retail import SALE_LINE, STOCK_COUNT
from storekeep.store import PARTITIONS, Store
from tests import shop
from tests.told import AT, count, numbers


def publish(store: Store, tenant: str, *told: int) -> list[int | None]:
    with store.transaction(tenant) as tx:
        return [bus.publish(tx, count(number)) for number in told]


PARTITION = "DC1"


def partition_of(tenant: str) -> int:
    return bus.partition_of(tenant, PARTITION)


def test_what_is_published_is_read_as_it_was(store: Store, tenant: str) -> None:
    facts = shop.sales(shop.FIRST_DAY, shop.FIRST_DAY)
    told = event("SaleRecorded", "tills", shop.LOCATION, AT, facts)
    with store.transaction(tenant) as tx:
        assert bus.publish(tx, told) == 1
    with store.transaction(tenant) as tx:
        (found,) = bus.read(tx, "me", partition_of(tenant))
    assert found == Event("SaleRecorded", "tills", shop.LOCATION, AT, found.facts, 1)
    assert found.facts == told.facts
    assert found.facts.schema.equals(SALE_LINE.arrow, check_metadata=True)
    assert found.id == told.id


def test_an_event_that_is_published_again_is_there_once(store: Store, tenant: str) -> None:
    assert publish(store, tenant, 1, 2, 1) == [1, 2, None]
    assert publish(store, tenant, 2, 3) == [None, 3]
    with store.transaction(tenant) as tx:
        assert numbers(bus.replay(tx, partition_of(tenant))) == [1, 2, 3]
        assert tx.heads() == {partition_of(tenant): 3}


def test_a_batch_keeps_its_order_and_leaves_out_what_stands_in_it_twice(
    store: Store, tenant: str
) -> None:
    publish(store, tenant, 9)
    with store.transaction(tenant) as tx:
        batch = [count(number) for number in (3, 1, 3, 9, 2, 1)]
        found = bus.append(tx, partition_of(tenant), batch)
    assert found == [2, 3, None, None, 4, None]
    with store.transaction(tenant) as tx:
        assert numbers(bus.replay(tx, partition_of(tenant))) == [9, 3, 1, 2]


def test_the_name_of_an_event_does_not_depend_on_how_its_facts_lie_in_memory() -> None:
    facts = shop.sales(shop.FIRST_DAY, shop.FIRST_DAY)
    wanted = event("SaleRecorded", "tills", shop.LOCATION, AT, facts).id
    padded = pa.concat_tables([facts.slice(0, 1), facts, facts.slice(0, 2)])
    same = [
        pa.concat_tables([facts.slice(0, 3), facts.slice(3)]),
        padded.slice(1, facts.num_rows),
        pa.Table.from_pylist(facts.to_pylist(), schema=SALE_LINE.arrow),
        padded.filter(pa.array([False] + [True] * facts.num_rows + [False, False])),
        facts.replace_schema_metadata({"seen": "twice"}),
        from_bytes(to_bytes(facts), SALE_LINE),
    ]
    assert [event("SaleRecorded", "tills", shop.LOCATION, AT, each).id for each in same] == [
        wanted
    ] * len(same)
    assert event("SaleRecorded", "others", shop.LOCATION, AT, facts).id != wanted
    assert event("SaleRecorded", "tills", "DC2", AT, facts).id != wanted
    assert event("SaleRecorded", "tills", shop.LOCATION, AT, facts.slice(1)).id != wanted


def test_what_a_transaction_published_that_failed_is_not_there(store: Store, tenant: str) -> None:
    publish(store, tenant, 1)
    with pytest.raises(RuntimeError), store.transaction(tenant) as tx:  # noqa: PT012  # it is the block that fails
        bus.publish(tx, count(2))
        raise RuntimeError
    assert publish(store, tenant, 3) == [2]
    with store.transaction(tenant) as tx:
        assert numbers(bus.replay(tx, partition_of(tenant))) == [1, 3]


def test_publishers_at_once_leave_no_gap_and_nothing_twice(conninfo: str, tenant: str) -> None:
    """Each publishes events of its own, and events that the others publish too."""
    many, each_of = 4, 15
    begin = threading.Barrier(many)

    def work(worker: int) -> None:
        with Store(conninfo) as store:
            begin.wait()
            for number in range(each_of):
                publish(store, tenant, number)
                publish(store, tenant, 1000 * (worker + 1) + number)

    with ThreadPoolExecutor(many) as pool:
        list(pool.map(work, range(many)))
    with Store(conninfo) as store, store.transaction(tenant) as tx:
        events = bus.replay(tx, partition_of(tenant), limit=1000)
        head = tx.heads()[partition_of(tenant)]
    assert [each.position for each in events] == list(range(1, head + 1))
    assert Counter(numbers(events)) == Counter(
        {
            *range(each_of),
            *(1000 * (worker + 1) + number for worker in range(many) for number in range(each_of)),
        }
    )


def test_readers_at_once_read_each_event_once_and_none_before_its_time(
    conninfo: str, tenant: str
) -> None:
    """A reader that sees an event has seen all before it, though publishers are still at work."""
    many = 60
    seen: list[int] = []
    done = threading.Event()

    def write() -> None:
        with Store(conninfo) as store:
            for number in range(many):
                publish(store, tenant, number)
        done.set()

    def read(_: int) -> None:
        with Store(conninfo) as store:
            while True:
                last = done.is_set()
                with store.transaction(tenant) as tx:
                    events = bus.read(tx, "stock", partition_of(tenant), limit=3)
                    if events and events[-1].position is not None:
                        bus.advance(tx, "stock", partition_of(tenant), events[-1].position)
                        seen.extend(numbers(events))
                if last and not events:
                    return

    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(write)
        list(pool.map(read, range(3)))
        writing.result()
    assert seen == list(range(many))


def test_of_large_events_fewer_are_read_at_once_and_always_one(store: Store, tenant: str) -> None:
    units = {"bread": 1, "milk": 2, "salt": 3}
    with store.transaction(tenant) as tx:
        facts = shop.counted(units, AT)
        bus.publish(tx, event("StockCounted", "shelf", shop.LOCATION, AT, facts))
    publish(store, tenant, 1, 2, 3)
    partition = bus.partition_of(tenant, shop.LOCATION)
    with store.transaction(tenant) as tx:
        found = [
            [row.position for row in tx.read_events(partition, after, 10, facts)]
            for after, facts in ((0, 2), (0, 4), (1, 2), (3, 9))
        ]
    assert found == [[1], [1, 2], [2, 3], [4]]


def test_a_reader_that_fails_reads_the_same_again(store: Store, tenant: str) -> None:
    publish(store, tenant, 1, 2)
    with pytest.raises(Transient), store.transaction(tenant) as tx:  # noqa: PT012  # it is the block that fails
        assert numbers(bus.read(tx, "me", partition_of(tenant), limit=1)) == [1]
        bus.advance(tx, "me", partition_of(tenant), 1)
        raise Transient("broken off")
    with store.transaction(tenant) as tx:
        assert numbers(bus.read(tx, "me", partition_of(tenant), limit=1)) == [1]
        bus.advance(tx, "me", partition_of(tenant), 1)
    with store.transaction(tenant) as tx:
        assert numbers(bus.read(tx, "me", partition_of(tenant))) == [2]
        assert numbers(bus.read(tx, "somebody else", partition_of(tenant))) == [1, 2]


def test_subjects_spread_over_the_partitions_and_stay_in_theirs() -> None:
    found = Counter(bus.partition_of("acme", f"store {number}") for number in range(800))
    assert set(found) == set(range(PARTITIONS))
    assert max(found.values()) < 2 * min(found.values())
    assert bus.partition_of("acme", "DC1") == bus.partition_of("acme", "DC1")


def test_an_event_that_is_too_large_is_not_published(store: Store, tenant: str) -> None:
    one = shop.counted({"bread": 1})
    many = one.take(pa.array([0] * (bus.MAX_FACTS + 1)))
    told = event("StockCounted", "shelf", shop.LOCATION, AT, many)
    with pytest.raises(InvariantBroken, match="split it"), store.transaction(tenant) as tx:
        bus.publish(tx, told)
    assert told.facts.schema.names == list(STOCK_COUNT.names)
