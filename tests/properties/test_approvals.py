"""What persons may bring about: whatever they approve, change or reject, in whatever order, as whoever.

A forbid never ends as an action, nothing above the amount for two persons is done by one, and a quantity that
a person changed is never outside of what the rule allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.errors import Refused
from storekeep.pipeline import Pipeline
from tests import orders, shop

SMALL, GREAT, MOST = 5_000, 10_000, 120
BOOK = f"""
rulebook: replenish
owner: buying
agent: replenish
action: PlacePurchaseOrder
safe_default: Order nothing.
roles: [buyer, head]
permit:
  - {{id: any-order, when: order_units > 0, reason: An order.}}
forbid:
  - {{id: broken-pack, when: order_units % pack_size_units <> 0, reason: Not in whole packs.}}
  - {{id: too-many, when: order_units > {MOST}, reason: Too many.}}
escalate:
  - id: large
    when: order_value_minor > {SMALL}
    role: buyer
    reason: Large.
    change: {{order_units: {{at_least: pack_size_units, at_most: 1.5 * order_units}}}}
  - id: great
    when: order_value_minor > {GREAT}
    role: head
    persons: 2
    reason: Great.
limits:
  - id: supplier-day
    sum: order_value_minor
    by: [supplier_id]
    at_most: 100000000
    per: day
    then: forbid
    reason: "{{total}} is too much."
"""
DEAR = BOOK.replace("forbid:\n", "forbid:\n  - {id: stopped, when: true, reason: Stopped.}\n", 1)
ROLES = {
    "ann": ("buyer",),
    "bob": ("buyer",),
    "hal": ("head",),
    "ida": ("head", "clerk"),
    "cy": ("clerk",),
    # A name is not enough: agents do not approve.
    "agent:replenish": ("head",),
}
PEOPLE = (*ROLES, "eve")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def office(home_settings: Settings) -> Iterator[shop.Shop]:
    with shop.opened_shop(shop.new_tenant(home_settings)) as opened:
        opened.clock.now = orders.AT
        opened.pipeline.principals = ROLES
        orders.publish(opened.pipeline, BOOK)
        yield opened


@dataclass
class Line:
    """One line that waits for a person, and what became of it."""

    pipeline: Pipeline
    key: str
    sku: str
    units: int

    @property
    def status(self) -> str:
        return orders.statuses(self.pipeline, [self.key])[self.key]

    @property
    def history(self) -> list[dict[str, Any]]:
        return orders.steps(self.pipeline, [self.key])[self.key]

    def placed(self) -> int | None:
        """The units that the back office has on order of it."""
        found = self.pipeline.adapters["PlacePurchaseOrder"].find([self.key])
        return int(found[self.key].details["ordered_units"]) if found else None

    def used(self) -> int:
        """What it takes from the limit."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            every, others = (
                sum(tx.uses("supplier-day", orders.DAY, orders.DAY, without)["amount"].to_pylist())
                for without in ([], [self.key])
            )
        return int(every - others)


def waiting(office: shop.Shop, units: int) -> Line:
    """A line of an item, and an order, of its own."""
    number = next(NUMBERS) * 10
    orders.count_shelves(office.pipeline, [f"sku{number:05}"])
    (key,) = orders.recorded(
        office.pipeline,
        [orders.order(number, units)],
        book=BOOK.replace("{", "{{").replace("}", "}}"),
    )
    return Line(office.pipeline, key, f"sku{number:05}", units)


def people() -> st.SearchStrategy[str]:
    return st.sampled_from(PEOPLE)


WORDS = st.one_of(
    st.tuples(st.just("approve"), people()),
    st.tuples(st.just("reject"), people()),
    st.tuples(st.just("change"), people(), st.integers(-2, 30).map(lambda packs: packs * 6)),
    st.tuples(st.just("change"), people(), st.integers(1, 200)),
    st.tuples(st.just("stop")),
)


def say(line: Line, word: tuple[Any, ...]) -> None:
    """One word of one person; what is refused changes nothing."""
    before = len(line.history)
    try:
        if word[0] == "approve":
            line.pipeline.approve([line.key], word[1])
        elif word[0] == "reject":
            line.pipeline.reject([line.key], word[1], "no")
        elif word[0] == "change":
            line.pipeline.change(line.key, word[1], {"order_units": word[2]}, "so many")
        else:
            orders.publish(line.pipeline, DEAR)
    except Refused:
        assert len(line.history) == before


