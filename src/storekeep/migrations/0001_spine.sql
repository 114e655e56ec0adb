-- The spine: event log, consumer positions, stock positions, ledger, work still to be done, registry.
-- Every table holds one tenant's rows apart from another's by row-level security, forced on the owner too.

CREATE TABLE tenant (
  tenant text PRIMARY KEY CHECK (tenant ~ '^[a-z][a-z0-9_]{0,39}$'),
  purpose text NOT NULL CHECK (purpose IN ('live', 'demo')),
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE bus_head (
  tenant text NOT NULL,
  partition integer NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (tenant, partition)
);

CREATE TABLE event_log (
  tenant text NOT NULL,
  partition integer NOT NULL,
  position bigint NOT NULL,
  id text NOT NULL,
  type text NOT NULL,
  source text NOT NULL,
  subject text NOT NULL,
  time timestamptz NOT NULL,
  fact_count bigint NOT NULL,
  facts bytea NOT NULL,
  PRIMARY KEY (tenant, partition, position),
  UNIQUE (tenant, source, id)
);
ALTER TABLE event_log ALTER COLUMN facts SET STORAGE EXTERNAL;

CREATE TABLE consumer_position (
  tenant text NOT NULL,
  consumer text NOT NULL,
  partition integer NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (tenant, consumer, partition)
);

-- What moved before `counted_at` is in the count.
CREATE TABLE stock_position (
  tenant text NOT NULL,
  location_id text NOT NULL,
  sku text NOT NULL,
  on_hand_units bigint NOT NULL CHECK (on_hand_units >= 0),
  on_order_units bigint NOT NULL,
  committed_units bigint NOT NULL,
  unmet_units bigint NOT NULL CHECK (unmet_units >= 0),
  counted_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, location_id, sku)
);

-- Never holds a row: the shape of what stock is moved by.
CREATE TABLE stock_move (
  tenant text NOT NULL,
  place bigint NOT NULL,
  location_id text NOT NULL,
  sku text NOT NULL,
  on_hand_units bigint NOT NULL,
  on_order_units bigint NOT NULL,
  committed_units bigint NOT NULL
);
GRANT SELECT ON stock_move TO storekeep_app;

-- `nodes` are all nodes of the batch's Merkle tree, 32 bytes each, level by level from the leaves, so that the few
-- of one proof are read where they stand.
CREATE TABLE ledger_batch (
  tenant text NOT NULL,
  batch bigint NOT NULL,
  batch_id uuid NOT NULL,
  entry_count integer NOT NULL CHECK (entry_count > 0),
  root text NOT NULL,
  previous text NOT NULL,
  chain text NOT NULL,
  recorded_at timestamptz NOT NULL,
  signature text NOT NULL,
  nodes bytea NOT NULL,
  PRIMARY KEY (tenant, batch),
  UNIQUE (tenant, batch_id)
);
ALTER TABLE ledger_batch ALTER COLUMN nodes SET STORAGE EXTERNAL;

-- The entries of a batch from place `first` on, one a line, compressed with Zstandard.
CREATE TABLE ledger_page (
  tenant text NOT NULL,
  batch bigint NOT NULL,
  first integer NOT NULL,
  entry_count integer NOT NULL CHECK (entry_count > 0),
  content bytea NOT NULL,
  PRIMARY KEY (tenant, batch, first)
);
ALTER TABLE ledger_page ALTER COLUMN content SET STORAGE EXTERNAL;

-- Where the entries stand that were recorded of decisions after their runs. Where a run's entry of a decision
-- stands, the decision itself says.
CREATE TABLE ledger_step (
  tenant text NOT NULL,
  decision_id uuid NOT NULL,
  batch bigint NOT NULL,
  place integer NOT NULL,
  PRIMARY KEY (tenant, decision_id, batch, place)
);
CREATE INDEX ledger_step_batch ON ledger_step (tenant, batch);

-- What all decisions of a run share.
CREATE TABLE run (
  tenant text NOT NULL,
  batch bigint NOT NULL,
  decided_at timestamptz NOT NULL,
  agent text NOT NULL,
  agent_version text NOT NULL,
  rulebook_version text NOT NULL,
  action text NOT NULL,
  location_id text NOT NULL,
  PRIMARY KEY (tenant, batch)
);

CREATE TABLE decision (
  tenant text NOT NULL,
  decision_id uuid NOT NULL,
  batch bigint NOT NULL,
  place integer NOT NULL,
  subject text NOT NULL,
  order_group text,
  verdict text NOT NULL,
  money_minor bigint,
  currency text,
  status text NOT NULL,
  PRIMARY KEY (tenant, decision_id)
);
CREATE INDEX decision_batch ON decision (tenant, batch);

CREATE TABLE pending_action (
  tenant text NOT NULL,
  decision_id uuid NOT NULL,
  action text NOT NULL,
  task_group text NOT NULL,
  task text NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  not_before timestamptz NOT NULL DEFAULT now(),
  leased_until timestamptz,
  leased_by text,
  PRIMARY KEY (tenant, decision_id)
);
CREATE INDEX pending_action_due ON pending_action (tenant, not_before);

CREATE TABLE approval_request (
  tenant text NOT NULL,
  decision_id uuid NOT NULL,
  role text NOT NULL,
  requested_at timestamptz NOT NULL,
  deadline timestamptz NOT NULL,
  safe_default text NOT NULL,
  digest text NOT NULL,
  rulebook_version text NOT NULL,
  PRIMARY KEY (tenant, decision_id)
);

CREATE TABLE limit_use (
  tenant text NOT NULL,
  decision_id uuid NOT NULL,
  limit_id text NOT NULL,
  key text NOT NULL,
  amount bigint NOT NULL,
  used_on date NOT NULL
);
CREATE INDEX limit_use_recent ON limit_use (tenant, limit_id, used_on);
CREATE INDEX limit_use_decision ON limit_use (tenant, decision_id);

CREATE TABLE registry (
  tenant text NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  version text NOT NULL,
  content text NOT NULL,
  registered_at timestamptz NOT NULL,
  registered_by text NOT NULL,
  PRIMARY KEY (tenant, kind, name, version)
);

CREATE TABLE promotion (
  tenant text NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  sequence bigint NOT NULL,
  version text NOT NULL,
  promoted_at timestamptz NOT NULL,
  promoted_by text NOT NULL,
  PRIMARY KEY (tenant, kind, name, sequence)
);

DO $wall$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY ARRAY[
    'tenant', 'bus_head', 'event_log', 'consumer_position', 'stock_position', 'ledger_batch', 'ledger_page',
    'ledger_step', 'run', 'decision', 'pending_action', 'approval_request', 'limit_use', 'registry', 'promotion', 'stock_move'
  ] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
    EXECUTE format(
      'CREATE POLICY one_tenant ON %I USING (tenant = current_setting(''storekeep.tenant'', true)) '
      'WITH CHECK (tenant = current_setting(''storekeep.tenant'', true))', name);
  END LOOP;
  -- What has been recorded stays recorded: no right to change or remove it exists.
  FOREACH name IN ARRAY ARRAY['tenant', 'event_log', 'ledger_batch', 'ledger_page', 'ledger_step', 'registry',
    'promotion'
  ] LOOP
    EXECUTE format('GRANT SELECT, INSERT ON %I TO storekeep_app', name);
  END LOOP;
  FOREACH name IN ARRAY ARRAY[
    'bus_head', 'consumer_position', 'stock_position', 'run', 'decision', 'pending_action', 'approval_request',
    'limit_use'
  ] LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO storekeep_app', name);
  END LOOP;
END
$wall$;
