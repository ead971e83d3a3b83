-- What users said of what a query found: of use to it (1) or not (0). It holds for every version of a segment and goes
-- with it, and with it the words of the query.
CREATE TABLE judgements (
    namespace INTEGER NOT NULL REFERENCES namespaces (number),
    query     TEXT NOT NULL,
    id        BLOB NOT NULL,
    useful    INTEGER NOT NULL,
    judged_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, query, id)
) WITHOUT ROWID;
CREATE INDEX judgements_segment ON judgements (namespace, id);

CREATE TRIGGER segments_unjudged AFTER DELETE ON segments
BEGIN
    DELETE FROM judgements WHERE namespace = OLD.namespace AND id = OLD.id;
END;
