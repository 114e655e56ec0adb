"""What EPCIS events say of items: numbers, places, parts, corrections; what is malformed, what refused."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storekeep.errors import Misused, Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import NAMED_ROWS
from storekeep.ingest.epcis import COLUMNS, DOCUMENT_BYTES, blocks

EVENT: dict[str, Any] = {
    "type": "ObjectEvent",
    "eventTime": "2026-01-01T10:00:00+01:00",
    "eventTimeZoneOffset": "+01:00",
    "action": "OBSERVE",
    "bizStep": "storing",
    "disposition": "sellable_accessible",
    "readPoint": {"id": "urn:epc:id:sgln:9501101.02001.0"},
    "epcList": ["urn:epc:id:sgtin:9501101.053000.1", "urn:epc:id:sgtin:9501101.053000.2"],
}
GTIN = "09501101530003"

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a document and gives its path."""

    def write(content: Any, name: str = "events.jsonld") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def rows(path: Path, *columns: str) -> list[tuple[str | None, ...]]:
    """The good rows of a document: the columns asked for."""
    found = list(blocks(Opened(path, path.name), columns or COLUMNS))
    assert not any(block.malformed.num_rows for block in found)
    return [tuple(row.values()) for block in found for row in block.cells.to_pylist()]


def malformed(path: Path) -> list[str]:
    found = list(blocks(Opened(path, path.name), COLUMNS))
    return [str(reason) for block in found for reason in block.malformed["reason"].to_pylist()]


def document(*events: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "epcisBody": {"eventList": list(events)},
    }


def test_the_items_of_an_event_are_counted_by_item_number(make: Make) -> None:
    path = make(EVENT)
    assert rows(path, "gtin", "quantity", "serials", "location", "event_time", "role") == [
        (GTIN, "2", "1 2", "9501101020016", "2026-01-01T10:00:00+01:00", "object")
    ]
    assert rows(path, "biz_step", "disposition", "state", "biz_location", "uom") == [
        ("storing", "sellable_accessible", "current", None, None)
    ]


@pytest.mark.parametrize(
    "shape",
    [
        EVENT,
        [EVENT],
        document(EVENT),
        {"type": "EPCISDocument", "epcisBody": {"event": EVENT}},
        {
            "type": "EPCISQueryDocument",
            "epcisBody": {"queryResults": {"resultsBody": {"eventList": [EVENT]}}},
        },
    ],
)
def test_a_document_may_have_any_shape_of_the_standard(make: Make, shape: Any) -> None:
    assert rows(make(shape), "gtin", "quantity") == [(GTIN, "2")]
    with_mark = b"\xef\xbb\xbf" + json.dumps(shape).encode()
    assert rows(make(with_mark), "gtin", "quantity") == [(GTIN, "2")]


@pytest.mark.parametrize(
    ("epc", "gtin", "serials", "lots"),
    [
        ("urn:epc:id:sgtin:0614141.107346.2017", "10614141073464", "2017", None),
        ("urn:epc:id:sgtin:0614141.107346.32a%2Fb", "10614141073464", "32a/b", None),
        ("https://id.gs1.org/01/10614141073464/21/2017", "10614141073464", "2017", None),
        ("https://shop.example/01/10614141073464/10/L1/21/a%2Fb?17=261231", "10614141073464", "a/b", "L1"),
        ("https://id.gs1.org/01/9501101530003", "09501101530003", None, None),
        ("urn:epc:id:sscc:0614141.1234567890", None, None, None),
        ("urn:epc:id:giai:4000001.111", None, None, None),
        ("https://id.gs1.org/00/106141412345678908", None, None, None),
    ],
)  # fmt: skip
def test_item_numbers_are_found_however_they_are_written(
    make: Make, epc: str, gtin: str | None, serials: str | None, lots: str | None
) -> None:
    path = make(EVENT | {"epcList": [epc]})
    assert rows(path, "gtin", "serials", "lots", "quantity") == [(gtin, serials, lots, "1")]
    assert rows(path, "epc") == [(epc,)]


