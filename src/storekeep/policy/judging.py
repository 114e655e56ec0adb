"""Judging a batch: which rules spoke of each proposal, what they make of it together, and why.

Hides how a rulebook's query, the limits and the words of states become verdicts. The effects stand in a
fixed order: any forbid denies, else any escalation asks a person, else a clip lowers, else a permit allows;
what nothing permits is denied. No order of rules, rows or keys changes the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storekeep.decisions import VERDICTS, Action, Evidence, Judgement, Proposed
from storekeep.errors import InvariantBroken
from storekeep.policy.denying import overdue
from storekeep.policy.limits import Flags, Integers, Queue, Served, serve
from storekeep.policy.query import LARGEST_AMOUNT, LIMITS_OWN, ROW, Query
from storekeep.policy.rulebook import (
    CLIPPED,
    EVIDENCE,
    GROUP,
    GROUP_VALUE,
    Checked,
    CheckedLimit,
    Content,
    check,
)
from storekeep.policy.verdicts import CLIP, DENIED, ESCALATE, VERDICT, Clauses, distinct

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

_EXACT = 2**53
_NAMES = pa.array([str(one) for one in VERDICT])


@dataclass(frozen=True, eq=False)
class Rulebook:
    """A rulebook that was checked and compiled, and is ready to judge from any thread."""

    content: Content
    version: str
    action: Action
    checked: Checked
    query: Query
    clauses: Clauses

    @property
    def id(self) -> str:
        """Its id."""
        return self.content.rulebook

    @property
    def short_version(self) -> str:
        """The first twelve digits of its version, as people see it."""
        return self.version[:12]

    @property
    def clause_ids(self) -> list[str]:
        """The ids of all its rules and limits."""
        rules = [one.id for one in self.checked.rules]
        return rules + [one.id for one in self.checked.limits]

    @property
    def periods(self) -> Mapping[str, str]:
        """Each limit's id, and `day`, `week` or `batch`: the time over which it is shared."""
        return {limit.id: limit.per for limit in self.checked.limits}


def load(
    source: Path | str,
    *,
    action: Action | Mapping[str, Action],
    evidence: Mapping[str, str],
    name: str = "rulebook",
) -> Rulebook:
    """Read, check and compile a rulebook: a file when given a `Path`, else the text itself.

    `action` is the one it must be for, or all that there are, by name. `evidence` gives the DuckDB type of
    each column that the agent's evidence has; `name` is what a text is called in what is said about it.
    Raises `Refused` with file, line and column of the first fault.
    """
    checked = check(source, name, action, evidence)
    return Rulebook(
        checked.content, checked.version, checked.action, checked, Query(checked), Clauses(checked)
    )


def judge(
    rulebook: Rulebook,
    proposed: Proposed,
    evidence: Evidence,
    used: pa.Table | None = None,
    approved: frozenset[str] = frozenset(),
    *,
    apart: pa.Array | None = None,
    waited: timedelta = timedelta(),
) -> Judgement:
    """Judge every proposal of a batch, each on its evidence and all against the limits that they share.

    `used` (schema `USED`) is what recent decisions used of each limit in its day or week, at least for
    `usage_keys`. `approved` are subjects that a person approved: what would ask a person is then satisfied;
    what forbids still does. `apart` judges several batches at once, each as if it were alone: it numbers each
    row's batch, `used` then has a column `batch` of these numbers, and the evidence has the proposals' rows.
    `waited` is how long ago the first event was told that the batch answers: beyond the rulebook's
    `decide_within` everything is denied.
    Raises `InvariantBroken` when the batch is for another agent or action, or limits over time come without
    `used`.
    """
    bench = _Bench(rulebook, proposed, evidence, used, apart)
    return overdue(bench.judgement(approved), rulebook.content, waited)


def usage_keys(rulebook: Rulebook, proposed: Proposed, evidence: Evidence) -> pa.Table:
    """Whose recent use `judge` must be told for this batch: one row per limit over time and key (`KEYS`)."""
    limits = [limit for limit in rulebook.checked.limits if limit.per != "batch"]
    if not limits or not proposed.proposals.num_rows:
        return KEYS.empty_table()
    found = rulebook.query.keys(rows_read(rulebook, proposed, evidence))
    parts = []
    for limit in limits:
        keys = found[limit.id].combine_chunks().unique().drop_null()
        names = [pa.repeat(limit.id, len(keys)), pa.repeat(limit.per, len(keys)), keys]
        parts.append(pa.Table.from_arrays(names, schema=KEYS))
    return pa.concat_tables(parts)


def uses(rulebook: Rulebook, proposed: Proposed, evidence: Evidence) -> pa.Table:
    """What proposals use of each limit (`USES`) if all are done as they stand, whatever policy says."""
    told = rulebook.query.keys(rows_read(rulebook, proposed, evidence))
    subject = _one(proposed.proposals["subject"])
    parts = [USES.empty_table()]
    for place, limit in enumerate(rulebook.checked.limits):
        amount, key = _one(told[f"#a{place}"]), _one(told[limit.id])
        counted = pc.and_(pc.greater(amount, 0), pc.less_equal(amount, LARGEST_AMOUNT))
        rows = pc.indices_nonzero(pc.and_(pc.fill_null(counted, False), pc.is_valid(key)))
        parts.append(_used_by(limit, subject, key, amount, rows))
    return pa.concat_tables(parts)


