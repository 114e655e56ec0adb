"""`customers` and `items` on a live home: what is kept of persons, erasing, who is who; items by number."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from psycopg import Connection, sql

from storekeep import ingest, ledger
from storekeep.config import Settings
from storekeep.errors import InvariantBroken, Misused, Refused
from storekeep.events import EVENT_TABLES, from_bytes
from storekeep.ingest.sealing import WITHHELD
from storekeep.lake import CUSTOMER_CHANGES, TICKET_MESSAGES, TICKETS
from storekeep.pipeline import Pipeline, opened
from storekeep.store import SCHEMA
from tests.shop import Clock, noted
from tests.unit.test_cli import ask, told

CUSTOMERS = """\
feed: customers
source: crm
table: customer
format: csv
source_columns:
  id: text
  name: text
  mail: text
  phone: text
  card: text
  mail_match: text
  phone_match: text
  card_match: text
  news: bool
  news_at: time
  at: time
columns:
  customer_id: id
  email_key: mail_match
  phone_key: phone_match
  card_key: card_match
  email_consent: news
  email_consent_at: news_at
  occurred_at: at
customer: pseudonymise
personal: [card]
match:
  mail_match: {of: mail, kind: email}
  phone_match: {of: phone, kind: phone}
  card_match: {of: card, kind: customer, source: corner_shop}
sealed: {name: name, email: mail, phone: phone}
"""
TICKETS_MAPPING = """\
feed: tickets
source: desk
table: ticket
format: csv
source_columns: {id: text, who: text, who_match: text, subject: text, status: text, at: time}
columns:
  ticket_id: id
  customer_id: who
  email_key: who_match
  channel: "'email'"
  status: status
  occurred_at: at
customer: pseudonymise
match:
  who_match: {of: who, kind: email}
sealed: {subject: subject}
"""
MESSAGES = """\
feed: tickets
source: desk
table: ticket_message
format: csv
source_columns: {id: text, ticket: text, who: text, said: text, at: time}
columns:
  message_id: id
  ticket_id: ticket
  direction: "'in'"
  author: "'customer'"
  customer_id: who
  occurred_at: at
