"""Kafka as a transport: one topic a tenant and partition, of which only Kafka's partition 0 is used.

Hides the two clients of librdkafka, and what of Kafka is not used: there are no consumer groups and no
committed offsets. Messages are read by offset; the position that PostgreSQL keeps is the next one's.

It keeps the suite of every transport against the broker that librdkafka brings for tests. No real broker has
ever been at its other end: try it on yours before you rely on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Carried

from storekeep.bus.transport import Message
from storekeep.errors import Permanent, Transient

PREFIX = "ce_"
ANSWER_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
MESSAGE_BYTES = 8 * 2**20
READ_BYTES = 64 * 2**20
TOGETHER = 100

NOT_THERE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
GONE = {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET}
REFUSED = {
    *(KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED),
    *(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED),
    *(KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._INVALID_ARG),
}


class Kafka:
    """The topics of a Kafka cluster, by a URL of ours."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        who, _, self._where = parts.netloc.rpartition("@")
        options: dict[str, object] = {
            "bootstrap.servers": self._where,
            "client.id": "storekeep",
            # What goes wrong is raised; the client would write it to stderr besides.
            "log_level": 0,
            **dict(parse_qsl(parts.query)),
        }
        if who:
            name, _, password = who.partition(":")
            options |= {"sasl.username": unquote(name), "sasl.password": unquote(password)}
        with self._named():
            self._producer = Producer(
                {**options, "acks": "all", "enable.idempotence": True}
                | {"message.max.bytes": MESSAGE_BYTES}
            )
            self._consumer = Consumer(
                {**options, "group.id": "storekeep", "enable.auto.commit": False}
                | {"enable.partition.eof": True, "auto.offset.reset": "error"}
            )

    def origin(self, tenant: str) -> str:
        """The id of the cluster. A topic that was made anew is found out when its offsets do not fit."""
        del tenant
        with self._named():
            return f"kafka {self._producer.list_topics(timeout=ANSWER_SECONDS).cluster_id}"

    def publish(self, tenant: str, partition: int, messages: Sequence[Message]) -> None:
        """Produce messages, idempotently, and wait until every replica in sync has them."""
        failed: list[KafkaError] = []
        topic = _topic(tenant, partition)
        with self._named():
            for each in messages:
                self._producer.produce(
                    topic,
                    each.body,
                    each.attributes.get("subject", "").encode(),
                    partition=0,
                    headers=[
                        (f"{PREFIX}{name}", value.encode("utf-8", "surrogatepass"))
                        for name, value in each.attributes.items()
                    ],
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
            left = self._producer.flush(PATIENCE_SECONDS)
            if left or failed:
                # None of them may be sent later, behind what is published meanwhile.
                self._producer.purge()
                self._producer.flush(ANSWER_SECONDS)
                raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))

    def read(self, tenant: str, partition: int, after: int, limit: int) -> list[Message]:
        """The next messages by their offset in the topic."""
        place = TopicPartition(_topic(tenant, partition), 0, after)
        with self._named():
            # Asked first: a topic that was once not there is not there for the client until it is asked for.
            found = self._consumer.list_topics(place.topic, ANSWER_SECONDS).topics[place.topic]
            if found.error is not None:
                if found.error.code() in NOT_THERE and not after:
                    return []
                raise KafkaException(found.error)
            low, high = self._consumer.get_watermark_offsets(place, timeout=ANSWER_SECONDS)
            if not low <= after <= high:
                raise KafkaException(KafkaError(KafkaError.OFFSET_OUT_OF_RANGE))
            if after == high:
                return []
            self._consumer.assign([place])
            try:
                return list(self._run_of(min(limit, high - after)))
            finally:
                self._consumer.unassign()

    def close(self) -> None:
        """Give the connections back."""
        self._consumer.close()

    def _run_of(self, many: int) -> Iterator[Message]:
        """So many messages, or fewer where the topic ends before, or where they are large."""
        until, left = time.monotonic() + ANSWER_SECONDS, READ_BYTES
        while many and left > 0 and time.monotonic() < until:
            for carried in self._consumer.consume(min(many, TOGETHER), timeout=0.2):
                error = carried.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    raise KafkaException(error)
                yield _message(carried)
                many -= 1
                left -= len(carried.value() or b"")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            said = f"Kafka at {self._where} failed: {error.args[0]}"
            if _code(error) in GONE:
                raise Permanent(
                    f"{said}; the topic was made anew, or forgot what was not read yet: see docs/bus.md"
                ) from None
            if _code(error) in REFUSED:
                raise Permanent(f"{said}; mend bus_url, the rights or the limits there") from None
            raise Transient(f"{said}; see that it runs, then try again") from error
        except BufferError as error:
            raise Transient(f"Kafka at {self._where} takes no more: {error}; try again") from error


def _topic(tenant: str, partition: int) -> str:
    return f"storekeep.{tenant}.{partition}"


def _code(error: KafkaException) -> int | None:
    found = error.args[0]
    return found.code() if isinstance(found, KafkaError) else None


def _message(carried: Carried) -> Message:
    attributes = {
        name.removeprefix(PREFIX): bytes(value or b"").decode("utf-8", "replace")
        for name, value in cast("list[tuple[str, bytes | None]]", carried.headers() or [])
        if name.startswith(PREFIX)
    }
    return Message(attributes, carried.value() or b"", (carried.offset() or 0) + 1)
