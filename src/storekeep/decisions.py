"""What an agent saw, what it proposed, what policy said, what came of it, and the state that follows.

These are values: batches as Arrow tables with a little typed context around them. Nothing here decides,
stores or acts. A decision's state is never stored as a fact of its own: it is the fold of its ledger
entries (`fold`), so that it cannot disagree with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import canonical
from storekeep.errors import InvariantBroken
from storekeep.retail import Table

_SEAL = "__seal"


class Reversibility(StrEnum):
    """What can be done about an action afterwards."""

    UNDO = "undo"
    COMPENSATE = "compensate"
    IRREVERSIBLE = "irreversible"


class Decided(StrEnum):
    """What policy says of a proposal."""

    ALLOW = "allow"
    CLIP = "clip"
    ESCALATE = "escalate"
    DENY = "deny"
    HOLD = "hold"


@dataclass(frozen=True)
class Action:
    """Something an agent may propose: its parameters, its money, and whether it can be taken back.

    `derived` gives, per parameter that follows from others, the SQL expression that computes it again
    after policy has clipped one of them; `clippable` names those that policy may lower.
    """

    name: str
    parameters: Table
    money: str
    reversibility: Reversibility
    clippable: tuple[str, ...] = ()
    derived: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What was known about each subject when the decision was made.

    `values` has one row per subject: `subject` first, then keys and features. `versions` names what the
    values were read from (lake table -> version, feature set -> content hash); `position` is the place in
    the event log up to which they had been read.
    """

    values: pa.Table
    known_by: datetime
    versions: Mapping[str, str]
    position: int

    @cached_property
    def texts(self) -> pa.StringArray:
        """What was known of each subject, as canonical JSON."""
        return canonical.rows(self.values)

    def digests(self) -> pa.StringArray:
        """SHA-256, per subject, of the canonical JSON of what was known and as of when.

        As of when stands under `__seal`, which sorts before every column: it goes before the text that is
        there already, in place of the opening brace.
        """
        if min(self.values.column_names) <= _SEAL:
            raise InvariantBroken(f"a column of the evidence sorts before {_SEAL}")
        seal = canonical.text({"known_by": stamp(self.known_by), "versions": dict(self.versions)})
        opening = canonical.text({_SEAL: seal}).removesuffix("}") + ","
        return canonical.sha256(self.texts, opening, skip=len("{"))

    def take(self, subjects: pa.Array) -> Evidence:
        """The same evidence for fewer subjects, in the order asked for.

        Raises `InvariantBroken` when one of them has no evidence.
        """
        places = pc.index_in(subjects, self.values["subject"].combine_chunks())
        if places.null_count:
            raise InvariantBroken("a proposal's subject has no evidence")
        return self._with(self.values.take(places))

    def slice(self, start: int, many: int) -> Evidence:
        """The same evidence for `many` of its subjects from `start` on, without a copy."""
        return self._with(self.values.slice(start, many))

    def _with(self, values: pa.Table) -> Evidence:
        return Evidence(values, self.known_by, self.versions, self.position)


@dataclass(frozen=True)
class Proposed:
    """What an agent wants done, and what it could not judge.

    `proposals`: `subject`, `priority` (higher is served first when a budget runs short), the action's
    parameters, and `arithmetic`, a struct with every number the quantity follows from.
    `holds`: `subject`, `reason`, `safe_default`, for those where it can make no proposal. `formula` says
    in words how the numbers of the arithmetic hang together.
    """

    agent: str
    version: str
    action: Action
    proposals: pa.Table
    holds: pa.Table
    formula: str = ""
    seed: int | None = None


