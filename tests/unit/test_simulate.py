from __future__ import annotations

import doctest
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep.errors import InvariantBroken, Misused, Refused
from storekeep.events import to_bytes
from storekeep.retail import STOCK_COUNT, SUPPLY_TERMS
from storekeep.simulate import assumptions, baseline, chance, kpi, supply
from storekeep.simulate import demand as demands
from storekeep.simulate.baseline import MinMax, Moment, play
from storekeep.simulate.chance import Integers
from storekeep.simulate.demand import Demand
from storekeep.simulate.supply import Shop

PAGE = Path(__file__).parents[2] / "docs" / "assumptions.md"
BEGIN = date(2024, 1, 1)
FIRST = date(2024, 5, 6)
LAST = FIRST + timedelta(days=41)
DAYS = [FIRST + timedelta(days=n) for n in range(42)]
SKUS = 60


def history() -> pa.Table:
    """Sales of 60 SKUs from BEGIN to LAST, from one a fortnight to twenty a day, with a few returns."""
    chance_ = np.random.default_rng(11)
    days = (LAST - BEGIN).days + 1
    rates = np.geomspace(0.07, 20, SKUS)
    units = chance_.poisson(rates, (days, SKUS)) - (chance_.random((days, SKUS)) < 0.02)
    day, sku = np.nonzero(units)
    prices = 50 + 37 * np.arange(SKUS)
    return pa.table(
        {
            "sku": [f"{place:03}" for place in sku],
            "day": pa.array([BEGIN + timedelta(days=int(n)) for n in day], pa.date32()),
            "units": units[day, sku],
            "value_minor": units[day, sku] * prices[sku],
        }
    )


def products() -> pa.Table:
    departments = ("GROCERY", "PRODUCE", "DRUG GM", None)
    return pa.table(
        {
            "sku": [f"{place:03}" for place in range(SKUS)],
            "department": pa.array([departments[place % 4] for place in range(SKUS)], pa.string()),
            "category": [f"CATEGORY {place % 12}" for place in range(SKUS)],
            "brand": [("National", "Private")[place % 2] for place in range(SKUS)],
        }
    )


HISTORY = history()
PRODUCTS = products()
ASSUMED = assumptions.read().model_copy(update={"skus_per_supplier": 6})


def made(
    sales: pa.Table = HISTORY, goods: pa.Table | None = PRODUCTS, seed: int = 3, **more: Any
) -> Shop:
    return supply.shop(
        goods, sales, seed=seed, first_day=FIRST, currency="USD", assumptions=ASSUMED, **more
    )


SHOP = made()
TWIN = made()
DEMAND = demands.demand(HISTORY, SHOP.skus, BEGIN, LAST)


def shop_bytes(shop: Shop) -> tuple[bytes, bytes, bytes]:
    return to_bytes(shop.terms), to_bytes(shop.suppliers), to_bytes(shop.opening)


def with_columns(table: pa.Table, values: Mapping[str, list[Any]]) -> pa.Table:
    for name, column in values.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array(column))
    return table


def two_skus(
    *, opening: tuple[int, int] = (5, 9), minimum: int = 0, safety_days: float = 0.0
) -> Shop:
    """Two SKUs of one supplier that reviews on Monday and always delivers after two days."""
    sales = pa.table(
        {
            "sku": ["a", "b"],
            "day": pa.array([FIRST - timedelta(days=7)] * 2, pa.date32()),
            "units": [7, 14],
            "value_minor": [7 * 300, 14 * 100],
        }
    )
    assumed = ASSUMED.model_copy(
        update={
            "shortest_lead_time_days": (2, 2),
            "longest_delay_days": 0,
            "review_weekdays": (1,),
            "baseline_safety_days": safety_days,
        }
    )
    shop = supply.shop(None, sales, seed=1, first_day=FIRST, currency="USD", assumptions=assumed)
    terms = with_columns(
        shop.terms,
        {
            "unit_cost_minor": [200, 60],
            "pack_size_units": [4, 6],
            "minimum_order_units": [4, 6],
            "supplier_minimum_minor": [minimum] * 2,
        },
    )
    return replace(
        shop, terms=terms, opening=with_columns(shop.opening, {"quantity_units": list(opening)})
    )


