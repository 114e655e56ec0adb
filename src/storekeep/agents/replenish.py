"""The replenishment agent: which items to order from a supplier, and how many.

Periodic review with a reorder point and an order-up-to level, known as (R, s, S): on a supplier's review day
each of its items whose inventory position has fallen below s is filled up to S. The reorder point s is such
that demand until the delivery after next is met with the wanted probability; S lies above it by what an
economic order is more than a review period's demand. Hides the formulas and the demand distribution. It
reads evidence and returns proposals; every number it used goes with them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import special

from storekeep import canonical
from storekeep.decisions import HOLDS, Action, Evidence, Proposed
from storekeep.retail import PURCHASE_ORDER_LINE

NAME = "replenish"
ACTION = "PlacePurchaseOrder"
FORMULA = (
    "demand = recent_weight * demand_mean_28d + (1 - recent_weight) * demand_mean_91d; "
    "interval = lead_time_mean + review_period; mean = demand * interval; "
    "variance = demand_sd^2 * interval + demand^2 * lead_time_sd^2; "
    "s = quantile(service_level) of a negative binomial (Poisson when variance <= mean); "
    "economic = sqrt(2 * line_cost * 365 * demand / (holding_rate * unit_cost)); "
    "S = s + max(0, economic - demand * review_period); "
    "order S - (on_hand + on_order + committed) where that position is below s, in whole packs"
)
_NEEDED = {
    "demand_mean_28d": "its demand",
    "demand_mean_91d": "its demand",
    "demand_sd_91d": "how its demand varies",
    "lead_time_mean_days": "its lead time",
    "lead_time_sd_days": "how its lead time varies",
    "unit_cost_minor": "its purchase price",
    "pack_size_units": "its pack size",
    "minimum_order_units": "its least order",
    "review_period_days": "how often it is ordered",
    "supplier_minimum_minor": "its supplier's minimum",
    "on_hand_units": "what is on the shelf",
    "on_order_units": "what is on order",
    "committed_units": "what is about to be ordered",
}
# Beyond it a figure is not exact any more, neither here nor in the ledger.
_LARGEST = 2.0**53 - 1
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Parameters:
    """What a planner may set.

    `service_level`: probability of no stockout until the delivery after next. `recent_weight`: weight of
    4 weeks against 13 weeks of demand. `least_history_days`: below it the item is held for a person.
    `order_line_cost_minor`: what one more order line costs, in minor money units; `holding_rate`: what it
    costs to hold stock for a year, as a share of its value. The defaults did best on 2017-07-05 to
    2017-10-02 of the Complete Journey panel, the 90 days before those that the demonstration reports.
    """

    service_level: float = 0.98
    recent_weight: float = 0.25
    least_history_days: int = 28
    order_line_cost_minor: float = 10.0
    holding_rate: float = 0.25


def version(parameters: Parameters) -> str:
    """The agent's version: a digest of its formula and parameters."""
    return canonical.digest({"formula": FORMULA, **asdict(parameters)})[:12]


def reorder_point(mean: _Floats, variance: _Floats, service_level: float) -> _Floats:
    """The level s, in units, that demand stays at or below with the wanted probability.

    Demand over the protection interval is negative binomial with the given mean and variance, or Poisson
    where the variance is not larger (Nahmias, Production and Operations Analysis, ch. 5; Axsaeter,
    Inventory Control, section 5.1).

    >>> reorder_point(np.array([4.0]), np.array([4.0]), 0.95)
    array([8.])
    """
    over = variance > mean * (1 + 1e-9)
    p = np.where(over, mean / np.where(over, variance, 1.0), 0.5)
    n = np.maximum(np.where(over, mean * p / np.where(over, 1 - p, 1.0), 1.0), 1e-9)
    rate = np.maximum(mean, 1e-9)
    level = np.ceil(
        np.where(over, special.nbdtrik(service_level, n, p), special.pdtrik(service_level, rate))
    )
    # The inverse is found numerically: a whole number may come out a hair above itself.
    below = np.maximum(level - 1, 0)
    reached = np.where(over, special.betainc(n, below + 1, p), special.pdtr(below, rate))
    level = np.where(reached >= service_level, below, level)
    return np.where(mean > 0, level, 0.0)


