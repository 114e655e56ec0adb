"""From the setting `bus_url` to a transport, and to the home's own NATS server where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from storekeep import servers
from storekeep.bus.remote import RemoteLog
from storekeep.bus.transport import Transport
from storekeep.config import Settings
from storekeep.errors import Misused
from storekeep.store import Store

OWN_NATS = "nats://"


@contextmanager
def opened(settings: Settings) -> Iterator[Transport | None]:
    """The transport that a home is set to use, or None when its log is all there is.

    It is connected when it is first used. Raises `Misused` when the setting names none that is known, or one
    whose package is not installed.
    """
    if settings.bus_url is None:
        yield None
        return
    url = settings.bus_url.get_secret_value()
    with ExitStack() as stack:
        if url == OWN_NATS:
            url = stack.enter_context(servers.nats(settings))
        transport = connect(url)
        stack.callback(transport.close)
        yield transport


def connect(url: str) -> Transport:
    """The transport of a URL, not connected yet."""
    scheme = url.partition("://")[0]
    try:
        if scheme in ("nats", "tls"):
            from storekeep.bus.jetstream import JetStream  # noqa: PLC0415 - an optional package

            return JetStream(url)
        if scheme == "kafka":
            from storekeep.bus.kafka import Kafka  # noqa: PLC0415 - an optional package

            return Kafka(url)
    except ModuleNotFoundError as error:
        extra = "kafka" if scheme == "kafka" else "nats"
        raise Misused(
            f"bus_url needs the package {error.name}: pip install 'storekeep[{extra}]'"
        ) from None
    if scheme in ("postgresql", "postgres"):
        parts = urlsplit(url)
        return RemoteLog(Store(url), f"log {parts.hostname}:{parts.port or 5432}{parts.path}")
    raise Misused(
        "bus_url has the form nats://..., tls://..., kafka://... or postgresql://..., "
        f"and not {scheme}"
    )
