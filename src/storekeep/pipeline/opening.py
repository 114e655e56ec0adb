"""One tenant's stores, lake and adapters while they are open, and the rulebooks in force.

Hides how a home is opened, and that a rulebook is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import random

from storekeep import features, policy
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
    Adapter,
)
from storekeep.agents import replenish
from storekeep.errors import Refused
from storekeep.lake import Lake
from storekeep.ledger import Signer
from storekeep.store import Store, Transaction


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
    now: Callable[[], datetime] = utc_now
    worker: str = "worker"
    lease: timedelta = timedelta(seconds=5)
    draw: Callable[[], float] = random
    _rulebooks: dict[str, policy.Rulebook] = field(default_factory=dict)

    def _adapter(self, action: str) -> Adapter:
        adapter = self.adapters.get(action)
        if adapter is None:
            raise Refused(f"no adapter carries out {action}; name one in the settings")
        return adapter

    def rulebook(self, tx: Transaction, name: str, version: str | None = None) -> policy.Rulebook:
        """The rulebook in force, or the version asked for; the one that ships when there is none yet."""
        registered = tx.registered("rulebook", name, version)
        if registered is None:
            if version is not None:
                raise Refused(f"version {version} of rulebook {name} is not in the registry")
            text = (policy.SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
            shipped = policy.load(text, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
            by = "storekeep"
            tx.register("rulebook", name, shipped.version, text, self.now(), by)
            tx.promote("rulebook", name, shipped.version, self.now(), by)
            registered = (shipped.version, text)
        if registered[0] not in self._rulebooks:
            self._rulebooks[registered[0]] = policy.load(
                registered[1], action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA
            )
        return self._rulebooks[registered[0]]

    def promote(self, path: Path, by: str) -> str:
        """Put a rulebook from a file in force; its version."""
        loaded = policy.load(path, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
        text = path.read_text(encoding="utf-8")
        with self.store.transaction(self.tenant) as tx:
            tx.register("rulebook", replenish.NAME, loaded.version, text, self.now(), by)
            tx.promote("rulebook", replenish.NAME, loaded.version, self.now(), by)
        return loaded.version
