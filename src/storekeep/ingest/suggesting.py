"""A mapping proposed from a file: how it is written, what its columns hold, and what they may mean.

Nothing is taken in: what comes out is the text of a mapping file, which loads, and in which every guess that
a person must look at says so. Hides how guesses are made. What is not found is left empty, so that rows are
turned away as `missing` and never taken in for something that they are not.
"""

from __future__ import annotations

import codecs
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from storekeep import retail
from storekeep.errors import Refused
from storekeep.ingest.archives import Bounds, Opened, opened
from storekeep.ingest.delimited import Dialect
from storekeep.ingest.documents import Unfit, document, of_one_list
from storekeep.ingest.feeds import FEEDS, PROVIDED, shipped_text
from storekeep.ingest.formats import FORMATS
from storekeep.ingest.messages import MESSAGES
from storekeep.ingest.words import MEANINGS, meaning
from storekeep.sql import Place, parse, quoted

SAMPLE_BYTES = 1 << 20
SAMPLE_ROWS = 5_000
_BLANK = b"\xef\xbb\xbf \t\r\n"
_PRODUCT = re.compile(rb'"@type"\s*:\s*\[?\s*"[^"]*Product')
_MARKS = ("NULL", "null", "N/A", "n/a", "NA", "#N/A", "NaN", "nan", "None", "-", "--", "?", r"\N")
_DAYS = ("%Y-%m-%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y",
         "%d-%b-%y", "%d-%b-%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y%m%d")  # fmt: skip
_CLOCKS = (" %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", "T%H:%M:%S")
_ISO = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}(:\d{2}([.]\d{1,9})?)?)?( ?(Z|z|[+-]\d{2}(:?\d{2})?))?"
)
_NUMBERS = {
    (".", None): r"[+-]?(\d+([.]\d*)?|[.]\d+)([eE][+-]?\d{1,3})?",
    (",", None): r"[+-]?(\d+(,\d*)?|,\d+)([eE][+-]?\d{1,3})?",
    (".", ","): r"[+-]?(\d+|\d{1,3}(,\d{3})+)([.]\d*)?",
    (",", "."): r"[+-]?(\d+|\d{1,3}([.]\d{3})+)(,\d*)?",
    (",", " "): r"[+-]?(\d+|\d{1,3}([ \u00a0\u202f]\d{3})+)(,\d*)?",
    (".", "'"): r"[+-]?(\d+|\d{1,3}('\d{3})+)([.]\d*)?",
}
# Documents of a standard, whose columns are fixed: the mapping that ships reads them.
_STANDARDS = {
    "poslog": re.compile(rb"<([\w.-]+:)?POSLog[\s>]"),
    "epcis": re.compile(rb'"(epcisBody|eventTimeZoneOffset)"\s*:'),
    **{
        f"x12_{kind}": re.compile(
            rb"(?s)\A(?:\xef\xbb\xbf)?\s*ISA(?P<by>.).*?ST(?P=by)%s(?P=by)" % kind.encode()
        )
        for kind in MESSAGES["x12"]
    },
    **{
        f"edifact_{kind.lower()}": re.compile(
            rb"(?s)\A(?:\xef\xbb\xbf)?\s*UN[AB].*?UNH(?P<by>.)[^'\n]{1,14}(?P=by)%s\W"
            % kind.encode()
        )
        for kind in MESSAGES["edifact"]
    },
}
# What web shops send: names that a thing of each kind has, and no other.
_SHOPS: Mapping[str, frozenset[str]] = {
    "shopify_orders": frozenset({"financial_status", "total_line_items_price"}),
    "shopify_fulfilments": frozenset({"order_id", "tracking_company"}),
    "shopify_products": frozenset({"product_type", "variants"}),
    "shopify_stock": frozenset({"inventory_item_id", "available"}),
    "shopify_customers": frozenset({"verified_email"}),
    "woocommerce_orders": frozenset({"order_key", "line_items"}),
    "woocommerce_products": frozenset({"regular_price", "permalink"}),
    "woocommerce_customers": frozenset({"is_paying_customer"}),
}
# What these mean is a name, whatever it is made of.
_NAMES = (
    *(
        "sku",
        "gtin",
        "basket_id",
        "store_id",
        "location_id",
        "customer_id",
        "supplier_id",
        "line_id",
    ),
    *("purchase_order_id", "delivery_id", "fulfilment_id", "order_id"),
)
# Which of a table's columns tell that rows are of it; of equally likely tables the first.
_SIGNS: Mapping[str, tuple[str, ...]] = {
    "delivery": ("purchase_order_id", "supplier_id", "sku", "quantity_units", "occurred_at"),
    "fulfilment": ("fulfilment_id", "order_id", "quantity_units", "status", "occurred_at"),
    "sale_line": ("basket_id", "sku", "quantity_units", "value_minor", "occurred_at"),
    "stock_report": ("sku", "quantity_units", "occurred_at"),
    "product": ("sku", "name"),
}


