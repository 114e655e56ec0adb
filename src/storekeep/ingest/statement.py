"""A mapping put together as one SQL statement that turns a block of a file into judged rows.

Hides the order in which a row is read, and that it is one vectorised pass:

1. each cell is read as the kind its source column is declared to be;
2. the retailer's columns are computed from them, and reference tables looked up;
3. repairs are made: every condition sees the row as it was read, the first that sets a column wins;
4. the row's fate is found: rules in the order they are written, then cells that could not be read, then
   required columns without a value, then numbers out of range;
5. what is left gets its natural key.

Amounts are rounded to whole minor units, halves away from zero, so that a return undoes its sale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from storekeep import retail, sql
from storekeep.errors import Misused
from storekeep.ingest.cells import HOLDS, SOURCE_TYPES, Cell
from storekeep.ingest.feeds import BUILT_IN, Mapping, Rule
from storekeep.sql import Expression, Family, literal, quoted

CLOCK_GAP_BIT = 60
_WIDE = re.compile(r"DECIMAL\((?:19|[23]\d),(\d|1[0-7])\)")


@dataclass(frozen=True)
class Fate:
    """Why a row is not taken in: the rule, the column at fault if one is, and the reason in words."""

    rule: str
    column: str | None
    reason: str
    kept: bool = True


@dataclass(frozen=True)
class Statement:
    """The statement, and what its codes mean.

    `readings` select, by the place of a source column, what the cells of a table `cell` hold, in their order.
    `judge` selects from `block` (`__file`, `__line`, `__row`, `__c0`, …, and what was read) one row each: the
    first three, the target's columns that a file can give, `__s_…` (what is sealed of the row), `__fate`
    (place in `fates`, NULL when taken in), `__spoke` (a bit for each rule that holds), `__raw` (the row as
    JSON, where it may be turned away), `__key`, a digest of what makes the row itself, and `__hash` of that.
    Where rows have no key of their own, equal ones are counted (`counts_equals`); `undecided` are the
    columns that can still differ between them.
    """

    readings: Map[int, str]
    judge: str
    fates: tuple[Fate, ...]
    counts_equals: bool
    undecided: tuple[str, ...]

    @property
    def telling_apart(self) -> tuple[str, ...]:
        """The columns by which equal rows are told apart."""
        return ("__file", "__row", "__fate", "__hash", "__key", *self.undecided)


@dataclass(frozen=True)
class _Parts:
    """The expressions of a mapping, checked."""

    columns: Map[str, Expression]
    conditions: tuple[Expression, ...]
    repairs: Map[str, tuple[tuple[int, Expression], ...]]
    product: Map[str, Expression]
    restated: Map[str, Expression]


@lru_cache(maxsize=256)
def statement(
    mapping: Mapping, cells: tuple[pa.DataType, ...], *, products: bool = False
) -> Statement:
    """The statement for files whose cells have these types.

    With `products` each row also carries what the mapping says of its product, as `__p_…`; where documents
    are told again it carries `__restated_line` and `__restated_as_of`. Raises
    `Refused`, with file, line and column, when an expression of the mapping cannot be computed.
    """
    parts = parsed(mapping)
    kinds = list(mapping.source_columns.items())
    readers = [
        Cell(f'"__c{place}"', name, kind, cells[place], mapping)
        for place, (name, kind) in enumerate(kinds)
    ]
    fates = _fates(mapping, readers)
    filled = {*_filled(mapping), "day"}
    given = tuple(name for name in mapping.target.names if name in filled)
    extra = {f"__p_{name}": one for name, one in parts.product.items()} if products else {}
    extra |= {f"__restated_{name}": one for name, one in parts.restated.items()}
    steps = [
        ("typed", _typed(mapping, readers)),
        ("scope", _scope(mapping, parts)),
        ("repaired", _repaired(mapping, parts)),
        ("flagged", _flagged(mapping, parts, extra)),
        ("fated", f"SELECT *, {_fate(mapping, readers)} AS __fate FROM flagged"),
    ]
    with_ = ",\n".join(f"{name} AS (\n{body}\n)" for name, body in steps)
    body = _final(mapping, readers, fates, given, tuple(extra))
    counts = _counts_equals(mapping)
    undecided = [name for name in given if counts and name not in {*identity(mapping), "day"}]
    readings = {
        place: _reading(mapping, place, one) for place, one in enumerate(readers) if _is_read(one)
    }
    return Statement(readings, f"WITH {with_}\n{body}", fates, counts, tuple(undecided))


@lru_cache(maxsize=256)
def parsed(mapping: Mapping) -> _Parts:
    """Every expression of the mapping, checked against the columns it may speak of.

    Raises `Refused` with the place of the word at fault.
    """
    source = {name: SOURCE_TYPES[kind] for name, kind in mapping.source_columns.items()}
    columns = {
        name: sql.parse(text, source, place=mapping.place("columns", name))
        for name, text in mapping.columns.items()
    }
    for name, one in columns.items():
        _fits(mapping, name, one, ("columns", name))
    scope = {name: source[name] for name in _unshadowed(mapping)}
    types = mapping.target.duckdb_types()
    scope |= {name: types[name] for name in _filled(mapping)}
    for name, reference in mapping.references.items():
        table = retail.TABLES[reference.table]
        scope |= {f"{name}.{column}": type_ for column, type_ in table.duckdb_types().items()}
    conditions = tuple(
        sql.parse(rule.when, scope, place=mapping.place("rules", index, "when"), want="BOOLEAN")
        for index, rule in enumerate(mapping.rules)
    )
    repairs: dict[str, tuple[tuple[int, Expression], ...]] = {}
    for index, rule in enumerate(mapping.rules):
        for name, text in rule.set.items():
            one = sql.parse(text, scope, place=mapping.place("rules", index, "set", name))
            _fits(mapping, name, one, ("rules", index, "set", name))
            repairs[name] = (*repairs.get(name, ()), (index, one))
    product = {
        name: sql.parse(text, scope, place=mapping.place("product", name), want="VARCHAR")
        for name, text in mapping.product.items()
    }
    again = mapping.restated
    restated = (
        {
            name: sql.parse(text, scope, place=mapping.place("restated", name), want=want)
            for name, text, want in (
                ("line", again.line, "VARCHAR"),
                ("as_of", again.as_of, "TIMESTAMPTZ"),
            )
        }
        if again is not None
        else {}
    )
    return _Parts(columns, conditions, repairs, product, restated)


def _filled(mapping: Mapping) -> list[str]:
    """The target's columns that an expression or a repair gives a value, in the target's order."""
    given = {*mapping.columns, *(name for rule in mapping.rules for name in rule.set)}
    return [name for name in mapping.target.names if name in given]


def _unshadowed(mapping: Mapping) -> list[str]:
    """The source's columns that a rule can name: where a canonical one has the name, that is meant."""
    taken = {name.lower() for name in _filled(mapping)}
    return [name for name in mapping.source_columns if name.lower() not in taken]


