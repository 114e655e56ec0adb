"""The system of record: migrations, connections, what goes in and comes out, and what goes wrong."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from storekeep import servers
from storekeep.config import Settings
from storekeep.decisions import Selection, decision_ids
from storekeep.errors import InvariantBroken, Permanent, Refused, Transient
from storekeep.servers import Database
from storekeep.servers.database import check_given
from storekeep.store import ENTRIES, ROLE, USES, Store, connection
from storekeep.store.pages import ENTRIES_A_PAGE, packed
from tests import shop

MIGRATIONS = sorted(
    file.stem for file in (Path(connection.__file__).parents[1] / "migrations").glob("*.sql")
)
AT = datetime(2026, 3, 2, tzinfo=UTC)
MIGRATIONS = sorted(
    path.name.removesuffix(".sql")
    for path in (resources.files("storekeep") / "migrations").iterdir()
    if path.name.endswith(".sql")
)

MIGRATIONS = sorted(
    file.name.removesuffix(".sql")
    for file in (resources.files("storekeep") / "migrations").iterdir()
)


@pytest.fixture(scope="module")
def database(home_settings: Settings) -> Iterator[Database]:
    with servers.lease(home_settings) as found:
        with Store(found.conninfo) as store:
            store.migrate()
        yield found


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    with Store(database.conninfo) as one:
        yield one


@pytest.fixture
def empty_database(database: Database) -> Iterator[Database]:
    """A database of its own on the same server, with nothing in it."""
    name = f"d{uuid4().hex[:12]}"
    with database.admin("postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield Database(make_conninfo(database.conninfo, dbname=name), embedded=True, version="")
    with database.admin("postgres") as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def counts(**units: int) -> pa.Table:
    """What is on hand by counts of the shelf."""
    many = len(units)
    return pa.table(
        {
            "location_id": [shop.LOCATION] * many,
            "sku": list(units),
            "on_hand_units": list(units.values()),
            **{f"{name}_units": [0] * many for name in ("on_order", "committed", "unmet")},
            "counted_at": [shop.moment(shop.FIRST_DAY)] * many,
        }
    )


def moves(**units: tuple[int, int, int]) -> pa.Table:
    """Net changes of stock positions: on hand, on order, committed."""
    names = ("on_hand_units", "on_order_units", "committed_units")
    columns = {
        name: pa.array([each[place] for each in units.values()], pa.int64())
        for place, name in enumerate(names)
    }
    many = len(units)
    keys = {"location_id": [shop.LOCATION] * many, "sku": list(units)}
    return pa.table({**keys, **columns, "least_units": columns["on_hand_units"]})


# --------------------------------------------------------------------------------------- migrations

FOLDER = Path(__file__).parents[2] / "src" / "storekeep" / "migrations"
MIGRATIONS = sorted(path.stem for path in FOLDER.glob("*.sql"))


def test_migrations_are_applied_once(empty_database: Database) -> None:
    with Store(empty_database.conninfo) as store:
        assert store.migrate() == MIGRATIONS
        assert store.migrate() == []


def test_processes_that_migrate_at_once_apply_each_migration_once(
    empty_database: Database,
) -> None:
    def migrate(_: int) -> list[str]:
        with Store(empty_database.conninfo) as store:
            return store.migrate()

    with ThreadPoolExecutor(6) as pool:
        applied = list(pool.map(migrate, range(6)))
    assert sorted(applied) == [[]] * 5 + [MIGRATIONS]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE storekeep.migration SET digest = 'x'", "differs from this version's"),
        ("INSERT INTO storekeep.migration VALUES ('9999_later', 'x')", "newer version"),
    ],
)
def test_a_database_that_another_version_made_is_refused(
    empty_database: Database, change: str, said: str
) -> None:
    with Store(empty_database.conninfo) as store:
        store.migrate()
        with empty_database.admin() as connection:
            connection.execute(change.encode())
        with pytest.raises(Refused, match=said):
            store.migrate()


def let_down(own: Database, conninfo: str) -> None:
    """What the owner of a server can do to its users, on one that nobody else uses: it is refused by name."""
    stranger = make_conninfo(conninfo, dbname="postgres")
    with own.admin("postgres") as connection:
        connection.execute("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    with pytest.raises(Refused, match="grant it CONNECT"):
        check_given(str(stranger))
    with own.admin("postgres") as connection:
        connection.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(sql.Identifier(ROLE)))
    with Store(conninfo) as store, pytest.raises(Refused, match="NOBYPASSRLS"):
        store.migrate()


def test_a_role_without_special_rights_can_own_the_database() -> None:
    """On a company's server: a login that may make roles and owns its database, and no more."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    try:
        with servers.lease(Settings(home=folder / "home")) as own:
            with own.admin("postgres") as connection:
                connection.execute("CREATE ROLE buyer LOGIN CREATEROLE PASSWORD 'sesame-7'")
                connection.execute("CREATE DATABASE shop OWNER buyer")
            conninfo = make_conninfo(own.conninfo, user="buyer", password="sesame-7", dbname="shop")
            with Store(conninfo) as store:
                store.migrate()
                with store.transaction("acme") as tx:
                    tx.make_tenant()
                    tx.count_stock(counts(bread=5))
                    assert tx.stock(shop.LOCATION)["on_hand_units"].to_pylist() == [5]
                with store.transaction("other") as tx:
                    assert tx.stock(shop.LOCATION).num_rows == 0
                store.migrate()
            with Store(conninfo) as store:
                with store.transaction("acme") as tx:
                    tx.register("rulebook", "r", "1", "x", AT, "Bea")
                    tx.promote("rulebook", "r", "1", AT, "Bea")
                with pytest.raises(Refused, match="live"):
                    store.forget_demo("acme")
            if own.embedded:
                let_down(own, conninfo)
    finally:
        shutil.rmtree(folder)


