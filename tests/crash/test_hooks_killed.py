"""Server and worker are killed between a webhook's answer and its facts: each counts once all the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from storekeep.config import Settings
from storekeep.store import Store
from tests import hooks, shop
from tests.hooks import line, order, refund, served
from tests.unit.test_hearing import arrive, at_home, hear, lines, of_shop, stands

pytestmark = [pytest.mark.crash, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
# Makes facts of what came, and dies before or after its so-manieth write.
CHILD = """
import sys
from collections import Counter
from datetime import timedelta
from storekeep import bus, lake
from storekeep.config import Settings
from storekeep.pipeline import opened
from storekeep.store import Transaction
from tests import hooks
from tests.dying import counted, die_at
home, tenant, left = sys.argv[1:]
die_at(int(left))
bus.append, lake.Lake.append = counted(bus.append), counted(lake.Lake.append)
Transaction.restate = counted(Transaction.restate)
Transaction.end_arrivals = counted(Transaction.end_arrivals)
own = Settings(home=home, tenant=tenant, web_shops=hooks.SHOPS)
with opened(own, now=lambda: hooks.MADE + timedelta(days=1)) as pipeline, pipeline.store.again() as beside:
    pipeline.hear(beside, Counter())
"""


def test_what_was_answered_is_there_when_the_server_is_killed(
    home_settings: Settings, store: Store
) -> None:
    home = shop.new_tenant(home_settings).model_copy(update={"web_shops": hooks.SHOPS})
    answered: list[str] = []

    def send(number: int) -> None:
        try:
            if one.hook(order(number, line(1)), delivery_id=f"d{number}").status_code == 200:
                answered.append(f"d{number}")
        except httpx.TransportError:
            pass

    with served(home) as one, ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, number) for number in range(1, 400)]
        while len(answered) < 40:
            assert not all(each.done() for each in sent)
        one.process.send_signal(signal.SIGKILL)
        one.process.wait(20)
    with store.transaction(home.tenant) as tx:
        kept = {row["delivery_id"] for row in tx._run("SELECT delivery_id FROM webhook_delivery")}
    assert set(answered) <= kept
    assert len(answered) >= 40


@pytest.mark.parametrize("left", [1, 4, 7])
def test_facts_are_made_once_wherever_the_worker_dies(home_settings: Settings, left: int) -> None:
    home = shop.new_tenant(home_settings).model_copy(update={"web_shops": hooks.SHOPS})
    first = line(11, "apple", 3)
    with at_home(home) as pipeline:
        arrive(
            pipeline,
            of_shop("orders/create", order(1, first)),
            of_shop("orders/updated", order(1, {**first, "quantity": 5}, minutes=5)),
            of_shop("refunds/create", {**refund(7, first, 1), "order_id": 1}),
        )
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(home.home), home.tenant, str(left)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert child.returncode in (0, -signal.SIGKILL), child.stderr
        hear(pipeline)
        hear(pipeline)
        assert lines(pipeline) == {
            ("1", "apple", "09:30"): (5, 1250),
            ("1", "apple", "10:00"): (-1, -250),
        }
        assert stands(pipeline)["shop"].total() == 3
        assert json.dumps(dict(stands(pipeline)["shop"])) == '{"taken": 3}'
