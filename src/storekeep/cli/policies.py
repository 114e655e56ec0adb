"""`storekeep policy`: check, test, compare and try a rulebook, put it in force, show the one that is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Misused

if TYPE_CHECKING:
    from storekeep.pipeline import Pipeline
    from storekeep.policy import Difference, Failed, Rulebook, Tried

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_DAY = click.DateTime(["%Y-%m-%d"])
_SIDES = ("recorded", "draft")
_IN_FORCE = "in-force"
_OF_AGENT = click.option(
    "--agent", metavar="NAME", default="replenish", help="Whose rulebook; replenish's if not given."
)
_VERSION = re.compile(r"[0-9a-f]{4,64}")


@click.group(cls=Group)
def policy() -> None:
    """Rulebooks that judge proposals, and the dispatch policy."""


@policy.command()
@click.argument("file", metavar="FILE", type=_FILE, help="The rulebook, in YAML.")
@pass_asked
def check(asked: Asked, file: Path) -> None:
    """Check a rulebook or dispatch policy, down to its columns.

    No home is needed.
    """
    from storekeep import policy as rules

    if rules.is_dispatch(file):
        _check_dispatch(asked, file)
        return
    loaded = _of_file(file)
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


def _check_dispatch(asked: Asked, file: Path) -> None:
    from storekeep import policy as rules
    from storekeep.agents import AGENTS

    loaded = rules.load_dispatch(file, list(AGENTS))
    content = loaded.content
    document = {
        "ok": True,
        "file": file,
        "dispatch": content.dispatch,
        "version": loaded.version,
        "agents": len(content.agents),
        "precedences": len(content.precedence),
    }
    agents = shown.count(len(content.agents), "agent")
    many = f"{agents}, {shown.count(len(content.precedence), 'precedence')}"
    said = f"{file} is dispatch policy {content.dispatch}: {many}\n  version {loaded.version}"
    asked.answer(document, said)


def _of_file(file: Path) -> Rulebook:
    from storekeep import features
    from storekeep import policy as rules
    from storekeep.pipeline.opening import ACTIONS

    return rules.load(file, action=ACTIONS, evidence=features.SCHEMA)


@policy.command()
@click.argument("file", metavar="FILE", type=_FILE, help="The rulebook, in YAML.")
@click.option(
    "--cases",
    metavar="FILE",
    type=_FILE,
    help="The cases, in YAML, if not NAME.cases.yaml beside it.",
)
@pass_asked
def test(asked: Asked, file: Path, cases: Path | None) -> None:
    """Hold a rulebook against its cases.

    The cases stand in a file beside it. Says which fail and why, and which rules no case makes speak. No
    home is needed.
    """
    from storekeep import policy as rules

    loaded, place = _of_file(file), cases or rules.beside(file)
    if not place.exists():
        raise Misused(f"{file} has no cases: write them to {place}, or name them with --cases")
    tried = rules.try_cases(loaded, place)
    document = {
        "ok": not tried.failed,
        "file": file,
        "cases_file": tried.file,
        "rulebook": loaded.id,
        "version": loaded.version,
        "cases": tried.cases,
        "failed": [_failed(each) for each in tried.failed],
        "not_tested": tried.not_tested,
    }
    asked.answer(document, "\n".join([*map(_failed_text, tried.failed), *_summary(loaded, tried)]))
    if tried.failed:
        raise click.exceptions.Exit(1)


def _failed(each: Failed) -> dict[str, object]:
    return {
        "place": str(each.place),
        "case": each.case,
        "row": each.row,
        "because": each.because,
        "expected": each.expected,
        "got": each.got,
        "rules": each.rules,
    }


def _failed_text(each: Failed) -> str:
    row = f", row {each.row}" if each.row else ""
    said = "; ".join(
        f"{rule['effect']} by {rule['rule']}: {rule['reason'].strip()}" for rule in each.rules
    )
    return shown.printable(
        f"{each.place}: {each.case}{row}: expected {each.expected}, got {each.got}"
        + (f" ({said})" if said else "")
    )


def _summary(rulebook: Rulebook, tried: Tried) -> list[str]:
    failed = len({each.case for each in tried.failed})
    many, size = shown.count(tried.cases, "case"), len(rulebook.clause_ids)
    end = f"{failed:,} failed" if failed else "all as expected"
    lines = [f"{many} of rulebook {rulebook.id}, version {rulebook.short_version}: {end}"]
    if tried.not_tested:
        names = ", ".join(tried.not_tested)
        lines.append(f"not tested: {names} ({len(tried.not_tested)} of {size} rules and limits)")
    else:
        lines.append(f"every one of its {size} rules and limits speaks in a case")
    return lines


@policy.command()
@click.argument("one", metavar="A", help="A file, a version, or in-force.")
@click.argument("other", metavar="B", help="Another.")
@_OF_AGENT
@pass_asked
def diff(asked: Asked, one: str, other: str, agent: str) -> None:
    """Say what changes from one rulebook to another.

    Each is a file, a version of the registry, or in-force. Conditions are compared by what they mean. A home
    is only needed for a version.
    """
    from storekeep import policy as rules

    before, after = _named(asked, agent, one, other)
    found = rules.compare(before, after)
    document = {
        "a": {"name": one, "rulebook": before.id, "version": before.version},
        "b": {"name": other, "rulebook": after.id, "version": after.version},
        "same": not found,
        "differences": [_difference(each) for each in found],
    }
    head = (
        f"From {one} (version {before.short_version}) to {other} (version {after.short_version}):"
    )
    lines = [line for each in found for line in _difference_lines(each)]
    asked.answer(document, "\n".join([head, *(lines or ["  nothing changes"])]))


def _named(asked: Asked, agent: str, *names: str) -> list[Rulebook]:
    """Rulebooks by file, or an agent's by version or in force; the home is opened if one of them is in it."""
    if all(_is_file(name) for name in names):
        return [_of_file(Path(name)) for name in names]
    with asked.pipeline() as pipeline:
        return [_of(pipeline, agent, name) for name in names]


