"""Agents: functions from evidence to proposals. They see nothing else and touch nothing.

`AGENTS` are those that there are, each with the action that it proposes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from storekeep.agents import replenish
from storekeep.decisions import Action, Evidence, Proposed


@dataclass(frozen=True)
class Agent:
    """How an agent proposes, its version, and the name of the action that it proposes."""

    propose: Callable[[Evidence, Action], Proposed]
    action: str
    version: str


AGENTS: Mapping[str, Agent] = {
    replenish.NAME: Agent(
        replenish.propose,
        replenish.ACTION,
        replenish.version(replenish.Parameters()),
    )
}
