"""The walk of one till line in docs/walk.md is the way it really goes."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from storekeep import ledger
from storekeep.config import Settings
from storekeep.decisions import Selection
from tests.golden.corner_shop import BUYER, HERE, SHOP, Day, opened_day

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "walk.md").read_text(encoding="utf-8")
NAMED = re.findall(r"^### `([\w.]+)`$", PAGE, re.MULTILINE)


def code_of(name: str) -> CodeType:
    """The code of a function by its dotted name, also of a method of a class."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        code = found.__code__
        assert isinstance(code, CodeType)
        return code
    raise AssertionError(f"there is no module for {name}")


@contextmanager
def recorded(wanted: dict[CodeType, str]) -> Iterator[list[str]]:
    """The named functions in the order in which they are first called."""
    called: list[str] = []

    def heard(frame: FrameType, event: str, _: object) -> None:
        name = wanted.get(frame.f_code) if event == "call" else None
        if name is not None and name not in called:
            called.append(name)

    before = sys.getprofile()
    sys.setprofile(heard)
    try:
        yield called
    finally:
        sys.setprofile(before)


def play(day: Day, see: Callable[[str], None]) -> None:
    """The Monday of the walk, and back again."""
    pipeline = day.pipeline
    day.evening()
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = {row["subject"]: row["decision_id"] for row in tx.decisions(Selection())}
        told = ledger.explain(tx, pipeline.lake, rows[f"flour@{SHOP}"])
    see(ledger.text(told))
    plan = pipeline.plan_revert(Selection(ids=(rows[f"flour@{SHOP}"],)))
    assert pipeline.revert(plan, BUYER, "the walk goes back") == 1
    pipeline.act()
    pipeline.move_stock()
    assert pipeline.verify().ok


def test_the_walk_names_a_dozen_functions_once_each() -> None:
    assert 12 <= len(NAMED) <= 16
    assert len(set(NAMED)) == len(NAMED)
    assert len({code_of(name) for name in NAMED}) == len(NAMED)


def test_the_line_is_in_the_file_where_the_walk_says() -> None:
    found = re.search(r"Line (\d+) of `monday\.csv`.*?```text\n(.+?)\n```", PAGE, re.DOTALL)
    assert found is not None
    lines = (HERE / "monday.csv").read_text(encoding="utf-8").splitlines()
    assert lines[int(found[1]) - 1] == found[2]


def test_the_functions_are_called_in_the_order_of_the_walk(home_settings: Settings) -> None:
    texts: list[str] = []
    with opened_day(home_settings, "walk") as day:
        with recorded({code_of(name): name for name in NAMED}) as called:
            play(day, texts.append)
        assert called == NAMED
        assert day.stock()["flour"] == [12, 0, 0, 0]
    (explained,) = texts
    # What the walk says of the line, the order and the rule.
    assert re.search(
        r"2026-03-30 07:12 .*2 for 10\.00 EUR.*monday\.csv:9$", explained, re.MULTILINE
    )
    assert "24 units of flour" in explained
    assert "permit by whole-packs" in explained
    assert all(words in PAGE for words in ("two packs of 12", "24 bags", "`whole-packs`", "07:12"))


def test_the_order_is_seen_when_it_is_another() -> None:
    """The recorder itself: what is called later comes later, what is not called is missing."""
    names = {code_of(name): name for name in ("storekeep.ledger.leaf", "storekeep.ledger.root")}
    with recorded(names) as called:
        ledger.root([b"x"])
        ledger.leaf("y")
        ledger.root([b"x"])
    assert called == ["storekeep.ledger.root", "storekeep.ledger.leaf"]
    with recorded(names) as called:
        ledger.leaf("y")
    assert called == ["storekeep.ledger.leaf"]