def two_demand(first: list[int], second: list[int]) -> Demand:
    return Demand(pa.array(["a", "b"]), FIRST, np.array([first, second]).T)


# Assumptions


def test_the_page_on_assumptions_lists_each_with_value_unit_and_reason() -> None:
    listed = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "| `" in line]
    expected = [
        f"| `{entry.name}` | {shown(entry.value)} | {entry.unit} | {entry.why} |"
        for entry in assumptions.stated()
    ]
    assert listed == expected


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def test_every_assumption_is_stated_once_and_with_a_reason() -> None:
    entries = assumptions.stated()
    assert {entry.name for entry in entries} == set(assumptions.Assumptions.model_fields)
    assert all(entry.unit and len(entry.why) > 20 for entry in entries)


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ("value: lost", "value: backordered", "unmet_demand"),
        ("value: [2, 8]", "value: [8, 2]", "shortest_lead_time_days"),
        ("value: [1, 2, 4, 6, 8, 12, 24]", "value: [2, 1]", "pack_sizes"),
        ("DELI: 0.40", "DELI: 0.99", "margin"),
        ("most_suppliers:", "most_vendors:", "most_suppliers"),
        ("unit: rule", "units: rule", "unmet_demand"),
        ("unmet_demand:\n", "- unmet_demand\n", "cannot be read"),
    ],
)
def test_a_wrong_assumption_is_named(tmp_path: Path, was: str, becomes: str, named: str) -> None:
    text = Path(assumptions.__file__).with_name(assumptions.FILE).read_text(encoding="utf-8")
    assert was in text
    own = tmp_path / "own.yaml"
    own.write_text(text.replace(was, becomes, 1), encoding="utf-8")
    with pytest.raises(Misused, match=named) as caught:
        assumptions.read(own)
    assert "own.yaml" in str(caught.value)


