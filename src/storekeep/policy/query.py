"""A checked rulebook as one vectorised query, prepared once and run on any number of rows.

Hides the SQL. Each rule becomes a state of two bits (silent, spoke, could not be told, clipped to nothing),
packed into words of 64 bits, so that a row's whole judgement is a few integers; what rows share (the value
of a group, what is left of a limit) is added up outside, where it costs a row nothing.

The rows come from a dataset that hands DuckDB another Arrow stream each time: the statement is planned
once, which is what makes one proposal as cheap as it is.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Iterator, Mapping

import duckdb
import pyarrow as pa
from pyarrow import dataset

from storekeep.errors import InvariantBroken, Transient
from storekeep.policy.reasons import LARGEST_FIGURE
from storekeep.policy.rulebook import CLIPPED, Checked, CheckedLimit
from storekeep.sql import literal, quoted

SILENT, SPOKE, UNTOLD, NOTHING_LEFT = range(4)
CLAUSES_PER_WORD = 32
LARGEST_AMOUNT = 10**12
ROW = "#row"
_JUDGE, _KEYS = "judge", "keys"
_BOUNDS, _DERIVE = "bounds", "derive"
LIMITS_OWN = frozenset({"total", "at_most"})
_FRACTIONS = frozenset({"FLOAT", "DOUBLE"})
_CHUNK_ROWS = 122_880
_ARROW: Mapping[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
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


class _Feed(dataset.InMemoryDataset):  # type: ignore[misc] # pyarrow has no types
    """What DuckDB reads as a table: whichever rows it was last given.

    It is a dataset since of anything else DuckDB would have pyarrow make one, at each reading.
    """

    rows: pa.Table

    def scanner(self, columns: list[str], **_: object) -> _Rows:
        """The columns that DuckDB asks for."""
        return _Rows(self.rows.select(columns))


class _Rows:
    """Rows as DuckDB asks a scanner for them."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows, some thousands at a time."""
        return self._rows.to_reader(max_chunksize=_CHUNK_ROWS)


@functools.cache
def _database() -> duckdb.DuckDBPyConnection:
    """An empty database that all rulebooks share, each through a connection of its own."""
    return duckdb.connect(config={"enable_external_access": False})


class Query:
    """The prepared statements of one rulebook, on a connection of their own; safe to share by threads."""

    def __init__(self, checked: Checked) -> None:
        text = _Text(checked)
        self.lowered = text.lowered
        self.words = text.words
        self.schema = _schema(text.columns, checked)
        self._lock = threading.Lock()
        self._connection = _database().cursor()
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET enable_progress_bar = false")
        texts = {_JUDGE: (self.schema, text.judge()), _KEYS: (self.schema, text.keys())}
        if text.changes:
            texts |= {_BOUNDS: (self.schema, text.bounds()), _DERIVE: (self.schema, text.derive())}
        self._empty = {name: schema.empty_table() for name, (schema, _) in texts.items()}
        self._feeds = {name: _Feed(rows) for name, rows in self._empty.items()}
        self._prepare({name: body for name, (_, body) in texts.items()})

    def judge(self, rows: pa.Table) -> pa.Table:
        """The words of states, lowered parameters and limits' amounts of each row, in order."""
        return self._in_order(_JUDGE, rows)

    def keys(self, rows: pa.Table) -> pa.Table:
        """The key under which each row uses each limit, and how much (`#a`) of it as it stands."""
        return self._run(_KEYS, rows)

    def bounds(self, rows: pa.Table) -> pa.Table:
        """What an approver may change each row's parameters to, by rule and parameter, a row after a row.

        A side without a bound is infinite, and a bound that cannot be told is NULL.
        """
        return self._run(_BOUNDS, rows)

    def derive(self, rows: pa.Table) -> pa.Table:
        """What derives from the parameters of each row, computed again, in order."""
        return self._run(_DERIVE, rows)

    def _prepare(self, texts: Mapping[str, str]) -> None:
        # Each new table makes DuckDB plan all statements again, so they are planned after the last one.
        for name, feed in self._feeds.items():
            self._connection.register(f"{name}_rows", feed)
        try:
            for name, text in texts.items():
                self._connection.execute(f"PREPARE {quoted(name)} AS {text}")
        except duckdb.Error as error:
            raise InvariantBroken(f"a checked rulebook cannot be compiled: {error}") from error

    def _in_order(self, name: str, rows: pa.Table) -> pa.Table:
        """A row for each row, in one piece; DuckDB keeps their order, and that it did is made sure of."""
        told = self._run(name, rows).combine_chunks()
        if not told[ROW].equals(rows[ROW]):
            raise InvariantBroken("the rows of a judgement came back in another order")
        return told

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
                feed.rows = self._empty[name]


def any_row(condition: str, rows: pa.Table, *, untold: bool) -> bool:
    """Whether a checked condition holds for at least one row; `untold` is for a row that does not tell."""
    with _database().cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("facts", rows)
        found = connection.execute(
            f"SELECT count(*) > 0 FROM facts WHERE coalesce(TRY({condition}), $untold)",
            {"untold": untold},
        ).fetchone()
    return bool(found and found[0])


