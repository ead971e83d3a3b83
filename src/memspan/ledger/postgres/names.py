"""The names that rows mention, as PostgreSQL keeps them: by their keys, in a table that is asked both ways."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from memspan.activations.tokens import Activation
from memspan.entities import key_of
from memspan.ledger.base import names_in
from memspan.ledger.feeding import Feeding
from memspan.ledger.postgres.connections import PostgresConnections
from memspan.ledger.rows import namespace_number
from memspan.ledger.transactions import Connection
from memspan.records import Draft

_KEEP = (
    "INSERT INTO names (namespace, seq, key, title, user_id, plain)"
    " SELECT s.namespace, n.seq, n.key, n.title, s.user_id, s.ended_at IS NULL AND s.state IS NULL"
    " AND s.valid_from IS NULL AND s.valid_to IS NULL AND s.expires_at IS NULL"
    " FROM unnest(CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BOOLEAN[])) AS n (seq, key, title)"
    " JOIN segments AS s ON s.namespace = ? AND s.seq = n.seq ON CONFLICT (namespace, seq, key) DO NOTHING"
)


def signed(keys: Iterable[int]) -> list[int]:
    """Keys of names as the database has them, which knows no unsigned numbers."""
    found: list[int] = np.fromiter(keys, np.uint64).view(np.int64).tolist()
    return found


class PostgresNames(PostgresConnections, Feeding):
    """The part of ``PostgresLedger`` that keeps names."""

    def derive(
        self,
        connection: Connection,
        number: int,
        rows: Sequence[tuple[int, Draft]],
        activations: Mapping[bytes, Activation] | None,
    ) -> int:
        _keep(connection, number, [(seq, draft.names) for seq, draft in rows])
        return super().derive(connection, number, rows, activations)

    def hide_names(self, connection: Connection, number: int, seqs: Collection[int]) -> None:
        """Rows have ended: whether they may be seen, they are asked themselves from now on."""
        connection.execute("UPDATE names SET plain = FALSE WHERE namespace = ? AND seq = ANY(?)", (number, list(seqs)))

    def name_anew(self, namespace: str, after: int, limit: int) -> int:
        """Find the names of at most ``limit`` rows after ``after`` once more, in their texts; the last of these rows,
        or ``after`` where there is none."""
        rows = self.texts(namespace, after, 2**62, limit)
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            seqs = [row.seq for row in rows]
            connection.execute("DELETE FROM names WHERE namespace = ? AND seq = ANY(?)", (number, seqs))
            _keep(connection, number, [(row.seq, names_in(row.encoded_text)) for row in rows])
        return seqs[-1] if seqs else after


def _keep(connection: Connection, number: int, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Keep the names of rows that are written: each one's title first, or an empty text."""
    found = [(seq, key_of(name), name == names[0]) for seq, names in rows for name in dict.fromkeys(names) if name]
    if found:
        seqs, keys, titles = zip(*found, strict=True)
        connection.execute(_KEEP, (list(seqs), signed(keys), list(titles), number))