@dataclass
class _Sample:
    """What a file shows of itself, and what was guessed of it."""

    format: str
    dialect: Dialect
    cells: pa.Table
    decimal: str = "."
    thousands: str | None = None
    nulls: tuple[str, ...] = ()
    date_format: str | None = None
    time_format: str | None = None
    zoned: bool = True
    kinds: dict[str, str] = field(default_factory=dict)
    looks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggestion:
    """The text of a mapping file, and what in it a person must look at."""

    text: str
    look: tuple[str, ...]


def suggest(path: Path) -> Suggestion:
    """Propose a mapping for files like this one, from its first mebibyte or so.

    Raises `Refused` when it is none of the formats that are read, `Misused` when it is not there.
    """
    with opened(path, Bounds()) as members:
        file = next(iter(members))
        with file.path.open("rb") as stream:
            head = stream.read(SAMPLE_BYTES)
        if name := _shipped(head):
            return Suggestion(shipped_text(name), ())
        sample = _sample(file, head)
    _look_at_marks(sample)
    _look_at_numbers(sample)
    _look_at_times(sample)
    for name in sample.cells.column_names:
        sample.kinds.setdefault(name, "text")
    return _written(path, sample)


# How it is written --------------------------------------------------------------------------------------


def _shipped(head: bytes) -> str | None:
    """The mapping that ships for files of a standard, and for what web shops send."""
    for name, sign in _STANDARDS.items():
        if sign.search(head):
            return name
    try:
        thing = document(head.removeprefix(codecs.BOM_UTF8))
    except Unfit:
        return None
    while (isinstance(thing, dict) and len(thing) == 1) or (isinstance(thing, list) and thing):
        thing = next(iter(thing.values() if isinstance(thing, dict) else thing))
    names = thing.keys() if isinstance(thing, dict) else frozenset[str]()
    return next((name for name, signs in _SHOPS.items() if signs <= names), None)


def _sample(file: Opened, head: bytes) -> _Sample:
    format_ = _format(head, file.name)
    looks: dict[str, str] = {}
    dialect = _dialect(head, file.name, looks) if format_ == "csv" else Dialect()
    with tempfile.TemporaryDirectory(prefix="storekeep-") as folder:
        read = file
        if format_ in {"csv", "jsonl"} and len(head) == SAMPLE_BYTES:
            part = Path(folder) / "sample"
            part.write_bytes(head[: head.rfind(b"\n") + 1])
            read = Opened(part, file.name)
        reader = FORMATS[format_]
        names = reader.names(read, dialect)
        if format_ == "jsonl":
            names, others = of_one_list(_documents(head), names)
            if others:
                looks["source_columns"] = f"other lists are left out: {', '.join(others)}"
        blocks = reader.blocks(read, tuple(dict.fromkeys(names)), dialect)
        cells = next(iter(blocks)).cells.slice(0, SAMPLE_ROWS)
    return _Sample(format_, dialect, cells, looks=looks)


def _format(head: bytes, name: str) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.lstrip(_BLANK)
    if start[:1] in {b"{", b"[", b"<"} and _PRODUCT.search(head):
        return "schema_org"
    if next(_documents(head), None) is not None:
        return "jsonl"
    if re.match(rb"[{\[]\s*[\"{\[]", start):
        raise Refused(
            f"{name} is JSON, but neither JSON lines nor a document that is known, such as Shopify's orders; "
            f"write an object on each line, or take one of {', '.join(_SHOPS)}"
        )
    return "csv"


