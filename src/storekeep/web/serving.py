"""The process that listens: from the settings to a socket, until it is told to stop.

Hides uvicorn, its event loop and its own ideas about signals: it runs in a thread, and whoever started it
says when it is to end. What is being answered then is answered first.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from storekeep import servers
from storekeep.config import Settings
from storekeep.errors import Misused, Refused, Transient
from storekeep.store import Receiving, Store
from storekeep.web.app import application

_MOST_AT_ONCE = 2_000
_BACKLOG = 2_048
_STOP_SECONDS = 5


class Serving:
    """A server that is running; `port` is the one it listens on."""

    def __init__(self, settings: Settings, conninfo: str) -> None:
        self._socket = _bound(settings.web_host, settings.web_port)
        self.port: int = self._socket.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._failed: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(settings, conninfo), name="storekeep-serve"
        )
        self._thread.start()
        self._ready.wait()

    def _run(self, settings: Settings, conninfo: str) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop()) as runner:
                runner.run(self._serve(settings, conninfo))
        except BaseException as error:  # noqa: BLE001 - it is raised where the server is stopped
            self._failed = error
        finally:
            self._ready.set()

    async def _serve(self, settings: Settings, conninfo: str) -> None:
        async with Receiving(conninfo, settings.tenant) as receiving:
            config = uvicorn.Config(
                application(settings, receiving),
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_AT_ONCE,
                timeout_graceful_shutdown=_STOP_SECONDS,
            )
            self._server = uvicorn.Server(config)
            self._ready.set()
            await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Answer what is being asked, and end; raises what ended it before."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        if self._failed is not None:
            raise self._failed

    @property
    def alive(self) -> bool:
        """Whether it still listens."""
        return self._thread.is_alive()


@contextmanager
def serving(settings: Settings) -> Iterator[Serving]:
    """The server of a home's tenant, its database running and its schema up to date.

    Raises `Misused` when a secret is not there or the address cannot be listened on, and `Refused` for a
    tenant that is only played.
    """
    with servers.lease(settings) as database:
        with Store(database.conninfo) as store:
            store.migrate()
            with store.transaction(settings.tenant) as tx:
                tx.make_tenant("live")
                if tx.purpose() != "live":
                    raise Refused(
                        f"tenant {settings.tenant} is a demonstration: nobody sends to it"
                    )
        server = Serving(settings, database.conninfo)
        try:
            yield server
        finally:
            server.stop()


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise Misused(f"web_host {host} is no address of this machine") from None
        raise Transient(
            f"port {port} of {host} cannot be listened on ({error.strerror}); set web_port to another"
        ) from None


def _loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - there is none for every system
    except ModuleNotFoundError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
