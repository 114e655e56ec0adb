"""Who is woken by what: the dispatch policy as a file, and agents at work under it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count, permutations
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep import bus, features, ledger, policy
from storekeep.actions import Answer, Order
from storekeep.agents import AGENTS, Agent, replenish
from storekeep.backtest import try_draft
from storekeep.cli.program import program
from storekeep.config import Settings
from storekeep.decisions import (
    HOLDS,
    Action,
    Evidence,
    ModeChange,
    Proposed,
    Receipt,
    Reversibility,
    Selection,
    Status,
)
from storekeep.errors import Refused, Transient
from storekeep.features.sku_location import FEATURE_TABLE
from storekeep.lake import ORDER_MOVES
from storekeep.pipeline.opening import ACTIONS
from storekeep.policy import SHIPPED, SHIPPED_DISPATCH, load_dispatch
from storekeep.retail import CURRENCY, SKU, Column, Table
from storekeep.retail import LOCATION as LOCATION_ID
from tests import shop
from tests.shop import FIRST_DAY, LOCATION, TILLS, Shop, moment, noted, sales

NAMES = ["replenish", "offers"]
TEXT = """\
dispatch: two
owner: operations
groups:
  pilot: [S1, "N*"]
agents:
  - agent: replenish
    hears:
      - event: SaleRecorded
        when: quantity_units > 0
      - {event: StockCounted}
    mode: live
    window: 1m
    concurrency: 2
  - agent: offers
    hears: [{event: SaleRecorded}]
    scope: [pilot]
    priority: 5
precedence:
  - id: cover-first
    first: replenish
    then: offers
    within: 2d
    reason: What is short is not offered.
