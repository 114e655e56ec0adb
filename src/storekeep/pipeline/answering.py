"""A person's word on what policy would not decide alone, and what happens when nobody says one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from storekeep import bus, features, ledger, policy
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
    pending,
)
from storekeep.agents import replenish
from storekeep.decisions import (
    Decided,
    Status,
    stamp,
)
from storekeep.errors import Refused
from storekeep.ledger import Entry
from storekeep.pipeline.recording import Recording, used_limits
from storekeep.store import Transaction
from storekeep.watch import stage


class Answering(Recording):
    """Approvals, refusals, and requests that nobody answered."""

    def approve(self, decision_ids_: Sequence[str], by: str) -> dict[str, str]:
        """A person agrees to escalated decisions; what became of each, by id.

        The evidence is taken afresh and the same proposal judged again: what policy forbids by now, or would
        now lower, stays undone. Raises `Refused` for a decision that does not wait for approval.
        """
        with stage("approve", self.tenant), self.store.transaction(self.tenant) as tx:
            requests = self._requests(tx, decision_ids_)
            late = {key for key, row in requests.items() if row["deadline"] < self.now()}
            verdicts = self._judge_again(tx, sorted(requests.keys() - late))
            ends = dict.fromkeys(late, "expired")
            for key, verdict in verdicts.items():
                agreed = verdict["verdict"] in (Decided.ALLOW, Decided.CLIP)
                ends[key] = "approved" if agreed else "denied"
            self._answer(tx, ends, {key: self._said(by, verdicts.get(key, {})) for key in ends})
        return dict(sorted(ends.items()))

    def reject(self, decision_ids_: Sequence[str], by: str, reason: str) -> dict[str, str]:
        """A person says no to escalated decisions: the safe default stands."""
        with stage("reject", self.tenant), self.store.transaction(self.tenant) as tx:
            ends = dict.fromkeys(sorted(self._requests(tx, decision_ids_)), "rejected")
            said = {**self._said(by, {}), "reason": reason}
            self._answer(tx, ends, dict.fromkeys(ends, said))
        return ends

    def lapse(self) -> int:
        """Requests that nobody answered in time lapse: the safe default stands; how many there were."""
        with stage("lapse", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            late = {row["decision_id"]: row for row in tx.approvals(until=self.now())}
            statuses = tx.lock_decisions(list(late))
            ends = {key: "expired" for key in late if statuses[key] == Status.ESCALATED}
            said = {
                key: {
                    **self._said("nobody", {}),
                    "reason": f"nobody answered until {stamp(late[key]['deadline'])}",
                    "safe_default": late[key]["safe_default"],
                }
                for key in ends
            }
            self._answer(tx, ends, said)
            watched.rows = len(ends)
        return len(ends)

    def _answer(
        self, tx: Transaction, ends: Mapping[str, str], said: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Record the answers to requests, and what follows from each."""
        if not ends:
            return
        keys = sorted(ends)
        entries = [Entry("approval", said[key], key, ends[key]) for key in keys]
        self._append_entries(tx, entries, dict.fromkeys(keys, str(Status.ESCALATED)))
        tx.drop_approvals(keys)
        orders = self._orders(tx, keys)
        approved = [orders[key] for key in keys if ends[key] == "approved"]
        until = self.now() + ledger.EXECUTE_WITHIN
        tx.add_tasks(pending(approved, PLACE_PURCHASE_ORDER.name, entries[0].text, until))
        tx.drop_uses([key for key in keys if ends[key] != "approved"])
        self._tell(tx, [(orders[key], ends[key], None) for key in keys])

    def _said(self, by: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
        return {"by": by, "at": stamp(self.now()), "rules": verdict.get("rules", [])}

    def _requests(self, tx: Transaction, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        statuses = tx.lock_decisions(list(ids))
        rows = {row["decision_id"]: row for row in tx.approvals(list(ids))}
        for key in ids:
            if key not in statuses:
                raise Refused(f"there is no decision {key}; see `storekeep approvals list`")
            if key not in rows:
                raise Refused(f"decision {key} does not wait for approval: it is {statuses[key]}")
        return rows

    def _judge_again(self, tx: Transaction, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The verdicts on the same proposals by the evidence of now, escalation being answered for."""
        out: dict[str, dict[str, Any]] = {}
        by_location: dict[str, list[str]] = {}
        for key, order in self._orders(tx, ids).items():
            by_location.setdefault(order.parameters["location_id"], []).append(key)
        for location_id, keys in by_location.items():
            partition = bus.partition_of(self.tenant, location_id)
            self._move_stock(tx, partition)
            proposed = ledger.proposed(tx, keys, PLACE_PURCHASE_ORDER)
            skus = proposed.proposals["sku"].to_pylist()
            evidence = features.without_own(
                self._snapshot(tx, location_id, partition, skus), proposed
            )
            rulebook = self.rulebook(tx, replenish.NAME)
            used = used_limits(tx, rulebook, proposed, evidence, without=keys)
            subjects = frozenset(proposed.proposals["subject"].to_pylist())
            judged = policy.judge(rulebook, proposed, evidence, used, approved=subjects)
            clippable = list(proposed.action.clippable)
            asked, left = (
                table.select(clippable).to_pylist()
                for table in (proposed.proposals, judged.proposals)
            )
            verdicts = judged.verdicts.to_pylist()
            for key, verdict, before, after in zip(keys, verdicts, asked, left, strict=True):
                # A person agreed to this quantity, not to what would be left of it.
                out[key] = verdict if before == after else {**verdict, "verdict": Decided.DENY}
        return out
