"""A small order system over HTTP, on loopback: what a retailer's own does, with the faults that those have.

Lines are resources under their idempotency keys; those of a group share a purchase order. It is a program of
its own that happens to run in a thread: it knows nothing of Storekeep, and what it did it has really done.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from uuid import uuid4

Kind = Literal["429", "500", "401", "302", "slow", "reset", "garbage", "hang", "drip"]
When = Literal["before", "after"]


@dataclass
class Fault:
    """What goes wrong at the next requests of a method: before anything was done, or after all was."""

    kind: Kind
    when: When = "after"
    method: str = "POST"
    times: int = 1
    sku: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Broken(Exception):
    """The request comes to nothing in a way of its own."""


class OrderSystem:
    """The system: its lines, what is to go wrong, and what it was asked."""

    def __init__(self, token: str | None = None, pause_seconds: float = 0.0) -> None:
        self.lines: dict[str, dict[str, Any]] = {}
        self.refused: set[str] = set()
        self.faults: list[Fault] = []
        self.asked: Counter[tuple[str, str]] = Counter()
        self.placed: Counter[str] = Counter()
        self.token = token
        self.pause_seconds = pause_seconds
        self.lock = threading.RLock()
        self.over = threading.Event()
        system = self

        class Handles(_Requests):
            orders = system

        self._server = _Server(("127.0.0.1", 0), Handles)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where lines are placed."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/lines"

    def fault(self, kind: Kind, when: When = "after", **more: Any) -> Fault:
        """From now on something goes wrong."""
        made = Fault(kind, when, **more)
        with self.lock:
            self.faults.append(made)
        return made

    def mend(self) -> None:
        """Nothing goes wrong any more."""
        with self.lock:
            self.faults.clear()

    def change(self, key: str, **values: object) -> None:
        """Somebody changes a line."""
        with self.lock:
            self.lines[key].update(values)
            self.lines[key]["version"] += 1

    def objects(self) -> int:
        """How many purchase orders there are that have a line not cancelled."""
        with self.lock:
            return len({line["reference"] for line in self.lines.values() if not line["cancelled"]})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def due(self, method: str, when: When, skus: Sequence[str]) -> Fault | None:
        """The fault that a request meets at a moment, if any; it is used up by it."""
        with self.lock:
            for each in self.faults:
                meets = each.sku is None or each.sku in skus
                if each.method == method and each.when == when and each.times > 0 and meets:
                    each.times -= 1
                    return each
        return None

    def place(self, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Put a line on its group's purchase order; the same key again changes nothing."""
        with self.lock:
            if key in self.lines:
                if self.lines[key]["asked"] != body:
                    return 422, {"detail": "the key came with other words before"}
                return 200, self.lines[key]
            if body["sku"] in self.refused:
                return 422, {"detail": f"{body['sku']} is not delivered any more"}
            if body["order_units"] <= 0:
                return 422, {"detail": "a line orders at least one unit"}
            same = [line for line in self.lines.values() if line["group"] == body["group"]]
            self.placed[key] += 1
            self.lines[key] = {
                **{name: body[name] for name in ("group", "sku", "supplier_id", "location_id")},
                **{name: body[name] for name in ("unit_cost_minor", "currency")},
                "idempotency_key": key,
                "reference": same[0]["reference"] if same else f"PO-{uuid4().hex[:8]}",
                "ordered_units": body["order_units"],
                "received_units": 0,
                "cancelled": False,
                "asked": body,
                "version": 1,
            }
            return 201, self.lines[key]

    def cancel(self, key: str, version: str | None) -> tuple[int, dict[str, Any]]:
        """Cancel a line, unless goods have come or it is another version than was asked for."""
        with self.lock:
            line = self.lines.get(key)
            if line is None:
                return 404, {"detail": "there is no such line"}
            if version is not None and version != f'"{line["version"]}"':
                return 412, {"detail": "it is another version"}
            if line["received_units"]:
                return 409, {"detail": "goods have come"}
            if not line["cancelled"]:
                self.change(key, cancelled=True)
            return 200, line


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to talk of."""


class _Requests(BaseHTTPRequestHandler):
    orders: OrderSystem
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A line as it is now."""
        key = self.path.rpartition("/")[2]
        self._serve("GET", lambda _: self._line(key), key)

    def do_POST(self) -> None:
        """Place a line, or cancel one."""
        parts = self.path.strip("/").split("/")
        if parts[-1] == "cancel":
            version = self.headers.get("If-Match")
            self._serve("POST", lambda _: self.orders.cancel(parts[-2], version), parts[-2])
        else:
            key = self.headers["Idempotency-Key"]
            self._serve("POST", lambda body: self.orders.place(key, body), key)

    def _line(self, key: str) -> tuple[int, dict[str, Any]]:
        line = self.orders.lines.get(key)
        return (200, line) if line is not None else (404, {"detail": "there is no such line"})

    def _serve(self, method: str, work: Any, key: str) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        system = self.orders
        system.asked[method, key] += 1
        if system.token and self.headers.get("Authorization") != f"Bearer {system.token}":
            self._answer(401, {"detail": "who are you?"})
            return
        skus = [str(body.get("sku") or system.lines.get(key, {}).get("sku"))]
        try:
            self._break(system.due(method, "before", skus))
            time.sleep(system.pause_seconds)
            status, told = work(body)
            with system.lock:
                shown = {name: told[name] for name in told if name not in ("asked", "version")}
                version = told.get("version")
            self._break(system.due(method, "after", skus))
        except Broken:
            return
        self._answer(status, shown, {"ETag": f'"{version}"'} if version else {})

    def _break(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.kind == "slow":
            self.orders.over.wait(0.15)
            return
        if fault.kind == "reset":
            # Nothing lingers, so that the other end sees a reset and no orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault.kind == "hang":
            self.orders.over.wait(5)
            self.close_connection = True
        elif fault.kind == "garbage":
            self._send(200, b"<html>It works!</html>", {})
        elif fault.kind == "drip":
            self._drip()
        else:
            self._answer(int(fault.kind), {"detail": "not now"}, fault.headers)
        raise Broken

    def _drip(self) -> None:
        """An answer that goes on for ever, each byte in time."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.orders.over.wait(0.05):
            self.wfile.write(b" ")
        self.close_connection = True

    def _answer(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), headers or {})

    def _send(self, status: int, text: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""
