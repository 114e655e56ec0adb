"""Cases that a rulebook must hold: what is given, what is expected of it, and why.

A YAML file beside the rulebook, checked as strictly as the rulebook itself. Hides how all its cases become
one batch that is judged at once, each case as if it were alone, and which rules no case has made speak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, NoReturn

import duckdb
import pyarrow as pa
from pydantic import Field

from storekeep.decisions import HOLDS, Evidence, Judgement, Proposed
from storekeep.errors import InvariantBroken, Refused
from storekeep.policy import written
from storekeep.policy.denying import overdue
from storekeep.policy.forms import Form, Name, Words, fitted, near
from storekeep.policy.judging import USED, Rulebook, judge, uses
from storekeep.policy.query import COULD_NOT_TELL, ROW, arrow
from storekeep.policy.rulebook import EVIDENCE, GROUP, GROUP_VALUE, RESERVED, Duration
from storekeep.policy.written import Steps, Written
from storekeep.sql import Family, Place, family, quoted

MOST_CASES = 10_000
_UNTOLD = tuple(COULD_NOT_TELL.values())
_TIMES = (Family.DATE, Family.TIMESTAMP, Family.INSTANT)
_FITS: Mapping[Family, type | tuple[type, ...]] = {
    Family.BOOLEAN: bool,
    Family.INTEGER: int,
    Family.NUMBER: (int, float),
    **dict.fromkeys((Family.TEXT, *_TIMES), str),
}
_Value = str | int | float | bool | date | datetime | None


class Expect(Form):
    """What must come of a row."""

    verdict: Literal["allow", "clip", "escalate", "deny"] = Field(description="Its verdict.")
    rules: list[str] = Field(
        default=[], description="Rules and limits that must have spoken, whatever their effect."
    )
    parameters: dict[str, int | float] = Field(
        default={}, description="Parameters that policy may lower, and what must be left of them."
    )
    role: Name | None = Field(default=None, description="Role that must be asked.")


class Row(Form):
    """One proposal of a batch."""

    given: dict[str, Any] = Field(
        default={}, description="Columns of the proposal and the evidence, with their values."
    )
    expect: Expect = Field(description="What must come of it.")


class Case(Form):
    """One case: either a row of its own, or several as one batch."""

    id: Name = Field(description="Name of the case, once in the file.")
    because: Words = Field(description="Why it must come out so, in a sentence.")
    used: dict[str, int] = Field(
        default={},
        description="Limit over time, and what recent decisions used of it under the case's keys.",
    )
    waited: Duration = Field(
        default=timedelta(), description="How long ago the first event was that the run answers."
    )
    given: dict[str, Any] | None = Field(
        default=None, description="Columns of the proposal and the evidence, with their values."
    )
    expect: Expect | None = Field(default=None, description="What must come of it.")
    rows: list[Row] | None = Field(
        default=None, description="In place of `given` and `expect`: several, judged as one batch."
    )


class Content(Form):
    """All that a file of cases says."""

    rulebook: Name = Field(description="Id of the rulebook that the cases are for.")
    default: dict[str, Any] = Field(
        default={}, description="Values of all columns that a case does not give."
    )
    cases: list[Case] = Field(min_length=1, description="The cases; at least one.")


MODELS: Mapping[str, type[Form]] = {"": Content, "cases": Case, "rows": Row, "expect": Expect}
"""Which form describes the keys under each key of a file of cases; the empty one is the whole."""


@dataclass(frozen=True)
class Failed:
    """A row that did not come out as its case expects: where it stands, and what was wrong."""

    place: Place
    case: str
    row: int | None
    because: str
    expected: str
    got: str
    rules: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Tried:
    """What came of all cases: how many there are, which failed, and what none of them made speak."""

    file: str
    cases: int
    failed: Sequence[Failed]
    not_tested: Sequence[str]


@dataclass(frozen=True)
class _Line:
    """A row of a case, and where it stands in the file."""

    number: int
    case: Case
    row: int | None
    steps: Steps
    given: Mapping[str, Any]
    expect: Expect


def try_cases(rulebook: Rulebook, source: Path | str, name: str = "cases") -> Tried:
    """Judge all cases of a file (or of a text, called `name`) and hold them against what they expect.

    Raises `Refused` (a file that cannot be opened: `Misused`) with the place of what is wrong in the file.
    """
    return _Trial(rulebook, written.read(source, name)).tried()


def beside(path: Path) -> Path:
    """Where the cases of a rulebook's file are looked for: `replenish.cases.yaml` beside `replenish.yaml`."""
    return path.with_name(f"{path.stem}.cases{path.suffix}")


