"""How often an action is tried, after which waits, and how its lease lasts while an outside system is slow.

Hides the schedule and the thread that renews leases.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from storekeep.errors import Transient
from storekeep.store import Store

MOST_ATTEMPTS = 10
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 3600.0


def wait_seconds(attempt: int, drawn: float, error: Exception) -> float:
    """How long to wait after an attempt, counted from 1: a random part of a time that doubles.

    `drawn` is a random number from 0 up to 1. "Full jitter": Brooker, Exponential Backoff And Jitter
    (2015). A system that names a time itself is not asked before it, but nobody waits more than an hour.

    >>> [wait_seconds(attempt, 0.5, Transient("busy")) for attempt in (1, 2, 3, 9, 99)]
    [0.5, 1.0, 2.0, 128.0, 256.0]
    >>> wait_seconds(1, 0.5, Transient("busy", after_seconds=20))
    20.5
    """
    doublings = min(attempt, MOST_ATTEMPTS) - 1
    wait = drawn * FIRST_WAIT_SECONDS * 2.0**doublings
    asked = error.after_seconds if isinstance(error, Transient) else 0.0
    return min(asked + wait, LONGEST_WAIT_SECONDS)


@contextmanager
def renewed(
    store: Store, tenant: str, worker: str, decision_ids: Sequence[str], lease: timedelta
) -> Iterator[None]:
    """Renew a worker's leases for as long as the body takes, by another connection."""
    over = threading.Event()

    def renew() -> None:
        with store.again() as own:
            while not over.wait(lease.total_seconds() / 3):
                try:
                    with own.transaction(tenant) as tx:
                        tx.renew_tasks(decision_ids, worker, lease)
                except Transient:
                    # The lease may run out: another takes over, and the keys keep it to one effect.
                    continue

    thread = threading.Thread(target=renew, name="renew leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
