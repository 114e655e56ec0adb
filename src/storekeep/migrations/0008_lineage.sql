-- Lineage: what each run read and wrote, as it was at the run, and what others have been told of it.

-- A run that put facts of the table `output` on the event log says at which places of which partition; one that
-- wrote a table of the lake says which version, too. `content` is JSON, compressed with Zstandard.
CREATE TABLE lineage_run (
  tenant text NOT NULL,
  run_id uuid NOT NULL,
  job text NOT NULL,
  state text NOT NULL CHECK (state IN ('complete', 'fail')),
  begun_at timestamptz NOT NULL,
  ended_at timestamptz NOT NULL,
  output text,
  partition integer,
  first bigint,
  last bigint,
  version bigint,
  facts bigint NOT NULL,
  content bytea NOT NULL,
  PRIMARY KEY (tenant, run_id)
);
CREATE INDEX lineage_run_place ON lineage_run (tenant, output, partition, last) WHERE partition IS NOT NULL;
CREATE INDEX lineage_run_version ON lineage_run (tenant, output, version) WHERE version IS NOT NULL;
CREATE INDEX lineage_run_ended ON lineage_run (tenant, ended_at, run_id);

CREATE TABLE lineage_sent (
  tenant text NOT NULL,
  target text NOT NULL,
  run_id uuid NOT NULL,
  PRIMARY KEY (tenant, target, run_id)
);

DO $wall$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['lineage_run', 'lineage_sent'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %I USING (tenant = current_setting(''storekeep.tenant'', true)) '
      'WITH CHECK (tenant = current_setting(''storekeep.tenant'', true))', name);
    -- No right to change or remove what was recorded.
    EXECUTE format('GRANT INSERT, SELECT ON %I TO storekeep_app', name);
  END LOOP;
END
$wall$;
