"""Whether an SQLite ledger is as it was written: every row, every vector, and how they hang together."""

from __future__ import annotations

import sqlite3
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress

from memspan.ledger.connections import database_errors
from memspan.ledger.rows import PROVEN, checksum


def find_problems(connection: sqlite3.Connection) -> Iterator[tuple[int, int, str | None]]:
    """Everything that is not as it was written: yields (rows done, rows in all, problem or None)."""
    with suppress(*database_errors()):  # SQLite from 3.44 on checks FTS5 by what this connection last saw of it
        connection.execute("SELECT rowid FROM lexical_tail WHERE lexical_tail MATCH 'a' LIMIT 1").fetchone()
    for (message,) in connection.execute("PRAGMA integrity_check").fetchall():
        if message != "ok":
            yield 0, 0, f"database: {message}"
    for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchall():
        yield 0, 0, f"row {rowid} of {table} refers to a missing row of {parent}"
    total = connection.execute("SELECT count(*) FROM segments").fetchone()[0]
    rows = connection.execute(f"SELECT seq, checksum, {PROVEN} FROM segments ORDER BY seq")
    done = 0
    for seq, expected, *values in rows:
        done += 1
        problem = None
        if checksum(values) != expected:
            problem = f"segment {uuid.UUID(bytes=values[0])} (seq {seq}) is not what was written"
        if problem or done % 256 == 0:
            yield done, total, problem
    for content, pooled, expected in connection.execute("SELECT content, pooled, checksum FROM activations"):
        if zlib.crc32(pooled) != expected:
            yield done, total, f"the vector of content {content.hex()} is not what was written"
    yield from ((done, total, problem) for problem in _inconsistencies(connection))
    yield done, total, None


INCONSISTENCIES = {
    "SELECT count(*) FROM activations AS a WHERE NOT EXISTS (SELECT 1 FROM segments AS s WHERE s.content = a.content)":
        "{} vectors belong to no segment",
    "SELECT count(*) FROM lexical_tail_docsize AS t WHERE NOT EXISTS (SELECT 1 FROM segments AS s WHERE s.seq = t.id)":
        "{} entries of the lexical tail belong to no segment",
    "SELECT count(*) FROM segments AS s WHERE NOT EXISTS (SELECT 1 FROM lexical_tail_docsize AS t WHERE t.id = s.seq)"
    " AND s.seq > coalesce((SELECT position FROM snapshots WHERE namespace = s.namespace AND view = 'lexical'), 0)":
        "{} segments are in neither the lexical tail nor a snapshot: run `memspan rebuild`",
    "SELECT count(*) FROM segments AS s WHERE (SELECT value FROM store WHERE key = 'encoder') <> 'null'"
    " AND NOT EXISTS (SELECT 1 FROM activations AS a WHERE a.content = s.content AND a.encoding ="
    " (SELECT CAST(value AS INTEGER) FROM store WHERE key = 'encoding'))"
    " AND NOT EXISTS (SELECT 1 FROM pending AS p WHERE p.seq = s.seq)":
        "{} segments have no vector and do not wait for one: run `memspan rebuild`",
    "SELECT count(*) FROM tensors AS t LEFT JOIN (SELECT tokens, count(*) AS times FROM activations"
    " WHERE length(tokens) > 0 GROUP BY tokens) AS a ON a.tokens = t.key WHERE t.refs <> coalesce(a.times, 0)":
        "{} token matrices are referred to by another number of vectors than their pointer says",
    "SELECT count(*) FROM activations AS a WHERE length(a.tokens) > 0"
    " AND NOT EXISTS (SELECT 1 FROM tensors AS t WHERE t.key = a.tokens)":
        "{} vectors point to token matrices that do not exist",
    "SELECT count(*) FROM judgements AS j"
    " WHERE NOT EXISTS (SELECT 1 FROM segments AS s WHERE s.namespace = j.namespace AND s.id = j.id)":
        "{} judgements are of no segment",
}  # fmt: skip


def _inconsistencies(connection: sqlite3.Connection) -> Iterator[str]:
    for sql, message in INCONSISTENCIES.items():
        count = connection.execute(sql).fetchone()[0]
        if count:
            yield message.format(count)
    try:
        connection.execute("SELECT count(*) FROM lexical_instances").fetchone()
    except database_errors() as error:
        yield f"the lexical tail cannot be read ({error}): run `memspan rebuild`"
