"""UCI Online Retail as published: every figure of the raw files is reproduced, in any order and twice."""

from __future__ import annotations

import zipfile
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from storekeep.backtest import Options, demo
from storekeep.config import Settings
from storekeep.ingest import Loaded, load, load_products, mapping
from tests import shop

ARCHIVE = (
    Path(__file__).parents[3] / "shared/data/uci_online_retail/by-day_2010-12-01_to_2011-09-30.zip"
)
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not ARCHIVE.exists(), reason="../shared/data/uci_online_retail is absent"),
]
KNOWN_AT = datetime(2026, 1, 1, tzinfo=UTC)


def read(*files: Path) -> list[Loaded]:
    found = mapping("uci_online_retail")
    return list(load(found, files, known_at=KNOWN_AT, location_id="DC1"))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("uci")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return sorted(folder.glob("*.csv"))


@pytest.fixture(scope="module")
def raw(days: list[Path]) -> duckdb.DuckDBPyConnection:
    """The raw files by another road: the engine's own reader, everything as text."""
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE raw AS SELECT * FROM read_csv(?, all_varchar = true, header = true)",
        [str(days[0].parent / "*.csv")],
    )
    connection.execute(
        """
        CREATE VIEW sold AS SELECT *, round(Quantity::BIGINT * UnitPrice::DECIMAL(18, 3) * 100) AS pence
        FROM raw
        WHERE InvoiceNo NOT LIKE 'A%' AND UnitPrice::DOUBLE <> 0
          AND upper(StockCode) NOT IN
            ('POST', 'DOT', 'C2', 'M', 'D', 'S', 'B', 'BANK CHARGES', 'AMAZONFEE', 'CRUK', 'PADS')
          AND StockCode NOT LIKE 'gift%' AND (Quantity::BIGINT > 0 OR InvoiceNo LIKE 'C%')
        """
    )
    return connection


@pytest.fixture(scope="module")
def loaded() -> list[Loaded]:
    return read(ARCHIVE)


