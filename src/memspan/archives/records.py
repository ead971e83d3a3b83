"""Summaries of conversations as Latent Memory finds them elsewhere: JSON, YAML, or an SQLite table.

    {"conversation_id": "0328711", "title": ..., "timestamp": "March 28th, 11am", "type": ..., "summary": ...}

One object or a list of them, or the rows of ``conversation_summaries``. The summary is the text, and the conversation
its session; a timestamp that says a time is when it happened; all else is metadata. A ``metadata.json`` of memspan's
own is read too, without the vectors beside it.

YAML is read as texts, lists and objects, whatever its tags say, without aliases (a few lines of which make billions),
up to 4 MiB. An SQLite file is opened unchangeable, and only a plain table in it is read.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from memspan.archives import rows
from memspan.archives.base import LONGEST_ITEM, Record, Report, elements
from memspan.arguments import DEEPEST_METADATA
from memspan.errors import InvalidInput, MissingExtra
from memspan.records import Problem

TABLE = "conversation_summaries"
LONGEST_YAML = 4 << 20  # bytes
MOST_NODES = LONGEST_YAML // 16  # of YAML, which takes about a kilobyte for each
_SQLITE = b"SQLite format 3\0"
_YAML = re.compile(rb"""(?m)^[ ]*(?:-[ ]+)?["']?conversation_id["']?[ ]*:""")


def recognises(path: Path, head: bytes) -> bool:
    if head.startswith(_SQLITE):
        return TABLE.encode() in head
    if path.suffix.lower() in (".yaml", ".yml"):
        return _YAML.search(head) is not None and b"summary" in head
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] not in (b"{", b"["):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(start.decode("utf-8", "replace").removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and isinstance(first.get("summary"), str) and "conversation_id" in first


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput, MissingExtra."""
    with rows.there(path).open("rb") as file:
        head = file.read(64)
    if head.startswith(_SQLITE):
        found = _table(path, report)
    elif path.suffix.lower() in (".yaml", ".yml"):
        found = _yaml(path)
    else:
        found = _json(path, head)
    named = ((f"{path.name}[{number}]", row) for number, row in enumerate(found))
    yield from rows.records(named, None, iter(()), report)


def _json(path: Path, head: bytes) -> Iterator[object]:
    with path.open("rb") as file:
        if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
            for _, value in elements(file, path.name):
                yield value
            return
        raw = file.read(LONGEST_ITEM + 1)
    if len(raw) > LONGEST_ITEM:
        raise InvalidInput("path", f"{path.name} is one object of over {LONGEST_ITEM >> 20} MiB", mend="make it a list")
    try:
        yield json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("path", f"{path.name} is not JSON ({error})", mend="it was cut short, or damaged") from error


def _yaml(path: Path) -> Iterator[object]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("YAML files need PyYAML", mend='pip install "memspan[yaml]"') from error

    if path.stat().st_size > LONGEST_YAML:
        problem = f"{path.name} is over {LONGEST_YAML >> 20} MiB, the most that is read of YAML"
        raise InvalidInput("path", problem, mend="convert it to JSON")
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        text, depth = path.read_text(encoding="utf-8-sig"), 0
        for count, event in enumerate(yaml.parse(text, loader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise yaml.YAMLError("it has aliases, which are not followed")
            if count > MOST_NODES or depth > DEEPEST_METADATA:
                raise yaml.YAMLError(f"it has over {MOST_NODES:,} values, or is nested over {DEEPEST_METADATA} deep")
        value = yaml.load(text, loader)
    except (yaml.YAMLError, ValueError, TypeError) as error:
        problem = f"{path.name} is not YAML ({str(error)[:200]})"
        raise InvalidInput("path", problem, mend="correct it, or convert it to JSON") from error
    yield from value if isinstance(value, list) else [value]


def _table(path: Path, report: Report) -> Iterator[object]:
    wal = path.with_name(path.name + "-wal")
    if wal.is_file() and wal.stat().st_size:
        problem = "holds changes that are not in the file yet: close the program that writes it, and import again"
        report(Problem(where=wal.name, problem=problem))
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_ITEM)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            plain = connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = ? AND type = 'table' AND sql LIKE 'CREATE TABLE%'", (TABLE,)
            ).fetchone()
            if plain is None:
                raise InvalidInput("path", f"{path.name} has no table {TABLE}", mend="name another --format")
            about = connection.execute(f"PRAGMA table_xinfo({TABLE})").fetchall()
            names = [name for _, name, _, _, _, _, hidden in about if not hidden]  # what is computed is left alone
            columns = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
            for values in connection.execute(f"SELECT {columns} FROM {TABLE}"):
                yield {name: value for name, value in zip(names, values, strict=True) if value is not None}
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where what it says of a file quotes its bytes
        problem = f"{path.name} is no SQLite file that can be read ({error})"
        raise InvalidInput("path", problem, mend="it was cut short, or damaged") from error
