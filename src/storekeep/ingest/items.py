"""Which item is which: the retailer's SKU, the GTIN on the package, the number that a supplier gives it.

Hides how contradictions are settled. Whoever claimed a number first keeps it; what claims it later for
another item is kept aside and told, until a person ends one of the two. Facts go in, in any order, and the
same facts give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from storekeep.ingest.staging import workspace

CONFLICTS = {
    "gtin": "the GTIN is another item's already",
    "supplier_item": "the supplier calls another item so already",
    "two_suppliers": "another supplier calls the item by the same number already",
}
# What holds of one telling: the newest, since when it does. A number that was ended is claimed anew.
_CLAIMS = """
    SELECT sku, gtin, supplier_id, supplier_item,
      coalesce(min(known_at) FILTER (coalesce(ended_at < known_at, true)), min(known_at)) AS since
    FROM (
      SELECT *, max(known_at) FILTER (ends) OVER same AS ended_at,
        arg_max(coalesce(ends, false), (coalesce(occurred_at, known_at), known_at, coalesce(ends, false)))
          OVER same AS over
      FROM told WINDOW same AS (PARTITION BY sku, gtin, supplier_id, supplier_item))
    WHERE NOT over GROUP BY ALL
"""
_JUDGED = """
    SELECT sku, gtin, supplier_id, supplier_item, since, CASE
      WHEN gtin IS NOT NULL
        AND sku <> first_value(sku) OVER (PARTITION BY gtin ORDER BY since, sku) THEN 'gtin'
      WHEN supplier_item IS NOT NULL AND sku <> first_value(sku)
        OVER (PARTITION BY supplier_id, supplier_item ORDER BY since, sku) THEN 'supplier_item'
      WHEN supplier_item IS NOT NULL AND supplier_id <> first_value(supplier_id IGNORE NULLS)
        OVER (PARTITION BY sku, supplier_item ORDER BY since, supplier_id) THEN 'two_suppliers'
      END AS conflict
    FROM claims
"""


@dataclass(frozen=True)
class Items:
    """Items by their numbers, and what was kept aside.

    `known` and `aside` have `sku`, `gtin`, `supplier_id`, `supplier_item` and `since`; `aside` has `conflict`
    as well, one of `CONFLICTS`.
    """

    known: pa.Table
    aside: pa.Table


def items(told: pa.Table) -> Items:
    """Which item is which by all that was `told` (`retail.ITEM_IDENTITY`), in any order."""
    connection = workspace()
    try:
        connection.register("told", told)
        connection.execute(f"CREATE OR REPLACE TEMP TABLE claims AS {_CLAIMS}")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE judged AS {_JUDGED}")
        known, aside = (
            connection.execute(f"{query} ORDER BY ALL").to_arrow_table()
            for query in (
                "SELECT * EXCLUDE (conflict) FROM judged WHERE conflict IS NULL",
                "SELECT * FROM judged WHERE conflict IS NOT NULL",
            )
        )
    finally:
        connection.close()
    return Items(known, aside)
