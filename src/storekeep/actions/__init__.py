"""Actions: what is done in the retailer's own systems, and how it is taken back."""

from storekeep.actions.adapter import Adapter, Answer, Order
from storekeep.actions.back_office import PLACE_PURCHASE_ORDER, BackOffice
from storekeep.actions.effects import arrivals, corrections, effects, orders_goods, pending
from storekeep.actions.http import HttpOrders
from storekeep.actions.order_documents import Envelope, OrderLine, PurchaseOrder, order_document

__all__ = [
    "PLACE_PURCHASE_ORDER",
    "Adapter",
    "Answer",
    "BackOffice",
    "Envelope",
    "HttpOrders",
    "Order",
    "OrderLine",
    "PurchaseOrder",
    "arrivals",
    "corrections",
    "effects",
    "order_document",
    "orders_goods",
    "pending",
]
