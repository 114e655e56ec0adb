"""Recorded proposals judged again: by the evidence of now, under the rulebook in force.

Hides that decisions of several places and agents are judged apart, that what a proposal itself committed does
not count against it, and that a line judged alone still belongs to its whole order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from storekeep import bus, features, ledger, policy
from storekeep.decisions import Decided, Evidence, Proposed, Selection
from storekeep.pipeline.recording import Recording, used_limits
from storekeep.policy.rulebook import GROUP, GROUP_VALUE
from storekeep.store import Transaction


@dataclass(frozen=True)
class Ground:
    """What decisions of one location, agent and action are judged on by now."""

    ids: Sequence[str]
    proposed: Proposed
    evidence: Evidence
    rulebook: policy.Rulebook
    groups: Mapping[str, int]


@dataclass(frozen=True)
class Word:
    """What policy says by now: of the proposal alone (`plain`), and if a person agrees (`agreed`)."""

    plain: Mapping[str, Any]
    agreed: Mapping[str, Any]
    stands: bool
    evidence_digest: str
    uses: pa.Table
    rulebook: policy.Rulebook

    @property
    def ladder(self) -> Sequence[str]:
        """The approving roles of the rulebook that judged, the lowest first."""
        return self.rulebook.checked.roles

    def entry(self) -> dict[str, Any]:
        """What the ledger keeps of it beside a person's word."""
        return {
            "rules": self.agreed["rules"],
            "rulebook_version": self.rulebook.version,
            "evidence_digest": self.evidence_digest,
        }


class Rejudging(Recording):
    """From recorded proposals to what policy says of them by now."""

    def _judge_again(self, tx: Transaction, ids: Sequence[str]) -> dict[str, Word]:
        """What policy says by now of recorded proposals, by id."""
        found: dict[str, Word] = {}
        for ground in self._grounds(tx, ids):
            found |= self._words(tx, ground, ground.proposed)
        return found

    def _grounds(self, tx: Transaction, ids: Sequence[str]) -> Iterator[Ground]:
        places: dict[tuple[str, str, str], list[str]] = {}
        rows = {row["decision_id"]: row for row in tx.decisions(Selection(ids=tuple(ids)))}
        for key in ids:
            row = rows[key]
            places.setdefault((row["location_id"], row["agent"], row["action"]), []).append(key)
        for (location_id, agent, action), keys in places.items():
            partition = bus.partition_of(self.tenant, location_id)
            self._move_stock(tx, partition)
            proposed = ledger.proposed(tx, keys, self._action(action))
            skus = proposed.proposals["sku"].to_pylist()
            evidence = self._snapshot(tx, location_id, partition, skus)
            yield Ground(
                ids=keys,
                proposed=proposed,
                evidence=features.without_own(evidence, proposed),
                rulebook=self.rulebook(tx, agent),
                groups=tx.group_values(keys),
            )

    def _words(self, tx: Transaction, ground: Ground, asked: Proposed) -> dict[str, Word]:
        """What policy says by now of proposals for the decisions of a ground, in their order."""
        rulebook, evidence = ground.rulebook, ground.evidence
        asked = _of_whole_orders(ground, asked)
        used = used_limits(tx, rulebook, asked, evidence, without=ground.ids)
        subjects = asked.proposals["subject"]
        plain = policy.judge(rulebook, asked, evidence, used)
        agreed = policy.judge(
            rulebook, asked, evidence, used, approved=frozenset(subjects.to_pylist())
        )
        clippable = list(asked.action.clippable)
        before, after = (
            table.select(clippable).to_pylist() for table in (asked.proposals, agreed.proposals)
        )
        digests = dict(
            zip(evidence.values["subject"].to_pylist(), evidence.digests().to_pylist(), strict=True)
        )
        found = {}
        rows = zip(plain.verdicts.to_pylist(), agreed.verdicts.to_pylist(), strict=True)
        for place, (key, (alone, row)) in enumerate(zip(ground.ids, rows, strict=True)):
            allowed = row["verdict"] in (Decided.ALLOW, Decided.CLIP)
            found[key] = Word(
                plain=alone,
                agreed=row,
                # A person agrees to this quantity, not to what would be left of it.
                stands=allowed and before[place] == after[place],
                evidence_digest=digests.get(row["subject"], ""),
                uses=agreed.uses if agreed.uses is not None else policy.USES.empty_table(),
                rulebook=rulebook,
            )
        return found


def _of_whole_orders(ground: Ground, asked: Proposed) -> Proposed:
    """The proposals with what the whole order of each comes to, the other lines as they stand."""
    if GROUP not in asked.proposals.column_names:
        return asked
    money = asked.action.money
    stands, wanted = (one.proposals[money].to_pylist() for one in (ground.proposed, asked))
    known = [ground.groups.get(key) for key in ground.ids]
    values = [
        None if value is None else value + new - old
        for value, old, new in zip(known, stands, wanted, strict=True)
    ]
    return worth_in_all(asked, values)


def worth_in_all(asked: Proposed, values: Sequence[int | None]) -> Proposed:
    """Proposals with what the whole order of each comes to; null where that is not known."""
    column = pa.array(values, pa.int64())
    return replace(asked, proposals=asked.proposals.append_column(GROUP_VALUE, column))
