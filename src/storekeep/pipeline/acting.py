"""What was decided is done in the outside systems, each thing once.

Hides leases, what is tried again and when, and what is looked up before it is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

from storekeep import ledger
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
    Adapter,
    Answer,
    Order,
    arrivals,
)
from storekeep.decisions import Receipt, Status, stamp
from storekeep.errors import InvariantBroken, Permanent, Transient, Unknown
from storekeep.ledger import Entry
from storekeep.pipeline.breaking import COMPENSATE, Breaking, Heard
from storekeep.pipeline.trying import MOST_ATTEMPTS, renewed, wait_seconds
from storekeep.store import Task, Transaction
from storekeep.watch import stage

_FREED = frozenset({"failed", "expired", "compensated"})
_OVER = frozenset({Status.REVERTED, Status.EXPIRED, Status.FAILED, Status.DROPPED})
_Thing = TypeVar("_Thing", Order, Receipt)


@dataclass
class _Came:
    """What came of a batch of pending actions, by decision: its end, or why it is tried again."""

    ends: dict[str, tuple[str, Receipt | str]] = field(default_factory=dict)
    again: dict[str, Transient | Unknown] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)

    def take(self, key: str, answer: Answer, good: str, bad: str) -> None:
        """One order's answer."""
        if isinstance(answer, Transient | Unknown):
            self.again[key] = answer
        else:
            self.ends[key] = (good if isinstance(answer, Receipt) else bad, answer)


