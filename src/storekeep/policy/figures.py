"""Key figures of a rulebook's version: how it does since it was put in force, and when that is bad enough.

Hides what each figure is counted from, and how the conditions under `rollback` are told. A figure of which
nothing is known is NULL, and a condition that cannot be told takes nothing back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from storekeep.decisions import Decided, Status
from storekeep.policy import query
from storekeep.policy.rulebook import FIGURES, Checked, Rollback

_SCHEMA = pa.schema([(name, pa.float64()) for name in FIGURES])
_OPEN = frozenset({Status.PENDING, Status.ESCALATED, Status.SHADOWED})
_TRIED = frozenset(
    {
        *(Status.EXECUTED, Status.REVERTING, Status.REVERTED, Status.NEEDS_PERSON),
        *(Status.FAILED, Status.DROPPED),
    }
)
_TAKEN_BACK = frozenset({Status.REVERTING, Status.REVERTED, Status.NEEDS_PERSON})
_STANDS = frozenset({Status.PENDING, Status.EXECUTED, Status.NEEDS_PERSON})


def key_figures(
    rows: Iterable[Mapping[str, Any]], days: float, out_of_stock_share: float | None
) -> dict[str, float | None]:
    """The key figures (`FIGURES`) of decisions, of which `rows` tell how many and how much money.

    Each row has `verdict`, `status`, `currency`, `many` and `money_minor`; `days` is since when they are
    counted. A share of nothing is not known, and neither is a sum of several currencies.
    """
    counted = list(rows)
    verdicts, statuses, answered = Counter[str](), Counter[str](), Counter[str]()
    money: dict[str, int] = {}
    for row in counted:
        verdicts[row["verdict"]] += row["many"]
        statuses[row["status"]] += row["many"]
        if row["verdict"] == Decided.ESCALATE:
            answered[row["status"]] += row["many"]
        if row["status"] in _STANDS and row["currency"] is not None:
            money[row["currency"]] = money.get(row["currency"], 0) + row["money_minor"]
    many = verdicts.total()
    ended = sum(answered[each] for each in answered if each not in _OPEN)
    tried = sum(statuses[each] for each in _TRIED)
    return {
        "decisions": float(many),
        "days": days,
        **{f"{name}_share": _share(verdicts[each], many) for name, each in _NAMED.items()},
        "rejected_share": _share(answered[Status.REJECTED], ended),
        "unanswered_share": _share(answered[Status.EXPIRED], ended),
        "failed_share": _share(statuses[Status.FAILED] + statuses[Status.DROPPED], tried),
        "reverted_share": _share(sum(statuses[each] for each in _TAKEN_BACK), tried),
        "committed_minor": float(sum(money.values())) if len(money) < 2 else None,
        "out_of_stock_share": out_of_stock_share,
    }


_NAMED: Mapping[str, Decided] = {
    "allowed": Decided.ALLOW,
    "clipped": Decided.CLIP,
    "escalated": Decided.ESCALATE,
    "denied": Decided.DENY,
    "held": Decided.HOLD,
}


def reached(checked: Checked, figures: Mapping[str, float | None]) -> list[Rollback]:
    """The conditions under `rollback` that hold by these figures, by id; none before its `decisions`."""
    facts = pa.Table.from_pylist([dict(figures)], schema=_SCHEMA)
    decisions = figures["decisions"] or 0
    return [
        condition
        for condition, when in checked.rollback
        if decisions >= condition.decisions and query.any_row(when.sql(), facts, untold=False)
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