customer: pseudonymise
sealed: {text: said}
"""
ITEMS = """\
feed: items
source: catalogue
table: item_identity
format: csv
source_columns: {sku: text, gtin: gtin, supplier: text, number: text, ends: bool}
columns: {sku: sku, gtin: gtin, supplier_id: supplier, supplier_item: number, ends: ends}
"""
MAPPINGS = {
    "customers": CUSTOMERS,
    "tickets": TICKETS_MAPPING,
    "messages": MESSAGES,
    "items": ITEMS,
}
HEADERS = {
    "customers": "id,name,mail,phone,card,news,news_at,at\n",
    "tickets": "id,who,subject,status,at\n",
    "messages": "id,ticket,who,said,at\n",
    "items": "sku,gtin,supplier,number,ends\n",
}
FEEDS = {"messages": "tickets", "ticket_messages": "tickets"}
T1, T2, T3 = (f"2026-03-0{day}T10:00:00Z" for day in (1, 2, 3))
NOBODY = "crm:00000000000000000000000000000000"


@dataclass(frozen=True)
class Home:
    """A live tenant, and a folder for files."""

    settings: Settings
    folder: Path

    def ask(self, *words: object) -> Result:
        return ask(*words, "--home", self.settings.home)

    def told(self, *words: object) -> Any:
        return told(self.ask(*words, "--json"))

    def mapping(self, kind: str) -> Path:
        path = self.folder / f"{kind}.yaml"
        path.write_text(MAPPINGS[kind])
        return path

    def feed(self, kind: str, *rows: str) -> Any:
        path = self.folder / f"{uuid4().hex}.csv"
        path.write_text(HEADERS[kind] + "".join(f"{row}\n" for row in rows))
        words = ("ingest", FEEDS.get(kind, kind), path, "--mapping", self.mapping(kind))
        return self.told(*words)["totals"]

    def show(self, customer: str) -> Any:
        return self.told("customers", "show", customer, "--reason", "she asks")

    def texts(self, customer: str) -> dict[tuple[str, str], str]:
        rows = self.show(customer)["personal"]
        return {(row["of_table"], row["field"]): row["text"] for row in rows}


@pytest.fixture
def home(home_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    tenant = f"f{uuid4().hex[:12]}"
    # The settings' own tenant is made when it is first used.
    monkeypatch.setenv("STOREKEEP_TENANT", tenant)
    return Home(Settings(home=home_settings.home, tenant=tenant), tmp_path)


def customer(number: int, name: str = "Ann", mail: str = "", *rest: str, **more: str) -> str:
    phone, card = (*rest, "", "")[:2]
    told_ = (more.get(name, "") for name in ("news", "news_at"))
    return ",".join((str(number), name, mail, phone, card, *told_, more.get("at", T1)))


# What is kept -------------------------------------------------------------------------------------------


def test_what_is_personal_is_kept_apart_and_opened_for_who_says_why(home: Home) -> None:
    counts = home.feed("customers", customer(17, "Ann Roe", "ann@x.org", "+49 30 901820", "C7"))
    assert counts["accepted"] == 1
    found = home.show("crm:17")
    assert {(row["field"], row["text"]) for row in found["personal"]} == {
        ("name", "Ann Roe"),
        ("email", "ann@x.org"),
        ("phone", "+49 30 901820"),
    }
    assert found["erased_at"] is None
    with opened(home.settings) as pipeline:
        rows = pipeline.lake.query("SELECT * FROM c", tables={"c": CUSTOMER_CHANGES}).to_pylist()
        (entry,) = noted(pipeline, "person")
    assert rows[0]["customer_id"].startswith("crm:")
    assert rows[0]["email_key"].startswith("match.email:")
    assert rows[0]["card_key"].startswith("corner_shop:")
    assert "Roe" not in json.dumps(rows, default=str)
    assert (entry["did"], entry["reason"]) == ("shown", "she asks")
    assert (
        set(entry["pseudonyms"])
        == set(found["pseudonyms"])
        == {
            rows[0]["customer_id"],
            rows[0]["card_key"],
        }
    )
    assert "Roe" not in json.dumps(entry)


def test_keys_are_asked_for_in_the_thread_that_the_store_is_of(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads that use one connection, one may end what the other began."""
    asking, wait = set(), Connection.wait

    def watched(self: Any, *given: Any, **named: Any) -> Any:
        asking.add(threading.current_thread().name)
        return wait(self, *given, **named)

    files = []
    for number in range(4):
        files.append(home.folder / f"{number}.csv")
        rows = (customer(10 * number + each, f"Ann {each}") for each in range(4))
        files[-1].write_text(HEADERS["customers"] + "".join(f"{row}\n" for row in rows))
    monkeypatch.setattr("storekeep.bus.MAX_FACTS", 2)
    with opened(home.settings) as pipeline:
        monkeypatch.setattr(Connection, "wait", watched)
        told_ = pipeline.read_feed(ingest.mapping(home.mapping("customers")), files)
    assert sum(each.accepted for each in told_) == 16
    assert asking == {threading.current_thread().name}


def test_a_file_read_again_changes_nothing_and_a_new_name_is_the_name(home: Home) -> None:
    one = customer(17, "Ann Roe", "ann@x.org")
    home.feed("customers", one)
    assert home.feed("customers", one)["duplicates"] == 1
    assert home.texts("crm:17")["customer", "name"] == "Ann Roe"
    home.feed("customers", customer(17, "Ann Smith", "ann@x.org", at=T2))
    home.feed("customers", one)
    assert home.texts("crm:17")["customer", "name"] == "Ann Smith"
    with opened(home.settings) as pipeline, pipeline.store.transaction(home.settings.tenant) as tx:
        assert len(tx._run("SELECT 1 FROM personal WHERE field = 'name'")) == 2


def test_a_ticket_and_its_thread_are_the_customers_or_the_tickets_own(home: Home) -> None:
    home.feed("customers", customer(17, "Ann Roe", "ann@x.org"))
    home.feed(
        "tickets", f"T1,ann@x.org,Where is it,open,{T1}", f"T1,ann@x.org,Where is it,done,{T2}"
    )
    home.feed("messages", f"M1,T1,ann@x.org,I am waiting,{T1}", f"M2,T1,,We are on it,{T2}")
    found = home.show("crm:17")["personal"]
    assert [(row["reference"], row["text"]) for row in found if row["of_table"] != "customer"] == [
        ("desk/T1", "Where is it"),
        ("desk/M1", "I am waiting"),
        ("desk/M2", "We are on it"),
    ]
    with opened(home.settings) as pipeline:
        many = [
            pipeline.lake.query("SELECT * FROM t", tables={"t": kept}).num_rows
            for kept in (TICKETS, TICKET_MESSAGES)
        ]
    assert many == [2, 2]


