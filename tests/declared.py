"""Sets of features over small tables, and what they must say, worked out row by row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from storekeep.features import Feature, FeatureSet, Source, declaring
from storekeep.features.history import Joined, Wanted, history
from storekeep.lake import outside

DAY = timedelta(days=1)
FRESH = timedelta(days=3)
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


class Told(NamedTuple):
    """A row of a source: about which item, when it came to be so, when it was known, and what it says."""

    item: str
    occurred: datetime
    known: datetime
    price: int | None


class Label(NamedTuple):
    """What is asked about, and as of when."""

    item: str
    at: datetime


def table(rows: Sequence[Told]) -> pa.Table:
    """Rows as the source has them."""
    columns = zip(*rows, strict=True) if rows else ([], [], [], [])
    types = (pa.string(), TIME, TIME, pa.int64())
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, types, strict=True)]
    return pa.table(arrays, names=["item_id", "valid_from", "loaded_at", "price_minor"])


def labels(asked: Sequence[Label]) -> pa.Table:
    """Labels with a column that is none of ours."""
    return pa.table(
        {
            "item_id": pa.array([label.item for label in asked], pa.string()),
            "at": pa.array([label.at for label in asked], TIME),
            "target": pa.array(range(len(asked)), pa.int64()),
        }
    )


def prices(path: Path | str, *features: Feature, known_at: str | None = "loaded_at") -> FeatureSet:
    """The set that most tests ask: the price of an item, which may be null."""
    own = features or (Feature("price_minor", "int", "Selling price.", nullable=True),)
    return FeatureSet(
        name="item_price",
        keys={"item_id": "text"},
        source=Source(str(path), "valid_from", known_at),
        fresh_within=FRESH,
        owner="pricing",
        features=own,
    )


def wanted(declared: FeatureSet, *names: str) -> Wanted:
    """Features of a set (all of them where none is named), held against its rows."""
    found = outside(declared.source.path)
    every = tuple(each.name for each in declared.features)
    return Wanted(declaring.checked(declared, found), found, names or every)


def joined(folder: Path, rows: Sequence[Told], asked: Sequence[Label], **more: str) -> Joined:
    """The price of each label's item, of a source with these rows."""
    path = folder / "prices.parquet"
    pq.write_table(table(rows), path)
    return history(labels(asked), [wanted(prices(path))], **more)


def expected(rows: Sequence[Told], label: Label) -> int | None:
    """What a label must find: of what was known by then, what happened last and was learned last."""
    seen = [
        row
        for row in rows
        if row.item == label.item and row.known <= label.at and row.occurred <= label.at
    ]
    if not seen:
        return None
    last = max(seen, key=lambda row: (row.occurred, row.known))
    return last.price if label.at - last.occurred <= FRESH else None
