"""A rulebook's version that does badly by its own conditions: its key figures, and what is gone back to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from storekeep import policy
from storekeep.cli.program import program
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.errors import Refused
from storekeep.policy.rulebook import FIGURES
from tests.rulebooks import book, loaded, rule
from tests.shop import (
    BUYER,
    FIRST_DAY,
    LOCATION,
    Shop,
    new_tenant,
    noted,
    of_tenant,
    opened_shop,
)

GOOD = book(permit=[rule("ordinary", "order_units > 0")])
BAD = book(
    permit=[rule("ordinary", "order_units > 0")],
    forbid=[rule("all", "true")],
    rollback=[
        {**rule("denies", "denied_share > 0.5"), "reason": "It denies most.", "decisions": 3}
    ],
)

# Key figures -----------------------------------------------------------------------------------------


def row(
    verdict: str, status: str, many: int, money: int = 0, currency: str = "USD"
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "status": status,
        "currency": currency,
        "many": many,
        "money_minor": money,
    }


def test_what_each_key_figure_is_counted_from() -> None:
    rows = [
        row("allow", "executed", 4, 400),
        row("allow", "pending", 2, 200),
        row("clip", "failed", 1, 50),
        row("escalate", "escalated", 2, 900),
        row("escalate", "rejected", 3, 300),
        row("escalate", "expired", 1, 100),
        row("escalate", "executed", 1, 70),
        row("allow", "reverted", 2, 20),
        row("deny", "denied", 2, 10),
        {**row("hold", "held", 2), "currency": None, "money_minor": 0},
    ]
    found = policy.key_figures(rows, 2.5, 0.25)
    assert found == {
        "decisions": 20,
        "days": 2.5,
        "allowed_share": 8 / 20,
        "clipped_share": 1 / 20,
        "escalated_share": 7 / 20,
        "denied_share": 2 / 20,
        "held_share": 2 / 20,
        "rejected_share": 3 / 5,
        "unanswered_share": 1 / 5,
        "failed_share": 1 / 8,
        "reverted_share": 2 / 8,
        "committed_minor": 670,
        "out_of_stock_share": 0.25,
    }
    assert found.keys() == FIGURES.keys()
    two = [*rows, row("allow", "executed", 1, 5, "EUR")]
    assert policy.key_figures(two, 2.5, None)["committed_minor"] is None


def test_of_nothing_nothing_is_known() -> None:
    found = policy.key_figures([], 0.0, None)
    assert {name for name, value in found.items() if value is not None} == {
        "decisions", "days", "committed_minor",
    }  # fmt: skip


@given(
    st.floats(0, 1) | st.none(),
    st.integers(0, 300),
    st.integers(1, 300),
    st.permutations(["first", "second"]),
)
def test_a_condition_counts_from_its_decisions_on_and_only_where_it_is_told(
    share: float | None, decisions: int, least: int, names: list[str]
) -> None:
    conditions = {
        "first": {**rule("first", "rejected_share > 0.5"), "decisions": least},
        "second": rule("second", "NOT (rejected_share > 0.5)"),
    }
    checked = loaded(book(rollback=[conditions[name] for name in names])).checked
    figures = {
        **dict.fromkeys(FIGURES, 0.0),
        "rejected_share": share,
        "decisions": float(decisions),
    }
    expected = []
    if share is not None and share > 0.5 and decisions >= least:
        expected.append("first")
    if share is not None and share <= 0.5 and decisions >= 100:
        expected.append("second")
    assert [each.id for each in policy.reached(checked, figures)] == expected


# In a shop -------------------------------------------------------------------------------------------


@pytest.fixture
def shop(home_settings: Settings) -> Iterator[Shop]:
    """A shop on the evening of its first day: the tills have rung, nobody has decided."""
    with opened_shop(new_tenant(home_settings)) as found:
        found.prepare()
        for _, step in found.day_steps(FIRST_DAY)[:3]:
            step()
        yield found


def promote(shop: Shop, folder: Path, values: dict[str, Any], minutes: int = 1) -> str:
    shop.clock.now += timedelta(minutes=minutes)
    return shop.promote(values, folder).version


def promoted(shop: Shop) -> list[tuple[str, str]]:
    """Which versions were put in force and by whom, the oldest first."""
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        rows = tx.promotions("rulebook", "replenish")
    return [(each["version"], each["promoted_by"]) for each in reversed(rows)]


def halted(shop: Shop) -> str | None:
    """Why the agent is stopped, if it is."""
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        stop = tx.halts().get("replenish")
    return None if stop is None else str(stop["reason"])


def sold_again(shop: Shop, day: int) -> None:
    """Another day's tills, so that the agent has something to hear."""
    for step in (shop.sell, shop.remember):
        step(FIRST_DAY + timedelta(days=day))