def check(line: Line, *, stopped: bool) -> None:
    history, placed, status = line.history, line.placed(), line.status
    changed = [each for each in history if "after" in each]
    units = changed[-1]["after"]["order_units"] if changed else line.units
    stands = units if status in ("escalated", "pending", "executed") else 0
    position = orders.stock(line.pipeline)[line.sku]
    assert position["on_order_units"] == (units if status == "executed" else 0)
    assert position["committed_units"] == (stands if status != "executed" else 0)
    assert line.used() == stands * orders.COST
    with line.pipeline.store.transaction(line.pipeline.tenant) as tx:
        (row,) = tx.decisions(Selection(ids=(line.key,)))
    assert row["money_minor"] == units * orders.COST
    assert (placed is not None) == (status == "executed")
    for each in changed:
        assert orders.PACK <= each["after"]["order_units"] <= 1.5 * line.units
        assert each["by"] in ROLES
    if placed is None:
        return
    assert placed == units
    assert placed <= MOST
    assert placed % orders.PACK == 0
    assert not stopped
    since = history[history.index(changed[-1]) if changed else 1 :]
    agreed = {each["by"] for each in since if each["step"] in ("agreed", "approved")}
    asked = {changed[-1]["by"]} if changed else set()
    involved = agreed | asked
    assert not any(each.startswith("agent:") or each == "eve" for each in involved)
    if units * orders.COST > GREAT:
        heads = {each for each in involved if "head" in ROLES[each]}
        assert len(heads) >= 2
        assert agreed - asked
    elif units * orders.COST > SMALL:
        assert agreed - asked, "whoever asked for a change let it through alone"
    else:
        # Only a change can have brought it below what a person is asked about.
        assert asked
    assert "cy" not in involved


@given(units=st.integers(9, 20).map(lambda packs: packs * 6), words=st.lists(WORDS, max_size=6))
@example(units=108, words=[("approve", "hal"), ("approve", "hal"), ("approve", "ida")])
@example(units=108, words=[("approve", "ann"), ("approve", "hal"), ("approve", "bob")])
@example(units=72, words=[("change", "ann", 102), ("approve", "hal"), ("approve", "ida")])
@example(units=72, words=[("change", "hal", 102), ("approve", "hal"), ("approve", "ida")])
@example(units=60, words=[("change", "ann", 48)])
@example(units=60, words=[("change", "ann", 66), ("approve", "ann"), ("approve", "bob")])
@example(units=60, words=[("change", "ann", 90), ("change", "bob", 120), ("approve", "ann")])
@example(units=60, words=[("stop",), ("approve", "ann")])
@example(units=60, words=[("change", "cy", 48), ("approve", "agent:replenish"), ("approve", "eve")])
@settings(max_examples=25)
def test_whatever_persons_say(office: shop.Shop, units: int, words: list[tuple[Any, ...]]) -> None:
    orders.publish(office.pipeline, BOOK)
    line = waiting(office, units)
    stopped = False
    for word in words:
        was = line.status
        say(line, word)
        stopped = stopped or (word[0] == "stop" and was == "escalated")
    office.pipeline.act()
    check(line, stopped=stopped)


def test_it_holds_in_the_ledger_too(office: shop.Shop) -> None:
    """Every state that was reached is the fold of what was recorded."""
    line = waiting(office, 60)
    with suppress(Refused):
        line.pipeline.change(line.key, "ann", {"order_units": 48}, "fewer")
    office.pipeline.act()
    with office.pipeline.store.transaction(office.pipeline.tenant) as tx:
        before = {row["decision_id"]: row for row in tx.decisions(Selection())}
    office.pipeline.rebuild_decisions()
    with office.pipeline.store.transaction(office.pipeline.tenant) as tx:
        assert {row["decision_id"]: row for row in tx.decisions(Selection())} == before
    assert office.pipeline.verify().ok
    office.pipeline.keep_history()
    live = orders.stock(office.pipeline)
    office.pipeline.rebuild_stock()
    assert orders.stock(office.pipeline) == live
    assert office.history()["order_move"][0] == office.history()["order_move"][1]
