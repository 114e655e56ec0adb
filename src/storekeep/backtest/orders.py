"""Orders to measure with: as many items as are wanted, from a seed, all of them to be ordered today.

The evidence is made up, in the ranges that a grocer's has; what is proposed of it is the real agent's word.
Hides the draws.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import features
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.agents import replenish
from storekeep.decisions import Evidence, Proposed, stamp

LOCATION = "DC1"
MONDAY = date(2026, 3, 30)
AT = datetime(2026, 3, 30, 20, tzinfo=UTC)
_ARROW = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "DATE": pa.date32(),
    "BOOLEAN": pa.bool_(),
}


def orders(many: int, seed: int = 1) -> tuple[Evidence, Proposed]:
    """Evidence of so many items of one location on a Monday, and an order line for each of them."""
    seen = evidence(many, seed)
    return seen, replenish.propose(seen, PLACE_PURCHASE_ORDER)


def evidence(many: int, seed: int = 1) -> Evidence:
    """What is known of so many items, none of them in stock as it should be."""
    drawn = np.random.default_rng(seed)
    made = _figures(many, drawn)
    made |= {name: pa.repeat(value, many) for name, value in _SHARED.items()}
    sku = pc.binary_join_element_wise("SKU", pa.array(np.arange(many)).cast(pa.string()), "")
    made |= {
        "subject": pc.binary_join_element_wise(sku, LOCATION, "@"),
        "sku": sku,
        "supplier_id": _names("S", drawn.integers(0, max(2, min(500, many // 20)), many)),
        "currency": pa.array(np.where(drawn.random(many) < 0.998, "USD", "CAD")),
    }
    columns = [pa.array(made[name]).cast(_ARROW[kind]) for name, kind in features.SCHEMA.items()]
    versions = {"features": "made up", "features_at": stamp(AT), "day": MONDAY.isoformat()}
    versions["lake"] = '{"sale_line":0}'
    table = pa.Table.from_arrays(columns, list(features.SCHEMA))
    return Evidence(table, AT, versions, 1)


_SHARED: dict[str, Any] = {
    "location_id": LOCATION,
    "day": MONDAY,
    "evidence_age_hours": 0.5,
    "contract_breached": False,
    "committed_units": 0,
    "review_period_days": 7,
    "review_weekday": 1,
    "supplier_minimum_minor": 0,
}


def _figures(many: int, drawn: np.random.Generator) -> dict[str, Any]:
    """The numbers that are known of each item."""
    mean = np.round(drawn.lognormal(0.0, 1.0, many) + 0.2, 6)
    cost = drawn.integers(40, 4000, many)
    pack = drawn.choice([1, 6, 12, 24], many)
    return {
        "on_hand_units": drawn.integers(0, 2, many),
        "on_order_units": np.where(drawn.random(many) < 0.01, 500, 0),
        "demand_mean_28d": np.round(mean * drawn.uniform(0.8, 1.2, many), 6),
        "demand_mean_91d": mean,
        "demand_sd_91d": np.round(np.sqrt(mean) * drawn.uniform(0.8, 1.6, many), 6),
        "demand_days_91d": drawn.integers(3, 92, many),
        "history_days": np.where(drawn.random(many) < 0.95, 400, drawn.integers(28, 90, many)),
        "days_since_sale": np.minimum(drawn.geometric(0.1, many), 90),
        "lead_time_mean_days": np.round(drawn.uniform(2, 9, many), 6),
        "lead_time_sd_days": np.round(drawn.uniform(0.2, 1.5, many), 6),
        "lead_time_count": drawn.integers(0, 30, many),
        "unit_cost_minor": cost,
        "unit_price_minor": np.where(drawn.random(many) < 0.995, cost * 4 // 3 + 1, cost),
        "pack_size_units": pack,
        "minimum_order_units": pack,
        "usual_order_units": np.round(drawn.uniform(6, 60, many), 6),
    }


def _names(letter: str, numbers: Any) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 3, "0")
    return pc.binary_join_element_wise(letter, digits, "")
