"""One server for all the processes of a home: found, started once, shared, and stopped after the last.

What this promises: of two processes that start it at once one starts it; whoever holds a lease finds it
running; and when the last lease ends, by whatever end, SIGKILL too, nothing is left running.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psycopg.conninfo import make_conninfo

from storekeep.config import Settings
from storekeep.errors import Refused, Transient
from storekeep.servers import cluster, home, postmaster
from storekeep.servers.database import Database, Missing, check_given, connect, version_text

DATABASE = "storekeep"
# What the environment says for other servers (PGHOSTADDR, PGSSLMODE and their like) must not lead us there.
UNMOVED = {
    "hostaddr": "",
    "sslmode": "disable",
    "gssencmode": "disable",
    "channel_binding": "disable",
    "target_session_attrs": "any",
}
REACH_SECONDS = 10
WATCHER_SECONDS = 1.0


def ensure(settings: Settings) -> Database:
    """See that the home's database runs, starting it if need be, and say how to reach it.

    Any number of processes may call it at once. A server it starts runs until `stop`, or until the last
    `lease` of the home ends: who works with the database takes a lease. Raises `Refused` or `Transient`
    saying what happened, where, and what to do; the password is in no message.
    """
    with home.speaking(home.real_home(settings)):
        folder = home.prepare(settings)
        if settings.database_url is not None:
            return check_given(settings.database_url.get_secret_value())
        found = _find(folder)
        if found is not None:
            cluster.trim_log(folder)
            return found
        with home.start_lock(folder):
            found = _settle(folder)
            return _begin(settings, folder) if found is None else found


def running(settings: Settings) -> Database | None:
    """Say how to reach the home's database if it runs; nothing is started and nothing is written.

    Raises `Refused` when it runs but does not let us in.
    """
    if settings.database_url is not None:
        with suppress(Transient):
            return check_given(settings.database_url.get_secret_value())
        return None
    place = home.real_home(settings)
    with home.speaking(place):
        home.check_format(place)
        return _find(place / "postgres")


def stop(settings: Settings, *, force: bool = False) -> bool:
    """End the home's server, also one that was to be kept up; false if none ran or it is not ours to end.

    Raises `Refused` while other processes use it, unless `force`: their sessions then end.
    """
    place = home.real_home(settings)
    folder = place / "postgres"
    with home.speaking(place):
        if settings.database_url is not None or not (folder / postmaster.CLUSTER).exists():
            return False
        with home.start_lock(folder):
            users = postmaster.place(folder / postmaster.USERS)
            try:
                if not force and not postmaster.claim(users):
                    raise Refused(
                        f"the PostgreSQL of {place} is in use by another process; end that, or use --force"
                    )
                (folder / postmaster.KEEP).unlink(missing_ok=True)
                return home.halt(folder)
            finally:
                postmaster.drop(users)


@contextmanager
def lease(settings: Settings) -> Iterator[Database]:
    """Use the home's database: it runs as long as anybody uses it, and no longer.

    When the last lease of a home ends, by return, exception or Ctrl-C, the server is stopped, unless the
    file `postgres/keep` says to keep it up. When its holder is killed, a watcher stops the server instead. A
    forked child shares its parent's lease for as long as the parent holds it, or when the parent is killed;
    a child that is to outlive it takes its own. Raises what `ensure` raises.
    """
    if settings.database_url is not None:
        yield ensure(settings)
        return
    place, process = home.real_home(settings), os.getpid()
    with home.speaking(place):
        folder = home.prepare(settings)
        users = postmaster.place(folder / postmaster.USERS)
    try:
        with home.speaking(place), home.start_lock(folder):
            home.join(folder, users)
            _set_watcher(folder)
        yield ensure(settings)
    finally:
        if os.getpid() == process:
            _leave(folder, users)
        else:
            os.close(users)


def _leave(folder: Path, users: int) -> None:
    """Give up a share in the use of the server, stop it after the last, and leave no process behind."""
    try:
        if not postmaster.same(users, folder / postmaster.USERS):
            # The home was deleted under us, and its server sees that by itself.
            return
        with home.speaking(folder.parent), home.start_lock(folder):
            alone = postmaster.claim(users)
            # Out of sight, in another container, its own watcher ends it.
            if alone and not (folder / postmaster.KEEP).exists() and postmaster.seen(folder):
                home.halt(folder)
    finally:
        postmaster.drop(users)
    _await_watcher(folder)


def _await_watcher(folder: Path) -> None:
    """After the last user has left, wait for the watcher to see it and end."""
    until = time.monotonic() + WATCHER_SECONDS
    while time.monotonic() < until:
        with home.speaking(folder.parent), home.start_lock(folder):
            if postmaster.used(folder) or not postmaster.held(folder / postmaster.WATCH):
                return
        time.sleep(postmaster.PAUSE_SECONDS)


def _set_watcher(folder: Path) -> None:
    """See that a watcher waits for the last user to go; the caller holds the start lock."""
    mark = postmaster.place(folder / postmaster.WATCH)
    log = folder / "watch.log"
    try:
        if not postmaster.grab(mark, fcntl.LOCK_EX):
            return
        with log.open("wb") as words:
            # The lock travels with the open file: it is the watcher's from its first instant on.
            subprocess.run(
                [sys.executable, "-I", "-S", postmaster.__file__, str(folder), str(mark)],
                check=True,
                cwd="/",
                pass_fds=(mark,),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
    except subprocess.CalledProcessError:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise Transient(f"{sys.executable} cannot run the watcher: {last}; mend that") from None
    finally:
        os.close(mark)


def _begin(settings: Settings, folder: Path) -> Database:
    """Start the server and connect to it; what cannot be used is not left running."""
    cluster.begin(settings, folder)
    try:
        found = _settle(folder)
    except BaseException:
        home.halt(folder)
        raise
    if found is None:
        raise Transient(
            f"the PostgreSQL of {folder.parent} ended as soon as it had started; see "
            f"{cluster.log_of(folder)}, then try again"
        )
    return found


def _find(folder: Path) -> Database | None:
    """The server of this folder if it is ready; none while it starts or stops, or when it has died."""
    master = postmaster.read(folder)
    if master is None or master.status != "ready" or not postmaster.lives(folder):
        return None
    # It may end while it is looked for; `_settle` tells that from one that lives but is out of reach.
    with suppress(Transient, Missing):
        return _reach(folder, master)
    return None


def _reach(folder: Path, master: postmaster.Postmaster, *, create: bool = False) -> Database:
    """Connect to a server that is ready, and see that it holds our database."""
    try:
        password = (folder / cluster.PASSWORD).read_text().strip()
    except FileNotFoundError:
        raise cluster.no_password(folder) from None
    conninfo = make_conninfo(
        host=master.sockets or master.address,
        port=master.port,
        user=cluster.SUPERUSER,
        password=password,
        dbname=DATABASE,
        **UNMOVED,
    )
    if create:
        with suppress(Missing):
            return _reach(folder, master)
        with connect(make_conninfo(conninfo, dbname="postgres")) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
    try:
        with connect(conninfo) as connection:
            version = version_text(connection.info.server_version)
    except Missing:
        raise
    except Refused as error:
        raise Refused(
            f"{error}: put back the {folder / cluster.PASSWORD} that belongs to the cluster beside it"
        ) from None
    return Database(conninfo, embedded=True, version=version)


def _settle(folder: Path) -> Database | None:
    """The server of this folder once it is ready, or none once its last process is gone; bounded.

    The caller holds the start lock, so what is found starting or stopping was not begun by another of us.
    """
    began = time.monotonic()
    while postmaster.lives(folder):
        late = time.monotonic() - began > REACH_SECONDS
        master = postmaster.read(folder)
        seen = master is not None and postmaster.is_server(master.pid, folder)
        if master is not None and master.status == "ready":
            try:
                return _reach(folder, master, create=True)
            except Transient:
                if late and seen:
                    raise
        if not seen and postmaster.servers(folder):
            home.halt(folder)
        elif not seen and late:
            raise Transient(
                f"the PostgreSQL of {folder.parent} runs out of sight, in another container or on another "
                "machine, and is not to be reached from here; end it there, or " + home.ELSEWHERE
            )
        elif time.monotonic() - began > cluster.START_SECONDS:
            raise Transient(
                f"the PostgreSQL of {folder.parent} neither comes up nor ends; see {cluster.log_of(folder)}, "
                "wait, then try again"
            )
        time.sleep(postmaster.PAUSE_SECONDS)
    return None
