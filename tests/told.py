"""Events that differ from one another by a number, as they stand on a bus and travel by a transport."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from storekeep import bus
from storekeep.bus import Message
from storekeep.events import Event, event
from tests import shop

AT = shop.moment(shop.FIRST_DAY)


def count(number: int, location_id: str = shop.LOCATION) -> Event:
    """So much bread was counted, so many seconds after the shop opened."""
    facts = shop.counted({"bread": number}, AT + timedelta(seconds=number))
    return event("StockCounted", "shelf", location_id, AT, facts)


def sealed(tenant: str, *numbers: int, location_id: str = shop.LOCATION) -> list[Message]:
    """The messages of some counts."""
    return [bus.seal(count(number, location_id), tenant) for number in numbers]


def batch(body: bytes, mapping: str = "partner", **said: str) -> Message:
    """A batch of a feed, as a partner's program publishes it: each time under another id."""
    attributes = {
        "specversion": "1.0",
        "id": uuid4().hex,
        "source": "partner",
        "type": bus.BATCH,
        "datacontenttype": "text/csv",
        "mapping": mapping,
    }
    return Message({**attributes, **said}, body)


def numbers(events: list[Event]) -> list[int]:
    """Which counts some events are."""
    return [int(each.facts["quantity_units"][0].as_py()) for each in events]
