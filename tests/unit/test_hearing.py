"""What came over HTTP becomes facts: orders, refunds, cancellations, corrections, in any order, each once."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from storekeep.config import Settings
from storekeep.lake import (
    CUSTOMER_CHANGES,
    FEED_STATES,
    FULFILMENTS,
    PRODUCTS,
    SALE_LINES,
    STOCK_REPORTS,
)
from storekeep.pipeline import Pipeline, opened
from storekeep.retail import STOCK_COUNT
from storekeep.store import Arrival
from tests import hooks, shop
from tests.hooks import MADE, consent, customer, line, order, refund

Told = tuple[str, str, Any]
NOW = MADE + timedelta(days=1)


@pytest.fixture
def home(home_settings: Settings) -> Settings:
    return shop.new_tenant(home_settings).model_copy(update={"web_shops": hooks.SHOPS})


@contextmanager
def at_home(home: Settings) -> Iterator[Pipeline]:
    with opened(home, now=shop.Clock(NOW)) as pipeline:
        yield pipeline


def arrive(pipeline: Pipeline, *told: Told) -> None:
    """What a server would have kept, without the server."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        for source, topic, body in told:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            one = Arrival(source, uuid4().hex, topic, None, raw)
            tx.add_arrival(pipeline._bodies.seal(one))


def hear(pipeline: Pipeline) -> None:
    with pipeline.store.again() as beside:
        pipeline.hear(beside, Counter())


def of_shop(topic: str, body: Any) -> Told:
    return "shop", topic, body


def lines(pipeline: Pipeline) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Units and value of each item of each order and moment, of which something is left."""
    rows = pipeline.lake.query(
        "SELECT basket_id, sku, strftime(occurred_at AT TIME ZONE 'UTC', '%H:%M') AS at,"
        " sum(quantity_units)::BIGINT AS units, sum(value_minor)::BIGINT AS value FROM sale"
        " GROUP BY ALL HAVING units <> 0 OR value <> 0 ORDER BY ALL",
        tables={"sale": SALE_LINES},
    ).to_pylist()
    return {(r["basket_id"], r["sku"], r["at"]): (r["units"], r["value"]) for r in rows}


def stands(pipeline: Pipeline) -> dict[str, Counter[str]]:
    """How many deliveries came to which end, by source, and that what is over is forgotten."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx._run("SELECT source, state, reason, body FROM webhook_delivery ORDER BY 1, 2")
    found: dict[str, Counter[str]] = {}
    for row in rows:
        found.setdefault(row["source"], Counter())[row["state"]] += 1
        assert row["state"] not in ("taken", "left_out") or row["body"] is None
    return found


def test_an_order_is_sold_and_forgotten(home: Settings) -> None:
    big = 2**53 + 1
    body = order(big, line(big + 2, "apple", 2), line(big + 4, "pear", 1, "1.20"))
    with at_home(home) as pipeline:
        arrive(pipeline, of_shop("orders/create", body))
        hear(pipeline)
        assert lines(pipeline) == {
            (str(big), "apple", "09:30"): (2, 500),
            (str(big), "pear", "09:30"): (1, 120),
        }
        assert stands(pipeline) == {"shop": Counter(taken=1)}
        row = pipeline.lake.query(
            "SELECT * FROM sale LIMIT 1", tables={"sale": SALE_LINES}
        ).to_pylist()[0]
        assert row["customer_id"].startswith("shop:")
        assert (row["location_id"], row["currency"]) == (hooks.LOCATION, "EUR")
        assert row["source_file"].startswith("orders_create-")


def test_yen_have_no_cents_and_dinars_have_mills(home: Settings) -> None:
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_shop("orders/create", order(1, line(1, price="300"), currency="JPY")),
            of_shop("orders/create", order(2, line(2, price="1.234"), currency="KWD")),
        )
        hear(pipeline)
        assert [value for _, value in lines(pipeline).values()] == [300, 1234]


