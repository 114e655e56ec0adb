"""Who is who: which pseudonyms are one person's, as far as was known by a time.

Two customers are one person when a key of both agrees (an address, a number, a card), or when somebody
merged them. Hides the fold: facts go in, in any order, and the same facts give the same persons. A later fact
changes what is known later, never what was known before.

A key that many share is nobody's own: one that more than `MOST_OF_ONE_SOURCE` customers of one source have
joins nobody, and keys that together would join more than `MOST_TOGETHER` customers join none of them. Both
are told. What a person merged holds in any case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from storekeep.ingest.staging import workspace

MOST_OF_ONE_SOURCE = 3
MOST_TOGETHER = 20

TOLD = pa.schema(
    [
        ("customer_id", pa.string()),
        ("told_in", pa.string()),
        ("email_key", pa.string()),
        ("phone_key", pa.string()),
        ("card_key", pa.string()),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("known_at", pa.timestamp("us", "UTC")),
    ]
)
"""What was told of customers: `told_in` is the table that says so."""
LINKS = pa.schema(
    [
        ("link_id", pa.string()),
        ("merges", pa.bool_()),
        ("customer_id", pa.string()),
        ("other_id", pa.string()),
        ("undoes", pa.string()),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("known_at", pa.timestamp("us", "UTC")),
    ]
)
"""What somebody merged and split."""
PERSONS = pa.schema([("customer_id", pa.string()), ("person_id", pa.string())])
FLAGS = pa.schema(
    [
        ("flag", pa.string()),
        ("key", pa.string()),
        ("customers", pa.int64()),
    ]
)

# Of each customer the newest that each table tells, so that a ticket without a number does not take one away.
_HELD = """
    SELECT DISTINCT customer_id, key FROM (
      SELECT customer_id, unnest(keys) AS key FROM (
        SELECT customer_id, told_in, arg_max([email_key, phone_key, card_key],
          (occurred_at, known_at, coalesce(email_key, ''), coalesce(phone_key, ''),
            coalesce(card_key, ''))) AS keys
        FROM told GROUP BY ALL))
    WHERE key IS NOT NULL
"""
# A fact that undoes another has no effect of its own. Of those about one pair the newest holds.
_IN_FORCE = """
    SELECT * FROM links WHERE undoes IS NULL
    AND link_id NOT IN (SELECT undoes FROM links WHERE undoes IS NOT NULL)
    QUALIFY row_number() OVER (PARTITION BY least(customer_id, other_id), greatest(customer_id, other_id)
      ORDER BY occurred_at DESC, known_at DESC, link_id DESC) = 1
"""
_SHARED = f"""
    SELECT key, max(many) AS customers FROM (
      SELECT key, split_part(customer_id, ':', 1) AS source, count(*) AS many FROM held GROUP BY ALL)
    GROUP BY key HAVING max(many) > {MOST_OF_ONE_SOURCE}
"""
# Whoever is split from another loses the keys that both have.
_BY_KEY = """
    SELECT customer_id AS one, key AS other FROM held
    WHERE key NOT IN (SELECT key FROM shared)
    AND NOT EXISTS (FROM in_force AS cut WHERE NOT merges AND (
      (cut.customer_id = held.customer_id AND cut.other_id = held.key)
      OR (cut.customer_id = held.key AND cut.other_id = held.customer_id)
      OR (cut.customer_id = held.customer_id AND held.key IN (
        SELECT theirs.key FROM held AS theirs WHERE theirs.customer_id = cut.other_id))))
"""


@dataclass(frozen=True)
class Identities:
    """Persons, and what is to be looked at.

    `persons`: each `customer_id` that anything was told of, with the `person_id` it belongs to, the first of
    all the person's pseudonyms; in order. `flags`: a `shared` key and how many customers of one source have
    it; `large`, the customers that keys would have joined under a person; `contradicted`, a customer who was
    split from another and is the same person by others.
    """

    persons: pa.Table
    flags: pa.Table


def identities(told: pa.Table, links: pa.Table) -> Identities:
    """Who is who by what is `told` of customers and by `links`, both as far as they were known by some time.

    `told` as `TOLD`, `links` as `LINKS`, both in any order.
    """
    connection = workspace()
    try:
        connection.register("told", told)
        connection.register("links", links)
        for name, query in (("held", _HELD), ("in_force", _IN_FORCE), ("shared", _SHARED)):
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
        by_key = connection.execute(_BY_KEY).to_arrow_table()
        merged = connection.execute(
            "SELECT customer_id AS one, other_id AS other FROM in_force WHERE merges"
        ).to_arrow_table()
        cut = connection.execute(
            "SELECT customer_id, other_id FROM in_force WHERE NOT merges ORDER BY ALL"
        ).to_arrow_table()
        shared = connection.execute("SELECT * FROM shared ORDER BY key").to_arrow_table()
        customers = connection.execute(
            "SELECT customer_id FROM told UNION SELECT customer_id FROM links"
            " UNION SELECT other_id FROM links UNION SELECT card_key FROM told"
            " WHERE card_key IS NOT NULL ORDER BY 1"
        ).to_arrow_table()["customer_id"]
    finally:
        connection.close()
    return _joined(customers.combine_chunks(), by_key, merged, cut, shared)


def _joined(
    customers: pa.Array, by_key: pa.Table, merged: pa.Table, cut: pa.Table, shared: pa.Table
) -> Identities:
    # Customers come first, in order, so that the first of a person has the lowest number.
    keys = pc.unique(by_key["other"])
    names = pa.concat_arrays(
        [customers, keys.filter(pc.invert(pc.is_in(keys, value_set=customers)))]
    )
    number = {side: _numbers(by_key[side], names) for side in ("one", "other")}
    together = _first(number["one"], number["other"], len(names))
    sizes = np.bincount(together[: len(customers)], minlength=len(names))
    large = np.flatnonzero(sizes > MOST_TOGETHER)
    fits = ~np.isin(together[number["one"]], large)
    one = np.concatenate([number["one"][fits], _numbers(merged["one"], names)])
    other = np.concatenate([number["other"][fits], _numbers(merged["other"], names)])
    first = _first(one, other, len(names))[: len(customers)]
    persons = pa.table([customers, customers.take(pa.array(first))], schema=PERSONS)
    sides = [first[_numbers(cut[name], names)] for name in ("customer_id", "other_id")]
    still = pa.array(sides[0] == sides[1], pa.bool_())
    contradicted = pc.unique(cut["customer_id"].filter(still))
    flags = [
        _flagged("shared", shared["key"], shared["customers"]),
        _flagged("large", names.take(pa.array(large)), pa.array(sizes[large])),
        _flagged("contradicted", contradicted, pa.repeat(2, len(contradicted))),
    ]
    return Identities(persons, pa.concat_tables(flags))


def _numbers(texts: pa.ChunkedArray, names: pa.Array) -> np.ndarray:
    return np.asarray(pc.index_in(texts, value_set=names).to_numpy(), np.int64)


def _first(one: np.ndarray, other: np.ndarray, many: int) -> np.ndarray:
    """For each of `many` the lowest number that pairs join it with."""
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(many, many))
    _, label = connected_components(graph, directed=False)
    _, lowest = np.unique(label, return_index=True)
    return np.asarray(lowest[label])


def _flagged(flag: str, keys: pa.Array, many: pa.Array) -> pa.Table:
    return pa.table([pa.repeat(flag, len(keys)), keys, many], schema=FLAGS)
