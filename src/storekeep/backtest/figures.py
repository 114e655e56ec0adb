"""What every form of the report says alike: amounts, differences, weeks, verdicts, what to type next.

Hides how figures are rounded, compared and worded, so that the text and the page cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from storekeep.retail import minor_digits

_WHOLE_FROM = 10_000
SAME = "same"
_MOST_DAYS_SINGLY = 21
SUMMED = (
    "demand_units",
    "agent_lost_units",
    "baseline_lost_units",
    "lines",
    "allow",
    "clip",
    "escalate",
    "deny",
    "hold",
    "order_value",
)
VERDICTS: Mapping[str, str] = {
    "allow": "ordered as proposed",
    "clip": "lowered to a limit, then ordered",
    "escalate": "waits for a person's word",
    "deny": "refused, nothing ordered",
    "hold": "held back by the agent, nothing ordered",
}


@dataclass(frozen=True)
class Figure:
    """One figure of agent and baseline; `better` is None where neither more nor less is better."""

    key: str
    name: str
    agent: str
    baseline: str
    difference: str
    better: bool | None
    part: bool = False

    @property
    def said(self) -> str:
        """What the difference means, in a word; empty where it means nothing."""
        return "" if self.better is None else "better" if self.better else "worse"


@dataclass(frozen=True)
class Period:
    """A day, or a week from Monday to Sunday as far as it was played, with its sums."""

    first: date
    last: date
    sums: Mapping[str, int]

    @property
    def label(self) -> str:
        """The first day, as an axis or a table names it."""
        return day_month(self.first)

    def fill_rate(self, who: str) -> float | None:
        """Share of the units asked for that `who` served; None where nothing was asked for."""
        asked = self.sums["demand_units"]
        return 1 - self.sums[f"{who}_lost_units"] / asked if asked else None


def plain(value: object) -> str:
    """A text from outside on one line, without what could move a cursor or turn the reading direction."""
    spaced = "unknown" if value is None else " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in spaced)


def count(number: float | None) -> str:
    """A number of things."""
    return "unknown" if number is None else f"{number:,.0f}"


def counted(number: int | None, one: str, many: str | None = None) -> str:
    """A number with what it counts."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def share(part: float | None, digits: int = 1) -> str:
    """A share of one, in percent, never rounded up to all or down to nothing."""
    if part is None:
        return "unknown"
    text = f"{part:.{digits}%}"
    if part < 1 and text == f"{1:.{digits}%}":
        return f"{1 - 10.0 ** (-digits - 2):.{digits}%}"
    if part > 0 and text == f"{0:.{digits}%}":
        return f"<{10.0 ** (-digits - 2):.{digits}%}"
    return text


def amount(minor: float | None, currency: str, *, whole: bool = False) -> str:
    """Money without its currency code; `whole` leaves out the minor units."""
    if minor is None:
        return "unknown"
    digits = minor_digits(currency)
    return f"{minor / 10**digits:,.{0 if whole else digits}f}"


def money(minor: float | None, currency: str) -> str:
    """Money with its currency code."""
    return "unknown" if minor is None else f"{amount(minor, currency)} {plain(currency)}"


def day_month(day: date) -> str:
    """A day within a year that the reader knows."""
    return f"{day.day} {day:%b}"


def span(report: Mapping[str, Any]) -> str:
    """The period in words."""
    first, last = date.fromisoformat(report["from"]), date.fromisoformat(report["to"])
    if first == last:
        return f"{day_month(last)} {last.year}"
    year = f" {first.year}" if first.year != last.year else ""
    return f"{day_month(first)}{year} to {day_month(last)} {last.year}"


def source(report: Mapping[str, Any]) -> str:
    """Whose sales they are, and what is to be known about them."""
    named = part(report, "source")
    publisher = f" of {named['publisher']}" if named["publisher"] else ""
    note = f": {named['note']}" if named["note"] else ""
    return plain(f"{named['name'] or 'unnamed sales'}{publisher}{note}")


def whole_amounts(report: Mapping[str, Any]) -> bool:
    """Whether amounts of agent and baseline are so large that minor units only clutter."""
    most = max(report["kpi"][who][key] for who in ("agent", "baseline") for key in _AMOUNTS)
    return bool(most >= _WHOLE_FROM * 10 ** minor_digits(report["currency"]))


