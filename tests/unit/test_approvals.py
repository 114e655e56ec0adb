"""Approvals: who may, to what a word binds, what a change brings with it, and a revert taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from storekeep import ledger, policy
from storekeep.config import Settings
from storekeep.decisions import Selection, Status
from storekeep.errors import Refused
from storekeep.pipeline import Pipeline, digest_of
from tests import orders, shop
from tests.shop import BUYER, FIRST_DAY, Shop, moment

BOOK = """
rulebook: replenish
owner: buying
agent: replenish
action: PlacePurchaseOrder
safe_default: Order nothing.
roles: [buyer, head]
permit:
  - {id: any-order, when: order_units > 0, reason: An order.}
forbid:
  - {id: broken-pack, when: order_units % pack_size_units <> 0, reason: "{order_units} is no whole pack."}
escalate:
  - id: large
    when: group_value_minor > 5000
    role: buyer
    reason: "The order comes to {group_value_minor:money}."
    change: {order_units: {at_least: pack_size_units, at_most: 2 * order_units}}
  - {id: great, when: group_value_minor > 20000, role: head, persons: 2, reason: Great.}
limits:
  - id: supplier-day
    sum: order_value_minor
    by: [supplier_id]
    at_most: 1000000
    per: day
    then: forbid
    reason: "{total} is too much."
"""
PRINCIPALS = {"ann": ("buyer",), "hal": ("head",), "ida": ("head",), "cy": ("clerk",)}


@pytest.fixture(scope="module")
def opened(home_settings: Settings) -> Iterator[Shop]:
    with shop.opened_shop(shop.new_tenant(home_settings)) as found:
        yield found


@pytest.fixture
def office(opened: Shop) -> Pipeline:
    """A pipeline with four persons and the rulebook above, on an evening."""
    opened.clock.now = orders.AT
    opened.pipeline.principals = PRINCIPALS
    orders.publish(opened.pipeline, BOOK)
    return opened.pipeline


@pytest.fixture
def number(request: pytest.FixtureRequest) -> int:
    """A number of an item that no other test orders; nine more are the same supplier's."""
    names = [item.nodeid for item in request.session.items]
    return names.index(request.node.nodeid) * 10


def recorded(office: Pipeline, number: int, *units: int) -> list[str]:
    lines = [orders.order(number + place, many) for place, many in enumerate(units)]
    orders.count_shelves(office, [line["sku"] for line in lines])
    return orders.recorded(office, lines, book=BOOK.replace("{", "{{").replace("}", "}}"))


def request(office: Pipeline, key: str) -> dict[str, Any]:
    with office.store.transaction(office.tenant) as tx:
        (row,) = tx.approvals([key])
    return row


def last(office: Pipeline, key: str) -> dict[str, Any]:
    return orders.steps(office, [key])[key][-1]


# Who may ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("cy", "for the role buyer or above, which cy does not have"),
        ("eve", "which eve does not have"),
        ("agent:replenish", "agents propose, a person answers"),
    ],
)
def test_who_may_not(office: Pipeline, number: int, by: str, said: str) -> None:
    (key,) = recorded(office, number, 60)
    for word in (
        lambda: office.approve([key], by),
        lambda: office.reject([key], by, "no"),
        lambda: office.change(key, by, {"order_units": 48}, "fewer"),
    ):
        with pytest.raises(Refused, match=said):
            word()
    assert [each["step"] for each in orders.steps(office, [key])[key]] == ["escalate"]


@pytest.mark.parametrize("by", ["ann", "hal"])
def test_a_role_or_a_higher_one_may(office: Pipeline, number: int, by: str) -> None:
    one, other = recorded(office, number, 60, 60)
    assert office.approve([one], by) == {one: "approved"}
    assert office.reject([other], by, "enough") == {other: "rejected"}
    assert last(office, other)["safe_default"] == "Order nothing."


def test_where_no_principals_are_set_everybody_may(office: Pipeline, number: int) -> None:
    office.principals = {}
    (key,) = recorded(office, number, 60)
    assert office.approve([key], "somebody") == {key: "approved"}


