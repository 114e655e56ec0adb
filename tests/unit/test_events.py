"""Facts in envelopes: what may be in one, the name it has, and that bytes bring back what went in."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep.errors import InvariantBroken
from storekeep.events import (
    CONTENT_TYPE,
    EVENT_TABLES,
    FED,
    MEANINGS,
    SPEC_VERSION,
    Event,
    Fed,
    event,
    from_bytes,
    to_bytes,
)
from storekeep.retail import FEED_STATE, ORDER_MOVE, SALE_LINE, STOCK_COUNT
from tests.shop import FIRST_DAY, counted, moment, sales

ROOT = Path(__file__).parents[2]
AT = moment(FIRST_DAY, 22)
SALES = sales(FIRST_DAY, FIRST_DAY)


def sold(facts: pa.Table = SALES, **change: Any) -> Event:
    usual = {"type_": "SaleRecorded", "source": "tills", "subject": "DC1", "time": AT}
    return event(**{**usual, **change}, facts=facts)


def test_every_type_is_a_past_tense_with_a_table_and_a_meaning() -> None:
    assert set(EVENT_TABLES) == set(MEANINGS)
    for name, meaning in MEANINGS.items():
        assert name.endswith("ed"), name
        assert meaning.endswith("."), name
    assert {table.name for table in EVENT_TABLES.values()} == {
        *FED,
        ORDER_MOVE.name,
        FEED_STATE.name,
    }


@pytest.mark.parametrize("fed", FED.values(), ids=FED)
def test_what_a_feed_tells_is_about_something_and_the_same_fact_is_of_one_moment(fed: Fed) -> None:
    required = {column.name for column in fed.table.columns if not column.nullable}
    assert {fed.subject, fed.apart} - {None} <= required
    # Months of history in which a fact cannot stand are not looked through for it.
    assert "line_key" in fed.table.key or "occurred_at" in fed.table.identity
    assert {"source_file", "source_line"} <= set(fed.table.names)
    assert (SPEC_VERSION, CONTENT_TYPE) == ("1.0", "application/vnd.apache.arrow.stream")


def test_the_same_facts_have_the_same_name_whenever_they_come() -> None:
    first = sold()
    assert sold(time=AT + timedelta(days=1)).id == first.id
    assert sold(pa.concat_tables([SALES.slice(0, 3), SALES.slice(3)])).id == first.id
    assert sold(SALES.replace_schema_metadata({"made": "elsewhere"})).id == first.id
    assert sold(from_bytes(to_bytes(SALES), SALE_LINE)).id == first.id
    assert len(first.id) == 32


def test_other_facts_have_another_name() -> None:
    fewer, other = SALES.slice(1), SALES.sort_by([("line_key", "descending")])
    names = {
        sold().id,
        sold(fewer).id,
        sold(other).id,
        sold(source="another till").id,
        sold(subject="DC2").id,
    }
    assert len(names) == 5


def test_the_name_is_the_same_in_another_process() -> None:
    program = "from tests.unit.test_events import sold; import json; print(json.dumps(sold().id))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(done.stdout) == sold().id


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type_": "SaleHappened"}, "no event type is called 'SaleHappened'"),
        ({"facts": SALES.slice(0, 0)}, "at least one fact"),
        ({"facts": SALES.drop_columns(["sku"])}, "must have the columns of sale_line"),
        ({"facts": SALES.append_column("more", SALES["sku"])}, "must have the columns"),
        ({"facts": SALES.select(list(reversed(SALES.column_names)))}, "must have the columns"),
        ({"facts": counted()}, "must have the columns"),
    ],
)
def test_what_does_not_fit_its_type_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvariantBroken, match=words):
        sold(**change)


def test_facts_are_brought_to_the_types_of_their_table() -> None:
    narrow = SALES.set_column(
        SALES.column_names.index("quantity_units"),
        "quantity_units",
        SALES["quantity_units"].cast(pa.int32()),
    )
    assert sold(narrow).facts.schema == SALE_LINE.arrow
    assert sold(narrow).id == sold().id


texts = st.text(st.characters(codec="utf-8"), max_size=9)
counts = st.lists(
    st.fixed_dictionaries(
        {
            "location_id": texts,
            "sku": texts,
            "quantity_units": st.integers(-(2**63), 2**63 - 1),
            "occurred_at": st.datetimes(timezones=st.just(UTC)),
            "known_at": st.datetimes(timezones=st.just(UTC)),
            "source_file": st.none() | texts,
            "source_line": st.none() | st.integers(1, 2**63 - 1),
        }
    ),
    min_size=1,
    max_size=20,
)


@given(counts)
def test_bytes_bring_back_what_went_in(rows: list[dict[str, Any]]) -> None:
    facts = pa.Table.from_pylist(rows, schema=STOCK_COUNT.arrow)
    again = from_bytes(to_bytes(facts), STOCK_COUNT)
    assert again.to_pylist() == rows
    assert again.schema == STOCK_COUNT.arrow
    assert to_bytes(again) == to_bytes(facts)


def test_an_event_carries_the_time_it_was_told_and_no_position_yet() -> None:
    told = sold(time=AT + timedelta(hours=1))
    assert (told.time, told.position) == (AT + timedelta(hours=1), None)
    assert told.facts["known_at"].to_pylist() == [AT] * SALES.num_rows
