"""Data contracts: as documents of the standard, held against feeds, and what follows when one is broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_data_contract_standard.model import OpenDataContractStandard

from storekeep import ingest, retail
from storekeep.config import Settings
from storekeep.errors import Misused, Refused
from storekeep.ingest import contracts, odcs
from storekeep.ingest.contracts import Came, Contract, Limit, Promise, Volume
from storekeep.ingest.feeds import BESIDE, SHIPPED
from storekeep.lake import FEED_STATES, PRODUCTS, outside_log
from storekeep.pipeline import Pipeline, opened
from storekeep.store import Transaction
from tests.shop import Clock, new_tenant
from tests.unit.test_cli import ask, told
from tests.unit.test_ingest import TILL

HEADER = "receipt,item,qty,price,at\n"
HEAD = """\
version: 1.0.0
kind: DataContract
apiVersion: v3.1.0
id: urn:storekeep:feed-corner_shop.sale_line
name: corner_shop.sale_line
team: {name: the corner shop}
"""
REJECTED = """\
schema:
  - name: file
    quality:
      - {id: some, metric: invalidValues, unit: percent, mustBeLessOrEqualTo: 20, severity: warning}
      - {id: many, metric: invalidValues, unit: percent, mustBeLessOrEqualTo: 50, severity: error}
    properties:
      - name: qty
        quality:
          - {metric: invalidValues, unit: percent, mustBeLessThan: 60}
