"""Features over tables of one's own: declared, put beside labels, served, and refused when they must be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, TableFeatures, write_deltalake

from storekeep.config import Settings
from storekeep.errors import Misused, Refused
from storekeep.features import Feature, FeatureSet, Source, declaring
from storekeep.features.definition import from_written, written
from storekeep.features.history import history, latest
from storekeep.lake import outside
from storekeep.pipeline import Pipeline, opened
from storekeep.pipeline.featuring import write_history
from tests.declared import BEGIN, DAY, Label, Told, joined, labels, prices, table, wanted

ROWS = [
    Told("bread", BEGIN, BEGIN, 100),
    Told("bread", BEGIN + 2 * DAY, BEGIN + 2 * DAY, 120),
    # A correction of the first, and a word of the second that comes late.
    Told("bread", BEGIN, BEGIN + DAY, 101),
    Told("wine", BEGIN + DAY, BEGIN + 3 * DAY, 900),
    Told("salt", BEGIN, BEGIN, None),
]
PRICE = Feature("price_minor", "int", "Selling price.", nullable=True)
STRICT = replace(PRICE, nullable=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "prices.parquet"
    pq.write_table(table(ROWS), path)
    return path


def asked(source: Path, feature: Feature, *told: Label, **more: Any) -> list[Any]:
    found = history(labels(told), [wanted(prices(source, feature))], **more).table()
    return [value.as_py() for value in found[feature.name]]


# As of a time -------------------------------------------------------------------------------------------


def test_a_correction_counts_from_when_it_is_known(source: Path) -> None:
    hours = [Label("bread", BEGIN + hour * DAY / 24) for hour in (0, 23, 24, 47, 48)]
    assert asked(source, PRICE, *hours) == [100, 100, 101, 101, 120]


def test_what_comes_late_does_not_hide_what_happened_after_it(tmp_path: Path) -> None:
    rows = [
        Told("bread", BEGIN + DAY, BEGIN + DAY, 120),
        Told("bread", BEGIN, BEGIN + 2 * DAY, 100),
    ]
    told = [Label("bread", BEGIN + hours * DAY) for hours in (0, 1, 2, 3)]
    found = joined(tmp_path, rows, told).table()
    assert found["price_minor"].to_pylist() == [None, 120, 120, 120]


def test_a_row_that_happened_and_was_not_known_is_not_seen(source: Path) -> None:
    told = [Label("wine", BEGIN + 2 * DAY), Label("wine", BEGIN + 3 * DAY)]
    assert asked(source, PRICE, *told) == [None, 900]


def test_what_holds_no_more_is_missing_and_counted(tmp_path: Path) -> None:
    asked_ = [Label("bread", BEGIN - DAY), Label("bread", BEGIN + 9 * DAY), Label("salt", BEGIN)]
    found = joined(tmp_path, ROWS, asked_)
    assert found.table()["price_minor"].to_pylist() == [None, None, None]
    missing = found.missing["price_minor"]
    assert (missing.before, missing.stale, missing.null) == (1, 1, 1)


def test_a_default_stands_where_there_is_no_value(source: Path) -> None:
    told = [Label("bread", BEGIN - DAY), Label("salt", BEGIN), Label("bread", BEGIN)]
    assert asked(source, replace(STRICT, default=7), *told) == [7, 7, 100]


def test_an_expression_is_computed_and_its_kind_kept(source: Path) -> None:
    dear = Feature("is_dear", "bool", "Dear.", sql="price_minor > 110")
    told = [Label("bread", BEGIN), Label("bread", BEGIN + 2 * DAY)]
    assert asked(source, dear, *told) == [False, True]
    share = Feature("price", "float", "In whole units.", sql="price_minor / 100")
    assert asked(source, share, *told) == [1.0, 1.2]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            Label("bread", BEGIN - DAY),
            r"price_minor of item_id=bread at 2026-02-28T00:00:00.000000Z \(label 1.*nothing was known",
        ),
        (
            Label("bread", BEGIN + 6 * DAY),
            r"price_minor of item_id=bread .*the last that was known is of 2026-03-03T.* holds for 3 days",
        ),
        (
            Label("salt", BEGIN),
            r"price_minor of item_id=salt .*its row in .*prices.parquet has none",
        ),
    ],
)
def test_a_missing_value_is_refused_by_name(source: Path, told: Label, said: str) -> None:
    with pytest.raises(Refused, match=said):
        asked(source, STRICT, Label("bread", BEGIN), told)


def test_two_values_of_one_moment_are_refused(tmp_path: Path) -> None:
    rows = [*ROWS, Told("bread", BEGIN, BEGIN, 105)]
    said = "price_minor: .*several values of item_id=bread at 2026-03-01T00:00:00.000000Z"
    with pytest.raises(Refused, match=said):
        joined(tmp_path, rows, [Label("bread", BEGIN + DAY)]).table()
    # The same said twice is no contradiction.
    same = [*ROWS, ROWS[0]]
    assert joined(tmp_path, same, [Label("bread", BEGIN)]).table()["price_minor"][0].as_py() == 100


def test_rows_without_a_time_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    rows = table(ROWS)
    nulls = pa.nulls(len(ROWS), rows.schema.field("valid_from").type)
    pq.write_table(rows.set_column(1, "valid_from", nulls), path)
    with pytest.raises(Refused, match=r"item_price: 3 rows .*have no time in valid_from"):
        asked(path, PRICE, Label("bread", BEGIN + DAY))


def test_keys_of_several_columns_and_sets(tmp_path: Path) -> None:
    path = tmp_path / "stock.parquet"
    times = pa.array([BEGIN, BEGIN], pa.timestamp("us", "UTC"))
    pq.write_table(
        pa.table({"item_id": ["bread", "bread"], "store": [1, 2], "at": times, "units": [5, 6]}),
        path,
    )
    stock = FeatureSet(
        "stock", {"item_id": "text", "store": "int"}, Source(str(path), "at"), DAY, "shop",
        (Feature("units", "int", "On hand.", unit="unit"),),
    )  # fmt: skip
    pq.write_table(table(ROWS), tmp_path / "prices.parquet")
    told = labels([Label("bread", BEGIN), Label("bread", BEGIN)])
    told = told.append_column("store", pa.array([2, 1]))
    found = history(told, [wanted(stock), wanted(prices(tmp_path / "prices.parquet"))], at="at")
    assert found.table().select(["units", "price_minor"]).to_pydict() == {
        "units": [6, 5],
        "price_minor": [100, 100],
    }
    assert found.schema.field("units").metadata[b"version"].startswith(b"stock:")


def test_a_delta_table_is_read_at_its_newest_version(tmp_path: Path) -> None:
    path = str(tmp_path / "prices with a space")
    write_deltalake(path, table(ROWS[:1]))
    write_deltalake(path, table(ROWS[1:2]), mode="append")
    assert asked(Path(path), PRICE, Label("bread", BEGIN + 2 * DAY)) == [120]
    assert outside(path).version == 1
    assert len(outside(path, 0).files) == 1


def test_a_delta_table_that_was_given_a_column_and_folders_is_read_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "prices")
    rows = table(ROWS[:2])
    rows = rows.append_column("shop", pa.array(["a=1", "b"]))
    write_deltalake(path, rows, partition_by=["shop"])
    wider = rows.append_column("cost_minor", pa.array([60, 70]))
    later = wider.set_column(
        1, "valid_from", pa.array([BEGIN + 3 * DAY] * 2, rows["valid_from"].type)
    )
    later = later.set_column(2, "loaded_at", later["valid_from"])
    write_deltalake(path, later, mode="append", schema_mode="merge")
    cost = Feature("cost_minor", "int", "Purchase price.", nullable=True)
    shop = FeatureSet(
        "shop_price", {"shop": "text"}, Source(path, "valid_from", "loaded_at"), 9 * DAY, "pricing",
        (PRICE, cost),
    )  # fmt: skip
    asked_ = pa.table(
        {"shop": ["a=1", "a=1"], "at": pa.array([BEGIN, BEGIN + 4 * DAY], later["valid_from"].type)}
    )
    found = history(asked_, [wanted(shop)]).table()
    assert found["price_minor"].to_pylist() == [100, 100]
    assert found["cost_minor"].to_pylist() == [None, 60]


def test_a_delta_table_whose_files_do_not_say_all_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "prices")
    write_deltalake(path, table(ROWS))
    features = [TableFeatures.DeletionVectors]
    DeltaTable(path).alter.add_feature(features, allow_protocol_versions_increase=True)
    with pytest.raises(Refused, match="is written with deletionVectors, which is not read"):
        outside(path)


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prices.parquet").write_text("no")
    with pytest.raises(Misused, match=r"prices.parquet cannot be read as Parquet"):
        wanted(prices(tmp_path / "prices.parquet"))


def test_memory_has_a_size(source: Path) -> None:
    with pytest.raises(Misused, match="'much' is no size of memory"):
        asked(source, PRICE, Label("bread", BEGIN), memory="much")


# What does not fit --------------------------------------------------------------------------------------


def test_labels_that_do_not_fit_are_refused(source: Path) -> None:
    one = wanted(prices(source))
    good = labels([Label("bread", BEGIN)])
    cases = {
        "no time zone": good.set_column(1, "at", good["at"].cast(pa.timestamp("us"))),
        "have none; they have: at, target": good.drop_columns(["item_id"]),
        "is of a item_id that is text, and item_id of the labels is int64": good.set_column(
            0, "item_id", pa.array([1])
        ),
        r"label 0 \(counted from 0\) has none": good.set_column(
            0, "item_id", pa.nulls(1, pa.string())
        ),
        "has no at": good.set_column(1, "at", pa.nulls(1, good["at"].type)),
        "price_minor would be there twice": good.append_column("price_minor", pa.array([1])),
        "which column tells the time": good.append_column("other", good["at"]),
    }
    for said, table_ in cases.items():
        with pytest.raises(Misused, match=said):
            history(table_, [one])
    with pytest.raises(Misused, match="the labels have no time then"):
        history(good, [one], at="then")


def test_no_labels_give_no_rows(source: Path) -> None:
    found = history(labels([]), [wanted(prices(source))]).table()
    assert found.num_rows == 0
    assert found.column_names == ["item_id", "at", "target", "price_minor"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fresh_within": timedelta(0)}, "price_minor has an open-ended window"),
        ({"fresh_within": timedelta.max}, "price_minor has an open-ended window"),
        ({"keys": {"sku": "text"}}, "has no column sku; it has: item_id"),
        ({"keys": {"item_id": "int"}}, "key item_id is declared as int, and is VARCHAR"),
        ({"keys": {}}, "declares no keys"),
        ({"name": "Item-Price"}, "is no name of a feature"),
        ({"features": ()}, "declares no features"),
        ({"features": (PRICE, PRICE)}, "price_minor is declared twice"),
        (
            {"features": (replace(PRICE, kind="text"),)},
            "declared as text, but its expression gives BIGINT",
        ),
        ({"features": (replace(PRICE, default="many"),)}, "default 'many' is no int"),
        (
            {"features": (replace(PRICE, sql="price_minor + random()"),)},
            "'random' is not on the list",
        ),
        ({"features": (replace(PRICE, sql="prise_minor"),)}, "did you mean 'price_minor'"),
        ({"features": (replace(PRICE, sql="sum(price_minor)"),)}, "sum is an aggregate"),
    ],
)
def test_what_cannot_be_declared_is_refused(
    source: Path, change: dict[str, Any], said: str
) -> None:
    declared = replace(prices(source), **change)
    with pytest.raises(Refused, match=said):
        declaring.checked(declared, outside(declared.source.path))


def test_times_without_a_zone_need_one(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    rows = table(ROWS)
    pq.write_table(
        rows.set_column(1, "valid_from", rows["valid_from"].cast(pa.timestamp("us"))), path
    )
    declared = prices(path)
    with pytest.raises(Misused, match="valid_from has no time zone"):
        wanted(declared)
    here = replace(declared, source=replace(declared.source, time_zone="Europe/Berlin"))
    found = history(labels([Label("bread", BEGIN - DAY / 24)]), [wanted(here)]).table()
    assert found["price_minor"].to_pylist() == [None], "known only an hour later"


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no Parquet file and no Delta table"):
        outside(str(tmp_path / "none.parquet"))
    with pytest.raises(Refused, match="is no Delta table"):
        outside(str(tmp_path), 3)


def test_a_version_is_what_a_declaration_says(source: Path) -> None:
    declared = prices(source)
    assert from_written(json.loads(written(declared))).versions == declared.versions
    assert replace(declared, owner="another").version == declared.version
    other = replace(declared, features=(replace(PRICE, sql="price_minor + 0"),))
    assert other.version != declared.version


# Declared, kept, served ---------------------------------------------------------------------------------

DECLARED = """
from datetime import timedelta
from storekeep.features import Feature, FeatureSet, Source

