"""JSON lines and schema.org products: rows out of nested documents, every digit kept, bad ones told."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep.errors import Misused, Refused
from storekeep.ingest import json_lines, load, mapping, schema_org
from storekeep.ingest.archives import Opened
from storekeep.ingest.documents import Unfit, document, rows
from tests.unit.test_ingest import KNOWN_AT

ORDERS = """\
feed: orders
source: shop
table: sale_line
format: jsonl
currency: EUR
source_columns: {id: text, at: time, lines.sku: text, lines.qty: int, lines.total: decimal}
columns:
  store_id: "'web'"
  basket_id: id
  sku: lines.sku
  quantity_units: lines.qty
  value_minor: lines.total
  occurred_at: at
document: [basket_id]
"""
LINES = ("id", "lines.sku")


def read(folder: Path, content: bytes, *columns: str) -> tuple[list[list[Any]], list[Any]]:
    """The cells of a file's rows, each behind its line, and what is malformed: line and reason."""
    path = folder / "a.jsonl"
    path.write_bytes(content)
    good, bad = [], []
    for block in json_lines.blocks(Opened(path, path.name), columns):
        assert block.cells.column_names == list(columns)
        cells = [list(row.values()) for row in block.cells.to_pylist()]
        good += [[line, *row] for line, row in zip(block.lines.to_pylist(), cells, strict=True)]
        bad += [(row["line"], row["reason"]) for row in block.malformed.to_pylist()]
    return good, bad


def test_each_element_of_a_list_is_a_row(tmp_path: Path) -> None:
    content = b"""\xef\xbb\xbf{"id": 1, "lines": [{"sku": "a"}, {"sku": "b"}]}

{"id": 2, "lines": []}
{"id": 3}
"""
    assert read(tmp_path, content, *LINES) == (
        [[1, "1", "a"], [1, "1", "b"], [3, "2", None], [4, "3", None]],
        [],
    )


def test_every_number_is_kept_as_it_was_written(tmp_path: Path) -> None:
    numbers = ["9007199254740993", "18446744073709551617", "0.10", "1e3", "123456789012.123456"]
    content = "".join(f'{{"id": {each}}}\n' for each in numbers).encode()
    good, _ = read(tmp_path, content, "id")
    assert [row[1] for row in good] == numbers


def test_values_that_are_no_text_are_told_as_json(tmp_path: Path) -> None:
    content = b'{"a": true, "b": {"c": ["x", null]}, "d": null, "e": ["y"]}\n'
    ((_, *cells),) = read(tmp_path, content, "a", "b", "b.c", "d", "e")[0]
    assert cells == ["true", '{"c": ["x", null]}', '["x", null]', None, '["y"]']


BAD = {
    "is no JSON": b'{"id": ',
    "NaN is no number": b'{"id": NaN}',
    "holds half a character": b'{"id": "\\ud800"}',
    "is no JSON object": b"[1]",
    "is nested too deeply": b'{"id":' + b"[" * 100_000,
    "bytes that are not UTF-8": b'{"id": "\xff"}',
    "lists under several paths, lines and other": b'{"lines": [{}], "other": [{}]}',
    "a list within lines, in sku": b'{"lines": [{"sku": [{"a": 1}]}]}',
}


@pytest.mark.parametrize("reason", BAD)
def test_a_document_that_gives_no_rows_is_told_and_the_others_stand(
    tmp_path: Path, reason: str
) -> None:
    content = b'{"id": 1}\n' + BAD[reason] + b'\n{"id": 2}\n'
    good, ((line, said),) = read(tmp_path, content, "id", "lines.sku.a", "other.x")
    assert [row[:2] for row in good] == [[1, "1"], [3, "2"]]
    assert line == 2
    assert reason in said


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    for content, error, said in (
        (b'[\n{"id": 1\n}\n]\n', Refused, "no JSON on any of its lines"),
        (bytes(range(256)), Refused, "no JSON on any of its lines"),
        (b" " * (8 << 20) + b"{}", Refused, "line 1: it is longer than 8 MiB"),
        (b'{"ID": 1, "x": {"y": 2}}\n', Misused, "none of the columns .*; it has: ID, x.y"),
    ):
        with pytest.raises(error, match=said):
            read(tmp_path, content, *LINES)


