"""Ledger entries as they are kept: some together on a page, one a line as an export has them, compressed.

Hides the compression (Zstandard). Entries of one run are much alike: together they take an eighth of their
length. A page that was damaged reads as entries that are not there, so that a check can name them.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

# Enough to be alike, and few enough for one of them to be read quickly.
ENTRIES_A_PAGE = 64
_FORMAT, _LEVEL = "zstd", 1


class Page(NamedTuple):
    """Some entries: the place of the first of them, how many, and their compressed text."""

    first: int
    many: int
    content: bytes


def packed(entries: pa.StringArray) -> list[Page]:
    """Pages of entries in their order."""
    lines = pc.binary_join_element_wise(entries, pa.scalar(""), pa.scalar("\n"))
    _, offsets, content = lines.buffers()
    ends = memoryview(offsets).cast("i")
    codec = pa.Codec(_FORMAT, _LEVEL)
    found = []
    for first in range(0, len(lines), ENTRIES_A_PAGE):
        many = min(ENTRIES_A_PAGE, len(lines) - first)
        begin, end = ends[first], ends[first + many]
        body = codec.compress(content.slice(begin, end - begin), asbytes=True)
        found.append(Page(first, many, body))
    return found


def unpacked(content: bytes, many: int) -> pa.StringArray:
    """The entries of a page; as many nulls when the content is not what was packed."""
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), _FORMAT) as stream:
            *lines, rest = bytes(stream.read()).split(b"\n")
        entries = pa.array(lines, pa.string())
    except (OSError, pa.ArrowInvalid):
        return pa.nulls(many, pa.string())
    return entries if len(entries) == many and not rest else pa.nulls(many, pa.string())
