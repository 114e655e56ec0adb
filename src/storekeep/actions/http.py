"""A retailer's own order system, reached over HTTP: purchase-order lines as JSON resources.

Hides the wire: which answer or failure means try again, look first, or no; how a line's state is told apart;
that several lines travel at once. What such a system must offer stands in docs/execution.md.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storekeep.actions.adapter import Answer, Order, standing
from storekeep.config import OrderSystem
from storekeep.decisions import Receipt
from storekeep.errors import Permanent, Transient, Unknown

if TYPE_CHECKING:
    import httpx

_CONNECTIONS = 8
_MOST_BYTES = 1 << 20
_AGAIN = frozenset({401, 408, 409, 425, 429})
_In = TypeVar("_In")
_Out = TypeVar("_Out")


class _Line(BaseModel):
    """What an order system says of a line; more may stand in it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    idempotency_key: str
    reference: str = Field(min_length=1, max_length=200)
    sku: str
    supplier_id: str
    location_id: str
    ordered_units: int
    received_units: int = 0
    cancelled: bool = False


class _Garbled(Exception):
    """The answer is none that such a system gives; the text says why."""


class HttpOrders:
    """Purchase orders in a system of the retailer's own."""

    most_orders = 64

    def __init__(self, system: OrderSystem) -> None:
        self.name = system.name
        self._system = system
        self._opened: httpx.Client | None = None

    def close(self) -> None:
        """Give the connections back."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def execute(self, orders: Sequence[Order], at: datetime) -> Sequence[Answer]:
        """Place each line under its key; the system puts the lines of one group on one purchase order."""
        del at  # The same key must always come with the same words.
        return self._at_once(_answered(self._place), orders)

    def compensate(self, receipts: Sequence[Receipt], at: datetime) -> Sequence[Answer]:
        """Cancel lines of which nothing has arrived, and that are as they were when they were placed."""
        del at
        return self._at_once(_answered(self._cancel), receipts)

    def find(self, idempotency_keys: Sequence[str]) -> Mapping[str, Receipt]:
        """The lines that were placed under keys, as they are now."""
        found = self._at_once(self._seen, idempotency_keys)
        return {now[0].idempotency_key: now[0] for now in found if now is not None}

    def _at_once(self, call: Callable[[_In], _Out], things: Sequence[_In]) -> list[_Out]:
        self._client()
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return list(pool.map(call, things))

    def _place(self, order: Order) -> Receipt:
        key = order.decision_id
        body = {**order.parameters, "idempotency_key": key, "group": order.group}
        status, headers, text = self._ask("POST", "", {"Idempotency-Key": key}, body)
        return self._written(key, status, headers, text)

    def _cancel(self, receipt: Receipt) -> Receipt | str:
        key = receipt.idempotency_key
        seen = self._seen(key)
        why = standing(receipt, seen and seen[0])
        if seen is None or why is not None:
            return why or ""
        now, etag = seen
        if now.details["cancelled"]:
            return now
        headers = {"Idempotency-Key": f"{key}/cancel"} | ({"If-Match": etag} if etag else {})
        status, came, text = self._ask("POST", f"/{key}/cancel", headers, {})
        if status == 412:
            return f"somebody changed {receipt.reference} since it was placed"
        if status == 409:
            return f"{self.name} does not cancel {receipt.reference}: {_words(text)}"
        return self._written(key, status, came, text)

    def _seen(self, key: str) -> tuple[Receipt, str | None] | None:
        """A line as it is now, with the mark of its version if there is one."""
        status, headers, text = self._ask("GET", f"/{key}", {}, None)
        if status == 404:
            return None
        self._check(status, headers, text)
        try:
            return self._receipt(key, text), headers.get("etag")
        except _Garbled as error:
            raise Permanent(f"{self.name} says of line {key} what does not read: {error}") from None

    def _written(self, key: str, status: int, headers: Mapping[str, str], text: bytes) -> Receipt:
        """The receipt of a write; one that does not read may have been done."""
        self._check(status, headers, text)
        try:
            return self._receipt(key, text)
        except _Garbled as error:
            said = f"{self.name} answered for line {key} what does not read: {error}"
            raise Unknown(said) from None

    def _check(self, status: int, headers: Mapping[str, str], text: bytes) -> None:
        """Raise what an answer other than 2xx means."""
        said = f"{self.name} answers {status}: {_words(text)}"
        if status in _AGAIN or status >= 500:
            raise Transient(said, after_seconds=_retry_after(headers))
        if not 200 <= status < 300:
            raise Permanent(said)

    def _receipt(self, key: str, text: bytes) -> Receipt:
        try:
            body = json.loads(text)
            line = _Line.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise _Garbled(f"{where}: {first['msg']}") from None
        except (ValueError, RecursionError):
            raise _Garbled("it is not JSON") from None
        if line.idempotency_key != key:
            raise _Garbled("it is about another line")
        # Goods arriving is what an order is for; anything else would be somebody's change.
        told = {name: value for name, value in body.items() if name != "received_units"}
        seen = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return Receipt(
            idempotency_key=key,
            adapter=self.name,
            reference=line.reference,
            fingerprint=hashlib.sha256(seen.encode()).hexdigest()[:16],
            details=line.model_dump(exclude={"idempotency_key", "reference"}),
        )

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a request; status, headers and body of the answer, all of it in time and of bounded size."""
        import httpx  # noqa: PLC0415  # homes without such a system do not pay for it

        until = time.monotonic() + self._system.timeout_seconds
        url = self._system.url.rstrip("/") + path
        try:
            with self._client().stream(method, url, headers=dict(headers), json=body) as answer:
                text = b""
                for part in answer.iter_bytes():
                    text += part
                    if len(text) > _MOST_BYTES or time.monotonic() > until:
                        raise httpx.ReadTimeout("the answer does not end")
                return answer.status_code, answer.headers, text
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Transient(f"{self.name} cannot be reached: {_said(error)}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            said = f"{self.name} broke off: {_said(error)}"
            raise (Transient if method == "GET" else Unknown)(said) from error

    def _client(self) -> httpx.Client:
        if self._opened is None:
            import httpx  # noqa: PLC0415  # homes without such a system do not pay for it

            token = self._system.token()
            self._opened = httpx.Client(
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=self._system.timeout_seconds,
                limits=httpx.Limits(max_connections=_CONNECTIONS),
                # Orders go where the settings say, whatever proxy the environment names.
                trust_env=False,
            )
        return self._opened


def _answered(call: Callable[[_In], Receipt | str]) -> Callable[[_In], Answer]:
    """The call with what it raises as its answer: what is so of one line need not be so of the next."""

    def answer(thing: _In) -> Answer:
        try:
            return call(thing)
        except (Transient, Unknown) as error:
            return error
        except Permanent as error:
            return str(error)

    return answer


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _words(text: bytes) -> str:
    """What an answer says of itself, in one short line."""
    return " ".join(text[:400].decode(errors="replace").split())[:200] or "nothing more"


def _retry_after(headers: Mapping[str, str]) -> float:
    """After how many seconds the system wants to be asked again; 0 when it does not say."""
    named = headers.get("retry-after", "").strip()
    if named.isdigit():
        return float(named[:9])
    try:
        # Both times are the system's own, so no clock of ours is needed.
        wait = parsedate_to_datetime(named) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return 0.0
    return max(wait, timedelta(0)).total_seconds()
