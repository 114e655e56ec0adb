"""Each feature agrees with a plain computation of it, and nothing is read that was not known yet."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import count
from statistics import fmean, stdev
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep import features, stock
from storekeep.config import Settings
from storekeep.decisions import Evidence
from storekeep.events import event
from storekeep.features.sku_location import FEATURE_TABLE, KEPT
from storekeep.lake import FEED_STATES, ORDER_MOVES, SALE_LINES, TERMS, Lake
from storekeep.retail import ORDER_MOVE, SALE_LINE, STOCK_COUNT, SUPPLY_TERMS
from tests.shop import (
    BUYER,
    CURRENCY,
    FIRST_DAY,
    LOCATION,
    SKUS,
    TILLS,
    Shop,
    moment,
    new_tenant,
    of_tenant,
    opened_shop,
    sales,
    terms,
)

MONDAY = FIRST_DAY
TODAY = MONDAY + timedelta(days=8)
KNOWN_BY = moment(TODAY, 22)
TABLES = ("sale_line", "order_move", "supply_terms")
_numbers = count(1)

# A plain reference -----------------------------------------------------------------------------------


def reference(lake: Lake, today: date, known_by: datetime) -> dict[str, dict[str, Any]]:
    """Every feature of every item, one fact after another."""
    facts = {
        kept.name: [
            row
            for row in lake.query("SELECT * FROM t", tables={"t": kept}).to_pylist()
            if row["location_id"] == LOCATION and row["known_at"] <= known_by
        ]
        for kept in (SALE_LINES, ORDER_MOVES, TERMS, FEED_STATES)
    }
    lines = [row for row in facts["sale_line"] if row["day"] <= today]
    agreed: dict[str, dict[str, Any]] = {}
    for row in sorted(facts["supply_terms"], key=lambda row: row["known_at"]):
        agreed[row["sku"]] = row
    out = {}
    for sku, on_terms in agreed.items():
        mine = [row for row in lines if row["sku"] == sku]
        if any(row["day"] > today - timedelta(days=91) for row in mine):
            out[sku] = {
                **{name: on_terms[name] for name in ON_TERMS},
                **demand(mine, today),
                **supply(facts["order_move"], on_terms, known_by),
                **orders(facts["order_move"], sku, known_by),
                "contract_breached": breached(facts["feed_state"]),
            }
    return out


ON_TERMS = (
    *("supplier_id", "currency", "unit_cost_minor", "unit_price_minor", "pack_size_units"),
    *("minimum_order_units", "review_period_days", "review_weekday", "supplier_minimum_minor"),
)


def demand(lines: list[dict[str, Any]], today: date) -> dict[str, Any]:
    history = (today - min(row["day"] for row in lines)).days + 1
    # What is brought back on a day is taken from what was sold on it, down to nothing.
    sold = [
        max(0, sum(row["quantity_units"] for row in lines if row["day"] == day))
        for day in (today - timedelta(days=number) for number in range(min(91, history)))
    ]
    days_ago = [number for number, units in enumerate(sold) if units]
    return {
        "demand_mean_28d": sum(sold[:28]) / min(28, history),
        "demand_mean_91d": fmean(sold),
        "demand_sd_91d": stdev(sold) if len(sold) > 1 else 0.0,
        "demand_days_91d": len(days_ago),
        "history_days": history,
        "days_since_sale": min(days_ago, default=None),
    }


def supply(
    moves: list[dict[str, Any]], on_terms: dict[str, Any], known_by: datetime
) -> dict[str, Any]:
    """Lead times by purchase order: from its confirmation to the first that arrived of it."""
    mine = [row for row in moves if row["supplier_id"] == on_terms["supplier_id"]]
    days: dict[str, float] = {}
    for row in mine:
        if row["event_type"] != "GoodsReceived" or row["occurred_at"] <= known_by - timedelta(180):
            continue
        confirmed = min(
            each["occurred_at"]
            for each in mine
            if each["event_type"] == "PurchaseOrderConfirmed"
            and each["decision_id"] == row["decision_id"]
        )
        taken = (row["occurred_at"] - confirmed) / timedelta(days=1)
        order = row["purchase_order_id"]
        days[order] = min(taken, days.get(order, math.inf))
    seen = list(days.values())
    enough = len(seen) >= 5
    return {
        "lead_time_count": len(seen),
        "lead_time_mean_days": fmean(seen) if enough else on_terms["lead_time_mean_days"],
        "lead_time_sd_days": stdev(seen) if enough else on_terms["lead_time_sd_days"],
    }


def breached(told: list[dict[str, Any]]) -> bool:
    latest = {
        row["feed"]: row["state"]
        for row in sorted(told, key=lambda row: (row["occurred_at"], row["known_at"]))
    }
    return "breached" in latest.values()


def orders(moves: list[dict[str, Any]], sku: str, known_by: datetime) -> dict[str, Any]:
    cancelled = {
        row["decision_id"] for row in moves if row["event_type"] == "PurchaseOrderCancelled"
    }
    units = [
        row["quantity_units"]
        for row in moves
        if row["sku"] == sku
        and row["event_type"] == "PurchaseOrderConfirmed"
        and row["decision_id"] not in cancelled
        and row["occurred_at"] > known_by - timedelta(days=91)
    ]
    return {"usual_order_units": fmean(units) if units else None}


# The shop --------------------------------------------------------------------------------------------


def line(sku: str, day: date, units: int, known_at: datetime) -> dict[str, Any]:
    return {
        "line_key": f"planted/{next(_numbers)}",
        "location_id": LOCATION,
        "store_id": "S1",
        "basket_id": "planted",
        "sku": sku,
        "quantity_units": units,
        "value_minor": 0,
        "currency": CURRENCY,
        "customer_id": None,
        "day": day,
        "occurred_at": moment(day, 12),
        "known_at": known_at,
        "source_file": "planted.csv",
        "source_line": 1,
    }


def move(
    order: str, sku: str, supplier_id: str, at: datetime, known_at: datetime | None = None
) -> dict[str, Any]:
    return {
        "move_key": f"planted/{next(_numbers)}",
        "decision_id": f"{order}/{sku}",
        "purchase_order_id": order,
        "location_id": LOCATION,
        "sku": sku,
        "supplier_id": supplier_id,
        "quantity_units": 5,
        "occurred_at": at,
        "known_at": known_at or at,
    }


def moves(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ORDER_MOVE.arrow)


def delivered_orders(shop: Shop) -> None:
    """Six orders of two lines of the northern supplier, arrived after 1 to 6 days, the second line later."""
    for number in range(1, 7):
        order, placed = f"PO-{number}", moment(MONDAY - timedelta(days=9), 12, number)
        there = placed + timedelta(days=number, minutes=30)
        first, second = (move(order, sku, "north", placed) for sku in ("bread", "salt"))
        shop.pipeline.publish("PurchaseOrderConfirmed", "test", LOCATION, moves(first, second))
        late = move(order, "salt", "north", there + timedelta(days=2))
        shop.pipeline.publish(
            "GoodsReceived", "test", LOCATION, moves(move(order, "bread", "north", there), late)
        )
    # One that arrived before the last 180 days.
    old = moment(MONDAY - timedelta(days=200))
    shop.pipeline.publish(
        "PurchaseOrderConfirmed", "test", LOCATION, moves(move("PO-0", "bread", "north", old))
    )
    arrived = moves(move("PO-0", "bread", "north", old + timedelta(days=3)))
    shop.pipeline.publish("GoodsReceived", "test", LOCATION, arrived)


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """The shop after two reviews of each supplier, with older deliveries."""
    with opened_shop(of_tenant(home_settings, "features")) as opened:
        opened.prepare()
        delivered_orders(opened)
        opened.play(MONDAY, MONDAY + timedelta(days=1), MONDAY + timedelta(days=3))
        opened.play(MONDAY + timedelta(days=7), TODAY)
        yield opened


def computed(shop: Shop, today: date, known_by: datetime, **more: Any) -> dict[str, dict[str, Any]]:
    lake = shop.pipeline.lake
    rows = features.compute(
        lake,
        LOCATION,
        today=today,
        known_by=known_by,
        versions=lake.versions(TABLES),
        **more,
    )
    names = [each.name for each in features.FEATURES]
    return {row["sku"]: {name: row[name] for name in names} for row in rows.to_pylist()}


def agree(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    assert set(found) == set(expected)
    for sku, values in expected.items():
        # A feature that the reference does not know yet has to be added to it.
        assert set(found[sku]) == set(values)
        for name, value in values.items():
            want = pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            assert found[sku][name] == want, (sku, name)


@pytest.mark.parametrize("days", [0, 1, 3, 7, 8, 20, 60, 98, 120])
def test_every_feature_is_what_the_reference_computes(days: int, shop: Shop) -> None:
    today = MONDAY + timedelta(days=days)
    known_by = moment(today, 22)
    expected = reference(shop.pipeline.lake, today, known_by)
    agree(computed(shop, today, known_by), expected)


def test_the_shop_shows_every_feature_at_work(shop: Shop) -> None:
    rows = computed(shop, TODAY, KNOWN_BY)
    assert set(rows) == set(SKUS)
    assert rows["bread"]["lead_time_count"] >= 5
    # Of each order the first line that came counts: 1 to 6 days and half an hour, and the one of the week.
    assert rows["bread"]["lead_time_mean_days"] != 1.0
    assert rows["milk"]["lead_time_mean_days"] == 2.0
    assert rows["novelty"]["history_days"] == 29
    assert rows["lamp"]["days_since_sale"] == 74
    assert rows["bread"]["usual_order_units"] is not None


def usual(opened: Shop, day: date) -> dict[str, float | None]:
    """What is usual of each item by the end of a day."""
    opened.pipeline.keep_history()
    at = moment(day, 23, 59)
    rows = computed(opened, day, at)
    return {sku: values["usual_order_units"] for sku, values in rows.items()}


def test_an_order_that_came_to_nothing_is_not_usual(home_settings: Settings) -> None:
    """Not while it waits, not when it was refused, and not after it was taken back."""
    with opened_shop(new_tenant(home_settings)) as opened:
        opened.prepare()
        for _, step in opened.day_steps(MONDAY)[:4]:
            step()
        assert set(usual(opened, MONDAY).values()) == {None}
        (wine,) = opened.ids("wine")
        opened.clock.now = moment(MONDAY, 22, 30)
        opened.pipeline.reject([wine], BUYER, "nobody drinks it")
        opened.act(MONDAY)
        units = {sku: row["on_order_units"] for sku, row in opened.stock().items()}
        found = usual(opened, MONDAY)
        assert {sku for sku, mean in found.items() if mean is not None} == {"bread", "salt"}
        assert (found["bread"], found["salt"]) == (units["bread"], units["salt"])
        opened.revert("north", MONDAY)
        assert set(usual(opened, MONDAY).values()) == {None}


def test_an_item_that_was_not_sold_for_13_weeks_has_no_features(shop: Shop) -> None:
    far = TODAY + timedelta(days=92)
    assert computed(shop, far, moment(far, 22)) == {}


def test_only_some_items_are_the_same_items(shop: Shop) -> None:
    whole = computed(shop, TODAY, KNOWN_BY)
    assert computed(shop, TODAY, KNOWN_BY, only=["milk", "wine"]) == {
        sku: whole[sku] for sku in ("milk", "wine")
    }


def test_another_location_has_no_part_in_it(shop: Shop) -> None:
    lake = shop.pipeline.lake
    rows = features.compute(
        lake, "DC2", today=TODAY, known_by=KNOWN_BY, versions=lake.versions(TABLES)
    )
    assert rows.num_rows == 0


@st.composite
def futures(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A fact that nobody could have known at the time: which table, and the row."""
    sku = draw(st.sampled_from(SKUS))
    later = KNOWN_BY + timedelta(microseconds=draw(st.integers(1, 10**12)))
    day = TODAY - timedelta(days=draw(st.integers(-5, 100)))
    kind = draw(st.sampled_from(["sale_line", "order_move", "supply_terms", "future day"]))
    if kind == "sale_line":
        return kind, line(sku, day, draw(st.integers(-9, 999).filter(bool)), later)
    if kind == "future day":
        ahead = TODAY + timedelta(days=draw(st.integers(1, 30)))
        return "sale_line", line(sku, ahead, 500, KNOWN_BY - timedelta(days=1))
    if kind == "order_move":
        return kind, move(f"PO-{next(_numbers)}", sku, "north", moment(day, 3), later)
    row = terms(later).to_pylist()[SKUS.index(sku)]
    return kind, {**row, "unit_cost_minor": 1, "lead_time_mean_days": 99.0, "supplier_id": "other"}


