"""What the page on ingest shows of web shops is what comes out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storekeep import ingest
from storekeep.ingest.web_shops import TOLD

pytestmark = pytest.mark.docs
PAGE = (Path(__file__).parents[2] / "docs" / "ingest.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("\n## Web shops\n") : PAGE.index("\n## Pushed batches\n")]


def test_the_sample_comes_out_as_it_is_told(tmp_path: Path) -> None:
    (sample,) = re.findall(r"^```json\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    (file := tmp_path / "order.json").write_text(sample)
    (batch,) = ingest.load(
        ingest.mapping("shopify_orders").of_source("shop"),
        [file],
        known_at=datetime(2026, 11, 20, 12, tzinfo=UTC),
        location_id="WEB",
        pseudonym_key=b"0123456789abcdef",
    )
    (row,) = batch.rows.to_pylist()
    said = (
        f"{row['quantity_units']} {row['sku']}s sold for {row['value_minor'] / 100:.2f} {row['currency']}"
        f" in the order {row['basket_id']}, at {row['occurred_at']:%H:%M} UTC, from"
        f" `{row['location_id']}`, to\nthe customer whose pseudonym begins with"
        f" `{row['customer_id'].partition(':')[0]}:`"
    )
    assert said in SECTION


def test_every_topic_that_is_taken_in_is_told_with_its_feed() -> None:
    table = re.findall(r"^\|(.*?)\|(.*?)\| `(\w+)` \| `\w+` \|$", SECTION, re.MULTILINE)
    for place, platform in enumerate(("shopify", "woocommerce")):
        told = {topic: row[2] for row in table for topic in re.findall(r"`([^`]+)`", row[place])}
        assert told == TOLD[platform].feeds
