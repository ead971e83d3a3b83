"""The SQLite files of others, read as data: nothing in them is changed, and nothing of theirs is run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
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
            connection.text_factory = _text
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where what it says of a file quotes its bytes
        problem = f"{path.name} cannot be read as an SQLite database ({error})"
        raise InvalidInput("path", problem, mend="it is damaged or in use; copy it with its -wal file") from error


def columns(path: Path, table: str) -> set[str]:
    """The columns of an ordinary table of a file, none where there is no such table or file: a view or a virtual table
    would run what the file says."""
    try:
        with database(path) as connection:
            made = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
            row = made.fetchone()
            if row is None or not str(row[0]).upper().startswith("CREATE TABLE"):
                return set()
            return {str(name) for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}
    except (InvalidInput, OSError):
        return set()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
