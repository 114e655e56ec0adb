"""A worker is killed between any two steps and inside them, and started again: there is one effect of each.

The same two days are played undisturbed, and by workers that die wherever one can die. After each step both
shops must be the same in all that can be told apart: stock, orders, decisions, events, ledger, history.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storekeep.config import Settings
from tests import shop

pytestmark = pytest.mark.crash

ROOT = Path(__file__).parents[2]
STEPS = [name for name, _ in shop.script(shop.Shop(None, shop.Clock()))]  # type: ignore[arg-type]  # only their names
# Between them they are every kind of step there is.
DEADLY = [
    name
    for name in STEPS
    if name.startswith("Mon") or name in ("Tue deliver", "take back", "propose again", "keep")
]
TURNS = 4
INSTANTS = 40
MOST_DEATHS = 1000


class Worker:
    """Whom to tell which steps to carry out, and when to die."""

    def __init__(self, home: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker", str(home)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(
        self,
        tenant: str,
        begin: str,
        *,
        until: str = STEPS[-1],
        within: Sequence[str] = STEPS,
        states: bool = False,
        **how: Any,
    ) -> dict[str, Any]:
        """Let steps be carried out by a worker of its own; what it said until it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"begin": begin, "until": until, "within": within, "states": states, **how}
        self._process.stdin.write(json.dumps({"tenant": tenant, **command}) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert not said["failed"], f"a step after {list(said['done'])} failed; stderr says how"
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
def calm(worker: Worker) -> dict[str, dict[str, Any]]:
    """What each step comes by, and the state it leaves, when nobody dies."""
    done: dict[str, dict[str, Any]] = worker.ask(new_tenant(), STEPS[0], states=True)["done"]
    return done


def new_tenant() -> str:
    return f"t{uuid4().hex[:12]}"


def after(step: str) -> str:
    return STEPS[min(STEPS.index(step) + 1, len(STEPS) - 1)]


def agree(state: dict[str, Any], wanted: dict[str, Any], when: str) -> None:
    """Both shops are the same."""
    differ = {name: [state[name], wanted[name]] for name in wanted if state[name] != wanted[name]}
    assert not differ, f"{when}: {shop.same_text(differ)}"


def test_the_days_have_every_kind_of_step(calm: dict[str, dict[str, Any]]) -> None:
    assert list(calm) == STEPS
    last = calm[STEPS[-1]]["state"]
    first_steps = {steps[0] for steps in last["steps"].values()}
    assert first_steps == {"allow", "clip", "escalate", "deny", "hold"}
    assert last["entries"] == {"decision": 7, "approval": 1, "outcome": 5, "reversal": 2}
    assert last["orders"] == [
        ["bread 66 66 open", "salt 48 48 open"],
        ["milk 110 0 cancelled"],
        ["milk 110 0 open"],
        ["wine 30 30 open"],
    ]
    assert last["ledger_ok"]
    assert last["pending"] == 0
    assert all(told["state"]["history_as_logged"] for told in calm.values())
    places = " ".join(moment for step in calm.values() for moment in step["moments"])
    for place in (
        *("start of storekeep.decide", "end of storekeep.act", "after the write of lake._write"),
        *("after the end of connection.transaction", "after the end of back_office._transaction"),
    ):
        assert place in places


def test_a_worker_that_dies_at_every_moment(
    worker: Worker, calm: dict[str, dict[str, Any]]
) -> None:
    """Each worker dies one moment later than those before it, until one gets to the end.

    So each also meets what all the others left half done, and dies in mending it.
    """
    tenant, begin, passed = new_tenant(), STEPS[0], list[str]()
    while True:
        said = worker.ask(tenant, begin, within=DEADLY, states=True, passed=passed)
        for step, told in said["done"].items():
            agree(told["state"], calm[step]["state"], f"after {step}, died at {passed[-20:]}")
            begin = after(step)
        if said["died_at"] is None:
            break
        passed.append(said["died_at"])
        assert len(passed) < MOST_DEATHS
    meant = {moment for step in DEADLY for moment in calm[step]["moments"]}
    # What was done before the worker died is not come by again.
    assert len(meant - set(passed)) < len(meant) / 4
    assert len(passed) > 150


@pytest.mark.parametrize("turn", range(TURNS))
def test_a_worker_that_dies_after_one_effect_of_each_step(
    worker: Worker, calm: dict[str, dict[str, Any]], turn: int
) -> None:
    """Between the turns a worker has died, alone, after each thing that a step left behind it."""
    tenant, begin = new_tenant(), STEPS[0]
    meant: list[str] = []
    for step in STEPS:
        effects = [moment for moment in calm[step]["moments"] if ": after" in moment]
        meant += effects[turn::TURNS]
    died: list[str] = []
    while True:
        said = worker.ask(tenant, begin, at=sorted(set(meant) - set(died)))
        begin = after(list(said["done"])[-1]) if said["done"] else begin
        if said["died_at"] is None:
            break
        died.append(said["died_at"])
    last = worker.ask(tenant, STEPS[-1], states=True)["done"][STEPS[-1]]["state"]
    agree(last, calm[STEPS[-1]]["state"], f"died at {died}")
    assert len(died) >= TURNS


def test_a_worker_that_is_killed_at_any_instant(
    worker: Worker, calm: dict[str, dict[str, Any]]
) -> None:
    """Also inside what others carry out for it, such as a commit or the write of a history table."""
    tenant, begin, state, killed = new_tenant(), STEPS[0], None, 0
    for number in range(INSTANTS):
        # The golden section spreads the instants evenly over a third of a second, however many there are.
        said = worker.ask(tenant, begin, states=True, after=number * 0.618 % 1 / 3)
        killed += said["died_at"] is not None
        for step, told in said["done"].items():
            state = told["state"]
            agree(state, calm[step]["state"], f"after {step}, killed {killed} times")
            begin = after(step)
    said = worker.ask(tenant, begin, states=True)
    agree(said["done"][STEPS[-1]]["state"], calm[STEPS[-1]]["state"], f"killed {killed} times")
    assert killed > INSTANTS // 3
