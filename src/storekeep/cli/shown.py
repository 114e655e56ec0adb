"""What a person reads: times with their zone, money with its currency, tables that fit the screen.

Hides the width of the terminal and whether it shows colours. What comes from outside (a product's name, a
supplier's words) is stripped of anything that a terminal would obey.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from io import StringIO
from typing import Any

import click

_UNBOUNDED = 10_000
_LEAST_WRAP = 24
STYLES = {"ok": "green", "warn": "yellow", "wrong": "red"}


@dataclass(frozen=True)
class Column:
    """A column of a table: `drop` says how soon it goes when the screen is narrow (0: never)."""

    title: str
    right: bool = False
    wrap: bool = False
    drop: int = 0


def width() -> int | None:
    """Columns of the screen; none when the output goes to a file or a program, which has no edge."""
    if sys.stdout is not None and sys.stdout.isatty():
        return shutil.get_terminal_size((80, 24)).columns
    named = os.environ.get("COLUMNS", "")
    return int(named) if named.isdigit() and int(named) else None


def in_colour() -> bool:
    """Whether stdout is a terminal that shows colours and nobody asked for none."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout is not None and sys.stdout.isatty() and not plain


def mark(state: str) -> str:
    """A finding's state, coloured where that is seen."""
    word = f"{state:<5}"
    return click.style(word, fg=STYLES[state], bold=state == "wrong") if in_colour() else word


def printable(text: object) -> str:
    """The text with whatever would steer a terminal written out."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1]
        for letter in said
    )


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> str:
    """The rows under their titles, in lines no longer than the screen.

    Where it is narrow the columns with the highest `drop` go first; what no line may lose (an id) stays
    whole in any case.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    cells = [["" if cell is None else printable(cell) for cell in row] for row in rows]
    room = width() or _UNBOUNDED
    wide = [
        max((cell_len(line) for line in (column.title, *(row[place] for row in cells))), default=0)
        for place, column in enumerate(columns)
    ]
    kept, least = _fitting(columns, wide, room)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place in kept:
        column = columns[place]
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.wrap,
            min_width=min(wide[place], _LEAST_WRAP) if column.wrap else wide[place],
            overflow="fold",
        )
    for row in cells:
        drawn.add_row(*(row[place] for place in kept))
    out = StringIO()
    Console(
        file=out,
        width=max(room, least),
        color_system="standard" if in_colour() else None,
        force_terminal=in_colour(),
        markup=False,
        emoji=False,
        highlight=False,
    ).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _fitting(columns: Sequence[Column], wide: Sequence[int], room: int) -> tuple[list[int], int]:
    """The places of the columns that fit next to each other, in order, and the least they take."""
    kept = list(range(len(columns)))

    def need() -> int:
        least = (
            min(wide[place], _LEAST_WRAP) if columns[place].wrap else wide[place] for place in kept
        )
        return sum(least) + 2 * len(kept)

    while need() - 2 > room and any(columns[place].drop for place in kept):
        kept.remove(max(kept, key=lambda place: columns[place].drop))
    return kept, need()


def folded(text: str, indent: str = "    ") -> str:
    """Text whose long lines go on, indented, on the next where a screen would cut them anywhere."""
    room = width()
    lines = [printable(line) for line in text.splitlines()]
    if room is None:
        return "\n".join(lines)
    out: list[str] = []
    for line in lines:
        lead = line[: len(line) - len(line.lstrip())]
        out += textwrap.wrap(
            line.strip(),
            max(room, 20),
            initial_indent=lead,
            subsequent_indent=lead + indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(out)


def hanging(text: object, indent: int) -> str:
    """Text that begins after `indent` columns, and whose further lines do so too."""
    said, room = printable(text), width()
    if room is None:
        return said
    lines = textwrap.wrap(
        said, max(room - indent, 20), break_long_words=False, break_on_hyphens=False
    )
    return ("\n" + " " * indent).join(lines)


def pairs(values: Mapping[str, object] | Iterable[tuple[str, object]], indent: str = "  ") -> str:
    """Names and values under each other, the values aligned."""
    items = list(values.items() if isinstance(values, Mapping) else values)
    wide = max((len(name) for name, _ in items), default=0)
    return "\n".join(
        f"{indent}{name:<{wide}}  {'unknown' if value is None else value}" for name, value in items
    )


def moment(time: datetime | str | None, zone: tzinfo) -> str:
    """A time to the minute, by the clocks of a zone; the zone is named beside it or under the table."""
    if time is None:
        return ""
    known = datetime.fromisoformat(time) if isinstance(time, str) else time
    return known.astimezone(zone).strftime("%Y-%m-%d %H:%M")


def money(minor: int | None, currency: str | None) -> str:
    """An amount of minor units in its currency."""
    if minor is None or currency is None:
        return ""
    from storekeep import retail

    return retail.money(minor, currency)


def count(many: int, one: str, more: str | None = None) -> str:
    """A number with its noun."""
    return f"{many:,} {one if many == 1 else more or one + 's'}"


def tally(words: Iterable[str]) -> dict[str, int]:
    """How often each word comes, the most frequent first."""
    counted: dict[str, int] = {}
    for word in words:
        counted[word] = counted.get(word, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def listed(counts: Mapping[str, Any]) -> str:
    """Counts in one line: `compensate 3, nothing 1`."""
    return ", ".join(f"{name} {many:,}" for name, many in counts.items())
