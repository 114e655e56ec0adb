"""What each run read and wrote is noted beside what it wrote, so that it can be traced later.

A run is a batch of files read, a version of a table appended, features moved forward, an agent's run,
effects that came back. Hides what is noted of each. A note is one row, written in the transaction of what it
tells of: what did not commit was never noted, and what a note claims is there. Of what is appended to the
lake alone it is written right after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from storekeep import __version__, bus, features, ingest
from storekeep.decisions import decision_ids, stamp
from storekeep.events import EVENT_TABLES, Event
from storekeep.ledger import Batch
from storekeep.pipeline.measuring import Measuring
from storekeep.retail import REJECTED, Table
from storekeep.store import Traced, Transaction

COMPLETE, FAIL = "complete", "fail"
FEATURES = features.FEATURE_TABLE.name
_MOST_IDS = 100


@dataclass(frozen=True)
class Reading:
    """Batches of files that are read together: by which mapping, since when, and where the files lie.

    `job` is `ingest`, or `replay` for rows of quarantine.
    """

    job: str
    mapping: ingest.Mapping
    begun_at: datetime
    batches: Sequence[ingest.Loaded]
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the job, the same for all readings of a source."""
        return f"{self.job}/{self.mapping.feed}/{self.mapping.source}"

    def path(self, file: str) -> str | None:
        """Where a file, or the archive that it is in, lies."""
        return self.paths.get(file) or self.paths.get(file.partition("/")[0])


def paths_of(files: Sequence[Path]) -> dict[str, str]:
    """Where files lie, by the names that their rows know them by; not of those whose names are equal."""
    names = [path.name for path in files]
    return {path.name: str(path.absolute()) for path in files if names.count(path.name) == 1}


