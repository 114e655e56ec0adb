"""The benchmark of features measures what it says: tables joined and served, and what differs from a peer."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from storekeep.backtest import features_bench
from storekeep.config import Settings
from storekeep.pipeline import opened


def test_labels_are_joined_as_feast_has_to(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    features_bench._made_up(folder, items=20, labels=200, features=3, days=5)
    told = features_bench.joined(folder, "256MiB")
    assert told["rows"] == 200
    found = pq.read_table(folder / "history.parquet")
    assert found.column_names == ["item_id", "event_timestamp", "f0", "f1", "f2"]
    assert 0 < found["f0"].null_count < 200
    pq.write_table(found, folder / "feast_history.parquet")
    assert features_bench._unlike(folder) == 0
    other = found.set_column(2, "f0", pc.add(found["f0"], 1.0))
    pq.write_table(other, folder / "feast_history.parquet")
    assert features_bench._unlike(folder) == 200 - found["f0"].null_count


def test_what_is_served_is_read_by_one(home_settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "online"
    features_bench._made_up(folder, items=50, labels=1, features=20, days=1)
    own = home_settings.model_copy(update={"tenant": "features_bench"})
    with opened(own) as pipeline:
        assert features_bench._materialised(pipeline, folder)[0] == 50
        told = {"p50_ms": 1000.0}
        (row,) = features_bench._reading(pipeline, own, 50, "Feast", told)
    assert row["met"]
    assert row["peer_value"] == 1000.0
