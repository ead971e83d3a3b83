"""How a segment becomes a row and back, and how a row proves that it is what was written."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any

from memspan.ledger.base import SEPARATOR, Placed, Unencoded, instant, microseconds, now
from memspan.ledger.transactions import Connection
from memspan.records import NOTHING, Draft, Segment

COLUMNS = (
    "seq, id, version, user_id, agent_id, run_id, session, document, position, role, speaker, heading, category,"
    " importance, source, occurred_at, recorded_at, ended_at, repeats, tokens, metadata, gap, text, tail,"
    " heard_at, kind, state, valid_from, valid_to, expires_at"
)
ADD = (
    "INSERT INTO segments (seq, namespace, id, version, user_id, agent_id, run_id, session, document, position, role,"
    " speaker, heading, category, importance, source, occurred_at, recorded_at, tokens, terms, metadata, gap, text,"
    " tail, content, identity, kind, state, valid_from, valid_to, expires_at, checksum, heard_at{}) VALUES ({})"
)
INSERT = ADD.format("", ", ".join("?" * 33))
PAST = (  # of the row of a segment: it is not so any more, or in sight no more by another; said again it is so anew
    "SELECT 1 FROM segments AS s WHERE s.namespace = ?3 AND seq = ?1"
    " AND (state IS NULL AND (expires_at <= ?2 OR valid_to <= ?2)"
    " OR state = 'merged' AND NOT EXISTS (WITH RECURSIVE instead (id) AS (SELECT s.id UNION SELECT e.target"
    " FROM instead AS i JOIN edges AS e ON e.namespace = ?3 AND e.source = i.id AND e.kind = 'duplicate')"
    " SELECT 1 FROM instead AS i JOIN segments AS t ON t.namespace = ?3 AND t.id = i.id"
    " AND t.ended_at IS NULL AND (t.state = 'quarantined' OR t.state IS NULL AND coalesce(t.expires_at > ?2, TRUE)"
    " AND coalesce(t.valid_to > ?2, TRUE))))"
)

CHUNK = 900  # values bound in one statement

_uuid_lock = threading.Lock()
_uuid_last = 0


def uuid7() -> bytes:
    """16 bytes of a UUIDv7 (RFC 9562, section 5.7), increasing within this process even inside one millisecond."""
    global _uuid_last
    with _uuid_lock:
        # 48 bits of milliseconds and 12 bits of the fraction, as method 3 of section 6.2 allows
        stamp = max(time.time_ns() * 4096 // 1_000_000, _uuid_last + 1)
        _uuid_last = stamp
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62
    return (value | int.from_bytes(os.urandom(8)) >> 2).to_bytes(16)


LAST = microseconds(datetime.max.replace(tzinfo=UTC))  # the end of the year 9999


def after(recorded_at: int) -> int:
    """Now, or just after what was recorded in the future: another machine's clock was ahead, or this one was put
    back."""
    return max(now(), min(recorded_at + 1, LAST))


def id_bytes(id: str) -> bytes:
    """The 16 bytes of an id; an id that is no UUID names nothing, so it becomes a key that no row has."""
    try:
        return uuid.UUID(id).bytes
    except (ValueError, AttributeError, TypeError):
        return b""


def id_text(raw: bytes) -> str:
    """The id of which these are the 16 bytes."""
    return str(uuid.UUID(bytes=raw))


def row_of(
    seq: int,
    namespace: int,
    id: bytes,
    version: int,
    draft: Draft,
    position: int,
    recorded_at: int,
    heard_at: int | None = None,
) -> tuple[Any, ...]:
    """The values of ``INSERT`` for a draft."""
    scope, piece = draft.scope, draft.piece
    metadata = json.dumps(dict(draft.metadata), ensure_ascii=False, separators=(",", ":")) if draft.metadata else None
    document = None if draft.document_id is None else uuid.UUID(draft.document_id).bytes
    proven = (
        id, version, scope.user_id, scope.agent_id, scope.run_id, scope.session, document, position, draft.role,
        draft.speaker, SEPARATOR.join(piece.heading) or None, SEPARATOR.join(draft.category) or None,
        float(draft.importance), draft.source,
        None if draft.occurred_at is None else microseconds(draft.occurred_at), recorded_at, piece.tokens,
        len(draft.terms), metadata, piece.gap, piece.text, piece.tail, draft.content, draft.identity, draft.kind,
        draft.state, *(None if time is None else microseconds(time) for time in (draft.valid_from, draft.valid_to,
        draft.expires_at)),
    )  # fmt: skip
    return (seq, namespace, *proven, checksum(proven), heard_at)


PROVEN = (
    "id, version, user_id, agent_id, run_id, session, document, position, role, speaker, heading, category, importance,"
    " source, occurred_at, recorded_at, tokens, terms, metadata, gap, text, tail, content, identity, kind, state,"
    " valid_from, valid_to, expires_at"
)
LATER = ("episodic", None, None, None, None)  # the last of them as they are in rows from before they were there


def checksum(values: Sequence[Any]) -> bytes:
    """16 bytes of SHA-256 over the row's values as Python writes them, which no two different rows share."""
    proven = tuple(values)
    if proven[-len(LATER) :] == LATER:
        proven = proven[: -len(LATER)]
    return sha256(b"memspan segment 1\0" + repr(proven).encode()).digest()[:16]


