"""What encoders gave, as the ledger on PostgreSQL keeps it: pooled vectors and token matrices in tables, by namespace
and content. Nothing is shared between namespaces, so that nothing tells one what another one holds."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from pgvector import HalfVector, Vector

from memspan.activations.tokens import LATER, Activation, Matrices
from memspan.ledger.base import Seqs, Unencoded, Vectors
from memspan.ledger.postgres.connections import PostgresConnections
from memspan.ledger.rows import chunks, marks, namespace_number, unencoded
from memspan.ledger.transactions import Connection
from memspan.ledger.values import ENCODING, agreed, put_value

ACTIVATED = (
    "segments AS s JOIN activations AS a ON a.namespace = s.namespace AND a.content = s.content"
    f" AND a.encoding = {ENCODING}"
)
MISSING = (
    "segments AS s WHERE NOT EXISTS (SELECT 1 FROM activations AS a WHERE a.namespace = s.namespace"
    " AND a.content = s.content AND a.encoding = ?)"
)
THERE, LOST = 1, 0
INDEXING = 0x6D73_7076  # "mspv": the advisory lock of whoever works on indexes over vectors
TURN = 0.1  # seconds between two looks whether somebody else is done
NOBODY_WRITES = "LOCK TABLE heads IN EXCLUSIVE MODE"
"""Waits for all who hold the head of a namespace, and has all others wait."""


class PostgresActivations(PostgresConnections):
    """The part of ``PostgresLedger`` that keeps activations."""

    half: bool
    missing = MISSING
    of_text = "s.namespace, s.content"

    # Reading

    def vectors(self, namespace: str, after: int, limit: int) -> tuple[Seqs, Vectors]:
        """Rows after ``after`` that have a vector, at most ``limit``: seqs int64[n], float32[n, dim]."""
        sql = f"SELECT s.seq, a.pooled FROM {ACTIVATED} WHERE s.namespace = ? AND s.seq > ? ORDER BY s.seq LIMIT ?"
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return self._vectors(connection.binary(sql, (number, after, limit)))

    def vectors_of(self, namespace: str, seqs: Sequence[int]) -> tuple[Seqs, Vectors]:
        """The vectors of these seqs, where there are any, in ascending order of seq."""
        sql = f"SELECT s.seq, a.pooled FROM {ACTIVATED} WHERE s.namespace = ? AND s.seq = ANY(?) ORDER BY s.seq"
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return self._vectors(connection.binary(sql, (number, [*map(int, seqs)])))

    def _vectors(self, rows: Sequence[tuple[int, bytes]]) -> tuple[Seqs, Vectors]:
        seqs = np.array([seq for seq, _ in rows], np.int64)
        if not rows:
            return seqs, np.zeros((0, 0), np.float32)
        flat = np.frombuffer(b"".join(raw[4:] for _, raw in rows), ">f2" if self.half else ">f4")  # as in ``_values``
        return seqs, flat.reshape(len(rows), -1).astype(np.float32)

    def tokens_of(self, namespace: str, seqs: Sequence[int]) -> Matrices:
        """The token matrices of these seqs, where there are any, in ascending order of seq. One that is not what was
        written is left out."""
        sql = (
            f"SELECT s.seq, m.matrix, m.checksum FROM {ACTIVATED} JOIN matrices AS m ON m.namespace = a.namespace"
            " AND m.content = a.content AND m.encoding = a.encoding"
            " WHERE s.namespace = ? AND s.seq = ANY(?) ORDER BY s.seq"
        )
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            rows = connection.binary(sql, (number, [*map(int, seqs)]))
        sound = [(seq, matrix) for seq, matrix, checksum in rows if zlib.crc32(matrix) == checksum]
        return Matrices(
            np.array([seq for seq, _ in sound], np.int64),
            np.array([len(matrix) for _, matrix in sound], np.int64),
            np.frombuffer(b"".join(matrix for _, matrix in sound), np.uint8),
        )

    def activations(self, namespace: str, contents: Sequence[bytes]) -> dict[bytes, Activation]:
        """What is kept of these texts of a namespace, as it is kept. A token matrix that was lost, or is not what was
        written, is LATER."""
        sql = (
            "SELECT a.content, a.pooled, a.tokens, m.matrix, m.checksum FROM activations AS a LEFT JOIN matrices AS m"
            " ON m.namespace = a.namespace AND m.content = a.content AND m.encoding = a.encoding"
            f" WHERE a.namespace = ? AND a.encoding = {ENCODING} AND a.content = ANY(?)"
        )
        with self.reading() as connection:
            rows = connection.binary(sql, (namespace_number(connection, namespace), list(contents)))
        found: dict[bytes, Activation] = {}
        for content, pooled, tokens, matrix, checksum in rows:
            sound = matrix is not None and zlib.crc32(matrix) == checksum
            kept = None if tokens is None else bytes(matrix) if sound else LATER
            found[bytes(content)] = Activation(self._values(pooled), kept)
        return found

    def _values(self, raw: bytes) -> NDArray[np.float16]:
        """A vector as PostgreSQL sends it: two bytes of how many, two unused, the values, the greater end first."""
        return np.frombuffer(raw[4:], ">f2" if self.half else ">f4").astype(np.float16)

    def known(self, namespace: str, contents: Sequence[bytes]) -> set[bytes]:
        """Those of ``contents`` whose activation the namespace keeps already."""
        with self.reading() as connection:
            return self.having(connection, namespace_number(connection, namespace), contents)

    def having(self, connection: Connection, number: int, contents: Collection[bytes]) -> set[bytes]:
        """Those of ``contents`` whose activation is kept already."""
        rows = connection.execute(
            f"SELECT content FROM activations WHERE namespace = ? AND encoding = {ENCODING} AND content = ANY(?)",
            (number, list(contents)),
        )
        return {content for (content,) in rows.fetchall()}

    def lost(self, limit: int) -> list[Unencoded]:
        """Segments whose token matrix has to be made again, one for each content, at most ``limit``."""
        with self.reading() as connection:
            return unencoded(
                connection,
                "(SELECT s.namespace, min(s.seq) AS seq FROM segments AS s JOIN activations AS a"
                " ON a.namespace = s.namespace AND a.content = s.content"
                f" WHERE a.tokens = 0 AND a.encoding = {ENCODING} GROUP BY s.namespace, s.content) AS l"
                " JOIN segments AS s ON s.namespace = l.namespace AND s.seq = l.seq",
                (),
                limit,
            )

    def activation_bytes(self) -> dict[str, Any]:
        """What token matrices take: their bytes, how many there are, how many rows refer to them, how many are lost."""
        with self.reading() as connection:
            count, total = connection.execute(
                "SELECT count(*), coalesce(sum(length(matrix)), 0) FROM matrices"
            ).fetchone()
            (lost,) = connection.execute(
                f"SELECT count(*) FROM activations WHERE tokens = 0 AND encoding = {ENCODING}"
            ).fetchone()
        return {"bytes": total, "live_bytes": total, "tensors": count, "references": count, "lost": lost, "files": []}

    def activation_problems(self) -> Iterator[str]:
        """Names each vector and token matrix that is not what was written."""
        with self.reading() as connection:
            for number, name in connection.execute("SELECT number, name FROM namespaces ORDER BY number").fetchall():
                namespace_number(connection, name)
                rows = connection.stream(
                    "SELECT content, pooled, checksum FROM activations WHERE namespace = ?", number
                )
                for content, pooled, checksum in rows:
                    if zlib.crc32(self._values(pooled).tobytes()) != checksum:
                        yield f"the vector of content {content.hex()} is not what was written"
                matrices = "SELECT content, matrix, checksum FROM matrices WHERE namespace = ?"
                for content, matrix, checksum in connection.stream(matrices, number):
                    if zlib.crc32(matrix) != checksum:
                        yield f"the token matrix of content {content.hex()} is not what was written"

    # Writing: all of it inside one of the ledger's write transactions

    def keep(
        self,
        connection: Connection,
        number: int,
        activations: Mapping[bytes, Activation],
        encoding: int | None = None,
    ) -> None:
        """Keep activations by content, under ``encoding`` or the one in use; those that are there already stay."""
        if not activations:
            return
        if encoding is None:
            (encoding,) = connection.execute(f"SELECT {ENCODING}").fetchone()
        made: type[HalfVector] | type[Vector] = HalfVector if self.half else Vector
        rows = []
        for content, activation in activations.items():
            tokens = None if activation.tokens is None else THERE if activation.tokens else LOST
            pooled = np.asarray(activation.pooled, np.float16)
            rows.append((number, content, encoding, made(pooled), zlib.crc32(pooled.tobytes()), tokens))
        connection.executemany(
            "INSERT INTO activations (namespace, content, encoding, pooled, checksum, tokens)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, content, encoding) DO UPDATE"
            " SET tokens = excluded.tokens WHERE activations.tokens = 0 AND excluded.tokens IS NOT NULL",
            rows,
        )
        connection.executemany(
            "INSERT INTO matrices (namespace, content, encoding, matrix, checksum)"
            " SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM activations"
            " WHERE namespace = ?1 AND content = ?2 AND encoding = ?3 AND tokens = 1)"
            " ON CONFLICT (namespace, content, encoding) DO NOTHING",
            [
                (number, content, encoding, activation.tokens, zlib.crc32(activation.tokens))
                for content, activation in activations.items()
                if activation.tokens
            ],
        )

    def served(self, connection: Connection, number: int, contents: Collection[bytes]) -> int:
        """A row waits for its vector or has one, never both: those of ``contents`` have it now; how many waited."""
        if not contents:
            return 0
        return connection.execute(
            "DELETE FROM pending WHERE namespace = ?1 AND seq IN"
            " (SELECT seq FROM segments WHERE namespace = ?1 AND content = ANY(?2))",
            (number, list(contents)),
        ).rowcount

    def encoded(
        self,
        activations: Mapping[bytes, Activation],
        encoder: str | None = None,
        namespaces: Collection[str] | None = None,
    ) -> int:
        """Keep activations that rows of these ``namespaces`` wait for, or where None are given of any; returns how many
        rows they served.

        ``encoder``: as in ``append``. Raises EncoderMismatch.
        """
        served = 0
        for namespace in self._waiting(activations, encoder) if namespaces is None else namespaces:
            with self.writing() as connection:
                number = namespace_number(connection, namespace)
                agreed(connection, encoder)
                there = self.wanted(connection, number, activations)
                self.keep(connection, number, there)
                served += self.served(connection, number, there)
        return served

    def _waiting(self, activations: Collection[bytes], encoder: str | None) -> list[str]:
        """The namespaces that wait for any of these contents."""
        waiting = (
            "SELECT name FROM namespaces WHERE number IN (SELECT s.namespace FROM pending AS p JOIN segments AS s"
            " ON s.namespace = p.namespace AND s.seq = p.seq WHERE s.content = ANY(?1)"
            f" UNION SELECT namespace FROM activations WHERE tokens = 0 AND encoding = {ENCODING}"
            " AND content = ANY(?1))"
        )
        with self.reading() as connection:
            agreed(connection, encoder)
            return [name for (name,) in connection.execute(waiting, (list(activations),)).fetchall()]

    def keeps(self, activation: Activation) -> bool:
        """Whether this very vector, or this token matrix, is kept of any text."""
        made: type[HalfVector] | type[Vector] = HalfVector if self.half else Vector
        with self.reading() as connection:
            pooled = made(np.asarray(activation.pooled, np.float16))
            return any(
                connection.execute(sql, (value,)).fetchone()
                for sql, value in (
                    ("SELECT 1 FROM activations WHERE pooled = ? LIMIT 1", pooled),
                    ("SELECT 1 FROM matrices WHERE matrix = ? LIMIT 1", activation.tokens or b""),
                )
            )

    def unaccounted(self) -> Iterator[tuple[str, int]]:
        """Nothing: there are no files of ours beside the tables."""
        return iter(())

    @property
    def harmed(self) -> bool:
        """Whether there is something to ``lose``: what is damaged here, the server has to tell."""
        return False

    def lose(self) -> None:
        """Record token matrices that are gone or damaged as lost: they are made again from their texts."""
        with self.writing() as connection:
            connection.execute(
                "UPDATE activations AS a SET tokens = 0 WHERE tokens = 1 AND NOT EXISTS (SELECT 1 FROM matrices AS m"
                " WHERE m.namespace = a.namespace AND m.content = a.content AND m.encoding = a.encoding)"
            )

    def erase_dead(self) -> None:
        """Nothing: a matrix goes with its content, in the same transaction."""

    def collect(self) -> None:
        """Nothing: the server gives space back by itself."""

    @contextmanager
    def indexing(self, *, wait: bool = True) -> Iterator[bool]:
        """Whether nobody else works on the indexes over vectors, of any namespace, until this ends: who makes one waits
        for every transaction, so two would wait for each other. Whoever waits here looks again and again, as a
        transaction that waits is waited for too; without ``wait`` it is False where somebody is at it."""
        turn = threading.Event()  # which nobody sets
        with self.connected() as raw:
            while not (mine := _locked(raw)) and wait:
                turn.wait(TURN)
            try:
                yield mine
            finally:
                if mine and not raw.closed:
                    raw.execute("SELECT pg_advisory_unlock(%s)", (INDEXING,))

    # Encoding anew, beside the encoding in use

    def wanted(
        self, connection: Connection, number: int, activations: Mapping[bytes, Activation]
    ) -> dict[bytes, Activation]:
        """Those of texts that are still there."""
        there = {
            content
            for chunk in chunks(list(activations))
            for (content,) in connection.execute(
                f"SELECT DISTINCT content FROM segments WHERE namespace = ? AND content IN ({marks(chunk)})",
                (number, *chunk),
            ).fetchall()
        }
        return {content: each for content, each in activations.items() if content in there}

    def nobody_writes(self, connection: Connection) -> None:
        connection.execute(NOBODY_WRITES)

    def forget_activations(self, encoder: str) -> None:
        """Record ``encoder``, which needs none, and drop every activation."""
        with self.writing() as connection:
            self.nobody_writes(connection)
            for table in ("activations", "matrices", "pending"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("DELETE FROM store WHERE key IN ('next', 'dropping')")
            connection.execute("DELETE FROM snapshots WHERE view IN ('vectors', 'tree', 'graph')")
            put_value(connection, "encoder", encoder)

    def drop_encodings(self) -> None:
        """Drop activations of encodings that are neither in use nor being made, where there are any since a switch."""
        with self.reading() as connection:
            if connection.execute("SELECT 1 FROM store WHERE key = 'dropping'").fetchone() is None:
                return
        with self.writing() as connection:
            self.alone(connection, "next")
            row = connection.execute("SELECT value FROM store WHERE key = 'next'").fetchone()
            begun = json.loads(row[0])["number"] if row else 0
            for table in ("activations", "matrices"):
                sql = f"DELETE FROM {table} WHERE encoding <> {ENCODING} AND encoding <> ?"
                connection.execute(sql, (begun,))
            connection.execute("DELETE FROM store WHERE key = 'dropping'")


def _locked(raw: psycopg.Connection[Any]) -> bool:
    row = raw.execute("SELECT pg_try_advisory_lock(%s)", (INDEXING,)).fetchone()
    return row is not None and bool(row[0])
