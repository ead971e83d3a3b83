"""mem0: what ``get_all`` returned, as JSON; its history.db; the folder of its local Qdrant.

    {"results": [{"id", "memory", "user_id", "agent_id", "run_id", "metadata", "created_at", "updated_at", ...}, ...]}

Each memory is an item under mem0's id, of the user, agent and run it names, recorded when it was last updated, found
until its ``expiration_date`` has passed; its own metadata and every other field but the hash are its metadata. The
relations of a graph memory become sentences.

history.db tells every version of a memory, each with its time, and who said it, but not whose it is: give ``user_id``
when it is imported. What was deleted there is left out. A Qdrant folder holds what ``get_all`` would return; of its
collections those that hold entities only are left out, and all vectors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from memspan.archives import qdrant
from memspan.archives.base import Item, Record, Report, attempt, entries, start_of
from memspan.archives.tables import BEGINNING, columns, database, holds
from memspan.errors import InvalidInput
from memspan.segmenting import check_text, parse_time, shown

_ROLES = ("user", "assistant", "system", "tool")
_LISTS = ("results", "memories", "relations")
_COLUMNS = {"memory_id", "old_memory", "new_memory", "event", "created_at", "updated_at"}
_TOLD = ("id", "memory", "data", "hash", "metadata", "user_id", "agent_id", "run_id", "actor_id", "role", "created_at",
         "updated_at", "expiration_date", "score", "text_lemmatized")  # fmt: skip
_OTHERS = re.compile(rb'"namespace"\s*:\s*\[')  # of LangGraph's store, whose values may look like memories
_SHAPE = (re.compile(rb'"memory"\s*:\s*"'), re.compile(rb'"id"\s*:'), re.compile(rb'"(?:hash|user_id|created_at)"\s*:'))


def recognises(path: Path, head: bytes) -> bool:
    """Whether memories with an id are in it, a history of them, or the folder of a local Qdrant."""
    if not head:
        return path.is_dir() and qdrant.recognises(path)
    if head.startswith(BEGINNING):
        return holds(path, "history", _COLUMNS)
    if not start_of(head).startswith((b"[", b"{")) or _OTHERS.search(head):
        return False
    return all(each.search(head) for each in _SHAPE)


def read(path: Path, report: Report) -> Iterator[Record]:
    """The memories. Raises InvalidInput naming ``path`` where it holds none."""
    if path.is_dir():
        for where, _, id, payload in qdrant.points(path, report):
            with attempt(report, where):
                if "data" in payload and "linked_memory_ids" not in payload:
                    yield _memory({**payload, "id": id, "memory": payload["data"]})
        return
    with path.open("rb") as file:
        if not file.peek(16).startswith(BEGINNING):
            for where, among, value in entries(file, path.name, report, _LISTS):
                with attempt(report, where):
                    yield _relation(value) if among == "relations" else _memory(value)
            return
    yield from _history(path, report)


def expiry(day: object) -> datetime | None:
    """When what expires after that day, ``YYYY-MM-DD``, is found no longer, in UTC. Raises InvalidInput."""
    if day is None:
        return None
    try:
        last = date.fromisoformat(day) if isinstance(day, str) else None
    except ValueError:
        last = None
    if last is None:
        raise InvalidInput("expiration_date", f"{shown(day)} is no day", mend='write it as "2026-12-31"')
    return after(last)


def after(day: date) -> datetime:
    """The first moment after a day."""
    if day == date.max:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.combine(day + timedelta(days=1), time(), tzinfo=UTC)


def _memory(value: Mapping[str, Any]) -> Item:
    id, metadata = value.get("id"), value.get("metadata") or {}
    if not isinstance(id, str) or not isinstance(metadata, dict):
        raise InvalidInput("id", f"{shown(id)} is no id, or the metadata no object")
    created_at, updated_at = (parse_time(value.get(name), name) for name in ("created_at", "updated_at"))
    rest = {name: each for name, each in value.items() if name not in _TOLD and each not in (None, [], {})}
    if created_at is not None and updated_at not in (None, created_at):
        rest["created_at"] = created_at.isoformat()
    return Item(
        key=id,
        text=check_text(value.get("memory"), "memory"),
        role=value.get("role") if value.get("role") in _ROLES else None,
        speaker=value.get("actor_id"),
        user_id=value.get("user_id"),
        agent_id=value.get("agent_id"),
        run_id=value.get("run_id"),
        recorded_at=updated_at or created_at,
        expires_at=expiry(value.get("expiration_date")),
        metadata={**rest, **metadata},
    )


def _relation(value: Mapping[str, Any]) -> Item:
    target = value.get("target") or value.get("destination")
    parts = [value.get("source"), value.get("relationship") or value.get("relation"), target]
    if not all(isinstance(each, str) and each for each in parts):
        raise InvalidInput("relations", f"{shown(parts)} is no relation")
    return Item(
        key=json.dumps(["relation", *parts], ensure_ascii=False),
        text=" ".join(each.replace("_", " ") for each in parts),  # type: ignore[union-attr]
        metadata=dict(zip(("source", "relationship", "target"), parts, strict=True)),
    )


def _history(path: Path, report: Report) -> Iterator[Item]:
    """The versions of every memory that was not deleted, in the order in which they were made."""
    with database(path) as connection:
        found = columns(connection, "history")
        if not _COLUMNS.issubset(found):
            raise InvalidInput("path", f"{path.name} has no table of mem0's history", mend="name another --format")
        also = ", ".join(name if name in found else "NULL" for name in ("actor_id", "role"))
        gone = "event = 'DELETE'" + (" OR is_deleted" if "is_deleted" in found else "")
        rows = connection.execute(
            f"SELECT rowid, memory_id, old_memory, new_memory, created_at, updated_at, {also} FROM history"
            f" WHERE memory_id NOT IN (SELECT memory_id FROM history WHERE ({gone}) AND memory_id IS NOT NULL)"
            " ORDER BY memory_id, rowid"
        )
        before = None
        for number, id, old, new, created_at, updated_at, actor, role in rows:
            with attempt(report, f"{path.name}[{number}]"):
                about: dict[str, Any] = {"id": id, "actor_id": actor, "role": role}
                if id != before and old and created_at:  # the row that made it is lost
                    yield _memory({**about, "memory": old, "updated_at": created_at})
                before = id
                if new:  # others say that nothing was changed
                    yield _memory({**about, "memory": new, "updated_at": updated_at or created_at})
