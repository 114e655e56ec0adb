"""A draft of a rulebook tried on what was recorded: which verdicts it would turn, and the money on each side.

Every recorded proposal of a period is judged again, on its recorded evidence. What decisions use of limits
over a day or a week is carried on under the draft: it begins with what was used before the period, and grows
by the draft's own verdicts. Only verdicts are compared, not ends: what a person approved was escalated. And
nothing is played on: an order that the draft denies is judged the next time as it was recorded then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storekeep import features, ledger, policy
from storekeep.agents import Agent
from storekeep.backtest.demonstration import Progress
from storekeep.decisions import HOLDS, SHADOW, Decided, Evidence, Judgement, Proposed, stamp
from storekeep.errors import Refused
from storekeep.ledger import Recorded
from storekeep.pipeline import Pipeline

LARGEST_SHOWN = 50
# Up to a week before the period, and a day for the hours between a trading day and its decision.
_WEEK_BEFORE = timedelta(days=8)
_DAYS_KEPT = 62
_PARTS_AT_ONCE = 256
_ASKED = ("rejected", "denied", "expired")
_STRICTER = (Decided.ALLOW, Decided.CLIP, Decided.ESCALATE, Decided.DENY)
_EFFECTS: Mapping[str, str] = {
    Decided.ALLOW: "permit",
    Decided.CLIP: "clip",
    Decided.ESCALATE: "escalate",
    Decided.DENY: "forbid",
}
_SIDES = ("recorded", "draft")
_SUMS = ("decisions", *(f"{side}_money_minor" for side in _SIDES))
_MATRIX = ("recorded", "draft", "currency")
_USES = pa.schema([*policy.USED, ("decision_id", pa.string()), ("answered", pa.bool_())])


def try_draft(
    pipeline: Pipeline,
    draft: policy.Rulebook,
    first: date,
    last: date,
    zone: ZoneInfo,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge the recorded proposals of a period again under a draft; what turns, as a report for programs.

    The period is from the first day to the last, both included, by the time of deciding in the zone. Money is
    in minor units. Raises `Refused` when nothing was recorded in the period.
    """
    told = progress or Progress()
    agent = pipeline.agents.get(draft.content.agent)
    if agent is None:
        known = ", ".join(pipeline.agents)
        raise Refused(f"there is no agent {draft.content.agent}; there are {known}")
    period = _midnight(first, zone), _midnight(last + timedelta(days=1), zone)
    trial = _Trial(draft, agent, *period)
    with pipeline.store.transaction(pipeline.tenant) as tx:
        told.begin("Judging recorded decisions", None)
        read = (trial.reads_from, trial.until)
        with closing(ledger.runs(tx, *read, draft.action, features.SCHEMA)) as runs:
            for run in runs:
                trial.see(run)
                told.step(run.proposals.num_rows)
        told.end()
    if not trial.runs:
        raise Refused(
            f"nothing was decided by {draft.content.agent} from {first} to {last}; "
            "`storekeep decisions list` shows what was"
        )
    return {
        "rulebook": draft.id,
        "draft_version": draft.version,
        "tenant": pipeline.tenant,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "time_zone": zone.key,
        **trial.report(),
    }


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone)


@dataclass
class _Used:
    """What decisions have used of limits over time: for each trading day a total, and who used it."""

    periods: Mapping[str, str]
    totals: dict[date, pa.Table] = field(default_factory=dict)
    uses: dict[date, list[pa.Table]] = field(default_factory=dict)

    def before(self, day: date) -> pa.Table:
        """What was used of each limit in the day or week that a day lies in, up to that day."""
        monday = day - timedelta(days=day.weekday())
        parts = [policy.USED.empty_table()]
        for limit, per in self.periods.items():
            since = day if per == "day" else monday
            for each, total in self.totals.items():
                if per != "batch" and since <= each <= day:
                    parts.append(total.filter(pc.equal(total["limit"], limit)))
        return _totals(pa.concat_tables(parts))

    def add(self, day: date, uses: pa.Table) -> None:
        """Decisions of a trading day (schema `_USES`) take from limits."""
        if not uses.num_rows:
            return
        self.uses.setdefault(day, []).append(uses)
        known = self.totals.get(day, policy.USED.empty_table())
        self.totals[day] = _totals(pa.concat_tables([known, uses.select(policy.USED.names)]))
        for old in [each for each in self.totals if each < day - timedelta(days=_DAYS_KEPT)]:
            del self.totals[old], self.uses[old]

    def release(self, released: pa.Table) -> None:
        """Decisions came to nothing, and give back what they took.

        One that a person turned down gives back nothing where the draft would not have asked.
        """
        if not released.num_rows or not self.uses:
            return
        by_person = pc.is_in(released["step"], value_set=pa.array(_ASKED))
        all_, asked = released["decision_id"], released["decision_id"].filter(by_person)
        for day, parts in self.uses.items():
            uses = pa.concat_tables(parts)
            unasked = pc.and_not(_among(uses, asked), uses["answered"])
            gone = pc.and_not(_among(uses, all_), unasked)
            if pc.any(gone).as_py():
                self.uses[day] = [uses.filter(pc.invert(gone))]
                self.totals[day] = _totals(self.uses[day][0].select(policy.USED.names))


