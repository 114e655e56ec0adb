"""What EDI messages of retail say, as lines: sales, stock, answers to orders, shipping notices.

Hides qualifiers and codes, loops, and where in a message a date, place or order number is told: a line has
what its own segments say and, for the rest, what stands above it. Codes that decide what a line means
are given in words (`activity`) and as they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

from storekeep.edi import Segment, Syntax

Row = dict[str, str]
"""The cells of one line by their column; what is not told is left out."""

COLUMNS: Mapping[str, str] = {
    "message": "type of the message: 852, 846, 855, 856; SLSRPT, INVRPT, ORDRSP, DESADV",
    "message_number": "number of the message in its interchange",
    "interchange_number": "control number of the interchange",
    "sender": "who sent the interchange",
    "receiver": "whom it is for",
    "sent_at": "when the interchange or group was made",
    "document_id": "number of the report, answer or notice",
    "document_at": "its date",
    "purpose": "code of what the document is: an original, a change, a cancellation",
    "order_id": "purchase order that is answered or shipped",
    "order_line": "its line",
    "supplier_order_id": "number that the supplier gave the order",
    "begins_at": "begin of the period that is reported",
    "ends_at": "end of that period",
    "occurred_at": "when it happened: its own date, else the period's end or begin, else the document's",
    "shipped_at": "when goods left, or will leave",
    "expected_at": "when goods are to arrive",
    "location_id": "store or warehouse that is reported on, or goods go to",
    "buyer_id": "who buys",
    "supplier_id": "who supplies",
    "line_number": "number of the line in the document; in 856 that of its level (HL)",
    "quantity_number": "which of the line's quantities this is, from 1",
    "gtin": "item by its GS1 number",
    "buyer_item": "item as the buyer numbers it",
    "supplier_item": "item as the supplier or maker numbers it",
    "activity": "what the quantity is, in words: see below",
    "quantity_code": "the same, as it came",
    "status": "code of the answer to the line, else to the order",
    "quantity": "how many, with a point as decimal mark",
    "ordered_quantity": "how many were ordered",
    "unit": "unit of measure of the quantity",
    "price": "price of one unit",
    "price_code": "code of what kind of price it is",
    "value": "amount of the line",
    "currency": "currency of price and value",
    "reference": "reference that the two parties agreed on (ZZ, ZZZ)",
    "segment": "segment of the file in which the line begins",
    "line": "line of the file in which it begins",
}
"""The columns of a line and what they hold; all are text."""

MESSAGES: Mapping[Syntax, Mapping[str, tuple[str, ...]]] = {
    "x12": {"852": ("LIN",), "846": ("LIN",), "855": ("PO1",), "856": ("HL", "LIN")},
    "edifact": dict.fromkeys(("SLSRPT", "INVRPT", "ORDRSP", "DESADV"), ("LIN",)),
}
"""The messages that are taken, and the segments by which each counts its lines."""


def _codes(**words: str) -> Mapping[str, str]:
    """Codes, written apart by a space, by what they stand for, the other way round."""
    return {code: word for word, codes in words.items() for code in codes.split()}


ACTIVITIES: Mapping[str, Mapping[str, str]] = {
    "852": _codes(
        sold="QS",
        returned="QU",
        on_hand="QA",
        on_order="QP",
        in_transit="QI",
        received="QR",
        committed="QC",
    ),
    "846": _codes(on_hand="1 01 17", available="33 QA"),
    "855": _codes(
        accepted="IA AC AR SP", changed="IC IP IQ IS DR BP", rejected="IR ID", backordered="IB"
    ),
    "SLSRPT": _codes(sold="153 1", returned="61"),
    "INVRPT": _codes(on_hand="17 145 1", on_order="21"),
    "ORDRSP": _codes(accepted="5 29", changed="3 4 6", rejected="2 7 10 27"),
    "DESADV": _codes(shipped="12 1"),
}
"""By message: the codes that say what a quantity is, or how an order is answered, in words."""

# How an 855 answers lines of which it says no more: BAK02, whose codes are not those of its lines.
_ANSWERS = _codes(accepted="AD AE AK AT", rejected="RD RJ", changed="AC")
_BACKORDERED, _ORDERED = "83", "21"
_MOST_QUANTITIES = 1000
_DEEPEST = 32
_ITEMS = _codes(
    gtin="UK EN UP UI UA SRV", buyer_item="IN BP CB SK PI", supplier_item="VN VP VC SA MG MF"
)
_PARTIES = _codes(location_id="ST WH DP RL SN", supplier_id="SU SE VN", buyer_id="BY")
_X12_DATES = _codes(
    shipped_at="011 010",
    expected_at="068 067 017 002",
    document_at="097",
    begins_at="090",
    ends_at="091",
    occurred_at="366",
)
_EDIFACT_DATES = _codes(
    shipped_at="11 10",
    expected_at="2 17 67 69 132 358",
    document_at="137",
    begins_at="90",
    ends_at="91",
    occurred_at="356 366 179",
)
_REFERENCES = _codes(order_id="PO", supplier_order_id="CO VN", reference="ZZ ZZZ")
_RETAIL_PRICES = frozenset({"RES", "RTL", "MSR", "RTP", "SRP"})
# Format codes of EDIFACT dates (2379) that begin with a date: how many digits its year and all of it have.
_DATES: Mapping[str, tuple[int, int]] = {
    "101": (2, 6),
    "201": (2, 10),
    "102": (4, 8),
    "718": (4, 8),
    "203": (4, 12),
    "719": (4, 12),
    "204": (4, 14),
}


class _Document:
    """A message as far as it was read: what holds for all of it, for the part at hand, and for its line."""

    def __init__(self, kind: str, head: Row) -> None:
        self.kind = kind
        self.head = head
        self.parts: list[tuple[str, Row]] = []
        self.line: Row | None = None
        self.own: list[Row] = []
        self.told = 0
        self.pending: Row | None = None
        self.by_place: Row = {}
        self.done: list[Row] = []

    @property
    def scope(self) -> Row:
        """What a segment adds to: the line, else the part of the shipment, else the whole."""
        if self.line is not None:
            return self.line
        return self.parts[-1][1] if self.parts else self.head

    def begin(self, segment: Segment, **cells: str) -> None:
        """A line begins here."""
        self.end()
        place = {"segment": str(segment.place), "line": str(segment.line)}
        self.line = _told(place | cells)

    def end(self) -> None:
        """The line ends, and with it what was reported of it: a row for each quantity, or one without."""
        self.settle()
        if self.line is not None and (self.own or not self.told):
            self._tell()
        self.line, self.own, self.told, self.by_place = None, [], 0, {}

    def report(self, **cells: str) -> None:
        """A quantity of the line, or whatever else is said of it once more."""
        self.own.append(_told(cells))
        if self.line is not None and len(self.own) == _MOST_QUANTITIES:
            self._tell()

    def _tell(self) -> None:
        above = self.parts[-1][1] if self.parts else {}
        before = {**self.head, **above, **(self.line or {})}
        if len(self.own) + self.told > 1:
            # Of which quantity the amount of the line is, nobody says.
            before.pop("value", None)
        for own in self.own or [_answer(before)]:
            self.told += 1
            self.done.append(_dated({**before, **own, "quantity_number": str(self.told)}))
        self.own = []

    def settle(self) -> None:
        """What was announced without a list of places has its quantity with it."""
        if self.pending is not None:
            self.report(**self.pending)
        self.pending = None


def lines(read: Iterable[Segment], syntax: Syntax, heads: Mapping[str, Segment]) -> Iterator[Row]:
    """The lines of one message, from the segment that opens it to the one that closes it.

    `heads` are the segments that opened the interchange and group it stands in. A message without a line
    gives one row of what it says as a whole, so that it is not lost.
    """
    steps = iter(read)
    opening = next(steps)
    x12 = syntax == "x12"
    kind = opening.text(1) if x12 else opening.text(2)
    number = opening.text(2) if x12 else opening.text(1)
    head = {"message": kind, "message_number": number.strip(" ")}
    head |= _x12_sent(heads) if x12 else _edifact_sent(heads)
    document = _Document(kind.strip(" "), _told(head))
    means = _X12 if x12 else _EDIFACT
    any_line = False
    for segment in steps:
        act = means.get(segment.tag)
        if act is not None:
            act(document, segment)
        if document.done:
            any_line = True
            yield from document.done
            document.done = []
    document.end()
    yield from document.done
    if not any_line and not document.done:
        place = {"segment": str(opening.place), "line": str(opening.line)}
        yield _dated({**document.head, **place})


def _answer(line: Row) -> Row:
    """What holds of a line that says no more than what was ordered: the answer to the whole order."""
    status = line.get("status", "")
    if line["message"] == "855":
        activity = _ANSWERS.get(status, "")
    elif line["message"] == "ORDRSP":
        activity = ACTIVITIES["ORDRSP"].get(status, "")
    else:
        return {}
    return _told({"activity": activity, "quantity": line.get("ordered_quantity", "")})


def _told(cells: Row) -> Row:
    return {name: text for name, text in cells.items() if text}


def _dated(row: Row) -> Row:
    """A row with the time at which it happened, as near to it as the message says."""
    if "occurred_at" not in row:
        for name in ("ends_at", "begins_at", "document_at", "sent_at"):
            if name in row:
                row["occurred_at"] = row[name]
                break
    return row


def _moment(date: str, time: str = "") -> str:
    """A date of 6 or 8 digits, with a time of 4 or more, as ISO 8601; any other text as it came."""
    date, time = date.strip(" "), time.strip(" ")
    if not (date.isascii() and date.isdigit() and len(date) in {6, 8}):
        return date + time
    day = date if len(date) == 8 else f"20{date}"
    told = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    if not time:
        return told
    if not (time.isascii() and time.isdigit() and len(time) >= 4):
        return date + time
    seconds = f":{time[4:6]}" if len(time) >= 6 else ""
    return f"{told}T{time[:2]}:{time[2:4]}{seconds}"


# X12 ----------------------------------------------------------------------------------------------------


def _x12_sent(heads: Mapping[str, Segment]) -> Row:
    isa, group = heads["ISA"], heads["GS"]
    return {
        "sender": isa.text(6).strip(" "),
        "receiver": isa.text(8).strip(" "),
        "interchange_number": isa.text(13).strip(" "),
        "sent_at": _moment(group.text(4), group.text(5)),
    }


def _x12_head(**places: int) -> Callable[[_Document, Segment], None]:
    """A heading: each column's element; dates come with the element of their time behind them."""

    def take(document: _Document, segment: Segment) -> None:
        for name, place in places.items():
            text = segment.text(place)
            if name.endswith("_at"):
                timed = name == "document_at" and document.kind in {"846", "856"}
                text = _moment(text, segment.text(place + 1) if timed else "")
            if text:
                document.head[name] = text

    return take


