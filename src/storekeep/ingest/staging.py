"""A file read to its end into a table of judged rows, in DuckDB, spilling to the disk.

Hides DuckDB and its settings, and that small files are judged several at a time. A document (basket,
invoice) may have equal lines, and they are told apart by counting them over the whole file, however large
it is; so nothing of a file is handed on before all of it has been read, and a file that turns out to be
cut short gives no rows at all.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Map
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, islice
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import retail
from storekeep.ahead import ahead
from storekeep.errors import InvariantBroken, Misused, Permanent, StorekeepError
from storekeep.ingest.archives import Bounds, Opened, opened
from storekeep.ingest.blocks import MALFORMED, Block, Drifted
from storekeep.ingest.feeds import Mapping
from storekeep.ingest.formats import FORMATS
from storekeep.ingest.pseudonyms import checked, matches, pseudonyms, ticket_pseudonyms
from storekeep.ingest.sealing import Keys, seal
from storekeep.ingest.shelf import Shelf, no_room
from storekeep.ingest.statement import Statement, parsed, statement
from storekeep.sql import quoted

TASK_ROWS = 32_768
TOGETHER_ROWS = 65_536
WINDOW_ROWS = 1_000_000
MEMORY_LIMIT = "512MB"


@dataclass(frozen=True)
class Run:
    """What stays the same for all files of one load. Closing it is the caller's.

    `key` makes pseudonyms, `keys` seal what is personal; what was `kept` by us is hidden already.
    """

    mapping: Mapping
    key: bytes | None
    keys: Keys | None
    bounds: Bounds
    products: bool
    kept: bool
    connection: duckdb.DuckDBPyConnection = field(repr=False)


@dataclass(frozen=True)
class Piece:
    """Some consecutive rows of one file, judged: what `statement` selects, in the file's order.

    `number` counts a file's pieces from 0; `unmapped` are columns of the file that the mapping does not
    name; `fates` counts the rows of the whole file by what became of them, None where they are taken in. A
    file without rows gives one piece without any.
    """

    file: str
    number: int
    last: bool
    unmapped: tuple[str, ...]
    fates: Map[int | None, int]
    statement: Statement
    judged: pa.Table
    malformed: pa.Table


@dataclass(frozen=True)
class _Begun:
    """The first block of a file; when it is the only one, it waits for others to be judged with it."""

    file: str
    unmapped: tuple[str, ...]
    block: Block


def begin(
    mapping: Mapping,
    references: Map[str, pa.Table],
    *,
    pseudonym_key: bytes | None,
    bounds: Bounds,
    keys: Keys | None = None,
    products: bool = False,
    kept: bool = False,
) -> Run:
    """Check all that can be checked before a file is opened; raises `Refused` with what is wrong."""
    parsed(mapping)
    key = checked(pseudonym_key, mapping.source) if mapping.hides else None
    if mapping.sealed and keys is None:
        raise Misused(f"{mapping.source} seals what is personal: that takes the keys of persons")
    for name, reference in mapping.references.items():
        table = references.get(name)
        if table is None:
            raise Misused(
                f"{mapping.source} looks rows up in {name!r}, a table of {reference.table} rows: hand it over"
            )
        lacking = set(retail.TABLES[reference.table].names) - set(table.column_names)
        if lacking:
            raise Misused(
                f"{name!r} is no table of {reference.table} rows: it lacks {sorted(lacking)}"
            )
        told = table[reference.on]
        if told.null_count or pc.count_distinct(told).as_py() != table.num_rows:
            raise Misused(f"{name!r} has a row without {reference.on}, or several with the same")
    connection = workspace()
    for name in mapping.references:
        connection.register(f"reference_{name}", references[name])
    return Run(mapping, key, keys, bounds, products, kept, connection)


def pieces(run: Run, paths: Sequence[Path], batch_rows: int) -> Iterator[Piece]:
    """Read files, each to its end, and hand on their rows judged and keyed, at most `batch_rows` at once.

    Small files are judged together: planning a statement costs as much as judging some thousand rows.
    Raises `Refused` when a file cannot be read as the mapping says, `Permanent` when no room is left; what
    was read of earlier files is handed on before.
    """
    waiting: list[_Begun] = []
    try:
        for file in _files(run, paths):
            unmapped = _unmapped(run.mapping, file)
            blocks = _blocks(run.mapping, file)
            start = list(islice(blocks, 2))
            small = _Begun(file.name, unmapped, start[0])
            fits = len(start) == 1 and small.block.rows <= batch_rows
            if not fits or not _belongs(waiting, small, batch_rows):
                ready, waiting = waiting, []
                yield from _together(run, ready)
            if fits:
                waiting.append(small)
            else:
                yield from _alone(run, small, chain(start, blocks), batch_rows)
    except StorekeepError:
        ready, waiting = waiting, []
        yield from _together(run, ready)
        raise
    yield from _together(run, waiting)


def again(run: Run, parts: Iterable[pa.Table]) -> Iterator[Piece]:
    """Judge rows that were kept as they were read once more: a piece for each part, in order.

    `parts` have `source_file`, one for all their rows, `source_line`, each once, and `raw`, a JSON object
    of the source's cells. A row that is none, or lacks a column, is malformed.
    """
    waiting: list[_Begun] = []
    for part in parts:
        kept = _Begun(part["source_file"][0].as_py(), (), _kept(run.mapping, part))
        if not _belongs(waiting, kept, TOGETHER_ROWS):
            ready, waiting = waiting, []
            yield from _together(run, ready)
        waiting.append(kept)
    yield from _together(run, waiting)


def _kept(mapping: Mapping, part: pa.Table) -> Block:
    names = tuple(mapping.source_columns)
    cells: list[list[str | None]] = []
    lines: list[int] = []
    malformed = []
    for line, raw in zip(part["source_line"].to_pylist(), part["raw"].to_pylist(), strict=True):
        row = as_cells(raw)
        lacking = [name for name in names if name not in row]
        if lacking:
            reason = (
                f"it is kept without {', '.join(lacking)}: correct it, or ingest its file again"
            )
            malformed.append({"line": line, "column": lacking[0], "reason": reason, "raw": raw})
            continue
        lines.append(line)
        cells.append([row[name] for name in names])
    columns = [pa.array(column, pa.string()) for column in zip(*cells, strict=True)]
    table = pa.table(columns or [pa.array([], pa.string()) for _ in names], names=list(names))
    return Block(table, pa.array(lines, pa.int64()), pa.Table.from_pylist(malformed, MALFORMED))


def as_cells(raw: str) -> dict[str, str | None]:
    """The cells of a row that quarantine keeps, as text; none when the row was no row."""
    try:
        found = json.loads(raw, parse_int=str, parse_float=str)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: json.dumps(cell) if isinstance(cell, (bool, list, dict)) else cell
        for name, cell in found.items()
    }


def _files(run: Run, paths: Sequence[Path]) -> Iterator[Opened]:
    for path in paths:
        with opened(Path(path), run.bounds) as members:
            yield from members


def _unmapped(mapping: Mapping, file: Opened) -> tuple[str, ...]:
    reader = FORMATS[mapping.format]
    told = [] if reader.fixed else reader.names(file, mapping.csv.dialect)
    return tuple(name for name in told if name not in mapping.read_columns)


def _belongs(waiting: list[_Begun], small: _Begun, batch_rows: int) -> bool:
    rows = sum(one.block.rows for one in waiting) + small.block.rows
    types = small.block.cells.schema.types
    return rows <= min(TOGETHER_ROWS, batch_rows) and all(
        one.block.cells.schema.types == types for one in waiting[:1]
    )


def _together(run: Run, waiting: list[_Begun]) -> Iterator[Piece]:
    """Several small files, judged in one go: one piece each."""
    if not waiting:
        return
    with _told([one.file for one in waiting]):
        numbers = np.repeat(np.arange(len(waiting)), [len(one.block.lines) for one in waiting])
        every = np.arange(len(numbers))
        made, judged = _judge(run, [one.block for one in waiting], numbers, every, first=True)
        fates = _fates([judged])
        equals = _number_equals(run, made, [judged])
        judged = _numbered(run, made, judged, equals=equals)
    before = 0
    for number, one in enumerate(waiting):
        rows = judged.slice(before, len(one.block.lines))
        before += len(one.block.lines)
        yield Piece(one.file, 0, True, one.unmapped, fates[number], made, rows, one.block.malformed)


def _alone(run: Run, file: _Begun, blocks: Iterable[Block], batch_rows: int) -> Iterator[Piece]:
    """A large file: put by block after block, and handed on piece by piece when it is all there."""
    with closing(Shelf(_database(os.getpid()).folder)) as shelf:
        with _told([file.file]):
            made, rows = _put_by(run, blocks, shelf)
            fates = _fates(shelf.tables(["__file", "__fate"]))[0]
            equals = _number_equals(run, made, shelf.tables(made.telling_apart))
        starts = range(0, max(rows, 1), batch_rows)
        pieces = shelf.pieces(batch_rows, len(starts))
        for number, (start, piece) in enumerate(zip(starts, pieces, strict=True)):
            with _told([file.file]):
                judged = _numbered(run, made, piece, equals=equals)
            malformed = run.connection.execute(
                "SELECT * EXCLUDE (number) FROM malformed WHERE number >= ? AND number < ? ORDER BY number",
                [start, start + batch_rows],
            ).to_arrow_table()
            last = number + 1 == len(starts)
            yield Piece(file.file, number, last, file.unmapped, fates, made, judged, malformed)


def _put_by(run: Run, blocks: Iterable[Block], shelf: Shelf) -> tuple[Statement, int]:
    """Judge all blocks of a file, its malformed rows beside them; how, and how many rows it has."""
    made: Statement | None = None
    rows = 0
    run.connection.execute(
        "CREATE OR REPLACE TEMP TABLE malformed"
        '(line BIGINT, "column" VARCHAR, reason VARCHAR, raw VARCHAR, number BIGINT)'
    )
    for block in ahead(iter(blocks)):
        only = np.zeros(len(block.lines), np.int64)
        good, bad = _counted(block, rows)
        made, judged = _judge(run, [block], only, good, first=made is None)
        shelf.add(judged)
        rows += block.rows
        with _registered(run, "bad", block.malformed.append_column("number", pa.array(bad))):
            run.connection.execute("INSERT INTO malformed SELECT * FROM bad")
    if made is None:
        raise InvariantBroken("no block was read of a file")
    return made, rows


def _counted(block: Block, before: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a block's rows in their file, good ones and malformed ones, counted together."""
    lines = np.concatenate([block.lines.to_numpy(), block.malformed["line"].to_numpy()])
    numbers = np.empty(len(lines), np.int64)
    numbers[np.argsort(lines, kind="stable")] = np.arange(before, before + len(lines))
    good = len(block.lines)
    return numbers[:good], numbers[good:]


