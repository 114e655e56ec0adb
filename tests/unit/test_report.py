from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from datetime import date, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep.backtest import figures, page, report
from storekeep.errors import Refused, StorekeepError

VERDICTS = ("allow", "clip", "escalate", "deny", "hold")
SIMULATED = (
    "suppliers, costs, prices paid, lead times, stock and the buyer are simulated from seed 1; "
    "docs/assumptions.md says how"
)
CHOSEN = "019b2f10-8c40-7a51-9d0e-4f2a6b7c8d91"
EXPLAINED = f"""\
Decision {CHOSEN}: executed
  PlacePurchaseOrder for 1029743@DC1, by agent replenish (version 7d0f3b8a), at 2017-12-22T04:59:59.000000Z

Till lines of the last 13 weeks: 1284 lines, 1391 units, 4,105.88 USD, 2017-09-22 to 2017-12-21
  2017-12-21T23:12 store 367 basket 41354091829: 1 for 2.99 USD  (transactions.parquet:1449982)
  2017-12-21T22:47 store 406 basket 41354091411: 2 for 5.98 USD  (transactions.parquet:1449871)
  2017-12-21T21:30 store 367 basket 41354090027: 1 for 2.99 USD  (transactions.parquet:1449310)

Evidence (digest 3fd1c0a95b7e2d44, read at log position 1843, lake {{"sale_line": 96, "terms": 1}}):
  subject: 1029743@DC1
  sku: 1029743
  location_id: DC1
  supplier_id: simulated supplier 07
  on_hand_units: 61
  on_order_units: 48
  committed_units: 0
  demand_mean_28d: 16.3214
  demand_mean_91d: 15.2857
  demand_sd_91d: 5.1182
  lead_time_mean_days: 4.5
  lead_time_sd_days: 1.1
  unit_cost_minor: 214
  pack_size_units: 12
  days_since_sale: unknown

Arithmetic:
  demand_units_per_day: 15.803571
  interval_days: 11.5
  interval_demand_units: 181.741071
  safety_stock_units: 47.258929
  service_level: 0.97
  order_up_to_units: 229
  inventory_position_units: 109
  needed_units: 120
  ordered: 108 units (proposed 120), 231.12 USD

Rulebook replenish version 5be1d2f0a3c4: clip
  clip by cover: an order covers 14 days of demand at most
  permit by routine: a usual order of an item with fresh features

What became of it:
  clip, at 2017-12-22T04:59:59.000000Z  (ledger batch 412)
  executed, at 2017-12-22T04:59:59.000000Z, back_office PO-000688  (ledger batch 413)

Proof: entry 57 of ledger batch 412, leaf 9c1e55d20b7f3a68, 9 siblings to root 27aa0c4de3b19f05, chain e1\
"""


def sample_series(days: int) -> list[dict[str, Any]]:
    """Days of a made-up shop, with a weekly rhythm and orders from Monday to Friday."""
    out = []
    for number in range(days):
        day = date(2017, 10, 3) + timedelta(days=number)
        wave = 1 + 0.16 * math.sin(number * 2 * math.pi / 7) + 0.1 * math.sin(number / 11)
        asked, working = round(2860 * wave), day.weekday() < 5
        warm = min(1.0, number / 20)
        out.append(
            {
                "day": day.isoformat(),
                "demand_units": asked,
                "lines": round(asked * 0.82),
                "agent_lost_units": round(asked * (0.012 + 0.011 * (1 + math.sin(number / 5)))),
                "baseline_lost_units": round(asked * (0.022 + 0.016 * (1 + math.sin(number / 6)))),
                "agent_stock_value": round(5_400_000 + warm * 2_300_000 * wave),
                "baseline_stock_value": round(5_400_000 + warm * 1_560_000 * wave),
                "allow": round(196 * wave) if working else 0,
                "clip": round(17 * wave) if working else 0,
                "escalate": 4 + number % 5 if working else 0,
                "deny": 2 + number % 3 if working else 0,
                "hold": 21 + number % 9 if working else 0,
                "order_value": round(610_000 * wave) if working else 0,
            }
        )
    return out


