"""The simulated shop: suppliers, terms and opening stock, made from a seed around a real sales history.

Hides how a supply side is guessed from what was sold before a given day. The same history, products and seed
make the same tables, byte for byte, whatever the order of the rows; what happened on or after the first day
is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storekeep.errors import InvariantBroken, Refused
from storekeep.retail import CURRENCY, STOCK_COUNT, SUPPLIER, SUPPLY_TERMS, Column, Table
from storekeep.simulate.assumptions import Assumptions, read
from storekeep.simulate.chance import Floats, Integers, Words, draw, fractions, states

SUPPLIERS = Table(
    "supplier",
    "A simulated supplier of the simulated shop.",
    ("supplier_id",),
    (
        SUPPLIER,
        Column("name", "text", "What a person calls it; always says that it is simulated."),
        Column("department", "text", "Department of the goods, REST where several share it."),
        Column("sku_count", "int", "Items it delivers.", "SKU", at_least=1),
        Column("shortest_lead_time_days", "int", "Lead time without delay.", "day", at_least=1),
        Column("delay_mean_days", "float", "Mean of the delay before it is cut.", "day"),
        Column("lead_time_mean_days", "float", "Mean of the lead time as drawn.", "day"),
        Column("lead_time_sd_days", "float", "Standard deviation of the same.", "day"),
        Column("review_period_days", "int", "Days between two orders.", "day", at_least=1),
        Column("review_weekday", "int", "Weekday of ordering, Monday is 1.", at_least=1, at_most=7),
        Column("minimum_minor", "int", "Least value of an order.", "minor money unit", at_least=0),
        CURRENCY,
    ),
)
REST = "REST"

_ITEMS_SQL = """
WITH past AS (
  SELECT sku, day, units, value_minor FROM history WHERE day < $first_day
), daily AS (
  SELECT sku, day, greatest(sum(units), 0) AS units FROM past GROUP BY sku, day
), span AS (
  SELECT least($window_days, $first_day - min(day)) AS days FROM past
), demand AS (
  SELECT sku, sum(units)::BIGINT AS units FROM daily, span
  WHERE day >= $first_day - span.days::INTEGER GROUP BY sku
), price AS (
  SELECT sku, median(value_minor / units) AS price_minor FROM past
  WHERE units > 0 AND value_minor > 0 GROUP BY sku
)
SELECT price.sku AS sku,
  coalesce(demand.units, 0) / span.days::DOUBLE AS daily_units,
  floor(price.price_minor + 0.5)::BIGINT AS price_minor,
  coalesce(product.department, '') AS department,
  coalesce(product.category || '/' || coalesce(product.brand, ''), price.sku) AS line
