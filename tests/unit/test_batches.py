"""Batches of feeds that come by a transport become facts once, and what was sent is sealed until then."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storekeep import ingest
from storekeep.bus import Message
from storekeep.bus.jetstream import JetStream
from storekeep.config import Settings
from storekeep.errors import Refused
from storekeep.ingest import Bodies
from storekeep.pipeline import Pipeline, opened
from storekeep.store import Arrival, DeadLetter
from tests import shop
from tests.interchanges import x12
from tests.told import batch
from tests.unit.test_web import CSV, MAPPING

ROOT = Path(__file__).parents[2]
NAME = "Ann Example"
BAD = "r2,pear,two,0.50,2026-01-02 09:01:00,\n"
NOW = datetime(2026, 1, 3, tzinfo=UTC)
EVER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def transport(nats_url: str) -> Iterator[JetStream]:
    one = JetStream(nats_url)
    yield one
    one.close()


@pytest.fixture
def home(home_settings: Settings) -> Settings:
    folder = home_settings.home / "mappings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "partner.yaml").write_text(MAPPING)
    (folder / "broken.yaml").write_text(MAPPING.replace("qty * price", "qty *"))
    allowed = ("partner", "broken", "gone")
    return shop.new_tenant(home_settings).model_copy(update={"bus_mappings": allowed})


@pytest.fixture
def here(home: Settings) -> Iterator[Pipeline]:
    with opened(home, now=shop.Clock(NOW)) as pipeline:
        yield pipeline


def publish(transport: JetStream, tenant: str, *messages: Message, partition: int = 3) -> None:
    transport.publish(tenant, partition, messages)


def exchanged(pipeline: Pipeline, transport: JetStream) -> dict[str, int]:
    """What one exchange with the transport came to; then facts are made of what is there."""
    tally: Counter[str] = Counter()
    pipeline.carry(transport, tally)
    with pipeline.store.again() as beside:
        pipeline.hear(beside, tally)
    # What the home tells of itself comes back, and is known.
    del tally["forwarded"], tally["known"]
    return dict(+tally)


def stands(pipeline: Pipeline) -> dict[str, Any]:
    (row,) = [row for row in pipeline.feeds(EVER) if row["source"] == "partner"]
    return row


def kept(pipeline: Pipeline) -> list[tuple[str, bytes | None]]:
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx._run("SELECT state, body FROM webhook_delivery ORDER BY received_at, topic")
    return [(row["state"], row["body"]) for row in rows]


def test_a_batch_becomes_facts_once_and_what_is_wrong_stands_in_quarantine(
    here: Pipeline, transport: JetStream
) -> None:
    body = (CSV + BAD).encode()
    first = batch(body)
    publish(transport, here.tenant, first)
    assert exchanged(here, transport) == {"batches": 1, "heard": 1}
    # It comes again, as another message in another partition; and one that holds its lines and one more.
    publish(transport, here.tenant, batch(body), batch(body, subject="S1"), partition=5)
    assert exchanged(here, transport) == {}
    publish(transport, here.tenant, batch(body + b"r3,fig,1,0.50,2026-01-02 09:02:00,\n"))
    assert exchanged(here, transport) == {"batches": 1, "heard": 1}
    assert stands(here)["units"] == {"net": 3, "gross": 3}
    assert stands(here)["rejected"] == {"unreadable": 1}
    assert stands(here)["new_columns"] == ["card"]
    assert kept(here) == [("taken", None), ("taken", None)]
    run = here.lineage("sale_line")["inputs"][-1]
    assert run["job"] == "ingest/pos/partner"
    assert run["inputs"][0]["name"].startswith("pos_partner-")


def test_a_document_is_taken_by_each_mapping_that_it_is_pushed_for(
    home: Settings, transport: JetStream
) -> None:
    """Of one 852 the sales are of one table, and what is there of another."""
    both = ("x12_852", "x12_852_stock")
    with opened(home.model_copy(update={"bus_mappings": both})) as pipeline:
        text = x12(("852", _REPORT)).encode()
        publish(transport, pipeline.tenant, *(batch(text, each) for each in (*both, *both)))
        assert exchanged(pipeline, transport) == {"batches": 2, "heard": 2}
        assert kept(pipeline) == [("taken", None)] * 2
        assert {row["source"]: row["lines"] for row in pipeline.feeds()} == {
            "x12_852": 1,
            "x12_852_stock": 1,
        }


_REPORT = (
    "XQ*H*20260703*20260703",
    "LIN*1*IN*apple",
    "CTP**RES*1.50",
    "ZA*QS",
    "SDQ*EA*92*S1*5",
    "ZA*QA",
    "SDQ*EA*92*S1*30",
    "CTT*1",
)


def test_what_may_not_be_told_is_put_aside_and_taken_once_it_may(
    here: Pipeline, transport: JetStream
) -> None:
    here.push_bytes = 500
    body = CSV.replace("apple", NAME).encode()
    wrong = {
        "bus_mappings does not name its mapping: '../partner'": batch(body, "../partner"),
        "bus_mappings does not name its mapping: 'shopify_orders'": batch(body, "shopify_orders"),
        "there is no mapping gone": batch(body, "gone"),
        "its mapping cannot be used: ": batch(body, "broken"),
        "it has 600 bytes; a batch has one or more, 500 at most (push_bytes)": batch(
            body.ljust(600, b"\n")
        ),
        "it has 0 bytes": batch(b""),
        "of another tenant": batch(body, tenant="eve"),
    }
    publish(transport, here.tenant, *wrong.values())
    assert exchanged(here, transport) == {"put_aside": len(wrong)}
    with here.store.transaction(here.tenant) as tx:
        letters = tx.dead_letters()
    for (words, message), letter in zip(wrong.items(), letters, strict=True):
        assert words in letter.reason
        assert NAME.encode() not in letter.body
        assert here.message(letter.message_id).body == message.body
    large = letters[4].message_id
    (told,) = here.receive_again([large], "ann", "")
    assert (told["result"], told["reason"]) == ("unreadable", letters[4].reason)
    here.push_bytes = 600
    (told,) = here.receive_again([large], "ann", "we take more now")
    assert told["result"] == "received"
    assert exchanged(here, transport) == {"heard": 1}
    assert stands(here)["units"]["net"] == 2
    assert len(here.put_aside()) == len(wrong) - 1
    assert here.verify().ok


def test_nobody_tells_a_home_anything_whose_settings_name_no_mapping(
    home: Settings, transport: JetStream
) -> None:
    with opened(home.model_copy(update={"bus_mappings": ()})) as pipeline:
        publish(transport, pipeline.tenant, batch(CSV.encode()))
        assert exchanged(pipeline, transport) == {"put_aside": 1}
        assert kept(pipeline) == []


# What is kept ---------------------------------------------------------------------------------------


def test_what_waits_is_sealed_and_what_is_refused_stays_so(
    here: Pipeline, transport: JetStream
) -> None:
    publish(transport, here.tenant, batch(f"name\n{NAME}\n".encode()))
    for _ in range(2):
        tally: Counter[str] = Counter()
        here.carry(transport, tally)
        ((state, waiting),) = kept(here)
        assert state == "waiting"
        assert waiting is not None
        assert NAME.encode() not in waiting
        assert exchanged(here, transport) == {"heard": 1}
        # The file lacks the columns of its mapping; it is kept as it was kept.
        assert kept(here) == [("refused", waiting)]
        assert here.hear_again("pushed") == 1


ARRIVAL = Arrival("shop", "d1", "orders/create", None, NAME.encode())
LETTER = DeadLetter("nats", 3, 9, "why", {}, NAME.encode())


def test_a_body_is_bound_to_its_place_and_its_home(tmp_path: Path) -> None:
    ours, theirs = Bodies(tmp_path, "acme"), Bodies(tmp_path, "eve")
    elsewhere = Bodies(tmp_path / "other", "acme")
    sealed = ours.seal(ARRIVAL)
    assert sealed.body != ours.seal(ARRIVAL).body
    for each in (ARRIVAL, LETTER, Arrival("shop", "d2", "", None, b"")):
        assert ours.open(ours.seal(each)) == each
        with pytest.raises(Refused, match=r"keys/bodies\.key"):
            ours.open(each)
    moved = Arrival("shop", "d2", sealed.topic, None, sealed.body)
    cut = Arrival("shop", "d1", sealed.topic, None, sealed.body[:-1])
    for bodies, one in ((theirs, sealed), (elsewhere, sealed), (ours, moved), (ours, cut)):
        with pytest.raises(Refused, match=r"keys/bodies\.key"):
            bodies.open(one)
    assert (tmp_path / "keys" / "bodies.key").stat().st_mode & 0o777 == 0o600


def test_what_another_home_sealed_waits_until_its_key_is_back(
    here: Pipeline, tmp_path: Path
) -> None:
    one = Bodies(tmp_path, here.tenant).seal(ingest.pushed("pos", "partner", CSV.encode()))
    with here.store.transaction(here.tenant) as tx:
        assert tx.add_arrival(one)
        assert tx.add_arrival(here._bodies.seal(ingest.pushed("pos", "partner", CSV.encode(), "k")))
    with here.store.again() as beside:
        here.hear(beside, Counter())
    assert sorted(kept(here), key=str) == [("refused", one.body), ("taken", None)]
    (here.home / "keys" / "bodies.key").write_bytes((tmp_path / "keys/bodies.key").read_bytes())
    with opened(Settings(home=here.home, tenant=here.tenant), now=here.now) as again:
        assert again.hear_again("pushed") == 1
        with again.store.again() as beside:
            again.hear(beside, Counter())
        assert kept(again) == [("taken", None)] * 2
        assert stands(again)["units"]["net"] == 2


# Killed -----------------------------------------------------------------------------------------------

# Workers one after another, each of which dies before or after its so-manieth write; how they ended. A start
# takes long, so they are forked from one.
CHILD = """
import os, sys
from datetime import UTC
from storekeep import bus, lake
from storekeep.bus.jetstream import JetStream
from storekeep.config import Settings
from storekeep.ingest import contracts, loading
from storekeep.pipeline import Worker, opened
from storekeep.store import Transaction
from tests.dying import counted, die_at
home, tenant, url, *ends = sys.argv[1:]
bus.append, lake.Lake.append = counted(bus.append), counted(lake.Lake.append)
for name in ("add_arrival", "end_arrivals", "move_position"):
    setattr(Transaction, name, counted(getattr(Transaction, name)))
own = Settings(home=home, tenant=tenant, bus_mappings=("partner",))
over = False
def wait(seconds):
    global over
    over = over or seconds >= 1
    return over
for each in ends:
    child = os.fork()
    if not child:
        die_at(int(each))
        Worker(lambda: opened(own), JetStream(url), wait, 1, UTC, print).work()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.crash
def test_a_worker_that_is_killed_half_way_takes_each_batch_once(
    home: Settings, here: Pipeline, nats_url: str, transport: JetStream
) -> None:
    bodies = [(CSV.replace("r1", f"r{n}") + BAD).encode() for n in (11, 12)]
    publish(transport, here.tenant, batch(bodies[0]), batch(bodies[1]), batch(bodies[0]))
    done = subprocess.run(
        [
            *(sys.executable, "-c", CHILD, str(home.home), home.tenant, nats_url),
            *("2", "10", "12", "16", "1000"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ends = done.stdout.split()
    assert ends == [str(-signal.SIGKILL)] * 4 + ["0"], done.stderr
    assert exchanged(here, transport) == {}
    assert stands(here)["units"]["net"] == 4
    assert stands(here)["rejected"] == {"unreadable": 1}
    assert kept(here) == [("taken", None)] * 2
    assert here.put_aside() == []
