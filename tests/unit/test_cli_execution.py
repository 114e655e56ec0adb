"""`work`, `breakers` and `dead-letters`, asked as a person asks them, of an order system with a fault."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from click.testing import Result

from storekeep.config import Settings
from storekeep.pipeline import opened
from tests.contracts.order_system import OrderSystem
from tests.pending import pend
from tests.unit.test_cli import ask, process, told


@dataclass(frozen=True)
class Waiting:
    """A tenant whose order system has a fault, with one dead letter and an open breaker."""

    settings: Settings
    system: OrderSystem
    key: str

    def ask(self, *words: object) -> Result:
        return ask(*words, "--home", self.settings.home, "--tenant", self.settings.tenant)


@pytest.fixture
def waiting(home_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    settings = Settings(home=home_settings.home, tenant=f"w{uuid4().hex[:12]}")
    with OrderSystem() as system:
        named = {"PlacePurchaseOrder": {"url": system.url, "timeout_seconds": 2}}
        monkeypatch.setenv("STOREKEEP_ADAPTERS", json.dumps(named))
        system.fault("500", "before", times=10**6)
        with opened(Settings(home=settings.home, tenant=settings.tenant)) as pipeline:
            pipeline.draw = lambda: 0.0
            (key,) = pend(pipeline, 1)
            while not pipeline.dead_letters():
                if pipeline.act() == 0 and pipeline.breakers()[0]["state"] == "open":
                    pipeline.reset_breaker("adapter/http", "test", "go on")
            pend(pipeline, 1, "DC2")
            while pipeline.breakers()[0]["state"] != "open":
                pipeline.act()
        yield Waiting(settings, system, key)


def test_what_fails_is_shown_where_one_looks_first(waiting: Waiting) -> None:
    # The doctor finds wrong that the tests' home does not wait for the disk.
    findings = told(waiting.ask("doctor", "--json"), 1)["findings"]
    said = {each["name"]: (each["state"], each["says"]) for each in findings}
    assert said["breaker"][0] == "warn"
    assert said["breaker"][1].startswith("adapter/http is open since ")
    assert said["dead letters"] == ("warn", "1 action was given up")
    text = waiting.ask("breakers", "list").stdout
    assert re.search(r"^adapter/http +open .*http answers 500", text, re.MULTILINE)
    text = waiting.ask("dead-letters", "list").stdout
    assert re.search(rf"^{waiting.key} .*gave up after 10 attempts", text, re.MULTILINE)


def test_a_breaker_is_reset_with_a_reason(waiting: Waiting) -> None:
    assert waiting.ask("breakers", "reset", "adapter/http").exit_code == 2
    words = ("breakers", "reset", "adapter/http", "--reason", "mended", "--as", "Bea", "--json")
    assert told(waiting.ask(*words)) == {"name": "adapter/http", "state": "closed", "by": "Bea"}
    rows = {row["name"]: row for row in told(waiting.ask("breakers", "list", "--json"))}
    assert (rows["adapter/http"]["state"], rows["adapter/http"]["why"]) == ("closed", "mended")
    # Its own decision that failed does not open the agent's yet.
    assert len(rows["agent/replenish"]["failed_at"]) == 1
    again = waiting.ask(*words)
    assert again.exit_code == 1
    assert "no breaker adapter/http is open" in again.stdout
    assert not any(
        each["name"] == "breaker" for each in told(waiting.ask("doctor", "--json"), 1)["findings"]
    )


def test_a_dead_letter_is_retried_and_done(waiting: Waiting) -> None:
    waiting.system.mend()
    told(waiting.ask("breakers", "reset", "adapter/http", "--reason", "mended", "--json"))
    document = told(waiting.ask("dead-letters", "retry", waiting.key, "--as", "Bea", "--json"))
    assert document["counts"] == {"executed": 1}
    assert waiting.ask("dead-letters", "list").stdout == "There are no dead letters.\n"


def test_a_dead_letter_is_dropped_with_a_reason(waiting: Waiting) -> None:
    assert waiting.ask("dead-letters", "drop", waiting.key).exit_code == 2
    words = ("dead-letters", "drop", waiting.key, "--reason", "by telephone")
    assert waiting.ask(*words).stdout == "By operator: now dropped 1.\n"
    assert waiting.ask(*words).exit_code == 1
    rows = told(waiting.ask("decisions", "list", "--status", "dropped", "--json"))
    assert [row["decision_id"] for row in rows] == [waiting.key]


def test_a_worker_ends_what_it_has_in_hand_when_it_is_told_to_stop(waiting: Waiting) -> None:
    """Also when the signal comes in the middle of a slow call."""
    waiting.system.mend()
    waiting.system.pause_seconds = 1.0
    told(waiting.ask("breakers", "reset", "adapter/http", "--reason", "mended", "--json"))
    with opened(Settings(home=waiting.settings.home, tenant=waiting.settings.tenant)) as pipeline:
        keys = pend(pipeline, 20, "DC3")
    waiting.system.asked.clear()
    at = ("--home", waiting.settings.home, "--tenant", waiting.settings.tenant)
    working = process(*at, "--json", "work")
    while not waiting.system.asked:
        time.sleep(0.01)
        assert working.poll() is None
    working.send_signal(signal.SIGTERM)
    out, err = working.communicate(timeout=60)
    assert working.returncode == 0, err
    document = json.loads(out)
    assert document["stopped_by"] == "SIGTERM"
    rows = told(waiting.ask("decisions", "list", "--status", "executed", "--json"))
    # All that it had in hand, and nothing that is not recorded.
    assert document["acted"] == len(rows) == len(waiting.system.lines) > 0
    assert {row["decision_id"] for row in rows} & set(keys)
