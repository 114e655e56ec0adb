"""A checked rulebook as one vectorised query, prepared once and run on any number of rows.

Hides the SQL. Each rule becomes a state of two bits (silent, spoke, could not be told, clipped to nothing),
packed into words of 64 bits, so that a row's whole judgement is a few integers; what rows share (the value
of a group, what is left of a limit) is added up outside, where it costs a row nothing.

The rows come from a Python object that hands DuckDB another Arrow stream each time: the statement is
planned once, which is what makes one proposal as cheap as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from storekeep.errors import InvariantBroken, Transient
from storekeep.policy.reasons import currency
from storekeep.policy.rulebook import CLIPPED, Checked, CheckedLimit, CheckedRule
from storekeep.sql import literal, quoted

SILENT, SPOKE, UNTOLD, NOTHING_LEFT = range(4)
CLAUSES_PER_WORD = 32
LARGEST_AMOUNT = 10**12
ROW = "#row"
_JUDGE, _KEYS, _LIMIT = "judge", "keys", "limit "
_LARGEST_FIGURE = "1e15"
_CHUNK_ROWS = 122_880
_ARROW: Mapping[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
}

COULD_NOT_TELL: Mapping[str, str] = {
    "forbid": "It could not be told, so it is forbidden: ",
    "escalate": "It could not be told, so a person is asked: ",
    "clip": "The lower figure could not be worked out, so it is forbidden: ",
    "limit": "What it would use of the limit could not be told, so it is forbidden: ",
}
NOTHING_IS_LEFT = "Nothing would be left of it: "


class _Feed:
    """What DuckDB reads as a table: whichever rows it was last given."""

    def __init__(self, schema: pa.Schema) -> None:
        self.empty = schema.empty_table()
        self.rows = self.empty

    def __arrow_c_schema__(self) -> Any:
        return self.empty.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        reader = self.rows.to_reader(max_chunksize=_CHUNK_ROWS)
        return reader.__arrow_c_stream__(requested_schema)


class Query:
    """The prepared statements of one rulebook, on a database of their own; safe to share by threads."""

    def __init__(self, checked: Checked) -> None:
        text = _Text(checked)
        self.lowered = text.lowered
        self.words = text.words
        self.phrased = frozenset(one.id for one in checked.limits if not one.reason.plain)
        self.schema = _schema(text.columns, checked)
        self._lock = threading.Lock()
        self._connection = duckdb.connect(config={"enable_external_access": False})
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET enable_progress_bar = false")
        texts = {_JUDGE: (self.schema, text.judge()), _KEYS: (self.schema, text.keys())}
        for limit in checked.limits:
            if limit.id in self.phrased:
                texts[_LIMIT + limit.id] = (_phrased(limit, checked), _phrase(limit))
        self._feeds = {name: _Feed(schema) for name, (schema, _) in texts.items()}
        self._prepare({name: body for name, (_, body) in texts.items()})

    def judge(self, rows: pa.Table) -> pa.Table:
        """The words of states, lowered parameters, reasons and limits' amounts of each row, in order."""
        return self._run(_JUDGE, rows)

    def keys(self, rows: pa.Table) -> pa.Table:
        """The key under which each row uses each limit."""
        return self._run(_KEYS, rows)

    def phrase(self, limit: str, rows: pa.Table) -> pa.ChunkedArray:
        """The reason of a limit for rows of which it spoke; they bring `state`, `total` and `at_most`."""
        name = _LIMIT + limit
        return self._run(name, rows.select(self._feeds[name].empty.column_names))["reason"]

    def _prepare(self, texts: Mapping[str, str]) -> None:
        # Each new table makes DuckDB plan all statements again, so they are planned after the last one.
        for name, feed in self._feeds.items():
            self._connection.register(f"{name}_rows", feed)
        try:
            for name, text in texts.items():
                self._connection.execute(f"PREPARE {quoted(name)} AS {text}")
        except duckdb.Error as error:
            raise InvariantBroken(f"a checked rulebook cannot be compiled: {error}") from error

    def _run(self, name: str, rows: pa.Table) -> pa.Table:
        feed = self._feeds[name]
        with self._lock:
            feed.rows = rows
            try:
                return self._connection.execute(f"EXECUTE {quoted(name)}").to_arrow_table()
            except duckdb.OutOfMemoryException as error:
                raise Transient(f"judging {rows.num_rows} proposals ran out of memory") from error
            except duckdb.Error as error:
                raise InvariantBroken(f"a compiled rulebook cannot be run: {error}") from error
            finally:
                feed.rows = feed.empty


