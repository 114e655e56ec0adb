"""The story of one decision comes out as the page tells it, command by command."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from storekeep import servers
from storekeep.config import Settings
from tests.docs.console import Command, Console, File, steps

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "decisions.md").read_text(encoding="utf-8")
STEPS = list(steps(PAGE))
# What a command says that does not end well.
REFUSED = ("storekeep: ", "does NOT hold", " failed\n", "not carried out yet")


@pytest.mark.slow
def test_the_story_comes_out_as_it_is_told(console: Console) -> None:
    with ExitStack() as kept:
        for step in STEPS:
            if isinstance(step, File):
                console.write(step)
                continue
            printed = console.run(step.line)
            assert console.agrees(step.shown, printed), f"$ {step.line}\n{printed}"
            assert (console.exit_code != 0) == any(said in step.shown for said in REFUSED), (
                step.line
            )
            if step.line == "storekeep init shop":
                # The server stays up from one command to the next.
                kept.enter_context(servers.lease(Settings(home=console.folder / "shop")))


def test_what_comes_out_otherwise_is_seen(tmp_path: Path) -> None:
    one, two, three = ("019cfe07-0598-70d1-9afc-" + digit * 12 for digit in "123")
    console = Console(tmp_path)
    assert console.agrees(
        f"{one} is open\n...\nPO-0000000001\n", f"{two} is open\na\nb\nPO-0000000009\n"
    )
    assert console.names == {one: two, "PO-0000000001": "PO-0000000009"}
    assert console.run(f"echo {one} $((1 + 1))") == f"{two} 2\n"
    for shown, printed in (
        (f"{one}\n", f"{one}\n"),  # it was another one before
        (f"{three}\n", f"{two}\n"),  # that is the name of the first
        (f"{one} is open\n", f"{two} is closed\n"),
        ("5 lines\n", "6 lines\n"),
        ("", "a line that is not shown\n"),
        ("...\nthe last\n", "a\nthe last\nand one more\n"),
    ):
        assert not console.agrees(shown, printed)
    assert console.run("storekeep decisions shw").startswith("storekeep: No such command")
    assert console.run("echo $?") == "2\n"


def test_the_story_has_every_chapter() -> None:
    lines = [step.line for step in STEPS if isinstance(step, Command)]
    for words in (
        "policy show",
        "policy check",
        "policy test",
        "policy promote",
        "policy diff",
        "policy backtest",
        "approvals show",
        "approvals change",
        "approvals approve",
        "decisions explain",
        "decisions verify",
        "decisions proof",
        "decisions replay",
        "decisions revert",
    ):
        assert any(f" {words} " in line or line.endswith(words) for line in lines), words
    told = "".join(step.shown for step in STEPS if isinstance(step, Command))
    for refusal in (
        "is an agent",
        "does not have",
        "not what you saw",
        "ann asked for",
        "NOT hold",
    ):
        assert refusal in told
