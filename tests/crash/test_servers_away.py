"""NATS and PostgreSQL die and are restarted while tills ring: nothing is lost, nothing is doubled.

Real tills would put 1,000 lines a second on NATS; `storekeep work`, twice, receives them, decides and
acts. By default this takes 20 s; STOREKEEP_TEST_SECONDS=60 is the run that the goal speaks of.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from storekeep import bus, servers
from storekeep.actions import BackOffice
from storekeep.backtest import till
from storekeep.config import Settings
from storekeep.errors import Transient
from storekeep.events import event
from storekeep.lake import SALE_LINES
from storekeep.pipeline import Pipeline, opened
from tests import shop
from tests.at_work import workers

pytestmark = [pytest.mark.crash, pytest.mark.slow]
SECONDS = int(os.environ.get("STOREKEEP_TEST_SECONDS", "20"))
LINES_A_SECOND = 1_000
LOCATIONS = ("N1", "N2", "S1")
TICK_SECONDS = 0.1
A_TICK = round(LINES_A_SECOND * TICK_SECONDS / len(LOCATIONS))
WORKERS = 2
HISTORY_LINES = 91 * till.SKUS
# Of an item at most 3.4 units a second are sold.
SHELF_UNITS = 30 + 4 * SECONDS
# After which part of the run which server is ended, and how.
ENDS = (
    (0.25, "nats", signal.SIGKILL),
    (0.5, "postgres", signal.SIGKILL),
    (0.75, "nats", signal.SIGTERM),
    (0.75, "postgres", signal.SIGINT),
)


@pytest.fixture
def home() -> Iterator[Settings]:
    """A home of its own, whose servers may be ended, with its own NATS server."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    settings = Settings(
        home=folder / "home", tenant="grocer", bus_url=SecretStr(bus.opening.OWN_NATS)
    )
    yield settings
    servers.stop(settings, force=True)
    shutil.rmtree(folder)


def serving(home: Settings, server: str) -> int:
    """The process of a server."""
    files = {"nats": "nats/nats.pid", "postgres": "postgres/cluster/postmaster.pid"}
    return int((home.home / files[server]).read_text().split()[0])


def count(pipeline: Pipeline, location_id: str) -> None:
    """There is enough on the shelves for this run, and too little for the next days."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        skus = tx.stock(location_id)["sku"].to_pylist()
    facts = shop.counted(dict.fromkeys(skus, SHELF_UNITS), pipeline.now())
    facts = facts.set_column(0, "location_id", [[location_id] * facts.num_rows])
    pipeline.publish("StockCounted", "shelf", location_id, facts)
    pipeline.move_stock()
    pipeline.skip_to_present(location_id)


@dataclass
class Tills:
    """Tills that ring, each line once, whatever becomes of the server they tell it to."""

    home: Settings
    rung: int = 0
    failures: int = 0
    told: Counter[str] = field(default_factory=Counter)

    def ring(self) -> None:
        """All lines of the run, in real time; after an outage what has rung meanwhile follows at once."""
        begun = time.monotonic()
        with ExitStack() as stack:
            transport = bus.connect(stack.enter_context(servers.nats(self.home)))
            stack.callback(transport.close)
            for tick in range(round(SECONDS / TICK_SECONDS)):
                time.sleep(max(0.0, begun + tick * TICK_SECONDS - time.monotonic()))
                for location_id in LOCATIONS:
                    self._tell(transport, location_id, tick)

    def _tell(self, transport: bus.Transport, location_id: str, tick: int) -> None:
        numbers = np.arange(tick * A_TICK, (tick + 1) * A_TICK)
        at = datetime.now(UTC)
        facts = till.lines(numbers, at, "now", location_id)
        message = bus.seal(event("SaleRecorded", "tills", location_id, at, facts), self.home.tenant)
        partition = bus.partition_of(self.home.tenant, location_id)
        while True:
            try:
                transport.publish(self.home.tenant, partition, [message])
            except Transient:
                self.failures += 1
                time.sleep(0.05)
                continue
            self.told[location_id] += facts.num_rows
            return


def end_servers(home: Settings, tills: threading.Thread) -> None:
    """End each server at its time; nobody but those who use it starts it again."""
    begun = time.monotonic()
    for part, server, how in ENDS:
        time.sleep(max(0.0, begun + part * SECONDS - time.monotonic()))
        assert tills.is_alive()
        was = serving(home, server)
        os.kill(was, how)
        print(f"{time.monotonic() - begun:.1f} s: {server} gets {how.name}")


def read_from_a_file(home: Settings, many: int) -> int:
    """The first lines of a location come once more, from a file; how many of them were new."""
    numbers = np.arange(many)
    lines = till.lines(numbers, datetime.now(UTC), "now", LOCATIONS[0])
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with suppress(Transient), opened(home) as pipeline:
            return pipeline.take_in(lines, "a file", LOCATIONS[0])[0]
        time.sleep(0.1)
    raise AssertionError("the database did not come back")


def settled(home: Settings, tills: Tills, old: set[tuple[str, str, int]]) -> float:
    """Wait until every line is decided on, every action done and every event answered; how long that took."""
    begun = time.monotonic()
    while time.monotonic() < begun + 60 + SECONDS:
        try:
            with opened(home) as pipeline:
                while time.monotonic() < begun + 60 + SECONDS:
                    if counted(pipeline) == tills.told and not pipeline.due():
                        with pipeline.store.transaction(home.tenant) as tx:
                            waits = tx.count_tasks()
                        if not waits and answers(pipeline).keys() >= logged(pipeline) - old:
                            return time.monotonic() - begun
                    time.sleep(0.5)
        except Transient:
            time.sleep(0.5)
    raise AssertionError("it never came to that")


def counted(pipeline: Pipeline) -> dict[str, int]:
    """How many sale lines the log has of each location, its history apart."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx._run(
            "SELECT subject, sum(fact_count)::bigint AS facts FROM event_log"
            " WHERE type = 'SaleRecorded' GROUP BY subject"
        )
    return {row["subject"]: row["facts"] - HISTORY_LINES for row in rows}


