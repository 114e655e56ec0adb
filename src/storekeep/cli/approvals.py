"""`storekeep approvals`: what waits for a person's word, what that person needs to know, and the word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Assignment, Group, Identifier, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Refused

if TYPE_CHECKING:
    from storekeep.pipeline import Pipeline

_WAITING = (
    Column("Decision"),
    Column("Subject", drop=2),
    Column("Money", right=True),
    Column("Role", drop=1),
    Column("Agreed", drop=2),
    Column("Approve by", drop=3),
    Column("Order", drop=4),
)
_ORDERS = (
    Column("Order"),
    Column("Lines", right=True),
    Column("Money", right=True),
    Column("Role"),
    Column("Approve by"),
)
_ANSWERED = (
    Column("Decision"),
    Column("Subject", drop=2),
    Column("Answer"),
    Column("Status", drop=1),
)


_OPEN = (
    "No principals are set, so every role is open to everybody: see [principals] in the settings."
)
_DIGEST = "What you saw, as list and show tell it; refused if it changed since."
_MOST_DIFFERENCES = 8


@click.group(cls=Group)
def approvals() -> None:
    """Decisions that wait for a person's word."""


@approvals.command("list")
@click.option("--order-group", metavar="GROUP", help="Only the lines of this order.")
@click.option("--orders", is_flag=True, help="One line for each order, not for each decision.")
@pass_asked
def list_(asked: Asked, order_group: str | None, *, orders: bool) -> None:
    """List what waits for approval, the most money first."""
    zone = asked.zone()
    with asked.pipeline() as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        rows = [r for r in tx.approvals() if order_group in (None, r["order_group"])]
    if orders:
        rows = _by_order(rows)
        lines: list[tuple[object, ...]] = [
            (
                *(row["order_group"], row["lines"]),
                shown.money(row["money_minor"], row["currency"]),
                *(row["role"], shown.moment(row["deadline"], zone)),
            )
            for row in rows
        ]
        drawn = shown.table(_ORDERS, lines)
        hint = "storekeep approvals approve --order-group ORDER"
    else:
        lines = [
            (
                *(row["decision_id"], row["subject"]),
                shown.money(row["money_minor"], row["currency"]),
                *(row["role"], f"{len(row['agreed'])} of {row['persons']}"),
                *(shown.moment(row["deadline"], zone), row["order_group"]),
            )
            for row in rows
        ]
        drawn = shown.table(_WAITING, lines)
        hint = "storekeep approvals approve DECISION..."
    said = f"{drawn}\n\nTimes in {zone.key}. To approve: {hint}"
    said += "\nWhat one needs to decide: storekeep approvals show DECISION..."
    asked.answer(rows, said if rows else "Nothing waits for approval.")


