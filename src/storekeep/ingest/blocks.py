"""What every format hands over: a block of rows as the file has them, each with its place in the file."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass

import pyarrow as pa

from storekeep.errors import Misused

NAMED_ROWS = 20_000


class Drifted(Misused):
    """A file whose columns are not what was agreed; `column` is the one at fault, where it is one."""

    def __init__(self, said: str, file: str, column: str = "") -> None:
        super().__init__(said)
        self.file = file
        self.column = column


MALFORMED = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("column", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Block:
    """Some consecutive rows of a file.

    `cells` has the columns asked for, in that order (text from a text format, else the file's own types);
    `lines` says where each row starts, and several may start on one line. `malformed` holds the rows that are
    no rows at all, with reasons.
    """

    cells: pa.Table
    lines: pa.Int64Array
    malformed: pa.Table

    @property
    def rows(self) -> int:
        """Rows read, good and malformed."""
        return int(len(self.lines) + self.malformed.num_rows)


def placed(columns: tuple[str, ...], found: list[str], name: str) -> list[int]:
    """Where in the file each column stands that a mapping asks for.

    Raises `Drifted`, naming the columns that the file has, when one is absent or there twice.
    """
    for column in columns:
        if found.count(column) != 1:
            fault = "has no column" if column not in found else "has more than one column"
            said = f"{name} {fault} {column!r}; it has: {', '.join(found) or 'none'}"
            raise Drifted(said, name, column)
    return [found.index(column) for column in columns]


class NamedRows:
    """Rows of a structured document (XML, JSON), gathered into blocks; every cell is text or nothing.

    A malformed row keeps what it says, apart from `personal` columns, in words
    that cannot be taken for cells: what is wrong with a whole document is not mended row by row.
    """

    def __init__(
        self,
        columns: tuple[str, ...],
        known: tuple[str, ...],
        name: str,
        *,
        personal: frozenset[str] = frozenset(),
    ) -> None:
        placed(columns, list(known), name)
        self._columns, self._personal = columns, personal
        self._begin()

    def _begin(self) -> None:
        self._cells: list[list[str | None]] = [[] for _ in self._columns]
        self._lines: list[int] = []
        self._malformed: list[dict[str, object]] = []

    @property
    def full(self) -> bool:
        """Whether there are rows enough for a block."""
        return len(self._lines) + len(self._malformed) >= NAMED_ROWS

    def add(self, line: int, cells: Map[str, str | None], wrong: str | None = None) -> None:
        """The next row, and what is wrong with it, if anything is."""
        if wrong is None:
            self._lines.append(line)
            for column, name in zip(self._cells, self._columns, strict=True):
                column.append(cells.get(name))
            return
        said = {name: cell for name, cell in cells.items() if cell and name not in self._personal}
        raw = "; ".join(f"{name}={cell}" for name, cell in said.items()).replace("\0", "\ufffd")
        self._malformed.append({"line": line, "reason": wrong, "raw": raw})

    def block(self) -> Block:
        """What was gathered since the last block."""
        cells = [pa.array(column, pa.string()) for column in self._cells]
        lines = pa.array(self._lines, pa.int64())
        malformed = pa.Table.from_pylist(self._malformed, MALFORMED)
        self._begin()
        return Block(pa.table(cells, names=list(self._columns)), lines, malformed)