def test_a_discount_is_taken_off_its_line(home: Settings) -> None:
    own = {**line(1, quantity=3), "discount_allocations": [{"amount": "0.50"}, {"amount": "1.00"}]}
    with at_home(home) as pipeline:
        arrive(pipeline, of_shop("orders/create", order(1, own)))
        hear(pipeline)
        assert lines(pipeline) == {("1", "apple", "09:30"): (3, 600)}


FIRST, SECOND = line(11, "apple", 3), line(12, "pear", 2)
MORE = {**FIRST, "quantity": 5}
HISTORY: Sequence[Told] = (
    of_shop("orders/create", order(1, FIRST, SECOND)),
    of_shop("orders/updated", order(1, MORE, SECOND, minutes=10)),
    of_shop("refunds/create", {**refund(7, SECOND, 1), "order_id": 1}),
    of_shop("orders/updated", order(1, MORE, SECOND, minutes=30, refunds=[refund(7, SECOND, 1)])),
    of_shop("orders/create", order(2, line(21, "fig", 4), minutes=5)),
    of_shop(
        "orders/cancelled",
        order(
            2,
            line(21, "fig", 4),
            minutes=40,
            cancelled_at=(MADE + timedelta(minutes=40)).isoformat(),
        ),
    ),
)
"""Two orders as they were told: one was added to, and something of it came back; the other was cancelled."""
CAME_TO = {
    ("1", "apple", "09:30"): (5, 1250),
    ("1", "pear", "09:30"): (2, 500),
    ("1", "pear", "10:00"): (-1, -250),
    ("2", "fig", "09:30"): (4, 1000),
    ("2", "fig", "10:10"): (-4, -1000),
}


def play(pipeline: Pipeline, told: Sequence[Told], cuts: Sequence[bool]) -> None:
    """Deliveries in an order; after some of them facts are made of what has come."""
    for one, cut in zip(told, cuts, strict=True):
        arrive(pipeline, one)
        if cut:
            hear(pipeline)
    hear(pipeline)


@pytest.mark.parametrize("told", [HISTORY, HISTORY[::-1]], ids=["in order", "backwards"])
def test_in_whatever_order_it_comes_to_the_same(home: Settings, told: Sequence[Told]) -> None:
    with at_home(home) as pipeline:
        counted = [
            {
                "location_id": hooks.LOCATION,
                "sku": sku,
                "quantity_units": 100,
                "occurred_at": MADE - timedelta(days=1),
                "known_at": MADE,
                "source_file": None,
                "source_line": None,
            }
            for sku in ("apple", "pear", "fig")
        ]
        facts = pa.Table.from_pylist(counted, STOCK_COUNT.arrow)
        pipeline.publish("StockCounted", "shelf", hooks.LOCATION, facts)
        play(pipeline, [*told, told[0]], [True, False, True, True, False, False, True])
        assert lines(pipeline) == CAME_TO
        with pipeline.store.transaction(pipeline.tenant) as tx:
            stock = {
                row["sku"]: row["on_hand_units"] for row in tx.stock(hooks.LOCATION).to_pylist()
            }
        # What came back is sold again when somebody has counted it, apart from what was told together.
        assert stock["apple"] == 95
        assert stock["pear"] in (98, 99)
        assert stock["fig"] in (96, 100)
        assert stands(pipeline) == {"shop": Counter(taken=len(told) + 1)}


def test_of_two_tellings_of_one_second_the_one_with_less_counts(home: Settings) -> None:
    less, more = order(1, line(11, quantity=1)), order(1, line(11, quantity=2))
    for told in ((less, more), (more, less)):
        with at_home(
            shop.new_tenant(home).model_copy(update={"web_shops": hooks.SHOPS})
        ) as pipeline:
            for each in told:
                arrive(pipeline, of_shop("orders/updated", each))
                hear(pipeline)
            assert lines(pipeline) == {("1", "apple", "09:30"): (1, 250)}


