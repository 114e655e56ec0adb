"""What every outside system must do for us, tried on each that there is.

A new adapter gets a subclass of `AdapterContract` that says how to make it and what others can do to it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from storekeep import servers
from storekeep.actions import Adapter, Answer, BackOffice, Order
from storekeep.actions.back_office import _number
from storekeep.config import Settings
from storekeep.decisions import Receipt
from storekeep.errors import Permanent, Transient, Unknown
from storekeep.servers import Database
from tests.contracts.cable import Cable

AT = datetime(2026, 3, 2, 23, tzinfo=UTC)
LATER = AT + timedelta(hours=1)


def order(sku: str = "bread", group: str = "north/DC1/2026-03-02/abc", **more: Any) -> Order:
    """A line to order, under a key that nothing was ever done under."""
    parameters = {
        "sku": sku,
        "location_id": "DC1",
        "supplier_id": group.partition("/")[0],
        "order_group": group,
        "order_units": 12,
        "pack_size_units": 6,
        "unit_cost_minor": 100,
        "order_value_minor": 1200,
        "currency": "USD",
    }
    return Order(str(uuid4()), group, parameters | more)


def answers_of(call: Callable[[], Sequence[Answer]], many: int) -> list[Answer]:
    """An answer for each; what is raised for all of them is the answer of each."""
    try:
        return list(call())
    except (Transient, Unknown) as error:
        return [error] * many


def receipts(answers: Sequence[Answer]) -> list[Receipt]:
    """The answers, all of which are receipts."""
    assert all(isinstance(each, Receipt) for each in answers), answers
    return [each for each in answers if isinstance(each, Receipt)]


class Outside:
    """An outside system under test: how to reach it, how it breaks, and what others can do in it."""

    adapter: Adapter

    def again(self) -> Adapter:
        """Another connection to the same system, as another process has."""
        raise NotImplementedError

    def unreachable(self) -> Adapter:
        """A connection through which nothing passes."""
        raise NotImplementedError

    def breaks_off(self, moment: str) -> Adapter:
        """A connection that breaks at the next write: "before it is sent" or "after it was done"."""
        raise NotImplementedError

    def change(self, receipt: Receipt, what: str) -> None:
        """Somebody else changes an object: "quantity", "price" or "cancellation"."""
        raise NotImplementedError

    def arrive(self, receipt: Receipt) -> None:
        """The goods of an order arrive."""
        raise NotImplementedError

    def objects(self) -> int:
        """How many objects there are."""
        raise NotImplementedError

    def refuse(self, sku: str) -> None:
        """From now on the system says no to orders of an item."""
        raise NotImplementedError


class AdapterContract:
    """The suite; collected for subclasses only."""

    def test_a_key_makes_one_object_however_often_it_is_sent(self, outside: Outside) -> None:
        wanted = [order("bread"), order("salt")]
        first = outside.adapter.execute(wanted, AT)
        assert outside.adapter.execute(wanted, LATER) == first
        assert outside.again().execute(wanted[:1], LATER) == first[:1]
        assert [each.idempotency_key for each in receipts(first)] == [
            each.decision_id for each in wanted
        ]
        assert outside.objects() == 1

    def test_lines_of_a_group_travel_together_whenever_they_are_sent(
        self, outside: Outside
    ) -> None:
        group, other = "north/DC1/1/a", "south/DC1/1/a"
        one, two, three, four = (
            receipts(outside.adapter.execute(lines, at))
            for lines, at in (
                ([order("bread", group)], AT),
                ([order("salt", group)], LATER),
                ([order("milk", other), order("wine", group)], LATER),
                ([order("soap", "north/DC1/2/a")], LATER),
            )
        )
        assert one[0].reference == two[0].reference == three[1].reference
        assert len({one[0].reference, three[0].reference, four[0].reference}) == 3
        assert outside.objects() == 3

    def test_answers_come_in_the_order_of_the_questions(self, outside: Outside) -> None:
        wanted = [order(f"sku {number}", f"g{number % 3}/x/y") for number in range(20)]
        answers = receipts(outside.adapter.execute(wanted, AT))
        assert [each.details["sku"] for each in answers] == [f"sku {n}" for n in range(20)]
        back = outside.adapter.compensate(answers[::-1], LATER)
        assert [each.details["sku"] for each in receipts(back)] == [
            f"sku {n}" for n in reversed(range(20))
        ]

    def test_what_was_done_is_found_and_nothing_else(self, outside: Outside) -> None:
        wanted = [order("bread"), order("salt")]
        done = receipts(outside.adapter.execute(wanted, AT))
        found = outside.again().find([*(each.decision_id for each in wanted), str(uuid4())])
        assert found == {each.idempotency_key: each for each in done}
        assert outside.adapter.find([]) == {}

    def test_what_cannot_be_ordered_is_refused_and_does_not_keep_others_from_it(
        self, outside: Outside
    ) -> None:
        wanted = [order("bread", order_units=0), order("salt"), order("milk", order_units=-3)]
        answers = outside.adapter.execute(wanted, AT)
        assert [isinstance(each, str) for each in answers] == [True, False, True]
        assert list(outside.adapter.find([each.decision_id for each in wanted])) == [
            wanted[1].decision_id
        ]

    def test_compensation_takes_back_and_twice_is_once(self, outside: Outside) -> None:
        wanted = [order("bread"), order("salt")]
        done = receipts(outside.adapter.execute(wanted, AT))
        back = receipts(outside.adapter.compensate(done[:1], LATER))
        assert back[0].details["cancelled"]
        assert outside.adapter.compensate(done[:1], LATER + timedelta(days=1)) == back
        assert outside.adapter.compensate(back, LATER) == back
        assert outside.objects() == 1
        assert outside.adapter.find([done[1].idempotency_key])[done[1].idempotency_key] == done[1]
        outside.adapter.compensate(done[1:], LATER)
        assert outside.objects() == 0
        # What was taken back stays so, whoever sends it again.
        assert receipts(outside.adapter.execute(wanted, LATER))[0].details["cancelled"]
        assert outside.objects() == 0

    def test_there_is_nothing_to_take_back_of_what_was_never_done(self, outside: Outside) -> None:
        done = receipts(outside.adapter.execute([order()], AT))[0]
        never = replace(done, idempotency_key=str(uuid4()))
        answers = outside.adapter.compensate([never, done], LATER)
        assert isinstance(answers[0], str)
        assert isinstance(answers[1], Receipt)

    @pytest.mark.parametrize("what", ["quantity", "price", "cancellation"])
    def test_a_change_by_somebody_else_is_seen(self, outside: Outside, what: str) -> None:
        done = receipts(outside.adapter.execute([order("bread"), order("salt")], AT))
        outside.change(done[0], what)
        found = outside.adapter.find([each.idempotency_key for each in done])
        assert found[done[0].idempotency_key].fingerprint != done[0].fingerprint
        assert found[done[1].idempotency_key].fingerprint == done[1].fingerprint

    @pytest.mark.parametrize("what", ["quantity", "price"])
    def test_what_somebody_else_changed_is_not_taken_back(
        self, outside: Outside, what: str
    ) -> None:
        done = receipts(outside.adapter.execute([order("bread"), order("salt")], AT))
        outside.change(done[0], what)
        answers = outside.adapter.compensate(done, LATER)
        assert isinstance(answers[0], str)
        assert "changed" in answers[0]
        assert isinstance(answers[1], Receipt)
        assert outside.objects() == 1

    def test_goods_that_arrive_are_no_change_but_cannot_be_taken_back(
        self, outside: Outside
    ) -> None:
        done = receipts(outside.adapter.execute([order("bread"), order("salt")], AT))
        outside.arrive(done[0])
        found = outside.adapter.find([done[0].idempotency_key])[done[0].idempotency_key]
        assert found.fingerprint == done[0].fingerprint
        assert found.details["received_units"] == 12
        answers = outside.adapter.compensate(done, LATER)
        assert isinstance(answers[0], str)
        assert "arrived" in answers[0]
        assert isinstance(answers[1], Receipt)

    def test_a_system_that_is_gone_is_transient(self, outside: Outside) -> None:
        done = receipts(outside.adapter.execute([order()], AT))
        gone = outside.unreachable()
        wanted = [order("bread"), order("salt")]
        for answers in (
            answers_of(lambda: gone.execute(wanted, AT), 2),
            answers_of(lambda: gone.compensate(done, AT), 1),
        ):
            assert all(isinstance(each, Transient) for each in answers), answers
        with pytest.raises(Transient):
            gone.find([done[0].idempotency_key])
        assert outside.objects() == 1

    @pytest.mark.parametrize("moment", ["before it is sent", "after it was done"])
    def test_an_error_at_the_end_of_a_write_is_unknown_and_can_be_looked_up(
        self, outside: Outside, moment: str
    ) -> None:
        wanted = [order("bread"), order("salt")]
        keys = [each.decision_id for each in wanted]
        breaking = outside.breaks_off(moment)
        answers = answers_of(lambda: breaking.execute(wanted, AT), 2)
        assert all(isinstance(each, Unknown) for each in answers), answers
        done = moment == "after it was done"
        assert sorted(breaking.find(keys)) == sorted(keys if done else [])
        placed = receipts(breaking.execute(wanted, LATER))
        assert outside.objects() == 1
        breaking = outside.breaks_off(moment)
        answers = answers_of(lambda: breaking.compensate(placed, AT), 2)
        assert all(isinstance(each, Unknown) for each in answers), answers
        now = breaking.find(keys)
        assert {each.details["cancelled"] for each in now.values()} == {done}
        assert all(each.details["cancelled"] for each in receipts(breaking.compensate(placed, AT)))

    def test_a_system_that_says_no_has_not_done_it_and_the_others_can_be(
        self, outside: Outside
    ) -> None:
        outside.refuse("salt")
        wanted = [order("bread"), order("salt")]
        keys = [each.decision_id for each in wanted]
        try:
            answers = list(outside.adapter.execute(wanted, AT))
        except Permanent:
            # Of all of it: then nothing was done, and they are sent one by one.
            assert outside.adapter.find(keys) == {}
            answers = [*outside.adapter.execute(wanted[:1], AT)]
            with pytest.raises(Permanent):
                outside.adapter.execute(wanted[1:], AT)
        else:
            assert isinstance(answers.pop(), str)
        receipts(answers)
        assert list(outside.adapter.find(keys)) == keys[:1]

    def test_processes_that_send_the_same_at_once_make_one_object(self, outside: Outside) -> None:
        wanted = [order(f"sku {number}", f"g{number % 2}/x/y") for number in range(10)]
        begin = threading.Barrier(4)

        def send(number: int) -> list[Receipt]:
            adapter = outside.again()
            begin.wait()
            while True:
                # Not all in the same order, as other batches of the same lines are not.
                part = wanted if number % 2 else wanted[::-1]
                answers = answers_of(lambda part=part: adapter.execute(part, AT), len(part))  # type: ignore[misc]  # a default binds it
                if not any(isinstance(each, Transient | Unknown) for each in answers):
                    return receipts(answers)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(send, range(4)))
        assert outside.objects() == 2
        assert {frozenset((r.idempotency_key, r.reference) for r in each) for each in answers} == {
            frozenset((r.idempotency_key, r.reference) for r in answers[0])
        }


class EmbeddedBackOffice(Outside):
    """The back office in the same PostgreSQL as everything else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tenant = f"t{uuid4().hex[:12]}"
        self._open: list[BackOffice | Cable] = []
        self.adapter = self.office = self._office(database.conninfo)

    def _office(self, conninfo: str) -> BackOffice:
        office = BackOffice(conninfo, self._tenant)
        self._open.append(office)
        return office

    def again(self) -> BackOffice:
        return self._office(self._database.conninfo)

    def unreachable(self) -> BackOffice:
        return self._office(make_conninfo(self._database.conninfo, host="/nowhere", hostaddr=""))

    def breaks_off(self, moment: str) -> BackOffice:
        cable = Cable(self._database.conninfo)
        self._open.append(cable)
        office = self._office(cable.conninfo)
        office.find([])
        cable.cut_at_commit(
            "after it was done" if moment.startswith("after") else "before it is sent"
        )
        return office

    def change(self, receipt: Receipt, what: str) -> None:
        change = {
            "quantity": "ordered_units = ordered_units + 1",
            "price": "unit_cost_minor = unit_cost_minor + 1",
            "cancellation": "cancelled_at = now()",
        }[what]
        self._say(
            f"UPDATE back_office.purchase_order_line SET {change}"
            f" WHERE tenant = '{self._tenant}' AND idempotency_key = '{receipt.idempotency_key}'"
        )

    def arrive(self, receipt: Receipt) -> None:
        assert self.office.receive([receipt.idempotency_key]) == [receipt.idempotency_key]

    def objects(self) -> int:
        return self.office.count_orders()

    def refuse(self, sku: str) -> None:
        self._say(
            "ALTER TABLE back_office.purchase_order_line ADD CONSTRAINT"
            f" no_{self._tenant} CHECK (tenant <> '{self._tenant}' OR sku <> '{sku}')"
        )

    def _say(self, statement: str) -> None:
        with self._database.admin() as connection:
            connection.execute(statement.encode())

    def end(self) -> None:
        """Give everything back."""
        self._say(
            "ALTER TABLE IF EXISTS back_office.purchase_order_line"
            f" DROP CONSTRAINT IF EXISTS no_{self._tenant}"
        )
        for each in self._open:
            if isinstance(each, Cable):
                each.__exit__()
            else:
                each.close()


