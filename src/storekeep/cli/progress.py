"""How far a demonstration is, drawn on stderr."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from storekeep import backtest


class Bars(backtest.Progress):
    """A bar for each part of the work; where stderr is no terminal, one line when a part is over."""

    def __init__(self) -> None:
        self._drawn = _drawn() if sys.stderr is not None and sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._label, self._begun = "", 0.0

    def __enter__(self) -> Self:
        if self._drawn is not None:
            self._drawn.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def begin(self, label: str, total: int | None = None) -> None:
        """Draw a new bar, one that only moves where the total is not known."""
        self._label, self._begun = label, time.monotonic()
        if self._drawn is not None:
            self._task = self._drawn.add_task(label, total=total)

    def step(self, many: int = 1) -> None:
        """Move the bar."""
        if self._drawn is not None and self._task is not None:
            self._drawn.advance(self._task, many)

    def end(self) -> None:
        """Fill the bar."""
        if self._drawn is None:
            taken = time.monotonic() - self._begun
            click.echo(f"storekeep: {self._label}: {taken:.1f} s", err=True)
        elif self._task is not None:
            done = self._drawn.tasks[self._task].completed
            self._drawn.update(self._task, total=done or 1, completed=done or 1)
            self._task = None


def _drawn() -> Progress:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Progress(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, no_color=plain),
    )
