"""`features`: declare them over tables of one's own, ask for them as of any time, and as they are by now."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storekeep.cli import shown
from storekeep.cli.asked import Asked, Group, pass_asked
from storekeep.cli.shown import Column
from storekeep.errors import Misused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storekeep.features.definition import FeatureSet
    from storekeep.features.history import Missing

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LIST = (
    Column("Feature"),
    Column("Set"),
    Column("Kind"),
    Column("Unit"),
    Column("Holds for", right=True),
    Column("Version"),
    Column("Meaning", wrap=True, drop=1),
)
_NAMES = click.option(
    "--features",
    "names",
    required=True,
    metavar="A,B",
    help="Names of features, SET.NAME where several sets have one.",
)
_SET = click.argument("name", metavar="SET", help="The name of a set.")
_VERSION = click.option(
    "--version", metavar="VERSION", help="Its version that so begins, not the one in force."
)
_BY = click.option("--by", metavar="NAME", help="Who says so; else the user of this machine.")


@click.group(cls=Group)
def features() -> None:
    """Features as they were known at any time, and as of now."""


def _plain(declared: FeatureSet) -> list[dict[str, Any]]:
    return [
        {
            "feature": each.name,
            "set": declared.name,
            "keys": dict(declared.keys),
            "kind": each.kind,
            "unit": each.unit,
            "sql": each.expression,
            "fresh_within_hours": declared.limit(each).total_seconds() / 3600,
            "default": each.default,
            "nullable": each.nullable,
            "privacy": each.privacy,
            "owner": declared.owner,
            "source": declared.source.path,
            "version": declared.versions[each.name],
            "meaning": each.meaning,
        }
        for each in declared.features
    ]


def _listed(rows: list[dict[str, Any]]) -> str:
    cells = [
        (
            *(row["feature"], row["set"], row["kind"], row["unit"] or ""),
            *(f"{row['fresh_within_hours']:g} h", row["version"], row["meaning"]),
        )
        for row in rows
    ]
    return shown.table(_LIST, cells)


@features.command("list")
@pass_asked
def list_(asked: Asked) -> None:
    """List the features that are in force."""
    with asked.pipeline() as pipeline:
        rows = [row for one in pipeline.feature_sets() for row in _plain(one)]
    asked.answer(rows, lambda: _listed(rows) if rows else "No features are declared.")


@features.command()
@_SET
@_VERSION
@pass_asked
def show(asked: Asked, name: str, version: str | None) -> None:
    """Show a set: where its rows are, and each feature."""
    with asked.pipeline() as pipeline:
        declared = pipeline.feature_set(name, version)
    rows = _plain(declared)
    source = declared.source
    lines = [
        f"{declared.name} {declared.version}, of {', '.join(declared.keys)}; owner {declared.owner}",
        f"  rows in {source.path}, by {source.occurred_at}, known by {source.known_at or source.occurred_at}",
    ]
    for row in rows:
        missing = "refused" if not row["nullable"] else "null"
        missing = missing if row["default"] is None else repr(row["default"])
        lines.append(
            f"  {row['feature']}: {row['sql']} ({row['kind']}{', ' + row['unit'] if row['unit'] else ''}),"
            f" holds {row['fresh_within_hours']:g} h, missing: {missing}. {row['meaning']}"
        )
    asked.answer(
        {"set": declared.name, "version": declared.version, "features": rows}, "\n".join(lines)
    )


@features.command()
@_SET
@click.argument("old", metavar="VERSION", help="The beginning of one of its versions.")
@click.argument(
    "new", metavar="[VERSION]", required=False, help="Of another; else the one in force."
)
@pass_asked
def diff(asked: Asked, name: str, old: str, new: str | None) -> None:
    """Show what a version of a set says otherwise than another."""
    with asked.pipeline() as pipeline:
        one, other = pipeline.feature_set(name, old), pipeline.feature_set(name, new)
    before = {row["feature"]: row for row in _plain(one)}
    after = {row["feature"]: row for row in _plain(other)}
    changes = []
    for feature in dict.fromkeys([*before, *after]):
        was, is_ = before.get(feature, {}), after.get(feature, {})
        said = {
            key: (was.get(key), is_.get(key))
            for key in dict.fromkeys([*was, *is_])
            if was.get(key) != is_.get(key) and key not in {"feature", "set"}
        }
        changes += [
            {"feature": feature, "what": key, "before": a, "after": b}
            for key, (a, b) in said.items()
        ]
    lines = [f"{c['feature']}: {c['what']} {c['before']!r} -> {c['after']!r}" for c in changes]
    asked.answer(changes, "\n".join(lines) or "They say the same.")


@features.command()
@click.argument("file", metavar="FILE.py", type=_FILE, help="A file that declares sets; it is run.")
@_BY
@pass_asked
def declare(asked: Asked, file: Path, by: str | None) -> None:
    """Keep the features that a file of Python declares."""
    with asked.pipeline() as pipeline:
        told = pipeline.declare_features(file, by or getpass.getuser())
    document: list[dict[str, Any]] = [
        {
            "set": each.declared.name,
            "version": each.declared.version,
            "features": dict(each.declared.versions),
            "new": each.new,
            "in_force": each.in_force,
        }
        for each in told
    ]
    lines = []
    for row in document:
        state = "in force" if row["in_force"] else "kept beside the one in force"
        many = shown.count(len(row["features"]), "feature")
        lines.append(f"{row['set']} {row['version']}: {many}, {state}.")
        if not row["in_force"]:
            lines.append(
                f"  to put it in force: {asked.program()} features promote {row['set']} {row['version']}"
            )
    asked.answer(document, "\n".join(lines))


@features.command()
@_SET
@click.argument("version", metavar="VERSION", help="The beginning of a version that was declared.")
@_BY
@pass_asked
def promote(asked: Asked, name: str, version: str, by: str | None) -> None:
    """Put a version of a set in force."""
    with asked.pipeline() as pipeline:
        declared = pipeline.promote_features(name, version, by or getpass.getuser())
    document = {"set": name, "version": declared.version}
    asked.answer(document, f"{name} {declared.version} is in force.")


@features.command()
@_SET
@_BY
@pass_asked
def retire(asked: Asked, name: str, by: str | None) -> None:
    """Take a set out of force; its versions can still be asked for."""
    with asked.pipeline() as pipeline:
        pipeline.retire_features(name, by or getpass.getuser())
    asked.answer({"set": name, "retired": True}, f"{name} is retired.")


@features.command()
@click.option("--labels", required=True, type=_FILE, metavar="L.parquet", help="Keys and times.")
@_NAMES
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="O.parquet",
    help="Where the labels with their features go.",
)
@click.option("--at", metavar="COLUMN", help="The time of a label, where it has several.")
@click.option("--memory", metavar="SIZE", help="What may be used before the disk is, such as 2GiB.")
@pass_asked
def history(
    asked: Asked, labels: Path, names: str, out: Path, at: str | None, memory: str | None
) -> None:
    """Put features beside labels, as known at each label's time."""
    from storekeep.features.history import MEMORY, labels_of
    from storekeep.pipeline.featuring import write_history

    with asked.pipeline() as pipeline:
        joined = pipeline.feature_history(
            labels_of(labels), _split(names), at=at, memory=memory or MEMORY
        )
        many = write_history(joined, out)
    versions = {
        each.name: (each.metadata or {}).get(b"version", b"").decode() for each in joined.schema
    }
    document = {
        "labels": many,
        "out": str(out),
        "versions": {name: version for name, version in versions.items() if version},
        "missing": {name: _counts(found) for name, found in joined.missing.items()},
    }
    lines = [f"Wrote {shown.count(many, 'label')} with {len(joined.missing)} features to {out}."]
    lines += _missing_lines(joined.missing)
    asked.answer(document, "\n".join(lines))