def test_an_item_that_another_took_the_place_of_is_taken_back(home: Settings) -> None:
    with at_home(home) as pipeline:
        arrive(pipeline, of_shop("orders/create", order(1, line(11, "apple"))))
        hear(pipeline)
        arrive(pipeline, of_shop("orders/updated", order(1, line(11, "pear"), minutes=1)))
        hear(pipeline)
        assert lines(pipeline) == {("1", "pear", "09:30"): (1, 250)}


def test_identifiers_that_contradict_each_other_are_told_of(home: Settings) -> None:
    body = {
        **order(820982911946154500, line(1), line(2)),
        "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
    }
    with at_home(home) as pipeline:
        arrive(pipeline, of_shop("orders/create", body))
        hear(pipeline)
        assert lines(pipeline) == {}
        rows = pipeline.aside("shop").to_pylist()
        assert [row["source_line"] for row in rows] == [1, 2]
        assert {(row["column"], row["rule"]) for row in rows} == {("id", "malformed")}
        assert "one of them was rounded" in rows[0]["reason"]
        assert "ann@example.com" not in json.dumps(rows, default=str)
        # What it says is kept, so that it can be read anew.
        assert stands(pipeline) == {"shop": Counter(refused=1)}
        assert pipeline.hear_again("shop") == 1
        hear(pipeline)
        assert stands(pipeline) == {"shop": Counter(refused=1)}
        assert len(pipeline.aside("shop")) == 2


WRONG: Sequence[tuple[Any, str]] = (
    (order(1), "no lines"),
    (order(1, line(1), line(1)), "two lines of this order have one id"),
    (order(1, {**line(1), "quantity": "many"}), "quantity is no number"),
    (order(1, {**line(1), "quantity": "1e999"}), "quantity is no number of at most"),
    (order(1, {**line(1), "sku": ["a"]}), "this is no single value"),
    (order(1, {**line(1), "sku": "\ud800"}), "this is no text"),
    (order(1, line_items="x"), "this is no list of objects"),
    (order(1, line(1), total_line_items_price="99"), "the lines of this order come to 2.50"),
    (order(1, line(1), currency=None), "it has no currency"),
    ({**order(1, line(1)), "id": "one"}, "no identifier of Shopify"),
    (5, "no order"),
    ([[1]], "no order"),
    ({"orders": [None]}, "no order"),
    *((body, "this is no JSON: ") for body in (b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}')),
)


def test_what_is_wrong_is_refused_whole_and_the_others_are_not(home: Settings) -> None:
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            *(of_shop("orders/create", body) for body, _ in WRONG),
            of_shop("orders/create", order(9, line(9))),
        )
        hear(pipeline)
        assert list(lines(pipeline)) == [("9", "apple", "09:30")]
        reasons = [row["reason"] for row in pipeline.aside("shop").to_pylist()]
        for _, why in WRONG:
            assert any(why in reason for reason in reasons), why
        assert stands(pipeline) == {"shop": Counter(refused=len(WRONG), taken=1)}


def test_a_line_without_an_item_waits_in_quarantine_and_is_taken_in_when_it_was_mended(
    home: Settings,
) -> None:
    from storekeep import ingest

    with at_home(home) as pipeline:
        arrive(pipeline, of_shop("orders/create", order(1, line(11, ""), line(12, "pear"))))
        hear(pipeline)
        assert stands(pipeline) == {"shop": Counter(taken=1)}
        (row,) = pipeline.aside("shop").to_pylist()
        assert (row["rule"], row["column"]) == ("missing", "sku")
        assert "ann@example.com" not in row["raw"]
        pipeline.correct(row["id"], {"sku": "apple"}, "ann", "asked the shop")
        mapping = ingest.mapping("shopify_orders").of_source("shop")
        key = ingest.pseudonym_key(pipeline.home, pipeline.tenant)
        for _ in range(2):
            pipeline.replay_aside(mapping, by="ann", location_id=hooks.LOCATION, pseudonym_key=key)
            assert lines(pipeline) == {
                ("1", "apple", "09:30"): (1, 250),
                ("1", "pear", "09:30"): (1, 250),
            }


