"""Features: what is known about a subject as of a time, the same for a decision and for its replay."""

from storekeep.features.sku_location import (
    FEATURES,
    SCHEMA,
    VERSION,
    compute,
    evidence,
    snapshot,
    stock_as_of,
    update,
    without_own,
)

__all__ = [
    "FEATURES",
    "SCHEMA",
    "VERSION",
    "compute",
    "evidence",
    "snapshot",
    "stock_as_of",
    "update",
    "without_own",
]
