"""Every format that feeds come in, taken in twice, shuffled, killed half-way and with a correction.

To add a format, or a kind of document of one, add one entry to `CASES`: its mapping, as the text of one
or the name of one that ships; the bytes of two files or more, of some seven rows in all, each of which is
taken in; the bytes of a file that corrects something that they say; and how many facts history has before and
after it. What must hold of it is below, and needs nothing else.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storekeep import ingest
from storekeep.config import Settings
from storekeep.ingest.formats import FORMATS
from storekeep.lake import FACTS
from storekeep.pipeline import Pipeline, opened

pytestmark = pytest.mark.crash

ROOT = Path(__file__).parents[2]
DEATHS = 2


@dataclass(frozen=True)
class Case:
    """One format: a mapping, files of it, a file that corrects them, and the facts before and after it."""

    mapping: str
    files: tuple[bytes, ...]
    correction: bytes
    facts: int
    corrected: int


def _parquet(*rows: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


_TILL = """\
feed: pos
source: till
table: sale_line
format: csv
currency: EUR
source_columns: {receipt: text, item: text, qty: int, price: decimal, at: time}
columns:
  store_id: "'main'"
  basket_id: receipt
  sku: item
  quantity_units: qty
  value_minor: qty * price
  occurred_at: at
document: [basket_id]
"""
_HEADER = b"receipt,item,qty,price,at\n"
_WAREHOUSE = """\
feed: stock
source: warehouse
table: stock_report
format: parquet
source_columns: {item: text, there: int, at: time}
columns: {sku: item, quantity_units: there, occurred_at: at}
"""

_SHOP = """\
feed: orders
source: shop
table: sale_line
format: jsonl
currency: EUR
source_columns: {id: text, at: time, lines.sku: text, lines.qty: int, lines.total: decimal}
columns:
  store_id: "'web'"
  basket_id: id
  sku: lines.sku
  quantity_units: lines.qty
  value_minor: lines.total
  occurred_at: at
