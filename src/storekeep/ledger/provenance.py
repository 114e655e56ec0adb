"""An explained decision as W3C PROV-O in JSON-LD: what followed from what, by whom, when.

Entities are till lines, evidence, proposal, verdict, answers and receipts; activities are the stages; agents
are the software, the rulebook and persons, who appear under a pseudonym. Hides the vocabulary. Says nothing
that `explain` does not say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from storekeep.decisions import Decided

_Node = dict[str, Any]
NAMESPACE = "urn:storekeep:"
_LINKS = (
    *("wasDerivedFrom", "used", "wasGeneratedBy", "wasAssociatedWith", "wasAttributedTo"),
    "hadMember",
)
_TIMES = ("startedAtTime", "endedAtTime", "generatedAtTime")
CONTEXT: Mapping[str, Any] = {
    "prov": "http://www.w3.org/ns/prov#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "sk": NAMESPACE,
    "label": "http://www.w3.org/2000/01/rdf-schema#label",
    **{name: {"@id": f"prov:{name}", "@type": "@id"} for name in _LINKS},
    **{name: {"@id": f"prov:{name}", "@type": "xsd:dateTime"} for name in _TIMES},
}
# Which activity an entry's step is, and what comes of it.
_STEPS: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("approved", "rejected", "denied", "expired"), ("Approve", "Answer")),
    **dict.fromkeys(("executed", "failed"), ("Execute", "Receipt")),
    **dict.fromkeys(("withdrawn", "reverting"), ("Revert", "Reversal")),
    **dict.fromkeys(("compensated", "needs_person"), ("Compensate", "Reversal")),
}


def provenance(explained: Mapping[str, Any]) -> dict[str, Any]:
    """What `explain` tells, as a PROV-O document; its context is in it, so nothing has to be fetched."""
    told = _Told(explained)
    graph = [*told.known(), *told.decided(), *told.became()]
    once = {json.dumps(node["@id"]): node for node in graph}
    return {"@context": dict(CONTEXT), "@graph": list(once.values())}


def pseudonym(tenant: str, principal: str) -> str:
    """What a person is called where names are not to be: the same person, the same word, in one tenant."""
    return hashlib.sha256(f"{tenant}\n{principal}".encode()).hexdigest()[:16]


class _Told:
    """One explained decision, and the names of all that it speaks of."""

    def __init__(self, explained: Mapping[str, Any]) -> None:
        self.all = explained
        self.run: Mapping[str, Any] = explained["run"]
        self.software = self._name("agent", self.run["agent"], self.run["agent_version"])
        self.rulebook = self._name("rulebook", self.run["rulebook"], self.run["rulebook_version"])
        self.evidence = self._name("evidence", explained["evidence_digest"])
        self.held = explained["verdict"] == Decided.HOLD

    def _name(self, *words: str) -> str:
        parts = [self.all["tenant"], *(quote(word, safe="") for word in words)]
        return NAMESPACE + ":".join(parts)

    def _part(self, name: str) -> str:
        return f"{self._name('decision', self.all['decision_id'])}:{name}"

    def known(self) -> list[_Node]:
        """What was known: till lines, the history they stand in, and the evidence taken from it."""
        lines = [self._line(row) for row in self.all["lines"]["newest"]]
        version = str(json.loads(self.run["versions"]["lake"])["sale_line"])
        history = self._name("history", "sale_line", version)
        ids = [line["@id"] for line in lines]
        snapshot = self._part("snapshot")
        return [
            *lines,
            _entity(history, "History", hadMember=ids, **{"sk:version": version}),
            _activity(snapshot, "Snapshot", self.run["known_by"], used=[history, *ids]),
            _entity(
                self.evidence,
                "Evidence",
                wasGeneratedBy=snapshot,
                wasDerivedFrom=[history, *ids],
                generatedAtTime=self.run["known_by"],
                **{"sk:digest": self.all["evidence_digest"]},
            ),
        ]

    def _line(self, row: Mapping[str, Any]) -> _Node:
        name = self._name("line", row["source_file"], str(row["source_line"]))
        told = {f"sk:{key}": row[key] for key in ("quantity_units", "value_minor", "currency")}
        return _entity(name, "TillLine", generatedAtTime=row["occurred_at"], **told)

    def decided(self) -> list[_Node]:
        """What the agent proposed of it, or why it held back, and what the rulebook said."""
        at, propose, judge = self.run["decided_at"], self._part("propose"), self._part("judge")
        proposal, verdict = self._part("proposal"), self._part("verdict")
        said = {
            "sk:verdict": self.all["verdict"],
            "sk:rule": [f"{each['effect']} {each['rule']}" for each in self.all["rules"]],
        }
        nodes = [
            _agent(self.software, "SoftwareAgent", self.run["agent"], self.run["agent_version"]),
            _activity(propose, "Propose", at, used=self.evidence, wasAssociatedWith=self.software),
            _entity(
                proposal,
                "Hold" if self.held else "Proposal",
                wasGeneratedBy=propose,
                wasDerivedFrom=self.evidence,
                wasAttributedTo=self.software,
                generatedAtTime=at,
                label=self.all["hold"] or f"{self.run['action']} for {self.all['subject']}",
            ),
        ]
        if self.held:
            return nodes
        return [
            *nodes,
            _agent(self.rulebook, "Agent", self.run["rulebook"], self.run["rulebook_version"]),
            _activity(
                judge,
                "Judge",
                at,
                used=[proposal, self.evidence],
                wasAssociatedWith=self.rulebook,
            ),
            _entity(
                verdict,
                "Verdict",
                wasGeneratedBy=judge,
                wasDerivedFrom=proposal,
                wasAttributedTo=self.rulebook,
                generatedAtTime=at,
                **said,
            ),
        ]

    def became(self) -> list[_Node]:
        """What came of it, entry by entry, each from the one before."""
        nodes: list[_Node] = []
        before = self._part("proposal" if self.held else "verdict")
        for number, entry in enumerate(self.all["history"][1:], 1):
            what, result = _STEPS.get(entry["step"], ("Step", "Outcome"))
            activity = self._part(f"{what.lower()}:{number}")
            entity = self._part(f"{result.lower()}:{number}")
            receipt = entry.get("receipt") or {}
            who = self._who(entry, receipt)
            told = {f"sk:{name}": receipt[name] for name in ("adapter", "reference") if receipt}
            nodes += who
            nodes += [
                _activity(
                    activity,
                    what,
                    entry["at"],
                    used=before,
                    wasAssociatedWith=[each["@id"] for each in who],
                ),
                _entity(
                    entity,
                    result,
                    wasGeneratedBy=activity,
                    wasDerivedFrom=before,
                    generatedAtTime=entry["at"],
                    **{"sk:step": entry["step"]},
                    **told,
                ),
            ]
            before = entity
        return nodes

    def _who(self, entry: Mapping[str, Any], receipt: Mapping[str, Any]) -> list[_Node]:
        """The person who said so, or the outside system that did it."""
        if entry.get("by") and entry["by"] != "nobody":
            name = pseudonym(self.all["tenant"], entry["by"])
            return [_agent(self._name("person", name), "Person", name)]
        if receipt:
            name = self._name("adapter", receipt["adapter"])
            return [_agent(name, "SoftwareAgent", receipt["adapter"])]
        return []


def _entity(name: str, kind: str, **told: Any) -> _Node:
    return _node(name, ["prov:Entity", f"sk:{kind}"], told)


def _activity(name: str, kind: str, at: str, **told: Any) -> _Node:
    return _node(
        name, ["prov:Activity", f"sk:{kind}"], {"startedAtTime": at, "endedAtTime": at, **told}
    )


def _agent(name: str, kind: str, label: str, version: str | None = None) -> _Node:
    kinds = ["prov:Agent"] if kind == "Agent" else ["prov:Agent", f"prov:{kind}"]
    return _node(name, kinds, {"label": label, "sk:version": version})


def _node(name: str, kinds: Sequence[str], told: Mapping[str, Any]) -> _Node:
    return {"@id": name, "@type": kinds, **{key: one for key, one in told.items() if one}}