def test_a_row_in_quarantine_keeps_nothing_that_can_be_read_and_comes_back_whole(
    home: Home,
) -> None:
    bad = customer(17, "Ann Roe", "ann@x.org", news="perhaps")
    assert home.feed("customers", bad, "Ann Roe,short")["rejected"] == {
        "malformed": 1,
        "unreadable": 1,
    }
    assert home.feed("customers", bad)["rejected"] == {"unreadable": 1}
    rows = home.told("ingest", "quarantine", "list")
    assert len(rows) == 2
    assert "Roe" not in json.dumps(rows)
    (malformed,) = (row for row in rows if row["rule"] == "malformed")
    (row,) = (row for row in rows if row["rule"] == "unreadable")
    assert malformed["raw"] == WITHHELD
    fix = ("ingest", "quarantine", "fix", row["id"], "--reason", "asked")
    refused = told(home.ask(*fix, "--set", "name=Ann Smith", "--json"), 1)["error"]["message"]
    assert "name sealed" in refused
    assert home.ask(*fix, "--set", "news=true").exit_code == 0
    home.told("ingest", "quarantine", "replay", "--mapping", home.mapping("customers"))
    assert home.texts("crm:17")["customer", "name"] == "Ann Roe"
    with opened(home.settings) as pipeline:
        told_ = pipeline.lake.query("SELECT * FROM c", tables={"c": CUSTOMER_CHANGES}).to_pylist()
    home.feed("customers", customer(18, mail="ann@x.org"))
    assert len(home.show("crm:18")["pseudonyms"]) == 2, told_


def test_a_mapping_that_would_leave_a_person_in_the_open_is_refused(home: Home) -> None:
    for wrong, right, said in (
        ("sealed: {name: name, email: mail, phone: phone}", "", "'mail' is neither sealed"),
        ("{name: name,", "{nick: name,", "of customer name, email, phone is kept sealed"),
        ("customer: pseudonymise\n", "", "whose is it"),
        ("personal: [card]", "personal: [card, name]", "becomes a pseudonym"),
        (", source: corner_shop", "", "name it"),
    ):
        path = home.folder / "wrong.yaml"
        assert wrong in CUSTOMERS
        path.write_text(CUSTOMERS.replace(wrong, right))
        with pytest.raises(Misused, match=said):
            ingest.mapping(path)
    found = ingest.mapping(home.mapping("customers"))
    with pytest.raises(Misused, match="keys of persons"):
        ingest.load(found, [], known_at=datetime(2026, 1, 1, tzinfo=UTC), pseudonym_key=b"k" * 32)


def test_what_was_said_last_holds_whenever_it_became_known(home: Home) -> None:
    home.feed("customers", customer(17, news="false", news_at=T2, at=T2))
    home.feed("customers", customer(17, news="true", news_at=T1, at=T1))
    home.feed("customers", customer(17, at=T3))
    (consent,) = home.show("crm:17")["consents"]
    assert (consent["channel"], consent["given"], consent["since"][:10]) == (
        *("email", False),
        "2026-03-02",
    )
    home.feed("customers", customer(17, news="true", news_at=T3, at=T3))
    assert home.show("crm:17")["consents"][0]["given"] is True
    # Said again at the same moment, what became known last holds.
    home.feed("customers", customer(17, news="false", news_at=T3, at=T3))
    assert home.show("crm:17")["consents"][0]["given"] is False


# Erasing ------------------------------------------------------------------------------------------------


NAME, MAIL, SAID = "Zyxmarlow", "zyxmarlow@quine.example", "my name is Zyxmarlow Quine"


