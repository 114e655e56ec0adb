"""`storekeep decisions`: list, show, explain, replay, revert, verify and export what was decided."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, Identifier, Moment, PublicKey, as_json, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Misused, Refused

if TYPE_CHECKING:
    from storekeep.decisions import Selection
    from storekeep.ledger import Step, Verified
    from storekeep.pipeline import Pipeline

# The words of `decisions.Status` and `decisions.Decided`, which take half a second to import: too
# long for --help. A test holds them together.
STATUSES = (
    *("held", "denied", "escalated", "pending", "rejected", "expired", "executed", "failed"),
    *("dropped", "reverting", "reverted", "needs_person", "shadowed"),
)
VERDICTS = ("allow", "clip", "escalate", "deny", "hold")
_MOST_LISTED = 100_000
_MOST_SHOWN = 50

_LISTED = (
    Column("Decision"),
    Column("Decided", drop=3),
    Column("Subject"),
    Column("Verdict", drop=2),
    Column("Status"),
    Column("Money", right=True, drop=1),
    Column("Order", drop=4),
)
_PLANNED = (
    Column("Decision"),
    Column("Subject", drop=2),
    Column("Units", right=True, drop=1),
    Column("What"),
    Column("Why", wrap=True),
)
_AGAIN = "propose again"
_BECAME = (Column("Decision"), Column("Subject", drop=1), Column("Status"))


@click.group(cls=Group)
def decisions() -> None:
    """What was decided and why; take it back, prove it."""


def _selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which decisions are selected; all that are given must fit."""
    for option in reversed(
        [
            click.option("--batch", "batch_id", type=Identifier(), help="Of this run of an agent."),
            click.option("--order-group", metavar="GROUP", help="Of this order, as lists show it."),
            click.option("--location", "location_id", metavar="ID", help="For this location."),
            click.option("--agent-version", metavar="V", help="By this version of the agent."),
            click.option(
                "--rulebook-version", metavar="V", help="By this version of the rulebook."
            ),
            click.option("--since", type=Moment(), help="Decided at this date or time, or later."),
            click.option("--until", type=Moment(), help="Decided before this date or time."),
        ]
    ):
        command = option(command)
    return command


def _selection(asked: Asked, given: Mapping[str, Any]) -> Selection:
    from storekeep.decisions import Selection

    times = {name: asked.moment(given[name]) for name in ("since", "until")}
    return Selection(**{**given, **times})


# Reading ------------------------------------------------------------------------------------------------


@decisions.command("list")
@click.option("--status", type=click.Choice(STATUSES), metavar="STATUS", help="Where it stands.")
@click.option("--verdict", type=click.Choice(VERDICTS), help="What policy said.")
@_selecting
@click.option(
    "--limit",
    type=click.IntRange(1, _MOST_LISTED),
    metavar="N",
    default=50,
    show_default=True,
    help="List so many at most.",
)
@pass_asked
def list_(asked: Asked, /, **given: Any) -> None:
    """List decisions, newest first.

    STATUS is held, denied, escalated, pending, rejected, expired, executed, failed, dropped, reverting,
    reverted or needs_person.
    """
    selection, zone = _selection(asked, given), asked.zone()
    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx.decisions(selection)
    cells = [
        (
            row["decision_id"],
            shown.moment(row["decided_at"], zone),
            row["subject"],
            row["verdict"],
            row["status"],
            shown.money(row["money_minor"], row["currency"]),
            row["order_group"],
        )
        for row in rows
    ]
    said = f"{shown.count(len(rows), 'decision')}, newest first; times in {zone.key}."
    if len(rows) == given["limit"]:
        said += " There may be more: see --limit."
    asked.answer(rows, f"{shown.table(_LISTED, cells)}\n\n{said}" if rows else "No decision fits.")


