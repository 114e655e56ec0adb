"""One decision proved to somebody who has nothing but a file: its entries, their way to a root, signed seals.

Hides where siblings are kept and what a proof is bound to. A proof shows that these entries stand in the
ledger, and where. It cannot show that nothing was recorded of the decision afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storekeep import canonical
from storekeep.decisions import stamp
from storekeep.errors import InvariantBroken, Refused
from storekeep.ledger import merkle
from storekeep.ledger.chain import Problem, Verified, chain_value, key_of, signed, unhex
from storekeep.ledger.explain import steps, way
from storekeep.store import Transaction

PROOF_FORMAT = "storekeep-proof-1"
_TOP = {"format", "tenant", "public_key", "decision_id", "entries"}
_ENTRY = {"entry", "leaf", "path", "place", "seal"}
_SEAL = {"batch", "batch_id", "chain", "entry_count"} | {
    *("previous", "recorded_at", "root", "signature")
}


def proved(tx: Transaction, decision_id: str, public_key: str) -> dict[str, Any]:
    """A decision's entries, the one of its run first, each with all that it takes to check it elsewhere.

    Raises `Refused` when the ledger has no such decision.
    """
    history = steps(tx, [decision_id])[decision_id]
    run = (history[0]["batch"], 0)
    standing = [run, *((each["batch"], each["place"]) for each in history)]
    return {
        "format": PROOF_FORMAT,
        "tenant": tx.tenant,
        "public_key": public_key,
        "decision_id": decision_id,
        "entries": [_proved(tx, batch, place) for batch, place in standing],
    }


def _proved(tx: Transaction, batch: int, place: int) -> dict[str, Any]:
    entry, sealed = tx.ledger_entry(batch, place), tx.ledger_batches(batch, batch)[0]
    return {
        "entry": entry,
        "leaf": merkle.leaf(entry).hex(),
        "path": way(tx, sealed, place),
        "place": place,
        "seal": {**sealed, "recorded_at": stamp(sealed["recorded_at"])},
    }


def written(proof: Mapping[str, Any]) -> str:
    """The proof as it is written to a file: canonical JSON and a line break."""
    return canonical.text(proof) + "\n"


def verify_proof(path: Path, public_key: str | None = None) -> Verified:
    """Check a proof with nothing but the file, and the public key if one has it from elsewhere.

    Raises `Refused` when the file is no proof at all.
    """
    text, outcome = path.read_bytes(), Verified()
    try:
        proof = json.loads(text)
        same = written(proof).encode() == text
    except (ValueError, TypeError, RecursionError, InvariantBroken):
        proof, same = None, False
    if not isinstance(proof, dict) or proof.get("format") != PROOF_FORMAT:
        raise Refused(f"{path} is not the proof of a decision: it does not say so")
    if not same or set(proof) != _TOP or not _is_proof(proof):
        outcome.problems.append(Problem("the file", "it is not the text that was written"))
    elif public_key is not None and proof["public_key"] != public_key:
        outcome.problems.append(Problem("the file", "it names another public key"))
    else:
        _check(proof, outcome)
    return outcome


def _is_proof(proof: Mapping[str, Any]) -> bool:
    """Whether everything in it has the kind that it should have."""
    try:
        key_of(proof["public_key"])
        return (
            all(isinstance(proof[name], str) for name in _TOP - {"entries"})
            and len(proof["entries"]) > 1
            and all(_is_proved(each) for each in proof["entries"])
        )
    except (ValueError, TypeError, RecursionError):
        return False


def _is_proved(value: Any) -> bool:
    if set(value) != _ENTRY or set(value["seal"]) != _SEAL:
        return False
    seal = value["seal"]
    numbers = (value["place"], seal["batch"], seal["entry_count"])
    return (
        all(type(number) is int for number in numbers)
        and all(isinstance(seal[name], str) for name in _SEAL - {"batch", "entry_count"})
        and 0 <= value["place"] < seal["entry_count"]
        and all(
            side in ("left", "right") and len(unhex(node)) == 32 for side, node in value["path"]
        )
        and isinstance(json.loads(value["entry"]), dict)
    )


def _check(proof: Mapping[str, Any], outcome: Verified) -> None:
    key = key_of(proof["public_key"])
    run = json.loads(proof["entries"][0]["entry"])
    for number, each in enumerate(proof["entries"]):
        seal, entry = each["seal"], json.loads(each["entry"])
        told = (
            (entry.get("kind"), entry.get("batch_id")) if number == 0 else entry.get("decision_id")
        )
        own = ("batch", seal["batch_id"]) if number == 0 else proof["decision_id"]
        sides = [side for side, _ in merkle.siblings(seal["entry_count"], each["place"])]
        expected = {
            "it is about something else": told == own,
            "its leaf is another": merkle.leaf(each["entry"]).hex() == each["leaf"],
            "its place is another": [side for side, _ in each["path"]] == sides,
            "it does not lead to its root": (
                merkle.climb(each["entry"], each["path"]) == seal["root"]
            ),
            "its seal was changed": chain_value(proof["tenant"], seal) == seal["chain"],
            "its seal is not signed by this key": signed(key, seal),
        }
        outcome.problems += [
            Problem(f"entry {number}", what) for what, holds in expected.items() if not holds
        ]
        outcome.batches, outcome.entries = outcome.batches + 1, outcome.entries + 1
        outcome.head = seal["chain"]
    first = json.loads(proof["entries"][1]["entry"])
    if first.get("batch_id") != run.get("batch_id"):
        outcome.problems.append(Problem("entry 1", "it is of another run"))
