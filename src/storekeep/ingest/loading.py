"""Files of a feed into the retailer's tables, in bounded batches, with what was turned away and why.

Hides how codes become words and counts. See `storekeep.ingest.staging` for how a file is read and
`storekeep.ingest.statement` for how a row is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep.errors import Misused
from storekeep.ingest import staging
from storekeep.ingest.archives import Bounds
from storekeep.ingest.feeds import Mapping
from storekeep.ingest.sealing import WITHHELD, Keys
from storekeep.ingest.statement import CLOCK_GAP_BIT
from storekeep.retail import REJECTED

BATCH_ROWS = 250_000


@dataclass(frozen=True)
class Loaded:
    """A batch of rows of one file, in the file's order, and what became of the others.

    `rows` has the schema of the mapping's table, `rejected` that of `retail.REJECTED`. `repaired` counts,
    per rule, rows taken in after a repair; `ignored` those left out for a reason that needs no quarantine;
    `matched` those that each rule spoke of, also where another had turned them away. Of `read` rows each
    is in `rows`, in `rejected` or counted in `ignored`. `unmapped` names columns that the mapping does not
    know. `sealed` has, by field, what is personal of each of `rows`. `restated`, for documents that are told
    again: of each row the `line` of its document that it is, and `as_of` when it is told. Of the whole file,
    `unreadable` counts by column the rows of which this cell cannot be read, and `file_rows` those that are
    rows.
    """

    rows: pa.Table
    rejected: pa.Table
    repaired: Map[str, int]
    ignored: Map[str, int]
    matched: Map[str, int]
    read: int
    file: str
    batch: int
    last: bool
    unmapped: tuple[str, ...] = ()
    sealed: Map[str, pa.ChunkedArray] = field(default_factory=dict)
    restated: pa.Table | None = None
    file_rows: int = 0
    unreadable: Map[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """Rejected rows per rule."""
        return _counts(self.rejected["rule"])


@dataclass(frozen=True)
class _Load:
    """A run, and what its rows are marked with."""

    run: staging.Run
    known_at: datetime
    location_id: str | None

    @property
    def mapping(self) -> Mapping:
        return self.run.mapping


def load(  # noqa: PLR0913  # each is said by name, and most loads say few
    mapping: Mapping,
    files: Sequence[Path],
    *,
    known_at: datetime,
    references: Map[str, pa.Table] | None = None,
    location_id: str | None = None,
    pseudonym_key: bytes | None = None,
    keys: Keys | None = None,
    batch_rows: int = BATCH_ROWS,
    bounds: Bounds | None = None,
) -> Iterator[Loaded]:
    """Read what tills and others sent: rows as the retailer's tables have them, and rows turned away.

    Each file gives one batch or more, of `batch_rows` rows at most, in constant memory. `known_at` is when
    this home came to know the rows; `location_id` is where they happened, for tables that ask for it, and in
    the store of each row when it is left out; `references` holds the tables that the mapping looks into, by
    the names it gives them.
    The same lines give the same keys, whatever file they come in, in whatever order, however often.
    Raises `Refused` for a file or mapping that cannot be read as it stands, before any row of that file,
    `Drifted` where it is the file's columns; a bad row never raises.
    """
    run = _begin(
        *(mapping, known_at, references, location_id),
        pseudonym_key=pseudonym_key,
        keys=keys,
        bounds=bounds or Bounds(),
    )
    one = _Load(run, known_at, location_id)
    return _batches(one, staging.pieces(run, files, batch_rows))


def load_again(
    mapping: Mapping,
    parts: Iterable[pa.Table],
    *,
    known_at: datetime,
    references: Map[str, pa.Table] | None = None,
    location_id: str | None = None,
    pseudonym_key: bytes | None = None,
    keys: Keys | None = None,
) -> Iterator[Loaded]:
    """Read rejected rows once more, as `load` reads files: a batch for each part, in order.

    A part has rows of `retail.REJECTED`, all of one file, no two of the same line.
    """
    run = _begin(
        *(mapping, known_at, references, location_id),
        pseudonym_key=pseudonym_key,
        keys=keys,
        bounds=Bounds(),
        kept=True,
    )
    return _batches(_Load(run, known_at, location_id), staging.again(run, parts))


def _begin(
    mapping: Mapping,
    known_at: datetime,
    references: Map[str, pa.Table] | None,
    location_id: str | None,
    **more: Any,
) -> staging.Run:
    needs_place = "location_id" in mapping.target.names and "location_id" not in mapping.columns
    if needs_place and not location_id and "store_id" not in mapping.target.names:
        raise Misused(f"{mapping.source} needs a location_id: where did it happen?")
    if known_at.utcoffset() is None:
        raise Misused("known_at needs a time zone")
    return staging.begin(mapping, references or {}, **more)


def _batches(one: _Load, pieces: Iterator[staging.Piece]) -> Iterator[Loaded]:
    try:
        for piece in pieces:
            yield _loaded(one, piece)
    finally:
        one.run.connection.close()


def _loaded(one: _Load, piece: staging.Piece) -> Loaded:
    judged, fates = piece.judged, piece.statement.fates
    accepted = judged.filter(pc.is_null(judged["__fate"]))
    turned = judged.filter(pc.is_valid(judged["__fate"]))
    kept = pc.take(pa.array([fate.kept for fate in fates]), turned["__fate"])
    left_out = pc.take(pa.array([fate.rule for fate in fates]), turned["__fate"]).filter(
        pc.invert(kept)
    )
    return Loaded(
        rows=_rows(one, piece.file, accepted),
        rejected=_rejected(one, piece, turned.filter(kept)),
        repaired=_spoken(one.mapping, accepted, repairs=True),
        ignored=_counts(left_out),
        matched=_spoken(one.mapping, judged, repairs=False),
        read=judged.num_rows + piece.malformed.num_rows,
        file=piece.file,
        batch=piece.number,
        last=piece.last,
        unmapped=piece.unmapped,
        sealed={name: accepted[f"__s_{name}"] for name in one.mapping.sealed},
        restated=_restated(one.mapping, accepted),
        file_rows=sum(piece.fates.values()),
        unreadable={
            fate.column: piece.fates[code]
            for code, fate in enumerate(fates)
            if fate.rule == "unreadable" and fate.column is not None and code in piece.fates
        },
    )


def _restated(mapping: Mapping, accepted: pa.Table) -> pa.Table | None:
    if mapping.restated is None:
        return None
    as_of = accepted["__restated_as_of"].cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "line": pc.fill_null(accepted["__restated_line"], ""),
            "as_of": pc.coalesce(as_of, accepted["occurred_at"].cast(as_of.type)),
        }
    )


def _rows(one: _Load, file: str, accepted: pa.Table) -> pa.Table:
    constants = {
        "location_id": one.location_id,
        "currency": one.mapping.currency,
        "known_at": one.known_at,
        "source": one.mapping.source,
        "source_file": file,
    }
    columns = []
    for target in one.mapping.target.arrow:
        if target.name in accepted.column_names:
            column = accepted[target.name].cast(target.type)
        elif target.name in {"line_key", "source_line"}:
            column = accepted["__key" if target.name == "line_key" else "__line"]
        elif target.name == "location_id" and not one.location_id:
            column = accepted["store_id"]
        else:
            value = pa.scalar(constants.get(target.name), target.type)
            column = pa.repeat(value, accepted.num_rows)
        columns.append(column)
    return pa.table(columns, schema=one.mapping.target.arrow)


def _rejected(one: _Load, piece: staging.Piece, rejected: pa.Table) -> pa.Table:
    """Rows turned away by rules and checks, and those that were no rows, in the file's order."""
    fates, malformed = piece.statement.fates, piece.malformed
    place = rejected["__fate"]
    told = [
        pc.take(pa.array(values, pa.string()), place)
        for values in zip(*((fate.column, fate.rule, fate.reason) for fate in fates), strict=True)
    ]
    found = _quarantined(one, piece.file, [rejected["__line"], *told, rejected["__raw"]])
    if not malformed.num_rows:
        return found
    rule = pa.repeat("malformed", malformed.num_rows)
    raw = pa.repeat(WITHHELD, malformed.num_rows) if one.mapping.hides else malformed["raw"]
    columns = [malformed["line"], malformed["column"], rule, malformed["reason"], raw]
    return pa.concat_tables([found, _quarantined(one, piece.file, columns)]).sort_by("source_line")


def _quarantined(one: _Load, file: str, columns: Sequence[pa.ChunkedArray]) -> pa.Table:
    """`retail.REJECTED` from line, column, rule, reason and raw."""
    rows = len(columns[0])
    known_at = pa.repeat(pa.scalar(one.known_at, pa.timestamp("us", "UTC")), rows)
    marks = [pa.repeat(one.mapping.source, rows), pa.repeat(file, rows)]
    return pa.table([*marks, *columns, known_at], schema=REJECTED.arrow)


def _spoken(mapping: Mapping, judged: pa.Table, *, repairs: bool) -> dict[str, int]:
    """Rows that each rule spoke of; with `repairs` only the rules that mend."""
    bits = {
        rule.id: bit for bit, rule in enumerate(mapping.rules) if rule.do == "repair" or not repairs
    }
    bits |= {"clock_gap": CLOCK_GAP_BIT} if mapping.time_zone != "UTC" else {}
    masks = [(int(mask), rows) for mask, rows in _counts(judged["__spoke"]).items()]
    return {
        rule: sum(rows for mask, rows in masks if mask >> bit & 1) for rule, bit in bits.items()
    }


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    counts = pc.value_counts(column)
    return {str(one["values"]): one["counts"] for one in counts.to_pylist()}
