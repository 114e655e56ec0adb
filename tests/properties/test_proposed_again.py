"""Lines of an order taken back and proposed again, whichever, however often, together or one by one.

Who proposes again is judged by what the whole order comes to then: what is proposed, and the lines of it that
wait or stand. The same order, split into many reverts and proposals, never gets by where the whole one asks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storekeep import features, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.backtest.drafts import try_draft
from storekeep.config import Settings
from storekeep.decisions import Selection
from tests import orders, shop

MOST = 5_000
BOOK = f"""
rulebook: replenish
owner: buying
agent: replenish
action: PlacePurchaseOrder
safe_default: Order nothing.
permit:
  - {{id: any-order, when: order_units > 0, reason: An order.}}
escalate:
  - {{id: large, when: group_value_minor > {MOST}, role: buyer, reason: "It comes to {{group_value_minor}}."}}
"""
COUNTED = ("escalated", "pending", "executed", "reverting", "needs_person")
LINES = 4
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def office(home_settings: Settings) -> Iterator[shop.Shop]:
    with shop.opened_shop(shop.new_tenant(home_settings)) as opened:
        opened.prepare()
        opened.remember(shop.FIRST_DAY)
        opened.clock.now = orders.AT
        orders.publish(opened.pipeline, BOOK)
        yield opened


@dataclass
class Order:
    """One order of some lines: what each is worth, and the decision that each stands by now."""

    office: shop.Shop
    worth: list[int]
    now: list[str] = field(default_factory=list)

    def place(self, lines: list[dict[str, object]]) -> None:
        book = BOOK.replace("{", "{{").replace("}", "}}")
        self.now = orders.recorded(self.office.pipeline, lines, book=book)

    @property
    def states(self) -> list[str]:
        found = orders.statuses(self.office.pipeline, self.now)
        return [found[key] for key in self.now]

    def take_back(self, chosen: set[int]) -> None:
        pipeline = self.office.pipeline
        ids = tuple(self.now[line] for line in chosen)
        pipeline.revert(pipeline.plan_revert(Selection(ids=ids)), "ann", "a slip")

    def propose_again(self, chosen: set[int]) -> None:
        """Propose again, and hold every verdict against the sum of the lines, added up here."""
        pipeline, before = self.office.pipeline, self.states
        asked = {line for line in chosen if before[line] == "reverted"}
        counted = {line for line, state in enumerate(before) if state in COUNTED}
        value = sum(self.worth[line] for line in asked | counted)
        ids = [self.now[line] for line in sorted(chosen)]
        runs = pipeline.undo(pipeline.plan_undo(ids), "bob", "after all")
        assert len(runs) == (1 if asked else 0)
        with pipeline.store.transaction(pipeline.tenant) as tx:
            again = tx.proposed_again(ids)
            made = {row["decision_id"]: row for row in tx.decisions(Selection())}
        for line in asked:
            self.now[line] = again[self.now[line]]
            (first, *_) = orders.steps(pipeline, [self.now[line]])[self.now[line]]
            assert first["group_value_minor"] == value
            wanted = "escalate" if value > MOST else "allow"
            assert made[self.now[line]]["verdict"] == wanted
            assert pipeline.replay(self.now[line])["run_identical"]

    def answer(self, chosen: set[int], word: str) -> None:
        pipeline, states = self.office.pipeline, self.states
        for line in chosen:
            if states[line] != "escalated":
                continue
            if word == "reject":
                pipeline.reject([self.now[line]], "cleo", "no")
            else:
                pipeline.approve([self.now[line]], "cleo")

    def judged_again(self) -> None:
        """What is shown of a request that waits speaks of the whole order too."""
        states = self.states
        waits = [key for key, state in zip(self.now, states, strict=True) if state == "escalated"]
        value = sum(
            worth for worth, state in zip(self.worth, states, strict=True) if state in COUNTED
        )
        for told in self.office.pipeline.outlook(waits):
            large = [each["reason"] for each in told["now"]["rules"] if each["rule"] == "large"]
            assert large == ([f"It comes to {value}."] if value > MOST else [])


def placed(office: shop.Shop, packs: list[int], *, twice: bool = False) -> list[Order]:
    """An order of so many packs a line; or two of one name, which are two."""
    first = next(NUMBERS) * 10
    lines = [
        orders.order(first, 6 * many, sku=sku) for sku, many in zip(shop.SKUS, packs, strict=False)
    ]
    found = []
    for _ in range(2 if twice else 1):
        one = Order(office, [line["order_value_minor"] for line in lines])
        one.place(lines)
        found.append(one)
    return found


CHOSEN = st.sets(st.integers(0, LINES - 1), min_size=1)
STEPS = st.tuples(st.sampled_from(["back", "again", "approve", "reject", "act"]), CHOSEN)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=LINES, max_size=LINES), st.lists(STEPS, max_size=8))
@example([4, 4, 2, 1], [("approve", {0, 1, 2}), ("act", {0}), ("back", {0}), ("again", {0})])
@example([4, 4, 2, 1], [("back", {0, 1, 2, 3}), ("again", {0}), ("again", {1}), ("again", {2, 3})])
def test_a_line_proposed_again_is_judged_by_its_whole_order(
    office: shop.Shop, packs: list[int], steps: list[tuple[str, set[int]]]
) -> None:
    (order,) = placed(office, packs)
    for what, chosen in steps:
        office.clock.now += timedelta(seconds=1)
        if what == "back":
            order.take_back(chosen)
        elif what == "again":
            order.propose_again(chosen)
        elif what == "act":
            office.pipeline.act()
        else:
            order.answer(chosen, what)
        order.judged_again()


def test_two_orders_of_one_name_are_two(office: shop.Shop) -> None:
    """Those of two runs of a day: each comes to what its own lines do."""
    one, other = placed(office, [4, 3, 1, 1], twice=True)
    for order in (one, other):
        order.take_back({0, 1, 2})
        office.clock.now += timedelta(seconds=1)
        order.propose_again({0})
        order.propose_again({1, 2})


def test_a_draft_that_says_the_same_turns_nothing(office: shop.Shop) -> None:
    """What was proposed again is tried on a draft by what its whole order came to then."""
    (order,) = placed(office, [4, 4, 2, 1])
    order.answer({0, 1, 2, 3}, "approve")
    order.take_back({0})
    office.clock.now += timedelta(seconds=1)
    order.propose_again({0})
    draft = policy.load(BOOK, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
    day = office.clock.now.date()
    report = try_draft(office.pipeline, draft, day, day, ZoneInfo("UTC"))
    assert report["decisions"] > LINES
    assert report["flips"] == 0
