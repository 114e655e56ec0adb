"""Dead letters: actions that were tried often enough, and what a person says of them.

Hides that such an action stays where pending ones are. It may have been done, so it is looked up before it
is sent anew, and before it is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from storekeep import ledger
from storekeep.decisions import stamp
from storekeep.errors import Refused
from storekeep.ledger import Entry
from storekeep.pipeline.acting import Acting
from storekeep.store import Transaction
from storekeep.watch import stage


class Returning(Acting):
    """Dead letters are listed, tried anew, or dropped."""

    def dead_letters(self) -> list[dict[str, Any]]:
        """The actions that were given up and still wait for a person's word, with the last reason."""
        with self.store.transaction(self.tenant) as tx:
            rows = tx.dead_tasks()
            steps = ledger.steps(tx, [row["decision_id"] for row in rows])
        return [{**row, "reason": steps[row["decision_id"]][-1]["reason"]} for row in rows]

    def retry(self, decision_ids_: Sequence[str], by: str, reason: str) -> None:
        """A person has dead letters tried anew, as often as at first; `act` does it.

        Raises `Refused` for one that is none, or that expired: the agent proposes anew.
        """
        with stage("retry", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions(decision_ids_)
            for row in self._dead(tx, decision_ids_):
                if row["expires_at"] is not None and row["expires_at"] <= self.now():
                    raise Refused(
                        f"decision {row['decision_id']} could be carried out until "
                        f"{stamp(row['expires_at'])}; drop it, the agent proposes anew"
                    )
            self._answer_dead(tx, decision_ids_, "retried", by, reason, statuses)
            tx.revive_tasks(decision_ids_)
            watched.rows = len(decision_ids_)

    def drop(self, decision_ids_: Sequence[str], by: str, reason: str) -> None:
        """A person has dead letters dropped: limits are given back, and nothing is on its way.

        Raises `Refused` for one that is none, or that was done after all: it is retried, which finds it.
        """
        with stage("drop", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions(decision_ids_)
            rows = self._dead(tx, decision_ids_)
            for action in sorted({row["action"] for row in rows}):
                mine = [row["decision_id"] for row in rows if row["action"] == action]
                for key, receipt in sorted(self._adapter(action).find(mine).items()):
                    if not receipt.details.get("cancelled"):
                        raise Refused(
                            f"decision {key} was carried out after all, as {receipt.reference} of "
                            f"{receipt.adapter}; retry it, which records that"
                        )
            self._answer_dead(tx, decision_ids_, "dropped", by, reason, statuses)
            tx.drop_tasks(decision_ids_)
            tx.drop_uses(decision_ids_)
            orders = self._orders(tx, decision_ids_)
            self._tell(tx, [(orders[key], "dropped", None) for key in decision_ids_])
            watched.rows = len(decision_ids_)

    def _dead(self, tx: Transaction, ids: Sequence[str]) -> list[dict[str, Any]]:
        """The dead letters of these decisions; `Refused` when one has none."""
        rows = tx.dead_tasks(ids)
        for key in sorted(set(ids) - {row["decision_id"] for row in rows}):
            raise Refused(f"decision {key} is no dead letter; see `storekeep dead-letters list`")
        return rows

    def _answer_dead(
        self,
        tx: Transaction,
        ids: Sequence[str],
        step: str,
        by: str,
        reason: str,
        statuses: dict[str, str],
    ) -> None:
        said = {"by": by, "at": stamp(self.now()), "reason": reason}
        self._append_entries(tx, [Entry("dead_letter", said, key, step) for key in ids], statuses)