def test_two_persons_have_to_agree_and_one_twice_is_one(office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 240)
    with pytest.raises(Refused, match="role head,"):
        office.approve([key], "ann")
    assert office.approve([key], "hal") == {key: "agreed"}
    assert office.approve([key], "hal") == {key: "agreed"}
    assert (request(office, key)["agreed"], request(office, key)["persons"]) == (["hal"], 2)
    office.act()
    assert orders.statuses(office, [key]) == {key: Status.ESCALATED}
    assert office.approve([key], "ida") == {key: "approved"}
    office.act()
    told = orders.steps(office, [key])[key]
    assert [each["step"] for each in told] == ["escalate", "agreed", "approved", "executed"]
    assert (told[1]["agreed"], told[2]["agreed"]) == (["hal"], ["hal", "ida"])
    assert (told[2]["role"], told[2]["persons"]) == ("head", 2)


def test_who_lost_the_role_since_does_not_count_any_more(office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 240)
    office.approve([key], "hal")
    office.principals = {**PRINCIPALS, "hal": ("buyer",), "joe": ("head",)}
    assert office.approve([key], "ida") == {key: "agreed"}
    assert office.approve([key], "joe") == {key: "approved"}


def test_what_only_one_agreed_to_lapses(opened: Shop, office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 240)
    office.approve([key], "hal")
    opened.clock.now += timedelta(days=2)
    assert office.approve([key], "ida") == {key: "expired"}
    office.act()
    assert orders.stock(office)[f"sku{number:05}"]["committed_units"] == 0


# To what ----------------------------------------------------------------------------------------------


def test_a_word_is_given_on_what_was_seen(office: Pipeline, number: int) -> None:
    one, other = recorded(office, number, 60, 66)
    seen = [request(office, key)["digest"] for key in (one, other)]
    for word in (
        lambda: office.approve([one], "ann", seen[1]),
        lambda: office.approve([one, other], "ann", seen[0]),
        lambda: office.reject([one], "ann", "no", seen[1]),
        lambda: office.change(one, "ann", {"order_units": 48}, "fewer", seen[1]),
    ):
        with pytest.raises(Refused, match="not what you saw"):
            word()
    office.change(one, "hal", {"order_units": 66}, "more")
    with pytest.raises(Refused, match="not what you saw"):
        office.approve([one], "ann", seen[0])
    now = [request(office, key)["digest"] for key in (one, other)]
    assert now[0] != seen[0]
    assert set(office.approve([one, other], "ann", digest_of(now)).values()) == {"approved"}


def test_the_rulebook_in_force_judges_and_is_named(office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 60)
    stricter = BOOK.replace("role: buyer", "role: head\n    persons: 2", 1)
    orders.publish(office, stricter)
    with pytest.raises(Refused, match="role head,"):
        office.approve([key], "ann")
    assert office.approve([key], "hal") == {key: "agreed"}
    orders.publish(office, BOOK.replace("> 5000", "> 1000000"))
    # What was asked for at first still is, though nobody is asked any more.
    assert office.approve([key], "ann") == {key: "approved"}
    with office.store.transaction(office.tenant) as tx:
        in_force = tx.registered("rulebook", "replenish")
    assert in_force is not None
    assert last(office, key)["rulebook_version"] == in_force[0]


def test_a_line_of_an_order_is_judged_as_part_of_it(office: Pipeline, number: int) -> None:
    """Approving line by line is no way around a rule about the order."""
    ids = recorded(office, number, 60, 60, 60)
    capped = BOOK.replace(
        "forbid:\n", "forbid:\n  - {id: capped, when: group_value_minor > 15000, reason: Capped.}\n"
    )
    orders.publish(office, capped)
    assert office.approve(ids[:1], "hal") == {ids[0]: "denied"}
    # The order is smaller now that a line of it is gone.
    assert office.approve(ids[1:2], "hal") == {ids[1]: "approved"}


