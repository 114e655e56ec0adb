"""`put-aside`: what a person on call sees of messages that could not be read, and does with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from storekeep import bus, ledger
from storekeep.cli.put_aside import _text
from storekeep.config import Settings
from storekeep.errors import Refused
from storekeep.events import event
from storekeep.ingest import Bodies
from storekeep.pipeline import Pipeline, opened
from storekeep.pipeline.returning import _in_general
from storekeep.retail import STOCK_COUNT
from storekeep.store import DeadLetter
from tests import orders
from tests.shop import noted
from tests.unit.test_cli import ask, told

SECRET = "Jane Roe"
AT = datetime(2026, 3, 2, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Aside:
    """A tenant with three messages put aside: one broken, and a fact twice that an update can read."""

    settings: Settings

    def ask(self, *words: object) -> Result:
        return ask(*words, "--home", self.settings.home, "--tenant", self.settings.tenant)

    @property
    def ids(self) -> list[str]:
        return [row["message_id"] for row in told(self.ask("put-aside", "list", "--json"))]


def letters(tenant: str) -> list[DeadLetter]:
    count: dict[str, Any] = {"location_id": orders.LOCATION, "sku": "milk", "quantity_units": 7}
    count |= {"occurred_at": AT, "known_at": AT}
    facts = pa.Table.from_pylist([count], STOCK_COUNT.arrow)
    place = bus.partition_of(tenant, orders.LOCATION)
    readable = []
    for position, source in ((4, "shelf"), (5, "till")):
        told_by = bus.seal(event("StockCounted", source, orders.LOCATION, AT, facts), tenant)
        why = "no event type is called 'x'"
        letter = ("nats", place, position, why, told_by.attributes, told_by.body)
        readable.append(DeadLetter(*letter))
    broken = DeadLetter(
        *("nats", 3, 1_700, f"no event type is called '{SECRET}'"),
        {"type": SECRET, "id": "x", "specversion": "1.0", "source": "s", "subject": "t"},
        f"{SECRET} bought\nmilk\x00\xff".encode("latin-1"),
    )
    return [broken, *readable]


@pytest.fixture
def aside(home_settings: Settings) -> Aside:
    settings = Settings(home=home_settings.home, tenant=f"p{uuid4().hex[:12]}")
    with opened(settings) as pipeline:
        for each in letters(settings.tenant):
            with pipeline.store.transaction(settings.tenant) as tx:
                tx.add_dead_letters([Bodies(settings.home, settings.tenant).seal(each)])
    return Aside(settings)


def entries(aside: Aside, folder: Path) -> tuple[list[dict[str, object]], str]:
    """What the ledger says of messages, and all that it says; it verifies."""
    with opened(aside.settings) as pipeline:
        said = noted(pipeline, "message")
        assert pipeline.verify().ok
        with pipeline.store.transaction(pipeline.tenant) as tx:
            ledger.export(tx, folder / "export", pipeline.signing.public)
    return said, (folder / "export").read_text(encoding="utf-8")


def test_the_list_says_where_and_why_and_nothing_of_what_is_in_them(aside: Aside) -> None:
    rows = told(aside.ask("put-aside", "list", "--json"))
    (broken,) = (row for row in rows if row["position"] == 1_700)
    assert (broken["transport"], broken["partition"]) == ("nats", 3)
    assert (broken["reason"], broken["size_bytes"]) == ("no event type is called", 22 + 12 + 16)
    assert len({row["message_id"] for row in rows}) == 3
    text = aside.ask("put-aside", "list").stdout
    assert broken["message_id"] in text
    assert SECRET not in text + str(rows)


def test_they_are_told_of_where_one_looks_first(aside: Aside) -> None:
    # The doctor finds wrong that the tests' home does not wait for the disk.
    findings = told(aside.ask("doctor", "--json"), 1)["findings"]
    (found,) = (each for each in findings if each["name"] == "put aside")
    assert (found["state"], found["says"]) == (
        "warn",
        "3 messages of a transport could not be read",
    )
    text = aside.ask("dead-letters", "list").stdout
    assert "3 messages of a transport could not be read: storekeep put-aside list" in text


def test_one_is_shown_with_headers_and_its_body_as_far_as_it_is_text(aside: Aside) -> None:
    (key, *_) = aside.ids
    document = told(aside.ask("put-aside", "show", key, "--json"))
    assert document["headers"]["type"] == SECRET
    assert document["text"] == f"{SECRET} bought\nmilk"
    text = aside.ask("put-aside", "show", key).stdout
    assert f"no event type is called '{SECRET}'" in text
    assert f"{SECRET} bought\nmilk\n" in text
    assert "22 bytes" in text
    assert "do not begin as text" in aside.ask("put-aside", "show", aside.ids[1]).stdout


def test_what_can_be_read_by_now_is_received_once_and_the_rest_stays(
    aside: Aside, tmp_path: Path
) -> None:
    broken, first, second = aside.ids
    answer = aside.ask("put-aside", "retry", *aside.ids, "--as", "Bea", "--json")
    assert answer.exit_code == 1
    document = told(answer, 1)
    assert document["counts"] == {"known": 1, "received": 1, "unreadable": 1}
    results = {each["message_id"]: each["result"] for each in document["results"]}
    assert results == {broken: "unreadable", first: "received", second: "known"}
    assert aside.ids == [broken]
    with opened(aside.settings) as pipeline:
        shelf = orders.stock(pipeline)
    assert [row["on_hand_units"] for row in shelf.values()] == [7]
    said, _ = entries(aside, tmp_path)
    assert [(each["end"], each["by"], each["position"]) for each in said] == [
        *(("retried", "Bea", 4), ("retried", "Bea", 5))
    ]
    text = aside.ask("put-aside", "retry", broken)
    assert text.exit_code == 1
    assert "By operator: unreadable 1." in text.stdout


def test_one_is_dropped_with_a_reason_and_nothing_of_it_is_kept(
    aside: Aside, tmp_path: Path
) -> None:
    (key, *others) = aside.ids
    assert aside.ask("put-aside", "drop", key).exit_code == 2
    words = ("put-aside", "drop", key, "--reason", "sent again")
    assert aside.ask(*words).stdout == "By operator: dropped 1.\n"
    assert aside.ids == others
    again = aside.ask(*words)
    assert again.exit_code == 1
    assert f"no message {key} is put aside" in again.stderr
    (said,), everything = entries(aside, tmp_path)
    assert (said["message_id"], said["end"], said["reason"]) == (key, "dropped", "sent again")
    assert (said["transport"], said["partition"], said["position"]) == ("nats", 3, 1_700)
    assert SECRET not in everything
    told(aside.ask("put-aside", "drop", *others, "--reason", "all of it", "--json"))
    assert aside.ask("put-aside", "list").stdout == "No message is put aside.\n"


def test_of_several_one_that_is_not_there_keeps_all(aside: Aside) -> None:
    with opened(aside.settings) as pipeline:
        for answer in (pipeline.drop_messages, pipeline.receive_again):
            with pytest.raises(Refused, match="no message 0000 is put aside"):
                answer([*aside_ids(pipeline), "0000"], "ann", "why")
        assert len(aside_ids(pipeline)) == 3


def aside_ids(pipeline: Pipeline) -> list[str]:
    return [row["message_id"] for row in pipeline.put_aside()]


@given(st.binary(max_size=40), st.text(max_size=20))
def test_a_body_is_shown_as_far_as_it_is_text(rest: bytes, letters_: str) -> None:
    assert _text(b"a till\n" + rest).startswith("a till\n")
    shown = _text(letters_.encode("utf-8", "replace") + b"\xff" + rest)
    assert letters_.encode("utf-8", "replace").decode().startswith(shown)


@pytest.mark.parametrize(
    ("reason", "general"),
    [
        ("its time has no zone", "its time has no zone"),
        ("""no event type is called "O'Neil's" here""", "no event type is called"),
        ("its facts are not readable as sale_line: x", "its facts are not readable as sale_line"),
    ],
)
def test_a_reason_in_general_quotes_nothing(reason: str, general: str) -> None:
    assert _in_general(reason) == general