class _Trial:
    """A file of cases, checked against the columns, rules and limits of one rulebook."""

    def __init__(self, rulebook: Rulebook, source: Written) -> None:
        self.rulebook = rulebook
        self.source = source
        self.action = rulebook.action
        self.types = dict(rulebook.checked.columns)
        self.types.pop(GROUP_VALUE, None)
        self.clauses = rulebook.clause_ids

    def tried(self) -> Tried:
        content = self._content()
        default = self._values(("default",), content.default)
        lines = list(self._lines(content))
        rows = [{**default, **self._values((*one.steps, "given"), one.given)} for one in lines]
        for line, row in zip(lines, rows, strict=True):
            self._check(line, row)
        came = list(self._came(lines, self._judged(lines, rows)))
        failed = [
            failure
            for line, got in zip(lines, came, strict=True)
            if (failure := self._failed(line, got)) is not None
        ]
        spoke = {
            each["rule"]
            for got in came
            for each in got["rules"]
            if not each["reason"].startswith(_UNTOLD)
        }
        silent = [name for name in self.clauses if name not in spoke]
        return Tried(self.source.file, len(content.cases), failed, silent)

    def refuse(self, place: Place, what: str) -> NoReturn:
        raise Refused(f"{place}: {what}")

    # What is written ----------------------------------------------------------------------------------

    def _content(self) -> Content:
        if not isinstance(self.source.value, dict):
            self.refuse(self.source.place(), "cases are keys with values, such as `cases:`")
        content = fitted(self.source, Content, MODELS, {"": "a number is wanted"})
        if content.rulebook != self.rulebook.id:
            what = f"the cases are for rulebook {content.rulebook}, and this is {self.rulebook.id}"
            self.refuse(self.source.place("rulebook"), what)
        if len(content.cases) > MOST_CASES:
            self.refuse(self.source.place("cases"), f"a file has at most {MOST_CASES} cases")
        seen: dict[str, int] = {}
        for at, case in enumerate(content.cases):
            place = self.source.place("cases", at, "id")
            if case.id in seen:
                self.refuse(
                    place, f"case {case.id!r} stands here twice, first in line {seen[case.id]}"
                )
            seen[case.id] = place.line
        return content

    def _lines(self, content: Content) -> Iterator[_Line]:
        for number, case in enumerate(content.cases):
            at: Steps = ("cases", number)
            self._check_used(at, case)
            if case.rows is None and case.expect is not None:
                yield _Line(number, case, None, at, case.given or {}, case.expect)
                continue
            if not case.rows or case.given is not None or case.expect is not None:
                what = "a case has `given` and `expect`, or `rows` that have both"
                self.refuse(self.source.place(*at), what)
            for place, row in enumerate(case.rows):
                yield _Line(number, case, place, (*at, "rows", place), row.given, row.expect)

    def _check_used(self, at: Steps, case: Case) -> None:
        over_time = [name for name, per in self.rulebook.periods.items() if per != "batch"]
        for name, amount in case.used.items():
            if name not in over_time:
                what = f"{name!r} is no limit over a day or week; {near(name, over_time)}"
                self.refuse(self.source.key(*at, "used", name), what)
            if amount < 0:
                self.refuse(self.source.place(*at, "used", name), "an amount is zero or more")

    def _values(self, path: Steps, given: Mapping[str, Any]) -> dict[str, _Value]:
        """The values of a block, each as its column holds it."""
        out: dict[str, _Value] = {}
        for name, value in given.items():
            if name == GROUP_VALUE:
                what = f"{name} follows from the rows: give several with one {GROUP}"
                self.refuse(self.source.key(*path, name), what)
            if name not in self.types:
                what = f"unknown column {name!r}; {near(name, sorted(self.types))}"
                self.refuse(self.source.key(*path, name), what)
            out[name] = self._value(self.source.place(*path, name), self.types[name], value)
        return out

    def _value(self, place: Place, kind: str, value: _Value) -> _Value:
        wanted = family(kind)
        if wanted is None or wanted not in _FITS:
            raise InvariantBroken(f"a value of type {kind} cannot be given")
        fits = isinstance(value, _FITS[wanted])
        if value is None:
            return None
        if not fits or (isinstance(value, bool) and wanted is not Family.BOOLEAN):
            number = wanted is Family.TEXT and isinstance(value, int | float)
            hint = f': write "{value}"' if number else ", or null where it is not known"
            self.refuse(place, f"a value of type {wanted} is wanted{hint}")
        return self._time(place, wanted, str(value)) if wanted in _TIMES else value

    def _time(self, place: Place, wanted: Family, text: str) -> _Value:
        try:
            if wanted is Family.DATE:
                return date.fromisoformat(text)
            found = datetime.fromisoformat(text)
        except ValueError:
            self.refuse(
                place, f"a value of type {wanted} is wanted, such as 2026-11-22 or 2026-11-22T18:30"
            )
        if wanted is Family.INSTANT and found.tzinfo is None:
            self.refuse(place, "a time with its zone is wanted, such as 2026-11-22T18:30Z")
        return found

    def _check(self, line: _Line, row: Mapping[str, _Value]) -> None:
        """That the row says all that the rulebook reads, and expects nothing that cannot be."""
        expect, at = line.expect, (*line.steps, "expect")
        for name in self._needed():
            if name not in row:
                what = (
                    f"case {line.case.id} gives no {name}, which the rulebook reads; "
                    "add it here or to `default`, as null if it is not known"
                )
                self.refuse(self.source.place(*line.steps), what)
        known = [*self.clauses, *sorted(RESERVED)]
        for place, name in enumerate(expect.rules):
            if name not in known:
                what = f"the rulebook has no rule {name!r}; {near(name, known)}"
                self.refuse(self.source.place(*at, "rules", place), what)
        lowered = [*self.action.clippable, *self.action.derived]
        for name in expect.parameters:
            if name not in lowered:
                what = f"policy does not lower {name!r}; {near(name, lowered)}"
                self.refuse(self.source.key(*at, "parameters", name), what)
        roles = self.rulebook.checked.roles
        if expect.role is not None and expect.role not in roles:
            what = f"the rulebook has no role {expect.role!r}; {near(expect.role, roles)}"
            self.refuse(self.source.place(*at, "role"), what)

    def _needed(self) -> list[str]:
        """The columns that each row must give: what the rulebook reads, less what follows from the others."""
        read = {name.removeprefix(EVIDENCE) for name in self.rulebook.query.schema.names}
        if GROUP_VALUE in read:
            read |= {GROUP, self.action.money}
        follows = {ROW, GROUP_VALUE, "subject", "priority", *self.action.derived}
        return sorted(read - follows)

    # What comes of it ---------------------------------------------------------------------------------

    def _judged(self, lines: Sequence[_Line], rows: Sequence[Mapping[str, _Value]]) -> Judgement:
        subjects = [f"{one.case.id}/{(one.row or 0) + 1:05}" for one in lines]
        full = [
            {"subject": subject, "priority": 0.0, **row}
            for subject, row in zip(subjects, rows, strict=True)
        ]
        proposals = self._derived(self._table(self._proposal(), full), full)
        evidence = self._table(self._known(), [_evidence(row) for row in full])
        proposed = Proposed(
            self.rulebook.content.agent, "", self.action, proposals, HOLDS.empty_table()
        )
        seen = Evidence(evidence, datetime(1970, 1, 1, tzinfo=UTC), {}, 0)
        apart = pa.array([one.number for one in lines], pa.int64())
        used = self._used(lines, proposed, seen)
        return judge(self.rulebook, proposed, seen, used, apart=apart)

    def _proposal(self) -> Mapping[str, str]:
        parameters = self.action.parameters.duckdb_types()
        return {"subject": "VARCHAR", "priority": "DOUBLE", **parameters}

    def _known(self) -> Mapping[str, str]:
        """The columns of the evidence."""
        return {
            name.removeprefix(EVIDENCE): kind
            for name, kind in self.types.items()
            if name.startswith(EVIDENCE)
        }

    def _table(self, types: Mapping[str, str], rows: Sequence[Mapping[str, _Value]]) -> pa.Table:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=arrow(types))

    def _derived(self, proposals: pa.Table, rows: Sequence[Mapping[str, _Value]]) -> pa.Table:
        """The proposals with what follows from other parameters worked out where it is not given."""
        follows = {
            name: value
            for name, value in self.rulebook.checked.derived.items()
            if any(name not in row for row in rows)
        }
        for name, value in follows.items():
            given = pa.array([name in row for row in rows])
            sql = (
                f"SELECT CASE WHEN given THEN {quoted(name)} ELSE {value.sql()} END FROM proposals"
            )
            with duckdb.connect() as database:
                database.register("proposals", proposals.append_column("given", given))
                column = database.execute(sql).to_arrow_table().column(0)
            place = proposals.schema.get_field_index(name)
            field = proposals.schema.field(place)
            proposals = proposals.set_column(place, field, column.cast(field.type))
        return proposals

    def _used(self, lines: Sequence[_Line], proposed: Proposed, seen: Evidence) -> pa.Table:
        """What recent decisions used: each case's amounts, under every key that its rows have."""
        schema = pa.schema([*USED, ("batch", pa.int64())])
        if not any(line.case.used for line in lines):
            return schema.empty_table()
        of = dict(zip(proposed.proposals["subject"].to_pylist(), lines, strict=True))
        found = {
            (use["limit"], use["key"], of[use["subject"]].number): of[use["subject"]].case
            for use in uses(self.rulebook, proposed, seen).to_pylist()
        }
        rows = [
            {"limit": limit, "key": key, "amount": case.used.get(limit, 0), "batch": number}
            for (limit, key, number), case in found.items()
        ]
        return pa.Table.from_pylist(rows, schema=schema)

    def _came(self, lines: Sequence[_Line], judgement: Judgement) -> Iterator[Mapping[str, Any]]:
        lowered = [*self.action.clippable, *self.action.derived]
        left = judgement.proposals.select(lowered).to_pylist()
        for verdict, parameters in zip(self._in_time(lines, judgement), left, strict=True):
            yield {**verdict, "parameters": parameters}

    def _in_time(self, lines: Sequence[_Line], judgement: Judgement) -> list[Mapping[str, Any]]:
        """The verdicts, where a case waited too long those that it then comes to."""
        verdicts: list[Mapping[str, Any]] = judgement.verdicts.to_pylist()
        late: dict[timedelta, list[int]] = {}
        for at, line in enumerate(lines):
            late.setdefault(line.case.waited, []).append(at)
        for waited, rows in late.items():
            mine = replace(judgement, verdicts=judgement.verdicts.take(rows), uses=None)
            then = overdue(mine, self.rulebook.content, waited).verdicts.to_pylist()
            for at, verdict in zip(rows, then, strict=True):
                verdicts[at] = verdict
        return verdicts

    def _failed(self, line: _Line, got: Mapping[str, Any]) -> Failed | None:
        """What is not as expected; what is expected and as it should be is not told again."""
        expect, wrong = line.expect, list[tuple[str, str]]()
        if got["verdict"] != expect.verdict:
            wrong.append((expect.verdict, got["verdict"]))
        spoke = {each["rule"] for each in got["rules"]}
        silent = [name for name in expect.rules if name not in spoke]
        if silent:
            wrong.append((f"{', '.join(silent)} to speak", "silence"))
        for name, value in expect.parameters.items():
            if got["parameters"][name] != value:
                wrong.append((f"{name} {value}", f"{name} {got['parameters'][name]}"))
        if expect.role is not None and got["role"] != expect.role:
            wrong.append((f"role {expect.role}", f"role {got['role'] or 'none'}"))
        if not wrong:
            return None
        expected, came = (", ".join(each) for each in zip(*wrong, strict=True))
        place = self.source.place(*line.steps, "expect")
        row = None if line.row is None else line.row + 1
        return Failed(place, line.case.id, row, line.case.because, expected, came, got["rules"])


def _evidence(row: Mapping[str, _Value]) -> dict[str, _Value]:
    """What is known about a row: `evidence.<name>`, or what the proposal says under the same name."""
    named = {name.removeprefix(EVIDENCE): value for name, value in row.items()}
    own = {
        name.removeprefix(EVIDENCE): value
        for name, value in row.items()
        if name.startswith(EVIDENCE)
    }
    return named | own
