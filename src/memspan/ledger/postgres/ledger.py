"""The ledger on PostgreSQL: the same rows and the same promises as the embedded one, for as many machines as connect.

Whoever writes in a namespace holds the row of its head, so commit order is the order of seqs there and no reader skips
a row; other namespaces are written meanwhile. What hangs on a row goes with it in the same transaction, by statements
of ours: no trigger fires on a distributed table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import wraps
from hashlib import sha256
from typing import Any

import psycopg
import psycopg.errors
from pgvector.psycopg import register_vector

from memspan.keys import Keys
from memspan.ledger import log
from memspan.ledger.base import now
from memspan.ledger.postgres import schema
from memspan.ledger.postgres.activations import PostgresActivations
from memspan.ledger.postgres.connections import AsSent, lock_of, mapped, place
from memspan.ledger.postgres.dialect import PostgresClauses
from memspan.ledger.postgres.names import PostgresNames
from memspan.ledger.postgres.words import COPIED, PostgresWords
from memspan.ledger.rows import PROVEN, checksum, chunks, id_text, marks, namespace_number
from memspan.ledger.transactions import Connection
from memspan.ledger.transferring import Transferring


class PostgresLedger(PostgresActivations, PostgresWords, PostgresNames, Transferring):
    """``Ledger`` over PostgreSQL. ``url`` is ``postgresql://...``; ``actor`` is who the log says changed something."""

    keys: Keys | None = None
    apart = True

    def __init__(self, url: str, actor: str | None = None) -> None:
        super().__init__(url)
        self.actor = actor
        try:
            with mapped(url), psycopg.connect(self.conninfo(), autocommit=True) as raw:
                schema.migrate(raw, place(url))
                self.can = schema.capabilities(raw)
                self.ask(raw)
        except BaseException:
            self.close()
            raise
        self.half = self.can.half
        self.where = PostgresClauses(self.can.fold)

    def configure(self, raw: psycopg.Connection[Any]) -> None:
        super().configure(raw)
        register_vector(raw)
        for name in ("vector", "halfvec"):
            if (known := raw.adapters.types.get(name)) is not None:
                raw.adapters.register_loader(known.oid, AsSent)

    # What SQL dialects do each in their own way

    def next_seqs(self, connection: Connection, number: int, count: int) -> int:
        sql = "UPDATE heads SET seq = seq + ? WHERE namespace = ? RETURNING seq"
        return int(connection.execute(sql, (count, number)).fetchone()[0]) - count + 1

    def last_entry(self, connection: Connection, number: int) -> tuple[int, bytes] | None:
        row: tuple[int, bytes] | None = connection.execute(
            "SELECT entry, hash FROM log WHERE namespace = ? ORDER BY entry DESC LIMIT 1", (number,)
        ).fetchone()
        return row

    def ended(self, connection: Connection, number: int, seqs: Collection[int]) -> None:
        if seqs:
            sql = "UPDATE heads SET removal = removal + ? WHERE namespace = ? RETURNING removal"
            last = connection.execute(sql, (len(seqs), number)).fetchone()[0]
            connection.executemany(
                "INSERT INTO removals (namespace, entry, seq) VALUES (?, ?, ?)",
                [(number, last - len(seqs) + at, seq) for at, seq in enumerate(seqs, 1)],
            )
            self.hide_words(connection, number, seqs)
            self.hide_names(connection, number, seqs)

    def alone(self, connection: Connection, key: str) -> None:
        connection.execute("SELECT pg_advisory_xact_lock(?)", (lock_of("value", key),))

    def schema(self, connection: Connection) -> int:
        return int(connection.execute("SELECT max(number) FROM migrations").fetchone()[0])

    def sweep_away(self, connection: Connection, number: int, ids: Sequence[bytes]) -> int:
        return sum(self._swept(connection, number, list(chunk)) for chunk in chunks(ids))

    def _swept(self, connection: Connection, number: int, ids: list[bytes]) -> int:
        rows = connection.execute(
            f"DELETE FROM segments WHERE namespace = ? AND id IN ({marks(ids)})"
            " RETURNING seq, id, version, content, document",
            (number, *ids),
        ).fetchall()
        if not rows:
            return 0
        self.ended(connection, number, [row[0] for row in rows])
        last: dict[bytes, int] = {}
        for _, id, version, _, _ in rows:
            last[id] = max(version, last.get(id, 0))
        connection.executemany(
            "INSERT INTO tombstones (namespace, id, version, deleted_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (namespace, id) DO UPDATE SET version = greatest(tombstones.version, excluded.version)",
            [(number, id, version, now()) for id, version in last.items()],
        )
        seqs, contents = [row[0] for row in rows], list({row[3] for row in rows})
        documents = list({row[4] for row in rows} - {None})
        for table in ("pending", "mentions", "names", "lexical"):
            connection.execute(f"DELETE FROM {table} WHERE namespace = ? AND seq = ANY(?)", (number, seqs))
        for table in ("activations", "matrices"):
            connection.execute(
                f"DELETE FROM {table} AS a WHERE namespace = ?1 AND content = ANY(?2) AND NOT EXISTS"
                " (SELECT 1 FROM segments AS s WHERE s.namespace = ?1 AND s.content = a.content)",
                (number, contents),
            )
        connection.execute(
            "DELETE FROM documents AS d WHERE namespace = ?1 AND id = ANY(?2) AND NOT EXISTS"
            " (SELECT 1 FROM segments AS s WHERE s.namespace = ?1 AND s.document = d.id)",
            (number, documents),
        )
        for table, column in HANGING:
            connection.execute(f"DELETE FROM {table} WHERE namespace = ? AND {column} = ANY(?)", (number, ids))
        for column in ("id", "other"):
            sql = f"UPDATE changes SET salt = NULL, link = NULL WHERE namespace = ? AND {column} = ANY(?)"
            connection.execute(sql, (number, ids))
        return len(rows)

    # The store itself

    def log_head(self) -> dict[str, Any]:
        """How many ``entries`` the logs of all namespaces have, and a ``hash`` of the last of each, in hexadecimal."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT ON (namespace) namespace, entry, hash FROM log ORDER BY namespace, entry DESC"
            ).fetchall()
        whole = sha256(b"".join(last for _, _, last in rows))
        return {"entries": sum(entry for _, entry, _ in rows), "hash": whole.hexdigest() if rows else None}

    def problems(self, *, log_only: bool = False) -> Iterator[tuple[int, int, str | None]]:
        """Re-read and re-hash every row and vector as searches read them, or only what the log says of them: yields
        (done, total, problem or None)."""
        done = total = 0
        with self.reading() as connection:
            spaces = connection.execute("SELECT number, name FROM namespaces ORDER BY number").fetchall()
            if not log_only:
                (total,) = connection.execute("SELECT count(*) FROM segments").fetchone()
            for number, name in spaces:
                namespace_number(connection, name)
                sql = f"SELECT seq, checksum, {PROVEN} FROM segments WHERE namespace = ? ORDER BY seq"
                for seq, expected, *values in () if log_only else connection.stream(sql, number):
                    done += 1
                    problem = None
                    if checksum(values) != expected:
                        problem = f"segment {id_text(values[0])} (seq {seq}) is not what was written"
                    if problem or done % 256 == 0:
                        yield done, total, problem
            for problem in () if log_only else self.activation_problems():
                yield done, total, problem
            for sql, message in () if log_only else INCONSISTENCIES.items():
                if count := connection.execute(sql).fetchone()[0]:
                    yield done, total, message.format(count)
            for number, name in spaces:
                namespace_number(connection, name)
                for problem in log.problems(connection, number):
                    yield done, total, problem
            yield done, total, None

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Leave nothing of removed rows in the tables; what could not be done, and why.

        ``vacuum``: write the tables anew, as pages keep the bytes of what stood there before. Samples of what columns
        hold, which the server has for its planner, are taken anew. Its log of changes is its own: it is overwritten in
        time, and archived where that is set up.
        """
        due = list[str]()
        with self.indexing(wait=False) as mine, self.connected() as raw:
            moment = raw.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())").fetchall()[0][0]
            for _ in range(WAITS):
                if not (older := raw.execute(OLDER, (moment,)).fetchall()[0][0]):
                    break
                time.sleep(PAUSE)
            else:
                due.append(f"the tables: {older} sessions have been reading all the while, and still see it")
            if not mine:
                due.append("vectors: another process is making an index over them")
            for table in TABLES if mine else (each for each in TABLES if each != "activations"):
                due += _vacuumed(raw, f"memspan.{table}", "FULL, ANALYZE" if vacuum else "ANALYZE")
            _vacuumed(raw, "pg_catalog.pg_statistic", "FULL" if vacuum else "ANALYZE FALSE")  # where the role may
        return due

    def contents(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """All tables as they come over the wire, in blocks, by their names."""
        with self.reading() as connection:
            for table in (*TABLES, "namespaces", "store"):
                with connection.raw.cursor() as cursor, cursor.copy(f"COPY {table} TO STDOUT (FORMAT BINARY)") as copy:
                    yield f"table {table}", map(bytes, copy)

    def tidy(self) -> None:
        """Have the server refresh its statistics."""
        with self.connected() as raw:
            for table in TABLES:
                raw.execute(f"ANALYZE (SKIP_LOCKED) memspan.{table}")  # an index in the making would wait for us


def _lock(what: str) -> int:
    """The number of an advisory lock."""
    return int.from_bytes(sha256(b"memspan lock\0" + what.encode()).digest()[:8], signed=True)


REPEATED = (
    "append", "revise", "delete", "delete_scope", "erase", "erase_scope", "done", "prune", "encoded", "link", "unlink",
    "used", "judge", "forget_judgements", "restore", "put_snapshot", "drop_snapshot", "trim_mentions", "put_values",
    "change_value", "lose", "begin_encoding", "keep_encoding", "use_encoding", "give_up_encoding", "drop_encodings",
    "forget_activations",
    "derived", "erased", "due", "keeps", "get", "fetch", "listing", "history", "versions", "operations", "operation",
    "forgotten", "relinked", "log_head", "document", "unchanged", "outcomes", "echoes", "titles", "judgements",
    "verdicts", "replay", "namespaces", "select", "times", "changes_at", "of_kind", "rows", "count_after", "last_row",
    "last_removal", "removals", "vectors", "vectors_of", "tokens_of", "known", "pending", "count_pending",
    "pending_seqs", "tail_postings", "tail_terms", "texts", "structure", "links", "standing", "voices", "snapshot",
    "archive", "rows_of", "stamps", "named", "identities", "value", "counts", "lost", "activation_bytes", "unencoded",
    "sample", "count_unencoded",
)  # fmt: skip
"""Calls that are made again where the server did nothing of them: each makes of its arguments alone what it writes, and
gives what it read at its end."""


def _repeated(name: str) -> Callable[..., Any]:
    once = getattr(PostgresLedger, name)

    @wraps(once)
    def call(self: PostgresLedger, *args: Any, **keywords: Any) -> Any:
        return self.repeating(lambda: once(self, *args, **keywords))

    return call


for _name in REPEATED:
    setattr(PostgresLedger, _name, _repeated(_name))


def _vacuumed(raw: psycopg.Connection[Any], table: str, options: str) -> list[str]:
    """Vacuum a table that nobody holds for long; what kept that from being done."""
    for _ in range(WAITS):
        warnings = list[str]()

        def heard(notice: psycopg.errors.Diagnostic, warnings: list[str] = warnings) -> None:
            if notice.severity_nonlocalized == "WARNING":
                warnings.append(notice.message_primary or "")

        raw.add_notice_handler(heard)
        try:
            raw.execute(f"VACUUM ({options}, SKIP_LOCKED) {table}")
        finally:
            raw.remove_notice_handler(heard)
        if not warnings:
            break
        time.sleep(PAUSE)
    return [f"the table {table}: {each}" for each in warnings]


WAITS, PAUSE = 10, 0.2  # so often, and so many seconds, for somebody who holds a table or reads an earlier moment
OLDER = (
    "SELECT count(*) FROM (SELECT backend_xmin AS seen FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    " AND datname = current_database() UNION ALL SELECT xmin FROM pg_replication_slots) AS readers"
    " WHERE age(seen) > age(CAST(CAST(%s AS xid8) AS xid))"
)
"""How many may still see what was there before a transaction: of the sessions that this role may look at."""

