"""Summaries of conversations as Latent Memory finds them elsewhere: JSON, YAML, or an SQLite table.

    {"conversation_id": "0328711", "title": ..., "timestamp": "March 28th, 11am", "type": ..., "summary": ...}

One object, a list of them or one a line, or the rows of ``conversation_summaries``. The summary is the text, and the
conversation its session; a timestamp that says a time is when it happened; all else is metadata. A ``metadata.json`` of
memspan's own is read too, without the vectors beside it.

YAML is read as texts, lists and objects, up to 4 MiB. Of an SQLite file only an ordinary table is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from memspan.archives import rows, yaml
from memspan.archives.base import Record, Report, entries, start_of
from memspan.archives.tables import BEGINNING, columns, database, holds
from memspan.errors import InvalidInput

TABLE = "conversation_summaries"
SUFFIXES = (".yaml", ".yml")
LONGEST_YAML = 4 << 20  # bytes
_KEYS = {"conversation_id", "summary"}
_YAML = re.compile(rb"""(?m)^[ ]*(?:-[ ]+)?["']?conversation_id["']?[ ]*:""")


def recognises(path: Path, head: bytes) -> bool:
    """Whether the first record in it has an id of a conversation and a summary, or a table those columns."""
    if head.startswith(BEGINNING):
        return holds(path, TABLE, _KEYS)
    if path.suffix.lower() in SUFFIXES:
        return _YAML.search(head) is not None and b"summary" in head
    start = start_of(head)
    if not start.startswith((b"{", b"[")):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(start.decode("utf-8", "replace").removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= _KEYS and isinstance(first["summary"], str)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput, MissingExtra."""
    with rows.there(path).open("rb") as file:
        if file.peek(len(BEGINNING)).startswith(BEGINNING):
            found = _numbered(path, _table(path))
        elif path.suffix.lower() in SUFFIXES:
            found = _numbered(path, _yaml(path))
        else:
            found = ((where, value) for where, _, value in entries(file, path.name, report))
        yield from rows.records(found, None, iter(()), report)


def _numbered(path: Path, values: Iterable[object]) -> Iterator[tuple[str, object]]:
    return ((f"{path.name}[{number}]", value) for number, value in enumerate(values))


def _yaml(path: Path) -> list[object]:
    if path.stat().st_size > LONGEST_YAML:
        problem = f"{path.name} is over {LONGEST_YAML >> 20} MiB, the most that is read of YAML"
        raise InvalidInput("path", problem, mend="convert it to JSON")
    try:
        value = yaml.loaded(path.read_text(encoding="utf-8-sig"), typed=False)
    except ValueError as error:
        problem = f"{path.name} is not YAML ({str(error)[:200]})"
        raise InvalidInput("path", problem, mend="correct it, or convert it to JSON") from error
    return value if isinstance(value, list) else [value]


def _table(path: Path) -> Iterator[object]:
    with database(path) as connection:
        names = columns(connection, TABLE)
        if not _KEYS.issubset(names):
            raise InvalidInput("path", f"{path.name} has no table {TABLE} of summaries", mend="name another --format")
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
        for values in connection.execute(f"SELECT {quoted} FROM {TABLE}"):
            yield {name: value for name, value in zip(names, values, strict=True) if value is not None}
