"""A web shop asked for what happened.

The shop is made up: a small HTTP server that pages, tires and fails as the platforms' documentation says that
they do; nobody reaches a real one from a test.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from storekeep import ingest
from storekeep.config import Settings, WebShop
from storekeep.errors import Misused, Permanent, Transient
from storekeep.lake import CUSTOMER_CHANGES, FULFILMENTS, PRODUCTS
from storekeep.pipeline import Pipeline, opened
from tests import shop
from tests.hooks import LOCATION, MADE, customer, line, order, refund
from tests.shopify_admin import Admin
from tests.unit.test_cli import ask, told
from tests.unit.test_hearing import arrive, hear, lines, of_shop

NOW = MADE + timedelta(days=1)
TOKEN = "let me in"
WC = "/wp-json/wc/v3/"


@dataclass
class Shop:
    """A shop that gives two things a page; `moods` are answered first, each once."""

    lists: dict[str, list[dict[str, Any]]]
    asked: list[str] = field(default_factory=list)
    moods: list[tuple[int, Mapping[str, str], bytes]] = field(default_factory=list)
    admin: Admin | None = None
    url: str = ""

    def answer(
        self, target: str, headers: Mapping[str, str], sent: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(target)
        if TOKEN not in (headers.get("X-Shopify-Access-Token"), headers.get("Authorization")):
            return 401, {}, b"{}"
        if self.moods:
            status, more, body = self.moods.pop(0)
            return status, dict(more), body
        if self.admin is not None and target.endswith("/graphql.json"):
            return 200, {}, self.admin.answer(sent)
        parts = urlsplit(target)
        question = parse_qs(parts.query)
        name = parts.path.rpartition("/")[2].removesuffix(".json")
        if name == "refunds":
            return self._page(self.lists.get(parts.path.removeprefix(WC), []), target)
        since = (question.get("updated_at_min") or question["modified_after"])[0]
        when = "date_modified_gmt" if "wc" in parts.path else "updated_at"
        things = [each for each in self.lists.get(name, ()) if each[when][:19] >= since[:19]]
        return self._page(things, target, None if "wc" in parts.path else name)

    def _page(
        self, things: list[dict[str, Any]], target: str, name: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        start = int(parse_qs(urlsplit(target).query).get("page_info", ["0"])[-1])
        page, rest = things[start : start + 2], things[start + 2 :]
        more = {"Link": f'<{self.url}{target}&page_info={start + 2}>; rel="next"'} if rest else {}
        return 200, more, json.dumps(page if name is None else {name: page}).encode()


@contextmanager
def opened_to_all(one: Shop) -> Iterator[Shop]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, more, body = one.answer(self.path, self.headers, sent)  # type: ignore[arg-type]  # it maps names to texts
            self.send_response(status)
            for name, said in {**more, "Content-Length": str(len(body))}.items():
                self.send_header(name, said)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - what a server calls it

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        one.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield one
        finally:
            server.shutdown()
            thread.join()


def of(url: str, **more: Any) -> WebShop:
    return WebShop(
        **{
            "platform": "shopify",
            "location_id": LOCATION,
            "secret_env": "S",
            "url": url,
            "token_env": "SHOP_TOKEN",
            "api": "rest",
            **more,
        }
    )


@pytest.fixture
def home(home_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    return shop.new_tenant(home_settings)


@contextmanager
def at(home: Settings, one: Shop, **more: Any) -> Iterator[Pipeline]:
    settings = home.model_copy(update={"web_shops": {"shop": of(one.url, **more)}})
    with opened(settings, now=shop.Clock(NOW)) as pipeline:
        yield pipeline


PARCEL = {
    "id": 5,
    "order_id": 2,
    "status": "success",
    "created_at": MADE.isoformat(),
    "updated_at": MADE.isoformat(),
    "line_items": [line(21)],
}
PRODUCT = {
    "id": 1,
    "title": "Apple",
    "updated_at": MADE.isoformat(),
    "variants": [{"id": 2, "sku": "apple", "inventory_item_id": 3}],
}
ORDERS = [
    order(1, line(11, quantity=3)),
    order(2, line(21, "pear"), minutes=1, fulfillments=[PARCEL]),
    order(3, line(31, "fig"), minutes=2),
    order(1, line(11, quantity=3), minutes=3, refunds=[refund(7, line(11), 1)]),
    order(4, line(41, "kiwi"), minutes=4),
]
SOLD = {
    ("1", "apple", "09:30"): (3, 750),
    ("1", "apple", "10:00"): (-1, -250),
    ("2", "pear", "09:30"): (1, 250),
    ("3", "fig", "09:30"): (1, 250),
    ("4", "kiwi", "09:30"): (1, 250),
}


def test_all_pages_are_read_and_what_came_by_webhook_is_known(home: Settings) -> None:
    with (
        opened_to_all(Shop({"products": [PRODUCT], "orders": ORDERS})) as one,
        at(home, one) as pipeline,
    ):
        arrive(pipeline, of_shop("orders/updated", ORDERS[3]), of_shop("orders/create", ORDERS[1]))
        hear(pipeline)
        came = pipeline.backfill("shop")
        assert lines(pipeline) == SOLD
        assert (came["orders"].read, came["orders"].accepted) == (6, 2)
        for kept in (PRODUCTS, FULFILMENTS):
            assert pipeline.lake.query("SELECT * FROM kept", tables={"kept": kept}).num_rows == 1
        asked = [each for each in one.asked if "orders" in each]
        assert len(asked) == 3
        assert "status=any" in asked[0]
        # The next one begins where this one ended, and finds nothing.
        one.asked.clear()
        assert pipeline.backfill("shop") == {}
        assert "2026-03-03T09%3A25%3A00Z" in one.asked[0]
        pipeline.backfill("shop", MADE)
        assert lines(pipeline) == SOLD


def test_customers_are_asked_for_and_those_that_came_by_webhook_are_known(home: Settings) -> None:
    people = [customer(77), customer(78, 1), customer(79, 2)]
    with opened_to_all(Shop({"customers": people})) as one, at(home, one) as pipeline:
        arrive(pipeline, of_shop("customers/create", people[1]))
        hear(pipeline)
        came = pipeline.backfill("shop")
        assert (came["customers"].read, came["customers"].accepted) == (3, 2)
        (row, *_) = rows = pipeline.lake.query(
            "SELECT * FROM kept", tables={"kept": CUSTOMER_CHANGES}
        ).to_pylist()
        assert len(rows) == 3
        assert row["card_key"].startswith("shop:")
        assert pipeline.backfill("shop") == {}


def test_one_that_was_stopped_goes_on_where_it_was(home: Settings) -> None:
    with opened_to_all(Shop({"products": [], "orders": ORDERS})) as one, at(home, one) as pipeline:

        def fail(many: int, count: list[int] = [3]) -> None:  # noqa: B006 - it counts over all calls
            count[0] -= many
            if count[0] < 0:
                raise Transient("killed")

        with pytest.raises(Transient):
            pipeline.backfill("shop", step=fail)
        one.asked.clear()
        pipeline.backfill("shop")
        (first, *_) = [each for each in one.asked if "orders" in each]
        assert "updated_at_min=2026-03-02T09%3A26%3A00Z" in first
        assert lines(pipeline) == SOLD


def test_a_shop_that_is_busy_is_asked_again_when_it_says(home: Settings) -> None:
    del home
    waited: list[float] = []
    busy: list[tuple[int, Mapping[str, str], bytes]] = [
        (429, {"Retry-After": "2.0"}, b""),
        (503, {}, b""),
        (429, {"Retry-After": "9999"}, b""),
    ]
    with opened_to_all(Shop({"orders": ORDERS[:1]}, moods=busy)) as one:
        pages = list(ingest.asked(of(one.url), "orders", MADE, waited.append))
    assert [page.feed for page in pages] == ["orders"]
    assert waited == [2.0, 1.0, 60.0]


def test_a_shop_that_does_not_answer_is_not_asked_for_ever(home: Settings) -> None:
    del home
    waited: list[float] = []
    with opened_to_all(Shop({"orders": []}, moods=[(500, {}, b"")] * 9)) as one:
        with pytest.raises(Transient, match="does not answer \\(status 500\\); ask again later"):
            list(ingest.asked(of(one.url), "orders", MADE, waited.append))
        assert len(one.asked) == 5
    with pytest.raises(Transient, match="does not answer"):
        list(ingest.asked(of(one.url), "orders", MADE, waited.append))


def wrong_token(one: Shop) -> None:
    one.moods.append((403, {}, b""))


def no_json(one: Shop) -> None:
    one.moods.append((200, {}, b"<html>"))


def no_list(one: Shop) -> None:
    one.moods.append((200, {}, b'{"errors": "none"}'))


def elsewhere(one: Shop) -> None:
    one.moods.append((200, {"Link": '<http://127.0.0.2:1/x>; rel="next"'}, b'{"orders": []}'))


def in_a_circle(one: Shop) -> None:
    stamp = "2026-03-02T09%3A30%3A00Z"
    own = f"/orders.json?limit=250&status=any&order=updated_at+asc&updated_at_min={stamp}"
    url = f"{one.url}/admin/api/2026-10{own}"
    one.moods.append((200, {"Link": f'<{url}>; rel="next"'}, b'{"orders": []}'))


@pytest.mark.parametrize(
    ("mood", "why"),
    [
        (wrong_token, "says no \\(status 403\\)"),
        (no_json, "gave no answer of its kind"),
        (no_list, "it has no list of orders"),
        (in_a_circle, "from a page to the same page"),
        (elsewhere, "which is not the shop"),
    ],
)
def test_an_answer_that_is_none_ends_it(
    home: Settings, mood: Callable[[Shop], None], why: str
) -> None:
    del home
    with opened_to_all(Shop({"orders": []})) as one:
        mood(one)
        with pytest.raises(Permanent, match=why) as refused:
            list(ingest.asked(of(one.url), "orders", MADE, lambda _: None))
        assert TOKEN not in str(refused.value)


def test_woocommerce_is_asked_in_its_own_way(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "ck:cs")
    monkeypatch.setattr("tests.unit.test_backfill.TOKEN", "Basic Y2s6Y3M=")
    stamp = MADE.isoformat()[:19]
    orders = [
        {
            "id": number,
            "status": "completed",
            "currency": "EUR",
            "date_created_gmt": stamp,
            "date_modified_gmt": stamp,
            "line_items": [{"id": number * 10, "sku": "apple", "quantity": 1, "total": "2.00"}],
        }
        for number in (1, 2, 3)
    ]
    with (
        opened_to_all(Shop({"products": [], "orders": orders})) as one,
        at(home, one, platform="woocommerce") as pipeline,
    ):
        pipeline.backfill("shop")
        assert len(lines(pipeline)) == 3
    assert any("modified_after=1970-01-01T00%3A00%3A00Z" in each for each in one.asked)


def test_a_shop_that_fell_silent_is_asked_for_what_happened(home: Settings) -> None:
    with (
        opened_to_all(Shop({"products": [], "orders": ORDERS})) as one,
        at(home, one, silent_after_seconds=60) as pipeline,
    ):
        arrive(pipeline, of_shop("orders/create", ORDERS[0]))
        hear(pipeline)
        with pipeline.store.transaction(pipeline.tenant) as tx:
            tx._run("UPDATE webhook_delivery SET received_at = %s", (NOW - timedelta(hours=1),))
        assert pipeline.note_silence() == ["shop"]
        assert pipeline.note_silence() == ["shop"]
        assert lines(pipeline) == SOLD
        (row,) = [row for row in pipeline.feeds() if row["source"] == "shop"]
        assert row["state"] == "degraded"
        assert len([each for each in one.asked if "orders" in each]) == 3


def test_as_a_person_asks(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_to_all(Shop({"products": [], "orders": ORDERS})) as one:
        shops = {"shop": of(one.url).model_dump()}
        monkeypatch.setenv("STOREKEEP_WEB_SHOPS", json.dumps(shops))
        monkeypatch.setenv("STOREKEEP_TENANT", home.tenant)
        words = ("--home", home.home)
        found = told(ask("ingest", "backfill", "shop", "--json", *words))
        # Five lines of sales, and one that was sent out.
        assert found["totals"]["accepted"] == 6
        assert {each["file"] for each in found["feeds"]} == {"orders", "fulfilments"}
        said = ask("ingest", "backfill", "shop", *words)
        assert "nothing new" in said.output
        assert told(ask("ingest", "again", "shop", "--json", *words))["deliveries"] == 0
        assert ask("ingest", "backfill", "other", *words).exit_code == 2


def test_a_shop_that_the_settings_do_not_say_how_to_ask_is_not_asked(home: Settings) -> None:
    unasked = of("https://shop.example").model_copy(update={"url": None})
    with opened(home.model_copy(update={"web_shops": {"shop": unasked}})) as pipeline:
        with pytest.raises(Misused, match="no url of web shop shop"):
            pipeline.backfill("shop")
        with pytest.raises(Misused, match="name no web shop other; there are: shop"):
            pipeline.backfill("other")
    with pytest.raises(ValueError, match="a token goes over https only"):
        of("http://shop.example")
