"""Feeds to the retailer's tables: what a file says is read, judged by declared rules, and kept or told.

`mapping` reads a feed's mapping file, `load` applies it to files. Hides formats, archives, encodings,
clocks, dirt and natural keys. Bad rows are values, never errors: each comes back with file, line, column,
rule and reason, and every rule is counted.
"""

from __future__ import annotations

from pathlib import Path

from storekeep.errors import Misused
from storekeep.ingest import contracts, odcs
from storekeep.ingest.archives import Bounds
from storekeep.ingest.asking import Page, asked, parts, with_refunds
from storekeep.ingest.blocks import Drifted
from storekeep.ingest.bodies import LONGEST_ID, Bodies, pushed
from storekeep.ingest.complete_journey import (
    Marketing,
    complete_journey_files,
    load_marketing,
    load_promotions,
)
from storekeep.ingest.feeds import FEEDS, Mapping, read, shipped
from storekeep.ingest.identity import Identities, identities
from storekeep.ingest.items import CONFLICTS, Items, items
from storekeep.ingest.loading import Loaded, load, load_again
from storekeep.ingest.origins import Origin, filters, origins
from storekeep.ingest.products import Products, load_products
from storekeep.ingest.pseudonyms import (
    MATCHED,
    matches,
    pseudonym_key,
    pseudonyms,
    ticket_pseudonyms,
)
from storekeep.ingest.sealing import (
    is_hidden,
    new_person_key,
    person_of,
    persons_in,
    persons_key,
    unseal,
    unwrapped,
    withheld,
)
from storekeep.ingest.staging import as_cells
from storekeep.ingest.statement import parsed
from storekeep.ingest.suggesting import Suggestion, suggest
from storekeep.ingest.web_json import parsed as parsed_json
from storekeep.ingest.web_json import stock_items, with_skus

__all__ = [
    "CONFLICTS",
    "FEEDS",
    "LONGEST_ID",
    "MATCHED",
    "Bodies",
    "Bounds",
    "Drifted",
    "Identities",
    "Items",
    "Loaded",
    "Mapping",
    "Marketing",
    "Origin",
    "Page",
    "Products",
    "Suggestion",
    "as_cells",
    "asked",
    "complete_journey_files",
    "contracts",
    "filters",
    "identities",
    "is_hidden",
    "items",
    "load",
    "load_again",
    "load_marketing",
    "load_products",
    "load_promotions",
    "mapping",
    "mapping_of",
    "matches",
    "new_person_key",
    "odcs",
    "origins",
    "parsed_json",
    "parts",
    "person_of",
    "persons_in",
    "persons_key",
    "pseudonym_key",
    "pseudonyms",
    "pushed",
    "shipped",
    "stock_items",
    "suggest",
    "ticket_pseudonyms",
    "unseal",
    "unwrapped",
    "with_refunds",
    "with_skus",
    "withheld",
]


def mapping(name: str | Path) -> Mapping:
    """The mapping of a feed: a file, or the shipped one of that name (`complete_journey`).

    Raises `Refused`, with file, line and column, when the file says what a mapping cannot say.
    """
    found = read(name)
    parsed(found)
    return found


def mapping_of(home: Path, name: str) -> Mapping:
    """The mapping of that name of a home: its own (`mappings/NAME.yaml` in its folder), or one that ships.

    Raises `Misused` when there is none: a name is never taken for a path.
    """
    own = home / "mappings" / f"{name}.yaml"
    if "/" not in name and own.is_file():
        return mapping(own)
    if name not in shipped():
        raise Misused(
            f"there is no mapping {name}; put it into {own.parent}, or use one that ships: "
            f"{', '.join(shipped())}"
        )
    return mapping(name)
