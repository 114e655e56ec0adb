"""A rulebook as a person writes it, checked down to the last word before it may decide anything.

Hides what makes a YAML file a rulebook that can be trusted: unknown and missing keys, ids used twice,
conditions that cannot be told from the columns there are, limits nobody could approve. Whatever is wrong is
refused with file, line and column, and the rulebook that is running stays.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, Field

from storekeep import canonical
from storekeep.decisions import Action, Reversibility
from storekeep.errors import InvariantBroken, Refused
from storekeep.policy import reasons, written
from storekeep.policy.forms import Form, Name, Words, fitted, near
from storekeep.policy.reasons import Reason
from storekeep.policy.written import Written
from storekeep.sql import Expression, Family, Place, family, parse

MOST_RULES = 512
GROUP = "order_group"
GROUP_VALUE = "group_value_minor"
EVIDENCE = "evidence."
CLIPPED = "clipped."
DEFAULT, IRREVERSIBLE, LATE = "default", "irreversible", "decide-within"
RESERVED = frozenset({DEFAULT, IRREVERSIBLE, LATE})
LISTS = ("forbid", "escalate", "clip", "permit")
_KEYABLE = frozenset({Family.TEXT, Family.INTEGER, Family.BOOLEAN, Family.DATE})
_WANTED: Mapping[str, str] = {
    "action": "write the action's name, such as PlacePurchaseOrder",
    "when": "a condition is wanted",
    "": "a number or an SQL expression is wanted",
}
_SHORT = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(value: object) -> timedelta:
    """`90s`, `30m`, `4h`, `2d`, `1w`, or ISO 8601 (`PT4H`, `P1DT12H`), and more than nothing."""
    text = str(value)
    if found := re.fullmatch(r"(\d{1,5})([smhdw])", text):
        length = timedelta(**{_SHORT[found[2]]: int(found[1])})
    elif found := re.fullmatch(
        r"P(?:(\d{1,5})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,5})S)?)?", text
    ):
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        length = timedelta(seconds, 0, 0, 0, minutes, hours, weeks) + timedelta(days)
    else:
        raise ValueError("write a duration like 4h, 30m, 2d, or in ISO 8601 like PT4H")
    if not length:
        raise ValueError("a duration must be longer than nothing")
    return length


Sql = Annotated[str, Field(min_length=1)]
Figure = Annotated[int | float | str, Field()]
Duration = Annotated[timedelta, BeforeValidator(duration)]
Persons = Annotated[int, Field(ge=1, le=3)]


class Rule(Form):
    """What every rule has."""

    id: Name = Field(description="Name of the rule, once in the rulebook.")
    when: Sql | bool = Field(description="SQL condition over the row's columns.")
    reason: Words = Field(description="Why, in plain words; `{column}` is filled in.")


class Change(Form):
    """Between which values an approver may set a parameter."""

    at_least: Figure | None = Field(
        default=None, description="The least: a number, or an SQL expression."
    )
    at_most: Figure | None = Field(
        default=None, description="The most: a number, or an SQL expression."
    )


class EscalateRule(Rule):
    """A rule that asks a person."""

    role: Name = Field(description="Role of the person who may approve.")
    persons: Persons | None = Field(
        default=None, description="How many different persons must approve, 1 to 3; 1 if not given."
    )
    change: dict[str, Change] = Field(
        default={}, description="Parameter that an approver may change, and between which values."
    )


class ClipRule(Rule):
    """A rule that lowers a parameter."""

    set: dict[str, Figure] = Field(
        min_length=1, description="Parameter to lower, and the SQL expression of its new value."
    )


class Limit(Form):
    """An amount that several decisions share."""

    id: Name = Field(description="Name of the limit, once in the rulebook.")
    sum: Figure = Field(
        description="SQL expression of what a row uses, a whole number; 1 counts rows."
    )
    by: list[str] = Field(description="Columns that share one amount; empty for one amount in all.")
    at_most: Figure = Field(description="The amount: a number, or an SQL expression.")
    per: Literal["day", "week", "batch"] = Field(description="Time over which it is shared.")
    then: Literal["forbid", "escalate"] = Field(description="What becomes of a row beyond it.")
    role: Name | None = Field(
        default=None, description="Role that may approve; with `escalate` only."
    )
    persons: Persons | None = Field(
        default=None, description="How many persons must approve; with `escalate` only."
    )
    reason: Words = Field(description="Why, in plain words; also `{total}` and `{at_most}`.")


class Sla(Form):
    """How long a decision may take."""

    decide_within: Duration | None = Field(
        default=None,
        description="From the first event to the decision; after it nothing is done. No end if not given.",
    )
    approve_within: Duration = Field(
        default=timedelta(days=1), description="From the decision to a person's answer."
    )
    on_timeout: Words | None = Field(
        default=None, description="What happens when a time is over; `safe_default` if not given."
    )


class Breaker(Form):
    """When nothing more is sent for a while, and how it is tried again."""

    failures: int = Field(
        default=5, ge=1, le=1000, description="So many failures in a row open the breaker."
    )
    within: Duration = Field(
        default=timedelta(minutes=1), description="Over which time they are counted."
    )
    open_for: Duration = Field(
        default=timedelta(seconds=30), description="How long nothing is sent."
    )
    probes: int = Field(
        default=1, ge=1, le=1000, description="How many actions are sent to see if it works again."
    )


class Rollback(Form):
    """A condition over key figures under which this version is taken back."""

    id: Name = Field(description="Name of the condition, once in the rulebook.")
    when: Sql = Field(description="SQL condition over key figures, each a number.")
    decisions: int = Field(
        default=100, ge=1, description="So many decisions before it counts; 100 if not given."
    )
    reason: Words = Field(description="Why, in plain words.")


class Content(Form):
    """All that a rulebook says."""

    rulebook: Name = Field(description="Id of the rulebook.")
    owner: Words = Field(description="Who answers for it.")
    agent: Name = Field(description="Agent whose proposals it judges.")
    action: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{0,63}$")] = Field(
        description="Action it judges."
    )
    description: Words | None = Field(default=None, description="What it is for.")
    safe_default: Words = Field(
        description="What happens instead when a proposal does not go ahead."
    )
    roles: list[Name] = Field(
        default=[], description="Approving roles, lowest first; needed when there are several."
    )
    forbid: list[Rule] = Field(default=[], description="Rules that deny.")
    escalate: list[EscalateRule] = Field(default=[], description="Rules that ask a person.")
    clip: list[ClipRule] = Field(default=[], description="Rules that lower a parameter.")
    permit: list[Rule] = Field(default=[], description="Rules that allow; at least one.")
    limits: list[Limit] = Field(default=[], description="Amounts shared by several decisions.")
    sla: Sla = Field(default=Sla(), description="How long a decision may take.")
    breaker: Breaker = Field(
        default=Breaker(), description="When nothing more is sent for a while."
    )
    rollback: list[Rollback] = Field(
        default=[], description="Conditions under which the version is taken back."
    )


MODELS: Mapping[str, type[BaseModel]] = {
    "": Content,
    "forbid": Rule,
    "escalate": EscalateRule,
    "change": Change,
    "clip": ClipRule,
    "permit": Rule,
    "limits": Limit,
    "sla": Sla,
    "breaker": Breaker,
    "rollback": Rollback,
}
"""Which model describes the keys under each key of a rulebook; the empty one is the whole."""


FIGURES: Mapping[str, str] = {
    "decisions": "Decisions under this version since it was put in force, in shadow too.",
    "days": "Days since then.",
    "allowed_share": "Of the decisions: allowed as proposed.",
    "clipped_share": "Of the decisions: lowered to a limit.",
    "escalated_share": "Of the decisions: a person was asked.",
    "denied_share": "Of the decisions: denied.",
    "held_share": "Of the decisions: held back by the agent.",
    "rejected_share": "Of the requests that wait no more: a person said no.",
    "unanswered_share": "Of the requests that wait no more: nobody answered in time.",
    "failed_share": "Of the actions that came to an end: refused, given up or dropped.",
    "reverted_share": "Of the actions that came to an end: taken back, or to be.",
    "committed_minor": "Money of what goes ahead and was not taken back, where it is one currency.",
    "out_of_stock_share": "Of all items with a stock position: nothing on hand now.",
}
"""What a condition under `rollback` may name, each a number; a share lies between 0 and 1."""


_FIGURE_TYPES = dict.fromkeys(FIGURES, "DOUBLE")


@dataclass(frozen=True)
class CheckedChange:
    """What an approver may set a parameter to; no expression, no bound on that side."""

    parameter: str
    at_least: Expression | None
    at_most: Expression | None


@dataclass(frozen=True)
class CheckedRule:
    """One rule, ready to be compiled."""

    id: str
    effect: str
    when: Expression
    reason: Reason
    role: str | None = None
    set: tuple[tuple[str, Expression], ...] = ()
    persons: int = 1
    changes: tuple[CheckedChange, ...] = ()


@dataclass(frozen=True)
class CheckedLimit:
    """One limit, ready to be compiled."""

    id: str
    amount: Expression
    by: tuple[str, ...]
    at_most: Expression
    per: str
    then: str
    role: str | None
    reason: Reason
    persons: int = 1


@dataclass(frozen=True)
class Checked:
    """A rulebook's content with every expression read; rules and limits in an order of their own."""

    content: Content
    version: str
    rules: tuple[CheckedRule, ...]
    limits: tuple[CheckedLimit, ...]
    roles: tuple[str, ...]
    rollback: tuple[tuple[Rollback, Expression], ...]
    action: Action
    derived: Mapping[str, Expression]
    columns: Mapping[str, str]


