"""Runs as OpenLineage events, for a catalogue that others look at: to an endpoint like Marquez's, or a file.

Hides the vocabulary of OpenLineage 2-0-2 and its facets, and which runs an endpoint has been told of already.
The events are written by the published schema; a test reads each of them back with the classes of
OpenLineage's own client, which take a third of a second to import.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from storekeep.decisions import stamp
from storekeep.errors import Misused, Permanent, Transient
from storekeep.pipeline.lineage import Lineage
from storekeep.pipeline.tracing import FAIL, FEATURES
from storekeep.pipeline.trying import wait_seconds
from storekeep.store import Traced

if TYPE_CHECKING:
    import httpx

ENDPOINT = "/api/v1/lineage"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS: Mapping[str, tuple[str, str]] = {
    "processing_engine": ("1-1-1", "ProcessingEngineRunFacet"),
    "errorMessage": ("1-0-1", "ErrorMessageRunFacet"),
    "jobType": ("2-0-4", "JobTypeJobFacet"),
    "sourceCodeLocation": ("1-1-0", "SourceCodeLocationJobFacet"),
    "schema": ("1-2-0", "SchemaDatasetFacet"),
    "version": ("1-0-1", "DatasetVersionDatasetFacet"),
    "columnLineage": ("1-2-0", "ColumnLineageDatasetFacet"),
    "dataQualityMetrics": ("1-0-1", "DataQualityMetricsDatasetFacet"),
    "outputStatistics": ("1-0-2", "OutputStatisticsOutputDatasetFacet"),
    "inputStatistics": ("1-0-0", "InputStatisticsInputDatasetFacet"),
}
_OWN = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
_DECISIONS = "decision"
_AT_ONCE = 100
_MOST_ATTEMPTS = 5
_TIMEOUT_SECONDS = 30
_AGAIN = frozenset({408, 425, 429})
_Json = dict[str, Any]


# Events -------------------------------------------------------------------------------------------------


def events(run: Traced, tenant: str) -> list[_Json]:
    """The two events of a run, that it began and how it ended; each tells all that is noted of it."""
    said = _Said(run, f"storekeep://{tenant}")
    return [said.event("START", run.begun_at), said.event(run.state.upper(), run.ended_at)]


@dataclass(frozen=True)
class _Said:
    """A run in the words of OpenLineage."""

    run: Traced
    namespace: str

    def event(self, type_: str, at: Any) -> _Json:
        return {
            "eventType": type_,
            "eventTime": stamp(at),
            "producer": self._producer(),
            "schemaURL": SCHEMA,
            "run": {"runId": self.run.run_id, "facets": self._run()},
            "job": {"namespace": self.namespace, "name": self.run.job, "facets": self._job()},
            "inputs": list(self._inputs()),
            "outputs": list(self._outputs()),
        }

    def _producer(self) -> str:
        return f"urn:storekeep:{self.run.content['code']}"

    def _facet(self, facet: str, **said: Any) -> dict[str, _Json]:
        version, of = _FACETS[facet]
        address = f"https://openlineage.io/spec/facets/{version}/{of}.json#/$defs/{of}"
        return {facet: {"_producer": self._producer(), "_schemaURL": address, **said}}

    def _run(self) -> _Json:
        content = self.run.content
        own = {
            name: content[name]
            for name in (
                "mapping",
                "read",
                "rejected",
                "mode",
                "decisions",
                "decided",
                "position",
                "events",
            )
            if name in content
        }
        facets = self._facet("processing_engine", version=content["code"], name="storekeep")
        if own:
            facets["storekeep"] = {"_producer": self._producer(), "_schemaURL": _OWN, **own}
        if self.run.state == FAIL:
            facets |= self._facet(
                "errorMessage", message=content["error"], programmingLanguage="PYTHON"
            )
        return facets

    def _job(self) -> _Json:
        kind = self.run.job.partition("/")[0].upper()
        facets = self._facet(
            "jobType", processingType="BATCH", integration="STOREKEEP", jobType=kind
        )
        if version := self._code():
            name = self.run.job
            facets |= self._facet(
                "sourceCodeLocation", type="digest", url=f"urn:storekeep:{name}", version=version
            )
        return facets

    def _code(self) -> str | None:
        """What says what the run does with its rows: the digest of a mapping, of features, of rules."""
        content = self.run.content
        if "mapping" in content:
            return str(content["mapping"]["digest"])
        version = content.get("features") or content.get("rulebook_version")
        return None if version is None else str(version)

    # Datasets -----------------------------------------------------------------------------------------

    def _inputs(self) -> Iterator[_Json]:
        content = self.run.content
        counts = {each["file"]: each for each in content.get("read", ())}
        taken = {each["file"]: each for each in content.get("files", ())}
        for name in sorted({*counts, *taken}):
            yield self._file(name, taken.get(name, {}), counts.get(name, {}))
        for name, version in sorted(self._tables().items()):
            if version >= 0:
                yield self._table(name, version)
        if self.run.version is not None and self.run.partition is not None:
            yield self._log(self.run.output or "")
        if "decided" in content:
            yield {"namespace": self.namespace, "name": _DECISIONS, "facets": {}}
        if "source" in content:
            yield {"namespace": self.namespace, "name": f"source.{content['source']}", "facets": {}}
        if "transport" in content:
            name = f"partition.{self.run.partition}"
            yield {"namespace": content["transport"], "name": name, "facets": {}}

    def _outputs(self) -> Iterator[_Json]:
        run = self.run
        if run.output is None:
            if run.job.startswith("decide/"):
                yield self._decisions()
            return
        made = (
            self._log(run.output) if run.version is None else self._table(run.output, run.version)
        )
        facets = made["facets"] | self._schema() | self._columns()
        counted = self._facet("outputStatistics", rowCount=run.facts)
        yield {**made, "facets": facets, "outputFacets": counted}

    def _file(self, name: str, taken: Mapping[str, Any], counts: Mapping[str, Any]) -> _Json:
        facets: _Json = {}
        if counts:
            facets = self._facet("dataQualityMetrics", rowCount=counts["read"], columnMetrics={})
        used = self._facet("inputStatistics", rowCount=taken.get("facts", 0))
        where = taken.get("path") or name
        return {"namespace": "file", "name": where, "facets": facets, "inputFacets": used}

    def _tables(self) -> Mapping[str, int]:
        """The tables of the lake that were read, and at which versions."""
        content = self.run.content
        read: dict[str, int] = content.get("tables", {})
        if "versions" not in content:
            return read
        read = json.loads(content["versions"].get("lake", "{}"))
        if content["features_version"] is not None:
            read[FEATURES] = content["features_version"]
        return read

    def _table(self, name: str, version: int) -> _Json:
        facets = self._facet("version", datasetVersion=str(version))
        return {"namespace": self.namespace, "name": name, "facets": facets}

    def _log(self, name: str) -> _Json:
        """The facts of a table on the event log; their places are its version."""
        run = self.run
        places = f"{run.partition}:{run.first}-{run.last}"
        facets = self._facet("version", datasetVersion=places)
        return {"namespace": self.namespace, "name": f"log.{name}", "facets": facets}

    def _decisions(self) -> _Json:
        facets = self._facet("version", datasetVersion=self.run.run_id)
        counted = self._facet("outputStatistics", rowCount=self.run.content["decisions"])
        return {
            "namespace": self.namespace,
            "name": _DECISIONS,
            "facets": facets,
            "outputFacets": counted,
        }

    def _schema(self) -> _Json:
        fields = [{"name": name, "type": kind} for name, kind in self.run.content.get("schema", ())]
        return self._facet("schema", fields=fields) if fields else {}

    # Columns ------------------------------------------------------------------------------------------

    def _columns(self) -> _Json:
        content, run = self.run.content, self.run
        if "columns" in content:
            files = [(one["namespace"], one["name"]) for one in self._inputs()]
            fields = {
                name: {"inputFields": list(self._made(files, origin))}
                for name, origin in content["columns"].items()
            }
            filters = [
                field
                for column in content.get("filters", ())
                for field in self._fields(files, column, "INDIRECT", "FILTER")
            ]
            return self._facet("columnLineage", fields=fields, dataset=filters)
        if run.version is not None and run.partition is not None:
            log = [(self.namespace, f"log.{run.output}")]
            fields = {
                name: {"inputFields": list(self._fields(log, name, "DIRECT", "IDENTITY"))}
                for name, _ in content["schema"]
            }
            return self._facet("columnLineage", fields=fields, dataset=[])
        return {}

    def _made(self, files: Iterable[tuple[str, str]], origin: Mapping[str, Any]) -> Iterator[_Json]:
        """The fields that a column comes from: those that its value is made of, and those that decide."""
        expression = origin.get("expression")
        for column in origin.get("made_of", ()):
            kind = "IDENTITY" if expression == column else "TRANSFORMATION"
            yield from self._fields(files, column, "DIRECT", kind, expression)
        for column in origin.get("decided_by", ()):
            yield from self._fields(files, column, "INDIRECT", "CONDITIONAL")

    def _fields(
        self,
        files: Iterable[tuple[str, str]],
        column: str,
        kind: str,
        subtype: str,
        expression: str | None = None,
    ) -> Iterator[_Json]:
        """A column in each of the files; one of a table of ours (`product.name`) there."""
        change: _Json = {"type": kind, "subtype": subtype}
        if expression is not None:
            change["description"] = expression
        change["masking"] = column in self.run.content.get("masked", ())
        table, dot, own = column.rpartition(".")
        places = [(self.namespace, table)] if dot and self._is_ours(table) else files
        for namespace, name in places:
            yield {
                "namespace": namespace,
                "name": name,
                "field": own if places is not files else column,
                "transformations": [change],
            }

    def _is_ours(self, table: str) -> bool:
        content = self.run.content
        return table in content.get("tables", ()) or table in content.get("references", ())


# Told to others -----------------------------------------------------------------------------------------


class Exporting(Lineage):
    """Runs told to others."""

    def write_lineage(self, path: Path) -> int:
        """Write the events of all runs to a file, one a line; how many runs there are."""
        many = 0
        waiting = path.with_name(path.name + ".part")
        try:
            with waiting.open("w", encoding="utf-8") as file:
                for run in chain.from_iterable(self._untold(None)):
                    file.writelines(json.dumps(each) + "\n" for each in events(run, self.tenant))
                    many += 1
            waiting.replace(path)
        except OSError as error:
            waiting.unlink(missing_ok=True)
            raise Misused(f"{path} cannot be written: {error.strerror}") from error
        return many

    def send_lineage(self, url: str, *, sleep: Callable[[float], object] = time.sleep) -> int:
        """Tell an endpoint such as Marquez's of the runs that it has not been told of; how many they were.

        It is told of a run again only where we were cut off before its answer was kept. Raises `Transient`
        when it cannot be reached or is busy after some attempts, `Permanent` when it refuses an event: what
        it took before stays told.
        """
        import httpx  # noqa: PLC0415  # only who sends something pays for it

        address, target = _address(url)
        runs = 0
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            for batch in self._untold(target):
                done: list[str] = []
                try:
                    for run in batch:
                        for each in events(run, self.tenant):
                            self._send(client, address, target, each, sleep)
                        done.append(run.run_id)
                finally:
                    with self.store.transaction(self.tenant) as tx:
                        tx.mark_sent(target, done)
                runs += len(done)
        return runs

    def _untold(self, target: str | None) -> Iterator[list[Traced]]:
        """The runs of which a target was not told, or all, some at a time."""
        after = None
        while True:
            with self.store.transaction(self.tenant) as tx:
                batch = tx.unsent(target, _AT_ONCE, after)
            if not batch:
                return
            yield batch
            after = batch[-1].run_id

    def _send(
        self,
        client: httpx.Client,
        address: str,
        target: str,
        event: Mapping[str, Any],
        sleep: Callable[[float], object],
    ) -> None:
        """Send an event, again after a wait where it may work then."""
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            try:
                return _post(client, address, target, event)
            except Transient as error:
                if attempt == _MOST_ATTEMPTS:
                    raise
                sleep(wait_seconds(attempt, self.draw(), error))
        return None


def _post(client: httpx.Client, address: str, target: str, event: Mapping[str, Any]) -> None:
    import httpx  # noqa: PLC0415  # only who sends something pays for it

    try:
        answer = client.post(address, json=event)
    except httpx.TransportError as error:
        raise Transient(
            f"{target} cannot be reached: {error}; see that it runs, then export again"
        ) from error
    status, run_id = answer.status_code, event["run"]["runId"]
    if status in _AGAIN or status >= 500:
        raise Transient(f"{target} answers {status} to run {run_id}; export again when it is well")
    if not answer.is_success:
        words = " ".join(answer.text[:200].split()) or "nothing more"
        raise Permanent(
            f"{target} answers {status} to run {run_id}: {words}; is it an OpenLineage endpoint?"
        )


def _address(url: str) -> tuple[str, str]:
    """Where events are sent to, and the name that it is remembered by, which holds no password."""
    wrong = Misused(f"{url} is no address; write http://HOST:PORT, or the name of a file")
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:
        raise wrong from None
    path = parts.path.rstrip("/")
    path = path if path.endswith(ENDPOINT) else path + ENDPOINT
    host = parts.netloc.rpartition("@")[2]
    return (
        urlunsplit(parts._replace(path=path, fragment="")),
        urlunsplit((parts.scheme, host, path, "", "")),
    )