@settings(max_examples=12)
@given(planted=st.lists(futures(), min_size=1, max_size=5))
def test_what_was_not_known_yet_is_never_read(
    planted: list[tuple[str, dict[str, Any]]], shop: Shop
) -> None:
    before = computed(shop, TODAY, KNOWN_BY)
    for name, row in planted:
        plant(shop, name, row)
    assert computed(shop, TODAY, KNOWN_BY) == before
    agree(before, reference(shop.pipeline.lake, TODAY, KNOWN_BY))


def plant(shop: Shop, name: str, row: dict[str, Any]) -> None:
    """Put a row into the lake as its keeper would."""
    kept, table = {
        "sale_line": (SALE_LINES, SALE_LINE),
        "order_move": (ORDER_MOVES, ORDER_MOVE),
        "supply_terms": (TERMS, SUPPLY_TERMS),
    }[name]
    rows = pa.Table.from_pylist([row], schema=table.arrow)
    if kept is not TERMS:
        type_ = "SaleRecorded" if kept is SALE_LINES else "OrderCommitted"
        rows = rows.append_column("event_type", pa.array([type_]))
        rows = rows.append_column("position", pa.array([10**9], pa.int64()))
        rows = rows.append_column("fact", pa.array([0], pa.int64()))
    shop.pipeline.lake.append(kept, rows, writer=f"planted:{next(_numbers)}", position=1)