"""
MONDAY = datetime(2026, 3, 2, 20, tzinfo=UTC)


def mapping() -> ingest.Mapping:
    return ingest.feeds.Mapping.model_validate_json(
        json.dumps(ingest.places.parse(TILL, "till.yaml", "mapping").plain)
    )


def line(number: int, day: int = 2, item: str = "apple", quantity: object = 1) -> str:
    return f"r{number},{item},{quantity},0.50,2026-03-{day:02} 09:00:00\n"


class Feed:
    """A feed of a live home, and its contract."""

    def __init__(self, pipeline: Pipeline, clock: Clock, folder: Path) -> None:
        self.pipeline, self.clock, self.folder = pipeline, clock, folder
        self.contract: Contract | None = None
        self.files = 0

    def agree(self, text: str) -> None:
        path = self.folder / "contract.yaml"
        path.write_text(HEAD + text)
        self.contract = contracts.agreed(mapping(), path, "till.yaml")

    def read(self, *lines: str, header: str = HEADER, place: str = "DC1") -> None:
        self.files += 1
        path = self.folder / f"{self.files}.csv"
        path.write_text(header + "".join(lines))
        self.pipeline.read_feed(mapping(), [path], location_id=place, contract=self.contract)

    def told(self) -> list[tuple[str, str, str]]:
        """All that was ever told of how it stands."""
        self.pipeline.keep_history()
        found = self.pipeline.lake.query(
            "SELECT location_id, state, reason FROM state ORDER BY occurred_at, location_id",
            tables={"state": FEED_STATES},
        )
        return [tuple(row.values()) for row in found.to_pylist()]

    def states(self) -> list[tuple[str, str]]:
        return [(place, state) for place, state, _ in self.told()]

    def shown(self) -> dict[str, Any]:
        (row,) = self.pipeline.feeds()
        return row


@pytest.fixture
def feed(home_settings: Settings, tmp_path: Path) -> Iterator[Feed]:
    clock = Clock(MONDAY)
    with opened(new_tenant(home_settings), now=clock) as pipeline:
        yield Feed(pipeline, clock, tmp_path)


# Documents --------------------------------------------------------------------------------------------


@cache
def documents() -> dict[str, Any]:
    """Every contract that ships, by name."""
    tables = {name: odcs.of_table(table) for name, table in retail.TABLES.items()}
    for name in ingest.shipped():
        found = ingest.mapping(name)
        agreed = contracts.agreed(found, None, name) or contracts.of(found)
        tables[f"feed {name}"] = dict(agreed.document)
    return tables


@pytest.mark.parametrize("name", documents())
def test_a_contract_is_a_document_of_the_standard(name: str) -> None:
    document = documents()[name]
    read = OpenDataContractStandard.from_string(odcs.as_yaml(document))
    # The package reads over what it does not know: nothing of it may be lost.
    assert read.model_dump(by_alias=True, exclude_none=True) == json.loads(json.dumps(document))
    shipped = resources.files("open_data_contract_standard") / "schema.json"
    schema = json.loads(shipped.read_text(encoding="utf-8"))
    assert set(document) <= set(schema["properties"])
    assert set(schema["required"]) <= set(document)
    assert document["apiVersion"] in schema["properties"]["apiVersion"]["enum"]
    rule = schema["$defs"]["DataQuality"]["properties"]
    library = schema["$defs"]["DataQualityLibrary"]["properties"]
    kinds = schema["$defs"]["SchemaBaseProperty"]["properties"]["logicalType"]["enum"]
    for each in document["schema"]:
        for column in each["properties"]:
            assert column.get("logicalType", "string") in kinds
        for one in [
            *each.get("quality", []),
            *(r for c in each["properties"] for r in c.get("quality", [])),
        ]:
            assert one.get("dimension", "accuracy") in rule["dimension"]["enum"]
            assert one["type"] == "sql" or one["metric"] in library["metric"]["enum"]
            assert len([key for key in one if key.startswith("must")]) == 1


@pytest.mark.parametrize("name", retail.TABLES)
def test_the_contract_of_a_table_says_what_its_definition_says(name: str) -> None:
    table = retail.TABLES[name]
    (schema,) = odcs.of_table(table)["schema"]
    said = {each["name"]: each for each in schema["properties"]}
    assert list(said) == list(table.names)
    for column in table.columns:
        one = said[column.name]
        assert one["required"] is not column.nullable
        assert one["classification"] == column.privacy
        assert one["description"] == column.meaning
        options = one.get("logicalTypeOptions", {})
        assert options.get("minimum") == column.at_least
        assert options.get("maximum") == column.at_most
        refers = column.references not in {None, f"{name}.{column.name}"}
        assert [each["to"] for each in one.get("relationships", [])] == [column.references] * refers
    keys = sorted(
        (c for c in said.values() if c.get("primaryKey")), key=lambda c: c["primaryKeyPosition"]
    )
    assert tuple(each["name"] for each in keys) == table.key


def test_a_column_refers_to_one_that_there_is() -> None:
    for table in retail.TABLES.values():
        for column in table.columns:
            if column.references is not None:
                other, _, name = column.references.partition(".")
                assert name in retail.TABLES[other].names


@cache
def agreements() -> list[tuple[ingest.Mapping, Contract]]:
    """The contracts that ship, with the mappings that they stand beside."""
    mappings = [(name, ingest.mapping(name)) for name in ingest.shipped()]
    found = [(one, contracts.agreed(one, None, name)) for name, one in mappings]
    return [(one, contract) for one, contract in found if contract is not None]


def test_every_contract_that_ships_is_of_a_mapping_and_has_an_owner() -> None:
    files = [each for each in SHIPPED.iterdir() if BESIDE in each.name]
    assert len(agreements()) == len(files) > 10
    for found, contract in agreements():
        assert contract.owner, found.source
        assert contract.rejected


def test_a_contract_is_the_same_when_it_is_read_again_from_the_record() -> None:
    for _, one in agreements():
        again = contracts.read(one.text)
        assert again.digest == one.digest
        assert (again.rejected, again.cells) == (one.rejected, one.cells)
        assert (again.volumes, again.freshness) == (one.volumes, one.freshness)
        assert [each.violated for each in again.rows] == [each.violated for each in one.rows]


WRONG = {
    "no YAML": ("a: [", ":7:", "this is no YAML"),
    "an unknown key": ("owner: me\n", ":7:1: owner", "Extra inputs are not permitted|no such key"),
    "a misspelled limit": (
        "schema:\n  - name: file\n    quality:\n      - {metric: invalidValues, mustBeLes: 3}\n",
        ":10:33: schema.0.quality.0.mustBeLes",
        "no such key",
    ),
    "two limits": (
        (
            "schema:\n  - name: file\n    quality:\n"
            "      - {metric: invalidValues, mustBe: 3, mustBeLessThan: 4}\n"
        ),
        ":10:9: schema.0.quality.0",
        "give it one limit",
    ),
    "a limit that is none": (
        "schema:\n  - name: file\n    quality:\n      - {metric: invalidValues, mustBe: three}\n",
        ":10:33: schema.0.quality.0.mustBe",
        "a limit is a number",
    ),
    "a severity": (
        (
            "schema:\n  - name: file\n    quality:\n"
            "      - {metric: invalidValues, mustBe: 3, severity: bad}\n"
        ),
        ":10:44: schema.0.quality.0.severity",
        "warning or error",
    ),
    "another metric": (
        "schema:\n  - name: file\n    quality:\n      - {metric: nullValues, mustBe: 3}\n",
        ":10:9: schema.0.quality.0",
        "here this is looked at: invalidValues",
    ),
    "an unknown schema": (
        "schema:\n  - name: files\n",
        ":8:5: schema.0.name",
        "'file' or 'sale_line'",
    ),
    "an unknown column": (
        "schema:\n  - name: file\n    properties: [{name: count, quality: []}]\n",
        ":9:19: schema.0.properties.0.name",
        "file has no such column",
    ),
    "another kind": (
        "schema:\n  - name: file\n    properties: [{name: qty, logicalType: string}]\n",
        ":9:30: schema.0.properties.0.logicalType",
        "it is of kind integer",
    ),
    "a condition": (
        (
            "schema:\n  - name: sale_line\n    quality:\n      - type: sql\n        mustBe: 0\n"
            "        query: SELECT count(*) FROM ${object} WHERE quantity > 3\n"
        ),
        ":12:53",
        "quantity",
    ),
    "a query of another kind": (
        (
            "schema:\n  - name: sale_line\n    quality:\n      - type: sql\n        mustBe: 0\n"
            "        query: DROP TABLE sale_line\n"
        ),
        ":12:16",
        "write SELECT count",
    ),
    "a promise about time": (
        "slaProperties: [{property: freshness, value: 3, unit: h}]\n",
        ":7:18: slaProperties.0.property",
        "latency",
    ),
    "a time without a unit": (
        "slaProperties: [{property: latency, value: 3, unit: m}]\n",
        ":7:47: slaProperties.0.unit",
        "d or h",
    ),
    "a day of the week": (
        (
            "schema:\n  - name: sale_line\n    quality:\n"
            "      - {metric: rowCount, mustBe: 3, arguments: {weekdays: [0]}}\n"
        ),
        ":10:39",
        "weekdays 1",
    ),
    "an argument": (
        (
            "schema:\n  - name: sale_line\n    quality:\n"
            "      - {metric: rowCount, mustBe: 3, arguments: {every: 3}}\n"
        ),
        "schema.0.quality.0.arguments.every",
        "no such argument",
    ),
    "valid values that nothing is said of": (
        (
            "schema:\n  - name: sale_line\n    properties:\n"
            "      - {name: store_id, quality: [{metric: invalidValues, mustBe: 0}]}\n"
        ),
        "schema.0.properties.0.quality.0",
        "which values of store_id are valid",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_with_a_contract_is_told_with_its_place(fault: str, tmp_path: Path) -> None:
    text, place, said = WRONG[fault]
    path = tmp_path / "till.contract.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(Refused, match=said) as caught:
        contracts.agreed(mapping(), path, "till.yaml")
    assert str(path) in str(caught.value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "name: other.sale_line"),
        ("apiVersion", "apiVersion: v2.2.0"),
        ("kind", "kind: Table"),
    ],
)
def test_the_head_of_a_contract_is_looked_at(key: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "till.contract.yaml"
    for new in (value, ""):
        head = [new if each.startswith(f"{key}:") else each for each in HEAD.splitlines()]
        path.write_text("\n".join(head))
        with pytest.raises(Misused, match=key):
            contracts.agreed(mapping(), path, "till.yaml")


def test_a_contract_stands_beside_its_mapping(tmp_path: Path) -> None:
    beside = tmp_path / "till.contract.yaml"
    assert contracts.agreed(mapping(), None, tmp_path / "till.yaml") is None
    beside.write_text(HEAD)
    found = contracts.agreed(mapping(), None, tmp_path / "till.yaml")
    assert found is not None
    assert found.owner == "the corner shop"
    assert contracts.agreed(mapping(), beside, "elsewhere.yaml") == found


# How a feed stands by what is known -------------------------------------------------------------------


def test_limits_say_what_they_mean() -> None:
    for operator, keeps in {
        "mustBe": {5},
        "mustBeGreaterThan": {6, 7},
        "mustBeGreaterOrEqualTo": {5, 6, 7},
        "mustBeLessThan": {3, 4},
        "mustBeLessOrEqualTo": {3, 4, 5},
    }.items():
        assert {each for each in range(3, 8) if Limit(operator, 5).keeps(each)} == keeps
    assert {n for n in range(9) if Limit("mustBeBetween", (4, 6)).keeps(n)} == {4, 5, 6}
    # What may still grow is held against nothing but too much.
    assert {n for n in range(9) if Limit("mustBeBetween", (4, 6)).keeps(n, most_only=True)} == set(
        range(7)
    )
    assert Limit("mustBeGreaterThan", 5).keeps(0, most_only=True)
    assert not Limit("mustBeLessThan", 5).keeps(5, most_only=True)


BARE = contracts.of(mapping())
ANYTHING = st.dictionaries(
    st.tuples(st.sampled_from(["A", "B"]), st.integers(1, 4).map(lambda n: date(2026, 3, n))),
    st.integers(0, 9),
)


@given(ANYTHING, st.integers(0, 9), st.permutations(["A", "B"]))
def test_the_state_is_a_function_of_what_is_known(
    days: dict[tuple[str, date], int], rejected: int, order: list[str]
) -> None:
    """In whatever order it is told: the worst that is found, and never worse for another location's days."""

    own = Contract(
        **{
            **{
                name: getattr(BARE, name)
                for name in ("name", "source", "table", "zone", "document")
            },
            "rejected": (Promise("some", "rejected", "degraded", Limit("mustBeLessThan", 5)),),
            "volumes": (Volume("few", "lines", "breached", Limit("mustBeGreaterThan", 3)),),
        }
    )
    rows = {place: [1] for place in order}
    first, second = (
        Came(MONDAY, places, rejected=rejected, rows=rows, days=dict(shuffled))
        for places, shuffled in ((order, days.items()), (order[::-1], reversed(list(days.items()))))
    )
    states = contracts.states([(own, first)], [])
    assert states == contracts.states([(own, second)], [])
    for place in order:
        few = days.get((place, date(2026, 3, 1)), 0) <= 3
        worst = "breached" if few else "degraded" if rejected >= 5 else "ok"
        assert states[place][0] == worst


