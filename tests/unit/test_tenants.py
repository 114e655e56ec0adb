"""Tenants cannot see each other: not through any method, not through any table, not by what is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from psycopg import errors as pg
from psycopg import sql

import storekeep
from storekeep import bus, servers
from storekeep.actions import BackOffice
from storekeep.actions.back_office import _TABLES
from storekeep.config import Settings
from storekeep.decisions import ModeChange, Selection
from storekeep.errors import InvariantBroken, Refused
from storekeep.events import Event
from storekeep.lake import SALE_LINES, STOCK_COUNTS, Lake
from storekeep.servers import Database
from storekeep.store import (
    RESTATED,
    ROLE,
    SCHEMA,
    Arrival,
    DeadLetter,
    Store,
    Traced,
    Transaction,
    packed,
)
from tests import shop

OFFICE = "back_office"
APPEND_ONLY = {
    "agent_mode",
    "erasure",
    "tenant",
    "event_log",
    "ledger_batch",
    "ledger_page",
    "ledger_step",
    "lineage_run",
    "lineage_sent",
    "registry",
    "promotion",
}
CHANGE = ModeChange(
    "offers", None, ("S1",), "shadow", shop.moment(shop.FIRST_DAY), "ann", "bea", "we try it"
)
LONG_AGO, LONG_HENCE = date(2000, 1, 1), date(2100, 1, 1)
HENCE = shop.moment(LONG_HENCE)


NEVER_REMOVED = {"feature_online", "feature_value"}
NEVER_CHANGED = {"dead_letter", "person_key", "personal"}
PERSON = "crm:1"
LETTER = DeadLetter("nats", 0, 1, "broken", {"id": "x"}, b"x")


ARRIVAL = Arrival("shop", "d", "t", None, b"x")
STANDS = pa.table(
    {
        "document": ["1"],
        "line": ["1"],
        "sku": ["bread"],
        "as_of": [shop.moment(shop.FIRST_DAY)],
        "occurred_at": [shop.moment(shop.FIRST_DAY)],
        "quantity_units": [1],
        "value_minor": [1],
    },
    RESTATED,
)


@dataclass
class Two:
    """A tenant that is looked at, one who looks, and what there is to be seen."""

    database: Database
    store: Store
    acme: str
    eve: str
    ids: list[str]
    batch: int
    home: Settings
    reverted: str
    version: str
    run: str

    @property
    def partition(self) -> int:
        """Where the other tenant's location reports."""
        return bus.partition_of(self.acme, shop.LOCATION)

    def sees(self, what: Callable[[Transaction], Any], tenant: str | None = None) -> Any:
        """What somebody sees, by default the one who looks."""
        with self.store.transaction(self.eve if tenant is None else tenant) as tx:
            return what(tx)


DRIFT = ("tills", "sale_line", "qty", "a.csv", shop.moment(shop.FIRST_DAY))


@pytest.fixture(scope="module")
def two(home_settings: Settings) -> Iterator[Two]:
    """One tenant with a bit of everything; another with nothing."""
    home = shop.new_tenant(home_settings)
    eve = shop.new_tenant(home_settings).tenant
    second = shop.FIRST_DAY + timedelta(days=1)
    with servers.lease(home) as database, shop.opened_shop(home) as opened:
        opened.prepare()
        opened.play(shop.FIRST_DAY)
        reverted = again(opened, *opened.ids("salt"))
        for _, step in opened.day_steps(second)[:4]:
            step()
        store = opened.pipeline.store
        with store.transaction(home.tenant) as tx:
            # Played on without buying and acting, so that tasks and requests stand open as well.
            found = tx.decisions(Selection())
            ids = [row["decision_id"] for row in found]
            tx.add_approvals(request(ids[0]))
            tx.halt("offers", shop.moment(shop.FIRST_DAY), "ann", "it orders too much")
            tx.add_drift(*DRIFT, stops="it lacks a column")
            tx.add_mode(CHANGE)
            tx.add_dead_letters([LETTER])
            tx.set_breaker(open_breaker())
            tx.add_person_keys({PERSON: b"wrapped"}, HENCE)
            tx.add_personal(sealed())
            tx.erase_persons(["crm:2"], HENCE)
            at = shop.moment(shop.FIRST_DAY)
            tx.register("order_document", "PO-1/x12/order", "7", "ISA", at, "ann")
            tx._run(
                "INSERT INTO webhook_delivery (tenant, source, delivery_id, topic, body)"
                " VALUES (%s, 'shop', 'd', 't', 'x')",
                (home.tenant,),
            )
            tx.restate("shop", STANDS)
            tx.name_items("shop", {"1": "bread"})
            tx.mark_sent("catalogue", [found[0]["batch_id"]])
            assert tx.begin_online("price", "v", HENCE) == 1
            tx.put_values(values())
            tx.serve("price", "v")
        with store.transaction(eve) as tx:
            tx.make_tenant()
        version = found[0]["rulebook_version"]
        yield Two(
            database, store, home.tenant, eve, ids, 1, home, reverted, version, found[0]["batch_id"]
        )


