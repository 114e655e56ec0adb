"""History: append-only, versioned tables of facts and features, and the only place that opens them.

Hides Delta, files, partitions and the engine that reads them. A version once read can be read again for
ever; an append that was already made is not made twice, whoever repeats it; every read says up to which
version, and may say what had been known by when.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import exceptions as delta

from storekeep.errors import InvariantBroken, Permanent, Refused, Transient
from storekeep.retail import (
    CAMPAIGN,
    CAMPAIGN_CUSTOMER,
    COUPON,
    COUPON_REDEMPTION,
    CUSTOMER_CHANGE,
    CUSTOMER_LINK,
    DELIVERY,
    FEED_STATE,
    FULFILMENT,
    HOUSEHOLD,
    ITEM_IDENTITY,
    ORDER_MOVE,
    PRODUCT,
    PROMOTION,
    REJECTED,
    REJECTED_STEP,
    SALE_LINE,
    STOCK_COUNT,
    STOCK_REPORT,
    SUPPLIER_STEP,
    SUPPLY_TERMS,
    TICKET,
    TICKET_MESSAGE,
    Table,
)

_MONTH = "month"
# What Delta's writer takes for something else in the name of a folder, or dies of.
_UNSPEAKABLE = re.compile(r"[\[\]|^\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")
MEMORY = "1GiB"
# A till that reports every second makes a file every second: at most so many are read beside larger ones.
_APPENDS_TOGETHER = 16
# With these a table's files alone do not say what its rows are.
_UNREAD = frozenset({"deletionVectors", "columnMapping"})
_SMALL_BYTES = 8 << 20


@dataclass(frozen=True)
class Kept:
    """A table of the lake: its columns, and the time column whose month lays it out on disk."""

    name: str
    schema: pa.Schema
    month_of: str | None = None


def _plain(table: Table, *more: pa.Field) -> pa.Schema:
    return pa.schema([*(field.remove_metadata() for field in table.arrow), *more])


_IN_LOG = (
    pa.field("event_type", pa.string()),
    pa.field("position", pa.int64()),
    pa.field("fact", pa.int64()),
)
SALE_LINES = Kept("sale_line", _plain(SALE_LINE, *_IN_LOG), "occurred_at")
STOCK_COUNTS = Kept("stock_count", _plain(STOCK_COUNT, *_IN_LOG), "occurred_at")
STOCK_REPORTS = Kept("stock_report", _plain(STOCK_REPORT, *_IN_LOG), "occurred_at")
SUPPLIER_STEPS = Kept("supplier_step", _plain(SUPPLIER_STEP, *_IN_LOG), "occurred_at")
DELIVERIES = Kept("delivery", _plain(DELIVERY, *_IN_LOG), "occurred_at")
FULFILMENTS = Kept("fulfilment", _plain(FULFILMENT, *_IN_LOG), "occurred_at")
CUSTOMER_CHANGES = Kept("customer", _plain(CUSTOMER_CHANGE, *_IN_LOG), "occurred_at")
TICKETS = Kept("ticket", _plain(TICKET, *_IN_LOG), "occurred_at")
TICKET_MESSAGES = Kept("ticket_message", _plain(TICKET_MESSAGE, *_IN_LOG), "occurred_at")
CUSTOMER_LINKS = Kept("customer_link", _plain(CUSTOMER_LINK, *_IN_LOG), "occurred_at")
# A catalogue need not say since when.
PRODUCTS = Kept("product", _plain(PRODUCT, *_IN_LOG))
ITEM_IDENTITIES = Kept("item_identity", _plain(ITEM_IDENTITY, *_IN_LOG))
ORDER_MOVES = Kept("order_move", _plain(ORDER_MOVE, *_IN_LOG), "occurred_at")
FEED_STATES = Kept("feed_state", _plain(FEED_STATE, *_IN_LOG), "occurred_at")
TERMS = Kept("supply_terms", _plain(SUPPLY_TERMS))
QUARANTINE = Kept("rejected", _plain(REJECTED))
QUARANTINE_STEPS = Kept("rejected_step", _plain(REJECTED_STEP))
MARKETING: Mapping[str, Kept] = {
    table.name: Kept(table.name, _plain(table))
    for table in (HOUSEHOLD, CAMPAIGN, CAMPAIGN_CUSTOMER, COUPON, COUPON_REDEMPTION, PROMOTION)
}
FACTS: Mapping[str, Kept] = {
    kept.name: kept
    for kept in (
        *(SALE_LINES, STOCK_COUNTS, STOCK_REPORTS, SUPPLIER_STEPS, DELIVERIES, FULFILMENTS),
        *(PRODUCTS, ORDER_MOVES, FEED_STATES, CUSTOMER_CHANGES, TICKETS, TICKET_MESSAGES),
        *(CUSTOMER_LINKS, ITEM_IDENTITIES),
    )
}


class Lake:
    """One tenant's history under one folder; `Refused` when Delta cannot spell the folder's name."""

    def __init__(self, root: Path, tenant: str) -> None:
        self._root = root / tenant
        if unspeakable := _UNSPEAKABLE.search(str(self._root.absolute())):
            raise Refused(
                f"history cannot be kept in {self._root}: its name holds {unspeakable[0]!r}; "
                "choose another folder with --home"
            )
        self._tables: dict[str, DeltaTable] = {}
        self._lock = threading.RLock()
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET memory_limit = '{MEMORY}'")
        # Files of history never change, so what one says of itself need not be read again.
        self._connection.execute("SET parquet_metadata_cache = true")

    def close(self) -> None:
        """Let go of files and memory."""
        self._connection.close()
        self._tables.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, kept: Kept, rows: pa.Table, *, writer: str, position: int) -> int:
        """Append rows as one new version, once for each position of a writer; the version that has them.

        A writer that repeats a position it has written, after a crash between this and its own commit,
        changes nothing. `rows` have the columns of `kept`.
        """
        with self._lock:
            table = self._open(kept.name) or self._create(kept)
            done = table.transaction_version(writer)
            if done is not None and done >= position:
                return table.version()
            rows = rows.cast(kept.schema)
            if kept.month_of is not None:
                rows = rows.append_column(_MONTH, _months(rows[kept.month_of]))
            self._write(kept, table, rows, Transaction(writer, position))
            version = table.version()
            if version % _APPENDS_TOGETHER == 0:
                self._compact(kept, table)
            return version

    def written(self, name: str, writer: str) -> int | None:
        """The last position that a writer has appended to a table."""
        with self._lock:
            table = self._open(name)
            return None if table is None else table.transaction_version(writer)

    def written_at(self, name: str, version: int, writers: Sequence[str]) -> dict[str, int]:
        """The last position that each of some writers had appended to a table by a version of it."""
        with self._lock:
            table = self._at(name, version)
            found = {writer: table.transaction_version(writer) for writer in writers}
            return {writer: position for writer, position in found.items() if position is not None}

    def brought(self, name: str, writer: str, position: int) -> int:
        """The first version of a table that has all that a writer had appended up to a position."""
        with self._lock:
            if (self.written(name, writer) or 0) < position:
                raise InvariantBroken(f"{writer} has not appended position {position} to {name}")
            return bisect_left(
                range(self.version(name)),
                position,
                key=lambda version: self.written_at(name, version, [writer]).get(writer, 0),
            )

    def version(self, name: str) -> int:
        """The newest version of a table; -1 while it does not exist."""
        with self._lock:
            table = self._open(name)
            return -1 if table is None else table.version()

    def versions(self, names: Sequence[str]) -> dict[str, int]:
        """The newest version of each table."""
        return {name: self.version(name) for name in names}

    def query(
        self,
        sql: str,
        *,
        tables: Mapping[str, Kept],
        versions: Mapping[str, int] | None = None,
        inputs: Mapping[str, pa.Table] | None = None,
        parameters: Mapping[str, Any] | None = None,
        months: Mapping[str, tuple[str, str]] | None = None,
    ) -> pa.Table:
        """Run a query over tables of the lake, each under the name it is given.

        `versions` names the version to read by table (the newest otherwise); `inputs` adds Arrow tables;
        `months` bounds, by table, the months of the layout to read (`2017-07` to `2017-10`).
        """
        with self._lock:
            cursor = self._connection.cursor()
            cursor.execute("SET TimeZone = 'UTC'")
            try:
                for name, kept in tables.items():
                    version = (versions or {}).get(kept.name)
                    self._view(cursor, name, kept, version, (months or {}).get(name))
                for name, table in (inputs or {}).items():
                    cursor.register(name, table)
                return cursor.execute(sql, dict(parameters or {})).to_arrow_table()
            except (duckdb.IOException, duckdb.InvalidInputException) as error:
                raise Permanent(
                    f"history in {self._root} cannot be read: {_first_line(error)}; "
                    "put the file back, or restore a backup"
                ) from error
            except duckdb.Error as error:
                raise InvariantBroken(f"a question to history is wrong: {error}") from error
            finally:
                cursor.close()

    def _open(self, name: str) -> DeltaTable | None:
        """The table as it is by now: other processes append to it too."""
        path = self._root / name
        try:
            table = self._tables.get(name)
            if table is not None:
                table.update_incremental()
            elif DeltaTable.is_deltatable(str(path)):
                table = self._tables[name] = DeltaTable(str(path))
            return table
        except (OSError, delta.DeltaError) as error:
            self._tables.pop(name, None)
            raise Permanent(
                f"history in {path} cannot be read: {_first_line(error)}; restore a backup"
            ) from error

    def _at(self, name: str, version: int) -> DeltaTable:
        """The table as it was at a version."""
        try:
            return DeltaTable(str(self._root / name), version=version)
        except delta.DeltaError as error:
            raise Refused(
                f"version {version} of {name} is not in the lake: {_first_line(error)}"
            ) from error

    def _create(self, kept: Kept) -> DeltaTable:
        """Make a table empty: two that made it at once with rows in it would both keep their rows."""
        schema, layout = kept.schema, None
        if kept.month_of is not None:
            schema, layout = schema.append(pa.field(_MONTH, pa.string())), [_MONTH]
        path = self._root / kept.name
        with self._writing(kept.name):
            self._root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(parents=True, exist_ok=True)
            DeltaTable.create(str(path), schema, mode="ignore", partition_by=layout)
            table = self._tables[kept.name] = DeltaTable(str(path))
        return table

    def _write(
        self, kept: Kept, table: DeltaTable, rows: pa.Table, transaction: Transaction
    ) -> None:
        with self._writing(kept.name):
            write_deltalake(
                table,
                rows,
                mode="append",
                partition_by=None if kept.month_of is None else [_MONTH],
                commit_properties=CommitProperties(app_transactions=[transaction]),
            )

    def _compact(self, kept: Kept, table: DeltaTable) -> None:
        """Put the rows of small files together in one; earlier versions keep the files that they are of."""
        # Two that put the same files together at once may both come to keep their rows.
        with (self._root / f".{kept.name}.compacting").open("w") as alone:
            try:
                fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            with suppress(Transient), self._writing(kept.name):
                table.update_incremental()
                table.optimize.compact(target_size=_SMALL_BYTES)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Name what goes wrong with a write; the table is opened anew after it."""
        try:
            yield
        except delta.CommitFailedError as error:
            self._tables.pop(name, None)
            raise Transient(
                f"somebody else wrote to {name} of the lake: {_first_line(error)}; try again"
            ) from error
        except (OSError, delta.DeltaError) as error:
            self._tables.pop(name, None)
            raise Permanent(
                f"history cannot be written to {self._root / name}: {_first_line(error)}; "
                "see that the disk has room and that the folder may be written to"
            ) from error

    def _view(
        self,
        cursor: duckdb.DuckDBPyConnection,
        name: str,
        kept: Kept,
        version: int | None,
        months: tuple[str, str] | None,
    ) -> None:
        """Put one version of a table before the query: its files, as Delta's log lists them."""
        files = self._files(kept, version, months)
        if not files:
            cursor.register(name, kept.schema.empty_table())
            return
        columns = ", ".join(f'"{column}"' for column in kept.schema.names)
        cursor.execute(
            f'CREATE OR REPLACE TEMP VIEW "{name}" AS SELECT {columns} FROM read_parquet('
            f"[{', '.join(_literal(file) for file in files)}], hive_partitioning = false)"
        )

    def _files(self, kept: Kept, version: int | None, months: tuple[str, str] | None) -> list[str]:
        table = self._tables.get(kept.name)
        # One that is at the version asked for need not be looked at again.
        if table is None or table.version() != version:
            table = self._open(kept.name)
        if table is None or (version is not None and version < 0):
            return []
        if version is not None and version != table.version():
            table = self._at(kept.name, version)
        wanted = None
        if months is not None and kept.month_of is not None:
            wanted = [(_MONTH, ">=", months[0]), (_MONTH, "<=", months[1])]
        # They come as in an address: with %20 for a space.
        return [unquote(each) for each in table.file_uris(file_pruning_predicate=wanted)]


