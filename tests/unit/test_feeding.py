"""`ingest` and `feeds` on a live home, as a person asks them: files in, quarantine, and how feeds stand."""

from __future__ import annotations

import gzip
import json
import random
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storekeep import bus, ingest
from storekeep.config import Settings
from storekeep.errors import Misused, Refused
from storekeep.lake import PRODUCTS, SALE_LINES, outside_log
from storekeep.pipeline import Pipeline, opened
from storekeep.pipeline.feeding import _together
from storekeep.retail import FEED_STATE, PRODUCT, STOCK_COUNT
from storekeep.store import Transaction
from tests.shop import Clock
from tests.unit.test_cli import ask, told
from tests.unit.test_ingest import HEADER, LINE, TILL

RULES = """\
rules:
  - id: free
    when: price = 0
    do: reject
    reason: what is given away is no sale
"""
MENDED = RULES.replace("price = 0", "price < 0")


def line(
    number: int, day: int = 1, item: str = "apple", quantity: object = 1, price: str = "0.50"
) -> str:
    return f"r{number},{item},{quantity},{price},2026-01-{day:02} 09:00:00\n"


@dataclass(frozen=True)
class Home:
    """A live tenant, a folder for files, and a mapping."""

    settings: Settings
    folder: Path
    mapping: Path

    def ask(self, *words: object) -> Result:
        return ask(*words, "--home", self.settings.home)

    def pos(self, *files: object, **options: object) -> Any:
        more = [word for name, value in options.items() for word in (f"--{name}", value)]
        words = ("ingest", "pos", *files, "--mapping", self.mapping, "--json", *more)
        return told(self.ask(*words))

    def file(self, name: str, *lines: str, content: bytes | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if content is not None else (HEADER + "".join(lines)).encode())
        return path

    def feeds(self, *words: object) -> Any:
        return told(self.ask("feeds", "--json", *words))

    def quarantine(self, *words: object) -> Any:
        return told(self.ask("ingest", "quarantine", *words, "--json"))


