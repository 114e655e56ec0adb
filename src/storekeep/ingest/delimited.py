"""Delimited text (CSV and its kin), read in blocks by Arrow's parser.

Hides encodings, ragged and damaged rows, and how a row finds its line again: the line of a row is the
line of the file it starts on, counted from 1 with the header and with every line break inside quotes, so
that an editor finds it. Nothing is guessed: the mapping says what the file is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from storekeep.errors import Refused
from storekeep.ingest.archives import CHUNK, Opened
from storekeep.ingest.blocks import MALFORMED, Block, placed

BLOCK_BYTES = 8 << 20
HEADER_CHARACTERS = 1 << 20
_CONTROLS = bytes(set(range(32)) - {9, 10, 12, 13, 26})
_DAMAGED = "holds bytes that are not {encoding} text; declare csv.encoding, or send it again"


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written; `names` stands for a file without a header."""

    delimiter: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    skip_lines: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scan:
    """What one pass over the bytes tells: whether to look for damage, and for a quote never closed."""

    damaged: bool
    odd_quotes: bool


class _Recoded(io.RawIOBase):
    """The bytes of a text in another encoding as UTF-8; what cannot be decoded becomes U+FFFD."""

    def __init__(self, raw: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(raw, encoding, errors="replace", newline="")
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's buffer has no slices
        if not self._held:
            self._held = self._text.read(CHUNK).encode()
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size

    def close(self) -> None:
        self._text.close()
        super().close()


def blocks(
    file: Opened, columns: tuple[str, ...], dialect: Dialect, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """Rows of a delimited file, in blocks of about `block_bytes`, with their lines.

    Raises `Refused` when it is no text or a row is longer than a block, `Misused` when a column is absent.
    """
    scan = _scan(file, dialect)
    top = header(file, dialect)
    places = placed(columns, top.names, file.name)
    if top.is_all:
        cells = pa.table([pa.array([], pa.string())] * len(columns), names=list(columns))
        yield Block(cells, pa.array([], pa.int64()), MALFORMED.empty_table())
        return
    counter = _Lines(dialect.skip_lines + min(top.lines, 1) + 1, max(top.lines - 1, 0))
    with closing(_source(file.path, dialect, recode=scan.damaged)) as source:
        batches = _batches(source, file, dialect, len(top.names), counter, block_bytes)
        for batch, last in _with_last(batches, len(top.names)):
            yield _block(batch, columns, places, dialect, counter, scan, last=last)


@dataclass(frozen=True)
class Header:
    """The names of a file's columns, the lines they take, and whether nothing follows."""

    names: list[str]
    lines: int
    is_all: bool


def header(file: Opened, dialect: Dialect) -> Header:
    """Read the names of a file's columns; raises `Refused` when its first line cannot be that."""
    with file.path.open(encoding=_codec(dialect), errors="replace", newline="") as text:
        for _ in range(dialect.skip_lines):
            text.readline(HEADER_CHARACTERS)
        if dialect.names:
            return Header(list(dialect.names), 0, not text.read(1))
        lines = iter(lambda: text.readline(HEADER_CHARACTERS), "")
        reader = csv.reader(
            lines,
            delimiter=dialect.delimiter,
            quotechar=dialect.quote,
            quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        )
        try:
            names = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise Refused(f"{file.name}: its first line is no header ({error})") from None
        return Header(names, reader.line_num, not text.read(1))


def _scan(file: Opened, dialect: Dialect) -> _Scan:
    quote = dialect.quote.encode() if dialect.quote else None
    recoded = _codec(dialect) != "utf-8-sig"
    quotes, nul, damaged = 0, False, recoded
    tail = b""
    with file.path.open("rb") as raw:
        first = raw.read(1 << 16)
        if not recoded and len(first.translate(None, _CONTROLS)) < len(first) * 0.99:
            raise Refused(
                f"{file.name} is no text: {_kind(first)}; check the format in its mapping"
            )
        chunk = first
        while chunk:
            quotes += chunk.count(quote) if quote else 0
            nul = nul or b"\0" in chunk
            if not damaged:
                tail, damaged = _undecodable(tail + chunk)
            chunk = raw.read(CHUNK)
    return _Scan(damaged or nul or bool(tail), quotes % 2 == 1)


def _undecodable(data: bytes) -> tuple[bytes, bool]:
    """The unfinished character at the end, and whether anything before it is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        unfinished = error.reason == "unexpected end of data"
        return (data[error.start :], False) if unfinished else (b"", True)
    return b"", False


def _kind(first: bytes) -> str:
    if first.startswith(b"PAR1"):
        return "it is a Parquet file"
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it looks like UTF-16 (declare csv.encoding: utf-16)"
    return "it holds binary bytes"


def _codec(dialect: Dialect) -> str:
    plain = dialect.encoding.lower().replace("_", "-") in {"utf-8", "utf8", "utf-8-sig"}
    return "utf-8-sig" if plain else dialect.encoding


def _source(path: Path, dialect: Dialect, *, recode: bool) -> pa.NativeFile:
    if not recode:
        return pa.OSFile(str(path))
    return pa.PythonFile(io.BufferedReader(_Recoded(path.open("rb"), _codec(dialect)), CHUNK), "r")


class _Lines:
    """Keeps count of records and lines, and of the rows that the parser could not make a row of."""

    def __init__(self, first: int, breaks: int) -> None:
        self.record = first
        self.breaks = breaks
        self.bad: list[tuple[int, str, str]] = []

    def skip(self, row: pa.csv.InvalidRow) -> str:
        """Remember a row with a wrong number of fields; the parser goes on without it."""
        reason = f"has {row.actual_columns} fields where the header has {row.expected_columns}"
        self.bad.append((row.number, reason, row.text))
        return "skip"

    def place(self, breaks: np.ndarray | None, rows: int) -> tuple[np.ndarray, pa.Table]:
        """The lines of the next `rows` good rows, and the bad rows that stand before or right after them.

        `breaks` counts the line breaks inside each good row; None when there are none.
        """
        records = np.arange(self.record, self.record + rows + len(self.bad))
        if self.bad:
            records = np.setdiff1d(records, [number for number, _, _ in self.bad])
        records = records[:rows]
        end = int(records[-1]) + 1 if rows else self.record
        taken = []
        while self.bad and self.bad[0][0] <= end:
            taken.append(self.bad.pop(0))
            end = max(end, taken[-1][0] + 1)
        inside = np.zeros(end - self.record, np.int64)
        if breaks is not None:
            inside[records - self.record] = breaks
        for number, _, text in taken:
            inside[number - self.record] = text.count("\n")
        starts = np.arange(self.record, end) + self.breaks + np.cumsum(inside) - inside
        bad = [
            {"line": int(starts[number - self.record]), "reason": reason, "raw": text}
            for number, reason, text in taken
        ]
        lines = starts[records - self.record]
        self.record = end
        self.breaks += int(inside.sum())
        return lines, pa.Table.from_pylist(bad, MALFORMED)


def _batches(
    source: pa.NativeFile,
    file: Opened,
    dialect: Dialect,
    width: int,
    counter: _Lines,
    block_bytes: int,
) -> Iterator[pa.RecordBatch]:
    names = [f"c{place}" for place in range(width)]
    try:
        yield from pa.csv.open_csv(
            source,
            # One thread: only then does the parser number its rows.
            read_options=pa.csv.ReadOptions(
                use_threads=False,
                block_size=block_bytes,
                skip_rows=dialect.skip_lines,
                skip_rows_after_names=0 if dialect.names else 1,
                column_names=names,
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=counter.skip,
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if "straddling" in str(error) or "block" in str(error):
            raise Refused(
                f"{file.name}, after line {counter.record + counter.breaks - 1}: a row is longer than "
                f"{block_bytes >> 20} MiB; a quote may be open, or the delimiter is not "
                f"{dialect.delimiter!r}"
            ) from None
        raise Refused(f"{file.name} cannot be read: {error}") from None


def _with_last(
    batches: Iterator[pa.RecordBatch], width: int
) -> Iterator[tuple[pa.RecordBatch, bool]]:
    # Without a single good row the parser hands over nothing, but the bad ones are still to be told.
    nothing = pa.record_batch(
        [pa.array([], pa.string())] * width, names=[f"c{place}" for place in range(width)]
    )
    held = next(batches, nothing)
    while held is not None:
        following = next(batches, None)
        yield held, following is None
        held = following


def _block(
    batch: pa.RecordBatch,
    columns: tuple[str, ...],
    places: Sequence[int],
    dialect: Dialect,
    counter: _Lines,
    scan: _Scan,
    *,
    last: bool,
) -> Block:
    lines, malformed = counter.place(_breaks(batch), batch.num_rows)
    faults: list[tuple[np.ndarray, str | None, str]] = []
    if scan.damaged:
        reason = _DAMAGED.format(encoding=dialect.encoding)
        faults = [
            (
                pc.match_substring_regex(batch.column(place), "[\ufffd\\x00]").to_numpy(False),
                column,
                reason,
            )
            for column, place in zip(columns, places, strict=True)
        ]
    if last and scan.odd_quotes and batch.num_rows and "\n" in (batch.columns[-1][-1].as_py()):
        unclosed = np.arange(batch.num_rows) == batch.num_rows - 1
        faults.append(
            (unclosed, None, "opens a quote that is never closed; the rest of the file is in it")
        )
    good = np.ones(batch.num_rows, bool)
    tables = [malformed]
    for mask, column, reason in faults:
        turned = mask & good
        good &= ~mask
        tables.append(_turned_away(batch, lines, turned, column, reason, dialect))
    cells = pa.table([batch.column(place) for place in places], names=list(columns))
    if not good.all():
        cells, lines = cells.filter(pa.array(good)), lines[good]
    return Block(cells, pa.array(lines), pa.concat_tables(tables))


def _turned_away(
    batch: pa.RecordBatch,
    lines: np.ndarray,
    turned: np.ndarray,
    column: str | None,
    reason: str,
    dialect: Dialect,
) -> pa.Table:
    rows = batch.filter(pa.array(turned))
    raw = pc.binary_join_element_wise(*rows.columns, dialect.delimiter) if rows.num_rows else []
    raw = pc.replace_substring(raw, "\0", "\ufffd") if rows.num_rows else raw
    return pa.table(
        [
            pa.array(lines[turned]),
            pa.repeat(pa.scalar(column, pa.string()), rows.num_rows),
            pa.repeat(reason, rows.num_rows),
            pa.array(raw, pa.string()),
        ],
        schema=MALFORMED,
    )


def _breaks(batch: pa.RecordBatch) -> np.ndarray | None:
    """Line breaks inside each row, or None when there are none, as in most files."""
    total: np.ndarray | None = None
    for column in batch.columns:
        content = column.buffers()[2]
        if content is not None and (np.frombuffer(content, np.uint8) == 10).any():
            found = pc.count_substring(column, "\n").to_numpy(False).astype(np.int64)
            total = found if total is None else total + found
    return total
