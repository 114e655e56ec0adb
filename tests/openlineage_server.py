"""An endpoint as Marquez has one: it reads every event with the classes of OpenLineage's own client.

`read` holds an event against the classes: each member that is required is there, none is that they do not
know, and each facet is read by the class of the schema that it names.
"""

from __future__ import annotations

import json
import threading
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attr
from openlineage.client import event_v2
from openlineage.client.generated import base


def _classes(of: Any) -> Iterator[Any]:
    yield of
    for each in of.__subclasses__():
        yield from _classes(each)


FACETS: dict[str, Any] = {each._get_schema(): each for each in _classes(base.BaseFacet)}


def read(event: Mapping[str, Any]) -> event_v2.RunEvent:
    """The event as OpenLineage's client knows it; raises where it is none."""
    assert event["schemaURL"] == event_v2.RunEvent._get_schema()
    found = _as(event_v2.RunEvent, {k: v for k, v in event.items() if k != "schemaURL"})
    assert isinstance(found, event_v2.RunEvent)
    return found


def _as(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return (
            None
            if value is None
            else _as(next(each for each in inner if each is not type(None)), value)
        )
    if origin is list:
        return [_as(inner[0], each) for each in value]
    if origin is dict:
        return {name: _as(inner[1], each) for name, each in value.items()}
    if isinstance(kind, type) and issubclass(kind, base.BaseFacet):
        return _facet(kind, value)
    if isinstance(kind, type) and attr.has(kind):
        return _of(kind, value)
    return kind(value) if kind is base.EventType else _plain(kind, value)


def _plain(kind: Any, value: Any) -> Any:
    if isinstance(kind, type):
        assert isinstance(value, (int, float) if kind is float else kind), (kind, value)
    return value


def _facet(kind: type, value: Mapping[str, Any]) -> Any:
    own = FACETS[value["_schemaURL"]]
    assert issubclass(own, kind), f"{own.__name__} is no {kind.__name__}"
    assert value["_producer"]
    known = {each.name for each in attr.fields(own)}
    said = {name: each for name, each in value.items() if not name.startswith("_")}
    if own is base.RunFacet:
        # Whoever tells more than the standard does so under a name of his own.
        said = {}
    assert said.keys() <= known, said.keys() - known
    return _of(own, said)


def _of(kind: type, value: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    return kind(**{name: _as(hints[name], each) for name, each in value.items()})


@dataclass
class Catalogue:
    """What was told to the endpoint, and what it is to answer next before it takes anything."""

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def runs(self, *states: str) -> list[str]:
        """The runs of which an event of a state came, each as often as it came."""
        return [
            each["run"]["runId"] for each in self.events if each["eventType"] in (states or STATES)
        ]


STATES = ("START", "COMPLETE", "FAIL")


@contextmanager
def catalogue() -> Iterator[Catalogue]:
    """The endpoint, open."""
    told = Catalogue()

    class Asked(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.paths.add(self.path)
            status = told.answers.pop(0) if told.answers else 201
            if status == 201:
                event = json.loads(body)
                try:
                    read(event)
                except Exception as error:  # noqa: BLE001  # whatever is wrong with it is told to who sent it
                    status = 422
                    body = str(error).encode()
                else:
                    told.events.append(event)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if status == 422 else b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
