"""What is wrong with the home's database, and how to mend it. Nothing is changed and nothing is started."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from storekeep.config import Settings
from storekeep.errors import StorekeepError
from storekeep.servers import cluster, home, postmaster, programs
from storekeep.servers.database import Database, check_given
from storekeep.servers.home import MIB
from storekeep.servers.sharing import running

OLDEST_PYTHON = (3, 11)
ENOUGH_FREE_BYTES = 2048 * MIB
ENOUGH_MEMORY_BYTES = 1024 * MIB
LONG_LOCK_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at; `mend` says what to do about it where something is to be done."""

    name: str
    state: Literal["ok", "warn", "wrong"]
    says: str
    mend: str | None = None


def examine(settings: Settings) -> list[Finding]:
    """Say of each thing the database needs how it is; a check that fails is a finding, never an error."""
    place = home.real_home(settings)
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("python", _python),
        ("home", lambda: _home(place)),
        ("disk", lambda: _disk(place)),
        ("memory", _memory),
    ]
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        checks.append(("database", lambda: _given(url)))
    else:
        folder = place / "postgres"
        checks += [
            ("programs", lambda: _programs(settings, folder)),
            ("password", lambda: _password(folder)),
            ("locks", lambda: _locks(folder)),
            ("server", lambda: _server(settings, folder)),
            ("left over", _left_over),
        ]
    return [finding for name, check in checks for finding in _attempt(name, place, check)]


