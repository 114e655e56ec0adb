"""A rulebook tried on what it decided itself turns nothing: the truth test of the backtest of drafts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from storekeep import ledger
from storekeep.backtest import try_draft
from storekeep.config import Settings
from storekeep.decisions import Selection
from tests.rulebooks import book, limit, rule
from tests.shop import BUYER, FIRST_DAY, LOCATION, Shop, moment, new_tenant, opened_shop, sales

UTC = ZoneInfo("UTC")
DAYS = 15


def random_book(chance: random.Random) -> dict[str, Any]:
    """A rulebook that clips, asks, and runs out of everything that decisions can share."""

    def purse(id_: str, most: int, **more: Any) -> dict[str, Any]:
        asks = {"then": "escalate", "role": "buyer"} if chance.random() < 0.6 else {}
        return limit(id=id_, at_most=chance.randint(most // 4, most), **asks, **more)

    return book(
        permit=[rule("ordinary", "order_units > 0")],
        escalate=[
            rule("large", f"order_value_minor > {chance.randint(500, 60_000)}", role="buyer")
        ],
        clip=[rule("few", "order_units > 30", set={"order_units": chance.choice((12, 24, 30))})],
        forbid=[rule("lamp", f"days_since_sale > {chance.choice((60, 90))}")],
        limits=[
            purse("supplier-week", 12_000, per="week"),
            purse("shop-week", 16_000, per="week", by=["location_id"]),
            purse("shop-day", 9_000, per="day", by=["location_id"]),
            purse("lines-day", 5, per="day", by=[], sum=1),
            purse("run", 60_000, per="batch", by=["supplier_id"]),
        ],
        sla={"approve_within": "20h"},
    )


def answered(shop: Shop, day: date, chance: random.Random) -> None:
    """The buyer agrees to some of what waits, turns some down, and leaves the rest until it lapses."""
    shop.clock.now = moment(day, 22, 30)
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        waiting = sorted(row["decision_id"] for row in tx.approvals())
    for each in waiting:
        answer = chance.choice(("approve", "reject", "wait"))
        if answer == "approve":
            shop.pipeline.approve([each], BUYER)
        elif answer == "reject":
            shop.pipeline.reject([each], BUYER, "not today")


def again(shop: Shop, day: date) -> None:
    """A late till makes the agent look a second time on the same day, after the buyer has answered."""
    shop.clock.now = moment(day, 22, 40)
    late = sales(day, day)
    keys = [f"late/{key}" for key in late["line_key"].to_pylist()]
    late = late.set_column(0, late.schema.field(0), [keys])
    shop.pipeline.take_in(late, "late tills", LOCATION)
    shop.pipeline.move_stock()
    shop.pipeline.decide(LOCATION)


def play(shop: Shop, first: date, days: int, chance: random.Random) -> None:
    for number in range(days):
        day = first + timedelta(days=number)
        for step in (shop.deliver, shop.sell, shop.remember, shop.decide):
            step(day)
        answered(shop, day, chance)
        if chance.random() < 0.6:
            again(shop, day)
        if chance.random() < 0.8:
            shop.act(day)
        if chance.random() < 0.4:
            shop.clock.now = moment(day, 23, 20)
            some = Selection(status=chance.choice(("executed", "escalated", "pending")), limit=2)
            shop.pipeline.revert(shop.pipeline.plan_revert(some), BUYER, "changed our mind")
            shop.act(day)


def periods(first: date, days: int) -> Iterator[tuple[date, date]]:
    """The whole, and parts that begin and end within a week."""
    yield first, first + timedelta(days=days)
    for begin, many in ((1, 3), (5, 4), (8, 1), (9, 5)):
        yield first + timedelta(days=begin), first + timedelta(days=begin + many)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_a_rulebook_tried_on_what_it_decided_itself_turns_nothing(
    seed: int, home_settings: Settings, tmp_path: Path
) -> None:
    chance = random.Random(seed)  # noqa: S311  # chooses what the buyer does, guards nothing
    with opened_shop(new_tenant(home_settings)) as shop:
        shop.prepare()
        values = random_book(chance)
        own = shop.promote(values, tmp_path)
        play(shop, FIRST_DAY, DAYS, chance)
        for first, last in periods(FIRST_DAY, DAYS):
            report = try_draft(shop.pipeline, own, first, last, UTC)
            assert report["flips"] == 0, (first, last, report["by_rule"])
            assert report["same_verdict_other_money"] == []
            assert set(report["recorded_versions"]) == {own.version}
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            spoke = {row["rule"] for row in ledger.count_rules(tx)}
        assert spoke & {each["id"] for each in values["limits"]}
