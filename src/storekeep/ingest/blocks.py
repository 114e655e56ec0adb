"""What every format hands over: a block of rows as the file has them, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from storekeep.errors import Misused


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
