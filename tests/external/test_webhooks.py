"""Recorded webhooks and answers of web shops: taken in with the right total, or refused with the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from storekeep import ingest
from storekeep.config import Settings
from storekeep.ingest.web_shops import TOLD
from storekeep.lake import CUSTOMER_CHANGES, FULFILMENTS, PRODUCTS, SALE_LINES
from storekeep.pipeline import Pipeline
from tests import hooks, shop
from tests.shopify_admin import Admin
from tests.unit.test_backfill import TOKEN, Shop, of, opened_to_all
from tests.unit.test_hearing import Told, arrive, at_home, hear

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
SHARED = Path(__file__).parents[3] / "shared" / "data"
SAMPLES = SHARED / "webhook_samples" / "providers"
FIXTURES = SHARED / "shopify_fixtures" / "test" / "fixtures"

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not SAMPLES.exists(), reason="../shared/data/webhook_samples is absent"),
]


@pytest.fixture
def home(home_settings: Settings) -> Settings:
    return shop.new_tenant(home_settings).model_copy(update={"web_shops": hooks.SHOPS})


CONSENTS = {"customers_email_marketing_consent/update", "customers_marketing_consent/update"}
SOURCES = (
    *("shop", "shop_stock", "shop_fulfilments", "shop_products"),
    *("shop_customers", "shop_consents"),
)


def samples(provider: str) -> list[dict[str, Any]]:
    files = sorted((SAMPLES / provider).glob("*/*.json"))
    return [json.loads(each.read_text()) for each in files]


def contradicts(thing: Any) -> bool:
    """Whether an identifier is told in two ways that differ, anywhere in a body; looked at as text."""
    if isinstance(thing, list):
        return any(contradicts(each) for each in thing)
    if not isinstance(thing, dict):
        return False
    told = str(thing.get("admin_graphql_api_id") or "")
    if "InventoryLevel" in told:
        return not told.endswith(str(thing["inventory_item_id"]))
    if told and "id" in thing and told.rpartition("/")[2] != str(thing["id"]):
        return True
    return any(contradicts(each) for each in thing.values())


def came_to(pipeline: Pipeline) -> list[dict[str, Any]]:
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return tx._run("SELECT source, topic, state, reason FROM webhook_delivery")


def facts(pipeline: Pipeline) -> int:
    kept = {
        "sale": SALE_LINES,
        "sent": FULFILMENTS,
        "product": PRODUCTS,
        "customer": CUSTOMER_CHANGES,
    }
    return sum(
        pipeline.lake.query("SELECT 1 FROM kept", tables={"kept": each}).num_rows
        for each in kept.values()
    )


def test_every_recorded_webhook_of_shopify_is_told_apart(home: Settings) -> None:
    recorded = samples("shopify")
    assert len(recorded) == 287
    topics = {each["headers"]["x-shopify-topic"] for each in recorded}
    told = TOLD["shopify"]
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            *(("shop", each["headers"]["x-shopify-topic"], each["body"]) for each in recorded),
        )
        hear(pipeline)
        for row in came_to(pipeline):
            topic = row["topic"]
            if topic in told.left_out:
                assert (row["state"], row["reason"]) == ("left_out", told.left_out[topic])
            elif topic in told.feeds:
                # Whoever recorded them read numbers as JavaScript does: what is beyond 2^53 was rounded.
                assert row["state"] == "refused"
                assert row["reason"].startswith("some of it could not be read")
            else:
                assert row["state"] == "refused"
                assert row["reason"] == f"nothing is taken in of topic {topic}"
        ours = [each for each in recorded if each["headers"]["x-shopify-topic"] in told.feeds]
        assert len(ours) > 20
        # Those that tell a consent for itself name nobody twice; but they were tests, and tell none.
        assert {each["topic"] for each in ours if not contradicts(each["body"])} == CONSENTS
        reasons = Counter(
            row["reason"].partition(":")[2].strip()
            for source in SOURCES
            for row in pipeline.aside(source).to_pylist()
        )
        assert set(reasons) == {"one of them was rounded or mistaken", ""}
        (nothing,) = {row["reason"] for row in pipeline.aside("shop_consents").to_pylist()}
        assert nothing == "it tells of no consent, or not since when"
        assert facts(pipeline) == 0
    assert {"orders/create", "refunds/create", "inventory_levels/update"} <= topics


def mended(thing: Any) -> Any:
    """The same with the identifiers that its global ids tell, also where another thing refers to them."""
    known: dict[int, int] = {}

    def walk(one: Any, change: bool) -> None:
        if isinstance(one, list):
            for each in one:
                walk(each, change)
        elif isinstance(one, dict):
            told = str(one.get("admin_graphql_api_id") or "").partition("?")
            last = told[0].rpartition("/")[2]
            if "id" in one and last.isdecimal():
                known[one["id"]] = int(last)
            if told[2]:
                known[one["inventory_item_id"]] = int(told[2].rpartition("=")[2])
            for name, each in one.items():
                if change and isinstance(each, int) and each in known:
                    one[name] = known[each]
                walk(each, change)

    walk(thing, change=False)
    walk(thing, change=True)
    return thing


def test_with_their_true_identifiers_they_come_to_their_own_totals(home: Settings) -> None:
    """As the shop sent them, before somebody's reader rounded them."""
    wanted = ("orders.create", "refunds.create", "products.create", "fulfillments.create")
    with at_home(home) as pipeline:
        for name in wanted:
            recorded = json.loads((SAMPLES / "shopify" / "2024-10" / f"{name}.json").read_text())
            # They are orders of a test: that is left out, and asked here what it would have come to.
            body = {**mended(recorded["body"]), "test": False, "cancelled_at": None}
            arrive(pipeline, ("shop", recorded["headers"]["x-shopify-topic"], body))
        hear(pipeline)
        assert {row["state"] for row in came_to(pipeline)} == {"taken"}
        rows = pipeline.lake.query(
            "SELECT basket_id, sign(quantity_units) AS sign, sum(quantity_units)::BIGINT AS units,"
            " sum(value_minor)::BIGINT AS value FROM sale GROUP BY ALL ORDER BY 2 DESC",
            tables={"sale": SALE_LINES},
        ).to_pylist()
        # Two for 199.00 each, and both came back.
        assert [(row["units"], row["value"]) for row in rows] == [(2, 39800), (-2, -39800)]
        assert rows[0]["basket_id"] == "820982911946154508"


