"""Features as they were known at the time of each label: the join that training data are made by.

Hides how a million labels find their rows: subjects as small numbers, the rows' times alone sorted and met,
and only then the values, of the rows that were met. What was known later is not seen, and of two rows that
were known the one that happened later counts, whenever it came. A value that there is not is never passed
over in silence: it is the declared default, a null where null is declared to be a value, or a refusal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storekeep import sql
from storekeep.decisions import stamp
from storekeep.errors import InvariantBroken, Misused, Permanent, Refused
from storekeep.features.declaring import KEY_KINDS, Checked
from storekeep.features.definition import Feature
from storekeep.lake import Outside
from storekeep.retail import ARROW, DUCKDB
from storekeep.sql import Family, literal, quoted

MEMORY = "4GiB"
BATCH_ROWS = 122_880
_ROW = "(file_index::BIGINT << 40) + file_row_number"


@dataclass(frozen=True)
class Wanted:
    """Some features of one set, and the rows that they are read from."""

    checked: Checked
    outside: Outside
    names: tuple[str, ...]

    @property
    def features(self) -> list[Feature]:
        """The features, in the order asked for."""
        return [self.checked.declared.feature(name) for name in self.names]


@dataclass
class Missing:
    """Of one feature, how many labels have the default or null, and of them how many for which reason.

    `before`: nothing was known of the subject yet; `stale`: what was known held no more. The others' row has
    no value.
    """

    before: int = 0
    stale: int = 0
    null: int = 0


@dataclass
class Joined:
    """Labels with features beside them, in the labels' order; what was missing is complete at the end."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    missing: dict[str, Missing] = field(default_factory=dict)

    def table(self) -> pa.Table:
        """All of it at once."""
        return pa.Table.from_batches(self.batches, self.schema)


def labels_of(path: Path) -> pa.Table:
    """Labels from a Parquet file; raises `Misused` when it is none."""
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise Misused(f"{path} cannot be read as Parquet: {error}") from None


def history(
    labels: pa.Table, wanted: Sequence[Wanted], *, at: str | None = None, memory: str = MEMORY
) -> Joined:
    """Each label with the features of its subject as they were known at its time.

    `labels` has the keys of each set, and a time with a zone: the column `at`, or the only one there is. One
    row for each label, in their order, with a column for each feature. `memory` is what may be used before
    the disk is.
    Raises `Misused` for labels that do not fit, `Refused` where a value is missing that must not be, naming
    the feature, the subject and the time.
    """
    time = _time_of(labels, at)
    for one in wanted:
        _fits(labels, one)
    names = [name for one in wanted for name in one.names]
    taken = [name for name in names if name in labels.column_names or names.count(name) > 1]
    if taken:
        raise Misused(f"{taken[0]} would be there twice: the labels, or two sets, have it")
    fields = [_field(one, each) for one in wanted for each in one.features]
    schema = pa.schema([*labels.schema, *fields])
    missing = {name: Missing() for name in names}
    join = _Join(labels, time, wanted, missing)
    return Joined(schema, _batches(join, schema, memory), missing)


def latest(one: Wanted, known_by: datetime, *, memory: str = MEMORY) -> Iterator[pa.RecordBatch]:
    """Of every subject the newest values known by a time, by the same join: keys, `__occurred`, and values.

    They are as their row has them, whether or not they still hold, and null where it has none.
    """
    keys = ", ".join(map(quoted, one.checked.declared.keys))
    moment = int(known_by.timestamp() * 1_000_000)
    with _workspace(memory) as connection:
        connection.execute(
            "CREATE TEMP TABLE label_row AS SELECT row_number() OVER () - 1 AS __n,"
            f" make_timestamptz({moment}) AS __time, {keys}"
            f" FROM (SELECT DISTINCT {keys} FROM {one.outside.relation()})"
            f" WHERE NOT ({' OR '.join(f'{quoted(key)} IS NULL' for key in one.checked.declared.keys)})"
        )
        _meet(connection, 0, one)
        values = ", ".join(f"{_value(one, each)} AS {quoted(each.name)}" for each in one.features)
        yield from connection.execute(
            f"SELECT {keys}, make_timestamptz(__occurred) AS __occurred, {values} FROM met0 JOIN"
            f" (SELECT *, {_ROW} AS __row FROM {one.outside.relation()}) USING (__row)"
        ).to_arrow_reader(BATCH_ROWS)


