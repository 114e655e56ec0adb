"""What EDI messages say as lines, and that a message is taken whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storekeep.edi import Syntax
from storekeep.errors import Misused, Refused
from storekeep.ingest.archives import Opened
from storekeep.ingest.feeds import shipped_text
from storekeep.ingest.interchanges import MOST_RAW, blocks
from storekeep.ingest.messages import ACTIVITIES, COLUMNS
from storekeep.ingest.suggesting import suggest
from tests import interchanges as made
from tests.interchanges import edifact, x12


def read(
    text: str, syntax: Syntax, folder: Path, block_rows: int = 100
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """The lines of an interchange by what they say, and what was turned away."""
    path = folder / "a.edi"
    path.write_text(text, encoding="latin-1")
    found = list(blocks(Opened(path, "a.edi"), tuple(COLUMNS), syntax, block_rows=block_rows))
    rows = [row for each in found for row in each.cells.to_pylist()]
    told = [{name: text for name, text in row.items() if text is not None} for row in rows]
    return told, [row for each in found for row in each.malformed.to_pylist()]


def said(rows: list[dict[str, str]], *names: str) -> list[tuple[str | None, ...]]:
    return [tuple(row.get(name) for name in names) for row in rows]


def test_an_852_tells_what_was_sold_and_is_there_by_store(tmp_path: Path) -> None:
    rows, bad = read(x12(("852", made.SALES_852)), "x12", tmp_path)
    assert not bad
    assert said(rows, "activity", "location_id", "buyer_item", "quantity", "price") == [
        ("sold", None, "apple", "5", "1.50"),
        ("returned", None, "apple", "1", "1.50"),
        ("sold", "S1", "pear", "3", "0.40"),
        ("sold", "S2", "pear", "4", "0.40"),
        ("on_hand", "S1", "pear", "30", "0.40"),
        ("on_hand", "S2", "pear", "40", "0.40"),
    ]
    first = rows[0]
    assert (first["occurred_at"], first["currency"], first["gtin"]) == (
        "2026-07-03",
        "USD",
        "072470006431",
    )
    assert (first["sender"], first["interchange_number"], first["sent_at"]) == (
        "PARTNER",
        "000000007",
        "2026-07-04T06:00",
    )
    assert [row["quantity_number"] for row in rows] == ["1", "2", "1", "2", "3", "4"]
    assert (rows[2]["segment"], rows[2]["line"]) == ("10", "10")


def test_a_line_may_have_thousands_of_stores(tmp_path: Path) -> None:
    stores = [f"SDQ*EA*92*S{place}*{place}*T{place}*{place}" for place in range(1200)]
    rows, bad = read(x12(("852", ["LIN*1*IN*a", "ZA*QS", *stores, "LIN*2*IN*b"])), "x12", tmp_path)
    assert (len(rows), bad) == (2401, [])
    assert [row["quantity_number"] for row in rows[:-1]] == [str(n) for n in range(1, 2401)]
    assert {row["activity"] for row in rows[:-1]} == {"sold"}
    assert said(rows[-1:], "buyer_item", "quantity") == [("b", None)]


def test_levels_of_a_shipment_are_as_deep_as_anybody_needs(tmp_path: Path) -> None:
    levels = [f"HL*{place + 1}*{place or ''}*X" for place in range(200)]
    body = ["BSN*00*S*20260705", *levels, "PRF*PO-1", "LIN*1*IN*a", "SN1**4", "CTT*200"]
    rows, _ = read(x12(("856", body)), "x12", tmp_path)
    assert said(rows, "order_id", "line_number", "quantity") == [("PO-1", "200", "4")]


def test_an_846_tells_what_is_there(tmp_path: Path) -> None:
    rows, bad = read(x12(("846", made.STOCK_846)), "x12", tmp_path)
    assert not bad
    assert said(rows, "buyer_item", "activity", "quantity", "location_id", "occurred_at") == [
        ("apple", "on_hand", "250", "S1", "2026-07-03T22:00"),
        ("apple", "available", "198", "S1", "2026-07-03T22:00"),
        ("pear", "on_hand", "0", "S1", "2026-07-03T22:00"),
    ]


def test_an_855_answers_each_line_or_the_whole_order(tmp_path: Path) -> None:
    rows, bad = read(x12(("855", made.ANSWER_855)), "x12", tmp_path)
    assert not bad
    wanted = ("line_number", "quantity_number", "activity", "quantity", "expected_at")
    assert said(rows, *wanted) == [
        ("1", "1", "accepted", "10", "2026-07-06"),
        ("1", "2", "backordered", "2", "2026-07-20"),
        ("2", "1", "rejected", "6", None),
        # BAK says of all others: accepted with changes.
        ("3", "1", "changed", "4", None),
    ]
    assert {(row["order_id"], row["supplier_id"], row["supplier_order_id"]) for row in rows} == {
        ("PO-1", "north", "SO-9")
    }
    assert [row["ordered_quantity"] for row in rows] == ["12", "12", "6", "4"]


def test_an_856_tells_which_order_each_item_is_of(tmp_path: Path) -> None:
    rows, bad = read(x12(("856", made.NOTICE_856)), "x12", tmp_path)
    assert not bad
    wanted = ("line_number", "order_id", "order_line", "buyer_item", "quantity")
    assert said(rows, *wanted) == [
        ("3", "PO-1", "1", "apple", "10"),
        ("4", "PO-1", "2", "pear", "6"),
        ("6", "PO-2", "1", "fig", "4"),
    ]
    assert {(row["shipped_at"], row["expected_at"], row["activity"]) for row in rows} == {
        ("2026-07-05", "2026-07-06", "shipped")
    }
    assert rows[0]["ordered_quantity"] == "12"
    assert {(row["document_id"], row["supplier_id"]) for row in rows} == {("SHIP-1", "north")}


def test_what_one_part_of_a_shipment_says_is_not_said_of_the_next(tmp_path: Path) -> None:
    body = ["BSN*00*S*20260705", "HL*1**S", "HL*2*1*O", "PRF*PO-1", "HL*3*2*I", "LIN**IN*a"]
    body += ["SN1**4", "HL*4*1*O", "HL*5*4*I", "LIN**IN*b", "SN1**5", "CTT*5"]
    rows, _ = read(x12(("856", body)), "x12", tmp_path)
    assert said(rows, "buyer_item", "order_id") == [("a", "PO-1"), ("b", None)]


def test_an_856_that_counts_its_items_is_as_good_as_one_that_counts_its_levels(
    tmp_path: Path,
) -> None:
    by_item = x12(("856", [*made.NOTICE_856[:-1], "CTT*3"]))
    assert len(read(by_item, "x12", tmp_path)[0]) == 3
    neither = x12(("856", [*made.NOTICE_856[:-1], "CTT*4"]))
    rows, bad = read(neither, "x12", tmp_path)
    assert not rows
    assert "CTT in segment 22, line 22 counts 4 lines, there are 6" in bad[0]["reason"]


def test_a_slsrpt_tells_what_was_sold_in_each_place(tmp_path: Path) -> None:
    rows, bad = read(edifact(("SLSRPT", made.SALES_SLSRPT)), "edifact", tmp_path)
    assert not bad
    wanted = ("location_id", "gtin", "buyer_item", "activity", "quantity", "price", "value")
    assert said(rows, *wanted) == [
        ("S1", "4007399434498", "apple", "sold", "5", "1.50", None),
        ("S1", "4007399434498", "apple", "returned", "1", "1.50", None),
        ("S2", None, "pear", "sold", "3", None, "1.20"),
    ]
    # The date of one place is not that of the next, which tells none.
    assert [row["occurred_at"] for row in rows] == ["2026-07-03", "2026-07-03", "2026-07-04"]


def test_an_invrpt_tells_what_is_there_and_on_order(tmp_path: Path) -> None:
    rows, bad = read(edifact(("INVRPT", made.STOCK_INVRPT)), "edifact", tmp_path)
    assert not bad
    assert said(rows, "buyer_item", "activity", "quantity", "location_id", "occurred_at") == [
        ("apple", "on_hand", "250", "S1", "2026-07-03T22:00"),
        ("apple", "on_order", "60", "S1", "2026-07-03T22:00"),
        ("pear", "on_hand", "0", "S1", "2026-07-03T22:00"),
    ]


def test_an_ordrsp_answers_each_line(tmp_path: Path) -> None:
    rows, bad = read(edifact(("ORDRSP", made.ANSWER_ORDRSP)), "edifact", tmp_path)
    assert not bad
    wanted = ("line_number", "quantity_number", "activity", "quantity", "ordered_quantity")
    assert said(rows, *wanted) == [
        ("1", "1", "changed", "10", "12"),
        ("1", "2", "backordered", "2", "12"),
        ("2", "1", "rejected", "6", "6"),
        ("3", "1", "accepted", "4", "4"),
    ]
    assert [row.get("expected_at") for row in rows] == ["2026-07-06", "2026-07-06", None, None]


def test_a_desadv_tells_which_order_each_line_is_of(tmp_path: Path) -> None:
    rows, bad = read(edifact(("DESADV", made.NOTICE_DESADV)), "edifact", tmp_path)
    assert not bad
    wanted = ("buyer_item", "quantity", "order_id", "order_line", "shipped_at", "expected_at")
    assert said(rows, *wanted) == [
        ("apple", "10", "PO-1", "1", "2026-07-05T07:30", "2026-07-06"),
        ("fig", "4", "PO-2", "7", "2026-07-05T07:30", "2026-07-06"),
    ]


def test_prices_for_several_units_are_told_for_one(tmp_path: Path) -> None:
    for price, told in (("AAA:10:::100", "0.100000"), ("AAA:10:::x", "10/x"), ("AAA:2,5", "2.5")):
        body = ["BGM+73E+1+9", "LIN+1++a:IN", f"PRI+{price}", "QTY+153:1"]
        rows, _ = read(edifact(("SLSRPT", body)), "edifact", tmp_path)
        assert rows[0]["price"] == told


def test_the_price_that_customers_pay_comes_before_others(tmp_path: Path) -> None:
    body = ["LIN*1*IN*a", "CTP**UCP*1.00", "CTP**RES*1.50", "CTP**UCP*0.90", "ZA*QS*1"]
    rows, _ = read(x12(("852", body)), "x12", tmp_path)
    assert said(rows, "price", "price_code") == [("1.50", "RES")]


@pytest.mark.parametrize(
    ("told", "moment"),
    [
        ("137:20260704:102", "2026-07-04"),
        ("137:260704:101", "2026-07-04"),
        ("137:202607041830:203", "2026-07-04T18:30"),
        ("137:20260704183059:204", "2026-07-04T18:30:59"),
        ("137:2026070420260705:718", "2026-07-04"),
        ("137:202629:616", "202629"),
        ("137:2026:102", "2026"),
    ],
)
def test_dates_are_told_as_their_format_says_or_as_they_came(
    told: str, moment: str, tmp_path: Path
) -> None:
    body = ["BGM+35+1+9", f"DTM+{told}", "LIN+1++a:IN", "QTY+145:1"]
    rows, _ = read(edifact(("INVRPT", body)), "edifact", tmp_path)
    assert rows[0]["document_at"] == moment


def test_a_message_without_lines_is_one_row_so_that_it_is_not_lost(tmp_path: Path) -> None:
    rows, bad = read(x12(("855", ["BAK*00*AT*PO-1*20260701"])), "x12", tmp_path)
    assert not bad
    assert said(rows, "order_id", "status", "quantity", "segment") == [("PO-1", "AT", None, "3")]


# Whole or not at all --------------------------------------------------------------------------------------

TWO = edifact(("SLSRPT", made.SALES_SLSRPT), ("INVRPT", made.STOCK_INVRPT))


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("UNT+18+1'", "UNT+16+1'", "UNT in segment 19, line 19 counts 16 segments, there are 18"),
        ("UNT+18+1'", "UNT+x+1'", "UNT in segment 19, line 19 counts x segments, there are 18"),
        (
            "UNT+18+1'",
            "UNT+18+9'",
            "UNT in segment 19, line 19 has the number '9', its UNH has '1'",
        ),
        ("CNT+2:2'", "CNT+2:3'", "CNT in segment 18, line 18 counts 3 lines, there are 2"),
        (
            "SLSRPT:D",
            "INVOIC:D",
            "INVOIC is not taken; of EDIFACT taken are SLSRPT, INVRPT, ORDRSP",
        ),
        ("UNT+18+1'\n", "", "UNH of segment 2, line 2 has no UNT before segment 19, line 19"),
    ],
)
def test_a_message_that_is_wrong_gives_no_line_and_the_others_do(
    right: str, wrong: str, reason: str, tmp_path: Path
) -> None:
    text = TWO.replace(right, wrong)
    rows, bad = read(text, "edifact", tmp_path)
    assert [row["message"] for row in rows] == ["INVRPT"] * 3
    assert [row["line"] for row in bad] == [2]
    assert bad[0]["reason"].startswith("message of segment 2, line 2: ")
    assert reason in bad[0]["reason"]


def test_bytes_that_are_no_text_make_their_message_wrong(tmp_path: Path) -> None:
    text = TWO.replace("UNOC", "UNOA").replace("R-1", "R\xe9")
    rows, bad = read(text, "edifact", tmp_path)
    assert len(rows) == 3
    assert "segment 3, line 3 holds bytes that are not ascii text" in bad[0]["reason"]


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("UNZ+2+7", "UNZ+3+7", "UNZ in segment 30, line 30 counts 3 messages, there are 2"),
        ("UNZ+2+7", "UNZ+2+8", "UNZ in segment 30, line 30 has the number '8', its UNB has '7'"),
        ("UNZ+2+7", "LIN+9'\nUNZ+2+7", "LIN in segment 30, line 30 stands outside of any message"),
        ("UNZ+2+7", "UNT+9'\nUNZ+2+7", "UNT in segment 30, line 30 closes nothing that is open"),
    ],
)
def test_an_interchange_that_is_wrong_gives_no_line(
    right: str, wrong: str, reason: str, tmp_path: Path
) -> None:
    rows, bad = read(TWO.replace(right, wrong), "edifact", tmp_path)
    assert not rows
    assert len(bad) == 2
    assert all(reason in each["reason"] for each in bad)


def test_an_interchange_that_is_wrong_does_not_keep_the_next_of_its_file_out(
    tmp_path: Path,
) -> None:
    rows, bad = read(TWO.replace("UNZ+2", "UNZ+1") + TWO, "edifact", tmp_path)
    assert (len(rows), len(bad)) == (6, 2)
    assert [row["line"] for row in bad] == [2, 20]


def test_groups_are_held_against_their_counts(tmp_path: Path) -> None:
    good = x12(("852", made.SALES_852), ("846", made.STOCK_846))
    assert len(read(good, "x12", tmp_path)[0]) == 9
    for right, wrong, reason in (
        ("GE*2", "GE*1", "GE in segment 28, line 28 counts 1 messages, there are 2"),
        ("GE*2*7", "GE*2*8", "GE in segment 28, line 28 has the number '8', its GS has '7'"),
        ("IEA*1", "IEA*2", "IEA in segment 29, line 29 counts 2 groups, there are 1"),
        ("GE*2*7~\n", "", "GS of segment 2, line 2 has no GE before segment 28, line 28"),
    ):
        rows, bad = read(good.replace(right, wrong), "x12", tmp_path)
        assert (len(rows), len(bad)) == (0, 2)
        assert all(reason in each["reason"] for each in bad)
    without = "\n".join(line for line in good.splitlines() if line[:2] not in {"GS", "GE"})
    rows, bad = read(without, "x12", tmp_path)
    assert not rows
    assert "it stands outside of any group (GS)" in bad[0]["reason"]


def test_an_edifact_interchange_may_have_groups(tmp_path: Path) -> None:
    lines = TWO.splitlines()
    group = "UNG+SLSRPT+A+B+260704:0600+5+UN+D:96A'"
    grouped = [lines[0], group, *lines[1:-1], "UNE+2+5'", "UNZ+1+7'"]
    assert len(read("\n".join(grouped), "edifact", tmp_path)[0]) == 6
    rows, bad = read("\n".join(grouped).replace("UNE+2", "UNE+3"), "edifact", tmp_path)
    assert (len(rows), len(bad)) == (0, 2)


def test_a_number_that_was_given_before_makes_the_later_message_wrong(tmp_path: Path) -> None:
    text = TWO.replace("UNH+2", "UNH+1").replace("UNT+10+2", "UNT+10+1")
    rows, bad = read(text, "edifact", tmp_path)
    assert [row["message"] for row in rows] == ["SLSRPT"] * 3
    assert "number '1' was given to a message before it" in bad[0]["reason"]


def test_an_interchange_without_messages_is_told_where_it_is_wrong(tmp_path: Path) -> None:
    assert read(edifact(), "edifact", tmp_path) == ([], [])
    rows, bad = read(edifact().replace("UNZ+0", "UNZ+4"), "edifact", tmp_path)
    assert not rows
    assert [each["reason"] for each in bad] == [
        "UNZ in segment 2, line 2 counts 4 messages, there are 0"
    ]


def test_what_is_kept_of_a_message_names_nobody_and_is_bounded(tmp_path: Path) -> None:
    body = [*made.ANSWER_855[:-1], "N1*ST*Ann Shopper*92*X", "N3*1 High Street", "CTT*9"]
    _, (bad,) = read(x12(("855", body)), "x12", tmp_path)
    assert bad["raw"].startswith("ST*855*0001~BAK*00*AC*PO-1*")
    assert "~N1~N3~CTT*9~" in bad["raw"]
    long = ["BGM+35+1+9", *(f"FTX+{place:0400d}" for place in range(1000)), "CNT+2:5"]
    _, (bad,) = read(edifact(("INVRPT", long)), "edifact", tmp_path)
    assert len(bad["raw"]) < MOST_RAW + 1000


def test_lines_come_in_blocks_each_with_the_segment_it_begins_with(tmp_path: Path) -> None:
    text = (TWO.replace("CNT+2:2", "CNT+2:9") + TWO) * 3
    path = tmp_path / "a.edi"
    path.write_text(text)
    found = list(blocks(Opened(path, "a.edi"), ("segment",), "edifact", block_rows=5))
    assert [each.rows for each in found] == [5] * 6
    places = [place for each in found for place in each.lines.to_pylist()]
    told = [int(cell) for each in found for cell in each.cells["segment"].to_pylist()]
    assert places == told == sorted(told)
    # A file of one line has them, too.
    path.write_text(text.replace("\n", ""))
    (one,) = blocks(Opened(path, "a.edi"), ("line",), "edifact")
    assert one.lines.to_pylist() == places
    assert set(one.cells["line"].to_pylist()) == {"1"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (x12(("852", made.SALES_852)), "x12_852"),
        (x12(("846", made.STOCK_846)), "x12_846"),
        ("\xef\xbb\xbf\n" + x12(("855", made.ANSWER_855)).replace("*", "|"), "x12_855"),
        (x12(("856", made.NOTICE_856)).replace("\n", ""), "x12_856"),
        (edifact(("SLSRPT", made.SALES_SLSRPT)), "edifact_slsrpt"),
        ("UNA:+.? '" + edifact(("INVRPT", made.STOCK_INVRPT)), "edifact_invrpt"),
        (edifact(("ORDRSP", made.ANSWER_ORDRSP)).replace("'", ""), "edifact_ordrsp"),
        (edifact(("DESADV", made.NOTICE_DESADV)).replace("\n", ""), "edifact_desadv"),
    ],
)
def test_the_mapping_that_ships_is_proposed_for_what_it_reads(
    text: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.edi"
    path.write_text(text, encoding="latin-1")
    assert suggest(path).text == shipped_text(name)


def test_columns_that_no_line_has_and_files_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.edi"
    path.write_text(TWO)
    with pytest.raises(Misused, match="has no column 'colour'; it has: message, message_number"):
        list(blocks(Opened(path, "a.edi"), ("colour",), "edifact"))
    path.write_text(TWO[:-20])
    with pytest.raises(Refused, match="is cut short"):
        list(blocks(Opened(path, "a.edi"), ("quantity",), "edifact"))


def test_every_column_and_word_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ingest.md").read_text(encoding="utf-8")
    section = page.partition("\n## X12 and EDIFACT\n")[2].partition("\n## ")[0]
    for name, meaning in COLUMNS.items():
        assert f"| `{name}` | {meaning} |" in section
    words = {word for codes in ACTIVITIES.values() for word in codes.values()}
    assert [word for word in sorted(words) if f"| `{word}` |" not in section] == []
