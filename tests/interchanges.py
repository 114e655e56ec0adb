"""Interchanges made by hand: messages in envelopes whose counts and numbers are right."""

from __future__ import annotations

from collections.abc import Sequence

ISA = "ISA*00*          *00*          *ZZ*{0:15}*ZZ*SHOP           *260704*0600*U*00401*{1:09d}*0*P*>~"


def x12(*messages: tuple[str, Sequence[str]], sender: str = "PARTNER", number: int = 7) -> str:
    """An interchange of X12, a line a segment: each message is a type and its segments."""
    said = [ISA.format(sender, number), f"GS*XX*{sender}*SHOP*20260704*0600*{number}*X*004010~"]
    for place, (kind, body) in enumerate(messages, start=1):
        said += [f"ST*{kind}*{place:04d}~", *(f"{one}~" for one in body)]
        said.append(f"SE*{len(body) + 2}*{place:04d}~")
    said += [f"GE*{len(messages)}*{number}~", f"IEA*1*{number:09d}~"]
    return "\n".join(said) + "\n"


def edifact(*messages: tuple[str, Sequence[str]], sender: str = "PARTNER", number: int = 7) -> str:
    """An interchange of EDIFACT, a line a segment."""
    said = [f"UNB+UNOC:3+{sender}:14+SHOP:14+260704:0600+{number}'"]
    for place, (kind, body) in enumerate(messages, start=1):
        said += [f"UNH+{place}+{kind}:D:96A:UN:EAN004'", *(f"{one}'" for one in body)]
        said.append(f"UNT+{len(body) + 2}+{place}'")
    said.append(f"UNZ+{len(messages)}+{number}'")
    return "\n".join(said) + "\n"


SALES_852 = (
    "XQ*H*20260703*20260703",
    "CUR*SE*USD",
    "LIN*1*IN*apple*UP*072470006431",
    "CTP**RES*1.50",
    "ZA*QS*5*EA",
    "ZA*QU*1*EA",
    "LIN*2*IN*pear",
    "CTP**RES*0.40",
    "ZA*QS",
    "SDQ*EA*92*S1*3*S2*4",
    "ZA*QA",
    "SDQ*EA*92*S1*30*S2*40",
    "CTT*2",
)
STOCK_846 = (
    "BIA*00*SR*INV-1*20260703*2200",
    "N1*WH**92*S1",
    "LIN*1*IN*apple",
    "QTY*17*250*EA",
    "QTY*33*198*EA",
    "LIN*2*IN*pear",
    "QTY*17*0*EA",
    "CTT*2",
)
ANSWER_855 = (
    "BAK*00*AC*PO-1*20260701*****20260703",
    "REF*VN*SO-9",
    "N1*SU**92*north",
    "PO1*1*12*EA*1.00**IN*apple",
    "ACK*IA*10*EA*067*20260706",
    "ACK*IB*2*EA*067*20260720",
    "PO1*2*6*EA*0.30**IN*pear",
    "ACK*IR*6*EA",
    "PO1*3*4*EA*9.00**IN*fig",
    "CTT*3",
)
NOTICE_856 = (
    "BSN*00*SHIP-1*20260705*0730",
    "DTM*011*20260705",
    "DTM*017*20260706",
    "HL*1**S",
    "N1*SU**92*north",
    "HL*2*1*O",
    "PRF*PO-1",
    "HL*3*2*I",
    "LIN*1*IN*apple",
    "SN1**10*EA**12*EA",
    "HL*4*2*I",
    "LIN*2*IN*pear",
    "SN1**6*EA",
    "HL*5*1*O",
    "PRF*PO-2",
    "HL*6*5*I",
    "LIN*1*IN*fig",
    "SN1**4*EA",
    "CTT*6",
)
SALES_SLSRPT = (
    "BGM+73E::9+R-1+9",
    "DTM+137:20260704:102",
    "CUX+2:EUR:10",
    "LOC+162+S1::92",
    "DTM+356:20260703:102",
    "LIN+1++4007399434498:EN",
    "PIA+1+apple:IN",
    "PRI+AAE:1,50::RTP",
    "QTY+153:5:PCE",
    "QTY+61:1:PCE",
    "MOA+203:6.00:EUR",
    "LOC+162+S2::92",
    "LIN+2++pear:IN",
    "MOA+203:1.20:EUR",
    "QTY+153:3:PCE",
    "CNT+2:2",
)
STOCK_INVRPT = (
    "BGM+35+I-1+9",
    "DTM+366:202607032200:203",
    "NAD+WH+S1::92",
    "LIN+1++apple:IN",
    "QTY+145:250:PCE",
    "QTY+21:60:PCE",
    "LIN+2++pear:IN",
    "QTY+145:0:PCE",
)
ANSWER_ORDRSP = (
    "BGM+231+A-1+4",
    "DTM+137:20260703:102",
    "RFF+ON:PO-1",
    "NAD+SU+north::92",
    "LIN+1+3+apple:IN",
    "QTY+21:12",
    "QTY+113:10",
    "QTY+83:2",
    "DTM+67:20260706:102",
    "LIN+2+7+pear:IN",
    "QTY+21:6",
    "LIN+3+5+fig:IN",
    "QTY+21:4",
    "UNS+S",
    "CNT+2:3",
)
NOTICE_DESADV = (
    "BGM+351+SHIP-1+9",
    "DTM+137:20260705:102",
    "DTM+11:202607050730:203",
    "DTM+17:20260706:102",
    "RFF+ON:PO-1",
    "NAD+SU+north::92",
    "CPS+1",
    "LIN+1++apple:IN",
    "QTY+12:10:PCE",
    "RFF+ON:PO-1:1",
    "LIN+2++fig:IN",
    "QTY+12:4:PCE",
    "RFF+ON:PO-2:7",
    "CNT+2:2",
)
