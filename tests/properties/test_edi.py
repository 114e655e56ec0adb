"""Whatever a file holds, it is read whole, told in part, or refused; whatever is written is read back."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import get_args

from hypothesis import example, given
from hypothesis import strategies as st

from storekeep import edi
from storekeep.edi import Syntax, Written, segments
from storekeep.errors import Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.interchanges import blocks
from storekeep.ingest.messages import COLUMNS
from tests import interchanges as made
from tests.fuzz.formats import samples

SYNTAXES: st.SearchStrategy[Syntax] = st.sampled_from(get_args(Syntax))
GOOD: dict[Syntax, list[bytes]] = {"x12": samples("x12"), "edifact": samples("edifact")}
# What a damaged file is put together from: words of the syntax come oftener than chance has them.
SHARDS = st.one_of(
    st.sampled_from(
        b"ISA|GS|ST|SE|GE|IEA|UNA|UNB|UNG|UNH|UNT|UNE|UNZ|HL|LIN|QTY|SDQ|~|*|>|'|+|:|?|??|?'|\n|\r\n|\xef\xbb\xbf|\0"
        b"|LIN*1*IN*a~|QTY+153:1'|ZA*QS~|HL*1*9*I~|9|-1".split(b"|")
    ),
    st.binary(max_size=8),
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Syntax, bytes]:
    """A good file of which pieces are lost, doubled, moved or other."""
    syntax = draw(SYNTAXES)
    body = draw(st.sampled_from(GOOD[syntax]))
    for _ in range(draw(st.integers(0, 4))):
        low, high = sorted(draw(st.integers(0, len(body))) for _ in range(2))
        with_ = draw(st.one_of(SHARDS, st.just(body[low:high] * 2), st.just(b"")))
        body = body[:low] + with_ + body[draw(st.sampled_from((low, high))) :]
    return syntax, body


def read(body: bytes, syntax: Syntax) -> tuple[int, int]:
    """How many lines are taken and turned away; a file that is refused has none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.edi")
        path.write_bytes(body)
        try:
            found = list(blocks(Opened(path, "a.edi"), tuple(COLUMNS), syntax, block_rows=3))
        except Refused:
            return 0, 0
    assert found
    places = [place for each in found for place in each.lines.to_pylist()]
    assert places == sorted(places)
    assert all(each.cells.num_rows == len(each.lines) for each in found)
    return sum(len(each.lines) for each in found), sum(each.malformed.num_rows for each in found)


@given(damaged())
@example(("edifact", GOOD["edifact"][0].replace(b"UNB+", b"UNB")))
@example(("edifact", b"UNB+UNOC:3+A+B'UNH+1+SLSRPT'LIN'QTY'UNT+4+1'UNZ+1+'"))
@example(
    ("x12", made.ISA.format("A", 1).encode() + b"GS~ST*852~SDQ*EA*9~ZA~SE*4~GE*1~IEA*1*000000001~")
)
def test_a_damaged_file_is_told_or_refused_and_never_fails(case: tuple[Syntax, bytes]) -> None:
    syntax, body = case
    read(body, syntax)


@given(SYNTAXES, st.lists(SHARDS, max_size=40))
def test_any_bytes_are_told_or_refused(syntax: Syntax, shards: list[bytes]) -> None:
    read(b"".join(shards), syntax)
    head = GOOD[syntax][0].partition(b"\n")[0]
    read(head + b"".join(shards), syntax)


@given(SYNTAXES, st.data())
def test_a_segment_more_or_less_is_never_taken(syntax: Syntax, data: st.DataObject) -> None:
    """A line is lost, or comes twice, between the first and the last of a message: its count tells."""
    lines = made.SALES_852 if syntax == "x12" else made.SALES_SLSRPT
    place = data.draw(st.integers(0, len(lines) - 1))
    more = data.draw(st.booleans())
    body = [*lines[:place], *([lines[place]] * 2 if more else []), *lines[place + 1 :]]
    kind = "852" if syntax == "x12" else "SLSRPT"
    wrap = made.x12 if syntax == "x12" else made.edifact
    right = wrap((kind, lines)).encode()
    said = right.splitlines(keepends=True)
    wrong = wrap((kind, body)).encode().splitlines(keepends=True)
    trailer = -3 if syntax == "x12" else -2
    wrong[trailer] = said[trailer]
    assert read(right, syntax)[1] == 0
    assert read(b"".join(wrong), syntax) == (0, 1)


TEXTS = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" *>~+:'?|^\\"), max_size=20
)
ELEMENTS = st.one_of(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))


def trimmed(parts: list[str]) -> list[str]:
    while parts and not parts[-1]:
        parts = parts[:-1]
    return parts


@given(st.lists(st.tuples(st.sampled_from(("LIN", "FTX", "N1")), st.lists(ELEMENTS, max_size=5))))
@example([("FTX", ["?", ["??'", "?"]])])
def test_what_is_written_in_edifact_is_read_back(said: list[tuple[str, list[Written]]]) -> None:
    text = "".join(edi.line(tag, elements, edi.EDIFACT) for tag, elements in said)
    body = f"UNB+UNOW:4+A+B'{text}UNZ+0+1'".encode()
    found = list(segments(io.BytesIO(body), "edifact", "a.edi"))[1:-1]
    assert [each.tag for each in found] == [tag for tag, _ in said]
    for one, (_, elements) in zip(found, said, strict=True):
        for place, element in enumerate(elements, start=1):
            parts = [element] if isinstance(element, str) else list(element)
            assert [one.text(place, at) for at in range(1, len(parts) + 1)] == parts


@given(st.lists(st.tuples(st.sampled_from(("N1", "PO1")), st.lists(TEXTS, max_size=5))))
@example([("N1", ["*", "^", "|"])])
def test_what_is_written_in_x12_is_read_back(said: list[tuple[str, list[str]]]) -> None:
    texts = [text for _, elements in said for text in elements]
    try:
        apart = edi.separators(texts, "x12")
    except Refused:
        assert set("*|^") < set("".join(texts)) or set(">:\\") < set("".join(texts))
        return
    head = made.ISA.format("A", 1)[:-2].replace("*", apart.element)
    text = "".join(edi.line(tag, elements, apart) for tag, elements in said)
    end = edi.line("IEA", ["0", "000000001"], apart)
    body = f"{head}{apart.component}{apart.terminator}{text}{end}".encode()
    found = list(segments(io.BytesIO(body), "x12", "a.edi"))[1:-1]
    assert [(each.tag, each.elements[1:]) for each in found] == [
        (tag, trimmed(elements)) for tag, elements in said
    ]
