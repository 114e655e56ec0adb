"""The expression language: what it takes, what it refuses and where, and that it means the same."""

from __future__ import annotations

import functools

import duckdb
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from storekeep import sql
from storekeep.errors import InvariantBroken, Refused
from storekeep.sql import Place, parse

SCHEMA = {
    "units": "BIGINT",
    "price": "BIGINT",
    "share": "DOUBLE",
    "cost": "DECIMAL(18,2)",
    "name": "VARCHAR",
    "active": "BOOLEAN",
    "day": "DATE",
    "until": "DATE",
    "at": "TIMESTAMPTZ",
    "evidence.units": "BIGINT",
    "two words": "BIGINT",
    "parts": "STRUCT(a INTEGER)",
}
HERE = Place("rules.yaml", 7, 11)


def read(text: str, want: str | None = None) -> sql.Expression:
    return parse(text, SCHEMA, place=HERE, want=want)


@functools.cache
def engine() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    # What is read back as written by hand divides by zero as the language does.
    connection.execute("SET ieee_floating_point_ops = false")
    return connection


def run(expression: sql.Expression, **values: object) -> object:
    """The value of an expression for one row, on DuckDB."""
    columns = ", ".join(
        f'CAST(${place} AS {SCHEMA[name]}) AS "{name}"' for place, name in enumerate(values, 1)
    )
    text = f"SELECT {expression.sql()} FROM (SELECT {columns or '1'})"
    row = engine().execute(text, list(values.values())).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("text", "type_", "columns"),
    [
        ("units + 1", "BIGINT", {"units"}),
        ("units / 2", "DOUBLE", {"units"}),
        ("units // 2", "BIGINT", {"units"}),
        ("units * 0.5", "DOUBLE", {"units"}),
        ("evidence.units > 3", "BOOLEAN", {"evidence.units"}),
        ('"two words" = 1 AND active', "BOOLEAN", {"two words", "active"}),
        ("name || '!'", "VARCHAR", {"name"}),
        ("CASE WHEN active THEN units ELSE share END", "DOUBLE", {"active", "units", "share"}),
        ("day + INTERVAL 3 DAY > until", "BOOLEAN", {"day", "until"}),
        ("date_diff('day', day, until)", "BIGINT", {"day", "until"}),
        ("coalesce(share, 0) BETWEEN 0 AND 1", "BOOLEAN", {"share"}),
        ("name IN ('a', 'b') -- a comment", "BOOLEAN", {"name"}),
        ("/* why */ units > 0", "BOOLEAN", {"units"}),
        ("at > TIMESTAMPTZ '2026-01-31 00:00:00Z'", "BOOLEAN", {"at"}),
        ("round(cost, 1) >= 1", "BOOLEAN", {"cost"}),
        ("true", "BOOLEAN", set()),
    ],
)
def test_an_expression_knows_its_type_and_columns(text: str, type_: str, columns: set[str]) -> None:
    expression = read(text)
    assert expression.type == type_
    assert set(expression.columns) == columns
    assert expression.text == text