def check(
    source: Path | str,
    name: str,
    action: Action | Mapping[str, Action],
    evidence: Mapping[str, str],
) -> Checked:
    """Read and check a rulebook against its action's parameters and the evidence's columns.

    Raises `Refused` (a file that cannot be opened: `Misused`) with the place of what is wrong.
    """
    found = written.read(source, name)
    content = _content(found)
    return _Checker(found, content, _action(found, content, action), evidence).checked()


def columns(action: Action, evidence: Mapping[str, str]) -> dict[str, str]:
    """The columns that a rulebook may name, with their DuckDB types.

    A parameter hides a column of the evidence that has the same name; that is then `evidence.<name>`.
    """
    named = {"subject": "VARCHAR", "priority": "DOUBLE", **action.parameters.duckdb_types()}
    known = {name: kind.upper() for name, kind in evidence.items()}
    found = {f"{EVIDENCE}{name}": kind for name, kind in known.items()} | known | named
    if GROUP in named:
        found[GROUP_VALUE] = "BIGINT"
    return found


def _content(source: Written) -> Content:
    if not isinstance(source.value, dict):
        what = "a rulebook is keys with values, such as `rulebook: replenish`"
        raise Refused(f"{source.place()}: {what}")
    return fitted(source, Content, MODELS, _WANTED)


