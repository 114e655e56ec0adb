"""The demonstration's report, as a text for the terminal, a page for the browser and a file for programs.

Hides layout. What the figures mean and how they are worded is in `figures`; the page is made by `page`,
which is loaded only when one is written, since it draws charts.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storekeep.backtest import figures
from storekeep.backtest.figures import count, counted, money, part, plain
from storekeep.errors import Refused
from storekeep.servers.home import speaking, write

WIDTH = 80
_MOST_RULES = 5
_MOST_STEPS = 3
_MOST_PROBLEMS = 2
_MOST_LINES_OF_A_SECTION = 6
# A reader of the short form is served by minutes.
_SECONDS = re.compile(r"(\d)T(\d\d:\d\d):\d\d\.\d{6}Z")


def as_text(report: Mapping[str, Any]) -> str:
    """What a newcomer reads when the demonstration ends: 80 columns, plain letters.

    `report` as the demonstration makes it; amounts in minor units of its currency. Commands and paths are
    never cut, so that they can be copied; nothing else is longer than a line.
    """
    lines: list[str] = []
    for section in (_opening, _taken_in, _decided, _explained, _answered, _compared, _next):
        lines += [*section(report), ""]
    return "\n".join(line.rstrip() for line in lines[:-1])


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write the report for programs: whole or not at all, keys in order.

    Raises what the disk says as `Refused` or `Transient`, with what to do.
    """
    text = json.dumps(report, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_html(report: Mapping[str, Any], path: Path) -> None:
    """Write the report as one page that needs nothing else: no script, no request, charts inside.

    Raises `Refused` where the packages that draw are not installed, and what the disk says as `Refused` or
    `Transient`, with what to do.
    """
    with drawing():
        # Drawing needs packages that not every installation has, and takes a second to load.
        from storekeep.backtest import page  # noqa: PLC0415 (loaded only when a page is wanted)

        text = page.html(report)
    write_text(path, text)


@contextmanager
def drawing() -> Iterator[None]:
    """Say how to install what draws, where it is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Refused(
            f"the page needs the package {error.name}; install it with: pip install 'storekeep[demo]'"
        ) from None


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all; its folder is made."""
    with speaking(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, text, 0o644)


def _heading(text: str) -> str:
    return f"-- {text} ".ljust(WIDTH, "-")


def _wrap(text: str, indent: str = "  ", hang: str = "  ") -> list[str]:
    return textwrap.wrap(
        plain(text), WIDTH, initial_indent=indent, subsequent_indent=hang, break_on_hyphens=False
    )


def _labelled(label: str, text: str) -> list[str]:
    return _wrap(text, f"  {label:<11}", " " * 13)


def _cut(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def _counts(rows: Sequence[tuple[str, int]]) -> Iterator[str]:
    for name, number in rows:
        yield f"    {_cut(name, 50):<50}{count(number):>14}"


def _opening(report: Mapping[str, Any]) -> Iterator[str]:
    days = counted(report["days"], "day")
    yield "=" * WIDTH
    yield _cut(f"STOREKEEP   {days} of a shop, {figures.span(report)}")
    yield "=" * WIDTH
    yield from _wrap(
        f"Tills reported what was sold. For {counted(report['skus'], 'product')} from "
        f"{counted(report['suppliers'], 'supplier')}, an agent proposed what to order at "
        f"{report['location']}, a rulebook judged every proposal, the back office placed the "
        "orders that passed, and one ledger kept all of it.",
        "",
        "",
    )
    yield ""
    yield from _labelled("Sales", figures.source(report))
    for text in report.get("simulated") or []:
        yield from _labelled("Simulated", text)


def _taken_in(report: Mapping[str, Any]) -> Iterator[str]:
    yield _heading("Taken in")
    for name, number in figures.intake(report):
        yield f"  {name:<52}{count(number):>14}"
    yield from _counts(figures.rejections(report))
    mended = figures.reasons(report["events"].get("repaired"))
    if mended:
        yield "  taken in after a declared rule mended them"
        yield from _counts(mended)
    also = figures.beside(report)
    if also:
        yield "  and beside the till lines, rows of"
    for each in also:
        yield from _counts([(each.name, each.read)])
        if each.note:
            yield from _wrap(each.note, " " * 6, " " * 6)


def _decided(report: Mapping[str, Any]) -> Iterator[str]:
    yield _heading("Decided")
    for verdict, number, of_all, meaning in figures.verdicts(report):
        yield f"  {verdict:<10}{count(number):>12}{of_all:>8}   {meaning}"
    rules = figures.loudest(report)
    if rules:
        yield "  The rules that spoke most:"
    for rule in rules[:_MOST_RULES]:
        yield _cut(
            f"    {count(rule['times']):>8}  {plain(rule['effect'])} by {plain(rule['rule'])}"
        )
        yield from _wrap(rule["reason"], " " * 14, " " * 14)
    yield f"  {counted(report['purchase_orders'], 'purchase order')} placed in the back office."


def _explained(report: Mapping[str, Any]) -> Iterator[str]:
    yield _heading("One decision, explained")
    text = part(report, "explained")["text"]
    if not text:
        yield "  None was made in this run."
        return
    for section in _SECONDS.sub(r"\1 \2 UTC", text).split("\n\n"):
        head, *rows = section.splitlines() or [""]
        yield from _wrap(head)
        yield from _condensed(rows)


def _condensed(rows: Sequence[str]) -> Iterator[str]:
    """The first rows of a section; many rows of `name: value` run on, so that twenty take five lines."""
    named = [row for row in rows if row.count(": ") == 1 and len(row) < 45]
    if len(named) > 3 and len(named) >= len(rows) - 1:
        blocks = [[line] for line in _wrap("; ".join(map(plain, rows)), "    ", "    ")]
    else:
        blocks = [_wrap(row, "    ", "      ") for row in rows]
    left = _MOST_LINES_OF_A_SECTION
    for block in blocks:
        if len(block) > left:
            yield f"    ... {counted(len(rows), 'line')} in all"
            return
        yield from block
        left -= len(block)


def _answered(report: Mapping[str, Any]) -> Iterator[str]:
    yield _heading("Answered for")
    yield from _replayed(part(report, "replay"))
    yield from _approved(report, part(report, "approval"))
    yield from _reverted(part(report, "revert"))
    verified = part(report, "verify")
    if verified["ok"] is not None:
        outcome = "every digest agrees" if verified["ok"] else "FAILED, it does not agree"
        yield from _labelled(
            "Verified",
            f"the ledger's {counted(verified['entries'], 'entry', 'entries')} in "
            f"{counted(verified['batches'], 'batch', 'batches')}, computed again: {outcome}; "
            f"head {plain(verified['head'] or 'none')[:16]}",
        )
    yield from _tampered(part(report, "tamper"))


def _replayed(replay: Mapping[str, Any]) -> Iterator[str]:
    if replay["identical"] is None:
        yield from _labelled("Replayed", "nothing, since nothing was decided")
        return
    same = "equal" if replay["identical"] else "NOT EQUAL"
    yield from _labelled(
        "Replayed",
        f"the run it was made in, {counted(replay['decisions_in_run'], 'decision')}, recomputed "
        f"from what was recorded: {same}",
    )
    for name in ("recorded", "replayed"):
        yield f"{'':13}{name} digest {plain(replay[f'{name}_digest'])[:40]}"


def _approved(report: Mapping[str, Any], approval: Mapping[str, Any]) -> Iterator[str]:
    if not approval["order_group"]:
        yield from _labelled("Approved", "nothing; no order waited for a person")
        return
    results = figures.reasons(approval["result"])
    became = ", ".join(f"{count(number)} {name}" for name, number in results)
    placed = f", placed as {approval['purchase_order']}" if approval["purchase_order"] else ""
    yield from _labelled(
        "Approved",
        f"order {approval['order_group']}, {counted(approval['lines'], 'line')} for "
        f"{money(approval['money'], report['currency'])}, judged again on fresh evidence: "
        f"{became or 'no line passed'}{placed}",
    )


def _reverted(revert: Mapping[str, Any]) -> Iterator[str]:
    plan = revert["plan"] or []
    if not plan:
        yield from _labelled("Reverted", "nothing; no order was open to be taken back")
        return
    restored = "restored" if revert["restored"] else "NOT RESTORED"
    yield from _labelled(
        "Reverted",
        f"{revert['purchase_order'] or 'an order'}, {counted(len(plan), 'line')}; of its products "
        f"{counted(revert['on_order_before'], 'unit')} were on order before, "
        f"{count(revert['on_order_after'])} after: {restored}. Its plan was:",
    )
    for each in plan[:_MOST_STEPS]:
        yield _cut(
            f"{'':13}{plain(each['what'])} {plain(each['subject'])}, "
            f"{counted(each['units'], 'unit')}: {plain(each['why'])}"
        )
    if len(plan) > _MOST_STEPS:
        yield f"{'':13}... {counted(len(plan) - _MOST_STEPS, 'more line', 'more lines')}"


def _tampered(tamper: Mapping[str, Any]) -> Iterator[str]:
    if tamper["found"] is None:
        return
    found = "found" if tamper["found"] else "NOT FOUND"
    yield from _labelled(
        "Planted",
        f"one byte changed in a copy of an export (line {count(tamper['line'])}, byte "
        f"{count(tamper['byte'])}): {found}",
    )
    for each in (tamper["problems"] or [])[:_MOST_PROBLEMS]:
        yield _cut(f"{'':13}{plain(each['where'])}: {plain(each['what'])}")


def _compared(report: Mapping[str, Any]) -> Iterator[str]:
    compared = figures.figures(report)
    name = _cut(figures.baseline_name(report), 12)
    yield _heading("How the shop fared, beside a plain rule")
    yield from _wrap(
        f"The same days and the same simulated lead times, once with the agent and once with {name}. "
        "Only what customers asked for comes from the sales history; stock, costs and deliveries are "
        f"simulated. Amounts in {report['currency']}.",
        "  ",
    )
    yield ""
    yield f"  {'':<20}{'agent':>12}{name:>13}   difference"
    for each in compared:
        label = f"  {each.name}" if each.part else each.name
        yield (
            f"  {label:<20}{each.agent:>12}{each.baseline:>13}   {each.difference:<22}{each.said}"
        )
    yield ""
    yield from _wrap(figures.summary(report, compared))
    yield "  How the rule is set, and what a better setting gives: docs/assumptions.md"


def _next(report: Mapping[str, Any]) -> Iterator[str]:
    yield _heading("Go on from here")
    for command, shows in figures.commands(report):
        yield f"  # {shows}"
        yield f"  {command}"
    files = part(report, "files")
    if any(files.values()):
        yield ""
    for kind, name in (("html", "The same with charts"), ("json", "For programs")):
        if files[kind]:
            yield f"  {name + ':':<22}{plain(files[kind])}"
    yield ""
    memory = report.get("peak_rss_mib")
    used = f", {count(memory)} MiB of memory at most" if memory else ""
    yield f"  {report['seconds']:,.1f} seconds, seed {report['seed']}{used}"