# Held against a live feed -----------------------------------------------------------------------------


def test_a_feed_that_keeps_its_contract_is_told_of_nowhere(feed: Feed) -> None:
    feed.agree(REJECTED)
    feed.read(line(1), line(2))
    feed.pipeline.look()
    assert feed.told() == []
    assert feed.shown()["state"] == "ok"


def test_a_share_of_rejected_rows_changes_the_state_and_is_told_once(feed: Feed) -> None:
    feed.agree(REJECTED)
    feed.read(*(line(n) for n in range(3)), line(4, quantity="two"))
    assert feed.states() == [("DC1", "degraded")]
    assert "25 % of 4 that came lately, at most 20 is agreed (some)" in feed.told()[0][2]
    feed.read(line(5, quantity="two"), line(5))
    feed.pipeline.look()
    assert feed.states() == [("DC1", "degraded")]
    shown = feed.shown()
    assert shown["state"] == "degraded"
    assert [(why["location_id"], why["state"]) for why in shown["reasons"]] == [("DC1", "degraded")]
    feed.read(*(line(n) for n in range(7, 30)))
    assert feed.states() == [("DC1", "degraded"), ("DC1", "ok")]
    feed.read(*(line(n, item=item) for n in (40, 41) for item in ("a", "b")))
    assert len(feed.told()) == 2


