"""Who is who: the same whatever order facts come in, as of any time, and restored when a merge is undone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep.ingest.identity import (
    LINKS,
    MOST_OF_ONE_SOURCE,
    MOST_TOGETHER,
    TOLD,
    Identities,
    identities,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FEW = 25

customers = st.sampled_from([f"{source}:{number}" for source in "abc" for number in range(3)])
times = st.integers(0, 9).map(lambda days: NOW + timedelta(days=days))


def told(*rows: dict[str, Any]) -> pa.Table:
    """What was told of customers, where a row says no more than it must."""
    empty = dict.fromkeys(("email_key", "phone_key", "card_key"))
    full = [
        {"told_in": "customer", "occurred_at": NOW, "known_at": NOW, **empty, **row} for row in rows
    ]
    return pa.Table.from_pylist(full, TOLD)


def links(*rows: dict[str, Any]) -> pa.Table:
    full = [
        {"merges": True, "undoes": None, "occurred_at": NOW, "known_at": NOW, **row} for row in rows
    ]
    return pa.Table.from_pylist(full, LINKS)


def people(found: Identities) -> set[frozenset[str]]:
    """The persons, each as its pseudonyms."""
    by_person: dict[str, set[str]] = {}
    for row in found.persons.to_pylist():
        by_person.setdefault(row["person_id"], set()).add(row["customer_id"])
    assert all(person == min(all_of) for person, all_of in by_person.items())
    return {frozenset(all_of) for all_of in by_person.values()}


told_rows = st.lists(
    st.fixed_dictionaries(
        {
            "customer_id": customers,
            "told_in": st.sampled_from(["customer", "ticket"]),
            "email_key": st.none() | st.sampled_from(["match.email:1", "match.email:2"]),
            "phone_key": st.none() | st.sampled_from(["match.phone:1", "match.phone:2"]),
            "card_key": st.none() | customers,
            "occurred_at": times,
            "known_at": times,
        }
    ),
    max_size=12,
)
link_rows = st.lists(
    st.fixed_dictionaries(
        {
            "merges": st.booleans(),
            "customer_id": customers,
            "other_id": customers,
            "occurred_at": times,
            "known_at": times,
        }
    ).filter(lambda row: row["customer_id"] != row["other_id"]),
    max_size=8,
)


@st.composite
def facts(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    made = [{**row, "link_id": str(number)} for number, row in enumerate(draw(link_rows))]
    for number, row in enumerate(made):
        if number and draw(st.booleans()):
            row["undoes"] = str(draw(st.integers(0, number - 1)))
            row["merges"] = False
    return draw(told_rows), made


@settings(max_examples=FEW)
@given(facts(), st.randoms())
def test_any_order_of_facts_gives_the_same_persons(
    known: tuple[list[dict[str, Any]], list[dict[str, Any]]], random: Any
) -> None:
    said, linked = known
    found = identities(told(*said), links(*linked))
    for rows in (said, linked):
        random.shuffle(rows)
    again = identities(told(*said, *said), links(*linked))
    assert again.persons.equals(found.persons)
    assert again.flags.equals(found.flags)


@settings(max_examples=FEW)
@given(facts(), customers, customers)
def test_merge_then_undo_restores(
    known: tuple[list[dict[str, Any]], list[dict[str, Any]]], one: str, other: str
) -> None:
    said, linked = known
    # Both are known before, so that nobody appears by being merged.
    said += [{"customer_id": one}, {"customer_id": other}]
    before = identities(told(*said), links(*linked))
    if one == other:
        return
    late = {"customer_id": one, "other_id": other, "occurred_at": NOW + timedelta(days=90)}
    merge = {**late, "link_id": "m"}
    merged = people(identities(told(*said), links(*linked, merge)))
    assert any({one, other} <= person for person in merged)
    undo = {**late, "link_id": "u", "merges": False, "undoes": "m"}
    after = identities(told(*said), links(*linked, merge, undo))
    assert after.persons.equals(before.persons)
    assert after.flags.equals(before.flags)


def merged(one: str, other: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"link_id": str(number), "customer_id": one, "other_id": other, **more}


def test_an_address_a_number_and_a_card_join() -> None:
    found = identities(
        told(
            {"customer_id": "crm:1", "email_key": "match.email:x", "card_key": "till:7"},
            {"customer_id": "web:9", "email_key": "match.email:x", "phone_key": "match.phone:y"},
            {"customer_id": "desk:3", "phone_key": "match.phone:y", "told_in": "ticket"},
            {"customer_id": "crm:2", "email_key": "match.email:z"},
        ),
        links(),
    )
    assert people(found) == {
        frozenset({"crm:1", "web:9", "desk:3", "till:7"}),
        frozenset({"crm:2"}),
    }
    assert found.flags.num_rows == 0


def test_a_key_that_was_corrected_joins_no_more_and_a_ticket_takes_none_away() -> None:
    wrong = {"customer_id": "crm:1", "email_key": "match.email:y"}
    right = {"customer_id": "crm:1", "email_key": "match.email:x"}
    right["occurred_at"] = NOW + timedelta(days=1)  # type: ignore[assignment]  # a time among texts
    other = {"customer_id": "web:9", "email_key": "match.email:y"}
    assert len(people(identities(told(wrong, other), links()))) == 1
    assert len(people(identities(told(wrong, other, right), links()))) == 2
    silent = {"customer_id": "crm:1", "told_in": "ticket", "occurred_at": NOW + timedelta(days=2)}
    assert len(people(identities(told(wrong, other, silent), links()))) == 1


def test_a_key_that_many_share_joins_nobody_and_is_told() -> None:
    rows = [{"customer_id": f"crm:{n:02}", "email_key": "match.email:office"} for n in range(50)]
    found = identities(told(*rows), links())
    assert len(people(found)) == 50
    assert found.flags.to_pylist() == [
        {"flag": "shared", "key": "match.email:office", "customers": 50}
    ]
    few = identities(told(*rows[:MOST_OF_ONE_SOURCE]), links())
    assert len(people(few)) == 1
    assert few.flags.num_rows == 0


def test_keys_that_chain_too_many_join_none_of_them_but_a_merge_holds() -> None:
    chain = [
        {
            "customer_id": f"crm:{n:02}",
            "email_key": f"match.email:{n // 2}",
            "phone_key": f"match.phone:{(n + 1) // 2}",
        }
        for n in range(MOST_TOGETHER + 1)
    ]
    found = identities(told(*chain), links(merged("crm:00", "crm:09")))
    assert [row["flag"] for row in found.flags.to_pylist()] == ["large"]
    assert frozenset({"crm:00", "crm:09"}) in people(found)
    assert len(people(found)) == MOST_TOGETHER
    assert len(people(identities(told(*chain[1:]), links()))) == 1


def test_whoever_is_split_loses_the_keys_that_both_have() -> None:
    rows = [{"customer_id": f"{s}:1", "email_key": "match.email:x"} for s in "abc"]
    cut = merged("a:1", "b:1", merges=False)
    assert people(identities(told(*rows), links(cut))) == {
        frozenset({"a:1"}),
        frozenset({"b:1", "c:1"}),
    }
    # What is merged later holds again, and by another way round it is told.
    late = merged("a:1", "b:1", 2, occurred_at=NOW + timedelta(days=1))
    assert len(people(identities(told(*rows), links(cut, late)))) == 1
    round_ = identities(told(*rows), links(cut, merged("a:1", "c:1", 2)))
    assert len(people(round_)) == 1
    assert round_.flags.to_pylist() == [{"flag": "contradicted", "key": "a:1", "customers": 2}]


def test_a_card_is_split_from_its_till() -> None:
    rows = [{"customer_id": "crm:1", "card_key": "till:7"}]
    for one, other in (("crm:1", "till:7"), ("till:7", "crm:1")):
        assert len(people(identities(told(*rows), links(merged(one, other, merges=False))))) == 2
