"""Whether the PostgreSQL of one folder lives, who uses it, and how it ends.

Hides process numbers, which lie: a number is given to another process, a dead process stays as a zombie, a
container sees other numbers. What is believed instead is a file lock (`alive`) that every process of the
server inherits: the system drops it when the last of them is gone, and not before.

Run as a program this file is the watcher: a small process that waits until nobody uses the server any more
and then stops it, so that a client killed in mid-day leaves nothing running. It must outlive its client, a
virtual environment that is deleted, an import that fails: so it uses the standard library only and imports
nothing of Storekeep.

The locks, each a file in the folder, and their order:
    lock    held alone, and briefly, by who starts or stops the server; taken before `users`
    users   shared by every process that uses the server; who gets it alone knows that nobody does
    watch   held by the one watcher, handed to it by who started it, so that there are never two
    alive   held by the processes of the server itself
"""

from __future__ import annotations

import fcntl
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

LOCK, USERS, WATCH, ALIVE = "lock", "users", "watch", "alive"
KEEP = "keep"
CLUSTER = "cluster"
BORROWED = "storekeep-"

PAUSE_SECONDS = 0.005
FAST_SECONDS = 60.0
IMMEDIATE_SECONDS = 10.0
KILL_SECONDS = 5.0
UNSEEN_SECONDS = 10.0
WATCH_SECONDS = 0.2
CLAIM_SECONDS = 30.0


class Busy(Exception):
    """Others hold what is asked for, for longer than anybody should."""


class Postmaster(NamedTuple):
    """What a server says of itself in its data folder: `status` is starting, ready or stopping."""

    pid: int
    port: int
    sockets: str
    address: str
    status: str


def read(folder: Path) -> Postmaster | None:
    """What the last server of the folder left in `postmaster.pid`; it may be dead, or only beginning."""
    try:
        text = (folder / CLUSTER / "postmaster.pid").read_text()
    except FileNotFoundError:
        return None
    lines = [line.strip() for line in text.splitlines()] + [""] * 8
    pid, port = (int(lines[at]) if lines[at].isdigit() else 0 for at in (0, 3))
    return Postmaster(pid, port, lines[4], lines[5], lines[7])


def is_server(pid: int, folder: Path) -> bool:
    """Whether that process is alive and a PostgreSQL at work in this folder's cluster."""
    if pid <= 0:
        return False
    process = Path("/proc") / str(pid)
    try:
        if not Path("/proc/self").exists():
            os.kill(pid, 0)
            return True
        named = (process / "comm").read_text() == "postgres\n"
        # A server's processes live in its data folder; a zombie lives nowhere.
        return named and (process / "cwd").samefile(folder / CLUSTER)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def servers(folder: Path) -> list[int]:
    """Every process of this folder's server that can be seen from here."""
    with suppress(FileNotFoundError):
        return [
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and is_server(int(process.name), folder)
        ]
    return []


def held(path: Path) -> bool:
    """Whether any process holds that lock."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not grab(lock, fcntl.LOCK_SH)
    finally:
        drop(lock)


def lives(folder: Path) -> bool:
    """Whether any process of this folder's server is alive, here or in another container."""
    if held(folder / ALIVE):
        return True
    found = read(folder)
    return found is not None and is_server(found.pid, folder)


def seen(folder: Path) -> bool:
    """Whether a process of this folder's server can be seen from here, and so be ended."""
    found = read(folder)
    return (found is not None and is_server(found.pid, folder)) or bool(servers(folder))


def place(path: Path) -> int:
    """Open a lock file, making it if need be; it belongs to the owner of its folder."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    owner = path.parent.stat()
    if os.geteuid() == 0 and os.fstat(lock).st_uid != owner.st_uid:
        os.fchown(lock, owner.st_uid, owner.st_gid)
    return lock


def drop(lock: int) -> None:
    """Give up a lock, also where a child that was forked meanwhile has the same file open."""
    try:
        fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)


def same(lock: int, path: Path) -> bool:
    """Whether the open lock is still the file at that path, and not one of a folder since deleted."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def locked(path: Path, patience_seconds: float) -> Iterator[None]:
    """Hold that lock alone; raises `Busy` when others keep it longer than that."""
    until = time.monotonic() + patience_seconds
    lock = place(path)
    try:
        while True:
            if not grab(lock, fcntl.LOCK_EX):
                if time.monotonic() > until:
                    raise Busy(path)
                time.sleep(PAUSE_SECONDS)
            elif same(lock, path):
                break
            else:
                stale, lock = lock, place(path)
                os.close(stale)
        os.utime(lock)
        yield
    finally:
        drop(lock)


