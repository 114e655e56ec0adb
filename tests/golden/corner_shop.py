"""A corner shop on one Monday: its files, its clock, and its day played through the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.csv as pa_csv

from storekeep import ingest
from storekeep.actions import BackOffice
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.lake import TERMS
from storekeep.pipeline import Pipeline, Run, opened
from storekeep.retail import STOCK_COUNT, SUPPLY_TERMS
from tests.shop import Clock

HERE = Path(__file__).parent / "monday"
SHOP, BUYER = "W1", "Karla Kaufmann"
BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY, MONDAY = date(2026, 3, 29), date(2026, 3, 30)


def berlin(day: date, hour: int, minute: int = 0) -> datetime:
    """A moment as the shop's clock shows it."""
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
        """Read a file of the tills, or a copy of it, and put its lines on the bus."""
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

    def evening(self, copy: Path | None = None) -> None:
        """Monday after closing: the tills report, once more under another name, and orders go out."""
        self.clock.now = berlin(MONDAY, 22)
        self.take_in("monday.csv")
        if copy is not None:
            self.take_in("monday.csv", copy)
        self.pipeline.move_stock()
        self.pipeline.keep_history()
        self.pipeline.update_features(SHOP, MONDAY)
        self.run = self.pipeline.decide(SHOP)
        self.pipeline.act()
        self.pipeline.move_stock()

    @property
    def back_office(self) -> BackOffice:
        """The order system as suppliers see it."""
        adapter = self.pipeline.adapters["PlacePurchaseOrder"]
        assert isinstance(adapter, BackOffice)
        return adapter

    def stock(self) -> dict[str, list[int]]:
        """On hand, on order, committed, and asked for in vain, by item."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx.stock(SHOP).to_pylist()
        names = [f"{part}_units" for part in ("on_hand", "on_order", "committed", "unmet")]
        return {row["sku"]: [row[name] for name in names] for row in rows}

    def orders(self) -> list[dict[str, int]]:
        """Each purchase order's units by item."""
        orders: dict[str, dict[str, int]] = {}
        for row in self.back_office.order_lines().to_pylist():
            orders.setdefault(row["purchase_order_id"], {})[row["sku"]] = row["order_units"]
        return list(orders.values())

    def going(self) -> int:
        """What the decisions that are or will be carried out come to, in minor units."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx.decisions(Selection())
        acts = {"pending", "executed"}
        return sum(row["money_minor"] for row in rows if row["status"] in acts)


def rows_of(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The rows as a table, without what the table does not ask for."""
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema
    )


@contextmanager
def opened_day(home: Settings, tenant: str) -> Iterator[Day]:
    """The shop of a tenant on the Sunday night before, with all that was known by then."""
    chosen = {"tenant": tenant, "currency": "EUR", "time_zone": "Europe/Berlin"}
    clock = Clock(berlin(SUNDAY, 23, 59))
    with opened(home.model_copy(update=chosen), now=clock) as pipeline:
        day = Day(pipeline, clock)
        day.prepare()
        yield day
