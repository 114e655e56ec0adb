"""What the ledger holds, made into values again: proposals, runs, and where every decision stands.

Hides how entries are read back. What is made here from the ledger alone is what it was when it was recorded.
Runs are read in blocks, however long the period is.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import canonical
from storekeep.ahead import ahead
from storekeep.decisions import HOLDS, Action, Evidence, Proposed, first_status, step
from storekeep.errors import InvariantBroken
from storekeep.ledger import merkle
from storekeep.ledger.explain import header, standing, steps
from storekeep.sql import Place, parse, quoted
from storekeep.store import Transaction

_TEXT = pa.string()
DECISIONS = pa.schema(
    [
        ("decision_id", _TEXT),
        ("batch", pa.int64()),
        ("place", pa.int64()),
        *((name, _TEXT) for name in ("subject", "order_group", "verdict")),
        ("money_minor", pa.int64()),
        ("currency", _TEXT),
        ("status", _TEXT),
        ("reverses", _TEXT),
    ]
)
# Steps after which a decision has no effect, so that it gives back what it took from limits. One that was
# given up may have had one, and keeps it.
RELEASING = ("rejected", "denied", "expired", "withdrawn", "failed", "dropped", "compensated")
_ENTRIES_AT_ONCE = 40_000
_TOLD = ("kind", "decision_id", "step", "given_up")
_SPOKEN = """
SELECT rule.rule, rule.effect, min(rule.reason), count(*) FROM (
  SELECT unnest(json_transform(entry->'rules',
    '[{"rule": "VARCHAR", "effect": "VARCHAR", "reason": "VARCHAR"}]')) AS rule
  FROM page WHERE entry->>'kind' = 'decision') GROUP BY 1, 2
"""
_NOTHING_RELEASED = pa.table(
    {
        "batch": pa.array([], pa.int64()),
        **dict.fromkeys(("decision_id", "step"), pa.array([], _TEXT)),
    }
)


@dataclass(frozen=True)
class Recorded:
    """One run of an agent as it was recorded, row by row in one order.

    `proposals` are as the agent proposed them, with their `priority`; `left` as policy left them.
    `decided` has `decision_id`, `verdict`, `rules` (each with `rule` and `effect`), `money_minor` and
    `currency`; `released` has `decision_id` and `step` of earlier decisions that came to nothing since the
    run before. Of a run that proposes again what was taken back both tables of lines have
    `group_value_minor` too: what the whole order of each came to.
    """

    header: Mapping[str, Any]
    proposals: pa.Table
    left: pa.Table
    evidence: Evidence
    decided: pa.Table
    released: pa.Table

    @property
    def at(self) -> datetime:
        """When it was decided."""
        return datetime.fromisoformat(self.header["decided_at"])


def proposed(
    tx: Transaction, decision_ids: Sequence[str], action: Action, *, as_recorded: bool = False
) -> Proposed:
    """What recorded decisions are to do, as proposals again, in the order of the ids.

    With what a person has changed of them since, unless they are wanted `as_recorded`.
    """
    histories = list(steps(tx, decision_ids).values())
    recorded = [history[0] for history in histories]
    run = header(tx, recorded[0]["batch"])
    lines = pa.Table.from_pylist(
        [history[0]["parameters"] if as_recorded else standing(history) for history in histories],
        schema=pa.schema([column.remove_metadata() for column in action.parameters.arrow]),
    )
    subjects = pa.array([each["subject"] for each in recorded], pa.string())
    urgency = pa.array([each["priority"] for each in recorded], pa.float64())
    table = lines.add_column(0, "priority", urgency)
    table = table.add_column(0, "subject", subjects)
    return Proposed(
        agent=run["agent"],
        version=run["agent_version"],
        action=action,
        proposals=table.append_column(
            "arithmetic", pa.array([each["arithmetic"] for each in recorded])
        ),
        holds=HOLDS.empty_table(),
        formula=run["formula"],
        seed=run["seed"],
    )


def asked_digest(parameters: Mapping[str, Any]) -> str:
    """The digest that a request for approval is bound to: of what exactly is to be done."""
    return canonical.digest({"parameters": dict(parameters)})


def entries(tx: Transaction, first: int, last: int) -> pa.Table:
    """The entries of a range of batches in order, each with its `kind`, `decision_id`, `step`, `given_up`."""
    return _told(tx.ledger_entries(first, last))


def _told(found: pa.Table) -> pa.Table:
    told = canonical.members(found["entry"].combine_chunks(), _TOLD)
    for name in _TOLD:
        found = found.append_column(name, told[name])
    return found.combine_chunks()


def folded(tx: Transaction) -> tuple[dict[int, dict[str, Any]], pa.Table]:
    """The header of every run by its batch, and the state of every decision, folded from the whole ledger."""
    runs_: dict[int, dict[str, Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    run: dict[str, Any] = {}
    for page in tx.ledger_pages():
        for entry in _told(page).to_pylist():
            key, kind = entry["decision_id"], entry["kind"]
            if kind == "batch":
                run = runs_[entry["batch"]] = json.loads(entry["entry"])
            elif kind == "decision":
                rows[key] = _folded(entry, run)
            elif key is not None:
                rows[key]["status"] = str(step(rows[key]["status"], entry["step"]))
                if kind == "approval" and "after" in (body := json.loads(entry["entry"])):
                    rows[key]["money_minor"] = body["money_minor"]
    return runs_, pa.Table.from_pylist(list(rows.values()), schema=DECISIONS)


def _folded(entry: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as its run recorded it, before anything became of it."""
    body = json.loads(entry["entry"])
    return {
        "decision_id": body["decision_id"],
        "batch": entry["batch"],
        "place": entry["place"],
        "subject": body["subject"],
        "order_group": (body.get("parameters") or {}).get("order_group"),
        "verdict": body["step"],
        "money_minor": body.get("money_minor"),
        "currency": body.get("currency"),
        "status": str(first_status(body["step"], run["mode"])),
        "reverses": body.get("reverses"),
    }


