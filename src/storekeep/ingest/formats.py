"""The formats that files come in, each with its reader.

A reader turns a file into blocks of rows with named cells (`blocks`); what they mean is the mapping's to say.
A format is added by a module of its own and one entry in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from storekeep.ingest import delimited, json_lines, parquet, schema_org
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block
from storekeep.ingest.delimited import Dialect


@dataclass(frozen=True)
class Format:
    """How one format is read.

    `names` tells the columns that a file has, `blocks` gives its rows with the cells of those asked for. Both
    raise `Refused` for a file that is none of the format, `blocks` also `Misused` when a column is absent.
    They are told how delimited text is written, which concerns `csv` alone. Where the cells of a format are
    `text`, what a mapping declares as null marks holds for them.
    """

    names: Callable[[Opened, Dialect], list[str]]
    blocks: Callable[[Opened, tuple[str, ...], Dialect], Iterator[Block]]
    text: bool = True


FORMATS: Mapping[str, Format] = {
    "csv": Format(lambda file, dialect: delimited.header(file, dialect).names, delimited.blocks),
    "parquet": Format(
        lambda file, _: parquet.names(file),
        lambda file, columns, _: parquet.blocks(file, columns),
        text=False,
    ),
    "jsonl": Format(
        lambda file, _: json_lines.names(file),
        lambda file, columns, _: json_lines.blocks(file, columns),
    ),
    "schema_org": Format(
        lambda file, _: schema_org.names(file),
        lambda file, columns, _: schema_org.blocks(file, columns),
    ),
}
