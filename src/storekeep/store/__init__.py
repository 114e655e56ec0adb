"""The system of record: PostgreSQL, and the only SQL that is sent to it.

Hides its tables, roles and sessions. `connection` opens a `Store` and brings its schema up to date;
`transaction` is one tenant's view of the record and all that can be asked of it, put together from

    session    the transaction itself, and rows in bulk
    facts      events, positions of readers, stock
    recorded   the ledger, and where decisions stand
    waiting    pending actions, breakers, approvals, limits
    people     what is personal, sealed, and the keys that open it
    arrivals   what was sent over HTTP and in batches, and lines that are told again when they change
    traced     what each run read and wrote
    online     features as they are by now

`receiving` writes what comes over HTTP, durably and many at a time.
"""

from storekeep.store.arrivals import RESTATED, Arrival, End
from storekeep.store.connection import ROLE, SCHEMA, Store, become
from storekeep.store.facts import PARTITIONS, STOCK, TOLD_FROM, DeadLetter, LogRow, Unread
from storekeep.store.online import Found, Reader
from storekeep.store.pages import Page, packed
from storekeep.store.receiving import Receiving
from storekeep.store.recorded import ENTRIES, Standing
from storekeep.store.session import OURSELVES
from storekeep.store.traced import Traced
from storekeep.store.transaction import Transaction
from storekeep.store.waiting import USES, Task

__all__ = [
    "ENTRIES",
    "OURSELVES",
    "PARTITIONS",
    "RESTATED",
    "ROLE",
    "SCHEMA",
    "STOCK",
    "TOLD_FROM",
    "USES",
    "Arrival",
    "DeadLetter",
    "End",
    "Found",
    "LogRow",
    "Page",
    "Reader",
    "Receiving",
    "Standing",
    "Store",
    "Task",
    "Traced",
    "Transaction",
    "Unread",
    "become",
    "packed",
]
