"""Lineage: every row of every version of a table, and every decision, back to runs, files and lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storekeep import bus, features, ingest, ledger
from storekeep.config import Settings
from storekeep.decisions import Selection
from storekeep.errors import Permanent, Refused, Transient
from storekeep.events import event
from storekeep.features import sku_location
from storekeep.ingest import Origin
from storekeep.lake import SALE_LINES
from storekeep.pipeline import Pipeline, opened
from storekeep.retail import TABLES
from storekeep.store import Traced
from tests import shop
from tests.openlineage_server import Catalogue, catalogue, read
from tests.shop import FIRST_DAY, LOCATION, Clock, Shop, new_tenant, opened_shop
from tests.unit.test_cli import ask, told
from tests.unit.test_ingest import HEADER, TILL

UCI = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
RULES = """\
rules:
  - {id: free, when: price = 0, do: reject, reason: what is given away is no sale}
"""


@dataclass(frozen=True)
class Place:
    """A live tenant whose pipeline is open, and a folder for files."""

    pipeline: Pipeline
    clock: Clock
    folder: Path
    mapping: ingest.Mapping

    def file(self, name: str, *lines: str, header: str = HEADER) -> Path:
        path = self.folder / name
        path.write_text(header + "".join(lines))
        return path

    def read(self, *files: Path, mapping: ingest.Mapping | None = None) -> None:
        self.clock.now += timedelta(seconds=1)
        self.pipeline.read_feed(mapping or self.mapping, files)

    def facts(self, version: int | None = None) -> list[dict[str, Any]]:
        found = self.pipeline.lake.query(
            "SELECT * FROM sale ORDER BY line_key",
            tables={"sale": SALE_LINES},
            versions={} if version is None else {"sale_line": version},
        )
        return list(found.to_pylist())


def line(number: int, item: str = "apple", price: str = "0.50", store: int = 1) -> str:
    return f"r{number},{item},{store},{price},2026-01-0{1 + number % 9} 09:00:00\n"


@pytest.fixture
def place(home_settings: Settings, tmp_path: Path) -> Iterator[Place]:
    clock = Clock()
    (tmp_path / "mapping.yaml").write_text(TILL + RULES)
    with opened(new_tenant(home_settings), now=clock) as pipeline:
        yield Place(pipeline, clock, tmp_path, ingest.mapping(tmp_path / "mapping.yaml"))


def runs_of(pipeline: Pipeline, target: str | None = None) -> list[Traced]:
    with pipeline.store.transaction(pipeline.tenant) as tx:
        return tx.unsent(target, 10_000)


def files(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The files right below a run."""
    return {each["name"]: each for each in node["inputs"] if each["kind"] == "file"}


