"""The schema on a PostgreSQL server, and what that server can do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from memspan.errors import MissingExtra, NewerStore, NotAStore, NotWritable, StoreCorrupt
from memspan.ledger.postgres import distribution, tenants
from memspan.ledger.postgres.connections import SCHEMA, conninfo, mapped
from memspan.ledger.schema import Migration, migrations

LOCK = 0x6D73_706E  # "mspn": the advisory lock of whoever migrates
OLDEST = 150_000  # PostgreSQL 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a server can do, asked and not concluded from versions. ``vector``: the version of pgvector, (0, 0) where it
    is not installed; ``half``: it has vectors of float16; ``iterative``: an index goes on until a filter has enough;
    ``fold``: how it folds case, "{}" the text; ``citus``: it distributes tables; ``bound``: this role sees the
    namespace it is bound to only."""

    server: int
    vector: tuple[int, ...] = (0, 0)
    half: bool = False
    iterative: bool = False
    fold: str = "lower({})"
    citus: bool = False
    bound: bool = False

    @property
    def column(self) -> str:
        """The type of a vector."""
        return "halfvec" if self.half else "vector"


def made(url: str) -> bool:
    """Whether the database holds a store. Raises StoreError where it cannot be asked."""
    with mapped(url), psycopg.connect(conninfo(url), autocommit=True) as raw:
        known = raw.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.store",)).fetchone()
        if known is None or known[0] is None:
            return False
        return raw.execute(f"SELECT 1 FROM {SCHEMA}.store WHERE key = 'encoder'").fetchone() is not None


def capabilities(raw: psycopg.Connection[Any]) -> Capabilities:
    """What the server that ``raw`` is connected to can do, in this database."""
    extensions = dict(raw.execute("SELECT extname, extversion FROM pg_extension").fetchall())
    collations = {name for (name,) in raw.execute("SELECT collname FROM pg_collation").fetchall()}
    half = raw.execute("SELECT 1 FROM pg_type WHERE typname = 'halfvec'").fetchone() is not None
    raw.execute("SELECT NULL::vector") if "vector" in extensions else None  # its settings come with its library
    known = {
        name
        for (name,) in raw.execute(
            "SELECT name FROM pg_settings WHERE name IN ('hnsw.iterative_scan', 'citus.node_conninfo')"
        )
    }
    fold = next((form for collation, form in FOLDS.items() if collation in collations), "lower({})")
    return Capabilities(
        server=raw.info.server_version,
        vector=tuple(int(part) for part in extensions.get("vector", "0.0").split(".")[:3]),
        half=half,
        iterative="hnsw.iterative_scan" in known,
        fold=fold,
        citus="citus" in extensions,
        bound=tenants.bound(raw),
    )


FOLDS = {
    "pg_unicode_fast": 'casefold({} COLLATE "pg_unicode_fast")',
    "pg_c_utf8": 'lower({} COLLATE "pg_c_utf8")',
    "und-x-icu": 'lower({} COLLATE "und-x-icu")',
}


def migrate(raw: psycopg.Connection[Any], where: str) -> list[int]:
    """Bring the database to the newest schema; returns the numbers applied. One process at a time.

    Raises NotAStore (no pgvector, or what stands in the schema is not ours), NewerStore, StoreCorrupt, and NotWritable
    where there is something to do that this role may not.
    """
    known = migrations("postgres")
    raw.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
    try:
        there = applied(raw)
        if len(there) == len(known):
            prove(there, known, where)
            return []
        if there and there[-1][0] > known[-1].number:
            raise NewerStore(
                f"{where} has schema {there[-1][0]}, this memspan knows up to {known[-1].number}",
                mend="upgrade memspan (pip install -U memspan); the store was not touched",
            )
        prove(there, known[: len(there)], where)
        _own(raw, where, bool(there))
        can = _ready(raw, where)
        for migration in known[len(there) :]:
            _apply(raw, migration, can)
        if distribution.spread(raw):  # so that new tables are too
            distribution.distribute(raw, where)
        return [migration.number for migration in known[len(there) :]]
    finally:
        if not raw.closed:
            raw.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))


def applied(raw: psycopg.Connection[Any]) -> list[tuple[int, str]]:
    """The migrations that were applied: number and hash of each, in order."""
    there = raw.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.migrations",)).fetchone()
    if there is None or there[0] is None:
        return []
    return raw.execute(f"SELECT number, sha256 FROM {SCHEMA}.migrations ORDER BY number").fetchall()


def prove(there: list[tuple[int, str]], known: list[Migration], where: str) -> None:
    """Raises StoreCorrupt unless these migrations were applied."""
    if there != [(migration.number, migration.sha256) for migration in known]:
        raise StoreCorrupt(
            f"the schema of {where} was not made by the migrations of this memspan",
            mend="open it with the version that wrote it, or restore a backup",
        )


def _own(raw: psycopg.Connection[Any], where: str, there: bool) -> None:
    sql = (
        "SELECT coalesce((SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = %s),"
        " has_database_privilege(current_database(), 'CREATE'))"
    )
    row = raw.execute(sql, (SCHEMA,)).fetchone()
    if row is not None and not row[0]:
        what = "an older schema" if there else "no store"
        mend = f"have its owner run memspan pg {'migrate' if there else 'init'}"
        raise NotWritable(f"{where} has {what}, and this role may not change that", mend=mend)


def _ready(raw: psycopg.Connection[Any], where: str) -> Capabilities:
    if raw.info.server_version < OLDEST:
        raise NotAStore(f"{where} is a server older than PostgreSQL 15", mend="upgrade the server")
    try:
        raw.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except psycopg.Error as error:
        raise MissingExtra(
            f"{where} has no pgvector ({str(error).splitlines()[0]})",
            mend="install pgvector on the server, then as its superuser: CREATE EXTENSION vector",
        ) from error
    return capabilities(raw)


def _apply(raw: psycopg.Connection[Any], migration: Migration, can: Capabilities) -> None:
    script = migration.sql.replace("{vector}", can.column)
    with raw.transaction():
        raw.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        raw.execute(f"SET LOCAL search_path = {SCHEMA}, public")
        raw.execute(sql.SQL(script))  # a file of ours
        raw.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, applied_at BIGINT NOT NULL)"
        )
        raw.execute(
            "INSERT INTO migrations VALUES (%s, %s, %s, %s)",
            (migration.number, migration.name, migration.sha256, time.time_ns() // 1000),
        )
        tenants.guard(raw)
        if tenants.there(raw):
            tenants.grant(raw)
