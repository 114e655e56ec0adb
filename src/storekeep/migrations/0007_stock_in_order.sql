-- Stock is moved by all events that are read together, each in its place.
ALTER TABLE stock_move ADD COLUMN place bigint NOT NULL;
