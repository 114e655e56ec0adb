"""The pages on tables and events say what the definitions say: they are written from them.

After a change of a definition `python -m tests.docs.test_tables` writes that part of them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest

from storekeep import stock
from storekeep.events import CONTENT_TYPE, EVENT_TABLES, MEANINGS, SPEC_VERSION, event
from storekeep.features.sku_location import FEATURE_TABLE, FEATURES
from storekeep.retail import TABLES, Table
from tests.shop import FIRST_DAY, moment, sales

pytestmark = pytest.mark.docs
DOCS = Path(__file__).parents[2] / "docs"

MARK = "<!-- What follows is written from the definitions: python -m tests.docs.test_tables -->\n"
EVENTS_HEAD = """
| Type | Says | Facts | Moves stock by |
|---|---|---|---|
"""
MOVES = {
    "SaleRecorded": "on hand down by what was sold, net of returns in the batch, never below nothing",
    "StockCounted": "on hand becomes the newest count, and what was sold and received since it was taken",
    **dict.fromkeys(
        ("StockReported", "SupplierAnswered", "GoodsShipped", "GoodsDelivered", "ProductListed"),
        "nothing",
    ),
    **dict.fromkeys(
        (
            "OrderFulfilled",
            "CustomerChanged",
            "TicketOpened",
            "TicketMessageAdded",
            "ItemIdentified",
        ),
        "nothing",
    ),
    **dict.fromkeys(("CustomersMerged", "CustomersSplit"), "nothing"),
    "OrderCommitted": "committed up",
    "OrderReleased": "committed down",
    "PurchaseOrderConfirmed": "committed down, on order up",
    "PurchaseOrderCancelled": "on order down",
    "GoodsReceived": "on order down, on hand up",
    "FeedStateChanged": "nothing",
}


def section(table: Table) -> str:
    """A table's own section."""
    key = ", ".join(f"`{name}`" for name in table.key)
    lines = ["", f"## {table.name}", "", table.meaning, "", f"Key: {key}."]
    lines += ["", "| Column | Type | Unit | Meaning | Privacy |", "|---|---|---|---|---|"]
    for column in table.columns:
        kind = column.kind + (", may be empty" if column.nullable else "")
        bounds = ""
        if column.at_least is not None:
            bounds += f" At least {column.at_least}."
        if column.at_most is not None:
            bounds += f" At most {column.at_most}."
        if column.references not in {None, f"{table.name}.{column.name}"}:
            bounds += f" Refers to `{column.references}`."
        cells = (
            f"`{column.name}`",
            kind,
            column.unit or "",
            column.meaning + bounds,
            column.privacy,
        )
        lines.append(f"| {' | '.join(cells)} |")
    if table.personal:
        lines += ["", "Personal, and therefore kept apart, [sealed](ingest.md#people):", ""]
        lines += [f"- `{column.name}`: {column.meaning}" for column in table.personal]
    return "\n".join(lines) + "\n"


def tables_part() -> str:
    """All tables, and that of the features."""
    return "".join(section(table) for table in (*TABLES.values(), FEATURE_TABLE))


def events_part() -> str:
    """One row a type of event."""
    rows = []
    for name, meaning in MEANINGS.items():
        table = EVENT_TABLES[name].name
        link = f"[`{table}`](tables.md#{table.replace('_', '-')})"
        rows.append(f"| `{name}` | {meaning} | {link} | {MOVES[name]} |")
    return EVENTS_HEAD + "\n".join(rows) + "\n"


PARTS = {"tables.md": tables_part, "events.md": events_part}


@pytest.mark.parametrize("page", PARTS)
def test_the_page_is_what_the_definitions_say(page: str) -> None:
    intro, mark, told = (DOCS / page).read_text(encoding="utf-8").partition(MARK)
    assert mark, "the mark is missing"
    assert len(intro) > 200
    assert told == PARTS[page](), "write it anew: python -m tests.docs.test_tables"


def test_every_table_every_feature_and_every_type_is_there() -> None:
    tables, events = tables_part(), events_part()
    for table in (*TABLES.values(), FEATURE_TABLE):
        assert f"\n## {table.name}\n\n{table.meaning}\n" in tables
        for column in table.columns:
            assert re.search(rf"\n\| `{column.name}` \| .*{re.escape(column.meaning)}", tables)
    assert all(f"| `{each.name}` | " in tables for each in FEATURES)
    for name in EVENT_TABLES:
        assert f"\n| `{name}` | {MEANINGS[name]} | " in events


def test_the_page_says_what_the_envelope_says() -> None:
    page = (DOCS / "events.md").read_text(encoding="utf-8")
    assert f"| `specversion` | `{SPEC_VERSION}` |" in page
    assert f"`{CONTENT_TYPE}`" in page
    told = event("SaleRecorded", "tills", "DC1", moment(FIRST_DAY), sales(FIRST_DAY, FIRST_DAY))
    for name in ("id", "source", "type", "subject", "time"):
        assert f"\n| `{name}` | " in page
        assert hasattr(told, name)
    assert f"{len(told.id)} hexadecimal digits" in page


def moved(type_: str) -> str:
    """In the words of the page, what an event of a type did to one item's stock."""
    table = EVENT_TABLES[type_]
    numbers = {"int": 5, "bool": True, "time": moment(FIRST_DAY), "date": FIRST_DAY}
    row = {column.name: numbers.get(column.kind, "x") for column in table.columns}
    facts = pa.Table.from_pylist([row], schema=table.arrow)
    net = next(
        iter(stock.moves([event(type_, "test", "DC1", moment(FIRST_DAY), facts)]).to_pylist()), None
    )
    if net is None:
        return "on hand becomes the newest count" if type_ == "StockCounted" else "nothing"
    signs = {-5: "down", 5: "up"}
    words = {name: signs.get(net[f"{name}_units"]) for name in ("committed", "on_order", "on_hand")}
    return ", ".join(f"{name.replace('_', ' ')} {sign}" for name, sign in words.items() if sign)


@pytest.mark.parametrize("type_", EVENT_TABLES)
def test_what_an_event_moves_is_what_it_does_move(type_: str) -> None:
    assert MOVES[type_].startswith(moved(type_))


if __name__ == "__main__":
    for page, part in PARTS.items():
        path = DOCS / page
        before = path.read_text(encoding="utf-8").partition(MARK)[0]
        path.write_text(before + MARK + part(), encoding="utf-8")