def _documents(head: bytes) -> Iterator[object]:
    """The objects of a sample of JSON lines, if the first line is one, without the last, which may be cut."""
    for number, line in enumerate(head.lstrip(_BLANK).splitlines()[:1000]):
        try:
            said = document(line)
        except Unfit:
            said = None
        if isinstance(said, dict):
            yield said
        elif number == 0:
            return


def _dialect(head: bytes, name: str, looks: dict[str, str]) -> Dialect:
    """How delimited text is written: its encoding by its bytes, the rest as DuckDB sniffs it."""
    encoding = "utf-8"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    else:
        try:
            head.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                encoding = "windows-1252"
                looks["encoding"] = "it is not UTF-8; see that letters with accents come out right"
    text = head.decode(encoding, errors="replace").removeprefix("\ufeff").replace("\0", "")
    whole = text[: text.rfind("\n") + 1] if len(head) == SAMPLE_BYTES else text
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8", newline="") as part:
        part.write(whole)
        part.flush()
        try:
            ((mark, quote, skip, header, columns),) = duckdb.execute(
                "SELECT Delimiter, Quote, SkipRows, HasHeader, Columns FROM sniff_csv(?, sample_size = -1)",
                [part.name],
            ).fetchall()
        except duckdb.Error:
            raise Refused(
                f"{name} is no file of rows that can be made out: not delimited text, Parquet, JSON lines "
                "or schema.org; write its mapping by hand"
            ) from None
    names: tuple[str, ...] = ()
    if not header:
        names = tuple(f"column_{number}" for number in range(1, len(columns) + 1))
        looks["names"] = "the file has no header; name its columns"
    return Dialect(mark, quote if quote != "(empty)" else '"', encoding, int(skip), names)


# What its columns hold ----------------------------------------------------------------------------------


def _texts(sample: _Sample, name: str) -> list[str]:
    """What the cells of a column say, without those that say nothing."""
    column = sample.cells[name]
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        return []
    empty = {"", *sample.nulls}
    return [each for each in column.to_pylist() if each is not None and each not in empty]


def _look_at_marks(sample: _Sample) -> None:
    """Marks that mean nothing: those that stand beside what is otherwise of one kind."""
    found: Counter[str] = Counter()
    for name in sample.cells.column_names:
        said = _texts(sample, name)
        others = [each for each in said if each not in _MARKS]
        if len(others) < len(said) and (not others or _number(others) or _moment(others)):
            found.update(each for each in said if each in _MARKS)
    sample.nulls = tuple(found)


def _number(said: Sequence[str]) -> list[tuple[str, str | None]]:
    """In which ways all cells can be read as numbers."""
    return [
        way
        for way, shape in _NUMBERS.items()
        if said and all(re.fullmatch(shape, each.strip()) for each in said)
    ]


def _moment(said: Sequence[str]) -> list[str]:
    """In which formats all cells can be read as times, or as dates; `iso` for what needs none."""
    if said and all(_ISO.fullmatch(each) for each in said):
        return ["iso"]
    few = list(dict.fromkeys(said))[:500]
    # A whole number of eight digits is more often a number than a day.
    forms = [day + clock for day in _DAYS for clock in ("", *_CLOCKS)]
    return [form for form in forms if few and all(_reads(each, form) for each in few)]


def _reads(said: str, form: str) -> bool:
    try:
        return 1970 <= datetime.strptime(said, form).year <= 2100  # noqa: DTZ007 - only whether it can be read
    except ValueError:
        return False


def _look_at_numbers(sample: _Sample) -> None:
    """Which columns hold numbers, and how the file writes them: one way for all of them."""
    ways: Counter[tuple[str, str | None]] = Counter()
    numeric: dict[str, list[str]] = {}
    for name in sample.cells.column_names:
        type_ = sample.cells[name].type
        if pa.types.is_integer(type_):
            sample.kinds[name] = "int"
        elif pa.types.is_floating(type_) or pa.types.is_decimal(type_):
            sample.kinds[name] = "decimal"
        said = _texts(sample, name)
        if found := _number(said):
            numeric[name] = said
            ways.update(found)
    if not ways:
        return
    # The first of equals: a point where nothing tells.
    sample.decimal, sample.thousands = max(ways, key=lambda way: ways[way])
    if sample.decimal == "," and ways[(".", None)] == ways[sample.decimal, sample.thousands]:
        sample.looks["decimal"] = "commas or points before decimals? both could be"
    for name, said in numeric.items():
        if not re.fullmatch(_NUMBERS[sample.decimal, sample.thousands], said[0].strip()):
            continue
        if not _identifies(name, said):
            whole = all(re.fullmatch(r"\s*[+-]?\d{1,18}\s*", each) for each in said)
            sample.kinds[name] = "int" if whole else "decimal"


