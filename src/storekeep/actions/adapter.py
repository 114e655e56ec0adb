"""What every outside system must be able to do for us.

One contract, one test suite (`tests/contracts/test_adapter.py`): the same key twice makes one object; what
happened in spite of an error can be found; what was done can be compensated; what changed since is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from storekeep.decisions import Receipt


@dataclass(frozen=True)
class Order:
    """One decision to carry out: its id is the idempotency key of the outside call."""

    decision_id: str
    group: str
    parameters: Mapping[str, Any]


class Adapter(Protocol):
    """An outside system; the embedded back office is one, a retailer's own systems are others.

    Every call takes a batch, and may raise `Transient` (try again), `Permanent` (it said no) or `Unknown`
    (look first).
    """

    name: str

    def execute(self, orders: Sequence[Order], at: datetime) -> Sequence[Receipt | str]:
        """Carry out decisions, each once for ever: a receipt each, or why it was refused, in order."""

    def compensate(self, receipts: Sequence[Receipt], at: datetime) -> Sequence[Receipt | str]:
        """Take back what receipts stand for, each once for ever: the new receipt, or why it cannot be.

        What somebody changed since its receipt, which another fingerprint shows, is left as it is.
        """

    def find(self, idempotency_keys: Sequence[str]) -> Mapping[str, Receipt]:
        """What was done under keys, as it is now; keys under which nothing was done are left out.

        A receipt's fingerprint tells whether somebody has changed the object since an earlier receipt.
        """