def test_of_the_log_is_read_what_came_since_a_process_looked_last(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    asked = Transaction.told_from

    def counted(self: Transaction, *given: Any) -> pa.Table:
        found = asked(self, *given)
        read.append(found.num_rows)
        return found

    monkeypatch.setattr(Transaction, "told_from", counted)
    feed.agree(REJECTED)
    feed.read(line(1), line(2, day=3))
    feed.read(line(3, day=4))
    feed.pipeline.look()
    feed.read(line(4, day=5), place="DC2")
    assert sum(read) == 4
    with feed.pipeline.store.transaction(feed.pipeline.tenant) as tx:
        ((own,),) = feed.pipeline._contracts(tx).values()
        at_once = feed.pipeline._told_by(tx, own)
        feed.pipeline._so_far.clear()
        anew = feed.pipeline._told_by(tx, own)
    by = [("subject", "ascending"), ("position", "ascending")]
    assert at_once.num_rows == 4
    assert at_once.sort_by(by) == anew.sort_by(by)


def test_what_came_a_day_before_the_newest_counts_no_more(feed: Feed) -> None:
    feed.agree(REJECTED)
    feed.read(line(1), line(2, quantity="two"))
    assert feed.states() == [("DC1", "degraded")]
    # Nothing gets better by waiting.
    feed.clock.now += timedelta(days=3)
    feed.pipeline.look()
    assert len(feed.told()) == 1
    feed.read(line(3, day=5), line(4, day=5))
    assert feed.states() == [("DC1", "degraded"), ("DC1", "ok")]


def test_any_order_of_a_days_files_ends_in_the_same_state(
    home_settings: Settings, tmp_path: Path
) -> None:
    files = [[line(1), line(2, quantity="two")], [line(n) for n in range(3, 9)], [line(1)]]
    ends = set()
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 0, 2, 1]):
        with opened(new_tenant(home_settings), now=Clock(MONDAY)) as pipeline:
            one = Feed(pipeline, Clock(MONDAY), tmp_path)
            one.agree(REJECTED)
            for place in order:
                one.read(*files[place])
            ends.add((one.shown()["state"], one.shown()["lines"]))
    assert ends == {("ok", 7)}