# --------------------------------------------------------------------------------------- connections


def test_what_a_transaction_wrote_is_gone_when_it_fails(store: Store, tenant: str) -> None:
    with pytest.raises(RuntimeError), store.transaction(tenant) as tx:  # noqa: PT012  # it fails after it wrote
        tx.make_tenant()
        raise RuntimeError
    with store.transaction(tenant) as tx:
        assert tx.purpose() is None


def test_a_connection_that_was_cut_is_transient_and_the_next_call_works(
    database: Database, store: Store, tenant: str
) -> None:
    with pytest.raises(Transient, match="storekeep doctor"), store.transaction(tenant) as tx:  # noqa: PT012  # cut in its midst
        tx.make_tenant()
        cut(database, store)
        tx.purpose()
    with store.transaction(tenant) as tx:
        assert tx.purpose() is None
    cut(database, store)
    with pytest.raises(Transient), store.transaction(tenant):
        pass
    assert store.migrate() == []
    cut(database, store)
    with pytest.raises(Transient):
        store.migrate()
    assert store.migrate() == []


def cut(database: Database, store: Store) -> None:
    """End the store's session from outside, as a server that restarts does."""
    assert store._connection is not None
    process = store._connection.info.backend_pid
    with database.admin() as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", (process,))


def test_a_server_that_restarts_is_transient_and_then_serves_again() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    chosen = Settings(home=folder / "home")
    try:
        with servers.lease(chosen) as own, Store(own.conninfo) as store:
            if not own.embedded:
                pytest.skip("a given server is not ours to stop")
            store.migrate()
            with store.transaction("acme") as tx:
                tx.make_tenant()
            servers.stop(chosen, force=True)
            with pytest.raises(Transient), store.transaction("acme"):
                pass
            with pytest.raises(Transient), store.transaction("acme"):
                pass
            servers.ensure(chosen)
            with store.transaction("acme") as tx:
                assert tx.purpose() == "live"
    finally:
        servers.stop(chosen, force=True)
        shutil.rmtree(folder)


