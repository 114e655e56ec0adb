"""NATS JetStream as a transport: one stream a tenant, one subject a partition.

Hides the asynchronous client behind plain calls, and what of JetStream is not used: there are no consumers
and no acknowledgements of reading. Messages are read by their sequence in the stream, which is the position
that PostgreSQL keeps. A connection that fails is given up and made again by the next call.

A batch is published whole or not at all, so that no part of it is overtaken by what follows. Messages carry
the event's id as theirs: what was published moments ago already is not stored again.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import NotFoundError

from storekeep.bus.transport import Message
from storekeep.errors import Permanent, Transient

PREFIX = "ce-"
# What the HTTP binding of CloudEvents leaves as it is in the value of a header.
PLAIN = "!#$&'()*+,/:;<=>?@[\\]^`{|}"
CONNECT_SECONDS = 5
PATIENCE_SECONDS = 30
TOGETHER = 500
READ_BYTES = 64 * 2**20
END, NOTHING = "204", "404"
SEQUENCE, LAST_SEQUENCE = "Nats-Sequence", "Nats-Last-Sequence"

Answer = TypeVar("Answer")


class JetStream:
    """The streams of a NATS cluster, by its URL or several with commas between them."""

    def __init__(self, url: str) -> None:
        self._servers = url.split(",")
        self._where = ", ".join(urlsplit(each).netloc.rpartition("@")[2] for each in self._servers)
        self._client: Client | None = None
        self._asking: asyncio.Task[object] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def origin(self, tenant: str) -> str:
        """When the tenant's stream was made; it is made if there is none."""
        return self._ask(lambda client: _origin(client, tenant))

    def publish(self, tenant: str, partition: int, messages: Sequence[Message]) -> None:
        """Store messages in the tenant's stream."""
        self._ask(lambda client: self._publish(client, tenant, partition, messages))

    def read(self, tenant: str, partition: int, after: int, limit: int) -> list[Message]:
        """The next messages of a partition by their sequence in the stream."""
        subject = _subject(tenant, partition)
        return self._ask(lambda client: _read(client, _stream(tenant), subject, after, limit))

    def close(self) -> None:
        """Give the connection back."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._drop(), self._loop).result(CONNECT_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _ask(self, work: Callable[[Client], Awaitable[Answer]]) -> Answer:
        """Do something with the connection; what fails is named, and the connection given up."""
        try:
            return asyncio.run_coroutine_threadsafe(self._connected(work), self._loop).result()
        except (errors.Error, CancelledError, OSError, TimeoutError, ValueError) as error:
            said = str(error) or type(error).__name__
            if "authorization" in said.lower():
                raise Permanent(f"NATS at {self._where} does not let us in; mend bus_url") from None
            raise Transient(
                f"NATS at {self._where} failed: {said}; see that it runs with JetStream, then try again"
            ) from error

    async def _connected(self, work: Callable[[Client], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if self._client is None or not self._client.is_connected:
                    await self._drop()
                    # Kept before it is connected, so that it is closed when that fails.
                    self._client = Client()
                    await self._client.connect(
                        self._servers,
                        name="storekeep",
                        allow_reconnect=False,
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        connect_timeout=CONNECT_SECONDS,
                        error_cb=_unheard,
                        closed_cb=self._lost,
                    )
                self._asking = asyncio.current_task()
                return await work(self._client)
        except Permanent:
            raise
        except BaseException:
            await self._drop()
            raise
        finally:
            self._asking = None

    async def _lost(self) -> None:
        """The connection is gone, and not by us: nobody need wait for an answer."""
        if self._client is not None and self._asking is not None:
            self._asking.cancel()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _publish(
        self, client: Client, tenant: str, partition: int, messages: Sequence[Message]
    ) -> None:
        await _origin(client, tenant)
        subject = _subject(tenant, partition)
        sealed = [(_headers(each), each.body) for each in messages]
        for headers, body in sealed:
            size = len(body) + sum(len(name) + len(value) + 4 for name, value in headers.items())
            if size + 64 > client.max_payload:
                raise Permanent(
                    f"event {headers['ce-id']} takes {size:,} bytes, and NATS at {self._where} takes "
                    f"{client.max_payload:,} at most; raise its max_payload"
                )
        for start in range(0, len(sealed), TOGETHER):
            part = sealed[start : start + TOGETHER]
            if len(part) == 1 or not await _together(client, subject, part):
                await _one_by_one(client, subject, part)


async def _unheard(error: Exception) -> None:
    """What goes wrong is raised where it was asked for; the client would log it besides."""
    del error


def _stream(tenant: str) -> str:
    return f"storekeep_{tenant}"


def _subject(tenant: str, partition: int) -> str:
    return f"storekeep.{tenant}.{partition}"


async def _origin(client: Client, tenant: str) -> str:
    stream = client.jetstream()
    try:
        found = await stream.stream_info(_stream(tenant))
    except NotFoundError:
        found = await stream.add_stream(
            api.StreamConfig(
                name=_stream(tenant),
                subjects=[_subject(tenant, 0).replace(".0", ".*")],
                storage=api.StorageType.FILE,
                # A full stream refuses what is new; the default forgets what is old, read or not.
                discard=api.DiscardPolicy.NEW,
                allow_direct=True,
                allow_atomic=True,
            )
        )
    return f"nats {found.created:%Y-%m-%dT%H:%M:%S.%f}"


def _headers(message: Message) -> dict[str, str]:
    named = {
        f"{PREFIX}{name}": quote(value, safe=PLAIN) for name, value in message.attributes.items()
    }
    return {**named, api.Header.MSG_ID: message.attributes["id"]}


async def _together(
    client: Client, subject: str, messages: Sequence[tuple[dict[str, str], bytes]]
) -> bool:
    """Store messages all or none; false when none, since some are there already or it is not allowed."""
    batch, last = uuid4().hex, len(messages)
    for place, (headers, body) in enumerate(messages, start=1):
        sent = {**headers, api.Header.BATCH_ID: batch, api.Header.BATCH_SEQUENCE: str(place)}
        if place == last:
            sent[api.Header.BATCH_COMMIT] = "1"
        if place in (1, last):
            answer = await client.request(subject, body, CONNECT_SECONDS, headers=sent)
            if answer.data and "error" in json.loads(answer.data):
                return False
        else:
            await client.publish(subject, body, headers=sent)
    return True


async def _one_by_one(
    client: Client, subject: str, messages: Sequence[tuple[dict[str, str], bytes]]
) -> None:
    """Store messages each after the one before is stored; what is there already is left out."""
    stream = client.jetstream()
    for headers, body in messages:
        await stream.publish(subject, body, CONNECT_SECONDS, headers=headers)


async def _read(client: Client, stream: str, subject: str, after: int, limit: int) -> list[Message]:
    """Ask for a run of messages by sequence, and see that none of it was lost on the way."""
    wanted = {"seq": after + 1, "next_by_subj": subject, "batch": limit, "max_bytes": READ_BYTES}
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    try:
        await client.publish(
            f"{api.DEFAULT_PREFIX}.DIRECT.GET.{stream}", json.dumps(wanted).encode(), inbox
        )
        found: list[Message] = []
        while True:
            answer = await answers.next_msg(CONNECT_SECONDS)
            said: dict[str, str] = answer.headers or {}
            # A message may have any header, but for this one, which the server writes after all others.
            if SEQUENCE not in said:
                _check_end(said, found)
                return found
            if found and int(said[LAST_SEQUENCE]) != found[-1].position:
                raise errors.Error("a message was lost on the way")
            found.append(_message(answer, said))
    finally:
        await answers.unsubscribe()


def _check_end(said: dict[str, str], found: list[Message]) -> None:
    status = said.get(api.Header.STATUS)
    if status == NOTHING and not found:
        return
    if status != END or not found or int(said[LAST_SEQUENCE]) != found[-1].position:
        raise errors.Error(
            f"no answer to a reading but {status} {said.get(api.Header.DESCRIPTION)}"
        )


def _message(answer: Msg, said: dict[str, str]) -> Message:
    attributes = {
        name.removeprefix(PREFIX): unquote(value)
        for name, value in said.items()
        if name.startswith(PREFIX)
    }
    return Message(attributes, answer.data, int(said[SEQUENCE]))