def _fits(mapping: Mapping, name: str, one: Expression, path: tuple[str | int, ...]) -> None:
    kind = mapping.target.column(name).kind
    allowed: Map[str, set[Family]] = {
        "int": {Family.INTEGER, Family.NUMBER},
        "float": {Family.INTEGER, Family.NUMBER},
        "bool": {Family.BOOLEAN},
        "date": {Family.DATE, Family.TIMESTAMP, Family.INSTANT},
        "time": {Family.DATE, Family.TIMESTAMP, Family.INSTANT},
    }
    found = sql.family(one.type)
    if kind != "text" and found not in allowed.get(kind, set()):
        raise Misused(
            f"{mapping.place(*path)}: {name} of {mapping.target.name} is of kind {kind}, "
            f"but this is {found or one.type}; declare the source column as {kind}, or cast it"
        )


def _is_read(one: Cell) -> bool:
    """Whether a column's cells are read before the rows are judged: it is dear, and most are like others."""
    return one.kind != "text"


def _reading(mapping: Mapping, place: int, one: Cell) -> str:
    """What the cells of one column hold."""
    found = [f'{one.value} AS "__v{place}"']
    if one.gap is not None:
        found.append(f'{one.gap} AS "__g{place}"')
    if one.name == _tells_day(mapping):
        found.append(f'{_day(mapping, one.value)} AS "__d{place}"')
    return f"SELECT {', '.join(found)} FROM cell"


