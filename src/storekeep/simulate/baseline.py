"""A simulated shop played day by day under a rule, and the min/max rule of a common ERP.

Hides the day loop: arrays over all SKUs, a Python loop over days only. The order of a day is the one that the
package states, so that a rule played here and an agent driven through the pipeline meet the same world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storekeep.errors import InvariantBroken
from storekeep.simulate.chance import Floats, Integers
from storekeep.simulate.demand import Demand
from storekeep.simulate.supply import Shop


@dataclass(frozen=True)
class Moment:
    """What a rule knows at the end of a day: arrays over the shop's SKUs, whole units.

    `demand_units[day, sku]` is all that was asked for up to and including `day`; `reviewed` marks the SKUs
    that may be ordered now.
    """

    day: date
    on_hand_units: Integers
    on_order_units: Integers
    demand_units: Integers
    reviewed: NDArray[np.bool_]


Rule = Callable[[Moment], Integers]


@dataclass(frozen=True)
class Played:
    """What happened: arrays `[day, sku]` in whole units, and every line that was ordered.

    `on_hand_units` is counted at the end of the day. `order_lines` has `day`, `supplier_id`, `sku`,
    `order_units` and `due_day`; a line that is due after the last day is among them.
    """

    skus: pa.StringArray
    days: tuple[date, ...]
    demand_units: Integers
    sold_units: Integers
    received_units: Integers
    on_hand_units: Integers
    order_lines: pa.Table


@dataclass(frozen=True)
class MinMax:
    """The reordering rule that ERP systems ship with, its levels set from a quarter's mean demand.

    With μ mean demand a day, L mean lead time, R review period, s safety days, p the pack size and
    x = on-hand + on-order: min = ⌈μ(L + R + s)⌉, max = min + ⌈μR⌉; where x < min order
    ⌈(max − x) / p⌉ packs. This is what Odoo documents for its reordering rules (order when the forecast
    falls below Min, up to Max, rounded up to the multiple; versions 17 and 19). Levels are those of the
    (R, s, S) system in Silver, Pyke and Thomas, "Inventory and Production Management in Supply Chains",
    with safety in days of demand as such systems ask for it. An order below the supplier's minimum value
    waits for the next review.
    """

    shop: Shop

    def __call__(self, now: Moment) -> Integers:
        """Units to order of each SKU at the end of a day, 0 where nothing."""
        terms, assumed = self.shop.terms, self.shop.assumptions
        recent = now.demand_units[-7 * assumed.baseline_demand_weeks :]
        lowest, highest = levels(
            recent.mean(axis=0),
            terms["lead_time_mean_days"].to_numpy(),
            terms["review_period_days"].to_numpy(),
            assumed.baseline_safety_days,
        )
        packs = self.shop.numbers("pack_size_units")
        position = now.on_hand_units + now.on_order_units
        units = -(-(highest - position) // packs) * packs
        units = np.maximum(units, self.shop.numbers("minimum_order_units"))
        units = np.where(now.reviewed & (position < lowest), units, 0)
        return self._worth_sending(units)

    def _worth_sending(self, units: Integers) -> Integers:
        suppliers = self.shop.sku_suppliers
        value = np.bincount(suppliers, units * self.shop.numbers("unit_cost_minor"))
        enough = value[suppliers] >= self.shop.numbers("supplier_minimum_minor")
        return np.where(enough, units, 0)


def levels(
    mean_units: Floats, lead_time_days: Floats, review_period_days: Floats, safety_days: float
) -> tuple[Integers, Integers]:
    """Min and max of the min/max rule: min = ⌈μ(L + R + s)⌉, max = min + ⌈μR⌉.

    Two units a day, five days of lead time, a weekly review and two safety days:

    >>> low, high = levels(np.array([2.0]), np.array([5.0]), np.array([7.0]), 2.0)
    >>> low.tolist(), high.tolist()
    ([28], [42])
    """
    # A sum that is whole on paper may be a hair above in floating point; ⌈ ⌉ would then add a unit.
    lowest = np.ceil(np.round(mean_units * (lead_time_days + review_period_days + safety_days), 9))
    more = np.ceil(np.round(mean_units * review_period_days, 9))
    return lowest.astype(np.int64), (lowest + more).astype(np.int64)


def play(shop: Shop, demand: Demand, days: Sequence[date], rule: Rule) -> Played:
    """Play consecutive days of a simulated shop under a rule, beginning with its opening stock.

    `demand` has the shop's SKUs in its order and reaches from the history that the rule looks back on to
    the last of `days`. Raises `InvariantBroken` when the days are not consecutive from the shop's first,
    or the rule orders a negative number, part of a pack, or from a supplier whose day it is not.
    """
    _check(shop, demand, days)
    horizon = len(days) + shop.longest_lead_time_days
    due = np.zeros((horizon, len(shop.skus)), np.int64)
    asked = demand.until(days[-1])[-len(days) :]
    sold, left = np.zeros_like(asked), np.zeros_like(asked)
    on_hand = np.array(shop.opening["quantity_units"].to_numpy())
    on_order = np.zeros_like(on_hand)
    ordered = []
    for place, day in enumerate(days):
        on_hand += due[place]
        on_order -= due[place]
        sold[place] = np.minimum(on_hand, asked[place])
        on_hand -= sold[place]
        left[place] = on_hand
        reviewed = shop.reviewed(day)
        if not reviewed.any():
            continue
        now = Moment(day, on_hand.copy(), on_order.copy(), demand.until(day), reviewed)
        lines = _lines(shop, day, _allowed(shop, now, rule(now)))
        wheres, units = lines["place"].to_numpy(), lines["order_units"].to_numpy()
        due[place + lines["lead_time_days"].to_numpy(), wheres] += units
        on_order[wheres] += units
        ordered.append(lines.select(_LINE.names))
    return Played(
        shop.skus,
        tuple(days),
        asked,
        sold,
        due[: len(days)],
        left,
        pa.concat_tables(ordered or [_LINE.empty_table()]),
    )


_LINE = pa.schema(
    {
        "day": pa.date32(),
        "supplier_id": pa.string(),
        "sku": pa.string(),
        "order_units": pa.int64(),
        "due_day": pa.date32(),
    }
)


def _lines(shop: Shop, day: date, units: Integers) -> pa.Table:
    """The lines of one evening, with the SKU's place and when they are due."""
    wheres = np.flatnonzero(units)
    terms = shop.terms.select(["supplier_id", "sku"]).take(pa.array(wheres))
    lines = (
        terms.append_column("place", pa.array(wheres))
        .append_column("day", pa.array([day] * len(wheres), pa.date32()))
        .append_column("order_units", pa.array(units[wheres]))
    )
    return shop.deliveries(lines)


def _check(shop: Shop, demand: Demand, days: Sequence[date]) -> None:
    if not days or list(days) != [shop.first_day + timedelta(days=n) for n in range(len(days))]:
        raise InvariantBroken(f"the days to play must follow each other from {shop.first_day}")
    if not demand.skus.equals(shop.skus):
        raise InvariantBroken("demand must have the SKUs of the shop, in its order")
    if demand.first_day > shop.first_day or demand.last_day < days[-1]:
        raise InvariantBroken(
            f"demand is known from {demand.first_day} to {demand.last_day}, "
            f"not from {shop.first_day} to {days[-1]}"
        )


def _allowed(shop: Shop, now: Moment, units: Integers) -> Integers:
    wrong = (units < 0) | (units % shop.numbers("pack_size_units") != 0)
    wrong |= (units > 0) & ~now.reviewed
    if wrong.any():
        sku = shop.skus[int(np.argmax(wrong))].as_py()
        raise InvariantBroken(
            f"on {now.day} the rule ordered {units[np.argmax(wrong)]} of {sku}: not a whole number "
            "of packs, or not from a supplier whose day it is"
        )
    return units
