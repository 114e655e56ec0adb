from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools import lock


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(lock.ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(lock.ROOT / lock.FOLDER, tmp_path / lock.FOLDER)
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    return tmp_path


def test_the_lock_files_agree_with_each_other_and_with_the_project(copy: Path) -> None:
    assert lock.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("requirements/run.lock", "duckdb==1.5.5", "duckdb==1.5.4"),
        ("requirements/demo.lock", "jinja2==", "jinja3=="),
        ("requirements/feast.lock", "feast==0.67", "feast==0.66"),
        ("pyproject.toml", "duckdb==1.5.5", "duckdb==1.5.6"),
        ("requirements/dev.lock", "pytest==", "-" + "-index-url x\npytest=="),
        ("requirements/dev.lock", "    --hash=sha256:", "    --hash=md5:"),
    ],
)
def test_a_lock_file_that_says_something_else_is_found(
    copy: Path, name: str, old: str, new: str
) -> None:
    path = copy / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert lock.main(["--check"]) == 1
