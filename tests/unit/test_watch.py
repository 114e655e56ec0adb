"""What a stage tells those who watch it: also when it fails, and nothing on a program's own output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from storekeep.watch import stage


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    """Log lines go somewhere, whatever tests before have said of them."""
    structlog.reset_defaults()
    structlog.configure()
    yield
    structlog.reset_defaults()


def test_a_stage_says_what_it_did() -> None:
    with capture_logs() as lines, stage("judge", "acme", batch="b1") as watched:
        watched.rows = 7
    (line,) = lines
    assert (line["event"], line["tenant"], line["rows"], line["outcome"], line["batch"]) == (
        *("judge", "acme", 7, "done", "b1"),
    )
    assert line["seconds"] >= 0


def test_a_stage_that_fails_says_so_and_the_failure_goes_on() -> None:
    with capture_logs() as lines, pytest.raises(RuntimeError), stage("judge", "acme"):
        raise RuntimeError
    assert [line["outcome"] for line in lines] == ["failed"]


def test_nothing_is_printed_by_a_program_that_has_not_said_where() -> None:
    program = "from storekeep.watch import stage\nwith stage('judge', 'acme'): pass"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert (done.stdout, done.stderr) == (b"", b"")
