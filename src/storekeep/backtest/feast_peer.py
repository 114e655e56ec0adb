"""Feast at the work of the benchmark of features: what was known at each label, and the latest of some keys.

A program of its own that imports nothing of Storekeep: Feast wants an older pandas, so it runs under another
Python, of which `benchmarks/peers.py` says where it is. Hides how Feast is set up and asked, at its best:
labels in memory before the clock starts, only the latest rows materialised, the registry never read again,
keys by column, a first question before those that are timed.

    python -P feast_peer.py history FOLDER
    python -P feast_peer.py online FOLDER --store sqlite
    python -P feast_peer.py online FOLDER --store postgres --url URL

`FOLDER` holds `features.parquet` (`item_id`, `event_timestamp`, `created` and the features); for history
`labels.parquet` (`item_id`, `event_timestamp`), for online lists of item ids in `keys.json`; and `view.json`
where not all features are asked for or they go stale: `{"ttl_hours": 48, "features": ["f0", "f1"]}`. What was
measured is one line of JSON on stdout; what Feast says goes to stderr. An answer that is not in the Parquet
ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

CLIENTS = 16
_WARM = 20
_ROWS_A_WRITE = 10_000
_ROW = "row_number"
_NOT_FEATURES = ("item_id", "event_timestamp", "created")
_SCHEMA = "feast_peer"
_LATEST = """
    SELECT * FROM read_parquet(?)
    QUALIFY row_number() OVER (PARTITION BY item_id ORDER BY event_timestamp DESC, created DESC) = 1
"""

Told = dict[str, float]
Answer = Mapping[str, Sequence[Any]]


def history(folder: Path) -> Told:
    """Join the labels with what was known at each, and keep the rows in the labels' order."""
    importing = _seconds(_feast)
    parquet = importlib.import_module("pyarrow.parquet")
    compute = importlib.import_module("pyarrow.compute")
    labels = parquet.read_table(folder / "labels.parquet").to_pandas()
    labels[_ROW] = range(len(labels))
    with tempfile.TemporaryDirectory(prefix="feast-", dir=folder) as place:
        store, asked = _applied(folder, _config(Path(place)))

        def joined(rows: Any) -> Any:
            # So that a row that was created after a label is not seen by it.
            job = store.get_historical_features(rows, asked, filter_by_created_timestamp=True)
            return job.to_arrow()

        joined(labels.head(_WARM))
        begun = time.perf_counter()
        table = joined(labels)
        spent = time.perf_counter() - begun
    memory = _peak_mib()
    table = table.take(compute.sort_indices(table[_ROW])).drop_columns([_ROW])
    parquet.write_table(table, folder / "feast_history.parquet")
    return {
        "import_seconds": round(importing, 3),
        "seconds": round(spent, 3),
        "memory_mib": round(memory, 1),
        "rows": table.num_rows,
    }


def online(folder: Path, url: str | None) -> Told:
    """Materialise the latest rows; read each request alone, then all of them by sixteen clients at once."""
    requests = json.loads((folder / "keys.json").read_text(encoding="utf-8"))
    _feast()
    with tempfile.TemporaryDirectory(prefix="feast-", dir=folder) as place, _kept(url) as kept:
        config = _config(Path(place), kept)
        with _clients(config, _asked(folder), requests) as gate:
            store, asked = _applied(folder, config)
            keys, spent = _materialised(folder, store)
            _analysed(url)
            times, answers = _read(store, asked, requests)
            _compare(folder, requests, answers)
            gate.wait()  # They may open the store,
            gate.wait()  # have all done so,
            together = _seconds(gate.wait)  # and have read what there is.
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {
        "materialise_seconds": round(spent, 3),
        "keys": keys,
        "requests": len(requests),
        "p50_ms": round(1000 * cuts[49], 3),
        "p99_ms": round(1000 * cuts[98], 3),
        "clients": CLIENTS,
        "requests_per_second": round(len(requests) / together, 1),
    }


# How Feast is set up -----------------------------------------------------------------------------------


def _feast() -> Any:
    return importlib.import_module("feast")


def _config(place: Path, online_store: Mapping[str, Any] | None = None) -> Any:
    """Everything in a folder that goes with the run, but for what another store keeps."""
    return importlib.import_module("feast.repo_config").RepoConfig(
        project="peer",
        provider="local",
        # A registry in memory that never grows old is the fastest one.
        registry={"path": str(place / "registry.db"), "cache_ttl_seconds": 0},
        offline_store={"type": "duckdb"},
        online_store=online_store or {"type": "sqlite", "path": str(place / "online.db")},
        materialization={
            "pull_latest_features": True,
            "online_write_batch_size": _ROWS_A_WRITE,
        },
    )


