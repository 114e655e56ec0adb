"""What changes between two rulebooks: which rules and limits come, go, or say something else.

Conditions are compared by what they mean. How they are laid out, which comments stand beside them and in
which order rules or joined conditions are written makes no difference, since it makes none to a judgement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storekeep.policy.judging import Rulebook
from storekeep.policy.rulebook import CheckedRule, Content
from storekeep.sql import Expression, same

_Said = str | Expression | None
_HEAD = ("owner", "agent", "action", "description", "safe_default", "roles")


@dataclass(frozen=True)
class Change:
    """One key of a rule, a limit or the rulebook itself, and what it says in each of the two."""

    key: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Difference:
    """A rule, limit or rollback condition that was added, removed or changed; `rulebook` for the whole."""

    kind: str
    id: str
    what: str
    changes: Sequence[Change]


def compare(one: Rulebook, other: Rulebook) -> list[Difference]:
    """What is different in the other rulebook, kind by kind and by id; nothing when both say the same."""
    mine, theirs = _parts(one), _parts(other)
    found = []
    for kind, id_ in sorted(mine.keys() | theirs.keys(), key=_order):
        before, after = mine.get((kind, id_)), theirs.get((kind, id_))
        changes = _changes(before or {}, after or {})
        if before is None or after is None or changes:
            what = "added" if before is None else "removed" if after is None else "changed"
            found.append(Difference(kind, id_, what, changes))
    return found


def _order(part: tuple[str, str]) -> tuple[int, str]:
    return ("rulebook", "rule", "limit", "rollback").index(part[0]), part[1]


def _parts(book: Rulebook) -> dict[tuple[str, str], Mapping[str, _Said]]:
    """All that can differ, part by part."""
    checked, content = book.checked, book.content
    found: dict[tuple[str, str], Mapping[str, _Said]] = {("rulebook", book.id): _head(content)}
    for rule in checked.rules:
        sets = {f"set {name}": value for name, value in rule.set}
        found["rule", rule.id] = {
            "effect": rule.effect,
            "when": rule.when,
            **sets,
            "role": rule.role,
            "persons": _several(rule.persons),
            **_changeable(rule),
            "reason": rule.reason.text,
        }
    for limit in checked.limits:
        found["limit", limit.id] = {
            "sum": limit.amount,
            "by": ", ".join(limit.by),
            "at_most": limit.at_most,
            "per": limit.per,
            "then": limit.then,
            "role": limit.role,
            "persons": _several(limit.persons),
            "reason": limit.reason.text,
        }
    for condition, when in checked.rollback:
        found["rollback", condition.id] = {
            "when": when,
            "decisions": str(condition.decisions),
            "reason": condition.reason,
        }
    return found


def _several(persons: int) -> str | None:
    """How many persons must approve, where it is more than the one who always must."""
    return str(persons) if persons > 1 else None


def _changeable(rule: CheckedRule) -> dict[str, _Said]:
    """What an approver may change under a rule, and between which values."""
    found: dict[str, _Said] = {}
    for one in rule.changes:
        for name in ("at_least", "at_most"):
            found[f"change {one.parameter} {name}"] = getattr(one, name) or "any"
    return found


def _head(content: Content) -> dict[str, _Said]:
    said = {name: getattr(content, name) for name in _HEAD}
    said["roles"] = ", ".join(said["roles"])
    sla = content.sla
    times = {"decide_within": sla.decide_within, "approve_within": sla.approve_within}
    told = {name: None if length is None else str(length) for name, length in times.items()}
    breaker = {f"breaker {name}": str(value) for name, value in content.breaker}
    return {**said, **told, "on_timeout": sla.on_timeout, **breaker}


def _changes(before: Mapping[str, _Said], after: Mapping[str, _Said]) -> list[Change]:
    keys = dict.fromkeys([*before, *after])
    pairs = [(key, before.get(key), after.get(key)) for key in keys]
    return [Change(key, _text(one), _text(two)) for key, one, two in pairs if not _alike(one, two)]


def _alike(one: _Said, other: _Said) -> bool:
    if isinstance(one, Expression) and isinstance(other, Expression):
        return same(one, other)
    return _text(one) == _text(other)


def _text(said: _Said) -> str | None:
    """What stands there on one line."""
    text = said.text if isinstance(said, Expression) else said
    return " ".join(text.split()) if text else None
