"""Reasons in plain words, with the row's own figures in them.

`{order_units}` in a reason becomes the row's value, `{order_value_minor:money}` the amount as a person
reads it. Hides how a reason becomes one SQL expression, so that a million reasons are written at once.
"""

from __future__ import annotations

import difflib
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from storekeep.errors import Refused
from storekeep.retail import WITH_MILLS, WITHOUT_CENTS
from storekeep.sql import Family, Place, family, literal, quoted

UNKNOWN = "unknown"
_MONEY = "money"


DIGITS, SCALE = "#digits", "#scale"
"""Columns of the row's currency: digits of its minor unit, and how many of it make a whole."""


@dataclass(frozen=True)
class Reason:
    """A reason as it was written, the columns in it, and how SQL fills them in.

    `opening` is what stands before the first placeholder; `rest` is the SQL of what follows, part by part.
    """

    text: str
    columns: frozenset[str]
    opening: str
    rest: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the reason says the same of every row."""
        return not self.columns

    def sql(self, before: str = "''") -> str:
        """The SQL of the reason, after what the SQL `before` gives."""
        return f"concat({', '.join([before, literal(self.opening), *self.rest])})"


def read(text: str, schema: Mapping[str, str], place: Place) -> Reason:
    """Read a reason; `{{` and `}}` stand for braces.

    Raises `Refused` with the place of a placeholder that names no column, or cannot be filled.
    """
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise Refused(
            f"{place}: the reason cannot be read: {error}; write {{{{ for a brace"
        ) from None
    opening, rest, columns = "", list[str](), set[str]()
    seen = 0
    for before, name, form, conversion in parts:
        if not columns:
            opening += before
        elif before:
            rest.append(literal(before))
        if name is None:
            continue
        seen = text.index("{" + name, seen)
        where = place.within(text, seen)
        seen += 1
        if conversion or form not in {"", _MONEY}:
            raise Refused(f"{where}: a placeholder is {{column}} or {{column:money}}")
        if name not in schema:
            near = difflib.get_close_matches(name, list(schema), 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else f"the columns are {', '.join(sorted(schema))}"
            )
            raise Refused(f"{where}: the reason names {name!r}, which is no column; {hint}")
        shown = _money(name, schema, where) if form else _figure(name, schema[name], where)
        rest.append(f"coalesce({shown}, {literal(UNKNOWN)})")
        columns |= {name, "currency"} if form else {name}
    return Reason(text, frozenset(columns), opening, tuple(rest))


def currency(names: Iterable[str]) -> Iterator[str]:
    """The SQL of the columns that amounts are written with, if `currency` is among the names."""
    if "currency" not in names:
        return
    # DuckDB makes a join of an IN list as long as these, and a join for one word is dear.
    codes = (" ".join(sorted(those)) for those in (WITHOUT_CENTS, WITH_MILLS))
    whole, fine = (f"contains({literal(each)}, currency)" for each in codes)
    yield f"CASE WHEN {whole} THEN 0 WHEN {fine} THEN 3 ELSE 2 END AS {quoted(DIGITS)}"
    yield f"CASE WHEN {whole} THEN 1 WHEN {fine} THEN 1000 ELSE 100 END AS {quoted(SCALE)}"


def _figure(name: str, kind: str, where: Place) -> str:
    column = quoted(name)
    match family(kind):
        case Family.TEXT:
            return column
        case Family.INTEGER:
            return f"CAST({column} AS VARCHAR)"
        case Family.NUMBER:
            exact = f"CAST(TRY_CAST({column} AS DECIMAL(18, 2)) AS VARCHAR)"
            return f"rtrim(rtrim({exact}, '0'), '.')"
        case Family.BOOLEAN:
            return f"CASE WHEN {column} THEN 'yes' WHEN NOT {column} THEN 'no' END"
        case Family.DATE:
            return f"strftime({column}, '%Y-%m-%d')"
        case Family.TIMESTAMP | Family.INSTANT:
            return f"strftime({column}, '%Y-%m-%d %H:%M')"
        case _:
            raise Refused(f"{where}: column {name!r} of type {kind} cannot be put into words")


def _money(name: str, schema: Mapping[str, str], where: Place) -> str:
    if family(schema[name]) not in {Family.INTEGER, Family.NUMBER}:
        raise Refused(f"{where}: {name!r} is not a number, so it is no amount of money")
    if family(schema.get("currency", "")) is not Family.TEXT:
        raise Refused(f"{where}: money needs a column 'currency', and there is none")
    form = literal("{:,.{}f} {}")
    return f"format({form}, {quoted(name)} / {quoted(SCALE)}, {quoted(DIGITS)}, currency)"
