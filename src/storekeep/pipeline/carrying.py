"""Events go to others and come from them, by a transport.

Hides which partitions another process is at, and that a fact that comes this way is known again as one that
was read from a file is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from storekeep import bus
from storekeep.errors import Permanent
from storekeep.pipeline.hearing import Hearing
from storekeep.store import PARTITIONS
from storekeep.watch import stage

_AT_ONCE = 500


class Carrying(Hearing):
    """Between this home's bus and those of others."""

    def carry(
        self,
        transport: bus.Transport,
        tally: Counter[str],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Put what is new on this home's bus on a transport, and bring from it what others put there.

        Each fact comes once, by whichever way it was told before. A partition that another process is at is
        left to it. What is only played goes to nobody. Between two batches it asks whether to `stop`. `tally`
        counts what has committed, also when this raises: events `forwarded`, `received` and `known` already,
        messages `put_aside`. Raises `Transient` when transport or database are away, and, once all else is
        carried, `Permanent` when the transport will not take or give something; nothing is lost by either.
        """
        with self.store.transaction(self.tenant) as tx:
            if tx.purpose() == "demo":
                return
        # First given, then taken: so what is taken is not given back.
        refused = None
        for way in (self._forward, self._receive):
            for partition in range(PARTITIONS):
                try:
                    while not stop() and way(transport, partition, tally):
                        pass
                except Permanent as error:
                    refused = refused or error
        if refused is not None:
            raise refused

    def _forward(self, transport: bus.Transport, partition: int, tally: Counter[str]) -> bool:
        """Give a batch; whether there may be more."""
        with stage("forward", self.tenant) as watched:
            with self.store.transaction(self.tenant) as tx:
                if not tx.slot(f"forward@{partition}", 1):
                    return False
                watched.rows = bus.forward(tx, transport, partition, _AT_ONCE)
            tally["forwarded"] += watched.rows
            return watched.rows > 0

    def _receive(self, transport: bus.Transport, partition: int, tally: Counter[str]) -> bool:
        """Take a batch; whether much more waits: what trickles in meanwhile is for the next time."""
        with stage("receive", self.tenant) as watched:
            with self.store.transaction(self.tenant) as tx:
                if not tx.slot(f"receive@{partition}", 1):
                    return False
                came = bus.receive(
                    *(tx, transport, partition, _AT_ONCE),
                    news=lambda events: self._news(tx, partition, events),
                )
            tally.update(received=came.fresh, known=came.known, put_aside=came.dead)
            watched.rows = came.fresh
            return came.messages == _AT_ONCE
