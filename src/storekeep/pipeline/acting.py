"""What was decided is done in the outside systems, each thing once.

Hides leases, what is tried again and when, and what is looked up before it is sent again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta

from storekeep import ledger
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
    Adapter,
    Order,
    arrivals,
)
from storekeep.decisions import (
    Receipt,
    Status,
)
from storekeep.errors import InvariantBroken, Permanent, Transient, Unknown
from storekeep.ledger import Entry
from storekeep.pipeline.deciding import Deciding
from storekeep.store import Task
from storekeep.watch import stage

COMPENSATE = "compensate:"


class Acting(Deciding):
    """From pending actions to outcomes."""

    def act(self, limit: int = 1000) -> int:
        """Carry out pending actions that are due; how many came to an end, well or badly."""
        done = 0
        while True:
            with self.store.transaction(self.tenant) as tx:
                tasks = tx.lease_tasks(self.worker, limit, self.lease)
            if not tasks:
                return done
            for action in sorted({task.action for task in tasks}):
                with stage("act", self.tenant, action=action) as watched:
                    members = [task for task in tasks if task.action == action]
                    watched.rows = self._act(action, members)
                    done += watched.rows

    def _act(self, action: str, tasks: Sequence[Task]) -> int:
        adapter = self._adapter(action.removeprefix(COMPENSATE))
        orders = [Order(task.decision_id, task.group, json.loads(task.task)) for task in tasks]
        results: Sequence[Receipt | str]
        try:
            results = self._call(adapter, action, orders)
        except (Transient, Unknown):
            delay = timedelta(seconds=min(60.0, 0.5 * 2.0 ** min(tasks[0].attempts, 7)))
            with self.store.transaction(self.tenant) as tx:
                tx.postpone_tasks([task.decision_id for task in tasks], delay)
            return 0
        except Permanent as error:
            if len(tasks) > 1:
                # One that cannot be done must not keep the others from it.
                return sum(self._act(action, [task]) for task in tasks)
            results = [str(error)]
        self._settle(action, orders, results)
        return len(results)

    def _call(
        self, adapter: Adapter, action: str, orders: Sequence[Order]
    ) -> Sequence[Receipt | str]:
        """Call the outside system; after an unknown outcome look before anything is sent again."""
        keys = [order.decision_id for order in orders]
        if action.startswith(COMPENSATE):
            with self.store.transaction(self.tenant) as tx:
                steps = ledger.steps(tx, keys)
            # The receipts of then: what was changed since is not touched.
            return adapter.compensate([ledger.receipt_of(steps[key]) for key in keys], self.now())
        try:
            return adapter.execute(orders, self.now())
        except Unknown as error:
            found = adapter.find(keys)
            if len(found) < len(keys):
                raise Transient(f"not all of it was found afterwards: {error}") from error
            return [found[key] for key in keys]

    def _settle(
        self, action: str, orders: Sequence[Order], results: Sequence[Receipt | str]
    ) -> None:
        """Record what came of pending actions, tell the bus, and take them off the list.

        An action that is on the list no more was taken over when our lease had run out, and recorded then.
        """
        reverting = action.startswith(COMPENSATE)
        good, bad = ("compensated", "needs_person") if reverting else ("executed", "failed")
        kind = "reversal" if reverting else "outcome"
        ids = [order.decision_id for order in orders]
        with self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions(ids)
            held = tx.drop_tasks(ids)
            ends = [
                (order, good if isinstance(result, Receipt) else bad, result)
                for order, result in zip(orders, results, strict=True)
                if order.decision_id in held
            ]
            if ends:
                entries = [
                    Entry(kind, ledger.outcome(result, self.now()), order.decision_id, end)
                    for order, end, result in ends
                ]
                freed = ("failed", "compensated")
                tx.drop_uses([order.decision_id for order, end, _ in ends if end in freed])
                self._append_entries(tx, entries, statuses)
                self._tell(tx, ends)
        gone = {key for key in ids if key not in held and statuses.get(key) == Status.REVERTED}
        late = [each for each in results if isinstance(each, Receipt) and not reverting]
        self._undo(action, [each for each in late if each.idempotency_key in gone])

    def _undo(self, action: str, late: Sequence[Receipt]) -> None:
        """Take back what was done after its decision had been withdrawn, our lease having run out."""
        if not late:
            return
        for was, now in zip(late, self._adapter(action).compensate(late, self.now()), strict=True):
            if isinstance(now, str):
                raise InvariantBroken(
                    f"{was.reference} was placed although decision {was.idempotency_key} had been "
                    f"withdrawn, and cannot be taken back: {now}; see to it in {was.adapter}"
                )

    def receive(self, decision_ids_: Sequence[str]) -> int:
        """Goods of confirmed lines arrived, as the back office says; of how many lines that was news."""
        adapter = self._adapter(PLACE_PURCHASE_ORDER.name)
        found = adapter.find(decision_ids_).values()
        return sum(
            self.publish("GoodsReceived", adapter.name, location_id, facts)
            for location_id, facts in arrivals(found, self.now()).items()
        )
