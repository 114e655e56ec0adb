"""Who is who, what is kept of a person, and erasing it.

Hides how a person is put together from what tills, web shop and CRM call it. Merges and splits are facts,
so that who is who can be told as of any time; nothing is overwritten by them. What is personal is only opened
for somebody who says why, and the ledger keeps that it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import ingest
from storekeep.decisions import stamp
from storekeep.errors import Refused
from storekeep.events import HEADQUARTERS
from storekeep.lake import CUSTOMER_CHANGES, CUSTOMER_LINKS, ITEM_IDENTITIES, SALE_LINES, TICKETS
from storekeep.ledger import Entry
from storekeep.pipeline.feeding import Feeding
from storekeep.retail import CUSTOMER_LINK
from storekeep.store import OURSELVES, Transaction
from storekeep.watch import stage

MERGED, SPLIT = "CustomersMerged", "CustomersSplit"
_TOLD = " UNION ALL ".join(
    f"SELECT customer_id, '{table}' AS told_in, email_key, phone_key, {card} AS card_key, occurred_at,"
    f" known_at FROM {table} WHERE known_at <= $known_by AND customer_id IS NOT NULL"
    for table, card in (("customer", "card_key"), ("ticket", "NULL"))
)
_LINKS = (
    "SELECT link_id, event_type = $merged AS merges, customer_id, other_id, undoes, occurred_at, known_at,"
    " done_by, reason FROM link WHERE known_at <= $known_by ORDER BY occurred_at, link_id"
)
_CONSENTS = " UNION ALL ".join(
    f"SELECT customer_id, '{channel}' AS channel, arg_max({channel}_consent, {order}) AS given,"
    f" arg_max(coalesce({channel}_consent_at, occurred_at), {order}) AS since FROM customer"
    f" WHERE known_at <= $known_by AND {channel}_consent IS NOT NULL GROUP BY customer_id"
    for channel in ("email", "sms", "profiling")
    # Of two that were said at the same moment and came at once, the one that forbids.
    for order in (
        f"(coalesce({channel}_consent_at, occurred_at), known_at, NOT {channel}_consent)",
    )
)


class Persons(Feeding):
    """From pseudonyms to persons."""

    def identities(self, known_by: datetime | None = None) -> ingest.Identities:
        """Which pseudonyms are one person's, as was known by a time (now when left out)."""
        told, links = self._known_of_customers(known_by)
        return ingest.identities(told, links)

    def consents(self, known_by: datetime | None = None) -> pa.Table:
        """What each customer consents to: `customer_id`, `channel`, `given`, `since`.

        Of a channel that a customer was never asked about there is no row. What was said last holds, not
        what became known last.
        """
        self.keep_history()
        return self.lake.query(
            f"{_CONSENTS} ORDER BY customer_id, channel",
            tables={"customer": CUSTOMER_CHANGES},
            parameters={"known_by": known_by or self.now()},
        )

    def items(self, known_by: datetime | None = None) -> ingest.Items:
        """Which item is which GTIN and which supplier's number, and what contradicts it."""
        self.keep_history()
        rows = self.lake.query(
            "SELECT * FROM told WHERE known_at <= $known_by",
            tables={"told": ITEM_IDENTITIES},
            parameters={"known_by": known_by or self.now()},
        )
        return ingest.items(rows)

    # Merging ------------------------------------------------------------------------------------------

    def merges(self, known_by: datetime | None = None) -> list[dict[str, Any]]:
        """Every merge and split, oldest first, with what undid it."""
        _, links = self._known_of_customers(known_by)
        rows: list[dict[str, Any]] = links.to_pylist()
        undone = {row["undoes"]: row["link_id"] for row in rows if row["undoes"]}
        return [{**row, "undone_by": undone.get(row["link_id"])} for row in rows]

    def merge(self, customer_id: str, other_id: str, *, by: str, reason: str) -> str:
        """Two customers are one person from now on; the id of the merge.

        Raises `Refused` when one of them is nobody's pseudonym, or when they are one person already.
        """
        with stage("merge", self.tenant):
            told, links = self._known_of_customers()
            people = _people(ingest.identities(told, links))
            customer_id, other_id = (self._named(one, people) for one in (customer_id, other_id))
            if _same(people, customer_id, other_id):
                raise Refused(f"{customer_id} and {other_id} are one person already")
            link = self._link(MERGED, customer_id, other_id, None, by, reason)
            self._publish_links(MERGED, [link])
            return str(link["link_id"])

    def split(self, customer_id: str, other_id: str, *, by: str, reason: str) -> list[str]:
        """Two customers are not one person any more: merges of the two are undone.

        Where keys join them as well, the first one loses those that both have. The ids of what was
        recorded. Raises `Refused`, and records nothing, when they are no person, or one by others.
        """
        with stage("split", self.tenant) as watched:
            told, links = self._known_of_customers()
            people = _people(ingest.identities(told, links))
            customer_id, other_id = (self._named(one, people) for one in (customer_id, other_id))
            if not _same(people, customer_id, other_id):
                raise Refused(f"{customer_id} and {other_id} are two persons already")
            facts = [
                self._link(SPLIT, customer_id, other_id, link_id, by, reason)
                for link_id in _merges_of(links, customer_id, other_id)
            ]
            people = _people(ingest.identities(told, _with(links, facts)))
            if _same(people, customer_id, other_id):
                facts.append(self._link(SPLIT, customer_id, other_id, None, by, reason))
                people = _people(ingest.identities(told, _with(links, facts)))
            if _same(people, customer_id, other_id):
                others = sorted(
                    {each for each, person in people.items() if person == people[customer_id]}
                    - {customer_id, other_id}
                )
                raise Refused(
                    f"{customer_id} and {other_id} are one person by others as well; split them first: "
                    f"{', '.join(others)}"
                )
            self._publish_links(SPLIT, facts)
            watched.rows = len(facts)
            return [str(each["link_id"]) for each in facts]

    def find_customers(self, text: str) -> list[str]:
        """The pseudonyms of customers of whom an address or a number was ever told."""
        told, _ = self._known_of_customers()
        keys = [
            ingest.matches(pa.array([text]), kind, self._pseudonym_key, None)[0].as_py()
            for kind in ingest.MATCHED
        ]
        wanted = pa.array([key for key in keys if key], pa.string())
        held = pc.or_(
            *(pc.is_in(told[name], value_set=wanted) for name in ("email_key", "phone_key"))
        )
        return sorted(set(told["customer_id"].filter(held).to_pylist()))

    def _known_of_customers(self, known_by: datetime | None = None) -> tuple[pa.Table, pa.Table]:
        self.keep_history()
        at = known_by or self.now()
        told = self.lake.query(
            _TOLD,
            tables={"customer": CUSTOMER_CHANGES, "ticket": TICKETS},
            parameters={"known_by": at},
        )
        links = self.lake.query(
            _LINKS,
            tables={"link": CUSTOMER_LINKS},
            parameters={"known_by": at, "merged": MERGED},
        )
        return told, links

    def _named(self, customer: str, people: Mapping[str, str]) -> str:
        """The pseudonym of a customer: as it stands, or of what a source calls it (`crm:17`).

        Raises `Refused` when nothing was ever told of such a customer.
        """
        source, _, own = customer.partition(":")
        hidden = ingest.pseudonyms(pa.array([own]), source, self._pseudonym_key, ())
        both = [customer, *map(str, hidden.to_pylist())]
        with self.store.transaction(self.tenant) as tx:
            known = {*tx.person_keys(both), *tx.erased(both)} | people.keys()
        sold = self.lake.query(
            "SELECT DISTINCT customer_id FROM sale WHERE list_contains($both, customer_id)",
            tables={"sale": SALE_LINES},
            parameters={"both": both},
        )
        for each in both:
            if each in known or each in sold["customer_id"].to_pylist():
                return each
        raise Refused(
            f"nothing was ever told of a customer {customer}; name a pseudonym that `storekeep customers "
            "find` shows, or the source and what it calls the customer, crm:17"
        )

    def _link(
        self, type_: str, customer_id: str, other_id: str, undoes: str | None, by: str, reason: str
    ) -> dict[str, Any]:
        at = self.now()
        said = "\n".join((type_, customer_id, other_id, undoes or "", by, stamp(at)))
        return {
            "link_id": hashlib.sha256(said.encode()).hexdigest()[:16],
            "customer_id": customer_id,
            "other_id": other_id,
            "undoes": undoes,
            "done_by": by,
            "reason": reason,
            "occurred_at": at,
            "known_at": at,
        }

    def _publish_links(self, type_: str, links: Sequence[dict[str, Any]]) -> None:
        facts = pa.Table.from_pylist(list(links), CUSTOMER_LINK.arrow)
        self.publish(type_, OURSELVES, HEADQUARTERS, facts)

    # What is personal ---------------------------------------------------------------------------------

    def person(self, customer_id: str, *, by: str, reason: str) -> dict[str, Any]:
        """All that is kept of the person behind a pseudonym, opened; the ledger keeps who asked, and why.

        Raises `Refused` when nothing was ever told of such a customer.
        """
        pseudonyms, sealed_for = self._person(customer_id)
        with self.store.transaction(self.tenant) as tx:
            # Recorded first: whatever goes wrong then, nobody has read without a trace.
            self._note_person(tx, "shown", pseudonyms, by, reason)
            rows = tx.personal(sealed_for)
            erased = tx.erased(pseudonyms)
        consents = self.consents()
        mine = consents.filter(pc.is_in(consents["customer_id"], pa.array(pseudonyms)))
        texts = [
            {name: row[name] for name in ("of_table", "reference", "field", "text", "occurred_at")}
            for row in self._opened_texts(rows)
        ]
        return {
            "pseudonyms": pseudonyms,
            "erased_at": max(erased.values(), default=None),
            "consents": mine.to_pylist(),
            "personal": texts,
        }

    def erase_person(self, customer_id: str, *, by: str, reason: str) -> dict[str, Any]:
        """Delete the keys of the person behind a pseudonym, under all names it is known by, and all sealed.

        What was sealed under them cannot be opened any more, wherever a copy stands. What happened before
        is not kept again, even when its file comes again. Facts and ledger keep the pseudonyms. Raises
        `Refused` when nothing was ever told of such a customer.
        """
        with stage("erase_person", self.tenant) as watched:
            pseudonyms, sealed_for = self._person(customer_id)
            with self.store.transaction(self.tenant) as tx:
                watched.rows = tx.erase_persons(sealed_for, self.now())
                self._note_person(tx, "erased", pseudonyms, by, reason)
        return {"pseudonyms": pseudonyms, "keys": watched.rows}

    def _person(self, customer_id: str) -> tuple[list[str], list[str]]:
        """All pseudonyms of a person; these, and those of tickets in which nobody else is named."""
        people = _people(self.identities())
        customer_id = self._named(customer_id, people)
        person = people.get(customer_id)
        pseudonyms = sorted(
            {customer_id, *(each for each, whose in people.items() if whose == person)}
        )
        tickets = self.lake.query(
            "SELECT DISTINCT source, ticket_id FROM ticket WHERE list_contains($pseudonyms, customer_id)"
            " ORDER BY ALL",
            tables={"ticket": TICKETS},
            parameters={"pseudonyms": pseudonyms},
        )
        owners: list[str] = []
        for source in sorted(set(tickets["source"].to_pylist())):
            own = tickets.filter(pc.equal(tickets["source"], source))["ticket_id"]
            owners += ingest.ticket_pseudonyms(
                own.combine_chunks(), source, self._pseudonym_key
            ).to_pylist()
        return pseudonyms, [*pseudonyms, *owners]

    def _note_person(
        self, tx: Transaction, did: str, pseudonyms: Sequence[str], by: str, reason: str
    ) -> None:
        said = {"did": did, "pseudonyms": list(pseudonyms), "by": by, "reason": reason}
        self._note(tx, Entry("person", {**said, "at": stamp(self.now())}))


def _people(found: ingest.Identities) -> dict[str, str]:
    columns = found.persons.to_pydict()
    return dict(zip(columns["customer_id"], columns["person_id"], strict=True))


def _same(people: Mapping[str, str], customer_id: str, other_id: str) -> bool:
    return people.get(customer_id, customer_id) == people.get(other_id, other_id)


def _merges_of(links: pa.Table, customer_id: str, other_id: str) -> list[str]:
    """The merges of two customers that nothing undid."""
    rows = links.to_pylist()
    undone = {row["undoes"] for row in rows}
    return [
        row["link_id"]
        for row in rows
        if row["merges"]
        and row["undoes"] is None
        and row["link_id"] not in undone
        and {row["customer_id"], row["other_id"]} == {customer_id, other_id}
    ]


def _with(links: pa.Table, facts: Sequence[dict[str, Any]]) -> pa.Table:
    """The links with splits that are not recorded yet."""
    more = [{**each, "merges": False} for each in facts]
    return pa.concat_tables([links, pa.Table.from_pylist(more, links.schema)])
