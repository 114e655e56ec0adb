"""What must hold of any structured file, however damaged: refused or read, never half, never a traceback."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from storekeep.errors import Refused
from storekeep.ingest import epcis, poslog
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block
from tests.fuzz.formats import READERS, samples

NOISE = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"<", b">", b"</", b"/>", b"&", b"&#0;", b'"', b"'", b"<!--", b"<![CDATA[", b"<!DOCTYPE x [", b"\0",
         b"\xff", b"-1", b"1e9", b"NaN", b"9" * 40, b"[", b"]", b"{", b"}", b",", b":", b"null", b"true",
         b'VoidFlag="true"', b"<ItemLink>1</ItemLink>", b"CancelFlag='1'", b"urn:epc:id:sgtin:", b"/01/"],
    ),
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A good document in which a digit is another, or some bytes are cut out, put in, or there twice."""
    content = draw(st.sampled_from(samples(name)))
    if draw(st.booleans()):
        digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
        at = draw(st.sampled_from(digits))
        return content[:at] + draw(st.sampled_from(b"0123456789.-x")).to_bytes() + content[at + 1 :]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 60)))
        put = draw(st.one_of(NOISE, st.just(content[start:end] * 2)))
        content = content[:start] + put + content[end:]
    return content[: draw(st.sampled_from([len(content), len(content) // 2]))]


def read(name: str, content: bytes) -> list[Block] | None:
    """The blocks of a document; None where it is refused."""
    reader, columns = READERS[name]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "document"
        path.write_bytes(content)
        try:
            return list(reader(Opened(path, "document"), columns))
        except Refused as error:
            if not str(error).startswith("document"):
                raise
            return None


def fates(found: list[Block]) -> list[bool] | None:
    """Of each row, in the document's order, whether it is good; None where that cannot be told."""
    placed = [(line, True) for block in found for line in block.lines.to_pylist()]
    placed += [(line, False) for block in found for line in block.malformed["line"].to_pylist()]
    if len({line for line, _ in placed}) < len(placed):
        return None
    return [good for _, good in sorted(placed)]


@given(damaged("poslog"))
def test_of_a_damaged_poslog_a_transaction_is_taken_in_whole_or_not_at_all(content: bytes) -> None:
    found = read("poslog", content)
    if found is None:
        return
    assert [block.cells for block in found] == [
        block.cells for block in read("poslog", content) or []
    ]
    told = fates(found)
    if told is None:
        return
    root = etree.fromstring(content, etree.XMLParser(resolve_entities=False))
    rows = iter(told)
    space = str(root.tag).rpartition("}")[0]
    space = f"{space}}}" if space else ""
    alone = str(root.tag).endswith("Transaction")
    transactions = [root] if alone else list(root.iterchildren("{*}Transaction"))
    for transaction in transactions:
        holder = transaction.find(f"{space}RetailTransaction")
        items = (transaction if holder is None else holder).findall(f"{space}LineItem")
        assert len(set(islice(rows, max(len(items), 1)))) <= 1
    assert next(rows, None) is None


@given(damaged("epcis"))
def test_of_a_damaged_epcis_document_an_event_is_taken_in_whole_or_not_at_all(
    content: bytes,
) -> None:
    found = read("epcis", content)
    if found is None:
        return
    json.loads(content)
    good = {row["event"] for block in found for row in block.cells.to_pylist()}
    reasons = [str(reason) for block in found for reason in block.malformed["reason"].to_pylist()]
    bad = {reason.removeprefix("event ").partition(":")[0] for reason in reasons}
    assert not good & bad
    assert len(bad) == len(reasons)


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=200))
def test_any_bytes_are_refused_or_read(name: str, content: bytes) -> None:
    read(name, content)


@pytest.mark.parametrize("name", sorted(READERS))
def test_the_samples_are_good(name: str) -> None:
    for content in samples(name):
        found = read(name, content)
        assert found is not None
        assert sum(block.rows for block in found)
        assert not any(block.malformed.num_rows for block in found)
        assert pa.types.is_string(found[0].cells.schema.types[0])
    assert READERS["poslog"][0] is poslog.blocks
    assert READERS["epcis"][0] is epcis.blocks
