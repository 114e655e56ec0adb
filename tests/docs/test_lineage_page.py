"""What the page on lineage shows comes out as it is told, command by command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.console import Console, follow

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "lineage.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_is_traced_is_what_the_page_shows(console: Console) -> None:
    follow(PAGE, console, "shop")
