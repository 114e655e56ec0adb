"""What came back by a refund of WooCommerce: its orders only name it, so the shop is asked for its lines.

The shop is made up, by the platform's documentation; nobody reaches a real one from a test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from storekeep import ingest
from storekeep.config import Settings
from storekeep.ingest.web_cells import Fault
from storekeep.ingest.woocommerce import KINDS
from storekeep.pipeline import Pipeline
from tests.hooks import MADE
from tests.shop import new_tenant
from tests.unit import test_backfill
from tests.unit.test_backfill import Shop, at, of, opened_to_all
from tests.unit.test_hearing import arrive, hear, lines, of_woo, stands, woo_line

APPLES, FIGS = woo_line(31, "apple", 4, "8.00"), woo_line(32, "fig", 3, "3.00")
SOLD = {("3", "apple", "09:30"): (4, 800), ("3", "fig", "09:30"): (3, 300)}
BACK = {("3", "apple", "10:00"): (-1, -200), ("3", "fig", "10:00"): (0, -50)}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "ck:cs")
    monkeypatch.setattr(test_backfill, "TOKEN", "Basic Y2s6Y3M=")


@pytest.fixture
def home(home_settings: Settings) -> Settings:
    return new_tenant(home_settings)


def back(number: int, of_line: int | None, sku: str, quantity: int, total: str) -> dict[str, Any]:
    """A line of a refund; WooCommerce tells below nothing what comes back."""
    meta = [{"id": 1, "key": "_refunded_item_id", "value": str(of_line)}] if of_line else []
    own = {"id": number, "sku": sku, "name": sku, "quantity": quantity, "total": total}
    return {**own, "total_tax": "0.00", "meta_data": meta}


def came_back(number: int, amount: str, *of: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A refund as it is told for itself."""
    made = (MADE + timedelta(minutes=30)).isoformat()[:19]
    told = {"id": number, "date_created_gmt": made, "amount": amount, "line_items": list(of)}
    return {**told, "shipping_lines": [], "fee_lines": [], **more}


def named(number: int, total: str) -> dict[str, Any]:
    """A refund as its order names it."""
    return {"id": number, "reason": "too green", "total": total}


def an_order(status: str, *refunds: Any, minutes: int = 40) -> dict[str, Any]:
    body: dict[str, Any] = of_woo(
        3, status, APPLES, FIGS, minutes=minutes, refunds=list(refunds), customer_id=7
    )[2]
    return body


PARTLY = came_back(8, "2.50", back(81, 31, "apple", -1, "-2.00"), back(82, 32, "fig", 0, "-0.50"))
PARTLY_TOLD = an_order("completed", named(8, "-2.50"))


@contextmanager
def asked(home: Settings, **lists: list[dict[str, Any]]) -> Iterator[tuple[Shop, Pipeline]]:
    """A shop, and a home that may ask it."""
    told = {name.replace("_", "/"): each for name, each in lists.items()}
    with (
        opened_to_all(Shop({"products": [], **told})) as one,
        at(home, one, platform="woocommerce") as pipeline,
    ):
        yield one, pipeline


def test_what_came_back_is_the_same_by_webhook_and_by_backfill(home: Settings) -> None:
    with asked(home, orders=[PARTLY_TOLD], orders_3_refunds=[PARTLY]) as (one, pipeline):
        arrive(pipeline, ("shop", "order.updated", an_order("completed", minutes=10)))
        hear(pipeline)
        assert lines(pipeline) == SOLD
        assert one.asked == []
        arrive(pipeline, ("shop", "order.updated", PARTLY_TOLD))
        hear(pipeline)
        assert lines(pipeline) == SOLD | BACK
        came = pipeline.backfill("shop")
        assert (came["orders"].read, came["orders"].accepted) == (4, 0)
        assert not came["orders"].rejected
        assert lines(pipeline) == SOLD | BACK
        assert pipeline.aside("shop").num_rows == 0
        # In the end all of it is paid back, and the order comes to nothing.
        rest = came_back(9, "8.50", date_created_gmt=MADE.isoformat()[:19])
        one.lists["orders/3/refunds"].append(rest)
        whole = an_order("refunded", named(8, "-2.50"), named(9, "-8.50"), minutes=50)
        arrive(pipeline, ("shop", "order.updated", whole))
        hear(pipeline)
        assert lines(pipeline) == {}
        assert pipeline.aside("shop").num_rows == 0


