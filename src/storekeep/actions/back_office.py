"""The embedded back office: an order system of its own, for homes that have none, and for trying things.

It stands in for a retailer's ERP and is treated as one: a schema and transactions of its own, reached
through the adapter contract only, knowing nothing of decisions beyond the idempotency key. Hides its
tables, and the wall between tenants in them, which is that of the record. A purchase order holds the lines of
one group; a line exists once for a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
from psycopg import sql
from psycopg.rows import dict_row

from storekeep.actions.adapter import Order, standing
from storekeep.decisions import Action, Receipt, Reversibility
from storekeep.errors import Permanent, Refused, Transient, Unknown
from storekeep.retail import PURCHASE_ORDER_LINE
from storekeep.store import ROLE, become

NAME = "back_office"
_MOST_ATTEMPTS = 5
PLACE_PURCHASE_ORDER = Action(
    name="PlacePurchaseOrder",
    parameters=PURCHASE_ORDER_LINE,
    money="order_value_minor",
    reversibility=Reversibility.COMPENSATE,
    clippable=("order_units",),
    derived={"order_value_minor": "order_units * unit_cost_minor"},
)

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS back_office;
CREATE TABLE IF NOT EXISTS back_office.purchase_order (
  tenant text NOT NULL,
  purchase_order_id text NOT NULL,
  order_group text NOT NULL,
  supplier_id text NOT NULL,
  location_id text NOT NULL,
  placed_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, purchase_order_id)
);
CREATE TABLE IF NOT EXISTS back_office.purchase_order_line (
  tenant text NOT NULL,
  idempotency_key text NOT NULL,
  purchase_order_id text NOT NULL,
  sku text NOT NULL,
  ordered_units bigint NOT NULL CHECK (ordered_units > 0),
  received_units bigint NOT NULL DEFAULT 0 CHECK (received_units BETWEEN 0 AND ordered_units),
  unit_cost_minor bigint NOT NULL CHECK (unit_cost_minor >= 0),
  currency text NOT NULL,
  cancelled_at timestamptz,
  PRIMARY KEY (tenant, idempotency_key),
  FOREIGN KEY (tenant, purchase_order_id) REFERENCES back_office.purchase_order
);
CREATE INDEX IF NOT EXISTS purchase_order_line_order
  ON back_office.purchase_order_line (tenant, purchase_order_id);
CREATE UNIQUE INDEX IF NOT EXISTS purchase_order_group
  ON back_office.purchase_order (tenant, order_group);
"""
_WALL = """
ALTER TABLE back_office.{0} ENABLE ROW LEVEL SECURITY;
ALTER TABLE back_office.{0} FORCE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS one_tenant ON back_office.{0};
CREATE POLICY one_tenant ON back_office.{0} USING (tenant = current_setting('storekeep.tenant', true))
  WITH CHECK (tenant = current_setting('storekeep.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON back_office.{0} TO {1};
"""
_TABLES = ("purchase_order", "purchase_order_line")
_MADE = (
    "SELECT count(*) AS walls FROM pg_policy WHERE polname = 'one_tenant'"
    " AND polrelid IN (to_regclass('back_office.purchase_order'),"
    " to_regclass('back_office.purchase_order_line'))"
)
_LINE = (
    "SELECT l.*, o.supplier_id, o.location_id, o.placed_at FROM back_office.purchase_order_line l"
    " JOIN back_office.purchase_order o USING (tenant, purchase_order_id)"
    " WHERE l.tenant = %s AND l.idempotency_key = ANY(%s) ORDER BY l.idempotency_key"
)


LINES = pa.schema(
    [
        ("idempotency_key", pa.string()),
        ("purchase_order_id", pa.string()),
        ("sku", pa.string()),
        ("order_units", pa.int64()),
        ("supplier_id", pa.string()),
        ("placed_at", pa.timestamp("us", tz="UTC")),
    ]
)


