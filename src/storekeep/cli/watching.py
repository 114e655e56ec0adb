"""`ingest watch`: files that others put into a folder, taken in as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, pass_asked
from storekeep.cli.execution import until_told
from storekeep.cli.feeds import FEEDS, LOCATION, USUAL, mapping_of, totals_of
from storekeep.errors import Misused, Transient

if TYPE_CHECKING:
    from storekeep.ingest import Mapping as Mapped
    from storekeep.ingest.contracts import Contract
    from storekeep.ingest.folders import Folder
    from storekeep.pipeline import Pipeline
    from storekeep.pipeline.feeding import FileRead

_TOGETHER = 500
_REFUSED_TOLD = 100


@dataclass
class _Watch:
    """What comes of the files of one folder."""

    asked: Asked
    folder: Folder
    found: Mapped
    location_id: str | None
    key: bytes | None
    contract: Contract | None
    files: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    refused: list[dict[str, str]] = field(default_factory=list)

    def look(self) -> list[Path]:
        """Take in what is whole; what is still being written."""
        whole, growing = self.folder.look()
        for start in range(0, len(whole), _TOGETHER):
            with self.asked.pipeline() as pipeline:
                self._read(pipeline, whole[start : start + _TOGETHER])
        return growing

    def _read(self, pipeline: Pipeline, files: Sequence[Path]) -> None:
        turned: dict[Path, str] = {}
        told = pipeline.read_feed(
            self.found,
            files,
            location_id=self.location_id,
            pseudonym_key=self.key,
            contract=self.contract,
            refuse=lambda file, error: turned.update({file: str(error)}),
        )
        for file, reason in turned.items():
            self.refused = [*self.refused, {"file": file.name, "reason": reason}][-_REFUSED_TOLD:]
            _say(f"{file.name} is left where it is: {reason}")
        for file in files:
            self.folder.deal_with(file, keep=file in turned)
        self._count([file for file in files if file not in turned], told)

    def _count(self, files: Sequence[Path], told: Sequence[FileRead]) -> None:
        if not files:
            return
        self.files += len(files)
        found = totals_of(told)
        counts = {name: found[name] for name in ("read", "accepted", "duplicates")}
        counts |= {name: sum(found[name].values()) for name in ("rejected", "ignored")}
        self.totals.update(counts)
        _say(f"{shown.count(len(files), 'file')}, {_counted(counts)}")


@click.command(cls=Command)
@click.argument("feed", metavar="FEED", type=click.Choice(list(FEEDS)), help="The feed.")
@click.argument(
    "folder",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder that its files are put into.",
)
@click.option(
    "--mapping", metavar="NAME|FILE", help="What the columns mean.  [default: the feed's own]"
)
@LOCATION
@click.option(
    "--done",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Move files there that were taken in.  [default: leave them]",
)
@click.option(
    "--rest",
    "rest_seconds",
    type=click.IntRange(0, 3600),
    metavar="N",
    default=2,
    show_default=True,
    help="A file is whole when it was left alone for so many seconds.",
)
@click.option("--once", is_flag=True, help="Take in what is there, and end.")
@pass_asked
def watch(
    asked: Asked,
    /,
    *,
    feed: str,
    folder: Path,
    done: Path | None,
    rest_seconds: int,
    once: bool,
    **reads: Any,
) -> None:
    """Take in files that are put into a folder, until told to stop.

    A file is taken in when it is whole. One that cannot be read is left, and tried again when it changes.
    Told to stop (Ctrl-C, SIGTERM), it first ends what it has in hand; killed and started again, it takes in
    nothing twice.
    """
    name = reads["mapping"] or USUAL.get(feed)
    if name is None:
        raise Misused(f"no mapping is usual for feed {feed}; name one with --mapping")
    found, key = mapping_of(asked, name, feed)
    from storekeep import servers
    from storekeep.ingest import contracts
    from storekeep.ingest.folders import Folder

    looked = Folder(folder, rest_seconds=rest_seconds, done=done)
    agreed = contracts.agreed(found, None, name)
    watching = _Watch(asked, looked, found, reads["location_id"], key, agreed)
    # The lease is held over all, so that the database is not stopped between two files.
    with servers.lease(asked.at_home()), until_told() as told:
        growing = _go_on(watching)
        if once and growing and not told.wait(rest_seconds):
            growing = _go_on(watching)
        while not once and not told.wait(1):
            growing = _go_on(watching)
    _answer(asked, watching, growing if once else [], told.by)


def _go_on(watching: _Watch) -> list[Path]:
    """Look once more; what hinders only for now is told, and tried again with the next look."""
    try:
        return watching.look()
    except Transient as error:
        _say(f"{error}; it is tried again")
        return []


def _answer(asked: Asked, watching: _Watch, left: Sequence[Path], told: str | None) -> None:
    names = ("read", "accepted", "duplicates", "rejected", "ignored")
    totals = {name: watching.totals[name] for name in names}
    document: dict[str, Any] = {
        "feed": watching.found.feed,
        "source": watching.found.source,
        "files": watching.files,
        "totals": totals,
        "refused": watching.refused,
        "unfinished": [each.name for each in left],
        "stopped_by": told,
    }
    said = f"{shown.count(watching.files, 'file')}, {_counted(totals)}"
    if watching.refused:
        said += f". Left as they are: {', '.join(each['file'] for each in watching.refused)}"
    if left:
        said += f". Still being written: {', '.join(each.name for each in left)}"
    asked.answer(document, shown.printable(f"{said}."))


def _counted(counts: Mapping[str, int]) -> str:
    """What became of lines."""
    return (
        f"{shown.count(counts['read'], 'line')} read: {counts['accepted']:,} taken in, "
        f"{counts['duplicates']:,} known before, {counts['rejected']:,} rejected, "
        f"{counts['ignored']:,} ignored"
    )


def _say(text: str) -> None:
    click.echo(f"storekeep: {shown.printable(text)}", err=True)