def test_what_the_server_or_the_role_are_set_to_does_not_change_what_is_kept(
    database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    strange = "-c default_transaction_isolation=serializable -c timezone=Asia/Kolkata -c datestyle=SQL,DMY"
    with Store(make_conninfo(database.conninfo, options=strange)) as store:
        with store.transaction(tenant) as tx:
            tx.count_stock(counts(**{"crème brûlée €": 7}))
            isolation = tx._run("SHOW transaction_isolation")[0]["transaction_isolation"]
        assert isolation == "read committed"
    with Store(database.conninfo) as store, store.transaction(tenant) as tx:
        assert tx.stock(shop.LOCATION)["sku"].to_pylist() == ["crème brûlée €"]


def test_a_server_that_nobody_can_reach_is_transient() -> None:
    with Store("host=/nowhere port=1 dbname=x") as store:
        with pytest.raises(Transient, match="not available"):
            store.migrate()
        with pytest.raises(Transient), store.transaction("acme"):
            pass


def test_a_full_disk_and_missing_rights_are_permanent_and_say_what_to_do(
    database: Database, store: Store, tenant: str
) -> None:
    with pytest.raises(Permanent, match="free some"), store.transaction(tenant) as tx:
        tx._run("DO $$ BEGIN RAISE EXCEPTION 'no space' USING ERRCODE = '53100'; END $$")
    with pytest.raises(Permanent, match=r"docs/operations\.md"), store.transaction(tenant) as tx:
        tx._run("DROP TABLE event_log")
    with pytest.raises(InvariantBroken), store.transaction(tenant) as tx:
        tx._run("SELECT 1 / 0")


# ------------------------------------------------------------------------------- what goes in, comes out

# PostgreSQL keeps every character but the zero.
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@settings(max_examples=40)
@given(st.lists(st.tuples(words, words | st.none(), words), min_size=1, max_size=20))
@example([("", None, ""), ('"', '""', "\\N"), ("\\.", "\\.", "a\n\\.\nb"), ("\r\n", "\n", "\r")])
@example([("\ufeffa", ",", ";"), ("t", "f", "NULL"), ("é€𝄞", "'", "\t")])
def test_text_goes_in_and_comes_out_as_it_is(
    database: Database, rows: list[tuple[str, str | None, str]]
) -> None:
    with Store(database.conninfo) as store, store.transaction(f"t{uuid4().hex[:12]}") as tx:
        many = len(rows)
        texts = {
            "subject": pa.array([row[0] for row in rows], pa.string()),
            "order_group": pa.array([row[1] for row in rows], pa.string()),
            "status": pa.array([row[2] for row in rows], pa.string()),
        }
        decisions = pa.table(
            {
                **texts,
                "verdict": pa.repeat("x", many),
                "batch": pa.array([1] * many, pa.int64()),
                "place": pa.array(range(many), pa.int64()),
                "decision_id": [str(uuid4()) for _ in rows],
            }
        )
        tx._copy_in("decision", decisions)
        found = tx._copy_out(
            "SELECT subject, order_group, status FROM decision WHERE tenant = %s ORDER BY place",
            (tx.tenant,),
            pa.schema([(name, pa.string()) for name in texts]),
        )
        assert found == pa.table(texts)


@settings(max_examples=20)
@given(
    st.lists(
        st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 2 * ENTRIES_A_PAGE + 2),
)
def test_entries_come_back_as_they_were_appended(
    database: Database, parts: list[list[str]], more: int
) -> None:
    parts[-1] += [f"entry {number}" for number in range(more)]
    with Store(database.conninfo) as store, store.transaction(f"t{uuid4().hex[:12]}") as tx:
        texts: list[str] = []
        for part in parts:
            tx.append_pages(1, len(texts), packed(pa.array(part, pa.string())))
            texts += part
        found = tx.ledger_entries(1, 1)
        assert found.schema == ENTRIES
        assert found["entry"].to_pylist() == texts
        assert found["place"].to_pylist() == list(range(len(texts)))
        assert tx.ledger_entry(1, len(texts) - 1) == texts[-1]
        with pytest.raises(InvariantBroken, match="no entry"):
            tx.ledger_entry(1, len(texts))


@settings(max_examples=20)
@given(st.dictionaries(words, st.integers(-(2**62), 2**62), min_size=1, max_size=8))
@example({"\ufeff": 1})
def test_the_first_column_comes_out_as_it_went_in(
    database: Database, amounts: dict[str, int]
) -> None:
    with Store(database.conninfo) as store, store.transaction(f"t{uuid4().hex[:12]}") as tx:
        many = len(amounts)
        rows = {
            "decision_id": [str(uuid4()) for _ in amounts],
            "limit_id": ["\ufeffweek"] * many,
            "key": list(amounts),
            "amount": list(amounts.values()),
            "used_on": [date(2026, 3, 2)] * many,
        }
        tx.add_uses(pa.table(rows))
        found = tx.uses("\ufeffweek", date(2026, 3, 2), date(2026, 3, 2))
        assert found.schema == USES
        assert set(found["limit"].to_pylist()) == {"\ufeffweek"}
        assert (
            dict(zip(found["key"].to_pylist(), found["amount"].to_pylist(), strict=True)) == amounts
        )


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 5_000), min_size=1, max_size=8),
    st.none() | st.integers(0, 5_000),
    st.none() | st.integers(0, 5_000),
)
@example([1_500], 1_400, 1_600)
def test_decisions_are_chosen_by_the_very_time_they_were_made(
    database: Database, times: list[int], since: int | None, until: int | None
) -> None:
    """An id has milliseconds only, and what is chosen goes by microseconds."""

    def at(micros: int | None) -> datetime | None:
        return (
            None if micros is None else datetime(2026, 3, 2, tzinfo=UTC) + timedelta(0, 0, micros)
        )

    with Store(database.conninfo) as store, store.transaction(f"t{uuid4().hex[:12]}") as tx:
        texts = ("agent", "agent_version", "rulebook_version", "action", "location_id")
        seal = dict.fromkeys(("root", "previous", "chain", "signature"), "x")
        expected = []
        for batch, micros in enumerate(times, 1):
            time = at(micros)
            assert time is not None
            (key,) = decision_ids(time, "test", [str(batch)])
            tx.append_seal(
                {
                    **seal,
                    "batch": batch,
                    "batch_id": str(uuid4()),
                    "entry_count": 1,
                    "recorded_at": time,
                },
                b"",
            )
            tx.add_run(batch, {**dict.fromkeys(texts, "x"), "decided_at": time})
            row = {"decision_id": key, "batch": batch, "place": 1}
            row |= dict.fromkeys(("subject", "verdict", "status"), "x")
            tx.add_decisions(pa.Table.from_pylist([row]))
            if (since is None or micros >= since) and (until is None or micros < until):
                expected.append(key)
        found = tx.decisions(Selection(since=at(since), until=at(until)))
        assert [row["decision_id"] for row in found] == sorted(expected, reverse=True)