def test_what_is_known_at_the_very_moment_is_read(home_settings: Settings) -> None:
    with opened_shop(of_tenant(home_settings, "moment")) as opened:
        plant_terms = terms().filter(pa.compute.equal(terms()["sku"], "bread")).to_pylist()[0]
        plant(opened, "supply_terms", plant_terms)
        plant(opened, "sale_line", line("bread", MONDAY, 28, moment(MONDAY, 22)))
        just = moment(MONDAY, 22)
        assert computed(opened, MONDAY, just)["bread"]["demand_mean_28d"] == 28.0
        assert computed(opened, MONDAY, just - timedelta(microseconds=1)) == {}


# Kept and read back ----------------------------------------------------------------------------------


def taken(shop: Shop, known_by: datetime, only: list[str] | None = None) -> Evidence:
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        shelf = tx.stock(LOCATION)
    return features.snapshot(
        shop.pipeline.lake, LOCATION, known_by=known_by, stock=shelf, position=7, only=only
    )


def snapshot(
    shop: Shop, known_by: datetime, only: list[str] | None = None
) -> dict[str, dict[str, Any]]:
    found = taken(shop, known_by, only)
    assert found.position == 7
    assert found.known_by == known_by
    return {row["sku"]: row for row in found.values.to_pylist()}


