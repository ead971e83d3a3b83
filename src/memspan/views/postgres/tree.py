"""The tree on PostgreSQL: its snapshots are rows, and what categories are about is summed up there.

The clusters are grown by the one process that folds rows in and read by others as arrays, so none but that one ever
reads the vectors of all rows. A search asks only how well categories suit it: these are sums over their rows, which the
server makes. A process keeps them from one search to the next and adds what came; when a row is gone, whose vector
nobody can take off any more, they are made anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs
from memspan.ledger.postgres.activations import ACTIVATED
from memspan.ledger.postgres.connections import PostgresConnection
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.rows import namespace_number, path_of
from memspan.ledger.values import ENCODING
from memspan.views.postgres.snapshots import SnapshotRows
from memspan.views.tree import TreeView

MOST_BYTES = 64 << 20  # of sums held over all namespaces

_HEAD = f"SELECT seq, removal, {ENCODING} FROM heads WHERE namespace = ?"
_GONE = (
    "SELECT count(*) FROM removals AS r WHERE namespace = ?1 AND entry > ?2 AND seq <= ?3"
    " AND NOT EXISTS (SELECT 1 FROM segments WHERE namespace = ?1 AND seq = r.seq)"
)
_SUMS = (  # of rows before the first that waits for its vector, and of those after it, which others may yet join
    "SELECT s.category, s.seq < coalesce((SELECT min(seq) FROM pending WHERE namespace = ?1), s.seq + 1) AS settled,"
    f" sum(CAST(a.pooled AS vector)) FROM {ACTIVATED}"
    " WHERE s.namespace = ?1 AND s.seq > ?2 AND s.category IS NOT NULL GROUP BY 1, 2"
)
_WAITING = "SELECT coalesce(min(seq) - 1, ?2) FROM pending WHERE namespace = ?1"
_HOMES = "SELECT seq, category FROM segments WHERE namespace = ? AND seq = ANY(?) AND category IS NOT NULL"

Sums = dict[tuple[str, ...], NDArray[np.float64]]


@dataclass(slots=True)
class _Centroids:
    """The sums of the vectors in categories and below, float64[dim]: of all rows up to ``upto`` that are there by entry
    ``removal`` of the removal log."""

    encoding: int
    removal: int
    upto: int = 0
    sums: Sums = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(each.nbytes + 200 for each in self.sums.values())


class PostgresTree(TreeView):
    """``View`` by category and cluster, over a database."""

    def __init__(self, ledger: PostgresLedger, dim: int) -> None:
        super().__init__(ledger, None, dim)
        self._files = SnapshotRows(ledger, self.name)
        self._database = ledger
        self._known: OrderedDict[str, _Centroids] = OrderedDict()
        self._turn = threading.Lock()

    def prior(self, namespace: str, vector: NDArray[np.float32], seqs: Seqs) -> NDArray[np.float32]:
        with self._database.reading() as connection, self._turn:
            number = namespace_number(connection, namespace)
            homes, sums = self._summed(connection, namespace, number, seqs)
        scores = np.full(len(seqs), np.nan, np.float32)
        suits: dict[tuple[str, ...], float] = {}
        for at, seq in enumerate(seqs.tolist()):
            path = path_of(homes.get(seq))
            for depth in range(1, len(path) + 1):
                above = path[:depth]
                if above not in suits:
                    suits[above] = _cosine(sums.get(above), vector)
                scores[at] = np.fmax(scores[at], suits[above])
        return scores.clip(0, 1)

    def _summed(
        self, connection: PostgresConnection, namespace: str, number: int, seqs: Seqs
    ) -> tuple[dict[int, str], Sums]:
        """The categories of ``seqs``, and the sums of all, in one round trip unless a row is gone since the last."""
        known = self._known.get(namespace) or _Centroids(0, 0)
        while True:
            with connection.raw.pipeline():
                head = connection.execute(_HEAD, (number,))
                gone = connection.execute(_GONE, (number, known.removal, known.upto))
                waiting = connection.execute(_WAITING, (number, -1))
                found = connection.execute(_HOMES, (number, seqs.tolist()))
                parts = connection.binary(_SUMS, (number, known.upto))
                row, lost, (first,) = head.fetchone(), gone.fetchone(), waiting.fetchone()
                homes = dict(found.fetchall())
            if row is None:
                return {}, {}
            seq, removal, encoding = row
            if known.upto == 0 or (lost[0] == 0 and known.encoding == encoding):
                break
            known = _Centroids(0, 0)
        known.encoding, known.removal = encoding, max(removal, known.removal)
        known.upto = max(known.upto, seq if first < 0 else min(first, seq))
        for category, settled, raw in parts:
            if settled:
                _add(known.sums, path_of(category), raw)
        self._keep(namespace, known)
        late = [(path_of(category), raw) for category, settled, raw in parts if not settled]
        if not late:
            return homes, known.sums
        sums = dict(known.sums)
        for path, raw in late:
            _add(sums, path, raw)
        return homes, sums

    def _keep(self, namespace: str, known: _Centroids) -> None:
        self._known[namespace] = known
        self._known.move_to_end(namespace)
        held = sum(each.bytes for each in self._known.values())
        while held > MOST_BYTES and len(self._known) > 1:
            held -= self._known.popitem(last=False)[1].bytes


def _add(sums: Sums, path: tuple[str, ...], raw: Any) -> None:
    """Add a vector, as PostgreSQL sends it, to the sums of a category and of all above it."""
    vector = np.frombuffer(raw[4:], ">f4").astype(np.float64)
    for depth in range(1, len(path) + 1):
        above = path[:depth]
        sums[above] = sums[above] + vector if above in sums else vector


def _cosine(total: NDArray[np.float64] | None, vector: NDArray[np.float32]) -> float:
    if total is None:
        return float("nan")
    return float(total @ vector / max(float(np.linalg.norm(total)), 1e-9))
