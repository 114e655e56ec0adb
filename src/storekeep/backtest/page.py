"""The report as a page for the browser: what stands in it, in which words, with which charts.

Hides the template. Every text from outside is escaped by it; only the charts, which are made here, go in
as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import jinja2
from markupsafe import Markup

from storekeep.backtest import charts, figures
from storekeep.backtest.figures import (
    VERDICTS,
    Period,
    amount,
    count,
    counted,
    day_month,
    money,
    part,
    plain,
    share,
)
from storekeep.retail import minor_digits

_CARDS = ("fill_rate", "stockout_days", "stock_value", "cost")
_COSTS = {
    "holding_cost": "holding stock",
    "ordering_cost": "ordering",
    "lost_margin": "margin lost",
}
_MOST_REASONS = 8
_PAIR = ("agent", "baseline")


@dataclass(frozen=True)
class Table:
    """The numbers behind a chart: a caption, names of columns, and rows of text."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Chart:
    """A chart with its heading, what its colours mean, and the numbers behind it."""

    title: str
    note: str
    legend: Sequence[tuple[str, str]]
    picture: Markup
    table: Table


@dataclass(frozen=True)
class Stage:
    """A stage on the way from till line to delivery: its count, and what left the way there."""

    name: str
    count: int | None
    says: str
    left: str = ""
    parts: Sequence[tuple[str, int]] = ()


def html(report: Mapping[str, Any]) -> str:
    """The whole page. `report` as the demonstration makes it."""
    return rendered("report.html.j2", _content(report))


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A page of a template, every text in it escaped; it requests nothing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("storekeep.backtest"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "plain": plain}
    return environment.get_template(template).render(**content)


def _content(report: Mapping[str, Any]) -> dict[str, Any]:
    compared = figures.figures(report)
    rejected = figures.reasons(report["events"].get("rejected"))
    return {
        "report": report,
        "span": figures.span(report),
        "days": counted(report["days"], "day"),
        "products": counted(report["skus"], "product"),
        "suppliers": counted(report["suppliers"], "supplier"),
        "source": figures.source(report),
        "files": [plain(name) for name in part(report, "source")["files"] or []],
        "simulated": [plain(text) for text in report.get("simulated") or []],
        "baseline": figures.baseline_name(report),
        "cards": [each for each in compared if each.key in _CARDS],
        "compared": compared,
        "summary": figures.summary(report, compared),
        "flow": _flow(report),
        "supply_charts": list(_supply_charts(report)),
        "policy_chart": _verdict_chart(report),
        "verdicts": figures.verdicts(report),
        "rules": figures.loudest(report),
        "intake_chart": _rejected_chart(report, rejected),
        "intake": figures.intake(report),
        "repaired": figures.reasons(report["events"].get("repaired")),
        "beside": figures.beside(report),
        "explained": _sections(part(report, "explained")["text"] or ""),
        "replay": part(report, "replay"),
        "approval": _approval(report),
        "revert": part(report, "revert"),
        "verify": part(report, "verify"),
        "tamper": part(report, "tamper"),
        "commands": list(figures.commands(report)),
        "stages": sorted(part(report, "seconds_by_stage").items(), key=lambda each: -each[1]),
    }


def _flow(report: Mapping[str, Any]) -> list[Stage]:
    """The stages from till line to delivery."""
    events, decisions = report["events"], report["decisions"]
    rejected, held = figures.turned_away(report), decisions.get("hold", 0)
    judged = [(name, decisions.get(name, 0)) for name in VERDICTS if name != "hold"]
    total = sum(number for _, number in judged)
    lines = report["kpi"]["agent"].get("order_lines")
    of_lines = "" if lines is None else f", {counted(lines, 'line')}"
    return [
        Stage(
            "Till lines",
            events["read"],
            "read from the sales history",
            left=f"{count(rejected)} turned away" if rejected else "",
        ),
        Stage("Events", events["accepted"], "facts on the bus, each once"),
        Stage(
            "Proposals",
            total,
            "order lines the agent wants, each with its arithmetic",
            left=f"{count(held)} more held back, each with its reason" if held else "",
        ),
        Stage("Verdicts", total, "by the rulebook, with every rule that spoke", parts=judged),
        Stage("Purchase orders", report["purchase_orders"], f"placed in the back office{of_lines}"),
        Stage("Receipts", report.get("receipts"), "goods that arrived, as the back office says"),
    ]


