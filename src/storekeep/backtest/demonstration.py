"""The demonstration: the last months of a sales history played through the pipeline, day by day.

Real sale lines, a simulated supply side, the real stages. Hides the play: the clock, the simulated supplier
who delivers, the simulated buyer who approves, the baseline beside it, and what is shown afterwards.
"""

from __future__ import annotations

import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import ledger, servers
from storekeep.actions import BackOffice
from storekeep.backtest import report
from storekeep.backtest.sales import Period, Sales, own, panel, period
from storekeep.config import Settings
from storekeep.decisions import Decided, Selection, Status
from storekeep.errors import Misused, Refused
from storekeep.lake import MARKETING, PRODUCTS, QUARANTINE, TERMS, outside_log
from storekeep.pipeline import Pipeline, opened
from storekeep.servers.home import free_bytes, full, speaking
from storekeep.servers.postmaster import Busy, locked
from storekeep.simulate.baseline import MinMax, Moment, Played, play
from storekeep.simulate.chance import Integers
from storekeep.simulate.demand import demand as demand_of
from storekeep.simulate.kpi import Kpi, kpi
from storekeep.simulate.supply import shop
from storekeep.store import Store

LOCATION = "DC1"
BUYER = "simulated buyer"
# A day of a large shop writes a few MiB, and PostgreSQL its log in files of 16.
ROOM_BYTES = 32 * 2**20
# The buyer leaves what waits on the last days, so that there is something left to approve by hand.
BUYER_LEAVES_DAYS = 3


class Progress:
    """Told how far a demonstration is; says nothing unless it is given something to say it with."""

    def begin(self, label: str, total: int | None = None) -> None:
        """A part of the work begins, with so many steps if that is known."""

    def step(self, many: int = 1) -> None:
        """So many steps of it are done."""

    def end(self) -> None:
        """The part is over."""


@dataclass(frozen=True)
class Options:
    """What to play: how many days, from which seed, on whose sales; `command` is what a person types."""

    days: int = 90
    seed: int = 1
    sales: tuple[Path, ...] = ()
    mapping: str | None = None
    since: date | None = None
    until: date | None = None
    command: str = "storekeep"


