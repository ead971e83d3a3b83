-- When what a row says was first stored, where that was in an earlier version: another category or importance makes a
-- new version of a memory, and not a new memory. NULL where it was first stored with this row.
ALTER TABLE segments ADD COLUMN heard_at INTEGER;
