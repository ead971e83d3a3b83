-- Truth over time: what a segment is, when it holds, what became of it, and a log of every change that cannot be changed
-- unnoticed.

ALTER TABLE segments ADD COLUMN kind TEXT NOT NULL DEFAULT 'episodic';
ALTER TABLE segments ADD COLUMN state TEXT;          -- NULL: active; 'quarantined', 'merged'
ALTER TABLE segments ADD COLUMN valid_from INTEGER;  -- NULL: since ever
ALTER TABLE segments ADD COLUMN valid_to INTEGER;    -- NULL: still
ALTER TABLE segments ADD COLUMN expires_at INTEGER;  -- NULL: never

-- What a search passes over: few rows, found without reading the others.
CREATE INDEX segments_state ON segments (namespace, state) WHERE state IS NOT NULL;
CREATE INDEX segments_valid_from ON segments (namespace, valid_from) WHERE valid_from IS NOT NULL;
CREATE INDEX segments_valid_to ON segments (namespace, valid_to) WHERE valid_to IS NOT NULL;
CREATE INDEX segments_expiring ON segments (namespace, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX segments_kind ON segments (namespace, kind) WHERE kind <> 'episodic';
CREATE INDEX segments_derived ON segments (namespace) WHERE source = 'derived';

-- One row for each transaction that changed what the memory says. `hash` is of the row before it and of all else in this
-- one; `digest` of its rows in `changes`. Nothing in it says what a segment says.
CREATE TABLE log (
    entry     INTEGER PRIMARY KEY AUTOINCREMENT,
    operation BLOB NOT NULL,                -- one call may take several transactions
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    verb      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    actor     TEXT,
    undoes    BLOB,                         -- the operation that this one takes back
    detail    TEXT,                         -- JSON: what the verb needs to be undone
    segments  INTEGER NOT NULL,             -- how many it changed
    digest    BLOB NOT NULL,
    hash      BLOB NOT NULL
);
CREATE INDEX log_operation ON log (operation);
CREATE INDEX log_namespace ON log (namespace, entry);
CREATE INDEX log_undoes ON log (undoes) WHERE undoes IS NOT NULL;

-- Versions of segments before and after an entry, NULL where there was none or is none any more; or a link from `id` to
-- `other`, as JSON: its kind, its weight before and after. `leaf` is a hash of `salt` and the row's checksum, or the
-- link; without the salt, which goes with what is erased, it tells nothing.
CREATE TABLE changes (
    entry     INTEGER NOT NULL REFERENCES log (entry),
    ordinal   INTEGER NOT NULL,
    namespace INTEGER NOT NULL,
    id        BLOB NOT NULL,
    before    INTEGER,
    after     INTEGER,
    leaf      BLOB,
    salt      BLOB,
    other     BLOB,
    link      TEXT,
    PRIMARY KEY (entry, ordinal)
) WITHOUT ROWID;
CREATE INDEX changes_segment ON changes (namespace, id, entry);
CREATE INDEX changes_other ON changes (namespace, other) WHERE other IS NOT NULL;

-- Rows up to here were written before there was a log.
INSERT INTO store SELECT 'unlogged', coalesce(max(seq), 0) FROM segments;

-- Verdicts on pairs of statements of which the newer may take the place of the older. They go with either.
CREATE TABLE verdicts (
    namespace  INTEGER NOT NULL REFERENCES namespaces (number),
    older      BLOB NOT NULL,
    newer      BLOB NOT NULL,
    accepted   INTEGER NOT NULL,
    decided_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, older, newer)
) WITHOUT ROWID;
CREATE INDEX verdicts_newer ON verdicts (namespace, newer);

CREATE TRIGGER segments_unproven AFTER DELETE ON segments
BEGIN
    UPDATE changes SET salt = NULL, link = NULL WHERE namespace = OLD.namespace AND id = OLD.id;
    UPDATE changes SET salt = NULL, link = NULL WHERE namespace = OLD.namespace AND other = OLD.id;
    DELETE FROM verdicts WHERE namespace = OLD.namespace AND older = OLD.id;
    DELETE FROM verdicts WHERE namespace = OLD.namespace AND newer = OLD.id;
END;

-- Which call with an idempotency key an operation was; NULL where it was made before there was a log.
CREATE INDEX operations_operation ON operations (namespace, json_extract(result, '$[2]'));
