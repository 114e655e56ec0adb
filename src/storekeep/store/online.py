"""Features as they are by now: the newest values of each subject, written in bulk and read in one go.

Hides that a subject's values stand in three lists (whole numbers, numbers, texts), and that a reader keeps a
connection of its own on which a question is one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

import psycopg
import pyarrow as pa

from storekeep.store.session import Session, named


class Found(NamedTuple):
    """The values of one subject, and when they came to be so."""

    subject: str
    occurred_at: datetime
    integers: Sequence[int | None]
    numbers: Sequence[float | None]
    texts: Sequence[str | None]


class Online(Session):
    """The values of feature sets, by version."""

    def begin_online(self, name: str, version: str, known_by: datetime) -> int:
        """The number under which the values of a version of a set are kept, as known by a time."""
        # Counted by tenant: a number for all of them would tell of the others.
        self._lock()
        rows = self._run(
            "INSERT INTO feature_online (tenant, set_name, version, online, known_by)"
            " SELECT %s, %s, %s, coalesce(max(online), 0) + 1, %s FROM feature_online WHERE tenant = %s"
            " ON CONFLICT (tenant, set_name, version) DO UPDATE"
            " SET known_by = greatest(feature_online.known_by, EXCLUDED.known_by) RETURNING online",
            (self.tenant, name, version, known_by, self.tenant),
        )
        return int(rows[0]["online"])

    def put_values(self, rows: pa.Table) -> None:
        """Put values in place of older ones: columns of `feature_value`, a subject once."""
        if not rows.num_rows:
            return
        columns = self._copy_temporary("incoming_feature_value", _VALUES, rows)
        self._cursor.execute(
            psycopg.sql.SQL(
                "INSERT INTO feature_value ({columns}) SELECT {columns} FROM pg_temp.incoming_feature_value"
                " ON CONFLICT (tenant, online, subject) DO UPDATE SET occurred_at = EXCLUDED.occurred_at,"
                " integers = EXCLUDED.integers, numbers = EXCLUDED.numbers, texts = EXCLUDED.texts"
                " WHERE feature_value.occurred_at <= EXCLUDED.occurred_at"
            ).format(columns=columns)
        )

    def serve(self, name: str, version: str) -> bool:
        """From now on this version of a set is read, and no other; False when it has no values."""
        self.stop_serving(name)
        return bool(
            self._run(
                "UPDATE feature_online SET served = true"
                " WHERE tenant = %s AND set_name = %s AND version = %s RETURNING online",
                (self.tenant, name, version),
            )
        )

    def stop_serving(self, name: str) -> None:
        """From now on no version of a set is read."""
        self._run(
            "UPDATE feature_online SET served = false WHERE tenant = %s AND set_name = %s AND served",
            (self.tenant, name),
        )

    def online(self) -> list[dict[str, Any]]:
        """The versions of sets that have values: of which time, and whether they are served."""
        return self._run(
            "SELECT set_name, version, known_by, served FROM feature_online WHERE tenant = %s"
            " ORDER BY set_name, known_by, version",
            (self.tenant,),
        )


_VALUES = psycopg.sql.Identifier("feature_value")


class Reader:
    """Reads one tenant's values, each question in one round trip; made by `Store.reader`."""

    def __init__(self, connection: psycopg.Connection[Any], tenant: str) -> None:
        self._connection, self._tenant = connection, tenant

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def values(self, name: str, subjects: Sequence[str]) -> tuple[str | None, list[Found]]:
        """The values of some subjects in a set, in no order, and of which version they are.

        A subject that has none is not among them; the version is None where none of them has.
        """
        try:
            with self._connection.cursor(binary=True) as cursor:
                cursor.execute(
                    "SELECT o.version, v.subject, v.occurred_at, v.integers, v.numbers, v.texts"
                    " FROM feature_online o JOIN feature_value v USING (tenant, online)"
                    " WHERE tenant = %s AND o.set_name = %s AND o.served AND v.subject = ANY(%b)",
                    (self._tenant, name, list(subjects)),
                    prepare=True,
                )
                rows = cursor.fetchall()
        except psycopg.Error as error:
            raise named(error) from error
        return (rows[0][0] if rows else None), [Found._make(row[1:]) for row in rows]
