"""How many webhooks a second the way in over HTTP keeps, and how long each waits for its answer.

Hides the set-up: a home of its own in a temporary folder, the server in a process of its own, and a sender
that keeps to its timetable. A webhook's time runs from when it was to be sent, so that a server that stalls
is not spared the ones that came meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from storekeep import servers
from storekeep.config import Settings
from storekeep.errors import Permanent
from storekeep.ingest.web_shops import signature
from storekeep.store import Store

Row = dict[str, Any]

RATE = 1_000
SECONDS = 60
GOAL_MS = 100.0
_CONNECTIONS = 64
_SECRET = "of the benchmark alone"  # noqa: S105 - it opens nothing
_LISTENS = re.compile(r"listening on http://[^:]+:(\d+)")


@dataclass(frozen=True)
class Sent:
    """What came of webhooks: seconds until each was answered with 200, how many were not, how many kept."""

    seconds: np.ndarray
    refused: int
    kept: int
    spent: float


def run(settings: Settings, quick: bool) -> list[Row]:
    """Measure 1,000 webhooks a second for a minute; `quick` for a tenth of it. One row a figure."""
    many = RATE * SECONDS // (10 if quick else 1)
    came = measure(settings, many, RATE)
    p50, p99 = (float(each) for each in np.percentile(came.seconds, [50, 99]) * 1000)
    lost = many - came.kept
    return [
        _row("webhooks kept and answered", many / came.spent, "webhook/s", f"{RATE:,}", None),
        _row("answer to a webhook, median", p50, "ms", None, None),
        _row("answer to a webhook, 99 of 100", p99, "ms", f"{GOAL_MS:g} or less", p99 <= GOAL_MS),
        _row("webhooks lost", lost, "webhook", "0", lost == 0 and came.refused == 0),
    ]


def _row(figure: str, value: float, unit: str, goal: str | None, met: bool | None) -> Row:
    row: Row = {"figure": figure, "value": round(value, 3), "unit": unit, "goal": goal, "met": met}
    return row | {"peer": None, "peer_value": None, "ratio": None}


def measure(settings: Settings, many: int, rate: int) -> Sent:
    """Send so many webhooks, so many a second, to a server of its own; what came of them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storekeep-bench-")))
        folder.chmod(0o711)
        own = settings.model_copy(
            update={"home": folder / "home", "database_url": None, "tenant": "bench"}
        )
        database = stack.enter_context(servers.lease(own))
        port = stack.enter_context(_served(own))
        requests = [_request(number) for number in range(many)]
        begun = time.perf_counter()
        seconds, refused = asyncio.run(_send(port, requests, rate))
        spent = time.perf_counter() - begun
        with Store(database.conninfo) as store, store.transaction(own.tenant) as tx:
            kept = tx.count_arrivals()
    return Sent(np.array(seconds), refused, kept, spent)


@contextmanager
def _served(own: Settings) -> Iterator[int]:
    """The server as a person runs it; the port it listens on."""
    shops = {"shop": {"platform": "shopify", "location_id": "WEB", "secret_env": "BENCH_SECRET"}}
    environ = {
        **os.environ,
        "STOREKEEP_WEB_SHOPS": json.dumps(shops),
        "STOREKEEP_TENANT": own.tenant,
        "BENCH_SECRET": _SECRET,
    }
    words = [sys.executable, "-m", "storekeep", "--home", str(own.home), "serve", "--port", "0"]
    process = subprocess.Popen(  # noqa: S603 - our own program, no shell
        [*words, "--for", "600"],
        env=environ,
        # What it says at its end is none of the figures.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        told = process.stderr.readline() if process.stderr else ""
        found = _LISTENS.search(told)
        if found is None:
            raise Permanent(f"the server did not start: {told.strip()}")
        yield int(found[1])
    finally:
        process.terminate()
        process.communicate()


def _request(number: int) -> bytes:
    """A webhook of an order with two lines, of the length that Shopify's have, as it goes over the wire."""
    at = datetime.now(UTC).isoformat()
    line = {"price": "199.00", "quantity": 1, "sku": "IPOD2008PINK", "note": "x" * 3_500}
    order = {"id": number, "created_at": at, "updated_at": at, "currency": "USD"}
    body = json.dumps({**order, "line_items": [{"id": 2 * number + n, **line} for n in (0, 1)]})
    head = [
        "POST /v1/hooks/shop HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Shopify-Hmac-Sha256: {signature(body.encode(), _SECRET.encode())}",
        "X-Shopify-Topic: orders/create",
        f"X-Shopify-Webhook-Id: bench-{number}",
        f"X-Shopify-Triggered-At: {at}",
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


async def _send(port: int, requests: list[bytes], rate: int) -> tuple[list[float], int]:
    """Send each when its time has come, by whichever connection is free; their times, and how many failed."""
    seconds: list[float] = []
    refused = 0
    numbers = itertools.count()
    begun = time.perf_counter() + 0.1

    async def sender() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (number := next(numbers)) < len(requests):
            due = begun + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            writer.write(requests[number])
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " in head.partition(b"\r\n")[0]:
                seconds.append(time.perf_counter() - due)
            else:
                refused += 1
        writer.close()

    await asyncio.gather(*(sender() for _ in range(_CONNECTIONS)))
    return seconds, refused
