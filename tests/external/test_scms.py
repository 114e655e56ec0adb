"""USAID's deliveries (SCMS) by the mapping that ships: mangled dates repaired, lead times out of the lake."""

from __future__ import annotations

import csv
import json
import re
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storekeep.config import Settings
from storekeep.lake import DELIVERIES, newest
from storekeep.pipeline import opened
from storekeep.retail import DELIVERY
from tests.unit.test_cli import ask, told

FILE = Path(__file__).parents[3] / "shared" / "data" / "scms" / "SCMS_Delivery_History_Dataset.csv"
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not FILE.exists(), reason="../shared/data/scms is absent"),
]
LEAD_TIMES = f"""
    SELECT count(*) AS lines, median(days) AS median, avg(days) AS mean, min(days) AS shortest
    FROM (SELECT occurred_at::DATE - ordered_on AS days FROM ({newest(DELIVERY)}))
    WHERE days IS NOT NULL
"""


def ordered(said: str) -> date | None:
    """The day of ordering, read by hand."""
    if mangled := re.fullmatch(r"20(\d\d)-(\d\d)-(\d\d)", said):
        month, day, year = map(int, mangled.groups())
    elif usual := re.fullmatch(r"(\d+)/(\d+)/(\d\d)", said):
        month, day, year = map(int, usual.groups())
    else:
        return None
    return date(2000 + year, month, day)


def test_lead_times_are_what_they_were(
    home_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=home_settings.home, tenant=f"s{uuid4().hex[:12]}")
    monkeypatch.setenv("STOREKEEP_TENANT", settings.tenant)
    words = ("suppliers", FILE, "--mapping", "scms_deliveries", "--home", settings.home, "--json")
    totals = told(ask("ingest", *words))["totals"]
    assert totals == {
        "read": 10_324,
        "accepted": 10_319,
        "duplicates": 0,
        "rejected": {"delivered_before_ordered": 5},
        "ignored": {},
        "repaired": {"mangled_date": 1_711},
    }
    assert told(ask("ingest", *words))["totals"]["duplicates"] == 10_319
    (feed,) = told(ask("feeds", "--home", settings.home, "--json"))
    assert (feed["state"], feed["reasons"], len(feed["new_columns"])) == ("ok", [], 0)
    with FILE.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    mangled = [each for each in rows if each["PO Sent to Vendor Date"].startswith("20")]
    assert len(mangled) == 1_712
    with opened(settings) as pipeline:
        turned = [json.loads(each) for each in pipeline.aside()["raw"].to_pylist()]

        def query(sql: str) -> list[dict[str, Any]]:
            known = {"known_by": pipeline.now()}
            found = pipeline.lake.query(sql, tables={DELIVERY.name: DELIVERIES}, parameters=known)
            return list(found.to_pylist())

        (lead,) = query(LEAD_TIMES)
        kept = query(f"SELECT * FROM ({newest(DELIVERY)})")
    # One of the mangled ones is among the five.
    assert sum(each["PO Sent to Vendor Date"].startswith("20") for each in turned) == 1
    apart = {each["ID"] for each in turned}
    assert sum(each["value_minor"] for each in kept) == sum(
        round(float(each["Line Item Value"]) * 100) for each in rows if each["ID"] not in apart
    )
    assert {each["delivery_id"]: each["ordered_on"] for each in kept} == {
        each["ID"]: ordered(each["PO Sent to Vendor Date"])
        for each in rows
        if each["ID"] not in apart
    }
    assert (lead["lines"], lead["median"]) == (4_587, 92)
    assert 105 < lead["mean"] < 107
    assert lead["shortest"] >= 0
