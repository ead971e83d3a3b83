-- Token activations beside the pooled vectors, and room for two encodings at once: while a store is encoded anew, what
-- the new encoder gives stands beside what the old one gave. The value 'encoding' of the store says which is in use.

DROP TRIGGER segments_deleted;
ALTER TABLE activations RENAME TO activations_before;

CREATE TABLE activations (
    content  BLOB NOT NULL,
    encoding INTEGER NOT NULL,
    pooled   BLOB NOT NULL,                 -- float16[dim]
    checksum INTEGER NOT NULL,              -- CRC-32 of pooled
    tokens   BLOB,                          -- key of its token matrix; NULL: it has none; x'': lost, to be made again
    PRIMARY KEY (content, encoding)
) WITHOUT ROWID;
CREATE INDEX activations_lost ON activations (encoding) WHERE tokens = x'';
INSERT INTO activations SELECT content, 1, pooled, checksum, NULL FROM activations_before ORDER BY content;
DROP TABLE activations_before;
INSERT INTO store VALUES ('encoding', '1');

-- Pointers to token matrices in the arena files, by the SHA-256 of their bytes, with how many activations name each.
CREATE TABLE tensors (
    key    BLOB PRIMARY KEY,
    arena  INTEGER NOT NULL REFERENCES arenas (number),
    offset INTEGER NOT NULL,
    size   INTEGER NOT NULL,
    refs   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tensors_dead ON tensors (arena) WHERE refs = 0;

-- The arena files: what stands after `finish` was never committed and is written over.
CREATE TABLE arenas (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    finish INTEGER NOT NULL
);

CREATE TRIGGER activations_added AFTER INSERT ON activations WHEN NEW.tokens IS NOT NULL
BEGIN
    UPDATE tensors SET refs = refs + 1 WHERE key = NEW.tokens;
END;

CREATE TRIGGER activations_changed AFTER UPDATE OF tokens ON activations
BEGIN
    UPDATE tensors SET refs = refs - 1 WHERE key = OLD.tokens;
    UPDATE tensors SET refs = refs + 1 WHERE key = NEW.tokens;
END;

CREATE TRIGGER activations_deleted AFTER DELETE ON activations WHEN OLD.tokens IS NOT NULL
BEGIN
    UPDATE tensors SET refs = refs - 1 WHERE key = OLD.tokens;
END;

CREATE TRIGGER segments_deleted AFTER DELETE ON segments
BEGIN
    INSERT INTO removals (namespace, seq) VALUES (OLD.namespace, OLD.seq);
    INSERT INTO tombstones (namespace, id, version, deleted_at)
        VALUES (OLD.namespace, OLD.id, OLD.version, CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER))
        ON CONFLICT (namespace, id) DO UPDATE SET version = max(version, excluded.version);
    DELETE FROM activations WHERE content = OLD.content
        AND NOT EXISTS (SELECT 1 FROM segments WHERE content = OLD.content);
    DELETE FROM documents WHERE namespace = OLD.namespace AND id = OLD.document
        AND NOT EXISTS (SELECT 1 FROM segments WHERE namespace = OLD.namespace AND document = OLD.document);
    DELETE FROM edges WHERE namespace = OLD.namespace AND source = OLD.id;
    DELETE FROM edges WHERE namespace = OLD.namespace AND target = OLD.id;
    DELETE FROM lexical_tail WHERE rowid = OLD.seq;
END;