# What a person needs to know ---------------------------------------------------------------------------


def test_the_outlook_has_what_one_needs_to_know(
    opened: Shop, office: Pipeline, number: int
) -> None:
    (key,) = recorded(office, number, 60)
    opened.clock.now += timedelta(hours=3)
    (told,) = office.outlook([key])
    assert told["parameters"]["order_units"] == told["proposed"]["order_units"] == 60
    assert told["arithmetic"] == {"wanted": 60}
    assert (told["role"], told["persons"], told["proposed_by"]) == ("buyer", 1, "agent:replenish")
    assert told["safe_default"] == "Order nothing."
    assert told["evidence_age_hours"] == 3.0
    assert {rule["rule"]: rule["reason"] for rule in told["rules"]} == {
        "large": "The order comes to 60.00 USD.",
        "any-order": "An order.",
    }
    assert told["change"] == [
        {"rule": "large", "parameter": "order_units", "at_least": 6.0, "at_most": 120.0}
    ]
    assert (told["now"]["verdict"], told["now"]["if_approved"]) == ("escalate", "approved")
    orders.publish(
        office, BOOK.replace("> 5000", "> 5000 AND false").replace("% pack_size_units", "% 7")
    )
    (told,) = office.outlook([key])
    assert (told["now"]["verdict"], told["now"]["if_approved"]) == ("deny", "denied")
    assert told["now"]["rules"][0]["reason"] == "60 is no whole pack."
    assert told["change"] == []


# Another quantity --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"order_units": 126}, "order_units 126 is not 6 to 120, as rule large allows"),
        ({"order_units": 0}, "is not 6 to 120"),
        ({"order_units": 60}, "asks for exactly that already"),
        ({"order_units": 61}, "broken-pack: 61 is no whole pack."),
        (
            {"unit_cost_minor": 1},
            "no rule that asks about decision .* lets unit_cost_minor be changed",
        ),
    ],
)
def test_a_change_out_of_bounds_changes_nothing(
    office: Pipeline, number: int, values: dict[str, int], said: str
) -> None:
    (key,) = recorded(office, number, 60)
    before = request(office, key)
    with pytest.raises(Refused, match=said):
        office.change(key, "hal", values, "why not")
    assert request(office, key) == before
    assert len(orders.steps(office, [key])[key]) == 1


def test_bounds_stay_those_of_what_was_first_proposed(office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 60)
    assert office.change(key, "hal", {"order_units": 120}, "more") == "changed"
    with pytest.raises(Refused, match="is not 6 to 120"):
        office.change(key, "hal", {"order_units": 126}, "and more")


def test_a_change_that_nobody_has_to_be_asked_about_goes_ahead(
    office: Pipeline, number: int
) -> None:
    (key,) = recorded(office, number, 60)
    assert office.change(key, "ann", {"order_units": 48}, "the shelf is small") == "approved"
    office.act()
    told = orders.steps(office, [key])[key]
    assert [each["step"] for each in told] == ["escalate", "approved", "executed"]
    assert (told[1]["before"]["order_units"], told[1]["after"]["order_units"]) == (60, 48)
    assert told[1]["after"]["order_value_minor"] == told[1]["money_minor"] == 4800
    assert told[1]["reason"] == "the shelf is small"
    assert told[2]["receipt"]["details"]["ordered_units"] == 48
    position = orders.stock(office)[f"sku{number:05}"]
    assert (position["on_order_units"], position["committed_units"]) == (48, 0)


def test_whoever_asked_for_a_change_does_not_let_it_through_alone(
    office: Pipeline, number: int
) -> None:
    (key,) = recorded(office, number, 60)
    assert office.change(key, "ann", {"order_units": 72}, "a feast") == "changed"
    asked = request(office, key)
    assert (asked["changed_by"], asked["agreed"], asked["money_minor"]) == ("ann", ["ann"], 7200)
    assert orders.stock(office)[f"sku{number:05}"]["committed_units"] == 72
    assert office.approve([key], "ann") == {key: "agreed"}
    assert office.approve([key], "hal") == {key: "approved"}
    office.act()
    assert last(office, key)["receipt"]["details"]["ordered_units"] == 72


