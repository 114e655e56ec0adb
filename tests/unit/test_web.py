"""The way in over HTTP, as those who send webhooks and push batches see it: real server, real database."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from storekeep import servers
from storekeep.config import Settings
from storekeep.ingest import Bodies
from storekeep.ingest.web_shops import is_signed, signature
from storekeep.pipeline import opened
from storekeep.store import Arrival, Store
from tests import hooks, shop
from tests.hooks import Served, line, order, served

LIMIT = 100_000
CSV = "receipt,item,qty,price,at,card\nr1,apple,2,0.50,2026-01-02 09:00:00,\n"
MAPPING = """\
feed: pos
source: partner
table: sale_line
format: csv
currency: EUR
source_columns: {receipt: text, item: text, qty: int, price: decimal, at: time}
columns:
  store_id: "'S1'"
  basket_id: receipt
  sku: item
  quantity_units: qty
  value_minor: qty * price
  occurred_at: at
document: [basket_id]
"""


@pytest.fixture(scope="module")
def home(home_settings: Settings) -> Settings:
    found = shop.new_tenant(home_settings).model_copy(
        update={"web_shops": hooks.SHOPS, "hook_bytes": LIMIT}
    )
    folder = found.home / "mappings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "partner.yaml").write_text(MAPPING)
    return found


@pytest.fixture(scope="module")
def server(home: Settings) -> Iterator[Served]:
    with served(home) as one:
        yield one


def kept(store: Store, home: Settings) -> dict[str, dict[str, object]]:
    with store.transaction(home.tenant) as tx:
        rows = tx._run("SELECT * FROM webhook_delivery")
    return {row["delivery_id"]: row for row in rows}


def opened_body(home: Settings, delivery_id: str, sealed: bytes) -> bytes:
    bodies = Bodies(home.home, home.tenant)
    return bodies.open(Arrival("shop", delivery_id, "", None, sealed)).body


def problem(answer: httpx.Response, status: int) -> str:
    """What a problem says, told as RFC 9457 has it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["title"]
    assert told["type"] == "about:blank"
    return str(told["detail"])


def test_a_webhook_is_answered_when_its_bytes_are_safe(
    server: Served, home: Settings, store: Store
) -> None:
    body = json.dumps(order(2**60 + 1, line(1)), indent=3).encode()
    assert server.hook(body, delivery_id="first").status_code == 200
    row = kept(store, home)["first"]
    # A copy of the database does not tell whose order it is; the home that it was sent to reads it.
    assert isinstance(sealed := row["body"], bytes)
    assert b"ann@example.com" in body
    assert b"ann" not in sealed
    assert opened_body(home, "first", sealed) == body
    assert (row["source"], row["topic"], row["state"]) == ("shop", "orders/create", "waiting")
    triggered = row["triggered_at"]
    assert isinstance(triggered, datetime)
    assert datetime.now(UTC) - triggered < timedelta(minutes=1)


def test_the_same_delivery_is_kept_once(server: Served, home: Settings, store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda _: server.hook(order(1, line(1)), delivery_id="again"), range(24))
        )
    assert {each.status_code for each in answers} == {200}
    assert "again" in kept(store, home)


def test_a_delivery_without_an_id_is_known_by_what_it_says(
    server: Served, home: Settings, store: Store
) -> None:
    before = len(kept(store, home))
    body = b'{"unnamed": 1}'
    headers = {"X-Shopify-Hmac-Sha256": signature(body, hooks.SECRET.encode())}
    for _ in range(2):
        answer = server.client.post("/v1/hooks/shop", content=body, headers=headers)
        assert answer.status_code == 200
    assert len(kept(store, home)) == before + 1


@pytest.mark.parametrize("secret", [hooks.SECRET, hooks.FORMER])
def test_both_secrets_count_while_one_follows_the_other(server: Served, secret: str) -> None:
    assert server.hook(order(2, line(1)), secret=secret).status_code == 200


def test_shopify_is_understood_in_both_spellings(
    server: Served, home: Settings, store: Store
) -> None:
    body = json.dumps(order(3, line(1))).encode()
    own = hooks.signed(body, "orders/paid", "shop", hooks.SECRET, "short")
    short = {name.removeprefix("X-"): said for name, said in own.items()}
    answer = server.client.post("/v1/hooks/shop", content=body, headers=short)
    assert answer.status_code == 200
    assert kept(store, home)["short"]["topic"] == "orders/paid"


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Shopify-Hmac-Sha256": ""},
        {"X-Shopify-Hmac-Sha256": "AAAA"},
        {"X-Shopify-Hmac-Sha256": signature(b"another body", hooks.SECRET.encode())},
    ],
)
def test_what_is_not_signed_is_not_kept(
    server: Served, home: Settings, store: Store, forged: dict[str, str]
) -> None:
    answer = server.hook(order(4, line(1)), delivery_id="forged", headers=forged)
    assert problem(answer, 401) == "the signature is not right"
    assert problem(server.hook(order(4, line(1)), secret="guessed"), 401)
    answer = server.client.post("/v1/hooks/shop", content=b"{}")
    assert problem(answer, 401)
    assert "forged" not in kept(store, home)


def test_a_signature_is_looked_at_byte_by_byte() -> None:
    good = signature(b"body", b"secret")
    assert is_signed(b"body", good, [b"other", b"secret"])
    assert not is_signed(b"body ", good, [b"secret"])
    assert not is_signed(b"body", good[:-1], [b"secret"])
    assert not is_signed(b"body", "é€", [b"secret"])
    assert not is_signed(b"body", good, [])


