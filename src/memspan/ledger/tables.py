"""The tables of a ledger as a copy of a whole store reads and compares them, the same in every dialect.

What is derived from them (words, names, what waits for a vector, removals, snapshots) is not copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from memspan.records import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table whose rows each belong to a namespace: the columns that tell one from others there, and the rest."""

    name: str
    key: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.key, *self.rest)


SEGMENTS = Table(
    name="segments",
    key=("seq",),
    rest=("id", "version", "content", "identity", "checksum", "heard_at", "ended_at", "repeats"),
)
"""Of a version of a segment what changes, what names it, and the checksum, which proves the rest."""

LOG = Table(
    name="log",
    key=("entry",),
    rest=("operation", "verb", "at", "actor", "undoes", "detail", "segments", "digest"),
)

CHANGES = Table(
    name="changes",
    key=("entry", "ordinal"),
    rest=("id", "before", "after", "leaf", "salt", "other", "link"),
)

TABLES = (
    Table(
        name="documents",
        key=("id",),
        rest=("owner", "uri", "title", "media", "sha256", "recorded_at", "ended_at"),
    ),
    Table(name="edges", key=("source", "kind", "target"), rest=("weight", "created_at")),
    Table(name="judgements", key=("query", "id"), rest=("useful", "judged_at")),
    Table(name="verdicts", key=("older", "newer"), rest=("accepted", "decided_at")),
    Table(name="usage", key=("id",), rest=("accesses", "accessed_at", "relevance")),
    Table(name="tombstones", key=("id",), rest=("version", "deleted_at")),
    Table(name="operations", key=("key",), rest=("payload", "result", "at")),
)
"""Those of which rows are put and taken away as they are."""


class Whole(NamedTuple):
    """A row of segments: what it says, the hash its activation goes by, its identity, and all its values as they stand
    in the table, the seq first."""

    segment: Segment
    content: bytes
    identity: bytes
    values: tuple[Any, ...]


class Entry(NamedTuple):
    """An entry of the log: what it tells in the order of ``LOG``, what it changed in that of ``CHANGES``, both without
    its number."""

    entry: int
    said: tuple[Any, ...]
    changes: list[tuple[Any, ...]]
