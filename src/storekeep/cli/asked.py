"""The options that every command takes, and what follows from them: home, tenant, time zone, output.

Hides that they may stand before or after the command's name, and that settings, logs and the pipeline are
only loaded by a command that needs them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from storekeep.errors import Misused, Refused

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from storekeep.config import Settings
    from storekeep.pipeline import Pipeline


@dataclass
class Asked:
    """What the words of the command line ask for beyond the command itself."""

    home: Path | None = None
    tenant: str | None = None
    json: bool = False
    verbose: bool = False
    answered: bool = False
    _settings: Settings | None = None

    def place(self) -> Path:
        """The folder of the home, whether or not it is there or its settings can be read."""
        return (
            Path(self.home or os.environ.get("STOREKEEP_HOME") or ".storekeep")
            .expanduser()
            .absolute()
        )

    def settings(self) -> Settings:
        """The settings of the home, read once; log lines go to stderr from here on."""
        if self._settings is None:
            from storekeep import config

            settings = config.read(self.home)
            if self.tenant is not None:
                settings = _of_tenant(settings, self.tenant)
            _open_log("debug" if self.verbose else settings.log_level)
            self._settings = settings
        return self._settings

    def zone(self) -> ZoneInfo:
        """The time zone in which this home's people read times."""
        from zoneinfo import ZoneInfo

        return ZoneInfo(self.settings().time_zone)

    def moment(self, given: datetime | None) -> datetime | None:
        """A time that a person typed: in the home's time zone where it names none."""
        if given is None or given.tzinfo is not None:
            return given
        return given.replace(tzinfo=self.zone())

    def program(self) -> str:
        """How the same program is called again for the same home, from the same folder."""
        program = Path(sys.argv[0])
        words = ["storekeep"]
        if program.name == "storekeep" and shutil.which("storekeep") is None:
            folder = Path.cwd()
            words = [
                str(program.relative_to(folder) if program.is_relative_to(folder) else program)
            ]
        words += ["--home", str(self.home)] if self.home is not None else []
        words += ["--tenant", self.tenant] if self.tenant is not None else []
        return shlex.join(words)

    def at_home(self) -> Settings:
        """The settings of a home that is there; `Refused` when it is not, so that none is made unasked."""
        settings = self.settings()
        if not (settings.home / "version").exists():
            raise Refused(
                f"there is no home at {settings.home}; make one with `storekeep init` or "
                "`storekeep demo`, or name another with --home or STOREKEEP_HOME"
            )
        return settings

    @contextmanager
    def pipeline(self) -> Iterator[Pipeline]:
        """The pipeline of a home that is there."""
        settings = self.at_home()
        from storekeep.pipeline import opened

        # A tenant that the settings name is made when first used; one that was typed may be mistyped.
        with opened(settings, purpose="live" if self.tenant is None else None) as pipeline:
            yield pipeline

    def answer(self, document: object, text: str | Callable[[], str]) -> None:
        """Print the answer: one JSON document with `--json`, and the text for a person otherwise.

        A text that takes long to write, such as a table of many rows, is given as what writes it.
        """
        self.answered = True
        if self.json:
            click.echo(as_json(document))
        else:
            click.echo(text if isinstance(text, str) else text())


def as_json(document: object) -> str:
    """A document as `--json` prints it."""
    return json.dumps(document, indent=2, allow_nan=False, default=_plain)


def _of_tenant(settings: Settings, tenant: str) -> Settings:
    """The same settings for another tenant; `Misused` when that cannot be a tenant's name."""
    from pydantic import ValidationError

    try:
        return type(settings)(home=settings.home, tenant=tenant)
    except ValidationError:
        raise Misused(
            f"--tenant {tenant!r} is not a tenant's name: lower-case letters, digits and underscores, "
            "a letter first, 40 at most"
        ) from None


def _open_log(level: str) -> None:
    """Send log lines of a level and above to stderr, each a JSON object."""
    import logging

    import structlog

    # What a lost or stopped connection means is said by the error it ends in, once.
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _plain(value: object) -> object:
    """What JSON has no form for, in the form that the ledger uses."""
    if isinstance(value, datetime):
        from storekeep.decisions import stamp

        return stamp(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path | UUID):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


# The words ----------------------------------------------------------------------------------------------

pass_asked = click.make_pass_decorator(Asked, ensure=True)


def _keep(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Remember an option wherever it stands; the one nearest to the command wins."""
    if value not in (None, False):
        setattr(context.ensure_object(Asked), str(option.name), value)


def _everywhere() -> list[click.Option]:
    def option(word: str, help_: str, **more: Any) -> click.Option:
        return click.Option([word], help=help_, expose_value=False, callback=_keep, **more)

    return [
        option(
            "--home",
            "Folder of the home; else $STOREKEEP_HOME, or .storekeep.",
            type=click.Path(path_type=Path),
            metavar="DIR",
        ),
        option("--tenant", "Tenant to act for, not the settings' one.", metavar="NAME"),
        option("--json", "Print one JSON document on stdout.", is_flag=True),
        option("--verbose", "Log everything; show the trace of a failure.", is_flag=True),
    ]


EVERYWHERE = tuple(str(option.name) for option in _everywhere())


class _Worded(click.Command):
    """A command that takes the options of all commands, and lists them after its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings["help_option_names"] = ["-h", "--help"]
        self.params.extend(_everywhere())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then those of all commands."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                is_shared = parameter.name in (*EVERYWHERE, "help", "version")
                (shared if is_shared else own).append(record)
        for title, records in (("Options", own), ("Options of every command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Command(_Worded):
    """One command."""


class Group(_Worded, click.Group):
    """Commands under one name, listed in the order in which one meets them."""

    command_class: type[click.Command] | None = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they were added."""
        del ctx
        return list(self.commands)


Group.group_class = Group


class Identifier(click.ParamType[str]):
    """The id of a decision or a run: 36 characters, as every list shows them."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The id in its one form."""
        try:
            return str(UUID(value))
        except ValueError:
            self.fail(f"{value!r} is not an id; `storekeep decisions list` shows them", param, ctx)


class Moment(click.ParamType[datetime]):
    """A date or a time, in the home's time zone where it names none."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """The time, without a zone where none was typed."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            said = f"{value!r} is no date or time; write 2026-11-22, 2026-11-22T18:30 or ...T18:30Z"
            self.fail(said, param, ctx)


class Assignment(click.ParamType[tuple[str, int]]):
    """A parameter and the whole number that it is set to."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """The name and the number."""
        if isinstance(value, tuple):
            return value
        name, _, number = value.partition("=")
        try:
            return name.strip(), int(number)
        except ValueError:
            self.fail(
                f"{value!r} sets nothing; write a name and a whole number: order_units=24",
                param,
                ctx,
            )


class PublicKey(click.ParamType[str]):
    """An Ed25519 public key in hexadecimal."""

    name = "hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The key, in lower case."""
        try:
            whole = len(bytes.fromhex(value)) == 32
        except ValueError:
            whole = False
        if not whole:
            self.fail("a public key is 64 hexadecimal digits; see keys/ledger.pub", param, ctx)
        return str(value).lower()