@contextmanager
def _told(files: Sequence[str]) -> Iterator[None]:
    """DuckDB's word that a file's types do not fit, or that the disk is full, in ours."""
    try:
        yield
    except (
        duckdb.ProgrammingError,
        duckdb.NotSupportedError,
        duckdb.DataError,
        pa.ArrowNotImplementedError,
    ) as error:
        first = str(error).partition("\n")[0]
        raise Drifted(
            f"{', '.join(files[:3])}: the columns are not of the kinds that the mapping declares ({first})",
            files[0],
        ) from None
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise Permanent(no_room(_database(os.getpid()).folder, error)) from None


@dataclass(frozen=True)
class _Database:
    connection: duckdb.DuckDBPyConnection
    folder: Path


def workspace() -> duckdb.DuckDBPyConnection:
    """A connection of its own to the database that files are read in, bounded in memory; to be closed."""
    return _database(os.getpid()).connection.cursor()


@cache
def _database(process: int) -> _Database:
    """One database a process, for what starting one costs; each load works on a connection of its own.

    The number of the process is the key: a child must not use its parent's.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"storekeep-{process}-"))
    atexit.register(_remove, folder, process)
    connection = duckdb.connect(
        config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(folder)}
    )
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return _Database(connection, folder)


def _remove(folder: Path, process: int) -> None:
    """What a process spilled goes with it, and not with a child that was forked from it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _blocks(mapping: Mapping, file: Opened) -> Iterator[Block]:
    return FORMATS[mapping.format].blocks(file, mapping.read_columns, mapping.csv.dialect)


