"""Files of a feed become facts and quarantine, and how each feed stands can be told as of any time.

Hides how files are put together into batches, and how a line or a rejected row that was read before is
known again. What is made of a day's lines does not depend on the order in which files are read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storekeep import bus, ingest
from storekeep.ahead import ahead
from storekeep.errors import Misused, Refused, StorekeepError
from storekeep.events import FED, HEADQUARTERS, Event, Fed, event
from storekeep.ingest.contracts import STATES, Contract
from storekeep.lake import FACTS, FEED_STATES, PRODUCTS, SALE_LINES, newest
from storekeep.pipeline import restating
from storekeep.pipeline.agreeing import Agreeing
from storekeep.pipeline.quarantine import ASIDE, KEPT_ASIDE, LEFT_OUT, TAKEN_IN, known_from
from storekeep.pipeline.tracing import Reading, paths_of
from storekeep.retail import PRODUCT, SALE_LINE
from storekeep.store import OURSELVES, Transaction
from storekeep.watch import stage

POS = "pos"
_RESTATED = "restated"
MAPPING = "mapping"
"""What the mappings by which sources are read are registered as."""


@dataclass
class FileRead:
    """What became of the lines of one file.

    Of the lines `read` each is `accepted`, one of the `duplicates` that were known before, `rejected` or
    `ignored`, the last two by rule. `repaired` counts accepted lines and duplicates that a rule mended;
    `unmapped` names columns that the mapping does not know.
    """

    file: str
    unmapped: Sequence[str] = ()
    read: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)


class Feeding(Agreeing):
    """From files to facts, stock and history, and from there to how a feed stands."""

    def read_feed(
        self,
        mapping: ingest.Mapping,
        files: Sequence[Path],
        *,
        location_id: str | None = None,
        pseudonym_key: bytes | None = None,
        contract: Contract | None = None,
        step: Callable[[int], object] = lambda _: None,
        refuse: Callable[[Path, StorekeepError], object] | None = None,
    ) -> list[FileRead]:
        """Take the rows of files in, each once however often it is read; what became of each file.

        Rows that cannot be taken in go to quarantine. Stock moves and history is kept, and the feed is held
        against `contract`, or the one that it has. What has a location and does not say which happens at
        `location_id`; a sale, where that is left out, in its store. `step` is told of lines as they are dealt
        with. Raises `Misused` when no feed fills the mapping's table, and `Refused` for a file that cannot be
        read or is not as agreed: nothing of that file is taken in, the files before it are. Pseudonyms are
        made with the home's key where no other is handed over. With `refuse` that is told of such a file
        instead, and the others are read.
        """
        _fed(mapping)
        agreed = self.put_contract(mapping, contract)
        read = partial(
            ingest.load,
            mapping,
            known_at=self.now(),
            references=self._references(mapping),
            location_id=location_id,
            pseudonym_key=pseudonym_key or self._key_for(mapping),
            keys=self._person_keys,
            batch_rows=bus.MAX_FACTS,
        )
        reading = Reading("ingest", mapping, self.now(), (), paths_of(files))
        drifted: list[ingest.Drifted] = []

        def load(some: Sequence[Path]) -> Iterator[ingest.Loaded]:
            return self.held(agreed, read(some))

        def turn(file: Path, error: StorekeepError) -> None:
            self._trace_failed(reading, error)
            if isinstance(error, ingest.Drifted):
                drifted.append(error)
            if refuse is not None:
                refuse(file, error)

        loaded = load(files) if refuse is None else _passing_over(load, files, turn)
        together = _together(loaded)
        self._keep_mapping(mapping)
        told: list[FileRead] = []
        try:
            # Who is told of a file that cannot be read is told here, and not in another thread; and whoever
            # seals asks the store for keys, which is of one thread as well.
            here = refuse is not None or bool(mapping.sealed)
            for batches in together if here else ahead(together):
                self._read(replace(reading, begun_at=self.now(), batches=batches), told)
                self.look_by_time()
                step(sum(each.read for each in batches))
        except (Misused, Refused) as error:
            self._trace_failed(reading, error)
            self._conclude(agreed, told)
            if isinstance(error, ingest.Drifted):
                raise self.stop_feed(agreed, error) from None
            raise
        self._conclude(agreed, told)
        for each in drifted:
            self.stop_feed(agreed, each)
        return told

    def _conclude(self, contract: Contract, told: Sequence[FileRead]) -> None:
        """Of files that were taken in: stock, history, and how their feed stands by now."""
        self._count_in()
        if told:
            came = {name: each.file for each in told for name in each.unmapped}
            self.note_columns(contract, came)
            self.look(contract.source)

    def _keep_mapping(self, mapping: ingest.Mapping) -> None:
        """Keep by which mapping a source is read; a source is of one feed."""
        name = f"{mapping.source}.{mapping.table}"
        with self.store.transaction(self.tenant) as tx:
            known = tx.in_force(MAPPING)
            feed = _feeds_of(known).get(mapping.source, mapping.feed)
            if feed != mapping.feed:
                raise Refused(
                    f"source {mapping.source} is of feed {feed} here, and the mapping is of feed "
                    f"{mapping.feed}; give it a source of its own"
                )
            if known.get(name, ("", ""))[0] != mapping.digest:
                text = mapping.model_dump_json()
                self._put_in_force(tx, MAPPING, name, mapping.digest, text, OURSELVES)

    def _count_in(self) -> None:
        self.move_stock()
        self.keep_history()

    def replay_aside(
        self,
        mapping: ingest.Mapping,
        ids: Sequence[str] = (),
        *,
        by: str,
        location_id: str | None = None,
        pseudonym_key: bytes | None = None,
    ) -> list[FileRead]:
        """Take rows of the mapping's source in that are in quarantine (all, or those of `ids`), as corrected.

        They are judged as if their file came again, and keep its name and their lines; they are known from
        now on. What is taken in, or left out by a rule, leaves quarantine. What came of the rows of each
        file. Raises `Refused` when one of `ids` is not there.
        """
        _fed(mapping)
        rows = self.aside(mapping.source)
        if unknown := sorted(set(ids) - set(rows["id"].to_pylist())):
            raise Refused(
                f"no row {unknown[0]} of source {mapping.source} is in quarantine; nothing was replayed"
            )
        if ids:
            rows = rows.filter(pc.is_in(rows["id"], pa.array(ids)))
        place = rows.column_names.index("raw")
        rows = rows.set_column(place, "raw", pc.coalesce(rows["corrected"], rows["raw"]))
        parts = list(_parts(rows))
        loaded = ingest.load_again(
            mapping,
            parts,
            known_at=self.now(),
            references=self._references(mapping),
            location_id=location_id,
            pseudonym_key=pseudonym_key or self._key_for(mapping),
            keys=self._person_keys,
        )
        told: list[FileRead] = []
        waiting = iter(parts)
        for batches in _together(loaded):
            self._replay(mapping, batches, told)
            done = [step for each in batches for step in _steps(next(waiting), each)]
            with self._alone_aside():
                self._note_aside(done, by, None)
        self._count_in()
        self.look(mapping.source)
        return told

    def _replay(
        self, mapping: ingest.Mapping, batches: Sequence[ingest.Loaded], told: list[FileRead]
    ) -> None:
        """Take replayed rows in, lines of a basket apart from equal ones that their file brought before."""
        with stage("replay_aside", self.tenant, source=mapping.source) as watched:
            self.keep_history()
            rows = pa.concat_tables(each.rows for each in batches)
            self._keep_personal(mapping.table, batches)
            reading = Reading("replay", mapping, self.now(), batches)
            if mapping.restated is not None:
                # A row says which line it is: it is known again by that.
                fresh = self._restated(reading)
            elif mapping.target is SALE_LINE:
                fresh = self._taken(reading, self._numbered(mapping, rows))
            else:
                fresh = self._taken(reading, rows)
            watched.rows = fresh.total()
        _tell(batches, fresh, told)

    def _numbered(self, mapping: ingest.Mapping, rows: pa.Table) -> pa.Table:
        """Replayed lines with the keys that they would have had in their file.

        A document's equal lines are numbered, and a line that comes later has the next number. What stands
        in the same place of the same file is the same line.
        """
        same = ", ".join(dict.fromkeys((*_SAME, *mapping.document)))
        found = self.lake.query(
            _APART.format(same=same), tables={"sale": SALE_LINES}, inputs={"told": rows}
        )
        return found.select(list(SALE_LINE.names)).cast(SALE_LINE.arrow)

    def _references(self, mapping: ingest.Mapping) -> dict[str, pa.Table]:
        """The tables that a mapping looks into, as this home knows them by now."""
        found = {}
        for name, reference in mapping.references.items():
            if reference.table != PRODUCT.name or reference.on != "sku":
                raise Refused(f"mapping {mapping.source}: no home looks into {reference.table}")
            rows = self.lake.query(
                "SELECT * FROM product QUALIFY row_number() OVER (PARTITION BY sku ORDER BY"
                " coalesce(occurred_at, known_at) DESC, known_at DESC, position DESC, fact DESC) = 1",
                tables={"product": PRODUCTS},
            )
            if rows.num_rows == 0:
                raise Refused(
                    f"mapping {mapping.source} looks into the list of products, and this home has none"
                )
            found[name] = rows
        return found

    def _read(self, reading: Reading, told: list[FileRead]) -> None:
        batches = reading.batches
        with stage("read_feed", self.tenant, source=reading.mapping.source) as watched:
            self.keep_rejected(pa.concat_tables(each.rejected for each in batches))
            self._keep_personal(reading.mapping.table, batches)
            if reading.mapping.restated is not None:
                fresh = self._restated(reading)
            else:
                fresh = self._taken(reading, pa.concat_tables(each.rows for each in batches))
            watched.rows = fresh.total()
        _tell(batches, fresh, told)

    def _taken(self, reading: Reading, rows: pa.Table) -> Counter[str]:
        """Put the rows that are new on the bus; how many of each file."""
        fresh: Counter[str] = Counter()
        fed = _fed(reading.mapping)
        for partition, parts in sorted(_by_partition(self.tenant, fed, rows).items()):
            with self.store.transaction(self.tenant) as tx:
                # Nobody who asks for less than now has been told before of what comes now.
                tx.lock_partition(partition)
                news = self._told(tx, reading, partition, parts)
            fresh.update(_files(news))
            if news:
                # What became of the rows of files is told once.
                reading = replace(reading, batches=())
        self._trace_nothing_new(reading)
        return fresh

    def _told(
        self, tx: Transaction, reading: Reading, partition: int, parts: Sequence[_Part]
    ) -> list[Event]:
        """Put what is new of parts on the bus, known from now on."""
        now, source = self.now(), reading.mapping.source
        told = [
            event(part.type, source, part.subject, now, known_from(part.rows, now))
            for part in parts
        ]
        news = self._news(tx, partition, told)
        self._trace_read(tx, reading, partition, news, bus.append(tx, partition, news))
        return news

    def _restated(self, reading: Reading) -> Counter[str]:
        """Put on the bus what documents that are told again say anew; how many lines of each file did."""
        fresh: Counter[str] = Counter()
        mapping = reading.mapping
        rows = restating.told(mapping, reading.batches)
        fed = _fed(mapping)
        places: dict[int, list[str]] = {}
        for name in pc.unique(rows["location_id"]).to_pylist():
            places.setdefault(bus.partition_of(self.tenant, name), []).append(name)
        for partition, names in sorted(places.items()):
            mine = rows.filter(pc.is_in(rows["location_id"], pa.array(names)))
            with self.store.transaction(self.tenant) as tx:
                tx.lock_partition(partition)
                # The same document may be told from elsewhere at this moment.
                tx.position(_RESTATED, 0, lock=True)
                before = tx.restated(mapping.source, restating.documents(mine))
                came = restating.moves(self.lake, mapping, mine, before)
                # A line that is taken back and told anew is two facts.
                parts = [
                    part
                    for start in range(0, came.facts.num_rows, bus.MAX_FACTS)
                    for part in _by_partition(
                        self.tenant, fed, came.facts.slice(start, bus.MAX_FACTS)
                    )[partition]
                ]
                if self._told(tx, reading, partition, parts):
                    reading = replace(reading, batches=())
                tx.restate(mapping.source, came.state)
            fresh.update(came.fresh["source_file"].to_pylist())
        self._trace_nothing_new(reading)
        return fresh

    # How feeds stand ------------------------------------------------------------------------------------

    def feeds(self, known_by: datetime | None = None) -> list[dict[str, Any]]:
        """How each feed stands, by source, as it was known by a time (now when left out).

        Of every feed lines, and the first and last time at which something happened. Of one that brings sales
        also what they come to: of units and values `net` is all, and `gross` what was sold before anything
        was brought back; values are by currency. What was rejected counts as long as it is in quarantine.
        `reasons` says where and why a feed does not keep its contract, `new_columns` which columns came that
        nobody asked for.
        """
        self.keep_history()
        with self.store.transaction(self.tenant) as tx:
            told = pa.concat_tables(tx.told_by(FED[name].type) for name in _TOLD)
            kept = tx.in_force(MAPPING)
            drifts = tx.drifts()
        tables = {name: FACTS[name] for name in FED}

        def ask(sql: str) -> list[dict[str, Any]]:
            found = self.lake.query(
                sql,
                tables={**tables, "state": FEED_STATES, **KEPT_ASIDE},
                inputs={"told": told},
                parameters={"known_by": known_by or self.now()},
            )
            return list(found.to_pylist())

        sales = {row["source"]: row for row in ask(_LINES)}
        values: dict[str, dict[str, dict[str, int]]] = {}
        for row in ask(_VALUES):
            both = {"net": row["net"], "gross": row["gross"]}
            values.setdefault(row["source"], {})[row["currency"]] = both
        rejected: dict[str, dict[str, int]] = {}
        for row in ask(
            f"SELECT source, rule, count(*) AS rows FROM ({ASIDE}) GROUP BY ALL ORDER BY 2"
        ):
            rejected.setdefault(row["source"], {})[row["rule"]] = row["rows"]
        states = {row["feed"]: STATES[row["worst"]] for row in ask(_STANDING)}
        reasons: dict[str, list[dict[str, Any]]] = {}
        for row in ask(_REASONS):
            reasons.setdefault(row.pop("feed"), []).append(row)
        others = {row["source"]: row for row in ask(_OTHERS)}
        feeds = _feeds_of(kept)
        sells = {name.partition(".")[0] for name in kept if name.endswith(f".{SALE_LINE.name}")}
        found = []
        # What is published without a mapping is no feed's, apart from sales.
        for source in sorted({*sales, *rejected, *(others.keys() & feeds.keys())}):
            added = {
                row["column"] for row in drifts if row["source"] == source and not row["stops"]
            }
            one = {
                "feed": feeds.get(source, POS),
                "source": source,
                "state": states.get(source, STATES[0]),
                "reasons": reasons.get(source, []),
                "new_columns": sorted(added),
                "rejected": rejected.get(source, {}),
            }
            if source in sells or source in sales or source not in feeds:
                one |= _counted(sales.get(source)) | {"value_minor": values.get(source, {})}
            else:
                one |= _happened(others.get(source))
            found.append(one)
        return found


# Whose facts do not say which feed brought them: the log does.
_TOLD = tuple(name for name, fed in FED.items() if "source" not in fed.table.names)
_SOLD = (
    "FROM sale_line JOIN told ON sale_line.location_id = told.subject"
    " AND sale_line.position = told.position"
    f" WHERE event_type = '{FED[SALE_LINE.name].type}' AND known_at <= $known_by GROUP BY ALL"
)
_LINES = (
    "SELECT source, count(*) AS lines, count(DISTINCT (store_id, basket_id)) AS orders,"
    " count(DISTINCT sku) AS distinct_skus, count(*) FILTER (customer_id IS NULL) AS without_customer,"
    " min(occurred_at) AS first, max(occurred_at) AS last, sum(quantity_units)::BIGINT AS net,"
    f" coalesce(sum(quantity_units) FILTER (quantity_units > 0), 0)::BIGINT AS gross {_SOLD}"
)
_VALUES = (
    "SELECT source, currency, sum(value_minor)::BIGINT AS net,"
    f" coalesce(sum(value_minor) FILTER (quantity_units > 0), 0)::BIGINT AS gross {_SOLD}"
    " ORDER BY currency"
)
_OTHERS = (
    "SELECT source, count(*) AS lines, min(occurred_at) AS first, max(occurred_at) AS last FROM ("
    + " UNION ALL ".join(
        f"SELECT source, occurred_at FROM ({newest(fed.table)}) AS fact"
        + (
            " JOIN told ON fact.location_id = told.subject AND fact.position = told.position"
            if fed.table.name in _TOLD
            else ""
        )
        for fed in FED.values()
        if fed.table is not SALE_LINE
    )
    + ") GROUP BY source"
)
_STANDING = (
    "WITH latest AS (SELECT feed, location_id, arg_max(state, (occurred_at, known_at)) AS state"
    " FROM state WHERE known_at <= $known_by GROUP BY ALL)"
    # How it comes, as `shop/webhooks`, has a state of its own.
    f" SELECT split_part(feed, '/', 1) AS feed, max(list_position({list(STATES)}, state)) - 1 AS worst"
    " FROM latest GROUP BY 1"
)
_REASONS = (
    "SELECT split_part(feed, '/', 1) AS feed, location_id, state, reason, occurred_at AS since FROM state"
    " WHERE known_at <= $known_by QUALIFY row_number() OVER"
    " (PARTITION BY state.feed, location_id ORDER BY occurred_at DESC, known_at DESC) = 1"
    f" AND state <> '{STATES[0]}' ORDER BY feed, location_id"
)


def _feeds_of(mappings: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The feed of each source, by the mappings that it was read by."""
    told = (json.loads(content) for _, content in mappings.values())
    return {each["source"]: each["feed"] for each in told}


