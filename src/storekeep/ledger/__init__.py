"""The ledger: record what was decided and what became of it, explain it, prove it, hand it out."""

from storekeep.ledger.batch import Batch, Terms, Wake, record, wake_of
from storekeep.ledger.chain import (
    Entry,
    Problem,
    Signer,
    Verified,
    append,
    export,
    rows,
    signer,
    verify,
    verify_export,
)
from storekeep.ledger.explain import explain, header, steps, text
from storekeep.ledger.inclusion import proved, verify_proof, written
from storekeep.ledger.merkle import climb, leaf, proof, root
from storekeep.ledger.provenance import provenance
from storekeep.ledger.recall import Recorded, digest, folded, proposed, runs
from storekeep.ledger.reversal import Step, outcome, plan, receipt_of

__all__ = [
    "Batch",
    "Entry",
    "Problem",
    "Recorded",
    "Signer",
    "Step",
    "Terms",
    "Verified",
    "Wake",
    "append",
    "climb",
    "digest",
    "explain",
    "export",
    "folded",
    "header",
    "leaf",
    "outcome",
    "plan",
    "proof",
    "proposed",
    "proved",
    "provenance",
    "receipt_of",
    "record",
    "root",
    "rows",
    "runs",
    "signer",
    "steps",
    "text",
    "verify",
    "verify_export",
    "verify_proof",
    "wake_of",
    "written",
]
