"""Mappings proposed from what others wrote: beside those that ship, which persons made."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from storekeep.ingest import load, mapping, suggest
from tests.external.test_scms import FILE
from tests.external.test_uci import ARCHIVE
from tests.unit.test_ingest import KEY, KNOWN_AT

pytestmark = pytest.mark.external


@pytest.mark.skipif(not ARCHIVE.exists(), reason="../shared/data/uci_online_retail is absent")
def test_uci(tmp_path: Path) -> None:
    path = tmp_path / "uci.yaml"
    path.write_text(suggest(ARCHIVE).text, encoding="utf-8")
    found, ours = mapping(path), mapping("uci_online_retail")
    assert (found.feed, found.table, found.format) == (ours.feed, ours.table, ours.format)
    alike = ("basket_id", "sku", "quantity_units", "value_minor", "customer_id", "occurred_at")
    assert {name: found.columns[name] for name in alike} == {
        name: ours.columns[name] for name in alike
    }


@pytest.mark.skipif(not FILE.exists(), reason="../shared/data/scms is absent")
def test_scms(tmp_path: Path) -> None:
    path = tmp_path / "scms.yaml"
    path.write_text(suggest(FILE).text, encoding="utf-8")
    found, ours = mapping(path), mapping("scms_deliveries")
    assert (found.feed, found.table, found.date_format) == ("suppliers", "delivery", "%d-%b-%y")
    (batch,) = load(found, [FILE], known_at=KNOWN_AT, pseudonym_key=KEY)
    (wanted,) = load(ours, [FILE], known_at=KNOWN_AT, pseudonym_key=KEY)
    assert (batch.rows.num_rows, batch.rejected.num_rows) == (10_324, 0)
    whose = pc.is_in(batch.rows["delivery_id"], wanted.rows["delivery_id"].combine_chunks())
    for name in ("quantity_units", "value_minor", "sku", "supplier_id", "scheduled_on"):
        assert batch.rows[name].filter(whose).equals(wanted.rows[name]), name
    # Dates that a spreadsheet mangled are what a person has to see to.
    assert batch.rows["ordered_on"].null_count == batch.rows.num_rows