def test_the_recorded_customer_is_one_in_all_that_is_told_of_it(home: Settings) -> None:
    with at_home(home) as pipeline:
        for version, verb in (("2024-10", "create"), ("2023-01", "update")):
            path = SAMPLES / "shopify" / version / f"customers.{verb}.json"
            body = mended(json.loads(path.read_text())["body"])
            # The older ones do not say when.
            body["updated_at"] = body["updated_at"] or "2023-01-01T00:00:00Z"
            arrive(pipeline, ("shop", f"customers/{verb}", body))
        hear(pipeline)
        assert {row["state"] for row in came_to(pipeline)} == {"taken"}
        pipeline.keep_history()
        rows = pipeline.lake.query(
            "SELECT * FROM kept ORDER BY occurred_at", tables={"kept": CUSTOMER_CHANGES}
        ).to_pylist()
        assert [row["email_consent"] for row in rows] == [None, True]
        assert len({(row["customer_id"], row["email_key"], row["card_key"]) for row in rows}) == 1
        person = pipeline.person("shop:706405506930370084", by="ann", reason="a test")
        texts = {each["field"]: each["text"] for each in person["personal"]}
        assert texts == {"name": "Bob Biller", "email": "bob@biller.com"}


def test_every_recorded_webhook_of_woocommerce_is_told_apart(home: Settings) -> None:
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            *(
                ("woo", each["headers"]["x-wc-webhook-topic"], each["body"])
                for each in samples("woocommerce")
            ),
        )
        hear(pipeline)
        ends = Counter((row["topic"], row["state"]) for row in came_to(pipeline))
        assert ends == {
            ("product.created", "taken"): 1,
            ("product.updated", "taken"): 1,
            ("coupon.created", "refused"): 1,
            ("coupon.deleted", "refused"): 1,
            ("coupon.restored", "refused"): 1,
        }
        # The product has no SKU.
        rows = pipeline.aside("woo_products").to_pylist()
        assert {(row["rule"], row["column"]) for row in rows} == {("missing", "sku")}


