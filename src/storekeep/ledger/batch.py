"""One run of an agent as the ledger keeps it: a header for what all decisions share, an entry for each.

Hides how evidence, proposals and verdicts become canonical entries, and which rows of work follow from
them. Everything here follows from the batch's values alone, so a replay that comes to the same values
writes the same entries, letter by letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import canonical
from storekeep.decisions import (
    Decided,
    Evidence,
    Judgement,
    Proposed,
    decision_ids,
    first_status,
    stamp,
)
from storekeep.ledger.chain import Entry, Signer, append, rows
from storekeep.store import Transaction

EXECUTE_WITHIN = timedelta(hours=48)
_ACTS = (Decided.ALLOW, Decided.CLIP)
_COMMITS = (*_ACTS, Decided.ESCALATE)


@dataclass(frozen=True)
class Terms:
    """How long a person has to answer, and what happens when nobody does."""

    approve_within: timedelta
    safe_default: str


@dataclass(frozen=True)
class Batch:
    """What one run of an agent over one location came to, before it is recorded."""

    batch_id: str
    at: datetime
    location_id: str
    evidence: Evidence
    proposed: Proposed
    judgement: Judgement
    used: pa.Table
    terms: Terms

    @cached_property
    def ids(self) -> dict[str, str]:
        """The decision's id by subject, of proposals and holds."""
        subjects = [
            *self.judgement.proposals["subject"].to_pylist(),
            *self.proposed.holds["subject"].to_pylist(),
        ]
        return dict(zip(subjects, decision_ids(self.at, self.batch_id, subjects), strict=True))

    @cached_property
    def decided(self) -> pa.Table:
        """The judged proposals with `decision_id`, `verdict` and `role` beside their columns."""
        verdicts = self.judgement.verdicts
        ids = pa.array([self.ids[s] for s in verdicts["subject"].to_pylist()], pa.string())
        table = self.judgement.proposals.append_column("decision_id", ids)
        for name in ("verdict", "role", "rules"):
            table = table.append_column(name, verdicts[name])
        return table

    def counts(self) -> dict[str, int]:
        """How many decisions there are of each verdict."""
        counted = {str(verdict): 0 for verdict in Decided}
        for row in pc.value_counts(self.decided["verdict"]).to_pylist():
            counted[row["values"]] = row["counts"]
        counted[Decided.HOLD] = self.proposed.holds.num_rows
        return counted

    def header(self) -> Entry:
        """What all decisions of the batch share."""
        action = self.proposed.action
        return Entry(
            "batch",
            {
                "batch_id": self.batch_id,
                "agent": self.proposed.agent,
                "agent_version": self.proposed.version,
                "action": action.name,
                "reversibility": str(action.reversibility),
                "location_id": self.location_id,
                "rulebook": self.judgement.rulebook,
                "rulebook_version": self.judgement.rulebook_version,
                "known_by": stamp(self.evidence.known_by),
                "position": self.evidence.position,
                "versions": dict(self.evidence.versions),
                "formula": self.proposed.formula,
                "seed": self.proposed.seed,
                "decided_at": stamp(self.at),
                "expires_at": stamp(self.at + EXECUTE_WITHIN),
                "evaluated": self.evidence.values.num_rows,
                "verdicts": self.counts(),
                "limits_used": self.used.to_pylist(),
            },
        )

    def entries(self) -> pa.Table:
        """Header, decisions and holds as ledger entries, in this order."""
        parts = [rows([self.header()])]
        if self.decided.num_rows:
            parts.append(self._entries(self._decision_bodies()))
        if self.proposed.holds.num_rows:
            parts.append(self._entries(self._hold_bodies()))
        return pa.concat_tables(parts)

    def _decision_bodies(self) -> pa.Table:
        action = self.proposed.action
        names = action.parameters.names
        evidence = self.evidence.take(self.decided["subject"].combine_chunks())
        clipped = [self.proposed.proposals[name].combine_chunks() for name in action.clippable]
        return pa.table(
            {
                "kind": self._constant("decision"),
                "decision_id": self.decided["decision_id"],
                "step": self.decided["verdict"],
                "batch_id": self._constant(self.batch_id),
                "action": self._constant(action.name),
                "subject": self.decided["subject"],
                "parameters": _struct(self.decided, names),
                "proposed": pa.StructArray.from_arrays(clipped, list(action.clippable)),
                "arithmetic": self.decided["arithmetic"],
                "evidence": _struct(evidence.values, evidence.values.column_names),
                "evidence_digest": evidence.digests(),
                "rules": self.decided["rules"],
                "role": self.decided["role"],
                "money_minor": self.decided[action.money],
                "currency": self.decided["currency"],
            }
        )

    def _hold_bodies(self) -> pa.Table:
        holds = self.proposed.holds
        evidence = self.evidence.take(holds["subject"].combine_chunks())
        many = holds.num_rows
        return pa.table(
            {
                "kind": pa.array(["decision"] * many),
                "decision_id": pa.array([self.ids[s] for s in holds["subject"].to_pylist()]),
                "step": pa.array([str(Decided.HOLD)] * many),
                "batch_id": pa.array([self.batch_id] * many),
                "action": pa.array([self.proposed.action.name] * many),
                "subject": holds["subject"],
                "reason": holds["reason"],
                "safe_default": holds["safe_default"],
                "evidence": _struct(evidence.values, evidence.values.column_names),
                "evidence_digest": evidence.digests(),
            }
        )

    def _entries(self, bodies: pa.Table) -> pa.Table:
        return pa.table(
            {
                "kind": bodies["kind"],
                "decision_id": bodies["decision_id"],
                "step": bodies["step"],
                "entry": canonical.rows(bodies),
            }
        )

    def decisions(self) -> pa.Table:
        """The folded state of each decision, as the store keeps it for speed."""
        decided, holds = self.decided, self.proposed.holds
        action = self.proposed.action
        subjects = pa.chunked_array(
            [*decided["subject"].chunks, *holds["subject"].chunks], pa.string()
        )
        many, held = decided.num_rows, holds.num_rows
        verdicts = [*decided["verdict"].to_pylist(), *[str(Decided.HOLD)] * held]
        total = many + held
        return pa.table(
            {
                "decision_id": pa.array([self.ids[s] for s in subjects.to_pylist()], pa.string()),
                "batch_id": pa.array([self.batch_id] * total, pa.string()),
                "decided_at": pa.array([self.at] * total, pa.timestamp("us", tz="UTC")),
                "agent": pa.array([self.proposed.agent] * total, pa.string()),
                "agent_version": pa.array([self.proposed.version] * total, pa.string()),
                "rulebook_version": pa.array(
                    [self.judgement.rulebook_version] * total, pa.string()
                ),
                "action": pa.array([action.name] * total, pa.string()),
                "subject": subjects,
                "location_id": pa.array([self.location_id] * total, pa.string()),
                "order_group": _padded(decided["order_group"], held, pa.string()),
                "verdict": pa.array(verdicts, pa.string()),
                "money_minor": _padded(decided[action.money], held, pa.int64()),
                "currency": _padded(decided["currency"], held, pa.string()),
                "status": pa.array([str(first_status(v)) for v in verdicts], pa.string()),
            }
        )

    def committed(self) -> pa.Table:
        """The lines that are ordered, or will be if somebody approves: they count as on their way."""
        return self.decided.filter(
            pc.is_in(self.decided["verdict"], value_set=pa.array([str(v) for v in _COMMITS]))
        )

    def tasks(self) -> pa.Table:
        """Pending actions of the decisions that need nobody's word."""
        acts = self.decided.filter(
            pc.is_in(self.decided["verdict"], value_set=pa.array([str(v) for v in _ACTS]))
        )
        rows = task_rows(
            acts, self.proposed.action.name, self.batch_id, self.proposed.action.parameters.names
        )
        until = pa.array([self.at + EXECUTE_WITHIN] * acts.num_rows, pa.timestamp("us", tz="UTC"))
        return rows.append_column("expires_at", until)

    def approvals(self) -> pa.Table:
        """Requests for approval of the escalated decisions, bound to what exactly is to be approved."""
        asked = self.decided.filter(pc.equal(self.decided["verdict"], str(Decided.ESCALATE)))
        many = asked.num_rows
        times = pa.timestamp("us", tz="UTC")
        parameters = _struct(asked, self.proposed.action.parameters.names)
        digests = canonical.sha256(canonical.rows(pa.table({"parameters": parameters})))
        return pa.table(
            {
                "decision_id": asked["decision_id"],
                "role": asked["role"],
                "requested_at": pa.array([self.at] * many, times),
                "deadline": pa.array([self.at + self.terms.approve_within] * many, times),
                "safe_default": pa.array([self.terms.safe_default] * many, pa.string()),
                "digest": digests,
                "rulebook_version": pa.array([self.judgement.rulebook_version] * many, pa.string()),
            }
        )

    def uses(self) -> pa.Table:
        """What the decisions that count take from the rulebook's limits."""
        uses = self.judgement.uses
        if uses is None:
            uses = pa.table({name: [] for name in ("subject", "limit", "key", "amount")})
        counted = set(self.committed()["subject"].to_pylist())
        uses = uses.filter(
            pc.is_in(uses["subject"], value_set=pa.array(sorted(counted), pa.string()))
        )
        day = self.evidence.values["day"][0].as_py() if self.evidence.values.num_rows else None
        return pa.table(
            {
                "decision_id": pa.array(
                    [self.ids[s] for s in uses["subject"].to_pylist()], pa.string()
                ),
                "limit_id": uses["limit"],
                "key": uses["key"],
                "amount": uses["amount"],
                "used_on": pa.array([day] * uses.num_rows, pa.date32()),
            }
        )

    def _constant(self, text: str) -> pa.Array:
        return pa.array([text] * self.decided.num_rows, pa.string())


