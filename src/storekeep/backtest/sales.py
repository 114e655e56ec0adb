"""The sales history that a period is played on: read once, in the order in which it happened.

Hides where it comes from: the Complete Journey panel that installs as a package, or a user's own files with
their mapping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from storekeep import ingest
from storekeep.errors import Misused, Refused

PANEL = "complete_journey"
LEAST_HISTORY_DAYS = 28
# 40 of the panel's 53 weeks, as a share of the weeks before the first day played.
LEAST_WEEKS_SHARE = 40 / 53


@dataclass(frozen=True)
class Sales:
    """A retailer's sale lines, ordered by day, and what was turned away on the way in."""

    name: str
    note: str
    files: tuple[str, ...]
    rows: pa.Table
    products: pa.Table
    rejected: pa.Table
    repaired: dict[str, int]
    matched: dict[str, int]
    read: int
    time_zone: str
    currency: str

    def days(self) -> tuple[date, date]:
        """The first and the last day with a sale."""
        days = self.rows["day"]
        return days[0].as_py(), days[-1].as_py()


def panel(location_id: str, known_at: datetime, step: Callable[[int], None]) -> Sales:
    """The Complete Journey panel, which its publisher calls simulated on real shopping patterns."""
    files = ingest.complete_journey_files()
    products = ingest.load_products(
        ingest.mapping(f"{PANEL}_products"), [files["products"]], known_at=known_at
    )
    return _read(
        ingest.mapping(PANEL),
        [files["transactions"]],
        location_id,
        known_at,
        step,
        products=products,
        name="The Complete Journey (84.51°)",
        note="a year of a grocer's tills, which its publisher calls simulated on real shopping patterns",
    )


def own(
    files: Sequence[Path],
    mapping: str,
    location_id: str,
    known_at: datetime,
    step: Callable[[int], None],
) -> Sales:
    """A user's own sales history, by a mapping file."""
    return _read(
        ingest.mapping(mapping),
        list(files),
        location_id,
        known_at,
        step,
        products=None,
        name=", ".join(sorted({file.name for file in files})[:3])
        + (", ..." if len(files) > 3 else ""),
        note="the sales are the user's own",
    )


def _read(
    mapping: ingest.Mapping,
    files: list[Path],
    location_id: str,
    known_at: datetime,
    step: Callable[[int], None],
    *,
    products: pa.Table | None,
    name: str,
    note: str,
) -> Sales:
    rows, rejected, read = [], [], 0
    repaired: dict[str, int] = {}
    matched: dict[str, int] = {}
    references = {} if products is None else {"product": products}
    for loaded in ingest.load(
        mapping, files, known_at=known_at, references=references, location_id=location_id
    ):
        rows.append(loaded.rows)
        rejected.append(loaded.rejected)
        for counts, more in ((repaired, loaded.repaired), (matched, loaded.matched)):
            for rule, many in more.items():
                counts[rule] = counts.get(rule, 0) + many
        read += loaded.read
        step(loaded.read)
    if not any(part.num_rows for part in rows):
        raise Refused(f"none of the {read} rows of {name} could be taken in; see why with --json")
    table = pa.concat_tables(rows)
    found = products
    if found is None:
        found = ingest.load_products(mapping, files, known_at=known_at)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", table)
        table = connection.sql(
            "SELECT * FROM rows ORDER BY day, occurred_at, line_key"
        ).to_arrow_table()
    return Sales(
        name=name,
        note=note,
        files=tuple(str(file) for file in files),
        rows=table,
        products=found,
        rejected=pa.concat_tables(rejected),
        repaired=repaired,
        matched=matched,
        read=read,
        time_zone=mapping.day_time_zone or mapping.time_zone,
        currency=mapping.currency or _only_currency(table),
    )


def _only_currency(rows: pa.Table) -> str:
    """The currency of rows that each name their own; a period is played in one."""
    currencies = sorted(rows["currency"].unique().to_pylist())
    if len(currencies) != 1:
        raise Refused(
            f"the sales are in {', '.join(currencies)}; a period is played in one currency"
        )
    return str(currencies[0])


@dataclass(frozen=True)
class Period:
    """The days to play, and the items that have enough history before them."""

    days: tuple[date, ...]
    skus: pa.StringArray
    history: pa.Table

    @property
    def first(self) -> date:
        """The first day played."""
        return self.days[0]

    @property
    def last(self) -> date:
        """The last day played."""
        return self.days[-1]


def period(sales: Sales, days: int, since: date | None, until: date | None) -> Period:
    """Choose the days to play and the items to replenish, by what was known before the first day.

    Without `since` and `until` the last `days` days. An item counts when it was sold in three quarters of
    the weeks before. Raises `Misused` when the history does not reach.
    """
    begin, end = sales.days()
    last = until or (since + timedelta(days=days - 1) if since else end)
    first = since or last - timedelta(days=days - 1)
    if not begin <= first <= last <= end:
        raise Misused(
            f"the sales reach from {begin} to {end}; {first} to {last} is not within; "
            "choose other days with --from, --to or --days"
        )
    if (first - begin).days < LEAST_HISTORY_DAYS:
        raise Misused(
            f"{first} leaves {(first - begin).days} days of history since {begin}; "
            f"at least {LEAST_HISTORY_DAYS} are needed: choose a later --from or fewer --days"
        )
    with duckdb.connect() as connection:
        connection.register("sale", sales.rows)
        history = connection.execute(
            "WITH weeks AS (SELECT count(DISTINCT date_trunc('week', day)) AS all_weeks FROM sale"
            "  WHERE day < $first), enough AS (SELECT sku FROM sale, weeks WHERE day < $first"
            "  AND quantity_units > 0 GROUP BY sku, all_weeks"
            "  HAVING count(DISTINCT date_trunc('week', day)) >= floor($share * all_weeks))"
            " SELECT sku, day, sum(quantity_units)::BIGINT AS units, sum(value_minor)::BIGINT"
            "  AS value_minor FROM sale JOIN enough USING (sku) GROUP BY sku, day ORDER BY sku, day",
            {"first": first, "share": LEAST_WEEKS_SHARE},
        ).to_arrow_table()
    if history.num_rows == 0:
        raise Refused(f"no item was sold in enough of the weeks before {first} to be replenished")
    skus = history["sku"].unique()
    many = (last - first).days + 1
    return Period(tuple(first + timedelta(days=n) for n in range(many)), skus, history)
