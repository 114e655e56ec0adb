"""What a feed has promised, read from its data contract, and whether what came of it keeps the promise.

Hides how promises become questions to history, and measured numbers become words. A contract is a document
of the Open Data Contract Standard 3.1 (`storekeep.ingest.odcs`); what is wrong with one is said with file,
line and column. Whether a promise is kept follows from what is known of the feed and from the time, and from
nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from storekeep import retail, sql
from storekeep.errors import Misused
from storekeep.ingest import odcs, places
from storekeep.ingest.feeds import BESIDE, SHIPPED, shipped
from storekeep.ingest.feeds import Mapping as Feed
from storekeep.ingest.places import VALUE, Keys, Written

State = Literal["ok", "degraded", "breached"]
STATES: tuple[State, ...] = ("ok", "degraded", "breached")
"""From the best to the worst."""
EVERYWHERE = "*"
"""The location of what is found of a feed that has brought nothing of any location yet."""
LATELY = timedelta(hours=24)
"""What came lately: so long before the newest that came."""

_SEVERITIES: Mapping[str, State] = {"warning": "degraded", "error": "breached"}
_UNITS = {"d": 24.0, "day": 24.0, "days": 24.0, "h": 1.0, "hour": 1.0, "hours": 1.0}
# Promises of the standard's list that are words between people.
_WORDS = frozenset(
    {
        *("availability", "throughput", "errorRate", "generalAvailability", "endOfSupport", "endOfLife"),
        *("retention", "frequency", "timeOfAvailability"),
        *("timeToDetect", "timeToNotify", "timeToRepair"),
    }
)  # fmt: skip
_COUNT = re.compile(
    r"\s*SELECT\s+count\(\*\)\s+FROM\s+\$\{(?:object|table|schema)\}\s+WHERE\s+(?P<condition>.+)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Limit:
    """What a number must be, and that in words."""

    operator: str
    value: float | tuple[float, float]

    def keeps(self, number: float, *, most_only: bool = False) -> bool:
        """Whether a number is within the limit; with `most_only` a number that may still grow."""
        least, most = self.value if isinstance(self.value, tuple) else (self.value, self.value)
        above = {"mustBeGreaterThan": number > least}.get(self.operator, number >= least)
        below = {"mustBeLessThan": number < most}.get(self.operator, number <= most)
        if self.operator.startswith("mustBeGreater"):
            return above or most_only
        if self.operator.startswith("mustBeLess"):
            return below
        return below and (above or most_only)

    def __str__(self) -> str:
        if isinstance(self.value, tuple):
            return f"between {self.value[0]:,g} and {self.value[1]:,g}"
        return f"{_OPERATORS[self.operator]} {self.value:,g}"


_OPERATORS: Mapping[str, str] = {
    "mustBe": "exactly",
    "mustBeGreaterThan": "more than",
    "mustBeGreaterOrEqualTo": "at least",
    "mustBeLessThan": "less than",
    "mustBeLessOrEqualTo": "at most",
    "mustBeBetween": "between",
}


@dataclass(frozen=True)
class Promise:
    """One promise: what it is about, the limit, and how the feed stands when it is not kept."""

    id: str
    said: str
    state: State
    limit: Limit
    percent: bool = False


@dataclass(frozen=True)
class RowPromise(Promise):
    """How many of a location's rows that came lately are not as agreed: SQL that counts those."""

    violated: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    among: str | None = None


@dataclass(frozen=True)
class Volume(Promise):
    """How many rows there are of each trading day of a location.

    A day is looked at `grace_hours` after it is over, for `days` days; that there are not too many, as soon
    as they come.
    """

    days: int = 1
    grace_hours: float = 0
    weekdays: frozenset[int] = frozenset(range(1, 8))
    locations: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Freshness:
    """The newest that happened at a location is at most so many hours old."""

    id: str
    state: State
    hours: float


@dataclass(frozen=True)
class Found:
    """A promise that is not kept: where (wherever the feed tells of, if None), how bad, in which words."""

    location_id: str | None
    state: State
    reason: str


