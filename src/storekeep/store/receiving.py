"""What comes over HTTP, written durably before it is answered.

Hides that requests which come at once share one commit: each waits until a transaction with its own row has
been committed, and while one commits the next fills. The connections serve one tenant and nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Self

import psycopg

from storekeep.errors import Transient
from storekeep.store.arrivals import Arrival
from storekeep.store.connection import ROLE, SCHEMA

_CONNECTIONS = 2
_AT_ONCE = 512
_BYTES_AT_ONCE = 16 << 20
_MOST_WAITING = 4096
_TIMEOUT = "10s"
_KEEP = (
    "INSERT INTO webhook_delivery (tenant, source, delivery_id, topic, triggered_at, body)"
    " SELECT %s, * FROM unnest(%b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::bytea[])"
    " ON CONFLICT DO NOTHING"
)


class Receiving:
    """Writers to the table of arrivals of one tenant; used by one event loop."""

    def __init__(self, conninfo: str, tenant: str) -> None:
        self._conninfo = conninfo
        self._tenant = tenant
        self._waiting: asyncio.Queue[tuple[Arrival, asyncio.Future[None]]] = asyncio.Queue(
            _MOST_WAITING
        )
        self._writers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._writers = [asyncio.create_task(self._write()) for _ in range(_CONNECTIONS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._writers:
            each.cancel()
        for each in self._writers:
            with suppress(asyncio.CancelledError):
                await each

    async def keep(self, arrival: Arrival) -> None:
        """Keep what arrived, once however often it comes; it is safe when this returns.

        Raises `Transient` when it is not kept: the database is away, or too much waits for it.
        """
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((arrival, kept))
        except asyncio.QueueFull:
            raise Transient("more comes than can be kept; send it again", 1.0) from None
        await kept

    async def _write(self) -> None:
        """One writer: takes what waits, all of it, and commits it together."""
        connection: psycopg.AsyncConnection[Any] | None = None
        try:
            while True:
                together = await self._together()
                try:
                    connection = connection or await self._connected()
                    await self._insert(connection, [arrival for arrival, _ in together])
                except psycopg.Error as error:
                    if connection is not None:
                        await connection.close()
                        connection = None
                    said = str(error).strip().partition("\n")[0]
                    _tell(together, Transient(f"PostgreSQL is not available: {said}", 1.0))
                else:
                    _tell(together, None)
        finally:
            if connection is not None:
                await connection.close()

    async def _together(self) -> list[tuple[Arrival, asyncio.Future[None]]]:
        together = [await self._waiting.get()]
        size = len(together[0][0].body)
        while len(together) < _AT_ONCE and size < _BYTES_AT_ONCE and not self._waiting.empty():
            together.append(self._waiting.get_nowait())
            size += len(together[-1][0].body)
        return together

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=10, client_encoding="utf8"
        )
        await connection.execute(
            "SELECT set_config('role', %s, false), set_config('storekeep.tenant', %s, false),"
            " set_config('search_path', %s, false), set_config('timezone', 'UTC', false),"
            " set_config('statement_timeout', %s, false), set_config('synchronous_commit', 'on', false)",
            (ROLE, self._tenant, SCHEMA, _TIMEOUT),
        )
        return connection

    async def _insert(
        self, connection: psycopg.AsyncConnection[Any], arrivals: list[Arrival]
    ) -> None:
        await connection.execute(
            _KEEP,
            (
                self._tenant,
                [one.source for one in arrivals],
                [one.delivery_id for one in arrivals],
                [one.topic for one in arrivals],
                [one.triggered_at for one in arrivals],
                [one.body for one in arrivals],
            ),
        )


def _tell(together: list[tuple[Arrival, asyncio.Future[None]]], error: Transient | None) -> None:
    """Whoever still waits for an answer gets it."""
    for _, kept in together:
        if not kept.done():
            if error is None:
                kept.set_result(None)
            else:
                kept.set_exception(error)
