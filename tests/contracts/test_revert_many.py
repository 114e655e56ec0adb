"""A revert of many decisions in three systems, one of which fails half-way, ends in the truth about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import psycopg
import pytest

from storekeep import servers
from storekeep.actions import PLACE_PURCHASE_ORDER, BackOffice
from storekeep.config import Settings
from storekeep.decisions import Receipt, Selection
from storekeep.ledger import Step
from storekeep.pipeline import Pipeline
from tests import orders, shop
from tests.contracts.cable import Cable

ACTIONS = {
    name: replace(PLACE_PURCHASE_ORDER, name=name)
    for name in ("OrderFromNorth", "OrderFromEast", "OrderFromWest")
}
NORTH, EAST, WEST = ACTIONS
ARRIVED, CHANGED, WAITING = 5, 2, 3


class HalfWay(BackOffice):
    """A system that is told to cancel, does so, and is gone before it can say so; and stays away."""

    def __init__(self, cable: Cable, tenant: str, after: int) -> None:
        super().__init__(cable.conninfo, tenant)
        self.cable = cable
        self.left = after

    def compensate(self, receipts: Sequence[Receipt], at: datetime) -> Sequence[Receipt | str]:
        """The call after the last one that is answered is carried out, and its answer lost."""
        if self.left == 0:
            self.cable.cut_at_commit("after it was done")
        elif self.left < 0:
            self.cable.pull()
        self.left -= 1
        return super().compensate(receipts, at)


@dataclass
class Trade:
    """A tenant that orders in three systems."""

    pipeline: Pipeline
    systems: Mapping[str, BackOffice]
    plain: Mapping[str, BackOffice]
    ids: Mapping[str, list[str]]

    @property
    def all(self) -> list[str]:
        """Every decision."""
        return [key for keys in self.ids.values() for key in keys]

    def plan(self) -> list[Step]:
        """What a revert of all that was ordered for the location would do."""
        return self.pipeline.plan_revert(Selection(location_id=orders.LOCATION))

    def cancelled(self) -> set[str]:
        """What is cancelled in the systems, whatever we know of it."""
        return {
            key
            for name, keys in self.ids.items()
            for key, receipt in self.plain[name].find(keys).items()
            if receipt.details["cancelled"]
        }


@pytest.fixture
def cable(home_settings: Settings) -> Iterator[Cable]:
    with servers.lease(home_settings) as database, Cable(database.conninfo) as one:
        yield one


@contextmanager
def traded(settings: Settings, cable: Cable, many: int) -> Iterator[Trade]:
    """Orders are placed in all three systems, a few only wait; some goods arrive, somebody changes a line."""
    with (
        ExitStack() as stack,
        servers.lease(settings) as database,
        shop.opened_shop(shop.new_tenant(settings)) as opened,
    ):
        pipeline = opened.pipeline
        # One way to each system that nobody cuts, and to the eastern one the way that Storekeep has.
        plain = {
            name: stack.enter_context(
                closing(BackOffice(database.conninfo, f"{pipeline.tenant}_{name.lower()}"))
            )
            for name in ACTIONS
        }
        weak = HalfWay(cable, f"{pipeline.tenant}_{EAST.lower()}", after=1)
        stack.enter_context(closing(weak))
        # Three systems have three breakers.
        for name, system in (*plain.items(), (EAST, weak)):
            system.name = name
        yield _traded(Trade(pipeline, {**plain, EAST: weak}, plain, {}), database.conninfo, many)


def _traded(trade: Trade, conninfo: str, many: int) -> Trade:
    pipeline = trade.pipeline
    pipeline.adapters, pipeline.actions = trade.systems, {**pipeline.actions, **ACTIONS}
    lines = [orders.order(number) for number in range(3 * many + WAITING)]
    orders.count_shelves(pipeline, [line["sku"] for line in lines])
    ids = {
        name: orders.recorded(
            pipeline, lines[place * many : (place + 1) * many], action=ACTIONS[name]
        )
        for place, name in enumerate(ACTIONS)
    }
    pipeline.act()
    trade.plain[WEST].receive(ids[WEST][:ARRIVED])
    with psycopg.connect(conninfo) as connection:
        connection.execute(
            "UPDATE back_office.purchase_order_line SET ordered_units = ordered_units + 1"
            " WHERE idempotency_key = ANY(%s)",
            (ids[NORTH][:CHANGED],),
        )
    ids[EAST] += orders.recorded(pipeline, lines[3 * many :], action=ACTIONS[EAST])
    return replace(trade, ids=ids)


def check_truth(trade: Trade, expected: Mapping[str, int]) -> None:
    """Each decision stands where it says, and the ledger and stock agree."""
    pipeline = trade.pipeline
    states = orders.statuses(pipeline, trade.all)
    assert Counter(states.values()) == expected
    cancelled = trade.cancelled()
    histories = orders.steps(pipeline, trade.all)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx._run(
            "SELECT decision_id::text AS key FROM pending_action WHERE tenant = %s", (tx.tenant,)
        )
    pending = {row["key"] for row in rows}
    for key, status in states.items():
        taken = [each["step"] for each in histories[key]]
        if status == "reverted":
            assert taken[-1] == "withdrawn" or key in cancelled
        elif status == "reverting":
            # Still to be done, by a pending action; whether the system did it already nobody knows yet.
            assert key in pending
        elif status == "needs_person":
            assert key not in cancelled
            assert histories[key][-1]["reason"]
        assert max(Counter(taken).values()) == 1, taken
    assert pipeline.rebuild_decisions() == states
    assert pipeline.verify().ok
    by_sku = orders.stock(pipeline)
    for key, status in states.items():
        position = by_sku[histories[key][0]["parameters"]["sku"]]
        ordered = 0 if status == "reverted" else orders.PACK
        assert (position["on_order_units"], position["committed_units"]) == (ordered, 0)


def revert_all(trade: Trade, many: int) -> None:
    """Take all back, with a system that fails half-way; then again, and again."""
    pipeline = trade.pipeline
    alone = ARRIVED + CHANGED
    # Many enough calls that one can be half-way.
    at_once = many // 4
    plan = trade.plan()
    assert Counter(step.what for step in plan) == {
        "compensate": 3 * many - alone,
        "person": alone,
        "withdraw": WAITING,
    }
    assert pipeline.revert(plan, "bea", "a bad forecast") == 3 * many + WAITING
    pipeline.act(limit=at_once)
    done = trade.cancelled()
    east = set(trade.ids[EAST])
    answered = [
        key for key, now in orders.statuses(pipeline, trade.ids[EAST]).items() if now == "reverted"
    ]
    left = many - (len(answered) - WAITING)
    assert 0 < left < many
    assert left > len(east - done - set(answered)), "some were cancelled without an answer"
    check_truth(
        trade,
        {"reverted": 3 * many + WAITING - alone - left, "reverting": left, "needs_person": alone},
    )

    # It is still away: asked again, nothing is lost and nothing repeated.
    before = orders.steps(pipeline, trade.all)
    plan = trade.plan()
    told = Counter(step.what for step in plan)
    assert told == {"finish": left, "person": alone, "nothing": 3 * many + WAITING - alone - left}
    assert pipeline.revert(plan, "bea", "again") == 0
    pipeline.act(limit=at_once)
    assert orders.steps(pipeline, trade.all) == before

    # It is back: the same command finishes the rest.
    pipeline.adapters = trade.plain
    for each in pipeline.breakers():
        if each["state"] == "open":
            pipeline.reset_breaker(each["name"], "bea", "they say it works")
    assert pipeline.revert(trade.plan(), "bea", "again") == 0
    pipeline.act()
    check_truth(trade, {"reverted": 3 * many + WAITING - alone, "needs_person": alone})
    with pipeline.store.transaction(pipeline.tenant) as tx:
        head = tx.ledger_head()
    assert pipeline.revert(trade.plan(), "bea", "once more") == 0
    pipeline.act()
    with pipeline.store.transaction(pipeline.tenant) as tx:
        assert tx.ledger_head() == head


def test_a_system_that_fails_half_way(home_settings: Settings, cable: Cable) -> None:
    with traded(home_settings, cable, 100) as trade:
        revert_all(trade, 100)


@pytest.mark.slow
def test_a_system_that_fails_half_way_through_ten_thousand(
    home_settings: Settings, cable: Cable
) -> None:
    with traded(home_settings, cable, 3333) as trade:
        trade.pipeline.lease = timedelta(minutes=5)
        revert_all(trade, 3333)


def test_a_system_that_is_away_does_not_keep_the_others_from_being_taken_back(
    home_settings: Settings, cable: Cable
) -> None:
    many, alone = 20, ARRIVED + CHANGED
    with traded(home_settings, cable, many) as trade:
        pipeline = trade.pipeline
        cable.pull()
        assert Counter(step.what for step in trade.plan()) == {
            "compensate": 2 * many - alone,
            "person": alone,
            "later": many,
            "withdraw": WAITING,
        }
        assert pipeline.revert(trade.plan(), "bea", "a bad forecast") == 2 * many + WAITING
        pipeline.act()
        check_truth(
            trade,
            {"reverted": 2 * many - alone + WAITING, "needs_person": alone, "executed": many},
        )