def _of(pipeline: Pipeline, agent: str, name: str) -> Rulebook:
    if _is_file(name):
        return _of_file(Path(name))
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return pipeline.rulebook(tx, agent, None if name == _IN_FORCE else name)


def _is_file(name: str) -> bool:
    """Whether a word names a file, and not a version; `Misused` when it names neither."""
    if Path(name).is_file():
        return True
    if name != _IN_FORCE and not _VERSION.fullmatch(name):
        raise Misused(f"{name} is neither a file, a version of a rulebook, nor {_IN_FORCE}")
    return False


def _difference(each: Difference) -> dict[str, object]:
    changes = [
        {"key": change.key, "before": change.before, "after": change.after}
        for change in each.changes
    ]
    return {"kind": each.kind, "id": each.id, "what": each.what, "changes": changes}


_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def _difference_lines(each: Difference) -> Sequence[str]:
    lines = [f"{_SIGNS[each.what]} {each.kind} {each.id}: {each.what}"]
    for change in each.changes:
        sides = (("-", change.before), ("+", change.after))
        lines += [f"    {sign} {change.key}: {said}" for sign, said in sides if said is not None]
    return [shown.printable(line) for line in lines]


@policy.command()
@click.argument("draft", metavar="DRAFT", help="A file, a version, or in-force.")
@click.option("--from", "since", type=_DAY, required=True, metavar="DATE", help="First day.")
@click.option("--to", "until", type=_DAY, required=True, metavar="DATE", help="Last day.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder of the report; reports in the home if not given.",
)
@_OF_AGENT
@pass_asked
def backtest(
    asked: Asked, draft: str, since: datetime, until: datetime, out: Path | None, agent: str
) -> None:
    """Try a draft on the decisions that were recorded.

    Judges the proposals of a period again, on the evidence of then, and says which verdicts turn, by which
    rules, and the money on each side. Changes nothing. The report is kept, as HTML and JSON.
    """
    if until < since:
        raise click.UsageError("--to is before --from")
    from storekeep.backtest import try_draft
    from storekeep.backtest.report import drawing, write_json
    from storekeep.cli.progress import Bars

    with drawing():
        from storekeep.backtest import draft_page
    with asked.pipeline() as pipeline, Bars() as bars:
        loaded = _of(pipeline, agent, draft)
        found = try_draft(pipeline, loaded, since.date(), until.date(), asked.zone(), progress=bars)
    folder = (out or asked.settings().home / "reports").absolute()
    name = f"draft-{loaded.short_version}-{found['from']}-{found['to']}"
    files = {kind: folder / f"{name}.{kind}" for kind in ("html", "json")}
    found |= {
        "draft": draft,
        "command": asked.program(),
        "files": {kind: str(path) for kind, path in files.items()},
    }
    write_json(found, files["json"])
    draft_page.write_html(found, files["html"])
    asked.answer(found, _found_text(found))


_VERDICTS = (Column("Recorded"), Column("Draft"))
_MANY = Column("Decisions", right=True)
_MONEY = (Column("Money recorded", right=True), Column("Money, draft", right=True, drop=1))
_MOST_SHOWN = 5


