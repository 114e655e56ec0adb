"""The vocabulary as tables: one definition, and everything made of it agrees; check digits of GS1."""

from __future__ import annotations

import re

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep.features.sku_location import FEATURE_TABLE
from storekeep.retail import ITEM_IDENTITY, TABLES, Table, check_digit, gln, gtin14

ALL = [*TABLES.values(), FEATURE_TABLE]
EVERY = pytest.mark.parametrize("table", ALL, ids=lambda table: table.name)
FORBIDDEN = {"manager", "service", "handler", "engine", "helper", "utils", "base", "common", "misc"}


@EVERY
def test_a_table_is_named_for_one_row_and_says_what_it_is(table: Table) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", table.name)
    assert not table.name.endswith("s") or table.name == "supply_terms"
    assert table.meaning.endswith(".")
    assert not FORBIDDEN & set(table.name.split("_"))


@EVERY
def test_the_key_is_of_its_own_columns_and_always_there(table: Table) -> None:
    assert table.key
    # An item has a GTIN, a supplier's number, or both; what is absent is the same as what is absent.
    absent = {"gtin", "supplier_id", "supplier_item", "occurred_at"}
    for name in set(table.key) - (absent if table is ITEM_IDENTITY else set()):
        assert not table.column(name).nullable, name


@EVERY
def test_every_column_says_what_it_holds_in_which_unit(table: Table) -> None:
    assert len(set(table.names)) == len(table.names)
    for column in table.columns:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
        assert column.meaning.endswith("."), column.name
        assert not FORBIDDEN & set(column.name.split("_"))
        if column.name.endswith(("_units", "_minor", "_days")):
            assert column.unit, column.name
        if column.kind == "time":
            assert column.unit == "UTC", column.name
        if column.name.endswith("_id") or column.name == "sku":
            assert column.kind == "text", column.name


@EVERY
def test_money_stands_with_its_currency(table: Table) -> None:
    money = [column for column in table.columns if column.name.endswith("_minor")]
    assert all(column.kind == "int" for column in money)
    assert not money or "currency" in table.names


@EVERY
def test_the_same_name_has_the_same_type_everywhere(table: Table) -> None:
    for column in table.columns:
        for other in ALL:
            if column.name in other.names:
                assert other.column(column.name).kind == column.kind, (column.name, other.name)


@EVERY
def test_arrow_postgresql_and_duckdb_say_the_same(table: Table) -> None:
    assert tuple(table.arrow.names) == table.names
    defined = dict(line.strip().split(" ", 1) for line in table.postgresql_columns().split(",\n"))
    with duckdb.connect() as connection:
        connection.register("rows", table.arrow.empty_table())
        read = {
            name: kind.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
            for name, kind, *_ in connection.execute("DESCRIBE rows").fetchall()
        }
    assert read == table.duckdb_types()
    kinds = {
        "text": "text",
        "int": "bigint",
        "float": "double precision",
        "bool": "boolean",
        "date": "date",
        "time": "timestamptz",
        "bytes": "bytea",
    }
    for column in table.columns:
        null = "" if column.nullable else " NOT NULL"
        assert defined[column.name] == kinds[column.kind] + null
        field = table.arrow.field(column.name)
        assert field.nullable == column.nullable
        assert field.metadata[b"privacy"].decode() == column.privacy
        assert field.metadata[b"unit"].decode() == (column.unit or "")


def test_no_table_holds_personal_data_in_the_clear() -> None:
    for table in ALL:
        assert {column.privacy for column in table.columns} <= {"public", "internal", "pseudonym"}


def test_a_column_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="colour"):
        TABLES["product"].column("colour")


# Check digits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # GS1 General Specifications, and numbers as they stand on packages.
        ("6291041500213", "06291041500213"),
        ("4006381333931", "04006381333931"),
        ("036000291452", "00036000291452"),
        ("96385074", "00000096385074"),
        ("10614141000415", "10614141000415"),
        ("6291041500214", None),
        ("4006381333932", None),
        ("", None),
        ("0", None),
        ("629104150021", None),
        ("062910415002130", None),
        ("629104150021X", None),
        (" 6291041500213", None),
        ("６２９１０４１５００２１３", None),
        ("+291041500213", None),
    ],
)
def test_an_item_number_is_known_by_its_check_digit(text: str, number: str | None) -> None:
    assert gtin14(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9501101020016", "9501101020016"),
        ("9501101020017", None),
        ("950110102001", None),
        ("09501101020016", None),
        ("950110102001٦", None),
    ],
)
def test_a_location_number_is_known_by_its_check_digit(text: str, number: str | None) -> None:
    assert gln(text) == number


digits = st.text("0123456789", min_size=7, max_size=13).filter(
    lambda text: len(text) in {7, 11, 12, 13}
)


@given(digits)
def test_the_check_digit_makes_the_weighted_sum_a_multiple_of_ten(text: str) -> None:
    whole = text + str(check_digit(text))
    weighted = sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(reversed(whole)))
    assert weighted % 10 == 0
    assert gtin14(whole) == whole.rjust(14, "0")


@given(digits, st.data())
def test_any_one_wrong_digit_is_found(text: str, data: st.DataObject) -> None:
    whole = text + str(check_digit(text))
    place = data.draw(st.integers(0, len(whole) - 1))
    wrong = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != whole[place]]))
    assert gtin14(whole[:place] + wrong + whole[place + 1 :]) is None
