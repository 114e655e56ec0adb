"""A YAML file of a feed as plain values, and where in the file each of them is written.

Hides YAML and its places: whatever is wrong with a mapping or a contract is said with file, line and column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import (
    DoubleQuotedScalarString,
    FoldedScalarString,
    LiteralScalarString,
    SingleQuotedScalarString,
)

from storekeep.errors import Misused
from storekeep.sql import Place

Keys = tuple[str | int, ...]

VALUE = "="
_LARGEST_FILE = 1 << 20
_MOST_NODES = 10_000
# A mapping is asked for again and again, and to read it takes longer than to read some rows by it.
_MOST_READ = 64


@dataclass(frozen=True)
class Written:
    """What a file says, as JSON has it, and the place of each key and, under `VALUE`, of each value."""

    what: str
    plain: dict[str, Any]
    places: Map[Keys, Place]

    def told(self, error: ValidationError) -> str:
        """The first thing that is wrong, with its place."""
        first = error.errors(include_url=False, include_input=False)[0]
        path = tuple(first.get("ctx", {}).get("path", first["loc"]))
        words = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            words = "there is no such key"
        return self.at(path, words)

    def at(self, path: Keys, words: str) -> str:
        """What is to be said of a part, with its place: that of the deepest part of its path there is."""
        where = ".".join(str(part) for part in path if part != VALUE)
        return f"{self.place(path)}: {where or f'the {self.what}'}: {words}"

    def place(self, path: Keys) -> Place:
        """Where a part begins, or the nearest thing around it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]


def read(name: str | Path, what: str, folder: Traversable, shipped: Sequence[str]) -> Written:
    """The file of that name, or the one of `shipped` that `folder` has; `what` it is, in a word.

    Raises `Misused`, with file, line and column, when it is absent or no YAML table.
    """
    text, label = _text(name, what, folder, shipped)
    return parse(text, label, what)


def parse(text: str, label: str, what: str) -> Written:
    """The values and places of a text; `label` names it in what is said about it."""
    plain, places = _parsed(text, label, what)
    return Written(what, json.loads(plain), places)


@lru_cache(maxsize=_MOST_READ)
def _parsed(text: str, label: str, what: str) -> tuple[str, Map[Keys, Place]]:
    try:
        yaml = YAML(typ="rt")
        yaml.preserve_quotes = True
        tree = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
        raise Misused(f"{place}: this is no YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise Misused(f"{label}: this is no YAML: {error}") from None
    if not isinstance(tree, CommentedMap):
        raise Misused(f"{label}:1:1: a {what} is a table of keys and values; see docs/ingest.md")
    places: dict[Keys, Place] = {(): Place(label, 1, 1)}
    return json.dumps(_plain(tree, (), places, label, what), default=str), places


def _text(
    name: str | Path, what: str, folder: Traversable, shipped: Sequence[str]
) -> tuple[str, str]:
    path = Path(name)
    if not path.is_file() and path.name.removesuffix(".yaml") in shipped:
        file = folder / f"{path.name.removesuffix('.yaml')}.yaml"
        return file.read_text(encoding="utf-8"), file.name
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise Misused(f"{path} is too large for a {what}")
        return path.read_text(encoding="utf-8"), str(path)
    except OSError as error:
        raise Misused(
            f"{what} {path} cannot be read ({error.strerror}); those that ship are {', '.join(shipped)}"
        ) from None
    except UnicodeDecodeError:
        raise Misused(f"{what} {path} is not UTF-8 text") from None


def _plain(node: Any, path: Keys, places: dict[Keys, Place], label: str, what: str) -> Any:
    """The same tree without places, which go to `places`; bounded, so that aliases cannot explode."""
    if len(places) > _MOST_NODES:
        raise Misused(f"{label}: more than {_MOST_NODES} values; that is no {what}")
    if isinstance(node, CommentedMap):
        out = {}
        for key, value in node.items():
            inner = (*path, str(key))
            line, column = node.lc.key(key)
            places[inner] = Place(label, line + 1, column + 1)
            places[*inner, VALUE] = _begins(value, node.lc.value(key), label)
            out[str(key)] = _plain(value, inner, places, label, what)
        return out
    if isinstance(node, CommentedSeq):
        for index in range(len(node)):
            line, column = node.lc.item(index)
            places[*path, index] = Place(label, line + 1, column + 1)
        return [
            _plain(value, (*path, index), places, label, what) for index, value in enumerate(node)
        ]
    return node


def _begins(value: Any, start: tuple[int, int], label: str) -> Place:
    """Where the text of a value begins: behind its quote, or on the line below its `>` or `|`."""
    line, column = start[0] + 1, start[1] + 1
    if isinstance(value, (SingleQuotedScalarString, DoubleQuotedScalarString)):
        return Place(label, line, column + 1)
    if isinstance(value, (FoldedScalarString, LiteralScalarString)):
        return Place(label, line + 1, 1)
    return Place(label, line, column)
