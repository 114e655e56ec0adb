-- Messages that a transport brought and that could not be read. The body is kept as it came.

CREATE TABLE dead_letter (
  tenant text NOT NULL,
  transport text NOT NULL,
  partition integer NOT NULL,
  position bigint NOT NULL,
  reason text NOT NULL,
  headers text NOT NULL,
  body bytea NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant, transport, partition, position)
);
ALTER TABLE dead_letter ENABLE ROW LEVEL SECURITY;
ALTER TABLE dead_letter FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON dead_letter USING (tenant = current_setting('storekeep.tenant', true))
  WITH CHECK (tenant = current_setting('storekeep.tenant', true));
GRANT SELECT, INSERT, DELETE ON dead_letter TO storekeep_app;
