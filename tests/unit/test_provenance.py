"""An explanation in PROV-O, read by somebody else's program, leads from a till line to what came of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from rdflib import RDF, XSD, Graph, Literal, Namespace, URIRef
from rdflib.term import Node

from storekeep import ledger
from storekeep.config import Settings
from storekeep.ledger.provenance import pseudonym
from tests.shop import BUYER, FIRST_DAY, Shop, of_tenant, opened_shop

PROV = Namespace("http://www.w3.org/ns/prov#")
SK = Namespace("urn:storekeep:")
VERDICTS = {"bread": "allow", "salt": "clip", "wine": "escalate", "lamp": "deny", "novelty": "hold"}


@pytest.fixture(scope="module")
def shop(home_settings: Settings) -> Iterator[Shop]:
    """A Monday whose northern orders are taken back, and a Tuesday."""
    with opened_shop(of_tenant(home_settings, "provenance")) as opened:
        opened.prepare()
        opened.play(FIRST_DAY)
        opened.revert("north", FIRST_DAY)
        opened.play(FIRST_DAY + timedelta(days=1))
        yield opened


def document(shop: Shop, sku: str) -> dict[str, object]:
    (decision_id,) = shop.ids(sku)
    with shop.pipeline.store.transaction(shop.pipeline.tenant) as tx:
        return ledger.provenance(ledger.explain(tx, shop.pipeline.lake, decision_id))


def graph(shop: Shop, sku: str) -> Graph:
    with warnings.catch_warnings():
        # rdflib's own reader uses what rdflib deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        return Graph().parse(data=json.dumps(document(shop, sku)), format="json-ld")


def only(found: Iterator[object]) -> URIRef:
    (one,) = found
    assert isinstance(one, URIRef)
    return one


def of_kind(read: Graph, kind: str) -> set[Node]:
    return set(read.subjects(RDF.type, SK[kind]))


@pytest.mark.parametrize("sku", VERDICTS)
def test_all_that_is_named_is_an_entity_an_activity_or_an_agent(sku: str, shop: Shop) -> None:
    read = graph(shop, sku)
    kinds = {PROV.Entity, PROV.Activity, PROV.Agent}
    for subject in set(read.subjects()):
        assert len(set(read.objects(subject, RDF.type)) & kinds) == 1, subject
        assert str(subject).startswith("urn:storekeep:")
    links = {
        PROV.wasDerivedFrom: (PROV.Entity, PROV.Entity),
        PROV.wasGeneratedBy: (PROV.Entity, PROV.Activity),
        PROV.used: (PROV.Activity, PROV.Entity),
        PROV.wasAssociatedWith: (PROV.Activity, PROV.Agent),
        PROV.wasAttributedTo: (PROV.Entity, PROV.Agent),
        PROV.hadMember: (PROV.Entity, PROV.Entity),
    }
    for link, (domain, range_) in links.items():
        assert (None, link, None) in read
        for subject, _, value in read.triples((None, link, None)):
            assert (subject, RDF.type, domain) in read
            assert (value, RDF.type, range_) in read, (link, value)


def test_the_chain_leads_from_a_till_line_to_the_receipt_and_the_reversal(shop: Shop) -> None:
    read = graph(shop, "bread")
    lines, receipts, reversals = (
        of_kind(read, kind) for kind in ("TillLine", "Receipt", "Reversal")
    )
    assert len(lines) == 5
    assert len(receipts) == 1
    assert len(reversals) == 2
    (receipt,) = receipts
    for line in lines:
        known = set(read.transitive_subjects(PROV.wasDerivedFrom, line))
        assert of_kind(read, "Evidence") < known
        assert of_kind(read, "Verdict") < known
        assert receipts < known
        assert reversals < known
    for reversal in reversals:
        assert receipt in set(read.transitive_objects(reversal, PROV.wasDerivedFrom))
    assert (receipt, SK.adapter, Literal("back_office")) in read
    # The shop's clock is put back for the last step, to when tasks are carried out.
    stages = ["Snapshot", "Propose", "Judge", "Execute", "Revert"]
    made = {kind: only(iter(of_kind(read, kind))) for kind in stages}
    assert (receipt, PROV.wasGeneratedBy, made["Execute"]) in read
    starts = [only_time(read, made[kind]) for kind in stages]
    assert starts == sorted(starts)


def only_time(read: Graph, activity: URIRef) -> datetime:
    (time,) = read.objects(activity, PROV.startedAtTime)
    assert isinstance(time, Literal)
    assert time.datatype == XSD.dateTime
    found: datetime = time.toPython()
    return found


def test_persons_are_agents_under_a_pseudonym(shop: Shop) -> None:
    read, told = graph(shop, "wine"), json.dumps(document(shop, "wine"))
    approve = only(iter(of_kind(read, "Approve")))
    buyer = only(read.objects(approve, PROV.wasAssociatedWith))
    assert (buyer, RDF.type, PROV.Person) in read
    assert str(buyer).endswith(pseudonym(shop.pipeline.tenant, BUYER))
    assert BUYER not in told
    judge = only(iter(of_kind(read, "Judge")))
    rulebook = only(read.objects(judge, PROV.wasAssociatedWith))
    assert str(rulebook).startswith(f"urn:storekeep:{shop.pipeline.tenant}:rulebook:replenish:")
    propose = only(iter(of_kind(read, "Propose")))
    agent = only(read.objects(propose, PROV.wasAssociatedWith))
    assert (agent, RDF.type, PROV.SoftwareAgent) in read
    assert list(read.objects(agent, SK.version))


@pytest.mark.parametrize("sku", VERDICTS)
def test_the_verdict_is_told_with_the_rules_that_spoke(sku: str, shop: Shop) -> None:
    read = graph(shop, sku)
    if VERDICTS[sku] == "hold":
        assert len(of_kind(read, "Hold")) == 1
        assert not of_kind(read, "Verdict")
        return
    verdict = only(iter(of_kind(read, "Verdict")))
    assert (verdict, SK.verdict, Literal(VERDICTS[sku])) in read
    assert list(read.objects(verdict, SK.rule))