def again(opened: shop.Shop, *ids: str) -> str:
    """Decisions are taken back, and proposed again; the ledger batch of the revert."""
    pipeline = opened.pipeline
    pipeline.revert(pipeline.plan_revert(Selection(ids=ids)), shop.BUYER, "a mistake")
    pipeline.act()
    with pipeline.store.transaction(pipeline.tenant) as tx:
        reverted = str(tx.ledger_batches()[-2]["batch_id"])
    pipeline.undo(pipeline.plan_undo([reverted]), shop.BUYER, "another mistake")
    return reverted


def request(decision_id: str) -> pa.Table:
    at = shop.moment(shop.FIRST_DAY)
    row = {
        "decision_id": decision_id,
        "role": "buyer",
        "requested_at": at,
        "deadline": at,
        "safe_default": "none",
        "digest": "d",
        "rulebook_version": "v",
    }
    return pa.Table.from_pylist([row])


def sealed(text: str = "sealed/x/crm:1") -> pa.Table:
    row = dict.fromkeys(("of_table", "reference", "field"), "x") | {
        "person": PERSON,
        "sealed": text,
    }
    at = {"occurred_at": HENCE, "known_at": HENCE}
    return pa.Table.from_pylist([{**row, **at}])


def values() -> pa.Table:
    """What is served of an item."""
    nothing = pa.nulls(1, pa.struct([]))
    price = pa.StructArray.from_arrays([pa.array([9])], ["price"])
    columns = [pa.array([1]), pa.array(["bread"]), pa.array([HENCE]), price, nothing, nothing]
    names = ["online", "subject", "occurred_at", "integers", "numbers", "texts"]
    return pa.table(columns, names=names)


def open_breaker() -> dict[str, Any]:
    at = shop.moment(shop.FIRST_DAY)
    row = {"name": "adapter/x", "state": "open", "since": at, "why": "it is down"}
    return {**row, "failed_at": [at], "try_at": at}


def tables(store: Store) -> dict[str, dict[str, Any]]:
    """All tables of all schemas but the server's own, and how they are walled.

    Those of the record by their name alone. `migration` is the only one that has no tenant.
    """
    with store.transaction("nobody") as tx:
        rows: list[dict[str, Any]] = tx._run(
            "SELECT n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity,"
            " (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*'"
            "  AND p.polpermissive) AS policies FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname !~ '^(pg_|information_schema$)' AND c.relkind NOT IN ('i', 'I', 'v')"
        )
    assert {row["nspname"] for row in rows} == {SCHEMA, OFFICE}
    found = {
        row["relname"] if row["nspname"] == SCHEMA else f"{row['nspname']}.{row['relname']}": row
        for row in rows
    }
    del found["migration"]
    return found


def named(table: str) -> sql.Identifier:
    """A table of the record, or of another schema, as a statement names it."""
    return sql.Identifier(*table.split(".") if "." in table else (SCHEMA, table))


# --------------------------------------------------------------------------------------------- the wall


def test_a_view_sees_what_its_reader_may_see(two: Two) -> None:
    with two.store.transaction("nobody") as tx:
        views = tx._run(
            "SELECT relname, reloptions FROM pg_class WHERE relkind = 'v'"
            " AND relnamespace = %s::regnamespace",
            (SCHEMA,),
        )
    assert [row["relname"] for row in views] == ["decided"]
    for row in views:
        assert row["reloptions"] == ["security_invoker=true"]
        assert two.sees(all_rows(row["relname"]), two.acme)
        assert two.sees(all_rows(row["relname"]), two.eve) == []


def test_every_table_with_a_tenant_is_walled_for_its_owner_too(two: Two) -> None:
    found = tables(two.store)
    folder = Path(storekeep.__file__).parent / "migrations"
    text = "\n".join(path.read_text() for path in folder.glob("*.sql"))
    made = set(re.findall(r"^CREATE TABLE (\w+)", text, re.MULTILINE))
    made -= set(re.findall(r"^DROP TABLE (\w+)", text, re.MULTILINE))
    assert found.keys() == made | {f"{OFFICE}.{name}" for name in _TABLES}
    for name, row in found.items():
        assert row["relrowsecurity"], name
        assert row["relforcerowsecurity"], name
        assert row["policies"] == 1, name


