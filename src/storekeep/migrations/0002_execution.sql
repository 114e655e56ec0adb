-- Execution: until when an action may be carried out, whether somebody may have sent it, when it was given up;
-- and the circuit breakers, which all workers of a tenant share.

ALTER TABLE pending_action
  ADD COLUMN expires_at timestamptz,
  ADD COLUMN begun boolean NOT NULL DEFAULT false,
  ADD COLUMN dead_since timestamptz;
UPDATE pending_action SET begun = attempts > 0;

CREATE TABLE breaker (
  tenant text NOT NULL,
  name text NOT NULL,
  state text NOT NULL CHECK (state IN ('closed', 'open', 'half_open')),
  since timestamptz NOT NULL,
  why text NOT NULL,
  failed_at timestamptz[] NOT NULL,
  try_at timestamptz,
  PRIMARY KEY (tenant, name)
);
ALTER TABLE breaker ENABLE ROW LEVEL SECURITY;
ALTER TABLE breaker FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON breaker USING (tenant = current_setting('storekeep.tenant', true))
  WITH CHECK (tenant = current_setting('storekeep.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON breaker TO storekeep_app;
