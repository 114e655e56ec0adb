"""Features as of a time: nothing that was known later is read, whatever came when."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import given, settings

from tests.declared import BEGIN, DAY, Label, Told, expected, joined

# Few moments, so that rows overtake each other and meet labels.
HOURS = st.integers(0, 12).map(lambda halves: BEGIN + halves * DAY / 2)
ITEMS = st.sampled_from(["bread", "salt"])
ROWS = st.lists(
    st.builds(Told, ITEMS, HOURS, HOURS, st.one_of(st.none(), st.integers(0, 9))),
    min_size=2,
    max_size=25,
    # Two rows that nothing tells apart are refused, and a test of its own sees to that.
    unique_by=lambda row: (row.item, row.occurred, row.known),
)
LABELS = st.lists(st.builds(Label, ITEMS, HOURS), min_size=1, max_size=15)


def values(rows: list[Told], asked: list[Label]) -> list[int | None]:
    with TemporaryDirectory() as folder:
        found = joined(Path(folder), rows, asked).table()
    assert found["target"].to_pylist() == list(range(len(asked)))
    return [value.as_py() for value in found["price_minor"]]


@given(ROWS, LABELS)
@settings(max_examples=40)
def test_each_label_finds_what_was_known_by_its_time(rows: list[Told], asked: list[Label]) -> None:
    assert values(rows, asked) == [expected(rows, label) for label in asked]


@given(ROWS, LABELS)
@settings(max_examples=10)
def test_so_it_is_where_all_is_known_at_once(rows: list[Told], asked: list[Label]) -> None:
    first = {(row.item, row.occurred): row for row in reversed(rows)}
    at_once = [row._replace(known=row.occurred) for row in first.values()]
    assert values(at_once, asked) == [expected(at_once, label) for label in asked]


@given(ROWS, LABELS, st.data())
@settings(max_examples=15)
def test_what_is_learned_later_changes_nothing(
    rows: list[Told], asked: list[Label], data: st.DataObject
) -> None:
    last = max(label.at for label in asked)
    later = data.draw(HOURS.map(lambda time: last + (time - BEGIN) + DAY))
    planted = [Told(item, last - DAY, later, 99) for item in ("bread", "salt")]
    assert values([*rows, *planted], asked) == values(rows, asked)


@given(ROWS, LABELS, st.randoms())
@settings(max_examples=8)
def test_the_order_of_rows_and_of_labels_changes_nothing(
    rows: list[Told], asked: list[Label], chance: Random
) -> None:
    places = list(range(len(asked)))
    chance.shuffle(places)
    shuffled = list(rows)
    chance.shuffle(shuffled)
    there = values(shuffled, [asked[place] for place in places])
    assert there == [values(rows, asked)[place] for place in places]
