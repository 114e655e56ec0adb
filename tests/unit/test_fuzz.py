"""The search of readers for what they do not expect, for a moment; `python -m tests.fuzz` goes on."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.formats import READERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None,
        reason="atheris is absent: it has wheels for Linux on x86-64 and Python 3.11 to 3.13",
    ),
]


@pytest.mark.parametrize("name", READERS)
def test_whatever_is_read_ends_in_rows_or_in_a_refusal(name: str, tmp_path: Path) -> None:
    bounds = (
        "-seed=1",
        "-max_total_time=2",
        "-timeout=60",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={tmp_path}/",
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, *bounds],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr
