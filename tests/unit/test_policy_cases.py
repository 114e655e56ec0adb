"""Cases of a rulebook: what is refused and where, what fails and how it is told, what no case tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storekeep import features, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.errors import Misused, Refused
from storekeep.policy.cases import MODELS
from tests.rulebooks import PERMIT, book, limit, loaded, rule

DOCS = Path(__file__).parents[2] / "docs" / "rulebooks.md"
LIMIT = limit(id="purse", at_most=2000, per="week", then="escalate", role="buyer")
PACK = {**LIMIT, "id": "pack", "per": "batch", "at_most": 10**6}
BOOK = book(
    forbid=[rule("old", "evidence_age_hours > 48"), rule("late", "counted < DATE '2026-01-31'")],
    clip=[rule("cover", "order_units > 20", set={"order_units": 20})],
    escalate=[rule("price", "unit_cost_minor <> evidence.unit_cost_minor", role="buyer")],
    limits=[LIMIT, PACK],
)
GOOD = """\
rulebook: replenish
default:
  sku: tea
  location_id: DC1
  supplier_id: S1
  order_units: 10
  unit_cost_minor: 100
  evidence_age_hours: 1
  counted: 2026-02-28
cases:
  - id: ordinary
    given: {}
    expect: {verdict: allow}
    because: It is an order.
"""


def tried(text: str, values: Any = BOOK) -> policy.Tried:
    return policy.try_cases(loaded(values), text, "c.yaml")


def refusal(text: str) -> str:
    with pytest.raises(Refused) as refused:
        tried(text)
    return str(refused.value)


def case(given: str = "{}", expect: str = "{verdict: allow}", more: str = "") -> str:
    """The file with one more case."""
    return (
        GOOD + f"  - id: more\n    because: So.\n    given: {given}\n    expect: {expect}\n{more}"
    )


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("", "1:1", "the file is empty"),
        ("- a\n", "1:1", "cases are keys with values"),
        (GOOD + "cases: []\n", "15:1", "key 'cases' stands here twice, first in line 10"),
        (GOOD.partition("cases:")[0] + "cases: []\n", "10:8", "at least 1 item"),
        (GOOD.replace("replenish", "offers"), "1:11", "for rulebook offers, and this is replenish"),
        (GOOD.replace("    because: It is an order.\n", ""), "11:5", "key 'because' is missing"),
        (GOOD.replace("because", "becuase"), "14:5", "did you mean 'because'?"),
        (GOOD.replace("because: It is an order.", "because: ''"), "14:14", "at least 1 character"),
        (GOOD.replace("ordinary", "Or dinary"), "11:9", "a name in small letters"),
        (case().replace("more", "ordinary"), "15:9", "stands here twice, first in line 11"),
        (case("{order_unit: 3}"), "17:13", "unknown column 'order_unit'; did you mean 'order_units'?"),
        (GOOD.replace("  sku:", "  sk:"), "3:3", "unknown column 'sk'; did you mean 'sku'?"),
        (case("{group_value_minor: 3}"), "17:13", "follows from the rows"),
        (case("{order_units: many}"), "17:26", "of type integer is wanted, or null"),
        (case("{order_units: 1.5}"), "17:26", "of type integer is wanted"),
        (case("{order_units: true}"), "17:26", "of type integer is wanted"),
        (case("{sku: 17}"), "17:18", 'a value of type text is wanted: write "17"'),
        (case("{counted: yesterday}"), "17:22", "of type date is wanted, such as"),
        (case("{contract_breached: 1}"), "17:32", "of type boolean is wanted"),
        (case("{demand: []}"), "17:21", "of type number is wanted"),
        (GOOD.replace("  counted: 2026-02-28\n", ""), "10:5", "gives no counted"),
        (case(expect="{verdict: allowed}"), "18:23", "'allow'"),
        (case(expect="{verdct: allow}"), "18:14", "did you mean 'verdict'?"),
        (case(expect="{verdict: allow, rule: x}"), "18:30", "did you mean 'rules'?"),
        (case(expect="{verdict: deny, rules: [odl]}"), "18:37", "no rule 'odl'; did you mean 'old'?"),
        (case(expect="{verdict: clip, parameters: {sku: 1}}"), "18:42", "does not lower 'sku'"),
        (case(expect="{verdict: clip, parameters: {order_units: x}}"), "18:55", "a number is wanted"),
        (case(expect="{verdict: escalate, role: byer}"), "18:39", "did you mean 'buyer'?"),
        (case(more="    used: {purs: 3}\n"), "19:12", "no limit over a day or week; did you mean"),
        (case(more="    waited: soon\n"), "19:13", "write a duration like 4h"),
        (case(more="    used: {pack: 3}\n"), "19:12", "no limit over a day or week; allowed are purse"),
        (case(more="    used: {purse: -1}\n"), "19:19", "zero or more"),
        (case(more="    rows: []\n"), "15:5", "or `rows` that have both"),
        (GOOD.replace("    given: {}\n    expect: {verdict: allow}\n", ""), "11:5", "or `rows` that"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_cases_is_refused_where_it_fails(
    text: str, where: str, word: str
) -> None:
    said = refusal(text)
    assert said.startswith(f"c.yaml:{where}: "), said
    assert word in said


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misused, match="cannot be read"):
        policy.try_cases(loaded(BOOK), tmp_path / "none.yaml")


def test_a_case_that_holds_is_silent_and_what_no_case_makes_speak_is_named() -> None:
    outcome = tried(GOOD)
    assert (outcome.cases, outcome.failed) == (1, [])
    assert outcome.not_tested == ["late", "old", "price", "cover", "pack", "purse"]


def test_a_rule_that_could_not_tell_is_not_tested() -> None:
    outcome = tried(case("{evidence_age_hours: null}", "{verdict: deny, rules: [old]}"))
    assert outcome.failed == []
    assert "old" in outcome.not_tested


@pytest.mark.parametrize(
    ("given", "expect", "expected", "got"),
    [
        ("{}", "{verdict: deny}", "deny", "allow"),
        ("{evidence_age_hours: 50}", "{verdict: deny, rules: [old]}", None, None),
        (
            "{evidence_age_hours: 50}",
            "{verdict: deny, rules: [price]}",
            "price to speak",
            "silence",
        ),
        ("{order_units: 15, order_value_minor: 9}", "{verdict: allow}", None, None),
        (
            "{order_units: 30}",
            "{verdict: clip, parameters: {order_units: 20, order_value_minor: 2000}}",
            None,
            None,
        ),
        (
            "{order_units: 30}",
            "{verdict: clip, parameters: {order_units: 19}}",
            "order_units 19",
            "order_units 20",
        ),
        ("{evidence.unit_cost_minor: 99}", "{verdict: escalate, role: buyer}", None, None),
        ("{}", "{verdict: allow, role: buyer}", "role buyer", "role none"),
        ("{counted: '2026-01-30'}", "{verdict: deny, rules: [late]}", None, None),
    ],
)
def test_what_fails_says_what_was_expected_and_what_came(
    given: str, expect: str, expected: str | None, got: str | None
) -> None:
    outcome = tried(case(given, expect))
    assert [(each.expected, each.got) for each in outcome.failed] == (
        [(expected, got)] if expected else []
    )
    for each in outcome.failed:
        assert str(each.place) == "c.yaml:18:13"
        assert (each.case, each.row, each.because) == ("more", None, "So.")
        assert each.rules


def test_the_value_of_a_line_follows_from_its_units_unless_it_is_given() -> None:
    values = book(permit=[rule("exact", "order_value_minor = order_units * unit_cost_minor")])
    assert tried(case("{order_units: 17}"), values).failed == []
    wrong = tried(case("{order_value_minor: 17}", "{verdict: deny}"), values)
    assert wrong.failed == []
    unknown = tried(case("{order_value_minor: null}", "{verdict: deny}"), values)
    assert unknown.failed == []


def test_evidence_of_its_own_is_meant_wherever_it_stands() -> None:
    """Also before the parameter of its name, and where the parameter comes from the case."""
    text = case("{unit_cost_minor: 100}", "{verdict: escalate, rules: [price]}")
    own = text.replace("  unit_cost_minor: 100\n", "  evidence.unit_cost_minor: 99\n")
    outcome = tried(own.replace("given: {}", "given: {unit_cost_minor: 99}"))
    assert outcome.failed == []


BATCH = """\
  - id: batch
    because: The first gets it.
    used: {purse: 500}
    rows:
      - given: {priority: 2}
        expect: {verdict: allow}
      - given: {priority: 1}
        expect: {verdict: escalate, rules: [purse], role: buyer}
      - given: {supplier_id: S2}
        expect: {verdict: escalate}
