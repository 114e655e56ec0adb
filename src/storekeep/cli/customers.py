"""`customers` and `items`: who is who, what is kept of a person and erasing it; which item is which."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, Group, Moment, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Refused

_LINKS = (
    Column("Link"),
    Column("What"),
    Column("Customer"),
    Column("Other"),
    Column("When", drop=2),
    Column("By", drop=1),
    Column("Why", wrap=True, drop=3),
    Column("Undone by"),
)
_FLAGS = (Column("Flag"), Column("Of"), Column("Customers", right=True))
_KEPT = (
    Column("Of"),
    Column("Which", drop=1),
    Column("What"),
    Column("Says", wrap=True),
    Column("Since", drop=2),
)
_ITEMS = (
    Column("Item"),
    Column("GTIN"),
    Column("Supplier"),
    Column("Supplier's number"),
    Column("Since", drop=1),
    Column("Conflict", wrap=True),
)
_ID = click.argument(
    "customer_id", metavar="ID", help="A pseudonym, or crm:17 for what a source calls it."
)
_OTHER = click.argument("other_id", metavar="OTHER", help="Another.")
_BY = click.option("--as", "--by", "principal", metavar="NAME", help="Who does it, if not you.")
_REASON = click.option(
    "--reason", metavar="TEXT", required=True, help="Why; it is kept, so name nobody."
)
_KNOWN_BY = click.option(
    "--known-by", type=Moment(), metavar="TIME", help="As it was known then.  [default: now]"
)


@click.group(cls=Group)
def customers() -> None:
    """Who is who, and what is kept of a person."""


@customers.command()
@click.argument("text", metavar="TEXT", help="An e-mail address, or a phone number with its +.")
@pass_asked
def find(asked: Asked, text: str) -> None:
    """Find the pseudonyms of a customer."""
    with asked.pipeline() as pipeline:
        found = pipeline.find_customers(text)
    asked.answer(found, "\n".join(found) if found else "No customer is known by that.")


@customers.command()
@_ID
@_BY
@_REASON
@pass_asked
def show(asked: Asked, customer_id: str, principal: str | None, reason: str) -> None:
    """Show what is kept of a person, opened.

    The ledger keeps who asked, and why.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        found = pipeline.person(customer_id, by=by, reason=reason)
    asked.answer(found, _person_text(asked, found))


def _person_text(asked: Asked, found: Mapping[str, Any]) -> str:
    zone = asked.zone()
    lines = [f"Known as {', '.join(found['pseudonyms'])}."]
    if found["erased_at"]:
        lines.append(f"erased {shown.moment(found['erased_at'], zone)}")
    for each in found["consents"]:
        word = "consents" if each["given"] else "does not consent"
        since = shown.moment(each["since"], zone)
        lines.append(f"{each['customer_id']} {word} to {each['channel']} since {since}")
    cells = [
        (
            *(row["of_table"], row["reference"], row["field"], row["text"]),
            shown.moment(row["occurred_at"], zone),
        )
        for row in found["personal"]
    ]
    said = shown.table(_KEPT, cells) if cells else "Nothing personal is kept."
    return "\n".join([*map(shown.printable, lines), "", said, "", f"Times are in {zone.key}."])


@customers.command()
@_ID
@_BY
@_REASON
@click.option("--yes", is_flag=True, help="Do not ask; nobody is asked but at a terminal.")
@pass_asked
def erase(asked: Asked, customer_id: str, principal: str | None, reason: str, *, yes: bool) -> None:
    """Erase a person, under all names it is known by.

    The keys of the person are deleted, so nothing that was sealed under them can be read again, wherever a
    copy of it stands. What is recorded stays, with pseudonyms. It cannot be undone.
    """
    by = principal or asked.settings().principal
    alone = yes or asked.json or not sys.stdin.isatty()
    if not (alone or click.confirm(f"Erase {customer_id} for good?", err=True)):
        raise Refused("nothing was done")
    with asked.pipeline() as pipeline:
        found = pipeline.erase_person(customer_id, by=by, reason=reason)
    names = ", ".join(found["pseudonyms"])
    many = shown.count(found["keys"], "key")
    asked.answer(found, f"Erased, {many} deleted. Pseudonyms that stay: {names}.")


@customers.command()
@_KNOWN_BY
@pass_asked
def merges(asked: Asked, known_by: datetime | None) -> None:
    """List what was merged and split, and what is to be looked at."""
    at, zone = asked.moment(known_by), asked.zone()
    with asked.pipeline() as pipeline:
        links = pipeline.merges(at)
        flags = pipeline.identities(at).flags.to_pylist()
    cells = [
        (
            *(row["link_id"], _did(row), row["customer_id"], row["other_id"]),
            shown.moment(row["occurred_at"], zone),
            *(row["done_by"], row["reason"], row["undone_by"]),
        )
        for row in links
    ]
    parts = [shown.table(_LINKS, cells) if cells else "Nothing was merged."]
    if flags:
        rows = [(each["flag"], each["key"], f"{each['customers']:,}") for each in flags]
        parts.append(shown.table(_FLAGS, rows))
    asked.answer({"links": links, "flags": flags}, "\n\n".join(parts))


def _did(row: Mapping[str, Any]) -> str:
    if row["merges"]:
        return "merged"
    return "split" if row["undoes"] is None else f"undid {row['undoes']}"


@customers.command()
@_ID
@_OTHER
@_BY
@_REASON
@pass_asked
def merge(
    asked: Asked, customer_id: str, other_id: str, principal: str | None, reason: str
) -> None:
    """Say that two customers are one person; `split` undoes it."""
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        link = pipeline.merge(customer_id, other_id, by=by, reason=reason)
    asked.answer({"link_id": link}, f"{customer_id} and {other_id} are one person now: {link}.")


@customers.command()
@_ID
@_OTHER
@_BY
@_REASON
@pass_asked
def split(
    asked: Asked, customer_id: str, other_id: str, principal: str | None, reason: str
) -> None:
    """Say that two customers are not one person.

    Merges of the two are undone. Where an address, a number or a card joins them as well, the first one is
    not known by it any more.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        links = pipeline.split(customer_id, other_id, by=by, reason=reason)
    said = f"{customer_id} and {other_id} are two persons now: {', '.join(links)}."
    asked.answer({"link_ids": links}, said)


@click.command(cls=Command)
@click.option("--conflicts", is_flag=True, help="Only what was kept aside.")
@_KNOWN_BY
@pass_asked
def items(asked: Asked, known_by: datetime | None, *, conflicts: bool) -> None:
    """List the numbers of items, and what contradicts them.

    The GTIN on the package, and what each supplier calls it.
    """
    from storekeep.ingest import CONFLICTS

    zone = asked.zone()
    with asked.pipeline() as pipeline:
        found = pipeline.items(asked.moment(known_by))
    rows = [] if conflicts else [{**row, "conflict": None} for row in found.known.to_pylist()]
    rows += found.aside.to_pylist()
    cells = [
        (
            *(row["sku"], row["gtin"], row["supplier_id"], row["supplier_item"]),
            shown.moment(row["since"], zone),
            CONFLICTS.get(row["conflict"], ""),
        )
        for row in rows
    ]
    many = shown.count(found.aside.num_rows, "row")
    text = f"{shown.table(_ITEMS, cells)}\n\n{many} kept aside. Times are in {zone.key}."
    asked.answer(rows, text if rows else "No item has a number, or none is contradicted.")


COMMANDS = (customers, items)