HANGING = (
    ("edges", "source"),
    ("edges", "target"),
    ("usage", "id"),
    ("judgements", "id"),
    ("verdicts", "older"),
    ("verdicts", "newer"),
)
"""What goes with a segment: table, and the column that names it."""

TABLES = (
    "segments", "documents", "tombstones", "removals", "edges", "operations", "usage", "judgements", "log", "changes",
    "verdicts", "activations", "matrices", "pending", "mentions", "names", "lexical", "snapshots",
    "snapshot_parts", "heads",
)  # fmt: skip
"""What is kept by namespace."""

_BY_CONTENT = "WHERE s.namespace = a.namespace AND s.content = a.content"
_BY_SEQ = "WHERE s.namespace = t.namespace AND s.seq = t.seq"
_COPIES = ", ".join(f"{{0}}.{name}" for name in COPIED.split(", ")).replace("ended_at", "ended_at IS NULL")
INCONSISTENCIES = {
    f"SELECT count(*) FROM activations AS a WHERE NOT EXISTS (SELECT 1 FROM segments AS s {_BY_CONTENT})":
        "{} vectors belong to no segment",
    f"SELECT count(*) FROM lexical AS t WHERE NOT EXISTS (SELECT 1 FROM segments AS s {_BY_SEQ})":
        "{} entries of the lexical index belong to no segment",
    f"SELECT count(*) FROM names AS t WHERE NOT EXISTS (SELECT 1 FROM segments AS s {_BY_SEQ})":
        "{} names belong to no segment",
    "SELECT count(*) FROM names AS t JOIN segments AS s ON s.namespace = t.namespace AND s.seq = t.seq"
    " WHERE t.user_id IS DISTINCT FROM s.user_id OR t.plain AND s.ended_at IS NOT NULL":
        "{} names are of another scope than their segments: run `memspan rebuild`",
    f"SELECT count(*) FROM segments AS s WHERE NOT EXISTS (SELECT 1 FROM lexical AS t {_BY_SEQ})":
        "{} segments are not in the lexical index: run `memspan rebuild`",
    f"SELECT count(*) FROM lexical AS t WHERE EXISTS (SELECT 1 FROM segments AS s {_BY_SEQ} AND ({_COPIES.format('s')})"
    f" IS DISTINCT FROM ({_COPIES.format('t')}))":
        "{} entries of the lexical index are of another scope than their segments: run `memspan rebuild`",
    "SELECT count(*) FROM segments AS s WHERE (SELECT value FROM store WHERE key = 'encoder') <> 'null'"
    f" AND NOT EXISTS (SELECT 1 FROM activations AS a {_BY_CONTENT} AND a.encoding ="
    " (SELECT CAST(value AS INTEGER) FROM store WHERE key = 'encoding'))"
    f" AND NOT EXISTS (SELECT 1 FROM pending AS t {_BY_SEQ})":
        "{} segments have no vector and do not wait for one: run `memspan rebuild`",
    "SELECT count(*) FROM activations AS a WHERE tokens = 1 AND NOT EXISTS (SELECT 1 FROM matrices AS m"
    " WHERE m.namespace = a.namespace AND m.content = a.content AND m.encoding = a.encoding)":
        "{} vectors point to token matrices that do not exist",
    "SELECT count(*) FROM judgements AS j"
    " WHERE NOT EXISTS (SELECT 1 FROM segments AS s WHERE s.namespace = j.namespace AND s.id = j.id)":
        "{} judgements are of no segment",
}  # fmt: skip