def test_nothing_goes_in_and_comes_out_as_nothing(store: Store, tenant: str) -> None:
    with store.transaction(tenant) as tx:
        tx.add_uses(pa.table({name: [] for name in ("decision_id", "limit_id", "key")}))
        assert tx.uses("any", date(2026, 1, 1), date(2026, 12, 31)) == USES.empty_table()
        assert tx.stock(shop.LOCATION).num_rows == 0
        assert tx.ledger_entries(1, 9).num_rows == 0
        assert tx.decisions(Selection()) == []


# --------------------------------------------------------------------------------------------- stock


def test_stock_never_falls_below_nothing_and_what_was_asked_beyond_it_is_unmet(
    store: Store, tenant: str
) -> None:
    with store.transaction(tenant) as tx:
        tx.move_stock(moves(bread=(-3, 0, 0)))
        assert tx.stock(shop.LOCATION).num_rows == 0
        tx.count_stock(counts(bread=5, milk=0))
        tx.move_stock(moves(bread=(-7, 2, 3), milk=(-1, 0, 0)))
        assert tx.stock(shop.LOCATION).to_pylist() == [
            {"location_id": shop.LOCATION, "sku": "bread", "on_hand_units": 0}
            | {"on_order_units": 2, "committed_units": 3, "unmet_units": 2},
            {"location_id": shop.LOCATION, "sku": "milk", "on_hand_units": 0}
            | {"on_order_units": 0, "committed_units": 0, "unmet_units": 1},
        ]


# -------------------------------------------------------------------------------------- pending actions


