"""The HTTP adapter keeps the contract with a real server, whatever goes wrong between the two."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from storekeep.actions import HttpOrders
from storekeep.config import OrderSystem as Setting
from storekeep.config import Settings
from storekeep.decisions import Receipt
from storekeep.errors import Misused, Permanent, Transient, Unknown
from storekeep.pipeline import opened
from tests import shop
from tests.contracts.order_system import Kind, OrderSystem
from tests.contracts.test_adapter import (
    AT,
    LATER,
    AdapterContract,
    Outside,
    answers_of,
    order,
    receipts,
)

PATIENCE = 1.0


class OwnSystem(Outside):
    """A retailer's own order system."""

    def __init__(self) -> None:
        self.system = OrderSystem()
        self._open: list[HttpOrders] = []
        self.adapter = self.again()

    def again(self) -> HttpOrders:
        return self.reach(self.system.url)

    def reach(self, url: str, **more: Any) -> HttpOrders:
        """The adapter for an address."""
        one = HttpOrders(Setting(url=url, timeout_seconds=PATIENCE, **more))
        self._open.append(one)
        return one

    def unreachable(self) -> HttpOrders:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return self.reach(f"http://127.0.0.1:{port}/lines")

    def breaks_off(self, moment: str) -> HttpOrders:
        self.system.fault("reset", "after" if moment.startswith("after") else "before", times=2)
        return self.again()

    def change(self, receipt: Receipt, what: str) -> None:
        line = self.system.lines[receipt.idempotency_key]
        values: dict[str, dict[str, object]] = {
            "quantity": {"ordered_units": line["ordered_units"] + 1},
            "price": {"unit_cost_minor": line["unit_cost_minor"] + 1},
            "cancellation": {"cancelled": True},
        }
        self.system.change(receipt.idempotency_key, **values[what])

    def arrive(self, receipt: Receipt) -> None:
        units = self.system.lines[receipt.idempotency_key]["ordered_units"]
        self.system.change(receipt.idempotency_key, received_units=units)

    def objects(self) -> int:
        return self.system.objects()

    def refuse(self, sku: str) -> None:
        self.system.refused.add(sku)

    def end(self) -> None:
        """Give everything back."""
        for each in self._open:
            each.close()
        self.system.__exit__()


@pytest.fixture
def outside() -> Iterator[OwnSystem]:
    one = OwnSystem()
    yield one
    one.end()


class TestHttpOrders(AdapterContract):
    @pytest.fixture
    def outside(self) -> Iterator[OwnSystem]:
        one = OwnSystem()
        yield one
        one.end()


# What goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "when", "means", "done"),
    [
        ("429", "before", Transient, False),
        ("500", "before", Transient, False),
        ("500", "after", Transient, True),
        ("401", "before", Transient, False),
        ("reset", "before", Unknown, False),
        ("reset", "after", Unknown, True),
        ("hang", "after", Unknown, True),
        ("garbage", "after", Unknown, True),
        ("drip", "after", Unknown, True),
    ],
)
def test_a_fault_of_a_write_says_whether_to_send_again_or_to_look_first(
    kind: Kind, when: Any, means: type[Exception], done: bool, outside: OwnSystem
) -> None:
    wanted = [order("bread"), order("salt")]
    outside.system.fault(kind, when, sku="salt")
    answers = outside.adapter.execute(wanted, AT)
    assert isinstance(answers[0], Receipt)
    assert isinstance(answers[1], means), answers
    found = outside.adapter.find([each.decision_id for each in wanted])
    assert (wanted[1].decision_id in found) is done
    receipts(outside.adapter.execute(wanted, LATER))
    assert outside.system.placed == {each.decision_id: 1 for each in wanted}


@pytest.mark.parametrize("kind", ["500", "reset", "hang", "429"])
def test_a_fault_of_a_look_is_transient(kind: Kind, outside: OwnSystem) -> None:
    done = receipts(outside.adapter.execute([order()], AT))
    outside.system.fault(kind, method="GET")
    with pytest.raises(Transient):
        outside.adapter.find([done[0].idempotency_key])
    assert outside.adapter.find([done[0].idempotency_key])


def test_a_look_that_finds_what_does_not_read_is_not_taken_for_nothing(outside: OwnSystem) -> None:
    done = receipts(outside.adapter.execute([order()], AT))
    outside.system.fault("garbage", method="GET")
    with pytest.raises(Permanent, match="does not read: it is not JSON"):
        outside.adapter.find([done[0].idempotency_key])


def test_a_slow_answer_is_waited_for(outside: OwnSystem) -> None:
    outside.system.fault("slow")
    receipts(outside.adapter.execute([order()], AT))
    assert outside.objects() == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-1"}, 0.0),
    ],
)
def test_a_system_that_names_a_time_is_not_asked_before(
    headers: dict[str, str], seconds: float, outside: OwnSystem
) -> None:
    outside.system.fault("429", "before", headers=headers)
    (answer,) = outside.adapter.execute([order()], AT)
    assert isinstance(answer, Transient)
    assert answer.after_seconds == seconds


def test_a_time_of_day_is_told_by_the_clock_of_the_system(outside: OwnSystem) -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 90))
    outside.system.fault("429", "before", headers={"Retry-After": later})
    (answer,) = outside.adapter.execute([order()], AT)
    assert isinstance(answer, Transient)
    assert 85 <= answer.after_seconds <= 95


