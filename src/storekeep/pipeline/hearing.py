"""What came over HTTP becomes facts, and a source that falls silent is told of.

Hides that a delivery is read as the file it could have been, that what it says is sealed, and forgotten as
soon as it is facts (it may tell of persons), and that a crash in between only means that it is read again.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from storekeep import ingest
from storekeep.config import PUSHED, WebShop
from storekeep.errors import Misused, Permanent, Refused, Transient
from storekeep.ingest.web_shops import ORDERS, TOLD
from storekeep.lake import FEED_STATES
from storekeep.pipeline.feeding import FileRead
from storekeep.pipeline.persons import Persons
from storekeep.retail import FEED_STATE, REJECTED
from storekeep.store import Arrival, End, Store
from storekeep.watch import stage

_AT_ONCE = 500
_BYTES_AT_ONCE = 64 << 20
# Longer than anybody sends a delivery anew.
_REMEMBERED = timedelta(days=30)
# What changed in the seconds around the last page may stand in the next.
_OVERLAP = timedelta(minutes=5)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_MALFORMED = "malformed"
# What a shop sends may keep its promises while it no longer sends it by itself.
_WAY = "webhooks"
_UNFIT = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME = 120


class Hearing(Persons):
    """From what was sent to facts."""

    def hear(
        self, beside: Store, tally: Counter[str], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Make facts of what came over HTTP; another process that is at it is left to it.

        `tally` counts deliveries that were `heard`, whatever came of them. What cannot be taken in stays,
        with the reason, and its rows in quarantine.
        """
        with beside.transaction(self.tenant) as held:
            if not held.slot("hear", 1):
                return
            while not stop():
                with self.store.transaction(self.tenant) as tx:
                    waiting = tx.arrivals(_AT_ONCE, _BYTES_AT_ONCE)
                if not waiting:
                    return
                with stage("hear", self.tenant) as watched:
                    watched.rows = len(waiting)
                    for (source, topic), some in _by_topic(self._opened(waiting)).items():
                        self._deal_with(source, topic, some)
                self._forget({each.source for each in waiting})
                tally["heard"] += len(waiting)

    def _opened(self, waiting: Sequence[Arrival]) -> list[Arrival]:
        """What waits, as it came; what another home sealed is put aside."""
        found = []
        for each in waiting:
            try:
                found.append(self._bodies.open(each))
            except Refused as error:
                self._refuse([each], str(error))
        return found

    def _forget(self, sources: set[str]) -> None:
        with self.store.transaction(self.tenant) as tx:
            for source in sorted(sources):
                tx.forget_arrivals(source, self.now() - _REMEMBERED)

    def _deal_with(self, source: str, topic: str, some: Sequence[Arrival]) -> None:
        """Deliveries of one topic of one source."""
        if source == PUSHED:
            for each in some:
                self._take(each.topic.partition("/")[2], None, [each])
            return
        shop = self.web_shops.get(source)
        if shop is None:
            self._refuse(some, f"the settings name no web shop {source} any more")
            return
        told = TOLD[shop.platform]
        if topic in told.left_out:
            self._end_arrivals(some, "left_out", told.left_out[topic])
        elif topic not in told.feeds:
            self._end_arrivals(some, "refused", f"nothing is taken in of topic {topic or '(none)'}")
        else:
            self._take(told.feeds[topic], shop, some)

    def _end_arrivals(self, some: Sequence[Arrival], state: End, reason: str | None) -> None:
        with self.store.transaction(self.tenant) as tx:
            tx.end_arrivals([(each, reason) for each in some], state)

    def _refuse(self, some: Sequence[Arrival], reason: str) -> None:
        """What may be taken in when something was mended: what it says is kept."""
        with self.store.transaction(self.tenant) as tx:
            tx.end_arrivals([(each, reason) for each in some], "refused", keep_body=True)

    def _take(self, told: str, shop: WebShop | None, some: Sequence[Arrival]) -> None:
        """Read deliveries as files of a mapping: of that of a shop's feed, or else of the one told."""
        try:
            if shop is None:
                mapping = ingest.mapping_of(self.home, told)
            else:
                mapping = self._mapping(some[0].source, shop, told)
                some = self._with_refunds(shop, told, self._of_json(some))
            if some:
                read = self._read_bodies(mapping, shop, self._of_items(mapping, some))
                self._account(some, read)
        except Refused as error:
            self._refuse(some, str(error))

    def _mapping(self, source: str, shop: WebShop, feed: str) -> ingest.Mapping:
        """By which mapping a shop's feed is read: one of its own, or the one that ships."""
        name = shop.mappings.get(feed, f"{shop.platform}_{feed}")
        return ingest.mapping_of(self.home, name).of_source(_source_of(source, feed))

    def _of_json(self, some: Sequence[Arrival]) -> list[Arrival]:
        """Those that are JSON; the others are put aside."""
        good, rows = [], []
        for each in some:
            try:
                ingest.parsed_json(each.body)
            except ValueError as error:
                reason = f"this is no JSON: {error}"
                rows.append(_no_row(each, reason, self.now()))
                self._refuse([each], reason)
            else:
                good.append(each)
        self.keep_rejected(pa.Table.from_pylist(rows, REJECTED.arrow))
        return good

    def _with_refunds(self, shop: WebShop, told: str, some: Sequence[Arrival]) -> Sequence[Arrival]:
        """WooCommerce's orders with what came back; those of which it does not say so now are put aside."""
        if (shop.platform, told) != ("woocommerce", ORDERS):
            return some
        good = []
        for each in some:
            try:
                good.append(replace(each, body=ingest.with_refunds(shop, each.body)))
            except (Transient, Permanent) as error:
                self._refuse([each], f"what came back cannot be asked for: {error}")
        return good

    def _of_items(self, mapping: ingest.Mapping, some: Sequence[Arrival]) -> Sequence[Arrival]:
        """Shopify's levels of stock name items by numbers that its products tell."""
        if mapping.format == "shopify_products":
            with self.store.transaction(self.tenant) as tx:
                for each in some:
                    tx.name_items(each.source, ingest.stock_items(each.body))
        if mapping.format != "shopify_stock":
            return some
        with self.store.transaction(self.tenant) as tx:
            skus = tx.named_items(some[0].source)
        return [replace(each, body=ingest.with_skus(each.body, skus)) for each in some]

    def _read_bodies(
        self, mapping: ingest.Mapping, shop: WebShop | None, some: Sequence[Arrival]
    ) -> list[FileRead]:
        key = ingest.pseudonym_key(self.home, self.tenant) if mapping.personal_columns else None
        with tempfile.TemporaryDirectory(prefix="storekeep-") as folder:
            paths = []
            for number, each in enumerate(some):
                path = Path(folder) / str(number) / _file_name(each)
                path.parent.mkdir()
                path.write_bytes(each.body)
                paths.append(path)
            place = None if shop is None else shop.location_id
            return self.read_feed(mapping, paths, location_id=place, pseudonym_key=key)

    def _account(self, some: Sequence[Arrival], told: Sequence[FileRead]) -> None:
        """What became facts is forgotten; what could not all be read is kept until it is dealt with."""
        if len(some) == 1:
            # One that was pushed may be an archive of several files.
            told = [FileRead("", rejected=sum((each.rejected for each in told), Counter[str]()))]
        both = list(zip(some, told, strict=True))
        self._end_arrivals(
            [each for each, read in both if _MALFORMED not in read.rejected], "taken", None
        )
        self._refuse(
            [each for each, read in both if _MALFORMED in read.rejected],
            "some of it could not be read; quarantine has the reason",
        )

    def hear_again(self, source: str) -> int:
        """Let what was refused of a source be read anew, when something was mended; how many deliveries."""
        with self.store.transaction(self.tenant) as tx:
            return tx.retry_arrivals(source)

    # What was missed ----------------------------------------------------------------------------------

    def backfill(
        self,
        source: str,
        since: datetime | None = None,
        step: Callable[[int], object] = lambda _: None,
    ) -> dict[str, FileRead]:
        """Ask a web shop for what happened, and take in what is new; what came of it, by feed.

        It begins where the last one ended, unless a time is given, and how far it has come is kept with each
        page. Raises `Misused` when the settings name no such shop or do not say how to ask it, `Transient`
        when it does not answer, and `Permanent` when it says no; what came before is taken in.
        """
        shop = self.web_shops.get(source)
        if shop is None:
            known = ", ".join(self.web_shops) or "none"
            raise Misused(f"the settings name no web shop {source}; there are: {known}")
        if shop.url is None:
            raise Misused(f"the settings give no url of web shop {source}: it cannot be asked")
        told: dict[str, FileRead] = {}
        for feed in ingest.parts(shop):
            begun, reader = self.now(), f"backfill/{source}/{feed}"
            for page in ingest.asked(shop, feed, since or self._asked_until(reader)):
                for read in self._take_page(source, shop, page):
                    _add_up(told.setdefault(page.feed, FileRead(page.feed)), read)
                    step(read.read)
                if page.until is not None:
                    self._ask_from(reader, page.until)
            self._ask_from(reader, begun)
        return told

    def _asked_until(self, reader: str) -> datetime:
        with self.store.transaction(self.tenant) as tx:
            position = tx.position(reader, 0)
        return datetime.fromtimestamp(position, UTC) - _OVERLAP if position else _EVER

    def _ask_from(self, reader: str, until: datetime) -> None:
        """Asked again, the shop tells what changed since then; it never goes back."""
        with self.store.transaction(self.tenant) as tx:
            if tx.position(reader, 0, lock=True) < int(until.timestamp()):
                tx.move_position(reader, 0, int(until.timestamp()))

    def _take_page(self, source: str, shop: WebShop, page: ingest.Page) -> list[FileRead]:
        mapping = self._mapping(source, shop, page.feed)
        until = f"{page.until:%Y%m%dT%H%M%SZ}" if page.until else f"{self.now():%Y%m%dT%H%M%SZ}"
        one = Arrival(source, until, f"backfill/{page.feed}", None, page.body)
        return self._read_bodies(mapping, shop, self._of_items(mapping, [one]))

    # Silence ------------------------------------------------------------------------------------------

    def note_silence(self) -> list[str]:
        """Tell of each source that has been silent for longer than it ever is, and when it is back.

        The sources that are silent.
        """
        watched = {name: shop for name, shop in self.web_shops.items() if shop.silent_after_seconds}
        for name, shop in sorted(watched.items()):
            with self.store.transaction(self.tenant) as tx:
                last = tx.last_arrival(name)
            if last is None:
                continue
            until = last + timedelta(seconds=shop.silent_after_seconds or 0)
            silent = self.now() > until
            if silent != self._was_silent(name):
                reason = f"nothing came since {last.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
                self._silent[name] = silent
                self._tell_state(
                    *(name, shop.location_id, "degraded" if silent else "ok"),
                    f"{reason}{self._ask_silent(name, shop)}" if silent else "it is heard again",
                    until if silent else last,
                )
        return sorted(name for name in watched if self._silent.get(name))

    def _ask_silent(self, source: str, shop: WebShop) -> str:
        """Ask a shop whose webhooks may have been switched off what happened; what came of that, in words."""
        if shop.url is None or shop.token_env is None:
            return ""
        try:
            told = self.backfill(source)
        except (Transient, Permanent, Refused) as error:
            return f"; and it cannot be asked: {error}"
        new = sum(read.accepted for read in told.values())
        return f"; asked for what happened, it told {new:,} lines that were new"

    def _was_silent(self, source: str) -> bool:
        if source not in self._silent:
            self.keep_history()
            found = self.lake.query(
                "SELECT state FROM state WHERE feed = $feed ORDER BY occurred_at DESC, known_at DESC"
                " LIMIT 1",
                tables={"state": FEED_STATES},
                parameters={"feed": f"{source}/{_WAY}"},
            )
            self._silent[source] = found["state"].to_pylist() == ["degraded"]
        return self._silent[source]

    def _tell_state(
        self, source: str, location_id: str, state: str, reason: str, at: datetime
    ) -> None:
        row = {
            "feed": f"{source}/{_WAY}",
            "location_id": location_id,
            "state": state,
            "reason": reason,
            "occurred_at": at,
            "known_at": self.now(),
        }
        facts = pa.Table.from_pylist([row], FEED_STATE.arrow)
        self.publish("FeedStateChanged", source, location_id, facts)


