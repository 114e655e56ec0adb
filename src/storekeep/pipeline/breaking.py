"""Circuit breakers: who does not work is left alone for a while, then tried with little.

One for each outside system (`adapter/NAME`) and one for each agent (`agent/NAME`). Hides their states, and
that all workers share them: they follow the database's clock, and every change of state is a ledger entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from storekeep import ledger, watch
from storekeep.decisions import decision_ids, stamp
from storekeep.errors import Refused
from storekeep.ledger import Entry
from storekeep.pipeline.deciding import Deciding
from storekeep.policy.rulebook import Breaker as Thresholds
from storekeep.store import Task, Transaction

COMPENSATE = "compensate:"
Heard = str | None
"""What was heard of one call or decision: why it failed, or None when it did not."""


class State(StrEnum):
    """What a breaker lets through: everything, nothing, or a few to see whether it works again."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class Breaker:
    """A breaker at one moment.

    `failed_at`: the failures since anything last went well. `try_at`: when probes may be sent; those of a
    worker that died are sent again then.
    """

    name: str
    state: str = State.CLOSED
    since: datetime | None = None
    why: str = ""
    failed_at: tuple[datetime, ...] = ()
    try_at: datetime | None = None

    def allows(self, at: datetime, most: int, terms: Thresholds) -> int:
        """How many of `most` actions may be sent now."""
        if self.state == State.CLOSED:
            return most
        return min(most, terms.probes) if self.try_at is None or at >= self.try_at else 0

    def probed(self, at: datetime, terms: Thresholds) -> Breaker:
        """As it is once probes are under way."""
        if self.state == State.CLOSED:
            return self
        since = self.since if self.state == State.HALF_OPEN else at
        return replace(self, state=State.HALF_OPEN, since=since, try_at=at + terms.open_for)

    def heard(self, said: Sequence[Heard], at: datetime, terms: Thresholds) -> Breaker:
        """As it is after so many calls, in order; of probes each has to go well."""
        if self.state == State.OPEN or not said:
            # What was under way when it opened says nothing new.
            return self
        if self.state == State.HALF_OPEN:
            why = next((each for each in said if each is not None), None)
            return self._closed(at) if why is None else self._opened(why, at, terms)
        failed = tuple(time for time in self.failed_at if time > at - terms.within)
        for each in said:
            failed = () if each is None else (*failed, at)
            if each is not None and len(failed) >= terms.failures:
                return self._opened(each, at, terms)
        return replace(self, failed_at=failed)

    def _opened(self, why: str, at: datetime, terms: Thresholds) -> Breaker:
        return Breaker(self.name, State.OPEN, at, why, try_at=at + terms.open_for)

    def _closed(self, at: datetime) -> Breaker:
        return Breaker(self.name, State.CLOSED, at, "it works again")


class Breaking(Deciding):
    """What may be sent, and what was heard of it."""

    def breakers(self) -> list[dict[str, Any]]:
        """The breakers that have ever had a failure."""
        with self.store.transaction(self.tenant) as tx:
            return [asdict(_read(row)) for row in tx.breakers()]

    def reset_breaker(self, name: str, by: str, reason: str) -> None:
        """A person closes a breaker: what waits is sent again at once."""
        with self.store.transaction(self.tenant) as tx:
            found = [_read(row) for row in tx.breakers([name], lock=True)]
            if not found or found[0].state == State.CLOSED:
                raise Refused(f"no breaker {name} is open; see `storekeep breakers list`")
            closed = Breaker(name, State.CLOSED, tx.now(), reason)
            self._move_breaker(tx, found[0], closed, by)

    def _lease(self, kind: tuple[str, str | None], most: int) -> list[Task]:
        """Take pending actions of a kind, as many as the breakers of its adapter and agent let through.

        What is taken back is not kept from it by the breaker of the agent that proposed it.
        """
        action, agent = kind
        adapter = self._adapter(action.removeprefix(COMPENSATE))
        names = [f"adapter/{adapter.name}"]
        names += [] if action.startswith(COMPENSATE) else [f"agent/{agent}"]
        most = min(most, adapter.most_orders)
        with self.store.transaction(self.tenant) as tx:
            rows = tx.breakers(names)
            if any(row["state"] != State.CLOSED for row in rows):
                rows = tx.breakers(names, lock=True)
            known = [_read(row) for row in rows]
            terms, at = self._thresholds(tx, agent), tx.now()
            most = min([most, *(each.allows(at, most, terms) for each in known)])
            tasks = tx.lease_tasks(self.worker, most, self.lease, kind, self.now()) if most else []
            if tasks:
                for each in known:
                    self._move_breaker(tx, each, each.probed(at, terms))
            return tasks

    def _hear(self, name: str, agent: str | None, said: Sequence[Heard]) -> None:
        """Let a breaker know what came of an agent's calls or decisions, in order."""
        if not said:
            return
        with self.store.transaction(self.tenant) as tx:
            rows = tx.breakers([name])
            calm = not rows or (rows[0]["state"] == State.CLOSED and not rows[0]["failed_at"])
            if calm and all(each is None for each in said):
                return
            tx.add_breaker(name)
            was = _read(tx.breakers([name], lock=True)[0])
            self._move_breaker(tx, was, was.heard(said, tx.now(), self._thresholds(tx, agent)))

    def _move_breaker(
        self, tx: Transaction, was: Breaker, now: Breaker, by: str = "storekeep"
    ) -> None:
        """Keep a breaker as it is now; a change of its state is recorded and told."""
        if now == was:
            return
        tx.set_breaker(asdict(now))
        if now.state == was.state:
            return
        body = {"name": now.name, "from": was.state, "to": now.state, "reason": now.why}
        entry = Entry("breaker", {**body, "by": by, "at": stamp(self.now())})
        seed = f"{now.name}/{tx.ledger_head()[0]}"
        batch_id = decision_ids(self.now(), f"{self.tenant}/breaker", [seed])[0]
        ledger.append(
            tx, ledger.rows([entry]), batch_id=batch_id, at=self.now(), signing=self.signing
        )
        watch.breaker(now.name, self.tenant, now.state, now.why)

    def _thresholds(self, tx: Transaction, agent: str | None) -> Thresholds:
        """What the rulebook of the agent says, whose actions are sent or were."""
        return Thresholds() if agent is None else self.rulebook(tx, agent).content.breaker


def _read(row: Mapping[str, Any]) -> Breaker:
    return Breaker(**{**row, "failed_at": tuple(row["failed_at"])})
