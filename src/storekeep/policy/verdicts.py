"""From what each rule said of a row to one verdict, and to the list of the rules that spoke.

Rows of which the same rules say the same are one combination: a million rows are a few hundred of them, and
everything here is worked out once for each combination. Hides the order of precedence and the layout of the
lists, which are put together from their parts without a loop over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storekeep.decisions import RULE, VERDICTS, Decided, Reversibility
from storekeep.errors import InvariantBroken
from storekeep.policy.query import CLAUSES_PER_WORD, NOTHING_LEFT, SILENT, SPOKE, UNTOLD, before
from storekeep.policy.reasons import Reason
from storekeep.policy.rulebook import DEFAULT, IRREVERSIBLE, Checked

Words = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

FORBID, ESCALATE, CLIP, PERMIT = "forbid", "escalate", "clip", "permit"
VERDICT = (Decided.ALLOW, Decided.CLIP, Decided.ESCALATE, Decided.DENY)
ALLOWED, CLIPPED, ESCALATED, DENIED = range(4)
_LIMIT = "limit"
_EFFECTS = ("", FORBID, ESCALATE, CLIP, PERMIT)
_CODE = {effect: np.uint8(code) for code, effect in enumerate(_EFFECTS)}
_ROWS_AT_ONCE = 1 << 17
_LISTS = VERDICTS.field("rules").type
_NOTHING_PERMITS = Reason("", frozenset(), "No rule permits it.")
_NEEDS_PERSON = Reason("", frozenset(), "It cannot be taken back, so a person must approve it.")


@dataclass(frozen=True)
class _Clause:
    """A rule or limit, or what Storekeep itself insists on: its effect in each state, and who may approve."""

    id: str
    kind: str
    effects: Mapping[int, str]
    reason: Reason
    rank: int = -1
    persons: int = 1


class Clauses:
    """All that can speak of a row, in the order of their states: rules, limits, and Storekeep's own two."""

    def __init__(self, checked: Checked) -> None:
        self.rules = len(checked.rules)
        self.limits = len(checked.limits)
        self.irreversible = checked.action.reversibility is Reversibility.IRREVERSIBLE
        listed = _clauses(checked)
        self.size = len(listed)
        self.names = pa.array([one.id for one in listed])
        self.ranks = np.array([one.rank for one in listed])
        self.persons = np.array([one.persons for one in listed])
        self.roles = pa.array(checked.roles, pa.string())
        self.effects = np.array(
            [[_CODE[one.effects.get(state, "")] for state in range(4)] for one in listed], np.uint8
        )
        self.filled = {
            place: one.reason for place, one in enumerate(listed) if not one.reason.plain
        }
        self.texts = pa.array(
            [before(one.kind, state) + one.reason.opening for one in listed for state in range(4)]
        )

    def speaks(self, place: int, states: npt.NDArray[np.uint8]) -> Flags:
        """In which of these states a clause has an effect."""
        flags: Flags = (self.effects[place] > 0)[states]
        return flags

    def found(self, words: Sequence[Words], served: Sequence[Integers], rows: Integers) -> Found:
        """What speaks of these rows: the rules by the query's words, the limits by their states if known."""
        states = np.zeros((len(rows), self.size), dtype=np.uint8)
        shifts = np.arange(0, 2 * CLAUSES_PER_WORD, 2, dtype=np.uint64)
        for place, word in enumerate(words):
            own = slice(place * CLAUSES_PER_WORD, min((place + 1) * CLAUSES_PER_WORD, self.rules))
            told = word[rows][:, None] >> shifts[: own.stop - own.start]
            states[:, own] = (told & np.uint64(3)).astype(np.uint8)
        for place, state in enumerate(served, self.rules):
            states[:, place] = state[rows]
        found = Found(self, states)
        if self.irreversible:
            found.speak(self.size - 2, found.standing)
        found.speak(self.size - 1, ~found.any(FORBID, ESCALATE, PERMIT))
        return found


