"""SQLite connections: one that writes, a pool that reads, their errors in memspan's terms."""

from __future__ import annotations

import errno
import os
import queue
import sqlite3
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from memspan.errors import NotWritable, StoreBusy, StoreClosed, StoreCorrupt, StoreError, StoreFull
from memspan.keys import LOCK, Keys

BUSY_SECONDS = 60.0
FOREVER = -1
PRAGMAS = ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON", "cache_size = -16000")


class Connections:
    """The connections to one database file (or to one in memory, where ``path`` is None).

    Threads share one writing connection behind a lock and take a reading one from a pool. A forked child closes what
    it inherited and opens its own: SQLite would go on believing in locks that only the parent has, and the parent
    would remove the log that the child still writes to. A store in memory is copied by a fork.

    ``keys``: those of an encrypted store, by which also the files beside the database are sealed.
    """

    def __init__(self, path: Path | None, keys: Keys | None = None) -> None:
        self.path = path
        self.keys = keys
        self._closed = False
        self._write: sqlite3.Connection | None = None
        self._start_afresh()
        _alive.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.RLock()
        self._local = threading.local()
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._made: list[sqlite3.Connection] = []
        self._quiet = threading.Condition()
        self._reading = 0

    def stop(self) -> None:
        """Wait until no other thread is inside SQLite, and let none in until ``go_on``."""
        self._lock.acquire()
        self._quiet.acquire()
        mine = getattr(self._local, "depth", 0)
        self._quiet.wait_for(lambda: self._reading == mine)

    def go_on(self) -> None:
        self._quiet.release()
        self._lock.release()

    def leave(self) -> None:
        """In a forked child, stopped: let go of the parent's connections and locks."""
        if self.path is not None:
            for connection in self._made:
                connection.close()
            self._write = None
        self._start_afresh()

    def _usable(self) -> None:
        if self._closed:
            raise StoreClosed("this memory was closed", mend="open a new Memory on the same path")

    def open_file(self, target: str | Path) -> sqlite3.Connection:
        """A connection to a database file that is encrypted as this one is, or not as this one is not."""
        if self.keys is None:
            return sqlite3.connect(target, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        return connected(target, self.keys)

    def _connect(self) -> sqlite3.Connection:
        connection = self.open_file(":memory:" if self.path is None else self.path)
        connection.create_function("memspan_fold", 1, _fold, deterministic=True)
        connection.create_function("greatest", 2, _greatest, deterministic=True)
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        self._made.append(connection)
        return connection

    def _writer(self) -> sqlite3.Connection:
        if self._write is None:
            self._write = self._connect()
        return self._write

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """The writing connection outside a transaction, no other process opening or migrating the store meanwhile."""
        self._usable()
        lock = nullcontext() if self.path is None else FileLock(self.path.with_name(LOCK), timeout=BUSY_SECONDS)
        with translated(self.path), lock, self._lock:
            yield self._writer()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed and on the disk at the end, or rolled back whole."""
        self._usable()
        with translated(self.path), self._lock:
            connection = self._writer()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody writes to the store, in this process or another; readers go on."""
        with self.writing():
            yield

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction: nested uses on one thread share one moment of the store."""
        self._usable()
        held = getattr(self._local, "reader", None)
        if held is not None:
            yield held
            return
        with translated(self.path):
            if self.path is None:
                with self._lock:
                    yield self._writer()
                return
            with self._quiet:
                self._reading += 1
            self._local.depth = getattr(self._local, "depth", 0) + 1
            try:
                connection = self._local.reader = self._take()
                connection.execute("BEGIN")
                self._local.moment = object()
                yield connection
            finally:
                taken, self._local.reader = getattr(self._local, "reader", None), None
                self._local.moment = None
                if taken is not None:
                    self._put_back(taken)
                if getattr(self._local, "depth", 0):  # a child that was forked in here counts anew
                    self._local.depth -= 1
                    with self._quiet:
                        self._reading -= 1
                        self._quiet.notify_all()

    @contextmanager
    def turn(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this is now the only one that is at ``name`` in this store; ``wait`` for whoever is at it."""
        if self.path is None:
            yield True
            return
        lock = FileLock(self.path.with_name(f"{name}.lock"), timeout=FOREVER if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def fold(self) -> bool:
        """Fold the write-ahead log into the database file and cut it to nothing; False where a reader of an earlier
        moment would not let go within two seconds, which writers wait too."""
        with self.exclusive() as connection:
            connection.execute("PRAGMA busy_timeout = 2000")
            try:
                busy = connection.execute("PRAGMA wal_checkpoint (TRUNCATE)").fetchone()[0]
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}")
        return not busy

    def changes(self) -> int:
        """How many rows the writing connection has changed so far."""
        self._usable()
        with self._lock:
            return self._writer().total_changes

    @contextmanager
    def newest(self) -> Iterator[sqlite3.Connection]:
        """A read transaction that begins now, whatever moment this thread reads in.

        What threads share and keep up with the ledger is brought up to date in one of these, under the lock of what
        they share: so it only ever goes forward.
        """
        held, moment = getattr(self._local, "reader", None), self.moment()
        self._local.reader = None
        try:
            with self.reading() as connection:
                yield connection
        finally:
            self._local.reader, self._local.moment = held, moment

    def moment(self) -> object | None:
        """The same object for as long as this thread's reads see one moment of the store; None outside ``reading()``.

        Who has kept up with the ledger in this moment need not look again.
        """
        return getattr(self._local, "moment", None)

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._connect()

    def _put_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("COMMIT")
        self._idle.put(connection)

    def close(self) -> None:
        """Close every connection that is not in use. Calling it twice does nothing."""
        if self._closed:
            return
        with self._lock:
            self._closed = True
            while not self._idle.empty():
                self._idle.get_nowait().close()
            if self._write is not None:
                self._write.close()


_alive: weakref.WeakSet[Connections] = weakref.WeakSet()
_forking = threading.local()


def _before_fork() -> None:
    _forking.stopped = sorted(_alive, key=id)  # in one order, so that two threads that fork do not wait for each other
    for connections in _forking.stopped:
        connections.stop()


def _after_fork_in_parent() -> None:
    for connections in _forking.stopped:
        connections.go_on()
    _forking.stopped = []


def _after_fork_in_child() -> None:
    for connections in _forking.stopped:
        connections.leave()
    _forking.stopped = []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _greatest(one: float | None, other: float | None) -> float | None:
    """As PostgreSQL has it: SQLite's ``max`` of two says NULL where either is."""
    known = [value for value in (one, other) if value is not None]
    return max(known, default=None)


def _fold(text: str | None) -> str | None:
    return None if text is None else str(text).casefold()


def connected(target: str | Path, keys: Keys | None) -> sqlite3.Connection:
    """A connection by SQLCipher, which without ``keys`` reads and writes a database in clear as SQLite does."""
    from sqlcipher3 import dbapi2

    made = dbapi2.connect(str(target), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    made.execute("PRAGMA cipher_log_level = NONE")  # what is wrong is raised, and not written to stderr too
    if keys is not None:
        made.execute(f"PRAGMA key = \"x'{keys.ledger()}'\"")
        made.execute("PRAGMA cipher_compatibility = 4")  # the format on the disk, whatever SQLCipher comes later
    return cast(sqlite3.Connection, made)  # not one of its kind, but it has all that one has


def database_errors() -> tuple[type[sqlite3.Error], ...]:
    """SQLite's errors, and SQLCipher's where it is in use: they are no kin, but have the same codes."""
    cipher = sys.modules.get("sqlcipher3.dbapi2")
    return (sqlite3.Error,) if cipher is None else (sqlite3.Error, cipher.Error)


@contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """SQLite's and the lock's errors as memspan's."""
    try:
        yield
    except database_errors() as error:
        raise _translate(error, path) from error
    except Timeout as error:
        raise StoreBusy(f"{path} is being opened by another process", mend="try again in a moment") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(f"no space left beside {path}", mend="free disk space and retry") from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            problem = f"no more files can be opened beside {path}"
            raise StoreError(problem, mend="allow this process more: ulimit -n 4096") from error
        raise NotWritable(f"cannot write beside {path} ({error})", mend="make the directory writable") from error


def _translate(error: sqlite3.Error, path: Path | None) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    where = "the store in memory" if path is None else str(path)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(
            f"{where} was locked for {BUSY_SECONDS:.0f} s", mend="find the process that holds it and retry"
        )
    if primary == sqlite3.SQLITE_FULL or code in (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE):
        return StoreFull(f"no space left for {where}", mend="free disk space and retry; nothing was half-written")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return NotWritable(f"cannot write {where} ({error})", mend="make the directory writable for this user")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(f"{where} is damaged ({error})", mend="restore a backup; `memspan verify` shows the extent")
    if code == sqlite3.SQLITE_IOERR:  # SQLCipher's library does not tell which: full is only a full disk there
        mend = "look for a full quota or a limit on the size of files, then at the disk; nothing was half-written"
        return StoreError(f"{where} could not be read or written ({error})", mend=mend)
    return StoreError(f"{where}: {error}", mend="run `memspan doctor`")
