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
from storekeep.lake import FACTS, SALE_LINES, STOCK_COUNTS, Kept, month
from storekeep.pipeline.tracing import Tracing
from storekeep.retail import ORDER_MOVE, Table
from storekeep.store import PARTITIONS, Transaction
from storekeep.watch import stage


class Intake(Tracing):
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
            parts = (
                event(type_, source, location_id, told.time, fresh.slice(start, bus.MAX_FACTS))
                for start in range(0, fresh.num_rows, bus.MAX_FACTS)
            )
            self._publish(tx, f"told/{source}", parts, told.time)
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
        many = [each.facts.num_rows for each in told.values()]
        facts = pa.concat_tables(each.facts.select(table.identity) for each in told.values())
        within = np.arange(sum(many)) - np.repeat(np.cumsum([0, *many[:-1]]), many)
        facts = facts.append_column("event", pa.array(np.repeat(list(told), many)))
        facts = facts.append_column("fact", pa.array(within))
        months = None
        if table is not ORDER_MOVE and FACTS[table.name].month_of:
            # The same sale or count is of the same moment; the same move may be told at another.
            times = [pc.min_max(each.facts["occurred_at"]).as_py() for each in told.values()]
            ends = min(each["min"] for each in times), max(each["max"] for each in times)
            months = {"seen": (month(ends[0]), month(ends[1]))}
        known = self.lake.query(
            _KNOWN.format(
                keys=", ".join(f"told.{name}" for name in table.identity),
                seen=" AND ".join(_same(table, name, "seen") for name in table.identity),
                again=" AND ".join(_same(table, name, "again") for name in table.identity),
            ),
            tables={"seen": FACTS[table.name]},
            inputs={"told": facts},
            months=months,
        )
        by_event = known["event"].to_numpy()
        for number, one in told.items():
            old = known["fact"].to_numpy()[by_event == number]
            if not len(old):
                yield number, one
            elif len(old) < one.facts.num_rows:
                fresh = np.ones(one.facts.num_rows, dtype=bool)
                fresh[old] = False
                news = one.facts.filter(pa.array(fresh)).combine_chunks()
                yield number, replace(one, facts=news)

    def move_stock(self) -> None:
        """Move the stock positions by all events not yet counted in."""
        with stage("move_stock", self.tenant), self.store.transaction(self.tenant) as tx:
            for partition in tx.behind("stock"):
                self._move_stock(tx, partition)

    def _move_stock(self, tx: Transaction, partition: int) -> None:
        while events := bus.read(tx, "stock", partition):
            self._fold(tx, partition, events)
            bus.advance(tx, "stock", partition, _last(events))

    def _fold(self, tx: Transaction, partition: int, events: Sequence[Event]) -> None:
        """Move stock positions by events of a partition, as they follow in it."""
        counted = None
        if since := stock.oldest(events):
            counted = tx.counted_after(sorted({each.subject for each in events}), since)
        tx.move_stock(stock.moves(events, counted))
        if counts := [each.facts for each in events if each.type == "StockCounted"]:
            # What moved since a count may have come before it, and only history has that. The head is locked
            # before history, as by those who publish.
            tx.lock_partition(partition)
            self._keep_history(tx, partition)
            tx.count_stock(features.recounted(self.lake, pa.concat_tables(counts), _last(events)))

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
                    self._fold(tx, partition, events)
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
                self._append(tx, FACTS[name], members, partition, last)
            bus.advance(tx, "lake", partition, last)

    def _append(
        self, tx: Transaction, kept: Kept, told: Sequence[Event], partition: int, last: int
    ) -> None:
        """Append what the lake lacks of these events: a crash may have left it ahead of our position."""
        writer = f"bus:{partition}"
        written = self.lake.written(kept.name, writer) or 0
        there = [each for each in told if (each.position or 0) <= written]
        if there:
            version = self.lake.brought(kept.name, writer, _last(there))
            self._trace_kept(tx, kept.name, there, partition, version)
        if fresh := told[len(there) :]:
            version = self.lake.append(kept, _in_log(fresh), writer=writer, position=last)
            self._trace_kept(tx, kept.name, fresh, partition, version)

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
            now = self.now()
            moved = features.update(self.lake, location_id, today=today, known_by=now)
            self._trace_features(location_id, moved, now)
            watched.rows = moved.items
        return watched.rows


# Facts that history knows, and those that an earlier one of the same reading tells already.
_KNOWN = """
    SELECT told.event, told.fact FROM told SEMI JOIN seen ON {seen}
    UNION
    SELECT told.event, told.fact
    FROM told SEMI JOIN (SELECT {keys} FROM told GROUP BY ALL HAVING count(*) > 1) AS again ON {again}
    QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY told.event, told.fact) > 1
"""


def _same(table: Table, name: str, other: str) -> str:
    """That a fact and another agree in a column."""
    sign = "IS NOT DISTINCT FROM" if table.column(name).nullable else "="
    return f"told.{name} {sign} {other}.{name}"


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
