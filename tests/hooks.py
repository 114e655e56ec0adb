"""Webhooks as a web shop sends them, a process of `storekeep serve`, and orders made by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from storekeep.config import Settings, WebShop
from storekeep.ingest.web_shops import signature

ROOT = Path(__file__).parents[1]
SECRET, FORMER = "of now", "of before"
LOCATION = "WEB"
MADE = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
SHOPS = {
    "shop": WebShop(
        platform="shopify",
        location_id=LOCATION,
        secret_env="HOOKS_SECRET",
        former_secret_env="HOOKS_FORMER",
        silent_after_seconds=3600,
    ),
    "woo": WebShop(platform="woocommerce", location_id=LOCATION, secret_env="HOOKS_SECRET"),
}
ENVIRON = {"HOOKS_SECRET": SECRET, "HOOKS_FORMER": FORMER, "HOOKS_PUSH": "push me"}


@dataclass(frozen=True)
class Served:
    """A server that runs, and a client of it."""

    process: subprocess.Popen[str]
    client: httpx.Client

    def hook(
        self,
        body: object,
        topic: str = "orders/create",
        *,
        source: str = "shop",
        secret: str = SECRET,
        delivery_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a webhook; its body as JSON, or as the bytes that it is."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        own = signed(sent, topic, source, secret, delivery_id or uuid4().hex)
        return self.client.post(
            f"/v1/hooks/{source}", content=sent, headers={**own, **(headers or {})}
        )


def signed(sent: bytes, topic: str, source: str, secret: str, delivery_id: str) -> dict[str, str]:
    """The headers that a platform sends."""
    sign = signature(sent, secret.encode())
    if source == "woo":
        return {
            "X-WC-Webhook-Signature": sign,
            "X-WC-Webhook-Topic": topic,
            "X-WC-Webhook-Delivery-ID": delivery_id,
        }
    return {
        "X-Shopify-Hmac-Sha256": sign,
        "X-Shopify-Topic": topic,
        "X-Shopify-Webhook-Id": delivery_id,
        "X-Shopify-Triggered-At": datetime.now(UTC).isoformat().replace("+00:00", "000Z"),
    }


@contextmanager
def served(home: Settings, **environ: str) -> Iterator[Served]:
    """`storekeep serve` as one would run it; it does not outlive the test."""
    shops = {name: shop.model_dump() for name, shop in home.web_shops.items()}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "storekeep", "--home", str(home.home), "--json"),
            *("serve", "--port", "0", "--for", "120"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            **ENVIRON,
            "STOREKEEP_TENANT": home.tenant,
            "STOREKEEP_WEB_SHOPS": json.dumps(shops),
            "STOREKEEP_HOOK_BYTES": str(home.hook_bytes),
            "STOREKEEP_PUSH_TOKEN_ENV": "HOOKS_PUSH",
            **environ,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        found = re.search(r"http://\S+", said)
        assert found, said + process.stderr.read()
        with httpx.Client(base_url=found[0], timeout=30) as client:
            yield Served(process, client)
    finally:
        process.kill()
        process.communicate()


def order(number: int, *lines: Mapping[str, Any], minutes: int = 0, **more: Any) -> dict[str, Any]:
    """An order of Shopify, as of some minutes after it was made."""
    return {
        "id": number,
        "admin_graphql_api_id": f"gid://shopify/Order/{number}",
        "name": f"#{number}",
        "created_at": MADE.isoformat(),
        "updated_at": (MADE + timedelta(minutes=minutes)).isoformat(),
        "cancelled_at": None,
        "currency": "EUR",
        "test": False,
        "customer": {"id": 77, "email": "ann@example.com"},
        "line_items": list(lines),
        "refunds": [],
        **more,
    }


def line(number: int, sku: str = "apple", quantity: int = 1, price: str = "2.50") -> dict[str, Any]:
    """A line of an order."""
    return {
        "id": number,
        "admin_graphql_api_id": f"gid://shopify/LineItem/{number}",
        "sku": sku,
        "title": sku,
        "quantity": quantity,
        "price": price,
        "discount_allocations": [],
        "gift_card": False,
    }


def customer(number: int, minutes: int = 0, **more: Any) -> dict[str, Any]:
    """A customer of Shopify, as of some minutes after it was made."""
    return {
        "id": number,
        "admin_graphql_api_id": f"gid://shopify/Customer/{number}",
        "email": "ann@example.com",
        "first_name": "Ann",
        "last_name": "Example",
        "phone": "+49 30 901820",
        "created_at": MADE.isoformat(),
        "updated_at": (MADE + timedelta(minutes=minutes)).isoformat(),
        "email_marketing_consent": consent("subscribed"),
        "sms_marketing_consent": None,
        "default_address": {"country_code": "DE", "phone": "1"},
        **more,
    }


def consent(state: str, minutes: int = 0) -> dict[str, Any]:
    """What a customer of Shopify said to a channel."""
    at = (MADE + timedelta(minutes=minutes)).isoformat()
    return {"state": state, "opt_in_level": None, "consent_updated_at": at}


def refund(number: int, of: Mapping[str, Any], quantity: int, minutes: int = 30) -> dict[str, Any]:
    """A refund of some units of a line."""
    each = {
        "id": number * 10,
        "line_item_id": of["id"],
        "line_item": dict(of),
        "quantity": quantity,
        "subtotal": float(of["price"]) * quantity,
        "subtotal_set": {"shop_money": {"currency_code": "EUR"}},
    }
    return {
        "id": number,
        "admin_graphql_api_id": f"gid://shopify/Refund/{number}",
        "created_at": (MADE + timedelta(minutes=minutes)).isoformat(),
        "refund_line_items": [each],
    }