def everything(home: Home) -> Iterator[str]:
    """All that can be read of the tenant: the record with what is in its bytes, history, ledger."""
    tenant = home.settings.tenant
    path = home.folder / "ledger.jsonl"
    with opened(home.settings) as pipeline, pipeline.store.transaction(tenant) as tx:
        for row in tx._run(
            "SELECT table_name FROM information_schema.columns WHERE table_schema = %s"
            " AND column_name = 'tenant' AND table_name <> 'stock_move'",
            (SCHEMA,),
        ):
            tx._cursor.execute(
                sql.SQL("SELECT * FROM {}").format(sql.Identifier(row["table_name"]))
            )
            yield repr(tx._cursor.fetchall())
        for row in tx._run("SELECT type, facts FROM event_log"):
            yield repr(from_bytes(bytes(row["facts"]), EVENT_TABLES[row["type"]]).to_pylist())
        ledger.export(tx, path, pipeline.signing.public)
    yield path.read_text()
    for path in home.settings.home.joinpath("lake", tenant).rglob("*.parquet"):
        yield repr(pq.ParquetFile(path).read().to_pylist())


def opens(home: Home, sealed: set[str]) -> set[str]:
    """Those of sealed texts that any key there is opens."""
    wrapping = ingest.persons_key(home.settings.home, home.settings.tenant)
    with opened(home.settings) as pipeline, pipeline.store.transaction(home.settings.tenant) as tx:
        rows = tx._run("SELECT wrapped FROM person_key")
    keys = [ingest.unwrapped(bytes(row["wrapped"]), wrapping) for row in rows]
    return {text for text in sealed for key in keys if opened_by(text, key)}


def opened_by(text: str, key: bytes) -> bool:
    for field in ("name", "email", "phone", "subject", "text"):
        try:
            ingest.unseal(text, field, key)
        except InvariantBroken:
            continue
        return True
    return False


def sealed_in(texts: Iterator[str]) -> set[str]:
    return {found for text in texts for found in re.findall(r"sealed/[\w=-]+/[\w.]+:\w{32}", text)}


def plant(home: Home) -> None:
    """A person in every place: taken in, in quarantine, as ticket and message, and another beside it."""
    other = customer(18, "Bob", "bob@x.org", news="true", news_at=T1)
    home.feed("customers", customer(17, NAME, MAIL), other, f"{NAME},short")
    home.feed("customers", customer(17, NAME, MAIL, news="perhaps", at=T2))
    home.feed("tickets", f"T1,{MAIL},{SAID},open,{T1}")
    home.feed("messages", f"M1,T1,{MAIL},{SAID},{T1}", f"M2,T1,,{SAID},{T2}")


def test_an_erased_person_can_be_read_nowhere_and_the_ledger_verifies(home: Home) -> None:
    plant(home)
    assert set(home.texts("crm:17").values()) == {NAME, MAIL, SAID}
    backup = home.folder / "backup"
    shutil.copytree(home.settings.home / "lake" / home.settings.tenant, backup)
    before = sealed_in(everything(home))
    theirs = opens(home, before)
    assert theirs == before
    (bob,) = home.show("crm:18")["pseudonyms"]
    assert len({ingest.person_of(text) for text in theirs} - {bob}) == 3

    gone = home.told("customers", "erase", "crm:17", "--by", "Dan", "--reason", "she wants it")
    assert gone["keys"] == 3, "of the CRM's, of the desk's, of the ticket's"
    assert all(NAME.lower() not in text.lower() for text in everything(home))
    # Also not by keys that are made later, and not in a copy.
    home.feed("customers", customer(17, NAME, MAIL))
    assert {ingest.person_of(text) for text in opens(home, theirs)} == {bob}
    for path in backup.rglob("*.parquet"):
        assert NAME.lower() not in repr(pq.ParquetFile(path).read().to_pylist()).lower()
    for path in home.settings.home.rglob("*"):
        if path.is_file():
            assert NAME.encode() not in path.read_bytes(), path
    found = home.show("crm:17")
    assert found["personal"] == []
    assert found["erased_at"] is not None
    assert home.texts("crm:18")["customer", "name"] == "Bob"
    assert home.ask("decisions", "verify").exit_code == 0
    with opened(home.settings) as pipeline:
        (entry,) = (each for each in noted(pipeline, "person") if each["did"] == "erased")
        assert pipeline.identities().persons.num_rows == 3, "the facts stay"
    assert (entry["by"], entry["reason"]) == ("Dan", "she wants it")


def test_what_happened_before_is_not_kept_again_and_what_happens_after_is(home: Home) -> None:
    plant(home)
    home.told("customers", "erase", "crm:17", "--reason", "she wants it")
    plant(home)
    assert home.show("crm:17")["personal"] == []
    rows = [row for row in home.told("ingest", "quarantine", "list") if row["rule"] == "unreadable"]
    assert opens(home, sealed_in(iter(json.dumps(row) for row in rows))) == set()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    home.feed("customers", customer(17, "Zoe", MAIL, at=later))
    assert home.texts("crm:17")["customer", "name"] == "Zoe"