def test_a_location_that_reports_too_little_or_too_much_is_told_alone(feed: Feed) -> None:
    feed.agree(
        "schema:\n  - name: sale_line\n    quality:\n"
        "      - {id: a_day, metric: rowCount, mustBeBetween: [2, 4], arguments: {graceHours: 6}}\n"
    )
    feed.read(*(line(n) for n in range(3)), place="DC1")
    feed.read(*(line(n) for n in range(10, 16)), place="W9")
    # The day is not over: there may be too many lines already, never too few.
    assert feed.states() == [("W9", "breached")]
    for hour in (5, 7):
        feed.clock.now = datetime(2026, 3, 3, hour, tzinfo=UTC)
        feed.pipeline.look()
        assert feed.states() == [("W9", "breached")]
    # A day later the day of which nothing came is over.
    feed.clock.now = datetime(2026, 3, 4, 7, tzinfo=UTC)
    feed.pipeline.look()
    assert dict(feed.states())["DC1"] == "breached"
    assert "0 of 2026-03-03, between 2 and 4 is agreed (a_day)" in feed.told()[-1][2]


def test_a_feed_that_falls_silent_is_seen_by_time(feed: Feed) -> None:
    feed.agree("slaProperties: [{property: latency, value: 36, unit: h}]\n")
    feed.read(line(1))
    assert feed.told() == []
    feed.clock.now = datetime(2026, 3, 3, 20, tzinfo=UTC)
    assert feed.pipeline.look_by_time() == 0
    feed.clock.now = datetime(2026, 3, 3, 21, 1, tzinfo=UTC)
    assert feed.pipeline.look_by_time() == 1
    assert feed.pipeline.look_by_time() == 0
    assert feed.states() == [("DC1", "breached")]
    assert "nothing has come of the last 36 hours" in feed.told()[0][2]
    feed.read(line(2, day=3))
    assert feed.states()[-1] == ("DC1", "ok")


def test_a_time_that_is_still_to_come_keeps_no_feed_fresh(feed: Feed) -> None:
    feed.agree("slaProperties: [{property: latency, value: 1, unit: d}]\n")
    feed.read(line(1, day=20))
    assert feed.states() == [("DC1", "breached")]


