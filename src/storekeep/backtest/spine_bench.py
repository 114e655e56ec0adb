"""How fast the spine is: lines in, decisions out, from event to decision, and how much memory it takes.

Hides the set-up: a home of its own in a temporary folder, the Complete Journey panel, a few days played. What
a user would write instead of the intake (pandas and COPY) does the same reading beside it, in the same run.
"""

from __future__ import annotations

import importlib
import io
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from storekeep import ingest, servers
from storekeep.backtest.demonstration import (
    LOCATION,
    Clock,
    Play,
    Progress,
    Stopwatch,
    known,
    own_peak_mib,
)
from storekeep.backtest.sales import Sales, panel, period
from storekeep.config import Settings
from storekeep.pipeline import Pipeline, opened

Row = dict[str, Any]


def run(settings: Settings, quick: bool) -> list[Row]:
    """Measure the spine on the panel; `quick` on a tenth of the days and repetitions. One row a figure."""
    with tempfile.TemporaryDirectory(prefix="storekeep-bench-") as folder:
        Path(folder).chmod(0o711)
        own = settings.model_copy(update={"home": Path(folder) / "home", "tenant": "bench"})
        clock, watch = Clock(datetime.now(UTC)), Stopwatch()
        with opened(own, now=clock, purpose="demo") as pipeline:
            with watch("read"):
                sales = panel(LOCATION, clock.now, lambda _: None)
            days = 3 if quick else 30
            play = Play(pipeline, clock, sales, period(sales, days, None, None), 1, watch)
            with watch("take in"):
                play.prepare(Progress())
            lines = play.accepted
            for day in play.period.days:
                play.day(day)
            spent = watch.seconds["read"] + watch.seconds["take in"]
            taken = lines / spent
            beside = _pandas(own, 1 if quick else 3)
            return [
                _row(
                    "sale lines from file to log and lake",
                    taken,
                    "line/s",
                    "pandas and COPY",
                    beside,
                ),
                *_decisions(play, watch),
                *_latency(pipeline, clock, sales, 5 if quick else 50),
                _row("memory of the process, at most", own_peak_mib(), "MiB"),
                _row("memory of PostgreSQL, at most", play.server_mib, "MiB"),
            ]


def _row(
    figure: str, value: float, unit: str, peer: str | None = None, peer_value: float | None = None
) -> Row:
    return {
        "figure": figure,
        "value": round(value, 3),
        "unit": unit,
        "goal": None,
        "met": None,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 3),
        "ratio": None if not peer_value else round(value / peer_value, 2),
    }


def _decisions(play: Play, watch: Stopwatch) -> list[Row]:
    counts = play.report()["decisions"]
    many = sum(counts.values())
    return [
        _row(
            "decisions judged and recorded", many / watch.seconds["decide and record"], "decision/s"
        ),
        _row("order lines placed, outcome recorded", many / watch.seconds["act"], "line/s"),
    ]


def _latency(pipeline: Pipeline, clock: Clock, sales: Sales, times: int) -> list[Row]:
    """From a hundred sale lines given to the intake until the decision on them is committed."""
    spent = []
    rows = sales.rows.slice(sales.rows.num_rows - 100 * times, 100 * times)
    for place in range(times):
        clock.now += timedelta(seconds=1)
        part = known(_renamed(rows.slice(100 * place, 100), place), clock.now)
        spent.append(_seconds(partial(_decide, pipeline, part)))
    low, high = np.percentile(spent, [50, 99])
    return [
        _row("from event to recorded decision, median", float(low), "s"),
        _row("from event to recorded decision, 99th percentile", float(high), "s"),
    ]


def _renamed(rows: pa.Table, place: int) -> pa.Table:
    """The same lines as lines that nobody has seen yet."""
    keys = pa.array([f"{place}/{key}" for key in rows["line_key"].to_pylist()])
    return rows.set_column(rows.column_names.index("line_key"), rows.schema.field("line_key"), keys)


def _decide(pipeline: Pipeline, part: pa.Table) -> None:
    pipeline.take_in(part, "bench", LOCATION)
    pipeline.keep_history()
    pipeline.update_features(LOCATION, part["day"][0].as_py())
    pipeline.decide(LOCATION)


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _pandas(settings: Settings, times: int) -> float:
    """Lines a second that pandas reads, joins to products, filters and copies into one table."""
    files = ingest.complete_journey_files()
    database = servers.ensure(settings)
    best = min(_seconds(lambda: _copy(files, database.conninfo)) for _ in range(times))
    return float(pq.read_metadata(files["transactions"]).num_rows / best)


def _copy(files: dict[str, Path], conninfo: str) -> None:
    pd = importlib.import_module("pandas")

    lines = pd.read_parquet(files["transactions"]).merge(
        pd.read_parquet(files["products"])[["product_id", "department"]], on="product_id"
    )
    lines = lines[(lines.quantity > 0) & (lines.department != "FUEL")].drop_duplicates()
    text = io.StringIO()
    lines.to_csv(text, index=False, header=False)
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
        columns = ", ".join(f'"{name}" text' for name in lines.columns)
        cursor.execute(f"CREATE TEMP TABLE line ({columns}) ON COMMIT DROP".encode())
        with cursor.copy("COPY line FROM STDIN (FORMAT csv)") as copy:
            copy.write(text.getvalue())