def test_nobody_is_erased_or_shown_who_was_never_told_of(home: Home) -> None:
    for verb in ("show", "erase"):
        for name in (NOBODY, "crm:99", "17"):
            failed = told(home.ask("customers", verb, name, "--reason", "x", "--json"), 1)
            assert "nothing was ever told" in failed["error"]["message"]


def test_another_tenant_with_the_same_customers_sees_and_erases_its_own(home: Home) -> None:
    plant(home)
    other = Settings(home=home.settings.home, tenant=f"g{uuid4().hex[:12]}")
    with opened(other) as pipeline:
        for each in ("crm:17", *home.show("crm:17")["pseudonyms"]):
            with pytest.raises(Refused, match="nothing was ever told"):
                pipeline.person(each, by="eve", reason="x")
            with pytest.raises(Refused, match="nothing was ever told"):
                pipeline.erase_person(each, by="eve", reason="x")
        assert pipeline.find_customers(MAIL) == []
        assert pipeline.identities().persons.num_rows == 0
    assert home.texts("crm:17")["customer", "name"] == NAME


# Who is who ---------------------------------------------------------------------------------------------


def test_a_merge_is_a_fact_that_is_undone_by_another(home: Home) -> None:
    home.feed("customers", customer(17, mail="ann@x.org"), customer(18, mail="a@x.org"))
    alone = home.show("crm:17")["pseudonyms"]
    merge = ("customers", "merge", "crm:17", "crm:18", "--by", "Dan", "--reason", "same address")
    link = home.told(*merge)["link_id"]
    between = datetime.now(UTC)
    assert len(home.show("crm:18")["pseudonyms"]) == 2
    assert "one person already" in told(home.ask(*merge, "--json"), 1)["error"]["message"]
    split = ("customers", "split", "crm:18", "crm:17", "--reason", "they are not")
    (undo,) = home.told(*split)["link_ids"]
    assert "two persons already" in told(home.ask(*split, "--json"), 1)["error"]["message"]
    assert home.show("crm:17")["pseudonyms"] == alone
    said = home.told("customers", "merges")
    assert [(row["link_id"], row["undone_by"]) for row in said["links"]] == [
        (link, undo),
        (undo, None),
    ]
    assert (said["links"][0]["done_by"], said["flags"]) == ("Dan", [])
    then = home.told("customers", "merges", "--known-by", between.isoformat())
    assert [(row["link_id"], row["undone_by"]) for row in then["links"]] == [(link, None)]
    text = home.ask("customers", "merges").stdout
    assert "merged" in text
    assert f"undid {link}" in text


def test_who_was_who_is_told_as_of_any_time(home: Home) -> None:
    clock = Clock(datetime(2026, 3, 9, tzinfo=UTC))

    def persons(pipeline: Pipeline, known_by: datetime | None = None) -> int:
        found = pipeline.identities(known_by).persons
        return len(set(found["person_id"].to_pylist()))

    home.feed("customers", customer(17, mail="ann@x.org"), customer(18, mail="a@x.org"))
    clock.now = datetime.now(UTC)
    late = home.folder / "late.csv"
    late.write_text(HEADERS["customers"] + customer(16, mail="ann@x.org") + "\n")
    mapping = ingest.mapping(home.mapping("customers"))
    with opened(home.settings, now=clock) as pipeline:
        times, answers = [], []
        steps = (
            # It happened with the others, and is known later.
            lambda: pipeline.read_feed(mapping, [late]),
            lambda: pipeline.merge("crm:17", "crm:18", by="Dan", reason="x"),
            lambda: pipeline.split("crm:17", "crm:18", by="Dan", reason="x"),
            lambda: pipeline.merge("crm:18", "crm:17", by="Dan", reason="x"),
        )
        for step in steps:
            clock.now += timedelta(seconds=1)
            times.append(clock.now)
            answers.append(persons(pipeline))
            clock.now += timedelta(seconds=1)
            step()
        assert answers == [2, 2, 1, 2]
        assert [persons(pipeline, at) for at in times] == answers
        assert persons(pipeline) == 1


