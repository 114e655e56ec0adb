"""The laws, over a small shop on the real store: what is decided stays so, once, whatever comes later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep import features, ledger, policy
from storekeep.config import Settings
from storekeep.decisions import Selection, Status, fold
from storekeep.errors import Refused
from storekeep.lake import SALE_LINES, TERMS
from storekeep.ledger import Step
from storekeep.retail import SALE_LINE
from tests.shop import (
    BUYER,
    FIRST_DAY,
    HISTORY_DAYS,
    LOCATION,
    SKUS,
    TILLS,
    Shop,
    moment,
    of_tenant,
    opened_shop,
    sales,
    same_text,
    terms,
)

MONDAY = FIRST_DAY
TUESDAY, WEDNESDAY, THURSDAY = (FIRST_DAY + timedelta(days=number) for number in (1, 2, 3))
# The days on which something is decided or arrives are enough.
DAYS = (MONDAY, TUESDAY, THURSDAY)
NEXT_MONDAY, NEXT_TUESDAY = MONDAY + timedelta(days=7), MONDAY + timedelta(days=8)
SHIPPED = (policy.SHIPPED / "replenish.yaml").read_text()
_numbers = count(1)


@contextmanager
def a_shop(home: Settings, name: str) -> Iterator[Shop]:
    """The shop of a tenant that nobody has used before."""
    with opened_shop(of_tenant(home, f"law_{name}_{next(_numbers)}")) as opened:
        yield opened


def all_decisions(shop: Shop, chosen: Selection | None = None) -> list[dict[str, Any]]:
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        return tx.decisions(chosen or Selection())


def forbidding(*skus: str) -> str:
    """The rulebook that ships, with one more rule: these items are not ordered."""
    listed = ", ".join(f"'{sku}'" for sku in skus)
    rule = f"  - id: delisted\n    when: sku IN ({listed})\n    reason: It was delisted.\n"
    return SHIPPED.replace("\nforbid:\n", "\nforbid:\n" + rule, 1)


def promote(shop: Shop, text: str, folder: Path) -> str:
    path = folder / "rulebook.yaml"
    path.write_text(text)
    return shop.pipeline.promote(path, BUYER)


# Taken in once ----------------------------------------------------------------------------------------


def test_taking_in_twice_is_taking_in_once(home_settings: Settings) -> None:
    with a_shop(home_settings, "once") as once, a_shop(home_settings, "twice") as twice:
        once.prepare()
        once.play(MONDAY)
        twice.prepare()
        twice.prepare()
        twice.play(MONDAY)
        twice.sell(MONDAY)
        whole = sales(MONDAY - timedelta(days=HISTORY_DAYS), MONDAY)
        assert twice.pipeline.take_in(whole, "another till", LOCATION) == (0, whole.num_rows)
        assert twice.decide(MONDAY) is None
        twice.act(MONDAY)
        for shop in (once, twice):
            shop.pipeline.keep_history()
            shop.pipeline.note_unheard()
        assert same_text(twice.state()) == same_text(once.state())


def values_of(shop: Shop, day: date) -> list[dict[str, Any]]:
    """The features of the shop's items, without what names the way they came."""
    lake = shop.pipeline.lake
    rows = features.compute(
        lake,
        LOCATION,
        today=day,
        known_by=moment(day, 23),
        versions=lake.versions(("sale_line", "order_move", "supply_terms")),
    )
    return listed(rows.drop_columns(["inputs"]))