class Tracing(Measuring):
    """From runs to notes of them."""

    def _trace_read(
        self,
        tx: Transaction,
        reading: Reading,
        partition: int,
        told: Sequence[Event],
        places: Sequence[int | None],
    ) -> None:
        """Note that lines which were read are on the log now."""
        new = [place for place in places if place is not None]
        if not new:
            return
        files = [{**each, "path": reading.path(each["file"])} for each in _files(told)]
        self._note_run(
            tx,
            reading.name,
            f"log/{partition}/{new[0]}",
            reading.begun_at,
            {**_mapped(reading.mapping), "files": files, "read": _read(reading.batches)},
            output=EVENT_TABLES[told[0].type].name,
            partition=partition,
            first=new[0],
            last=new[-1],
            facts=sum(each.facts.num_rows for each in told),
        )

    def _trace_nothing_new(self, reading: Reading) -> None:
        """Note that files were read of which no line was new."""
        read = _read(reading.batches)
        if not read:
            return
        with self.store.transaction(self.tenant) as tx:
            seed = "/".join([reading.name, *(each["file"] for each in read)])
            said = {**_mapped(reading.mapping), "files": [], "read": read}
            self._note_run(tx, reading.name, seed, reading.begun_at, said)

    def _trace_failed(self, reading: Reading, error: Exception) -> None:
        """Note that a file could not be read, and why: nothing of it was taken in."""
        said = {
            **_mapped(reading.mapping),
            "files": [
                {"file": name, "path": path}
                for name, path in sorted(reading.paths.items())
                if name in str(error)
            ],
            "error": str(error),
        }
        with self.store.transaction(self.tenant) as tx:
            seed = f"{reading.name}/{error}"
            self._note_run(tx, reading.name, seed, reading.begun_at, said, state=FAIL)

    def _trace_rejected(self, tx: Transaction, rejected: pa.Table, kept: str, version: int) -> None:
        """Note that rows of one source were turned away into quarantine."""
        said = {
            "files": _grouped(rejected),
            "rejected": _counts(rejected, "rule"),
            "schema": _schema(REJECTED),
        }
        self._note_run(
            tx,
            f"quarantine/{rejected['source'][0].as_py()}",
            f"{kept}@{version}",
            self.now(),
            said,
            output=kept,
            version=version,
            facts=rejected.num_rows,
        )

    def _publish(
        self, tx: Transaction, job: str, told: Iterable[Event], begun_at: datetime | None = None
    ) -> None:
        """Put events on the bus, and note for each who told it; one that is there already is left out."""
        for each in told:
            place = bus.publish(tx, each)
            if place is not None:
                partition = bus.partition_of(self.tenant, each.subject)
                self._note_run(
                    tx,
                    job,
                    f"log/{partition}/{place}",
                    begun_at or self.now(),
                    _told(each),
                    output=EVENT_TABLES[each.type].name,
                    partition=partition,
                    first=place,
                    last=place,
                    facts=each.facts.num_rows,
                )

    def _trace_carried(
        self,
        tx: Transaction,
        partition: int,
        transport: str,
        told: Sequence[Event],
        places: Sequence[int | None],
    ) -> None:
        """Note which messages of a transport brought events onto the log.

        The position of each event is that of its message.
        """
        tables: dict[str, list[tuple[Event, int]]] = {}
        for each, place in zip(told, places, strict=True):
            if place is not None:
                tables.setdefault(EVENT_TABLES[each.type].name, []).append((each, place))
        for name, came in tables.items():
            events, new = [each for each, _ in came], [place for _, place in came]
            said = {
                "events": dict(Counter(each.type for each in events)),
                "schema": _schema(EVENT_TABLES[events[0].type]),
                "transport": transport,
                "messages": [_message(each, place) for each, place in came],
                "files": _files(events),
            }
            self._note_run(
                tx,
                f"receive/{transport.partition(' ')[0]}",
                f"log/{partition}/{new[0]}",
                self.now(),
                said,
                output=name,
                partition=partition,
                first=new[0],
                last=new[-1],
                facts=sum(each.facts.num_rows for each in events),
            )

    def _trace_kept(
        self, tx: Transaction, name: str, told: Sequence[Event], partition: int, version: int
    ) -> None:
        """Note that history has events of one table from a version on."""
        if not told:
            return
        types = dict(Counter(each.type for each in told))
        places = [each.position or 0 for each in told]
        self._note_run(
            tx,
            f"history/{name}",
            f"{name}@{version}/{partition}/{places[0]}",
            self.now(),
            {"events": types, "schema": _schema(EVENT_TABLES[told[0].type])},
            output=name,
            partition=partition,
            first=places[0],
            last=places[-1],
            version=version,
            facts=sum(each.facts.num_rows for each in told),
        )

    def _trace_features(self, location_id: str, moved: features.Moved, at: datetime) -> None:
        """Note from what features were moved forward."""
        run_id = self.features_run(location_id, at)
        if moved.version is None:
            # A crash may have come between the append and its note.
            with self.store.transaction(self.tenant) as tx:
                if tx.traced(run_id) is not None:
                    return
            moved = features.moved(self.lake, location_id, at)
        if moved.version is None:
            return
        said = {
            "features": f"sku_location:{features.VERSION}",
            "location_id": location_id,
            "known_by": stamp(at),
            "tables": dict(moved.read),
            "columns": {name: {"made_of": list(of)} for name, of in features.ORIGINS.items()},
            "schema": _schema(features.FEATURE_TABLE),
        }
        with self.store.transaction(self.tenant) as tx:
            tx.add_traced(
                Traced(
                    run_id,
                    "features/sku_location",
                    COMPLETE,
                    at,
                    self.now(),
                    {"code": __version__, **said},
                    output=FEATURES,
                    version=moved.version,
                    facts=moved.items,
                )
            )

    def features_run(self, location_id: str, known_by: datetime) -> str:
        """The id of the run that moved a location's features forward to a time."""
        return decision_ids(known_by, f"{self.tenant}/features", [location_id])[0]

    def _trace_decided(self, tx: Transaction, batch: Batch) -> None:
        """Note what an agent's run read and how much it decided; the run has the id of its ledger batch."""
        versions, wake = batch.evidence.versions, batch.wake
        found = None
        if "features_at" in versions:
            at = datetime.fromisoformat(versions["features_at"])
            found = tx.traced(self.features_run(batch.location_id, at))
        said = {
            "code": __version__,
            "agent": batch.proposed.agent,
            "agent_version": batch.proposed.version,
            "rulebook": batch.judgement.rulebook,
            "rulebook_version": batch.judgement.rulebook_version,
            "mode": wake.mode,
            "location_id": batch.location_id,
            "position": batch.evidence.position,
            "versions": dict(versions),
            "features_version": None if found is None else found.version,
            "decisions": batch.evidence.values.num_rows,
        }
        job = f"decide/{batch.proposed.agent}"
        tx.add_traced(Traced(batch.batch_id, job, COMPLETE, wake.since, batch.at, said))

    def _note_run(
        self,
        tx: Transaction,
        job: str,
        seed: str,
        begun_at: datetime,
        said: Mapping[str, Any],
        *,
        state: str = COMPLETE,
        **wrote: Any,
    ) -> None:
        """Note a run, once for each `seed` and time of its end."""
        at = self.now()
        run_id = decision_ids(at, f"{self.tenant}/lineage", [seed])[0]
        content = {"code": __version__, **said}
        tx.add_traced(Traced(run_id, job, state, begun_at, at, content, **wrote))


