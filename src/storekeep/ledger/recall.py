"""What the ledger holds, made into values again: proposals, and where every decision stands.

Hides how entries are read back. What is made here from the ledger alone is what it was when it was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from storekeep.decisions import HOLDS, Action, Proposed, first_status, step
from storekeep.ledger.chain import leaf, root
from storekeep.ledger.explain import header, steps
from storekeep.store import Transaction

_TEXT = pa.string()
DECISIONS = pa.schema(
    [
        ("decision_id", _TEXT),
        ("batch_id", _TEXT),
        ("decided_at", pa.timestamp("us", tz="UTC")),
        *((name, _TEXT) for name in ("agent", "agent_version", "rulebook_version", "action")),
        *((name, _TEXT) for name in ("subject", "location_id", "order_group", "verdict")),
        ("money_minor", pa.int64()),
        ("currency", _TEXT),
        ("status", _TEXT),
    ]
)


def proposed(tx: Transaction, decision_ids: Sequence[str], action: Action) -> Proposed:
    """What recorded decisions are to do, as proposals again, in the order of the ids."""
    recorded = [history[0] for history in steps(tx, decision_ids).values()]
    run = header(tx, recorded[0]["batch"])
    many = len(recorded)
    lines = pa.Table.from_pylist(
        [each["parameters"] for each in recorded],
        schema=pa.schema([column.remove_metadata() for column in action.parameters.arrow]),
    )
    subjects = pa.array([each["subject"] for each in recorded], pa.string())
    table = lines.add_column(0, "priority", pa.array([0.0] * many))
    table = table.add_column(0, "subject", subjects)
    return Proposed(
        agent=run["agent"],
        version=run["agent_version"],
        action=action,
        proposals=table.append_column(
            "arithmetic", pa.array([each["arithmetic"] for each in recorded])
        ),
        holds=HOLDS.empty_table(),
    )


def folded(tx: Transaction) -> pa.Table:
    """The state of every decision, folded from the whole ledger: what runs made it and later entries."""
    rows: dict[str, dict[str, Any]] = {}
    for sealed in tx.ledger_batches():
        run: dict[str, Any] = {}
        for entry in tx.ledger_entries(sealed["batch"], sealed["batch"]).to_pylist():
            key, kind = entry["decision_id"], entry["kind"]
            if kind == "batch":
                run = json.loads(entry["entry"])
            elif kind == "decision":
                rows[key] = _folded(json.loads(entry["entry"]), run)
            elif key is not None:
                rows[key]["status"] = str(step(rows[key]["status"], entry["step"]))
    return pa.Table.from_pylist(list(rows.values()), schema=DECISIONS)


def _folded(body: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as its run recorded it, before anything became of it."""
    shared = ("batch_id", "agent", "agent_version", "rulebook_version", "action", "location_id")
    return {
        **{name: run[name] for name in shared},
        "decision_id": body["decision_id"],
        "decided_at": datetime.fromisoformat(run["decided_at"]),
        "subject": body["subject"],
        "order_group": (body.get("parameters") or {}).get("order_group"),
        "verdict": body["step"],
        "money_minor": body.get("money_minor"),
        "currency": body.get("currency"),
        "status": str(first_status(body["step"])),
    }


def digest(entries: pa.Table) -> str:
    """Merkle root of entries in their order: equal entries, equal root."""
    return root([leaf(text) for text in entries["entry"].to_pylist()]).hex()