def _used_by(
    limit: CheckedLimit, subject: pa.Array, key: pa.Array, amount: pa.Array, rows: pa.Array
) -> pa.Table:
    names = [pa.repeat(text, len(rows)) for text in (limit.id, limit.per)]
    columns = [subject.take(rows), *names, key.take(rows), amount.take(rows)]
    return pa.Table.from_arrays(columns, schema=USES)


class _Bench:
    """One batch being judged, or several that do not see one another."""

    def __init__(
        self,
        rulebook: Rulebook,
        proposed: Proposed,
        evidence: Evidence,
        used: pa.Table | None,
        apart: pa.Array | None,
    ) -> None:
        meant = (rulebook.content.agent, rulebook.content.action)
        if (proposed.agent, proposed.action.name) != meant:
            got = f"{proposed.agent}/{proposed.action.name}"
            raise InvariantBroken(f"rulebook {rulebook.id} judges {'/'.join(meant)}, not {got}")
        if used is None and any(per != "batch" for per in rulebook.periods.values()):
            raise InvariantBroken(
                f"rulebook {rulebook.id} limits a day or week: say what was `used`"
            )
        self.rulebook = rulebook
        self.query = rulebook.query
        self.limits = rulebook.checked.limits
        self.proposals = proposed.proposals
        self.size = proposed.proposals.num_rows
        self.subject = _one(proposed.proposals["subject"])
        self.apart = apart
        self.rows = rows_read(rulebook, proposed, evidence, apart)
        self.used = USED.empty_table() if used is None else used
        self.approved = np.zeros(self.size, dtype=bool)

    def judgement(self, approved: frozenset[str]) -> Judgement:
        if approved:
            listed = pc.is_in(self.subject, pa.array(sorted(approved), pa.string()))
            self.approved = listed.to_numpy(zero_copy_only=False)
        told = self.query.judge(self.rows)
        clauses = self.rulebook.clauses
        words = [told[f"#w{word}"].to_numpy() for word in range(self.query.words)]
        codes, first = distinct(words)
        found = clauses.found(words, [], first)
        standing = found.standing[codes]
        served = [self._serve(place, told, standing) for place in range(len(self.limits))]
        proposals = self._lower(told, standing & found.any(CLIP)[codes])
        states = [one.state for one in served]
        if self.approved.any() or any(state.any() for state in states):
            codes, first = distinct([codes, *states, self.approved])
            found = clauses.found(words, states, first)
        verdict, role, persons = found.verdict(self.approved[first])
        said = self._said(found.states, codes, self._figures(told, proposals, served))
        taken = pa.array(codes)
        columns = [
            self.subject,
            _NAMES.take(pa.array(verdict[codes])),
            role.take(taken),
            persons.take(taken),
            found.spoken(codes, said),
        ]
        return Judgement(
            verdicts=pa.Table.from_arrays(columns, schema=VERDICTS),
            proposals=proposals,
            rulebook=self.rulebook.id,
            rulebook_version=self.rulebook.version,
            uses=self._uses(told, served, (verdict != DENIED)[codes]),
        )

    def _serve(self, place: int, told: pa.Table, standing: Flags) -> Served:
        """What one limit says of the rows that are still standing."""
        limit = self.limits[place]
        used, key = self.used.slice(0, 0), _one(told[f"#k{place}"])
        if limit.per != "batch":
            used = self.used.filter(pc.equal(self.used["limit"], limit.id))
        if self.apart is not None:
            key = _within(self.apart, key)
            if used.num_rows:
                own = _within(_one(used["batch"]), _one(used["key"]))
                used = used.set_column(used.schema.get_field_index("key"), "key", own)
        queue = Queue(
            standing=standing,
            approved=self.approved,
            amount=_one(told[f"#a{place}"]),
            at_most=_one(told[f"#m{place}"]),
            key=key,
            priority=_one(self.proposals["priority"]),
            subject=self.subject,
        )
        return serve(queue, used, waits=limit.then == ESCALATE)

    def _lower(self, told: pa.Table, clipped: Flags) -> pa.Table:
        """The proposals with what was clipped lowered, and what derives from it computed again."""
        out = self.proposals
        for name in self.query.lowered if clipped.any() else ():
            place = out.schema.get_field_index(name)
            field = out.schema.field(place)
            lowered = pc.if_else(pa.array(clipped), told[name], out[name])
            out = out.set_column(place, field, lowered.cast(field.type))
        return out

    def _figures(
        self, told: pa.Table, proposals: pa.Table, served: Sequence[Served]
    ) -> dict[int, dict[str, pa.Array]]:
        """The columns that the reason of each clause names, by the clause's place.

        A rule speaks of what was proposed, or of what is `clipped`; a limit of what is left by then.
        """
        found: dict[int, dict[str, pa.Array]] = {}
        for place, reason in self.rulebook.clauses.filled.items():
            number = place - self.rulebook.clauses.rules
            own = {}
            for name in reason.columns:
                if name.startswith(CLIPPED):
                    own[name] = _one(told[name.removeprefix(CLIPPED)])
                elif number >= 0 and name in LIMITS_OWN:
                    own[name] = pa.array(getattr(served[number], name))
                elif number >= 0 and name in self.query.lowered:
                    own[name] = _one(proposals[name])
                else:
                    own[name] = _one(self.rows[name])
            found[place] = own
        return found

    def _said(
        self,
        states: npt.NDArray[np.uint8],
        codes: Integers,
        figures: Mapping[int, Mapping[str, pa.Array]],
    ) -> dict[int, pa.DictionaryArray]:
        """What clauses whose reasons name figures say of the rows they speak of, in their order."""
        clauses, said = self.rulebook.clauses, {}
        for place, columns in figures.items():
            rows = np.flatnonzero(clauses.speaks(place, states[:, place])[codes])
            if not len(rows):
                continue
            taken, own = pa.array(rows), states[codes[rows], place].astype(np.int64)
            told = {name: column.take(taken) for name, column in columns.items()}
            # Most rows share their figures, so what is said is put into words once.
            indices, first = distinct([own, *told.values()])
            alone = {name: column.take(pa.array(first)) for name, column in told.items()}
            openings = clauses.texts.take(pa.array(4 * place + own[first]))
            texts = clauses.filled[place].filled(openings, alone)
            said[place] = pa.DictionaryArray.from_arrays(pa.array(indices), texts)
        return said

    def _uses(self, told: pa.Table, served: Sequence[Served], kept: Flags) -> pa.Table:
        """What the rows that were not denied use of each limit."""
        parts = [USES.empty_table()]
        for place, limit in enumerate(self.limits):
            amount = served[place].amount
            rows = pa.array(np.flatnonzero(kept & (amount > 0)))
            key = _one(told[f"#k{place}"])
            parts.append(_used_by(limit, self.subject, key, pa.array(amount), rows))
        return pa.concat_tables(parts)


