"""A small shop made by hand: what it sells, on which terms, and how its days are played through the pipeline.

Two suppliers deliver six items to one location. Between them the items meet every verdict: bread is allowed,
salt clipped, wine escalated, a lamp that nobody buys any more denied, and a novelty held. Sales follow a
formula, so every run of the same days is the same. Each step may be repeated until it is known to be done, as
a scheduler does that was killed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import ledger
from storekeep.actions import BackOffice
from storekeep.config import Settings
from storekeep.decisions import Receipt, Selection
from storekeep.events import EVENT_TABLES
from storekeep.lake import ORDER_MOVES, SALE_LINES, STOCK_COUNTS, TERMS
from storekeep.pipeline import Pipeline, Run, opened
from storekeep.policy import Rulebook
from storekeep.retail import SALE_LINE, STOCK_COUNT, SUPPLY_TERMS

LOCATION = "DC1"
CURRENCY = "USD"
BUYER = "Bea Buyer"
TILLS = "tills"
HISTORY_DAYS = 120
# A Monday: the northern supplier is ordered from on Mondays, the southern one on Tuesdays.
FIRST_DAY = date(2026, 3, 2)


@dataclass(frozen=True)
class Item:
    """An item on its supplier's terms, and what is bought of it on a day (`days` before the first played)."""

    sku: str
    supplier_id: str
    weekday: int
    lead_days: int
    cost: int
    pack: int
    least: int
    opening: int
    bought: Callable[[int], int]


NORTH = ("north", 1, 1)
SOUTH = ("south", 2, 2)
ITEMS = (
    Item("bread", *NORTH, 100, 6, 6, 9, lambda days: 5 + days * 7 % 4),
    Item("salt", *NORTH, 40, 12, 72, 4, lambda _: 1),
    Item("wine", *NORTH, 2500, 6, 6, 3, lambda days: 2 + days % 2),
    Item("milk", *SOUTH, 60, 10, 10, 20, lambda days: 8 + days * 3 % 5),
    # Not sold for 65 days; its few sales before still make the agent want some.
    Item("lamp", *SOUTH, 900, 1, 1, 0, lambda days: 3 if days > 65 else 0),
    # On sale for 20 days.
    Item("novelty", *SOUTH, 300, 1, 1, 5, lambda days: 2 if days <= 20 else 0),
)
SKUS = tuple(sorted(item.sku for item in ITEMS))


def moment(day: date, hour: int = 0, minute: int = 0) -> datetime:
    """A moment of a day of the shop, whose time zone is UTC."""
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def sales(first: date, last: date, known_at: datetime | None = None) -> pa.Table:
    """The sale lines of the days from `first` to `last`, in the order in which they happened."""
    rows: list[dict[str, Any]] = []
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        rows += _day(day, known_at or moment(day, 22))
    return pa.Table.from_pylist(rows, schema=SALE_LINE.arrow)


