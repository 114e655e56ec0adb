"""X12 and EDIFACT interchanges, read as lines that messages report, once their envelopes hold.

Hides counts and control numbers: a file is read twice, first to see which messages are whole, then to take
those. A message whose count or number is wrong gives no line; nor does any message of an interchange or
group that is wrong itself. What a message says is in `storekeep.ingest.messages`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from storekeep.edi import NAMES, Segment, Syntax, segments
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import MALFORMED, Block, placed
from storekeep.ingest.messages import COLUMNS, MESSAGES, Row, lines

BLOCK_ROWS = 20_000
MOST_RAW = 1 << 16
MOST_FAULTS = 8
# What names people and addresses is not kept with what is turned away; it stands in the file.
_NAMES_PEOPLE = frozenset({"N1", "N2", "N3", "N4", "NM1", "PER", "NAD", "CTA", "COM"})


@dataclass(frozen=True)
class _Level:
    """One kind of envelope: the tags that open and close it, and where its number stands when it opens."""

    opens: str
    closes: str
    number: int


_MESSAGE = 2
_LEVELS: Mapping[Syntax, tuple[_Level, _Level, _Level]] = {
    "x12": (_Level("ISA", "IEA", 13), _Level("GS", "GE", 6), _Level("ST", "SE", 2)),
    "edifact": (_Level("UNB", "UNZ", 5), _Level("UNG", "UNE", 5), _Level("UNH", "UNT", 1)),
}
_KIND: Mapping[Syntax, tuple[int, int]] = {"x12": (1, 1), "edifact": (2, 1)}
# What else may stand outside a message: an acknowledgement of an interchange.
_OUTSIDE = frozenset({"TA1"})


@dataclass
class _Open:
    """An envelope that was opened and is not closed yet."""

    level: int
    number: str
    first: int
    segment: Segment
    kind: str = ""
    segments: int = 0
    messages: int = 0
    groups: int = 0
    lines: Counter[str] = field(default_factory=Counter)
    numbers: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def fault(self, said: str) -> None:
        """Take down what is wrong with it; a person needs no more than the first of it."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(said)


@dataclass
class _Verdicts:
    """Why messages, by their number in the file, and interchanges without any, are not taken."""

    messages: dict[int, list[str]] = field(default_factory=dict)
    empty: list[tuple[int, str]] = field(default_factory=list)

    def add(self, one: _Open, after: int) -> None:
        """Take down what is wrong with an envelope: all messages in it bear it."""
        if not one.faults:
            return
        if one.first == after:
            self.empty += [(one.segment.place, fault) for fault in one.faults]
        for message in range(one.first, after):
            said = self.messages.setdefault(message, [])
            said += [fault for fault in one.faults if fault not in said]


class _Check:
    """Whether the envelopes of a file hold, segment by segment."""

    def __init__(self, syntax: Syntax) -> None:
        self.verdicts = _Verdicts()
        self._syntax = syntax
        self._levels = _LEVELS[syntax]
        self._opens = {level.opens: place for place, level in enumerate(self._levels)}
        self._closes = {level.closes: place for place, level in enumerate(self._levels)}
        self._open: list[_Open] = []
        self._messages = 0

    def see(self, segment: Segment) -> None:
        tag = segment.tag
        if tag in self._opens:
            self._begin(self._opens[tag], segment)
        elif self._open and self._open[-1].level == _MESSAGE:
            one = self._open[-1]
            one.segments += 1
            if tag in MESSAGES[self._syntax].get(one.kind, ()):
                one.lines[tag] += 1
            if tag in {"CTT", "CNT"}:
                self._count_lines(one, segment)
        elif tag not in self._closes and tag not in _OUTSIDE and self._open:
            self._open[-1].fault(f"{tag} in {segment.where} stands outside of any message")
        if segment.damaged and self._open:
            self._open[-1].fault(f"{segment.where} holds bytes that are not {segment.damaged} text")
        if tag in self._closes:
            self._end(self._closes[tag], segment)

    def _begin(self, level: int, segment: Segment) -> None:
        while self._open and self._open[-1].level >= level:
            self._unclosed(segment)
        number = segment.text(self._levels[level].number).strip(" ")
        one = _Open(level, number, self._messages, segment)
        if level == _MESSAGE:
            self._number_message(one, segment)
        elif level and self._open:
            self._open[-1].groups += 1
        self._open.append(one)

    def _number_message(self, one: _Open, segment: Segment) -> None:
        self._messages += 1
        one.segments = 1
        one.kind = kind_of(segment, self._syntax)
        if one.kind not in MESSAGES[self._syntax]:
            taken = ", ".join(MESSAGES[self._syntax])
            named = one.kind or "a message without a type"
            one.fault(f"{named} is not taken; of {NAMES[self._syntax]} taken are {taken}")
        for outer in self._open:
            outer.messages += 1
        if self._open and one.number in self._open[-1].numbers:
            one.fault(f"number {one.number!r} was given to a message before it")
        if self._open:
            self._open[-1].numbers.add(one.number)
        if self._syntax == "x12" and (not self._open or not self._open[-1].level):
            one.fault("it stands outside of any group (GS)")

    def _unclosed(self, segment: Segment) -> None:
        one = self._open.pop()
        level = self._levels[one.level]
        one.fault(
            f"{level.opens} of {one.segment.where} has no {level.closes} before {segment.where}"
        )
        self.verdicts.add(one, self._messages)

    def _end(self, place: int, segment: Segment) -> None:
        level = self._levels[place]
        while self._open and self._open[-1].level > place:
            self._unclosed(segment)
        if not self._open or self._open[-1].level != place:
            if self._open:
                self._open[-1].fault(
                    f"{level.closes} in {segment.where} closes nothing that is open"
                )
            return
        one = self._open.pop()
        there, what = one.segments, "segments"
        if place != _MESSAGE:
            by_group = place == 0 and (one.groups or self._syntax == "x12")
            there, what = (one.groups, "groups") if by_group else (one.messages, "messages")
        said, number = segment.text(1).strip(" "), segment.text(2).strip(" ")
        if _whole(said) != there:
            one.fault(
                f"{level.closes} in {segment.where} counts {said or 'no'} {what}, there are {there}"
            )
        if number != one.number:
            one.fault(
                f"{level.closes} in {segment.where} has the number {number!r}, "
                f"its {level.opens} has {one.number!r}"
            )
        self.verdicts.add(one, self._messages)

    def _count_lines(self, one: _Open, segment: Segment) -> None:
        """Hold a message's own count of its lines against them; CNT counts other things, too."""
        by = MESSAGES[self._syntax].get(one.kind, ())
        said = segment.text(1, 2) if segment.tag == "CNT" else segment.text(1)
        if not by or (segment.tag == "CNT" and segment.text(1) != "2"):
            return
        there = [one.lines[tag] for tag in by]
        if _whole(said) not in there:
            one.fault(
                f"{segment.tag} in {segment.where} counts {said or 'no'} lines, there are {there[0]}"
            )


