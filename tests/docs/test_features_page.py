"""The page on features adds a feature, and what it shows comes out as it is told, command by command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.console import Console, File, follow, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_feature_is_added_as_the_page_shows(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    follow(PAGE, console, "shop")


def test_a_declaration_takes_less_than_twenty_lines() -> None:
    (declared,) = [
        step for step in steps(PAGE) if isinstance(step, File) and step.name == "item_price.py"
    ]
    assert len(declared.text.strip().splitlines()) < 20
