"""What must hold of any file: twice is once, order does not matter, no row is lost, lines are right."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from storekeep.errors import Refused
from storekeep.ingest import Loaded, Mapping, load
from storekeep.ingest.archives import Opened
from storekeep.ingest.delimited import Dialect, blocks

KNOWN_AT = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ("receipt", "item", "qty", "price", "at", "who")
TILL = Mapping.model_validate(
    {
        "feed": "pos",
        "source": "till",
        "table": "sale_line",
        "format": "csv",
        "currency": "EUR",
        "source_columns": {
            "receipt": "text", "item": "text", "qty": "int", "price": "decimal", "at": "time", "who": "text",
        },
        "columns": {
            "store_id": "'main'", "basket_id": "receipt", "sku": "item", "quantity_units": "qty",
            "value_minor": "qty * price", "occurred_at": "at", "customer_id": "who",
        },
        "document": ("basket_id",),
    },
)  # fmt: skip

Row = tuple[str, str, str, str, str, str]
cells = st.tuples(
    st.sampled_from(["r1", "r2", ""]),
    st.sampled_from(["a", "b", 'q"uote', "two\nlines", "ä,ö"]),
    st.sampled_from(["1", "2", "-1", "1.0", "x", ""]),
    st.sampled_from(["1", "1.00", "0.335", "£1"]),
    st.sampled_from(["2026-01-01", "2026-01-01 00:00:00", "2026-03-29 02:30", "soon"]),
    st.sampled_from(["", "c1", "c2"]),
)
files = st.lists(cells, max_size=12)


def written(rows: Iterable[Row], folder: str, name: str = "till.csv") -> Path:
    path = Path(folder) / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return path


def read(*paths: Path, batch_rows: int = 1000) -> list[Loaded]:
    return list(load(TILL, paths, known_at=KNOWN_AT, location_id="DC1", batch_rows=batch_rows))


def facts(loaded: Iterable[Loaded]) -> dict[str, tuple[object, ...]]:
    """What is known of each key, without where it was read."""
    return {
        row["line_key"]: tuple(v for name, v in row.items() if not name.startswith("source_"))
        for batch in loaded
        for row in batch.rows.to_pylist()
    }


@given(rows=files, order=st.randoms(use_true_random=False), batch_rows=st.integers(4, 11))
def test_the_same_lines_have_the_same_keys_in_any_order_and_twice(
    rows: list[Row], order: random.Random, batch_rows: int
) -> None:
    shuffled = order.sample(rows, len(rows))
    with TemporaryDirectory() as folder:
        first, second = written(rows, folder), written(shuffled, folder, "again.csv")
        once = read(first)
        known = facts(once)
        assert sum(batch.rows.num_rows for batch in once) == len(known)
        assert facts(read(second, first, batch_rows=batch_rows)) == known


@given(rows=files)
def test_equal_lines_of_a_document_are_as_many_as_were_written(rows: list[Row]) -> None:
    with TemporaryDirectory() as folder:
        taken = [row for batch in read(written(rows, folder)) for row in batch.rows.to_pylist()]
    names = ("basket_id", "sku", "quantity_units", "value_minor", "occurred_at")
    equal = Counter(tuple(row[name] for name in names) for row in taken)
    keys = {
        what: {row["line_key"] for row in taken if tuple(row[name] for name in names) == what}
        for what in equal
    }
    assert {what: len(found) for what, found in keys.items()} == dict(equal)


@given(rows=files, batch_rows=st.integers(3, 11))
def test_no_row_is_lost_and_each_is_told_once(rows: list[Row], batch_rows: int) -> None:
    with TemporaryDirectory() as folder:
        loaded = read(written(rows, folder), batch_rows=batch_rows)
    lines = [
        line
        for batch in loaded
        for table in (batch.rows, batch.rejected)
        for line in table["source_line"].to_pylist()
    ]
    blank = sum(batch.ignored.get("blank", 0) for batch in loaded)
    assert len(lines) == len(set(lines))
    assert len(lines) + blank == sum(batch.read for batch in loaded) == len(rows)
    assert blank == sum(not any(row) for row in rows)


texts = st.text(st.sampled_from('ab ,;"\n\r\té'), max_size=6)


@given(
    rows=st.lists(st.lists(texts, min_size=1, max_size=4), max_size=20),
    newline=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(90, 200),
)
def test_lines_and_cells_are_those_that_pythons_own_reader_finds(
    rows: list[list[str]], newline: str, block: int
) -> None:
    """Any cells and any number of fields, in blocks smaller than the file."""
    # A lone carriage return is left out: editors do not agree on whether it ends a line.
    rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerow(["one", "two"])
    writer.writerows(rows)
    reader = csv.reader(io.StringIO(out.getvalue(), newline=""))
    expected: dict[int, list[str]] = {}
    before = 0
    for row in reader:
        expected[before + 1] = row
        before = reader.line_num
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        path.write_bytes(out.getvalue().encode())
        found = list(blocks(Opened(path, "any.csv"), ("two", "one"), Dialect(), block_bytes=block))
    good = {
        line: [row["one"], row["two"]]
        for one in found
        for line, row in zip(one.lines.to_pylist(), one.cells.to_pylist(), strict=True)
    }
    bad = {line for one in found for line in one.malformed["line"].to_pylist()}
    assert good == {line: row for line, row in expected.items() if len(row) == 2 and line > 1}
    assert bad == {line for line, row in expected.items() if len(row) != 2}


@given(
    qty=st.integers(-(10**6), 10**6),
    price=st.decimals(-(10**6), 10**6, places=4, allow_nan=False, allow_infinity=False),
)
def test_money_is_what_decimal_arithmetic_says(qty: int, price: Decimal) -> None:
    with TemporaryDirectory() as folder:
        (batch,) = read(written([("r", "a", str(qty), f"{price:f}", "2026-01-01", "")], folder))
    exact = (qty * price * 100).quantize(Decimal(1), ROUND_HALF_UP)
    assert batch.rows["value_minor"].to_pylist() == [int(exact)]


HEADER = ",".join(COLUMNS).encode() + b"\n"
noise = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from([b'"', b"\n", b",", b"r1,a,1,1,2026-01-01,c\n", b"\x00", b"\xff", b"\r"]),
    ),
    max_size=12,
).map(b"".join)


@given(content=noise, with_header=st.booleans())
def test_any_bytes_are_read_or_refused(
    content: bytes, with_header: bool
) -> None:  # Hypothesis names it
    with TemporaryDirectory() as folder:
        path = Path(folder) / "noise.csv"
        path.write_bytes((HEADER if with_header else b"") + content)
        try:
            loaded = read(path)
        except Refused:
            return
    for batch in loaded:
        told = batch.rows.num_rows + batch.rejected.num_rows + sum(batch.ignored.values())
        assert told == batch.read


def test_a_document_is_counted_as_a_whole_however_it_is_cut() -> None:
    rows: list[Row] = [
        (f"r{number % 47}", "ab"[number % 2], "1", "1", "2026-01-01", "") for number in range(3000)
    ]
    with TemporaryDirectory() as folder:
        whole = read(written(rows, folder))
        pieces = read(written(rows[::-1], folder), batch_rows=400)
    assert len(facts(whole)) == len(rows)
    assert facts(whole) == facts(pieces)
