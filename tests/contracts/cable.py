"""A cable to a PostgreSQL that can be cut: what a network does that fails at a bad moment.

It passes bytes on between a client and the server, looks for the word that ends a transaction, and breaks
off, once, where it was told to. What the server has done by then it has really done.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Moment = Literal["before it is sent", "after it was done"]
_END = b"COMMIT\0"


class Cable:
    """Listens on a port of its own; `conninfo` leads through it to the server."""

    def __init__(self, conninfo: str) -> None:
        parts = conninfo_to_dict(conninfo)
        self._host, self._port = str(parts["host"]), int(str(parts.get("port") or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", hostaddr="", port=port)
        self.down = False
        self.cuts = 0
        self._moment: Moment | None = None
        self._left = 0
        self._wires: list[socket.socket] = []
        self._deaf: socket.socket | None = None
        self._answered = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at_commit(self, moment: Moment, number: int = 1) -> None:
        """Break off at the so-maniest end of a transaction from now on."""
        self._moment, self._left = moment, number

    def pull(self) -> None:
        """Nobody gets through any more."""
        self.down = True
        for wire in self._wires:
            _end(wire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.down:
                    _end(client)
                    continue
                server = self._connect()
                self._wires += [client, server]
                for target, wires in (
                    (self._forth, (client, server)),
                    (self._back, (server, client)),
                ):
                    threading.Thread(target=target, args=wires, daemon=True).start()

    def _connect(self) -> socket.socket:
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return server
        return socket.create_connection((self._host, self._port))

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        """What the client says; at the end of a transaction, what was told to happen then."""
        with suppress(OSError):
            while said := client.recv(65536):
                if _END in said and self._moment is not None:
                    self._left -= 1
                    if self._left == 0:
                        self._break(client, server, said)
                        return
                server.sendall(said)
        _end(server)

    def _break(self, client: socket.socket, server: socket.socket, said: bytes) -> None:
        moment, self._moment = self._moment, None
        self.cuts += 1
        if moment == "after it was done":
            # The answer goes nowhere: the other direction is cut first, and the server given time to act.
            self._answered.clear()
            self._deaf = client
            server.sendall(said)
            self._answered.wait(5)
        _end(client)
        _end(server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while said := server.recv(65536):
                if client is self._deaf:
                    self._answered.set()
                    return
                client.sendall(said)
        _end(client)


def _end(wire: socket.socket) -> None:
    with suppress(OSError):
        wire.shutdown(socket.SHUT_RDWR)
    wire.close()