def _attempt(name: str, place: Path, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Run one check; what it raises says what is wrong and, after the last semicolon, how to mend it."""
    found: list[Finding] = []
    try:
        with home.speaking(place):
            # One by one, so that what was found before a failure is kept.
            found.extend(check())
    except StorekeepError as error:
        says, _, mend = str(error).rpartition("; ")
        found.append(Finding(name, "wrong", says or mend, mend if says else None))
    return found


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding(
            "python", "wrong", f"Python {version}", f"run it with Python {oldest} or later"
        )
    else:
        yield Finding("python", "ok", f"Python {version} ({sys.executable})")


def _home(place: Path) -> Iterator[Finding]:
    known = home.check_format(place)
    there = home.nearest(place)
    who = home.user_name(os.geteuid())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        state = "" if there == place else ", to be made when first used"
        if there == place and not known:
            state = ", without a format yet"
        yield Finding("home", "ok", f"{place}{state}")
    elif there.is_dir():
        mend = f"let {who} write there, or {home.ELSEWHERE}"
        yield Finding("home", "wrong", f"{there} cannot be written by {who}", mend)
    else:
        yield Finding("home", "wrong", f"{there} is not a folder", f"move it, or {home.ELSEWHERE}")


def _disk(place: Path) -> Iterator[Finding]:
    free = home.free_bytes(place)
    says = f"{free // MIB} MiB free at {place}"
    if free < home.LEAST_FREE_BYTES:
        yield Finding("disk", "wrong", says, f"make room, {ENOUGH_FREE_BYTES // MIB} MiB or more")
    elif free < ENOUGH_FREE_BYTES:
        yield Finding("disk", "warn", says, f"make room: {ENOUGH_FREE_BYTES // MIB} MiB are enough")
    else:
        yield Finding("disk", "ok", says)


def _memory() -> Iterator[Finding]:
    table = Path("/proc/meminfo")
    if not table.exists():
        return
    lines = dict(line.split(":", 1) for line in table.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    says = f"{free // MIB} MiB available"
    if free < ENOUGH_MEMORY_BYTES:
        yield Finding(
            "memory",
            "warn",
            says,
            f"end other programs: {ENOUGH_MEMORY_BYTES // MIB} MiB are enough",
        )
    else:
        yield Finding("memory", "ok", says)


def _given(url: str) -> Iterator[Finding]:
    database = check_given(url)
    yield Finding("database", "ok", f"{database.where}: PostgreSQL {database.version}, in UTF8")


def _programs(settings: Settings, folder: Path) -> Iterator[Finding]:
    found = programs.find(settings)
    yield Finding("programs", "ok", f"{found.source} in {found.folder}")
    account = programs.account_of(settings, folder)
    if account is None:
        yield Finding("user", "ok", f"PostgreSQL runs as {home.user_name(os.geteuid())}")
        return
    wanted = settings.postgres_user
    if wanted not in (None, account.name):
        says = f"PostgreSQL runs as {account.name}, who owns the data, and not as {wanted}"
        mend = (
            f"unset STOREKEEP_POSTGRES_USER, or chown -R the data to {wanted} while it is stopped"
        )
        yield Finding("user", "warn", says, mend)
    else:
        yield Finding("user", "ok", f"we are root; PostgreSQL runs as {account.name}")


def _password(folder: Path) -> Iterator[Finding]:
    path = folder / cluster.PASSWORD
    if not path.exists():
        if (folder / postmaster.CLUSTER).exists():
            raise cluster.no_password(folder)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        says = f"{path} can be read by others (mode {mode:o})"
        yield Finding("password", "wrong", says, f"chmod 600 {path}")
    else:
        yield Finding("password", "ok", f"{path}, mode {mode:o}")


def _locks(folder: Path) -> Iterator[Finding]:
    lock = folder / postmaster.LOCK
    if not lock.exists():
        return
    if postmaster.held(lock):
        seconds = time.time() - lock.stat().st_mtime
        says = f"{lock} has been held for {seconds:.0f} s"
        if seconds > LONG_LOCK_SECONDS:
            yield Finding("locks", "warn", says, f"see who holds it (fuser {lock}) and end that")
        else:
            yield Finding("locks", "ok", f"{says}: the server is being started or stopped")
        return
    master = postmaster.read(folder)
    if master is not None and not postmaster.lives(folder):
        path = folder / postmaster.CLUSTER / "postmaster.pid"
        hours = (time.time() - path.stat().st_mtime) / 3600
        says = f"{path} is left by process {master.pid}, dead for up to {hours:.1f} h"
        yield Finding("locks", "warn", says, "nothing: the next start recovers from it")
    else:
        yield Finding("locks", "ok", "none is left over")


def _server(settings: Settings, folder: Path) -> Iterator[Finding]:
    found = running(settings)
    master = postmaster.read(folder)
    if found is None or master is None:
        if postmaster.lives(folder):
            says = f"a server of {folder.parent} is alive but does not answer"
            mend = f"wait if it is starting, read {cluster.log_of(folder)}, or stop it by force"
            yield Finding("server", "wrong", says, mend)
        elif (folder / postmaster.CLUSTER).exists():
            yield Finding("server", "ok", "not running; it starts when it is first used")
        else:
            yield Finding("server", "ok", "not made yet; it is made when it is first used")
        return
    kept = ", to be kept up" if (folder / postmaster.KEEP).exists() else ""
    yield Finding("server", "ok", f"PostgreSQL {found.version} runs as process {master.pid}{kept}")
    at = master.sockets or f"{master.address}, port {master.port}"
    yield Finding("socket", "ok", f"listens at {at}")
    yield from _watcher(folder)
    yield from _safety(found)


def _left_over() -> Iterator[Finding]:
    """Databases outside their homes whose homes are no more."""
    for site in sorted(programs.SYSTEM_FOLDER.glob("*")):
        record = site / "home"
        if not record.exists():
            continue
        owner = record.read_text(errors="surrogateescape").removesuffix("\n")
        if (
            site.suffix == cluster.SET_ASIDE
            or not Path(owner, "postgres", postmaster.CLUSTER).exists()
        ):
            says = f"{site} holds the database of {owner}, which was deleted"
            yield Finding("left over", "warn", says, f"if nobody misses it: rm -r {site}")


def _watcher(folder: Path) -> Iterator[Finding]:
    """Whether somebody would stop the server, were all its users killed."""
    with home.start_lock(folder):
        used = postmaster.used(folder)
        watched = postmaster.held(folder / postmaster.WATCH)
    if used and not watched:
        mend = "start another Storekeep command on this home: it sets a new one"
        yield Finding("watcher", "warn", "the server is in use and its watcher is gone", mend)
    else:
        yield Finding("watcher", "ok", "in use and watched" if used else "in use by no process")


def _safety(database: Database) -> Iterator[Finding]:
    """Whether what is committed is on the disk, and what is on the disk is what was written."""
    query = """
        SELECT name, setting FROM pg_settings
        WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'data_checksums')
    """
    failures = "SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database"
    with database.admin() as connection:
        modes = {str(name): str(mode) for name, mode in connection.execute(query)}
        broken = next(int(count) for (count,) in connection.execute(failures))
    checksums = modes.pop("data_checksums")
    for name, mode in sorted(modes.items()):
        if mode == "on":
            yield Finding(name, "ok", "on")
        else:
            mend = f"ALTER SYSTEM RESET {name}, then stop the server: it starts anew"
            yield Finding(name, "wrong", f"{mode}: a power cut may lose what was committed", mend)
    if broken:
        says = f"{broken} pages on the disk are not as they were written"
        mend = "stop, check the disk (dmesg, smartctl), and go back to a copy"
        yield Finding("checksums", "wrong", says, mend)
    elif checksums != "on":
        mend = "stop the server and run pg_checksums --enable on its cluster"
        yield Finding("checksums", "warn", "off: a page that the disk changes goes unseen", mend)
    else:
        yield Finding("checksums", "ok", "on, and no page has failed")
