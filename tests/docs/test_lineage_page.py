"""What the page on lineage shows comes out as it is told, command by command."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from storekeep import servers
from storekeep.config import Settings
from tests.docs.console import Console, File, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "lineage.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_is_traced_is_what_the_page_shows(console: Console) -> None:
    with ExitStack() as kept:
        for step in steps(PAGE):
            if isinstance(step, File):
                console.write(step)
                continue
            printed = console.run(step.line)
            assert console.agrees(step.shown, printed), f"$ {step.line}\n{printed}"
            assert console.exit_code == 0, step.line
            if step.line == "storekeep init shop":
                kept.enter_context(servers.lease(Settings(home=console.folder / "shop")))
