"""Web shops asked for what happened: page after page of their interfaces, as their webhooks would tell it.

Hides how each platform pages, orders and authenticates, and that it may say no for a while. What comes is the
same JSON as a webhook's, so that what came by both ways is known to be the same.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from storekeep.config import WebShop
from storekeep.errors import Permanent, Transient
from storekeep.ingest.web_json import parsed
from storekeep.ingest.web_shops import CUSTOMERS, FULFILMENTS, ORDERS, PRODUCTS

if TYPE_CHECKING:
    import httpx

_TRIES = 5
_LONGEST_WAIT = 60.0
_TIMEOUT = 30.0
_MOST_BYTES = 64 << 20
_MOST_PAGES = 100_000


@dataclass(frozen=True)
class Page:
    """One page: of which feed, its JSON, and and up to when all is told with it, where it says so."""

    feed: str
    body: bytes
    until: datetime | None


@dataclass(frozen=True)
class _Part:
    """One list that a platform gives: where, by what question, and by what it says when."""

    path: str
    name: str
    feed: str
    question: Callable[[str], Mapping[str, str]]
    changed: str | None


def _shopify(version: str) -> tuple[_Part, ...]:
    root = f"/admin/api/{version}"

    def changed(name: str, feed: str) -> _Part:
        return _Part(
            f"{root}/{name}.json",
            *(name, feed),
            lambda since: {"limit": "250", "updated_at_min": since},
            None,
        )

    return (
        changed("products", PRODUCTS),
        _Part(
            f"{root}/orders.json",
            *("orders", ORDERS),
            lambda since: {
                "limit": "250",
                "status": "any",
                "order": "updated_at asc",
                "updated_at_min": since,
            },
            "updated_at",
        ),
        # They come last: a token that may not read them keeps nothing else away.
        changed("customers", CUSTOMERS),
    )


def _of_woocommerce(path: str, feed: str) -> _Part:
    return _Part(
        f"/wp-json/wc/v3/{path}",
        *(path, feed),
        lambda since: {
            "per_page": "100",
            "orderby": "modified",
            "order": "asc",
            "dates_are_gmt": "true",
            "modified_after": since,
        },
        "date_modified_gmt",
    )


def parts(shop: WebShop) -> tuple[str, ...]:
    """What a shop can be asked for, by feed, in the order in which it is to be."""
    return tuple(part.feed for part in _parts(shop))


def _parts(shop: WebShop) -> tuple[_Part, ...]:
    if shop.platform == "shopify":
        return _shopify(shop.api_version)
    # Of customers WooCommerce does not tell which changed.
    return (_of_woocommerce("products", PRODUCTS), _of_woocommerce("orders", ORDERS))


def asked(
    shop: WebShop, feed: str, since: datetime, wait: Callable[[float], object] = time.sleep
) -> Iterator[Page]:
    """What changed in a feed of a shop since a time, page by page.

    Raises `Transient` when the shop does not answer, or only says that it is too busy, however often it is
    asked; and `Permanent` when it says no, or something that is no answer.
    """
    import httpx  # noqa: PLC0415 - only who asks pays for it

    (part,) = (part for part in _parts(shop) if part.feed == feed)
    root = (shop.url or "").rstrip("/")
    # WooCommerce takes what changed at this very second for not changed after it.
    stamp = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    url: str | None = str(httpx.URL(f"{root}{part.path}", params=dict(part.question(stamp))))
    with httpx.Client(headers=_credentials(shop), timeout=_TIMEOUT) as client:
        for _ in range(_MOST_PAGES):
            if url is None:
                return
            answer = _patiently(client, url, wait)
            things = _things(answer, part, url)
            yield from _pages(part, things)
            before, url = url, _next(answer, root)
            if url == before:
                raise Permanent(f"{root} sends from a page to the same page; nothing more is read")
    raise Permanent(f"{root} has more than {_MOST_PAGES:,} pages; ask for less")


def _credentials(shop: WebShop) -> dict[str, str]:
    token = shop.token()
    if shop.platform == "shopify":
        return {"X-Shopify-Access-Token": token}
    return {"Authorization": f"Basic {base64.b64encode(token.encode()).decode()}"}


def _patiently(client: httpx.Client, url: str, wait: Callable[[float], object]) -> httpx.Response:
    """An answer that is one; what only says "later" is waited for as it asks, a few times."""
    import httpx  # noqa: PLC0415 - only who asks pays for it

    where = urlsplit(url)
    place = f"{where.scheme}://{where.netloc}{where.path}"
    said = ""
    for tried in range(_TRIES):
        seconds = min(0.5 * 2**tried, _LONGEST_WAIT)
        try:
            answer = client.get(url)
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
        else:
            if answer.status_code == httpx.codes.OK:
                return answer
            said = f"status {answer.status_code}"
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and not answer.is_server_error:
                raise Permanent(f"{place} says no ({said}); look at url, token and its rights")
            asked_for = answer.headers.get("retry-after", "")
            if asked_for.replace(".", "", 1).isdecimal():
                seconds = min(float(asked_for), _LONGEST_WAIT)
        if tried + 1 < _TRIES:
            wait(seconds)
    raise Transient(f"{place} does not answer ({said}); ask again later")


def _things(answer: httpx.Response, part: _Part, url: str) -> list[Any]:
    try:
        if len(answer.content) > _MOST_BYTES:
            raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
        document = parsed(answer.content)
        things = document.get(part.name) if isinstance(document, dict) else document
        if not isinstance(things, list):
            raise ValueError(f"it has no list of {part.name}")  # noqa: TRY004 - of what others wrote
    except ValueError as error:
        raise Permanent(f"{urlsplit(url).path} gave no answer of its kind: {error}") from None
    return things


def _pages(part: _Part, things: list[Any]) -> Iterator[Page]:
    """What one answer tells of each feed: an order has its fulfilments in it."""
    if not things:
        return
    inner = [
        each
        for thing in things
        if isinstance(thing, dict) and isinstance(thing.get("fulfillments"), list)
        for each in thing["fulfillments"]
    ]
    if inner:
        yield Page(FULFILMENTS, json.dumps({"fulfillments": inner}).encode(), None)
    yield Page(part.feed, json.dumps({part.name: things}).encode(), _changed(part, things[-1]))


def _changed(part: _Part, last: Any) -> datetime | None:
    said = last.get(part.changed) if part.changed and isinstance(last, dict) else None
    if not isinstance(said, str):
        return None
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _next(answer: httpx.Response, root: str) -> str | None:
    """Where it goes on; never to another place, which would be told the token."""
    url = answer.links.get("next", {}).get("url")
    if url is None:
        return None
    ours, theirs = urlsplit(root), urlsplit(url)
    if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
        raise Permanent(
            f"{root} sends on to {theirs.netloc}, which is not the shop; look at its url"
        )
    return str(url)
