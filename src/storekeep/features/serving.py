"""Features as they are by now, for whoever asks about some subjects and cannot wait.

Hides how values go into the store's lists and come out again, and how a subject is spelled. What is served is
what the join gives whose labels are all subjects and whose time is now (`storekeep.features.history.latest`),
and what a missing value means is the same as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.decisions import stamp
from storekeep.errors import Misused, Refused
from storekeep.features.definition import Feature, FeatureSet
from storekeep.features.history import Missing, Wanted, latest
from storekeep.retail import ARROW, Kind
from storekeep.store import Found

_WHOLE: Mapping[Kind, pa.DataType] = {
    "int": pa.int64(),
    "bool": pa.int64(),
    "date": pa.int32(),
    "time": pa.int64(),
}


def subjects(keys: pa.Table, declared: FeatureSet) -> pa.StringArray:
    """How the store spells each subject: its keys, one after the other, so that no two are the same."""
    parts = []
    for name in declared.keys:
        text = keys[name].cast(pa.string()).combine_chunks()
        if len(declared.keys) > 1:
            text = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), "|", "\\p")
        parts.append(text)
    return pc.binary_join_element_wise(*parts, "|") if len(parts) > 1 else parts[0]


def rows(one: Wanted, known_by: datetime, online: int) -> Iterator[pa.Table]:
    """The newest values of all subjects, as the store keeps them under the number `online`."""
    for found in latest(one, known_by):
        many = found.num_rows
        yield pa.table(
            {
                "online": pa.repeat(pa.scalar(online, pa.int64()), many),
                "subject": subjects(pa.Table.from_batches([found]), one.checked.declared),
                "occurred_at": found["__occurred"],
                "integers": _listed(found, one.features, tuple(_WHOLE)),
                "numbers": _listed(found, one.features, ("float",)),
                "texts": _listed(found, one.features, ("text",)),
            }
        )


def _listed(found: pa.RecordBatch, features: Sequence[Feature], kinds: Sequence[Kind]) -> pa.Array:
    own = [each for each in features if each.kind in kinds]
    if not own:
        return pa.nulls(found.num_rows, pa.struct([]))
    columns = []
    for each in own:
        column = found.column(each.name)
        whole = _WHOLE.get(each.kind)
        columns.append(column if whole is None else column.cast(whole).cast(pa.int64()))
    return pa.StructArray.from_arrays(columns, [each.name for each in own])


def asked(rows_: Sequence[Mapping[str, Any]], declared: FeatureSet, feature: str) -> pa.Table:
    """The subjects that somebody asks about, each an object with the keys of a set.

    Raises `Misused` where a key is not there, or of another kind.
    """
    columns = {}
    for name, kind in declared.keys.items():
        cells = [row.get(name) for row in rows_]
        wrong = [place for place, cell in enumerate(cells) if not _is(cell, kind)]
        if wrong:
            raise Misused(
                f"feature {feature} is of a {name} that is {kind}, and of key {wrong[0]} (counted from 0)"
                f" {name} is {cells[wrong[0]]!r}"
            )
        given = [date.fromisoformat(str(cell)) for cell in cells] if kind == "date" else cells
        columns[name] = pa.array(given, ARROW[kind])
    return pa.table(columns)


def _is(cell: object, kind: Kind) -> bool:
    if kind == "date":
        return isinstance(cell, str) and _is_day(cell)
    types = {"text": str, "int": int, "bool": bool}
    return type(cell) is types[kind]


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def answer(
    keys: pa.Table,
    declared: FeatureSet,
    names: Sequence[str],
    found: Sequence[Found],
    now: datetime,
    missing: Mapping[str, Missing],
) -> dict[str, pa.Array]:
    """The values of some features of these subjects, in their order, each as it holds by now.

    Counts what is missing, and raises `Refused` where it must not be, as the join does.
    """
    there = {each.subject: each for each in found}
    held = [there.get(subject) for subject in subjects(keys, declared).to_pylist()]
    lists = _by_feature(held, declared)
    times = [None if one is None else one.occurred_at for one in held]
    known = [time for time in times if time is not None]
    oldest = min(known) if known and len(known) == len(times) else None
    values = {}
    for name in names:
        each = declared.feature(name)
        least, cells = now - declared.limit(each), lists[name]
        if oldest is None or oldest < least:
            pairs = zip(times, cells, strict=True)
            cells = [None if time is None or time < least else cell for time, cell in pairs]
        if None in cells:
            cells = _filled(each, cells, held, least, missing[name], keys)
        values[name] = pa.array(cells, _WHOLE.get(each.kind) or ARROW[each.kind])
        if each.kind in {"bool", "date", "time"}:
            values[name] = values[name].cast(ARROW[each.kind])
    return values


def _by_feature(held: Sequence[Found | None], declared: FeatureSet) -> dict[str, Sequence[Any]]:
    """The cells of each feature of a set, of one subject after the other."""
    kinds = [{"float": 1, "text": 2}.get(each.kind, 0) for each in declared.features]
    columns = []
    for kind in range(3):
        nothing = [None] * kinds.count(kind)
        rows_ = (nothing if one is None else one[kind + 2] for one in held)
        columns.append(iter(list(zip(*rows_, strict=True))))
    pairs = zip(declared.features, kinds, strict=True)
    return {each.name: next(columns[kind]) if held else [] for each, kind in pairs}


def _filled(
    each: Feature,
    cells: Sequence[Any],
    held: Sequence[Found | None],
    oldest: datetime,
    missing: Missing,
    keys: pa.Table,
) -> Sequence[Any]:
    """The values of one feature, those that are missing filled in as was declared."""
    empty = [place for place, cell in enumerate(cells) if cell is None]
    for place in empty:
        one = held[place]
        missing.before += one is None
        missing.stale += one is not None and one.occurred_at < oldest
        missing.null += one is not None and one.occurred_at >= oldest
    if each.default is not None:
        default = int(each.default) if each.kind == "bool" else each.default
        return [default if cell is None else cell for cell in cells]
    if each.nullable:
        return cells
    first = held[empty[0]]
    subject = ", ".join(f"{name}={keys[name][empty[0]].as_py()}" for name in keys.column_names)
    why = "nothing is known of it"
    if first is not None:
        why = "its row has none"
        if first.occurred_at < oldest:
            why = f"the last that is known is of {stamp(first.occurred_at)}, and holds no more"
    raise Refused(f"feature {each.name} of {subject} has no value: {why}")
