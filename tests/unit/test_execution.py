"""What was decided is done once, however the outside system behaves, and what is not done is not forgotten.

The order system is a real one, over HTTP; only its faults are made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from storekeep import ledger, policy
from storekeep.actions import HttpOrders
from storekeep.config import OrderSystem as Setting
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.errors import Refused, StorekeepError, Transient
from storekeep.ledger import recall
from storekeep.pipeline import Pipeline, Worker, opened
from storekeep.pipeline.acting import _order
from storekeep.pipeline.breaking import Breaker, State
from storekeep.pipeline.trying import MOST_ATTEMPTS, wait_seconds
from storekeep.policy.rulebook import Breaker as Thresholds
from storekeep.store import Task
from tests import shop
from tests.contracts.order_system import OrderSystem
from tests.pending import pend

AT = datetime(2026, 3, 2, 22, tzinfo=UTC)
PATIENT = {"failures": 1000}
SHIPPED = (policy.SHIPPED / "replenish.yaml").read_text()


@dataclass
class Place:
    """A tenant whose actions are carried out by an order system of its own."""

    home: Settings
    pipeline: Pipeline
    system: OrderSystem
    clock: shop.Clock

    def status(self) -> dict[str, int]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return tx.count_decisions("status")

    def steps(self, key: str) -> list[dict[str, Any]]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return ledger.steps(tx, [key])[key]

    def tasks(self) -> dict[str, dict[str, Any]]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx._run("SELECT *, not_before - now() AS wait FROM pending_action")
        return {str(row["decision_id"]): row for row in rows}

    def events(self) -> list[str]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows: list[dict[str, Any]] = tx._run("SELECT type FROM event_log ORDER BY time, type")
        return [row["type"] for row in rows]

    def breaker_entries(self) -> list[tuple[str, str, str]]:
        told = shop.noted(self.pipeline, "breaker")
        return [(each["name"], each["from"], each["to"]) for each in told]

    def sound(self) -> None:
        """What is folded for speed is what the ledger says, and nobody was asked for one thing twice."""
        assert self.pipeline.verify().ok
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = {row["decision_id"]: row["status"] for row in tx.decisions(Selection())}
        assert self.pipeline.rebuild_decisions() == rows
        assert set(self.system.placed.values()) <= {1}


@contextmanager
def a_place(home: Settings, tmp_path: Any, breaker: Mapping[str, object]) -> Iterator[Place]:
    path = tmp_path / "rulebook.yaml"
    lines = [f"  {name}: {value}" for name, value in breaker.items()]
    path.write_text("\n".join([SHIPPED, "breaker:", *lines, ""]))
    with OrderSystem() as system:
        setting = Setting(url=system.url, timeout_seconds=1.0)
        own = shop.new_tenant(home).model_copy(update={"adapters": {"PlacePurchaseOrder": setting}})
        clock = shop.Clock(AT)
        with opened(own, now=clock) as pipeline:
            pipeline.promote(path, shop.BUYER)
            pipeline.draw = lambda: 0.0
            yield Place(own, pipeline, system, clock)


@pytest.fixture
def place(home_settings: Settings, tmp_path: Any) -> Iterator[Place]:
    """One whose breakers do not open."""
    with a_place(home_settings, tmp_path, PATIENT) as one:
        yield one


@pytest.fixture
def touchy(home_settings: Settings, tmp_path: Any) -> Iterator[Place]:
    """One whose breakers open at the second failure, for longer than the test takes."""
    with a_place(home_settings, tmp_path, {"failures": 2, "open_for": "1h"}) as one:
        yield one


# Attempts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "429", "reset", "garbage"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_goes_wrong_for_a_while_is_done_once(kind: Any, when: Any, place: Place) -> None:
    keys = pend(place.pipeline, 3)
    place.system.fault(kind, when, sku="sku 0001", times=3)
    assert place.pipeline.act() == 3
    assert place.status() == {"executed": 3}
    assert place.system.placed == dict.fromkeys(keys, 1)
    assert [each["step"] for each in place.steps(keys[1])] == ["allow", "executed"]
    assert place.tasks() == {}
    place.sound()


def test_what_may_have_been_done_is_looked_up_before_anything_is_sent(place: Place) -> None:
    keys = pend(place.pipeline, 1)
    place.system.fault("500", "after")
    place.pipeline.draw = lambda: 0.99
    assert place.pipeline.act() == 0
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx.postpone_tasks({keys[0]: timedelta(0)})
    assert place.pipeline.act() == 1
    assert place.system.asked == {("POST", keys[0]): 1, ("GET", keys[0]): 1}


def test_an_unknown_outcome_is_looked_up_at_once_at_every_attempt(place: Place) -> None:
    (key,) = pend(place.pipeline, 1)
    place.pipeline.draw = lambda: 0.99
    place.system.fault("500", "before")
    assert place.pipeline.act() == 0
    place.system.fault("reset", "after")
    due_now(place)
    assert place.pipeline.act() == 1
    assert place.system.asked == {("POST", key): 2, ("GET", key): 2}
    place.sound()


def test_what_a_dead_worker_had_in_hand_is_looked_up_first(place: Place) -> None:
    keys = sorted(pend(place.pipeline, 2))
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        held = tx.lease_tasks("a worker that dies", 1, timedelta(0))
    place.pipeline.adapters["PlacePurchaseOrder"].execute([_order(held[0])], AT)
    place.system.asked.clear()
    assert place.pipeline.act() == 2
    assert place.system.asked == {("GET", keys[0]): 1, ("POST", keys[1]): 1}
    place.sound()


def test_a_look_that_fails_sends_nothing(place: Place) -> None:
    """Unknown, and then the look does not work either, for a while."""
    keys = pend(place.pipeline, 1)
    place.system.fault("hang")
    place.system.fault("500", method="GET", times=4)
    assert place.pipeline.act() == 1
    assert place.status() == {"executed": 1}
    assert place.system.asked == {("POST", keys[0]): 1, ("GET", keys[0]): 5}


def test_one_line_that_never_works_does_not_keep_the_others_from_it(place: Place) -> None:
    keys = pend(place.pipeline, 5)
    place.system.fault("500", "before", sku="sku 0002", times=10**6)
    place.pipeline.act()
    assert place.status() == {"executed": 4, "failed": 1}
    last = place.steps(keys[2])[-1]
    assert last["reason"].startswith(f"gave up after {MOST_ATTEMPTS} attempts: http answers 500")
    assert place.system.asked["POST", keys[2]] == MOST_ATTEMPTS
    place.sound()


def test_a_system_that_names_a_time_is_left_alone_until_then(place: Place) -> None:
    keys = pend(place.pipeline, 1)
    place.system.fault("429", "before", headers={"Retry-After": "40"})
    assert place.pipeline.act() == 0
    assert timedelta(seconds=35) < place.tasks()[keys[0]]["wait"] <= timedelta(seconds=40)
    assert place.pipeline.act() == 0
    assert place.system.asked == {("POST", keys[0]): 1}


def test_lines_of_one_order_wait_together_and_orders_apart(place: Place) -> None:
    draws, stops = iter([0.9, 0.5, 0.7]), iter([False, True])
    place.pipeline.draw = lambda: next(draws)
    pend(place.pipeline, 15)
    place.system.fault("500", "before", times=15)
    assert place.pipeline.act(stop=lambda: next(stops)) == 0
    waits: dict[str, set[Any]] = {}
    for task in place.tasks().values():
        waits.setdefault(task["task_group"], set()).add(task["not_before"])
    assert [len(each) for each in waits.values()] == [1, 1, 1]
    assert len(set().union(*waits.values())) == 3


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True), st.floats(0, 10**9))
def test_a_wait_is_a_part_of_a_time_that_doubles_and_has_an_end(
    attempt: int, drawn: float, asked: float
) -> None:
    plain = wait_seconds(attempt, drawn, StorekeepError("no"))
    assert 0 <= plain <= 2.0 ** min(attempt - 1, MOST_ATTEMPTS - 1)
    told = wait_seconds(attempt, drawn, Transient("busy", after_seconds=asked))
    assert min(asked, 3600) <= told <= 3600


def test_what_is_refused_is_not_tried_again(place: Place) -> None:
    keys = pend(place.pipeline, 3)
    place.system.refused.add("sku 0001")
    assert place.pipeline.act() == 3
    assert place.status() == {"executed": 2, "failed": 1}
    assert "is not delivered any more" in place.steps(keys[1])[-1]["reason"]
    assert place.system.asked["POST", keys[1]] == 1
    assert place.pipeline.dead_letters() == []
    assert place.events() == ["OrderReleased", "PurchaseOrderConfirmed"]


def test_what_somebody_cancelled_before_it_was_recorded_is_not_on_order(place: Place) -> None:
    keys = pend(place.pipeline, 1)
    place.system.fault("500", "after")
    place.pipeline.draw = lambda: 0.99
    place.pipeline.act()
    place.system.change(keys[0], cancelled=True)
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx.postpone_tasks({keys[0]: timedelta(0)})
    assert place.pipeline.act() == 1
    assert place.status() == {"failed": 1}
    assert "was cancelled in http before it was recorded" in place.steps(keys[0])[-1]["reason"]


def test_a_compensation_that_never_works_is_left_to_a_person_and_can_be_asked_again(
    place: Place,
) -> None:
    keys = pend(place.pipeline, 2)
    place.pipeline.act()
    place.system.fault("500", "before", sku="sku 0000", times=10**6)
    chosen = Selection(ids=tuple(keys))
    place.pipeline.revert(place.pipeline.plan_revert(chosen), shop.BUYER, "too much")
    place.pipeline.act()
    assert place.status() == {"needs_person": 1, "reverted": 1}
    assert "gave up after" in place.steps(keys[0])[-1]["reason"]
    assert place.tasks() == {}
    place.system.mend()
    place.pipeline.revert(place.pipeline.plan_revert(chosen), shop.BUYER, "again")
    place.pipeline.act()
    assert place.status() == {"reverted": 2}
    assert place.system.objects() == 0
    place.sound()


# Dead letters -------------------------------------------------------------------------------------------


def given_up(place: Place, **fault: Any) -> str:
    """An action that was tried often enough."""
    (key,) = pend(place.pipeline, 1)
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx.add_uses(used(key))
    place.system.fault("500", times=10**6, **fault)
    place.pipeline.act()
    assert place.status() == {"failed": 1}
    return key


def used(key: str) -> Any:
    row = {"decision_id": key, "limit_id": "l", "key": "k", "amount": 600, "used_on": AT.date()}
    return pa.Table.from_pylist([row])


def uses(place: Place) -> int:
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        return len(tx.uses("l", AT.date(), AT.date()).to_pylist())


def released(place: Place) -> list[tuple[str, str]]:
    """What came to nothing, as a backtest reads it from the ledger: which decisions, by which step."""
    pipeline = place.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        found = recall._released(ledger.entries(tx, 1, tx.ledger_head()[0]))
    return [(row["decision_id"], row["step"]) for row in found.to_pylist()]


def test_a_dead_letter_keeps_its_share_until_somebody_says_what_becomes_of_it(
    place: Place,
) -> None:
    key = given_up(place, when="before")
    (letter,) = place.pipeline.dead_letters()
    assert (letter["decision_id"], letter["attempts"]) == (key, MOST_ATTEMPTS)
    assert letter["reason"].startswith("gave up after")
    assert letter["expires_at"] == AT + ledger.EXECUTE_WITHIN
    # It may have been done: so it counts as on its way, and against its limits.
    assert uses(place) == 1
    assert released(place) == []
    assert place.events() == []
    assert place.pipeline.act() == 0
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        assert tx.count_tasks() == 0
    place.sound()


def test_a_dead_letter_is_tried_anew_as_often_as_at_first(place: Place) -> None:
    key = given_up(place, when="before")
    before = place.system.asked["POST", key]
    place.pipeline.retry([key], shop.BUYER, "they say it works")
    place.pipeline.act()
    assert place.system.asked["POST", key] == before + MOST_ATTEMPTS
    place.system.mend()
    place.pipeline.retry([key], shop.BUYER, "now it does")
    assert place.pipeline.act() == 1
    assert place.status() == {"executed": 1}
    steps = place.steps(key)
    assert [each["step"] for each in steps] == [
        *("allow", "failed", "retried", "failed", "retried", "executed")
    ]
    assert (steps[2]["kind"], steps[2]["by"]) == ("dead_letter", shop.BUYER)
    assert steps[4]["reason"] == "now it does"
    assert place.events() == ["PurchaseOrderConfirmed"]
    place.sound()


def test_a_dropped_letter_gives_back_what_it_took(place: Place) -> None:
    key = given_up(place, when="before")
    place.pipeline.drop([key], shop.BUYER, "ordered by telephone")
    assert place.status() == {"dropped": 1}
    assert released(place) == [(key, "dropped")]
    assert uses(place) == 0
    assert place.events() == ["OrderReleased"]
    assert place.tasks() == {}
    assert place.steps(key)[-1]["reason"] == "ordered by telephone"
    for answer in (place.pipeline.drop, place.pipeline.retry):
        with pytest.raises(Refused, match="is no dead letter"):
            answer([key], shop.BUYER, "again")
    place.sound()


def test_a_letter_that_was_done_after_all_is_found_and_not_dropped(place: Place) -> None:
    (key,) = pend(place.pipeline, 1)
    place.system.fault("hang")
    place.system.fault("500", method="GET", times=10**6)
    place.pipeline.act()
    assert "cannot be looked up" in place.pipeline.dead_letters()[0]["reason"]
    with pytest.raises(Transient):
        place.pipeline.drop([key], shop.BUYER, "no use")
    place.system.mend()
    with pytest.raises(Refused, match="was carried out after all, as PO-"):
        place.pipeline.drop([key], shop.BUYER, "no use")
    place.pipeline.retry([key], shop.BUYER, "")
    assert place.pipeline.act() == 1
    assert place.status() == {"executed": 1}
    assert place.system.asked["POST", key] == 1
    place.sound()


# Expiry -------------------------------------------------------------------------------------------------


def test_what_nobody_carried_out_in_time_is_not_carried_out(place: Place) -> None:
    keys = sorted(pend(place.pipeline, 2))
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx.add_uses(used(keys[0]))
    place.clock.now = AT + ledger.EXECUTE_WITHIN - timedelta(microseconds=1)
    assert place.pipeline.expire() == 0
    place.clock.now = AT + ledger.EXECUTE_WITHIN
    assert place.pipeline.act() == 2
    assert place.status() == {"expired": 2}
    assert not place.system.asked
    assert uses(place) == 0
    assert place.events() == ["OrderReleased"]
    assert "the safe default stands" in place.steps(keys[0])[-1]["reason"]
    assert place.pipeline.act() == 0
    place.sound()


@pytest.mark.parametrize("done", [True, False])
def test_what_may_have_been_done_is_looked_up_when_it_expires(done: bool, place: Place) -> None:
    (key,) = pend(place.pipeline, 1)
    place.system.fault("500", "after" if done else "before")
    place.pipeline.draw = lambda: 0.99
    place.pipeline.act()
    place.clock.now = AT + ledger.EXECUTE_WITHIN
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx.postpone_tasks({key: timedelta(0)})
    assert place.pipeline.act() == 1
    assert place.status() == {"executed" if done else "expired": 1}
    assert place.system.asked["POST", key] == 1
    place.sound()


@pytest.mark.parametrize("done", [True, False])
def test_a_dead_letter_expires_and_is_looked_up_then(done: bool, place: Place) -> None:
    (key,) = pend(place.pipeline, 1)
    place.system.fault("500", "after" if done else "before", times=10**6)
    place.system.fault("500", method="GET", times=10**6)
    place.pipeline.act()
    assert place.status() == {"failed": 1}
    place.clock.now = AT + ledger.EXECUTE_WITHIN
    with pytest.raises(Refused, match=r"could be carried out until 2026-03-04T22:00:00"):
        place.pipeline.retry([key], shop.BUYER, "too late")
    # As long as that cannot be looked up it stays what it is, and is looked up again.
    place.pipeline.draw = lambda: 0.5
    assert place.pipeline.act() == 0
    assert place.status() == {"failed": 1}
    place.system.mend()
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx.postpone_tasks({key: timedelta(0)})
    assert place.pipeline.act() == 1
    assert place.status() == {"executed" if done else "expired": 1}
    assert place.pipeline.dead_letters() == []
    place.sound()


def test_a_dead_letter_that_somebody_cancelled_meanwhile_comes_to_nothing(place: Place) -> None:
    key = given_up(place, when="before")
    place.system.mend()
    place.pipeline.adapters["PlacePurchaseOrder"].execute(
        [_order(Task(key, "a", "g", sent(place, key)))], AT
    )
    place.system.change(key, cancelled=True)
    place.clock.now = AT + ledger.EXECUTE_WITHIN
    assert place.pipeline.act() == 1
    assert place.status() == {"failed": 1}
    assert "was cancelled in http" in place.steps(key)[-1]["reason"]
    assert place.pipeline.dead_letters() == []
    assert (uses(place), place.events()) == (0, ["OrderReleased"])
    place.sound()


def sent(place: Place, key: str) -> str:
    """What was to be sent for a decision."""
    return str(place.tasks()[key]["task"])


# Breakers -----------------------------------------------------------------------------------------------


def states(place: Place) -> dict[str, str]:
    return {each["name"]: str(each["state"]) for each in place.pipeline.breakers()}


def wait_for_probe(place: Place) -> None:
    """Let the time pass for which a breaker is open."""
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx._run("UPDATE breaker SET try_at = now() WHERE try_at IS NOT NULL")


def due_now(place: Place) -> None:
    """Let the waits of pending actions pass."""
    with place.pipeline.store.transaction(place.pipeline.tenant) as tx:
        tx._run("UPDATE pending_action SET not_before = now()")


def test_a_system_that_fails_is_left_alone_and_then_tried_with_little(touchy: Place) -> None:
    pend(touchy.pipeline, 10)
    touchy.system.fault("500", "before", times=10**6)
    touchy.pipeline.act()
    assert states(touchy) == {"adapter/http": "open"}
    asked = touchy.system.asked.total()
    attempts = {key: task["attempts"] for key, task in touchy.tasks().items()}
    due_now(touchy)
    assert touchy.pipeline.act() == 0
    assert touchy.system.asked.total() == asked
    assert {key: task["attempts"] for key, task in touchy.tasks().items()} == attempts
    # One is tried; it fails, and all wait again.
    wait_for_probe(touchy)
    assert touchy.pipeline.act() == 0
    sent = {key for key, task in touchy.tasks().items() if task["attempts"] > attempts[key]}
    assert len(sent) == 1
    assert states(touchy) == {"adapter/http": "open"}
    # One is tried; it works, and so do all others.
    touchy.system.mend()
    wait_for_probe(touchy)
    due_now(touchy)
    assert touchy.pipeline.act() == 10
    assert states(touchy) == {"adapter/http": "closed"}
    assert touchy.breaker_entries() == [
        ("adapter/http", was, now)
        for was, now in (
            *(("closed", "open"), ("open", "half_open"), ("half_open", "open")),
            *(("open", "half_open"), ("half_open", "closed")),
        )
    ]
    touchy.sound()


def test_what_one_worker_learned_all_know(touchy: Place) -> None:
    pend(touchy.pipeline, 6)
    touchy.system.fault("500", "before", times=10**6)
    touchy.pipeline.act()
    asked = touchy.system.asked.total()
    due_now(touchy)
    with opened(touchy.home, now=touchy.clock) as other:
        assert other.act() == 0
        assert touchy.system.asked.total() == asked
        wait_for_probe(touchy)
        kind = ("PlacePurchaseOrder", "replenish")
        assert [len(each._lease(kind, 100)) for each in (touchy.pipeline, other)] == [1, 0]
        # Whoever had the probe in hand died: another is sent when its time has passed.
        wait_for_probe(touchy)
        assert len(other._lease(kind, 100)) == 1
    assert touchy.breaker_entries()[-1] == ("adapter/http", "open", "half_open")


def test_no_failure_is_lost_when_workers_tell_of_it_at_once(place: Place) -> None:
    begin = threading.Barrier(4)

    def tell(_: int) -> None:
        with opened(place.home, now=place.clock) as own:
            begin.wait()
            own._hear("adapter/http", None, ["it is down"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tell, range(4)))
    (breaker,) = place.pipeline.breakers()
    assert len(breaker["failed_at"]) == 4


def test_refusals_open_the_breaker_of_the_agent_and_not_of_the_system(touchy: Place) -> None:
    touchy.system.refused |= {"sku 0000", "sku 0001"}
    placed = pend(touchy.pipeline, 1, "DC2")
    touchy.system.refused.clear()
    touchy.pipeline.act()
    touchy.system.refused |= {"sku 0000", "sku 0001"}
    pend(touchy.pipeline, 2)
    touchy.pipeline.act()
    assert states(touchy) == {"agent/replenish": "open"}
    assert "not delivered any more" in touchy.pipeline.breakers()[0]["why"]
    later = pend(touchy.pipeline, 1, "DC3")
    touchy.system.refused.clear()
    asked = touchy.system.asked.total()
    assert touchy.pipeline.act() == 0
    assert touchy.system.asked.total() == asked
    # What is to be taken back is taken back all the same.
    chosen = Selection(ids=tuple(placed))
    touchy.pipeline.revert(touchy.pipeline.plan_revert(chosen), shop.BUYER, "wrong")
    assert touchy.pipeline.act() == 1
    assert touchy.steps(placed[0])[-1]["step"] == "compensated"
    wait_for_probe(touchy)
    assert touchy.pipeline.act() == 1
    assert touchy.steps(later[0])[-1]["step"] == "executed"
    assert states(touchy) == {"agent/replenish": "closed"}
    touchy.sound()


def test_a_person_closes_a_breaker_and_the_ledger_says_who(touchy: Place) -> None:
    pend(touchy.pipeline, 2)
    touchy.system.fault("500", "before", times=2)
    touchy.pipeline.act()
    assert states(touchy) == {"adapter/http": "open"}
    for name in ("agent/replenish", "adapter/none"):
        with pytest.raises(Refused, match=f"no breaker {name} is open"):
            touchy.pipeline.reset_breaker(name, shop.BUYER, "why not")
    touchy.pipeline.reset_breaker("adapter/http", shop.BUYER, "they mended it")
    due_now(touchy)
    assert touchy.pipeline.act() == 2
    said = [each for each in shop.noted(touchy.pipeline, "breaker") if each["to"] == "closed"]
    assert [(each["by"], each["reason"]) for each in said] == [(shop.BUYER, "they mended it")]
    touchy.sound()


def test_a_breaker_that_opens_is_told_to_who_watches(touchy: Place) -> None:
    pend(touchy.pipeline, 2)
    touchy.system.fault("500", "before", times=2)
    with capture_logs() as lines:
        touchy.pipeline.act()
    (told,) = (each for each in lines if each["event"] == "breaker")
    assert told["log_level"] == "warning"
    assert (told["breaker"], told["state"]) == ("adapter/http", "open")


def test_an_agent_goes_on_deciding_while_its_breaker_is_open(home_settings: Settings) -> None:
    with shop.opened_shop(shop.new_tenant(home_settings)) as day:
        day.prepare()
        with day.pipeline.store.transaction(day.pipeline.tenant) as tx:
            at = tx.now()
            tx.set_breaker(
                asdict(Breaker("agent/replenish", State.OPEN, at, "no", (), at + timedelta(1)))
            )
        for step in (day.sell, day.remember, day.decide):
            step(shop.FIRST_DAY)
        assert day.pipeline.act() == 0
        assert day.pending() == 2
        assert {row["status"] for row in day.decisions().values()} >= {"pending", "escalated"}
        day.pipeline.reset_breaker("agent/replenish", shop.BUYER, "it was the terms")
        day.act(shop.FIRST_DAY)
        assert day.pending() == 0


def test_what_expires_at_an_open_breaker_expires(touchy: Place) -> None:
    pend(touchy.pipeline, 2)
    touchy.system.fault("500", "before", times=2)
    touchy.pipeline.act()
    pend(touchy.pipeline, 1, "DC2")
    touchy.clock.now = AT + ledger.EXECUTE_WITHIN
    assert touchy.pipeline.act() == 1
    assert touchy.status() == {"expired": 1, "pending": 2}


TERMS = Thresholds.model_validate({"failures": 3, "within": "60s", "open_for": "30s", "probes": 2})


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=40))
def test_a_breaker_opens_at_so_many_failures_in_a_row_in_time_and_never_else(
    calls: list[tuple[int, bool]],
) -> None:
    breaker, at, row = Breaker("adapter/x"), AT, list[datetime]()
    for seconds, failed in calls:
        at += timedelta(seconds=seconds)
        breaker = breaker.heard(["it is down" if failed else None], at, TERMS)
        row = [*row, at] if failed else []
        row = [time for time in row if time > at - TERMS.within]
        assert (breaker.state == State.OPEN) is (len(row) >= TERMS.failures)
        if breaker.state == State.OPEN:
            assert breaker.allows(at + TERMS.open_for - timedelta(seconds=1), 9, TERMS) == 0
            assert breaker.allows(at + TERMS.open_for, 9, TERMS) == TERMS.probes
            return
        assert breaker.allows(at, 9, TERMS) == 9


@given(st.lists(st.sampled_from([None, "it is down"]), min_size=1, max_size=5))
def test_probes_close_a_breaker_only_if_all_of_them_went_well(said: list[str | None]) -> None:
    opened_ = Breaker("adapter/x").heard(["no"] * 3, AT, TERMS)
    probing = opened_.probed(AT + TERMS.open_for, TERMS)
    assert probing.state == State.HALF_OPEN
    assert probing.heard([], AT, TERMS) == probing
    assert opened_.heard(said, AT, TERMS) == opened_
    after = probing.heard(said, AT + TERMS.open_for, TERMS)
    assert after.state == (State.OPEN if any(said) else State.CLOSED)


# Workers ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_slow_call_keeps_its_lease(place: Place) -> None:
    """Nobody else takes over what takes longer than a lease."""
    keys = pend(place.pipeline, 5)
    place.pipeline.lease = timedelta(seconds=2)
    place.system.pause_seconds = 5
    done = threading.Event()
    taken: list[str] = []

    def other() -> None:
        with opened(place.home, now=place.clock) as own:
            while not place.system.asked:
                done.wait(0.01)
            while not done.wait(0.1):
                with own.store.transaction(own.tenant) as tx:
                    tasks = tx.lease_tasks("other", 9, timedelta(0))
                taken.extend(task.decision_id for task in tasks)

    thread = threading.Thread(target=other)
    thread.start()
    patient = Setting(url=place.system.url, timeout_seconds=30)
    with closing(HttpOrders(patient)) as adapter:
        place.pipeline.adapters = {"PlacePurchaseOrder": adapter}
        assert place.pipeline.act() == 5
    done.set()
    thread.join()
    assert taken == []
    assert place.system.asked == {("POST", key): 1 for key in keys}


def test_a_worker_acts_until_it_is_told_to_stop(place: Place) -> None:
    pend(place.pipeline, 3)
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return 7 in waits

    worker = Worker(lambda: nullcontext(place.pipeline), None, wait, 7, UTC, pytest.fail)
    worker.work()
    assert +worker.done == {"acted": 3}
    # After a turn that found something it waits for no more than what is left of a tenth of a second.
    assert max(each for each in waits if each != 7) <= 0.1
    assert [each for each in waits if each][-1] == 7
    assert place.status() == {"executed": 3}
