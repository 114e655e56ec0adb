"""GS1 EPCIS 2.0 (JSON-LD): which items were seen where and when, one row an item number of an event.

Hides the shapes of a document (capture, query, one event, a list), the five kinds of event, and the ways
in which EPCIS writes item and location numbers: URNs with and without serial or lot, and GS1 Digital Links.
An event declared an error withdraws what it said; where the document itself says otherwise for the same
item, place and time, that replaces it. A document is read whole, so its size is bounded. What a row cannot
say (sensors, master data, sources, extensions) is passed over.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from storekeep import retail
from storekeep.errors import Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block, NamedRows
from storekeep.ingest.documents import Unfit, document

COLUMNS = (
    "event", "event_id", "event_type", "action", "event_time", "record_time", "time_zone_offset", "biz_step",
    "disposition", "location", "read_point", "biz_location", "transactions", "role", "gtin", "epc", "serials",
    "lots", "quantity", "uom", "state",
)  # fmt: skip
DOCUMENT_BYTES = 16 << 20
_ITEMS: Map[str, Map[str, tuple[str, ...]]] = {
    "ObjectEvent": {"object": ("epcList", "quantityList")},
    "AggregationEvent": {"parent": ("parentID",), "child": ("childEPCs", "childQuantityList")},
    "AssociationEvent": {"parent": ("parentID",), "child": ("childEPCs", "childQuantityList")},
    "TransactionEvent": {"parent": ("parentID",), "object": ("epcList", "quantityList")},
    "TransformationEvent": {
        "input": ("inputEPCList", "inputQuantityList"),
        "output": ("outputEPCList", "outputQuantityList"),
    },
}
_GTIN_URN = re.compile(r"urn:epc:(?:id|idpat|class):(sgtin|lgtin|itip):(\d{6,12})\.(\d{1,7})\.(.+)")
_GLN_URN = re.compile(r"urn:epc:id:(?:sgln|pgln):(\d{6,12})\.(\d{0,6})(?:\..*)?")
_GTIN_LINK = re.compile(
    r"https?://[^?#]*?/01/(\d{8}|\d{12,14})((?:/\d{2,4}/[^/?#]+)*)/?(?:[?#].*)?"
)
_GLN_LINK = re.compile(r"https?://[^?#]*?/(?:414|417)/(\d{13})(?:[/?#].*)?")
_CODE = re.compile(r"(?:urn:epcglobal:cbv:\w+:|https?://(?:ref\.)?gs1\.org/(?:cbv/|voc/)\w+-)(\w+)")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?")
_NONE = Decimal(0)
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,12})?([eE][+-]?\d{1,2})?")


class _Wrong(Exception):
    """Why an event cannot be taken in; it never leaves this module."""


@dataclass
class _Item:
    """What an event says of one item number, in one part of it and one unit of measure."""

    gtin: str | None
    epc: str
    uom: str | None
    quantity: Decimal | None = _NONE
    serials: list[str] = field(default_factory=list)
    lots: list[str] = field(default_factory=list)


def blocks(file: Opened, columns: tuple[str, ...]) -> Iterator[Block]:
    """The items of a document's events; cells are text, and a row's line is the number of its event.

    Raises `Refused` when it is no JSON, no EPCIS document, or larger than 16 MiB; `Misused` when a column
    is asked for that an event does not have. An event that cannot be understood is one malformed row.
    """
    rows = NamedRows(columns, COLUMNS, file.name)
    events = _events(file)
    replaced = _replaced(events)
    for number, event in enumerate(events, 1):
        found, wrong = _read(event, number)
        for row in found:
            if row["state"] == "withdrawn" and _told(row) in replaced:
                row["state"] = "replaced"
            rows.add(number, row, wrong)
        if rows.full:
            yield rows.block()
    yield rows.block()


def _replaced(events: list[dict[str, Any]]) -> set[tuple[str | None, ...]]:
    """What an event that is declared an error says, and another one of the document says too."""
    told: dict[str | None, set[tuple[str | None, ...]]] = {"withdrawn": set(), "current": set()}
    if any(event.get("errorDeclaration") for event in events):
        for event in events:
            for row in _read(event, 0)[0]:
                told.setdefault(row["state"], set()).add(_told(row))
    return told["withdrawn"] & told["current"]


def _events(file: Opened) -> list[dict[str, Any]]:
    size = file.path.stat().st_size
    if size > DOCUMENT_BYTES:
        raise Refused(
            f"{file.name} has {size >> 20} MiB; a document of events is read whole, and of at most "
            f"{DOCUMENT_BYTES >> 20} MiB: send its events in several"
        )
    try:
        found = document(file.path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except Unfit as error:
        raise Refused(f"{file.name} {error}; send it again") from None
    events = _listed(found)
    if events is None or not all(isinstance(event, dict) for event in events):
        raise Refused(
            f"{file.name} is no EPCIS 2.0 document: it is neither an event, nor a list of events, nor "
            f"has it an epcisBody with them"
        )
    return events


def _listed(found: Any) -> list[Any] | None:
    """The events of a document, whatever its shape; None where there are none to be found."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict):
        return None
    if "epcisBody" not in found:
        return [found] if "eventTime" in found else None
    body = found["epcisBody"]
    if isinstance(body, dict) and isinstance(body.get("queryResults"), dict):
        body = body["queryResults"].get("resultsBody")
    events = body.get("eventList", body.get("event")) if isinstance(body, dict) else None
    return [events] if isinstance(events, dict) else events if isinstance(events, list) else None


