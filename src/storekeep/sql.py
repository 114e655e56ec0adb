"""The expression language of rulebooks, features and ingestion mappings: one scalar SQL expression.

Hides SQLGlot, and with it the question whether a text that somebody wrote is safe to run. An expression is
read, every node of it is held against lists of what is allowed, its types are worked out, and only then is
SQL written for an engine, from the checked tree and never from the text. What is not deterministic, not
scalar or not on the lists is refused with file, line and column of the word at fault.

The meaning is one on every engine, where the engines themselves differ:

- `/` divides with a fraction, also between integers; `//` and `%` take integers and cut towards zero.
- Dividing by zero is NULL; so is what `power` or `exp` cannot give as a number.
- A literal with a decimal point is a DOUBLE; a fraction cast to an integer is rounded, half away from zero.
- `greatest` and `least` pass over NULL; every other operator and function carries it on.
- Times with a zone are read in UTC: an engine that runs an expression must have its zone set to UTC.

The column types are those of DuckDB, and DuckDB has the last word on the type of a whole expression.
"""

from __future__ import annotations

import difflib
import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

import duckdb
from sqlglot import Token, TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import ParseError, TokenError

from storekeep.errors import InvariantBroken, Refused

LONGEST_TEXT = 10_000
MOST_TOKENS = 2_000
DEEPEST_PARENTHESES = 20
DEEPEST_TREE = 64
LARGEST_INTEGER = 2**63 - 1
LARGEST_NUMBER = 1e15


@dataclass(frozen=True)
class Place:
    """Where in a file something stands; line and column are counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def within(self, text: str, offset: int) -> Place:
        """The place of the character at `offset` of a text that begins here."""
        before = text[:offset]
        if "\n" not in before:
            return Place(self.file, self.line, self.column + offset)
        return Place(self.file, self.line + before.count("\n"), offset - before.rindex("\n"))


class Family(StrEnum):
    """The types among which values can be compared and computed."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    DATE = "date"
    TIMESTAMP = "timestamp"
    INSTANT = "timestamp with time zone"
    INTERVAL = "interval"
    NULL = "null"


_INTEGERS = "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT"
_TYPES: Mapping[str, Family] = {
    **dict.fromkeys(_INTEGERS.split(), Family.INTEGER),
    "BOOLEAN": Family.BOOLEAN,
    "FLOAT": Family.NUMBER,
    "DOUBLE": Family.NUMBER,
    "VARCHAR": Family.TEXT,
    "DATE": Family.DATE,
    "TIMESTAMP": Family.TIMESTAMP,
    "TIMESTAMPTZ": Family.INSTANT,
    "TIMESTAMP WITH TIME ZONE": Family.INSTANT,
}
_CAST_TYPES: Mapping[exp.DType, Family] = {
    exp.DType.BOOLEAN: Family.BOOLEAN,
    exp.DType.INT: Family.INTEGER,
    exp.DType.BIGINT: Family.INTEGER,
    exp.DType.DOUBLE: Family.NUMBER,
    exp.DType.TEXT: Family.TEXT,
    exp.DType.VARCHAR: Family.TEXT,
    exp.DType.DATE: Family.DATE,
    exp.DType.TIMESTAMP: Family.TIMESTAMP,
    exp.DType.TIMESTAMPTZ: Family.INSTANT,
}
_NUMERIC = frozenset({Family.INTEGER, Family.NUMBER})
_TIMES = frozenset({Family.DATE, Family.TIMESTAMP, Family.INSTANT})
_KINDS: Sequence[frozenset[Family]] = (
    _NUMERIC,
    frozenset({Family.DATE, Family.TIMESTAMP}),
    frozenset({Family.INSTANT}),
    frozenset({Family.TEXT}),
    frozenset({Family.BOOLEAN}),
)

_N, _I, _T = _NUMERIC, frozenset({Family.INTEGER}), frozenset({Family.TEXT})
_DATES = frozenset({Family.DATE, Family.TIMESTAMP})
_CLOCKS = frozenset({Family.TIMESTAMP, Family.INSTANT})


@dataclass(frozen=True)
class _Signature:
    """How a listed function is written, what it takes by place, and what it gives (None: as its first)."""

    usage: str
    meaning: str
    takes: tuple[frozenset[Family], ...]
    gives: Family | None
    optional: int = 0


