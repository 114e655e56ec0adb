"""Reasons in plain words, with the row's own figures in them.

`{order_units}` in a reason becomes the row's value, `{order_value_minor:money}` the amount as a person
reads it. Hides how figures are put into words: column by column, so that many reasons are written at once.
"""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.errors import Refused
from storekeep.retail import WITH_MILLS, WITHOUT_CENTS
from storekeep.sql import Family, Place, family

UNKNOWN = "unknown"
LARGEST_FIGURE = 1e15
_MONEY = "money"
_CURRENCY = "currency"


@dataclass(frozen=True)
class Figure:
    """A column whose value stands in a reason, as a value of its kind or as money."""

    name: str
    kind: Family | None
    money: bool

    def told(self, columns: Mapping[str, pa.Array]) -> pa.StringArray:
        """The value of each row in words."""
        values = columns[self.name]
        words = _amount(values, columns[_CURRENCY]) if self.money else _words(values, self.kind)
        return pc.fill_null(words, UNKNOWN)


@dataclass(frozen=True)
class Reason:
    """A reason as it was written, and the columns in it.

    `opening` is what stands before the first placeholder; `rest` is what follows, part by part.
    """

    text: str
    columns: frozenset[str]
    opening: str
    rest: tuple[str | Figure, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether the reason says the same of every row."""
        return not self.columns

    def filled(self, openings: pa.StringArray, columns: Mapping[str, pa.Array]) -> pa.StringArray:
        """The reason for each row, after an opening of its own."""
        parts = (
            pa.scalar(part) if isinstance(part, str) else part.told(columns) for part in self.rest
        )
        return pc.binary_join_element_wise(openings, *parts, pa.scalar(""))


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
    opening, rest, columns = "", list[str | Figure](), set[str]()
    seen = 0
    for before, name, form, conversion in parts:
        if not columns:
            opening += before
        elif before:
            rest.append(before)
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
        read_as = _money if form else _figure
        rest.append(read_as(name, schema, where))
        columns |= {name, _CURRENCY} if form else {name}
    return Reason(text, frozenset(columns), opening, tuple(rest))


def _figure(name: str, schema: Mapping[str, str], where: Place) -> Figure:
    kind = family(schema[name])
    if kind not in _SAID:
        raise Refused(f"{where}: column {name!r} of type {schema[name]} cannot be put into words")
    return Figure(name, kind, money=False)


def _money(name: str, schema: Mapping[str, str], where: Place) -> Figure:
    kind = family(schema[name])
    if kind not in {Family.INTEGER, Family.NUMBER}:
        raise Refused(f"{where}: {name!r} is not a number, so it is no amount of money")
    if family(schema.get(_CURRENCY, "")) is not Family.TEXT:
        raise Refused(f"{where}: money needs a column 'currency', and there is none")
    return Figure(name, kind, money=True)


_SAID = frozenset(
    {
        *(Family.TEXT, Family.INTEGER, Family.NUMBER, Family.BOOLEAN),
        *(Family.DATE, Family.TIMESTAMP, Family.INSTANT),
    }
)


def _words(values: pa.Array, kind: Family | None) -> pa.StringArray:
    """Values as a person reads them; null of what is not known."""
    match kind:
        case Family.NUMBER:
            exact = _known(values).cast(pa.decimal128(18, 2)).cast(pa.string())
            return pc.ascii_rtrim(pc.ascii_rtrim(exact, "0"), ".")
        case Family.BOOLEAN:
            return pc.if_else(values, "yes", "no")
        case Family.DATE:
            return pc.strftime(values, "%Y-%m-%d")
        case Family.TIMESTAMP | Family.INSTANT:
            return pc.strftime(values, "%Y-%m-%d %H:%M")
        case _:
            return values.cast(pa.string())


def _known(values: pa.Array) -> pa.Array:
    """Figures but those that are no number, or beyond all figures."""
    if not pa.types.is_floating(values.type):
        return values
    return pc.if_else(pc.less_equal(pc.abs(values), LARGEST_FIGURE), values, None)


def _amount(values: pa.Array, currency: pa.StringArray) -> pa.StringArray:
    """Amounts of minor units as `money` of `storekeep.retail` writes one."""
    known = _known(values)
    if pa.types.is_floating(known.type):
        known = pc.round(known)
    minor = known.cast(pa.int64())
    size = pc.abs(minor)
    # The least integer has no opposite.
    size = pc.if_else(pc.less(size, 0), None, size)
    whole, mills = (
        pc.is_in(currency, value_set=pa.array(sorted(those)))
        for those in (WITHOUT_CENTS, WITH_MILLS)
    )
    scale = pc.if_else(whole, 1, pc.if_else(mills, 1000, 100))
    units = pc.divide(size, scale)
    rest = pc.subtract(size, pc.multiply(units, scale))
    digits = pc.utf8_lpad(rest.cast(pa.string()), 3, "0")
    decimals = pc.if_else(mills, digits, pc.utf8_slice_codeunits(digits, 1))
    point = pc.binary_join_element_wise(".", decimals, "")
    sign = pc.if_else(pc.less(minor, 0), "-", "")
    cells = (sign, _grouped(units), pc.if_else(whole, "", point), pa.scalar(" "), currency)
    return pc.binary_join_element_wise(*cells, pa.scalar(""))


def _grouped(units: pa.Int64Array) -> pa.StringArray:
    """Whole numbers with a comma before every three digits."""
    thousands = pc.divide(units, 1000)
    rest = pc.subtract(units, pc.multiply(thousands, 1000)).cast(pa.string())
    large = pc.greater(thousands, 0)
    if not pc.any(large).as_py():
        return rest
    joined = pc.binary_join_element_wise(_grouped(thousands), pc.utf8_lpad(rest, 3, "0"), ",")
    return pc.if_else(large, joined, rest)
