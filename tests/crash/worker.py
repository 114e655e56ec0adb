"""A worker of the shop that kills itself: `python -m tests.crash.worker HOME`, told what to do on stdin.

The process imports everything once and then only forks: each command runs in a child of its own, which opens
the shop, runs one step and, at the moment it was told, sends itself SIGKILL. Nothing of Storekeep is changed
for it: moments are counted where Storekeep calls others. They are the start and the end of each OpenTelemetry
span, each word with PostgreSQL before it is sent, the end of each transaction, and each write to a Delta
table, before and after.

A command is a line of JSON: `tenant`, the step to `begin` with, the one to end with (`until`), those to be
killed `within`, and one of `passed` (die at the first moment that is not in it), `at` (die at one of these),
`after` (be killed after so many seconds), or none. The answer is a line too: `died_at`, or null, and `done`:
of each step that was done the moments it came by, and the state of the shop if `states` were asked for.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import deltalake
import psycopg
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, Tracer, TracerProvider

Tell = Callable[[dict[str, Any]], None]
Work = Callable[[Path, dict[str, Any], Tell], None]
OURS = str(Path(__file__).parents[2] / "src" / "storekeep")
LEASE = timedelta(milliseconds=50)


class Moments:
    """Counts the moments of one child, step by step, and dies at the one that is meant."""

    def __init__(self) -> None:
        self.dies: Callable[[str], bool] = lambda _: False
        self.tell: Callable[[dict[str, Any]], None] = lambda _: None
        self.begin(None)

    def begin(self, step: str | None) -> None:
        """What follows belongs to this step; to none, and then is not counted."""
        self.step = step
        self.come_by: list[str] = []
        self._times: Counter[str] = Counter()

    def here(self, place: str, *, inside: bool = False) -> None:
        """This is one; of those inside a transaction each place is one moment, whichever step comes by it.

        To die there is always the same: PostgreSQL takes the transaction back.
        """
        if self.step is None or threading.current_thread() is not threading.main_thread():
            return
        self._times[place] += 1
        moment = place if inside else f"{self.step}: {place} #{self._times[place]}"
        self.come_by.append(moment)
        if self.dies(moment):
            self.tell({"died_at": moment})
            os.kill(os.getpid(), signal.SIGKILL)


MOMENTS = Moments()


class _Span(NonRecordingSpan):
    def __init__(self, name: str) -> None:
        super().__init__(trace.INVALID_SPAN_CONTEXT)
        self._name = name

    def end(self, end_time: int | None = None) -> None:  # noqa: ARG002  # the API's signature
        MOMENTS.here(f"end of {self._name}")


class _Tracer(Tracer):
    def start_span(self, name: str, *_: Any, **__: Any) -> Span:
        MOMENTS.here(f"start of {name}")
        return _Span(name)

    @contextmanager
    def _current(self, name: str) -> Iterator[Span]:
        span = self.start_span(name)
        yield span
        span.end()

    def start_as_current_span(self, name: str, *_: Any, **__: Any) -> Any:
        return self._current(name)


class _Provider(TracerProvider):
    def get_tracer(self, *_: Any, **__: Any) -> Tracer:
        return _Tracer()


def _caller() -> str:
    """The innermost function of Storekeep that is being carried out, and the line it is at."""
    frame: FrameType | None = sys._getframe(2)
    places: list[str] = []
    while frame is not None and len(places) < 2:
        file = frame.f_code.co_filename
        if file.startswith(OURS):
            places.append(f"{Path(file).stem}.{frame.f_code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    return " of ".join(places)


def watch() -> None:
    """Come by where Storekeep calls others; before any of its modules is imported."""
    trace.set_tracer_provider(_Provider())
    send, write = psycopg.Connection.wait, deltalake.write_deltalake

    def counted_send(self: Any, words: Any, *given: Any, **named: Any) -> Any:
        ends = getattr(words, "__name__", "") == "_exit_gen"
        caller = _caller()
        MOMENTS.here(f"before {'the end of ' if ends else ''}{caller}", inside=not ends)
        result = send(self, words, *given, **named)
        if ends:
            MOMENTS.here(f"after the end of {caller}")
        return result

    def counted_write(*given: Any, **named: Any) -> None:
        caller = _caller()
        MOMENTS.here(f"before the write of {caller}")
        write(*given, **named)
        MOMENTS.here(f"after the write of {caller}")

    psycopg.Connection.wait = counted_send  # type: ignore[method-assign, assignment]  # the others' end of a call
    deltalake.write_deltalake = counted_write


def _play(home: Path, command: dict[str, Any], tell: Tell) -> None:
    from storekeep.config import Settings
    from tests import shop

    MOMENTS.tell = tell
    if "at" in command:
        MOMENTS.dies = frozenset(command["at"]).__contains__
    elif "passed" in command:
        passed = frozenset(command["passed"])
        MOMENTS.dies = lambda moment: moment not in passed
    settings = shop.of_tenant(Settings(home=home), command["tenant"])
    with shop.opened_shop(settings) as opened:
        opened.pipeline.lease = LEASE
        steps = shop.script(opened)
        names = [name for name, _ in steps]
        tell({})
        for name, step in steps[names.index(command["begin"]) : names.index(command["until"]) + 1]:
            MOMENTS.begin(name if name in command["within"] else None)
            step()
            moments = MOMENTS.come_by
            MOMENTS.begin(None)
            state = opened.state() if command["states"] else None
            tell({"done": name, "moments": moments, "state": state})


def _child(carry_out: Work, home: Path, command: dict[str, Any]) -> dict[str, Any]:
    """Fork a child for a command; what it told, which survives it, and how it ended."""
    ours, its = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.close(ours)
            carry_out(home, command, lambda said: _write(its, said))
            code = 0
        except Exception:  # noqa: BLE001  # it is told, and the child ends
            traceback.print_exc()
        finally:
            # A child must not go on as its parent: no cleaning up, no second answer.
            os._exit(code)
    os.close(its)
    text = _read(ours, process, command.get("after"))
    _, status = os.waitpid(process, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    said = [json.loads(line) for line in text.splitlines()]
    died_at = [each["died_at"] for each in said if "died_at" in each]
    return {
        "done": {each["done"]: each for each in said if "done" in each},
        "died_at": died_at[0] if died_at else "some instant" if killed else None,
        "failed": not killed and status != 0,
    }


def _write(pipe: int, said: dict[str, Any]) -> None:
    rest = json.dumps(said, default=str).encode() + b"\n"
    while rest:
        rest = rest[os.write(pipe, rest) :]


def _read(pipe: int, process: int, after: float | None) -> bytes:
    """What a child says until it ends; with `after` it is killed so many seconds after it has begun."""
    text = b""
    until: float | None = None
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while True:
            wait = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([file], [], [], wait)[0]:
                os.kill(process, signal.SIGKILL)
                until = None
                continue
            part = file.read(65536)
            if not part:
                return text
            text += part
            if after is not None and text.count(b"\n") == 1:
                until = time.monotonic() + after


def main() -> None:
    """Play the shop's days as told."""
    serve(_play)


def serve(carry_out: Work) -> None:
    """Carry out commands until there are no more, each in a child of its own."""
    watch()
    # What is imported before the fork costs no child anything.
    import pyarrow.dataset
    import structlog

    import tests.shop
    from storekeep import features, policy
    from storekeep.pipeline.opening import ACTIONS
    from storekeep.policy.rulebook import check

    # Nor is what was read of the rulebook that ships.
    text = (policy.SHIPPED / "replenish.yaml").read_text(encoding="utf-8")
    check(text, "rulebook", ACTIONS, features.SCHEMA)
    del pyarrow, tests
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    gc.collect()
    gc.freeze()
    home = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(_child(carry_out, home, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
