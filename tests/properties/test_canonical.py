"""Whole tables at once become the very text that the reference library of RFC 8785 writes row by row."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from storekeep import canonical
from storekeep.errors import InvariantBroken

LARGEST = 2**53 - 1

# Words a till never sends and a ledger must still carry: quotes, controls, beyond the first plane.
texts = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from('"\\/\x00\x01\b\t\n\x0b\f\r\x1f\x7f\x80\u2028\u2029\ufeff\ufffd😀𝄞é{}[]:,'),
    ),
    max_size=12,
)
floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.builds(
        lambda digits, power: float(f"{digits}e{power}"),
        st.integers(-(10**17), 10**17),
        st.integers(-330, 290),
    ),
    st.sampled_from(
        [
            *(-0.0, 0.0, 1e-7, 1e-6, 0.0001, 9.999e-5, 1e15, 1e16, 1e20, 1e21, 1e22, 5e-324),
            *(1.7976931348623157e308, 2.0**53, 2.0**53 + 2, 123456789012345.67, 0.1 + 0.2, 1e23),
        ]
    ),
)
times = st.datetimes(timezones=st.just(UTC)).filter(lambda time: 1 < time.year < 9999)

Kind = tuple[pa.DataType, st.SearchStrategy[Any]]
SCALARS: list[Kind] = [
    (pa.null(), st.none()),
    (pa.string(), texts),
    (pa.large_string(), texts),
    (pa.bool_(), st.booleans()),
    (pa.int64(), st.integers(-LARGEST, LARGEST)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, LARGEST)),
    (pa.float64(), floats),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    (pa.timestamp("us", "UTC"), times),
    (pa.timestamp("us", "America/New_York"), times),
    (
        pa.timestamp("ms"),
        times.map(
            lambda time: time.replace(tzinfo=None, microsecond=time.microsecond // 1000 * 1000)
        ),
    ),
]
names = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5)
    | st.sampled_from(
        ["a", "b", "x", "input", "c0", "text", 'say "', "it's", "€", "\ud7ff", "😀", "\n"]
    ),
    min_size=1,
    max_size=4,
    unique_by=str.lower,
)


@st.composite
def kinds(draw: st.DrawFn, depth: int = 2) -> Kind:
    """A column type with a strategy for its values: scalars, lists and structs in one another."""
    shape = draw(st.sampled_from(["scalar", "scalar", "list", "struct"])) if depth else "scalar"
    if shape == "scalar":
        scalar: Kind = draw(st.sampled_from(SCALARS))
        return scalar
    if shape == "list":
        kind, values = draw(kinds(depth=depth - 1))
        return pa.list_(kind), st.lists(st.none() | values, max_size=3)
    members = {name: draw(kinds(depth=depth - 1)) for name in draw(names)}
    fields = [pa.field(name, kind) for name, (kind, _) in members.items()]
    each = {name: st.none() | values for name, (_, values) in members.items()}
    return pa.struct(fields), st.fixed_dictionaries(each)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """A table's schema and its rows as Python has them."""
    kind, values = draw(kinds(depth=3).filter(lambda each: pa.types.is_struct(each[0])))
    return pa.schema(list(kind)), draw(st.lists(values, max_size=4))


