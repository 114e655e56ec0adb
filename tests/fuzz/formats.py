"""Readers of structured formats, and good documents of each, for what is to be damaged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from storekeep.ingest import epcis, interchanges, messages, poslog
from storekeep.ingest.archives import Opened
from storekeep.ingest.blocks import Block
from tests import interchanges as made

READERS: Mapping[
    str, tuple[Callable[[Opened, tuple[str, ...]], Iterator[Block]], tuple[str, ...]]
] = {
    "epcis": (epcis.blocks, epcis.COLUMNS),
    "poslog": (poslog.blocks, poslog.COLUMNS),
    "x12": (
        lambda file, columns: interchanges.blocks(file, columns, "x12", block_rows=3),
        tuple(messages.COLUMNS),
    ),
    "edifact": (
        lambda file, columns: interchanges.blocks(file, columns, "edifact", block_rows=3),
        tuple(messages.COLUMNS),
    ),
}

_SHARED = Path(__file__).parents[3] / "shared/data"
_OTHERS = {
    "epcis": "epcis/JSON/**/*.jsonld",
    "poslog": "poslog/*.xml",
    "x12": "edi/*/*8[0-9][0-9]*.edi",
    "edifact": "edi/*/*d[9i][67f]a*.edi",
}
_SALE = """\
<Transaction><RetailStoreID>S1</RetailStoreID><WorkstationID>2</WorkstationID>
<SequenceNumber>{number}</SequenceNumber><BusinessDayDate>2026-01-01</BusinessDayDate>
<EndDateTime>2026-01-01T09:00:00</EndDateTime><CurrencyCode>EUR</CurrencyCode>
<RetailTransaction{status}>
<LineItem><SequenceNumber>1</SequenceNumber><Sale ItemType="Stock"><ItemID>a</ItemID>
<POSIdentity POSIDType="EAN"><POSItemID>4012345123456</POSItemID></POSIdentity>
<RegularSalesUnitPrice>2.50</RegularSalesUnitPrice><ActualSalesUnitPrice>2.50</ActualSalesUnitPrice>
<ExtendedAmount Currency="EUR">5.00</ExtendedAmount><Quantity UnitOfMeasureCode="EA">2</Quantity>
<RetailPriceModifier><Amount Action="Subtract">1.00</Amount></RetailPriceModifier>
<Tax><Amount>0.28</Amount></Tax></Sale></LineItem>
<LineItem><SequenceNumber>2</SequenceNumber><Return><ItemID>b</ItemID>
<ExtendedAmount>1.00</ExtendedAmount><Quantity>1</Quantity></Return></LineItem>
<LineItem VoidFlag="true"><SequenceNumber>3</SequenceNumber><Return><ItemID>b</ItemID><ItemLink>2</ItemLink>
<ExtendedAmount>1.00</ExtendedAmount><Quantity>1</Quantity></Return></LineItem>
<LineItem><SequenceNumber>4</SequenceNumber><Tender TenderType="Cash"><Amount>5.00</Amount>
<TenderChange><Amount>1.00</Amount></TenderChange></Tender></LineItem>
<Total TotalType="TransactionGrandAmount">4.00</Total>{link}
</RetailTransaction></Transaction>"""
_LINK = '<TransactionLink ReasonCode="Voided"><SequenceNumber>1</SequenceNumber></TransactionLink>'
_EVENT = {
    "type": "ObjectEvent",
    "eventTime": "2026-01-01T10:00:00+01:00",
    "eventTimeZoneOffset": "+01:00",
    "action": "OBSERVE",
    "bizStep": "storing",
    "bizLocation": {"id": "urn:epc:id:sgln:9501101.02001.0"},
    "epcList": [
        "urn:epc:id:sgtin:9501101.053000.1",
        "https://id.gs1.org/01/10614141073464/10/L1/21/a",
    ],
    "quantityList": [{"epcClass": "urn:epc:class:lgtin:9501101.053000.L1", "quantity": 3.5, "uom": "KGM"}],
    "bizTransactionList": [{"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:0614141073467:1152"}],
}  # fmt: skip


def samples(name: str) -> list[bytes]:
    """Good documents of a format."""
    if name == "x12":
        return [
            made.x12(("852", made.SALES_852), ("846", made.STOCK_846)).encode(),
            made.x12(("855", made.ANSWER_855), ("856", made.NOTICE_856)).encode(),
        ]
    if name == "edifact":
        answers = made.edifact(("ORDRSP", made.ANSWER_ORDRSP), ("DESADV", made.NOTICE_DESADV))
        return [
            made.edifact(("SLSRPT", made.SALES_SLSRPT), ("INVRPT", made.STOCK_INVRPT)).encode(),
            f"UNA:+.? '{answers}".encode(),
        ]
    if name == "poslog":
        sale, void = (
            _SALE.format(number=1, status="", link=""),
            _SALE.format(number=2, status=' TransactionStatus="PostVoided"', link=_LINK),
        )
        space = "http://www.nrf-arts.org/IXRetail/namespace/"
        return [
            f'<POSLog xmlns="{space}">\n{sale}\n{void}\n</POSLog>'.encode(),
            f"<POSLog>{sale}</POSLog>".encode(),
        ]
    wrong = _EVENT | {"errorDeclaration": {"declarationTime": "2026-01-02T00:00:00Z"}}
    packed = _EVENT | {"type": "AggregationEvent", "parentID": "urn:epc:id:sscc:0614141.1234567890"}
    document = {"type": "EPCISDocument", "epcisBody": {"eventList": [_EVENT, wrong, packed]}}
    return [json.dumps(document).encode(), json.dumps([_EVENT]).encode()]


def shared(name: str) -> list[bytes]:
    """Documents of a format that others wrote, where they are there."""
    return [path.read_bytes() for path in sorted(_SHARED.glob(_OTHERS[name]))]