@dataclass(frozen=True)
class Outside:
    """A table that others keep, as it is at a version: the Parquet files that its rows are in."""

    path: str
    files: tuple[str, ...]
    version: int | None = None
    in_folders: bool = False

    def relation(self) -> str:
        """Its rows for a query of DuckDB, each with its file's number and its own, counted from 0."""
        listed = ", ".join(_literal(file) for file in self.files)
        # Older files may lack a column that came later; the columns that name folders are in no file.
        folders = "true, hive_types_autocast = false" if self.in_folders else "false"
        return (
            f"read_parquet([{listed}], file_row_number = true, union_by_name = true,"
            f" hive_partitioning = {folders})"
        )

    @cached_property
    def digest(self) -> str:
        """What its rows are known again by: the version of a Delta table, else a digest of all files."""
        if self.version is not None:
            return f"version {self.version}"
        whole = hashlib.sha256()
        for file in self.files:
            with Path(file).open("rb") as content:
                whole.update(hashlib.file_digest(content, "sha256").digest())
        return f"sha256 {whole.hexdigest()}"


def outside(path: str, version: int | None = None) -> Outside:
    """A table that others keep: a Delta table at a version (the newest otherwise), or Parquet files.

    `path` is a folder, a file, or a pattern of files. Raises `Refused` where there is no such table.
    """
    try:
        if Path(path, "_delta_log").is_dir():
            table = DeltaTable(path, version=version)
            if unread := _UNREAD & {*(table.protocol().reader_features or ())}:
                raise Refused(
                    f"{path} is written with {', '.join(sorted(unread))}, which is not read"
                )
            files = sorted(map(_on_disk, table.file_uris()))
            folders = bool(table.metadata().partition_columns)
            return Outside(path, tuple(files), table.version(), folders)
    except (OSError, delta.DeltaError) as error:
        raise Refused(f"{path} cannot be read as a Delta table: {_first_line(error)}") from error
    if version is not None:
        raise Refused(f"{path} is no Delta table, so that it has no version {version}")
    pattern = Path(path, "*.parquet") if Path(path).is_dir() else Path(path)
    below = pattern.relative_to(pattern.anchor)
    found = tuple(sorted(str(each) for each in Path(pattern.anchor).glob(str(below))))
    if not found:
        raise Refused(f"there is no Parquet file and no Delta table at {path}")
    return Outside(path, found)


