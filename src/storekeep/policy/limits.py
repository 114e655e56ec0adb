"""What is left of an amount that several decisions share, and who still gets some of it.

A limit is a queue: first what a person has approved, then by priority, then by subject. What would not fit
even alone, after what recent decisions used, steps aside; of the others each is served until one does not
fit, and from there on nobody is, so that a small order cannot take what a more urgent one waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storekeep.errors import InvariantBroken
from storekeep.policy.query import LARGEST_AMOUNT, SILENT, SPOKE, UNTOLD

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
_LARGEST_TOTAL = 2**62


@dataclass(frozen=True)
class Queue:
    """The rows of a batch as they stand before a limit; all arrays have a value for each row.

    `standing` marks those that no rule denies; `amount` and `key` are NULL where they cannot be told.
    """

    standing: Flags
    approved: Flags
    amount: pa.Array
    at_most: pa.Array
    key: pa.Array
    priority: pa.Array
    subject: pa.Array


@dataclass(frozen=True)
class Served:
    """What a limit says of each row: its state, what it uses, what that comes to, and what it may."""

    state: Integers
    amount: Integers
    total: Integers
    at_most: Floats


def serve(queue: Queue, used: pa.Table, *, waits: bool) -> Served:
    """Serve the queue from what recent decisions (`used`: key, amount) have left of the amount.

    `waits` tells that a row beyond the limit waits for a person, so that one that is approved counts.
    """
    raw: Integers = _values(queue.amount)
    caps: Floats = _values(queue.at_most)
    known = _known(queue.amount) & _known(queue.at_most) & _known(queue.key)
    known &= np.isfinite(caps) & (np.abs(raw) <= LARGEST_AMOUNT)
    amount = np.where(known, np.maximum(raw, 0), 0)
    keys = queue.key.dictionary_encode()
    codes: Integers = _values(keys.indices).astype(np.int64)
    before = (
        _before(keys.dictionary, used)[codes] if len(keys.dictionary) else np.zeros_like(amount)
    )
    total = before + amount
    counted = queue.standing & known & ((total <= caps) | (queue.approved & waits))
    state = np.where(queue.standing, np.where(known, SILENT, UNTOLD), SILENT)
    state[queue.standing & known & (total > caps)] = SPOKE
    tight = np.flatnonzero(queue.standing & known & _tight(codes, counted, amount, before, caps))
    if len(tight):
        order = tight[_order(queue, codes, tight)]
        running = before[order] + _running(codes[order], np.where(counted, amount, 0)[order])
        total[order] = np.where(counted[order], running, total[order])
        state[order[total[order] > caps[order]]] = SPOKE
    return Served(state.astype(np.int64), amount, total, caps)


def _known(array: pa.Array) -> Flags:
    known: Flags = array.is_valid().to_numpy(zero_copy_only=False)
    return known


def _values(array: pa.Array) -> npt.NDArray[Any]:
    """The array's values, 0 where there is none."""
    return np.asarray((array.fill_null(0) if array.null_count else array).to_numpy())


def _before(keys: pa.Array, used: pa.Table) -> Integers:
    """What recent decisions used under each key."""
    found = np.zeros(len(keys), dtype=np.int64)
    if used.num_rows:
        places = pc.index_in(used["key"].combine_chunks(), keys)
        mine = _known(places)
        np.add.at(found, _values(places)[mine], _values(used["amount"].combine_chunks())[mine])
    return found


def _tight(
    codes: Integers, counted: Flags, amount: Integers, before: Integers, caps: Floats
) -> Flags:
    """The rows whose key runs short in this batch; all others are served without standing in line."""
    size = int(codes.max(initial=-1)) + 1
    if float(amount.sum(dtype=np.float64)) > _LARGEST_TOTAL:
        raise InvariantBroken("the amounts of one batch add up to more than can be counted")
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, codes, np.where(counted, amount, 0))
    least = np.full(size, np.inf)
    np.minimum.at(least, codes, np.where(counted, caps, np.inf))
    short: Flags = (sums[codes] + before) > least[codes]
    return short


def _order(queue: Queue, codes: Integers, rows: Integers) -> Integers:
    """The places in `rows` in order of service, key by key."""
    line = pa.table(
        {
            "key": codes[rows],
            "approved": ~queue.approved[rows],
            "priority": queue.priority.take(pa.array(rows)),
            "subject": queue.subject.take(pa.array(rows)),
        }
    )
    keys = [
        ("key", "ascending"),
        ("approved", "ascending"),
        ("priority", "descending"),
        ("subject", "ascending"),
    ]
    return np.asarray(pc.sort_indices(line, sort_keys=keys).to_numpy(), dtype=np.int64)


def _running(codes: Integers, amount: Integers) -> Integers:
    """The running total within each run of equal codes."""
    total = np.cumsum(amount, dtype=np.int64)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    base = np.where(starts > 0, total[starts - 1], 0)
    lengths = np.diff(np.append(starts, len(codes)))
    running: Integers = total - np.repeat(base, lengths)
    return running
