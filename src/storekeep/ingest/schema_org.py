"""Products as shops publish them: schema.org in JSON-LD, as a file of its own or within pages of HTML.

Hides in how many shapes the same is said: one object, a list, an `@graph` or an `ItemList`; a brand as a word
or an object; one offer, several, or a range of them. Products are numbered as they stand in the file, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lxml import etree, html

from storekeep.errors import Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block, placed
from storekeep.ingest.documents import Gathered, Unfit, document

FILE_BYTES = 64 << 20
COLUMNS = (
    *("sku", "productID", "gtin", "mpn", "name", "description", "brand", "category", "size", "url"),
    *("dateModified", "price", "priceCurrency", "availability"),
)
_GTINS = ("gtin", "gtin14", "gtin13", "gtin12", "gtin8")
# Through these a document leads to its products; what a product is like, or goes with, is not listed by it.
_LEADS = ("@graph", "itemListElement", "item", "mainEntity", "mainEntityOfPage", "hasVariant")
_DEEPEST = 20
_HEAD = 4096
_SCRIPT = '//script[translate(@type, "ADJLNOP", "adjlnop") = "application/ld+json"]'


def names(file: Opened) -> list[str]:
    """The columns that a product may have; raises `Refused` when the file is too large to be read whole."""
    if file.path.stat().st_size > FILE_BYTES:
        raise Refused(f"{file.name} is larger than {FILE_BYTES >> 20} MiB; split it")
    return list(COLUMNS)


def blocks(file: Opened, columns: tuple[str, ...]) -> Iterator[Block]:
    """The products of a file, in blocks; raises `Refused` when there are none, or it is no JSON and no HTML.

    A product whose JSON is broken, among others on a page, is malformed.
    """
    placed(columns, names(file), file.name)
    gathered, number = Gathered(columns), 0
    for text in _texts(file):
        try:
            found = list(_products(document(text), 0))
        except Unfit as error:
            number += 1
            gathered.refuse(number, str(error), text.decode(errors="replace"))
            continue
        for product in found:
            number += 1
            gathered.add(number, _cells(product), "")
            if gathered.full:
                yield gathered.block()
    if not number:
        raise Refused(f"{file.name} holds no schema.org Product")
    yield gathered.block()


def _texts(file: Opened) -> Iterator[bytes]:
    """The JSON-LD of a file: all of it, or what the scripts of a page hold."""
    content = file.path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    if not content.startswith(b"<"):
        try:
            document(content)
        except Unfit as error:
            raise Refused(f"{file.name} {error}") from None
        yield content
        return
    # A page that does not say how it is written is taken for UTF-8.
    encoding = None if b"charset" in content[:_HEAD].lower() else "utf-8"
    try:
        parser = html.HTMLParser(no_network=True, encoding=encoding)
        page = html.document_fromstring(content, parser=parser)
    except (etree.LxmlError, ValueError) as error:
        raise Refused(f"{file.name} is neither JSON-LD nor a page of HTML ({error})") from None
    for script in page.xpath(_SCRIPT):
        yield script.text_content().strip().encode()


def _products(said: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth > _DEEPEST:
        raise Unfit("is nested too deeply")
    if isinstance(said, list):
        for each in said:
            yield from _products(each, depth + 1)
    elif isinstance(said, dict):
        if _is_product(said):
            yield said
        for name in _LEADS:
            yield from _products(said.get(name), depth + 1)


def _is_product(said: Mapping[str, Any]) -> bool:
    kinds = said.get("@type")
    words = kinds if isinstance(kinds, list) else [kinds]
    return any(isinstance(word, str) and re.split("[/#:]", word)[-1] == "Product" for word in words)


def _cells(product: Mapping[str, Any]) -> dict[str, Any]:
    offer = _first(product.get("offers"))
    offer = offer if isinstance(offer, dict) else {}
    cells = {name: _plain(product.get(name)) for name in COLUMNS}
    cells["gtin"] = next((found for name in _GTINS if (found := _plain(product.get(name)))), None)
    cells["price"] = _plain(offer.get("price", offer.get("lowPrice")))
    cells["priceCurrency"] = _plain(offer.get("priceCurrency"))
    availability = _plain(offer.get("availability"))
    cells["availability"] = availability and re.split("[/#:]", availability)[-1]
    return cells


def _first(said: Any) -> Any:
    """The first of several."""
    while isinstance(said, list):
        said = said[0] if said else None
    return said


def _plain(said: Any) -> str | None:
    """What a value says in a word: itself, its name, or its literal."""
    said = _first(said)
    if isinstance(said, dict):
        said = _first(
            next((said[name] for name in ("name", "@value", "@id") if name in said), None)
        )
    if isinstance(said, bool):
        return str(said).lower()
    return said.strip() if isinstance(said, str) else None
