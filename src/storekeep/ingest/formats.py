"""The formats that files come in, each with its reader.

A reader turns a file into blocks of rows with named cells (`blocks`); what they mean is the mapping's to say.
A format is added by a module of its own and one entry in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from storekeep.ingest import (
    delimited,
    epcis,
    interchanges,
    json_lines,
    parquet,
    poslog,
    schema_org,
    web_json,
)
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block
from storekeep.ingest.delimited import Dialect


@dataclass(frozen=True)
class Format:
    """How one format is read.

    `names` tells the columns that a file has, `blocks` gives its rows with the cells of those asked for. Both
    raise `Refused` for a file that is none of the format, `blocks` also `Misused` when a column is absent.
    They are told how delimited text is written, which concerns `csv` alone. Where the cells of a format are
    `text`, what a mapping declares as null marks holds for them. Where the columns are `fixed`, those that a
    mapping leaves out are no news.
    """

    names: Callable[[Opened, Dialect], list[str]]
    blocks: Callable[[Opened, tuple[str, ...], Dialect], Iterator[Block]]
    text: bool = True
    fixed: bool = False


def _fixed(blocks: Callable[[Opened, tuple[str, ...]], Iterator[Block]]) -> Format:
    """A format of which every file has the same columns; whoever writes a mapping finds them in the docs."""
    return Format(
        lambda _file, _dialect: [], lambda file, columns, _: blocks(file, columns), fixed=True
    )


def _of_web_shop(name: str) -> Format:
    return Format(
        lambda file, _: web_json.names(file, name),
        lambda file, columns, _: web_json.blocks(file, columns, name),
        fixed=True,
    )


FORMATS: Mapping[str, Format] = {
    "csv": Format(lambda file, dialect: delimited.header(file, dialect).names, delimited.blocks),
    "parquet": Format(
        lambda file, _: parquet.names(file),
        lambda file, columns, _: parquet.blocks(file, columns),
        text=False,
    ),
    "x12": _fixed(lambda file, columns: interchanges.blocks(file, columns, "x12")),
    "edifact": _fixed(lambda file, columns: interchanges.blocks(file, columns, "edifact")),
    "poslog": _fixed(poslog.blocks),
    "epcis": _fixed(epcis.blocks),
    **{name: _of_web_shop(name) for name in web_json.KINDS},
    "jsonl": Format(
        lambda file, _: json_lines.names(file),
        lambda file, columns, _: json_lines.blocks(file, columns),
    ),
    "schema_org": Format(
        lambda file, _: schema_org.names(file),
        lambda file, columns, _: schema_org.blocks(file, columns),
        fixed=True,
    ),
}
