"""UCI Online Retail into a live home by the command: any order, twice, overlapping, killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pytest

from storekeep.config import Settings
from storekeep.lake import SALE_LINES
from storekeep.pipeline import opened
from storekeep.retail import STOCK_COUNT
from tests.external.test_uci import ARCHIVE

pytestmark = [
    pytest.mark.external,
    pytest.mark.slow,
    pytest.mark.skipif(not ARCHIVE.exists(), reason="../shared/data/uci_online_retail is absent"),
]
ROOT = Path(__file__).parents[2]
MANY = 12
NOT_GOODS = ["POST", "DOT", "C2", "M", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS"]
# Told a tenant and a number, a child of it reads files in small batches, and dies before or after its
# so-manieth write to the bus or to the lake; its code is the answer. What was imported before costs no child
# anything.
CHILD = """
import os, sys, traceback
from pathlib import Path
from storekeep import bus, ingest, lake
from storekeep.config import Settings
from storekeep.pipeline import opened
from tests.dying import counted, die_at
home, *files = sys.argv[1:]
bus.MAX_FACTS = 3000
bus.append, lake.Lake.append = counted(bus.append), counted(lake.Lake.append)
def take_in(tenant):
    with opened(Settings(home=home, tenant=tenant)) as pipeline:
        pipeline.read_feed(ingest.mapping("uci_online_retail"), [Path(each) for each in files])
for line in sys.stdin:
    tenant, number = line.split()
    child = os.fork()
    if child == 0:
        die_at(int(number))
        try:
            take_in(tenant)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def reading(home: Settings, *files: Path) -> Iterator[Callable[[str, int], int]]:
    """Who reads these files for a tenant and dies at its so-manieth write, never at 0; how it ended."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(home.home), *map(str, files)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        into, out = process.stdin, process.stdout
        assert into is not None
        assert out is not None

        def read(tenant: str, dies_at: int) -> int:
            into.write(f"{tenant} {dies_at}\n")
            into.flush()
            return int(out.readline())

        yield read
        into.close()


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("days")
    with zipfile.ZipFile(ARCHIVE) as archive:
        for name in sorted(archive.namelist())[:MANY]:
            archive.extract(name, folder)
    return sorted(folder.rglob("*.csv"))


@pytest.fixture
def home(home_settings: Settings) -> Settings:
    return Settings(home=home_settings.home, tenant=f"u{uuid4().hex[:12]}")


def start(home: Settings, *words: object) -> subprocess.Popen[str]:
    environ = {**os.environ, "STOREKEEP_HOME": str(home.home), "STOREKEEP_TENANT": home.tenant}
    return subprocess.Popen(
        [sys.executable, "-m", "storekeep", *map(str, words), "--json"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer(home: Settings, *words: object) -> Any:
    running = start(home, *words)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    return json.loads(out)


def pos(*files: Path) -> tuple[object, ...]:
    return ("ingest", "pos", *files, "--mapping", "mappings/uci_online_retail.yaml")


def state(home: Settings) -> dict[str, Any]:
    """All that can be told of the home's sales: feeds, each line, and what each row in quarantine says."""
    (feed,) = answer(home, "feeds")
    with opened(home) as pipeline:
        names = (
            "line_key, location_id, sku, quantity_units, value_minor, customer_id, day, occurred_at"
        )
        lines = pipeline.lake.query(
            f"SELECT {names} FROM sale ORDER BY ALL", tables={"sale": SALE_LINES}
        )
        raws = sorted(pipeline.aside()["raw"].to_pylist())
        tree = pipeline.lineage("sale_line")
    assert tree["rows"] == tree["rows_of_runs"] == lines.num_rows
    assert all(each["kind"] == "file" for run in tree["inputs"] for each in run["inputs"])
    return {"feed": feed, "lines": lines.to_pylist(), "raws": raws}


def published(days: Sequence[Path]) -> dict[str, Any]:
    """What the raw files hold, by another road and in the mapping's own words."""
    raw = pd.concat([pd.read_csv(day, dtype=str, keep_default_na=False) for day in days])
    units, pounds = raw.Quantity.astype(int), raw.UnitPrice.astype(float)
    code = raw.StockCode.str.upper()
    rule = pd.Series("", raw.index).reset_index(drop=True)
    tests = {
        "without_price": pounds == 0,
        "stock_adjustment": (units < 0) & ~raw.InvoiceNo.str.startswith("C"),
        "not_goods": code.isin(NOT_GOODS) | code.str.startswith("GIFT_"),
        "bad_debt": raw.InvoiceNo.str.startswith("A"),
    }
    # The first rule that speaks has the last word here.
    for name, holds in tests.items():
        rule[holds.to_numpy()] = name
    kept = (rule == "").to_numpy()
    sold, units = raw[kept], units[kept]
    pence = (units * (pounds[kept] * 1000).round().astype(int) / 10).map(
        lambda exact: int(abs(exact) + 0.5) * (1 if exact > 0 else -1)
    )
    at = pd.to_datetime(sold.InvoiceDate)
    return {
        "lines": len(sold),
        "orders": sold.InvoiceNo.nunique(),
        "distinct_skus": code[kept].nunique(),
        "lines_without_customer": int((sold.CustomerID == "").sum()),
        # It is winter in London: its clocks show UTC.
        "first_occurred_at": f"{at.min():%Y-%m-%dT%H:%M:%S}.000000Z",
        "last_occurred_at": f"{at.max():%Y-%m-%dT%H:%M:%S}.000000Z",
        "units": {"net": int(units.sum()), "gross": int(units[units > 0].sum())},
        "value_minor": {"GBP": {"net": int(pence.sum()), "gross": int(pence[units > 0].sum())}},
        "rejected": {
            name: int(many) for name, many in sorted(rule[rule != ""].value_counts().items())
        },
    }


