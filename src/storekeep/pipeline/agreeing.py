"""What feeds have promised is held against what came of them; how each stands is told when it changes.

Hides which questions to history a contract needs, and how little of history they read. How a feed stands
follows from what is recorded and from the time: whoever looks, and when after a crash, finds the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import bus, ingest
from storekeep.errors import Refused
from storekeep.events import FED, HEADQUARTERS, event
from storekeep.ingest import contracts
from storekeep.ingest.contracts import Came, Contract
from storekeep.lake import FACTS, FEED_STATES, MARKETING, PRODUCTS, TERMS, Kept
from storekeep.pipeline.quarantine import ASIDE, KEPT_ASIDE, Quarantining
from storekeep.retail import FEED_STATE
from storekeep.store import OURSELVES, TOLD_FROM, Transaction
from storekeep.watch import stage

LOOK_EVERY = timedelta(minutes=1)
"""How often a process that runs on looks at what only the time changes."""
CONTRACT = "contract"
"""What contracts are registered as."""
_CHANGED = "FeedStateChanged"
_KEPT: Mapping[str, Kept] = {
    kept.name: kept for kept in (*FACTS.values(), *MARKETING.values(), PRODUCTS, TERMS)
}
_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STANDING = (
    "SELECT location_id, arg_max(state, (occurred_at, known_at)) AS state, max(occurred_at) AS since"
    " FROM state WHERE feed = $source GROUP BY ALL"
)


class Agreeing(Quarantining):
    """From contracts and what came to how feeds stand."""

    _looked_at: datetime | None = None

    def put_contract(self, mapping: ingest.Mapping, contract: Contract | None) -> Contract:
        """Hold a feed against a contract from now on; with none, against the one it has."""
        name = f"{mapping.source}.{mapping.table}"
        with self.store.transaction(self.tenant) as tx:
            known = tx.registered(CONTRACT, name)
            if contract is None:
                contract = contracts.renewed(known[1], mapping) if known else contracts.of(mapping)
            if known is None or known[0] != contract.digest:
                self._put_in_force(tx, CONTRACT, name, contract.digest, contract.text, OURSELVES)
        return contract

    def look_by_time(self) -> int:
        """As `look`, but not again within a minute: of all feeds, also those that bring nothing."""
        now = self.now()
        if self._looked_at is not None and timedelta(0) <= now - self._looked_at < LOOK_EVERY:
            return 0
        changed = self.look()
        self._looked_at = now
        return changed

    def look(self, *sources: str) -> int:
        """Hold feeds (all, or some) against their contracts, and tell how they stand where that changed.

        How many times it did, of each feed and location.
        """
        with self.store.transaction(self.tenant) as tx:
            promised = sorted(self._contracts(tx).keys() & set(sources or self._contracts(tx)))
        if not promised:
            return 0
        self.keep_history()
        with stage("look", self.tenant) as watched:
            for source in promised:
                with self.store.transaction(self.tenant) as tx:
                    watched.rows += self._tell_standing(tx, source)
        return watched.rows

    def _contracts(self, tx: Transaction) -> dict[str, list[Contract]]:
        """The contracts in force, by source: one for each table that it fills."""
        found: dict[str, list[Contract]] = {}
        for _, text in tx.in_force(CONTRACT).values():
            one = contracts.read(text)
            found.setdefault(one.source, []).append(one)
        return found

    def _tell_standing(self, tx: Transaction, source: str, said: str = "") -> int:
        """Tell how a feed stands by now where it did not stand so; with words of a person's, everywhere."""
        # Two that look at once would both tell.
        tx.position(CONTRACT, 0, lock=True)
        now = self.now()
        found = self.lake.query(
            _STANDING, tables={"state": FEED_STATES}, parameters={"source": source}
        )
        before = {row["location_id"]: row for row in found.to_pylist()}
        came = [(each, self._came(tx, each, now)) for each in self._contracts(tx).get(source, [])]
        rows = []
        for location, (state, reason) in contracts.states(came, before).items():
            last = before.get(location)
            if said or state != (last["state"] if last else contracts.STATES[0]):
                # Two states of one moment could not be told apart.
                at = max(now, last["since"] + timedelta(microseconds=1)) if last else now
                row: dict[str, Any] = {"feed": source, "location_id": location, "state": state}
                row |= {"reason": f"{said}{reason}", "occurred_at": at, "known_at": now}
                rows.append(row)
        for row in sorted(rows, key=lambda row: bus.partition_of(self.tenant, row["location_id"])):
            facts = pa.Table.from_pylist([row], schema=FEED_STATE.arrow)
            told = event(_CHANGED, OURSELVES, row["location_id"], now, facts)
            self._publish(tx, f"look/{source}", [told])
        return len(rows)

    # What came --------------------------------------------------------------------------------------

    def _came(self, tx: Transaction, contract: Contract, now: datetime) -> Came:
        """The numbers that a feed's promises are about, and no others."""
        told = self._told_by(tx, contract)
        began = {
            row["subject"]: _moment(row["told_us_min"]).astimezone(contract.zone).date()
            for row in told.group_by("subject").aggregate([("told_us", "min")]).to_pylist()
        }
        stopped = [
            row["said"]
            for row in tx.drifts(contract.source)
            if row["stops"] and row["table"] == contract.table.name
        ]
        since = self._lately(contract, told)
        rows, touched = self._rows(contract, told, since)
        return Came(
            now,
            sorted(began),
            began,
            rejected=self._rejected(contract, since),
            rows=rows,
            days=self._days(contract, told, now, touched),
            touched=touched,
            latest=self._latest(contract, told, now),
            stopped=stopped,
        )

    def _told_by(self, tx: Transaction, contract: Contract) -> pa.Table:
        """What a feed has told by now; of the log what came since this process looked last is read."""
        feed = contract.source, contract.table.name
        before, told = self._so_far.get(feed, ({}, TOLD_FROM.empty_table()))
        # What is up to a head has committed: nothing can appear there any more.
        heads = tx.heads()
        places = {
            partition: (before.get(partition, 0), last)
            for partition, last in heads.items()
            if last > before.get(partition, 0)
        }
        news = tx.told_from(contract.source, FED[contract.table.name].types, places)
        if news.num_rows:
            told = pa.concat_tables([told, news]).combine_chunks()
        self._so_far[feed] = heads, told
        return told

    def _lately(self, contract: Contract, told: pa.Table) -> datetime:
        """From when on what came is what came lately."""
        newest = [datetime.min.replace(tzinfo=UTC) + contracts.LATELY]
        if told.num_rows:
            newest.append(_moment(pc.max(told["told_us"]).as_py()))
        if contract.rejected:
            last = self.lake.query(
                "SELECT max(known_at) AS newest FROM kept WHERE source = $source",
                tables=KEPT_ASIDE,
                parameters={"source": contract.source},
            )
            newest += [each for each in last["newest"].to_pylist() if each is not None]
        return max(newest) - contracts.LATELY

    def _rejected(self, contract: Contract, since: datetime) -> int:
        """The rows in quarantine that came lately."""
        if not contract.rejected:
            return 0
        found = self.lake.query(
            f"SELECT count(*) AS rows FROM ({ASIDE}) WHERE source = $source AND known_at >= $since",
            tables=KEPT_ASIDE,
            parameters={"source": contract.source, "since": since, "known_by": self.now()},
        )
        return int(found["rows"][0].as_py())

    def _rows(
        self, contract: Contract, told: pa.Table, since: datetime
    ) -> tuple[dict[str, list[int]], frozenset[Any]]:
        """Of each location the rows that came lately and those not as agreed, and the days they are of."""
        recent = told.filter(pc.greater_equal(told["told_us"], pa.scalar(_micros(since))))
        if not recent.num_rows or not (contract.rejected or contract.rows or contract.volumes):
            return {}, frozenset()
        asked = [self._violated(promise) for promise in contract.rows]
        counts = ["count(*) AS rows", *(f"{sql} AS p{n}" for n, (sql, _, _) in enumerate(asked))]
        days = f"list(DISTINCT {_day(contract)})" if contract.volumes else "[]"
        # The places in the log bound which files of history are opened.
        low, high = pc.min_max(recent["position"]).as_py().values()
        found = self._ask(
            contract,
            recent,
            ", ".join([*counts, f"{days} AS days"]),
            "position BETWEEN $low AND $high",
            {"low": low, "high": high}
            | {name: value for _, given, _ in asked for name, value in given.items()},
            others={name: _KEPT[name] for _, _, name in asked if name},
        )
        rows = {
            row["location_id"]: [row["rows"], *(row[f"p{place}"] for place in range(len(asked)))]
            for row in found
        }
        return rows, frozenset(day for row in found for day in row["days"] if day is not None)

    def _ask(
        self,
        contract: Contract,
        told: pa.Table,
        select: str,
        where: str,
        parameters: Mapping[str, Any],
        *,
        others: Mapping[str, Kept] | None = None,
        months: tuple[date, date] | None = None,
    ) -> list[dict[str, Any]]:
        """What history says of the facts that were told, of each location or whatever else they are about."""
        fed = FED[contract.table.name]
        about = "location_id" if fed.subject == "location_id" else f"{fed.subject} AS location_id"
        same = f"fact.{fed.subject} = told.subject AND"
        if fed.subject is None:
            about, same = f"'{HEADQUARTERS}' AS location_id", ""
        asked = f"{select} {where}"
        zone = {"zone": contract.zone.key} if "$zone" in asked else {}
        found = self.lake.query(
            f"SELECT {about}, {select} FROM fact SEMI JOIN told ON {same} fact.position = told.position"
            f" WHERE {where} GROUP BY 1",
            tables={"fact": FACTS[contract.table.name], **(others or {})},
            inputs={"told": told},
            parameters={**parameters, **zone},
            months=None if months is None else {"fact": _months(*months)},
        )
        return list(found.to_pylist())

    def _violated(self, promise: contracts.RowPromise) -> tuple[str, Mapping[str, Any], str | None]:
        """SQL that counts what is not as agreed, with its values and the table it looks into.

        Where a home has no list of what there is, nothing is unknown.
        """
        if promise.among is None:
            return promise.violated, promise.parameters, None
        name = promise.among.partition(".")[0]
        if name not in _KEPT or self.lake.version(name) < 0:
            return "0", {}, None
        return promise.violated, promise.parameters, name

    def _days(
        self, contract: Contract, told: pa.Table, now: datetime, touched: frozenset[Any]
    ) -> dict[tuple[str, Any], int]:
        """The rows of the days that are looked at, by location and day."""
        if not contract.volumes or not told.num_rows:
            return {}
        days = set(touched)
        for promise in contract.volumes:
            last = contract.last_complete_day(now, promise.grace_hours)
            days |= {last - _DAY * each for each in range(promise.days)}
        day = _day(contract)
        found = self._ask(
            contract,
            told,
            f"histogram({day}) AS days",
            f"list_contains($days, {day})",
            {"days": sorted(days)},
            months=(min(days), max(days)),
        )
        return {(row["location_id"], day): many for row in found for day, many in row["days"]}

    def _latest(self, contract: Contract, told: pa.Table, now: datetime) -> dict[str, datetime]:
        """When the newest happened at each location, where that is as late as was promised."""
        if not contract.freshness or not told.num_rows:
            return {}
        since = now - timedelta(hours=max(each.hours for each in contract.freshness))
        found = self._ask(
            contract,
            told,
            "max(occurred_at) AS latest",
            "occurred_at BETWEEN $since AND $now",
            {"since": since, "now": now},
            months=(since.date(), now.date()),
        )
        return {row["location_id"]: row["latest"] for row in found}

    # The shape of files -----------------------------------------------------------------------------

    def held(self, contract: Contract, loaded: Iterator[ingest.Loaded]) -> Iterator[ingest.Loaded]:
        """Batches of files; raises `Drifted` before one of a file with too many cells that cannot be read."""
        for each in loaded:
            if each.batch == 0:
                for column, said in contracts.broken_cells(
                    contract, each.unreadable, each.file_rows
                ):
                    raise ingest.Drifted(
                        f"{each.file}, column {column!r}: {said}", each.file, column
                    )
            yield each

    def note_columns(self, contract: Contract, came: Mapping[str, str]) -> None:
        """Files of a feed were as agreed, and it goes on; columns that nobody spoke of are noted."""
        source, table = contract.source, contract.table.name
        with self.store.transaction(self.tenant) as tx:
            tx.drop_drifts(source, table, sorted(contract.columns))
            for column, file in came.items():
                if column not in contract.columns:
                    tx.add_drift(source, table, column, file, self.now())

    def stop_feed(self, contract: Contract, drifted: ingest.Drifted) -> Refused:
        """A file is not as agreed: the feed is breached until one is, or a person lets it go on; what to say.

        Of a feed that has brought nothing yet the mapping is wrong, not the file.
        """
        with self.store.transaction(self.tenant) as tx:
            if not self._told_by(tx, contract).num_rows:
                return drifted
            named = (contract.source, contract.table.name, drifted.column)
            tx.add_drift(*named, drifted.file, self.now(), stops=str(drifted))
        self.look(contract.source)
        return Refused(
            f"{drifted}; nothing of it was taken in, and feed {contract.source} is stopped until a file keeps"
            f" its contract, or a person lets it go on: storekeep feeds resume {contract.source}"
        )

    def resume_feed(self, source: str, by: str, reason: str) -> None:
        """A person lets a stopped feed go on; it stands from now on as its other promises say.

        Raises `Refused` when it is not stopped.
        """
        self.keep_history()
        with self.store.transaction(self.tenant) as tx:
            if not tx.drop_drifts(source):
                raise Refused(
                    f"feed {source} is not stopped; `storekeep feeds` shows how feeds stand"
                )
            self._tell_standing(tx, source, f"{by} let it go on ({reason}); ")


def _day(contract: Contract) -> str:
    """The trading day of a row, in SQL."""
    if "day" in contract.table.names:
        return "day"
    return "CAST(timezone($zone, occurred_at) AS DATE)"


def _months(first: date, last: date) -> tuple[str, str]:
    """The months of history that have the trading days from one to another, wherever on earth."""
    return f"{first - _DAY:%Y-%m}", f"{last + _DAY:%Y-%m}"


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
