"""Judging a batch: which rules spoke of each proposal, what they make of it together, and why.

Hides how a rulebook's query, the limits and the words of states become verdicts. The effects stand in a
fixed order: any forbid denies, else any escalation asks a person, else a clip lowers, else a permit allows;
what nothing permits is denied. No order of rules, rows or keys changes the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry import trace

from storekeep.decisions import (
    RULE,
    VERDICTS,
    Action,
    Decided,
    Evidence,
    Judgement,
    Proposed,
    Reversibility,
)
from storekeep.errors import InvariantBroken
from storekeep.policy.limits import Queue, Served, serve
from storekeep.policy.query import (
    CLAUSES_PER_WORD,
    NOTHING_LEFT,
    ROW,
    SILENT,
    SPOKE,
    UNTOLD,
    Query,
    before,
)
from storekeep.policy.reasons import Reason
from storekeep.policy.rulebook import (
    DEFAULT,
    EVIDENCE,
    GROUP,
    GROUP_VALUE,
    IRREVERSIBLE,
    Checked,
    Content,
    check,
)

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

USED = pa.schema(
    [
        pa.field("limit", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("amount", pa.int64(), nullable=False),
    ]
)
"""What recent decisions used of each limit: the table that `judge` takes."""
KEYS = pa.schema(
    [
        pa.field("limit", pa.string(), nullable=False),
        pa.field("per", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
    ]
)
"""Whose use a batch needs to know: the table that `usage_keys` gives."""
USES = pa.schema(
    [
        pa.field("subject", pa.string(), nullable=False),
        pa.field("limit", pa.string(), nullable=False),
        pa.field("per", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("amount", pa.int64(), nullable=False),
    ]
)
"""What each proposal that was not denied uses of each limit: to be kept with its decision."""

SHIPPED = Path(__file__).parent / "rulebooks"
"""Folder of the rulebooks that ship."""

_TRACER = trace.get_tracer("storekeep.policy")
_FORBID, _ESCALATE, _CLIP, _PERMIT, _LIMIT = "forbid", "escalate", "clip", "permit", "limit"
_EFFECTS = ("", _FORBID, _ESCALATE, _CLIP, _PERMIT)
_EXACT = 2**53
_ROWS_AT_ONCE = 1 << 17
_VERDICTS = (Decided.ALLOW, Decided.CLIP, Decided.ESCALATE, Decided.DENY)
_NOTHING_PERMITS = Reason("", frozenset(), "No rule permits it.")
_NEEDS_PERSON = Reason("", frozenset(), "It cannot be taken back, so a person must approve it.")


@dataclass(frozen=True)
class _Clause:
    """A rule or limit, or what Storekeep itself insists on: its effect in each state, and who may approve."""

    id: str
    kind: str
    effects: Mapping[int, str]
    reason: Reason
    rank: int | None = None

    def says(self, state: int) -> str:
        """What it says in a state, if it says the same of every row."""
        return before(self.kind, state) + self.reason.opening


@dataclass(frozen=True, eq=False)
class Rulebook:
    """A rulebook that was checked and compiled, and is ready to judge from any thread."""

    content: Content
    version: str
    action: Action
    checked: Checked
    query: Query
    clauses: tuple[_Clause, ...]

    @property
    def id(self) -> str:
        """Its id."""
        return self.content.rulebook

    @property
    def short_version(self) -> str:
        """The first twelve digits of its version, as people see it."""
        return self.version[:12]

    @property
    def periods(self) -> Mapping[str, str]:
        """Each limit's id, and `day`, `week` or `batch`: the time over which it is shared."""
        return {limit.id: limit.per for limit in self.checked.limits}


def load(
    source: Path | str, *, action: Action, evidence: Mapping[str, str], name: str = "rulebook"
) -> Rulebook:
    """Read, check and compile a rulebook: a file when given a `Path`, else the text itself.

    `evidence` gives the DuckDB type of each column that the agent's evidence has; `name` is what a text is
    called in what is said about it. Raises `Refused` with file, line and column of the first fault.
    """
    checked = check(source, name, action, evidence)
    clauses = tuple(_clauses(checked))
    return Rulebook(checked.content, checked.version, action, checked, Query(checked), clauses)