def test_what_others_send_is_no_order_of_ours(home: Settings) -> None:
    told: list[Told] = [
        ("shop", "orders/create", each.get("body", each))
        for provider in ("bigcommerce", "stripe", "commercelayer")
        for each in samples(provider)
    ]
    told.append(
        (
            "shop",
            "orders/create",
            json.loads(
                (SHARED / "webhook_samples/square_inventory_count_updated.json").read_text()
            ),
        )
    )
    assert len(told) == 78
    with at_home(home) as pipeline:
        arrive(pipeline, *told)
        hear(pipeline)
        assert {row["state"] for row in came_to(pipeline)} == {"refused"}
        assert facts(pipeline) == 0


CAME_TO = {
    ("shopify_orders", "order"): (
        0,
        "the lines of this order come to 597.00, and it says they come to 398.00",
    ),
    ("shopify_orders", "orders"): (0, "this order has no lines, or is no order"),
    ("shopify_orders", "refund"): (2, None),
    ("shopify_orders", "draft_order"): (0, None),
    ("shopify_orders", "product"): (0, None),
    ("shopify_products", "product"): (4, None),
    ("shopify_products", "products"): (1, "the key of the row stands earlier in the same file"),
    ("shopify_fulfilments", "fulfillment"): (1, None),
    ("shopify_customers", "customer"): (1, None),
    ("shopify_customers", "customers_search"): (1, None),
    ("shopify_customers", "order"): (0, "this is no customer"),
    ("shopify_stock", "inventory_levels"): (
        0,
        "no product of the shop has told which SKU this item of stock has",
    ),
    ("shopify_stock", "inventory_level"): (
        0,
        "no product of the shop has told which SKU this item of stock has",
    ),
}


@pytest.mark.parametrize(("mapping", "name"), CAME_TO)
def test_recorded_answers_of_shopify_come_to_their_totals(mapping: str, name: str) -> None:
    many, why = CAME_TO[mapping, name]
    (batch,) = load(mapping, [FIXTURES / f"{name}.json"])
    assert batch.rows.num_rows == many
    reasons = {row["reason"] for row in batch.rejected.to_pylist()}
    assert why is None or reasons == {why}
    assert many or reasons
    if name == "refund":
        assert batch.rows["value_minor"].to_pylist() == [-19900, -19900]
        assert set(batch.rows["currency"].to_pylist()) == {"USD"}


@pytest.mark.parametrize(
    ("topic", "mapping", "many"),
    [
        ("orders/create", "shopify_orders", 4),
        ("orders/cancelled", "shopify_orders", 4),
        ("products/update", "shopify_products", 2),
        ("customers/update", "shopify_customers", 1),
    ],
)
def test_a_recorded_webhook_comes_by_graphql_as_the_same(
    topic: str, mapping: str, many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    feed = mapping.partition("_")[2]
    newest = [each for each in samples("shopify") if each["headers"]["x-shopify-topic"] == topic][
        -1
    ]
    # Those who recorded them tried their webhooks out.
    body = mended(newest["body"]) | {"test": False}
    with opened_to_all(Shop({}, admin=Admin({feed: [body]}))) as one:
        pages = list(ingest.asked(of(one.url, api="graphql"), feed, LONG_AGO))
    (page,) = [each for each in pages if each.feed == feed]
    (by_webhook := tmp_path / "webhook.json").write_text(json.dumps(body))
    (by_graphql := tmp_path / "graphql.json").write_bytes(page.body)
    first, second = load(mapping, [by_webhook, by_graphql])
    assert first.rows.num_rows == second.rows.num_rows == many
    assert first.rows.drop_columns(["source_file"]).equals(
        second.rows.drop_columns(["source_file"])
    )
    assert first.restated == second.restated


def load(mapping: str, paths: list[Path]) -> Iterator[ingest.Loaded]:
    return ingest.load(
        ingest.mapping(mapping),
        paths,
        known_at=datetime(2026, 1, 1, tzinfo=UTC),
        location_id=hooks.LOCATION,
        pseudonym_key=b"0123456789abcdef",
        keys=lambda persons: dict.fromkeys(persons, bytes(64)),
    )


@pytest.mark.parametrize(
    "mapping", [each for each in ingest.shipped() if each.startswith(("shopify", "woo"))]
)
def test_no_recorded_answer_makes_a_reader_stumble(mapping: str) -> None:
    files = sorted(FIXTURES.glob("*.json"))
    batches = list(load(mapping, files))
    assert len(batches) == len(files) > 90
    for batch in batches:
        turned = batch.rejected.num_rows + sum(batch.ignored.values())
        assert batch.read == batch.rows.num_rows + turned
