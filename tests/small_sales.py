"""The sales of a small shop as a file that a user might have, with the mapping that says what it means.

Three suppliers' worth of items, each sold every day, so that a demonstration of a few days takes seconds and
has orders, some of them large enough to need a person's word.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

FIRST_DAY = date(2026, 1, 5)
DAYS, ITEMS = 70, 120
MAPPING = """\
feed: pos
source: small_shop
table: sale_line
format: csv
currency: EUR
source_columns: {time: time, receipt: text, item: text, units: int, amount: decimal}
columns:
  store_id: "'s1'"
  basket_id: receipt
  sku: item
  quantity_units: units
  value_minor: amount
  occurred_at: time
document: [basket_id]
rules:
  - {id: tried_out, when: "starts_with(item, 'test')", do: ignore, reason: nothing was sold}
"""
HEADER = "time,receipt,item,units,amount\n"


@dataclass(frozen=True)
class SmallSales:
    """The two files."""

    sales: Path
    mapping: Path

    def words(self) -> list[str]:
        """What the demonstration is told about them."""
        return ["--sales", str(self.sales), "--mapping", str(self.mapping)]


def line(day: date, item: int) -> str:
    """The line of an item on a day; of what is sold, only day and item decide."""
    units = 1 + (day.toordinal() * 7 + item * 3) % 4
    time = f"{day}T{9 + item % 10:02}:00:00"
    return f"{time},{day}-{item},sku{item:03},{units},{units * (1 + item % 9)}.00\n"


def written(folder: Path) -> SmallSales:
    """Write both files."""
    files = SmallSales(folder / "sales.csv", folder / "mapping.yaml")
    files.mapping.write_text(MAPPING)
    days = [FIRST_DAY + timedelta(days=n) for n in range(DAYS)]
    files.sales.write_text(HEADER + "".join(line(day, n) for day in days for n in range(ITEMS)))
    return files