def test_a_missing_or_empty_file_of_assumptions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misused, match="none\\.yaml"):
        assumptions.read(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(Misused, match="empty\\.yaml"):
        assumptions.read(tmp_path / "empty.yaml")


# Formulas


@pytest.mark.parametrize("module", [chance, supply, baseline], ids=lambda module: module.__name__)
def test_formulas_give_the_textbook_number(module: Any) -> None:
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0


def test_looked_up_numbers_are_uniform_and_do_not_repeat() -> None:
    drawn = chance.draw(1, "test", (str(n) for n in range(20_000)))
    assert abs(drawn.mean() - 0.5) < 0.01
    assert abs(drawn.var() - 1 / 12) < 0.002
    assert len(np.unique(drawn)) == len(drawn)
    assert (drawn != chance.draw(2, "test", (str(n) for n in range(20_000)))).all()
    assert (drawn != chance.draw(1, "other", (str(n) for n in range(20_000)))).all()


# The shop


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_the_same_history_makes_the_same_shop_whatever_the_order_of_rows(shuffle: int) -> None:
    random = np.random.default_rng(shuffle)
    rows, goods = random.permutation(HISTORY.num_rows), random.permutation(SKUS)
    again = made(HISTORY.take(pa.array(rows)), PRODUCTS.take(pa.array(goods)))
    assert shop_bytes(again) == shop_bytes(SHOP)


def test_another_seed_makes_another_shop() -> None:
    other = made(seed=4)
    assert all(one != two for one, two in zip(shop_bytes(other), shop_bytes(SHOP), strict=True))
    for column in ("supplier_id", "unit_cost_minor", "pack_size_units", "review_weekday"):
        assert other.terms[column] != SHOP.terms[column]
    for column in ("shortest_lead_time_days", "delay_mean_days"):
        assert other.suppliers[column].to_pylist() != SHOP.suppliers[column].to_pylist()
    assert other.numbers("unit_price_minor").tolist() == SHOP.numbers("unit_price_minor").tolist()


def test_what_is_sold_on_or_after_the_first_day_does_not_touch_the_shop() -> None:
    before = HISTORY.filter(pc.less(HISTORY["day"], FIRST))
    assert before.num_rows < HISTORY.num_rows
    assert shop_bytes(made(before)) == shop_bytes(SHOP)


def test_the_shops_tables_hold_what_the_vocabulary_says() -> None:
    assert SHOP.terms.schema == SUPPLY_TERMS.arrow
    assert SHOP.opening.schema == STOCK_COUNT.arrow
    assert SHOP.suppliers.schema == supply.SUPPLIERS.arrow
    for table in (SHOP.terms, SHOP.opening, SHOP.suppliers):
        table.validate(full=True)
    assert SHOP.skus.to_pylist() == sorted(set(HISTORY["sku"].to_pylist()))
    assert SHOP.opening["sku"].to_pylist() == SHOP.skus.to_pylist()
    assert set(SHOP.terms["supplier_id"].to_pylist()) == set(
        SHOP.suppliers["supplier_id"].to_pylist()
    )
    assert all("simulated" in name for name in SHOP.suppliers["name"].to_pylist())
    assert pc.sum(SHOP.suppliers["sku_count"]).as_py() == len(SHOP.skus)


def test_terms_follow_from_demand_and_price() -> None:
    price, cost = SHOP.numbers("unit_price_minor"), SHOP.numbers("unit_cost_minor")
    assert price.tolist() == [50 + 37 * place for place in range(SKUS)]
    margin = 1 - cost / price
    listed = ASSUMED.margin_by_department
    names = PRODUCTS["department"].fill_null("").to_pylist()
    usual = np.array([listed.get(name, ASSUMED.margin) for name in names])
    assert (np.abs(margin - usual) <= ASSUMED.margin_spread + 0.01).all()
    packs = SHOP.numbers("pack_size_units")
    daily = DEMAND.until(FIRST - timedelta(days=1))[-91:].mean(axis=0)
    assert packs[0] == 1
    assert packs[-1] == 24
    assert (packs <= np.maximum(daily * ASSUMED.pack_cover_days[1], 1)).all()
    assert (SHOP.numbers("minimum_order_units") == packs).all()


def test_opening_stock_is_expected_demand_in_whole_packs() -> None:
    packs = SHOP.numbers("pack_size_units")
    opening = SHOP.opening["quantity_units"].to_numpy()
    daily = DEMAND.until(FIRST - timedelta(days=1))[-91:].mean(axis=0)
    days = SHOP.terms["lead_time_mean_days"].to_numpy() + 7 + ASSUMED.opening_extra_days
    assert (opening % packs == 0).all()
    assert (opening >= daily * days - 1e-9).all()
    assert (opening <= daily * days + packs).all()


def test_a_few_odd_lines_do_not_move_the_price_and_a_sku_that_stopped_selling_still_opens() -> None:
    days = [BEGIN + timedelta(days=n) for n in (0, 0, 1, 2, 3, 3)]
    sales = pa.table(
        {
            "sku": ["dead", "free", "dead", "dead", "dead", "live"],
            "day": pa.array([*days[:5], FIRST - timedelta(days=1)], pa.date32()),
            "units": [2, 3, 1, 4, 1, 5],
            "value_minor": [2 * 199, 0, 9999, 4 * 199, 1, 5 * 80],
        }
    )
    shop = made(sales, goods=None)
    assert shop.skus.to_pylist() == ["dead", "live"]
    assert shop.numbers("unit_price_minor").tolist() == [199, 80]
    assert shop.numbers("pack_size_units")[0] == 1
    assert shop.opening["quantity_units"][0].as_py() == 1


def test_the_opening_count_is_dated_at_local_midnight() -> None:
    shop = made(time_zone="America/New_York")
    assert shop.opening["occurred_at"][0].as_py().isoformat() == "2024-05-06T04:00:00+00:00"


def test_fresh_goods_come_sooner_and_one_category_and_brand_has_one_supplier() -> None:
    fresh = np.isin(SHOP.suppliers["department"].to_pylist(), ASSUMED.fresh_departments)
    shortest = SHOP.suppliers["shortest_lead_time_days"].to_numpy()
    assert fresh.any()
    assert shortest[fresh].max() <= ASSUMED.fresh_shortest_lead_time_days[1]
    kinds = pa.table({"sku": SHOP.skus, "supplier": SHOP.terms["supplier_id"]}).join(
        PRODUCTS, "sku"
    )
    each = kinds.group_by(["department", "category", "brand"]).aggregate(
        [("supplier", "count_distinct")]
    )
    assert set(each["supplier_count_distinct"].to_pylist()) == {1}


def test_a_shop_without_products_has_suppliers_all_the_same() -> None:
    shop = made(goods=None)
    assert shop.suppliers.num_rows > 5
    assert set(shop.suppliers["department"].to_pylist()) == {supply.REST}


def test_there_are_never_more_suppliers_than_assumed_by_more_than_one_a_department() -> None:
    assumed = ASSUMED.model_copy(update={"skus_per_supplier": 1, "most_suppliers": 8})
    shop = supply.shop(
        PRODUCTS, HISTORY, seed=3, first_day=FIRST, currency="USD", assumptions=assumed
    )
    assert 4 <= shop.suppliers.num_rows <= 8 + 4


def test_nothing_sold_before_the_first_day_is_refused() -> None:
    with pytest.raises(Refused, match="2023-01-01"):
        supply.shop(None, HISTORY, seed=1, first_day=date(2023, 1, 1), currency="USD")


def test_a_missing_column_or_a_double_product_is_named() -> None:
    with pytest.raises(InvariantBroken, match="value_minor"):
        made(HISTORY.drop_columns(["value_minor"]))
    with pytest.raises(InvariantBroken, match="one row per SKU"):
        made(goods=pa.concat_tables([PRODUCTS, PRODUCTS]))


# Lead times


@given(
    st.lists(st.sampled_from(SHOP.suppliers["supplier_id"].to_pylist()), min_size=1),
    st.dates(FIRST, LAST),
)
def test_a_lead_time_depends_on_supplier_and_day_alone(asked: list[str], day: date) -> None:
    lead = SHOP.lead_time_days(pa.array(asked), day)
    assert lead.min() >= 1
    assert lead.max() <= SHOP.longest_lead_time_days
    alone = [int(SHOP.lead_time_days(pa.array([supplier]), day)[0]) for supplier in asked]
    assert lead.tolist() == alone
    orders = pa.table(
        {"supplier_id": asked, "day": [day] * len(asked), "order_units": [12] * len(asked)}
    )
    delivered = TWIN.deliveries(orders)
    assert delivered["due_day"].to_pylist() == [day + timedelta(days=n) for n in alone]
    assert delivered["delivered_units"].to_pylist() == [12] * len(asked)


def test_lead_times_vary_as_the_terms_say() -> None:
    suppliers = SHOP.suppliers["supplier_id"].combine_chunks()
    days = 4000
    drawn = np.array(
        [SHOP.lead_time_days(suppliers, FIRST + timedelta(days=n)) for n in range(days)]
    )
    mean = SHOP.suppliers["lead_time_mean_days"].to_numpy()
    deviation = SHOP.suppliers["lead_time_sd_days"].to_numpy()
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * deviation / np.sqrt(days)).all()
    assert (np.abs(drawn.std(axis=0) / deviation - 1) < 0.15).all()
    assert (drawn.min(axis=0) == SHOP.suppliers["shortest_lead_time_days"].to_numpy()).all()