def test_what_is_no_order_is_left_out_or_refused_by_name(home: Settings) -> None:
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_shop("orders/edited", {"order_edit": {}}),
            of_shop("customers/delete", {"id": 77, "email": "ann@example.com"}),
            of_shop("themes/update", {}),
            of_shop("", {}),
            ("gone", "orders/create", order(1, line(1))),
        )
        hear(pipeline)
        assert stands(pipeline) == {
            "gone": Counter(refused=1),
            "shop": Counter(left_out=2, refused=2),
        }
        with pipeline.store.transaction(pipeline.tenant) as tx:
            rows = tx._run("SELECT * FROM webhook_delivery WHERE source = 'shop'")
        said = {row["topic"]: row["reason"] for row in rows}
        assert said["themes/update"] == "nothing is taken in of topic themes/update"
        assert "orders/updated tells that" in said["orders/edited"]
        assert not any(b"ann@" in (row["body"] or b"") for row in rows)


def of_woo(
    number: int, status: str, *lines: Mapping[str, Any], minutes: int = 0, **more: Any
) -> Told:
    at = MADE + timedelta(minutes=minutes)
    body = {
        "id": number,
        "number": str(number),
        "status": status,
        "currency": "EUR",
        "customer_id": 0,
        "date_created_gmt": MADE.isoformat()[:19],
        "date_modified_gmt": at.isoformat()[:19],
        "line_items": list(lines),
        "refunds": [],
        **more,
    }
    return "woo", "order.updated", body


def woo_line(number: int, sku: str, quantity: int, total: str) -> dict[str, Any]:
    return {"id": number, "sku": sku, "name": sku, "quantity": quantity, "total": total}


def test_woocommerce_sells_what_was_paid_and_takes_back_what_was_cancelled(home: Settings) -> None:
    apple = woo_line(1, "apple", 2, "5.00")
    told = [
        of_woo(1, "pending", apple),
        of_woo(1, "processing", apple, minutes=1),
        of_woo(1, "completed", apple, minutes=2),
        of_woo(2, "completed", woo_line(2, "pear", 1, "1.00")),
        of_woo(2, "cancelled", woo_line(2, "pear", 1, "1.00"), minutes=3),
        of_woo(
            3, "completed", woo_line(3, "fig", 3, "3.00"), refunds=[{"id": 8, "total": "-1.00"}]
        ),
        of_woo(
            3,
            "completed",
            woo_line(3, "fig", 3, "3.00"),
            minutes=9,
            refunds=[{"id": 8, "total": "-1.00"}],
        ),
    ]
    for order_of in (told, told[::-1]):
        with at_home(
            shop.new_tenant(home).model_copy(update={"web_shops": hooks.SHOPS})
        ) as pipeline:
            for start in (0, 3, 6):
                arrive(pipeline, *order_of[start : start + 3])
                hear(pipeline)
            assert lines(pipeline) == {
                ("1", "apple", "09:30"): (2, 500),
                ("3", "fig", "09:30"): (3, 300),
            }
            (row,) = pipeline.aside("woo").to_pylist()
            assert row["rule"] == "refund_without_lines"
            assert '"value":"-1.00"' in row["raw"]


def told_of_customers(pipeline: Pipeline) -> list[dict[str, Any]]:
    pipeline.keep_history()
    found: list[dict[str, Any]] = pipeline.lake.query(
        "SELECT * FROM kept ORDER BY source, occurred_at", tables={"kept": CUSTOMER_CHANGES}
    ).to_pylist()
    return found


def consents(pipeline: Pipeline) -> dict[tuple[str, str], tuple[bool, str]]:
    """What customers of each source agree to, by channel, and since when."""
    return {
        (row["customer_id"].partition(":")[0], row["channel"]): (
            row["given"],
            f"{row['since']:%H:%M}",
        )
        for row in pipeline.consents().to_pylist()
    }