def _told(row: dict[str, str | None]) -> tuple[str | None, ...]:
    """What a row speaks of: an event that is declared an error is replaced by one that says the same."""
    return tuple(row.get(name) for name in ("event_time", "location", "role", "gtin", "uom"))


def _read(event: dict[str, Any], number: int) -> tuple[list[dict[str, str | None]], str | None]:
    """The rows of an event, and what is wrong with it."""
    header: dict[str, str | None] = {"event": str(number), "state": "current"}
    try:
        header |= _header(event)
        rows = [header | _cells(role, item) for role, item in _items(event)]
    except _Wrong as wrong:
        return [header | {"state": None}], f"event {number}: {wrong}"
    return rows or [header], None


def _header(event: dict[str, Any]) -> dict[str, str | None]:
    kind = _text(event, "type")
    if kind not in _ITEMS:
        raise _Wrong(f"there is no type of event {str(kind)[:40]!r}")
    at, offset = _text(event, "eventTime"), _text(event, "eventTimeZoneOffset")
    if at is None or not _TIME.fullmatch(at):
        raise _Wrong(f"eventTime is no time: {str(at)[:40]!r}")
    if at[-6] not in "+-" and not at.endswith("Z"):
        at += offset or "Z"
    read_point, biz_location = _location(event, "readPoint"), _location(event, "bizLocation")
    return {
        "event_id": _text(event, "eventID"),
        "event_type": kind,
        "action": _text(event, "action"),
        "event_time": at,
        "record_time": _text(event, "recordTime"),
        "time_zone_offset": offset,
        "biz_step": _code(_text(event, "bizStep")),
        "disposition": _code(_text(event, "disposition")),
        "location": biz_location or read_point,
        "read_point": read_point,
        "biz_location": biz_location,
        "transactions": _transactions(event),
        "state": "withdrawn" if event.get("errorDeclaration") else "current",
    }


def _text(event: dict[str, Any], name: str) -> str | None:
    found = event.get(name)
    if found is not None and not isinstance(found, str):
        raise _Wrong(f"{name} is no text")
    return found or None


def _code(text: str | None) -> str | None:
    """A word of the vocabulary, however it is written: `receiving`."""
    found = _CODE.fullmatch(text or "")
    return found[1] if found else text


def _location(event: dict[str, Any], name: str) -> str | None:
    """A place as its GLN; the name as it is where it has none."""
    found = event.get(name)
    place = found.get("id") if isinstance(found, dict) else found
    if place is None:
        return None
    if not isinstance(place, str):
        raise _Wrong(f"{name} is no place")
    if urn := _GLN_URN.fullmatch(place):
        digits = urn[1] + urn[2]
        if len(digits) != 12:
            raise _Wrong(f"{name} is no SGLN: {place[:80]!r}")
        return f"{digits}{retail.check_digit(digits)}"
    if link := _GLN_LINK.fullmatch(place):
        if retail.gln(link[1]) is None:
            raise _Wrong(f"{name} has a wrong check digit: {place[:80]!r}")
        return link[1]
    return place


