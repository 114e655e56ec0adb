"""One decision explained: the till lines it rests on, the arithmetic, the rules, what came of it, the proof.

Hides where the parts lie (ledger, lake). Says nothing that is not recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from storekeep.decisions import fold, stamp
from storekeep.errors import Refused
from storekeep.lake import SALE_LINES, Lake
from storekeep.ledger import merkle
from storekeep.retail import money
from storekeep.store import Transaction

_HALF = 40
_LINES = """
WITH seen AS MATERIALIZED (
  SELECT store_id, basket_id, quantity_units, value_minor, currency, occurred_at, source_file, source_line,
    day FROM sale
  WHERE sku = $sku AND location_id = $location AND known_at <= $known_by AND day > $today - 91
    AND day <= $today
), newest AS (
  SELECT * EXCLUDE (day) FROM seen ORDER BY occurred_at DESC, source_file, source_line LIMIT $limit
)
SELECT count(*) AS lines, coalesce(sum(quantity_units), 0)::BIGINT AS units,
  coalesce(sum(value_minor), 0)::BIGINT AS value_minor, min(day)::VARCHAR AS first_day,
  max(day)::VARCHAR AS last_day, list(DISTINCT source_file ORDER BY source_file) AS files,
  (SELECT list(newest ORDER BY occurred_at DESC, source_file, source_line) FROM newest) AS newest
FROM seen
"""


def steps(tx: Transaction, decision_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What is recorded of decisions, by id in the order asked for, each oldest entry first.

    An entry comes with the `batch` and `place` it stands at. Raises `Refused` when the ledger lacks one.
    """
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in decision_ids}
    for row in tx.entries_of(decision_ids):
        body = json.loads(row["entry"])
        found[row["decision_id"]].append({**body, "batch": row["batch"], "place": row["place"]})
    for key, entries in found.items():
        if not entries:
            raise Refused(
                f"the ledger of tenant {tx.tenant} has no decision {key}; see `storekeep decisions list`"
            )
    return found


