"""``Entries``: texts under keys in a ``Memory``, each replaced as a whole, found by key and by what it says.

An entry is a document: its key makes its uri, so that what is written under a key replaces in one transaction what was
there, which stays in the history; a long one is cut into segments, and all of it comes back, to the character. It is
also a session, named by a hash of its key, because sessions have an index: a key is looked up in it, however many
entries there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote

from memspan import arguments
from memspan.memory import Memory
from memspan.records import Hit, Segment

MARK = "memspan"  # the key of the metadata under which is what an integration needs to know
SMALL = 256  # characters of a value of the metadata that each segment of an entry has; more are with its first alone
PAGE = 10_000  # rows asked for at once, and hits at most: what a server gives
MOST_HITS = 1_000
DEEPER = 4  # times as many hits, where they belonged to too few entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A text under a key. ``created_at`` is when the key was first written, ``updated_at`` when last. ``ids`` are those
    of its segments, in order."""

    key: tuple[str, ...]
    text: str
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    ids: tuple[str, ...]


class Entries:
    """The entries of ``user_id`` in one namespace of a memory; ``scheme`` begins their uris."""

    def __init__(self, memory: Memory, scheme: str, *, user_id: str, namespace: str | None) -> None:
        self._memory = memory
        self._scheme = scheme
        self._user = user_id
        self._namespace = namespace

    def read(self, key: tuple[str, ...]) -> Entry | None:
        """What is under ``key`` now."""
        rows = list(self._rows(None, _session(key)))
        return _entry(rows)

    def write(
        self,
        key: tuple[str, ...],
        text: str,
        metadata: Mapping[str, Any],
        *,
        category: Sequence[str] = (),
        expires_at: datetime | None = None,
        media: Literal["text", "markdown"] = "text",
        indexed: bool = True,
    ) -> None:
        """Put a text under ``key`` in the place of what is there. ``indexed`` False leaves it out of searches.

        Raises InvalidInput; then nothing was written.
        """
        known, now = self.read(key), datetime.now(UTC)
        created_at = now if known is None else known.created_at
        mark: dict[str, Any] = {"key": list(key), "created_at": created_at.isoformat(), "updated_at": now.isoformat()}
        if not indexed:
            mark["indexed"] = False
        if not text.strip() or not self._store(key, text, {**metadata, MARK: mark}, category, expires_at, media):
            # a segment says something: here the key, for a blank text and for what held only recalled memory
            mark |= {"indexed": False, "blank": text if not text.strip() else ""}
            self._store(key, "/".join(key), {**metadata, MARK: mark}, category, expires_at, "text")

    def _store(
        self,
        key: tuple[str, ...],
        text: str,
        metadata: Mapping[str, Any],
        category: Sequence[str],
        expires_at: datetime | None,
        media: str,
    ) -> bool:
        """False where nothing of the text may be stored."""
        metadata = arguments.metadata(metadata)  # all of it, before a part of it is written
        brief = {name: value for name, value in metadata.items() if name == MARK or len(json.dumps(value)) <= SMALL}
        whole = len(brief) == len(metadata)
        if not whole:  # so that it is no entry before the first segment has the rest
            brief[MARK] = {name: value for name, value in metadata[MARK].items() if name in ("key", "indexed")}
        added = self._memory.add_document(
            text,
            uri=f"{self._scheme}:/{''.join('/' + quote(each, safe='') for each in key)}",
            title="/".join(key),
            media=media,
            namespace=self._namespace,
            user_id=self._user,
            session=_session(key),
            category=list(category),
            metadata=brief,
            expires_at=expires_at,
        )
        for at, id in enumerate(added.ids):
            about = metadata if at == 0 else brief
            if added.repeated or (at == 0 and not whole):  # the same text as before, or more to say of it
                self._memory.update(
                    id, category=list(category), metadata=about, expires_at=expires_at, namespace=self._namespace
                )
        return bool(added.ids)

    def extend(self, entry: Entry, expires_at: datetime) -> None:
        """Let an entry be found until then."""
        for id in entry.ids:
            self._memory.update(id, expires_at=expires_at, namespace=self._namespace)

    def remove(self, entries: Sequence[Entry]) -> int:
        """Delete entries; returns how many segments they were."""
        return self._memory.delete([id for entry in entries for id in entry.ids], namespace=self._namespace)

    def expire(self) -> int:
        """Delete what has expired; returns how many segments that were."""
        over = {"expires_at": {"lt": datetime.now(UTC)}}
        return self._memory.delete([row.id for row in self._rows(over)], namespace=self._namespace)

    def all(self, filters: Mapping[str, Any] | None = None) -> list[Entry]:
        """The entries that pass ``filters``, last written first."""
        sessions: dict[str | None, list[Segment]] = {}
        for row in self._rows(filters):
            sessions.setdefault(row.session, []).append(row)
        found = [entry for rows in sessions.values() if (entry := _entry(rows)) is not None]
        return sorted(found, key=lambda entry: entry.updated_at, reverse=True)

    def search(
        self,
        query: str,
        count: int,
        filters: Mapping[str, Any] | None = None,
        *,
        recipe: str = "default",
        passes: Callable[[Entry], bool] = lambda _: True,
    ) -> list[tuple[Entry, float]]:
        """At most ``count`` entries that answer ``query`` best and pass, best first, each with the score in [0, 1] of
        its best segment."""
        wanted = {
            "AND": [{f"{MARK}.key": {"ne": None}, f"{MARK}.indexed": {"ne": False}}, *([filters] * bool(filters))]
        }
        depth = min(max(2 * count, 20), MOST_HITS)
        while True:
            hits = self._memory.search(
                query, k=depth, namespace=self._namespace, user_id=self._user, filters=wanted, recipe=recipe
            )
            found = list(self._best(hits, passes))
            if len(found) >= count or len(hits) < depth or depth == MOST_HITS:
                return found[:count]
            depth = min(DEEPER * depth, MOST_HITS)

    def _best(self, hits: Sequence[Hit], passes: Callable[[Entry], bool]) -> Iterator[tuple[Entry, float]]:
        seen: set[tuple[str, ...]] = set()
        for hit in hits:
            key = tuple(hit.metadata[MARK]["key"])
            if key not in seen:
                seen.add(key)
                entry = self.read(key)
                if entry is not None and passes(entry):
                    yield entry, hit.score

    def _rows(self, filters: Mapping[str, Any] | None, session: str | None = None) -> Iterator[Segment]:
        known = {f"{MARK}.key": {"ne": None}}  # a summary that sleep wrote has none
        after: str | None = None
        while True:
            rows = self._memory.get_all(
                namespace=self._namespace,
                user_id=self._user,
                session=session,
                filters={"AND": [known, filters]} if filters else known,
                include_superseded=True,  # what sleep merged into a like one is still what was put here
                limit=PAGE,
                after=after,
            )
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1].id


def _entry(rows: Sequence[Segment]) -> Entry | None:
    """The entry that all segments of a session are, None where it has expired or was never written whole."""
    now = datetime.now(UTC)
    parts = sorted((row for row in rows if MARK in row.metadata), key=lambda row: row.position)
    if not parts or "created_at" not in (mark := parts[0].metadata[MARK]):
        return None
    if any(row.expires_at is not None and row.expires_at <= now for row in parts):
        return None
    return Entry(
        key=tuple(mark["key"]),
        text=mark["blank"] if "blank" in mark else "".join(row.gap + row.text + row.tail for row in parts),
        metadata={name: value for name, value in parts[0].metadata.items() if name != MARK},
        created_at=datetime.fromisoformat(mark["created_at"]),
        updated_at=datetime.fromisoformat(mark["updated_at"]),
        expires_at=parts[0].expires_at,
        ids=tuple(row.id for row in parts),
    )


def _session(key: tuple[str, ...]) -> str:
    return sha256(json.dumps(key).encode()).hexdigest()[:32]