def _transactions(event: dict[str, Any]) -> str | None:
    """The orders, notices and invoices that an event belongs to: `po=…`, separated by spaces."""
    listed = event.get("bizTransactionList")
    if listed is None:
        return None
    return " ".join(
        f"{_code(str(one.get('type', '')))}={one.get('bizTransaction', '')}"
        for one in _many(listed, "bizTransactionList")
        if isinstance(one, dict)
    )


def _many(found: Any, name: str) -> list[Any]:
    if not isinstance(found, list):
        raise _Wrong(f"{name} is no list")
    return found


def _items(event: dict[str, Any]) -> Iterator[tuple[str, _Item]]:
    """What the event says, by the part that it plays and by item: units counted together."""
    for role, names in _ITEMS[event["type"]].items():
        items: dict[tuple[str | None, str | None], _Item] = {}
        for name in names:
            found = event.get(name)
            if found is None:
                continue
            for one in [found] if name == "parentID" else _many(found, name):
                _count(items, one, name)
        yield from ((role, item) for item in items.values())


def _count(items: dict[tuple[str | None, str | None], _Item], one: Any, name: str) -> None:
    """Add an identifier, or a quantity of a class of items, to what is known of its item number."""
    quantity: Decimal | None = Decimal(1)
    epc, uom = one, None
    if name.lower().endswith("quantitylist"):
        if not isinstance(one, dict):
            raise _Wrong(f"{name} holds what is no quantity")
        epc, uom = one.get("epcClass"), _text(one, "uom")
        quantity = _quantity(one.get("quantity"), name)
    if not isinstance(epc, str):
        raise _Wrong(f"{name} holds what is no identifier")
    gtin, serial, lot = _identified(epc, name)
    item = items.setdefault((gtin or epc, uom), _Item(gtin, epc, uom))
    known = item.quantity is not None and quantity is not None
    item.quantity = (item.quantity or _NONE) + (quantity or _NONE) if known else None
    item.serials += [serial] if serial else []
    item.lots += [lot] if lot and lot not in item.lots else []


def _quantity(found: Any, name: str) -> Decimal | None:
    if found is None:
        return None
    if not isinstance(found, str) or not _NUMBER.fullmatch(found):
        raise _Wrong(f"{name} has a quantity that is no number: {str(found)[:40]!r}")
    return Decimal(found)


def _identified(epc: str, name: str) -> tuple[str | None, str | None, str | None]:
    """Item number, serial and lot of an identifier; no item number where it is of something else."""
    if urn := _GTIN_URN.fullmatch(epc):
        kind, company, item, rest = urn.groups()
        digits = item[0] + company + item[1:]
        if len(digits) != 13:
            raise _Wrong(f"{name} has an item number of the wrong length: {epc[:80]!r}")
        last = None if rest == "*" else unquote(rest)
        gtin = f"{digits}{retail.check_digit(digits)}"
        return gtin, None if kind == "lgtin" else last, last if kind == "lgtin" else None
    if epc.startswith(("urn:epc:id:sgtin", "urn:epc:class:lgtin", "urn:epc:idpat:sgtin")):
        raise _Wrong(f"{name} has no item number: {epc[:80]!r}")
    if link := _GTIN_LINK.fullmatch(epc):
        gtin14 = retail.gtin14(link[1])
        if gtin14 is None:
            raise _Wrong(f"{name} has an item number with a wrong check digit: {epc[:80]!r}")
        steps = link[2].split("/")[1:]
        keys = dict(zip(steps[::2], steps[1::2], strict=True))
        return gtin14, _unquoted(keys.get("21")), _unquoted(keys.get("10"))
    return None, None, None


def _unquoted(text: str | None) -> str | None:
    return None if text is None else unquote(text)


def _cells(role: str, item: _Item) -> dict[str, str | None]:
    return {
        "role": role,
        "gtin": item.gtin,
        "epc": item.epc,
        "serials": " ".join(item.serials) or None,
        "lots": " ".join(item.lots) or None,
        "quantity": None if item.quantity is None else f"{item.quantity:f}",
        "uom": item.uom,
    }
