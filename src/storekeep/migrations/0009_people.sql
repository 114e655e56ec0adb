-- What is personal, sealed under a key of each person. To delete the key is to erase the person: nothing else
-- opens what was sealed under it, wherever a copy of that stands.

-- Keys as they are wrapped by a key of the home.
CREATE TABLE person_key (
  tenant text NOT NULL,
  person text NOT NULL,
  wrapped bytea NOT NULL,
  made_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, person)
);

-- `reference` names the customer, ticket or message of which it was told; `digest` is that of the sealed text.
CREATE TABLE personal (
  tenant text NOT NULL,
  person text NOT NULL,
  of_table text NOT NULL,
  reference text NOT NULL,
  field text NOT NULL,
  sealed text NOT NULL,
  digest text NOT NULL,
  occurred_at timestamptz NOT NULL,
  known_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, of_table, reference, field, occurred_at, digest)
);
CREATE INDEX personal_person ON personal (tenant, person);
-- It is sealed, so it does not compress.
ALTER TABLE personal ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- Who was erased: what was told of them before is not kept again.
CREATE TABLE erasure (
  tenant text NOT NULL,
  person text NOT NULL,
  erased_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, person, erased_at)
);

DO $wall$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['person_key', 'personal', 'erasure'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %I USING (tenant = current_setting(''storekeep.tenant'', true)) '
      'WITH CHECK (tenant = current_setting(''storekeep.tenant'', true))', name);
  END LOOP;
  GRANT SELECT, INSERT, DELETE ON person_key, personal TO storekeep_app;
  GRANT SELECT, INSERT ON erasure TO storekeep_app;
END
$wall$;
