"""Encoding a store anew, beside the encoding in use: what every SQL dialect does in the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping

from memspan.activations.tokens import Activation
from memspan.errors import StoreBusy
from memspan.ledger.base import Unencoded
from memspan.ledger.rows import namespace_number, unencoded
from memspan.ledger.transactions import Connection, Transactions
from memspan.ledger.values import ENCODING, put_value


class Encoding(Transactions):
    """The part of a ledger that makes another encoding beside the one in use, and switches to it."""

    def begin_encoding(self, encoder: str) -> int:
        """The number of the encoding by ``encoder`` that is being made beside the one in use: of the one that was begun
        before and broken off, or a new one. What another encoder had begun is given up."""
        with self.writing() as connection:
            self.alone(connection, "next")
            row = connection.execute("SELECT value FROM store WHERE key = 'next'").fetchone()
            made = json.loads(row[0]) if row else None
            if made is None or made["encoder"] != encoder:
                (used,) = connection.execute(f"SELECT {ENCODING}").fetchone()
                (kept,) = connection.execute("SELECT coalesce(max(encoding), 0) FROM activations").fetchone()
                made = {"encoder": encoder, "number": max(used, kept) + 1}
                put_value(connection, "dropping", "")  # there are encodings for ``drop_encodings``
                put_value(connection, "next", json.dumps(made))
            return int(made["number"])

    def unencoded(self, namespace: str, encoding: int, after: int, limit: int) -> list[Unencoded]:
        """Rows after ``after`` that have no activation in ``encoding``, at most ``limit``, by seq."""
        with self.reading() as connection:
            values = (encoding, namespace_number(connection, namespace), after)
            return unencoded(connection, f"{self.missing} AND s.namespace = ? AND s.seq > ?", values, limit)

    def sample(self, most: int) -> list[str]:
        """At most ``most`` of the texts that are encoded, evenly spread over what is stored."""
        with self.reading() as connection:
            (total,) = connection.execute("SELECT count(*) FROM segments").fetchone()
            step = max(1, total // most)
            rows = unencoded(connection, "segments AS s WHERE s.seq % ? = 0", (step,), most)
        return list({row.content: row.encoded_text for row in rows}.values())

    def count_unencoded(self, encoding: int) -> int:
        """How many texts have no activation in ``encoding``."""
        with self.reading() as connection:
            sql = f"SELECT count(*) FROM (SELECT DISTINCT {self.of_text} FROM {self.missing}) AS texts"
            return int(connection.execute(sql, (encoding,)).fetchone()[0])

    def give_up_encoding(self) -> None:
        """Drop what was made of an encoding that was begun."""
        with self.writing() as connection:
            ended(connection)
        self.drop_encodings()

    def keep_encoding(self, namespace: str, activations: Mapping[bytes, Activation], encoding: int) -> None:
        """Keep activations in ``encoding`` beside those in use, of texts that are still there. Raises StoreBusy where
        that was given up."""
        with self.writing() as connection:
            begun(connection, encoding)
            number = namespace_number(connection, namespace)
            self.keep(connection, number, self.wanted(connection, number, activations), encoding)

    def use_encoding(self, encoding: int, encoder: str, basis: str, after: Mapping[str, int], *, vectors: bool) -> bool:
        """Switch to ``encoding``, made by ``encoder`` on ``basis``, in one transaction; False, and nothing done, where
        a row has come that is not in it, after the seq ``after`` of its namespace. Rows up to there that are not in it
        wait for their vector.

        ``vectors``: the vectors are others, so what views have made of them goes.
        """
        with self.writing() as connection:
            begun(connection, encoding)
            self.nobody_writes(connection)
            came = f"SELECT 1 FROM {self.missing} AND s.namespace = ? AND s.seq > ? LIMIT 1"
            for number, name in connection.execute("SELECT number, name FROM namespaces").fetchall():
                if connection.execute(came, (encoding, number, after.get(name, 0))).fetchone():
                    return False
            for key, value in (("encoder", encoder), ("basis", basis), ("encoding", str(encoding))):
                put_value(connection, key, value)
            ended(connection)
            connection.execute("DELETE FROM pending")
            sql = f"INSERT INTO pending (seq, namespace) SELECT s.seq, s.namespace FROM {self.missing}"
            connection.execute(sql, (encoding,))
            if vectors:
                connection.execute("DELETE FROM snapshots WHERE view IN ('vectors', 'tree', 'graph')")
        return True


def begun(connection: Connection, encoding: int) -> None:
    """Raises StoreBusy unless ``encoding`` is the one that is being made."""
    row = connection.execute("SELECT value FROM store WHERE key = 'next'").fetchone()
    if row is None or json.loads(row[0])["number"] != encoding:
        raise StoreBusy("what was being encoded anew was given up by another process", mend="begin again, if you will")


def ended(connection: Connection) -> None:
    """Nothing is being encoded anew any more: it is in use now, or given up, and there is something to drop."""
    put_value(connection, "dropping", "")
    connection.execute("DELETE FROM store WHERE key = 'next'")
