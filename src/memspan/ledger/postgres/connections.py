"""PostgreSQL connections: a pool, transactions bound to a namespace, their errors in memspan's terms.

Whatever sets something for a transaction is said by SET LOCAL within it: so it holds behind a pooler, and on the
workers of a distributed server (with ``citus.propagate_set_commands = 'local'``).

A call of which the server surely did nothing, as its connection was lost before it was committed or another transaction
was in its way, is repeated as a whole, a few times. One that was lost while it was committed is asked about.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from memspan.errors import (
    InDoubt,
    InvalidInput,
    MissingExtra,
    NotAStore,
    NotWritable,
    StoreBusy,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
)
from memspan.ledger.postgres.dialect import translated
from memspan.ledger.transactions import Cursor, Transactions

try:
    import psycopg
    from psycopg.adapt import Loader
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import Format
    from psycopg.sql import SQL, Composed, Identifier, Literal
    from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests
except ImportError as error:
    raise MissingExtra("a store on PostgreSQL needs psycopg", mend='pip install "memspan[postgres]"') from error

T = TypeVar("T")

SCHEMA = "memspan"
STATEMENT_SECONDS = 60  # unless the address, the role or the database says another statement_timeout
LOCK_SECONDS = 60  # likewise lock_timeout
GIVEN_SECONDS = 30.0  # to wait for a connection, unless the address says another connect_timeout
DOUBT_SECONDS = 30.0  # to ask whether a transaction was committed
IDLE_SECONDS = 15  # a writer that says nothing for so long is taken for dead: others wait for it
REPEATING_SECONDS = 60.0  # after which a call is not begun again
POOL = 8  # threads of this process that are in transactions at once
NESTED = 3  # connections that each of them needs at most: a moment, a newer one within it, a write within that
TURNS = 4  # connections that hold turns, or no transaction
RECONNECT_SECONDS = 1.0  # from one try to reach a server that is down to the next, as long as somebody waits for it
TRIES = 4  # of a call of which nothing was done
PAUSE = 0.1  # seconds before the second try, twice as many before each that follows
SETTING, NAME = "memspan.namespace", "memspan.name"  # of the namespace a transaction is bound to: its number, its name
NOWHERE = 0  # the number of no namespace
PLANS = (  # compiling and starting workers cost more than a search; a plan is made for the scope that is asked for;
    "SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL plan_cache_mode = force_custom_plan;"
    # what searches read is in memory: no index is read from end to end to spare some pages
    " SET LOCAL seq_page_cost = 0.1; SET LOCAL random_page_cost = 0.1"
)


class _Number(Loader):
    """numeric, which sums of whole numbers are: an int, or a float."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


class AsSent(Loader):
    """The bytes of a value as they come over the wire."""

    format = Format.BINARY

    def load(self, data: Any) -> bytes:
        return bytes(data)


