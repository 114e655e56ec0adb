"""The page on a draft: what it says, that it asks for nothing, and that texts stay texts."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from storekeep.backtest import draft_page
from tests.reports import (
    CHOSEN,
    DRAFTS,
    Page,
    assert_asks_for_nothing,
    draft,
    draft_alike,
    every_draft,
)


@cache
def drawn(case: str) -> tuple[str, Page]:
    text = draft_page.html(DRAFTS[case]())
    return text, Page(text)


@every_draft
def test_the_page_is_whole_and_asks_for_nothing(case: str) -> None:
    assert_asks_for_nothing(*drawn(case))


@every_draft
def test_every_chart_has_words_and_numbers_behind_it(case: str) -> None:
    text, read = drawn(case)
    pictures = [attributes for tag, attributes in read.tags if tag == "svg"]
    charts = {"draft": 4, "draft alike": 1, "draft hostile": 3}[case]
    assert len(pictures) == 2 * text.count("<figure>") == 2 * charts
    assert text.count("The numbers</summary>") == charts
    for attributes in pictures:
        for name in (attributes["aria-labelledby"] or "").split():
            assert re.search(rf'id="{name}">[^<]+<', text)


def test_the_page_says_what_turns_why_where_and_for_how_much() -> None:
    _, read = drawn("draft")
    for said in (
        "A draft of replenish, tried on 19 Dec 2017 to 27 Jan 2018",
        "82,527 decisions of 13 runs",
        "1,527 would come out otherwise",
        "09c4cb28fc34 (80,000 decisions), version a1b2c3d4e5f6 (2,527 decisions)",
        "Left out: 17 items that the agent held back itself",
        "12 decisions are of another version of the agent",
        "1.9% of 82,527",
        "goes ahead without a person now 19,000.00 EUR, 880.00 USD 327 decisions",
        "waits or is refused now 98,000.00 EUR 1,200 decisions",
        "escalate 310 24,000.00 EUR then 19,000.00 EUR",
        "large-order, first-order cover 310 24,000.00 EUR 19,000.00 EUR",
        "store 1 allow escalate 1,200",
        "95 more stand in the report for programs",
        f"23@DC1 deny allow 880.00 USD 880.00 USD {CHOSEN}",
        "storekeep policy diff in-force draft.yaml",
        f"storekeep decisions explain {CHOSEN}",
    ):
        assert said in read.text


def test_a_draft_that_turns_nothing_says_so() -> None:
    _, read = drawn("draft alike")
    assert "Every verdict is as it was." in read.text
    for said in ("Which rules are behind it", "The largest", "Left out", "To be known"):
        assert said not in read.text


def test_hostile_texts_stay_texts() -> None:
    text, read = drawn("draft hostile")
    assert "<script" not in text
    assert "alert('x')" in read.text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_charts_follow_the_theme_of_the_page() -> None:
    text, _ = drawn("draft")
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b", picture)
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert used <= set(re.findall(r"--(\w+): ", text))


def test_the_same_report_makes_the_same_page(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "draft.html"
    draft_page.write_html(draft_alike(), path)
    assert path.read_text(encoding="utf-8") == drawn("draft alike")[0]
    assert draft_page.html(draft()) == drawn("draft")[0]
