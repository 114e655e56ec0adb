"""How fast the bus is: the log in PostgreSQL, JetStream beside it, and what a second worker adds.

Hides the set-up: a home of its own in a temporary folder with both servers, events of a few facts each, and
workers that are processes of their own, each with partitions that no other has.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from storekeep import bus, servers
from storekeep.config import Settings
from storekeep.events import Event, event
from storekeep.store import PARTITIONS, Store

Row = dict[str, Any]

FACTS = 20
AT_ONCE = 500
WORKERS = 2
GOAL_RATIO = 1.3
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """Where a worker finds the database and the server, and which tenant it works for."""

    conninfo: str
    url: str
    tenant: str


def run(settings: Settings, quick: bool) -> list[Row]:
    """Measure the bus; `quick` with a tenth of the events. One row a figure."""
    many = 2_000 if quick else 20_000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storekeep-bench-")))
        folder.chmod(0o711)
        own = settings.model_copy(update={"home": folder / "home", "database_url": None})
        database = stack.enter_context(servers.lease(own))
        url = stack.enter_context(servers.nats(own))
        store = stack.enter_context(Store(database.conninfo))
        store.migrate()
        place = Place(database.conninfo, url, "log")
        events = _events(place.tenant, many)
        logged, read = _log(store, place, events)
        forwarded = _forward(store, place)
        one, two = _workers(place, many, 1 if quick else 3)
    log = ("the log", logged)
    return [
        _row("published to the log", logged),
        _row("read from the log, position committed", read),
        _row("forwarded from the log to JetStream", forwarded, beside=log),
        _row("received from JetStream into the log, one worker", one, beside=log),
        _row("received from JetStream into the log, two workers", two, beside=("one worker", one)),
        _row("two workers against one", two / one, "times", least=GOAL_RATIO),
    ]


def _row(
    figure: str,
    value: float,
    unit: str = "event/s",
    *,
    beside: tuple[str, float] | None = None,
    least: float | None = None,
) -> Row:
    row: Row = {"figure": figure, "value": round(value, 3), "unit": unit}
    row |= {"goal": None, "met": None, "peer": None, "peer_value": None, "ratio": None}
    if beside is not None:
        row |= {"peer": beside[0], "peer_value": round(beside[1], 3)}
        row["ratio"] = round(value / beside[1], 2)
    if least is not None:
        row |= {"goal": f"{least} or more", "met": value >= least}
    return row


def _locations(tenant: str) -> list[str]:
    """As many locations as there are workers, each in a partition of its own."""
    found: dict[int, str] = {}
    for number in range(100):
        name = f"store {number}"
        found.setdefault(bus.partition_of(tenant, name), name)
    return list(found.values())[:WORKERS]


def _events(tenant: str, many: int) -> dict[int, list[Event]]:
    """So many events of `FACTS` facts each, by their partition."""
    out: dict[int, list[Event]] = {}
    for location_id in _locations(tenant):
        out[bus.partition_of(tenant, location_id)] = [
            _counted(location_id, number) for number in range(many // WORKERS)
        ]
    return out


def _counted(location_id: str, number: int) -> Event:
    at = BEGAN + timedelta(seconds=number)
    facts = pa.table(
        {
            "location_id": [location_id] * FACTS,
            "sku": [f"sku {each}" for each in range(FACTS)],
            "quantity_units": [number] * FACTS,
            "occurred_at": [at] * FACTS,
            "known_at": [at] * FACTS,
            "source_file": ["bench"] * FACTS,
            "source_line": list(range(1, FACTS + 1)),
        }
    )
    return event("StockCounted", "bench", location_id, at, facts)


def _rate(many: int, work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return many / (time.perf_counter() - begun)


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]


def _log(store: Store, place: Place, events: dict[int, list[Event]]) -> tuple[float, float]:
    """Events a second into the log and out of it again, in transactions of `AT_ONCE`."""

    def publish() -> None:
        for partition, each in events.items():
            for part in _parts(each):
                with store.transaction(place.tenant) as tx:
                    bus.append(tx, partition, part)

    def read() -> None:
        for partition in events:
            while True:
                with store.transaction(place.tenant) as tx:
                    found = bus.read(tx, "bench", partition, AT_ONCE)
                    if not found:
                        break
                    bus.advance(tx, "bench", partition, found[-1].position or 0)

    many = sum(map(len, events.values()))
    return _rate(many, publish), _rate(many, read)


def _forward(store: Store, place: Place) -> float:
    transport = bus.connect(place.url)

    def forward() -> None:
        for partition in range(PARTITIONS):
            while True:
                with store.transaction(place.tenant) as tx:
                    if not bus.forward(tx, transport, partition, AT_ONCE):
                        break

    with store.transaction(place.tenant) as tx:
        many = sum(tx.heads().values())
    try:
        return _rate(many, forward)
    finally:
        transport.close()


def _workers(place: Place, many: int, times: int) -> tuple[float, float]:
    """Events a second by one worker and by two, the best of some runs that take turns."""
    best = {1: 0.0, WORKERS: 0.0}
    for time_ in range(times):
        for workers in (1, WORKERS):
            own = Place(place.conninfo, place.url, f"workers_{workers}_{time_}")
            partitions = _fill(own, many)
            best[workers] = max(best[workers], _received(own, partitions, workers))
    return best[1], best[WORKERS]


def _fill(place: Place, many: int) -> list[int]:
    """Put events into the tenant's stream; the partitions they are in."""
    transport = bus.connect(place.url)
    events = _events(place.tenant, many)
    for partition, each in events.items():
        transport.publish(place.tenant, partition, [bus.seal(one, place.tenant) for one in each])
    transport.close()
    return list(events)


def _received(place: Place, partitions: list[int], workers: int) -> float:
    """Events a second that so many processes receive, each the partitions that fall to it."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as shared,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        ready = shared.Barrier(workers)
        told = [
            pool.submit(_receive, place, partitions[each::workers], ready)
            for each in range(workers)
        ]
        spent = [each.result() for each in told]
    seconds = max(ended for _, _, ended in spent) - min(began for _, began, _ in spent)
    return sum(many for many, _, _ in spent) / seconds


def _receive(place: Place, partitions: list[int], ready: Any) -> tuple[int, float, float]:
    """Receive all there is in some partitions; how many, and from when to when on the system's clock."""
    transport, many = bus.connect(place.url), 0
    transport.origin(place.tenant)
    with Store(place.conninfo) as store:
        with store.transaction(place.tenant) as tx:
            tx.heads()
        ready.wait()
        began = time.monotonic()
        for partition in partitions:
            while True:
                with store.transaction(place.tenant) as tx:
                    found = bus.receive(tx, transport, partition, AT_ONCE)
                if not found.messages:
                    break
                many += found.fresh
        ended = time.monotonic()
    transport.close()
    return many, began, ended
