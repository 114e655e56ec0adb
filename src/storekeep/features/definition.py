"""What a feature is: a value of a subject as of a time, declared once and named by what it says.

A declaration says where the rows are, what identifies a subject, how a value follows from a row, and for how
long it holds. Nothing is read here; `storekeep.features.declaring` holds a declaration against its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

from storekeep import canonical
from storekeep.retail import Kind, Privacy

Value = str | int | float | bool
VERSION_LENGTH = 12


@dataclass(frozen=True)
class Source:
    """A table that others keep, as Parquet or Delta: where, and which of its columns tell the times.

    `path` is a file, a folder or a pattern of Parquet files, or the folder of a Delta table; where it is no
    absolute path, it is looked for beside the file that declares it. `occurred_at` is the column that says
    when a row came to be so, `known_at` when it was known, which is the same where none is named.
    `time_zone` is that of times which name none.
    """

    path: str
    occurred_at: str
    known_at: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True)
class Feature:
    """One feature: how its value follows from a row of the source, and what it means.

    `sql` is an expression over the row's columns (`storekeep.sql`), the column of the feature's name where
    none is given. `fresh_within` is for how long a row holds, that of the set where none is given. Where
    there is no value, or none that still holds, it is `default`; with no default, and if it is not
    `nullable`, whoever asks is refused.
    """

    name: str
    kind: Kind
    meaning: str
    sql: str | None = None
    unit: str | None = None
    fresh_within: timedelta | None = None
    default: Value | None = None
    nullable: bool = False
    privacy: Privacy = "internal"

    @property
    def expression(self) -> str:
        """The expression that gives its value."""
        return self.name if self.sql is None else self.sql


@dataclass(frozen=True)
class FeatureSet:
    """Features of one subject that are read from the same rows.

    `keys` are the columns that identify a subject, in the source and in what is asked about, and their kinds.
    """

    name: str
    keys: Mapping[str, Kind]
    source: Source
    fresh_within: timedelta
    owner: str
    features: tuple[Feature, ...]
    meaning: str = ""
    place: str = field(default="", compare=False)

    def limit(self, feature: Feature) -> timedelta:
        """For how long a row gives a value of a feature."""
        return feature.fresh_within or self.fresh_within

    @cached_property
    def versions(self) -> Mapping[str, str]:
        """The version of each feature: a digest of all that its values follow from."""
        return {each.name: self._digest(_said(self, each)) for each in self.features}

    @cached_property
    def version(self) -> str:
        """The version of the set: a digest of those of its features."""
        return self._digest(dict(self.versions))

    @staticmethod
    def _digest(said: Mapping[str, Any]) -> str:
        return canonical.digest(said)[:VERSION_LENGTH]

    def feature(self, name: str) -> Feature:
        """The feature of that name; `KeyError` when there is none."""
        for each in self.features:
            if each.name == name:
                return each
        raise KeyError(name)


def _said(declared: FeatureSet, each: Feature) -> dict[str, Any]:
    """All that the values of a feature follow from."""
    source = declared.source
    return {
        "keys": dict(declared.keys),
        "path": source.path,
        "occurred_at": source.occurred_at,
        "known_at": source.known_at,
        "time_zone": source.time_zone,
        "kind": each.kind,
        "sql": each.expression,
        "fresh_within_seconds": declared.limit(each).total_seconds(),
        "default": each.default,
        "nullable": each.nullable,
    }


def written(declared: FeatureSet) -> str:
    """A set as canonical JSON: how the registry keeps it."""
    return canonical.text(
        {
            "name": declared.name,
            "keys": dict(declared.keys),
            "source": {
                "path": declared.source.path,
                "occurred_at": declared.source.occurred_at,
                "known_at": declared.source.known_at,
                "time_zone": declared.source.time_zone,
            },
            "fresh_within_seconds": declared.fresh_within.total_seconds(),
            "owner": declared.owner,
            "meaning": declared.meaning,
            "features": [_plain(each) for each in declared.features],
        }
    )


def _plain(each: Feature) -> dict[str, Any]:
    own = each.fresh_within
    return {
        "name": each.name,
        "kind": each.kind,
        "meaning": each.meaning,
        "sql": each.sql,
        "unit": each.unit,
        "fresh_within_seconds": None if own is None else own.total_seconds(),
        "default": each.default,
        "nullable": each.nullable,
        "privacy": each.privacy,
    }


def from_written(said: Mapping[str, Any]) -> FeatureSet:
    """A set as the registry keeps it."""
    features = []
    for each in said["features"]:
        own = each["fresh_within_seconds"]
        limit = None if own is None else timedelta(seconds=own)
        rest = {name: value for name, value in each.items() if name != "fresh_within_seconds"}
        features.append(Feature(**rest, fresh_within=limit))
    return FeatureSet(
        name=said["name"],
        keys=said["keys"],
        source=Source(**said["source"]),
        fresh_within=timedelta(seconds=said["fresh_within_seconds"]),
        owner=said["owner"],
        meaning=said["meaning"],
        features=tuple(features),
    )
