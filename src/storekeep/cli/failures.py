"""What went wrong, told in one line, with the exit code that says what a script may do about it.

    0    done
    1    refused, or found wanting
    2    the words of the command are wrong
    3    something that Storekeep needs does not work, or Storekeep itself
    130  stopped by Ctrl-C (128 and the signal's number; 143 for SIGTERM)
    141  whoever read our output went away

Hides exceptions from people: a full trace is written to a file, and shown only when it is asked for.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from click.exceptions import Exit

from storekeep.cli.asked import Asked
from storekeep.errors import InvariantBroken, StorekeepError

INFRASTRUCTURE = 3
BROKEN_PIPE = 128 + 13
STOPPED = "stopped; nothing is lost; run the same command again"
_MOST_TRACES = 20
_PATIENCE_SECONDS = 5
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Failure:
    """Why a command came to nothing."""

    kind: str
    message: str
    exit_code: int
    trace: Path | None = None
    hint: str | None = None

    def document(self) -> dict[str, Any]:
        """The failure as `--json` prints it."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "message": self.message,
            "exit_code": self.exit_code,
        }
        if self.trace is not None:
            told["trace"] = str(self.trace)
        return {"error": told}


def attempt(work: Callable[[], object], asked: Asked) -> int:
    """Do what was asked; the exit code. Whatever goes wrong is told, and nothing is raised."""
    with _heeding() as stops:
        try:
            try:
                work()
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except Exit as end:
            return end.exit_code
        except BrokenPipeError:
            _let_go(sys.stdout)
            return BROKEN_PIPE
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # the last place that can tell a person
            stops.over = True
            failure = stops.failure() or _failure(error, asked)
            _tell(failure, error, asked)
            return failure.exit_code
        return 0


@dataclass
class _Stops:
    """The signals to end that came: the first unwinds the stack, so that servers are stopped.

    Those that follow at once do not disturb that; one of somebody who has waited does. When all is `over`
    but what is told, none does.
    """

    first: int | None = None
    over: bool = False
    _raised: float = float("-inf")

    def __call__(self, number: int, _: object) -> None:
        self.first = self.first or number
        if not self.over and time.monotonic() - self._raised > _PATIENCE_SECONDS:
            self._raised = time.monotonic()
            raise KeyboardInterrupt

    def failure(self) -> Failure | None:
        """What is said after a signal, whatever exception the libraries below made of it."""
        return None if self.first is None else Failure("Stopped", STOPPED, 128 + self.first)


@contextmanager
def _heeding() -> Iterator[_Stops]:
    """Heed signals to end; afterwards they do what they did before, or nothing where one has come."""
    stops = _Stops()
    if threading.current_thread() is not threading.main_thread():
        yield stops
        return
    # A signal that our parent set to be ignored (nohup) stays ignored.
    before = {
        each: signal.signal(each, stops)
        for each in _SIGNALS
        if signal.getsignal(each) not in (signal.SIG_IGN, None)
    }
    try:
        yield stops
    finally:
        for each, handler in before.items():
            # A process that was told to end is about to: only its exit code could still be disturbed.
            signal.signal(each, handler if stops.first is None else signal.SIG_IGN)


def _failure(error: BaseException, asked: Asked) -> Failure:
    match error:
        case KeyboardInterrupt():
            return Failure("Stopped", STOPPED, 128 + signal.SIGINT)
        case click.Abort():
            return Failure("Refused", "nobody answered, so nothing was done", 1)
        case click.UsageError():
            return _misused(error)
        case click.ClickException():
            return Failure("Misused", error.format_message(), 2)
        case InvariantBroken():
            trace = _write_trace(error, asked)
            said = f"{error}; please report it with {trace}"
            return Failure("InvariantBroken", said, error.exit_code, trace)
        case StorekeepError():
            return Failure(type(error).__name__, str(error), error.exit_code)
        case OSError() if error.errno is not None:
            return _system(error, asked)
        case _:
            trace = _write_trace(error, asked)
            first = (str(error).strip().splitlines() or [""])[0][:200]
            said = (
                f"unexpected {type(error).__name__}: {first}; the full trace is in {trace}; run "
                "`storekeep doctor`, then the same command again, and report it if it comes back"
            )
            return Failure("Unexpected", said, INFRASTRUCTURE, trace)


def _misused(error: click.UsageError) -> Failure:
    path = error.ctx.command_path if error.ctx is not None else "storekeep"
    return Failure("Misused", error.format_message().rstrip("."), 2, hint=f"see `{path} --help`")


def _system(error: OSError, asked: Asked) -> Failure:
    """What the operating system said no to; of the home's own disk the servers know what to advise."""
    home = asked.place()
    named = error.filename if isinstance(error.filename, str | os.PathLike) else None
    if named is not None and Path(named).is_relative_to(home):
        from storekeep.servers.home import refusal

        told = refusal(home, error)
        return Failure(type(told).__name__, str(told), told.exit_code)
    where = "the system says" if named is None else os.fspath(named)
    said = f"{where}: {error.strerror}; mend that, then run the same command again"
    return Failure("Transient", said, INFRASTRUCTURE)


def _tell(failure: Failure, error: BaseException, asked: Asked) -> None:
    """Say it on stderr, and with `--json` on stdout too; that nobody listens is not worth a word."""
    with suppress(OSError):
        if asked.verbose and failure.kind not in ("Misused", "Stopped"):
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
        for line in (failure.message, failure.hint):
            if line:
                click.echo(f"storekeep: {line}", err=True)
    if asked.json and not asked.answered:
        try:
            asked.answer(failure.document(), "")
        except OSError:
            _let_go(sys.stdout)


def _write_trace(error: BaseException, asked: Asked) -> Path:
    """Keep the full trace where a person finds it: in the home, or in a temporary file without one."""
    text = "".join(traceback.format_exception(error))
    name = f"trace-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
    home = asked.place()
    if home.is_dir():
        with suppress(OSError):
            folder = home / "log"
            folder.mkdir(mode=0o700, exist_ok=True)
            for old in sorted(folder.glob("trace-*.txt"))[: -_MOST_TRACES + 1]:
                old.unlink(missing_ok=True)
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
            return path
    number, path_name = tempfile.mkstemp(prefix="storekeep-", suffix=".txt", text=True)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(text)
    return Path(path_name)


def _let_go(stream: Any) -> None:
    """Send what is still buffered for a reader that went away to nowhere, so that exit stays quiet."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
