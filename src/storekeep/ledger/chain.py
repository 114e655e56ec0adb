"""The ledger: what was decided and what became of it, in a form that cannot be changed unseen.

Hides hashing, Merkle trees, the chain and signatures. Entries are canonical JSON; those recorded together
make a batch whose Merkle root (RFC 6962) stands in a chain, one a tenant, signed at every batch. `verify`
computes all of it again, from the store or from an export alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import chain, groupby, islice, pairwise, repeat, takewhile
from operator import itemgetter
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Generic, Self, TypeGuard, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from storekeep import canonical
from storekeep.decisions import stamp
from storekeep.errors import InvariantBroken, Permanent, Refused
from storekeep.ledger import merkle
from storekeep.store import ENTRIES, Page, Standing, Transaction, packed

EXPORT_FORMAT = "storekeep-ledger-1"
_SEALED = (
    *("batch", "batch_id", "chain", "entry_count", "leaves"),
    *("previous", "recorded_at", "root", "signature"),
)
_CLOSING = {"batches", "entries", "head"}
_RAW = pa.binary()
_ABOUT = '"decision_id":"(?P<id>[0-9a-f-]{36})"'
_PARTS_AHEAD = 6
_PARTS_AT_ONCE = 2
_STANDING_BACK = 10
_Item = TypeVar("_Item")


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
        # Whoever made both just now wrote the public half last.
        if path.exists():
            return Signer(_read_key(path))
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


def key_of(public_key: str) -> Ed25519PublicKey:
    """A public key from its hexadecimal digits; `ValueError` when it is none."""
    return Ed25519PublicKey.from_public_bytes(unhex(public_key))


def unhex(digits: str) -> bytes:
    """The bytes of hexadecimal digits in the one spelling that counts; `ValueError` for any other."""
    value = bytes.fromhex(digits)
    if value.hex() != digits:
        raise ValueError("not as it was written")
    return value


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
    return append_parts(tx, [lambda: entries], batch_id=batch_id, at=at, signing=signing)


def append_parts(
    tx: Transaction,
    parts: Sequence[Callable[[], pa.Table]],
    *,
    batch_id: str,
    at: datetime,
    signing: Signer,
    meanwhile: Callable[[int], None] = lambda _: None,
) -> int:
    """`append` of entries that are made part by part, while earlier ones are stored.

    `meanwhile` is what else is to be stored, given the batch's number: it goes first, so that nobody waits
    for the first parts. Where the entries of its decisions stand is for it to tell.
    """
    last, previous = tx.ledger_head()
    number, many, tree = last + 1, 0, merkle.Tree()
    with _Ahead((partial(_prepared, part) for part in parts), len(parts)) as made:
        meanwhile(number)
        for part in made:
            growing = made.beside(partial(tree.grow, part.leaves))
            tx.append_pages(number, many, part.pages)
            if part.later:
                own = {many + place: key for place, key in part.later.items()}
                tx.append_steps(number, own)
            many += len(part.leaves)
            growing.result()
    nodes = tree.levels()
    sealed: dict[str, Any] = {
        "batch": number,
        "batch_id": batch_id,
        "entry_count": many,
        "root": nodes[-1][0].hex(),
        "previous": previous,
        "recorded_at": stamp(at),
    }
    sealed["chain"] = chain_value(tx.tenant, sealed)
    sealed["signature"] = signing.sign(sealed["chain"])
    tx.append_seal(sealed, _nodes(nodes))
    return number


@dataclass(frozen=True)
class _Part:
    """A part of a batch: its pages, its leaves, and which entries are about decisions of earlier batches."""

    pages: Sequence[Page]
    leaves: list[bytes]
    later: Mapping[int, str]


def _prepared(part: Callable[[], pa.Table]) -> _Part:
    entries = part()
    texts = entries["entry"].combine_chunks()
    return _Part(packed(texts), merkle.leaves(texts), _later(entries))


def _leaves(entries: pa.Table) -> list[bytes]:
    return merkle.leaves(entries["entry"].combine_chunks())


def _nodes(tree: Sequence[Sequence[bytes]]) -> bytes:
    return b"".join(node for level in tree for node in level)


def _later(entries: pa.Table) -> dict[int, str]:
    """The places of entries about decisions that an earlier batch made, each with its decision."""
    about = pc.and_(entries["decision_id"].is_valid(), pc.not_equal(entries["kind"], "decision"))
    places = np.flatnonzero(about.to_numpy())
    ids = entries["decision_id"].take(pa.array(places)).to_pylist()
    return dict(zip(places.tolist(), ids, strict=True))


class _Ahead(Generic[_Item]):
    """What calls give, in their order, a few made ahead in threads while earlier ones are dealt with."""

    def __init__(self, calls: Iterable[Callable[[], _Item]], many: int = 1) -> None:
        self._calls = iter(calls)
        self._workers = ThreadPoolExecutor(min(many, _PARTS_AT_ONCE), initializer=_stand_back)
        self._coming = deque[Future[_Item]]()
        self._fill()

    def _fill(self) -> None:
        for call in islice(self._calls, _PARTS_AHEAD - len(self._coming)):
            self._coming.append(self._workers.submit(call))

    def beside(self, call: Callable[[], None]) -> Future[None]:
        """Have something else done by the same threads, once they are through with what they have begun."""
        return self._workers.submit(call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[_Item]:
        while self._coming:
            item = self._coming.popleft().result()
            self._fill()
            yield item


def _stand_back() -> None:
    """Let whoever deals with the database go first: it is waited for, and the parts made here are not yet."""
    # Elsewhere than on Linux it would be the whole process that stands back.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), _STANDING_BACK))


def chain_value(tenant: str, sealed: Mapping[str, Any]) -> str:
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
    """Compute the tenant's whole ledger again from the store: leaves, trees, chain, signatures."""
    outcome = Verified()
    check = _Check(tx.tenant, public_key, outcome)
    for sealed, held, parts in _batches(tx, _about):
        where, given, about = f"batch {sealed['batch']}", list[bytes](), list[_Told]()
        for entries, told in parts:
            places = range(len(given), len(given) + entries.num_rows)
            if entries["place"].to_pylist() != list(places):
                outcome.problems.append(Problem(where, "entries are missing or out of place"))
            given += _leaves(entries)
            about.append(told)
        for place in _misplaced(held.standing, np.concatenate([_NOTHING_TOLD, *about])):
            problem = Problem(f"{where}, entry {place}", "the index does not agree with the entry")
            outcome.problems.append(problem)
        if "root" not in sealed:
            outcome.problems.append(Problem(where, "it has entries and no seal"))
            continue
        kept = held.leaves(sealed["entry_count"])
        tree = merkle.levels(kept) if kept else []
        check.batch(sealed, kept, tree[-1][0].hex() if tree else None, given)
        if _nodes(tree) != held.tree:
            outcome.problems.append(Problem(where, "the tree above its leaves was changed"))
    for row in tx.ledger_astray():
        problem = Problem(f"batch {row['batch']}", f"its entry {row['place']} is not there")
        outcome.problems.append(problem)
    return outcome


