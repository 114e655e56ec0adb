"""The cluster of one home: where it is kept, how it is made whole or not at all, how its server starts."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storekeep.config import Settings
from storekeep.errors import Refused, StorekeepError, Transient
from storekeep.servers import home, postmaster, programs
from storekeep.servers.programs import Account

SUPERUSER = "storekeep"
PASSWORD = "password"  # noqa: S105 - the name of the file, not a password
STAGING = "cluster.new-"
SET_ASIDE = ".deleted"
START_SECONDS = 120
CLAIM_SECONDS = 10
LOG_BYTES = 8 * home.MIB
LOG_KEPT_BYTES = home.MIB // 4
LOG_LINES = 8
# The path of a Unix socket has room for 107 bytes on Linux and for less elsewhere.
SOCKET_PATH_BYTES = 100
SOCKET = ".s.PGSQL.5432"
PORT_TRIES = 3

SETTINGS_FILE = "storekeep.conf"
SETTINGS = """\
# Written by Storekeep at each start of the server; use ALTER SYSTEM for settings of your own.
listen_addresses = '{address}'
port = {port}
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
password_encryption = 'scram-sha-256'
max_connections = 50
shared_buffers = 256MB
# In a container with a limit on huge pages "try" ends in a bus error.
huge_pages = off
jit = off
fsync = on
full_page_writes = on
synchronous_commit = on
wal_compression = on
max_wal_size = 2GB
wal_buffers = 64MB
temp_buffers = 64MB
timezone = 'UTC'
log_timezone = 'UTC'
# The log tells of the server's own life. Statements, their values and the errors they met name people.
logging_collector = off
log_statement = none
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_checkpoints = off
"""


@dataclass(frozen=True)
class Ground:
    """What a server stands on: the home's postgres folder, the site of its data, its programs, its user."""

    folder: Path
    site: Path
    programs: Path
    account: Account | None

    @property
    def cluster(self) -> Path:
        """The data folder."""
        return self.site / postmaster.CLUSTER

    @property
    def uid(self) -> int:
        """The user the server runs as."""
        return self.account.uid if self.account else os.geteuid()

    def own(self, path: Path) -> None:
        """Give a path of ours to the server's user."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)


def begin(settings: Settings, folder: Path) -> None:
    """Start the server of a home, making its cluster if there is none; the caller holds the start lock.

    No process of an earlier server is alive. Raises `Refused` or `Transient` when it does not come up; a
    Ctrl-C on the way leaves nothing running.
    """
    account = programs.account_of(settings, folder)
    site = _choose_site(folder, account)
    ground = Ground(folder, site, programs.within_reach(programs.find(settings), account), account)
    try:
        with _alive(folder) as alive:
            major, version = programs.version(ground.programs, account, alive)
            if not (folder / postmaster.CLUSTER).exists():
                _make(ground, major, alive)
            _check_major(ground, major, version)
            _start(ground, alive)
    except StorekeepError:
        raise
    except BaseException:
        home.halt(folder)
        raise


def site_of(folder: Path) -> Path:
    """The folder of a home's cluster, log and socket: its postgres folder, or what stands for it."""
    cluster = folder / postmaster.CLUSTER
    return cluster.readlink().parent if cluster.is_symlink() else folder


def log_of(folder: Path) -> Path:
    """The server's log."""
    return site_of(folder) / "log" / "server.log"


def _choose_site(folder: Path, account: Account | None) -> Path:
    """The site of a home's server, made where it is missing, in reach of the server's user."""
    cluster = folder / postmaster.CLUSTER
    site = site_of(folder)
    if cluster.is_symlink() and not cluster.exists():
        raise Refused(f"{site}, which held the database of {folder.parent}, is gone; put it back")
    if site == folder:
        barred = programs.blocked(folder, account)
        if barred is None or account is None:
            return folder
        if cluster.exists():
            raise Refused(
                f"PostgreSQL is to run as {account.name}, who may not enter {barred} above {cluster}; "
                f"let others pass (chmod a+x {barred}), or move the home"
            )
        name = hashlib.sha256(os.fsencode(folder.parent)).hexdigest()[:12]
        site = programs.SYSTEM_FOLDER / name
        programs.make_system_folder()
        _set_aside(site)
        home.make_folder(site, 0o711)
    _check_record(folder, site)
    return site


def _set_aside(site: Path) -> None:
    """Keep the site of a home that was deleted out of its successor's way, one of them at most."""
    if (site / postmaster.CLUSTER).exists():
        home.halt(site)
        earlier = site.with_suffix(SET_ASIDE)
        if earlier.exists():
            shutil.rmtree(earlier)
        site.rename(earlier)