@decisions.command()
@click.argument("decision_id", metavar="ID", type=Identifier(), help="The decision.")
@pass_asked
def show(asked: Asked, decision_id: str) -> None:
    """Show one decision and what became of it."""
    from storekeep import ledger
    from storekeep.decisions import Selection

    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        history = ledger.steps(tx, [decision_id])[decision_id]
        run = ledger.header(tx, history[0]["batch"])
        row = tx.decisions(Selection(ids=(decision_id,)))[0]
    first = history[0]
    document = {
        **row,
        "reversibility": run["reversibility"],
        "rulebook": run["rulebook"],
        "parameters": ledger.standing(history) or None,
        "rules": first.get("rules", []),
        "hold": first.get("reason"),
        "run": run,
        "history": history,
    }
    asked.answer(document, _described(asked, document))


def _described(asked: Asked, told: Mapping[str, Any]) -> str:
    from storekeep import ledger

    zone = asked.zone()
    facts: dict[str, object] = {
        "action": f"{told['action']} for {told['subject']} ({told['reversibility']})",
        "decided": f"{shown.moment(told['decided_at'], zone)} {zone.key}",
        "by agent": f"{told['agent']}, version {told['agent_version']}",
        "verdict": f"{told['verdict']}, rulebook {told['rulebook']} version {told['rulebook_version']}",
    }
    if told["hold"]:
        facts["held"] = told["hold"]
    if told["money_minor"] is not None:
        facts["money"] = shown.money(told["money_minor"], told["currency"])
    facts |= {"order": told["order_group"] or "none", "run": told["batch_id"]}
    if told["reverses"]:
        facts["proposes again"] = f"{told['reverses']}, which was taken back"
    lines = [f"Decision {told['decision_id']}: {told['status']}", shown.pairs(facts)]
    if told["parameters"]:
        lines += ["", "Parameters:", shown.pairs(told["parameters"])]
    if told["rules"]:
        lines += ["", "Rules that spoke:"]
        lines += [
            f"  {rule['effect']} by {rule['rule']}: {rule['reason']}" for rule in told["rules"]
        ]
    lines += ["", "What became of it:"]
    for entry in told["history"]:
        at = entry.get("at") or told["decided_at"]
        words = [f"{shown.moment(at, zone)}  {entry['step']}"]
        words += [f"by {entry['by']}"] if entry.get("by") else []
        words += [entry["receipt"]["reference"]] if entry.get("receipt") else []
        words += ledger.changes(entry)
        words += [entry["reason"]] if entry.get("reason") else []
        lines.append(f"  {', '.join(words)} (ledger batch {entry['batch']})")
    lines += ["", f"Why: storekeep decisions explain {told['decision_id']}"]
    return shown.folded("\n".join(lines))


@decisions.command()
@click.argument("decision_id", metavar="ID", type=Identifier(), help="The decision.")
@click.option(
    "--lines",
    type=click.IntRange(0, 1000),
    metavar="N",
    default=5,
    show_default=True,
    help="Show so many of the till lines it rests on.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "prov"]),
    default="text",
    metavar="FORM",
    help="text, json (the same as --json), or prov: W3C PROV-O as JSON-LD.",
)
@pass_asked
def explain(asked: Asked, decision_id: str, lines: int, form: str) -> None:
    """Explain one decision, from its till lines to its receipt."""
    from storekeep import ledger

    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        explained = ledger.explain(tx, pipeline.lake, decision_id, lines=lines)
    if form == "text":
        asked.answer(explained, shown.folded(ledger.text(explained, asked.zone())))
        return
    document = ledger.provenance(explained) if form == "prov" else explained
    asked.answer(document, as_json(document))


@decisions.command()
@click.argument("decision_id", metavar="ID", type=Identifier(), help="The decision.")
@pass_asked
def replay(asked: Asked, decision_id: str) -> None:
    """Make one decision again, and compare.

    It is computed from its recorded versions. Exits with 1 unless it comes out equal, letter by letter.
    """
    with asked.pipeline() as pipeline:
        replayed = pipeline.replay(decision_id)
    same = replayed["identical"] and replayed["run_identical"]
    said = [
        f"Decision {decision_id}: " + ("identical" if replayed["identical"] else "NOT identical"),
        f"  its whole run of {shown.count(replayed['decisions_in_run'], 'decision')}: "
        + ("identical" if replayed["run_identical"] else "NOT identical"),
        f"  recorded  {replayed['recorded_digest']}",
        f"  replayed  {replayed['replayed_digest']}",
    ]
    asked.answer(replayed, "\n".join(said))
    if not same:
        raise click.exceptions.Exit(1)


