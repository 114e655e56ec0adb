"""EDI interchanges as segments, read and written: ASC X12 and UN/EDIFACT.

Hides separators and where they are declared (ISA, UNA), release characters, character sets, line breaks
between and inside segments, and that a file comes in pieces. What a segment means is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from string import whitespace
from typing import IO, Literal

from storekeep.errors import Refused

Syntax = Literal["x12", "edifact"]
Written = str | Sequence[str]
"""An element to be written: a text, or the texts of its components."""

CHUNK = 1 << 16
MOST_CHARACTERS = 1 << 18
NAMES = {"x12": "X12", "edifact": "EDIFACT"}
OPENS = {"x12": "ISA", "edifact": "UNB"}
CLOSES = {"x12": "IEA", "edifact": "UNZ"}
_BETWEEN = " \t\r\n\x00\x1a"
_ISA_ELEMENTS = 16
_MOST_HEADER = 1024
# ISO 9735: what the characters of an interchange are, by the syntax identifier of its UNB.
_CHARACTER_SETS = {
    "UNOA": "ascii",
    "UNOB": "ascii",
    "UNOC": "iso8859-1",
    "UNOD": "iso8859-2",
    "UNOE": "iso8859-5",
    "UNOF": "iso8859-7",
    "UNOG": "iso8859-3",
    "UNOH": "iso8859-4",
    "UNOI": "iso8859-6",
    "UNOJ": "iso8859-8",
    "UNOK": "iso8859-9",
}


@dataclass(frozen=True, slots=True)
class Separators:
    """The characters that end an element, a component and a segment; `release` makes the next one plain."""

    element: str
    component: str
    terminator: str
    release: str = ""

    @property
    def all(self) -> str:
        """Every character that has a meaning of its own."""
        return self.element + self.component + self.terminator + self.release


EDIFACT = Separators("+", ":", "'", "?")


class Segment:
    """One segment: its tag, its elements, and where it stands.

    `place` counts the segments of a file from 1 (UNA is none), `line` its lines. `damaged` names the
    character set where the segment holds bytes that are not of it.
    """

    __slots__ = ("_elements", "_said", "damaged", "line", "place", "separators", "tag")

    def __init__(
        self, said: str, place: int, line: int, separators: Separators, damaged: str | None
    ) -> None:
        self._said, self._elements = said, None
        self.place, self.line, self.separators, self.damaged = place, line, separators, damaged
        tag = said.partition(separators.element)[0].strip(" ")
        self.tag = tag.partition(separators.component)[0] if separators.component in tag else tag

    _elements: list[str] | None

    @property
    def elements(self) -> list[str]:
        """The tag and the elements, release characters still in them; parted when first asked for."""
        if self._elements is None:
            apart = self.separators
            self._elements = _split(self._said, apart.element, apart.release)
        return self._elements

    def text(self, element: int, component: int = 1) -> str:
        """What an element or one of its components says, both counted from 1; nothing when it is absent."""
        return self.parts(element, component)[component - 1]

    def parts(self, element: int, least: int) -> list[str]:
        """What the components of an element say, at least so many: nothing for those that are absent."""
        elements, apart = self.elements, self.separators
        if element >= len(elements):
            return [""] * least
        text = elements[element]
        parts = _split(text, apart.component, apart.release) if apart.component in text else [text]
        if apart.release and apart.release in text:
            parts = [_plain(part, apart.release) for part in parts]
        return parts if len(parts) >= least else parts + [""] * (least - len(parts))

    @property
    def where(self) -> str:
        """Its place, for a person to find."""
        return f"segment {self.place}, line {self.line}"

    @property
    def raw(self) -> str:
        """The segment as it was written, without line breaks."""
        return self._said + self.separators.terminator


def segments(file: IO[bytes], syntax: Syntax, name: str) -> Iterator[Segment]:
    """The segments of all interchanges of a file, one after another, in constant memory.

    Raises `Refused` when the file is no interchange of that syntax, is cut short, or has a segment that
    does not end within 256 KiB.
    """
    yield from _Reader(file, syntax, name).segments()


class _Reader:
    """A file as far as it has been read: text of one character a byte, and the place in it."""

    def __init__(self, file: IO[bytes], syntax: Syntax, name: str) -> None:
        self._file, self._syntax, self._name = file, syntax, name
        self._text, self._at, self._line, self._place = "", 0, 1, 0
        self._codec = "utf-8"

    def segments(self) -> Iterator[Segment]:
        self._more()
        if self._text.startswith("\xef\xbb\xbf"):
            self._at = 3
        self._skip()
        if self._ended():
            raise Refused(f"{self._name} holds no interchange; send it again")
        while not self._ended():
            yield from self._interchange(self._separators())
            self._skip()

    def _interchange(self, apart: Separators) -> Iterator[Segment]:
        opens, closes = OPENS[self._syntax], CLOSES[self._syntax]
        first: Segment | None = None
        self._codec = "utf-8"
        while (raw := self._next(apart)) is not None:
            found = self._segment(raw, apart)
            if found is None:
                continue
            if found.tag in {opens, "UNA"} and first is not None:
                raise Refused(
                    f"{self._name}, {found.where}: an interchange begins before the one of "
                    f"{first.where} has ended with {closes}; send it again"
                )
            if first is None and found.tag != opens:
                raise Refused(f"{self._name}, line {found.line}: {_other(found.raw, self._syntax)}")
            first = first or found
            yield found
            if found.tag == closes:
                return
        begun = f"line {first.line if first else self._line}"
        raise Refused(
            f"{self._name} is cut short: the interchange that begins in {begun} has no {closes}; "
            f"send it again"
        )

    def _segment(self, raw: str, apart: Separators) -> Segment | None:
        line, text = self._line, raw
        if text[:1] in _BETWEEN:
            text = raw.lstrip(_BETWEEN)
            line += raw.count("\n", 0, len(raw) - len(text))
        if apart.terminator == "\n":
            self._line += 1
        elif "\n" in raw:
            self._line += raw.count("\n")
            text = text.replace("\n", "")
        if "\r" in text:
            text = text.replace("\r", "")
        if not text:
            return None
        self._place += 1
        damaged = None
        if not text.isascii():
            text, damaged = self._decoded(text)
        found = Segment(text, self._place, line, apart, damaged)
        if found.tag == "UNB":
            self._codec = _CHARACTER_SETS.get(found.text(1), "utf-8")
        return found

    def _decoded(self, text: str) -> tuple[str, str | None]:
        plain = text.encode("latin-1")
        try:
            return plain.decode(self._codec), None
        except UnicodeDecodeError:
            return plain.decode(self._codec, errors="replace"), self._codec

    def _next(self, apart: Separators) -> str | None:
        """What stands before the next terminator; None at the end of the file."""
        seek = self._at
        while True:
            end = self._text.find(apart.terminator, seek)
            if end >= 0:
                if apart.release and _released(self._text, end, self._at, apart.release):
                    seek = end + 1
                    continue
                break
            read = len(self._text) - self._at
            if read > MOST_CHARACTERS:
                raise Refused(
                    f"{self._name}: the segment after {self._place}, in line {self._line}, does not end "
                    f"within {MOST_CHARACTERS >> 10} KiB; is {apart.terminator!r} what ends its segments?"
                )
            if not self._more():
                # Where lines are segments, the last may lack its line break.
                end = len(self._text)
                if apart.terminator != "\n" or not self._text[self._at :].strip(_BETWEEN):
                    return None
                break
            seek = read
        raw = self._text[self._at : end]
        self._at = min(end + 1, len(self._text))
        return raw

    def _more(self) -> bool:
        """Read on; what was dealt with is forgotten."""
        chunk = self._file.read(CHUNK).decode("latin-1")
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _skip(self) -> None:
        """Pass over what may stand between interchanges, and have enough of the next to know it by."""
        while True:
            rest = self._text[self._at :]
            found = rest.lstrip(_BETWEEN)
            self._line += rest.count("\n", 0, len(rest) - len(found))
            self._at = len(self._text) - len(found)
            if len(found) >= _MOST_HEADER or not self._more():
                return

    def _ended(self) -> bool:
        return self._at == len(self._text)

    def _separators(self) -> Separators:
        """The separators of the interchange that begins here."""
        head = self._text[self._at : self._at + _MOST_HEADER]
        if self._syntax == "x12" and head.startswith("ISA"):
            found = _of_isa(head)
        elif self._syntax == "edifact" and head.startswith("UNA"):
            told = head[3:9].ljust(6)
            found = Separators(told[1], told[0], told[5], told[3].strip(" "))
            self._at += 9
        elif self._syntax == "edifact" and head.startswith("UNB"):
            found = _of_unb(head)
        else:
            raise Refused(f"{self._name}, line {self._line}: {_other(head, self._syntax)}")
        if found is None or not _tell_apart(found):
            raise Refused(
                f"{self._name}, line {self._line}: the separators of its {head[:3]} cannot be told apart; "
                f"send it again"
            )
        return found


def _of_isa(head: str) -> Separators | None:
    """ISA has 16 elements; behind the last, of one character, stands what ends a segment."""
    element, at = head[3:4], 3
    for _ in range(_ISA_ELEMENTS - 1):
        at = head.find(element, at + 1)
        if at < 0:
            return None
    both = head[at + 1 : at + 3]
    return Separators(element, both[0], both[1]) if len(both) == 2 else None


def _of_unb(head: str) -> Separators:
    """Without UNA the separators are the usual ones; some senders end a segment with its line."""
    line = head.partition("\n")
    following = line[2].lstrip(_BETWEEN)
    by_line = EDIFACT.terminator not in line[0] and following.startswith(("UNH+", "UNG+"))
    return Separators("+", ":", "\n", "?") if by_line else EDIFACT


def _tell_apart(found: Separators) -> bool:
    plain = found.all.isascii() and not any(one.isalnum() for one in found.all)
    return plain and len(set(found.all)) == len(found.all) and found.element not in whitespace


def _other(head: str, syntax: Syntax) -> str:
    """What a file is that is no interchange of a syntax."""
    wanted = f"an interchange of {NAMES[syntax]} begins with {OPENS[syntax]}"
    if head.startswith("STX="):
        return f"this is TRADACOMS, which is not taken; {wanted}"
    if syntax != "x12" and head.startswith("ISA"):
        return "this is X12; take it in by a mapping of format x12"
    if syntax != "edifact" and head.startswith(("UNA", "UNB")):
        return "this is EDIFACT; take it in by a mapping of format edifact"
    return f"this begins with {head[:10]!r}; {wanted}"


def _released(text: str, end: int, start: int, release: str) -> bool:
    """Whether the character at `end` is made plain by the release characters before it."""
    at = end
    while at > start and text[at - 1] == release:
        at -= 1
    return (end - at) % 2 == 1


def _split(text: str, separator: str, release: str) -> list[str]:
    """The parts between separators, release characters still in them."""
    parts = text.split(separator)
    if not release or release not in text:
        return parts
    whole: list[str] = []
    held: list[str] = []
    for part in parts:
        held.append(part)
        if not _released(part, len(part), 0, release):
            whole.append(separator.join(held))
            held = []
    if held:
        whole.append(separator.join(held))
    return whole


def _plain(text: str, release: str) -> str:
    """The text without its release characters."""
    if not release:
        return text
    pieces = text.split(release)
    plain, skip = [pieces[0]], False
    for place, piece in enumerate(pieces[1:], start=1):
        # An empty piece stands between two release characters: the second is meant.
        if skip:
            plain.append(piece)
            skip = False
        elif piece or place == len(pieces) - 1:
            plain.append(piece)
        else:
            plain.append(release)
            skip = True
    return "".join(plain)


# Writing ------------------------------------------------------------------------------------------------

_X12_SEPARATORS = ("*|^\x1d", ">:\\\x1f", "~'\x1e\x1c")


def separators(texts: Iterable[str], syntax: Syntax) -> Separators:
    """Separators to write these texts with: X12 cannot release one, so none of them may occur.

    Raises `Refused` when every one that X12 offers occurs.
    """
    if syntax == "edifact":
        return EDIFACT
    used = set().union(*map(set, texts))
    free = [[one for one in offered if one not in used] for offered in _X12_SEPARATORS]
    if not all(free):
        raise Refused("the texts use every separator that X12 offers; it cannot be written in X12")
    element, component, terminator = (offered[0] for offered in free)
    return Separators(element, component, terminator)


def line(tag: str, elements: Sequence[Written], apart: Separators) -> str:
    """One segment as it is written; what is empty at the end of an element or segment is left out.

    Raises `Refused` for characters that cannot be in an interchange: line breaks and other controls.
    """
    written = [
        apart.component.join(_trimmed([_escaped(part, apart) for part in _parts(element)]))
        for element in elements
    ]
    return apart.element.join([tag, *_trimmed(written)]) + apart.terminator


def _parts(element: Written) -> Sequence[str]:
    return [element] if isinstance(element, str) else element


def _trimmed(parts: list[str]) -> list[str]:
    while parts and not parts[-1]:
        parts = parts[:-1]
    return parts


def _escaped(text: str, apart: Separators) -> str:
    if not text.isprintable():
        raise Refused(f"{text!r} holds characters that cannot be written in an interchange")
    if not any(one in text for one in apart.all):
        return text
    if not apart.release:
        raise Refused(f"{text!r} holds a separator of its interchange")
    return "".join(apart.release + one if one in apart.all else one for one in text)
