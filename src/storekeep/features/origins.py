"""Where features come from: the columns of history behind each, and the very rows behind those of one item.

Hides which of the facts of a location the features of an item are made of, and which its stock. A test holds
the columns against the query that computes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from storekeep.lake import (
    FEED_STATES,
    ORDER_MOVES,
    SALE_LINES,
    STOCK_COUNTS,
    TERMS,
    Kept,
    Lake,
    single,
)

_SOLD = ("sale_line.day", "sale_line.quantity_units")
_TERMS = (
    *("supplier_id", "currency", "unit_cost_minor", "unit_price_minor", "pack_size_units"),
    *("minimum_order_units", "review_period_days", "review_weekday", "supplier_minimum_minor"),
)
ORIGINS: Mapping[str, tuple[str, ...]] = {
    **{name: (f"supply_terms.{name}",) for name in _TERMS},
    **dict.fromkeys(
        ("demand_mean_28d", "demand_mean_91d", "demand_sd_91d", "days_since_sale"), _SOLD
    ),
    "demand_days_91d": ("sale_line.quantity_units",),
    "history_days": ("sale_line.day",),
    "lead_time_mean_days": ("order_move.occurred_at", "supply_terms.lead_time_mean_days"),
    "lead_time_sd_days": ("order_move.occurred_at", "supply_terms.lead_time_sd_days"),
    "lead_time_count": ("order_move.occurred_at",),
    "usual_order_units": ("order_move.quantity_units",),
    "contract_breached": ("feed_state.state",),
}
"""The columns of history that the value of each feature is computed from."""

_HERE = "location_id = $location AND known_at <= $known_by"
_ITEM = f"{_HERE} AND sku = $sku"
_FEATURES: Mapping[Kept, str] = {
    SALE_LINES: f"{_ITEM} AND day <= $today AND (day > $today - 91"
    f" OR day = (SELECT min(day) FROM told WHERE {_ITEM}))",
    ORDER_MOVES: f"{_HERE} AND ((sku = $sku AND occurred_at > $known_by - INTERVAL 91 DAY"
    "  AND event_type IN ('PurchaseOrderConfirmed', 'PurchaseOrderCancelled'))"
    " OR (event_type IN ('GoodsReceived', 'PurchaseOrderConfirmed') AND decision_id IN"
    f"  (SELECT decision_id FROM told WHERE {_HERE} AND supplier_id = $supplier"
    "   AND event_type = 'GoodsReceived' AND occurred_at > $known_by - INTERVAL 180 DAY)))",
    TERMS: f"{_ITEM} QUALIFY"
    " row_number() OVER (PARTITION BY sku ORDER BY known_at DESC, supplier_id) = 1",
    FEED_STATES: f"{_HERE} QUALIFY"
    " row_number() OVER (PARTITION BY feed ORDER BY occurred_at DESC, known_at DESC, state DESC) = 1",
}
# What an item's stock is folded from begins with its newest count.
_SINCE = (
    "location_id = $location AND sku = $sku AND position <= $position AND occurred_at >= $counted"
)
_STOCK: Mapping[Kept, str] = {
    STOCK_COUNTS: "location_id = $location AND sku = $sku AND position <= $position QUALIFY"
    " row_number() OVER (ORDER BY occurred_at DESC, position DESC, fact DESC) = 1",
    SALE_LINES: _SINCE,
    ORDER_MOVES: _SINCE,
}


@dataclass(frozen=True)
class Asked:
    """An item of a location, as of when its features hold, and the place of the log its stock is of."""

    location_id: str
    sku: str
    supplier_id: str | None
    known_by: datetime
    today: date
    position: int


@dataclass(frozen=True)
class Used:
    """The rows of a table that something was computed from, put together where they follow each other.

    `rows` has for each piece its `position` in the log, `file`, `first` and `last` line, and how many `lines`
    it is; what a table does not tell is None.
    """

    table: str
    rows: list[dict[str, Any]]


def behind_features(lake: Lake, asked: Asked, versions: Mapping[str, int]) -> Iterator[Used]:
    """The rows that an item's features were computed from, by table, of some versions of the tables."""
    for kept, where in _FEATURES.items():
        yield _used(lake, kept, where, asked, versions)


def behind_stock(lake: Lake, asked: Asked) -> Iterator[Used]:
    """The rows that an item's stock was folded from: its newest count, and what moved it since."""
    found = lake.query(
        "SELECT max(occurred_at) AS counted_at FROM stock_count"
        " WHERE location_id = $location AND sku = $sku AND position <= $position",
        tables={"stock_count": STOCK_COUNTS},
        parameters={
            "location": asked.location_id,
            "sku": asked.sku,
            "position": asked.position,
        },
    )
    counted = single(found)["counted_at"] or datetime.min.replace(tzinfo=UTC)
    for kept, where in _STOCK.items():
        yield _used(lake, kept, where, asked, {}, counted)


def _used(
    lake: Lake,
    kept: Kept,
    where: str,
    asked: Asked,
    versions: Mapping[str, int],
    counted: datetime | None = None,
) -> Used:
    columns = set(kept.schema.names)
    place = "position" if "position" in columns else "NULL::BIGINT"
    file, line = (
        ("source_file", "source_line")
        if "source_file" in columns
        else ("NULL::VARCHAR", "NULL::BIGINT")
    )
    given = {
        "location": asked.location_id,
        "sku": asked.sku,
        "supplier": asked.supplier_id,
        "known_by": asked.known_by,
        "today": asked.today,
        "position": asked.position,
        "counted": counted,
    }
    found = lake.query(
        f"WITH used AS (SELECT * FROM told WHERE {where}), placed AS (SELECT {place} AS position,"
        f" {file} AS file, {line} AS line FROM used), island AS (SELECT *, line - dense_rank() OVER"
        " (PARTITION BY position, file ORDER BY line) AS island FROM placed)"
        " SELECT position, file, min(line) AS first, max(line) AS last, count(*) AS lines"
        " FROM island GROUP BY position, file, island ORDER BY file, first, position",
        tables={"told": kept},
        versions=versions,
        # Only what a question asks for may be given.
        parameters={name: value for name, value in given.items() if f"${name}" in where},
    )
    return Used(kept.name, found.to_pylist())
