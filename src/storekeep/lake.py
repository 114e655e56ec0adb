"""History: append-only, versioned tables of facts and features, and the only place that opens them.

Hides Delta, files, partitions and the engine that reads them. A version once read can be read again for
ever; an append that was already made is not made twice, whoever repeats it; every read says up to which
version, and may say what had been known by when.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import exceptions as delta

from storekeep.errors import InvariantBroken, Permanent, Refused, Transient
from storekeep.events import Event
from storekeep.retail import (
    ORDER_MOVE,
    PRODUCT,
    REJECTED,
    SALE_LINE,
    STOCK_COUNT,
    SUPPLY_TERMS,
    Table,
)

_MONTH = "month"
MEMORY = "1GiB"


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
ORDER_MOVES = Kept("order_move", _plain(ORDER_MOVE, *_IN_LOG), "occurred_at")
TERMS = Kept("supply_terms", _plain(SUPPLY_TERMS))
PRODUCTS = Kept("product", _plain(PRODUCT))
QUARANTINE = Kept("rejected", _plain(REJECTED))
FACTS: Mapping[str, Kept] = {kept.name: kept for kept in (SALE_LINES, STOCK_COUNTS, ORDER_MOVES)}


def facts_of(event: Event) -> pa.Table:
    """An event's facts as history keeps them: with their type and place in the log."""
    many = event.facts.num_rows
    return (
        event.facts.append_column("event_type", pa.array([event.type] * many))
        .append_column("position", pa.array([event.position] * many, pa.int64()))
        .append_column("fact", pa.array(range(many), pa.int64()))
    )


class Lake:
    """One tenant's history under one folder."""

    def __init__(self, root: Path, tenant: str) -> None:
        self._root = root / tenant
        self._tables: dict[str, DeltaTable] = {}
        self._lock = threading.RLock()
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET memory_limit = '{MEMORY}'")

    def close(self) -> None:
        """Let go of files and memory."""
        self._connection.close()
        self._tables.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, kept: Kept, rows: pa.Table, *, writer: str, position: int) -> int:
        """Append rows as one new version, once for each position of a writer; the table's version.

        A writer that repeats a position it has written, after a crash between this and its own commit,
        changes nothing. `rows` have the columns of `kept`.
        """
        with self._lock:
            table = self._open(kept.name)
            if table is not None:
                table.update_incremental()
                done = table.transaction_version(writer)
                if done is not None and done >= position:
                    return table.version()
            rows = rows.cast(kept.schema)
            if kept.month_of is not None:
                months = pc.strftime(rows[kept.month_of], format="%Y-%m")
                rows = rows.append_column(_MONTH, months)
            self._write(kept, table, rows, Transaction(writer, position))
            return self.version(kept.name)

    def written(self, name: str, writer: str) -> int | None:
        """The last position that a writer has appended to a table."""
        with self._lock:
            table = self._open(name)
            return None if table is None else table.transaction_version(writer)

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
            for name, kept in tables.items():
                version = (versions or {}).get(kept.name)
                self._view(cursor, name, kept, version, (months or {}).get(name))
            for name, table in (inputs or {}).items():
                cursor.register(name, table)
            try:
                return cursor.execute(sql, dict(parameters or {})).to_arrow_table()
            finally:
                cursor.close()

    def _open(self, name: str) -> DeltaTable | None:
        table = self._tables.get(name)
        if table is None:
            path = self._root / name
            if not DeltaTable.is_deltatable(str(path)):
                return None
            table = self._tables[name] = DeltaTable(str(path))
        return table

    def _write(
        self, kept: Kept, table: DeltaTable | None, rows: pa.Table, transaction: Transaction
    ) -> None:
        path = self._root / kept.name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_deltalake(
                table if table is not None else str(path),
                rows,
                mode="append",
                partition_by=None if kept.month_of is None else [_MONTH],
                commit_properties=CommitProperties(app_transactions=[transaction]),
            )
        except delta.CommitFailedError as error:
            self._tables.pop(kept.name, None)
            raise Transient(f"somebody else wrote to {kept.name} of the lake: {error}") from error
        except (OSError, delta.DeltaError) as error:
            self._tables.pop(kept.name, None)
            raise Permanent(f"the lake cannot write to {path}: {error}") from error

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
        table = self._open(kept.name)
        if table is None or (version is not None and version < 0):
            return []
        if version is not None and version != table.version():
            try:
                table = DeltaTable(str(self._root / kept.name), version=version)
            except delta.DeltaError as error:
                raise Refused(
                    f"version {version} of {kept.name} is not in the lake: {error}"
                ) from error
        if months is None or kept.month_of is None:
            return list(table.file_uris())
        first, last = months
        wanted = [(_MONTH, ">=", first), (_MONTH, "<=", last)]
        return list(table.file_uris(file_pruning_predicate=wanted))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def single(table: pa.Table) -> dict[str, Any]:
    """The only row of a table; `InvariantBroken` when there is not exactly one."""
    if table.num_rows != 1:
        raise InvariantBroken(f"one row was expected, {table.num_rows} came")
    row: dict[str, Any] = table.to_pylist()[0]
    return row
