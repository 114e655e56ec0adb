"""A folder that others put files into: which of them are whole, and which have been dealt with.

A file is whole when it has been at rest for a while: neither its size nor its time has changed, as it is with
one that was renamed into place. Hides how that is told, and what others call a file that they are still
writing. The folder is looked at, not listened to: a system's own word of changes does not come from shares on
a network, where tills leave their files.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storekeep.errors import Misused, Permanent

_UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp", ".temp", "~")
_Stamp = tuple[int, int, int]


@dataclass
class _Seen:
    """A file as it was at first, when that was, and whether it was dealt with."""

    stamp: _Stamp
    since: float
    dealt_with: bool = False


class Folder:
    """A folder and its files, as they were seen so far; `now` is a clock that is never set."""

    def __init__(
        self,
        path: Path,
        *,
        rest_seconds: float,
        done: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if done is not None and done.resolve() == path.resolve():
            raise Misused(
                f"{done} is the folder that is watched; name another for files that are done"
            )
        self._path, self._done = path, done
        self._rest, self._now = rest_seconds, now
        self._seen: dict[Path, _Seen] = {}

    def look(self) -> tuple[list[Path], list[Path]]:
        """The files that are whole and not dealt with, the oldest first, and those still being written."""
        here = {path: stamp for path in self._listed() if (stamp := _stamp(path)) is not None}
        self._seen = {path: seen for path, seen in self._seen.items() if path in here}
        whole: list[Path] = []
        growing: list[Path] = []
        for path, stamp in sorted(here.items(), key=lambda each: (each[1][1], each[0])):
            seen = self._seen.get(path)
            if seen is None or seen.stamp != stamp:
                seen = self._seen[path] = _Seen(stamp, self._first_seen(stamp))
            if not seen.dealt_with:
                (whole if self._now() - seen.since >= self._rest else growing).append(path)
        return whole, growing

    def _listed(self) -> list[Path]:
        try:
            return [
                each
                for each in self._path.iterdir()
                if not each.name.startswith(".") and not each.name.lower().endswith(_UNFINISHED)
            ]
        except OSError as error:
            raise Permanent(f"folder {self._path} cannot be read: {error.strerror}") from None

    def _first_seen(self, stamp: _Stamp) -> float:
        """From when on a file counts as at rest: one that was left alone before need not wait again."""
        age = time.time() - stamp[1] / 1e9
        return self._now() - max(0.0, age) if age < 1e9 else self._now()

    def deal_with(self, path: Path, *, keep: bool = False) -> None:
        """A file was read, or will never be as it is (`keep`): it is not told of again until it changes.

        One that was read goes to the folder for what is done, if there is one.
        """
        self._seen[path].dealt_with = True
        if self._done is None or keep:
            return
        try:
            self._done.mkdir(parents=True, exist_ok=True)
            shutil.move(path, _free(self._done / path.name))
        except OSError as error:
            raise Permanent(
                f"{path} was read, and cannot be moved to {self._done}: {error.strerror}; "
                "see that both folders may be written to"
            ) from None


def _stamp(path: Path) -> _Stamp | None:
    """What changes with a file; None for what is no file, or gone by now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns, found.st_ino) if path.is_file() else None


def _free(path: Path) -> Path:
    """A name that is not taken: `a.csv`, `a.2.csv`, and so on."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return free