def before(effect: str, state: int) -> str:
    """What is said before a clause's reason, when it does not simply hold."""
    return {UNTOLD: COULD_NOT_TELL.get(effect, ""), NOTHING_LEFT: NOTHING_IS_LEFT}.get(state, "")


class _Text:
    """The SQL of a rulebook, level by level: facts, told, decided, phrased, lowered, derived."""

    def __init__(self, checked: Checked) -> None:
        self.rules = list(enumerate(checked.rules))
        self.limits = checked.limits
        self.types = checked.columns
        self.derived = checked.derived
        self.clips = [(place, rule) for place, rule in self.rules if rule.effect == "clip"]
        self.clippable = checked.clippable if self.clips else ()
        self.lowered = (*self.clippable, *(self.derived if self.clips else ()))
        self.words = -(-len(self.rules) // CLAUSES_PER_WORD)
        self.columns = sorted(self._needed())

    def judge(self) -> str:
        """One row in, one row out, in order."""
        return f"""
WITH facts AS (SELECT {quoted(ROW)}, {self._facts()} FROM judge_rows),
told AS (SELECT *, {self._told()} FROM facts),
decided AS (SELECT *, {self._decided()} FROM told),
phrased AS (SELECT *, {self._phrased()} FROM decided),
lowered AS (SELECT * {self._lowered()} FROM phrased),
derived AS (SELECT * {self._derived()} FROM lowered)
SELECT {self._last()} FROM derived"""

    def keys(self) -> str:
        """The key of each row under each limit."""
        found = [f"{_key(one)} AS {quoted(one.id)}" for one in self.limits]
        return f"SELECT {', '.join([quoted(ROW), *found])} FROM keys_rows"

    def _needed(self) -> set[str]:
        found = set(self.lowered)
        for _, rule in self.rules:
            found |= rule.when.columns
            found |= {name.removeprefix(CLIPPED) for name in rule.reason.columns}
            found.update(*(value.columns for _, value in rule.set))
        for limit in self.limits:
            found |= {*limit.by, *limit.amount.columns, *limit.at_most.columns}
            found |= limit.reason.columns - {"total", "at_most"}
        if self.clips:
            found.update(*(one.columns for one in self.derived.values()))
        return found

    def _facts(self) -> str:
        """A figure that is no number, or beyond all figures, is not known."""
        found = ['true AS "#true"']
        for name in self.columns:
            column = quoted(name)
            if self.types[name] in {"FLOAT", "DOUBLE"}:
                bounds = f"{column} BETWEEN -{_LARGEST_FIGURE} AND {_LARGEST_FIGURE}"
                column = f"CASE WHEN {bounds} THEN {column} END AS {column}"
            found.append(column)
        named = [name for _, rule in self.rules for name in rule.reason.columns]
        return ", ".join(found) + currency(named)

    def _told(self) -> str:
        found = [f"TRY({rule.when.sql()}) AS {quoted(f'#c{place}')}" for place, rule in self.rules]
        for place, rule in self.clips:
            for parameter, value in rule.set:
                down = value.sql() if self.types[parameter] == "DOUBLE" else f"floor({value.sql()})"
                new = f"TRY(CAST({down} AS {self.types[parameter]}))"
                found.append(f"{new} AS {quoted(f'#v{place}.{parameter}')}")
        return ", ".join(found)

    def _decided(self) -> str:
        found = ['false AS "#false"']
        for place, rule in self.clips:
            told = quoted(f"#c{place}")
            pairs = [(quoted(f"#v{place}.{name}"), quoted(name)) for name, _ in rule.set]
            unknown = " OR ".join(f"{new} IS NULL OR {old} IS NULL" for new, old in pairs)
            nothing = " OR ".join(f"{new} <= 0" for new, _ in pairs)
            lower = " OR ".join(f"{new} < {old}" for new, old in pairs)
            found.append(
                f"CASE WHEN NOT {told} THEN {SILENT} WHEN {told} IS NULL OR {unknown} THEN {UNTOLD} "
                f"WHEN {nothing} THEN {NOTHING_LEFT} WHEN {lower} THEN {SPOKE} ELSE {SILENT} END "
                f"AS {quoted(f'#s{place}')}"
            )
        return ", ".join(found)

    def _phrased(self) -> str:
        found = []
        for parameter in self.clippable:
            news = [
                f"CASE WHEN {quoted(f'#s{place}')} = {SPOKE} THEN {quoted(f'#v{place}.{parameter}')} END"
                for place, rule in self.clips
                if parameter in dict(rule.set)
            ]
            least = f"least({', '.join([quoted(parameter), *news])})"
            found.append(f"{least} AS {quoted(CLIPPED + parameter)}")
        for word in range(self.words):
            own = self.rules[word * CLAUSES_PER_WORD : (word + 1) * CLAUSES_PER_WORD]
            bits = [
                self._state(place, rule, 4 ** (place % CLAUSES_PER_WORD)) for place, rule in own
            ]
            found.append(f"{' | '.join(bits)} AS {quoted(f'#w{word}')}")
        return ", ".join(found)

    def _state(self, place: int, rule: CheckedRule, unit: int) -> str:
        told = quoted(f"#c{place}")
        if rule.effect == "clip":
            return f"(CAST({quoted(f'#s{place}')} AS UBIGINT) * {unit}::UBIGINT)"
        untold = (
            f"WHEN {told} IS NULL THEN {UNTOLD * unit}::UBIGINT " if rule.effect != "permit" else ""
        )
        return f"(CASE WHEN {told} THEN {SPOKE * unit}::UBIGINT {untold}ELSE 0::UBIGINT END)"

    def _reasons(self) -> list[str]:
        """What each rule says that has something of the row to say; nothing where it is silent."""
        found = []
        for place, rule in self.rules:
            if rule.reason.plain:
                continue
            speaks, opening = self._opening(place, rule)
            found.append(f"CASE WHEN {speaks} THEN {rule.reason.sql(opening)} END AS {quoted(f'#r{place}')}")
        return found

    def _opening(self, place: int, rule: CheckedRule) -> tuple[str, str]:
        """The SQL of whether a rule speaks, and of what it says before its reason."""
        told, state = quoted(f"#c{place}"), quoted(f"#s{place}")
        untold = literal(before(rule.effect, UNTOLD))
        if rule.effect == "permit":
            return told, "''"
        if rule.effect != "clip":
            return f"{told} IS DISTINCT FROM false", f"CASE WHEN {told} THEN '' ELSE {untold} END"
        nothing = literal(before(rule.effect, NOTHING_LEFT))
        whens = f"CASE {state} WHEN {UNTOLD} THEN {untold} WHEN {NOTHING_LEFT} THEN {nothing} ELSE '' END"
        return f"{state} <> {SILENT}", whens

    def _lowered(self) -> str:
        swaps = [f"{quoted(CLIPPED + name)} AS {quoted(name)}" for name in self.clippable]
        said = self._reasons()
        return (f"REPLACE ({', '.join(swaps)})" if swaps else "") + "".join(
            f", {one}" for one in said
        )

    def _derived(self) -> str:
        if not self.clips:
            return ""
        any_clip = " OR ".join(f"{quoted(f'#s{place}')} = {SPOKE}" for place, _ in self.clips)
        swaps = []
        for name, expression in self.derived.items():
            new = f"coalesce(TRY(CAST({expression.sql()} AS {self.types[name]})), {quoted(name)})"
            swaps.append(
                f"CASE WHEN {any_clip} THEN {new} ELSE {quoted(name)} END AS {quoted(name)}"
            )
        return f"REPLACE ({', '.join(swaps)})" if swaps else ""

    def _last(self) -> str:
        found = [ROW, *(f"#w{word}" for word in range(self.words)), *self.lowered]
        found += [f"#r{place}" for place, rule in self.rules if not rule.reason.plain]
        said = [quoted(name) for name in found]
        for place, limit in enumerate(self.limits):
            said.append(f"TRY(CAST({limit.amount.sql()} AS BIGINT)) AS {quoted(f'#a{place}')}")
            said.append(f"TRY(CAST({limit.at_most.sql()} AS DOUBLE)) AS {quoted(f'#m{place}')}")
            said.append(f"{_key(limit)} AS {quoted(f'#k{place}')}")
        return ", ".join(said)


def _key(limit: CheckedLimit) -> str:
    """The columns that share the limit, as `location_id=DC1&supplier_id=S1`; NULL if one is not known."""
    parts = []
    for name in limit.by:
        value = f"CAST({quoted(name)} AS VARCHAR)"
        if len(limit.by) > 1:
            value = f"replace(replace({value}, '\\', '\\\\'), '&', '\\&')"
        parts.append(f"{literal(name + '=')} || {value}")
    return " || '&' || ".join(parts) or "''"


def _phrased(self) -> str:
        found = []
        for parameter in self.clippable:
            news = [
                f"CASE WHEN {quoted(f'#s{place}')} = {SPOKE} THEN {quoted(f'#v{place}.{parameter}')} END"
                for place, rule in self.clips
                if parameter in dict(rule.set)
            ]
            least = f"least({', '.join([quoted(parameter), *news])})"
            found.append(f"{least} AS {quoted(CLIPPED + parameter)}")
        for word in range(self.words):
            own = self.rules[word * CLAUSES_PER_WORD : (word + 1) * CLAUSES_PER_WORD]
            bits = [
                self._state(place, rule, 4 ** (place % CLAUSES_PER_WORD)) for place, rule in own
            ]
            found.append(f"{' | '.join(bits)} AS {quoted(f'#w{word}')}")
        return ", ".join(found)

    def _state(self, place: int, rule: CheckedRule, unit: int) -> str:
        told = quoted(f"#c{place}")
        if rule.effect == "clip":
            return f"(CAST({quoted(f'#s{place}')} AS UBIGINT) * {unit}::UBIGINT)"
        untold = (
            f"WHEN {told} IS NULL THEN {UNTOLD * unit}::UBIGINT " if rule.effect != "permit" else ""
        )
        return f"(CASE WHEN {told} THEN {SPOKE * unit}::UBIGINT {untold}ELSE 0::UBIGINT END)"

    def _reasons(self) -> list[str]:
        """What each rule says that has something of the row to say; nothing where it is silent."""
        found = []
        for place, rule in self.rules:
            if rule.reason.plain:
                continue
            speaks, opening = self._opening(place, rule)
            found.append(f"CASE WHEN {speaks} THEN {rule.reason.sql(opening)} END AS {quoted(f'#r{place}')}")
        return found

    def _opening(self, place: int, rule: CheckedRule) -> tuple[str, str]:
        """The SQL of whether a rule speaks, and of what it says before its reason."""
        told, state = quoted(f"#c{place}"), quoted(f"#s{place}")
        untold = literal(before(rule.effect, UNTOLD))
        if rule.effect == "permit":
            return told, "''"
        if rule.effect != "clip":
            return f"{told} IS DISTINCT FROM false", f"CASE WHEN {told} THEN '' ELSE {untold} END"
        nothing = literal(before(rule.effect, NOTHING_LEFT))
        whens = f"CASE {state} WHEN {UNTOLD} THEN {untold} WHEN {NOTHING_LEFT} THEN {nothing} ELSE '' END"
        return f"{state} <> {SILENT}", whens

    def _lowered(self) -> str:
        swaps = [f"{quoted(CLIPPED + name)} AS {quoted(name)}" for name in self.clippable]
        said = self._reasons()
        return (f"REPLACE ({', '.join(swaps)})" if swaps else "") + "".join(
            f", {one}" for one in said
        )

    def _derived(self) -> str:
        if not self.clips:
            return ""
        any_clip = " OR ".join(f"{quoted(f'#s{place}')} = {SPOKE}" for place, _ in self.clips)
        swaps = []
        for name, expression in self.derived.items():
            new = f"coalesce(TRY(CAST({expression.sql()} AS {self.types[name]})), {quoted(name)})"
            swaps.append(
                f"CASE WHEN {any_clip} THEN {new} ELSE {quoted(name)} END AS {quoted(name)}"
            )
        return f"REPLACE ({', '.join(swaps)})" if swaps else ""

    def _last(self) -> str:
        found = [ROW, *(f"#w{word}" for word in range(self.words)), *self.lowered]
        found += [f"#r{place}" for place, rule in self.rules if not rule.reason.plain]
        said = [quoted(name) for name in found]
        for place, limit in enumerate(self.limits):
            said.append(f"TRY(CAST({limit.amount.sql()} AS BIGINT)) AS {quoted(f'#a{place}')}")
            said.append(f"TRY(CAST({limit.at_most.sql()} AS DOUBLE)) AS {quoted(f'#m{place}')}")
            said.append(f"{_key(limit)} AS {quoted(f'#k{place}')}")
        return ", ".join(said)


def _key(limit: CheckedLimit, types: Mapping[str, str]) -> str:
    """Canonical JSON of the columns that share the limit; NULL when one of them is not known."""
    parts = []
    for name in limit.by:
        shown = f"CAST({quoted(name)} AS VARCHAR)"
        if family(types[name]) in {Family.TEXT, Family.DATE}:
            shown = f"CAST(to_json({shown}) AS VARCHAR)"
        value = f"CASE WHEN {quoted(name)} IS NOT NULL THEN {shown} END"
        parts.append(f"{literal(canonical.text([name])[1:-1] + ':')} || {value}")
    inside = " || ',' || ".join(parts)
    return f"'{{' || {inside} || '}}'" if parts else "'{}'"


def _phrased(limit: CheckedLimit, checked: Checked) -> pa.Schema:
    more = {"state": pa.int64(), "total": pa.int64(), "at_most": pa.float64()}
    names = sorted(limit.reason.columns - set(more))
    kept = [one for one in _schema(names, checked) if one.name != ROW]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in more.items())])


def _phrase(limit: CheckedLimit) -> str:
    untold = f"CASE WHEN state = {UNTOLD} THEN {literal(before('limit', UNTOLD))} ELSE '' END"
    money = currency(limit.reason.columns)
    rows = quoted(f"{_LIMIT}{limit.id}_rows")
    return f"SELECT {limit.reason.sql(untold)} AS reason FROM (SELECT *{money} FROM {rows})"


def _schema(names: Iterable[str], checked: Checked) -> pa.Schema:
    fields = [(ROW, pa.int64())]
    for name in names:
        kind = _ARROW.get(checked.columns[name].upper())
        if kind is None:
            raise InvariantBroken(f"column {name} of type {checked.columns[name]} cannot be judged")
        fields.append((name, kind))
    return pa.schema(fields)
