"""The commands of a page, carried out in order as a reader would, and what they print held against the page.

A page shows files and commands. A block of code whose first line is a comment with the name of a file is that
file; JSON has no comments, and there the line is none of the file's. In a block `console` a line that begins
with `$ ` is a command, and what stands under it is what it prints: on stdout, or on stderr where nothing
is on stdout. A line `...` stands for any lines.

`storekeep` runs in this process, since a start takes seconds; bash reads the line for it, and does the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner

from storekeep import servers
from storekeep.cli.program import program
from storekeep.config import Settings

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|//|<!--) (\S+\.\w+)(?: -->)?\n")
_COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
_SET = re.compile(r"(?:export )?(\w+)=(\S*)")
_ANY_LINES = "...\n"
# Ids, digests, keys, and the numbers of purchase orders.
_ID, _DIGEST = (
    "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "[0-9a-f]{12}(?:[0-9a-f]{4}|[0-9a-f]{52})?",
)
_NAME = rf"\b(?:{_ID}|{_DIGEST}|PO-\d{{10}})\b"
_PARTS = re.compile(rf"(^{re.escape(_ANY_LINES)}|{_NAME})", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """A file that a page shows."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command that a page shows, and what stands under it."""

    line: str
    shown: str


def steps(page: str) -> Iterator[File | Command]:
    """The files and the commands of a page, in order."""
    for language, text in _BLOCK.findall(page):
        named = _FILE.match(text)
        if language == "console":
            yield from (Command(*found) for found in _COMMAND.findall(text))
        elif named is not None:
            yield File(named[1], text[named.end() :] if text.startswith("//") else text)


@dataclass
class Console:
    """A shell in a folder, for one reader.

    The names that a page shows (ids, digests, numbers of orders) may be others here. Each has one other then,
    no two have the same, and in commands it is replaced by the one that is right here.
    """

    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0
    _set: dict[str, str] = field(default_factory=dict)

    def write(self, file: File) -> None:
        """Make a file that the page shows."""
        (self.folder / file.name).write_text(file.text, encoding="utf-8")

    def run(self, line: str) -> str:
        """Carry out a command; what it prints. The process has to be in the folder."""
        line = re.sub(_NAME, lambda found: self.names.get(found[0], found[0]), line)
        if found := _SET.fullmatch(line):
            self._set[found[1]] = found[2]
            return ""
        own, *rest = re.split(r" (?=[|>] )", line, maxsplit=1)
        if not own.startswith("storekeep "):
            return self._bash(f"(exit {self.exit_code}); {line}")
        words = self._bash(rf"printf '%s\0' {own}").split("\0")[1:-1]
        result = CliRunner().invoke(program, words, env=self._set)
        self.exit_code = result.exit_code
        if rest:
            return self._bash(f"cat {rest[0]}", result.stdout)
        return result.stdout or result.stderr

    def _bash(self, line: str, given: str = "") -> str:
        done = subprocess.run(
            ["bash", "-c", line],
            input=given,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=os.environ | self._set,
            check=False,
        )
        self.exit_code = done.returncode
        return done.stdout or done.stderr

    def agrees(self, shown: str, printed: str) -> bool:
        """Whether this was printed as the page shows it, but for its names, which are remembered."""
        parts = _PARTS.split(shown)
        found = re.fullmatch("".join(map(_like, parts)), printed)
        if found is None:
            return False
        here = [part for part in parts[1::2] if part != _ANY_LINES]
        pairs = {*self.names.items(), *zip(here, found.groups(), strict=True)}
        if not len(pairs) == len({shown for shown, _ in pairs}) == len({ours for _, ours in pairs}):
            return False
        self.names = dict(pairs)
        return True


def follow(page: str, console: Console, home: str) -> None:
    """Do all that a page shows, its home open from when it is made; what it prints is what the page shows."""
    with ExitStack() as kept:
        for step in steps(page):
            if isinstance(step, File):
                console.write(step)
                continue
            printed = console.run(step.line)
            assert console.agrees(step.shown, printed), f"$ {step.line}\n{printed}"
            assert console.exit_code == 0, step.line
            if step.line == f"storekeep init {home}":
                kept.enter_context(servers.lease(Settings(home=console.folder / home)))


def _like(part: str) -> str:
    """A pattern of what may stand in place of a part of what the page shows."""
    if part == _ANY_LINES:
        return r"(?:.*\n)*?"
    if re.fullmatch(_NAME, part):
        return f"({re.sub(r'[0-9a-f]', '[0-9a-f]', part)})"
    return re.escape(part)
