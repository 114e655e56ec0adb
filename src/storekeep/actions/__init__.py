"""Actions: what is done in the retailer's own systems, and how it is taken back."""

from storekeep.actions.adapter import Adapter, Order
from storekeep.actions.back_office import PLACE_PURCHASE_ORDER, BackOffice
from storekeep.actions.effects import arrivals, corrections, effects, pending

__all__ = [
    "PLACE_PURCHASE_ORDER",
    "Adapter",
    "BackOffice",
    "Order",
    "arrivals",
    "corrections",
    "effects",
    "pending",
]
