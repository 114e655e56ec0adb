"""Shopify asked in GraphQL: what comes is what its webhooks tell, whole, and each once.

The shop is made up, by its documentation (`tests.shopify_admin`); nobody reaches a real one from a test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from storekeep import ingest
from storekeep.config import Settings
from storekeep.errors import Permanent, Transient
from storekeep.ingest import shopify_graphql
from storekeep.lake import CUSTOMER_CHANGES, FULFILMENTS, PRODUCTS, STOCK_REPORTS
from storekeep.pipeline import Pipeline
from tests.hooks import MADE, consent, customer, line, order, refund
from tests.shopify_admin import Admin, refusal
from tests.unit import test_backfill
from tests.unit.test_backfill import ORDERS, PARCEL, PRODUCT, SOLD, Shop, at, of, opened_to_all
from tests.unit.test_hearing import arrive, hear, lines, of_shop

home = test_backfill.home
LEVEL = {
    "inventory_item_id": 3,
    "location_id": 9,
    "available": 5,
    "updated_at": MADE.isoformat(),
    "admin_graphql_api_id": "gid://shopify/InventoryLevel/9?inventory_item_id=3",
}
# Of an order there is one state at a time: the newest.
NOW_ORDERS = [ORDERS[1], ORDERS[2], ORDERS[3], ORDERS[4]]
Lists = Mapping[str, Sequence[Mapping[str, Any]]]


def told(feed: str, lists: Lists, wait: Callable[[float], object] | None = None) -> list[Any]:
    """What a shop tells of a feed, page by page."""
    admin = Admin(lists)
    return pages(feed, admin, wait)


def pages(feed: str, admin: Admin, wait: Callable[[float], object] | None = None) -> list[Any]:
    with opened_to_all(Shop({}, admin=admin)) as one:
        shop = of(one.url, api="graphql")
        found = list(ingest.asked(shop, feed, MADE, wait or admin.rest))
    return [(page.feed, ingest.parsed_json(page.body)) for page in found]


def kept(pipeline: Pipeline, table: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pipeline.lake.query(
        "SELECT * FROM kept", tables={"kept": table}
    ).to_pylist()
    return rows


def test_graphql_is_how_shopify_is_asked_unless_it_is_said_otherwise() -> None:
    shop = of("https://shop.example").model_dump(exclude={"api"})
    assert type(of("https://shop.example"))(**shop).api == "graphql"


def test_what_came_by_webhook_is_known_when_it_comes_by_graphql(home: Settings) -> None:
    cancelled = order(5, line(51, quantity=2), minutes=5, cancelled_at=MADE.isoformat())
    whole: dict[str, list[dict[str, Any]]] = {
        "products": [PRODUCT],
        "orders": [*NOW_ORDERS, cancelled],
        "customers": [customer(77)],
        "inventory_levels": [LEVEL],
    }
    parcel = {**PARCEL, "shipment_status": "in_transit", "location_id": 9}
    whole["orders"][0] = {**whole["orders"][0], "fulfillments": [parcel]}
    with (
        opened_to_all(Shop({}, admin=Admin(whole))) as one,
        at(home, one, api="graphql") as pipeline,
    ):
        arrive(
            pipeline,
            of_shop("products/update", PRODUCT),
            *(of_shop("orders/updated", each) for each in whole["orders"]),
            of_shop("refunds/create", {**whole["orders"][2]["refunds"][0], "order_id": 1}),
            of_shop("fulfillments/create", parcel),
            of_shop("customers/create", customer(77)),
        )
        hear(pipeline)
        arrive(pipeline, of_shop("inventory_levels/update", LEVEL))
        hear(pipeline)
        before = lines(pipeline)
        assert before == SOLD
        came = pipeline.backfill("shop")
        assert {name: each.accepted for name, each in came.items()} == dict.fromkeys(
            ("products", "orders", "fulfilments", "customers", "stock"), 0
        )
        assert (came["orders"].read, came["stock"].read) == (7, 1)
        assert not any(each.rejected for each in came.values())
        assert lines(pipeline) == before
        for table in (PRODUCTS, FULFILMENTS, CUSTOMER_CHANGES, STOCK_REPORTS):
            assert len(kept(pipeline, table)) == 1


def test_it_works_the_other_way_round_as_well(home: Settings) -> None:
    whole = {"products": [PRODUCT], "orders": NOW_ORDERS, "inventory_levels": [LEVEL]}
    with (
        opened_to_all(Shop({}, admin=Admin(whole))) as one,
        at(home, one, api="graphql") as pipeline,
    ):
        came = pipeline.backfill("shop")
        assert (came["orders"].accepted, came["stock"].accepted) == (5, 1)
        assert lines(pipeline) == SOLD
        (level,) = kept(pipeline, STOCK_REPORTS)
        assert (level["sku"], level["quantity_units"]) == ("apple", 5)
        arrive(pipeline, *(of_shop("orders/updated", each) for each in ORDERS))
        hear(pipeline)
        assert lines(pipeline) == SOLD
        assert one.admin is not None
        one.admin.asked.clear()
        assert pipeline.backfill("shop") == {}
        # It goes on from where it was.
        (since,) = {each["query"] for _, each in one.admin.asked if "query" in each}
        assert since == "updated_at:>='2026-03-03T09:25:00Z'"


def test_lists_within_are_read_to_their_end() -> None:
    many = [line(100 + each, f"sku {each}") for each in range(123)]
    back = {**refund(7, many[0], 1), "refund_line_items": []}
    back["refund_line_items"] = [
        refund(1000 + each, many[each], 1)["refund_line_items"][0] for each in range(61)
    ]
    parcel = {**PARCEL, "order_id": 1, "line_items": many}
    whole = order(1, *many, refunds=[back], fulfillments=[parcel])
    variants = [{"id": 1 + each, "sku": f"sku {each}"} for each in range(75)]
    admin = Admin(
        {"orders": [whole, order(2, line(1))], "products": [{**PRODUCT, "variants": variants}]}
    )
    (parcels, orders) = pages("orders", admin)
    first, second = orders[1]["orders"]
    assert [each["id"] for each in first["line_items"]] == [str(each["id"]) for each in many]
    assert len(first["refunds"][0]["refund_line_items"]) == 61
    assert len(parcels[1]["fulfillments"][0]["line_items"]) == 123
    assert len(second["line_items"]) == 1
    ((_, products),) = pages("products", admin)
    assert len(products["products"][0]["variants"]) == 75


def test_what_a_webhook_says_is_said_in_the_same_words() -> None:
    own = {
        **line(11, quantity=3),
        "product_id": 2**53 + 1,
        "variant_id": 4,
        "current_quantity": 2,
        "discount_allocations": [{"amount": "0.50"}],
    }
    given = order(
        2**53 + 3, own, refunds=[refund(7, own, 1)], financial_status="partially_refunded"
    )
    ((_, page),) = told("orders", {"orders": [given]})
    (found,) = page["orders"]
    assert found["id"] == str(2**53 + 3)
    assert found["admin_graphql_api_id"] == given["admin_graphql_api_id"]
    assert found["financial_status"] == "partially_refunded"
    (sold,) = found["line_items"]
    same = ("sku", "title", "price", "discount_allocations")
    assert {name: sold[name] for name in same} == {name: own[name] for name in same}
    assert (sold["product_id"], sold["variant_id"], sold["gift_card"]) == (
        str(2**53 + 1),
        "4",
        False,
    )
    (back,) = found["refunds"][0]["refund_line_items"]
    assert (back["id"], back["line_item_id"], back["subtotal"]) == ("70", "11", "2.5")
    assert back["line_item"]["product_id"] == str(2**53 + 1)


def test_two_identifiers_that_contradict_each_other_are_flagged(home: Settings) -> None:
    rounded = order(2**53 + 1, line(11)) | {"admin_graphql_api_id": f"gid://shopify/Order/{2**53}"}
    wrong = LEVEL | {"inventory_item_id": 4}
    admin = Admin({"orders": [rounded, order(2, line(21))], "inventory_levels": [wrong]})
    with (
        opened_to_all(Shop({}, admin=admin)) as one,
        at(home, one, api="graphql") as pipeline,
    ):
        came = pipeline.backfill("shop")
        assert (came["orders"].accepted, came["orders"].rejected) == (1, {"malformed": 1})
        (row,) = pipeline.aside("shop").to_pylist()
        assert "one of them was rounded or mistaken" in row["reason"]


def test_a_customer_tells_to_which_channel_it_agrees() -> None:
    people = [
        customer(1, sms_marketing_consent=consent("unsubscribed")),
        customer(2, phone=None, email=None, email_marketing_consent=None),
    ]
    ((_, page),) = told("customers", {"customers": people})
    ann, nobody = page["customers"]
    assert ann["email_marketing_consent"]["state"] == "subscribed"
    assert ann["sms_marketing_consent"]["state"] == "unsubscribed"
    assert ann["default_address"] == {"country_code": "DE"}
    assert (nobody["email"], nobody["phone"], nobody["sms_marketing_consent"]) == (None, None, None)


def test_stock_is_read_at_every_location_and_what_is_not_counted_says_so() -> None:
    levels = [
        {**LEVEL, "inventory_item_id": each, "location_id": 1 + each % 3} for each in range(320)
    ]
    levels[0] = {**levels[0], "available": None}
    found = [
        each
        for _, page in told("stock", {"inventory_levels": levels})
        for each in page["inventory_levels"]
    ]
    assert len(found) == 320
    (uncounted,) = [each for each in found if each["available"] is None]
    assert uncounted["admin_graphql_api_id"] == "gid://shopify/InventoryLevel/1?inventory_item_id=0"


MANY = [order(each, line(each * 10), minutes=each) for each in range(1, 31)]


def test_no_question_costs_more_than_a_shop_allows() -> None:
    admin = Admin({"orders": MANY, "products": [PRODUCT], "customers": [customer(1)]})
    for feed in ("products", "orders", "customers", "stock"):
        pages(feed, admin)
    assert max(admin.costs) <= 1000


def test_a_shop_whose_points_are_spent_is_given_time_to_have_them_again() -> None:
    waited: list[float] = []
    admin = Admin({"orders": MANY}, available=20.0, restores=50.0)

    def wait(seconds: float) -> None:
        waited.append(seconds)
        admin.rest(seconds)

    found = [each["id"] for _, page in pages("orders", admin, wait) for each in page["orders"]]
    assert found == [str(each) for each in range(1, 31)]
    first = (admin.costs[0] - 20.0) / 50.0
    assert waited[0] == pytest.approx(first)
    # One question was said no to; the others came when there were points enough.
    assert len(admin.asked) == 7
    assert max(waited) < 60


def test_a_shop_that_stays_too_busy_is_not_asked_for_ever() -> None:
    waited: list[float] = []
    admin = Admin({"orders": MANY}, available=0.0, restores=0.001)
    with pytest.raises(Transient, match=r"THROTTLED, Throttled\); ask again later"):
        pages("orders", admin, waited.append)
    assert waited == [60.0] * 5
    admin.moods = [refusal("hiccup", "INTERNAL_SERVER_ERROR")]
    admin.available, admin.restores = 1e6, 50.0
    waited.clear()
    assert len(pages("orders", admin, waited.append)) == 6
    assert waited == [0.5]


def test_a_page_that_costs_too_much_is_asked_for_in_smaller_ones() -> None:
    admin = Admin({"orders": MANY}, most=300)
    found = [each["id"] for _, page in pages("orders", admin) for each in page["orders"]]
    assert found == [str(each) for each in range(1, 31)]
    assert [each["first"] for _, each in admin.asked][:3] == [5, 2, 2]
    with pytest.raises(Permanent, match="Orders costs the shop too much, however little"):
        pages("orders", Admin({"orders": MANY}, most=10))


def no_list() -> Any:
    return {"data": {"told": {"nodes": None, "pageInfo": {"hasNextPage": False}}}}


def endless() -> Any:
    info = {"hasNextPage": True, "endCursor": None}
    return {"data": {"told": {"nodes": [], "pageInfo": info}}}


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        (
            refusal("Access denied for customer field.", "ACCESS_DENIED"),
            "ACCESS_DENIED, Access den",
        ),
        ({"errors": "Not Found"}, "says no to Orders: no code, Not Found"),
        ({"data": {"told": None}} | refusal("no", "X"), "says no to Orders: X"),
        ({"data": None}, "answer to Orders has no list in it"),
        ([], "answer to Orders has no list in it"),
        (no_list(), "answer to Orders has no list in it"),
        (endless(), "does not say where it goes on"),
        (b"<html>", "gave no answer of its kind"),
    ],
)
def test_an_answer_that_is_none_ends_it(mood: Any, why: str) -> None:
    with pytest.raises(Permanent, match=why):
        pages("orders", Admin({"orders": MANY}, moods=[mood]))


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", test_backfill.TOKEN)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("currentQuantity", "currentQuantities", "doesn't exist on type 'LineItem'"),
        ("refunds {", "refunds(last: 3) {", "doesn't accept argument 'last'"),
        ("lineItems(first: 10)", "lineItems", "you must provide `first`"),
        ("pageInfo { ...Where }", "pageInfo { ...Where ( }", "syntax error"),
        ("... on Refund {", "... on Refunds {", "fragment on Refunds"),
        ("UPDATED_AT", "CHANGED_AT", "no value of ProductSortKeys"),
        ("$query: String!) {\n  told: orders", "$query: Int!) {\n  told: orders", "type mismatch"),
    ],
)
def test_the_shop_of_these_tests_refuses_what_is_no_question(
    before: str, after: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shopify_graphql._document()
    wrong = text.replace(before, after, 1)
    assert wrong != text
    monkeypatch.setattr(shopify_graphql, "_document", lambda: wrong)
    with pytest.raises(Permanent, match=why):
        pages("orders", Admin({"orders": MANY}))