def test_every_unique_key_begins_with_the_tenant(two: Two) -> None:
    """Else the refusal of a duplicate would tell what others have."""
    with two.store.transaction("nobody") as tx:
        rows = tx._run(
            "SELECT i.indexrelid::regclass::text AS name, a.attname AS first FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indrelid"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
            " WHERE c.relnamespace IN ('storekeep'::regnamespace, 'back_office'::regnamespace)"
            " AND c.relkind = 'r' AND i.indisunique"
        )
    firsts = {row["name"]: row["first"] for row in rows}
    assert {name for name, first in firsts.items() if first != "tenant"} == {"migration_pkey"}


def test_the_looked_at_has_something_in_every_table(two: Two) -> None:
    for name in tables(two.store):
        rows = two.sees(all_rows(name), two.acme)
        assert rows, f"{name} is empty: nothing would be proved by not seeing it"
        assert {row["tenant"] for row in rows} == {two.acme}


def all_of(tx: Transaction, table: str) -> list[dict[str, Any]]:
    tx._cursor.execute(sql.SQL("SELECT * FROM {}").format(named(table)))
    return tx._cursor.fetchall()


def all_rows(table: str) -> Callable[[Transaction], list[dict[str, Any]]]:
    return lambda tx: all_of(tx, table)


def test_nothing_of_others_is_seen_in_any_table(two: Two) -> None:
    for name in tables(two.store):
        rows = two.sees(all_rows(name))
        assert {row["tenant"] for row in rows} <= {two.eve}, name


def test_without_a_tenant_nothing_is_seen(two: Two) -> None:
    for tenant in ("", "nobody", two.acme.upper(), f"{two.acme} ", "%", "' OR true --"):
        for name in tables(two.store):
            assert two.sees(all_rows(name), tenant) == [], (tenant, name)
    with psycopg.connect(two.database.conninfo) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(ROLE)))
        for name in tables(two.store):
            query = sql.SQL("SELECT count(*) FROM {}").format(named(name))
            assert connection.execute(query).fetchone() == (0,), name


def test_nothing_of_others_can_be_changed_or_removed(two: Two) -> None:
    # A stop is made and removed, never changed; a method of the transaction removes it, see below.
    for name in tables(two.store).keys() - APPEND_ONLY - {"halt", "feed_drift"}:
        before = two.sees(all_rows(name), two.acme)
        table = named(name)
        with two.store.transaction(two.eve) as tx:
            if name not in NEVER_CHANGED:
                tx._cursor.execute(sql.SQL("UPDATE {} SET tenant = tenant").format(table))
                assert tx._cursor.rowcount in (0, len(all_of(tx, name)))
            if name not in NEVER_REMOVED:
                tx._cursor.execute(
                    sql.SQL("DELETE FROM {} WHERE tenant = %s").format(table), (two.acme,)
                )
                assert tx._cursor.rowcount == 0
        assert two.sees(all_rows(name), two.acme) == before


def test_nothing_can_be_written_under_the_name_of_others(two: Two) -> None:
    for name in tables(two.store):
        row = dict(two.sees(all_rows(name), two.acme)[0])
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            named(name),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() * len(row)),
        )
        # The same refusal for what others have and for what they have not: nothing is learned from it.
        for tenant in (two.acme, "nobody_at_all"):
            for more in (sql.SQL(""), sql.SQL(" ON CONFLICT DO NOTHING")):
                with pytest.raises(Exception, match="row-level security") as refused:  # noqa: SIM117  # the transaction fails in it
                    with two.store.transaction(two.eve) as tx:
                        tx._cursor.execute(insert + more, [*{**row, "tenant": tenant}.values()])
                assert isinstance(refused.value.__cause__, pg.InsufficientPrivilege)


def test_a_row_cannot_be_moved_to_others(two: Two) -> None:
    with two.store.transaction(two.eve) as tx:
        tx.move_position("me", 0, 1)
    with pytest.raises(Exception, match="row-level security"):  # noqa: SIM117  # the transaction fails in it
        with two.store.transaction(two.eve) as tx:
            tx._run("UPDATE consumer_position SET tenant = %s", (two.acme,))


