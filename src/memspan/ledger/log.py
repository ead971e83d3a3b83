"""The log: what every transaction changed, each entry bound to the one before it by a hash.

``problems`` finds a row that is not as its entry says, and an entry that does not follow from the one before it. Who
can write the file can write another log from beginning to end; who keeps the last hash elsewhere (``stats`` tells it)
sees that too. The leaves are salted, and the salt goes with an erased segment: the log goes on proving everything else.
Source: Crosby and Wallach, Efficient Data Structures for Tamper-Evident Logging, USENIX Security 2009.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, NamedTuple

from memspan.ledger.base import instant, now
from memspan.ledger.rows import chunks, id_bytes, id_text, marks, namespace_number, uuid7
from memspan.ledger.tables import CHANGES, LOG, Entry
from memspan.ledger.transactions import Connection
from memspan.records import NOTHING, Operation

SALT = 16
ACTING: ContextVar[str | None] = ContextVar("acting", default=None)
"""Who acts in this thread or task, where that is somebody else than who opened the store."""


class Change(NamedTuple):
    """The version of a segment before and after, ``proof`` the checksum of the row after it; or a ``link`` from it to
    ``other``: [kind, weight before, weight after] as JSON."""

    id: bytes
    before: int | None = None
    after: int | None = None
    proof: bytes | None = None
    other: bytes | None = None
    link: str | None = None


def record(
    connection: Connection,
    namespace: int,
    verb: str,
    changes: Sequence[Change],
    last: tuple[int, bytes] | None,
    *,
    detail: Mapping[str, Any] = NOTHING,
    operation: bytes | None = None,
    undoes: bytes | None = None,
    actor: str | None = None,
) -> str:
    """Write down what this transaction changed, after the ``last`` entry; the id of the operation, a new one unless it
    goes on with one."""
    key = operation or uuid7()
    salts = os.urandom(SALT * len(changes))
    rows: list[tuple[Any, ...]] = []
    for ordinal, (id, before, after, proof, other, link) in enumerate(changes):
        proven = proof if link is None else link.encode()
        salt = None if proven is None else salts[SALT * ordinal : SALT * (ordinal + 1)]
        leaf = None if salt is None or proven is None else _leaf(salt, proven)
        rows.append((ordinal, id, before, after, leaf, salt, other, link))
    told = json.dumps(dict(detail), ensure_ascii=False, separators=(",", ":")) if detail else None
    segments = len({change.id for change in changes if change.other is None})
    said = (key, verb, now(), actor, undoes, told, segments, _digest((*row[1:5], row[6]) for row in rows))
    carry(connection, [(namespace, said, rows)], last)
    return id_text(key)


def carry(
    connection: Connection,
    entries: Iterable[tuple[int, Sequence[Any], Sequence[Sequence[Any]]]],
    last: tuple[int, bytes] | None,
) -> None:
    """Write entries after the ``last``, each following from the one before it: its namespace, what it says from its
    operation to its digest, and the rows of its changes from their ordinal on."""
    entry, previous = last or (0, _beginning(connection))
    told: list[tuple[Any, ...]] = []
    changed: list[tuple[Any, ...]] = []
    for namespace, (key, *rest), rows in entries:
        entry += 1
        said = (entry, key, namespace, *rest)
        previous = _following(previous, said)
        told.append((*said, previous))
        changed += [(entry, namespace, *row) for row in rows]
    connection.executemany(
        "INSERT INTO log (entry, operation, namespace, verb, at, actor, undoes, detail, segments, digest, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        told,
    )
    connection.executemany(
        "INSERT INTO changes (entry, namespace, ordinal, id, before, after, leaf, salt, other, link)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        changed,
    )


def entries(connection: Connection, namespace: int, after: int, limit: int) -> list[Entry]:
    """Entries on a namespace after the entry ``after``, in order, at most ``limit``, with what they changed."""
    found = connection.execute(
        f"SELECT {', '.join(LOG.columns)} FROM log WHERE namespace = ? AND entry > ? ORDER BY entry LIMIT ?",
        (namespace, after, limit),
    ).fetchall()
    changes: dict[int, list[tuple[Any, ...]]] = {entry: [] for entry, *_ in found}
    for entry, *change in connection.execute(
        f"SELECT {', '.join(CHANGES.columns)} FROM changes WHERE namespace = ? AND entry > ? AND entry <= ?"
        " ORDER BY entry, ordinal",
        (namespace, after, max(changes, default=after)),
    ):
        changes[entry].append(tuple(change))
    return [Entry(entry, tuple(said), changes[entry]) for entry, *said in found]


def head(connection: Connection) -> dict[str, Any]:
    """How many entries there are, and the hash of the last, in hexadecimal."""
    row = connection.execute("SELECT entry, hash FROM log ORDER BY entry DESC LIMIT 1").fetchone()
    return {"entries": row[0] if row else 0, "hash": row[1].hex() if row else None}


def listed(connection: Connection, namespace: str, id: str | None, limit: int, before: str | None) -> list[Operation]:
    """Operations of a namespace, the last first, of one segment where ``id`` is given; older than ``before``."""
    number = namespace_number(connection, namespace)
    # each stands where it began: so the index is read from its end, and only as far as is asked
    clause, values = "l.namespace = ?", list[Any]((number,))
    if id is not None:  # + : what changed one segment is little, of a log that may be long
        clause = "+l.namespace = ? AND operation IN (SELECT m.operation FROM changes AS c JOIN log AS m"
        clause += " ON m.namespace = c.namespace AND m.entry = c.entry WHERE c.namespace = ? AND c.id = ?)"
        values += [number, id_bytes(id)]
    if before is not None:
        clause += " AND entry < (SELECT min(entry) FROM log WHERE +namespace = ? AND operation = ?)"
        values += [number, id_bytes(before)]
    keys = connection.execute(
        f"SELECT operation FROM log AS l WHERE {clause} AND NOT EXISTS (SELECT 1 FROM log AS f"
        " WHERE +f.namespace = l.namespace AND f.operation = l.operation AND f.entry < l.entry)"
        " ORDER BY entry DESC LIMIT ?",
        (*values, limit),
    ).fetchall()
    return operations(connection, namespace, [key for (key,) in keys])


def operations(connection: Connection, namespace: str, keys: Sequence[bytes]) -> list[Operation]:
    """These operations of a namespace in the order asked; what is none is left out."""
    number = namespace_number(connection, namespace)
    found: dict[bytes, Operation] = {}
    for chunk in chunks(keys):
        rows = connection.execute(
            "SELECT operation, min(verb), min(at), min(actor), min(undoes), min(detail), sum(segments)"
            # without the sign SQLite would read the whole namespace
            f" FROM log AS l WHERE +namespace = ? AND operation IN ({marks(chunk)}) GROUP BY operation",
            (number, *chunk),
        )
        for key, verb, at, actor, undoes, detail, segments in rows.fetchall():
            undone = _undone_by(connection, number, key)
            found[key] = Operation(
                id=id_text(key),
                verb=verb,
                namespace=namespace,
                at=instant(at),
                segments=segments,
                actor=actor,
                undoes=None if undoes is None else id_text(undoes),
                undone_by=None if undone is None else id_text(undone),
                detail=json.loads(detail) if detail else NOTHING,
            )
    return [found[key] for key in keys if key in found]


def _undone_by(connection: Connection, number: int, operation: bytes) -> bytes | None:
    """The operation that took this one back, and was not taken back itself."""
    rows = connection.execute(
        "SELECT operation FROM log WHERE +namespace = ? AND undoes = ? ORDER BY entry DESC", (number, operation)
    ).fetchall()
    return next((key for (key,) in rows if _undone_by(connection, number, key) is None), None)


def changed(connection: Connection, namespace: str, operation: str) -> list[Change]:
    """What an operation changed, in order."""
    rows = connection.execute(
        "SELECT c.id, before, after, NULL, other, link FROM log AS l JOIN changes AS c"
        " ON c.namespace = l.namespace AND c.entry = l.entry"
        " WHERE l.namespace = ? AND operation = ? ORDER BY l.entry, ordinal",
        (namespace_number(connection, namespace), id_bytes(operation)),
    )
    return [Change(*row) for row in rows.fetchall()]


def of_segment(connection: Connection, namespace: int, id: bytes) -> tuple[dict[int, str], dict[int, str]]:
    """Which operation made each version of a segment, and which left none after it."""
    made: dict[int, str] = {}
    ended: dict[int, str] = {}
    for key, before, after in connection.execute(
        "SELECT operation, before, after FROM changes AS c JOIN log AS l"
        " ON l.namespace = c.namespace AND l.entry = c.entry"
        " WHERE c.namespace = ? AND c.id = ? ORDER BY c.entry, ordinal",
        (namespace, id),
    ):
        if after is not None and after != before:
            made[after] = id_text(key)
        elif after is None and before is not None:
            ended[before] = id_text(key)
    return made, ended


def relinked(connection: Connection, namespace: str, moment: int) -> list[Change]:
    """What became of links after ``moment``, the last first."""
    rows = connection.execute(
        "SELECT c.id, NULL, NULL, NULL, c.other, c.link FROM changes AS c JOIN log AS l"
        " ON l.namespace = c.namespace AND l.entry = c.entry"
        " WHERE l.namespace = ? AND l.at > ? AND c.link IS NOT NULL ORDER BY c.entry DESC, c.ordinal DESC",
        (namespace_number(connection, namespace), moment),
    )
    return [Change(*row) for row in rows.fetchall()]


def problems(connection: Connection, chain: int | None = None) -> Iterator[str]:
    """What of the log does not follow from what is before it, and which rows are not what it says they are. ``chain``:
    the namespace whose entries follow each other; None where all of the store do."""
    where, values = ("TRUE", ()) if chain is None else ("{}namespace = ?", (chain,))
    previous, expected = _beginning(connection), 1
    entries = connection.execute(
        "SELECT entry, operation, namespace, verb, at, actor, undoes, detail, segments, digest, hash"
        f" FROM log WHERE {where.format('')} ORDER BY entry",
        values,
    )
    for *said, known in entries:
        entry = said[0]
        if entry != expected:
            yield f"entries {expected} to {entry - 1} of the log are missing"
        rows = connection.execute(
            "SELECT id, before, after, leaf, other FROM changes"
            f" WHERE {where.format('')} AND entry = ? ORDER BY ordinal",
            (*values, entry),
        )
        if _digest(rows) != said[-1]:
            yield f"the changes of entry {entry} of the log are not what was written"
        if _following(previous, said) != known:
            yield f"entry {entry} of the log does not follow from the one before it"
        previous, expected = known, entry + 1
    rows = connection.execute(
        "SELECT s.seq, s.id, s.checksum, c.leaf, c.salt FROM segments AS s LEFT JOIN changes AS c"
        " ON c.namespace = s.namespace AND c.id = s.id AND c.after = s.version"
        f" WHERE {where.format('s.')} AND s.seq > (SELECT CAST(value AS BIGINT) FROM store WHERE key = 'unlogged')"
        " ORDER BY s.seq, c.entry, c.ordinal",
        values,
    )
    yield from _unproven(rows)
    (lost,) = connection.execute(
        f"SELECT count(*) FROM changes AS c WHERE {where.format('c.')} AND after IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM segments AS s"
        " WHERE s.namespace = c.namespace AND s.id = c.id AND s.version = c.after) AND NOT EXISTS"
        " (SELECT 1 FROM changes AS d JOIN log AS l ON l.namespace = d.namespace AND l.entry = d.entry"
        " WHERE d.namespace = c.namespace AND d.id = c.id AND d.entry >= c.entry AND l.verb IN ('erase', 'prune'))",
        values,
    ).fetchone()
    if lost:
        yield f"{lost} versions of segments that the log tells of are gone, and no entry says why"


def _unproven(rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    """Rows that the last of their changes does not prove; each comes once a change."""
    last: tuple[Any, ...] | None = None
    for row in rows:
        if last is not None and row[0] != last[0] and (problem := _unlike(last)):
            yield problem
        last = row
    if last is not None and (problem := _unlike(last)):
        yield problem


def _unlike(row: tuple[Any, ...]) -> str | None:
    seq, id, proof, leaf, salt = row
    if leaf is None or salt is None:
        return f"segment {id_text(id)} (seq {seq}) is in no entry of the log"
    return (
        None
        if _leaf(salt, proof) == leaf
        else f"segment {id_text(id)} (seq {seq}) is not what the log says was written"
    )


def _beginning(connection: Connection) -> bytes:
    """What stands for the entry before the first: it says which rows there were before there was a log."""
    rows = connection.execute("SELECT value FROM store WHERE key = 'unlogged'").fetchall()
    return sha256(b"memspan log 1\0" + repr(rows).encode()).digest()


def _leaf(salt: bytes, proven: bytes) -> bytes:
    return sha256(salt + proven).digest()[:16]


def _digest(rows: Iterable[Sequence[Any]]) -> bytes:
    """Of (id, before, after, leaf, other) of each change, in order."""
    whole = sha256()
    for row in rows:
        whole.update(repr(tuple(row)).encode())
    return whole.digest()


def _following(previous: bytes, said: Sequence[Any]) -> bytes:
    return sha256(previous + repr(tuple(said)).encode()).digest()
