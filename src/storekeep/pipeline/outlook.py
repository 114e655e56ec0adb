"""What a person needs to see to answer a request: what is asked and why, and what would be if judged now.

Hides where the parts lie, and what counts as a difference between then and now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import ledger
from storekeep.decisions import Evidence, stamp
from storekeep.pipeline.rejudging import Word

_SHOWN = (
    *("decision_id", "subject", "location_id", "order_group", "agent", "action", "money_minor"),
    *("currency", "role", "persons", "agreed", "proposed_by", "changed_by", "requested_at"),
    *("deadline", "safe_default", "digest", "rulebook_version"),
)


def asked(
    request: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    run: Mapping[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """What is asked, by which rules, from which figures, and how old these are."""
    last = [each for each in history if "after" in each] or history[:1]
    age = now - datetime.fromisoformat(run["known_by"])
    return {
        **{name: request[name] for name in _SHOWN},
        "parameters": ledger.standing(history),
        "proposed": history[0]["proposed"],
        "arithmetic": history[0]["arithmetic"],
        "rules": last[-1]["rules"],
        "known_by": run["known_by"],
        "evidence_age_hours": round(age / timedelta(hours=1), 1),
    }


def by_now(
    history: Sequence[Mapping[str, Any]], word: Word, evidence: Evidence, role: str, persons: int
) -> dict[str, Any]:
    """What policy says if it is judged now, and which figures are no longer what they were."""
    mine = evidence.values.filter(pc.equal(evidence.values["subject"], word.plain["subject"]))
    known = {name: _plain(value) for row in mine.to_pylist() for name, value in row.items()}
    then = history[0]["evidence"]
    return {
        "verdict": word.plain["verdict"],
        "if_approved": "approved" if word.stands else "denied",
        "role": role,
        "persons": persons,
        "rulebook_version": word.rulebook.version,
        "rules": word.plain["rules"],
        "evidence": {
            name: [then[name], known.get(name)] for name in then if then[name] != known.get(name)
        },
    }


def open_bounds(bound: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds of a change, null where a side is open."""
    sides = ("at_least", "at_most")
    return {
        **{name: bound[name] for name in ("rule", "parameter")},
        **{name: bound[name] if math.isfinite(bound[name]) else None for name in sides},
    }


def recorded_evidence(history: Sequence[Mapping[str, Any]], like: Evidence) -> Evidence:
    """What was known about a decision's subject when it was made, in the columns of evidence of now."""
    then, schema = history[0]["evidence"], like.values.schema
    columns = [
        # JSON has dates and times as texts, which Arrow reads.
        pa.array([then.get(one.name)], pa.string() if pa.types.is_temporal(one.type) else one.type)
        for one in schema
    ]
    values = pa.Table.from_arrays(columns, names=schema.names).cast(schema)
    return replace(like, values=values)


def _plain(value: object) -> object:
    """A figure in the form in which the ledger keeps it."""
    if isinstance(value, datetime):
        return stamp(value)
    return value.isoformat() if isinstance(value, date) else value