"""
AT = datetime(2026, 3, 2, tzinfo=UTC)


def loaded(text: str = TEXT) -> policy.Dispatch:
    return load_dispatch(text, NAMES)


# ---------------------------------------------------------------------------------------- the policy


def test_the_policy_that_ships_is_sound_and_live() -> None:
    shipped = load_dispatch(SHIPPED_DISPATCH, [replenish.NAME])
    (listener,) = shipped.listeners("SaleRecorded", "DC1")
    assert (listener.agent, listener.mode, listener.window) == ("replenish", "live", timedelta())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "agent: offers",
            "agent: ofers",
            "14:12: there is no agent 'ofers'; did you mean 'offers'?",
        ),
        ("agent: offers", "agent: replenish", "14:12: agent 'replenish' stands here twice"),
        (
            "event: StockCounted",
            "event: StockCount",
            "no event is called 'StockCount'; did you mean",
        ),
        ("event: StockCounted", "event: stock", "event: write the event's type"),
        ("quantity_units > 0", "quantity > 0", "9:15: "),
        ("quantity_units > 0", "random() > 0.5", "9:15: "),
        ("quantity_units > 0", "(SELECT 1) = 1", "9:16: "),
        ("quantity_units > 0", "quantity_units", "9:15: "),
        ("scope: [pilot]", "scope: [pilots]", "16:13: there is no group 'pilots'; did you mean"),
        ("window: 1m", "window: soon", "12:13: window: write a duration like 4h"),
        ("window: 1m", "wait: 1m", "12:5: unknown key 'wait'"),
        ("mode: live", "mode: canary", "11:11: mode: Input should be"),
        ("concurrency: 2", "concurrency: 0", "13:18: concurrency:"),
        ("then: offers", "then: nobody", "21:11: 'nobody' is not among this policy's agents"),
        ("then: offers", "then: replenish", "21:11: 'replenish' would come before itself"),
        ("owner: operations\n", "", "1:1: key 'owner' is missing"),
        ("hears: [{event: SaleRecorded}]", "hears: []", "hears:"),
    ],
)
def test_a_fault_is_refused_with_its_place(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(Refused) as refused:
        loaded(TEXT.replace(old, new, 1))
    assert said in str(refused.value)
    assert str(refused.value).startswith("dispatch:")


def test_two_precedences_cannot_go_round_in_a_circle() -> None:
    again = TEXT + (
        "  - {id: back, first: offers, then: replenish, within: 1d, reason: the other way}\n"
    )
    with pytest.raises(Refused, match="would come before itself"):
        loaded(again)


def test_a_file_that_is_no_policy_is_refused(tmp_path: Path) -> None:
    for text in ("- a list\n", "", "a: [\n", "one: 1\none: 2\n"):
        (tmp_path / "d.yaml").write_text(text)
        with pytest.raises(Refused, match=r"d\.yaml"):
            load_dispatch(tmp_path / "d.yaml", NAMES)


def test_the_version_is_of_what_it_says_not_how() -> None:
    assert loaded("# a remark\n" + TEXT).version == loaded().version
    assert loaded(TEXT.replace("1m", "2m")).version != loaded().version


def test_who_hears_what_where() -> None:
    dispatch = loaded()

    def names(type_: str, location_id: str) -> list[str]:
        return [one.agent for one in dispatch.listeners(type_, location_id)]

    assert names("SaleRecorded", "S1") == names("SaleRecorded", "N77") == ["offers", "replenish"]
    assert names("SaleRecorded", "S2") == ["replenish"]
    assert names("StockCounted", "S1") == ["replenish"]
    assert names("GoodsReceived", "S1") == []


def test_the_order_of_agents_makes_no_difference() -> None:
    head, _, rest = TEXT.partition("agents:\n")
    body, _, tail = rest.partition("precedence:\n")
    parts = ["  - agent" + part for part in body.split("  - agent")[1:]]
    versions = []
    for order in permutations(parts):
        dispatch = loaded(f"{head}agents:\n{''.join(order)}precedence:\n{tail}")
        versions.append([one.agent for one in dispatch.listeners("SaleRecorded", "S1")])
    assert versions == [["offers", "replenish"]] * 2


modes = st.sampled_from(["off", "shadow", "canary", "live"])
groups = st.sampled_from([(), ("pilot",), ("S2",), ("pilot", "S2")])


def change(mode: str, where: tuple[str, ...], version: str | None = None) -> ModeChange:
    where = where or (("S9",) if mode == "canary" else ())
    return ModeChange("replenish", version, where, mode, AT, "ann", "bea", "because")


@given(st.lists(st.tuples(modes, groups), max_size=6), st.sampled_from(["S1", "S2", "S3"]))
@settings(max_examples=60)
def test_the_newest_change_that_speaks_of_a_place_holds(
    changes: list[tuple[str, tuple[str, ...]]], location_id: str
) -> None:
    """Written out once more, in the plainest way: from the oldest to the newest, each overwrites."""
    expected = "live"
    for mode, where in changes:
        one = change(mode, where)
        inside = loaded().covers(one.groups, location_id)
        if mode == "canary":
            expected = "live" if inside else "shadow"
        elif inside:
            expected = mode
    newest_first = [change(*each) for each in reversed(changes)]
    assert loaded().mode("replenish", "v1", location_id, newest_first) == expected


def test_a_mode_of_one_version_leaves_others_alone() -> None:
    changes = [change("off", (), "v2"), change("shadow", ())]
    assert loaded().mode("replenish", "v2", "S1", changes) == "off"
    assert loaded().mode("replenish", "v1", "S1", changes) == "shadow"
    assert loaded().mode("offers", "v2", "S1", changes) == "shadow"
    assert loaded().mode("stranger", None, "S1", changes) == "off"


# ------------------------------------------------------------------------------------- agents at work


@pytest.fixture
def opened(home_settings: Settings) -> Iterator[Shop]:
    """A shop on the evening of its first day: the tills have rung, nobody has decided."""
    with shop.opened_shop(shop.new_tenant(home_settings)) as found:
        found.prepare()
        for _, step in found.day_steps(FIRST_DAY)[:3]:
            step()
        yield found


def promote(opened: Shop, tmp_path: Path, text: str) -> None:
    path = tmp_path / "dispatch.yaml"
    path.write_text(text)
    opened.pipeline.promote_dispatch(path, "ann")


def only(**more: str) -> str:
    """A policy with the replenishment agent alone."""
    lines = [f"    {name}: {value}\n" for name, value in {"mode": "live", **more}.items()]
    return (
        "dispatch: one\nowner: operations\nagents:\n  - agent: replenish\n"
        "    hears: [{event: SaleRecorded}]\n" + "".join(lines)
    )


def test_a_thousand_sales_in_a_minute_wake_the_agent_once(opened: Shop, tmp_path: Path) -> None:
    promote(opened, tmp_path, only(window="1m"))
    pipeline, begun = opened.pipeline, opened.clock.now
    assert pipeline.dispatch() == {}
    line = shop.sales(FIRST_DAY, FIRST_DAY).slice(0, 1)
    for number in range(20):
        opened.clock.now = begun + timedelta(seconds=number)
        rows = line.take([0] * 50)
        keys = [f"more {number} {part}" for part in range(50)]
        pipeline.take_in(rows.set_column(0, rows.schema.field(0), [keys]), "tills", LOCATION)
        assert pipeline.dispatch() == {}
    opened.clock.now = begun + timedelta(minutes=1)
    (run,) = pipeline.dispatch().values()
    assert run.evaluated > 0
    opened.clock.now += timedelta(minutes=2)
    assert pipeline.dispatch() == {}
    (batch,) = noted(opened.pipeline, "batch")
    assert sum(each["facts"] for each in batch["heard"]) == 1000 + 14
    assert not batch["heard_late"]


def test_a_run_after_its_deadline_says_so(opened: Shop, tmp_path: Path) -> None:
    promote(opened, tmp_path, only(deadline="10m"))
    opened.clock.now += timedelta(minutes=11)
    assert opened.pipeline.dispatch()
    assert noted(opened.pipeline, "batch")[0]["heard_late"]


def test_what_is_decided_too_late_is_not_done_and_the_next_run_proposes_anew(
    opened: Shop, tmp_path: Path
) -> None:
    shipped = (SHIPPED / "replenish.yaml").read_text()
    (tmp_path / "book.yaml").write_text(shipped.replace("decide_within: 36h", "decide_within: 20m"))
    pipeline, before = opened.pipeline, opened.stock()
    pipeline.promote(tmp_path / "book.yaml", "ann")
    opened.clock.now += timedelta(minutes=20, microseconds=1)
    (run,) = pipeline.dispatch().values()
    assert run.verdicts["deny"] > 0
    assert {run.verdicts[each] for each in ("allow", "clip", "escalate")} == {0}
    opened.act(FIRST_DAY)
    assert opened.stock() == before
    assert opened.back_office.count_orders() == 0
    rows = [row for row in opened.decisions().values() if row["verdict"] == "deny"]
    with pipeline.store.transaction(pipeline.tenant) as tx:
        assert tx.approvals() == []
        text = ledger.text(ledger.explain(tx, pipeline.lake, rows[0]["decision_id"]))
        uses = tx.uses("supplier-week", date(2000, 1, 1), date(2100, 1, 1))
    assert "forbid by decide-within: Decided 0:20:01 after the first event it answers" in text
    assert "Order nothing; the next review looks at the item again." in text
    assert uses.num_rows == 0
    assert pipeline.replay(rows[0]["decision_id"])["run_identical"]
    # The deadline of the dispatch policy, an hour, was kept: each has a say of its own.
    (batch,) = noted(opened.pipeline, "batch")
    assert not batch["heard_late"]
    another = renamed(shop.sales(FIRST_DAY, FIRST_DAY).slice(0, 1))
    pipeline.publish("SaleRecorded", "tills", LOCATION, another)
    opened.clock.now += timedelta(minutes=20)
    (run,) = pipeline.dispatch().values()
    assert run.verdicts["allow"] > 0


def test_every_event_is_answered(opened: Shop) -> None:
    """By a run that heard it, or by a note that nobody listens; none twice, none left out."""
    opened.pipeline.dispatch()
    opened.buy(FIRST_DAY)
    opened.act(FIRST_DAY)
    opened.pipeline.dispatch()
    runs, notes = noted(opened.pipeline, "batch"), noted(opened.pipeline, "unheard")
    heard = [each for batch in runs for each in batch["heard"]]
    unheard = [each for note in notes for each in note["events"]]
    assert {each["type"] for each in heard} == {"SaleRecorded"}
    assert {each["type"] for each in unheard} >= {"OrderCommitted", "PurchaseOrderConfirmed"}
    assert {note["why"] for note in notes} == {"nobody listens"}
    pipeline = opened.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        # What was there before the agents were told to begin is history.
        skipped = tx._run(
            "SELECT min(first) AS first FROM (SELECT min(position) AS first FROM event_log"
            " WHERE tenant = %s AND time >= %s) AS later",
            (pipeline.tenant, moment(FIRST_DAY, 22)),
        )[0]["first"]
        many = tx._run(
            "SELECT count(*) AS many FROM event_log WHERE tenant = %s AND position >= %s",
            (pipeline.tenant, skipped),
        )[0]["many"]
    assert sum(each["events"] for each in (*heard, *unheard)) == many
    assert pipeline.note_unheard() == 0


def test_a_condition_that_no_fact_fits_wakes_nobody(opened: Shop, tmp_path: Path) -> None:
    text = only().replace(
        "{event: SaleRecorded}", "{event: SaleRecorded, when: quantity_units > 99}"
    )
    promote(opened, tmp_path, text)
    assert opened.pipeline.dispatch() == {}
    (note,) = [
        each for each in noted(opened.pipeline, "unheard") if each["why"] != "nobody listens"
    ]
    assert note["why"] == "nothing in it wakes replenish"
    promote(opened, tmp_path, text.replace("> 99", "> 4"))
    opened.sell(FIRST_DAY + timedelta(days=1))
    assert opened.pipeline.dispatch()


def test_in_shadow_all_is_recorded_and_nothing_is_done(opened: Shop, tmp_path: Path) -> None:
    promote(opened, tmp_path, only(mode="shadow"))
    before = opened.stock()
    (run,) = opened.pipeline.dispatch().values()
    assert run.mode == "shadow"
    assert run.verdicts["allow"] + run.verdicts["escalate"] > 0
    opened.act(FIRST_DAY)
    rows = opened.decisions().values()
    acting = [row for row in rows if row["verdict"] in ("allow", "clip", "escalate")]
    assert acting
    assert {row["status"] for row in acting} == {Status.SHADOWED}
    assert {row["status"] for row in rows} <= {Status.SHADOWED, Status.DENIED, Status.HELD}
    assert opened.pending() == 0
    assert opened.back_office.count_orders() == 0
    assert opened.stock() == before
    pipeline = opened.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        assert tx.approvals() == []
        told = ledger.explain(tx, pipeline.lake, acting[0]["decision_id"])
    assert told["status"] == Status.SHADOWED
    assert pipeline.replay(acting[0]["decision_id"])["run_identical"]
    statuses = {row["decision_id"]: row["status"] for row in rows}
    assert pipeline.rebuild_decisions() == statuses
    plan = pipeline.plan_revert(Selection(ids=(acting[0]["decision_id"],)))
    assert [each.what for each in plan] == ["nothing"]
    # What was only thought of does not keep a later order away.
    promote(opened, tmp_path, only())
    opened.clock.now += timedelta(minutes=1)
    opened.pipeline.publish(
        "SaleRecorded", "tills", LOCATION, renamed(shop.sales(FIRST_DAY, FIRST_DAY).slice(0, 1))
    )
    (live,) = opened.pipeline.dispatch().values()
    assert (live.mode, live.verdicts["allow"] > 0) == ("live", True)


def renamed(rows: Any) -> Any:
    return rows.set_column(0, rows.schema.field(0), [["another line"]])


@pytest.mark.parametrize(
    ("mode", "where", "does"),
    [
        ("canary", [LOCATION], "live"),
        ("canary", ["S*"], "shadow"),
        ("off", [], "off"),
        ("off", ["S*"], "live"),
        ("shadow", [LOCATION], "shadow"),
    ],
)
def test_a_mode_holds_where_it_says(opened: Shop, mode: str, where: list[str], does: str) -> None:
    opened.pipeline.set_mode(
        "replenish", mode, by="ann", approver="bea", reason="we try it", groups=where
    )
    runs = opened.pipeline.dispatch()
    assert [run.mode for run in runs.values()] == ([] if does == "off" else [does])
    (entry,) = noted(opened.pipeline, "mode")
    assert (entry["mode"], entry["set_by"], entry["approved_by"]) == (mode, "ann", "bea")
    if does == "off":
        assert "replenish is off" in {each["why"] for each in noted(opened.pipeline, "unheard")}
    assert opened.pipeline.verify().ok


def test_a_mode_of_the_agents_version_holds_for_it_alone(opened: Shop) -> None:
    version = opened.pipeline.agents["replenish"].propose(*_evidence(opened)).version
    for each in ("another", version):
        opened.pipeline.set_mode(
            "replenish", "off", by="ann", approver="bea", reason="bad", agent_version=each
        )
    assert opened.pipeline.dispatch() == {}
    assert f"version {version} of replenish is off" in {
        each["why"] for each in noted(opened.pipeline, "unheard")
    }


def _evidence(opened: Shop) -> tuple[Evidence, Action]:
    from storekeep import bus
    from storekeep.actions import PLACE_PURCHASE_ORDER

    pipeline = opened.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        partition = bus.partition_of(pipeline.tenant, LOCATION)
        return pipeline._snapshot(tx, LOCATION, partition), PLACE_PURCHASE_ORDER


def test_who_asks_for_a_mode_does_not_approve_it(opened: Shop) -> None:
    pipeline = opened.pipeline
    with pytest.raises(Refused, match="somebody else has to approve"):
        pipeline.set_mode("replenish", "live", by="ann", approver="ann", reason="go")
    with pytest.raises(Refused, match="name them"):
        pipeline.set_mode("replenish", "canary", by="ann", approver="bea", reason="go")
    with pytest.raises(Refused, match="no mode"):
        pipeline.set_mode("replenish", "fast", by="ann", approver="bea", reason="go")
    with pytest.raises(Refused, match="no agent"):
        pipeline.set_mode("nobody", "live", by="ann", approver="bea", reason="go")
    assert noted(opened.pipeline, "mode") == []


@pytest.mark.parametrize("agent", ["replenish", ""])
def test_a_stop_holds_for_all_that_is_not_done_and_a_reversal_goes_on(
    opened: Shop, agent: str
) -> None:
    opened.pipeline.dispatch()
    opened.act(FIRST_DAY)
    done = opened.back_office.count_orders()
    opened.buy(FIRST_DAY)
    assert opened.pending() > 0
    assert opened.pipeline.halt(agent, by="ann", reason="it orders too much")
    assert not opened.pipeline.halt(agent, by="bea", reason="me too")
    assert opened.pipeline.act() == 0
    assert opened.back_office.count_orders() == done
    # Nothing new is decided, and what was reported meanwhile is not lost.
    opened.sell(FIRST_DAY + timedelta(days=1))
    assert opened.pipeline.dispatch() == {}
    assert opened.pipeline.decide(LOCATION) is None
    held = opened.pending()
    executed = [row for row in opened.decisions().values() if row["status"] == Status.EXECUTED]
    plan = opened.pipeline.plan_revert(Selection(ids=(executed[0]["decision_id"],)))
    opened.pipeline.revert(plan, "ann", "too much")
    assert opened.pipeline.act() == 1
    assert opened.pending() == held
    assert opened.pipeline.resume(agent, by="ann", reason="mended")
    assert not opened.pipeline.resume(agent, by="ann", reason="mended")
    opened.remember(FIRST_DAY + timedelta(days=1))
    assert opened.pipeline.dispatch()
    opened.act(FIRST_DAY + timedelta(days=1))
    assert opened.pending() == 0
    assert [entry["agent"] for entry in noted(opened.pipeline, "halt")] == [agent or None]
    assert len(noted(opened.pipeline, "resume")) == 1


def test_a_stop_of_one_tenant_stops_no_other(opened: Shop, home_settings: Settings) -> None:
    with shop.opened_shop(shop.new_tenant(home_settings)) as other:
        other.pipeline.halt("", by="ann", reason="ours only")
    assert opened.pipeline.dispatch()
    assert opened.pipeline.act() > 0


def test_only_so_many_runs_of_an_agent_go_on_at_once(opened: Shop, tmp_path: Path) -> None:
    promote(opened, tmp_path, only(concurrency="1"))
    pipeline = opened.pipeline
    with shop.opened_shop(shop.of_tenant(settings_of(opened), pipeline.tenant)) as second:
        second.clock.now = opened.clock.now
        with pipeline.store.transaction(pipeline.tenant) as tx:
            assert tx.slot("replenish", 1)
            came: list[object] = []
            other = threading.Thread(target=lambda: came.append(second.pipeline.decide(LOCATION)))
            other.start()
            other.join(30)
            assert came == [None]
        assert second.pipeline.decide(LOCATION) is not None


def settings_of(opened: Shop) -> Settings:
    return Settings(home=opened.pipeline.lake._root.parents[1])


# ----------------------------------------------------------------------------------------- precedence


def offers(evidence: Evidence, action: Action) -> Proposed:
    """A second agent that wants something about the same subjects, whatever is on its way to them."""
    at = evidence.values.column_names.index("committed_units")
    none = pa.array([0] * evidence.values.num_rows, pa.int64())
    evidence = replace(evidence, values=evidence.values.set_column(at, "committed_units", none))
    return replace(replenish.propose(evidence, action), agent="offers", version="o1")


def two_agents(opened: Shop, tmp_path: Path, within: str = "2d") -> None:
    opened.pipeline.agents = {**AGENTS, "offers": Agent(offers, replenish.ACTION, "o1")}
    rulebook = (SHIPPED / "replenish.yaml").read_text().replace("agent: replenish", "agent: offers")
    (tmp_path / "offers.yaml").write_text(rulebook)
    opened.pipeline.promote(tmp_path / "offers.yaml", "ann")
    text = TEXT.replace("window: 1m", "window: 0s").replace("scope: [pilot]", "mode: live")
    promote(opened, tmp_path, text.replace("within: 2d", f"within: {within}"))


def test_the_more_important_runs_first(opened: Shop, tmp_path: Path) -> None:
    two_agents(opened, tmp_path)
    assert [(each.agent, each.priority) for each in opened.pipeline.due()] == [
        ("offers", 5), ("replenish", 0),
    ]  # fmt: skip


def test_who_is_due_is_told_apart_by_agent_and_location(opened: Shop, tmp_path: Path) -> None:
    pipeline = opened.pipeline

    def due() -> set[tuple[str, str]]:
        return {(each.agent, each.location_id) for each in pipeline.due()}

    two_agents(opened, tmp_path)
    partition = bus.partition_of(pipeline.tenant, LOCATION)
    places = (f"DC{number}" for number in count(2))
    other = next(one for one in places if bus.partition_of(pipeline.tenant, one) == partition)
    assert due() == {("offers", LOCATION), ("replenish", LOCATION)}
    assert pipeline.decide(LOCATION, "offers") is not None
    assert due() == {("replenish", LOCATION)}
    lines = sales(FIRST_DAY, FIRST_DAY).slice(0, 1)
    place, key = (lines.column_names.index(name) for name in ("location_id", "line_key"))
    lines = lines.set_column(place, "location_id", [[other]]).set_column(key, "line_key", [["2"]])
    pipeline.take_in(lines, TILLS, other)
    everybody = {("replenish", LOCATION), ("replenish", other), ("offers", other)}
    assert due() == everybody
    pipeline.halt("offers", by="ann", reason="look first")
    assert due() == {each for each in everybody if each[0] == "replenish"}
    pipeline.halt("", by="ann", reason="look first")
    assert due() == set()


def test_features_of_a_location_move_once_a_turn(opened: Shop, tmp_path: Path) -> None:
    two_agents(opened, tmp_path)
    pipeline, tally, ticks = opened.pipeline, Counter[str](), count()
    pipeline.now = lambda: moment(FIRST_DAY, 22, 1) + timedelta(milliseconds=next(ticks))
    before = pipeline.lake.version(FEATURE_TABLE.name)
    with pipeline.store.again() as beside:
        pipeline.turn(FIRST_DAY, beside, tally, lambda: False)
    assert tally["decided"] == 2
    assert pipeline.lake.version(FEATURE_TABLE.name) == before + 1


def test_what_comes_first_keeps_the_other_away_and_that_is_recorded(
    opened: Shop, tmp_path: Path
) -> None:
    two_agents(opened, tmp_path)
    first = opened.pipeline.decide(LOCATION, "replenish")
    second = opened.pipeline.decide(LOCATION, "offers")
    assert first is not None
    assert second is not None
    pipeline = opened.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        mine = tx.decisions(Selection(batch_id=first.batch_id))
        other = {row["subject"]: row for row in tx.decisions(Selection(batch_id=second.batch_id))}
        taken = [row["subject"] for row in mine if row["status"] in ("pending", "escalated")]
        rules = {
            subject: ledger.steps(tx, [other[subject]["decision_id"]])[
                other[subject]["decision_id"]
            ][0]["rules"]
            for subject in taken
            if subject in other
        }
    assert rules
    for subject, spoke in rules.items():
        assert other[subject]["verdict"] == "deny"
        assert {"rule": "cover-first", "effect": "precedence"}.items() <= spoke[-1].items()
    assert pipeline.replay(next(iter(other.values()))["decision_id"])["run_identical"]
    assert pipeline.verify().ok


def test_what_is_proposed_again_waits_for_what_comes_first_as_well(
    opened: Shop, tmp_path: Path
) -> None:
    two_agents(opened, tmp_path)
    pipeline = opened.pipeline
    offered = pipeline.decide(LOCATION, "offers")
    assert offered is not None
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx.decisions(Selection(batch_id=offered.batch_id, status="pending"))
    old = [row["decision_id"] for row in rows]
    pipeline.revert(pipeline.plan_revert(Selection(ids=tuple(old))), "ann", "too early")
    assert pipeline.decide(LOCATION, "replenish") is not None
    (run,) = pipeline.undo(pipeline.plan_undo(old), "ann", "after all")
    assert (run.agent, run.verdicts["deny"]) == ("offers", len(old))
    with pipeline.store.transaction(pipeline.tenant) as tx:
        (new, *_) = tx.decisions(Selection(batch_id=run.batch_id))
    assert pipeline.replay(new["decision_id"])["run_identical"]


def test_after_its_time_a_precedence_keeps_nobody_away(opened: Shop, tmp_path: Path) -> None:
    two_agents(opened, tmp_path, "1h")
    opened.pipeline.decide(LOCATION, "replenish")
    opened.clock.now += timedelta(hours=2)
    second = opened.pipeline.decide(LOCATION, "offers")
    assert second is not None
    (batch,) = [each for each in noted(opened.pipeline, "batch") if each["agent"] == "offers"]
    assert batch["barred"] == []


# ------------------------------------------------------------------------------------ another action

SET_DISCOUNT = Action(
    name="SetDiscount",
    parameters=Table(
        "discount",
        "By how much an item is sold cheaper.",
        ("sku", "location_id"),
        (
            *(SKU, LOCATION_ID),
            Column("order_group", "text", "What is changed together."),
            Column("discount_minor", "int", "Off the price.", "minor money unit", at_least=0),
            CURRENCY,
        ),
    ),
    money="discount_minor",
    reversibility=Reversibility.COMPENSATE,
    clippable=("discount_minor",),
)
DISCOUNTS = """
rulebook: discounts
owner: pricing
agent: markdown
action: SetDiscount
safe_default: The price stays.
permit:
  - {id: small, when: discount_minor <= 60, reason: A small discount.}
