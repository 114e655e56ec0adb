"""What a mapping file may say: how a feed's files are written and how their rows become the retailer's.

Whatever is wrong with a mapping is said with file, line and column. The SQL in it is checked where it is put
together, in `storekeep.ingest.statement`.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator
from collections.abc import Mapping as Map
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from storekeep import retail
from storekeep.errors import Misused
from storekeep.ingest import places
from storekeep.ingest.delimited import Dialect
from storekeep.ingest.formats import FORMATS
from storekeep.ingest.places import VALUE, Keys
from storekeep.sql import Place

SourceKind = Literal["text", "int", "decimal", "float", "bool", "date", "time", "gtin", "gln"]

OURS = frozenset({"line_key", "source", "known_at", "source_file", "source_line"})
PROVIDED = OURS | {"location_id", "currency", "day"}
FEEDS: Map[str, tuple[str, ...]] = {
    "pos": ("sale_line",),
    "orders": ("sale_line",),
    "stock": ("stock_count", "stock_report"),
    "suppliers": ("supplier_step", "delivery"),
    "products": ("product",),
    "fulfilments": ("fulfilment",),
    "customers": ("customer",),
    "tickets": ("ticket", "ticket_message"),
    "items": ("item_identity",),
}
"""The feeds that a live home takes in, and which of its tables each may fill."""
BUILT_IN = {
    "malformed": "the row is no row of this file",
    "blank": "the row is empty",
    "unreadable": "a cell is not what its column holds",
    "missing": "a required column is empty",
    "out_of_range": "a number is outside the range of its column",
    "repeated": "the key of the row stands earlier in the same file",
    "clock_gap": "the local time did not exist: the clock was put forward; read as an hour later",
}
SHIPPED = resources.files("storekeep.ingest") / "mappings"
BESIDE = ".contract"
"""What the name of a contract's file has more than that of its mapping."""
_NAME = r"^[a-z][a-z0-9_]{0,59}$"


def _as_text(value: Any) -> Any:
    """YAML's `0` and `true` are expressions too, and need no quotes."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else value


Sql = Annotated[str, BeforeValidator(_as_text)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Csv(_Part):
    """How a delimited file is written."""

    delimiter: str = Field(",", min_length=1, max_length=1)
    quote: str | None = Field('"', min_length=1, max_length=1)
    encoding: str = "utf-8"
    decimal: Literal[".", ","] = "."
    thousands: Literal[",", ".", " ", "'"] | None = None
    nulls: tuple[str, ...] = ("",)
    names: tuple[str, ...] = ()
    skip_lines: int = Field(0, ge=0, le=1000)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(f"Python knows no encoding {self.encoding!r}") from None
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands must differ")
        return self

    @property
    def dialect(self) -> Dialect:
        """What the reader of delimited files needs to know."""
        return Dialect(self.delimiter, self.quote, self.encoding, self.skip_lines, self.names)


class Reference(_Part):
    """A table that rules may look into: `table` of the retailer's own, found by its column `on`."""

    table: str = Field(pattern=_NAME)
    on: str = Field(pattern=_NAME)

    @model_validator(mode="after")
    def _exists(self) -> Self:
        if self.table not in retail.TABLES:
            raise ValueError(f"no table {self.table!r}; there are {', '.join(retail.TABLES)}")
        if self.on not in retail.TABLES[self.table].names:
            raise ValueError(f"table {self.table!r} has no column {self.on!r}")
        return self


class Rule(_Part):
    """What to do with rows that a condition holds for, and why."""

    id: str = Field(pattern=_NAME)
    when: Sql
    do: Literal["reject", "repair", "ignore"]
    set: dict[str, Sql] = Field(default_factory=dict)
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _sets_what_it_repairs(self) -> Self:
        if (self.do == "repair") != bool(self.set):
            raise ValueError("a repair sets columns, and nothing else does")
        return self


class Match(_Part):
    """A source column that no file has: a pseudonym of what `of` says, alike at every source.

    Of a customer it is the pseudonym that another `source` gives, so that a card is known again at the till.
    """

    of: str = Field(min_length=1)
    kind: Literal["email", "phone", "customer"]
    source: str | None = Field(None, pattern=_NAME)

    @model_validator(mode="after")
    def _names_the_other_source(self) -> Self:
        if (self.kind == "customer") != (self.source is not None):
            raise ValueError("a customer is one of another source, and nothing else is: name it")
        return self


