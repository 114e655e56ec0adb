"""Features: what is known about a subject as of a time, the same for a decision and for its replay."""

from storekeep.features.definition import Feature, FeatureSet, Source
from storekeep.features.origins import ORIGINS, Asked, Used, behind_features, behind_stock
from storekeep.features.sku_location import (
    FEATURE_TABLE,
    FEATURES,
    SCHEMA,
    VERSION,
    Moved,
    compute,
    evidence,
    moved,
    recounted,
    snapshot,
    stock_as_of,
    update,
    without_own,
)

__all__ = [
    "FEATURES",
    "FEATURE_TABLE",
    "ORIGINS",
    "SCHEMA",
    "VERSION",
    "Asked",
    "Feature",
    "FeatureSet",
    "Moved",
    "Source",
    "Used",
    "behind_features",
    "behind_stock",
    "compute",
    "evidence",
    "moved",
    "recounted",
    "snapshot",
    "stock_as_of",
    "update",
    "without_own",
]
