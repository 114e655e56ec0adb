-- Who may do what: the modes of agents, and what has been stopped. Both are also entries of the ledger.

-- What a location reported is looked for by itself.
CREATE INDEX event_log_subject ON event_log (tenant, subject, position);

CREATE TABLE agent_mode (
  tenant text NOT NULL,
  sequence bigint NOT NULL,
  agent text NOT NULL,
  agent_version text,
  groups text[] NOT NULL,
  mode text NOT NULL CHECK (mode IN ('off', 'shadow', 'canary', 'live')),
  set_at timestamptz NOT NULL,
  set_by text NOT NULL,
  approved_by text NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (tenant, sequence),
  CHECK (set_by <> approved_by)
);

-- One row while it holds: an agent, or all of a tenant's (the empty name).
CREATE TABLE halt (
  tenant text NOT NULL,
  agent text NOT NULL,
  since timestamptz NOT NULL,
  halted_by text NOT NULL,
  reason text NOT NULL,
  PRIMARY KEY (tenant, agent)
);

DO $wall$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['agent_mode', 'halt'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %I USING (tenant = current_setting(''storekeep.tenant'', true)) '
      'WITH CHECK (tenant = current_setting(''storekeep.tenant'', true))', name);
  END LOOP;
  GRANT SELECT, INSERT ON agent_mode TO storekeep_app;
  GRANT SELECT, INSERT, DELETE ON halt TO storekeep_app;
END
$wall$;
