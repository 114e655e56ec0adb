-- Approvals by several persons, of what a person changed; and what is proposed again after a revert.
-- No new table: these columns stand behind the row-level security of the tables they are added to.

ALTER TABLE approval_request
  ADD COLUMN persons integer NOT NULL DEFAULT 1 CHECK (persons BETWEEN 1 AND 3),
  ADD COLUMN agreed text[] NOT NULL DEFAULT '{}',
  ADD COLUMN proposed_by text NOT NULL DEFAULT 'agent',
  ADD COLUMN changed_by text;

ALTER TABLE decision ADD COLUMN reverses uuid;
CREATE INDEX decision_reverses ON decision (tenant, reverses) WHERE reverses IS NOT NULL;

-- Decisions with what their runs tell. It sees what its reader may see.
CREATE VIEW decided WITH (security_invoker = true) AS SELECT * FROM decision JOIN run USING (tenant, batch);
GRANT SELECT ON decided TO storekeep_app;