def test_quantities_are_added_by_item_and_unit_of_measure(make: Make) -> None:
    listed = [
        {"epcClass": "urn:epc:class:lgtin:9501101.053000.L1", "quantity": 3},
        {"epcClass": "urn:epc:class:lgtin:9501101.053000.L2", "quantity": 4},
        {"epcClass": "urn:epc:idpat:sgtin:9501101.053000.*", "quantity": 2.5, "uom": "KGM"},
        {"epcClass": "https://id.gs1.org/01/00614141777778/10/987", "quantity": 9007199254740993},
    ]
    assert rows(make(EVENT | {"quantityList": listed}), "gtin", "quantity", "uom", "lots") == [
        (GTIN, "9", None, "L1 L2"),
        (GTIN, "2.5", "KGM", None),
        ("00614141777778", "9007199254740993", None, "987"),
    ]
    unknown = [{"epcClass": "urn:epc:class:lgtin:9501101.053000.L1"}]
    assert rows(make(EVENT | {"quantityList": unknown}), "gtin", "quantity") == [(GTIN, None)]


PARTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("AggregationEvent", {"parentID": "urn:x", "childEPCs": EVENT["epcList"]}, ["parent", "child"]),
    ("AssociationEvent", {"childQuantityList": [{"epcClass": "urn:x", "quantity": 1}]}, ["child"]),
    ("TransactionEvent", {"parentID": "urn:x", "epcList": EVENT["epcList"]}, ["parent", "object"]),
    ("TransformationEvent", {"inputEPCList": ["urn:x"], "outputEPCList": ["urn:x"]}, ["input", "output"]),
    ("ObjectEvent", {"sensorElementList": [{"sensorReport": [{"type": "Temperature", "value": 2}]}]}, [""]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "more", "roles"), PARTS)
def test_each_kind_of_event_has_its_parts(
    make: Make, kind: str, more: dict[str, Any], roles: list[str]
) -> None:
    bare = {name: value for name, value in EVENT.items() if name != "epcList"}
    found = rows(make(bare | {"type": kind} | more), "event_type", "role")
    assert found == [(kind, role or None) for role in roles]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("urn:epc:id:sgln:9501101.02001.0", "9501101020016"),
        ("urn:epc:id:sgln:950110102001..7", "9501101020016"),
        ("urn:epc:id:pgln:9501101.02001", "9501101020016"),
        ("https://id.gs1.org/414/9501101020016/254/7", "9501101020016"),
        ("geo:42.69,23.32", "geo:42.69,23.32"),
        ("https://shop.example/stores/7", "https://shop.example/stores/7"),
    ],
)
def test_a_place_is_its_location_number_or_what_it_is_called(
    make: Make, place: str, found: str
) -> None:
    assert rows(make(EVENT | {"bizLocation": {"id": place}}), "location", "read_point") == [
        (found, "9501101020016")
    ]


def test_words_of_the_vocabulary_are_the_same_however_they_are_written(make: Make) -> None:
    for written in (
        "receiving",
        "urn:epcglobal:cbv:bizstep:receiving",
        "https://ref.gs1.org/cbv/BizStep-receiving",
    ):
        assert rows(make(EVENT | {"bizStep": written}), "biz_step") == [("receiving",)]
    listed = [
        {"type": "urn:epcglobal:cbv:btt:po", "bizTransaction": "urn:x:1"},
        {"bizTransaction": "b"},
    ]
    assert rows(make(EVENT | {"bizTransactionList": listed}), "transactions") == [
        ("po=urn:x:1 =b",)
    ]


def test_a_time_without_an_offset_has_that_of_the_event(make: Make) -> None:
    told = EVENT | {"eventTime": "2026-01-01T10:00:00.5"}
    assert rows(make(told), "event_time") == [("2026-01-01T10:00:00.5+01:00",)]


# Corrections


def test_an_event_that_is_declared_an_error_is_withdrawn(make: Make) -> None:
    wrong = EVENT | {"errorDeclaration": {"declarationTime": "2026-01-02T00:00:00Z"}}
    assert rows(make(wrong), "state", "quantity") == [("withdrawn", "2")]


def test_what_the_document_says_instead_replaces_it(make: Make) -> None:
    wrong = EVENT | {"errorDeclaration": {"declarationTime": "2026-01-02T00:00:00Z"}}
    right = EVENT | {"epcList": EVENT["epcList"][:1]}
    later = right | {"eventTime": "2026-01-01T11:00:00Z"}
    for events in ([wrong, right], [right, wrong]):
        found = rows(make(document(*events)), "state", "quantity")
        assert sorted(found) == [("current", "1"), ("replaced", "2")]
    assert rows(make(document(wrong, later)), "state") == [("withdrawn",), ("current",)]


