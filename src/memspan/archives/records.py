"""Summaries of conversations as Latent Memory finds them elsewhere: JSON, YAML, or an SQLite table.

    {"conversation_id": "0328711", "title": ..., "timestamp": "March 28th, 11am", "type": ..., "summary": ...}

One object, a list of them or one a line, or the rows of ``conversation_summaries``. The summary is the text, and the
conversation its session; a timestamp that says a time is when it happened; all else is metadata. A ``metadata.json`` of
memspan's own is read too, without the vectors beside it.

YAML is read as texts, lists and objects, whatever its tags say, without aliases (a few lines of which make billions),
up to 4 MiB. Of an SQLite file only an ordinary table is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from memspan.archives.base import Record, Report, entries
from memspan.archives.rows import records, there
from memspan.archives.tables import BEGINNING, columns, database
from memspan.arguments import DEEPEST_METADATA
from memspan.errors import InvalidInput, MissingExtra

TABLE = "conversation_summaries"
LONGEST_YAML = 4 << 20  # bytes
MOST_NODES = LONGEST_YAML // 16  # of YAML, which takes about a kilobyte for each
_KEYS = {"conversation_id", "summary"}
_YAML = re.compile(rb"""(?m)^[ ]*(?:-[ ]+)?["']?conversation_id["']?[ ]*:""")


def recognises(path: Path, head: bytes) -> bool:
    """Whether the first record in it has an id of a conversation and a summary, or a table those columns."""
    if head.startswith(BEGINNING):
        return columns(path, TABLE) >= _KEYS
    if path.suffix.lower() in (".yaml", ".yml"):
        return _YAML.search(head) is not None and b"summary" in head
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] not in (b"{", b"["):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(start.decode("utf-8", "replace").removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.keys() >= _KEYS and isinstance(first["summary"], str)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The records of a file. Raises InvalidInput, MissingExtra."""
    with there(path).open("rb") as file:
        if file.peek(16).startswith(BEGINNING):
            rows = _table(path)
        elif path.suffix.lower() in (".yaml", ".yml"):
            rows = _yaml(path)
        else:
            rows = ((where, value) for where, _, value in entries(file, path.name, report))
        yield from records(rows, None, iter(()), report)


def _yaml(path: Path) -> Iterator[tuple[str, object]]:
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
    for number, row in enumerate(value if isinstance(value, list) else [value]):
        yield f"{path.name}[{number}]", row


def _table(path: Path) -> Iterator[tuple[str, object]]:
    names = sorted(columns(path, TABLE))
    if not _KEYS.issubset(names):
        raise InvalidInput("path", f"{path.name} has no table {TABLE} of summaries", mend="name another --format")
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    with database(path) as connection:
        for number, values in enumerate(connection.execute(f"SELECT {quoted} FROM {TABLE}")):
            row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            yield f"{path.name}[{number}]", row
