"""`storekeep lineage`: from a decision or a table back to files and lines, and the same told to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from rich.tree import Tree

_MOST_RUNS = 20
_MOST_FILES = 8
_MOST_RANGES = 6
_MOST_IDS = 3


class WhatOrCommand(Group):
    """A group whose own command is meant where the first word is none of its commands."""

    otherwise = "show"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named; else `show` for the word that is not."""
        if args and args[0] not in self.commands:
            args = [self.otherwise, *args]
        return super().resolve_command(ctx, args)


@click.group(cls=WhatOrCommand)
def lineage() -> None:
    """Trace decisions and tables to their files and lines.

    `storekeep lineage ID` is `storekeep lineage show ID`.
    """


@lineage.command()
@click.argument("what", metavar="ID", help="A decision's id, TABLE or TABLE@VERSION.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="At most so many runs.  [default: all]"
)
@pass_asked
def show(asked: Asked, what: str, limit: int | None) -> None:
    """Show what a decision or a table was made from.

    Of a decision: its features and its stock, the tables at the versions that were read, the runs that
    brought their rows, and files and lines. Of a table: the runs that made it up to a version, the newest
    first.
    """
    with asked.pipeline() as pipeline:
        tree = pipeline.lineage(what, limit)
    if asked.json:
        asked.answer(tree, "")
        return
    zone = asked.zone()
    drawn = _drawn(tree, zone, limit or _MOST_RUNS)
    asked.answer(tree, f"{drawn}\n\nTimes in {zone.key}.")


@lineage.command()
@click.option(
    "--to",
    "target",
    metavar="URL|FILE",
    required=True,
    help="An OpenLineage endpoint (http://HOST:PORT), or a file of JSON lines.",
)
@pass_asked
def export(asked: Asked, target: str) -> None:
    """Tell others of all runs, as OpenLineage events.

    An endpoint such as Marquez's is told of each run once: the next time only of those since. A file is
    written anew with all of them.
    """
    with asked.pipeline() as pipeline:
        if target.startswith(("http://", "https://")):
            runs = pipeline.send_lineage(target)
            said = f"Told of {shown.count(runs, 'run')}"
        else:
            runs = pipeline.write_lineage(Path(target))
            said = f"Wrote {shown.count(runs, 'run')} to {target}"
    document = {"runs": runs, "events": 2 * runs}
    asked.answer(document, f"{said}, in {shown.count(2 * runs, 'event')}.")


# A tree for a person ------------------------------------------------------------------------------------


def _drawn(node: Mapping[str, Any], zone: ZoneInfo, most_runs: int) -> str:
    from rich.console import Console
    from rich.tree import Tree

    tree = Tree(_line(node, zone))
    _grow(tree, node["inputs"], zone, most_runs)
    out = StringIO()
    Console(
        file=out,
        width=shown.width() or 10_000,
        color_system=None,
        markup=False,
        emoji=False,
        highlight=False,
    ).print(tree, soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _grow(tree: Tree, nodes: Sequence[Mapping[str, Any]], zone: ZoneInfo, most_runs: int) -> None:
    most = {"run": most_runs, "file": _MOST_FILES, "message": _MOST_FILES}
    left: dict[str, int] = {}
    for node in nodes:
        kind = node["kind"]
        if most.get(kind, 1) <= 0:
            left[kind] = left.get(kind, 0) + 1
            continue
        most[kind] = most.get(kind, 2) - (kind in most)
        branch = tree.add(_line(node, zone))
        _grow(branch, node.get("inputs", ()), zone, most_runs)
    for kind, many in left.items():
        tree.add(f"... and {shown.count(many, kind)} more: see --json")


def _line(node: Mapping[str, Any], zone: ZoneInfo) -> str:
    """A node in one line."""
    return shown.printable(_LINES[node["kind"]](node, zone))


def _of_decision(node: Mapping[str, Any], _: ZoneInfo) -> str:
    return f"decision {node['id']}: {node['verdict']} for {node['subject']}"


def _of_table(node: Mapping[str, Any], _: ZoneInfo) -> str:
    version = node.get("version")
    name = node["name"] if version is None else f"{node['name']}@{version}"
    said = f"table {name}"
    if "rows" in node:
        said += f", {shown.count(node['rows'], 'row')}"
    if "runs" in node:
        said += f" of {shown.count(node['runs'], 'run')}"
        if (rest := node["rows"] - node["rows_of_runs"]) > 0:
            said += f"; of {shown.count(rest, 'row')} no run is noted"
    return said


def _of_stock(node: Mapping[str, Any], _: ZoneInfo) -> str:
    return f"stock, from the log up to {node['partition']}:{node['position']}"


def _of_run(node: Mapping[str, Any], zone: ZoneInfo) -> str:
    said = [f"run {node['job']}"]
    if node["state"] == "unknown":
        said.append("of which nothing is noted")
    elif node["state"] == "fail":
        said.append("failed")
    if ended := node.get("ended_at"):
        said.append(shown.moment(ended, zone))
    if "used" in node:
        said.append(f"{node['used']:,} of {shown.count(node['facts'], 'row')}")
    elif node.get("facts"):
        said.append(shown.count(node["facts"], "row"))
        said += [f"since version {node['version']}"] if "log" in node and "version" in node else []
    if "read" in node:
        rejected = sum(sum(each["rejected"].values()) for each in node["read"])
        said += [f"{rejected:,} rejected"] if rejected else []
    if "mapping" in node:
        said.append(f"mapping {node['mapping']['source']} {node['mapping']['digest'][:12]}")
    if "features" in node:
        said.append(f"features {node['features']}")
    if "rulebook_version" in node:
        said.append(f"rulebook {node['rulebook_version'][:12]}")
    if "error" in node:
        said.append(node["error"])
    return ", ".join(said)


def _of_file(node: Mapping[str, Any], _: ZoneInfo) -> str:
    said = f"file {node['name']}"
    if not node["lines"]:
        return said
    ranges = node.get("ranges") or [[node["first_line"], node["last_line"]]]
    told = [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
    more = f" and {len(told) - _MOST_RANGES} more" if len(told) > _MOST_RANGES else ""
    between = "line" if node["lines"] == 1 else "lines"
    within = "" if "ranges" in node or node["lines"] == 1 else "within "
    places = ", ".join(told[:_MOST_RANGES])
    return f"{said}, {shown.count(node['lines'], 'row')}: {within}{between} {places}{more}"


def _of_message(node: Mapping[str, Any], _: ZoneInfo) -> str:
    return (
        f"message {node['partition']}:{node['position']}, {shown.count(node['rows'], 'row')} about "
        f"{node['subject']}, told by {node['source']}, on {node['transport']}"
    )


def _of_decisions(node: Mapping[str, Any], _: ZoneInfo) -> str:
    ids = node["ids"][:_MOST_IDS]
    more = f" and {node['many'] - len(ids):,} more" if node["many"] > len(ids) else ""
    return f"{shown.count(node['many'], 'decision')}: {', '.join(ids)}{more}"


def _of_source(node: Mapping[str, Any], _: ZoneInfo) -> str:
    return f"told by {node['name']}"


_LINES = {
    "decision": _of_decision,
    "table": _of_table,
    "stock": _of_stock,
    "run": _of_run,
    "file": _of_file,
    "message": _of_message,
    "decisions": _of_decisions,
    "source": _of_source,
}