# Bad input


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"type": "PartyEvent"}, "there is no type of event 'PartyEvent'"),
        ({"type": ["ObjectEvent"]}, "type is no text"),
        ({"eventTime": "yesterday"}, "eventTime is no time: 'yesterday'"),
        ({"eventTime": None}, "eventTime is no time: 'None'"),
        ({"epcList": "urn:epc:id:sgtin:1"}, "epcList is no list"),
        ({"epcList": [{}]}, "epcList holds what is no identifier"),
        ({"epcList": ["urn:epc:id:sgtin:0614141.10734.1"]}, "epcList has an item number of the wrong length"),
        ({"epcList": ["urn:epc:id:sgtin:06141417.1"]}, "epcList has no item number"),
        ({"epcList": ["https://id.gs1.org/01/10614141073465"]}, "an item number with a wrong check digit"),
        ({"quantityList": ["3"]}, "quantityList holds what is no quantity"),
        ({"quantityList": [{"epcClass": "urn:x", "quantity": "many"}]}, "a quantity that is no number"),
        ({"quantityList": [{"epcClass": "urn:x", "quantity": 1e300}]}, "a quantity that is no number"),
        ({"readPoint": {"id": "urn:epc:id:sgln:0614141.073.0"}}, "readPoint is no SGLN"),
        ({"readPoint": {"id": "https://id.gs1.org/414/9501101020017"}}, "readPoint has a wrong check digit"),
        ({"bizLocation": {"id": {}}}, "bizLocation is no place"),
        ({"bizTransactionList": {}}, "bizTransactionList is no list"),
        ({"action": ["\0"]}, "action is no text"),
    ],
)  # fmt: skip
def test_an_event_that_is_not_understood_is_malformed_and_the_others_are_not(
    make: Make, more: dict[str, Any], reason: str
) -> None:
    path = make(document(EVENT, EVENT | more, EVENT))
    (told,) = malformed(path)
    assert told.startswith("event 2: ")
    assert reason in told
    (block,) = blocks(Opened(path, path.name), COLUMNS)
    assert block.lines.to_pylist() == [1, 3]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x01\x02\xff\x00", "holds bytes that are not UTF-8 text"),
        (b'{"type":\n "ObjectEvent", ', "line 2 column 17"),
        (b'[{"type": "\\ud800"}]', "holds half a character"),
        (b"[" * 200_000, "nested too deeply"),
        (b"<POSLog/>", "is no JSON: Expecting value: line 1 column 1"),
        (b'{"type": "ObjectEvent", "eventTime": NaN}', "NaN is no number"),
        (b'"text"', "no EPCIS 2.0 document"),
        (b'{"name": "apple"}', "no EPCIS 2.0 document"),
        (b'{"epcisBody": []}', "no EPCIS 2.0 document"),
        (b"[1, 2]", "no EPCIS 2.0 document"),
        (b" " * (DOCUMENT_BYTES + 1), "send its events in several"),
    ],
)
def test_what_is_no_document_of_events_is_refused_with_its_place(
    make: Make, content: bytes, words: str
) -> None:
    with pytest.raises(Refused) as caught:
        rows(make(content))
    assert str(caught.value).startswith("events.jsonld")
    assert words in str(caught.value)


def test_the_largest_document_is_read_in_bounded_memory(make: Make) -> None:
    report = {"type": "Temperature", "value": 2.5, "uom": "CEL"}
    one = json.dumps(EVENT | {"sensorElementList": [{"sensorReport": [report] * 40}]}).encode()
    events = DOCUMENT_BYTES // (len(one) + 1) - 1
    path = make(b"[" + b",".join([one] * events) + b"]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(block.rows for block in blocks(Opened(path, path.name), COLUMNS)) == events
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


def test_a_document_of_many_rows_comes_in_several_blocks(make: Make) -> None:
    listed = [
        {"epcClass": f"urn:epc:class:lgtin:9501101.{n:06}.L", "quantity": 1} for n in range(5000)
    ]
    path = make([EVENT | {"quantityList": listed}] * 5)
    sizes = [block.rows for block in blocks(Opened(path, path.name), ("gtin",))]
    assert sizes == [NAMED_ROWS + 4, 5_001]


def test_a_column_that_events_do_not_have_is_a_mistake_of_the_mapping(make: Make) -> None:
    with pytest.raises(Misused, match="has no column 'price'"):
        rows(make(EVENT), "price")