def test_what_is_only_put_aside_and_taken_off_cannot_be_changed(two: Two) -> None:
    for table in sorted(NEVER_CHANGED):
        with pytest.raises(Exception, match="permission denied"):  # noqa: SIM117  # the transaction fails in it
            with two.store.transaction(two.acme) as tx:
                tx._cursor.execute(
                    sql.SQL("UPDATE {} SET tenant = tenant").format(sql.Identifier(table))
                )


def test_what_is_served_is_written_over_and_never_removed(two: Two) -> None:
    for table in sorted(NEVER_REMOVED):
        with pytest.raises(Exception, match="permission denied"):  # noqa: SIM117  # the transaction fails in it
            with two.store.transaction(two.acme) as tx:
                tx._cursor.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


@pytest.mark.parametrize("table", sorted(APPEND_ONLY))
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET tenant = tenant", "DELETE FROM {}", "TRUNCATE {}"]
)
def test_what_was_recorded_cannot_be_changed_or_removed(two: Two, table: str, change: str) -> None:
    with pytest.raises(Exception, match="permission denied"):  # noqa: SIM117  # the transaction fails in it
        with two.store.transaction(two.acme) as tx:
            tx._cursor.execute(sql.SQL(change).format(sql.Identifier(table)))


def test_statements_run_as_a_role_that_owns_nothing_whoever_connected(two: Two) -> None:
    with two.store.transaction(two.eve) as tx:
        (row,) = tx._run(
            "SELECT current_user, session_user, rolsuper, rolbypassrls, rolcanlogin FROM pg_roles"
            " WHERE rolname = current_user"
        )
        assert row["current_user"] == ROLE
        assert row["session_user"] != ROLE
        assert [row[name] for name in ("rolsuper", "rolbypassrls", "rolcanlogin")] == [False] * 3
        owned = tx._run(
            "SELECT relname FROM pg_class WHERE relowner = %s::regrole AND relpersistence <> 't'",
            (ROLE,),
        )
        assert owned == []
    # The rights are those of the transaction: nothing is left of them on the connection.
    assert two.store._connection is not None
    left = two.store._connection.execute(
        "SELECT current_user = session_user AS same, current_setting('storekeep.tenant', true) AS t"
    ).fetchone()
    assert left == {"same": True, "t": ""}


# ----------------------------------------------------------------------------------------- the methods


