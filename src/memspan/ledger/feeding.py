"""What a ledger hands to the views: selections, vectors, terms, structure, and where their snapshots lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.activations.tokens import Activation
from memspan.kinds import USUAL_KIND
from memspan.ledger.base import (
    SEPARATOR,
    Link,
    Placed,
    Seqs,
    Snapshot,
    Standing,
    Unencoded,
    Voices,
    instant,
    microseconds,
    now,
)
from memspan.ledger.encoding import Encoding
from memspan.ledger.rows import COLUMNS, chunks, marks, namespace_number, placed_of, segment_of, unencoded
from memspan.ledger.transactions import Connection
from memspan.ledger.values import agreed
from memspan.records import AsOf, Draft, Filter, Scope, Segment, Source

QUESTION_MARKS = ("?", "\uff1f", "\u061f")
OUTCOMES = """
WITH last AS (
    SELECT id, source, agent_id, state, ended_at IS NULL AS current FROM segments AS s WHERE namespace = :space
    AND version = (SELECT max(version) FROM segments AS v WHERE v.namespace = :space AND v.id = s.id)
), told (source, agent_id, current, useful, useless, replaced, quarantined) AS (
    SELECT source, agent_id, 1, 0, 0, 0, CASE WHEN state = 'quarantined' THEN 1 ELSE 0 END FROM last WHERE current
    UNION ALL
    SELECT s.source, s.agent_id, 0, j.useful, 1 - j.useful, 0, 0
    FROM judgements AS j JOIN last AS s USING (id) WHERE j.namespace = :space
    UNION ALL
    SELECT s.source, s.agent_id, 0, 0, 0, 1, 0
    FROM verdicts AS v JOIN last AS s ON s.id = v.older JOIN last AS n ON n.id = v.newer
    WHERE v.namespace = :space AND v.accepted = 1 AND (s.source <> n.source OR s.agent_id IS NOT n.agent_id)
)
SELECT source, agent_id, sum(current), sum(useful), sum(useless), sum(replaced), sum(quarantined)
FROM told GROUP BY source, agent_id
"""


class Feeding(Encoding):
    """The part of a ledger that only views read."""

    def derive(
        self,
        connection: Connection,
        number: int,
        rows: Sequence[tuple[int, Draft]],
        activations: Mapping[bytes, Activation] | None,
    ) -> int:
        """The part of new rows in the views' tails, in the same transaction; how many wait for their vector."""
        self.index_words(connection, number, rows)
        connection.executemany(
            "INSERT INTO mentions (seq, namespace, names) VALUES (?, ?, ?)",
            [(seq, number, SEPARATOR.join(draft.names)) for seq, draft in rows],
        )
        if activations is None:
            return 0
        self.served(connection, number, {draft.content for _, draft in rows if draft.content in activations})
        others = {draft.content for _, draft in rows if draft.content not in activations}
        waiting = others - self.having(connection, number, others)
        due = [(seq, number) for seq, draft in rows if draft.content in waiting]
        connection.executemany("INSERT INTO pending (seq, namespace) VALUES (?, ?)", due)
        return len(due)

    def select(
        self, scope: Scope, filters: Filter | None, as_of: AsOf | None, after: int
    ) -> tuple[Seqs, NDArray[np.int32]]:
        """The rows a query may see, with seqs greater than ``after``: int64[n] ascending, and int32[n] their terms.
        ``as_of`` None: all that are current, whatever became of them."""
        clause, values = self.where(scope, filters, as_of)
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT seq, terms FROM segments WHERE namespace = ? AND seq > ? AND {clause} ORDER BY seq",
                (namespace_number(connection, scope.namespace), after, *values),
            ).fetchall()
        table = np.array(rows, np.int64).reshape(-1, 2)
        return table[:, 0].copy(), table[:, 1].astype(np.int32)

    def times(
        self, scope: Scope, filters: Filter | None, as_of: AsOf | None, since: datetime | None, until: datetime | None
    ) -> tuple[Seqs, Seqs]:
        """The rows a query may see whose ``Segment.time`` is not before ``since`` and before ``until``, in the order of
        it: int64[n], and these times, int64[n] microseconds since 1970. Of one time the first written comes first."""
        clause, values = self.where(scope, filters, as_of)
        time = "coalesce(occurred_at, heard_at, recorded_at)"
        for moment, bound in ((since, f" AND {time} >= ?"), (until, f" AND {time} < ?")):
            if moment is not None:
                clause, values = clause + bound, [*values, microseconds(moment)]
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT seq, {time} FROM segments WHERE namespace = ? AND {clause} ORDER BY 2, 1",
                (namespace_number(connection, scope.namespace), *values),
            ).fetchall()
        table = np.array(rows, np.int64).reshape(-1, 2)
        return table[:, 0].copy(), table[:, 1].copy()

    def fetch(self, namespace: str, seqs: Sequence[int]) -> list[Segment]:
        """The rows with these seqs that still exist in this namespace, in the order asked."""
        found: dict[int, Segment] = {}
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(seqs):
                rows = connection.execute(
                    f"SELECT {COLUMNS} FROM segments WHERE seq IN ({marks(chunk)}) AND namespace = ?",
                    (*map(int, chunk), number),
                )
                found.update((row[0], segment_of(namespace, row)) for row in rows)
        return [found[seq] for seq in map(int, seqs) if seq in found]

    def of_kind(self, scope: Scope, kind: str, as_of: AsOf) -> list[Segment]:
        """The rows of a kind that a query may see; of one that is not the usual, found without reading others."""
        clause, values = self.where(scope, None, as_of)
        with self.reading() as connection:
            number = namespace_number(connection, scope.namespace)
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM segments WHERE namespace = ? AND seq IN (SELECT seq FROM segments"
                " INDEXED BY segments_kind"
                f" WHERE namespace = ? AND kind = ? AND kind <> 'episodic') AND {clause} ORDER BY seq",
                (number, number, kind, *values),
            )
            return [segment_of(scope.namespace, row) for row in rows.fetchall()]

    def changes_at(self, namespace: str) -> datetime | None:
        """When the next row comes to be valid, ceases to be, or expires; None where none does."""
        moment = now()
        coming = "SELECT min({0}) FROM segments WHERE namespace = ?1 AND {0} IS NOT NULL AND {0} > ?2"
        times = ", ".join(f"({coming.format(name)})" for name in ("valid_from", "valid_to", "expires_at"))
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            found = connection.execute(f"SELECT {times}", (number, moment)).fetchone()
        return min((instant(time) for time in found if time is not None), default=None)

    def rows(self, namespace: str) -> Seqs:
        """int64[n], ascending: every row of the namespace, current or ended."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return seqs_of(connection.execute("SELECT seq FROM segments WHERE namespace = ? ORDER BY seq", (number,)))

    def count_after(self, namespace: str, after: int) -> int:
        """How many rows of the namespace have a seq greater than ``after``."""
        with self.reading() as connection:
            values = (namespace_number(connection, namespace), after)
            sql = "SELECT count(*) FROM segments WHERE namespace = ? AND seq > ?"
            return int(connection.execute(sql, values).fetchone()[0])

    def last_row(self, namespace: str) -> int:
        """The greatest seq in the namespace, 0 where it has no rows; deleted ones may have had greater ones."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            row = connection.execute("SELECT max(seq) FROM segments WHERE namespace = ?", (number,)).fetchone()
        return int(row[0] or 0)

    def last_removal(self, namespace: str) -> int:
        """The number of the last entry of the removal log, 0 when there is none."""
        with self.reading() as connection:
            sql = "SELECT coalesce(max(entry), 0) FROM removals WHERE namespace = ?"
            return int(connection.execute(sql, (namespace_number(connection, namespace),)).fetchone()[0])

    def removals(self, namespace: str, after: int) -> tuple[int, Seqs]:
        """The last entry of the removal log and the seqs that went after entry ``after``."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT entry, seq FROM removals WHERE namespace = ? AND entry > ? ORDER BY entry",
                (namespace_number(connection, namespace), after),
            ).fetchall()
        return (rows[-1][0] if rows else after), np.array([seq for _, seq in rows], np.int64)

    def pending(self, namespace: str | None, limit: int) -> list[Unencoded]:
        """Segments that wait for a vector, oldest first; of every namespace when None (for the encoder only)."""
        with self.reading() as connection:
            where, values = _within(connection, namespace)
            joined = "pending AS p JOIN segments AS s ON s.namespace = p.namespace AND s.seq = p.seq"
            return unencoded(connection, f"{joined} WHERE {where}", values, limit)

    def count_pending(self, namespace: str | None) -> int:
        """How many segments wait for a vector."""
        with self.reading() as connection:
            where, values = _within(connection, namespace)
            return int(connection.execute(f"SELECT count(*) FROM pending AS p WHERE {where}", values).fetchone()[0])

    def pending_seqs(self, namespace: str) -> Seqs:
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return seqs_of(connection.execute("SELECT seq FROM pending WHERE namespace = ? ORDER BY seq", (number,)))

    def texts(self, namespace: str, after: int, upto: int, limit: int) -> list[Unencoded]:
        """Rows with ``after < seq <= upto``, at most ``limit``, for rebuilding a view from nothing."""
        with self.reading() as connection:
            values = (namespace_number(connection, namespace), after, upto)
            return unencoded(connection, "segments AS s WHERE namespace = ? AND seq > ? AND seq <= ?", values, limit)

    def structure(self, namespace: str, after: int, limit: int) -> list[Placed]:
        """Rows after ``after``, current and ended, in ascending order of seq, at most ``limit``."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT s.seq, user_id, agent_id, run_id, session, document, role, position, category, source, names"
                " FROM segments AS s LEFT JOIN mentions AS m ON m.namespace = s.namespace AND m.seq = s.seq"
                " WHERE s.namespace = ? AND s.seq > ? ORDER BY s.seq LIMIT ?",
                (namespace_number(connection, namespace), after, limit),
            ).fetchall()
        return [placed_of(row) for row in rows]

    def links(self, namespace: str, seqs: Sequence[int], as_of: datetime | None = None) -> list[Link]:
        """The edges from and to these rows whose other end is a current row too, or was one ``as_of`` a time, by which
        the edge was stated."""
        moment = None if as_of is None else microseconds(as_of)
        current = (
            "b.ended_at IS NULL"
            if moment is None
            else ("e.created_at <= ? AND b.recorded_at <= ? AND (b.ended_at IS NULL OR b.ended_at > ?)")
        )
        times = () if moment is None else (moment,) * 3
        found: set[Link] = set()
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            # the order and the indexes are said: without statistics SQLite would read every row, or every edge
            for near, far, index in (("source", "target", ""), ("target", "source", "INDEXED BY edges_target")):
                for chunk in chunks(seqs):
                    rows = connection.execute(
                        f"SELECT a.seq, b.seq, e.kind, e.weight FROM segments AS a"
                        f" CROSS JOIN edges AS e {index} ON e.namespace = a.namespace AND e.{near} = a.id"
                        f" CROSS JOIN segments AS b ON b.namespace = e.namespace AND b.id = e.{far}"
                        f" AND {current} WHERE a.seq IN ({marks(chunk)}) AND +a.namespace = ?",
                        (*times, *map(int, chunk), number),
                    )
                    found.update(Link(*((a, b) if near == "source" else (b, a)), *rest) for a, b, *rest in rows)
        return sorted(found)

    def standing(self, namespace: str, seqs: Sequence[int]) -> Standing:
        """Importance, age and use of these rows."""
        columns = (
            "importance, coalesce(occurred_at, heard_at, recorded_at), coalesce(accesses, 0), coalesce(accessed_at, 0),"
            " coalesce(relevance, 0.5), category IS NOT NULL, coalesce(heard_at, recorded_at), kind"
        )
        used = " LEFT JOIN usage AS u ON u.namespace = s.namespace AND u.id = s.id"
        gone = (np.nan, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, USUAL_KIND)
        *numbers, kinds = zip(*(self._told(namespace, seqs, columns, gone, used) or [gone]), strict=True)
        table = np.array(numbers, np.float64)[:, : len(seqs)]
        names = (field.name for field in fields(Standing) if field.name != "kinds")
        return Standing(**dict(zip(names, table, strict=True)), kinds=kinds[: len(seqs)])

    def outcomes(self, namespace: str) -> list[tuple[Source, str | None, int, int, int, int, int]]:
        """By source and agent: how many segments are current, how many judgements found them useful and useless, how
        many were replaced by another source's by decision, and how many are quarantined. A judgement or decision holds
        for every version; who said a segment, its last one says."""
        with self.reading() as connection:
            found: list[tuple[Source, str | None, int, int, int, int, int]] = connection.execute(
                OUTCOMES, {"space": namespace_number(connection, namespace)}
            ).fetchall()
        return found

    def voices(self, namespace: str, seqs: Sequence[int]) -> Voices:
        """Who said these rows, and whether they ask."""
        columns = "role, speaker, substr(rtrim(text), length(rtrim(text)))"
        found = self._told(namespace, seqs, columns, (None, None, ""))
        return Voices(
            roles=tuple(role for role, _, _ in found),
            speakers=tuple(speaker for _, speaker, _ in found),
            asks=np.array([last in QUESTION_MARKS for _, _, last in found], bool),
        )

    def _told(
        self, namespace: str, seqs: Sequence[int], columns: str, gone: tuple[Any, ...], joined: str = ""
    ) -> list[tuple[Any, ...]]:
        """The ``columns`` of the segments s of these seqs, in the order asked, ``gone`` for one that is not there."""
        known: dict[int, tuple[Any, ...]] = {}
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(seqs):
                rows = connection.execute(
                    f"SELECT seq, {columns} FROM segments AS s{joined}"
                    f" WHERE seq IN ({marks(chunk)}) AND s.namespace = ?",
                    (*map(int, chunk), number),
                )
                known.update((row[0], row[1:]) for row in rows)
        return [known.get(seq, gone) for seq in map(int, seqs)]

    def trim_mentions(self, namespace: str, upto: int) -> int:
        """Drop some names of rows up to ``upto``, which the graph's snapshot holds; returns how many, 0 when done."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            return connection.execute(
                "DELETE FROM mentions WHERE namespace = ? AND seq IN"
                " (SELECT seq FROM mentions WHERE namespace = ? AND seq <= ? LIMIT 10000)",
                (number, number, upto),
            ).rowcount

    def snapshot(self, namespace: str, view: str) -> Snapshot | None:
        with self.reading() as connection:
            row = connection.execute(
                "SELECT position, rows, file, checksum FROM snapshots WHERE namespace = ? AND view = ?",
                (namespace_number(connection, namespace), view),
            ).fetchone()
        if row is None:
            return None
        position, rows, file, checksum = row
        return Snapshot(
            namespace=namespace, view=view, position=position, rows=rows, file=file, checksum=checksum
        )  # fmt: skip

    def put_snapshot(self, snapshot: Snapshot, encoder: str | None) -> None:
        """Make it the one in use. Raises EncoderMismatch where the store no longer records the ``encoder`` that what is
        in it comes from."""
        with self.writing() as connection:
            number = namespace_number(connection, snapshot.namespace)
            agreed(connection, encoder)
            connection.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, view) DO UPDATE"
                " SET position = excluded.position, rows = excluded.rows, file = excluded.file,"
                " checksum = excluded.checksum, created_at = excluded.created_at",
                (number, snapshot.view, snapshot.position, snapshot.rows, snapshot.file, snapshot.checksum, now()),
            )

    def drop_snapshot(self, namespace: str, view: str) -> None:
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            connection.execute("DELETE FROM snapshots WHERE namespace = ? AND view = ?", (number, view))


def _within(connection: Connection, namespace: str | None) -> tuple[str, tuple[int, ...]]:
    """Which of the segments that wait, p, are meant: those of a namespace, or all."""
    return ("TRUE", ()) if namespace is None else ("p.namespace = ?", (namespace_number(connection, namespace),))


def seqs_of(rows: Iterable[tuple[int]]) -> Seqs:
    return np.fromiter((seq for (seq,) in rows), np.int64)


def given(activations: Mapping[bytes, Activation] | None, drafts: Iterable[Draft]) -> dict[bytes, Activation]:
    """The activations that came with ``drafts``, by content."""
    known = activations or {}
    return {draft.content: known[draft.content] for draft in drafts if draft.content in known}
