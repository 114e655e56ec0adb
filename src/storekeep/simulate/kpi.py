"""How well a shop was supplied and what it cost, from plain arrays that any driver of the shop can hand in.

The same function measures an agent that ran through the pipeline and a rule that was played beside it, so
that no difference between the two comes from measuring.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from storekeep.errors import InvariantBroken
from storekeep.simulate.chance import Integers
from storekeep.simulate.supply import Shop

DAYS_PER_YEAR = 365


@dataclass(frozen=True)
class Kpi:
    """The figures of one period of a simulated shop; amounts in minor units of `currency`.

    With D units asked for, S units sold, c unit cost, p unit price, I stock at the end of a day and h the
    holding rate a year, summed over n days and all SKUs:

    - `fill_rate` = ΣS / ΣD, the share of units served at once from stock (type 2 or β service level; Silver,
      Pyke and Thomas, "Inventory and Production Management in Supply Chains"); 1 when nothing was asked for
    - `stockout_days`: SKU-days that ended without stock or on which a unit was lost, of `sku_days`
    - `stock_value_minor` = ΣIc / n, mean value at cost at the end of a day
    - `holding_cost_minor` = ΣIc · h / 365
    - `ordering_cost_minor` = `purchase_orders` · cost of an order + `order_lines` · cost of a line
    - `lost_margin_minor` = Σ(D − S)(p − c)
    - `cost_minor` = the sum of these three
    - `turns` = ΣSc · (365 / n) / `stock_value_minor`, a year; none when there was no stock
    """

    days: int
    sku_days: int
    currency: str
    demand_units: int
    sold_units: int
    lost_units: int
    fill_rate: float
    stockout_days: int
    stock_value_minor: int
    holding_cost_minor: int
    ordering_cost_minor: int
    lost_margin_minor: int
    cost_minor: int
    purchase_orders: int
    order_lines: int
    turns: float | None


def kpi(
    shop: Shop,
    *,
    demand_units: Integers,
    sold_units: Integers,
    on_hand_units: Integers,
    order_lines: pa.Table,
) -> Kpi:
    """Measure a period of a simulated shop.

    The three arrays are `[day, sku]` in whole units, SKUs in the order of the shop, stock as it was at the
    end of each day. `order_lines` has `day` and `supplier_id`, one row per ordered line; the lines of one
    supplier on one day are one purchase order. Raises `InvariantBroken` when shapes differ or more was sold
    than asked for.
    """
    _check(shop, demand_units, sold_units, on_hand_units)
    assumed = shop.assumptions
    cost, price = shop.numbers("unit_cost_minor"), shop.numbers("unit_price_minor")
    lost = demand_units - sold_units
    days = len(demand_units)
    asked, sold = int(demand_units.sum()), int(sold_units.sum())
    stock_value = int((on_hand_units.sum(axis=0) * cost).sum())
    holding = round(stock_value * assumed.holding_rate_per_year / DAYS_PER_YEAR)
    orders = order_lines.group_by(["day", "supplier_id"]).aggregate([]).num_rows
    lines = order_lines.num_rows
    ordering = orders * assumed.order_cost_minor + lines * assumed.order_line_cost_minor
    margin = int((lost.sum(axis=0) * (price - cost)).sum())
    cost_sold = int((sold_units.sum(axis=0) * cost).sum())
    return Kpi(
        days=days,
        sku_days=demand_units.size,
        currency=shop.terms["currency"][0].as_py(),
        demand_units=asked,
        sold_units=sold,
        lost_units=asked - sold,
        fill_rate=sold / asked if asked else 1.0,
        stockout_days=int(((on_hand_units == 0) | (lost > 0)).sum()),
        stock_value_minor=round(stock_value / days),
        holding_cost_minor=holding,
        ordering_cost_minor=ordering,
        lost_margin_minor=margin,
        cost_minor=holding + ordering + margin,
        purchase_orders=orders,
        order_lines=lines,
        turns=cost_sold * DAYS_PER_YEAR / stock_value if stock_value else None,
    )


def _check(shop: Shop, demand: Integers, sold: Integers, on_hand: Integers) -> None:
    shape = (len(demand), len(shop.skus))
    if not len(demand) or not demand.shape == sold.shape == on_hand.shape == shape:
        raise InvariantBroken(
            f"demand {demand.shape}, sold {sold.shape} and on-hand {on_hand.shape} must each be "
            f"days by the shop's {len(shop.skus)} SKUs"
        )
    if (sold > demand).any() or (sold < 0).any() or (on_hand < 0).any():
        raise InvariantBroken("sold units lie between 0 and demand, and stock is never negative")
