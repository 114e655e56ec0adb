"""A worker is killed between any two steps and inside them, and started again: there is one effect of each.

The same two days are played twice: once undisturbed, once by a worker that dies wherever it can die. After
each step both shops must be the same in all that can be told apart: stock, orders, decisions, events, ledger,
history.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storekeep.config import Settings
from tests import shop

pytestmark = pytest.mark.crash

ROOT = Path(__file__).parents[2]
STEPS = tuple(name for name, _ in shop.script(shop.Shop(None, shop.Clock())))  # type: ignore[arg-type]  # only their names
MOST_ATTEMPTS = 400


class Worker:
    """Whom to tell which step to carry out, and when to die."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker", str(home)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, tenant: str, step: str, **how: Any) -> dict[str, Any]:
        """Let a step be carried out by a worker of its own; what it said until it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"tenant": tenant, "step": step, "state": True, **how}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert not said["failed"], f"{step} failed; what it said stands above"
        return said

    def end(self) -> None:
        """Let it go."""
        self._process.communicate()


@pytest.fixture(scope="module")
def worker(home_settings: Settings) -> Iterator[Worker]:
    one = Worker(home_settings.home)
    yield one
    one.end()


@pytest.fixture(scope="module")
def undisturbed(worker: Worker) -> dict[str, dict[str, Any]]:
    """What each step says, and the state it leaves, when nobody dies."""
    tenant = f"calm{uuid4().hex[:8]}"
    return {step: worker.ask(tenant, step) for step in STEPS}


def agree(state: dict[str, Any], wanted: dict[str, Any], when: str) -> None:
    """Both shops are the same."""
    differ = {name: [state[name], wanted[name]] for name in wanted if state[name] != wanted[name]}
    assert not differ, f"{when}: {shop.same_text(differ)}"


def test_the_days_have_every_kind_of_step(undisturbed: dict[str, dict[str, Any]]) -> None:
    last = undisturbed[STEPS[-1]]["state"]
    assert {steps[0] for steps in last["steps"].values()} == {
        *("allow", "clip", "escalate", "deny", "hold"),
    }
    assert last["entries"] == {"decision": 6, "approval": 1, "outcome": 4, "reversal": 2}
    assert last["orders"] == [
        ["bread 66 66 open", "salt 48 48 open"],
        ["milk 110 0 cancelled"],
        ["wine 30 30 open"],
    ]
    assert last["ledger_ok"]
    assert last["pending"] == 0
    assert all(rows == apart for rows, apart in last["lake"].values())
    moments = {name for step in undisturbed.values() for name in step["moments"]}
    for kind in ("start of storekeep.decide", "end of storekeep.act", "after the write of lake._write", "after the end of store.transaction"):
        assert any(name.startswith(kind) for name in moments), kind


def test_a_worker_that_dies_at_every_moment_of_every_step(
    worker: Worker, undisturbed: dict[str, dict[str, Any]]
) -> None:
    """Each attempt dies one moment later than those before it, until one gets to the end.

    So each attempt also meets what all the others left half done, and dies in mending it.
    """
    tenant = f"dies{uuid4().hex[:8]}"
    died = 0
    for step in STEPS:
        passed: list[str] = []
        while (said := worker.ask(tenant, step, passed=passed))["died_at"] is not None:
            passed.append(said["died_at"])
            assert len(passed) < MOST_ATTEMPTS
        died += len(passed)
        assert set(undisturbed[step]["moments"]) <= set(passed)
        agree(said["state"], undisturbed[step]["state"], f"after {step}, died at {passed}")
    assert died > 600


@pytest.mark.parametrize("turn", range(8))
def test_a_worker_that_dies_once_in_each_step(
    worker: Worker, undisturbed: dict[str, dict[str, Any]], turn: int
) -> None:
    """Eight shops: between them a worker has died once, and only once, after each effect of each step."""
    tenant = f"once{uuid4().hex[:8]}"
    died = []
    for step in STEPS:
        moments = undisturbed[step]["moments"]
        effects = [name for name in moments if name.startswith(("after", "end"))]
        moment = effects[turn % len(effects)]
        first = worker.ask(tenant, step, at=moment)
        assert first["died_at"] == moment
        died.append(moment)
        last = worker.ask(tenant, step)
    agree(last["state"], undisturbed[STEPS[-1]]["state"], f"died at {died}")