def record(tx: Transaction, batch: Batch, signing: Signer) -> int:
    """Record a run: its entries in the ledger, and what follows from them; the ledger batch's number."""
    number = append(tx, batch.entries(), batch_id=batch.batch_id, at=batch.at, signing=signing)
    tx.add_decisions(batch.decisions())
    tx.add_uses(batch.uses())
    tx.add_tasks(batch.tasks())
    tx.add_approvals(batch.approvals())
    return number


def task_rows(decided: pa.Table, action: str, batch_id: str, names: tuple[str, ...]) -> pa.Table:
    """Pending actions for decisions: the lines of one order group and batch stay together."""
    if decided.num_rows == 0:
        texts: pa.Array = pa.array([], pa.string())
    else:
        texts = canonical.rows(decided.select(list(names)))
    groups = [f"{group}/{batch_id[-12:]}" for group in decided["order_group"].to_pylist()]
    return pa.table(
        {
            "decision_id": decided["decision_id"],
            "action": pa.array([action] * decided.num_rows, pa.string()),
            "task_group": pa.array(groups, pa.string()),
            "task": texts,
        }
    )


def _struct(table: pa.Table, names: tuple[str, ...] | list[str]) -> pa.StructArray:
    return pa.StructArray.from_arrays([table[name].combine_chunks() for name in names], list(names))


def _padded(column: pa.ChunkedArray, many: int, kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, pa.nulls(many, kind)], kind)