def test_an_unknown_supplier_is_named() -> None:
    with pytest.raises(InvariantBroken, match="'nobody'"):
        SHOP.lead_time_days(pa.array(["nobody"]), FIRST)


# Demand


def test_demand_nets_returns_within_a_day_and_is_never_negative() -> None:
    sales = pa.table(
        {
            "sku": ["a", "a", "a", "b", "c", "a"],
            "day": pa.array([FIRST, FIRST, DAYS[1], DAYS[2], FIRST, BEGIN], pa.date32()),
            "units": [5, -2, -4, 1, 9, 9],
        }
    )
    found = demands.demand(sales, pa.array(["b", "a"]), FIRST, DAYS[2])
    assert found.units.tolist() == [[0, 3], [0, 0], [1, 0]]
    assert found.last_day == DAYS[2]
    assert found.until(DAYS[1]).tolist() == [[0, 3], [0, 0]]
    with pytest.raises(InvariantBroken, match="2024-05-09"):
        found.until(DAYS[3])


@settings(max_examples=20)
@given(st.permutations(range(200)))
def test_the_order_of_rows_does_not_change_demand(order: list[int]) -> None:
    some = HISTORY.slice(0, 200)
    one = demands.matrix(some, SHOP.skus, BEGIN, LAST)
    assert (demands.matrix(some.take(order), SHOP.skus, BEGIN, LAST) == one).all()
    assert one.sum() == pc.sum(some["units"]).as_py()


