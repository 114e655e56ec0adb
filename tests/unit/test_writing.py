"""Purchase orders as documents: right by their own counts, and by what others make of them."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import pyx12.x12file
from click.testing import CliRunner
from pydifact.segmentcollection import Interchange

from storekeep.actions import Envelope, OrderLine, PurchaseOrder, order_document
from storekeep.cli.program import program
from storekeep.config import Settings
from storekeep.edi import Segment, Syntax, segments
from storekeep.errors import Refused
from storekeep.ingest.interchanges import _Check
from tests import shop

AT = datetime(2026, 3, 2, 22, 5, tzinfo=UTC)
ENVELOPE = Envelope("14:4260026610003", "NORTH", 17, AT)
ORDER = PurchaseOrder(
    number="PO-0000000001",
    supplier_id="north",
    location_id="4260026610102",
    currency="EUR",
    placed_at=AT,
    lines=(
        OrderLine("4007399434498", 12, 150),
        OrderLine("it's a+b*c~d", 6, 5),
        OrderLine("fig", 3, 100, cancelled=True),
    ),
)
SYNTAXES: tuple[Syntax, ...] = ("x12", "edifact")


def read(body: bytes, syntax: Syntax) -> list[Segment]:
    """The segments of a document, whose envelope holds but for being none that is taken in."""
    found = list(segments(io.BytesIO(body), syntax, "order.edi"))
    check = _Check(syntax)
    for segment in found:
        check.see(segment)
    ((fault,),) = check.verdicts.messages.values()
    assert "is not taken" in fault
    assert not check.verdicts.empty
    _others_agree(body, syntax, found)
    return found


def _others_agree(body: bytes, syntax: Syntax, found: list[Segment]) -> None:
    """What two libraries of others read is what ours does."""
    if syntax == "x12":
        reader = pyx12.x12file.X12Reader(io.StringIO(body.decode()))
        theirs = [each.get_seg_id() for each in reader]
        reader.cleanup()
        assert reader.pop_errors() == []
        assert theirs == [each.tag for each in found]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = body.decode("utf-8" if b"UNOW" in body else "latin-1")
        interchange = Interchange.from_str(text)
        interchange.validate()
        (message,) = interchange.get_messages()
    assert [each.tag for each in message.segments] == [each.tag for each in found[2:-2]]
    for ours, other in zip(found[2:-2], message.segments, strict=True):
        for place, element in enumerate(other.elements, start=1):
            parts = [element] if isinstance(element, str) else element
            assert [ours.text(place, at) for at in range(1, len(parts) + 1)] == list(parts)


def texts(found: list[Segment], tag: str) -> list[list[str]]:
    return [
        [each.text(place) for place in range(1, len(each.elements))]
        for each in found
        if each.tag == tag
    ]


def test_an_order_in_x12() -> None:
    body = order_document(ORDER, "x12", ENVELOPE)
    assert len(body.partition(b"GS")[0]) == 106
    found = read(body, "x12")
    assert [each.tag for each in found] == [
        *("ISA", "GS", "ST", "BEG", "CUR", "N1", "N1", "PO1", "PO1", "CTT", "SE", "GE", "IEA")
    ]
    assert texts(found, "ISA")[0][4:9] == [
        *("14", "4260026610003  ", "ZZ", "NORTH          ", "260302")
    ]
    assert texts(found, "BEG") == [["00", "SA", "PO-0000000001", "", "20260302"]]
    assert texts(found, "N1") == [
        ["ST", "", "UL", "4260026610102"],
        ["SU", "", "92", "north"],
    ]
    assert texts(found, "PO1") == [
        [
            *("1", "12", "EA", "1.50", "", "IN", "4007399434498", "UK", "04007399434498"),
        ],
        ["2", "6", "EA", "0.05", "", "IN", "it's a+b*c~d"],
    ]
    assert [each.text(1) for each in found if each.tag in {"ST", "CTT", "SE"}] == ["850", "2", "9"]


def test_an_order_in_edifact() -> None:
    found = read(order_document(ORDER, "edifact", ENVELOPE), "edifact")
    assert [each.text(2) for each in found if each.tag == "UNH"] == ["ORDERS"]
    assert (found[0].text(2), found[0].text(2, 2), found[0].text(3), found[0].text(5)) == (
        *("4260026610003", "14", "NORTH", "17"),
    )
    assert texts(found, "BGM") == [["220", "PO-0000000001", "9"]]
    lines = [each for each in found if each.tag == "LIN"]
    assert [(each.text(3), each.text(3, 2)) for each in lines] == [
        ("04007399434498", "EN"),
        ("it's a+b*c~d", "IN"),
    ]
    quantities = [each.text(1, 2) for each in found if each.tag in {"QTY", "PRI", "CNT"}]
    assert quantities == ["12", "1.50", "6", "0.05", "2"]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_cancellation_names_the_order_and_the_lines_that_are_gone(syntax: Syntax) -> None:
    found = read(order_document(ORDER, syntax, ENVELOPE, cancels=True), syntax)
    if syntax == "x12":
        assert texts(found, "BCH")[0][:3] == ["04", "SA", "PO-0000000001"]
        assert texts(found, "POC") == [["1", "DI", "3", "0", "EA", "1.00", "", "IN", "fig"]]
    else:
        assert texts(found, "BGM") == [["230", "17", "4"]]
        assert [each.text(1, 2) for each in found if each.tag == "RFF"] == ["PO-0000000001"]
        assert texts(found, "LIN") == [["1", "2", "fig"]]
    whole = PurchaseOrder(**{**vars(ORDER), "lines": ORDER.lines[2:]})
    found = read(order_document(whole, syntax, ENVELOPE, cancels=True), syntax)
    purpose = texts(found, "BCH")[0][0] if syntax == "x12" else texts(found, "BGM")[0][2]
    assert purpose == ("01" if syntax == "x12" else "1")
    with pytest.raises(Refused, match="every line of it is cancelled"):
        order_document(whole, syntax, ENVELOPE)
    none = PurchaseOrder(**{**vars(ORDER), "lines": ORDER.lines[:2]})
    with pytest.raises(Refused, match="no line of it is cancelled"):
        order_document(none, syntax, ENVELOPE, cancels=True)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_texts_of_any_alphabet_come_through(syntax: Syntax) -> None:
    for name in ("Käse", "сыр", "チーズ"):
        order = PurchaseOrder(**{**vars(ORDER), "lines": (OrderLine(name, 1, 1),)})
        body = order_document(order, syntax, ENVELOPE)
        found = read(body, syntax)
        items = texts(found, "PO1" if syntax == "x12" else "LIN")
        assert items[0][-1] == name


def test_yen_have_no_decimals_and_dinars_three() -> None:
    for currency, price in (("JPY", "1500"), ("KWD", "1.500"), ("EUR", "15.00")):
        order = PurchaseOrder(
            **{**vars(ORDER), "currency": currency, "lines": (OrderLine("a", 1, 1500),)}
        )
        found = read(order_document(order, "x12", ENVELOPE), "x12")
        assert texts(found, "PO1")[0][3] == price


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_name_that_no_envelope_holds_is_refused(syntax: Syntax) -> None:
    for name in ("x" * 36, "", "12345:a", ":a", "14:"):
        with pytest.raises(Refused, match="set edi_identity or edi_partners"):
            order_document(ORDER, syntax, Envelope(name, "NORTH", 17, AT))


# Through a home --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(home_settings: Settings) -> Iterator[shop.Shop]:
    """A shop that ordered of the northern supplier on a Monday."""
    with shop.opened_shop(shop.new_tenant(home_settings)) as one:
        one.prepare()
        one.play(shop.FIRST_DAY)
        yield one


@pytest.fixture(scope="module")
def lines(played: shop.Shop) -> list[dict[str, Any]]:
    """The lines of the order that has bread on it, by item."""
    rows = played.back_office.order_lines().to_pylist()
    (number,) = {row["purchase_order_id"] for row in rows if row["sku"] == "bread"}
    mine = [row for row in rows if row["purchase_order_id"] == number]
    assert len(mine) > 1
    return sorted(mine, key=itemgetter("sku"))


@pytest.fixture(scope="module")
def number(lines: list[dict[str, Any]]) -> str:
    return str(lines[0]["purchase_order_id"])


def test_a_confirmed_order_is_written_the_same_for_ever(
    played: shop.Shop, lines: list[dict[str, Any]], number: str
) -> None:
    first = {each: played.pipeline.write_order(number, each, "bea") for each in SYNTAXES}
    assert [each.number for each in first.values()] == [1, 2]
    found = read(first["x12"].body, "x12")
    costs = {item.sku: item.cost for item in shop.ITEMS}
    assert [(row[6], int(row[1]), row[3]) for row in texts(found, "PO1")] == [
        (row["sku"], row["order_units"], f"{costs[row['sku']] / 100:.2f}") for row in lines
    ]
    assert texts(found, "GS")[0][1:3] == [played.pipeline.tenant, "north"]
    played.clock.now += timedelta(days=3)
    for syntax in SYNTAXES:
        assert played.pipeline.write_order(number, syntax, "ben") == first[syntax]
    with pytest.raises(Refused, match="no line of it is cancelled"):
        played.pipeline.write_order(number, "x12", "bea", cancels=True)


def test_what_was_cancelled_is_written_as_a_document_of_its_own(
    played: shop.Shop, number: str
) -> None:
    ordered = played.pipeline.write_order(number, "edifact", "bea")
    played.revert("north", shop.FIRST_DAY)
    gone = {
        each: played.pipeline.write_order(number, each, "bea", cancels=True) for each in SYNTAXES
    }
    numbers = [ordered.number, *(each.number for each in gone.values())]
    assert len(set(numbers)) == 3
    for syntax, document in gone.items():
        found = read(document.body, syntax)
        told = texts(found, "BCH")[0] if syntax == "x12" else texts(found, "BGM")[0]
        assert told[0 if syntax == "x12" else 2] == ("01" if syntax == "x12" else "1")
        assert number in document.body.decode()
        assert played.pipeline.write_order(number, syntax, "ben", cancels=True) == document
    # What was written as an order before stays what it was.
    assert played.pipeline.write_order(number, "edifact", "bea") == ordered


def test_an_order_that_is_none_is_refused(played: shop.Shop) -> None:
    with pytest.raises(Refused, match="no purchase order PO-9 was confirmed"):
        played.pipeline.write_order("PO-9", "x12", "bea")


def test_the_command_writes_a_file_or_prints(
    played: shop.Shop, number: str, home_settings: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "order.edi"
    words = ["orders", "write", number, "--format", "edifact", "--home", str(home_settings.home)]
    words += ["--tenant", played.pipeline.tenant, "--json"]
    told = CliRunner().invoke(program, [*words, "--out", str(out)])
    assert told.exit_code == 0, told.output
    written = played.pipeline.write_order(number, "edifact", "bea")
    assert out.read_bytes() == written.body
    assert json.loads(told.stdout)["number"] == written.number
    printed = json.loads(CliRunner().invoke(program, words).stdout)
    assert printed["document"] == written.body.decode()
    refused = CliRunner().invoke(program, [*words, "--out", str(tmp_path / "no" / "order.edi")])
    assert (refused.exit_code, "cannot be written" in refused.output) == (1, True)