def _identifies(name: str, said: Sequence[str]) -> bool:
    """Whether numbers are names of things rather than quantities: they are text then."""
    if any(re.fullmatch(r"0\d+|\d{16,}", each) for each in said):
        return True
    return any(meaning([name], word) for word in _NAMES) and not any(
        meaning([name], word) for word in ("quantity_units", "price", "value_minor")
    )


def _look_at_times(sample: _Sample) -> None:
    """Which columns hold days or times, and in which formats; a file has one of each."""
    found: dict[str, list[str]] = {}
    for name in sample.cells.column_names:
        type_ = sample.cells[name].type
        if pa.types.is_date(type_):
            sample.kinds[name] = "date"
        elif pa.types.is_timestamp(type_):
            sample.kinds[name] = "time"
            sample.zoned = sample.zoned and type_.tz is not None
        said = _texts(sample, name)
        forms = _moment(said)
        if sample.kinds.get(name, "text") == "text" and forms:
            found[name] = forms
            if forms == ["iso"]:
                clock = any(":" in each for each in said)
                sample.kinds[name] = "time" if clock else "date"
                zoned = all(re.search(r"(Z|[+-]\d\d:?\d\d)$", each) for each in said)
                sample.zoned = sample.zoned and (zoned or not clock)
    moment = meaning(found, "occurred_at")
    for kind in ("time", "date"):
        timed = {
            name: forms
            for name, forms in found.items()
            if forms != ["iso"] and any(_has_clock(form) for form in forms) == (kind == "time")
        }
        _choose_format(sample, kind, timed)
    # Days alone may be all that is told of when it happened.
    if moment and sample.kinds.get(moment) == "date":
        sample.kinds[moment] = "time"
        sample.time_format = sample.date_format
        sample.zoned = False


def _choose_format(sample: _Sample, kind: str, timed: Mapping[str, Sequence[str]]) -> None:
    ways: Counter[str] = Counter(form for forms in timed.values() for form in forms)
    if not ways:
        return
    chosen = max(ways, key=lambda form: ways[form])
    setattr(sample, f"{kind}_format", chosen)
    sample.zoned = sample.zoned and kind == "date"
    rivals = [form for form in ways if ways[form] == ways[chosen] and form != chosen]
    if rivals:
        sample.looks[f"{kind}_format"] = f"{', '.join(rivals)} would fit as well: what comes first?"
    for name, forms in timed.items():
        if chosen in forms:
            sample.kinds[name] = kind
        else:
            sample.looks[name] = f"written as {forms[0]}, unlike others: compute it with strptime"


def _has_clock(form: str) -> bool:
    return "%M" in form


# What its columns mean ----------------------------------------------------------------------------------


def _table(sample: _Sample) -> tuple[str, str]:
    """The feed and table that rows are likeliest to be of."""

    def fits(table: str) -> float:
        matched = sum(_found(sample, table, word) is not None for word in _SIGNS[table])
        return matched - (len(_SIGNS[table]) - matched) / 2

    table = max(_SIGNS, key=fits)
    if table == "stock_report" and "count" in " ".join(sample.cells.column_names).lower():
        table = "stock_count"
    return next(feed for feed, tables in FEEDS.items() if table in tables), table


def _found(sample: _Sample, table: str, word: str) -> str | None:
    """The expression that a column of ours is likeliest to be, if any is."""
    column = retail.TABLES[table].column(word)
    fits: Mapping[str, Callable[[str], bool]] = {
        "int": lambda kind: kind in {"int", "decimal"},
        "time": lambda kind: kind in {"time", "date"},
        "date": lambda kind: kind in {"time", "date"},
    }
    named = [
        name
        for name in sample.cells.column_names
        if column.kind not in fits or fits[column.kind](sample.kinds[name])
    ]
    found = meaning(named, word) if word in MEANINGS else None
    if word == "value_minor" and found is None:
        price, many = meaning(named, "price"), meaning(named, "quantity_units")
        return f"{_name(many)} * {_name(price)}" if price and many else None
    return None if found is None else _name(found)


