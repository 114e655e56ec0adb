"""`ingest` and `feeds`: files into a live home, and how its feeds stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, Moment, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Misused

if TYPE_CHECKING:
    from storekeep.ingest import Mapping as Mapped
    from storekeep.pipeline.feeding import FileRead

# What each feed brings; `storekeep.ingest.FEEDS`, which is heavier to import, says into which tables.
FEEDS: Mapping[str, str] = {
    "pos": "sale lines of tills",
    "orders": "sale lines of a web shop",
    "stock": "counts of stock, and reports of it",
    "suppliers": "what suppliers answer, ship and deliver",
    "products": "items of a catalogue",
    "fulfilments": "what was sent out of customers' orders",
    "customers": "customers and their consents",
    "tickets": "tickets and their messages",
    "items": "numbers of items",
}
# The mappings that ship for files whose columns are named as ours.
USUAL: Mapping[str, str] = {
    "stock": "stock_counts",
    "suppliers": "deliveries",
    "products": "catalogue",
    "fulfilments": "fulfilments",
    "customers": "customers",
    "tickets": "tickets",
    "items": "items",
}
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
_ASIDE = (
    Column("Row"),
    Column("File", drop=1),
    Column("Line", right=True),
    Column("Column", drop=3),
    Column("Rule"),
    Column("Why", wrap=True, drop=2),
    Column("Says", wrap=True, drop=4),
)


def _mapping_option(
    usual: str | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option that names a mapping, which is needed where none is usual."""
    known: dict[str, Any] = {"default": usual, "show_default": True} if usual else {}
    return click.option(
        "--mapping",
        metavar="NAME|FILE",
        required=usual is None,
        help="What the columns mean.",
        **known,
    )


LOCATION = click.option(
    "--location",
    "location_id",
    metavar="ID",
    help="Where the goods are taken from, if not the store.",
)
CONTRACT = click.option(
    "--contract",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the feed promises, if not said beside its mapping.",
)


class Cell(click.ParamType[tuple[str, str]]):
    """A column of a file and what it should say."""

    name = "column=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The column and the text."""
        if isinstance(value, tuple):
            return value
        name, sign, said = value.partition("=")
        if not (name and sign):
            self.fail(f"{value!r} sets nothing; write a column and its text: qty=2", param, ctx)
        return name, said


_SUGGESTED = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group, invoke_without_command=True)
@click.option(
    "--suggest", "sample", metavar="FILE", type=_SUGGESTED, help="The same as `suggest FILE`."
)
@click.pass_context
def ingest(context: click.Context, sample: Path | None) -> None:
    """Take in what others sent, and see to what was rejected."""
    if sample is not None:
        context.invoke(suggest, file=sample)
        context.exit()
    if context.invoked_subcommand is None:
        raise click.exceptions.NoArgsIsHelpError(context)


def _of(feed: str, brings: str) -> click.Command:
    """The command that takes files of one feed in."""

    @click.argument(
        "paths",
        metavar="PATH...",
        nargs=-1,
        required=True,
        type=click.Path(exists=True, path_type=Path),
        help=f"Files of {brings}, plain, gz or zip, and folders of them.",
    )
    @_mapping_option(USUAL.get(feed))
    @LOCATION
    @CONTRACT
    @pass_asked
    def take_in(
        asked: Asked,
        paths: Sequence[Path],
        mapping: str,
        location_id: str | None,
        contract: Path | None,
    ) -> None:
        from storekeep.cli.progress import Bars
        from storekeep.ingest import contracts

        found, key = mapping_of(asked, mapping, feed)
        agreed = contracts.agreed(found, contract, mapping)
        files = [file for path in paths for file in _files(path)]
        with asked.pipeline() as pipeline, Bars() as bars:
            bars.begin(f"Taking in {shown.count(len(files), 'file')}")
            told = pipeline.read_feed(
                found,
                files,
                location_id=location_id,
                pseudonym_key=key,
                contract=agreed,
                step=bars.step,
            )
            bars.end()
        totals = _answer(asked, found, told)
        if totals["read"] and not totals["accepted"] + totals["duplicates"]:
            click.echo(
                "storekeep: no line could be taken in; `storekeep ingest quarantine list` says why",
                err=True,
            )

    take_in.__doc__ = f"""Take in {brings}, each once.

    The same lines may come again, in other files and in any order. Rows that cannot be taken in are kept in
    quarantine. Of a file that cannot be read, or breaks the feed's contract, nothing is taken in; those
    before it are.
    """
    return ingest.command(feed)(take_in)


for _feed, _brings in FEEDS.items():
    _of(_feed, _brings)


def _files(path: Path) -> list[Path]:
    """A file, or those in a folder that are not hidden, by name."""
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.iterdir() if each.is_file() and each.name[0] != ".")
    if not files:
        raise Misused(f"{path} holds no files")
    return files


