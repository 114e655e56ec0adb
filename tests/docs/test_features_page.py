"""The page on features adds a feature, and what it shows comes out as it is told, command by command."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from storekeep import servers
from storekeep.config import Settings
from tests.docs.console import Console, File, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_feature_is_added_as_the_page_shows(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
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


def test_a_declaration_takes_less_than_twenty_lines() -> None:
    (declared,) = [
        step for step in steps(PAGE) if isinstance(step, File) and step.name == "item_price.py"
    ]
    assert len(declared.text.strip().splitlines()) < 20