@dataclass
class Clock:
    """The time of the play."""

    now: datetime = field(default_factory=lambda: datetime(1970, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        """What the pipeline takes for the present."""
        return self.now


@dataclass
class Stopwatch:
    """Seconds by part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what happens inside to a part."""
        begun = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begun


def demo(settings: Settings, options: Options, progress: Progress | None = None) -> dict[str, Any]:
    """Play a period and write `demo/report.json` and `demo/report.html` in the home; the report.

    An earlier demonstration in the same home and tenant is forgotten first. Raises `Misused` when the
    tenant holds live records or the days do not fit the sales.
    """
    begun, watch, told = time.perf_counter(), Stopwatch(), progress or Progress()
    if options.days < 1:
        raise Misused("--days must be at least 1")
    if bool(options.sales) != bool(options.mapping):
        raise Misused("--sales and --mapping go together: the mapping says what the columns mean")
    clock = Clock(datetime.now(UTC))
    with watch("read the sales"):
        sales = _sales(options, clock.now, told)
        chosen = period(sales, options.days, options.since, options.until)
    with ExitStack() as stack:
        with watch("start"):
            # One lease from here to the end, so that the server starts once.
            stack.enter_context(servers.lease(settings))
            stack.enter_context(_alone(settings.home))
            _forget(settings)
            # The simulated buyer has a role whoever has one among the people of this home.
            played = settings.model_copy(update={"principals": {}})
            pipeline = stack.enter_context(opened(played, now=clock, purpose="demo"))
        play = Play(pipeline, clock, sales, chosen, options.seed, watch)
        with watch("take in the history"):
            play.prepare(told)
        told.begin("Playing the days", len(chosen.days))
        for day in chosen.days:
            _room(settings.home)
            play.day(day)
            told.step()
        told.end()
        with watch("show"):
            out = play.report() | Show(play, settings.home / "demo").report()
        out["peak_rss_mib"] = round(own_peak_mib() + play.server_mib)
    return _finish(settings, options, out, watch, begun)


def _sales(options: Options, known_at: datetime, told: Progress) -> Sales:
    told.begin("Reading the sales")
    if options.sales:
        read = own(options.sales, options.mapping or "", LOCATION, known_at, told.step)
    else:
        read = panel(LOCATION, known_at, told.step)
    told.end()
    return read


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Keep a second demonstration of the home away, which would forget the records of this one."""
    with ExitStack() as held:
        try:
            with speaking(home):
                held.enter_context(locked(home / "demo.lock", 0))
        except Busy:
            raise Refused(
                f"another demonstration is being played in {home}; wait for it, or use another --home"
            ) from None
        yield


def _room(home: Path) -> None:
    """Stop before a disk is full: what writes to it says so in as many ways as there are writers."""
    if free_bytes(home) < ROOM_BYTES:
        raise full(home)


def _forget(settings: Settings) -> None:
    """Remove what an earlier demonstration of this tenant left; live records are never touched."""
    with servers.lease(settings) as database, Store(database.conninfo) as store:
        store.migrate()
        store.forget_demo(settings.tenant)
        back_office = BackOffice(database.conninfo, settings.tenant)
        back_office.forget()
        back_office.close()
    # What stayed would be taken for what this play is about to write.
    with speaking(settings.home), suppress(FileNotFoundError):
        shutil.rmtree(settings.home / "lake" / settings.tenant)


def _finish(
    settings: Settings, options: Options, out: dict[str, Any], watch: Stopwatch, begun: float
) -> dict[str, Any]:
    folder = settings.home / "demo"
    out["command"] = options.command
    out["seconds_by_stage"] = {part: round(spent, 2) for part, spent in watch.seconds.items()}
    out["files"] = {"json": str(folder / "report.json"), "html": str(folder / "report.html")}
    out["seconds"] = round(time.perf_counter() - begun, 2)
    report.write_html(out, folder / "report.html")
    out["seconds"] = round(time.perf_counter() - begun, 2)
    report.write_json(out, folder / "report.json")
    return out


class Approval(NamedTuple):
    """A buyer's word on the lines of one order, and what each decision became."""

    lines: tuple[dict[str, Any], ...]
    became: dict[str, str]


class Play:
    """The days of a period, played one after another."""

    def __init__(
        self,
        pipeline: Pipeline,
        clock: Clock,
        sales: Sales,
        chosen: Period,
        seed: int,
        watch: Stopwatch,
    ) -> None:
        self.pipeline, self.clock, self.sales, self.period = pipeline, clock, sales, chosen
        self.watch, self.seed = watch, seed
        self.zone = ZoneInfo(sales.time_zone)
        self.shop = shop(
            sales.products.rows,
            chosen.history,
            seed=seed,
            first_day=chosen.first,
            currency=sales.currency,
            location_id=LOCATION,
            time_zone=sales.time_zone,
        )
        begin, _ = sales.days()
        self.demand = demand_of(chosen.history, self.shop.skus, begin, chosen.last)
        shape = (len(chosen.days), len(self.shop.skus))
        self.on_hand = np.zeros(shape, np.int64)
        self.lost = np.zeros(shape, np.int64)
        self.accepted = self.duplicates = 0
        self.runs: list[dict[str, Any]] = []
        self.server_mib = 0.0
        self.receipts = 0
        self.approval: Approval | None = None
        self._unmet = np.zeros(shape[1], np.int64)
        self._bounds = self._day_bounds()

    @property
    def back_office(self) -> BackOffice:
        """The embedded back office, as the simulated supplier sees it."""
        adapter = self.pipeline.adapters["PlacePurchaseOrder"]
        if not isinstance(adapter, BackOffice):
            raise Misused("a demonstration plays with the embedded back office only")
        return adapter

    def _day_bounds(self) -> dict[date, tuple[int, int]]:
        """Where each day's lines begin and end in the sales, which are ordered by day."""
        encoded = pc.run_end_encode(self.sales.rows["day"].combine_chunks())
        ends = encoded.run_ends.to_pylist()
        starts = [0, *ends[:-1]]
        return dict(zip(encoded.values.to_pylist(), zip(starts, ends, strict=True), strict=True))

    def moment(self, day: date, *, evening: bool) -> datetime:
        """The first moment of a day in the stores' time zone, or its last second."""
        at = day + timedelta(days=1) if evening else day
        midnight = datetime.combine(at, clock_time(), self.zone).astimezone(UTC)
        return midnight - timedelta(seconds=1) if evening else midnight

    def prepare(self, told: Progress) -> None:
        """Take in the history, the assortment, the terms and the opening stock."""
        pipeline, first = self.pipeline, self.period.first
        self.clock.now = self.moment(first, evening=False) - timedelta(seconds=1)
        now = self.clock.now
        products = outside_log(PRODUCTS, self.sales.products.rows)
        pipeline.lake.append(PRODUCTS, products, writer="demo", position=1)
        pipeline.lake.append(TERMS, known(self.shop.terms, now), writer="demo", position=1)
        for name, marketing in self.sales.marketing.items():
            rows = known(marketing.rows, now)
            pipeline.lake.append(MARKETING[name], rows, writer="demo", position=1)
        if self.sales.rejected.num_rows:
            pipeline.lake.append(QUARANTINE, self.sales.rejected, writer="demo", position=1)
        end = next((at for day, (at, _) in self._bounds.items() if day >= first), 0)
        history = self.sales.rows.slice(0, end)
        step = 100_000
        told.begin("Taking in the history", history.num_rows)
        for start in range(0, history.num_rows, step):
            part = known(history.slice(start, step), now)
            self._take_in(part)
            told.step(part.num_rows)
        told.end()
        pipeline.publish("StockCounted", "simulated", LOCATION, known(self.shop.opening, now))
        pipeline.move_stock()
        pipeline.keep_history()
        pipeline.skip_to_present(LOCATION)

    def _take_in(self, rows: pa.Table) -> None:
        fresh, seen = self.pipeline.take_in(rows, self.sales.name, LOCATION)
        self.accepted += fresh
        self.duplicates += seen

    def day(self, day: date) -> None:
        """One day: goods arrive, the tills ring, the agent orders, the supplier takes the orders."""
        place = (day - self.period.first).days
        pipeline, watch = self.pipeline, self.watch
        self.clock.now = self.moment(day, evening=False)
        with watch("deliver"):
            self._deliver(day)
        self.clock.now = self.moment(day, evening=True)
        start, end = self._bounds.get(day, (0, 0))
        rows = self.sales.rows.slice(start, end - start)
        with watch("take in the day"):
            if rows.num_rows:
                self._take_in(known(rows, self.clock.now))
            pipeline.move_stock()
        self._measure(place)
        with watch("keep history"):
            pipeline.keep_history()
        with watch("features"):
            pipeline.update_features(LOCATION, day)
        with watch("decide and record"):
            run = next(iter(pipeline.dispatch([LOCATION]).values()), None)
            if (self.period.last - day).days >= BUYER_LEAVES_DAYS:
                self.buy(self.waiting())
        with watch("act"):
            pipeline.act()
        self.server_mib = max(self.server_mib, memory_mib(pipeline.store.server_pids()))
        self.runs.append(
            {
                "day": day.isoformat(),
                "lines": rows.num_rows,
                "batch_id": run.batch_id if run else None,
                **(run.verdicts if run else {str(verdict): 0 for verdict in Decided}),
            }
        )

    def _deliver(self, day: date) -> None:
        """What the simulated suppliers have to deliver today arrives, and the back office says so."""
        lines = self.back_office.open_lines()
        if lines.num_rows == 0:
            return
        placed = pc.local_timestamp(
            pc.cast(lines["placed_at"], pa.timestamp("us", tz=self.sales.time_zone))
        )
        orders = lines.append_column("day", pc.cast(placed, pa.date32()))
        due = self.shop.deliveries(orders)
        arriving = due.filter(pc.less_equal(due["due_day"], pa.scalar(day, pa.date32())))
        keys = self.back_office.receive(arriving["idempotency_key"].to_pylist())
        self.receipts += self.pipeline.receive(keys)
        self.pipeline.move_stock()

    def waiting(self) -> list[dict[str, Any]]:
        """The lines that wait for a person's word, the most money first."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return tx.approvals()

    def buy(self, lines: Sequence[dict[str, Any]]) -> None:
        """The simulated buyer approves lines that wait; the order of the first is kept to be shown."""
        if not lines:
            return
        became = self.pipeline.approve([line["decision_id"] for line in lines], BUYER)
        group = lines[0]["order_group"]
        chosen = tuple(line for line in lines if line["order_group"] == group)
        self.approval = Approval(chosen, became)

    def _measure(self, place: int) -> None:
        """Read what is left on the shelf and what could not be met today."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            rows = tx.stock(LOCATION)
        order = pc.index_in(self.shop.skus, rows["sku"].combine_chunks())
        at = rows.take(order)
        self.on_hand[place] = at["on_hand_units"].to_numpy()
        unmet = at["unmet_units"].to_numpy()
        self.lost[place] = unmet - self._unmet
        self._unmet = unmet.copy()

    # What came of it --------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """What was taken in, what was decided, and the agent beside the baseline."""
        asked = self.demand.until(self.period.last)[-len(self.period.days) :]
        lines = self.back_office.order_lines()
        placed = pc.local_timestamp(
            pc.cast(lines["placed_at"], pa.timestamp("us", tz=self.sales.time_zone))
        )
        ordered = lines.append_column("day", pc.cast(placed, pa.date32()))
        agent = kpi(
            self.shop,
            demand_units=asked,
            sold_units=asked - self.lost,
            on_hand_units=self.on_hand,
            order_lines=ordered,
        )
        rule = play(self.shop, self.demand, self.period.days, self._rule)
        baseline = kpi(
            self.shop,
            demand_units=rule.demand_units,
            sold_units=rule.sold_units,
            on_hand_units=rule.on_hand_units,
            order_lines=rule.order_lines,
        )
        return {
            **self._origin(),
            "events": self._events(),
            "beside": self._beside(),
            "decisions": self._decisions(),
            "rules": self._rules(),
            "purchase_orders": self.back_office.count_orders(),
            "receipts": self.receipts,
            "kpi": {"agent": _kpi(agent), "baseline": {**_kpi(baseline), "name": "min/max"}},
            "series": self._series(asked, rule),
        }

    def _rule(self, now: Moment) -> Integers:
        """The baseline: min/max, which like the agent rests on a day on which no till rang."""
        if now.day not in self._bounds:
            return np.zeros_like(now.on_hand_units)
        return MinMax(self.shop)(now)

    def _origin(self) -> dict[str, Any]:
        return {
            "source": {
                "name": self.sales.name,
                "note": self.sales.note,
                "files": [Path(name).name for name in self.sales.files],
            },
            "simulated": [
                f"suppliers, costs, lead times, stock and the buyer, from seed {self.seed}"
            ],
            "tenant": self.pipeline.tenant,
            "location": LOCATION,
            "currency": self.sales.currency,
            "from": self.period.first.isoformat(),
            "to": self.period.last.isoformat(),
            "days": len(self.period.days),
            "seed": self.seed,
            "skus": len(self.shop.skus),
            "suppliers": self.shop.suppliers.num_rows,
        }

    def _events(self) -> dict[str, Any]:
        last = self._bounds[max(day for day in self._bounds if day <= self.period.last)][1]
        counts = pc.value_counts(self.sales.rejected["rule"]).to_pylist()
        return {
            "read": self.sales.read,
            "accepted": self.accepted,
            "later": self.sales.rows.num_rows - last,
            "duplicates": self.duplicates + self.sales.repeated,
            "ignored": dict(self.sales.ignored),
            "rejected": {row["values"]: row["counts"] for row in counts},
            "repaired": dict(self.sales.repaired),
            "matched": dict(self.sales.matched),
        }

    def _beside(self) -> dict[str, Any]:
        """What was taken in beside the till lines: rows read, rows kept, and what rules mended."""
        products = self.sales.products
        catalogue = {
            "read": products.read,
            "kept": products.rows.num_rows,
            "repaired": dict(products.repaired),
        }
        marketing = {
            name: {"read": found.read, "kept": found.rows.num_rows, "repaired": {}}
            for name, found in self.sales.marketing.items()
        }
        return {"product": catalogue, **marketing} if products.read else marketing

    def _decisions(self) -> dict[str, int]:
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            counts = tx.count_decisions("verdict")
        return {str(verdict): counts.get(str(verdict), 0) for verdict in Decided}

    def _rules(self) -> list[dict[str, Any]]:
        """Which rules spoke, how often, most often first."""
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            return ledger.count_rules(tx)

    def _series(self, asked: np.ndarray[Any, Any], rule: Played) -> list[dict[str, Any]]:
        cost = self.shop.numbers("unit_cost_minor")
        lost = rule.demand_units - rule.sold_units
        with self.pipeline.store.transaction(self.pipeline.tenant) as tx:
            values = tx.value_by_batch()
        return [
            {
                "day": run["day"],
                "lines": run["lines"],
                "demand_units": int(asked[place].sum()),
                "agent_lost_units": int(self.lost[place].sum()),
                "baseline_lost_units": int(lost[place].sum()),
                "agent_stock_value": int((self.on_hand[place] * cost).sum()),
                "baseline_stock_value": int((rule.on_hand_units[place] * cost).sum()),
                "order_value": values.get(run["batch_id"], 0),
                **{str(verdict): run[str(verdict)] for verdict in Decided},
            }
            for place, run in enumerate(self.runs)
        ]


@dataclass(frozen=True)
class Show:
    """What the demonstration shows of a played period, with real ids."""

    play: Play
    folder: Path

    def report(self) -> dict[str, Any]:
        """A decision explained and replayed, an order approved, one reverted, the ledger proved."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        chosen = self._one(Status.EXECUTED, verdict=Decided.CLIP) or self._one(Status.EXECUTED)
        return {
            **self._explained(chosen),
            "approval": (approved := self._approved()),
            "revert": self._reverted(approved),
            **self._proved(),
        }

    def _one(self, status: Status, verdict: str | None = None) -> dict[str, Any] | None:
        pipeline = self.play.pipeline
        with pipeline.store.transaction(pipeline.tenant) as tx:
            rows = tx.decisions(Selection(status=status, verdict=verdict, limit=1))
        return rows[0] if rows else None

    def _explained(self, chosen: dict[str, Any] | None) -> dict[str, Any]:
        pipeline = self.play.pipeline
        if chosen is None:
            return {"explained": None, "replay": {"identical": None}}
        with pipeline.store.transaction(pipeline.tenant) as tx:
            explained = ledger.explain(tx, pipeline.lake, chosen["decision_id"])
        replayed = pipeline.replay(chosen["decision_id"])
        return {
            "explained": {
                "decision_id": chosen["decision_id"],
                "text": ledger.text(explained, self.play.zone),
            },
            "replay": replayed,
        }

    def _approved(self) -> dict[str, Any] | None:
        """A person approves one order that waits: all its lines, judged again on fresh evidence.

        Where none waits, the last that was approved while the days were played.
        """
        waiting = self.play.waiting()
        if waiting:
            group = waiting[0]["order_group"]
            self.play.buy([line for line in waiting if line["order_group"] == group])
            self.play.pipeline.act()
            self.play.pipeline.move_stock()
        if self.play.approval is None:
            return None
        lines, became = self.play.approval
        ids = [line["decision_id"] for line in lines]
        found = self.play.back_office.find(ids)
        numbers = sorted({receipt.reference for receipt in found.values()})
        return {
            "decision_id": ids[0],
            "order_group": lines[0]["order_group"],
            "role": lines[0]["role"],
            "lines": len(ids),
            "money": sum(line["money_minor"] for line in lines),
            "result": dict(sorted(Counter(became[key] for key in ids).items())),
            "purchase_order": ", ".join(numbers) or None,
        }

    def _reverted(self, approved: dict[str, Any] | None) -> dict[str, Any] | None:
        """One purchase order taken back: the plan first, then what it did to on-order."""
        pipeline = self.play.pipeline
        lines = self.play.back_office.open_lines()
        if approved is not None:
            others = pc.not_equal(lines["purchase_order_id"], approved["purchase_order"] or "")
            lines = lines.filter(others) if pc.any(others).as_py() else lines
        if lines.num_rows == 0:
            return None
        number = lines["purchase_order_id"].to_pylist()[-1]
        mine = lines.filter(pc.equal(lines["purchase_order_id"], number))
        ids = tuple(mine["idempotency_key"].to_pylist())
        skus = mine["sku"].combine_chunks()
        before = self._on_order(skus)
        plan = pipeline.plan_revert(Selection(ids=ids))
        pipeline.revert(plan, by=BUYER, reason="demonstration: take one order back")
        pipeline.act()
        pipeline.move_stock()
        after = self._on_order(skus)
        units = sum(one.units for one in plan if one.what == "compensate")
        found = self.play.back_office.find(ids)
        gone = all(found[key].details["cancelled"] for key in ids)
        return {
            "purchase_order": number,
            "plan": [
                {
                    name: getattr(one, name)
                    for name in ("decision_id", "subject", "what", "why", "units")
                }
                for one in plan
            ],
            "units": units,
            "on_order_before": before,
            "on_order_after": after,
            "restored": gone and before - after == units > 0,
        }

    def _on_order(self, skus: pa.Array) -> int:
        pipeline = self.play.pipeline
        with pipeline.store.transaction(pipeline.tenant) as tx:
            rows = tx.stock(LOCATION)
        chosen = rows.filter(pc.is_in(rows["sku"], value_set=skus))
        return int(pc.sum(chosen["on_order_units"]).as_py() or 0)

    def _proved(self) -> dict[str, Any]:
        """The ledger verified; then an export with one changed byte, which must be found."""
        pipeline = self.play.pipeline
        outcome = pipeline.verify()
        path = self.folder / "ledger.jsonl"
        with pipeline.store.transaction(pipeline.tenant) as tx:
            ledger.export(tx, path, pipeline.signing.public)
        tampered = self.folder / "ledger-tampered.jsonl"
        content = bytearray(path.read_bytes())
        place = _a_digit(content)
        content[place] = ord("1") if content[place] != ord("1") else ord("2")
        tampered.write_bytes(bytes(content))
        found = ledger.verify_export(tampered, pipeline.signing.public)
        whole = ledger.verify_export(path, pipeline.signing.public)
        return {
            "verify": {
                "ok": outcome.ok and whole.ok,
                "batches": outcome.batches,
                "entries": outcome.entries,
                "head": outcome.head,
                "export": str(path),
            },
            "tamper": {
                "found": not found.ok,
                "byte": place,
                "line": bytes(content[:place]).count(b"\n") + 1,
                "problems": [
                    {"where": problem.where, "what": problem.what} for problem in found.problems[:3]
                ],
            },
        }


def _a_digit(content: bytes | bytearray) -> int:
    """Where a quantity begins in the second half of an export; without orders, its last digit."""
    mark = b'"order_units":'
    found = content.find(mark, len(content) // 2)
    if found >= 0:
        return found + len(mark)
    return max(content.rfind(str(digit).encode()) for digit in range(10))


def _kpi(figures: Kpi) -> dict[str, Any]:
    """The figures under the names that outside checks ask for; money in minor units."""
    return {
        "fill_rate": round(figures.fill_rate, 6),
        "stockout_days": figures.stockout_days,
        "stock_value": figures.stock_value_minor,
        "cost": figures.cost_minor,
        "holding_cost": figures.holding_cost_minor,
        "ordering_cost": figures.ordering_cost_minor,
        "lost_margin": figures.lost_margin_minor,
        "lost_units": figures.lost_units,
        "demand_units": figures.demand_units,
        "purchase_orders": figures.purchase_orders,
        "order_lines": figures.order_lines,
        "turns": None if figures.turns is None else round(figures.turns, 2),
    }


def known(rows: pa.Table, at: datetime) -> pa.Table:
    """The rows as they came to be known at a time."""
    place = rows.column_names.index("known_at")
    times = pa.array([at] * rows.num_rows, pa.timestamp("us", tz="UTC"))
    return rows.set_column(place, rows.schema.field("known_at"), times)


def own_peak_mib() -> float:
    """The most memory this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_mib(pids: Sequence[int]) -> float:
    """The memory that processes hold together, shared pages counted once, in MiB; 0 where not told."""
    total = 0
    for pid in pids:
        process = Path("/proc") / str(pid)
        try:
            # The numbers of a server on another machine are those of strangers here.
            if (process / "comm").read_text() != "postgres\n":
                continue
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