FROM price CROSS JOIN span
LEFT JOIN demand ON demand.sku = price.sku
LEFT JOIN product ON product.sku = price.sku
ORDER BY price.sku
"""


@dataclass(frozen=True)
class Shop:
    """The simulated supply side around real demand.

    `terms` has one row per SKU (`retail.SUPPLY_TERMS`, ordered by SKU), `suppliers` one per supplier
    (`SUPPLIERS`), `opening` what is counted at the start of `first_day` (`retail.STOCK_COUNT`, ordered as
    `terms`).
    """

    terms: pa.Table
    suppliers: pa.Table
    opening: pa.Table
    first_day: date
    seed: int
    assumptions: Assumptions

    @property
    def skus(self) -> pa.StringArray:
        """The SKUs in the order that every array beside this shop has."""
        return self.terms["sku"].combine_chunks()

    def numbers(self, column: str) -> Integers:
        """A whole-number column of the terms, one value per SKU."""
        return np.asarray(self.terms[column].to_numpy(), np.int64)

    @cached_property
    def sku_suppliers(self) -> Integers:
        """The row in `suppliers` of each SKU's supplier."""
        return self._rows(self.terms["supplier_id"].combine_chunks())

    @property
    def longest_lead_time_days(self) -> int:
        """No order of this shop takes longer to arrive."""
        shortest: int = pc.max(self.suppliers["shortest_lead_time_days"]).as_py()
        return shortest + self.assumptions.longest_delay_days

    def reviewed(self, day: date) -> NDArray[np.bool_]:
        """Which SKUs may be ordered at the end of `day`: those whose supplier's weekday it is."""
        return np.asarray(self.numbers("review_weekday") == day.isoweekday(), np.bool_)

    def lead_time_days(self, supplier_ids: pa.Array, day: date) -> Integers:
        """Days until an order placed at the end of `day` arrives, one for each supplier asked about.

        A pure function of seed, supplier and day: two rules that order from one supplier on one day meet
        the same lead time, whatever either has ordered before. Raises `InvariantBroken` for a supplier
        that the shop does not have.
        """
        rows = self._rows(pa.array(supplier_ids, pa.string()))
        return self._lead_times(rows, np.full(len(rows), day.toordinal()))

    def deliveries(self, orders: pa.Table) -> pa.Table:
        """The ordered lines with the simulated `lead_time_days`, `due_day` and `delivered_units` added.

        `orders` has at least `supplier_id` text, `day` date (at the end of which the order was placed)
        and `order_units`. What is due on a day arrives at its start; all that was ordered is delivered.
        """
        rows = self._rows(orders["supplier_id"].combine_chunks())
        since = orders["day"].cast(pa.date32()).cast(pa.int32()).to_numpy().astype(np.int64)
        lead = self._lead_times(rows, since + _EPOCH)
        due = pa.array((since + lead).astype(np.int32)).cast(pa.date32())
        return (
            orders.append_column("lead_time_days", pa.array(lead))
            .append_column("due_day", due)
            .append_column("delivered_units", orders["order_units"])
        )

    def _rows(self, supplier_ids: pa.Array) -> Integers:
        rows = pc.index_in(supplier_ids, value_set=self.suppliers["supplier_id"].combine_chunks())
        if rows.null_count:
            unknown = supplier_ids.filter(pc.is_null(rows))[0].as_py()
            raise InvariantBroken(f"the simulated shop has no supplier {unknown!r}")
        return np.asarray(rows.to_numpy(), np.int64)

    def _lead_times(self, rows: Integers, ordinals: Integers) -> Integers:
        start, shortest, cumulative = self._lead_time_law
        chance = fractions(start[rows], ordinals)
        delay = (chance[:, None] >= cumulative[rows]).sum(axis=1)
        return np.asarray(shortest[rows] + delay, np.int64)

    @cached_property
    def _lead_time_law(
        self,
    ) -> tuple[Words, Integers, Floats]:
        """Per supplier: its random stream, its shortest lead time, P(delay ≤ k) for k from 0."""
        start = states(self.seed, "lead time", self.suppliers["supplier_id"].to_pylist())
        shortest = self.suppliers["shortest_lead_time_days"].to_numpy()
        means = self.suppliers["delay_mean_days"].to_numpy()
        cumulative = np.cumsum(delay_probabilities(means, self.assumptions), axis=1)
        # The last step is left out, so that rounding cannot lead past the longest delay.
        return start, np.asarray(shortest, np.int64), cumulative[:, :-1]


_EPOCH = date(1970, 1, 1).toordinal()


def delay_probabilities(means: Floats, assumed: Assumptions) -> Floats:
    """P(delay = k) for k = 0 to the longest delay, one row for each mean delay in days.

    Negative binomial with mean μ and shape r, cut at the longest delay:
    P(0) = (r / (r + μ))^r, P(k + 1) = P(k) · (k + r) / (k + 1) · μ / (r + μ)
    (Johnson, Kemp and Kotz, "Univariate Discrete Distributions", chapter 5). With r = 1 it is geometric:

    >>> one = read().model_copy(update={"delay_shape": 1.0, "longest_delay_days": 60})
    >>> delay_probabilities(np.array([1.0]), one)[0, :4].round(4).tolist()
    [0.5, 0.25, 0.125, 0.0625]
    """
    shape, longest = assumed.delay_shape, assumed.longest_delay_days
    chances = np.empty((len(means), longest + 1))
    chances[:, 0] = (shape / (shape + means)) ** shape
    for k in range(longest):
        chances[:, k + 1] = chances[:, k] * (k + shape) / (k + 1) * means / (shape + means)
    return np.asarray(chances / chances.sum(axis=1, keepdims=True), np.float64)


