"""One tenant's stores, lake and adapters while they are open, and the rulebooks in force.

Hides how a home is opened, and that a rulebook is read once, however many tenants it is in force for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from random import random
from typing import Any

import pyarrow as pa

from storekeep import features, ledger, policy
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
    Adapter,
)
from storekeep.agents import AGENTS, Agent
from storekeep.config import Settings, WebShop
from storekeep.decisions import Action, decision_ids, stamp
from storekeep.errors import Refused
from storekeep.lake import Lake
from storekeep.ledger import Entry, Signer
from storekeep.store import OURSELVES, Store, Transaction

DISPATCH = "dispatch"
MOST_READ = 64
"""Of so many texts of rulebooks, and of dispatch policies, a process remembers what they say."""

ACTIONS: Mapping[str, Action] = {PLACE_PURCHASE_ORDER.name: PLACE_PURCHASE_ORDER}


def utc_now() -> datetime:
    """The time, for homes that live in the present."""
    return datetime.now(UTC)


@dataclass
class Opened:
    """One tenant's store and lake, its adapters, and the clock that all steps are told the time by."""

    store: Store
    lake: Lake
    tenant: str
    signing: Signer
    adapters: Mapping[str, Adapter]
    home: Path
    now: Callable[[], datetime] = utc_now
    worker: str = "worker"
    lease: timedelta = timedelta(seconds=5)
    draw: Callable[[], float] = random
    agents: Mapping[str, Agent] = field(default_factory=lambda: AGENTS)
    actions: Mapping[str, Action] = field(default_factory=lambda: ACTIONS)
    principals: Mapping[str, Sequence[str]] = field(default_factory=dict)
    web_shops: Mapping[str, WebShop] = field(default_factory=dict)
    bus_mappings: Sequence[str] = ()
    push_bytes: int = Settings.model_fields["push_bytes"].default
    _rulebooks: dict[str, policy.Rulebook] = field(default_factory=dict)
    _dispatches: dict[str, policy.Dispatch] = field(default_factory=dict)
    _silent: dict[str, bool] = field(default_factory=dict)
    _so_far: dict[tuple[str, str], tuple[Mapping[int, int], pa.Table]] = field(default_factory=dict)

    def _adapter(self, action: str) -> Adapter:
        adapter = self.adapters.get(action)
        if adapter is None:
            raise Refused(f"no adapter carries out {action}; name one in the settings")
        return adapter

    def _action(self, name: str) -> Action:
        action = self.actions.get(name)
        if action is None:
            raise Refused(f"this version of Storekeep knows no action {name}")
        return action

    def rulebook(self, tx: Transaction, name: str, version: str | None = None) -> policy.Rulebook:
        """The rulebook in force, or the version asked for; the one that ships when there is none yet."""
        registered = tx.registered("rulebook", name, version)
        if registered is None:
            file = policy.SHIPPED / f"{name}.yaml"
            if version is not None:
                raise Refused(f"version {version} of rulebook {name} is not in the registry")
            if not file.exists():
                raise Refused(f"agent {name} has no rulebook; put one in force with policy promote")
            text = file.read_text(encoding="utf-8")
            shipped = self._loaded(text)
            self._put_in_force(tx, "rulebook", name, shipped.version, text, OURSELVES)
            registered = (shipped.version, text)
        if registered[0] not in self._rulebooks:
            self._rulebooks[registered[0]] = self._loaded(registered[1])
        return self._rulebooks[registered[0]]

    def promote(self, path: Path, by: str) -> str:
        """Put a rulebook from a file in force for its agent; its version."""
        not_ourselves(by)
        loaded = self._loaded(path)
        agent, action = loaded.content.agent, loaded.content.action
        if agent not in self.agents:
            raise Refused(f"{path}: there is no agent {agent}; there are {', '.join(self.agents)}")
        if action != (own := self.agents[agent].action):
            raise Refused(f"{path}: agent {agent} proposes {own}, and the rulebook is for {action}")
        text = path.read_text(encoding="utf-8")
        with self.store.transaction(self.tenant) as tx:
            self._put_in_force(tx, "rulebook", agent, loaded.version, text, by)
        return loaded.version

    def _loaded(self, source: Path | str) -> policy.Rulebook:
        if isinstance(source, str) and self.actions is ACTIONS:
            return _rulebook(source)
        return policy.load(source, action=self.actions, evidence=features.SCHEMA)

    def dispatch_policy(self, tx: Transaction) -> policy.Dispatch:
        """The dispatch policy in force; the one that ships when there is none yet."""
        registered = tx.registered(DISPATCH, DISPATCH)
        if registered is None:
            text = policy.SHIPPED_DISPATCH.read_text(encoding="utf-8")
            shipped = _dispatch(text, tuple(self.agents))
            self._put_in_force(tx, DISPATCH, DISPATCH, shipped.version, text, OURSELVES)
            registered = (shipped.version, text)
        version, text = registered
        if version not in self._dispatches:
            self._dispatches[version] = _dispatch(text, tuple(self.agents))
        return self._dispatches[version]

    def promote_dispatch(self, path: Path, by: str) -> str:
        """Put a dispatch policy from a file in force; its version."""
        not_ourselves(by)
        loaded = policy.load_dispatch(path, list(self.agents))
        text = path.read_text(encoding="utf-8")
        with self.store.transaction(self.tenant) as tx:
            self._put_in_force(tx, DISPATCH, DISPATCH, loaded.version, text, by)
        return loaded.version

    def _put_in_force(
        self,
        tx: Transaction,
        kind: str,
        name: str,
        version: str,
        text: str,
        by: str,
        *,
        why: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a version and make it the one in force; unless it is what ships, the ledger says so.

        `why` has the `reason` and what it rests on, where one was taken back.
        """
        at = self.now()
        tx.register(kind, name, version, text, at, by)
        tx.promote(kind, name, version, at, by, None if why is None else why["reason"])
        if by == OURSELVES and why is None:
            return
        said = {"of": kind, "name": name, "version": version, "text": text, **(why or {})}
        self._note(tx, Entry("promotion", {**said, "by": by, "at": stamp(at)}))

    def _note(self, tx: Transaction, entry: Entry) -> None:
        """Record something that is about no decision: a promotion, a mode, a stop."""
        seed = f"{tx.ledger_head()[0]}/{entry.text}"
        batch_id = decision_ids(self.now(), f"{self.tenant}/{entry.kind}", [seed])[0]
        ledger.append(
            tx, ledger.rows([entry]), batch_id=batch_id, at=self.now(), signing=self.signing
        )


@lru_cache(maxsize=MOST_READ)
def _rulebook(text: str) -> policy.Rulebook:
    """A rulebook for the actions that this version knows."""
    return policy.load(text, action=ACTIONS, evidence=features.SCHEMA)


@lru_cache(maxsize=MOST_READ)
def _dispatch(text: str, agents: tuple[str, ...]) -> policy.Dispatch:
    return policy.load_dispatch(text, agents)


def not_ourselves(by: str) -> None:
    """Refuse our own name, under which nobody but us puts anything in force."""
    if by == OURSELVES:
        raise Refused(f"{by} is Storekeep's own name; say who promotes it")
