"""What is personal, sealed, and the wrapped keys that open it; deleting a key erases the person.

Hides that what is told of somebody who was erased is kept only where it happened after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from psycopg import sql

from storekeep.store.session import Session


class People(Session):
    """Persons: their keys, what is sealed under these, and who was erased."""

    def person_keys(self, persons: Sequence[str]) -> dict[str, bytes]:
        """The wrapped keys of those of some persons that have one."""
        rows = self._run(
            "SELECT person, wrapped FROM person_key WHERE tenant = %s AND person = ANY(%s)",
            (self.tenant, list(persons)),
        )
        return {row["person"]: bytes(row["wrapped"]) for row in rows}

    def add_person_keys(self, keys: Mapping[str, bytes], at: datetime) -> None:
        """Give persons a wrapped key each; who has one keeps it."""
        self._run(
            "INSERT INTO person_key SELECT %s, person, wrapped, %s"
            " FROM unnest(%s::text[], %s::bytea[]) AS made (person, wrapped)"
            " ORDER BY person ON CONFLICT DO NOTHING",
            (self.tenant, at, list(keys), list(keys.values())),
        )

    def add_personal(self, rows: pa.Table) -> None:
        """Keep sealed texts, each once; not what happened before its person was erased.

        `rows`: `person`, `of_table`, `reference`, `field`, `sealed`, `occurred_at`, `known_at`.
        """
        if rows.num_rows == 0:
            return
        self._copy_temporary("incoming_personal", sql.Identifier("personal"), rows)
        self._run(
            "INSERT INTO personal SELECT tenant, person, of_table, reference, field, sealed,"
            " encode(sha256(convert_to(sealed, 'UTF8')), 'hex'), occurred_at, known_at"
            " FROM pg_temp.incoming_personal told WHERE NOT EXISTS (SELECT FROM erasure e"
            "  WHERE e.tenant = told.tenant AND e.person = told.person AND e.erased_at >= told.occurred_at)"
            " ORDER BY of_table, reference, field ON CONFLICT DO NOTHING"
        )

    def personal(self, persons: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """What is sealed of some persons, or of all: of each customer, ticket and message the newest."""
        return self._run(
            "SELECT DISTINCT ON (of_table, reference, field) person, of_table, reference, field, sealed,"
            " occurred_at, known_at FROM personal WHERE tenant = %s"
            " AND (%s::text[] IS NULL OR person = ANY(%s))"
            " ORDER BY of_table, reference, field, occurred_at DESC, known_at DESC, digest",
            (self.tenant, None if persons is None else list(persons), list(persons or ())),
        )

    def erase_persons(self, persons: Sequence[str], at: datetime) -> int:
        """Delete the keys of persons and all that is sealed under them; how many keys there were."""
        keys = self._run(
            "DELETE FROM person_key WHERE tenant = %s AND person = ANY(%s) RETURNING person",
            (self.tenant, list(persons)),
        )
        self._run(
            "DELETE FROM personal WHERE tenant = %s AND person = ANY(%s)",
            (self.tenant, list(persons)),
        )
        self._run(
            "INSERT INTO erasure SELECT %s, person, %s FROM unnest(%s::text[]) AS gone (person)"
            " ON CONFLICT DO NOTHING",
            (self.tenant, at, list(persons)),
        )
        return len(keys)

    def erased(self, persons: Sequence[str]) -> dict[str, datetime]:
        """Those of some persons that were erased, and when last."""
        rows = self._run(
            "SELECT person, max(erased_at) AS at FROM erasure WHERE tenant = %s AND person = ANY(%s)"
            " GROUP BY person ORDER BY person",
            (self.tenant, list(persons)),
        )
        return {row["person"]: row["at"] for row in rows}
