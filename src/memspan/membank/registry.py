"""The registry: which pointers there are, who holds them, and the texts they came from. SQLite."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput, NewerStore, NotAStore, NotFound
from memspan.ledger.connections import BUSY_SECONDS, Connections, translated
from memspan.membank.pointers import PointerRecord, checked, closed, hash_text

MEMORY: Final = ":memory:"
VERSION: Final = 1
APPLICATION_ID: Final = 0x6D62_6E6B  # "mbnk" in the SQLite header: how a registry is told from any other database
LEVELS: Final = (0, 1, 2)

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS pointers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        ptr_id BLOB NOT NULL UNIQUE,
        buffer_offset INTEGER NOT NULL,
        shape TEXT NOT NULL,
        dtype TEXT NOT NULL,
        model_id TEXT NOT NULL,
        hgns_level INTEGER NOT NULL,
        source_text_hash BLOB NOT NULL,
        ref_count INTEGER NOT NULL,
        metadata TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS pointers_by_text ON pointers (source_text_hash)",
    """CREATE TABLE IF NOT EXISTS chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        text_hash BLOB NOT NULL,
        model_id TEXT NOT NULL,
        text TEXT NOT NULL,
        metadata TEXT NOT NULL,
        holds INTEGER NOT NULL,
        places_offset INTEGER NOT NULL,
        places_bytes INTEGER NOT NULL,
        l0 INTEGER NOT NULL,
        l1 INTEGER NOT NULL,
        l2 INTEGER NOT NULL,
        UNIQUE (text_hash, model_id)
    )""",
    "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT OR IGNORE INTO state VALUES ('epoch', 0)",
    """CREATE TRIGGER IF NOT EXISTS died_or_revived AFTER UPDATE OF ref_count ON pointers
    WHEN (old.ref_count > 0) <> (new.ref_count > 0)
    BEGIN UPDATE state SET value = value + 1 WHERE key = 'epoch'; END""",
    """CREATE TRIGGER IF NOT EXISTS deleted AFTER DELETE ON pointers
    BEGIN UPDATE state SET value = value + 1 WHERE key = 'epoch'; END""",
)
_COLUMNS: Final = "ptr_id, buffer_offset, shape, dtype, model_id, hgns_level, source_text_hash, ref_count, metadata"
_PUT: Final = (
    f"INSERT INTO pointers ({_COLUMNS}) VALUES {{}} ON CONFLICT (ptr_id) DO UPDATE "
    "SET ref_count = max(ref_count, 0) + excluded.ref_count RETURNING ptr_id, id"
)
_ALIVE: Final = (
    "FROM chunks c JOIN pointers p0 ON p0.id = c.l0 AND p0.ref_count > 0 JOIN pointers p1 ON p1.id = c.l1 "
    "AND p1.ref_count > 0 JOIN pointers p2 ON p2.id = c.l2 AND p2.ref_count > 0"
)
_PLACES: Final = (
    "SELECT c.id, c.places_bytes, c.places_offset, p0.buffer_offset, p1.buffer_offset, p2.buffer_offset "
    f"{_ALIVE} WHERE c.model_id = ? AND c.id > ? ORDER BY c.id"
)
_CHUNK: Final = (
    "c.id, c.text_hash, c.places_offset, p0.ptr_id, p1.ptr_id, p2.ptr_id, p0.buffer_offset, p1.buffer_offset, "
    "p2.buffer_offset, c.l0, c.l1, c.l2, c.holds FROM chunks c JOIN pointers p0 ON p0.id = c.l0 "
    "JOIN pointers p1 ON p1.id = c.l1 JOIN pointers p2 ON p2.id = c.l2"
)
_HASH: Final = re.compile("[0-9a-fA-F]{64}")
_MOST_PARAMETERS: Final = 500
_MOST_ROWS: Final = 100


class Chunk(NamedTuple):
    """A text that was stored, and its pointers at levels 0, 1 and 2, with its own hash and metadata in them."""

    text_hash: str
    text: str
    metadata: dict[str, Any]
    pointers: tuple[PointerRecord, PointerRecord, PointerRecord]


class Known(NamedTuple):
    """Where a text that was stored has its records: of its pointers at levels 0, 1 and 2 the ids, offsets and rows.
    ``holds``: how often it was ingested."""

    row: int
    places: int
    ids: tuple[str, str, str]
    offsets: tuple[int, int, int]
    rows: tuple[int, int, int]
    holds: int


class Record(NamedTuple):
    """A record in the buffer: ``size`` bytes at ``offset``, of the row ``row`` of pointers or of places."""

    offset: int
    size: int
    kind: str
    row: int


class Registry:
    """Pointers and texts in one SQLite database, a file (in WAL mode) or ``":memory:"``.

    Safe to use from several threads, and a file from several processes. Raises NotAStore for a database of something
    else, which is left as it is, and what fails in SQLite as a StoreError.
    """

    def __init__(self, path: str | os.PathLike[str] = MEMORY) -> None:
        self.path = None if str(path) == MEMORY else Path(path)
        self._held = threading.local()
        self._closed = False
        with translated(self.path):
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
                    connection.execute("BEGIN")
                    _refuse_others(connection, self.path)
                _use_wal(self.path)
        self._connections = Connections(self.path)
        try:
            with self.writing() as connection:
                _refuse_others(connection, self.path)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                for statement in _SCHEMA:
                    connection.execute(statement)
                version, store = self.states("version", "store")
                if (version or VERSION) > VERSION:
                    raise NewerStore(f"{path} was written by a newer memspan", mend="pip install --upgrade memspan")
                self.store = store or secrets.randbits(62) + 1  # which buffers are this registry's
                self.set_state(version=VERSION, store=self.store)
        except BaseException:
            self._connections.close()
            raise

    def __repr__(self) -> str:
        return f"Registry({str(self.path or MEMORY)!r})"

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A write transaction, one at a time over all processes; inside another on this thread it is part of that."""
        self._usable()
        held: sqlite3.Connection | None = getattr(self._held, "connection", None)
        return self._transaction() if held is None else nullcontext(held)

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """One moment of the registry; in a write transaction of this thread, with what it has written so far."""
        self._usable()
        held: sqlite3.Connection | None = getattr(self._held, "connection", None)
        return self._connections.reading() if held is None else nullcontext(held)

    def _usable(self) -> None:
        if self._closed:
            raise closed()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connections.writing() as connection:
            self._held.connection = connection
            try:
                yield connection
            finally:
                self._held.connection = None

    def changes(self) -> int | None:
        """Of a registry in memory, a number that is another one after any change; None of a file, which has others."""
        self._usable()
        return self._connections.changes() if self.path is None else None

    # Pointers

    def put(self, pointer: PointerRecord) -> bool:
        """Store a pointer: True if it is new, else its ``ref_count`` is added to that of the one that is there.

        Raises InvalidInput (a ValueError) for a pointer that none can be."""
        checked(pointer)
        with self.writing():
            new = not self.exists(pointer.ptr_id)
            self.put_many([pointer])
        return new

    def put_many(self, pointers: Sequence[PointerRecord]) -> dict[str, int]:
        """``put`` of many in one transaction; the row of each. Raises InvalidInput; none is stored then."""
        rows: dict[str, int] = {}
        with self.writing() as connection:
            for start in range(0, len(pointers), _MOST_ROWS):
                some = [_values(pointer) for pointer in pointers[start : start + _MOST_ROWS]]
                sql = _put(len(some))
                found = connection.execute(sql, [value for values in some for value in values]).fetchall()
                rows.update((raw.hex(), row) for raw, row in found)
        return rows

    def get(self, ptr_id: str) -> PointerRecord | None:
        """The pointer, or None."""
        return next(iter(self._pointers("ptr_id = ?", _raw(ptr_id))), None)

    def exists(self, ptr_id: str) -> bool:
        """Whether there is such a pointer, dead or alive."""
        with self.reading() as connection:
            return connection.execute("SELECT 1 FROM pointers WHERE ptr_id = ?", [_raw(ptr_id)]).fetchone() is not None

    def get_by_text(self, text: str) -> list[PointerRecord]:
        """The pointers of a text, which is given itself or as its ``hash_text``."""
        known = (
            "source_text_hash IN (?1, ?2) OR id IN (SELECT l0 FROM chunks WHERE text_hash IN (?1, ?2)"
            " UNION SELECT l1 FROM chunks WHERE text_hash IN (?1, ?2)"
            " UNION SELECT l2 FROM chunks WHERE text_hash IN (?1, ?2))"
        )
        return self._pointers(known, _raw(hash_text(text)), _raw(text))

    def get_by_level(self, level: int) -> list[PointerRecord]:
        """The pointers of level 0, 1 or 2, oldest first."""
        return self._pointers("hgns_level = ?", level)

    def get_by_model(self, model_id: str) -> list[PointerRecord]:
        """The pointers to activations of a model's texts, oldest first."""
        texts = (
            "model_id = ?1 OR id IN (SELECT l0 FROM chunks WHERE model_id = ?1 UNION SELECT l1 FROM chunks WHERE"
            " model_id = ?1 UNION SELECT l2 FROM chunks WHERE model_id = ?1)"
        )
        return self._pointers(texts, model_id)

    def release(self, ptr_id: str) -> bool:
        """Let go of a pointer once: True when it is dead by that. Raises NotFound (a LookupError)."""
        with self.writing() as connection:
            sql = "UPDATE pointers SET ref_count = max(ref_count - 1, 0) WHERE ptr_id = ? RETURNING ref_count"
            found = connection.execute(sql, [_raw(ptr_id)]).fetchall()
            if not found:
                raise NotFound(f"there is no pointer {ptr_id}", mend="gc may have collected it")
        return bool(found[0][0] == 0)

    def gc_candidates(self) -> list[PointerRecord]:
        """The dead pointers."""
        return self._pointers("ref_count <= 0")

    def delete(self, ptr_id: str) -> bool:
        """Forget a pointer whoever holds it, and the texts it was part of; whether it was there."""
        with self.writing() as connection:
            return self._delete(connection, "ptr_id = ?", _raw(ptr_id)) > 0

    def delete_dead(self) -> int:
        """Forget the dead pointers and the texts they were part of, with what nobody else holds of those; how many
        pointers."""
        with self.writing() as connection:
            return self._delete(connection, "ref_count <= 0")

    def invalidate_model(self, model_id: str) -> int:
        """Forget a model's pointers and texts, but for pointers that another model's texts share; how many pointers."""
        with self.writing() as connection:
            gone = self._forget_texts(connection, "model_id = ?", model_id)
            shared = "SELECT l0 FROM chunks UNION SELECT l1 FROM chunks UNION SELECT l2 FROM chunks"
            gone += self._delete(connection, f"model_id = ? AND id NOT IN ({shared})", model_id)
            for level in LEVELS:  # what is left belongs to those who share it
                connection.execute(
                    f"UPDATE pointers SET model_id = c.model_id, source_text_hash = c.text_hash FROM chunks c "
                    f"WHERE pointers.model_id = ? AND pointers.id = c.l{level}",
                    [model_id],
                )
            self._another_epoch(connection)
            return gone

    def stats(self) -> dict[str, Any]:
        """``total_pointers``, ``live_pointers``, ``dead_pointers``, and ``by_level``: ``level_0`` to ``level_2``."""
        with self.reading() as connection:
            sql = "SELECT hgns_level, count(*), coalesce(sum(ref_count > 0), 0) FROM pointers GROUP BY hgns_level"
            counts = {level: (total, live) for level, total, live in connection.execute(sql)}
        total, live = (sum(count[i] for count in counts.values()) for i in (0, 1))
        by_level = {f"level_{level}": counts.get(level, (0, 0))[0] for level in LEVELS}
        return {
            "total_pointers": total,
            "live_pointers": live,
            "dead_pointers": total - live,
            "by_level": by_level,
        }

    def close(self) -> None:
        """Close the database. Calling it twice does nothing."""
        self._closed = True
        self._connections.close()

    # Texts and their pointers

    def rows_of(self, ptr_ids: Sequence[str]) -> dict[str, int]:
        """The rows of those pointers that are there."""
        return {id: row for id, (row, _) in self.offsets_of(ptr_ids).items()}

    def offsets_of(self, ptr_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The rows and offsets of those pointers that are there."""
        found: dict[str, tuple[int, int]] = {}
        for marks, some in _paged([_raw(id) for id in ptr_ids]):
            with self.reading() as connection:
                sql = f"SELECT ptr_id, id, buffer_offset FROM pointers WHERE ptr_id IN ({marks})"
                found.update((raw.hex(), (row, offset)) for raw, row, offset in connection.execute(sql, some))
        return found

    def known(self, model_id: str, hashes: Sequence[str]) -> dict[str, Known]:
        """Those of the texts that a model's activations are there of, by hash."""
        found: dict[str, Known] = {}
        for marks, some in _paged([_raw(id) for id in hashes]):
            with self.reading() as connection:
                sql = f"SELECT {_CHUNK} WHERE c.model_id = ? AND c.text_hash IN ({marks})"
                for row, raw, places, a, b, c, x, y, z, l0, l1, l2, holds in connection.execute(sql, [model_id, *some]):
                    ids = a.hex(), b.hex(), c.hex()
                    found[raw.hex()] = Known(row, places, ids, (x, y, z), (l0, l1, l2), holds)
        return found

    def texts(self, model_id: str, after: int, most: int) -> list[tuple[int, str, str]]:
        """Row, hash and text of a model's next ``most`` texts after row ``after``, those whose pointers are alive."""
        with self.reading() as connection:
            sql = f"SELECT c.id, c.text_hash, c.text {_ALIVE} WHERE c.model_id = ? AND c.id > ? ORDER BY c.id LIMIT ?"
            return [(row, raw.hex(), text) for row, raw, text in connection.execute(sql, [model_id, after, most])]

    def hold(self, counts: Sequence[tuple[str, int]]) -> None:
        """Add to the ref-counts of pointers that are there."""
        if not counts:
            return
        with self.writing() as connection:
            sql = "UPDATE pointers SET ref_count = max(ref_count, 0) + ? WHERE ptr_id = ?"
            connection.executemany(sql, [(count, _raw(ptr_id)) for ptr_id, count in counts])

    def held(self, model_id: str, counts: Sequence[tuple[str, int]]) -> None:
        """Note that texts that are there were ingested so many times more."""
        with self.writing() as connection:
            sql = "UPDATE chunks SET holds = holds + ? WHERE text_hash = ? AND model_id = ?"
            connection.executemany(sql, [(count, _raw(hash), model_id) for hash, count in counts])

    def add_chunks(
        self,
        model_id: str,
        size: int,
        chunks: Iterable[tuple[str, str, Mapping[str, Any], int, int, Sequence[int]]],
    ) -> None:
        """Store texts: hash, text, metadata, how often it was ingested, where its places of ``size`` bytes lie, and the
        rows of its pointers at 0, 1 and 2."""
        values = [
            (_raw(hash), model_id, text, _metadata_text(about), holds, offset, size, *rows)
            for hash, text, about, holds, offset, rows in chunks
        ]
        with self.writing() as connection:
            columns = "text_hash, model_id, text, metadata, holds, places_offset, places_bytes, l0, l1, l2"
            sql = f"INSERT INTO chunks ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            connection.executemany(sql, values)

    def point_anew(self, changes: Sequence[tuple[Known, int, Sequence[int]]]) -> None:
        """Give texts other places and pointers: what is known of each, the offset of its places, and rows of pointers.
        What they held before is let go."""
        with self.writing() as connection:
            sql = "UPDATE chunks SET places_offset = ?, l0 = ?, l1 = ?, l2 = ? WHERE id = ?"
            connection.executemany(sql, [(offset, *rows, known.row) for known, offset, rows in changes])
            others = [
                (old, known.holds)
                for known, _, rows in changes
                for old, new in zip(known.rows, rows, strict=True)
                if old != new
            ]
            self._let_go(connection, others)
            self._another_epoch(connection)

    def places(self, model_id: str, after: int) -> NDArray[np.int64]:
        """int64[n, 6]: of a model's texts stored since row ``after`` whose pointers are alive, row, size and offset of
        the places, and offsets of levels 0, 1 and 2."""
        with self.reading() as connection:
            found = connection.execute(_PLACES, [model_id, after]).fetchall()
        return np.array(found, np.int64).reshape(-1, 6)

    def chunks(self, rows: Sequence[int]) -> dict[int, Chunk]:
        """Texts by row, those that are there."""
        found: dict[int, Chunk] = {}
        columns = ", ".join(f"p{level}.{name.strip()}" for level in LEVELS for name in _COLUMNS.split(","))
        width = _COLUMNS.count(",") + 1
        for marks, some in _paged(rows):
            with self.reading() as connection:
                sql = (
                    f"SELECT c.id, c.text_hash, c.text, c.metadata, {columns} FROM chunks c "
                    "JOIN pointers p0 ON p0.id = c.l0 JOIN pointers p1 ON p1.id = c.l1 "
                    f"JOIN pointers p2 ON p2.id = c.l2 WHERE c.id IN ({marks})"
                )
                for row, raw, text, about, *values in connection.execute(sql, some):
                    l0, l1, l2 = (_pointer(values[level * width : (level + 1) * width]) for level in LEVELS)
                    for pointer in (l0, l1, l2):  # texts that share it have metadata of their own
                        pointer.source_text_hash, pointer.metadata = raw.hex(), _metadata(about)
                    found[row] = Chunk(raw.hex(), text, _metadata(about), (l0, l1, l2))
        return found

    def records(self) -> list[Record]:
        """What in the buffer is used, in its order."""
        with self.reading() as connection:
            found = [
                Record(offset, math.prod(_shape(shape)) * np.dtype(dtype).itemsize, "pointer", row)
                for row, offset, shape, dtype in connection.execute(
                    "SELECT id, buffer_offset, shape, dtype FROM pointers"
                )
            ]
            rows = connection.execute("SELECT places_offset, places_bytes, 'places', id FROM chunks")
            return sorted(found + [Record(*row) for row in rows])

    def move(self, pointers: Iterable[tuple[int, int]], places: Iterable[tuple[int, int]]) -> None:
        """Note new offsets of rows: pairs of offset and row."""
        with self.writing() as connection:
            connection.executemany("UPDATE pointers SET buffer_offset = ? WHERE id = ?", pointers)
            connection.executemany("UPDATE chunks SET places_offset = ? WHERE id = ?", places)
            self._another_epoch(connection)

    # State

    def states(self, *keys: str) -> list[int]:
        """Numbers that all processes share, 0 where not set: ``end`` and ``file`` of the buffer, ``version``,
        ``store``."""
        marks = ", ".join("?" * len(keys))
        with self.reading() as connection:
            found = dict(connection.execute(f"SELECT key, value FROM state WHERE key IN ({marks})", keys).fetchall())
        return [found.get(key, 0) for key in keys]

    def set_state(self, **values: int) -> None:
        """Set such numbers."""
        with self.writing() as connection:
            for item in values.items():
                connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", item)

    def position(self) -> tuple[int, int]:
        """``epoch``, which changes when anything but a new text did, and the row of the newest text."""
        with self.reading() as connection:
            sql = "SELECT value, (SELECT coalesce(max(id), 0) FROM chunks) FROM state WHERE key = 'epoch'"
            epoch, newest = connection.execute(sql).fetchone()
        return int(epoch), int(newest)

    def _delete(self, connection: sqlite3.Connection, known: str, *values: Any) -> int:
        ids = [row for (row,) in connection.execute(f"SELECT id FROM pointers WHERE {known}", values)]
        if not ids:
            return 0
        self._delete_rows(connection, ids)
        there = "SELECT id FROM pointers"
        broken = f"l0 NOT IN ({there}) OR l1 NOT IN ({there}) OR l2 NOT IN ({there})"
        return len(ids) + self._forget_texts(connection, broken)

    def _delete_rows(self, connection: sqlite3.Connection, ids: Sequence[int]) -> None:
        for marks, some in _paged(ids):
            connection.execute(f"DELETE FROM pointers WHERE id IN ({marks})", some)

    def _forget_texts(self, connection: sqlite3.Connection, which: str, *values: Any) -> int:
        """Forget texts and let go of what they hold; how many pointers nobody else held."""
        found = connection.execute(f"DELETE FROM chunks WHERE {which} RETURNING l0, l1, l2, holds", values).fetchall()
        return self._let_go(connection, [(row, holds) for *rows, holds in found for row in rows])

    def _let_go(self, connection: sqlite3.Connection, holds: Sequence[tuple[int, int]]) -> int:
        """Release pointers as often as texts held them that do so no more, and forget those that nobody holds then;
        how many. A pointer that another text shares stays alive."""
        if not holds:
            return 0
        shared = {row for rows in connection.execute("SELECT l0, l1, l2 FROM chunks") for row in rows}
        released: Counter[int] = Counter()
        for row, count in holds:
            released[row] += count
        least = [(count, int(row in shared), row) for row, count in released.items()]
        sql = "UPDATE pointers SET ref_count = max(ref_count - ?, min(?, ref_count)) WHERE id = ?"
        connection.executemany(sql, least)
        dead: list[int] = []
        for marks, some in _paged([row for row in released if row not in shared]):
            sql = f"SELECT id FROM pointers WHERE ref_count <= 0 AND id IN ({marks})"
            dead += [row for (row,) in connection.execute(sql, some)]
        self._delete_rows(connection, dead)
        return len(dead)

    def _another_epoch(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE state SET value = value + 1 WHERE key = 'epoch'")

    def _pointers(self, known: str, *values: Any) -> list[PointerRecord]:
        with self.reading() as connection:
            sql = f"SELECT {_COLUMNS} FROM pointers WHERE {known} ORDER BY id"
            return [_pointer(row) for row in connection.execute(sql, values)]


def _values(pointer: PointerRecord) -> tuple[Any, ...]:
    for argument, digits in (("ptr_id", pointer.ptr_id), ("source_text_hash", pointer.source_text_hash)):
        if not isinstance(digits, str) or not _HASH.fullmatch(digits):
            raise InvalidInput(argument, f"{digits!r} is no hash", mend="give 64 hex digits, as hash_text does")
    return (
        _raw(pointer.ptr_id),
        pointer.buffer_offset,
        _shape_text(pointer.shape),
        pointer.dtype,
        pointer.model_id,
        pointer.hgns_level,
        _raw(pointer.source_text_hash),
        pointer.ref_count,
        _metadata_text(pointer.metadata),
    )


def _pointer(row: Sequence[Any]) -> PointerRecord:
    raw, offset, shape, dtype, model_id, level, text, count, metadata = row
    return PointerRecord(
        raw.hex(),
        offset,
        _shape(shape),
        dtype,
        model_id,
        level,
        text.hex(),
        count,
        _metadata(metadata),
    )


def _metadata_text(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata) if metadata else "{}"


def _metadata(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text) if text != "{}" else {}
    return found


@lru_cache(maxsize=_MOST_ROWS)
def _put(count: int) -> str:
    return _PUT.format(", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count))


@lru_cache(maxsize=256)
def _shape_text(shape: tuple[int, ...]) -> str:
    return json.dumps(shape)


@lru_cache(maxsize=256)
def _shape(text: str) -> tuple[int, ...]:
    return tuple(json.loads(text))


def _raw(digits: str) -> bytes:
    """32 bytes of 64 hex digits; what is no hash is nothing's hash."""
    return bytes.fromhex(digits) if isinstance(digits, str) and _HASH.fullmatch(digits) else b""


def _paged(values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Runs of values that one statement can take, with its question marks."""
    for start in range(0, len(values), _MOST_PARAMETERS):
        some = values[start : start + _MOST_PARAMETERS]
        yield ", ".join("?" * len(some)), some


def _refuse_others(connection: sqlite3.Connection, path: Path | None) -> None:
    """Raises NotAStore for a database that is neither empty nor a registry."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (number,) = connection.execute("PRAGMA application_id").fetchone()
    if number != APPLICATION_ID and (number or tables):
        raise NotAStore(
            f"{path} is a database of something else (a registry of MemBank 0.1 too cannot be opened)",
            mend="give another registry_path, and ingest old texts again",
        )


def _use_wal(path: Path) -> None:
    """Switch a database to WAL mode; while another process does the same, SQLite answers "locked" without waiting."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
        time.sleep(0.01)