def test_rows_are_held_against_what_is_agreed_on_them(feed: Feed) -> None:
    known = pa.Table.from_pylist(
        [{"sku": "apple", "source": "x", "known_at": MONDAY}], retail.PRODUCT.arrow
    )
    feed.agree(
        "schema:\n  - name: sale_line\n    quality:\n"
        "      - {id: large, type: sql, mustBe: 0, severity: warning,\n"
        "         query: 'SELECT count(*) FROM ${object} WHERE quantity_units > 10'}\n"
        "      - {id: twice, metric: duplicateValues, arguments: {properties: [basket_id, sku]}, mustBe: 0}\n"
        "    properties:\n"
        "      - {name: sku, quality: [{id: item, metric: invalidValues, mustBe: 0}]}\n"
        "      - name: basket_id\n"
        "        quality:\n"
        "          - {id: form, metric: invalidValues, arguments: {pattern: 'r[0-9]+'}, mustBe: 0}\n"
        "      - {name: customer_id, quality: [{id: who, metric: nullValues, unit: percent, mustBe: 100}]}\n"
        "      - name: quantity_units\n"
        "        logicalTypeOptions: {minimum: -5, maximum: 100}\n"
        "        quality: [{id: range, metric: invalidValues, mustBe: 0}]\n"
    )
    feed.read(line(1, item="kumquat"), line(2, quantity=11), place="W1")
    # No list, nothing unknown.
    assert feed.states() == [("W1", "degraded")]
    feed.pipeline.lake.append(PRODUCTS, outside_log(PRODUCTS, known), writer="test", position=1)
    feed.read(line(3), line(3), place="W2")
    feed.read(line(4, quantity=101), line(5, quantity=-6), place="W3")
    feed.read(line(6).replace("r6", "x6"), place="W4")
    latest = {place: (state, reason) for place, state, reason in feed.told()}
    assert latest["W1"][0] == "breached"
    assert "unknown sku: 1 of 2 that came lately, exactly 0 is agreed (item)" in latest["W1"][1]
    assert "(twice)" in latest["W2"][1]
    assert "(range)" in latest["W3"][1]
    assert "(large)" in latest["W3"][1]
    assert "(form)" in latest["W4"][1]
    assert not any("(who)" in reason for _, reason in latest.values())


# Drift ------------------------------------------------------------------------------------------------


def test_a_new_column_is_let_be_and_reported(feed: Feed) -> None:
    feed.agree(REJECTED)
    feed.read(line(1))
    feed.read(line(2).replace("\n", ",7\n"), header=HEADER.replace("\n", ",till\n"))
    shown = feed.shown()
    assert (shown["state"], shown["lines"], shown["new_columns"]) == ("ok", 2, ["till"])
    assert feed.told() == []
    # When a mapping names it, it is nothing new.
    found = mapping().model_copy(
        update={"source_columns": {**mapping().source_columns, "till": "int"}}
    )
    path = feed.folder / "named.csv"
    path.write_text(HEADER.replace("\n", ",till\n") + line(3).replace("\n", ",7\n"))
    feed.pipeline.read_feed(found, [path], location_id="DC1")
    assert feed.shown()["new_columns"] == []


GONE = HEADER.replace("qty", "count")


def test_a_column_that_is_gone_stops_the_feed_until_a_file_keeps_the_contract(feed: Feed) -> None:
    feed.agree(REJECTED)
    feed.read(line(1))
    for _ in range(2):
        with pytest.raises(
            Refused, match=r"no column 'qty'.*feed corner_shop is stopped"
        ) as caught:
            feed.read(line(2), header=GONE)
        assert caught.value.exit_code == 1
    assert feed.states() == [("DC1", "breached")]
    assert feed.shown()["lines"] == 1
    assert "stopped: 2.csv has no column 'qty'" in feed.shown()["reasons"][0]["reason"]
    feed.read(line(2))
    assert feed.states() == [("DC1", "breached"), ("DC1", "ok")]


def test_a_file_that_is_passed_over_stops_its_feed_too(feed: Feed) -> None:
    """So it is in a watched folder, where the other files are read all the same."""
    for name, head in (("a", HEADER), ("b", GONE), ("c", HEADER)):
        (feed.folder / f"{name}.csv").write_text(head + line(ord(name)))
    refused: list[str] = []
    files = [feed.folder / f"{name}.csv" for name in "abc"]
    feed.pipeline.read_feed(
        mapping(), files, location_id="DC1", refuse=lambda file, _: refused.append(file.name)
    )
    assert refused == ["b.csv"]
    assert feed.shown()["lines"] == 2
    assert feed.states() == [("DC1", "breached")]


