"""What the shop reports becomes facts on the bus, stock positions, history and features.

Hides how a fact that was told before is known again, by whichever way it comes, and how far history and
positions have come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import bus, features, stock
from storekeep.errors import InvariantBroken
from storekeep.events import EVENT_TABLES, Event, event
from storekeep.lake import FACTS, SALE_LINES, STOCK_COUNTS, Kept
from storekeep.pipeline.measuring import Measuring
from storekeep.retail import ORDER_MOVE, Table
from storekeep.store import PARTITIONS, Transaction
from storekeep.watch import stage


class Intake(Measuring):
    """From the shop to features."""

    def take_in(self, rows: pa.Table, source: str, location_id: str) -> tuple[int, int]:
        """Put a location's sale lines on the bus; how many were new, and how many were known already.

        `rows` as `SALE_LINE`, each `line_key` once. A line that any earlier reading brought is left out.
        """
        with stage("take_in", self.tenant, source=source) as watched:
            watched.rows = self.publish("SaleRecorded", source, location_id, rows)
            return watched.rows, rows.num_rows - watched.rows

    def publish(self, type_: str, source: str, location_id: str, facts: pa.Table) -> int:
        """Put facts about a location on the bus, once however often they are told; how many were new.

        A fact is known again by its natural key (`retail`), whoever tells it and when.
        """
        if facts.num_rows == 0:
            return 0
        told = event(type_, source, location_id, self.now(), facts)
        partition = bus.partition_of(self.tenant, location_id)
        with self.store.transaction(self.tenant) as tx:
            news = self._news(tx, partition, [told])
            fresh = news[0].facts if news else told.facts.slice(0, 0)
            for start in range(0, fresh.num_rows, bus.MAX_FACTS):
                part = fresh.slice(start, bus.MAX_FACTS)
                bus.publish(tx, event(type_, source, location_id, told.time, part))
        return int(fresh.num_rows)

    def _news(self, tx: Transaction, partition: int, told: Sequence[Event]) -> list[Event]:
        """The events with those of their facts that nobody has told yet; the partition is locked from now on.

        An event that has only new facts stays as it is, one that has none is left out.
        """
        # While the head is locked nothing new can appear, so what the lake has after catching up is all
        # there is.
        tx.lock_partition(partition)
        self._keep_history(tx, partition)
        by_table: dict[str, dict[int, Event]] = {}
        for number, each in enumerate(told):
            by_table.setdefault(EVENT_TABLES[each.type].name, {})[number] = each
        fresh = {number: each for same in by_table.values() for number, each in self._unknown(same)}
        return [fresh[number] for number in sorted(fresh)]

    def _unknown(self, told: Mapping[int, Event]) -> Iterator[tuple[int, Event]]:
        """Of events of one table those with facts that history does not know, by their natural keys."""
        table = EVENT_TABLES[next(iter(told.values())).type]
        facts = pa.concat_tables(
            each.facts.append_column("event", pa.repeat(number, each.facts.num_rows)).append_column(
                "fact", pa.array(range(each.facts.num_rows))
            )
            for number, each in told.items()
        )
        months = None
        if table is not ORDER_MOVE and FACTS[table.name].month_of:
            # The same sale or count is of the same moment; the same move may be told at another.
            found = pc.min_max(pc.strftime(facts["occurred_at"], format="%Y-%m")).as_py()
            months = {"seen": (found["min"], found["max"])}
        keys = ", ".join(f"told.{name}" for name in table.identity)
        same = " AND ".join(f"{_same(table, name)}" for name in table.identity)
        fresh = self.lake.query(
            f"SELECT told.* FROM told ANTI JOIN seen ON {same}"
            f" QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY event, fact) = 1"
            " ORDER BY event, fact",
            tables={"seen": FACTS[table.name]},
            inputs={"told": facts},
            months=months,
        )
        many = pc.value_counts(fresh["event"])
        start = 0
        for number, rows in zip(many.field(0).to_pylist(), many.field(1).to_pylist(), strict=True):
            one = told[number]
            if rows < one.facts.num_rows:
                news = fresh.slice(start, rows).select(list(table.names)).cast(table.arrow)
                one = replace(one, facts=news.combine_chunks())
            start += rows
            yield number, one

    def move_stock(self) -> int:
        """Move the stock positions by all events not yet counted in; units that could not be met."""
        unmet = 0
        with stage("move_stock", self.tenant), self.store.transaction(self.tenant) as tx:
            for partition in tx.behind("stock"):
                unmet += self._move_stock(tx, partition)
        return unmet

    def _move_stock(self, tx: Transaction, partition: int) -> int:
        unmet = 0
        while events := bus.read(tx, "stock", partition):
            unmet += tx.move_stock(stock.moves(events))
            bus.advance(tx, "stock", partition, _last(events))
        return unmet

    def rebuild_stock(self) -> None:
        """Fold the stock positions again from the first event on."""
        with self.store.transaction(self.tenant) as tx:
            # Nobody moves stock meanwhile, not even by a first event of a partition.
            for partition in range(PARTITIONS):
                tx.position("stock", partition, lock=True)
            tx.clear_stock()
            for partition in tx.heads():
                after = 0
                while events := bus.replay(tx, partition, after):
                    tx.move_stock(stock.moves(events))
                    after = _last(events)
                bus.advance(tx, "stock", partition, after)

    def keep_history(self) -> None:
        """Append all events that history does not have yet to the lake."""
        with stage("keep_history", self.tenant), self.store.transaction(self.tenant) as tx:
            for partition in tx.behind("lake"):
                self._keep_history(tx, partition)

    def _keep_history(self, tx: Transaction, partition: int) -> None:
        while events := bus.read(tx, "lake", partition):
            # A writer's position only grows, so the events of one reading go in as one version a table.
            tables: dict[str, list[Event]] = {}
            for each in events:
                tables.setdefault(EVENT_TABLES[each.type].name, []).append(each)
            last = _last(events)
            for name, members in tables.items():
                self._append(FACTS[name], _in_log(members), partition, last)
            bus.advance(tx, "lake", partition, last)

    def _append(self, kept: Kept, rows: pa.Table, partition: int, last: int) -> None:
        """Append what the lake lacks of these rows: a crash may have left it ahead of our position."""
        writer = f"bus:{partition}"
        written = self.lake.written(kept.name, writer) or 0
        fresh = rows.filter(pc.greater(rows["position"], written))
        if fresh.num_rows:
            self.lake.append(kept, fresh, writer=writer, position=last)

    def locations(self) -> list[str]:
        """The locations of which history knows anything."""
        found = self.lake.query(
            "SELECT location_id FROM sale UNION SELECT location_id FROM counted ORDER BY 1",
            tables={"sale": SALE_LINES, "counted": STOCK_COUNTS},
        )
        return [str(each) for each in found["location_id"].to_pylist()]

    def update_features(self, location_id: str, today: date) -> int:
        """Move the features of a location forward to now."""
        with stage("update_features", self.tenant, location=location_id) as watched:
            watched.rows = features.update(self.lake, location_id, today=today, known_by=self.now())
        return watched.rows


def _same(table: Table, name: str) -> str:
    """That a fact and one that is known agree in a column."""
    sign = "IS NOT DISTINCT FROM" if table.column(name).nullable else "="
    return f"told.{name} {sign} seen.{name}"


def _in_log(events: Sequence[Event]) -> pa.Table:
    """The facts of events of one table as history keeps them: with their type and place in the log."""
    many = np.array([each.facts.num_rows for each in events])
    whose = np.repeat(np.arange(len(events)), many)
    return (
        pa.concat_tables(each.facts for each in events)
        .combine_chunks()
        .append_column("event_type", pa.array([each.type for each in events]).take(whose))
        .append_column("position", pa.array([each.position for each in events]).take(whose))
        .append_column("fact", pa.array(np.arange(len(whose)) - (np.cumsum(many) - many)[whose]))
    )


def _last(events: Sequence[Event]) -> int:
    last = events[-1].position
    if last is None:
        raise InvariantBroken("an event read from the bus has a position")
    return last