def plain(value: Any) -> Any:
    """A value as JSON has it, worked out without the code under test."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        if value.tzinfo:
            value = value.astimezone(UTC)
        day, clock = (value.year, value.month, value.day), (value.hour, value.minute, value.second)
        return "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z".format(*day, *clock, value.microsecond)
    if isinstance(value, date):
        return f"{value.year:04}-{value.month:02}-{value.day:02}"
    return value


def reference(rows: list[dict[str, Any]]) -> list[str]:
    return [rfc8785.dumps(plain(row)).decode() for row in rows]


@given(tables())
def test_every_row_is_what_the_reference_writes(
    made: tuple[pa.Schema, list[dict[str, Any]]],
) -> None:
    schema, rows = made
    table = pa.Table.from_pylist(rows, schema=schema)
    # Through Arrow first: a float of 32 bits is another number than the one it was made from.
    assert canonical.rows(table).to_pylist() == reference(table.to_pylist())


@given(tables(), st.data())
def test_columns_that_are_written_already_go_in_as_they_are(
    made: tuple[pa.Schema, list[dict[str, Any]]], data: st.DataObject
) -> None:
    schema, rows = made
    table = pa.Table.from_pylist(rows, schema=schema)
    whole = canonical.rows(table).to_pylist()
    places = data.draw(st.sets(st.integers(0, table.num_columns - 1)))
    for place in places:
        values = [plain(value) for value in table.column(place).to_pylist()]
        texts_ = [None if value is None else rfc8785.dumps(value).decode() for value in values]
        table = table.set_column(place, schema.names[place], pa.array(texts_, pa.string()))
    written = {schema.names[place] for place in places}
    assert canonical.rows(table, written).to_pylist() == whole


@given(st.lists(st.dictionaries(st.sampled_from("abc"), texts | st.none()), max_size=5))
def test_members_are_read_back(objects: list[dict[str, str | None]]) -> None:
    written = pa.array([rfc8785.dumps(each).decode() for each in objects], pa.string())
    found = canonical.members(written, ["a", "b"])
    assert found.to_pylist() == [{name: each.get(name) for name in "ab"} for each in objects]


def test_of_what_is_no_object_nothing_is_read() -> None:
    found = canonical.members(pa.array(["", "{", "[1]", '"a"', "null", '{"a":"x"']), ["a"])
    assert found["a"].to_pylist() == [None] * 6


@given(st.lists(floats, min_size=1, max_size=200))
@example([math.ldexp(1.0, power) for power in range(-1074, 1024)])
@example([float(f"1e{power}") for power in range(-323, 309)])
@example(
    [float(f"{digits}e{power}") for power in range(-8, 24) for digits in (1.5, 9.99999999999999)]
)
def test_floats_of_all_magnitudes(numbers: list[float]) -> None:
    table = pa.table({"n": pa.array(numbers, pa.float64())})
    assert canonical.rows(table).to_pylist() == reference(table.to_pylist())


@given(texts)
def test_texts_of_all_planes(text: str) -> None:
    assert canonical.rows(pa.table({"t": [text]})).to_pylist() == reference([{"t": text}])


def test_minus_zero_is_zero() -> None:
    assert canonical.rows(pa.table({"n": [-0.0]})).to_pylist() == ['{"n":0}']


def test_keys_are_ordered_by_their_utf_16_units() -> None:
    # The order of section 3.2.3 of the RFC: a surrogate pair sorts before U+FB33, by code point after it.
    keys = ["\u20ac", "\r", "\ufb33", "1", "😀", "\u0080", "\u00f6"]
    table = pa.table({key: [place] for place, key in enumerate(keys)})
    expected = '{"\\r":1,"1":3,"\u0080":5,"ö":6,"€":0,"😀":4,"\ufb33":2}'
    assert canonical.rows(table).to_pylist() == [expected]


def test_keys_in_structs_are_ordered_too() -> None:
    struct = pa.array([{"\ufb33": 1, "😀": 2, "b": None, "a": [{"z": 1, "y": 2}]}])
    expected = '{"s":{"a":[{"y":2,"z":1}],"b":null,"😀":2,"\ufb33":1}}'
    assert canonical.rows(pa.table({"s": struct})).to_pylist() == [expected]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(pa.array([math.nan]), id="nan"),
        pytest.param(pa.array([1.0, math.inf]), id="infinity"),
        pytest.param(pa.array([-math.inf]), id="minus infinity"),
        pytest.param(pa.array([LARGEST + 1]), id="large"),
        pytest.param(pa.array([-LARGEST - 1]), id="small"),
        pytest.param(pa.array([-(2**63)]), id="smallest"),
        pytest.param(pa.array([2**64 - 1], pa.uint64()), id="unsigned"),
        pytest.param(pa.array([b"raw"]), id="binary"),
        pytest.param(pa.array([1], pa.decimal128(9, 2)), id="decimal"),
        pytest.param(pa.array([1], pa.timestamp("ns")), id="nanoseconds"),
        pytest.param(pa.array([1], pa.duration("s")), id="duration"),
        pytest.param(pa.array([{}], pa.struct([])), id="empty struct"),
    ],
)
def test_what_json_cannot_carry_is_refused(array: pa.Array) -> None:
    for refused in (array, pa.array([array.to_pylist()], pa.list_(array.type))):
        with pytest.raises(InvariantBroken, match="cannot be hashed"):
            canonical.rows(pa.table({"n": refused}))


@pytest.mark.parametrize("names_", [["a", "A"], ["é", "É"], ["a\0b"], [""]])
def test_any_names_will_do(names_: list[str]) -> None:
    table = pa.Table.from_arrays([pa.array([1])] * len(names_), names=names_)
    assert canonical.rows(table).to_pylist() == reference(table.to_pylist())


def test_two_members_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1])] * 2, names=["a", "a"])
    with pytest.raises(InvariantBroken, match="names"):
        canonical.rows(table)


@pytest.mark.parametrize("value", [math.nan, math.inf, LARGEST + 1, b"raw", "\ud800", {1: 2}])
def test_one_value_is_refused_for_the_same_reasons(value: object) -> None:
    for write in (canonical.text, canonical.digest):
        with pytest.raises(InvariantBroken, match="cannot be hashed"):
            write({"n": value})


def test_the_largest_integers_are_exact() -> None:
    table = pa.table({"n": [LARGEST, -LARGEST, 0, None]})
    assert canonical.rows(table).to_pylist() == [
        '{"n":9007199254740991}',
        '{"n":-9007199254740991}',
        '{"n":0}',
        '{"n":null}',
    ]


def test_a_time_is_its_instant_whatever_zone_it_is_kept_in() -> None:
    instant = datetime(2017, 10, 3, 23, 30, tzinfo=timezone(timedelta(hours=-4)))
    # The control character sends the row through the slow way, which must say the same.
    for word in ("plain", "\x01"):
        said = {
            canonical.rows(
                pa.table({"at": pa.array([instant], pa.timestamp(unit, zone)), "word": [word]})
            )[0].as_py()
            for zone in ("UTC", "America/New_York", "Asia/Kolkata")
            for unit in ("s", "ms", "us")
        }
        assert said == {rfc8785.dumps({"at": "2017-10-04T03:30:00.000000Z", "word": word}).decode()}


def test_no_rows_and_no_columns() -> None:
    assert canonical.rows(pa.table({"a": pa.array([], pa.int64())})).type == pa.string()
    assert len(canonical.rows(pa.table({}))) == 0
    assert canonical.sha256(pa.array([], pa.string())).type == pa.string()


@given(st.lists(texts, max_size=5))
def test_sha256_is_of_the_utf_8_bytes(many: list[str]) -> None:
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in many]
    assert canonical.sha256(pa.array(many, pa.string())).to_pylist() == expected


def test_one_value_and_one_row_have_the_same_digest() -> None:
    row = {"sku": "1082185", "units": 3, "mean": 2.5, "days": ["mo", None], "at": None}
    table = pa.Table.from_pylist([{**row, "at": None}]).set_column(
        4, "at", pa.array([None], pa.string())
    )
    assert canonical.digest(row) == canonical.sha256(canonical.rows(table))[0].as_py()


def test_rows_in_chunks_keep_their_order() -> None:
    parts = [pa.table({"n": [f"{place}", "\x01" if place % 2 else "x"]}) for place in range(6)]
    table = pa.concat_tables(parts)
    assert table["n"].num_chunks == 6
    assert canonical.rows(table).to_pylist() == reference(table.to_pylist())