def test_a_customer_is_the_person_of_the_orders_and_is_forgotten(home: Settings) -> None:
    big = 2**53 + 1
    sold = order(1, line(1), customer={"id": big, "email": "ann@example.com"})
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_shop("orders/create", sold),
            of_shop("customers/create", customer(big)),
            of_shop("customers/create", customer(big)),
            of_shop("customers/disable", customer(big, 5, first_name=None, phone=None)),
        )
        hear(pipeline)
        assert stands(pipeline) == {"shop": Counter(taken=4)}
        first, second = told_of_customers(pipeline)
        assert first["source"] == "shop_customers"
        assert first["customer_id"].startswith("shop_customers:")
        assert (first["country"], first["email_consent"], first["sms_consent"]) == (
            "DE",
            True,
            None,
        )
        assert first["phone_key"].startswith("match.phone:")
        assert second["phone_key"] is None
        assert (second["email_key"], second["card_key"]) == (first["email_key"], first["card_key"])
        (row,) = pipeline.lake.query("SELECT * FROM sale", tables={"sale": SALE_LINES}).to_pylist()
        assert row["customer_id"] == first["card_key"]
        person = pipeline.person(f"shop:{big}", by="ann", reason="a test")
        assert set(person["pseudonyms"]) == {row["customer_id"], first["customer_id"]}
        texts = {(each["field"], each["text"]) for each in person["personal"]}
        assert {("name", "Example"), ("email", "ann@example.com")} <= texts
        assert pipeline.find_customers("ANN@example.com") == [first["customer_id"]]
        said = json.dumps([first, second, row], default=str)
        assert not any(word in said for word in ("ann@", "Example", "901820", str(big)))


CONSENTS = "customers_email_marketing_consent/update"
CHANGES: Sequence[Told] = (
    of_shop("customers/create", customer(77)),
    of_shop(
        CONSENTS,
        {
            "customer_id": 77,
            "email_address": "ann@example.com",
            "email_marketing_consent": consent("UNSUBSCRIBED", 10),
        },
    ),
    of_shop(
        "customers_marketing_consent/update",
        {"id": 77, "phone": "+49 30 901820", "sms_marketing_consent": consent("subscribed", 20)},
    ),
    of_shop(
        "customers/update",
        customer(
            77,
            30,
            email_marketing_consent=consent("unsubscribed", 10),
            sms_marketing_consent=consent("pending", 25),
        ),
    ),
)
"""A customer who agrees to e-mail, withdraws it, and subscribes to texts, which it does not confirm."""


@pytest.mark.parametrize("told", [CHANGES, CHANGES[::-1]], ids=["in order", "backwards"])
def test_what_a_customer_agrees_to_is_what_it_said_last(
    home: Settings, told: Sequence[Told]
) -> None:
    with at_home(home) as pipeline:
        play(pipeline, [*told, told[0]], [True, False, True, False, False])
        assert consents(pipeline) == {
            ("shop_customers", "email"): (False, "09:40"),
            ("shop_customers", "sms"): (False, "09:55"),
            ("shop_consents", "email"): (False, "09:40"),
            ("shop_consents", "sms"): (True, "09:50"),
        }
        rows = told_of_customers(pipeline)
        assert len(rows) == len(CHANGES)
        people = pipeline.identities().persons.to_pylist()
        # The orders', the account's, and that of the consents.
        assert len(people) == 3
        assert len({each["person_id"] for each in people}) == 1
        assert "ann@" not in json.dumps(rows, default=str)


def test_who_was_never_asked_said_nothing_and_old_shops_tell_it_otherwise(home: Settings) -> None:
    asked_at = MADE.isoformat()
    old: dict[str, Any] = {
        "email_marketing_consent": None,
        "accepts_marketing_updated_at": asked_at,
    }
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_shop(
                "customers/create", customer(1, email_marketing_consent=consent("not_subscribed"))
            ),
            of_shop("customers/create", customer(2, **old, accepts_marketing=True)),
            of_shop("customers/create", customer(3, **old, accepts_marketing=False)),
            of_shop("customers/create", customer(4, email_marketing_consent=None)),
        )
        hear(pipeline)
        found = Counter(row["email_consent"] for row in told_of_customers(pipeline))
        assert found == {None: 2, True: 1, False: 1}
        assert {row["sms_consent"] for row in told_of_customers(pipeline)} == {None}


