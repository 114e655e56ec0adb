"""How a rulebook's version does since it was put in force, and what happens when it does badly.

Hides the key figures' sources, and which version is gone back to. What was put back by this stays until a
person promotes another: where it does badly as well, or there is nothing to go back to, the agent is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from storekeep import policy, watch
from storekeep.errors import Refused
from storekeep.pipeline.steering import EVERY_AGENT, Steering
from storekeep.store import OURSELVES, Transaction
from storekeep.watch import stage

RULEBOOK = "rulebook"


@dataclass(frozen=True)
class Standing:
    """A rulebook in force: what it says, when it was put in force and after which, and its key figures."""

    rulebook: policy.Rulebook
    promotions: list[dict[str, Any]]
    figures: Mapping[str, float | None]

    @property
    def reasons(self) -> dict[str, str]:
        """Why it is to be taken back, by the conditions that hold; empty as long as it stays."""
        return {
            each.id: each.reason for each in policy.reached(self.rulebook.checked, self.figures)
        }


class Measuring(Steering):
    """From key figures to the version before."""

    def measure(self, agent: str) -> Standing:
        """How an agent's rulebook in force does, and the promotions that led to it."""
        with self.store.transaction(self.tenant) as tx:
            return self._standing(tx, agent)

    def roll_back(self) -> list[str]:
        """Take back each rulebook whose own conditions say so; the agents that this concerns."""
        with (
            stage("roll_back", self.tenant) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            found = [agent for agent in self.agents if self._rolled_back(tx, agent)]
            watched.rows = len(found)
        return found

    def _rolled_back(self, tx: Transaction, agent: str) -> bool:
        if {EVERY_AGENT, agent} & tx.halts().keys() or tx.registered(RULEBOOK, agent) is None:
            return False
        if not self.rulebook(tx, agent).checked.rollback or not self._standing(tx, agent).reasons:
            return False
        # Looked at again, now that nobody else can do the same.
        standing = self._standing(tx, agent, lock=True)
        if not standing.reasons:
            return False
        bad = standing.promotions[0]["version"]
        reason = "; ".join(f"{rule}: {said}" for rule, said in standing.reasons.items())
        watch.rollback(agent, self.tenant, bad, reason)
        before = self._before(tx, agent, standing.promotions)
        if before is None:
            why = f"version {bad[:12]} of its rulebook does badly ({reason}), and none can be put back"
            return self._switched(tx, "halt", agent, OURSELVES, why)
        why = f"version {bad[:12]} was taken back ({reason})"
        told = {"reason": why, "takes_back": bad, "figures": dict(standing.figures)}
        self._put_in_force(tx, RULEBOOK, agent, *before, OURSELVES, why=told)
        return True

    def _before(
        self, tx: Transaction, agent: str, promotions: list[dict[str, Any]]
    ) -> tuple[str, str] | None:
        """Version and text of what was in force before, if it can be put back."""
        now, *earlier = promotions
        other = [each["version"] for each in earlier if each["version"] != now["version"]]
        if now["promoted_by"] == OURSELVES or not other:
            return None
        try:
            self.rulebook(tx, agent, other[0])
        except Refused:
            # It names what is not there any more.
            return None
        return tx.registered(RULEBOOK, agent, other[0])

    def _standing(self, tx: Transaction, agent: str, *, lock: bool = False) -> Standing:
        # The first reading of a rulebook may put the one that ships in force.
        self.rulebook(tx, agent)
        promotions = tx.promotions(RULEBOOK, agent, lock=lock)
        version, since = promotions[0]["version"], promotions[0]["promoted_at"]
        figures = policy.key_figures(
            tx.decided_under(agent, version, since),
            (self.now() - since) / timedelta(days=1),
            tx.out_of_stock_share(),
        )
        return Standing(self.rulebook(tx, agent, version), promotions, figures)