_PARTS: Mapping[str, Sequence[str]] = {
    "source": ("name", "publisher", "note", "files"),
    "explained": ("decision_id", "text"),
    "replay": (
        "decision_id",
        "identical",
        "recorded_digest",
        "replayed_digest",
        "decisions_in_run",
    ),
    "approval": ("order_group", "lines", "result", "money", "purchase_order"),
    "revert": ("purchase_order", "plan", "on_order_before", "on_order_after", "restored"),
    "verify": ("ok", "batches", "entries", "head"),
    "tamper": ("found", "line", "byte", "problems"),
    "files": ("html", "json"),
}
_AMOUNTS = ("stock_value", "cost", "holding_cost", "ordering_cost", "lost_margin")
# Figure, its name, whether more of it is better (None: neither), whether it is part of the one above.
_FIGURES: Sequence[tuple[str, str, bool | None, bool]] = (
    ("fill_rate", "fill rate", True, False),
    ("lost_units", "units lost", False, False),
    ("stockout_days", "stockout days", False, False),
    ("stock_value", "mean stock value", False, False),
    ("turns", "turns a year", True, False),
    ("cost", "cost", False, False),
    ("holding_cost", "holding stock", False, True),
    ("ordering_cost", "ordering", False, True),
    ("lost_margin", "margin lost", False, True),
    ("purchase_orders", "purchase orders", None, False),
    ("order_lines", "order lines", None, False),
)


def figures(report: Mapping[str, Any]) -> list[Figure]:
    """Each figure of the agent beside the baseline's, with the difference and whether it is for the better.

    Less stock for its value is counted as better, since stock ties up money; orders and order lines count
    neither way, since what they cost is in the cost of ordering.
    """
    agent, baseline = report["kpi"]["agent"], report["kpi"]["baseline"]
    out = []
    for key, name, more_is_better, part in _FIGURES:
        mine, other = agent.get(key), baseline.get(key)
        shown = [_value(report, key, each) for each in (mine, other)]
        difference = _difference(report, key, mine, other)
        better = None
        if more_is_better is not None and difference not in ("", SAME):
            better = (mine > other) == more_is_better
        out.append(Figure(key, name, shown[0], shown[1], difference, better, part))
    return out


def _value(report: Mapping[str, Any], key: str, value: float | None) -> str:
    if key == "fill_rate":
        return share(value)
    if key == "turns":
        return "none" if value is None else f"{value:,.1f}"
    if key in _AMOUNTS:
        return amount(value, report["currency"], whole=whole_amounts(report))
    return count(value)


def _difference(
    report: Mapping[str, Any], key: str, mine: float | None, other: float | None
) -> str:
    """The difference of the two figures as they are shown, so that a reader who subtracts gets it too."""
    if mine is None or other is None:
        return ""
    gap = _as_shown(_value(report, key, mine)) - _as_shown(_value(report, key, other))
    if not round(gap, 6):
        return SAME
    if key == "fill_rate":
        return f"{gap:+.1f} points"
    scale = 10 ** minor_digits(report["currency"]) if key in _AMOUNTS else 1
    relative = f" ({(mine - other) / other:+.1%})" if other else ""
    return f"{'-' if gap < 0 else '+'}{_value(report, key, round(abs(gap) * scale, 6))}{relative}"


def _as_shown(text: str) -> float:
    return float(text.strip("<%").replace(",", ""))


def summary(report: Mapping[str, Any], compared: Sequence[Figure]) -> str:
    """In which figures the agent did better and in which worse than the baseline."""
    better = ", ".join(each.name for each in compared if each.better is True)
    worse = ", ".join(each.name for each in compared if each.better is False)
    if not better and not worse:
        return f"Agent and {baseline_name(report)} come out the same."
    return (
        f"Against {baseline_name(report)} the agent does better in {better or 'nothing'}; "
        f"worse in {worse or 'nothing'}."
    )


def baseline_name(report: Mapping[str, Any]) -> str:
    """What the rule beside the agent is called."""
    return plain(report["kpi"]["baseline"].get("name") or "baseline")