class PostgresConnection:
    """One transaction's connection: takes the ledger's SQL and speaks PostgreSQL.

    ``enter`` binds the transaction to a namespace; in one that writes it takes the namespace's head, which orders those
    who write there: so commit order is the order of seqs.
    """

    def __init__(self, raw: psycopg.Connection[Any], numbers: dict[str, int], *, writes: bool) -> None:
        self.raw = raw
        self.writes = writes
        self._made = set[str]()  # namespaces that are rolled back if this transaction is
        self._numbers = numbers
        self._entered = NOWHERE

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Cursor:
        statement = translated(sql)
        return self.raw.execute(statement.sql, statement.bound(parameters))

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Cursor:
        statement = translated(sql)
        cursor = self.raw.cursor()
        bound = [statement.bound(row) for row in rows]
        if bound:
            cursor.executemany(statement.sql, bound)
        return cursor

    def binary(self, sql: str, parameters: Sequence[Any] = (), *, during: Mapping[str, str] | None = None) -> list[Any]:
        """The rows of a query as they come over the wire: a vector is its bytes. Only ``during`` it these settings
        hold, which are said in the same round trip."""
        statement = translated(sql)
        with self.raw.cursor(binary=True) as cursor:
            if not during:
                return cursor.execute(statement.sql, statement.bound(parameters)).fetchall()
            with self.raw.pipeline():
                for name, value in during.items():
                    self.raw.execute(f"SET LOCAL {name} = {value}")
                cursor.execute(statement.sql, statement.bound(parameters))
                for name in during:
                    self.raw.execute(f"SET LOCAL {name} TO DEFAULT")
                return cursor.fetchall()

    def stream(self, sql: str, *parameters: Any) -> Iterator[Any]:
        """The rows of a query, a part at a time, as they come over the wire."""
        statement = translated(sql)
        with self.raw.cursor("memspan_rows", binary=True) as cursor:
            cursor.itersize = 2_000
            yield from cursor.execute(statement.sql, statement.bound(parameters))

    def enter(self, name: str, create: bool) -> int:
        """The number of the namespace the transaction is bound to from now on; NOWHERE where there is no such one."""
        number = self._numbers.get(name, NOWHERE)
        if number == NOWHERE:
            number = self._looked_up(name, create)
        if number != self._entered:
            self._bind(number, name)
            self._entered = number
            if self.writes and number != NOWHERE:
                self.execute("SELECT seq FROM heads WHERE namespace = ? FOR UPDATE", (number,)).fetchone()
        return number

    def _looked_up(self, name: str, create: bool) -> int:
        number = self._number(name, make=False)
        if number is None and create:
            self._made.add(name)  # it may yet be rolled back
            self._numbers.setdefault(name, NOWHERE)  # but it was named, for who asks of all that were
            number = self._number(name, make=True)
            self._bind(int(number), name)
            self.execute("INSERT INTO heads (namespace) VALUES (?) ON CONFLICT (namespace) DO NOTHING", (number,))
        if number is not None and name not in self._made:
            self._numbers[name] = int(number)
        return NOWHERE if number is None else int(number)

    def _number(self, name: str, *, make: bool) -> Any:
        return self.execute("SELECT namespace_number(CAST(? AS TEXT), CAST(? AS BOOLEAN))", (name, make)).fetchone()[0]

    def _bind(self, number: int, name: str) -> None:
        binding = SQL(f"SET LOCAL {SETTING} = '{number}'; SET LOCAL {NAME} = {{}}")
        self.raw.execute(binding.format(Literal(name)))


@dataclass(slots=True)
class _Held:
    """What a thread has open."""

    reader: PostgresConnection | None = None
    moment: object | None = None
    depth: int = 0
    repeats: bool = False