"""


def test_rows_of_a_batch_share_limits_and_cases_do_not() -> None:
    outcome = tried(GOOD + BATCH + BATCH.replace("id: batch", "id: again"))
    assert [(each.case, each.row, each.got) for each in outcome.failed] == [
        ("batch", 3, "allow"),
        ("again", 3, "allow"),
    ]
    assert str(outcome.failed[0].place) == "c.yaml:24:17"
    assert "purse" not in outcome.not_tested


def test_order_of_cases_and_their_number_change_nothing() -> None:
    many = "".join(BATCH.replace("id: batch", f"id: b{place}") for place in range(200))
    assert len(tried(GOOD + many).failed) == 200


def test_every_shipped_rulebook_holds_its_cases_and_each_of_its_rules_is_tested() -> None:
    cases = sorted(policy.SHIPPED.glob("*.cases.yaml"))
    assert cases
    for path in cases:
        book_ = path.with_name(path.name.replace(".cases", ""))
        assert policy.beside(book_) == path
        rulebook = policy.load(book_, action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA)
        outcome = policy.try_cases(rulebook, path)
        assert outcome.failed == []
        assert outcome.not_tested == []


def test_every_key_of_a_case_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for key, model in MODELS.items():
        for name, field in model.model_fields.items():
            line = f"| `{name}` | {field.description} |"
            assert line in text, f"{DOCS.name} does not say of {key or 'the file'}: {line}"


# What changes between two rulebooks -------------------------------------------------------------------


def compared(one: Any, other: Any) -> list[tuple[str, str, str, list[str]]]:
    found = policy.compare(loaded(one), loaded(other))
    return [(each.kind, each.id, each.what, [key.key for key in each.changes]) for each in found]


def test_a_rulebook_written_otherwise_is_the_same() -> None:
    one = book(
        permit=[rule("a", "order_units > 0 AND demand > 1"), rule("b", "true")],
        clip=[rule("c", "order_units > 9", set={"order_units": "greatest(1, 9)"})],
    )
    other = book(
        permit=[rule("b", True), rule("a", "(demand>1 /* a lot */) and\n order_units   > 0")],
        clip=[rule("c", "(order_units) > 9", set={"order_units": "GREATEST(1,9)"})],
    )
    assert compared(one, other) == []
    assert loaded(one).version != loaded(other).version


def test_what_is_added_removed_and_changed_is_told_with_its_keys() -> None:
    one = book(
        forbid=[rule("gone", "false"), rule("moved", "demand > 1")],
        limits=[LIMIT],
        escalate=[rule("asks", "demand > 2", role="buyer")],
        rollback=[rule("loss", "days > 1")],
    )
    other = book(
        owner="selling",
        permit=[PERMIT, rule("new", "demand > 3")],
        roles=["buyer", "head"],
        escalate=[
            rule("moved", "demand > 1", role="buyer"),
            {**rule("asks", "demand > 2 OR true", role="head"), "reason": "Other words."},
        ],
        limits=[{**LIMIT, "at_most": 3000, "per": "day", "by": []}],
        rollback=[rule("loss", "days > 2")],
        sla={"approve_within": "2h"},
    )
    assert compared(one, other) == [
        ("rulebook", "replenish", "changed", ["owner", "roles", "approve_within"]),
        ("rule", "asks", "changed", ["when", "role", "reason"]),
        ("rule", "gone", "removed", ["effect", "when", "reason"]),
        ("rule", "moved", "changed", ["effect", "role"]),
        ("rule", "new", "added", ["effect", "when", "reason"]),
        ("limit", "purse", "changed", ["by", "at_most", "per"]),
        ("rollback", "loss", "changed", ["when"]),
    ]
    (moved,) = [each for each in policy.compare(loaded(one), loaded(other)) if each.id == "moved"]
    assert [(each.before, each.after) for each in moved.changes] == [
        ("forbid", "escalate"),
        (None, "buyer"),
    ]


def test_who_must_approve_and_what_they_may_change_is_compared_too() -> None:
    asks = rule("asks", "demand > 2", role="buyer")
    one = book(
        roles=["buyer"], escalate=[asks], limits=[{**LIMIT, "then": "escalate", "role": "buyer"}]
    )
    other = book(
        roles=["buyer"],
        escalate=[{**asks, "persons": 2, "change": {"order_units": {"at_most": "order_units"}}}],
        limits=[{**LIMIT, "then": "escalate", "role": "buyer", "persons": 3}],
        breaker={"failures": 9, "open_for": "2m"},
    )
    assert compared(one, other) == [
        ("rulebook", "replenish", "changed", ["breaker failures", "breaker open_for"]),
        (
            "rule",
            "asks",
            "changed",
            ["persons", "change order_units at_least", "change order_units at_most"],
        ),
        ("limit", "purse", "changed", ["persons"]),
    ]


def test_a_rule_that_becomes_a_limit_is_removed_and_added() -> None:
    one = book(forbid=[rule("purse", "demand > 1")], roles=["buyer"])
    other = book(limits=[LIMIT], roles=["buyer"])
    assert [each[:3] for each in compared(one, other)] == [
        ("rule", "purse", "removed"),
        ("limit", "purse", "added"),
    ]


@pytest.mark.parametrize(
    ("waited", "expect"),
    [
        (None, "{verdict: allow}"),
        ("2h", "{verdict: allow}"),
        ("PT2H1S", "{verdict: deny, rules: [decide-within]}"),
        ("3h", "{verdict: deny, rules: [decide-within]}"),
    ],
)
def test_a_case_says_how_long_its_run_waited(waited: str | None, expect: str) -> None:
    """Each for itself: those before and after it are in time."""
    book = {**BOOK, "sla": {"decide_within": "2h"}}
    more = f"    waited: {waited}\n" if waited else ""
    last = "  - {id: last, because: So., given: {}, expect: {verdict: allow}}\n"
    assert tried(case(expect=expect, more=more) + last, book).failed == []
    other = expect.replace("deny, rules: [decide-within]", "allow")
    (failed,) = tried(case(expect=other.replace("allow", "clip"), more=more) + last, book).failed
    assert failed.got == ("deny" if "deny" in expect else "allow")


def test_a_batch_that_waited_too_long_is_denied_whole() -> None:
    rows = "    rows: [{expect: {verdict: deny}}, {expect: {verdict: deny}}]\n"
    text = GOOD + f"  - id: late\n    because: So.\n    waited: 1d\n{rows}"
    assert tried(text, {**BOOK, "sla": {"decide_within": "2h"}}).failed == []
