-- Runs of a hundred thousand decisions: what an entry costs to store, less what brings nothing.

-- An entry is about two kilobytes, where PostgreSQL begins to compress; that took longer than to write it.
ALTER TABLE ledger_entry SET (toast_tuple_target = 8160);

-- A decision's id is enough to find its entries; whose they are is seen to by the policy.
DROP INDEX ledger_entry_decision;
CREATE INDEX ledger_entry_decision ON ledger_entry (decision_id) WHERE decision_id IS NOT NULL;