def sample_kpi(series: list[dict[str, Any]], who: str) -> dict[str, Any]:
    asked = sum(row["demand_units"] for row in series)
    lost = sum(row[f"{who}_lost_units"] for row in series)
    value = sum(row[f"{who}_stock_value"] for row in series) // len(series)
    holding = round(value * len(series) * 0.25 / 365)
    orders = 8 * len(series)
    lines = sum(row["allow"] + row["clip"] for row in series) + (0 if who == "agent" else 911)
    ordering = 500 * orders + 5 * lines
    return {
        "fill_rate": 1 - lost / asked,
        "stockout_days": round(lost * 1.01),
        "stock_value": value,
        "cost": holding + ordering + 49 * lost,
        "holding_cost": holding,
        "ordering_cost": ordering,
        "lost_margin": 49 * lost,
        "lost_units": lost,
        "purchase_orders": orders,
        "order_lines": lines,
        "turns": 5.3 if who == "agent" else 6.1,
    }


def sample(days: int = 90) -> dict[str, Any]:
    """A report as the demonstration makes one, with numbers that nobody measured."""
    series = sample_series(days)
    rejected = {
        "zero_quantity": 8869,
        "unknown_product": 4836,
        "coupon_line": 3912,
        "fuel_sold_by_volume": 1690,
    }
    decisions = {name: sum(row[name] for row in series) for name in VERDICTS}
    return {
        "source": {
            "name": "Sample",
            "publisher": "nobody",
            "note": "numbers made up to try the report",
            "files": ["transactions.parquet"],
        },
        "simulated": [SIMULATED],
        "tenant": "main",
        "location": "DC1",
        "currency": "USD",
        "from": series[0]["day"],
        "to": series[-1]["day"],
        "days": days,
        "seed": 1,
        "skus": 3412,
        "suppliers": 60,
        "events": {
            "read": 1_469_307,
            "accepted": 1_450_000,
            "rejected": rejected,
            "repaired": {"clock_rolls_over_at_05_00": 20_114, "category_missing": 731},
            "duplicates": 0,
        },
        "beside": {
            "product": {"read": 92_331, "kept": 92_331, "repaired": {"without_category": 540}},
            "promotion": {"read": 20_940_529, "kept": 1_184_798, "repaired": {}},
        },
        "decisions": decisions,
        "rules": [
            sample_rule(
                "routine", "permit", decisions["allow"], "a usual order with fresh features"
            ),
            sample_rule(
                "cover", "clip", decisions["clip"], "an order covers 14 days of demand at most"
            ),
            sample_rule(
                "order-value",
                "escalate",
                decisions["escalate"],
                "an order of more than 1,500 dollars goes to a buyer, who has two days to answer",
            ),
            sample_rule(
                "budget", "forbid", decisions["deny"], "the supplier's budget of the week is used"
            ),
        ],
        "purchase_orders": 721,
        "kpi": {
            "agent": sample_kpi(series, "agent"),
            "baseline": {**sample_kpi(series, "baseline"), "name": "min/max"},
        },
        "series": series,
        "explained": {"decision_id": CHOSEN, "text": EXPLAINED},
        "replay": {
            "decision_id": CHOSEN,
            "identical": True,
            "recorded_digest": "5c" * 32,
            "replayed_digest": "5c" * 32,
            "decisions_in_run": 271,
        },
        "approval": {
            "decision_id": "019b2f10-8c40-7a51-9d0e-000000000002",
            "order_group": "simulated supplier 12/DC1/2017-12-28",
            "lines": 31,
            "result": {"approved": 29, "denied": 2},
            "money": 187_355,
            "purchase_order": "PO-000720",
        },
        "revert": {
            "purchase_order": "PO-000719",
            "plan": [
                {
                    "decision_id": f"019b2f10-8c40-7a51-9d0e-0000000001{number:02}",
                    "subject": f"{1029743 + 77 * number}@DC1",
                    "what": "compensate",
                    "why": "the line of PO-000719 is cancelled",
                    "units": 12,
                }
                for number in range(9)
            ],
            "on_order_before": 156,
            "on_order_after": 48,
            "restored": True,
        },
        "verify": {"ok": True, "batches": 912, "entries": 41_733, "head": "e1" * 32},
        "tamper": {
            "found": True,
            "line": 20_871,
            "problems": [{"where": "batch 466", "what": "its entries do not hash to its root"}],
            "byte": 14_332_871,
        },
        "seconds": 141.3,
        "seconds_by_stage": {
            "take in the history": 31.4,
            "decide and record": 44.0,
            "features": 29.7,
        },
        "peak_rss_mib": 1810,
        "files": {"html": ".storekeep/demo/report.html", "json": ".storekeep/demo/report.json"},
    }