def shop(
    products: pa.Table | None,
    history: pa.Table,
    *,
    seed: int,
    first_day: date,
    currency: str,
    location_id: str = "DC1",
    time_zone: str = "UTC",
    assumptions: Assumptions | None = None,
) -> Shop:
    """Make suppliers, terms and opening stock for every SKU that was sold before `first_day`.

    `history` has `sku` text, `day` date, `units` whole (negative when returned) and `value_minor` whole
    (what customers paid), by line or by day. `products` has at least the columns `sku`, `department`,
    `category` and `brand` of `retail.PRODUCT`, one row per SKU. A SKU without a paid sale before
    `first_day` has no price and is left out. The count is dated at the midnight that begins `first_day`
    in `time_zone`. Raises `Refused` when nothing was sold before that day, `InvariantBroken` when a column
    is missing or a product stands twice.
    """
    assumed = assumptions or read()
    items = _items(products, history, first_day, assumed)
    if items.num_rows == 0:
        raise Refused(
            f"nothing was sold before {first_day}, so no shop can be simulated for that day; "
            "choose a later first day"
        )
    departments, rows = _assign(items, seed, assumed)
    lead = _lead_times(departments, seed, assumed)
    cost = _unit_costs(items, seed, assumed)
    least = _minimums(items, cost, rows, assumed)
    count = len(departments)
    width = max(2, len(str(count)))
    suppliers = pa.table(
        {
            "supplier_id": [f"sim-{place:0{width}}" for place in range(1, count + 1)],
            "name": [f"simulated supplier {place:0{width}}" for place in range(1, count + 1)],
            "department": departments,
            "sku_count": np.bincount(rows, minlength=count),
            **lead,
            "review_period_days": np.full(count, assumed.review_period_days),
            "review_weekday": _weekdays(departments, seed, assumed),
            "minimum_minor": least,
            "currency": [currency] * count,
        },
        schema=SUPPLIERS.arrow,
    )
    midnight = datetime.combine(first_day, time(), ZoneInfo(time_zone)).astimezone(UTC)
    terms = _terms(
        items,
        suppliers.take(pa.array(rows)),
        cost,
        location_id=location_id,
        known_at=midnight,
        seed=seed,
        assumed=assumed,
    )
    return Shop(terms, suppliers, _opening(terms, items, assumed), first_day, seed, assumed)


def _items(
    products: pa.Table | None, history: pa.Table, first_day: date, assumed: Assumptions
) -> pa.Table:
    """One row per SKU with a price: `sku`, `daily_units`, `price_minor`, `department`, `line`."""
    product = _NO_PRODUCTS if products is None else products
    _need(history, "the sales history", ("sku", "day", "units", "value_minor"))
    _need(product, "the products", ("sku", "department", "category", "brand"))
    if pc.count_distinct(product["sku"]).as_py() != product.num_rows:
        raise InvariantBroken("the products must have one row per SKU")
    with duckdb.connect() as connection:
        connection.register("history", history)
        connection.register("product", product)
        window_days = assumed.demand_weeks * 7
        return connection.execute(
            _ITEMS_SQL, {"first_day": first_day, "window_days": window_days}
        ).to_arrow_table()


