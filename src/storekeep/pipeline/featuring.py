"""Features that a retailer's people declare over their own tables: kept, asked for, served.

Hides how a name that somebody asks for finds its set and version, and that a set is read anew only when
another version of it is served.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storekeep.errors import Misused, Refused
from storekeep.features import declaring, serving
from storekeep.features.definition import FeatureSet, from_written, written
from storekeep.features.history import MEMORY, Joined, Missing, Wanted, history, labels_of
from storekeep.lake import outside
from storekeep.pipeline.opening import Opened, not_ourselves
from storekeep.pipeline.openlineage import Exporting
from storekeep.store import Reader, Transaction

FEATURES = "features"
"""What sets of features are registered as."""
_RETIRED = "retired"
_RECIPE = b"storekeep"


@dataclass(frozen=True)
class Declared:
    """What became of a set that was declared: whether it is `new`, and whether it is what is asked for."""

    declared: FeatureSet
    new: bool
    in_force: bool


@dataclass(frozen=True)
class Answered:
    """Subjects with the features that were asked for; of which versions, and what was missing."""

    rows: pa.Table
    versions: Mapping[str, str]
    missing: Mapping[str, Missing]


@dataclass
class Served:
    """Features as they are by now, read on a connection of its own."""

    opened: Opened
    reader: Reader
    _sets: dict[str, FeatureSet] = field(default_factory=dict)

    def get(self, keys: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Answered:
        """The features of some subjects as they are by now, a row for each, in their order.

        `keys` have what identifies a subject in the sets that the features are of. Raises `Misused` for a
        feature or key that is not there, `Refused` where a value is missing that must not be.
        """
        now = self.opened.now()
        missing = {name.rpartition(".")[2]: Missing() for name in names}
        columns: dict[str, pa.Array] = {}
        versions: dict[str, str] = {}
        for declared, features in self._grouped(names):
            asked = serving.asked(keys, declared, features[0])
            spelled = serving.subjects(asked, declared).to_pylist()
            version, found = self.reader.values(declared.name, spelled)
            if version is None:
                self._served(declared)
            elif version != declared.version:
                # Another one was promoted since, which may have other features and keys.
                self._sets = {}
                return self.get(keys, names)
            columns |= {name: asked[name].combine_chunks() for name in declared.keys}
            columns |= serving.answer(asked, declared, features, found, now, missing)
            versions |= {name: f"{declared.name}:{declared.versions[name]}" for name in features}
        return Answered(pa.table(columns), versions, missing)

    def _grouped(self, names: Sequence[str]) -> list[tuple[FeatureSet, list[str]]]:
        if not self._sets:
            with self.opened.store.transaction(self.opened.tenant) as tx:
                self._sets = _in_force(tx)
        return _grouped(self._sets, names)

    def _served(self, declared: FeatureSet) -> None:
        with self.opened.store.transaction(self.opened.tenant) as tx:
            served = [one for one in tx.online() if one["served"]]
        if declared.name not in {one["set_name"] for one in served}:
            raise Refused(
                f"features of {declared.name} are not served yet; run"
                f" `storekeep features materialise {declared.name}`"
            )


class Featuring(Exporting):
    """From what people declare to what is asked for."""

    def declare_features(self, path: Path, by: str) -> list[Declared]:
        """Keep the sets that a file declares; the first version of a set is in force at once.

        Another version is kept beside it until it is promoted. Raises `Misused` with the place of what is
        wrong; then nothing of the file is kept.
        """
        not_ourselves(by)
        found = []
        for declared in declaring.read(path):
            declaring.checked(declared, outside(declared.source.path))
            found.append(declared)
        told = []
        with self.store.transaction(self.tenant) as tx:
            for declared in found:
                known = tx.registered(FEATURES, declared.name)
                new = tx.registered(FEATURES, declared.name, declared.version) is None
                if known is None or _RETIRED in json.loads(known[1]):
                    self._put_in_force(
                        tx, FEATURES, declared.name, declared.version, written(declared), by
                    )
                    known = (declared.version, "")
                elif new:
                    text = written(declared)
                    tx.register(FEATURES, declared.name, declared.version, text, self.now(), by)
                told.append(Declared(declared, new, known[0] == declared.version))
        return told

    def feature_sets(self) -> list[FeatureSet]:
        """The sets that are in force, by name."""
        with self.store.transaction(self.tenant) as tx:
            return list(_in_force(tx).values())

    def feature_set(self, name: str, version: str | None = None) -> FeatureSet:
        """A set in force, or its version that so begins; raises `Refused` when there is none."""
        with self.store.transaction(self.tenant) as tx:
            return _version(tx, name, version)

    def promote_features(self, name: str, version: str, by: str) -> FeatureSet:
        """Put a version of a set in force, and serve it where a version of it is served.

        Raises `Refused` when it has no values to serve yet.
        """
        not_ourselves(by)
        with self.store.transaction(self.tenant) as tx:
            declared = _version(tx, name, version)
            self._put_in_force(tx, FEATURES, name, declared.version, written(declared), by)
            is_served = any(one["served"] for one in tx.online() if one["set_name"] == name)
            if is_served and not tx.serve(name, declared.version):
                raise Refused(
                    f"version {declared.version} of {name} has no values to serve; run `storekeep features"
                    f" materialise {name} --version {declared.version}` first"
                )
        return declared

    def retire_features(self, name: str, by: str) -> None:
        """Nobody gets features of a set any more, but by its versions."""
        not_ourselves(by)
        with self.store.transaction(self.tenant) as tx:
            declared = _version(tx, name, None)
            text = json.dumps({_RETIRED: True})
            self._put_in_force(tx, FEATURES, declared.name, _RETIRED, text, by)
            tx.stop_serving(name)

    def feature_history(
        self, labels: pa.Table, names: Sequence[str], *, at: str | None = None, memory: str = MEMORY
    ) -> Joined:
        """Labels with features as they were known at each label's time (`storekeep.features.history`).

        A name is that of a feature, with its set before it (`SET.FEATURE`) where several have one, and the
        beginning of a set's version behind it (`FEATURE@VERSION`) where it is not the one in force.
        """
        with self.store.transaction(self.tenant) as tx:
            known = _in_force(tx)
            grouped = _grouped(known, names, tx)
        wanted = [_wanted(declared, features) for declared, features in grouped]
        return _named(history(labels, wanted, at=at, memory=memory), wanted, at)

    def rebuild_history(self, built: Path, *, memory: str = MEMORY) -> Joined:
        """The labels of a file that `write_history` wrote with the same features, read anew.

        Each set is asked by the version, and its rows by the version of their table, that the file names.
        Raises `Refused` where rows are not what they were: of a Delta table they can be read again, of
        Parquet files only as long as nobody changes them.
        """
        table = labels_of(built)
        said = json.loads((table.schema.metadata or {}).get(_RECIPE, b"null"))
        if said is None:
            raise Misused(f"{built} was not written by storekeep features history")
        wanted = []
        with self.store.transaction(self.tenant) as tx:
            for each in said["sets"]:
                declared = _version(tx, each["set"], each["version"])
                wanted.append(_wanted(declared, each["features"], each["rows"]))
        names = [name for one in wanted for name in one.names]
        labels = table.drop_columns(names).replace_schema_metadata(None)
        return _named(history(labels, wanted, at=said["at"], memory=memory), wanted, said["at"])

    def materialise(self, name: str, version: str | None = None) -> int:
        """Put the newest values of all subjects of a set where they are served; how many subjects.

        The first version that has values is served from then on.
        """
        declared = self.feature_set(name, version)
        wanted = _wanted(declared, [each.name for each in declared.features])
        now, many = self.now(), 0
        with self.store.transaction(self.tenant) as tx:
            online = tx.begin_online(name, declared.version, now)
        for rows in serving.rows(wanted, now, online):
            with self.store.transaction(self.tenant) as tx:
                tx.put_values(rows)
            many += rows.num_rows
        with self.store.transaction(self.tenant) as tx:
            in_force = _version(tx, name, None).version
            if in_force == declared.version:
                tx.serve(name, declared.version)
        return many

    @contextmanager
    def served(self) -> Iterator[Served]:
        """Features as they are by now, for as long as it is open."""
        with self.store.reader(self.tenant) as reader:
            yield Served(self, reader)


def _wanted(declared: FeatureSet, features: Sequence[str], rows: str | None = None) -> Wanted:
    """Features of a set and its rows: the newest, or those that are known by a digest."""
    version = None
    if rows is not None and rows.startswith("version "):
        version = int(rows.removeprefix("version "))
    found = outside(declared.source.path, version)
    if rows is not None and found.digest != rows:
        raise Refused(
            f"features of {declared.name} cannot be read as they were: the files at {found.path} have"
            " changed since; a Delta table keeps its versions"
        )
    return Wanted(declaring.checked(declared, found), found, tuple(features))


def _named(joined: Joined, wanted: Sequence[Wanted], at: str | None) -> Joined:
    """The same, with what it can be made from again."""
    sets = [
        {
            "set": one.checked.declared.name,
            "version": one.checked.declared.version,
            "features": list(one.names),
            "rows": one.outside.digest,
        }
        for one in wanted
    ]
    recipe = json.dumps({"at": at, "sets": sets})
    return replace(joined, schema=joined.schema.with_metadata({_RECIPE: recipe}))


def write_history(joined: Joined, path: Path) -> int:
    """Write labels with their features to a Parquet file; how many. There is no file until all is there."""
    waiting = path.with_name(path.name + ".part")
    many = 0
    try:
        with pq.ParquetWriter(waiting, joined.schema, compression="zstd") as file:
            for batch in joined.batches:
                file.write_batch(batch)
                many += batch.num_rows
        waiting.replace(path)
    finally:
        waiting.unlink(missing_ok=True)
    return many


def _in_force(tx: Transaction) -> dict[str, FeatureSet]:
    found = {}
    for name, (_, text) in sorted(tx.in_force(FEATURES).items()):
        said = json.loads(text)
        if _RETIRED not in said:
            found[name] = from_written(said)
    return found


def _version(tx: Transaction, name: str, version: str | None) -> FeatureSet:
    registered = tx.registered(FEATURES, name, version)
    if registered is None:
        known = ", ".join(_in_force(tx)) or "none"
        if version is None:
            raise Refused(f"there is no set of features {name}; there are: {known}")
        raise Refused(f"set {name} has no version {version}")
    said = json.loads(registered[1])
    if _RETIRED in said:
        last = tx.promotions(FEATURES, name)[0]
        raise Refused(
            f"set {name} was retired on {last['promoted_at']:%Y-%m-%d} by {last['promoted_by']};"
            " name one of its versions"
        )
    return from_written(said)


def _grouped(
    known: Mapping[str, FeatureSet], names: Sequence[str], tx: Transaction | None = None
) -> list[tuple[FeatureSet, list[str]]]:
    """The sets that features are of, in the order in which they are first asked for, each with its own."""
    found: dict[tuple[str, str], tuple[FeatureSet, list[str]]] = {}
    for asked in names:
        plain, _, version = asked.partition("@")
        declared, name = _one(known, plain, tx)
        if version:
            if tx is None:
                raise Misused(
                    f"{asked}: what is served is the version in force; leave @{version} out"
                )
            declared = _version(tx, declared.name, version)
            if name not in declared.versions:
                raise Misused(f"version {version} of {declared.name} has no feature {name}")
        own = found.setdefault((declared.name, declared.version), (declared, []))
        if name in own[1]:
            raise Misused(f"feature {asked} is asked for twice")
        own[1].append(name)
    return list(found.values())


def _one(
    known: Mapping[str, FeatureSet], asked: str, tx: Transaction | None
) -> tuple[FeatureSet, str]:
    """The set that a feature is of, and its name there."""
    set_name, _, name = asked.rpartition(".")
    if set_name and set_name not in known and tx is not None:
        return _version(tx, set_name, None), name
    having = [
        one
        for one in known.values()
        if name in one.versions and (not set_name or one.name == set_name)
    ]
    if not having:
        there = sorted(each for one in known.values() for each in one.versions)
        raise Misused(f"there is no feature {asked}; there are: {', '.join(there) or 'none'}")
    if len(having) > 1:
        choices = ", ".join(f"{one.name}.{name}" for one in having)
        raise Misused(f"several sets have a feature {name}; name one: {choices}")
    return having[0], name