@pytest.mark.parametrize("said", ["2020-01-01T00:00:00.123456789Z", "2099-01-01T00:00:00Z", "soon"])
def test_what_was_sent_long_ago_is_not_kept(
    server: Served, home: Settings, store: Store, said: str
) -> None:
    answer = server.hook(
        order(5, line(1)), delivery_id="old", headers={"X-Shopify-Triggered-At": said}
    )
    assert problem(answer, 401) == "it was not sent lately, or does not say when"
    assert "old" not in kept(store, home)


def test_a_source_that_nobody_named_is_not_found(server: Served) -> None:
    for source in ("stripe", "Shop", "..", "shop%00"):
        assert server.hook({}, source=source).status_code == 404
    assert problem(server.client.get("/v1/hooks/shop"), 405)
    assert problem(server.client.post("/"), 404)


def test_what_is_signed_and_no_json_is_kept_and_told(
    server: Served, home: Settings, store: Store
) -> None:
    said = problem(server.hook(b"no json", delivery_id="no json"), 400)
    assert said == "the body is no JSON; it is kept, and nothing was taken in"
    sealed = kept(store, home)["no json"]["body"]
    assert isinstance(sealed, bytes)
    assert opened_body(home, "no json", sealed) == b"no json"


def test_a_body_over_the_limit_is_not_read_to_its_end(
    server: Served, home: Settings, store: Store
) -> None:
    long = b'"' + b"x" * LIMIT + b'"'
    said = problem(server.hook(long, delivery_id="long"), 413)
    assert said == "the body is longer than 100,000 bytes; send less"
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1 << 16
            yield b"x" * (1 << 16)

    try:
        answer = server.client.post("/v1/hooks/shop", content=parts())
        assert problem(answer, 413)
    except httpx.WriteError:
        # The server has hung up by then.
        pass
    assert "long" not in kept(store, home)
    assert server.hook(order(6, line(1))).status_code == 200


def test_woocommerce_asks_first_whether_somebody_is_there(
    server: Served, home: Settings, store: Store
) -> None:
    before = kept(store, home)
    answer = server.client.post("/v1/hooks/woo", content=b"webhook_id=9")
    assert answer.status_code == 200
    assert kept(store, home) == before
    assert server.hook({"id": 1}, "order.created", source="woo").status_code == 200


def push(
    server: Served, body: bytes, path: str = "pos?mapping=partner", **headers: str
) -> httpx.Response:
    return server.client.post(
        f"/v1/ingest/{path}", content=body, headers={"Authorization": "Bearer push me", **headers}
    )


def test_a_batch_is_pushed_by_who_has_the_token(
    server: Served, home: Settings, store: Store
) -> None:
    answer = push(server, CSV.encode())
    assert answer.status_code == 202
    assert push(server, CSV.encode()).json() == answer.json()
    # For another mapping it is another batch.
    (home.home / "mappings" / "other.yaml").write_text(MAPPING.replace("partner", "other"))
    other = push(server, CSV.encode(), "pos?mapping=other")
    assert other.json() != answer.json()
    assert kept(store, home)[answer.json()["delivery_id"]]["topic"] == "pos/partner"
    assert problem(push(server, b"x", Authorization="Bearer pull me"), 401)
    assert problem(push(server, b"x", Authorization=""), 401)
    assert problem(push(server, b""), 400)
    assert "no mapping" in problem(push(server, b"x", "pos?mapping=nothing"), 400)
    assert problem(push(server, b"x", "pos"), 400)
    assert problem(push(server, b"x", "pos?mapping=../partner"), 400)
    assert "is of feed pos" in problem(push(server, b"x", "orders?mapping=partner"), 404)


def test_a_batch_that_was_pushed_becomes_facts(server: Served, home: Settings) -> None:
    push(server, CSV.replace("r1", "r2").encode(), **{"Idempotency-Key": "k1"})
    with opened(home) as pipeline:
        with pipeline.store.again() as beside:
            pipeline.hear(beside, Counter())
        stands = {row["source"]: row for row in pipeline.feeds()}
    assert stands["partner"]["units"]["net"] == 4


def test_nobody_pushes_where_no_token_is_set(home: Settings) -> None:
    with served(home, STOREKEEP_PUSH_TOKEN_ENV="") as one:
        assert problem(push(one, b"x"), 403)


def test_a_server_that_is_told_to_stop_answers_first(home: Settings, store: Store) -> None:
    with served(home) as one, ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(one.hook, order(8, line(1)), delivery_id=f"stop {n}") for n in range(40)
        ]
        one.process.send_signal(signal.SIGTERM)
        answered = []
        for number, each in enumerate(sent):
            try:
                assert each.result().status_code == 200
                answered.append(f"stop {number}")
            except httpx.TransportError:
                pass
        out, _ = one.process.communicate(timeout=20)
    assert json.loads(out)["stopped_by"] == "SIGTERM"
    assert one.process.returncode == 0
    assert set(answered) <= set(kept(store, home))


def test_a_server_that_lost_its_connections_says_so_and_makes_new_ones(
    home: Settings, store: Store
) -> None:
    with served(home) as one, servers.lease(home) as database:
        assert one.hook(order(9, line(1))).status_code == 200
        with database.admin() as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND query LIKE 'INSERT INTO webhook_delivery%'"
            )
        # Two writers take turns, and one of them has lost its connection.
        answers = [one.hook(order(9, line(1)), delivery_id=f"cut {n}") for n in range(4)]
    refused = [each for each in answers if each.status_code != 200]
    assert len(refused) == 1
    assert problem(refused[0], 503) == "it is not kept; send it again"
    assert refused[0].headers["retry-after"] == "1"
    assert len({name for name in kept(store, home) if name.startswith("cut")}) == 3