def reads(two: Two) -> dict[str, Callable[[Transaction], Any]]:
    """Every method that tells something, asked for what the other tenant has."""
    partition = two.partition
    everything = range(16)
    return {
        "purpose": lambda tx: tx.purpose() if tx.tenant == two.acme else None,
        "is_empty": lambda tx: not tx.is_empty(),
        "read_events": lambda tx: tx.read_events(partition, 0, 99),
        "unread": lambda tx: tx.unread(partition, shop.LOCATION, 0),
        "unread_by": lambda tx: tx.unread_by({"nobody": (partition, shop.LOCATION)}),
        "behind": lambda tx: tx.behind("nobody"),
        "heads": lambda tx: tx.heads(),
        "position": lambda tx: [tx.position("stock", each) for each in everything if tx.heads()],
        "stock": lambda tx: tx.stock(shop.LOCATION).to_pylist(),
        "counted_after": lambda tx: tx.counted_after(
            [shop.LOCATION], shop.moment(LONG_AGO)
        ).to_pylist(),
        "ledger_head": lambda tx: tx.ledger_head()[0],
        "ledger_batches": lambda tx: tx.ledger_batches(),
        "ledger_entries": lambda tx: tx.ledger_entries(0, 99).to_pylist(),
        "ledger_nodes": lambda tx: tx.ledger_nodes(1, [0]),
        "ledger_pages": lambda tx: [*tx.ledger_pages()],
        "ledger_tree": lambda tx: tx.ledger_tree(1) or None,
        "ledger_standing": lambda tx: tx.ledger_standing(1).tolist(),
        "ledger_batch_of": lambda tx: tx.ledger_batch_of(two.reverted),
        "entries_of": lambda tx: tx.entries_of(two.ids),
        "decisions": lambda tx: tx.decisions(Selection(ids=tuple(two.ids))),
        "lock_decisions": lambda tx: tx.lock_decisions(two.ids),
        "group_values": lambda tx: tx.group_values(two.ids),
        "proposed_again": lambda tx: tx.proposed_again(two.ids),
        "in_force": lambda tx: tx.in_force("rulebook"),
        "promotions": lambda tx: tx.promotions("rulebook", "replenish", lock=True),
        "decided_under": lambda tx: tx.decided_under(
            "replenish", two.version, shop.moment(LONG_AGO)
        ),
        "out_of_stock_share": lambda tx: tx.out_of_stock_share(),
        "count_decisions": lambda tx: tx.count_decisions("status"),
        "value_by_batch": lambda tx: tx.value_by_batch(),
        "begun_tasks": lambda tx: tx.lease_tasks("w", 9, timedelta(0)) and tx.begun_tasks(two.ids),
        "lease_tasks": lambda tx: tx.lease_tasks("w", 9, timedelta(0)),
        "count_tasks": lambda tx: tx.count_tasks(),
        "due_kinds": lambda tx: tx.due_kinds(),
        "late_tasks": lambda tx: tx.late_tasks(HENCE),
        "bury_tasks": lambda tx: tx.bury_tasks(two.ids, HENCE),
        "dead_tasks": lambda tx: tx.bury_tasks(two.ids, HENCE) and tx.dead_tasks(two.ids),
        "breakers": lambda tx: tx.breakers(lock=True),
        "approvals": lambda tx: tx.approvals(two.ids),
        "uses": lambda tx: tx.uses("supplier-week", LONG_AGO, LONG_HENCE).to_pylist(),
        "registered": lambda tx: tx.registered("rulebook", "replenish"),
        # The first of everybody is 1, whatever others have.
        "next_version": lambda tx: tx.next_version("order_document") - 1,
        "subjects": lambda tx: tx.subjects(),
        "told_by": lambda tx: tx.told_by("SaleRecorded").to_pylist(),
        "traced": lambda tx: tx.traced(two.run),
        "traced_places": lambda tx: tx.traced_places("sale_line", {partition: 99}),
        "traced_at": lambda tx: tx.traced_at("sale_line", partition, 1, 99),
        "traced_versions": lambda tx: tx.traced_versions("sale_line", 99),
        "count_traced": lambda tx: tx.count_traced("sale_line", {partition: 99})["runs"],
        "count_traced_versions": lambda tx: tx.count_traced_versions("sale_line", 99)["runs"],
        "untraced": lambda tx: tx.untraced(["SaleRecorded"], "nothing", {partition: 99}),
        "unsent": lambda tx: tx.unsent("catalogue", 99),
        "told_from": lambda tx: tx.told_from(
            "tills", ["SaleRecorded"], {partition: (0, 99)}
        ).to_pylist(),
        "drifts": lambda tx: tx.drifts(),
        "modes": lambda tx: tx.modes(),
        "halts": lambda tx: tx.halts(),
        "decided_lately": lambda tx: tx.decided_lately(
            "replenish", shop.moment(LONG_AGO), [f"{sku}@{shop.LOCATION}" for sku in shop.SKUS]
        ),
        # Everybody has places of their own: one who finds all taken is told nothing of others.
        "slot": lambda tx: tx.slot("replenish", 1) if tx.tenant == two.acme else None,
        "dead_letters": lambda tx: tx.dead_letters(),
        "put_aside": lambda tx: tx.put_aside(),
        "person_keys": lambda tx: tx.person_keys([PERSON]),
        "personal": lambda tx: tx.personal([PERSON]),
        "erased": lambda tx: tx.erased(["crm:2"]),
        "arrivals": lambda tx: tx.arrivals(9, 99),
        "count_arrivals": lambda tx: tx.count_arrivals(),
        "last_arrival": lambda tx: tx.last_arrival("shop"),
        "restated": lambda tx: tx.restated("shop", ["1"]).to_pylist(),
        "named_items": lambda tx: tx.named_items("shop"),
        "online": lambda tx: tx.online(),
        # These change what is there and tell what they changed.
        "serve": lambda tx: tx.serve("price", "v"),
        "drop_tasks": lambda tx: tx.drop_tasks(two.ids),
        "resume": lambda tx: tx.resume("offers"),
        "drop_drifts": lambda tx: tx.drop_drifts("tills"),
        "drop_dead_letter": lambda tx: tx.drop_dead_letter("nats", 0, 1),
        "erase_persons": lambda tx: tx.erase_persons([PERSON], HENCE),
    }


