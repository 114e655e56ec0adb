"""The process that a home runs: it does what is due, waits for what is away, and leaves others their part."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from datetime import UTC, timedelta
from pathlib import Path
from threading import Barrier, Thread
from urllib.parse import urlencode

import pytest
from psycopg.conninfo import conninfo_to_dict

from storekeep import bus
from storekeep.bus.jetstream import JetStream
from storekeep.config import Settings
from storekeep.errors import Transient
from storekeep.events import event
from storekeep.pipeline import Pipeline, Worker, opened
from storekeep.store import Store
from tests import shop
from tests.shop import FIRST_DAY, LOCATION, Shop, moment
from tests.told import count
from tests.unit.test_cli import ask, told

DAY = FIRST_DAY


@pytest.fixture
def place(home_settings: Settings, tenant: str) -> Iterator[Shop]:
    with shop.opened_shop(shop.of_tenant(home_settings, tenant)) as opened:
        opened.prepare()
        yield opened


def never() -> bool:
    return False


def turn(pipeline: Pipeline) -> dict[str, int]:
    """What one turn comes to, on the shop's own day."""
    tally: Counter[str] = Counter()
    with pipeline.store.again() as beside:
        pipeline.turn(pipeline.now().date(), beside, tally, never)
    return dict(+tally)


class Waits:
    """Waits as short as they can be, and an end once something is so."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self.over = over
        self.asked: list[float] = []

    def __call__(self, seconds: float) -> bool:
        if seconds:
            self.asked.append(seconds)
            time.sleep(0.01)
        return self.over()


def work(place: Shop, transport: bus.Transport | None, wait: Waits, *said: str) -> Worker:
    """A worker of the shop, until it is told to stop; it must say so much."""
    heard: list[str] = []
    worker = Worker(lambda: nullcontext(place.pipeline), transport, wait, 7, UTC, heard.append)
    worker.work()
    assert len(heard) == len(said), heard
    assert all(words in line for words, line in zip(said, heard, strict=True)), heard
    return worker


def test_a_turn_does_what_is_due_and_the_next_has_nothing_to_do(place: Shop) -> None:
    assert turn(place.pipeline) == {}
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    came = turn(place.pipeline)
    assert came["decided"] == 1
    assert came["acted"] == len(place.back_office.order_lines()) > 0
    assert turn(place.pipeline) == {}
    place.clock.now += timedelta(days=9)
    assert turn(place.pipeline)["lapsed"] > 0
    assert place.pipeline.verify().ok


def test_an_agent_is_woken_when_its_window_is_over(place: Shop, tmp_path: Path) -> None:
    path = tmp_path / "dispatch.yaml"
    path.write_text(
        "dispatch: slow\nowner: operations\nagents:\n  - agent: replenish\n"
        "    hears: [{event: SaleRecorded}]\n    mode: live\n    window: 5m\n"
    )
    place.pipeline.promote_dispatch(path, shop.BUYER)
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    assert turn(place.pipeline) == {}
    place.clock.now += timedelta(minutes=4)
    assert turn(place.pipeline) == {}
    place.clock.now += timedelta(minutes=1)
    assert turn(place.pipeline)["decided"] == 1


def test_a_place_that_another_process_decides_about_is_left_to_it(place: Shop) -> None:
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    with place.pipeline.store.again() as other, other.transaction(place.pipeline.tenant) as tx:
        assert tx.slot(f"decide@{LOCATION}", 1)
        assert turn(place.pipeline) == {}
    assert turn(place.pipeline)["decided"] == 1


def test_processes_at_once_decide_once(place: Shop, home_settings: Settings) -> None:
    """Also `storekeep run` beside them, which waits for nobody's turn."""
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    settings = shop.of_tenant(home_settings, place.pipeline.tenant)
    begin, came = Barrier(3), list[int]()

    def other(*, rounds: bool) -> None:
        with opened(settings, now=place.clock) as own:
            begin.wait()
            if rounds:
                came.append(len(own.round(DAY).runs))
            else:
                came.append(turn(own).get("decided", 0))

    threads = [Thread(target=other, kwargs={"rounds": rounds}) for rounds in (False, False, True)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert sorted(came) == [0, 0, 1]
    assert place.pipeline.verify().ok


def test_what_nobody_listens_to_is_noted_once_by_two_at_once(place: Shop) -> None:
    """One waits for the other, and what comes meanwhile it notes too."""
    pipeline = place.pipeline
    pipeline.note_unheard()
    partition = bus.partition_of(pipeline.tenant, LOCATION)
    noted: list[int] = []
    with pipeline.store.again() as other:
        with other.transaction(pipeline.tenant) as tx:
            bus.publish(tx, count(2, LOCATION))
        with other.transaction(pipeline.tenant) as tx:
            tx.position("dispatch", partition, lock=True)
            waiting = Thread(target=lambda: noted.append(pipeline.note_unheard()))
            waiting.start()
            await_lock(other)
            with other.again() as third, third.transaction(pipeline.tenant) as more:
                bus.publish(more, count(3, LOCATION))
        waiting.join(60)
    assert noted == [2]
    assert pipeline.note_unheard() == 0


def await_lock(store: Store) -> None:
    """Somebody waits for a row or a transaction of this store's connection."""
    asked = "SELECT count(*) AS many FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    connection = store._open()
    with store.again() as other:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if (other._open().execute(asked, (connection.info.backend_pid,)).fetchone() or {})[
                "many"
            ]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_a_worker_receives_decides_and_tells_others(place: Shop, nats_url: str) -> None:
    place.clock.now = moment(DAY, 22)
    tenant, sales = place.pipeline.tenant, shop.sales(DAY, DAY)
    partition = bus.partition_of(tenant, LOCATION)
    with closing(JetStream(nats_url)) as transport:
        told_ = event("SaleRecorded", "tills", LOCATION, place.clock.now, sales)
        transport.publish(tenant, partition, [bus.seal(told_, tenant)])
        wait = Waits(lambda: wait.asked[-1:] == [7])
        done = work(place, transport, wait).done
        assert (done["received"], done["decided"]) == (1, 1)
        stored = [each.attributes["type"] for each in transport.read(tenant, partition, 0, 500)]
    # Busy turns follow each other soon, and a person's patience is for when there is nothing to do.
    assert 7 in wait.asked
    assert all(each <= 0.1 for each in wait.asked if each != 7)
    assert stored.count("SaleRecorded") == 2
    assert {"StockCounted", "OrderCommitted", "PurchaseOrderConfirmed"} <= set(stored)


def test_a_transport_that_is_away_is_told_once_and_all_else_goes_on(
    place: Shop, nats_url: str
) -> None:
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    with closing(JetStream("nats://127.0.0.1:1")) as transport:
        begun = time.monotonic()
        asked = 0

        def failing() -> bool:
            nonlocal asked
            if time.monotonic() - begun > 2.5:
                transport._servers = [nats_url]
            return bool(worker.done["forwarded"])

        heard: list[str] = []
        wait = Waits(failing)
        worker = Worker(lambda: nullcontext(place.pipeline), transport, wait, 7, UTC, heard.append)
        worker.work()
    assert worker.done["decided"] == 1
    assert len(heard) == 2
    assert heard[0].startswith("the transport does not work: NATS at 127.0.0.1:1 failed")
    assert heard[0].endswith("(it is tried again until it works)")
    assert heard[1].startswith("the transport works again, after ")


def test_a_database_that_goes_is_told_once_and_waited_for(place: Shop) -> None:
    """Its sessions end again and again; the pipeline is opened anew each time."""
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    times, heard = Counter[str](), list[str]()

    def opening() -> nullcontext[Pipeline]:
        times["opened"] += 1
        if times["opened"] in (2, 3):
            raise Transient("PostgreSQL is not available: it starts")
        return nullcontext(place.pipeline)

    def over() -> bool:
        if times["opened"] == 1 and not times["ended"]:
            times["ended"] += 1
            end_sessions(place)
        return bool(wait.asked) and wait.asked[-1] == 7

    wait = Waits(over)
    worker = Worker(opening, None, wait, 7, UTC, heard.append)
    worker.work()
    assert worker.done["decided"] == 1
    assert len(heard) == 2
    assert heard[0].startswith("the database does not work: PostgreSQL is not available: ")
    assert heard[1].startswith("the database works again, after ")
    # Each wait is longer than the one before, and none is nothing.
    grown = [each for each in wait.asked if each > 0.1 and each != 7]
    assert [low <= each <= 2 * low for low, each in zip((0.5, 1, 2), grown, strict=True)] == [
        True
    ] * 3


def end_sessions(place: Shop) -> None:
    """Whoever is connected to the shop's database is cut off, by another connection."""
    with place.pipeline.store.again() as other:
        connection = other._open()
        (mine,) = (place.pipeline.store._open().info.backend_pid,)
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (mine,))