document: [basket_id]
"""


def _order(number: int, day: int, *lines: tuple[str, int, str]) -> bytes:
    rows = [{"sku": sku, "qty": qty, "total": total} for sku, qty, total in lines]
    return json.dumps({"id": number, "at": f"2026-01-{day:02}", "lines": rows}).encode() + b"\n"


def _listed(*products: dict[str, Any]) -> bytes:
    graph = [{"@type": "Product", **each} for each in products]
    return json.dumps({"@context": "https://schema.org", "@graph": graph}).encode()


CASES: dict[str, Case] = {
    "csv": Case(
        _TILL,
        (
            _HEADER + 2 * b"r1,apple,1,0.50,2026-01-01 09:00\n",
            _HEADER + b"r2,pear,2,0.40,2026-01-02 09:00\nr3,fig,5,0.40,2026-01-02 09:10\n",
            _HEADER + b"r4,pear,1,0.40,2026-01-03 09:00\n",
        ),
        # What was rung up as r3 is taken back.
        _HEADER + b"r3,fig,-5,0.40,2026-01-03 10:00\n",
        *(5, 6),
    ),
    "parquet": Case(
        _WAREHOUSE,
        (
            _parquet(
                {"item": "apple", "there": 3, "at": "2026-01-01"},
                {"item": "pear", "there": 4, "at": "2026-01-01"},
            ),
            _parquet({"item": "apple", "there": 2, "at": "2026-01-02"}),
            _parquet({"item": "pear", "there": 2, "at": "2026-01-03"}),
        ),
        _parquet({"item": "apple", "there": 1, "at": "2026-01-02"}),
        *(4, 5),
    ),
    "jsonl": Case(
        _SHOP,
        (
            _order(2**53 + 1, 1, ("apple", 1, "0.50"), ("apple", 1, "0.50"), ("fig", 2, "0.80")),
            _order(2**53 + 2, 1, ("pear", 2, "0.80")) + _order(4, 2, ("pear", 1, "0.40")),
        ),
        # The last order is taken back.
        _order(4, 3, ("pear", -1, "-0.40")),
        *(5, 6),
    ),
    "schema_org": Case(
        "schema_org_products",
        (
            _listed({"sku": "apple", "name": "Apple"}, {"sku": "pear", "gtin13": "4006381333931"}),
            _listed({"sku": "fig", "brand": {"name": "Farm"}}),
        ),
        _listed({"sku": "pear", "name": "Pear", "gtin13": "4006381333931"}),
        *(3, 4),
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


class Fed:
    """The files of a case in a folder, and a tenant of its own for each way of reading them."""

    def __init__(self, case: Case, folder: Path, home: Path) -> None:
        self.case, self.home = case, home
        self.mapping: Path | str = case.mapping
        if "\n" in case.mapping:
            self.mapping = folder / "mapping.yaml"
            self.mapping.write_text(case.mapping)
        self.files = [folder / f"{number}.file" for number in range(len(case.files))]
        for file, content in zip(self.files, case.files, strict=True):
            file.write_bytes(content)
        self.correction = folder / "correction.file"
        self.correction.write_bytes(case.correction)

    @contextmanager
    def opened(self, tenant: str | None = None) -> Iterator[Pipeline]:
        """A tenant, a new one unless one is named."""
        with opened(Settings(home=self.home, tenant=tenant or new_tenant())) as pipeline:
            yield pipeline

    def read(self, pipeline: Pipeline, files: Sequence[Path]) -> tuple[int, int]:
        """Read files; how many rows were new, and how many known before."""
        told = pipeline.read_feed(ingest.mapping(self.mapping), files, location_id="DC1")
        assert not sum(each.rejected.total() for each in told), told
        return sum(each.accepted for each in told), sum(each.duplicates for each in told)

    def state(self, pipeline: Pipeline, known_by: Any = None) -> Any:
        """What history holds, without when and by which file it came, and how the feed stands."""
        table = ingest.mapping(self.mapping).table
        facts = pipeline.lake.query(
            f"SELECT * EXCLUDE (known_at, source_file, source_line, position, fact) FROM {table}"
            " WHERE known_at <= $known_by ORDER BY ALL",
            tables={table: FACTS[table]},
            parameters={"known_by": known_by or pipeline.now()},
        )
        return facts.to_pylist(), pipeline.feeds(known_by)


@pytest.fixture
def fed(name: str, tmp_path: Path, home_settings: Settings) -> Fed:
    return Fed(CASES[name], tmp_path, home_settings.home)


def new_tenant() -> str:
    return f"t{uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def reader(home_settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Who reads files, and dies of it."""
    words = [sys.executable, "-m", "tests.contracts.reader", str(home_settings.home)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.communicate()


def test_every_format_has_a_case(tmp_path: Path, home_settings: Settings) -> None:
    found = set()
    for case in CASES.values():
        found.add(ingest.mapping(Fed(case, tmp_path, home_settings.home).mapping).format)
    assert found == FORMATS.keys()


@each_case
def test_twice_shuffled_and_with_a_correction(fed: Fed) -> None:
    with fed.opened() as pipeline:
        assert fed.read(pipeline, fed.files) == (fed.case.facts, 0)
        once = fed.state(pipeline)
        assert fed.read(pipeline, fed.files) == (0, fed.case.facts)
        assert fed.state(pipeline) == once
        before = pipeline.now()
        new, _ = fed.read(pipeline, [fed.correction])
        assert new == fed.case.corrected - fed.case.facts > 0
        corrected = fed.state(pipeline)
        assert len(corrected[0]) == fed.case.corrected
        # What was known before the correction is still what was known before it.
        assert fed.state(pipeline, before) == once
        assert fed.read(pipeline, [*fed.files, fed.correction])[0] == 0
        assert fed.state(pipeline) == corrected
    with fed.opened() as pipeline:
        fed.read(pipeline, fed.files[::-1])
        fed.read(pipeline, [fed.files[-1], fed.files[0]])
        assert fed.state(pipeline) == once


@each_case
def test_killed_half_way(fed: Fed, reader: subprocess.Popen[str]) -> None:
    files = [*fed.files, fed.correction]
    command = {"mapping": str(fed.mapping), "files": [str(each) for each in files]}

    def read(tenant: str, dies_at: int | None) -> Any:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(json.dumps({**command, "tenant": tenant, "dies_at": dies_at}) + "\n")
        reader.stdin.flush()
        return json.loads(reader.stdout.readline())

    calm, tenant = new_tenant(), new_tenant()
    moments = read(calm, None)["done"]["read"]["moments"]
    # Each death comes at another moment, and leaves all that was not done to the next.
    deaths = [
        read(tenant, moments * (1 + each) // (DEATHS + 2))["died_at"] for each in range(DEATHS)
    ]
    assert all(deaths), deaths
    assert not read(tenant, None)["failed"]
    with fed.opened(calm) as one, fed.opened(tenant) as other:
        assert fed.state(other) == fed.state(one)
