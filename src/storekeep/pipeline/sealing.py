"""What is personal of the rows of feeds: sealed before it is read, kept apart, opened for those who may.

Hides where the keys of persons are and how they are wrapped. Facts on the bus, history and ledger hold
pseudonyms only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import ingest
from storekeep.pipeline.intake import Intake
from storekeep.retail import CUSTOMER_CHANGE, TICKET, TICKET_MESSAGE

# What a text is told of: its columns, put together.
_REFERENCES: Mapping[str, tuple[str, ...]] = {
    CUSTOMER_CHANGE.name: ("customer_id",),
    TICKET.name: ("source", "ticket_id"),
    TICKET_MESSAGE.name: ("source", "message_id"),
}


class Sealing(Intake):
    """From what a row says of a person to what is kept of it."""

    @property
    def _pseudonym_key(self) -> bytes:
        return ingest.pseudonym_key(self.home, self.tenant)

    @cached_property
    def _bodies(self) -> ingest.Bodies:
        """What seals what was sent to the tenant, until it is facts."""
        return ingest.Bodies(self.home, self.tenant)

    def _key_for(self, mapping: ingest.Mapping) -> bytes | None:
        """The key of the home's pseudonyms, where a mapping takes one; made when first taken."""
        return self._pseudonym_key if mapping.hides else None

    def _person_keys(self, persons: Sequence[str]) -> dict[str, bytes]:
        """The keys of persons, made where there is none yet."""
        wrapping = ingest.persons_key(self.home, self.tenant)
        with self.store.transaction(self.tenant) as tx:
            found = tx.person_keys(persons)
            if lacking := sorted(set(persons) - found.keys()):
                tx.add_person_keys(
                    {each: ingest.new_person_key(wrapping) for each in lacking}, self.now()
                )
                # Somebody else may have made one at the same moment.
                found |= tx.person_keys(lacking)
        return {person: ingest.unwrapped(key, wrapping) for person, key in found.items()}

    def _keep_personal(self, table: str, loaded: Sequence[ingest.Loaded]) -> None:
        """Keep what is sealed of rows that were taken in; whoever knows the fact finds it."""
        rows = [part for each in loaded for part in _personal(table, each)]
        if rows:
            with self.store.transaction(self.tenant) as tx:
                tx.add_personal(pa.concat_tables(rows))

    def _withhold(self, rejected: pa.Table) -> pa.Table:
        """Rejected rows, without what is sealed of persons who were erased."""
        raw = rejected["raw"].to_pylist() if rejected.num_rows else []
        persons = frozenset[str]().union(*map(ingest.persons_in, raw))
        if not persons:
            return rejected
        with self.store.transaction(self.tenant) as tx:
            gone = frozenset(tx.erased(sorted(persons)))
        if not gone:
            return rejected
        said = pa.array([ingest.withheld(text, gone) for text in raw], pa.string())
        return rejected.set_column(rejected.column_names.index("raw"), "raw", said)

    def _opened_texts(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What is sealed of persons, as `text`; what cannot be opened any more is left out."""
        wrapping = ingest.persons_key(self.home, self.tenant)
        with self.store.transaction(self.tenant) as tx:
            wrapped = tx.person_keys(sorted({row["person"] for row in rows}))
        keys = {person: ingest.unwrapped(key, wrapping) for person, key in wrapped.items()}
        return [
            {**row, "text": ingest.unseal(row["sealed"], row["field"], keys[row["person"]])}
            for row in rows
            if row["person"] in keys
        ]


def _personal(table: str, loaded: ingest.Loaded) -> list[pa.Table]:
    """What is sealed of the rows of a batch, a table for each field."""
    rows, found = loaded.rows, list[pa.Table]()
    if rows.num_rows == 0:
        return found
    parts = [rows[name].combine_chunks() for name in _REFERENCES[table]] if loaded.sealed else []
    for field, sealed in loaded.sealed.items():
        texts = sealed.combine_chunks()
        # What is withheld, or empty, has nobody.
        persons = pc.struct_field(
            pc.extract_regex(texts, r"^sealed/[^/]+/(?P<person>.+)$"), "person"
        )
        one = pa.table(
            {
                "person": persons,
                "of_table": pa.repeat(table, len(texts)),
                "reference": pc.binary_join_element_wise(*parts, "/"),
                "field": pa.repeat(field, len(texts)),
                "sealed": texts,
                "occurred_at": rows["occurred_at"],
                "known_at": rows["known_at"],
            }
        )
        found.append(one.filter(pc.is_valid(one["person"])))
    return found