def test_a_version_that_does_badly_gives_way_to_the_one_before(shop: Shop, tmp_path: Path) -> None:
    good, bad = promote(shop, tmp_path, GOOD), promote(shop, tmp_path, BAD)
    (run,) = shop.pipeline.dispatch().values()
    assert run.verdicts["deny"] >= 3
    assert promoted(shop) == [(good, BUYER), (bad, BUYER), (good, "storekeep")]
    entry = noted(shop.pipeline, "promotion")[-1]
    assert (entry["by"], entry["version"], entry["takes_back"]) == ("storekeep", good, bad)
    assert entry["reason"] == f"version {bad[:12]} was taken back (denies: It denies most.)"
    assert entry["figures"]["denied_share"] > 0.5
    assert entry["figures"]["decisions"] == sum(run.verdicts.values())
    assert halted(shop) is None
    # From here on the earlier version judges, and its figures begin anew.
    assert shop.pipeline.roll_back() == []
    assert shop.pipeline.measure("replenish").figures["decisions"] == 0
    sold_again(shop, 1)
    (run,) = shop.pipeline.dispatch().values()
    assert run.verdicts["allow"] > 0
    assert len(promoted(shop)) == 3
    assert shop.pipeline.verify().ok


def test_the_command_shows_versions_figures_and_conditions(shop: Shop, tmp_path: Path) -> None:
    good, bad = promote(shop, tmp_path, GOOD), promote(shop, tmp_path, BAD)
    pipeline = shop.pipeline
    home = str(pipeline.lake._root.parents[1])
    words = ["policy", "history", "--home", home, "--tenant", pipeline.tenant]
    told = json.loads(CliRunner().invoke(program, [*words, "--json"]).stdout)
    assert [each["version"] for each in told["promotions"]] == [bad, good]
    assert told["figures"].keys() == FIGURES.keys()
    assert [(each["id"], each["decisions"], each["holds"]) for each in told["rollback"]] == [
        ("denies", 3, False)
    ]
    pipeline.dispatch()
    text = CliRunner().invoke(program, words).output
    assert f"version {bad[:12]} was taken back" in " ".join(text.split())
    assert "denied_share not known" in " ".join(text.split())


