"""Stock is moved alike by events one after another, by all of them at once, and from history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storekeep import bus, features, stock
from storekeep.config import Settings
from storekeep.events import EVENT_TABLES, Event, event
from storekeep.lake import ORDER_MOVES
from storekeep.retail import Table
from tests.shop import FIRST_DAY, LOCATION, Shop, moment, new_tenant, opened_shop, same_text

SKUS = ("bread", "milk")
_numbers = count(1)
# What an event reports: its type, and units of items.
Told = tuple[str, list[tuple[str, int]]]

plays = st.lists(
    st.tuples(
        st.sampled_from(sorted(stock._DELTAS)),
        # Tills take back, and a wrong count or delivery is made good.
        st.lists(st.tuples(st.sampled_from(SKUS), st.integers(-3, 9)), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=14,
)
cuts = st.lists(st.integers(0, 14), max_size=3)


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """A shop of which nothing is known."""
    with opened_shop(new_tenant(home_settings)) as opened:
        opened.clock.now = moment(FIRST_DAY)
        yield opened


def facts(table: Table, told: list[tuple[str, int]], number: int, location_id: str) -> pa.Table:
    """Facts of one event; what is told of an item later was also counted later."""
    words = {"currency": "USD", "location_id": location_id}
    at = moment(FIRST_DAY) - timedelta(minutes=30 - number)
    rows = []
    for place, (sku, units) in enumerate(told):
        plain: dict[str, Any] = {
            column.name: {
                "text": words.get(column.name, f"{number}/{place}"),
                "time": at + timedelta(seconds=place),
                "date": FIRST_DAY,
            }.get(column.kind, place)
            for column in table.columns
        }
        rows.append({**plain, "sku": sku, "quantity_units": units})
    return pa.Table.from_pylist(rows, schema=table.arrow)


def events(played: list[Told], location_id: str) -> list[Event]:
    at = moment(FIRST_DAY)
    return [
        event(type_, "test", location_id, at, facts(EVENT_TABLES[type_], told, number, location_id))
        for number, (type_, told) in enumerate(played)
    ]


# What a unit of each type of event does to what is on hand, on order and committed.
SIGNS = {
    "SaleRecorded": (-1, 0, 0),
    "OrderCommitted": (0, 0, 1),
    "OrderReleased": (0, 0, -1),
    "PurchaseOrderConfirmed": (0, 1, -1),
    "PurchaseOrderCancelled": (0, -1, 0),
    "GoodsReceived": (1, -1, 0),
}


def told_one_by_one(played: list[Told]) -> tuple[dict[str, list[int]], int]:
    """On hand, on order, committed and unmet of each counted item, in plain words; all that is unmet."""
    shelf: dict[str, list[int]] = {}
    for type_, told in played:
        units = dict.fromkeys((sku for sku, _ in told), 0)
        for sku, many in told:
            units[sku] = many if type_ == "StockCounted" else units[sku] + many
        for sku, many in units.items():
            if type_ == "StockCounted":
                shelf[sku] = [many, *shelf.get(sku, [0, 0, 0, 0])[1:]]
            elif sku in shelf:
                moved = max(0, many) if type_ == "SaleRecorded" else many
                for place, sign in enumerate(SIGNS[type_]):
                    shelf[sku][place] += sign * moved
            if sku in shelf and shelf[sku][0] < 0:
                shelf[sku][3] -= shelf[sku][0]
                shelf[sku][0] = 0
    return shelf, sum(each[3] for each in shelf.values())


def positions(shop: Shop, location_id: str) -> dict[str, list[int]]:
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        return by_sku(tx.stock(location_id))


def by_sku(table: pa.Table) -> dict[str, list[int]]:
    names = ("on_hand_units", "on_order_units", "committed_units", "unmet_units")
    return {row["sku"]: [row[name] for name in names] for row in table.to_pylist()}


@settings(max_examples=60)
@given(played=plays, cuts=cuts)
@example(
    played=[
        ("OrderCommitted", [("bread", 4)]),
        ("StockCounted", [("bread", 5), ("bread", 3)]),
        ("SaleRecorded", [("bread", 7)]),
        ("GoodsReceived", [("bread", 6)]),
        ("SaleRecorded", [("bread", 9), ("bread", -1)]),
        ("StockCounted", [("bread", 2)]),
        ("SaleRecorded", [("bread", 5)]),
        ("GoodsReceived", [("bread", 1)]),
    ],
    cuts=[3, 5],
)
def test_events_move_stock_alike_one_by_one_at_once_and_in_any_parts(
    played: list[Told], cuts: list[int], shop: Shop
) -> None:
    wanted, lost = told_one_by_one(played)
    many = len(played)
    borders = sorted({0, many, *(cut for cut in cuts if cut < many)})
    ways = [list(range(many + 1)), [0, many], borders]
    for way in ways:
        location_id = f"L{next(_numbers)}"
        all_of_it = events(played, location_id)
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            unmet = sum(
                tx.move_stock(stock.moves(all_of_it[first:last])) for first, last in pairwise(way)
            )
        assert positions(shop, location_id) == wanted
        assert unmet == lost


@settings(max_examples=10)
@given(played=plays)
def test_positions_history_and_their_rebuilding_agree(played: list[Told], shop: Shop) -> None:
    pipeline, location_id = shop.pipeline, f"L{next(_numbers)}"
    partition = bus.partition_of(pipeline.tenant, location_id)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        bus.append(tx, partition, events(played, location_id))
    wanted, lost = told_one_by_one(played)
    assert pipeline.move_stock() == lost
    assert pipeline.move_stock() == 0
    assert positions(shop, location_id) == wanted
    pipeline.keep_history()
    with pipeline.store.transaction(pipeline.tenant) as tx:
        head = tx.heads()[partition]
    assert by_sku(features.stock_as_of(pipeline.lake, location_id, head)) == wanted
    pipeline.rebuild_stock()
    assert positions(shop, location_id) == wanted


def test_no_events_move_nothing(shop: Shop) -> None:
    before = same_text(positions(shop, LOCATION))
    assert shop.pipeline.move_stock() == 0
    assert same_text(positions(shop, LOCATION)) == before


def test_history_has_each_fact_in_its_place(shop: Shop) -> None:
    location_id = f"L{next(_numbers)}"
    played: list[Told] = [
        ("OrderCommitted", [("bread", 1), ("milk", 2)]),
        ("StockCounted", [("bread", 3)]),
        ("OrderReleased", [("milk", 4)]),
        ("OrderCommitted", [("milk", 5), ("bread", 6), ("bread", 7)]),
    ]
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        found = bus.append(
            tx, bus.partition_of(tx.tenant, location_id), events(played, location_id)
        )
    shop.pipeline.keep_history()
    rows = shop.pipeline.lake.query(
        "SELECT event_type, position, fact, quantity_units AS units FROM move"
        f" WHERE location_id = '{location_id}' ORDER BY units",
        tables={"move": ORDER_MOVES},
    ).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("OrderCommitted", found[0], 0, 1),
        ("OrderCommitted", found[0], 1, 2),
        ("OrderReleased", found[2], 0, 4),
        ("OrderCommitted", found[3], 0, 5),
        ("OrderCommitted", found[3], 1, 6),
        ("OrderCommitted", found[3], 2, 7),
    ]