_FUNCTIONS: Mapping[type[exp.Expr], _Signature] = {
    exp.Abs: _Signature("abs(n)", "without its sign", (_N,), None),
    exp.Sign: _Signature("sign(n)", "-1, 0 or 1", (_N,), Family.INTEGER),
    exp.Floor: _Signature("floor(n)", "down to a whole number", (_N,), None),
    exp.Ceil: _Signature("ceil(n)", "up to a whole number", (_N,), None),
    exp.Round: _Signature(
        "round(n, places)", "to so many places, half away from zero", (_N, _I), None, 1
    ),
    exp.Sqrt: _Signature("sqrt(n)", "square root", (_N,), Family.NUMBER),
    exp.Ln: _Signature("ln(n)", "natural logarithm", (_N,), Family.NUMBER),
    exp.Exp: _Signature("exp(n)", "e to the power of n", (_N,), Family.NUMBER),
    exp.Pow: _Signature("power(n, m)", "n to the power of m", (_N, _N), Family.NUMBER),
    exp.Lower: _Signature("lower(t)", "in small letters", (_T,), Family.TEXT),
    exp.Upper: _Signature("upper(t)", "in capitals", (_T,), Family.TEXT),
    exp.Trim: _Signature("trim(t)", "without spaces at both ends", (_T,), Family.TEXT),
    exp.Length: _Signature("length(t)", "number of characters", (_T,), Family.INTEGER),
    exp.Left: _Signature("left(t, n)", "the first n characters", (_T, _I), Family.TEXT),
    exp.Right: _Signature("right(t, n)", "the last n characters", (_T, _I), Family.TEXT),
    exp.Substring: _Signature(
        "substring(t, from, n)",
        "n characters from the one at `from` on",
        (_T, _I, _I),
        Family.TEXT,
        1,
    ),
    exp.Replace: _Signature(
        "replace(t, old, new)", "each `old` replaced by `new`", (_T, _T, _T), Family.TEXT
    ),
    exp.Pad: _Signature(
        "lpad(t, n, fill)", "filled up to n characters; also rpad", (_T, _I, _T), Family.TEXT
    ),
    exp.SplitPart: _Signature(
        "split_part(t, mark, n)", "the n-th part between marks", (_T, _T, _I), Family.TEXT
    ),
    exp.StartsWith: _Signature("starts_with(t, s)", "begins with s", (_T, _T), Family.BOOLEAN),
    exp.EndsWith: _Signature("ends_with(t, s)", "ends with s", (_T, _T), Family.BOOLEAN),
    exp.Contains: _Signature("contains(t, s)", "s occurs in it", (_T, _T), Family.BOOLEAN),
    exp.RegexpLike: _Signature(
        "regexp_matches(t, pattern)", "the pattern occurs in it", (_T, _T), Family.BOOLEAN
    ),
    exp.RegexpExtract: _Signature(
        "regexp_extract(t, pattern, group)", "what the pattern found", (_T, _T, _I), Family.TEXT, 1
    ),
    exp.StrToTime: _Signature(
        "strptime(t, format)", "a text read as a time", (_T, _T), Family.TIMESTAMP
    ),
    exp.DateFromParts: _Signature(
        "make_date(year, month, day)", "a date", (_I, _I, _I), Family.DATE
    ),
    exp.Year: _Signature("year(d)", "year", (_TIMES,), Family.INTEGER),
    exp.Quarter: _Signature("quarter(d)", "quarter, 1 to 4", (_TIMES,), Family.INTEGER),
    exp.Month: _Signature("month(d)", "month, 1 to 12", (_TIMES,), Family.INTEGER),
    exp.Day: _Signature("day(d)", "day of the month", (_TIMES,), Family.INTEGER),
    exp.DayOfWeekIso: _Signature("isodow(d)", "weekday, Monday is 1", (_TIMES,), Family.INTEGER),
    exp.Hour: _Signature("hour(d)", "hour, 0 to 23", (_CLOCKS,), Family.INTEGER),
    exp.Minute: _Signature("minute(d)", "minute, 0 to 59", (_CLOCKS,), Family.INTEGER),
}
"""The functions whose arguments are checked by place alone."""

