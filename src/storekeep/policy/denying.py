"""What is denied whatever the rules of its rulebook say: what another comes before, and what comes too late.

Hides how a judgement is changed afterwards. What denied a proposal stands among the rules that spoke of it,
all of which stay, and it uses no limits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep.decisions import RULE, VERDICTS, Decided, Judgement
from storekeep.policy.rulebook import LATE, Content

PRECEDENCE = "precedence"


def bar(judgement: Judgement, barred: Sequence[Mapping[str, str]]) -> Judgement:
    """The judgement with some subjects denied, because another agent comes first.

    `barred` has their `subject`, `rule` and `reason`.
    """
    if not barred:
        return judgement
    why: dict[str, list[dict[str, str]]] = {}
    for each in barred:
        said = {"rule": each["rule"], "effect": PRECEDENCE, "reason": each["reason"]}
        why.setdefault(each["subject"], []).append(said)
    verdicts = judgement.verdicts
    rules = [
        [*told, *why.get(subject, ())]
        for subject, told in zip(
            verdicts["subject"].to_pylist(), verdicts["rules"].to_pylist(), strict=True
        )
    ]
    listed = pa.array(sorted(why), pa.string())
    kept_away = pc.is_in(verdicts["subject"].combine_chunks(), value_set=listed)
    return _denied(judgement, kept_away, pa.array(rules, pa.list_(RULE)))


def overdue(judgement: Judgement, content: Content, waited: timedelta) -> Judgement:
    """The judgement with everything denied, if it took longer than the rulebook lets a decision take."""
    within = content.sla.decide_within
    if within is None or waited <= within:
        return judgement
    instead = content.sla.on_timeout or content.safe_default
    reason = (
        f"Decided {_seconds(waited)} after the first event it answers, and {_seconds(within)} is allowed. "
        f"{instead}"
    )
    said = {"rule": LATE, "effect": "forbid", "reason": reason}
    many = judgement.verdicts.num_rows
    rules = _one_more(judgement.verdicts["rules"].combine_chunks(), said)
    return _denied(judgement, pa.array(np.ones(many, dtype=bool)), rules)


def _denied(judgement: Judgement, gone: pa.BooleanArray, rules: pa.ListArray) -> Judgement:
    """The judgement with the rows that are `gone` denied, and these rules for all."""
    verdicts = judgement.verdicts
    subjects = verdicts["subject"].combine_chunks()
    nobody = {
        name: pc.if_else(
            gone,
            pa.scalar(None, verdicts.schema.field(name).type),
            verdicts[name].combine_chunks(),
        )
        for name in ("role", "persons")
    }
    columns = {
        "subject": subjects,
        "verdict": pc.if_else(gone, str(Decided.DENY), verdicts["verdict"].combine_chunks()),
        **nobody,
        "rules": rules,
    }
    uses = judgement.uses
    if uses is not None:
        uses = uses.filter(pc.invert(pc.is_in(uses["subject"], value_set=subjects.filter(gone))))
    return replace(judgement, verdicts=pa.table(columns, schema=VERDICTS), uses=uses)


def _one_more(rules: pa.ListArray, said: Mapping[str, str]) -> pa.ListArray:
    """The rules that spoke of each row, and the same one more at the end of all."""
    flat = pc.list_flatten(rules)
    ends = np.cumsum(pc.list_value_length(rules).to_numpy(), dtype=np.int64)
    places = np.insert(np.arange(len(flat)), ends, len(flat))
    every = pa.concat_arrays([flat, pa.array([said], flat.type)])
    offsets = np.concatenate([[0], ends + np.arange(1, len(rules) + 1)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), every.take(pa.array(places)), type=pa.list_(RULE)
    )


def _seconds(length: timedelta) -> timedelta:
    """A length as it is told: whole seconds, the last one begun counts."""
    return timedelta(seconds=math.ceil(length.total_seconds()))