def answers(pipeline: Pipeline) -> Counter[tuple[str, str, int]]:
    """How often each event was answered, by a run or by a note that nobody listens: where, type, position."""
    said = [(run["location_id"], run["heard"]) for run in shop.noted(pipeline, "batch")]
    said += [(note["location_id"], note["events"]) for note in shop.noted(pipeline, "unheard")]
    positions = defaultdict(list)
    for place, type_, position in logged(pipeline):
        positions[place, type_].append(position)
    return Counter(
        (place, each["type"], position)
        for place, spans in said
        for each in spans
        for position in positions[place, each["type"]]
        if each["first"] <= position <= each["last"]
    )


def logged(pipeline: Pipeline) -> set[tuple[str, str, int]]:
    """The events of the log: where, type, position."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx._run("SELECT subject, type, position FROM event_log")
    return {(row["subject"], row["type"], row["position"]) for row in rows}


def sold(pipeline: Pipeline) -> dict[str, tuple[int, int, int]]:
    """What history has of this run: lines, different lines, and units, by location."""
    rows = pipeline.lake.query(
        "SELECT location_id, count(*) AS lines, count(DISTINCT line_key) AS keys,"
        " sum(quantity_units)::BIGINT AS units FROM sale WHERE source_file = 'now' GROUP BY 1",
        tables={"sale": SALE_LINES},
    ).to_pylist()
    return {row["location_id"]: (row["lines"], row["keys"], row["units"]) for row in rows}


def shelves(pipeline: Pipeline) -> dict[str, dict[str, int]]:
    """What is on hand by location and item."""
    found = {}
    with pipeline.store.transaction(pipeline.tenant) as tx:
        for location_id in LOCATIONS:
            rows = tx.stock(location_id).to_pylist()
            found[location_id] = {row["sku"]: row["on_hand_units"] for row in rows}
    return found


def check(
    pipeline: Pipeline, told: Mapping[str, int], before: Mapping[str, Mapping[str, int]]
) -> None:
    """Every line that was told is in log, history and stock, once."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        assert not tx.dead_letters()
    assert counted(pipeline) == told
    for location_id, many in told.items():
        lines = till.lines(np.arange(many), pipeline.now(), "now", location_id)
        totals = lines.group_by("sku").aggregate([("quantity_units", "sum")]).to_pylist()
        units = {row["sku"]: row["quantity_units_sum"] for row in totals}
        assert sold(pipeline)[location_id] == (many, many, sum(units.values()))
        left = {sku: was - units[sku] for sku, was in before[location_id].items()}
        assert min(left.values()) > 0
        assert shelves(pipeline)[location_id] == left
    pipeline.rebuild_stock()
    assert sum(sum(each.values()) for each in shelves(pipeline).values()) == sum(
        sum(each.values()) for each in before.values()
    ) - sum(units for _, _, units in sold(pipeline).values())


def test_servers_that_die_while_tills_ring_lose_and_double_nothing(home: Settings) -> None:
    with opened(home) as pipeline:
        for location_id in LOCATIONS:
            till.prepare(pipeline, location_id)
            count(pipeline, location_id)
        before, old = shelves(pipeline), logged(pipeline)
    tills = Tills(home)
    environ = {"STOREKEEP_BUS_URL": bus.opening.OWN_NATS}
    with servers.lease(home), workers(home, WORKERS, environ) as started:
        ringing = threading.Thread(target=tills.ring)
        ringing.start()
        end_servers(home, ringing)
        again = read_from_a_file(home, A_TICK * 20)
        ringing.join(SECONDS + 60)
        assert not ringing.is_alive()
        taken = settled(home, tills, old)
        for each in started:
            each.send_signal(signal.SIGTERM)
        ends = [each.communicate(timeout=60) for each in started]
    print(f"settled {taken:.1f} s after the last line; the tills tried {tills.failures} times more")
    for process, (out, err) in zip(started, ends, strict=True):
        print(out, err)
        assert process.returncode == 0, err
        assert json.loads(out)["stopped_by"] == "SIGTERM"
        said = err.splitlines()
        assert 0 < sum("it is tried again" in line for line in said) <= len(ENDS)
        assert sum("works again" in line for line in said) == len(said) / 2
    with opened(home) as pipeline:
        assert sum(tills.told.values()) == len(LOCATIONS) * A_TICK * round(SECONDS / TICK_SECONDS)
        assert again == 0
        check(pipeline, tills.told, before)
        answered = answers(pipeline)
        assert {each: many for each, many in answered.items() if many != 1} == {}
        assert answered.keys() == logged(pipeline) - old
        adapter = pipeline.adapters["PlacePurchaseOrder"]
        assert isinstance(adapter, BackOffice)
        with pipeline.store.transaction(home.tenant) as tx:
            statuses = tx.count_decisions("status")
        assert adapter.order_lines().num_rows == statuses["executed"] > 0
        assert pipeline.verify().ok
