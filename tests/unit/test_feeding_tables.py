"""Every table that feeds can fill, through a live home: each row once, corrections as facts of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storekeep import ingest
from storekeep.bus import partition_of
from storekeep.config import Settings
from storekeep.errors import Misused, Refused
from storekeep.events import EVENT_TABLES, FED, HEADQUARTERS
from storekeep.lake import FACTS, newest
from storekeep.pipeline import Pipeline, opened
from tests.unit.test_cli import ask, told
from tests.unit.test_ingest import HEADER, LINE, TILL


@dataclass(frozen=True)
class Sample:
    """How one table is fed: a mapping, two rows, and what the second is corrected to."""

    mapping: str
    header: str
    first: str
    second: str
    corrected: str
    types: tuple[str, ...]
    subject: str


SAMPLES = {
    "stock_count": Sample(
        "feed: stock\nsource: shelf\ntable: stock_count\nformat: csv\n"
        "source_columns: {item: text, qty: int, at: time}\n"
        "columns: {sku: item, quantity_units: qty, occurred_at: at}\n",
        *("item,qty,at\n", "apple,3,2026-01-01 08:00\n", "pear,4,2026-01-01 08:00\n"),
        *("pear,5,2026-01-01 08:00\n", ("StockCounted",), "DC1"),
    ),
    "stock_report": Sample(
        "feed: stock\nsource: wms\ntable: stock_report\nformat: csv\n"
        "source_columns: {place: text, item: text, qty: int, at: time}\n"
        "columns: {location_id: place, sku: item, quantity_units: qty, occurred_at: at}\n",
        *("place,item,qty,at\n", "DC9,apple,3,2026-01-01\n", "DC9,pear,4,2026-01-01\n"),
        *("DC9,pear,-5,2026-01-01\n", ("StockReported",), "DC9"),
    ),
    "supplier_step": Sample(
        "feed: suppliers\nsource: mill\ntable: supplier_step\nformat: csv\n"
        "source_columns: {doc: text, line: text, what: text, po: text, item: text,\n"
        "  qty: int, due: date, at: time}\n"
        "columns: {supplier_id: \"'M1'\", document_id: doc, document_line: line, kind: what,\n"
        "  purchase_order_id: po, sku: item, quantity_units: qty, promised_on: due, occurred_at: at}\n",
        "doc,line,what,po,item,qty,due,at\n",
        "d1,1,accepted,PO1,apple,3,,2026-01-01\n",
        "d2,1,shipped,PO1,apple,3,2026-01-09,2026-01-02\n",
        "d2,1,shipped,PO1,apple,2,2026-01-09,2026-01-02\n",
        *(("SupplierAnswered", "GoodsShipped"), "M1"),
    ),
    "delivery": Sample(
        "feed: suppliers\nsource: dock\ntable: delivery\nformat: csv\ncurrency: EUR\n"
        "source_columns: {id: text, po: text, who: text, item: text,\n"
        "  qty: int, worth: decimal, due: date, at: time}\n"
        "columns: {delivery_id: id, purchase_order_id: po, supplier_id: who, sku: item,\n"
        "  quantity_units: qty, value_minor: worth, ordered_on: due, occurred_at: at}\n",
        "id,po,who,item,qty,worth,due,at\n",
        "1,PO1,M1,apple,3,2.50,2025-12-01,2026-01-01\n",
        "2,PO1,M1,pear,3,2.50,,2026-01-01\n",
        "2,PO1,M1,pear,3,2.50,,2026-02-01\n",
        *(("GoodsDelivered",), "DC1"),
    ),
    "product": Sample(
        "feed: products\nsource: catalogue\ntable: product\nformat: csv\n"
        "source_columns: {item: text, said: text}\ncolumns: {sku: item, name: said}\n",
        *("item,said\n", "apple,Apple\n", "pear,\n", "pear,Pear\n"),
        *(("ProductListed",), HEADQUARTERS),
    ),
    "fulfilment": Sample(
        "feed: fulfilments\nsource: shop\ntable: fulfilment\nformat: csv\n"
        "source_columns: {id: text, number: text, line: text, qty: int, stands: text, at: time}\n"
        "columns: {fulfilment_id: id, order_id: number, line_id: line, quantity_units: qty, status: stands,\n"
        "  occurred_at: at}\n",
        *("id,number,line,qty,stands,at\n", "f1,o1,1,2,open,2026-01-01\n"),
        *("f2,o1,2,2,open,2026-01-01\n", "f2,o1,2,2,sent,2026-01-01\n"),
        *(("OrderFulfilled",), "DC1"),
    ),
    "customer": Sample(
        "feed: customers\nsource: crm\ntable: customer\nformat: csv\ncustomer: pseudonymise\n"
        "source_columns: {id: text, name: text, news: bool, at: time}\nsealed: {name: name}\n"
        "columns: {customer_id: id, email_consent: news, occurred_at: at}\n",
        *("id,name,news,at\n", "1,Ann,true,2026-01-01\n", "2,Bob,,2026-01-01\n"),
        *("2,Bob,false,2026-01-01\n", ("CustomerChanged",), HEADQUARTERS),
    ),
    "ticket": Sample(
        "feed: tickets\nsource: desk\ntable: ticket\nformat: csv\n"
        "source_columns: {id: text, subject: text, stands: text, at: time}\nsealed: {subject: subject}\n"
        "columns: {ticket_id: id, channel: \"'mail'\", status: stands, occurred_at: at}\n",
        *("id,subject,stands,at\n", "1,Where,open,2026-01-01\n", "2,When,open,2026-01-01\n"),
        *("2,When,spam,2026-01-01\n", ("TicketOpened",), HEADQUARTERS),
    ),
    "ticket_message": Sample(
        "feed: tickets\nsource: desk\ntable: ticket_message\nformat: csv\n"
        "source_columns: {id: text, ticket: text, said: text, at: time}\nsealed: {text: said}\n"
        "columns: {message_id: id, ticket_id: ticket, direction: \"'in'\", author: \"'customer'\",\n"
        "  occurred_at: at}\n",
        *("id,ticket,said,at\n", "1,1,Hello,2026-01-01\n", "2,2,Hello,2026-01-01\n"),
        *("2,1,Hello,2026-01-01\n", ("TicketMessageAdded",), HEADQUARTERS),
    ),
    "item_identity": Sample(
        "feed: items\nsource: items\ntable: item_identity\nformat: csv\n"
        "source_columns: {item: text, gtin: gtin, gone: bool}\n"
        "columns: {sku: item, gtin: gtin, ends: gone}\n",
        *("item,gtin,gone\n", "apple,4006381333931,\n", "pear,96385074,\n"),
        *("pear,96385074,true\n", ("ItemIdentified",), HEADQUARTERS),
    ),
}
each_table = pytest.mark.parametrize("table", SAMPLES)


@pytest.fixture
def pipeline(home_settings: Settings) -> Iterator[Pipeline]:
    settings = Settings(home=home_settings.home, tenant=f"f{uuid4().hex[:12]}")
    with opened(settings) as one:
        yield one


def read(pipeline: Pipeline, folder: Path, table: str, *rows: str) -> tuple[int, int]:
    """How many rows of a file were new, and how many known."""
    (folder / "mapping.yaml").write_text(SAMPLES[table].mapping)
    file = folder / f"{uuid4().hex}.csv"
    file.write_text(SAMPLES[table].header + "".join(rows))
    found = ingest.mapping(folder / "mapping.yaml")
    (told,) = pipeline.read_feed(found, [file], location_id="DC1")
    assert told.read == len(rows)
    assert not told.rejected, told.rejected
    return told.accepted, told.duplicates


def facts(pipeline: Pipeline, table: str, sql: str) -> list[dict[str, Any]]:
    found = pipeline.lake.query(
        sql,
        tables={table: FACTS[table]},
        parameters={"known_by": pipeline.now()} if "$known_by" in sql else None,
    )
    return list(found.to_pylist())


def test_every_table_that_can_be_fed_is_tried() -> None:
    assert SAMPLES.keys() | {"sale_line"} == FED.keys()


@each_table
def test_a_row_is_taken_in_once_and_a_correction_is_another_fact(
    pipeline: Pipeline, tmp_path: Path, table: str
) -> None:
    sample = SAMPLES[table]
    assert read(pipeline, tmp_path, table, sample.first, sample.second) == (2, 0)
    assert read(pipeline, tmp_path, table, sample.second, sample.first) == (0, 2)
    before = pipeline.now()
    assert read(pipeline, tmp_path, table, sample.first, sample.corrected) == (1, 1)
    # What was said first comes again, from an old copy: it is known, and changes nothing.
    assert read(pipeline, tmp_path, table, sample.second) == (0, 1)
    every = facts(pipeline, table, f"SELECT * FROM {table}")
    assert {row["event_type"] for row in every} == set(sample.types)
    assert len(every) == 3
    assert all(row["source_file"].endswith(".csv") for row in every)
    now = facts(pipeline, table, newest(FED[table].table))
    assert len(now) == 2
    assert sorted(row["known_at"] > before for row in now) == [False, True]


@each_table
def test_events_are_about_what_the_declaration_says_and_move_no_stock_but_by_counts(
    pipeline: Pipeline, tmp_path: Path, table: str
) -> None:
    sample = SAMPLES[table]
    read(pipeline, tmp_path, table, sample.first, sample.second)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        assert tx.subjects() == [sample.subject]
        partition = partition_of(pipeline.tenant, sample.subject)
        rows = tx.read_events(partition, 0, 100)
        stock = tx.stock("DC1")
    assert [row.type for row in rows] == list(sample.types)
    assert all(EVENT_TABLES[row.type].name == table for row in rows)
    moved = dict(zip(stock["sku"].to_pylist(), stock["on_hand_units"].to_pylist(), strict=True))
    assert moved == ({"apple": 3, "pear": 4} if table == "stock_count" else {})
    pipeline.rebuild_stock()
    assert pipeline.decide(sample.subject) is None


def test_a_source_is_of_one_feed(pipeline: Pipeline, tmp_path: Path) -> None:
    read(pipeline, tmp_path, "stock_report", SAMPLES["stock_report"].first)
    path = tmp_path / "other.yaml"
    path.write_text(SAMPLES["product"].mapping.replace("catalogue", "wms"))
    with pytest.raises(Refused, match="source wms is of feed stock here"):
        pipeline.read_feed(ingest.mapping(path), [])
    path.write_text(SAMPLES["product"].mapping.replace("feed: products", "feed: pos"))
    with pytest.raises(Misused, match="feed pos fills sale_line"):
        pipeline.read_feed(ingest.mapping(path), [])


def test_feeds_say_of_each_what_is_known_of_it_as_it_was_restated(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    for table, sample in SAMPLES.items():
        read(pipeline, tmp_path, table, sample.first, sample.second)
    before = pipeline.now()
    for table, sample in SAMPLES.items():
        read(pipeline, tmp_path, table, sample.corrected)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    usual = {"state": "ok", "reasons": [], "new_columns": [], "rejected": {}, "lines": 2}
    usual["first_occurred_at"] = first
    late = {"dock": (2026, 2, 1), "mill": (2026, 1, 2)}
    found = {each.pop("source"): each for each in pipeline.feeds()}
    for source, feed in (("catalogue", "products"), ("items", "items")):
        assert found.pop(source) == {
            **usual,
            "feed": feed,
            "first_occurred_at": None,
            "last_occurred_at": None,
        }
    # Two tables are fed by it.
    desk = found.pop("desk")
    assert (desk["feed"], desk["lines"]) == ("tickets", 4)
    shelf = found.pop("shelf")
    assert (shelf["feed"], shelf["lines"]) == ("stock", 2)
    assert found == {
        source: {
            **usual,
            "feed": feed,
            "last_occurred_at": datetime(*late.get(source, (2026, 1, 1)), tzinfo=UTC),
        }
        for source, feed in (
            *(("dock", "suppliers"), ("mill", "suppliers")),
            *(("shop", "fulfilments"), ("wms", "stock"), ("crm", "customers")),
        )
    }
    then = {each["source"]: each["last_occurred_at"] for each in pipeline.feeds(before)}
    assert then["dock"] == first


def test_the_command_feeds_tells_of_every_kind_of_feed(
    home_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=home_settings.home, tenant=f"f{uuid4().hex[:12]}")
    monkeypatch.setenv("STOREKEEP_TENANT", settings.tenant)
    monkeypatch.setenv("COLUMNS", "200")
    with opened(settings) as pipeline:
        read(pipeline, tmp_path, "stock_report", SAMPLES["stock_report"].first)
    (tmp_path / "till.yaml").write_text(TILL)
    (tmp_path / "till.csv").write_text(HEADER + LINE)
    at = ("--home", settings.home)
    ask("ingest", "pos", tmp_path / "till.csv", "--mapping", tmp_path / "till.yaml", *at)
    done = ask("feeds", *at)
    assert done.exit_code == 0, done.output
    assert [each.split() for each in done.stdout.splitlines()[1:3]] == [
        [
            "pos",
            "corner_shop",
            "ok",
            "1",
            "1",
            "1",
            "2",
            "1.00",
            "EUR",
            *["2026-01-01", "09:00"] * 2,
        ],
        ["stock", "wms", "ok", "1", *["2026-01-01", "00:00"] * 2],
    ]


def test_a_folder_stands_for_its_files(
    home_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOREKEEP_TENANT", f"f{uuid4().hex[:12]}")
    folder = tmp_path / "in"
    folder.mkdir()
    words = ("ingest", "products", folder, "--home", home_settings.home, "--json")
    assert "holds no files" in told(ask(*words), 2)["error"]["message"]
    columns = "sku,gtin,name,brand,department,category,package_size\n"
    for name, sku in (("b.csv", "2"), ("a.csv", "1"), (".c.csv", "3")):
        (folder / name).write_text(f"{columns}{sku},,,,,,\n")
    # The mapping that is usual for the feed.
    assert [each["file"] for each in told(ask(*words))["files"]] == ["a.csv", "b.csv"]
