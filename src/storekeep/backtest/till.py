"""Tills that ring in real time: a small assortment, so many lines a second, and how soon each is decided on.

Hides the assortment and the clock. The turns are those of the process that a home runs: what has rung since
the last one is taken in, counted in, and the agent woken, as often as that can be done.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storekeep.backtest.orders import LOCATION
from storekeep.lake import TERMS
from storekeep.pipeline import Pipeline
from storekeep.pipeline.working import pause_seconds
from storekeep.retail import SALE_LINE, STOCK_COUNT, SUPPLY_TERMS

SKUS = 300
_TILLS = "tills"
_HISTORY_DAYS = 91


def prepare(pipeline: Pipeline, location_id: str = LOCATION) -> None:
    """Three months of an assortment of a few hundred items, its terms, and a count of the shelves."""
    now = pipeline.now()
    terms = _terms(now, location_id)
    pipeline.lake.append(TERMS, terms, writer=f"{_TILLS}/{location_id}", position=1)
    ages = range(_HISTORY_DAYS, 0, -1)
    days = [
        lines(np.arange(SKUS), now - timedelta(days=age), f"history {age}", location_id)
        for age in ages
    ]
    history = pa.concat_tables(days)
    pipeline.take_in(history, _TILLS, location_id)
    pipeline.publish("StockCounted", "shelf", location_id, _count(now, location_id))
    pipeline.move_stock()
    pipeline.keep_history()
    pipeline.skip_to_present(location_id)


def ring(pipeline: Pipeline, lines_per_second: int, for_seconds: int) -> NDArray[np.float64]:
    """For each line, the seconds from when it rang until a decision in the knowledge of it was committed.

    A line counts as decided on once the turn is over.
    """
    many = lines_per_second * for_seconds
    rung = np.arange(many) / lines_per_second
    decided = np.zeros(many)
    told, done, begun = 0, 0, time.monotonic()
    tally: Counter[str] = Counter()
    with pipeline.store.again() as beside:
        while done < many:
            turned = time.monotonic()
            due = min(many, int((turned - begun) * lines_per_second) + 1)
            now, before = pipeline.now(), tally["decided"]
            pipeline.take_in(lines(np.arange(told, due), now, "now"), _TILLS, LOCATION)
            told = due
            pipeline.turn(now.date(), beside, tally, lambda: False)
            if tally["decided"] > before:
                decided[done:told] = time.monotonic() - begun
                done = told
            time.sleep(pause_seconds(turned))
    return decided - rung


def lines(
    numbers: NDArray[np.int64], at: datetime, name: str, location_id: str = LOCATION
) -> pa.Table:
    """Sale lines, each item in its turn; the same numbers of a name at a location are the same lines."""
    many = len(numbers)
    begins = f"{location_id}/{name}"
    keys = pc.binary_join_element_wise(begins, pa.array(numbers).cast(pa.string()), "/")
    columns: dict[str, Any] = {
        "line_key": keys,
        "location_id": pa.repeat(location_id, many),
        "store_id": pa.repeat("1", many),
        "basket_id": keys,
        "sku": _skus(numbers % SKUS),
        "quantity_units": pa.array(1 + numbers % 3),
        "value_minor": pa.array(200 * (1 + numbers % 3)),
        "currency": pa.repeat("USD", many),
        "customer_id": pa.nulls(many, pa.string()),
        "day": pa.repeat(pa.scalar(at.date(), pa.date32()), many),
        "occurred_at": pa.repeat(pa.scalar(at, pa.timestamp("us", tz="UTC")), many),
        "known_at": pa.repeat(pa.scalar(at, pa.timestamp("us", tz="UTC")), many),
        "source_file": pa.repeat(name, many),
        "source_line": pa.array(numbers + 1),
    }
    return pa.table([columns[each.name] for each in SALE_LINE.arrow], SALE_LINE.arrow)


def _skus(numbers: NDArray[np.int64]) -> pa.Array:
    return pc.binary_join_element_wise("SKU", pa.array(numbers).cast(pa.string()), "")


def _terms(now: datetime, location_id: str) -> pa.Table:
    """Every item is ordered today, from one of ten suppliers."""
    rows = [
        {
            "sku": f"SKU{number}",
            "location_id": location_id,
            "supplier_id": f"S{number % 10:03}",
            "unit_cost_minor": 120,
            "unit_price_minor": 200,
            "currency": "USD",
            "pack_size_units": 6,
            "minimum_order_units": 6,
            "lead_time_mean_days": 3.0,
            "lead_time_sd_days": 0.5,
            "review_period_days": 7,
            "review_weekday": now.astimezone(UTC).isoweekday(),
            "supplier_minimum_minor": 0,
            "known_at": now - timedelta(days=_HISTORY_DAYS + 1),
        }
        for number in range(SKUS)
    ]
    return pa.Table.from_pylist(rows, schema=SUPPLY_TERMS.arrow)


def _count(now: datetime, location_id: str) -> pa.Table:
    rows = [
        {
            "location_id": location_id,
            "sku": f"SKU{number}",
            "quantity_units": 400,
            "occurred_at": now,
            "known_at": now,
        }
        for number in range(SKUS)
    ]
    return pa.Table.from_pylist(rows, schema=STOCK_COUNT.arrow)