def _on_disk(uri: str) -> str:
    """A file of a table as the disk has it: in an address a space is %20, in a folder's name it may be."""
    return uri if Path(uri).exists() else unquote(uri)


def newest(table: Table) -> str:
    """A question for a table's facts as known by the parameter `known_by`: of what was restated the last."""
    return (
        f"SELECT * FROM {table.name} WHERE known_at <= $known_by QUALIFY row_number() OVER"
        f" (PARTITION BY {', '.join(table.key)} ORDER BY known_at DESC, position DESC, fact DESC) = 1"
    )


def outside_log(kept: Kept, rows: pa.Table) -> pa.Table:
    """Facts that no event told, as history keeps them: without a type and a place in the log."""
    lacking = [field for field in kept.schema if field.name not in rows.column_names]
    for each in lacking:
        rows = rows.append_column(each, pa.nulls(rows.num_rows, each.type))
    return rows


def month(time: datetime) -> str:
    """The month of the layout that a time belongs to."""
    return time.astimezone(UTC).strftime("%Y-%m")


def _months(times: pa.ChunkedArray) -> pa.Array:
    """The month of the layout that each time belongs to; a few are put into words, not all."""
    begins = pc.floor_temporal(times, unit="month").combine_chunks().dictionary_encode()
    return pa.array([month(each) for each in begins.dictionary.to_pylist()], pa.string()).take(
        begins.indices
    )


def _first_line(error: Exception) -> str:
    """What an error says, without the traces of those who said it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def single(table: pa.Table) -> dict[str, Any]:
    """The only row of a table; `InvariantBroken` when there is not exactly one."""
    if table.num_rows != 1:
        raise InvariantBroken(f"one row was expected, {table.num_rows} came")
    row: dict[str, Any] = table.to_pylist()[0]
    return row