def below(node: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """All nodes of a kind in a tree."""
    inner = [each for inputs in node.get("inputs", ()) for each in below(inputs, kind)]
    return [node, *inner] if node["kind"] == kind else inner


def hold(place: Place) -> None:
    """Every row of each version of sale lines is of exactly one run, and its file and line are that run's."""
    newest = place.pipeline.lake.version("sale_line")
    for version in range(newest + 1):
        tree = place.pipeline.lineage(f"sale_line@{version}")
        facts = place.facts(version)
        assert (
            tree["rows"]
            == tree["rows_of_runs"]
            == len(facts)
            == sum(each["facts"] for each in tree["inputs"])
        )
        for fact in facts:
            partition = bus.partition_of(place.pipeline.tenant, fact["location_id"])
            mine = [
                run
                for run in tree["inputs"]
                if run["log"]["partition"] == partition
                and run["log"]["first"] <= fact["position"] <= run["log"]["last"]
            ]
            assert len(mine) == 1
            assert mine[0]["version"] <= version
            file = files(mine[0])[fact["source_file"]]
            assert file["first_line"] <= fact["source_line"] <= file["last_line"]
        lines = sum(each["lines"] for run in tree["inputs"] for each in files(run).values())
        assert lines == len(facts)


# Tables -----------------------------------------------------------------------------------------------


def test_lines_of_a_web_shop_are_traced_to_file_line_and_mapping(place: Place) -> None:
    mapping = ingest.mapping("uci_online_retail")
    at = "2010-12-01 08:26:00"
    first = place.file(
        "2010-12-01.csv",
        f"536365,85123A,HEART,6,{at},2.55,17850,United Kingdom\n",
        f"536365,15056bl,UMBRELLA,2,{at},5.95,17850,United Kingdom\n",
        f"C536379,D,Discount,-1,{at},27.50,14527,United Kingdom\n",
        header=UCI,
    )
    second = place.file(
        "2010-12-02.csv", f"536370,22728,CLOCK,24,{at},3.75,12583,France\n", header=UCI
    )
    place.read(first, second, mapping=mapping)
    hold(place)
    (run,) = place.pipeline.lineage("sale_line")["inputs"]
    assert run["job"] == "ingest/pos/uci_online_retail"
    assert run["mapping"]["digest"] == mapping.digest
    assert run["state"] == "complete"
    assert files(run)["2010-12-01.csv"] == {
        "kind": "file",
        "name": "2010-12-01.csv",
        "path": str(first),
        "lines": 2,
        "first_line": 2,
        "last_line": 3,
    }
    (one, _) = run["read"]
    assert (one["file"], one["read"], one["rejected"]) == ("2010-12-01.csv", 3, {"not_goods": 1})
    assert one["repaired"] == {"code_in_small_letters": 1}
    aside = place.pipeline.lineage("rejected")
    assert (aside["rows"], aside["rows_of_runs"]) == (1, 1)
    assert files(aside["inputs"][0])["2010-12-01.csv"]["first_line"] == 4


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc")), max_size=5), max_size=3
        ),
        min_size=1,
        max_size=3,
    )
)
def test_the_runs_are_what_each_version_of_the_table_holds(
    home_settings: Settings, tmp_path: Path, reads: list[list[list[tuple[int, str]]]]
) -> None:
    """Whatever is read together, overlapping or again, in several locations."""
    clock = Clock()
    text = TILL.replace("\"'main'\"", "item") + RULES
    (tmp_path / "mapping.yaml").write_text(text)
    mapping = ingest.mapping(tmp_path / "mapping.yaml")
    with opened(new_tenant(home_settings), now=clock) as pipeline:
        place = Place(pipeline, clock, tmp_path, mapping)
        for number, each in enumerate(reads):
            names = [
                place.file(f"{number}-{at}.csv", *(line(*one) for one in sorted(set(lines))))
                for at, lines in enumerate(each)
            ]
            if names:
                place.read(*names)
        if pipeline.lake.version("sale_line") >= 0:
            hold(place)


def test_many_small_files_share_a_run_and_a_batch_is_a_row(place: Place) -> None:
    names = [place.file(f"{n}.csv", line(n), line(n + 20)) for n in range(9)]
    place.read(*names)
    (run,) = place.pipeline.lineage("sale_line")["inputs"]
    assert sorted(files(run)) == sorted(path.name for path in names)
    assert [each.job for each in runs_of(place.pipeline)].count("ingest/pos/corner_shop") == 1


def test_lines_that_were_known_before_stay_with_the_run_that_brought_them(place: Place) -> None:
    place.read(place.file("a.csv", line(1), line(2)))
    place.read(place.file("b.csv", line(2), line(3)), place.file("c.csv", line(1)))
    newest, oldest = place.pipeline.lineage("sale_line")["inputs"]
    assert set(files(oldest)) == {"a.csv"}
    assert set(files(newest)) == {"b.csv"}
    assert [each["file"] for each in newest["read"]] == ["b.csv", "c.csv"]
    place.read(place.folder / "a.csv")
    again = runs_of(place.pipeline)[-1]
    assert (again.output, again.facts, again.content["read"][0]["file"]) == (None, 0, "a.csv")
    hold(place)


def test_a_replayed_row_is_traced_to_its_own_file(place: Place) -> None:
    place.read(place.file("a.csv", line(1), line(2, price="0")))
    (row,) = place.pipeline.aside().to_pylist()
    place.clock.now += timedelta(seconds=1)
    place.pipeline.correct(row["id"], {"price": "0.70"}, "ann", "asked the till")
    place.pipeline.replay_aside(place.mapping, by="ann")
    replayed, _ = place.pipeline.lineage("sale_line")["inputs"]
    assert replayed["job"] == "replay/pos/corner_shop"
    assert files(replayed)["a.csv"]["first_line"] == 3
    hold(place)