WRITES: dict[str, Callable[[Transaction, Two], Any]] = {
    "hasten_tasks": lambda tx, two: tx.hasten_tasks(two.ids),
    "postpone_tasks": lambda tx, two: tx.postpone_tasks(dict.fromkeys(two.ids, timedelta(days=9))),
    "renew_tasks": lambda tx, two: tx.renew_tasks(two.ids, "w", timedelta(days=9)),
    "bury_tasks": lambda tx, two: tx.bury_tasks(two.ids, HENCE),
    "revive_tasks": lambda tx, two: tx.revive_tasks(two.ids),
    "add_breaker": lambda tx, _: tx.add_breaker("adapter/x"),
    "set_breaker": lambda tx, _: tx.set_breaker({**open_breaker(), "state": "closed"}),
    "drop_tasks": lambda tx, two: tx.drop_tasks(two.ids),
    "agree": lambda tx, two: tx.agree(two.ids, "eve"),
    "change_approval": lambda tx, two: tx.change_approval(
        two.ids[0],
        {
            "role": "r",
            "persons": 1,
            "digest": "x",
            "rulebook_version": "v",
            "changed_by": "eve",
            "agreed": ["eve"],
        },
    ),
    "drop_approvals": lambda tx, two: tx.drop_approvals(two.ids),
    "drop_uses": lambda tx, two: tx.drop_uses(two.ids),
    "add_mode": lambda tx, _: tx.add_mode(CHANGE),
    "halt": lambda tx, _: tx.halt("", shop.moment(shop.FIRST_DAY), "eve", "all of it"),
    "resume": lambda tx, _: tx.resume("offers"),
    "add_drift": lambda tx, _: tx.add_drift(*DRIFT, stops="it lacks another"),
    "drop_drifts": lambda tx, _: tx.drop_drifts("tills"),
    "move_decisions": lambda tx, two: tx.move_decisions(dict.fromkeys(two.ids, "reverted")),
    "move_money": lambda tx, two: tx.move_money(dict.fromkeys(two.ids, 1)),
    "clear_decisions": lambda tx, _: tx.clear_decisions(),
    "clear_stock": lambda tx, _: tx.clear_stock(),
    "move_position": lambda tx, two: tx.move_position("stock", two.partition, 99),
    "lock_partition": lambda tx, two: tx.lock_partition(two.partition),
    "lease_tasks": lambda tx, _: tx.lease_tasks("w", 9, timedelta(days=9)),
    "register": lambda tx, _: tx.register(
        "rulebook", "replenish", "v", "x", shop.moment(shop.FIRST_DAY), "eve"
    ),
    "promote": lambda tx, _: tx.promote(
        "rulebook", "replenish", "v", shop.moment(shop.FIRST_DAY), "eve"
    ),
    "make_tenant": lambda tx, _: tx.make_tenant("demo"),
    "add_tasks": lambda tx, two: tx.add_tasks(
        pa.table(
            {
                "decision_id": two.ids[:1],
                "action": ["Do"],
                "task_group": ["g"],
                "task": ["{}"],
            }
        )
    ),
    "add_approvals": lambda tx, two: tx.add_approvals(request(two.ids[0])),
    "add_uses": lambda tx, two: tx.add_uses(
        pa.table(
            {
                "decision_id": two.ids[:1],
                "limit_id": ["supplier-week"],
                "key": ["k"],
                "amount": [1],
                "used_on": [shop.FIRST_DAY],
            }
        )
    ),
    "add_decisions": lambda tx, two: tx.add_decisions(
        pa.Table.from_pylist(
            [
                {
                    **dict.fromkeys(("subject", "verdict", "status"), "x"),
                    "decision_id": two.ids[0],
                    "batch": 1,
                    "place": 1,
                }
            ]
        )
    ),
    "add_dead_letters": lambda tx, _: tx.add_dead_letters([replace(LETTER, reason="other")]),
    "add_arrival": lambda tx, _: tx.add_arrival(replace(ARRIVAL, body=b"other")),
    "end_arrivals": lambda tx, _: tx.end_arrivals([(ARRIVAL, None)], "taken"),
    "retry_arrivals": lambda tx, _: tx.retry_arrivals("shop"),
    "forget_arrivals": lambda tx, _: tx.forget_arrivals("shop", HENCE),
    "restate": lambda tx, _: tx.restate("shop", STANDS),
    "name_items": lambda tx, _: tx.name_items("shop", {"1": "salt"}),
    "drop_dead_letter": lambda tx, _: tx.drop_dead_letter("nats", 0, 1),
    "add_person_keys": lambda tx, _: tx.add_person_keys({PERSON: b"other"}, HENCE),
    "add_personal": lambda tx, _: tx.add_personal(sealed("sealed/y/crm:1")),
    "erase_persons": lambda tx, _: tx.erase_persons([PERSON, "crm:2"], HENCE),
    "append_events": lambda tx, _: bus.publish(
        tx,
        Event("StockCounted", "s", shop.LOCATION, shop.moment(shop.FIRST_DAY), shop.counted()),
    ),
    "count_stock": lambda tx, _: tx.count_stock(
        pa.table(
            {
                "location_id": [shop.LOCATION],
                "sku": ["bread"],
                "on_hand_units": [77],
                **{f"{name}_units": [0] for name in ("on_order", "committed", "unmet")},
                "counted_at": [HENCE],
            }
        )
    ),
    "move_stock": lambda tx, _: tx.move_stock(
        pa.table(
            {
                "location_id": [shop.LOCATION],
                "sku": ["bread"],
                "on_hand_units": [7],
                "least_units": [7],
                "on_order_units": [0],
                "committed_units": [0],
            }
        )
    ),
    "append_seal": lambda tx, _: tx.append_seal(
        {
            "batch": 1,
            "batch_id": "01990000-0000-7000-8000-000000000000",
            "entry_count": 1,
            **dict.fromkeys(("root", "previous", "chain", "signature"), "x"),
            "recorded_at": shop.moment(shop.FIRST_DAY),
        },
        b"x" * 32,
    ),
    "append_pages": lambda tx, _: tx.append_pages(1, 0, packed(pa.array(["{}"]))),
    "add_traced": lambda tx, two: tx.add_traced(
        Traced(two.run, "x", "fail", HENCE, HENCE, {"code": "x"}, "sale_line", 1, 1, 1)
    ),
    "mark_sent": lambda tx, two: tx.mark_sent("catalogue", [two.run]),
    "add_run": lambda tx, _: tx.add_run(
        1,
        {
            **dict.fromkeys(("agent", "agent_version", "rulebook_version", "action"), "x"),
            "location_id": "x",
            "decided_at": shop.moment(shop.FIRST_DAY),
        },
    ),
    "append_steps": lambda tx, two: tx.append_steps(1, {1: two.ids[0]}),
    "begin_online": lambda tx, _: tx.begin_online("price", "v", HENCE),
    "put_values": lambda tx, _: tx.put_values(values()),
    "serve": lambda tx, _: tx.serve("price", "v"),
    "stop_serving": lambda tx, _: tx.stop_serving("price"),
}