@dataclass(frozen=True)
class _Kept:
    """What is kept of a batch beside its seal and its entries."""

    tree: bytes = b""
    standing: Standing | None = None

    def leaves(self, many: int) -> list[bytes]:
        """The first nodes of the tree, so many or as many as there are."""
        return [self.tree[at : at + 32] for at in range(0, min(32 * many, len(self.tree)), 32)]


_Told = np.ndarray[Any, np.dtype[np.void]]
_TOLD = np.dtype([("about", "?"), ("decision_id", "V16")])
_NOTHING_TOLD = np.zeros(0, _TOLD)


def _about(entries: pa.Table) -> _Told:
    """Whether each entry is about a decision, and about which."""
    texts = entries["entry"].combine_chunks()
    _, offsets, content = texts.buffers()
    ends = memoryview(offsets).cast("i")[texts.offset : texts.offset + len(texts) + 1]
    # In a text the name would have a backslash before its last quote; deeper in an entry it might stand.
    many = bytes(memoryview(content or b"")[ends[0] : ends[-1]]).count(b'"decision_id":')
    if many <= len(texts):
        found = pc.struct_field(pc.extract_regex(texts, _ABOUT), "id")
    else:
        found = canonical.members(texts, ["decision_id"])["decision_id"].combine_chunks()
    told = np.zeros(len(texts), _TOLD)
    told["about"] = found.is_valid().to_numpy(zero_copy_only=False)
    digits = pc.replace_substring(found.drop_null(), "-", "").to_pylist()
    told["decision_id"][told["about"]] = np.frombuffer(bytes.fromhex("".join(digits)), "V16")
    return told


def _misplaced(standing: Standing | None, told: _Told) -> list[int]:
    """The places of a batch of which the index says another decision than the entry does, or none."""
    about = np.flatnonzero(told["about"])
    if standing is None:
        return [int(place) for place in about]
    ids = told["decision_id"][about]
    if (
        np.array_equal(standing["place"], about)
        and standing["decision_id"].tobytes() == ids.tobytes()
    ):
        return []
    places = standing["place"].tolist()
    noted = dict(zip(places, map(bytes, standing["decision_id"]), strict=True))
    own = dict(zip(about.tolist(), map(bytes, ids), strict=True))
    wrong = {place for place, many in Counter(places).items() if many > 1}
    wrong |= {place for place in noted.keys() | own.keys() if noted.get(place) != own.get(place)}
    return sorted(wrong)


