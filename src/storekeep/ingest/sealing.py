"""What is personal, sealed under a key of the person before anything else sees it.

Hides the cipher and how a sealed text is written. A sealed text says under whose key it is, so that it can be
opened as long as that key is there and by nobody after it is deleted. The same text of the same person is
sealed alike each time (AES-SIV, RFC 5297), so that a row that comes again is known again. Keys are wrapped
(AES key wrap, RFC 3394) by a key of the home, so that a copy of the database alone opens nothing.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from storekeep.errors import InvariantBroken, Refused
from storekeep.ingest.pseudonyms import home_key

WITHHELD = "withheld: the row may hold personal data"
_KEY_BYTES = 64
_SEALED = re.compile(r"sealed/([A-Za-z0-9_=-]+)/([^/\"\\]+)")

Keys = Callable[[Sequence[str]], Mapping[str, bytes]]
"""The key of each person, made where there is none yet."""


def persons_key(home: Path, tenant: str) -> bytes:
    """The key that wraps the keys of a tenant's persons, from a secret of the home (`keys/persons.key`)."""
    return home_key(home, "persons.key", tenant)


def new_person_key(wrapping: bytes) -> bytes:
    """A new key of a person, wrapped."""
    return aes_key_wrap(wrapping, secrets.token_bytes(_KEY_BYTES))


def unwrapped(key: bytes, wrapping: bytes) -> bytes:
    """A person's key as it is used; `Refused` when another home wrapped it."""
    try:
        return aes_key_unwrap(wrapping, key)
    except InvalidUnwrap:
        raise Refused(
            "keys of persons were wrapped by another home: put keys/persons.key back from a backup"
        ) from None


def seal(
    texts: Mapping[str, pa.Array], persons: pa.Array, keys: Keys, *, kept: bool = False
) -> dict[str, pa.StringArray]:
    """Texts by field, each sealed under the key of its person; of nobody's only that it was withheld.

    The field is what a text is of a person, and is sealed in: a name cannot pass for an address. Nulls stay,
    and where texts were `kept` by us, so does what is sealed or withheld already.
    """
    said = {field: cells.to_pylist() for field, cells in texts.items()}
    whose = persons.to_pylist()
    plain = [
        any(text is not None and not (kept and is_hidden(text)) for text in row)
        for row in zip(*said.values(), strict=True)
    ]
    named = {one for one, is_plain in zip(whose, plain, strict=True) if is_plain and one}
    ciphers = {person: AESSIV(key) for person, key in keys(sorted(named)).items()} if named else {}

    def hidden(text: str | None, person: str | None, field: str) -> str | None:
        if text is None or (kept and is_hidden(text)):
            return text
        return _sealed(text, person, field, ciphers[person]) if person else WITHHELD

    return {
        field: pa.array(
            [hidden(text, person, field) for text, person in zip(cells, whose, strict=True)],
            pa.string(),
        )
        for field, cells in said.items()
    }


def is_hidden(text: str | None) -> bool:
    """Whether a cell that we kept is sealed or withheld."""
    return text is not None and (text == WITHHELD or _SEALED.fullmatch(text) is not None)


def person_of(sealed: str) -> str | None:
    """Under whose key a text is sealed; None when it is not sealed."""
    found = _SEALED.fullmatch(sealed)
    return found[2] if found else None


def unseal(sealed: str, field: str, key: bytes) -> str:
    """A sealed text as it was; `InvariantBroken` when it is of another person or field, or was changed."""
    found = _SEALED.fullmatch(sealed)
    if found is None:
        raise InvariantBroken("this is no sealed text")
    try:
        plain = AESSIV(key).decrypt(urlsafe_b64decode(found[1]), [f"{found[2]}\n{field}".encode()])
    except InvalidTag:
        raise InvariantBroken(f"a sealed {field} of {found[2]} does not fit its key") from None
    return plain.decode()


def withheld(text: str, persons: frozenset[str]) -> str:
    """A text in which nothing is left of what is sealed under the keys of some persons."""
    return _SEALED.sub(lambda found: WITHHELD if found[2] in persons else found[0], text)


def persons_in(text: str) -> frozenset[str]:
    """Under whose keys anything in a text is sealed."""
    return frozenset(found[2] for found in _SEALED.finditer(text))


def _sealed(text: str, person: str, field: str, cipher: AESSIV) -> str:
    secret = cipher.encrypt(text.encode(), [f"{person}\n{field}".encode()])
    return f"sealed/{urlsafe_b64encode(secret).decode()}/{person}"