@pytest.fixture
def home(home_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    tenant = f"f{uuid4().hex[:12]}"
    # The settings' own tenant is made when it is first used.
    monkeypatch.setenv("STOREKEEP_TENANT", tenant)
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(TILL + RULES)
    return Home(Settings(home=home_settings.home, tenant=tenant), tmp_path, mapping)


def facts_of_sales(pipeline: Pipeline) -> list[dict[str, Any]]:
    """What history holds of sales."""
    rows = pipeline.lake.query("SELECT * FROM sale ORDER BY line_key", tables={"sale": SALE_LINES})
    return list(rows.to_pylist())


def history(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The same, without when it came to be known and by which file."""
    apart = {"known_at", "source_file", "source_line", "position", "fact"}
    return [
        {name: value for name, value in row.items() if name not in apart}
        for row in facts_of_sales(pipeline)
    ]


# Files in ---------------------------------------------------------------------------------------------


def test_a_file_is_taken_in_and_each_of_its_lines_accounted_for(home: Home) -> None:
    file = home.file(
        "a.csv", LINE, LINE, line(2, quantity="two"), line(3, price="0"), "short\n", "\n"
    )
    counts = {
        "read": 6,
        "accepted": 2,
        "duplicates": 0,
        "rejected": {"free": 1, "malformed": 1, "unreadable": 1},
        "ignored": {"blank": 1},
        "repaired": {},
    }
    assert home.pos(file) == {
        "feed": "pos",
        "source": "corner_shop",
        "files": [{"file": "a.csv", "unmapped": [], **counts}],
        "totals": counts,
    }
    again = home.pos(file)["totals"]
    assert again == {**counts, "accepted": 0, "duplicates": 2}


def test_text_for_a_person_says_the_same(home: Home) -> None:
    file = home.file("a.csv", LINE, LINE, line(2, quantity="two"))
    said = home.ask("ingest", "pos", file, "--mapping", home.mapping)
    assert "a.csv      3         2      0  unreadable 1" in said.stdout
    assert "3 lines read: 2 taken in, 0 known before, 1 rejected, 0 ignored." in said.stdout
    assert "Taking in 1 file" in said.stderr


def test_a_sale_is_of_its_store_or_where_one_says(home: Home) -> None:
    home.pos(home.file("a.csv", line(1)))
    home.pos(home.file("b.csv", line(2)), location="DC7")
    with opened(home.settings) as pipeline:
        assert pipeline.locations() == ["DC7", "main"]


def test_stock_moves_once(home: Home) -> None:
    at = datetime(2025, 12, 31, tzinfo=UTC)
    count = {
        "location_id": "main",
        "sku": "apple",
        "quantity_units": 50,
        "occurred_at": at,
        "known_at": at,
    }
    with opened(home.settings) as pipeline:
        facts = pa.Table.from_pylist([count], schema=STOCK_COUNT.arrow)
        pipeline.publish("StockCounted", "shelf", "main", facts)
    file = home.file("a.csv", line(1, quantity=3), line(2, quantity=4))
    for _ in range(2):
        home.pos(file)
    with opened(home.settings) as pipeline, pipeline.store.transaction(pipeline.tenant) as tx:
        assert tx.stock("main")["on_hand_units"].to_pylist() == [43]


def test_a_file_of_the_same_name_is_another_file(home: Home) -> None:
    one = home.file("x/day.csv", line(1), line(1))
    two = home.file("y/day.csv", line(1), line(1), line(2), line(3, quantity="two"))
    files = home.pos(one, two)["files"]
    assert [(each["file"], each["accepted"], each["duplicates"]) for each in files] == [
        ("day.csv", 2, 0),
        ("day.csv", 1, 2),
    ]
    assert len(home.quarantine("list")) == 1


def test_archives_are_read(home: Home) -> None:
    content = (HEADER + line(1)).encode()
    packed = home.file("a.csv.gz", content=gzip.compress(content))
    archive = home.folder / "a.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("one.csv", content)
        out.writestr("two.csv", HEADER + line(2))
    files = home.pos(packed, archive)["files"]
    assert [(each["file"], each["accepted"]) for each in files] == [
        ("a.csv.gz", 1), ("a.zip/one.csv", 0), ("a.zip/two.csv", 1),
    ]  # fmt: skip


DAYS = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from(["apple", "pear"]),
        st.sampled_from([1, 2, "two"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DAYS, st.randoms(use_true_random=False))
def test_any_order_overlapping_and_twice_is_the_same(
    home_settings: Settings, tmp_path: Path, rows: list[tuple[int, str, Any]], chance: random.Random
) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(TILL)
    found = ingest.mapping(path)
    # A document comes whole: one receipt a day.
    days = {
        day: [line(day, day, item, quantity) for at, item, quantity in rows if at == day]
        for day in range(1, 5)
    }
    files = []
    for first in range(1, 5):
        file = tmp_path / f"{first}.csv"
        file.write_text(HEADER + "".join(days[first] + days.get(first + 1, [])))
        files.append(file)
    shuffled = [*files, *files]
    chance.shuffle(shuffled)
    states = []
    for order in (files, shuffled):
        settings = Settings(home=home_settings.home, tenant=f"f{uuid4().hex[:12]}")
        with opened(settings) as pipeline:
            for file in order:
                pipeline.read_feed(found, [file])
            (feed,) = pipeline.feeds()
            said = sorted(pipeline.aside()["raw"].to_pylist())
            states.append((history(pipeline), feed, said))
    assert states[0] == states[1]
    good = sum(quantity != "two" for _, _, quantity in rows)
    assert len(states[0][0]) == good
    assert len(states[0][2]) == len(rows) - good


def test_small_files_go_together_and_large_ones_alone(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storekeep.bus.MAX_FACTS", 5)
    files = [home.file(f"{n}.csv", *(line(100 * n + each) for each in range(many)))
             for n, many in enumerate([2, 2, 2, 12, 1])]  # fmt: skip
    found = ingest.mapping(home.mapping)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    loaded = list(ingest.load(found, files, known_at=now, batch_rows=5))
    together = list(_together(iter(loaded)))
    assert [[each.file for each in batch] for batch in together] == [
        ["0.csv", "1.csv"], ["2.csv"], ["3.csv"], ["3.csv"], ["3.csv", "4.csv"],
    ]  # fmt: skip
    with opened(home.settings) as pipeline:
        came = pipeline.read_feed(found, files)
        # Each batch is known from when it was taken in, and not from when the first file was opened.
        times = [row["known_at"] for row in facts_of_sales(pipeline)]
        assert len(set(times)) >= 5
        assert [(each.read, each.accepted) for each in came] == [
            (2, 2),
            (2, 2),
            (2, 2),
            (12, 12),
            (1, 1),
        ]
        assert [each.duplicates for each in pipeline.read_feed(found, files[::-1])] == [
            1,
            12,
            2,
            2,
            2,
        ]


def test_people_are_pseudonyms_that_stay_the_same(home: Home) -> None:
    text = TILL.replace("  at: time\n", "  at: time\n  card: text\n")
    text = text.replace("  occurred_at: at\n", "  occurred_at: at\n  customer_id: card\n")
    home.mapping.write_text(text + "customer: pseudonymise\n")
    lines = "".join(f"{line(n).strip()},Ann\n" for n in (1, 2))
    for name, content in (("a.csv", lines), ("b.csv", f"{line(3).strip()},Ann\n")):
        path = home.file(name, content=(HEADER.strip() + ",card\n" + content).encode())
        assert home.pos(path)["totals"]["rejected"] == {}
    with opened(home.settings) as pipeline:
        customers = {row["customer_id"] for row in history(pipeline)}
    (customer,) = customers
    assert customer.startswith("corner_shop:")
    assert "Ann" not in customer
    key = home.settings.home / "keys" / "pseudonyms.key"
    assert key.stat().st_mode & 0o777 == 0o600
    other = ingest.pseudonym_key(home.settings.home, "another")
    assert other != ingest.pseudonym_key(home.settings.home, home.settings.tenant)


def test_a_mapping_that_looks_things_up_needs_them(home: Home) -> None:
    home.mapping.write_text(
        TILL
        + "references:\n  product: {table: product, on: sku}\n"
        + "rules:\n  - {id: unknown, when: product.sku IS NULL, do: reject, reason: unknown}\n"
    )
    file = home.file("a.csv", line(1), line(2, item="pear"))
    failed = told(home.ask("ingest", "pos", file, "--mapping", home.mapping, "--json"), 1)
    assert "this home has none" in failed["error"]["message"]
    with opened(home.settings) as pipeline:
        one = dict.fromkeys(PRODUCT.names) | {
            "source": "catalogue",
            "sku": "apple",
            "known_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        rows = outside_log(PRODUCTS, pa.Table.from_pylist([one], schema=PRODUCT.arrow))
        pipeline.lake.append(PRODUCTS, rows, writer="test", position=1)
    assert home.pos(file)["totals"]["rejected"] == {"unknown": 1}


# Files that cannot be read ----------------------------------------------------------------------------


BAD: dict[str, tuple[Callable[[bytes], bytes], int, str]] = {
    "truncated gz": (lambda good: gzip.compress(good)[:-9], 1, "damaged or cut short"),
    "binary": (lambda _: bytes(range(256)) * 50, 1, "bad.csv"),
    "empty": (lambda _: b"", 1, "is empty"),
    "another column": (lambda good: good.replace(b"qty", b"count"), 1, "has no column 'qty'"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_file_that_cannot_be_read_is_refused_whole_and_the_others_stand(
    home: Home, fault: str
) -> None:
    spoil, code, said = BAD[fault]
    good = home.file("good.csv", line(1))
    content = (HEADER + "".join(line(n) for n in range(100, 400))).encode()
    bad = home.file("bad.csv", content=spoil(content))
    after = home.file("after.csv", line(2))
    words = ("ingest", "pos", good, bad, after, "--mapping", home.mapping, "--json")
    failed = told(home.ask(*words), code)["error"]
    assert said in failed["message"]
    assert "bad.csv" in failed["message"]
    assert home.feeds()[0]["lines"] == 1
    assert home.quarantine("list") == []
    bad.write_bytes(content)
    totals = home.pos(good, bad, after)["totals"]
    assert (totals["accepted"], totals["duplicates"]) == (301, 1)


def test_words_that_are_wrong_are_told_before_anything_is_read(home: Home) -> None:
    file = home.file("a.csv", line(1))
    for words, said in (
        ((home.folder / "none.csv", "--mapping", home.mapping), "does not exist"),
        ((file,), "Missing option '--mapping'"),
        ((file, "--mapping", "nowhere"), "those that ship are"),
        ((file, "--mapping", "complete_journey_products"), "is of feed products, not of feed pos"),
        ((file, "--mapping", "complete_journey_coupon"), "is of feed crm, not of feed pos"),
    ):
        failed = told(home.ask("ingest", "pos", *words, "--json"), 2)["error"]
        assert said in failed["message"]
    home.mapping.write_text(TILL.replace("sku: item", "sku: itm"))
    failed = told(home.ask("ingest", "pos", file, "--mapping", home.mapping, "--json"), 1)["error"]
    assert "mapping.yaml:15:8" in failed["message"]


def test_of_a_mapping_that_fits_no_line_one_is_told(home: Home) -> None:
    file = home.file("a.csv", "r1,apple,one,0.50,yesterday\n")
    done = home.ask("ingest", "pos", file, "--mapping", home.mapping, "--json")
    assert told(done)["totals"]["rejected"] == {"unreadable": 1}
    assert "`storekeep ingest quarantine list` says why" in done.stderr


# How feeds stand --------------------------------------------------------------------------------------


def test_feeds_say_how_they_stand_and_stood(home: Home) -> None:
    assert home.feeds() == []
    home.pos(
        home.file("a.csv", line(1, 2, quantity=3), line(1, 2, "pear"), line(2, 3, quantity="two"))
    )
    between = datetime.now(UTC)
    first = home.feeds()
    home.pos(home.file("b.csv", line(3, 1, quantity=-1), line(4, 5, price="0")))
    now = {
        "feed": "pos",
        "source": "corner_shop",
        "state": "ok",
        "reasons": [],
        "new_columns": [],
        "lines": 3,
        "orders": 2,
        "distinct_skus": 2,
        "lines_without_customer": 3,
        "first_occurred_at": "2026-01-01T09:00:00.000000Z",
        "last_occurred_at": "2026-01-02T09:00:00.000000Z",
        "units": {"net": 3, "gross": 4},
        "value_minor": {"EUR": {"net": 150, "gross": 200}},
        "rejected": {"free": 1, "unreadable": 1},
    }
    assert home.feeds() == [now]
    then = home.feeds("--known-by", between.isoformat())
    assert then == first
    assert (then[0]["lines"], then[0]["rejected"]) == (2, {"unreadable": 1})
    assert home.feeds("--known-by", "2020-01-01") == []
    text = home.ask("feeds").stdout
    assert "corner_shop" in text
    assert "1.50 EUR" in text


def test_the_state_of_a_feed_is_the_worst_of_its_locations(home: Home) -> None:
    home.pos(home.file("a.csv", line(1)))
    with opened(home.settings) as pipeline:
        for hour, state, place in (
            (1, "degraded", "main"),
            (2, "ok", "main"),
            (1, "degraded", "W9"),
        ):
            at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
            row = {"feed": "corner_shop", "location_id": place, "state": state, "reason": "seen",
                   "occurred_at": at, "known_at": at}  # fmt: skip
            facts = pa.Table.from_pylist([row], schema=FEED_STATE.arrow)
            pipeline.publish("FeedStateChanged", "checks", place, facts)
            assert pipeline.feeds()[0]["state"] == (
                "ok" if (state, place) == ("ok", "main") else "degraded"
            )


def test_lines_that_wait_for_others_are_known_from_when_their_turn_comes(home: Home) -> None:
    """Who asked meanwhile how things were known was told without them."""
    file, clock = home.file("a.csv", line(1)), Clock(datetime(2026, 2, 1, tzinfo=UTC))
    found = ingest.mapping(home.mapping)
    with opened(home.settings, now=clock) as pipeline, ThreadPoolExecutor(1) as pool:
        place = bus.partition_of(pipeline.tenant, "S1")
        with pipeline.store.again() as others, others.transaction(pipeline.tenant) as tx:
            tx.lock_partition(place)
            read = pool.submit(pipeline.read_feed, found, [file], location_id="S1")
            until_somebody_waits(tx)
            clock.now += timedelta(hours=1)
        read.result(timeout=20)
        assert [row["known_at"] for row in facts_of_sales(pipeline)] == [clock.now]


def until_somebody_waits(tx: Transaction) -> None:
    """Another session of the database waits for a lock."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if tx._run("SELECT pid FROM pg_locks WHERE NOT granted"):
            return
        time.sleep(0.02)
    raise AssertionError("nobody waits")


# Quarantine -------------------------------------------------------------------------------------------


def test_a_row_in_quarantine_tells_where_it_stood_and_what_it_said(home: Home) -> None:
    home.pos(home.file("a.csv", line(1), line(2, quantity="two"), "short\n"))
    unreadable, malformed = home.quarantine("list")
    assert unreadable.pop("known_at") > "2026"
    assert len(unreadable.pop("id")) == 16
    assert json.loads(unreadable.pop("raw"))["qty"] == "two"
    assert unreadable == {
        "source": "corner_shop",
        "file": "a.csv",
        "line": 3,
        "column": "qty",
        "rule": "unreadable",
        "reason": "this is not a whole number",
        "corrected": None,
    }
    assert (malformed["rule"], malformed["line"], malformed["raw"]) == ("malformed", 4, "short")
    assert [row["line"] for row in home.quarantine("list", "--rule", "malformed")] == [4]
    assert home.quarantine("list", "--source", "other") == []
    assert len(home.quarantine("list", "--limit", "1")) == 1
    shown = home.quarantine("show", malformed["id"])
    assert (shown["raw"], shown["gone"], shown["steps"]) == ("short", False, [])
    text = home.ask("ingest", "quarantine", "show", malformed["id"]).stdout
    assert "a.csv, line 4" in text
    failed = told(home.ask("ingest", "quarantine", "show", "0" * 16, "--json"), 1)
    assert "was ever in quarantine" in failed["error"]["message"]


def replayed(home: Home, *words: object) -> Any:
    return home.quarantine("replay", *words, "--mapping", home.mapping)["totals"]


def test_a_corrected_row_is_taken_in_when_it_happened_and_known_from_now(home: Home) -> None:
    home.pos(home.file("a.csv", line(1), line(2, 7, quantity="two"), line(3, quantity="no")))
    before = datetime.now(UTC)
    (row, other) = home.quarantine("list")
    # Not corrected yet, it stays.
    assert replayed(home, row["id"])["rejected"] == {"unreadable": 1}
    assert len(home.quarantine("list")) == 2
    fix = ("fix", row["id"], "--set", "qty=2", "--reason", "asked the till", "--as", "Ann")
    assert json.loads(home.quarantine(*fix)["corrected"])["qty"] == "2"
    assert home.feeds()[0]["lines"] == 1
    assert replayed(home, row["id"])["accepted"] == 1
    assert [each["id"] for each in home.quarantine("list")] == [other["id"]]
    with opened(home.settings) as pipeline:
        (fact,) = pipeline.lake.query(
            "SELECT * FROM sale WHERE basket_id = 'r2'", tables={"sale": SALE_LINES}
        ).to_pylist()
    assert (fact["occurred_at"], fact["day"]) == (
        datetime(2026, 1, 7, 9, tzinfo=UTC),
        date(2026, 1, 7),
    )
    assert fact["known_at"] > before
    assert (fact["source_file"], fact["source_line"], fact["quantity_units"]) == ("a.csv", 3, 2)
    then = home.feeds("--known-by", before.isoformat())[0]
    assert (then["lines"], then["rejected"]) == (1, {"unreadable": 2})
    shown = home.quarantine("show", row["id"])
    assert shown["gone"]
    assert [(each["step"], each["done_by"], each["reason"]) for each in shown["steps"]] == [
        ("corrected", "Ann", "asked the till"), ("taken_in", "operator", None),
    ]  # fmt: skip
    # Neither again, nor corrected any more; and its file brings it back no more.
    for words, said in ((("replay", row["id"], "--mapping", home.mapping), "nothing was replayed"),
                        (fix, "not in quarantine any more")):  # fmt: skip
        failed = told(home.ask("ingest", "quarantine", *words, "--json"), 1)
        assert said in failed["error"]["message"]
    home.pos(home.folder / "a.csv")
    assert [each["id"] for each in home.quarantine("list")] == [other["id"]]


def test_rows_are_taken_in_when_the_mapping_was_mended(home: Home) -> None:
    # Two equal lines of one receipt are two lines, also when one of them is replayed alone.
    home.pos(home.file("a.csv", *(line(1, price="0"),) * 3, line(2), line(3, quantity="no")))
    home.mapping.write_text(TILL + MENDED)
    ids = [row["id"] for row in home.quarantine("list", "--rule", "free")]
    assert replayed(home, ids[1])["accepted"] == 1
    totals = replayed(home)
    assert (totals["accepted"], totals["rejected"]) == (2, {"unreadable": 1})
    assert replayed(home)["accepted"] == 0
    assert home.feeds()[0]["lines"] == 4
    again = home.pos(home.folder / "a.csv")["totals"]
    assert (again["accepted"], again["duplicates"]) == (0, 4)


def test_what_a_crash_left_in_quarantine_is_known_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.pos(home.file("a.csv", line(1, price="0"), line(1, price="0")))
    home.mapping.write_text(TILL + MENDED)
    with monkeypatch.context() as patch:

        def gone(*_: object) -> None:
            raise Refused("the process ends here")

        patch.setattr(Pipeline, "_note_aside", gone)
        assert home.ask("ingest", "quarantine", "replay", "--mapping", home.mapping).exit_code == 1
    assert len(home.quarantine("list")) == 2
    totals = replayed(home)
    assert (totals["accepted"], totals["duplicates"]) == (0, 2)
    assert home.quarantine("list") == []
    assert home.feeds()[0]["lines"] == 2


def test_a_row_corrected_to_say_what_another_says_is_a_line_of_its_own(home: Home) -> None:
    home.pos(home.file("a.csv", line(1), line(1), line(1, quantity="l")))
    (row,) = home.quarantine("list")
    home.quarantine("fix", row["id"], "--set", "qty=1", "--reason", "a letter for a digit")
    assert replayed(home)["accepted"] == 1
    # As if the file had been right from the start.
    home.pos(home.file("a.csv", line(1), line(1), line(1)))
    assert home.feeds()[0]["lines"] == 3


def test_a_row_that_was_none_gets_all_its_cells(home: Home) -> None:
    home.pos(home.file("a.csv", line(1), "r2,pear\n"))
    (row,) = home.quarantine("list")
    some = ("--set", "receipt=r2", "--set", "item=pear", "--set", "qty=1", "--set", "price=1")
    home.quarantine("fix", row["id"], *some, "--reason", "x")
    assert replayed(home)["rejected"] == {"malformed": 1}
    home.quarantine("fix", row["id"], "--set", "at=2026-01-01", "--reason", "x")
    assert replayed(home)["accepted"] == 1
    assert home.feeds()[0]["orders"] == 2


def test_a_correction_names_a_column_that_is_there(home: Home) -> None:
    home.pos(home.file("a.csv", line(1), line(2, quantity="no")))
    (row,) = home.quarantine("list")
    words = ("ingest", "quarantine", "fix", row["id"], "--reason", "x", "--json", "--set")
    assert "has no column count" in told(home.ask(*words, "count=1"), 1)["error"]["message"]
    assert "sets nothing" in told(home.ask(*words, "qty"), 2)["error"]["message"]
    assert home.quarantine("list")[0]["corrected"] is None


def test_what_a_rule_leaves_out_by_now_leaves_quarantine(home: Home) -> None:
    home.pos(home.file("a.csv", line(1), line(2, price="0")))
    home.mapping.write_text(TILL + RULES.replace("reject", "ignore"))
    assert replayed(home)["ignored"] == {"free": 1}
    assert home.quarantine("list") == []
    assert home.feeds()[0]["rejected"] == {}


def test_rows_of_parquet_are_replayed_as_they_were_read(home: Home) -> None:
    import pyarrow.parquet as pq

    at = datetime(2026, 1, 1, 9, 0, 0, 250000, tzinfo=UTC)
    rows = {
        "receipt": ["r1", "r1"],
        "item": [7, 8],
        "qty": [1.0, 2.0],
        "price": [0.5, 0.0],
        "at": [at, at],
    }
    pq.write_table(pa.table(rows), home.folder / "a.parquet")
    text = TILL.replace("format: csv", "format: parquet")
    home.mapping.write_text(text + RULES)
    home.pos(home.folder / "a.parquet")
    home.mapping.write_text(text + MENDED)
    assert replayed(home)["accepted"] == 1
    with opened(home.settings) as pipeline:
        found = {
            row["sku"]: (row["quantity_units"], row["occurred_at"]) for row in history(pipeline)
        }
    assert found == {"7": (1, at), "8": (2, at)}


def test_only_feeds_are_replayed(home: Home) -> None:
    with opened(home.settings) as pipeline, pytest.raises(Misused, match="feed crm is none"):
        pipeline.replay_aside(ingest.mapping("complete_journey_coupon"), by="x")