def test_rows_of_one_line_are_judged_apart_and_told_by_their_line(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text(ORDERS)
    path = tmp_path / "a.jsonl"
    lines = [
        {"sku": "a", "qty": 1, "total": "0.50"},
        {"sku": "a", "qty": 1, "total": "0.50"},
        {"sku": "b", "qty": "two", "total": "0.50"},
    ]
    orders = [{"id": 2**53 + 1, "at": "2026-01-01", "lines": lines}, {"id": 5, "note": "later"}]
    path.write_text("".join(json.dumps(each) + "\n" for each in orders))
    found = mapping(tmp_path / "mapping.yaml")
    for batch_rows in (1, 2, 100):
        batches = list(
            load(found, [path], known_at=KNOWN_AT, location_id="DC1", batch_rows=batch_rows)
        )
        kept = [row for batch in batches for row in batch.rows.to_pylist()]
        assert [(row["basket_id"], row["sku"], row["source_line"]) for row in kept] == [
            ("9007199254740993", "a", 1),
            ("9007199254740993", "a", 1),
        ]
        assert len({row["line_key"] for row in kept}) == 2
        turned = [row for batch in batches for row in batch.rejected.to_pylist()]
        assert [(row["source_line"], row["column"], row["rule"]) for row in turned] == [
            (1, "lines.qty", "unreadable"),
            (2, "sku", "missing"),
        ]
        assert all(batch.read <= batch_rows for batch in batches)


keys = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(
    values, st.lists(st.lists(keys, min_size=1, max_size=3).map(".".join), min_size=1, unique=True)
)
def test_any_document_gives_rows_or_says_why_not(said: Any, columns: list[str]) -> None:
    read_again = document(json.dumps(said).encode())
    try:
        found = list(rows(read_again, columns))
    except Unfit:
        return
    assert found
    assert all(len(row) == len(columns) for row in found)
    assert all(cell is None or isinstance(cell, str) for row in found for cell in row)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_none(content: bytes) -> None:
    with suppress(Unfit):
        document(content)


# Products ---------------------------------------------------------------------------------------------


def products(folder: Path, content: bytes, *columns: str) -> list[list[Any]]:
    path = folder / "a.json"
    path.write_bytes(content)
    found = []
    for block in schema_org.blocks(Opened(path, path.name), columns):
        found += [list(row.values()) for row in block.cells.to_pylist()]
        found += [[row["line"], row["reason"]] for row in block.malformed.to_pylist()]
    return found


MILK = {"@type": "Product", "sku": "1", "name": "Milk"}
SHAPES = {
    "an object": {"@context": "https://schema.org", **MILK},
    "a list": [MILK],
    "a graph": {"@graph": [{"@type": "WebPage"}, {**MILK, "@type": ["http://schema.org/Product"]}]},
    "a list of items": {"@type": "ItemList", "itemListElement": [{"item": MILK}]},
    "a page about it": {"@type": "WebPage", "mainEntity": MILK},
    "a group": {"@type": "ProductGroup", "hasVariant": [{**MILK, "@type": "schema:Product"}]},
    "beside others": {**MILK, "isSimilarTo": {"@type": "Product", "sku": "2"}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_found_in_every_shape_of_document(tmp_path: Path, shape: str) -> None:
    content = json.dumps(SHAPES[shape]).encode()
    assert products(tmp_path, content, "sku", "name") == [["1", "Milk"]]


def test_what_is_said_in_several_ways_is_one_cell(tmp_path: Path) -> None:
    columns = ("brand", "gtin", "price", "priceCurrency", "availability", "category")
    says = {
        "brand": [{"@type": "Brand", "name": "Farm"}],
        "gtin13": "4006381333931",
        "category": {"@value": "Dairy"},
        "offers": {"lowPrice": 1.10, "priceCurrency": "EUR", "availability": "schema:InStock"},
    }
    content = json.dumps({**MILK, **says}).replace("1.1,", "1.10,").encode()
    wanted = ["Farm", "4006381333931", "1.10", "EUR", "InStock", "Dairy"]
    assert products(tmp_path, content, *columns) == [wanted]
    offers = {"offers": [{"price": 2**60, "priceCurrency": "JPY"}, {"price": 1}]}
    content = json.dumps({**MILK, **offers}).encode()
    assert products(tmp_path, content, *columns)[0][2:4] == [str(2**60), "JPY"]


def test_products_are_found_in_pages(tmp_path: Path) -> None:
    page = """<!DOCTYPE html><title>Käse</title>
      <script type="application/LD+json">{"@type": "Product", "sku": "k", "name": "Käse & Wein"}</script>
      <script>var x = 1 < 2;</script><script type='application/ld+json'>{oops</script>"""
    found = products(tmp_path, page.encode(), "sku", "name")
    assert found[0] == ["k", "Käse & Wein"]
    assert found[1][0] == 2
    assert "is no JSON" in found[1][1]
    page = page.replace("<title>", '<meta charset="windows-1252"><title>')
    assert products(tmp_path, page.encode("cp1252"), "sku", "name")[0] == ["k", "Käse & Wein"]


@pytest.mark.parametrize("content", [b"{}", b"{oops", b"\x00\x01", b"<p>nothing", b"<", b"[]"])
def test_files_without_products_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Refused, match=r"no schema.org Product|is no JSON|neither JSON-LD"):
        products(tmp_path, content, "sku")


def test_a_catalogue_ships_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    listed = [
        {**MILK, "dateModified": "2026-01-01T10:00:00+01:00"},
        {"@type": "Product", "gtin12": "123456789012"},
        {"@type": "Product", "name": "nothing to know it by"},
    ]
    path.write_text(json.dumps(listed))
    (batch,) = load(mapping("schema_org_products"), [path], known_at=KNOWN_AT)
    assert [row["sku"] for row in batch.rows.to_pylist()] == ["1", "123456789012"]
    assert batch.reasons == {"missing": 1}