@features.command()
@click.argument("file", metavar="O.parquet", type=_FILE, help="What `features history` wrote.")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="P.parquet",
    help="Where it goes as it is made again.",
)
@pass_asked
def rebuild(asked: Asked, file: Path, out: Path) -> None:
    """Make labels with features again, and compare.

    Exits with 1 unless they come out equal, byte by byte.
    """
    from storekeep.pipeline.featuring import write_history

    with asked.pipeline() as pipeline:
        many = write_history(pipeline.rebuild_history(file), out)
    same = file.read_bytes() == out.read_bytes()
    document = {"labels": many, "out": str(out), "same": same}
    said = "the same to the last byte" if same else f"NOT the same as {file}"
    asked.answer(document, f"Wrote {shown.count(many, 'label')} to {out}: {said}.")
    if not same:
        raise click.exceptions.Exit(1)


def _split(names: str) -> list[str]:
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        raise Misused("--features names none: write --features a,b")
    return found


def _counts(found: Missing) -> dict[str, int]:
    return {"before": found.before, "stale": found.stale, "null": found.null}


def _missing_lines(missing: Mapping[str, Missing]) -> list[str]:
    return [
        f"  {name}: missing for {found.before} before anything was known, {found.stale} that were stale,"
        f" {found.null} whose row has none"
        for name, found in missing.items()
        if found.before or found.stale or found.null
    ]


@features.command()
@_SET
@_VERSION
@pass_asked
def materialise(asked: Asked, name: str, version: str | None) -> None:
    """Put the newest values of a set where `get` reads them."""
    with asked.pipeline() as pipeline:
        many = pipeline.materialise(name, version)
    asked.answer({"set": name, "subjects": many}, f"{shown.count(many, 'subject')} of {name}.")


@features.command()
@click.option(
    "--keys",
    required=True,
    type=_FILE,
    metavar="K.json",
    help="A list of objects, each with the keys of a subject.",
)
@_NAMES
@pass_asked
def get(asked: Asked, keys: Path, names: str) -> None:
    """Read features of some subjects as they are by now."""
    try:
        subjects = json.loads(keys.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Misused(f"{keys} is no JSON: {error}") from None
    if not isinstance(subjects, list) or not all(isinstance(each, dict) for each in subjects):
        raise Misused(f"{keys}: write a list of objects, each with the keys of a subject")
    with asked.pipeline() as pipeline, pipeline.served() as served:
        found = served.get(subjects, _split(names))
    rows = found.rows.to_pylist()
    columns = tuple(Column(name) for name in found.rows.column_names)
    cells = [tuple("" if cell is None else str(cell) for cell in row.values()) for row in rows]
    lines = _missing_lines(found.missing)
    asked.answer(rows, lambda: "\n".join([shown.table(columns, cells), *lines]))
