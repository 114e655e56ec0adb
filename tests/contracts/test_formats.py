"""Every format that feeds come in, taken in twice, shuffled, killed half-way and with a correction.

To add a format, or a kind of document of one, add one entry to `CASES`: its mapping, as the text of one
or the name of one that ships; the bytes of two files or more, of some seven rows in all, each of which is
taken in; the bytes of a file that corrects something that they say; and how many facts history has before and
after it. What must hold of it is below, and needs nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storekeep import ingest
from storekeep.config import Settings
from storekeep.ingest import Mapping
from storekeep.ingest.formats import FORMATS
from storekeep.lake import FACTS
from storekeep.pipeline import Pipeline, opened
from tests.contracts.reader import KEY
from tests.hooks import consent, customer, line, order
from tests.interchanges import edifact, x12

# What a format does by itself, quicker tests come by; here is what all of them must do alike.
pytestmark = [pytest.mark.crash, pytest.mark.no_cover]

ROOT = Path(__file__).parents[2]
DEATHS = 2


@dataclass(frozen=True)
class Case:
    """One format: a mapping, files of it, a file that corrects them, and the facts before and after it."""

    mapping: str
    files: tuple[bytes, ...]
    correction: bytes
    facts: int
    corrected: int


def _parquet(*rows: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


_TILL = """\
feed: pos
source: till
table: sale_line
format: csv
currency: EUR
source_columns: {receipt: text, item: text, qty: int, price: decimal, at: time}
columns:
  store_id: "'main'"
  basket_id: receipt
  sku: item
  quantity_units: qty
  value_minor: qty * price
  occurred_at: at
document: [basket_id]
"""
SHIPPED = {
    name: (resources.files("storekeep.ingest") / f"mappings/{name}.yaml").read_text()
    for name in ingest.shipped()
}
_HEADER = b"receipt,item,qty,price,at\n"
_WAREHOUSE = """\
feed: stock
source: warehouse
table: stock_report
format: parquet
source_columns: {item: text, there: int, at: time}
columns: {sku: item, quantity_units: there, occurred_at: at}
"""


def _sale(number: int, *lines: tuple[str, int], voids: int | None = None) -> str:
    """A till's transaction: items and how many of each, or of which transaction it takes all back."""
    items = "".join(
        f"<LineItem><Sale><ItemID>{item}</ItemID><ExtendedAmount>{units}</ExtendedAmount>"
        f"<Quantity>{units}</Quantity></Sale></LineItem>"
        for item, units in lines
    )
    due = sum(units for _, units in lines)
    link = f"<TransactionLink ReasonCode='Voided'><SequenceNumber>{voids}</SequenceNumber></TransactionLink>"
    return (
        f"<Transaction><RetailStoreID>main</RetailStoreID><WorkstationID>1</WorkstationID>"
        f"<SequenceNumber>{number}</SequenceNumber><BusinessDayDate>2026-01-0{number}</BusinessDayDate>"
        f"<EndDateTime>2026-01-0{number}T09:00:00</EndDateTime><CurrencyCode>EUR</CurrencyCode>"
        f"<RetailTransaction>{items}<LineItem><Tender><Amount>{due}</Amount></Tender></LineItem>"
        f"{link if voids else ''}</RetailTransaction></Transaction>"
    )


def _poslog(*transactions: str) -> bytes:
    return f"<POSLog>{''.join(transactions)}</POSLog>".encode()


def _seen(item: str, units: int, day: int, **more: Any) -> dict[str, Any]:
    """An event of EPCIS: so many units of an item were stored on a day."""
    return {
        "type": "ObjectEvent",
        "eventTime": f"2026-01-0{day}T09:00:00Z",
        "action": "OBSERVE",
        "bizStep": "storing",
        "bizLocation": {"id": "urn:epc:id:sgln:9501101.02001.0"},
        "quantityList": [{"epcClass": f"urn:epc:class:lgtin:9501101.{item}.L1", "quantity": units}],
        **more,
    }


def _epcis(*events: dict[str, Any]) -> bytes:
    return json.dumps(events).encode()


_SHOP = """\
feed: orders
source: shop
table: sale_line
format: jsonl
currency: EUR
source_columns: {id: text, at: time, lines.sku: text, lines.qty: int, lines.total: decimal}
columns:
  store_id: "'web'"
  basket_id: id
  sku: lines.sku
  quantity_units: lines.qty
  value_minor: lines.total
  occurred_at: at
document: [basket_id]
"""