class Acting(Breaking):
    """From pending actions to outcomes."""

    def act(self, limit: int = 200, stop: Callable[[], bool] = lambda: False) -> int:
        """Carry out pending actions that are due; how many came to an end, well or badly.

        Between two batches of at most `limit` it asks whether to `stop`.
        """
        done = self.expire()
        with self.store.transaction(self.tenant) as tx:
            kinds = tx.due_kinds()
        for kind in kinds:
            while not stop() and (tasks := self._lease(kind, limit)):
                with stage("act", self.tenant, action=kind[0]) as watched:
                    watched.rows = self._act(kind, tasks)
                    done += watched.rows
        return done

    def expire(self) -> int:
        """Actions that nobody began in time will not be done: the safe default stands; how many."""
        with stage("expire", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            late = {task.decision_id: task for task in tx.late_tasks(self.now())}
            statuses = tx.lock_decisions(list(late))
            gone = sorted(tx.drop_tasks(list(late), unbegun=True))
            ends = {key: ("expired", self._too_late(late[key])) for key in gone}
            self._end(tx, "outcome", [_order(late[key]) for key in gone], ends, statuses)
            watched.rows = len(gone)
        return len(gone)

    def _act(self, kind: tuple[str, str | None], tasks: Sequence[Task]) -> int:
        action, agent = kind
        reverting = action.startswith(COMPENSATE)
        adapter = self._adapter(action.removeprefix(COMPENSATE))
        keys = [task.decision_id for task in tasks]
        with renewed(self.store, self.tenant, self.worker, keys, self.lease):
            came = self._take_back(adapter, tasks) if reverting else self._place(adapter, tasks)
        given_up = self._give_up(tasks, came, "needs_person" if reverting else "failed")
        self._postpone(tasks, came.again)
        self._settle(action, tasks, came.ends, set() if reverting else given_up)
        self._hear(f"adapter/{adapter.name}", agent, came.heard)
        if not reverting:
            told = [each for each in came.ends.values() if each[0] in ("executed", "failed")]
            failed = [str(said) if end == "failed" else None for end, said in told]
            self._hear(f"agent/{agent}", agent, failed)
        return len(came.ends)

    def _place(self, adapter: Adapter, tasks: Sequence[Task]) -> _Came:
        """Place orders; what somebody may have placed already is looked up before anything is sent."""
        came = _Came()
        answers: dict[str, Answer] = {}
        begun = [task.decision_id for task in tasks if task.begun]
        looked = self._look(adapter, begun, answers)
        for task in tasks:
            late = task.expires_at is not None and task.expires_at <= self.now()
            if late and task.decision_id not in answers:
                came.ends[task.decision_id] = ("expired", self._too_late(task))
        settled = answers.keys() | came.ends.keys()
        fresh = [_order(task) for task in tasks if task.decision_id not in settled]
        sent = _send(lambda orders: adapter.execute(orders, self.now()), fresh)
        # That it can be asked does not show that it can be written to.
        came.heard = [each for each in looked if each or not sent] + _heard(sent)
        came_back = {order.decision_id: each for order, each in zip(fresh, sent, strict=True)}
        answers |= came_back
        unsure = [key for key, answer in came_back.items() if isinstance(answer, Unknown)]
        self._look(adapter, unsure, answers)
        for key, answer in answers.items():
            came.take(key, _still_there(answer), "executed", "failed")
        return came

    def _look(
        self, adapter: Adapter, keys: Sequence[str], answers: dict[str, Answer]
    ) -> list[Heard]:
        """Add what was done under keys to the answers, or that this cannot be told; how the system did."""
        if not keys:
            return []
        try:
            answers |= adapter.find(keys)
        except (Transient, Unknown, Permanent) as error:
            if isinstance(error, Permanent) and len(keys) > 1:
                return [each for key in keys for each in self._look(adapter, [key], answers)]
            said = f"it may have been done, and cannot be looked up: {error}"
            answers |= dict.fromkeys(keys, Unknown(said))
            return [said]
        return [None]

    def _take_back(self, adapter: Adapter, tasks: Sequence[Task]) -> _Came:
        """Compensate what receipts stand for; an adapter itself looks before it does that again."""
        with self.store.transaction(self.tenant) as tx:
            steps = ledger.steps(tx, [task.decision_id for task in tasks])
        # The receipts of then: what was changed since is not touched.
        receipts = [ledger.receipt_of(steps[task.decision_id]) for task in tasks]
        sent = _send(lambda them: adapter.compensate(them, self.now()), receipts)
        came = _Came(heard=_heard(sent))
        for task, answer in zip(tasks, sent, strict=True):
            came.take(task.decision_id, answer, "compensated", "needs_person")
        return came

    def _give_up(self, tasks: Sequence[Task], came: _Came, bad: str) -> set[str]:
        """What was tried often enough ends; which decisions those are.

        One that had been given up before, and is only looked up since it expires, is not given up again.
        """
        given_up = set()
        for task in tasks:
            error = came.again.get(task.decision_id)
            if error is not None and task.attempts >= MOST_ATTEMPTS and not task.dead:
                said = f"gave up after {task.attempts} attempts: {error}"
                came.ends[task.decision_id] = (bad, said)
                del came.again[task.decision_id]
                given_up.add(task.decision_id)
        return given_up

    def _postpone(self, tasks: Sequence[Task], again: Mapping[str, Transient | Unknown]) -> None:
        """Give back what is to be tried again; the lines of one order wait together."""
        if not again:
            return
        draws: dict[str, float] = {}
        waits = {}
        for task in tasks:
            if (error := again.get(task.decision_id)) is not None:
                if task.group not in draws:
                    draws[task.group] = self.draw()
                seconds = wait_seconds(task.attempts, draws[task.group], error)
                waits[task.decision_id] = timedelta(seconds=seconds)
        with self.store.transaction(self.tenant) as tx:
            tx.postpone_tasks(waits)

    def _settle(
        self,
        action: str,
        tasks: Sequence[Task],
        ends: Mapping[str, tuple[str, Receipt | str]],
        given_up: AbstractSet[str],
    ) -> None:
        """Record what came of pending actions, tell the bus, and take them off the list.

        An action that is on the list no more was taken over when our lease had run out, and recorded then.
        One that was given up stays, for a person to say whether it is tried anew or dropped; until then it
        may have been done, so it keeps what it took from limits and counts as on its way.
        """
        if not ends:
            return
        reverting = action.startswith(COMPENSATE)
        orders = [_order(task) for task in tasks if task.decision_id in ends]
        with self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions([order.decision_id for order in orders])
            held = tx.drop_tasks(sorted(ends.keys() - given_up))
            held |= tx.bury_tasks(sorted(given_up), self.now())
            mine = [order for order in orders if order.decision_id in held]
            self._end(tx, "reversal" if reverting else "outcome", mine, ends, statuses, given_up)
        if not reverting:
            gone = {key for key in ends if key not in held and statuses.get(key) in _OVER}
            late = [answer for _, answer in ends.values() if isinstance(answer, Receipt)]
            self._undo(action, [each for each in late if each.idempotency_key in gone])

    def _end(
        self,
        tx: Transaction,
        kind: str,
        orders: Sequence[Order],
        ends: Mapping[str, tuple[str, Receipt | str]],
        statuses: Mapping[str, str],
        kept: AbstractSet[str] = frozenset(),
    ) -> None:
        """Record the ends of orders, give limits back, and tell the bus, but for those that are `kept`."""
        if not orders:
            return
        told = [(order, *ends[order.decision_id]) for order in orders]
        entries = []
        for order, end, result in told:
            said = ledger.outcome(result, self.now())
            if order.decision_id in kept:
                said = {**said, "given_up": True}
            entries.append(Entry(kind, said, order.decision_id, end))
        final = [each for each in told if each[0].decision_id not in kept]
        tx.drop_uses([order.decision_id for order, end, _ in final if end in _FREED])
        self._append_entries(tx, entries, statuses)
        self._tell(tx, final)

    def _undo(self, action: str, late: Sequence[Receipt]) -> None:
        """Take back what was done after its decision had come to nothing, our lease having run out."""
        if not late:
            return
        for was, now in zip(late, self._adapter(action).compensate(late, self.now()), strict=True):
            if not isinstance(now, Receipt):
                raise InvariantBroken(
                    f"{was.reference} was placed although decision {was.idempotency_key} had come to "
                    f"nothing, and cannot be taken back: {now}; see to it in {was.adapter}"
                )

    def _too_late(self, task: Task) -> str:
        until = stamp(task.expires_at or self.now())
        return f"it was not carried out until {until}; the safe default stands"

    def receive(self, decision_ids_: Sequence[str]) -> int:
        """Goods of confirmed lines arrived, as the back office says; of how many lines that was news."""
        adapter = self._adapter(PLACE_PURCHASE_ORDER.name)
        found = adapter.find(decision_ids_).values()
        return sum(
            self.publish("GoodsReceived", adapter.name, location_id, facts)
            for location_id, facts in arrivals(found, self.now()).items()
        )


def _order(task: Task) -> Order:
    return Order(task.decision_id, task.group, json.loads(task.task))


def _send(
    call: Callable[[Sequence[_Thing]], Sequence[Answer]], things: Sequence[_Thing]
) -> list[Answer]:
    """An answer for each thing; what was raised for all of them is the answer of each."""
    if not things:
        return []
    try:
        return list(call(things))
    except (Transient, Unknown) as error:
        return [error] * len(things)
    except Permanent as error:
        if len(things) > 1:
            # One that cannot be done must not keep the others from it.
            return [answer for thing in things for answer in _send(call, [thing])]
        return [str(error)]


def _heard(answers: Sequence[Answer]) -> list[Heard]:
    """What the answers tell of the system that gave them; one error for a whole batch is one failure."""
    alone = [now for was, now in pairwise([None, *answers]) if now is not was]
    return [str(each) if isinstance(each, Transient | Unknown) else None for each in alone]


def _still_there(answer: Answer) -> Answer:
    """What somebody took back meanwhile under our key is not done, and cannot be done again under it."""
    if isinstance(answer, Receipt) and answer.details.get("cancelled"):
        return f"{answer.reference} was cancelled in {answer.adapter} before it was recorded"
    return answer