def standing(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parameters of a decision as they stand: as recorded, or as a person last changed them."""
    changed = [each["after"] for each in history if "after" in each]
    return dict(changed[-1] if changed else history[0].get("parameters") or {})


def changes(entry: Mapping[str, Any]) -> list[str]:
    """What a person changed, in words; nothing of an entry that changes nothing."""
    before, after = entry.get("before", {}), entry.get("after", {})
    return [
        f"{name} {before[name]} -> {after[name]}" for name in after if before[name] != after[name]
    ]


def money_of(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The money at stake in a decision, in minor units, as its parameters stand."""
    changed = [each["money_minor"] for each in history if "after" in each]
    money: int | None = changed[-1] if changed else history[0].get("money_minor")
    return money


def header(tx: Transaction, batch: int) -> dict[str, Any]:
    """What all decisions of a run share, as it was recorded."""
    body: dict[str, Any] = json.loads(tx.ledger_entry(batch, 0))
    return body


def explain(tx: Transaction, lake: Lake, decision_id: str, *, lines: int = 5) -> dict[str, Any]:
    """All that is recorded of a decision, from the newest till lines it rests on to its last receipt."""
    history = steps(tx, [decision_id])[decision_id]
    first = history[0]
    run = header(tx, first["batch"])
    return {
        "decision_id": decision_id,
        "tenant": tx.tenant,
        "status": str(fold((each["step"] for each in history), run["mode"])),
        "subject": first["subject"],
        "run": run,
        "lines": _lines_read(lake, run, first["evidence"], lines),
        "evidence": first["evidence"],
        "evidence_digest": first["evidence_digest"],
        "arithmetic": first.get("arithmetic"),
        "proposed": first.get("proposed"),
        "parameters": standing(history) or None,
        "money_minor": money_of(history),
        "currency": first.get("currency"),
        "verdict": first["step"],
        "rules": first.get("rules", []),
        "hold": first.get("reason"),
        "reverses": first.get("reverses"),
        "history": history,
        "proof": _proof(tx, first["batch"], first["place"]),
    }


def _lines_read(
    lake: Lake, run: Mapping[str, Any], evidence: Mapping[str, Any], limit: int
) -> dict[str, Any]:
    today = date.fromisoformat(run["versions"]["day"])
    # The layout goes by months of UTC, days by the retailer's own clock.
    months = [f"{today + timedelta(days=days):%Y-%m}" for days in (-92, 1)]
    (found,) = lake.query(
        _LINES,
        parameters={
            "sku": evidence["sku"],
            "location": evidence["location_id"],
            "known_by": datetime.fromisoformat(run["versions"]["features_at"]),
            "today": today,
            "limit": limit,
        },
        tables={"sale": SALE_LINES},
        versions={"sale_line": json.loads(run["versions"]["lake"])["sale_line"]},
        months={"sale": (months[0], months[1])},
    ).to_pylist()
    newest = found["newest"] or []
    return {
        **found,
        "newest": [{**row, "occurred_at": stamp(row["occurred_at"])} for row in newest],
    }


def _proof(tx: Transaction, batch: int, place: int) -> dict[str, Any]:
    """That the decision's entry is in a sealed batch of the chain: the way from its leaf to the root."""
    sealed = tx.ledger_batches(batch, batch)[0]
    return {
        "batch": batch,
        "place": place,
        "leaf": merkle.leaf(tx.ledger_entry(batch, place)).hex(),
        "path": way(tx, sealed, place),
        "root": sealed["root"],
        "chain": sealed["chain"],
        "signature": sealed["signature"],
    }


def way(tx: Transaction, sealed: Mapping[str, Any], place: int) -> list[list[str]]:
    """The siblings from an entry's leaf up to the root of its batch, each with its side."""
    found = merkle.siblings(sealed["entry_count"], place)
    nodes = tx.ledger_nodes(sealed["batch"], [at for _, at in found])
    return [[side, node.hex()] for (side, _), node in zip(found, nodes, strict=True)]


def text(explained: Mapping[str, Any], zone: tzinfo = UTC) -> str:
    """The explanation for a person to read, top to bottom: data, arithmetic, rules, outcome, proof.

    Its times are those of a zone, named at the end.
    """
    parts = (_headline, _till_lines, _evidence, _arithmetic, _rules, _outcome, _proved)
    local = _local(explained, zone)
    told = ["\n".join(lines) for part in parts if (lines := part(local))]
    return "\n\n".join([*told, f"Times in {zone}."])


def _local(explained: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """The same, with its times as the clocks of a zone show them."""

    def moved(each: Mapping[str, Any], name: str) -> dict[str, Any]:
        if each.get(name) is None:
            return dict(each)
        time = datetime.fromisoformat(each[name]).astimezone(zone)
        return {**each, name: f"{time:%Y-%m-%d %H:%M:%S}"}

    lines = explained["lines"]
    return {
        **explained,
        "run": moved(explained["run"], "decided_at"),
        "lines": {**lines, "newest": [moved(line, "occurred_at") for line in lines["newest"]]},
        "history": [moved(each, "at") for each in explained["history"]],
    }


def _headline(explained: Mapping[str, Any]) -> list[str]:
    run, parameters = explained["run"], explained["parameters"]
    what = f"{run['action']} for {explained['subject']}"
    if parameters:
        what = (
            f"{run['action']}: {parameters['order_units']} units of {parameters['sku']} for "
            f"{parameters['location_id']} from {parameters['supplier_id']}, "
            f"{money(explained['money_minor'], explained['currency'])}"
        )
    return [
        f"Decision {explained['decision_id']}: {explained['status']}",
        f"  {what}",
        f"  agent {run['agent']}, version {run['agent_version']}, decided at {run['decided_at']}",
        *_again(explained),
    ]


def _again(explained: Mapping[str, Any]) -> list[str]:
    """Of what is proposed again after it had been taken back: which decision, and who wanted it."""
    if not explained["reverses"]:
        return []
    run = explained["run"]
    said = f"asked for by {run['asked_by']}, because {run['reason']}"
    return [f"  proposes decision {explained['reverses']} again, {said}"]


def _till_lines(explained: Mapping[str, Any]) -> list[str]:
    lines = explained["lines"]
    if not lines["lines"]:
        return ["Till lines of the last 13 weeks: none"]
    value = money(lines["value_minor"], explained["evidence"]["currency"])
    rows = [
        f"  {row['occurred_at'][:16]}  store {row['store_id']}, basket "
        f"{row['basket_id']}: {row['quantity_units']} for {money(row['value_minor'], row['currency'])}"
        f"  {row['source_file']}:{row['source_line']}"
        for row in lines["newest"]
    ]
    head = f"{lines['lines']} till lines of 13 weeks, {lines['units']} units, {value}"
    return [f"{head}, {lines['first_day']} to {lines['last_day']}; the newest:", *rows]


def _evidence(explained: Mapping[str, Any]) -> list[str]:
    run = explained["run"]
    keys = ("subject", "sku", "location_id", "supplier_id", "currency")
    told = {name: value for name, value in explained["evidence"].items() if name not in keys}
    return [
        f"Known by then (digest {explained['evidence_digest'][:16]}, log position {run['position']}):",
        *_pairs(told),
    ]


def _arithmetic(explained: Mapping[str, Any]) -> list[str]:
    if explained["hold"]:
        return [f"Held: {explained['hold']}"]
    proposed, ordered = explained["proposed"]["order_units"], explained["parameters"]["order_units"]
    steps = [f"  {step.strip()}" for step in explained["run"]["formula"].split(";")]
    units = [f"{proposed} units"]
    judged = explained["history"][0]["parameters"]["order_units"]
    if judged != proposed:
        units.append(f"lowered to {judged}")
    if ordered != judged:
        units.append(f"changed by a person to {ordered}")
    said = f"  proposed: {', '.join(units)}"
    return ["Arithmetic:", *steps, *_pairs(explained["arithmetic"]), said]


def _rules(explained: Mapping[str, Any]) -> list[str]:
    run = explained["run"]
    return [
        f"Rulebook {run['rulebook']}, version {run['rulebook_version'][:12]}: {explained['verdict']}",
        *(f"  {rule['effect']} by {rule['rule']}: {rule['reason']}" for rule in explained["rules"]),
    ]


def _outcome(explained: Mapping[str, Any]) -> list[str]:
    return ["What became of it:", *(f"  {_step(each)}" for each in explained["history"])]


def _proved(explained: Mapping[str, Any]) -> list[str]:
    proved = explained["proof"]
    return [
        f"Proof: entry {proved['place']} of ledger batch {proved['batch']}, leaf {proved['leaf'][:16]};",
        f"  its {len(proved['path'])} siblings lead to root {proved['root'][:16]}, signed in the chain",
    ]


def _pairs(values: Mapping[str, Any]) -> list[str]:
    """Names and values, two to a line where they fit."""
    cells = [f"{name} = {_figure(value)}" for name, value in values.items()]
    out: list[str] = []
    for cell in cells:
        if out and len(out[-1]) <= _HALF and len(cell) <= _HALF:
            out[-1] = f"{out[-1]:<{_HALF}}{cell}"
        else:
            out.append(f"  {cell}")
    return out


def _figure(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else value


def _step(entry: Mapping[str, Any]) -> str:
    said = [entry["step"]]
    said += changes(entry)
    if entry.get("by"):
        said.append(f"by {entry['by']}")
    if entry.get("at"):
        said.append(f"at {entry['at']}")
    receipt = entry.get("receipt")
    if receipt:
        said.append(f"{receipt['adapter']} {receipt['reference']}")
    if entry.get("reason"):
        said.append(f"because {entry['reason']}")
    return ", ".join(said) + f" (ledger batch {entry['batch']})"