def rows_read(
    rulebook: Rulebook, proposed: Proposed, evidence: Evidence, apart: pa.Array | None = None
) -> pa.Table:
    """The columns that the rulebook reads, each row with its proposal and its evidence.

    Of proposals that come with a `group_value_minor` of their own that one holds: lines judged again are
    seldom all lines of their order. Evidence that is missing, a row or a whole column, is NULL, so that what
    depends on it fails closed.
    """
    proposals, values = proposed.proposals, evidence.values
    size = proposals.num_rows
    places: pa.Array | None = None
    if not proposals["subject"].equals(values["subject"]):
        places = pc.index_in(_one(proposals["subject"]), _one(values["subject"]))
    named = {"subject", "priority", *rulebook.action.parameters.names}
    asked, known = set(proposals.column_names), set(values.column_names)
    columns = []
    for field in rulebook.query.schema:
        name = field.name
        if name == ROW:
            column = pa.array(np.arange(size))
        elif name == GROUP_VALUE and name in asked:
            column = _one(proposals[name])
        elif name == GROUP_VALUE and GROUP in named:
            column = _group_value(proposals, rulebook.action.money, apart)
        elif name in named:
            column = _one(proposals[name])
        elif (own := name.removeprefix(EVIDENCE)) in known:
            column = _one(values[own])
            column = column if places is None else column.take(places)
        else:
            column = pa.nulls(size, field.type)
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise InvariantBroken(f"column {name} does not hold what it should: {error}") from error
    return pa.Table.from_arrays(columns, schema=rulebook.query.schema)


def _within(batches: pa.Array, names: pa.Array) -> pa.Array:
    """Names told apart by the batch that they stand in."""
    return pc.binary_join_element_wise(batches.cast(pa.string()), names, "/")


def _group_value(proposals: pa.Table, money: str, apart: pa.Array | None) -> pa.Array:
    """The money of all rows with the same order group; NULL where the group or any of its money is."""
    names = _one(proposals[GROUP])
    groups = (names if apart is None else _within(apart, names)).dictionary_encode()
    amounts = _one(proposals[money])
    size = len(groups.dictionary)
    if not size:
        return pa.nulls(len(amounts), pa.int64())
    known = groups.indices.is_valid().to_numpy(zero_copy_only=False)
    codes = groups.indices.fill_null(0).to_numpy()
    sums = np.bincount(codes, np.where(known, amounts.fill_null(0).to_numpy(), 0), size)
    unsure = np.abs(sums) > _EXACT
    if amounts.null_count:
        holes = amounts.is_null().to_numpy(zero_copy_only=False)
        unsure |= np.bincount(codes, known & holes, size) > 0
    lost = ~known | unsure[codes]
    return pa.array(np.where(lost, 0, sums[codes]).astype(np.int64), mask=lost)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
