"""Remake or check the lock files in requirements/: pinned, hashed, for every platform, without an address.

`make lock` keeps what is locked and changes only what pyproject.toml asks for; `make lock ARGS=--upgrade`
takes the newest versions that pyproject.toml allows. `dev.lock` is solved first and binds the others, so that
what is tested is what runs; it does not bind what is installed apart from Storekeep, to measure against.
`--check` asks no package index: it compares the files with each other and with pyproject.toml.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("requirements")
EXTRAS_OF = {
    "dev": ["bench", "demo", "kafka", "nats", "web"],
    "demo": ["demo"],
    "run": [],
    "feast": [],
}
GROUPS_OF = {"dev": ["build", "dev"], "demo": ["build"], "run": [], "feast": ["feast"]}
APART = {"feast"}

PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; .+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def solve(kind: str, asked: list[str]) -> None:
    """Write one lock file."""
    command = [sys.executable, "-m", "uv", "pip", "compile"]
    if kind not in APART:
        command.append("pyproject.toml")
    command += [word for extra in EXTRAS_OF[kind] for word in ("--extra", extra)]
    command += [word for group in GROUPS_OF[kind] for word in ("--group", group)]
    command += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--no-header", "--no-annotate", "--quiet"]
    if kind == "dev" or kind in APART:
        command += asked
    else:
        command += ["--constraint", str(FOLDER / "dev.lock")]
    command += ["--output-file", str(FOLDER / f"{kind}.lock")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def pins(kind: str) -> tuple[dict[str, str], list[str]]:
    """Return name to version of one lock file, and the lines that should not be in it."""
    pinned, faults = {}, []
    for number, line in enumerate((ROOT / FOLDER / f"{kind}.lock").read_text().splitlines(), 1):
        if found := PIN.match(line):
            pinned[found["name"]] = found["version"]
        elif not HASH.match(line):
            faults.append(f"{FOLDER / kind}.lock:{number}: neither a pin nor a hash: {line}")
    return pinned, faults


def wanted(kind: str) -> list[Requirement]:
    """Return what pyproject.toml asks for, for one kind of installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [] if kind in APART else list(project["project"]["dependencies"])
    for extra in EXTRAS_OF[kind]:
        lines += project["project"]["optional-dependencies"][extra]
    for group in GROUPS_OF[kind]:
        lines += project["dependency-groups"][group]
    return [Requirement(line) for line in lines]


def check(kind: str, tested: dict[str, str]) -> list[str]:
    """Return what is wrong with one lock file."""
    pinned, faults = pins(kind)
    where = f"{FOLDER / kind}.lock"
    for need in wanted(kind):
        version = pinned.get(canonicalize_name(need.name))
        if version is None or not need.specifier.contains(version, prereleases=True):
            faults.append(f"{where}: has {need.name} {version}, pyproject.toml asks for {need}")
    for name, version in () if kind in APART else pinned.items():
        if tested.get(name) != version:
            faults.append(f"{where}: has {name} {version}, dev.lock {tested.get(name)}")
    return faults


def main(asked: list[str]) -> int:
    """Solve or check every kind; return 1 if a check found something."""
    if asked == ["--check"]:
        tested, _ = pins("dev")
        faults = [fault for kind in EXTRAS_OF for fault in check(kind, tested)]
        print("\n".join([*faults, "say: make lock"]) if faults else "the lock files agree")
        return 1 if faults else 0
    for kind in EXTRAS_OF:
        solve(kind, asked)
        print(f"{FOLDER / kind}.lock: {len(pins(kind)[0])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
