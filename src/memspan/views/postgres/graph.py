"""The graph in PostgreSQL: what stands beside a row and who shares its names are asked of tables, in one round trip.

A name is followed only as far as it may tell something: who holds it is read in the order of an index, and given up as
soon as it is a hub in the selection. So a name that everybody mentions costs no more than one of a hundred rows, and a
user's question nothing of what others say of it. Whether a row is in the selection the index tells for most of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.postgres.names import signed
from memspan.ledger.rows import namespace_number
from memspan.records import Scope
from memspan.views import association
from memspan.views.adjacency import DEGREE, FEWEST, Rows
from memspan.views.association import Edges, Graph, Holders, Mentions, NearestIn, unnamed
from memspan.views.base import Progress, Selection, find_sorted
from memspan.views.postgres.selections import PostgresSelection, on_server

BATCH = 2_048


class PostgresGraph(Graph):
    """``View`` by association, all edges in tables of the ledger's, which are written with each row."""

    def __init__(self, ledger: PostgresLedger, nearest: NearestIn | None) -> None:
        super().__init__(ledger, nearest)
        self._database = ledger
        self.failure: str | None = None

    # Where the edges are

    def beside(self, selection: Selection, seqs: Seqs, reach: int = 1) -> tuple[Rows, Seqs, Rows]:
        return self._beside(on_server(selection), seqs, reach, " AND o.place > 0")

    def _following(self, selection: Selection, seqs: Seqs) -> Edges:
        origin, target, _ = self._beside(on_server(selection), seqs, 1, "")
        return unnamed(origin, target, np.ones(len(origin), np.float32), "next")

    def _beside(self, selection: PostgresSelection, seqs: Seqs, reach: int, which: str) -> tuple[Rows, Seqs, Rows]:
        """As ``beside``, of those among ``seqs`` for which ``which`` holds of their place; the nearest first."""
        inner, values = selection.source("seq, place")
        sql = (
            "SELECT o.seq, t.seq, step FROM segments AS o, unnest(CAST(? AS BIGINT[])) AS step"
            f", LATERAL (SELECT seq FROM {inner} AS i WHERE i.place = o.place + step OFFSET 0) AS t"
            f" WHERE o.namespace = ? AND o.seq = ANY(?){which}"
        )
        steps = [step for away in range(1, reach + 1) for step in (away, -away)]
        found = self._asked(selection, sql, (steps, *values, selection.number, seqs.tolist()))
        origins, targets, by = np.array(found, np.int64).reshape(-1, 3).T
        rows = _index(seqs, origins)
        order = np.lexsort((targets, rows, -np.sign(by), np.abs(by)))
        return rows[order], targets[order], by[order]

    def _mentioned(self, selection: Selection, seqs: Seqs) -> tuple[Mentions, NDArray[np.uint64], Holders]:
        chosen = on_server(selection)
        said = (
            "(SELECT key, array_agg(seq * 2 + CAST(title AS INTEGER)) AS said FROM names"
            " WHERE namespace = ? AND seq = ANY(?) GROUP BY key) AS k"
        )
        held, values = _held(chosen)
        sql = f"SELECT k.key, h.held, k.said FROM {said}{held}"
        found = self._asked(chosen, sql, (chosen.number, seqs.tolist(), *values))
        keys, holders = _holders([(key, held) for key, held, _ in found])
        number = np.searchsorted(keys, np.array([key for key, _, _ in found], np.int64).view(np.uint64))
        origins = np.concatenate([np.zeros(0, np.int64), *(said for _, _, said in found)]).astype(np.int64)
        named = np.repeat(number, [len(said) for _, _, said in found])
        return Mentions(_index(seqs, origins >> 1), keys[named], (origins & 1).astype(bool)), keys, holders

    def _holders(self, selection: Selection, keys: NDArray[np.uint64]) -> Holders:
        chosen = on_server(selection)
        held, values = _held(chosen)
        sql = f"SELECT k.key, h.held FROM unnest(CAST(? AS BIGINT[])) AS k (key){held}"
        found = self._asked(chosen, sql, (signed(keys.tolist()), *values))
        known, holders = _holders(found)
        return holders._replace(names=np.searchsorted(keys, known)[holders.names])

    def _similar(self, selection: Selection, seqs: Seqs, nearest: NearestIn) -> Edges:
        order = np.argsort(seqs)
        near, cosines = nearest(selection.namespace, seqs[order], DEGREE + 1)
        origin, target = np.repeat(order, near.shape[1]), near.ravel()
        real = (target >= 0) & (target != seqs[origin]) & (cosines.ravel() >= FEWEST)
        edges = unnamed(origin[real], target[real], cosines.ravel()[real].clip(0, 1), "similar")
        return edges.to(selection.inside(edges.target))

    def _known(self, namespace: str, seqs: Seqs) -> Seqs:
        sql = "SELECT seq FROM segments WHERE namespace = ? AND seq = ANY(?) ORDER BY seq"
        with self._database.reading() as connection:
            rows = connection.binary(sql, (namespace_number(connection, namespace), seqs.tolist()))
        return np.array([seq for (seq,) in rows], np.int64)

    def _asked(self, selection: PostgresSelection, sql: str, values: Sequence[Any]) -> list[Any]:
        with self._database.reading() as connection:
            namespace_number(connection, selection.namespace)
            return connection.binary(sql, values)

    # Care

    def due(self, namespace: str) -> bool:
        """False: rows are in the tables as soon as they are written."""
        return False

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Nothing; ``force`` finds the names of all rows anew."""
        if not force:
            return False
        last, total = self._database.last_row(namespace), len(self._database.rows(namespace))
        done = after = 0
        while after < last and (upto := self._database.name_anew(namespace, after, BATCH)) > after:
            after, done = upto, min(done + BATCH, total)
            if progress is not None:
                progress(done, total, self.name)
        self.failure = None
        return total > 0

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the tables, nothing in a ``tail``, and the last ``failure``."""
        with self._database.reading():
            rows, last = self._database.count_after(namespace, 0), self._database.last_row(namespace)
        return {"position": last, "rows": rows, "tail": 0, "failure": self.failure}

    def problems(self, namespace: str) -> list[str]:
        """None: what the tables lack the ledger's own proof tells."""
        return []

    def size(self) -> int:
        """Bytes of the tables that nothing but the graph is for."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT pg_total_relation_size('memspan.names')").fetchone()[0])


def _held(selection: PostgresSelection) -> tuple[str, list[Any]]:
    """Joins to keys, k, those rows of the selection that mention each, h.held: seq * 2, and 1 where it is the title.
    A name that too many rows mention is left out."""
    scope, then = selection.scope, selection.then
    user = scope.user_id
    told = (  # in such a selection are all plain rows of the user
        scope == Scope(namespace=scope.namespace, user_id=user)
        and selection.filters is None
        and selection.given is None
        and (then is None or then.known is None)
    )
    inner, values = selection.source("seq")
    most, hub = association.MOST_HELD, association.HUB
    every = (
        "SELECT seq, title, plain, row_number() OVER () AS number FROM names WHERE namespace = ? AND key = k.key"
        f"{'' if user is None else ' AND user_id = ?'} LIMIT {most + 1}"
    )
    seen = (
        f"SELECT n.seq * 2 + CAST(n.title AS INTEGER) AS held, n.number FROM ({every}) AS n"
        f" WHERE {'n.plain OR ' if told else ''}n.number > {most}"
        f" OR EXISTS (SELECT 1 FROM {inner} AS i WHERE i.seq = n.seq OFFSET 0) LIMIT {hub + 1}"  # one row at a time
    )
    joined = (
        f", LATERAL (SELECT array_agg(held) AS held, max(number) AS number FROM ({seen}) AS f) AS h"
        f" WHERE h.number <= {most} AND cardinality(h.held) <= {hub}"
    )
    return joined, [selection.number, *([] if user is None else [user]), *values]


def _holders(found: Sequence[tuple[int, list[int]]]) -> tuple[NDArray[np.uint64], Holders]:
    """The keys that ``found`` has, ascending, and their holders."""
    keys = np.array([key for key, _ in found], np.int64).view(np.uint64)
    order = np.argsort(keys)
    held = np.concatenate([np.zeros(0, np.int64), *(np.sort(found[at][1]) for at in order)]).astype(np.int64)
    names = np.repeat(np.arange(len(order)), [len(found[at][1]) for at in order])
    return keys[order], Holders(names, held >> 1, (held & 1).astype(bool))


def _index(seqs: Seqs, some: Seqs) -> Rows:
    """Where in ``seqs`` each of ``some`` stands, which are all there."""
    order = np.argsort(seqs)
    at, _ = find_sorted(seqs[order], some)
    return order[at].astype(np.int64)
