"""`serve`: the way in over HTTP, until it is told to stop."""

from __future__ import annotations

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, pass_asked
from storekeep.cli.execution import until_told
from storekeep.errors import Misused


@click.command(cls=Command)
@click.option(
    "--for",
    "seconds",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="Stop after so long.  [default: run on]",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="Listen there, not on web_port."
)
@pass_asked
def serve(asked: Asked, seconds: int | None, port: int | None) -> None:
    """Listen for webhooks and pushed batches.

    What comes is kept and answered; `storekeep work` and `storekeep run` make facts of it. Told to stop
    (Ctrl-C, SIGTERM), it answers what is being asked first.
    """
    settings = asked.at_home()
    try:
        from storekeep.web.serving import serving
    except ModuleNotFoundError as error:
        raise Misused(
            f"serve needs the package {error.name}: pip install 'storekeep[web]'"
        ) from None

    if port is not None:
        settings = settings.model_copy(update={"web_port": port})
    with until_told() as told, serving(settings) as server:
        click.echo(f"storekeep: listening on http://{settings.web_host}:{server.port}", err=True)
        left = float("inf") if seconds is None else seconds
        while server.alive and left > 0 and not told.wait(min(left, 1.0)):
            left -= 1.0
    why = told.by or "--for"
    document = {"host": settings.web_host, "port": server.port, "stopped_by": told.by}
    asked.answer(document, f"Stopped by {shown.printable(why)}.")
