"""Events between homes: each fact once, by whichever way it comes, and nothing goes round in circles."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from storekeep import bus
from storekeep.bus.jetstream import JetStream
from storekeep.bus.remote import RemoteLog
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.errors import Permanent, Transient
from storekeep.events import event
from storekeep.lake import SALE_LINES
from storekeep.pipeline import Pipeline, opened
from storekeep.store import LogRow, Store
from tests import shop
from tests.shop import FIRST_DAY, LOCATION
from tests.told import AT, count
from tests.unit.test_cli import ask
from tests.unit.test_lineage import below

DAY = FIRST_DAY


@pytest.fixture
def transport(nats_url: str) -> Iterator[JetStream]:
    one = JetStream(nats_url)
    yield one
    one.close()


@pytest.fixture
def here(home_settings: Settings, tenant: str) -> Iterator[Pipeline]:
    with opened(shop.of_tenant(home_settings, tenant)) as pipeline:
        yield pipeline


@pytest.fixture
def beyond(tenant: str, there: str) -> Iterator[Pipeline]:
    """The same tenant in another home, with a database and a history of its own."""
    with tempfile.TemporaryDirectory(prefix="sk-") as folder:
        settings = Settings(home=Path(folder) / "home", database_url=SecretStr(there))
        with opened(shop.of_tenant(settings, tenant)) as pipeline:
            yield pipeline


def carried(pipeline: Pipeline, transport: bus.Transport) -> dict[str, int]:
    tally: Counter[str] = Counter()
    pipeline.carry(transport, tally)
    return dict(+tally)


def put(transport: bus.Transport, tenant: str, *facts: pa.Table, source: str = "tills") -> None:
    """Others put sale lines on a transport, an event for each table."""
    messages = [
        bus.seal(event("SaleRecorded", source, LOCATION, AT, each), tenant) for each in facts
    ]
    transport.publish(tenant, bus.partition_of(tenant, LOCATION), messages)


def lines(pipeline: Pipeline) -> list[str]:
    """The keys of the sale lines that history has."""
    pipeline.keep_history()
    found = pipeline.lake.query("SELECT line_key FROM sale", tables={"sale": SALE_LINES})
    return sorted(found["line_key"].to_pylist())


def logged(pipeline: Pipeline) -> list[int]:
    """How many facts each event of the location's partition holds."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        events = bus.replay(tx, bus.partition_of(pipeline.tenant, LOCATION))
    return [each.facts.num_rows for each in events]


def test_a_line_that_comes_by_transport_and_by_file_is_one(
    here: Pipeline, transport: JetStream, tenant: str
) -> None:
    """In either order, from different sources, in other portions and known at other times."""
    sales = shop.sales(DAY, DAY)
    later = shop.sales(DAY, DAY, known_at=shop.moment(DAY, 23) + timedelta(minutes=5))
    many = sales.num_rows
    put(transport, tenant, sales.slice(0, 6))
    assert carried(here, transport) == {"received": 1}
    assert here.take_in(later.slice(3, 6), "a file", LOCATION) == (3, 3)
    put(transport, tenant, later.slice(4), source="another till")
    assert carried(here, transport)["received"] == 1
    put(transport, tenant, sales.slice(2), source="a third")
    assert carried(here, transport)["known"] == 1
    assert lines(here) == sorted(sales["line_key"].to_pylist())
    assert logged(here) == [6, 3, many - 9]


def test_lines_that_two_messages_of_one_reading_hold_are_one(
    here: Pipeline, transport: JetStream, tenant: str
) -> None:
    sales = shop.sales(DAY, DAY)
    put(transport, tenant, sales.slice(0, 5), sales.slice(2, 5), sales.slice(1, 3))
    put(transport, tenant, sales.take([9, 9, 8]))
    assert carried(here, transport) == {"received": 3, "known": 1}
    assert logged(here) == [5, 2, 2]
    assert lines(here) == sorted(sales["line_key"].take([*range(7), 8, 9]).to_pylist())


def test_an_event_of_which_all_is_new_stays_as_it_was(
    here: Pipeline, transport: JetStream, tenant: str
) -> None:
    told = [
        event("SaleRecorded", "tills", LOCATION, AT, shop.sales(DAY, DAY).slice(start, 2))
        for start in (0, 2)
    ]
    told.insert(1, count(7))
    partition = bus.partition_of(tenant, LOCATION)
    transport.publish(tenant, partition, [bus.seal(each, tenant) for each in told])
    assert carried(here, transport) == {"received": 3}
    with here.store.transaction(tenant) as tx:
        found = bus.replay(tx, partition)
    assert [each.id for each in found] == [each.id for each in told]
    assert [each.facts for each in found] == [each.facts for each in told]


def test_two_homes_tell_each_other_everything_once(
    here: Pipeline, beyond: Pipeline, transport: JetStream, tenant: str
) -> None:
    sales = shop.sales(DAY, DAY)
    here.take_in(sales.slice(0, 5), "tills", LOCATION)
    beyond.take_in(sales.slice(3, 6), "other tills", LOCATION)
    for _ in range(2):
        carried(here, transport)
        carried(beyond, transport)
    assert lines(here) == lines(beyond) == sorted(sales["line_key"].slice(0, 9).to_pylist())
    assert carried(here, transport) == carried(beyond, transport) == {}
    # Neither gave back what it had from the other.
    stored = transport.read(tenant, bus.partition_of(tenant, LOCATION), 0, 500)
    assert len(stored) == 2


