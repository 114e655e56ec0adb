"""Refuse a coverage floor in pyproject.toml that is lower than any committed before it: it only rises."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = "pyproject.toml"


def floor_in(text: str) -> float:
    """Return the floor that a pyproject.toml sets, in percent; 0 where it sets none."""
    report = tomllib.loads(text).get("tool", {}).get("coverage", {}).get("report", {})
    return float(report.get("fail_under", 0))


def git(*words: str) -> str:
    """Return what git says, or nothing where there is no git, no history or no such file."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", *words], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def highest_committed() -> tuple[float, str]:
    """Return the highest floor in the history of HEAD, and the commit that set it."""
    commits = git("log", "--format=%h", "-G", "fail_under", "--", FILE).split()
    floors = [(floor_in(git("show", f"{commit}:./{FILE}")), commit) for commit in commits]
    return max(floors, default=(0.0, ""))


def main() -> int:
    """Compare the floor with its history."""
    floor = floor_in((ROOT / FILE).read_text(encoding="utf-8"))
    highest, commit = highest_committed()
    if floor < highest:
        print(f"{FILE}: the coverage floor is {floor:g}, but {commit} set {highest:g}; raise it")
        return 1
    print(f"the coverage floor is {floor:g}; the highest before it is {highest:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
