"""The rulebooks page says what the commands say: its cases hold, and what it shows comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from storekeep.policy import SHIPPED
from tests.docs.console import Console, File, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "rulebooks.md").read_text(encoding="utf-8")
NEED_A_HOME = ("storekeep policy show", "storekeep policy backtest")


def test_what_the_page_shows_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    console = Console(tmp_path)
    shipped = (SHIPPED / "replenish.yaml").read_text(encoding="utf-8")
    console.write(File("replenish.yaml", shipped))
    ran = []
    for step in steps(PAGE):
        if isinstance(step, File):
            console.write(step)
        elif not step.line.startswith(NEED_A_HOME):
            printed = console.run(step.line)
            assert console.agrees(step.shown, printed), f"$ {step.line}\n{printed}"
            assert console.exit_code == (1 if " failed" in step.shown else 0)
            ran.append(step.line)
    # The versions follow from the rulebook that ships.
    assert all(shown == ours for shown, ours in console.names.items())
    assert [line.split()[2] for line in ran if line.startswith("storekeep")] == [
        "test",
        "test",
        "diff",
    ]
