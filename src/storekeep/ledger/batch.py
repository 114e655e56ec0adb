"""One run of an agent as the ledger keeps it: a header for what all decisions share, an entry for each.

Hides how evidence, proposals and verdicts become canonical entries, and which rows of work follow from
them. Everything here follows from the batch's values alone, so a replay that comes to the same values
writes the same entries, letter by letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import canonical
from storekeep.decisions import (
    SHADOW,
    Decided,
    Evidence,
    Judgement,
    Proposed,
    first_status,
    ids_of,
    stamp,
)
from storekeep.ledger.chain import Entry, Signer, append_parts, rows
from storekeep.store import Transaction

EXECUTE_WITHIN = timedelta(hours=48)
_ACTS = (Decided.ALLOW, Decided.CLIP)
_COMMITS = (*_ACTS, Decided.ESCALATE)
_ROWS_AT_ONCE = 16_384
_TEXT = pa.string()
_TIMES = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Terms:
    """How long a person has to answer, and what happens when nobody does."""

    approve_within: timedelta
    safe_default: str


@dataclass(frozen=True)
class Wake:
    """Why an agent ran and what it might do: what it heard, in which mode, and who came before it.

    `heard` has a row for each type of event: `type`, `events`, `facts`, and the places `first` and `last` in
    the log. `since` is when the first of them was told; `late` says that the deadline was over. `barred` are
    the subjects that another agent's decisions kept it from, each with `subject`, `rule` and `reason`.
    """

    agent: str
    mode: str
    dispatch_version: str
    since: datetime
    late: bool
    heard: Sequence[Mapping[str, Any]]
    barred: Sequence[Mapping[str, str]] = ()

    def told(self) -> dict[str, Any]:
        """The wake as a run's header keeps it."""
        return {
            "mode": self.mode,
            "dispatch_version": self.dispatch_version,
            "heard_since": stamp(self.since),
            "heard_late": self.late,
            "heard": [dict(each) for each in self.heard],
            "barred": [dict(each) for each in self.barred],
        }


def wake_of(header: Mapping[str, Any]) -> Wake:
    """The wake that a recorded run's header tells of."""
    return Wake(
        agent=header["agent"],
        mode=header["mode"],
        dispatch_version=header["dispatch_version"],
        since=datetime.fromisoformat(header["heard_since"]),
        late=header["heard_late"],
        heard=header["heard"],
        barred=header["barred"],
    )