prices = FeatureSet(
    "item_price",
    {"item_id": "text"},
    Source("prices.parquet", "valid_from", "loaded_at"),
    timedelta(days=3),
    "pricing",
    (
        Feature("price_minor", "int", "Selling price.", default=0),
        Feature("price", "float", "In whole units.", sql="price_minor / 100", nullable=True),
        Feature("label", "text", "What it is called.", sql="upper(item_id)"),
        Feature("is_dear", "bool", "Dear.", sql="price_minor > 110", nullable=True),
        Feature("since", "date", "From which day.", sql="cast(valid_from AS DATE)"),
        Feature("known", "time", "When it was known.", sql="loaded_at"),
    ),
)
"""
EVERY = ["price_minor", "price", "label", "is_dear", "since", "known"]


@pytest.fixture
def pipeline(home_settings: Settings) -> Iterator[Pipeline]:
    own = home_settings.model_copy(update={"tenant": f"t{uuid4().hex[:12]}"})
    with opened(own, now=lambda: BEGIN + 3 * DAY) as found:
        yield found


def declare(pipeline: Pipeline, folder: Path, text: str = DECLARED) -> Any:
    file = folder / "prices.py"
    file.write_text(text, encoding="utf-8")
    return pipeline.declare_features(file, "Ann")


def test_what_is_served_is_what_the_join_gives(pipeline: Pipeline, source: Path) -> None:
    declare(pipeline, source.parent)
    assert pipeline.materialise("item_price") == 3
    items = ["salt", "bread", "wine", "bread"]
    with pipeline.served() as served:
        online = served.get([{"item_id": item} for item in items], EVERY)
    told = labels([Label(item, pipeline.now()) for item in items])
    offline = pipeline.feature_history(told, EVERY).table()
    assert online.rows.select(EVERY).to_pydict() == offline.select(EVERY).to_pydict()
    assert online.rows["price_minor"].to_pylist() == [0, 120, 900, 120]
    assert online.versions["price"].startswith("item_price:")


def test_what_is_served_again_moves_forward(pipeline: Pipeline, source: Path) -> None:
    declare(pipeline, source.parent)
    pipeline.materialise("item_price")
    pq.write_table(table([*ROWS, Told("wine", BEGIN + 2 * DAY, BEGIN + 3 * DAY, 800)]), source)
    with pipeline.served() as served:
        assert (
            served.get([{"item_id": "wine"}], ["price_minor"]).rows["price_minor"][0].as_py() == 900
        )
        pipeline.materialise("item_price")
        assert (
            served.get([{"item_id": "wine"}], ["price_minor"]).rows["price_minor"][0].as_py() == 800
        )


def test_another_version_is_kept_beside_until_it_is_promoted(
    pipeline: Pipeline, source: Path
) -> None:
    (first,) = declare(pipeline, source.parent)
    assert (first.new, first.in_force) == (True, True)
    (again,) = declare(pipeline, source.parent)
    assert (again.new, again.in_force) == (False, True)
    pipeline.materialise("item_price")
    text = DECLARED.replace('"price_minor / 100"', '"price_minor / 50"')
    (second,) = declare(pipeline, source.parent, text)
    assert (second.new, second.in_force) == (True, False)
    version = second.declared.version
    told = labels([Label("bread", pipeline.now())])
    assert pipeline.feature_history(told, ["price"]).table()["price"].to_pylist() == [1.2]
    beside = pipeline.feature_history(told, [f"item_price.price@{version}"])
    assert beside.table()["price"].to_pylist() == [2.4]
    with pytest.raises(Refused, match="has no values to serve"):
        pipeline.promote_features("item_price", version, "Ann")
    with pipeline.served() as served:
        assert served.get([{"item_id": "bread"}], ["price"]).rows["price"][0].as_py() == 1.2
        pipeline.materialise("item_price", version)
        assert served.get([{"item_id": "bread"}], ["price"]).rows["price"][0].as_py() == 1.2
        pipeline.promote_features("item_price", version, "Ann")
        answer = served.get([{"item_id": "bread"}], ["price"])
        assert answer.rows["price"][0].as_py() == 2.4
        assert answer.versions["price"] == f"item_price:{second.declared.versions['price']}"


def test_a_version_without_a_feature_is_told_to_who_reads_on(
    pipeline: Pipeline, source: Path
) -> None:
    declare(pipeline, source.parent)
    pipeline.materialise("item_price")
    with pipeline.served() as served:
        served.get([{"item_id": "bread"}], ["label"])
        (fewer,) = declare(
            pipeline, source.parent, DECLARED.replace('Feature("label"', 'Feature("called"')
        )
        pipeline.materialise("item_price", fewer.declared.version)
        pipeline.promote_features("item_price", fewer.declared.version, "Ann")
        with pytest.raises(Misused, match="there is no feature label; there are: called"):
            served.get([{"item_id": "bread"}], ["label"])


def test_what_is_retired_is_refused_but_by_version(pipeline: Pipeline, source: Path) -> None:
    (declared,) = declare(pipeline, source.parent)
    told = labels([Label("bread", pipeline.now())])
    pipeline.retire_features("item_price", "Ann")
    with pytest.raises(Misused, match="there is no feature price; there are: none"):
        pipeline.feature_history(told, ["price"])
    with pytest.raises(Refused, match="item_price was retired on 2026-03-04 by Ann"):
        pipeline.feature_history(told, ["item_price.price"])
    with pytest.raises(Refused, match="retired"):
        pipeline.feature_set("item_price")
    assert pipeline.feature_set("item_price", declared.declared.version).name == "item_price"
    (again,) = declare(pipeline, source.parent)
    assert again.in_force


def test_names_that_are_not_there(pipeline: Pipeline, source: Path) -> None:
    declare(pipeline, source.parent)
    told = labels([Label("bread", pipeline.now())])
    with pytest.raises(Misused, match="there is no feature prize; there are: is_dear, known"):
        pipeline.feature_history(told, ["prize"])
    with pytest.raises(Misused, match="asked for twice"):
        pipeline.feature_history(told, ["price", "item_price.price"])
    other = DECLARED.replace('"item_price"', '"other_price"')
    declare(pipeline, source.parent, other)
    with pytest.raises(Misused, match=r"name one: item_price\.price, other_price\.price"):
        pipeline.feature_history(told, ["price"])
    with pytest.raises(Refused, match="has no version beef"):
        pipeline.feature_history(told, ["item_price.price@beef"])


def test_subjects_that_are_not_served(pipeline: Pipeline, source: Path) -> None:
    declare(pipeline, source.parent)
    with pipeline.served() as served:
        with pytest.raises(Refused, match="not served yet; run `storekeep features materialise"):
            served.get([{"item_id": "bread"}], ["price"])
        pipeline.materialise("item_price")
        found = served.get([{"item_id": "beer"}], ["price_minor", "price"])
        assert found.rows.to_pylist() == [{"item_id": "beer", "price_minor": 0, "price": None}]
        assert found.missing["price"].before == 1
        with pytest.raises(Refused, match="label of item_id=beer has no value: nothing is known"):
            served.get([{"item_id": "bread"}, {"item_id": "beer"}], ["label"])
        with pytest.raises(Misused, match=r"of key 1 \(counted from 0\) item_id is 7"):
            served.get([{"item_id": "bread"}, {"item_id": 7}], ["label"])


def test_a_file_that_cannot_be_run_keeps_nothing(pipeline: Pipeline, source: Path) -> None:
    with pytest.raises(Misused, match=r"prices.py cannot be run: NameError: name 'nonsense'"):
        declare(pipeline, source.parent, "nonsense")
    with pytest.raises(Misused, match="declares no features"):
        declare(pipeline, source.parent, "x = 1")
    with pytest.raises(Refused, match=r"prices.py: set item_price: feature price_minor"):
        declare(pipeline, source.parent, DECLARED.replace('"int", "Selling', '"text", "Selling'))
    assert pipeline.feature_sets() == []


def test_a_history_that_is_refused_leaves_no_file(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    told = labels([Label("bread", BEGIN), Label("salt", BEGIN)])
    with pytest.raises(Refused):
        write_history(history(told, [wanted(prices(source, STRICT))]), out)
    assert not list(tmp_path.glob("out*"))
    assert write_history(history(told, [wanted(prices(source))]), out) == 2
    assert pq.read_table(out)["price_minor"].to_pylist() == [100, None]


DELTA = DECLARED.replace('"prices.parquet"', '"prices"').replace("days=3", "days=9")
LATER = [Told("bread", BEGIN + 2 * DAY, BEGIN + 5 * DAY, 999), Told("wine", BEGIN, BEGIN, 1)]


def written_history(pipeline: Pipeline, folder: Path) -> Path:
    told = labels([Label("bread", BEGIN + 4 * DAY), Label("wine", BEGIN + 4 * DAY)])
    out = folder / "training.parquet"
    write_history(pipeline.feature_history(told, ["price", "price_minor"]), out)
    return out


def rebuilt(pipeline: Pipeline, out: Path) -> bytes:
    again = out.with_name("again.parquet")
    write_history(pipeline.rebuild_history(out), again)
    return again.read_bytes()


def test_a_training_set_is_made_again_after_corrections_and_compaction(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = str(tmp_path / "prices")
    write_deltalake(path, table(ROWS[:3]))
    write_deltalake(path, table(ROWS[3:]), mode="append")
    declare(pipeline, tmp_path, DELTA)
    out = written_history(pipeline, tmp_path)
    write_deltalake(path, table(LATER), mode="append")
    DeltaTable(path).optimize.compact()
    declare(pipeline, tmp_path, DELTA.replace("/ 100", "/ 50"))
    assert rebuilt(pipeline, out) == out.read_bytes()
    assert written_history(pipeline, tmp_path / "prices").read_bytes() != out.read_bytes()


def test_files_that_have_changed_cannot_be_read_as_they_were(
    pipeline: Pipeline, source: Path
) -> None:
    declare(pipeline, source.parent)
    out = written_history(pipeline, source.parent)
    assert rebuilt(pipeline, out) == out.read_bytes()
    pq.write_table(table([*ROWS, *LATER]), source)
    with pytest.raises(Refused, match=r"item_price cannot be read as they were: .* have changed"):
        pipeline.rebuild_history(out)
    with pytest.raises(Misused, match="was not written by storekeep features history"):
        pipeline.rebuild_history(source)


def test_the_newest_of_each_subject_is_the_joins(source: Path) -> None:
    (found,) = latest(wanted(prices(source)), datetime(2026, 3, 4, tzinfo=UTC))
    rows = dict(zip(found["item_id"].to_pylist(), found["price_minor"].to_pylist(), strict=True))
    assert rows == {"bread": 120, "wine": 900, "salt": None}