def economic_units(demand: _Floats, unit_cost: _Floats, settings: Parameters) -> _Floats:
    """The order quantity at which ordering and holding cost least together.

    Q = sqrt(2 K D / (h c)) with K the cost of an order line, D demand a year, h the holding rate and c the
    unit cost (Harris 1913; Nahmias, Production and Operations Analysis, section 4.5).

    >>> economic_units(np.array([1.0]), np.array([200.0]), Parameters()).round(3)
    array([12.083])
    """
    yearly = settings.holding_rate * np.maximum(unit_cost, 1)
    return np.asarray(np.sqrt(2 * settings.order_line_cost_minor * 365 * demand / yearly))


def propose(evidence: Evidence, action: Action, parameters: Parameters | None = None) -> Proposed:
    """What to order of the items whose supplier is ordered from today, line by line.

    Holds, each with its reason, the items whose demand or supply is not known well enough, and the lines
    of a supplier whose minimum the order would not reach.
    """
    settings = parameters or Parameters()
    values = evidence.values
    today = values.filter(
        pc.equal(pc.day_of_week(values["day"], count_from_zero=False), values["review_weekday"])
    )
    reasons = _unfit(today, settings)
    fit = today.filter(pc.is_null(reasons))
    held = _holds(
        today["subject"].filter(pc.is_valid(reasons)), reasons.filter(pc.is_valid(reasons))
    )
    lines, vast = _lines(fit, settings)
    lines, short = _supplier_minimum(lines)
    return Proposed(
        agent=NAME,
        version=version(settings),
        action=action,
        proposals=lines,
        holds=pa.concat_tables([held, vast, short]).combine_chunks(),
        formula=FORMULA,
    )


def _unfit(values: pa.Table, settings: Parameters) -> pa.Array:
    """Why an item cannot be judged, or null when it can; what is not known is never taken for zero."""
    tests = [
        (pc.invert(pc.is_finite(pc.cast(values[name], pa.float64()))), f"{text} is not known")
        for name, text in _NEEDED.items()
    ]
    tests += [
        (
            pc.less(values["history_days"], settings.least_history_days),
            "it has been sold for too short a time",
        ),
        (pc.less_equal(values["lead_time_mean_days"], 0), "its lead time is not known"),
        (pc.less_equal(values["unit_cost_minor"], 0), "its purchase price is not known"),
    ]
    reason = pa.chunked_array([pa.nulls(values.num_rows, pa.string())])
    for test, text in tests:
        reason = pc.if_else(pc.fill_null(test, True), pa.scalar(text), reason)
    return reason.combine_chunks()


def _holds(subjects: pa.ChunkedArray, reasons: pa.Array) -> pa.Table:
    return pa.table(
        [subjects, reasons, pa.array(["order nothing"] * len(reasons), pa.string())], schema=HOLDS
    )


def _numbers(values: pa.Table, name: str) -> _Floats:
    return np.asarray(pc.cast(values[name], pa.float64()).to_numpy(), dtype=np.float64)


def _priorities(demand: _Floats, position: _Floats) -> pa.Array:
    cover = np.divide(position, demand, out=np.full_like(demand, 1e6), where=demand > 0)
    return pa.array(np.round(1000.0 / (1.0 + np.maximum(cover, 0)), 6))


def _demand(values: pa.Table, settings: Parameters) -> _Floats:
    weight = settings.recent_weight
    recent, usual = (_numbers(values, f"demand_mean_{days}d") for days in (28, 91))
    return np.asarray(weight * recent + (1 - weight) * usual)


def _position(values: pa.Table) -> _Floats:
    parts = (_numbers(values, f"{part}_units") for part in ("on_hand", "on_order", "committed"))
    return sum(parts, np.zeros(values.num_rows))


