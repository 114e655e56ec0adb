"""What `ingest` makes of files: rows, lines, numbers, times, rules, keys, pseudonyms, and what it refuses."""

from __future__ import annotations

import gzip
import io
import json
import re
import resource
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storekeep import retail
from storekeep.errors import Misused, Permanent, Refused
from storekeep.ingest import (
    Bounds,
    Loaded,
    Mapping,
    archives,
    complete_journey,
    complete_journey_files,
    load,
    load_products,
    load_promotions,
    mapping,
    shipped,
    staging,
)
from storekeep.ingest.feeds import BUILT_IN, Csv, Reference, Rule
from storekeep.ingest.shelf import Shelf

KNOWN_AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
KEY = b"a key that is kept secret, 32 by"

TILL = """\
feed: pos
source: corner_shop
table: sale_line
format: csv
currency: EUR
source_columns:
  receipt: text
  item: text
  qty: int
  price: decimal
  at: time
columns:
  store_id: "'main'"
  basket_id: receipt
  sku: item
  quantity_units: qty
  value_minor: qty * price
  occurred_at: at
document: [basket_id]
"""
COUNTS = """\
feed: stock
source: shelf
table: stock_count
format: csv
source_columns: {item: text, qty: int, at: time}
columns: {sku: item, quantity_units: qty, occurred_at: at}
"""
HEADER = "receipt,item,qty,price,at\n"
LINE = "r1,apple,2,0.50,2026-01-01 09:00:00\n"

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a file and gives its path."""

    def write(content: str | bytes, name: str = "till.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def batches(make: Make, text: str, *files: Path, **more: Any) -> list[Loaded]:
    found = mapping(make(text, "mapping.yaml"))
    return list(load(found, files, known_at=KNOWN_AT, location_id="DC1", **more))


def one(make: Make, text: str, content: str | bytes, **more: Any) -> Loaded:
    (batch,) = batches(make, text, make(content), **more)
    assert batch.read == batch.rows.num_rows + batch.rejected.num_rows + sum(batch.ignored.values())
    for table in (batch.rows, batch.rejected):
        assert [f.name for f in table.schema if not f.nullable and table[f.name].null_count] == []
    return batch


def told(batch: Loaded) -> list[tuple[int, str | None, str]]:
    return [(row["source_line"], row["column"], row["rule"]) for row in batch.rejected.to_pylist()]


def lines(batch: Loaded) -> list[int]:
    return [int(line) for line in batch.rows["source_line"].to_pylist()]


def column(batch: Loaded, name: str) -> list[Any]:
    return list(batch.rows[name].to_pylist())


# Rows and what they are marked with


def test_a_till_line_becomes_a_row_of_the_retailers_table(make: Make) -> None:
    batch = one(make, TILL, HEADER + LINE)
    assert batch.rows.schema.equals(retail.SALE_LINE.arrow, check_metadata=True)
    (row,) = batch.rows.to_pylist()
    assert len(row.pop("line_key")) == 32
    assert row == {
        "location_id": "DC1",
        "store_id": "main",
        "basket_id": "r1",
        "sku": "apple",
        "quantity_units": 2,
        "value_minor": 100,
        "currency": "EUR",
        "customer_id": None,
        "day": date(2026, 1, 1),
        "occurred_at": datetime(2026, 1, 1, 9, tzinfo=UTC),
        "known_at": KNOWN_AT,
        "source_file": "till.csv",
        "source_line": 2,
    }
    assert (batch.read, batch.batch, batch.last, batch.file) == (1, 0, True, "till.csv")


def test_a_rejected_row_tells_file_line_column_rule_reason_and_what_it_said(make: Make) -> None:
    batch = one(make, TILL, HEADER + LINE + "r2,pear,two,1.00,2026-01-01 09:00:00\n")
    assert batch.rejected.schema.equals(retail.REJECTED.arrow, check_metadata=True)
    (row,) = batch.rejected.to_pylist()
    raw = {
        "receipt": "r2",
        "item": "pear",
        "qty": "two",
        "price": "1.00",
        "at": "2026-01-01 09:00:00",
    }
    assert json.loads(row.pop("raw")) == raw
    assert row == {
        "source": "corner_shop",
        "source_file": "till.csv",
        "source_line": 3,
        "column": "qty",
        "rule": "unreadable",
        "reason": "this is not a whole number",
        "known_at": KNOWN_AT,
    }


def test_columns_that_the_mapping_does_not_know_are_named_and_not_kept(make: Make) -> None:
    content = "name," + HEADER + "Ann," + LINE + "Bob,r2,pear,two,1,2026-01-01\n"
    batch = one(make, TILL, content)
    assert batch.unmapped == ("name",)
    assert "Bob" not in batch.rejected["raw"][0].as_py()


def test_a_header_alone_gives_a_batch_without_rows(make: Make) -> None:
    for content in (HEADER, HEADER.rstrip()):
        batch = one(make, TILL, content)
        assert (batch.read, batch.rows.num_rows, batch.rejected.num_rows) == (0, 0, 0)
        assert batch.rows.schema.equals(retail.SALE_LINE.arrow, check_metadata=True)


# Lines


def test_a_line_is_where_the_row_starts_in_the_file(make: Make) -> None:
    content = (
        HEADER
        + LINE
        + '"r\n2",pear,1,1,2026-01-01\n'
        + "\n"
        + LINE
        + '"r3\n\nx",fig,no,1,2026-01-01\n'
        + LINE
    )
    batch = one(make, TILL, content)
    assert lines(batch) == [2, 3, 6, 10]
    assert told(batch) == [(7, "qty", "unreadable")]
    assert batch.ignored == {"blank": 1}


def test_a_line_is_right_behind_rows_that_are_no_rows(make: Make) -> None:
    content = (
        "too,short\n" + LINE + 'much,"too\n",long,for,this,header\n' * 2 + LINE + "end\nend,2\n"
    )
    batch = one(make, TILL, HEADER + content)
    assert lines(batch) == [3, 8]
    assert told(batch) == [(line, None, "malformed") for line in (2, 4, 6, 9, 10)]
    first, second = batch.rejected.to_pylist()[:2]
    assert (first["reason"], first["raw"]) == ("has 2 fields where the header has 5", "too,short")
    assert second["raw"] == 'much,"too\n",long,for,this,header'


def test_a_file_of_nothing_but_bad_rows_is_all_told(make: Make) -> None:
    batch = one(make, TILL, HEADER + "a\nb,c\n")
    assert told(batch) == [(2, None, "malformed"), (3, None, "malformed")]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_line_counts_what_stands_above_the_header(make: Make, newline: str) -> None:
    text = TILL + "csv: {skip_lines: 2}\n"
    content = ("Report of the day\n,\n" + HEADER + "x\n" + LINE).replace("\n", newline)
    batch = one(make, text, content)
    assert (lines(batch), told(batch)) == ([5], [(4, None, "malformed")])


def test_a_file_without_a_header_is_read_by_position(make: Make) -> None:
    batch = one(make, TILL + "csv: {names: [receipt, item, qty, price, at]}\n", LINE + "x\n" + LINE)
    assert (lines(batch), told(batch)) == ([1, 3], [(2, None, "malformed")])


def test_a_header_may_itself_have_a_line_break_in_quotes(make: Make) -> None:
    header = 'receipt,item,qty,price,at,"a\nb"\n'
    batch = one(make, TILL, header + LINE.rstrip() + ",x\n")
    assert lines(batch) == [3]
    assert batch.unmapped == ("a\nb",)


def test_a_parquet_row_has_its_number_counted_from_1(make: Make, tmp_path: Path) -> None:
    at = pa.array([0] * 3, pa.timestamp("ms"))
    table = pa.table(
        {
            "receipt": ["r1"] * 3,
            "item": ["a"] * 3,
            "qty": [1, None, 3],
            "price": [1.1] * 3,
            "at": at,
        }
    )
    pq.write_table(table, tmp_path / "till.parquet")
    (batch,) = batches(
        make, TILL.replace("format: csv", "format: parquet"), tmp_path / "till.parquet"
    )
    assert lines(batch) == [1, 3]
    assert told(batch) == [(2, "quantity_units", "missing")]
    assert json.loads(batch.rejected["raw"][0].as_py())["price"] == 1.1


# Item and location numbers


@pytest.mark.parametrize(
    ("kind", "cell", "read"),
    [
        ("gtin", "6291041500213", "06291041500213"), ("gtin", "614141000036", "00614141000036"),
        ("gtin", "96385074", "00000096385074"), ("gtin", " 00614141000036 ", "00614141000036"),
        ("gtin", "6291041500214", None), ("gtin", "6.29104E+12", None), ("gtin", "9638507", None),
        ("gtin", "-96385074", None), ("gtin", "006141410000360", None), ("gtin", "٩٦٣٨٥٠٧٤", None),
        ("gln", "9501101020016", "9501101020016"), ("gln", "9501101020017", None), ("gln", "96385074", None),
    ],
)  # fmt: skip
def test_a_gs1_number_is_read_in_full_or_rejected(
    make: Make, kind: str, cell: str, read: str | None
) -> None:
    text = TILL.replace("item: text", f"item: {kind}")
    batch = one(make, text, HEADER + f"r,{cell},1,1,2026-01-01\n")
    assert column(batch, "sku") == ([] if read is None else [read])
    assert told(batch) == ([(2, "item", "unreadable")] if read is None else [])


def test_gs1_numbers_are_those_that_the_vocabulary_knows(make: Make) -> None:
    texts = [
        str(17**place % 10**size).zfill(size) for place in range(300) for size in (8, 12, 13, 14)
    ]
    content = HEADER + "".join(
        f"{place},{text},1,1,2026-01-01\n" for place, text in enumerate(texts)
    )
    for kind, known in (("gtin", retail.gtin14), ("gln", retail.gln)):
        batch = one(make, TILL.replace("item: text", f"item: {kind}"), content)
        found = [number for number in map(known, texts) if number]
        assert column(batch, "sku") == found
        assert len(found) > 20


# Text


def test_a_byte_order_mark_is_no_part_of_the_first_column(make: Make) -> None:
    assert one(make, TILL, b"\xef\xbb\xbf" + (HEADER + LINE).encode()).rows.num_rows == 1


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16", "utf-8"])
def test_a_declared_encoding_is_read(make: Make, encoding: str) -> None:
    content = (HEADER + LINE.replace("apple", "Brötchen") * 3000).encode(encoding)
    batch = one(make, TILL + f"csv: {{encoding: {encoding}}}\n", content)
    assert set(column(batch, "sku")) == {"Brötchen"}
    assert lines(batch) == list(range(2, 3002))


def test_a_row_in_another_encoding_is_rejected_and_the_others_are_not(make: Make) -> None:
    bad = LINE.replace("apple", "Brötchen").encode("cp1252")
    batch = one(make, TILL, HEADER.encode() + LINE.encode() + bad + LINE.encode() + b"\xe9\n")
    assert lines(batch) == [2, 4]
    assert told(batch) == [(3, "item", "malformed"), (5, None, "malformed")]
    assert "declare csv.encoding" in batch.rejected["reason"][0].as_py()
    assert batch.rejected["raw"][0].as_py().startswith("r1,Br\ufffdtchen,2")


def test_a_byte_that_the_declared_encoding_does_not_know_rejects_its_row(make: Make) -> None:
    content = (HEADER + LINE).encode() + b"r2,\x81,1,1,2026-01-01\n"
    batch = one(make, TILL + "csv: {encoding: cp1252}\n", content)
    assert (lines(batch), told(batch)) == ([2], [(3, "item", "malformed")])


def test_a_nul_in_a_cell_rejects_its_row(make: Make) -> None:
    content = (HEADER + LINE * 100).encode() + b"r2,a\0b,1,1,2026-01-01\n"
    batch = one(make, TILL, content)
    assert told(batch) == [(102, "item", "malformed")]
    assert "\0" not in batch.rejected["raw"][0].as_py()


def test_a_quote_that_is_never_closed_is_told_where_it_opens(make: Make) -> None:
    batch = one(make, TILL, HEADER + LINE + 'r2,a,1,1,"2026-01-01\n' + LINE * 3)
    assert (lines(batch), told(batch)) == ([2], [(3, None, "malformed")])
    assert "never closed" in batch.rejected["reason"][0].as_py()


def test_a_cell_may_hold_quotes_delimiters_and_line_breaks(make: Make) -> None:
    batch = one(make, TILL, HEADER + '"a, ""b""\r\nc",apple,1,1,2026-01-01\n')
    assert column(batch, "basket_id") == ['a, "b"\r\nc']


def test_other_delimiters_and_null_marks(make: Make) -> None:
    text = TILL + 'csv: {delimiter: ";", quote: "\'", nulls: ["", "NULL", "-"]}\n'
    content = (
        HEADER.replace(",", ";")
        + "'r;1';apple;1;1;2026-01-01\n;a;1;1;2026-01-01\nNULL;a;-;1;2026-01-01\n"
    )
    batch = one(make, text, content)
    assert column(batch, "basket_id") == ["r;1"]
    assert told(batch) == [(3, "basket_id", "missing"), (4, "basket_id", "missing")]


# Numbers and money


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("3", 3), ("+3", 3), ("-3", -3), (" 3 ", 3), ("3.0", 3), ("3.000", 3), ("1e3", 1000),
        ("1.5E+3", 1500),
        ("17850.0", 17850), ("0", 0), ("123456789012345678", 123456789012345678),
        ("2.5", None), ("1_000", None), ("0x1F", None), ("1,000", None), ("NaN", None), ("inf", None),
        ("3 units", None), ("1e-1", None), ("99999999999999999999", None), ("2.0000001", None), ("--1", None),
    ],
)  # fmt: skip
def test_a_whole_number_is_whole_or_rejected(make: Make, cell: str, read: int | None) -> None:
    batch = one(make, TILL.replace("qty * price", "price"), HEADER + f'r,a,"{cell}",1,2026-01-01\n')
    assert column(batch, "quantity_units") == ([] if read is None else [read])
    assert told(batch) == ([(2, "qty", "unreadable")] if read is None else [])


@pytest.mark.parametrize(
    ("decimal", "thousands", "cell", "minor"),
    [
        (".", None, "1234.56", 123456), (".", None, ".5", 50), (".", None, "1,234.56", None),
        (".", ",", "1,234.56", 123456),
        (".", ",", "12,34.56", None), (",", None, "1234,56", 123456), (",", None, "1.234,56", None),
        (",", ".", "1.234.567,89", 123456789), (",", ".", "1.5", None), (",", " ", "1\u00a0234,5", 123450),
        (",", "'", "1'234,5", 123450), (".", None, "1,5", None), (".", None, "£1.50", None),
    ],
)  # fmt: skip
def test_decimal_and_thousands_marks_are_as_declared(
    make: Make, decimal: str, thousands: str | None, cell: str, minor: int | None
) -> None:
    marks = {"decimal": decimal, "thousands": thousands}
    batch = one(make, TILL + f"csv: {json.dumps(marks)}\n", HEADER + f'r,a,1,"{cell}",2026-01-01\n')
    assert column(batch, "value_minor") == ([] if minor is None else [minor])
    assert told(batch) == ([(2, "price", "unreadable")] if minor is None else [])


@pytest.mark.parametrize(
    ("currency", "qty", "price", "minor"),
    [
        ("EUR", 1, "0.005", 1), ("EUR", -1, "0.005", -1), ("EUR", 3, "0.005", 2), ("EUR", 1, "0.0049", 0),
        ("EUR", 7, "1.10", 770), ("JPY", 1, "120", 120), ("JPY", 1, "120.5", 121), ("KWD", 1, "1.2345", 1235),
        ("EUR", 1_000_000, "1000000", 100_000_000_000_000),
    ],
)  # fmt: skip
def test_money_is_rounded_halves_away_from_zero(
    make: Make, currency: str, qty: int, price: str, minor: int
) -> None:
    text = TILL.replace("currency: EUR", f"currency: {currency}")
    batch = one(make, text, HEADER + f"r,a,{qty},{price},2026-01-01\n")
    assert column(batch, "value_minor") == [minor]


def test_money_that_does_not_fit_is_rejected_and_not_wrapped(make: Make) -> None:
    batch = one(make, TILL, HEADER + "r,a,999999999999999999,999999,2026-01-01\n" + LINE)
    assert (lines(batch), told(batch)) == ([3], [(2, "value_minor", "missing")])


def test_parquet_types_that_writers_differ_over_are_read(make: Make, tmp_path: Path) -> None:
    table = pa.table(
        {
            "receipt": pa.array([1, 2]),
            "item": pa.array(["a", "b"]).dictionary_encode(),
            "qty": pa.array([2.0, 2.5]),
            "price": pa.array([Decimal("1.10"), Decimal("1.20")], pa.decimal128(9, 2)),
            "at": pa.array([1_767_258_000_000_000_001] * 2, pa.timestamp("ns")),
        }
    )
    pq.write_table(table, tmp_path / "till.parquet")
    text = TILL.replace("format: csv", "format: parquet")
    (batch,) = batches(make, text, tmp_path / "till.parquet")
    (row,) = batch.rows.to_pylist()
    assert (row["basket_id"], row["sku"], row["value_minor"]) == ("1", "a", 220)
    assert row["occurred_at"] == datetime(2026, 1, 1, 9, tzinfo=UTC)
    assert told(batch) == [(2, "qty", "unreadable")]


def test_parquet_columns_of_another_type_are_refused(make: Make, tmp_path: Path) -> None:
    columns = ("receipt", "item", "qty", "price", "at")
    pq.write_table(pa.table({name: [[1, 2]] for name in columns}), tmp_path / "till.parquet")
    words = refused(make, tmp_path / "till.parquet", TILL.replace("format: csv", "format: parquet"))
    assert "till.parquet: the columns are not of the kinds that the mapping declares" in words


def test_money_in_floats_is_exact_to_the_cent(make: Make, tmp_path: Path) -> None:
    amounts = [n / 100 for n in range(1, 20_000)]
    table = pa.table(
        {
            "receipt": ["r"] * len(amounts),
            "item": [str(n) for n in range(len(amounts))],
            "qty": pa.array([1.0] * len(amounts)),
            "price": amounts,
            "at": pa.array([0] * len(amounts), pa.timestamp("ms", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "till.parquet")
    (batch,) = batches(
        make, TILL.replace("format: csv", "format: parquet"), tmp_path / "till.parquet"
    )
    assert sum(column(batch, "value_minor")) == sum(range(1, 20_000))


# Times


@pytest.mark.parametrize(
    ("cell", "instant", "day"),
    [
        ("2026-07-01 00:30:00", "2026-06-30T22:30:00+00:00", "2026-07-01"),
        ("2026-07-01T00:30", "2026-06-30T22:30:00+00:00", "2026-07-01"),
        ("2026-07-01", "2026-06-30T22:00:00+00:00", "2026-07-01"),
        ("2026-07-01 00:30:00.250000", "2026-06-30T22:30:00.250000+00:00", "2026-07-01"),
        ("2026-06-30 22:30:00Z", "2026-06-30T22:30:00+00:00", "2026-07-01"),
        ("2026-07-01 02:30:00 +0400", "2026-06-30T22:30:00+00:00", "2026-07-01"),
        ("2026-06-30T20:30:00-02:00", "2026-06-30T22:30:00+00:00", "2026-07-01"),
        ("2026-10-25 02:30:00", "2026-10-25T01:30:00+00:00", "2026-10-25"),
    ],
)
def test_a_time_is_local_unless_it_says_otherwise(
    make: Make, cell: str, instant: str, day: str
) -> None:
    batch = one(make, TILL + "time_zone: Europe/Berlin\n", HEADER + f"r,a,1,1,{cell}\n")
    (row,) = batch.rows.to_pylist()
    assert (row["occurred_at"].isoformat(), row["day"].isoformat()) == (instant, day)
    assert batch.repaired == {"clock_gap": 0}


@pytest.mark.parametrize(
    "cell", ["01/07/2026", "2026-13-01", "2026-02-30 10:00", "infinity", "epoch", "9:00", "46204.5"]
)
def test_what_is_no_time_is_rejected(make: Make, cell: str) -> None:
    assert told(one(make, TILL, HEADER + f"r,a,1,1,{cell}\n")) == [(2, "at", "unreadable")]


def test_a_time_that_the_clock_skipped_is_read_an_hour_later_and_counted(make: Make) -> None:
    batch = one(
        make, TILL + "time_zone: Europe/Berlin\n", HEADER + "r,a,1,1,2026-03-29 02:30:00\n" + LINE
    )
    assert column(batch, "occurred_at")[0] == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    assert batch.repaired == {"clock_gap": 1}


def test_the_trading_day_may_begin_in_another_zone(make: Make) -> None:
    text = TILL + "day_time_zone: America/New_York\n"
    batch = one(make, text, HEADER + "r,a,1,1,2026-01-02 04:59:59\nr,a,1,1,2026-01-02 05:00:00\n")
    assert column(batch, "day") == [date(2026, 1, 1), date(2026, 1, 2)]


def test_a_declared_time_format_is_the_only_one(make: Make) -> None:
    batch = one(
        make,
        TILL + 'time_format: "%d.%m.%Y %H:%M"\n',
        HEADER + "r,a,1,1,31.01.2026 09:05\nr,a,1,1,2026-01-31\n",
    )
    assert column(batch, "occurred_at") == [datetime(2026, 1, 31, 9, 5, tzinfo=UTC)]
    assert told(batch) == [(3, "at", "unreadable")]


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("46023.375", "2026-01-01 09:00:00"), ("46023,375", "2026-01-01 09:00:00"),
        ("46023", "2026-01-01 00:00:00"),
        ("46023.3750115741", "2026-01-01 09:00:01"), ("46023.99999999", "2026-01-02 00:00:00"),
        ("61", "1900-03-01 00:00:00"), ("2026-01-01 09:00", "2026-01-01 09:00:00"),
        ("60", None), ("0.5", None), ("-46023", None), ("9999999", None), ("4.6E+04", None), ("soon", None),
    ],
)  # fmt: skip
def test_dates_that_a_spreadsheet_made_numbers_of_are_read(
    make: Make, cell: str, read: str | None
) -> None:
    text = TILL.replace("at: time", "at: time\n  dated: date").replace(
        "occurred_at: at", "occurred_at: at\n  day: dated"
    )
    text += "time_format: excel\ndate_format: excel\ntime_zone: UTC\n"
    batch = one(make, text, HEADER.replace("at", "at,dated") + f'r,a,1,1,"{cell}","{cell}"\n')
    if read is None:
        assert told(batch) == [(2, "at", "unreadable")]
    else:
        at = datetime.fromisoformat(f"{read}+00:00")
        assert (column(batch, "occurred_at"), column(batch, "day")) == ([at], [at.date()])


def test_a_spreadsheets_numbers_are_local_and_may_be_numbers_in_parquet(
    make: Make, tmp_path: Path
) -> None:
    cells = {"receipt": ["r1", "r2"], "item": ["a", "b"], "qty": [1, 1], "price": [1.0, 1.0]}
    pq.write_table(
        pa.table({**cells, "at": [46023.375, 46110.104166666664]}), tmp_path / "p.parquet"
    )
    text = TILL.replace("format: csv", "format: parquet") + "time_format: excel\n"
    (batch,) = batches(make, text + "time_zone: Europe/Berlin\n", tmp_path / "p.parquet")
    assert column(batch, "occurred_at") == [
        datetime(2026, 1, 1, 8, tzinfo=UTC), datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    ]  # fmt: skip
    assert batch.repaired == {"clock_gap": 1}


def test_a_time_format_with_an_offset_gives_instants(make: Make) -> None:
    text = TILL + 'time_zone: Europe/Berlin\ntime_format: "%Y%m%d %H:%M %z"\n'
    batch = one(make, text, HEADER + "r,a,1,1,20260131 09:05 +0300\n")
    assert column(batch, "occurred_at") == [datetime(2026, 1, 31, 6, 5, tzinfo=UTC)]


# Rules


def test_every_rule_is_counted_and_the_first_that_rejects_is_named(make: Make) -> None:
    text = (
        TILL
        + """\