def _x12_answer(document: _Document, segment: Segment) -> None:
    _x12_head(purpose=1, status=2, order_id=3, document_id=8, document_at=9)(document, segment)
    document.head |= _told({"supplier_order_id": segment.text(8)})


def _x12_level(document: _Document, segment: Segment) -> None:
    """A part of a shipment begins: under the part that it names, what is told of that holds for it, too."""
    document.end()
    while document.parts and document.parts[-1][0] != segment.text(2):
        document.parts.pop()
    above = document.parts[-1][1] if document.parts else {}
    document.parts.append((segment.text(1), dict(above)))
    del document.parts[:-_DEEPEST]


def _x12_line(document: _Document, segment: Segment) -> None:
    number = segment.text(1)
    numbers = {"line_number": number}
    if document.parts:
        numbers = {"line_number": document.parts[-1][0], "order_line": number}
    document.begin(segment, **numbers, **_x12_items(segment, 2))


def _x12_ordered(document: _Document, segment: Segment) -> None:
    document.begin(
        segment,
        line_number=segment.text(1),
        ordered_quantity=segment.text(2),
        unit=segment.text(3),
        price=segment.text(4),
        **_x12_items(segment, 6),
    )


def _x12_items(segment: Segment, first: int) -> Row:
    """Pairs of a qualifier and an item number; of two numbers of a kind the first, but GTIN-14 before all."""
    found: Row = {}
    for place in range(first, len(segment.elements) - 1, 2):
        qualifier, text = segment.text(place), segment.text(place + 1)
        name = _ITEMS.get(qualifier)
        if name and text and (name not in found or qualifier == "UK"):
            found[name] = text
    return found