def _typed(mapping: Mapping, readers: Sequence[Cell]) -> str:
    """Each row's cells, and what they hold."""
    columns = ["__file", "__line", "__row", *(one.cell for one in readers)]
    gaps = []
    for place, one in enumerate(readers):
        read = f'"__v{place}"' if _is_read(one) else one.value
        columns.append(f"{read} AS {quoted(one.name)}")
        if one.gap is not None:
            gaps.append(f'coalesce("__g{place}", false)')
        if one.name == _tells_day(mapping):
            columns.append(f'"__d{place}" AS __day')
    columns.append(f"({' OR '.join(gaps) or 'false'}) AS __gap")
    return f"SELECT {', '.join(columns)} FROM block"


def _tells_day(mapping: Mapping) -> str | None:
    """The source's column that says when something happened, if nothing else does."""
    name = mapping.columns.get("occurred_at", "").strip()
    repaired = any("occurred_at" in rule.set for rule in mapping.rules)
    wanted = "day" in mapping.target.names and "day" not in mapping.columns
    return name if wanted and not repaired and mapping.source_columns.get(name) == "time" else None


def _day(mapping: Mapping, time: str) -> str:
    """The trading day of a time."""
    zone = literal(mapping.day_time_zone or mapping.time_zone)
    return f"CAST(timezone({zone}, {time}) AS DATE)"


def _scope(mapping: Mapping, parts: _Parts) -> str:
    """The canonical columns beside the source's, and what reference tables know of the row."""
    cells = [f'"__c{place}"' for place in range(len(mapping.source_columns))]
    types = mapping.target.duckdb_types()
    # A source column that a canonical one hides is still there under a name that rules cannot write.
    failed = [
        f'{quoted(name)} IS NULL AS "__null{place}"'
        for place, name in enumerate(mapping.source_columns)
    ]
    columns = [
        "__file",
        "__line",
        "__row",
        "__gap",
        *(["__day"] if _tells_day(mapping) else []),
        *cells,
        *failed,
        *(quoted(name) for name in _unshadowed(mapping)),
        *(
            f"{_converted(mapping, name, one)} AS {quoted(name)}"
            for name, one in parts.columns.items()
        ),
        *(
            f"CAST(NULL AS {types[name]}) AS {quoted(name)}"
            for name in parts.repairs
            if name not in parts.columns
        ),
    ]
    inner = f"SELECT {', '.join(columns)} FROM typed"
    looked_up, joins = [], []
    for name, read in _reads(mapping, parts).items():
        table, on = quoted(f"reference_{name}"), quoted(mapping.references[name].on)
        looked_up += [f"{table}.{quoted(c)} AS {quoted(f'{name}.{c}')}" for c in sorted(read)]
        joins.append(f"LEFT JOIN {table} ON {table}.{on} = own.{on}")
    if not joins:
        return inner
    return f"SELECT own.*, {', '.join(looked_up)} FROM ({inner}) AS own {' '.join(joins)}"


def _reads(mapping: Mapping, parts: _Parts) -> dict[str, frozenset[str]]:
    """The columns of each reference table that a rule speaks of, and the one it is found by."""
    expressions = [
        *parts.conditions,
        *(one for several in parts.repairs.values() for _, one in several),
        *parts.product.values(),
    ]
    named = {column for one in expressions for column in one.columns if "." in column}
    return {
        name: frozenset(
            {reference.on} | {c.partition(".")[2] for c in named if c.startswith(f"{name}.")}
        )
        for name, reference in mapping.references.items()
    }


def _converted(mapping: Mapping, name: str, one: Expression) -> str:
    """An expression as the value of a target's column; NULL where it cannot be computed."""
    column = mapping.target.column(name)
    source, found = one.sql(), sql.family(one.type)
    zone = literal(mapping.time_zone)
    if column.kind == "text":
        text = source if found is Family.TEXT else f"CAST({source} AS VARCHAR)"
        text = f"nullif({text}, '')"
        if name == "customer_id" and mapping.customer == "keep":
            text = f"{literal(mapping.source + ':')} || {text}"
        return f"TRY({text})"
    if column.unit == "minor money unit":
        return _in_minor_units(one, _minor_units(mapping))
    if column.kind == "int":
        if found is Family.INTEGER:
            return f"TRY(CAST({source} AS BIGINT))"
        return f"TRY(CASE WHEN {source} = trunc({source}) THEN CAST({source} AS BIGINT) END)"
    if column.kind == "float":
        number = f"CAST({source} AS DOUBLE)"
        return f"TRY(CASE WHEN isfinite({number}) THEN {number} END)"
    if column.kind == "time" and found is not Family.INSTANT:
        return f"TRY(timezone({zone}, CAST({source} AS TIMESTAMP)))"
    if column.kind == "date" and found is not Family.DATE:
        day_zone = literal(mapping.day_time_zone or mapping.time_zone)
        local = f"timezone({day_zone}, {source})" if found is Family.INSTANT else source
        return f"TRY(CAST({local} AS DATE))"
    return f"TRY({source})"


