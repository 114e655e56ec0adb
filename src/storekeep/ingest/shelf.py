"""Judged rows of one file, put by on the disk until all of the file has been read.

Hides the file they stand in (Arrow's, compressed with LZ4), and that they come back in other portions than
they went in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from storekeep.errors import Permanent


class Shelf:
    """Rows with numbers, `__row`, that grow: added in bounded portions, and then read as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._sink: pa.ipc.RecordBatchFileWriter | None = None

    def add(self, rows: pa.Table) -> None:
        """Put rows behind the others; raises `Permanent` when no room is left."""
        try:
            if self._sink is None:
                with NamedTemporaryFile(dir=self._folder, suffix=".arrow", delete=False) as file:
                    self._path = Path(file.name)
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                self._sink = pa.ipc.new_file(str(self._path), rows.schema, options=options)
            self._sink.write_table(rows.combine_chunks())
        except OSError as error:
            raise Permanent(no_room(self._folder, error)) from None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows as they were added, of these columns."""
        if self._path is None or self._sink is None:
            return
        try:
            self._sink.close()
        except OSError as error:
            raise Permanent(no_room(self._folder, error)) from None
        with pa.OSFile(str(self._path)) as source:
            names = pa.ipc.open_file(source).schema.names
            wanted = [names.index(name) for name in columns or names]
            options = pa.ipc.IpcReadOptions(included_fields=sorted(wanted))
            reader = pa.ipc.open_file(source, options=options)
            for place in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(place)])

    def pieces(self, many: int, count: int) -> Iterator[pa.Table]:
        """The rows of the first `many` numbers, of the next, and so on: so many tables, some maybe empty."""
        end, given, held = many, 0, list[pa.Table]()
        for table in self.tables():
            rest = table
            while (cut := int(np.searchsorted(rest["__row"].to_numpy(), end))) < rest.num_rows:
                yield pa.concat_tables([*held, rest.slice(0, cut)])
                held, rest, end, given = [], rest.slice(cut), end + many, given + 1
            held.append(rest)
        for _ in range(given, count):
            yield pa.concat_tables(held)
            held = [each.slice(0, 0) for each in held]

    def close(self) -> None:
        """Throw the rows away."""
        if self._sink is not None:
            with suppress(OSError):
                self._sink.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def no_room(folder: Path, error: Exception) -> str:
    """What to say when the disk is full."""
    return f"no room left to work in {folder} ({error}); free some, or set TMPDIR"
