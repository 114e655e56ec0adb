"""What one would judge orders with instead: Cedar, OPA's Rego and a bare query, by the same twenty rules.

Hides how each of them is asked. All three are given a table with the columns of an order and of what is known
of its item, and say the verdict on each row in Storekeep's words.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storekeep.decisions import Decided
from storekeep.policy import Rulebook

RULES = Path(__file__).parent / "rules"
_WHO = {"principal": 'Agent::"replenish"', "action": 'Action::"order"', "resource": 'Item::"any"'}


def whole(orders: pa.Table) -> pa.Table:
    """The columns that all of them can be given: texts and whole numbers."""
    kinds = (pa.string(), pa.int64())
    return orders.select([each.name for each in orders.schema if each.type in kinds])


def cedar(orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cedar's word on each order; `ImportError` where `cedarpy` is not installed."""
    cedarpy = importlib.import_module("cedarpy")
    text = (RULES / "orders.cedar").read_text(encoding="utf-8")
    effects = [id_.partition(" ")[0] for id_ in re.findall(r'^@id\("(.+?)"\)', text, re.MULTILINE)]
    effect = {f"policy{place}": each for place, each in enumerate(effects)}
    answers = cedarpy.is_authorized_batch(
        [{**_WHO, "context": order} for order in orders], cedarpy.PolicySet.from_str(text), []
    )
    return [_verdict({effect[id_] for id_ in answer.diagnostics.reasons}) for answer in answers]


def _verdict(spoke: set[str]) -> Decided:
    """Cedar tells which policies made its decision: those that forbid, or else all that permit."""
    if "forbid" in spoke:
        return Decided.DENY
    if "escalate" in spoke:
        return Decided.ESCALATE
    if "permit" not in spoke:
        return Decided.DENY
    return Decided.CLIP if "clip" in spoke else Decided.ALLOW


def rego(orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rego's word on each order; `ImportError` where `regopy` is not installed."""
    regopy = importlib.import_module("regopy")
    read = regopy.Interpreter()
    read.add_module("orders", (RULES / "orders.rego").read_text(encoding="utf-8"))
    # Compiled once, it answers eight times as fast as the module does.
    compiled = read.build("said = data.orders.verdict", ["orders/verdict"])
    asked, out = regopy.Interpreter(), []
    for order in orders:
        asked.set_input(order)
        # What is bound lives no longer than the answer.
        answer = asked.query_bundle(compiled)
        out.append(str(answer.binding("said").value))
    return out


def bare_query(rulebook: Rulebook, orders: pa.Table) -> pa.ChunkedArray:
    """The verdicts by one statement that gives no reasons and lowers nothing, as one would write it."""
    content = rulebook.content

    def any_of(rules: Sequence[Any]) -> str:
        return " OR ".join(f"({rule.when})" for rule in rules) or "false"

    sql = (
        f"SELECT CASE WHEN {any_of(content.forbid)} THEN 'deny'"
        f" WHEN {any_of(content.escalate)} THEN 'escalate'"
        f" WHEN NOT ({any_of(content.permit)}) THEN 'deny'"
        f" WHEN {any_of(content.clip)} THEN 'clip' ELSE 'allow' END AS verdict FROM orders"
    )
    with duckdb.connect() as connection:
        connection.register("orders", orders)
        return connection.execute(sql).to_arrow_table()["verdict"]
