"""What was sent and is not dealt with yet, and how lines stand that are told again when they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa
from psycopg import sql

from storekeep.store.waiting import Waiting

RESTATED = pa.schema(
    [
        ("document", pa.string()),
        ("line", pa.string()),
        ("sku", pa.string()),
        ("as_of", pa.timestamp("us", "UTC")),
        ("occurred_at", pa.timestamp("us", "UTC")),
        ("quantity_units", pa.int64()),
        ("value_minor", pa.int64()),
    ]
)
End = Literal["taken", "left_out", "refused"]


@dataclass(frozen=True)
class Arrival:
    """What was told once, as it came: who told it, the id of this telling, about what, and its bytes."""

    source: str
    delivery_id: str
    topic: str
    triggered_at: datetime | None
    body: bytes


class Arriving(Waiting):
    """From what arrived to what is known."""

    def add_arrival(self, arrival: Arrival) -> bool:
        """Keep what arrived, its body sealed; whether it was not there yet."""
        rows = self._run(
            "INSERT INTO webhook_delivery (tenant, source, delivery_id, topic, triggered_at, body)"
            " VALUES (%s, %s, %s, %s, %s, %b) ON CONFLICT DO NOTHING RETURNING 1",
            (
                *(self.tenant, arrival.source, arrival.delivery_id, arrival.topic),
                *(arrival.triggered_at, arrival.body),
            ),
        )
        return bool(rows)

    def arrivals(self, limit: int, most_bytes: int) -> list[Arrival]:
        """What waits to become facts, the oldest first: one, and more up to so many bytes in all."""
        rows = self._run(
            "SELECT source, delivery_id, topic, triggered_at, body FROM"
            " (SELECT *, sum(octet_length(body)) OVER next AS total, row_number() OVER next AS number"
            "  FROM (SELECT * FROM webhook_delivery WHERE tenant = %s AND state = 'waiting'"
            "   ORDER BY received_at, source, delivery_id LIMIT %s) AS first"
            "  WINDOW next AS (ORDER BY received_at, source, delivery_id)) AS waiting"
            " WHERE number = 1 OR total <= %s ORDER BY received_at, source, delivery_id",
            (self.tenant, limit, most_bytes),
        )
        return [Arrival(**row) for row in rows]

    def end_arrivals(
        self, ended: Sequence[tuple[Arrival, str | None]], state: End, *, keep_body: bool = False
    ) -> None:
        """These are dealt with, each for a reason or none; what they said goes, unless it is still needed."""
        self._run(
            "UPDATE webhook_delivery AS d SET state = %s, reason = told.reason,"
            " body = CASE WHEN %s THEN d.body END"
            " FROM unnest(%s::text[], %s::text[], %s::text[]) AS told (source, delivery_id, reason)"
            " WHERE d.tenant = %s AND d.source = told.source AND d.delivery_id = told.delivery_id"
            " AND d.state = 'waiting'",
            (
                *(state, keep_body, [one.source for one, _ in ended]),
                *([one.delivery_id for one, _ in ended], [reason for _, reason in ended]),
                self.tenant,
            ),
        )

    def retry_arrivals(self, source: str) -> int:
        """Let what was refused of a source be tried anew, where what it said is still there; how many."""
        rows = self._run(
            "UPDATE webhook_delivery SET state = 'waiting', reason = NULL WHERE tenant = %s"
            " AND source = %s AND state = 'refused' AND body IS NOT NULL RETURNING 1",
            (self.tenant, source),
        )
        return len(rows)

    def forget_arrivals(self, source: str, before: datetime) -> int:
        """Forget that things of a source came before a time, if nothing of them is left; how many."""
        rows = self._run(
            "DELETE FROM webhook_delivery WHERE tenant = %s AND source = %s AND received_at < %s"
            " AND body IS NULL RETURNING 1",
            (self.tenant, source, before),
        )
        return len(rows)

    def count_arrivals(self) -> int:
        """How much came and is still known to have come."""
        rows = self._run(
            "SELECT count(*) AS many FROM webhook_delivery WHERE tenant = %s", (self.tenant,)
        )
        return int(rows[0]["many"])

    def last_arrival(self, source: str) -> datetime | None:
        """When a source was last heard of."""
        rows = self._run(
            "SELECT max(received_at) AS at FROM webhook_delivery WHERE tenant = %s AND source = %s",
            (self.tenant, source),
        )
        found: datetime | None = rows[0]["at"]
        return found

    def name_items(self, source: str, skus: Mapping[str, str]) -> None:
        """A web shop calls these SKUs by these numbers from now on."""
        self._run(
            "INSERT INTO shop_item SELECT %s, %s, * FROM unnest(%s::text[], %s::text[])"
            " ON CONFLICT (tenant, source, item_id) DO UPDATE SET sku = excluded.sku",
            (self.tenant, source, list(skus), list(skus.values())),
        )

    def named_items(self, source: str) -> dict[str, str]:
        """The SKUs of a web shop by the numbers that it calls them by."""
        rows = self._run(
            "SELECT item_id, sku FROM shop_item WHERE tenant = %s AND source = %s",
            (self.tenant, source),
        )
        return {row["item_id"]: row["sku"] for row in rows}

    def restated(self, source: str, documents: Sequence[str]) -> pa.Table:
        """How the lines of some documents of a source stand (`RESTATED`)."""
        return self._copy_out(
            "SELECT document, line, sku, as_of, occurred_at, quantity_units, value_minor"
            " FROM restated_line WHERE tenant = %s AND source = %s AND document = ANY(%s)",
            (self.tenant, source, list(documents)),
            RESTATED,
        )

    def restate(self, source: str, rows: pa.Table) -> None:
        """Lines stand like this from now on (`RESTATED`, each line once)."""
        if rows.num_rows == 0:
            return
        named = rows.add_column(0, "source", pa.repeat(source, rows.num_rows))
        columns = self._copy_temporary(
            "incoming_restated_line", sql.Identifier("restated_line"), named
        )
        self._cursor.execute(
            sql.SQL(
                "INSERT INTO restated_line ({}) SELECT {} FROM pg_temp.incoming_restated_line"
                " ON CONFLICT (tenant, source, document, line) DO UPDATE SET sku = excluded.sku,"
                " as_of = excluded.as_of, occurred_at = excluded.occurred_at,"
                " quantity_units = excluded.quantity_units, value_minor = excluded.value_minor"
            ).format(columns, columns)
        )
