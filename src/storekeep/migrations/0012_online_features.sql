-- Features as they are by now, for whoever serves them: the newest value of each subject.

-- A version of a feature set that has values; at most one of a set's is served.
CREATE TABLE feature_online (
  tenant text NOT NULL,
  set_name text NOT NULL,
  version text NOT NULL,
  online bigint NOT NULL,
  known_by timestamptz NOT NULL,
  served boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant, set_name, version)
);
CREATE UNIQUE INDEX feature_online_served ON feature_online (tenant, set_name) WHERE served;

-- The values of one subject, in the order of the set's features of that kind: whole numbers, days, moments and
-- truth values; numbers; texts.
CREATE TABLE feature_value (
  tenant text NOT NULL,
  online bigint NOT NULL,
  subject text NOT NULL,
  occurred_at timestamptz NOT NULL,
  integers bigint[] NOT NULL,
  numbers double precision[] NOT NULL,
  texts text[] NOT NULL,
  PRIMARY KEY (tenant, online, subject)
);

DO $wall$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['feature_online', 'feature_value'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %I USING (tenant = current_setting(''storekeep.tenant'', true)) '
      'WITH CHECK (tenant = current_setting(''storekeep.tenant'', true))', name);
    EXECUTE format('GRANT INSERT, SELECT, UPDATE ON %I TO storekeep_app', name);
  END LOOP;
END
$wall$;