def _applied(folder: Path, config: Any) -> tuple[Any, list[str]]:
    """A store that knows the features of the folder, and the names by which they are asked for."""
    feast, types = _feast(), importlib.import_module("feast.types")
    path = folder / "features.parquet"
    schema = importlib.import_module("pyarrow.parquet").read_schema(path)
    kinds = {"double": types.Float64, "int64": types.Int64}
    item = feast.Entity(
        name="item",
        join_keys=["item_id"],
        value_type=importlib.import_module("feast.value_type").ValueType.STRING,
    )
    view = feast.FeatureView(
        name="view",
        entities=[item],
        ttl=timedelta(hours=_view(folder).get("ttl_hours", 0)),
        schema=[
            feast.Field(name=each, dtype=kinds[str(schema.field(each).type)])
            for each in _names(folder)
        ],
        source=feast.FileSource(
            path=str(path.resolve()),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store = feast.FeatureStore(config=config)
    store.apply([item, view])
    return store, _asked(folder)


def _view(folder: Path) -> dict[str, Any]:
    path = folder / "view.json"
    view: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return view


def _names(folder: Path) -> list[str]:
    schema = importlib.import_module("pyarrow.parquet").read_schema(folder / "features.parquet")
    every = [name for name in schema.names if name not in _NOT_FEATURES]
    return list(_view(folder).get("features", every))


def _asked(folder: Path) -> list[str]:
    return [f"view:{name}" for name in _names(folder)]


@contextlib.contextmanager
def _kept(url: str | None) -> Iterator[dict[str, Any] | None]:
    """Feast's settings for the database at that address, in a schema of its own that ends with the run."""
    if url is None:
        yield None
        return
    told = importlib.import_module("psycopg.conninfo").conninfo_to_dict(url)
    _executed(url, f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
    try:
        yield {
            "type": "postgres",
            "host": told["host"],
            "port": int(told.get("port", 5432)),
            "database": told["dbname"],
            "user": told["user"],
            "password": told.get("password", ""),
            "sslmode": told.get("sslmode", "prefer"),
            "db_schema": _SCHEMA,
        }
    finally:
        _executed(url, f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


def _analysed(url: str | None) -> None:
    """What is read next is planned by what is there now, not when the server comes to it by itself."""
    if url is not None:
        _executed(url, "VACUUM ANALYZE")


def _executed(url: str, statement: str) -> None:
    with importlib.import_module("psycopg").connect(url, autocommit=True) as connection:
        connection.execute(statement)


# What Feast is asked -----------------------------------------------------------------------------------


def _materialised(folder: Path, store: Any) -> tuple[int, float]:
    """How many keys there are, and how long it takes to make their latest rows ready to be read."""
    duckdb = importlib.import_module("duckdb")
    keys, first, last = duckdb.execute(
        "SELECT count(DISTINCT item_id), min(event_timestamp), max(event_timestamp)"
        " FROM read_parquet(?)",
        [str(folder / "features.parquet")],
    ).fetchone()
    return keys, _seconds(lambda: store.materialize(first, last))


def _read(
    store: Any, asked: list[str], requests: Sequence[Sequence[str]]
) -> tuple[list[float], list[Answer]]:
    """How long each request takes, one after another, and what came back."""
    for keys in requests[:_WARM]:
        _answer(store, asked, keys)
    times, answers = [], []
    for keys in requests:
        begun = time.perf_counter()
        answers.append(_answer(store, asked, keys))
        times.append(time.perf_counter() - begun)
    return times, answers


def _answer(store: Any, asked: list[str], keys: Sequence[str]) -> Answer:
    answer: Answer = store.get_online_features(asked, {"item_id": keys}).to_dict()
    return answer


@contextlib.contextmanager
def _clients(config: Any, asked: list[str], requests: Sequence[Sequence[str]]) -> Iterator[Barrier]:
    """Sixteen processes that share the requests: at the gate before the first and after the last.

    Made before anything starts threads: a process that is copied with threads in it may never wake, and
    one that is not copied imports Feast again. Python holds back threads that work as hard as Feast does.
    """
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(CLIENTS + 1)
    clients = [
        context.Process(
            target=_client, args=(config, asked, requests[own::CLIENTS], gate), daemon=True
        )
        for own in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        yield gate
    finally:
        for client in clients:
            client.terminate()
            client.join()


def _client(
    config: Any, asked: list[str], requests: Sequence[Sequence[str]], gate: Barrier
) -> None:
    gate.wait()
    try:
        store = _feast().FeatureStore(config=config)
        for keys in requests[:_WARM]:
            _answer(store, asked, keys)
        gate.wait()
        for keys in requests:
            _answer(store, asked, keys)
        gate.wait()
    except BaseException:
        gate.abort()
        raise


def _compare(folder: Path, requests: Sequence[Sequence[str]], answers: Sequence[Answer]) -> None:
    """End the run if an answer is not what the Parquet has last for its key."""
    latest = importlib.import_module("duckdb").execute(_LATEST, [str(folder / "features.parquet")])
    table = latest.to_arrow_table()
    places = {key: place for place, key in enumerate(table["item_id"].to_pylist())}
    for name in _names(folder):
        values = table[name].to_pylist()
        for keys, answer in zip(requests, answers, strict=True):
            for key, got in zip(keys, answer[name], strict=True):
                place = places.get(key)
                if got != (None if place is None else values[place]):
                    raise SystemExit(
                        f"Feast answers {got} for {name} of {key}; that is not in the Parquet"
                    )


# What is measured --------------------------------------------------------------------------------------


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _peak_mib() -> float:
    """The most memory that this process held; what `getrusage` says counts the one that started it, too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return (
        next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
        / 1024
    )


def main(words: Sequence[str]) -> None:
    """Measure what is asked for, and say it in one line."""
    parser = argparse.ArgumentParser(description="Measure Feast at what a benchmark has written.")
    parser.add_argument("what", choices=["history", "online"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--url", help="of the database, for the store in PostgreSQL")
    asked = parser.parse_args(words)
    if (asked.store == "postgres") != (asked.url is not None):
        parser.error("--url goes with --store postgres, and with nothing else")
    with contextlib.redirect_stdout(sys.stderr):
        told = history(asked.folder) if asked.what == "history" else online(asked.folder, asked.url)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