FUNCTIONS: Mapping[str, str] = {
    **{one.usage: one.meaning for one in _FUNCTIONS.values()},
    "coalesce(a, b, …)": "the first that is not NULL",
    "nullif(a, b)": "NULL where both are equal, else a",
    "greatest(a, b, …)": "the largest, passing over NULL",
    "least(a, b, …)": "the smallest, passing over NULL",
    "if(c, a, b)": "a where c is true, else b",
    "date_diff(unit, d, e)": "boundaries of the unit crossed from d to e: 'minute' to 'year', no 'week'",
    "date_trunc(unit, d)": "the beginning of the unit that d lies in",
    "cast(a AS type)": "as another type; also a::type",
    "try_cast(a AS type)": "the same, NULL where it cannot be",
}
"""Every function an expression may call, as it is written, and what it gives."""

_UNITS = frozenset({"MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"})
_STEPS = _UNITS | {"MINUTES", "HOURS", "DAYS", "WEEKS", "MONTHS", "YEARS"}
_ONE = "an expression is one scalar SQL expression over the columns of its row"
_PLAIN = re.compile(r"[^\W\d]\w*|[(),.+\-*/%=<>]|//|\|\||==|!=|<>|<=|>=|::")
_SINGLE = "an expression takes and gives single values"
_REFUSED_SIGNS: Mapping[str, str] = {
    ";": f"';' is not allowed: {_ONE}, not several statements",
    "?": "parameters are not allowed: write the value",
    "$": "parameters are not allowed: write the value",
    "@": "parameters are not allowed: write the value",
    ":": "parameters are not allowed: write the value",
    "->": "a lambda is not allowed",
    "^": "'^' is not allowed: write power(a, b)",
    "**": "'**' is not allowed: write power(a, b)",
    "[": f"lists are not allowed: {_SINGLE}",
    "{": f"structures are not allowed: {_SINGLE}",
    "~": "'~' is not allowed: write regexp_matches(text, pattern)",
}
_REFUSED_WORDS: Mapping[TokenType, str] = {
    TokenType.SELECT: f"a subquery is not allowed: {_ONE}",
    TokenType.OVER: f"a window is not allowed: {_ONE}",
    TokenType.CURRENT_DATE: "current_date is not deterministic; use a column of the row",
    TokenType.CURRENT_TIME: "current_time is not deterministic; use a column of the row",
    TokenType.CURRENT_TIMESTAMP: "current_timestamp is not deterministic; use a column of the row",
}
_VALUES = frozenset({TokenType.STRING, TokenType.NUMBER, TokenType.IDENTIFIER})
_WORDS: Mapping[type[exp.Expr], tuple[TokenType, ...]] = {
    exp.Boolean: (TokenType.TRUE, TokenType.FALSE),
    exp.Null: (TokenType.NULL,),
    exp.Interval: (TokenType.INTERVAL,),
}
_CONDITIONS = (
    exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.NullSafeEQ, exp.NullSafeNEQ,
    exp.Is, exp.In, exp.Between, exp.Like, exp.ILike, exp.Not,
)  # fmt: skip
_INFIX = frozenset({
    *_CONDITIONS, exp.And, exp.Or, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod,
    exp.DPipe,
})  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """A checked expression: its text as written, the columns it reads, its type in DuckDB."""

    text: str
    columns: frozenset[str]
    type: str
    tree: exp.Expr = field(repr=False, compare=False)

    def sql(self, dialect: str = "duckdb") -> str:
        """The expression in the SQL of an engine, every identifier quoted, in parentheses of its own."""
        return f"({self.tree.sql(dialect=dialect, comments=False)})"


def parse(
    text: str, schema: Mapping[str, str] | None, *, place: Place, want: str | None = None
) -> Expression:
    """Read an expression that a person wrote over the columns of one row.

    `schema` gives each column's type as DuckDB names it; a name with a dot in it may be written
    unquoted. Without a schema (None) every column is taken for a DOUBLE. `place` is where the text
    begins; `want` is the DuckDB type it must fit. Raises `Refused` with the place of the word at fault.
    """
    reader = _Reader(text, schema, place)
    try:
        tree = reader.tree()
        check = _Check(reader)
        found = check.family(tree)
        if want is not None:
            check.fits(found, want)
        written = _rewritten(tree)
        kind = _type(check.columns, written, reader)
        return Expression(text, frozenset(check.columns), kind, written)
    except RecursionError:
        reader.refuse(0, "the expression is nested too deeply")


