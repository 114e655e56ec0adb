"""What a stage tells those who watch: a span, a count, a duration, a log line.

Hides the OpenTelemetry API. Without an exporter configured all of it costs next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from opentelemetry import metrics, trace

_tracer = trace.get_tracer("storekeep")
_meter = metrics.get_meter("storekeep")
_seconds = _meter.create_histogram("storekeep.stage.duration", "s", "Time a stage took.")
_rows = _meter.create_counter("storekeep.stage.rows", "row", "Rows a stage dealt with.")
_changes = _meter.create_counter(
    "storekeep.breaker.changes", "change", "Times a circuit breaker changed its state."
)
_log = structlog.get_logger("storekeep")


class Watched:
    """An open stage: says how many rows it dealt with."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.rows = 0

    def note(self, **attributes: str | float) -> None:
        """Add identifiers or counts to the stage's span; never personal data."""
        self._span.set_attributes(
            {f"storekeep.{name}": value for name, value in attributes.items()}
        )


@contextmanager
def stage(name: str, tenant: str, **attributes: str | int) -> Iterator[Watched]:
    """Open a span for a stage, and count its rows and its time when it ends."""
    labels = {"stage": name, "tenant": tenant}
    begun = time.perf_counter()
    outcome = "failed"
    with _tracer.start_as_current_span(f"storekeep.{name}") as span:
        watched = Watched(span)
        watched.note(tenant=tenant, **attributes)
        try:
            yield watched
            outcome = "done"
        finally:
            watched.note(rows=watched.rows)
            taken = time.perf_counter() - begun
            _seconds.record(taken, {**labels, "outcome": outcome})
            _rows.add(watched.rows, labels)
            # Unless the program has said where log lines go, there are none.
            if structlog.is_configured():
                told = {"rows": watched.rows, "seconds": round(taken, 6), "outcome": outcome}
                _log.info(name, tenant=tenant, **told, **attributes)


def rollback(agent: str, tenant: str, version: str, why: str) -> None:
    """Tell that a version of a rulebook does badly, by its own word: an event on the span, a log line."""
    labels = {"agent": agent, "tenant": tenant, "version": version}
    trace.get_current_span().add_event("storekeep.rollback", labels)
    if structlog.is_configured():
        _log.warning("rollback", why=why, **labels)


def breaker(name: str, tenant: str, state: str, why: str) -> None:
    """Tell that a circuit breaker changed: an event on the open span, a count, a log line."""
    labels = {"breaker": name, "tenant": tenant, "state": state}
    trace.get_current_span().add_event("storekeep.breaker", labels)
    _changes.add(1, labels)
    if structlog.is_configured():
        _log.warning("breaker", breaker=name, tenant=tenant, state=state, why=why)
