"""The event log of another home as a transport: one PostgreSQL that several homes hear.

Hides that there is no carrier at all: what others published is read where it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from storekeep.bus.log import FACTS_AT_ONCE, append
from storekeep.bus.transport import Message, Unreadable, seal, unseal
from storekeep.errors import Permanent
from storekeep.store import Store


class RemoteLog:
    """The log of a home, by the `Store` of its database; `name` tells it from others."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def origin(self, tenant: str) -> str:
        """The database's name: a log is never begun anew."""
        del tenant
        return self._name

    def publish(self, tenant: str, partition: int, messages: Sequence[Message]) -> None:
        """Append messages to the log, those that it has not; raises `Permanent` for one that is no event."""
        try:
            events = [unseal(each, tenant, partition) for each in messages]
        except Unreadable as error:
            raise Permanent(
                f"the log of {self._name} takes no message that it cannot read: {error}"
            ) from None
        with self._store.transaction(tenant) as tx:
            append(tx, partition, events)

    def read(self, tenant: str, partition: int, after: int, limit: int) -> list[Message]:
        """The log's next events; of large ones fewer."""
        with self._store.transaction(tenant) as tx:
            rows = tx.read_events(partition, after, limit, FACTS_AT_ONCE)
            return [seal(row, tenant) for row in rows]

    def close(self) -> None:
        """Give the connection back."""
        self._store.close()