def mapping_of(asked: Asked, name: str, feed: str | None = None) -> tuple[Mapped, bytes | None]:
    """A mapping, of a feed if one is named, and the key of pseudonyms where it takes one."""
    settings = asked.at_home()
    from storekeep import ingest as reading

    found = reading.mapping(name)
    if feed not in {None, found.feed}:
        raise Misused(f"mapping {name} is of feed {found.feed}, not of feed {feed}")
    key = reading.pseudonym_key(settings.home, settings.tenant) if found.hides else None
    return found, key


def _answer(asked: Asked, found: Mapped, told: Sequence[FileRead]) -> dict[str, Any]:
    totals = totals_of(told)
    files = [_of_file(each) for each in told]
    document = {"feed": found.feed, "source": found.source, "files": files, "totals": totals}
    asked.answer(document, lambda: _read_text(told, totals))
    return totals


def _of_file(one: FileRead) -> dict[str, Any]:
    return {**asdict(one), **{name: dict(sorted(getattr(one, name).items())) for name in _TALLIES}}


def totals_of(told: Sequence[FileRead]) -> dict[str, Any]:
    """What became of the lines of all files."""
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


@ingest.command()
@click.argument("source", metavar="SOURCE", help="The web shop, as the settings name it.")
@click.option(
    "--since",
    type=Moment(),
    metavar="TIME",
    help="What changed since then.  [default: the last time]",
)
@pass_asked
def backfill(asked: Asked, source: str, since: datetime | None) -> None:
    """Ask a web shop for what happened, and take in what is new.

    What came by webhook is known. It begins where the last backfill ended, and one that was stopped goes on.
    """
    from storekeep.cli.progress import Bars

    with asked.pipeline() as pipeline, Bars() as bars:
        bars.begin(f"Asking {source}")
        told = pipeline.backfill(source, asked.moment(since), bars.step)
        bars.end()
    rows = list(told.values())
    totals = totals_of(rows)
    feeds_ = [_of_file(each) for each in rows]
    document = {"source": source, "feeds": feeds_, "totals": totals}
    text = _read_text(rows, totals) if rows else f"{source} tells of nothing new."
    asked.answer(document, text)


@ingest.command()
@click.argument(
    "source", metavar="SOURCE", help="The web shop, as the settings name it, or `pushed`."
)
@pass_asked
def again(asked: Asked, source: str) -> None:
    """Read deliveries anew that were refused and are kept.

    For when a mapping or the settings were mended, or a newer version reads what the last did not.
    """
    with asked.pipeline() as pipeline:
        many = pipeline.hear_again(source)
        with pipeline.store.again() as beside:
            pipeline.hear(beside, Counter())
    said = f"{shown.count(many, 'delivery', 'deliveries')} of {source} read anew."
    asked.answer({"source": source, "deliveries": many}, said)


@ingest.command()
@click.argument("file", metavar="FILE", type=_SUGGESTED, help="A file of the feed.")
@pass_asked
def suggest(asked: Asked, file: Path) -> None:
    """Propose a mapping for files like one.

    Nothing is taken in. What is printed is a mapping that loads; look at the lines that say LOOK, and keep it
    in a file.
    """
    from storekeep import ingest as reading

    found = reading.suggest(file)
    asked.answer({"mapping": found.text, "look": list(found.look)}, found.text.rstrip("\n"))


@ingest.group(cls=Group)
def quarantine() -> None:
    """Rows that could not be taken in, and what to do about them."""


@quarantine.command("list")
@click.option("--source", metavar="NAME", help="Only of this source.")
@click.option("--rule", metavar="RULE", help="Only what this rule turned away.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="At most so many rows.  [default: all]"
)
@pass_asked
def list_(asked: Asked, source: str | None, rule: str | None, limit: int | None) -> None:
    """List the rows that are in quarantine, by file and line."""
    with asked.pipeline() as pipeline:
        found = pipeline.aside(source, rule)
    rows = [_aside(row) for row in found.slice(0, limit).to_pylist()]
    asked.answer(rows, lambda: _aside_text(rows, found.num_rows))


def _aside_text(rows: Sequence[Mapping[str, Any]], many: int) -> str:
    if not rows:
        return "Nothing is in quarantine."
    cells = [
        (
            *(row["id"], row["file"], row["line"], row["column"], row["rule"], row["reason"]),
            row["corrected"] or row["raw"],
        )
        for row in rows
    ]
    return f"{shown.table(_ASIDE, cells)}\n\n{shown.count(many, 'row')} in quarantine."


def _aside(row: Mapping[str, Any]) -> dict[str, Any]:
    names = {"source_file": "file", "source_line": "line"}
    return {names.get(name, name): value for name, value in row.items()}


_ROW = click.argument("row_id", metavar="ID", help="Its id, as `list` shows it.")


@quarantine.command()
@_ROW
@pass_asked
def show(asked: Asked, row_id: str) -> None:
    """Show one row, and what was done about it since."""
    with asked.pipeline() as pipeline:
        row = _aside(pipeline.aside_row(row_id))
    asked.answer(row, _row_text(asked, row))


