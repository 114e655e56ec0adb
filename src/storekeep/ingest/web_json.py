"""JSON of web shops, as their webhooks and their interfaces send it, read into rows of text.

Hides JSON and how the same things are wrapped: alone in a webhook, under a name or in a list of a page.
Numbers are text from the first byte, so that an identifier beyond 2^53 stays what it is. What is wrong as a
whole (an order whose identifiers contradict each other) gives no row: its lines are malformed, with
the reason.
A row's line is its number among the rows of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import pyarrow as pa

from storekeep.errors import Refused
from storekeep.ingest import shopify, woocommerce
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import MALFORMED, Block, placed
from storekeep.ingest.web_cells import Fault, Json, Kind, Row

MOST_BYTES = 256 << 20
KINDS: Mapping[str, Kind] = {
    f"{platform}_{feed}": kind
    for platform, kinds in (("shopify", shopify.KINDS), ("woocommerce", woocommerce.KINDS))
    for feed, kind in kinds.items()
}
"""The formats, by name: a platform, and what it tells of."""


def names(file: Opened, format_: str) -> list[str]:
    """The columns of a format; every file has them."""
    del file
    return list(KINDS[format_].columns)


def blocks(file: Opened, columns: tuple[str, ...], format_: str) -> Iterator[Block]:
    """The rows of a file of JSON, in one block.

    Raises `Refused` when it is no JSON or is longer than 256 MiB, `Misused` when a column is asked for that
    the format has not.
    """
    kind = KINDS[format_]
    placed(columns, list(kind.columns), file.name)
    rows: list[Row] = []
    lines: list[int] = []
    malformed: list[dict[str, Any]] = []
    for one in _things(_parsed(file), kind):
        before = len(rows) + len(malformed)
        try:
            found = kind.rows(one)
        except Fault as fault:
            many = max(1, kind.many(one))
            told = {"column": fault.column, "reason": fault.reason, "raw": _named(one)}
            malformed += [{"line": before + 1 + each, **told} for each in range(many)]
            continue
        rows += found
        lines += range(before + 1, before + 1 + len(found))
    cells = pa.table(
        [pa.array([row.get(name) for row in rows], pa.string()) for name in columns], list(columns)
    )
    yield Block(cells, pa.array(lines, pa.int64()), pa.Table.from_pylist(malformed, MALFORMED))


def _parsed(file: Opened) -> Any:
    size = file.path.stat().st_size
    if size > MOST_BYTES:
        raise Refused(f"{file.name} has {size:,} bytes of JSON; at most {MOST_BYTES:,} are read")
    try:
        return parsed(file.path.read_bytes())
    except ValueError as error:
        raise Refused(f"{file.name} is no JSON: {error}") from None


def parsed(body: bytes) -> Any:
    """What JSON says, its numbers as they are written; raises `ValueError` when it is none."""
    try:
        return json.loads(
            body.decode("utf-8-sig"), parse_int=str, parse_float=str, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def stock_items(body: bytes) -> dict[str, str]:
    """By which numbers levels of stock will name the SKUs of Shopify's products; those that can be read."""
    found: dict[str, str] = {}
    for one in _things(parsed(body), KINDS["shopify_products"]):
        with suppress(Fault):
            found |= shopify.stock_items(one)
    return found


def with_skus(body: bytes, skus: Mapping[str, str]) -> bytes:
    """Shopify's levels of stock with the SKUs of their items, as far as they are known."""
    told = [
        {**one, "sku": skus.get(str(one.get("inventory_item_id")))}
        if isinstance(one, dict)
        else one
        for one in _things(parsed(body), KINDS["shopify_stock"])
    ]
    return json.dumps(told).encode()


def _no_number(said: str) -> NoReturn:
    raise ValueError(f"{said} is no number")


def _things(document: Any, kind: Kind) -> Iterator[Any]:
    """The orders, products and so on of a document, however they are wrapped."""
    if isinstance(document, dict):
        for name in kind.wrapped:
            inner = document.get(name)
            if isinstance(inner, dict | list):
                document = inner
                break
    yield from document if isinstance(document, list) else [document]


def _named(one: Json) -> str:
    """What it is called: the rest of it may tell of persons."""
    names = ("id", "admin_graphql_api_id", "name", "number", "order_id", "status", "updated_at")
    said = {name: one[name] for name in names if isinstance(one, dict) and name in one}
    return json.dumps(said, ensure_ascii=True, default=str)