@pytest.fixture(scope="module")
def database(home_settings: Settings) -> Iterator[Database]:
    with servers.lease(home_settings) as found:
        yield found


class TestEmbeddedBackOffice(AdapterContract):
    @pytest.fixture
    def outside(self, database: Database) -> Iterator[EmbeddedBackOffice]:
        one = EmbeddedBackOffice(database)
        yield one
        one.end()

    def test_a_session_that_was_ended_is_transient_and_the_next_call_works(
        self, outside: EmbeddedBackOffice
    ) -> None:
        wanted = [order()]
        outside.office.find([])
        connection = outside.office._connection
        assert connection is not None
        outside._say(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
        with pytest.raises(Transient):
            outside.office.execute(wanted, AT)
        receipts(outside.office.execute(wanted, AT))

    def test_goods_arrive_once_and_not_for_what_was_cancelled(
        self, outside: EmbeddedBackOffice
    ) -> None:
        done = receipts(outside.office.execute([order("bread"), order("salt")], AT))
        keys = sorted(each.idempotency_key for each in done)
        assert outside.office.open_lines()["order_units"].to_pylist() == [12, 12]
        outside.office.compensate(done[:1], AT)
        assert outside.office.receive([*keys, str(uuid4())]) == [done[1].idempotency_key]
        assert outside.office.receive(keys) == [done[1].idempotency_key]
        assert outside.office.open_lines().num_rows == 0
        assert outside.office.order_lines()["sku"].to_pylist() == ["salt"]

    def test_groups_whose_numbers_meet_get_orders_of_their_own(
        self, outside: EmbeddedBackOffice
    ) -> None:
        """Ten digits meet again after a hundred thousand orders or so."""
        seen: dict[str, str] = {}
        groups = (f"north/DC1/{place}" for place in itertools.count())
        numbered = ((group, _number(outside._tenant, group, 0)) for group in groups)
        group, number = next(
            (group, number) for group, number in numbered if seen.setdefault(number, group) != group
        )
        one = receipts(outside.office.execute([order("bread", seen[number])], AT))[0]
        two, three = receipts(
            outside.office.execute([order("milk", group), order("salt", seen[number])], AT)
        )
        assert one.reference == three.reference == number
        assert two.reference != number
        assert receipts(outside.office.execute([order("soap", group)], AT))[0].reference == (
            two.reference
        )
        assert outside.office.count_orders() == 2

    def test_tenants_have_orders_of_their_own(self, database: Database) -> None:
        with two_offices(database) as (one, two):
            line = order()
            receipts(one.execute([line], AT))
            assert two.find([line.decision_id]) == {}
            assert two.receive([line.decision_id]) == []
            assert two.count_orders() == 0
            assert two.order_lines().num_rows == 0
            receipts(two.execute([line], AT))
            two.forget()
            assert (one.count_orders(), two.count_orders()) == (1, 0)

    def test_processes_that_open_it_for_the_first_time_at_once_all_can(
        self, database: Database
    ) -> None:
        name = f"d{uuid4().hex[:12]}"
        with database.admin("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        conninfo = make_conninfo(database.conninfo, dbname=name)
        begin = threading.Barrier(6)

        def first(number: int) -> Mapping[str, Receipt]:
            office = BackOffice(conninfo, f"t{number}")
            begin.wait()
            try:
                return office.find([])
            finally:
                office.close()

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(first, range(6))) == [{}] * 6
        with database.admin("postgres") as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def test_a_database_it_may_make_no_tables_in_is_named(self, database: Database) -> None:
        name = f"r{uuid4().hex[:12]}"
        with database.admin() as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p'".encode())
        office = BackOffice(make_conninfo(database.conninfo, user=name, password="p"), "acme")
        for _ in range(2):
            with pytest.raises(Permanent, match="permission denied"):
                office.find([])
        office.close()
        with database.admin() as connection:
            connection.execute(f"DROP ROLE {name}".encode())


@contextmanager
def two_offices(database: Database) -> Iterator[tuple[BackOffice, BackOffice]]:
    offices = [BackOffice(database.conninfo, f"t{uuid4().hex[:12]}") for _ in range(2)]
    yield offices[0], offices[1]
    for each in offices:
        each.close()


def test_the_cable_passes_on_what_is_said(database: Database) -> None:
    with Cable(database.conninfo) as cable:
        with psycopg.connect(cable.conninfo) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert cable.cuts == 0
        cable.pull()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(cable.conninfo)