class PostgresConnections(Transactions):
    """The pool of connections to one database, and transactions on it.

    Nested reads of a thread share one moment of the store. A forked child opens a pool of its own.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._closed = False
        self._numbers: dict[str, int] = {}
        self._prepared: int | None = 2  # how often a statement is said before it is prepared; None: never
        self._settings = settings_of(url)
        self.statement_timeout, self.lock_timeout = f"{STATEMENT_SECONDS}s", f"{LOCK_SECONDS}s"
        self._server: object = None
        self._patience = float(self._settings.get("connect_timeout") or 0) or GIVEN_SECONDS
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._local = threading.local()
        self._slots = threading.BoundedSemaphore(POOL)
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._pool = ConnectionPool(
            self.conninfo(),
            kwargs={"autocommit": True},
            min_size=0,
            max_size=POOL * NESTED + TURNS,
            open=False,
            configure=self.configure,
            timeout=self._patience,
            reconnect_timeout=RECONNECT_SECONDS,
            reconnect_failed=_tried_again,
            name="memspan",
        )
        self._pool.open()

    def ask(self, raw: psycopg.Connection[Any]) -> None:
        """Ask which server this is, and for the timeouts that the address, the role or the database sets: they count,
        and ours where none is."""
        self._server = server_of(raw)
        for name in ("statement_timeout", "lock_timeout"):
            ((said,),) = raw.execute("SELECT current_setting(%s)", (name,)).fetchall()
            if said != "0":
                setattr(self, name, said)

    def conninfo(self) -> str:
        """How to connect."""
        return conninfo(self.url)

    def configure(self, raw: psycopg.Connection[Any]) -> None:
        """Prepare a new connection."""
        raw.adapters.register_loader("numeric", _Number)

    def _held(self) -> _Held:
        held: _Held | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = _Held()
        return held

    def _usable(self) -> ConnectionPool[Any]:
        if self._closed:
            raise StoreClosed("this memory was closed", mend="open a new Memory on the same path")
        if self._process != os.getpid():
            self._start_afresh()
        return self._pool

    @contextmanager
    def connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection outside any transaction."""
        pool = self._usable()
        with mapped(self.url), pool.connection() as raw:
            yield raw

    @contextmanager
    def writing(self) -> Iterator[PostgresConnection]:
        """A write transaction: committed and durable when it ends, or rolled back whole."""
        with self._transaction("ISOLATION LEVEL READ COMMITTED READ WRITE", writes=True) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[PostgresConnection]:
        """A read transaction: nested uses on one thread share one moment of the store."""
        self._usable()
        held = self._held()
        if held.reader is not None:
            yield held.reader
            return
        with self._transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", writes=False) as connection:
            held.reader, held.moment = connection, object()
            try:
                yield connection
            finally:
                held.reader = held.moment = None

    @contextmanager
    def newest(self) -> Iterator[PostgresConnection]:
        """A read transaction that begins now, whatever moment this thread reads in."""
        self._usable()
        held = self._held()
        reader, moment = held.reader, held.moment
        held.reader = None
        try:
            with self.reading() as connection:
                yield connection
        finally:
            held.reader, held.moment = reader, moment

    def moment(self) -> object | None:
        """The same object for as long as this thread's reads see one moment; None outside ``reading()``."""
        return self._held().moment

    def repeating(self, call: Callable[[], T]) -> T:
        """What ``call`` gives, which is one transaction, or several that may each be repeated. It is called again where
        the server surely did nothing of it, a few times; within another transaction or another such call, that one is.
        """
        self._usable()
        held = self._held()
        if held.depth or held.repeats:
            return call()
        until, attempt = time.monotonic() + REPEATING_SECONDS, 1
        held.repeats = True
        try:
            while True:
                try:
                    return call()
                except StoreError as error:
                    if not undone(error.__cause__) or attempt == TRIES or time.monotonic() > until:
                        raise
                time.sleep(PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
                attempt += 1
        finally:
            held.repeats = False

    @contextmanager
    def turn(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this is now the only one that is at ``name`` in this store; ``wait`` for whoever is at it."""
        self._usable()
        mine = self._turns[name]  # one connection for each name, however many threads want a turn
        if not mine.acquire(blocking=wait):
            yield False
            return
        try:
            got = "pg_advisory_xact_lock({}) IS NOT NULL" if wait else "pg_try_advisory_xact_lock({})"
            # all in one message, of which no open query is left: that would keep what others erase from being vacuumed
            begin = f"BEGIN; {TURNING}; SELECT {got.format(lock_of('turn', name))}"
            with mapped(self.url), self._begun(begin) as (raw, said):
                only = bool(said.fetchall()[0][0])
                try:
                    yield only
                finally:
                    with suppress(psycopg.Error):  # lost meanwhile: then somebody else may have had the turn too
                        raw.execute("COMMIT", prepare=False)
        finally:
            mine.release()

    def value(self, key: str) -> str | None:
        """A value of the store itself; out of a moment it takes one round trip and no transaction."""
        reader = self._held().reader
        if reader is not None:
            row = reader.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])
        asked = SQL("SELECT value FROM {} WHERE key = {}").format(Identifier(SCHEMA, "store"), Literal(key))
        with self._slot(), mapped(self.url), self._begun(asked) as (_, said):
            found = said.fetchall()
        return None if not found else str(found[0][0])

    @contextmanager
    def _transaction(self, mode: str, *, writes: bool) -> Iterator[PostgresConnection]:
        begin = f"BEGIN {mode}; {self.settings()}"
        if writes:
            begin += f"; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'; SELECT pg_current_xact_id()"
        self._usable()
        with self._slot(), mapped(self.url), self._begun(begin) as (raw, said):
            process = os.getpid()
            try:
                yield PostgresConnection(raw, self._numbers, writes=writes)
            except BaseException as error:
                if getattr(error, "sqlstate", None) in UNPREPARED:
                    self._prepared = None
                with suppress(psycopg.Error):
                    if process == os.getpid():
                        raw.execute("ROLLBACK", prepare=False)
                raise
            if process != os.getpid():  # a child that was forked in here: the transaction is its parent's
                return
            self._commit(raw, str(said.fetchall()[0][0]) if writes else None)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the threads that are in transactions; those that are in already have what they need next."""
        held, slots = self._held(), self._slots
        if not held.depth and not slots.acquire(timeout=self._patience):
            problem = f"{POOL} threads of this process are at work in {place(self.url)}"
            raise StoreBusy(problem, mend="ask from fewer threads at once, or retry")
        held.depth += 1
        try:
            yield
        finally:
            held.depth -= 1
            if not held.depth:
                slots.release()

    def _commit(self, raw: psycopg.Connection[Any], transaction: str | None) -> None:
        try:
            ended = raw.execute("COMMIT", prepare=False).statusmessage
        except psycopg.Error as error:
            if transaction is None or not lost(error):
                raise
            if not self._committed(transaction):
                raise
        else:
            if ended != "COMMIT":
                raise StoreError(f"{place(self.url)} rolled a transaction back", mend="see the server's log")

    def _committed(self, transaction: str) -> bool:
        """Whether a transaction that lost its connection while it was committed is so. Raises InDoubt where the same
        server does not tell."""
        until = time.monotonic() + DOUBT_SECONDS
        while time.monotonic() < until:
            with suppress(psycopg.Error), psycopg.connect(self.conninfo(), autocommit=True) as raw:
                if self._server is None or server_of(raw) != self._server:
                    break
                status = raw.execute("SELECT pg_xact_status(CAST(%s AS xid8))", (transaction,)).fetchall()[0][0]
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
            time.sleep(PAUSE * random.uniform(0.5, 1.0))
        raise InDoubt(
            f"{place(self.url)} was lost while it committed: whether the write was done is not known",
            mend="see that the server runs, then repeat the call: with an idempotency_key that does nothing twice",
        )

    def settings(self) -> str:
        """What holds for every transaction."""
        return (
            f"SET LOCAL search_path = {SCHEMA}, public; SET LOCAL statement_timeout = '{self.statement_timeout}';"
            f" SET LOCAL lock_timeout = '{self.lock_timeout}'; SET LOCAL {SETTING} = '{NOWHERE}';"
            f" SET LOCAL {NAME} = ''; {PLANS}"
        )

    @contextmanager
    def _begun(self, begin: str | Composed) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Cursor[Any]]]:
        """A connection on which ``begin`` was said, and what it said last; another one where that was lost meanwhile,
        as all may be that waited while the server was down."""
        pool = self._usable()
        for left in reversed(range(pool.max_size + TRIES)):
            raw = pool.getconn()
            try:
                raw.prepare_threshold = self._prepared
                said = raw.execute(begin, prepare=False)
            except BaseException as error:
                pool.putconn(raw)
                if not left or not lost(error):
                    raise
                continue
            try:
                while said.nextset():
                    pass
                yield raw, said
            finally:
                pool.putconn(raw)
            return

    def close(self) -> None:
        """Close every connection. Calling it twice does nothing."""
        if not self._closed:
            self._closed = True
            if self._process == os.getpid():
                self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


