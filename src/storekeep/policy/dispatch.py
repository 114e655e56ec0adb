"""Who hears what: from types of event and conditions to the agents that are woken, as data.

Hides how a YAML file becomes a dispatch that can be trusted. For whoever answers for what runs: which agent
hears which event, for whom, how long events are gathered before it is woken, until when it has to decide, how
many of its runs go on at once, and who comes first where two agents want something about one subject. The
order in which agents stand in the file makes no difference. `docs/dispatch.md` is the whole language.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from storekeep import canonical
from storekeep.decisions import ModeChange
from storekeep.errors import Refused
from storekeep.events import EVENT_TABLES, Event
from storekeep.policy import query, written
from storekeep.policy.forms import Form, Name, Words, fitted, near
from storekeep.policy.rulebook import Duration, Sql, duration
from storekeep.policy.written import Written
from storekeep.sql import Expression, parse

SHIPPED_DISPATCH = Path(__file__).parent / "dispatch.yaml"
"""The dispatch policy that ships."""

MODES = ("off", "shadow", "live")


def _window(value: object) -> timedelta:
    """A duration, or nothing at all: `0s`."""
    return timedelta() if re.fullmatch(r"0[smhdw]?", str(value)) else duration(value)


Pattern = Annotated[str, Field(min_length=1, max_length=200)]


class Hears(Form):
    """A type of event that an agent is woken by."""

    event: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{0,63}$")] = Field(
        description="Type of event, such as SaleRecorded."
    )
    when: Sql | bool = Field(
        default=True, description="SQL condition over the facts' columns; one that holds is enough."
    )


class Listener(Form):
    """An agent, and what it is woken for."""

    agent: Name = Field(description="Name of the agent, once in the policy.")
    hears: list[Hears] = Field(min_length=1, description="Events that wake it.")
    mode: Literal["off", "shadow", "live"] = Field(
        default="shadow", description="What it may do until somebody sets a mode."
    )
    scope: list[Name] = Field(default=[], description="Groups it hears; all locations if none.")
    priority: Annotated[int, Field(ge=-1000, le=1000)] = Field(
        default=0, description="Of those due at once the highest runs first."
    )
    window: Annotated[timedelta, BeforeValidator(_window)] = Field(
        default=timedelta(), description="How long events are gathered before it is woken, once."
    )
    deadline: Duration = Field(
        default=timedelta(hours=1), description="From the first event to the decision."
    )
    concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Runs of it that go on at once, each for a location."
    )


class Precedence(Form):
    """Which of two agents comes first where both want something about one subject."""

    id: Name = Field(description="Name of the precedence, once in the policy.")
    first: Name = Field(description="Agent that comes first.")
    then: Name = Field(description="Agent whose proposals have to wait.")
    within: Duration = Field(description="For how long a decision of the first keeps others away.")
    reason: Words = Field(description="Why, in plain words.")


class Content(Form):
    """All that a dispatch policy says."""

    dispatch: Name = Field(description="Id of the policy.")
    owner: Words = Field(description="Who answers for it.")
    description: Words | None = Field(default=None, description="What it is for.")
    groups: dict[Name, list[Pattern]] = Field(
        default={}, description="Named locations: ids, or patterns with * and ?."
    )
    agents: list[Listener] = Field(min_length=1, description="Agents, and what wakes them.")
    precedence: list[Precedence] = Field(default=[], description="Who comes first.")


FORMS: Mapping[str, type[BaseModel]] = {
    "": Content,
    "agents": Listener,
    "hears": Hears,
    "precedence": Precedence,
}
"""Which form describes the keys under each key of a dispatch policy; the empty one is the whole."""
_WANTED: Mapping[str, str] = {
    "event": "write the event's type, such as SaleRecorded",
    "mode": f"write one of {', '.join(MODES)}",
    "when": "a condition is wanted",
}


@dataclass(frozen=True)
class Dispatch:
    """A dispatch policy that was checked, and can be asked."""

    content: Content
    version: str
    conditions: Mapping[tuple[str, str], tuple[Expression, ...]]

    def listener(self, agent: str) -> Listener | None:
        """What the policy says of an agent; None when it does not know it."""
        return next((one for one in self.content.agents if one.agent == agent), None)

    def listeners(self, type_: str, location_id: str) -> list[Listener]:
        """The agents that hear a type of event of a location, the most important first."""
        found = [
            one
            for one in self.content.agents
            if (one.agent, type_) in self.conditions and self.covers(one.scope, location_id)
        ]
        return sorted(found, key=lambda one: (-one.priority, one.agent))

    def covers(self, groups: Sequence[str], location_id: str) -> bool:
        """Whether a location is in one of some groups, or is one of them; with none named, all are."""
        patterns = [each for group in groups for each in self.content.groups.get(group, [group])]
        return not groups or any(fnmatch.fnmatchcase(location_id, each) for each in patterns)

    def mode(
        self, agent: str, version: str | None, location_id: str, changes: Sequence[ModeChange]
    ) -> str:
        """What an agent may do at a location: by the newest change that speaks of it, else by the policy.

        `changes` come newest first. A canary is live in its groups and shadows everywhere else.
        """
        for each in changes:
            if each.agent != agent or each.agent_version not in (None, version):
                continue
            inside = self.covers(each.groups, location_id)
            if each.mode == "canary":
                return "live" if inside else "shadow"
            if inside:
                return each.mode
        listener = self.listener(agent)
        return "off" if listener is None else listener.mode

    def wakes_at_once(self, agent: str, type_: str) -> bool:
        """Whether every event of a type wakes an agent, whatever its facts say."""
        return any(one.text == "true" for one in self.conditions.get((agent, type_), ()))

    def heard(self, agent: str, events: Sequence[Event]) -> list[Event]:
        """Those of some events that an agent is woken by: one fact that fits is enough.

        What cannot be told wakes it: it will look, and policy still judges what it proposes.
        """
        return [each for each in events if self._fits(agent, each)]

    def _fits(self, agent: str, event: Event) -> bool:
        return any(
            query.any_row(condition.sql(), event.facts, untold=True)
            for condition in self.conditions.get((agent, event.type), ())
        )

    def before(self, agent: str) -> list[Precedence]:
        """The precedences by which an agent has to wait for others."""
        return [one for one in self.content.precedence if one.then == agent]


def is_dispatch(path: Path) -> bool:
    """Whether a file is meant for a dispatch policy: it has a key `dispatch`."""
    value = written.read(path, str(path)).value
    return isinstance(value, dict) and "dispatch" in value


def load_dispatch(source: Path | str, agents: Sequence[str], *, name: str = "dispatch") -> Dispatch:
    """Read and check a dispatch policy: a file when given a `Path`, else the text itself.

    `agents` are those that there are. Raises `Refused` with file, line and column of the first fault.
    """
    found = written.read(source, name)
    if not isinstance(found.value, dict):
        raise Refused(f"{found.place()}: a dispatch policy is keys with values")
    content = fitted(found, Content, FORMS, _WANTED)
    _agents(found, content, agents)
    _precedences(found, content)
    return Dispatch(content, canonical.digest(found.value), _conditions(found, content))


def _agents(source: Written, content: Content, known: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for at, one in enumerate(content.agents):
        place = source.place("agents", at, "agent")
        if one.agent not in known:
            raise Refused(f"{place}: there is no agent {one.agent!r}; {near(one.agent, known)}")
        if one.agent in seen:
            raise Refused(
                f"{place}: agent {one.agent!r} stands here twice, first in line {seen[one.agent]}"
            )
        seen[one.agent] = place.line
        for number, group in enumerate(one.scope):
            if group not in content.groups:
                where = source.place("agents", at, "scope", number)
                raise Refused(
                    f"{where}: there is no group {group!r}; {near(group, content.groups)}"
                )


def _precedences(source: Written, content: Content) -> None:
    known = [one.agent for one in content.agents]
    over: dict[str, set[str]] = {}
    seen: set[str] = set()
    for at, one in enumerate(content.precedence):
        for key, agent in (("first", one.first), ("then", one.then)):
            if agent not in known:
                where = source.place("precedence", at, key)
                raise Refused(
                    f"{where}: {agent!r} is not among this policy's agents; {near(agent, known)}"
                )
        if one.id in seen:
            raise Refused(f"{source.place('precedence', at, 'id')}: id {one.id!r} is used twice")
        seen.add(one.id)
        over.setdefault(one.first, set()).add(one.then)
        if one.first in _below(one.first, over):
            raise Refused(
                f"{source.place('precedence', at, 'then')}: {one.first!r} would come before itself"
            )


def _below(agent: str, over: Mapping[str, set[str]]) -> set[str]:
    """All agents that have to wait for one, directly or through others."""
    found: set[str] = set()
    left = [agent]
    while left:
        for each in over.get(left.pop(), set()) - found:
            found.add(each)
            left.append(each)
    return found


def _conditions(source: Written, content: Content) -> dict[tuple[str, str], tuple[Expression, ...]]:
    found: dict[tuple[str, str], list[Expression]] = {}
    for at, number, agent, heard in _hearings(content):
        path = ("agents", at, "hears", number)
        table = EVENT_TABLES.get(heard.event)
        if table is None:
            where = source.place(*path, "event")
            raise Refused(
                f"{where}: no event is called {heard.event!r}; {near(heard.event, EVENT_TABLES)}"
            )
        text = heard.when if isinstance(heard.when, str) else str(heard.when).lower()
        place = source.place(*path, "when")
        condition = parse(text, table.duckdb_types(), place=place, want="BOOLEAN")
        found.setdefault((agent, heard.event), []).append(condition)
    return {key: tuple(conditions) for key, conditions in found.items()}


def _hearings(content: Content) -> Iterator[tuple[int, int, str, Hears]]:
    for at, listener in enumerate(content.agents):
        for number, heard in enumerate(listener.hears):
            yield at, number, listener.agent, heard