def _x12_acknowledged(document: _Document, segment: Segment) -> None:
    status = segment.text(1)
    column = _X12_DATES.get(segment.text(4))
    document.report(
        status=status,
        activity=ACTIVITIES["855"].get(status, ""),
        quantity=segment.text(2),
        unit=segment.text(3),
        **({column: _moment(segment.text(5))} if column else {}),
    )


def _x12_counted(segment: Segment, kind: str) -> Row:
    """What was counted, as 852 and 846 say it: the code, how many, and the unit."""
    code = segment.text(1)
    return {
        "quantity_code": code,
        "activity": ACTIVITIES[kind].get(code, ""),
        "quantity": segment.text(2),
        "unit": segment.text(3),
    }


def _x12_activity(document: _Document, segment: Segment) -> None:
    document.settle()
    counted = _x12_counted(segment, "852")
    document.pending = _told({**counted, "occurred_at": _moment(segment.text(5))})


def _x12_places(document: _Document, segment: Segment) -> None:
    """Quantities by store: those of the activity that was announced before them."""
    if document.pending is not None:
        document.by_place, document.pending = document.pending, None
    for place in range(3, len(segment.elements) - 1, 2):
        store, quantity = segment.text(place), segment.text(place + 1)
        own = {"location_id": store, "quantity": quantity, "unit": segment.text(1)}
        if store or quantity:
            document.report(**{**document.by_place, **own})