def grab(lock: int, how: int) -> bool:
    """Take an open lock if it can be had at once; one that was held otherwise is lost if it cannot."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def claim(users: int) -> bool:
    """Give up a use of the server; true if nobody else uses it, and then nobody may until it is dropped.

    The caller holds `lock`, so that nobody begins to use it meanwhile.
    """
    until = time.monotonic() + CLAIM_SECONDS
    while not grab(users, fcntl.LOCK_EX):
        # Shared by other users; or held alone by the watcher, which gives it back as soon as it comes to run.
        if grab(users, fcntl.LOCK_SH) or time.monotonic() > until:
            fcntl.flock(users, fcntl.LOCK_UN)
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def used(folder: Path) -> bool:
    """Whether any process uses the server; the caller holds `lock`."""
    users = place(folder / USERS)
    try:
        return not claim(users)
    finally:
        drop(users)


def halt(folder: Path) -> bool:
    """Stop this folder's server and wait until its last process is gone; false if none ran.

    The caller holds `lock`. Sessions are ended and what is committed is written out; a server that does not
    end so in a minute is stopped as a power cut would, from which it recovers at its next start. Raises
    `Busy` when it is alive but out of sight, in another container, or does not end.
    """
    if not lives(folder):
        return False
    first = read(folder)
    began = time.monotonic()
    told: dict[int, signal.Signals] = {}
    while lives(folder):
        waited = time.monotonic() - began
        how = signal.SIGINT
        if waited > FAST_SECONDS:
            how = signal.SIGQUIT
        if waited > FAST_SECONDS + IMMEDIATE_SECONDS:
            how = signal.SIGKILL
        if waited > FAST_SECONDS + IMMEDIATE_SECONDS + KILL_SECONDS:
            raise Busy(folder)
        found = read(folder)
        if found is not None and is_server(found.pid, folder):
            targets = [found.pid]
        else:
            # What a dead postmaster left behind serves nobody and would keep a new one from starting.
            targets, how = servers(folder), max(how, signal.SIGQUIT)
        if how == signal.SIGKILL:
            targets = servers(folder)
        if not (targets or told) and waited > UNSEEN_SECONDS:
            raise Busy(folder)
        for pid in targets:
            if told.get(pid) != how:
                told[pid] = how
                with suppress(ProcessLookupError):
                    os.kill(pid, how)
        time.sleep(PAUSE_SECONDS)
    if first is not None and Path(first.sockets).name.startswith(BORROWED):
        # Empty now, and in a place for everybody's files; whatever else it holds stays.
        with suppress(OSError):
            Path(first.sockets).rmdir()
    return True


def watch(folder: Path, mark: int) -> None:
    """Wait until nobody uses the server, then stop it, unless the home is to be kept up."""
    users = os.open(folder / USERS, os.O_RDWR)
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)
        # Given back at once: `lock` comes first, and someone who holds it may be about to use the server.
        fcntl.flock(users, fcntl.LOCK_UN)
        if not same(users, folder / USERS):
            return
        with locked(folder / LOCK, math.inf):
            if claim(users):
                ended = (folder / KEEP).exists() or not lives(folder)
                if ended or (seen(folder) and halt(folder)):
                    # In this order, so that whoever takes `lock` next finds no watcher, nor its process.
                    os.close(mark)
                    os._exit(0)
                fcntl.flock(users, fcntl.LOCK_UN)
        # Its user was killed while it began, and it cannot be seen yet; or it runs in another container.
        time.sleep(WATCH_SECONDS)


def main(folder: str, mark: str) -> None:
    """Leave the parent, so that it need not wait for us, and watch."""
    if os.fork():
        os._exit(0)
    os.chdir("/")
    watch(Path(folder), int(mark))


if __name__ == "__main__":
    main(*sys.argv[1:])
