"""Canonical JSON (RFC 8785) and SHA-256 of whole tables at once.

Everything that is hashed passes here: evidence, proposals, ledger entries. Hides how rows become canonical
text without a Python loop: one SQL expression built from the table's schema runs in DuckDB, and only rows
that the vectorised form cannot be sure of (a number whose shortest form needs an exponent, a text with a
control character) go one by one through the reference library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import rfc8785

from storekeep.errors import InvariantBroken

_LARGEST_INTEGER = 2**53 - 1


def text(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """One value as canonical JSON; times must already be text."""
    return rfc8785.dumps(value).decode()  # type: ignore[arg-type]  # its type alias is recursive


def digest(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()  # type: ignore[arg-type]  # as above


def rows(table: pa.Table) -> pa.StringArray:
    """Each row as one canonical JSON object, keys sorted, as RFC 8785 wants.

    Timestamps become `2017-10-03T00:00:00.000000Z`, dates `2017-10-03`; binary, decimals and NaN are
    refused with `InvariantBroken`, as are integers beyond 2^53 - 1, which JSON cannot carry exactly.
    """
    if table.num_columns == 0 or table.num_rows == 0:
        return pa.array(["{}"] * table.num_rows, pa.string())
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("input", table)
        text_sql, unsure_sql = _object(list(table.schema), "")
        result = connection.sql(
            f"SELECT {text_sql} AS text, {unsure_sql} AS unsure FROM input"
        ).to_arrow_table()
    texts = result["text"].combine_chunks()
    unsure = result["unsure"].combine_chunks()
    if not unsure.true_count:
        return texts
    return _mend(table, texts, unsure)


def sha256(texts: pa.StringArray) -> pa.StringArray:
    """SHA-256 of each text's UTF-8 bytes, in hexadecimal."""
    return pa.array([hashlib.sha256(text.encode()).hexdigest() for text in texts.to_pylist()])


def _mend(table: pa.Table, texts: pa.StringArray, unsure: pa.BooleanArray) -> pa.StringArray:
    places = [place for place, flag in enumerate(unsure.to_pylist()) if flag]
    exact = [rfc8785.dumps(_plain(row)).decode() for row in table.take(places).to_pylist()]
    out = texts.to_pylist()
    for place, line in zip(places, exact, strict=True):
        out[place] = line
    return pa.array(out, pa.string())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if hasattr(value, "hour"):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if hasattr(value, "isoformat") else value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _object(fields: Sequence[pa.Field], prefix: str) -> tuple[str, str]:
    """The SQL of an object's text, and of whether the row needs the reference library."""
    ordered = sorted(fields, key=lambda field: field.name.encode("utf-16-be"))
    parts, doubts = [], ["false"]
    for place, field in enumerate(ordered):
        path = f"{prefix}{_quote(field.name)}"
        value, doubt = _value(field.type, path)
        key = text([field.name])[1:-1].replace("'", "''")
        parts.append(f"'{',' if place else '{'}{key}:' || {value}")
        doubts.append(doubt)
    return " || ".join([*parts, "'}'"]), " OR ".join(dict.fromkeys(doubts))


def _value(kind: pa.DataType, path: str) -> tuple[str, str]:
    if pa.types.is_struct(kind):
        body, doubt = _object([kind.field(i) for i in range(kind.num_fields)], f"{path}.")
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
        whole = f"({path} = trunc({path}) AND abs({path}) < 9007199254740992)"
        sql = f"CASE WHEN {whole} THEN CAST(CAST({path} AS BIGINT) AS VARCHAR) ELSE {path}::VARCHAR END"
        # Outside these bounds ECMAScript and DuckDB disagree on when an exponent is written.
        doubt = (
            f"coalesce(NOT {whole} AND NOT (abs({path}) >= 0.0001 AND abs({path}) < 1e15), false)"
        )
        return sql, doubt
    if pa.types.is_timestamp(kind):
        return f"'\"' || strftime({path}::TIMESTAMP, '%Y-%m-%dT%H:%M:%S.%fZ') || '\"'", "false"
    if pa.types.is_date(kind):
        return f"'\"' || strftime({path}, '%Y-%m-%d') || '\"'", "false"
    raise InvariantBroken(f"a column of type {kind} cannot be hashed")
