"""Any order and any repetition of what a web shop told comes to the same."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storekeep import ingest
from storekeep.lake import Lake
from storekeep.pipeline import restating
from storekeep.store import RESTATED
from tests.hooks import MADE, line, order, refund

MAPPING = ingest.mapping("shopify_orders")
KEY = b"0123456789abcdef"
Fact = tuple[str, str, datetime]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with Lake(tmp_path_factory.mktemp("lake"), "t") as one:
        yield one


class Home:
    """What a home knows of lines: how they stand, and all facts about them."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.state = RESTATED.empty_table()
        self.keys: list[str] = []
        self.sums: Counter[Fact] = Counter()
        self.values: Counter[Fact] = Counter()

    def hear(self, bodies: Sequence[Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, body in enumerate(bodies):
                files.append(Path(folder) / f"{number}.json")
                files[-1].write_text(json.dumps(body))
            batches = list(
                ingest.load(
                    *(MAPPING, files),
                    known_at=datetime(2026, 4, 1, tzinfo=UTC),
                    location_id="WEB",
                    pseudonym_key=KEY,
                )
            )
        came = restating.moves(self.lake, MAPPING, restating.told(MAPPING, batches), self.state)
        for row in came.facts.to_pylist():
            self.keys.append(row["line_key"])
            where = (row["basket_id"], row["sku"], row["occurred_at"])
            self.sums[where] += row["quantity_units"]
            self.values[where] += row["value_minor"]
        named = pa.table({name: came.state[name] for name in ("document", "line")})
        stays = self.state.join(named, ["document", "line"], join_type="left anti")
        self.state = pa.concat_tables([stays.select(RESTATED.names).cast(RESTATED), came.state])

    def came_to(self) -> dict[Fact, tuple[int, int]]:
        return {
            where: (self.sums[where], self.values[where])
            for where in self.sums | self.values
            if self.sums[where] or self.values[where]
        }


@st.composite
def histories(draw: st.DrawFn) -> list[Any]:
    """An order or two, each told several times as it changed, with refunds told for themselves and in it."""
    told: list[Any] = []
    for number in range(1, draw(st.integers(1, 2)) + 1):
        skus = draw(st.lists(st.sampled_from(["apple", "pear"]), min_size=1, max_size=3))
        refunds: list[Any] = []
        for step in range(draw(st.integers(1, 4))):
            lines = [
                line(number * 100 + place, sku, draw(st.integers(0, 3)), "1.50")
                for place, sku in enumerate(skus)
            ]
            if step and draw(st.booleans()):
                one = refund(number * 10 + step, lines[0], 1, minutes=step)
                refunds = [*refunds, one]
                told.append({**one, "order_id": number})
            cancelled = draw(st.sampled_from([None, None, None, step]))
            more = {
                "cancelled_at": cancelled and (MADE + timedelta(minutes=cancelled)).isoformat(),
                "refunds": refunds,
            }
            # Two tellings may be of the same second.
            told.append(order(number, *lines, minutes=step // 2, **more))
    return told


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_and_any_repetition_comes_to_the_same(lake: Lake, data: st.DataObject) -> None:
    history = data.draw(histories())
    at_once = Home(lake)
    at_once.hear(history)
    again = data.draw(st.lists(st.sampled_from(history), max_size=3))
    told = data.draw(st.permutations([*history, *again]))
    other = Home(lake)
    while told:
        many = data.draw(st.integers(1, len(told)))
        other.hear(told[:many])
        told = told[many:]
    assert other.came_to() == at_once.came_to()
    assert len(set(other.keys)) == len(other.keys)
    order_ = [(name, "ascending") for name in ("document", "line")]
    assert other.state.sort_by(order_).equals(at_once.state.sort_by(order_))
    assert not pc.any(pc.is_null(other.state["as_of"])).as_py()
