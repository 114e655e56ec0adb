"""Connections to PostgreSQL: made and made again, the schema brought up to date, failures named.

Hides sessions, roles and migrations. Every statement of a tenant runs as the role `storekeep_app`, which owns
nothing and is bound by row-level security, whatever role the connection was made with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Self

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import dict_row

from storekeep.errors import Refused
from storekeep.store.online import Reader
from storekeep.store.session import LOCK, named
from storekeep.store.transaction import Transaction

SCHEMA = "storekeep"
ROLE = "storekeep_app"


class Store:
    """A connection to the record, made when first needed and made again after it is lost."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def again(self) -> Self:
        """Another connection to the same record, for another thread."""
        return type(self)(self._conninfo)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self, tenant: str) -> Iterator[Transaction]:
        """One tenant's transaction: all of it is recorded, or nothing is.

        Raises `Transient` when PostgreSQL cannot be reached or gave the transaction up, `Permanent` when
        it is out of space or rights.
        """
        connection = self._open()
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('role', %s, true), set_config('storekeep.tenant', %s, true),"
                    " set_config('search_path', %s, true), set_config('timezone', 'UTC', true)",
                    (ROLE, tenant, SCHEMA),
                )
                yield Transaction(cursor, tenant)
        except psycopg.Error as error:
            if connection.broken or connection.closed:
                self._connection = None
            raise named(error) from error

    def reader(self, tenant: str) -> Reader:
        """Another connection, on which one tenant's features are read."""
        try:
            opened = psycopg.connect(self._conninfo, autocommit=True, connect_timeout=10)
            opened.execute(
                "SELECT set_config('role', %s, false), set_config('storekeep.tenant', %s, false),"
                " set_config('search_path', %s, false), set_config('timezone', 'UTC', false)",
                (ROLE, tenant, SCHEMA),
            )
        except psycopg.Error as error:
            raise named(error) from error
        return Reader(opened, tenant)

    def migrate(self) -> list[str]:
        """Bring the schema up to date; return the migrations that were applied.

        Safe to call from several processes at once. Raises `Refused` when the schema is newer than this
        version of Storekeep, or was changed by hand.
        """
        connection = self._open()
        applied: list[str] = []
        try:
            with connection.transaction(), connection.cursor() as cursor:
                known = _known_migrations(cursor)
                for name, text in _migrations():
                    digest = hashlib.sha256(text.encode()).hexdigest()
                    if name not in known:
                        cursor.execute(text.encode())
                        cursor.execute("INSERT INTO migration VALUES (%s, %s)", (name, digest))
                        applied.append(name)
                    elif known.pop(name) != digest:
                        raise Refused(
                            f"migration {name} of the database differs from this version's; use the "
                            "version of Storekeep that made the database, or restore a backup"
                        )
                if known:
                    raise Refused(
                        f"the database was made by a newer version of Storekeep ({max(known)}); "
                        "upgrade Storekeep, or use another home"
                    )
        except psycopg.Error as error:
            raise named(error) from error
        return applied

    def forget_demo(self, tenant: str) -> None:
        """Remove all rows of a tenant that was made for a demonstration, as the owner of the tables.

        Nothing else ever removes what was recorded. Raises `Refused` when the tenant has live records.
        """
        with self.transaction(tenant) as tx:
            if tx.purpose() == "live" and not tx.is_empty():
                raise Refused(
                    f"tenant {tenant} of this home holds live records, which a demonstration would "
                    "replace; use another --tenant or --home"
                )
        connection = self._open()
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('storekeep.tenant', %s, true)", (tenant,))
                cursor.execute(
                    "SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n"
                    " ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relrowsecurity",
                    (SCHEMA,),
                )
                for row in cursor.fetchall():
                    table = sql.Identifier(SCHEMA, row["name"])
                    cursor.execute(
                        sql.SQL("DELETE FROM {} WHERE tenant = %s").format(table), (tenant,)
                    )
        except psycopg.Error as error:
            raise named(error) from error

    def server_pids(self) -> list[int]:
        """The processes of the database server on this machine, as far as the server tells."""
        rows = self._open().execute("SELECT pid FROM pg_stat_activity").fetchall()
        return [int(row["pid"]) for row in rows]

    def _open(self) -> psycopg.Connection[dict[str, Any]]:
        if self._connection is None or self._connection.closed:
            try:
                opened = psycopg.connect(
                    self._conninfo,
                    autocommit=True,
                    row_factory=dict_row,
                    connect_timeout=10,
                    client_encoding="utf8",
                )
                # Whoever waited for a lock must see what was committed meanwhile.
                opened.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            except psycopg.Error as error:
                raise named(error) from error
            self._connection = opened
        return self._connection


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("storekeep") / "migrations"
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(name.removesuffix(".sql"), (folder / name).read_text()) for name in files]


def _known_migrations(cursor: psycopg.Cursor[dict[str, Any]]) -> dict[str, str]:
    """The migrations a database has; makes role, schema and their table where there are none yet."""
    become(cursor)
    schema = sql.Identifier(SCHEMA)
    cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
    cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, sql.Identifier(ROLE)))
    cursor.execute("SELECT set_config('search_path', %s, true)", (SCHEMA,))
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, digest text NOT NULL)"
    )
    cursor.execute("SELECT name, digest FROM migration")
    return {row["name"]: row["digest"] for row in cursor.fetchall()}


def become(cursor: psycopg.Cursor[dict[str, Any]]) -> None:
    """Make the role that all statements run as, where there is none, and see that we may become it.

    Until the transaction ends nobody else makes roles or tables. Raises `Refused` when the role is not bound
    by row-level security.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    role = sql.Identifier(ROLE)
    cursor.execute(
        "SELECT rolsuper OR rolbypassrls AS free FROM pg_roles WHERE rolname = %s", (ROLE,)
    )
    there = cursor.fetchone()
    if there is not None and there["free"]:
        raise Refused(
            f"the role {ROLE} of this server is not bound by row-level security, so that tenants would see "
            f"each other; change it with: ALTER ROLE {ROLE} NOSUPERUSER NOBYPASSRLS"
        )
    if there is None:
        try:
            with cursor.connection.transaction():
                cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN NOBYPASSRLS").format(role))
        except (pg.DuplicateObject, pg.UniqueViolation):
            # Roles are the whole server's: the first user of another of its databases made it just now.
            pass
    # From version 16 on whoever makes a role is its member without the right to become it.
    right = "SET" if cursor.connection.info.server_version >= 160000 else "MEMBER"
    cursor.execute("SELECT pg_has_role(current_user, %s, %s) AS has", (ROLE, right))
    if not (cursor.fetchone() or {})["has"]:
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
