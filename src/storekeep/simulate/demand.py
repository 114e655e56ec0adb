"""A sales history as a matrix of days and SKUs, as a day loop needs it.

Hides how rows that are missing (nothing sold), that repeat, or that are negative (goods taken back) become
one whole number of units a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep.errors import InvariantBroken
from storekeep.simulate.chance import Integers


@dataclass(frozen=True)
class Demand:
    """Units that customers asked for: `units[day, sku]`, consecutive days from `first_day`."""

    skus: pa.StringArray
    first_day: date
    units: Integers

    @property
    def last_day(self) -> date:
        """The last day of the matrix."""
        return self.first_day + timedelta(days=len(self.units) - 1)

    def until(self, day: date) -> Integers:
        """The rows up to and including `day`; raises `InvariantBroken` outside the matrix."""
        if not self.first_day <= day <= self.last_day:
            raise InvariantBroken(
                f"demand is known from {self.first_day} to {self.last_day}, not for {day}"
            )
        return self.units[: (day - self.first_day).days + 1]


def matrix(
    table: pa.Table, skus: pa.Array, first_day: date, last_day: date, column: str = "units"
) -> Integers:
    """The sum of `column` for each day and SKU, `[day, sku]`; what is not in the table is 0.

    `table` has `sku` text, `day` date and `column` whole numbers. Rows of other SKUs or days are left
    out. The order of rows does not matter.
    """
    days = (last_day - first_day).days + 1
    if days < 1:
        raise InvariantBroken(f"a matrix from {first_day} to {last_day} has no day")
    out = np.zeros((days, len(skus)), np.int64)
    places = pc.index_in(table["sku"], value_set=skus)
    offsets = pc.days_between(pa.scalar(first_day, pa.date32()), table["day"].cast(pa.date32()))
    inside = pc.and_(
        pc.is_valid(places),
        pc.and_(pc.greater_equal(offsets, 0), pc.less(offsets, days)),
    )
    kept = pa.table({"row": offsets, "place": places, "value": table[column]}).filter(inside)
    np.add.at(
        out,
        (kept["row"].to_numpy(), kept["place"].to_numpy()),
        kept["value"].cast(pa.int64()).to_numpy(),
    )
    return out


def demand(sales: pa.Table, skus: pa.Array, first_day: date, last_day: date) -> Demand:
    """What customers asked for on each day: units sold less units taken back, never below zero.

    `sales` has `sku`, `day` and `units` (negative when returned). A return is netted against the sales of
    its own day; what it exceeds them by is dropped, because goods taken back are not sold again.
    """
    units = np.maximum(matrix(sales, skus, first_day, last_day), 0)
    return Demand(pa.array(skus, pa.string()), first_day, units)