def _check_record(folder: Path, site: Path) -> None:
    """See that a site outside its home serves this home alone: a copied home brings no data, only a link."""
    record = site / "home"
    written = record.read_text(errors="surrogateescape") if record.exists() else None
    other = None if written is None else Path(written.removesuffix("\n"))
    if other == folder.parent:
        return
    if other is not None:
        theirs = other / "postgres" / postmaster.CLUSTER
        if theirs.is_symlink() and theirs.readlink().parent == site:
            raise Refused(
                f"{folder.parent} is a copy of {other}, whose data in {site} did not come along; use that "
                f"home, or remove {folder} to begin with an empty database"
            )
    home.write(record, f"{folder.parent}\n", 0o644)


@contextmanager
def _alive(folder: Path) -> Iterator[int]:
    """Hold the lock that every process of the server inherits, so that it is free when they are all gone."""
    alive = postmaster.place(folder / postmaster.ALIVE)
    until = time.monotonic() + CLAIM_SECONDS
    try:
        # Someone may look just now whether the server lives; that takes an instant.
        while not postmaster.grab(alive, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise Transient(f"{folder / postmaster.ALIVE} stays held; try again")
            time.sleep(postmaster.PAUSE_SECONDS)
        yield alive
    finally:
        os.close(alive)


def _make(ground: Ground, major: int, alive: int) -> None:
    """Make a cluster beside its place and move it there whole, so that no half-made one is ever found."""
    if home.free_bytes(ground.site) < home.LEAST_FREE_BYTES:
        raise home.full(ground.folder.parent)
    for left in ground.site.glob(f"{STAGING}*"):
        shutil.rmtree(left)
    password = ground.folder / PASSWORD
    if not password.exists():
        home.write(password, secrets.token_urlsafe(32) + "\n", 0o600)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=ground.site))
    try:
        # The server's user cannot read the home's password, and is lent a copy until it has hashed it.
        lent, made = staging / "password", staging / "cluster"
        home.write(lent, password.read_text(), 0o600)
        made.mkdir(0o700)
        for path in (lent, made, staging):
            ground.own(path)
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else []
        # Left to sync by itself: it costs 0.13 s of 0.7 s, and what the move names is then on the disk.
        done = programs.run(
            [
                *(str(ground.programs / "initdb"), "-D", made.name, f"--pwfile={lent.name}"),
                *(f"--username={SUPERUSER}", "--auth=scram-sha-256", "--data-checksums"),
                *("--encoding=UTF8", "--no-locale", *locale, "--no-instructions"),
            ],
            ground.account,
            staging,
            alive,
        )
        if done.returncode:
            raise _failure(ground, "its cluster cannot be made", done.stdout)
        with (made / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"\ninclude_if_exists = '{SETTINGS_FILE}'\n")
            file.flush()
            os.fsync(file.fileno())
        made.rename(ground.cluster)
        home.sync(ground.site)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if ground.site != ground.folder:
        (ground.folder / postmaster.CLUSTER).symlink_to(ground.cluster)
        home.sync(ground.folder)


