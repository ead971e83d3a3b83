-- The ledger: what was said, by whom, when it happened, when we heard it, what replaced it.
-- Times are microseconds since 1970 UTC. Ids are 16 bytes. Paths (heading, category) are joined by U+001F.

CREATE TABLE store (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE namespaces (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name   TEXT NOT NULL UNIQUE
);

CREATE TABLE documents (
    id          BLOB NOT NULL,
    namespace   INTEGER NOT NULL REFERENCES namespaces (number),
    owner       BLOB NOT NULL,              -- hash of scope and uri: which document this is a version of
    uri         TEXT,
    title       TEXT,
    media       TEXT NOT NULL,
    sha256      BLOB NOT NULL,              -- of the text
    recorded_at INTEGER NOT NULL,
    ended_at    INTEGER,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
CREATE INDEX documents_owner ON documents (namespace, owner) WHERE ended_at IS NULL;

-- One row per version of a segment. Rows are never changed but for `repeats` and `ended_at`.
CREATE TABLE segments (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace   INTEGER NOT NULL REFERENCES namespaces (number),
    id          BLOB NOT NULL,
    version     INTEGER NOT NULL,
    user_id     TEXT,
    agent_id    TEXT,
    run_id      TEXT,
    session     TEXT,
    document    BLOB,
    position    INTEGER NOT NULL,
    role        TEXT,
    speaker     TEXT,
    heading     TEXT,
    category    TEXT,
    importance  REAL NOT NULL,
    source      TEXT NOT NULL,
    occurred_at INTEGER,
    recorded_at INTEGER NOT NULL,
    ended_at    INTEGER,
    repeats     INTEGER NOT NULL DEFAULT 0,
    tokens      INTEGER NOT NULL,
    terms       INTEGER NOT NULL,           -- how many terms the analyser finds: the length BM25 uses
    metadata    TEXT,                       -- JSON object, NULL when empty
    gap         TEXT NOT NULL,
    text        TEXT NOT NULL,
    tail        TEXT NOT NULL,
    content     BLOB NOT NULL,              -- hash of the encoded text: the key of its activation
    identity    BLOB NOT NULL,              -- hash of content and scope: what makes a second add a repeat
    checksum    BLOB NOT NULL               -- hash of the row's canonical bytes, proven by verify
);
CREATE UNIQUE INDEX segments_identity ON segments (namespace, identity) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX segments_id ON segments (namespace, id, version);
CREATE INDEX segments_order ON segments (namespace, seq, ended_at, terms);
CREATE INDEX segments_scope ON segments (namespace, user_id, session, position);
CREATE INDEX segments_document ON segments (namespace, document, position) WHERE document IS NOT NULL;
CREATE INDEX segments_content ON segments (content);

CREATE TABLE tombstones (
    namespace  INTEGER NOT NULL REFERENCES namespaces (number),
    id         BLOB NOT NULL,
    version    INTEGER NOT NULL,
    deleted_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;

-- Seqs that searches must stop returning, in the order they went: what caches read to catch up.
CREATE TABLE removals (
    entry     INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace INTEGER NOT NULL,
    seq       INTEGER NOT NULL
);
CREATE INDEX removals_namespace ON removals (namespace, entry);

-- Links a user or a source states (replies, references). Derived edges are a view and not kept here.
CREATE TABLE edges (
    namespace  INTEGER NOT NULL REFERENCES namespaces (number),
    source     BLOB NOT NULL,
    target     BLOB NOT NULL,
    kind       TEXT NOT NULL,
    weight     REAL NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, source, kind, target)
) WITHOUT ROWID;
CREATE INDEX edges_target ON edges (namespace, target);

CREATE TABLE operations (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    key       TEXT NOT NULL,
    payload   BLOB NOT NULL,
    result    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;

-- Derived from here on: disposable, rebuilt from the rows above.

CREATE TABLE activations (
    content  BLOB PRIMARY KEY,
    pooled   BLOB NOT NULL,                 -- float16[dim]
    checksum INTEGER NOT NULL               -- CRC-32 of pooled
) WITHOUT ROWID;

CREATE TABLE pending (
    seq       INTEGER PRIMARY KEY REFERENCES segments (seq) ON DELETE CASCADE,
    namespace INTEGER NOT NULL
);
CREATE INDEX pending_namespace ON pending (namespace, seq);

CREATE TABLE snapshots (
    namespace  INTEGER NOT NULL REFERENCES namespaces (number),
    view       TEXT NOT NULL,
    position   INTEGER NOT NULL,            -- the last seq folded in
    rows       INTEGER NOT NULL,
    file       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, view)
) WITHOUT ROWID;

-- The lexical tail. Terms come analysed and prefixed with the namespace's number, so one tenant's words are never
-- even read for another's query.
CREATE VIRTUAL TABLE lexical_tail USING fts5 (
    terms, tokenize = "unicode61 remove_diacritics 0 categories 'L* M* N* Co' tokenchars '_'"
);
CREATE VIRTUAL TABLE lexical_instances USING fts5vocab (lexical_tail, 'instance');

CREATE TRIGGER segments_ended AFTER UPDATE OF ended_at ON segments WHEN OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL
BEGIN
    INSERT INTO removals (namespace, seq) VALUES (NEW.namespace, NEW.seq);
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
