"""The ledger: what was decided and what became of it, in a form that cannot be changed unseen.

Hides hashing, Merkle trees, the chain and signatures. Entries are canonical JSON; those recorded together
make a batch whose Merkle root (RFC 6962) stands in a chain, one a tenant, signed at every batch. `verify`
computes all of it again, from the store or from an export alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from storekeep import canonical
from storekeep.decisions import stamp
from storekeep.errors import InvariantBroken, Permanent, Refused
from storekeep.store import Transaction

EXPORT_FORMAT = "storekeep-ledger-1"
_SEALED = (
    *("batch", "batch_id", "chain", "entry_count", "leaves"),
    *("previous", "recorded_at", "root", "signature"),
)
_CLOSING = {"batches", "entries", "head"}
_BLOCK = 200


# Merkle trees -----------------------------------------------------------------------------------------


def leaf(entry: str) -> bytes:
    """Hash of a leaf: SHA-256 of a zero byte and the entry (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + entry.encode()).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Merkle tree hash of at least one leaf (RFC 6962, section 2.1).

    Pairing level by level and carrying an odd last node up unchanged gives the same tree as splitting at
    the largest power of two.
    """
    if not leaves:
        raise InvariantBroken("a tree has at least one leaf")
    level = list(leaves)
    sha256 = hashlib.sha256
    while len(level) > 1:
        paired = [
            sha256(b"\x01" + level[place] + level[place + 1]).digest()
            for place in range(0, len(level) - 1, 2)
        ]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def proof(leaves: Sequence[bytes], place: int) -> list[tuple[str, str]]:
    """The siblings from a leaf up to the root, each with its side: that the entry is in the batch."""
    level, path = list(leaves), []
    while len(level) > 1:
        sibling = place ^ 1
        if sibling < len(level):
            path.append(("left" if sibling < place else "right", level[sibling].hex()))
        pairs = range(0, len(level) - 1, 2)
        odd = [level[-1]] if len(level) % 2 else []
        level = [hashlib.sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in pairs] + odd
        place //= 2
    return path


def climb(entry: str, path: Iterable[tuple[str, str]]) -> str:
    """The root that an entry and its proof lead to, in hexadecimal."""
    node = leaf(entry)
    for side, sibling in path:
        pair = bytes.fromhex(sibling) + node if side == "left" else node + bytes.fromhex(sibling)
        node = hashlib.sha256(b"\x01" + pair).digest()
    return node.hex()


# Keys -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    """The home's signing key."""

    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        """The public key, 32 bytes in hexadecimal."""
        raw = self._key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return raw.hex()

    def sign(self, text: str) -> str:
        """Ed25519 signature of a text, in hexadecimal."""
        return self._key.sign(text.encode()).hex()


