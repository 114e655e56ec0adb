"""What the replenishment agent orders, leaves and holds, whatever its parameters are set to."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep import features, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.agents import replenish
from storekeep.agents.replenish import Parameters, economic_units, reorder_point
from storekeep.decisions import Evidence, Judgement, Proposed

KINDS = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "DATE": pa.date32(),
    "BOOLEAN": pa.bool_(),
}
SCHEMA = pa.schema([(name, KINDS[kind]) for name, kind in features.SCHEMA.items()])
MONDAY = date(2026, 3, 2)
USUAL: dict[str, Any] = {
    "sku": "bread",
    "location_id": "DC1",
    "day": MONDAY,
    "supplier_id": "north",
    "currency": "USD",
    "on_hand_units": 0,
    "on_order_units": 0,
    "committed_units": 0,
    "evidence_age_hours": 0.0,
    "demand_mean_28d": 2.0,
    "demand_mean_91d": 2.0,
    "demand_sd_91d": 1.0,
    "demand_days_91d": 80,
    "history_days": 120,
    "days_since_sale": 0,
    "lead_time_mean_days": 3.0,
    "lead_time_sd_days": 0.5,
    "lead_time_count": 9,
    "unit_cost_minor": 250,
    "unit_price_minor": 500,
    "pack_size_units": 6,
    "minimum_order_units": 6,
    "review_period_days": 7,
    "review_weekday": 1,
    "supplier_minimum_minor": 0,
    "usual_order_units": 24.0,
    "contract_breached": False,
}
COUNTS = ("on_hand_units", "on_order_units", "committed_units")


def seen(*items: dict[str, Any]) -> Evidence:
    """Evidence of items that differ from the usual one."""
    rows = []
    for place, item in enumerate(items):
        row = {**USUAL, "sku": f"sku{place}", **item}
        rows.append({"subject": f"{row['sku']}@{row['location_id']}", **row})
    at = datetime(2026, 3, 2, 22, tzinfo=UTC)
    return Evidence(pa.Table.from_pylist(rows, SCHEMA), at, {"day": str(MONDAY)}, 1)


def proposed(*items: dict[str, Any], parameters: Parameters | None = None) -> Proposed:
    return replenish.propose(seen(*items), PLACE_PURCHASE_ORDER, parameters)


def units(item: dict[str, Any], parameters: Parameters | None = None) -> int:
    """How many are ordered of one item that is not held."""
    found = proposed(item, parameters=parameters)
    assert found.holds.num_rows == 0, found.holds.to_pylist()
    lines = found.proposals["order_units"].to_pylist()
    return int(lines[0]) if lines else 0


def held(item: dict[str, Any]) -> str:
    """Why one item is held."""
    found = proposed(item)
    assert found.proposals.num_rows == 0
    (hold,) = found.holds.to_pylist()
    assert hold["safe_default"] == "order nothing"
    return str(hold["reason"])


# The level --------------------------------------------------------------------------------------------


def cumulative(mean: float, variance: float) -> list[float]:
    """P(X <= k) for k = 0, 1, ... up to nearly 1, each term from the one before."""
    if variance > mean * (1 + 1e-9):
        p = mean / variance
        n = mean * p / (1 - p)
        term, many, shrink = p**n, n, 1 - p
    else:
        term, many, shrink = math.exp(-mean), math.inf, mean
    out, total, k = [], 0.0, 0
    while total + term < 0.999999:
        total += term
        out.append(total)
        term *= shrink / (k + 1) * (1 if math.isinf(many) else k + many)
        k += 1
    return [*out, total + term]


@given(
    mean=st.floats(0.01, 300),
    spread=st.floats(0.2, 12),
    service_level=st.floats(0.5, 0.999),
)
def test_the_level_is_the_first_that_demand_stays_at_or_below_often_enough(
    mean: float, spread: float, service_level: float
) -> None:
    variance = mean * spread
    level = reorder_point(np.array([mean]), np.array([variance]), service_level)[0]
    summed = cumulative(mean, variance)
    assert level == int(level)
    assert summed[int(level)] >= service_level - 1e-9
    assert level == 0 or summed[int(level) - 1] < service_level + 1e-9


@pytest.mark.parametrize(
    ("mean", "service_level", "level"),
    [
        # Tables of the cumulative Poisson distribution, as textbooks print them.
        *((1.0, 0.9, 2), (4.0, 0.95, 8), (5.0, 0.9, 8), (10.0, 0.95, 15), (10.0, 0.98, 17)),
        *((10.0, 0.99, 18), (15.0, 0.95, 22), (20.0, 0.95, 28), (20.0, 0.98, 30)),
    ],
)
def test_the_level_of_even_demand_is_that_of_the_poisson_table(
    mean: float, service_level: float, level: int
) -> None:
    assert reorder_point(np.array([mean]), np.array([mean]), service_level)[0] == level


@pytest.mark.parametrize("service_level", [0.5, 0.9, 0.95, 0.98, 0.99])
def test_the_level_of_geometric_demand_has_a_closed_form(service_level: float) -> None:
    # With variance = mean + mean^2 the negative binomial is geometric: P(X <= k) = 1 - q^(k + 1).
    for mean in (0.3, 1.0, 4.0, 37.5):
        q = mean / (1 + mean)
        expected = math.ceil(math.log(1 - service_level) / math.log(q) - 1 - 1e-9)
        level = reorder_point(np.array([mean]), np.array([mean + mean**2]), service_level)[0]
        assert level == max(0, expected)


def test_nothing_is_kept_of_what_nobody_asks_for() -> None:
    assert reorder_point(np.array([0.0]), np.array([0.0]), 0.99)[0] == 0
    assert reorder_point(np.array([0.0]), np.array([9.0]), 0.99)[0] == 0


def test_the_economic_quantity_is_that_of_the_textbook() -> None:
    # Nahmias, example 4.1: 60 pencils a week of 2 cents, an order costs 12 dollars, interest 25 % a year.
    pencils = Parameters(order_line_cost_minor=1200, holding_rate=0.25)
    quantity = economic_units(np.array([3120 / 365]), np.array([2.0]), pencils)
    assert quantity[0] == pytest.approx(3870, abs=1)


# What is ordered --------------------------------------------------------------------------------------

some_items = st.fixed_dictionaries(
    {
        "on_hand_units": st.integers(0, 120),
        "on_order_units": st.integers(0, 60),
        "committed_units": st.integers(0, 60),
        "demand_mean_28d": st.floats(0, 40).map(lambda mean: round(mean, 6)),
        "demand_mean_91d": st.floats(0, 40).map(lambda mean: round(mean, 6)),
        "demand_sd_91d": st.floats(0, 60).map(lambda sd: round(sd, 6)),
        "lead_time_mean_days": st.floats(0.5, 40).map(lambda days: round(days, 6)),
        "lead_time_sd_days": st.floats(0, 9).map(lambda days: round(days, 6)),
        "unit_cost_minor": st.integers(1, 10_000),
        "pack_size_units": st.integers(1, 48),
        "minimum_order_units": st.integers(0, 200),
        "review_period_days": st.integers(1, 28),
    }
)


@given(item=some_items)
def test_an_order_is_whole_packs_no_less_than_the_minimum_and_no_more_than_a_pack_too_many(
    item: dict[str, Any],
) -> None:
    found = proposed(item)
    for line in found.proposals.to_pylist():
        many, pack, worked = line["order_units"], item["pack_size_units"], line["arithmetic"]
        assert many > 0
        assert many % pack == 0
        assert many >= item["minimum_order_units"]
        assert many >= worked["needed_units"] - 1e-3
        wanted = max(worked["needed_units"], item["minimum_order_units"])
        assert many - wanted < pack + 1e-3
        assert worked["rounded_up_units"] == pytest.approx(many - wanted, abs=2e-3)
        assert line["order_value_minor"] == many * item["unit_cost_minor"]
        assert worked["inventory_position_units"] == sum(item[name] for name in COUNTS)
        assert worked["inventory_position_units"] < worked["reorder_point_units"]
        assert worked["reorder_point_units"] <= worked["order_up_to_units"] + 1e-6


@given(item=some_items)
def test_nothing_is_ordered_while_what_is_there_and_coming_covers_the_demand(
    item: dict[str, Any],
) -> None:
    lines = proposed(item).proposals.to_pylist()
    if lines:
        point = math.ceil(lines[0]["arithmetic"]["reorder_point_units"])
        for name in COUNTS:
            rest = {each: 0 for each in COUNTS if each != name}
            assert units({**item, **rest, name: point}) == 0
            assert units({**item, **rest, name: point - 1}) > 0
    else:
        assert units({**item, "on_hand_units": item["on_hand_units"] + 1000}) == 0


@given(item=some_items, more=st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1)]))
def test_what_is_on_the_shelf_on_its_way_and_decided_counts_alike(
    item: dict[str, Any], more: tuple[int, int, int]
) -> None:
    total = sum(item[name] for name in COUNTS)
    moved = {name: total * part for name, part in zip(COUNTS, more, strict=True)}
    assert units({**item, **moved}) == units(item)


@pytest.mark.parametrize(
    "change",
    [
        {"demand_mean_28d": 4.0, "demand_mean_91d": 4.0},
        {"demand_sd_91d": 3.0},
        {"lead_time_mean_days": 9.0},
        {"lead_time_sd_days": 4.0},
        {"review_period_days": 14},
        {"minimum_order_units": 600},
    ],
    ids=lambda change: next(iter(change)),
)
def test_more_is_ordered_when_there_is_more_to_cover(change: dict[str, Any]) -> None:
    exact = {"pack_size_units": 1, "minimum_order_units": 1}
    assert units({**exact, **change}) > units(exact)


def test_more_is_ordered_for_a_higher_service_level() -> None:
    exact = {"pack_size_units": 1, "minimum_order_units": 1}
    ordered = [
        units(exact, Parameters(service_level=level)) for level in (0.5, 0.8, 0.9, 0.95, 0.99)
    ]
    assert ordered == sorted(ordered)
    assert len(set(ordered)) == len(ordered)


def test_a_minimum_is_no_reason_to_order() -> None:
    assert units({"on_hand_units": 500, "minimum_order_units": 600}) == 0


def test_a_pack_larger_than_the_need_is_ordered_once() -> None:
    assert units({"pack_size_units": 1000}) == 1000


def test_only_items_whose_supplier_is_ordered_from_today_are_looked_at() -> None:
    found = proposed(*({"review_weekday": weekday} for weekday in range(1, 8)))
    assert found.proposals["sku"].to_pylist() == ["sku0"]
    assert found.holds.num_rows == 0


def test_lines_of_one_supplier_and_location_travel_together() -> None:
    found = proposed({}, {"supplier_id": "south"}, {"location_id": "DC2"}, {})
    groups = dict(
        zip(
            *(found.proposals[name].to_pylist() for name in ("subject", "order_group")), strict=True
        )
    )
    assert groups == {
        "sku0@DC1": "north/DC1/2026-03-02",
        "sku1@DC1": "south/DC1/2026-03-02",
        "sku2@DC2": "north/DC2/2026-03-02",
        "sku3@DC1": "north/DC1/2026-03-02",
    }


def test_what_runs_dry_first_is_first_in_line() -> None:
    found = proposed({"on_hand_units": 9}, {"on_hand_units": 0}, {"on_hand_units": 4})
    ranked = found.proposals.sort_by([("priority", "descending")])
    assert ranked["sku"].to_pylist() == ["sku1", "sku2", "sku0"]


@settings(max_examples=20)
@given(data=st.data())
def test_the_order_of_the_items_does_not_matter(data: st.DataObject) -> None:
    items = [
        {"sku": f"s{place}", "on_hand_units": place, "pack_size_units": 1 + place % 5}
        for place in range(12)
    ]
    items[3] |= {"history_days": 3}
    items[7] |= {"supplier_id": "far", "supplier_minimum_minor": 10**9}
    shuffled = data.draw(st.permutations(items))
    first, second = proposed(*items), proposed(*shuffled)
    for name in ("proposals", "holds"):
        tables = [getattr(each, name).sort_by("subject") for each in (first, second)]
        assert tables[0].to_pylist() == tables[1].to_pylist()


def test_no_evidence_no_proposals() -> None:
    found = proposed()
    assert found.proposals.num_rows == found.holds.num_rows == 0
    assert found.proposals.column_names[:2] == ["subject", "priority"]


def test_the_version_is_the_formula_and_every_parameter() -> None:
    usual = replenish.version(Parameters())
    assert proposed({}).version == usual
    changed = {
        replenish.version(replace(Parameters(), **{name: 7}))
        for name in Parameters.__dataclass_fields__
    }
    assert len(changed | {usual}) == len(Parameters.__dataclass_fields__) + 1


# What is held -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"history_days": 27}, "too short a time"),
        ({"history_days": None}, "too short a time"),
        ({"lead_time_mean_days": 0.0}, "lead time is not known"),
        ({"lead_time_mean_days": -2.0}, "lead time is not known"),
        ({"lead_time_mean_days": None}, "lead time is not known"),
        ({"unit_cost_minor": 0}, "purchase price is not known"),
        ({"unit_cost_minor": None}, "purchase price is not known"),
        ({"demand_mean_91d": None}, "demand is not known"),
    ],
)
def test_what_is_not_known_well_enough_is_held_and_says_why(
    change: dict[str, Any], reason: str
) -> None:
    assert reason in held(change)


NEEDED = (
    *("demand_mean_28d", "demand_mean_91d", "demand_sd_91d", "lead_time_mean_days"),
    *("lead_time_sd_days", "unit_cost_minor", "pack_size_units", "minimum_order_units"),
    *("review_period_days", "supplier_minimum_minor", *COUNTS),
)


@pytest.mark.parametrize("name", NEEDED)
def test_a_number_that_is_missing_is_never_made_up(name: str) -> None:
    assert "not known" in held({name: None})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name", [name for name in NEEDED if SCHEMA.field(name).type == pa.float64()]
)
def test_a_number_that_is_none_is_held(name: str, number: float) -> None:
    assert "not known" in held({name: number})


def test_one_item_that_is_held_keeps_no_other_from_being_ordered() -> None:
    found = proposed({"history_days": 1}, {}, {"lead_time_mean_days": None})
    assert found.proposals["sku"].to_pylist() == ["sku1"]
    assert found.holds["subject"].to_pylist() == ["sku0@DC1", "sku2@DC1"]


def test_an_order_below_the_suppliers_minimum_is_held_line_by_line() -> None:
    small = {"supplier_minimum_minor": 100_000, "pack_size_units": 1, "minimum_order_units": 10}
    found = proposed(small, small, {"supplier_id": "south"})
    assert found.proposals["sku"].to_pylist() == ["sku2"]
    assert found.holds["subject"].to_pylist() == ["sku0@DC1", "sku1@DC1"]
    assert set(found.holds["reason"].to_pylist()) == {
        "the order would not reach its supplier's minimum"
    }


def test_an_order_that_just_reaches_the_suppliers_minimum_is_made() -> None:
    value = pc.sum(proposed({}, {}).proposals["order_value_minor"]).as_py()
    for minimum, many in ((value, 2), (value + 1, 0)):
        exact = {"supplier_minimum_minor": minimum}
        assert proposed(exact, exact).proposals.num_rows == many


def test_what_is_held_does_not_help_to_reach_a_minimum() -> None:
    value = pc.sum(proposed({}, {}).proposals["order_value_minor"]).as_py()
    exact = {"supplier_minimum_minor": value}
    found = proposed(exact, {**exact, "history_days": 3})
    assert found.proposals.num_rows == 0


# Nonsense that comes in -------------------------------------------------------------------------------


def judged(item: dict[str, Any]) -> Judgement:
    evidence = seen(item)
    found = replenish.propose(evidence, PLACE_PURCHASE_ORDER)
    assert found.proposals.num_rows == 1
    rulebook = policy.load(
        policy.SHIPPED / "replenish.yaml", action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA
    )
    return policy.judge(rulebook, found, evidence, policy.USED.empty_table())


def outlier(spike: int) -> dict[str, Any]:
    """Two a day, and one day on which somebody typed too many digits."""
    days = [2] * 90 + [spike]
    return {
        "demand_mean_28d": round((2 * 27 + spike) / 28, 6),
        "demand_mean_91d": round(float(np.mean(days)), 6),
        "demand_sd_91d": round(float(np.std(days, ddof=1)), 6),
    }


@pytest.mark.parametrize("usual", [24.0, None])
@pytest.mark.parametrize("spike", [2_000, 89_638, 10**9])
def test_a_giant_outlier_never_orders_without_a_person(spike: int, usual: float | None) -> None:
    judgement = judged({**outlier(spike), "usual_order_units": usual})
    assert judgement.verdicts["verdict"].to_pylist()[0] in {"deny", "escalate"}


def test_all_zeros_order_nothing() -> None:
    zeros = {"demand_mean_28d": 0.0, "demand_mean_91d": 0.0, "demand_sd_91d": 0.0}
    assert units(zeros) == 0
    assert units({**zeros, "on_hand_units": 0, "minimum_order_units": 100}) == 0


def test_orders_that_no_number_can_hold_are_held() -> None:
    vast = {"demand_mean_28d": 1e15, "demand_mean_91d": 1e15, "unit_cost_minor": 10**9}
    assert "beyond" in held(vast)


def test_a_pack_of_nothing_is_not_ordered() -> None:
    assert judged({"pack_size_units": 0}).verdicts["verdict"].to_pylist() == ["deny"]
