"""Feeds to the retailer's tables: what a file says is read, judged by declared rules, and kept or told.

`mapping` reads a feed's mapping file, `load` applies it to files. Hides formats, archives, encodings,
clocks, dirt and natural keys. Bad rows are values, never errors: each comes back with file, line, column,
rule and reason, and every rule is counted.
"""

from __future__ import annotations

from pathlib import Path

from storekeep.ingest import contracts, odcs
from storekeep.ingest.archives import Bounds
from storekeep.ingest.blocks import Drifted
from storekeep.ingest.complete_journey import (
    Marketing,
    complete_journey_files,
    load_marketing,
    load_promotions,
)
from storekeep.ingest.feeds import FEEDS, Mapping, read, shipped
from storekeep.ingest.loading import Loaded, load, load_again
from storekeep.ingest.products import Products, load_products
from storekeep.ingest.pseudonyms import pseudonym_key
from storekeep.ingest.staging import as_cells
from storekeep.ingest.statement import parsed
from storekeep.ingest.suggesting import Suggestion, suggest

__all__ = [
    "FEEDS",
    "Bounds",
    "Drifted",
    "Loaded",
    "Mapping",
    "Marketing",
    "Products",
    "Suggestion",
    "as_cells",
    "complete_journey_files",
    "contracts",
    "load",
    "load_again",
    "load_marketing",
    "load_products",
    "load_promotions",
    "mapping",
    "odcs",
    "pseudonym_key",
    "shipped",
    "suggest",
]


def mapping(name: str | Path) -> Mapping:
    """The mapping of a feed: a file, or the shipped one of that name (`complete_journey`).

    Raises `Refused`, with file, line and column, when the file says what a mapping cannot say.
    """
    found = read(name)
    parsed(found)
    return found
