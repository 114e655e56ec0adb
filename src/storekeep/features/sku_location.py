"""What is known of an item at a location: its demand, its supply, its stock.

A feature is declared once, as SQL over what the lake knows, and that one declaration makes its history,
its value in a decision and its value in a replay. Hides the windows, the point-in-time reading
(`known_at` never later than `known_by`) and where values are kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import canonical
from storekeep.decisions import Evidence, Proposed, stamp
from storekeep.lake import (
    FEED_STATES,
    ORDER_MOVES,
    SALE_LINES,
    STOCK_COUNTS,
    TERMS,
    Kept,
    Lake,
    month,
)
from storekeep.retail import Column, Kind, Table

LEAD_TIMES_ENOUGH = 5


@dataclass(frozen=True)
class Feature:
    """One feature: its value as an SQL expression over one of the prepared relations.

    `over` names the relation: `daily` (a row for each day with sales: `units`, `day`), `terms` (the
    supply terms in force), `received` (a row for each delivery of the supplier: `days`), `ordered` (a row
    for each earlier order of the item that the order system confirmed and still holds: `units`), `feeds` (the
    latest state of each feed of the location: `state`).
    """

    name: str
    kind: Kind
    over: Literal["daily", "terms", "received", "ordered", "feeds"]
    sql: str
    meaning: str
    unit: str | None = None
    nullable: bool = False


def _demand(days: int) -> str:
    """Units a day over the last `days`, or since the first sale of a younger item."""
    return (
        f"round(coalesce(sum(units) FILTER (day > $today - {days}), 0)"
        f" / least({days}, any_value(history_days)), 6)"
    )


FEATURES: tuple[Feature, ...] = (
    Feature("supplier_id", "text", "terms", "supplier_id", "Who delivers it."),
    Feature("currency", "text", "terms", "currency", "ISO 4217 code of the amounts."),
    Feature("demand_mean_28d", "float", "daily", _demand(28), "Mean demand, 4 weeks.", "unit/day"),
    Feature("demand_mean_91d", "float", "daily", _demand(91), "Mean demand, 13 weeks.", "unit/day"),
    Feature(
        "demand_sd_91d",
        "float",
        "daily",
        # Days without a sale count as zeros; they have no row.
        "round(sqrt(greatest(0, (sum(units * units) - sum(units) * sum(units)"
        " / least(91, any_value(history_days))) / greatest(1, least(91, any_value(history_days)) - 1)"
        ")), 6)",
        "Standard deviation of a day's demand, 13 weeks.",
        "unit/day",
    ),
    Feature(
        "demand_days_91d", "int", "daily", "count(*) FILTER (units > 0)", "Days with a sale.", "day"
    ),
    Feature(
        "history_days", "int", "daily", "any_value(history_days)", "Days since first sold.", "day"
    ),
    Feature(
        "days_since_sale",
        "int",
        "daily",
        "$today - max(day) FILTER (units > 0)",
        "Days since it was last sold.",
        "day",
        nullable=True,
    ),
    Feature(
        "lead_time_mean_days",
        "float",
        "received",
        f"round(CASE WHEN count(days) >= {LEAD_TIMES_ENOUGH} THEN avg(days)"
        " ELSE any_value(agreed_mean) END, 6)",
        "Mean time from order to delivery: observed, or as agreed while there are few deliveries.",
        "day",
    ),
    Feature(
        "lead_time_sd_days",
        "float",
        "received",
        f"round(CASE WHEN count(days) >= {LEAD_TIMES_ENOUGH} THEN stddev_samp(days)"
        " ELSE any_value(agreed_sd) END, 6)",
        "Standard deviation of that time.",
        "day",
    ),
    Feature("lead_time_count", "int", "received", "count(days)", "Deliveries it was observed on."),
    Feature("unit_cost_minor", "int", "terms", "unit_cost_minor", "Purchase price.", "minor unit"),
    Feature("unit_price_minor", "int", "terms", "unit_price_minor", "Selling price.", "minor unit"),
    Feature("pack_size_units", "int", "terms", "pack_size_units", "Units in one pack.", "unit"),
    Feature("minimum_order_units", "int", "terms", "minimum_order_units", "Least line.", "unit"),
    Feature(
        "review_period_days", "int", "terms", "review_period_days", "Days between orders.", "day"
    ),
    Feature(
        "review_weekday", "int", "terms", "review_weekday", "Weekday of ordering, Monday is 1."
    ),
    Feature(
        "supplier_minimum_minor",
        "int",
        "terms",
        "supplier_minimum_minor",
        "Least order.",
        "minor unit",
    ),
    Feature(
        "usual_order_units",
        "float",
        "ordered",
        "round(avg(units), 6)",
        "Mean of its orders of 13 weeks that were confirmed and not cancelled.",
        "unit",
        nullable=True,
    ),
    Feature(
        "contract_breached",
        "bool",
        "feeds",
        "coalesce(bool_or(state = 'breached'), false)",
        "Whether a feed of the location breaks its contract, as far as was told.",
    ),
)

# The relations that features are declared over. Each reads only what was known by $known_by.
RELATIONS = """
WITH terms AS (
  SELECT * FROM supply_terms WHERE location_id = $location AND known_at <= $known_by
  QUALIFY row_number() OVER (PARTITION BY sku ORDER BY known_at DESC, supplier_id) = 1
), line AS NOT MATERIALIZED (
  SELECT sku, day, quantity_units, known_at FROM sale_line
  WHERE location_id = $location AND known_at <= $known_by AND day <= $today
), first AS (
  SELECT sku, ($today - min(day)) + 1 AS history_days, max(known_at) AS newest FROM line GROUP BY sku
), newest AS (
  SELECT max(newest) AS newest_fact_at FROM first
), sold AS (
  SELECT sku, day, greatest(0, sum(quantity_units))::BIGINT AS units
  FROM line WHERE day > $today - 91 AND sku IN (SELECT sku FROM terms) GROUP BY sku, day
), daily AS (
  SELECT sku, day, units, history_days FROM sold JOIN first USING (sku)
), move AS (
  SELECT * FROM order_move WHERE location_id = $location AND known_at <= $known_by
), delivery AS (
  SELECT r.supplier_id, r.decision_id, date_diff('minute', min(c.occurred_at), min(r.occurred_at))
    / 1440.0 AS days
  FROM move r JOIN move c ON c.decision_id = r.decision_id AND c.event_type = 'PurchaseOrderConfirmed'
  WHERE r.event_type = 'GoodsReceived' AND r.occurred_at > $known_by - INTERVAL 180 DAY
  GROUP BY r.supplier_id, r.decision_id, r.purchase_order_id
), order_delivery AS (
  SELECT DISTINCT ON (purchase_order_id) supplier_id, days FROM (
    SELECT d.*, m.purchase_order_id FROM delivery d JOIN move m USING (decision_id)
    WHERE m.event_type = 'GoodsReceived')
  ORDER BY purchase_order_id, days
), received AS (
  SELECT terms.sku, days, lead_time_mean_days AS agreed_mean, lead_time_sd_days AS agreed_sd
  FROM terms LEFT JOIN order_delivery USING (supplier_id)
), ordered AS (
  SELECT sku, quantity_units AS units FROM move
  WHERE event_type = 'PurchaseOrderConfirmed' AND occurred_at > $known_by - INTERVAL 91 DAY
    AND decision_id NOT IN (SELECT decision_id FROM move WHERE event_type = 'PurchaseOrderCancelled')
), feeds AS (
  SELECT state FROM feed_state WHERE location_id = $location AND known_at <= $known_by
  QUALIFY row_number() OVER (PARTITION BY feed ORDER BY occurred_at DESC, known_at DESC, state DESC) = 1
)
"""

_READ = (SALE_LINES, ORDER_MOVES, TERMS, FEED_STATES)

_KEYS = (
    Column("location_id", "text", "Where."),
    Column("sku", "text", "What."),
    Column("known_at", "time", "As of when the values hold.", "UTC"),
    Column("day", "date", "Trading day of that time."),
    Column("newest_fact_at", "time", "When the newest sale that was read came to be known.", "UTC"),
    Column("inputs", "text", "Versions of the lake's tables that were read, as canonical JSON."),
)
FEATURE_TABLE = Table(
    "feature_sku_location",
    "The features of an item at a location, as of a time.",
    ("location_id", "sku", "known_at"),
    _KEYS
    + tuple(
        Column(each.name, each.kind, each.meaning, each.unit, nullable=each.nullable)
        for each in FEATURES
    ),
)
KEPT = Kept(
    FEATURE_TABLE.name,
    pa.schema([field.remove_metadata().with_nullable(True) for field in FEATURE_TABLE.arrow]),
    "known_at",
)
_STOCK_UNITS = ("on_hand_units", "on_order_units", "committed_units")
SCHEMA: Mapping[str, str] = {
    "subject": "VARCHAR",
    "sku": "VARCHAR",
    "location_id": "VARCHAR",
    "day": "DATE",
    "on_hand_units": "BIGINT",
    "on_order_units": "BIGINT",
    "committed_units": "BIGINT",
    "evidence_age_hours": "DOUBLE",
    **{each.name: FEATURE_TABLE.duckdb_types()[each.name] for each in FEATURES},
}


def _wanted(each: Feature) -> str:
    """Where the value of a feature stands once the relations are joined."""
    if each.over == "terms":
        return f"terms.{each.sql}"
    if each.over == "feeds":
        return f"(SELECT {each.sql} FROM feeds)"
    return f"{each.over}_feature.{each.name}"


def _query() -> str:
    """One query that computes every feature: each relation once, joined by item."""
    parts = []
    for over in ("daily", "received", "ordered"):
        columns = ", ".join(f"{each.sql} AS {each.name}" for each in FEATURES if each.over == over)
        parts.append(f"{over}_feature AS (SELECT sku, {columns} FROM {over} GROUP BY sku)")
    wanted = ", ".join(f"{_wanted(each)} AS {each.name}" for each in FEATURES)
    return (
        f"{RELATIONS}, {', '.join(parts)} "  # made of the constants above only
        "SELECT $location AS location_id, sku, $known_by AS known_at, $today AS day,"
        f" (SELECT newest_fact_at FROM newest) AS newest_fact_at, $inputs AS inputs, {wanted}"
        " FROM terms JOIN daily_feature USING (sku) LEFT JOIN received_feature USING (sku)"
        " LEFT JOIN ordered_feature USING (sku)"
        " WHERE $only IS NULL OR list_contains($only, sku) ORDER BY sku"
    )


QUERY = _query()
VERSION = canonical.digest({"query": QUERY})[:12]


def compute(
    lake: Lake,
    location_id: str,
    *,
    today: date,
    known_by: datetime,
    versions: Mapping[str, int],
    only: list[str] | None = None,
) -> pa.Table:
    """The features of a location's items from facts: what was known by `known_by`, and nothing later.

    `versions` names the lake's tables to read; `only` narrows the answer to some items. One row a SKU
    that has supply terms and has sold within 13 weeks; columns of `FEATURE_TABLE`.
    """
    return lake.query(
        QUERY,
        tables={kept.name: kept for kept in _READ},
        versions=versions,
        parameters={
            "location": location_id,
            "today": today,
            "known_by": known_by,
            "inputs": canonical.text(dict(versions)),
            "only": only,
        },
    ).cast(KEPT.schema)


@dataclass(frozen=True)
class Moved:
    """Features that were moved forward: of how many items, from which versions of the lake's tables.

    `version` is that of the feature table that has them; none where nothing was moved.
    """

    items: int = 0
    version: int | None = None
    read: Mapping[str, int] = field(default_factory=dict)


def update(lake: Lake, location_id: str, *, today: date, known_by: datetime) -> Moved:
    """Move the features of a location forward to a time; what was moved.

    Moving to the same time twice keeps the first values.
    """
    writer = f"features:{location_id}"
    position = int(known_by.timestamp() * 1_000_000)
    written = lake.written(KEPT.name, writer)
    if written is not None and written >= position:
        return Moved()
    versions = lake.versions([kept.name for kept in _READ])
    rows = compute(lake, location_id, today=today, known_by=known_by, versions=versions)
    if not rows.num_rows:
        return Moved(read=versions)
    version = lake.append(KEPT, rows, writer=writer, position=position)
    return Moved(rows.num_rows, version, versions)


def moved(lake: Lake, location_id: str, known_by: datetime) -> Moved:
    """What was moved when the features of a location were moved forward to a time, if they were."""
    writer = f"features:{location_id}"
    position = int(known_by.timestamp() * 1_000_000)
    if lake.written(KEPT.name, writer) != position:
        return Moved()
    rows = lake.query(
        "SELECT inputs FROM feature WHERE location_id = $location AND known_at = $known_by",
        tables={"feature": KEPT},
        parameters={"location": location_id, "known_by": known_by},
        months={"feature": (f"{known_by:%Y-%m}", f"{known_by:%Y-%m}")},
    )
    read = json.loads(rows["inputs"][0].as_py())
    return Moved(rows.num_rows, lake.brought(KEPT.name, writer, position), read)


def snapshot(
    lake: Lake,
    location_id: str,
    *,
    known_by: datetime,
    stock: pa.Table,
    position: int,
    only: list[str] | None = None,
) -> Evidence:
    """What is known by a time about a location's items: features, and stock as the caller read it.

    `stock` has `sku`, `on_hand_units`, `on_order_units`, `committed_units` up to log position `position`.
    Items without features or without a stock position are not in the answer.
    """
    since = known_by - timedelta(days=31)
    rows = lake.query(
        "SELECT * FROM feature WHERE location_id = $location AND known_at = (SELECT max(known_at)"
        " FROM feature WHERE location_id = $location AND known_at <= $known_by)"
        " AND ($only IS NULL OR list_contains($only, sku)) ORDER BY sku",
        tables={"feature": KEPT},
        parameters={"location": location_id, "known_by": known_by, "only": only},
        months={"feature": (f"{since:%Y-%m}", f"{known_by:%Y-%m}")},
    )
    return evidence(rows, stock, known_by=known_by, position=position)


def evidence(rows: pa.Table, stock: pa.Table, *, known_by: datetime, position: int) -> Evidence:
    """Feature rows and stock joined to what a decision is made from."""
    first = _shared(rows)
    places = pc.index_in(rows["sku"].combine_chunks(), stock["sku"].combine_chunks())
    rows, places = rows.filter(places.is_valid()), places.drop_null()
    newest = rows["newest_fact_at"]
    seconds = pc.seconds_between(newest, pa.scalar(known_by, newest.type)).cast(pa.float64())
    values = pa.table(
        {
            "subject": pc.binary_join_element_wise(rows["sku"], rows["location_id"], "@"),
            **{name: rows[name] for name in ("sku", "location_id", "day")},
            **{name: stock[name].combine_chunks().take(places) for name in _STOCK_UNITS},
            "evidence_age_hours": pc.round(pc.divide(seconds, 3600.0), 6),
            **{each.name: rows[each.name] for each in FEATURES},
        }
    ).sort_by("subject")
    versions = {"features": f"sku_location:{VERSION}", **first}
    return Evidence(values.combine_chunks(), known_by, versions, position)


def without_own(evidence: Evidence, proposed: Proposed) -> Evidence:
    """The evidence less what the proposals themselves have committed, which they would else count."""
    if "order_units" not in proposed.proposals.column_names:
        return evidence
    places = pc.index_in(evidence.values["subject"], proposed.proposals["subject"].combine_chunks())
    units = pc.fill_null(proposed.proposals["order_units"].combine_chunks().take(places), 0)
    place = evidence.values.column_names.index("committed_units")
    rest = pc.subtract(evidence.values["committed_units"], units)
    return replace(evidence, values=evidence.values.set_column(place, "committed_units", rest))


def _shared(rows: pa.Table) -> dict[str, str]:
    """What all rows of one update share: the lake versions read, and as of when and which day."""
    if rows.num_rows == 0:
        return {}
    return {
        "lake": rows["inputs"][0].as_py(),
        "features_at": stamp(rows["known_at"][0].as_py()),
        "day": rows["day"][0].as_py().isoformat(),
    }


# A count is the stock as of its time, whenever it comes: the shelf is what was last counted and what moved
# since, by the times at which it happened. A shelf cannot hold less than nothing: on-hand after n moves is
# their sum plus what the deepest shortfall was (the reflection of a random walk at zero; Lindley 1952), which
# makes the fold one window function. Orders are folded from when an item was first counted in the log.
_STOCK = """
WITH told AS (
  SELECT * FROM stock_count WHERE {asked} AND position <= $position
), counted AS (
  SELECT location_id, sku, occurred_at AS counted_at, quantity_units AS units FROM told QUALIFY row_number()
    OVER (PARTITION BY location_id, sku ORDER BY occurred_at DESC, position DESC, fact DESC) = 1
), move AS (
  SELECT location_id, sku, position, -greatest(0, sum(quantity_units)) AS units
  FROM sale_line JOIN counted USING (location_id, sku)
  WHERE position <= $position AND occurred_at >= counted_at GROUP BY location_id, sku, position
  UNION ALL
  SELECT location_id, sku, position, sum(quantity_units)
  FROM order_move JOIN counted USING (location_id, sku)
  WHERE position <= $position AND occurred_at >= counted_at AND event_type = 'GoodsReceived'
  GROUP BY location_id, sku, position
  UNION ALL
  SELECT location_id, sku, 0, units FROM counted
), walk AS (
  SELECT *, sum(units) OVER (PARTITION BY location_id, sku ORDER BY position) AS level FROM move
), shelf AS (
  SELECT location_id, sku, greatest(0, -min(level)) AS unmet, last(level ORDER BY position) AS level
  FROM walk GROUP BY location_id, sku
), ordering AS (
  SELECT location_id, sku,
    sum(CASE event_type WHEN 'PurchaseOrderConfirmed' THEN quantity_units
      WHEN 'PurchaseOrderCancelled' THEN -quantity_units WHEN 'GoodsReceived' THEN -quantity_units
      ELSE 0 END) AS ordered,
    sum(CASE event_type WHEN 'OrderCommitted' THEN quantity_units
      WHEN 'OrderReleased' THEN -quantity_units WHEN 'PurchaseOrderConfirmed' THEN -quantity_units
      ELSE 0 END) AS committed
  FROM order_move JOIN
    (SELECT location_id, sku, min(position) AS first FROM told GROUP BY location_id, sku)
    USING (location_id, sku)
  WHERE position <= $position AND position > first GROUP BY location_id, sku
)
SELECT location_id, sku, (level + unmet)::BIGINT AS on_hand_units,
  coalesce(ordered, 0)::BIGINT AS on_order_units, coalesce(committed, 0)::BIGINT AS committed_units,
  unmet::BIGINT AS unmet_units, counted_at