rules:
  - {id: voided, when: "item = 'void'", do: ignore, reason: nothing was sold}
  - {id: nothing, when: quantity_units = 0, do: reject, reason: no units}
  - {id: cheap, when: price < 0.10, do: reject, reason: too cheap}
"""
    )
    rows = "r,void,0,0,2026-01-01\nr,a,0,0,2026-01-01\nr,b,1,0.01,2026-01-01\n" + LINE
    batch = one(make, text, HEADER + rows)
    assert told(batch) == [(3, None, "nothing"), (4, None, "cheap")]
    assert batch.reasons == {"nothing": 1, "cheap": 1}
    assert batch.ignored == {"voided": 1}
    assert batch.matched == {"voided": 1, "nothing": 2, "cheap": 3}
    assert batch.rejected["reason"].to_pylist() == ["no units", "too cheap"]


def test_a_repair_mends_what_could_not_be_read_and_other_rules_see_it_mended(make: Make) -> None:
    text = TILL.replace("qty: int", "qty: text").replace(
        "quantity_units: qty", "quantity_units: try_cast(qty AS BIGINT)"
    )
    text = (
        text.replace("value_minor: qty * price", "value_minor: price")
        + """\
rules:
  - {id: dozen, when: "qty = 'dozen'", do: repair, set: {quantity_units: "12"}, reason: written out}
  - {id: many, when: "qty = 'many'", do: repair, set: {quantity_units: "999"}, reason: written out}
  - {id: too_many, when: quantity_units > 100, do: reject, reason: nobody buys so many}