def digest(entries: pa.Table) -> str:
    """Merkle root of entries in their order: equal entries, equal root."""
    return merkle.root(merkle.leaves(entries["entry"].combine_chunks())).hex()


def taken_back(tx: Transaction, batch_id: str) -> list[str]:
    """The decisions that a revert, by the id of its ledger batch, took back or asked to."""
    number = tx.ledger_batch_of(batch_id)
    if number is None:
        return []
    found = entries(tx, number, number)
    steps_ = pc.is_in(found["step"], value_set=pa.array(["withdrawn", "reverting"]))
    ids: list[str] = found.filter(pc.and_kleene(pc.equal(found["kind"], "reversal"), steps_))[
        "decision_id"
    ].to_pylist()
    return ids


def count_rules(tx: Transaction) -> list[dict[str, Any]]:
    """How often each rule spoke in the tenant's decisions, the most often first."""
    counted: dict[tuple[str, str], dict[str, Any]] = {}
    with duckdb.connect() as database:
        for page in tx.ledger_pages():
            database.register("page", page.select(["entry"]))
            for rule, effect, reason, times in database.execute(_SPOKEN).fetchall():
                row = {"rule": rule, "effect": effect, "reason": reason, "times": 0}
                row = counted.setdefault((rule, effect), row)
                row["reason"], row["times"] = min(row["reason"], reason), row["times"] + times
    return sorted(counted.values(), key=lambda row: (-row["times"], row["rule"]))


# Whole runs -------------------------------------------------------------------------------------------


def runs(
    tx: Transaction, since: datetime, until: datetime, action: Action, evidence: Mapping[str, str]
) -> Generator[Recorded]:
    """The runs of a period that proposed an action, in the order in which they were recorded.

    `evidence` gives the DuckDB type of each column that the evidence has today; what a run did not know of
    is NULL. Memory is bounded by a block of runs, not by the period.
    """
    reading = _Reading(action, evidence)
    read = (reading.block(entries(tx, first, last)) for first, last in _blocks(tx, since, until))
    waiting = []
    for block in ahead(read):
        released = block.released
        for number, run in block.runs():
            before = pc.less(released["batch"], number)
            waiting.append(released.filter(before))
            released = released.filter(pc.invert(before))
            if since <= run.at < until:
                yield replace(run, released=pa.concat_tables(waiting))
                waiting = []
        waiting.append(released)


def _blocks(tx: Transaction, since: datetime, until: datetime) -> Iterator[tuple[int, int]]:
    """Ranges of the ledger's batches that together hold a period, each small enough to be read at once."""
    batches = tx.ledger_batches()
    inside = [row["batch"] for row in batches if since <= row["recorded_at"] < until]
    sealed = [row for row in batches if inside and inside[0] <= row["batch"] <= inside[-1]]
    first, many = None, 0
    for place, row in enumerate(sealed):
        first = row["batch"] if first is None else first
        many += row["entry_count"]
        if many >= _ENTRIES_AT_ONCE or place == len(sealed) - 1:
            yield first, row["batch"]
            first, many = None, 0


