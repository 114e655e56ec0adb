-- How the files of a feed differ from what was agreed on them. One row while it holds: a column that nobody
-- asked for (it is let be), or one at fault for which files are refused (`stops`).

CREATE TABLE feed_drift (
  tenant text NOT NULL,
  source text NOT NULL,
  "table" text NOT NULL,
  "column" text NOT NULL,
  stops boolean NOT NULL,
  file text NOT NULL,
  since timestamptz NOT NULL,
  said text NOT NULL,
  PRIMARY KEY (tenant, source, "table", "column", stops)
);

DO $wall$
BEGIN
  ALTER TABLE feed_drift ENABLE ROW LEVEL SECURITY;
  ALTER TABLE feed_drift FORCE ROW LEVEL SECURITY;
  CREATE POLICY one_tenant ON feed_drift USING (tenant = current_setting('storekeep.tenant', true))
    WITH CHECK (tenant = current_setting('storekeep.tenant', true));
  GRANT SELECT, INSERT, DELETE ON feed_drift TO storekeep_app;
END
$wall$;