@dataclass(frozen=True)
class Again:
    """That a run proposes again what was taken back: which decisions (by subject), who asks, and why.

    `worth` is what the whole order of each comes to, with the lines of it that stand; None if not known.
    """

    reverses: Mapping[str, str]
    worth: Mapping[str, int | None]
    by: str
    reason: str


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
    wake: Wake
    again: Again | None = None

    @cached_property
    def subjects(self) -> pa.StringArray:
        """What the decisions are about: the proposals' subjects first and then the holds'."""
        subjects = [
            *self.judgement.proposals["subject"].chunks,
            *self.proposed.holds["subject"].chunks,
        ]
        return pa.chunked_array(subjects, _TEXT).combine_chunks()

    @cached_property
    def ids(self) -> pa.StringArray:
        """The decisions' ids, in the order of their subjects."""
        return ids_of(self.at, self.batch_id, self.subjects)

    @cached_property
    def _known(self) -> Evidence:
        """What was known at each decision, in their order: found once for all parts of the entries."""
        return self.evidence.take(self.subjects)

    @cached_property
    def decided(self) -> pa.Table:
        """The judged proposals with `decision_id`, `verdict` and `role` beside their columns."""
        verdicts = self.judgement.verdicts
        table = self.judgement.proposals.append_column(
            "decision_id", self.ids.slice(0, verdicts.num_rows)
        )
        for name in ("verdict", "role", "persons", "rules"):
            table = table.append_column(name, verdicts[name])
        return table.combine_chunks()

    @cached_property
    def parameters(self) -> pa.StringArray:
        """What is to be done by each judged proposal, as canonical JSON."""
        return canonical.rows(self.decided.select(list(self.proposed.action.parameters.names)))

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
                **self.wake.told(),
                **({"asked_by": self.again.by, "reason": self.again.reason} if self.again else {}),
            },
        )

    def entries(self) -> pa.Table:
        """Header, decisions and holds as ledger entries, in this order."""
        return pa.concat_tables([part() for part in self.parts()])

    def parts(self) -> list[Callable[[], pa.Table]]:
        """What makes the entries, some thousands at a time; calls may run side by side."""
        judged = range(0, self.decided.num_rows, _ROWS_AT_ONCE)
        held = range(0, self.proposed.holds.num_rows, _ROWS_AT_ONCE)
        made = [
            *(partial(self._entries, self._decision_bodies, start) for start in judged),
            *(partial(self._entries, self._hold_bodies, start) for start in held),
        ]
        # The header goes with the first of them: entries that are kept together are read together.
        return [partial(self._first, made[:1]), *made[1:]]

    def _first(self, made: Sequence[Callable[[], pa.Table]]) -> pa.Table:
        return pa.concat_tables([rows([self.header()]), *(part() for part in made)])

    def _decision_bodies(self, start: int) -> pa.Table:
        action = self.proposed.action
        decided = self.decided.slice(start, _ROWS_AT_ONCE)
        asked = self.proposed.proposals.slice(start, _ROWS_AT_ONCE)
        evidence = self._known.slice(start, decided.num_rows)
        clipped = [asked[name].combine_chunks() for name in action.clippable]
        many = decided.num_rows
        return pa.table(
            {
                "kind": pa.repeat("decision", many),
                **self._again_bodies(decided["subject"]),
                "decision_id": decided["decision_id"],
                "step": decided["verdict"],
                "batch_id": pa.repeat(self.batch_id, many),
                "action": pa.repeat(action.name, many),
                "subject": decided["subject"],
                "parameters": self.parameters.slice(start, _ROWS_AT_ONCE),
                "proposed": pa.StructArray.from_arrays(clipped, list(action.clippable)),
                "priority": asked["priority"],
                "arithmetic": decided["arithmetic"],
                "evidence": evidence.texts,
                "evidence_digest": evidence.digests(),
                "rules": decided["rules"],
                "role": decided["role"],
                "money_minor": decided[action.money],
                "currency": decided["currency"],
            }
        )

    def _again_bodies(self, subjects: pa.ChunkedArray) -> dict[str, pa.Array]:
        """What the entries of a run that proposes again have beside those of an ordinary run."""
        if self.again is None:
            return {}
        worth = [self.again.worth.get(subject) for subject in subjects.to_pylist()]
        return {
            "reverses": self._reverses(subjects),
            "group_value_minor": pa.array(worth, pa.int64()),
        }

    def _again(self) -> pa.ChunkedArray:
        """What each judged proposal proposes again, at no cost in an ordinary run."""
        if self.again is None:
            return pa.chunked_array([pa.nulls(self.decided.num_rows, _TEXT)])
        return pa.chunked_array([self._reverses(self.decided["subject"])])

    def _reverses(self, subjects: pa.ChunkedArray) -> pa.Array:
        """The decision that each of some subjects' proposes again; null in an ordinary run."""
        known = self.again.reverses if self.again else {}
        return pa.array([known.get(subject) for subject in subjects.to_pylist()], _TEXT)

    def _hold_bodies(self, start: int) -> pa.Table:
        holds = self.proposed.holds.slice(start, _ROWS_AT_ONCE)
        many = holds.num_rows
        evidence = self._known.slice(self.decided.num_rows + start, many)
        return pa.table(
            {
                "kind": pa.repeat("decision", many),
                "decision_id": self.ids.slice(self.decided.num_rows + start, many),
                "step": pa.repeat(str(Decided.HOLD), many),
                "batch_id": pa.repeat(self.batch_id, many),
                "action": pa.repeat(self.proposed.action.name, many),
                "subject": holds["subject"],
                "reason": holds["reason"],
                "safe_default": holds["safe_default"],
                "evidence": evidence.texts,
                "evidence_digest": evidence.digests(),
            }
        )

    def _entries(self, made: Callable[[int], pa.Table], start: int) -> pa.Table:
        bodies = made(start)
        written = {"evidence", "parameters"} & set(bodies.column_names)
        return pa.table(
            {
                "kind": bodies["kind"],
                "decision_id": bodies["decision_id"],
                "step": bodies["step"],
                "entry": canonical.rows(bodies, written),
            }
        )

    def decisions(self, number: int) -> pa.Table:
        """The folded state of each decision of the batch of this number, as the store keeps it for speed."""
        decided, holds = self.decided, self.proposed.holds
        held, total = holds.num_rows, decided.num_rows + holds.num_rows
        judged = [*decided["verdict"].chunks, pa.repeat(str(Decided.HOLD), held)]
        verdicts = pa.chunked_array(judged, _TEXT).combine_chunks().dictionary_encode()
        statuses = [
            str(first_status(verdict, self.wake.mode))
            for verdict in verdicts.dictionary.to_pylist()
        ]
        return pa.table(
            {
                "decision_id": self.ids,
                "batch": pa.repeat(number, total),
                # The header comes first.
                "place": pa.array(np.arange(1, total + 1)),
                "subject": self.subjects,
                "order_group": _padded(decided["order_group"], held, _TEXT),
                "verdict": verdicts.cast(_TEXT),
                "money_minor": _padded(decided[self.proposed.action.money], held, pa.int64()),
                "currency": _padded(decided["currency"], held, _TEXT),
                "status": pa.array(statuses, _TEXT).take(verdicts.indices),
                "reverses": _padded(self._again(), held, _TEXT),
            }
        )

    def committed(self) -> pa.Table:
        """The lines that are ordered, or will be if somebody approves: they count as on their way."""
        return self.decided.filter(self._are(*_COMMITS))

    def tasks(self) -> pa.Table:
        """Pending actions of the decisions that need nobody's word, an order group's lines together."""
        acts = self._are(*_ACTS)
        decided = self.decided.filter(acts)
        return pa.table(
            {
                "decision_id": decided["decision_id"],
                "action": pa.repeat(self.proposed.action.name, decided.num_rows),
                "task_group": pc.binary_join_element_wise(
                    decided["order_group"], self.batch_id[-12:], "/"
                ),
                "task": self.parameters.filter(acts),
                "expires_at": pa.repeat(
                    pa.scalar(self.at + EXECUTE_WITHIN, _TIMES), decided.num_rows
                ),
            }
        )

    def approvals(self) -> pa.Table:
        """Requests for approval of the escalated decisions, bound to what exactly is to be approved."""
        waits = self._are(Decided.ESCALATE)
        asked = self.decided.filter(waits)
        many = asked.num_rows
        bound = pa.table({"parameters": self.parameters.filter(waits)})
        digests = canonical.sha256(canonical.rows(bound, written={"parameters"}))
        deadline = self.at + self.terms.approve_within
        # Whoever asks for a proposal does not approve it.
        proposer = self.again.by if self.again else f"agent:{self.proposed.agent}"
        return pa.table(
            {
                "decision_id": asked["decision_id"],
                "role": asked["role"],
                "persons": asked["persons"],
                "proposed_by": pa.repeat(proposer, many),
                "requested_at": pa.repeat(pa.scalar(self.at, _TIMES), many),
                "deadline": pa.repeat(pa.scalar(deadline, _TIMES), many),
                "safe_default": pa.repeat(self.terms.safe_default, many),
                "digest": digests,
                "rulebook_version": pa.repeat(self.judgement.rulebook_version, many),
            }
        )

    def uses(self) -> pa.Table:
        """What the decisions that count take from the rulebook's limits."""
        uses = self.judgement.uses
        if uses is None:
            uses = pa.table({name: [] for name in ("subject", "limit", "key", "amount")})
        committed = self.committed()
        places = pc.index_in(
            uses["subject"].cast(_TEXT).combine_chunks(), committed["subject"].combine_chunks()
        )
        uses = uses.filter(places.is_valid())
        day = self.evidence.values["day"][0].as_py() if self.evidence.values.num_rows else None
        return pa.table(
            {
                "decision_id": committed["decision_id"].take(places.drop_null()),
                "limit_id": uses["limit"],
                "key": uses["key"],
                "amount": uses["amount"],
                "used_on": pa.repeat(pa.scalar(day, pa.date32()), uses.num_rows),
            }
        )

    def _are(self, *verdicts: Decided) -> pa.BooleanArray:
        """Of which of the judged proposals something follows by these verdicts; in shadow of none."""
        live = self.wake.mode != SHADOW
        wanted = pa.array([str(verdict) for verdict in verdicts if live], _TEXT)
        return pc.is_in(self.decided["verdict"].combine_chunks(), value_set=wanted)