class Found:
    """What speaks of each combination, as matrices of states and effects: combinations by clauses."""

    def __init__(self, clauses: Clauses, states: npt.NDArray[np.uint8]) -> None:
        self.clauses = clauses
        self.states = states
        self.effects = clauses.effects[np.arange(clauses.size), states]

    def speak(self, place: int, flags: Flags) -> None:
        """Let one more clause speak where the flags are set."""
        self.states[:, place] = np.where(flags, SPOKE, SILENT)
        self.effects[:, place] = self.clauses.effects[place, self.states[:, place]]

    def any(self, *effects: str) -> Flags:
        """The combinations in which some clause speaks to one of these effects."""
        found = self.effects == _CODE[effects[0]]
        for effect in effects[1:]:
            found |= self.effects == _CODE[effect]
        flags: Flags = found.any(axis=1)
        return flags

    @property
    def standing(self) -> Flags:
        """The combinations that nothing forbids, and that a rule permits or a person could."""
        return ~self.any(FORBID) & self.any(PERMIT, ESCALATE)

    def verdict(self, approved: Flags) -> tuple[Integers, pa.Array, pa.Array]:
        """Each combination's place in `VERDICT`, the role that may approve it, and how many must."""
        asks = self.any(ESCALATE) & ~approved
        choices = [self.any(FORBID), asks, self.any(CLIP)]
        verdict = np.select(choices, [DENIED, ESCALATED, CLIPPED], ALLOWED)
        asking, nobody = self.effects == _CODE[ESCALATE], verdict != ESCALATED
        rank = np.where(asking, self.clauses.ranks, -1).max(axis=1)
        persons = np.where(asking, self.clauses.persons, 1).max(axis=1)
        role = self.clauses.roles.take(pa.array(rank, mask=nobody))
        return verdict, role, pa.array(persons, pa.int64(), mask=nobody)

    def spoken(self, codes: Integers, said: Mapping[int, pa.DictionaryArray]) -> pa.ChunkedArray:
        """Each row's list of what spoke; `said` has the reasons of clauses that name figures, row by row."""
        layout = _Layout(self, codes, said)
        begins = range(0, len(codes), _ROWS_AT_ONCE)
        if len(begins) == 1:
            return pa.chunked_array([layout.lists(0)], _LISTS)
        with ThreadPoolExecutor(pa.cpu_count()) as pool:
            return pa.chunked_array(list(pool.map(layout.lists, begins)), _LISTS)


class _Layout:
    """The lists of all combinations end to end, and where each combination's list lies in that."""

    def __init__(
        self, found: Found, codes: Integers, said: Mapping[int, pa.DictionaryArray]
    ) -> None:
        combination, self.clause = np.nonzero(found.effects)
        self.clauses = found.clauses
        self.codes = codes
        self.said = said
        self.effect = found.effects[combination, self.clause]
        self.text = self.clause * 4 + found.states[combination, self.clause]
        self.lengths = np.bincount(combination, minlength=len(found.states))
        self.begins = np.cumsum(self.lengths) - self.lengths
        self.rows = {place: np.flatnonzero((found.effects[:, place] > 0)[codes]) for place in said}
        for place, own in said.items():
            if len(own) != len(self.rows[place]):
                name = self.clauses.names[place]
                raise InvariantBroken(
                    f"{name} spoke {len(self.rows[place])} times, with {len(own)} reasons"
                )

    def lists(self, begin: int) -> pa.ListArray:
        """The lists of a run of rows, each taken from its combination, with its own reasons put in."""
        codes = self.codes[begin : begin + _ROWS_AT_ONCE]
        lengths = self.lengths[codes]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        entry = np.repeat(self.begins[codes] - offsets[:-1], lengths) + np.arange(offsets[-1])
        clause, text = self.clause[entry], self.text[entry]
        texts = [self.clauses.texts]
        filled = len(texts[0])
        for place, own in self.said.items():
            first, last = np.searchsorted(self.rows[place], [begin, begin + len(codes)])
            text[clause == place] = filled + own.indices.to_numpy()[first:last]
            texts.append(own.dictionary)
            filled += len(own.dictionary)
        columns = [
            self.clauses.names.take(pa.array(clause)),
            pa.array(_EFFECTS).take(pa.array(self.effect[entry])),
            pa.concat_arrays(texts).take(pa.array(text)),
        ]
        structs = pa.StructArray.from_arrays(columns, fields=list(RULE))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, _LISTS)


def distinct(columns: Sequence[npt.NDArray[Any] | pa.Array]) -> tuple[Integers, Integers]:
    """Which combination of values each row has, and the first row of each combination."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns if len(codes) > 1 else ():
        own = pa.array(column).dictionary_encode(null_encoding="encode")
        mixed = codes * len(own.dictionary) + own.indices.to_numpy()
        codes = pa.array(mixed).dictionary_encode().indices.to_numpy().astype(np.int64)
    first = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return codes, first


def _clauses(checked: Checked) -> list[_Clause]:
    ranks = {role: rank for rank, role in enumerate(checked.roles)}
    found = []
    for rule in checked.rules:
        effects = {SPOKE: rule.effect, UNTOLD: FORBID, NOTHING_LEFT: FORBID}
        if rule.effect in {ESCALATE, PERMIT}:
            effects[UNTOLD] = {ESCALATE: ESCALATE, PERMIT: ""}[rule.effect]
        rank = ranks[rule.role] if rule.role else -1
        found.append(_Clause(rule.id, rule.effect, effects, rule.reason, rank, rule.persons))
    for limit in checked.limits:
        effects = {SPOKE: limit.then, UNTOLD: FORBID}
        rank = ranks[limit.role] if limit.role else -1
        found.append(_Clause(limit.id, _LIMIT, effects, limit.reason, rank, limit.persons))
    highest = len(ranks) - 1
    found.append(_Clause(IRREVERSIBLE, ESCALATE, {SPOKE: ESCALATE}, _NEEDS_PERSON, highest))
    found.append(_Clause(DEFAULT, FORBID, {SPOKE: FORBID}, _NOTHING_PERMITS))
    return found
