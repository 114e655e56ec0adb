"""`ingest` and `feeds`: files into a live home, and how its feeds stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, Group, Moment, pass_asked
from storekeep.cli.shown import Column

if TYPE_CHECKING:
    from storekeep.pipeline.feeding import FileRead

_COUNTS = ("read", "accepted", "duplicates")
_TALLIES = ("rejected", "ignored", "repaired")
_FILES = (
    Column("File"),
    Column("Lines", right=True),
    Column("Taken in", right=True),
    Column("Known", right=True),
    Column("Rejected", wrap=True),
    Column("Ignored", wrap=True, drop=1),
)
_FEEDS = (
    Column("Feed"),
    Column("Source"),
    Column("State"),
    Column("Lines", right=True),
    Column("Orders", right=True),
    Column("Items", right=True, drop=3),
    Column("Units", right=True, drop=2),
    Column("Value", right=True),
    Column("First", drop=4),
    Column("Last", drop=1),
    Column("Rejected", wrap=True, drop=1),
)


@click.group(cls=Group)
def ingest() -> None:
    """Take in what tills and others sent, and see to what was rejected."""


@ingest.command()
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Files of sale lines, plain, gz or zip.",
)
@click.option(
    "--mapping",
    metavar="NAME|FILE",
    required=True,
    help="What their columns mean.",
)
@click.option(
    "--location",
    "location_id",
    metavar="ID",
    help="Where the goods are taken from, if not the store.",
)
@pass_asked
def pos(asked: Asked, files: Sequence[Path], mapping: str, location_id: str | None) -> None:
    """Take in sale lines of tills or a web shop, each once.

    The same lines may come again, in other files and in any order. Rows that cannot be taken in are kept in
    quarantine. Of a file that cannot be read nothing is taken in; those before it are.
    """
    settings = asked.at_home()
    from storekeep import ingest as reading
    from storekeep.cli.progress import Bars

    found = reading.mapping(mapping)
    key = None
    if found.personal_columns:
        key = reading.pseudonym_key(settings.home, settings.tenant)
    with asked.pipeline() as pipeline, Bars() as bars:
        bars.begin(f"Taking in {shown.count(len(files), 'file')}")
        told = pipeline.read_sales(
            found, files, location_id=location_id, pseudonym_key=key, step=bars.step
        )
        bars.end()
    totals = _totals(told)
    document = {
        "feed": found.feed,
        "source": found.source,
        "files": [_of_file(each) for each in told],
        "totals": totals,
    }
    asked.answer(document, _read_text(told, totals))
    if totals["read"] and not totals["accepted"] + totals["duplicates"]:
        # A mapping that fits no line of all that were read is hardly the right one.
        raise click.exceptions.Exit(1)


def _of_file(one: FileRead) -> dict[str, Any]:
    return {**asdict(one), **{name: dict(sorted(getattr(one, name).items())) for name in _TALLIES}}


def _totals(told: Sequence[FileRead]) -> dict[str, Any]:
    tallies = {
        name: sum((getattr(each, name) for each in told), Counter[str]()) for name in _TALLIES
    }
    return {
        **{name: sum(getattr(each, name) for each in told) for name in _COUNTS},
        **{name: dict(sorted(tally.items())) for name, tally in tallies.items()},
    }


def _read_text(told: Sequence[FileRead], totals: Mapping[str, Any]) -> str:
    rows = [
        (
            *(each.file, f"{each.read:,}", f"{each.accepted:,}", f"{each.duplicates:,}"),
            *(shown.listed(each.rejected), shown.listed(each.ignored)),
        )
        for each in told
    ]
    turned = sum(totals["rejected"].values())
    ignored = sum(totals["ignored"].values())
    parts = [f"{totals['accepted']:,} taken in", f"{totals['duplicates']:,} known before"]
    parts += [f"{turned:,} rejected", f"{ignored:,} ignored"]
    said = [f"{shown.count(totals['read'], 'line')} read: {', '.join(parts)}."]
    if turned:
        said.append(f"Rejected: {shown.listed(totals['rejected'])}.")
    unmapped = sorted({name for each in told for name in each.unmapped})
    if unmapped:
        said.append(f"Columns that the mapping does not name: {', '.join(unmapped)}.")
    return "\n".join([shown.table(_FILES, rows), "", *map(shown.printable, said)])


@click.command(cls=Command)
@click.option(
    "--known-by", type=Moment(), metavar="TIME", help="As it was known then.  [default: now]"
)
@pass_asked
def feeds(asked: Asked, known_by: datetime | None) -> None:
    """Show how each feed of sales stands, now or as known earlier."""
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        rows = pipeline.feeds(asked.moment(known_by))
    cells = [
        (
            *(row["feed"], row["source"], row["state"], f"{row['lines']:,}", f"{row['orders']:,}"),
            *(f"{row['distinct_skus']:,}", f"{row['units']['net']:,}"),
            ", ".join(
                shown.money(each["net"], currency) for currency, each in row["value_minor"].items()
            ),
            *(shown.moment(row[f"{name}_occurred_at"], zone) for name in ("first", "last")),
            shown.listed(row["rejected"]),
        )
        for row in rows
    ]
    text = f"{shown.table(_FEEDS, cells)}\n\nUnits and values are net of returns. Times are in {zone.key}."
    asked.answer(rows, text if rows else "No feed of sales has brought anything yet.")


COMMANDS = (ingest, feeds)
