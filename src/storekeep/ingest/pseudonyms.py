"""Pseudonyms in place of what identifies a person, before anything else sees the rows.

Hides the keyed hash. The same person at the same source always has the same pseudonym under one key, and
without the key nobody can find out by trying names whose pseudonym it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.errors import Misused, Refused

KEY_BYTES = range(16, 65)
Matched = Literal["email", "phone"]
MATCHED: tuple[Matched, ...] = get_args(Matched)
_SECRET_BYTES = 32


def pseudonym_key(home: Path, tenant: str) -> bytes:
    """The key of a tenant's pseudonyms in a home, from a secret made at first use (`keys/pseudonyms.key`).

    Another tenant has another key, so that nobody is known again from one tenant to the next.
    """
    return home_key(home, "pseudonyms.key", tenant)


def home_key(home: Path, name: str, tenant: str) -> bytes:
    """A tenant's key for one use, from a secret of the home made at first use (`keys/NAME`)."""
    path = home / "keys" / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        with NamedTemporaryFile(dir=path.parent, prefix=f"{name}.") as draft:
            draft.write(secrets.token_bytes(_SECRET_BYTES))
            draft.flush()
            os.fsync(draft.fileno())
            # Of several processes one makes it.
            with suppress(FileExistsError):
                os.link(draft.name, path)
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise Refused(f"{path} does not hold {_SECRET_BYTES} bytes; put it back from a backup")
    return hashlib.blake2b(tenant.encode(), digest_size=_SECRET_BYTES, key=secret).digest()


def checked(key: bytes | None, why: str) -> bytes:
    """The key, if it is one; raises `Misused` when it is missing, too short or too long."""
    if key is None or len(key) not in KEY_BYTES:
        raise Misused(
            f"{why} makes pseudonyms of customers: that takes a pseudonym_key of 16 to 64 bytes, kept secret"
        )
    return key


def pseudonyms(cells: pa.Array, source: str, key: bytes, nulls: Sequence[str]) -> pa.StringArray:
    """Each identifier as `source:` and 32 hexadecimal digits of keyed BLAKE2b.

    Identifiers that differ only in case, outer white space or Unicode form are one person's. Null marks
    stay as they are, and so does what is a pseudonym of this source already. Each distinct identifier is
    hashed once.
    """
    encoded = pa.array(cells, pa.string()).dictionary_encode()
    made = re.compile(re.escape(source) + ":[0-9a-f]{32}")
    out = [
        cell if cell in nulls or made.fullmatch(cell) else _pseudonym(cell, source, key)
        for cell in encoded.dictionary.to_pylist()
    ]
    return pa.array(out, pa.string()).take(encoded.indices)


def ticket_pseudonyms(tickets: pa.Array, source: str, key: bytes) -> pa.StringArray:
    """Under whose key the texts of tickets are sealed that nobody is known to have opened."""
    # No source has such a name, so that no customer's pseudonym can be taken for one of these.
    return pseudonyms(tickets, f"{source}.ticket", key, ())


def matches(cells: pa.Array, kind: Matched, key: bytes, blank: str | None) -> pa.StringArray:
    """Addresses or numbers as pseudonyms by which a person is known again at another source.

    An address is one with an @ inside; a number is international (E.164), begins with + or 00, and may have
    blanks, brackets, points and hyphens. What is neither is `blank`: it tells nobody from anybody.
    """
    encoded = pa.array(cells, pa.string()).dictionary_encode()
    plain = _address if kind == "email" else _international
    out = [
        _pseudonym(said, f"match.{kind}", key) if said else blank
        for said in map(plain, encoded.dictionary.to_pylist())
    ]
    return pc.fill_null(pa.array(out, pa.string()).take(encoded.indices), blank)


def _address(cell: str) -> str | None:
    return cell if re.fullmatch(r"\s*[^@\s]+@[^@\s]+\s*", cell) else None


def _international(cell: str) -> str | None:
    digits = re.sub(r"\(0\)|[\s().\-/]", "", cell)
    digits = "+" + digits[2:] if digits.startswith("00") else digits
    return digits if re.fullmatch(r"\+[1-9]\d{6,14}", digits, re.ASCII) else None


def _pseudonym(cell: str, source: str, key: bytes) -> str:
    plain = unicodedata.normalize("NFC", cell.strip().casefold())
    text = f"{source}\n{plain}".encode()
    return f"{source}:{hashlib.blake2b(text, digest_size=16, key=key).hexdigest()}"