def periods(series: Sequence[Mapping[str, Any]]) -> list[Period]:
    """The days played, singly when they are few, else in weeks that begin on Monday."""
    groups: dict[date, list[Mapping[str, Any]]] = {}
    for row in series:
        day = date.fromisoformat(row["day"])
        start = day if len(series) <= _MOST_DAYS_SINGLY else day - timedelta(days=day.weekday())
        groups.setdefault(start, []).append(row)
    return [
        Period(
            date.fromisoformat(rows[0]["day"]),
            date.fromisoformat(rows[-1]["day"]),
            {key: sum(int(row.get(key) or 0) for row in rows) for key in SUMMED},
        )
        for rows in groups.values()
    ]


def unit(series: Sequence[Mapping[str, Any]]) -> str:
    """Whether `periods` are days or weeks."""
    return "day" if len(series) <= _MOST_DAYS_SINGLY else "week"


def intake(report: Mapping[str, Any]) -> list[tuple[str, int]]:
    """How many till lines were read and what became of them, as far as the report says."""
    events = report["events"]
    rows = {
        "till lines read": events["read"],
        "became events": events["accepted"],
        "of days after the last one played, not taken in": events.get("later"),
        "known already, left out": events.get("duplicates"),
        "left out by a rule that keeps nothing of them": _all(events.get("ignored")),
        "turned away, kept aside with file, line and reason": turned_away(report),
    }
    return [(name, number) for name, number in rows.items() if number is not None]


def _all(counts: Mapping[str, int] | None) -> int | None:
    return sum(counts.values()) if counts else None


@dataclass(frozen=True)
class Beside:
    """A kind of rows that was taken in beside the till lines."""

    name: str
    read: int
    note: str


def beside(report: Mapping[str, Any]) -> list[Beside]:
    """What was taken in beside the till lines, and what is to be known about it."""
    found = []
    for name, rows in (report.get("beside") or {}).items():
        notes = [f"kept as {count(rows['kept'])}"] if rows["kept"] != rows["read"] else []
        notes += [f"{rule} {count(times)}, mended" for rule, times in reasons(rows["repaired"])]
        found.append(Beside(plain(name).replace("_", " "), rows["read"], "; ".join(notes)))
    return found


def turned_away(report: Mapping[str, Any]) -> int:
    """How many till lines were not taken in for a reason of their own."""
    return sum(number for _, number in reasons(report["events"].get("rejected")))


def verdicts(report: Mapping[str, Any]) -> list[tuple[str, int, str, str]]:
    """Each verdict with its number, its share of all, and what it means."""
    numbers = {verdict: report["decisions"].get(verdict) or 0 for verdict in VERDICTS}
    total = sum(numbers.values())
    return [
        (verdict, number, share(number / total) if total else "", VERDICTS[verdict])
        for verdict, number in numbers.items()
    ]


def reasons(counts: Mapping[str, int] | None) -> list[tuple[str, int]]:
    """Reasons in words with their counts, most frequent first."""
    rows = [(plain(name).replace("_", " "), number) for name, number in (counts or {}).items()]
    return sorted((row for row in rows if row[1]), key=lambda row: (-row[1], row[0]))


def rejections(report: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Why lines were turned away, most frequent first: each line once, by the first rule that spoke of it.

    A rule that spoke of more lines than it is counted for says of how many.
    """
    events = report["events"]
    rejected, matched = events.get("rejected") or {}, events.get("matched") or {}
    named = {
        f"{rule} (it is true of {count(matched[rule])})"
        if matched.get(rule, 0) > many
        else rule: many
        for rule, many in rejected.items()
    }
    return reasons(named)


def loudest(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rules that spoke, most often first."""
    return sorted(report.get("rules") or [], key=lambda rule: (-rule["times"], rule["rule"]))


def commands(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What to type next, with real ids, and what it shows."""
    program = plain(report.get("command") or "storekeep")
    known = part(report, "explained")["decision_id"] or part(report, "replay")["decision_id"]
    if known:
        yield f"{program} decisions explain {plain(known)}", "the decision above, in full"
        yield f"{program} decisions replay {plain(known)}", "the same, recomputed and compared"
        yield f"{program} decisions revert {plain(known)}", "take it back; its plan comes first"
    yield f"{program} decisions list", "the newest decisions, with their ids"
    yield f"{program} approvals list", "what waits for a person"
    yield f"{program} decisions verify", "the whole ledger, computed again"


def part(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of the report, with None for whatever a small run has not."""
    return {**dict.fromkeys(_PARTS.get(name, ())), **(report.get(name) or {})}
