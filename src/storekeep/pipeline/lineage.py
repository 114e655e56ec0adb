"""From a decision, or a version of a table, back to the runs, the files and the lines that it came of.

Hides where each step back is on record: the ledger says which versions a decision was made from, the lake up
to which place of the log a version goes and from which lines its facts were read, the notes of runs which
files brought what is at a place. An answer is a tree of plain values: each node has a `kind`, and under
`inputs` what it was made from.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from storekeep import bus, features, ledger
from storekeep.errors import Refused
from storekeep.events import EVENT_TABLES
from storekeep.features import sku_location
from storekeep.lake import FACTS, MARKETING, QUARANTINE, QUARANTINE_STEPS, TERMS, Kept
from storekeep.pipeline.tracing import FEATURES
from storekeep.pipeline.working import Working
from storekeep.store import PARTITIONS, Traced, Transaction

Node = dict[str, Any]
_TABLES: Mapping[str, Kept] = {
    kept.name: kept
    for kept in (
        *FACTS.values(),
        *(TERMS, QUARANTINE, QUARANTINE_STEPS, sku_location.KEPT),
        *MARKETING.values(),
    )
}


class Lineage(Working):
    """What anything was made from."""

    def lineage(self, what: str, limit: int | None = None) -> Node:
        """The tree behind a decision (its id), or behind a table, `TABLE@VERSION` or the newest version.

        Of a table at most `limit` runs are told, the newest. Raises `Refused` for what is neither.
        """
        try:
            return self._decision(str(UUID(what)))
        except ValueError:
            return self._table(what, limit)

    # A decision -----------------------------------------------------------------------------------------

    def _decision(self, decision_id: str) -> Node:
        with self.store.transaction(self.tenant) as tx:
            first = ledger.steps(tx, [decision_id])[decision_id][0]
            run = ledger.header(tx, first["batch"])
            noted = tx.traced(run["batch_id"])
            node: Node = {
                "kind": "run",
                "id": run["batch_id"],
                "job": f"decide/{run['agent']}",
                "state": "complete",
                "begun_at": run["heard_since"],
                "ended_at": run["decided_at"],
                "code": noted.content["code"] if noted else None,
                **{name: run[name] for name in ("agent", "agent_version", "rulebook")},
                "rulebook_version": run["rulebook_version"],
                "inputs": self._evidence(tx, run, first["evidence"]),
            }
        return {
            "kind": "decision",
            "id": decision_id,
            "subject": first["subject"],
            "verdict": first["step"],
            "inputs": [node],
        }

    def _evidence(
        self, tx: Transaction, run: Mapping[str, Any], evidence: Mapping[str, Any]
    ) -> list[Node]:
        """The features of a decision's item and its stock, each with the rows behind it."""
        versions = run["versions"]
        if "lake" not in versions:
            return []
        at = datetime.fromisoformat(versions["features_at"])
        asked = features.Asked(
            *(evidence["location_id"], evidence["sku"], evidence["supplier_id"], at),
            *(date.fromisoformat(versions["day"]), run["position"]),
        )
        read: dict[str, int] = json.loads(versions["lake"])
        moved = tx.traced(self.features_run(asked.location_id, at))
        behind = features.behind_features(self.lake, asked, read)
        known: Node = {
            "kind": "table",
            "name": FEATURES,
            "version": moved.version if moved else None,
            "as_of": versions["features_at"],
            "rows": 1,
            "inputs": [
                {
                    **(_told(moved) if moved else _unnoted("features/sku_location")),
                    "features": versions["features"],
                    "inputs": [
                        self._used(tx, each, asked.location_id, read[each.table])
                        for each in behind
                        if each.rows
                    ],
                }
            ],
        }
        stock: Node = {
            "kind": "stock",
            "partition": bus.partition_of(self.tenant, asked.location_id),
            "position": asked.position,
            "inputs": [
                self._used(tx, each, asked.location_id, None)
                for each in features.behind_stock(self.lake, asked)
                if each.rows
            ],
        }
        return [known, stock]

    def _used(
        self, tx: Transaction, used: features.Used, location_id: str, version: int | None
    ) -> Node:
        """The rows of a table that were used, by the runs that brought them."""
        partition = bus.partition_of(self.tenant, location_id)
        rows = [row for row in used.rows if row["position"] is not None]
        return {
            "kind": "table",
            "name": used.table,
            **({} if version is None else {"version": version}),
            "rows": sum(row["lines"] for row in used.rows),
            "inputs": self._brought(tx, used.table, partition, rows) if rows else [],
        }

    def _brought(
        self, tx: Transaction, table: str, partition: int, rows: Sequence[Mapping[str, Any]]
    ) -> list[Node]:
        """The runs that put rows on the log, each with the files and lines that these rows are of."""
        places = [row["position"] for row in rows]
        runs = tx.traced_at(table, partition, min(places), max(places))
        begins = [run.first or 0 for run in runs]
        mine: dict[int, list[Mapping[str, Any]]] = {}
        rest: list[Mapping[str, Any]] = []
        for row in rows:
            at = bisect_right(begins, row["position"]) - 1
            if at >= 0 and row["position"] <= (runs[at].last or 0):
                mine.setdefault(at, []).append(row)
            else:
                rest.append(row)
        found = [_with_lines(runs[at], part) for at, part in sorted(mine.items())]
        return found + self._untraced(tx, table, {partition: max(places)}, rest)

    def _untraced(
        self,
        tx: Transaction,
        table: str,
        places: Mapping[int, int],
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[Node]:
        """Who told the events that no run is noted of, by source; only those of some rows, if there are."""
        if rows is not None and not rows:
            return []
        types = [type_ for type_, of in EVENT_TABLES.items() if of.name == table]
        by_source: dict[str, list[dict[str, Any]]] = {}
        wanted = None if rows is None else {row["position"] for row in rows}
        for each in tx.untraced(types, table, places):
            if wanted is None or each["position"] in wanted:
                by_source.setdefault(each["source"], []).append(each)
        found = []
        for source, events in sorted(by_source.items()):
            mine = {each["position"] for each in events}
            part = [row for row in rows or () if row["position"] in mine]
            node = {
                **_unnoted(f"told/{source}"),
                "begun_at": min(each["time"] for each in events),
                "ended_at": max(each["time"] for each in events),
                "facts": sum(each["facts"] for each in events),
            }
            found.append({**node, "inputs": [*_lines(part, {}), _source(source)]})
        return found

    # A table --------------------------------------------------------------------------------------------

    def _table(self, what: str, limit: int | None) -> Node:
        name, version = self._version(what)
        kept = _TABLES[name]
        with self.store.transaction(self.tenant) as tx:
            if name in FACTS:
                writers = {f"bus:{partition}": partition for partition in range(PARTITIONS)}
                told = self.lake.written_at(name, version, list(writers))
                places = {writers[writer]: position for writer, position in told.items()}
                runs = [_with_files(run) for run in tx.traced_places(name, places, limit)]
                runs += self._untraced(tx, name, places)
                counted = tx.count_traced(name, places)
            else:
                runs = [_with_files(run) for run in tx.traced_versions(name, version, limit)]
                counted = tx.count_traced_versions(name, version)
        (rows,) = self.lake.query(
            "SELECT count(*) AS rows FROM told", tables={"told": kept}, versions={name: version}
        ).to_pylist()
        return {
            "kind": "table",
            "name": name,
            "version": version,
            **rows,
            "runs": counted["runs"],
            "rows_of_runs": counted["facts"],
            "inputs": runs,
        }

    def _version(self, what: str) -> tuple[str, int]:
        """The table and the version that are asked for; `Refused` when there is none."""
        name, _, number = what.partition("@")
        newest = self.lake.version(name) if name in _TABLES else -1
        if newest < 0:
            there = [each for each in sorted(_TABLES) if self.lake.version(each) >= 0]
            raise Refused(
                f"{what} is no decision and no table of tenant {self.tenant}; name a decision of "
                f"`storekeep decisions list`, or one of: {', '.join(there) or 'no table yet'}"
            )
        if not number:
            return name, newest
        if not (number.isdecimal() and int(number) <= newest):
            raise Refused(f"{name} has no version {number}; its versions are 0 to {newest}")
        return name, int(number)


_SAID = (
    *("mapping", "agent", "agent_version", "rulebook", "rulebook_version", "features"),
    *("location_id", "known_by", "error"),
)


def _told(run: Traced) -> Node:
    """What is noted of a run, without what it was made from."""
    node: Node = {
        "kind": "run",
        "id": run.run_id,
        "job": run.job,
        "state": run.state,
        "begun_at": run.begun_at,
        "ended_at": run.ended_at,
        "code": run.content["code"],
        **{name: run.content[name] for name in _SAID if name in run.content},
        "facts": run.facts,
    }
    if run.version is not None:
        node["version"] = run.version
    if run.partition is not None:
        node["log"] = {"partition": run.partition, "first": run.first, "last": run.last}
    if run.content.get("read"):
        node["read"] = run.content["read"]
    return node


def _unnoted(job: str) -> Node:
    """A run of which nothing is noted: it was before lineage was kept, or another home's."""
    return {"kind": "run", "id": None, "job": job, "state": "unknown", "code": None}


def _with_files(run: Traced) -> Node:
    """A run with what it read: files, tables at versions, or whoever told it."""
    content = run.content
    inputs = [
        {
            "kind": "file",
            "name": each["file"],
            "path": each.get("path"),
            "lines": each.get("facts", 0),
            "first_line": each.get("first"),
            "last_line": each.get("last"),
        }
        for each in content.get("files", ())
    ]
    inputs += [
        {"kind": "table", "name": name, "version": version}
        for name, version in content.get("tables", {}).items()
        if version >= 0
    ]
    return {**_told(run), "inputs": inputs + _messages(run) + _others(content)}


def _with_lines(run: Traced, rows: Sequence[Mapping[str, Any]]) -> Node:
    """A run with the files and lines of some of the rows that it brought."""
    content = run.content
    paths = {each["file"]: each.get("path") for each in content.get("files", ())}
    used = sum(row["lines"] for row in rows)
    by_place: dict[int, int] = {}
    for row in rows:
        by_place[row["position"]] = by_place.get(row["position"], 0) + row["lines"]
    inputs = _lines(rows, paths) + _messages(run, by_place) + _others(content)
    return {**_told(run), "used": used, "inputs": inputs}


def _messages(run: Traced, used: Mapping[int, int] | None = None) -> list[Node]:
    """The messages of a transport that a run brought; where only some places of the log were used, those."""
    return [
        {
            "kind": "message",
            "transport": run.content["transport"],
            "subject": each["subject"],
            "partition": run.partition,
            "position": each["position"],
            "source": each["source"],
            "rows": each["facts"] if used is None else used[each["place"]],
        }
        for each in run.content.get("messages", ())
        if used is None or each["place"] in used
    ]


def _lines(rows: Iterable[Mapping[str, Any]], paths: Mapping[str, str | None]) -> list[Node]:
    """Files with the ranges of their lines that rows are of."""
    files: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["file"] is not None:
            files.setdefault(row["file"], []).append(row)
    return [
        {
            "kind": "file",
            "name": name,
            "path": paths.get(name),
            "lines": sum(row["lines"] for row in part),
            "first_line": min(row["first"] for row in part),
            "last_line": max(row["last"] for row in part),
            "ranges": [[row["first"], row["last"]] for row in part],
        }
        for name, part in sorted(files.items())
    ]


def _others(content: Mapping[str, Any]) -> list[Node]:
    """What a run was made from that is neither file nor table: decisions, or whoever told it."""
    if "decided" in content:
        ids = content["decision_ids"]
        return [{"kind": "decisions", "many": content["decided"], "ids": ids}]
    return [_source(content["source"])] if "source" in content else []


def _source(name: str) -> Node:
    return {"kind": "source", "name": name}