def test_a_file_that_is_refused_is_a_run_that_failed_and_made_nothing(place: Place) -> None:
    good, bad = place.file("a.csv", line(1)), place.folder / "b.csv"
    bad.write_text("receipt,item\nr1,apple\n")
    with pytest.raises(Refused):
        place.read(good, bad)
    hold(place)
    (failed,) = [each for each in runs_of(place.pipeline) if each.state == "fail"]
    assert failed.output is None
    assert "b.csv" in failed.content["error"]
    assert [each["file"] for each in failed.content["files"]] == ["b.csv"]
    assert set(files(place.pipeline.lineage("sale_line")["inputs"][0])) == {"a.csv"}


def test_a_file_that_is_passed_over_failed_too(place: Place) -> None:
    good, bad = place.file("a.csv", line(1)), place.folder / "b.csv"
    bad.write_text("receipt,item\nr1,apple\n")
    passed: list[Path] = []
    place.pipeline.read_feed(place.mapping, [bad, good], refuse=lambda file, _: passed.append(file))
    assert passed == [bad]
    assert [each.state for each in runs_of(place.pipeline)].count("fail") == 1
    hold(place)


def test_what_no_run_is_noted_of_is_told_by_the_log(place: Place) -> None:
    """So comes what a transport brings: who told it, and the files that its facts name."""
    facts = shop.sales(FIRST_DAY, FIRST_DAY)
    tenant = place.pipeline.tenant
    with place.pipeline.store.transaction(tenant) as tx:
        bus.publish(tx, event("SaleRecorded", "elsewhere", LOCATION, place.clock.now, facts))
    place.pipeline.keep_history()
    tree = place.pipeline.lineage("sale_line")
    assert (tree["rows"], tree["rows_of_runs"]) == (facts.num_rows, 0)
    (run,) = tree["inputs"]
    assert (run["id"], run["state"], run["job"]) == (None, "unknown", "told/elsewhere")
    assert run["facts"] == facts.num_rows


def test_a_lake_that_is_ahead_of_the_log_is_noted_as_it_is(place: Place) -> None:
    """As a crash leaves it between the append and the commit."""
    place.read(place.file("a.csv", line(1)))
    pipeline = place.pipeline
    whole = pipeline.lake.append
    with pipeline.store.transaction(pipeline.tenant) as tx:
        facts = shop.sales(FIRST_DAY, FIRST_DAY)
        pipeline._publish(
            tx, "told/tills", [event("SaleRecorded", "t", "main", place.clock.now, facts)]
        )

    class Crash(Exception):
        pass

    def dying(*given: Any, **more: Any) -> int:
        whole(*given, **more)
        raise Crash

    pipeline.lake.append = dying  # type: ignore[method-assign]  # dies right after it
    with pytest.raises(Crash):
        pipeline.keep_history()
    pipeline.lake.append = whole  # type: ignore[method-assign]  # and is started again
    assert pipeline.lineage("sale_line")["version"] == 2
    place.clock.now += timedelta(seconds=1)
    pipeline.keep_history()
    kept = [each for each in runs_of(pipeline) if each.job == "history/sale_line"]
    assert [(each.version, each.facts) for each in kept] == [(1, 1), (2, facts.num_rows)]


