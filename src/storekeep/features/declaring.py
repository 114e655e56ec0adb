"""Declarations of features read from a file, and held against the rows that they are declared over.

Hides how a person's file is run, and how what it declares is refused: with the file, the set, the feature and
what is wrong, before anything is kept.
"""

from __future__ import annotations

import os
import re
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import duckdb

from storekeep import sql
from storekeep.errors import Misused
from storekeep.features.definition import Feature, FeatureSet, Source
from storekeep.lake import Outside
from storekeep.retail import Kind
from storekeep.sql import Expression, Family, Place

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LONGEST = timedelta(days=36_500)
_FITS: Mapping[Kind, frozenset[Family]] = {
    "text": frozenset({Family.TEXT}),
    "int": frozenset({Family.INTEGER}),
    "float": frozenset({Family.NUMBER, Family.INTEGER}),
    "bool": frozenset({Family.BOOLEAN}),
    "date": frozenset({Family.DATE}),
    "time": frozenset({Family.INSTANT}),
}
_VALUES: Mapping[Kind, tuple[type, ...]] = {
    "text": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
KEY_KINDS: Mapping[Kind, frozenset[Family]] = {
    kind: _FITS[kind] for kind in ("text", "int", "date", "bool")
}


@dataclass(frozen=True)
class Checked:
    """A set whose declarations hold of the table as it is: the expression of each feature, and its types."""

    declared: FeatureSet
    expressions: Mapping[str, Expression]
    types: Mapping[str, str]


def read(path: Path) -> list[FeatureSet]:
    """The sets that a person's file declares, in its order; the file is run.

    Raises `Misused` when it cannot be run, or declares nothing.
    """
    try:
        found = runpy.run_path(str(path))
    except Exception as error:  # noqa: BLE001  # whatever a person's own file raises is a fault of it
        raise Misused(f"{path} cannot be run: {type(error).__name__}: {error}") from None
    sets = [each for each in found.values() if isinstance(each, FeatureSet)]
    if not sets:
        raise Misused(f"{path} declares no features: it has no FeatureSet")
    return [_beside(each, path) for each in sets]


def _beside(declared: FeatureSet, path: Path) -> FeatureSet:
    """The same, with the place of its rows as seen from anywhere."""
    rows = os.path.normpath(path.absolute().parent / declared.source.path)
    return replace(declared, source=replace(declared.source, path=rows), place=str(path))


def checked(declared: FeatureSet, outside: Outside) -> Checked:
    """Hold a set against the table that it is declared over; raises `Misused` with what is wrong."""
    _well_formed(declared)
    types = _types(outside)
    where = f"{declared.place or 'declared'}: set {declared.name}"
    for column in (*declared.keys, *_times(declared.source)):
        if column not in types:
            raise Misused(
                f"{where}: {outside.path} has no column {column}; it has: {', '.join(types)}"
            )
    for name, kind in declared.keys.items():
        if sql.family(types[name]) not in KEY_KINDS[kind]:
            raise Misused(
                f"{where}: key {name} is declared as {kind}, and is {types[name]} in {outside.path}"
            )
    for column in _times(declared.source):
        _is_time(where, column, types[column], declared.source.time_zone)
    usable = {name: type_ for name, type_ in types.items() if sql.family(type_) is not None}
    expressions = {each.name: _expression(declared, each, usable) for each in declared.features}
    return Checked(declared, expressions, types)


def _well_formed(declared: FeatureSet) -> None:
    where = declared.place or "declared"
    names = [each.name for each in declared.features]
    for name in (declared.name, *names):
        if not _NAME.fullmatch(name):
            raise Misused(
                f"{where}: {name!r} is no name of a feature: lower-case letters, digits and underscores"
            )
    where = f"{where}: set {declared.name}"
    if not declared.features or not declared.keys:
        raise Misused(f"{where} declares no {'features' if declared.keys else 'keys'}")
    for name in names:
        if names.count(name) > 1 or name in declared.keys:
            raise Misused(f"{where}: {name} is declared twice")
    for name, kind in declared.keys.items():
        if kind not in KEY_KINDS:
            raise Misused(f"{where}: key {name} is of kind {kind}; it is one of {list(KEY_KINDS)}")
    for each in declared.features:
        limit = declared.limit(each)
        if not timedelta(0) < limit <= _LONGEST:
            raise Misused(
                f"{where}: feature {each.name} has an open-ended window: fresh_within is {limit}; "
                "say for how long a value holds, a century at most"
            )
        if each.kind not in _FITS:
            raise Misused(f"{where}: feature {each.name} is of kind {each.kind}; use {list(_FITS)}")
        fits = _VALUES.get(each.kind, ())
        if each.default is not None and type(each.default) not in fits:
            raise Misused(
                f"{where}: feature {each.name}: default {each.default!r} is no {each.kind}"
            )


def _times(source: Source) -> list[str]:
    return [source.occurred_at, *([source.known_at] if source.known_at else [])]


def _is_time(where: str, column: str, type_: str, time_zone: str | None) -> None:
    found = sql.family(type_)
    if found is Family.INSTANT or (found is Family.TIMESTAMP and time_zone):
        return
    if found is Family.TIMESTAMP:
        raise Misused(f"{where}: {column} has no time zone; say which one with Source(time_zone=…)")
    raise Misused(f"{where}: {column} is no time but {type_}")


def _types(outside: Outside) -> dict[str, str]:
    """The columns of the table and their types, as DuckDB names them."""
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(f"DESCRIBE SELECT * FROM {outside.relation()}").fetchall()
    except duckdb.Error as error:
        said = str(error).partition("\n")[0]
        raise Misused(f"{outside.path} cannot be read as Parquet: {said}") from None
    return {
        row[0]: "TIMESTAMPTZ" if row[1] == "TIMESTAMP WITH TIME ZONE" else row[1] for row in rows
    }


def _expression(declared: FeatureSet, each: Feature, types: Mapping[str, str]) -> Expression:
    place = Place(f"{declared.place or 'declared'}: set {declared.name}: feature {each.name}", 1, 1)
    one = sql.parse(each.expression, types, place=place)
    if sql.family(one.type) not in _FITS[each.kind]:
        raise Misused(
            f"{place.file} is declared as {each.kind}, but its expression gives {one.type}"
        )
    return one