@contextmanager
def _registered(run: Run, name: str, table: pa.Table) -> Iterator[None]:
    """The table under this name, for as long as it takes."""
    run.connection.register(name, table)
    try:
        yield
    finally:
        run.connection.unregister(name)


def _judge(
    run: Run, blocks: Sequence[Block], files: np.ndarray, numbers: np.ndarray, *, first: bool
) -> tuple[Statement, pa.Table]:
    """Judge blocks of equal types; how it was done, and their rows in order.

    `files` numbers their files, `numbers` the rows: several may stand on one line. The digests of those that
    are taken in are kept beside those of earlier blocks, if this is not the `first`.
    """
    cells = _hidden(run, pa.concat_tables([block.cells for block in blocks]))
    lines = pa.chunked_array([block.lines for block in blocks])
    made = statement(run.mapping, tuple(cells.schema.types), products=run.products)
    rows = pa.table(
        {
            "__file": files,
            "__line": lines,
            "__row": numbers,
            **{f"__c{place}": column for place, column in enumerate(cells.columns)},
            **_read(run, made, cells),
        }
    )
    # In pieces of equal size, so that every core has some.
    even = rows.combine_chunks().to_batches(TASK_ROWS)
    with _registered(run, "block", pa.Table.from_batches(even, rows.schema)):
        judged = run.connection.sql(made.judge).to_arrow_table()
    # As a rule they come as they went in, and sorting whole rows is dear.
    order = judged["__row"].to_numpy()
    judged = judged if (order[1:] > order[:-1]).all() else judged.sort_by("__row")
    verb = "CREATE OR REPLACE TEMP TABLE digests AS" if first else "INSERT INTO digests"
    with _registered(run, "judged", judged.select(["__fate", "__hash"])):
        run.connection.execute(f"{verb} SELECT __hash FROM judged WHERE __fate IS NULL")
    return made, judged