def same(one: Expression, other: Expression) -> bool:
    """Whether two expressions mean the same, whatever their layout, parentheses and order of AND and OR."""
    return bool(_bare(one.tree) == _bare(other.tree))


def _bare(node: exp.Expr) -> exp.Expr:
    """The tree without parentheses, which it does not need, and with what is joined in one order."""
    node = node.unnest().copy()
    if isinstance(node, exp.Connector):
        kind, parts = type(node), list[exp.Expr]()
        for part in map(_bare, node.flatten()):
            parts += part.flatten() if isinstance(part, kind) else [part]
        parts.sort(key=repr)
        return functools.reduce(lambda left, right: kind(this=left, expression=right), parts)
    for name, value in list(node.args.items()):
        if isinstance(value, exp.Expr):
            node.set(name, _bare(value))
        elif isinstance(value, list):
            node.set(name, [_bare(part) if isinstance(part, exp.Expr) else part for part in value])
    return node


def quoted(name: str) -> str:
    """A column's name as every SQL engine takes it that follows the standard.

    >>> quoted("evidence.on_hand_units")
    '"evidence.on_hand_units"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a SQL literal, whatever is in it.

    >>> literal("baker's")
    "'baker''s'"
    """
    return "'" + text.replace("'", "''") + "'"


def family(type_: str) -> Family | None:
    """What a DuckDB type can be computed with; None for a type that expressions cannot use."""
    if re.fullmatch(r"DECIMAL\(\d+,\s*\d+\)", type_.upper()):
        return Family.NUMBER
    return _TYPES.get(type_.upper())


class _Reader:
    """The text, its tokens, and how a place in it is found."""

    def __init__(self, text: str, schema: Mapping[str, str] | None, place: Place) -> None:
        self.text = text
        self.schema = schema
        self.place = place
        self.tokens = self._tokens()

    def refuse(self, offset: int, what: str) -> NoReturn:
        raise Refused(f"{self.place.within(self.text, offset)}: {what}")

    def tree(self) -> exp.Expr:
        try:
            trees = DuckDB().parser().parse_into([exp.Condition], self.tokens, self.text)
        except ParseError as error:
            self._broken(error)
        if len(trees) != 1 or trees[0] is None:
            self.refuse(0, f"nothing to read: {_ONE}")
        return trees[0]

    def of(self, node: exp.Expr) -> int:
        """Offset of the first word of a node that the parser kept a position of."""
        starts = [one.meta["start"] for one in node.walk() if "start" in one.meta]
        if starts:
            return int(min(starts))
        for token in self.tokens:
            if token.token_type in _WORDS.get(type(node), ()):
                return token.start
        return self.of(node.parent) if node.parent else 0

    def _tokens(self) -> list[Token]:
        if len(self.text) > LONGEST_TEXT:
            self.refuse(0, f"the expression is longer than {LONGEST_TEXT} characters")
        try:
            tokens = DuckDB().tokenize(self.text)
        except TokenError:
            self.refuse(
                _unclosed(self.text), "a quotation mark or comment is opened and not closed"
            )
        if not tokens:
            self.refuse(0, f"the expression is empty: {_ONE}")
        if len(tokens) > MOST_TOKENS:
            self.refuse(0, f"the expression has more than {MOST_TOKENS} words")
        depth = 0
        for token in tokens:
            depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
            if depth > DEEPEST_PARENTHESES:
                self.refuse(token.start, f"parentheses nest deeper than {DEEPEST_PARENTHESES}")
            self._check_token(token)
        return tokens

    def _check_token(self, token: Token) -> None:
        if token.token_type in _VALUES:
            return
        if token.token_type in _REFUSED_WORDS:
            self.refuse(token.start, _REFUSED_WORDS[token.token_type])
        if not _PLAIN.fullmatch(token.text):
            what = _REFUSED_SIGNS.get(token.text, f"{token.text!r} is not allowed: {_ONE}")
            self.refuse(token.start, what)

    def _broken(self, error: ParseError) -> NoReturn:
        first = error.errors[0]
        for token in self.tokens:
            if (token.line, token.col) == (first.get("line"), first.get("col")):
                what = str(first.get("description") or "it cannot be read").split(" for <class")[0]
                self.refuse(token.start, f"{token.text!r} cannot be read here ({what}); {_ONE}")
        self.refuse(0, f"the expression cannot be read; {_ONE}")