def _time_of(labels: pa.Table, at: str | None) -> str:
    times = [each.name for each in labels.schema if pa.types.is_timestamp(each.type)]
    if at is None and len(times) != 1:
        found = ", ".join(times) or "none"
        raise Misused(
            f"which column tells the time of a label? Name one; of times there are: {found}"
        )
    name = times[0] if at is None else at
    if name not in times:
        raise Misused(
            f"the labels have no time {name}; of times there are: {', '.join(times) or 'none'}"
        )
    if labels.schema.field(name).type.tz is None:
        raise Misused(f"the times in {name} have no time zone: give them one, such as UTC")
    if labels[name].null_count:
        row = labels[name].is_null().index(True).as_py()
        raise Misused(f"label {row} (counted from 0) has no {name}")
    return name


def _fits(labels: pa.Table, one: Wanted) -> None:
    """Whether the labels have the keys of a set, of the right kind, none of them null."""
    for key, kind in one.checked.declared.keys.items():
        about = f"feature {one.names[0]} is of a {key}"
        if key not in labels.column_names:
            raise Misused(
                f"{about}, and the labels have none; they have: {', '.join(labels.column_names)}"
            )
        if _family(labels.schema.field(key).type) not in KEY_KINDS[kind]:
            type_ = labels.schema.field(key).type
            raise Misused(f"{about} that is {kind}, and {key} of the labels is {type_}")
        if labels[key].null_count:
            row = labels[key].is_null().index(True).as_py()
            raise Misused(f"{about}, and label {row} (counted from 0) has none")


def _family(type_: pa.DataType) -> Family | None:
    plain = type_.value_type if pa.types.is_dictionary(type_) else type_
    if (
        pa.types.is_string(plain)
        or pa.types.is_large_string(plain)
        or pa.types.is_string_view(plain)
    ):
        return Family.TEXT
    if pa.types.is_integer(plain):
        return Family.INTEGER
    if pa.types.is_date(plain):
        return Family.DATE
    return Family.BOOLEAN if pa.types.is_boolean(plain) else None


def _field(one: Wanted, each: Feature) -> pa.Field:
    """The column of a feature, which says what it is and of which version."""
    declared = one.checked.declared
    version = f"{declared.name}:{declared.versions[each.name]}"
    said = {"unit": each.unit or "", "privacy": each.privacy, "version": version}
    return pa.field(each.name, ARROW[each.kind], metadata=said)


# The join ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Join:
    """What is joined: the labels, their times, and what is wanted beside them."""

    labels: pa.Table
    time: str
    wanted: Sequence[Wanted]
    missing: Mapping[str, Missing]

    def rows(self) -> pa.Table:
        """The labels' keys and times, numbered."""
        keys = dict.fromkeys(key for one in self.wanted for key in one.checked.declared.keys)
        numbers = pa.array(np.arange(self.labels.num_rows))
        return (
            self.labels.select(list(keys))
            .add_column(0, "__n", numbers)
            .append_column("__time", self.labels[self.time])
        )

    def about(self, one: Wanted, row: int) -> str:
        """Whom a label is about, and when."""
        label = self.labels.slice(row, 1)
        keys = ", ".join(f"{key}={label[key][0].as_py()}" for key in one.checked.declared.keys)
        return f"{keys} at {stamp(label[self.time][0].as_py())}"


def _batches(join: _Join, schema: pa.Schema, memory: str) -> Iterator[pa.RecordBatch]:
    start = 0
    with _workspace(memory) as connection:
        connection.register("label_row", join.rows())
        for place, one in enumerate(join.wanted):
            _meet(connection, place, one)
            _count_missing(connection, place, one, join)
        for found in connection.execute(_values(join.wanted)).to_arrow_reader(BATCH_ROWS):
            columns = _filled(found, join, start)
            beside = join.labels.slice(start, found.num_rows).combine_chunks()
            start += found.num_rows
            parts = [column.chunk(0) for column in beside.columns] if found.num_rows else []
            if parts:
                yield pa.RecordBatch.from_arrays([*parts, *columns], schema=schema)
    for counted in join.missing.values():
        counted.null -= counted.before + counted.stale
    if start != join.labels.num_rows:
        raise InvariantBroken(f"of {join.labels.num_rows} labels {start} were joined")


