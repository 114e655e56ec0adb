"""Agents are woken by what a location reported; what they propose is judged and recorded.

Hides who listens to what, when an agent is due, and that a decision commits with all that follows from it.
Every event is answered: by a run of an agent, or by a note in the ledger that nobody listens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from storekeep import bus, ledger, policy, stock
from storekeep.actions import orders_goods
from storekeep.agents import replenish
from storekeep.decisions import Proposed, decision_ids, stamp
from storekeep.events import event
from storekeep.ledger import Batch, Entry, Terms, Wake
from storekeep.pipeline.answering import Answering
from storekeep.pipeline.recording import used_limits
from storekeep.store import Transaction, Unread
from storekeep.watch import stage

_NOBODY = "dispatch"


@dataclass(frozen=True)
class Run:
    """What one run of an agent came to."""

    batch_id: str
    evaluated: int
    verdicts: Mapping[str, int]
    agent: str
    mode: str


@dataclass(frozen=True)
class Due:
    """An agent that has something to hear of a location, and until when it has to have decided."""

    agent: str
    location_id: str
    priority: int
    deadline: datetime


class Deciding(Answering):
    """From evidence to recorded decisions."""

    def skip_to_present(self, location_id: str) -> None:
        """Let no agent wake for what has been reported so far, such as a history that was taken in."""
        partition = bus.partition_of(self.tenant, location_id)
        with self.store.transaction(self.tenant) as tx:
            head = tx.heads().get(partition, 0)
            for agent in self.agents:
                bus.advance(tx, _consumer(agent, location_id), partition, head)
            bus.advance(tx, _NOBODY, partition, head)

    def due(self) -> list[Due]:
        """What is to be decided now: the most important first, then what is due soonest."""
        found = []
        with self.store.transaction(self.tenant) as tx:
            dispatch, halts = self.dispatch_policy(tx), tx.halts()
            readers = {
                _consumer(listener.agent, location_id): (listener, location_id)
                for location_id in tx.subjects()
                for listener in dispatch.content.agents
                if not {"", listener.agent} & halts.keys()
            }
            unread = tx.unread_by(
                {
                    name: (bus.partition_of(self.tenant, location_id), location_id)
                    for name, (_, location_id) in readers.items()
                }
            )
        for name, rows in unread.items():
            listener, location_id = readers[name]
            since = _since(_wanted(dispatch, listener, rows))
            if since is not None and since + listener.window <= self.now():
                deadline = since + listener.deadline
                found.append(Due(listener.agent, location_id, listener.priority, deadline))
        return sorted(found, key=lambda one: (-one.priority, one.deadline, one.location_id))

    def dispatch(self, locations: Sequence[str] = ()) -> dict[tuple[str, str], Run]:
        """Wake every agent that is due, and note the events that nobody listens to; the runs there were.

        By agent and location; of all locations, or of some.
        """
        runs = {}
        for each in self.due():
            if locations and each.location_id not in locations:
                continue
            run = self.decide(each.location_id, each.agent)
            if run is not None:
                runs[each.agent, each.location_id] = run
        self.note_unheard()
        self.roll_back()
        return runs

    def note_unheard(self) -> int:
        """Note in the ledger which events no agent listens to, each once; how many there were."""
        many = 0
        with (
            stage("note_unheard", self.tenant) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            dispatch = self.dispatch_policy(tx)
            for partition in tx.behind(_NOBODY):
                place = tx.position(_NOBODY, partition, lock=True)
                unread = tx.unread(partition, None, place)
                rows = [each for each in unread if not dispatch.listeners(each.type, each.subject)]
                self._unheard(tx, rows, "nobody listens")
                many += sum(each.events for each in rows)
                # The head may have been another before the lock was ours.
                last = max((each.last for each in unread), default=place)
                bus.advance(tx, _NOBODY, partition, last)
            watched.rows = many
        return many

    def decide(self, location_id: str, agent: str = replenish.NAME) -> Run | None:
        """Wake an agent for what a location reported; None when it has nothing to hear, or may not run.

        Evidence, proposals, verdicts, ledger, pending actions, requests for approval, what limits were
        used, and the agent's place in the event log commit together.
        """
        self.lapse()
        partition = bus.partition_of(self.tenant, location_id)
        with (
            stage("decide", self.tenant, location=location_id) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            place = tx.position(_consumer(agent, location_id), partition, lock=True)
            wake = self._wake(tx, agent, location_id, place)
            if wake is None:
                return None
            batch = self._judged(tx, location_id, place, wake)
            if batch is None:
                return None
            ledger.record(tx, batch, self.signing)
            self._commit_orders(tx, batch)
            watched.note(batch=batch.batch_id)
            watched.rows = batch.proposed.proposals.num_rows + batch.proposed.holds.num_rows
            evaluated = batch.evidence.values.num_rows
            return Run(batch.batch_id, evaluated, batch.counts(), agent, batch.wake.mode)

    def _wake(self, tx: Transaction, agent: str, location_id: str, place: int) -> Wake | None:
        """Why an agent runs now, its place in the log moved on; None when it does not."""
        dispatch = self.dispatch_policy(tx)
        listener = dispatch.listener(agent)
        if listener is None or {"", agent} & tx.halts().keys():
            return None
        partition = bus.partition_of(self.tenant, location_id)
        unread = tx.unread(partition, location_id, place)
        heard = _wanted(dispatch, listener, unread)
        since = _since(heard)
        if since is not None and since + listener.window > self.now():
            return None
        if since is not None and not tx.slot(agent, listener.concurrency):
            return None
        if unread:
            last = max(each.last for each in unread)
            bus.advance(tx, _consumer(agent, location_id), partition, last)
        if since is None:
            return None
        mode = dispatch.mode(agent, None, location_id, tx.modes())
        if mode == "off":
            self._unheard(tx, heard, f"{agent} is off")
            return None
        if not self._fits(tx, dispatch, agent, heard, place):
            self._unheard(tx, heard, f"nothing in it wakes {agent}")
            return None
        return Wake(
            agent=agent,
            mode=mode,
            dispatch_version=dispatch.version,
            since=since,
            late=self.now() > since + listener.deadline,
            heard=[_told(each) for each in heard],
        )

    def _fits(
        self,
        tx: Transaction,
        dispatch: policy.Dispatch,
        agent: str,
        heard: Sequence[Unread],
        place: int,
    ) -> bool:
        """Whether one of the events holds a fact that wakes the agent."""
        if any(dispatch.wakes_at_once(agent, each.type) for each in heard):
            return True
        subject = heard[0].subject
        partition = bus.partition_of(self.tenant, subject)
        last = max(each.last for each in heard)
        while events := bus.replay(tx, partition, place, limit=4):
            own = [each for each in events if each.subject == subject]
            if dispatch.heard(agent, own):
                return True
            place = events[-1].position or last
            if place >= last:
                break
        return False

    def _judged(self, tx: Transaction, location_id: str, place: int, wake: Wake) -> Batch | None:
        """What the agent proposes and policy says of it; None when this version of it is off here."""
        partition = bus.partition_of(self.tenant, location_id)
        self._move_stock(tx, partition)
        evidence = self._snapshot(tx, location_id, partition)
        agent = self.agents[wake.agent]
        proposed = agent.propose(evidence, self._action(agent.action))
        dispatch = self.dispatch_policy(tx)
        mode = dispatch.mode(wake.agent, proposed.version, location_id, tx.modes())
        if mode == "off":
            self._note(tx, _off(wake, location_id, proposed.version, self.now()))
            return None
        rulebook = self.rulebook(tx, wake.agent)
        used = used_limits(tx, rulebook, proposed, evidence)
        at = self.now()
        judgement = policy.judge(rulebook, proposed, evidence, used, waited=at - wake.since)
        barred = self._barred(tx, dispatch, wake.agent, proposed)
        return Batch(
            batch_id=self._run_id(location_id, f"{wake.agent}/{place}", at),
            at=at,
            location_id=location_id,
            evidence=evidence,
            proposed=proposed,
            judgement=policy.bar(judgement, barred),
            used=used,
            terms=terms_of(rulebook),
            wake=replace(wake, mode=mode, barred=barred),
        )

    def _run_id(self, location_id: str, seed: str, at: datetime) -> str:
        """The same id for the same run made twice: `seed` is who ran, and from where on it heard."""
        return decision_ids(at, f"{self.tenant}/{location_id}", [seed])[0]

    def _barred(
        self, tx: Transaction, dispatch: policy.Dispatch, agent: str, proposed: Proposed
    ) -> list[dict[str, str]]:
        """The subjects of an agent's proposals that decisions of others keep it from, and why."""
        subjects = proposed.proposals["subject"].to_pylist()
        return [
            {"subject": subject, "rule": one.id, "reason": one.reason}
            for one in dispatch.before(agent)
            for subject in tx.decided_lately(one.first, self.now() - one.within, subjects)
        ]

    def _unheard(self, tx: Transaction, rows: Iterable[Unread], why: str) -> None:
        """Note events that no agent answers, location by location."""
        by_subject = sorted(rows, key=lambda each: each.subject)
        for subject, mine in groupby(by_subject, key=lambda each: each.subject):
            told = {"location_id": subject, "why": why, "at": stamp(self.now())}
            self._note(tx, Entry("unheard", {**told, "events": [_told(each) for each in mine]}))

    def _commit_orders(self, tx: Transaction, batch: Batch) -> None:
        """What is decided counts as on its way at once, so that nothing is ordered twice meanwhile."""
        lines = batch.committed()
        if lines.num_rows and orders_goods(lines.column_names):
            facts = stock.order_moves(lines, "committed", batch.at)
            told = event("OrderCommitted", batch.batch_id, batch.location_id, batch.at, facts)
            self._publish(tx, f"commit/{batch.proposed.agent}", [told])
        self._trace_decided(tx, batch)