def test_the_version_that_brought_a_position_is_found(place: Place) -> None:
    for number in range(1, 5):
        place.read(place.file(f"{number}.csv", line(number)))
    partition = bus.partition_of(place.pipeline.tenant, "main")
    lake, writer = place.pipeline.lake, f"bus:{partition}"
    assert [lake.brought("sale_line", writer, at) for at in range(1, 5)] == [1, 2, 3, 4]
    assert lake.written_at("sale_line", 2, [writer, "nobody"]) == {writer: 2}
    kept = [each for each in runs_of(place.pipeline) if each.job == "history/sale_line"]
    assert [each.version for each in kept] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "is no decision and no table of tenant"),
        ("product", "is no decision and no table of tenant"),
        ("sale_line@9", "sale_line has no version 9; its versions are 0 to 1"),
        ("sale_line@x", "sale_line has no version x"),
        ("438fa730-0126-469b-8d4a-9864a729ff7c", "has no decision"),
    ],
)
def test_what_is_not_there_is_refused(place: Place, what: str, said: str) -> None:
    place.read(place.file("a.csv", line(1)))
    with pytest.raises(Refused, match=said):
        place.pipeline.lineage(what)


def test_rows_that_were_kept_aside_before_a_crash_are_traced_by_the_next_reading(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def dies(*_: object) -> None:
        raise Died

    place.read(place.file("a.csv", line(1, price="0"), line(2)))
    later = place.file("b.csv", line(3, price="0"), line(4, price="0"), line(5))
    with monkeypatch.context() as patched:
        # What follows the append in its transaction is as if it had never been.
        patched.setattr(Pipeline, "_trace_rejected", dies)
        with pytest.raises(Died):
            place.read(later)
    tree = place.pipeline.lineage("rejected")
    assert (tree["rows"], tree["rows_of_runs"]) == (3, 1)
    place.read(later)
    hold(place)
    tree = place.pipeline.lineage("rejected")
    assert (tree["rows"], tree["rows_of_runs"]) == (3, 3)
    newest = files(tree["inputs"][0])["b.csv"]
    assert (newest["lines"], newest["first_line"], newest["last_line"]) == (2, 2, 3)
    assert len(place.pipeline.aside()) == 3
    place.read(later, place.file("c.csv", line(6, price="0")))
    tree = place.pipeline.lineage("rejected")
    assert (tree["rows"], tree["runs"]) == (4, 3)


# Columns ----------------------------------------------------------------------------------------------


def test_each_column_has_the_columns_of_the_file_that_it_comes_of() -> None:
    mapping = ingest.mapping("uci_online_retail")
    found = ingest.origins(mapping)
    assert found["sku"] == Origin(("StockCode",), ("StockCode",), "StockCode")
    assert found["value_minor"] == Origin(("Quantity", "UnitPrice"), (), "Quantity * UnitPrice")
    assert found["store_id"] == Origin((), (), "'web'")
    assert found["location_id"] == Origin()
    assert found["day"].made_of == ("InvoiceDate",)
    assert found["line_key"].made_of == (
        *("InvoiceDate", "InvoiceNo", "Quantity", "StockCode", "UnitPrice"),
    )
    assert ingest.filters(mapping) == ("InvoiceNo", "Quantity", "StockCode", "UnitPrice")


def test_a_reference_is_another_table() -> None:
    assert "product.department" in ingest.filters(ingest.mapping("complete_journey"))


@pytest.mark.parametrize("name", ingest.shipped())
def test_every_column_of_every_mapping_is_made_of_columns_that_there_are(name: str) -> None:
    mapping = ingest.mapping(name)
    known = {*mapping.source_columns}
    for origin in ingest.origins(mapping).values():
        assert {each for each in origin.made_of if "." not in each} <= known


def test_features_come_of_the_columns_that_their_query_reads() -> None:
    from sqlglot.lineage import lineage

    log = {"event_type": "VARCHAR", "position": "BIGINT", "fact": "BIGINT"}
    schema: dict[str, object] = {
        kept.name: {**TABLES[kept.name].duckdb_types(), **log} for kept in sku_location._READ
    }
    for each in features.FEATURES:
        tree = lineage(each.name, sku_location.QUERY, schema=schema, dialect="duckdb")
        leaves = {node.name for node in tree.walk() if not node.downstream}
        assert set(features.ORIGINS[each.name]) == leaves, each.name
    assert features.ORIGINS.keys() == {each.name for each in features.FEATURES}


# Decisions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(home_settings: Settings) -> Iterator[Shop]:
    with opened_shop(new_tenant(home_settings)) as place:
        place.prepare()
        place.play(FIRST_DAY, FIRST_DAY + timedelta(days=1))
        yield place


def test_a_decision_is_traced_down_to_the_lines_of_its_files(played: Shop) -> None:
    pipeline = played.pipeline
    for key in played.ids("bread", "milk", "lamp", "novelty"):
        tree = pipeline.lineage(key)
        with pipeline.store.transaction(pipeline.tenant) as tx:
            explained = ledger.explain(tx, pipeline.lake, key, lines=1000)
            (row,) = tx.decisions(Selection(ids=(key,)))
        (run,) = tree["inputs"]
        assert run["id"] == row["batch_id"]
        known, stock = run["inputs"]
        versions = json.loads(explained["run"]["versions"]["lake"])
        tables = {each["name"]: each for each in known["inputs"][0]["inputs"]}
        assert {name: each["version"] for name, each in tables.items()}.items() <= versions.items()
        lines = {
            (file["name"], number)
            for file in below(tables["sale_line"], "file")
            for first, last in file["ranges"]
            for number in range(first, last + 1)
        }
        assert len(lines) == tables["sale_line"]["rows"]
        newest = {
            (each["source_file"], each["source_line"]) for each in explained["lines"]["newest"]
        }
        assert newest <= lines
        # What is read beside the thirteen weeks is the first day of all.
        sku = tree["subject"].partition("@")[0]
        held = pipeline.lake.query(
            "SELECT source_file, source_line, day FROM sale WHERE sku = $sku ORDER BY day",
            tables={"sale": SALE_LINES},
            versions={"sale_line": versions["sale_line"]},
            parameters={"sku": sku},
        ).to_pylist()
        first = held[0]["day"]
        today = date.fromisoformat(explained["run"]["versions"]["day"])
        recent = today - timedelta(days=91)
        wanted = {
            (each["source_file"], each["source_line"])
            for each in held
            if each["day"] == first or each["day"] > recent
        }
        assert lines == wanted
        assert stock["position"] == explained["run"]["position"]
        assert stock["inputs"][0]["name"] == "stock_count"
        assert all(each["id"] for each in below(tree, "run"))


def test_what_came_back_is_traced_to_the_decisions_it_came_of(played: Shop) -> None:
    tree = played.pipeline.lineage("order_move")
    jobs = {run["job"] for run in tree["inputs"]}
    assert {"act", "commit/replenish", "told/back_office"} <= jobs
    assert tree["rows"] == tree["rows_of_runs"]
    ids = {key for node in below(tree, "decisions") for key in node["ids"]}
    assert set(played.ids("bread")) <= ids


def test_features_are_traced_to_the_versions_they_were_read_from(played: Shop) -> None:
    tree = played.pipeline.lineage("feature_sku_location")
    assert tree["rows"] == tree["rows_of_runs"]
    newest, oldest = tree["inputs"]
    assert newest["version"] == 2
    tables = {each["name"]: each["version"] for each in oldest["inputs"]}
    assert tables == {"sale_line": 2, "supply_terms": 1}


def test_features_whose_note_a_crash_cut_off_are_noted_when_it_is_repeated(
    home_settings: Settings,
) -> None:
    with opened_shop(new_tenant(home_settings)) as place:
        place.prepare()
        place.sell(FIRST_DAY)
        pipeline = place.pipeline
        pipeline.keep_history()
        moved = features.update(pipeline.lake, LOCATION, today=FIRST_DAY, known_by=place.clock.now)
        assert pipeline.lineage("feature_sku_location")["runs"] == 0
        pipeline.update_features(LOCATION, FIRST_DAY)
        (run,) = pipeline.lineage("feature_sku_location")["inputs"]
        assert (run["facts"], run["version"]) == (moved.items, moved.version)


def test_the_command_draws_the_tree_and_tells_the_same_in_json(played: Shop) -> None:
    pipeline = played.pipeline
    home = pipeline.lake._root.parents[1]

    def asked(*words: object) -> Any:
        return ask("lineage", *words, "--home", home, "--tenant", pipeline.tenant)

    (key,) = played.ids("bread")
    drawn = asked(key)
    assert drawn.exit_code == 0, drawn.output
    assert f"decision {key}: allow for bread@{LOCATION}" in drawn.stdout
    assert "file 2025-11.csv, 2 rows: lines 201-202" in drawn.stdout
    assert told(asked(key, "--json")) == told(asked("show", key, "--json"))
    tree = told(asked("sale_line@1", "--json"))
    assert (tree["kind"], tree["name"], tree["version"]) == ("table", "sale_line", 1)
    assert "table sale_line@1, 1,050 rows of 1 run\n" in asked("sale_line@1").stdout
    assert len(told(asked("order_move", "--limit", 1, "--json"))["inputs"]) == 1
    assert asked("nothing").exit_code == 1
    assert "storekeep decisions list" in asked("nothing").stderr


# Others are told --------------------------------------------------------------------------------------


@pytest.fixture
def told_to() -> Iterator[Catalogue]:
    with catalogue() as one:
        yield one


def test_every_run_is_told_once_as_two_events_that_openlineage_reads(
    played: Shop, told_to: Catalogue
) -> None:
    pipeline = played.pipeline
    runs = runs_of(pipeline)
    assert pipeline.send_lineage(told_to.url) == len(runs)
    assert told_to.paths == {"/api/v1/lineage"}
    assert told_to.runs("START") == told_to.runs("COMPLETE") == [each.run_id for each in runs]
    assert pipeline.send_lineage(told_to.url) == 0
    assert pipeline.send_lineage(f"{told_to.url}/api/v1/lineage/") == 0
    jobs = {each["job"]["name"] for each in told_to.events}
    assert {"told/tills", "history/sale_line", "features/sku_location", "decide/replenish"} <= jobs
    decided = [each for each in told_to.events if each["job"]["name"] == "decide/replenish"]
    versions = {
        one["name"]: one["facets"]["version"]["datasetVersion"] for one in decided[0]["inputs"]
    }
    assert versions == {"sale_line": "2", "supply_terms": "1", "feature_sku_location": "1"}


def test_columns_versions_and_quality_are_told(place: Place, told_to: Catalogue) -> None:
    file = place.file("a.csv", line(1), line(2, price="0"))
    place.read(file)
    (place.folder / "b.csv").write_text("receipt,item\nr1,apple\n")
    with pytest.raises(Refused):
        place.read(place.folder / "b.csv")
    place.pipeline.send_lineage(told_to.url)
    by_job = {
        each["job"]["name"]: each for each in told_to.events if each["eventType"] == "COMPLETE"
    }
    got = by_job["ingest/pos/corner_shop"]
    (given_,), (made,) = got["inputs"], got["outputs"]
    assert (given_["namespace"], given_["name"]) == ("file", str(file))
    assert given_["facets"]["dataQualityMetrics"]["rowCount"] == 2
    assert given_["inputFacets"]["inputStatistics"]["rowCount"] == 1
    assert (made["namespace"], made["name"]) == (
        f"storekeep://{place.pipeline.tenant}",
        "log.sale_line",
    )
    fields = made["facets"]["columnLineage"]["fields"]
    assert fields["value_minor"]["inputFields"] == [
        {
            "namespace": "file",
            "name": str(file),
            "field": name,
            "transformations": [
                {
                    "type": "DIRECT",
                    "subtype": "TRANSFORMATION",
                    "description": "qty * price",
                    "masking": False,
                }
            ],
        }
        for name in ("price", "qty")
    ]
    assert fields["sku"]["inputFields"][0]["transformations"][0]["subtype"] == "IDENTITY"
    (by,) = made["facets"]["columnLineage"]["dataset"]
    assert (by["field"], by["transformations"][0]["subtype"]) == ("price", "FILTER")
    assert got["run"]["facets"]["storekeep"]["read"][0]["rejected"] == {"free": 1}
    assert got["job"]["facets"]["sourceCodeLocation"]["version"] == place.mapping.digest
    kept = by_job["history/sale_line"]
    assert kept["inputs"][0]["facets"]["version"] == made["facets"]["version"]
    assert kept["outputs"][0]["facets"]["version"]["datasetVersion"] == "1"
    (failed,) = [each for each in told_to.events if each["eventType"] == "FAIL"]
    assert "b.csv" in failed["run"]["facets"]["errorMessage"]["message"]
    assert failed["outputs"] == []


def test_columns_that_identify_a_person_are_told_as_masked(place: Place) -> None:
    text = (TILL + "customer: pseudonymise\n").replace(
        "  occurred_at: at\n", "  occurred_at: at\n  customer_id: receipt\n"
    )
    (place.folder / "people.yaml").write_text(text)
    mapping = ingest.mapping(place.folder / "people.yaml")
    place.pipeline.read_feed(mapping, [place.file("a.csv", line(1))], pseudonym_key=b"k" * 32)
    path = place.folder / "lineage.jsonl"
    place.pipeline.write_lineage(path)
    events = [json.loads(each) for each in path.read_text().splitlines()]
    made = next(each for each in events if each["job"]["name"].startswith("ingest/"))["outputs"][0]
    fields = made["facets"]["columnLineage"]["fields"]
    assert fields["customer_id"]["inputFields"][0]["transformations"][0]["masking"] is True
    assert fields["sku"]["inputFields"][0]["transformations"][0]["masking"] is False


def test_only_what_is_new_is_told_and_each_endpoint_for_itself(
    place: Place, told_to: Catalogue
) -> None:
    place.read(place.file("a.csv", line(1)))
    assert place.pipeline.send_lineage(told_to.url) == 2
    place.read(place.file("b.csv", line(2)))
    assert place.pipeline.send_lineage(told_to.url) == 2
    assert len(told_to.events) == 8
    with catalogue() as other:
        assert place.pipeline.send_lineage(other.url) == 4
    path = place.folder / "lineage.jsonl"
    for _ in range(2):
        assert place.pipeline.write_lineage(path) == 4
        events = [json.loads(each) for each in path.read_text().splitlines()]
        assert events == told_to.events
        assert all(read(each) for each in events)


def test_an_endpoint_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    place: Place, told_to: Catalogue
) -> None:
    place.read(place.file("a.csv", line(1)))
    waits: list[float] = []
    told_to.answers = [503, 429, 500]
    assert place.pipeline.send_lineage(told_to.url, sleep=waits.append) == 2
    assert len(waits) == 3
    place.read(place.file("b.csv", line(2)))
    before = len(told_to.events)
    told_to.answers = [400]
    with pytest.raises(Permanent, match="is it an OpenLineage endpoint"):
        place.pipeline.send_lineage(told_to.url, sleep=waits.append)
    assert len(told_to.events) == before
    told_to.answers = [503] * 5
    with pytest.raises(Transient, match="503"):
        place.pipeline.send_lineage(told_to.url, sleep=waits.append)
    assert place.pipeline.send_lineage(told_to.url) == 2


