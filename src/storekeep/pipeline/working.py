"""The process that a home runs: in one loop it hears of what is new, wakes the agents that are due, and acts.

Hides what it waits for and how long: for something new, for a server that is away, and for nobody who is at
the same place already.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import date, tzinfo
from random import random

from storekeep import bus
from storekeep.errors import Permanent, Transient
from storekeep.pipeline.deciding import Run
from storekeep.pipeline.trying import wait_seconds
from storekeep.pipeline.writing import Writing
from storekeep.store import Store

# From the beginning of a turn that found something to that of the next: what comes meanwhile is one batch.
_TURN_SECONDS = 0.1
# A server that is away is asked for every 16 seconds at least.
_MOST_DOUBLINGS = 5


Away = Transient | Permanent


@dataclass(frozen=True)
class Round:
    """What one round came to: runs by agent and location, events carried, and why no more were."""

    runs: Mapping[tuple[str, str], Run]
    carried: Counter[str]
    lost: Away | None


class Working(Writing):
    """All that is to be done now, once."""

    def round(
        self,
        today: date,
        locations: Sequence[str] = (),
        transport: bus.Transport | None = None,
    ) -> Round:
        """One round for live homes: take in what is new, wake the agents that are due, act, tell others."""
        carried: Counter[str] = Counter()
        lost = self.exchange(transport, carried)
        with self.store.again() as beside:
            self.hear(beside, carried)
        self.note_silence()
        self.move_stock()
        self.keep_history()
        self.look()
        for location_id in locations or self.locations():
            self._move_features(location_id, today)
        runs = self.dispatch(locations)
        self.act()
        if lost is None:
            lost = self.exchange(transport, carried)
        return Round(runs, carried, lost)

    def exchange(
        self,
        transport: bus.Transport | None,
        tally: Counter[str],
        stop: Callable[[], bool] = lambda: False,
    ) -> Away | None:
        """Carry events to and from others, if there is a transport; why it did not work.

        What is this home's own to do does not wait for others.
        """
        if transport is not None:
            try:
                self.carry(transport, tally, stop)
            except (Transient, Permanent) as error:
                return error
        return None

    def turn(
        self, today: date, beside: Store, tally: Counter[str], stop: Callable[[], bool]
    ) -> None:
        """One turn of a process that runs on: what is due of what is new, and nothing else.

        A location that another process decides about is left to it, by locks that are held over the
        connection `beside`. Between two steps it asks whether to `stop`. `tally` counts what has committed:
        deliveries that were `heard`, requests that `lapsed`, runs of agents that `decided`, actions that were
        `acted`.
        """
        before = tally["decided"]
        tally["lapsed"] += self.lapse()
        self.hear(beside, tally, stop)
        self.note_silence()
        self.move_stock()
        self.keep_history()
        self.look_by_time()
        moved: set[str] = set()
        for each in self.due():
            if stop():
                return
            with beside.transaction(self.tenant) as tx:
                if tx.slot(f"decide@{each.location_id}", 1):
                    # For the next agent there is nothing new of the same location.
                    if each.location_id not in moved:
                        self._move_features(each.location_id, today)
                        moved.add(each.location_id)
                    run = self.decide(each.location_id, each.agent)
                    tally["decided"] += run is not None
        self.note_unheard()
        ended = self.act(stop=stop)
        tally["acted"] += ended
        if ended or tally["decided"] > before:
            self.roll_back()

    def _move_features(self, location_id: str, today: date) -> None:
        # Whoever else moves them at this very moment does it for us.
        with suppress(Transient):
            self.update_features(location_id, today)


def pause_seconds(begun: float) -> float:
    """How long to wait after a turn that found something, and that began at a time of the monotonic clock."""
    return max(0.0, begun + _TURN_SECONDS - time.monotonic())


@dataclass
class _Server:
    """Something that may go away: told once when it does, and once when it is back."""

    name: str
    say: Callable[[str], None]
    failures: int = 0
    since: float = 0.0
    again_at: float = 0.0

    def lost(self, error: Away) -> float:
        """It failed; the seconds until it is to be tried again."""
        if not self.failures:
            self.say(f"{self.name} does not work: {error} (it is tried again until it works)")
            self.since = time.monotonic()
        self.failures += 1
        # Never at once: half of the wait is certain.
        seconds = wait_seconds(min(self.failures, _MOST_DOUBLINGS), (1 + random()) / 2, error)  # noqa: S311 - spreads attempts, keeps no secret
        self.again_at = time.monotonic() + seconds
        return seconds

    def works(self) -> None:
        """It did what it was asked."""
        if self.failures:
            self.say(f"{self.name} works again, after {time.monotonic() - self.since:.0f} s")
            self.failures = 0


@dataclass
class Worker:
    """A process at work, until `wait` says to stop: it waits so many seconds and says whether to.

    `opening` opens the pipeline, and again after its database was away, so that an embedded server that died
    is started. While the transport is away all else goes on. `say` tells a person of either. `zone` is where
    days begin.
    """

    opening: Callable[[], AbstractContextManager[Working]]
    transport: bus.Transport | None
    wait: Callable[[float], bool]
    poll_seconds: float
    zone: tzinfo
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._database = _Server("the database", self.say)
        self._carrier = _Server("the transport", self.say)

    def work(self) -> None:
        """Work until told to stop; what was done is counted in `done`.

        Raises `Transient` when there is no database to begin with: afterwards it is waited for.
        """
        begun = False
        while not self.wait(0):
            try:
                with self.opening() as pipeline, pipeline.store.again() as beside:
                    begun = True
                    self._database.works()
                    self._turns(pipeline, beside)
            except Transient as error:
                if not begun:
                    raise
                self.wait(self._database.lost(error))

    def _turns(self, pipeline: Working, beside: Store) -> None:
        while not self._stop():
            before, begun = self.done.total(), time.monotonic()
            due = time.monotonic() >= self._carrier.again_at
            lost = pipeline.exchange(self.transport if due else None, self.done, self._stop)
            today = pipeline.now().astimezone(self.zone).date()
            pipeline.turn(today, beside, self.done, self._stop)
            # What failed while the database works was the transport.
            if lost is not None:
                self._carrier.lost(lost)
            elif due:
                self._carrier.works()
            self.wait(pause_seconds(begun) if self.done.total() > before else self.poll_seconds)

    def _stop(self) -> bool:
        return self.wait(0)
