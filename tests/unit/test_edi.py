"""Segments of X12 and EDIFACT: separators, release characters, character sets, places; what is refused."""

from __future__ import annotations

import io

import pytest

from storekeep import edi
from storekeep.edi import Segment, Syntax, segments
from storekeep.errors import Refused

ISA = (
    "ISA*00*          *00*          *ZZ*ME             *ZZ*YOU            "
    "*260101*0900*U*00401*000000001*0*P*>~"
)


def read(text: str | bytes, syntax: Syntax = "edifact") -> list[Segment]:
    body = text.encode() if isinstance(text, str) else text
    return list(segments(io.BytesIO(body), syntax, "a.edi"))


def test_una_says_what_the_separators_are() -> None:
    usual = read("UNB+UNOA:3+A:14+B'UNZ+0+1'")
    other = read("UNA|^,! ~UNB^UNOA|3^A|14^B~UNZ^0^1~")
    assert [one.tag for one in usual] == [one.tag for one in other] == ["UNB", "UNZ"]
    assert [one.text(2, 2) for one in (usual[0], other[0])] == ["14", "14"]
    assert (other[0].text(1, 2), other[0].text(9), other[0].text(2, 7)) == ("3", "", "")


def test_a_release_character_makes_the_next_one_plain() -> None:
    (_, one, _) = read("UNB+UNOC:3+A+B'FTX+it?'s 2?+2?:4 ??+b:c??:d'UNZ+0+1'")
    assert one.text(1) == "it's 2+2:4 ?"
    assert [one.text(2, place) for place in (1, 2, 3)] == ["b", "c?", "d"]


def test_isa_says_what_the_separators_are_also_where_its_padding_is_lost() -> None:
    for head in (ISA, ISA.replace("  ", ""), ISA.replace("*", "|").replace("~", "\n")):
        apart = head[3]
        found = read(f"{head}IEA{apart}0{apart}000000001{head[-1]}", "x12")
        assert [one.tag for one in found] == ["ISA", "IEA"]
        assert found[0].text(13) == "000000001"


def test_lines_are_counted_and_their_breaks_are_no_text() -> None:
    found = read("UNA:+.? '\r\nUNB+UNOA:3+A+B'\r\n\tFTX+one\r\ntwo'\r\n\r\nUNZ+0+1'\r\n\x1a")
    assert [(one.tag, one.place, one.line) for one in found] == [
        ("UNB", 1, 2),
        ("FTX", 2, 3),
        ("UNZ", 3, 6),
    ]
    assert found[1].text(1) == "onetwo"


def test_a_segment_may_end_with_its_line() -> None:
    text = "UNB+UNOA:2+A+B+260101:0900+7++INVRPT\r\nUNH+1+INVRPT:D:97A:UN\r\nUNZ+1+7"
    assert [one.tag for one in read(text)] == ["UNB", "UNH", "UNZ"]
    assert read(text)[0].text(7) == "INVRPT"


def test_bytes_are_read_in_the_character_set_of_their_interchange() -> None:
    text = "UNB+{}:3+A+B'FTX+Käse'UNZ+0+1'"
    latin, utf8 = text.format("UNOC").encode("latin-1"), text.format("UNOW").encode()
    assert [read(each)[1].text(1) for each in (latin, utf8, b"\xef\xbb\xbf" + utf8)] == ["Käse"] * 3
    damaged = read(text.format("UNOW").encode("latin-1"))[1]
    assert (damaged.damaged, damaged.text(1)) == ("utf-8", "K\ufffdse")
    assert read(text.format("UNOA").encode())[1].damaged == "ascii"


def test_several_interchanges_stand_in_a_file_each_with_its_separators() -> None:
    one = "UNB+UNOC:3+A+B'FTX+Käse'UNZ+0+1'".encode("latin-1")
    two = "UNA|^,! ~UNB^UNOW|4^A^B~FTX^Käse^a+b~UNZ^0^2~".encode()
    found = read(one + b"\n\n" + two + b"  \n")
    assert [each.place for each in found] == [1, 2, 3, 4, 5, 6]
    assert [found[place].text(1) for place in (1, 4)] == ["Käse", "Käse"]
    assert (found[4].text(2), found[4].line) == ("a+b", 3)