def signer(home: Path) -> Signer:
    """The signing key of a home, made at first use and kept with mode 600 in `keys/ledger.pem`.

    Raises `Refused` when it is gone but its public half is not: a new one would end the chain.
    """
    path = home / "keys" / "ledger.pem"
    try:
        return Signer(_read_key(path))
    except FileNotFoundError:
        pass
    if path.with_suffix(".pub").exists():
        raise Refused(
            f"{path} is gone, and the ledger is signed with it; put it back from a backup"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # Written whole under a name of its own (mode 600), then linked: of several processes one makes the key.
    with NamedTemporaryFile(dir=path.parent, prefix="ledger.", suffix=".pem") as draft:
        draft.write(pem)
        draft.flush()
        os.fsync(draft.fileno())
        try:
            os.link(draft.name, path)
        except FileExistsError:
            key = _read_key(path)
    (path.parent / "ledger.pub").write_text(Signer(key).public + "\n")
    return Signer(key)


def _read_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Refused(f"{path} does not hold an Ed25519 key; put the home's own back from a backup")
    return key


# Recording --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One thing to record: of which kind, about which decision, which step of its life it is."""

    kind: str
    body: Mapping[str, Any]
    decision_id: str | None = None
    step: str | None = None

    @property
    def text(self) -> str:
        """The entry as canonical JSON."""
        return canonical.text(
            {**self.body, "kind": self.kind, "decision_id": self.decision_id, "step": self.step}
        )


def rows(entries: Sequence[Entry]) -> pa.Table:
    """Entries as the table that `append` takes: `kind`, `decision_id`, `step`, `entry`."""
    return pa.table(
        {
            "kind": pa.array([entry.kind for entry in entries], pa.string()),
            "decision_id": pa.array([entry.decision_id for entry in entries], pa.string()),
            "step": pa.array([entry.step for entry in entries], pa.string()),
            "entry": pa.array([entry.text for entry in entries], pa.string()),
        }
    )


def append(
    tx: Transaction, entries: pa.Table, *, batch_id: str, at: datetime, signing: Signer
) -> int:
    """Append entries as one sealed batch of the tenant's chain; the batch's number.

    `entries`: `kind`, `decision_id`, `step`, `entry` (canonical JSON), in the order in which they are to
    stand. Nobody else appends to the chain until the transaction ends.
    """
    last, previous = tx.ledger_head()
    number = last + 1
    leaves = [leaf(text) for text in entries["entry"].to_pylist()]
    sealed: dict[str, Any] = {
        "batch": number,
        "batch_id": batch_id,
        "entry_count": entries.num_rows,
        "root": root(leaves).hex(),
        "previous": previous,
        "recorded_at": stamp(at),
    }
    sealed["chain"] = _chain(tx.tenant, sealed)
    sealed["signature"] = signing.sign(sealed["chain"])
    leafed = entries.append_column("leaf", pa.array([each.hex() for each in leaves], pa.string()))
    places = leafed.add_column(0, "place", pa.array(range(entries.num_rows), pa.int64()))
    numbered = places.add_column(0, "batch", pa.array([number] * entries.num_rows, pa.int64()))
    tx.append_ledger(sealed, numbered)
    return number


def _chain(tenant: str, sealed: Mapping[str, Any]) -> str:
    """The chain value of a batch: a digest of everything about it, the previous chain value included."""
    bound = ("batch", "batch_id", "entry_count", "root", "previous", "recorded_at")
    return canonical.digest({"tenant": tenant, **{name: sealed[name] for name in bound}})


# Verifying --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Where the ledger does not hold, and what is wrong there."""

    where: str
    what: str


@dataclass
class Verified:
    """What a verification went through and what it found."""

    batches: int = 0
    entries: int = 0
    head: str = ""
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


def verify(tx: Transaction, public_key: str) -> Verified:
    """Compute the tenant's whole ledger again from the store: leaves, roots, chain, signatures."""
    outcome = Verified()
    check = _Check(tx.tenant, public_key, outcome)
    for block, entries in _blocks(tx):
        _check_columns(entries, outcome)
        for sealed in block:
            mine = entries.filter(pc.equal(entries["batch"], sealed["batch"]))
            if mine["place"].to_pylist() != list(range(mine.num_rows)):
                problem = Problem(f"batch {sealed['batch']}", "entries are missing or out of place")
                outcome.problems.append(problem)
            texts = [text.encode() for text in mine["entry"].to_pylist()]
            check.batch(sealed, mine["leaf"].to_pylist(), texts)
    return outcome


def _blocks(tx: Transaction) -> Iterator[tuple[list[dict[str, Any]], pa.Table]]:
    """The seals of the chain with their entries, a bounded number at a time."""
    batches = [
        {**sealed, "recorded_at": stamp(sealed["recorded_at"])} for sealed in tx.ledger_batches()
    ]
    for start in range(0, len(batches), _BLOCK):
        block = batches[start : start + _BLOCK]
        yield block, tx.ledger_entries(block[0]["batch"], block[-1]["batch"])


def _check_columns(entries: pa.Table, outcome: Verified) -> None:
    """The columns that entries are found by must say what the entries themselves say."""
    names = ("batch", "place", "kind", "decision_id", "step", "entry")
    for batch, place, kind, decision_id, step, entry in zip(
        *(entries[name].to_pylist() for name in names), strict=True
    ):
        try:
            body = json.loads(entry)
            same = (body["kind"], body["decision_id"], body["step"]) == (kind, decision_id, step)
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        if not same:
            outcome.problems.append(
                Problem(f"batch {batch}, entry {place}", "the index does not agree with the entry")
            )


class _Check:
    """The running state of a verification: the chain value so far."""

    def __init__(self, tenant: str, public_key: str, outcome: Verified) -> None:
        self._tenant = tenant
        self._outcome = outcome
        self._previous = ""
        self._number = 0
        self._key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))

    def batch(
        self, sealed: Mapping[str, Any], leaves: Sequence[str], entries: Sequence[bytes]
    ) -> None:
        """Check one batch against its seal and against the chain before it.

        The leaves that were kept are proved by the root; so an entry that does not give its leaf is the one
        that was changed.
        """
        where = f"batch {sealed['batch']}"
        expected = {
            "its number does not follow the one before": sealed["batch"] == self._number + 1,
            "it does not continue the chain": sealed["previous"] == self._previous,
            f"it holds {len(entries)} entries, its seal says {sealed['entry_count']}": (
                sealed["entry_count"] == len(entries) == len(leaves)
            ),
            "its leaves do not give its root: one was changed, removed or moved": (
                _root_of(leaves) == sealed["root"]
            ),
            "its seal was changed": _chain(self._tenant, sealed) == sealed["chain"],
            "its signature is not by this key": self._signed(sealed["chain"], sealed["signature"]),
        }
        problems = [Problem(where, what) for what, holds in expected.items() if not holds]
        problems += [
            Problem(f"{where}, entry {place}", "the entry was changed")
            for place, (kept, entry) in enumerate(zip(leaves, entries, strict=False))
            if hashlib.sha256(b"\x00" + entry).hexdigest() != kept
        ]
        self._outcome.problems.extend(problems)
        self._previous, self._number = sealed["chain"], sealed["batch"]
        self._outcome.batches += 1
        self._outcome.entries += len(entries)
        self._outcome.head = sealed["chain"]

    def _signed(self, chain: str, signature: str) -> bool:
        try:
            written = bytes.fromhex(signature)
            self._key.verify(written, chain.encode())
        except (InvalidSignature, ValueError):
            return False
        # The same bytes in capitals or with spaces would be a change that nobody sees.
        return written.hex() == signature