"""
    )
    rows = "".join(f"r,a,{qty},1,2026-01-01\n" for qty in ("dozen", "many", "few", "1"))
    batch = one(make, text, HEADER + rows)
    assert column(batch, "quantity_units") == [12, 1]
    assert told(batch) == [(3, None, "too_many"), (4, "quantity_units", "missing")]
    assert batch.repaired == {"dozen": 1, "many": 0}
    assert batch.matched == {"dozen": 1, "many": 1, "too_many": 1}


def test_of_two_repairs_of_a_column_the_first_wins(make: Make) -> None:
    text = (
        TILL
        + """\
rules:
  - {id: first, when: quantity_units > 0, do: repair, set: {sku: "'one'"}, reason: x}
  - {id: second, when: quantity_units > 1, do: repair, set: {sku: "'two'", store_id: "'s2'"}, reason: x}
"""
    )
    batch = one(make, text, HEADER + LINE)
    assert (column(batch, "sku"), column(batch, "store_id")) == (["one"], ["s2"])
    assert batch.repaired == {"first": 1, "second": 1}


def test_a_rule_may_mend_a_column_that_nothing_fills(make: Make) -> None:
    text = (
        TILL
        + "rules:\n  - {id: staff, when: qty > 1, do: repair, set: {customer_id: \"'c1'\"}, reason: x}\n"
    )
    assert column(one(make, text, HEADER + LINE), "customer_id") == ["corner_shop:c1"]


def test_item_numbers_that_a_spreadsheet_cut_short_and_unknown_stores_are_rejected_by_rules(
    make: Make,
) -> None:
    rules = """\
