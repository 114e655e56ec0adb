"""Events go to others and come from them, and batches of feeds come, by a transport.

Hides which partitions another process is at, that a fact that comes this way is known again as one that was
read from a file is, and that a batch waits where those wait that are pushed over HTTP.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from storekeep import bus, ingest
from storekeep.errors import Misused, Permanent, Refused
from storekeep.pipeline.hearing import Hearing
from storekeep.store import PARTITIONS, Arrival
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
        counts what has committed, also when this raises: events `forwarded` and `received`, `batches` of
        feeds, of both what was `known` already, and messages `put_aside`. Raises `Transient` when transport
        or database are away, and, once all else is carried, `Permanent` when the transport will not take or
        give something; nothing is lost by either.
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
                taker = bus.Taker(
                    news=lambda events: self._news(tx, partition, events),
                    told=lambda *told: self._trace_carried(tx, partition, *told),
                    keep=lambda batch: tx.add_arrival(self._arrival(batch)),
                    hide=self._bodies.seal,
                )
                came = bus.receive(tx, transport, partition, _AT_ONCE, taker)
            tally.update(received=came.fresh, known=came.known, put_aside=came.dead)
            tally["batches"] += came.batches
            watched.rows = came.fresh
            return came.messages == _AT_ONCE

    def _arrival(self, batch: bus.Batch) -> Arrival:
        """A batch of a feed as it is kept until it is facts; raises `Unreadable` when it is not taken."""
        if batch.mapping not in self.bus_mappings:
            raise bus.Unreadable(f"bus_mappings does not name its mapping: {batch.mapping!r}")
        if not 0 < (size := len(batch.body)) <= self.push_bytes:
            raise bus.Unreadable(
                f"it has {size:,} bytes; a batch has one or more, {self.push_bytes:,} at most (push_bytes)"
            )
        try:
            feed = ingest.mapping_of(self.home, batch.mapping).feed
        except (Misused, Refused) as error:
            raise bus.Unreadable(f"its mapping cannot be used: {error}") from None
        return self._bodies.seal(ingest.pushed(feed, batch.mapping, batch.body))