# The day loop


def test_a_day_goes_goods_in_sales_orders() -> None:
    """FIRST is a Monday; what is ordered that evening arrives on Wednesday morning."""
    shop = two_skus()
    asked = two_demand([3, 3, 6, 0], [0, 0, 20, 1])

    def rule(now: Moment) -> Integers:
        assert now.day == FIRST
        assert now.on_hand_units.tolist() == [2, 9]
        assert now.demand_units.tolist() == [[3, 0]]
        return np.array([8, 6])

    played = play(shop, asked, DAYS[:4], rule)
    assert played.received_units.tolist() == [[0, 0], [0, 0], [8, 6], [0, 0]]
    assert played.sold_units.tolist() == [[3, 0], [2, 0], [6, 15], [0, 0]]
    assert played.on_hand_units.tolist() == [[2, 9], [0, 9], [2, 0], [2, 0]]
    assert played.order_lines.to_pylist() == [
        {
            "day": FIRST,
            "supplier_id": "sim-01",
            "sku": sku,
            "order_units": units,
            "due_day": DAYS[2],
        }
        for sku, units in (("a", 8), ("b", 6))
    ]


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, len(DAYS)))
def test_no_unit_appears_or_vanishes(seed: int, days: int) -> None:
    random = np.random.default_rng(seed)
    packs = SHOP.numbers("pack_size_units")
    under_way = []

    def rule(now: Moment) -> Integers:
        under_way.append((now.day, now.on_order_units))
        return np.where(now.reviewed, random.integers(0, 4, len(packs)) * packs, 0)

    played = play(SHOP, DEMAND, DAYS[:days], rule)
    opening = SHOP.opening["quantity_units"].to_numpy()
    stock = opening + np.cumsum(played.received_units - played.sold_units, axis=0)
    assert (played.on_hand_units == stock).all()
    assert (played.on_hand_units >= 0).all()
    assert (played.sold_units <= played.demand_units).all()
    assert (played.on_hand_units[played.sold_units < played.demand_units] == 0).all()
    lines = played.order_lines
    due = lines.select(["sku", "order_units"]).append_column("day", lines["due_day"])
    arrived = demands.matrix(due, SHOP.skus, FIRST, DAYS[days - 1], "order_units")
    assert (played.received_units == arrived).all()
    for day, units in under_way:
        late = pc.and_(pc.less(lines["day"], day), pc.greater(lines["due_day"], day))
        last = DAYS[-1] + timedelta(days=60)
        still = demands.matrix(due.filter(late), SHOP.skus, FIRST, last, "order_units")
        assert (units == still.sum(axis=0)).all()


