"""A decision's life as a fold over its ledger entries, its names, and the digests of its evidence."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storekeep import canonical, decisions
from storekeep.decisions import (
    SHADOW,
    Decided,
    Evidence,
    Status,
    decision_ids,
    first_status,
    fold,
    stamp,
    step,
)
from storekeep.errors import InvariantBroken

AT = datetime(2026, 3, 2, 22, 0, 0, 123456, tzinfo=UTC)
RESULTS = [
    *(
        "agreed",
        "changed",
        "approved",
        "rejected",
        "denied",
        "expired",
        "executed",
        "failed",
        "withdrawn",
    ),
    *("reverting", "compensated", "needs_person", "retried", "dropped"),
]


# Where a decision stands ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        (["hold"], "held"),
        (["deny"], "denied"),
        (["allow"], "pending"),
        (["clip"], "pending"),
        (["escalate"], "escalated"),
        (["allow", "executed"], "executed"),
        (["allow", "failed"], "failed"),
        (["allow", "failed", "retried"], "pending"),
        (["allow", "failed", "retried", "failed", "dropped"], "dropped"),
        (["allow", "failed", "expired"], "expired"),
        (["allow", "failed", "executed"], "executed"),
        (["clip", "withdrawn"], "reverted"),
        (["escalate", "approved"], "pending"),
        (["escalate", "rejected"], "rejected"),
        (["escalate", "denied"], "denied"),
        (["escalate", "expired"], "expired"),
        (["escalate", "withdrawn"], "reverted"),
        (["escalate", "approved", "executed", "reverting", "compensated"], "reverted"),
        (
            ["allow", "executed", "reverting", "needs_person", "reverting", "compensated"],
            "reverted",
        ),
        (["escalate", "agreed"], "escalated"),
        (["escalate", "agreed", "changed", "agreed", "approved"], "pending"),
    ],
)
def test_a_decision_stands_where_its_entries_bring_it(steps: list[str], status: str) -> None:
    assert fold(steps) == status
    assert fold(iter(steps)) == status


@pytest.mark.parametrize(
    "steps",
    [
        [],
        ["executed"],
        ["approved", "escalate"],
        ["allow", "allow"],
        ["allow", "approved"],
        ["deny", "executed"],
        ["deny", "approved"],
        ["hold", "executed"],
        ["escalate", "executed"],
        ["escalate", "rejected", "approved"],
        ["escalate", "expired", "executed"],
        ["allow", "executed", "executed"],
        ["allow", "executed", "compensated"],
        ["allow", "executed", "withdrawn"],
        ["allow", "executed", "reverting", "compensated", "reverting"],
        ["allow", "retried"],
        ["allow", "failed", "dropped", "retried"],
        ["allow", "failed", "withdrawn"],
        ["allow", "nonsense"],
    ],
)
def test_an_entry_that_cannot_follow_is_refused(steps: list[str]) -> None:
    with pytest.raises(InvariantBroken):
        fold(steps)


@given(st.sampled_from(list(Decided)), st.lists(st.sampled_from(RESULTS), max_size=8))
def test_a_fold_is_its_steps_one_after_another(verdict: str, results: list[str]) -> None:
    status: str = first_status(verdict)
    for place, result in enumerate(results, 1):
        try:
            status = step(status, result)
        except InvariantBroken:
            with pytest.raises(InvariantBroken):
                fold([verdict, *results[:place]])
            return
    assert fold([verdict, *results]) == status


def reached(status: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Every step that can follow a state, directly or later."""
    for result in RESULTS:
        try:
            following = step(status, result)
        except InvariantBroken:
            continue
        yield status, result
        if following not in seen:
            yield from reached(following, seen | {following})


def test_what_was_denied_or_held_is_never_carried_out() -> None:
    for verdict in (Decided.DENY, Decided.HOLD):
        assert list(reached(first_status(verdict))) == []


def test_what_was_escalated_is_carried_out_only_after_approval() -> None:
    direct = {result for status, result in reached("escalated") if status == "escalated"}
    assert "executed" not in direct
    assert {result for status, result in reached("pending")} >= {"executed", "reverting"}


def test_an_ended_decision_stays_ended() -> None:
    ended = (Status.DENIED, Status.HELD, Status.REJECTED, Status.EXPIRED, Status.DROPPED)
    for status in (*ended, Status.REVERTED):
        assert list(reached(status)) == []