def test_a_change_beyond_the_amount_for_two_asks_two(office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 120)
    assert office.change(key, "ann", {"order_units": 240}, "a feast") == "changed"
    asked = request(office, key)
    # Ann's role is not enough for that, so she is not one of the two.
    assert (asked["role"], asked["persons"], asked["agreed"]) == ("head", 2, [])
    assert office.approve([key], "hal") == {key: "agreed"}
    assert office.change(key, "ida", {"order_units": 234}, "a smaller one") == "changed"
    assert request(office, key)["agreed"] == ["ida"]
    assert office.approve([key], "hal") == {key: "approved"}


def test_a_change_that_comes_too_late(opened: Shop, office: Pipeline, number: int) -> None:
    (key,) = recorded(office, number, 60)
    opened.clock.now += timedelta(days=2)
    assert office.change(key, "ann", {"order_units": 48}, "fewer") == "expired"


# In a shop: replayed, and taken back -------------------------------------------------------------------


@pytest.fixture
def monday(home_settings: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A Monday up to the decisions; the wine, never ordered before, waits for a buyer."""
    shipped = (policy.SHIPPED / "replenish.yaml").read_text()
    asked = "usual_order_units IS NULL AND order_value_minor > 50000\n    role: buyer\n"
    assert asked in shipped
    bounds = "    change: {order_units: {at_most: order_units}}\n"
    (tmp_path / "book.yaml").write_text(shipped.replace(asked, asked + bounds))
    with shop.opened_shop(shop.new_tenant(home_settings)) as found:
        found.prepare()
        found.pipeline.promote(tmp_path / "book.yaml", BUYER)
        for _, step in found.day_steps(FIRST_DAY)[:4]:
            step()
        yield found


def test_a_changed_decision_replays_as_it_was_recorded(monday: Shop) -> None:
    pipeline, (wine,) = monday.pipeline, monday.ids("wine")
    (told,) = pipeline.outlook([wine])
    assert told["change"][0]["at_least"] is None
    assert pipeline.change(wine, BUYER, {"order_units": 12}, "try it first") == "approved"
    monday.act(FIRST_DAY)
    assert monday.stock()["wine"]["on_order_units"] == 12
    assert pipeline.replay(wine)["run_identical"]
    with pipeline.store.transaction(pipeline.tenant) as tx:
        explained = ledger.explain(tx, pipeline.lake, wine)
    assert explained["parameters"]["order_units"] == 12
    assert explained["money_minor"] == 12 * 2500
    text = ledger.text(explained)
    assert "30 units, changed by a person to 12" in text
    assert "order_units 30 -> 12" in text
    before = monday.decisions()
    pipeline.rebuild_decisions()
    assert monday.decisions() == before


def test_a_revert_is_taken_back_by_new_decisions(monday: Shop) -> None:
    pipeline, old = monday.pipeline, monday.ids("bread", "salt", "wine")
    monday.act(FIRST_DAY)
    before = monday.stock()
    chosen = Selection(ids=tuple(old))
    pipeline.revert(pipeline.plan_revert(chosen), "cleo", "wrong supplier")
    with pipeline.store.transaction(pipeline.tenant) as tx:
        reverted = tx.ledger_batches()[-1]["batch_id"]
    monday.act(FIRST_DAY)
    plan = pipeline.plan_undo([reverted])
    assert {step.what for step in plan} == {"propose"}
    assert {step.decision_id for step in plan} == set(old)
    monday.clock.now = moment(FIRST_DAY, 23, 20)
    (run,) = pipeline.undo(plan, "cleo", "it was the right one")
    assert pipeline.undo(plan, "cleo", "twice") == []
    assert (run.verdicts["allow"], run.verdicts["escalate"]) == (2, 1)
    monday.act(FIRST_DAY)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        again = tx.proposed_again(old)
        rows = {row["decision_id"]: row for row in tx.decisions(Selection())}
    assert set(again) == set(old)
    for key, new in again.items():
        assert rows[key]["status"] == Status.REVERTED
        assert rows[new]["reverses"] == key
        assert pipeline.replay(new)["run_identical"]
    assert monday.stock() == before
    assert {step.what for step in pipeline.plan_undo(old)} == {"nothing"}
    # Cleo asked for it, so somebody else has to approve.
    wine = again[old[2]]
    with pytest.raises(Refused, match="cleo asked for decision"):
        pipeline.approve([wine], "cleo")
    assert pipeline.approve([wine], BUYER) == {wine: "approved"}
    with pipeline.store.transaction(pipeline.tenant) as tx:
        text = ledger.text(ledger.explain(tx, pipeline.lake, wine))
    assert f"proposes decision {old[2]} again, asked for by cleo" in text
    states = {key: row["status"] for key, row in rows.items()}
    assert pipeline.rebuild_decisions() == states | {wine: "pending"}
    assert pipeline.verify().ok


def test_what_was_not_taken_back_is_not_proposed_again(monday: Shop) -> None:
    (bread,) = monday.ids("bread")
    (step,) = monday.pipeline.plan_undo([bread])
    assert (step.what, step.why) == ("nothing", "it is pending: it was not taken back")
    assert monday.pipeline.undo([step], BUYER, "why not") == []
    with pytest.raises(Refused, match="is no revert and no decision"):
        monday.pipeline.plan_undo(["01990000-0000-7000-8000-000000000000"])


def test_two_orders_of_one_item_are_both_proposed_again(monday: Shop) -> None:
    """Each in a run of its own, the second one knowing of the first."""
    pipeline, later = monday.pipeline, FIRST_DAY + timedelta(days=7)
    monday.act(FIRST_DAY)
    old = monday.ids("bread")
    monday.revert("north", FIRST_DAY)
    monday.play(later)
    old += monday.ids("bread")
    monday.revert("north", later)
    monday.clock.now = moment(later, 23, 20)
    runs = pipeline.undo(pipeline.plan_undo(old), BUYER, "both after all")
    assert [run.verdicts["allow"] + run.verdicts["clip"] for run in runs] == [1, 1]
    with pipeline.store.transaction(pipeline.tenant) as tx:
        again = tx.proposed_again(old)
    assert set(again) == set(old)
    assert all(pipeline.replay(new)["run_identical"] for new in again.values())


def test_what_cannot_be_taken_back_is_left_to_a_person() -> None:
    row = {"decision_id": "d", "subject": "s", "action": "Recall", "status": "executed"}
    receipt = {
        "idempotency_key": "d",
        "adapter": "a",
        "reference": "r",
        "fingerprint": "f",
        "details": {},
    }
    steps: list[dict[str, Any]] = [{"step": "allow"}, {"step": "executed", "receipt": receipt}]
    found = {"d": ledger.receipt_of(steps)}
    step = ledger.plan(row, steps, found, final=True)
    assert (step.what, step.why) == (
        "cannot",
        "Recall cannot be taken back: a person has to see to it",
    )
    assert ledger.plan(row, steps, found).what == "compensate"


@pytest.fixture
def taken_back(monday: Shop) -> list[str]:
    """The bread and the salt of Monday were ordered, and taken back."""
    old = monday.ids("bread", "salt")
    monday.act(FIRST_DAY)
    monday.pipeline.revert(monday.pipeline.plan_revert(Selection(ids=tuple(old))), BUYER, "a slip")
    monday.act(FIRST_DAY)
    monday.clock.now = moment(FIRST_DAY, 23, 20)
    return old


def set_mode(pipeline: Pipeline, mode: str, *groups: str) -> None:
    pipeline.set_mode(
        "replenish", mode, by="ann", approver="bea", reason="we try it", groups=groups
    )


@pytest.mark.parametrize(("mode", "where"), [("shadow", ()), ("canary", ("S*",))])
def test_what_is_proposed_again_in_shadow_is_recorded_and_not_done(
    monday: Shop, taken_back: list[str], mode: str, where: tuple[str, ...]
) -> None:
    pipeline, before = monday.pipeline, monday.stock()
    orders_before = monday.back_office.count_orders()
    set_mode(pipeline, mode, *where)
    (run,) = pipeline.undo(pipeline.plan_undo(taken_back), BUYER, "after all")
    assert (run.mode, run.verdicts["allow"]) == ("shadow", 2)
    monday.act(FIRST_DAY)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx.decisions(Selection(batch_id=run.batch_id))
    assert {row["status"] for row in rows} == {Status.SHADOWED}
    assert {row["reverses"] for row in rows} == set(taken_back)
    assert monday.stock() == before
    assert monday.back_office.count_orders() == orders_before
    assert pipeline.replay(rows[0]["decision_id"])["run_identical"]
    # What was only thought of does not keep it from being proposed again in earnest, once.
    set_mode(pipeline, "live")
    monday.clock.now += timedelta(minutes=1)
    (run,) = pipeline.undo(pipeline.plan_undo(taken_back), BUYER, "now really")
    assert (run.mode, run.verdicts["allow"]) == ("live", 2)
    monday.act(FIRST_DAY)
    assert monday.back_office.count_orders() == orders_before + 1
    assert {step.what for step in pipeline.plan_undo(taken_back)} == {"nothing"}


def test_what_is_proposed_again_where_a_canary_acts_is_done(
    monday: Shop, taken_back: list[str]
) -> None:
    set_mode(monday.pipeline, "canary", shop.LOCATION)
    (run,) = monday.pipeline.undo(monday.pipeline.plan_undo(taken_back), BUYER, "after all")
    assert run.mode == "live"
    monday.act(FIRST_DAY)
    with monday.pipeline.store.transaction(monday.pipeline.tenant) as tx:
        rows = tx.decisions(Selection(batch_id=run.batch_id))
    assert {row["status"] for row in rows} == {Status.EXECUTED}


@pytest.mark.parametrize("how", ["off", "off for its version", "halted", "all halted"])
def test_nothing_is_proposed_again_of_an_agent_that_may_not_run(
    monday: Shop, taken_back: list[str], how: str
) -> None:
    pipeline = monday.pipeline
    plan = pipeline.plan_undo(taken_back)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        version = tx.decisions(Selection(ids=tuple(taken_back)))[0]["agent_version"]
    if how.startswith("off"):
        of = version if "version" in how else None
        pipeline.set_mode(
            "replenish", "off", by="ann", approver="bea", reason="bad", agent_version=of
        )
        said = f"replenish is off at {shop.LOCATION}"
    else:
        pipeline.halt("" if how.startswith("all") else "replenish", by="ann", reason="prices")
        said = r"replenish is stopped by ann \(prices\)"
    before = monday.decisions()
    with pytest.raises(Refused, match=said):
        pipeline.undo(plan, BUYER, "after all")
    assert monday.decisions() == before
    told = pipeline.plan_undo(taken_back)
    assert {step.what for step in told} == {"cannot"}
    assert all(re.search(said, step.why) for step in told)
    with pytest.raises(Refused, match=said):
        pipeline.undo(told, BUYER, "after all")


def test_two_persons_who_propose_again_at_once_are_told(
    monday: Shop, taken_back: list[str]
) -> None:
    """Two lines of an order would not know of each other."""
    pipeline = monday.pipeline
    one, other = pipeline.plan_undo(taken_back)
    with pipeline.store.again() as elsewhere, elsewhere.transaction(pipeline.tenant) as tx:
        assert tx.slot("undo", 1)
        with pytest.raises(Refused, match="at this moment"):
            pipeline.undo([one], BUYER, "after all")
    assert len(pipeline.undo([one, other], BUYER, "after all")) == 1
