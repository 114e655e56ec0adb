"""Canonical JSON (RFC 8785) and SHA-256 of whole tables at once.

Everything that is hashed passes here: evidence, proposals, ledger entries. Hides how rows become canonical
text without a Python loop: column by column, and only rows that the vectorised form cannot be sure of (a
number whose shortest form needs an exponent, a text with a control character) go one by one through the
reference library.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import cache
from itertools import pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rfc8785

from storekeep.errors import InvariantBroken

_LARGEST_INTEGER = 2**53 - 1
# DuckDB hands an Arrow table out to its threads chunk by chunk: one in a single piece is one thread's work.
_CHUNK_ROWS = 16_384
# Numbers are put into words once each where, of so many, no more than one in four differs from all others.
_PROBED, _OFTEN = 1_024, 4


def text(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """One value as canonical JSON; times must already be text.

    Raises `InvariantBroken` for what JSON cannot carry exactly: NaN, integers beyond 2^53 - 1, other types.
    """
    try:
        return rfc8785.dumps(value).decode()
    except rfc8785.CanonicalizationError as error:
        raise InvariantBroken(f"this cannot be hashed: {error}") from error


def digest(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(text(value).encode()).hexdigest()


def rows(table: pa.Table, written: Collection[str] = ()) -> pa.StringArray:
    """Each row as one canonical JSON object, keys sorted, as RFC 8785 wants.

    Timestamps become `2017-10-03T00:00:00.000000Z`, dates `2017-10-03`. What JSON cannot carry exactly is
    refused with `InvariantBroken`: NaN and infinity, integers beyond 2^53 - 1, nanoseconds, binary,
    decimals; so are two members of one name. Columns that are `written` hold canonical JSON already and go
    in as they are.
    """
    if table.num_columns == 0 or table.num_rows == 0:
        return pa.array(["{}"] * table.num_rows, pa.string())
    whole = table.combine_chunks()
    columns = [column.chunk(0) for column in whole.columns]
    cells, unsure = _object(list(zip(whole.column_names, columns, strict=True)), written)
    texts = _joined(cells)
    if unsure is None or not unsure.true_count:
        return texts
    return _mend(whole, texts, unsure, written)


def members(texts: pa.StringArray, names: Sequence[str]) -> pa.Table:
    """Texts or null under these names of JSON objects, a column each; all null where a text is no JSON."""
    paths = ", ".join("'$.\"" + name + "\"'" for name in names)
    columns = ", ".join(f"found[{place}]" for place in range(1, len(names) + 1))
    found = f"CASE WHEN json_valid(text) THEN json_extract_string(text, [{paths}]) END"
    return _run(
        f"SELECT {columns} FROM (SELECT {found} AS found FROM input)", pa.table({"text": texts})
    ).rename_columns(list(names))


def sha256(texts: pa.StringArray, before: str = "", skip: int = 0) -> pa.StringArray:
    """SHA-256, in hexadecimal, of the UTF-8 bytes of each text, with the text `before` in place of `skip`."""
    return hexadecimal(hashes(texts, before.encode(), skip))


def hashes(
    texts: pa.StringArray | pa.BinaryArray, before: bytes = b"", skip: int = 0
) -> list[bytes]:
    """SHA-256 of the bytes of each text, UTF-8 or raw, with the same bytes `before` it in place of `skip`."""
    if not len(texts):
        return []
    _, offsets, content = texts.buffers()
    ends = memoryview(offsets).cast("i")[texts.offset : texts.offset + len(texts) + 1].tolist()
    view = memoryview(content or b"")
    opened = hashlib.sha256(before).copy
    out = []
    for start, end in pairwise(ends):
        one = opened()
        one.update(view[start + skip : end])
        out.append(one.digest())
    return out


def hexadecimal(values: Sequence[bytes]) -> pa.StringArray:
    """Values of equal length as hexadecimal text."""
    many = len(values)
    text = b"".join(values).hex().encode()
    ends = array("i", range(0, len(text) + 1, len(text) // many)) if many else array("i", [0])
    return pa.StringArray.from_buffers(many, pa.py_buffer(ends), pa.py_buffer(text))


def _run(query: str, table: pa.Table) -> pa.Table:
    """The answer to a query over `input`, the rows in their order."""
    pieces = table.combine_chunks().to_batches(max_chunksize=_CHUNK_ROWS)
    try:
        with _database(os.getpid()).cursor() as cursor:
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.register("input", pa.Table.from_batches(pieces, table.schema))
            return cursor.execute(query).to_arrow_table()
    except duckdb.Error as error:
        raise InvariantBroken(f"a table cannot be hashed: {error}") from error


@cache
def _database(_process: int) -> duckdb.DuckDBPyConnection:
    """An empty database, kept since opening one takes longer than a small table does; one a process."""
    return duckdb.connect()


def _mend(
    table: pa.Table, texts: pa.StringArray, unsure: pa.BooleanArray, written: Collection[str]
) -> pa.StringArray:
    exact = []
    for row in table.filter(unsure).to_pylist():
        # A float beyond 2^53 has no point in it when it is written, and must not come back as an integer.
        told = {name: json.loads(row[name] or "null", parse_int=float) for name in written}
        exact.append(text(_plain({**row, **told})))
    return pc.replace_with_mask(texts, unsure, pa.array(exact, pa.string()))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        utc = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return utc.isoformat(timespec="microseconds") + "Z"
    return value.isoformat() if isinstance(value, date) else value


# What a text is put together from: parts that are the same in all rows, and parts that are not.
_Cells = list[str | pa.StringArray]


def _object(
    members_: Sequence[tuple[str, pa.Array]], written: Collection[str] = ()
) -> tuple[_Cells, pa.BooleanArray | None]:
    """The text of each object, and which need the reference library; those `written` go in as they are."""
    names = [name for name, _ in members_]
    if not names or len(set(names)) < len(names):
        raise InvariantBroken(f"an object with these names cannot be hashed: {', '.join(names)}")
    cells: _Cells = []
    doubts: list[pa.BooleanArray | None] = []
    for name, values in sorted(members_, key=lambda each: each[0].encode("utf-16-be")):
        told, doubt = ([_or_null(values)], None) if name in written else _value(values)
        cells += [f"{',' if cells else '{'}{text([name])[1:-1]}:", *told]
        doubts.append(doubt)
    return [*cells, "}"], _any(doubts)


def _value(values: pa.Array) -> tuple[_Cells, pa.BooleanArray | None]:
    """Each value as JSON, and which need the reference library."""
    kind = values.type
    if pa.types.is_struct(kind):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        body, doubt = _object(list(zip(names, values.flatten(), strict=True)))
        return ([_where(values, _joined(body))] if values.null_count else body), doubt
    if pa.types.is_list(kind):
        return _list(values)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _string(values.cast(pa.string()))
    if pa.types.is_floating(kind):
        return _number(values.cast(pa.float64()))
    return [_or_null(_exact(values))], None


def _exact(values: pa.Array) -> pa.StringArray:
    """Values of a kind that has one spelling."""
    kind = values.type
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.string())
    if pa.types.is_integer(kind):
        least, most = pc.min_max(values).as_py().values()
        if least is not None and max(-least, most) > _LARGEST_INTEGER:
            raise InvariantBroken("an integer beyond 2^53 - 1 cannot be hashed")
        return values.cast(pa.string())
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        zone = None if kind.tz is None else "UTC"
        times = values.cast(pa.timestamp("us", zone)).cast(pa.timestamp("us")).cast(pa.string())
        return _joined(['"', pc.replace_substring(times, " ", "T", max_replacements=1), 'Z"'])
    if pa.types.is_date(kind):
        days = values.cast(pa.date32()).dictionary_encode()
        return _joined(['"', days.dictionary.cast(pa.string()).take(days.indices), '"'])
    raise InvariantBroken(f"a column of type {kind} cannot be hashed")


def _string(values: pa.StringArray) -> tuple[_Cells, pa.BooleanArray | None]:
    doubt = None
    if not _plain_text(values):
        doubt = pc.match_substring_regex(values, "[\\x00-\\x1f\\x7f]")
        for mark in ("\\", '"'):
            values = pc.replace_substring(values, mark, "\\" + mark)
    cells: _Cells = ['"', values, '"']
    return ([_or_null(_joined(cells))] if values.null_count else cells), doubt


def _plain_text(values: pa.StringArray) -> bool:
    """Whether no character of any of them has to be written otherwise."""
    _, offsets, content = values.buffers()
    ends = memoryview(offsets).cast("i")
    begin, end = ends[values.offset], ends[values.offset + len(values)]
    signs = np.frombuffer(content or b"", np.uint8)[begin:end]
    marks = (signs < ord(" ")) | (signs == ord('"')) | (signs == ord("\\")) | (signs == 127)
    return not marks.any()


def _number(values: pa.DoubleArray) -> tuple[_Cells, pa.BooleanArray]:
    """Numbers, each put into words once where many are the same."""
    if len(values.slice(0, _PROBED).unique()) > _PROBED // _OFTEN or len(values) <= _PROBED:
        texts, doubt = _spelled(values)
    else:
        encoded = values.dictionary_encode()
        spelled, doubted = _spelled(encoded.dictionary)
        texts, doubt = spelled.take(encoded.indices), doubted.take(encoded.indices)
    return [_or_null(texts)], doubt


def _spelled(values: pa.DoubleArray) -> tuple[pa.StringArray, pa.BooleanArray]:
    size = pc.abs(values)
    whole = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(size, 2.0**53))
    if not whole.true_count:
        texts = values.cast(pa.string())
    else:
        integers = pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string())
        alike = whole.true_count == len(values)
        texts = integers if alike else pc.if_else(whole, integers, values.cast(pa.string()))
    # Outside these bounds an exponent is written; a number that is none is in neither.
    plain = pc.and_(pc.greater_equal(size, 0.0001), pc.less(size, 1e10))
    return texts, pc.invert(pc.or_(whole, plain))


def _list(values: pa.ListArray) -> tuple[_Cells, pa.BooleanArray | None]:
    cells, doubt = _value(values.flatten())
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy()
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, _joined(cells)), ",")
    body: _Cells = ["[", joined, "]"]
    if values.null_count:
        body = [_where(values, _joined(body))]
    if doubt is None:
        return body, None
    rows_ = np.repeat(np.arange(len(values)), lengths)
    unsure = np.zeros(len(values), dtype=bool)
    unsure[rows_[pc.fill_null(doubt, False).to_numpy(zero_copy_only=False)]] = True
    return body, pa.array(unsure)


def _where(values: pa.Array, texts: pa.StringArray) -> pa.StringArray:
    """The texts of values that there are."""
    return pc.if_else(values.is_valid(), texts, "null")


def _or_null(texts: pa.StringArray) -> pa.StringArray:
    return pc.fill_null(texts, "null") if texts.null_count else texts


def _any(doubts: Sequence[pa.BooleanArray | None]) -> pa.BooleanArray | None:
    """Where any of them doubts; None when nobody does."""
    found = None
    for doubt in doubts:
        if doubt is not None and doubt.true_count:
            own = pc.fill_null(doubt, False)
            found = own if found is None else pc.or_(found, own)
    return found


def _joined(cells: _Cells) -> pa.StringArray:
    """The texts; in one call with all parts, since one after another would copy them once for each part."""
    merged: _Cells = []
    for cell in cells:
        if merged and isinstance(cell, str) and isinstance(merged[-1], str):
            merged[-1] += cell
        else:
            merged.append(cell)
    scalars = [pa.scalar(each, pa.string()) if isinstance(each, str) else each for each in merged]
    return pc.binary_join_element_wise(*scalars, pa.scalar(""))