def judge(
    rulebook: Rulebook,
    proposed: Proposed,
    evidence: Evidence,
    used: pa.Table | None = None,
    approved: frozenset[str] = frozenset(),
) -> Judgement:
    """Judge every proposal of a batch, each on its evidence and all against the limits that they share.

    `used` (schema `USED`) is what recent decisions used of each limit in its day or week, at least for
    `usage_keys`. `approved` are subjects that a person approved: what would ask a person is then satisfied;
    what forbids still does. Raises `InvariantBroken` when the batch is for another agent or action, or
    limits over time come without `used`.
    """
    with _TRACER.start_as_current_span("policy.judge") as span:
        span.set_attribute("storekeep.rulebook", rulebook.id)
        span.set_attribute("storekeep.rulebook_version", rulebook.short_version)
        span.set_attribute("storekeep.proposals", proposed.proposals.num_rows)
        return _Bench(rulebook, proposed, evidence, used, approved).judgement()


def usage_keys(rulebook: Rulebook, proposed: Proposed, evidence: Evidence) -> pa.Table:
    """Whose recent use `judge` must be told for this batch: one row per limit over time and key (`KEYS`)."""
    limits = [limit for limit in rulebook.checked.limits if limit.per != "batch"]
    if not limits or not proposed.proposals.num_rows:
        return KEYS.empty_table()
    found = rulebook.query.keys(_rows(rulebook, proposed, evidence))
    parts = []
    for limit in limits:
        keys = found[limit.id].combine_chunks().unique().drop_null()
        names = [pa.repeat(limit.id, len(keys)), pa.repeat(limit.per, len(keys)), keys]
        parts.append(pa.Table.from_arrays(names, schema=KEYS))
    return pa.concat_tables(parts)


def _clauses(checked: Checked) -> list[_Clause]:
    """All that can speak, in the order of the bits: rules, limits, and what Storekeep itself insists on."""
    ranks = {role: rank for rank, role in enumerate(checked.roles)}
    found = []
    for rule in checked.rules:
        effects = {SPOKE: rule.effect, UNTOLD: _FORBID, NOTHING_LEFT: _FORBID}
        if rule.effect == _ESCALATE:
            effects[UNTOLD] = _ESCALATE
        if rule.effect == _PERMIT:
            del effects[UNTOLD]
        rank = ranks[rule.role] if rule.role else None
        found.append(_Clause(rule.id, rule.effect, effects, rule.reason, rank))
    for limit in checked.limits:
        effects = {SPOKE: limit.then, UNTOLD: _FORBID}
        rank = ranks[limit.role] if limit.role else None
        found.append(_Clause(limit.id, _LIMIT, effects, limit.reason, rank))
    highest = len(ranks) - 1 if ranks else None
    found.append(_Clause(IRREVERSIBLE, _ESCALATE, {SPOKE: _ESCALATE}, _NEEDS_PERSON, highest))
    found.append(_Clause(DEFAULT, _FORBID, {SPOKE: _FORBID}, _NOTHING_PERMITS))
    return found


