"""Files as they lie on the disk, unpacked: a plain file, a `.gz` stream, or the members of a `.zip`.

Hides how much an archive may grow before it is refused, and where its members are kept while they are
read. What a file is follows from its first bytes, never from its name.
"""

from __future__ import annotations

import errno
import gzip
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from storekeep.errors import Misused, Permanent, Refused

CHUNK = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """How much unpacking is allowed: bytes of one member, growth over its packed size, and members.

    Growth counts only beyond `free_bytes`: a small file of equal lines packs a thousandfold.
    """

    member_bytes: int = 16 << 30
    growth: int = 200
    free_bytes: int = 64 << 20
    members: int = 100_000


@dataclass(frozen=True)
class Opened:
    """A plain file to read, and the name its rows are known by (`archive.zip/member.csv`)."""

    path: Path
    name: str


@contextmanager
def opened(path: Path, bounds: Bounds) -> Iterator[Iterator[Opened]]:
    """The plain files that `path` stands for, one at a time; each is gone when the next is asked for.

    Raises `Misused` when there is no such file, `Refused` when it is empty, truncated, damaged, encrypted
    or grows beyond `bounds`, and `Permanent` when the folder for temporary files is full.
    """
    magic = _first_bytes(path)
    if not magic.startswith((b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06")):
        yield iter([Opened(path, path.name)])
        return
    with tempfile.TemporaryDirectory(prefix="storekeep-") as folder:
        target = Path(folder) / "member"
        unpack = _gunzip if magic.startswith(b"\x1f\x8b") else _unzip
        yield unpack(path, target, bounds)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            first = file.read(4)
    except FileNotFoundError:
        raise Misused(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise Misused(f"{path} is a folder; name the files in it") from None
    except OSError as error:
        raise Misused(f"{path} cannot be read: {error.strerror}") from None
    if not first:
        raise Refused(f"{path} is empty; send it again")
    return first


def _gunzip(path: Path, target: Path, bounds: Bounds) -> Iterator[Opened]:
    try:
        with gzip.open(path) as stream:
            _copy(stream, target, path.stat().st_size, str(path), bounds)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{path} is damaged or cut short ({error}); send it again") from None
    yield Opened(target, path.name)


def _unzip(path: Path, target: Path, bounds: Bounds) -> Iterator[Opened]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if _holds_rows(member)]
            if not members:
                raise Refused(f"{path} holds no files")
            if len(members) > bounds.members:
                raise Refused(
                    f"{path} holds {len(members)} files; at most {bounds.members} are read"
                )
            for member in members:
                name = f"{path.name}/{member.filename}"
                if ".." in Path(member.filename).parts:
                    raise Refused(f"{name} is a name that leads out of the archive; pack it anew")
                if member.flag_bits & 1:
                    raise Refused(f"{name} is encrypted; unpack it first")
                with archive.open(member) as stream:
                    _copy(stream, target, member.compress_size, name, bounds)
                yield Opened(target, name)
    except (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise Refused(f"{path} is damaged or cut short ({error}); send it again") from None


def _holds_rows(member: zipfile.ZipInfo) -> bool:
    parts = Path(member.filename).parts
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return not (member.is_dir() or "__MACOSX" in parts or hidden)


def _copy(
    stream: IO[bytes] | gzip.GzipFile, target: Path, packed: int, name: str, bounds: Bounds
) -> None:
    allowed = min(bounds.member_bytes, bounds.free_bytes + bounds.growth * packed)
    written = 0
    try:
        with target.open("wb") as out:
            while chunk := stream.read(CHUNK):
                written += len(chunk)
                if written > allowed:
                    raise Refused(
                        f"{name} unpacks to more than {allowed >> 20} MiB from {packed} bytes: "
                        f"that is taken for a trap; unpack it yourself if it is sound"
                    )
                out.write(chunk)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Permanent(
                f"no room left in {target.parent} to unpack {name}; free some, or set TMPDIR"
            ) from None
        raise
    if not written:
        raise Refused(f"{name} is empty; send it again")