def _x12_quantity(document: _Document, segment: Segment) -> None:
    if document.kind != "846":
        return
    document.report(**_x12_counted(segment, "846"))


def _x12_shipped(document: _Document, segment: Segment) -> None:
    document.report(
        activity="shipped",
        quantity=segment.text(2),
        unit=segment.text(3),
        ordered_quantity=segment.text(5),
    )


def _x12_price(document: _Document, segment: Segment) -> None:
    into = document.scope if document.pending is None else document.pending
    _keep_price(into, segment.text(2), segment.text(3))


def _x12_reference(document: _Document, segment: Segment) -> None:
    name = _REFERENCES.get(segment.text(1))
    if name and segment.text(2):
        document.scope[name] = segment.text(2)


def _x12_order(document: _Document, segment: Segment) -> None:
    document.scope.update(
        _told({"order_id": segment.text(1), "supplier_order_id": segment.text(3)})
    )


def _x12_party(document: _Document, segment: Segment) -> None:
    name = _PARTIES.get(segment.text(1))
    if name and segment.text(4):
        document.scope[name] = segment.text(4)


def _x12_date(document: _Document, segment: Segment) -> None:
    name = _X12_DATES.get(segment.text(1))
    if name and segment.text(2):
        document.scope[name] = _moment(segment.text(2), segment.text(3))


def _x12_currency(document: _Document, segment: Segment) -> None:
    document.scope.update(_told({"currency": segment.text(2)}))


def _keep_price(into: Row, code: str, price: str) -> None:
    """Of several prices the first, but what customers pay before all."""
    if price and ("price" not in into or code in _RETAIL_PRICES):
        into["price"] = price
        into["price_code"] = code


def _end(document: _Document, _: Segment) -> None:
    """The lines are over, and totals follow."""
    document.end()


_X12: Mapping[str, Callable[[_Document, Segment], None]] = {
    "XQ": _x12_head(begins_at=2, ends_at=3),
    "BIA": _x12_head(purpose=1, document_id=3, document_at=4),
    "BAK": _x12_answer,
    "BSN": _x12_head(purpose=1, document_id=2, document_at=3),
    "HL": _x12_level,
    "LIN": _x12_line,
    "PO1": _x12_ordered,
    "ACK": _x12_acknowledged,
    "ZA": _x12_activity,
    "SDQ": _x12_places,
    "QTY": _x12_quantity,
    "SN1": _x12_shipped,
    "CTP": _x12_price,
    "REF": _x12_reference,
    "PRF": _x12_order,
    "N1": _x12_party,
    "DTM": _x12_date,
    "CUR": _x12_currency,
    "CTT": _end,
}


# EDIFACT ------------------------------------------------------------------------------------------------


def _edifact_sent(heads: Mapping[str, Segment]) -> Row:
    unb = heads["UNB"]
    return {
        "sender": unb.text(2),
        "receiver": unb.text(3),
        "interchange_number": unb.text(5),
        "sent_at": _moment(unb.text(4), unb.text(4, 2)),
    }


def _edifact_head(document: _Document, segment: Segment) -> None:
    told = {"document_id": segment.text(2), "purpose": segment.text(3)}
    if document.kind == "ORDRSP":
        told["status"] = segment.text(3)
    document.head |= _told(told)