def _check_major(ground: Ground, major: int, version: str) -> None:
    """See that the data are of the version that is to run them, and that we can log in to them."""
    try:
        theirs = (ground.cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise Refused(
            f"{ground.cluster} is not a whole PostgreSQL cluster, it has no PG_VERSION; put it back from a "
            "copy, or move it away to begin with an empty database"
        ) from None
    if theirs != str(major):
        raise Refused(
            f"the data in {ground.cluster} are of PostgreSQL {theirs}, and {ground.programs} holds {version};"
            f" name programs of {theirs} in STOREKEEP_POSTGRES_BIN, or bring the data over with pg_upgrade"
        )
    if not (ground.folder / PASSWORD).exists():
        raise no_password(ground.folder)


def no_password(folder: Path) -> Refused:
    """The refusal of a cluster whose password is lost."""
    return Refused(
        f"{folder / PASSWORD}, the password of the database beside it, is missing; put it back from a copy, "
        f"or move {folder} away to begin with an empty database"
    )


def _start(ground: Ground, alive: int) -> None:
    """Start the server and wait until it takes connections."""
    # Whoever wrote it is dead, for `alive` was free; its number may by now be another process's.
    (ground.cluster / "postmaster.pid").unlink(missing_ok=True)
    if home.make_folder(ground.site / "log", 0o700):
        ground.own(ground.site / "log")
    trim_log(ground.folder)
    words = _try_start(ground, alive)
    # With a port, another program may have taken it since it was found free.
    for _ in range(PORT_TRIES):
        if words is None or "could not bind IPv4 address" not in words:
            break
        words = _try_start(ground, alive)
    if words is None:
        return
    found = postmaster.read(ground.folder)
    if found is not None and postmaster.is_server(found.pid, ground.folder):
        log = log_of(ground.folder)
        raise Transient(
            f"the PostgreSQL of {ground.folder.parent} still recovers after {START_SECONDS} s, see {log}; "
            "wait, then run it again"
        )
    raise _failure(ground, "it does not start", words)


def _try_start(ground: Ground, alive: int) -> str | None:
    """Start the server once; none if it is ready, or else its last words."""
    _configure(ground)
    log = log_of(ground.folder)
    before = log.stat().st_size if log.exists() else 0
    # Relative paths: pg_ctl hands them to a shell. It also leaves the server to init, so that nobody who
    # started it must stay to bury it.
    done = programs.run(
        [
            *(str(ground.programs / "pg_ctl"), "start", "--silent", "--wait"),
            *("-t", str(START_SECONDS), "-D", postmaster.CLUSTER, "-l", "log/server.log"),
        ],
        ground.account,
        ground.site,
        alive,
    )
    return None if done.returncode == 0 else _tail(log, before) or done.stdout


def _configure(ground: Ground) -> None:
    """Write the server's settings."""
    sockets = _socket_folder(ground)
    port = 5432 if sockets else _free_port()
    text = SETTINGS.format(
        address="" if sockets else "127.0.0.1",
        port=port,
        sockets=sockets or "",
    )
    home.write(ground.cluster / SETTINGS_FILE, text, 0o600)


def _socket_folder(ground: Ground) -> Path | None:
    """A folder of the server's own for its socket, with a short path; none where there cannot be one."""
    name = f"{postmaster.BORROWED}{hashlib.sha256(os.fsencode(ground.site)).hexdigest()[:12]}"
    places = [ground.site / "socket", Path(tempfile.gettempdir()) / name]
    if ground.account is None and (runtime := os.environ.get("XDG_RUNTIME_DIR")):
        places.insert(1, Path(runtime) / name)
    for place in places:
        path = str(place / SOCKET)
        # Other signs would have to be quoted for the server and again for each client.
        if len(os.fsencode(path)) >= SOCKET_PATH_BYTES or re.search(r"[^A-Za-z0-9_./+:-]", path):
            continue
        try:
            if home.make_folder(place, 0o700):
                ground.own(place)
            real = Path(os.path.realpath(place))
            barred = programs.blocked(real, ground.account)
            if barred is not None or home.owned_by_others(place, ground.uid):
                continue
            with socket.socket(socket.AF_UNIX) as trial:
                trial.bind(str(place / ".trial"))
            (place / ".trial").unlink()
            # Left by a server that was killed; its number may by now be another process's, or a zombie's.
            for left in (SOCKET, f"{SOCKET}.lock"):
                (place / left).unlink(missing_ok=True)
        except OSError:
            # A disk without sockets, or a folder closed to us: the next may do.
            continue
        return place
    return None


def _free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    try:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port: int = trial.getsockname()[1]
            return port
    except OSError as error:
        raise Transient(
            f"there is no free port on 127.0.0.1 for PostgreSQL: {error.strerror}; end what holds them, or "
            "let TMPDIR name a folder with a short path, for a socket"
        ) from None


def _failure(ground: Ground, what: str, words: str) -> StorekeepError:
    """The refusal of a server that does not come up, with its last words."""
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return home.full(ground.folder.parent)
    if "Cannot allocate memory" in words:
        return Transient(
            f"the PostgreSQL of {ground.folder.parent} has not enough memory to start; end other programs, "
            "then try again"
        )
    last = "\n  ".join(words.strip().splitlines()[-LOG_LINES:])
    return Transient(
        f"the PostgreSQL of {ground.folder.parent}: {what}; mend what its last words name, then try again "
        f"(programs {ground.programs}, log {log_of(ground.folder)}):\n  {last}"
    )


def _tail(log: Path, start: int) -> str:
    """What the log says from a place on."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            return file.read(LOG_KEPT_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""


def trim_log(folder: Path) -> None:
    """Keep the end of a log that has grown too long; the server appends, so it may go on meanwhile."""
    try:
        number = os.open(log_of(folder), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    with os.fdopen(number, "r+b") as file:
        size = os.fstat(number).st_size
        if size > LOG_BYTES:
            file.seek(size - LOG_KEPT_BYTES)
            kept = file.read()
            file.seek(0)
            file.write(kept)
            file.truncate()
