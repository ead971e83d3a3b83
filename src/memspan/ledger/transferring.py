"""What a copy of a whole store reads of one ledger and writes into another: rows as they are, the log entry by entry.

Rows keep their seqs; which seq a row has in a ledger that counts otherwise, the caller says. What is derived from rows
is not read: it is made where they are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from memspan.activations.tokens import Activation
from memspan.ledger import log
from memspan.ledger.feeding import given
from memspan.ledger.recording import Recording
from memspan.ledger.rows import COLUMNS, chunks, marks, namespace_number, segment_of
from memspan.ledger.tables import Entry, Table, Whole
from memspan.ledger.transactions import Connection
from memspan.records import Draft

WHOLE = f"{COLUMNS}, terms, content, identity, checksum"
TAKE = f"INSERT INTO segments (namespace, {WHOLE}) VALUES ({marks(WHOLE.split(','))}, ?)"


class Transferring(Recording):
    """The part of a ledger by which whole stores are copied."""

    apart = False

    # Giving

    def values(self) -> dict[str, str]:
        """All values of the store itself."""
        with self.reading() as connection:
            return dict(connection.execute("SELECT key, value FROM store").fetchall())

    def table(self, namespace: str, table: Table, after: Sequence[Any] | None, limit: int) -> list[tuple[Any, ...]]:
        """Rows of a table in the order of its key, at most ``limit``, after the key ``after``."""
        columns, key = ", ".join(table.columns), ", ".join(table.key)
        later = "" if after is None else f" AND ({key}) > ({marks(table.key)})"
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT {columns} FROM {table.name} WHERE namespace = ?{later} ORDER BY {key} LIMIT ?",
                (namespace_number(connection, namespace), *(after or ()), limit),
            ).fetchall()
        return [tuple(row) for row in rows]

    def whole(self, namespace: str, seqs: Sequence[int]) -> list[Whole]:
        """These rows of segments that are there, by seq."""
        found: list[Whole] = []
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(sorted(seqs)):
                rows = connection.execute(
                    f"SELECT {WHOLE} FROM segments WHERE namespace = ? AND seq IN ({marks(chunk)}) ORDER BY seq",
                    (number, *map(int, chunk)),
                ).fetchall()
                found += [Whole(segment_of(namespace, row), row[-3], row[-2], tuple(row)) for row in rows]
        return found

    def entries(self, namespace: str, after: int, limit: int) -> list[Entry]:
        """Entries of the log on a namespace, in order, at most ``limit``, after the entry ``after``."""
        with self.reading() as connection:
            return log.entries(connection, namespace_number(connection, namespace), after, limit)

    # Taking

    def settle_in(self, namespaces: Sequence[str]) -> None:
        """Have these namespaces, the new ones in this order."""
        with self.writing() as connection:
            for namespace in namespaces:
                namespace_number(connection, namespace, create=True)

    def take_whole(
        self,
        namespace: str,
        rows: Sequence[tuple[Whole, Draft]],
        activations: Mapping[bytes, Activation] | None,
    ) -> int:
        """Have rows of segments as they stand, their words and names by their drafts; how many were taken. One that
        stands in the way of a row that is here is left out. ``activations``: as in ``append``."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            barred = _barred(connection, number, [row for row, _ in rows])
            new = [(row.values, draft) for row, draft in rows if row.values[0] not in barred]
            connection.executemany(TAKE, [(number, *values) for values, _ in new])
            taken = [(values[0], draft) for values, draft in new]
            self._reach(connection, number, max((seq for seq, _ in taken), default=0))
            self.derive(connection, number, taken, activations)
            self.keep(connection, number, given(activations, (draft for _, draft in taken)))
        return len(taken)

    def _reach(self, connection: Connection, number: int, seq: int) -> None:
        """Have the seqs of rows that are written later be greater than this one."""
        following = self.next_seqs(connection, number, 0)
        if seq >= following:
            self.next_seqs(connection, number, seq - following + 1)

    def change_whole(self, namespace: str, rows: Sequence[tuple[Any, ...]], gone: Sequence[bytes]) -> None:
        """Remove the segments ``gone``, of which nothing is written down, and have rows that are here be as ``rows`` of
        ``SEGMENTS`` say."""
        parked = "UPDATE segments SET version = -version - 1 WHERE namespace = ? AND seq = ?"
        be = (
            "UPDATE segments SET version = ?, identity = ?, checksum = ?, heard_at = ?, ended_at = ?, repeats = ?"
            " WHERE namespace = ? AND seq = ?"
        )
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            if gone:
                self.sweep_away(connection, number, gone)
            connection.executemany(parked, [(number, row[0]) for row in rows])  # versions may have been counted anew
            for ended in (True, False):  # what ended first: it makes way for what says the same
                connection.executemany(
                    be, [(row[2], *row[4:], number, row[0]) for row in rows if (row[7] is not None) == ended]
                )
            self.ended(connection, number, [row[0] for row in rows if row[7] is not None])
        self.erase_dead()

    def take_activations(
        self, namespace: str, activations: Mapping[bytes, Activation], waiting: Sequence[tuple[int, bytes]]
    ) -> None:
        """Keep activations of texts of the namespace that are there. ``waiting`` rows, by seq and content, wait for
        their vector from now on, unless it is here."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            self.keep(connection, number, activations)
            self.served(connection, number, activations.keys())
            here = self.having(connection, number, {content for _, content in waiting})
            connection.executemany(
                "INSERT INTO pending (seq, namespace) VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(seq, number) for seq, content in waiting if content not in here],
            )

    def take_rows(
        self, namespace: str, table: Table, rows: Sequence[tuple[Any, ...]], gone: Sequence[tuple[Any, ...]]
    ) -> None:
        """Have rows of one of ``TABLES`` as they stand, in place of those of the same keys, and none of the keys
        ``gone``."""
        named = " AND ".join(f"{name} = ?" for name in ("namespace", *table.key))
        columns = ("namespace", *table.columns)
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            keys = [*gone, *(row[: len(table.key)] for row in rows)]
            connection.executemany(f"DELETE FROM {table.name} WHERE {named}", [(number, *key) for key in keys])
            connection.executemany(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks(columns)})",
                [(number, *row) for row in rows],
            )

    def take_entries(self, entries: Sequence[tuple[str, Entry]]) -> None:
        """Write down what the log of another ledger tells, each entry of its namespace after those that are here."""
        with self.writing() as connection:
            for _, part in groupby(entries, key=lambda each: each[0] if self.apart else ""):
                numbered = [(namespace_number(connection, name), entry.said, entry.changes) for name, entry in part]
                log.carry(connection, numbered, self.last_entry(connection, numbered[0][0]))


def _barred(connection: Connection, number: int, rows: Sequence[Whole]) -> set[int]:
    """The seqs of those rows that one which is here stands in the way of: it has the same seq, is the same version of a
    segment, or says the same and has not ended yet."""
    seqs, versions, said = set[int](), set[tuple[bytes, int]](), set[bytes]()
    for chunk in chunks(rows):
        among = f"FROM segments WHERE namespace = ? AND {{}} IN ({marks(chunk)})"
        sql = f"SELECT seq {among.format('seq')}"
        seqs.update(seq for (seq,) in connection.execute(sql, (number, *(row.values[0] for row in chunk))))
        sql = f"SELECT id, version {among.format('id')}"
        found = connection.execute(sql, (number, *(row.values[1] for row in chunk)))
        versions.update((id, version) for id, version in found)
        sql = f"SELECT identity {among.format('identity')} AND ended_at IS NULL"
        said.update(identity for (identity,) in connection.execute(sql, (number, *(row.identity for row in chunk))))
    return {
        row.values[0]
        for row in rows
        if row.values[0] in seqs
        or row.values[1:3] in versions
        or (row.segment.ended_at is None and row.identity in said)
    }