def _in_minor_units(one: Expression, scale: str) -> str:
    """An amount in whole minor units."""
    source, wide = one.sql(), _WIDE.fullmatch(one.type)
    exact = source if one.type != "DOUBLE" else f"CAST({source} AS DECIMAL(38,6))"
    whole = f"TRY(CAST(round({exact} * {scale}) AS BIGINT))"
    if wide is None:
        return whole
    # DuckDB rounds a decimal of more than 18 digits ten times slower than one of fewer, and most have fewer.
    narrow = f"TRY_CAST({source} AS DECIMAL(18,{wide[1]}))"
    return f"coalesce(TRY(CAST(round({narrow} * {scale}) AS BIGINT)), {whole})"


def _minor_units(mapping: Mapping) -> str:
    """How many minor units one unit of the row's currency has."""
    if "currency" not in mapping.columns:
        return str(10 ** retail.minor_digits(mapping.currency or ""))
    code = parsed(mapping).columns["currency"].sql()
    few, many = (
        ", ".join(literal(one) for one in sorted(codes))
        for codes in (retail.WITHOUT_CENTS, retail.WITH_MILLS)
    )
    return f"CASE WHEN {code} IN ({few}) THEN 1 WHEN {code} IN ({many}) THEN 1000 ELSE 100 END"


def _holds(condition: Expression) -> str:
    return f"coalesce(TRY({condition.sql()}), false)"


def _repaired(mapping: Mapping, parts: _Parts) -> str:
    repairs = [index for index, rule in enumerate(mapping.rules) if rule.do == "repair"]
    flags = "".join(f', {_holds(parts.conditions[index])} AS "__rule{index}"' for index in repairs)
    inner = f"SELECT *{flags} FROM scope"
    new = []
    for name, several in parts.repairs.items():
        cases = " ".join(
            f'WHEN "__rule{index}" THEN {_converted(mapping, name, one)}' for index, one in several
        )
        new.append(f"CASE {cases} ELSE {quoted(name)} END AS {quoted(name)}")
    return f"SELECT * REPLACE ({', '.join(new)}) FROM ({inner})" if new else inner


def _flagged(mapping: Mapping, parts: _Parts, extra: Map[str, Expression]) -> str:
    columns = [
        f'{_holds(parts.conditions[index])} AS "__rule{index}"'
        for index, rule in enumerate(mapping.rules)
        if rule.do != "repair"
    ]
    columns += [f"TRY({one.sql()}) AS {quoted(name)}" for name, one in extra.items()]
    if "day" in mapping.target.names and "day" not in parts.columns:
        known = "__day" if _tells_day(mapping) else _day(mapping, "occurred_at")
        columns.append(f"{known} AS day")
    return f"SELECT {', '.join(['*', *columns])} FROM repaired"


def _fates(mapping: Mapping, readers: Sequence[Cell]) -> tuple[Fate, ...]:
    """Everything that can turn a row away, in the order in which it is looked at."""
    fates = [Fate("blank", None, BUILT_IN["blank"], kept=False)]
    fates += [
        Fate(rule.id, None, rule.reason, kept=rule.do == "reject") for rule in _deciding(mapping)
    ]
    fates += [
        Fate("unreadable", one.name, f"this is not {HOLDS[one.kind]}")
        for one in readers
        if one.can_fail
    ]
    fates += [
        Fate("missing", name, "a required value is missing or cannot be computed")
        for name in _required(mapping)
    ]
    fates += [Fate("out_of_range", column.name, _range(column)) for column in _ranged(mapping)]
    return (*fates, Fate("repeated", None, BUILT_IN["repeated"]))


def _deciding(mapping: Mapping) -> list[Rule]:
    return [rule for rule in mapping.rules if rule.do != "repair"]