def _day(day: date, known_at: datetime) -> list[dict[str, Any]]:
    before = (FIRST_DAY - day).days
    rows = []
    for place, item in enumerate(ITEMS):
        units = item.bought(before)
        # On every ninth day somebody brings one back.
        parts = [units - units // 2, units // 2, -1 if before % 9 == 0 and units else 0]
        for part, quantity in enumerate(parts):
            if quantity == 0:
                continue
            rows.append(
                {
                    "line_key": f"{day}/{item.sku}/{part}",
                    "location_id": LOCATION,
                    "store_id": f"S{part % 2 + 1}",
                    "basket_id": f"{day:%j}-{part}",
                    "sku": item.sku,
                    "quantity_units": quantity,
                    "value_minor": quantity * item.cost * 2,
                    "currency": CURRENCY,
                    "customer_id": None if part else f"c{before % 7}",
                    "day": day,
                    "occurred_at": moment(day, 9 + part, place),
                    "known_at": known_at,
                    "source_file": f"{day:%Y-%m}.csv",
                    "source_line": day.day * 100 + place * 10 + part + 1,
                }
            )
    return rows


def history() -> pa.Table:
    """The sale lines of the days before the first that is played, known the evening before it."""
    return sales(
        FIRST_DAY - timedelta(days=HISTORY_DAYS),
        FIRST_DAY - timedelta(days=1),
        moment(FIRST_DAY) - timedelta(minutes=1),
    )


def terms(known_at: datetime | None = None) -> pa.Table:
    """On which terms the items are delivered."""
    rows = [
        {
            "sku": item.sku,
            "location_id": LOCATION,
            "supplier_id": item.supplier_id,
            "unit_cost_minor": item.cost,
            "unit_price_minor": item.cost * 2,
            "currency": CURRENCY,
            "pack_size_units": item.pack,
            "minimum_order_units": item.least,
            "lead_time_mean_days": float(item.lead_days),
            "lead_time_sd_days": 0.5,
            "review_period_days": 7,
            "review_weekday": item.weekday,
            "supplier_minimum_minor": 1000,
            "known_at": known_at or moment(FIRST_DAY) - timedelta(minutes=1),
        }
        for item in ITEMS
    ]
    return pa.Table.from_pylist(rows, schema=SUPPLY_TERMS.arrow)


def counted(units: dict[str, int] | None = None, at: datetime | None = None) -> pa.Table:
    """A count of the shelf: by default what is there when the first day begins."""
    when = at or moment(FIRST_DAY) - timedelta(minutes=1)
    found = units if units is not None else {item.sku: item.opening for item in ITEMS}
    rows = [
        {
            "location_id": LOCATION,
            "sku": sku,
            "quantity_units": many,
            "occurred_at": when,
            "known_at": when,
        }
        for sku, many in found.items()
    ]
    return pa.Table.from_pylist(rows, schema=STOCK_COUNT.arrow)


@dataclass
class Clock:
    """The time of the shop; stands still until it is set."""

    now: datetime = field(default_factory=lambda: moment(FIRST_DAY) - timedelta(minutes=1))

    def __call__(self) -> datetime:
        """What the pipeline takes for the present."""
        return self.now


def of_tenant(settings: Settings, tenant: str) -> Settings:
    """The same home for another tenant, in the shop's money and time."""
    return settings.model_copy(
        update={"tenant": tenant, "currency": CURRENCY, "time_zone": "UTC", "principal": BUYER}
    )


def new_tenant(settings: Settings) -> Settings:
    """The same home for a tenant that nobody had before."""
    return of_tenant(settings, f"t{uuid4().hex[:12]}")


@contextmanager
def opened_shop(settings: Settings, *, purpose: str = "live") -> Iterator[Shop]:
    """The shop of a tenant, its pipeline open and its clock standing at the evening before the first day."""
    clock = Clock()
    with opened(settings, now=clock, purpose=purpose) as pipeline:
        yield Shop(pipeline, clock)


@dataclass
class Shop:
    """The shop at work. A method is a step: what it did once, it does not do again when it is repeated."""

    pipeline: Pipeline
    clock: Clock

    @property
    def back_office(self) -> BackOffice:
        """The back office as suppliers see it."""
        adapter = self.pipeline.adapters["PlacePurchaseOrder"]
        assert isinstance(adapter, BackOffice)
        return adapter

    # Days ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Take in the history, the terms and the first count."""
        self.clock.now = moment(FIRST_DAY) - timedelta(minutes=1)
        self.pipeline.lake.append(TERMS, terms(), writer="shop", position=1)
        self.pipeline.take_in(history(), TILLS, LOCATION)
        self.pipeline.publish("StockCounted", "shelf", LOCATION, counted())
        self.pipeline.move_stock()
        self.pipeline.keep_history()
        self.pipeline.skip_to_present(LOCATION)

    def promote(self, values: Mapping[str, Any], folder: Path) -> Rulebook:
        """Put a rulebook of plain values in force; JSON is YAML."""
        path = folder / "rulebook.yaml"
        path.write_text(json.dumps(values))
        version = self.pipeline.promote(path, BUYER)
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return self.pipeline.rulebook(tx, "replenish", version)

    def day_steps(self, day: date) -> list[tuple[str, Callable[[], object]]]:
        """The steps of one day in their order, each with its name."""
        return [
            (f"{day:%a} deliver", lambda: self.deliver(day)),
            (f"{day:%a} sell", lambda: self.sell(day)),
            (f"{day:%a} remember", lambda: self.remember(day)),
            (f"{day:%a} decide", lambda: self.decide(day)),
            (f"{day:%a} buy", lambda: self.buy(day)),
            (f"{day:%a} act", lambda: self.act(day)),
        ]

    def play(self, *days: date) -> None:
        """Whole days, one after another."""
        for day in days:
            for _, step in self.day_steps(day):
                step()

    def deliver(self, day: date) -> None:
        """What was ordered a lead time ago arrives in the morning, and the back office says so."""
        self.clock.now = moment(day, 6)
        lines = self.back_office.order_lines()
        days = {item.sku: item.lead_days for item in ITEMS}
        due = [
            row["idempotency_key"]
            for row in lines.to_pylist()
            if row["placed_at"].date() + timedelta(days=days[row["sku"]]) == day
        ]
        if due:
            self.pipeline.receive(self.back_office.receive(due))
        self.pipeline.move_stock()

    def sell(self, day: date) -> None:
        """The tills ring, and stock moves."""
        self.clock.now = moment(day, 22)
        self.pipeline.take_in(sales(day, day), TILLS, LOCATION)
        self.pipeline.move_stock()

    def remember(self, day: date) -> None:
        """History is kept, and features move forward."""
        self.clock.now = moment(day, 22)
        self.pipeline.keep_history()
        self.pipeline.update_features(LOCATION, day)

    def decide(self, day: date) -> Run | None:
        """The agent wakes, and what nobody listens to is noted."""
        self.clock.now = moment(day, 22)
        return self.pipeline.dispatch([LOCATION]).get(("replenish", LOCATION))

    def buy(self, day: date) -> None:
        """The buyer approves all that waits."""
        self.clock.now = moment(day, 22, 30)
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            waiting = sorted(row["decision_id"] for row in tx.approvals())
        if waiting:
            self.pipeline.approve(waiting, BUYER)

    def act(self, day: date, patience: float = 20.0) -> None:
        """All pending actions are carried out; what a dead worker holds is waited for."""
        self.clock.now = moment(day, 23)
        until = time.monotonic() + patience
        while self.pipeline.act() or self.pending():
            assert time.monotonic() < until, "pending actions stay pending"
            time.sleep(0.01)
        self.pipeline.move_stock()

    def revert(self, supplier_id: str, day: date) -> None:
        """What was ordered of a supplier on a day is taken back."""
        self.clock.now = moment(day, 23, 10)
        chosen = Selection(order_group=f"{supplier_id}/{LOCATION}/{day}")
        self.pipeline.revert(self.pipeline.plan_revert(chosen), BUYER, "too much")
        self.act(day)

    def undo(self, supplier_id: str, day: date) -> None:
        """What was taken back of a supplier's order is proposed again after all."""
        self.clock.now = moment(day, 23, 20)
        chosen = Selection(order_group=f"{supplier_id}/{LOCATION}/{day}", status="reverted")
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            ids = [row["decision_id"] for row in tx.decisions(chosen)]
        self.pipeline.undo(self.pipeline.plan_undo(ids), BUYER, "it was not too much")
        self.act(day)

    # What is so ---------------------------------------------------------------------------------------

    def pending(self) -> int:
        """How many pending actions there are."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return tx.count_tasks()

    def stock(self) -> dict[str, dict[str, int]]:
        """The stock positions by SKU."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return _by_sku(tx.stock(LOCATION))

    def decisions(self, chosen: Selection | None = None) -> dict[str, dict[str, Any]]:
        """The newest decision about each SKU of a selection."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx.decisions(chosen or Selection())
        return {row["subject"].partition("@")[0]: row for row in reversed(rows)}

    def ids(self, *skus: str) -> list[str]:
        """The ids of the newest decisions about SKUs."""
        found = self.decisions()
        return [found[sku]["decision_id"] for sku in skus]

    def state(self) -> dict[str, Any]:
        """All that can be told apart in the shop, without the names that differ from tenant to tenant."""
        return {
            "stock": self.stock(),
            **self._decided(),
            **self._orders(),
            **self._log(),
            "pending": self.pending(),
        }

    def _decided(self) -> dict[str, Any]:
        tenant = self.pipeline.tenant
        with self.pipeline.store.transaction(tenant) as tx:
            rows = tx.decisions(Selection())
            entries = ledger.steps(tx, [row["decision_id"] for row in rows])
            batches = tx.ledger_batches()
            everything = ledger.entries(tx, 1, len(batches)).to_pylist()
            waiting = tx.approvals()
            used = tx.uses("supplier-week", FIRST_DAY, FIRST_DAY + timedelta(days=30))
            counts = tx.count_decisions("status")
        # When it is noted that nobody listens is of no matter, only that it is, once.
        notes = [json.loads(row["entry"]) for row in everything if row["kind"] == "unheard"]
        names = {row["decision_id"]: f"{row['decided_at'].date()}/{row['subject']}" for row in rows}
        steps: dict[str, list[str]] = {}
        receipts: Counter[str] = Counter()
        for key, history in entries.items():
            steps[names[key]] = [entry["step"] for entry in history]
            receipts.update(entry["kind"] for entry in history)
        return {
            "decisions": {
                names[row["decision_id"]]: [row["verdict"], row["status"], row["money_minor"]]
                for row in rows
            },
            "decided_twice": len(rows) - len(names),
            "steps": steps,
            "entries": dict(receipts),
            "ledger_batches": len(batches) - len(notes),
            "unheard": [sum(each["events"] for note in notes for each in note["events"])],
            "ledger_ok": self.pipeline.verify().ok,
            "waiting": sorted(row["subject"] for row in waiting),
            "used": {row["key"]: row["amount"] for row in used.to_pylist()},
            "counts": counts,
        }

    def _orders(self) -> dict[str, Any]:
        """The purchase orders by what is on them, and the lines as they are now."""
        ids = [row["decision_id"] for row in self._all_decisions()]
        found: dict[str, Receipt] = dict(self.back_office.find(ids))
        orders: dict[str, list[str]] = {}
        for receipt in found.values():
            one = receipt.details
            said = f"{one['sku']} {one['ordered_units']} {one['received_units']}"
            orders.setdefault(receipt.reference, []).append(
                f"{said} {'cancelled' if one['cancelled'] else 'open'}"
            )
        return {
            "orders": sorted(sorted(lines) for lines in orders.values()),
            "orders_open": self.back_office.count_orders(),
        }

    def _all_decisions(self) -> list[dict[str, Any]]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return tx.decisions(Selection())

    def _log(self) -> dict[str, Any]:
        """The events, how far stock is behind them, and whether history is what was logged so far."""
        events: Counter[str] = Counter()
        facts: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        behind = 0
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            for partition, head in tx.heads().items():
                rows = tx.read_events(partition, 0, 10_000)
                assert [row.position for row in rows] == list(range(1, head + 1))
                behind += head - tx.position("stock", partition)
                until = tx.position("lake", partition)
                for row in rows:
                    events[row.type] += 1
                    facts[row.type] += row.fact_count
                    if row.position <= until:
                        kept[EVENT_TABLES[row.type].name] += row.fact_count
        return {
            "events": dict(events),
            "facts": dict(facts),
            "stock_behind": behind,
            "traced": self.traced(),
            "history_as_logged": self.history() == {name: [n, n] for name, n in kept.items() if n},
        }

    def traced(self) -> dict[str, bool]:
        """Of each table whether the runs that are noted are all that it was made by, and no more."""
        found = {}
        for name in ("sale_line", "order_move", "stock_count", "feature_sku_location"):
            if self.pipeline.lake.version(name) > 0:
                tree = self.pipeline.lineage(name)
                found[name] = tree["rows"] == tree["rows_of_runs"]
        return found

    def history(self) -> dict[str, list[int]]:
        """Rows of each table of facts, and how many of them are different facts."""
        out = {}
        for kept, key in (
            (SALE_LINES, "line_key"),
            (ORDER_MOVES, "move_key"),
            (STOCK_COUNTS, "sku, occurred_at"),
        ):
            found = self.pipeline.lake.query(
                f"SELECT count(*) AS many, count(DISTINCT ({key})) AS apart FROM rows",
                tables={"rows": kept},
            ).to_pylist()[0]
            if found["many"]:
                out[kept.name] = [found["many"], found["apart"]]
        return out


def _by_sku(table: pa.Table) -> dict[str, dict[str, int]]:
    return {
        row["sku"]: {name: row[name] for name in table.column_names if name.endswith("_units")}
        for row in table.to_pylist()
    }


def script(shop: Shop) -> list[tuple[str, Callable[[], object]]]:
    """Two days with every kind of step, and an order taken back, as steps to be carried out one by one."""
    second = FIRST_DAY + timedelta(days=1)
    return [
        ("prepare", shop.prepare),
        *shop.day_steps(FIRST_DAY),
        *shop.day_steps(second),
        ("take back", lambda: shop.revert("south", second)),
        ("propose again", lambda: shop.undo("south", second)),
        ("keep", lambda: shop.pipeline.keep_history()),  # noqa: PLW0108  # asked for its names without one
    ]


def same_text(value: object) -> str:
    """A value as text that is equal when the value is."""
    return json.dumps(value, sort_keys=True, indent=1, default=str)


def only(table: pa.Table, **wanted: object) -> pa.Table:
    """The rows of a table in which columns have these values."""
    for name, value in wanted.items():
        table = table.filter(pc.equal(table[name], pa.scalar(value)))
    return table


def noted(pipeline: Pipeline, kind: str) -> list[dict[str, Any]]:
    """What the ledger says of a kind, in order."""
    with pipeline.store.transaction(pipeline.tenant) as tx:
        rows = ledger.entries(tx, 1, tx.ledger_head()[0]).to_pylist()
    return [json.loads(row["entry"]) for row in rows if row["kind"] == kind]
