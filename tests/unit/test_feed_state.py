"""A feed that breaks its contract is an event, a feature of what it feeds, and a reason to order nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from storekeep import features, ingest
from storekeep.config import Settings
from storekeep.decisions import Status
from storekeep.retail import FEED_STATE
from tests.shop import FIRST_DAY, LOCATION, SKUS, Shop, moment, new_tenant, noted, opened_shop
from tests.unit.test_ingest import HEADER, LINE, TILL

TUESDAY = FIRST_DAY + timedelta(days=1)


@pytest.fixture
def place(home_settings: Settings) -> Iterator[Shop]:
    with opened_shop(new_tenant(home_settings)) as opened:
        opened.prepare()
        yield opened


def tell(
    place: Shop, state: str, at: datetime, feed: str = "tills", location_id: str = LOCATION
) -> None:
    """Whoever checks the feed says how it is."""
    row = {
        "feed": feed,
        "location_id": location_id,
        "state": state,
        "reason": "Half of the lines have no price.",
        "occurred_at": at,
        "known_at": place.pipeline.now(),
    }
    facts = pa.Table.from_pylist([row], schema=FEED_STATE.arrow)
    assert place.pipeline.publish("FeedStateChanged", "checks", location_id, facts) == 1
    place.pipeline.keep_history()


def breached(place: Shop) -> set[bool]:
    """What the features say of it as of now, of all items."""
    pipeline = place.pipeline
    now = pipeline.now()
    found = features.compute(
        pipeline.lake,
        LOCATION,
        today=now.date(),
        known_by=now,
        versions=pipeline.lake.versions(("sale_line", "order_move", "supply_terms", "feed_state")),
    )
    assert found.num_rows == len(SKUS)
    return set(found["contract_breached"].to_pylist())


def test_a_feed_of_which_nothing_was_told_is_not_breached(place: Shop) -> None:
    assert breached(place) == {False}


def test_the_latest_state_of_each_feed_counts_from_when_it_is_known(place: Shop) -> None:
    at = place.pipeline.now()
    tell(place, "degraded", at)
    assert breached(place) == {False}
    tell(place, "breached", at + timedelta(minutes=1), feed="stock counts")
    assert breached(place) == {True}
    tell(place, "ok", at + timedelta(minutes=2))
    assert breached(place) == {True}
    tell(place, "ok", at + timedelta(minutes=2), feed="stock counts")
    assert breached(place) == {False}
    # That it was breached for a while before is told later, and changes nothing of now.
    tell(place, "breached", at - timedelta(minutes=5))
    assert breached(place) == {False}
    # A feed of another location is none of this one's.
    tell(place, "breached", at + timedelta(minutes=9), location_id="W9")
    assert breached(place) == {False}
    # Of what is known only later nothing is said now.
    place.clock.now += timedelta(hours=1)
    tell(place, "breached", at + timedelta(minutes=3))
    assert breached(place) == {True}
    place.clock.now -= timedelta(minutes=30)
    assert breached(place) == {False}


def test_nothing_is_ordered_on_a_breached_feed_and_a_replay_knows_it(place: Shop) -> None:
    place.clock.now = moment(FIRST_DAY, 21)
    tell(place, "breached", place.pipeline.now())
    before = place.stock()
    place.play(FIRST_DAY)
    assert place.stock().keys() == before.keys()
    rows = place.decisions().values()
    assert {row["status"] for row in rows} <= {Status.DENIED, Status.HELD}
    denied = [row for row in rows if row["status"] == Status.DENIED]
    assert denied
    spoke = {
        rule["rule"]
        for entry in noted(place.pipeline, "decision")
        for rule in entry.get("rules", [])
    }
    assert "breached-feed" in spoke
    assert_mended_it_orders_again(place, denied[0]["decision_id"])


def test_a_file_that_breaks_its_contract_keeps_a_location_from_ordering(
    place: Shop, tmp_path: Path
) -> None:
    """From the file to the denial: nobody says that the feed is breached but its rows."""
    place.clock.now = moment(FIRST_DAY, 21)
    mapping = tmp_path / "till.yaml"
    mapping.write_text(TILL)
    (tmp_path / "till.contract.yaml").write_text(CONTRACT)
    file = tmp_path / "a.csv"
    file.write_text(HEADER + LINE + LINE.replace(",2,", ",two,"))
    found = ingest.mapping(mapping)
    agreed = ingest.contracts.agreed(found, None, mapping)
    place.pipeline.read_feed(found, [file], location_id=LOCATION, contract=agreed)
    assert breached(place) == {True}
    place.play(FIRST_DAY)
    rows = place.decisions().values()
    assert {row["status"] for row in rows} <= {Status.DENIED, Status.HELD}
    assert "breached-feed" in {
        rule["rule"]
        for entry in noted(place.pipeline, "decision")
        for rule in entry.get("rules", [])
    }


CONTRACT = """\
version: 1.0.0
kind: DataContract
apiVersion: v3.1.0
id: urn:example:till
name: corner_shop.sale_line
schema:
  - name: file
    quality:
      - {metric: invalidValues, unit: percent, mustBeLessThan: 10}
"""


def assert_mended_it_orders_again(place: Shop, denied: str) -> None:
    # It is mended, and the next day's orders are made; what was decided on then stays what it was.
    place.clock.now = moment(TUESDAY, 6)
    tell(place, "ok", place.pipeline.now())
    place.play(TUESDAY)
    assert Status.EXECUTED in {row["status"] for row in place.decisions().values()}
    assert place.pipeline.replay(denied)["run_identical"]
    place.pipeline.rebuild_stock()
    assert place.pipeline.verify().ok
