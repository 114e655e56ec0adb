"""JSON lines: a JSON object on each line, read as `documents` says; a row's line is that of its object."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from storekeep.errors import Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block
from storekeep.ingest.documents import Gathered, Unfit, checked, document, paths

LINE_BYTES = 8 << 20
_LOOKED_AT = 1_000
_MARK = b"\xef\xbb\xbf"


def names(file: Opened) -> list[str]:
    """The paths that the first thousand documents of a file have."""
    found: dict[str, None] = {}
    for _, line in islice(_lines(file), _LOOKED_AT):
        try:
            said = document(line)
        except Unfit:
            continue
        found |= dict.fromkeys(paths(said))
    return list(found)


def blocks(file: Opened, columns: tuple[str, ...]) -> Iterator[Block]:
    """Rows of a file of JSON lines, in blocks of about 50,000, with their lines.

    Raises `Refused` when no line holds JSON or one is longer than 8 MiB, `Misused` when no document has any
    of the columns.
    """
    yield from checked(_blocks(file, columns), file.name, names(file))


def _blocks(file: Opened, columns: tuple[str, ...]) -> Iterator[Block]:
    gathered, sound = Gathered(columns), False
    for number, line in _lines(file):
        text = line.decode(errors="replace")
        try:
            gathered.add(number, document(line), text)
            sound = True
        except Unfit as error:
            gathered.refuse(number, str(error), text)
        if gathered.full:
            yield gathered.block()
    if not sound:
        raise Refused(
            f"{file.name} holds no JSON on any of its lines; each must hold one object, whole"
        )
    yield gathered.block()


def _lines(file: Opened) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, with their numbers."""
    with file.path.open("rb") as stream:
        lines = iter(lambda: stream.readline(LINE_BYTES + 1), b"")
        for number, line in enumerate(lines, 1):
            if len(line) > LINE_BYTES:
                raise Refused(
                    f"{file.name}, line {number}: it is longer than {LINE_BYTES >> 20} MiB; "
                    "each line must hold one JSON object"
                )
            said = line.removeprefix(_MARK if number == 1 else b"").strip()
            if said:
                yield number, said