def _need(table: pa.Table, name: str, columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise InvariantBroken(f"{name} lack {', '.join(missing)}; they have {table.column_names}")


def _assign(items: pa.Table, seed: int, assumed: Assumptions) -> tuple[list[str], Integers]:
    """The department of each supplier, and each SKU's row among the suppliers.

    A department has suppliers by its number of SKUs; one too small for a supplier of its own goes to the
    suppliers of the rest. SKUs of one category and brand have one supplier.
    """
    count = items.num_rows
    wanted = min(-(-count // assumed.skus_per_supplier), assumed.most_suppliers)
    names, codes = np.unique(items["department"].to_numpy(), return_inverse=True)
    large = (np.bincount(codes) * 2 * wanted >= count) & (names != "")
    labels, codes = np.unique(np.where(large, names, REST)[codes], return_inverse=True)
    slots = np.maximum(np.rint(np.bincount(codes) * wanted / count), 1)
    lines = items["line"].to_pylist()
    chance = draw(seed, "supplier", map("{}/{}".format, labels[codes], lines))
    taken, rows = np.unique(
        codes * count + (chance * slots[codes]).astype(np.int64), return_inverse=True
    )
    return labels[taken // count].tolist(), np.asarray(rows, np.int64)


def _names(departments: list[str]) -> list[str]:
    """A name for each supplier that does not change when another department gains one."""
    seen: dict[str, int] = {}
    out = []
    for department in departments:
        seen[department] = seen.get(department, 0) + 1
        out.append(f"{department}/{seen[department]}")
    return out


def _lead_times(
    departments: list[str], seed: int, assumed: Assumptions
) -> dict[str, Integers | Floats]:
    names = _names(departments)
    fresh = np.isin(departments, assumed.fresh_departments)
    spans = np.where(
        fresh[:, None], assumed.fresh_shortest_lead_time_days, assumed.shortest_lead_time_days
    )
    days = spans[:, 1] - spans[:, 0] + 1
    shortest = spans[:, 0] + (draw(seed, "shortest lead time", names) * days).astype(np.int64)
    low, high = assumed.delay_mean_days
    means = np.round(low + draw(seed, "delay", names) * (high - low), 2)
    chances = delay_probabilities(means, assumed)
    delays = np.arange(assumed.longest_delay_days + 1)
    mean = chances @ delays
    deviation = np.sqrt(chances @ delays**2 - mean**2)
    return {
        "shortest_lead_time_days": shortest,
        "delay_mean_days": means,
        "lead_time_mean_days": np.round(shortest + mean, 3),
        "lead_time_sd_days": np.round(deviation, 3),
    }


def _weekdays(departments: list[str], seed: int, assumed: Assumptions) -> Integers:
    """Deal the suppliers out over the weekdays in an order that chance gives."""
    order = np.argsort(draw(seed, "review weekday", _names(departments)), kind="stable")
    days = np.empty(len(departments), np.int64)
    days[order] = np.resize(assumed.review_weekdays, len(departments))
    return days


def _unit_costs(items: pa.Table, seed: int, assumed: Assumptions) -> Integers:
    """Selling price less the simulated margin, at least 1 and at most the price."""
    listed = assumed.margin_by_department
    usual = [listed.get(name, assumed.margin) for name in items["department"].to_pylist()]
    spread = (2 * draw(seed, "margin", items["sku"].to_pylist()) - 1) * assumed.margin_spread
    price = items["price_minor"].to_numpy()
    cost = np.floor(price * (1 - (np.array(usual) + spread)) + 0.5).astype(np.int64)
    return np.asarray(np.clip(cost, 1, np.maximum(price, 1)), np.int64)


def _packs(items: pa.Table, seed: int, assumed: Assumptions) -> Integers:
    """The largest pack that demand empties within the days of cover drawn for the SKU."""
    low, high = assumed.pack_cover_days
    cover = low + draw(seed, "pack", items["sku"].to_pylist()) * (high - low)
    place = np.searchsorted(assumed.pack_sizes, items["daily_units"].to_numpy() * cover, "right")
    return np.asarray(np.take(assumed.pack_sizes, np.maximum(place - 1, 0)), np.int64)


def _minimums(items: pa.Table, cost: Integers, rows: Integers, assumed: Assumptions) -> Integers:
    """Each supplier's least order value, in whole hundreds of minor units."""
    usual = items["daily_units"].to_numpy() * cost * assumed.review_period_days
    share = np.bincount(rows, usual) * assumed.supplier_minimum_share
    return np.asarray(np.floor(share / 100) * 100, np.int64)


def _terms(
    items: pa.Table,
    suppliers: pa.Table,
    cost: Integers,
    *,
    location_id: str,
    known_at: datetime,
    seed: int,
    assumed: Assumptions,
) -> pa.Table:
    packs = _packs(items, seed, assumed)
    return pa.table(
        {
            "sku": items["sku"],
            "location_id": [location_id] * items.num_rows,
            "supplier_id": suppliers["supplier_id"],
            "unit_cost_minor": cost,
            "unit_price_minor": np.maximum(items["price_minor"].to_numpy(), 1),
            "currency": suppliers["currency"],
            "pack_size_units": packs,
            "minimum_order_units": packs * assumed.minimum_order_packs,
            "lead_time_mean_days": suppliers["lead_time_mean_days"],
            "lead_time_sd_days": suppliers["lead_time_sd_days"],
            "review_period_days": suppliers["review_period_days"],
            "review_weekday": suppliers["review_weekday"],
            "supplier_minimum_minor": suppliers["minimum_minor"],
            "known_at": [known_at] * items.num_rows,
        },
        schema=SUPPLY_TERMS.arrow,
    ).combine_chunks()


def _opening(terms: pa.Table, items: pa.Table, assumed: Assumptions) -> pa.Table:
    """What is on hand before the first day: expected demand until a first order can arrive, and a little."""
    packs = terms["pack_size_units"].to_numpy()
    days = terms["lead_time_mean_days"].to_numpy() + terms["review_period_days"].to_numpy()
    expected = items["daily_units"].to_numpy() * (days + assumed.opening_extra_days)
    return pa.table(
        {
            "location_id": terms["location_id"],
            "sku": terms["sku"],
            "quantity_units": np.maximum(np.ceil(expected / packs), 1).astype(np.int64) * packs,
            "occurred_at": terms["known_at"],
            "known_at": terms["known_at"],
            "source_file": pa.nulls(terms.num_rows, pa.string()),
            "source_line": pa.nulls(terms.num_rows, pa.int64()),
        },
        schema=STOCK_COUNT.arrow,
    ).combine_chunks()


_NO_PRODUCTS = pa.table(
    {name: pa.array([], pa.string()) for name in ("sku", "department", "category", "brand")}
)