def before(effect: str, state: int) -> str:
    """What is said before a clause's reason, when it does not simply hold."""
    return {UNTOLD: COULD_NOT_TELL.get(effect, ""), NOTHING_LEFT: NOTHING_IS_LEFT}.get(state, "")


class _Text:
    """The SQL of a rulebook, level upon level, each one adding columns to those of the level below.

    facts: the row's columns; told: each rule's condition (`#c`) and what a clip would set (`#v`); decided:
    the clips' states (`#s`); clipped: what is left of each parameter; said: words of states (`#w`); lowered
    and derived: the parameters as the limits see them.

    """

    def __init__(self, checked: Checked) -> None:
        self.rules = list(enumerate(checked.rules))
        self.limits = checked.limits
        self.types = checked.columns
        self.clips = [(place, rule) for place, rule in self.rules if rule.effect == "clip"]
        self.clippable = checked.action.clippable if self.clips else ()
        self.changes = [(rule.id, one) for _, rule in self.rules for one in rule.changes]
        self.derived = checked.derived if self.clips or self.changes else {}
        self.lowered = (*self.clippable, *self.derived) if self.clips else ()
        self.words = -(-len(self.rules) // CLAUSES_PER_WORD)
        self.columns = sorted(self._needed())

    def judge(self) -> str:
        """One row in, one row out, in order."""
        lowered = [f"{quoted(CLIPPED + name)} AS {quoted(name)}" for name in self.clippable]
        levels = [
            f"facts AS (SELECT {', '.join([quoted(ROW), *self._facts()])} FROM judge_rows)",
            f"told AS (SELECT {_more(self._told())} FROM facts)",
            f"decided AS (SELECT {_more(self._decided())} FROM told)",
            f"clipped AS (SELECT {_more(self._clipped())} FROM decided)",
            f"said AS (SELECT {_more(self._words())} FROM clipped)",
            f"lowered AS (SELECT * {_replace(lowered)} FROM said)",
            f"derived AS (SELECT * {_replace(self._derived())} FROM lowered)",
        ]
        return f"WITH {', '.join(levels)} SELECT {', '.join(self._results())} FROM derived"

    def keys(self) -> str:
        """The key of each row under each limit, and its amount."""
        found = [f"{_key(limit)} AS {quoted(limit.id)}" for limit in self.limits]
        found += [_amount(place, limit) for place, limit in enumerate(self.limits)]
        return f"SELECT {', '.join([quoted(ROW), *found])} FROM keys_rows"

    def bounds(self) -> str:
        """For each row and each change that a rule allows: rule, parameter and bounds."""
        parts = []
        for rule, one in self.changes:
            sides = ((one.at_least, "-inf"), (one.at_most, "inf"))
            least, most = (
                f"TRY(CAST({side.sql()} AS DOUBLE))" if side else f"'{none}'::DOUBLE"
                for side, none in sides
            )
            parts.append(
                f"SELECT {quoted(ROW)}, {literal(rule)} AS rule, {literal(one.parameter)} AS parameter,"
                f" {least} AS at_least, {most} AS at_most FROM facts"
            )
        facts = ", ".join([quoted(ROW), *self._facts()])
        listed = " UNION ALL ".join(parts)
        return (
            f"WITH facts AS (SELECT {facts} FROM bounds_rows) {listed} ORDER BY {quoted(ROW)}, rule"
        )

    def derive(self) -> str:
        """The derived parameters of each row, NULL where they cannot be computed."""
        found = [
            f"TRY(CAST({value.sql()} AS {self.types[name]})) AS {quoted(name)}"
            for name, value in self.derived.items()
        ]
        return f"SELECT {', '.join([quoted(ROW), *found])} FROM derive_rows ORDER BY {quoted(ROW)}"

    def _needed(self) -> set[str]:
        found = set(self.lowered)
        for _, one in self.changes:
            found |= {one.parameter}.union(
                *(side.columns for side in (one.at_least, one.at_most) if side)
            )
        for _, rule in self.rules:
            found |= rule.when.columns
            found |= {name.removeprefix(CLIPPED) for name in rule.reason.columns}
            found.update(*(value.columns for _, value in rule.set))
        for limit in self.limits:
            found |= {*limit.by, *limit.amount.columns, *limit.at_most.columns}
            found |= limit.reason.columns - LIMITS_OWN
        return found.union(*(one.columns for one in self.derived.values()))

    def _facts(self) -> Iterator[str]:
        """The columns; a figure that is no number, or beyond all figures, is not known."""
        return (_known(name, self.types[name]) for name in self.columns)

    def _told(self) -> Iterator[str]:
        for place, rule in self.rules:
            yield f"TRY({rule.when.sql()}) AS {quoted(f'#c{place}')}"
            for name, value in rule.set:
                whole = value.sql() if self.types[name] in _FRACTIONS else f"floor({value.sql()})"
                new = f"TRY(CAST({whole} AS {self.types[name]}))"
                yield f"{new} AS {quoted(f'#v{place}.{name}')}"

    def _decided(self) -> Iterator[str]:
        for place, rule in self.clips:
            told = quoted(f"#c{place}")
            pairs = [(quoted(f"#v{place}.{name}"), quoted(name)) for name, _ in rule.set]
            unknown = " OR ".join(f"{new} IS NULL OR {old} IS NULL" for new, old in pairs)
            nothing = " OR ".join(f"{new} <= 0" for new, _ in pairs)
            lower = " OR ".join(f"{new} < {old}" for new, old in pairs)
            yield (
                f"CASE WHEN NOT {told} THEN {SILENT} WHEN {told} IS NULL OR {unknown} THEN {UNTOLD} "
                f"WHEN {nothing} THEN {NOTHING_LEFT} WHEN {lower} THEN {SPOKE} ELSE {SILENT} END "
                f"AS {quoted(f'#s{place}')}"
            )

    def _clipped(self) -> Iterator[str]:
        """The lowest of what was proposed and what the clips that spoke set."""
        for name in self.clippable:
            values = [quoted(name)]
            for place, rule in self.clips:
                if name in dict(rule.set):
                    spoke = f"{quoted(f'#s{place}')} = {SPOKE}"
                    values.append(f"CASE WHEN {spoke} THEN {quoted(f'#v{place}.{name}')} END")
            yield f"least({', '.join(values)}) AS {quoted(CLIPPED + name)}"

    def _words(self) -> Iterator[str]:
        for word in range(self.words):
            bits = []
            for place, rule in self.rules[word * CLAUSES_PER_WORD :][:CLAUSES_PER_WORD]:
                told, unit = quoted(f"#c{place}"), 4 ** (place % CLAUSES_PER_WORD)
                spoke, untold = f"{SPOKE * unit}::UBIGINT", f"{UNTOLD * unit}::UBIGINT"
                if rule.effect == "clip":
                    bits.append(f"CAST({quoted(f'#s{place}')} AS UBIGINT) * {unit}::UBIGINT")
                elif rule.effect == "permit":
                    bits.append(f"CASE WHEN {told} THEN {spoke} ELSE 0::UBIGINT END")
                else:
                    rest = f"WHEN {told} IS NULL THEN {untold} ELSE 0::UBIGINT"
                    bits.append(f"CASE WHEN {told} THEN {spoke} {rest} END")
            yield " | ".join(f"({one})" for one in bits) + f" AS {quoted(f'#w{word}')}"

    def _derived(self) -> Iterator[str]:
        clipped = " OR ".join(f"{quoted(f'#s{place}')} = {SPOKE}" for place, _ in self.clips)
        for name, value in self.derived.items() if self.clips else ():
            new = f"coalesce(TRY(CAST({value.sql()} AS {self.types[name]})), {quoted(name)})"
            yield f"CASE WHEN {clipped} THEN {new} ELSE {quoted(name)} END AS {quoted(name)}"

    def _results(self) -> Iterator[str]:
        yield quoted(ROW)
        yield from (quoted(f"#w{word}") for word in range(self.words))
        yield from (quoted(name) for name in self.lowered)
        for place, limit in enumerate(self.limits):
            yield _amount(place, limit)
            yield f"TRY(CAST({limit.at_most.sql()} AS DOUBLE)) AS {quoted(f'#m{place}')}"
            yield f"{_key(limit)} AS {quoted(f'#k{place}')}"


def _more(columns: Iterable[str]) -> str:
    return ", ".join(["*", *columns])


def _replace(columns: Iterable[str]) -> str:
    listed = ", ".join(columns)
    return f"REPLACE ({listed})" if listed else ""


def _amount(place: int, limit: CheckedLimit) -> str:
    return f"TRY(CAST({limit.amount.sql()} AS BIGINT)) AS {quoted(f'#a{place}')}"


def _key(limit: CheckedLimit) -> str:
    """The columns that share the limit, as `location_id=DC1&supplier_id=S1`; NULL if one is not known."""
    parts = []
    for name in limit.by:
        value = f"CAST({quoted(name)} AS VARCHAR)"
        if len(limit.by) > 1:
            value = f"replace(replace({value}, '\\', '\\\\'), '&', '\\&')"
        parts.append(f"{literal(name + '=')} || {value}")
    return " || '&' || ".join(parts) or "''"


def _known(name: str, kind: str) -> str:
    """The SQL of a column; a figure that is no number, or beyond all figures, is not known."""
    column = quoted(name)
    if kind not in _FRACTIONS:
        return column
    bounds = f"{column} BETWEEN -{LARGEST_FIGURE} AND {LARGEST_FIGURE}"
    return f"CASE WHEN {bounds} THEN {column} END AS {column}"


def _schema(names: Iterable[str], checked: Checked) -> pa.Schema:
    types = {name: checked.columns[name] for name in names}
    return pa.schema([(ROW, pa.int64()), *arrow(types)])


def arrow(types: Mapping[str, str]) -> pa.Schema:
    """Columns of these DuckDB types as Arrow has them."""
    fields = []
    for name, kind in types.items():
        if kind not in _ARROW:
            raise InvariantBroken(f"column {name} of type {kind} cannot be judged")
        fields.append((name, _ARROW[kind]))
    return pa.schema(fields)