def test_a_snapshot_is_what_was_last_kept_by_then(shop: Shop) -> None:
    names = [each.name for each in features.FEATURES]
    for day in (MONDAY, MONDAY + timedelta(days=1), TODAY):
        read = snapshot(shop, moment(day, 23))
        kept = features.compute(
            shop.pipeline.lake,
            LOCATION,
            today=day,
            known_by=moment(day, 22),
            versions=json.loads(taken(shop, moment(day, 23)).versions["lake"]),
        ).to_pylist()
        assert sorted(read) == [row["sku"] for row in kept] == list(SKUS)
        for row in kept:
            mine = read[row["sku"]]
            assert {name: mine[name] for name in names} == {name: row[name] for name in names}
            assert mine["day"] == day
            assert mine["evidence_age_hours"] == 1.0
            assert mine["subject"] == f"{row['sku']}@{LOCATION}"


def test_before_anything_was_kept_there_is_nothing_and_after_long_silence_too(shop: Shop) -> None:
    assert snapshot(shop, moment(MONDAY, 21, 59)) == {}
    assert snapshot(shop, moment(TODAY + timedelta(days=90))) == {}


def test_evidence_has_the_columns_that_rulebooks_are_checked_against(shop: Shop) -> None:
    read = snapshot(shop, KNOWN_BY, only=["bread"])
    assert list(read) == ["bread"]
    assert set(read["bread"]) == set(features.SCHEMA)