def test_a_customer_that_contradicts_itself_is_refused_without_its_name(home: Settings) -> None:
    rounded = customer(2**53 + 1, id=2**53)
    wrong: Sequence[tuple[str, Any, str]] = (
        ("customers/create", rounded, "one of them was rounded"),
        ("customers/create", customer(1, updated_at=None), "it has no updated_at"),
        ("customers/create", customer(1, default_address="x"), "this is no object"),
        ("customers/create", order(1, line(1)), "this is no customer"),
        (CONSENTS, {"customer_id": 1, "email_address": "ann@example.com"}, "not since when"),
        (CONSENTS, ["Ann Example"], "no customer's consent"),
    )
    with at_home(home) as pipeline:
        arrive(pipeline, *(of_shop(topic, body) for topic, body, _ in wrong))
        hear(pipeline)
        assert told_of_customers(pipeline) == []
        rows = [
            row
            for source in ("shop_customers", "shop_consents")
            for row in pipeline.aside(source).to_pylist()
        ]
        for _, _, why in wrong:
            assert any(why in row["reason"] for row in rows), why
        assert not any(
            word in json.dumps(rows, default=str) for word in ("ann@", "Example", "901820")
        )
        assert stands(pipeline) == {"shop": Counter(refused=len(wrong))}


def test_a_customer_of_woocommerce_is_the_person_of_its_orders(home: Settings) -> None:
    ann = {
        "id": 7,
        "date_created_gmt": MADE.isoformat()[:19],
        "date_modified_gmt": None,
        "email": "ann@example.com",
        "first_name": "Ann",
        "last_name": "",
        "billing": {"phone": "0049 30 901820", "country": "DE"},
    }
    later = {
        **ann,
        "date_modified_gmt": (MADE + timedelta(hours=1)).isoformat()[:19],
        "billing": {"phone": "030 901820", "country": "AT"},
    }
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_woo(1, "completed", woo_line(1, "apple", 1, "1.00"), customer_id=7),
            ("woo", "customer.created", ann),
            ("woo", "customer.updated", later),
            ("woo", "customer.updated", {**ann, "date_created_gmt": None}),
        )
        hear(pipeline)
        assert stands(pipeline) == {"woo": Counter(taken=3, refused=1)}
        rows = told_of_customers(pipeline)
        assert [row["country"] for row in rows] == ["DE", "AT"]
        assert [row["phone_key"] is None for row in rows] == [False, True]
        assert {row["email_consent"] for row in rows} == {None}
        (sold,) = pipeline.lake.query("SELECT * FROM sale", tables={"sale": SALE_LINES}).to_pylist()
        assert {row["card_key"] for row in rows} == {sold["customer_id"]}
        assert consents(pipeline) == {}
        person = pipeline.person("woo:7", by="ann", reason="a test")
        assert "Ann" in {each["text"] for each in person["personal"]}


def test_a_shop_may_match_its_customers_with_another_source(home: Settings) -> None:
    from storekeep import ingest

    own = ingest.mapping("shopify_customers")
    assert own.of_source("shop_customers").match["account"].source == "shop"
    # What is not named after the shop, or not for what is read of it, stays as it is.
    assert own.of_source("crm").match["account"].source == "shopify"
    of_till = own.model_copy(
        update={
            "match": {"account": own.match["account"].model_copy(update={"source": "corner_shop"})}
        }
    )
    assert of_till.of_source("shop_customers").match["account"].source == "corner_shop"
    assert own.of_source("shop_customers").digest != own.digest
    del home


