"""A PostgreSQL that runs, and the reasons when it cannot be used.

Hides the driver's words: they are kept where they help, and left out where they would repeat a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from storekeep.errors import Refused, Transient

OLDEST_MAJOR = 15
CONNECT_SECONDS = 10
VARIABLE = "STOREKEEP_DATABASE_URL"


class Missing(Refused):
    """The server runs but has no such database or role."""


@dataclass(frozen=True)
class Database:
    """How to reach a PostgreSQL that runs: `version` as in "18.6"; the password is never shown."""

    conninfo: str = field(repr=False)
    embedded: bool
    version: str

    @property
    def where(self) -> str:
        """The place of the database, for a person to read, without user or password."""
        return name_place(conninfo_to_dict(self.conninfo))

    def admin(self, database: str | None = None) -> psycopg.Connection:
        """Open a connection as the owner, for roles, databases and settings; each statement commits itself.

        The caller closes it. `database` is another one on the same server. Raises `Transient` when the server
        cannot be reached and `Refused` when it says no.
        """
        conninfo = make_conninfo(self.conninfo, dbname=database) if database else self.conninfo
        return connect(conninfo)


def name_place(parts: Mapping[str, object]) -> str:
    """Name a database by what is no secret of it."""
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    return f"database {parts.get('dbname') or parts.get('user')} at {host}, port {parts.get('port') or 5432}"


def version_text(number: int) -> str:
    """Turn the server's own version number, as 180006, into "18.6"."""
    return f"{number // 10000}.{number % 10000}"


def connect(conninfo: str) -> psycopg.Connection:
    """Open a connection that commits each statement; raises `Refused`, `Missing` or `Transient`."""
    parts = conninfo_to_dict(conninfo)
    patience = parts.get("connect_timeout") or CONNECT_SECONDS
    try:
        return psycopg.connect(make_conninfo(conninfo, connect_timeout=patience), autocommit=True)
    except psycopg.OperationalError as error:
        words = " ".join(str(error).split())
        if password := parts.get("password"):
            words = words.replace(str(password), "***")
    where = name_place(parts)
    if re.search(
        r"password authentication failed|no password supplied|no pg_hba.conf entry", words
    ):
        raise Refused(f"{where} does not let this user in with this password; mend the two")
    if re.search(r'(database|role) "[^"]*" does not exist', words):
        raise Missing(
            f"{where}: its database or its user does not exist; create it, or mend its name"
        )
    if re.search(r"permission denied for database", words):
        raise Refused(f"{where} does not let this user in: {words}; grant it CONNECT")
    raise Transient(f"{where} cannot be reached: {words}; see that it runs, then try again")


def check_given(url: str) -> Database:
    """Look at the database that a person named; raises `Refused` or `Transient` if it cannot serve."""
    form = "it has the form postgresql://user:password@host:port/database, with %40 for an @ in a password"
    unreadable = Refused(f"{VARIABLE} is not the address of a PostgreSQL; {form}")
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The driver's words repeat the address, password and all.
        raise unreadable from None
    host, port = str(parts.get("host") or ""), str(parts.get("port") or "5432")
    if "@" in host.lstrip("@") or not re.fullmatch(r"[\d,]+", port):
        # A sign in the password that should have been encoded: what is taken for a host is part of it.
        raise unreadable
    try:
        with connect(url) as connection:
            number = connection.info.server_version
            encoding, standby, read_only = map(
                connection.info.parameter_status,
                ("server_encoding", "in_hot_standby", "default_transaction_read_only"),
            )
    except Transient as error:
        raise Transient(f"{VARIABLE}: {error}") from None
    except Refused as error:
        raise Refused(f"{VARIABLE}: {error}") from None
    where = f"{VARIABLE}: {name_place(parts)}"
    if number < OLDEST_MAJOR * 10000:
        oldest = f"use version {OLDEST_MAJOR} or later"
        raise Refused(f"{where} is PostgreSQL {version_text(number)}; {oldest}")
    if encoding != "UTF8":
        raise Refused(f"{where} is encoded in {encoding}; create the database with ENCODING 'UTF8'")
    if "on" in (standby, read_only):
        raise Refused(f"{where} only lets read, as a standby does; name the primary")
    return Database(url, embedded=False, version=version_text(number))