def _name(column: str) -> str:
    """A column as expressions name it: as it is, or in quotes where that is something else."""
    try:
        parse(column, {column: "VARCHAR"}, place=Place("", 1, 1))
    except Refused:
        return quoted(column)
    return column


# Of the kind that is asked for, and never there.
_NOTHING = {
    "text": "''",
    "int": "nullif(0, 0)",
    "time": "try_cast('' AS DATE)",
    "date": "try_cast('' AS DATE)",
}


def _columns(sample: _Sample, table: str) -> Iterator[tuple[str, str, str | None]]:
    """Each column of ours, its expression, and what to look at."""
    for column in retail.TABLES[table].columns:
        if column.name in PROVIDED - {"location_id", "currency"}:
            continue
        # What is sold is sold in its store.
        if column.name == "location_id" and table == "sale_line":
            continue
        found = _found(sample, table, column.name)
        if found is not None:
            yield column.name, found, None
        elif column.name == "store_id":
            yield column.name, "'main'", "no column seems to name the store"
        elif not column.nullable and column.name not in PROVIDED:
            yield column.name, _NOTHING[column.kind], "no column was found for it"


def _written(path: Path, sample: _Sample) -> Suggestion:
    feed, table = _table(sample)
    source = re.sub(r"[^a-z0-9]+", "_", path.name.lower().split(".")[0]).strip("_")
    source = source if source[:1].isalpha() else f"source_{source}".rstrip("_")
    lines: list[tuple[str, str | None]] = [
        (
            f"# Proposed from {_said(path.name)}. Look at what says LOOK.",
            None,
        ),
        (f"feed: {feed}", None),
        (f"source: {source[:60]}", "what shall the source be called?"),
        (f"table: {table}", f"is that what a row is? {retail.TABLES[table].meaning}"),
        (f"format: {sample.format}", None),
    ]
    lines += _ways(sample)
    columns = list(_columns(sample, table))
    given = {name for name, _, _ in columns}
    if not sample.zoned:
        lines.append(("time_zone: UTC", "in which time zone are these times?"))
    if "currency" in retail.TABLES[table].names and "currency" not in given:
        lines.append(("currency: XTS", "which currency are the amounts in?"))
    lines += [("", None), ("source_columns:", sample.looks.get("source_columns"))]
    lines += [
        (f"  {_said(name)}: {sample.kinds[name]}", sample.looks.get(name))
        for name in sample.cells.column_names
    ]
    lines += [("", None), ("columns:", None)]
    lines += [(f"  {name}: {_said(found)}", look) for name, found, look in columns]
    if "line_key" in retail.TABLES[table].names:
        lines += [("", None), ("document: [basket_id]", None)]
    if "customer_id" in given:
        lines.append(("customer: pseudonymise", "keep, if these are pseudonyms already"))
    text = "".join(f"{said}  # LOOK: {look}\n" if look else f"{said}\n" for said, look in lines)
    return Suggestion(text, tuple(f"{said.strip()}: {look}" for said, look in lines if look))


def _ways(sample: _Sample) -> Iterator[tuple[str, str | None]]:
    """How the file is written, as far as it is not as usual."""
    dialect, looks = sample.dialect, sample.looks
    usual = Dialect()
    said: list[tuple[str, str | None]] = []
    for name in ("delimiter", "quote", "encoding", "skip_lines", "names"):
        value = getattr(dialect, name)
        if value != getattr(usual, name):
            said.append((f"  {name}: {_said(value)}", looks.get(name)))
    if sample.decimal != ".":
        said.append((f'  decimal: "{sample.decimal}"', looks.get("decimal")))
    if sample.thousands:
        said.append((f'  thousands: "{sample.thousands}"', None))
    if sample.nulls:
        marks = _said(["", *sample.nulls])
        said.append((f"  nulls: {marks}", "do these mean nothing?"))
    if said:
        yield "csv:", None
        yield from said
    for kind in ("date_format", "time_format"):
        value = getattr(sample, kind)
        if value is not None:
            yield f"{kind}: {_said(value)}", looks.get(kind)


def _said(value: object) -> str:
    """A text, a number or a list of texts as YAML."""
    told = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in told)