def segment_of(namespace: str, row: Sequence[Any]) -> Segment:
    """A row of ``COLUMNS`` as a record."""
    return Segment(
        seq=row[0],
        id=id_text(row[1]),
        version=row[2],
        namespace=namespace,
        user_id=row[3],
        agent_id=row[4],
        run_id=row[5],
        session=row[6],
        document_id=None if row[7] is None else id_text(row[7]),
        position=row[8],
        role=row[9],
        speaker=row[10],
        heading=path_of(row[11]),
        category=path_of(row[12]),
        importance=row[13],
        source=row[14],
        occurred_at=None if row[15] is None else instant(row[15]),
        recorded_at=instant(row[16]),
        ended_at=None if row[17] is None else instant(row[17]),
        repeats=row[18],
        tokens=row[19],
        metadata=metadata_of(row[20]),
        gap=row[21],
        text=row[22],
        tail=row[23],
        heard_at=instant(row[16] if row[24] is None else row[24]),
        kind=row[25],
        state=row[26],
        valid_from=None if row[27] is None else instant(row[27]),
        valid_to=None if row[28] is None else instant(row[28]),
        expires_at=None if row[29] is None else instant(row[29]),
    )


def placed_of(row: Sequence[Any]) -> Placed:
    """(seq, user_id, agent_id, run_id, session, document, role, position, category, source, names) as a record."""
    seq, user_id, agent_id, run_id, session, document, role, position, category, source, names = row
    group: tuple[Any, ...] | None = None
    if source == "derived":
        pass  # nobody said it there: it stands beside no turn
    elif document is not None and role is None:
        group = (document,)
    elif session is not None or role is not None:
        group = (user_id, agent_id, run_id, session)
    return Placed(seq, None if group is None else _group(group), position, path_of(category), names)


@lru_cache(maxsize=4_096)
def _group(parts: tuple[Any, ...]) -> bytes:
    """8 bytes that name it, the first bit set for a document."""
    digest = sha256(repr(parts).encode()).digest()
    return bytes([digest[0] & 0x7F | (0x80 if len(parts) == 1 else 0)]) + digest[1:8]


def path_of(joined: str | None) -> tuple[str, ...]:
    return tuple(joined.split(SEPARATOR)) if joined else ()


def metadata_of(raw: str | None) -> Mapping[str, Any]:
    return json.loads(raw) if raw else NOTHING


def namespace_number(connection: Connection, name: str, *, create: bool = False) -> int:
    """The namespace's number; 0, which no row has, where there is no such namespace."""
    enter = getattr(connection, "enter", None)  # of a connection whose transactions see one namespace only
    if enter is not None:
        return int(enter(name, create))
    row = connection.execute("SELECT number FROM namespaces WHERE name = ?", (name,)).fetchone()
    if row is None and create:
        row = connection.execute("INSERT INTO namespaces (name) VALUES (?) RETURNING number", (name,)).fetchone()
    return int(row[0]) if row else 0


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def marks(chunk: Sequence[Any]) -> str:
    return ", ".join("?" * len(chunk))


def unencoded(connection: Connection, tables: str, values: tuple[Any, ...], limit: int) -> list[Unencoded]:
    """Rows of ``tables``, among them segments as s, as what an encoder and the analyser need to know of them."""
    rows = connection.execute(
        f"SELECT s.seq, s.content, s.text, s.speaker, s.heading, s.occurred_at, s.namespace FROM {tables}"
        " ORDER BY s.seq LIMIT ?",
        (*values, limit),
    ).fetchall()
    numbers = list({row[-1] for row in rows})
    names = {
        number: name
        for chunk in chunks(numbers)
        for number, name in connection.execute(
            f"SELECT number, name FROM namespaces WHERE number IN ({marks(chunk)})", tuple(chunk)
        )
    }
    return [
        Unencoded(
            seq=seq,
            namespace=names[number],
            content=content,
            text=text,
            speaker=speaker,
            heading=path_of(heading),
            occurred_at=None if occurred_at is None else instant(occurred_at),
        )
        for seq, content, text, speaker, heading, occurred_at, number in rows
    ]
