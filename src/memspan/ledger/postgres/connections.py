"""PostgreSQL connections: a pool, transactions bound to a namespace, their errors in memspan's terms.

Whatever sets something for a transaction is said by SET LOCAL within it: so it holds behind a pooler, and on the
workers of a distributed server (with ``citus.propagate_set_commands = 'local'``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from memspan.errors import (
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
    from psycopg.sql import SQL, Literal
    from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout, TooManyRequests
except ImportError as error:
    raise MissingExtra("a store on PostgreSQL needs psycopg", mend='pip install "memspan[postgres]"') from error

SCHEMA = "memspan"
STATEMENT_SECONDS = 60
LOCK_SECONDS = 60
POOL = 8  # connections at most: searches of so many threads at once
TRIES = 4  # of a transaction that did nothing yet, or was refused because of another one
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
            number = self._number(name, make=True)
            self._numbers[name] = NOWHERE  # it may yet be rolled back
            self._bind(int(number), name)
            self.execute("INSERT INTO heads (namespace) VALUES (?) ON CONFLICT (namespace) DO NOTHING", (number,))
        elif number is not None and not (self.writes and name in self._numbers):
            self._numbers[name] = int(number)
        return NOWHERE if number is None else int(number)

    def _number(self, name: str, *, make: bool) -> Any:
        return self.execute("SELECT namespace_number(CAST(? AS TEXT), CAST(? AS BOOLEAN))", (name, make)).fetchone()[0]

    def _bind(self, number: int, name: str) -> None:
        binding = SQL(f"SET LOCAL {SETTING} = '{number}'; SET LOCAL {NAME} = {{}}")
        self.raw.execute(binding.format(Literal(name)))


class PostgresConnections(Transactions):
    """The pool of connections to one database, and transactions on it.

    Nested reads of a thread share one moment of the store. A forked child opens a pool of its own.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._closed = False
        self._numbers: dict[str, int] = {}
        with mapped(url):
            self._settings = conninfo_to_dict(url)
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._local = threading.local()
        self._pool = ConnectionPool(
            self.conninfo(),
            kwargs={"autocommit": True, "prepare_threshold": 2},
            min_size=0,
            max_size=POOL,
            open=False,
            configure=self.configure,
            timeout=30.0,
            name="memspan",
        )
        self._pool.open()

    def conninfo(self) -> str:
        """How to connect."""
        return make_conninfo("", **{"application_name": "memspan", "connect_timeout": 10, **self._settings})

    def configure(self, raw: psycopg.Connection[Any]) -> None:
        """Prepare a new connection."""
        raw.adapters.register_loader("numeric", _Number)

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
        held = getattr(self._local, "reader", None)
        if held is not None:
            yield held
            return
        with self._transaction("ISOLATION LEVEL REPEATABLE READ READ ONLY", writes=False) as connection:
            self._local.reader, self._local.moment = connection, object()
            try:
                yield connection
            finally:
                self._local.reader = self._local.moment = None

    @contextmanager
    def newest(self) -> Iterator[PostgresConnection]:
        """A read transaction that begins now, whatever moment this thread reads in."""
        held, moment = getattr(self._local, "reader", None), self.moment()
        self._local.reader = None
        try:
            with self.reading() as connection:
                yield connection
        finally:
            self._local.reader, self._local.moment = held, moment

    def moment(self) -> object | None:
        """The same object for as long as this thread's reads see one moment; None outside ``reading()``."""
        return getattr(self._local, "moment", None)

    @contextmanager
    def _transaction(self, mode: str, *, writes: bool) -> Iterator[PostgresConnection]:
        begin = f"BEGIN {mode}; {self.settings()}"
        with self._begun(begin) as raw:
            try:
                yield PostgresConnection(raw, self._numbers, writes=writes)
                raw.execute("COMMIT")
            except BaseException:
                if not raw.closed and raw.info.transaction_status:
                    raw.execute("ROLLBACK")
                raise

    def settings(self) -> str:
        """What holds for every transaction."""
        return (
            f"SET LOCAL search_path = {SCHEMA}, public; SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s';"
            f" SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; SET LOCAL {SETTING} = '{NOWHERE}'; SET LOCAL {NAME} = '';"
            f" {PLANS}"
        )

    @contextmanager
    def _begun(self, begin: str) -> Iterator[psycopg.Connection[Any]]:
        """A connection on which ``begin`` was said; another one where the first was lost meanwhile."""
        pool = self._usable()
        with mapped(self.url):
            for left in reversed(range(TRIES)):
                raw = pool.getconn()
                try:
                    raw.execute(begin)
                except psycopg.OperationalError:
                    pool.putconn(raw)
                    if not left or not raw.closed:
                        raise
                    continue
                try:
                    yield raw
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


@contextmanager
def mapped(url: str) -> Iterator[None]:
    """psycopg's and the pool's errors as memspan's."""
    try:
        yield
    except (psycopg.Error, PoolTimeout, PoolClosed, TooManyRequests) as error:
        raise mapped_error(error, place(url)) from error


def place(url: str) -> str:
    """Where a store is, without the password: for messages and the log."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return "the database"
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
            f"{where} gave no connection ({said})", mend="see that the server runs and has connections left"
        )
    if isinstance(error, PoolClosed):
        return StoreClosed("this memory was closed", mend="open a new Memory on the same path")
    if isinstance(error, psycopg.ProgrammingError) and not code:
        return InvalidInput(
            "path", f"is no address of a database ({said})", mend="postgresql://user@host:5432/database"
        )
    if isinstance(error, psycopg.DataError) and "NUL" in said:
        return InvalidInput("text", "holds a NUL character, which PostgreSQL does not store", mend="leave it out")
    for prefix, (kind, problem, mend) in ERRORS.items():
        if code.startswith(prefix):
            return kind(f"{where} {problem} ({said})", mend=mend)
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreBusy(f"{where} cannot be reached ({said})", mend="see that the server runs, then repeat the call")
    return StoreError(f"{where}: {said}", mend="run `memspan pg doctor`")


ERRORS: Mapping[str, tuple[type[StoreError], str, str]] = {
    "40": (StoreBusy, "was changed by another process meanwhile", "repeat the call"),
    "55P03": (StoreBusy, f"was locked for {LOCK_SECONDS} s", "find the process that holds it and retry"),
    "55006": (StoreBusy, "is in use", "retry in a moment"),
    "57014": (StoreBusy, f"did not answer within {STATEMENT_SECONDS} s", "retry, or ask for less at once"),
    "57P": (StoreBusy, "is shutting down or starting", "repeat the call in a moment"),
    "53300": (StoreBusy, "has no connection left", "raise max_connections, or use a pooler"),
    "53100": (StoreFull, "has no space left", "free disk space and retry; nothing was half-written"),
    "53": (StoreFull, "has run out of something", "see the server's log; nothing was half-written"),
    "54000": (StoreError, "refused what is too large", "add less at once"),
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
