-- What the tree, the graph and the priorities need beside what 0001 keeps.

-- How a segment was used: what reading leaves behind, written in batches.
CREATE TABLE usage (
    namespace   INTEGER NOT NULL REFERENCES namespaces (number),
    id          BLOB NOT NULL,
    accesses    INTEGER NOT NULL,
    accessed_at INTEGER NOT NULL,
    relevance   REAL NOT NULL,               -- the best score it was returned with, in [0, 1]
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;

-- Derived: the names a row mentions, analysed when it is written, until a snapshot of the graph holds them. Joined by
-- U+001F, the title first, which is empty where there is none.
CREATE TABLE mentions (
    seq       INTEGER PRIMARY KEY REFERENCES segments (seq) ON DELETE CASCADE,
    namespace INTEGER NOT NULL,
    names     TEXT NOT NULL
);
CREATE INDEX mentions_namespace ON mentions (namespace, seq);

CREATE TRIGGER segments_forgotten AFTER DELETE ON segments
BEGIN
    DELETE FROM usage WHERE namespace = OLD.namespace AND id = OLD.id;
END;
