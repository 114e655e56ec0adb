"""Webhooks of web shops: how they are signed, where they say what, and what of it is taken in.

Hides that platforms spell the same things differently, and Shopify in two ways.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ORDERS, STOCK, FULFILMENTS, PRODUCTS = "orders", "stock", "fulfilments", "products"
CUSTOMERS, CONSENTS = "customers", "consents"
_GONE = "that a shop closes an account erases no person: `storekeep customers erase` does"
_TOLD_AGAIN = "it tells which lines changed and not what they are; orders/updated tells that, too"
_NO_LINES = "it tells an id and no lines: that the record of an order is gone undoes no sale"


@dataclass(frozen=True)
class Told:
    """Where a platform's webhooks say what, by headers in small letters, the first that is there.

    `feeds`: what feed each topic belongs to. `left_out`: topics of which nothing is taken in, and why.
    """

    signature: tuple[str, ...]
    topic: tuple[str, ...]
    delivery_id: tuple[str, ...]
    triggered_at: tuple[str, ...]
    feeds: Mapping[str, str]
    left_out: Mapping[str, str]


def _both(name: str) -> tuple[str, ...]:
    """Shopify's webhooks are sent with X- before the name, its newer Events without."""
    return (f"x-shopify-{name}", f"shopify-{name}")


TOLD: Mapping[str, Told] = {
    "shopify": Told(
        signature=_both("hmac-sha256"),
        topic=_both("topic"),
        delivery_id=_both("webhook-id"),
        triggered_at=_both("triggered-at"),
        feeds={
            **dict.fromkeys(
                (
                    *("orders/create", "orders/updated", "orders/paid", "orders/cancelled"),
                    *("orders/fulfilled", "orders/partially_fulfilled", "refunds/create"),
                ),
                ORDERS,
            ),
            **dict.fromkeys(("inventory_levels/update", "inventory_levels/connect"), STOCK),
            **dict.fromkeys(("fulfillments/create", "fulfillments/update"), FULFILMENTS),
            **dict.fromkeys(("products/create", "products/update"), PRODUCTS),
            **dict.fromkeys(
                (f"customers/{verb}" for verb in ("create", "update", "enable", "disable")),
                CUSTOMERS,
            ),
            "customers_email_marketing_consent/update": CONSENTS,
            "customers_marketing_consent/update": CONSENTS,
        },
        left_out={
            "orders/edited": _TOLD_AGAIN,
            "orders/delete": _NO_LINES,
            "inventory_levels/disconnect": "it tells that a location keeps no count of an item any more",
            "products/delete": "what was sold stays known: a product that is gone is not forgotten",
            "customers/delete": _GONE,
        },
    ),
    "woocommerce": Told(
        signature=("x-wc-webhook-signature",),
        topic=("x-wc-webhook-topic",),
        delivery_id=("x-wc-webhook-delivery-id",),
        triggered_at=(),
        feeds={
            **dict.fromkeys(("order.created", "order.updated", "order.restored"), ORDERS),
            **dict.fromkeys(("product.created", "product.updated", "product.restored"), PRODUCTS),
            **dict.fromkeys(("customer.created", "customer.updated"), CUSTOMERS),
        },
        left_out={
            "order.deleted": _NO_LINES,
            "product.deleted": "what was sold stays known: a product that is gone is not forgotten",
            "customer.deleted": _GONE,
        },
    ),
}


def signature(body: bytes, secret: bytes) -> str:
    """How a body is signed: HMAC-SHA256 over its bytes, in base64."""
    return base64.b64encode(hmac.digest(secret, body, hashlib.sha256)).decode()


def is_signed(body: bytes, given: str, secrets: Sequence[bytes]) -> bool:
    """Whether a body was signed with one of the secrets; it takes as long whichever it was."""
    told = given.strip().encode("latin-1", "replace")
    found = [hmac.compare_digest(signature(body, each).encode(), told) for each in secrets]
    return any(found)
