"""`storekeep policy`: check a rulebook, put it in force, show the one that is."""

from __future__ import annotations

from pathlib import Path

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(cls=Group)
def policy() -> None:
    """The rulebook that judges what agents propose."""


@policy.command()
@click.argument("file", metavar="FILE", type=_FILE, help="The rulebook, in YAML.")
@pass_asked
def check(asked: Asked, file: Path) -> None:
    """Check a rulebook: its form, its rules, the columns they name.

    No home is needed.
    """
    from storekeep import features
    from storekeep import policy as rules
    from storekeep.actions import PLACE_PURCHASE_ORDER

    loaded = rules.load(file, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
    checked = loaded.checked
    document = {
        "ok": True,
        "file": file,
        "rulebook": loaded.id,
        "version": loaded.version,
        "rules": len(checked.rules),
        "limits": len(checked.limits),
    }
    many = f"{shown.count(len(checked.rules), 'rule')}, {shown.count(len(checked.limits), 'limit')}"
    asked.answer(document, f"{file} is rulebook {loaded.id}: {many}\n  version {loaded.version}")


@policy.command()
@click.argument("file", metavar="FILE", type=_FILE, help="The rulebook, in YAML.")
@click.option("--as", "principal", metavar="NAME", help="Who promotes it, if not you.")
@pass_asked
def promote(asked: Asked, file: Path, principal: str | None) -> None:
    """Put a rulebook in force for all decisions from now on."""
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        version = pipeline.promote(file, by)
    document = {"file": file, "version": version, "by": by}
    asked.answer(document, f"In force from now on: version {version}, promoted by {by}")


@policy.command()
@click.argument(
    "version", metavar="[VERSION]", required=False, help="The one in force if not given."
)
@pass_asked
def show(asked: Asked, version: str | None) -> None:
    """Print the rulebook in force, or another version, as written."""
    from storekeep.agents import replenish

    name = replenish.NAME
    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        # This registers the rulebook that ships where none was promoted yet.
        loaded = pipeline.rulebook(tx, name, version)
        _, content = tx.registered("rulebook", name, loaded.version) or ("", "")
        current = tx.registered("rulebook", name)
    in_force = current is not None and current[0] == loaded.version
    state = "in force" if in_force else "not in force"
    document = {
        "rulebook": name,
        "version": loaded.version,
        "in_force": in_force,
        "content": content,
    }
    body = "\n".join(shown.printable(line) for line in content.rstrip().splitlines())
    asked.answer(document, f"# Rulebook {name}, version {loaded.version}, {state}\n{body}")
