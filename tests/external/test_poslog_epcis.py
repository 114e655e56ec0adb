"""POSLog and EPCIS samples as others wrote them: each is taken in with the right totals, none half."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from storekeep.ingest import Loaded, load, mapping
from storekeep.ingest.archives import Opened
from storekeep.ingest.epcis import COLUMNS, blocks

SHARED = Path(__file__).parents[3] / "shared/data"
POSLOG, EPCIS = SHARED / "poslog", SHARED / "epcis/JSON"
KEY = b"a key that is kept secret, 32 by"
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not POSLOG.exists(), reason="../shared/data/poslog is absent"),
    pytest.mark.skipif(not EPCIS.exists(), reason="../shared/data/epcis is absent"),
]


def read(name: str) -> Loaded:
    found = mapping("poslog")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    (batch,) = load(found, [POSLOG / name], known_at=at, pseudonym_key=KEY)
    assert batch.rejected.num_rows == 0
    return batch


def test_a_sale_of_a_supermarket_comes_to_its_total() -> None:
    batch = read("sainsburys_r10_poslog_0.xml")
    rows = batch.rows.to_pylist()
    assert [row["value_minor"] for row in rows] == [259, 199, 199]
    assert [row["quantity_units"] for row in rows] == [1, 1, 1]
    assert {row["basket_id"] for row in rows} == {"0610:2016-08-22:140:451"}
    assert {row["currency"] for row in rows} == {"GBP"}
    assert rows[0]["occurred_at"] == datetime(2016, 8, 22, 14, 21, 54, 483370, UTC)
    assert [row["source_line"] for row in rows] == [14, 47, 81]
    assert (batch.read, batch.ignored) == (7, {"tender": 1, "tax": 2, "no_line_of_goods": 1})


def test_a_voided_line_and_its_void_come_to_nothing() -> None:
    rows = read("wincor_voided_sale.xml").rows.to_pylist()
    assert [(row["sku"], row["quantity_units"], row["value_minor"]) for row in rows] == [
        ("32", 1, 2100), ("32", -1, -2100),
    ]  # fmt: skip
    assert {row["currency"] for row in rows} == {"AED"}


def test_the_example_of_the_standard_is_read() -> None:
    (row,) = read("ixretail_example.xml").rows.to_pylist()
    assert (row["store_id"], row["quantity_units"], row["value_minor"]) == ("HighStreet", 3, 489)
    assert (row["day"], row["currency"]) == (date(2001, 8, 13), "USD")


def events(found: Any) -> list[dict[str, Any]]:
    body = found["epcisBody"]
    return list(body.get("eventList") or body["queryResults"]["resultsBody"]["eventList"])


def said(event: dict[str, Any]) -> tuple[int, float]:
    """Identifiers and quantities of an event, by another road."""
    identifiers = [
        len(value) for name, value in event.items() if name.lower().endswith(("epclist", "epcs"))
    ]
    lists = [value for name, value in event.items() if name.lower().endswith("quantitylist")]
    return (
        sum(identifiers) + ("parentID" in event),
        sum(float(one.get("quantity", 0)) for listed in lists for one in listed),
    )


@pytest.mark.parametrize("path", sorted(EPCIS.rglob("*.jsonld")), ids=lambda path: path.name)
def test_every_example_of_epcis_is_read_with_all_its_events_and_units(path: Path) -> None:
    raw = events(json.loads(path.read_text()))
    found = list(blocks(Opened(path, path.name), COLUMNS))
    assert [block.malformed.num_rows for block in found] == [0]
    rows = [row for block in found for row in block.cells.to_pylist()]
    assert {int(row["event"]) for row in rows} == set(range(1, len(raw) + 1))
    units: defaultdict[int, float] = defaultdict(float)
    for row in rows:
        units[int(row["event"])] += float(row["quantity"] or 0)
    assert [units[number] for number in range(1, len(raw) + 1)] == [
        pytest.approx(identifiers + quantity) for identifiers, quantity in map(said, raw)
    ]
    declared = {number for number, event in enumerate(raw, 1) if event.get("errorDeclaration")}
    assert {int(row["event"]) for row in rows if row["state"] != "current"} == declared