def sample_rule(name: str, effect: str, times: int, reason: str) -> dict[str, Any]:
    return {"rule": name, "effect": effect, "times": times, "reason": reason}


def small() -> dict[str, Any]:
    """A run of two days in which nothing was decided and nothing turned away."""
    out = sample(2)
    out["events"] |= {"rejected": {}, "repaired": {}}
    out["decisions"] = dict.fromkeys(VERDICTS, 0)
    out |= {"rules": [], "purchase_orders": 0, "explained": None, "replay": {"identical": None}}
    out |= {"approval": None, "revert": None, "beside": {}}
    for who in ("agent", "baseline"):
        out["kpi"][who] |= {"turns": None, "fill_rate": 1.0, "lost_units": 0, "stockout_days": 0}
    for row in out["series"]:
        row.update(dict.fromkeys((*VERDICTS, "demand_units"), 0))
        row.update(dict.fromkeys(("agent_lost_units", "baseline_lost_units"), 0))
    return out


HOSTILE = "<script>alert('x')</script>\" onload=\"y $\\frac{1}{2}$ \x1b[2J\u202eb\n& </svg></style>"


def hostile() -> dict[str, Any]:
    """A report in which every text that comes from outside tries to be something else."""
    out = sample(28)
    out["source"] = dict.fromkeys(("name", "publisher", "note"), HOSTILE) | {"files": [HOSTILE]}
    out |= {"simulated": [HOSTILE], "tenant": HOSTILE, "location": HOSTILE, "command": HOSTILE}
    out["events"] |= {"rejected": {HOSTILE: 3, "5 or $x^2$": 5}, "repaired": {HOSTILE: 1}}
    out["beside"] = {HOSTILE: {"read": 2, "kept": 1, "repaired": {HOSTILE: 1}}}
    out["rules"] = [{"rule": HOSTILE, "effect": HOSTILE, "reason": HOSTILE, "times": 3}]
    out["kpi"]["baseline"]["name"] = HOSTILE
    out["explained"] = {"decision_id": HOSTILE, "text": f"{HOSTILE}\n\n{HOSTILE}\n  {HOSTILE}"}
    out["replay"] |= {"recorded_digest": HOSTILE, "replayed_digest": HOSTILE}
    out["approval"] |= {"order_group": HOSTILE, "purchase_order": HOSTILE, "result": {HOSTILE: 1}}
    step = dict.fromkeys(("decision_id", "subject", "what", "why"), HOSTILE) | {"units": 1}
    out["revert"] |= {"purchase_order": HOSTILE, "plan": [step]}
    out["verify"]["head"] = HOSTILE
    out["tamper"]["problems"] = [{"where": HOSTILE, "what": HOSTILE}]
    out["seconds_by_stage"] = {HOSTILE: 1.0}
    out["files"] = {"html": HOSTILE, "json": HOSTILE}
    return out


class Page(HTMLParser):
    """What a page is made of: its tags with their attributes, its words, and whether tags match."""

    VOID = frozenset(("meta", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes what is not open"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def broken() -> dict[str, Any]:
    """A report of a run in which nothing held that should."""
    out = sample()
    out["replay"]["identical"] = False
    out["revert"]["restored"] = False
    out["verify"]["ok"] = False
    out["tamper"]["found"] = False
    return out


def partial() -> dict[str, Any]:
    """A report whose parts lack what they may lack."""
    out = sample(9)
    out["explained"] = {"text": None}
    out["replay"] = {"identical": True}
    out["approval"] = {"order_group": "S/DC1/2017-10-09", "decision_id": None}
    out["revert"] = {"purchase_order": None, "plan": []}
    out["verify"], out["tamper"] = {"ok": True}, {"found": True}
    out["source"], out["files"] = {"name": "sales.csv"}, {}
    del (
        out["peak_rss_mib"],
        out["seconds_by_stage"],
        out["simulated"],
        out["beside"],
        out["events"]["duplicates"],
    )
    return out


CASES = {
    "whole": sample,
    "days": lambda: sample(21),
    "nothing": small,
    "partial": partial,
    "broken": broken,
    "hostile": hostile,
}
every_case = pytest.mark.parametrize("case", CASES)


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
    names = {tag for tag, _ in read.tags}
    assert not names & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
        "image",
    }
    ids = [attributes["id"] for _, attributes in read.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    for _, attributes in read.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert "src" not in attributes
        target = attributes.get("href")
        assert target is None or (target.startswith("#") and target[1:] in ids)
    styles = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{name}" for name in ids}


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