def tasks(*groups: str) -> tuple[list[str], pa.Table]:
    ids = [str(uuid4()) for _ in groups]
    columns = {
        "decision_id": ids,
        "action": ["Do"] * len(ids),
        "task_group": list(groups),
        "task": ["{}"] * len(ids),
    }
    return ids, pa.table(columns)


def test_a_pending_action_is_held_by_one_worker_until_its_lease_runs_out(
    database: Database, store: Store, tenant: str
) -> None:
    ids, rows = tasks("a", "a", "b")
    with store.transaction(tenant) as tx:
        tx.add_tasks(rows)
    with Store(database.conninfo) as other, store.transaction(tenant) as tx:
        mine = tx.lease_tasks("one", 2, timedelta(minutes=1))
        # Another worker does not wait for what is about to be held.
        with other.transaction(tenant) as theirs:
            rest = theirs.lease_tasks("two", 9, timedelta(seconds=0))
    assert {task.decision_id for task in mine} == set(ids[:2])
    assert [task.decision_id for task in rest] == [ids[2]]
    with store.transaction(tenant) as tx:
        again = tx.lease_tasks("three", 9, timedelta(minutes=1))
        assert [(task.decision_id, task.attempts) for task in again] == [(ids[2], 2)]
        tx.postpone_tasks({ids[0]: timedelta(0)})
        assert [task.decision_id for task in tx.lease_tasks("four", 9, timedelta(1))] == ids[:1]
        tx.postpone_tasks({ids[0]: timedelta(hours=1)})
    with store.transaction(tenant) as tx:
        assert tx.lease_tasks("five", 9, timedelta(minutes=1)) == []
        assert tx.drop_tasks([*ids, str(uuid4())]) == set(ids)
        assert tx.drop_tasks(ids) == set()
        assert tx.count_tasks() == 0


def test_workers_that_lease_at_once_share_out_the_pending_actions(
    database: Database, tenant: str
) -> None:
    ids, rows = tasks(*(f"group {number % 7}" for number in range(60)))
    with Store(database.conninfo) as store, store.transaction(tenant) as tx:
        tx.add_tasks(rows)
    begin = threading.Barrier(4)

    def lease(number: int) -> list[str]:
        held: list[str] = []
        with Store(database.conninfo) as store:
            begin.wait()
            while True:
                with store.transaction(tenant) as tx:
                    found = tx.lease_tasks(f"worker {number}", 5, timedelta(minutes=1))
                if not found:
                    return held
                held += [task.decision_id for task in found]

    with ThreadPoolExecutor(4) as pool:
        held = list(pool.map(lease, range(4)))
    assert sorted(each for one in held for each in one) == sorted(ids)


# ------------------------------------------------------------------------------------------- registry


def test_rulebooks_are_promoted_one_after_another_whoever_does_it(
    database: Database, tenant: str
) -> None:
    def promote(number: int) -> None:
        with Store(database.conninfo) as store, store.transaction(tenant) as tx:
            tx.register("rulebook", "r", f"v{number}", f"text {number}", AT, "Bea")
            tx.promote("rulebook", "r", f"v{number}", AT, "Bea")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, range(12)))
    with Store(database.conninfo) as store, store.transaction(tenant) as tx:
        sequence = [row["sequence"] for row in tx._run("SELECT sequence FROM promotion ORDER BY 1")]
        assert sequence == list(range(1, 13))
        tx.promote("rulebook", "r", "v3", AT, "Bea")
        assert tx.registered("rulebook", "r") == ("v3", "text 3")
        assert tx.registered("rulebook", "r", "v5") == ("v5", "text 5")
        assert tx.registered("rulebook", "r", "v99") is None
        assert tx.in_force("rulebook") == {"r": ("v3", "text 3")}
        assert tx.in_force("dispatch") == {}
        tx.register("rulebook", "r", "v3", "another text", AT, "Eve")
        assert tx.registered("rulebook", "r") == ("v3", "text 3")


# --------------------------------------------------------------------------------------- demonstrations


