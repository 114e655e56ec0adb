"""`work`, `breakers` and `dead-letters`: a home at work, and what a person does where it cannot go on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, Group, Identifier, pass_asked
from storekeep.cli.decisions import standings
from storekeep.cli.shown import Column
from storekeep.cli.work import CARRIED

if TYPE_CHECKING:
    from storekeep.pipeline import Pipeline

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GLANCE_SECONDS = 0.1
_BREAKERS = (
    Column("Breaker"),
    Column("State"),
    Column("Since", drop=2),
    Column("Tried again at", drop=1),
    Column("Why", wrap=True),
)
_DEAD = (
    Column("Decision"),
    Column("Subject", drop=2),
    Column("Money", right=True, drop=1),
    Column("Given up", drop=3),
    Column("Until", drop=4),
    Column("Why", wrap=True),
)


class Told:
    """Whether who works was told to end: by a first signal after what is in hand, by a second at once."""

    def __init__(self) -> None:
        self.by: str | None = None

    def __call__(self, number: int, _: object) -> None:
        """A signal came."""
        if self.by is not None:
            raise KeyboardInterrupt
        self.by = signal.Signals(number).name

    def wait(self, seconds: float) -> bool:
        """Wait, but no longer than until the worker is told; whether it is."""
        until = time.monotonic() + seconds
        while self.by is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _GLANCE_SECONDS))
        return self.by is not None


@contextmanager
def until_told() -> Iterator[Told]:
    """Whoever works meanwhile ends by a signal when it has done what it has in hand."""
    told = Told()
    before = {each: signal.signal(each, told) for each in _SIGNALS}
    try:
        yield told
    finally:
        for each, was in before.items():
            signal.signal(each, was)


@click.command("work", cls=Command)
@click.option(
    "--poll",
    "poll_seconds",
    type=click.IntRange(1, 3600),
    metavar="N",
    default=1,
    show_default=True,
    help="Look for work every so many seconds.",
)
@pass_asked
def work(asked: Asked, poll_seconds: int) -> None:
    """Run a home: receive, decide and act, until told to stop.

    Any number of workers share the work. One that is told to stop (Ctrl-C, SIGTERM) first ends what it has in
    hand; what a killed one had in hand another takes over within seconds. A server that goes away is waited
    for.
    """
    settings = asked.at_home()
    from storekeep import bus, servers
    from storekeep.pipeline import Worker

    # The lease is held over all, so that a database that is waited for is not stopped meanwhile.
    with servers.lease(settings), bus.opened(settings) as transport, until_told() as told:
        worker = Worker(asked.pipeline, transport, told.wait, poll_seconds, asked.zone(), _say)
        worker.work()
    done = {name: worker.done[name] for name in (*CARRIED, "decided", "acted", "lapsed")}
    said = [
        f"{shown.count(done['received'], 'event')} received, {done['forwarded']:,} forwarded",
        f"{shown.count(done['decided'], 'run')} of agents",
        f"{shown.count(done['acted'], 'action')} ended",
        f"{shown.count(done['lapsed'], 'request')} lapsed",
    ]
    asked.answer({**done, "stopped_by": told.by}, f"Stopped by {told.by}: {', '.join(said)}.")


def _say(text: str) -> None:
    click.echo(f"storekeep: {text}", err=True)


# Breakers -----------------------------------------------------------------------------------------------


@click.group(cls=Group)
def breakers() -> None:
    """Who is left alone for a while, since too much failed."""


@breakers.command("list")
@pass_asked
def list_breakers(asked: Asked) -> None:
    """List the breakers that have ever had a failure."""
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        rows = pipeline.breakers()
    cells = [
        (
            *(row["name"], row["state"], shown.moment(row["since"], zone)),
            *(shown.moment(row["try_at"], zone), row["why"]),
        )
        for row in rows
    ]
    said = f"{shown.table(_BREAKERS, cells)}\n\nTimes in {zone.key}."
    asked.answer(rows, said if rows else "Nothing has failed: all breakers are closed.")


@breakers.command()
@click.argument("name", metavar="NAME", help="The breaker.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@click.option("--as", "principal", metavar="NAME", help="Who resets it, if not you.")
@pass_asked
def reset(asked: Asked, name: str, reason: str, principal: str | None) -> None:
    """Close a breaker: what waits is sent again at once."""
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        pipeline.reset_breaker(name, by, reason)
    asked.answer({"name": name, "state": "closed", "by": by}, f"{name} is closed, by {by}.")


# Dead letters -------------------------------------------------------------------------------------------


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Actions that were tried often enough, and wait for a person."""


@dead_letters.command("list")
@pass_asked
def list_dead(asked: Asked) -> None:
    """List the actions that were given up, oldest first."""
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        rows, unread = pipeline.dead_letters(), len(pipeline.put_aside())
    cells = [
        (
            *(row["decision_id"], row["subject"]),
            shown.money(row["money_minor"], row["currency"]),
            *(shown.moment(row["dead_since"], zone), shown.moment(row["expires_at"], zone)),
            row["reason"],
        )
        for row in rows
    ]
    said = (
        f"{shown.table(_DEAD, cells)}\n\nTimes in {zone.key}. Each may have been done. To go on: storekeep "
        "dead-letters retry DECISION..., or drop DECISION... --reason TEXT"
    )
    said = said if rows else "There are no dead letters."
    if unread:
        many = shown.count(unread, "message")
        said += f"\n{many} of a transport could not be read: storekeep put-aside list"
    asked.answer(rows, said)


@dead_letters.command()
@click.argument(
    "ids", metavar="ID...", nargs=-1, required=True, type=Identifier(), help="Decisions."
)
@click.option("--reason", metavar="TEXT", default="", help="Why; the ledger keeps it.")
@click.option("--as", "principal", metavar="NAME", help="Who retries, if not you.")
@pass_asked
def retry(asked: Asked, ids: tuple[str, ...], reason: str, principal: str | None) -> None:
    """Try given-up actions anew, as often as at first.

    What was done after all is found, and not done again.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        pipeline.retry(list(dict.fromkeys(ids)), by, reason)
        pipeline.act()
        document = _now(pipeline, ids, by)
    _tell(asked, document)


@dead_letters.command()
@click.argument(
    "ids", metavar="ID...", nargs=-1, required=True, type=Identifier(), help="Decisions."
)
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@click.option("--as", "principal", metavar="NAME", help="Who drops them, if not you.")
@pass_asked
def drop(asked: Asked, ids: tuple[str, ...], reason: str, principal: str | None) -> None:
    """Drop given-up actions: they will not be done.

    Refused for one that was done after all, and while that cannot be looked up.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        pipeline.drop(list(dict.fromkeys(ids)), by, reason)
        document = _now(pipeline, ids, by)
    _tell(asked, document)


def _now(pipeline: Pipeline, ids: Sequence[str], by: str) -> dict[str, Any]:
    rows = standings(pipeline, list(dict.fromkeys(ids)))
    return {"by": by, "counts": shown.tally(row["status"] for row in rows), "results": rows}


def _tell(asked: Asked, document: Mapping[str, Any]) -> None:
    asked.answer(document, f"By {document['by']}: now {shown.listed(document['counts'])}.")


COMMANDS = (work, breakers, dead_letters)
