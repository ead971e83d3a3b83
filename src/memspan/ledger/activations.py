"""What encoders gave, as the embedded ledger keeps it: pooled vectors in its file, token matrices in arenas beside it.

A token matrix is content-addressed: its key is the SHA-256 of its bytes, and rows of ``tensors`` point from the key to
a place in an arena. It is appended inside the ledger's write transaction and on the disk before that commits, so a row
never points at what is not there; a place that was never committed is written over. What no row refers to is written
over with zeros, and ``collect`` gives its space back.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from memspan.activations.arena import START, Arenas
from memspan.activations.sealed import SealedArenas
from memspan.activations.tokens import LATER, Activation, Matrices
from memspan.errors import StoreCorrupt
from memspan.keys import Keys
from memspan.ledger.base import Seqs, Unencoded, Vectors
from memspan.ledger.connections import Connections
from memspan.ledger.rows import CHUNK, chunks, marks, namespace_number, unencoded
from memspan.ledger.transactions import Connection
from memspan.ledger.values import ENCODING, agreed, put_value

ACTIVATED = f"segments AS s JOIN activations AS a ON a.content = s.content AND a.encoding = {ENCODING}"
MISSING = (
    "segments AS s WHERE NOT EXISTS (SELECT 1 FROM activations AS a WHERE a.content = s.content AND a.encoding = ?)"
)
WORTH = 0.5  # share of an arena file that is dead from which its living half is moved and the file removed


class Activations(Connections):
    """The part of ``SqliteLedger`` that keeps activations: by content, whatever namespace it is of."""

    missing = MISSING
    of_text = "s.content"

    def __init__(self, path: Path | None, keys: Keys | None = None) -> None:
        super().__init__(path, keys)
        directory = None if path is None else path.with_name("activations")
        self._arenas = Arenas(directory) if directory is None or keys is None else SealedArenas(directory, keys)
        self._sound: set[tuple[int, int]] = set()  # records this process has proven, each once
        self.damaged: set[tuple[int, int]] = set()
        self._short: set[int] = set()  # arenas whose file was cut or is gone

    def leave(self) -> None:
        super().leave()
        self._arenas = self._arenas.forked()

    def close(self) -> None:
        super().close()
        self._arenas.close()

    # Reading

    def vectors(self, namespace: str, after: int, limit: int) -> tuple[Seqs, Vectors]:
        """Rows after ``after`` that have a vector, at most ``limit``: seqs int64[n], float32[n, dim]."""
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT s.seq, a.pooled FROM {ACTIVATED} WHERE s.namespace = ? AND s.seq > ? ORDER BY s.seq LIMIT ?",
                (namespace_number(connection, namespace), after, limit),
            ).fetchall()
        return _vectors(rows)

    def vectors_of(self, namespace: str, seqs: Sequence[int]) -> tuple[Seqs, Vectors]:
        """The vectors of these seqs, where there are any, in ascending order of seq."""
        rows: list[tuple[int, bytes]] = []
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(seqs):
                rows += connection.execute(
                    f"SELECT s.seq, a.pooled FROM {ACTIVATED} WHERE s.seq IN ({marks(chunk)}) AND s.namespace = ?",
                    (*map(int, chunk), number),
                ).fetchall()
        return _vectors(sorted(rows))

    def tokens_of(self, namespace: str, seqs: Sequence[int]) -> Matrices:
        """The token matrices of these seqs, where there are any, in ascending order of seq.

        One that is not what was written is left out; ``damaged`` then says so, and ``lose`` has it made again.
        """
        found = Matrices(_NO_SEQS, _NO_SEQS, np.zeros(0, np.uint8))
        places: list[tuple[int, int, int, int]] = []
        for moment in (self.reading, self.newest, self.newest):  # an arena may have been moved since this moment
            with moment() as connection:
                places = self._places(connection, namespace, seqs)
            sound = [place for place in places if self._proven(*place[1:])]
            table = np.array(sound, np.int64).reshape(-1, 4)
            try:
                found = Matrices(table[:, 0], table[:, 3], self._arenas.gather(table[:, 1:]))
            except StoreCorrupt:  # it was removed since it was proven
                gone = set(table[:, 1].tolist())
                self._sound = {place for place in self._sound if place[0] not in gone}
                continue
            if len(sound) == len(places):
                return found
        self.damaged.update(place[1:3] for place in places if not self._proven(*place[1:]))
        return found

    def activations(self, namespace: str, contents: Sequence[bytes]) -> dict[bytes, Activation]:
        """What is kept of these texts of a namespace, as it is kept. A token matrix that was lost, or is not what was
        written, is LATER."""
        sql = (
            "SELECT a.content, a.pooled, a.tokens, t.arena, t.offset, t.size FROM activations AS a"
            f" LEFT JOIN tensors AS t ON t.key = a.tokens WHERE a.encoding = {ENCODING} AND a.content IN ({{}})"
            " AND EXISTS (SELECT 1 FROM segments AS s WHERE s.namespace = ? AND s.content = a.content)"
        )
        found: dict[bytes, Activation] = {}
        for moment in (self.reading, self.newest):  # an arena may have been moved since this moment
            with moment() as connection:
                number = namespace_number(connection, namespace)
                left = [content for content in contents if content not in found or found[content].tokens == LATER]
                for chunk in chunks(left):
                    for content, pooled, key, *place in connection.execute(sql.format(marks(chunk)), (*chunk, number)):
                        tokens = self._matrix(key, *place) if key and None not in place else key and LATER
                        found[content] = Activation(np.frombuffer(pooled, np.float16), tokens)
            if all(each.tokens != LATER for each in found.values()):
                break
        return found

    def _matrix(self, key: bytes, arena: int, offset: int, size: int) -> bytes:
        """A token matrix, LATER where it is not what was written: its text may be erased since this moment."""
        with suppress(StoreCorrupt):
            if sha256(matrix := self._arenas.read(arena, offset, size)).digest() == key:
                return matrix
        return LATER

    def _places(self, connection: Connection, namespace: str, seqs: Sequence[int]) -> list[tuple[int, int, int, int]]:
        """(seq, arena, offset, size) of these rows' token matrices, by seq."""
        places: list[tuple[int, int, int, int]] = []
        number = namespace_number(connection, namespace)
        for chunk in chunks(seqs):
            places += connection.execute(
                f"SELECT s.seq, t.arena, t.offset, t.size FROM {ACTIVATED} JOIN tensors AS t ON t.key = a.tokens"
                f" WHERE s.seq IN ({marks(chunk)}) AND s.namespace = ?",
                (*map(int, chunk), number),
            ).fetchall()
        return sorted(places)

    def _proven(self, arena: int, offset: int, size: int) -> bool:
        """Whether a record is what was written; of one that is, the checksum is computed once in a process."""
        place = (arena, offset)
        if place in self._sound:
            return True
        if not self._arenas.whole(arena, offset, size):
            return False
        if len(self._sound) >= 1_000_000:
            self._sound.clear()
        self._sound.add(place)
        return True

    def known(self, namespace: str, contents: Sequence[bytes]) -> set[bytes]:
        """Those of ``contents`` whose activation need not be made for this namespace."""
        with self.reading() as connection:
            return self.having(connection, namespace_number(connection, namespace), contents)

    def having(self, connection: Connection, number: int, contents: Collection[bytes]) -> set[bytes]:
        """Those of ``contents`` whose activation is kept already, for whichever namespace."""
        return {
            content
            for chunk in chunks(list(contents))
            for (content,) in connection.execute(
                f"SELECT content FROM activations WHERE encoding = {ENCODING} AND content IN ({marks(chunk)})",
                tuple(chunk),
            )
        }

    def served(self, connection: Connection, number: int, contents: Collection[bytes]) -> int:
        """A row waits for its vector or has one, never both: those of ``contents`` have it now; how many waited."""
        return connection.executemany(
            "DELETE FROM pending WHERE seq IN (SELECT seq FROM segments WHERE content = ?)",
            [(content,) for content in contents],
        ).rowcount

    def encoded(
        self,
        activations: Mapping[bytes, Activation],
        encoder: str | None = None,
        namespaces: Collection[str] | None = None,
    ) -> int:
        """Keep activations that rows of any namespace wait for; returns how many rows they served.

        ``encoder``: as in ``append``. ``namespaces``: who is known to wait for them; here one serves all. Raises
        EncoderMismatch.
        """
        with self.writing() as connection:
            agreed(connection, encoder)
            there = self.wanted(connection, 0, activations)
            self.keep(connection, 0, there)
            return max(0, self.served(connection, 0, there))

    def lost(self, limit: int) -> list[Unencoded]:
        """Segments whose token matrix has to be made again, one for each content, at most ``limit``."""
        with self.reading() as connection:
            return unencoded(
                connection,
                "(SELECT min(seq) AS seq FROM segments WHERE content IN (SELECT content FROM activations"
                f" WHERE tokens = x'' AND encoding = {ENCODING} LIMIT ?) GROUP BY content)"
                " JOIN segments AS s USING (seq)",
                (limit,),
                limit,
            )

    def activation_bytes(self) -> dict[str, Any]:
        """What the arenas hold: per file its bytes, those of living records, and how many records; and the sums."""
        with self.reading() as connection:
            files = [
                {"file": self._arenas.name(number), "bytes": finish, "live_bytes": live, "tensors": count}
                for number, finish, live, count in connection.execute(
                    "SELECT number, finish, coalesce(sum(t.size), 0), count(t.key) FROM arenas"
                    " LEFT JOIN tensors AS t ON t.arena = number AND t.refs > 0 GROUP BY number ORDER BY number"
                )
            ]
            (refs,) = connection.execute("SELECT coalesce(sum(refs), 0) FROM tensors").fetchone()
            (lost,) = connection.execute(
                f"SELECT count(*) FROM activations WHERE tokens = x'' AND encoding = {ENCODING}"
            ).fetchone()
        total = {name: sum(file[name] for file in files) for name in ("bytes", "live_bytes", "tensors")}
        return {**total, "references": refs, "lost": lost, "files": files}

    def arenas(self) -> list[tuple[Path, int]]:
        """The arena files of a store on disk, and how far each was committed."""
        with self.reading() as connection:
            return [
                (Path(self._arenas.name(number)), finish)
                for number, finish in connection.execute("SELECT number, finish FROM arenas ORDER BY number")
            ]

    def tensor_problems(self) -> Iterator[str]:
        """Names each token matrix that is not what was written, by file and place."""
        with self.reading() as connection:
            for key, arena, offset, size in connection.execute(
                "SELECT key, arena, offset, size FROM tensors WHERE refs > 0"
            ):
                if not self._holds(key, arena, offset, size):
                    self._sound.discard((arena, offset))
                    self.damaged.add((arena, offset))
                    where = f"{self._arenas.name(arena)} is damaged at byte {offset} ({size} bytes)"
                    yield f"{where}: the tokens of {_owner(connection, key)} are encoded again by the next compaction"

    # Writing: all of it inside one of the ledger's write transactions

    def keep(
        self,
        connection: Connection,
        number: int,
        activations: Mapping[bytes, Activation],
        encoding: int | None = None,
    ) -> None:
        """Keep activations by content, under ``encoding`` or the one in use; those that are there already stay."""
        keys = self._place(connection, activations)
        connection.executemany(
            f"INSERT INTO activations VALUES (?, coalesce(?, {ENCODING}), ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET tokens = excluded.tokens WHERE tokens = x'' AND excluded.tokens IS NOT NULL",
            [
                (content, encoding, pooled, zlib.crc32(pooled), keys.get(content, activation.tokens))
                for content, activation in activations.items()
                for pooled in (activation.pooled.tobytes(),)
            ],
        )

    def _place(self, connection: Connection, activations: Mapping[bytes, Activation]) -> dict[bytes, bytes]:
        """Have the token matrices in an arena, on the disk when it returns: their keys by content."""
        matrices = {content: each.tokens for content, each in activations.items() if each.tokens}
        keys = {content: sha256(matrix).digest() for content, matrix in matrices.items()}
        missing = {key: matrices[content] for content, key in keys.items()}
        for chunk in chunks(list(missing)):
            for key, refs, *place in connection.execute(
                f"SELECT key, refs, arena, offset, size FROM tensors WHERE key IN ({marks(chunk)})", tuple(chunk)
            ).fetchall():
                if refs or self._holds(key, *place):
                    del missing[key]
                else:  # it comes to lie elsewhere, and nobody would erase it here
                    self._arenas.erase(*place)
        self._append(connection, missing)
        return keys

    def _holds(self, key: bytes, arena: int, offset: int, size: int) -> bool:
        """Whether what lies there is whole and what ``key`` says."""
        return self._arenas.whole(arena, offset, size) and self._arenas.digest(arena, offset, size) == key

    def _append(self, connection: Connection, tensors: Mapping[bytes, bytes], but: int = 0) -> None:
        """Append token matrices by key to the last arena, or to a new one where that is full or is ``but``."""
        if not tensors:
            return
        last = connection.execute("SELECT number, finish FROM arenas ORDER BY number DESC LIMIT 1").fetchone()
        used = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'arenas'").fetchone()
        following = (used[0] if used else 0) + 1  # never used twice: somebody may still be reading a file that is gone
        number, finish = last or (but, START)
        if number == but:
            number, finish, following = following, START, following + 1
        for arena, end, part in self._arenas.append(number, finish, following, list(tensors.items())):
            connection.execute(
                "INSERT INTO arenas VALUES (?, ?) ON CONFLICT DO UPDATE SET finish = excluded.finish", (arena, end)
            )
            connection.executemany(
                "INSERT INTO tensors VALUES (?, ?, ?, ?, 0) ON CONFLICT DO UPDATE"
                " SET arena = excluded.arena, offset = excluded.offset, size = excluded.size",
                [(key, arena, offset, len(tensors[key])) for key, offset in part],
            )

    def take_tensors(self, source: Activations) -> None:
        """In a copy of the database of ``source``, which nobody writes to meanwhile: have its token matrices in arenas
        of its own. What is not what was written is lost here, and made again from its text."""
        with self.writing() as connection, source.reading() as there:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute("DELETE FROM arenas")
            places = there.execute("SELECT key, arena, offset, size FROM tensors ORDER BY arena, offset")
            while part := places.fetchmany(CHUNK):
                sound = {key: place for key, *place in part if source._holds(key, *place)}
                self._append(connection, {key: source._arenas.read(*place) for key, place in sound.items()})
                lost = [(key,) for key, *_ in part if key not in sound]
                connection.executemany("UPDATE activations SET tokens = x'' WHERE tokens = ?", lost)
                connection.executemany("DELETE FROM tensors WHERE key = ?", lost)

    def sweep(self) -> None:
        """Remove arena files that a crash left without a row of the ledger that names them, and what it left in others
        after their end."""
        with self.writing() as connection:
            arenas = dict(connection.execute("SELECT number, finish FROM arenas").fetchall())
            self._arenas.sweep(arenas)

    def keeps(self, activation: Activation) -> bool:
        """Whether this very vector, or this token matrix, is kept of any text."""
        key = None if activation.tokens is None else sha256(activation.tokens).digest()
        sql = "SELECT 1 FROM activations WHERE pooled = ? OR tokens = ? LIMIT 1"
        with self.reading() as connection:
            return connection.execute(sql, (activation.pooled.tobytes(), key)).fetchone() is not None

    def unaccounted(self) -> Iterator[tuple[str, int]]:
        """Arena and offset where something stands that is of no row of the ledger."""
        with self.reading() as connection:
            for number, finish in connection.execute("SELECT number, finish FROM arenas").fetchall():
                places = connection.execute(
                    "SELECT offset, size FROM tensors WHERE arena = ? AND refs > 0 ORDER BY offset", (number,)
                ).fetchall()
                for offset in self._arenas.unaccounted(number, finish, places):
                    yield self._arenas.name(number), offset

    def find_short(self) -> None:
        """Look, at open, for arena files that were cut short or are gone."""
        with self.reading() as connection:
            arenas = connection.execute("SELECT number, finish FROM arenas").fetchall()
        self._short = {number for number, finish in arenas if not self._arenas.reaches(number, finish)}

    @property
    def harmed(self) -> bool:
        """Whether there is something to ``lose``."""
        return bool(self.damaged or self._short)

    def lose(self) -> None:
        """Record the token matrices found damaged, and those missing in files that were cut short or are gone, as lost:
        they are made again from their texts."""
        with self.writing() as connection:
            damaged, short = self.damaged.copy(), self._short.copy()
            keys = [
                (key,)
                for key, arena, offset, size in connection.execute("SELECT key, arena, offset, size FROM tensors")
                if (arena, offset) in damaged or (arena in short and not self._arenas.whole(arena, offset, size))
            ]
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS gone (key BLOB PRIMARY KEY)")
            connection.execute("DELETE FROM gone")
            connection.executemany("INSERT INTO gone VALUES (?)", keys)
            for place in connection.execute(
                "SELECT arena, offset, size FROM tensors WHERE key IN (SELECT key FROM gone)"
            ).fetchall():
                self._arenas.erase(*place)
            connection.execute("UPDATE activations SET tokens = x'' WHERE tokens IN (SELECT key FROM gone)")
            connection.execute("DELETE FROM tensors WHERE key IN (SELECT key FROM gone)")
        self.damaged -= damaged
        self._short -= short

    def erase_dead(self) -> None:
        """Write zeros over token matrices that no segment refers to any more: nobody can read what was deleted."""
        dead = "SELECT arena, offset, size FROM tensors WHERE refs = 0"
        with self.reading() as connection:
            if connection.execute(dead).fetchone() is None:
                return
        with self.writing() as connection:
            places = connection.execute(dead).fetchall()
            for place in places:
                self._arenas.erase(*place)
            for arena in {arena for arena, _, _ in places}:
                self._arenas.sync(arena)
            connection.execute("DELETE FROM tensors WHERE refs = 0")

    def collect(self) -> None:
        """Move what lives out of arena files of which half or more is dead, and remove those; readers go on."""
        self.erase_dead()
        self.sweep()
        with self.reading() as connection:
            filled = connection.execute(
                "SELECT number, finish, coalesce(sum(16 + (size + ? + 15) / 16 * 16), 0)"
                " FROM arenas LEFT JOIN tensors ON arena = number"
                " GROUP BY number ORDER BY number",
                (self._arenas.overhead,),
            ).fetchall()
        for number, finish, live in filled:
            if live > WORTH * finish:
                continue
            with self.writing() as connection:
                rows = connection.execute(
                    "SELECT key, offset, size FROM tensors WHERE arena = ? ORDER BY offset", (number,)
                ).fetchall()
                sound = [each for each in rows if self._arenas.whole(number, *each[1:])]
                self._append(connection, {key: self._arenas.read(number, *place) for key, *place in sound}, number)
                if len(sound) == len(rows):
                    connection.execute("DELETE FROM arenas WHERE number = ?", (number,))
            if len(sound) == len(rows):
                self._arenas.remove(number)
            else:  # what is damaged is made again first, and the file goes the next time
                self._short.add(number)

    # Encoding anew, beside the encoding in use

    def wanted(
        self, connection: Connection, number: int, activations: Mapping[bytes, Activation]
    ) -> dict[bytes, Activation]:
        """Those of texts that are still there, in whichever namespace."""
        there = "SELECT 1 FROM segments WHERE content = ? LIMIT 1"
        return {
            content: each for content, each in activations.items() if connection.execute(there, (content,)).fetchone()
        }

    def nobody_writes(self, connection: Connection) -> None:
        pass  # there is one writer at a time

    def forget_activations(self, encoder: str) -> None:
        """Record ``encoder``, which needs none, and drop every activation."""
        with self.writing() as connection:
            connection.execute("DELETE FROM activations")
            connection.execute("DELETE FROM pending")
            connection.execute("DELETE FROM store WHERE key IN ('next', 'dropping')")
            connection.execute("DELETE FROM snapshots WHERE view IN ('vectors', 'tree', 'graph')")
            put_value(connection, "encoder", encoder)
        self.erase_dead()

    def drop_encodings(self) -> None:
        """Drop, a part at a time, activations of encodings that are neither in use nor being made, where there are any
        since a switch."""
        with self.reading() as connection:
            if connection.execute("SELECT 1 FROM store WHERE key = 'dropping'").fetchone() is None:
                return
        begun = "coalesce((SELECT json_extract(value, '$.number') FROM store WHERE key = 'next'), 0)"
        after = b""
        while True:
            with self.writing() as connection:
                rows = connection.execute(
                    "SELECT content, encoding FROM activations WHERE content >= ?"
                    f" AND encoding <> {ENCODING} AND encoding <> {begun} ORDER BY content LIMIT 2000",
                    (after,),
                ).fetchall()
                connection.executemany("DELETE FROM activations WHERE content = ? AND encoding = ?", rows)
                if not rows:
                    connection.execute("DELETE FROM store WHERE key = 'dropping'")
            self.erase_dead()
            if not rows:
                return
            after = rows[-1][0]


_NO_SEQS = np.zeros(0, np.int64)


def _owner(connection: Connection, key: bytes) -> str:
    """Which segment a token matrix belongs to, for people."""
    row = connection.execute(
        "SELECT id FROM segments WHERE content IN (SELECT content FROM activations WHERE tokens = ?) LIMIT 1", (key,)
    ).fetchone()
    return "no segment" if row is None else f"segment {uuid.UUID(bytes=row[0])}"


def _vectors(rows: Sequence[tuple[int, bytes]]) -> tuple[Seqs, Vectors]:
    seqs = np.array([seq for seq, _ in rows], np.int64)
    if not rows:
        return seqs, np.zeros((0, 0), np.float32)
    flat = np.frombuffer(b"".join(blob for _, blob in rows), np.float16)
    return seqs, flat.reshape(len(rows), -1).astype(np.float32)