def test_a_demonstration_is_forgotten_and_live_records_are_not(
    home_settings: Settings, store: Store
) -> None:
    demo, live = shop.new_tenant(home_settings), shop.new_tenant(home_settings)
    with shop.opened_shop(demo, purpose="demo") as opened:
        opened.prepare()
        opened.play(shop.FIRST_DAY)
    store.forget_demo(demo.tenant)
    for table in tables_of(store):
        with store.transaction(demo.tenant) as tx:
            assert tx._run(f"SELECT * FROM {table} WHERE tenant = %s", (demo.tenant,)) == []
    store.forget_demo(demo.tenant)
    with store.transaction(live.tenant) as tx:
        tx.make_tenant()
    # Nothing has been recorded yet, so nothing is lost.
    store.forget_demo(live.tenant)
    with shop.opened_shop(live) as opened:
        opened.prepare()
        before = opened.state()
        with pytest.raises(Refused, match=f"tenant {live.tenant} of this home holds live records"):
            store.forget_demo(live.tenant)
        assert opened.state() == before


def test_the_rulebook_that_a_person_promoted_is_a_live_record(store: Store, tenant: str) -> None:
    with store.transaction(tenant) as tx:
        tx.make_tenant()
        tx.register("rulebook", "r", "1", "text", AT, "storekeep")
        tx.promote("rulebook", "r", "1", AT, "storekeep")
        assert tx.is_empty()
        tx.promote("rulebook", "r", "1", AT, "Bea")
        assert not tx.is_empty()
    with pytest.raises(Refused, match="live records"):
        store.forget_demo(tenant)


def tables_of(store: Store) -> list[str]:
    with store.transaction("any") as tx:
        rows: list[dict[str, Any]] = tx._run(
            "SELECT relname FROM pg_class WHERE relnamespace = 'storekeep'::regnamespace"
            " AND relkind = 'r' AND relrowsecurity ORDER BY 1"
        )
    return [row["relname"] for row in rows]


def test_a_role_that_is_no_superuser_still_sees_only_its_tenant(
    database: Database, store: Store, tenant: str
) -> None:
    with store.transaction(tenant) as tx:
        assert tx._run("SELECT current_user, current_setting('is_superuser') AS super") == [
            {"current_user": "storekeep_app", "super": "off"}
        ]
    with psycopg.connect(database.conninfo) as connection:
        # Outside a transaction of ours nobody has become anybody.
        assert connection.execute(
            "SELECT current_setting('storekeep.tenant', true)"
        ).fetchone() in (
            (None,),
            ("",),
        )


KINDS = {
    "a": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "b": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "c": (pa.string(), st.uuids().map(str)),
    "d": (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    "e": (pa.date32(), st.dates()),
    "f": (pa.bool_(), st.booleans()),
    "g": (pa.float64(), st.floats(allow_nan=False)),
    "h": (pa.string(), words),
}


@settings(max_examples=40)
@given(st.lists(st.fixed_dictionaries({n: v | st.none() for n, (_, v) in KINDS.items()})))
@example([{**dict.fromkeys(KINDS), "d": datetime(1999, 12, 31, tzinfo=UTC)}])
@example([dict.fromkeys(KINDS)] * 3)
def test_every_kind_of_column_goes_in_as_it_is(
    database: Database, rows: list[dict[str, Any]]
) -> None:
    fields = [pa.field(name, kind) for name, (kind, _) in KINDS.items()]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    with Store(database.conninfo) as store, store.transaction(f"t{uuid4().hex[:12]}") as tx:
        tx._run(
            "CREATE TEMP TABLE kinds (tenant text, number serial, a bigint, b integer, c uuid,"
            " d timestamptz, e date, f boolean, g double precision, h text) ON COMMIT DROP"
        )
        tx._copy_temporary("incoming_kinds", sql.Identifier("kinds"), table)
        found = tx._run(
            "SELECT a, b, c::text, d, e, f, g, h FROM pg_temp.incoming_kinds ORDER BY ctid"
        )
    assert found == table.to_pylist()


def test_what_is_no_uuid_is_refused(store: Store, tenant: str) -> None:
    with pytest.raises(InvariantBroken, match="not a UUID"), store.transaction(tenant) as tx:
        tx.add_tasks(
            pa.table({"decision_id": ["x"], "action": ["a"], "task_group": ["g"], "task": ["{}"]})
        )
