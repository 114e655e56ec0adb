-- Why a version was put in force, where Storekeep itself did it: the one before was taken back.
-- No new table: the column stands behind the row-level security of its table.

ALTER TABLE promotion ADD COLUMN reason text;
