"""A Monday in a corner shop: what the tills wrote goes in, the decisions of `expected.yaml` come out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from ruamel.yaml import YAML

from storekeep import ingest, ledger
from storekeep.actions import BackOffice
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.lake import TERMS
from storekeep.pipeline import Pipeline, Run, opened
from storekeep.retail import STOCK_COUNT, SUPPLY_TERMS
from tests.shop import Clock

HERE = Path(__file__).parent / "monday"
EXPECTED: dict[str, Any] = YAML(typ="safe").load((HERE / "expected.yaml").read_text())
SHOP, BUYER = "W1", "Karla Kaufmann"
BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY, MONDAY = date(2026, 3, 29), date(2026, 3, 30)


def berlin(day: date, hour: int, minute: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=BERLIN).astimezone(UTC)


@dataclass
class Day:
    """The shop on that Monday: its pipeline, its clock, and what the stages said."""

    pipeline: Pipeline
    clock: Clock
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)
    loaded: list[ingest.Loaded] = field(default_factory=list)
    run: Run | None = None

    def take_in(self, file: str, copy: Path | None = None) -> None:
        mapping = ingest.mapping(HERE / "mapping.yaml")
        path = copy or HERE / file
        loaded = list(ingest.load(mapping, [path], known_at=self.clock.now, location_id=SHOP))
        rows = pa.concat_tables([each.rows for each in loaded])
        self.taken[path.name] = self.pipeline.take_in(rows, "tills", SHOP)
        self.loaded = self.loaded or (loaded if file == "monday.csv" else [])

    def prepare(self) -> None:
        """Sunday night: history, terms, the count, and the shop's own rulebook."""
        self.take_in("until-sunday.csv")
        text = {name: pa.string() for name in ("sku", "supplier_id")}
        listed = pa_csv.read_csv(
            HERE / "terms.csv", convert_options=pa_csv.ConvertOptions(column_types=text)
        )
        extra = {"location_id": SHOP, "currency": "EUR", "known_at": self.clock.now}
        rows = [{**row, **extra} for row in listed.to_pylist()]
        self.pipeline.lake.append(
            TERMS, rows_of(rows, SUPPLY_TERMS.arrow), writer="buying", position=1
        )
        counts = [
            {**row, "quantity_units": row["counted_units"], "occurred_at": self.clock.now}
            for row in rows
        ]
        self.pipeline.publish("StockCounted", "shelf", SHOP, rows_of(counts, STOCK_COUNT.arrow))
        self.pipeline.move_stock()
        self.pipeline.keep_history()
        self.pipeline.skip_to_present(SHOP)
        self.pipeline.promote(HERE / "rulebook.yaml", BUYER)

    def evening(self, copy: Path) -> None:
        """Monday after closing: the tills report, the agent decides, orders go out."""
        self.clock.now = berlin(MONDAY, 22)
        self.take_in("monday.csv")
        self.take_in("monday.csv", copy)
        self.pipeline.move_stock()
        self.pipeline.keep_history()
        self.pipeline.update_features(SHOP, MONDAY)
        self.run = self.pipeline.decide(SHOP)
        self.pipeline.act()
        self.pipeline.move_stock()

    def stock(self) -> dict[str, list[int]]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx.stock(SHOP).to_pylist()
        names = [f"{part}_units" for part in ("on_hand", "on_order", "committed", "unmet")]
        return {row["sku"]: [row[name] for name in names] for row in rows}

    def orders(self) -> list[dict[str, int]]:
        back_office = self.pipeline.adapters["PlacePurchaseOrder"]
        assert isinstance(back_office, BackOffice)
        orders: dict[str, dict[str, int]] = {}
        for row in back_office.order_lines().to_pylist():
            orders.setdefault(row["purchase_order_id"], {})[row["sku"]] = row["order_units"]
        return list(orders.values())

    def used(self) -> int:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx.decisions(Selection())
        going = {"pending", "executed"}
        return sum(row["money_minor"] for row in rows if row["status"] in going)


def rows_of(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(
        [{name: row[name] for name in schema.names} for row in rows], schema
    )


@pytest.fixture(scope="module")
def day(home_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    copy = tmp_path_factory.mktemp("tills") / "again.csv"
    copy.write_bytes((HERE / "monday.csv").read_bytes())
    chosen = {"tenant": "golden_monday", "currency": "EUR", "time_zone": "Europe/Berlin"}
    clock = Clock(berlin(SUNDAY, 23, 59))
    with opened(home_settings.model_copy(update=chosen), now=clock) as pipeline:
        played = Day(pipeline, clock)
        played.prepare()
        played.evening(copy)
        yield played


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
    assert day.used() == EXPECTED["committed_value"]["at_night"]
    with day.pipeline.store.transaction(day.pipeline.tenant) as tx:
        waiting = tx.approvals()
    assert [row["subject"].partition("@")[0] for row in waiting] == EXPECTED["waiting"]
    day.clock.now = berlin(MONDAY + timedelta(days=1), 8)
    ids = [row["decision_id"] for row in waiting]
    assert day.pipeline.approve(ids, BUYER) == dict.fromkeys(ids, "approved")
    day.pipeline.act()
    day.pipeline.move_stock()
    assert day.orders() == EXPECTED["orders_on_tuesday"]
    assert day.used() == EXPECTED["committed_value"]["with_saffron"]
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
