"""The folder of one home: made where it is missing, of a format we know, locked while it changes.

Hides what a disk can say no to: whatever the system answers becomes what happened, where, and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storekeep.config import Settings
from storekeep.errors import Refused, StorekeepError, Transient
from storekeep.servers import postmaster

FORMAT = 1
LOCK_SECONDS = 180
LEAST_FREE_BYTES = 128 * 2**20
MIB = 2**20
ELSEWHERE = "choose another home with --home or STOREKEEP_HOME"


def real_home(settings: Settings) -> Path:
    """The home without links, by which all its processes know it."""
    return Path(os.path.realpath(settings.home.expanduser()))


def prepare(settings: Settings) -> Path:
    """Make the home where it is missing, check its format, and return the folder of its PostgreSQL."""
    home = real_home(settings)
    if "\n" in str(home):
        raise Refused(f"the name of the home {str(home)!r} has a line break in it; {ELSEWHERE}")
    known = check_format(home)
    # The server's own user passes through what root makes; nobody else can list it.
    mode = 0o711 if os.geteuid() == 0 else 0o700
    make_folder(home, mode)
    if not known:
        write(home / "version", json.dumps({"format": FORMAT}) + "\n", 0o644)
    folder = home / "postgres"
    if settings.database_url is None and make_folder(folder, mode):
        give(folder)
    return folder


def check_format(home: Path) -> bool:
    """Whether the home says its format; raises `Refused` if that is not one we know."""
    path = home / "version"
    try:
        number = int(json.loads(path.read_text())["format"])
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError):
        form = json.dumps({"format": FORMAT})
        raise Refused(f"{path} does not read as {form}; put it back from a copy") from None
    if number > FORMAT:
        raise Refused(
            f"{home} is of a newer Storekeep (format {number}, and this one knows {FORMAT}); "
            f"install that Storekeep, or {ELSEWHERE}"
        )
    return True


def make_folder(path: Path, mode: int) -> bool:
    """Make a folder of ours; false if it was there, and then its mode and owner stay as they are."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.is_dir():
            return False
        raise
    path.chmod(mode)
    return True


def give(path: Path) -> None:
    """What root makes in another's home belongs to that other."""
    above = path.parent.stat()
    if os.geteuid() == 0 and above.st_uid != 0:
        os.chown(path, above.st_uid, above.st_gid, follow_symlinks=False)


def write(path: Path, text: str, mode: int) -> None:
    """Write a whole file or none of it, and have it on the disk."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(number, mode)
            file.write(text)
            file.flush()
            os.fsync(number)
        give(Path(name))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def user_name(uid: int) -> str:
    """The name of a user of this system, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


@contextmanager
def speaking(home: Path) -> Iterator[None]:
    """Turn what the system says of the home's disk into a refusal that a person can act on."""
    try:
        yield
    except OSError as error:
        raise refusal(home, error) from error


def refusal(home: Path, error: OSError) -> StorekeepError:
    """What happened, where, and what to do, for an error of the system."""
    where = error.filename or home
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return full(home)
        case errno.EROFS:
            return Refused(f"{where} cannot be written, its disk is read-only; {ELSEWHERE}")
        case errno.EACCES | errno.EPERM:
            who = user_name(os.geteuid())
            return Refused(f"{where} is not open to {who}; run as its owner, or {ELSEWHERE}")
        case errno.ENOTDIR | errno.EEXIST:
            where = nearest(Path(where))
            return Refused(f"{where} is a file where a folder should be; move it, or {ELSEWHERE}")
        case errno.ENOLCK | errno.EOPNOTSUPP | errno.ENOSYS:
            return Refused(f"the disk of {where} has no file locks; {ELSEWHERE}, on a local disk")
        case _:
            return Transient(f"{where}: {error.strerror or error}; mend that, then try again")


def nearest(path: Path) -> Path:
    """The path itself, or of the folders that are to hold it the last that exists."""
    while not path.exists():
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """Room left on the disk of a path that exists or is to."""
    return shutil.disk_usage(nearest(path)).free


def full(home: Path) -> Transient:
    """The refusal of a disk that has no room."""
    return Transient(
        f"the disk of {home} is full ({free_bytes(home) // MIB} MiB free), what is recorded is safe; "
        f"make room, {LEAST_FREE_BYTES // MIB} MiB at least, and run it again"
    )


@contextmanager
def start_lock(folder: Path) -> Iterator[None]:
    """Hold the right to start and stop the home's server."""
    path = folder / postmaster.LOCK
    try:
        with postmaster.locked(path, LOCK_SECONDS):
            yield
    except postmaster.Busy:
        raise Transient(
            f"another process has been starting or stopping the server in {folder} for more "
            f"than {LOCK_SECONDS} s; see who holds {path} (fuser), end it, then try again"
        ) from None


def join(folder: Path, users: int) -> None:
    """Take a share in the use of the server; the caller holds the start lock."""
    until = time.monotonic() + LOCK_SECONDS
    while not postmaster.grab(users, fcntl.LOCK_SH):
        if time.monotonic() > until:
            raise Transient(
                f"{folder / postmaster.USERS} stays held; see by whom (fuser), end it, then try again"
            )
        time.sleep(postmaster.PAUSE_SECONDS)


def halt(folder: Path) -> bool:
    """Stop the server of a folder; false if none ran. The caller holds the start lock."""
    try:
        return postmaster.halt(folder)
    except postmaster.Busy:
        raise Transient(
            f"the PostgreSQL of {folder.parent} does not end, or runs in another container; end it there"
        ) from None


def owned_by_others(path: Path, uid: int) -> bool:
    """Whether a folder that should be that user's alone is open to others, or not a folder."""
    found = path.lstat()
    return not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or bool(found.st_mode & 0o077)