_PEOPLE = """\
feed: customers
source: crm
table: customer
format: csv
source_columns: {id: text, mail: text, mail_match: text, news: bool, at: time}
columns: {customer_id: id, email_key: mail_match, email_consent: news, occurred_at: at}
customer: pseudonymise
match: {mail_match: {of: mail, kind: email}}
sealed: {email: mail}
"""
_DESK = """\
feed: tickets
source: desk
table: ticket_message
format: jsonl
source_columns: {ticket: text, who: text, said.id: text, said.text: text, said.at: time}
columns:
  message_id: said.id
  ticket_id: ticket
  direction: "'in'"
  author: "'customer'"
  customer_id: who
  occurred_at: said.at
customer: pseudonymise
sealed: {text: said.text}
"""


def _thread(ticket: str, who: str, *said: tuple[str, int, str]) -> bytes:
    rows = [{"id": id_, "at": f"2026-01-{day:02}", "text": text} for id_, day, text in said]
    return json.dumps({"ticket": ticket, "who": who, "said": rows}).encode() + b"\n"


def _order(number: int, day: int, *lines: tuple[str, int, str]) -> bytes:
    rows = [{"sku": sku, "qty": qty, "total": total} for sku, qty, total in lines]
    return json.dumps({"id": number, "at": f"2026-01-{day:02}", "lines": rows}).encode() + b"\n"


def _listed(*products: dict[str, Any]) -> bytes:
    graph = [{"@type": "Product", **each} for each in products]
    return json.dumps({"@context": "https://schema.org", "@graph": graph}).encode()


def _sales(day: str, stores: str) -> bytes:
    body = [f"XQ*H*{day}*{day}", "LIN*1*IN*apple", "CTP**RES*0.50", "ZA*QS", stores, "CTT*1"]
    return x12(("852", body)).encode()


def _sent(notice: str, apples: int, pears: int) -> bytes:
    body = [f"BSN*00*{notice}*20260705*0730", "HL*1**S", "N1*SU**92*north", "HL*2*1*O", "PRF*PO-1"]
    body += ["HL*3*2*I", "LIN*1*IN*apple", f"SN1**{apples}*EA"]
    body += ["HL*4*2*I", "LIN*2*IN*pear", f"SN1**{pears}*EA", "CTT*4"]
    return x12(("856", body)).encode()


def _report(number: str, purpose: str, *quantities: int) -> bytes:
    body = [f"BGM+73E+{number}+{purpose}", "DTM+356:20260703:102", "CUX+2:EUR:10", "LOC+162+S1"]
    for place, quantity in enumerate(quantities, start=1):
        body += [f"LIN+{place}++apple:IN", "PRI+AAE:0.50::RTP", f"QTY+153:{quantity}"]
    return edifact(("SLSRPT", body)).encode()


def _without_people(name: str) -> str:
    """A mapping that ships, without customers: these would take a key."""
    text = (resources.files("storekeep.ingest") / "mappings" / f"{name}.yaml").read_text()
    return text.replace("customer: pseudonymise\n", "").replace("  customer_id: customer_id\n", "")


def _json(thing: Any) -> bytes:
    return json.dumps(thing).encode()


def _woo(number: int, status: str, *items: tuple[int, str], minute: int = 0) -> dict[str, Any]:
    return {
        "id": number,
        "status": status,
        "currency": "EUR",
        "date_created_gmt": "2026-01-01T09:00:00",
        "date_modified_gmt": f"2026-01-01T09:{minute:02}:00",
        "line_items": [
            {"id": each, "sku": sku, "quantity": 1, "total": "2.00"} for each, sku in items
        ],
    }


def _taken_back(number: int, sku: str) -> dict[str, Any]:
    """A refund of WooCommerce that was asked what came back."""
    line = {"id": number * 10, "sku": sku, "quantity": -1, "total": "-2.00"}
    made = "2026-01-01T09:04:00"
    return {"id": number, "amount": "2.00", "date_created_gmt": made, "line_items": [line]}


def _buyer(number: int, name: str, minute: int = 0) -> dict[str, Any]:
    """A customer of WooCommerce."""
    at = f"2026-01-01T09:{minute:02}:00"
    shared = {"id": number, "first_name": name, "last_name": "", "date_modified_gmt": at}
    return {**shared, "email": f"{name}@x.org", "billing": {"country": "DE", "phone": ""}}


def _variants(name: str, *skus: str, minute: int = 0) -> dict[str, Any]:
    at = f"2026-01-01T09:{minute:02}:00Z"
    variants = [{"id": 1 + each, "sku": sku} for each, sku in enumerate(skus)]
    return {"id": 1, "title": name, "updated_at": at, "variants": variants}