def _happened(row: Mapping[str, Any] | None) -> dict[str, Any]:
    one = row or {}
    return {
        "lines": one.get("lines", 0),
        "first_occurred_at": one.get("first"),
        "last_occurred_at": one.get("last"),
    }


def _counted(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is told of a feed's sales; of a feed of which every row was turned away, that there are none."""
    one = row or {}
    return {
        **_happened(row),
        "orders": one.get("orders", 0),
        "distinct_skus": one.get("distinct_skus", 0),
        "lines_without_customer": one.get("without_customer", 0),
        "units": {"net": one.get("net", 0), "gross": one.get("gross", 0)},
    }


_SAME = ("source_file", "quantity_units", "value_minor", "occurred_at", "sku")
_APART = """
    WITH known AS (SELECT DISTINCT {same}, source_line FROM sale SEMI JOIN told USING (source_file)),
    grouped AS (SELECT *, list(line_key) OVER (PARTITION BY {same}) AS keys FROM told),
    based AS (
      SELECT * REPLACE (coalesce(
        list_filter(keys, key -> list_contains(keys, md5(concat(key, '|', 2))))[1], line_key) AS line_key)
      FROM grouped),
    before AS (SELECT {same}, count(*) AS many FROM known GROUP BY ALL),
    fresh AS (SELECT * FROM based ANTI JOIN known USING ({same}, source_line)),
    numbered AS (
      SELECT *, coalesce(many, 0) + row_number() OVER (PARTITION BY {same} ORDER BY source_line) AS number
      FROM fresh LEFT JOIN before USING ({same}))
    SELECT * EXCLUDE (keys, many, number)
      REPLACE (CASE WHEN number > 1 THEN md5(concat(line_key, '|', number)) ELSE line_key END AS line_key)
    FROM numbered
"""


def _fed(mapping: ingest.Mapping) -> Fed:
    """How the rows of the mapping's table become events."""
    tables = ingest.FEEDS.get(mapping.feed)
    if tables is None or mapping.table not in tables:
        fills = f"fills {' and '.join(tables)}" if tables else "is none"
        raise Misused(
            f"mapping {mapping.source} is of feed {mapping.feed} and table {mapping.table}; feed "
            f"{mapping.feed} {fills}, the feeds are {', '.join(ingest.FEEDS)}"
        )
    return FED[mapping.table]


def _passing_over(
    load: Callable[[Sequence[Path]], Iterator[ingest.Loaded]],
    files: Sequence[Path],
    refuse: Callable[[Path, StorekeepError], object],
) -> Iterator[ingest.Loaded]:
    """What files give, without those that cannot be read, which are told."""
    # What is wrong with the mapping is wrong with no file.
    yield from load([])
    for file in files:
        try:
            yield from load([file])
        except (Misused, Refused) as error:
            refuse(file, error)


def _tell(batches: Sequence[ingest.Loaded], fresh: Mapping[str, int], told: list[FileRead]) -> None:
    """Add up what became of batches, of which so many lines of each file were new."""
    for each in batches:
        if each.batch == 0:
            told.append(FileRead(each.file, each.unmapped))
        one = told[-1]
        one.read += each.read
        one.rejected.update(each.reasons)
        one.ignored.update(each.ignored)
        one.repaired.update({rule: many for rule, many in each.repaired.items() if many})
        new = fresh.get(each.file, 0)
        one.accepted += new
        one.duplicates += each.rows.num_rows - new


def _parts(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows of quarantine by file, no two of the same line and no more than an event holds together."""
    files = rows["source_file"].to_pylist()
    lines = rows["source_line"].to_pylist()
    parts: dict[tuple[str, int, int], list[int]] = {}
    comes: Counter[tuple[str, int]] = Counter()
    of_file: Counter[str] = Counter()
    for place, (file, line) in enumerate(zip(files, lines, strict=True)):
        key = (file, comes[file, line], of_file[file] // bus.MAX_FACTS)
        parts.setdefault(key, []).append(place)
        comes[file, line] += 1
        of_file[file] += 1
    for places in parts.values():
        yield rows.take(places)


def _steps(part: pa.Table, came: ingest.Loaded) -> Iterator[tuple[str, str, str]]:
    """What came of the rows of a part that are not to stay: id, step and what the row says."""
    taken, stay = (set(each["source_line"].to_pylist()) for each in (came.rows, came.rejected))
    for row in part.select(["id", "source_line", "raw"]).to_pylist():
        if row["source_line"] not in stay:
            step = TAKEN_IN if row["source_line"] in taken else LEFT_OUT
            yield row["id"], step, row["raw"]


def _together(loaded: Iterator[ingest.Loaded]) -> Iterator[list[ingest.Loaded]]:
    """Batches of files put together as far as they fit into one event; also those before a refused file.

    A file comes after an earlier one of the same name only in the next, so that they can be told apart.
    """
    waiting: list[ingest.Loaded] = []
    try:
        for each in loaded:
            many = sum(one.read for one in waiting) + each.read
            apart = each.batch > 0 or each.file not in {one.file for one in waiting}
            if waiting and (many > bus.MAX_FACTS or not apart):
                ready, waiting = waiting, []
                yield ready
            waiting.append(each)
    except StorekeepError:
        if waiting:
            yield waiting
        raise
    if waiting:
        yield waiting


@dataclass(frozen=True)
class _Part:
    """Rows that become one event."""

    type: str
    subject: str
    rows: pa.Table


def _by_partition(tenant: str, fed: Fed, rows: pa.Table) -> dict[int, list[_Part]]:
    """The rows of each event, in one order, by the partition they belong to.

    Of rows of the same key, which is something said anew, the later comes later.
    """
    found: dict[int, list[_Part]] = {}
    order = [each for each in (fed.subject, fed.apart, "occurred_at", *fed.table.key) if each]
    rows = rows.sort_by([(name, "ascending") for name in dict.fromkeys(order)])
    apart = rows[fed.apart].cast(pa.string()).combine_chunks() if fed.apart else None
    if fed.subject is None:
        subjects = pa.repeat(HEADQUARTERS, rows.num_rows)
    else:
        subjects = rows[fed.subject].combine_chunks()
    edges = subjects if apart is None else pc.binary_join_element_wise(apart, subjects, "/")
    start = 0
    for end in pc.run_end_encode(edges).run_ends.to_pylist():
        subject = subjects[start].as_py()
        type_ = fed.type if apart is None else fed.called.get(apart[start].as_py(), fed.type)
        part = _Part(type_, subject, rows.slice(start, end - start))
        found.setdefault(bus.partition_of(tenant, subject), []).append(part)
        start = end
    return found


def _files(events: Sequence[Event]) -> Counter[str]:
    """How many facts of events are of each file."""
    counted: Counter[str] = Counter()
    for each in events:
        for one in pc.value_counts(each.facts["source_file"]).to_pylist():
            counted[one["values"]] += one["counts"]
    return counted
