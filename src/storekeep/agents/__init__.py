"""Agents: functions from evidence to proposals. They see nothing else and touch nothing.

`AGENTS` are those that there are, each with the action that it proposes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from storekeep.agents import replenish
from storekeep.decisions import Action, Evidence, Proposed


def alike(evidence: Evidence) -> pa.Array:
    """The urgency of what an agent proposes that knows no difference."""
    return pa.array([0.0] * evidence.values.num_rows)


@dataclass(frozen=True)
class Agent:
    """How an agent proposes, its version, and the name of the action that it proposes.

    `priorities` says how urgent a proposal is, from the evidence alone: the ledger does not keep that.
    """

    propose: Callable[[Evidence, Action], Proposed]
    action: str
    version: str
    priorities: Callable[[Evidence], pa.Array] = alike


AGENTS: Mapping[str, Agent] = {
    replenish.NAME: Agent(
        replenish.propose,
        replenish.ACTION,
        replenish.version(replenish.Parameters()),
        replenish.priorities,
    )
}