def _parcel(number: int, line_id: int, minute: int = 0) -> dict[str, Any]:
    at = f"2026-01-01T09:{minute:02}:00Z"
    lines = [{"id": line_id, "quantity": 1}]
    shared = {"id": number, "order_id": 1, "status": "success", "line_items": lines}
    return {**shared, "created_at": at, "updated_at": at}


def _level(item: int, many: int, day: int) -> dict[str, Any]:
    at = f"2026-01-{day:02}T09:00:00Z"
    shared = {"inventory_item_id": item, "location_id": 1, "sku": f"sku {item}"}
    return {**shared, "available": many, "updated_at": at}


def _sold(number: int, quantity: int = 1, minutes: int = 0) -> dict[str, Any]:
    return order(number, line(number * 10, "fig", quantity), minutes=minutes)


CASES: dict[str, Case] = {
    "shopify_orders": Case(
        _without_people("shopify_orders"),
        (
            _json({"orders": [order(1, line(11), line(12)), _sold(2**53 + 1)]}),
            _json(_sold(3)),
        ),
        # Of the last order there is one more by now.
        _json(_sold(3, 2, minutes=5)),
        *(4, 5),
    ),
    "shopify_products": Case(
        "shopify_products",
        (_json({"products": [_variants("Apple", "red", "green")]}), _json(_variants("Fig", "fig"))),
        _json(_variants("Figs", "fig", minute=1)),
        *(3, 4),
    ),
    "shopify_fulfilments": Case(
        "shopify_fulfilments",
        (_json({"fulfillments": [_parcel(1, 11), _parcel(2, 12)]}), _json(_parcel(3, 13))),
        _json(_parcel(3, 13, minute=1)),
        *(3, 4),
    ),
    "shopify_stock": Case(
        "shopify_stock",
        (_json({"inventory_levels": [_level(1, 5, 1), _level(2, -1, 1)]}), _json(_level(1, 4, 2))),
        _json(_level(1, 3, 2)),
        *(3, 4),
    ),
    "woocommerce_orders": Case(
        _without_people("woocommerce_orders"),
        (
            _json(
                [
                    _woo(1, "processing", (1, "apple"), (2, "apple")),
                    _woo(2, "completed", (3, "fig")) | {"refunds": [_taken_back(1, "fig")]},
                ]
            ),
            _json(_woo(3, "completed", (4, "fig"))),
        ),
        _json(_woo(3, "cancelled", (4, "fig"), minute=5)),
        *(5, 6),
    ),
    "woocommerce_products": Case(
        "woocommerce_products",
        (
            _json([{"id": 1, "sku": "apple", "name": "Apple", "regular_price": "1"}]),
            _json({"id": 2, "sku": "fig", "name": "Fig", "regular_price": "1"}),
        ),
        _json({"id": 2, "sku": "fig", "name": "Figs", "regular_price": "1"}),
        *(2, 3),
    ),
    "shopify_customers": Case(
        "shopify_customers",
        (
            _json({"customers": [customer(2**53 + 1), customer(2, email="bob@x.org")]}),
            _json(customer(2, 5, email="rob@x.org")),
        ),
        # It was another's address.
        _json(customer(2, 5, email="bob@x.org")),
        *(3, 4),
    ),
    "shopify_consents": Case(
        "shopify_consents",
        (
            _json({"customer_id": 1, "email_marketing_consent": consent("subscribed")}),
            _json({"id": 1, "sms_marketing_consent": consent("subscribed", 1)}),
        ),
        _json({"id": 1, "sms_marketing_consent": consent("unsubscribed", 1)}),
        *(2, 3),
    ),
    "woocommerce_customers": Case(
        "woocommerce_customers",
        (_json([_buyer(2**53 + 1, "ann"), _buyer(2, "bob")]), _json(_buyer(2, "bob", minute=5))),
        _json(_buyer(2, "rob", minute=5)),
        *(3, 4),
    ),
    "csv": Case(
        _TILL,
        (
            _HEADER + 2 * b"r1,apple,1,0.50,2026-01-01 09:00\n",
            _HEADER + b"r2,pear,2,0.40,2026-01-02 09:00\nr3,fig,5,0.40,2026-01-02 09:10\n",
            _HEADER + b"r4,pear,1,0.40,2026-01-03 09:00\n",
        ),
        # What was rung up as r3 is taken back.
        _HEADER + b"r3,fig,-5,0.40,2026-01-03 10:00\n",
        *(5, 6),
    ),
    "parquet": Case(
        _WAREHOUSE,
        (
            _parquet(
                {"item": "apple", "there": 3, "at": "2026-01-01"},
                {"item": "pear", "there": 4, "at": "2026-01-01"},
            ),
            _parquet({"item": "apple", "there": 2, "at": "2026-01-02"}),
            _parquet({"item": "pear", "there": 2, "at": "2026-01-03"}),
        ),
        _parquet({"item": "apple", "there": 1, "at": "2026-01-02"}),
        *(4, 5),
    ),
    "poslog": Case(
        # The contract gives no key to make pseudonyms with.
        SHIPPED["poslog"].replace("customer: pseudonymise", "customer: keep"),
        (
            _poslog(_sale(1, ("apple", 1), ("apple", 1))),
            _poslog(_sale(2, ("pear", 2)), _sale(3, ("fig", 5))),
            _poslog(_sale(4, ("pear", 1))),
        ),
        _poslog(_sale(5, ("fig", 5), voids=3)),
        *(5, 6),
    ),
    "epcis": Case(
        "epcis",
        (
            _epcis(_seen("011111", 3, 1), _seen("022222", 4, 1)),
            _epcis(_seen("011111", 2, 2)),
            _epcis(_seen("022222", 2, 3)),
        ),
        _epcis(_seen("011111", 2, 2, errorDeclaration={"reason": "incorrect_data"})),
        *(4, 5),
    ),
    "jsonl": Case(
        _SHOP,
        (
            _order(2**53 + 1, 1, ("apple", 1, "0.50"), ("apple", 1, "0.50"), ("fig", 2, "0.80")),
            _order(2**53 + 2, 1, ("pear", 2, "0.80")) + _order(4, 2, ("pear", 1, "0.40")),
        ),
        # The last order is taken back.
        _order(4, 3, ("pear", -1, "-0.40")),
        *(5, 6),
    ),
    "customers": Case(
        _PEOPLE,
        (
            b"id,mail,news,at\n1,ann@x.org,true,2026-01-01\n2,bob@x.org,,2026-01-01\n",
            b"id,mail,news,at\n1,ann@x.org,false,2026-01-02\n3,cat@x.org,true,2026-01-01\n",
        ),
        # Whoever is 2 has been somebody else's address.
        b"id,mail,news,at\n2,rob@x.org,,2026-01-01\n",
        *(4, 5),
    ),
    "ticket_messages": Case(
        _DESK,
        (
            _thread("T1", "ann@x.org", ("1", 1, "where is it"), ("2", 2, "still not here")),
            _thread("T2", "", ("3", 1, "hello")) + _thread("T3", "bob@x.org", ("4", 3, "thanks")),
        ),
        # It was of another ticket.
        _thread("T4", "bob@x.org", ("4", 3, "thanks")),
        *(4, 5),
    ),
    "schema_org": Case(
        "schema_org_products",
        (
            _listed({"sku": "apple", "name": "Apple"}, {"sku": "pear", "gtin13": "4006381333931"}),
            _listed({"sku": "fig", "brand": {"name": "Farm"}}),
        ),
        _listed({"sku": "pear", "name": "Pear", "gtin13": "4006381333931"}),
        *(3, 4),
    ),
    "x12 852": Case(
        "x12_852",
        (
            _sales("20260703", "SDQ*EA*92*S1*3*S1*3*S2*4"),
            _sales("20260704", "SDQ*EA*92*S1*1*S2*2"),
            _sales("20260705", "SDQ*EA*92*S2*5"),
        ),
        # What the second store sold on the last day was never sold.
        _sales("20260705", "SDQ*EA*92*S2*-5"),
        *(6, 7),
    ),
    "x12 856": Case(
        "x12_856",
        (_sent("N1", 10, 6), _sent("N2", 4, 2), _sent("N3", 1, 1)),
        _sent("N2", 4, 3),
        *(6, 7),
    ),
    "edifact slsrpt": Case(
        "edifact_slsrpt",
        (_report("R1", "9", 1, 1, 3), _report("R2", "9", 2), _report("R3", "9", 5, 4)),
        # The second report was wrong: it is cancelled.
        _report("R2", "1", 2),
        *(6, 7),
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


class Fed:
    """The files of a case in a folder, and a tenant of its own for each way of reading them."""

    def __init__(self, case: Case, folder: Path, home: Path) -> None:
        self.case, self.home = case, home
        self.mapping: Path | str = case.mapping
        if "\n" in case.mapping:
            self.mapping = folder / "mapping.yaml"
            self.mapping.write_text(case.mapping)
        self.files = [folder / f"{number}.file" for number in range(len(case.files))]
        for file, content in zip(self.files, case.files, strict=True):
            file.write_bytes(content)
        self.correction = folder / "correction.file"
        self.correction.write_bytes(case.correction)

    @contextmanager
    def opened(self, tenant: str | None = None) -> Iterator[Pipeline]:
        """A tenant, a new one unless one is named."""
        with opened(Settings(home=self.home, tenant=tenant or new_tenant())) as pipeline:
            yield pipeline

    @cached_property
    def mapped(self) -> Mapping:
        """What the mapping says; to read it takes as long as to read a file by it."""
        return ingest.mapping(self.mapping)

    def read(self, pipeline: Pipeline, files: Sequence[Path]) -> tuple[int, int]:
        """Read files; how many rows were new, and how many known before."""
        told = pipeline.read_feed(self.mapped, files, location_id="DC1", pseudonym_key=KEY)
        assert not sum(each.rejected.total() for each in told), told
        return sum(each.accepted for each in told), sum(each.duplicates for each in told)

    def state(self, pipeline: Pipeline, known_by: Any = None) -> Any:
        """What history holds, without when and by which file it came; how the feed stands; what is sealed."""
        table = self.mapped.table
        facts = pipeline.lake.query(
            f"SELECT * EXCLUDE (known_at, source_file, source_line, position, fact) FROM {table}"
            " WHERE known_at <= $known_by ORDER BY ALL",
            tables={table: FACTS[table]},
            parameters={"known_by": known_by or pipeline.now()},
        )
        with pipeline.store.transaction(pipeline.tenant) as tx:
            sealed = [(each["reference"], each["field"]) for each in tx.personal()]
        return facts.to_pylist(), pipeline.feeds(known_by), sealed


@pytest.fixture
def fed(name: str, tmp_path: Path, home_settings: Settings) -> Fed:
    return Fed(CASES[name], tmp_path, home_settings.home)


def new_tenant() -> str:
    return f"t{uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def reader(home_settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Who reads files, and dies of it."""
    words = [sys.executable, "-m", "tests.contracts.reader", str(home_settings.home)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate()


def test_every_format_has_a_case(tmp_path: Path, home_settings: Settings) -> None:
    found = set()
    for case in CASES.values():
        found.add(Fed(case, tmp_path, home_settings.home).mapped.format)
    assert found == FORMATS.keys()


@each_case
def test_twice_shuffled_and_with_a_correction(fed: Fed) -> None:
    with fed.opened() as pipeline:
        assert fed.read(pipeline, fed.files) == (fed.case.facts, 0)
        once = fed.state(pipeline)
        assert fed.read(pipeline, fed.files) == (0, fed.case.facts)
        assert fed.state(pipeline) == once
        before = pipeline.now()
        new, _ = fed.read(pipeline, [fed.correction])
        assert new == fed.case.corrected - fed.case.facts > 0
        corrected = fed.state(pipeline)
        assert len(corrected[0]) == fed.case.corrected
        # What was known before the correction is still what was known before it.
        assert fed.state(pipeline, before) == once
        assert fed.read(pipeline, [*fed.files, fed.correction])[0] == 0
        assert fed.state(pipeline) == corrected
        # What a format always has is nothing new, whether or not the mapping wants it.
        assert {name for one in pipeline.feeds() for name in one["new_columns"]} == set()
    with fed.opened() as pipeline:
        fed.read(pipeline, fed.files[::-1])
        fed.read(pipeline, [fed.files[-1], fed.files[0]])
        assert fed.state(pipeline) == once


@each_case
def test_killed_half_way(fed: Fed, reader: subprocess.Popen[str]) -> None:
    files = [*fed.files, fed.correction]
    command = {"mapping": str(fed.mapping), "files": [str(each) for each in files]}

    def read(tenant: str, dies_at: int | None) -> Any:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(json.dumps({**command, "tenant": tenant, "dies_at": dies_at}) + "\n")
        reader.stdin.flush()
        return json.loads(reader.stdout.readline())

    calm, tenant = new_tenant(), new_tenant()
    moments = read(calm, None)["done"]["read"]["moments"]
    # Each death comes at another moment, and leaves all that was not done to the next.
    deaths = [
        read(tenant, moments * (1 + each) // (DEATHS + 2))["died_at"] for each in range(DEATHS)
    ]
    assert all(deaths), deaths
    assert not read(tenant, None)["failed"]
    with fed.opened(calm) as one, fed.opened(tenant) as other:
        assert fed.state(other) == fed.state(one)