class BackOffice:
    """One tenant's purchase orders in the embedded back office."""

    name = NAME
    most_orders = 1000

    def __init__(self, conninfo: str, tenant: str) -> None:
        self._conninfo = conninfo
        self._tenant = tenant
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def execute(self, orders: Sequence[Order], at: datetime) -> Sequence[Receipt | str]:
        """Place each group's lines on one purchase order; a line that is there already stays as it is."""
        refusals = {
            order.decision_id: "a line orders at least one unit"
            for order in orders
            if int(order.parameters["order_units"]) <= 0
        }
        # In one order for everybody, so that nobody waits in a circle.
        wanted = sorted(
            (order for order in orders if order.decision_id not in refusals),
            key=lambda order: (order.group, order.decision_id),
        )
        with self._transaction("place a purchase order") as cursor:
            self._place(cursor, wanted, at)
            receipts = self._receipts(cursor, [order.decision_id for order in wanted])
        return [refusals.get(order.decision_id) or receipts[order.decision_id] for order in orders]

    def compensate(self, receipts: Sequence[Receipt], at: datetime) -> Sequence[Receipt | str]:
        """Cancel lines of which nothing has arrived yet; cancelling one again changes nothing.

        A line that somebody changed since its receipt stays as it is.
        """
        wanted = {receipt.idempotency_key: receipt for receipt in receipts}
        with self._transaction("cancel purchase order lines") as cursor:
            found = self._receipts(cursor, list(wanted), lock=True)
            why = {key: standing(receipt, found.get(key)) for key, receipt in wanted.items()}
            keys = [key for key in wanted if why[key] is None]
            cursor.execute(
                "UPDATE back_office.purchase_order_line SET cancelled_at = coalesce(cancelled_at, %s)"
                " WHERE tenant = %s AND idempotency_key = ANY(%s)",
                (at, self._tenant, keys),
            )
            done = self._receipts(cursor, keys)
        return [why[each.idempotency_key] or done[each.idempotency_key] for each in receipts]

    def find(self, idempotency_keys: Sequence[str]) -> Mapping[str, Receipt]:
        """The lines that were placed under keys, as they are now."""
        with self._transaction("look for purchase order lines", reads=True) as cursor:
            return self._receipts(cursor, idempotency_keys)

    def receive(self, idempotency_keys: Sequence[str]) -> list[str]:
        """Goods of these lines arrive; the lines that are complete now, cancelled ones left out.

        Saying so twice changes nothing and gives the same answer.
        """
        with self._transaction("receive goods") as cursor:
            cursor.execute(
                "UPDATE back_office.purchase_order_line SET received_units = ordered_units"
                " WHERE tenant = %s AND idempotency_key = ANY(%s) AND cancelled_at IS NULL"
                " RETURNING idempotency_key",
                (self._tenant, list(idempotency_keys)),
            )
            return sorted(row["idempotency_key"] for row in cursor.fetchall())

    def open_lines(self) -> pa.Table:
        """The lines of which goods are still to come, in the order in which they were placed."""
        return self._lines("AND l.cancelled_at IS NULL AND l.received_units < l.ordered_units")

    def order_lines(self) -> pa.Table:
        """All lines that were placed and not cancelled, in the order in which they were placed."""
        return self._lines("AND l.cancelled_at IS NULL")

    def _lines(self, condition: LiteralString) -> pa.Table:
        with self._transaction("list purchase order lines", reads=True) as cursor:
            cursor.execute(
                "SELECT l.idempotency_key, l.purchase_order_id, l.sku, l.ordered_units AS order_units,"
                " o.supplier_id, o.placed_at FROM back_office.purchase_order_line l"
                " JOIN back_office.purchase_order o USING (tenant, purchase_order_id)"
                f" WHERE l.tenant = %s {condition} ORDER BY o.placed_at, purchase_order_id, sku",
                (self._tenant,),
            )
            return pa.Table.from_pylist(cursor.fetchall(), schema=LINES)

    def forget(self) -> None:
        """Remove the tenant's orders: for demonstrations that begin anew."""
        with self._transaction("forget a tenant's orders") as cursor:
            for table in reversed(_TABLES):
                cursor.execute(
                    sql.SQL("DELETE FROM back_office.{} WHERE tenant = %s").format(
                        sql.Identifier(table)
                    ),
                    (self._tenant,),
                )

    def count_orders(self) -> int:
        """How many purchase orders there are that have a line not cancelled."""
        with self._transaction("count purchase orders", reads=True) as cursor:
            cursor.execute(
                "SELECT count(DISTINCT purchase_order_id) AS many FROM back_office.purchase_order_line"
                " WHERE tenant = %s AND cancelled_at IS NULL",
                (self._tenant,),
            )
            return int((cursor.fetchone() or {"many": 0})["many"])

    def _place(
        self, cursor: psycopg.Cursor[dict[str, Any]], orders: Sequence[Order], at: datetime
    ) -> None:
        """Make the purchase orders that are missing, then the lines that are missing."""
        numbers = self._numbers(cursor, {order.group: order for order in orders}, at)
        columns = ("sku", "order_units", "unit_cost_minor", "currency")
        cursor.execute(
            "INSERT INTO back_office.purchase_order_line (tenant, idempotency_key, purchase_order_id,"
            " sku, ordered_units, unit_cost_minor, currency) SELECT %s, * FROM unnest(%s::text[],"
            " %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[]) ON CONFLICT DO NOTHING",
            (
                self._tenant,
                [order.decision_id for order in orders],
                [numbers[order.group] for order in orders],
                *([order.parameters[name] for order in orders] for name in columns),
            ),
        )

    def _numbers(
        self, cursor: psycopg.Cursor[dict[str, Any]], heads: Mapping[str, Order], at: datetime
    ) -> dict[str, str]:
        """The number of each group's purchase order, made where there is none."""
        for attempt in range(_MOST_ATTEMPTS):
            cursor.execute(
                "SELECT order_group, purchase_order_id FROM back_office.purchase_order"
                " WHERE tenant = %s AND order_group = ANY(%s)",
                (self._tenant, list(heads)),
            )
            found = {row["order_group"]: row["purchase_order_id"] for row in cursor.fetchall()}
            missing = [group for group in heads if group not in found]
            if not missing:
                return found
            cursor.execute(
                "INSERT INTO back_office.purchase_order SELECT %s, * FROM unnest(%s::text[],"
                " %s::text[], %s::text[], %s::text[]), (SELECT %s::timestamptz) AS placed"
                " ON CONFLICT DO NOTHING",
                (
                    self._tenant,
                    [_number(self._tenant, group, attempt) for group in missing],
                    missing,
                    *(
                        [heads[group].parameters[name] for group in missing]
                        for name in ("supplier_id", "location_id")
                    ),
                    at,
                ),
            )
        raise Permanent(f"no number was free for a purchase order of {len(heads)} groups")

    def _receipts(
        self,
        cursor: psycopg.Cursor[dict[str, Any]],
        keys: Sequence[str],
        *,
        lock: bool = False,
    ) -> dict[str, Receipt]:
        cursor.execute(_LINE + (" FOR UPDATE OF l" if lock else ""), (self._tenant, list(keys)))
        return {row["idempotency_key"]: _receipt(row) for row in cursor.fetchall()}

    @contextmanager
    def _transaction(
        self, what: str, *, reads: bool = False
    ) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        sent = False
        try:
            connection = self._open()
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('role', %s, true), set_config('storekeep.tenant', %s, true)",
                    (ROLE, self._tenant),
                )
                yield cursor
                # From here on the commit is under way: an error no longer says that nothing happened.
                sent = not reads
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            if sent:
                raise Unknown(f"the back office broke off while asked to {what}: {said}") from error
            raise Transient(f"the back office cannot {what} now: {said}") from error
        except psycopg.Error as error:
            raise Permanent(f"the back office refuses to {what}: {error}") from error

    def _open(self) -> psycopg.Connection[dict[str, Any]]:
        if self._connection is None or self._connection.closed:
            opened = psycopg.connect(
                self._conninfo,
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=10,
                client_encoding="utf8",
            )
            # A plan that was kept from when the tables were empty would read all of them for each order.
            opened.prepare_threshold = None
            opened.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._connection = opened
            try:
                self._make_tables(opened)
            except (psycopg.Error, Refused):
                self.close()
                raise
        return self._connection

    def _make_tables(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        # Even an index that is there already would wait for, and hold up, everybody who writes.
        if _walled(connection):
            return
        with connection.transaction(), connection.cursor() as cursor:
            become(cursor)
            # Whoever waited for the lock may find it done; to do it again would stop those who use it by now.
            if _walled(cursor):
                return
            cursor.execute(_SCHEMA)
            role = sql.Identifier(ROLE)
            cursor.execute(sql.SQL("GRANT USAGE ON SCHEMA back_office TO {}").format(role))
            for table in _TABLES:
                cursor.execute(sql.SQL(_WALL).format(sql.Identifier(table), role))


def _walled(
    connection: psycopg.Connection[dict[str, Any]] | psycopg.Cursor[dict[str, Any]],
) -> bool:
    """Whether the tables are there, each behind its wall."""
    there = connection.execute(_MADE).fetchone()
    return there is not None and there["walls"] == len(_TABLES)


def _number(tenant: str, group: str, attempt: int) -> str:
    """A number for a group's purchase order; another at each attempt, since ten digits do meet again."""
    again = f"\n{attempt}" if attempt else ""
    digest = hashlib.sha256(f"{tenant}\n{group}{again}".encode()).hexdigest()
    return f"PO-{int(digest[:12], 16) % 10**10:010d}"


def _receipt(row: dict[str, Any]) -> Receipt:
    # Goods arriving is what an order is for; quantity, price and cancellation would be somebody's change.
    seen = f"{row['ordered_units']}/{row['unit_cost_minor']}/{row['cancelled_at'] is not None}"
    return Receipt(
        idempotency_key=row["idempotency_key"],
        adapter=NAME,
        reference=row["purchase_order_id"],
        fingerprint=hashlib.sha256(seen.encode()).hexdigest()[:16],
        details={
            "sku": row["sku"],
            "supplier_id": row["supplier_id"],
            "location_id": row["location_id"],
            "ordered_units": row["ordered_units"],
            "received_units": row["received_units"],
            "cancelled": row["cancelled_at"] is not None,
        },
    )