def _row_text(asked: Asked, row: Mapping[str, Any]) -> str:
    zone = asked.zone()
    place = f"{row['file']}, line {row['line']}"
    fields = {
        "place": place if row["column"] is None else f"{place}, column {row['column']}",
        "source": row["source"],
        "turned away by": f"{row['rule']}: {row['reason']}",
        "known since": f"{shown.moment(row['known_at'], zone)} {zone.key}",
        "said": row["raw"],
    }
    lines = [
        f"{row['id']}",
        shown.pairs({name: shown.printable(said) for name, said in fields.items()}),
    ]
    for step in row["steps"]:
        why = f" ({step['reason']})" if step["reason"] else ""
        said = f"{step['step']} by {step['done_by']}{why}: {step['raw']}"
        lines.append(shown.printable(f"{shown.moment(step['known_at'], zone)} {said}"))
    return "\n".join(lines)


@quarantine.command()
@_ROW
@click.option(
    "--set",
    "cells",
    type=Cell(),
    multiple=True,
    required=True,
    metavar="COLUMN=VALUE",
    help="What a column of the file should have said; several for several.",
)
@click.option("--as", "principal", metavar="NAME", help="Who corrects it, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is kept with the row.")
@pass_asked
def fix(
    asked: Asked,
    row_id: str,
    cells: tuple[tuple[str, str], ...],
    principal: str | None,
    reason: str,
) -> None:
    """Correct a row; it is taken in by a replay.

    What the row said before stays on record. A row that was no row at all needs all its columns.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        row = _aside(pipeline.correct(row_id, dict(cells), by, reason))
    asked.answer(row, _row_text(asked, row))


@quarantine.command()
@click.argument(
    "ids", metavar="[ID]...", nargs=-1, help="Only these rows; all of the mapping's source if none."
)
@_mapping_option()
@LOCATION
@click.option("--as", "principal", metavar="NAME", help="Who replays them, if not you.")
@pass_asked
def replay(
    asked: Asked,
    ids: tuple[str, ...],
    mapping: str,
    location_id: str | None,
    principal: str | None,
) -> None:
    """Take rows in that were corrected, or that fit by now.

    They happened when they say, and are known from now on. What still cannot be taken in stays in
    quarantine.
    """
    by = principal or asked.settings().principal
    found, key = mapping_of(asked, mapping)
    with asked.pipeline() as pipeline:
        told = pipeline.replay_aside(found, ids, by=by, location_id=location_id, pseudonym_key=key)
    _answer(asked, found, told)


@click.group(cls=Group, invoke_without_command=True)
@click.option(
    "--known-by", type=Moment(), metavar="TIME", help="As it was known then.  [default: now]"
)
@click.pass_context
def feeds(context: click.Context, known_by: datetime | None) -> None:
    """Show how each feed stands, now or as known earlier."""
    if context.invoked_subcommand is None:
        context.invoke(_feeds, known_by=known_by)


@pass_asked
def _feeds(asked: Asked, known_by: datetime | None) -> None:
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        rows = pipeline.feeds(asked.moment(known_by))
    cells = [
        (
            *(row["feed"], row["source"], row["state"], f"{row['lines']:,}"),
            *_sold(row),
            *(shown.moment(row[f"{name}_occurred_at"], zone) for name in ("first", "last")),
            shown.listed(row["rejected"]),
        )
        for row in rows
    ]
    said = [f"Units and values are net of returns. Times are in {zone.key}."]
    for row in rows:
        said += [
            f"{row['source']} is {why['state']} at {why['location_id']}: {why['reason']}."
            for why in row["reasons"]
        ]
        if row["new_columns"]:
            said.append(f"{row['source']} has new columns: {', '.join(row['new_columns'])}.")
    text = "\n".join([shown.table(_FEEDS, cells), "", *map(shown.printable, said)])
    asked.answer(rows, text if rows else "No feed has brought anything yet.")


def _sold(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Orders, items, units and value of a feed of sales; of another there are none."""
    if "orders" not in row:
        return "", "", "", ""
    values = row["value_minor"].items()
    return (
        *(f"{row['orders']:,}", f"{row['distinct_skus']:,}", f"{row['units']['net']:,}"),
        ", ".join(shown.money(each["net"], currency) for currency, each in values),
    )


@feeds.command()
@click.argument("source", metavar="SOURCE", help="The source, as `storekeep feeds` shows it.")
@click.option("--as", "principal", metavar="NAME", help="Who lets it go on, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it is kept with the state.")
@pass_asked
def resume(asked: Asked, source: str, principal: str | None, reason: str) -> None:
    """Let a feed go on that was stopped by a file.

    Of files that break its contract still nothing is taken in.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        pipeline.resume_feed(source, by, reason)
        (row,) = [each for each in pipeline.feeds() if each["source"] == source]
    answer = {"source": source, "state": row["state"], "reasons": row["reasons"]}
    asked.answer(answer, f"{source} goes on; it is {row['state']}.")


COMMANDS = (ingest, feeds)
