"""Rulebooks: what is refused and where, what the effects come to, and what is said about it."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storekeep import features, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.decisions import VERDICTS, Reversibility
from storekeep.errors import InvariantBroken, Misused, Refused
from storekeep.policy.rulebook import FIGURES, MODELS
from storekeep.sql import FUNCTIONS
from tests.rulebooks import (
    EVIDENCE,
    PERMIT,
    book,
    evidence,
    judged,
    limit,
    loaded,
    proposed,
    reasons,
    rule,
    spoke,
    used,
    verdicts,
)

DOCS = Path(__file__).parents[2] / "docs" / "rulebooks.md"
GOOD = """\
rulebook: replenish
owner: buying
agent: replenish
action: PlacePurchaseOrder
safe_default: Order nothing.
permit:
  - id: ordinary
    when: order_units > 0
    reason: Ordinary.
"""


def load(text: str | Path, **more: Any) -> policy.Rulebook:
    return policy.load(text, action=PLACE_PURCHASE_ORDER, evidence=EVIDENCE, **more)


def refusal(text: str) -> str:
    with pytest.raises(Refused) as refused:
        load(text, name="r.yaml")
    return str(refused.value)


ASKS = "escalate: [{id: a, when: true, role: b, reason: x, change: "
SHARES = "limits: [{id: a, sum: 1, by: [], at_most: 1, per: day, then: forbid, "


# What is refused, and where --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("", "1:1", "the file is empty"),
        ("- a\n- b\n", "1:1", "a rulebook is keys with values"),
        (GOOD + "owner: me\n", "10:1", "key 'owner' stands here twice, first in line 2"),
        (GOOD + "forbid: [\n", "11:1", "this is not YAML"),
        (GOOD + "  x: 1\n", "10:3", "this is not YAML"),
        (GOOD + "description: &a text\n", "10:14", "an anchor is not allowed"),
        (GOOD + "description: *a\n", "10:14", "an alias is not allowed"),
        (GOOD + "description: !!python/name:os.system x\n", "10:14", "a tag is not allowed"),
        ("%YAML 1.1\n---\n" + GOOD, "1:1", "a directive is not allowed"),
        (GOOD + "---\na: 1\n", "10:1", "not YAML"),
        (GOOD + "description: a\x07b\n", "10:15", "not allowed"),
        (GOOD + "? [a]\n: 1\n", "10:3", "a key must be a word"),
        (GOOD + "forbid: [[[[[[[[[[x]]]]]]]]]]\n", "10:17", "nested deeper"),
        (GOOD + "descripton: x\n", "10:1", "unknown key 'descripton'; did you mean 'description'?"),
        (GOOD + "    wen: x\n", "10:5", "unknown key 'wen'; did you mean 'when'?"),
        (GOOD.replace("    reason: Ordinary.\n", ""), "7:5", "key 'reason' is missing"),
        (GOOD.replace("owner: buying\n", ""), "1:1", "key 'owner' is missing"),
        (GOOD.replace("owner: buying", "owner: 3"), "2:8", "owner: Input should be a valid string"),
        (GOOD.replace("rulebook: replenish", "rulebook: Re plenish"), "1:11", "a name in small letters"),
        (GOOD.replace("PlacePurchaseOrder", "place"), "4:9", "the action's name"),
        (GOOD.replace("PlacePurchaseOrder", "SendOffer"), "4:9", "for SendOffer"),
        (GOOD.split("permit:", maxsplit=1)[0], "1:1", "there is no permit rule"),
        (GOOD.split("permit:", maxsplit=1)[0] + "permit: []\n", "6:1", "there is no permit rule"),
        (GOOD + "forbid: [{id: ordinary, when: true, reason: x}]\n", "10:15", "first in line 7"),
        (GOOD + "forbid: [{id: default, when: true, reason: x}]\n", "10:15", "reserved"),
        (GOOD + "forbid: [{id: a, when: 3, reason: x}]\n", "10:24", "a condition is wanted"),
        (GOOD + "clip: [{id: a, when: true, reason: x, set: {}}]\n", "10:44", "set: "),
        (GOOD + "escalate: [{id: a, when: true, reason: x}]\n", "10:12", "key 'role' is missing"),
        (GOOD + "sla: {approve_within: 4 parsecs}\n", "10:23", "like 4h, 30m, 2d"),
        (GOOD + "sla: {approve_within: PT0S}\n", "10:23", "longer than nothing"),
        (GOOD + "breaker: {failures: 0}\n", "10:21", "failures: Input should be greater than"),
        (GOOD + "breaker: {probes: 1.5}\n", "10:19", "probes: Input should be a valid integer"),
        (GOOD + "breaker: {within: soon}\n", "10:19", "like 4h, 30m, 2d"),
        (GOOD + "breaker: {failure: 3}\n", "10:11", "'failure'; did you mean 'failures'?"),
        (GOOD + "rollback: [{id: a, when: days = 'x', reason: y}]\n", "10:33", "cannot be compared"),
        (GOOD + "rollback: [{id: a, when: day > 1, reason: y}]\n", "10:26", "did you mean 'days'?"),
        (GOOD + "rollback: [{id: a, when: days > 1, decisions: 0, reason: y}]\n", "10:47", "than or"),
        (GOOD + "roles: [buyer, buyer]\n", "10:8", "listed twice"),
        (GOOD + ASKS + "{}, persons: 4}]\n", "10:73", "less than or equal to 3"),
        (GOOD + ASKS + "{}, persons: two}]\n", "10:73", "valid integer"),
        (GOOD + ASKS + "{sku: {at_most: 3}}}]\n", "10:61", "'sku' cannot be changed by a person"),
        (GOOD + ASKS + "{order_units: {}}}]\n", "10:61", "say how far 'order_units' may go"),
        (GOOD + ASKS + "{order_units: {at_mst: 3}}}]\n", "10:75", "did you mean 'at_most'?"),
        (GOOD + ASKS + "{order_units: {at_most: order_unts}}}]\n", "10:84", "did you mean 'order_units'?"),
        (GOOD + ASKS + "{order_units: {at_most: sku}}}]\n", "10:84", "where a number is wanted"),
        (GOOD + SHARES + "persons: 2, reason: x}]\n", "10:70", "has no use for `persons`"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_rulebook_is_refused_where_it_fails(
    text: str, where: str, word: str
) -> None:
    said = refusal(text)
    assert said.startswith(f"r.yaml:{where}: ")
    assert word in said


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("when: order_units > 1 AND on_had_units > 2", "12:31"),
        ("when: 'order_units > 1 AND on_had_units > 2'", "12:32"),
        ('when: "order_units > 1 AND on_had_units > 2"', "12:32"),
        ("when: >\n      order_units > 1\n      AND on_had_units > 2", "14:11"),
        ("when: |-\n        order_units > 1\n\n          AND on_had_units > 2", "15:15"),
        ("when: order_units > 1\n      AND on_had_units > 2", "13:11"),
        ("when: 'order_units > 1\n      AND supplier_id <> ''x'' AND on_had_units > 2'", "13:36"),
    ],
)
def test_a_word_of_a_condition_is_found_however_it_is_written(written: str, where: str) -> None:
    said = refusal(f"{GOOD}forbid:\n  - id: short\n    {written}\n    reason: x\n")
    assert said == f"r.yaml:{where}: unknown column 'on_had_units'; did you mean 'on_hand_units'?"


@pytest.mark.parametrize(
    ("rules", "where", "word"),
    [
        ("forbid: [{id: a, when: (SELECT true), reason: x}]", "10:25", "a subquery is not allowed"),
        ("forbid: [{id: a, when: random() > 0.5, reason: x}]", "10:24", "'random' is not on the list"),
        ("forbid: [{id: a, when: order_units, reason: x}]", "10:24", "where a boolean is wanted"),
        ("forbid: [{id: a, when: sku > 3, reason: x}]", "10:30", "cannot be compared"),
        ("forbid: [{id: a, when: true, reason: 'of {skuu} now'}]", "10:42", "did you mean 'sku'?"),
        ("forbid: [{id: a, when: true, reason: 'of {sku!r}'}]", "10:42", "a placeholder is"),
        ("forbid: [{id: a, when: true, reason: 'of {sku:money}'}]", "10:42", "no amount of money"),
        ("forbid: [{id: a, when: true, reason: 'of {sku'}]", "10:38", "cannot be read"),
        ("clip: [{id: a, when: true, reason: x, set: {pack_size_units: 1}}]", "10:45", "can: order_units"),
        ("clip: [{id: a, when: true, reason: x, set: {order_units: sku}}]", "10:58", "where a number"),
        ("limits: [{id: a, sum: demand, by: [], at_most: 1, per: day, then: forbid, reason: x}]",
         "10:23", "round it: cast(ceil"),
        ("limits: [{id: a, sum: 1, by: [skuu], at_most: 1, per: day, then: forbid, reason: x}]",
         "10:31", "did you mean 'sku'?"),
        ("limits: [{id: a, sum: 1, by: [demand], at_most: 1, per: day, then: forbid, reason: x}]",
         "10:31", "cannot be shared by 'demand'"),
        ("limits: [{id: a, sum: 1, by: [order_value_minor], at_most: 1, per: day, then: forbid, reason: x}]",
         "10:31", "it changes"),
        ("limits: [{id: a, sum: 1, by: [], at_most: sku, per: day, then: forbid, reason: x}]",
         "10:43", "where a number is wanted"),
        ("limits: [{id: a, sum: [1], by: [], at_most: 1, per: day, then: forbid, reason: x}]",
         "10:23", "a number or an SQL expression"),
        ("limits: [{id: a, sum: 1, by: [], at_most: 1, per: year, then: forbid, reason: x}]",
         "10:51", "per: "),
        ("limits: [{id: a, sum: 1, by: [], at_most: 1, per: day, then: escalate, reason: x}]",
         "10:10", "needs a `role`"),
        ("limits: [{id: a, sum: 1, by: [], at_most: 1, per: day, then: forbid, role: b, reason: x}]",
         "10:10", "has no use for `role`"),
        ("escalate: [{id: a, when: true, role: b, reason: x}, {id: c, when: true, role: d, reason: x}]",
         "1:1", "list them in `roles`"),
        ("roles: [b]\nescalate: [{id: c, when: true, role: d, reason: x}]", "11:38", "is not in `roles`"),
    ],
)  # fmt: skip
def test_a_rule_that_could_not_decide_is_refused_where_it_stands(
    rules: str, where: str, word: str
) -> None:
    said = refusal(f"{GOOD}{rules}\n")
    assert said.startswith(f"r.yaml:{where}: ")
    assert word in said


def test_the_number_of_rules_and_the_size_of_the_file_have_bounds() -> None:
    many = "".join(f"  - {{id: r{place}, when: true, reason: x}}\n" for place in range(600))
    assert "at most 512" in refusal(f"{GOOD}forbid:\n{many}")
    assert "larger than 1024 KiB" in refusal(GOOD + "#" * (1 << 20))
    assert "beyond 2^53" in refusal(GOOD + "forbid: 99999999999999999999\n")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misused, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("owner: Müller".encode("latin-1"))
    with pytest.raises(Refused, match=r"latin\.yaml: is not UTF-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "good.yaml").write_text(GOOD)
    assert load(tmp_path / "good.yaml").id == "replenish"


def test_an_irreversible_action_needs_a_role_that_may_approve() -> None:
    final = replace(PLACE_PURCHASE_ORDER, reversibility=Reversibility.IRREVERSIBLE)
    with pytest.raises(Refused, match="cannot be taken back"):
        policy.load(GOOD, action=final, evidence=EVIDENCE)


def test_a_derived_parameter_that_cannot_be_computed_is_our_own_fault() -> None:
    broken = replace(PLACE_PURCHASE_ORDER, derived={"order_value_minor": "nothing * 2"})
    with pytest.raises(InvariantBroken, match="unknown column 'nothing'"):
        policy.load(GOOD, action=broken, evidence=EVIDENCE)


# The version ------------------------------------------------------------------------------------------


def test_the_version_is_of_what_the_rulebook_says_and_not_of_how_it_is_written() -> None:
    version = load(GOOD).version
    lines = GOOD.splitlines()
    head, permit = lines[:5], lines[5:]
    other = "# said otherwise\n" + "\n".join([*permit, *reversed(head)]).replace(
        "Ordinary.", "'Ordinary.'"
    )
    assert load(other).version == version
    assert load(GOOD.replace("> 0", "> 1")).version != version
    assert len(version) == 64
    assert load(GOOD).short_version == version[:12]


def test_durations_are_read_short_and_as_iso_8601() -> None:
    sla = load(GOOD + "sla: {decide_within: 90s, approve_within: P1DT12H}\n").content.sla
    assert sla.decide_within == timedelta(seconds=90)
    assert sla.approve_within == timedelta(hours=36)
    assert load(GOOD + "sla: {approve_within: 2w}\n").content.sla.approve_within == timedelta(
        days=14
    )
    assert load(GOOD).content.sla.approve_within == timedelta(days=1)


def test_what_came_too_late_says_how_late_and_what_happens_instead() -> None:
    for text, instead in (
        ("", "Nothing is ordered."),
        (", on_timeout: Look again.", "Look again."),
    ):
        head = {"safe_default": "Nothing is ordered."}
        sla = {"decide_within": "1h"} | ({"on_timeout": "Look again."} if text else {})
        judgement = judged(
            book(**head, sla=sla), [{}], waited=timedelta(hours=3, minutes=12, microseconds=1)
        )
        assert reasons(judgement)[0][-1] == (
            f"Decided 3:12:01 after the first event it answers, and 1:00:00 is allowed. {instead}"
        )
    assert verdicts(judged(book(), [{}], waited=timedelta(days=99))) == ["allow"]


def test_a_breaker_has_thresholds_also_where_none_are_written() -> None:
    told = load(GOOD).content.breaker
    assert (told.failures, told.probes) == (5, 1)
    assert (told.within, told.open_for) == (timedelta(minutes=1), timedelta(seconds=30))
    own = load(GOOD + "breaker: {failures: 2, open_for: 1h}\n").content.breaker
    assert (own.failures, own.probes, own.open_for) == (2, 1, timedelta(hours=1))


# The effects ------------------------------------------------------------------------------------------


def test_the_effects_have_their_order_whatever_the_order_of_the_rules() -> None:
    values = book(
        permit=[rule("few", "order_units < 50")],
        forbid=[rule("huge", "order_units > 100")],
        escalate=[rule("large", "order_units > 20", role="buyer")],
        clip=[rule("odd", "order_units > 9", set={"order_units": 9})],
    )
    judgement = judged(values, [{"order_units": many} for many in (5, 10, 30, 60, 200, 50)])
    assert verdicts(judgement) == ["allow", "clip", "escalate", "escalate", "deny", "escalate"]
    assert judgement.verdicts["role"].to_pylist() == [None, None, "buyer", "buyer", None, "buyer"]
    assert judgement.proposals["order_units"].to_pylist() == [5, 9, 9, 9, 200, 9]
    assert judgement.proposals["order_value_minor"].to_pylist() == [500, 900, 900, 900, 20000, 900]
    assert spoke(judgement)[2] == {"large": "escalate", "odd": "clip", "few": "permit"}


def test_what_nothing_permits_is_denied_and_says_so() -> None:
    judgement = judged(book(permit=[rule("few", "order_units < 5")]), [{}])
    assert verdicts(judgement) == ["deny"]
    assert spoke(judgement) == [{"default": "forbid"}]
    assert reasons(judgement) == [["No rule permits it."]]


def test_what_cannot_be_told_fails_closed() -> None:
    values = book(
        permit=[rule("known", "on_hand_units >= 0")],
        forbid=[rule("stale", "evidence_age_hours > 48")],
        escalate=[rule("unlike", "order_units > usual_order_units", role="buyer")],
        clip=[rule("cover", "demand < 9", set={"order_units": "10 * demand"})],
    )
    facts: list[dict[str, Any]] = [
        {},
        {"on_hand_units": None},
        {"evidence_age_hours": None},
        {"evidence_age_hours": math.nan},
        {"usual_order_units": None},
        {"demand": None},
        {"demand": math.inf},
    ]
    judgement = judged(values, [{}] * len(facts), facts)
    assert verdicts(judgement) == ["allow", "deny", "deny", "deny", "escalate", "deny", "deny"]
    assert spoke(judgement)[5] == {"cover": "forbid", "known": "permit"}
    assert reasons(judgement)[2][0] == "It could not be told, so it is forbidden: stale applies."
    assert reasons(judgement)[4][0].startswith("It could not be told, so a person is asked: ")


def test_the_same_figures_are_told_otherwise_where_a_rule_could_not_be_told() -> None:
    """Rows share their words only where they share their state too."""
    full = {**rule("full", "on_hand_units > 3"), "reason": "{order_units} are too many."}
    judgement = judged(
        book(forbid=[full]), [{}] * 3, [{"on_hand_units": held} for held in (9, None, 9)]
    )
    assert [told[0] for told in reasons(judgement)] == [
        "10 are too many.",
        "It could not be told, so it is forbidden: 10 are too many.",
        "10 are too many.",
    ]


def test_a_rule_that_errs_cannot_be_told_and_harms_no_other_row() -> None:
    forbid = [rule("odd", "order_value_minor * 9000000000000000000 > 5")]
    judgement = judged(book(forbid=forbid), [{}, {"order_units": 0}, {}])
    assert verdicts(judgement) == ["deny", "deny", "deny"]
    assert reasons(judgement)[0][0].startswith("It could not be told")
    assert spoke(judgement)[1] == {"default": "forbid"}


def test_missing_evidence_is_not_known() -> None:
    values = book(permit=[rule("known", "on_hand_units >= 0")])
    rulebook, orders = loaded(values), proposed([{}, {"subject": "nobody"}])
    assert verdicts(policy.judge(rulebook, orders, evidence([{}]))) == ["allow", "deny"]
    bare = evidence([{}])
    bare = replace(bare, values=bare.values.drop_columns(["on_hand_units"]))
    assert verdicts(policy.judge(rulebook, orders, bare)) == ["deny", "deny"]


def test_evidence_is_matched_by_subject_and_not_by_place() -> None:
    values = book(forbid=[rule("full", "on_hand_units > 100")])
    orders = proposed([{"subject": name} for name in ("c", "a", "b")])
    facts = evidence([{"subject": "a", "on_hand_units": 500}, {"subject": "b"}, {"subject": "c"}])
    assert verdicts(policy.judge(loaded(values), orders, facts)) == ["allow", "deny", "allow"]


def test_a_parameter_hides_evidence_of_its_name_which_keeps_its_full_name() -> None:
    values = book(forbid=[rule("price", "unit_cost_minor <> evidence.unit_cost_minor")])
    judgement = judged(values, [{}, {"unit_cost_minor": 99}])
    assert verdicts(judgement) == ["allow", "deny"]


def test_the_value_of_a_group_is_that_of_all_its_lines_as_proposed() -> None:
    values = book(
        escalate=[rule("large", "group_value_minor > 2500", role="buyer")],
        clip=[rule("few", True, set={"order_units": 1})],
    )
    orders: list[dict[str, Any]] = [
        {"order_group": "a"},
        {"order_group": "a"},
        {"order_group": "b"},
        {"order_group": "a"},
    ]
    assert verdicts(judged(values, orders)) == ["escalate", "escalate", "clip", "escalate"]
    orders[0]["order_value_minor"] = None
    assert verdicts(judged(values, orders)) == ["escalate", "escalate", "clip", "escalate"]
    orders[2]["order_group"] = None
    assert "It could not be told" in reasons(judged(values, orders))[2][0]


def test_a_clip_only_lowers_rounds_down_and_denies_when_nothing_is_left() -> None:
    values = book(clip=[rule("cover", True, set={"order_units": "on_hand_units / 2"})])
    facts = [{"on_hand_units": many} for many in (100, 20, 15, 1, -5)]
    judgement = judged(values, [{}] * len(facts), facts)
    assert verdicts(judgement) == ["allow", "allow", "clip", "deny", "deny"]
    assert judgement.proposals["order_units"].to_pylist() == [10, 10, 7, 10, 10]
    assert spoke(judgement)[1] == {"ordinary": "permit"}
    assert reasons(judgement)[3][0] == "Nothing would be left of it: cover applies."


def test_the_lowest_of_several_clips_counts_and_all_are_named() -> None:
    clips = [rule("a", True, set={"order_units": 7}), rule("b", True, set={"order_units": 4})]
    judgement = judged(book(clip=clips), [{}])
    assert judgement.proposals["order_units"].to_pylist() == [4]
    assert spoke(judgement) == [{"a": "clip", "b": "clip", "ordinary": "permit"}]


def test_proposals_keep_their_schema_and_what_was_not_clipped() -> None:
    orders = proposed([{}, {"order_units": 3}])
    values = book(clip=[rule("few", True, set={"order_units": 5})])
    judgement = policy.judge(loaded(values), orders, evidence([{}, {}]))
    assert judgement.proposals.schema.equals(orders.proposals.schema, check_metadata=True)
    assert judgement.verdicts.schema.equals(VERDICTS)
    unclipped = policy.judge(loaded(book()), orders, evidence([{}, {}]))
    assert unclipped.proposals is orders.proposals


def test_the_most_persons_that_one_of_the_rules_wants_are_asked() -> None:
    values = book(
        roles=["buyer", "head"],
        escalate=[
            rule("one", "order_units > 1", role="head"),
            rule("two", "order_units > 5", role="buyer", persons=2),
        ],
    )
    judgement = judged(values, [{"order_units": units} for units in (1, 2, 6)])
    asked = judgement.verdicts.select(["role", "persons"]).to_pylist()
    assert [(row["role"], row["persons"]) for row in asked] == [
        (None, None),
        ("head", 1),
        ("head", 2),
    ]


def test_what_an_approver_may_change_is_told_for_each_row() -> None:
    allowed = {"order_units": {"at_least": "pack_size_units", "at_most": "usual_order_units"}}
    rules = [
        rule("one", "order_units > 1", role="buyer", change=allowed),
        rule("two", "order_units > 1", role="buyer", change={"order_units": {"at_most": 9}}),
        rule("three", "order_units > 1", role="buyer"),
    ]
    values, orders = book(escalate=rules), [{"order_units": 5}, {"order_units": 6}]
    facts = evidence([{"usual_order_units": 20.0}, {"usual_order_units": None}])
    found = policy.bounds(loaded(values), proposed(orders), facts).to_pylist()
    assert [(row["subject"], row["rule"], row["at_least"], row["at_most"]) for row in found] == [
        ("s000", "one", 1.0, 20.0),
        ("s000", "two", -math.inf, 9.0),
        ("s001", "one", 1.0, None),
        ("s001", "two", -math.inf, 9.0),
    ]
    assert policy.bounds(loaded(book()), proposed(orders), facts).num_rows == 0
    changed = policy.changed(loaded(values), proposed(orders), facts, {"order_units": 8})
    assert changed.proposals["order_units"].to_pylist() == [8, 8]
    assert changed.proposals["order_value_minor"].to_pylist() == [800, 800]


def test_an_approval_satisfies_what_asks_and_nothing_that_forbids() -> None:
    values = book(
        permit=[rule("few", "order_units < 5")],
        escalate=[rule("large", "order_units > 9", role="buyer")],
        forbid=[rule("huge", "order_units > 99")],
    )
    orders = [{"order_units": 10}, {"order_units": 100}, {"order_units": 7}, {"order_units": 10}]
    approved = frozenset({"s000", "s001", "s002"})
    judgement = judged(values, orders, approved=approved)
    assert verdicts(judgement) == ["allow", "deny", "deny", "escalate"]
    assert spoke(judgement)[0] == {"large": "escalate"}
    assert judgement.verdicts["role"].to_pylist() == [None, None, None, "buyer"]


def test_the_highest_role_is_asked() -> None:
    values = book(
        roles=["clerk", "head"],
        escalate=[rule("a", True, role="head"), rule("b", "order_units > 5", role="clerk")],
    )
    assert judged(values, [{}]).verdicts["role"].to_pylist() == ["head"]


def test_an_irreversible_action_always_asks_a_person() -> None:
    final = replace(PLACE_PURCHASE_ORDER, reversibility=Reversibility.IRREVERSIBLE)
    values = book(roles=["buyer", "head"], permit=[rule("few", "order_units < 50")])
    orders, facts = proposed([{}, {"order_units": 60}], final), evidence([{}, {}])
    judgement = policy.judge(loaded(values, final), orders, facts)
    assert verdicts(judgement) == ["escalate", "deny"]
    assert judgement.verdicts["role"].to_pylist() == ["head", None]
    assert spoke(judgement)[0] == {"few": "permit", "irreversible": "escalate"}
    approved = policy.judge(loaded(values, final), orders, facts, approved=frozenset({"s000"}))
    assert verdicts(approved) == ["allow", "deny"]


# Limits -----------------------------------------------------------------------------------------------


def test_a_limit_serves_by_priority_then_subject_and_sees_clipped_money() -> None:
    values = book(limits=[limit()], clip=[rule("few", "order_units > 15", set={"order_units": 15})])
    orders: list[dict[str, Any]] = [
        {"priority": 1.0},
        {"priority": 3.0, "order_units": 90},
        {"priority": 1.0, "subject": "a"},
        {"priority": 2.0, "supplier_id": "S2"},
    ]
    judgement = judged(values, orders, [{}, {}, {"subject": "a"}, {}])
    assert verdicts(judgement) == ["deny", "clip", "allow", "allow"]
    assert spoke(judgement)[0] == {"ordinary": "permit", "budget": "forbid"}


def test_nobody_is_served_behind_one_that_does_not_fit_but_what_never_fits_steps_aside() -> None:
    orders = [
        {"order_units": many, "priority": 9.0 - place} for place, many in enumerate((26, 20, 10, 1))
    ]
    assert verdicts(judged(book(limits=[limit()]), orders)) == ["deny", "allow", "deny", "deny"]


def test_each_key_has_its_own_queue() -> None:
    orders = [
        {"supplier_id": name, "priority": 9.0 - place, "order_units": 10}
        for name in ("S2", "S1", "S3")
        for place in range(4)
    ]
    found = verdicts(judged(book(limits=[limit()]), orders))
    assert found == ["allow", "allow", "deny", "deny"] * 3


def test_an_amount_that_is_beyond_all_numbers_is_not_known() -> None:
    values = book(limits=[limit(at_most=" * ".join(["demand"] + ["1e15"] * 22))])
    assert verdicts(judged(values, [{}])) == ["deny"]


def test_what_recent_decisions_used_counts_under_its_key() -> None:
    values = book(limits=[limit(per="week")])
    orders = [{"supplier_id": "S1"}, {"supplier_id": "S2"}]
    recent = used(
        ("budget", "supplier_id=S1", 1000),
        ("budget", "supplier_id=S1", 600),
        ("other", "supplier_id=S2", 9999),
    )
    assert verdicts(judged(values, orders, used=recent)) == ["deny", "allow"]
    assert verdicts(judged(values, orders, used=recent.slice(0, 1))) == ["allow", "allow"]
    with pytest.raises(InvariantBroken, match="say what was `used`"):
        judged(values, orders)


def test_a_limit_of_the_batch_needs_and_heeds_no_history() -> None:
    recent = used(("budget", "supplier_id=S1", 9999))
    assert verdicts(judged(book(limits=[limit()]), [{}])) == ["allow"]
    assert verdicts(judged(book(limits=[limit()]), [{}], used=recent)) == ["allow"]


def test_only_rows_that_still_stand_use_a_limit() -> None:
    values = book(limits=[limit()], forbid=[rule("huge", "order_units > 15")])
    orders: list[dict[str, Any]] = [
        {"order_units": 20, "priority": 9.0},
        {"order_units": 15},
        {"order_units": 10},
    ]
    judgement = judged(values, orders)
    assert verdicts(judgement) == ["deny", "allow", "allow"]
    assert judgement.uses is not None
    assert judgement.uses["amount"].to_pylist() == [1500, 1000]


def test_an_escalating_limit_asks_and_what_is_approved_is_served_first() -> None:
    values = book(limits=[limit(then="escalate", role="buyer")])
    orders = [{"order_units": 20}, {"order_units": 10}, {"order_units": 90}]
    assert verdicts(judged(values, orders)) == ["allow", "escalate", "escalate"]
    judgement = judged(values, orders, approved=frozenset({"s001"}))
    assert verdicts(judgement) == ["escalate", "allow", "escalate"]
    assert judgement.verdicts["role"].to_pylist() == ["buyer", None, "buyer"]
    beyond = judged(values, orders, approved=frozenset({"s002"}))
    assert verdicts(beyond) == ["escalate", "escalate", "allow"]
    assert spoke(beyond)[2] == {"ordinary": "permit", "budget": "escalate"}


def test_a_limit_that_cannot_be_told_forbids() -> None:
    values = book(limits=[limit(at_most="100 * on_hand_units", then="escalate", role="buyer")])
    orders = [{}, {}, {"supplier_id": None}]
    judgement = judged(values, orders, [{"on_hand_units": 50}, {"on_hand_units": None}, {}])
    assert verdicts(judgement) == ["allow", "deny", "deny"]
    assert "could not be told" in reasons(judgement)[1][1]


def test_a_negative_amount_gives_nothing_back() -> None:
    values = book(limits=[limit(sum="order_value_minor - 5000", at_most=250)])
    orders: list[dict[str, Any]] = [{"priority": 9.0}, {"order_units": 52}, {"order_units": 52}]
    assert verdicts(judged(values, orders)) == ["allow", "allow", "deny"]


def test_counting_rows_and_keys_of_several_columns() -> None:
    daily = limit(sum=1, by=["supplier_id", "location_id"], at_most=1, per="day")
    values = book(limits=[daily, limit(id="all", sum=1, by=[], at_most=2)])
    orders: list[dict[str, Any]] = [{}, {}, {"supplier_id": "a&b"}, {"supplier_id": "c"}]
    judgement = judged(values, orders, used=policy.USED.empty_table())
    assert verdicts(judgement) == ["allow", "deny", "deny", "deny"]
    assert judgement.uses is not None
    assert set(judgement.uses["key"].to_pylist()) == {"", "location_id=DC1&supplier_id=S1"}
    wanted = policy.usage_keys(loaded(values), proposed(orders), evidence([{}] * 4))
    assert wanted.to_pylist() == [
        {"limit": "budget", "per": "day", "key": f"location_id=DC1&supplier_id={name}"}
        for name in ("S1", "a\\&b", "c")
    ]
    assert loaded(values).periods == {"all": "batch", "budget": "day"}


# What is said -----------------------------------------------------------------------------------------


def test_reasons_are_filled_with_the_row_s_own_figures() -> None:
    said = (
        "{sku}: {order_units} of {usual_order_units} at {demand}, {order_value_minor:money}, "
        "counted {counted}, breached {contract_breached} {{as is}}"
    )
    values = book(escalate=[{"id": "a", "when": True, "role": "buyer", "reason": said}])
    facts: list[dict[str, Any]] = [
        {"demand": 2.345, "contract_breached": True},
        {"usual_order_units": None, "contract_breached": None},
    ]
    orders: list[dict[str, Any]] = [{"unit_cost_minor": 123456}, {"currency": "JPY"}]
    assert [one[0] for one in reasons(judged(values, orders, facts))] == [
        "tea: 10 of 10 at 2.35, 12,345.60 USD, counted unknown, breached yes {as is}",
        "tea: 10 of unknown at 2, 1,000 JPY, counted unknown, breached unknown {as is}",
    ]


def test_money_is_written_in_the_digits_of_its_currency() -> None:
    values = book(permit=[{**PERMIT, "reason": "{order_value_minor:money}"}])
    orders = [{"currency": code, "unit_cost_minor": 12345} for code in ("USD", "JPY", "KWD")]
    assert reasons(judged(values, orders)) == [["1,234.50 USD"], ["123,450 JPY"], ["123.450 KWD"]]


def test_a_clip_can_say_what_it_left() -> None:
    said = "{order_units} become {clipped.order_units}."
    clip = {**rule("a", True, set={"order_units": 4}), "reason": said}
    assert reasons(judged(book(clip=[clip]), [{}]))[0][0] == "10 become 4."


def test_a_limit_says_what_it_comes_to() -> None:
    said = "{supplier_id}: {total:money} of {at_most:money}, {order_units} units."
    values = book(
        limits=[limit(per="day", reason=said)],
        clip=[rule("few", "order_units > 15", set={"order_units": 15})],
    )
    orders = [{"order_units": 20}, {"order_units": 30}]
    recent = used(("budget", "supplier_id=S1", 500))
    assert (
        reasons(judged(values, orders, used=recent))[1][2]
        == "S1: 35.00 USD of 25.00 USD, 15 units."
    )


def test_texts_of_rows_and_rules_are_never_sql() -> None:
    hostile = "'); DROP TABLE x; --{{"
    values = book(permit=[{**PERMIT, "reason": hostile + " {sku}"}])
    assert reasons(judged(values, [{"sku": hostile}])) == [["'); DROP TABLE x; --{ " + hostile]]


# Any number of rows, from any thread ------------------------------------------------------------------


def test_an_empty_batch_has_an_empty_judgement() -> None:
    values = book(limits=[limit(per="day")])
    judgement = judged(values, [], used=policy.USED.empty_table())
    assert judgement.verdicts.num_rows == 0
    assert judgement.verdicts.schema.equals(VERDICTS)
    assert policy.usage_keys(loaded(values), proposed([]), evidence([])).num_rows == 0


def test_batches_that_are_judged_at_once_do_not_see_one_another() -> None:
    values = book(
        limits=[limit(id="purse", per="day")],
        escalate=[rule("large", "group_value_minor > 1500", role="buyer")],
    )
    orders = [{"subject": f"s{place % 2:03}"} for place in range(6)]
    facts = [{"subject": order["subject"]} for order in orders]
    before = used(("purse", "supplier_id=S1", 1000), ("purse", "supplier_id=S1", 2000))
    batches = pa.array([0, 0, 1, 1, 2, 3], pa.int64())
    told = judged(
        values,
        orders,
        facts,
        used=before.append_column("batch", pa.array([1, 3], pa.int64())),
        apart=batches,
    )
    # Batch 0 is large, batch 1 has one left of its purse, batch 2 all of it and batch 3 nothing.
    assert verdicts(told) == ["escalate", "escalate", "escalate", "deny", "allow", "deny"]
    alone = judged(values, orders[:2], facts[:2], used=before.slice(0, 1))
    assert verdicts(alone) == ["escalate", "deny"]
    assert reasons(told)[3] == reasons(alone)[1]


def test_what_proposals_would_use_is_told_whatever_policy_says_of_them() -> None:
    book_ = loaded(
        book(limits=[limit(id="purse", at_most=1, per="week")], forbid=[rule("never", "true")])
    )
    orders: list[dict[str, Any]] = [
        {},
        {"supplier_id": "S2"},
        {"order_units": 0},
        {"supplier_id": None},
    ]
    told = policy.uses(book_, proposed(orders), evidence([{}] * 4)).to_pylist()
    assert [(use["subject"], use["key"], use["amount"]) for use in told] == [
        ("s000", "supplier_id=S1", 1000),
        ("s001", "supplier_id=S2", 1000),
    ]


def test_many_rows_keep_their_order_and_their_own_reasons() -> None:
    size = 300_000
    rules = [rule(f"f{place}", f"order_units % 97 = {place}") for place in range(40)]
    values = book(
        forbid=[{**rules[0], "reason": "{order_units} is refused."}, *rules[1:]],
        escalate=[rule("e", "order_units % 2 = 0", role="buyer")],
    )
    orders, facts = proposed([{}]), evidence([{}])
    table = orders.proposals.take(pa.array(np.zeros(size, np.int64)))
    units = np.arange(1, size + 1)
    table = table.set_column(
        table.schema.get_field_index("order_units"), "order_units", pa.array(units)
    )
    judgement = policy.judge(loaded(values), replace(orders, proposals=table), facts)
    forbidden = units % 97 < 40
    expected = np.where(forbidden, "deny", np.where(units % 2 == 0, "escalate", "allow"))
    assert judgement.verdicts["verdict"].to_pylist() == expected.tolist()
    lists = judgement.verdicts["rules"].take(pa.array(np.flatnonzero(units % 97 == 0))).to_pylist()
    said = [rules[0]["reason"] for rules in lists]
    assert said == [f"{many} is refused." for many in range(97, size + 1, 97)]


def test_one_rulebook_judges_for_many_threads() -> None:
    rulebook, facts = (
        loaded(book(clip=[rule("a", True, set={"order_units": 7})])),
        evidence([{}] * 50),
    )
    found: list[list[int]] = []

    def work(first: int) -> None:
        orders = proposed([{"order_units": first + place} for place in range(50)])
        judgements = [policy.judge(rulebook, orders, facts) for _ in range(10)]
        found.extend(one.proposals["order_units"].to_pylist() for one in judgements)

    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 1, 1, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[min(many, 7) for many in range(1, 51)]] * 40


def test_a_batch_for_another_agent_or_action_is_not_judged() -> None:
    orders = proposed([{}])
    with pytest.raises(InvariantBroken, match="judges replenish/PlacePurchaseOrder, not offers/"):
        policy.judge(loaded(book()), replace(orders, agent="offers"), evidence([{}]))


def test_a_column_that_does_not_hold_what_it_should_stops_the_batch() -> None:
    facts = evidence([{}])
    place = facts.values.schema.get_field_index("on_hand_units")
    wrong = facts.values.set_column(place, "on_hand_units", pa.array(["many"]))
    values = book(forbid=[rule("a", "on_hand_units > 3")])
    with pytest.raises(InvariantBroken, match="column on_hand_units"):
        policy.judge(loaded(values), proposed([{}]), replace(facts, values=wrong))


# What ships, and what is documented -------------------------------------------------------------------


def test_every_shipped_rulebook_loads() -> None:
    shipped = sorted(set(policy.SHIPPED.glob("*.yaml")) - set(policy.SHIPPED.glob("*.cases.yaml")))
    assert shipped
    for path in shipped:
        rulebook = policy.load(path, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
        assert rulebook.id == path.stem


def test_every_key_of_a_rulebook_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for key, model in MODELS.items():
        for name, field in model.model_fields.items():
            line = f"| `{name}` | {field.description} |"
            assert line in text, f"{DOCS.name} does not say of {key or 'the rulebook'}: {line}"


def test_every_function_of_a_condition_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for usage, meaning in FUNCTIONS.items():
        assert f"| `{usage}` | {meaning} |" in text


def test_every_key_figure_is_documented_and_the_example_names_some() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, meaning in FIGURES.items():
        assert f"| `{name}` | {meaning} |" in text
    (example,) = [each.split("```")[0] for each in text.split("```yaml\n") if "rollback:" in each]
    assert len(load(GOOD + example).checked.rollback) == 1


def test_the_documented_example_is_a_rulebook() -> None:
    example = DOCS.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    rulebook = policy.load(example, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
    effects = {one.effect for one in rulebook.checked.rules}
    assert effects == {"permit", "forbid", "escalate", "clip"}
    assert rulebook.periods == {"supplier-week": "week"}