def test_two_rules_that_order_on_one_day_meet_one_lead_time() -> None:
    packs = SHOP.numbers("pack_size_units")

    def greedy(now: Moment) -> Integers:
        return np.where(now.reviewed, packs, 0)

    always = play(SHOP, DEMAND, DAYS, greedy).order_lines
    seldom = play(SHOP, DEMAND, DAYS, MinMax(SHOP)).order_lines
    assert 0 < seldom.num_rows < always.num_rows
    keys = ["day", "supplier_id"]
    due = {tuple(row[key] for key in keys): row["due_day"] for row in always.to_pylist()}
    for row in seldom.to_pylist():
        assert row["due_day"] == due[tuple(row[key] for key in keys)]


def test_demand_after_a_day_does_not_change_what_was_ordered_by_then() -> None:
    later = DEMAND.units.copy()
    cut = len(later) - 14
    later[cut:] = later[cut:] * 3 + 1
    one = play(SHOP, DEMAND, DAYS, MinMax(SHOP)).order_lines
    two = play(SHOP, replace(DEMAND, units=later), DAYS, MinMax(SHOP)).order_lines
    turn = DAYS[-14]
    assert one.filter(pc.less(one["day"], turn)).equals(two.filter(pc.less(two["day"], turn)))
    assert not one.equals(two)


@pytest.mark.parametrize("units", [[-4, 0], [3, 0]])
def test_a_rule_that_orders_what_cannot_be_ordered_is_stopped(units: list[int]) -> None:
    with pytest.raises(InvariantBroken, match="of a: not a whole number"):
        play(two_skus(), two_demand([1], [1]), DAYS[:1], lambda _now: np.array(units))


def test_a_rule_may_not_order_on_another_suppliers_day() -> None:
    packs = SHOP.numbers("pack_size_units")
    with pytest.raises(InvariantBroken, match="whose day it is"):
        play(SHOP, DEMAND, DAYS, lambda _now: packs)


def test_days_and_demand_must_fit_the_shop() -> None:
    with pytest.raises(InvariantBroken, match="must follow each other from 2024-05-06"):
        play(SHOP, DEMAND, DAYS[1:], MinMax(SHOP))
    with pytest.raises(InvariantBroken, match="must follow each other"):
        play(SHOP, DEMAND, [], MinMax(SHOP))
    with pytest.raises(InvariantBroken, match="SKUs of the shop"):
        play(two_skus(), DEMAND, DAYS, MinMax(SHOP))
    with pytest.raises(InvariantBroken, match="demand is known from"):
        play(SHOP, DEMAND, [*DAYS, LAST + timedelta(days=1)], MinMax(SHOP))


# The baseline


def test_min_max_orders_up_to_max_in_whole_packs_when_below_min() -> None:
    """Mean 2 and 1 a day, lead time 2, review 7: min 18 and 9, max 32 and 16."""
    shop = two_skus()
    now = Moment(
        FIRST,
        on_hand_units=np.array([10, 9]),
        on_order_units=np.array([7, 0]),
        demand_units=np.array([[2, 1]] * 7),
        reviewed=np.array([True, True]),
    )
    assert MinMax(shop)(now).tolist() == [16, 0]
    assert MinMax(shop)(replace(now, on_hand_units=np.array([11, 8]))).tolist() == [0, 12]
    assert MinMax(shop)(replace(now, reviewed=np.array([False, False]))).tolist() == [0, 0]


def test_min_max_looks_back_one_quarter() -> None:
    shop = two_skus()
    now = Moment(
        FIRST,
        on_hand_units=np.array([0, 0]),
        on_order_units=np.array([0, 0]),
        demand_units=np.concatenate([np.full((50, 2), 90), np.array([[2, 1]] * 91)]),
        reviewed=np.array([True, True]),
    )
    assert MinMax(shop)(now).tolist() == [32, 18]