def test_whoever_is_one_by_others_is_split_from_these_first(home: Home) -> None:
    home.feed("customers", *(customer(n, mail="ann@x.org") for n in (1, 2)), customer(3))
    for one, other in (("crm:1", "crm:3"), ("crm:2", "crm:3")):
        ask_ = ("customers", "merge", one, other, "--reason", "x", "--json")
        if one == "crm:1":
            told(home.ask(*ask_))
        else:
            assert "already" in told(home.ask(*ask_), 1)["error"]["message"]
    failed = told(home.ask("customers", "split", "crm:2", "crm:3", "--reason", "x", "--json"), 1)
    assert "split them first" in failed["error"]["message"]
    told(home.ask("customers", "split", "crm:2", "crm:1", "--reason", "x", "--json"))
    assert len(home.show("crm:2")["pseudonyms"]) == 1
    assert len(home.show("crm:1")["pseudonyms"]) == 2


def test_a_shared_address_is_told(home: Home) -> None:
    home.feed("customers", *(customer(n, mail="office@x.org") for n in range(5)))
    (flag,) = home.told("customers", "merges")["flags"]
    assert (flag["flag"], flag["customers"]) == ("shared", 5)
    assert len(home.show("crm:1")["pseudonyms"]) == 1
    assert len(home.told("customers", "find", "OFFICE@x.org")) == 5
    assert home.told("customers", "find", "+49 30 1234567") == []


USUAL = {
    "customers": (
        "customer_id,name,email,phone,email_consent,email_consent_at,sms_consent,sms_consent_at,"
        "profiling_consent,profiling_consent_at,country,language,changed_at\n"
        f"17,Ann Roe,ann@x.org,+49 30 901820,true,,,,false,{T2},DE,de,{T1}\n"
    ),
    "tickets": (
        "ticket_id,channel,email,order_ids,status,subject,changed_at\n"
        f"T1,email,ann@x.org,7 8,open,Where is it,{T1}\n"
    ),
    "ticket_messages": (
        "message_id,ticket_id,direction,author,email,text,sent_at\n"
        f"M1,T1,in,customer,,I wait,{T1}\nM2,T1,up,customer,,I wait,{T1}\n"
    ),
    "items": "sku,gtin,supplier_id,supplier_item,ends\napple,4006381333931,north,A1,\n",
}


def test_the_mappings_that_ship_read_files_whose_columns_are_named_as_ours(home: Home) -> None:
    for name, content in USUAL.items():
        path = home.folder / f"{name}.csv"
        path.write_text(content)
        words = ("--mapping", name) if name == "ticket_messages" else ()
        totals = home.told("ingest", FEEDS.get(name, name), path, *words)["totals"]
        assert totals["accepted"] == 1, (name, totals)
        assert totals["rejected"] == ({"direction": 1} if words else {})
    found = home.show("customers:17")
    assert [row["text"] for row in found["personal"]] == [
        *("ann@x.org", "Ann Roe", "+49 30 901820", "Where is it", "I wait")
    ]
    assert [(row["channel"], row["given"]) for row in found["consents"]] == [
        ("email", True),
        ("profiling", False),
    ]
    assert len(found["pseudonyms"]) == 2


# Items --------------------------------------------------------------------------------------------------


def test_whoever_claims_a_number_first_keeps_it_until_it_is_ended(home: Home) -> None:
    home.feed("items", "apple,4006381333931,north,A1,", "pear,96385074,south,P7,")
    home.feed("items", "plum,4006381333931,,,", "fig,,south,P7,", "apple,,south,A1,")
    home.feed("items", "plum,4006381333932,,,", "apple,04006381333931,north,A1,")
    rows = home.told("items")
    assert [(row["sku"], row["gtin"]) for row in rows if row["conflict"] is None] == [
        ("apple", "04006381333931"),
        ("pear", "00000096385074"),
    ]
    aside = home.told("items", "--conflicts")
    assert {(row["sku"], row["conflict"]) for row in aside} == {
        ("plum", "gtin"),
        ("fig", "supplier_item"),
        ("apple", "two_suppliers"),
    }
    before = datetime.now(UTC).isoformat()
    home.feed("items", "apple,4006381333931,north,A1,true")
    now = {row["sku"] for row in home.told("items") if row["conflict"] is None}
    assert now == {"plum", "pear", "apple"}
    assert home.told("items", "--known-by", before) == rows
    text = home.ask("items").stdout
    assert "1 row kept aside" in text
