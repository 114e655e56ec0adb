"""Reports of demonstrations, whole and odd, for the tests of what is shown of them."""

from __future__ import annotations

import math
import re
from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

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
            "matched": {**rejected, "zero_quantity": 9_999},
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


# A draft of a rulebook --------------------------------------------------------------------------------


def draft(days: int = 40) -> dict[str, Any]:
    """A report on a draft as the backtest makes one, with numbers that nobody measured."""
    turns = [
        ("allow", "escalate", "EUR", 1200, 9_800_000, 9_800_000, "routine", "large-order"),
        ("escalate", "clip", "EUR", 310, 2_400_000, 1_900_000, "large-order, first-order", "cover"),
        ("deny", "allow", "USD", 17, 88_000, 88_000, "stale-evidence", "routine"),
    ]
    names = (
        *("recorded", "draft", "currency", "decisions"),
        *("recorded_money_minor", "draft_money_minor", "recorded_rules", "draft_rules"),
    )
    rows = [dict(zip(names, row, strict=True)) for row in turns]
    places = [
        {**row, "location_id": f"store {number}"} for row in rows for number in range(1, 1 + days)
    ]
    kept = {"recorded": "allow", "draft": "allow", "currency": "EUR", "decisions": 81_000}
    kept |= {"recorded_money_minor": 730_000_000, "draft_money_minor": 730_000_000}
    first = date(2017, 12, 19)
    return {
        "rulebook": "replenish",
        "draft_version": "546fc519d73f" * 5,
        "tenant": "main",
        "from": first.isoformat(),
        "to": (first + timedelta(days=days - 1)).isoformat(),
        "time_zone": "UTC",
        "runs": 13,
        "decisions": 82_527,
        "held": 17,
        "flips": 1527,
        "stricter": 1200,
        "looser": 327,
        "decisions_of_other_agent_versions": 12,
        "recorded_versions": {"09c4cb28fc34" * 5: 80_000, "a1b2c3d4e5f6" * 5: 2_527},
        "matrix": [kept, *rows],
        "same_verdict_other_money": [{**kept, "recorded": "clip", "draft_money_minor": 1}],
        "by_location": places,
        "by_rule": rows,
        "by_day": [
            {**row, "day": (first + timedelta(days=number)).isoformat()}
            for row in rows
            for number in range(0, days, 3)
        ],
        "largest": [
            {**rows[number % 3], "decision_id": CHOSEN, "day": first.isoformat()}
            | {"subject": f"{number}@DC1", "location_id": "DC1", "decided_at": "2017-12-19"}
            for number in range(30)
        ],
        "draft": "draft.yaml",
        "command": "storekeep",
    }


def draft_alike() -> dict[str, Any]:
    """A report on a draft that turns nothing."""
    out = draft(3)
    empty = ("same_verdict_other_money", "by_location", "by_rule", "by_day", "largest")
    out |= {"flips": 0, "stricter": 0, "looser": 0, "held": 0, **{name: [] for name in empty}}
    return {**out, "matrix": out["matrix"][:1], "decisions_of_other_agent_versions": 0}


def draft_hostile() -> dict[str, Any]:
    """A report on a draft in which every text that comes from outside tries to be something else."""
    out = draft(9)
    names = ("recorded_rules", "draft_rules", "location_id", "subject", "decision_id")
    for key in ("by_rule", "by_location", "largest"):
        out[key] = [{**row, **{name: HOSTILE for name in names if name in row}} for row in out[key]]
    return out | dict.fromkeys(("rulebook", "tenant", "time_zone", "draft", "command"), HOSTILE)


DRAFTS = {"draft": draft, "draft alike": draft_alike, "draft hostile": draft_hostile}
every_draft = pytest.mark.parametrize("case", DRAFTS)


# What a page is made of -------------------------------------------------------------------------------


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


def assert_asks_for_nothing(text: str, read: Page) -> None:
    """A page has no script, no picture from elsewhere and no link that leads nowhere."""
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
