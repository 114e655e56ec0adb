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
from storekeep.errors import Transient, Unknown

Answer = Receipt | str | Transient | Unknown
"""What came of one order: a receipt, why it was refused, or why it has to be tried or looked up again."""


@dataclass(frozen=True)
class Order:
    """One decision to carry out: its id is the idempotency key of the outside call."""

    decision_id: str
    group: str
    parameters: Mapping[str, Any]


class Adapter(Protocol):
    """An outside system; the embedded back office is one, a retailer's own systems are others.

    Every call takes a batch of `most_orders` at most. What is so of all of it is raised: `Transient` (try
    again), `Permanent` (it said no, and has done nothing) or `Unknown` (look first); what is so of one order
    is its answer, and does not keep the others from being carried out.
    """

    name: str
    most_orders: int

    def execute(self, orders: Sequence[Order], at: datetime) -> Sequence[Answer]:
        """Carry out decisions, each once for ever: an answer each, in order."""

    def compensate(self, receipts: Sequence[Receipt], at: datetime) -> Sequence[Answer]:
        """Take back what receipts stand for, each once for ever: an answer each, in order.

        What somebody changed since its receipt, which another fingerprint shows, is left as it is.
        """

    def find(self, idempotency_keys: Sequence[str]) -> Mapping[str, Receipt]:
        """What was done under keys, as it is now; keys under which nothing was done are left out.

        A receipt's fingerprint tells whether somebody has changed the object since an earlier receipt.
        """


def standing(receipt: Receipt, now: Receipt | None) -> str | None:
    """Why what a receipt stands for cannot be taken back, given what the system holds now; None if it can."""
    if now is None:
        return f"{receipt.adapter} has no such line"
    if now.details["received_units"]:
        return "goods have already arrived"
    if now.fingerprint != receipt.fingerprint and not now.details["cancelled"]:
        return f"somebody changed {now.reference} since it was placed"
    return None
