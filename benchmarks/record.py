"""Run a benchmark of Storekeep's and keep what it measured as a row of the history in results.md.

`python benchmarks/record.py spine [--quick]`. Each row names its machine, since only ratios and rows of one
machine compare. A quick run is shown and not kept.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.md"


def main(words: list[str]) -> int:
    """Measure, print the rows, and append one line to the table of that benchmark."""
    name = words[0]
    command = [sys.executable, "-m", "storekeep", "bench", *words, "--json"]
    if name == "features" and "--feast" not in words:
        # A program of its own: the environment that it makes is not this one.
        peer = [sys.executable, str(Path(__file__).with_name("peers.py"))]
        made = subprocess.run(peer, check=True, stdout=subprocess.PIPE, text=True)
        command += ["--feast", made.stdout.strip()]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    rows = json.loads(done.stdout)
    for row in rows:
        beside = f", {row['ratio']} times {row['peer']}" if row["ratio"] is not None else ""
        print(f"{row['figure']}: {row['value']:,} {row['unit']}{beside}")
    if "--quick" not in words:
        RESULTS.write_text(appended(RESULTS.read_text(encoding="utf-8"), name, rows))
        print(f"kept in {RESULTS.relative_to(Path.cwd())}")
    return 0


def appended(text: str, name: str, rows: list[dict[str, Any]]) -> str:
    """The page with one more line under the benchmark's heading; a new table where the figures are new."""
    head = f"## {name}\n"
    before, found, after = text.partition(head)
    if not found:
        before, after = text.rstrip("\n") + "\n\n", "\n"
    own, mark, rest = after.partition("\n## ")
    columns = [f"{row['figure']}, {row['unit']}" for row in rows]
    header = f"| When | Commit | Machine | {' | '.join(columns)} |\n"
    if header not in own:
        own = own.rstrip("\n") + f"\n\n{header}|{'---|' * (len(columns) + 3)}\n"
    cells = [cell(row) for row in rows]
    own = own.rstrip("\n") + f"\n| {today()} | {commit()} | {machine()} | {' | '.join(cells)} |\n"
    return before + head + own + mark + rest


def cell(row: dict[str, Any]) -> str:
    """A figure, with how it compares where there is something beside it."""
    value = f"{row['value']:,.0f}" if row["value"] >= 100 else f"{row['value']:.3g}"
    return value if row["ratio"] is None else f"{value} ({row['ratio']} × {row['peer']})"


def today() -> str:
    """The day of the run."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def commit() -> str:
    """The commit that was measured, and whether the tree was as committed."""
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """What it ran on, as far as that matters."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["spine"]))
