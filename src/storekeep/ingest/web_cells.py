"""What the readers of web shops' JSON share: one value of an object as text, or why it is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

Json = Any
Row = dict[str, str | None]
_DIGITS = 18


class Fault(Exception):
    """A thing that cannot be taken in as it is told: where in it, and why."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column, self.reason = column, reason


def many_lines(thing: Json) -> int:
    """How many rows a thing stands for that cannot be read: its lines, or itself."""
    lines = thing.get("line_items") or thing.get("variants") if isinstance(thing, dict) else None
    return len(lines) if isinstance(lines, list) else 1


@dataclass(frozen=True)
class Kind:
    """One kind of thing that a platform tells: its columns, the names it is wrapped in, and its rows.

    `many`: for how many rows a thing stands that cannot be read.
    """

    columns: tuple[str, ...]
    wrapped: tuple[str, ...]
    rows: Callable[[Json], list[Row]]
    many: Callable[[Json], int] = many_lines


def cell(thing: Json, name: str, within: str | None = None) -> str | None:
    """What a thing says under a name, or an object within it, as text; None when it says nothing."""
    if within is not None and (thing := thing.get(within)) is None:
        return None
    if not isinstance(thing, dict):
        raise Fault(within or name, "this is no object")
    said = thing.get(name)
    if said is None or said == "":
        return None
    if isinstance(said, bool):
        return "true" if said else "false"
    if not isinstance(said, str):
        raise Fault(name, "this is no single value")
    if not said.isascii():
        try:
            said.encode()
        except UnicodeEncodeError:
            raise Fault(name, "this is no text") from None
    return said


def asked(thing: Json, name: str) -> str:
    """The same of what must be there."""
    said = cell(thing, name) if isinstance(thing, dict) else None
    if said is None:
        raise Fault(name, f"it has no {name}")
    return said


def listed(thing: Json, name: str) -> list[Json]:
    """The objects of a list; none when it is not there."""
    found = thing.get(name) if isinstance(thing, dict) else None
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Fault(name, "this is no list of objects")
    return found


def number_of(thing: Json, platform: str, name: str = "id") -> str:
    """The number by which a platform knows a thing, as text."""
    own = asked(thing, name)
    if not own.isdecimal():
        raise Fault(name, f"{own[:40]} is no identifier of {platform}")
    return own


def parts_of(thing: Json, name: str, what: str) -> list[Json]:
    """The lines of an order, the variants of a product: what has none is no such thing."""
    found = listed(thing, name)
    if not found:
        called = "lines" if name == "line_items" else name
        raise Fault(name, f"this {what} has no {called}, or is no {what}")
    return found


def full_name(thing: Json) -> str | None:
    """What a customer is called, if anything; raises `Fault` when it is no customer."""
    if not isinstance(thing, dict) or "first_name" not in thing:
        raise Fault("id", "this is no customer")
    return " ".join(filter(None, (cell(thing, "first_name"), cell(thing, "last_name")))) or None


def number(thing: Json, name: str, default: str | None = None) -> Decimal:
    """A number, exactly as it is written."""
    said = cell(thing, name) or default
    try:
        found = Decimal(said or "")
    except InvalidOperation:
        raise Fault(name, f"{name} is no number") from None
    if not found.is_finite() or found.adjusted() > _DIGITS or found.adjusted() < -_DIGITS:
        raise Fault(name, f"{name} is no number of at most {_DIGITS} digits")
    return found


def plain(amount: Decimal) -> str:
    """A number as a file would have it, without an exponent."""
    return f"{amount:f}"
