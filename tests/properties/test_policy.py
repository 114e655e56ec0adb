"""What must hold of any rulebook and any batch, and that it is what a plain reading of the rules gives."""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storekeep import policy
from storekeep.decisions import Judgement
from storekeep.policy import USED, USES, reasons
from storekeep.retail import money
from storekeep.sql import Place
from tests.rulebooks import book, evidence, judged, loaded, proposed, rule, spoke, used, verdicts

# Each example compiles a rulebook of its own.
COMPILED = settings(max_examples=settings().max_examples // 2)
# These follow from the plain reading, and say in a line what it says in many.
FOLLOWS = settings(max_examples=settings().max_examples // 4)

Row = Mapping[str, Any]
Tell = Callable[[Row], Any]


@dataclass(frozen=True)
class Said:
    """A piece of SQL, and what it means of a row: a value, or None where it cannot be told."""

    sql: str
    tell: Tell


# A second reading of the language, in plain Python ---------------------------------------------------


def column(name: str) -> Said:
    return Said(name, lambda row: row[name])


def constant(value: float) -> Said:
    return Said(str(value), lambda _: value)


def computed(sign: str, left: Said, right: Said) -> Said:
    def tell(row: Row) -> Any:
        one, two = left.tell(row), right.tell(row)
        if one is None or two is None or (sign == "/" and two == 0):
            return None
        return {"+": lambda: one + two, "*": lambda: one * two, "/": lambda: one / two}[sign]()

    return Said(f"({left.sql} {sign} {right.sql})", tell)


def compared(sign: str, left: Said, right: Said) -> Said:
    def tell(row: Row) -> bool | None:
        one, two = left.tell(row), right.tell(row)
        if one is None or two is None:
            return None
        return bool({">": one > two, "<=": one <= two, "=": one == two}[sign])

    return Said(f"({left.sql} {sign} {right.sql})", tell)


def joined(sign: str, left: Said, right: Said) -> Said:
    decides = sign == "OR"

    def tell(row: Row) -> bool | None:
        sides = (left.tell(row), right.tell(row))
        if decides in sides:
            return decides
        return None if None in sides else not decides

    return Said(f"({left.sql} {sign} {right.sql})", tell)


def negated(inside: Said) -> Said:
    def tell(row: Row) -> bool | None:
        told = inside.tell(row)
        return None if told is None else not told

    return Said(f"NOT {inside.sql}", tell)


NAMES = (
    "order_units",
    "order_value_minor",
    "on_hand_units",
    "demand",
    "usual_order_units",
    "group_value_minor",
)
FIGURES = st.one_of(
    st.sampled_from(NAMES).map(column), st.sampled_from([0, 1, 5, 12, 1200, 0.5]).map(constant)
)
NUMBERS = st.recursive(
    FIGURES,
    lambda inner: st.builds(computed, st.sampled_from("+*/"), inner, inner),
    max_leaves=3,
)
CONDITIONS = st.recursive(
    st.builds(compared, st.sampled_from([">", "<=", "="]), NUMBERS, NUMBERS),
    lambda inner: st.one_of(
        st.builds(joined, st.sampled_from(["AND", "OR"]), inner, inner), st.builds(negated, inner)
    ),
    max_leaves=3,
)
ROLES = ("buyer", "head")


@dataclass(frozen=True)
class Limited:
    """A limit, in both readings."""

    id: str
    by: tuple[str, ...]
    at_most: int
    per: str
    then: str


@dataclass(frozen=True)
class Book:
    """A rulebook, in both readings."""

    rules: tuple[tuple[str, str, Said, Any], ...]
    limits: tuple[Limited, ...]

    def values(self, order: random.Random | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {
            "permit": [],
            "forbid": [],
            "escalate": [],
            "clip": [],
            "limits": [],
        }
        for name, effect, when, more in self.rules:
            own = {"role": more} if effect == "escalate" else {}
            own = {"set": {"order_units": more.sql}} if effect == "clip" else own
            found[effect].append(rule(name, when.sql, **own))
        for one in self.limits:
            own = {"role": "head"} if one.then == "escalate" else {}
            keys = {"sum": "order_value_minor", "by": list(one.by), "at_most": one.at_most}
            found["limits"].append(
                {"id": one.id, **keys, "per": one.per, "then": one.then, "reason": "Spent.", **own}
            )
        if order is not None:
            for rules in found.values():
                order.shuffle(rules)
            found = dict(order.sample(list(found.items()), len(found)))
        return book(**found, roles=list(ROLES))


@st.composite
def books(draw: st.DrawFn, limits: bool = False) -> Book:
    rules: list[tuple[str, str, Said, Any]] = [("permit-0", "permit", draw(CONDITIONS), None)]
    for effect in ("permit", "forbid", "escalate", "clip"):
        for place in range(draw(st.integers(0, 2))):
            more = {"escalate": st.sampled_from(ROLES), "clip": NUMBERS}.get(effect, st.none())
            rules.append((f"{effect}-{place + 1}", effect, draw(CONDITIONS), draw(more)))
    found = []
    for place in range(draw(st.integers(1, 2)) if limits else 0):
        by = draw(st.sampled_from([(), ("supplier_id",), ("location_id", "supplier_id")]))
        per, then = (
            draw(st.sampled_from(["day", "batch"])),
            draw(st.sampled_from(["forbid", "escalate"])),
        )
        found.append(
            Limited(f"limit-{place}", by, draw(st.sampled_from([0, 900, 2500])), per, then)
        )
    return Book(tuple(rules), tuple(found))


ORDERS = st.fixed_dictionaries(
    {
        "order_units": st.integers(1, 20),
        "unit_cost_minor": st.sampled_from([0, 50, 100]),
        "supplier_id": st.sampled_from(["S1", "S2", "S&3\\"]),
        "order_group": st.sampled_from(["g1", "g2", "g3"]),
        "priority": st.sampled_from([0.5, 1.0, 2.0]),
    }
)
FACTS = st.fixed_dictionaries(
    {
        "on_hand_units": st.none() | st.integers(0, 20),
        "demand": st.sampled_from([None, 0.0, 0.5, 3.0, math.nan, math.inf]),
        "usual_order_units": st.none() | st.sampled_from([1.0, 8.0]),
    }
)
BATCHES = st.lists(st.tuples(ORDERS, FACTS), min_size=1, max_size=6)
QUEUES = st.lists(st.tuples(ORDERS, FACTS), min_size=4, max_size=12)


def rows_of(batch: Sequence[tuple[Row, Row]]) -> list[dict[str, Any]]:
    """The columns of each row, as the rulebook may name them."""
    rows = []
    for place, (order, facts) in enumerate(batch):
        row = {"subject": f"s{place:03}", "location_id": "DC1", **facts, **order}
        row["order_value_minor"] = order["order_units"] * order["unit_cost_minor"]
        row["group_value_minor"] = sum(
            one["order_units"] * one["unit_cost_minor"]
            for one, _ in batch
            if one["order_group"] == order["order_group"]
        )
        # Not a number, and beyond all numbers, is not known.
        if row["demand"] is not None and not math.isfinite(row["demand"]):
            row["demand"] = None
        rows.append(row)
    return rows


def rules_of(row: Row, rules: Sequence[tuple[str, str, Said, Any]]) -> tuple[dict[str, str], int]:
    """What speaks of a row before the limits, and what is left of its units."""
    found, units = {}, row["order_units"]
    for name, effect, when, more in rules:
        told = when.tell(row)
        if effect == "permit":
            if told:
                found[name] = "permit"
        elif effect != "clip":
            if told is not False:
                found[name] = effect
        elif told is not False:
            value = more.tell(row)
            value = None if value is None or abs(value) >= 2**63 else math.floor(value)
            if told is None or value is None or value <= 0:
                found[name] = "forbid"
            elif value < row["order_units"]:
                found[name] = "clip"
                units = min(units, value)
    return found, units


def stands(own: Mapping[str, str]) -> bool:
    effects = set(own.values())
    return "forbid" not in effects and bool(effects & {"permit", "escalate"})


def limit_of(
    limit: Limited,
    rows: Sequence[Row],
    standing: Sequence[bool],
    amounts: Sequence[int],
    approved: frozenset[str],
    before: Mapping[tuple[str, str], int],
) -> list[bool]:
    """Which rows a limit speaks of: a queue, served one by one."""
    line = sorted(
        range(len(rows)),
        key=lambda place: (
            rows[place]["subject"] not in approved,
            -rows[place]["priority"],
            rows[place]["subject"],
        ),
    )
    running: dict[str, int] = defaultdict(int)
    beyond = [False] * len(rows)
    for place in line:
        key = key_of(limit.by, rows[place])
        start = before.get((limit.id, key), 0) if limit.per != "batch" else 0
        if not standing[place]:
            continue
        alone = start + amounts[place] > limit.at_most
        waits = limit.then == "escalate" and rows[place]["subject"] in approved
        if not alone or waits:
            running[key] += amounts[place]
        beyond[place] = alone or start + running[key] > limit.at_most
    return beyond


def key_of(by: Sequence[str], row: Row) -> str:
    values = [str(row[name]) for name in sorted(by)]
    if len(by) > 1:
        values = [value.replace("\\", "\\\\").replace("&", "\\&") for value in values]
    return "&".join(f"{name}={value}" for name, value in zip(sorted(by), values, strict=True))


def read(
    one: Book,
    batch: Sequence[tuple[Row, Row]],
    approved: frozenset[str] = frozenset(),
    before: Mapping[tuple[str, str], int] | None = None,
) -> list[tuple[str, str | None, dict[str, str], int]]:
    """Verdict, role, what spoke and units of each row, by the rules' own words."""
    rows = rows_of(batch)
    found, units = [], []
    for row in rows:
        own, lowered = rules_of(row, one.rules)
        found.append(own)
        units.append(lowered if stands(own) else row["order_units"])
    standing = [stands(own) for own in found]
    amounts = [many * row["unit_cost_minor"] for many, row in zip(units, rows, strict=True)]
    for limit in one.limits:
        beyond = limit_of(limit, rows, standing, amounts, approved, before or {})
        for own, over in zip(found, beyond, strict=True):
            if over:
                own[limit.id] = limit.then
    roles = {name: more for name, effect, _, more in one.rules if effect == "escalate"}
    roles |= {limit.id: "head" for limit in one.limits}
    out = []
    for own, row, many in zip(found, rows, units, strict=True):
        effects = set(own.values())
        if not effects & {"forbid", "escalate", "permit"}:
            own["default"] = "forbid"
            effects.add("forbid")
        if "forbid" in effects:
            verdict, role = "deny", None
        elif "escalate" in effects and row["subject"] not in approved:
            asked = [roles[name] for name, effect in own.items() if effect == "escalate"]
            verdict, role = "escalate", max(asked, key=ROLES.index)
        else:
            verdict, role = ("clip" if "clip" in effects else "allow"), None
        out.append((verdict, role, own, many))
    return out


def told(judgement: Judgement) -> list[tuple[str, str | None, dict[str, str], int]]:
    """The same, as it was judged."""
    columns = (judgement.verdicts["role"], judgement.proposals["order_units"])
    roles, units = (column.to_pylist() for column in columns)
    return list(zip(verdicts(judgement), roles, spoke(judgement), units, strict=True))


def judge(one: Book, batch: Sequence[tuple[Row, Row]], **more: Any) -> Judgement:
    orders, facts = [order for order, _ in batch], [facts for _, facts in batch]
    return judged(one.values(), orders, facts, **{"used": USED.empty_table(), **more})


@COMPILED
@given(books(), BATCHES, st.sets(st.sampled_from(["s000", "s001", "s002"])))
def test_a_batch_is_judged_as_a_plain_reading_of_the_rules_says(
    one: Book, batch: list[tuple[Row, Row]], approved: set[str]
) -> None:
    judgement = judge(one, batch, approved=frozenset(approved))
    assert told(judgement) == read(one, batch, frozenset(approved))


@COMPILED
@given(books(limits=True), QUEUES, st.sets(st.sampled_from(["s000", "s001"])), st.integers(0, 1000))
def test_limits_are_served_as_a_plain_reading_of_the_queue_says(
    one: Book, batch: list[tuple[Row, Row]], approved: set[str], spent: int
) -> None:
    before = {(one.limits[0].id, key_of(one.limits[0].by, rows_of(batch)[0])): spent}
    recent = used(*((limit, key, amount) for (limit, key), amount in before.items()))
    judgement = judge(one, batch, approved=frozenset(approved), used=recent)
    assert told(judgement) == read(one, batch, frozenset(approved), before)


@COMPILED
@given(books(limits=True), BATCHES, st.randoms(use_true_random=False))
def test_the_order_of_rules_and_keys_never_matters(
    one: Book, batch: list[tuple[Row, Row]], order: random.Random
) -> None:
    orders, facts = [order for order, _ in batch], [facts for _, facts in batch]
    first, second = loaded(one.values()), loaded(one.values(order))
    assert first.version == second.version
    recent = USED.empty_table()
    left = policy.judge(first, proposed(orders), evidence(facts), recent)
    right = policy.judge(second, proposed(orders), evidence(facts), recent)
    assert left.verdicts.equals(right.verdicts)
    assert left.proposals.equals(right.proposals)
    assert left.uses is not None
    assert right.uses is not None
    assert left.uses.equals(right.uses)


@FOLLOWS
@given(books(limits=True), BATCHES, st.sets(st.sampled_from(["s000", "s001", "s002"])))
def test_a_forbid_never_ends_as_anything_but_deny(
    one: Book, batch: list[tuple[Row, Row]], approved: set[str]
) -> None:
    judgement = judge(one, batch, approved=frozenset(approved))
    for verdict, own in zip(verdicts(judgement), spoke(judgement), strict=True):
        assert (verdict == "deny") == ("forbid" in own.values())


@COMPILED
@given(books(limits=True), BATCHES, st.integers(0, 7200), st.none() | st.integers(1, 7200))
def test_what_is_decided_too_late_is_denied_and_all_that_spoke_stays(
    one: Book, batch: list[tuple[Row, Row]], waited: int, within: int | None
) -> None:
    values = one.values() | ({} if within is None else {"sla": {"decide_within": f"{within}s"}})
    orders, facts = [order for order, _ in batch], [facts for _, facts in batch]
    given_ = (loaded(values), proposed(orders), evidence(facts), USED.empty_table())
    plain = policy.judge(*given_)
    late = policy.judge(*given_, waited=timedelta(seconds=waited))
    if within is None or waited <= within:
        assert late.verdicts.equals(plain.verdicts)
        assert late.uses == plain.uses
        return
    assert verdicts(late) == ["deny"] * len(batch)
    assert spoke(late) == [{**own, "decide-within": "forbid"} for own in spoke(plain)]
    assert {*late.verdicts["role"].to_pylist(), *late.verdicts["persons"].to_pylist()} == {None}
    assert late.proposals.equals(plain.proposals)
    assert late.uses is not None
    assert late.uses.num_rows == 0


@FOLLOWS
@given(books(limits=True), BATCHES)
def test_what_is_not_known_never_lets_more_through(one: Book, batch: list[tuple[Row, Row]]) -> None:
    blind = [(order, dict.fromkeys(facts)) for order, facts in batch]
    judgement = judge(one, blind)
    closed = {"permit": None, "forbid": "forbid", "escalate": "escalate", "clip": "forbid"}
    for row, verdict, own in zip(
        rows_of(blind), verdicts(judgement), spoke(judgement), strict=True
    ):
        for name, effect, when, _ in one.rules:
            if when.tell(row) is None:
                assert own.get(name) == closed[effect]
        assert verdict not in {"allow", "clip"} or "permit" in own.values()


@FOLLOWS
@given(books(), BATCHES)
def test_a_batch_is_judged_as_its_rows_one_by_one(one: Book, batch: list[tuple[Row, Row]]) -> None:
    alone = [
        ({**order, "order_group": f"g{place}", "subject": f"s{place:03}"}, facts)
        for place, (order, facts) in enumerate(batch)
    ]
    whole = judge(one, alone)
    facts = evidence([facts for _, facts in alone])
    for place, (order, _) in enumerate(alone):
        single = policy.judge(loaded(one.values()), proposed([order]), facts, USED.empty_table())
        assert single.verdicts.equals(whole.verdicts.slice(place, 1))
        assert single.proposals.equals(whole.proposals.slice(place, 1))


@COMPILED
@given(books(limits=True), BATCHES)
def test_what_is_used_is_what_was_not_denied(one: Book, batch: list[tuple[Row, Row]]) -> None:
    judgement = judge(one, batch)
    assert judgement.uses is not None
    assert judgement.uses.schema.equals(USES)
    expected = []
    for limit in one.limits:
        for row, (verdict, _, _, units) in zip(rows_of(batch), told(judgement), strict=True):
            amount = units * row["unit_cost_minor"]
            if verdict != "deny" and amount > 0:
                key = key_of(limit.by, row)
                expected.append((row["subject"], limit.id, limit.per, key, amount))
    assert [tuple(row.values()) for row in judgement.uses.to_pylist()] == expected


@FOLLOWS
@given(books(limits=True), BATCHES, st.data())
def test_the_order_of_the_rows_never_matters(
    one: Book, batch: list[tuple[Row, Row]], data: st.DataObject
) -> None:
    places = data.draw(st.permutations(range(len(batch))))
    rulebook = loaded(one.values())
    orders = proposed([order for order, _ in batch])
    facts = evidence([facts for _, facts in batch])
    plain = policy.judge(rulebook, orders, facts, USED.empty_table())
    other = replace(orders, proposals=orders.proposals.take(pa.array(places)))
    moved = policy.judge(rulebook, other, facts, USED.empty_table())
    back = pa.array(sorted(range(len(places)), key=places.__getitem__))
    assert moved.verdicts.take(back).combine_chunks().equals(plain.verdicts.combine_chunks())


# Reasons ----------------------------------------------------------------------------------------------

_WHERE = Place("reason", 1, 1)
_AMOUNTS = st.integers(-(10**15), 10**15) | st.none()
_CURRENCIES = st.sampled_from(["USD", "EUR", "JPY", "KWD", "XPF"]) | st.none()


@given(st.lists(st.tuples(_AMOUNTS, _CURRENCIES), min_size=1, max_size=30))
@example([(999, "USD"), (1000, "USD"), (99_999, "USD"), (100_000, "USD"), (-5, "KWD"), (0, "JPY")])
def test_money_in_a_reason_is_written_as_everywhere(
    rows: list[tuple[int | None, str | None]],
) -> None:
    reason = reasons.read("It is {due:money}.", {"due": "BIGINT", "currency": "VARCHAR"}, _WHERE)
    amounts, currencies = zip(*rows, strict=True)
    columns = {
        "due": pa.array(amounts, pa.int64()),
        "currency": pa.array(currencies, pa.string()),
    }
    told = reason.filled(pa.array([reason.opening] * len(rows)), columns).to_pylist()
    assert told == [
        f"It is {'unknown' if None in row else money(*row)}."  # type: ignore[arg-type]  # neither is None
        for row in rows
    ]


@given(st.lists(st.floats(-1e12, 1e12) | st.sampled_from([math.nan, math.inf, 1e18]), min_size=1))
@example([0.0, 100.0, 12.5, 0.005, -0.004, 1234.567])
def test_a_fraction_in_a_reason_has_two_decimals_at_most(values: list[float]) -> None:
    reason = reasons.read("{share} of it", {"share": "DOUBLE"}, _WHERE)
    told = reason.filled(pa.array([""] * len(values)), {"share": pa.array(values)}).to_pylist()
    for value, text in zip(values, told, strict=True):
        said = text.removesuffix(" of it")
        if not abs(value) <= 1e15:
            assert said == "unknown"
            continue
        assert re.fullmatch(r"-?\d+(\.\d?[1-9])?", said)
        assert abs(Decimal(said) - Decimal(value)) <= Decimal("0.0051")
