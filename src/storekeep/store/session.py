"""One tenant's open transaction, and how Arrow tables go in and out of the database in bulk.

Hides the connection's cursor, the temporary tables that rows pass through, and the tenant's own lock.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import errors as pg
from psycopg import sql

from storekeep.errors import InvariantBroken, Permanent, Transient
from storekeep.store import binary

LOCK = 0x5704EEE9
OURSELVES = "storekeep"


class Session:
    """An open transaction of a tenant: its statements, and rows in bulk."""

    def __init__(self, cursor: psycopg.Cursor[dict[str, Any]], tenant: str) -> None:
        self._cursor = cursor
        self.tenant = tenant

    def make_tenant(self, purpose: str = "live") -> None:
        """Record that this tenant exists, and whether it is `live` or a `demo`; the first word stands."""
        self._run(
            "INSERT INTO tenant (tenant, purpose) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (self.tenant, purpose),
        )

    def purpose(self) -> str | None:
        """What the tenant was made for; None when there is no such tenant."""
        rows = self._run("SELECT purpose FROM tenant WHERE tenant = %s", (self.tenant,))
        return str(rows[0]["purpose"]) if rows else None

    def is_empty(self) -> bool:
        """Whether nothing has ever been recorded for the tenant, but by ourselves."""
        rows = self._run(
            "SELECT EXISTS (SELECT FROM event_log WHERE tenant = %s)"
            " OR EXISTS (SELECT FROM ledger_batch WHERE tenant = %s)"
            " OR EXISTS (SELECT FROM promotion WHERE tenant = %s AND promoted_by <> %s) AS has",
            (self.tenant, self.tenant, self.tenant, OURSELVES),
        )
        return not rows[0]["has"]

    # Bulk -------------------------------------------------------------------------------------------

    def _run(
        self, statement: LiteralString, parameters: Sequence[Any] = ()
    ) -> list[dict[str, Any]]:
        self._cursor.execute(statement, parameters)
        return self._cursor.fetchall() if self._cursor.description else []

    def _lock(self) -> None:
        """Keep others from what the tenant has only one of until the transaction ends."""
        self._run(
            "SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK & 0x7FFFFFFF, self.tenant)
        )

    def _copy_in(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table, this tenant's name put before them.

        PostgreSQL copies into no table with row-level security, so the rows go through a temporary one.
        """
        if rows.num_rows == 0:
            return
        incoming = f"incoming_{table}"
        columns = self._copy_temporary(incoming, sql.Identifier(table), rows)
        self._cursor.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
                sql.Identifier(table), columns, columns, sql.Identifier("pg_temp", incoming)
            )
        )

    def _copy_temporary(self, incoming: str, like: sql.Composable, rows: pa.Table) -> sql.Composed:
        """Copy rows into a temporary table of the shape of another; the names of their columns."""
        here = sql.Identifier("pg_temp", incoming)
        if not self._run("SELECT to_regclass(%s) AS there", (f"pg_temp.{incoming}",))[0]["there"]:
            # What passes through is not worth the time to compress it.
            self._cursor.execute(
                sql.SQL(
                    "CREATE TEMP TABLE {} WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS"
                    " AS SELECT * FROM {} WITH NO DATA"
                ).format(sql.Identifier(incoming), like)
            )
        else:
            self._cursor.execute(sql.SQL("TRUNCATE {}").format(here))
        named = rows.add_column(0, "tenant", pa.repeat(self.tenant, rows.num_rows))
        columns = sql.SQL(", ").join(map(sql.Identifier, named.column_names))
        self._cursor.execute(sql.SQL("SELECT {} FROM {} LIMIT 0").format(columns, here))
        kinds = [column.type_code for column in self._cursor.description or ()]
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(here, columns)
        with self._cursor.copy(statement) as copy:
            copy.write(binary.HEADER)
            for part in binary.encoded(named, kinds):
                copy.write(part)
            copy.write(binary.TRAILER)
        return columns

    def _copy_out(
        self, statement: LiteralString, parameters: Sequence[Any], schema: pa.Schema
    ) -> pa.Table:
        """The rows of a query as an Arrow table of the given schema."""
        # Quoted, a text that begins with a byte order mark is not taken for a file that does.
        query = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, FORCE_QUOTE *)").format(
            sql.SQL(statement)
        )
        with self._cursor.copy(query, parameters) as copy:
            text = b"".join(copy)
        if not text:
            return schema.empty_table()
        return pa_csv.read_csv(
            io.BytesIO(text),
            read_options=pa_csv.ReadOptions(column_names=schema.names, block_size=1 << 24),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=schema,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
            ),
        ).cast(schema)


_PASSING = (
    *(psycopg.OperationalError, psycopg.InterfaceError, pg.SerializationFailure),
    *(pg.ReadOnlySqlTransaction, pg.IdleInTransactionSessionTimeout),
)


def named(error: psycopg.Error) -> Exception:
    """The same failure in terms of what a caller may do about it."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, pg.DiskFull):
        return Permanent(f"PostgreSQL has no disk space left: {said}; free some, then run again")
    if isinstance(error, pg.InsufficientPrivilege):
        return Permanent(
            f"PostgreSQL refuses: {said}; the role needs the rights of docs/operations.md"
        )
    if isinstance(error, _PASSING):
        return Transient(f"PostgreSQL is not available: {said}; run `storekeep doctor`, then again")
    return InvariantBroken(f"PostgreSQL refused a statement: {said}")
