"""Parquet files, read in blocks; a row's line is its number in the file, counted from 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from storekeep.errors import Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import MALFORMED, Block, placed

BLOCK_ROWS = 250_000


def names(file: Opened) -> list[str]:
    """The names of a file's columns; raises `Refused` when it is no Parquet file."""
    with _opened(file) as parquet:
        return list(parquet.schema_arrow.names)


def blocks(file: Opened, columns: tuple[str, ...]) -> Iterator[Block]:
    """Rows of a Parquet file, in blocks of 250,000, with their numbers.

    Raises `Refused` when it is no Parquet file or is damaged, `Misused` when a column is absent.
    """
    with _opened(file) as parquet:
        placed(columns, list(parquet.schema_arrow.names), file.name)
        before = 0
        try:
            for batch in parquet.iter_batches(BLOCK_ROWS, columns=list(columns)):
                cells = _plain(pa.Table.from_batches([batch]).select(list(columns)))
                lines = pa.array(np.arange(before + 1, before + 1 + batch.num_rows))
                before += batch.num_rows
                yield Block(cells, lines, MALFORMED.empty_table())
            if not before:
                cells = _plain(parquet.schema_arrow.empty_table().select(list(columns)))
                yield Block(cells, pa.array([], pa.int64()), MALFORMED.empty_table())
        except (pa.ArrowException, OSError) as error:
            raise Refused(f"{file.name}, after row {before}: it is damaged ({error})") from None


def _plain(cells: pa.Table) -> pa.Table:
    """The same cells in types that writers differ over less: no dictionaries, times in microseconds."""
    fields = []
    for field in cells.schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", kind.tz)
        fields.append(field.with_type(kind))
    return cells.cast(pa.schema(fields), safe=False)


def _opened(file: Opened) -> pyarrow.parquet.ParquetFile:
    try:
        return pyarrow.parquet.ParquetFile(file.path)
    except (pa.ArrowException, OSError) as error:
        raise Refused(f"{file.name} is no Parquet file, or is cut short ({error})") from None
