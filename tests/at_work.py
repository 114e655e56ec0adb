"""Processes of `storekeep work` on a home, as one would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from storekeep.config import Settings

ROOT = Path(__file__).parents[1]


@contextmanager
def workers(
    home: Settings, many: int, environ: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """So many of them, with these settings in their environment; none outlives the test."""
    words = ["--home", str(home.home), "--tenant", home.tenant, "--json", "work"]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "storekeep", *words],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(many)
    ]
    try:
        yield started
    finally:
        for each in started:
            each.kill()
            each.communicate()
