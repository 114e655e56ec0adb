"""`storekeep agents`: how far each agent may go, and the switch that stops them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked
from storekeep.cli.shown import Column

# The words of `pipeline.steering.MODES`, which take half a second to import: too long for --help.
MODES = ("off", "shadow", "canary", "live")
_STANDING = (
    Column("Agent"),
    Column("Mode"),
    Column("Where", wrap=True),
    Column("Stopped", wrap=True),
    Column("Hears", drop=1, wrap=True),
)


@click.group(cls=Group)
def agents() -> None:
    """The agents: what they may do, and the switch that stops them."""


@agents.command("list")
@pass_asked
def list_(asked: Asked) -> None:
    """List the agents with their modes, and what is stopped."""
    zone = asked.zone()
    with asked.pipeline() as pipeline:
        rows = pipeline.standing()
    cells = []
    for row in rows:
        halted = row["halted"]
        said = f"since {shown.moment(halted['since'], zone)}: {halted['reason']}" if halted else ""
        cells.append((row["agent"], row["mode"], _where(row), said, ", ".join(row["hears"])))
    asked.answer(rows, shown.table(_STANDING, cells))


def _where(row: Mapping[str, Any]) -> str:
    """Where another mode holds than everywhere else, the newest change first."""
    parts = [
        f"{each['mode']} in {', '.join(each['groups'])}"
        + (f" (version {each['agent_version'][:12]})" if each["agent_version"] else "")
        for each in row["changes"]
        if each["groups"]
    ]
    return "; ".join(parts) or "everywhere"


@agents.command()
@click.argument("agent", metavar="AGENT", help="Its name, as `agents list` shows it.")
@click.argument("mode", metavar="MODE", type=click.Choice(MODES), help=", ".join(MODES))
@click.option(
    "--in",
    "groups",
    multiple=True,
    metavar="GROUP",
    help="Only there: a group of the dispatch policy, or locations with * and ?.",
)
@click.option("--agent-version", metavar="VERSION", help="Only this version of it.")
@click.option("--approver", metavar="NAME", required=True, help="Who approves; somebody else.")
@click.option("--as", "principal", metavar="NAME", help="Who asks for it, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@pass_asked
def mode(asked: Asked, /, agent: str, mode: str, groups: tuple[str, ...], **given: Any) -> None:
    """Say what an agent may do: off, shadow, canary or live.

    In shadow it proposes and is judged and recorded, and nothing is done. A canary acts where --in says, and
    shadows everywhere else.
    """
    by = given["principal"] or asked.settings().principal
    with asked.pipeline() as pipeline:
        change = pipeline.set_mode(
            agent,
            mode,
            by=by,
            approver=given["approver"],
            reason=given["reason"],
            groups=groups,
            agent_version=given["agent_version"],
        )
    where = f" in {', '.join(groups)}" if groups else ""
    said = (
        f"{agent} is {mode}{where} from now on: asked for by {by}, approved by {given['approver']}."
    )
    asked.answer(change, said)


@agents.command()
@click.argument("agent", metavar="[AGENT]", required=False, help="Its name; all agents if none.")
@click.option("--as", "principal", metavar="NAME", help="Who stops it, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@pass_asked
def halt(asked: Asked, agent: str | None, principal: str | None, reason: str) -> None:
    """Stop an agent, or all of them, at once.

    What is not carried out yet stays undone until `resume`; what takes something back goes on.
    """
    _switch(asked, "halt", agent, principal, reason)


@agents.command()
@click.argument("agent", metavar="[AGENT]", required=False, help="Its name; all agents if none.")
@click.option("--as", "principal", metavar="NAME", help="Who lets it go on, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@pass_asked
def resume(asked: Asked, agent: str | None, principal: str | None, reason: str) -> None:
    """Let an agent, or all of them, go on after a stop."""
    _switch(asked, "resume", agent, principal, reason)


def _switch(asked: Asked, verb: str, agent: str | None, principal: str | None, reason: str) -> None:
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        change = {"halt": pipeline.halt, "resume": pipeline.resume}[verb]
        changed = change(agent or "", by=by, reason=reason)
    name = agent or "every agent"
    done = {"halt": f"{name} is stopped", "resume": f"{name} goes on"}[verb]
    before = {"halt": "was stopped already", "resume": "was not stopped"}[verb]
    document = {"agent": agent, "changed": changed, "by": by}
    asked.answer(document, f"{done}, by {by}." if changed else f"{name} {before}.")