@contextmanager
def _workspace(memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of its own, bounded in memory, that takes to the disk what is above."""
    with tempfile.TemporaryDirectory(prefix="storekeep-history-") as folder:
        try:
            connection = duckdb.connect(config={"memory_limit": memory, "temp_directory": folder})
        except duckdb.Error:
            raise Misused(f"{memory!r} is no size of memory; write one such as 2GiB") from None
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET enable_progress_bar = false")
            # Of an Arrow table it does not know how long it is, and would compare every pair.
            connection.execute("SET asof_loop_join_threshold = 0")
            yield connection
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            said = str(error).partition("\n")[0]
            raise Permanent(
                f"features cannot be read: {said}; see that {folder} has room"
            ) from None
        except duckdb.Error as error:
            raise Refused(f"features cannot be read: {str(error).partition(chr(10))[0]}") from None
        finally:
            connection.close()


def _instant(column: str, type_: str, time_zone: str | None) -> str:
    """A time of the source in microseconds, to be compared."""
    here = quoted(column)
    if sql.family(type_) is not Family.INSTANT:
        here = f"timezone({literal(time_zone or 'UTC')}, {here})"
    return f"epoch_us({here})"


def _meet(connection: duckdb.DuckDBPyConnection, place: int, one: Wanted) -> None:
    """Find for each label the row of the source that counts: its number, and when it came to be so."""
    declared, types = one.checked.declared, one.checked.types
    keys = ", ".join(map(quoted, declared.keys))
    source = declared.source
    occurred = _instant(source.occurred_at, types[source.occurred_at], source.time_zone)
    known = source.known_at or source.occurred_at
    learned = _instant(known, types[known], source.time_zone)
    connection.execute(
        f"CREATE TEMP TABLE subject{place} AS SELECT row_number() OVER ()::INTEGER AS __code, {keys}"
        f" FROM (SELECT DISTINCT {keys} FROM label_row)"
    )
    connection.execute(
        f"CREATE TEMP TABLE told{place} AS SELECT __code, {occurred} AS __occurred, {learned} AS __known,"
        f" greatest({occurred}, {learned}) AS __seen, {_ROW} AS __row"
        f" FROM {one.outside.relation()} JOIN subject{place} USING ({keys})"
        f" WHERE {quoted(source.occurred_at)} IS NULL OR {quoted(known)} IS NULL OR {occurred} <="
        " (SELECT max(epoch_us(__time)) FROM label_row)"
    )
    counts = _counting(connection, place, one)
    connection.execute(
        f"CREATE TEMP TABLE met{place} AS SELECT __n, __moment, __occurred, __row FROM"
        f" (SELECT __n, __code, epoch_us(__time) AS __moment FROM label_row JOIN subject{place}"
        f" USING ({keys})) AS label ASOF LEFT JOIN {counts} AS row"
        " ON label.__code = row.__code AND label.__moment >= row.__seen"
    )
    connection.execute(f"DROP TABLE told{place}")
    connection.execute(f"DROP TABLE IF EXISTS seen{place}")


def _counting(connection: duckdb.DuckDBPyConnection, place: int, one: Wanted) -> str:
    """The rows that count when they are seen; refuse those of which it cannot be told."""
    overtaken = connection.execute(
        "SELECT coalesce(bool_or(shortest < longest), false) FROM (SELECT min(__known - __occurred) AS"
        f" shortest, max(__known - __occurred) AS longest FROM told{place} GROUP BY __code)"
    ).fetchall()[0][0]
    if not overtaken:
        # All of a subject were known as long after they occurred, so that none came after a later one.
        alike = f"SELECT 1 FROM told{place} GROUP BY __code, __occurred HAVING count(*) > 1"
        _unambiguous(connection, place, one, alike)
        return f"told{place}"
    # A row that came after a later one never counts; of rows that are seen at once the last one does.
    connection.execute(
        f"CREATE TEMP TABLE seen{place} AS SELECT __code, __seen, __occurred, __row,"
        " lead(__seen) OVER told = __seen AND lead(__occurred) OVER told = __occurred"
        " AND lead(__known) OVER told = __known AS __twice, lead(__seen) OVER told IS DISTINCT FROM __seen"
        " AND __occurred = max(__occurred) OVER (told ROWS UNBOUNDED PRECEDING) AS __counts"
        f" FROM told{place} WINDOW told AS (PARTITION BY __code ORDER BY __seen, __occurred, __known)"
    )
    _unambiguous(connection, place, one, f"SELECT 1 FROM seen{place} WHERE __twice")
    return f"(SELECT * FROM seen{place} WHERE __counts)"


def _unambiguous(
    connection: duckdb.DuckDBPyConnection, place: int, one: Wanted, alike: str
) -> None:
    """Refuse rows without a time, and rows of one subject and time that do not say the same."""
    declared = one.checked.declared
    without, several = connection.execute(
        f"SELECT (SELECT count(*) FROM told{place} WHERE __occurred IS NULL OR __known IS NULL),"
        f" (SELECT count(*) FROM ({alike}))"
    ).fetchall()[0]
    if without:
        raise Refused(
            f"features {declared.name}: {without} rows of {one.outside.path} have no time in"
            f" {declared.source.occurred_at} or {declared.source.known_at or declared.source.occurred_at}"
        )
    if not several:
        return
    keys = ", ".join(f"any_value({quoted(key)})" for key in declared.keys)
    values = ", ".join(one.checked.expressions[name].sql() for name in one.names)
    found = connection.execute(
        f"SELECT {keys}, __occurred FROM (SELECT * FROM told{place} QUALIFY count(*) OVER"
        f" (PARTITION BY __code, __occurred, __known) > 1) JOIN (SELECT *, {_ROW} AS __row FROM"
        f" {one.outside.relation()}) USING (__row) GROUP BY __code, __occurred, __known"
        f" HAVING count(DISTINCT ({values}, 0)) > 1 ORDER BY ALL LIMIT 1"
    ).fetchone()
    if found is not None:
        subject = ", ".join(
            f"{key}={value}" for key, value in zip(declared.keys, found, strict=False)
        )
        raise Refused(
            f"feature {one.names[0]}: {one.outside.path} has several values of {subject} at"
            f" {_stamp(found[-1])}, and nothing tells which of them counts; name the column that does with"
            " Source(known_at=…)"
        )


def _stamp(microseconds: int) -> str:
    return stamp(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds))


def _count_missing(
    connection: duckdb.DuckDBPyConnection, place: int, one: Wanted, join: _Join
) -> None:
    """Count the labels without a row, or with one that holds no more; refuse where there must be a value."""
    declared = one.checked.declared
    for each in one.features:
        limit = _microseconds(declared.limit(each))
        before, stale, first = connection.execute(
            "SELECT count(*) FILTER (__occurred IS NULL),"
            f" count(*) FILTER (__moment - __occurred > {limit}),"
            f" min(__n) FILTER (__occurred IS NULL OR __moment - __occurred > {limit}) FROM met{place}"
        ).fetchall()[0]
        found = join.missing[each.name]
        found.before, found.stale = before, stale
        if first is None or each.nullable or each.default is not None:
            continue
        occurred = connection.execute(
            f"SELECT __occurred FROM met{place} WHERE __n = ?", [first]
        ).fetchall()[0][0]
        why = "nothing was known of it yet"
        if occurred is not None:
            limit_ = declared.limit(each)
            why = f"the last that was known is of {_stamp(occurred)}, and holds for {limit_}"
        raise Refused(
            f"feature {each.name} of {join.about(one, first)} (label {first}, counted from 0) has no value:"
            f" {why}; so it is of {before + stale} labels in all. Leave them out, or declare a default"
            " or nullable=True"
        )


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _values(wanted: Sequence[Wanted]) -> str:
    """The question for the values of the rows that were met, in the labels' order."""
    parts = []
    for place, one in enumerate(wanted):
        declared = one.checked.declared
        columns = ", ".join(
            f"CASE WHEN __moment - __occurred <= {_microseconds(declared.limit(each))}"
            f" THEN {_value(one, each)} END AS {quoted(each.name)}"
            for each in one.features
        )
        parts.append(
            f"(SELECT __n, {columns} FROM met{place} LEFT JOIN (SELECT *, {_ROW} AS __row FROM"
            f" {one.outside.relation()}) USING (__row))"
        )
    joined = parts[0] + "".join(f" JOIN {part} USING (__n)" for part in parts[1:])
    names = ", ".join(quoted(name) for one in wanted for name in one.names)
    return f"SELECT {names} FROM {joined} ORDER BY __n"


def _value(one: Wanted, each: Feature) -> str:
    """The value that a row gives a feature."""
    return f"CAST({one.checked.expressions[each.name].sql()} AS {DUCKDB[each.kind]})"


def _filled(found: pa.RecordBatch, join: _Join, start: int) -> list[pa.Array]:
    """The values of a batch of labels, those that are missing filled in as was declared."""
    columns = []
    for one in join.wanted:
        for each in one.features:
            column = found.column(each.name)
            if column.null_count:
                join.missing[each.name].null += column.null_count
                column = _without_nulls(column, each, join, one, start)
            columns.append(column)
    return columns


def _without_nulls(
    column: pa.Array, each: Feature, join: _Join, one: Wanted, start: int
) -> pa.Array:
    if each.default is not None:
        return pc.fill_null(column, pa.scalar(each.default, column.type))
    if each.nullable:
        return column
    row = start + column.is_null().index(True).as_py()
    raise Refused(
        f"feature {each.name} of {join.about(one, row)} (label {row}, counted from 0) has no value: its row"
        f" in {one.outside.path} has none; declare a default or nullable=True"
    )
