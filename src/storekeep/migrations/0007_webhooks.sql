-- What web shops told by webhook and what others pushed, from its arrival until it is facts; and how the lines of
-- documents stand that are told again when they change.

-- `body` is there as long as it is needed: it may tell of persons. What is left of a delivery then is that it came.
CREATE TABLE webhook_delivery (
  tenant text NOT NULL,
  source text NOT NULL,
  delivery_id text NOT NULL,
  topic text NOT NULL,
  triggered_at timestamptz,
  received_at timestamptz NOT NULL DEFAULT now(),
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'taken', 'left_out', 'refused')),
  reason text,
  body bytea,
  PRIMARY KEY (tenant, source, delivery_id),
  CHECK (body IS NOT NULL OR state <> 'waiting')
);
-- It stays for seconds: not worth the time to compress it.
ALTER TABLE webhook_delivery ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX webhook_waiting ON webhook_delivery (tenant, received_at) WHERE state = 'waiting';
CREATE INDEX webhook_received ON webhook_delivery (tenant, source, received_at);
ALTER TABLE webhook_delivery ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_delivery FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON webhook_delivery USING (tenant = current_setting('storekeep.tenant', true))
  WITH CHECK (tenant = current_setting('storekeep.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_delivery TO storekeep_app;

-- How a line stands after all facts about it, and as of which telling; a reader's position, line by line.
CREATE TABLE restated_line (
  tenant text NOT NULL,
  source text NOT NULL,
  document text NOT NULL,
  line text NOT NULL,
  sku text NOT NULL,
  as_of timestamptz NOT NULL,
  occurred_at timestamptz NOT NULL,
  quantity_units bigint NOT NULL,
  value_minor bigint NOT NULL,
  PRIMARY KEY (tenant, source, document, line)
);
ALTER TABLE restated_line ENABLE ROW LEVEL SECURITY;
ALTER TABLE restated_line FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON restated_line USING (tenant = current_setting('storekeep.tenant', true))
  WITH CHECK (tenant = current_setting('storekeep.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON restated_line TO storekeep_app;

-- By which numbers a web shop names its items of stock, as its products told last.
CREATE TABLE shop_item (
  tenant text NOT NULL,
  source text NOT NULL,
  item_id text NOT NULL,
  sku text NOT NULL,
  PRIMARY KEY (tenant, source, item_id)
);
ALTER TABLE shop_item ENABLE ROW LEVEL SECURITY;
ALTER TABLE shop_item FORCE ROW LEVEL SECURITY;
CREATE POLICY one_tenant ON shop_item USING (tenant = current_setting('storekeep.tenant', true))
  WITH CHECK (tenant = current_setting('storekeep.tenant', true));
GRANT SELECT, INSERT, UPDATE, DELETE ON shop_item TO storekeep_app;
