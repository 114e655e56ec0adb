"""A process that dies by SIGKILL before or after its so-manieth call of what leaves a trace."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

_calls = {"left": 0}


def die_at(number: int) -> None:
    """The process dies at the so-manieth moment: a counted call has one before and one after it."""
    _calls["left"] = number


def counted(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, before and after which the process may die."""

    def again(*given: Any, **more: Any) -> Any:
        _moment()
        found = call(*given, **more)
        _moment()
        return found

    return again


def _moment() -> None:
    _calls["left"] -= 1
    if _calls["left"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