class _Reading:
    """How entries become values again, for one action and the evidence of one agent."""

    def __init__(self, action: Action, evidence: Mapping[str, str]) -> None:
        self.action = action
        parameters = action.parameters.duckdb_types()
        self.names = list(parameters)
        self.structure = json.dumps(
            {
                "parameters": parameters,
                "proposed": {name: parameters[name] for name in action.clippable},
                "priority": "DOUBLE",
                "evidence": dict(evidence),
                "rules": [{"rule": "VARCHAR", "effect": "VARCHAR"}],
                "money_minor": "BIGINT",
                "currency": "VARCHAR",
                "group_value_minor": "BIGINT",
            }
        )
        known = {name: kind for name, kind in parameters.items() if name not in action.derived}
        place = Place(f"action {action.name}", 1, 1)
        self.derived = {
            name: parse(text, known, place=place) for name, text in action.derived.items()
        }

    def block(self, entries: pa.Table) -> _Block:
        """The entries of a range of batches, read."""
        kinds = entries["kind"]
        judged = pc.and_kleene(pc.equal(kinds, "decision"), pc.not_equal(entries["step"], "hold"))
        headers, lines = entries.filter(pc.equal(kinds, "batch")), entries.filter(judged)
        body = self._bodies(lines)
        left = pa.Table.from_struct_array(body["parameters"]).select(self.names)
        asked = self._unclipped(left, pa.Table.from_struct_array(body["proposed"]))
        return _Block(
            action=self.action.name,
            headers=headers.select(["batch", "entry"]),
            released=_released(entries),
            batches=lines["batch"].to_numpy(),
            proposals=asked.add_column(0, "priority", body["priority"]),
            left=left,
            values=pa.Table.from_struct_array(body["evidence"]),
            groups=body.select(["group_value_minor"]),
            decided=pa.table(
                {
                    "decision_id": lines["decision_id"],
                    "verdict": lines["step"],
                    **{name: body[name] for name in ("rules", "money_minor", "currency")},
                }
            ),
        )

    def _bodies(self, lines: pa.Table) -> pa.Table:
        """What the entries say, column by column, read by one query."""
        with duckdb.connect() as database:
            database.register("lines", lines.select(["entry"]))
            told = database.execute(
                "SELECT json_transform(entry, $structure) AS body FROM lines",
                {"structure": self.structure},
            ).to_arrow_table()
        if told.num_rows != lines.num_rows:
            raise InvariantBroken("not every entry of the ledger could be read")
        return pa.Table.from_struct_array(told["body"]).combine_chunks()

    def _unclipped(self, left: pa.Table, proposed_: pa.Table) -> pa.Table:
        """The parameters before policy lowered any, and what derives from those that it lowered."""
        clipped = pa.chunked_array([pa.array(np.zeros(left.num_rows, dtype=bool))])
        out = left
        for name in self.action.clippable:
            before = pc.coalesce(proposed_[name], left[name])
            clipped = pc.or_(clipped, pc.fill_null(pc.not_equal(before, left[name]), False))
            out = out.set_column(out.schema.get_field_index(name), name, before)
        sql = ", ".join(
            f"CASE WHEN clipped THEN {value.sql()} ELSE {quoted(name)} END AS {quoted(name)}"
            for name, value in self.derived.items()
        )
        if not sql or not pc.any(clipped).as_py():
            return out
        with duckdb.connect() as database:
            database.register("lines", out.append_column("clipped", clipped))
            text = f"SELECT * EXCLUDE (clipped) REPLACE ({sql}) FROM lines"  # the action's own expressions
            return database.execute(text).to_arrow_table().cast(left.schema).combine_chunks()


def _released(entries: pa.Table) -> pa.Table:
    """Which decisions came to nothing, by which step, in the order in which they did."""
    made = pc.is_in(entries["kind"], value_set=pa.array(["batch", "decision"]))
    ended = pc.is_in(entries["step"], value_set=pa.array(RELEASING))
    over = pc.and_(pc.and_not(ended, made), entries["given_up"].is_null())
    return entries.filter(over).select(_NOTHING_RELEASED.column_names)


@dataclass(frozen=True)
class _Block:
    """The runs of a range of batches; all but `headers` and `released` have a row for each decision."""

    action: str
    headers: pa.Table
    released: pa.Table
    batches: npt.NDArray[np.int64]
    proposals: pa.Table
    left: pa.Table
    values: pa.Table
    groups: pa.Table
    decided: pa.Table

    def runs(self) -> Iterator[tuple[int, Recorded]]:
        """The runs in order, each with the number of its batch in the ledger."""
        for row in self.headers.to_pylist():
            header_ = json.loads(row["entry"])
            if header_["action"] == self.action:
                yield row["batch"], self._run(row["batch"], header_)

    def _run(self, number: int, run: Mapping[str, Any]) -> Recorded:
        begin, end = (
            int(np.searchsorted(self.batches, number, side)) for side in ("left", "right")
        )
        proposals, left, values, groups, decided = (
            table.slice(begin, end - begin).combine_chunks()
            for table in (self.proposals, self.left, self.values, self.groups, self.decided)
        )
        if "asked_by" in run:
            (name,) = groups.column_names
            proposals, left = (
                table.append_column(name, groups[name]) for table in (proposals, left)
            )
        known_by = datetime.fromisoformat(run["known_by"])
        return Recorded(
            header=run,
            proposals=proposals.add_column(0, "subject", values["subject"]),
            left=left.add_column(0, "subject", values["subject"]),
            evidence=Evidence(values, known_by, run["versions"], run["position"]),
            decided=decided,
            released=_NOTHING_RELEASED,
        )
