"""The sales history that a period is played on: read once, in the order in which it happened.

Hides where it comes from: the Complete Journey panel that installs as a package, or a user's own files with
their mapping.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import ingest
from storekeep.errors import Misused, Refused

PANEL = "complete_journey"
LEAST_HISTORY_DAYS = 28
# 40 of the panel's 53 weeks, as a share of the weeks before the first day played.
LEAST_WEEKS_SHARE = 40 / 53


@dataclass(frozen=True)
class Sales:
    """A retailer's sale lines, ordered by day, and what was turned away on the way in.

    Of the rows `read` each is one of `rows`, one of `rejected`, left out by a rule that needs no quarantine
    (`ignored`), or a line that another file had brought already (`repeated`).
    """

    name: str
    note: str
    files: tuple[str, ...]
    rows: pa.Table
    products: ingest.Products
    marketing: Mapping[str, ingest.Marketing]
    rejected: pa.Table
    repaired: Mapping[str, int]
    matched: Mapping[str, int]
    ignored: Mapping[str, int]
    repeated: int
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
    marketing = ingest.load_marketing(files, known_at)
    return _read(
        ingest.mapping(PANEL),
        [files["transactions"]],
        location_id,
        known_at,
        step,
        _Origin(
            "The Complete Journey (84.51°)",
            "a year of a grocer's tills, which its publisher calls simulated on real shopping patterns",
            products,
            marketing,
        ),
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
        _Origin(
            ", ".join(sorted({file.name for file in files})[:3])
            + (", ..." if len(files) > 3 else ""),
            "the sales are the user's own",
        ),
    )


class _Origin(NamedTuple):
    """Whose sales they are, and what came with them."""

    name: str
    note: str
    products: ingest.Products | None = None
    marketing: Mapping[str, ingest.Marketing] = {}


def _read(
    mapping: ingest.Mapping,
    files: list[Path],
    location_id: str,
    known_at: datetime,
    step: Callable[[int], None],
    origin: _Origin,
) -> Sales:
    rows, rejected, read = [], [], 0
    repaired: Counter[str] = Counter()
    matched: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    products = origin.products
    references = {} if products is None else {"product": products.rows}
    for loaded in ingest.load(
        mapping,
        files,
        known_at=known_at,
        references=references,
        location_id=location_id,
        # Nobody needs to know the customers of a demonstration again: its key is forgotten.
        pseudonym_key=secrets.token_bytes(32),
    ):
        rows.append(loaded.rows)
        rejected.append(loaded.rejected)
        repaired.update(loaded.repaired)
        matched.update(loaded.matched)
        ignored.update(loaded.ignored)
        read += loaded.read
        step(loaded.read)
    taken, turned = pa.concat_tables(rows), pa.concat_tables(rejected)
    if taken.num_rows == 0:
        raise Refused(_nothing(origin.name, read, turned, ignored))
    found = products or ingest.load_products(mapping, files, known_at=known_at)
    table = _ordered(taken)
    return Sales(
        name=origin.name,
        note=origin.note,
        files=tuple(str(file) for file in files),
        rows=table,
        products=found,
        marketing=origin.marketing,
        rejected=turned,
        repaired=repaired,
        matched=matched,
        ignored=ignored,
        repeated=taken.num_rows - table.num_rows,
        read=read,
        time_zone=mapping.day_time_zone or mapping.time_zone,
        currency=mapping.currency or _only_currency(table),
    )


def _ordered(rows: pa.Table) -> pa.Table:
    """The rows in the order in which they happened; of a line that several files hold, the first."""
    one_file = pc.count_distinct(rows["source_file"]).as_py() == 1
    once = (
        ""
        if one_file
        else (
            " QUALIFY row_number() OVER (PARTITION BY line_key ORDER BY source_file, source_line) = 1"
        )
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("rows", rows)
        return connection.sql(
            f"SELECT * FROM rows{once} ORDER BY day, occurred_at, line_key"
        ).to_arrow_table()


def _nothing(name: str, read: int, rejected: pa.Table, ignored: Mapping[str, int]) -> str:
    """Why there is nothing to play."""
    if not read:
        return f"{name} holds no rows; name files of sales with --sales"
    reasons = Counter(rejected["rule"].to_pylist()) + Counter(ignored)
    said = ", ".join(f"{rule} {many}" for rule, many in reasons.most_common(3))
    return f"none of the {read} rows of {name} could be taken in ({said}); mend the mapping or the file"


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

    Without `since` and `until` the last `days` days; with `since` alone so many from there, or as many as
    there are. An item counts when it was sold in three quarters of the weeks before. Raises `Misused` when
    the history does not reach.
    """
    begin, end = sales.days()
    last = until or (min(since + timedelta(days=days - 1), end) if since else end)
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
