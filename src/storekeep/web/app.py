"""What is asked over HTTP, and what is answered.

Hides HTTP: whoever sends something is answered when it is safe, and not before; what it says becomes facts
later, in another process. Nothing that is sent is trusted before its signature was seen to be right, and no
answer tells why it was not.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from pydantic_core import from_json
from starlette.exceptions import HTTPException

from storekeep import ingest
from storekeep.config import Settings, WebShop
from storekeep.errors import Misused, Transient
from storekeep.ingest.web_shops import TOLD, Told, is_signed
from storekeep.store import Arrival, Receiving

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
_PING = b"webhook_id="
_KEPT = Response(status_code=HTTPStatus.OK)


class Problem(Exception):
    """A request that is not taken: the status, and what to do, in words for whoever sent it."""

    def __init__(self, status: HTTPStatus, detail: str, after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.after_seconds = status, detail, after_seconds


@dataclass(frozen=True)
class _Shop:
    """A web shop, what its webhooks are like, and its secrets."""

    name: str
    told: Told
    secrets: tuple[bytes, ...]
    window: timedelta

    @classmethod
    def of(cls, name: str, shop: WebShop) -> _Shop:
        window = timedelta(seconds=shop.replay_window_seconds)
        return cls(name, TOLD[shop.platform], shop.secrets(), window)


def application(
    settings: Settings,
    receiving: Receiving,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """The application of one home's tenant; raises `Misused` when a secret is not there."""
    shops = {name: _Shop.of(name, shop) for name, shop in settings.web_shops.items()}
    token, bodies = settings.push_token(), ingest.Bodies(settings.home, settings.tenant)
    app = FastAPI(title="Storekeep", docs_url=None, redoc_url=None, openapi_url=None)

    async def hook(request: Request) -> Response:
        """Take a webhook."""
        shop = shops.get(request.path_params["source"])
        if shop is None:
            raise Problem(HTTPStatus.NOT_FOUND, "no source of that name sends webhooks here")
        body = await _body(request, settings.hook_bytes)
        headers = request.headers
        signed = _said(headers, shop.told.signature)
        if signed is None and body.startswith(_PING) and not shop.told.triggered_at:
            # WooCommerce asks so, unsigned, whether somebody is there before it sends anything.
            return _KEPT
        if signed is None or not is_signed(body, signed, shop.secrets):
            raise Problem(HTTPStatus.UNAUTHORIZED, "the signature is not right")
        arrival = Arrival(
            shop.name,
            (_said(headers, shop.told.delivery_id) or _digest(body))[: ingest.LONGEST_ID],
            (_said(headers, shop.told.topic) or "")[: ingest.LONGEST_ID],
            _triggered(headers, shop, now()),
            body,
        )
        await _keep(receiving, arrival, bodies)
        _check_json(body)
        return _KEPT

    async def push(request: Request) -> Response:
        """Take a batch."""
        _check_token(request.headers.get("authorization", ""), token)
        feed, mapping = request.path_params["feed"], request.query_params.get("mapping", "")
        # To read one takes so long that others would wait.
        await asyncio.to_thread(_check_mapping, settings, feed, mapping)
        body = await _body(request, settings.push_bytes)
        if not body:
            raise Problem(HTTPStatus.BAD_REQUEST, "the body is empty; send the file in it")
        arrival = ingest.pushed(feed, mapping, body, request.headers.get("idempotency-key"))
        await _keep(receiving, arrival, bodies)
        return _json({"delivery_id": arrival.delivery_id}, HTTPStatus.ACCEPTED)

    # As plain routes: what FastAPI does for arguments would cost as much as all the rest.
    app.add_route("/v1/hooks/{source}", hook, methods=["POST"])
    app.add_route("/v1/ingest/{feed}", push, methods=["POST"])
    app.add_exception_handler(Problem, _told)
    app.add_exception_handler(HTTPException, _told)
    return app


def _said(headers: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """What the first of some headers says that is there."""
    return next((headers[name] for name in names if name in headers), None)


async def _body(request: Request, most: int) -> bytes:
    """The body, unless it is too long: then no more of it is read than that."""
    too_long = Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is longer than {most:,} bytes; send less"
    )
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise too_long
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > most:
            raise too_long
    return b"".join(parts)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _triggered(headers: Mapping[str, str], shop: _Shop, now: datetime) -> datetime | None:
    """When it was sent, where it says so; raises `Problem` when that is too long ago."""
    said = _said(headers, shop.told.triggered_at)
    if said is None:
        return None
    try:
        at = datetime.fromisoformat(said)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or not now - shop.window <= at <= now + shop.window:
        raise Problem(HTTPStatus.UNAUTHORIZED, "it was not sent lately, or does not say when")
    return at


def _check_json(body: bytes) -> None:
    """What is signed and no JSON is kept all the same, and whoever sent it told."""
    try:
        from_json(body)
    except ValueError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, "the body is no JSON; it is kept, and nothing was taken in"
        ) from None


def _check_token(given: str, token: bytes | None) -> None:
    if token is None:
        raise Problem(
            HTTPStatus.FORBIDDEN, "nobody may push batches here; set push_token_env to allow it"
        )
    word, _, said = given.partition(" ")
    said_bytes = said.strip().encode("latin-1", "replace")
    if not hmac.compare_digest(said_bytes, token) or word.lower() != "bearer":
        raise Problem(HTTPStatus.UNAUTHORIZED, "the bearer token is not right")


def _check_mapping(settings: Settings, feed: str, name: str) -> None:
    """Only a mapping that ships or lies in the home's folder is read, never a path that somebody sends."""
    if not _NAME.fullmatch(name):
        raise Problem(HTTPStatus.BAD_REQUEST, "name a mapping: ?mapping=NAME")
    try:
        found = ingest.mapping_of(settings.home, name)
    except Misused:
        raise Problem(HTTPStatus.BAD_REQUEST, f"there is no mapping {name} here") from None
    if found.feed != feed:
        raise Problem(HTTPStatus.NOT_FOUND, f"mapping {name} is of feed {found.feed}")


async def _keep(receiving: Receiving, arrival: Arrival, bodies: ingest.Bodies) -> None:
    if "\0" in arrival.delivery_id + arrival.topic:
        raise Problem(HTTPStatus.BAD_REQUEST, "a header holds what is no text")
    try:
        await receiving.keep(bodies.seal(arrival))
    except Transient as error:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE, "it is not kept; send it again", error.after_seconds
        ) from error


def _json(document: object, status: int, media_type: str = "application/json") -> Response:
    return Response(json.dumps(document), status, media_type=media_type)


async def _told(request: Request, error: Exception) -> Response:
    """What went wrong, as RFC 9457 has it."""
    del request
    after, status, detail = None, HTTPStatus.INTERNAL_SERVER_ERROR, ""
    if isinstance(error, Problem):
        after, status, detail = error.after_seconds, error.status, error.detail
    elif isinstance(error, HTTPException):
        status, detail = HTTPStatus(error.status_code), "post to /v1/hooks/ or /v1/ingest/"
    document = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
    answer = _json(document, status, "application/problem+json")
    if after is not None:
        answer.headers["Retry-After"] = str(round(after))
    return answer
