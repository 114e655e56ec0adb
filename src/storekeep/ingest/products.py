"""The assortment: from a catalogue, or gathered from what was sold.

A shop that sends sales and no catalogue still has products: what a sale line calls an item is evidence of
its name, and the name it is called by most often is taken.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping as Map
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from storekeep.errors import Misused
from storekeep.ingest import staging
from storekeep.ingest.archives import Bounds
from storekeep.ingest.feeds import Mapping
from storekeep.ingest.loading import BATCH_ROWS, load
from storekeep.retail import PRODUCT


class Products(NamedTuple):
    """An assortment, how many rows of a catalogue were read for it, and what rules mended, by rule."""

    rows: pa.Table
    read: int = 0
    repaired: Map[str, int] = {}


def load_products(
    mapping: Mapping,
    files: Sequence[Path],
    *,
    known_at: datetime,
    references: Map[str, pa.Table] | None = None,
    bounds: Bounds | None = None,
) -> Products:
    """One row per item, ordered by SKU, in the columns of `retail.PRODUCT`.

    From a catalogue: its rows, of which the last file's wins. From sales: every SKU with a line that was
    taken in, each column as the mapping's `product` says of most of its lines (of equally many, the first
    in the alphabet). Raises `Refused` as `load` does, and `Misused` when the mapping is of another table.
    """
    # Products say nothing of customers: whoever is in the files is hidden, and cannot be found again.
    forgotten = secrets.token_bytes(32)
    if mapping.table == PRODUCT.name:
        batches = list(
            load(
                mapping,
                files,
                known_at=known_at,
                references=references,
                pseudonym_key=forgotten,
                bounds=bounds,
            )
        )
        repaired: Counter[str] = Counter()
        for batch in batches:
            repaired.update(batch.repaired)
        rows = _latest([batch.rows for batch in batches])
        return Products(rows, sum(batch.read for batch in batches), repaired)
    if "sku" not in mapping.columns:
        raise Misused(f"{mapping.source} has no column sku to gather products from")
    run = staging.begin(
        mapping,
        references or {},
        pseudonym_key=forgotten,
        bounds=bounds or Bounds(),
        products=True,
    )
    try:
        return Products(_gathered(run, files, known_at))
    finally:
        run.connection.close()


def _latest(tables: list[pa.Table]) -> pa.Table:
    rows = pa.concat_tables([PRODUCT.arrow.empty_table(), *tables])
    order = pa.array(range(rows.num_rows), pa.int64())
    newest = (
        pa.table({"sku": rows["sku"], "place": order})
        .group_by("sku")
        .aggregate([("place", "max")])
        .sort_by("sku")
    )
    return rows.take(newest["place_max"])


def _gathered(run: staging.Run, files: Sequence[Path], known_at: datetime) -> pa.Table:
    said = list(run.mapping.product)
    read = ["sku", *(f'"__p_{name}"' for name in said)]
    typed = [f"{column} VARCHAR" for column in read]
    run.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE gathered ({', '.join(typed)}, lines BIGINT)"
    )
    for piece in staging.pieces(run, files, BATCH_ROWS):
        run.connection.register("piece", piece.judged)
        run.connection.execute(
            f"INSERT INTO gathered SELECT {', '.join(read)}, count(*) FROM piece "
            "WHERE __fate IS NULL GROUP BY ALL"
        )
        run.connection.unregister("piece")
    # arg_max takes the first of equals, and the order of rows is not settled: hence the pair.
    most = [
        f'(SELECT sku, arg_min(said, (-lines, said)) AS "{name}" FROM (SELECT sku, "__p_{name}" AS said, '
        f"sum(lines) AS lines FROM gathered WHERE said IS NOT NULL GROUP BY ALL) GROUP BY sku)"
        for name in said
    ]
    joins = " ".join(f"LEFT JOIN {one} USING (sku)" for one in most)
    found = run.connection.execute(
        f"SELECT * FROM (SELECT DISTINCT sku FROM gathered) {joins} ORDER BY sku"
    ).to_arrow_table()
    constants = {"source": run.mapping.source, "known_at": known_at}
    columns = [
        found[field.name]
        if field.name in found.column_names
        else pa.repeat(pa.scalar(constants.get(field.name), field.type), found.num_rows)
        for field in PRODUCT.arrow
    ]
    return pa.table(columns, schema=PRODUCT.arrow)