def _batches(
    tx: Transaction, read: Callable[[pa.Table], _Item]
) -> Iterator[tuple[dict[str, Any], _Kept, Iterator[tuple[pa.Table, _Item]]]]:
    """The seals of the chain, with what is kept beside them and the entries in pieces, few of them at a time.

    Each piece comes with what `read` makes of it, ahead of its turn. Entries of a batch that has no seal come
    with an empty one. Until the end nothing else is to be asked of the transaction.
    """
    seals = {sealed["batch"]: _stamped(sealed) for sealed in tx.ledger_batches()}
    left = deque(sorted(seals))
    following = partial(next, _pieces(tx, read), None)
    with _Ahead(repeat(following)) as pieces:
        found = takewhile(lambda piece: piece is not None, pieces)
        for number, own in groupby(found, key=itemgetter(0)):
            while left and left[0] < number:
                yield seals[left.popleft()], _Kept(), iter(())
            sealed = seals[left.popleft()] if left and left[0] == number else {"batch": number}
            first = next(own)
            yield sealed, first[1], (piece for _, _, piece in chain([first], own))
    for number in left:
        yield seals[number], _Kept(), iter(())


def _stamped(sealed: Mapping[str, Any]) -> dict[str, Any]:
    return {**sealed, "recorded_at": stamp(sealed["recorded_at"])}


def _pieces(
    tx: Transaction, read: Callable[[pa.Table], _Item]
) -> Iterator[tuple[int, _Kept, tuple[pa.Table, _Item]]]:
    """Pages cut where a batch ends, each with its batch's number, a batch's first with what is kept of it."""
    last = None
    for page in tx.ledger_pages():
        numbers = page["batch"].to_numpy()
        ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, end in pairwise([0, *ends]):
            number, kept = int(numbers[start]), _Kept()
            if number != last:
                kept = _Kept(tx.ledger_tree(number), tx.ledger_standing(number))
            piece = page.slice(start, end - start)
            yield number, kept, (piece, read(piece))
            last = number


class _Check:
    """The running state of a verification: the chain value so far."""

    def __init__(self, tenant: str, public_key: str, outcome: Verified) -> None:
        self._tenant = tenant
        self._outcome = outcome
        self._previous = ""
        self._number = 0
        self._key = key_of(public_key)

    def batch(
        self,
        sealed: Mapping[str, Any],
        kept: Sequence[bytes],
        root: str | None,
        given: Sequence[bytes],
    ) -> None:
        """Check one batch against its seal and against the chain before it.

        `kept` are the leaves that were kept and `root` what they lead to, `given` those that its entries
        give. The kept ones are proved by the root: an entry that does not give its leaf is the one changed.
        """
        where = f"batch {sealed['batch']}"
        many = len(given)
        expected = {
            "its number does not follow the one before": sealed["batch"] == self._number + 1,
            "it does not continue the chain": sealed["previous"] == self._previous,
            f"it holds {many} entries, its seal says {sealed['entry_count']}": (
                sealed["entry_count"] == many == len(kept)
            ),
            "its leaves do not give its root: one was changed, removed or moved": (
                root == sealed["root"]
            ),
            "its seal was changed": chain_value(self._tenant, sealed) == sealed["chain"],
            "its signature is not by this key": signed(self._key, sealed),
        }
        problems = [Problem(where, what) for what, holds in expected.items() if not holds]
        problems += [
            Problem(f"{where}, entry {place}", "the entry was changed")
            for place, (leaf, own) in enumerate(zip(kept, given, strict=False))
            if own != leaf
        ]
        self._outcome.problems.extend(problems)
        self._previous, self._number = sealed["chain"], sealed["batch"]
        self._outcome.batches += 1
        self._outcome.entries += many
        self._outcome.head = sealed["chain"]


def signed(key: Ed25519PublicKey, sealed: Mapping[str, Any]) -> bool:
    """Whether a seal's chain value was signed by the key."""
    try:
        key.verify(unhex(sealed["signature"]), sealed["chain"].encode())
    except (InvalidSignature, ValueError):
        return False
    return True


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
        for sealed, held, parts in _batches(tx, lambda _: None):
            if "root" not in sealed:
                continue
            entries = pa.concat_tables([ENTRIES.empty_table(), *(entries for entries, _ in parts)])
            seal = {**sealed, "leaves": [leaf.hex() for leaf in held.leaves(sealed["entry_count"])]}
            file.write(canonical.text({name: seal[name] for name in _SEALED}) + "\n")
            file.writelines(text + "\n" for text in entries["entry"].to_pylist())
            batches, count, chain = batches + 1, count + entries.num_rows, sealed["chain"]
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
        given = merkle.leaves(pa.array([_bare(line) for line in entries], _RAW))
        kept = _leaves_of(sealed["leaves"])
        check.batch(sealed, kept, merkle.root(kept).hex() if all(kept) else None, given)


def _leaves_of(digits: Sequence[str]) -> list[bytes]:
    """Leaves as an export writes them; empty where one is no leaf."""
    found = []
    for each in digits:
        try:
            found.append(unhex(each))
        except ValueError:
            found.append(b"")
    return found


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n")


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
