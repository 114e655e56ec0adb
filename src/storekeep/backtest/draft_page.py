"""The report on a draft of a rulebook as a page for the browser: what turns, why, where, and the money of it.

Hides the template and the charts. Like the demonstration's page it needs nothing else, and requests nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from storekeep.backtest import charts, figures
from storekeep.backtest.figures import count, counted, money, plain, share
from storekeep.backtest.page import Chart, Table, picture, rendered
from storekeep.backtest.report import write_text

VERDICTS = ("allow", "clip", "escalate", "deny")
_ALONE = VERDICTS[:2]
_MOST_BARS = 8
_MOST_ROWS = 25
_SIDES = ("recorded", "draft")


@dataclass(frozen=True)
class Cell:
    """How many decisions went from one verdict to another, and their money on both sides."""

    count: int
    money: Sequence[str]
    kept: bool


def write_html(report: Mapping[str, Any], path: Path) -> None:
    """Write the report as one page; `report` as `try_draft` makes it.

    Beside it `draft` is what a person calls the draft, and `command` what they type.
    """
    write_text(path, html(report))


def html(report: Mapping[str, Any]) -> str:
    """The whole page."""
    return rendered("draft.html.j2", _content(report))


def _content(report: Mapping[str, Any]) -> dict[str, Any]:
    flips = [row for row in report["matrix"] if row["recorded"] != row["draft"]]
    return {
        "report": report,
        "span": figures.span(report),
        "decisions": counted(report["decisions"], "decision"),
        "runs": counted(report["runs"], "run"),
        "held": counted(report["held"], "item"),
        "versions": [(name[:12], number) for name, number in report["recorded_versions"].items()],
        "draft": report["draft_version"][:12],
        "cards": _cards(report, flips),
        "verdicts": VERDICTS,
        "matrix": [(verdict, _matrix_row(report["matrix"], verdict)) for verdict in VERDICTS],
        "requantified": [
            (row["recorded"], row["decisions"], *_both(row))
            for row in report["same_verdict_other_money"]
        ],
        "charts": list(_charts(report)) if report["decisions"] else [],
        "causes": [_named(row) for row in report["by_rule"][:_MOST_ROWS]],
        "more_causes": max(0, len(report["by_rule"]) - _MOST_ROWS),
        "places": [_named(row) for row in report["by_location"][:_MOST_ROWS]],
        "more_places": max(0, len(report["by_location"]) - _MOST_ROWS),
        "largest": [_named(row) for row in report["largest"][:_MOST_ROWS]],
        "commands": list(_commands(report)),
    }


def _both(row: Mapping[str, Any]) -> tuple[str, str]:
    recorded, draft = (money(row[f"{side}_money_minor"], row["currency"]) for side in _SIDES)
    return recorded, draft


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its money as it is read."""
    return {**row, "money": _both(row)}


def _sums(rows: Sequence[Mapping[str, Any]], side: str) -> list[str]:
    """The money of rows on one side, in each currency."""
    found: dict[str, int] = {}
    for row in rows:
        found[row["currency"]] = found.get(row["currency"], 0) + row[f"{side}_money_minor"]
    return [money(minor, currency) for currency, minor in sorted(found.items())]