def test_what_is_ours_goes_before_what_came(
    here: Pipeline, transport: JetStream, tenant: str
) -> None:
    """What came while something of ours had not gone yet goes too, so that nothing is left out."""
    sales = shop.sales(DAY, DAY)
    partition = bus.partition_of(tenant, LOCATION)
    here.take_in(sales.slice(0, 2), "tills", LOCATION)
    put(transport, tenant, sales.slice(2, 2))
    with here.store.transaction(tenant) as tx:
        assert bus.receive(tx, transport, partition).fresh == 1
    here.take_in(sales.slice(4, 2), "tills", LOCATION)
    assert carried(here, transport)["forwarded"] == 3
    stored = transport.read(tenant, partition, 0, 500)
    subjects = {each.attributes["id"] for each in stored}
    with here.store.transaction(tenant) as tx:
        assert subjects == {each.id for each in bus.replay(tx, partition)}
    assert carried(here, transport) == {}


def test_what_is_only_played_goes_to_nobody(
    home_settings: Settings, transport: JetStream, tenant: str
) -> None:
    with shop.opened_shop(shop.of_tenant(home_settings, tenant), purpose="demo") as played:
        played.pipeline.take_in(shop.sales(DAY, DAY), "tills", LOCATION)
        put(transport, tenant, shop.sales(DAY + timedelta(days=1), DAY + timedelta(days=1)))
        assert carried(played.pipeline, transport) == {}


def test_what_a_transport_will_not_take_keeps_nothing_else_back(
    here: Pipeline, there: str, tenant: str
) -> None:
    """An event of a newer version in one partition; the others go, and come."""
    places = {bus.partition_of(tenant, name): name for name in (f"S{each}" for each in range(99))}
    broken, well, coming = sorted(places)[:3]
    with here.store.transaction(tenant) as tx:
        row = LogRow(0, 0, "x", "ShopBurned", "shelf", places[broken], AT, 1, b"")
        tx.append_events(broken, [row])
        bus.publish(tx, count(1, places[well]))
    other = RemoteLog(Store(there), f"log {tenant}")
    other.publish(tenant, coming, [bus.seal(count(2, places[coming]), tenant)])
    tally: Counter[str] = Counter()
    with pytest.raises(Permanent, match="ShopBurned"):
        here.carry(other, tally)
    assert +tally == Counter(forwarded=1, received=1, known=1)
    other.close()


def test_what_was_carried_before_a_server_went_is_counted(
    here: Pipeline, nats_url: str, tenant: str
) -> None:
    gone = JetStream("nats://127.0.0.1:1")
    tally: Counter[str] = Counter()
    with pytest.raises(Transient):
        here.carry(gone, tally)
    assert not +tally
    gone.close()


def test_what_a_transport_brought_is_traced_to_its_messages(
    here: Pipeline, transport: JetStream, tenant: str, tmp_path: Path
) -> None:
    sales = shop.sales(DAY, DAY)
    partition = bus.partition_of(tenant, LOCATION)
    put(transport, tenant, sales.slice(0, 5), sales.slice(0, 5), sales.slice(3, 4))
    transport.publish(tenant, partition, [bus.seal(count(7), tenant)])
    carried(here, transport)
    put(transport, tenant, sales.slice(7, 1), source="another till")
    carried(here, transport)
    assert lines(here) == sorted(sales["line_key"].slice(0, 8).to_pylist())

    def messages(table: str) -> list[list[tuple[int, int, str]]]:
        tree = here.lineage(table)
        assert tree["rows"] == tree["rows_of_runs"] == sum(run["facts"] for run in tree["inputs"])
        for run in tree["inputs"]:
            assert (run["job"], run["state"]) == ("receive/nats", "complete")
            for each in below(run, "message"):
                assert each["transport"] == transport.origin(tenant)
                assert (each["partition"], each["subject"]) == (partition, LOCATION)
        return [
            [(each["position"], each["rows"], each["source"]) for each in below(run, "message")]
            for run in tree["inputs"]
        ]

    # The first is stored once, and two lines of the second were told by it.
    assert messages("sale_line") == [
        [(4, 1, "another till")],
        [(1, 5, "tills"), (2, 2, "tills")],
    ]
    assert messages("stock_count") == [[(3, 1, "shelf")]]
    here.write_lineage(tmp_path / "lineage.jsonl")
    told = [json.loads(each) for each in (tmp_path / "lineage.jsonl").read_text().splitlines()]
    inputs = {
        (each["namespace"], each["name"])
        for one in told
        if one["job"]["name"] == "receive/nats"
        for each in one["inputs"]
        if each["namespace"] != "file"
    }
    assert inputs == {(transport.origin(tenant), f"partition.{partition}")}


def test_a_decision_is_traced_to_the_messages_that_it_was_made_from(
    home_settings: Settings, transport: JetStream, tenant: str
) -> None:
    with shop.opened_shop(shop.of_tenant(home_settings, tenant)) as place:
        place.prepare()
        place.clock.now = shop.moment(DAY, 22)
        put(transport, tenant, shop.sales(DAY, DAY))
        carried(place.pipeline, transport)
        place.pipeline.move_stock()
        place.pipeline.keep_history()
        place.pipeline.update_features(LOCATION, DAY)
        run = place.pipeline.decide(LOCATION)
        assert run is not None
        with place.pipeline.store.transaction(tenant) as tx:
            (decision,) = tx.decisions(Selection())[:1]
        tree = place.pipeline.lineage(decision["decision_id"])
        found, partition = below(tree, "message"), bus.partition_of(tenant, LOCATION)
        assert found
        assert {each["position"] for each in found} == {1}
        assert all(0 < each["rows"] < shop.sales(DAY, DAY).num_rows for each in found)
        asked = ask(
            "lineage", decision["decision_id"], "--home", home_settings.home, "--tenant", tenant
        )
        assert f"message {partition}:1, " in asked.stdout
        assert f"about {LOCATION}, told by tills" in asked.stdout