def _read(run: Run, made: Statement, cells: pa.Table) -> dict[str, pa.Array]:
    """What the cells hold, each read once in a block: most of a column are the same as others."""
    found = {}
    for place, reading in made.readings.items():
        encoded = cells.column(place).combine_chunks().dictionary_encode()
        with _registered(run, "cell", pa.table({f"__c{place}": encoded.dictionary})):
            values = run.connection.execute(reading).to_arrow_table()
        for name in values.column_names:
            found[name] = values[name].combine_chunks().take(encoded.indices)
    return found


def _hidden(run: Run, cells: pa.Table) -> pa.Table:
    """The cells without what identifies a person: matched, then replaced by pseudonyms, then sealed."""
    if run.key is None:
        return cells
    mapping = run.mapping
    marks = pa.array(
        ["", *(mapping.csv.nulls if FORMATS[mapping.format].text else ())], pa.string()
    )
    hidden: dict[str, pa.Array | pa.ChunkedArray] = dict(
        zip(cells.column_names, cells.columns, strict=True)
    )

    def plain(name: str) -> pa.Array:
        return cells[name].cast(pa.string()).combine_chunks()

    for name in mapping.match.keys() - hidden.keys():
        hidden[name] = _matched(run, name, plain(mapping.match[name].of), marks)
    for name in mapping.personal_columns:
        hidden[name] = pseudonyms(plain(name), mapping.source, run.key, marks.to_pylist())
    if mapping.sealed and run.keys is not None:
        texts = {field_: _without(plain(name), marks) for field_, name in mapping.sealed.items()}
        sealed = seal(texts, _persons(run, hidden, marks), run.keys, kept=run.kept)
        for field_, name in mapping.sealed.items():
            hidden[name] = pc.coalesce(sealed[field_], plain(name))
    return pa.table({name: hidden[name] for name in mapping.source_columns})


def _matched(run: Run, name: str, cells: pa.Array, marks: pa.Array) -> pa.Array:
    """A column that no file has: by which a person is known again elsewhere."""
    match, key = run.mapping.match[name], checked(run.key, run.mapping.source)
    if match.kind == "customer":
        return pseudonyms(cells, match.source or "", key, marks.to_pylist())
    # Delimited text knows no other empty cell, and a row is blank when all of them are.
    blank = "" if run.mapping.format == "csv" else None
    return matches(_without(cells, marks), match.kind, key, blank)


