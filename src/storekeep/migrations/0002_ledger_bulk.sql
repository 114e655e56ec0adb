-- Runs of a hundred thousand decisions: what an entry costs to store, less what brings nothing.

-- An entry is about two kilobytes, where PostgreSQL begins to compress; that took longer than to write it.
ALTER TABLE ledger_entry SET (toast_tuple_target = 8160);

-- A decision has few entries: their order need not be in the index by which they are found.
DROP INDEX ledger_entry_decision;
CREATE INDEX ledger_entry_decision ON ledger_entry (tenant, decision_id) WHERE decision_id IS NOT NULL;

-- All nodes of a batch's Merkle tree, 32 bytes each, level by level from the leaves, so that the few of one proof
-- are read where they stand. What they are follows from the leaves; of batches sealed before this they are missing.
ALTER TABLE ledger_batch ADD COLUMN nodes bytea;
ALTER TABLE ledger_batch ALTER COLUMN nodes SET STORAGE EXTERNAL;
