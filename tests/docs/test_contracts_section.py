"""The section on contracts comes out as the page tells it, command by command."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from storekeep import servers
from storekeep.config import Settings
from tests.docs.console import Command, Console, File, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "ingest.md").read_text(encoding="utf-8")
SECTION = re.split(r"^## ", PAGE, flags=re.MULTILINE)[
    [part.partition("\n")[0] for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)].index(
        "Contracts"
    )
]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    """A reader's folder, which the server's user can pass through, and nothing set."""
    for name in ("STOREKEEP_HOME", "STOREKEEP_TENANT", "STOREKEEP_DATABASE_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    monkeypatch.chdir(folder)
    yield Console(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_what_is_said_of_contracts_comes_out(console: Console) -> None:
    with ExitStack() as kept:
        for step in steps(SECTION):
            if isinstance(step, File):
                console.write(step)
                continue
            printed = console.run(step.line)
            assert console.agrees(step.shown, printed), f"$ {step.line}\n{printed}"
            assert (console.exit_code != 0) == step.shown.startswith("storekeep: "), step.line
            if step.line == "storekeep init home":
                kept.enter_context(servers.lease(Settings(home=console.folder / "home")))


def test_the_section_has_commands() -> None:
    lines = [step.line for step in steps(SECTION) if isinstance(step, Command)]
    assert any(" feeds resume " in line for line in lines)
