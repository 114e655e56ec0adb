"""How fast decisions are: judged, recorded, verified, explained, taken back, and made while tills ring.

Hides the set-up: a home of its own in a temporary folder, and orders from a seed (`orders`). Cedar, OPA's
Rego and a bare query judge the same orders beside it, in the same run; a verdict that differs ends the run.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import features, ledger, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.backtest import peers, till
from storekeep.backtest.demonstration import memory_mib
from storekeep.backtest.orders import AT, LOCATION, orders
from storekeep.config import Settings
from storekeep.decisions import Decided, Evidence, Proposed, Selection, decision_ids, ids_of, stamp
from storekeep.errors import InvariantBroken
from storekeep.ledger import Batch, Terms, Wake
from storekeep.pipeline import Pipeline, opened

Row = dict[str, Any]
_TERMS = Terms(timedelta(hours=72), "order nothing")
_RUN = 100_000
_PEERS: Mapping[str, tuple[Callable[[Sequence[Mapping[str, Any]]], list[str]], int]] = {
    "Cedar": (peers.cedar, 20_000),
    "Rego": (peers.rego, 5_000),
}


def run(settings: Settings, quick: bool) -> list[Row]:
    """Measure all of it; `quick` at a tenth of the size. One row a figure."""
    share = 10 if quick else 1
    book = policy.load(
        peers.RULES / "orders.yaml", action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA
    )
    with tempfile.TemporaryDirectory(prefix="storekeep-bench-") as folder:
        Path(folder).chmod(0o711)
        own = settings.model_copy(update={"home": Path(folder) / "home", "tenant": "bench"})
        tills = own.model_copy(update={"tenant": "tills"})
        # First, on a server that has nothing to tidy up after millions of rows.
        with opened(tills, purpose="demo") as pipeline:
            rows = _ringing(pipeline, 60 // share)
        rows += _in(own, "revert", lambda one: _reverting(one, book, 10_000 // share))
        rows += _in(own, "record", lambda one: _recording(one, book, 1_000_000 // share))
        with opened(tills, purpose="demo") as pipeline:
            rows.append(_explaining(pipeline, book, 5_000_000 // share))
    return [*_judging(book, 1_000_000 // share, share), *rows]


def _in(own: Settings, tenant: str, measure: Callable[[Pipeline], list[Row]]) -> list[Row]:
    """What is measured in a tenant of its own, whose time stands still."""
    of_tenant = own.model_copy(update={"tenant": tenant})
    with opened(of_tenant, now=lambda: AT, purpose="demo") as pipeline:
        return measure(pipeline)


def row(
    figure: str,
    value: float,
    unit: str,
    goal: str | None = None,
    met: bool | None = None,
    beside: tuple[str, float, float] | None = None,
) -> Row:
    """One figure as it is reported; `beside` names a peer, with its value and how many times it ours is."""
    peer, peer_value, ratio = beside or (None, None, None)
    return {
        "figure": figure,
        "value": round(value, 4),
        "unit": unit,
        "goal": goal,
        "met": met,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 4),
        "ratio": None if ratio is None else round(ratio, 2),
    }


def at_most(figure: str, value: float, unit: str, goal: float, many: str = "") -> Row:
    """A figure that is to be no more than its goal."""
    return row(figure, value, unit, f"{many}{goal:g} {unit} or less", value <= goal)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# Judging ------------------------------------------------------------------------------------------------


def _judging(book: policy.Rulebook, many: int, share: int) -> list[Row]:
    known, proposed = orders(many)
    known = known.take(proposed.proposals["subject"].combine_chunks())
    many = proposed.proposals.num_rows
    judged = policy.judge(book, proposed, known)
    verdicts = judged.verdicts["verdict"].combine_chunks()
    spent = min(seconds(lambda: policy.judge(book, proposed, known)) for _ in range(5))
    given = told(known, proposed)
    if not peers.bare_query(book, given).combine_chunks().equals(verdicts):
        raise InvariantBroken("a bare query judges the same orders otherwise")
    bare = min(seconds(lambda: peers.bare_query(book, given)) for _ in range(5))
    figure = f"judge {many:,} proposals under {len(book.checked.rules)} rules, with reasons"
    met = spent <= 1 / share
    rows = [
        row(figure, spent, "s", f"{1 / share:g} s or less", met, ("bare query", bare, spent / bare))
    ]
    one = replace(proposed, proposals=proposed.proposals.slice(0, 1).combine_chunks())
    seen = known.take(one.proposals["subject"].combine_chunks())
    times = [seconds(lambda: policy.judge(book, one, seen)) for _ in range(200)]
    rows.append(at_most("judge one proposal, median", 1000 * float(np.median(times)), "ms", 3))
    return rows + [_beside(name, given, verdicts, many / spent, share) for name in _PEERS]


def told(known: Evidence, proposed: Proposed) -> pa.Table:
    """Each order with what is known of its item, in one table."""
    table, values = proposed.proposals, known.values
    for name in values.column_names:
        if name not in table.column_names:
            table = table.append_column(name, values[name])
    return table.select([name for name in table.column_names if name != "arithmetic"])


def _beside(name: str, given: pa.Table, verdicts: pa.Array, ours: float, share: int) -> Row:
    """How many times as many orders a second are judged as by a peer, one by one."""
    ask, many = _PEERS[name]
    many //= share
    figure = f"orders judged a second, beside {name}"
    listed = peers.whole(given.slice(0, many)).to_pylist()
    try:
        ask(listed[:1])
    except ImportError as error:
        return row(f"{figure} (not measured: {error.name} is not installed)", ours, "order/s")
    begun = time.perf_counter()
    said = ask(listed)
    theirs = len(listed) / (time.perf_counter() - begun)
    if said != verdicts.slice(0, many).to_pylist():
        raise InvariantBroken(f"{name} judges the same orders otherwise")
    ratio = ours / theirs
    return row(figure, ours, "order/s", "300 times or more", ratio >= 300, (name, theirs, ratio))


# Recording ----------------------------------------------------------------------------------------------


def _recording(pipeline: Pipeline, book: policy.Rulebook, many: int) -> list[Row]:
    size = min(_RUN, many)
    spent = 0.0
    with memory(pipeline) as held:
        for place in range(many // size):
            batch = _run(book, size, place)
            spent += seconds(partial(_record, pipeline, batch))
        begun = time.perf_counter()
        found = pipeline.verify()
        verified = time.perf_counter() - begun
    if not found.ok:
        raise InvariantBroken(f"the ledger does not hold: {found.problems[:1]}")
    what, goal = f"{many:,} decisions, in runs of {size:,}", many / 1_000_000
    return [
        at_most(f"record {what}", spent, "s", 25 * goal),
        at_most(f"verify {what}", verified, "s", 20 * goal),
        at_most("memory of all processes while recording and verifying", max(held), "MiB", 3072),
    ]


def _run(book: policy.Rulebook, many: int, place: int) -> Batch:
    """One run of exactly so many decisions, judged and not yet recorded."""
    known, proposed = orders(many + many // 20, place)
    return _batch(book, known, _first(proposed, many), place)


def _first(proposed: Proposed, many: int) -> Proposed:
    return replace(proposed, proposals=proposed.proposals.slice(0, many).combine_chunks())


def _batch(book: policy.Rulebook, known: Evidence, proposed: Proposed, place: int) -> Batch:
    known = known.take(proposed.proposals["subject"].combine_chunks())
    at = AT + timedelta(seconds=place)
    return Batch(
        batch_id=decision_ids(at, "bench", [str(place)])[0],
        at=at,
        location_id=LOCATION,
        evidence=known,
        proposed=proposed,
        judgement=policy.judge(book, proposed, known),
        used=policy.USED.empty_table(),
        terms=_TERMS,
        wake=Wake("replenish", "live", "bench", at, late=False, heard=()),
    )


def _record(pipeline: Pipeline, batch: Batch) -> None:
    with pipeline.store.transaction(pipeline.tenant) as tx:
        ledger.record(tx, batch, pipeline.signing)


@contextmanager
def memory(pipeline: Pipeline) -> Iterator[list[float]]:
    """What all processes hold together, in MiB, twice a second: to look costs the server a tenth of one."""
    pids = pipeline.store.server_pids()
    seen, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            seen.append(pages * 4096 / 2**20 + memory_mib(pids))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


# Taking back --------------------------------------------------------------------------------------------


def _reverting(pipeline: Pipeline, book: policy.Rulebook, many: int) -> list[Row]:
    """So many orders are recorded, placed in the back office, then taken back."""
    known, proposed = orders(4 * many, 99)
    judged = policy.judge(book, proposed, known).verdicts["verdict"]
    allowed = proposed.proposals.filter(pc.equal(judged, str(Decided.ALLOW)))
    batch = _batch(book, known, _first(replace(proposed, proposals=allowed), many), 99)
    _record(pipeline, batch)
    pipeline.act()

    def take_back() -> None:
        plan = pipeline.plan_revert(Selection(batch_id=batch.batch_id))
        pipeline.revert(plan, "bench", "to see how long it takes")
        pipeline.act()

    spent = seconds(take_back)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        states = {one["status"] for one in tx.decisions(Selection(batch_id=batch.batch_id))}
    if states != {"reverted"}:
        raise InvariantBroken(f"what was taken back is {', '.join(sorted(states))}")
    return [at_most(f"take back {many:,} orders of the back office", spent, "s", 60)]


# Beside the tills ---------------------------------------------------------------------------------------


def _ringing(pipeline: Pipeline, for_seconds: int) -> list[Row]:
    till.prepare(pipeline)
    waited = till.ring(pipeline, 1_000, for_seconds)
    how = f"1,000 lines a second for {for_seconds} s over {till.SKUS} items"
    figure = f"from sale line to recorded decision, {how}"
    return [
        row(f"{figure}, median", float(np.median(waited)), "s"),
        at_most(f"{figure}, 99th percentile", float(np.percentile(waited, 99)), "s", 1),
    ]


def _explaining(pipeline: Pipeline, book: policy.Rulebook, many: int) -> Row:
    """Decisions of one run are explained, among runs whose entries say next to nothing."""
    known, proposed = orders(_RUN + _RUN // 20, 7)
    now = pipeline.now()
    versions = {
        "features": "made up",
        "features_at": stamp(now),
        "day": now.date().isoformat(),
        "lake": json.dumps({"sale_line": pipeline.lake.version("sale_line")}),
    }
    batch = _batch(book, replace(known, versions=versions), _first(proposed, _RUN), 7)
    _record(pipeline, batch)
    for place in range(many // _RUN - 1):
        _fill(pipeline, place)
    subjects = batch.decided["subject"].slice(0, 200).to_pylist()
    ids = batch.ids.slice(0, 200).to_pylist()
    chosen = [id_ for id_, one in zip(ids, subjects, strict=True) if one in _RUNG][:50]
    with pipeline.store.transaction(pipeline.tenant) as tx:
        times = [seconds(partial(ledger.explain, tx, pipeline.lake, id_)) for id_ in chosen]
    figure = (
        f"explain one of {_RUN:,} decisions of a run among {many:,} (the others' entries filled in),"
        f" median"
    )
    return at_most(figure, 1000 * float(np.median(times)), "ms", 50)


_RUNG = frozenset(f"SKU{number}@{LOCATION}" for number in range(till.SKUS))


def _fill(pipeline: Pipeline, place: int) -> None:
    """One more batch of as many entries, recorded and found as any other."""
    at = AT + timedelta(hours=1, seconds=place)
    batch_id = decision_ids(at, "fill", [str(place)])[0]
    ids = ids_of(at, batch_id, pa.array(np.arange(_RUN)).cast(pa.string()))
    entries = pc.binary_join_element_wise(
        '{"decision_id":"', ids, '","kind":"decision","step":"hold"}', ""
    )
    table = pa.table(
        {
            "kind": pa.repeat("decision", _RUN),
            "decision_id": ids,
            "step": pa.repeat("hold", _RUN),
            "entry": entries,
        }
    )
    shared = ("agent", "agent_version", "rulebook_version", "action", "location_id")
    with pipeline.store.transaction(pipeline.tenant) as tx:
        number = ledger.append(tx, table, batch_id=batch_id, at=at, signing=pipeline.signing)
        tx.add_run(number, {**dict.fromkeys(shared, "fill"), "decided_at": at})
        decisions = pa.table(
            {
                "subject": pa.repeat("fill", _RUN),
                **{name: pa.repeat("hold", _RUN) for name in ("verdict", "status")},
                "decision_id": ids,
                "batch": pa.repeat(number, _RUN),
                "place": np.arange(_RUN),
            }
        )
        tx.add_decisions(decisions.sort_by("decision_id"))