def test_of_a_feed_that_brought_nothing_yet_the_mapping_is_wrong(feed: Feed) -> None:
    with pytest.raises(Misused, match="no column 'qty'"):
        feed.read(line(1), header=GONE)
    assert feed.told() == []


def test_a_column_of_another_kind_stops_the_feed_and_nothing_of_the_file_is_taken_in(
    feed: Feed,
) -> None:
    feed.agree(REJECTED)
    feed.read(line(1))
    with pytest.raises(Refused, match=r"column 'qty': 75 % of its 4 cells cannot be read"):
        feed.read(line(2), *(line(n, quantity="a few") for n in range(3, 6)))
    assert feed.shown()["lines"] == 1
    assert feed.shown()["rejected"] == {}
    assert feed.states() == [("DC1", "breached")]
    # Below the limit the rows go to quarantine, as ever.
    feed.read(line(2), line(3, quantity="a few"))
    assert feed.shown()["rejected"] == {"unreadable": 1}


def test_other_feeds_go_on(feed: Feed) -> None:
    feed.read(line(1))
    other = mapping().model_copy(update={"source": "other_shop"})
    with pytest.raises(Refused, match="is stopped"):
        feed.read(line(2), header=GONE)
    path = feed.folder / "other.csv"
    path.write_text(HEADER + line(1))
    feed.pipeline.read_feed(other, [path], location_id="W9")
    states = {row["source"]: (row["state"], row["lines"]) for row in feed.pipeline.feeds()}
    assert states == {"corner_shop": ("breached", 1), "other_shop": ("ok", 1)}


def test_a_person_lets_a_feed_go_on_and_it_is_recorded_who(feed: Feed) -> None:
    feed.read(line(1))
    with pytest.raises(Refused, match="not stopped"):
        feed.pipeline.resume_feed("corner_shop", "ann", "it was nothing")
    with pytest.raises(Refused, match="is stopped"):
        feed.read(line(2), header=GONE)
    feed.pipeline.resume_feed("corner_shop", "ann", "a file of somebody else's")
    assert feed.told()[-1] == (
        *("DC1", "ok"),
        "ann let it go on (a file of somebody else's); it keeps its contract",
    )


def test_what_a_crash_kept_from_being_told_is_told_by_the_next_turn(
    feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the rows and the word on how the feed stands."""
    feed.agree(REJECTED)

    def die(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(feed.pipeline), "look", die)
        with pytest.raises(KeyboardInterrupt):
            feed.read(line(1), line(2, quantity="two"))
    assert feed.shown()["lines"] == 1
    assert feed.told() == []
    assert feed.pipeline.look_by_time() == 1
    assert feed.states() == [("DC1", "degraded")]


# The command line -------------------------------------------------------------------------------------


def test_contracts_are_listed_shown_written_and_checked(tmp_path: Path) -> None:
    names = {row["name"] for row in told(ask("contracts", "list", "--json"))}
    assert names >= {*retail.TABLES, *ingest.shipped()}
    shown = ask("contracts", "show", "stock_count")
    assert OpenDataContractStandard.from_string(shown.stdout).name == "stock_count"
    found = told(ask("contracts", "show", "uci_online_retail", "--json"))
    assert [each["name"] for each in found["schema"]] == ["file", "sale_line"]
    files = told(ask("contracts", "write", tmp_path / "all", "--json"))["files"]
    assert len(files) == len(names)
    for file in files:
        assert told(ask("contracts", "check", file, "--json"))["ok"]
    assert "there is no contract x" in ask("contracts", "show", "x").stderr
    assert ask("contracts", "show").exit_code == 2
    (tmp_path / "till.yaml").write_text(TILL)
    (tmp_path / "till.contract.yaml").write_text(HEAD + REJECTED)
    own = told(ask("contracts", "show", "--mapping", tmp_path / "till.yaml", "--json"))
    assert own["team"]["name"] == "the corner shop"
    words = (
        "contracts",
        "check",
        tmp_path / "till.contract.yaml",
        "--mapping",
        tmp_path / "till.yaml",
    )
    assert ask(*words).exit_code == 0
    (tmp_path / "till.contract.yaml").write_text(HEAD + "schema: [{name: files}]\n")
    assert "till.contract.yaml:7:11" in ask(*words).stderr