def test_nobody_promotes_under_our_name(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "book.yaml"
    path.write_text(json.dumps(GOOD))
    for put in (shop.pipeline.promote, shop.pipeline.promote_dispatch):
        with pytest.raises(Refused, match="own name"):
            put(path, "storekeep")


def test_before_enough_decisions_nothing_is_taken_back(shop: Shop, tmp_path: Path) -> None:
    promote(shop, tmp_path, GOOD)
    patient = {**BAD, "rollback": [{**BAD["rollback"][0], "decisions": 1000}]}
    bad = promote(shop, tmp_path, patient)
    shop.pipeline.dispatch()
    assert promoted(shop)[-1] == (bad, BUYER)


def test_with_nothing_to_go_back_to_the_agent_is_stopped(shop: Shop, tmp_path: Path) -> None:
    bad = promote(shop, tmp_path, BAD)
    shop.pipeline.dispatch()
    assert promoted(shop) == [(bad, BUYER)]
    why = f"version {bad[:12]} of its rulebook does badly (denies: It denies most.), and none can be put back"
    assert halted(shop) == why
    assert [(each["agent"], each["by"]) for each in noted(shop.pipeline, "halt")] == [
        ("replenish", "storekeep")
    ]
    assert shop.pipeline.roll_back() == []
    # Let go on with the same figures it is stopped again; with another version it goes on.
    shop.pipeline.resume("replenish", by=BUYER, reason="let us see")
    assert shop.pipeline.roll_back() == ["replenish"]
    promote(shop, tmp_path, GOOD)
    shop.pipeline.resume("replenish", by=BUYER, reason="with another rulebook")
    sold_again(shop, 1)
    (run,) = shop.pipeline.dispatch().values()
    assert run.verdicts["allow"] > 0


def test_what_was_put_back_and_does_badly_too_stops_the_agent(shop: Shop, tmp_path: Path) -> None:
    first = {**BAD, "forbid": [rule("everything", "true")]}
    one, two = promote(shop, tmp_path, first), promote(shop, tmp_path, BAD)
    shop.pipeline.dispatch()
    assert [each for each, _ in promoted(shop)] == [one, two, one]
    sold_again(shop, 1)
    shop.pipeline.dispatch()
    assert [each for each, _ in promoted(shop)] == [one, two, one]
    assert halted(shop) is not None


def test_a_version_that_cannot_be_read_any_more_is_not_put_back(shop: Shop, tmp_path: Path) -> None:
    pipeline, old = shop.pipeline, json.dumps({**GOOD, "action": "PlaceOrderByFax"})
    with pipeline.store.transaction(pipeline.tenant) as tx:
        tx.register("rulebook", "replenish", "feed", old, pipeline.now(), BUYER)
        tx.promote("rulebook", "replenish", "feed", pipeline.now(), BUYER)
    bad = promote(shop, tmp_path, BAD)
    pipeline.dispatch()
    assert promoted(shop)[-1] == (bad, BUYER)
    assert halted(shop) is not None


def test_two_workers_take_it_back_once(shop: Shop, tmp_path: Path) -> None:
    pipeline = shop.pipeline
    good, bad = promote(shop, tmp_path, GOOD), promote(shop, tmp_path, BAD)
    pipeline.decide(LOCATION)
    home = Settings(home=pipeline.lake._root.parents[1])
    begin = threading.Barrier(2)

    def take_back(_: int) -> list[str]:
        with opened_shop(of_tenant(home, pipeline.tenant)) as other:
            other.clock.now = shop.clock.now
            begin.wait()
            return other.pipeline.roll_back()

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take_back, range(2))) == [[], ["replenish"]]
    assert [each for each, _ in promoted(shop)] == [good, bad, good]


def test_a_worker_sees_it_from_what_became_of_decisions(shop: Shop, tmp_path: Path) -> None:
    good = promote(shop, tmp_path, GOOD)
    unwanted = book(
        permit=[rule("ordinary", "order_units > 0")],
        escalate=[rule("dear", "unit_cost_minor > 2000", role="buyer")],
        rollback=[{**rule("unwanted", "rejected_share = 1"), "decisions": 1}],
    )
    bad = promote(shop, tmp_path, unwanted)
    shop.pipeline.dispatch()
    assert promoted(shop)[-1] == (bad, BUYER)
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        asked = [each["decision_id"] for each in tx.decisions(Selection(status="escalated"))]
    shop.pipeline.reject(asked, BUYER, "no wine")
    tally: Counter[str] = Counter()
    with shop.pipeline.store.again() as beside:
        shop.pipeline.turn(FIRST_DAY, beside, tally, lambda: False)
    assert tally["acted"] > 0
    assert promoted(shop)[-1] == (good, "storekeep")
