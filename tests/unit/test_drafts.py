"""A draft tried on what was recorded: what turns, by which rule, for how much, and what limits carry on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from storekeep import features, ledger, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.agents import AGENTS, replenish
from storekeep.backtest import try_draft
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.errors import Refused
from tests.rulebooks import book, limit, rule
from tests.shop import BUYER, FIRST_DAY, Shop, moment, new_tenant, opened_shop

UTC = ZoneInfo("UTC")
TUESDAY = FIRST_DAY + timedelta(days=1)
# Wine asks, salt is clipped, all else goes ahead.
OWN = book(
    permit=[rule("ordinary", "order_units > 0")],
    escalate=[rule("dear", "unit_cost_minor > 2000", role="buyer")],
    clip=[rule("few", "sku = 'salt' AND order_units > 12", set={"order_units": 12})],
)


@pytest.fixture(scope="module")
def shop(home_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Monday and Tuesday; the wine of Monday was turned down."""
    with opened_shop(new_tenant(home_settings)) as opened:
        opened.prepare()
        opened.promote(OWN, tmp_path_factory.mktemp("own"))
        for step in (opened.deliver, opened.sell, opened.remember, opened.decide):
            step(FIRST_DAY)
        opened.clock.now = moment(FIRST_DAY, 22, 30)
        opened.pipeline.reject(opened.ids("wine"), BUYER, "enough of it")
        opened.act(FIRST_DAY)
        opened.play(TUESDAY)
        yield opened


