"""Feast is asked what Storekeep is: it answers what was known at each label, and the latest of each key."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storekeep.backtest import feast_peer

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-feast" / "bin" / "python"
TTL = timedelta(hours=48)
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
ITEMS, DAYS = [f"item-{place:03}" for place in range(40)], 10
FEATURES = ["f0", "f1"]
TIME = pa.timestamp("us", "UTC")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row], list[Row]]:
    """Most days of each item, known hours later, a third of them corrected; labels from before to after them.

    One item of the labels and of the keys has no features at all.
    """
    folder, chance = tmp_path_factory.mktemp("feast"), np.random.default_rng(5)
    features = []
    for item, day in product(ITEMS, range(DAYS)):
        if chance.random() < 0.2:
            continue
        at = BEGIN + timedelta(days=day, minutes=int(chance.integers(1_440)))
        created = at + timedelta(minutes=int(chance.integers(600)))
        features.append(row(item, at, created, chance))
        if chance.random() < 1 / 3:
            features.append(row(item, at, created + timedelta(hours=5), chance))
    labels = [
        {
            "item_id": str(chance.choice([*ITEMS, "unheard-of"])),
            "event_timestamp": BEGIN + timedelta(minutes=int(chance.integers(-2_880, 20_000))),
        }
        for _ in range(400)
    ]
    keys = [*ITEMS[:5], "unheard-of", *ITEMS[5:]]
    kinds = {"item_id": pa.string(), "event_timestamp": TIME}
    more = {"created": TIME, "f0": pa.float64(), "f1": pa.int64()}
    pq.write_table(
        pa.Table.from_pylist(features, pa.schema({**kinds, **more})), folder / "features.parquet"
    )
    pq.write_table(pa.Table.from_pylist(labels, pa.schema(kinds)), folder / "labels.parquet")
    (folder / "keys.json").write_text(json.dumps([keys, *([item] for item in ITEMS)]))
    (folder / "view.json").write_text(json.dumps({"ttl_hours": 48, "features": FEATURES}))
    return folder, features, labels


def row(item: str, at: datetime, created: datetime, chance: np.random.Generator) -> Row:
    values = {"f0": float(chance.random()), "f1": int(chance.integers(1_000))}
    return {"item_id": item, "event_timestamp": at, "created": created, **values}


def known(label: Row, features: list[Row]) -> Row:
    """The label with the newest row of its item that was there, was known and was not stale at its time."""
    at = label["event_timestamp"]
    seen = [
        each
        for each in features
        if each["item_id"] == label["item_id"]
        and each["event_timestamp"] <= at <= each["event_timestamp"] + TTL
        and each["created"] <= at
    ]
    newest = max(seen, key=lambda each: (each["event_timestamp"], each["created"]), default={})
    return label | {name: newest.get(name) for name in FEATURES}


@pytest.mark.slow
@pytest.mark.skipif(
    not PYTHON.exists(), reason="Feast is not installed: python benchmarks/peers.py"
)
def test_feast_answers_what_was_known_and_what_is_the_latest(
    written: tuple[Path, list[Row], list[Row]], conninfo: str
) -> None:
    folder, features, labels = written
    database = ["--store", "postgres", "--url", conninfo]
    every = [["online"], ["online", *database], ["history"]]
    # One process for all, since Feast takes some ten seconds to import.
    program = (
        "import feast_peer, json, sys\nfor words in json.loads(sys.argv[1]): feast_peer.main(words)"
    )
    done = subprocess.run(
        [PYTHON, "-c", program, json.dumps([[*words, str(folder)] for words in every])],
        env=os.environ | {"PYTHONPATH": str(Path(feast_peer.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *online, history = map(json.loads, done.stdout.splitlines())
    assert len(online) == 2
    for told in online:
        assert told["keys"] == len(ITEMS)
        assert told["requests"] == len(ITEMS) + 1
        assert 0 < told["p50_ms"] <= told["p99_ms"]
        assert min(told["materialise_seconds"], told["requests_per_second"]) > 0
    assert history["rows"] == len(labels)
    assert min(history["seconds"], history["memory_mib"]) > 0
    answered = pq.read_table(folder / "feast_history.parquet").to_pylist()
    wanted = [known(label, features) for label in labels]
    assert answered == wanted
    assert 100 < sum(each["f0"] is not None for each in wanted) < 350


def test_an_answer_that_is_not_in_the_parquet_ends_the_run(
    written: tuple[Path, list[Row], list[Row]],
) -> None:
    folder, features, _ = written
    item = ITEMS[0]
    last = max(
        (each for each in features if each["item_id"] == item),
        key=lambda each: (each["event_timestamp"], each["created"]),
    )
    right = {name: [last[name], None] for name in FEATURES}
    requests = [[item, "unheard-of"]]
    feast_peer._compare(folder, requests, [right])
    with pytest.raises(SystemExit, match="f1 of item-000"):
        feast_peer._compare(folder, requests, [right | {"f1": [last["f1"] + 1, None]}])
    with pytest.raises(SystemExit, match="f0 of unheard-of"):
        feast_peer._compare(folder, requests, [right | {"f0": [last["f0"], 0.5]}])


@pytest.mark.parametrize("words", [["--store", "postgres"], ["--url", "postgresql://x/y"]])
def test_an_address_goes_with_the_store_in_postgresql(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        feast_peer.main(["online", str(tmp_path), *words])
