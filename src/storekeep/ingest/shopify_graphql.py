"""Shopify's GraphQL Admin interface, asked so that it tells what the shop's webhooks tell.

Hides that it is asked in a language of its own (`shopify.graphql`); that a list comes in pages, and so does
each list within it; that a question costs points, of which a shop has so many a second; that a no comes with
status 200; and that things are named otherwise than in a webhook. What comes out are the documents of a
webhook, with both of their identifiers, so that everything after is told once for both ways.

Only questions are asked, never changes: there are no `userErrors` to heed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from storekeep.errors import Permanent, Transient
from storekeep.ingest.web_shops import CUSTOMERS, ORDERS, PRODUCTS, STOCK

Json = Any
FEEDS = (PRODUCTS, ORDERS, CUSTOMERS, STOCK)
"""What can be asked for, in the order in which it is to be: stock names its items by what products tell."""
_TRIES = 6
_LONGEST_WAIT = 60.0
_MOST_PAGES = 100_000
# A question may cost 1,000 points at most: a list 2 and 1 for each of its things, and what is within them.
_FIRST = {PRODUCTS: 15, ORDERS: 5, CUSTOMERS: 100}
_FIRST_LOCATIONS, _FIRST_LEVELS, _FIRST_MORE = 100, 100, 50
_LATER = {"THROTTLED", "INTERNAL_SERVER_ERROR"}
_TOO_DEAR = "MAX_COST_EXCEEDED"
# How a parcel stands by what its carrier said; the others say what its status says.
_SAID_BY_CARRIER = {
    *(
        "LABEL_PURCHASED",
        "LABEL_PRINTED",
        "CONFIRMED",
        "CARRIER_PICKED_UP",
        "IN_TRANSIT",
        "DELAYED",
    ),
    *("OUT_FOR_DELIVERY", "ATTEMPTED_DELIVERY", "READY_FOR_PICKUP", "PICKED_UP", "DELIVERED"),
    "FAILURE",
}


def asked(
    post: Callable[[bytes], Json], feed: str, since: datetime, wait: Callable[[float], object]
) -> Iterator[list[Json]]:
    """What changed in a feed of a shop since a time, page by page, each as its webhook tells it.

    `post` sends a question and gives the answer's JSON, its numbers as text. Raises `Transient` when the shop
    only says that it is too busy, `Permanent` when it says no, or something that is no answer.
    """
    shop = _Asking(post, wait)
    changed = {"query": f"updated_at:>='{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'"}
    if feed == STOCK:
        for locations in shop.pages("Locations", _FIRST_LOCATIONS, {}):
            for place in locations:
                own = {**changed, "id": place.get("id")}
                for levels in shop.pages("Levels", _FIRST_LEVELS, own):
                    yield [_level(each, place) for each in levels]
        return
    for nodes in shop.pages(feed.capitalize(), _FIRST[feed], changed):
        yield [_TOLD[feed](shop, node) for node in nodes]


# How it is asked ----------------------------------------------------------------------------------------


class _TooDear(Exception):
    """One question costs more than any may; less has to be asked for at once."""


@dataclass
class _Asking:
    """One who asks a shop. `owed`: for how many seconds the points of the next question are not there yet."""

    post: Callable[[bytes], Json]
    wait: Callable[[float], object]
    owed: float = 0.0

    def pages(
        self, operation: str, first: int, variables: Mapping[str, Json], begun: Json = None
    ) -> Iterator[list[Json]]:
        """The things of a list, page by page, to its end; `begun` is a first page that is there already."""
        page, after = begun, None
        for _ in range(_MOST_PAGES):
            if page is None:
                page, first = self._page(operation, first, {**variables, "after": after})
            nodes, where = _of(page, "nodes"), _of(page, "pageInfo")
            if not isinstance(nodes, list) or not all(isinstance(each, dict) for each in nodes):
                raise Permanent(f"the shop's answer to {operation} has no list in it")
            more, end = _of(where, "hasNextPage"), _of(where, "endCursor")
            if not isinstance(more, bool) or (more and end in (None, after)):
                raise Permanent(f"the shop's answer to {operation} does not say where it goes on")
            yield nodes
            if not more:
                return
            page, after = None, end
        raise Permanent(
            f"the shop has more than {_MOST_PAGES:,} pages of {operation}; ask for less"
        )

    def whole(self, operation: str, thing: Json, name: str) -> list[Json]:
        """A list within a thing, to its end."""
        begun = thing.get(name) or {}
        pages = self.pages(operation, _FIRST_MORE, {"id": thing.get("id")}, begun)
        return [each for page in pages for each in page]

    def _page(self, operation: str, first: int, variables: Mapping[str, Json]) -> tuple[Json, int]:
        """One page, and how many things one may hold: where that costs too much, half of them, and so on."""
        while first:
            try:
                found = self._answer(operation, {**variables, "first": first})
            except _TooDear:
                first //= 2
            else:
                return _of(found, "told") or _of(found, "node", "told"), first
        raise Permanent(f"{operation} costs the shop too much, however little is asked for")

    def _answer(self, operation: str, variables: Mapping[str, Json]) -> Json:
        """What is answered; that there are no points left is waited for as long as it takes, a few times."""
        asks = {"query": _document(), "operationName": operation, "variables": variables}
        body, said = json.dumps(asks).encode(), ""
        for tried in range(_TRIES):
            if self.owed:
                self.wait(self.owed)
            answer = self.post(body)
            self.owed = _owed(answer)
            codes, said = _errors(answer)
            if not codes:
                return _of(answer, "data")
            if _TOO_DEAR in codes:
                raise _TooDear
            if not codes <= _LATER:
                raise Permanent(
                    f"the shop says no to {operation}: {said}; look at its token's rights and its api_version"
                )
            self.owed = max(self.owed, min(0.5 * 2**tried, _LONGEST_WAIT))
        raise Transient(f"the shop does not answer {operation} ({said}); ask again later")


@cache
def _document() -> str:
    return (resources.files("storekeep.ingest") / "shopify.graphql").read_text(encoding="utf-8")


def _errors(answer: Json) -> tuple[set[str], str]:
    """The codes of what went wrong, and the first of it in words; none when nothing did."""
    errors = _of(answer, "errors")
    if not errors:
        return set(), ""
    each = errors if isinstance(errors, list) else [{"message": errors}]
    codes = {str(_of(one, "extensions", "code") or "no code") for one in each}
    return codes, f"{', '.join(sorted(codes))}, {str(_of(each[0], 'message'))[:200]}"


def _owed(answer: Json) -> float:
    """Seconds until there are points enough for the same question once more."""
    cost = _of(answer, "extensions", "cost")
    status = _of(cost, "throttleStatus")
    lacking = _float(cost, "requestedQueryCost") - _float(status, "currentlyAvailable")
    if status is None or lacking <= 0:
        return 0.0
    rate = _float(status, "restoreRate")
    return min(lacking / rate, _LONGEST_WAIT) if rate > 0 else _LONGEST_WAIT


def _float(thing: Json, name: str) -> float:
    try:
        return float(_of(thing, name) or 0)
    except (TypeError, ValueError):
        return 0.0


def _of(thing: Json, *names: str) -> Json:
    """What lies within a thing under a name, and so on; None where there is nothing."""
    for name in names:
        if not isinstance(thing, dict):
            return None
        thing = thing.get(name)
    return thing


# What it tells, as a webhook does -----------------------------------------------------------------------


def _named(node: Json) -> dict[str, Json]:
    """Both identifiers of a thing: its number, and its global id, which has to say the same."""
    own = _of(node, "id")
    number = _of(node, "legacyResourceId") or _number(own)
    return {"id": number, "admin_graphql_api_id": own}


def _number(global_id: Json) -> str | None:
    return global_id.rpartition("/")[2] if isinstance(global_id, str) else None


def _small(said: Json) -> Json:
    return said.lower() if isinstance(said, str) else said


def _amount(thing: Json, name: str) -> Json:
    return _of(thing, name, "shopMoney", "amount")


def _order(shop: _Asking, node: Json) -> Json:
    named = _named(node)
    lines = [_line(each) for each in shop.whole("MoreLines", node, "lineItems")]
    known = {str(line["id"]): line for line in lines}
    customer = node.get("customer")
    return {
        **named,
        "name": node.get("name"),
        "created_at": node.get("createdAt"),
        "updated_at": node.get("updatedAt"),
        "cancelled_at": node.get("cancelledAt"),
        "currency": node.get("currencyCode"),
        "financial_status": _small(node.get("displayFinancialStatus")),
        "test": node.get("test"),
        "customer": None if customer is None else _named(customer),
        "line_items": lines,
        "refunds": [_refund(shop, each, named["id"], known) for each in node.get("refunds") or ()],
        "fulfillments": [
            _fulfilment(shop, each, named["id"]) for each in node.get("fulfillments") or ()
        ],
    }


def _line(node: Json) -> dict[str, Json]:
    return {
        **_named(node),
        "sku": node.get("sku"),
        "title": node.get("title"),
        "product_id": _of(node, "product", "legacyResourceId"),
        "variant_id": _of(node, "variant", "legacyResourceId"),
        "gift_card": node.get("isGiftCard"),
        "quantity": node.get("quantity"),
        "current_quantity": node.get("currentQuantity"),
        "price": _amount(node, "originalUnitPriceSet"),
        "discount_allocations": [
            {"amount": _amount(each, "allocatedAmountSet")}
            for each in node.get("discountAllocations") or ()
        ],
    }


def _refund(shop: _Asking, node: Json, order_id: Json, lines: Mapping[str, Json]) -> Json:
    return {
        **_named(node),
        "order_id": order_id,
        "created_at": node.get("createdAt"),
        "refund_line_items": [
            _refunded(each, lines) for each in shop.whole("MoreRefunded", node, "refundLineItems")
        ],
    }


def _refunded(node: Json, lines: Mapping[str, Json]) -> Json:
    named = _named(_of(node, "lineItem"))
    came_back = {
        **lines.get(str(named["id"]), {}),
        **named,
        "sku": _of(node, "lineItem", "sku"),
        "title": _of(node, "lineItem", "title"),
        "gift_card": _of(node, "lineItem", "isGiftCard"),
    }
    return {
        "id": _number(node.get("id")),
        "line_item_id": named["id"],
        "line_item": came_back,
        "quantity": node.get("quantity"),
        "subtotal": _amount(node, "subtotalSet"),
        "subtotal_set": {
            "shop_money": {"currency_code": _of(node, "subtotalSet", "shopMoney", "currencyCode")}
        },
    }


def _fulfilment(shop: _Asking, node: Json, order_id: Json) -> Json:
    tracked, stands = node.get("trackingInfo") or [None], node.get("displayStatus")
    return {
        **_named(node),
        "order_id": order_id,
        "status": _small(node.get("status")),
        "shipment_status": _small(stands) if stands in _SAID_BY_CARRIER else None,
        "tracking_company": _of(tracked[0], "company"),
        "location_id": _of(node, "location", "legacyResourceId"),
        "created_at": node.get("createdAt"),
        "updated_at": node.get("updatedAt"),
        "line_items": [
            {
                **_named(_of(each, "lineItem")),
                "sku": _of(each, "lineItem", "sku"),
                "quantity": each.get("quantity"),
            }
            for each in shop.whole("MoreFulfilled", node, "fulfillmentLineItems")
        ],
    }


def _product(shop: _Asking, node: Json) -> Json:
    return {
        **_named(node),
        "title": node.get("title"),
        "vendor": node.get("vendor"),
        "product_type": node.get("productType"),
        "status": _small(node.get("status")),
        "updated_at": node.get("updatedAt"),
        "variants": [
            {
                **_named(each),
                "title": each.get("title"),
                "sku": each.get("sku"),
                "barcode": each.get("barcode"),
                "price": each.get("price"),
                "inventory_item_id": _of(each, "inventoryItem", "legacyResourceId"),
                "updated_at": each.get("updatedAt"),
            }
            for each in shop.whole("MoreVariants", node, "variants")
        ],
    }


def _customer(shop: _Asking, node: Json) -> Json:
    del shop
    mail, phone = node.get("defaultEmailAddress"), node.get("defaultPhoneNumber")
    return {
        **_named(node),
        "first_name": node.get("firstName"),
        "last_name": node.get("lastName"),
        "email": _of(mail, "emailAddress"),
        "phone": _of(phone, "phoneNumber"),
        "email_marketing_consent": _agreed(mail),
        "sms_marketing_consent": _agreed(phone),
        "default_address": {"country_code": _of(node, "defaultAddress", "countryCodeV2")},
        "created_at": node.get("createdAt"),
        "updated_at": node.get("updatedAt"),
    }


def _agreed(channel: Json) -> Json:
    if channel is None:
        return None
    return {
        "state": _small(_of(channel, "marketingState")),
        "consent_updated_at": _of(channel, "marketingUpdatedAt"),
    }


def _level(node: Json, place: Json) -> Json:
    """A level of stock; a webhook's global id of it is put together from the place's and the item's."""
    item, (held, *_) = node.get("item"), node.get("quantities") or [None]
    own = f"{_number(_of(place, 'id'))}?inventory_item_id={_number(_of(item, 'id'))}"
    return {
        "inventory_item_id": _of(item, "legacyResourceId"),
        "location_id": _of(place, "legacyResourceId"),
        "available": _of(held, "quantity") if _of(item, "tracked") is True else None,
        "updated_at": node.get("updatedAt"),
        "admin_graphql_api_id": f"gid://shopify/InventoryLevel/{own}",
    }


_TOLD: Mapping[str, Callable[[_Asking, Json], Json]] = {
    PRODUCTS: _product,
    ORDERS: _order,
    CUSTOMERS: _customer,
}
