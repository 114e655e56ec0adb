"""The command line: what a person or a script may ask of a home, and how it answers.

Hides option parsing, tables, exit codes and how a failure is told. Nothing heavy is imported before a command
needs it, so that `storekeep --help` answers at once.

    asked      the options that every command takes, and the home, time zone and output they choose
    failures   what went wrong, in one line, with its exit code
    shown      times, money and tables for a person to read
    homes, feeds, decisions, approvals, execution, orders, lineage, policies, agents, work
               the commands
"""

from __future__ import annotations

import sys

_OLDEST_PYTHON = (3, 11)


def main() -> None:
    """Run the command that the process was started with, and end the process with its exit code."""
    if tuple(sys.version_info[:2]) < _OLDEST_PYTHON:
        found, oldest = (".".join(map(str, v[:2])) for v in (sys.version_info, _OLDEST_PYTHON))
        sys.stderr.write(
            f"storekeep: this is Python {found}; run it with Python {oldest} or later\n"
        )
        sys.exit(3)
    try:
        from storekeep.cli.program import program
    except KeyboardInterrupt:
        sys.exit(130)
    program.main()