def _source_of(shop: str, feed: str) -> str:
    """A source is of one feed: a shop's orders have its own name, what else it tells one after it."""
    return shop if feed == ORDERS else f"{shop}_{feed}"


def _add_up(total: FileRead, read: FileRead) -> None:
    total.read += read.read
    total.accepted += read.accepted
    total.duplicates += read.duplicates
    for name in ("rejected", "ignored", "repaired"):
        getattr(total, name).update(getattr(read, name))


def _by_topic(some: Sequence[Arrival]) -> Mapping[tuple[str, str], list[Arrival]]:
    found: dict[tuple[str, str], list[Arrival]] = {}
    for each in some:
        found.setdefault((each.source, each.topic), []).append(each)
    return found


def _file_name(arrival: Arrival) -> str:
    """The name by which the rows of a delivery are known: what it is about, and its id."""
    return _UNFIT.sub("_", f"{arrival.topic}-{arrival.delivery_id}")[:_LONGEST_NAME]


def _no_row(arrival: Arrival, reason: str, at: datetime) -> Mapping[str, object]:
    return {
        "source": arrival.source,
        "source_file": _file_name(arrival),
        "source_line": 1,
        "column": None,
        "rule": _MALFORMED,
        "reason": reason,
        "raw": "withheld: the delivery is kept as it came",
        "known_at": at,
    }