class _Check:
    """Works out the family of each node from the leaves up, and refuses what does not belong."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.columns: dict[str, str] = {}
        self.depth = 0
        self.kinds: Mapping[type[exp.Expr], Callable[..., Family]] = {
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.Boolean: lambda _: Family.BOOLEAN,
            exp.Null: lambda _: Family.NULL,
            exp.Paren: lambda node: self.family(node.this),
            exp.Neg: lambda node: self._number(node.this),
            exp.Not: lambda node: self._boolean(node.this),
            exp.Is: self._is,
            exp.In: self._in,
            exp.Between: self._between,
            exp.DPipe: self._join,
            exp.Case: self._case,
            exp.If: self._case,
            exp.Interval: self._interval,
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            exp.DateDiff: self._date_diff,
            exp.TimestampTrunc: self._date_trunc,
            exp.DateTrunc: self._date_trunc,
            **dict.fromkeys((exp.And, exp.Or), self._connect),
            **dict.fromkeys((exp.Like, exp.ILike), self._like),
            **dict.fromkeys((exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE), self._compare),
            **dict.fromkeys((exp.NullSafeEQ, exp.NullSafeNEQ), self._compare),
            **dict.fromkeys(
                (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.IntDiv, exp.Mod), self._compute
            ),
            **dict.fromkeys((exp.Coalesce, exp.Greatest, exp.Least, exp.Nullif), self._choose),
        }

    def family(self, node: exp.Expr) -> Family:
        self.depth += 1
        if self.depth > DEEPEST_TREE:
            self.refuse(node, f"the expression is nested deeper than {DEEPEST_TREE}")
        check = self.kinds.get(type(node))
        if check is not None:
            found = check(node)
        elif type(node) in _FUNCTIONS:
            found = self._function(node, _FUNCTIONS[type(node)])
        else:
            self._unlisted(node)
        node.meta["family"] = found
        self.depth -= 1
        return found

    def refuse(self, node: exp.Expr, what: str) -> NoReturn:
        self.reader.refuse(self.reader.of(node), what)

    def fits(self, found: Family, want: str) -> None:
        wanted = family(want)
        if wanted is None:
            raise InvariantBroken(f"no expression can be of type {want}")
        if found is not wanted and not (wanted is Family.NUMBER and found is Family.INTEGER):
            hint = "; round it: cast(ceil(…) AS BIGINT)" if {found, wanted} == _NUMERIC else ""
            self.reader.refuse(0, f"this is {_a(found)}, where {_a(wanted)} is wanted{hint}")

    def _column(self, node: exp.Column) -> Family:
        if isinstance(node.this, exp.Star):
            self.refuse(node, f"'*' is not allowed: {_ONE}")
        name = _name(node)
        schema = self.reader.schema
        type_ = "DOUBLE" if schema is None else schema.get(name)
        if type_ is None:
            self.refuse(node, f"unknown column {name!r}; {_suggest(name, schema or {})}")
        found = family(type_)
        if found is None:
            self.refuse(node, f"column {name!r} is of type {type_}, which expressions cannot use")
        self.columns[name] = type_
        return found

    def _literal(self, node: exp.Literal) -> Family:
        if node.is_string:
            return Family.TEXT
        if re.fullmatch(r"\d+", node.name):
            if int(node.name) > LARGEST_INTEGER:
                self.refuse(node, f"{node.name} is larger than any integer column can hold")
            return Family.INTEGER
        if float(node.name) > LARGEST_NUMBER:
            self.refuse(node, f"{node.name} is larger than {LARGEST_NUMBER:.0e}")
        return Family.NUMBER

    def _number(self, node: exp.Expr) -> Family:
        found = self.family(node)
        if found not in _NUMERIC:
            self.refuse(node, f"{_a(found)} cannot be computed with: a number is wanted")
        return found

    def _boolean(self, node: exp.Expr) -> Family:
        found = self.family(node)
        if found not in {Family.BOOLEAN, Family.NULL}:
            self.refuse(node, f"this is {_a(found)}, where a condition (true or false) is wanted")
        return Family.BOOLEAN

    def _connect(self, node: exp.Connector) -> Family:
        for side in node.flatten():
            self._boolean(side)
        return Family.BOOLEAN

    def _bare(self, node: exp.Expr) -> None:
        """Engines disagree on what binds first in `a = b = c`, so parentheses must say it."""
        if isinstance(node, (*_CONDITIONS, exp.Connector)):
            self.refuse(node, "two conditions follow one another: put one of them in parentheses")

    def _same(self, nodes: Iterable[exp.Expr], doing: str) -> Family:
        """The family that all nodes share, NULL apart."""
        first: tuple[exp.Expr, Family] | None = None
        for node in nodes:
            found = self.family(node)
            if found is Family.NULL:
                continue
            if found is Family.INTERVAL:
                self.refuse(node, "an interval can only be added to a date or time")
            if first is None:
                first = node, found
            elif not any({first[1], found} <= kind for kind in _KINDS):
                what = f"{_a(first[1])} cannot be {doing} {_a(found)}"
                hint = {
                    frozenset({Family.DATE, Family.TEXT}): "; write DATE '2026-01-31'",
                    frozenset({Family.DATE, Family.INSTANT}): "; write cast(… AS DATE)",
                }.get(frozenset({first[1], found}), "")
                self.refuse(node, what + hint)
            elif found is not first[1]:
                wider = Family.NUMBER if found in _NUMERIC else Family.TIMESTAMP
                first = node, wider
        return first[1] if first else Family.NULL

    def _compare(self, node: exp.Binary) -> Family:
        sides = (node.left, node.right)
        for side in sides:
            self._bare(side)
            if isinstance(side, exp.Null) and not isinstance(
                node, (exp.NullSafeEQ, exp.NullSafeNEQ)
            ):
                self.refuse(node, "a comparison with NULL is never true; write IS NULL")
        self._same(sides, "compared with")
        return Family.BOOLEAN

    def _is(self, node: exp.Is) -> Family:
        self._bare(node.this)
        if isinstance(node.expression, exp.Boolean):
            return self._boolean(node.this)
        if not isinstance(node.expression, exp.Null):
            self.refuse(node, "IS takes NULL, TRUE or FALSE")
        self.family(node.this)
        return Family.BOOLEAN

    def _in(self, node: exp.In) -> Family:
        if not node.expressions or node.args.get("query") or node.args.get("field"):
            self.refuse(node, "IN takes a list in parentheses: IN (1, 2, 3)")
        self._bare(node.this)
        for one in node.expressions:
            if isinstance(one, exp.Null):
                self.refuse(node, "NULL in an IN list makes it never false; leave it out")
        self._same([node.this, *node.expressions], "looked up beside")
        return Family.BOOLEAN

    def _between(self, node: exp.Between) -> Family:
        if node.args.get("symmetric"):
            self.refuse(node, "BETWEEN SYMMETRIC is not allowed: put the lower bound first")
        sides = [node.this, node.args["low"], node.args["high"]]
        for side in sides:
            self._bare(side)
        self._same(sides, "compared with")
        return Family.BOOLEAN

    def _like(self, node: exp.Binary) -> Family:
        for side in (node.left, node.right):
            self._bare(side)
            found = self.family(side)
            if found is not Family.TEXT:
                self.refuse(side, f"LIKE compares texts; this is {_a(found)}")
        return Family.BOOLEAN

    def _join(self, node: exp.DPipe) -> Family:
        for side in (node.left, node.right):
            found = self.family(side)
            if found is not Family.TEXT:
                self.refuse(side, f"|| joins texts; this is {_a(found)}: write cast(… AS VARCHAR)")
        return Family.TEXT

    def _compute(self, node: exp.Binary) -> Family:
        left, right = self.family(node.left), self.family(node.right)
        if isinstance(node, (exp.Add, exp.Sub)) and left in _TIMES:
            if right is not Family.INTERVAL:
                self.refuse(
                    node.right, "to a date or time only an INTERVAL is added; for days between two "
                    "dates write date_diff('day', a, b)",
                )  # fmt: skip
            return Family.INSTANT if left is Family.INSTANT else Family.TIMESTAMP
        for side, found in ((node.left, left), (node.right, right)):
            if found not in _NUMERIC:
                self.refuse(side, f"{_a(found)} cannot be computed with: a number is wanted")
            if isinstance(node, (exp.IntDiv, exp.Mod)) and found is not Family.INTEGER:
                self.refuse(side, "// and % take integers; this is a number with a fraction")
        if isinstance(node, exp.Div) or Family.NUMBER in {left, right}:
            return Family.NUMBER
        return Family.INTEGER

    def _choose(self, node: exp.Func) -> Family:
        choices = list(_arguments(node))
        if len(choices) < 2:
            self.refuse(node, f"{node.sql_name().lower()} takes at least two values")
        found = self._same(choices, "put beside")
        return self.family(node.this) if isinstance(node, exp.Nullif) else found

    def _case(self, node: exp.Case | exp.If) -> Family:
        branches = node.args["ifs"] if isinstance(node, exp.Case) else [node]
        subject = node.this if isinstance(node, exp.Case) else None
        default = node.args.get("default" if isinstance(node, exp.Case) else "false")
        if subject is not None:
            self._same([subject, *(branch.this for branch in branches)], "compared with")
        else:
            for branch in branches:
                self._boolean(branch.this)
        results = [branch.args["true"] for branch in branches]
        return self._same([*results, default] if default else results, "put beside")

    def _interval(self, node: exp.Interval) -> Family:
        unit = node.args.get("unit")
        plain = isinstance(node.this, exp.Literal) and re.fullmatch(r"\d{1,6}", node.this.name)
        if not plain or not isinstance(unit, exp.Var) or unit.name.upper() not in _STEPS:
            self.refuse(node, "an interval is a number and a unit: INTERVAL 3 DAY")
        if not isinstance(node.parent, (exp.Add, exp.Sub)) or node.parent.right is not node:
            self.refuse(node, "an interval can only be added to a date or time")
        return Family.INTERVAL

    def _cast(self, node: exp.Cast) -> Family:
        target = node.to
        if target.expressions or target.this not in _CAST_TYPES or node.args.get("format"):
            self.refuse(
                node,
                f"a value cannot be cast to {target.sql('duckdb')}; allowed are BOOLEAN, INTEGER, "
                "BIGINT, DOUBLE, VARCHAR, DATE, TIMESTAMP, TIMESTAMPTZ",
            )
        self.family(node.this)
        return _CAST_TYPES[target.this]

    def _unit(self, node: exp.Expr, allowed: frozenset[str]) -> None:
        unit = node.args.get("unit")
        if not isinstance(unit, exp.Var) or unit.name.upper() not in allowed:
            self.refuse(node, f"the unit must be one of {', '.join(sorted(allowed)).lower()}")

    def _date_diff(self, node: exp.DateDiff) -> Family:
        # Engines do not agree on when a week is over between two dates.
        self._unit(node, _UNITS - {"WEEK"})
        self._same([node.expression, node.this], "subtracted from")
        for side in (node.this, node.expression):
            if side.meta["family"] not in _TIMES:
                self.refuse(side, "date_diff takes two dates or times")
        return Family.INTEGER

    def _date_trunc(self, node: exp.Expr) -> Family:
        self._unit(node, _UNITS)
        found = self.family(node.this)
        if found not in _TIMES:
            self.refuse(node.this, f"date_trunc takes a date or time; this is {_a(found)}")
        return Family.INSTANT if found is Family.INSTANT else Family.TIMESTAMP

    def _function(self, node: exp.Expr, signature: _Signature) -> Family:
        arguments = list(_arguments(node))
        most, least = len(signature.takes), len(signature.takes) - signature.optional
        if not least <= len(arguments) <= most:
            count = str(most) if least == most else f"{least} or {most}"
            self.refuse(node, f"{signature.usage} takes {count}, not {len(arguments)}")
        found = [self.family(one) for one in arguments]
        for argument, family_, takes in zip(arguments, found, signature.takes, strict=False):
            if family_ not in takes and family_ is not Family.NULL:
                wanted = " or ".join(sorted(_a(one) for one in takes))
                self.refuse(
                    argument, f"{signature.usage} wants {wanted} here; this is {_a(family_)}"
                )
        return found[0] if signature.gives is None else signature.gives

    def _unlisted(self, node: exp.Expr) -> NoReturn:
        if isinstance(node, (exp.Subquery, exp.Query, exp.Exists)):
            self.refuse(node, f"a subquery is not allowed: {_ONE}")
        if isinstance(node, exp.Window):
            self.refuse(node, f"a window is not allowed: {_ONE}")
        if isinstance(node, exp.AggFunc):
            self.refuse(node, f"{node.sql_name().lower()} is an aggregate over rows; {_ONE}")
        if isinstance(node, exp.Star):
            self.refuse(node, f"'*' is not allowed: {_ONE}")
        if isinstance(node, exp.Func):
            found = re.match(r"\w+", self.reader.text[self.reader.of(node) :])
            name = found.group().lower() if found else node.sql_name().lower()
            known = sorted({usage.split("(")[0] for usage in FUNCTIONS})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            self.refuse(
                node,
                f"function {name!r} is not on the list of deterministic functions{hint} "
                f"(allowed: {', '.join(known)})",
            )
        self.refuse(node, f"{node.sql('duckdb')!r} is not allowed: {_ONE}")


def _arguments(node: exp.Expr) -> Iterator[exp.Expr]:
    """What a function is called with, in order."""
    for one in node.iter_expressions():
        if not isinstance(one, exp.Var):
            yield one


def _a(found: Family) -> str:
    if found is Family.NULL:
        return "NULL"
    return f"{'an' if found.value[0] in 'aeiou' else 'a'} {found.value}"


def _suggest(name: str, schema: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(name, list(schema), 1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"the columns are {', '.join(sorted(schema)) or 'none'}"


def _unclosed(text: str) -> int:
    """Offset of the quotation mark or comment that nothing closes; 0 where it cannot be told."""
    for found in re.finditer(
        r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|['\"]|/\*", text, re.DOTALL
    ):
        if found.group() in {"'", '"', "/*"}:
            return found.start()
    return 0


def _rewritten(tree: exp.Expr) -> exp.Expr:
    """The tree in which nothing is left to an engine's own ideas: names, precedence, division by zero."""
    tree = tree.copy()
    for node in reversed(list(tree.dfs())):
        new = _meaning(node)
        outside = type(node.parent)
        if type(node) in _INFIX and outside in _INFIX and outside is not type(node):
            new = exp.Paren(this=new.copy())
        if new is node:
            continue
        new.meta["family"] = node.meta.get("family")
        if node is tree:
            return new
        node.replace(new)
    return tree


