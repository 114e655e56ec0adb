"""Mappings proposed from files: what is made out of clean and of dirty ones, and that each of them loads."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storekeep.errors import Refused
from storekeep.ingest import Loaded, Mapping, load, mapping, suggest
from tests.unit.test_cli import ask, told
from tests.unit.test_ingest import KEY, KNOWN_AT

Proposed = tuple[Mapping, Loaded, tuple[str, ...]]
Propose = Callable[..., Proposed]


@pytest.fixture
def propose(tmp_path: Path) -> Propose:
    """Writes a file, takes a mapping from it, and reads it by that."""

    def proposed(content: str | bytes, name: str = "a.csv") -> Proposed:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        found = suggest(path)
        (tmp_path / "proposed.yaml").write_text(found.text, encoding="utf-8")
        made = mapping(tmp_path / "proposed.yaml")
        (batch,) = load(made, [path], known_at=KNOWN_AT, location_id="DC1", pseudonym_key=KEY)
        return made, batch, found.look

    return proposed


def looked(look: tuple[str, ...], begin: str) -> str:
    (found,) = (each for each in look if each.startswith(begin))
    return found


def test_what_a_german_spreadsheet_saves(propose: Propose) -> None:
    content = (
        "\ufeffBelegnr;Artikel;Menge;Einzelpreis;Datum;Kunde\r\n"
        "0001;Äpfel;3;1.234,50;24.12.2026 09:05;17\r\n"
        '0001;"Brot; ""rund""";-1;0,35;24.12.2026 09:06;\r\n'
        '0002;"Milch\n1 l";2;0,99;03.01.2027 10:00;18\r\n'
    )
    made, batch, look = propose(content, "Kasse Süd.csv")
    assert (made.feed, made.table, made.format) == ("pos", "sale_line", "csv")
    assert (made.csv.delimiter, made.csv.decimal, made.csv.thousands) == (";", ",", ".")
    assert made.time_format == "%d.%m.%Y %H:%M"
    assert made.source_columns["Belegnr"] == "text"
    assert made.customer == "pseudonymise"
    rows = batch.rows.to_pylist()
    assert [(row["sku"], row["value_minor"], row["basket_id"]) for row in rows] == [
        ("Äpfel", 370350, "0001"),
        ('Brot; "rund"', -35, "0001"),
        ("Milch\n1 l", 198, "0002"),
    ]
    assert rows[2]["occurred_at"] == datetime(2027, 1, 3, 10, tzinfo=UTC)
    assert "which currency" in looked(look, "currency: XTS")
    assert "which time zone" in looked(look, "time_zone")
    assert looked(look, "store_id")


def test_windows_1252_and_tabs(propose: Propose) -> None:
    content = "SKU\tBezeichnung\tMarke\nA1\tKäse €\tGroß\nA2\tBrötchen\tGroß\n".encode("cp1252")
    made, batch, look = propose(content)
    assert (made.table, made.csv.encoding, made.csv.delimiter) == (
        "product",
        "windows-1252",
        "\t",
    )
    assert [row["name"] for row in batch.rows.to_pylist()] == ["Käse €", "Brötchen"]
    assert "accents" in looked(look, "encoding")


def test_utf_16_and_gz(propose: Propose) -> None:
    content = "item,name\n1,Käse\n2,Öl\n".encode("utf-16")
    made, batch, _ = propose(gzip.compress(content), "a.csv.gz")
    assert made.csv.encoding == "utf-16"
    assert batch.rows["name"].to_pylist() == ["Käse", "Öl"]


def test_lines_above_the_header_marks_and_long_identifiers(propose: Propose) -> None:
    content = (
        "Report of sales\nprinted on Monday\n\nstore|receipt|sku|qty|total|sold_at\n"
        "1|9007199254740993|0001|2|3.50|2026-01-01T10:00:00Z\n"
        "1|9007199254740994|0002|1|N/A|2026-01-01T10:00:00+01:00\n"
    )
    made, batch, look = propose(content)
    assert (made.csv.skip_lines, made.csv.nulls) == (3, ("", "N/A"))
    assert batch.rows["basket_id"].to_pylist() == ["9007199254740993"]
    assert batch.reasons == {"missing": 1}
    assert "mean nothing" in looked(look, "nulls")
    assert not [each for each in look if each.startswith("time_zone")]


@pytest.mark.parametrize(
    ("days", "form", "sure"),
    [
        (("12/31/2026", "01/02/2026"), "%m/%d/%Y", True),
        (("31/12/2026", "01/02/2026"), "%d/%m/%Y", True),
        (("01/02/2026", "03/04/2026"), "%d/%m/%Y", False),
        (("02-Jun-06", "14-Nov-06"), "%d-%b-%y", True),
    ],
)
def test_what_comes_first_in_a_date_is_asked_where_nothing_tells(
    propose: Propose, days: tuple[str, str], form: str, sure: bool
) -> None:
    content = f"item,counted,date\nx,1,{days[0]}\ny,2,{days[1]}\n"
    made, batch, look = propose(content)
    assert made.table == "stock_count"
    assert made.time_format == form
    assert batch.rows.num_rows == 2
    asked = [each for each in look if each.startswith("date_format")]
    assert not asked if sure else "%m/%d/%Y would fit as well" in asked[0]