@pytest.mark.parametrize(
    ("text", "column", "word"),
    [
        ("unts > 1", 11, "did you mean 'units'"),
        ("units > 1 AND nothing_like_it = 2", 25, "unknown column 'nothing_like_it'"),
        ("units > 'x'", 19, "an integer cannot be compared with a text"),
        ("name > 3", 18, "a text cannot be compared with an integer"),
        ("day = '2026-01-31'", 17, "DATE '2026-01-31'"),
        ("day = at", 17, "cast(… AS DATE)"),
        ("units + name", 19, "cannot be computed with"),
        ("active + 1", 11, "cannot be computed with"),
        ("day - until", 17, "date_diff"),
        ("units // 1.5", 20, "integers"),
        ("units AND active", 11, "where a condition"),
        ("NOT units", 15, "where a condition"),
        ("units LIKE 'a%'", 11, "LIKE compares texts"),
        ("name || units", 19, "joins texts"),
        ("units = NULL", 11, "IS NULL"),
        ("units IN (1, NULL)", 11, "NULL in an IN list"),
        ("units IS name", 11, "IS takes"),
        ("units < price < 3", 11, "in parentheses"),
        ("parts = 1", 11, "which expressions cannot use"),
        ("coalesce(units, name)", 27, "cannot be put beside"),
        ("CASE WHEN active THEN 1 ELSE 'x' END", 40, "cannot be put beside"),
        ("CASE WHEN units THEN 1 END", 21, "where a condition"),
        ("hour(day)", 16, "hour(d) wants"),
        ("abs(units, 2)", 23, "cannot be read here"),
        ("left(name)", 20, "cannot be read here"),
        ("trim(both 'x' from name)", 21, "takes 1, not 2"),
        ("coalesce(units)", 11, "at least two"),
        ("date_diff('fortnight', day, until)", 11, "the unit must be"),
        ("date_diff('week', day, until)", 11, "the unit must be"),
        ("units + INTERVAL 1 DAY", 19, "an interval cannot"),
        ("cast(units AS STRUCT(a INT))", 16, "cannot be cast"),
        ("1e30 > share", 11, "larger than"),
        ("99999999999999999999 > units", 11, "larger than any integer"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(text: str, column: int, word: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text)
    assert str(refused.value).startswith(f"rules.yaml:7:{column}: ")
    assert word in str(refused.value)


@pytest.mark.parametrize(
    ("text", "column", "word"),
    [
        ("random() > 0.5", 11, "'random' is not on the list"),
        ("units > now()", 19, "'now' is not on the list"),
        ("day < current_date", 17, "not deterministic"),
        ("uuid() = name", 11, "'uuid' is not on the list"),
        ("nextval('s') > 1", 11, "'nextval' is not on the list"),
        ("getenv('HOME') = name", 11, "'getenv' is not on the list"),
        ("read_csv('/etc/passwd')", 11, "'read_csv' is not on the list"),
        ("read_text('x') = name", 11, "'read_text' is not on the list"),
        ("abbs(units) > 1", 11, "did you mean 'abs'"),
        ("pg_sleep(3)", 11, "'pg_sleep' is not on the list"),
        ("sum(units) > 3", 11, "aggregate"),
        ("count(*) > 3", 11, "aggregate"),
        ("row_number() OVER () = 1", 24, "a window is not allowed"),
        ("units > (SELECT 1)", 20, "a subquery is not allowed"),
        ("EXISTS (SELECT 1)", 19, "a subquery is not allowed"),
        ("units IN (SELECT 1)", 21, "a subquery is not allowed"),
        ("units > 1 UNION SELECT 1", 27, "a subquery is not allowed"),
        ("(FROM secrets)", 11, "a subquery is not allowed"),
        ("(TABLE secrets)", 18, "a subquery is not allowed"),
        ("*", 11, "'*' is not allowed"),
        ("units > 1; DROP TABLE x", 20, "not several statements"),
        ("units = ?", 19, "parameters are not allowed"),
        ("units = $1", 19, "parameters are not allowed"),
        ("units = :x", 19, "parameters are not allowed"),
        ("@units > 1", 11, "parameters are not allowed"),
        ("list_transform(name, x -> x)", 34, "a lambda is not allowed"),
        ("name[1] = 'x'", 15, "lists are not allowed"),
        ("{'a': 1} IS NULL", 11, "structures are not allowed"),
        ("units ^ 2 > 3", 17, "write power"),
        ("name ~ 'x'", 16, "write regexp_matches"),
        ("name COLLATE nocase = 'x'", 11, "not on the list"),
        ("DROP TABLE x", 11, "cannot be read here"),
        ("units AS y", 17, "cannot be read here"),
        ("units >", 17, "cannot be read here"),
        ("units > 'open", 19, "opened and not closed"),
        ("units /* open", 17, "opened and not closed"),
        ("", 11, "empty"),
        ("  -- nothing", 11, "empty"),
    ],
)
def test_what_is_not_a_deterministic_scalar_is_refused(text: str, column: int, word: str) -> None:
    with pytest.raises(Refused) as refused:
        read(text)
    assert str(refused.value).startswith(f"rules.yaml:7:{column}: ")
    assert word in str(refused.value)


def test_a_place_is_found_over_several_lines() -> None:
    with pytest.raises(Refused, match=r"^rules\.yaml:9:5: unknown column 'nowhere'"):
        read("units > 1\n  AND\nNOT nowhere")


@pytest.mark.parametrize(
    "text", ["(" * 40 + "units" + ")" * 40, "NOT " * 900 + "active", "- " * 900 + "units"]
)
def test_an_expression_that_is_too_deep_is_refused_not_a_traceback(text: str) -> None:
    with pytest.raises(Refused, match="deep"):
        read(text)


def test_an_expression_that_is_too_long_is_refused() -> None:
    with pytest.raises(Refused, match="longer than"):
        read("units > 1 " + " " * sql.LONGEST_TEXT)
    with pytest.raises(Refused, match="words"):
        read("units" + " +1" * sql.MOST_TOKENS)


def test_a_hundred_conditions_are_not_too_many() -> None:
    assert read(" AND ".join(["units > 1"] * 300)).type == "BOOLEAN"


@pytest.mark.parametrize(
    ("text", "want", "fits"),
    [
        ("units > 1", "BOOLEAN", True),
        ("units", "BOOLEAN", False),
        ("units", "BIGINT", True),
        ("units", "DOUBLE", True),
        ("share", "BIGINT", False),
        ("name", "VARCHAR", True),
        ("day", "DATE", True),
        ("at", "DATE", False),
        ("NULL", "BOOLEAN", False),
    ],
)
def test_the_wanted_type_is_insisted_on(text: str, want: str, fits: bool) -> None:
    if fits:
        assert read(text, want).text == text
    else:
        with pytest.raises(Refused, match=r"^rules\.yaml:7:11: this is"):
            read(text, want)


def test_a_type_that_no_expression_has_cannot_be_wanted() -> None:
    with pytest.raises(InvariantBroken):
        read("units", "STRUCT(a INTEGER)")


def test_without_a_schema_every_column_is_a_number() -> None:
    assert parse("waste_share > 0.1", None, place=HERE).columns == {"waste_share"}
    with pytest.raises(Refused, match="cannot be compared"):
        parse("waste_share = 'x'", None, place=HERE)


@pytest.mark.parametrize(
    ("text", "values", "result"),
    [
        ("units / price", {"units": 7, "price": 2}, 3.5),
        ("units / price", {"units": 7, "price": 0}, None),
        ("units // price", {"units": -7, "price": 2}, -3),
        ("units // price", {"units": 7, "price": 0}, None),
        ("units % price", {"units": -7, "price": 2}, -1),
        ("cast(share AS BIGINT)", {"share": 2.5}, 3),
        ("cast(share AS BIGINT)", {"share": -2.5}, -3),
        ("power(share, 0.5)", {"share": -1.0}, None),
        ("exp(share)", {"share": 10_000.0}, None),
        ("units * 0.1 + 0.2", {"units": 1}, 0.1 + 0.2),
        ("greatest(units, price)", {"units": None, "price": 3}, 3),
        ("units + price", {"units": None, "price": 3}, None),
        ("NOT (units = price) OR active", {"units": None, "price": 3, "active": True}, True),
        ("isodow(day)", {"day": "2026-02-01"}, 7),
        ("date_diff('month', day, until)", {"day": "2026-01-31", "until": "2026-02-01"}, 1),
        ("split_part(name, '-', 2)", {"name": "a-b-c"}, "b"),
        ("regexp_extract(name, '([0-9]+)', 1)", {"name": "x12y"}, "12"),
        ("try_cast(name AS BIGINT)", {"name": "twelve"}, None),
        ("hour(at)", {"at": "2026-02-01 23:30:00+02"}, 21),
    ],
)
def test_an_expression_means_what_the_documentation_says(
    text: str, values: dict[str, object], result: object
) -> None:
    assert run(read(text), **values) == result


def test_other_engines_get_their_own_words_and_quotes() -> None:
    expression = read("units // 2 > 1 AND evidence.units / price > 0.5")
    left, right = "(`units` DIV 2) > 1", "(`evidence.units` / NULLIF(`price`, 0)) > 0.5e0"
    assert expression.sql("spark") == f"(({left}) AND ({right}))"
    assert "DOUBLE PRECISION" in expression.sql("postgres")


def test_names_and_texts_cannot_break_out_of_their_quotes() -> None:
    hostile = 'a" FROM (SELECT 1) --'
    expression = parse(f"{sql.quoted(hostile)} > 1", {hostile: "BIGINT"}, place=HERE)
    assert expression.columns == {hostile}
    assert expression.type == "BOOLEAN"
    assert run(read("name = 'it''s; DROP TABLE x'"), name="it's; DROP TABLE x") is True


def test_every_listed_function_can_be_called() -> None:
    arguments = {
        "n": "share", "m": "2.0", "t": "name", "s": "'x'", "d": "at", "e": "at", "places": "1",
        "from": "1", "old": "'a'", "new": "'b'", "fill": "' '", "mark": "'-'", "pattern": "'x'",
        "group": "0", "format": "'%Y'", "year": "2026", "month": "1", "day": "1", "unit": "'day'",
        "a": "units", "b": "price", "c": "active", "…": "3",
    }  # fmt: skip
    numbered = {"left", "right", "substring", "lpad", "split_part"}
    for usage in sql.FUNCTIONS:
        name, rest = usage.removesuffix(")").split("(")
        given_ = arguments | ({"n": "2"} if name in numbered else {})
        call = f"{name}({', '.join(given_.get(part, part) for part in rest.split(', '))})"
        read(call.replace("a AS type", "units AS DOUBLE"))


NUMBERS = st.sampled_from(["units", "price", "3", "0", "-2", "share", "0.5", "evidence.units"])
INTEGERS = st.sampled_from(["units", "price", "3", "0", "-2"])


@st.composite
def numbers(draw: st.DrawFn, depth: int = 3) -> str:
    if depth == 0 or draw(st.booleans()):
        return draw(NUMBERS)
    left, right = draw(numbers(depth - 1)), draw(numbers(depth - 1))
    form = draw(
        st.sampled_from(
            [f"{left} + {right}", f"{left} - {right}", f"{left} * {right}", f"{left} / {right}",
             f"({left}) - ({right})", f"-({left})", f"abs({left})", f"least({left}, {right})",
             f"{draw(INTEGERS)} // {draw(INTEGERS)}", f"{draw(INTEGERS)} % {draw(INTEGERS)} * 2",
             f"coalesce({left}, {right})"]
        )
    )  # fmt: skip
    return str(form)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> str:
    left, right = draw(numbers()), draw(numbers())
    if depth == 0 or draw(st.booleans()):
        return str(
            draw(
                st.sampled_from(
                    [f"{left} > {right}", f"{left} <= {right}", f"{left} BETWEEN {right} AND 3",
                     f"{left} NOT IN ({right}, 2)", f"({left}) IS NULL", "active", "name LIKE 'a%'",
                     f"{left} IS DISTINCT FROM {right}", "name || 'x' = 'ax'", "active IS NOT TRUE"]
                )
            )
        )  # fmt: skip
    one, two = draw(conditions(depth - 1)), draw(conditions(depth - 1))
    return str(
        draw(
            st.sampled_from(
                [f"{one} AND {two}", f"{one} OR {two}", f"NOT {one}", f"NOT ({one} OR {two})"]
            )
        )
    )


@given(st.one_of(numbers(), conditions()))
def test_what_is_written_for_the_engine_means_what_was_read(text: str) -> None:
    try:
        expression = read(text)
    except Refused:
        reject()
    rows = """VALUES (1, 2, 0.5, 'a', true, 3), (0, -2, -1.5, 'b', false, 0), (7, 0, 0.0, NULL, NULL, NULL),
              (NULL, 3, 2.0, 'ax', true, -2), (-7, 2, NULL, 'a', false, 5)"""
    table = f'({rows}) t(units, price, share, name, active, "evidence.units")'
    said = text.replace("evidence.units", '"evidence.units"')
    found = engine().execute(f"SELECT ({said}), {expression.sql()} FROM {table}").fetchall()
    assert [row[0] for row in found] == pytest.approx([row[1] for row in found], nan_ok=True)
