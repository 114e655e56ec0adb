"""Rows out of nested documents (JSON): cells named by paths, and a row for each element of a list.

`line_items.sku` is the `sku` in each of `line_items`: a document gives a row for each of them, and what
stands outside of the list is the same in all. Every cell is text as it was written, so that no identifier
loses a digit. Hides JSON's numbers, and documents that are none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from storekeep.errors import Misused
from storekeep.ingest.blocks import MALFORMED, Block

BLOCK_ROWS = 50_000
BLOCK_CHARACTERS = 32 << 20
_DEEPEST = 20
Cells = list[str | None]


class Unfit(Exception):
    """A document that gives no rows, and why."""


def document(text: bytes) -> Any:
    """A JSON document with its numbers as they were written, as text.

    Raises `Unfit` when it is none.
    """
    try:
        said = json.loads(text.decode(), parse_int=str, parse_float=str, parse_constant=_no_number)
        if b"\\u" in text:
            json.dumps(said, ensure_ascii=False).encode()
        return said
    except UnicodeDecodeError:
        raise Unfit("holds bytes that are not UTF-8 text") from None
    except UnicodeEncodeError:
        raise Unfit("holds half a character") from None
    except RecursionError:
        raise Unfit("is nested too deeply") from None
    except ValueError as error:
        raise Unfit(f"is no JSON: {error}") from None


def _no_number(word: str) -> Any:
    raise Unfit(f"is no JSON: {word} is no number")


def rows(said: Any, columns: Sequence[str]) -> Iterator[Cells]:
    """The rows of a document, each with a cell for each of `columns`; an absent cell is null.

    A list that a path leads through gives a row for each of its elements, and an empty one gives one row in
    which its cells are null. A value that is itself a list or an object is told as JSON. Raises `Unfit` when
    the document is no object, or paths lead through several lists.
    """
    if not isinstance(said, dict):
        raise Unfit("is no JSON object")
    paths = [tuple(column.split(".")) for column in columns]
    many = {place for path in paths if (place := _list_on(said, path))}
    if len(many) > 1:
        named = " and ".join(sorted(".".join(place) for place in many))
        raise Unfit(f"has lists under several paths, {named}; read each by a mapping of its own")
    place = many.pop() if many else ()
    inside = [bool(place) and path[: len(place)] == place for path in paths]
    same = [
        None if inner else _text(_at(said, path)) for path, inner in zip(paths, inside, strict=True)
    ]
    if not place:
        yield same
        return
    within = [(index, path[len(place) :]) for index, path in enumerate(paths) if inside[index]]
    for element in _at(said, place) or [{}]:
        row = list(same)
        for index, path in within:
            if _list_on(element, path):
                raise Unfit(f"has a list within {'.'.join(place)}, in {'.'.join(path)}")
            row[index] = _text(_at(element, path))
        yield row


def _list_on(said: Any, path: Sequence[str]) -> tuple[str, ...] | None:
    """The part of a path that leads to a list, where more of the path follows."""
    for depth, name in enumerate(path):
        if not isinstance(said, dict):
            return None
        said = said.get(name)
        if isinstance(said, list) and depth + 1 < len(path):
            return tuple(path[: depth + 1])
    return None


def _at(said: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(said, dict):
            return None
        said = said.get(name)
    return said


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def paths(said: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """The paths of everything in a document that is neither an object nor a list of objects."""
    if isinstance(said, list) and any(isinstance(each, dict) for each in said):
        for each in said:
            yield from paths(each, before)
    elif isinstance(said, dict) and said and len(before) < _DEEPEST:
        for name, value in said.items():
            yield from paths(value, (*before, name))
    elif before:
        yield ".".join(before)


def of_one_list(said: Iterable[Any], columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns that one mapping can read, of which at most one list is, and those of further lists."""
    places: dict[str, tuple[str, ...]] = {}
    for each in said:
        for column in columns:
            if place := _list_on(each, column.split(".")):
                places[column] = place
    # What is an empty list in one document is a list of objects in another.
    columns = [
        each for each in columns if not any(other.startswith(f"{each}.") for other in columns)
    ]
    one = next(iter(Counter(places.values()).most_common(1)), ((), 0))[0]
    others = [column for column in columns if places.get(column, one) != one]
    return [column for column in columns if column not in others], others


class Gathered:
    """Rows of documents, gathered into blocks."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._begin()

    def _begin(self) -> None:
        self._rows: list[Cells] = []
        self._lines: list[int] = []
        self._malformed: list[dict[str, Any]] = []
        self._characters = 0

    @property
    def full(self) -> bool:
        """Whether there is enough for a block."""
        rows = len(self._rows) + len(self._malformed)
        return rows >= BLOCK_ROWS or self._characters >= BLOCK_CHARACTERS

    def add(self, line: int, said: Any, raw: str) -> None:
        """Add the rows of a document, or what is wrong with it; `raw` is its text."""
        try:
            found = list(rows(said, self._columns))
        except Unfit as error:
            self.refuse(line, str(error), raw)
            return
        self._rows += found
        self._lines += [line] * len(found)
        self._characters += len(raw)

    def refuse(self, line: int, reason: str, raw: str) -> None:
        """Add a document that gives no rows."""
        raw = raw.replace("\0", "\ufffd")
        self._malformed.append({"line": line, "reason": reason, "raw": raw})
        self._characters += len(raw)

    def block(self) -> Block:
        """What was gathered since the last block."""
        cells = zip(*self._rows, strict=True) if self._rows else ([] for _ in self._columns)
        table = pa.table(
            [pa.array(column, pa.string()) for column in cells], names=list(self._columns)
        )
        malformed = pa.Table.from_pylist(self._malformed, MALFORMED)
        block = Block(table, pa.array(self._lines, pa.int64()), malformed)
        self._begin()
        return block


def checked(found: Iterable[Block], name: str, there: Sequence[str]) -> Iterator[Block]:
    """The blocks of a file, if any of its cells says anything.

    A document need not have everything that others have; one that has nothing of what is asked for is another
    kind of document. Raises `Misused`, naming what is `there`, when no document has a column.
    """
    says, documents = False, 0
    for block in found:
        says = says or any(column.null_count < len(column) for column in block.cells.columns)
        documents += len(block.lines)
        yield block
    if documents and not says:
        raise Misused(
            f"{name} has none of the columns that the mapping reads; it has: {', '.join(there) or 'none'}"
        )
