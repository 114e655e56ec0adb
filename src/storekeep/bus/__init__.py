"""The event bus: events in a log that commits with what is made of them, and transports to and from others.

log         the event log in PostgreSQL: publish, read, advance, replay
transport   the port to others: receive into the log, forward out of it, dead letters
remote      the event log of another home as a transport
jetstream   NATS JetStream as a transport
kafka       Kafka as a transport
"""

from __future__ import annotations

from storekeep.bus.log import MAX_FACTS, advance, append, partition_of, publish, read, replay
from storekeep.bus.opening import connect, opened
from storekeep.bus.transport import (
    BATCH,
    Batch,
    Message,
    Received,
    Taker,
    Transport,
    Unreadable,
    forward,
    read_again,
    receive,
    seal,
)

__all__ = [
    "BATCH",
    "MAX_FACTS",
    "Batch",
    "Message",
    "Received",
    "Taker",
    "Transport",
    "Unreadable",
    "advance",
    "append",
    "connect",
    "forward",
    "opened",
    "partition_of",
    "publish",
    "read",
    "read_again",
    "receive",
    "replay",
    "seal",
]