def _alike(match: Match, before: str, source: str) -> Match:
    """What a match is when its mapping's source is another."""
    if match.source is None or not before.startswith(f"{match.source}_"):
        return match
    own = before.removeprefix(match.source)
    if not source.endswith(own):
        return match
    return match.model_copy(update={"source": source.removesuffix(own)})


class Restated(_Part):
    """That a document is told again when it changes: which of its lines a row is, and as of when."""

    line: Sql
    as_of: Sql


class Mapping(_Part):
    """A feed's mapping: everything that has to be known to read its files."""

    feed: str = Field(pattern=_NAME)
    source: str = Field(pattern=_NAME)
    table: str = Field(pattern=_NAME)
    format: str
    csv: Csv = Csv()
    time_zone: str = "UTC"
    day_time_zone: str | None = None
    time_format: str | None = None
    date_format: str | None = None
    currency: str | None = Field(None, pattern="^[A-Z]{3}$")
    source_columns: dict[str, SourceKind] = Field(min_length=1)
    columns: dict[str, Sql] = Field(min_length=1)
    document: tuple[str, ...] = ()
    restated: Restated | None = None
    customer: Literal["keep", "pseudonymise"] = "keep"
    personal: tuple[str, ...] = ()
    match: dict[str, Match] = Field(default_factory=dict)
    sealed: dict[str, str] = Field(default_factory=dict)
    references: dict[str, Reference] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = Field((), max_length=60)
    product: dict[str, Sql] = Field(default_factory=dict)

    _places: dict[Keys, Place] = PrivateAttr(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the mapping says, whatever its file looks like."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def target(self) -> retail.Table:
        """The table that rows are loaded into."""
        return retail.TABLES[self.table]

    def place(self, *path: str | int) -> Place:
        """Where the text of a part of the mapping begins."""
        return self._places.get((*path, VALUE), Place(f"mapping {self.source}", 1, 1))

    def written_at(self, places: Map[Keys, Place]) -> Self:
        """The same mapping, knowing where its parts are written."""
        self._places.update(places)
        return self

    def of_source(self, source: str) -> Self:
        """The same mapping for another source, whose keys and pseudonyms are its own.

        A source that is named after another (`shopify_customers`) matches customers of that one: of
        `shop_customers` they are those of `shop`.
        """
        match = {name: _alike(each, self.source, source) for name, each in self.match.items()}
        other = self.model_copy(update={"source": source, "match": match})
        other.__dict__.pop("digest", None)
        return other

    @property
    def personal_columns(self) -> frozenset[str]:
        """The source's columns whose cells become pseudonyms before anything else sees them."""
        customer = self.columns.get("customer_id") if self.customer == "pseudonymise" else None
        return frozenset(self.personal) | ({customer} if customer else frozenset())

    @property
    def persons(self) -> tuple[str, ...]:
        """The source's columns that say whose a row is: the customer, or else the ticket."""
        customer = self.columns.get("customer_id") if self.customer == "pseudonymise" else None
        ticket = self.columns.get("ticket_id")
        return tuple(name for name in (customer, ticket) if name and name in self.source_columns)

    @property
    def read_columns(self) -> tuple[str, ...]:
        """The source's columns that a file has: the others are made from them."""
        return tuple(name for name in self.source_columns if name not in self.match)

    @property
    def hides(self) -> bool:
        """Whether anything of a row identifies a person, so that a row that is none is not kept."""
        return bool(self.personal_columns or self.match or self.sealed)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for path, problem in _problems(self):
            raise PydanticCustomError("mapping", "{problem}", {"problem": problem, "path": path})
        return self


def read(name: str | Path) -> Mapping:
    """The mapping of a file, or the shipped one of that name (`uci_online_retail`).

    Raises `Misused`, with file, line and column, when the file is absent or says what a mapping cannot.
    """
    found = places.read(name, "mapping", SHIPPED, shipped())
    try:
        mapping = Mapping.model_validate_json(json.dumps(found.plain))
    except ValidationError as error:
        raise Misused(found.told(error)) from None
    return mapping.written_at(found.places)


def shipped() -> list[str]:
    """The names of the mappings that come with Storekeep."""
    names = (item.name.removesuffix(".yaml") for item in SHIPPED.iterdir())
    return sorted(name for name in names if not name.endswith(BESIDE))


def shipped_text(name: str) -> str:
    """The text of a mapping that comes with Storekeep."""
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def _problems(mapping: Mapping) -> Iterator[tuple[Keys, str]]:
    if mapping.table not in retail.TABLES or mapping.table.startswith("rejected"):
        yield ("table",), f"no table {mapping.table!r} can be loaded"
        return
    yield from _source_problems(mapping)
    yield from _column_problems(mapping)
    yield from _rule_problems(mapping)


def _source_problems(mapping: Mapping) -> Iterator[tuple[Keys, str]]:
    if mapping.format not in FORMATS:
        yield ("format",), f"no format {mapping.format!r} is read; there are {', '.join(FORMATS)}"
    lower = [name.lower() for name in mapping.source_columns]
    if len(set(lower)) < len(lower) or any(name.startswith("__") for name in lower):
        yield ("source_columns",), "names must differ by more than case, and not begin with __"
    for name in mapping.personal_columns - set(mapping.source_columns):
        yield ("personal",), f"{name!r} is not among source_columns"
    for name in mapping.personal_columns & set(mapping.source_columns):
        if mapping.source_columns[name] != "text":
            yield ("source_columns", name), "a personal column is read as text"
    yield from _person_problems(mapping)
    for key, zone in (("time_zone", mapping.time_zone), ("day_time_zone", mapping.day_time_zone)):
        if zone is not None and zone not in available_timezones():
            yield (key,), f"no time zone is called {zone!r}"


def _person_problems(mapping: Mapping) -> Iterator[tuple[Keys, str]]:
    """What is wrong with how a mapping hides persons: nothing of them may stay as it is read."""
    hidden = mapping.personal_columns | set(mapping.sealed.values())
    for name, match in mapping.match.items():
        if mapping.source_columns.get(name) != "text":
            yield ("match", name), f"{name!r} is not among source_columns, as text"
        if match.of not in hidden - set(mapping.match):
            yield ("match", name), f"{match.of!r} is neither sealed nor personal"
    fields = [field.name for field in mapping.target.personal]
    for field, name in mapping.sealed.items():
        if field not in fields:
            kept = ", ".join(fields) or "nothing"
            yield ("sealed", field), f"of {mapping.table} {kept} is kept sealed"
        if mapping.source_columns.get(name) != "text" or name in mapping.match:
            yield ("sealed", field), f"{name!r} is not among source_columns, as text"
        if name in mapping.personal_columns:
            yield ("sealed", field), f"{name!r} becomes a pseudonym; it cannot be sealed as well"
    if mapping.sealed and not mapping.persons:
        yield (
            ("sealed",),
            "whose is it? That takes customer: pseudonymise, or a ticket_id that is a source column",
        )


def _rule_problems(mapping: Mapping) -> Iterator[tuple[Keys, str]]:
    for name, reference in mapping.references.items():
        if reference.on not in mapping.columns:
            yield ("references", name, "on"), f"{reference.on!r} is not among columns"
    ids = [rule.id for rule in mapping.rules]
    for index, rule in enumerate(mapping.rules):
        if rule.id in ids[:index] or rule.id in BUILT_IN:
            yield ("rules", index, "id"), f"{rule.id!r} is taken"
        for name in rule.set:
            if name not in mapping.target.names or name in PROVIDED - set(mapping.columns):
                yield ("rules", index, "set", name), f"{mapping.table} has no such column to set"


def _column_problems(mapping: Mapping) -> Iterator[tuple[Keys, str]]:
    target = mapping.target
    for name in mapping.columns:
        if name not in target.names or name in OURS:
            yield ("columns", name), f"{target.name} has no such column to fill"
    required = {column.name for column in target.columns if not column.nullable} - PROVIDED
    for name in sorted(required - set(mapping.columns)):
        yield ("columns",), f"{name!r} of {target.name} is required"
    if "currency" in target.names and not (mapping.currency or "currency" in mapping.columns):
        yield (), "currency is required: the ISO 4217 code of the amounts"
    if "line_key" in target.names and not mapping.document:
        yield (), "document is required: the columns that tell one basket from another"
    for name in mapping.document:
        if name not in mapping.columns:
            yield ("document",), f"{name!r} is not among columns"
    if mapping.restated is not None and "line_key" not in target.names:
        yield (
            ("restated",),
            f"rows of {target.name} have a key of their own, and say by it what they restate",
        )
    for name in mapping.product:
        if name not in retail.PRODUCT.names or name in {"sku", "occurred_at"} | OURS:
            yield ("product", name), "product has no such column to fill"
    if mapping.customer == "pseudonymise" and "customer_id" not in mapping.columns:
        yield ("customer",), "there is no column customer_id to make pseudonyms of"
