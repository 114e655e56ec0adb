"""Facts about the shop, in CloudEvents 1.0 envelopes.

An envelope carries a batch of facts of one type as one Arrow table; one fact is a batch of one. Hides how
a batch becomes bytes on a bus and how it is named, so that the same facts always have the same name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import pyarrow as pa

from storekeep.errors import InvariantBroken
from storekeep.retail import (
    DELIVERY,
    FEED_STATE,
    FULFILMENT,
    ORDER_MOVE,
    PRODUCT,
    SALE_LINE,
    STOCK_COUNT,
    STOCK_REPORT,
    SUPPLIER_STEP,
    Table,
)

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/vnd.apache.arrow.stream"

HEADQUARTERS = "headquarters"
"""What events are about that are about no location and no supplier, but about the retailer."""


@dataclass(frozen=True)
class Fed:
    """How the rows that a feed brings of a table become events: of which type, and about what.

    `subject` is the column that names what they are about; without one it is the retailer. Rows that differ
    in the column `apart` are different events; so it is with trading days, within which sales are netted.
    Where `apart` says one of `called`, the type is that.
    """

    table: Table
    type: str
    subject: str | None = "location_id"
    apart: str | None = None
    called: Mapping[str, str] = field(default_factory=dict)

    @property
    def types(self) -> tuple[str, ...]:
        """Every type that the events may have."""
        return (self.type, *self.called.values())


FED: Mapping[str, Fed] = {
    fed.table.name: fed
    for fed in (
        Fed(SALE_LINE, "SaleRecorded", apart="day"),
        Fed(STOCK_COUNT, "StockCounted"),
        Fed(STOCK_REPORT, "StockReported"),
        Fed(
            *(SUPPLIER_STEP, "SupplierAnswered", "supplier_id"),
            apart="kind",
            called={"shipped": "GoodsShipped"},
        ),
        Fed(DELIVERY, "GoodsDelivered"),
        Fed(PRODUCT, "ProductListed", None),
        Fed(FULFILMENT, "OrderFulfilled"),
    )
}
"""Every table that feeds can fill."""

EVENT_TABLES: Mapping[str, Table] = {
    **{name: fed.table for fed in FED.values() for name in fed.types},
    "OrderCommitted": ORDER_MOVE,
    "OrderReleased": ORDER_MOVE,
    "PurchaseOrderConfirmed": ORDER_MOVE,
    "PurchaseOrderCancelled": ORDER_MOVE,
    "GoodsReceived": ORDER_MOVE,
    "FeedStateChanged": FEED_STATE,
}
MEANINGS: Mapping[str, str] = {
    "SaleRecorded": "A till or the web shop sold, or took back, an item.",
    "StockCounted": "Somebody counted an item; the count is the stock from then on.",
    "StockReported": "A system or a partner said what is there.",
    "SupplierAnswered": "A supplier answered lines of a purchase order.",
    "GoodsShipped": "A supplier sent lines of a purchase order on their way.",
    "GoodsDelivered": "A line of a purchase order was delivered, with the dates it had.",
    "ProductListed": "A catalogue told of an item, or told something new of it.",
    "OrderFulfilled": "Lines of a customer's order were sent out, or are to be.",
    "OrderCommitted": "A decision to order a line was recorded; it is not yet with the supplier.",
    "OrderReleased": "A committed line will not be ordered after all.",
    "PurchaseOrderConfirmed": "The order system holds a purchase order for the line.",
    "PurchaseOrderCancelled": "A confirmed line was cancelled.",
    "GoodsReceived": "Units of a confirmed line arrived.",
    "FeedStateChanged": "A feed of a location began or ceased to keep its contract.",
}


@dataclass(frozen=True)
class Event:
    """A batch of facts of one type, from one source, about one subject (a location, mostly)."""

    type: str
    source: str
    subject: str
    time: datetime
    facts: pa.Table
    position: int | None = None

    @cached_property
    def body(self) -> bytes:
        """The facts as they travel and are kept."""
        return to_bytes(self.facts)

    @cached_property
    def id(self) -> str:
        """The CloudEvents id: a digest of the facts' natural keys and values.

        The same facts from the same source have the same id, so a second delivery is recognised.
        """
        digest = hashlib.sha256(f"{self.type}\n{self.source}\n{self.subject}\n".encode())
        digest.update(self.body)
        return digest.hexdigest()[:32]


def event(type_: str, source: str, subject: str, time: datetime, facts: pa.Table) -> Event:
    """Put facts into an envelope, checked against the table that this type of event carries.

    Raises `InvariantBroken` when the type is unknown, the columns differ, or there are no facts.
    """
    table = EVENT_TABLES.get(type_)
    if table is None:
        raise InvariantBroken(f"no event type is called {type_!r}")
    if facts.num_rows == 0:
        raise InvariantBroken(f"an event of type {type_} needs at least one fact")
    if facts.column_names != list(table.names):
        raise InvariantBroken(
            f"facts of {type_} must have the columns of {table.name}: {', '.join(table.names)}; "
            f"got {', '.join(facts.column_names)}"
        )
    return Event(type_, source, subject, time, _as(facts, table).combine_chunks())


def to_bytes(facts: pa.Table) -> bytes:
    """The facts as an Arrow IPC stream without schema metadata; equal facts give equal bytes."""
    plain = facts.replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    # Threads cost more than they save on what most events hold, and workers are processes.
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_stream(sink, plain.schema, options=options) as writer:
        writer.write_table(plain.combine_chunks())
    return bytes(sink.getvalue())


def from_bytes(data: bytes, table: Table) -> pa.Table:
    """The facts of an Arrow IPC stream, with the schema of `table`."""
    options = pa.ipc.IpcReadOptions(use_threads=False)
    with pa.ipc.open_stream(data, options=options) as reader:
        return _as(reader.read_all(), table)


def _as(facts: pa.Table, table: Table) -> pa.Table:
    """The facts with the schema of `table`, which most have already."""
    if facts.schema.equals(table.arrow, check_metadata=True):
        return facts
    return facts.cast(table.arrow)