class _Bench:
    """One batch being judged: rows first, then only the distinct combinations of what spoke of them."""

    def __init__(
        self,
        rulebook: Rulebook,
        proposed: Proposed,
        evidence: Evidence,
        used: pa.Table | None,
        approved: frozenset[str],
    ) -> None:
        meant = (rulebook.content.agent, rulebook.content.action)
        if (proposed.agent, proposed.action.name) != meant:
            got = f"{proposed.agent}/{proposed.action.name}"
            raise InvariantBroken(f"rulebook {rulebook.id} judges {'/'.join(meant)}, not {got}")
        if used is None and any(per != "batch" for per in rulebook.periods.values()):
            raise InvariantBroken(
                f"rulebook {rulebook.id} has limits over time: say what was `used`"
            )
        self.rulebook = rulebook
        self.limits = rulebook.checked.limits
        self.clauses = rulebook.clauses
        self.proposals = proposed.proposals
        self.size = proposed.proposals.num_rows
        self.subject = _one(proposed.proposals["subject"])
        self.rows = _rows(rulebook, proposed, evidence)
        self.used = USED.empty_table() if used is None else used
        self.approved = np.zeros(self.size, dtype=bool)
        if approved:
            listed = pc.is_in(self.subject, pa.array(sorted(approved), pa.string()))
            self.approved = listed.to_numpy(zero_copy_only=False)

    def judgement(self) -> Judgement:
        told = self.rulebook.query.judge(self.rows).combine_chunks()
        if not np.array_equal(told[ROW].to_numpy(), np.arange(self.size)):
            raise InvariantBroken("the rows of a judgement came back in another order")
        words = [told[f"#w{word}"].to_numpy() for word in range(self.rulebook.query.words)]
        codes, first = _distinct(words)
        found = self._found(words, [], first)
        standing = found.standing[codes]
        served = [self._serve(place, told, standing) for place in range(len(self.limits))]
        proposals = self._lower(told, standing & found.any(_CLIP)[codes])
        states = [one.state for one in served]
        if self.approved.any() or any(state.any() for state in states):
            codes, first = _distinct([codes, *states, self.approved])
            found = self._found(words, states, first)
        verdict, role = found.verdict(self.approved[first])
        denied = (verdict == _VERDICTS.index(Decided.DENY))[codes]
        taken = pa.array(codes)
        said = self._said(told, proposals, served)
        verdicts = pa.Table.from_arrays(
            [
                self.subject,
                pa.array([str(one) for one in _VERDICTS]).take(pa.array(verdict)).take(taken),
                pa.array(self.rulebook.checked.roles, pa.string()).take(role).take(taken),
                found.spoken(codes, said),
            ],
            schema=VERDICTS,
        )
        uses = self._uses(told, served, ~denied)
        return Judgement(verdicts, proposals, self.rulebook.id, self.rulebook.version, uses)

    def _found(self, words: list[Words], states: list[Integers], rows: Integers) -> _Found:
        """What spoke of these rows, once the limits' states are known (before that they are silent)."""
        matrix = np.zeros((len(rows), len(self.clauses)), dtype=np.uint8)
        for place in range(len(self.rulebook.checked.rules)):
            shift = np.uint64(2 * (place % CLAUSES_PER_WORD))
            matrix[:, place] = words[place // CLAUSES_PER_WORD][rows] >> shift & np.uint64(3)
        for place, state in enumerate(states, len(self.rulebook.checked.rules)):
            matrix[:, place] = state[rows]
        found = _Found(self.clauses, matrix)
        if self.rulebook.action.reversibility is Reversibility.IRREVERSIBLE:
            matrix[:, -2] = np.where(found.standing, SPOKE, SILENT)
        matrix[:, -1] = np.where(found.any(_FORBID, _ESCALATE, _PERMIT), SILENT, SPOKE)
        return _Found(self.clauses, matrix)

    def _serve(self, place: int, told: pa.Table, standing: Flags) -> Served:
        limit = self.limits[place]
        mine = pc.equal(self.used["limit"], limit.id)
        used = self.used.filter(mine) if limit.per != "batch" else self.used.slice(0, 0)
        queue = Queue(
            standing=standing,
            approved=self.approved,
            amount=_one(told[f"#a{place}"]),
            at_most=_one(told[f"#m{place}"]),
            key=_one(told[f"#k{place}"]),
            priority=_one(self.proposals["priority"]),
            subject=self.subject,
        )
        return serve(queue, used, waits=limit.then == _ESCALATE)

    def _lower(self, told: pa.Table, clipped: Flags) -> pa.Table:
        """The proposals with what was clipped lowered, and what derives from it computed again."""
        out = self.proposals
        for name in self.rulebook.query.lowered if clipped.any() else ():
            place = out.schema.get_field_index(name)
            lowered = pc.if_else(pa.array(clipped), told[name], out[name])
            out = out.set_column(
                place, out.schema.field(place), lowered.cast(out.schema.field(place).type)
            )
        return out

    def _said(
        self, told: pa.Table, proposals: pa.Table, served: list[Served]
    ) -> dict[int, pa.Array]:
        """What the clauses whose reasons name figures say of the rows they speak of, in their order."""
        said = {}
        for place, clause in enumerate(self.clauses):
            if not clause.reason.plain and clause.kind != _LIMIT:
                said[place] = _one(told[f"#r{place}"]).drop_null()
        lowered = self.rows
        for name in self.rulebook.query.lowered:
            place = lowered.schema.get_field_index(name)
            lowered = lowered.set_column(place, lowered.field(place), proposals[name])
        for number, limit in enumerate(self.limits):
            if limit.reason.plain:
                continue
            spoke = pa.array(np.flatnonzero(served[number].state))
            said[len(self.rulebook.checked.rules) + number] = pa.array([], pa.string())
            if len(spoke):
                rows = lowered.append_column("state", pa.array(served[number].state))
                rows = rows.append_column("total", pa.array(served[number].total))
                rows = rows.append_column("at_most", told[f"#m{number}"]).take(spoke)
                said[len(self.rulebook.checked.rules) + number] = _one(
                    self.rulebook.query.phrase(limit.id, rows)
                )
        return said

    def _uses(self, told: pa.Table, served: list[Served], kept: Flags) -> pa.Table:
        parts = [USES.empty_table()]
        for place, limit in enumerate(self.limits):
            amount = served[place].amount
            rows = pa.array(np.flatnonzero(kept & (amount > 0)))
            parts.append(
                pa.Table.from_arrays(
                    [
                        self.subject.take(rows),
                        pa.repeat(limit.id, len(rows)),
                        pa.repeat(limit.per, len(rows)),
                        _one(told[f"#k{place}"]).take(rows),
                        pa.array(amount).take(rows),
                    ],
                    schema=USES,
                )
            )
        return pa.concat_tables(parts)


class _Found:
    """What spoke of each distinct combination, as a matrix of states: combinations by clauses."""

    def __init__(self, clauses: Sequence[_Clause], states: npt.NDArray[np.uint8]) -> None:
        self.clauses = clauses
        self.states = states
        effects = np.array(
            [[_EFFECTS.index(one.effects.get(state, "")) for state in range(4)] for one in clauses]
        )
        self.effects = effects[np.arange(len(clauses)), states]

    def any(self, *effects: str) -> Flags:
        """The combinations in which some clause speaks to one of these effects."""
        wanted = [_EFFECTS.index(effect) for effect in effects]
        return np.asarray(np.isin(self.effects, wanted).any(axis=1))

    @property
    def standing(self) -> Flags:
        """The combinations that nothing forbids, and that something permits or would let a person permit."""
        return ~self.any(_FORBID) & self.any(_PERMIT, _ESCALATE)

    def verdict(self, approved: Flags) -> tuple[Integers, pa.Array]:
        """The place of each combination's verdict in `_VERDICTS`, and of its role among the roles."""
        asks = self.any(_ESCALATE) & ~approved
        choices = [self.any(_FORBID), asks, self.any(_CLIP)]
        verdict = np.select(choices, [3, 2, 1], 0)
        ranks = np.array([-1 if one.rank is None else one.rank for one in self.clauses])
        highest = np.where(self.effects == _EFFECTS.index(_ESCALATE), ranks, -1).max(axis=1)
        return verdict, pa.array(highest, mask=(verdict != 2) | (highest < 0))

    def spoken(self, codes: Integers, said: Mapping[int, pa.Array]) -> pa.ChunkedArray:
        """Each row's list of the rules that spoke; `said` has the reasons of those that name figures."""
        rows = {place: np.flatnonzero((self.effects[:, place] > 0)[codes]) for place in said}
        for place, own in said.items():
            if len(own) != len(rows[place]):
                raise InvariantBroken(
                    f"{self.clauses[place].id} spoke more often than it gave a reason"
                )

        def lists(begin: int) -> pa.ListArray:
            part = codes[begin : begin + _ROWS_AT_ONCE]
            mine = {}
            for place, own in said.items():
                first, last = np.searchsorted(rows[place], [begin, begin + len(part)])
                mine[place] = own.slice(first, last - first)
            return self._lists(part, mine)

        begins = range(0, len(codes), _ROWS_AT_ONCE)
        if len(begins) == 1:
            return pa.chunked_array([lists(0)])
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            return pa.chunked_array(list(pool.map(lists, begins)), VERDICTS.field("rules").type)

    def _lists(self, codes: Integers, said: Mapping[int, pa.Array]) -> pa.ListArray:
        """The lists of some rows, laid out from those of their combinations."""
        combination, clause = np.nonzero(self.effects)
        counts = np.bincount(combination, minlength=len(self.states))
        lengths = counts[codes]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        begins = np.cumsum(counts) - counts
        entry = np.repeat(begins[codes] - offsets[:-1], lengths) + np.arange(offsets[-1])
        texts = [
            pa.array([one.says(state) for one in self.clauses for state in range(4)], pa.string())
        ]
        text = (clause * 4 + self.states[combination, clause])[entry]
        spoke = clause[entry]
        filled = len(texts[0])
        for place, own in said.items():
            text[spoke == place] = np.arange(filled, filled + len(own))
            texts.append(own)
            filled += len(own)
        effect = self.effects[combination, clause][entry]
        rules = pa.array([one.id for one in self.clauses]).take(pa.array(spoke))
        effects = pa.array(_EFFECTS).take(pa.array(effect))
        reasons = pa.concat_arrays(texts).take(pa.array(text))
        structs = pa.StructArray.from_arrays([rules, effects, reasons], fields=list(RULE))
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), structs, VERDICTS.field("rules").type
        )