def _wanted(
    dispatch: policy.Dispatch, listener: policy.Listener, unread: Sequence[Unread]
) -> list[Unread]:
    """Of what was reported, what an agent listens to."""
    return [each for each in unread if listener in dispatch.listeners(each.type, each.subject)]


def _since(heard: Sequence[Unread]) -> datetime | None:
    return min((each.since for each in heard), default=None)


def _told(each: Unread) -> dict[str, Any]:
    """Events that were heard, as the ledger names them."""
    return {
        "type": each.type,
        "events": each.events,
        "facts": each.facts,
        "first": each.first,
        "last": each.last,
    }


def _off(wake: Wake, location_id: str, version: str, at: datetime) -> Entry:
    told = {"location_id": location_id, "why": f"version {version} of {wake.agent} is off"}
    return Entry("unheard", {**told, "at": stamp(at), "events": list(wake.heard)})


def _consumer(agent: str, location_id: str) -> str:
    """The name under which an agent reads what a location reported: each location is read by itself."""
    return f"{agent}@{location_id}"


def terms_of(rulebook: policy.Rulebook) -> Terms:
    """What the rulebook says of time and of what happens otherwise."""
    sla = rulebook.content.sla
    return Terms(
        approve_within=sla.approve_within,
        safe_default=sla.on_timeout or rulebook.content.safe_default,
    )