def _cards(
    report: Mapping[str, Any], flips: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """The figures at the top: a name, a value, and what it is beside."""
    total = report["decisions"]
    freed = [row for row in flips if row["draft"] in _ALONE and row["recorded"] not in _ALONE]
    stopped = [row for row in flips if row["recorded"] in _ALONE and row["draft"] not in _ALONE]
    return [
        ("verdicts that turn", count(report["flips"]), _of(report["flips"], total)),
        ("stricter under the draft", count(report["stricter"]), _of(report["stricter"], total)),
        ("looser under the draft", count(report["looser"]), _of(report["looser"], total)),
        *_at_stake("goes ahead without a person now", freed, "draft"),
        *_at_stake("waits or is refused now", stopped, "recorded"),
    ]


def _of(part: int, total: int) -> str:
    return f"{share(part / total)} of {count(total)}" if total else ""


def _at_stake(
    name: str, rows: Sequence[Mapping[str, Any]], side: str
) -> Iterator[tuple[str, str, str]]:
    many = sum(row["decisions"] for row in rows)
    if many:
        yield name, ", ".join(_sums(rows, side)), counted(many, "decision")


def _matrix_row(matrix: Sequence[Mapping[str, Any]], recorded: str) -> list[Cell]:
    out = []
    for draft in VERDICTS:
        rows = [row for row in matrix if (row["recorded"], row["draft"]) == (recorded, draft)]
        amounts = _sums(rows, "recorded")
        then = _sums(rows, "draft")
        words = amounts if amounts == then else [*amounts, *(f"then {each}" for each in then)]
        out.append(Cell(sum(row["decisions"] for row in rows), words, recorded == draft))
    return out


# Charts ---------------------------------------------------------------------------------------------


def _charts(report: Mapping[str, Any]) -> Iterator[Chart]:
    yield _both_sides(report)
    if not report["flips"]:
        return
    yield _over_time(report)
    yield _ranked("rules", "What turns verdicts, by rule", _rule_totals(report), "rules")
    totals: dict[str, int] = {}
    for row in report["by_location"]:
        totals[row["location_id"]] = totals.get(row["location_id"], 0) + row["decisions"]
    if len(totals) > 1:
        yield _ranked("places", "Verdicts that turn, by location", totals, "location")


def _both_sides(report: Mapping[str, Any]) -> Chart:
    drawn = {
        side: [
            sum(row["decisions"] for row in report["matrix"] if row[side] == verdict)
            for verdict in VERDICTS
        ]
        for side in _SIDES
    }
    title = "Verdicts as recorded and under the draft"
    says = "; ".join(
        f"{side}: "
        + ", ".join(f"{name} {count(n)}" for name, n in zip(VERDICTS, each, strict=True))
        for side, each in drawn.items()
    )
    rows = [(name, *(count(drawn[side][n]) for side in _SIDES)) for n, name in enumerate(VERDICTS)]
    return Chart(
        title,
        "The same proposals, each judged on what was known then.",
        [(side, side) for side in _SIDES],
        picture("sides", title, says, charts.paired_bars(VERDICTS, drawn, count)),
        Table(title, ("verdict", *_SIDES), rows),
    )


def _over_time(report: Mapping[str, Any]) -> Chart:
    """By day, or by week where there are many, what verdicts turn to."""
    days: dict[str, dict[str, Any]] = {}
    first, last = (date.fromisoformat(day) for day in _ends(report))
    for number in range((last - first).days + 1):
        day = (first + timedelta(days=number)).isoformat()
        days[day] = {"day": day, **dict.fromkeys(VERDICTS, 0)}
    for row in report["by_day"]:
        days[row["day"]][row["draft"]] += row["decisions"]
    series = list(days.values())
    periods = figures.periods(series)
    drawn = {verdict: [each.sums[verdict] for each in periods] for verdict in VERDICTS}
    title = f"What verdicts turn to, by {figures.unit(series)}"
    says = "; ".join(f"to {name} {count(sum(each))}" for name, each in drawn.items())
    labels = [each.label for each in periods]
    rows = [
        (label, *(count(drawn[name][n]) for name in VERDICTS)) for n, label in enumerate(labels)
    ]
    return Chart(
        title,
        "Trading days. Only decisions whose verdict turns, by the verdict under the draft.",
        [(verdict, verdict) for verdict in VERDICTS],
        picture("time", title, says, charts.stacked_bars(labels, drawn, count)),
        Table(title, (figures.unit(series), *VERDICTS), rows),
    )


def _ends(report: Mapping[str, Any]) -> tuple[str, str]:
    """The first and last trading day of the chart: a decision after midnight is of the day before."""
    days = [row["day"] for row in report["by_day"]]
    return min(report["from"], *days), max(report["to"], *days)


def _rule_totals(report: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in report["by_rule"]:
        name = f"{plain(row['recorded_rules'])} to {plain(row['draft_rules'])}"
        found[name] = found.get(name, 0) + row["decisions"]
    return found


def _ranked(name: str, title: str, totals: Mapping[str, int], what: str) -> Chart:
    """Sideways bars of the largest totals, the rest in one."""
    ordered = sorted(totals.items(), key=lambda each: (-each[1], each[0]))
    shown = [(plain(label), number) for label, number in ordered[:_MOST_BARS]]
    if rest := sum(number for _, number in ordered[_MOST_BARS:]):
        shown.append(("others", rest))
    labels, numbers = [label for label, _ in shown], [number for _, number in shown]
    says = "; ".join(f"{label} {count(number)}" for label, number in shown)
    draw = charts.sideways_bars(labels, {"plain": numbers}, count)
    return Chart(
        title,
        "Decisions whose verdict turns.",
        [],
        picture(name, title, says, draw, len(shown)),
        Table(title, (what, "decisions"), [(plain(label), count(n)) for label, n in ordered]),
    )


def _commands(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What to type next, and what it shows."""
    program, name = plain(report["command"]), shlex.quote(plain(report["draft"]))
    yield f"{program} policy diff in-force {name}", "what the draft says otherwise"
    for row in report["largest"][:1]:
        yield (
            f"{program} decisions explain {plain(row['decision_id'])}",
            "the largest decision that turns, as it was made",
        )
    yield f"{program} policy test FILE", "whether it holds its cases"
    yield f"{program} policy promote FILE", "put it in force, from its file"
