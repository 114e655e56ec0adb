"""`contracts`: what tables are, and what feeds have promised, as documents of an open standard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Misused

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIST = (
    Column("Contract"),
    Column("Of"),
    Column("Owner"),
    Column("Promises", right=True),
    Column("Says", wrap=True, drop=1),
)
_MAPPING = click.option(
    "--mapping", metavar="NAME|FILE", help="The mapping of the feed, if it is not one that ships."
)


@click.group(cls=Group)
def contracts() -> None:
    """Data contracts of tables and feeds (ODCS 3.1)."""


def _names() -> list[str]:
    """The contracts of all tables, and of the feeds whose mappings ship."""
    from storekeep import ingest, retail

    return list(dict.fromkeys([*sorted(retail.TABLES), *ingest.shipped()]))


def _document(name: str) -> Mapping[str, Any]:
    from storekeep import ingest, retail

    table = retail.TABLES.get(name)
    return _of_feed(name, None) if table is None else ingest.odcs.of_table(table)


def _of_feed(mapping: str, file: Path | None) -> Mapping[str, Any]:
    from storekeep import ingest

    feed = ingest.mapping(mapping)
    agreed = ingest.contracts.agreed(feed, file, mapping) or ingest.contracts.of(feed)
    return agreed.document


def _promises(document: Mapping[str, Any]) -> int:
    """How many things are promised beyond the columns."""
    parts = [*document["schema"], *(p for each in document["schema"] for p in each["properties"])]
    rules = sum(len(each.get("quality", ())) for each in parts)
    return rules + len(document.get("slaProperties", ()))


@contracts.command("list")
@pass_asked
def list_(asked: Asked) -> None:
    """List the contracts of all tables, and of the feeds that ship."""
    rows = [
        {
            "name": name,
            "of": "feed" if len(document["schema"]) > 1 else "table",
            "owner": document.get("team", {}).get("name"),
            "promises": _promises(document),
            "says": document["description"]["purpose"],
        }
        for name, document in ((each, _document(each)) for each in _names())
    ]
    asked.answer(rows, shown.table(_LIST, [tuple(row.values()) for row in rows]))


@contracts.command()
@click.argument("name", metavar="[NAME]", required=False, help="A table, or a mapping that ships.")
@_MAPPING
@click.option(
    "--contract",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the feed of the mapping promises, if not said beside it.",
)
@pass_asked
def show(asked: Asked, name: str | None, mapping: str | None, contract: Path | None) -> None:
    """Show one contract: that of a table, or of a feed."""
    from storekeep.ingest import odcs

    if (name is None) == (mapping is None):
        raise Misused("name a contract, or a mapping with --mapping")
    if mapping is not None:
        document = _of_feed(mapping, contract)
    else:
        if name not in _names():
            raise Misused(f"there is no contract {name}; there are {', '.join(_names())}")
        document = _document(str(name))
    asked.answer(document, odcs.as_yaml(document).rstrip("\n"))


@contracts.command()
@click.argument(
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder; it is made where there is none.",
)
@pass_asked
def write(asked: Asked, folder: Path) -> None:
    """Write all contracts into a folder, one file each."""
    from storekeep.ingest import odcs

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in _names():
        path = folder / f"{name}.yaml"
        path.write_text(odcs.as_yaml(_document(name)), encoding="utf-8")
        files.append(str(path))
    asked.answer({"files": files}, f"Wrote {shown.count(len(files), 'contract')} to {folder}.")


@contracts.command()
@click.argument(
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The contract.",
)
@_MAPPING
@pass_asked
def check(asked: Asked, file: Path, mapping: str | None) -> None:
    """Check a contract against the standard, and against a mapping."""
    from storekeep import ingest

    written = ingest.contracts.standing(file)
    if mapping is not None:
        ingest.contracts.agreed(ingest.mapping(mapping), file, mapping)
    answer = {"file": str(file), "name": written.plain["name"], "ok": True}
    asked.answer(answer, f"{file} keeps to the standard.")