def tried(shop: Shop, first: Any = FIRST_DAY, last: Any = TUESDAY, **keys: Any) -> dict[str, Any]:
    text = json.dumps({**OWN, **keys})
    draft = policy.load(text, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
    return try_draft(shop.pipeline, draft, first, last, UTC)


def recorded(shop: Shop) -> dict[str, dict[str, Any]]:
    """What the ledger says of each item."""
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        rows = {row["subject"].partition("@")[0]: row for row in tx.decisions(Selection())}
        steps = ledger.steps(tx, [row["decision_id"] for row in rows.values()])
    return {sku: steps[row["decision_id"]][0] for sku, row in rows.items()}


def turned(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        row["subject"].partition("@")[0]: (row["recorded"], row["draft"])
        for row in report["largest"]
    }


def test_the_rulebook_of_then_turns_nothing(shop: Shop) -> None:
    report = tried(shop)
    assert (report["flips"], report["largest"], report["by_rule"]) == (0, [], [])
    assert {(row["recorded"], row["draft"]) for row in report["matrix"]} == {
        ("allow", "allow"),
        ("clip", "clip"),
        ("escalate", "escalate"),
    }
    assert report["held"] == 1
    assert report["decisions"] == sum(row["decisions"] for row in report["matrix"]) == 5
    assert report["decisions_of_other_agent_versions"] == 0


def test_what_turns_is_told_by_rule_by_location_by_day_and_by_id_with_its_money(shop: Shop) -> None:
    book_ = {"forbid": [rule("no-bread", "sku = 'bread'")], "escalate": [], "roles": ["buyer"]}
    report, own = tried(shop, **book_), recorded(shop)
    assert (report["flips"], report["stricter"], report["looser"]) == (2, 1, 1)
    assert turned(report) == {"bread": ("allow", "deny"), "wine": ("escalate", "allow")}
    bread, wine = own["bread"]["money_minor"], own["wine"]["money_minor"]
    flips = [row for row in report["matrix"] if row["recorded"] != row["draft"]]
    assert {(row["draft"], row["decisions"], row["recorded_money_minor"]) for row in flips} == {
        ("deny", 1, bread),
        ("allow", 1, wine),
    }
    causes = {(row["recorded_rules"], row["draft_rules"]) for row in report["by_rule"]}
    assert causes == {("ordinary", "no-bread"), ("dear", "ordinary")}
    assert {row["location_id"] for row in report["by_location"]} == {"DC1"}
    assert {row["day"] for row in report["by_day"]} == {FIRST_DAY.isoformat()}
    assert [row["decision_id"] for row in report["largest"]] == [
        own["wine"]["decision_id"],
        own["bread"]["decision_id"],
    ]
    json.dumps(report, allow_nan=False)


def test_what_was_clipped_is_judged_as_it_was_proposed(shop: Shop) -> None:
    salt = recorded(shop)["salt"]
    asked = salt["proposed"]["order_units"]
    assert asked > salt["parameters"]["order_units"] == 12
    report = tried(shop, clip=[])
    (row,) = [row for row in report["matrix"] if row["recorded"] == "clip"]
    assert (row["draft"], row["recorded_money_minor"]) == ("allow", salt["money_minor"])
    assert row["draft_money_minor"] == asked * salt["parameters"]["unit_cost_minor"]
    six = [rule("few", "sku = 'salt' AND order_units > 12", set={"order_units": 6})]
    report = tried(shop, clip=six)
    assert report["flips"] == 0
    (other,) = report["same_verdict_other_money"]
    assert other["recorded"] == "clip"
    assert other["draft_money_minor"] * 2 == other["recorded_money_minor"] == salt["money_minor"]


def purse(at_most: int, **more: Any) -> dict[str, Any]:
    return limit(id="purse", at_most=at_most, by=["location_id"], per="week", **more)


def test_a_new_limit_is_carried_on_from_day_to_day_by_the_draft_s_own_verdicts(shop: Shop) -> None:
    own = recorded(shop)
    # What goes ahead on Monday; what is turned down gives its share back.
    monday = own["bread"]["money_minor"] + own["salt"]["money_minor"]
    milk, wine = own["milk"]["money_minor"], own["wine"]["money_minor"]
    enough = monday + max(wine, milk + own["lamp"]["money_minor"])
    assert tried(shop, limits=[purse(enough)])["flips"] == 0
    assert turned(tried(shop, limits=[purse(monday + milk - 1)]))["milk"] == ("allow", "deny")
    # Had the bread been refused, there would have been enough for the milk.
    no_bread = {"forbid": [rule("no-bread", "sku = 'bread'")]}
    assert "milk" not in turned(tried(shop, limits=[purse(enough - 1)], **no_bread))


def test_what_a_person_turned_down_is_used_where_the_draft_does_not_ask(shop: Shop) -> None:
    own = recorded(shop)
    monday = sum(own[sku]["money_minor"] for sku in ("bread", "salt", "wine"))
    lax = {"escalate": [], "roles": ["buyer"], "limits": [purse(monday)]}
    assert turned(tried(shop, **lax)) == {
        "milk": ("allow", "deny"),
        "lamp": ("allow", "deny"),
        "wine": ("escalate", "allow"),
    }


def test_what_was_used_before_the_period_is_what_was_recorded(shop: Shop) -> None:
    own = recorded(shop)
    monday = own["bread"]["money_minor"] + own["salt"]["money_minor"]
    milk, lamp = own["milk"]["money_minor"], own["lamp"]["money_minor"]
    enough = tried(shop, TUESDAY, limits=[purse(monday + milk + lamp)])
    assert (enough["flips"], enough["runs"], enough["decisions"]) == (0, 1, 2)
    short = tried(shop, TUESDAY, limits=[purse(monday + milk + lamp - 1)])
    assert short["flips"] == 1
    # The draft's own verdict on the Monday counts for nothing: the Monday is not tried.
    lenient = {"forbid": [rule("no-bread", "sku = 'bread'")]}
    again = tried(shop, TUESDAY, limits=[purse(monday + milk + lamp - 1)], **lenient)
    assert again["flips"] == 1
    # A limit over the day begins anew.
    daily = {**purse(milk + lamp), "per": "day"}
    assert tried(shop, TUESDAY, limits=[daily])["flips"] == 0


def test_a_period_without_decisions_is_refused(shop: Shop) -> None:
    with pytest.raises(Refused, match="nothing was decided by replenish from 2026-01-01"):
        tried(shop, FIRST_DAY.replace(month=1, day=1), FIRST_DAY.replace(month=1, day=2))


def test_decisions_of_another_version_of_the_agent_are_counted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = {replenish.NAME: replace(AGENTS[replenish.NAME], version="another")}
    monkeypatch.setattr(shop.pipeline, "agents", agents)
    report = tried(shop)
    assert (report["flips"], report["decisions_of_other_agent_versions"]) == (0, 5)


def test_runs_are_read_back_block_by_block_as_they_were(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the blocks, the runs and what was released between them are the same."""

    def read() -> list[Any]:
        begin, end = moment(FIRST_DAY), moment(TUESDAY + timedelta(days=1))
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            return [
                (
                    run.header["batch_id"],
                    run.proposals.to_pylist(),
                    run.left.to_pylist(),
                    run.evidence.values.to_pylist(),
                    run.decided.to_pylist(),
                    run.released.to_pylist(),
                )
                for run in ledger.runs(tx, begin, end, PLACE_PURCHASE_ORDER, features.SCHEMA)
            ]

    whole = read()
    assert [len(run[1]) for run in whole] == [3, 2]
    # The wine was turned down between the two.
    assert [[each["step"] for each in run[5]] for run in whole] == [[], ["rejected"]]
    monkeypatch.setattr("storekeep.ledger.recall._ENTRIES_AT_ONCE", 1)
    assert read() == whole


def test_a_run_read_back_is_what_the_agent_proposed(shop: Shop) -> None:
    begin, end = moment(FIRST_DAY), moment(TUESDAY + timedelta(days=1))
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        for run in ledger.runs(tx, begin, end, PLACE_PURCHASE_ORDER, features.SCHEMA):
            again = replenish.propose(run.evidence, PLACE_PURCHASE_ORDER).proposals
            same = again.drop_columns(["arithmetic"])
            assert same.to_pylist() == run.proposals.to_pylist()
            for text, own in zip(
                run.evidence.digests().to_pylist(),
                [each["decision_id"] for each in run.decided.to_pylist()],
                strict=True,
            ):
                assert ledger.steps(tx, [own])[own][0]["evidence_digest"] == text


def test_the_page_names_the_draft_as_a_shell_takes_it(shop: Shop, tmp_path: Path) -> None:
    from storekeep.backtest import draft_page

    report = {**tried(shop, forbid=[rule("no-bread", "sku = 'bread'")])}
    report |= {"command": "storekeep", "draft": str(tmp_path / "a draft.yaml")}
    text = draft_page.html(report)
    assert "no-bread" in text
    assert f"policy diff in-force &#39;{tmp_path}/a draft.yaml&#39;" in text