escalate:
  - {id: wine, when: "sku = 'wine'", role: pricing, reason: Wine is for a person.}
limits:
  - {id: day, sum: discount_minor, by: [], at_most: 10000, per: day, then: forbid, reason: Too much.}
breaker: {failures: 1}
"""


def markdown(evidence: Evidence, action: Action) -> Proposed:
    """A tiny agent: whatever is there is sold half a dollar cheaper."""
    values = evidence.values
    many = values.num_rows
    columns = {
        "subject": values["subject"],
        "priority": pa.array([0.0] * many),
        "sku": values["sku"],
        "location_id": values["location_id"],
        "order_group": pa.array(["discounts"] * many, pa.string()),
        "discount_minor": pa.array([50] * many, pa.int64()),
        "currency": values["currency"],
        "arithmetic": pa.array([{"off": 50.0}] * many),
    }
    return Proposed("markdown", "m1", action, pa.table(columns), HOLDS.empty_table())


@dataclass
class Tags:
    """A price system: what stands on the shelf by key. The first call may fail."""

    down: bool = False
    name: str = "tags"
    most_orders: int = 100
    off: dict[str, int] = field(default_factory=dict)

    def _receipt(self, key: str) -> Receipt:
        details = {"cancelled": self.off[key] == 0, "received_units": 0}
        return Receipt(key, self.name, f"tag {key[-4:]}", "as it was set", details)

    def execute(self, orders: Sequence[Order], at: datetime) -> Sequence[Answer]:  # noqa: ARG002  # the contract gives it
        if self.down:
            raise Transient("the price system is down")
        for each in orders:
            self.off.setdefault(each.decision_id, each.parameters["discount_minor"])
        return [self._receipt(each.decision_id) for each in orders]

    def compensate(self, receipts: Sequence[Receipt], at: datetime) -> Sequence[Answer]:  # noqa: ARG002  # the contract gives it
        for each in receipts:
            self.off[each.idempotency_key] = 0
        return [self._receipt(each.idempotency_key) for each in receipts]

    def find(self, idempotency_keys: Sequence[str]) -> Mapping[str, Receipt]:
        return {key: self._receipt(key) for key in idempotency_keys if key in self.off}


@pytest.fixture
def tags(opened: Shop, tmp_path: Path) -> Tags:
    """The shop with a second agent, whose action is another, and the system that carries it out."""
    pipeline, system = opened.pipeline, Tags()
    pipeline.agents = {**AGENTS, "markdown": Agent(markdown, SET_DISCOUNT.name, "m1")}
    pipeline.actions = {**ACTIONS, SET_DISCOUNT.name: SET_DISCOUNT}
    pipeline.adapters = {**pipeline.adapters, SET_DISCOUNT.name: system}
    (tmp_path / "discounts.yaml").write_text(DISCOUNTS)
    pipeline.promote(tmp_path / "discounts.yaml", "ann")
    hears = "hears: [{event: SaleRecorded}]\n    mode: live\n"
    promote(opened, tmp_path, only() + f"  - agent: markdown\n    {hears}")
    return system


def test_an_agent_with_an_action_of_its_own_goes_the_same_way(opened: Shop, tags: Tags) -> None:
    """Proposed, judged, approved, done, replayed, taken back and done again; no stock is moved by it."""
    pipeline, before = opened.pipeline, opened.stock()
    runs = {agent: run for (agent, _), run in pipeline.dispatch().items()}
    assert {agent: run.verdicts["allow"] > 0 for agent, run in runs.items()} == dict.fromkeys(
        ("replenish", "markdown"), True
    )
    mine = Selection(batch_id=runs["markdown"].batch_id)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = {row["subject"].partition("@")[0]: row for row in tx.decisions(mine)}
    assert {row["action"] for row in rows.values()} == {"SetDiscount"}
    wine = rows["wine"]["decision_id"]
    assert (rows["wine"]["status"], len(rows)) == (Status.ESCALATED, len(shop.SKUS))
    (asked,) = pipeline.outlook([wine])
    assert asked["now"]["verdict"] == "escalate"
    assert pipeline.approve([wine], "bea") == {wine: "approved"}
    opened.act(FIRST_DAY)
    assert {*tags.off.values()} == {50}
    assert len(tags.off) == len(rows)
    ids = tuple(row["decision_id"] for row in rows.values())
    assert pipeline.replay(wine)["run_identical"]
    plan = pipeline.plan_revert(Selection(ids=ids))
    assert pipeline.revert(plan, "ann", "no sale after all") == len(ids)
    opened.act(FIRST_DAY)
    assert {*tags.off.values()} == {0}
    opened.clock.now += timedelta(minutes=1)
    (run,) = pipeline.undo(pipeline.plan_undo(ids), "ann", "a sale it is")
    opened.act(FIRST_DAY)
    assert (run.agent, run.verdicts["allow"]) == ("markdown", len(ids) - 1)
    draft = policy.load(DISCOUNTS, action=SET_DISCOUNT, evidence=features.SCHEMA)
    tried = try_draft(pipeline, draft, FIRST_DAY, FIRST_DAY, ZoneInfo("UTC"))
    assert (tried["decisions"], tried["flips"]) == (2 * len(ids), 0)
    assert tried["decisions_of_other_agent_versions"] == 0
    moved = {row["sku"] for row in noted_moves(opened)}
    ordered = {sku for sku, row in opened.stock().items() if row != before[sku]}
    assert moved == ordered
    assert pipeline.verify().ok


def noted_moves(opened: Shop) -> list[dict[str, Any]]:
    """What the bus told of orders."""
    lake = opened.pipeline.lake
    opened.pipeline.keep_history()
    rows: list[dict[str, Any]] = lake.query(
        "SELECT * FROM m", tables={"m": ORDER_MOVES}
    ).to_pylist()
    return rows


def test_each_agent_has_the_breaker_of_its_own_rulebook(opened: Shop, tags: Tags) -> None:
    tags.down = True
    opened.pipeline.dispatch()
    opened.pipeline.act()
    (breaker,) = opened.pipeline.breakers()
    # One failure opens it, as the discounts' rulebook says; five would by that of replenishment.
    assert (breaker["name"], breaker["state"]) == ("adapter/tags", "open")


def test_a_rulebook_is_for_the_action_of_its_agent(
    opened: Shop, tags: Tags, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text(DISCOUNTS.replace("agent: markdown", "agent: replenish"))
    said = "agent replenish proposes PlacePurchaseOrder, and the rulebook is for SetDiscount"
    with pytest.raises(Refused, match=said):
        opened.pipeline.promote(path, "ann")
    path.write_text(DISCOUNTS.replace("SetDiscount", "SetDiscounts"))
    with pytest.raises(Refused, match=r"5:9: there is no action 'SetDiscounts'; did you mean"):
        opened.pipeline.promote(path, "ann")


def test_days_go_on_under_a_dispatch_policy(opened: Shop) -> None:
    """The stages as `storekeep run` calls them."""
    day: date = FIRST_DAY
    runs = opened.pipeline.round(day).runs
    assert list(runs) == [("replenish", LOCATION)]
    opened.sell(day + timedelta(days=1))
    assert opened.pipeline.round(day + timedelta(days=1)).runs
    assert opened.pipeline.round(day + timedelta(days=1)).runs == {}


def test_the_commands_take_a_dispatch_policy_for_what_it_is(opened: Shop, tmp_path: Path) -> None:
    path = tmp_path / "dispatch.yaml"
    path.write_text(only(mode="shadow"))
    told = CliRunner().invoke(program, ["policy", "check", str(path), "--json"])
    assert (told.exit_code, json.loads(told.stdout)["dispatch"]) == (0, "one")
    home = str(opened.pipeline.lake._root.parents[1])
    words = ["--home", home, "--tenant", opened.pipeline.tenant]
    told = CliRunner().invoke(program, ["policy", "promote", str(path), "--as", "ann", *words])
    assert told.exit_code == 0, told.output
    (entry,) = noted(opened.pipeline, "promotion")
    assert (entry["of"], entry["by"], entry["text"]) == ("dispatch", "ann", path.read_text())
    asked = ["agents", "mode", "replenish", "canary", "--in", LOCATION, "--reason", "we try it"]
    for approver, code in (("operator", 1), ("bea", 0)):
        told = CliRunner().invoke(program, [*asked, "--approver", approver, *words])
        assert told.exit_code == code, told.output
    told = CliRunner().invoke(program, ["agents", "halt", "--reason", "prices", *words])
    assert told.output == "every agent is stopped, by operator.\n"
    told = CliRunner().invoke(program, ["agents", "list", *words])
    assert "canary in DC1" in told.output
    assert "prices" in told.output
    for said in ("every agent goes on, by operator.\n", "every agent was not stopped.\n"):
        told = CliRunner().invoke(program, ["agents", "resume", "--reason", "mended", *words])
        assert told.output == said
