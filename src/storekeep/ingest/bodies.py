"""What was sent to us, from its arrival until it is facts: known again by what it says, and sealed.

Hides the cipher (AES-256-GCM) and where its key is. Whoever has a copy of the database, and not the home's
keys, learns nothing from what waits in it, and cannot put one body in the place of another.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storekeep.config import PUSHED
from storekeep.errors import Refused
from storekeep.ingest.pseudonyms import home_key
from storekeep.store import Arrival, DeadLetter

LONGEST_ID = 200
"""The most letters of an id under which something is kept."""
_NONCE_BYTES = 12

Kept = TypeVar("Kept", bound=Arrival | DeadLetter)


def pushed(feed: str, mapping: str, body: bytes, key: str | None = None) -> Arrival:
    """A batch of a feed that somebody pushed: the same batch for the same mapping is known again.

    With a `key` of the sender's it is known by that.
    """
    topic = f"{feed}/{mapping}"
    known_by = key or hashlib.sha256(f"{topic}\n".encode() + body).hexdigest()
    return Arrival(PUSHED, known_by[:LONGEST_ID], topic, None, body)


class Bodies:
    """The bodies of what a tenant was sent, sealed by a key of the home (`keys/bodies.key`)."""

    def __init__(self, home: Path, tenant: str) -> None:
        self._cipher = AESGCM(home_key(home, "bodies.key", tenant))

    def seal(self, kept: Kept) -> Kept:
        """The same, its body sealed for the place where it is kept."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        secret = self._cipher.encrypt(nonce, kept.body, _place(kept))
        return replace(kept, body=nonce + secret)

    def open(self, kept: Kept) -> Kept:
        """The same, its body as it came; `Refused` when another home sealed it, or it was changed."""
        nonce, secret = kept.body[:_NONCE_BYTES], kept.body[_NONCE_BYTES:]
        try:
            return replace(kept, body=self._cipher.decrypt(nonce, secret, _place(kept)))
        # What is too short for a nonce was no more sealed by us than what fails the check.
        except (InvalidTag, ValueError):
            raise Refused(
                "what was sent was not sealed by this home: put keys/bodies.key back from a backup"
            ) from None


def _place(kept: Arrival | DeadLetter) -> bytes:
    """Where something is kept, by which its body is bound to it."""
    if isinstance(kept, Arrival):
        return f"delivery\n{kept.source}\n{kept.delivery_id}".encode()
    return f"message\n{kept.transport}\n{kept.partition}\n{kept.position}".encode()
