"""`init`, `doctor` and `stop`: a home from its first file to its last process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from storekeep import __version__
from storekeep.cli import shown
from storekeep.cli.asked import Asked, Command, pass_asked
from storekeep.errors import Misused, Refused, StorekeepError

if TYPE_CHECKING:
    from storekeep.config import Settings
    from storekeep.servers import Finding

_SHOWN_NAMES = 3


@click.command(cls=Command)
@click.argument(
    "folder",
    metavar="[DIR]",
    required=False,
    type=click.Path(path_type=Path),
    help="Folder, new or empty.",
)
@pass_asked
def init(asked: Asked, folder: Path | None) -> None:
    """Make a home in DIR, with commented settings.

    Without DIR the home is where --home or STOREKEEP_HOME says. A home that is there already is left as
    it is.
    """
    from storekeep import config
    from storekeep.servers import home

    if folder is not None:
        asked.home = folder
    settings = asked.settings()
    place = home.real_home(settings)
    path = place / config.SETTINGS_FILE
    with home.speaking(place):
        known = home.check_format(place)
        if not known:
            _refuse_foreign(place, config.SETTINGS_FILE)
        home.prepare(settings)
        if not path.exists():
            # The address of a database holds a password.
            home.write(path, settings_text(), 0o600)
    said = f"{place} is a home already; nothing in it was changed"
    if not known:
        said = f"Made a home at {place}\nIts settings, all at their defaults: {path}"
    asked.answer({"home": place, "settings": path, "made": not known}, said)


def _refuse_foreign(place: Path, settings_file: str) -> None:
    """A folder that holds anything but settings is somebody else's."""
    if not place.is_dir():
        return
    others = sorted(each.name for each in place.iterdir() if each.name != settings_file)
    if others:
        names = ", ".join([*others[:_SHOWN_NAMES], *(["..."] if others[_SHOWN_NAMES:] else [])])
        raise Refused(f"{place} holds other things ({names}); name a new or an empty folder")


def settings_text() -> str:
    """The file of a home's settings: every setting with what it means, commented out at its default."""
    from storekeep.config import Settings

    lines = [
        "# The settings of this Storekeep home. A line takes effect once its leading # is removed.",
        "# A variable STOREKEEP_<NAME> in the environment wins over what stands here.",
    ]
    # In TOML what follows a table's heading belongs to it, so tables come last.
    tables: list[str] = []
    for name, field in Settings.model_fields.items():
        if name == "home":
            continue
        if isinstance(field.default, dict):
            tables += ["", f"# {field.description}", f"# [{name}]"]
            continue
        unset = field.default is None
        value = json.dumps("" if unset else field.default)
        lines += ["", f"# {field.description}", f"# {name} = {value}"]
        lines[-2] += " Not set by default." if unset else ""
    return "\n".join([*lines, *tables]) + "\n"


@click.command(cls=Command)
@pass_asked
def doctor(asked: Asked) -> None:
    """Say what is wrong and how to mend it.

    Says what runs, where, and which versions. Starts nothing and changes nothing. Exits with 1 when something
    is wrong, not for warnings.
    """
    findings = _findings(asked)
    wrong = sum(1 for each in findings if each.state == "wrong")
    warned = sum(1 for each in findings if each.state == "warn")
    lines = []
    wide = max(len(each.name) for each in findings)
    begins = wide + 8
    for each in findings:
        says = shown.hanging(each.says, begins)
        lines.append(f"{shown.mark(each.state)} {each.name:<{wide}}  {says}")
        if each.mend:
            lines.append(" " * begins + shown.hanging(f"to mend it: {each.mend}", begins))
    lines += ["", _verdict(wrong, warned)]
    document = {"ok": not wrong, "findings": findings}
    asked.answer(document, "\n".join(lines))
    if wrong:
        raise click.exceptions.Exit(1)


def _verdict(wrong: int, warned: int) -> str:
    said = f"{shown.count(wrong, 'thing is', 'things are')} wrong" if wrong else "Nothing is wrong"
    return said + (f"; {shown.count(warned, 'warning')}" if warned else "")


def _findings(asked: Asked) -> list[Finding]:
    """What the servers find, after what must be right before they can be asked."""
    from storekeep import servers

    findings = [servers.Finding("storekeep", "ok", f"version {__version__}")]
    try:
        settings = asked.settings()
        zone = asked.zone()
    except Misused as error:
        says, _, mend = str(error).rpartition("; ")
        return [*findings, servers.Finding("settings", "wrong", says or mend, mend or None)]
    path = settings.home / "storekeep.toml"
    read = f"from {path}" if path.exists() else f"defaults and environment; there is no {path}"
    says = f"{read}; tenant {settings.tenant}, time zone {zone.key}"
    findings.append(servers.Finding("settings", "ok", says))
    return findings + servers.examine(settings) + list(_troubles(settings))


def _troubles(settings: Settings) -> Iterator[Finding]:
    """What is left alone or given up, where the database can be asked without starting it."""
    from storekeep import servers
    from storekeep.store import Store

    try:
        database = servers.running(settings)
        if database is None:
            return
        with Store(database.conninfo) as store, store.transaction(settings.tenant) as tx:
            breakers, dead, unread = tx.breakers(), len(tx.dead_tasks()), len(tx.put_aside())
    except StorekeepError:
        # The findings on the database say it, or its schema is not made yet.
        return
    troubled = [each for each in breakers if each["state"] != "closed"]
    for each in troubled:
        says = f"{each['name']} is {each['state']} since {each['since']:%Y-%m-%d %H:%M} UTC: {each['why']}"
        mend = "see to it; it is tried again by itself, or storekeep breakers reset NAME"
        yield servers.Finding("breaker", "warn", says, mend)
    if not troubled:
        yield servers.Finding("breakers", "ok", "none is open")
    if dead:
        says = f"{shown.count(dead, 'action was', 'actions were')} given up"
        yield servers.Finding("dead letters", "warn", says, "storekeep dead-letters list")
    if unread:
        says = f"{shown.count(unread, 'message')} of a transport could not be read"
        yield servers.Finding("put aside", "warn", says, "storekeep put-aside list")


@click.command(cls=Command)
@click.option("--force", is_flag=True, help="End the sessions of other processes, too.")
@pass_asked
def stop(asked: Asked, *, force: bool) -> None:
    """Stop the home's database server.

    It stops by itself after the last command that uses it; this is for a server that was to be kept up.
    """
    from storekeep import servers

    settings = asked.settings()
    stopped = servers.stop(settings, force=force)
    if stopped:
        said = f"Stopped the server of {settings.home}"
    elif settings.database_url is not None:
        said = "The database is a given one (STOREKEEP_DATABASE_URL), and not ours to stop"
    else:
        said = f"No server of {settings.home} was running"
    asked.answer({"stopped": stopped}, said)


COMMANDS = (init, doctor, stop)