def record(tx: Transaction, batch: Batch, signing: Signer) -> int:
    """Record a run: its entries in the ledger, and what follows from them; the ledger batch's number."""
    added = {tx.add_uses: batch.uses, tx.add_tasks: batch.tasks, tx.add_approvals: batch.approvals}
    pool = ThreadPoolExecutor(1)
    # Made while the database takes the decisions in.
    made = [(add, pool.submit(make)) for add, make in added.items()]

    def follow(number: int) -> None:
        # In the order of its indexes a table grows in half the time.
        tx.add_run(number, batch.header().body)
        tx.add_decisions(batch.decisions(number).sort_by("decision_id"))
        for add, table in made:
            add(table.result())

    with pool:
        return append_parts(
            tx,
            batch.parts(),
            batch_id=batch.batch_id,
            at=batch.at,
            signing=signing,
            meanwhile=follow,
        )


def use_rows(uses: pa.Table, ids: Mapping[str, str], day: date | None) -> pa.Table:
    """What decisions take from limits on a day, of the uses that a judgement found by subject."""
    keys = [ids[subject] for subject in uses["subject"].to_pylist()]
    return pa.table(
        {
            "decision_id": pa.array(keys, _TEXT),
            "limit_id": uses["limit"],
            "key": uses["key"],
            "amount": uses["amount"],
            "used_on": pa.array([day] * uses.num_rows, pa.date32()),
        }
    )


def _padded(column: pa.ChunkedArray, many: int, kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, pa.nulls(many, kind)], kind)