def _action(source: Written, content: Content, given: Action | Mapping[str, Action]) -> Action:
    """The action that a rulebook is for."""
    place, name = source.place("action"), content.action
    if isinstance(given, Action):
        if name != given.name:
            raise Refused(
                f"{place}: the rulebook is for {name}, and was given to judge {given.name}"
            )
        return given
    if name not in given:
        raise Refused(f"{place}: there is no action {name!r}; {near(name, given)}")
    return given[name]


class _Checker:
    def __init__(
        self, source: Written, content: Content, action: Action, evidence: Mapping[str, str]
    ) -> None:
        self.source = source
        self.content = content
        self.action = action
        self.columns = columns(action, evidence)

    def checked(self) -> Checked:
        content = self.content
        self._whole(content)
        rules = [rule for effect in LISTS for rule in self._rules(content, effect)]
        limits = [self._limit(place, limit) for place, limit in enumerate(content.limits)]
        rollback = [
            (one, self._expression(("rollback", at, "when"), one.when, _FIGURE_TYPES, "BOOLEAN"))
            for at, one in enumerate(content.rollback)
        ]
        return Checked(
            content=content,
            version=self._version(),
            rules=tuple(sorted(rules, key=lambda rule: (LISTS.index(rule.effect), rule.id))),
            limits=tuple(sorted(limits, key=lambda limit: limit.id)),
            roles=self._roles(content),
            rollback=tuple(sorted(rollback, key=lambda each: each[0].id)),
            action=self.action,
            derived=self._derived(),
            columns=self.columns,
        )

    def refuse(self, place: Place, what: str) -> NoReturn:
        raise Refused(f"{place}: {what}")

    def _whole(self, content: Content) -> None:
        if len(set(content.roles)) < len(content.roles):
            self.refuse(self.source.place("roles"), "a role is listed twice")
        if not content.permit:
            place = (
                self.source.key("permit") if "permit" in self.source.value else self.source.place()
            )
            self.refuse(place, "there is no permit rule, so everything would be denied; add one")
        listed = [
            (self.source.place(key, at, "id"), one.id)
            for key in (*LISTS, "limits", "rollback")
            for at, one in enumerate(getattr(content, key))
        ]
        seen: dict[str, Place] = {}
        for place, name in sorted(listed, key=lambda one: (one[0].line, one[0].column)):
            if name in RESERVED:
                self.refuse(place, f"id {name!r} is reserved; choose another")
            if name in seen:
                first = seen[name].line
                self.refuse(place, f"id {name!r} is used twice, first in line {first}")
            seen[name] = place
        if len(seen) > MOST_RULES:
            self.refuse(
                self.source.place(), f"a rulebook has at most {MOST_RULES} rules and limits"
            )

    def _rules(self, content: Content, effect: str) -> Iterator[CheckedRule]:
        rules: Sequence[Rule] = getattr(content, effect)
        for at, rule in enumerate(rules):
            yield CheckedRule(
                id=rule.id,
                effect=effect,
                when=self._expression((effect, at, "when"), rule.when, self.columns, "BOOLEAN"),
                reason=self._reason((effect, at, "reason"), rule.reason, effect),
                role=rule.role if isinstance(rule, EscalateRule) else None,
                set=tuple(self._sets(at, rule)) if isinstance(rule, ClipRule) else (),
                persons=(rule.persons or 1) if isinstance(rule, EscalateRule) else 1,
                changes=tuple(self._changes(at, rule)) if isinstance(rule, EscalateRule) else (),
            )

    def _changes(self, at: int, rule: EscalateRule) -> Iterator[CheckedChange]:
        for parameter, allowed in sorted(rule.change.items()):
            place = self.source.key("escalate", at, "change", parameter)
            if parameter not in self.action.clippable:
                listed = ", ".join(self.action.clippable) or "none"
                what = f"{parameter!r} cannot be changed by a person; of {self.action.name} can: {listed}"
                self.refuse(place, what)
            bounds = {
                name: self._expression(
                    ("escalate", at, "change", parameter, name), value, self.columns, "DOUBLE"
                )
                for name in ("at_least", "at_most")
                if (value := getattr(allowed, name)) is not None
            }
            if not bounds:
                self.refuse(place, f"say how far {parameter!r} may go: `at_least`, `at_most`")
            yield CheckedChange(parameter, bounds.get("at_least"), bounds.get("at_most"))

    def _sets(self, at: int, rule: ClipRule) -> Iterator[tuple[str, Expression]]:
        for parameter, value in sorted(rule.set.items()):
            if parameter not in self.action.clippable:
                allowed = ", ".join(self.action.clippable) or "none"
                self.refuse(
                    self.source.key("clip", at, "set", parameter),
                    f"{parameter!r} cannot be lowered by policy; of {self.action.name} can: {allowed}",
                )
            yield (
                parameter,
                self._expression(("clip", at, "set", parameter), value, self.columns, "DOUBLE"),
            )

    def _limit(self, at: int, limit: Limit) -> CheckedLimit:
        changing = {*self.action.clippable, *self.action.derived, GROUP_VALUE}
        for place, name in enumerate(limit.by):
            where = self.source.place("limits", at, "by", place)
            kind = self.columns.get(name)
            if kind is None:
                near = difflib.get_close_matches(name, self.columns, 1)
                hint = f"did you mean {near[0]!r}?" if near else "see the action and the evidence"
                self.refuse(where, f"unknown column {name!r}; {hint}")
            if name in changing or family(kind) not in _KEYABLE:
                self.refuse(
                    where,
                    f"a limit cannot be shared by {name!r}: it changes, or is a fraction or time",
                )
        if (limit.role is None) == (limit.then == "escalate"):
            what = (
                "needs a `role` that may approve" if limit.role is None else "has no use for `role`"
            )
            self.refuse(self.source.key("limits", at), f"a limit that {limit.then}s {what}")
        if limit.persons is not None and limit.then != "escalate":
            key = self.source.key("limits", at, "persons")
            self.refuse(key, f"a limit that {limit.then}s has no use for `persons`")
        return CheckedLimit(
            id=limit.id,
            amount=self._expression(("limits", at, "sum"), limit.sum, self.columns, "BIGINT"),
            by=tuple(sorted(set(limit.by))),
            at_most=self._expression(
                ("limits", at, "at_most"), limit.at_most, self.columns, "DOUBLE"
            ),
            per=limit.per,
            then=limit.then,
            role=limit.role,
            reason=self._reason(("limits", at, "reason"), limit.reason, "limit"),
            persons=limit.persons or 1,
        )

    def _expression(
        self,
        path: written.Steps,
        text: str | float | bool,
        schema: Mapping[str, str],
        want: str,
    ) -> Expression:
        shown = str(text).lower() if isinstance(text, bool) else str(text)
        return parse(shown, schema, place=self.source.place(*path), want=want)

    def _reason(self, path: written.Steps, text: str, effect: str) -> Reason:
        more: dict[str, str] = {}
        if effect == "clip":
            more = {f"{CLIPPED}{one}": self.columns[one] for one in self.action.clippable}
        if effect == "limit":
            more = {"total": "BIGINT", "at_most": "DOUBLE"}
        return reasons.read(text, self.columns | more, self.source.place(*path))

    def _roles(self, content: Content) -> tuple[str, ...]:
        """The approving roles, lowest first."""
        used = {
            one.role: self.source.place(key, at, "role")
            for key in ("escalate", "limits")
            for at, one in enumerate(getattr(content, key))
            if one.role
        }
        if content.roles:
            for role, place in used.items():
                if role not in content.roles:
                    self.refuse(
                        place, f"role {role!r} is not in `roles`: {', '.join(content.roles)}"
                    )
        elif len(used) > 1:
            self.refuse(
                self.source.place(),
                f"several roles approve ({', '.join(sorted(used))}): list them in `roles`, lowest first",
            )
        found = tuple(content.roles or used)
        if not found and self.action.reversibility is Reversibility.IRREVERSIBLE:
            self.refuse(
                self.source.place(),
                f"{self.action.name} cannot be taken back, so a person must approve it: give `roles`",
            )
        return found

    def _derived(self) -> dict[str, Expression]:
        """The action's derived parameters; they are ours, so a fault in them is no fault of the file."""
        schema = {
            name: kind
            for name, kind in self.action.parameters.duckdb_types().items()
            if name not in self.action.derived
        }
        try:
            return {
                name: parse(text, schema, place=Place(f"action {self.action.name}", 1, 1))
                for name, text in self.action.derived.items()
            }
        except Refused as error:
            raise InvariantBroken(f"a derived parameter cannot be computed: {error}") from None

    def _version(self) -> str:
        """SHA-256 of the canonical content: comments, layout and order of keys and rules do not matter."""

        def ordered(key: str, value: Any) -> Any:
            if key in MODELS and isinstance(value, list):
                return sorted(value, key=lambda one: one["id"])
            return value

        plain = {key: ordered(key, value) for key, value in self.source.value.items()}
        return canonical.digest(plain)
