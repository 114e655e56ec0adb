"""The ledger: record what was decided and what became of it, explain it, prove it, hand it out."""

from storekeep.ledger.batch import (
    EXECUTE_WITHIN,
    Again,
    Batch,
    Terms,
    Wake,
    record,
    use_rows,
    wake_of,
)
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
from storekeep.ledger.explain import changes, explain, header, money_of, standing, steps, text
from storekeep.ledger.inclusion import proved, verify_proof, written
from storekeep.ledger.merkle import climb, leaf, proof, root
from storekeep.ledger.provenance import provenance
from storekeep.ledger.recall import Recorded, asked_digest, digest, folded, proposed, runs
from storekeep.ledger.reversal import Step, outcome, plan, plan_again, receipt_of

__all__ = [
    "EXECUTE_WITHIN",
    "Again",
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
    "asked_digest",
    "changes",
    "climb",
    "digest",
    "explain",
    "export",
    "folded",
    "header",
    "leaf",
    "money_of",
    "outcome",
    "plan",
    "plan_again",
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
    "standing",
    "steps",
    "text",
    "use_rows",
    "verify",
    "verify_export",
    "verify_proof",
    "wake_of",
    "written",
]