def test_each_method_of_a_transaction_is_tried() -> None:
    """A method that is added has to be tried by a tenant on what another has."""
    methods = {
        name
        for name, _ in inspect.getmembers(Transaction, inspect.isfunction)
        if not name.startswith("_")
    }
    # One refuses for want of an entry, one tells of what is wrong, see below; the time is nobody's.
    assert methods == {*reads(Two(*[None] * 10)), *WRITES, "ledger_entry", "ledger_astray", "now"}  # type: ignore[arg-type]  # only their names


def test_no_method_tells_of_others(two: Two) -> None:
    nothing: tuple[object, ...] = (None, 0, [], {}, set(), False)
    for name, what in reads(two).items():
        with pytest.raises(Undone), two.store.transaction(two.acme) as tx:  # noqa: PT012  # all of it is taken back
            assert what(tx) not in nothing, f"{name} tells the owner nothing either"
            raise Undone
        with pytest.raises(Undone), two.store.transaction(two.eve) as tx:  # noqa: PT012  # all of it is taken back
            assert what(tx) in nothing, name
            raise Undone
    with pytest.raises(InvariantBroken), two.store.transaction(two.eve) as tx:
        tx.ledger_entry(1, 0)
    with pytest.raises(Undone), two.store.transaction(two.acme) as tx:  # noqa: PT012  # all of it is taken back
        tx.append_steps(8888, {1: two.ids[0]})
        assert tx.ledger_astray() == [{"batch": 8888, "place": 1}]
        tx._run("SELECT set_config('storekeep.tenant', %s, true)", (two.eve,))
        assert tx.ledger_astray() == []
        raise Undone


def test_a_reader_of_features_sees_its_own_tenant_alone(two: Two) -> None:
    with two.store.reader(two.acme) as reader:
        version, (found,) = reader.values("price", ["bread"])
        assert (version, found.integers) == ("v", [9])
    with two.store.reader(two.eve) as reader:
        assert reader.values("price", ["bread"]) == (None, [])


class Undone(Exception):
    """What was tried is not to stay."""


