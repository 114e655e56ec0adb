"""A Monday in a corner shop: what the tills wrote goes in, the decisions of `expected.yaml` come out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from storekeep import ledger
from storekeep.config import Settings
from storekeep.decisions import Selection
from tests.golden.corner_shop import BUYER, HERE, MONDAY, Day, berlin, opened_day

EXPECTED: dict[str, Any] = YAML(typ="safe").load((HERE / "expected.yaml").read_text())


@pytest.fixture(scope="module")
def day(home_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    copy = tmp_path_factory.mktemp("tills") / "again.csv"
    copy.write_bytes((HERE / "monday.csv").read_bytes())
    with opened_day(home_settings, "golden_monday") as opened:
        opened.evening(copy)
        yield opened


def test_the_lines_are_taken_in_once(day: Day) -> None:
    said = EXPECTED["taken_in"]
    assert day.taken["until-sunday.csv"] == (said["until-sunday.csv"], 0)
    assert day.taken["monday.csv"] == (said["monday.csv"]["new"], said["monday.csv"]["known"])
    assert day.taken["again.csv"] == (said["again"]["new"], said["again"]["known"])


def test_what_is_no_line_is_turned_away_with_its_place_and_reason(day: Day) -> None:
    rows = pa.concat_tables([each.rejected for each in day.loaded]).to_pylist()
    found = [
        {"line": row["source_line"], "column": row["column"], "rule": row["rule"]} for row in rows
    ]
    assert found == [{"column": None, **each} for each in EXPECTED["turned_away"]]
    assert all(row["source_file"].endswith("monday.csv") and row["reason"] for row in rows)
    ignored = {rule: many for each in day.loaded for rule, many in each.ignored.items()}
    assert ignored == EXPECTED["ignored"]


def recorded(day: Day) -> dict[str, dict[str, Any]]:
    with day.pipeline.store.transaction(day.pipeline.tenant) as tx:
        rows = tx.decisions(Selection())
        steps = ledger.steps(tx, [row["decision_id"] for row in rows])
    return {row["subject"].partition("@")[0]: steps[row["decision_id"]][0] for row in rows}


def test_each_item_is_decided_on_as_worked_out_by_hand(day: Day) -> None:
    decisions = recorded(day)
    assert set(decisions) == set(EXPECTED["decisions"])
    for sku, want in EXPECTED["decisions"].items():
        got = decisions[sku]
        assert got["step"] == want["verdict"], sku
        if want["verdict"] == "hold":
            assert got["reason"] == want["reason"], sku
            continue
        assert got["parameters"]["order_units"] == want["units"], sku
        assert got["proposed"]["order_units"] == want.get("proposed", want["units"]), sku
        assert got["money_minor"] == want["value"], sku
        assert got["currency"] == "EUR"
        assert got["role"] == want.get("role"), sku
        assert got["evidence"]["demand_mean_91d"] == want["demand"], sku
        assert got["evidence"]["on_hand_units"] == want["on_hand"], sku
        assert got["evidence"]["history_days"] == want.get("history_days", 43), sku


def test_the_run_counts_its_verdicts(day: Day) -> None:
    assert day.run is not None
    verdicts = [each["verdict"] for each in EXPECTED["decisions"].values()]
    counts = {name: verdicts.count(name) for name in ("allow", "clip", "escalate", "deny", "hold")}
    assert dict(day.run.verdicts) == counts
    assert day.run.evaluated == len(EXPECTED["stock_at_night"])


def test_goods_are_ordered_once_and_the_buyer_is_asked(day: Day) -> None:
    assert day.stock() == EXPECTED["stock_at_night"]
    assert day.orders() == EXPECTED["orders_at_night"]
    assert day.going() == EXPECTED["committed_value"]["at_night"]
    with day.pipeline.store.transaction(day.pipeline.tenant) as tx:
        waiting = tx.approvals()
    assert [row["subject"].partition("@")[0] for row in waiting] == EXPECTED["waiting"]
    day.clock.now = berlin(MONDAY + timedelta(days=1), 8)
    ids = [row["decision_id"] for row in waiting]
    assert day.pipeline.approve(ids, BUYER) == dict.fromkeys(ids, "approved")
    day.pipeline.act()
    day.pipeline.move_stock()
    assert day.orders() == EXPECTED["orders_on_tuesday"]
    assert day.going() == EXPECTED["committed_value"]["with_saffron"]
    assert day.stock()["saffron"] == [3, 15, 0, 0]


def test_the_day_replays_and_verifies(day: Day) -> None:
    first = recorded(day)["flour"]["decision_id"]
    assert day.pipeline.replay(first)["run_identical"]
    assert day.pipeline.verify().ok


def test_the_tills_day_is_berlins(day: Day) -> None:
    with day.pipeline.store.transaction(day.pipeline.tenant) as tx:
        told = ledger.explain(tx, day.pipeline.lake, recorded(day)["flour"]["decision_id"])
    assert told["lines"]["first_day"] == "2026-02-16"
    assert told["lines"]["last_day"] == "2026-03-30"
    assert told["lines"]["units"] == 43 * 2
    newest = told["lines"]["newest"][0]
    # Summer time began on the Sunday: a quarter past nine is a quarter past seven in UTC.
    assert newest["occurred_at"] == "2026-03-30T07:12:00.000000Z"
    assert (Path(newest["source_file"]).name, newest["source_line"]) == ("monday.csv", 9)
    assert newest["quantity_units"] == 2
