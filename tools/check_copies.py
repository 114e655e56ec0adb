"""Refuse twelve or more lines that stand in two modules: the second should call the first.

Comments and docstrings do not count. Runs symilar, the text comparison that comes with pylint; pylint's own
check of the same name asks for the meaning of every import first and takes twenty times as long.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYMILAR = Path(sys.executable).parent / "symilar"
FEWEST_LINES = 12


def main() -> int:
    """Print each pair of copies; return 1 if there is any, 2 if the comparison did not run."""
    modules = sorted(map(str, (ROOT / "src").rglob("*.py")))
    # symilar reports what is longer than the number it is given.
    command = [str(SYMILAR), f"--duplicates={FEWEST_LINES - 1}", "--ignore-comments"]
    command += ["--ignore-docstrings", *modules]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode or "duplicates=" not in done.stdout:
        print(done.stdout + done.stderr)
        return 2
    print(done.stdout)
    return 0 if "duplicates=0 " in done.stdout else 1


if __name__ == "__main__":
    sys.exit(main())