@dataclass(frozen=True)
class Contract:
    """What a feed has promised. `document` is all of it, as the standard writes it."""

    name: str
    source: str
    table: retail.Table
    zone: ZoneInfo
    document: Mapping[str, Any]
    rejected: tuple[Promise, ...] = ()
    cells: Mapping[str, Promise] = field(default_factory=dict)
    rows: tuple[RowPromise, ...] = ()
    volumes: tuple[Volume, ...] = ()
    freshness: tuple[Freshness, ...] = ()

    @property
    def text(self) -> str:
        """The document, in the one form that its digest is made from."""
        return json.dumps(self.document, sort_keys=True, ensure_ascii=False, default=str)

    @property
    def digest(self) -> str:
        """SHA-256 of the document, whatever its file looks like."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def owner(self) -> str | None:
        """Who answers for the feed."""
        team = self.document.get("team")
        return team.get("name") if isinstance(team, dict) else None

    @property
    def columns(self) -> frozenset[str]:
        """The columns of its files that are nothing new, read or not."""
        files = [each for each in self.document["schema"] if each["name"] == odcs.FILE]
        return frozenset(column["name"] for each in files for column in each["properties"])

    def last_complete_day(self, now: datetime, grace_hours: float) -> date:
        """The last trading day that was over so many hours ago."""
        return (now - timedelta(hours=grace_hours)).astimezone(self.zone).date() - timedelta(1)


def of(feed: Feed) -> Contract:
    """The contract of a feed that has agreed on nothing but its mapping."""
    return read(json.dumps(odcs.of_feed(feed)))


def agreed(feed: Feed, file: Path | None, mapping_file: str | Path) -> Contract | None:
    """The contract of a feed in a file, or in the one beside its mapping; None where there is neither.

    Beside `till.yaml` that is `till.contract.yaml`. Raises `Misused`, with file, line and column, when it
    promises what cannot be held against this mapping.
    """
    name = file or _beside(mapping_file)
    if name is None:
        return None
    names = [each.name.removesuffix(".yaml") for each in SHIPPED.iterdir() if BESIDE in each.name]
    written = places.read(name, "contract", SHIPPED, sorted(names))
    _standard(written)
    _fits(written, feed)
    whole = odcs.filled(written.plain, feed)
    return _promised(written, whole)


def renewed(text: str, feed: Feed) -> Contract:
    """The contract of `Contract.text`, with what the mapping of its feed says by now."""
    return read(json.dumps(odcs.filled(json.loads(text), feed)))


@lru_cache(maxsize=256)
def read(text: str) -> Contract:
    """The contract of a whole document, as `Contract.text` has it."""
    written = places.parse(text, "a contract in force", "contract")
    _standard(written)
    return _promised(written, written.plain)


def standing(file: Path) -> Written:
    """A file held against the standard alone; raises `Misused` with the place."""
    written = places.read(file, "contract", SHIPPED, ())
    _standard(written)
    return written


def _beside(mapping_file: str | Path) -> str | Path | None:
    path = Path(mapping_file)
    beside = path.with_name(f"{path.name.removesuffix('.yaml')}{BESIDE}.yaml")
    if beside.is_file():
        return beside
    own = path.is_file() or path.name.removesuffix(".yaml") not in shipped()
    return beside.name if not own and (SHIPPED / beside.name).is_file() else None


def _standard(written: Written) -> None:
    """Hold a document against the standard."""
    try:
        odcs.checked(written.plain)
    except ValidationError as error:
        raise Misused(written.told(error)) from None
    if (path := odcs.unknown(written.plain)) is not None:
        raise Misused(written.at(path, "the standard has no such key"))
    for name in ("apiVersion", "kind", "id", "version", "name"):
        if name not in written.plain:
            raise Misused(written.at((name,), "it is required"))
    if not re.fullmatch(r"v3\.[0-2]\.\d+", written.plain["apiVersion"]):
        raise Misused(written.at(("apiVersion", VALUE), f"write {odcs.API_VERSION}"))
    if written.plain["kind"] != "DataContract":
        raise Misused(written.at(("kind", VALUE), "write DataContract"))


def _fits(written: Written, feed: Feed) -> None:
    """Hold what a contract says of names and kinds against the mapping of its feed."""
    if written.plain["name"] != (name := f"{feed.source}.{feed.table}"):
        raise Misused(written.at(("name",), f"name it {name}, or give the mapping of this feed"))
    kinds = {each["name"]: each for each in odcs.of_feed(feed)["schema"]}
    for place, each in enumerate(written.plain.get("schema") or []):
        path: Keys = ("schema", place)
        if each.get("name") not in kinds:
            raise Misused(written.at((*path, "name"), f"name {' or '.join(map(repr, kinds))}"))
        ours = {one["name"]: one for one in kinds[each["name"]]["properties"]}
        for number, one in enumerate(each.get("properties") or []):
            inner: Keys = (*path, "properties", number)
            if one.get("name") not in ours:
                # A column that comes and is not read needs no place in the mapping.
                if each["name"] == odcs.FILE and one.get("name") and "quality" not in one:
                    continue
                raise Misused(written.at((*inner, "name"), f"{each['name']} has no such column"))
            kind = ours[one["name"]]["logicalType"]
            if one.get("logicalType", kind) != kind:
                raise Misused(written.at((*inner, "logicalType"), f"it is of kind {kind}"))


def _promised(written: Written, whole: Mapping[str, Any]) -> Contract:
    """The promises of a document; `whole` also says what its mapping does."""
    own = {each["property"]: each["value"] for each in whole["customProperties"]}
    table = retail.TABLES[own[odcs.TABLE]]
    found: dict[str, Any] = {"rejected": [], "cells": {}, "rows": [], "volumes": []}
    columns = {
        (each["name"], column["name"]): column
        for each in whole["schema"]
        for column in each["properties"]
    }
    for place, each in enumerate(written.plain.get("schema") or []):
        of_file = each["name"] == odcs.FILE
        reader = _Reader(written, table, ("schema", place))
        for rule, path in reader.rules(each, ()):
            if of_file:
                found["rejected"].append(reader.rejected(rule, path))
            elif (one := reader.of_table(rule, path)) is not None:
                found["volumes" if isinstance(one, Volume) else "rows"].append(one)
        for number, column in enumerate(each.get("properties") or []):
            for rule, path in reader.rules(column, ("properties", number)):
                if of_file:
                    found["cells"][column["name"]] = reader.cells(rule, path)
                else:
                    merged = columns[each["name"], column["name"]]
                    found["rows"].append(reader.of_column(merged, rule, path))
    return Contract(
        whole["name"],
        own[odcs.SOURCE],
        table,
        ZoneInfo(own[odcs.ZONE]),
        whole,
        rejected=tuple(found["rejected"]),
        cells=found["cells"],
        rows=tuple(found["rows"]),
        volumes=tuple(found["volumes"]),
        freshness=tuple(_freshness(written)),
    )


def _freshness(written: Written) -> Iterator[Freshness]:
    for place, each in enumerate(written.plain.get("slaProperties") or []):
        path: Keys = ("slaProperties", place)
        name = each.get("property")
        if name in _WORDS:
            continue
        if name != "latency":
            raise Misused(written.at((*path, "property"), "latency is looked at; no such property"))
        hours = _UNITS.get(str(each.get("unit")))
        value = each.get("value")
        if hours is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise Misused(written.at((*path, "unit"), "say how many, and of which unit: d or h"))
        given = {one["property"]: one["value"] for one in each.get("customProperties") or []}
        severity = given.get("severity", "error")
        if severity not in _SEVERITIES:
            raise Misused(written.at((*path, "customProperties"), "severity is warning or error"))
        yield Freshness(str(each.get("id", "latency")), _SEVERITIES[severity], value * hours)


@dataclass(frozen=True)
class _Reader:
    """Reads the rules of one schema of a document."""

    written: Written
    table: retail.Table
    path: Keys

    def refuse(self, path: Keys, words: str) -> Misused:
        return Misused(self.written.at((*self.path, *path), words))

    def rules(self, each: Mapping[str, Any], path: Keys) -> Iterator[tuple[dict[str, Any], Keys]]:
        """The rules that are looked at; texts are for people, and custom ones for other programs."""
        for number, rule in enumerate(each.get("quality") or []):
            if rule.get("type", "library") in {"library", "sql"}:
                yield rule, (*path, "quality", number)

    def promise(self, rule: Mapping[str, Any], path: Keys, said: str) -> dict[str, Any]:
        """What all promises have."""
        limits = [name for name in rule if name.startswith("must")]
        if len(limits) != 1 or limits[0] not in _OPERATORS:
            raise self.refuse(path, f"give it one limit: {', '.join(_OPERATORS)}")
        value, name = rule[limits[0]], limits[0]
        numbers = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
            raise self.refuse((*path, name), "a limit is a number")
        severity = rule.get("severity", "error")
        if severity not in _SEVERITIES:
            raise self.refuse((*path, "severity"), "severity is warning or error")
        if rule.get("unit", "rows") not in {"rows", "percent"}:
            raise self.refuse((*path, "unit"), "unit is rows or percent")
        return {
            "id": str(rule.get("id", rule.get("metric", "sql"))),
            "said": str(rule.get("description", said)).rstrip("."),
            "state": _SEVERITIES[severity],
            "limit": Limit(name, tuple(value) if isinstance(value, list) else value),
            "percent": rule.get("unit", "rows") == "percent",
        }

    def only(self, rule: Mapping[str, Any], path: Keys, *metrics: str) -> None:
        if rule.get("metric") not in metrics:
            raise self.refuse(path, f"here this is looked at: {', '.join(metrics)}")

    def arguments(self, rule: Mapping[str, Any], path: Keys, **kinds: type) -> dict[str, Any]:
        """The arguments of a rule, each of its kind."""
        given = dict(rule.get("arguments") or {})
        for name, value in given.items():
            kind = kinds.get(name)
            if kind is None or not isinstance(value, (int, float) if kind is float else kind):
                known = ", ".join(kinds) or "none"
                raise self.refuse(
                    (*path, "arguments", name), f"no such argument; there are: {known}"
                )
        return given

    def rejected(self, rule: Mapping[str, Any], path: Keys) -> Promise:
        self.only(rule, path, "invalidValues")
        self.arguments(rule, path)
        return Promise(**self.promise(rule, path, "rows that were rejected"))

    def cells(self, rule: Mapping[str, Any], path: Keys) -> Promise:
        self.only(rule, path, "invalidValues")
        self.arguments(rule, path)
        return Promise(**self.promise(rule, path, "cells that cannot be read"))

    def of_table(self, rule: Mapping[str, Any], path: Keys) -> RowPromise | Volume | None:
        """A promise about the rows of a table; none where it is kept by how rows are read."""
        if rule.get("type") == "sql":
            return self.counted(rule, path)
        self.only(rule, path, "rowCount", "duplicateValues")
        if rule["metric"] == "rowCount":
            return self.volume(rule, path)
        names = self.arguments(rule, path, properties=list).get("properties", [])
        if unknown := [name for name in names if name not in self.table.names] or not names:
            raise self.refuse((*path, "arguments"), f"no columns of {self.table.name}: {unknown}")
        if names == list(self.table.key):
            return None
        return self.distinct(rule, path, names)

    def distinct(self, rule: Mapping[str, Any], path: Keys, names: Sequence[str]) -> RowPromise:
        columns = ", ".join(map(sql.quoted, names))
        said = f"rows of a {', '.join(names)} that others have"
        return RowPromise(
            **self.promise(rule, path, said), violated=f"count(*) - count(DISTINCT ({columns}))"
        )

    def volume(self, rule: Mapping[str, Any], path: Keys) -> Volume:
        given = self.arguments(
            rule, path, days=int, graceHours=float, weekdays=list, locations=list
        )
        if {"day", "occurred_at"}.isdisjoint(self.table.names):
            raise self.refuse(path, f"{self.table.name} knows no days")
        days, weekdays = given.get("days", 1), given.get("weekdays", list(range(1, 8)))
        if not 1 <= days <= 31 or not set(weekdays) <= set(range(1, 8)):
            raise self.refuse((*path, "arguments"), "days are 1 to 31, weekdays 1 (Monday) to 7")
        if rule.get("unit") == "percent":
            raise self.refuse((*path, "unit"), "a count of rows has no percent")
        return Volume(
            **self.promise(rule, path, "rows of a trading day"),
            days=days,
            grace_hours=given.get("graceHours", 0),
            weekdays=frozenset(weekdays),
            locations=frozenset(given.get("locations", [])),
        )

    def counted(self, rule: Mapping[str, Any], path: Keys) -> RowPromise:
        """A rule of type `sql`: a count of rows by a condition that is checked like a mapping's."""
        query = str(rule.get("query", ""))
        found = _COUNT.fullmatch(query)
        place = self.written.place((*self.path, *path, "query", VALUE))
        if found is None:
            raise Misused(f"{place}: write SELECT count(*) FROM ${{object}} WHERE, and a condition")
        here = place.within(query, found.start("condition"))
        condition = sql.parse(
            found["condition"], self.table.duckdb_types(), place=here, want="BOOLEAN"
        )
        return RowPromise(
            **self.promise(rule, path, "rows that were counted"),
            violated=f"count(*) FILTER (coalesce({condition.sql()}, false))",
        )

    def of_column(
        self, column: Mapping[str, Any], rule: Mapping[str, Any], path: Keys
    ) -> RowPromise:
        """A promise about the values of a column: none is absent, invalid, or there twice."""
        if rule.get("type") == "sql":
            return self.counted(rule, path)
        self.only(rule, path, "nullValues", "invalidValues", "duplicateValues")
        name = column["name"]
        here = sql.quoted(name)
        if rule["metric"] == "duplicateValues":
            self.arguments(rule, path)
            return self.distinct(rule, path, [name])
        if rule["metric"] == "nullValues":
            self.arguments(rule, path)
            said = f"rows without {name}"
            violated = f"count(*) FILTER ({here} IS NULL)"
            return RowPromise(**self.promise(rule, path, said), violated=violated)
        among = self.reference(column, path)
        tests, parameters = self.invalid(column, rule, path)
        if among is not None:
            table, _, other = among.partition(".")
            tests.append(f"({here} NOT IN (SELECT {sql.quoted(other)} FROM {sql.quoted(table)}))")
        if not tests:
            raise self.refuse(path, f"nothing is said of which values of {name} are valid")
        said = f"rows of an unknown {name}" if among else f"rows of an invalid {name}"
        violated = f"count(*) FILTER (coalesce({' OR '.join(tests)}, false))"
        return RowPromise(
            **self.promise(rule, path, said), violated=violated, parameters=parameters, among=among
        )

    def invalid(
        self, column: Mapping[str, Any], rule: Mapping[str, Any], path: Keys
    ) -> tuple[list[str], dict[str, Any]]:
        """Tests for values outside of what is said of them, and the values that these name."""
        given = self.arguments(rule, path, validValues=list, pattern=str)
        given |= column.get("logicalTypeOptions") or {}
        here, tests, parameters = sql.quoted(column["name"]), [], {}
        forms = {
            "minimum": "{here} < {there}",
            "maximum": "{here} > {there}",
            "pattern": "NOT regexp_full_match(CAST({here} AS VARCHAR), {there})",
            "validValues": "NOT list_contains({there}, CAST({here} AS VARCHAR))",
        }
        for name, value in given.items():
            if name not in forms:
                raise self.refuse((*path[:-2], "logicalTypeOptions"), f"{name} is not looked at")
            key = f"{'_'.join(map(str, (*self.path, *path)))}_{name}"
            parameters[key] = [str(one) for one in value] if isinstance(value, list) else value
            tests.append(forms[name].format(here=here, there=f"${key}"))
        return tests, parameters

    def reference(self, column: Mapping[str, Any], path: Keys) -> str | None:
        """The column of another table among whose values these are to be."""
        own = self.table.column(column["name"]).references
        said = [str(one.get("to")) for one in column.get("relationships") or []]
        for one in said:
            table, _, name = one.partition(".")
            if table not in retail.TABLES or name not in retail.TABLES[table].names:
                raise self.refuse((*path[:-2], "relationships"), f"no column {one}")
        return said[0] if said else own