rules:
  - id: cut_short
    when: regexp_matches(item, '^\\d([.,]\\d+)?E[+]\\d+$')
    do: reject
    reason: the spreadsheet has thrown digits of the item number away
  - id: unknown_store
    when: receipt NOT IN ('r1', 'r2')
    do: reject
    reason: there is no such store
"""
    lines_ = [
        LINE,
        LINE.replace("apple", "8.71126E+12"),
        LINE.replace("r1", "r9"),
        LINE.replace("apple", "1E5"),
    ]
    batch = one(make, TILL + rules, HEADER + "".join(lines_))
    assert told(batch) == [(3, None, "cut_short"), (4, None, "unknown_store")]
    assert lines(batch) == [2, 5]


def test_a_condition_that_cannot_be_computed_does_not_hold(make: Make) -> None:
    text = TILL + "rules:\n  - {id: odd, when: cast(item AS BIGINT) > 1, do: reject, reason: x}\n"
    batch = one(make, text, HEADER + LINE + LINE.replace("apple", "7"))
    assert (lines(batch), told(batch)) == ([2], [(3, None, "odd")])


def test_in_a_rule_a_name_means_the_retailers_column_before_the_files(make: Make) -> None:
    text = TILL.replace("  receipt: text", "  basket_id: int").replace(
        "basket_id: receipt", "basket_id: basket_id + 1"
    )
    text += "rules:\n  - {id: seen, when: \"basket_id = '8'\", do: reject, reason: x}\n"
    batch = one(
        make,
        text,
        HEADER.replace("receipt", "basket_id") + LINE.replace("r1", "7") + LINE.replace("r1", "8"),
    )
    assert (column(batch, "basket_id"), told(batch)) == (["9"], [(2, None, "seen")])


def test_a_value_outside_its_columns_range_is_rejected(make: Make) -> None:
    text = """\
feed: counts
source: counts
table: stock_count
format: csv
source_columns: {item: text, units: int, at: time}
columns: {sku: item, quantity_units: units, occurred_at: at}
"""
    content = "item,units,at\na,-1,2026-01-01\na,0,2026-01-01\na,5,2026-01-01\nb,5,2026-01-01\n"
    batch = one(make, text, content)
    assert [(row["sku"], row["quantity_units"]) for row in batch.rows.to_pylist()] == [
        ("a", 0),
        ("b", 5),
    ]
    assert told(batch) == [(2, "quantity_units", "out_of_range"), (4, None, "repeated")]
    assert batch.rejected["reason"][0].as_py() == "it must be at least 0"


TERMS = """\
feed: terms
source: terms
table: supply_terms
format: csv
currency: EUR
date_format: "%d/%m/%Y"
source_columns: {item: text, place: text, cost: float, lead: float, weekly: bool, since: date, kind: text}
columns:
  sku: item
  location_id: place
  supplier_id: kind
  unit_cost_minor: cost
  unit_price_minor: cost * 2
  pack_size_units: if(weekly, 6, 12)
  minimum_order_units: 0
  lead_time_mean_days: lead
  lead_time_sd_days: lead / 4
  review_period_days: date_diff('day', DATE '2026-01-01', since)
  review_weekday: isodow(since)
  supplier_minimum_minor: 0