def _meaning(node: exp.Expr) -> exp.Expr:
    """The node as it must be written so that it means the same on every engine."""
    if isinstance(node, exp.Column):
        return exp.column(_name(node), quoted=True)
    if isinstance(node, exp.Literal) and not node.is_string and "." in node.name:
        return node if "e" in node.name.lower() else exp.Literal.number(f"{node.name}e0")
    if isinstance(node, (exp.Div, exp.IntDiv, exp.Mod)):
        return _divided(node)
    if isinstance(node, (exp.Pow, exp.Exp)):
        bounds = {"low": exp.Literal.number("-1e300"), "high": exp.Literal.number("1e300")}
        inside = exp.Between(this=node.copy(), **bounds)
        return exp.Paren(this=exp.Case(ifs=[exp.If(this=inside, true=node.copy())]))
    if isinstance(node, exp.Cast) and _cuts(node):
        node.set("this", exp.Round(this=node.this.copy()))
    return node


def _cuts(node: exp.Cast) -> bool:
    return (
        _CAST_TYPES[node.to.this] is Family.INTEGER
        and node.this.meta.get("family") is Family.NUMBER
    )


def _divided(node: exp.Binary) -> exp.Expr:
    divisor = node.right
    if not (isinstance(divisor, exp.Literal) and float(divisor.name) != 0):
        node.set("expression", exp.Nullif(this=divisor.copy(), expression=exp.Literal.number(0)))
    return node


def _name(node: exp.Column) -> str:
    return ".".join(part.name for part in node.parts)


@functools.cache
def _binder() -> tuple[duckdb.DuckDBPyConnection, threading.Lock]:
    """An empty database that tells types; nothing is ever run in it."""
    connection = duckdb.connect(config={"threads": 1, "enable_external_access": False})
    return connection, threading.Lock()


def _type(columns: Mapping[str, str], tree: exp.Expr, reader: _Reader) -> str:
    fields = [f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in columns.items()]
    source = f"SELECT {', '.join(fields) or '1'}"
    connection, lock = _binder()
    with lock:
        try:
            described = connection.execute(f"DESCRIBE SELECT {tree.sql('duckdb')} FROM ({source})")
            return str(described.fetchall()[0][1])
        except duckdb.Error as error:
            reader.refuse(0, f"DuckDB cannot run it: {str(error).splitlines()[0]}")