def _found_text(found: Mapping[str, Any]) -> str:
    """What a draft turns, for a person: from verdict to verdict, by rule, by location, and the largest."""
    flips, total = found["flips"], found["decisions"]
    head = (
        f"{shown.count(total, 'decision')} of {shown.count(found['runs'], 'run')} from {found['from']} "
        f"to {found['to']}, judged again under version {found['draft_version'][:12]}:\n"
    )
    head += (
        f"{shown.count(flips, 'verdict turns', 'verdicts turn')}, {found['stricter']:,} stricter and "
        f"{found['looser']:,} looser"
        if flips
        else "every verdict is as it was"
    )
    parts = [head, _turned((), found["matrix"])]
    sections = (
        (
            "By rule",
            "by_rule",
            {"recorded_rules": "Rules then", "draft_rules": "Rules of the draft"},
        ),
        ("By location", "by_location", {"location_id": "Location"}),
        ("The largest", "largest", {"decision_id": "Decision"}),
    )
    for title, key, names in sections:
        rows, more = found[key][:_MOST_SHOWN], len(found[key]) - _MOST_SHOWN
        said = f" ({more:,} more in the report)" if more > 0 else ""
        if rows:
            parts.append(f"{title}{said}\n{_turned(names.items(), rows)}")
    files = found["files"]
    parts.append(f"The same with charts: {files['html']}\nFor programs:         {files['json']}")
    return "\n\n".join(parts)


def _turned(names: Iterable[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of what turns: what is named, the verdicts, how many where they are added up, the money."""
    own = list(names)
    many = "decisions" in rows[0]
    columns = [Column(title) for _, title in own]
    columns += [*_VERDICTS, *([_MANY] if many else []), *_MONEY]
    cells = [
        [
            *(row[name] for name, _ in own),
            *(row[side] for side in _SIDES),
            *([f"{row['decisions']:,}"] if many else []),
            *(shown.money(row[f"{side}_money_minor"], row["currency"]) for side in _SIDES),
        ]
        for row in rows
    ]
    return shown.table(columns, cells)


@policy.command()
@click.argument("file", metavar="FILE", type=_FILE, help="The rulebook, in YAML.")
@click.option("--as", "principal", metavar="NAME", help="Who promotes it, if not you.")
@pass_asked
def promote(asked: Asked, file: Path, principal: str | None) -> None:
    """Put a rulebook or dispatch policy in force from now on."""
    from storekeep import policy as rules

    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        put = pipeline.promote_dispatch if rules.is_dispatch(file) else pipeline.promote
        version = put(file, by)
    document = {"file": file, "version": version, "by": by}
    asked.answer(document, f"In force from now on: version {version}, promoted by {by}")


@policy.command()
@click.argument(
    "version", metavar="[VERSION]", required=False, help="The one in force if not given."
)
@_OF_AGENT
@pass_asked
def show(asked: Asked, version: str | None, agent: str) -> None:
    """Print the rulebook in force, or another version, as written."""
    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        # This registers the rulebook that ships where none was promoted yet.
        loaded = pipeline.rulebook(tx, agent, version)
        _, content = tx.registered("rulebook", agent, loaded.version) or ("", "")
        current = tx.registered("rulebook", agent)
    in_force = current is not None and current[0] == loaded.version
    state = "in force" if in_force else "not in force"
    document = {
        "rulebook": loaded.id,
        "version": loaded.version,
        "in_force": in_force,
        "content": content,
    }
    body = "\n".join(shown.printable(line) for line in content.rstrip().splitlines())
    asked.answer(document, f"# Rulebook {loaded.id}, version {loaded.version}, {state}\n{body}")


_PROMOTED = (
    Column("Version"),
    Column("Since"),
    Column("By"),
    Column("Why", wrap=True),
)
_FIGURES = (Column("Key figure"), Column("Value", right=True))
_ROLLBACK = (Column("Taken back when"), Column("From", right=True), Column("Holds"))


@policy.command()
@_OF_AGENT
@pass_asked
def history(asked: Asked, agent: str) -> None:
    """Say which versions were in force, and how the one that is does."""
    with asked.pipeline() as pipeline:
        standing = pipeline.measure(agent)
    content, reached = standing.rulebook.content, standing.reasons
    document = {
        "rulebook": content.rulebook,
        "promotions": standing.promotions,
        "figures": standing.figures,
        "rollback": [
            {**each.model_dump(), "holds": each.id in reached} for each in content.rollback
        ],
    }
    zone = asked.zone()
    promoted = [
        (
            row["version"][:12],
            shown.moment(row["promoted_at"], zone),
            row["promoted_by"],
            row["reason"],
        )
        for row in standing.promotions
    ]
    known = [
        (name, "not known" if value is None else f"{value:,.3f}".rstrip("0").rstrip("."))
        for name, value in standing.figures.items()
    ]
    conditions = [
        (each.when, f"{each.decisions:,} decisions", "yes" if each.id in reached else "no")
        for each in content.rollback
    ]
    parts = [shown.table(_PROMOTED, promoted), shown.table(_FIGURES, known)]
    parts += [shown.table(_ROLLBACK, conditions)] if conditions else []
    asked.answer(document, "\n\n".join(parts))