def _sections(text: str) -> list[str]:
    """What blank lines part, so that the page may set it in two columns."""
    said = "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
    return [section for section in said.split("\n\n") if section.strip()]


def _approval(report: Mapping[str, Any]) -> dict[str, Any]:
    approval = part(report, "approval")
    return {
        **approval,
        "value": money(approval["money"], report["currency"]),
        "became": figures.reasons(approval["result"]),
    }


# Charts ---------------------------------------------------------------------------------------------


def _supply_charts(report: Mapping[str, Any]) -> Iterator[Chart]:
    series = report.get("series") or []
    if not series:
        return
    weeks = figures.periods(series)
    if any(week.sums["demand_units"] for week in weeks):
        yield _fill_rate(report, weeks)
        yield _lost_units(report, weeks)
    yield _stock_value(report, series)
    yield _cost(report)


def _pair_legend(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("agent", "agent"), ("baseline", f"baseline ({figures.baseline_name(report)})")]


def _when(week: Period) -> str:
    last = f"{day_month(week.last)} {week.last.year}"
    if week.first == week.last:
        return last
    same = week.first.month == week.last.month
    return f"{week.first.day if same else day_month(week.first)} to {last}"


def picture(name: str, title: str, says: str, draw: charts.Draw, rows: int | None = None) -> Markup:
    """A chart for the page, with its title and what it says for those who cannot see it."""
    drawn = charts.svg(name, plain(title), plain(says), draw, rows=rows)
    return Markup(drawn)  # noqa: S704 (made here; an XML writer escaped every word in it)


def _by_period(
    report: Mapping[str, Any], columns: Mapping[str, Sequence[str]], title: str
) -> Table:
    """The numbers behind a chart over time."""
    weeks = figures.periods(report["series"])
    when = [_when(week) for week in weeks]
    rows = list(zip(when, *columns.values(), strict=True))
    return Table(title, (figures.unit(report["series"]), *columns), rows)


def _fill_rate(report: Mapping[str, Any], weeks: Sequence[Period]) -> Chart:
    title = f"Fill rate by {figures.unit(report['series'])}"
    rates = {who: [week.fill_rate(who) for week in weeks] for who in _PAIR}
    says = "; ".join(
        f"{who} between {share(min(known))} and {share(max(known))}"
        for who, values in rates.items()
        if (known := [rate for rate in values if rate is not None])
    )
    draw = charts.lines([week.label for week in weeks], rates, share, dots=True, from_zero=False)
    columns = {
        "units asked for": [count(week.sums["demand_units"]) for week in weeks],
        **{who: [share(rate) for rate in values] for who, values in rates.items()},
    }
    return Chart(
        title,
        "Share of the units asked for that were on the shelf. The scale does not begin at zero.",
        _pair_legend(report),
        picture("fill", title, says, draw),
        _by_period(report, columns, title),
    )


def _lost_units(report: Mapping[str, Any], weeks: Sequence[Period]) -> Chart:
    title = f"Units lost by {figures.unit(report['series'])}"
    lost = {who: [week.sums[f"{who}_lost_units"] for week in weeks] for who in _PAIR}
    says = "; ".join(f"{who} {count(sum(values))} in all" for who, values in lost.items())
    draw = charts.paired_bars([week.label for week in weeks], lost, count)
    return Chart(
        title,
        "Asked for while the shelf was empty; a lost unit is not sold later.",
        _pair_legend(report),
        picture("lost", title, says, draw),
        _by_period(report, {who: [count(n) for n in lost[who]] for who in _PAIR}, title),
    )


