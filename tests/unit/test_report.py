from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep.backtest import figures, page, report
from storekeep.errors import Refused, StorekeepError
from tests.reports import (
    CASES,
    CHOSEN,
    Page,
    assert_asks_for_nothing,
    broken,
    every_case,
    hostile,
    sample,
    small,
)


@cache
def drawn(case: str) -> tuple[str, Page]:
    text = page.html(CASES[case]())
    return text, Page(text)


@every_case
def test_the_text_fits_eighty_columns_and_moves_no_cursor(case: str) -> None:
    content = CASES[case]()
    copied = {command for command, _ in figures.commands(content)}
    copied |= {figures.plain(name) for name in content["files"].values()}
    for line in report.as_text(content).splitlines():
        assert len(line) <= 80 or any(each in line for each in copied), line
        assert line == "" or line.isprintable()


def test_the_text_says_what_happened_with_real_ids() -> None:
    text = " ".join(report.as_text(sample()).split())
    for said in (
        "3,412 products from 60 suppliers",
        "unknown product 4,836",
        "turned away, kept aside with file, line and reason 19,307",
        "clip 1,156 6.9% lowered to a limit, then ordered",
        "clip by cover",
        "an order covers 14 days of demand at most",
        "721 purchase orders placed",
        "(transactions.parquet:1449982)",
        "ordered: 108 units (proposed 120), 231.12 USD",
        "recorded: equal",
        "29 approved, 2 denied",
        "156 units were on order",
        "14,332,871): found",
        f"storekeep decisions explain {CHOSEN}",
        f"storekeep decisions replay {CHOSEN}",
        f"storekeep decisions revert {CHOSEN}",
        "storekeep approvals list",
        "storekeep decisions verify",
        ".storekeep/demo/report.html",
        "simulated from seed 1; docs/assumptions.md says how",
        "stock, costs and deliveries are simulated",
    ):
        assert said in text


def test_a_rule_that_is_true_of_more_lines_than_it_turned_away_says_so() -> None:
    text = report.as_text(sample())
    assert re.search(r"\n    zero quantity \(it is true of 9,999\) +[\d,]+\n", text)
    content = sample()
    del content["events"]["matched"]
    assert "it is true of" not in report.as_text(content)


def test_what_is_worse_is_called_worse() -> None:
    content = sample()
    compared = {each.key: each for each in figures.figures(content)}
    assert (compared["stock_value"].better, compared["stock_value"].said) == (False, "worse")
    assert compared["fill_rate"].better is True
    assert compared["order_lines"].better is None
    content["kpi"]["agent"], content["kpi"]["baseline"] = (
        content["kpi"]["baseline"],
        content["kpi"]["agent"],
    )
    for each in figures.figures(content):
        assert each.better is (
            None if compared[each.key].better is None else not compared[each.key].better
        )
    text = report.as_text(content)
    assert re.search(r"fill rate .* -1\.7 points +worse", text)
    assert "worse in fill rate, units lost, stockout days" in " ".join(text.split())


def test_equal_figures_are_neither_better_nor_worse() -> None:
    content = sample()
    content["kpi"]["agent"] = {**content["kpi"]["baseline"]}
    compared = figures.figures(content)
    assert {each.better for each in compared} == {None}
    assert {each.difference for each in compared} == {"same"}
    assert "Agent and min/max come out the same." in report.as_text(content)


def test_what_failed_is_said_loudly() -> None:
    good, bad = (" ".join(report.as_text(each()).split()) for each in (sample, broken))
    for said in ("recorded: NOT EQUAL", "after: NOT RESTORED", "FAILED", "): NOT FOUND"):
        assert said in bad
        assert said not in good
    assert "✗ not" not in drawn("whole")[1].text
    for said in ("✗ not equal", "✗ not restored", "✗ does not agree", "✗ not found"):
        assert said in drawn("broken")[1].text


@every_case
def test_the_page_is_whole_and_asks_for_nothing(case: str) -> None:
    text, read = drawn(case)
    assert_asks_for_nothing(text, read)


@every_case
def test_every_chart_has_words_and_numbers_behind_it(case: str) -> None:
    text, read = drawn(case)
    pictures = [attributes for tag, attributes in read.tags if tag == "svg"]
    figures_drawn = text.count("<figure>")
    assert len(pictures) == 2 * figures_drawn == 2 * (3 if case == "nothing" else 6)
    assert text.count("The numbers</summary>") == figures_drawn
    for attributes in pictures:
        assert attributes["role"] == "img"
        for name in (attributes["aria-labelledby"] or "").split():
            assert re.search(rf'id="{name}">[^<]+<', text)