def _among(uses: pa.Table, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.is_in(uses["decision_id"], value_set=ids.combine_chunks())


def _totals(uses: pa.Table) -> pa.Table:
    """The amounts under each limit and key."""
    added = uses.group_by(["limit", "key"]).aggregate([("amount", "sum")])
    return added.rename_columns(["limit", "key", "amount"]).cast(policy.USED)


class _Sums:
    """Numbers and money of decisions, added up by some of their columns as the runs go by."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self.by = by
        self.parts: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        """Count in more decisions."""
        if rows.num_rows:
            self.parts.append(self._added(rows.select([*self.by, *_SUMS])))
        if len(self.parts) >= _PARTS_AT_ONCE:
            self.parts = [self._added(pa.concat_tables(self.parts))]

    def rows(self) -> list[dict[str, Any]]:
        """The sums, those of most decisions first."""
        if not self.parts:
            return []
        order = [("decisions", "descending"), *((name, "ascending") for name in self.by)]
        found: list[dict[str, Any]] = (
            self._added(pa.concat_tables(self.parts)).sort_by(order).to_pylist()
        )
        return found

    def _added(self, rows: pa.Table) -> pa.Table:
        sums = rows.group_by(list(self.by)).aggregate([(name, "sum") for name in _SUMS])
        return sums.rename_columns([*self.by, *_SUMS])


class _Trial:
    """A draft on its way through the recorded runs."""

    def __init__(
        self, draft: policy.Rulebook, agent: Agent, since: datetime, until: datetime
    ) -> None:
        self.draft = draft
        self.agent = agent
        self.since, self.until = since, until
        over_time = [per for per in draft.periods.values() if per != "batch"]
        self.reads_from = since - _WEEK_BEFORE if over_time else since
        self.used = _Used(draft.periods)
        self.runs = self.decisions = self.held = 0
        self.versions: dict[str, int] = {}
        self.other_agent = 0
        self.matrix = _Sums(_MATRIX)
        self.locations = _Sums(("location_id", *_MATRIX))
        self.causes = _Sums((*_MATRIX, "recorded_rules", "draft_rules"))
        self.days = _Sums(("day", *_MATRIX))
        self.requantified = _Sums(("recorded", "currency"))
        self.largest = pa.table({})

    def see(self, run: Recorded) -> None:
        """Judge one recorded run again, or, before the period, take in what it used."""
        if run.header["agent"] != self.draft.content.agent:
            return
        self.used.release(run.released)
        before = run.at < self.since
        if not before:
            self._count(run)
        if not run.proposals.num_rows:
            return
        day: date = run.evidence.values["day"][0].as_py()
        in_shadow = run.header["mode"] == SHADOW
        if before:
            if not in_shadow:
                self._take_in(day, run)
            return
        judged = policy.judge(
            self.draft,
            self._proposed(run, run.proposals),
            run.evidence,
            self.used.before(day),
            waited=run.at - datetime.fromisoformat(run.header["heard_since"]),
        )
        judged = policy.bar(judged, run.header["barred"])
        if not in_shadow:
            self.used.add(day, self._uses(run, judged))
        self._compare(day, run, judged)

    def _count(self, run: Recorded) -> None:
        many = run.proposals.num_rows
        version = run.header["rulebook_version"]
        self.runs += 1
        self.decisions += many
        self.held += run.header["verdicts"].get(Decided.HOLD, 0)
        self.versions[version] = self.versions.get(version, 0) + many
        if run.header["agent_version"] != self.agent.version:
            self.other_agent += many

    def _proposed(self, run: Recorded, lines: pa.Table) -> Proposed:
        return Proposed(
            agent=run.header["agent"],
            version=run.header["agent_version"],
            action=self.draft.action,
            proposals=lines,
            holds=HOLDS.empty_table(),
        )

    def _take_in(self, day: date, run: Recorded) -> None:
        """What the decisions of a run before the period used: as recorded, measured as the draft measures."""
        counted = pc.not_equal(run.decided["verdict"], str(Decided.DENY))
        lines = run.left.append_column("priority", run.proposals["priority"]).filter(counted)
        facts = run.evidence.values.filter(counted)
        seen = Evidence(facts, run.evidence.known_by, run.evidence.versions, run.evidence.position)
        few = Recorded(run.header, lines, lines, seen, run.decided.filter(counted), run.released)
        uses = policy.uses(self.draft, self._proposed(few, lines), seen)
        self.used.add(day, _with_ids(few, uses, pa.array(np.ones(lines.num_rows, dtype=bool))))

    def _uses(self, run: Recorded, judged: Judgement) -> pa.Table:
        if judged.uses is None:
            return _USES.empty_table()
        was = pc.equal(run.decided["verdict"], str(Decided.ESCALATE))
        asks = pc.equal(judged.verdicts["verdict"], str(Decided.ESCALATE))
        return _with_ids(run, judged.uses, pc.or_(asks, pc.invert(was)).combine_chunks())

    def _compare(self, day: date, run: Recorded, judged: Judgement) -> None:
        """Add up what the run came to on both sides."""
        rows = _sides(day, run, judged, self.draft.action.money)
        self.matrix.add(rows)
        turned = pc.not_equal(rows["recorded"], rows["draft"])
        flips = rows.filter(turned)
        other = pc.not_equal(rows["recorded_money_minor"], rows["draft_money_minor"])
        self.requantified.add(rows.filter(pc.and_not(other, turned)))
        if not flips.num_rows:
            return
        places = pc.indices_nonzero(turned)
        for side, verdicts in (("recorded", run.decided), ("draft", judged.verdicts)):
            named = _responsible(verdicts.select(["verdict", "rules"]).take(places))
            flips = flips.append_column(f"{side}_rules", named)
        for sums in (self.locations, self.causes, self.days):
            sums.add(flips)
        self._keep_largest(flips)

    def _keep_largest(self, flips: pa.Table) -> None:
        at_stake = pc.max_element_wise(flips["recorded_money_minor"], flips["draft_money_minor"])
        parts = [self.largest] if self.largest.num_rows else []
        both = pa.concat_tables([*parts, flips.append_column("at_stake", at_stake)])
        order = [("at_stake", "descending"), ("decision_id", "ascending")]
        self.largest = both.take(pc.select_k_unstable(both, LARGEST_SHOWN, order))

    def report(self) -> dict[str, Any]:
        """All that was found."""
        matrix = self.matrix.rows()
        flips = [row for row in matrix if row["recorded"] != row["draft"]]
        ranks = {str(verdict): rank for rank, verdict in enumerate(_STRICTER)}
        stricter = [row for row in flips if ranks[row["draft"]] > ranks[row["recorded"]]]
        largest = self.largest.drop_columns(["at_stake", "decisions"]) if flips else self.largest
        return {
            "runs": self.runs,
            "decisions": self.decisions,
            "held": self.held,
            "flips": _many(flips),
            "stricter": _many(stricter),
            "looser": _many(flips) - _many(stricter),
            "recorded_versions": dict(sorted(self.versions.items(), key=lambda each: -each[1])),
            "decisions_of_other_agent_versions": self.other_agent,
            "matrix": matrix,
            "same_verdict_other_money": self.requantified.rows(),
            "by_location": self.locations.rows(),
            "by_rule": self.causes.rows(),
            "by_day": sorted(
                ({**row, "day": row["day"].isoformat()} for row in self.days.rows()),
                key=lambda row: (row["day"], row["recorded"], row["draft"]),
            ),
            "largest": list(_dated(largest)),
        }


def _many(rows: list[dict[str, Any]]) -> int:
    return sum(row["decisions"] for row in rows)


def _dated(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for row in rows.to_pylist():
        yield {**row, "day": row["day"].isoformat(), "decided_at": stamp(row["decided_at"])}


def _with_ids(run: Recorded, uses: pa.Table, answered: pa.Array) -> pa.Table:
    """What subjects use of limits over time, by the ids of their decisions."""
    uses = uses.filter(pc.not_equal(uses["per"], "batch"))
    subjects = run.proposals["subject"].combine_chunks()
    places = pc.index_in(uses["subject"].combine_chunks(), subjects)
    return pa.table(
        {
            **{name: uses[name] for name in ("limit", "key", "amount")},
            "decision_id": run.decided["decision_id"].take(places),
            "answered": answered.take(places),
        },
        schema=_USES,
    )


def _sides(day: date, run: Recorded, judged: Judgement, money: str) -> pa.Table:
    """Each decision of a run with what was recorded of it and what the draft makes of it."""
    many = run.proposals.num_rows
    return pa.table(
        {
            "decision_id": run.decided["decision_id"],
            "decided_at": pa.array([run.at] * many, pa.timestamp("us", tz="UTC")),
            "day": pa.array([day] * many, pa.date32()),
            "location_id": run.proposals["location_id"],
            "subject": run.proposals["subject"],
            "currency": run.decided["currency"],
            "recorded": run.decided["verdict"],
            "draft": judged.verdicts["verdict"],
            "recorded_money_minor": run.decided["money_minor"],
            "draft_money_minor": judged.proposals[money],
            "decisions": pa.array(np.ones(many, dtype=np.int64)),
        }
    )


def _responsible(verdicts: pa.Table) -> pa.Array:
    """The rules that made each verdict what it is, as one text: of a denial those that forbid, and so on."""
    rules = verdicts["rules"].combine_chunks()
    row = pc.list_parent_indices(rules)
    spoke = pa.Table.from_struct_array(pc.list_flatten(rules)).select(["rule", "effect"])
    names = pa.array(list(_EFFECTS), pa.string())
    effects = pa.array(list(_EFFECTS.values())).take(
        pc.index_in(verdicts["verdict"].combine_chunks(), names)
    )
    deciding = pc.equal(spoke["effect"], effects.take(row))
    mine, which = spoke["rule"].filter(deciding).combine_chunks(), row.filter(deciding)
    counts = np.bincount(which.to_numpy(), minlength=len(rules))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, mine), ", ")
