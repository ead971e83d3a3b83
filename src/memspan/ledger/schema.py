"""The schema as numbered, hashed SQL files, applied in order, after a backup where there is something to lose."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from memspan.errors import NewerStore, NotAStore, StoreCorrupt
from memspan.ledger.connections import database_errors

APPLICATION_ID = 0x6D73_706E  # "mspn" in the SQLite header: how a memspan ledger is told from any other database
SMALLEST = 512  # bytes of a database: one page of the smallest size


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(dialect: str) -> list[Migration]:
    """The dialect's migrations in order."""
    folder = resources.files("memspan.ledger") / "sql" / dialect
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [
        Migration(int(file.name[:4]), file.name[5:-4], file.read_text(encoding="utf-8").replace("\r\n", "\n"))
        for file in files
    ]


def migrate(
    connection: sqlite3.Connection,
    path: Path | None,
    connect: Callable[[str | Path], sqlite3.Connection] = sqlite3.connect,
) -> list[int]:
    """Bring the database to the newest schema; returns the numbers applied. ``path`` is None for one in memory.
    ``connect`` opens the backup, encrypted as the database is.

    Raises NotAStore (another program's database), NewerStore, StoreCorrupt (an applied migration was changed since).
    The caller holds the lock that keeps other processes from opening the store meanwhile.
    """
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS)
    known = migrations("sqlite")
    fresh = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    if fresh and path is not None and 0 < path.stat().st_size < SMALLEST:  # which SQLite takes for a new file
        raise StoreCorrupt(f"{path} was cut short", mend="restore a backup")
    if not fresh and application != APPLICATION_ID:
        raise NotAStore(f"{path} is an SQLite database of another program", mend="choose another directory")
    if version > known[-1].number:
        raise NewerStore(
            f"{path} has schema {version}, this memspan knows up to {known[-1].number}",
            mend="upgrade memspan (pip install -U memspan); the store was not touched",
        )
    if not fresh:
        _prove(connection, known[:version])
    if path is not None:  # from here on it is ours to write: the mode is kept in the file
        connection.execute("PRAGMA journal_mode = WAL")
    missing = known[version:]
    if missing and not fresh and path is not None:
        backup(connection, path.with_name(f"{path.name}.before-{missing[0].number:04d}"), connect)
    for migration in missing:
        record = (
            "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
            " sha256 TEXT NOT NULL, applied_at INTEGER NOT NULL);"
            f"INSERT INTO migrations VALUES ({migration.number}, '{migration.name}', '{migration.sha256}',"
            f" {time.time_ns() // 1000});"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {migration.number};"
        )
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{migration.sql}\n{record}\nCOMMIT;")
        except database_errors():
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return [migration.number for migration in missing]


PRAGMAS = ("application_id", "user_version")


def backup(
    connection: sqlite3.Connection,
    target: Path,
    connect: Callable[[str | Path], sqlite3.Connection] = sqlite3.connect,
) -> None:
    """A consistent copy of the database at ``target``, which ``connect`` opens, complete or not there at all."""
    aside = target.with_name(target.name + ".part")
    aside.unlink(missing_ok=True)
    copy = connect(aside)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    aside.replace(target)


def _prove(connection: sqlite3.Connection, applied: list[Migration]) -> None:
    recorded = connection.execute("SELECT number, sha256 FROM migrations ORDER BY number").fetchall()
    if recorded != [(migration.number, migration.sha256) for migration in applied]:
        raise StoreCorrupt(
            "the store's schema was not made by the migrations of this memspan",
            mend="open it with the version that wrote it, or restore a backup",
        )