def test_every_state_can_be_reached() -> None:
    begun = {str(first_status(verdict, mode)) for verdict in Decided for mode in ("live", SHADOW)}
    later = {str(step(status, result)) for each in begun for status, result in reached(each)}
    assert begun | later == {str(status) for status in Status}


# Names -----------------------------------------------------------------------------------------------


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    (one,) = decision_ids(AT, "main/DC1", ["bread@DC1"])
    value = UUID(one)
    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert value.int >> 80 == int(AT.timestamp() * 1000)


def test_the_same_trigger_gives_the_same_ids_and_any_other_gives_others() -> None:
    ids = decision_ids(AT, "main/DC1", ["bread", "salt"])
    assert decision_ids(AT, "main/DC1", ["salt", "bread"]) == ids[::-1]
    others = [
        *decision_ids(AT, "main/DC2", ["bread", "salt"]),
        *decision_ids(AT + timedelta(milliseconds=1), "main/DC1", ["bread", "salt"]),
        *decision_ids(AT, "main", ["DC1\nbread"]),
    ]
    assert len({*ids, *others}) == len(ids) + len(others)


@given(
    st.timedeltas(timedelta(0), timedelta(days=40_000)),
    st.timedeltas(timedelta(milliseconds=1), timedelta(days=40_000)),
)
def test_later_ids_sort_later(after: timedelta, apart: timedelta) -> None:
    first = AT + after
    assert decision_ids(first, "b", ["x"]) < decision_ids(first + apart, "a", ["x"])


def test_many_subjects_have_many_ids() -> None:
    subjects = [f"sku{number}@DC1" for number in range(20_000)]
    assert len(set(decision_ids(AT, "batch", subjects))) == len(subjects)


def test_a_stamp_is_the_instant_in_utc() -> None:
    east = AT.astimezone(timezone(timedelta(hours=9)))
    assert stamp(AT) == stamp(east) == "2026-03-02T22:00:00.123456Z"


# Evidence --------------------------------------------------------------------------------------------


def evidence(**change: Any) -> Evidence:
    values = pa.table({"subject": ["a@1", "b@1"], "units": [3, 4], "mean": [0.5, None]})
    usual = {"values": values, "known_by": AT, "versions": {"lake": "1"}, "position": 7}
    return Evidence(**{**usual, **change})


def test_a_digest_is_of_the_values_and_of_when_and_what_they_were_read_from() -> None:
    digests = evidence().digests().to_pylist()
    row = {"subject": "a@1", "units": 3, "mean": 0.5}
    seal = canonical.text({"known_by": stamp(AT), "versions": {"lake": "1"}})
    assert digests[0] == canonical.digest({**row, "__seal": seal})
    assert len(set(digests)) == 2
    assert evidence(position=8).digests().to_pylist() == digests
    changed = [
        evidence(known_by=AT + timedelta(microseconds=1)),
        evidence(versions={"lake": "2"}),
        evidence(values=pa.table({"subject": ["a@1", "b@1"], "units": [3, 4], "mean": [0.5, 0.0]})),
    ]
    for each in changed:
        assert each.digests().to_pylist()[1] != digests[1]


def test_evidence_is_taken_in_the_order_asked_for() -> None:
    taken = evidence().take(pa.array(["b@1", "a@1", "b@1"]))
    assert taken.values["units"].to_pylist() == [4, 3, 4]
    whole = evidence().digests().to_pylist()
    assert taken.digests().to_pylist() == [whole[1], whole[0], whole[1]]
    with pytest.raises(InvariantBroken, match="no evidence"):
        evidence().take(pa.array(["c@1"]))


def test_no_evidence_has_no_digests() -> None:
    empty = evidence(values=evidence().values.slice(0, 0))
    assert empty.digests().to_pylist() == []
    assert empty.digests().type == pa.string()


def test_the_words_of_verdicts_and_states_are_what_the_ledger_holds() -> None:
    assert [str(verdict) for verdict in Decided] == ["allow", "clip", "escalate", "deny", "hold"]
    assert all(status.value == status.name.lower() for status in Status)
    assert decisions.VERDICTS.names == ["subject", "verdict", "role", "persons", "rules"]
