"""Orders that are recorded without a shop around them: as many as a test wants, under any action."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from storekeep import features, ledger, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.decisions import HOLDS, Action, Evidence, Proposed, decision_ids
from storekeep.ledger import Batch, Terms, Wake
from storekeep.pipeline import Pipeline
from storekeep.retail import STOCK_COUNT

AT = datetime(2026, 3, 2, 22, tzinfo=UTC)
DAY = date(2026, 3, 2)
LOCATION = "DC1"
PACK, COST = 6, 100
OPEN_BOOK = """
rulebook: replenish
owner: buying
agent: replenish
action: {action}
safe_default: Order nothing.
permit:
  - {{id: any-order, when: order_units > 0, reason: An order.}}
"""


def order(number: int, units: int = PACK, **own: Any) -> dict[str, Any]:
    """One line to propose: an item of its own, on a purchase order with nine others."""
    return {
        "sku": f"sku{number:05}",
        "location_id": LOCATION,
        "supplier_id": f"S{number // 10}",
        "order_group": f"S{number // 10}/{LOCATION}/{DAY}",
        "order_units": units,
        "pack_size_units": PACK,
        "unit_cost_minor": COST,
        "order_value_minor": units * COST,
        "currency": "USD",
        **own,
    }


def count_shelves(pipeline: Pipeline, skus: Sequence[str]) -> None:
    """The shelves of items are counted, and empty: from here on they have a stock position."""
    rows = [
        {
            "location_id": LOCATION,
            "sku": sku,
            "quantity_units": 0,
            "occurred_at": pipeline.now(),
            "known_at": pipeline.now(),
        }
        for sku in skus
    ]
    pipeline.publish(
        "StockCounted", "shelves", LOCATION, pa.Table.from_pylist(rows, STOCK_COUNT.arrow)
    )
    pipeline.move_stock()


def recorded(
    pipeline: Pipeline,
    orders: Sequence[Mapping[str, Any]],
    *,
    action: Action = PLACE_PURCHASE_ORDER,
    book: str = OPEN_BOOK,
) -> list[str]:
    """Propose orders, judge them by a rulebook, and record what comes of it; the decisions' ids."""
    rulebook = _loaded(book.format(action=action.name), action.name)
    proposed, evidence = _proposed(orders, action), _evidence(orders, pipeline.now())
    with pipeline.store.transaction(pipeline.tenant) as tx:
        tx.register("rulebook", "replenish", rulebook.version, book, pipeline.now(), "test")
        number, _ = tx.ledger_head()
        used = policy.USED.empty_table()
        batch = Batch(
            batch_id=decision_ids(pipeline.now(), pipeline.tenant, [f"{action.name}/{number}"])[0],
            at=pipeline.now(),
            location_id=LOCATION,
            evidence=evidence,
            proposed=proposed,
            judgement=policy.judge(rulebook, proposed, evidence, used),
            used=used,
            terms=Terms(timedelta(days=1), "Order nothing."),
            wake=Wake("replenish", "live", "test", pipeline.now(), late=False, heard=()),
        )
        ledger.record(tx, batch, pipeline.signing)
        pipeline._commit_orders(tx, batch)
    ids: list[str] = batch.ids.to_pylist()
    return ids


def statuses(pipeline: Pipeline, ids: Sequence[str]) -> dict[str, str]:
    """Where decisions stand."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return tx.lock_decisions(ids)


def steps(pipeline: Pipeline, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What is recorded of decisions."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return ledger.steps(tx, ids)


def stock(pipeline: Pipeline) -> dict[str, dict[str, int]]:
    """The stock positions by item, all events counted in."""
    pipeline.move_stock()
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return {row["sku"]: row for row in tx.stock(LOCATION).to_pylist()}


def publish(pipeline: Pipeline, text: str) -> None:
    """Put a rulebook in force."""
    rulebook = _loaded(text, PLACE_PURCHASE_ORDER.name)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        tx.register("rulebook", "replenish", rulebook.version, text, pipeline.now(), "test")
        tx.promote("rulebook", "replenish", rulebook.version, pipeline.now(), "test")


@functools.lru_cache(maxsize=8)
def _loaded(text: str, action: str) -> policy.Rulebook:
    named = replace(PLACE_PURCHASE_ORDER, name=action)
    return policy.load(text, action=named, evidence=features.SCHEMA)


def _proposed(orders: Sequence[Mapping[str, Any]], action: Action) -> Proposed:
    fields = [pa.field("subject", pa.string()), pa.field("priority", pa.float64())]
    fields += [column.remove_metadata() for column in action.parameters.arrow]
    rows = [{"subject": f"{each['sku']}@{LOCATION}", "priority": 0.0, **each} for each in orders]
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    arithmetic = pa.array([{"wanted": float(each["order_units"])} for each in orders])
    return Proposed(
        agent="replenish",
        version="test",
        action=action,
        proposals=table.append_column("arithmetic", arithmetic),
        holds=HOLDS.empty_table(),
    )


def _evidence(orders: Sequence[Mapping[str, Any]], known_by: datetime) -> Evidence:
    rows = [
        {
            "subject": f"{each['sku']}@{LOCATION}",
            "sku": each["sku"],
            "location_id": LOCATION,
            "day": DAY,
        }
        for each in orders
    ]
    return Evidence(pa.Table.from_pylist(rows), known_by, {}, 0)
