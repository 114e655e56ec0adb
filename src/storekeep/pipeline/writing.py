"""Purchase orders, and what was cancelled of them, as documents for suppliers.

Hides control numbers: a document gets the next free number when it is first written, is kept, and is the same
whenever it is asked for again, so that a supplier who gets it twice sees that it is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storekeep import canonical
from storekeep.actions import Envelope, OrderLine, PurchaseOrder, order_document
from storekeep.edi import Syntax
from storekeep.errors import Refused
from storekeep.lake import ORDER_MOVES
from storekeep.pipeline.reverting import Reverting
from storekeep.store import Transaction
from storekeep.watch import stage

_KEPT_AS = "order_document"
_MOVES = """
    SELECT decision_id, any_value(sku) AS sku, any_value(supplier_id) AS supplier_id,
      any_value(location_id) AS location_id,
      any_value(quantity_units) FILTER (event_type = 'PurchaseOrderConfirmed') AS units,
      min(occurred_at) FILTER (event_type = 'PurchaseOrderConfirmed') AS placed_at,
      count(*) FILTER (event_type = 'PurchaseOrderCancelled') > 0 AS cancelled
    FROM moves WHERE purchase_order_id = $order
      AND event_type IN ('PurchaseOrderConfirmed', 'PurchaseOrderCancelled')
    GROUP BY decision_id HAVING placed_at IS NOT NULL ORDER BY sku, decision_id
"""


@dataclass(frozen=True)
class Document:
    """A document as it was first written, and the control number of its interchange."""

    number: int
    body: bytes


class Writing(Reverting):
    """From confirmed purchase orders to documents."""

    def write_order(
        self,
        purchase_order_id: str,
        syntax: Syntax,
        by: str,
        *,
        cancels: bool = False,
        identity: str | None = None,
        partners: Mapping[str, str] | None = None,
    ) -> Document:
        """A purchase order, or what of it `cancels`, as a document for its supplier, kept for good.

        The same order, or the same lines cancelled of it, gives the same bytes for ever. `identity` is who
        the tenant is on it, `partners` who each supplier is; their ids stand in where there is none.
        Raises `Refused` when no such order was confirmed, or nothing of it is to be written.
        """
        with stage("write_order", self.tenant):
            self.keep_history()
            moves = self.lake.query(
                _MOVES, tables={"moves": ORDER_MOVES}, parameters={"order": purchase_order_id}
            ).to_pylist()
            if not moves:
                raise Refused(
                    f"no purchase order {purchase_order_id} was confirmed; `storekeep decisions show` "
                    "names the order of a decision"
                )
            # Of an order there may be several cancellations, each of more lines.
            gone = [move["decision_id"] for move in moves if move["cancelled"]]
            which = f"cancellation/{canonical.digest(gone)[:16]}" if cancels else "order"
            name = f"{purchase_order_id}/{syntax}/{which}"
            with self.store.transaction(self.tenant) as tx:
                number = tx.next_version(_KEPT_AS)
                kept = tx.registered(_KEPT_AS, name, "")
                if kept is not None:
                    return Document(int(kept[0]), kept[1].encode("latin-1"))
                order = self._purchase_order(tx, purchase_order_id, moves)
                receiver = (partners or {}).get(order.supplier_id, order.supplier_id)
                envelope = Envelope(identity or self.tenant, receiver, number, self.now())
                body = order_document(order, syntax, envelope, cancels=cancels)
                tx.register(_KEPT_AS, name, str(number), body.decode("latin-1"), self.now(), by)
            return Document(number, body)

    def _purchase_order(
        self, tx: Transaction, purchase_order_id: str, moves: list[dict[str, Any]]
    ) -> PurchaseOrder:
        asked = self._orders(tx, [move["decision_id"] for move in moves])
        lines = [
            OrderLine(
                sku=move["sku"],
                units=move["units"],
                unit_cost_minor=int(asked[move["decision_id"]].parameters["unit_cost_minor"]),
                cancelled=move["cancelled"],
            )
            for move in moves
        ]
        first = moves[0]
        return PurchaseOrder(
            number=purchase_order_id,
            supplier_id=first["supplier_id"],
            location_id=first["location_id"],
            currency=asked[first["decision_id"]].parameters["currency"],
            placed_at=min(move["placed_at"] for move in moves),
            lines=lines,
        )