def test_a_file_without_a_header_is_named_by_a_person(propose: Propose) -> None:
    made, batch, look = propose("1,apple,3\n2,pear,4\n")
    assert made.csv.names == ("column_1", "column_2", "column_3")
    assert batch.reasons == {"missing": 2}
    assert looked(look, "names")
    assert "no column was found" in looked(look, "sku")


def test_json_lines_parquet_and_products(propose: Propose) -> None:
    order = {
        "id": 2**60,
        "created_at": "2026-01-01T10:00:00Z",
        "line_items": [{"sku": "a", "quantity": 2, "price": "1.10"}],
        "refunds": [{"amount": 1}],
    }
    made, batch, look = propose(json.dumps(order) + "\n{}\n", "orders.jsonl")
    assert (made.format, made.table) == ("jsonl", "sale_line")
    assert batch.rows["value_minor"].to_pylist() == [220]
    assert batch.rows["basket_id"].to_pylist() == [str(2**60)]
    assert "refunds.amount" in looked(look, "source_columns")
    sink = pa.BufferOutputStream()
    told_of = {"item": ["a"], "on hand": [3], "date": [date(2026, 1, 1)]}
    pq.write_table(pa.table(told_of), sink)
    made, batch, _ = propose(bytes(sink.getvalue()), "stock.parquet")
    assert (made.format, made.table) == ("parquet", "stock_report")
    assert batch.rows["quantity_units"].to_pylist() == [3]
    product = {"@type": "Product", "sku": "1", "name": "Milk"}
    made, batch, _ = propose(json.dumps(product), "products.json")
    assert (made.format, made.table) == ("schema_org", "product")
    assert batch.rows["name"].to_pylist() == ["Milk"]


def test_names_that_sql_reads_otherwise_are_quoted(propose: Propose) -> None:
    made, batch, _ = propose("group;item no.;select qty;date\na;1;2;2026-01-01\nb;2;3;2026-01-02\n")
    assert made.columns["sku"] == '"item no."'
    assert batch.rows["quantity_units"].to_pylist() == [2, 3]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({"orders": [{"financial_status": "paid", "total_line_items_price": "1"}]}, "shopify_orders"),
        ({"id": 1, "product_type": "", "variants": []}, "shopify_products"),
        ([{"order_key": "k", "line_items": [], "customer": {"verified_email": 1}}], "woocommerce_orders"),
    ],
)  # fmt: skip
def test_of_what_a_web_shop_sends_it_is_the_mapping_that_ships(
    tmp_path: Path, said: object, name: str
) -> None:
    for number, indent in enumerate((None, 2)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(said, indent=indent))
        assert f"\nformat: {name}\n" in suggest(path).text


def test_json_that_is_nothing_known_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "shop.json"
    path.write_text(json.dumps({"draft": {"customer": {"verified_email": True}}}, indent=1))
    with pytest.raises(Refused, match=r"shop.json is JSON, .* write an object on each line"):
        suggest(path)


@pytest.mark.parametrize("content", [bytes(range(256)) * 9, b"\x89PNG\r\n\x1a\n" + bytes(900)])
def test_what_is_no_file_of_rows_is_refused(propose: Propose, content: bytes) -> None:
    with pytest.raises(Refused):
        propose(content)


cells = st.text(st.characters(codec="utf-8", exclude_characters='\r\n"'), min_size=1, max_size=6)
tables = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=2, max_size=6)
)


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(tables)
def test_whatever_is_proposed_loads(tmp_path: Path, rows: list[list[str]]) -> None:
    path = tmp_path / "any.csv"
    path.write_text("\n".join(";".join(row) for row in rows) + "\n", encoding="utf-8")
    try:
        found = suggest(path)
    except Refused:
        return
    (tmp_path / "any.yaml").write_text(found.text, encoding="utf-8")
    mapping(tmp_path / "any.yaml")


def test_the_command_says_it_in_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("item,name\n1,Milk\n2,Bread\n")
    for words in (("ingest", "suggest", path), ("ingest", "--suggest", path)):
        done = ask(*words)
        assert done.exit_code == 0, done.output
        assert "table: product" in done.stdout
        document: dict[str, Any] = told(ask(*words, "--json"))
        assert document["mapping"].rstrip("\n") == done.stdout.rstrip("\n")
        assert document["look"]
    assert ask("ingest").exit_code == 2
