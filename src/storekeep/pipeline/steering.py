"""How far agents may go: their modes, and the switch that stops them.

Hides how a change becomes a rule of the record and an entry of the ledger in one step. A stop needs nobody's
approval and holds for all that has not been carried out; whatever gives an agent its head needs two people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from storekeep.decisions import ModeChange, stamp
from storekeep.errors import Refused
from storekeep.ledger import Entry
from storekeep.pipeline.opening import Opened
from storekeep.store import Transaction

EVERY_AGENT = ""
MODES = ("off", "shadow", "canary", "live")


class Steering(Opened):
    """Modes and stops."""

    def set_mode(
        self,
        agent: str,
        mode: str,
        *,
        by: str,
        approver: str,
        reason: str,
        groups: Sequence[str] = (),
        agent_version: str | None = None,
    ) -> ModeChange:
        """From now on an agent may do this much, everywhere or in some groups of locations.

        Groups are those of the dispatch policy, or ids of locations with * and ?. Raises `Refused` when the
        agent is unknown, when who asks also approves, or when a canary names no group.
        """
        self._known(agent)
        if mode not in MODES:
            raise Refused(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
        if by == approver:
            raise Refused(f"{by} asks for the change, so somebody else has to approve it")
        if mode == "canary" and not groups:
            raise Refused("a canary acts in some locations only: name them, or their group")
        change = ModeChange(
            *(agent, agent_version, tuple(groups), mode, self.now(), by, approver, reason)
        )
        with self.store.transaction(self.tenant) as tx:
            tx.add_mode(change)
            said = {**asdict(change), "groups": list(groups), "set_at": stamp(change.set_at)}
            self._note(tx, Entry("mode", said))
        return change

    def halt(self, agent: str, *, by: str, reason: str) -> bool:
        """Stop an agent, or with no name every agent: nothing that is not done yet is done.

        What takes something back goes on. False when it stands still already.
        """
        return self._switch("halt", agent, by, reason)

    def resume(self, agent: str, *, by: str, reason: str) -> bool:
        """Let an agent that was stopped go on; False when it was not."""
        return self._switch("resume", agent, by, reason)

    def _switch(self, verb: str, agent: str, by: str, reason: str) -> bool:
        if agent != EVERY_AGENT:
            self._known(agent)
        with self.store.transaction(self.tenant) as tx:
            return self._switched(tx, verb, agent, by, reason)

    def _switched(self, tx: Transaction, verb: str, agent: str, by: str, reason: str) -> bool:
        at = self.now()
        changed = tx.halt(agent, at, by, reason) if verb == "halt" else tx.resume(agent)
        if changed:
            said = {"agent": agent or None, "by": by, "at": stamp(at), "reason": reason}
            self._note(tx, Entry(verb, said))
        return changed

    def standing(self) -> list[dict[str, Any]]:
        """Each agent of the dispatch policy: its modes, newest first, and whether it is stopped."""
        with self.store.transaction(self.tenant) as tx:
            dispatch, changes, halts = self.dispatch_policy(tx), tx.modes(), tx.halts()
        return [
            {
                "agent": one.agent,
                "mode": dispatch.mode(one.agent, None, EVERY_AGENT, changes),
                "changes": [asdict(each) for each in changes if each.agent == one.agent],
                "halted": halts.get(one.agent) or halts.get(EVERY_AGENT),
                "hears": sorted({each.event for each in one.hears}),
            }
            for one in dispatch.content.agents
        ]

    def _known(self, agent: str) -> None:
        if agent not in self.agents:
            raise Refused(f"there is no agent {agent!r}; there are {', '.join(self.agents)}")
