"""Make, once, the environment of a peer that does not go with Storekeep, and say where its Python is.

`python benchmarks/peers.py` prints the path; `feast()` returns it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As the Makefile installs what the other lock files say.
INSTALL = (
    "-m",
    "pip",
    "install",
    "-qq",
    "--no-deps",
    "--only-binary",
    ":all:",
    "--require-hashes",
    "-r",
)


def feast() -> Path:
    """The Python that has Feast: installed from its lock file, and again when that is newer."""
    folder, lock = ROOT / ".venv-feast", ROOT / "requirements" / "feast.lock"
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if stamp.exists() and stamp.stat().st_mtime > lock.stat().st_mtime:
        return python
    print(f"storekeep: installing Feast into {folder.name} (once; a minute)", file=sys.stderr)
    venv.create(folder, clear=True, symlinks=True, with_pip=True)
    subprocess.run([python, *INSTALL, lock], check=True, stdout=sys.stderr)
    stamp.touch()
    return python


if __name__ == "__main__":
    print(feast())
