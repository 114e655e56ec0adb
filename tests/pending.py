"""Many decisions to carry out, made without the days that would lead to them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa

from storekeep import ledger, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.decisions import (
    HOLDS,
    VERDICTS,
    Evidence,
    Judgement,
    Proposed,
    decision_ids,
)
from storekeep.ledger import Batch, Terms, Wake
from storekeep.pipeline import Pipeline


def pend(pipeline: Pipeline, many: int, location_id: str = "DC1") -> list[str]:
    """Record a run that allows so many lines, five to an order; their ids."""
    at = pipeline.now()
    subjects = [f"sku {number:04}@{location_id}" for number in range(many)]
    rows = [
        {
            "subject": subject,
            "priority": 1.0,
            "sku": subject.partition("@")[0],
            "location_id": location_id,
            "supplier_id": f"supplier {number // 5}",
            "order_group": f"supplier {number // 5}/{location_id}/{at.date()}",
            "order_units": 6,
            "pack_size_units": 6,
            "unit_cost_minor": 100,
            "order_value_minor": 600,
            "currency": "USD",
            "arithmetic": {"order_units": 6},
        }
        for number, subject in enumerate(subjects)
    ]
    lines = pa.Table.from_pylist(rows)
    rule = {"rule": "any", "effect": "permit", "reason": "Any."}
    verdicts = [
        {"subject": subject, "verdict": "allow", "role": None, "rules": [rule]}
        for subject in subjects
    ]
    day = pa.array([at.date()] * many, pa.date32())
    batch = Batch(
        batch_id=_run(pipeline, at, location_id),
        at=at,
        location_id=location_id,
        evidence=Evidence(
            lines.select(["subject", "sku", "location_id"]).append_column("day", day), at, {}, 0
        ),
        proposed=Proposed("replenish", "1", PLACE_PURCHASE_ORDER, lines, HOLDS.empty_table()),
        judgement=Judgement(
            pa.Table.from_pylist(verdicts, schema=VERDICTS),
            lines,
            "replenish",
            "1",
            policy.USES.empty_table(),
        ),
        used=policy.USED.empty_table(),
        terms=Terms(timedelta(days=1), "Nothing."),
        wake=Wake("replenish", "live", "test", at, late=False, heard=()),
    )
    with pipeline.store.transaction(pipeline.tenant) as tx:
        ledger.record(tx, batch, pipeline.signing)
    ids: list[str] = batch.ids.to_pylist()
    return ids


def _run(pipeline: Pipeline, at: datetime, location_id: str) -> str:
    return decision_ids(at, f"{pipeline.tenant}/{location_id}", ["pending"])[0]
