"""Web shops asked for what happened: page after page of their interfaces, as their webhooks would tell it.

Hides how each platform pages, orders and authenticates, and that it may say no for a while. What comes is the
same JSON as a webhook's, so that what came by both ways is known to be the same.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from storekeep.config import WebShop
from storekeep.errors import Permanent, Transient
from storekeep.ingest import shopify_graphql
from storekeep.ingest.web_json import parsed
from storekeep.ingest.web_shops import CUSTOMERS, FULFILMENTS, ORDERS, PRODUCTS, STOCK

if TYPE_CHECKING:
    import httpx

_TRIES = 5
_LONGEST_WAIT = 60.0
_TIMEOUT = 30.0
_MOST_BYTES = 64 << 20
_MOST_PAGES = 100_000
# What Shopify is asked for in GraphQL comes as these lists, the newest change last where one is named.
_IN_GRAPHQL: Mapping[str, tuple[str, str | None]] = {
    PRODUCTS: ("products", "updated_at"),
    ORDERS: ("orders", "updated_at"),
    CUSTOMERS: ("customers", "updated_at"),
    STOCK: ("inventory_levels", None),
}
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Page:
    """One page: of which feed, its JSON, and up to when all is told with it, where it says so."""

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
    if _speaks_graphql(shop):
        return shopify_graphql.FEEDS
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
    with _wire(shop, wait) as wire:
        if _speaks_graphql(shop):
            post = partial(wire.posted, f"/admin/api/{shop.api_version}/graphql.json")
            name, changed = _IN_GRAPHQL[feed]
            for things in shopify_graphql.asked(post, feed, since, wait):
                yield from _pages(name, feed, changed, things)
            return
        (part,) = (part for part in _parts(shop) if part.feed == feed)
        # WooCommerce takes what changed at this very second for not changed after it.
        stamp = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for things in wire.listed(part.path, part.name, part.question(stamp)):
            if shop.platform == "woocommerce" and feed == ORDERS:
                _ask_refunds(wire, things)
            yield from _pages(part.name, feed, part.changed, things)


def with_refunds(shop: WebShop, body: bytes) -> bytes:
    """An order of WooCommerce with what came back by its refunds, which its webhook only names.

    A shop that cannot be asked leaves it as it is; one that can is asked once. Raises as `asked` does.
    """
    order = parsed(body)
    if shop.url is None or shop.token_env is None or not _without_lines(order):
        return body
    with _wire(shop, time.sleep, tries=1) as wire:
        _ask_refunds(wire, [order])
    return json.dumps(order).encode()


def _without_lines(order: Any) -> bool:
    """Whether an order of WooCommerce names a refund and does not say what came back."""
    refunds = order.get("refunds") if isinstance(order, dict) else None
    return isinstance(refunds, list) and any(
        isinstance(each, dict) and "line_items" not in each for each in refunds
    )


def _ask_refunds(wire: _Wire, orders: list[Any]) -> None:
    """Put what came back into each order that only names its refunds."""
    for order in orders:
        number = str(order.get("id")) if _without_lines(order) else ""
        if not number.isdecimal():
            continue
        path = f"/wp-json/wc/v3/orders/{number}/refunds"
        pages = wire.listed(path, "refunds", {"per_page": "100"})
        told = {
            str(each.get("id")): each for page in pages for each in page if isinstance(each, dict)
        }
        order["refunds"] = [
            {**each, **told.get(str(each.get("id")), {})} if isinstance(each, dict) else each
            for each in order["refunds"]
        ]


def _speaks_graphql(shop: WebShop) -> bool:
    return shop.platform == "shopify" and shop.api == "graphql"


@dataclass(frozen=True)
class _Wire:
    """A wire to a shop: who asks over it waits as the shop says, and tries so many times."""

    client: httpx.Client
    root: str
    wait: Callable[[float], object]
    tries: int

    def posted(self, path: str, body: bytes) -> Any:
        """What the shop answers to a question that is sent to it."""
        headers = {"Content-Type": "application/json"}
        url = f"{self.root}{path}"
        answer = self._patiently(partial(self.client.post, url, content=body, headers=headers), url)
        return _said(answer, url, lambda document: document)

    def listed(self, path: str, name: str, question: Mapping[str, str]) -> Iterator[list[Any]]:
        """The things of a list, page after page, as each page says where the next one is."""
        import httpx  # noqa: PLC0415 - only who asks pays for it

        url = str(httpx.URL(f"{self.root}{path}", params=dict(question)))
        for _ in range(_MOST_PAGES):
            answer = self._patiently(partial(self.client.get, url), url)
            yield _said(answer, url, partial(_things, name=name))
            following = _next(answer, self.root)
            if following is None:
                return
            if following == url:
                raise Permanent(
                    f"{self.root} sends from a page to the same page; nothing more is read"
                )
            url = following
        raise Permanent(f"{self.root} has more than {_MOST_PAGES:,} pages; ask for less")

    def _patiently(self, ask: Callable[[], httpx.Response], url: str) -> httpx.Response:
        """An answer that is one; what only says "later" is waited for as it asks, a few times."""
        import httpx  # noqa: PLC0415 - only who asks pays for it

        where = urlsplit(url)
        place = f"{where.scheme}://{where.netloc}{where.path}"
        said = ""
        for tried in range(self.tries):
            seconds = min(0.5 * 2**tried, _LONGEST_WAIT)
            try:
                answer = ask()
            except httpx.TransportError as error:
                said = str(error) or type(error).__name__
            else:
                if answer.status_code == httpx.codes.OK:
                    return answer
                said = f"status {answer.status_code}"
                if (
                    answer.status_code != httpx.codes.TOO_MANY_REQUESTS
                    and not answer.is_server_error
                ):
                    raise Permanent(f"{place} says no ({said}); look at url, token and its rights")
                asked_for = answer.headers.get("retry-after", "")
                if asked_for.replace(".", "", 1).isdecimal():
                    seconds = min(float(asked_for), _LONGEST_WAIT)
            if tried + 1 < self.tries:
                self.wait(seconds)
        raise Transient(f"{place} does not answer ({said}); ask again later")


@contextmanager
def _wire(shop: WebShop, wait: Callable[[float], object], tries: int = _TRIES) -> Iterator[_Wire]:
    import httpx  # noqa: PLC0415 - only who asks pays for it

    with httpx.Client(headers=_credentials(shop), timeout=_TIMEOUT) as client:
        yield _Wire(client, (shop.url or "").rstrip("/"), wait, tries)


def _credentials(shop: WebShop) -> dict[str, str]:
    token = shop.token()
    if shop.platform == "shopify":
        return {"X-Shopify-Access-Token": token}
    return {"Authorization": f"Basic {base64.b64encode(token.encode()).decode()}"}


def _said(answer: httpx.Response, url: str, read: Callable[[Any], _Read]) -> _Read:
    """What an answer says, as it is read; `Permanent` when it is none of its kind."""
    try:
        if len(answer.content) > _MOST_BYTES:
            raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
        return read(parsed(answer.content))
    except ValueError as error:
        raise Permanent(f"{urlsplit(url).path} gave no answer of its kind: {error}") from None


def _things(document: Any, name: str) -> list[Any]:
    things = document.get(name) if isinstance(document, dict) else document
    if not isinstance(things, list):
        raise ValueError(f"it has no list of {name}")  # noqa: TRY004 - of what others wrote
    return things


def _pages(name: str, feed: str, changed: str | None, things: list[Any]) -> Iterator[Page]:
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
    yield Page(feed, json.dumps({name: things}).encode(), _changed(changed, things[-1]))


def _changed(changed: str | None, last: Any) -> datetime | None:
    said = last.get(changed) if changed and isinstance(last, dict) else None
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
