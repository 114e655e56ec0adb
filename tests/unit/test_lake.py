"""History: what is appended once stays as it was, whoever repeats it, and every version can be read again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storekeep.errors import InvariantBroken, Permanent, Refused, Transient
from storekeep.lake import _APPENDS_TOGETHER, Kept, Lake, single

SCHEMA = pa.schema(
    [("name", pa.string()), ("many", pa.int64()), ("noted_at", pa.timestamp("us", tz="UTC"))]
)
BY_MONTH = Kept("thing", SCHEMA, "noted_at")
PLAIN = Kept("plain", SCHEMA)
QUERY = "SELECT name, many, noted_at FROM thing ORDER BY many, name"


def rows(*names: str | None, month: int = 3, first: int = 0) -> pa.Table:
    at = datetime(2026, month, 1, tzinfo=UTC)
    many = range(first, first + len(names))
    return pa.table({"name": names, "many": many, "noted_at": [at] * len(names)}, schema=SCHEMA)


def names(lake: Lake, kept: Kept = BY_MONTH, version: int | None = None) -> list[str | None]:
    versions = None if version is None else {kept.name: version}
    found: list[str | None] = lake.query(QUERY, tables={"thing": kept}, versions=versions)[
        "name"
    ].to_pylist()
    return found


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with Lake(tmp_path, "acme") as one:
        yield one


@pytest.mark.parametrize("kept", [BY_MONTH, PLAIN])
def test_an_append_that_is_repeated_adds_nothing(lake: Lake, kept: Kept) -> None:
    assert lake.version(kept.name) == -1
    assert lake.written(kept.name, "w") is None
    assert names(lake, kept) == []
    assert lake.append(kept, rows("a"), writer="w", position=3) == 1
    assert lake.append(kept, rows("a"), writer="w", position=3) == 1
    assert lake.append(kept, rows("b", first=1), writer="w", position=2) == 1
    assert lake.append(kept, rows("b", first=1), writer="v", position=2) == 2
    assert lake.append(kept, rows("c", first=2), writer="w", position=4) == 3
    assert names(lake, kept) == ["a", "b", "c"]
    assert (lake.written(kept.name, "w"), lake.written(kept.name, "v")) == (4, 2)
    assert lake.versions([kept.name, "none"]) == {kept.name: 3, "none": -1}


def test_every_version_is_read_again_as_it_was(lake: Lake) -> None:
    seen = []
    for number in range(6):
        version = lake.append(
            BY_MONTH, rows(f"n{number}", month=number % 3 + 1), writer="w", position=number + 1
        )
        seen.append((version, names(lake)))
    for version, found in seen:
        assert names(lake, version=version) == found
        assert len(found) == version
    assert names(lake, version=0) == []
    assert names(lake, version=-1) == []
    with pytest.raises(Refused, match="version 99 of thing is not in the lake"):
        names(lake, version=99)


@pytest.mark.parametrize("kept", [BY_MONTH, PLAIN])
def test_small_files_are_put_together_and_every_version_stays_as_it_was(
    kept: Kept, lake: Lake, tmp_path: Path
) -> None:
    many, found = 3 * _APPENDS_TOGETHER, dict[int, int]()
    for place in range(many):
        version = lake.append(kept, rows(f"r{place}", first=place), writer="w", position=place)
        found[version] = place + 1
        assert len(lake._files(kept, None, None)) <= _APPENDS_TOGETHER
    for version, expected in found.items():
        assert names(lake, kept, version) == [f"r{place}" for place in range(expected)]
    assert lake.written(kept.name, "w") == many - 1
    assert lake.append(kept, rows("r0"), writer="w", position=0) == max(found)
    # What the files of then hold is still there for whoever opens the lake anew.
    with Lake(tmp_path, "acme") as other:
        assert names(other, kept, min(found)) == ["r0"]
        assert names(other, kept) == names(lake, kept)


def test_writers_whose_files_are_put_together_lose_nothing(tmp_path: Path) -> None:
    """Several append while each of them, now and then, puts files together."""

    def write(writer: str) -> None:
        with Lake(tmp_path, "acme") as own:
            for place in range(40):
                while True:
                    try:
                        own.append(
                            BY_MONTH, rows(f"{writer}{place}"), writer=writer, position=place
                        )
                    except Transient:
                        continue
                    break

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, "abc"))
    with Lake(tmp_path, "acme") as lake:
        expected = sorted(f"{writer}{place}" for writer in "abc" for place in range(40))
        assert sorted(map(str, names(lake))) == expected


def test_the_months_that_are_asked_for_are_read(lake: Lake) -> None:
    for month in (1, 2, 3):
        lake.append(BY_MONTH, rows(f"m{month}", month=month), writer="w", position=month)
    found = lake.query(QUERY, tables={"thing": BY_MONTH}, months={"thing": ("2026-02", "2026-03")})
    assert found["name"].to_pylist() == ["m2", "m3"]


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.none()


@settings(max_examples=20)
@given(st.lists(words, max_size=8))
def test_values_come_back_as_they_were_appended(
    tmp_path_factory: pytest.TempPathFactory, values: list[str | None]
) -> None:
    with Lake(tmp_path_factory.mktemp("lake"), "acme") as lake:
        lake.append(BY_MONTH, rows(*values), writer="w", position=1)
        assert lake.query(QUERY, tables={"thing": BY_MONTH}).cast(SCHEMA) == rows(*values)


def test_a_table_that_is_asked_for_without_rows_has_its_columns(lake: Lake) -> None:
    found = lake.query(QUERY, tables={"thing": BY_MONTH})
    assert found.schema.names == SCHEMA.names
    lake.append(BY_MONTH, SCHEMA.empty_table(), writer="w", position=1)
    assert lake.written(BY_MONTH.name, "w") == 1
    assert names(lake) == []


# ------------------------------------------------------------------------------------ several at once


@pytest.mark.parametrize("name", ["my home", "Jörg's 店", "100% #?*{a}", "%2", "a+b=c&d"])
def test_a_home_may_have_a_name_with_any_signs(tmp_path: Path, name: str) -> None:
    with Lake(tmp_path / name, "acme") as lake:
        lake.append(BY_MONTH, rows("a"), writer="w", position=1)
        lake.append(BY_MONTH, rows("b", first=1), writer="w", position=2)
        assert names(lake) == ["a", "b"]
        assert names(lake, version=1) == ["a"]


@pytest.mark.parametrize("name", ["a[1]", "a|b", "a^b", "a\\b", "a%20b", "a\tb"])
def test_a_home_whose_name_delta_cannot_spell_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="choose another folder with --home"):
        Lake(tmp_path / name, "acme")


def test_what_another_process_appended_is_seen(lake: Lake, tmp_path: Path) -> None:
    """Each process has a lake of its own over the same files."""
    with Lake(tmp_path, "acme") as other:
        lake.append(BY_MONTH, rows("a"), writer="w", position=1)
        assert names(other) == ["a"]
        lake.append(BY_MONTH, rows("b", first=1), writer="w", position=2)
        assert other.written(BY_MONTH.name, "w") == 2
        assert other.version(BY_MONTH.name) == 2
        assert names(other) == ["a", "b"]
        assert names(other, version=1) == ["a"]
        lake.append(BY_MONTH, rows("c", first=2), writer="w", position=3)
        assert names(other, version=3) == ["a", "b", "c"]


@pytest.mark.parametrize("there", [False, True])
def test_processes_that_append_the_same_at_once_append_it_once(tmp_path: Path, there: bool) -> None:
    """A worker that lost its place in the log without knowing it, and the one that took over."""
    with Lake(tmp_path, "acme") as lake:
        if there:
            lake.append(BY_MONTH, rows("first"), writer="w", position=1)
        for position in range(2, 12):
            begin = threading.Barrier(3)

            def append(_: int, position: int = position, begin: threading.Barrier = begin) -> None:
                with Lake(tmp_path, "acme") as own:
                    own.written(BY_MONTH.name, "w")
                    begin.wait()
                    # Who lost tries again, as often as it loses: of three one may lose twice.
                    while True:
                        try:
                            own.append(
                                BY_MONTH, rows("x", first=position), writer="w", position=position
                            )
                            break
                        except Transient:
                            continue

            with ThreadPoolExecutor(3) as pool:
                list(pool.map(append, range(3)))
        found = lake.query(QUERY, tables={"thing": BY_MONTH})["many"].to_pylist()
    assert found == [*([0] if there else []), *range(2, 12)]


def test_writers_that_append_at_once_each_append_their_own(tmp_path: Path) -> None:
    def append(number: int) -> None:
        with Lake(tmp_path, "acme") as own:
            for position in range(5):
                while True:
                    try:
                        own.append(
                            BY_MONTH,
                            rows(f"{number}/{position}"),
                            writer=f"w{number}",
                            position=position + 1,
                        )
                        break
                    except Transient:
                        continue

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(append, range(3)))
    with Lake(tmp_path, "acme") as lake:
        assert sorted(name or "" for name in names(lake)) == [
            f"{number}/{position}" for number in range(3) for position in range(5)
        ]


# -------------------------------------------------------------------------------------- what goes wrong


def test_history_that_is_not_there_any_more_is_named(lake: Lake, tmp_path: Path) -> None:
    lake.append(BY_MONTH, rows("a"), writer="w", position=1)
    for file in (tmp_path / "acme" / "thing").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(Permanent, match=r"thing.*parquet"):
        names(lake)


def test_history_that_is_no_table_is_named(lake: Lake, tmp_path: Path) -> None:
    lake.append(BY_MONTH, rows("a"), writer="w", position=1)
    log = tmp_path / "acme" / "thing" / "_delta_log" / "00000000000000000000.json"
    log.write_text("{")
    with Lake(tmp_path, "acme") as other, pytest.raises(Permanent, match="thing"):
        names(other)


def test_a_folder_that_nobody_can_write_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "acme").write_text("a file, not a folder")
    with Lake(tmp_path, "acme") as lake, pytest.raises(Permanent, match="acme"):
        lake.append(BY_MONTH, rows("a"), writer="w", position=1)


def test_a_query_that_fails_leaves_the_lake_usable(lake: Lake) -> None:
    lake.append(BY_MONTH, rows("a"), writer="w", position=1)
    with pytest.raises(InvariantBroken, match="nothing_of_the_kind"):
        lake.query("SELECT nothing_of_the_kind FROM thing", tables={"thing": BY_MONTH})
    assert names(lake) == ["a"]
    with pytest.raises(InvariantBroken, match="one row was expected, 0 came"):
        single(SCHEMA.empty_table())
    assert single(rows("a"))["name"] == "a"


# ------------------------------------------------------------------------------------------- tenants


def test_tenants_have_folders_of_their_own(tmp_path: Path) -> None:
    with Lake(tmp_path, "acme") as acme, Lake(tmp_path, "bolt") as bolt:
        acme.append(BY_MONTH, rows("a"), writer="w", position=1)
        assert names(bolt) == []
        assert bolt.written(BY_MONTH.name, "w") is None
        bolt.append(BY_MONTH, rows("b"), writer="w", position=1)
        assert (names(acme), names(bolt)) == (["a"], ["b"])