def _root_of(leaves: Sequence[str]) -> str | None:
    """The root of kept leaves, or None when they are no leaves."""
    try:
        return root([bytes.fromhex(each) for each in leaves]).hex() if leaves else None
    except (ValueError, TypeError):
        return None


# Export -----------------------------------------------------------------------------------------------


def export(tx: Transaction, path: Path, public_key: str) -> int:
    """Write the tenant's whole ledger to a file that can be verified without the store.

    One canonical JSON text a line: what the file is, then for each batch its seal with the leaves, and its
    entries, at last how much there was. The file appears whole or not at all. Returns the number of entries.
    """
    draft = path.with_name(path.name + ".part")
    try:
        count = _write(tx, draft, public_key)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Permanent(f"the export cannot be written to {path}: {error.strerror}") from error
    return count


def _write(tx: Transaction, path: Path, public_key: str) -> int:
    batches, count, chain = 0, 0, ""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        head = {"format": EXPORT_FORMAT, "public_key": public_key, "tenant": tx.tenant}
        file.write(canonical.text(head) + "\n")
        for block, entries in _blocks(tx):
            texts, leaves = iter(entries["entry"].to_pylist()), iter(entries["leaf"].to_pylist())
            for sealed in block:
                many = sealed["entry_count"]
                seal = {**sealed, "leaves": list(islice(leaves, many))}
                file.write(canonical.text({name: seal[name] for name in _SEALED}) + "\n")
                file.writelines(text + "\n" for text in islice(texts, many))
                batches, count, chain = batches + 1, count + many, sealed["chain"]
        closing = {"batches": batches, "entries": count, "head": chain}
        file.write(canonical.text(closing) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return count


def verify_export(path: Path, public_key: str | None = None) -> Verified:
    """Verify an export with nothing but the file, and the public key if one has it from elsewhere.

    Without `public_key` the key in the file is used: that proves the file agrees with itself, not who
    made it. Raises `Refused` when the file is no export at all.
    """
    outcome = Verified()
    with path.open("rb") as file:
        lines = enumerate(file, 1)
        head = _value(lines, outcome)
        if head is None or head.get("format") != EXPORT_FORMAT:
            raise Refused(f"{path} is not a ledger export: its first line does not say so")
        if set(head) != {"format", "public_key", "tenant"}:
            outcome.problems.append(Problem("line 1", "it has other keys than an export has"))
            return outcome
        if public_key is not None and head["public_key"] != public_key:
            outcome.problems.append(Problem("line 1", "the file names another public key"))
        try:
            check = _Check(str(head["tenant"]), public_key or str(head["public_key"]), outcome)
        except ValueError:
            outcome.problems.append(Problem("line 1", "its public key is not a key"))
            return outcome
        _check_lines(lines, check, outcome)
    return outcome


def _check_lines(lines: Iterator[tuple[int, bytes]], check: _Check, outcome: Verified) -> None:
    while True:
        sealed = _value(lines, outcome)
        if sealed is None:
            problem = Problem(f"after batch {outcome.batches}", "the rest of the file is missing")
            outcome.problems.append(problem)
            return
        if set(sealed) == _CLOSING:
            _check_closing(sealed, lines, outcome)
            return
        if not _is_seal(sealed):
            where = f"after batch {outcome.batches}"
            outcome.problems.append(Problem(where, "what should be a batch's seal is none"))
            return
        entries = [line for _, line in islice(lines, sealed["entry_count"])]
        # An entry's own line break is the only byte of it that no leaf covers.
        cut = sum(1 for line in entries if not line.endswith(b"\n"))
        if cut:
            outcome.problems.append(Problem(f"batch {sealed['batch']}", "its last line is cut off"))
        check.batch(sealed, sealed["leaves"], [line.removesuffix(b"\n") for line in entries])


def _check_closing(
    closing: Mapping[str, Any], lines: Iterator[tuple[int, bytes]], outcome: Verified
) -> None:
    """A file that was cut at the end of a batch holds in itself: the last line says what there was."""
    held = {"batches": outcome.batches, "entries": outcome.entries, "head": outcome.head}
    if canonical.text(closing) != canonical.text(held):
        said = f"it says {closing['entries']} entries in {closing['batches']} batches; "
        said += f"the file holds {outcome.entries} in {outcome.batches}"
        outcome.problems.append(Problem("the last line", said))
    if (more := next(lines, None)) is not None:
        outcome.problems.append(Problem(f"line {more[0]}", "it stands after the last line"))


def _is_seal(value: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(value, dict) or set(value) != set(_SEALED):
        return False
    numbers = ("batch", "entry_count")
    texts = (name for name in _SEALED if name not in {*numbers, "leaves"})
    return (
        all(type(value[name]) is int and value[name] > 0 for name in numbers)
        and all(isinstance(value[name], str) for name in texts)
        and isinstance(value["leaves"], list)
        and all(isinstance(each, str) for each in value["leaves"])
    )


def _value(lines: Iterator[tuple[int, bytes]], outcome: Verified) -> dict[str, Any] | None:
    """The object of the next line, None at the end; what is not canonical JSON is a problem."""
    number, line = next(lines, (0, b""))
    if not line:
        return None
    try:
        value = json.loads(line)
        same = isinstance(value, dict) and line == (canonical.text(value) + "\n").encode()
    except (ValueError, TypeError, RecursionError, InvariantBroken):
        value, same = None, False
    if not same:
        outcome.problems.append(Problem(f"line {number}", "it is not the text that was exported"))
    return value if isinstance(value, dict) else {}