def test_products_fulfilments_and_levels_come_into_their_tables(home: Settings) -> None:
    at = MADE.isoformat()
    product = {
        "id": 1,
        "title": "Apple",
        "vendor": "Orchard",
        "product_type": "fruit",
        "updated_at": at,
        "variants": [{"id": 2, "sku": "apple", "title": "red", "inventory_item_id": 2**53 + 1}],
    }
    parcel = {
        "id": 5,
        "order_id": 1,
        "status": "success",
        "created_at": at,
        "updated_at": at,
        "line_items": [line(11)],
    }
    level = {"inventory_item_id": 2**53 + 1, "location_id": 3, "available": 7, "updated_at": at}
    other = {**level, "inventory_item_id": 9}
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_shop("products/create", product),
            of_shop("fulfillments/create", parcel),
        )
        hear(pipeline)
        arrive(
            pipeline,
            of_shop("inventory_levels/update", level),
            of_shop("inventory_levels/update", other),
        )
        hear(pipeline)
        hear(pipeline)

        def rows(kept: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = pipeline.lake.query(
                "SELECT * FROM kept", tables={"kept": kept}
            ).to_pylist()
            return found

        (found,) = rows(PRODUCTS)
        assert (found["sku"], found["name"], found["brand"]) == ("apple", "Apple", "Orchard")
        (found,) = rows(FULFILMENTS)
        assert (found["order_id"], found["line_id"], found["status"]) == ("1", "11", "success")
        (found,) = rows(STOCK_REPORTS)
        assert (found["sku"], found["quantity_units"]) == ("apple", 7)
        (aside,) = pipeline.aside("shop_stock").to_pylist()
        assert aside["rule"] == "unknown_item"
        with pipeline.store.transaction(pipeline.tenant) as tx:
            assert tx.stock(hooks.LOCATION).num_rows == 0


def test_a_source_that_falls_silent_is_told_of_and_its_return(home: Settings) -> None:
    clock = shop.Clock(NOW)
    with opened(home, now=clock) as pipeline:
        assert pipeline.note_silence() == []
        arrive(pipeline, of_shop("orders/create", order(1, line(1))))
        hear(pipeline)
        with pipeline.store.transaction(pipeline.tenant) as tx:
            last = tx.last_arrival("shop")
        assert last is not None
        for seconds, silent in ((3599, []), (3601, ["shop"]), (9000, ["shop"])):
            clock.now = last + timedelta(seconds=seconds)
            assert pipeline.note_silence() == silent
        (row,) = [row for row in pipeline.feeds() if row["source"] == "shop"]
        assert row["state"] == "degraded"
        arrive(pipeline, of_shop("orders/create", order(2, line(2))))
        with pipeline.store.transaction(pipeline.tenant) as tx:
            tx._run(
                "UPDATE webhook_delivery SET received_at = received_at + interval '3 hours'"
                " WHERE state = 'waiting'"
            )
            clock.now = tx.last_arrival("shop") or clock.now
        assert pipeline.note_silence() == []
        pipeline.keep_history()
        states = pipeline.lake.query(
            "SELECT state, reason FROM kept ORDER BY occurred_at", tables={"kept": FEED_STATES}
        ).to_pylist()
        assert [each["state"] for each in states] == ["degraded", "ok"]
        assert states[0]["reason"].startswith("nothing came since ")


def test_what_was_dealt_with_is_forgotten_in_time(home: Settings) -> None:
    clock = shop.Clock(NOW)
    with opened(home, now=clock) as pipeline:
        arrive(pipeline, of_shop("orders/create", order(1, line(1))))
        hear(pipeline)
        with pipeline.store.transaction(pipeline.tenant) as tx:
            last = tx.last_arrival("shop")
        assert last is not None
        clock.now = last + timedelta(days=31)
        arrive(pipeline, of_shop("orders/create", b"no json"))
        hear(pipeline)
        assert stands(pipeline) == {"shop": Counter(refused=1)}


def test_arrivals_are_named_for_what_they_are() -> None:
    from storekeep.pipeline.hearing import _file_name

    odd = Arrival("shop", "../../etc/passwd\n" + "x" * 300, "orders/create", None, b"")
    name = _file_name(odd)
    assert os.sep not in name
    assert len(name) == 120
