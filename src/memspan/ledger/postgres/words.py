"""The words of rows, as PostgreSQL keeps them: in an inverted index, and in a form that counts them fast.

A word is a number, the hash of a term mixed with its namespace's: so words of one length are compared, and those of one
tenant are never read for another's query. Beside them stands what says whether a row may be seen in a scope, as it is
in `segments`: reading that once more for every candidate would cost as much as everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import key_of
from memspan.analysis import terms as analyse
from memspan.ledger.base import Seqs
from memspan.ledger.postgres.connections import PostgresConnections
from memspan.ledger.rows import namespace_number, unencoded
from memspan.ledger.transactions import Connection
from memspan.records import Draft

COPIED = "user_id, agent_id, run_id, session, ended_at, state, valid_from, valid_to, expires_at"
"""The columns that `lexical` has from `segments`; of these only `ended_at` ever changes."""

INDEX = (
    f"INSERT INTO lexical (namespace, seq, {COPIED}, words, occurrences)"
    f" SELECT namespace, seq, {COPIED}, CAST(? AS BIGINT[]), CAST(? AS BYTEA) FROM segments"
    " WHERE namespace = ? AND seq = ? ON CONFLICT (namespace, seq) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in f"words, occurrences, {COPIED}".split(", "))
)
ENDED = (
    "UPDATE lexical AS l SET ended_at = s.ended_at FROM segments AS s"
    " WHERE l.namespace = ? AND l.seq = ANY(?) AND s.namespace = l.namespace AND s.seq = l.seq"
)
OCCURRENCE = np.dtype("<i8")  # of `occurrences`: the words of a row, each as often as it stands there


def words_of(number: int, terms: Iterable[str]) -> NDArray[np.int64]:
    """int64[n]: the words of ``terms`` in the namespace with this number, in their order."""
    keys = np.fromiter((key_of(term) for term in terms), np.uint64)
    return (keys ^ np.uint64(key_of(f"namespace {number}"))).view(np.int64)  # a term has no blank


class PostgresWords(PostgresConnections):
    """The part of ``PostgresLedger`` that keeps words."""

    def index_words(self, connection: Connection, number: int, rows: Sequence[tuple[int, Draft]]) -> None:
        self._index(connection, number, [(seq, draft.terms) for seq, draft in rows])

    def index_anew(self, namespace: str, after: int, limit: int) -> int:
        """Index the words of at most ``limit`` rows after ``after`` once more, from their texts; the last of these
        rows, or ``after`` where there is none."""
        rows = self.tail_terms(namespace, after, limit)
        with self.writing() as connection:
            self._index(connection, namespace_number(connection, namespace), rows)
        return rows[-1][0] if rows else after

    def _index(self, connection: Connection, number: int, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
        found = [(seq, words_of(number, terms)) for seq, terms in rows]
        connection.executemany(
            INDEX,
            [(np.unique(words).tolist(), words.astype(OCCURRENCE).tobytes(), number, seq) for seq, words in found],
        )

    def hide_words(self, connection: Connection, number: int, seqs: Collection[int]) -> None:
        """Have the words of rows that ended found no more, but as of then."""
        connection.execute(ENDED, (number, list(seqs)))

    def tail_postings(self, namespace: str, term: str, after: int) -> Seqs:
        """int64[n]: the seq of each occurrence of ``term`` in rows after ``after`` (a seq once per occurrence)."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            word = int(words_of(number, [term])[0])
            rows = connection.binary(
                "SELECT seq, occurrences FROM lexical WHERE namespace = ? AND seq > ? AND words @> CAST(? AS BIGINT[])",
                (number, after, [word]),
            )
        counts = [int((np.frombuffer(occurrences, OCCURRENCE) == word).sum()) for _, occurrences in rows]
        return np.repeat(np.array([seq for seq, _ in rows], np.int64), counts)

    def tail_terms(self, namespace: str, after: int, limit: int) -> list[tuple[int, list[str]]]:
        """(seq, terms) of rows after ``after``, at most ``limit``: from their texts, as words do not tell terms."""
        with self.reading() as connection:
            values = (namespace_number(connection, namespace), after)
            rows = unencoded(connection, "segments AS s WHERE namespace = ? AND seq > ?", values, limit)
        return [(row.seq, analyse(row.analysed_text)) for row in rows]

    def trim_tail(self, namespace: str, upto: int) -> int:
        """Nothing: words are searched where they stand."""
        return 0
