"""Canonical JSON (RFC 8785) and SHA-256 of whole tables at once.

Everything that is hashed passes here: evidence, proposals, ledger entries. Hides how rows become canonical
text without a Python loop: one SQL expression built from the table's schema runs in DuckDB, and only rows
that the vectorised form cannot be sure of (a number whose shortest form needs an exponent, a text with a
control character) go one by one through the reference library.
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
import pyarrow as pa
import pyarrow.compute as pc
import rfc8785

from storekeep.errors import InvariantBroken

_LARGEST_INTEGER = 2**53 - 1
# DuckDB hands an Arrow table out to its threads chunk by chunk: one in a single piece is one thread's work.
_CHUNK_ROWS = 16_384


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
    decimals; so are names in one object that differ in case only, which SQL cannot tell apart. Columns that
    are `written` hold canonical JSON already and go in as they are.
    """
    if table.num_columns == 0 or table.num_rows == 0:
        return pa.array(["{}"] * table.num_rows, pa.string())
    places = [f"c{place}" for place in range(table.num_columns)]
    text_sql, unsure_sql = _object(list(zip(table.schema, places, strict=True)), written)
    result = _run(
        f"SELECT {text_sql} AS text, {unsure_sql} AS unsure FROM input",
        table.rename_columns(places),
    )
    texts = result["text"].combine_chunks()
    unsure = result["unsure"].combine_chunks()
    if not unsure.true_count:
        return texts
    return _mend(table, texts, unsure, written)


def members(texts: pa.StringArray, names: Sequence[str]) -> pa.Table:
    """Texts or null under these names of JSON objects, a column each; all null where a text is no JSON."""
    paths = ", ".join("'$.\"" + name + "\"'" for name in names)
    columns = ", ".join(f"found[{place}]" for place in range(1, len(names) + 1))
    found = f"CASE WHEN json_valid(text) THEN json_extract_string(text, [{paths}]) END"
    return _run(
        f"SELECT {columns} FROM (SELECT {found} AS found FROM input)", pa.table({"text": texts})
    ).rename_columns(list(names))


def sha256(texts: pa.StringArray, before: str = "") -> pa.StringArray:
    """SHA-256, in hexadecimal, of the UTF-8 bytes of each text, with one and the same text `before` it."""
    return hexadecimal(hashes(texts, before.encode()))


def hashes(texts: pa.StringArray | pa.BinaryArray, before: bytes = b"") -> list[bytes]:
    """SHA-256 of the bytes of each text, UTF-8 or raw, with the same bytes `before` it."""
    if not len(texts):
        return []
    _, offsets, content = texts.buffers()
    ends = memoryview(offsets).cast("i")[texts.offset : texts.offset + len(texts) + 1].tolist()
    view = memoryview(content or b"")
    opened = hashlib.sha256(before).copy
    out = []
    for start, end in pairwise(ends):
        one = opened()
        one.update(view[start:end])
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


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _object(
    fields: Sequence[tuple[pa.Field, str]], written: Collection[str] = ()
) -> tuple[str, str]:
    """The SQL of an object's text, and of whether the row needs the reference library.

    `fields`: each member with the SQL of its value; those `written` are canonical already.
    """
    names = [field.name for field, _ in fields]
    alike = len({name.lower() for name in names}) < len(names)
    if not names or not all(names) or alike or "\0" in "".join(names):
        raise InvariantBroken(f"an object with these names cannot be hashed: {', '.join(names)}")
    ordered = sorted(fields, key=lambda each: each[0].name.encode("utf-16-be"))
    parts, doubts = [], ["false"]
    for place, (field, path) in enumerate(ordered):
        told = field.name in written
        value, doubt = (f"coalesce({path}, 'null')", "false") if told else _value(field.type, path)
        key = text([field.name])[1:-1].replace("'", "''")
        parts.append(f"'{',' if place else '{'}{key}:', {value}")
        doubts.append(doubt)
    # One call with all parts: a chain of || would copy the text once for each of them.
    return f"concat({', '.join(parts)}, '}}')", " OR ".join(dict.fromkeys(doubts))


def _value(kind: pa.DataType, path: str) -> tuple[str, str]:
    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        body, doubt = _object([(field, f"{path}.{_quote(field.name)}") for field in fields])
        return f"CASE WHEN {path} IS NULL THEN 'null' ELSE {body} END", doubt
    if pa.types.is_list(kind):
        return _list(kind, path)
    sql, doubt = _scalar(kind, path)
    return f"coalesce({sql}, 'null')", doubt


def _list(kind: pa.ListType, path: str) -> tuple[str, str]:
    item, doubt = _value(kind.value_type, "x")
    body = f"'[' || array_to_string(list_transform({path}, lambda x: {item}), ',') || ']'"
    unsure = (
        "false"
        if doubt == "false"
        else f"coalesce(list_bool_or(list_transform({path}, lambda x: coalesce({doubt}, false))), false)"
    )
    return f"CASE WHEN {path} IS NULL THEN 'null' ELSE {body} END", unsure


def _scalar(kind: pa.DataType, path: str) -> tuple[str, str]:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        # DuckDB's JSON writes control characters in a form RFC 8785 does not want.
        return (
            f"to_json({path})::VARCHAR",
            f"coalesce(regexp_matches({path}, '[\\x00-\\x1f\\x7f]'), false)",
        )
    if pa.types.is_null(kind):
        return "NULL", "false"
    if pa.types.is_boolean(kind):
        return f"CASE WHEN {path} THEN 'true' WHEN NOT {path} THEN 'false' END", "false"
    if pa.types.is_integer(kind):
        limit = _LARGEST_INTEGER
        guarded = (
            f"CASE WHEN {path} BETWEEN -{limit} AND {limit} THEN {path}::VARCHAR "
            f"WHEN {path} IS NOT NULL THEN error('an integer beyond 2^53 - 1 cannot be hashed') END"
        )
        return guarded, "false"
    if pa.types.is_floating(kind):
        path = f"{path}::DOUBLE"
        whole = f"({path} = trunc({path}) AND abs({path}) < 9007199254740992)"
        sql = f"CASE WHEN {whole} THEN CAST(CAST({path} AS BIGINT) AS VARCHAR) ELSE {path}::VARCHAR END"
        # Outside these bounds ECMAScript and DuckDB disagree on when an exponent is written.
        doubt = (
            f"coalesce(NOT {whole} AND NOT (abs({path}) >= 0.0001 AND abs({path}) < 1e15), false)"
        )
        return sql, doubt
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return f"'\"' || strftime({path}::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%fZ') || '\"'", "false"
    if pa.types.is_date(kind):
        return f"'\"' || strftime({path}, '%Y-%m-%d') || '\"'", "false"
    raise InvariantBroken(f"a column of type {kind} cannot be hashed")