def _lines(values: pa.Table, settings: Parameters) -> tuple[pa.Table, pa.Table]:
    """Order lines with their arithmetic, for the items that need one; holds for those beyond counting."""
    demand = _demand(values, settings)
    deviation = _numbers(values, "demand_sd_91d")
    lead, lead_sd = (_numbers(values, f"lead_time_{part}_days") for part in ("mean", "sd"))
    interval = lead + _numbers(values, "review_period_days")
    mean = demand * interval
    variance = deviation**2 * interval + demand**2 * lead_sd**2
    point = reorder_point(mean, variance, settings.service_level)
    cost = _numbers(values, "unit_cost_minor")
    economic = economic_units(demand, cost, settings)
    level = point + np.maximum(economic - demand * _numbers(values, "review_period_days"), 0)
    position = _position(values)
    pack = np.maximum(_numbers(values, "pack_size_units"), 1)
    need = np.where(position < point, level - position, 0)
    wanted = np.where(need > 0, np.maximum(need, _numbers(values, "minimum_order_units")), 0)
    units = np.ceil(np.round(wanted / pack, 9)) * pack
    countable = np.maximum(units, units * cost) <= _LARGEST
    vast = values["subject"].filter(pa.array(~countable))
    units = np.where(countable, units, 0)
    arithmetic = {
        "demand_units_per_day": demand,
        "demand_sd_units_per_day": deviation,
        "lead_time_days": lead,
        "lead_time_sd_days": lead_sd,
        "interval_days": interval,
        "interval_demand_units": mean,
        "safety_stock_units": point - mean,
        "service_level": np.full_like(demand, settings.service_level),
        "reorder_point_units": point,
        "economic_order_units": economic,
        "order_up_to_units": level,
        "inventory_position_units": position,
        "needed_units": need,
        "pack_size_units": pack,
        "rounded_up_units": units - wanted,
    }
    columns = {
        "subject": values["subject"],
        # Who runs dry first is served first when a budget is short.
        "priority": _priorities(demand, position),
        "sku": values["sku"],
        "location_id": values["location_id"],
        "supplier_id": values["supplier_id"],
        "order_group": pc.binary_join_element_wise(
            values["supplier_id"], values["location_id"], pc.cast(values["day"], pa.string()), "/"
        ),
        "order_units": pa.array(units.astype(np.int64)),
        "pack_size_units": values["pack_size_units"],
        "unit_cost_minor": values["unit_cost_minor"],
        "order_value_minor": pa.array((units * cost).astype(np.int64)),
        "currency": values["currency"],
        "arithmetic": pa.StructArray.from_arrays(
            [pa.array(np.round(numbers, 6)) for numbers in arithmetic.values()], list(arithmetic)
        ),
    }
    table = pa.table(columns).select(
        ["subject", "priority", *PURCHASE_ORDER_LINE.names, "arithmetic"]
    )
    table = table.append_column("minimum", values["supplier_minimum_minor"])
    reasons = pa.array(["its order would be beyond what can be counted"] * len(vast), pa.string())
    return table.filter(pa.array(units > 0)), _holds(vast, reasons)


def _supplier_minimum(lines: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Keep the lines of orders that reach their supplier's minimum; hold the others."""
    totals = lines.group_by("order_group").aggregate(
        [("order_value_minor", "sum"), ("minimum", "max")]
    )
    reached = totals.filter(
        pc.greater_equal(totals["order_value_minor_sum"], totals["minimum_max"])
    )
    keep = pc.is_in(lines["order_group"], value_set=reached["order_group"].combine_chunks())
    short = lines.filter(pc.invert(keep))["subject"]
    reason = pa.array(
        ["the order would not reach its supplier's minimum"] * len(short), pa.string()
    )
    return lines.filter(keep).drop_columns(["minimum"]).combine_chunks(), _holds(short, reason)