@pytest.mark.parametrize("name", sorted(WRITES))
def test_no_method_changes_anything_of_others(two: Two, name: str) -> None:
    """Tried with the very ids of the other tenant, which are no secret."""
    before = {table: two.sees(all_rows(table), two.acme) for table in tables(two.store)}
    with pytest.raises(Undone), two.store.transaction(two.eve) as tx:  # noqa: PT012  # all of it is taken back
        WRITES[name](tx, two)
        # Still inside: what another session of theirs would find if this were to stay.
        tx._run("SELECT set_config('storekeep.tenant', %s, true)", (two.acme,))
        after = {table: all_of(tx, table) for table in before}
        assert after == before
        raise Undone


def test_a_tenant_cannot_forget_another(two: Two) -> None:
    with pytest.raises(Refused):
        two.store.forget_demo(two.acme)
    before = two.sees(lambda tx: all_of(tx, "event_log"), two.acme)
    two.store.forget_demo(two.eve)
    assert two.sees(lambda tx: all_of(tx, "event_log"), two.acme) == before
    with two.store.transaction(two.eve) as tx:
        tx.make_tenant()


def test_a_session_that_serves_several_keeps_them_apart(two: Two) -> None:
    """Temporary tables outlive the transaction, what is in them does not."""
    with two.store.transaction(two.acme) as tx:
        WRITES["add_uses"](tx, two)
        tx.drop_uses(two.ids[:1])
    with two.store.transaction(two.eve) as tx:
        assert tx._run("SELECT * FROM pg_temp.incoming_limit_use") == []
        WRITES["add_uses"](tx, two)
        rows = tx._run("SELECT tenant FROM limit_use")
        assert {row["tenant"] for row in rows} == {two.eve}
        tx.drop_uses(two.ids[:1])


# ------------------------------------------------------------------------------------- the back office


def test_no_method_of_the_back_office_tells_of_others_or_changes_them(two: Two) -> None:
    """Tried with the very keys and receipts of the other tenant."""
    offices = [BackOffice(two.database.conninfo, tenant) for tenant in (two.acme, two.eve)]
    with closing(offices[0]) as own, closing(offices[1]) as other:
        held = own.find(two.ids)
        assert held
        assert own.count_orders() > 0
        before = {name: two.sees(all_rows(name), two.acme) for name in tables(two.store)}
        # Even with a query that forgets whose rows it wants.
        other._tenant = two.acme
        with other._transaction("look around", reads=True) as cursor:
            cursor.execute("SELECT set_config('storekeep.tenant', %s, true)", (two.eve,))
            assert other._receipts(cursor, two.ids) == {}
        other._tenant = two.eve
        assert other.find(two.ids) == {}
        assert other.receive(two.ids) == []
        assert other.order_lines().num_rows == other.open_lines().num_rows == 0
        assert other.count_orders() == 0
        said = other.compensate(list(held.values()), shop.moment(shop.FIRST_DAY))
        assert set(said) == {"back_office has no such line"}
        other.forget()
        assert {name: two.sees(all_rows(name), two.acme) for name in before} == before


def test_the_back_office_of_an_older_home_is_walled_when_it_is_opened(two: Two) -> None:
    table = sql.Identifier(OFFICE, "purchase_order_line")
    with two.database.admin() as connection:
        connection.execute(sql.SQL("DROP POLICY one_tenant ON {}").format(table))
        connection.execute(sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(table))
    with closing(BackOffice(two.database.conninfo, two.acme)) as own:
        assert own.find(two.ids)
    test_every_table_with_a_tenant_is_walled_for_its_owner_too(two)


# ------------------------------------------------------------------------------------------- files


def test_history_of_tenants_lies_apart(two: Two) -> None:
    root = two.home.home / "lake"
    assert (root / two.acme / "sale_line").is_dir()
    with Lake(root, two.eve) as lake:
        for kept in (SALE_LINES, STOCK_COUNTS):
            assert lake.version(kept.name) == -1
            found = lake.query("SELECT * FROM rows", tables={"rows": kept})
            assert found.num_rows == 0
    assert not (root / two.eve).exists()


@pytest.mark.parametrize("name", ["../other", "Main", "a/b", "", "a b", "a" * 41, "1st"])
def test_a_tenant_has_a_name_that_can_be_no_path(home_settings: Settings, name: str) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        Settings(home=home_settings.home, tenant=name)


def test_tenants_share_what_was_read_of_a_rulebook(home_settings: Settings) -> None:
    found = []
    for _ in range(2):
        with shop.opened_shop(shop.new_tenant(home_settings)) as opened:
            pipeline = opened.pipeline
            with pipeline.store.transaction(pipeline.tenant) as tx:
                found.append((pipeline.rulebook(tx, "replenish"), pipeline.dispatch_policy(tx)))
    (one, heard), (other, too) = found
    assert one is other
    assert heard is too
