"""The vector view in PostgreSQL: cosine similarity by pgvector, over exactly the rows a query may see.

A small namespace, or a scope that leaves few rows of a large one, is compared whole. A large namespace has an HNSW
graph over its vectors alone (Malkov and Yashunin, arXiv:1603.09320), a partial index: so no walk ever sees another
tenant's vectors, and the small ones pay for none. Putting a vector into a graph takes as long as encoding its text; so
rows come late into it, when they are folded in, and until then are compared one by one. Which way is taken follows from
counts, not from the planner. A walk that finds too few is followed by comparing all, in the same statement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil, log2
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector, Vector

from memspan.ledger.base import Seqs, Vectors
from memspan.ledger.postgres.activations import ACTIVATED
from memspan.ledger.postgres.connections import SCHEMA, SETTING, PostgresConnection
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.rows import namespace_number
from memspan.views.base import Progress, Scored, Selection
from memspan.views.postgres.selections import Head, PostgresSelection, graph_of, head_of, on_server

GRAPH_ROWS = 5_000  # up to here comparing every row takes some 10 ms, and no graph is kept
LINKS = 16
BUILD_BEAM = 64
SEARCH_BEAM = 200
NEAREST_BEAM = 64  # where the nearest rows of many are looked for
WIDEST_BEAM = 1_000  # that pgvector takes
LATE_ROWS = 1_000  # after the last folding, or a fiftieth of all, beyond which folding pays
WALK = 500  # rows that are compared in the time a walk takes to begin,
STEP = 5  # and to find the next row
SPARE = 4  # how many times the rows a walk should pass until it has found enough it may pass
BATCH = 256  # rows folded in at once: half a second
PAIRS = 4_000_000  # compared in one statement where the nearest rows of many are looked for
TELLING = 0.5  # seconds between two tellings of progress
MOST_MEMORY = 1_024  # megabytes, for building a graph

_MEMORY = (  # at least so many kilobytes
    "SELECT set_config('maintenance_work_mem', greatest("
    "pg_size_bytes(current_setting('maintenance_work_mem')) / 1024, %s) || 'kB', FALSE)"
)
_NONE = Scored(np.zeros(0, np.int64), np.zeros(0, np.float32))
_JOINED = "JOIN activations AS a ON a.namespace = ? AND a.content = s.content AND a.encoding = ?"


class _Work(NamedTuple):
    """What there is to do in a namespace: graphs that go, how many rows need a ``fresh`` one, and are to be folded."""

    head: Head
    gone: list[str]
    fresh: int
    late: int


class PostgresVectors:
    """``View`` by meaning. Scores are cosines in [-1, 1]; ``dim`` is the encoder's."""

    name = "vectors"

    def __init__(self, ledger: PostgresLedger, dim: int) -> None:
        self.dim = dim
        self.failure: str | None = None
        self._ledger = ledger
        self._made: type[HalfVector] | type[Vector] = HalfVector if ledger.can.half else Vector
        self._typed = f"CAST(pooled AS {ledger.can.column}({dim}))"

    def search(self, selection: Selection, vector: NDArray[np.float32], k: int) -> Scored:
        """The ``k`` rows of ``selection`` nearest to ``vector`` float32[dim], best first."""
        chosen = on_server(selection)
        if not chosen.rows:
            return _NONE
        passing = self._passing(chosen, k)
        with self._ledger.reading() as connection:
            namespace_number(connection, chosen.namespace)
            if passing is None:
                sql, values = self._compared(chosen)
                rows = connection.binary(f"{sql} LIMIT ?", (self._made(vector), *values, k))
            else:
                rows = self._walked(connection, chosen, self._made(vector), k, passing)
        return _scored(rows).top(k)

    def scans(self, selection: Selection) -> bool:
        """True: a walk's beam is wide enough that no other view is asked for what it may miss."""
        return True

    def among(self, selection: Selection, seqs: Seqs, vector: NDArray[np.float32], k: int) -> Scored:
        """The ``k`` nearest to ``vector`` of ``seqs``, rows of ``selection`` in ascending order; all are compared."""
        sql = (
            f"SELECT s.seq, -(a.pooled <#> ?) AS score FROM {ACTIVATED} WHERE s.namespace = ? AND s.seq = ANY(?)"
            " ORDER BY score DESC LIMIT ?"
        )
        with self._ledger.reading() as connection:
            number = namespace_number(connection, selection.namespace)
            return _scored(connection.binary(sql, (self._made(vector), number, seqs.tolist(), k))).top(k)

    def score(self, namespace: str, vector: NDArray[np.float32], seqs: Seqs) -> NDArray[np.float32]:
        """Cosine of ``vector`` with each of ``seqs``, float32[n]; NaN where a row has no vector yet."""
        sql = (  # the query's vector is not rounded to the rows' type
            f"SELECT s.seq, -(CAST(a.pooled AS vector) <#> ?) FROM {ACTIVATED} WHERE s.namespace = ? AND s.seq = ANY(?)"
        )
        with self._ledger.reading() as connection:
            number = namespace_number(connection, namespace)
            known = dict(connection.binary(sql, (Vector(vector), number, seqs.tolist())))
        return np.array([known.get(seq, np.nan) for seq in seqs.tolist()], np.float32)

    def own(self, namespace: str, seqs: Seqs) -> tuple[Vectors, NDArray[np.bool_]]:
        """The vectors of those of ``seqs`` (ascending) that have one, and of all of them whether they do."""
        found, vectors = self._ledger.vectors_of(namespace, seqs.tolist())
        return vectors, np.isin(seqs, found, assume_unique=True)

    def nearest(self, selection: Selection, seqs: Seqs, k: int) -> tuple[Seqs, NDArray[np.float32]]:
        """The ``k`` rows of ``selection`` nearest to each of ``seqs``: seqs int64[n, k], cosines float32[n, k].

        Where there are fewer, or a walk finds no more, and for rows without a vector, seqs are -1.
        """
        chosen = on_server(selection)
        near = np.full((len(seqs), k), -1, np.int64)
        cosines = np.zeros((len(seqs), k), np.float32)
        if not chosen.rows:
            return near, cosines
        head, passing = chosen.head, self._passing(chosen, k)
        each = f"(SELECT s.seq, a.pooled FROM {ACTIVATED} WHERE s.namespace = ? AND s.seq = ANY(?)) AS o"
        inner, values = chosen.source("seq, content")
        if passing is None:
            block = max(1, PAIRS // chosen.rows)
            sql = (
                f"WITH within AS MATERIALIZED (SELECT s.seq, a.pooled FROM {inner} AS s {_JOINED})"
                f" SELECT o.seq, n.seq, n.score FROM {each} JOIN LATERAL (SELECT w.seq, -(w.pooled <#> o.pooled)"
                f" AS score FROM within AS w ORDER BY score DESC LIMIT {int(k)}) AS n ON TRUE"
            )
            before, after = [*values, head.number, head.encoding], []
        else:
            block = BATCH
            graph = self._steps(head, f"CAST(o.pooled AS {self._ledger.can.column}({self.dim}))", passing)
            late = self._late(head, "o.pooled")
            sql = (
                f"SELECT o.seq, n.seq, n.score FROM {each} JOIN LATERAL"
                f" ((SELECT s.seq, -a.away AS score FROM {graph} WHERE {chosen.clause} LIMIT {int(k)}) UNION ALL"
                f" (SELECT s.seq, -a.away AS score FROM {late} WHERE {chosen.clause} ORDER BY a.away LIMIT {int(k)}))"
                " AS n ON TRUE"
            )
            before, after = [], [*chosen.values, *chosen.values]
        for start in range(0, len(seqs), block):
            some = seqs[start : start + block].tolist()
            with self._ledger.reading() as connection:
                number = namespace_number(connection, chosen.namespace)
                rows = connection.binary(
                    sql, (*before, number, some, *after), during=self._width(passing, max(NEAREST_BEAM, k))
                )
            _placed(rows, seqs, near, cosines)
        return near, cosines

    # Comparing and walking

    def _passing(self, chosen: PostgresSelection, k: int) -> int | None:
        """How many rows a walk for the ``k`` nearest may pass; None where comparing every row is faster, or there is no
        graph."""
        head = chosen.head
        expected = ceil(k * max(1.0, head.seq / chosen.rows))
        if not head.walkable or chosen.rows <= WALK + STEP * expected:
            return None
        if not self._ledger.can.iterative and 2 * expected > WIDEST_BEAM:
            return None
        return int(2 ** ceil(log2(SPARE * expected)))  # few numbers, so few plans

    def _compared(self, chosen: PostgresSelection) -> tuple[str, list[Any]]:
        """All rows of a selection by their cosine with a vector, the nearest first; the values after that vector."""
        inner, values = chosen.source("seq, content")
        sql = f"SELECT s.seq, -(a.pooled <#> ?) AS score FROM {inner} AS s {_JOINED} ORDER BY score DESC"
        return sql, [*values, chosen.number, chosen.head.encoding]

    def _steps(self, head: Head, vector: str, passing: int) -> str:
        """The rows ``s`` that a walk comes by, about the nearest first, and how far each is, ``a.away``."""
        return (
            f"(SELECT content AS text_hash, {self._typed} <#> {vector} AS away FROM activations"
            f" WHERE namespace = {head.number} AND encoding = {head.encoding} AND folded"
            f" ORDER BY {self._typed} <#> {vector} LIMIT {passing}) AS a {_of_text(head)}"
        )

    def _late(self, head: Head, vector: str) -> str:
        """The rows ``s`` that are not in the graph, and how far each is, ``a.away``."""
        return (
            f"(SELECT content AS text_hash, pooled <#> {vector} AS away FROM activations"
            f" WHERE namespace = {head.number} AND encoding = {head.encoding} AND NOT folded) AS a {_of_text(head)}"
        )

    def _walked(
        self,
        connection: PostgresConnection,
        chosen: PostgresSelection,
        vector: HalfVector | Vector,
        k: int,
        passing: int,
    ) -> list[Any]:
        """The nearest that a walk finds, those of the rows that are not in the graph, and where the walk found too few,
        those of all."""
        head, values = chosen.head, chosen.values
        compared, bound = self._compared(chosen)
        inside = f"WHERE {chosen.clause}"
        sql = (
            f"WITH walked AS MATERIALIZED (SELECT s.seq, -a.away AS score FROM {self._steps(head, '?', passing)}"
            f" {inside} LIMIT {int(k)})"
            f" SELECT seq, score FROM walked UNION ALL (SELECT s.seq, -a.away AS score FROM {self._late(head, '?')}"
            f" {inside} ORDER BY score DESC LIMIT {int(k)})"
            f" UNION ALL SELECT seq, score FROM ({compared} LIMIT {int(k)}) AS every"
            f" WHERE (SELECT count(*) FROM walked) < {min(int(k), chosen.rows)}"
        )
        bound = [vector, vector, *values, vector, *values, vector, *bound]
        return connection.binary(sql, bound, during=self._width(passing, max(SEARCH_BEAM, k)))

    def _width(self, passing: int | None, beam: int) -> dict[str, str]:
        """How wide a walk is, and what the planner must not do in it; nothing where there is none."""
        if passing is None:
            return {}
        planned = {"enable_sort": "off", "enable_seqscan": "off"}
        if not self._ledger.can.iterative:  # it gives no more rows than its beam is wide
            return {**planned, "hnsw.ef_search": str(min(max(beam, 2 * passing // SPARE), WIDEST_BEAM))}
        return {
            **planned,
            "hnsw.ef_search": str(min(beam, WIDEST_BEAM)),
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": str(passing),
        }

    # Care

    def due(self, namespace: str) -> bool:
        """Whether the namespace has grown so large without a graph, or so much after it, that folding pays."""
        with self._ledger.reading() as connection:
            head = head_of(connection, namespace)
            if head.seq < GRAPH_ROWS or (self._ledger.can.bound and not head.walkable):  # graphs are their owner's
                return False
            most = max(LATE_ROWS, head.seq // 50) if head.walkable else GRAPH_ROWS
            return _count(connection, head, "NOT folded", most) >= most or (
                not head.walkable and _count(connection, head, "folded", most) >= most
            )

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Make the namespace's graph where it has grown large, fold in what came later, drop a graph of few rows, of an
        encoding that is not in use, or that is not whole. One process at a time; searches go on.

        ``force`` makes it anew. A role that is bound to namespaces only folds in: graphs are the owner's to make.
        """
        if self._ledger.moment() is not None:  # an index waits for every transaction, and so for ours
            return False
        if not any(self._work(namespace, force)[1:]):
            self.failure = None
            return False
        with self._ledger.indexing():  # somebody else may have done it meanwhile
            head, gone, fresh, late = self._work(namespace, force)
            for each in gone:
                self._say(f"DROP INDEX CONCURRENTLY IF EXISTS {SCHEMA}.{each}")
            folded = self._folded(head, late, None if fresh else progress)
            if fresh:
                self._made_anew(head, fresh, progress)
        self.failure = None
        return bool(gone or fresh or folded)

    def _work(self, namespace: str, force: bool) -> _Work:
        with self._ledger.reading() as connection:
            head = head_of(connection, namespace)
            rows = _count(connection, head, "TRUE")
            graphs = _graphs(connection, head.number)
            late = _count(connection, head, "NOT folded")
        name = graph_of(head.number, head.encoding)
        stays = rows >= (GRAPH_ROWS // 2 if graphs.get(name) else GRAPH_ROWS)
        if self._ledger.can.bound:
            return _Work(head, [], 0, late if graphs.get(name) else 0)
        gone = [each for each, whole in graphs.items() if each != name or force or not whole or not stays]
        made = graphs.get(name, False) and not force
        return _Work(head, gone, rows if stays and not made else 0, late if stays else 0)

    def _folded(self, head: Head, late: int, progress: Progress | None) -> int:
        """Let late rows into the graph, and tell how many; they are as good as in one that is made afterwards."""
        sql = (
            f"UPDATE {SCHEMA}.activations SET folded = TRUE WHERE namespace = %s AND encoding = %s AND content = ANY("
            f"ARRAY(SELECT content FROM {SCHEMA}.activations WHERE namespace = %s AND encoding = %s AND NOT folded"
            f" LIMIT {BATCH} FOR UPDATE SKIP LOCKED))"
        )
        done = 0
        with self._ledger.connected() as raw:
            while done < late:
                with raw.transaction():
                    raw.execute(f"SET LOCAL {SETTING} = '{head.number}'")
                    came = raw.execute(sql, (head.number, head.encoding) * 2).rowcount
                if not came:
                    break
                done += came
                if progress is not None:
                    progress(min(done, late), late, self.name)
        return done

    def _made_anew(self, head: Head, rows: int, progress: Progress | None) -> None:
        column = self._ledger.can.column
        sql = (
            f"CREATE INDEX CONCURRENTLY {graph_of(head.number, head.encoding)} ON {SCHEMA}.activations"
            f" USING hnsw (({self._typed}) {column}_ip_ops) WITH (m = {LINKS}, ef_construction = {BUILD_BEAM})"
            f" WHERE namespace = {head.number} AND encoding = {head.encoding} AND folded"
        )
        memory = min(MOST_MEMORY, max(64, rows * (4 * self.dim + 1_024) >> 20))
        with self._told(rows, progress):
            self._say(sql, memory)
        if progress is not None:
            progress(rows, rows, self.name)

    def _say(self, sql: str, memory: int = 64) -> None:
        """A statement that no transaction may hold, and that takes as long as it takes."""
        with self._ledger.connected() as raw:
            raw.execute("SET statement_timeout = 0")
            raw.execute(_MEMORY, (memory << 10,))
            try:
                raw.execute(sql)
            finally:
                if not raw.closed:
                    raw.execute("RESET statement_timeout")
                    raw.execute("RESET maintenance_work_mem")

    @contextmanager
    def _told(self, rows: int, progress: Progress | None) -> Iterator[None]:
        """Tell now and then how many rows are in the graph that is being made meanwhile."""
        if progress is None:
            yield
            return
        over = threading.Event()
        teller = threading.Thread(target=self._tell, args=(over, rows, progress), daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def _tell(self, over: threading.Event, rows: int, progress: Callable[[int, int, str], None]) -> None:
        sql = (
            "SELECT tuples_done FROM pg_stat_progress_create_index"
            f" WHERE datname = current_database() AND relid = CAST('{SCHEMA}.activations' AS regclass)"
        )
        while not over.wait(TELLING):
            with self._ledger.connected() as raw:
                row = raw.execute(sql).fetchone()
            if row is not None and row[0]:
                progress(min(int(row[0]), rows), rows, self.name)

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the graph, rows in the ``tail`` beside it, and the last ``failure``."""
        with self._ledger.reading() as connection:
            head = head_of(connection, namespace)
            rows = _count(connection, head, "folded") if head.walkable else 0
            tail = _count(connection, head, "NOT folded" if head.walkable else "TRUE")
        return {
            "position": head.seq if head.walkable else 0, "rows": rows, "tail": tail, "failure": self.failure
        }  # fmt: skip

    def problems(self, namespace: str) -> list[str]:
        """Names the graphs that are not whole: making them was broken off. Searches do without."""
        with self._ledger.reading() as connection:
            graphs = _graphs(connection, namespace_number(connection, namespace))
        mend = "it is made again by `memspan compact`"
        return [f"the index {name} of {namespace} is not whole; {mend}" for name, whole in graphs.items() if not whole]

    def size(self) -> int:
        """Bytes of the graphs of all namespaces."""
        sql = (
            "SELECT coalesce(sum(pg_relation_size(c.oid)), 0) FROM pg_class AS c"
            f" WHERE c.relnamespace = CAST('{SCHEMA}' AS regnamespace) AND c.relname ~ '^vectors_[0-9]+_[0-9]+$'"
        )
        with self._ledger.reading() as connection:
            return int(connection.execute(sql).fetchone()[0])


def _of_text(head: Head) -> str:
    """The rows ``s`` with the text of ``a``, found by it and in no other way."""
    found = f"SELECT * FROM segments WHERE namespace = {head.number} AND content = a.text_hash OFFSET 0"
    return f"JOIN LATERAL ({found}) AS s ON TRUE"


def _scored(rows: list[Any]) -> Scored:
    best = dict(rows)
    return Scored(np.array(list(best), np.int64), np.array(list(best.values()), np.float32))


def _placed(rows: list[Any], seqs: Seqs, near: Seqs, cosines: NDArray[np.float32]) -> None:
    """Put (seq, neighbour, cosine) where they belong, the nearest first."""
    found: dict[int, dict[int, float]] = {}
    for seq, neighbour, score in rows:
        found.setdefault(seq, {})[neighbour] = score
    for seq, scores in found.items():
        at, best = int(np.searchsorted(seqs, seq)), sorted(scores.items(), key=lambda each: (-each[1], -each[0]))
        for place, (neighbour, score) in enumerate(best[: near.shape[1]]):
            near[at, place], cosines[at, place] = neighbour, score


def _count(connection: PostgresConnection, head: Head, which: str, most: int | None = None) -> int:
    """How many vectors of the namespace there are in the encoding in use, counted up to ``most``."""
    limit = "" if most is None else f" LIMIT {most}"
    inner = f"SELECT 1 FROM activations WHERE namespace = ? AND encoding = ? AND {which}{limit}"
    sql = f"SELECT count(*) FROM ({inner}) AS a"
    return int(connection.execute(sql, (head.number, head.encoding)).fetchone()[0])


def _graphs(connection: PostgresConnection, number: int) -> dict[str, bool]:
    """The graphs of a namespace, of any encoding, and whether each is whole."""
    first = graph_of(number)
    sql = (
        "SELECT c.relname, i.indisvalid FROM pg_class AS c JOIN pg_index AS i ON i.indexrelid = c.oid"
        f" WHERE c.relnamespace = CAST('{SCHEMA}' AS regnamespace) AND c.relname >= ? AND c.relname < ?"
    )
    return dict(connection.execute(sql, (first, first + ":")).fetchall())
