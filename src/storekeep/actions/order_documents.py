"""Purchase orders and their cancellation as documents that suppliers' systems read.

X12 850 and 860 (004010), EDIFACT ORDERS and ORDCHG (D.96A, as EANCOM has them). Hides envelopes,
counts and codes. Nothing is sent from here: who carries a document to the supplier, by AS2 or a mailbox, is
the retailer's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from storekeep import edi
from storekeep.edi import Separators, Syntax, Written
from storekeep.errors import Refused
from storekeep.retail import gln, gtin14, minor_digits

MESSAGES: dict[tuple[Syntax, bool], str] = {
    ("x12", False): "850",
    ("x12", True): "860",
    ("edifact", False): "ORDERS",
    ("edifact", True): "ORDCHG",
}
"""Which message says an order, and which its cancellation, by syntax."""
_UNQUALIFIED = {"x12": "ZZ", "edifact": "ZZZ"}
_LONGEST_NAME = {"x12": 15, "edifact": 35}

_Said = tuple[str, Sequence[Written]]


@dataclass(frozen=True)
class OrderLine:
    """One line of a purchase order; money in minor units of its currency."""

    sku: str
    units: int
    unit_cost_minor: int
    cancelled: bool = False


@dataclass(frozen=True)
class PurchaseOrder:
    """A purchase order as the order system holds it."""

    number: str
    supplier_id: str
    location_id: str
    currency: str
    placed_at: datetime
    lines: Sequence[OrderLine]


@dataclass(frozen=True)
class Envelope:
    """Who writes to whom, each `QUALIFIER:NAME` or a name alone, under which control number, and when."""

    sender: str
    receiver: str
    number: int
    at: datetime


def order_document(
    order: PurchaseOrder, syntax: Syntax, envelope: Envelope, *, cancels: bool = False
) -> bytes:
    """A purchase order as a document, or, where it `cancels`, the lines of it that are cancelled.

    A cancellation names the order by its own number; where every line is cancelled it is of the whole order.
    Times are UTC. Raises `Refused` when there is no such line, or a text or name cannot be written.
    """
    lines = [line for line in order.lines if line.cancelled == cancels]
    if not lines:
        which = "no line of it is cancelled" if cancels else "every line of it is cancelled"
        raise Refused(f"there is nothing to write of purchase order {order.number}: {which}")
    message = MESSAGES[syntax, cancels]
    whole = len(lines) == len(order.lines)
    if syntax == "x12":
        body = _x12_cancellation(order, lines, envelope, whole) if cancels else _850(order, lines)
        return _x12(message, body, envelope)
    return _edifact(message, _edifact_body(order, lines, envelope, cancels, whole), envelope)


def _name(text: str, syntax: Syntax) -> tuple[str, str]:
    """Qualifier and name of a party to an interchange."""
    qualifier, apart, name = text.partition(":")
    if not apart:
        qualifier, name = _UNQUALIFIED[syntax], text
    if not 0 < len(name) <= _LONGEST_NAME[syntax] or not 0 < len(qualifier) <= 4:
        raise Refused(
            f"{text!r} cannot stand on an envelope of {edi.NAMES[syntax]}: a name has at most "
            f"{_LONGEST_NAME[syntax]} characters; set edi_identity or edi_partners"
        )
    return qualifier, name


def _amount(minor: int, currency: str) -> str:
    digits = minor_digits(currency)
    whole, rest = divmod(minor, 10**digits)
    return f"{whole}.{rest:0{digits}d}" if digits else str(whole)


# X12 ----------------------------------------------------------------------------------------------------


def _850(order: PurchaseOrder, lines: Sequence[OrderLine]) -> list[_Said]:
    head: list[_Said] = [
        ("BEG", ["00", "SA", order.number, "", f"{order.placed_at:%Y%m%d}"]),
        ("CUR", ["BY", order.currency]),
        *_x12_parties(order),
    ]
    said: list[_Said] = [
        (
            "PO1",
            [
                *(
                    str(number),
                    str(line.units),
                    "EA",
                    _amount(line.unit_cost_minor, order.currency),
                ),
                *("", *_x12_item(line)),
            ],
        )
        for number, line in enumerate(lines, start=1)
    ]
    return [*head, *said, ("CTT", [str(len(lines))])]


def _x12_cancellation(
    order: PurchaseOrder, lines: Sequence[OrderLine], envelope: Envelope, whole: bool
) -> list[_Said]:
    purpose = "01" if whole else "04"
    dates = [f"{order.placed_at:%Y%m%d}", "", "", "", "", f"{envelope.at:%Y%m%d}"]
    head: list[_Said] = [
        ("BCH", [purpose, "SA", order.number, "", "", *dates]),
        *_x12_parties(order),
    ]
    said: list[_Said] = [
        (
            "POC",
            [
                *(str(number), "DI", str(line.units), "0", "EA"),
                *(_amount(line.unit_cost_minor, order.currency), "", *_x12_item(line)),
            ],
        )
        for number, line in enumerate(lines, start=1)
    ]
    return [*head, *said, ("CTT", [str(len(lines))])]


def _x12_parties(order: PurchaseOrder) -> list[_Said]:
    return [
        ("N1", [role, "", "UL" if gln(name) else "92", name])
        for role, name in (("ST", order.location_id), ("SU", order.supplier_id))
    ]


def _x12_item(line: OrderLine) -> list[str]:
    number = gtin14(line.sku)
    return ["IN", line.sku, *(["UK", number] if number else [])]


def _x12(message: str, body: Sequence[_Said], envelope: Envelope) -> bytes:
    sender, receiver = _name(envelope.sender, "x12"), _name(envelope.receiver, "x12")
    at, number = envelope.at, f"{envelope.number:09d}"
    one = f"{envelope.number:04d}"
    group = "PO" if message == "850" else "PC"
    header = [sender[0], f"{sender[1]:15}", receiver[0], f"{receiver[1]:15}"]
    texts = [text for _, elements in body for text in elements if isinstance(text, str)]
    apart = edi.separators([*texts, *sender, *receiver], "x12")
    isa = ["00", " " * 10, "00", " " * 10, *header, f"{at:%y%m%d}", f"{at:%H%M}", "U", "00401"]
    # What ends the components is an element of ISA itself, and not to be taken for one.
    opened = apart.element.join(["ISA", *isa, number, "0", "P", apart.component]) + apart.terminator
    gs = [group, sender[1], receiver[1], f"{at:%Y%m%d}", f"{at:%H%M}", str(envelope.number)]
    said: list[_Said] = [
        ("GS", [*gs, "X", "004010"]),
        ("ST", [message, one]),
        *body,
        ("SE", [str(len(body) + 2), one]),
        ("GE", ["1", str(envelope.number)]),
        ("IEA", ["1", number]),
    ]
    return (opened + _joined(said, apart)).encode()


# EDIFACT ------------------------------------------------------------------------------------------------


def _edifact_body(
    order: PurchaseOrder,
    lines: Sequence[OrderLine],
    envelope: Envelope,
    cancels: bool,
    whole: bool,
) -> list[_Said]:
    if cancels:
        purpose = "1" if whole else "4"
        head: list[_Said] = [
            ("BGM", ["230", str(envelope.number), purpose]),
            ("DTM", [["137", f"{envelope.at:%Y%m%d}", "102"]]),
            ("RFF", [["ON", order.number]]),
        ]
    else:
        head = [
            ("BGM", ["220", order.number, "9"]),
            ("DTM", [["137", f"{order.placed_at:%Y%m%d}", "102"]]),
        ]
    head += [
        ("NAD", [role, [name, "", "9" if gln(name) else "92"]])
        for role, name in (
            ("BY", _name(envelope.sender, "edifact")[1]),
            ("SU", order.supplier_id),
            ("DP", order.location_id),
        )
    ]
    said: list[_Said] = [*head, ("CUX", [["2", order.currency, "9"]])]
    for number, line in enumerate(lines, start=1):
        gtin = gtin14(line.sku)
        item = [gtin, "EN"] if gtin else [line.sku, "IN"]
        said.append(("LIN", [str(number), "2" if cancels else "", item]))
        if gtin:
            said.append(("PIA", ["1", [line.sku, "IN"]]))
        said.append(("QTY", [["21", str(line.units)]]))
        said.append(("PRI", [["AAA", _amount(line.unit_cost_minor, order.currency)]]))
    return [*said, ("UNS", ["S"]), ("CNT", [["2", str(len(lines))]])]


def _edifact(message: str, body: Sequence[_Said], envelope: Envelope) -> bytes:
    sender, receiver = _name(envelope.sender, "edifact"), _name(envelope.receiver, "edifact")
    number, at = str(envelope.number), envelope.at

    def written(characters: Sequence[str], day: str) -> str:
        said: list[_Said] = [
            (
                "UNB",
                [
                    *(characters, [sender[1], sender[0]], [receiver[1], receiver[0]]),
                    *([day, f"{at:%H%M}"], number, "", message),
                ],
            ),
            ("UNH", ["1", [message, "D", "96A", "UN", "EAN008"]]),
            *body,
            ("UNT", [str(len(body) + 2), "1"]),
            ("UNZ", ["1", number]),
        ]
        return "UNA:+.? '" + _joined(said, edi.EDIFACT)

    try:
        return written(["UNOC", "3"], f"{at:%y%m%d}").encode("latin-1")
    except UnicodeEncodeError:
        # Only syntax 4 can say that it is UTF-8; its dates have the century.
        return written(["UNOW", "4"], f"{at:%Y%m%d}").encode()


def _joined(said: Sequence[_Said], apart: Separators) -> str:
    return "".join(edi.line(tag, elements, apart) for tag, elements in said)
