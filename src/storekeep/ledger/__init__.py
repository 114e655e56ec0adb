"""The ledger: record what was decided and what became of it, explain it, prove it, hand it out."""

from storekeep.ledger.batch import EXECUTE_WITHIN, Batch, Terms, record, task_rows
from storekeep.ledger.chain import (
    Entry,
    Problem,
    Signer,
    Verified,
    append,
    climb,
    export,
    leaf,
    proof,
    root,
    rows,
    signer,
    verify,
    verify_export,
)
from storekeep.ledger.explain import explain, header, steps, text
from storekeep.ledger.recall import digest, folded, proposed
from storekeep.ledger.reversal import Step, outcome, plan, receipt_of

__all__ = [
    "EXECUTE_WITHIN",
    "Batch",
    "Entry",
    "Problem",
    "Signer",
    "Step",
    "Terms",
    "Verified",
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
    "receipt_of",
    "record",
    "root",
    "rows",
    "signer",
    "steps",
    "task_rows",
    "text",
    "verify",
    "verify_export",
]
