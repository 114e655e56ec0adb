"""Agents are woken by what a location reported; what they propose is judged and recorded.

Hides who listens to what, and that a decision commits with all that follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storekeep import bus, ledger, policy, stock
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
)
from storekeep.agents import replenish
from storekeep.decisions import (
    decision_ids,
)
from storekeep.events import event
from storekeep.ledger import Batch, Terms
from storekeep.pipeline.answering import Answering
from storekeep.pipeline.recording import used_limits
from storekeep.store import Transaction
from storekeep.watch import stage

LISTENERS: Mapping[str, str] = {"SaleRecorded": replenish.NAME}


@dataclass(frozen=True)
class Run:
    """What one run of an agent came to."""

    batch_id: str
    evaluated: int
    verdicts: Mapping[str, int]


class Deciding(Answering):
    """From evidence to recorded decisions."""

    def skip_to_present(self, location_id: str) -> None:
        """Let no agent wake for what has been reported so far, such as a history that was taken in."""
        partition = bus.partition_of(self.tenant, location_id)
        with self.store.transaction(self.tenant) as tx:
            for listener in set(LISTENERS.values()):
                head = tx.heads().get(partition, 0)
                bus.advance(tx, _consumer(listener, location_id), partition, head)

    def decide(self, location_id: str) -> Run | None:
        """Wake the agents that listen for what a location reported; None when nobody has to.

        Evidence, proposals, verdicts, ledger, pending actions, requests for approval, what limits were
        used, and the agent's place in the event log commit together.
        """
        self.lapse()
        partition = bus.partition_of(self.tenant, location_id)
        with (
            stage("decide", self.tenant, location=location_id) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            consumer = _consumer(replenish.NAME, location_id)
            place = tx.position(consumer, partition, lock=True)
            unread = tx.unread(partition, location_id, place)
            if not unread:
                return None
            bus.advance(tx, consumer, partition, max(unread.values()))
            if not any(LISTENERS.get(type_) == replenish.NAME for type_ in unread):
                return None
            self._move_stock(tx, partition)
            evidence = self._snapshot(tx, location_id, partition)
            proposed = replenish.propose(evidence, PLACE_PURCHASE_ORDER)
            rulebook = self.rulebook(tx, replenish.NAME)
            used = used_limits(tx, rulebook, proposed, evidence)
            judgement = policy.judge(rulebook, proposed, evidence, used)
            batch = Batch(
                batch_id=decision_ids(self.now(), f"{self.tenant}/{location_id}", [str(place)])[0],
                at=self.now(),
                location_id=location_id,
                evidence=evidence,
                proposed=proposed,
                judgement=judgement,
                used=used,
                terms=terms_of(rulebook),
            )
            ledger.record(tx, batch, self.signing)
            self._commit_orders(tx, batch)
            watched.note(batch=batch.batch_id)
            watched.rows = proposed.proposals.num_rows + proposed.holds.num_rows
            return Run(batch.batch_id, evidence.values.num_rows, batch.counts())

    def _commit_orders(self, tx: Transaction, batch: Batch) -> None:
        """What is decided counts as on its way at once, so that nothing is ordered twice meanwhile."""
        lines = batch.committed()
        if lines.num_rows:
            facts = stock.order_moves(lines, "committed", batch.at)
            bus.publish(
                tx, event("OrderCommitted", batch.batch_id, batch.location_id, batch.at, facts)
            )


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
