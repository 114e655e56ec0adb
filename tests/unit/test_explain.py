"""An explanation holds everything from the till line to the receipt, and proves itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from storekeep import canonical, ledger
from storekeep.config import Settings
from storekeep.decisions import Status
from storekeep.errors import Refused
from tests.shop import BUYER, FIRST_DAY, LOCATION, Shop, moment, of_tenant, opened_shop, sales

MONDAY = FIRST_DAY
TUESDAY = MONDAY + timedelta(days=1)
VERDICTS = {"bread": "allow", "salt": "clip", "wine": "escalate", "lamp": "deny", "novelty": "hold"}
ANY = pytest.mark.parametrize("sku", VERDICTS)


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """Two days of the shop; what was ordered in the north on Monday is then taken back."""
    with opened_shop(of_tenant(home_settings, "explain")) as opened:
        opened.prepare()
        opened.play(MONDAY)
        opened.revert("north", MONDAY)
        opened.play(TUESDAY)
        yield opened


def explained(shop: Shop, sku: str, **more: Any) -> dict[str, Any]:
    (decision_id,) = shop.ids(sku)
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        return ledger.explain(tx, shop.pipeline.lake, decision_id, **more)


def text_of(shop: Shop, sku: str) -> str:
    return ledger.text(explained(shop, sku))


@ANY
def test_it_is_json_and_names_the_decision(sku: str, shop: Shop) -> None:
    told = explained(shop, sku)
    assert json.loads(json.dumps(told)) == told
    assert told["subject"] == f"{sku}@{LOCATION}"
    assert told["verdict"] == VERDICTS[sku]
    assert told["status"] == shop.decisions()[sku]["status"]
    assert told["decision_id"] == shop.ids(sku)[0]
    assert told["tenant"] == shop.pipeline.tenant


@ANY
def test_the_till_lines_are_those_of_the_files(sku: str, shop: Shop) -> None:
    told = explained(shop, sku, lines=500)
    today = MONDAY if sku in {"bread", "salt", "wine"} else TUESDAY
    rows = [
        row
        for row in sales(today - timedelta(days=90), today).to_pylist()
        if row["sku"] == sku and row["day"] <= today
    ]
    found = {
        (row["source_file"], row["source_line"], row["quantity_units"], row["basket_id"])
        for row in told["lines"]["newest"]
    }
    assert found == {
        (row["source_file"], row["source_line"], row["quantity_units"], row["basket_id"])
        for row in rows
    }
    assert told["lines"]["lines"] == len(rows)
    assert told["lines"]["units"] == sum(row["quantity_units"] for row in rows)
    assert told["lines"]["value_minor"] == sum(row["value_minor"] for row in rows)
    assert told["lines"]["files"] == sorted({row["source_file"] for row in rows})
    times = [row["occurred_at"] for row in told["lines"]["newest"]]
    assert times == sorted(times, reverse=True)


@ANY
def test_the_text_names_the_newest_lines_by_file_and_line(sku: str, shop: Shop) -> None:
    told, said = explained(shop, sku), text_of(shop, sku)
    assert len(told["lines"]["newest"]) == 5
    for row in told["lines"]["newest"]:
        assert f"{row['source_file']}:{row['source_line']}" in said
        assert row["basket_id"] in said
    assert f"{told['lines']['lines']} till lines" in said


def test_lines_that_came_to_be_known_later_are_not_in_it(shop: Shop) -> None:
    before = explained(shop, "bread", lines=3)
    late = sales(MONDAY - timedelta(days=2), MONDAY - timedelta(days=2), moment(TUESDAY, 23))
    keys = [f"late/{key}" for key in late["line_key"].to_pylist()]
    place = late.column_names.index("line_key")
    shop.clock.now = moment(TUESDAY, 23)
    shop.pipeline.take_in(
        late.set_column(place, late.schema.field("line_key"), [keys]), "office", LOCATION
    )
    shop.pipeline.keep_history()
    assert explained(shop, "bread", lines=3) == before


@pytest.mark.parametrize("sku", ["bread", "salt", "wine", "lamp"])
def test_every_number_of_the_arithmetic_is_in_it_and_adds_up(sku: str, shop: Shop) -> None:
    told, said = explained(shop, sku), text_of(shop, sku)
    worked, seen = told["arithmetic"], told["evidence"]
    for name, number in {**worked, **seen}.items():
        if name not in {"subject", "sku", "location_id", "supplier_id", "currency"}:
            words = "unknown" if number is None else "no" if number is False else number
            assert f"{name} = {words}" in said
    position = sum(seen[f"{part}_units"] for part in ("on_hand", "on_order", "committed"))
    assert worked["inventory_position_units"] == position
    units, cost = told["parameters"]["order_units"], told["parameters"]["unit_cost_minor"]
    assert told["money_minor"] == told["parameters"]["order_value_minor"] == units * cost
    assert f"{told['money_minor'] / 100:,.2f} USD" in said
    assert told["proposed"]["order_units"] >= units
    assert f"{units} units of {sku}" in said
    for step in told["run"]["formula"].split(";"):
        assert step.strip() in said


def test_a_clipped_quantity_shows_what_was_proposed(shop: Shop) -> None:
    told, said = explained(shop, "salt"), text_of(shop, "salt")
    before, after = told["proposed"]["order_units"], told["parameters"]["order_units"]
    assert before > after
    assert f"{before} units, lowered to {after}" in said


def test_a_hold_says_why_and_has_no_order(shop: Shop) -> None:
    told, said = explained(shop, "novelty"), text_of(shop, "novelty")
    assert told["hold"]
    assert told["hold"] in said
    assert told["arithmetic"] is told["parameters"] is told["money_minor"] is None
    assert told["rules"] == []


@pytest.mark.parametrize(
    ("sku", "rules"),
    [
        ("bread", {"ordinary-order"}),
        ("salt", {"days-of-cover", "ordinary-order"}),
        ("wine", {"first-order", "ordinary-order"}),
        ("lamp", {"not-selling", "ordinary-order"}),
    ],
)
def test_every_rule_that_spoke_is_in_it_with_its_reason(
    sku: str, rules: set[str], shop: Shop
) -> None:
    told, said = explained(shop, sku), text_of(shop, sku)
    assert {rule["rule"] for rule in told["rules"]} >= rules
    for rule in told["rules"]:
        assert f"{rule['effect']} by {rule['rule']}: {rule['reason']}" in said
    assert told["run"]["rulebook_version"][:12] in said
    assert told["run"]["agent_version"] in said


def test_what_became_of_it_is_told_from_the_verdict_to_the_last_receipt(shop: Shop) -> None:
    told, said = explained(shop, "wine"), text_of(shop, "wine")
    assert told["status"] == Status.REVERTED
    steps = ["escalate", "approved", "executed", "reverting", "compensated"]
    assert [each["step"] for each in told["history"]] == steps
    approved, executed = told["history"][1], told["history"][2]
    assert approved["by"] == BUYER
    assert executed["receipt"]["reference"].startswith("PO-")
    outcome = said[said.index("What became of it:") :]
    places = [outcome.index(f"  {step}") for step in steps]
    assert places == sorted(places)
    for words in (f"by {BUYER}", executed["receipt"]["reference"], "because too much"):
        assert words in outcome
    assert f"(ledger batch {executed['batch']})" in outcome


@ANY
def test_the_proof_climbs_from_the_explanation_itself_to_the_signed_root(
    sku: str, shop: Shop
) -> None:
    told = explained(shop, sku)
    proved = told["proof"]
    entry = {
        name: value for name, value in told["history"][0].items() if name not in {"batch", "place"}
    }
    path = [(side, sibling) for side, sibling in proved["path"]]
    assert ledger.climb(canonical.text(entry), path) == proved["root"]
    assert ledger.climb(canonical.text({**entry, "action": "Else"}), path) != proved["root"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(shop.pipeline.signing.public))
    key.verify(bytes.fromhex(proved["signature"]), proved["chain"].encode())
    said = text_of(shop, sku)
    assert f"entry {proved['place']} of ledger batch {proved['batch']}" in said
    assert proved["root"][:16] in said


def test_no_lines_may_be_asked_for(shop: Shop) -> None:
    told = explained(shop, "bread", lines=0)
    assert told["lines"]["newest"] == []
    assert f"{told['lines']['lines']} till lines" in ledger.text(told)


def test_a_decision_that_is_not_there_is_refused(shop: Shop) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    pipeline = shop.pipeline
    with (
        pipeline.store.transaction(pipeline.tenant) as tx,
        pytest.raises(Refused, match="has no decision"),
    ):
        ledger.explain(tx, pipeline.lake, nobody)
