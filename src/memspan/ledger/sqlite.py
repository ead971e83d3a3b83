"""The embedded ledger: one SQLite file in WAL mode, several processes at once.

Writers queue on ``BEGIN IMMEDIATE``, so insert order is commit order and ``seq`` never skips behind a reader.
``synchronous=FULL``: a write is on the disk when the call returns. Readers never wait for writers. What hangs on a row
goes with it by triggers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from memspan.keys import Keys
from memspan.ledger import log, schema
from memspan.ledger.activations import Activations
from memspan.ledger.base import Seqs
from memspan.ledger.feeding import seqs_of
from memspan.ledger.proving import find_problems
from memspan.ledger.rows import chunks, marks, namespace_number
from memspan.ledger.transactions import Connection
from memspan.ledger.transferring import Transferring
from memspan.ledger.where import Clauses
from memspan.records import Draft


class SqliteLedger(Activations, Transferring):
    """``Ledger`` over SQLite. ``path`` is the database file, or None for one that lives in memory only.
    ``actor`` is who the log says changed something; ``keys`` are those of an encrypted one."""

    where = Clauses()

    def __init__(self, path: Path | None, actor: str | None = None, keys: Keys | None = None) -> None:
        Activations.__init__(self, path, keys)
        self.actor = actor
        try:
            with self.exclusive() as connection:
                schema.migrate(connection, path, self.open_file)
            self.find_short()
            self.erase_dead()  # what a crash kept somebody from erasing
        except BaseException:
            self.close()
            raise

    # What SQL dialects do each in their own way

    def next_seqs(self, connection: Connection, number: int, count: int) -> int:
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'segments'").fetchone()
        return int(row[0]) + 1 if row else 1

    def last_entry(self, connection: Connection, number: int) -> tuple[int, bytes] | None:
        row: tuple[int, bytes] | None = connection.execute(
            "SELECT entry, hash FROM log ORDER BY entry DESC LIMIT 1"
        ).fetchone()
        return row

    def ended(self, connection: Connection, number: int, seqs: Collection[int]) -> None:
        pass  # a trigger tells

    def alone(self, connection: Connection, key: str) -> None:
        pass  # there is one writer at a time

    def schema(self, connection: Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def sweep_away(self, connection: Connection, number: int, ids: Sequence[bytes]) -> int:
        return sum(
            connection.execute(
                f"DELETE FROM segments WHERE namespace = ? AND id IN ({marks(chunk)})", (number, *chunk)
            ).rowcount
            for chunk in chunks(ids)
        )

    def index_words(self, connection: Connection, number: int, rows: Sequence[tuple[int, Draft]]) -> None:
        connection.executemany(
            "INSERT INTO lexical_tail (rowid, terms) VALUES (?, ?)",
            [(seq, " ".join(f"{number}_{term}" for term in draft.terms)) for seq, draft in rows],
        )

    # The words of rows that no snapshot holds

    def tail_postings(self, namespace: str, term: str, after: int) -> Seqs:
        """int64[n]: the seq of each occurrence of ``term`` in rows after ``after`` (a seq once per occurrence)."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return seqs_of(
                connection.execute(
                    "SELECT doc FROM lexical_instances WHERE term = ? AND doc > ?", (f"{number}_{term}", after)
                )
            )

    def tail_terms(self, namespace: str, after: int, limit: int) -> list[tuple[int, list[str]]]:
        """(seq, terms) of rows after ``after`` in the lexical tail, at most ``limit``."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            rows = connection.execute(
                "SELECT s.seq, t.terms FROM segments AS s JOIN lexical_tail AS t ON t.rowid = s.seq"
                " WHERE s.namespace = ? AND s.seq > ? ORDER BY s.seq LIMIT ?",
                (number, after, limit),
            ).fetchall()
        prefix = len(f"{number}_")
        return [(seq, [term[prefix:] for term in terms.split()]) for seq, terms in rows]

    def trim_tail(self, namespace: str, upto: int) -> int:
        """Drop some rows up to ``upto``, which a snapshot holds, from the tail; returns how many, 0 when done."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            rows = connection.execute(
                "SELECT t.id FROM lexical_tail_docsize AS t JOIN segments AS s ON s.seq = t.id"
                " WHERE t.id <= ? AND s.namespace = ? LIMIT 2000",
                (upto, number),
            ).fetchall()
            connection.executemany("DELETE FROM lexical_tail WHERE rowid = ?", rows)
            return len(rows)

    # The store itself

    def log_head(self) -> dict[str, Any]:
        """How many ``entries`` the log has, and the ``hash`` of the last in hexadecimal."""
        with self.reading() as connection:
            return log.head(connection)

    def problems(self, *, log_only: bool = False) -> Iterator[tuple[int, int, str | None]]:
        """Re-read and re-hash every row and vector as searches read them, or only what the log says of them: yields
        (done, total, problem or None)."""
        with self.reading() as connection:
            done = total = 0
            for done, total, problem in () if log_only else find_problems(connection):
                yield done, total, problem
            for problem in log.problems(connection):
                yield done, total, problem
            for problem in () if log_only else self.tensor_problems():
                yield done, total, problem

    def tidy(self) -> None:
        """Fold the write-ahead log into the database file and let SQLite refresh its statistics."""
        with self.writing() as connection:  # a lock taken half-way, as these do alone, is refused and not waited for
            connection.execute("INSERT INTO lexical_tail (lexical_tail) VALUES ('optimize')")
            connection.execute("PRAGMA optimize")
        self.fold()

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Leave nothing of removed rows in the database and the arenas; what could not be done, and why.

        ``vacuum``: write the whole database anew, as even pages in use may hold copies of what stood there before.
        """
        with self.writing() as connection:
            connection.execute("INSERT INTO lexical_tail (lexical_tail) VALUES ('optimize')")
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_stat4'").fetchone():
                connection.execute("DELETE FROM sqlite_stat4")  # samples of what indexes hold
        self.erase_dead()
        self.sweep()
        if vacuum and self.path is not None:
            with self.exclusive() as connection:
                connection.execute("VACUUM")
        if not self.fold():
            return ["the write-ahead log: somebody has been reading in the store all the while"]
        return []

    def contents(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Nothing: all of it is in files."""
        return iter(())

    def said(self) -> Iterator[str]:
        """All that the store says now, row by row, but what is derived from it."""
        yield from super().said()
        with self.reading() as connection:
            for row in connection.execute("SELECT name, sql FROM sqlite_master"):
                yield "\n".join(str(value) for value in row if value is not None)