def test_what_is_split_between_pieces_of_the_file_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "UNA:+.? '\nUNB+UNOC:3+A+B'\nFTX+it?'s ??'\nFTX++x:?+'\nUNZ+0+1'\n"
    whole = [(one.tag, one.elements, one.line) for one in read(text)]
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(edi, "CHUNK", size)
        assert [(one.tag, one.elements, one.line) for one in read(text)] == whole


@pytest.mark.parametrize(
    ("syntax", "text", "said"),
    [
        ("edifact", "", "holds no interchange"),
        ("edifact", " \r\n", "holds no interchange"),
        ("edifact", "STX=ANA:1+A+B'", "this is TRADACOMS, which is not taken"),
        ("edifact", ISA, "take it in by a mapping of format x12"),
        ("x12", "UNA:+.? 'UNB+UNOA:3", "take it in by a mapping of format edifact"),
        ("x12", "\n\nproduct,units\n", "line 3: this begins with 'product,un'"),
        ("edifact", "UNH+1+SLSRPT:D:96A:UN'", "an interchange of EDIFACT begins with UNB"),
        ("edifact", "UNBUNOA:3+A+B'UNZ+0+1'", "line 1: this begins with 'UNBUNOA:3+'"),
        ("edifact", "UNA:+.? '\nUNH+1'UNZ+0+1'", 'line 2: this begins with "UNH+1\'"'),
        ("edifact", "UNB+UNOA:3+A+B'UNH+1'", "that begins in line 1 has no UNZ; send it again"),
        ("edifact", "UNB+UNOA:3+A+B'UNZ+0+1'UNB+UNOA", "that begins in line 1 has no UNZ"),
        ("x12", ISA, "is cut short: the interchange that begins in line 1 has no IEA"),
        ("x12", "ISA*00*", "the separators of its ISA cannot be told apart"),
        ("x12", ISA[:-1], "the separators of its ISA cannot be told apart"),
        ("x12", ISA.replace(">~", "~~"), "cannot be told apart"),
        ("edifact", "UNA++.? 'UNB", "the separators of its UNA cannot be told apart"),
        ("edifact", "UNAx+.? 'UNB", "the separators of its UNA cannot be told apart"),
        ("edifact", "UNB+UNOA:3+A'UNB+UNOA:3+A'UNZ+0+1'", "begins before the one of segment 1"),
    ],
)
def test_what_is_no_interchange_is_refused_with_what_it_is(
    syntax: Syntax, text: str, said: str
) -> None:
    with pytest.raises(Refused, match=r"a\.edi") as caught:
        read(text, syntax)
    assert said in str(caught.value)


def test_a_segment_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            assert self.given < 1 << 20
            return b"UNB+UNOA:3+A'" if self.given == size else b"x" * size

    with pytest.raises(
        Refused, match="the segment after 1, in line 1, does not end within 256 KiB"
    ):
        list(segments(Endless(), "edifact", "a.edi"))  # type: ignore[arg-type]  # only read is called


def test_what_is_written_is_what_is_read() -> None:
    said: list[tuple[str, list[edi.Written]]] = [("FTX", ["a+b", ["", "c:d", "??'"], "", "e", ""])]
    written = "".join(edi.line(tag, elements, edi.EDIFACT) for tag, elements in said)
    assert written == "FTX+a?+b+:c?:d:?????'++e'"
    (_, one, _) = read(f"UNB+UNOC:3+A+B'{written}UNZ+0+1'")
    assert [one.text(1), one.text(2, 2), one.text(2, 3), one.text(4)] == ["a+b", "c:d", "??'", "e"]


def test_x12_is_written_with_separators_that_are_in_no_text() -> None:
    apart = edi.separators(["a*b", "c>d~"], "x12")
    assert (apart.element, apart.component, apart.terminator) == ("|", ":", "'")
    assert edi.line("N1", ["ST", "a*b"], apart) == "N1|ST|a*b'"
    with pytest.raises(Refused, match="every separator that X12 offers"):
        edi.separators(["*|^\x1d"], "x12")
    with pytest.raises(Refused, match="holds a separator of its interchange"):
        edi.line("N1", ["a|b"], apart)


def test_a_text_that_no_interchange_can_hold_is_refused() -> None:
    for text in ("a\nb", "a\x00", "\x1d"):
        with pytest.raises(Refused, match="cannot be written in an interchange"):
            edi.line("FTX", [text], edi.EDIFACT)