def test_a_worker_without_a_database_to_begin_with_says_so() -> None:
    def opening() -> nullcontext[Pipeline]:
        raise Transient("PostgreSQL is not available: nobody is there")

    worker = Worker(opening, None, Waits(never), 7, UTC, pytest.fail)
    with pytest.raises(Transient, match="nobody is there"):
        worker.work()


def test_a_round_receives_before_it_and_forwards_after_it(
    place: Shop, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOREKEEP_BUS_URL", there_url(there))
    tenant = place.pipeline.tenant
    at = ("--home", str(place.pipeline.lake._root.parents[1]), "--tenant", tenant)
    place.clock.now = moment(DAY, 22)
    with closing(bus.connect(there_url(there))) as transport:
        told_ = event("SaleRecorded", "tills", LOCATION, moment(DAY, 22), shop.sales(DAY, DAY))
        message = bus.seal(told_, tenant)
        transport.publish(tenant, bus.partition_of(tenant, LOCATION), [message])
        ran = told(ask("run", *at, "--json"))
        (run,) = ran["runs"]
        assert run["agent"] == "replenish"
        assert (ran["received"], ran["put_aside"]) == (1, 0)
        assert ran["forwarded"] >= 2
    assert "Nothing new was reported" in ask("run", *at).stdout


def test_a_round_goes_on_without_its_transport_and_says_so(
    place: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOREKEEP_BUS_URL", "nats://127.0.0.1:1")
    at = ("--home", str(place.pipeline.lake._root.parents[1]), "--tenant", place.pipeline.tenant)
    place.clock.now = moment(DAY, 22)
    place.pipeline.take_in(shop.sales(DAY, DAY), shop.TILLS, LOCATION)
    ended = ask("run", *at, "--json")
    assert ended.exit_code == 3
    assert json.loads(ended.stdout)["runs"]
    assert "NATS at 127.0.0.1:1 failed" in ended.stderr


def there_url(conninfo: str) -> str:
    """The address of a database, in the form of a setting."""
    parts = conninfo_to_dict(conninfo)
    where = urlencode({"host": parts["host"], "port": parts["port"]})
    return f"postgresql://{parts['user']}:{parts['password']}@/{parts['dbname']}?{where}"
