"""Who comes first where two agents want something about one subject.

Hides how a judgement is changed by it: what another agent's decision keeps away is denied, whatever its
rulebook said, and the precedence stands among the rules that spoke.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.decisions import RULE, VERDICTS, Decided, Judgement

PRECEDENCE = "precedence"


def bar(judgement: Judgement, barred: Sequence[Mapping[str, str]]) -> Judgement:
    """The judgement with some subjects denied, which then use no limits.

    `barred` has their `subject`, `rule` and `reason`.
    """
    if not barred:
        return judgement
    verdicts = judgement.verdicts
    subjects = verdicts["subject"].combine_chunks()
    why: dict[str, list[dict[str, str]]] = {}
    for each in barred:
        said = {"rule": each["rule"], "effect": PRECEDENCE, "reason": each["reason"]}
        why.setdefault(each["subject"], []).append(said)
    kept_away = pc.is_in(subjects, value_set=pa.array(sorted(why), pa.string()))
    rules = [
        [*told, *why.get(subject, ())]
        for subject, told in zip(subjects.to_pylist(), verdicts["rules"].to_pylist(), strict=True)
    ]
    nobody = {
        name: pc.if_else(
            kept_away,
            pa.scalar(None, verdicts.schema.field(name).type),
            verdicts[name].combine_chunks(),
        )
        for name in ("role", "persons")
    }
    columns = {
        "subject": subjects,
        "verdict": pc.if_else(kept_away, str(Decided.DENY), verdicts["verdict"].combine_chunks()),
        **nobody,
        "rules": pa.array(rules, pa.list_(RULE)),
    }
    uses = judgement.uses
    if uses is not None:
        gone = pa.array(sorted(why), pa.string())
        uses = uses.filter(pc.invert(pc.is_in(uses["subject"], value_set=gone)))
    return replace(judgement, verdicts=pa.table(columns, schema=VERDICTS), uses=uses)
