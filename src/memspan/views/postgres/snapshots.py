"""Snapshots as rows of the database, where every process finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from memspan.errors import StoreCorrupt
from memspan.ledger.base import Snapshot
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.rows import namespace_number
from memspan.views.base import Snapshots

PART = 4 << 20  # bytes of a row


class SnapshotRows(Snapshots):
    """Snapshots in the table ``snapshot_parts``. One is written in several transactions, so that nobody waits long who
    writes in the namespace; and used once it is registered."""

    def __init__(self, ledger: PostgresLedger, view: str) -> None:
        super().__init__(ledger, view)
        self._database = ledger

    @property
    def enabled(self) -> bool:
        return True

    @contextmanager
    def lock(self) -> Iterator[None]:
        number = int.from_bytes(sha256(f"memspan snapshots\0{self._view}".encode()).digest()[:8], signed=True)
        with self._database.connected() as raw:
            raw.execute("SELECT pg_advisory_lock(%s)", (number,))
            try:
                yield
            finally:
                if not raw.closed:
                    raw.execute("SELECT pg_advisory_unlock(%s)", (number,))

    def size(self) -> int:
        """Bytes of the table: of all views that keep snapshots in it."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT pg_total_relation_size('memspan.snapshot_parts')").fetchone()[0])

    def sweep(self, namespace: str | None = None) -> None:
        for space in self._ledger.namespaces() if namespace is None else [namespace]:
            with self._database.writing() as connection:
                connection.execute(
                    "DELETE FROM snapshot_parts WHERE namespace = ?1 AND starts_with(file, ?2) AND file NOT IN"
                    " (SELECT file FROM snapshots WHERE namespace = ?1)",
                    (namespace_number(connection, space), f"{self._view}-"),
                )

    def _read(self, snapshot: Snapshot) -> bytes:
        with self._database.reading() as connection:
            number = namespace_number(connection, snapshot.namespace)
            sql = "SELECT bytes FROM snapshot_parts WHERE namespace = ? AND file = ? ORDER BY part"
            parts = connection.binary(sql, (number, snapshot.file))
        if not parts:
            raise StoreCorrupt(f"{snapshot.file} is gone", mend="it is rebuilt from the ledger")
        return b"".join(part for (part,) in parts)

    def _write(self, namespace: str, name: str, raw: bytes) -> None:
        sql = "INSERT INTO snapshot_parts (namespace, file, part, bytes) VALUES (?, ?, ?, ?)"
        for number, start in enumerate(range(0, len(raw), PART)):
            with self._database.writing() as connection:
                space = namespace_number(connection, namespace)
                connection.execute(sql, (space, name, number, raw[start : start + PART]))

    def _remove(self, namespace: str, name: str) -> None:
        with self._database.writing() as connection:
            number = namespace_number(connection, namespace)
            connection.execute("DELETE FROM snapshot_parts WHERE namespace = ? AND file = ?", (number, name))