# What came, held against it ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Came:
    """What is known of a feed: the numbers that its promises are about.

    `locations` are those it has told of, and `began` the day on which it did so first. `rows` has, by
    location, how many came lately and, in the order of the promises, how many of them are not as agreed;
    `days` the rows by location and trading day; `touched` the days of which some came lately; `latest` when
    the newest of a location happened; `stopped` why files of it were refused.
    """

    now: datetime
    locations: Sequence[str] = ()
    began: Mapping[str, date] = field(default_factory=dict)
    rejected: int = 0
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    days: Mapping[tuple[str, date], int] = field(default_factory=dict)
    touched: frozenset[date] = frozenset()
    latest: Mapping[str, datetime] = field(default_factory=dict)
    stopped: Sequence[str] = ()


def found(contract: Contract, came: Came) -> list[Found]:
    """The promises that are not kept, by what is known of the feed now."""
    return [
        *(Found(None, "breached", f"stopped: {each}") for each in came.stopped),
        *_of_rejected(contract, came),
        *_of_rows(contract, came),
        *_of_volumes(contract, came),
        *_of_freshness(contract, came),
    ]


def states(
    came: Iterable[tuple[Contract, Came]], before: Iterable[str]
) -> dict[str, tuple[State, str]]:
    """How a feed stands by its contracts, and why, wherever it tells of or something was said `before`."""
    told: dict[str, list[Found]] = {each: [] for each in before}
    for contract, each in came:
        every = list(each.locations) or [EVERYWHERE]
        told |= {location: [] for location in every if location not in told}
        for one in found(contract, each):
            for location in every if one.location_id is None else [one.location_id]:
                told[location].append(one)
    return {location: _worst(several) for location, several in told.items()}


