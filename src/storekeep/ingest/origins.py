"""Column lineage of a mapping: from which columns of a file each column of the retailer's table comes.

Hides that a repair makes a value of other columns than the mapping's own expression does, and that it speaks
of the retailer's columns, which come from the file's themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from storekeep.ingest.feeds import Mapping
from storekeep.ingest.statement import identity, parsed

_FOLLOWS = {"location_id": "store_id", "day": "occurred_at"}


@dataclass(frozen=True)
class Origin:
    """Where the values of a column come from, in names of the file's columns (`table.column` of a reference).

    `made_of` are those that a value is computed from, `decided_by` those that say which of several
    expressions computes it, `expression` the one that does where no repair speaks.
    """

    made_of: tuple[str, ...] = ()
    decided_by: tuple[str, ...] = ()
    expression: str | None = None


def origins(mapping: Mapping) -> dict[str, Origin]:
    """Where each column of the mapping's table comes from; those that no file gives are left out."""
    parts = parsed(mapping)
    own = {name: one.columns for name, one in parts.columns.items()}
    found: dict[str, Origin] = {}
    for name in mapping.target.names:
        repairs = parts.repairs.get(name, ())
        if name not in own and not repairs:
            continue
        made = own.get(name, frozenset()) | _read(
            mapping, own, (column for _, one in repairs for column in one.columns)
        )
        decided = (column for rule, _ in repairs for column in parts.conditions[rule].columns)
        found[name] = Origin(
            tuple(sorted(made)),
            tuple(sorted(_read(mapping, own, decided))),
            mapping.columns.get(name),
        )
    for name, other in _FOLLOWS.items():
        if name in mapping.target.names and name not in found and other in found:
            found[name] = Origin(found[other].made_of, found[other].decided_by)
    if "line_key" in mapping.target.names:
        keys = [found[name] for name in identity(mapping) if name in found]
        found["line_key"] = Origin(
            tuple(sorted({column for one in keys for column in one.made_of})),
            tuple(sorted({column for one in keys for column in one.decided_by})),
        )
    return found


def filters(mapping: Mapping) -> tuple[str, ...]:
    """The columns of a file that decide whether a row of it is taken in."""
    parts = parsed(mapping)
    own = {name: one.columns for name, one in parts.columns.items()}
    spoken = (
        column
        for rule, condition in zip(mapping.rules, parts.conditions, strict=True)
        if rule.do != "repair"
        for column in condition.columns
    )
    return tuple(sorted(_read(mapping, own, spoken)))


def _read(
    mapping: Mapping, own: dict[str, frozenset[str]], columns: Iterable[str]
) -> frozenset[str]:
    """The file's columns behind those that a rule speaks of, where its table's hide the file's."""
    found: set[str] = set()
    for name in columns:
        reference, dot, column = name.partition(".")
        if dot and reference in mapping.references:
            found.add(f"{mapping.references[reference].table}.{column}")
        else:
            found |= own.get(name, {name} & set(mapping.source_columns))
    return frozenset(found)
