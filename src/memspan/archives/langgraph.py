"""The long-term store of LangGraph: its items as JSON, as a list, as lines or under ``items``, or SqliteStore's file.

    {"namespace": ["memories", "ana"], "key": "7f1f...", "value": {...}, "created_at": "...", "updated_at": "..."}

The text of an item is what its value says under a name such as ``text``, ``content`` or ``memory``; else all of it, one
``name: value`` a line. The namespace becomes the category. The metadata has ``key``, ``value`` without what became the
text, and ``field``, where in the value that was. ``recorded_at`` is when the value was put there, an earlier
``created_at`` is kept in the metadata. Vectors and times to live are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memspan.archives.base import Item, Record, Report, attempt, entries, start_of
from memspan.archives.tables import BEGINNING, columns, database, holds
from memspan.errors import InvalidInput
from memspan.segmenting import parse_time, shown

_FIELDS = ("text", "content", "memory", "data", "summary", "fact", "note", "page_content", "value")
_SHAPE = (re.compile(rb'"namespace"\s*:\s*\['), re.compile(rb'"key"\s*:'), re.compile(rb'"value"\s*:'))
_COLUMNS = {"prefix", "key", "value"}
_DEEPEST = 8  # names to what is told of a value without a text


def recognises(path: Path, head: bytes) -> bool:
    """Whether items with a namespace, a key and a value are in it, or a table of them."""
    if head.startswith(BEGINNING):
        return holds(path, "store", _COLUMNS)
    return start_of(head).startswith((b"[", b"{")) and all(each.search(head) for each in _SHAPE)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The items. Raises InvalidInput naming ``path`` where it holds none."""
    with path.open("rb") as file:
        if not file.peek(16).startswith(BEGINNING):
            for where, _, value in entries(file, path.name, report, ("items",)):
                with attempt(report, where):
                    yield _item(value)
            return
    with database(path) as connection:
        found = columns(connection, "store")
        if not _COLUMNS.issubset(found):
            raise InvalidInput("path", f"{path.name} has no table of a LangGraph store", mend="name another --format")
        times = ", ".join(name if name in found else "NULL" for name in ("created_at", "updated_at"))
        rows = connection.execute(f"SELECT rowid, prefix, key, value, {times} FROM store ORDER BY rowid")
        for number, prefix, key, value, created_at, updated_at in rows:
            with attempt(report, f"{path.name}[{number}]"):
                about = {"namespace": prefix.split("."), "key": key, "value": json.loads(value)}
                yield _item({**about, "created_at": created_at, "updated_at": updated_at})


def _item(value: Mapping[str, Any]) -> Item:
    namespace, key, held = value["namespace"], value["key"], value["value"]
    if not isinstance(namespace, list) or not all(isinstance(each, str) for each in namespace):
        raise InvalidInput("namespace", f"{shown(namespace)} is no list of names")
    if not isinstance(key, str) or not isinstance(held, dict):
        raise InvalidInput("value", "is no item of a store: its key is no text, or its value no object")
    text, field, rest = told(held)
    created_at = parse_time(value.get("created_at"), "created_at")
    updated_at = parse_time(value.get("updated_at"), "updated_at")
    metadata: dict[str, Any] = {"key": key, "value": rest}
    if field:
        metadata["field"] = list(field)
    if created_at is not None and updated_at is not None and created_at != updated_at:
        metadata["created_at"] = created_at.isoformat()
    return Item(
        key=json.dumps([*namespace, key], ensure_ascii=False),
        text=text,
        category=tuple(namespace),
        recorded_at=updated_at or created_at,
        metadata=metadata,
    )


def told(value: Mapping[str, Any]) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """The text of a value, where in it that is, and the rest of it."""
    for name in _FIELDS:
        if isinstance(said := value.get(name), str) and said.strip():
            return said, (name,), {each: held for each, held in value.items() if each != name}
    for name in _FIELDS:  # LangMem: {"kind": "Memory", "content": {"content": "..."}}
        if isinstance(inner := value.get(name), dict):
            text, field, rest = told(inner)
            if field:
                return text, (name, *field), {**value, name: rest}
    return "\n".join(_lines(value, ())), (), dict(value)


def _lines(value: Any, names: tuple[str, ...]) -> Iterator[str]:
    """A value as ``name: value`` lines, the names of objects within joined by dots."""
    if isinstance(value, dict) and len(names) < _DEEPEST:
        for name, inner in value.items():
            yield from _lines(inner, (*names, name))
    elif isinstance(value, list) and all(isinstance(each, (str, int, float)) for each in value):
        yield f"{'.'.join(names)}: {', '.join(map(str, value))}"
    elif value not in (None, ""):
        yield f"{'.'.join(names)}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
