"""The program `storekeep`: its commands, and what happens around each of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import shell_complete

from storekeep import __version__
from storekeep.cli import (
    agents,
    approvals,
    contracts,
    customers,
    decisions,
    execution,
    features,
    feeds,
    homes,
    lineage,
    orders,
    policies,
    put_aside,
    serving,
    watching,
    work,
)
from storekeep.cli.asked import Asked, Group
from storekeep.cli.failures import attempt

_COMPLETE = "_STOREKEEP_COMPLETE"


class Program(Group):
    """The root of all commands: whatever goes wrong below it ends in one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the words, then end the process with the exit code; without `standalone_mode` return it."""
        del prog_name, windows_expand_args
        instruction = os.environ.get(complete_var or _COMPLETE)
        if instruction:
            sys.exit(shell_complete(self, extra, "storekeep", _COMPLETE, instruction))
        words = list(sys.argv[1:] if args is None else args)
        # Words that cannot be parsed are answered in the form they ask for, too.
        asked = Asked(json="--json" in words)

        def work() -> None:
            with self.make_context("storekeep", words, obj=asked, **extra) as context:
                self.invoke(context)

        code = attempt(work, asked)
        if standalone_mode:
            sys.exit(code)
        return code


@click.group(
    cls=Program,
    epilog="Exit codes: 0 done, 1 refused or found wanting, 2 wrong usage, 3 infrastructure.",
)
@click.version_option(__version__, prog_name="storekeep", message="%(prog)s %(version)s")
def program() -> None:
    """Run a retailer's AI agents: they propose, policy judges, actions act, one ledger undoes it all."""


for each in (
    *homes.COMMANDS,
    work.demo,
    *feeds.COMMANDS,
    *customers.COMMANDS,
    contracts.contracts,
    work.run,
    decisions.decisions,
    approvals.approvals,
    *execution.COMMANDS,
    serving.serve,
    put_aside.put_aside,
    orders.orders,
    lineage.lineage,
    features.features,
    policies.policy,
    agents.agents,
    work.bench,
):
    program.add_command(each)
feeds.ingest.add_command(watching.watch)