"""


def test_floats_truths_and_dates_are_read(make: Make) -> None:
    rows = "a,DC1,1.005,2.5,yes,02/01/2026,s\nb,DC1,1,NaN,no,02/01/2026,s\nc,DC1,1,1e400,no,02/01/2026,s\n"
    rows += (
        "d,DC1,1,1,maybe,02/01/2026,s\ne,DC1,1,1,true,2026-01-02,s\nf,DC1,1,1,true,01/01/2026,s\n"
    )
    batch = one(make, TERMS, "item,place,cost,lead,weekly,since,kind\n" + rows)
    (row,) = batch.rows.to_pylist()
    assert {
        name: row[name] for name in ("unit_cost_minor", "unit_price_minor", "pack_size_units")
    } == {
        "unit_cost_minor": 101,
        "unit_price_minor": 201,
        "pack_size_units": 6,
    }
    assert (row["lead_time_mean_days"], row["lead_time_sd_days"]) == (2.5, 0.625)
    assert (row["review_period_days"], row["review_weekday"]) == (1, 5)
    assert told(batch) == [
        (3, "lead", "unreadable"),
        (4, "lead", "unreadable"),
        (5, "weekly", "unreadable"),
        (6, "since", "unreadable"),
        (7, "review_period_days", "out_of_range"),
    ]


def test_a_parquet_file_has_floats_truths_and_dates_of_its_own(make: Make, tmp_path: Path) -> None:
    table = pa.table(
        {
            "item": ["a", "b", "c\0"],
            "place": ["DC1"] * 3,
            "cost": pa.array([1.0, float("nan"), 1.0]),
            "lead": pa.array([1, 2, 3]),
            "weekly": [True, False, None],
            "since": pa.array([date(2026, 1, 2)] * 3),
            "kind": ["s", "s", "s"],
        }
    )
    pq.write_table(table, tmp_path / "terms.parquet")
    text = TERMS.replace("format: csv", "format: parquet")
    (batch,) = batches(make, text, tmp_path / "terms.parquet")
    assert column(batch, "sku") == ["a"]
    assert told(batch) == [(2, "unit_cost_minor", "missing"), (3, "item", "unreadable")]


def test_a_day_of_the_files_own_wins_over_the_clock(make: Make) -> None:
    text = TILL.replace("  at: time", "  at: time\n  shift: date") + "time_zone: Europe/Berlin\n"
    text = text.replace("occurred_at: at", "occurred_at: at\n  day: shift")
    content = (
        HEADER.rstrip() + ",shift\n" + LINE.rstrip() + ",2025-12-31\n" + LINE.rstrip() + ",31.12.\n"
    )
    batch = one(make, text, content)
    assert (column(batch, "day"), told(batch)) == (
        [date(2025, 12, 31)],
        [(3, "shift", "unreadable")],
    )
    by_time = one(make, text.replace("day: shift", "day: at"), content.replace("31.12.", ""))
    assert column(by_time, "day") == [date(2026, 1, 1)] * 2


# References

PRODUCTS = pa.Table.from_pylist(
    [
        {"source": "list", "sku": sku, "department": department, "known_at": KNOWN_AT}
        for sku, department in (("apple", "FRUIT"), ("petrol", "FUEL"))
    ],
    retail.PRODUCT.arrow,
)  # fmt: skip
WITH_PRODUCTS = (
    TILL
    + """\
references: {product: {table: product, on: sku}}
rules:
  - {id: unknown, when: product.sku IS NULL, do: reject, reason: no such item}
  - {id: fuel, when: product.department = 'FUEL', do: reject, reason: no units}