def query(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row


def facts(loaded: list[Loaded]) -> pa.Table:
    rows = pa.concat_tables(batch.rows for batch in loaded)
    return rows.drop_columns(["source_file", "source_line"]).sort_by("line_key")


def test_every_line_is_taken_in_or_told(loaded: list[Loaded]) -> None:
    reasons: Counter[str] = Counter()
    matched: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for batch in loaded:
        assert batch.read == batch.rows.num_rows + batch.rejected.num_rows
        reasons.update(batch.reasons)
        matched.update(batch.matched)
        repaired.update(batch.repaired)
    assert len(loaded) == 245
    assert sum(batch.read for batch in loaded) == 370_931
    assert sum(batch.rows.num_rows for batch in loaded) == 366_781
    assert reasons == {
        "not_goods": 2_201,
        "stock_adjustment": 1_023,
        "without_price": 923,
        "bad_debt": 3,
    }
    assert matched == {
        "code_in_small_letters": 1_513, "bad_debt": 3, "not_goods": 2_204, "stock_adjustment": 1_023,
        "without_price": 1_957, "clock_gap": 0,
    }  # fmt: skip
    assert repaired["clock_gap"] == 0


def test_the_published_figures_are_those_of_the_raw_files(
    loaded: list[Loaded], raw: duckdb.DuckDBPyConnection
) -> None:
    lines, cancelled, negative, without_customer, value = query(
        raw,
        """
        SELECT count(*), count(*) FILTER (InvoiceNo LIKE 'C%'), count(*) FILTER (Quantity::BIGINT < 0),
          count(*) FILTER (CustomerID IS NULL), sum(Quantity::BIGINT * UnitPrice::DECIMAL(18, 3))
        FROM raw
        """,
    )
    assert (lines, cancelled, negative, without_customer) == (370_931, 6_652, 7_675, 98_056)
    assert str(value) == "6781619.004"
    rejected = pa.concat_tables(batch.rejected for batch in loaded)
    rows = pa.concat_tables(batch.rows for batch in loaded)
    connection = duckdb.connect()
    connection.register("rows", rows)
    connection.register("rejected", rejected)
    assert query(
        connection,
        """
        WITH all_lines AS (
          SELECT basket_id AS invoice, quantity_units AS units, customer_id IS NULL AS unknown,
            value_minor::DECIMAL(18, 3) / 100 AS value
          FROM rows
          UNION ALL
          SELECT raw->>'InvoiceNo', (raw->>'Quantity')::BIGINT, raw->>'CustomerID' = '',
            (raw->>'Quantity')::BIGINT * (raw->>'UnitPrice')::DECIMAL(18, 3)
          FROM rejected
        )
        SELECT count(*), count(*) FILTER (invoice LIKE 'C%'), count(*) FILTER (units < 0),
          count(*) FILTER (unknown), round(sum(value), 3)::DECIMAL(18, 3)
        FROM all_lines
        """,
    ) == (lines, cancelled, negative, without_customer, value)


def test_the_value_taken_in_is_exact_to_the_penny(
    loaded: list[Loaded], raw: duckdb.DuckDBPyConnection
) -> None:
    taken = sum(sum(batch.rows["value_minor"].to_pylist()) for batch in loaded)
    assert (taken,) == query(raw, "SELECT sum(pence)::BIGINT FROM sold") == (685_592_972,)


def test_equal_lines_of_an_invoice_are_not_eaten(
    loaded: list[Loaded], raw: duckdb.DuckDBPyConnection
) -> None:
    """2,848 lines of these 245 days repeat another in all eight columns.

    The 5,268 that are told of UCI's file are those of all its 305 days, counted in the same way.
    """
    columns = (
        "InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country"
    )
    repeats = f"SELECT sum(n - 1) FROM (SELECT count(*) AS n FROM raw GROUP BY {columns})"
    assert query(raw, repeats) == (2_848,)
    rows = facts(loaded)
    assert len(set(rows["line_key"].to_pylist())) == rows.num_rows
    connection = duckdb.connect()
    connection.register("rows", rows)
    names = "basket_id, sku, quantity_units, value_minor, occurred_at"
    columns = "InvoiceNo, upper(StockCode), Quantity, pence, InvoiceDate"
    repeats = "SELECT sum(n - 1) FROM (SELECT count(*) AS n FROM {} GROUP BY {})"
    taken = query(connection, repeats.format("rows", names))
    assert taken == query(raw, repeats.format("sold", columns)) == (2_843,)


def test_any_order_of_days_and_twice_gives_the_same(days: list[Path], loaded: list[Loaded]) -> None:
    shuffled = [*days[1::3], *days[2::3], *days[::3]][::-1]
    known = facts(loaded)
    again = facts(read(*shuffled))
    assert again.equals(known)
    twice = pa.concat_tables([again, known])
    assert len(set(twice["line_key"].to_pylist())) == known.num_rows


def test_one_file_of_all_days_backwards_gives_the_same(
    days: list[Path], loaded: list[Loaded], tmp_path: Path
) -> None:
    header, *_ = days[0].read_text().splitlines()
    lines = [line for day in reversed(days) for line in reversed(day.read_text().splitlines()[1:])]
    path = tmp_path / "all.csv"
    path.write_text("\n".join([header, *lines]))
    assert facts(read(path)).equals(facts(loaded))


def test_days_are_those_of_the_files(loaded: list[Loaded]) -> None:
    for batch in loaded:
        day = date.fromisoformat(Path(batch.file).stem)
        assert set(batch.rows["day"].to_pylist()) <= {day}


def test_products_are_gathered_with_their_names(raw: duckdb.DuckDBPyConnection) -> None:
    found = load_products(mapping("uci_online_retail"), [ARCHIVE], known_at=KNOWN_AT).rows
    names = dict(zip(found["sku"].to_pylist(), found["name"].to_pylist(), strict=True))
    assert names["85123A"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert "POST" not in names
    assert None not in names.values()
    assert (
        (len(names),) == query(raw, "SELECT count(DISTINCT upper(StockCode)) FROM sold") == (3_651,)
    )


@pytest.mark.slow
def test_a_month_of_the_web_shop_is_played(home_settings: Settings) -> None:
    """A user's own sales, from files to orders, with all that a demonstration has to prove."""
    settings = shop.new_tenant(home_settings)
    since, until = date(2011, 8, 1), date(2011, 8, 31)
    report = demo(
        settings,
        Options(sales=(ARCHIVE,), mapping="uci_online_retail", since=since, until=until),
    )
    events = report["events"]
    told = (events["accepted"], events["later"], *events["rejected"].values())
    assert events["read"] == sum(told) == 370_931
    assert len(report["series"]) == 31
    assert report["decisions"]["allow"] > 100
    assert report["decisions"]["escalate"] > 1000
    assert report["purchase_orders"] > 20
    assert [report[part][name] for part, name in PROOFS] == [True] * len(PROOFS)
    assert "user's own" in report["source"]["note"]
    assert report["currency"] == "GBP"
    for figures in report["kpi"].values():
        assert 0.8 < figures["fill_rate"] < 1
        assert figures["stock_value"] > 0
        assert figures["cost"] > 0


PROOFS = (
    ("replay", "identical"), ("replay", "run_identical"), ("revert", "restored"), ("verify", "ok"),
    ("tamper", "found"),
)  # fmt: skip
