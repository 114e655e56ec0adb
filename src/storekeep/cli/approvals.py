"""`storekeep approvals`: what waits for a person's word, and that word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, Identifier, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Refused

if TYPE_CHECKING:
    from storekeep.pipeline import Pipeline

_WAITING = (
    Column("Decision"),
    Column("Subject", drop=2),
    Column("Money", right=True),
    Column("Role", drop=1),
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
                *(row["role"], shown.moment(row["deadline"], zone), row["order_group"]),
            )
            for row in rows
        ]
        drawn = shown.table(_WAITING, lines)
        hint = "storekeep approvals approve DECISION..."
    said = f"{drawn}\n\nTimes in {zone.key}. To approve: {hint}"
    asked.answer(rows, said if rows else "Nothing waits for approval.")


def _by_order(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each order and role: its lines, their money, and the earliest deadline."""
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
            },
        )
        found["lines"] += 1
        found["money_minor"] += row["money_minor"] or 0
        found["deadline"] = min(found["deadline"], row["deadline"])
        found["decision_ids"].append(row["decision_id"])
    return sorted(orders.values(), key=lambda order: (-order["money_minor"], order["order_group"]))


@approvals.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=Identifier(), help="Decisions.")
@click.option("--order-group", metavar="GROUP", help="All lines of this order.")
@click.option("--as", "principal", metavar="NAME", help="Who approves, if not you.")
@pass_asked
def approve(
    asked: Asked, ids: tuple[str, ...], order_group: str | None, principal: str | None
) -> None:
    """Approve decisions, and carry them out.

    The evidence is taken afresh and judged again: what policy forbids by now stays undone, and the command
    then exits with 1.
    """
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        rows = _chosen(pipeline, ids, order_group)
        answers = pipeline.approve([row["decision_id"] for row in rows], by)
        pipeline.act()
        document = _answered(pipeline, rows, answers, by)
    _tell(asked, document)
    if set(answers.values()) != {"approved"}:
        raise click.exceptions.Exit(1)


@approvals.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=Identifier(), help="Decisions.")
@click.option("--order-group", metavar="GROUP", help="All lines of this order.")
@click.option("--as", "principal", metavar="NAME", help="Who rejects, if not you.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; the ledger keeps it.")
@pass_asked
def reject(
    asked: Asked,
    ids: tuple[str, ...],
    order_group: str | None,
    principal: str | None,
    reason: str,
) -> None:
    """Reject decisions: the rulebook's safe default stands."""
    by = principal or asked.settings().principal
    with asked.pipeline() as pipeline:
        rows = _chosen(pipeline, ids, order_group)
        answers = pipeline.reject([row["decision_id"] for row in rows], by, reason)
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
    return {"by": by, "counts": shown.tally(answers.values()), "results": results}


def _tell(asked: Asked, document: Mapping[str, Any]) -> None:
    cells = [
        (row["decision_id"], row["subject"], row["answer"], row["status"])
        for row in document["results"]
    ]
    said = f"By {document['by']}: {shown.listed(document['counts'])}."
    asked.answer(document, f"{shown.table(_ANSWERED, cells)}\n\n{said}")
