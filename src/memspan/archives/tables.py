"""The SQLite files of others, read as data: nothing in them is changed, and nothing of theirs is run."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from memspan.archives.base import LONGEST_ITEM
from memspan.errors import InvalidInput

BEGINNING = b"SQLite format 3\0"


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads the file at ``path``; text that is not UTF-8 has its bad bytes replaced.

    Raises InvalidInput naming ``path`` where it is no file, or SQLite cannot read it.
    """
    if not path.is_file():
        raise InvalidInput("path", f"there is no file {path}", mend="name an SQLite file, or another --format")
    wal = path.with_name(f"{path.name}-wal")
    # what is still in the log must be read with it; where there is none, nothing is written beside the file
    mode = "mode=ro" if wal.exists() and wal.stat().st_size else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_ITEM)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where what it says of a file quotes its bytes
        problem = f"{path.name} cannot be read as an SQLite database ({error})"
        raise InvalidInput("path", problem, mend="it is damaged or in use; copy it with its -wal file") from error


def columns(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The columns of an ordinary table that are stored, none where there is no such table: a view, a virtual table and
    a computed column would run what the file says."""
    made = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    if made is None or not str(made[0]).upper().startswith("CREATE TABLE"):
        return ()
    return tuple(name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))


def holds(path: Path, table: str, names: Collection[str]) -> bool:
    """Whether the file has an ordinary table with at least these columns; not, where it cannot be read."""
    try:
        with database(path) as connection:
            return set(names).issubset(columns(connection, table))
    except (InvalidInput, OSError):
        return False