def test_an_order_below_the_suppliers_minimum_waits() -> None:
    now = Moment(
        FIRST,
        on_hand_units=np.array([17, 8]),
        on_order_units=np.array([0, 0]),
        demand_units=np.array([[2, 1]] * 7),
        reviewed=np.array([True, True]),
    )
    value = 16 * 200 + 12 * 60
    assert MinMax(two_skus(minimum=value))(now).tolist() == [16, 12]
    assert MinMax(two_skus(minimum=value + 1))(now).tolist() == [0, 0]


def test_more_safety_days_lose_fewer_sales_and_hold_more_stock() -> None:
    found = []
    for safety_days in (0, 4, 14):
        shop = replace(
            SHOP, assumptions=ASSUMED.model_copy(update={"baseline_safety_days": safety_days})
        )
        found.append(measured(shop, play(shop, DEMAND, DAYS, MinMax(shop))))
    rates = [figures.fill_rate for figures in found]
    assert rates == sorted(rates)
    assert 0.7 < rates[0] < rates[1] < rates[2] <= 1
    assert found[0].stock_value_minor < found[1].stock_value_minor < found[2].stock_value_minor
    assert found[0].stockout_days > found[1].stockout_days > found[2].stockout_days


# The figures


def measured(shop: Shop, played: baseline.Played) -> kpi.Kpi:
    return kpi.kpi(
        shop,
        demand_units=played.demand_units,
        sold_units=played.sold_units,
        on_hand_units=played.on_hand_units,
        order_lines=played.order_lines,
    )


def test_figures_of_two_days_by_hand() -> None:
    """Cost 2.00 and 0.60, price 3.00 and 1.00; 10 asked, 8 sold, the two lost are one of each SKU."""
    shop = two_skus()
    lines = pa.table(
        {"day": pa.array([FIRST, FIRST, DAYS[1]], pa.date32()), "supplier_id": ["s", "s", "s"]}
    )
    found = kpi.kpi(
        shop,
        demand_units=np.array([[3, 2], [4, 1]]),
        sold_units=np.array([[3, 2], [3, 0]]),
        on_hand_units=np.array([[3, 0], [0, 0]]),
        order_lines=lines,
    )
    assert found == kpi.Kpi(
        days=2,
        sku_days=4,
        currency="USD",
        demand_units=10,
        sold_units=8,
        lost_units=2,
        fill_rate=0.8,
        stockout_days=3,
        stock_value_minor=300,
        holding_cost_minor=0,
        ordering_cost_minor=2 * 500 + 3 * 5,
        lost_margin_minor=100 + 40,
        cost_minor=1015 + 140,
        purchase_orders=2,
        order_lines=3,
        turns=(6 * 200 + 2 * 60) * 365 / 600,
    )


def test_holding_cost_is_a_years_rate_by_the_day() -> None:
    still = np.zeros((365, 2), np.int64)
    found = kpi.kpi(
        two_skus(),
        demand_units=still,
        sold_units=still,
        on_hand_units=still + np.array([10, 0]),
        order_lines=pa.table(
            {"day": pa.array([], pa.date32()), "supplier_id": pa.array([], pa.string())}
        ),
    )
    assert found.holding_cost_minor == round(10 * 200 * ASSUMED.holding_rate_per_year)
    assert found.cost_minor == found.holding_cost_minor
    assert found.fill_rate == 1.0
    assert found.turns == 0.0
    assert found.stockout_days == 365


def test_figures_that_cannot_be_are_refused() -> None:
    shop, one = two_skus(), np.ones((1, 2), np.int64)
    lines = baseline.play(shop, two_demand([0], [0]), DAYS[:1], lambda _now: one[0] * 0).order_lines
    with pytest.raises(InvariantBroken, match="days by the shop's 2 SKUs"):
        kpi.kpi(shop, demand_units=one, sold_units=one, on_hand_units=one[:, :1], order_lines=lines)
    with pytest.raises(InvariantBroken, match="between 0 and demand"):
        kpi.kpi(shop, demand_units=one, sold_units=one * 2, on_hand_units=one, order_lines=lines)