def _edifact_line(document: _Document, segment: Segment) -> None:
    cells = {"line_number": segment.text(1)}
    if document.kind == "ORDRSP":
        cells["status"] = segment.text(2)
    document.begin(segment, **cells)
    _edifact_item(document, *segment.parts(3, 2)[:2])


def _edifact_more_items(document: _Document, segment: Segment) -> None:
    for place in range(2, len(segment.elements)):
        _edifact_item(document, *segment.parts(place, 2)[:2])


def _edifact_item(document: _Document, text: str, kind: str) -> None:
    name = _ITEMS.get(kind)
    if name and text and document.line is not None and name not in document.line:
        document.line[name] = text


def _edifact_quantity(document: _Document, segment: Segment) -> None:
    if document.line is None:
        return
    code, quantity, unit = segment.parts(1, 3)[:3]
    told = {"quantity_code": code, "quantity": _number(quantity), "unit": unit}
    if code == _ORDERED and document.kind in {"ORDRSP", "DESADV"}:
        document.line |= _told({"ordered_quantity": _number(quantity), "unit": unit})
        return
    told["activity"] = ACTIVITIES[document.kind].get(code, "")
    if document.kind == "ORDRSP":
        status = document.line.get("status") or document.head.get("status", "")
        told["activity"] = ACTIVITIES["ORDRSP"].get(status, "")
        if code == _BACKORDERED:
            told["activity"] = "backordered"
    # A place that is told before one of several quantities is that quantity's.
    told["location_id"] = document.line.get("location_id", "")
    document.report(**told)


def _edifact_date(document: _Document, segment: Segment) -> None:
    code, text, format_ = segment.parts(1, 3)[:3]
    name, digits = _EDIFACT_DATES.get(code), _DATES.get(format_)
    if digits and len(text) >= digits[1]:
        day = digits[0] + 4
        text = _moment(text[:day], text[day : digits[1]])
    if name and text:
        document.scope[name] = text


def _edifact_party(document: _Document, segment: Segment) -> None:
    name = _PARTIES.get(segment.text(1))
    if name and segment.text(2):
        document.scope[name] = segment.text(2)


def _edifact_place(document: _Document, segment: Segment) -> None:
    if document.kind == "SLSRPT":
        # Dates and lines that follow are of this place.
        document.end()
        document.parts = [("", {})]
    if segment.text(2):
        document.scope["location_id"] = segment.text(2)


def _edifact_reference(document: _Document, segment: Segment) -> None:
    code, text, line = segment.parts(1, 3)[:3]
    name = "order_id" if code == "ON" else _REFERENCES.get(code)
    if name and text:
        document.scope[name] = text
        if name == "order_id":
            document.scope.update(_told({"order_line": line}))


def _edifact_price(document: _Document, segment: Segment) -> None:
    code, price, kind, more, basis = segment.parts(1, 5)[:5]
    kind = more or kind
    price = _per_unit(_number(price), _number(basis))
    _keep_price(document.scope, kind if kind in _RETAIL_PRICES else code, price)


def _edifact_amount(document: _Document, segment: Segment) -> None:
    if document.line is not None and segment.text(1) in {"203", "66"}:
        document.line |= _told(
            {"value": _number(segment.text(1, 2)), "currency": segment.text(1, 3)}
        )


def _edifact_currency(document: _Document, segment: Segment) -> None:
    document.scope.update(_told({"currency": segment.text(1, 2)}))


def _number(text: str) -> str:
    """A number with a point, which is a comma with many: thousands are never marked in EDIFACT."""
    return text.replace(",", ".")


def _per_unit(price: str, basis: str) -> str:
    """The price of one, where it is told for several; to six decimals, as amounts are read."""
    if basis in {"", "1"}:
        return price
    try:
        return f"{Decimal(price) / Decimal(basis):.6f}"
    except (InvalidOperation, ZeroDivisionError):
        return f"{price}/{basis}"


_EDIFACT: Mapping[str, Callable[[_Document, Segment], None]] = {
    "BGM": _edifact_head,
    "LIN": _edifact_line,
    "PIA": _edifact_more_items,
    "QTY": _edifact_quantity,
    "DTM": _edifact_date,
    "NAD": _edifact_party,
    "LOC": _edifact_place,
    "RFF": _edifact_reference,
    "PRI": _edifact_price,
    "MOA": _edifact_amount,
    "CUX": _edifact_currency,
    "UNS": _end,
    "CNT": _end,
}
