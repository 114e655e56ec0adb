"""The sections of the page about ingest come out as they are told, command by command, in one home."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from storekeep import servers
from storekeep.config import Settings
from tests.docs.console import Console, File, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "ingest.md").read_text(encoding="utf-8")
SECTIONS = (
    *("Other feeds", "JSON lines", "Products as shops publish them", "A mapping to begin with"),
    *("A watched folder", "Batches from the bus", "POSLog", "EPCIS", "X12 and EDIFACT", "People"),
    "Backfill of web shops",
)


def section(name: str) -> str:
    """What stands under a heading of the page."""
    (found,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.mark.slow
def test_each_format_comes_out_as_it_is_told(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A partner's program has the packages that it needs.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    console.run("storekeep init shop")
    console.run("export STOREKEEP_HOME=shop")
    home = Settings(home=console.folder / "shop")
    with servers.lease(home), servers.nats(home):
        for name in SECTIONS:
            for step in steps(section(name)):
                if isinstance(step, File):
                    console.write(step)
                    continue
                printed = console.run(step.line)
                assert console.agrees(step.shown, printed), f"$ {step.line}\n{printed}"
                assert (console.exit_code != 0) == step.shown.startswith("storekeep: ")