"""
)


def test_rules_look_into_reference_tables(make: Make) -> None:
    rows = "".join(f"r,{item},1,1,2026-01-01\n" for item in ("petrol", "kiwi", "apple"))
    batch = one(make, WITH_PRODUCTS, HEADER + rows, references={"product": PRODUCTS})
    assert column(batch, "sku") == ["apple"]
    assert told(batch) == [(2, None, "fuel"), (3, None, "unknown")]


def test_a_reference_table_must_be_handed_over_and_have_a_key(make: Make) -> None:
    with pytest.raises(Misused, match="looks rows up in 'product', a table of product rows"):
        batches(make, WITH_PRODUCTS, make(HEADER + LINE))
    twice = pa.concat_tables([PRODUCTS, PRODUCTS])
    with pytest.raises(Misused, match="several with the same"):
        batches(make, WITH_PRODUCTS, make(HEADER + LINE), references={"product": twice})
    other = PRODUCTS.drop_columns(["department"])
    with pytest.raises(Misused, match=r"it lacks \['department'\]"):
        batches(make, WITH_PRODUCTS, make(HEADER + LINE), references={"product": other})


# Keys


def keys(loaded: Iterable[Loaded]) -> list[str]:
    return [key for batch in loaded for key in column(batch, "line_key")]


def test_equal_lines_of_a_document_stay_apart_and_other_documents_do_not_matter(make: Make) -> None:
    other = LINE.replace("r1", "r2")
    once = keys([one(make, TILL, HEADER + LINE + LINE + other + LINE)])
    again = keys([one(make, TILL, HEADER + other + LINE + LINE + LINE)])
    assert len(set(once)) == 4
    assert set(once) == set(again)
    assert set(keys([one(make, TILL, HEADER + LINE)])) < set(once)


def test_which_of_equal_lines_has_which_key_follows_from_the_rest_of_the_line(make: Make) -> None:
    text = TILL.replace("  at: time", "  at: time\n  till: text").replace("'main'", "till")
    first, second = (LINE.rstrip() + f",{till}\n" for till in ("t1", "t2"))
    header = HEADER.rstrip() + ",till\n"

    def found(content: str) -> dict[str, str]:
        batch = one(make, text, header + content)
        return dict(zip(column(batch, "store_id"), column(batch, "line_key"), strict=True))

    assert found(first + second) == found(second + first)


def test_texts_that_run_together_do_not_share_a_key(make: Make) -> None:
    rows = ("a|1,b,1,1,2026-01-01\n", "a,1|b,1,1,2026-01-01\n", "a,b,1,1,2026-01-01\n")
    assert len({key for row in rows for key in keys([one(make, TILL, HEADER + row)])}) == 3


def test_equal_lines_are_counted_some_at_a_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"r{n % 7},{'ab'[n % 2]},1,1,2026-01-01\n" for n in range(60)) + LINE
    whole = keys([one(make, TILL, HEADER + rows)])
    monkeypatch.setattr(staging, "WINDOW_ROWS", 5)
    assert keys([one(make, TILL, HEADER + rows)]) == whole
    assert len(set(whole)) == 61


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 7, 100])
def test_a_document_across_batches_is_counted_as_a_whole(make: Make, batch_rows: int) -> None:
    content = HEADER + LINE * 5 + "bad\n" + LINE.replace("apple", "pear") * 2 + LINE * 2
    whole = one(make, TILL, content)
    parts = batches(make, TILL, make(content), batch_rows=batch_rows)
    assert keys(parts) == keys([whole])
    assert [line for part in parts for line in lines(part)] == lines(whole)
    assert [row for part in parts for row in told(part)] == told(whole)
    assert max(part.read for part in parts) <= batch_rows
    assert [part.batch for part in parts] == list(range(len(parts)))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]


def test_small_files_read_together_stay_apart(make: Make) -> None:
    contents = [HEADER + LINE * n + "bad\n" * (n % 2) for n in range(4)]
    files = [make(content, f"{n}.csv") for n, content in enumerate(contents)]
    together = batches(make, TILL, *files)
    assert [(b.file, b.read, b.rows.num_rows, b.last) for b in together] == [
        ("0.csv", 0, 0, True), ("1.csv", 2, 1, True), ("2.csv", 2, 2, True), ("3.csv", 4, 3, True),
    ]  # fmt: skip
    assert keys(together) == [key for file in files for key in keys(batches(make, TILL, file))]


def test_files_before_a_bad_one_are_handed_on(make: Make) -> None:
    found = mapping(make(TILL, "mapping.yaml"))
    files = [
        make(HEADER + LINE, "good.csv"),
        make("other\n1\n", "bad.csv"),
        make(HEADER + LINE, "late.csv"),
    ]
    loading = load(found, files, known_at=KNOWN_AT, location_id="DC1")
    assert next(loading).file == "good.csv"
    with pytest.raises(Misused, match=r"bad\.csv has no column 'receipt'; it has: other"):
        next(loading)


def test_two_loads_at_a_time_do_not_meet(make: Make) -> None:
    found = mapping(make(TILL, "mapping.yaml"))
    files = [
        make(HEADER + LINE * 9, "1.csv"),
        make(HEADER + LINE.replace("apple", "pear") * 9, "2.csv"),
    ]
    loads = [
        load(found, [file], known_at=KNOWN_AT, location_id="DC1", batch_rows=2) for file in files
    ]
    for first, second in zip(*loads, strict=True):
        assert set(column(first, "sku")) == {"apple"}
        assert set(column(second, "sku")) == {"pear"}


def test_a_load_given_up_half_way_does_no_harm(make: Make) -> None:
    found = mapping(make(TILL, "mapping.yaml"))
    path = make(HEADER + LINE * 9)
    given_up = iter(load(found, [path], known_at=KNOWN_AT, location_id="DC1", batch_rows=2))
    next(given_up)
    del given_up
    assert len(keys(load(found, [path], known_at=KNOWN_AT, location_id="DC1"))) == 9


# Pseudonyms

LOYAL = TILL.replace("  at: time", "  at: time\n  email: text").replace(
    "occurred_at: at", "occurred_at: at\n  customer_id: email"
)
LOYAL_HEADER = HEADER.rstrip() + ",email\n"


def loyal(email: str, qty: str = "1") -> str:
    return f"r1,apple,{qty},1,2026-01-01,{email}\n"


def test_a_customer_kept_is_marked_with_its_source(make: Make) -> None:
    batch = one(make, LOYAL, LOYAL_HEADER + loyal("c17") + loyal(""))
    assert column(batch, "customer_id") == ["corner_shop:c17", None]


def test_a_pseudonym_hides_the_person_everywhere(make: Make) -> None:
    text = LOYAL + "customer: pseudonymise\n"
    rows = (
        loyal("Ann@x.org")
        + loyal(" ann@X.ORG ")
        + loyal("bob@x.org")
        + loyal("")
        + loyal("ann@x.org", "no")
    )
    batch = one(make, text, LOYAL_HEADER + rows + "r1,ann@x.org\n", pseudonym_key=KEY)
    ann, same, bob, nobody = column(batch, "customer_id")
    assert ann == same != bob
    assert nobody is None
    assert ann.startswith("corner_shop:")
    assert len(ann) == len("corner_shop:") + 32
    unreadable, malformed = batch.rejected.to_pylist()
    assert json.loads(unreadable["raw"])["email"] == ann
    assert malformed["raw"].startswith("withheld")
    again = one(make, text, LOYAL_HEADER + loyal(ann), pseudonym_key=KEY)
    assert column(again, "customer_id") == [ann]
    other = one(make, text, LOYAL_HEADER + loyal("ann@x.org"), pseudonym_key=KEY[::-1])
    assert column(other, "customer_id") != [ann]


def test_other_personal_columns_are_hidden_too(make: Make) -> None:
    text = (
        LOYAL.replace("customer_id: email", "customer_id: cast(qty AS VARCHAR)")
        + "personal: [email]\n"
    )
    batch = one(make, text, LOYAL_HEADER + loyal("ann@x.org", "no"), pseudonym_key=KEY)
    assert "ann" not in batch.rejected["raw"][0].as_py()


@pytest.mark.parametrize("key", [None, b"short", b"x" * 65])
def test_a_pseudonym_takes_a_key(make: Make, key: bytes | None) -> None:
    with pytest.raises(Misused, match="pseudonym_key of 16 to 64 bytes"):
        batches(make, LOYAL + "customer: pseudonymise\n", make(LOYAL_HEADER), pseudonym_key=key)


# Mappings


def test_the_mappings_that_ship_are_found_by_name_and_sound() -> None:
    panel = "complete_journey"
    about = ("campaign", "campaign_customer", "coupon", "coupon_redemption", "household")
    assert set(shipped()) >= {
        *(panel, *(f"{panel}_{name}" for name in about)),
        *(f"{panel}_products", "uci_online_retail", "poslog", "epcis"),
    }
    for name in shipped():
        assert name.startswith(mapping(name).source)
        assert mapping(f"mappings/{name}.yaml") == mapping(name)


def test_a_mappings_digest_is_of_what_it_says(make: Make) -> None:
    first = mapping(make(TILL, "a.yaml"))
    assert mapping(make("# a remark\n" + TILL, "b.yaml")).digest == first.digest
    assert mapping(make(TILL.replace("EUR", "USD"), "c.yaml")).digest != first.digest


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("format: csv", "format: xls", "4:1", "format: no format 'xls' is read; there are csv, parquet"),
        ("currency: EUR", "currancy: EUR", "5:1", "currancy: there is no such key"),
        ("currency: EUR\n", "", "1:1", "currency is required"),
        ("  qty: int", "  qty: integer", "9:3", "source_columns.qty: Input should be"),
        ("  sku: item\n", "", "12:1", "columns: 'sku' of sale_line is required"),
        ("  sku: item", "  sku: item\n  colour: item", "16:3", "colour: sale_line has no such column"),
        ("  sku: item", "  sku: itme", "15:8", "unknown column 'itme'; did you mean 'item'?"),
        ("  sku: item", "  sku: random()", "15:8", "function"),
        ("  quantity_units: qty", "  quantity_units: item", "16:19",
         "quantity_units of sale_line is of kind int, but this is text"),
        ("document: [basket_id]\n", "", "1:1", "document is required"),
        ("document: [basket_id]", "document: [bag]", "19:1", "'bag' is not among columns"),
        ("table: sale_line", "table: sale_lines", "3:1", "no table 'sale_lines' can be loaded"),
        ("currency: EUR", "currency: EUR\ntime_zone: Mars/Base", "6:1", "no time zone is called 'Mars/Base'"),
        ("currency: EUR", "currency: EUR\ncsv: {encoding: ebcdic-x}", "6:1", "Python knows no encoding"),
        ("currency: EUR", "currency: EUR\ncsv: {decimal: ',', thousands: ','}", "6:1", "must differ"),
        ("currency: EUR", "currency: EUR\npersonal: [name]", "6:1", "'name' is not among source_columns"),
        ("currency: EUR", "currency: EUR\npersonal: [qty]", "10:3", "a personal column is read as text"),
        ("currency: EUR", "currency: EUR\ncustomer: pseudonymise", "6:1", "there is no column customer_id"),
        ("currency: EUR", "currency: EUR\nreferences: {p: {table: none, on: sku}}", "6:14", "no table"),
        ("currency: EUR", "currency: EUR\nproduct: {sku: item}", "6:11", "product has no such column"),
        ("source: corner_shop", "source: Corner Shop", "2:1", "String should match pattern"),
        ("  item: text", "  item: text\n  Item: text", "6:1", "names must differ by more than case"),
        ("feed: pos", "feed: pos\nfeed: pos", "2:1", "duplicate key"),
        ("feed: pos", "feed: [pos", "2:7", "this is no YAML"),
        ("feed: pos", "feed: 7", "1:1", "feed: Input should be a valid string"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_mapping_is_told_with_its_place(
    make: Make, old: str, new: str, place: str, words: str
) -> None:
    assert old in TILL
    path = make(TILL.replace(old, new, 1), "mapping.yaml")
    with pytest.raises(Refused) as error:
        mapping(path)
    assert str(error.value).startswith(f"{path}:{place}: ")
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("rule", "place", "words"),
    [
        ("{id: a, when: qty, do: reject, reason: x}", "21:19", "a boolean is wanted"),
        ("{id: a, when: qtty > 1, do: reject, reason: x}", "21:19", "unknown column 'qtty'"),
        ("{id: a, when: qty > 1, do: reject}", "21:5", "Field required"),
        ("{id: a, when: qty > 1, do: repair, reason: x}", "21:5", "a repair sets columns"),
        ("{id: a, when: qty > 1, do: reject, set: {sku: item}, reason: x}", "21:5", "a repair sets columns"),
        ("{id: a, when: qty > 1, do: repair, set: {sku: itme}, reason: x}", "21:51", "unknown column"),
        ("{id: a, when: qty > 1, do: repair, set: {line_key: item}, reason: x}", "21:46", "no such column"),
        ("{id: blank, when: qty > 1, do: reject, reason: x}", "21:6", "'blank' is taken"),
        ("{id: a, when: qty > 1, do: warn, reason: x}", "21:28", "Input should be 'reject', 'repair' or"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_told_with_its_place(
    make: Make, rule: str, place: str, words: str
) -> None:
    path = make(TILL + f"rules:\n  - {rule}\n", "mapping.yaml")
    with pytest.raises(Refused) as error:
        mapping(path)
    assert str(error.value).startswith(f"{path}:{place}: ")
    assert words in str(error.value)


def test_two_rules_cannot_share_an_id(make: Make) -> None:
    rule = "  - {id: a, when: qty > 1, do: reject, reason: x}\n"
    with pytest.raises(Refused, match=r"mapping\.yaml:22:6: rules\.1\.id: 'a' is taken"):
        mapping(make(TILL + "rules:\n" + rule * 2, "mapping.yaml"))


@pytest.mark.parametrize("content", ["", "just words\n", "- a\n- b\n"])
def test_what_is_no_mapping_at_all_is_refused(make: Make, content: str) -> None:
    with pytest.raises(Refused, match=r":1:1: a mapping is a table of keys and values"):
        mapping(make(content, "mapping.yaml"))


def test_a_mapping_cannot_explode(make: Make) -> None:
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(Refused, match="values; that is no mapping"):
        mapping(make("l0: &l0 [x]\n" + layers, "mapping.yaml"))


def test_a_mapping_that_is_absent_or_no_text_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(Misused, match="those that ship are catalogue, "):
        mapping(tmp_path / "none.yaml")
    with pytest.raises(Misused, match="is not UTF-8 text"):
        mapping(make(b"\xff\xfe", "mapping.yaml"))


def test_what_a_load_needs_is_asked_for_before_a_file_is_opened(make: Make, tmp_path: Path) -> None:
    found = mapping(make(TILL, "mapping.yaml"))
    counts = mapping(make(COUNTS, "counts.yaml"))
    with pytest.raises(Misused, match="needs a location_id"):
        load(counts, [tmp_path / "none.csv"], known_at=KNOWN_AT)
    with pytest.raises(Misused, match="known_at needs a time zone"):
        load(found, [], known_at=datetime(2026, 1, 1), location_id="x")  # noqa: DTZ001  # that is the fault


def test_a_sale_happens_where_one_says_or_in_its_store(make: Make) -> None:
    found = mapping(make(TILL.replace("\"'main'\"", "receipt"), "mapping.yaml"))
    file = make(HEADER + LINE)
    for said, place in ((None, "r1"), ("DC1", "DC1")):
        (batch,) = load(found, [file], known_at=KNOWN_AT, location_id=said)
        assert column(batch, "location_id") == [place]


# Files that cannot be read


def refused(make: Make, path: Path, text: str = TILL, **more: Any) -> str:
    with pytest.raises(Refused) as error:
        batches(make, text, path, **more)
    return str(error.value)


def test_a_missing_folder_or_empty_file_is_refused(make: Make, tmp_path: Path) -> None:
    assert "there is no such file" in refused(make, tmp_path / "none.csv")
    assert "is a folder" in refused(make, tmp_path)
    assert "is empty" in refused(make, make(b"", "empty.csv"))


def test_the_wrong_mapping_is_told_by_the_columns_that_are_there(make: Make) -> None:
    words = refused(make, make("a,b\n1,2\n"))
    assert words == "till.csv has no column 'receipt'; it has: a, b"
    assert "more than one column 'qty'" in refused(make, make("qty," + HEADER + "1," + LINE))
    assert "has no column 'receipt'" in refused(make, make("\n\n"))


def test_binary_is_not_taken_for_text(make: Make, tmp_path: Path) -> None:
    assert "it holds binary bytes" in refused(make, make(bytes(range(256)) * 10))
    pq.write_table(PRODUCTS, tmp_path / "p.csv")
    assert "it is a Parquet file" in refused(make, tmp_path / "p.csv")
    assert "declare csv.encoding: utf-16" in refused(make, make((HEADER + LINE).encode("utf-16")))


def test_text_is_not_taken_for_parquet(make: Make, tmp_path: Path) -> None:
    text = TILL.replace("format: csv", "format: parquet")
    assert "is no Parquet file" in refused(make, make(HEADER + LINE), text)
    pq.write_table(PRODUCTS, tmp_path / "p.parquet")
    assert "has no column 'receipt'; it has: source, sku, gtin" in refused(
        make, tmp_path / "p.parquet", text
    )
    cut = make((tmp_path / "p.parquet").read_bytes()[:-20], "cut.parquet")
    assert "cut short" in refused(make, cut, text)


def test_a_damaged_parquet_page_is_told(make: Make, tmp_path: Path) -> None:
    cells: dict[str, Any] = {"receipt": ["r1"] * 1000, "qty": [1] * 1000, "price": [1.0] * 1000}
    cells |= {"item": [str(n) * 20 for n in range(1000)]}
    cells |= {"at": pa.array([0] * 1000, pa.timestamp("ms", "UTC"))}
    table = pa.table(cells)
    pq.write_table(table, tmp_path / "p.parquet", compression="gzip")
    whole = bytearray((tmp_path / "p.parquet").read_bytes())
    whole[500:900] = b"\xff" * 400
    words = refused(
        make, make(bytes(whole), "bad.parquet"), TILL.replace("format: csv", "format: parquet")
    )
    assert "bad.parquet, after row 0: it is damaged" in words


def test_a_row_longer_than_a_block_is_refused_with_its_line(make: Make) -> None:
    words = refused(make, make(HEADER + LINE + "x" * (17 << 20) + "\n"))
    assert "a row is longer than 8 MiB" in words


@pytest.mark.parametrize("start", ["", '"'])
def test_a_row_without_end_is_refused_in_bounded_memory(make: Make, start: str) -> None:
    path = make(HEADER + LINE + start + "x" * (20 << 20), "long.csv")
    with path.open("ab") as file:
        file.truncate(128 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "long.csv, after line 1: a row is longer than 8 MiB" in refused(make, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_gz_and_zip_are_read_as_what_they_hold(make: Make, tmp_path: Path) -> None:
    content = HEADER + LINE + "bad\n"
    plain = one(make, TILL, content)
    packed = make(gzip.compress(content.encode()), "till.csv.gz")
    with zipfile.ZipFile(tmp_path / "days.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.csv", content)
        archive.writestr("__MACOSX/._1.csv", "rubbish")
        archive.writestr("a/.hidden", "rubbish")
        archive.writestr("a/2.csv", content)
    (unpacked,) = batches(make, TILL, packed)
    members = batches(make, TILL, tmp_path / "days.zip")
    assert [batch.file for batch in (unpacked, *members)] == [
        "till.csv.gz",
        "days.zip/a/1.csv",
        "days.zip/a/2.csv",
    ]
    for batch in (unpacked, *members):
        assert keys([batch]) == keys([plain])
        assert told(batch) == told(plain)
        assert set(column(batch, "source_file")) == {batch.file}


def test_a_damaged_archive_is_refused(make: Make, tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + LINE * 1000).encode())
    assert "cut short" in refused(make, make(packed[:-10], "cut.csv.gz"))
    assert "damaged" in refused(make, make(packed[:20] + b"\0" * 20 + packed[40:], "bad.csv.gz"))
    with zipfile.ZipFile(tmp_path / "days.zip", "w") as archive:
        archive.writestr("1.csv", HEADER + LINE * 1000)
    whole = (tmp_path / "days.zip").read_bytes()
    assert "cut short" in refused(make, make(whole[:2000], "cut.zip"))
    assert "damaged" in refused(make, make(whole.replace(b"apple", b"peach", 1), "bad.zip"))
    encrypted = bytearray(whole)
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[whole.index(magic) + flags] |= 1
    assert "1.csv is encrypted" in refused(make, make(bytes(encrypted), "secret.zip"))
    with zipfile.ZipFile(tmp_path / "none.zip", "w"):
        pass
    assert "holds no files" in refused(make, tmp_path / "none.zip")
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as archive:
        archive.writestr("../../till.csv", HEADER)
    assert "out.zip/../../till.csv is a name that leads out" in refused(make, tmp_path / "out.zip")


def test_an_archive_that_grows_too_much_is_refused_and_leaves_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    bounds = Bounds(growth=20, free_bytes=1 << 20, members=2)
    bomb = gzip.compress(b"0" * (4 << 20))
    assert "taken for a trap" in refused(make, make(bomb, "bomb.csv.gz"), bounds=bounds)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.csv", b"0" * (4 << 20))
    assert "taken for a trap" in refused(make, tmp_path / "bomb.zip", bounds=bounds)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.csv", HEADER)
    assert "holds 3 files; at most 2 are read" in refused(
        make, tmp_path / "many.zip", bounds=bounds
    )
    assert [path for path in scratch.iterdir() if list(path.iterdir())] == []
    assert one(make, TILL, gzip.compress((HEADER + LINE * 30_000).encode())).rows.num_rows == 30_000


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with pytest.raises(Permanent, match=r"no room left in /dev to unpack till\.csv; free some"):
        archives._copy(io.BytesIO(b"x" * 100_000), full, 100_000, "till.csv", Bounds())
    with pytest.raises(Permanent, match="no room left to work in"):
        Shelf(tmp_path / "gone").add(pa.table({"__row": [1]}))
    with pytest.raises(Permanent, match="no room left to work in"), staging._told(["till.csv"]):
        raise duckdb.OutOfMemoryException("failed to offload")


def test_an_absent_package_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey, "PACKAGE", "no_such_package")
    with pytest.raises(Refused, match=r"is not installed.*pip install 'storekeep\[demo\]'"):
        complete_journey_files()


# Products


def test_products_of_sales_have_the_name_they_are_most_often_called_by(make: Make) -> None:
    text = TILL.replace("  at: time", "  at: time\n  name: text") + (
        "product: {name: trim(name)}\nrules:\n  - {id: lost, when: qty < 0, do: reject, reason: damaged}\n"
    )
    names = {"a": ["Pear", " Pear", "pear", ""], "b": ["z", "y"], "c": [""], "d": []}
    rows = "".join(
        f"r,{sku},1,1,2026-01-01,{name}\n" for sku, all_ in names.items() for name in all_
    )
    lost = "r,b,-1,1,2026-01-01,damaged\n" * 5 + "r,d,-1,1,2026-01-01,lost\n"
    header = HEADER.rstrip() + ",name\n"
    half = rows.index("\n", len(rows) // 2) + 1
    files = [
        make(header + part, f"{n}.csv") for n, part in enumerate((rows[:half] + lost, rows[half:]))
    ]
    found = load_products(mapping(make(text, "mapping.yaml")), files, known_at=KNOWN_AT).rows
    assert found.schema.equals(retail.PRODUCT.arrow, check_metadata=True)
    assert [(row["sku"], row["name"], row["brand"]) for row in found.to_pylist()] == [
        ("a", "Pear", None), ("b", "y", None), ("c", None, None),
    ]  # fmt: skip


def test_products_are_gathered_without_a_key_for_pseudonyms(make: Make) -> None:
    text = LOYAL + "customer: pseudonymise\nproduct: {name: upper(item), brand: email}\n"
    found = load_products(
        mapping(make(text, "mapping.yaml")),
        [make(LOYAL_HEADER + loyal("ann@x.org"))],
        known_at=KNOWN_AT,
    ).rows
    assert found["name"].to_pylist() == ["APPLE"]
    assert "ann" not in found["brand"][0].as_py()


def test_products_of_a_catalogue_are_its_rows_and_the_last_file_wins(make: Make) -> None:
    text = """\
