"""A revert taken back: what it undid is proposed again, and judged as anything else that is proposed.

Hides how runs are made of decisions that were made at different times, and that a line proposed again still
belongs to its whole order. An old decision stays taken back for ever; each new one names the one that it
`reverses`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import bus, ledger, policy
from storekeep.decisions import Action, ModeChange, Proposed, Selection
from storekeep.errors import Refused
from storekeep.ledger import Again, Batch, Step, Wake
from storekeep.pipeline.deciding import Run, terms_of
from storekeep.pipeline.recording import used_limits
from storekeep.pipeline.rejudging import worth_in_all
from storekeep.pipeline.returning import Returning
from storekeep.pipeline.steering import EVERY_AGENT
from storekeep.store import Transaction
from storekeep.watch import stage

_WANTED = ("propose", "cannot")


class Undoing(Returning):
    """From what was taken back to new decisions."""

    def plan_undo(self, ids: Sequence[str]) -> list[Step]:
        """What would be proposed again: `ids` name reverts by their ledger batch, or decisions.

        Of an agent that may not run the plan says that it `cannot`, and why.
        """
        with self.store.transaction(self.tenant) as tx:
            meant: dict[str, None] = {}
            for key in ids:
                meant |= dict.fromkeys(ledger.taken_back(tx, key) or [key])
            return self._plan_undo(tx, list(meant))

    def _plan_undo(self, tx: Transaction, ids: Sequence[str]) -> list[Step]:
        rows = tx.decisions(Selection(ids=tuple(ids)))
        known = {row["decision_id"] for row in rows}
        for key in ids:
            if key not in known:
                raise Refused(f"{key} is no revert and no decision; see `storekeep decisions list`")
        steps, later = ledger.steps(tx, ids), tx.proposed_again(ids)
        dispatch, modes, halts = self.dispatch_policy(tx), tx.modes(), tx.halts()
        return [
            ledger.plan_again(
                *(row, steps[row["decision_id"]], later.get(row["decision_id"])),
                kept_from=_kept_from(row, dispatch, modes, halts),
            )
            for row in rows
        ]

    def undo(self, plan: Sequence[Step], by: str, reason: str) -> list[Run]:
        """Propose again what a plan says, each time as a new decision on the evidence of now.

        What was proposed again meanwhile is left alone. Raises `Refused`, and proposes nothing, when an agent
        whose decision it is may not run, or nothing is known any more about an item.
        """
        with stage("undo", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            meant = [each.decision_id for each in plan if each.what in _WANTED]
            if meant and not tx.slot("undo", 1):
                # Two lines of an order, proposed again at once, would not know of each other.
                raise Refused("somebody proposes something again at this moment: run this again")
            tx.lock_decisions(meant)
            again = self._plan_undo(tx, meant) if meant else []
            for each in again:
                if each.what == "cannot":
                    raise Refused(f"nothing is proposed again: {each.why}")
            ids = [each.decision_id for each in again if each.what == "propose"]
            # What is proposed again together makes an order together, in one run or in several.
            worth = tx.group_values(ids)
            runs = [
                self._propose_again(tx, keys, worth, by, reason) for keys in self._runs(tx, ids)
            ]
            watched.rows = len(ids)
            return runs

    def _runs(self, tx: Transaction, ids: Sequence[str]) -> Iterator[list[str]]:
        """Which decisions make a run: of one place and agent, and each subject once."""
        runs: dict[tuple[object, ...], list[str]] = {}
        times: Counter[str] = Counter()
        rows = sorted(tx.decisions(Selection(ids=tuple(ids))), key=lambda row: row["decision_id"])
        for row in rows:
            times[row["subject"]] += 1
            shared = ("location_id", "agent", "agent_version", "action")
            place = (*(row[name] for name in shared), times[row["subject"]])
            runs.setdefault(place, []).append(row["decision_id"])
        yield from runs.values()

    def _propose_again(
        self, tx: Transaction, ids: Sequence[str], worth: Mapping[str, int], by: str, reason: str
    ) -> Run:
        (row, *_) = tx.decisions(Selection(ids=(ids[0],)))
        location_id = row["location_id"]
        partition = bus.partition_of(self.tenant, location_id)
        self._move_stock(tx, partition)
        recorded = ledger.proposed(tx, ids, self._action(row["action"]))
        proposed = worth_in_all(recorded, [worth.get(key) for key in ids])
        subjects = proposed.proposals["subject"].to_pylist()
        evidence = self._snapshot(tx, location_id, partition, proposed.proposals["sku"].to_pylist())
        if missing := sorted(set(subjects) - set(evidence.values["subject"].to_pylist())):
            raise Refused(f"nothing is known of {', '.join(missing)} any more: leave it out")
        rulebook = self.rulebook(tx, row["agent"])
        used = used_limits(tx, rulebook, proposed, evidence)
        at = self.now()
        wake = self._asked(tx, proposed, location_id, at)
        judgement = policy.judge(rulebook, proposed, evidence, used)
        batch = Batch(
            batch_id=self._run_id(location_id, f"undo/{ids[0]}", at),
            at=at,
            location_id=location_id,
            evidence=evidence,
            proposed=proposed,
            judgement=policy.bar(judgement, wake.barred),
            used=used,
            terms=terms_of(rulebook),
            wake=wake,
            again=Again(
                reverses=dict(zip(subjects, ids, strict=True)),
                worth={each: worth.get(key) for each, key in zip(subjects, ids, strict=True)},
                by=by,
                reason=reason,
            ),
        )
        ledger.record(tx, batch, self.signing)
        self._commit_orders(tx, batch)
        return Run(batch.batch_id, evidence.values.num_rows, batch.counts(), wake.agent, wake.mode)

    def _asked(self, tx: Transaction, proposed: Proposed, location_id: str, at: datetime) -> Wake:
        """Why a run is made that no event has woken: a person asked for it. It may do what any run may."""
        agent, dispatch = proposed.agent, self.dispatch_policy(tx)
        mode = dispatch.mode(agent, proposed.version, location_id, tx.modes())
        barred = self._barred(tx, dispatch, agent, proposed)
        return Wake(agent, mode, dispatch.version, at, late=False, heard=(), barred=barred)


def _kept_from(
    row: Mapping[str, Any],
    dispatch: policy.Dispatch,
    modes: Sequence[ModeChange],
    halts: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """Why the agent that made a decision may not run where it did, if that is so."""
    agent, location_id = row["agent"], row["location_id"]
    if halt := halts.get(agent) or halts.get(EVERY_AGENT):
        return (
            f"{agent} is stopped by {halt['halted_by']} ({halt['reason']}); "
            "see `storekeep agents resume`"
        )
    if dispatch.mode(agent, row["agent_version"], location_id, modes) == "off":
        return f"{agent} is off at {location_id}; see `storekeep agents list`"
    return None


def proposed_as(tx: Transaction, again: Again, action: Action) -> Proposed:
    """What a run proposed again, as it did: each line with what its whole order came to by then."""
    recorded = ledger.proposed(tx, list(again.reverses.values()), action)
    subjects = recorded.proposals["subject"].to_pylist()
    return worth_in_all(recorded, [again.worth[subject] for subject in subjects])


def again_of(header: Mapping[str, Any], recorded: pa.Table) -> Again | None:
    """What a recorded run proposed again, in the order in which it did; None of an ordinary run."""
    if "asked_by" not in header:
        return None
    told = recorded.filter(pc.equal(recorded["kind"], "decision"))["entry"].to_pylist()
    bodies = [json.loads(each) for each in told]
    return Again(
        reverses={body["subject"]: body["reverses"] for body in bodies},
        worth={body["subject"]: body["group_value_minor"] for body in bodies},
        by=header["asked_by"],
        reason=header["reason"],
    )