FROM shelf JOIN counted USING (location_id, sku) LEFT JOIN ordering USING (location_id, sku)
ORDER BY location_id, sku
"""
_STOCK_OF = {"stock_count": STOCK_COUNTS, "sale_line": SALE_LINES, "order_move": ORDER_MOVES}


def stock_as_of(
    lake: Lake, location_id: str, position: int, only: list[str] | None = None
) -> pa.Table:
    """The stock of a location from the facts up to a place in the log: what the live positions then were."""
    asked = "location_id = $location AND ($only IS NULL OR list_contains($only, sku))"
    found = lake.query(
        _STOCK.format(asked=asked),
        tables=_STOCK_OF,
        parameters={"location": location_id, "position": position, "only": only},
    )
    return found.drop_columns("counted_at")


def recounted(lake: Lake, counts: pa.Table, position: int) -> pa.Table:
    """The stock of the items of some counts (as `STOCK_COUNT`) at a place in the log.

    `counted_at` is when each was last counted. All of them stand in one partition of the log.
    """
    # What was sold before the oldest of these counts cannot matter.
    since = (month(pc.min(counts["occurred_at"]).as_py()), "9999-12")
    return lake.query(
        _STOCK.format(asked="(location_id, sku) IN (SELECT (location_id, sku) FROM asked)"),
        tables=_STOCK_OF,
        inputs={"asked": counts.select(["location_id", "sku"])},
        parameters={"position": position},
        months={"sale_line": since},
    )