def _required(mapping: Mapping) -> list[str]:
    given = {*mapping.columns, "day"}
    return [c.name for c in mapping.target.columns if not c.nullable and c.name in given]


def _ranged(mapping: Mapping) -> list[retail.Column]:
    return [
        column
        for column in mapping.target.columns
        if column.name in mapping.columns and (column.at_least, column.at_most) != (None, None)
    ]


def _range(column: retail.Column) -> str:
    bounds = [
        f"at {word} {bound}"
        for word, bound in (("least", column.at_least), ("most", column.at_most))
        if bound is not None
    ]
    return f"it must be {' and '.join(bounds)}"


def _fate(mapping: Mapping, readers: Sequence[Cell]) -> str:
    """The place in `fates` of the first thing against a row; the order is that of `_fates`."""
    tests = [" AND ".join(one.empty for one in readers)]
    tests += [f'"__rule{index}"' for index, rule in enumerate(mapping.rules) if rule.do != "repair"]
    tests += [
        f'("__null{place}" AND {one.present})' for place, one in enumerate(readers) if one.can_fail
    ]
    tests += [f"({quoted(name)} IS NULL)" for name in _required(mapping)]
    for column in _ranged(mapping):
        sides = [
            f"{quoted(column.name)} {sign} {bound}"
            for sign, bound in (("<", column.at_least), (">", column.at_most))
            if bound is not None
        ]
        tests.append(f"({' OR '.join(sides)})")
    cases = " ".join(f"WHEN {test} THEN {code}" for code, test in enumerate(tests))
    return f"CAST(CASE {cases} END AS SMALLINT)"


def _final(
    mapping: Mapping,
    readers: Sequence[Cell],
    fates: tuple[Fate, ...],
    given: tuple[str, ...],
    extra: tuple[str, ...],
) -> str:
    bits = [f'(CAST("__rule{index}" AS BIGINT) << {index})' for index in range(len(mapping.rules))]
    bits.append(f"(CAST(__gap AS BIGINT) << {CLOCK_GAP_BIT})")
    kept = ", ".join(str(code) for code, fate in enumerate(fates) if fate.kept)
    told = f"__fate IN ({kept})"
    if not _counts_equals(mapping):
        told += " OR __fate IS NULL"
    raw = ", ".join(f"{quoted(one.name)} := {one.cell}" for one in readers)
    cells = {one.name: one.cell for one in readers}
    columns = [
        "__file",
        "__line",
        "__row",
        *(quoted(name) for name in (*given, *extra)),
        *(f'{cells[name]} AS "__s_{field}"' for field, name in mapping.sealed.items()),
        "__fate",
        f"({' | '.join(bits)}) AS __spoke",
        f"CASE WHEN {told} THEN CAST(to_json(struct_pack({raw})) AS VARCHAR) END AS __raw",
        f"CASE WHEN __fate IS NULL THEN {_key(mapping)} END AS __key",
    ]
    # One bit less, since DuckDB hands what it looks for in an Arrow table over as a signed number.
    digest = "CAST(hash(__file, __key) >> 1 AS BIGINT) AS __hash"
    return f"SELECT *, {digest} FROM (SELECT {', '.join(columns)} FROM fated)"


def _counts_equals(mapping: Mapping) -> bool:
    """Whether equal rows are several facts: so it is with lines of a basket, whose key is made here."""
    return "line_key" in mapping.target.names


def identity(mapping: Mapping) -> list[str]:
    """The columns that make a row itself."""
    if _counts_equals(mapping):
        return ["quantity_units", "value_minor", "occurred_at", *mapping.document, "sku"]
    return [name for name in mapping.target.key if name in _filled(mapping)]


def _key(mapping: Mapping) -> str:
    """A digest of what makes a row itself; texts carry their length, so that no two rows read alike."""
    parts = [literal(mapping.source)]
    for name in identity(mapping):
        kind, column = mapping.target.column(name).kind, quoted(name)
        value = f"epoch_us({column})" if kind == "time" else column
        text = f"coalesce(CAST({value} AS VARCHAR), '')"
        size = f"CAST(length({text}) AS VARCHAR), ':', " if kind == "text" else ""
        parts.append(f"'|', {size}{text}")
    return f"md5(concat({', '.join(parts)}))"
