"""The files of a store byte by byte, all as of one moment, while other processes write.

- **The ledger.** A read transaction holds SQLite to its moment: of the log (WAL) only what came before that moment is
  folded into the database file, and the log does not begin anew unless all up to that moment has been. So the database
  file and the log as long as it was then say together what the transaction sees, whatever happens meanwhile; mostly
  the log is folded in first and there is nothing of it to copy. No page passes through SQLite: those that did not
  change are the same bytes in every copy, also where pages are encrypted, and no key is asked for.
- **The arenas** are appended to, and dead records are written over with zeros, by whoever holds the write lock. They
  are copied first, without it, then what was appended since, with it; there the moment is. What lives at that moment
  was whole in the first copy or came after it.
- **The snapshots** of views never change. They are opened in the moment and read later, though they be replaced since.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import FileIO
from pathlib import Path

from memspan.ledger.sqlite import SqliteLedger

LEDGER = "ledger.db"
WAL_HEADER, FRAME_HEADER = 32, 24  # bytes; https://www.sqlite.org/fileformat2.html#walformat
SMALL = 4 << 20  # bytes of new arena records that may be copied while writers wait
ROUNDS = 4  # at copying them without the lock
LEFT_OUT = (LEDGER, "open.lock")  # how names begin that are no part of what is stored: a ledger's own, and its copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes ``begin`` to ``end`` of the file ``name``, a path in the store with slashes; what comes before was given
    earlier. ``read(at, size)`` gives fewer bytes only where the file ends."""

    name: str
    begin: int
    end: int
    read: Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When it was, what the store was then: ``schema``, current ``segments``; ``files`` are those that belong to it."""

    at: datetime
    store_id: str
    schema: int
    segments: int
    files: tuple[str, ...]


def copy(ledger: SqliteLedger, path: Path, take: Callable[[Part], None], unit: int) -> Moment:
    """Have ``take`` read every part of the store whose ledger is at ``path``. Parts begin at multiples of ``unit``.

    Writers wait while the log is folded, at most two seconds for somebody who reads, and while the last records of the
    arenas are read, and the log where another process is folding it just then; else they go on. Raises StoreError, and
    what ``take`` raises.
    """
    store = path.parent
    reached: dict[str, int] = {}
    for _ in range(ROUNDS):
        ahead = {name: end // unit * unit for name, end in _arenas(ledger, store).items()}
        if sum(end - reached.get(name, 0) for name, end in ahead.items()) <= SMALL:
            break
        with ExitStack() as opened:
            for name, end in ahead.items():
                for part in _opened(opened, store, name, reached.get(name, 0), end):
                    take(part)
                    reached[name] = end
    ledger.fold()
    with ExitStack() as opened, ledger.newest() as reader:  # which sees nothing yet
        with ledger.writing():
            needed = _fold(reader)
            arenas = _arenas(ledger, store)  # from here on it sees this moment
            at = datetime.now(UTC)
            for name, end in arenas.items():
                for part in _opened(opened, store, name, reached.get(name, 0), end):
                    take(part)
            log = _opened(opened, store, f"{LEDGER}-wal", 0, needed)
            begun = [part.read(0, WAL_HEADER) for part in log]
            if needed is None:  # what is written next may come to stand within that
                for part in log:
                    take(part)
            rest = [part for name in _beside(reader, store) for part in _opened(opened, store, name, 0)]
        for part in (_database(opened, path), *(log if needed is not None else ()), *rest):
            take(part)
        if [part.read(0, WAL_HEADER) for part in log] != begun:  # it began anew: all of it had been folded in
            log = []
        (schema,) = reader.execute("PRAGMA user_version").fetchone()
        (segments,) = reader.execute("SELECT count(*) FROM segments WHERE ended_at IS NULL").fetchone()
        return Moment(
            at=at,
            store_id=str(ledger.value("store_id")),
            schema=schema,
            segments=segments,
            files=(LEDGER, *(part.name for part in (*log, *rest)), *arenas),
        )


def _arenas(ledger: SqliteLedger, store: Path) -> dict[str, int]:
    """How far each arena file was committed, by name."""
    return {file.relative_to(store).as_posix(): end for file, end in ledger.arenas()}


def _fold(reader: sqlite3.Connection) -> int | None:
    """Fold the log into the database file as far as nobody who reads holds it back; how many bytes of it are needed
    beside that. None where somebody else is at folding it: as many as there are, with what of an earlier log may stand
    behind those that count."""
    busy, frames, folded = reader.execute("PRAGMA wal_checkpoint (PASSIVE)").fetchone()
    if busy or frames < 0:
        return None
    (page,) = reader.execute("PRAGMA page_size").fetchone()
    return 0 if frames == folded else WAL_HEADER + int(frames) * (FRAME_HEADER + int(page))


def _beside(reader: sqlite3.Connection, store: Path) -> Iterator[str]:
    """The snapshots in use, and whatever else a store keeps beside its ledger."""
    for (file,) in reader.execute("SELECT file FROM snapshots ORDER BY file"):
        yield f"views/{file}"
    for entry in sorted((*store.iterdir(), *store.glob("pruned/*"))):
        if entry.is_file() and not entry.name.startswith(LEFT_OUT) and entry.suffix not in (".lock", ".part"):
            yield entry.relative_to(store).as_posix()


def _opened(opened: ExitStack, store: Path, name: str, begin: int, end: int | None = None) -> list[Part]:
    """The part of a file that stays open with ``opened``; none where there is nothing of it, for what is damaged in the
    store is so in its copy."""
    try:
        file = opened.enter_context((store / name).open("rb", buffering=0))
    except FileNotFoundError:
        return []
    size = os.fstat(file.fileno()).st_size
    end = size if end is None else min(end, size)
    return [Part(name=name, begin=begin, end=end, read=partial(_read, file))] if begin < end else []


def _read(file: FileIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _database(opened: ExitStack, path: Path) -> Part:
    """The database file, past SQLite, which has it open in this process.

    Closing any descriptor of a file drops every lock this process has on it, those of SQLite too: so says POSIX. The
    one that is opened here is for that never closed. https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks
    """
    found = path.stat()
    if not hasattr(os, "pread"):  # where it is not so
        (part,) = _opened(opened, path.parent, path.name, 0)
        return part
    key = (found.st_dev, found.st_ino)
    with _opening:
        if key not in _descriptors:
            _descriptors[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return Part(name=LEDGER, begin=0, end=found.st_size, read=partial(_pread, _descriptors[key]))


_descriptors: dict[tuple[int, int], int] = {}  # by device and inode
_opening = threading.Lock()


def _pread(file: int, at: int, size: int) -> bytes:
    found = b""
    while len(found) < size and (more := os.pread(file, size - len(found), at + len(found))):
        found += more
    return found