def _distinct(columns: Sequence[npt.NDArray[Any]]) -> tuple[Integers, Integers]:
    """Which combination of values each row has, and the first row of each combination."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        own = pa.array(column).dictionary_encode()
        mixed = codes * len(own.dictionary) + own.indices.to_numpy()
        codes = pa.array(mixed).dictionary_encode().indices.to_numpy().astype(np.int64)
    first = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return codes, first


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _rows(rulebook: Rulebook, proposed: Proposed, evidence: Evidence) -> pa.Table:
    """The columns that the rulebook reads, each row with its proposal and its evidence.

    Evidence that is missing, a row or a whole column, is NULL, so that what depends on it fails closed.
    """
    proposals, values = proposed.proposals, evidence.values
    size = proposals.num_rows
    places: pa.Array | None = None
    if not proposals["subject"].equals(values["subject"]):
        places = pc.index_in(_one(proposals["subject"]), _one(values["subject"]))
    named = {"subject", "priority", *rulebook.action.parameters.names}
    columns = []
    for field in rulebook.query.schema:
        name = field.name
        if name == ROW:
            column = pa.array(np.arange(size))
        elif name == GROUP_VALUE and GROUP in named:
            column = _group_value(proposals, rulebook.action.money)
        elif name in named:
            column = _one(proposals[name])
        else:
            name = name.removeprefix(EVIDENCE)
            column = pa.nulls(size, field.type)
            if name in values.column_names:
                column = _one(values[name])
                column = column if places is None else column.take(places)
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowInvalid as error:
            raise InvariantBroken(
                f"column {field.name} does not hold what it says: {error}"
            ) from error
    return pa.Table.from_arrays(columns, schema=rulebook.query.schema)


def _group_value(proposals: pa.Table, money: str) -> pa.Array:
    """The money of all rows with the same order group; NULL where the group or any of its money is."""
    groups = _one(proposals[GROUP]).dictionary_encode()
    codes = groups.indices
    amounts = _one(proposals[money])
    if not len(groups.dictionary):
        return pa.nulls(len(amounts), pa.int64())
    places = codes.fill_null(0).to_numpy(zero_copy_only=False)
    known = codes.is_valid().to_numpy(zero_copy_only=False)
    filled = amounts.fill_null(0).to_numpy(zero_copy_only=False)
    size = len(groups.dictionary)
    sums = np.bincount(places, weights=np.where(known, filled, 0), minlength=size)
    holes = np.bincount(
        places, weights=known & amounts.is_null().to_numpy(zero_copy_only=False), minlength=size
    )
    unsure = ~known | ((holes > 0) | (np.abs(sums) > _EXACT))[places]
    return pa.array(np.where(unsure, 0, sums[places]).astype(np.int64), mask=unsure)
