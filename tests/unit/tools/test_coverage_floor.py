from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import coverage_floor


def write(folder: Path, floor: int) -> None:
    text = f"[tool.coverage.report]\nfail_under = {floor}\n"
    (folder / coverage_floor.FILE).write_text(text, encoding="utf-8")


def commit(folder: Path) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.test", "-c", "commit.gpgsign=false"]
    for words in (["add", "."], [*who, "commit", "--quiet", "--no-verify", "-m", "floor"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(coverage_floor, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    write(tmp_path, 80)
    commit(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("floor", "code"), [(79, 1), (80, 0), (81, 0)])
def test_the_floor_only_rises(history: Path, floor: int, code: int) -> None:
    write(history, floor)
    assert coverage_floor.main() == code


def test_a_committed_drop_is_found_too(history: Path) -> None:
    write(history, 70)
    commit(history)
    assert coverage_floor.main() == 1


def test_without_a_history_any_floor_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage_floor, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    write(tmp_path, 10)
    assert coverage_floor.main() == 0