def kind_of(segment: Segment, syntax: Syntax) -> str:
    """Of which type a message is, by the segment that opens it."""
    return segment.text(*_KIND[syntax]).strip(" ")


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def blocks(
    file: Opened, columns: tuple[str, ...], syntax: Syntax, *, block_rows: int = BLOCK_ROWS
) -> Iterator[Block]:
    """What the messages of a file report, a row each; their lines are segments, counted from 1.

    A message that is not whole, or of a type that is not taken, is one malformed row with all that is
    wrong. Raises `Refused` when the file is no interchange of that syntax or is cut short, `Misused` for a
    column that is not among `COLUMNS`.
    """
    placed(columns, list(COLUMNS), file.name)
    check = _Check(syntax)
    with file.path.open("rb") as opened:
        for segment in segments(opened, syntax, file.name):
            check.see(segment)
    verdicts = check.verdicts
    with file.path.open("rb") as opened:
        found = _reported(segments(opened, syntax, file.name), syntax, verdicts.messages)
        yield from _in_blocks(found, verdicts.empty, columns, block_rows)


@dataclass
class _Refusal:
    """A message that is not taken, where it begins, why, and what it said, as far as it is kept."""

    place: int
    reason: str
    raw: str = ""

    def add(self, segment: Segment) -> None:
        """Keep a segment, but for names and addresses."""
        if len(self.raw) < MOST_RAW:
            nameless = segment.tag + segment.separators.terminator
            self.raw += nameless if segment.tag in _NAMES_PEOPLE else segment.raw


def _reported(
    read: Iterable[Segment], syntax: Syntax, refused: Mapping[int, list[str]]
) -> Iterator[Row | _Refusal]:
    """The rows of the messages that hold, and the others, in the order of the file."""
    interchange, group, inner = _LEVELS[syntax]
    outside = {interchange.opens, interchange.closes, group.opens, group.closes}
    heads: dict[str, Segment] = {}
    number, given_up = -1, None
    for segment in read:
        if given_up and (segment.tag == inner.opens or segment.tag in outside):
            yield given_up
            given_up = None
        if segment.tag in {interchange.opens, group.opens}:
            heads = {} if segment.tag == interchange.opens else heads
            heads[segment.tag] = segment
        if segment.tag == inner.opens:
            number += 1
            if number in refused:
                reason = f"message of {segment.where}: {'; '.join(refused[number])}"
                given_up = _Refusal(segment.place, reason)
            else:
                yield from lines(_until(segment, read, inner.closes), syntax, heads)
        if given_up:
            given_up.add(segment)


def _until(first: Segment, read: Iterable[Segment], closes: str) -> Iterator[Segment]:
    yield first
    for segment in read:
        yield segment
        if segment.tag == closes:
            return


def _in_blocks(
    found: Iterable[Row | _Refusal],
    empty: list[tuple[int, str]],
    columns: tuple[str, ...],
    block_rows: int,
) -> Iterator[Block]:
    rows: list[Row] = []
    bad: list[_Refusal] = [_Refusal(place, reason) for place, reason in empty]
    any_block = False
    for one in found:
        if isinstance(one, _Refusal):
            bad.append(one)
        else:
            rows.append(one)
        if len(rows) + len(bad) >= block_rows:
            yield _block(rows, bad, columns)
            rows, bad, any_block = [], [], True
    if rows or bad or not any_block:
        yield _block(rows, bad, columns)


def _block(rows: list[Row], bad: list[_Refusal], columns: tuple[str, ...]) -> Block:
    cells = [pa.array([row.get(name) for row in rows], pa.string()) for name in columns]
    places = pa.array([int(row["segment"]) for row in rows], pa.int64())
    malformed = [{"line": one.place, "reason": one.reason, "raw": one.raw} for one in bad]
    return Block(
        pa.table(cells, names=list(columns)), places, pa.Table.from_pylist(malformed, MALFORMED)
    )
