"""Arrow tables in the form that PostgreSQL's COPY takes in fastest: its binary one.

Hides the layout: each row is its number of columns, then for each column its length and its bytes, the high
byte first. A run of rows is put together column by column, without a loop over rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep.errors import InvariantBroken

HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
_ROWS_AT_ONCE = 8_192
_UUID = "-".join("0" * many for many in (8, 4, 4, 4, 12))
# PostgreSQL's own numbers of its types, which never change, and how many bytes a value of them has.
_TEXT, _UUIDS, _TIMES, _DATES = 25, 2950, 1184, 1082
_NUMBERS: Mapping[int, tuple[pa.DataType, str]] = {
    16: (pa.uint8(), ">u1"),
    20: (pa.int64(), ">i8"),
    23: (pa.int32(), ">i4"),
    701: (pa.float64(), ">f8"),
    _TIMES: (pa.timestamp("us", tz="UTC"), ">i8"),
    _DATES: (pa.date32(), ">i4"),
}
_LISTS: Mapping[int, int] = {1009: _TEXT, 1016: 20, 1022: 701}
_EPOCH = np.datetime64("2000-01-01")
_SINCE_1970 = {_TIMES: _EPOCH.astype("M8[us]").astype(int), _DATES: _EPOCH.astype(int)}


def encoded(rows: pa.Table, kinds: Sequence[int]) -> Iterator[memoryview]:
    """Rows as COPY reads them, some thousands at a time; `kinds` are the columns' types, by number."""
    opening = pa.scalar(struct.pack(">h", rows.num_columns), pa.binary())
    for start in range(0, rows.num_rows, _ROWS_AT_ONCE):
        part = rows.slice(start, _ROWS_AT_ONCE).combine_chunks()
        cells: list[Any] = [opening]
        for column, kind in zip(part.columns, kinds, strict=True):
            cells += _cells(column.chunk(0), kind)
        joined = pc.binary_join_element_wise(*cells, pa.scalar(b"", pa.binary()))
        _, offsets, content = joined.buffers()
        ends = memoryview(offsets).cast("i")
        yield memoryview(content)[ends[0] : ends[part.num_rows]]


def _cells(column: pa.Array, kind: int) -> tuple[pa.Array, pa.Array]:
    """The lengths of a column's values, -1 of what is null, and the values."""
    if kind in _LISTS:
        return _lists(column, _LISTS[kind])
    if kind == _TEXT:
        values = column.cast(pa.string()).cast(pa.binary())
        lengths = pc.fill_null(pc.binary_length(values), -1).to_numpy().astype(">i4")
        return _fixed(lengths), values.fill_null(b"")
    found = _uuids(column) if kind == _UUIDS else _numbers(column, kind)
    lengths = np.full(len(column), found.dtype.itemsize, ">i4")
    values = _fixed(found)
    if column.null_count:
        known = column.is_valid()
        lengths[~known.to_numpy(zero_copy_only=False)] = -1
        values = pc.if_else(known, values, pa.scalar(b"", pa.binary()))
    return _fixed(lengths), values


def _lists(column: pa.StructArray, kind: int) -> tuple[pa.Array, pa.Array]:
    """Structures as lists of their members: dimensions, kind, length, and then the values."""
    members = column.flatten()
    if not members:
        empty = pa.scalar(struct.pack(">iii", 0, 0, kind), pa.binary())
        values = pa.repeat(empty, len(column))
    else:
        nulls = any(each.null_count for each in members)
        opening = struct.pack(">iiiii", 1, int(nulls), kind, len(members), 1)
        cells: list[Any] = [pa.scalar(opening, pa.binary())]
        for each in members:
            cells += _cells(each, kind)
        values = pc.binary_join_element_wise(*cells, pa.scalar(b"", pa.binary()))
    return _fixed(pc.binary_length(values).to_numpy().astype(">i4")), values


def _uuids(column: pa.Array) -> np.ndarray[Any, Any]:
    texts = column.fill_null(_UUID)
    digits = pc.replace_substring(texts, "-", "")
    if pc.any(pc.not_equal(pc.binary_length(digits), 32)).as_py():
        raise InvariantBroken("an identifier is not a UUID")
    return np.frombuffer(bytes.fromhex("".join(digits.to_pylist())), "V16")


def _numbers(column: pa.Array, kind: int) -> Any:
    if kind not in _NUMBERS:
        raise InvariantBroken(f"a column of PostgreSQL's type {kind} is not copied into")
    arrow, layout = _NUMBERS[kind]
    whole = column.cast(arrow)
    if kind in _SINCE_1970:
        whole = whole.cast(pa.int64() if kind == _TIMES else pa.int32())
    filled = whole.fill_null(0).to_numpy() - _SINCE_1970.get(kind, 0)
    return filled.astype(layout)


def _fixed(values: np.ndarray[Any, Any]) -> pa.BinaryArray:
    """Values of equal length as bytes."""
    many, size = len(values), values.dtype.itemsize
    ends = np.arange(0, size * many + 1, size, dtype=np.int32)
    return pa.Array.from_buffers(
        pa.binary(), many, [None, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(values))]
    )
