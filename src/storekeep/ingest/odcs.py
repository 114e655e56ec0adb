"""Data contracts as documents of the Open Data Contract Standard, made from definitions of tables and feeds.

Hides the words of the standard (https://bitol-io.github.io/open-data-contract-standard/, version 3.1). What
a contract says of columns is never typed a second time: it comes from `storekeep.retail` and from mappings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from open_data_contract_standard.model import OpenDataContractStandard

from storekeep import retail
from storekeep.ingest.feeds import Mapping as Feed

API_VERSION = "v3.1.0"
FILE = "file"
"""The schema of a feed's contract that describes what comes, before it is one of the retailer's tables."""
ZONE = "timeZone"
SOURCE = "source"
TABLE = "table"
_VERSION = "1.0.0"

LOGICAL: Mapping[str, str] = {
    "text": "string",
    "int": "integer",
    "float": "number",
    "decimal": "number",
    "bool": "boolean",
    "date": "date",
    "time": "timestamp",
    "bytes": "string",
    "gtin": "string",
    "gln": "string",
}


def of_table(table: retail.Table) -> dict[str, Any]:
    """The contract of one of the retailer's tables."""
    return {
        **_head(f"table-{table.name}", table.name),
        "description": {
            "purpose": table.meaning,
            "limitations": "How much comes and how soon is agreed with each feed, in its contract.",
        },
        "team": {"name": "storekeep", "description": "Rows are written by Storekeep alone."},
        "schema": [_table(table)],
    }


def of_feed(feed: Feed) -> dict[str, Any]:
    """What a mapping says by itself of its feed's contract: the columns that come, and those they become."""
    return {
        **_head(f"feed-{feed.source}.{feed.table}", f"{feed.source}.{feed.table}"),
        "description": {"purpose": f"What {feed.source} brings of {feed.table}."},
        "schema": [_file(feed), _table(feed.target)],
        "customProperties": [
            {"property": SOURCE, "value": feed.source},
            {"property": TABLE, "value": feed.table},
            {"property": ZONE, "value": feed.day_time_zone or feed.time_zone},
        ],
    }


def filled(said: Mapping[str, Any], feed: Feed) -> dict[str, Any]:
    """A contract as somebody wrote it, with all that its mapping says: the whole document."""
    whole = of_feed(feed)
    written = {each["name"]: each for each in said.get("schema", [])}
    schema = [_merged(each, written.get(each["name"], {})) for each in whole["schema"]]
    ours = {each["property"] for each in whole["customProperties"]}
    more = [one for one in said.get("customProperties", []) if one.get("property") not in ours]
    return {
        **whole,
        **said,
        "schema": schema,
        "customProperties": [*whole["customProperties"], *more],
    }


def as_yaml(document: Mapping[str, Any]) -> str:
    """The document as it is kept in a file."""
    return OpenDataContractStandard(**document).to_yaml()


def checked(document: Mapping[str, Any]) -> None:
    """Raises pydantic's `ValidationError` where a document is none of the standard."""
    OpenDataContractStandard.model_validate(document)


def unknown(document: Mapping[str, Any]) -> tuple[str | int, ...] | None:
    """Where a document, otherwise right, has a key that the standard does not know; None if nowhere.

    The package reads over such keys. A misspelled limit would be no limit.
    """
    known = OpenDataContractStandard.model_validate(document).model_dump(by_alias=True)
    return next(_lost(document, known, ()), None)


def _lost(said: Any, known: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(said, dict) and isinstance(known, dict):
        for key, value in said.items():
            if key not in known:
                yield (*path, key)
            else:
                yield from _lost(value, known[key], (*path, key))
    elif isinstance(said, list) and isinstance(known, list):
        for place, (one, other) in enumerate(zip(said, known, strict=True)):
            yield from _lost(one, other, (*path, place))


def _head(name: str, title: str) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "kind": "DataContract",
        "apiVersion": API_VERSION,
        "id": f"urn:storekeep:{name}",
        "name": title,
        "status": "active",
    }


def _table(table: retail.Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "logicalType": "object",
        "physicalType": "table",
        "description": table.meaning,
        "properties": [_column(table, column) for column in table.columns],
        "quality": [
            {
                "id": "key",
                "description": f"No two rows of the same {', '.join(table.key)}.",
                "dimension": "uniqueness",
                "type": "library",
                "metric": "duplicateValues",
                "arguments": {"properties": list(table.key)},
                "unit": "rows",
                "mustBe": 0,
                "severity": "error",
            }
        ],
    }


def _column(table: retail.Table, column: retail.Column) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": column.name,
        "logicalType": LOGICAL[column.kind],
        "physicalType": table.duckdb_types()[column.name],
        "description": column.meaning,
        "required": not column.nullable,
        "classification": column.privacy,
    }
    if column.name in table.key:
        found |= {"primaryKey": True, "primaryKeyPosition": table.key.index(column.name) + 1}
    bounds = {"minimum": column.at_least, "maximum": column.at_most}
    if options := {name: bound for name, bound in bounds.items() if bound is not None}:
        found["logicalTypeOptions"] = options
    if column.unit is not None:
        found["customProperties"] = [{"property": "unit", "value": column.unit}]
    if column.references not in {None, f"{table.name}.{column.name}"}:
        found["relationships"] = [{"type": "foreignKey", "to": column.references}]
    return found


def _file(feed: Feed) -> dict[str, Any]:
    hidden = feed.personal_columns
    return {
        "name": FILE,
        "logicalType": "object",
        "physicalType": feed.format,
        "description": f"A file of {feed.source}, as it comes.",
        "properties": [
            {
                "name": name,
                "logicalType": LOGICAL[kind],
                "physicalType": kind,
                "classification": "personal" if name in hidden else "internal",
            }
            for name, kind in feed.source_columns.items()
        ],
    }


def _merged(ours: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What is generated of a table, and what somebody agreed on beside it."""
    written = {each["name"]: each for each in said.get("properties", [])}
    known = {each["name"] for each in ours["properties"]}
    properties = [{**each, **written.get(each["name"], {})} for each in ours["properties"]]
    properties += [each for name, each in written.items() if name not in known]
    rules = ours.get("quality", [])
    quality = [*rules, *(rule for rule in said.get("quality", []) if rule not in rules)]
    more = {"quality": quality} if quality else {}
    return {**ours, **said, "properties": properties, **more}