def test_an_item_without_a_stock_position_is_not_decided_on(shop: Shop) -> None:
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        shelf = tx.stock(LOCATION)
    known = shelf.filter(pa.compute.not_equal(shelf["sku"], "milk"))
    found = features.snapshot(
        shop.pipeline.lake, LOCATION, known_by=KNOWN_BY, stock=known, position=1
    )
    assert found.values["sku"].to_pylist() == sorted({*SKUS} - {"milk"})


def test_moving_features_to_the_same_moment_twice_keeps_the_first(shop: Shop) -> None:
    lake = shop.pipeline.lake
    before = lake.version(FEATURE_TABLE.name)
    for at in (KNOWN_BY, KNOWN_BY - timedelta(days=1)):
        assert features.update(lake, LOCATION, today=TODAY, known_by=at).items == 0
    assert lake.version(FEATURE_TABLE.name) == before


def test_the_digest_of_evidence_covers_values_time_and_versions(shop: Shop) -> None:
    read, again = taken(shop, KNOWN_BY), taken(shop, KNOWN_BY)
    other = taken(shop, KNOWN_BY + timedelta(microseconds=1))
    assert read.digests().to_pylist() == again.digests().to_pylist()
    assert not set(read.digests().to_pylist()) & set(other.digests().to_pylist())
    assert set(read.versions) == {"features", "lake", "features_at", "day"}


@settings(max_examples=40)
@given(
    order=st.permutations(["é", "a", "B", "b1", "z"]),
    counted=st.permutations(["z", "é", "b1", "a", "none"]),
    micros=st.integers(0, 10**11),
)
def test_features_and_stock_are_joined_item_by_item(
    order: list[str], counted: list[str], micros: int
) -> None:
    newest = KNOWN_BY - timedelta(microseconds=micros)
    plain = {"text": "x", "bool": True, "int": 1, "float": 1.5, "date": TODAY, "time": newest}
    row = {column.name: plain[column.kind] for column in FEATURE_TABLE.columns}
    rows = pa.Table.from_pylist(
        [{**row, "sku": sku, "location_id": LOCATION, "inputs": sku} for sku in order],
        schema=KEPT.schema,
    )
    units = {sku: number for number, sku in enumerate(counted)}
    shelf = pa.table(
        {
            "sku": counted,
            "on_hand_units": [units[sku] for sku in counted],
            "on_order_units": [10 + units[sku] for sku in counted],
            "committed_units": [20 + units[sku] for sku in counted],
        }
    )
    found = features.evidence(rows, shelf, known_by=KNOWN_BY, position=3)
    seconds = int(KNOWN_BY.timestamp()) - math.floor(newest.timestamp())
    assert found.values.column_names == list(features.SCHEMA)
    assert [
        (each["subject"], each["on_hand_units"], each["on_order_units"], each["committed_units"])
        for each in found.values.to_pylist()
    ] == [
        (f"{sku}@{LOCATION}", units[sku], 10 + units[sku], 20 + units[sku])
        for sku in sorted({*order} & {*counted})
    ]
    assert set(found.values["evidence_age_hours"].to_pylist()) == {round(seconds / 3600, 6)}