RULE = pa.struct(
    [
        pa.field("rule", pa.string(), nullable=False),
        pa.field("effect", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
VERDICTS = pa.schema(
    [
        pa.field("subject", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("role", pa.string()),
        pa.field("persons", pa.int64()),
        pa.field("rules", pa.list_(RULE), nullable=False),
    ]
)
HOLDS = pa.schema(
    [
        pa.field("subject", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("safe_default", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Judgement:
    """What policy made of a batch of proposals, row by row in the same order.

    `verdicts` has the schema `VERDICTS` (every rule that spoke, with its reason); `proposals` are the
    same rows with clipped parameters lowered and what derives from them computed again. `uses` is what each
    row that was not denied uses of each limit that decisions share (`storekeep.policy.USES`).
    """

    verdicts: pa.Table
    proposals: pa.Table
    rulebook: str
    rulebook_version: str
    uses: pa.Table | None = None


@dataclass(frozen=True)
class Receipt:
    """An outside system's word that something was done, under our idempotency key."""

    idempotency_key: str
    adapter: str
    reference: str
    fingerprint: str
    details: Mapping[str, Any] = field(default_factory=dict)


class Status(StrEnum):
    """Where a decision stands."""

    HELD = "held"
    DENIED = "denied"
    ESCALATED = "escalated"
    PENDING = "pending"
    REJECTED = "rejected"
    EXPIRED = "expired"
    EXECUTED = "executed"
    FAILED = "failed"
    DROPPED = "dropped"
    REVERTING = "reverting"
    REVERTED = "reverted"
    NEEDS_PERSON = "needs_person"
    SHADOWED = "shadowed"


SHADOW = "shadow"

_FIRST: Mapping[str, Status] = {
    Decided.ALLOW: Status.PENDING,
    Decided.CLIP: Status.PENDING,
    Decided.ESCALATE: Status.ESCALATED,
    Decided.DENY: Status.DENIED,
    Decided.HOLD: Status.HELD,
}
_NEXT: Mapping[tuple[Status, str], Status] = {
    (Status.ESCALATED, "agreed"): Status.ESCALATED,
    (Status.ESCALATED, "changed"): Status.ESCALATED,
    (Status.ESCALATED, "approved"): Status.PENDING,
    (Status.ESCALATED, "rejected"): Status.REJECTED,
    (Status.ESCALATED, "denied"): Status.DENIED,
    (Status.ESCALATED, "expired"): Status.EXPIRED,
    (Status.PENDING, "executed"): Status.EXECUTED,
    (Status.PENDING, "failed"): Status.FAILED,
    (Status.PENDING, "expired"): Status.EXPIRED,
    (Status.PENDING, "withdrawn"): Status.REVERTED,
    (Status.FAILED, "retried"): Status.PENDING,
    (Status.FAILED, "dropped"): Status.DROPPED,
    (Status.FAILED, "failed"): Status.FAILED,
    (Status.FAILED, "expired"): Status.EXPIRED,
    (Status.FAILED, "executed"): Status.EXECUTED,
    (Status.ESCALATED, "withdrawn"): Status.REVERTED,
    (Status.EXECUTED, "reverting"): Status.REVERTING,
    (Status.EXECUTED, "needs_person"): Status.NEEDS_PERSON,
    (Status.REVERTING, "compensated"): Status.REVERTED,
    (Status.REVERTING, "needs_person"): Status.NEEDS_PERSON,
    (Status.NEEDS_PERSON, "reverting"): Status.REVERTING,
}


@dataclass(frozen=True)
class Selection:
    """Which decisions are meant: those that fit all that is given, newest first, at most `limit`.

    `ids`, `batch_id` (one run), `order_group` (one purchase order), `status`, `verdict`, versions, one
    location, and the time of deciding from `since` up to but not including `until`.
    """

    ids: tuple[str, ...] | None = None
    batch_id: str | None = None
    order_group: str | None = None
    status: str | None = None
    verdict: str | None = None
    agent_version: str | None = None
    rulebook_version: str | None = None
    location_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None


@dataclass(frozen=True)
class ModeChange:
    """From now on an agent may do this much: everywhere, or in some groups of locations only.

    `mode` is `off` (it is not woken), `shadow` (it proposes, is judged and recorded, and nothing is done),
    `canary` (it acts in the groups and shadows elsewhere) or `live`. Without `agent_version` every version
    is meant. Who asked for it is never who approved it.
    """

    agent: str
    agent_version: str | None
    groups: tuple[str, ...]
    mode: str
    set_at: datetime
    set_by: str
    approved_by: str
    reason: str


def fold(steps: Iterable[str], mode: str = "live") -> Status:
    """Where a decision stands after its ledger entries, oldest first.

    The first step is the verdict, the others are the results of later entries; `mode` is that of the run.
    Raises `InvariantBroken` when an entry follows that cannot.

    >>> str(fold(["escalate", "approved", "executed", "reverting", "compensated"]))
    'reverted'
    """
    status: Status | None = None
    for result in steps:
        if status is not None:
            status = step(status, result)
        elif (first := _FIRST.get(result)) is not None:
            shadowed = mode == SHADOW and first in (Status.PENDING, Status.ESCALATED)
            status = Status.SHADOWED if shadowed else first
        else:
            raise InvariantBroken(f"a decision does not begin with {result!r}")
    if status is None:
        raise InvariantBroken("a decision has at least one ledger entry")
    return status


def first_status(verdict: str, mode: str = "live") -> Status:
    """Where a decision stands when only its verdict is known, and the mode of its run."""
    return fold([verdict], mode)


def step(status: str, result: str) -> Status:
    """Where a decision stands after one more ledger entry; `InvariantBroken` when it cannot follow."""
    following = _NEXT.get((Status(status), result))
    if following is None:
        raise InvariantBroken(f"a decision cannot go from {status} by {result!r}")
    return following


def decision_ids(time: datetime, namespace: str, subjects: Iterable[str]) -> list[str]:
    """A UUIDv7 for each subject, the same again for the same time, namespace and subject.

    A decision made twice from one trigger (a crash, a redelivery) thereby has one name. The 48-bit time
    is in milliseconds; the other bits are SHA-256 of namespace and subject (RFC 9562, section 5.7).
    """
    ids: list[str] = ids_of(time, namespace, pa.array(list(subjects), pa.string())).to_pylist()
    return ids


def ids_of(time: datetime, namespace: str, subjects: pa.StringArray) -> pa.StringArray:
    """`decision_ids` of a whole column."""
    many = len(subjects)
    drawn = canonical.hashes(subjects, f"{namespace}\n".encode())
    bits = np.frombuffer(b"".join(drawn), np.uint8).reshape(many, 32)
    ids = np.empty((many, 16), np.uint8)
    ids[:, :6] = np.frombuffer(_milliseconds(time).to_bytes(6), np.uint8)
    # Of the first 80 bits of the digest the last 74, but for version and variant: 12 of them, then 62.
    ids[:, 6] = 0x70 | bits[:, 0] << 2 & 0x0C | bits[:, 1] >> 6
    ids[:, 7] = bits[:, 1] << 2 | bits[:, 2] >> 6
    ids[:, 8] = 0x80 | bits[:, 2] & 0x3F
    ids[:, 9:] = bits[:, 3:10]
    digits = np.frombuffer(ids.tobytes().hex().encode(), np.uint8).reshape(many, 32)
    text = np.full((many, 36), ord("-"), np.uint8)
    for begin, end, dashes in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, begin + dashes : end + dashes] = digits[:, begin:end]
    ends = np.arange(0, 36 * many + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(many, pa.py_buffer(ends), pa.py_buffer(text.tobytes()))


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000) & 0xFFFFFFFFFFFF


def least_id(time: datetime | None, *, after: bool = False) -> str:
    """The least id that a decision of this millisecond may have, or with `after` of the next one.

    Of no time: what every id is above, or with `after` below.
    """
    if time is None:
        return str(UUID(int=2**128 - 1 if after else 0))
    return str(UUID(int=_milliseconds(time) + after << 80))


def stamp(time: datetime) -> str:
    """A time as ledger and evidence write it: UTC, microseconds, `Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