CONNECTING = {
    "application_name": "memspan",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # ms: whoever has sent something learns by then that the server is gone
}
"""How to connect, unless the address says otherwise."""

TURNING = "; ".join(
    f"SET LOCAL {name} = 0" for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
)
POOLS = (PoolTimeout, PoolClosed, TooManyRequests)
REFUSED = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected: another transaction went first
UNPREPARED = frozenset({"26000", "42P05"})  # a prepared statement is not there, or there already
GONE = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
"""The server shuts down, crashed, starts; it ended a session that was idle."""


def lost(error: BaseException | None) -> bool:
    """Whether the connection to the server is gone, by what that raised."""
    if not isinstance(error, psycopg.Error) or isinstance(error, POOLS):  # whose errors are of psycopg's kinds
        return False
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError)
    return code in GONE or code.startswith("08")


def undone(error: BaseException | None) -> bool:
    """Whether of what failed so nothing was done, and it may be when it is repeated."""
    return lost(error) or getattr(error, "sqlstate", None) in REFUSED | UNPREPARED


def server_of(raw: psycopg.Connection[Any]) -> object:
    """Which server this is: the same as long as its transactions have the same numbers; None where it does not tell."""
    try:
        return raw.execute(
            "SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()"
        ).fetchone()
    except psycopg.DatabaseError:
        if raw.closed:
            raise
        return None


def lock_of(kind: str, name: str) -> int:
    """The number of an advisory lock."""
    return int.from_bytes(sha256(f"memspan {kind}\0{name}".encode()).digest()[:8], signed=True)


def _tried_again(pool: ConnectionPool[Any]) -> None:
    """Have a pool that could not connect try again: by itself it would leave those who wait to wait in vain, or, if it
    were to go on longer, try ever more seldom."""
    if pool.get_stats().get("requests_waiting"):
        pool.check()


@contextmanager
def mapped(url: str) -> Iterator[None]:
    """psycopg's and the pool's errors as memspan's."""
    try:
        yield
    except (psycopg.Error, *POOLS) as error:
        raise mapped_error(error, place(url)) from error


