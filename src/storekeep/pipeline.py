"""The order of the stages: from what the shop reports to what is done, and back.

The only module that knows which stage follows which. Each method is one step that commits as a whole; a
crash between two steps, or inside one, is mended by running the steps again (law 4). Time comes from the
caller: the same steps run live, in a demonstration and in a replay.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import bus, features, ledger, policy, servers, stock
from storekeep.actions import (
    PLACE_PURCHASE_ORDER,
    Adapter,
    BackOffice,
    Order,
    arrivals,
    effects,
    pending,
)
from storekeep.agents import replenish
from storekeep.config import Settings
from storekeep.decisions import (
    Decided,
    Evidence,
    Proposed,
    Receipt,
    Selection,
    Status,
    decision_ids,
    stamp,
    step,
)
from storekeep.errors import InvariantBroken, Permanent, Refused, Transient, Unknown
from storekeep.events import EVENT_TABLES, Event, event
from storekeep.lake import FACTS, SALE_LINES, STOCK_COUNTS, Kept, Lake, facts_of
from storekeep.ledger import Batch, Entry, Signer, Step, Terms
from storekeep.retail import ORDER_MOVE
from storekeep.store import PARTITIONS, Store, Task, Transaction
from storekeep.watch import stage

LISTENERS: Mapping[str, str] = {"SaleRecorded": replenish.NAME}
_COMPENSATE = "compensate:"
# An event may hold 100,000 facts; what is read at once bounds the memory of a step.
_EVENTS_AT_ONCE = 4


def utc_now() -> datetime:
    """The time, for homes that live in the present."""
    return datetime.now(UTC)


@contextmanager
def opened(
    settings: Settings, *, now: Callable[[], datetime] = utc_now, purpose: str | None = "live"
) -> Iterator[Pipeline]:
    """The pipeline of a home's tenant, its servers running and its schema up to date.

    A tenant that is not there yet is made, for `live` use or for a `demo`; with no purpose it must be
    there. Raises `Refused`, `Transient`
    or `Permanent` when the home cannot be used, saying what to do.
    """
    name = settings.tenant
    with servers.lease(settings) as database, Store(database.conninfo) as store:
        store.migrate()
        with store.transaction(name) as tx:
            if purpose is not None:
                tx.make_tenant(purpose)
            elif tx.purpose() is None:
                raise Refused(f"this home has no tenant {name}; name another with --tenant")
        back_office = BackOffice(database.conninfo, name)
        with closing(back_office), Lake(settings.home / "lake", name) as lake:
            yield Pipeline(
                store=store,
                lake=lake,
                tenant=name,
                signing=ledger.signer(settings.home),
                adapters={PLACE_PURCHASE_ORDER.name: back_office},
                now=now,
                worker=f"{platform.node()}:{os.getpid()}",
            )


@dataclass(frozen=True)
class Run:
    """What one run of an agent came to."""

    batch_id: str
    evaluated: int
    verdicts: Mapping[str, int]


@dataclass
class Pipeline:
    """One tenant's stages over one store, one lake and its adapters."""

    store: Store
    lake: Lake
    tenant: str
    signing: Signer
    adapters: Mapping[str, Adapter]
    now: Callable[[], datetime] = utc_now
    worker: str = "worker"
    lease: timedelta = timedelta(seconds=30)
    _rulebooks: dict[str, policy.Rulebook] = field(default_factory=dict)

    # From the shop ----------------------------------------------------------------------------------

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
            # While the head is locked nothing new can appear, so what the lake has after catching up is all
            # there is.
            tx.lock_partition(partition)
            self._keep_history(tx, partition)
            fresh = self._unknown(told)
            for start in range(0, fresh.num_rows, bus.MAX_FACTS):
                part = fresh.slice(start, bus.MAX_FACTS)
                bus.publish(tx, event(type_, source, location_id, told.time, part))
        return int(fresh.num_rows)

    def _unknown(self, told: Event) -> pa.Table:
        """The facts that history does not know by their natural keys."""
        table = EVENT_TABLES[told.type]
        months = None
        if table is not ORDER_MOVE:
            # The same sale or count is of the same moment; the same move may be told at another.
            found = pc.min_max(pc.strftime(told.facts["occurred_at"], format="%Y-%m")).as_py()
            months = {"seen": (found["min"], found["max"])}
        return self.lake.query(
            f"SELECT fresh.* FROM fresh ANTI JOIN seen USING ({', '.join(table.key)})",
            tables={"seen": FACTS[table.name]},
            inputs={"fresh": told.facts},
            months=months,
        ).cast(table.arrow)

    def move_stock(self) -> int:
        """Move the stock positions by all events not yet counted in; units that could not be met."""
        unmet = 0
        with stage("move_stock", self.tenant), self.store.transaction(self.tenant) as tx:
            for partition in tx.heads():
                unmet += self._move_stock(tx, partition)
        return unmet

    def _move_stock(self, tx: Transaction, partition: int) -> int:
        unmet = 0
        while events := bus.read(tx, "stock", partition, limit=_EVENTS_AT_ONCE):
            for each in events:
                unmet += tx.move_stock(stock.moves(each))
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
                while events := bus.replay(tx, partition, after, limit=_EVENTS_AT_ONCE):
                    for each in events:
                        tx.move_stock(stock.moves(each))
                    after = _last(events)
                bus.advance(tx, "stock", partition, after)

    def keep_history(self) -> None:
        """Append all events that history does not have yet to the lake."""
        with stage("keep_history", self.tenant), self.store.transaction(self.tenant) as tx:
            for partition in tx.heads():
                self._keep_history(tx, partition)

    def _keep_history(self, tx: Transaction, partition: int) -> None:
        while events := bus.read(tx, "lake", partition, limit=_EVENTS_AT_ONCE):
            # A writer's position only grows, so the events of one reading go in as one version a table.
            tables: dict[str, list[pa.Table]] = {}
            for each in events:
                facts = facts_of(each)
                name = EVENT_TABLES[each.type].name
                tables.setdefault(name, []).append(facts)
            last = _last(events)
            for name, parts in tables.items():
                rows = pa.concat_tables(parts)
                self._append(FACTS[name], rows, partition, last)
            bus.advance(tx, "lake", partition, last)

    def _append(self, kept: Kept, rows: pa.Table, partition: int, last: int) -> None:
        """Append what the lake lacks of these rows: a crash may have left it ahead of our position."""
        writer = f"bus:{partition}"
        written = self.lake.written(kept.name, writer) or 0
        fresh = rows.filter(pc.greater(rows["position"], written))
        if fresh.num_rows:
            self.lake.append(kept, fresh, writer=writer, position=last)

    def skip_to_present(self, location_id: str) -> None:
        """Let no agent wake for what has been reported so far, such as a history that was taken in."""
        partition = bus.partition_of(self.tenant, location_id)
        with self.store.transaction(self.tenant) as tx:
            for listener in set(LISTENERS.values()):
                head = tx.heads().get(partition, 0)
                bus.advance(tx, _consumer(listener, location_id), partition, head)

    def locations(self) -> list[str]:
        """The locations of which history knows anything."""
        found = self.lake.query(
            "SELECT location_id FROM sale UNION SELECT location_id FROM counted ORDER BY 1",
            tables={"sale": SALE_LINES, "counted": STOCK_COUNTS},
        )
        return [str(each) for each in found["location_id"].to_pylist()]

    def round(self, today: date, locations: Sequence[str] = ()) -> dict[str, Run | None]:
        """One round for live homes: count in what is new, decide for each location, and act."""
        self.move_stock()
        self.keep_history()
        runs: dict[str, Run | None] = {}
        for location_id in locations or self.locations():
            self.update_features(location_id, today)
            runs[location_id] = self.decide(location_id)
        self.act()
        return runs

    def update_features(self, location_id: str, today: date) -> int:
        """Move the features of a location forward to now."""
        with stage("update_features", self.tenant, location=location_id) as watched:
            watched.rows = features.update(self.lake, location_id, today=today, known_by=self.now())
        return watched.rows

    # Deciding ---------------------------------------------------------------------------------------

    def decide(self, location_id: str) -> Run | None:
        """Wake the agents that listen for what a location reported; None when nobody has to.

        Evidence, proposals, verdicts, ledger, pending actions, requests for approval, what limits were
        used, and the agent's place in the event log commit together.
        """
        self.lapse()
        partition = bus.partition_of(self.tenant, location_id)
        with (
            stage("decide", self.tenant, location=location_id) as watched,
            self.store.transaction(self.tenant) as tx,
        ):
            consumer = _consumer(replenish.NAME, location_id)
            place = tx.position(consumer, partition, lock=True)
            unread = tx.unread(partition, location_id, place)
            if not unread:
                return None
            bus.advance(tx, consumer, partition, max(unread.values()))
            if not any(LISTENERS.get(type_) == replenish.NAME for type_ in unread):
                return None
            self._move_stock(tx, partition)
            evidence = self._snapshot(tx, location_id, partition)
            proposed = replenish.propose(evidence, PLACE_PURCHASE_ORDER)
            rulebook = self.rulebook(tx, replenish.NAME)
            used = _used(tx, rulebook, proposed, evidence)
            judgement = policy.judge(rulebook, proposed, evidence, used)
            batch = Batch(
                batch_id=decision_ids(self.now(), f"{self.tenant}/{location_id}", [str(place)])[0],
                at=self.now(),
                location_id=location_id,
                evidence=evidence,
                proposed=proposed,
                judgement=judgement,
                used=used,
                terms=_terms(rulebook),
            )
            ledger.record(tx, batch, self.signing)
            self._commit_orders(tx, batch)
            watched.note(batch=batch.batch_id)
            watched.rows = proposed.proposals.num_rows + proposed.holds.num_rows
            return Run(batch.batch_id, evidence.values.num_rows, batch.counts())

    def _commit_orders(self, tx: Transaction, batch: Batch) -> None:
        """What is decided counts as on its way at once, so that nothing is ordered twice meanwhile."""
        lines = batch.committed()
        if lines.num_rows:
            facts = stock.order_moves(lines, "committed", batch.at)
            bus.publish(
                tx, event("OrderCommitted", batch.batch_id, batch.location_id, batch.at, facts)
            )

    def _snapshot(
        self, tx: Transaction, location_id: str, partition: int, only: list[str] | None = None
    ) -> Evidence:
        return features.snapshot(
            self.lake,
            location_id,
            known_by=self.now(),
            stock=tx.stock(location_id),
            position=tx.position("stock", partition),
            only=only,
        )

    # Acting -----------------------------------------------------------------------------------------

    def act(self, limit: int = 1000) -> int:
        """Carry out pending actions that are due; how many came to an end, well or badly."""
        done = 0
        while True:
            with self.store.transaction(self.tenant) as tx:
                tasks = tx.lease_tasks(self.worker, limit, self.lease)
            if not tasks:
                return done
            for action in sorted({task.action for task in tasks}):
                with stage("act", self.tenant, action=action) as watched:
                    members = [task for task in tasks if task.action == action]
                    watched.rows = self._act(action, members)
                    done += watched.rows

    def _act(self, action: str, tasks: Sequence[Task]) -> int:
        adapter = self._adapter(action.removeprefix(_COMPENSATE))
        orders = [Order(task.decision_id, task.group, json.loads(task.task)) for task in tasks]
        results: Sequence[Receipt | str]
        try:
            results = self._call(adapter, action, orders)
        except (Transient, Unknown):
            delay = timedelta(seconds=min(60.0, 0.5 * 2.0 ** min(tasks[0].attempts, 7)))
            with self.store.transaction(self.tenant) as tx:
                tx.postpone_tasks([task.decision_id for task in tasks], delay)
            return 0
        except Permanent as error:
            if len(tasks) > 1:
                # One that cannot be done must not keep the others from it.
                return sum(self._act(action, [task]) for task in tasks)
            results = [str(error)]
        self._settle(action, orders, results)
        return len(results)

    def _adapter(self, action: str) -> Adapter:
        adapter = self.adapters.get(action)
        if adapter is None:
            raise Refused(f"no adapter carries out {action}; name one in the settings")
        return adapter

    def _call(
        self, adapter: Adapter, action: str, orders: Sequence[Order]
    ) -> Sequence[Receipt | str]:
        """Call the outside system; after an unknown outcome look before anything is sent again."""
        keys = [order.decision_id for order in orders]
        if action.startswith(_COMPENSATE):
            with self.store.transaction(self.tenant) as tx:
                steps = ledger.steps(tx, keys)
            # The receipts of then: what was changed since is not touched.
            return adapter.compensate([ledger.receipt_of(steps[key]) for key in keys], self.now())
        try:
            return adapter.execute(orders, self.now())
        except Unknown as error:
            found = adapter.find(keys)
            if len(found) < len(keys):
                raise Transient(f"not all of it was found afterwards: {error}") from error
            return [found[key] for key in keys]

    def _settle(
        self, action: str, orders: Sequence[Order], results: Sequence[Receipt | str]
    ) -> None:
        """Record what came of pending actions, tell the bus, and take them off the list.

        An action that is on the list no more was taken over when our lease had run out, and recorded then.
        """
        reverting = action.startswith(_COMPENSATE)
        good, bad = ("compensated", "needs_person") if reverting else ("executed", "failed")
        kind = "reversal" if reverting else "outcome"
        ids = [order.decision_id for order in orders]
        with self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions(ids)
            held = tx.drop_tasks(ids)
            ends = [
                (order, good if isinstance(result, Receipt) else bad, result)
                for order, result in zip(orders, results, strict=True)
                if order.decision_id in held
            ]
            if ends:
                entries = [
                    Entry(kind, ledger.outcome(result, self.now()), order.decision_id, end)
                    for order, end, result in ends
                ]
                freed = ("failed", "compensated")
                tx.drop_uses([order.decision_id for order, end, _ in ends if end in freed])
                self._append_entries(tx, entries, statuses)
                self._tell(tx, ends)
        gone = {key for key in ids if key not in held and statuses.get(key) == Status.REVERTED}
        late = [each for each in results if isinstance(each, Receipt) and not reverting]
        self._undo(action, [each for each in late if each.idempotency_key in gone])

    def _undo(self, action: str, late: Sequence[Receipt]) -> None:
        """Take back what was done after its decision had been withdrawn, our lease having run out."""
        if not late:
            return
        for was, now in zip(late, self._adapter(action).compensate(late, self.now()), strict=True):
            if isinstance(now, str):
                raise InvariantBroken(
                    f"{was.reference} was placed although decision {was.idempotency_key} had been "
                    f"withdrawn, and cannot be taken back: {now}; see to it in {was.adapter}"
                )

    def _append_entries(
        self, tx: Transaction, entries: Sequence[Entry], statuses: Mapping[str, str]
    ) -> None:
        """Record entries about decisions, and move the decisions to where the entries bring them."""
        following = {}
        for each in entries:
            if each.decision_id is None or each.step is None:
                raise InvariantBroken("an entry about a decision names it and its step")
            following[each.decision_id] = str(step(statuses[each.decision_id], each.step))
        # The same may be said again of the same decisions at the same moment.
        seed = "/".join([*sorted(following), str(tx.ledger_head()[0]), entries[0].text])
        batch_id = decision_ids(self.now(), f"{self.tenant}/{entries[0].step}", [seed])[0]
        ledger.append(
            tx, ledger.rows(entries), batch_id=batch_id, at=self.now(), signing=self.signing
        )
        tx.move_decisions(following)

    def _tell(
        self, tx: Transaction, ends: Sequence[tuple[Order, str, Receipt | str | None]]
    ) -> None:
        """Confirmed effects come back as events."""
        for each in effects(ends, self.now()):
            bus.publish(tx, each)

    def receive(self, decision_ids_: Sequence[str]) -> int:
        """Goods of confirmed lines arrived, as the back office says; of how many lines that was news."""
        adapter = self._adapter(PLACE_PURCHASE_ORDER.name)
        found = adapter.find(decision_ids_).values()
        return sum(
            self.publish("GoodsReceived", adapter.name, location_id, facts)
            for location_id, facts in arrivals(found, self.now()).items()
        )

    # Rulebooks --------------------------------------------------------------------------------------

    def rulebook(self, tx: Transaction, name: str, version: str | None = None) -> policy.Rulebook:
        """The rulebook in force, or the version asked for; the one that ships when there is none yet."""
        registered = tx.registered("rulebook", name, version)
        if registered is None:
            if version is not None:
                raise Refused(f"version {version} of rulebook {name} is not in the registry")
            text = (policy.SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
            shipped = policy.load(text, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
            by = "storekeep"
            tx.register("rulebook", name, shipped.version, text, self.now(), by)
            tx.promote("rulebook", name, shipped.version, self.now(), by)
            registered = (shipped.version, text)
        if registered[0] not in self._rulebooks:
            self._rulebooks[registered[0]] = policy.load(
                registered[1], action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA
            )
        return self._rulebooks[registered[0]]

    def promote(self, path: Path, by: str) -> str:
        """Put a rulebook from a file in force; its version."""
        loaded = policy.load(path, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
        text = path.read_text(encoding="utf-8")
        with self.store.transaction(self.tenant) as tx:
            tx.register("rulebook", replenish.NAME, loaded.version, text, self.now(), by)
            tx.promote("rulebook", replenish.NAME, loaded.version, self.now(), by)
        return loaded.version

    # A person's word --------------------------------------------------------------------------------

    def approve(self, decision_ids_: Sequence[str], by: str) -> dict[str, str]:
        """A person agrees to escalated decisions; what became of each, by id.

        The evidence is taken afresh and the same proposal judged again: what policy forbids by now, or would
        now lower, stays undone. Raises `Refused` for a decision that does not wait for approval.
        """
        with stage("approve", self.tenant), self.store.transaction(self.tenant) as tx:
            requests = self._requests(tx, decision_ids_)
            late = {key for key, row in requests.items() if row["deadline"] < self.now()}
            verdicts = self._judge_again(tx, sorted(requests.keys() - late))
            ends = dict.fromkeys(late, "expired")
            for key, verdict in verdicts.items():
                agreed = verdict["verdict"] in (Decided.ALLOW, Decided.CLIP)
                ends[key] = "approved" if agreed else "denied"
            self._answer(tx, ends, {key: self._said(by, verdicts.get(key, {})) for key in ends})
        return dict(sorted(ends.items()))

    def reject(self, decision_ids_: Sequence[str], by: str, reason: str) -> dict[str, str]:
        """A person says no to escalated decisions: the safe default stands."""
        with stage("reject", self.tenant), self.store.transaction(self.tenant) as tx:
            ends = dict.fromkeys(sorted(self._requests(tx, decision_ids_)), "rejected")
            said = {**self._said(by, {}), "reason": reason}
            self._answer(tx, ends, dict.fromkeys(ends, said))
        return ends

    def lapse(self) -> int:
        """Requests that nobody answered in time lapse: the safe default stands; how many there were."""
        with stage("lapse", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            late = {row["decision_id"]: row for row in tx.approvals(until=self.now())}
            statuses = tx.lock_decisions(list(late))
            ends = {key: "expired" for key in late if statuses[key] == Status.ESCALATED}
            said = {
                key: {
                    **self._said("nobody", {}),
                    "reason": f"nobody answered until {stamp(late[key]['deadline'])}",
                    "safe_default": late[key]["safe_default"],
                }
                for key in ends
            }
            self._answer(tx, ends, said)
            watched.rows = len(ends)
        return len(ends)

    def _answer(
        self, tx: Transaction, ends: Mapping[str, str], said: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Record the answers to requests, and what follows from each."""
        if not ends:
            return
        keys = sorted(ends)
        entries = [Entry("approval", said[key], key, ends[key]) for key in keys]
        self._append_entries(tx, entries, dict.fromkeys(keys, str(Status.ESCALATED)))
        tx.drop_approvals(keys)
        orders = self._orders(tx, keys)
        approved = [orders[key] for key in keys if ends[key] == "approved"]
        tx.add_tasks(pending(approved, PLACE_PURCHASE_ORDER.name, entries[0].text))
        tx.drop_uses([key for key in keys if ends[key] != "approved"])
        self._tell(tx, [(orders[key], ends[key], None) for key in keys])

    def _said(self, by: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
        return {"by": by, "at": stamp(self.now()), "rules": verdict.get("rules", [])}

    def _requests(self, tx: Transaction, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        statuses = tx.lock_decisions(list(ids))
        rows = {row["decision_id"]: row for row in tx.approvals(list(ids))}
        for key in ids:
            if key not in statuses:
                raise Refused(f"there is no decision {key}; see `storekeep approvals list`")
            if key not in rows:
                raise Refused(f"decision {key} does not wait for approval: it is {statuses[key]}")
        return rows

    def _judge_again(self, tx: Transaction, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The verdicts on the same proposals by the evidence of now, escalation being answered for."""
        out: dict[str, dict[str, Any]] = {}
        by_location: dict[str, list[str]] = {}
        for key, order in self._orders(tx, ids).items():
            by_location.setdefault(order.parameters["location_id"], []).append(key)
        for location_id, keys in by_location.items():
            partition = bus.partition_of(self.tenant, location_id)
            self._move_stock(tx, partition)
            proposed = ledger.proposed(tx, keys, PLACE_PURCHASE_ORDER)
            skus = proposed.proposals["sku"].to_pylist()
            evidence = features.without_own(
                self._snapshot(tx, location_id, partition, skus), proposed
            )
            rulebook = self.rulebook(tx, replenish.NAME)
            used = _used(tx, rulebook, proposed, evidence, without=keys)
            subjects = frozenset(proposed.proposals["subject"].to_pylist())
            judged = policy.judge(rulebook, proposed, evidence, used, approved=subjects)
            clippable = list(proposed.action.clippable)
            asked, left = (
                table.select(clippable).to_pylist()
                for table in (proposed.proposals, judged.proposals)
            )
            verdicts = judged.verdicts.to_pylist()
            for key, verdict, before, after in zip(keys, verdicts, asked, left, strict=True):
                # A person agreed to this quantity, not to what would be left of it.
                out[key] = verdict if before == after else {**verdict, "verdict": Decided.DENY}
        return out

    def _orders(self, tx: Transaction, ids: Sequence[str]) -> dict[str, Order]:
        """What recorded decisions ordered, by id."""
        return {
            key: Order(key, steps[0]["parameters"]["order_group"], steps[0]["parameters"])
            for key, steps in ledger.steps(tx, ids).items()
        }

    # Back again -------------------------------------------------------------------------------------

    def plan_revert(self, chosen: Selection) -> list[Step]:
        """What a revert of the selected decisions would do, newest first; nothing is done yet."""
        with self.store.transaction(self.tenant) as tx:
            rows = [row for row in tx.decisions(chosen) if row["verdict"] != Decided.HOLD]
            ids = [row["decision_id"] for row in rows]
            steps, begun = ledger.steps(tx, ids), tx.begun_tasks(ids)
        found: dict[str, Receipt] = {}
        for action in sorted({row["action"] for row in rows}):
            done = [row["decision_id"] for row in rows if row["action"] == action]
            found |= self._adapter(action).find(done)
        return [
            ledger.plan(row, steps[key], found, held=begun.get(key))
            for key, row in zip(ids, rows, strict=True)
        ]

    def revert(self, plan: Sequence[Step], by: str, reason: str) -> int:
        """Carry out a plan: withdraw what is not done, ask for the rest to be compensated by `act`.

        Decisions that moved on since the plan was made are left alone, and so are those that a worker has
        begun to carry out. Returns how many were taken on.
        """
        with stage("revert", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            statuses = tx.lock_decisions([each.decision_id for each in plan])
            steps = {"withdraw": "withdrawn", "compensate": "reverting", "person": "needs_person"}
            chosen = [
                each
                for each in plan
                if each.what in steps and statuses.get(each.decision_id) == each.status
            ]
            under_way = self._under_way(tx, chosen)
            chosen = [each for each in chosen if each.decision_id not in under_way]
            if not chosen:
                return 0
            said = {"by": by, "at": stamp(self.now()), "reverses": True}
            entries = [
                Entry(
                    "reversal",
                    {**said, "reason": reason if each.what != "person" else each.why},
                    each.decision_id,
                    steps[each.what],
                )
                for each in chosen
            ]
            self._append_entries(tx, entries, statuses)
            self._take_back(tx, chosen)
            watched.rows = len(chosen)
            return len(chosen)

    def _under_way(self, tx: Transaction, steps: Sequence[Step]) -> set[str]:
        """Which decisions cannot be withdrawn: a worker carries them out now, or one did and was lost."""
        begun = tx.begun_tasks([each.decision_id for each in steps if each.what == "withdraw"])
        tried = [key for key, held in begun.items() if not held]
        done = self._adapter(PLACE_PURCHASE_ORDER.name).find(tried) if tried else {}
        return {key for key, held in begun.items() if held or key in done}

    def _take_back(self, tx: Transaction, chosen: Sequence[Step]) -> None:
        orders = self._orders(tx, [each.decision_id for each in chosen])
        withdrawn = [each.decision_id for each in chosen if each.what == "withdraw"]
        tx.drop_tasks(withdrawn)
        tx.drop_approvals(withdrawn)
        tx.drop_uses(withdrawn)
        self._tell(tx, [(orders[key], "withdrawn", None) for key in withdrawn])
        undo = [orders[each.decision_id] for each in chosen if each.what == "compensate"]
        tx.add_tasks(pending(undo, _COMPENSATE + PLACE_PURCHASE_ORDER.name, "revert"))

    def replay(self, decision_id: str) -> dict[str, Any]:
        """Recompute the run of a recorded decision from its recorded versions; whether it comes out equal.

        Features from the lake's versions of then, stock from the events of then, the agent, the rulebook
        of then: the run's entries are made again and compared, letter by letter.
        """
        with stage("replay", self.tenant), self.store.transaction(self.tenant) as tx:
            number = ledger.steps(tx, [decision_id])[decision_id][0]["batch"]
            recorded, header = tx.ledger_entries(number, number), ledger.header(tx, number)
            # Stock is made again from history, which may lag behind the events of then.
            self._keep_history(tx, bus.partition_of(self.tenant, header["location_id"]))
            again = self._replayed(tx, header).entries()
            texts = {
                name: dict(
                    zip(table["decision_id"].to_pylist(), table["entry"].to_pylist(), strict=True)
                )
                for name, table in (("recorded", recorded), ("replayed", again))
            }
            return {
                "decision_id": decision_id,
                "identical": texts["recorded"][decision_id] == texts["replayed"].get(decision_id),
                "run_identical": texts["recorded"] == texts["replayed"],
                "decisions_in_run": recorded.num_rows - 1,
                "recorded_digest": ledger.digest(recorded),
                "replayed_digest": ledger.digest(again),
            }

    def _replayed(self, tx: Transaction, header: Mapping[str, Any]) -> Batch:
        """A recorded run made again from what it names."""
        location_id, versions = header["location_id"], header["versions"]
        rows = features.compute(
            self.lake,
            location_id,
            today=date.fromisoformat(versions["day"]),
            known_by=datetime.fromisoformat(versions["features_at"]),
            versions=json.loads(versions["lake"]),
        )
        shelf = features.stock_as_of(self.lake, location_id, header["position"])
        evidence = features.evidence(
            self.lake,
            rows,
            shelf,
            known_by=datetime.fromisoformat(header["known_by"]),
            position=header["position"],
        )
        proposed = replenish.propose(evidence, PLACE_PURCHASE_ORDER)
        if proposed.version != header["agent_version"]:
            raise Refused(
                f"the decision was made by version {header['agent_version']} of {header['agent']}, "
                f"this is version {proposed.version}: it cannot be replayed here"
            )
        rulebook = self.rulebook(tx, header["rulebook"], header["rulebook_version"])
        used = pa.Table.from_pylist(header["limits_used"], schema=policy.USED)
        return Batch(
            batch_id=header["batch_id"],
            at=datetime.fromisoformat(header["decided_at"]),
            location_id=location_id,
            evidence=evidence,
            proposed=proposed,
            judgement=policy.judge(rulebook, proposed, evidence, used),
            used=used,
            terms=_terms(rulebook),
        )

    def verify(self) -> ledger.Verified:
        """Compute the tenant's whole ledger again from the store."""
        with stage("verify", self.tenant) as watched, self.store.transaction(self.tenant) as tx:
            outcome = ledger.verify(tx, self.signing.public)
            watched.rows = outcome.entries
            return outcome

    def rebuild_decisions(self) -> dict[str, str]:
        """Fold every decision's state again from the ledger; where each stands, by id."""
        with self.store.transaction(self.tenant) as tx:
            tx.clear_decisions()
            tx.ledger_head()
            # What others recorded before the chain was ours has to go too.
            tx.clear_decisions()
            folded = ledger.folded(tx)
            tx.add_decisions(folded)
        return dict(
            zip(folded["decision_id"].to_pylist(), folded["status"].to_pylist(), strict=True)
        )


def _consumer(agent: str, location_id: str) -> str:
    """The name under which an agent reads what a location reported: each location is read by itself."""
    return f"{agent}@{location_id}"


def _last(events: Sequence[Event]) -> int:
    last = events[-1].position
    if last is None:
        raise InvariantBroken("an event read from the bus has a position")
    return last


def _day(evidence: Evidence) -> date:
    """The trading day a decision is made for."""
    if evidence.values.num_rows == 0:
        return evidence.known_by.date()
    day: date = evidence.values["day"][0].as_py()
    return day


def _used(
    tx: Transaction,
    rulebook: policy.Rulebook,
    proposed: Proposed,
    evidence: Evidence,
    without: Sequence[str] = (),
) -> pa.Table:
    """What recent decisions used of the limits that a batch's proposals share, in their day or week."""
    wanted = policy.usage_keys(rulebook, proposed, evidence)
    today = _day(evidence)
    since = {"day": today, "week": today - timedelta(days=today.weekday())}
    parts = [policy.USED.empty_table()]
    for limit, per in sorted(
        set(zip(wanted["limit"].to_pylist(), wanted["per"].to_pylist(), strict=True))
    ):
        keys = wanted.filter(pc.equal(wanted["limit"], limit))["key"].combine_chunks()
        found = tx.uses(limit, since[per], today, without)
        parts.append(found.filter(pc.is_in(found["key"], value_set=keys)).cast(policy.USED))
    return pa.concat_tables(parts)


def _terms(rulebook: policy.Rulebook) -> Terms:
    """What the rulebook says of time and of what happens otherwise."""
    sla = rulebook.content.sla
    return Terms(
        approve_within=sla.approve_within,
        safe_default=sla.on_timeout or rulebook.content.safe_default,
    )