# Taking back --------------------------------------------------------------------------------------------


@decisions.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=Identifier(), help="Decisions.")
@_selecting
@click.option("--reason", metavar="TEXT", help="Why; asked for if not given.")
@click.option("--as", "principal", metavar="NAME", help="Who takes it back, if not you.")
@click.option(
    "--undo",
    type=Identifier(),
    multiple=True,
    help="Propose again what this revert took back, or this decision.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_asked
def revert(
    asked: Asked,
    /,
    ids: tuple[str, ...],
    undo: tuple[str, ...],
    reason: str | None,
    principal: str | None,
    *,
    dry_run: bool,
    yes: bool,
    **given: Any,
) -> None:
    """Take decisions back.

    What was ordered is cancelled, what was not yet is withdrawn. Shows the plan first, then asks. What
    somebody else changed since, or what has arrived, is left to a person: the command then exits with 1.
    Running it again finishes what was not done yet. With --undo a revert is taken back itself: what it undid
    is proposed anew, and judged.
    """
    chosen = bool(ids) or any(given.values())
    if chosen == bool(undo):
        raise click.UsageError(
            "say which decisions: their ids, or --batch, --order-group, --since, ...; or --undo alone"
        )
    if not dry_run and (asked.json or not _can_ask()):
        if not reason:
            raise click.UsageError("say why with --reason; the ledger keeps it")
        if not yes:
            raise Refused(
                "nobody is there to be asked; see the plan with --dry-run, then add --yes"
            )
    aim = _AGAIN if undo else "take back"
    with asked.pipeline() as pipeline:
        if undo:
            plan = pipeline.plan_undo(undo)
        else:
            plan = _plan(pipeline, _selection(asked, {**given, "ids": ids or None}))
        document: dict[str, Any] = {
            "dry_run": dry_run,
            "plan": plan,
            "counts": shown.tally(step.what for step in plan),
            "taken_on": 0,
            "revert": None,
            "results": [],
        }
        active = [step for step in plan if step.what != "nothing"]
        if dry_run or not active:
            asked.answer(document, _drawn(plan, aim))
            return
        if not asked.json:
            click.echo(_drawn(plan, aim) + "\n")
        if undo and (why_not := next((s.why for s in active if s.what == "cannot"), None)):
            raise Refused(f"nothing is proposed again: {why_not}")
        if not yes and not click.confirm(f"{aim.capitalize()} {len(active)}?", err=True):
            raise Refused("nothing was done")
        why = reason or click.prompt("Why? The ledger keeps it", err=True)
        by = principal or asked.settings().principal
        if undo:
            document |= _undone(pipeline, plan, by, why)
        else:
            document |= _reverted(pipeline, active, by, why)
    _tell_results(asked, document, document["results"], undo=bool(undo))


def _reverted(pipeline: Pipeline, active: Sequence[Step], by: str, why: str) -> dict[str, Any]:
    """Carry out a revert; how many it took on, the id by which it can be taken back, and where all stand."""
    from storekeep import ledger

    taken_on = pipeline.revert(active, by, why)
    pipeline.act()
    ids = [step.decision_id for step in active]
    with pipeline.store.transaction(pipeline.tenant) as tx:
        written = [
            each["batch"]
            for history in ledger.steps(tx, ids).values()
            for each in history
            if each.get("reverses") is True
        ]
        sealed = tx.ledger_batches(max(written), max(written)) if written else []
    revert_id = sealed[0]["batch_id"] if sealed else None
    return {"taken_on": taken_on, "revert": revert_id, "results": standings(pipeline, ids)}


def _undone(pipeline: Pipeline, plan: Sequence[Step], by: str, why: str) -> dict[str, Any]:
    """Propose again what was taken back; the new decisions and where they stand."""
    from storekeep.decisions import Selection

    runs = pipeline.undo(plan, by, why)
    pipeline.act()
    with pipeline.store.transaction(pipeline.tenant) as tx:
        made = [row for run in runs for row in tx.decisions(Selection(batch_id=run.batch_id))]
    reverses = {row["decision_id"]: row["reverses"] for row in made}
    rows = [
        {**row, "reverses": reverses[row["decision_id"]]}
        for row in standings(pipeline, list(reverses))
    ]
    return {"taken_on": sum(run.evaluated for run in runs), "results": rows}


def _plan(pipeline: Pipeline, selection: Selection) -> list[Step]:
    plan = pipeline.plan_revert(selection)
    missing = set(selection.ids or ()) - {step.decision_id for step in plan}
    if missing:
        with pipeline.store.transaction(pipeline.tenant) as tx:
            held = {row["decision_id"] for row in tx.decisions(selection)} & missing
        for key in sorted(missing - held):
            raise Refused(f"there is no such decision {key}; see `storekeep decisions list`")
    if not plan and not missing:
        raise Refused("no decision fits; see `storekeep decisions list` with the same options")
    return plan


def _drawn(plan: Sequence[Step], aim: str = "take back") -> str:
    """The plan as a table, cut where it is long, and what it comes to."""
    rows = [(s.decision_id, s.subject, s.units, s.what, s.why) for s in plan[:_MOST_SHOWN]]
    out = [shown.table(_PLANNED, rows), ""] if rows else []
    if len(plan) > _MOST_SHOWN:
        out.append(f"... and {len(plan) - _MOST_SHOWN:,} more; --json shows all.")
    units = sum(step.units for step in plan if step.what in ("compensate", "withdraw", "propose"))
    counts = shown.tally(step.what for step in plan)
    if set(counts) <= {"nothing"}:
        return "\n".join([*out, f"There is nothing to {aim}."])
    said = f"Plan: {shown.listed(counts)}; {units:,} units."
    if aim == _AGAIN and "cannot" in counts:
        said += " Nothing of it is proposed again while some of it cannot be: leave that out."
    return "\n".join([*out, said])


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def standings(pipeline: Pipeline, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Where decisions stand now, in the order of the ids."""
    from storekeep.decisions import Selection

    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = tx.decisions(Selection(ids=tuple(ids)))
    found = {row["decision_id"]: row for row in rows}
    names = ("decision_id", "subject", "order_group", "status")
    return [{name: found[key][name] for name in names} for key in ids]


def _tell_results(
    asked: Asked,
    document: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    undo: bool,
) -> None:
    counts = shown.tally(row["status"] for row in rows)
    ends = ("executed",) if undo else ("reverted", "rejected", "expired")
    open_ = [row for row in rows if row["status"] not in ends]
    said = []
    if open_:
        cells = [(row["decision_id"], row["subject"], row["status"]) for row in open_[:_MOST_SHOWN]]
        title = "These are not carried out yet:" if undo else "These are not taken back yet:"
        said = [title, shown.table(_BECAME, cells), ""]
    said.append(f"Now: {shown.listed(counts)}.")
    if document["revert"]:
        said.append(f"To take this back: storekeep decisions revert --undo {document['revert']}")
    if undo and "escalated" in counts:
        said.append("Somebody else has to approve what waits: storekeep approvals list")
    asked.answer(document, "\n".join(said))
    if open_:
        raise click.exceptions.Exit(1)


# Proof --------------------------------------------------------------------------------------------------


@decisions.command()
@click.argument(
    "export_file",
    metavar="[EXPORT]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that `export` wrote.",
)
@click.option(
    "--proof",
    "proof_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file that `proof` wrote, in place of EXPORT.",
)
@click.option(
    *("--public-key", "--key", "public_key"),
    type=PublicKey(),
    help="The key that must have signed, from elsewhere.",
)
@pass_asked
def verify(
    asked: Asked, export_file: Path | None, proof_file: Path | None, public_key: str | None
) -> None:
    """Compute the whole ledger again, and compare.

    Exits with 1 when anything was changed.

    With EXPORT, a file that `export` wrote, or the --proof of one decision, nothing else is needed: no home,
    no server.
    """
    from storekeep import ledger

    if export_file is not None and proof_file is not None:
        raise click.UsageError("give an export or a --proof, not both")
    if (file := export_file or proof_file) is not None:
        check = ledger.verify_export if proof_file is None else ledger.verify_proof
        outcome, source, key = check(file, public_key), str(file), public_key
    else:
        with asked.pipeline() as pipeline:
            key = public_key or pipeline.signing.public
            with pipeline.store.transaction(pipeline.tenant) as tx:
                outcome = ledger.verify(tx, key)
            source = f"tenant {pipeline.tenant}"
    document = {
        "ok": outcome.ok,
        "source": source,
        "batches": outcome.batches,
        "entries": outcome.entries,
        "head": outcome.head,
        "public_key": key,
        "problems": outcome.problems,
    }
    asked.answer(document, _verified(outcome, source, given=key is not None))
    if not outcome.ok:
        raise click.exceptions.Exit(1)


def _verified(outcome: Verified, source: str, *, given: bool) -> str:
    many = f"{shown.count(outcome.entries, 'entry', 'entries')} in "
    many += shown.count(outcome.batches, "batch", "batches")
    if outcome.ok:
        lines = [f"The ledger of {source} holds: {many}"]
        lines += [f"  last chain value {outcome.head}"] if outcome.head else []
    else:
        lines = [
            f"The ledger of {source} does NOT hold: {shown.count(len(outcome.problems), 'problem')}, {many}"
        ]
        lines += [f"  {each.where}: {each.what}" for each in outcome.problems[:_MOST_SHOWN]]
        if len(outcome.problems) > _MOST_SHOWN:
            lines.append(
                f"  ... and {len(outcome.problems) - _MOST_SHOWN:,} more; --json shows all."
            )
    if not given:
        lines.append("  by the key in the file; --public-key checks that it is the right one")
    return shown.folded("\n".join(lines))


@decisions.command()
@click.argument(
    "file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="File to write."
)
@click.option("--force", is_flag=True, help="Write over FILE if it is there.")
@pass_asked
def export(asked: Asked, file: Path, *, force: bool) -> None:
    """Write the whole ledger to a file that `verify` checks anywhere."""
    from storekeep import ledger

    _writable(file, force=force)
    with asked.pipeline() as pipeline:
        with pipeline.store.transaction(pipeline.tenant) as tx:
            try:
                entries = ledger.export(tx, file, pipeline.signing.public)
            except OSError as error:
                file.with_name(file.name + ".part").unlink(missing_ok=True)
                raise Refused(
                    f"{file} cannot be written: {error.strerror}; choose another place"
                ) from None
        public = pipeline.signing.public
    document = {"file": file, "entries": entries, "public_key": public}
    said = f"Wrote {shown.count(entries, 'entry', 'entries')} to {file}\n  signed by {public}\n"
    said += f"Check it anywhere: storekeep decisions verify {file} --key {public}"
    asked.answer(document, said)


@decisions.command()
@click.argument("decision_id", metavar="ID", type=Identifier(), help="The decision.")
@click.option(
    "--out",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Write over FILE if it is there.")
@pass_asked
def proof(asked: Asked, decision_id: str, file: Path, *, force: bool) -> None:
    """Write what proves one decision, for `verify --proof`.

    It says nothing of any other decision.
    """
    from storekeep import ledger

    _writable(file, force=force)
    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        proved = ledger.proved(tx, decision_id, pipeline.signing.public)
    try:
        file.write_text(ledger.written(proved), encoding="utf-8", newline="\n")
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror}; choose another place") from None
    entries, public = len(proved["entries"]), proved["public_key"]
    document = {"file": file, "entries": entries, "public_key": public}
    said = f"Wrote {shown.count(entries, 'entry', 'entries')} to {file}\n  signed by {public}\n"
    said += f"Check it anywhere: storekeep decisions verify --proof {file} --key {public}"
    asked.answer(document, said)


def _writable(file: Path, *, force: bool) -> None:
    """`Refused` or `Misused` when a file is not to be written there."""
    if file.exists() and not force:
        raise Refused(f"{file} is there already; name another file, or add --force")
    if not file.absolute().parent.is_dir():
        raise Misused(
            f"there is no folder {file.absolute().parent} to write {file.name} in; make it first"
        )