def settings_of(url: str) -> dict[str, Any]:
    """What an address says. Raises InvalidInput where it is none: without what libpq says of it, which may hold a part
    of a password in which special characters are not quoted."""
    try:
        parts: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.Error:
        parts = {"host": "@"}
    ports = str(parts.get("port", "")).replace(",", "")
    if any("@" in str(parts.get(name, "")) for name in ("host", "dbname")) or not (ports.isdigit() or not ports):
        mend = "postgresql://user@host:5432/database, special characters of user and password quoted, as %40 is @"
        raise InvalidInput("path", "is no address of a database", mend=mend)
    return parts


def conninfo(url: str) -> str:
    """How to connect to the database at ``url``. Raises InvalidInput where that is no address."""
    return make_conninfo("", **{**CONNECTING, **settings_of(url)})


def place(url: str) -> str:
    """Where a store is, without the password: for messages and the log."""
    parts = settings_of(url)
    host = str(parts.get("host", "localhost"))
    port = f":{parts['port']}" if "port" in parts else ""
    return f"postgresql://{host}{port}/{parts.get('dbname', '')}"


def database(url: str, name: str) -> str:
    """The address of another database of the same server."""
    parts = urlsplit(url)
    kept = "&".join(part for part in parts.query.split("&") if part and not part.startswith("dbname="))
    return urlunsplit(parts._replace(path=f"/{name}", query=kept))


def mapped_error(error: Exception, where: str) -> StoreError | InvalidInput:
    """What one of psycopg's errors is in memspan's terms; ``where`` is the store, without a password."""
    said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    code = getattr(error, "sqlstate", None) or ""
    if isinstance(error, (PoolTimeout, TooManyRequests)):
        return StoreBusy(
            f"{where} gave no connection ({said})", mend="see that the server runs and has connections left, then retry"
        )
    if isinstance(error, PoolClosed):
        return StoreClosed("this memory was closed", mend="open a new Memory on the same path")
    if isinstance(error, psycopg.DataError) and "NUL" in said:
        return InvalidInput("text", "holds a NUL character, which PostgreSQL does not store", mend="leave it out")
    for prefix, (kind, problem, mend) in ERRORS.items():
        if code.startswith(prefix):
            return kind(f"{where} {problem} ({said})", mend=mend)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreBusy(f"{where} cannot be reached ({said})", mend="see that the server runs, then repeat the call")
    return StoreError(f"{where}: {said}", mend="run `memspan pg doctor`")


POOLED = "is behind a pooler that does not know prepared statements", "repeat the call: it does without from now on"
ERRORS: Mapping[str, tuple[type[StoreError], str, str]] = {
    "40": (StoreBusy, "was changed by another process meanwhile", "repeat the call"),
    "55P03": (StoreBusy, "is locked by another session", "find the session that holds it and retry"),
    "55006": (StoreBusy, "is in use", "retry in a moment"),
    "57014": (StoreBusy, "took longer than its statement_timeout", "retry, or ask for less at once"),
    "57P": (StoreBusy, "is shutting down or starting", "repeat the call in a moment"),
    "53300": (StoreBusy, "has no connection left", "raise max_connections, or use a pooler"),
    "53100": (StoreFull, "has no space left", "free disk space and retry; nothing was half-written"),
    "53": (StoreFull, "has run out of something", "see the server's log; nothing was half-written"),
    "54000": (StoreError, "refused what is too large", "add less at once"),
    "26000": (StoreBusy, *POOLED),
    "42P05": (StoreBusy, *POOLED),
    "08": (StoreBusy, "cannot be reached", "see that the server runs, then repeat the call"),
    "28": (NotWritable, "lets nobody in like that", "check user and password in the address"),
    "3D000": (NotAStore, "does not exist", "createdb it, then: memspan pg init"),
    "42501": (NotWritable, "does not allow it", "have its owner do it; `memspan pg doctor` tells who this role is"),
    "25006": (NotWritable, "is read only", "connect to the primary server"),
    "42P01": (NotAStore, "holds no store", "make one: memspan pg init"),
    "3F000": (NotAStore, "holds no store", "make one: memspan pg init"),
    "XX": (StoreCorrupt, "is damaged", "see the server's log, restore a backup"),
    "58": (StoreError, "met an error of its system", "see the server's log"),
}
"""SQLSTATEs by their beginning, the longer before the shorter: what they are, what is wrong, the mend."""
