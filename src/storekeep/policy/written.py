"""A YAML file as a person wrote it: plain values, and the line and column of each of them.

Hides the YAML parser. What makes a rulebook read differently than it looks is refused: duplicate keys,
anchors and aliases, tags, several documents, and the words of YAML 1.1 (`no`, `on`, `2026-01-31` are texts).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken, Token

from storekeep.errors import Misused, Refused
from storekeep.sql import Place

LARGEST_FILE = 1 << 20
DEEPEST = 8
LARGEST_INTEGER = 2**53 - 1
MOST_READ = 16
"""So many texts are remembered as they were read: they are asked for again and again."""

Steps = tuple[str | int, ...]

_UNWANTED: dict[type[Token], str] = {
    AnchorToken: "an anchor is not allowed: write the value out where it is used",
    AliasToken: "an alias is not allowed: write the value out where it is used",
    TagToken: "a tag is not allowed: values are texts, numbers, true, false, lists and keys",
    DirectiveToken: "a directive is not allowed",
}


@dataclass(frozen=True)
class Spot(Place):
    """A place in a text of which each character's own place in the file is known."""

    source: str = field(default="", repr=False, compare=False)
    begin: int = field(default=0, repr=False, compare=False)
    end: int = field(default=0, repr=False, compare=False)

    def within(self, text: str, offset: int) -> Place:
        """The place in the file of the character at `offset` of the value `text`."""
        return _place(self.file, self.source, _index(self, text, offset))


@dataclass(frozen=True)
class Written:
    """The file's content, and where its values and keys stand; all who read the file share it."""

    file: str
    text: str
    value: Any
    values: dict[Steps, Spot]
    keys: dict[Steps, Place]

    def place(self, *path: str | int) -> Spot:
        """Where the value at a path begins, or the nearest thing around it."""
        while path not in self.values:
            path = path[:-1]
        return self.values[path]

    def key(self, *path: str | int) -> Place:
        """Where the key at a path stands; the place of its value when it is in a list."""
        return self.keys.get(path) or self.place(*path)


def read(source: Path | str, name: str) -> Written:
    """Read a YAML file, or a text that is called `name` in what is said about it.

    Raises `Misused` when the file cannot be opened and `Refused` with file, line and column when it is not
    YAML, or YAML that reads differently than it looks.
    """
    file, text = (str(source), _open(source)) if isinstance(source, Path) else (name, source)
    return _read(file, text)


@lru_cache(maxsize=MOST_READ)
def _read(file: str, text: str) -> Written:
    if len(text) > LARGEST_FILE:
        raise Refused(f"{file}: the file is larger than {LARGEST_FILE // 1024} KiB")
    try:
        for token in YAML(typ="safe", pure=True).scan(text):
            if type(token) in _UNWANTED:
                _refuse(file, text, token.start_mark.index, _UNWANTED[type(token)])
        root = YAML(typ="safe", pure=True).compose(text)
    except ReaderError as error:
        _refuse(file, text, error.position, f"{error.reason} ({error.character!r})")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        _refuse(file, text, mark.index if mark else 0, f"this is not YAML: {what}")
    except (YAMLError, RecursionError) as error:
        raise Refused(f"{file}: this is not YAML: {str(error).splitlines()[0]}") from None
    if root is None:
        raise Refused(f"{file}:1:1: the file is empty")
    found = Written(file, text, None, {}, {})
    return Written(file, text, _plain(root, (), found), found.values, found.keys)


def _open(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Misused(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: is not UTF-8 text: byte {error.start} cannot be read") from None


def _refuse(file: str, text: str, index: int, what: str) -> NoReturn:
    raise Refused(f"{_place(file, text, index)}: {what}")


def _place(file: str, text: str, index: int) -> Place:
    return Place(file, text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _plain(node: Node, path: Steps, found: Written) -> Any:
    """The node's value, with the places of all that is in it noted down on the way."""
    begin, end = node.start_mark.index, node.end_mark.index
    place = _place(found.file, found.text, begin)
    found.values[path] = Spot(place.file, place.line, place.column, found.text, begin, end)
    if len(path) > DEEPEST:
        _refuse(found.file, found.text, begin, f"keys and lists are nested deeper than {DEEPEST}")
    if isinstance(node, ScalarNode):
        return _scalar(node, found)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*path, place), found) for place, item in enumerate(node.value)]
    if not isinstance(node, MappingNode):
        _refuse(found.file, found.text, begin, "this is neither a value, a list nor keys")
    out: dict[str, Any] = {}
    for key, item in node.value:
        at = key.start_mark.index
        if not isinstance(key, ScalarNode):
            _refuse(found.file, found.text, at, "a key must be a word")
        if key.value in out:
            first = found.keys[*path, key.value]
            _refuse(
                found.file,
                found.text,
                at,
                f"key {key.value!r} stands here twice, first in line {first.line}",
            )
        found.keys[*path, key.value] = _place(found.file, found.text, at)
        out[key.value] = _plain(item, (*path, key.value), found)
    return out


def _scalar(node: ScalarNode, found: Written) -> str | int | float | bool | None:
    """A value by the core schema of YAML 1.2, in decimal only."""
    text: str = node.value
    if node.style is not None:
        return text.strip()
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]+", text):
        if abs(int(text)) > LARGEST_INTEGER:
            _refuse(found.file, found.text, node.start_mark.index, f"{text} is beyond 2^53 - 1")
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)", text):
        return float(text)
    return text


def _index(spot: Spot, text: str, offset: int) -> int:
    """Index in the file of a character of a value, found by walking both side by side.

    A value differs from its source by quotation marks, escapes, indentation and folded lines only, so each
    character that is not white space is found again in order.
    """
    source = spot.source
    at = spot.begin
    if source[at : at + 1] in {"|", ">"}:
        at = source.find("\n", at) + 1
    elif source[at : at + 1] in {"'", '"'}:
        at += 1
    for character in text[:offset].replace(" ", "").replace("\n", ""):
        at = source.find(character, at, spot.end) + 1 or at
    found = source.find(text[offset : offset + 1].strip(), at, spot.end)
    return found if found >= 0 else at