def _worst(several: Sequence[Found]) -> tuple[State, str]:
    if not several:
        return STATES[0], "it keeps its contract"
    ordered = sorted(several, key=lambda one: (-STATES.index(one.state), one.reason))
    return ordered[0].state, "; ".join(one.reason for one in ordered)


def _broken(promise: Promise, number: float, of: int) -> str | None:
    """In words that a limit is not kept, by so many of so many rows; None when it is."""
    measured = 100 * number / of if promise.percent else number
    if promise.limit.keeps(measured):
        return None
    amount = f"{measured:.3g} %" if promise.percent else f"{number:,g}"
    return f"{promise.said}: {amount} of {of:,} that came lately, {promise.limit} is agreed ({promise.id})"


def _of_rejected(contract: Contract, came: Came) -> Iterator[Found]:
    rows = came.rejected + sum(each[0] for each in came.rows.values())
    for promise in contract.rejected:
        if rows and (words := _broken(promise, came.rejected, rows)):
            yield Found(None, promise.state, words)


def _of_rows(contract: Contract, came: Came) -> Iterator[Found]:
    for location, (rows, *counts) in sorted(came.rows.items()):
        for promise, count in zip(contract.rows, counts, strict=True):
            if words := _broken(promise, count, rows):
                yield Found(location, promise.state, words)


