"""The system of record: PostgreSQL, and the only SQL that is sent to it.

Hides its tables, roles and sessions. `connection` opens a `Store` and brings its schema up to date;
`transaction` is one tenant's view of the record and all that can be asked of it.
"""

from storekeep.store.connection import ROLE, SCHEMA, Store
from storekeep.store.transaction import (
    ENTRIES,
    OURSELVES,
    PARTITIONS,
    STOCK,
    USES,
    DeadLetter,
    LogRow,
    Task,
    Transaction,
    Unread,
)

__all__ = [
    "ENTRIES",
    "OURSELVES",
    "PARTITIONS",
    "ROLE",
    "SCHEMA",
    "STOCK",
    "USES",
    "DeadLetter",
    "LogRow",
    "Store",
    "Task",
    "Transaction",
    "Unread",
]