def test_a_redirect_is_not_followed(outside: OwnSystem) -> None:
    outside.system.fault("302", "before", headers={"Location": "http://127.0.0.1:1/"})
    (answer,) = outside.adapter.execute([order()], AT)
    assert isinstance(answer, str)
    assert "302" in answer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reference": ""}, "reference: "),
        ({"idempotency_key": str(uuid4())}, "another line"),
        ({"ordered_units": "twelve"}, "ordered_units: "),
        ({"ordered_units": None}, "ordered_units: "),
    ],
)
def test_an_answer_of_another_shape_does_not_pass_for_a_receipt(
    change: dict[str, object], said: str, outside: OwnSystem
) -> None:
    done = receipts(outside.adapter.execute([order()], AT))
    outside.system.change(done[0].idempotency_key, **change)
    with pytest.raises(Permanent, match=said):
        outside.adapter.find([done[0].idempotency_key])


def test_a_change_between_the_look_and_the_cancellation_is_seen(outside: OwnSystem) -> None:
    """The version that was looked at is the one that is cancelled, or none is."""
    done = receipts(outside.adapter.execute([order()], AT))
    seen = outside.adapter._seen(done[0].idempotency_key)  # type: ignore[attr-defined]  # what HttpOrders saw
    assert seen is not None
    outside.system.change(done[0].idempotency_key, received_units=12)
    outside.adapter._seen = lambda _: seen  # type: ignore[attr-defined]  # it looked a moment too early
    (answer,) = outside.adapter.compensate(done, LATER)
    assert isinstance(answer, str)
    assert "changed" in answer
    assert outside.objects() == 1


def test_orders_of_many_lines_travel_several_at_once() -> None:
    with OrderSystem(pause_seconds=0.05) as system:
        adapter = HttpOrders(Setting(url=system.url))
        begun = time.monotonic()
        receipts(adapter.execute([order(f"sku {number}") for number in range(40)], AT))
        taken = time.monotonic() - begun
        adapter.close()
    assert taken < 40 * 0.05 / 2


# Who asks -----------------------------------------------------------------------------------------------


def test_the_token_is_sent_and_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    with OrderSystem(token="tell-nobody") as system:
        (tmp_path / "token").write_text("tell-nobody\n")
        monkeypatch.setenv("ERP_TOKEN", "tell-nobody")
        monkeypatch.setenv("WRONG_TOKEN", "tell-nobody-either")
        said = []
        for named in (
            {"token_file": tmp_path / "token"},
            {"token_env": "ERP_TOKEN"},
            {"token_env": "WRONG_TOKEN"},
            {},
        ):
            adapter = HttpOrders(Setting(url=system.url, **named))
            said += answers_of(lambda one=adapter: one.execute([order()], AT), 1)  # type: ignore[misc]  # a default binds it
            adapter.close()
    assert [type(each) for each in said] == [Receipt, Receipt, Transient, Transient]
    assert "tell-nobody" not in caplog.text + repr(said) + repr(Setting(url=system.url, **named))


def test_a_token_that_is_not_there_stops_everything_before_anything_is_sent(
    outside: OwnSystem,
) -> None:
    adapter = outside.reach(outside.system.url, token_env="NO_SUCH_TOKEN")
    with pytest.raises(Misused, match="put it in variable NO_SUCH_TOKEN"):
        adapter.execute([order()], AT)
    assert not outside.system.asked


@pytest.mark.parametrize(
    "values",
    [
        {"url": "ftp://erp"},
        {"url": "https://user:secret@erp/lines"},
        {"url": "https:///lines"},
        {"url": "http://erp/lines", "token_env": "T"},
        {"url": "https://erp/lines", "token_env": "T", "token_file": "/t"},
        {"url": "https://erp/lines", "timeout_seconds": 0},
        {"url": "https://erp/lines", "colour": "blue"},
    ],
)
def test_a_system_that_cannot_be_meant_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Setting(**values)


# In the pipeline ----------------------------------------------------------------------------------------


def named(home: Settings, system: OrderSystem, purpose: str = "PlacePurchaseOrder") -> Settings:
    setting = Setting(url=system.url, timeout_seconds=PATIENCE)
    return shop.new_tenant(home).model_copy(update={"adapters": {purpose: setting}})


def test_the_settings_say_which_system_carries_out_an_action(home_settings: Settings) -> None:
    with OrderSystem() as system, opened(named(home_settings, system)) as pipeline:
        assert isinstance(pipeline.adapters["PlacePurchaseOrder"], HttpOrders)


def test_what_is_only_played_is_sent_to_nobody(home_settings: Settings) -> None:
    with OrderSystem() as system:
        home = named(home_settings, system)
        for purpose in ("demo", "live"):
            # A tenant that a demonstration made stays one.
            with opened(home, purpose=purpose) as pipeline:
                assert not isinstance(pipeline.adapters["PlacePurchaseOrder"], HttpOrders)


def test_an_action_that_there_is_not_is_refused(home_settings: Settings) -> None:
    with (
        OrderSystem() as system,
        pytest.raises(Misused, match="'adapters' names Dance, which is no action"),
        opened(named(home_settings, system, "Dance")),
    ):
        pass
