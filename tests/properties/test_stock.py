"""Stock is moved alike by events one after another, by all of them at once, and from history."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from datetime import timedelta
from itertools import count, pairwise
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storekeep import bus, features, stock
from storekeep.config import Settings
from storekeep.events import EVENT_TABLES, Event, event
from storekeep.lake import ORDER_MOVES
from tests.shop import FIRST_DAY, LOCATION, Shop, moment, new_tenant, opened_shop, same_text

SKUS = ("bread", "milk")
_numbers = count(1)
# How many seconds lie between two facts of an event: an event of sales is of several minutes.
STEPS = {"SaleRecorded": 60}
# What an event reports: its type, and units of items.
Told = tuple[str, list[tuple[str, int]]]

plays = st.lists(
    st.tuples(
        st.sampled_from(sorted({"StockCounted", *stock._DELTAS})),
        # Tills take back, and a wrong count or delivery is made good.
        st.lists(st.tuples(st.sampled_from(SKUS), st.integers(-3, 9)), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=14,
)
moving = plays.map(lambda played: [each for each in played if each[0] != "StockCounted"])
cuts = st.lists(st.integers(0, 14), max_size=3)


class Backwards(Random):
    """What came last comes first."""

    def shuffle(self, x: MutableSequence[Any]) -> None:
        x.reverse()


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """A shop of which nothing is known."""
    with opened_shop(new_tenant(home_settings)) as opened:
        opened.clock.now = moment(FIRST_DAY)
        yield opened


def facts(type_: str, told: list[tuple[str, int]], number: int, location_id: str) -> pa.Table:
    """Facts of one event; what is told of an item later was also counted later."""
    table = EVENT_TABLES[type_]
    words = {"currency": "USD", "location_id": location_id}
    at = moment(FIRST_DAY) - timedelta(minutes=30 - number)
    rows = []
    for place, (sku, units) in enumerate(told):
        plain: dict[str, Any] = {
            column.name: {
                "text": words.get(column.name, f"{number}/{place}"),
                "time": at + timedelta(seconds=place * STEPS.get(type_, 1)),
                "date": FIRST_DAY,
            }.get(column.kind, place)
            for column in table.columns
        }
        rows.append({**plain, "sku": sku, "quantity_units": units})
    return pa.Table.from_pylist(rows, schema=table.arrow)


def events(played: list[Told], location_id: str) -> list[Event]:
    at = moment(FIRST_DAY)
    return [
        event(type_, "test", location_id, at, facts(type_, told, number, location_id))
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


def told_one_by_one(played: list[Told]) -> dict[str, list[int]]:
    """On hand, on order, committed and unmet since its last count, of each counted item in plain words."""
    shelf: dict[str, list[int]] = {}
    for type_, told in played:
        units = dict.fromkeys((sku for sku, _ in told), 0)
        for sku, many in told:
            units[sku] = many if type_ == "StockCounted" else units[sku] + many
        for sku, many in units.items():
            if type_ == "StockCounted":
                shelf[sku] = [many, *shelf.get(sku, [0, 0, 0])[1:3], 0]
            elif sku in shelf:
                moved = max(0, many) if type_ == "SaleRecorded" else many
                for place, sign in enumerate(SIGNS[type_]):
                    shelf[sku][place] += sign * moved
            if sku in shelf and shelf[sku][0] < 0:
                shelf[sku][3] -= shelf[sku][0]
                shelf[sku][0] = 0
    return shelf


def positions(shop: Shop, location_id: str) -> dict[str, list[int]]:
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        return by_sku(tx.stock(location_id))


def by_sku(table: pa.Table) -> dict[str, list[int]]:
    names = ("on_hand_units", "on_order_units", "committed_units", "unmet_units")
    return {row["sku"]: [row[name] for name in names] for row in table.to_pylist()}


def taken_in(shop: Shop, location_id: str, told: list[Event], cuts: list[int]) -> None:
    """Events come in their order, and stock moves at each cut."""
    partition = bus.partition_of(shop.pipeline.tenant, location_id)
    borders = sorted({0, len(told), *(cut for cut in cuts if cut < len(told))})
    for first, last in pairwise(borders):
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            bus.append(tx, partition, told[first:last])
        shop.pipeline.move_stock()


@settings(max_examples=60)
@given(opening=st.integers(0, 9), played=moving, cuts=cuts)
@example(
    opening=3,
    played=[
        ("SaleRecorded", [("bread", 7)]),
        ("GoodsReceived", [("bread", 6)]),
        ("SaleRecorded", [("bread", 9), ("bread", -1)]),
        ("GoodsReceived", [("bread", 1)]),
    ],
    cuts=[3],
)
def test_events_move_stock_alike_one_by_one_at_once_and_in_any_parts(
    opening: int, played: list[Told], cuts: list[int], shop: Shop
) -> None:
    wanted = told_one_by_one([("StockCounted", [("bread", opening)]), *played])
    many = len(played)
    borders = sorted({0, many, *(cut for cut in cuts if cut < many)})
    ways = [list(range(many + 1)), [0, many], borders]
    for way in ways:
        location_id = f"L{next(_numbers)}"
        counted = {"location_id": [location_id], "sku": ["bread"], "on_hand_units": [opening]}
        counted |= {"counted_at": [moment(FIRST_DAY) - timedelta(days=1)]}
        counted |= {f"{name}_units": [0] for name in ("on_order", "committed", "unmet")}
        all_of_it = events(played, location_id)
        with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
            tx.count_stock(pa.table(counted))
            for first, last in pairwise(way):
                tx.move_stock(stock.moves(all_of_it[first:last]))
        assert positions(shop, location_id) == wanted


@settings(max_examples=10)
@given(played=plays, cuts=cuts)
@example(
    played=[
        ("OrderCommitted", [("bread", 4)]),
        ("StockCounted", [("bread", 5), ("bread", 3)]),
        ("SaleRecorded", [("bread", 7)]),
        ("GoodsReceived", [("bread", 6)]),
        ("StockCounted", [("bread", 2)]),
        ("SaleRecorded", [("bread", 5)]),
    ],
    cuts=[3, 5],
)
def test_positions_history_and_their_rebuilding_agree(
    played: list[Told], cuts: list[int], shop: Shop
) -> None:
    location_id = f"L{next(_numbers)}"
    wanted = told_one_by_one(played)
    taken_in(shop, location_id, events(played, location_id), cuts)
    shop.pipeline.move_stock()
    assert positions(shop, location_id) == wanted
    assert as_of_now(shop, location_id) == wanted
    shop.pipeline.rebuild_stock()
    assert positions(shop, location_id) == wanted


def as_of_now(shop: Shop, location_id: str) -> dict[str, list[int]]:
    """The positions as history tells them."""
    shop.pipeline.keep_history()
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        head = tx.heads()[bus.partition_of(tx.tenant, location_id)]
    return by_sku(features.stock_as_of(shop.pipeline.lake, location_id, head))


def told_by_time(played: list[Told]) -> dict[str, list[int]]:
    """On hand and unmet of each counted item by when things happened: by its newest count, and since."""
    shelf: dict[str, list[int]] = {}
    for sku in SKUS:
        counts = [
            (60 * number + place, many)
            for number, (type_, told) in enumerate(played)
            for place, (item, many) in enumerate(told)
            if type_ == "StockCounted" and item == sku
        ]
        if not counts:
            continue
        since, level = max(counts)
        unmet = max(0, -level)
        level += unmet
        for number, (type_, told) in enumerate(played):
            net = sum(
                many
                for place, (item, many) in enumerate(told)
                if item == sku and 60 * number + place * STEPS.get(type_, 1) >= since
            )
            level += {"SaleRecorded": -max(0, net), "GoodsReceived": net}.get(type_, 0)
            unmet += max(0, -level)
            level = max(0, level)
        shelf[sku] = [level, unmet]
    return shelf


late = st.lists(
    st.tuples(
        st.sampled_from(["SaleRecorded", "StockCounted"]),
        st.lists(st.tuples(st.sampled_from(SKUS), st.integers(-3, 9)), min_size=1, max_size=4),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=10)
@given(played=late, cuts=cuts, order=st.randoms(use_true_random=False))
@example(
    # Of what was sold while somebody counted, the later half is not in the count, which comes first.
    played=[
        ("SaleRecorded", [("bread", 1), ("bread", 2), ("bread", 3)]),
        ("StockCounted", [("bread", 10)]),
    ],
    cuts=[1],
    order=Backwards(),
)
@example(
    # Twice counted, the second count comes first; so does a sale after it, and one before it comes last.
    played=[
        ("StockCounted", [("bread", 20)]),
        ("SaleRecorded", [("bread", 3)]),
        ("StockCounted", [("bread", 10)]),
        ("SaleRecorded", [("bread", 4)]),
    ],
    cuts=[1, 2, 3],
    order=Backwards(),
)
def test_counts_and_sales_come_in_any_order(
    played: list[Told], cuts: list[int], order: Random, shop: Shop
) -> None:
    location_id = f"L{next(_numbers)}"
    told = events(played, location_id)
    order.shuffle(told)
    taken_in(shop, location_id, told, cuts)
    agreed(shop, location_id, told_by_time(played))


@settings(max_examples=10)
@given(
    played=st.lists(
        st.tuples(
            st.sampled_from(["SaleRecorded", "GoodsReceived"]),
            st.lists(st.tuples(st.sampled_from(SKUS), st.integers(0, 9)), min_size=1, max_size=3),
        ),
        max_size=6,
    ),
    counts=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=3
    ),
    cuts=cuts,
)
def test_counts_come_as_late_as_they_like(
    played: list[Told], counts: list[tuple[int, int, int]], cuts: list[int], shop: Shop
) -> None:
    """Deliveries and sales keep their order, since a shelf cannot hold less than nothing; counts need not."""
    location_id = f"L{next(_numbers)}"
    by_time, comes = list(enumerate(played)), dict(enumerate(range(len(played))))
    for key, (when, _, units) in enumerate(counts, start=100):
        by_time.insert(when, (key, ("StockCounted", [("bread", units)])))
    told = dict(
        zip(
            (key for key, _ in by_time),
            events([each for _, each in by_time], location_id),
            strict=True,
        )
    )
    comes |= {key: told_at for key, (_, told_at, _) in enumerate(counts, start=100)}
    taken_in(shop, location_id, [told[key] for key in sorted(comes, key=comes.__getitem__)], cuts)
    agreed(shop, location_id, told_by_time([each for _, each in by_time]))


def agreed(shop: Shop, location_id: str, wanted: dict[str, list[int]]) -> None:
    """On hand and unmet are as wanted, live, from history, and folded again."""
    live = positions(shop, location_id)
    assert {sku: [each[0], each[3]] for sku, each in live.items()} == wanted
    assert as_of_now(shop, location_id) == live
    shop.pipeline.rebuild_stock()
    assert positions(shop, location_id) == live


def test_no_events_move_nothing(shop: Shop) -> None:
    before = same_text(positions(shop, LOCATION))
    shop.pipeline.move_stock()
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