def listed(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def facts_of(shop: Shop) -> list[dict[str, Any]]:
    lines = shop.pipeline.lake.query(
        "SELECT * EXCLUDE (position, fact) FROM line ORDER BY line_key", tables={"line": SALE_LINES}
    )
    return listed(lines)


SOME = sales(MONDAY - timedelta(days=20), MONDAY, moment(MONDAY, 22))


@pytest.fixture(scope="module")
def in_order(home_settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Facts and features of three weeks that came in order, in one batch."""
    with a_shop(home_settings, "order") as shop:
        shop.clock.now = moment(MONDAY, 22)
        shop.pipeline.lake.append(TERMS, terms(), writer="shop", position=1)
        shop.pipeline.take_in(SOME, TILLS, LOCATION)
        shop.pipeline.keep_history()
        return facts_of(shop), values_of(shop, MONDAY)


@settings(max_examples=6)
@given(data=st.data())
def test_lines_in_any_order_and_any_batches_give_the_same_facts_and_features(
    data: st.DataObject,
    home_settings: Settings,
    in_order: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    many = SOME.num_rows
    order = data.draw(st.permutations(range(many)), "order")
    cuts = data.draw(st.lists(st.integers(0, many), max_size=5).map(sorted), "cuts")
    # A till that was cut off sends again what it had sent.
    overlap = data.draw(st.integers(0, 30), "overlap")
    shuffled = SOME.take(order)
    with a_shop(home_settings, "shuffled") as shop:
        shop.clock.now = moment(MONDAY, 22)
        shop.pipeline.lake.append(TERMS, terms(), writer="shop", position=1)
        taken = 0
        for first, last in pairwise([0, *cuts, many]):
            start = max(0, first - overlap)
            fresh, known = shop.pipeline.take_in(
                shuffled.slice(start, last - start), TILLS, LOCATION
            )
            assert (fresh, known) == (last - first, first - start)
            taken += fresh
        shop.pipeline.keep_history()
        assert taken == many
        facts, values = in_order
        assert facts_of(shop) == facts
        assert values_of(shop, MONDAY) == values


# Later changes nothing earlier ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(home_settings: Settings) -> Iterator[Shop]:
    """A week and the two review days after it, with an approval, a delivery and a revert."""
    with a_shop(home_settings, "played") as shop:
        shop.prepare()
        shop.play(*DAYS, NEXT_MONDAY)
        shop.revert("north", NEXT_MONDAY)
        shop.play(NEXT_TUESDAY)
        yield shop


def replayed(shop: Shop) -> None:
    """Every decision of the shop comes out as it was recorded."""
    rows = all_decisions(shop)
    # One replay makes all decisions of its run again.
    runs = {row["batch_id"]: row["decision_id"] for row in rows}
    assert len(runs) >= 2
    for decision_id in runs.values():
        told = shop.pipeline.replay(decision_id)
        assert told["identical"], told
        assert told["run_identical"], told
        assert told["recorded_digest"] == told["replayed_digest"]


def test_every_decision_replays_as_it_was_recorded(played: Shop) -> None:
    assert {row["verdict"] for row in all_decisions(played)} == {
        *("allow", "clip", "escalate", "deny", "hold")
    }
    for row in all_decisions(played):
        assert played.pipeline.replay(row["decision_id"])["identical"]
    replayed(played)


def test_the_digest_of_a_replay_is_that_of_the_sealed_batch(played: Shop) -> None:
    row = all_decisions(played)[0]
    with played.pipeline.store.transaction(played.pipeline.tenant) as tx:
        number = ledger.steps(tx, [row["decision_id"]])[row["decision_id"]][0]["batch"]
        sealed = tx.ledger_batches(number, number)[0]
    assert played.pipeline.replay(row["decision_id"])["replayed_digest"] == sealed["root"]


def past(shop: Shop, day: date, position: int) -> str:
    """What was known at the end of a day, read from the newest version of everything."""
    lake = shop.pipeline.lake
    versions = lake.versions(("sale_line", "order_move", "supply_terms"))
    rows = features.compute(lake, LOCATION, today=day, known_by=moment(day, 22), versions=versions)
    shelf = features.stock_as_of(lake, LOCATION, position)
    snapshot = features.snapshot(
        lake, LOCATION, known_by=moment(day, 22), stock=shelf, position=position
    )
    return same_text(
        [
            rows.drop_columns(["inputs"]).to_pylist(),
            shelf.to_pylist(),
            snapshot.values.to_pylist(),
            snapshot.digests().to_pylist(),
        ]
    )


def recorded_position(shop: Shop, day: date) -> int:
    """The place in the log up to which the run of a day had read."""
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        numbers = [sealed["batch"] for sealed in tx.ledger_batches()]
        heads = [ledger.header(tx, number) for number in numbers]
    return next(
        int(head["position"])
        for head in heads
        if head["kind"] == "batch" and head["decided_at"].startswith(str(day))
    )


@st.composite
def corrections(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Lines of the past that come to be known after all that was decided."""
    return [
        {
            "sku": draw(st.sampled_from(SKUS)),
            "day": MONDAY - timedelta(days=draw(st.integers(-7, 90))),
            "quantity_units": draw(st.integers(-50, 500).filter(bool)),
        }
        for _ in range(draw(st.integers(1, 4)))
    ]


@settings(max_examples=4)
@given(late=corrections())
def test_a_late_correction_changes_no_past_snapshot_and_no_replay(
    late: list[dict[str, Any]], played: Shop
) -> None:
    position = recorded_position(played, MONDAY)
    before = past(played, MONDAY, position)
    played.clock.now = moment(NEXT_TUESDAY, 23, 30)
    assert played.pipeline.take_in(correction(late, played.clock.now), "office", LOCATION) == (
        len(late),
        0,
    )
    played.pipeline.move_stock()
    played.pipeline.keep_history()
    assert past(played, MONDAY, position) == before
    replayed(played)


def correction(late: list[dict[str, Any]], known_at: datetime) -> pa.Table:
    rows = [
        {
            "line_key": f"correction/{next(_numbers)}",
            "location_id": LOCATION,
            "store_id": "S1",
            "basket_id": "correction",
            "value_minor": 0,
            "currency": "USD",
            "customer_id": None,
            "occurred_at": moment(each["day"], 12),
            "known_at": known_at,
            "source_file": "corrections.csv",
            "source_line": place,
            **each,
        }
        for place, each in enumerate(late, 1)
    ]
    return pa.Table.from_pylist(rows, schema=SALE_LINE.arrow)


def test_a_late_correction_is_seen_from_when_it_is_known(home_settings: Settings) -> None:
    with a_shop(home_settings, "late") as shop:
        shop.prepare()
        shop.play(MONDAY)
        shop.clock.now = moment(TUESDAY, 8)
        late = [{"sku": "bread", "day": MONDAY - timedelta(days=3), "quantity_units": 91}]
        shop.pipeline.take_in(correction(late, shop.clock.now), "office", LOCATION)
        shop.pipeline.keep_history()

        def bread(known_by: datetime) -> float:
            lake = shop.pipeline.lake
            rows = features.compute(
                lake,
                LOCATION,
                today=MONDAY,
                known_by=known_by,
                versions=lake.versions(("sale_line", "order_move", "supply_terms")),
                only=["bread"],
            )
            return float(rows["demand_mean_91d"][0].as_py())

        evening = bread(moment(MONDAY, 22))
        assert bread(moment(TUESDAY, 7, 59)) == evening
        assert bread(moment(TUESDAY, 8)) == pytest.approx(evening + 1, abs=2e-6)


def test_later_rulebooks_change_no_replay_and_only_later_verdicts(
    home_settings: Settings, tmp_path: Path
) -> None:
    with a_shop(home_settings, "rules") as shop:
        shop.prepare()
        shop.play(MONDAY, TUESDAY)
        before = [row["verdict"] for row in all_decisions(shop)]
        version = promote(shop, forbidding("bread", "wine", "milk", "novelty"), tmp_path)
        shop.play(THURSDAY, NEXT_MONDAY, NEXT_TUESDAY)
        replayed(shop)
        rows = all_decisions(shop)
        assert [row["verdict"] for row in rows][-len(before) :] == before
        later = [row for row in rows if row["rulebook_version"] == version]
        assert len(later) >= 2
        assert {row["verdict"] for row in later} <= {"deny", "hold"}
        # The first rulebook again: promoting is itself an entry in a list that only grows.
        promote(shop, SHIPPED, tmp_path)
        replayed(shop)


def test_a_replay_survives_compaction_and_a_new_process(home_settings: Settings) -> None:
    tenant = f"law_compact_{next(_numbers)}"
    with opened_shop(of_tenant(home_settings, tenant)) as shop:
        shop.prepare()
        shop.play(*DAYS)
    folder = home_settings.home / "lake" / tenant
    compacted = 0
    for path in sorted(folder.iterdir()):
        told = DeltaTable(str(path)).optimize.compact()
        compacted += told["numFilesRemoved"]
    assert compacted > 4
    with opened_shop(of_tenant(home_settings, tenant)) as shop:
        shop.clock.now = moment(THURSDAY, 23)
        replayed(shop)
        shop.play(NEXT_MONDAY)
        # Compacted while somebody has the tables open.
        for path in sorted(folder.iterdir()):
            DeltaTable(str(path)).optimize.compact()
        shop.play(NEXT_TUESDAY)
        replayed(shop)
        assert live_stock(shop) == folded_stock(shop)


# Nothing unrecorded -----------------------------------------------------------------------------------


def test_no_decision_is_without_its_ledger_entry_and_no_entry_without_its_decision(
    played: Shop,
) -> None:
    pipeline = played.pipeline
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = {row["decision_id"]: row for row in tx.decisions(Selection())}
        head = tx.ledger_head()[0]
        entries = ledger.entries(tx, 1, head).to_pylist()
        recorded = ledger.steps(tx, list(rows))
    made = [entry["decision_id"] for entry in entries if entry["kind"] == "decision"]
    assert sorted(made) == sorted(rows)
    assert len(set(made)) == len(made)
    for key, row in rows.items():
        steps = [each["step"] for each in recorded[key]]
        assert steps[0] == row["verdict"]
        assert str(fold(steps)) == row["status"]
        assert recorded[key][0]["subject"] == row["subject"]
        assert recorded[key][0].get("money_minor") == row["money_minor"]
    assert pipeline.rebuild_decisions() == {key: row["status"] for key, row in rows.items()}


def test_everything_in_the_back_office_was_decided_and_is_recorded(played: Shop) -> None:
    rows = {row["decision_id"]: row for row in all_decisions(played)}
    found = played.back_office.find(list(rows))
    lines = played.back_office.order_lines()
    assert set(lines["idempotency_key"].to_pylist()) <= set(found)
    acted = {Status.EXECUTED, Status.REVERTED}
    assert {key for key, row in rows.items() if row["status"] in acted} == set(found)
    with played.pipeline.store.transaction(played.pipeline.tenant) as tx:
        recorded = ledger.steps(tx, list(found))
    for key, receipt in found.items():
        said = recorded[key][0]["parameters"]
        assert receipt.details["ordered_units"] == said["order_units"]
        assert receipt.details["sku"] == said["sku"]
        outcome = next(each for each in recorded[key] if each["step"] == "executed")
        assert outcome["receipt"]["reference"] == receipt.reference


# A forbid wins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("skus", [{"bread", "wine"}, {"salt"}], ids=sorted)
def test_what_is_forbidden_never_becomes_an_action(
    skus: set[str], home_settings: Settings, tmp_path: Path
) -> None:
    with a_shop(home_settings, "forbid") as shop:
        shop.prepare()
        promote(shop, forbidding(*sorted(skus)), tmp_path)
        shop.play(MONDAY)
        found = shop.decisions()
        denied = {sku for sku, row in found.items() if row["verdict"] == "deny"}
        assert denied == skus
        ids = [found[sku]["decision_id"] for sku in sorted(skus)]
        assert shop.back_office.find(ids) == {}
        for sku in skus:
            assert found[sku]["status"] == Status.DENIED
            assert shop.stock()[sku]["on_order_units"] == 0
            assert shop.stock()[sku]["committed_units"] == 0
        with pytest.raises(Refused, match="does not wait for approval"):
            shop.pipeline.approve(ids, BUYER)
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            assert tx.count_tasks() == 0
            assert tx.approvals() == []
            steps = ledger.steps(tx, ids)
        assert all([each["step"] for each in said] == ["deny"] for said in steps.values())


def test_what_is_forbidden_before_it_is_approved_is_not_done(
    home_settings: Settings, tmp_path: Path
) -> None:
    with a_shop(home_settings, "approval") as shop:
        shop.prepare()
        for step in (shop.deliver, shop.sell, shop.remember, shop.decide):
            step(MONDAY)
        wine = shop.decisions()["wine"]
        assert wine["status"] == Status.ESCALATED
        assert shop.stock()["wine"]["committed_units"] == 0
        shop.pipeline.move_stock()
        assert shop.stock()["wine"]["committed_units"] > 0
        promote(shop, forbidding("wine"), tmp_path)
        shop.clock.now = moment(MONDAY, 22, 30)
        assert shop.pipeline.approve([wine["decision_id"]], BUYER) == {
            wine["decision_id"]: "denied"
        }
        shop.act(MONDAY)
        assert shop.decisions()["wine"]["status"] == Status.DENIED
        assert shop.stock()["wine"]["committed_units"] == 0
        assert shop.back_office.find([wine["decision_id"]]) == {}
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            used = tx.uses("supplier-week", MONDAY, MONDAY)
        assert pc.sum(used["amount"]).as_py() == sum(
            row["money_minor"] for sku, row in shop.decisions().items() if sku != "wine"
        )


def test_an_approval_that_comes_too_late_does_nothing(home_settings: Settings) -> None:
    with a_shop(home_settings, "expired") as shop:
        shop.prepare()
        for step in (shop.deliver, shop.sell, shop.remember, shop.decide, shop.act):
            step(MONDAY)
        wine = shop.decisions()["wine"]["decision_id"]
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            (request,) = tx.approvals([wine])
        shop.clock.now = request["deadline"] + timedelta(seconds=1)
        assert shop.pipeline.approve([wine], BUYER) == {wine: "expired"}
        shop.pipeline.act()
        shop.pipeline.move_stock()
        assert shop.decisions()["wine"]["status"] == Status.EXPIRED
        assert shop.stock()["wine"]["committed_units"] == 0
        with pytest.raises(Refused):
            shop.pipeline.approve([wine], BUYER)


# And back ---------------------------------------------------------------------------------------------


def live_stock(shop: Shop) -> str:
    return same_text(shop.stock())


def folded_stock(shop: Shop) -> str:
    """The same positions as the facts of the lake give them."""
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        heads = tx.heads()
    shop.pipeline.keep_history()
    table = features.stock_as_of(shop.pipeline.lake, LOCATION, max(heads.values()))
    rows = {row.pop("sku"): row for row in table.drop_columns(["location_id"]).to_pylist()}
    return same_text(rows)


def test_stock_is_what_its_facts_make_it(played: Shop) -> None:
    played.pipeline.move_stock()
    live = live_stock(played)
    assert folded_stock(played) == live
    played.pipeline.rebuild_stock()
    assert live_stock(played) == live


def on_its_way(position: dict[str, int]) -> int:
    return position["on_order_units"] + position["committed_units"]


def plan_of(shop: Shop, ids: list[str]) -> list[Step]:
    return shop.pipeline.plan_revert(Selection(ids=tuple(ids)))


@pytest.mark.parametrize(
    ("skus", "approved", "carried_out"),
    [
        ({"bread", "wine"}, False, False),
        ({"wine"}, True, False),
        ({"bread", "wine"}, False, True),
        ({"salt", "wine"}, True, True),
    ],
)
def test_a_revert_restores_what_was_on_order(
    skus: set[str], approved: bool, carried_out: bool, home_settings: Settings
) -> None:
    with a_shop(home_settings, "revert") as shop:
        shop.prepare()
        for step in (shop.deliver, shop.sell, shop.remember):
            step(MONDAY)
        before = shop.stock()
        shop.decide(MONDAY)
        if approved:
            shop.buy(MONDAY)
        if carried_out:
            shop.act(MONDAY)
        shop.pipeline.move_stock()
        between = shop.stock()
        ids = shop.ids(*sorted(skus))
        plan = plan_of(shop, ids)
        assert {step.what for step in plan} <= {"compensate", "withdraw"}
        assert shop.stock() == between
        shop.clock.now = moment(MONDAY, 23, 10)
        assert shop.pipeline.revert(plan, BUYER, "too much") == len(ids)
        assert shop.pipeline.revert(plan, BUYER, "too much") == 0
        shop.act(MONDAY)
        after = shop.stock()
        for sku, was in before.items():
            # What was pending of the others has meanwhile been ordered.
            assert on_its_way(after[sku]) == on_its_way(was if sku in skus else between[sku])
            assert after[sku]["on_hand_units"] == was["on_hand_units"]
        for sku in sorted(skus):
            assert shop.decisions()[sku]["status"] == Status.REVERTED
        found = shop.back_office.find(ids)
        assert all(receipt.details["cancelled"] for receipt in found.values())
        assert {step.what for step in plan_of(shop, ids)} == {"nothing"}
        assert live_stock(shop) == folded_stock(shop)
        assert shop.pipeline.verify().ok


def test_goods_that_have_arrived_are_left_to_a_person(home_settings: Settings) -> None:
    with a_shop(home_settings, "arrived") as shop:
        shop.prepare()
        shop.play(MONDAY)
        ids = shop.ids("bread", "salt")
        shop.deliver(TUESDAY)
        before = shop.stock()
        plan = plan_of(shop, ids)
        assert {step.what for step in plan} == {"person"}
        shop.clock.now = moment(TUESDAY, 7)
        shop.pipeline.revert(plan, BUYER, "too late")
        shop.act(TUESDAY)
        assert shop.stock() == before
        assert {shop.decisions()[sku]["status"] for sku in ("bread", "salt")} == {
            Status.NEEDS_PERSON
        }


def test_what_was_reverted_is_free_for_the_budget_and_ordered_again(
    home_settings: Settings,
) -> None:
    with a_shop(home_settings, "again") as shop:
        shop.prepare()
        shop.play(MONDAY)

        def used() -> dict[str, int]:
            with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
                rows = tx.uses("supplier-week", MONDAY, MONDAY + timedelta(days=6)).to_pylist()
            return {row["key"]: row["amount"] for row in rows}

        assert sum(used().values()) > 0
        shop.revert("north", MONDAY)
        assert used() == {}
        shop.play(NEXT_MONDAY)
        again = {
            row["subject"] for row in all_decisions(shop, Selection(since=moment(NEXT_MONDAY)))
        }
        assert again == {f"{sku}@{LOCATION}" for sku in ("bread", "salt", "wine")}


def test_the_ledger_says_who_took_what_back_and_why(home_settings: Settings) -> None:
    with a_shop(home_settings, "said") as shop:
        shop.prepare()
        shop.play(MONDAY)
        bread = shop.ids("bread")[0]
        shop.revert("north", MONDAY)
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            told = ledger.steps(tx, [bread])[bread]
        assert [each["step"] for each in told] == ["allow", "executed", "reverting", "compensated"]
        assert told[2]["by"] == BUYER
        assert told[2]["reason"] == "too much"
        assert told[2]["reverses"] is True
        assert told[3]["receipt"]["details"]["cancelled"] is True
        assert json.dumps(told[0]["evidence"])


def test_a_run_that_holds_everything_is_recorded_and_replays(home_settings: Settings) -> None:
    with a_shop(home_settings, "held") as shop:
        shop.prepare()
        dear = terms(moment(MONDAY, 1))
        place = dear.column_names.index("supplier_minimum_minor")
        beyond = pa.array([10**9] * dear.num_rows, pa.int64())
        shop.pipeline.lake.append(
            TERMS,
            dear.set_column(place, "supplier_minimum_minor", beyond),
            writer="shop",
            position=2,
        )
        shop.play(MONDAY)
        assert {row["verdict"] for row in all_decisions(shop)} == {"hold"}
        assert shop.pending() == 0
        for row in all_decisions(shop):
            assert shop.pipeline.replay(row["decision_id"])["run_identical"]
        assert shop.pipeline.verify().ok