# Stock -----------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("SaleRecorded", "StockCounted", "OrderCommitted", "OrderReleased"),
                *("PurchaseOrderConfirmed", "PurchaseOrderCancelled", "GoodsReceived"),
            ]
        ),
        st.lists(st.integers(-3, 15), min_size=1, max_size=3),
    ),
    max_size=12,
)


def folded(played: list[tuple[str, list[int]]]) -> list[int]:
    """On hand, on order and committed after each event, one after another."""
    hand, ordered, committed = 0, 0, 0
    for type_, parts in played:
        units = sum(parts)
        if type_ == "SaleRecorded":
            hand = max(0, hand - max(0, units))
        elif type_ == "StockCounted":
            hand = parts[0]
        elif type_ == "OrderCommitted":
            committed += units
        elif type_ == "OrderReleased":
            committed -= units
        elif type_ == "PurchaseOrderConfirmed":
            ordered, committed = ordered + units, committed - units
        elif type_ == "PurchaseOrderCancelled":
            ordered -= units
        else:
            hand, ordered = hand + units, ordered - units
    return [hand, ordered, committed]


@settings(max_examples=15)
@given(opening=st.integers(0, 30), played=steps)
def test_stock_is_folded_alike_live_and_from_history(
    opening: int, played: list[tuple[str, list[int]]], shop: Shop
) -> None:
    sku = f"folded{next(_numbers)}"
    events = [("StockCounted", [opening])]
    events += [
        (type_, parts if type_ == "SaleRecorded" else [abs(parts[0])]) for type_, parts in played
    ]
    for number, (type_, parts) in enumerate(events):
        at = moment(TODAY + timedelta(days=1)) + timedelta(minutes=number)
        publish(shop, type_, sku, parts, at)
    shop.pipeline.move_stock()
    shop.pipeline.keep_history()
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        live = {row["sku"]: row for row in tx.stock(LOCATION).to_pylist()}[sku]
        head = max(tx.heads().values())
    shelf = features.stock_as_of(shop.pipeline.lake, LOCATION, head, [sku])
    (kept,) = shelf.to_pylist()
    names = ("on_hand_units", "on_order_units", "committed_units")
    assert [live[name] for name in names] == folded(events)
    assert [kept[name] for name in names] == folded(events)


def publish(shop: Shop, type_: str, sku: str, parts: list[int], at: datetime) -> None:
    if type_ == "SaleRecorded":
        rows = [{**line(sku, TODAY, units, at), "occurred_at": at} for units in parts if units]
        facts = pa.Table.from_pylist(rows, schema=SALE_LINE.arrow)
    elif type_ == "StockCounted":
        row = {"sku": sku, "location_id": LOCATION, "quantity_units": parts[0]}
        facts = pa.Table.from_pylist(
            [{**row, "occurred_at": at, "known_at": at}], schema=STOCK_COUNT.arrow
        )
    else:
        facts = moves({**move("PO-x", sku, "north", at), "quantity_units": parts[0]})
    shop.pipeline.publish(type_, TILLS, LOCATION, facts)


def test_the_net_of_a_batch_moves_stock() -> None:
    rows = sales(MONDAY, MONDAY)
    bread = rows.filter(pa.compute.equal(rows["sku"], "bread"))["quantity_units"].to_pylist()
    moved = stock.moves([event("SaleRecorded", TILLS, LOCATION, KNOWN_BY, rows)]).to_pylist()
    assert {row["sku"]: row["on_hand_units"] for row in moved}["bread"] == -sum(bread)
