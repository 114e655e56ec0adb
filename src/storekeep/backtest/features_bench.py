"""How fast features are put beside labels and served, with Feast beside it on the same data.

Hides the made-up tables (from a seed, and every figure says so) and that what is measured for its memory runs
in a process of its own, as Feast does.

    python -m storekeep.backtest.features_bench FOLDER MEMORY

puts the features of `FOLDER/features.parquet` beside `FOLDER/labels.parquet`, writes `FOLDER/history.parquet`
and prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storekeep import servers
from storekeep.backtest.decisions_bench import Row, at_most, row, seconds
from storekeep.config import Settings
from storekeep.features import Feature, FeatureSet, Source, declaring
from storekeep.features.history import Wanted, history
from storekeep.lake import outside
from storekeep.pipeline import Pipeline, opened

DAYS = 90
CLIENTS, REQUESTS, KEYS_A_REQUEST = 16, 1_000, 100
_PEER = Path(__file__).with_name("feast_peer.py")
_DECLARED = """
from datetime import timedelta
from storekeep.features import Feature, FeatureSet, Source

items = FeatureSet(
    "item", {{"item_id": "text"}}, Source("features.parquet", "event_timestamp", "created"),
    timedelta(days=36500), "benchmark",
    tuple(Feature(f"f{{place}}", "float", "A number.", nullable=True) for place in range({many})),
)
"""


def run(settings: Settings, quick: bool, feast: Path | None = None) -> list[Row]:
    """Measure all of it; `quick` at a tenth of the size. One row a figure.

    `feast` is a Python that has Feast; without it there is nothing beside.
    """
    share = 10 if quick else 1
    with tempfile.TemporaryDirectory(prefix="storekeep-bench-") as folder:
        Path(folder).chmod(0o711)
        rows = _history(Path(folder) / "small", 1_000_000 // share, 20_000 // share, feast)
        rows += _large(Path(folder) / "large", 10_000_000 // share, 1_111_112 // share)
        own = settings.model_copy(update={"home": Path(folder) / "home", "tenant": "bench"})
        rows += _online(own, Path(folder) / "online", share, feast)
    return [*rows, _importing()]


# What is read --------------------------------------------------------------------------------------------


def _made_up(folder: Path, items: int, labels: int, features: int, days: int = DAYS) -> None:
    """Rows of some items, one a day of each, known an hour later; labels at any time of these days."""
    folder.mkdir()
    numbers = ", ".join(
        f"(hash(i, d, {place}) % 1000)::DOUBLE AS f{place}" for place in range(features)
    )
    begin = "TIMESTAMPTZ '2026-01-01 00:00:00+00'"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f"COPY (SELECT 'item-' || lpad(i::VARCHAR, 7, '0') AS item_id, event_timestamp,"
            f" event_timestamp + INTERVAL 1 HOUR AS created, {numbers} FROM (SELECT i, d, {begin}"
            " + to_microseconds((d * 86400000000 + hash(i, d) % 86400000000)::BIGINT) AS event_timestamp"
            f" FROM range({days}) days(d), range({items}) items(i)))"
            f" TO '{folder / 'features.parquet'}' (FORMAT parquet)"
        )
        connection.execute(
            "COPY (SELECT 'item-' || lpad((hash(n) % ?)::VARCHAR, 7, '0') AS item_id, "
            f" {begin} + to_microseconds((hash(n, 1) % ({days} * 86400000000))::BIGINT) AS event_timestamp"
            f" FROM range({labels}) labels(n)) TO '{folder / 'labels.parquet'}' (FORMAT parquet)",
            [items],
        )


def _declared(folder: Path, features: int) -> FeatureSet:
    return FeatureSet(
        name="item",
        keys={"item_id": "text"},
        source=Source(str(folder / "features.parquet"), "event_timestamp", "created"),
        fresh_within=timedelta(days=36_500),
        owner="benchmark",
        features=tuple(
            Feature(f"f{place}", "float", "A number.", nullable=True) for place in range(features)
        ),
    )


# History -------------------------------------------------------------------------------------------------


def joined(folder: Path, memory: str) -> dict[str, float]:
    """Put all features beside the labels, in memory before and after; how long, and the most held."""
    labels = pq.read_table(folder / "labels.parquet")
    features = len(pq.read_schema(folder / "features.parquet").names) - 3
    begun = time.perf_counter()
    declared = _declared(folder, features)
    found = outside(declared.source.path)
    wanted = Wanted(declaring.checked(declared, found), found, tuple(declared.versions))
    table = history(labels, [wanted], memory=memory).table()
    spent = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pq.write_table(table, folder / "history.parquet")
    return {"seconds": spent, "memory_mib": peak, "rows": table.num_rows}


def _apart(words: Sequence[str | Path]) -> dict[str, float]:
    """What a process of its own says on its last line."""
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  # no word of it comes from others
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _own(folder: Path, memory: str) -> dict[str, float]:
    # What starts from this process would count its memory as its own.
    return _apart([sys.executable, "-m", "storekeep.backtest.features_bench", folder, memory])


def _history(folder: Path, labels: int, items: int, feast: Path | None) -> list[Row]:
    _made_up(folder, items, labels, 4)
    ours = _own(folder, "768MiB")
    what = f"{labels:,} labels, {items * DAYS:,} simulated feature rows, 4 features, known by then"
    rows = [
        at_most(what, ours["seconds"], "s", 1.5),
        at_most(f"memory meanwhile: {what}", ours["memory_mib"], "MiB", 1024),
    ]
    if feast is None:
        return rows
    peer = _apart([feast, "-P", _PEER, "history", folder])
    ratio = peer["seconds"] / ours["seconds"]
    rows[0] |= {"peer": "Feast", "peer_value": peer["seconds"], "ratio": round(ratio, 2)}
    rows[1] |= {
        "peer": "Feast",
        "peer_value": peer["memory_mib"],
        "ratio": round(peer["memory_mib"] / ours["memory_mib"], 2),
    }
    goal = "40 times Feast"
    rows.append(row("labels joined a second, beside Feast", labels / ours["seconds"], "label/s", goal,
                    ratio >= 40, ("Feast", labels / peer["seconds"], ratio)))  # fmt: skip
    rows.append(row("labels whose features are not those of Feast", _unlike(folder), "label", "0",
                    _unlike(folder) == 0))  # fmt: skip
    return rows


def _unlike(folder: Path) -> int:
    """In how many rows the two say something else."""
    ours = pq.read_table(folder / "history.parquet")
    theirs = pq.read_table(folder / "feast_history.parquet")
    differ = np.zeros(ours.num_rows, bool)
    for name in ours.column_names:
        one, other = ours[name], theirs[name].cast(ours[name].type)
        same = pc.fill_null(pc.equal(one, other), False)
        both = pc.and_(one.is_null(), other.is_null())
        differ |= ~pc.or_(same, both).to_numpy()
    return int(differ.sum())


def _large(folder: Path, labels: int, items: int) -> list[Row]:
    """More than fits: twenty features of a hundred million rows."""
    _made_up(folder, items, labels, 20)
    ours = _own(folder, "4GiB")
    what = f"{labels:,} labels, {items * DAYS:,} simulated feature rows, 20 features"
    return [
        row(what, ours["seconds"], "s"),
        at_most(f"memory meanwhile: {what}", ours["memory_mib"], "MiB", 8192),
    ]


# Online --------------------------------------------------------------------------------------------------


def _online(own: Settings, folder: Path, share: int, feast: Path | None) -> list[Row]:
    """A million subjects are served; fewer, and the same, are beside Feast."""
    subjects = 1_000_000 // share
    _made_up(folder, subjects, 1, 20, days=1)
    with opened(own) as pipeline:
        many, spent = _materialised(pipeline, folder)
        rows = [at_most(f"materialise {many:,} keys by 20 features", spent, "s", 20)]
        rows += _reading(pipeline, own, subjects, "", None)
        fewer = folder.with_name("fewer")
        _made_up(fewer, 10_000, 1, 20, days=1)
        _ask(fewer, 10_000)
        peers = _peers(fewer, own, feast)
        with opened(own.model_copy(update={"tenant": "fewer"})) as other:
            _materialised(other, fewer)
            for name, peer in peers:
                rows += _reading(other, own, 10_000, name, peer)
    return rows


def _materialised(pipeline: Pipeline, folder: Path) -> tuple[int, float]:
    file = folder / "items.py"
    file.write_text(_DECLARED.format(many=20), encoding="utf-8")
    pipeline.declare_features(file, "benchmark")
    begun = time.perf_counter()
    many = pipeline.materialise("item")
    return many, time.perf_counter() - begun


def _requests(subjects: int) -> Iterator[list[str]]:
    chance = np.random.default_rng(42)
    for _ in range(REQUESTS):
        yield [f"item-{place:07}" for place in chance.integers(0, subjects, KEYS_A_REQUEST)]


def _ask(folder: Path, subjects: int) -> None:
    text = json.dumps(list(_requests(subjects)))
    (folder / "keys.json").write_text(text, encoding="utf-8")


def _peers(folder: Path, own: Settings, feast: Path | None) -> list[tuple[str, dict[str, float]]]:
    if feast is None:
        return []
    command: list[str | Path] = [feast, "-P", _PEER, "online", folder, "--store"]
    with servers.lease(own) as database:
        return [
            ("Feast, SQLite", _apart([*command, "sqlite"])),
            ("Feast, PostgreSQL", _apart([*command, "postgres", "--url", database.conninfo])),
        ]


def _reading(
    pipeline: Pipeline, own: Settings, subjects: int, name: str, peer: dict[str, float] | None
) -> list[Row]:
    """One client, then sixteen at once."""
    requests = [[{"item_id": item} for item in items] for items in _requests(subjects)]
    names = [f"f{place}" for place in range(20)]
    with pipeline.served() as served:
        times = _timed(partial(served.get, names=names), requests)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    what = f"read {KEYS_A_REQUEST} keys by 20 features of {subjects:,}"
    half, most = 1000 * cuts[49], 1000 * cuts[98]
    if peer is not None:
        ratio = peer["p50_ms"] / half
        beside = (name, peer["p50_ms"], ratio)
        return [
            row(f"{what}, median, beside {name}", half, "ms", "8 times Feast", ratio >= 8, beside)
        ]
    context = get_context("spawn")
    with ProcessPoolExecutor(CLIENTS, context) as pool:
        list(pool.map(_warm, [own] * CLIENTS))
        spent = seconds(lambda: list(pool.map(_client, [(own, subjects)] * CLIENTS)))
    return [
        at_most(f"{what}, median", half, "ms", 1.5),
        at_most(f"{what}, 99th percentile", most, "ms", 5),
        row(f"{what}, {CLIENTS} clients at once", CLIENTS * 200 / spent, "request/s"),
    ]


def _timed(get: Callable[[Any], object], requests: Sequence[Any]) -> list[float]:
    for one in requests[:20]:
        get(one)
    return [seconds(partial(get, one)) for one in requests]


def _warm(own: Settings) -> None:
    with opened(own) as pipeline, pipeline.served() as served:
        served.get([{"item_id": "item-0000001"}], ["f0"])


def _client(told: tuple[Settings, int]) -> None:
    own, subjects = told
    names = [f"f{place}" for place in range(20)]
    with opened(own) as pipeline, pipeline.served() as served:
        for items, _ in zip(_requests(subjects), range(200), strict=False):
            served.get([{"item_id": item} for item in items], names)


def _importing() -> Row:
    command = [sys.executable, "-c", "import storekeep.features"]
    best = min(seconds(partial(subprocess.run, command, check=True)) for _ in range(3))
    return at_most("import of storekeep.features, the interpreter's start included", best, "s", 0.5)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(joined(Path(sys.argv[1]), sys.argv[2])) + "\n")