def test_a_shop_that_does_not_say_now_what_came_back_is_asked_later(home: Settings) -> None:
    with asked(home, orders=[PARTLY_TOLD], orders_3_refunds=[PARTLY]) as (one, pipeline):
        one.moods = [(503, {}, b"")]
        arrive(pipeline, ("shop", "order.updated", PARTLY_TOLD))
        hear(pipeline)
        assert lines(pipeline) == {}
        with pipeline.store.transaction(pipeline.tenant) as tx:
            (row,) = tx._run("SELECT state, reason FROM webhook_delivery")
        assert row["state"] == "refused"
        assert "what came back cannot be asked for" in row["reason"]
        pipeline.backfill("shop")
        assert lines(pipeline) == SOLD | BACK
        assert pipeline.hear_again("shop") == 1
        hear(pipeline)
        assert stands(pipeline)["shop"] == {"taken": 1}
        assert lines(pipeline) == SOLD | BACK


def rows(*refunds: Any, status: str = "completed") -> list[dict[str, str | None]]:
    """The rows of an order's refunds, as its format reads them."""
    return KINDS["orders"].rows(_as_text(an_order(status, *refunds)))[2:]


def _as_text(thing: Any) -> Any:
    return ingest.parsed_json(json.dumps(thing).encode())


def test_shipping_fees_and_tax_are_no_part_of_what_came_back() -> None:
    line = {**back(81, 31, "apple", -1, "-2.00"), "total_tax": "-0.38"}
    more = {"shipping_lines": [{"total": "-4.00", "total_tax": "-0.76"}]}
    fees = {"fee_lines": [{"total": "-1.00", "total_tax": "0.00"}]}
    (row,) = rows(came_back(8, "8.14", line, **more, **fees))
    assert (row["quantity"], row["value"], row["part"]) == ("-1", "-2.00", "refund/8/81")
    assert (row["line_id"], row["created_at"]) == ("31", "2026-03-02T10:00:00Z")


def test_money_that_is_of_no_line_is_told_and_has_no_units() -> None:
    _, free = rows(came_back(8, "7.00", back(81, 31, "apple", -1, "-2.00")))
    assert (free["value"], free.get("quantity"), free.get("sku")) == ("-5.00", None, None)
    (free,) = rows(came_back(8, "7.00"))
    assert free["value"] == "-7.00"


def test_a_product_that_is_gone_came_back_as_what_it_was_sold_as() -> None:
    (row,) = rows(came_back(8, "2.00", back(81, 31, "", -1, "-2.00")))
    assert row["sku"] == "apple"
    (row,) = rows(came_back(8, "2.00", back(81, None, "", -1, "-2.00")))
    assert row["sku"] is None


def test_a_refund_gives_nothing_more() -> None:
    with pytest.raises(Fault, match="takes none back"):
        rows(came_back(8, "2.00", back(81, 31, "apple", 1, "-2.00")))


def test_all_pages_of_what_came_back_are_read_and_only_where_something_did() -> None:
    refunds = [
        came_back(each, "0.50", back(each * 10, 32, "fig", 0, "-0.50")) for each in (7, 8, 9)
    ]
    told = an_order("completed", *(named(each, "-0.50") for each in (7, 8, 9)))
    others = {**an_order("completed"), "id": 4}
    lists = {"orders": [told, others], "orders/3/refunds": refunds}
    with opened_to_all(Shop(lists)) as one:
        shop = of(one.url, platform="woocommerce")
        (page,) = ingest.asked(shop, "orders", MADE)
        (order, other) = ingest.parsed_json(page.body)["orders"]
        assert [len(each["line_items"]) for each in order["refunds"]] == [1, 1, 1]
        assert [each["total"] for each in order["refunds"]] == ["-0.50"] * 3
        assert other["refunds"] == []
        assert len([each for each in one.asked if "/refunds" in each]) == 2