def test_hostile_texts_stay_texts() -> None:
    text, read = drawn("hostile")
    assert "<script" not in text
    assert "alert('x')" in read.text
    assert ">5 or $x^2$</text>" in text, "a dollar sign in a label of a chart is no formula"
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_same_report_makes_the_same_page(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    report.write_html(sample(), path)
    assert path.read_text(encoding="utf-8") == drawn("whole")[0]
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_charts_follow_the_theme_of_the_page() -> None:
    text, _ = drawn("whole")
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", picture)
    used = set(re.findall(r"var\(--(\w+)\)", text))
    known = set(re.findall(r"--(\w+): #", text))
    assert used <= known
    dark = text[text.index("prefers-color-scheme: dark") : text.index("* { box-sizing")]
    assert set(re.findall(r"--(\w+): #", dark)) == known


def test_a_run_without_days_has_no_charts_of_days() -> None:
    content = small()
    content["series"] = []
    text = page.html(content)
    assert "<svg" not in text
    assert "Nothing was turned away." in Page(text).text
    assert "None was made in this run." in report.as_text(content)


def test_a_page_without_the_packages_that_draw_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("storekeep.backtest.")]:
        if name.rpartition(".")[2] in {"page", "charts"}:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("storekeep.backtest.page", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(Refused, match=r"jinja2.*pip install 'storekeep\[demo\]'"):
        report.write_html(sample(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_the_text_draws_nothing() -> None:
    code = (
        "import json, sys; from storekeep.backtest import report; "
        "report.as_text(json.load(sys.stdin)); "
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(sample()),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_json_reads_back_with_its_keys_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    report.write_json(sample(), path)
    report.write_json(hostile(), path)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == hostile()
    assert text == json.dumps(hostile(), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert [each.name for each in path.parent.iterdir()] == ["report.json"]


def test_json_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report.write_json(sample(), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        report.write_json(sample() | {"seconds": math.nan}, path)
    assert path.read_bytes() == before
    blocked = path / "below"
    with pytest.raises(StorekeepError, match=r"report\.json"):
        report.write_json(sample(), blocked / "report.json")
    assert path.read_bytes() == before


@given(
    st.integers(1, 60),
    st.sampled_from([date(2024, 12, 30), date(2017, 10, 3), date(2024, 2, 27)]),
)
def test_weeks_lose_no_day(days: int, first: date) -> None:
    series = [
        {
            "day": (first + timedelta(days=n)).isoformat(),
            "demand_units": n + 1,
            "agent_lost_units": 1,
        }
        for n in range(days)
    ]
    weeks = figures.periods(series)
    assert sum(week.sums["demand_units"] for week in weeks) == days * (days + 1) // 2
    assert sum((week.last - week.first).days + 1 for week in weeks) == days
    assert weeks[0].first == first
    if figures.unit(series) == "week":
        assert all(week.first.weekday() == 0 for week in weeks[1:])
        assert all(week.last.weekday() == 6 for week in weeks[:-1])
    else:
        assert len(weeks) == days


@given(st.floats(0, 1))
def test_a_share_is_all_or_nothing_only_when_it_is(part: float) -> None:
    text = figures.share(part)
    assert (text == "100.0%") == (part == 1)
    assert (text == "0.0%") == (part == 0)


@given(
    st.integers(0, 3_000_000),
    st.integers(0, 3_000_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["USD", "JPY", "KWD"]),
)
def test_a_reader_who_subtracts_gets_the_difference(
    mine: int, other: int, served: float, rate: float, currency: str
) -> None:
    content = small() | {"currency": currency}
    content["kpi"]["agent"] |= {"stock_value": mine, "fill_rate": served}
    content["kpi"]["baseline"] |= {"stock_value": other, "fill_rate": rate}
    compared = {each.key: each for each in figures.figures(content)}
    for key in ("stock_value", "fill_rate"):
        each = compared[key]
        agent, baseline = (
            float(text.strip("<%").replace(",", "")) for text in (each.agent, each.baseline)
        )
        if each.difference == "same":
            assert (agent, each.better) == (baseline, None)
            continue
        assert float(each.difference.split()[0].replace(",", "")) == pytest.approx(agent - baseline)
        assert each.better == ((agent > baseline) == (key == "fill_rate"))


@pytest.mark.parametrize(
    ("minor", "currency", "said"),
    [(123_456, "USD", "1,234.56"), (123_456, "JPY", "123,456"), (-1_234, "KWD", "-1.234")],
)
def test_money_has_the_digits_of_its_currency(minor: int, currency: str, said: str) -> None:
    assert figures.amount(minor, currency) == said
