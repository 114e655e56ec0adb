"""The rulebooks page says what the commands say: its cases hold, and what it shows comes out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from storekeep.cli.program import program
from storekeep.policy import SHIPPED

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "rulebooks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CASES = next(each for each in BLOCKS if "\ncases:" in each)
SHELL = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def shown() -> list[tuple[str, str]]:
    """Each command of the page with what stands under it, but for those that need a home."""
    parts = re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", "".join(SHELL), re.MULTILINE)
    return [
        (line, out)
        for line, out in parts
        if not line.startswith(("storekeep policy show", "storekeep policy backtest"))
    ]


def test_what_the_page_shows_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    book = (SHIPPED / "replenish.yaml").read_text(encoding="utf-8")
    Path("replenish.yaml").write_text(book, encoding="utf-8")
    Path("replenish.cases.yaml").write_text(CASES, encoding="utf-8")
    ran = []
    for line, out in shown():
        words = shlex.split(line)
        if words[0] == "sed":
            _, old, new, _ = words[1].split("/")
            text = re.sub(old, new, book, flags=re.MULTILINE)
            Path(words[-1]).write_text(text, encoding="utf-8")
            continue
        result = CliRunner().invoke(program, words[1:])
        assert result.stdout == out, line
        assert result.exit_code == (1 if " failed" in out else 0)
        ran.append(words[2])
    assert ran == ["test", "test", "diff"]