def _persons(run: Run, cells: Map[str, pa.Array], marks: pa.Array) -> pa.Array:
    """Whose each row is: the customer's, or where none is told the ticket's; null is nobody's."""
    mapping, key = run.mapping, checked(run.key, run.mapping.source)
    found = []
    for name in mapping.persons:
        told = cells[name].cast(pa.string())
        told = told.combine_chunks() if isinstance(told, pa.ChunkedArray) else told
        if name not in mapping.personal_columns:
            told = ticket_pseudonyms(_without(told, marks), mapping.source, key)
        found.append(_without(told, marks))
    return pc.coalesce(*found)


def _without(cells: pa.Array, marks: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_in(cells, value_set=marks), pa.scalar(None, pa.string()), cells)


def _fates(judged: Iterable[pa.Table]) -> Map[int, Map[int | None, int]]:
    """How many rows of each file had which fate, before equal ones are told apart."""
    found: dict[int, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    for rows in judged:
        counted = rows.group_by(["__file", "__fate"]).aggregate([([], "count_all")])
        for one in counted.to_pylist():
            found[one["__file"]][one["__fate"]] += one["count_all"]
    return found


def _number_equals(run: Run, made: Statement, judged: Iterable[pa.Table]) -> bool:
    """Tell equal rows of a file apart: the table `equals` has the second and later ones, with their keys.

    Says whether there are any.

    Two equal lines of one document are two lines: the second and later ones get a key made from the
    first's and their number. In a table whose rows have a key of their own, the later row is turned away.
    Which of them counts as the first is settled by what else they say and only then by their place, so
    that another order of the same lines gives the same keys.
    """
    run.connection.execute(
        "CREATE OR REPLACE TEMP TABLE several AS "
        "SELECT __hash, count(*) AS rows FROM digests GROUP BY __hash HAVING count(*) > 1"
    )
    ((rows,),) = run.connection.execute(
        "SELECT CAST(coalesce(sum(rows), 0) AS BIGINT) FROM several"
    ).fetchall()
    if not rows:
        return False
    for number, some in enumerate(judged):
        verb = "INSERT INTO alike" if number else "CREATE OR REPLACE TEMP TABLE alike AS"
        columns = ", ".join(quoted(name) for name in made.telling_apart)
        with _registered(run, "judged", some):
            run.connection.execute(
                f"{verb} SELECT {columns} FROM judged "
                "WHERE __fate IS NULL AND __hash IN (SELECT __hash FROM several)"
            )
    order = ", ".join([*(quoted(name) for name in made.undecided), "__row"])
    run.connection.execute("CREATE OR REPLACE TEMP TABLE equals (__row BIGINT, __key VARCHAR)")
    # Some at a time: a window over all rows of a large file would not fit.
    shares = -(-rows // WINDOW_ROWS)
    for share in range(shares):
        run.connection.execute(f"""
            INSERT INTO equals
            SELECT __row, md5(concat(__key, '|', n)) FROM (
              SELECT __row, __key, row_number() OVER (PARTITION BY __file, __key ORDER BY {order}) AS n
              FROM alike WHERE __hash % {shares} = {share}
            ) WHERE n > 1
        """)
    return True


def _numbered(run: Run, made: Statement, judged: pa.Table, *, equals: bool) -> pa.Table:
    """Judged rows of a file, in order, equal ones told apart."""
    if not equals or not judged.num_rows:
        return judged
    numbers = judged["__row"].to_numpy()
    later = run.connection.execute(
        "SELECT * FROM equals WHERE __row >= ? AND __row <= ? ORDER BY __row",
        [int(numbers[0]), int(numbers[-1])],
    ).to_arrow_table()
    changed = np.zeros(len(numbers), bool)
    changed[np.searchsorted(numbers, later["__row"].to_numpy())] = True
    name, values = "__fate", pa.repeat(pa.scalar(len(made.fates) - 1, pa.int16()), later.num_rows)
    if made.counts_equals:
        name, values = "__key", later["__key"].combine_chunks()
    place = judged.column_names.index(name)
    column = pc.replace_with_mask(judged[name].combine_chunks(), pa.array(changed), values)
    return judged.set_column(place, name, column)
