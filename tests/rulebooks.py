"""Orders of a small shop to be judged: proposals and evidence by hand, rulebooks as plain values."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storekeep import policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.decisions import HOLDS, Action, Evidence, Judgement, Proposed, Reversibility

EVIDENCE: Mapping[str, str] = {
    "subject": "VARCHAR",
    "supplier_id": "VARCHAR",
    "on_hand_units": "BIGINT",
    "demand": "DOUBLE",
    "usual_order_units": "DOUBLE",
    "unit_cost_minor": "BIGINT",
    "counted": "DATE",
    "contract_breached": "BOOLEAN",
    "evidence_age_hours": "DOUBLE",
}
_ARROW = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "DATE": pa.date32(),
    "BOOLEAN": pa.bool_(),
}
ORDER: Mapping[str, Any] = {
    "priority": 1.0,
    "sku": "tea",
    "location_id": "DC1",
    "supplier_id": "S1",
    "order_group": "g1",
    "order_units": 10,
    "pack_size_units": 1,
    "unit_cost_minor": 100,
    "order_value_minor": 1000,
    "currency": "USD",
}
KNOWN: Mapping[str, Any] = {
    "supplier_id": "S1",
    "on_hand_units": 5,
    "demand": 2.0,
    "usual_order_units": 10.0,
    "unit_cost_minor": 100,
    "contract_breached": False,
    "evidence_age_hours": 1.0,
}
PERMIT: Mapping[str, Any] = {"id": "ordinary", "when": "order_units > 0", "reason": "Ordinary."}


def book(**keys: Any) -> dict[str, Any]:
    """A rulebook as plain values; it permits every order unless told otherwise."""
    return {
        "rulebook": "replenish",
        "owner": "buying",
        "agent": "replenish",
        "action": "PlacePurchaseOrder",
        "safe_default": "Order nothing.",
        "permit": [PERMIT],
        **keys,
    }


def rule(id_: str, when: str | bool, **more: Any) -> dict[str, Any]:
    """One rule."""
    return {"id": id_, "when": when, "reason": f"{id_} applies.", **more}


def limit(**more: Any) -> dict[str, Any]:
    """A budget for each supplier."""
    keys = {"id": "budget", "sum": "order_value_minor", "by": ["supplier_id"], "at_most": 2500}
    return {**keys, "per": "batch", "then": "forbid", "reason": "Spent.", **more}


def loaded(values: Mapping[str, Any], action: Action = PLACE_PURCHASE_ORDER) -> policy.Rulebook:
    """The rulebook, compiled; JSON is YAML."""
    return _loaded(json.dumps(values), action.name, action.reversibility)


@functools.lru_cache(maxsize=8)
def _loaded(text: str, name: str, reversibility: Reversibility) -> policy.Rulebook:
    action = replace(PLACE_PURCHASE_ORDER, name=name, reversibility=reversibility)
    return policy.load(text, action=action, evidence=EVIDENCE)


def proposed(
    orders: Sequence[Mapping[str, Any]], action: Action = PLACE_PURCHASE_ORDER
) -> Proposed:
    """Proposals with some values of their own; the value of a line follows from units and price."""
    rows = []
    for place, own in enumerate(orders):
        row = {"subject": f"s{place:03}", **ORDER, **own}
        if "order_value_minor" not in own and None not in (
            row["order_units"],
            row["unit_cost_minor"],
        ):
            row["order_value_minor"] = row["order_units"] * row["unit_cost_minor"]
        rows.append(row)
    fields = [pa.field("subject", pa.string()), pa.field("priority", pa.float64())]
    fields += [one.with_nullable(True) for one in action.parameters.arrow]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    return Proposed("replenish", "1", action, table, HOLDS.empty_table())


def evidence(facts: Sequence[Mapping[str, Any]]) -> Evidence:
    """Evidence of as many subjects, with some values of their own."""
    rows = [{"subject": f"s{place:03}", **KNOWN, **own} for place, own in enumerate(facts)]
    schema = pa.schema([(name, _ARROW[kind]) for name, kind in EVIDENCE.items()])
    return Evidence(
        pa.Table.from_pylist(rows, schema=schema), datetime(2026, 1, 1, tzinfo=UTC), {}, 0
    )


def judged(
    values: Mapping[str, Any],
    orders: Sequence[Mapping[str, Any]],
    facts: Sequence[Mapping[str, Any]] | None = None,
    **more: Any,
) -> Judgement:
    """The judgement of some orders under a rulebook."""
    own = facts if facts is not None else [{}] * len(orders)
    return policy.judge(loaded(values), proposed(orders), evidence(own), **more)


def verdicts(judgement: Judgement) -> list[str]:
    """The verdict of each row."""
    return [str(one) for one in judgement.verdicts["verdict"].to_pylist()]


def spoke(judgement: Judgement) -> list[dict[str, str]]:
    """For each row, the rules that spoke and their effects."""
    return [
        {one["rule"]: one["effect"] for one in rules}
        for rules in judgement.verdicts["rules"].to_pylist()
    ]


def reasons(judgement: Judgement) -> list[list[str]]:
    """For each row, the reasons that were given."""
    return [[one["reason"] for one in rules] for rules in judgement.verdicts["rules"].to_pylist()]


def used(*rows: tuple[str, str, int]) -> pa.Table:
    """What recent decisions used: limit, key, amount."""
    values = [dict(zip(policy.USED.names, row, strict=True)) for row in rows]
    return pa.Table.from_pylist(values, schema=policy.USED)