def _stock_value(report: Mapping[str, Any], series: Sequence[Mapping[str, Any]]) -> Chart:
    currency = report["currency"]
    days = [date.fromisoformat(row["day"]) for row in series]
    values = {who: [row[f"{who}_stock_value"] for row in series] for who in _PAIR}
    whole = max(max(each) for each in values.values()) >= 100 * 10 ** minor_digits(currency)
    says = "; ".join(
        f"{who} from {amount(each[0], currency)} on the first day to {amount(each[-1], currency)} "
        "on the last"
        for who, each in values.items()
    )
    draw = charts.lines(
        [day_month(day) for day in days],
        values,
        lambda minor: amount(minor, currency, whole=whole),
    )
    title = f"Stock value by day, {plain(currency)}"
    return Chart(
        title,
        "At cost, at the end of the day. Stock ties up money; simulated.",
        _pair_legend(report),
        picture("stock", title, says, draw),
        Table(
            title,
            ("day", *_PAIR),
            [
                (
                    f"{day_month(day)} {day.year}",
                    *(amount(values[who][n], currency) for who in _PAIR),
                )
                for n, day in enumerate(days)
            ],
        ),
    )


def _cost(report: Mapping[str, Any]) -> Chart:
    currency, whole = report["currency"], figures.whole_amounts(report)
    costs = {who: [report["kpi"][who][key] for key in _COSTS] for who in _PAIR}
    labels = list(_COSTS.values())
    title = f"What it cost, {plain(currency)}"
    says = "; ".join(
        f"{who}: "
        + ", ".join(
            f"{label} {amount(minor, currency, whole=whole)}"
            for label, minor in zip(labels, costs[who], strict=True)
        )
        for who in _PAIR
    )
    draw = charts.sideways_bars(labels, costs, lambda minor: amount(minor, currency, whole=whole))
    rows = [
        (label, *(amount(costs[who][n], currency, whole=whole) for who in _PAIR))
        for n, label in enumerate(labels)
    ]
    total = [amount(report["kpi"][who]["cost"], currency, whole=whole) for who in _PAIR]
    return Chart(
        title,
        "The three parts of the cost. Rates and prices are simulated.",
        _pair_legend(report),
        picture("cost", title, says, draw, 5),
        Table(title, ("part", *_PAIR), [*rows, ("cost", *total)]),
    )


def _verdict_chart(report: Mapping[str, Any]) -> Chart | None:
    series = report.get("series") or []
    if not series:
        return None
    weeks = figures.periods(series)
    verdicts = {verdict: [week.sums[verdict] for week in weeks] for verdict in VERDICTS}
    title = f"Decisions by {figures.unit(series)}"
    says = "; ".join(f"{verdict} {count(sum(each))} in all" for verdict, each in verdicts.items())
    draw = charts.stacked_bars([week.label for week in weeks], verdicts, count)
    columns = {verdict: [count(n) for n in each] for verdict, each in verdicts.items()}
    return Chart(
        title,
        "What became of each thing the agent looked at and spoke on.",
        [(verdict, verdict) for verdict in VERDICTS],
        picture("verdicts", title, says, draw),
        _by_period(report, columns, title),
    )


def _rejected_chart(report: Mapping[str, Any], rejected: Sequence[tuple[str, int]]) -> Chart | None:
    if not rejected:
        return None
    shown = list(rejected[:_MOST_REASONS])
    if rest := sum(number for _, number in rejected[_MOST_REASONS:]):
        shown.append(("other reasons", rest))
    labels, numbers = [name for name, _ in shown], [number for _, number in shown]
    title = "Lines turned away, by reason"
    says = "; ".join(f"{name} {count(number)}" for name, number in shown)
    read = report["events"]["read"]
    return Chart(
        title,
        "Kept aside, so that they can be taken in once what is wrong with them is mended.",
        [],
        picture(
            "rejected",
            title,
            says,
            charts.sideways_bars(labels, {"plain": numbers}, count),
            len(shown),
        ),
        Table(
            title,
            ("reason", "lines", "of all lines read"),
            [(name, count(n), share(n / read, 2) if read else "") for name, n in rejected],
        ),
    )
