"""What came of a decision in the outside world, and what taking it back would do.

Hides how receipts are kept in entries. Decides nothing and does nothing: a plan says what would happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from storekeep.decisions import Receipt, Status, stamp
from storekeep.errors import InvariantBroken
from storekeep.ledger.explain import standing


@dataclass(frozen=True)
class Step:
    """One line of a plan to revert: what would be done about a decision, and why."""

    decision_id: str
    subject: str
    action: str
    status: str
    what: str
    why: str
    units: int


def outcome(result: Receipt | str, at: datetime) -> dict[str, Any]:
    """What the outside system said, as the ledger keeps it."""
    if isinstance(result, str):
        return {"at": stamp(at), "reason": result}
    return {
        "at": stamp(at),
        "receipt": {
            "idempotency_key": result.idempotency_key,
            "adapter": result.adapter,
            "reference": result.reference,
            "fingerprint": result.fingerprint,
            "details": dict(result.details),
        },
    }


def receipt_of(steps: Sequence[Mapping[str, Any]]) -> Receipt:
    """The receipt of the last time a decision was carried out."""
    for each in reversed(steps):
        if each["step"] == "executed":
            return Receipt(**each["receipt"])
    raise InvariantBroken("an executed decision has a receipt")


def plan(
    row: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    found: Mapping[str, Receipt],
    *,
    held: bool | None = None,
    silent: str | None = None,
    final: bool = False,
) -> Step:
    """What a revert would do about one decision, given what the outside system holds of it now.

    `held`: whether a worker holds the pending action at this moment; None when none has begun it. `silent`:
    why the outside system cannot be asked, if it cannot. `final`: the action is one of those that cannot be
    taken back.
    """
    key, status = row["decision_id"], row["status"]
    units = int(standing(steps).get("order_units", 0))
    what, why = "nothing", f"it is {status}: there is nothing to take back"
    begun = held is not None and status == Status.PENDING
    if status == Status.REVERTING:
        what, why = "finish", "it was asked for before and is not done yet"
    elif silent is not None and (begun or status in (Status.EXECUTED, Status.NEEDS_PERSON)):
        what, why = "later", f"it cannot be looked at now, run this again: {silent}"
    elif held:
        why = "it is being carried out at this moment: look again when it is done"
    elif begun and key in found:
        why = f"{found[key].reference} holds it, which is not recorded yet: act, then look again"
    elif status in (Status.PENDING, Status.ESCALATED):
        what, why = "withdraw", "it has not been carried out yet"
    elif status in (Status.EXECUTED, Status.NEEDS_PERSON):
        receipt, now = receipt_of(steps), found.get(key)
        if now is None:
            what, why = "person", f"{receipt.adapter} does not have {receipt.reference} any more"
        elif final:
            what, why = "cannot", f"{row['action']} cannot be taken back: a person has to see to it"
        elif now.fingerprint != receipt.fingerprint:
            what, why = "person", f"somebody changed {receipt.reference} since it was placed"
        elif now.details.get("received_units"):
            what, why = "person", f"goods of {receipt.reference} have already arrived"
        else:
            what, why = "compensate", f"the line of {receipt.reference} is cancelled"
    return Step(key, row["subject"], row["action"], status, what, why, units)


def plan_again(
    row: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    later: str | None,
    kept_from: str | None = None,
) -> Step:
    """Whether one decision that was taken back would be proposed again; `later` did so already.

    `kept_from` says why its agent may not run now, where that is so.
    """
    key, status = row["decision_id"], row["status"]
    what, why = "propose", "it was taken back: it is judged anew, as a decision of its own"
    if status != Status.REVERTED:
        what, why = "nothing", f"it is {status}: it was not taken back"
    elif later is not None:
        what, why = "nothing", f"decision {later} proposes it again already"
    elif kept_from is not None:
        what, why = "cannot", kept_from
    units = int(standing(steps).get("order_units", 0))
    return Step(key, row["subject"], row["action"], status, what, why, units)