def _of_volumes(contract: Contract, came: Came) -> Iterator[Found]:
    for promise in contract.volumes:
        last = contract.last_complete_day(came.now, promise.grace_hours)
        due = {last - timedelta(each) for each in range(promise.days)}
        for location in came.locations:
            if promise.locations and location not in promise.locations:
                continue
            began = came.began.get(location, date.min)
            for day in sorted(due | came.touched):
                many = came.days.get((location, day), 0)
                open_ = day.isoweekday() in promise.weekdays
                grows = day not in due or day < began or not open_
                if not promise.limit.keeps(many, most_only=grows):
                    words = f"{promise.said}: {many:,} of {day}, {promise.limit} is agreed ({promise.id})"
                    yield Found(location, promise.state, words)


def _of_freshness(contract: Contract, came: Came) -> Iterator[Found]:
    for promise in contract.freshness:
        since = came.now - timedelta(hours=promise.hours)
        for location in came.locations:
            if location not in came.latest or came.latest[location] < since:
                words = f"nothing has come of the last {promise.hours:g} hours ({promise.id})"
                yield Found(location, promise.state, words)


def broken_cells(
    contract: Contract, unreadable: Mapping[str, int], rows: int
) -> Iterator[tuple[str, str]]:
    """The columns of a file of which more cells cannot be read than was agreed, each with words for it."""
    for name, promise in contract.cells.items():
        share = 100 * unreadable.get(name, 0) / rows if promise.percent and rows else 0.0
        measured = share if promise.percent else unreadable.get(name, 0)
        if rows and not promise.limit.keeps(measured):
            amount = f"{measured:.3g} %" if promise.percent else f"{measured:,g}"
            yield name, f"{amount} of its {rows:,} cells cannot be read, {promise.limit} is agreed"