def test_the_figures_are_those_of_the_raw_files(home: Settings, days: list[Path]) -> None:
    told = answer(home, *pos(*days))
    feed = state(home)["feed"]
    wanted = published(days)
    standing = {"state": "ok", "reasons": [], "new_columns": []}
    assert feed == {"feed": "pos", "source": "uci_online_retail", **standing, **wanted}
    totals = told["totals"]
    assert (totals["accepted"], totals["rejected"]) == (wanted["lines"], wanted["rejected"])
    for day, one in zip(days, told["files"], strict=True):
        assert one["file"] == day.name
        assert (
            one["read"] == len(pd.read_csv(day)) == one["accepted"] + sum(one["rejected"].values())
        )


def test_out_of_order_overlapping_and_twice_is_the_same(
    home: Settings, home_settings: Settings, days: list[Path], tmp_path: Path
) -> None:
    answer(home, *pos(*days))
    other = Settings(home=home_settings.home, tenant=f"u{uuid4().hex[:12]}")
    header = days[0].read_text().partition("\n")[0]
    both = tmp_path / "two-days.csv"
    parts = [day.read_text().partition("\n")[2] for day in (days[4], days[3])]
    both.write_text("\n".join([header, *(part.rstrip("\n") for part in parts)]) + "\n")
    answer(other, *pos(both))
    answer(other, *pos(*days[::-2]))
    totals = answer(other, *pos(*days))["totals"]
    assert totals["accepted"] > 0
    assert totals["duplicates"] > totals["accepted"]
    assert state(other) == state(home)


def counted(home: Settings, days: Sequence[Path]) -> None:
    """Somebody counts every item of these days before anything is sold."""
    skus = sorted(
        {sku for day in days for sku in pd.read_csv(day, dtype=str).StockCode.str.upper()}
    )
    at = datetime(2010, 1, 1, tzinfo=UTC)
    rows = [
        {"location_id": "web", "sku": sku, "quantity_units": 400, "occurred_at": at, "known_at": at}
        for sku in skus
    ]
    with opened(home) as pipeline:
        facts = pa.Table.from_pylist(rows, schema=STOCK_COUNT.arrow)
        pipeline.publish("StockCounted", "shelf", "web", facts)
        pipeline.move_stock()


def stock(home: Settings) -> pa.Table:
    with opened(home) as pipeline, pipeline.store.transaction(home.tenant) as tx:
        return tx.stock("web")


@pytest.mark.crash
def test_killed_between_files_and_in_the_middle_of_one(
    home: Settings, home_settings: Settings, days: list[Path], tmp_path: Path
) -> None:
    """Killed at every write in turn, and run again, until it comes to its end."""
    chosen = days[:5]
    header = days[0].read_text().partition("\n")[0]
    rest = [day.read_text().partition("\n")[2].rstrip("\n") for day in chosen[1:]]
    large = tmp_path / "large.csv"
    large.write_text("\n".join([header, *rest]) + "\n")
    counted(home, chosen)
    other = Settings(home=home_settings.home, tenant=f"u{uuid4().hex[:12]}")
    counted(other, chosen)
    seen, moment, code = list[int](), 0, -signal.SIGKILL
    with reading(home, chosen[0], large, chosen[2]) as read:
        assert read(home.tenant, 0) == 0
        while code == -signal.SIGKILL:
            moment += 1
            code = read(other.tenant, moment)
            with opened(other) as pipeline:
                seen.append(sum(feed["lines"] for feed in pipeline.feeds()))
    assert code == 0
    print(f"killed {moment - 1} times; lines after each: {seen}")
    assert len(set(seen)) > 3
    assert state(other) == state(home)
    assert stock(other) == stock(home)
    again = answer(other, *pos(chosen[0], large))["totals"]
    assert again["accepted"] == 0
    with opened(other) as pipeline:
        pipeline.rebuild_stock()
    assert stock(other) == stock(home)