def test_an_endpoint_that_is_not_there_is_named_without_its_password(place: Place) -> None:
    place.read(place.file("a.csv", line(1)))
    with pytest.raises(Transient) as caught:
        place.pipeline.send_lineage("http://ann:secret@127.0.0.1:9", sleep=lambda _: None)
    assert "secret" not in str(caught.value)
    assert "http://127.0.0.1:9/api/v1/lineage cannot be reached" in str(caught.value)


@pytest.mark.parametrize("address", ["http://", "http://host:port", "https://:80"])
def test_what_is_no_address_is_refused(place: Place, address: str) -> None:
    with pytest.raises(Refused, match="is no address"):
        place.pipeline.send_lineage(address)


def test_the_command_tells_how_many(played: Shop, told_to: Catalogue, tmp_path: Path) -> None:
    pipeline = played.pipeline
    where = ("--home", pipeline.lake._root.parents[1], "--tenant", pipeline.tenant)
    many = len(runs_of(pipeline))
    path = tmp_path / "all.jsonl"
    assert told(ask("lineage", "export", "--to", path, *where, "--json")) == {
        "runs": many,
        "events": 2 * many,
    }
    said = ask("lineage", "export", "--to", told_to.url, *where)
    assert said.stdout == f"Told of {many} runs, in {2 * many} events.\n"
    assert len(path.read_text().splitlines()) == len(told_to.events) == 2 * many