def _by_order(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each order and role: its lines, their money, the earliest deadline, and their digest."""
    from storekeep.pipeline import digest_of

    orders: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        group = row["order_group"] or row["decision_id"]
        found = orders.setdefault(
            (group, row["role"], row["currency"]),
            {
                "order_group": group,
                "lines": 0,
                "money_minor": 0,
                "currency": row["currency"],
                "role": row["role"],
                "deadline": row["deadline"],
                "decision_ids": [],
                "digests": [],
            },
        )
        found["lines"] += 1
        found["money_minor"] += row["money_minor"] or 0
        found["deadline"] = min(found["deadline"], row["deadline"])
        found["decision_ids"].append(row["decision_id"])
        found["digests"].append(row["digest"])
    for order in orders.values():
        order["digest"] = digest_of(order.pop("digests"))
    return sorted(orders.values(), key=lambda order: (-order["money_minor"], order["order_group"]))


@approvals.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=Identifier(), help="Decisions.")
@click.option("--order-group", metavar="GROUP", help="All lines of this order.")
@pass_asked
def show(asked: Asked, ids: tuple[str, ...], order_group: str | None) -> None:
    """Show all that one needs to know to decide.

    What is asked and why, what happens otherwise, how old the figures are, and what would be different if it
    were judged now.
    """
    from storekeep.pipeline import digest_of

    with asked.pipeline() as pipeline:
        rows = _chosen(pipeline, ids, order_group)
        requests = pipeline.outlook([row["decision_id"] for row in rows])
        roles_open = not pipeline.principals
    digest = digest_of(row["digest"] for row in requests)
    document = {"roles_open": roles_open, "digest": digest, "requests": requests}
    said = [_described(asked, row) for row in requests]
    if len(requests) > 1:
        said.append(f"{shown.count(len(requests), 'decision')} together: digest {digest}")
    said += [_OPEN] if roles_open else []
    asked.answer(document, shown.folded("\n\n".join(said)))


def _described(asked: Asked, told: Mapping[str, Any]) -> str:
    """One request for a person to read."""
    zone, now = asked.zone(), told["now"]
    lines = [
        f"Decision {told['decision_id']}: {told['action']} for {told['subject']}",
        shown.pairs(
            {
                "money": shown.money(told["money_minor"], told["currency"]),
                "order": told["order_group"] or "none",
                "asked by": told["changed_by"] or told["proposed_by"],
                "who decides": _deciders(told),
                "until": f"{shown.moment(told['deadline'], zone)} {zone.key}",
                "otherwise": told["safe_default"],
                "figures": f"{told['evidence_age_hours']:,} hours old",
                "digest": told["digest"],
            }
        ),
        *("", "What is asked:", shown.pairs(told["parameters"])),
        *_at_first(told),
        *("", "Why a person decides, and what else was said:"),
        *_spoken(told["rules"]),
        *("", "The arithmetic:", shown.pairs(told["arithmetic"])),
    ]
    lines += [_may_change(each) for each in told["change"]]
    lines += ["", f"If it were judged now: {now['verdict']}; if approved now: {now['if_approved']}"]
    if (now["role"], now["persons"]) != (told["role"], told["persons"]):
        lines.append(f"  it would take {_deciders({**told, **now})}")
    if now["rulebook_version"] != told["rulebook_version"]:
        lines.append(f"  by rulebook version {now['rulebook_version'][:12]}, in force since")
    if now["rules"] != told["rules"]:
        lines += _spoken(now["rules"])
    changed = list(now["evidence"].items())
    lines += [
        f"  {name} was {'unknown' if then is None else then}, is {'unknown' if by_now is None else by_now}"
        for name, (then, by_now) in changed[:_MOST_DIFFERENCES]
    ]
    if len(changed) > _MOST_DIFFERENCES:
        lines.append(
            f"  ... and {len(changed) - _MOST_DIFFERENCES} more figures; --json shows all."
        )
    return "\n".join(lines)


def _at_first(told: Mapping[str, Any]) -> list[str]:
    """What the agent proposed, where something else is asked for by now."""
    other = {
        name: then for name, then in told["proposed"].items() if then != told["parameters"][name]
    }
    return [f"  first proposed: {name} {then}" for name, then in other.items()]


def _deciders(told: Mapping[str, Any]) -> str:
    many = (
        told["role"] if told["persons"] == 1 else f"{told['persons']} persons, each {told['role']}"
    )
    return f"{many} or above" + (f"; {', '.join(told['agreed'])} agreed" if told["agreed"] else "")


def _spoken(rules: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"  {rule['effect']} by {rule['rule']}: {rule['reason']}" for rule in rules]


def _may_change(bound: Mapping[str, Any]) -> str:
    sides = [("from", bound["at_least"]), ("up to", bound["at_most"])]
    spread = " ".join(f"{word} {value:,.12g}" for word, value in sides if value is not None)
    return f"\nRule {bound['rule']} lets {bound['parameter']} be changed {spread}"


@approvals.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=Identifier(), help="Decisions.")
@click.option("--order-group", metavar="GROUP", help="All lines of this order.")
@click.option("--digest", metavar="HEX", help=_DIGEST)
@click.option("--as", "principal", metavar="NAME", help="Who approves, if not you.")
@pass_asked
def approve(
    asked: Asked,
    ids: tuple[str, ...],
    order_group: str | None,
    digest: str | None,
    principal: str | None,
) -> None:
    """Approve decisions, and carry them out.

    The evidence is taken afresh and judged again: what policy forbids by now stays undone, and the command
    then exits with 1. Where several persons must agree, the last of them sets it going.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        rows = _chosen(pipeline, ids, order_group)
        answers = pipeline.approve([row["decision_id"] for row in rows], by, digest)
        pipeline.act()
        document = _answered(pipeline, rows, answers, by)
    _tell(asked, document)
    if not set(answers.values()) <= {"approved", "agreed"}:
        raise click.exceptions.Exit(1)


@approvals.command()
@click.argument("decision_id", metavar="ID", type=Identifier(), help="The decision.")
@click.option(
    "--set",
    "values",
    metavar="NAME=VALUE",
    type=Assignment(),
    multiple=True,
    required=True,
    help="What to do instead, such as order_units=24.",
)
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@click.option("--digest", metavar="HEX", help=_DIGEST)
@click.option("--as", "principal", metavar="NAME", help="Who changes it, if not you.")
@pass_asked
def change(
    asked: Asked,
    decision_id: str,
    values: tuple[tuple[str, int], ...],
    reason: str,
    digest: str | None,
    principal: str | None,
) -> None:
    """Ask for another quantity, within what a rule allows.

    If no rule asks for a person any more it is carried out; else somebody else has to approve it.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        rows = _chosen(pipeline, [decision_id], None)
        answer = pipeline.change(decision_id, by, dict(values), reason, digest)
        pipeline.act()
        document = _answered(pipeline, rows, {decision_id: answer}, by)
    _tell(asked, document)
    if answer == "expired":
        raise click.exceptions.Exit(1)


@approvals.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=Identifier(), help="Decisions.")
@click.option("--order-group", metavar="GROUP", help="All lines of this order.")
@click.option("--digest", metavar="HEX", help=_DIGEST)
@click.option("--as", "principal", metavar="NAME", help="Who rejects, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@pass_asked
def reject(
    asked: Asked,
    ids: tuple[str, ...],
    order_group: str | None,
    digest: str | None,
    principal: str | None,
    reason: str,
) -> None:
    """Reject decisions: the rulebook's safe default stands."""
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        rows = _chosen(pipeline, ids, order_group)
        answers = pipeline.reject([row["decision_id"] for row in rows], by, reason, digest)
        document = _answered(pipeline, rows, answers, by)
    _tell(asked, document)


def _chosen(
    pipeline: Pipeline, ids: Sequence[str], order_group: str | None
) -> list[Mapping[str, Any]]:
    """The decisions that are meant, with their subjects; whether they wait the pipeline says."""
    from storekeep.decisions import Selection

    if bool(ids) == bool(order_group):
        raise click.UsageError("say which decisions: their ids, or --order-group")
    with pipeline.store.transaction(pipeline.tenant) as tx:
        if order_group:
            rows = [row for row in tx.approvals() if row["order_group"] == order_group]
        else:
            rows = tx.decisions(Selection(ids=tuple(ids)))
    if order_group and not rows:
        raise Refused(
            f"no line of order {order_group} waits for approval; see `storekeep approvals list`"
        )
    for key in sorted(set(ids) - {row["decision_id"] for row in rows}):
        raise Refused(f"there is no decision {key}; see `storekeep approvals list`")
    return list(rows)


def _answered(
    pipeline: Pipeline, rows: Sequence[Mapping[str, Any]], answers: Mapping[str, str], by: str
) -> dict[str, Any]:
    from storekeep.decisions import Selection

    with pipeline.store.transaction(pipeline.tenant) as tx:
        now = {
            row["decision_id"]: row["status"] for row in tx.decisions(Selection(ids=tuple(answers)))
        }
    results = [
        {
            "decision_id": row["decision_id"],
            "subject": row["subject"],
            "answer": answers[row["decision_id"]],
            "status": now[row["decision_id"]],
        }
        for row in rows
    ]
    return {
        "by": by,
        "roles_open": not pipeline.principals,
        "counts": shown.tally(answers.values()),
        "results": results,
    }


def _tell(asked: Asked, document: Mapping[str, Any]) -> None:
    cells = [
        (row["decision_id"], row["subject"], row["answer"], row["status"])
        for row in document["results"]
    ]
    said = f"By {document['by']}: {shown.listed(document['counts'])}."
    if {"agreed", "changed"} & document["counts"].keys():
        said += " Somebody else has to approve what still waits."
    said += f"\n{_OPEN}" if document["roles_open"] else ""
    asked.answer(document, f"{shown.table(_ANSWERED, cells)}\n\n{said}")