def _told(event: Event) -> dict[str, Any]:
    """What is noted of an event that was told: by which files, for which decisions, or by whom."""
    said: dict[str, Any] = {
        "events": {event.type: 1},
        "schema": _schema(EVENT_TABLES[event.type]),
    }
    if files := _files([event]):
        return {**said, "files": files}
    if "decision_id" in event.facts.column_names:
        ids = event.facts["decision_id"].unique().to_pylist()
        return {**said, "decided": len(ids), "decision_ids": ids[:_MOST_IDS]}
    return {**said, "source": event.source}


def _message(told: Event, place: int) -> dict[str, Any]:
    """What is noted of the message that brought an event to a place of the log."""
    return {
        "place": place,
        "position": told.position,
        "source": told.source,
        "subject": told.subject,
        "facts": told.facts.num_rows,
    }


@lru_cache(maxsize=64)
def _mapped(mapping: ingest.Mapping) -> Mapping[str, Any]:
    """What is noted of a mapping: its digest, and where each column comes from."""
    told = {name: _plain(asdict(one)) for name, one in ingest.origins(mapping).items()}
    return {
        "mapping": {"feed": mapping.feed, "source": mapping.source, "digest": mapping.digest},
        "columns": told,
        "filters": list(ingest.filters(mapping)),
        "masked": sorted(mapping.personal_columns),
        "references": sorted({one.table for one in mapping.references.values()}),
        "schema": _schema(mapping.target),
    }


def _plain(origin: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in origin.items() if value}


def _schema(table: Table) -> list[list[str]]:
    """The columns of a table and what each holds."""
    return [[column.name, column.kind] for column in table.columns]


def _read(batches: Sequence[ingest.Loaded]) -> list[dict[str, Any]]:
    """What became of the rows of each file, but for which of them were new."""
    return [
        {
            "file": each.file,
            "read": each.read,
            "rejected": each.reasons,
            "ignored": dict(each.ignored),
            "repaired": {rule: many for rule, many in each.repaired.items() if many},
        }
        for each in batches
    ]


def _files(told: Sequence[Event]) -> list[dict[str, Any]]:
    """Of which files the facts of events are, and between which of their lines."""
    if "source_file" not in told[0].facts.column_names:
        return []
    return _grouped(
        pa.concat_tables(each.facts.select(["source_file", "source_line"]) for each in told)
    )


def _grouped(rows: pa.Table) -> list[dict[str, Any]]:
    lines = ("source_line", "min"), ("source_line", "max"), ("source_line", "count")
    found = rows.group_by("source_file", use_threads=False).aggregate(list(lines))
    return [
        {
            "file": row["source_file"],
            "facts": row["source_line_count"],
            "first": row["source_line_min"],
            "last": row["source_line_max"],
        }
        for row in found.sort_by("source_file").to_pylist()
        if row["source_file"] is not None
    ]


def _counts(rows: pa.Table, name: str) -> dict[str, int]:
    found = rows.group_by(name, use_threads=False).aggregate([([], "count_all")])
    return {row[name]: row["count_all"] for row in found.sort_by(name).to_pylist()}
