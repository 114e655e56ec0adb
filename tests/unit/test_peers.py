"""What is measured beside Storekeep is asked the same: all of them say the same of the same orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from storekeep import features, policy
from storekeep.actions import PLACE_PURCHASE_ORDER
from storekeep.backtest import peers
from storekeep.backtest.decisions_bench import told
from storekeep.backtest.orders import orders
from storekeep.decisions import Decided

MANY = 3_000


@pytest.fixture(scope="module")
def judged() -> tuple[policy.Rulebook, pa.Table, list[str]]:
    """The rulebook of the benchmark, orders with what is known of them, and Storekeep's verdicts."""
    book = policy.load(
        peers.RULES / "orders.yaml", action=PLACE_PURCHASE_ORDER, evidence=features.SCHEMA
    )
    known, proposed = orders(MANY)
    known = known.take(proposed.proposals["subject"].combine_chunks())
    verdicts = policy.judge(book, proposed, known).verdicts
    return book, told(known, proposed), verdicts["verdict"].to_pylist()


def test_there_are_twenty_rules_and_every_verdict_but_a_hold(
    judged: tuple[policy.Rulebook, pa.Table, list[str]],
) -> None:
    book, _, verdicts = judged
    assert len(book.checked.rules) == 20
    assert set(verdicts) == {str(each) for each in Decided} - {Decided.HOLD}


def test_the_bare_query_says_the_same(
    judged: tuple[policy.Rulebook, pa.Table, list[str]],
) -> None:
    book, given, verdicts = judged
    assert peers.bare_query(book, given).to_pylist() == verdicts


@pytest.mark.parametrize(("package", "ask"), [("cedarpy", peers.cedar), ("regopy", peers.rego)])
def test_other_languages_say_the_same(
    package: str,
    ask: Callable[[Sequence[dict[str, Any]]], list[str]],
    judged: tuple[policy.Rulebook, pa.Table, list[str]],
) -> None:
    pytest.importorskip(package)
    _, given, verdicts = judged
    assert ask(peers.whole(given).to_pylist()) == verdicts


def test_the_orders_are_the_same_again_and_all_of_one_day() -> None:
    known, proposed = orders(200)
    again = orders(200)
    assert known.values == again[0].values
    assert proposed.proposals == again[1].proposals
    assert pc.count_distinct(proposed.proposals["subject"]).as_py() == proposed.proposals.num_rows