feed: products
source: catalogue
table: product
format: csv
source_columns: {code: text, title: text}
columns: {sku: code, name: title}
"""
    files = [
        make("code,title\nb,B\na,A\n", "1.csv"),
        make("code,title\nb,new B\nb,repeated\n", "2.csv"),
    ]
    found = load_products(mapping(make(text, "mapping.yaml")), files, known_at=KNOWN_AT).rows
    assert [(row["sku"], row["name"]) for row in found.to_pylist()] == [("a", "A"), ("b", "new B")]
    assert found.schema.equals(retail.PRODUCT.arrow, check_metadata=True)


def promotions(folder: Path, rows: list[tuple[int, int, str, str]]) -> pa.Table:
    names = ("product_id", "store_id", "display_location", "mailer_location")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    file = folder / "promotions.parquet"
    pq.write_table(pa.table({**columns, "week": [4] * len(rows)}), file)
    return load_promotions(file, KNOWN_AT)


def test_promotions_count_each_store_once_a_week(tmp_path: Path) -> None:
    rows = [
        (7, 1, "3", "0"),
        (7, 1, "5", "0"),
        (7, 2, "0", "A"),
        (7, 3, "9", "D"),
        (8, 1, "0", "A"),
    ]
    found = promotions(tmp_path, rows)
    assert found.drop_columns("known_at").to_pylist() == [
        {"sku": "7", "week": 4, "stores_on_display": 2, "stores_in_mailer": 2},
        {"sku": "8", "week": 4, "stores_on_display": 0, "stores_in_mailer": 1},
    ]
    assert found["known_at"].to_pylist() == [KNOWN_AT, KNOWN_AT]


@pytest.mark.parametrize("stores", [61, 62, 63, 64, 65, 124, 125, 200])
def test_promotions_count_however_many_stores_there_are(tmp_path: Path, stores: int) -> None:
    rows = [(7, 1000 - store, "3", "D" if store % 2 else "0") for store in range(stores)]
    (found,) = promotions(tmp_path, [*rows, *rows]).to_pylist()
    assert (found["stores_on_display"], found["stores_in_mailer"]) == (stores, stores // 2)


def test_a_decimal_is_the_number_that_was_written(make: Make) -> None:
    prices = ["0.07", "19.99", "1000000.01", "0.29", "1.15"]
    rows = "".join(f"r,a,1,{price},2026-01-01\n" for price in prices)
    assert column(one(make, TILL, HEADER + rows), "value_minor") == [
        int(Decimal(p) * 100) for p in prices
    ]


# What the documentation says

PAGE = Path(__file__).parents[2] / "docs/ingest.md"


def fenced(language: str) -> str:
    sample = PAGE.read_text(encoding="utf-8").partition("## A sample")[2].partition("\n## ")[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", sample, re.DOTALL)
    return str(block)


def test_the_sample_of_the_documentation_comes_out_as_it_says(make: Make) -> None:
    batch = one(make, fenced("yaml"), fenced("none"))
    taken = [
        f"  line {row['source_line']}: {row['basket_id']} {row['sku']} {row['quantity_units']} units, "
        f"{row['value_minor']} {row['currency']} minor, {row['occurred_at']:%Y-%m-%d %H:%M} UTC, "
        f"{row['customer_id']}"
        for row in batch.rows.to_pylist()
    ]
    rejected = [
        f"  line {row['source_line']}: {row['rule']}, {row['column']}: {row['reason']}"
        for row in batch.rejected.to_pylist()
    ]
    counts = [f"ignored {batch.ignored}", f"repaired {batch.repaired}", ""]
    out = "\n".join(["taken in", *taken, "rejected", *rejected, *counts])
    assert out == fenced("text")
    assert len(set(keys([batch]))) == batch.rows.num_rows


def test_every_key_of_a_mapping_and_every_check_is_documented() -> None:
    text = PAGE.read_text(encoding="utf-8")
    keys_ = [name for part in (Mapping, Csv, Rule, Reference) for name in part.model_fields]
    assert [name for name in (*keys_, *BUILT_IN) if f"`{name}`" not in text] == []
    for name in shipped():
        for rule in mapping(name).rules:
            assert f"`{rule.id}`" in text or name == "complete_journey_products"
