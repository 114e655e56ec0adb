"""A watched folder: files when they are whole, each once, through signals, kills and files that are none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from storekeep.errors import Misused, Permanent
from storekeep.ingest.folders import Folder
from storekeep.pipeline import Pipeline, opened
from tests.unit.test_cli import ask, told
from tests.unit.test_feeding import Home, home, line
from tests.unit.test_ingest import HEADER

__all__ = ["home"]
LONG_AGO = 1_000_000_000


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def old(path: Path, content: str = "x") -> Path:
    path.write_text(content)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def new(path: Path, content: str = "x") -> Path:
    """A file whose time lies ahead, as on a machine whose clock is fast."""
    path.write_text(content)
    ahead = time.time() + 3600
    os.utime(path, (ahead, ahead))
    return path


def names(found: tuple[list[Path], list[Path]]) -> list[list[str]]:
    return [[each.name for each in some] for some in found]


# A folder ---------------------------------------------------------------------------------------------


def test_a_file_is_whole_when_it_was_left_alone(tmp_path: Path) -> None:
    clock = Clock()
    folder = Folder(tmp_path, rest_seconds=2, now=clock)
    old(tmp_path / "b.csv")
    new(tmp_path / "a.csv")
    assert names(folder.look()) == [["b.csv"], ["a.csv"]]
    clock.now += 1.5
    new(tmp_path / "a.csv", "more")
    assert names(folder.look()) == [["b.csv"], ["a.csv"]]
    clock.now += 1.5
    assert names(folder.look()) == [["b.csv"], ["a.csv"]]
    clock.now += 0.5
    assert names(folder.look()) == [["b.csv", "a.csv"], []]


def test_what_was_dealt_with_comes_again_only_when_it_changes(tmp_path: Path) -> None:
    folder = Folder(tmp_path, rest_seconds=2, now=Clock())
    file = old(tmp_path / "a.csv")
    folder.look()
    folder.deal_with(file)
    assert names(folder.look()) == [[], []]
    old(file, "other")
    assert names(folder.look()) == [["a.csv"], []]


@pytest.mark.parametrize("name", [".hidden.csv", "a.csv.part", "a.tmp", "a.csv~", "a.FILEPART"])
def test_what_others_still_write_is_passed_over(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path, rest_seconds=2, now=Clock())
    file = old(tmp_path / name)
    (tmp_path / "inner").mkdir()
    assert names(folder.look()) == [[], []]
    file.rename(tmp_path / "a.csv")
    assert names(folder.look()) == [["a.csv"], []]


def test_files_that_are_done_are_moved_and_none_is_lost(tmp_path: Path) -> None:
    done = tmp_path / "done" / "here"
    folder = Folder(tmp_path, rest_seconds=2, done=done, now=Clock())
    for content in ("one", "two", "three"):
        file = old(tmp_path / "a.csv", content)
        folder.look()
        folder.deal_with(file)
    assert {each.name: each.read_text() for each in done.iterdir()} == {
        "a.csv": "one",
        "a.2.csv": "two",
        "a.3.csv": "three",
    }
    file = old(tmp_path / "b.csv")
    folder.look()
    folder.deal_with(file, keep=True)
    assert file.exists()
    with pytest.raises(Misused, match="is the folder that is watched"):
        Folder(tmp_path, rest_seconds=2, done=tmp_path / "inner" / "..")


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "none", rest_seconds=2)
    with pytest.raises(Permanent, match="cannot be read"):
        folder.look()


# The command ------------------------------------------------------------------------------------------


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


def words(home: Home, inbox: Path, *more: object) -> list[str]:
    said = (
        "ingest",
        "watch",
        "pos",
        inbox,
        "--mapping",
        home.mapping,
        "--home",
        home.settings.home,
    )
    return [str(each) for each in (*said, "--json", *more)]


def lines(home: Home) -> int:
    return sum(each["lines"] for each in home.feeds())


def test_once_takes_in_what_is_there(home: Home, inbox: Path) -> None:
    old(inbox / "a.csv", HEADER + line(1) + line(2, quantity="two"))
    old(inbox / "bad.csv", "no,such,columns\n")
    old(inbox / "z.csv", HEADER + line(3))
    new(inbox / "growing.csv", HEADER + line(4))
    done = inbox.parent / "done"
    found = ask(*words(home, inbox, "--once", "--done", done, "--rest", 1))
    document = told(found)
    refused = document.pop("refused")
    assert document == {
        "feed": "pos",
        "source": "corner_shop",
        "files": 3,
        "totals": {"read": 4, "accepted": 3, "duplicates": 0, "rejected": 1, "ignored": 0},
        "unfinished": [],
        "stopped_by": None,
    }
    assert [each["file"] for each in refused] == ["bad.csv"]
    assert "has no column" in refused[0]["reason"]
    assert "bad.csv is left where it is" in found.stderr
    assert {each.name for each in done.iterdir()} == {"a.csv", "z.csv", "growing.csv"}
    assert [each.name for each in inbox.iterdir()] == ["bad.csv"]
    assert lines(home) == 3


def test_what_is_wrong_with_the_words_is_told(home: Home, inbox: Path) -> None:
    usual = [each for each in words(home, inbox, "--once") if each != "pos"]
    usual.insert(2, "stock")
    failed = told(ask(*usual), 2)["error"]
    assert "is of feed pos, not of feed stock" in failed["message"]
    failed = told(ask("ingest", "watch", "pos", inbox, "--once", "--json"), 2)["error"]
    assert "no mapping is usual for feed pos" in failed["message"]


def begun(home: Home, inbox: Path, *more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "storekeep", *words(home, inbox, "--rest", 0, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waited(pipeline: Pipeline, wanted: int) -> None:
    until = time.monotonic() + 60
    while sum(each["lines"] for each in pipeline.feeds()) < wanted:
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.crash
def test_killed_and_stopped_it_takes_in_each_line_once(home: Home, inbox: Path) -> None:
    old(inbox / "a.csv", HEADER + line(1))
    old(inbox / "b.csv", HEADER + line(1) + line(2))
    with opened(home.settings) as pipeline:
        first = begun(home, inbox)
        try:
            waited(pipeline, 2)
        finally:
            first.kill()
            first.communicate()
        second = begun(home, inbox)
        try:
            old(inbox / "c.csv", HEADER + line(3))
            waited(pipeline, 3)
            second.send_signal(signal.SIGTERM)
            said, trouble = second.communicate(timeout=60)
        finally:
            second.kill()
    assert second.returncode == 0, trouble
    document: dict[str, Any] = json.loads(said)
    assert document["stopped_by"] == "SIGTERM"
    assert document["files"] == 3
    assert document["totals"]["accepted"] == 1
    assert document["totals"]["duplicates"] == 3
    assert lines(home) == 3
