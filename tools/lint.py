"""Run every check of `make lint`; each prints one line, and what a failed one said comes after it.

All run even when one fails, two at a time. Name some to run only those: make lint ARGS="types layers".
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent

DOCS = ("-d", "docs/_build/doctrees", "docs", "docs/_build/html")

# The slowest come first, so that two at a time end early.
STEPS: dict[str, list[str]] = {
    "types": [PYTHON, "-m", "mypy", "--no-error-summary"],
    "copies": [PYTHON, "tools/check_copies.py"],
    "docs": [PYTHON, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *DOCS],
    "layers": [str(BIN / "lint-imports"), "--no-cache", "--no-logo"],
    "style": [PYTHON, "-m", "ruff", "check", "--output-format=concise", "--quiet"],
    "format": [PYTHON, "-m", "ruff", "format", "--check", "--quiet", "--output-format=concise"],
    "tree": [PYTHON, "tools/check_tree.py"],
    "locks": [PYTHON, "tools/lock.py", "--check"],
    "floor": [PYTHON, "tools/coverage_floor.py"],
}


def run(name: str) -> tuple[bool, float, str]:
    """Run one check; return whether it passed, its seconds, and what it said."""
    began = time.monotonic()
    done = subprocess.run(
        STEPS[name],
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1"},
    )
    return done.returncode == 0, time.monotonic() - began, done.stdout


def main(asked: list[str]) -> int:
    """Run the checks named, or all; return 1 if any failed, 2 if a name is unknown."""
    if unknown := sorted(set(asked) - set(STEPS)):
        print(f"no check is called {', '.join(unknown)}; there are: {', '.join(STEPS)}")
        return 2
    names = [name for name in STEPS if not asked or name in asked]
    failed = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for name, (passed, seconds, said) in zip(names, pool.map(run, names), strict=True):
            print(f"{name:<7} {'ok' if passed else 'FAILED':<6} {seconds:5.1f} s", flush=True)
            if not passed:
                failed += 1
                print("".join(f"    {line}\n" for line in said.strip().splitlines()), flush=True)
    print(f"lint: {len(names) - failed} ok, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
