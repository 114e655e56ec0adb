"""What a till's POSLog becomes: sales, returns, voids, discounts; what does not add up; what is refused."""

from __future__ import annotations

import random
import resource
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from storekeep.errors import Misused, Refused
from storekeep.ingest import Bounds, Loaded, Mapping, load, mapping, suggest
from storekeep.ingest.archives import Opened
from storekeep.ingest.poslog import COLUMNS, TRANSACTION_BYTES, blocks

KNOWN_AT = datetime(2026, 1, 2, tzinfo=UTC)
KEY = b"a key that is kept secret, 32 by"
HEAD = (
    "<RetailStoreID>S1</RetailStoreID><WorkstationID>2</WorkstationID>"
    "<BusinessDayDate>2026-01-01</BusinessDayDate><EndDateTime>2026-01-01T09:00:00</EndDateTime>"
    "<CurrencyCode>EUR</CurrencyCode>"
)

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a POSLog of transactions and gives its path."""

    def write(*transactions: str, name: str = "till.xml", prefix: str = "") -> Path:
        space = f'xmlns{prefix and ":" + prefix}="http://www.nrf-arts.org/IXRetail/namespace/"'
        text = f"<POSLog {space}>\n" + "\n".join(transactions) + "\n</POSLog>\n"
        if prefix:
            tags = ("<", "</")
            for tag in tags:
                text = text.replace(tag, f"{tag}{prefix}:").replace(f"<{prefix}:/", "</")
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def goods(
    number: int,
    item: str = "apple",
    amount: str = "2.00",
    *,
    quantity: str = "1",
    kind: str = "Sale",
    void: bool = False,
    link: int | None = None,
    more: str = "",
    attributes: str = "",
) -> str:
    flag = ' VoidFlag="true"' if void else ""
    to = f"<ItemLink>{link}</ItemLink>" if link else ""
    return (
        f"\n<LineItem{flag}><SequenceNumber>{number}</SequenceNumber><{kind} {attributes}>"
        f"<ItemID>{item}</ItemID>{to}<ExtendedAmount>{amount}</ExtendedAmount>"
        f"<Quantity>{quantity}</Quantity>{more}</{kind}></LineItem>"
    )


def line(number: int, inside: str) -> str:
    return f"\n<LineItem><SequenceNumber>{number}</SequenceNumber>{inside}</LineItem>"


def paid(number: int, amount: str, more: str = "", code: str = "Sale") -> str:
    return line(
        number,
        f'<Tender TenderType="Cash" TypeCode="{code}"><Amount>{amount}</Amount>{more}</Tender>',
    )


def total(amount: str, kind: str = "TransactionGrandAmount") -> str:
    return f'<Total TotalType="{kind}">{amount}</Total>'


def sale(
    *parts: str, number: int = 1, attributes: str = "", head: str = HEAD, status: str = ""
) -> str:
    return (
        f"<Transaction {attributes}>{head}<SequenceNumber>{number}</SequenceNumber>"
        f"<RetailTransaction {status}>{''.join(parts)}</RetailTransaction></Transaction>"
    )


def read(*files: Path, given: Mapping | None = None) -> list[Loaded]:
    found = given or mapping("poslog")
    return list(load(found, files, known_at=KNOWN_AT, pseudonym_key=KEY))


def one(*files: Path) -> Loaded:
    (batch,) = read(*files)
    assert batch.read == batch.rows.num_rows + batch.rejected.num_rows + sum(batch.ignored.values())
    return batch


def sold(batch: Loaded) -> list[tuple[str, int, int]]:
    rows = batch.rows.to_pylist()
    return [(row["sku"], row["quantity_units"], row["value_minor"]) for row in rows]


def reasons(batch: Loaded) -> set[str]:
    assert set(batch.reasons) <= {"malformed"}
    return set(batch.rejected["reason"].to_pylist())


def test_a_sale_is_taken_in_with_its_store_day_and_basket(make: Make) -> None:
    batch = one(
        make(sale(goods(1), goods(2, "pear", "3.00", quantity="2"), paid(3, "5.00"), total("5.00")))
    )
    (first, second) = batch.rows.to_pylist()
    assert sold(batch) == [("apple", 1, 200), ("pear", 2, 300)]
    assert batch.ignored == {"tender": 1}
    assert first["basket_id"] == second["basket_id"] == "S1:2026-01-01:2:1"
    assert (first["store_id"], first["day"], first["currency"]) == ("S1", date(2026, 1, 1), "EUR")
    assert first["occurred_at"] == datetime(2026, 1, 1, 9, tzinfo=UTC)
    assert (first["source_line"], second["source_line"]) == (3, 4)


def test_any_namespace_prefix_will_do_and_foreign_elements_are_passed_over(make: Make) -> None:
    foreign = '<x:Sale xmlns:x="urn:other"><x:ExtendedAmount>9</x:ExtendedAmount></x:Sale>'
    plain = sale(goods(1), paid(2, "2.00"), total("2.00"))
    assert sold(one(make(plain, prefix="arts"))) == [("apple", 1, 200)]
    assert sold(one(make(plain.replace("<Sale", foreign + "<Sale")))) == [("apple", 1, 200)]


def test_a_return_counts_against_what_was_sold(make: Make) -> None:
    batch = one(make(sale(goods(1, kind="Return"), paid(2, "2.00", code="Refund"), total("-2.00"))))
    assert sold(batch) == [("apple", -1, -200)]
    written = goods(1, amount="-2.00", quantity="-1", kind="Return")
    assert sold(one(make(sale(written, paid(2, "-2.00"))))) == [("apple", -1, -200)]


# Voids


def test_a_line_and_its_void_are_two_lines_that_come_to_nothing(make: Make) -> None:
    parts = (goods(1), goods(2, "fig", "1.00"), goods(3, void=True, link=1))
    batch = one(make(sale(*parts, paid(4, "1.00"), total("1.00"))))
    assert sold(batch) == [("apple", 1, 200), ("fig", 1, 100), ("apple", -1, -200)]


def test_a_voided_return_is_taken_back_too(make: Make) -> None:
    parts = (goods(1), goods(2, kind="Return"), goods(3, kind="Return", void=True, link=2))
    assert sold(one(make(sale(*parts, total("2.00"))))) == [
        ("apple", 1, 200), ("apple", -1, -200), ("apple", 1, 200),
    ]  # fmt: skip


def test_a_void_without_a_link_means_what_the_total_says(make: Make) -> None:
    parts = (goods(1), goods(2, void=True))
    struck = one(make(sale(*parts, total("2.00"))))
    assert (sold(struck), struck.ignored) == ([("apple", 1, 200)], {"struck_out": 1})
    assert sold(one(make(sale(*parts, total("0"))))) == [("apple", 1, 200), ("apple", -1, -200)]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((goods(1), goods(2, void=True, link=7)), "line 2 voids line 7, which it does not have"),
        ((goods(1), goods(2, amount="1.00", void=True, link=1)), "line 2 voids line 1, but says"),
        ((goods(1), *(goods(n, void=True, link=1) for n in (2, 3))), "it voids one line twice"),
    ],
)  # fmt: skip
def test_a_void_that_fits_no_line_is_malformed(
    make: Make, parts: tuple[str, ...], reason: str
) -> None:
    batch = one(make(sale(*parts), sale(goods(1), number=2)))
    assert sold(batch) == [("apple", 1, 200)]
    assert batch.rejected.num_rows == len(parts)
    (told,) = reasons(batch)
    assert told.startswith(f"transaction 1: {reason}")


LINK = (
    '<TransactionLink ReasonCode="Voided"><RetailStoreID>S1</RetailStoreID>'
    "<WorkstationID>2</WorkstationID><SequenceNumber>1</SequenceNumber></TransactionLink>"
)


@pytest.mark.parametrize(("sign", "stated"), [("", "5.00"), ("", "-5.00"), ("-", "-5.00")])
def test_a_sale_and_the_transaction_that_voids_it_come_to_nothing(
    make: Make, sign: str, stated: str
) -> None:
    first = sale(goods(1), goods(2, "pear", "3.00"), paid(3, "5.00"), total("5.00"))
    lines = (
        goods(1, amount=f"{sign}2.00", quantity=f"{sign}1"),
        goods(2, "pear", f"{sign}3.00", quantity=f"{sign}1"),
    )
    void = sale(
        *lines, paid(3, f"{sign}5.00"), total(stated), LINK, number=2,
        status='TransactionStatus="PostVoided"',
    )  # fmt: skip
    batch = one(make(first, void))
    assert sold(batch) == [
        ("apple", 1, 200),
        ("pear", 1, 300),
        ("apple", -1, -200),
        ("pear", -1, -300),
    ]


def test_a_transaction_that_voids_another_must_say_which_and_what(make: Make) -> None:
    void = 'TransactionStatus="PostVoided"'
    batch = one(make(sale(goods(1), status=void), sale(LINK, number=2, status=void)))
    assert batch.rows.num_rows == 0
    assert batch.rejected["reason"].to_pylist() == [
        "transaction 1: it is post-voided, but links to no transaction that it voids",
        "transaction 2: it voids S1:2:1, but does not repeat its lines",
    ]


@pytest.mark.parametrize(
    ("attributes", "status"),
    [
        ('CancelFlag="true"', ""), ('TrainingModeFlag="1"', ""), ('SuspendFlag="true"', ""),
        ("", 'TransactionStatus="Voided"'), ("", 'TransactionStatus="Suspended"'),
    ],
)  # fmt: skip
def test_what_was_never_completed_is_counted_and_left_out(
    make: Make, attributes: str, status: str
) -> None:
    batch = one(make(sale(goods(1), total("99"), attributes=attributes, status=status)))
    assert (batch.rows.num_rows, batch.ignored) == (0, {"not_completed": 1})


# Discounts, taxes, tenders, totals


def modified(amount: str, action: str = "Subtract") -> str:
    return f"<RetailPriceModifier><Amount Action='{action}'>{amount}</Amount></RetailPriceModifier>"


def prices(regular: str, actual: str, off: str = "") -> str:
    return (
        f"<RegularSalesUnitPrice>{regular}</RegularSalesUnitPrice>"
        f"<ActualSalesUnitPrice>{actual}</ActualSalesUnitPrice>{off}"
    )


@pytest.mark.parametrize(
    ("amount", "more"),
    [
        ("4.00", prices("2.50", "2.00", modified("1.00"))),
        ("5.00", prices("2.50", "2.50", "<ExtendedDiscountAmount>1.00</ExtendedDiscountAmount>")),
        ("5.00", prices("2.50", "2.50", modified("1.00"))),
        ("4.00", prices("2.50", "2.00", modified("2.00", "Replace"))),
    ],
)  # fmt: skip
def test_a_line_is_worth_what_was_paid_for_it_after_its_discount(
    make: Make, amount: str, more: str
) -> None:
    batch = one(make(sale(goods(1, amount=amount, quantity="2", more=more), total("4.00"))))
    assert sold(batch) == [("apple", 2, 400)]


def test_a_discount_of_the_whole_is_taken_off_the_lines_unless_it_is_already(make: Make) -> None:
    parts = (goods(1, amount="1.00"), goods(2, "fig", "1.00"), goods(3, "pear", "1.00"))
    off = line(4, "<Discount><Amount>1.00</Amount></Discount>")
    batch = one(make(sale(*parts, off, paid(5, "2.00"))))
    assert sum(value for _, _, value in sold(batch)) == 200
    assert sorted(value for _, _, value in sold(batch)) == [66, 67, 67]
    batch = one(make(sale(*parts, off, paid(5, "3.00"))))
    assert [value for _, _, value in sold(batch)] == [100, 100, 100]


def tax(amount: str) -> str:
    return f"<Tax><Amount>{amount}</Amount></Tax>"


@pytest.mark.parametrize(
    "parts",
    [
        (goods(1, amount="10.00"), line(2, tax("0.80")), paid(3, "10.80"), total("10.80")),
        (goods(1, amount="10.00", more=tax("0.8049")), paid(3, "10.80"), total("10.80")),
        (goods(1, amount="10.00", more=tax("1.5966")), paid(3, "10.00"), total("10.00")),
        (goods(1, amount="10.00", more=tax("1.60")), total("8.40", "TransactionNetAmount")),
        (goods(1, amount="10.00"), paid(2, "20.00", "<TenderChange><Amount>10.00</Amount></TenderChange>")),
        (goods(1, amount="10.00"), paid(2, "20.00"), paid(3, "10.00", code="Change"), total("10.00")),
        (goods(1, amount="10.00"), paid(2, "30.00", "<Cashback>20.00</Cashback>"), total("10.00")),
        (goods(1, amount="10.00"), paid(2, "10.02", "<Rounding>0.02</Rounding>"), total("10.00")),
        (goods(1, amount="10.00"), paid(2, "4.00"), paid(3, "6.00")),
    ],
)  # fmt: skip
def test_taxes_change_cashback_and_rounding_are_understood(
    make: Make, parts: tuple[str, ...]
) -> None:
    assert sold(one(make(sale(*parts)))) == [("apple", 1, 1000)]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((goods(1), total("2.01")), "its lines add up to 2.00 (tax 0), but its total says 2.01"),
        ((goods(1), total("1.98", "TransactionNetAmount")),
         "its lines add up to 2.00 (tax 0), but its net total says 1.98"),
        ((goods(1), paid(2, "1.99")), "2.00 is due (tax 0), but its tenders add up to 1.99"),
        ((goods(1), paid(2, "2.01"), total("2.00")), "2.00 is due (tax 0), but its tenders add up to 2.01"),
        ((goods(1), line(2, tax("0.10")), total("0.20", "TransactionTaxAmount")),
         "its taxes add up to 0.10, but its total of taxes says 0.20"),
        ((goods(1, amount="two"),), "ExtendedAmount of line 1 is no number: 'two'"),
        ((goods(1, quantity="1e999999"),), "Quantity of line 1 is no number: '1e999999'"),
        ((goods(1).replace("<ExtendedAmount>", "<ExtendedAmount Currency='USD'>"),),
         "it has amounts in EUR and in USD"),
        ((goods(1).replace("<ExtendedAmount>2.00</ExtendedAmount>", ""),),
         "line 1 has neither ExtendedAmount nor ActualSalesUnitPrice"),
    ],
)  # fmt: skip
def test_what_does_not_add_up_is_malformed_with_place_and_reason(
    make: Make, parts: tuple[str, ...], reason: str
) -> None:
    batch = one(make(sale(*parts), sale(goods(1), number=2)))
    assert sold(batch) == [("apple", 1, 200)]
    assert reasons(batch) == {f"transaction 1: {reason}"}
    assert batch.rejected["source_line"].to_pylist() == list(range(3, 3 + batch.rejected.num_rows))


def test_a_malformed_transaction_is_not_taken_in_line_by_line(make: Make) -> None:
    given = Mapping.model_validate({**mapping("poslog").model_dump(), "customer": "keep"})
    (batch,) = read(make(sale(goods(1), total("9.00"))), given=given)
    (row,) = batch.rejected.to_pylist()
    assert "item_id=apple" in row["raw"]
    assert not row["raw"].startswith("{")


def test_goods_by_weight_and_what_is_no_goods_are_told_apart(make: Make) -> None:
    batch = one(
        make(
            sale(
                goods(1, quantity="0.450", more="", amount="3.00"),
                goods(2, "bag", attributes='ItemType="Fee"'),
                goods(3, "cola").replace(
                    "<Quantity>", '<Quantity UnitOfMeasureCode="KGM">0.3</Quantity><Quantity>'
                ),
                line(4, "<Message>hello</Message>"),
                total("7.00"),
            )
        )
    )
    assert sold(batch) == [("cola", 1, 200)]
    assert batch.reasons == {"by_weight": 1}
    assert batch.ignored == {"not_goods": 1, "no_line_of_goods": 1}


def test_transactions_that_sell_nothing_are_counted(make: Make) -> None:
    opened = f"<Transaction>{HEAD}<ControlTransaction><SignOn/></ControlTransaction></Transaction>"
    batch = one(make(opened, sale(number=2)))
    assert (batch.rows.num_rows, batch.ignored) == (0, {"no_line_of_goods": 2})


def test_yen_have_no_minor_unit_and_dinars_have_three_digits(make: Make) -> None:
    yen = sale(goods(1, amount="120"), head=HEAD.replace("EUR", "JPY"))
    dinar = sale(goods(1, amount="1.250"), number=2, head=HEAD.replace("EUR", "KWD"))
    assert sold(one(make(yen, dinar))) == [("apple", 1, 120), ("apple", 1, 1250)]


def test_people_are_pseudonyms_or_not_kept_at_all(make: Make) -> None:
    people = (
        '<OperatorID OperatorName="Ann">77</OperatorID>',
        "<Customer><CustomerID>C9</CustomerID><Name>Bob</Name></Customer>",
    )
    batch = one(
        make(
            sale(goods(1), people[1], head=HEAD + people[0]), sale(goods(1), total("9"), people[1])
        )
    )
    (row,) = batch.rows.to_pylist()
    assert row["customer_id"]
    said = str(batch.rows.to_pylist()) + str(batch.rejected.to_pylist())
    assert not any(word in said for word in ("Ann", "Bob", "C9", "77"))


# Exactly once


def test_the_same_lines_have_the_same_keys_in_any_order_and_in_one_line(make: Make) -> None:
    transactions = [sale(goods(1), goods(2), goods(3, "fig"), number=n) for n in range(1, 30)]
    first = one(make(*transactions))
    random.Random(7).shuffle(transactions)  # noqa: S311 - an order, no secret
    shuffled = one(make(*transactions, name="b.xml"))
    flat = make(*transactions, name="c.xml")
    flat.write_text(flat.read_text().replace("\n", ""))
    keys = set(first.rows["line_key"].to_pylist())
    assert len(keys) == first.rows.num_rows == 87
    assert keys == set(shuffled.rows["line_key"].to_pylist())
    assert keys == set(one(flat).rows["line_key"].to_pylist())
    assert set(one(flat).rows["source_line"].to_pylist()) == {1}


# Bad input


def refused(path: Path, error: type[Exception] = Refused) -> str:
    with pytest.raises(error) as caught:
        read(path)
    return str(caught.value)


BOMB = (
    '<!DOCTYPE l [<!ENTITY a "lolololololololol">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]>"
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x01\x02\x00\x00", "line 1: this is no well-formed XML"),
        (b"\n\nname,price\n", "line 3: this is no well-formed XML"),
        (b"<html><body/></html>", "this is no POSLog; its outermost element is 'html'"),
        (b"<POSLog>\n<Transaction>\n</Sale></Transaction></POSLog>", "line 3: this is no well-formed"),
        (b"<POSLog>" + b"<a>" * 100_000, "line 1: this is no well-formed XML (Excessive depth"),
        (BOMB.encode() + b"<POSLog><Transaction>&i;</Transaction></POSLog>", "declares a document type"),
        (BOMB.encode() + b"<POSLog a='&i;'><Transaction/></POSLog>", "declares a document type"),
        (b"<!DOCTYPE l [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><POSLog><Transaction>&e;</Transaction></POSLog>",
         "it declares a document type (DTD)"),
        (b"<!DOCTYPE l [<!ENTITY e SYSTEM 'file:///no/such'>]><POSLog><Transaction>&e;</Transaction></POSLog>",
         "it declares a document type (DTD)"),
        (b"<!DOCTYPE POSLog SYSTEM 'http://127.0.0.1:9/p.dtd'><POSLog/>", "declares a document type"),
        (b"<POSLog>\n<Transaction>\xff</Transaction></POSLog>", "line 2: this is no well-formed XML"),
    ],
)  # fmt: skip
def test_what_is_no_poslog_is_refused_with_its_place(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "bad.xml"
    path.write_bytes(content)
    said = refused(path)
    assert said.startswith("bad.xml")
    assert words in said
    assert "root:" not in said


def test_of_a_file_that_is_cut_short_nothing_is_taken_in(make: Make) -> None:
    path = make(*(sale(goods(1), number=n) for n in range(1, 50)))
    whole = path.read_bytes()
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        found = mapping("poslog")
        with pytest.raises(Refused, match=r"till.xml, line .*send it again"):
            next(load(found, [path], known_at=KNOWN_AT, pseudonym_key=KEY))


@pytest.mark.parametrize(
    "opening", ["<POSLog><Transaction>", "<POSLog><!--", "<POSLog a='", "<", "<POSLog><Transaction><![CDATA["]
)  # fmt: skip
def test_an_endless_text_is_refused_before_it_is_in_memory(tmp_path: Path, opening: str) -> None:
    path = tmp_path / "long.xml"
    with path.open("wb") as file:
        file.write(opening.encode())
        file.truncate(
            1 << 30
        )  # a hole of zeros would be no XML: the text is put where it is looked at
        file.seek(len(opening))
        file.write(b"x" * (TRANSACTION_BYTES + (1 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "long.xml" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_a_file_of_many_transactions_takes_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "day.xml"
    parts = (*(goods(n) for n in range(1, 6)), f"<ReceiptImage>{'y' * 100_000}</ReceiptImage>")
    path.write_text(f"<POSLog>{sale(*parts) * 600}</POSLog>")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    for block in blocks(Opened(path, "day.xml"), COLUMNS):
        assert block.rows == 3000
        assert resident() - before < 20 << 20


def test_a_column_that_a_poslog_does_not_have_is_a_mistake_of_the_mapping(make: Make) -> None:
    said = mapping("poslog").model_dump()
    said["source_columns"]["cashier"] = "text"
    with pytest.raises(Misused, match="has no column 'cashier'; it has: status, store"):
        read(make(sale(goods(1))), given=Mapping.model_validate(said))


def test_an_archive_of_poslogs_is_read_member_by_member(make: Make, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "day.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in (1, 2):
            archive.write(make(sale(goods(1), number=number)), f"{number}.xml")
    batches = list(
        load(
            mapping("poslog"),
            [tmp_path / "day.zip"],
            known_at=KNOWN_AT,
            pseudonym_key=KEY,
            bounds=Bounds(),
        )
    )
    assert [batch.file for batch in batches] == ["day.zip/1.xml", "day.zip/2.xml"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("poslog", b'<?xml version="1.0"?>\n<arts:POSLog xmlns:arts="urn:x">'),
        ("epcis", b'{"type": "EPCISDocument",\n "epcisBody": {}}'),
    ],
)
def test_the_mapping_that_ships_is_proposed(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "sample"
    path.write_bytes(content)
    found = suggest(path)
    assert not found.look
    (tmp_path / "proposed.yaml").write_text(found.text)
    assert mapping(tmp_path / "proposed.yaml").digest == mapping(name).digest
