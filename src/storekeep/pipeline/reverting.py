"""Back again: decisions are taken back by a plan, replayed from what is recorded, and verified."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from storekeep import bus, features, ledger, policy
from storekeep.decisions import (
    Decided,
    Receipt,
    Reversibility,
    Selection,
    Status,
    stamp,
)
from storekeep.errors import Refused, Transient, Unknown
from storekeep.ledger import Batch, Entry, Step
from storekeep.pipeline.breaking import COMPENSATE
from storekeep.pipeline.deciding import terms_of
from storekeep.pipeline.undoing import Undoing, again_of, proposed_as
from storekeep.store import Transaction
from storekeep.watch import stage

_DONE = (Status.EXECUTED, Status.NEEDS_PERSON)
# Which step of a decision's life each line of a plan begins; where it is there already nothing is repeated.
_STEPS: Mapping[str, str] = {
    "withdraw": "withdrawn",
    "compensate": "reverting",
    "person": "needs_person",
    "cannot": "needs_person",
}


class Reverting(Undoing):
    """Plans, reverts, replays and proofs."""

    def plan_revert(self, chosen: Selection) -> list[Step]:
        """What a revert of the selected decisions would do, newest first; nothing is done yet."""
        with self.store.transaction(self.tenant) as tx:
            rows = [row for row in tx.decisions(chosen) if row["verdict"] != Decided.HOLD]
            ids = [row["decision_id"] for row in rows]
            steps, begun = ledger.steps(tx, ids), tx.begun_tasks(ids)
        there = [row for row in rows if row["status"] in _DONE or row["decision_id"] in begun]
        found, silent = self._holdings({row["decision_id"]: row["action"] for row in there})
        final = {
            action
            for action in {row["action"] for row in rows}
            if self._action(action).reversibility is Reversibility.IRREVERSIBLE
        }
        return [
            ledger.plan(
                *(row, steps[key], found),
                held=begun.get(key),
                silent=silent.get(key),
                final=row["action"] in final,
            )
            for key, row in zip(ids, rows, strict=True)
        ]

    def _holdings(self, actions: Mapping[str, str]) -> tuple[dict[str, Receipt], dict[str, str]]:
        """What the outside systems hold of decisions; and of those that cannot be asked now, why."""
        found: dict[str, Receipt] = {}
        silent: dict[str, str] = {}
        for action in sorted(set(actions.values())):
            keys = [key for key, own in actions.items() if own == action]
            try:
                found |= self._adapter(action).find(keys)
            except (Transient, Unknown) as error:
                # One system that is down must not keep the others from being taken back.
                silent |= dict.fromkeys(keys, str(error))
        return found, silent

    def revert(self, plan: Sequence[Step], by: str, reason: str) -> int:
        """Carry out a plan: withdraw what is not done, ask for the rest to be compensated by `act`.

        Decisions that moved on since the plan was made are left alone, and so are those that a worker has
        begun to carry out. What was asked for before and put off is due again. Returns how many were newly
        taken on.
        """
        with stage("revert", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions([each.decision_id for each in plan])
            tx.hasten_tasks([each.decision_id for each in plan if each.what == "finish"])
            chosen = [
                each
                for each in plan
                if _STEPS.get(each.what) not in (None, each.status)
                and statuses.get(each.decision_id) == each.status
            ]
            under_way = self._under_way(tx, chosen)
            chosen = [each for each in chosen if each.decision_id not in under_way]
            if not chosen:
                return 0
            said = {"by": by, "at": stamp(self.now()), "reverses": True}
            entries = [
                Entry(
                    "reversal",
                    {**said, "reason": each.why if _STEPS[each.what] == "needs_person" else reason},
                    each.decision_id,
                    _STEPS[each.what],
                )
                for each in chosen
            ]
            self._append_entries(tx, entries, statuses)
            self._undo_chosen(tx, chosen)
            watched.rows = len(chosen)
            return len(chosen)

    def _under_way(self, tx: Transaction, steps: Sequence[Step]) -> set[str]:
        """Which decisions cannot be withdrawn: a worker carries them out now, or one did and was lost."""
        actions = {each.decision_id: each.action for each in steps if each.what == "withdraw"}
        begun = tx.begun_tasks(list(actions))
        done, silent = self._holdings(
            {key: actions[key] for key, held in begun.items() if not held}
        )
        return {key for key, held in begun.items() if held or key in done or key in silent}

    def _undo_chosen(self, tx: Transaction, chosen: Sequence[Step]) -> None:
        orders = self._orders(tx, [each.decision_id for each in chosen])
        withdrawn = [each.decision_id for each in chosen if each.what == "withdraw"]
        tx.drop_tasks(withdrawn)
        tx.drop_approvals(withdrawn)
        tx.drop_uses(withdrawn)
        self._tell(tx, [(orders[key], "withdrawn", None) for key in withdrawn])
        undo = {
            each.decision_id: COMPENSATE + each.action
            for each in chosen
            if each.what == "compensate"
        }
        self._add_tasks(tx, {key: orders[key] for key in undo}, undo, "revert")

    def replay(self, decision_id: str) -> dict[str, Any]:
        """Recompute the run of a recorded decision from its recorded versions; whether it comes out equal.

        Features from the lake's versions of then, stock from the events of then, the agent, the rulebook
        of then: the run's entries are made again and compared, letter by letter.
        """
        with stage("replay", self.tenant), self.store.transaction(self.tenant) as tx:
            number = ledger.steps(tx, [decision_id])[decision_id][0]["batch"]
            recorded, header = ledger.entries(tx, number, number), ledger.header(tx, number)
            # Stock is made again from history, which may lag behind the events of then.
            self._keep_history(tx, bus.partition_of(self.tenant, header["location_id"]))
            again = self._replayed(tx, header, recorded).entries()
            texts = {
                name: dict(
                    zip(table["decision_id"].to_pylist(), table["entry"].to_pylist(), strict=True)
                )
                for name, table in (("recorded", recorded), ("replayed", again))
            }
            return {
                "decision_id": decision_id,
                "identical": texts["recorded"][decision_id] == texts["replayed"].get(decision_id),
                "run_identical": texts["recorded"] == texts["replayed"],
                "decisions_in_run": recorded.num_rows - 1,
                "recorded_digest": ledger.digest(recorded),
                "replayed_digest": ledger.digest(again),
            }

    def _replayed(self, tx: Transaction, header: Mapping[str, Any], recorded: pa.Table) -> Batch:
        """A recorded run made again from what it names; `Refused` by another version of what made it."""
        known, ours = header["versions"]["features"], f"sku_location:{features.VERSION}"
        if known != ours:
            raise Refused(
                f"the decision rests on features {known}, these are {ours}: it cannot be replayed here"
            )
        location_id, versions = header["location_id"], header["versions"]
        action = self._action(header["action"])
        again = again_of(header, recorded)
        before = proposed_as(tx, again, action) if again else None
        rows = features.compute(
            self.lake,
            location_id,
            today=date.fromisoformat(versions["day"]),
            known_by=datetime.fromisoformat(versions["features_at"]),
            versions=json.loads(versions["lake"]),
            only=None if before is None else before.proposals["sku"].to_pylist(),
        )
        shelf = features.stock_as_of(self.lake, location_id, header["position"])
        evidence = features.evidence(
            rows,
            shelf,
            known_by=datetime.fromisoformat(header["known_by"]),
            position=header["position"],
        )
        proposed = before or self.agents[header["agent"]].propose(evidence, action)
        if proposed.version != header["agent_version"]:
            raise Refused(
                f"the decision was made by version {header['agent_version']} of {header['agent']}, "
                f"this is version {proposed.version}: it cannot be replayed here"
            )
        rulebook = self.rulebook(tx, header["agent"], header["rulebook_version"])
        used = pa.Table.from_pylist(header["limits_used"], schema=policy.USED)
        wake = ledger.wake_of(header)
        at = datetime.fromisoformat(header["decided_at"])
        judgement = policy.judge(rulebook, proposed, evidence, used, waited=at - wake.since)
        return Batch(
            batch_id=header["batch_id"],
            at=at,
            location_id=location_id,
            evidence=evidence,
            proposed=proposed,
            judgement=policy.bar(judgement, wake.barred),
            used=used,
            terms=terms_of(rulebook),
            wake=wake,
            again=again,
        )

    def verify(self) -> ledger.Verified:
        """Compute the tenant's whole ledger again from the store."""
        with stage("verify", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            outcome = ledger.verify(tx, self.signing.public)
            watched.rows = outcome.entries
            return outcome

    def rebuild_decisions(self) -> dict[str, str]:
        """Fold every decision's state again from the ledger; where each stands, by id."""
        with self.store.transaction(self.tenant) as tx:
            tx.clear_decisions()
            tx.ledger_head()
            # What others recorded before the chain was ours has to go too.
            tx.clear_decisions()
            runs, folded = ledger.folded(tx)
            for number, header in runs.items():
                tx.add_run(number, header)
            tx.add_decisions(folded)
        return dict(
            zip(folded["decision_id"].to_pylist(), folded["status"].to_pylist(), strict=True)
        )
