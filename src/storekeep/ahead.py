"""What is read or made one step ahead, while the one before is used.

Hides the thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Made = TypeVar("_Made")


def ahead(made: Iterator[_Made]) -> Iterator[_Made]:
    """The same, each made in a thread of its own while the one before is used; no two at once.

    None ends it. To be closed before what it reads from is closed.
    """
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, made, None)
        while (found := coming.result()) is not None:
            coming = maker.submit(next, made, None)
            yield found
