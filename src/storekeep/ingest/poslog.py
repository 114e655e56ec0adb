"""POSLog (ARTS/IXRetail XML, versions 2 and 6): what a till says of its transactions, one row a line item.

Hides the tree, read one transaction at a time in constant memory, and how tills differ in saying the same:
what a void takes back, whether a discount is in the amount already, whether tax is. Where the standard
leaves it open, the transaction's own total decides. A transaction whose lines, total and tenders do not
agree gives no rows: all of it is malformed. Nothing outside the file is ever read, and nothing that names
an operator or a card is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import product
from typing import IO, TypeAlias

from lxml import etree

from storekeep.errors import Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block, NamedRows
from storekeep.retail import minor_digits

COLUMNS = (
    "status", "store", "workstation", "transaction", "business_day", "begun_at", "ended_at", "currency",
    "total", "voids", "customer", "kind", "line", "void", "item_type", "item_id", "pos_item_id", "ean",
    "description", "department", "quantity", "unit", "unit_price", "amount", "discount", "tax", "tender_type",
)  # fmt: skip
TRANSACTION_BYTES = 16 << 20
_PROLOG_BYTES = 64 << 10
_PERSONAL = frozenset({"customer"})
_GOODS = {
    **dict.fromkeys(("Sale", "SaleForDelivery", "SaleForPickup", "SaleForPickUp"), "Sale"),
    **dict.fromkeys(("Return", "ReturnForDelivery", "ReturnForPickup", "ReturnForPickUp"), "Return"),
}  # fmt: skip
_KINDS = {**_GOODS, "Tender": "Tender", "Tax": "Tax", "Discount": "Discount"}
_NO_SALE = {
    "CancelFlag": "cancelled",
    "SuspendFlag": "suspended",
    "TrainingModeFlag": "training",
    **dict.fromkeys(("Voided", "Cancelled", "Canceled", "Failed"), "cancelled"),
    **dict.fromkeys(("Suspended", "InProcess"), "suspended"),
}
_VOIDING = frozenset({"Void", "Voided", "PostVoid", "PostVoided"})
_GRAND, _NET, _TAX = "TransactionGrandAmount", "TransactionNetAmount", "TransactionTaxAmount"
_EACH = frozenset({"", "EA", "EACH", "PCE", "PC", "C62", "ST", "STK", "UN", "UNIT"})
_ADVICE = re.compile(r", (?:line|use|try|see) ")  # what libxml2 says to programmers
_NUMBER = re.compile(r"[+-]?\d{1,15}(\.\d{0,12})?")
_ZERO, _CENT = Decimal(0), Decimal("0.01")

Element: TypeAlias = "etree._Element"  # noqa: SLF001 - lxml has no public name for it


class _Wrong(Exception):
    """Why a transaction cannot be taken in; it never leaves this module."""


@dataclass(frozen=True)
class _Line:
    """A line item: what it is of, and its quantity, amount, discount and tax as they count."""

    place: int
    kind: str
    number: str | None = None
    void: bool = False
    link: str | None = None
    quantity: Decimal = _ZERO
    amount: Decimal = _ZERO
    discount: Decimal = _ZERO
    tax: Decimal = _ZERO
    rounding: Decimal = _ZERO
    cells: dict[str, str | None] = field(default_factory=dict)

    def times(self, factor: int) -> _Line:
        """The same line so many times: -1 takes it back, 0 strikes it out."""
        return replace(
            self,
            quantity=self.quantity * factor,
            amount=self.amount * factor,
            discount=self.discount * factor,
            tax=self.tax * factor,
        )


def blocks(file: Opened, columns: tuple[str, ...]) -> Iterator[Block]:
    """Line items of a POSLog file in blocks, with the lines on which they begin; cells are text.

    Raises `Refused`, with the line, when it is no POSLog, no well-formed XML, declares a document type, or
    one transaction is too large; `Misused` when a column is asked for that a POSLog does not have.
    """
    rows = NamedRows(columns, COLUMNS, file.name, personal=_PERSONAL)
    for transaction in _transactions(file):
        space = str(transaction.tag).removesuffix("Transaction")
        header, lines, wrong = _read(transaction, space)
        for line in lines:
            rows.add(line.place, header | _cells(line), wrong)
        if rows.full:
            yield rows.block()
    yield rows.block()


class _Source:
    """The bytes of a file, refused when more of them come than one transaction may take."""

    def __init__(self, raw: IO[bytes], name: str) -> None:
        self._raw, self._name, self.since = raw, name, 0

    def read(self, size: int = -1, /) -> bytes:
        found = self._raw.read(size)
        self.since += len(found)
        if self.since > TRANSACTION_BYTES:
            raise Refused(
                f"{self._name}: no transaction ends within {TRANSACTION_BYTES >> 20} MiB; is it a POSLog?"
            )
        return found


def _transactions(file: Opened) -> Iterator[Element]:
    """Each transaction, gone when the next is asked for."""
    with file.path.open("rb") as raw:
        source = _Source(raw, file.name)
        parser = etree.iterparse(
            source,
            events=("end",),
            tag="{*}Transaction",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        root: Element | None = None
        try:
            for _, element in parser:
                parent = element.getparent()
                root = element.getroottree().getroot()
                if parent is not None and parent is not root:
                    continue
                _check_root(root, file)
                yield element
                source.since = 0
                while parent is not None and element.getprevious() is not None:
                    del parent[0]
        except etree.XMLSyntaxError as error:
            # Entities are counted before the document type can be seen.
            raw.seek(0)
            if b"<!DOCTYPE" in raw.read(_PROLOG_BYTES).replace(b"\0", b""):
                raise _of_a_type(file) from None
            said = _ADVICE.split(error.msg or "it cannot be read")[0].strip()
            raise Refused(
                f"{file.name}, line {error.lineno or 1}: this is no well-formed XML ({said}); send it again"
            ) from None
        if root is None and parser.root is not None:
            _check_root(parser.root, file)


def _of_a_type(file: Opened) -> Refused:
    return Refused(
        f"{file.name}: it declares a document type (DTD), which no POSLog needs: it is not read"
    )


def _check_root(root: Element, file: Opened) -> None:
    if root.getroottree().docinfo.internalDTD is not None:
        raise _of_a_type(file)
    name = _local(root)
    if name not in {"POSLog", "Transaction"}:
        raise Refused(f"{file.name}: this is no POSLog; its outermost element is {name!r}")


def _read(
    transaction: Element, space: str
) -> tuple[dict[str, str | None], Sequence[_Line], str | None]:
    """The cells that all rows of a transaction share, its lines, and what is wrong with it."""
    place = transaction.sourceline or 1
    retail = transaction.find(f"{space}RetailTransaction")
    holder = transaction if retail is None else retail
    items = holder.findall(f"{space}LineItem")
    header = _header(transaction, holder, space)
    named = f"transaction {header['transaction'] or 'without number'}"
    if not items:
        unsaid = f"{named}: it voids {header['voids']}, but does not repeat its lines"
        return header, [_Line(place, _name_of(transaction))], unsaid if header["voids"] else None
    lines = [_Line(item.sourceline or place, "Other") for item in items]
    try:
        if holder.get("TransactionStatus") == "PostVoided" and not header["voids"]:
            raise _Wrong("it is post-voided, but links to no transaction that it voids")
        lines = [_line(item, space) for item in items]
        if header["status"] in {"sale", "post_void"}:
            lines = _agreed(lines, holder, space, header)
    except _Wrong as wrong:
        return header, lines, f"{named}: {wrong}"
    return header, lines, None


def _header(transaction: Element, holder: Element, space: str) -> dict[str, str | None]:
    def text(*path: str) -> str | None:
        found = transaction.findtext("/".join(f"{space}{step}" for step in path))
        return (found or "").strip() or None

    def within(*path: str) -> str | None:
        found = holder.findtext("/".join(f"{space}{step}" for step in path))
        return (found or "").strip() or None

    voids = _voids(holder, space)
    return {
        "status": _status(transaction, holder) or ("post_void" if voids else "sale"),
        "store": text("RetailStoreID") or text("BusinessUnit", "UnitID"),
        "workstation": text("WorkstationID"),
        "transaction": text("SequenceNumber") or text("TransactionID"),
        "business_day": text("BusinessDayDate"),
        "begun_at": text("BeginDateTime"),
        "ended_at": text("EndDateTime") or text("BeginDateTime"),
        "currency": text("CurrencyCode") or _currency(holder, space),
        "total": None,
        "voids": voids,
        "customer": within("Customer", "CustomerID")
        or within("LoyaltyAccount", "CustomerID")
        or within("LoyaltyAccount", "LoyaltyAccountID"),
    }


def _status(transaction: Element, holder: Element) -> str | None:
    """What a transaction is when it is no sale: cancelled, suspended, training."""
    for flag in ("CancelFlag", "SuspendFlag", "TrainingModeFlag"):
        if _is_set(transaction, flag) or _is_set(holder, flag):
            return _NO_SALE[flag]
    return _NO_SALE.get(holder.get("TransactionStatus", ""))


def _voids(holder: Element, space: str) -> str | None:
    """The earlier transaction that this one voids as a whole: its store, workstation and number."""
    for link in holder.iterfind(f"{space}TransactionLink"):
        if link.get("ReasonCode", "").rpartition(":")[2] in _VOIDING:
            steps = ("RetailStoreID", "WorkstationID", "SequenceNumber")
            parts = [(link.findtext(f"{space}{step}") or "").strip() for step in steps]
            return ":".join(parts)
    return None


def _currency(holder: Element, space: str) -> str | None:
    for amount in holder.iter(f"{space}ExtendedAmount", f"{space}Amount", f"{space}Total"):
        found = amount.get("Currency") or amount.get("CurrencyCode")
        if found:
            return found
    return None


def _line(item: Element, space: str) -> _Line:
    """A line item as the file has it: a return negative, a void not yet taken back."""
    number = (item.findtext(f"{space}SequenceNumber") or "").strip() or None
    where = f"line {number or 'without number'}"
    for child in item:
        kind = _KINDS.get(str(child.tag).removeprefix(space))
        if kind is not None:
            break
    else:
        return _Line(item.sourceline or 1, "Other", number)
    line = _Line(
        place=item.sourceline or 1,
        kind=kind,
        number=number,
        void=_is_set(item, "VoidFlag") or _is_set(item, "CancelFlag"),
        link=(child.findtext(f"{space}ItemLink") or "").strip() or None,
        cells={"void": str(_is_set(item, "VoidFlag")).lower()},
    )
    if kind in {"Sale", "Return"}:
        return _goods(line, child, space, where)
    amount = _amount(child, f"{space}Amount", where) or _ZERO
    refunds = child.get("TypeCode") in {"Refund", "Return", "Change"}
    if kind == "Tender":
        amount -= _amount(child, f"{space}TenderChange/{space}Amount", where) or _ZERO
        amount -= _amount(child, f"{space}Cashback", where) or _ZERO
        line.cells["tender_type"] = child.get("TenderType")
    rounding = _amount(child, f"{space}Rounding", where) or _ZERO
    return replace(line, amount=-abs(amount) if refunds else amount, rounding=abs(rounding))


def _goods(line: _Line, goods: Element, space: str, where: str) -> _Line:
    quantities = goods.findall(f"{space}Quantity")
    counted = [one for one in quantities if _unit(one) in _EACH]
    chosen = next(iter([*counted, *quantities]), None)
    quantity = Decimal(1) if chosen is None else _decimal(chosen, where)
    price = _amount(goods, f"{space}ActualSalesUnitPrice", where)
    regular = _amount(goods, f"{space}RegularSalesUnitPrice", where)
    amount = _amount(goods, f"{space}ExtendedAmount", where)
    if amount is None and price is None:
        raise _Wrong(f"{where} has neither ExtendedAmount nor ActualSalesUnitPrice")
    if amount is None:
        amount = (price or _ZERO) * quantity
    discount = _discount(goods, space, where)
    full = regular if regular is not None else price
    if full is not None and amount == full * quantity and price in {None, full}:
        amount -= discount
    tax = sum(
        (_amount(one, f"{space}Amount", where) or _ZERO for one in goods.findall(f"{space}Tax")),
        _ZERO,
    )
    line.cells.update(_described(goods, space))
    line.cells["unit"] = None if chosen is None else _unit(chosen) or None
    line.cells["unit_price"] = None if price is None else str(price)
    whole = replace(line, quantity=quantity, amount=amount, discount=discount, tax=tax)
    return whole.times(-1) if line.kind == "Return" and amount >= 0 and quantity >= 0 else whole


def _described(goods: Element, space: str) -> dict[str, str | None]:
    def text(path: str) -> str | None:
        return (goods.findtext(f"{space}{path}") or "").strip() or None

    identities = goods.findall(f"{space}POSIdentity")
    codes = [
        (one.get("POSIDType"), (one.findtext(f"{space}POSItemID") or "").strip() or None)
        for one in identities
    ]
    own = [code for kind, code in codes if kind not in {"EAN", "UPC", "GTIN"}]
    return {
        "item_type": goods.get("ItemType"),
        "item_id": text("ItemID"),
        "pos_item_id": next(iter(own or [code for _, code in codes]), None),
        "ean": next((code for kind, code in codes if kind in {"EAN", "UPC", "GTIN"}), None),
        "description": text("Description"),
        "department": text("MerchandiseHierarchy"),
    }


def _discount(goods: Element, space: str, where: str) -> Decimal:
    """What was taken off the line, over all its units."""
    told = _amount(goods, f"{space}ExtendedDiscountAmount", where)
    if told is not None:
        return told
    off = _ZERO
    for amount in goods.iterfind(f"{space}RetailPriceModifier/{space}Amount"):
        sign = {"Subtract": 1, "Add": -1}.get(amount.get("Action", "Subtract"), 0)
        off += sign * _decimal(amount, where)
    return off


def _agreed(
    lines: list[_Line], holder: Element, space: str, header: dict[str, str | None]
) -> list[_Line]:
    """The lines as they count, in the first reading that agrees with the transaction's totals and tenders.

    The standard leaves open whether a void without a link takes back an earlier line or is a line that was
    struck out itself, and whether a discount of the whole transaction is in its lines already.
    """
    _same_currency(holder, space, header["currency"])
    totals = _totals(holder, space)
    links = [line.link for line in lines if line.void and line.link]
    if len(set(links)) < len(links):
        raise _Wrong("it voids one line twice")
    loose = any(line.void and not line.link and line.number not in links for line in lines)
    off = _sum(lines, "Discount")
    post_void = header["status"] == "post_void"
    faults: list[str] = []
    for takes_back, spread in product((False, True)[: 1 + loose], (False, True)[: 1 + bool(off)]):
        found = _counted(lines, takes_back=takes_back)
        found = _spread(found, off, header["currency"]) if spread else found
        fault = _disagreement(found, totals, unsigned=post_void)
        if fault is None:
            found = _reversed(found) if post_void else found
            header["total"] = f"{totals.get(_GRAND, _sum(found, *_GOODS.values())):f}"
            return found
        faults.append(fault)
    raise _Wrong(faults[0])


def _counted(lines: Sequence[_Line], *, takes_back: bool) -> list[_Line]:
    """The lines with their voids: one with a link takes that line back.

    One without a link is struck out itself, or takes an earlier line back where that is asked for.
    """
    voided = {
        line.number: line
        for line in reversed(lines)
        if line.number and not (line.void and line.link)
    }
    linked = {line.link for line in lines if line.void}
    found = []
    for line in lines:
        if line.void and line.link:
            found.append(_taken_back(line, voided.get(line.link)))
        elif not line.void or line.number in linked:
            found.append(line)
        elif takes_back:
            signed = line.kind == "Sale" and line.amount < 0
            found.append(line if signed else line.times(-1))
        else:
            found.append(line.times(0))
    return found


def _taken_back(line: _Line, voided: _Line | None) -> _Line:
    if voided is None:
        raise _Wrong(f"line {line.number} voids line {line.link}, which it does not have")
    same = (abs(voided.amount), abs(voided.quantity)) == (abs(line.amount), abs(line.quantity))
    if not same or voided.kind != line.kind:
        raise _Wrong(f"line {line.number} voids line {line.link}, but says something else")
    back = voided.times(-1)
    return replace(
        line, quantity=back.quantity, amount=back.amount, discount=back.discount, tax=back.tax
    )


def _spread(lines: list[_Line], off: Decimal, currency: str | None) -> list[_Line]:
    """A discount of the whole transaction, taken off its lines by their amounts, to the last cent."""
    cent = Decimal(1).scaleb(-minor_digits(currency or ""))
    whole = _sum(lines, *_GOODS.values())
    before, given, spread = _ZERO, _ZERO, list[_Line]()
    for line in lines:
        share = _ZERO
        if line.kind in {"Sale", "Return"} and whole:
            before += line.amount
            share = (off * before / whole).quantize(cent) - given
            given += share
        spread.append(replace(line, amount=line.amount - share, discount=line.discount + share))
    return spread


def _disagreement(
    lines: Sequence[_Line], totals: dict[str, Decimal], *, unsigned: bool
) -> str | None:
    """What does not add up; None when all that the transaction states agrees with its lines."""
    sold = _sum(lines, *_GOODS.values())
    taxes = [line for line in lines if line.kind == "Tax"]
    tax = _sum(lines, "Tax") if taxes else sum((line.tax for line in lines), _ZERO)
    tax = tax or totals.get(_TAX, _ZERO)
    unsigned = unsigned or all(line.kind != "Sale" for line in lines)

    def agree(stated: Decimal, exact: Decimal, near: Decimal) -> bool:
        # Tax is often kept to more places than money has: where it is added, less than a cent is nothing.
        if unsigned:
            stated, exact, near = abs(stated), abs(exact), abs(near)
        return stated == exact or abs(stated - near) < _CENT

    grand, net, of_tax = totals.get(_GRAND), totals.get(_NET), totals.get(_TAX)
    if grand is not None and not agree(grand, sold, sold + tax):
        return f"its lines add up to {sold} (tax {tax}), but its total says {grand}"
    if net is not None and not agree(net, sold, sold - tax):
        return f"its lines add up to {sold} (tax {tax}), but its net total says {net}"
    if taxes and of_tax is not None and abs(abs(of_tax) - abs(tax)) >= _CENT * len(taxes):
        return f"its taxes add up to {tax}, but its total of taxes says {of_tax}"
    paid = [line for line in lines if line.kind == "Tender"]
    tenders, rounding = _sum(paid, "Tender"), sum((line.rounding for line in paid), _ZERO)
    due, dearer = (sold, sold + tax) if grand is None else (grand, grand)
    rounded = (tenders, tenders - rounding, tenders + rounding)
    if paid and not any(agree(one, due, dearer) for one in rounded):
        return f"{due} is due (tax {tax}), but its tenders add up to {tenders}"
    return None


def _reversed(lines: Sequence[_Line]) -> list[_Line]:
    """The lines of a transaction that voids another: taken back, unless the till wrote them so."""
    signed = any(line.kind == "Sale" and line.amount < 0 for line in lines)
    return list(lines) if signed else [line.times(-1) for line in lines]


def _totals(holder: Element, space: str) -> dict[str, Decimal]:
    """The totals that the transaction states, by their type; the first of each."""
    found: dict[str, Decimal] = {}
    for total in holder.iterfind(f"{space}Total"):
        kind = total.get("TotalType", "")
        if kind in {_GRAND, _NET, _TAX}:
            found.setdefault(kind, _decimal(total, kind))
    return found


def _same_currency(holder: Element, space: str, currency: str | None) -> None:
    for amount in holder.iter(f"{space}ExtendedAmount", f"{space}Amount"):
        other = amount.get("Currency")
        if other and other != currency:
            raise _Wrong(f"it has amounts in {currency} and in {other}")


def _sum(lines: Iterable[_Line], *kinds: str) -> Decimal:
    return sum((line.amount for line in lines if line.kind in kinds), _ZERO)


def _amount(element: Element, path: str, where: str) -> Decimal | None:
    found = element.find(path)
    return None if found is None or not (found.text or "").strip() else _decimal(found, where)


def _decimal(element: Element, where: str) -> Decimal:
    text = (element.text or "").strip()
    if not _NUMBER.fullmatch(text):
        raise _Wrong(f"{_local(element)} of {where} is no number: {text[:40]!r}")
    return Decimal(text)


def _unit(quantity: Element) -> str:
    return quantity.get("UnitOfMeasureCode", "").strip().upper()


def _is_set(element: Element, flag: str) -> bool:
    return element.get(flag, "").strip().lower() in {"true", "1"}


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _name_of(transaction: Element) -> str:
    """What a transaction without line items is, such as a `ControlTransaction`."""
    names = [_local(child) for child in transaction]
    return next((name for name in names if name.endswith("Transaction")), "Transaction")


def _cells(line: _Line) -> dict[str, str | None]:
    """What the row of a line item says, beside what its transaction does."""
    numbers = {
        name: f"{getattr(line, name):f}"
        for name in ("quantity", "amount", "discount", "tax")
        if line.kind in {"Sale", "Return"} or (name == "amount" and line.kind in _KINDS)
    }
    return {"kind": line.kind, "line": line.number, **line.cells, **numbers}
