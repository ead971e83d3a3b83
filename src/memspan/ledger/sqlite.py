"""The embedded ledger: one SQLite file in WAL mode, several processes at once.

Writers queue on ``BEGIN IMMEDIATE``, so insert order is commit order and ``seq`` never skips behind a reader.
``synchronous=FULL``: a write is on the disk when the call returns. Readers never wait for writers.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from memspan.activations.tokens import Activation
from memspan.errors import IdempotencyConflict
from memspan.keys import Keys
from memspan.ledger import log, schema
from memspan.ledger.activations import ENCODING, agreed, wanted
from memspan.ledger.base import (
    ADD,
    Changed,
    DocumentDraft,
    Idempotency,
    Relink,
    Use,
    Why,
    instant,
    microseconds,
)
from memspan.ledger.changing import END, ENDED, Changing, back, current, derive_from, missing
from memspan.ledger.feeding import given, served
from memspan.ledger.log import Change
from memspan.ledger.rows import (
    COLUMNS,
    INSERT,
    PAST,
    PROVEN,
    checksum,
    chunks,
    find_problems,
    id_bytes,
    id_text,
    marks,
    metadata_of,
    namespace_number,
    now,
    row_of,
    segment_of,
    uuid7,
)
from memspan.ledger.where import scope_sql
from memspan.records import NOW, Added, AsOf, Document, Draft, Event, Filter, Judgement, Operation, Scope, Segment


class SqliteLedger(Changing):
    """``Ledger`` over SQLite. ``path`` is the database file, or None for one that lives in memory only.
    ``actor`` is who the log says changed something; ``keys`` are those of an encrypted one."""

    def __init__(self, path: Path | None, actor: str | None = None, keys: Keys | None = None) -> None:
        super().__init__(path, keys)
        self.actor = actor
        try:
            with self.exclusive() as connection:
                schema.migrate(connection, path, self.open_file)
            self.find_short()
            self.erase_dead()  # what a crash kept somebody from erasing
        except BaseException:
            self.close()
            raise

    # Writing

    def append(
        self,
        namespace: str,
        drafts: Sequence[Draft],
        *,
        documents: Sequence[DocumentDraft] = (),
        activations: Mapping[bytes, Activation] | None = None,
        encoder: str | None = None,
        idempotency: Idempotency | None = None,
        why: Why = ADD,
    ) -> Added:
        """Write ``drafts`` in order, or count a repeat where the same identity is there already.

        ``activations`` are by ``Draft.content``; contents without one are queued as pending. None: the store keeps
        none. ``encoder`` is what they were made by, as the store records it; None does not ask. A document
        replaces the earlier version of the same owner. Raises IdempotencyConflict, EncoderMismatch, and NotFound where
        something that a draft is derived from is not there any more.
        """
        with self.writing() as connection:
            agreed(connection, encoder)
            number = namespace_number(connection, namespace, create=True)
            if idempotency is not None and (done := _replayed(connection, number, idempotency)) is not None:
                return done
            moment = now()
            changes = [
                change for document in documents for change in _open_document(connection, number, document, moment)
            ]
            positions: dict[tuple[str | None, ...], int] = {}
            ids: list[str] = []
            written: list[Draft] = []
            repeated = pending = 0
            for draft in drafts:
                position = _position(connection, number, draft, positions)
                row = row_of(number, uuid7(), 1, draft, position, moment)
                seq, id_, repeats, version, proof = connection.execute(INSERT, row).fetchone()
                if repeats and connection.execute(PAST, (seq, moment)).fetchone():
                    changes.append(_made_way(connection, seq, moment))
                    seq, id_, repeats, version, proof = connection.execute(INSERT, row).fetchone()
                ids.append(id_text(id_))
                changes.append(Change(id_, version if repeats else None, version, proof))
                if repeats:
                    repeated += 1
                else:
                    written.append(draft)
                    pending += self.derive(connection, number, seq, draft, activations)
                    _advance(draft, position, positions)
            changes += derive_from(connection, number, namespace, ids, drafts)
            self.keep(connection, given(activations, written))
            document_id = documents[0].id if len(documents) == 1 else None
            added = Added(
                ids=tuple(ids),
                added=len(drafts) - repeated,
                repeated=repeated,
                document_id=document_id,
                pending=pending,
                operation=self.logged(connection, number, why, changes),
            )
            if idempotency is not None:
                told = json.dumps([ids, document_id, added.operation])
                connection.execute(
                    "INSERT OR REPLACE INTO operations VALUES (?, ?, ?, ?, ?)",
                    (number, idempotency.key, idempotency.payload, told, moment),
                )
            return added

    def used(self, namespace: str, uses: Mapping[str, Use]) -> None:
        """Count that searches returned these segments; what is gone meanwhile is left out."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            connection.executemany(
                "INSERT INTO usage SELECT ?1, ?2, ?3, ?4, max(0.5, ?5) WHERE EXISTS"
                " (SELECT 1 FROM segments WHERE namespace = ?1 AND id = ?2)"
                " ON CONFLICT (namespace, id) DO UPDATE SET accesses = accesses + excluded.accesses,"
                " accessed_at = max(accessed_at, excluded.accessed_at), relevance = max(relevance, ?5)",
                [(number, id_bytes(id), use.times, microseconds(use.at), use.relevance) for id, use in uses.items()],
            )

    def judge(self, namespace: str, judgements: Sequence[Judgement]) -> None:
        """Keep what was said of current segments, all or nothing; said again of the same query, the later word counts.

        Raises NotFound.
        """
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            for said in judgements:
                current(connection, number, said.id, namespace)
                at = now() if said.at is None else microseconds(said.at)
                connection.execute(
                    "INSERT OR REPLACE INTO judgements VALUES (?, ?, ?, ?, ?)",
                    (number, said.query, id_bytes(said.id), said.useful, at),
                )

    def forget_judgements(self, namespace: str, query: str | None, id: str | None) -> int:
        """Remove what was said, of one query or all, of one segment or all; returns how many there were."""
        with self.writing() as connection:
            number, key = namespace_number(connection, namespace), None if id is None else id_bytes(id)
            return connection.execute(
                "DELETE FROM judgements WHERE namespace = ? AND (? IS NULL OR query = ?) AND (? IS NULL OR id = ?)",
                (number, query, query, key, key),
            ).rowcount

    def encoded(self, activations: Mapping[bytes, Activation], encoder: str | None = None) -> int:
        """Keep activations that rows of any namespace wait for; returns how many rows they served.

        ``encoder``: as in ``append``. Raises EncoderMismatch.
        """
        with self.writing() as connection:
            agreed(connection, encoder)
            there = wanted(connection, activations)
            self.keep(connection, there)
            return sum(served(connection, content) for content in there)

    # Reading

    def get(self, namespace: str, id: str) -> Segment:
        """The current version. Raises NotFound."""
        with self.reading() as connection:
            row = connection.execute(
                f"SELECT {COLUMNS} FROM segments WHERE namespace = ? AND id = ? AND ended_at IS NULL",
                (namespace_number(connection, namespace), id_bytes(id)),
            ).fetchone()
        if row is None:
            raise missing(id, namespace)
        return segment_of(namespace, row)

    def listing(
        self, scope: Scope, filters: Filter | None, limit: int, after: str | None, as_of: AsOf = NOW
    ) -> list[Segment]:
        """Segments in the order they were written, at most ``limit``, after the segment ``after``."""
        clause, values = scope_sql(scope, filters, as_of)
        # a session has an index of its own: without statistics SQLite would read the whole namespace in its order
        seq = "seq" if scope.session is None else "+seq"
        with self.reading() as connection:
            number = namespace_number(connection, scope.namespace)
            start = 0
            if after is not None:
                start = connection.execute(
                    "SELECT max(seq) FROM segments WHERE namespace = ? AND id = ?", (number, id_bytes(after))
                ).fetchone()[0]
                if start is None:
                    raise missing(after, scope.namespace)
            rows = connection.execute(
                f"SELECT {COLUMNS} FROM segments WHERE namespace = ? AND {seq} > ? AND {clause} ORDER BY {seq} LIMIT ?",
                (number, start, *values, limit),
            ).fetchall()
        return [segment_of(scope.namespace, row) for row in rows]

    def history(self, namespace: str, id: str) -> list[Event]:
        """What became of a segment, in order; of an erased one only that it was. Raises NotFound."""
        with self.reading() as connection:
            where = (namespace_number(connection, namespace), id_bytes(id))
            rows = connection.execute(
                "SELECT version, recorded_at, ended_at, text, metadata FROM segments WHERE namespace = ? AND id = ?"
                " ORDER BY version",
                where,
            ).fetchall()
            gone = connection.execute(
                "SELECT version, deleted_at FROM tombstones WHERE namespace = ? AND id = ?", where
            ).fetchone()
            made, ended = log.of_segment(connection, *where)
        if not rows and gone is None:
            raise missing(id, namespace)
        events: list[Event] = []
        for at, (version, recorded_at, ended_at, text, metadata) in enumerate(rows):
            events.append(
                Event(
                    event="ADD" if version == 1 else "UPDATE",
                    id=id,
                    version=version,
                    at=instant(recorded_at),
                    text=text,
                    metadata=metadata_of(metadata),
                    operation=made.get(version),
                )
            )
            until = rows[at + 1][1] if at + 1 < len(rows) else None
            if ended_at is not None and (until is None or ended_at < until):
                operation = ended.get(version)
                events.append(Event(event="DELETE", id=id, version=version, at=instant(ended_at), operation=operation))
        if not rows:
            operation = ended.get(gone[0])
            events.append(Event(event="ERASE", id=id, version=gone[0], at=instant(gone[1]), operation=operation))
        return events

    def versions(self, namespace: str, ids: Sequence[str]) -> dict[str, list[Segment]]:
        """Every version of these segments, in order; what is not there is left out."""
        found: dict[str, list[Segment]] = {}
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(ids):
                for row in connection.execute(
                    f"SELECT {COLUMNS} FROM segments WHERE namespace = ? AND id IN ({marks(chunk)})"
                    " ORDER BY id, version",
                    (number, *map(id_bytes, chunk)),
                ):
                    segment = segment_of(namespace, row)
                    found.setdefault(segment.id, []).append(segment)
        return found

    def operations(
        self, namespace: str, id: str | None = None, *, limit: int = 100, before: str | None = None
    ) -> list[Operation]:
        """What changed a namespace, or one segment, the last first, at most ``limit``; older than ``before``."""
        with self.reading() as connection:
            return log.listed(connection, namespace, id, limit, before)

    def operation(self, namespace: str, id: str) -> tuple[Operation, list[Changed], list[Relink]]:
        """An operation, what it did to segments, and the links as they were before it. Raises NotFound."""
        with self.reading() as connection:
            found = log.operations(connection, namespace, [id_bytes(id)])
            if not found:
                raise missing(id, namespace, "operation")
            changes = log.changed(connection, namespace, id)
        told = [Changed(id_text(each.id), each.before, each.after) for each in changes if not each.other]
        return found[0], told, [back(each) for each in reversed(changes) if each.link]

    def forgotten(self, namespace: str, operation: str) -> bool:
        """Whether an operation changed links of which nothing is known any more, though both segments are here: one of
        them was away in between."""
        there = "EXISTS (SELECT 1 FROM segments AS s WHERE s.namespace = c.namespace AND s.id = c.{})"
        with self.reading() as connection:
            row = connection.execute(
                "SELECT 1 FROM log AS l JOIN changes AS c USING (entry) WHERE l.namespace = ? AND operation = ?"
                f" AND other IS NOT NULL AND link IS NULL AND {there.format('id')} AND {there.format('other')} LIMIT 1",
                (namespace_number(connection, namespace), id_bytes(operation)),
            ).fetchone()
        return row is not None

    def relinked(self, namespace: str, since: datetime) -> list[Relink]:
        """The links that changed after ``since`` as they were before, the last first."""
        with self.reading() as connection:
            return [back(each) for each in log.relinked(connection, namespace, microseconds(since))]

    def log_head(self) -> dict[str, Any]:
        """How many ``entries`` the log has, and the ``hash`` of the last in hexadecimal."""
        with self.reading() as connection:
            return log.head(connection)

    def document(self, namespace: str, id: str) -> Document:
        """The document with its text put back together from its current segments. Raises NotFound."""
        with self.reading() as connection:
            where = (namespace_number(connection, namespace), id_bytes(id))
            row = connection.execute(
                "SELECT uri, title, media, sha256, recorded_at FROM documents WHERE namespace = ? AND id = ?", where
            ).fetchone()
            parts = connection.execute(
                "SELECT id, gap || text || tail FROM segments WHERE namespace = ? AND document = ? AND ended_at IS NULL"
                " ORDER BY position",
                where,
            ).fetchall()
        if row is None or not parts:
            raise missing(id, namespace, "document")
        return Document(
            id=id,
            uri=row[0],
            title=row[1],
            media=row[2],
            sha256=row[3].hex(),
            recorded_at=instant(row[4]),
            text="".join(text for _, text in parts),
            segments=tuple(id_text(part) for part, _ in parts),
        )

    def unchanged(self, namespace: str, document_id: str) -> tuple[str, ...] | None:
        """The ids of a document's segments in order when it is here and current, else None."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT s.id FROM documents AS d JOIN segments AS s ON s.namespace = d.namespace AND s.document = d.id"
                " WHERE d.namespace = ? AND d.id = ? AND d.ended_at IS NULL AND s.ended_at IS NULL ORDER BY s.position",
                (namespace_number(connection, namespace), id_bytes(document_id)),
            ).fetchall()
        return tuple(id_text(id) for (id,) in rows) or None

    def echoes(self, scope: Scope, turns: Sequence[tuple[bytes, bytes]]) -> set[bytes]:
        """The identities of those turns (content, identity) whose content stands here as said by the same user's
        others than the assistant, and which are not here themselves."""
        sql = (
            "SELECT 1 FROM segments WHERE namespace = ?1 AND content = ?2 AND ended_at IS NULL AND user_id IS ?4"
            " AND role IS NOT 'assistant' AND NOT EXISTS"
            " (SELECT 1 FROM segments WHERE namespace = ?1 AND identity = ?3 AND ended_at IS NULL)"
        )
        with self.reading() as connection:
            number = namespace_number(connection, scope.namespace)
            return {
                identity
                for content, identity in turns
                if connection.execute(sql, (number, content, identity, scope.user_id)).fetchone() is not None
            }

    def titles(self, namespace: str, ids: Sequence[str]) -> dict[str, str]:
        """The titles of those documents that have one."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return {
                id_text(id): title
                for chunk in chunks(ids)
                for id, title in connection.execute(
                    f"SELECT id, title FROM documents WHERE namespace = ? AND title <> '' AND id IN ({marks(chunk)})",
                    (number, *map(id_bytes, chunk)),
                )
            }

    def judgements(self, namespace: str) -> list[Judgement]:
        """All that was said, by query and segment, in one order whatever the order it was said in."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT query, id, useful, judged_at FROM judgements WHERE namespace = ? ORDER BY query, id",
                (namespace_number(connection, namespace),),
            ).fetchall()
        return [
            Judgement(query=query, id=id_text(id), useful=bool(useful), at=instant(at))
            for query, id, useful, at in rows
        ]

    def replay(self, namespace: str, idempotency: Idempotency) -> Added | None:
        """What an earlier call with this idempotency key did, or None. Raises IdempotencyConflict."""
        with self.reading() as connection:
            return _replayed(connection, namespace_number(connection, namespace), idempotency)

    def namespaces(self) -> list[str]:
        with self.reading() as connection:
            return [name for (name,) in connection.execute("SELECT name FROM namespaces ORDER BY number")]

    # The store itself

    def value(self, key: str) -> str | None:
        with self.reading() as connection:
            row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put_values(self, values: Mapping[str, str], *, replace: bool) -> None:
        """Keep values of the store itself; those that are there already stay unless ``replace``."""
        verb = "REPLACE" if replace else "IGNORE"
        with self.writing() as connection:
            connection.executemany(f"INSERT OR {verb} INTO store VALUES (?, ?)", list(values.items()))

    def change_value(self, key: str, change: Callable[[str | None], str]) -> None:
        """Make a value of the store what ``change`` makes of it, None where it has none; nobody writes meanwhile."""
        with self.writing() as connection:
            row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
            new = change(None if row is None else str(row[0]))
            connection.execute("INSERT OR REPLACE INTO store VALUES (?, ?)", (key, new))

    def counts(self) -> dict[str, Any]:
        """How much there is, store-wide and per namespace."""
        with self.reading() as connection:
            spaces = connection.execute(
                "SELECT n.name, count(s.seq), coalesce(sum(s.tokens), 0), coalesce(max(s.seq), 0),"
                " (SELECT count(*) FROM pending AS p WHERE p.namespace = n.number)"
                " FROM namespaces AS n LEFT JOIN segments AS s ON s.namespace = n.number AND s.ended_at IS NULL"
                " GROUP BY n.number ORDER BY n.number"
            ).fetchall()
            total = {
                "documents": "SELECT count(*) FROM documents WHERE ended_at IS NULL",
                "versions": "SELECT count(*) FROM segments",
                "repeats": "SELECT coalesce(sum(repeats), 0) FROM segments",
                "vectors": f"SELECT count(*) FROM activations WHERE encoding = {ENCODING}",
                "tombstones": "SELECT count(*) FROM tombstones",
                "judgements": "SELECT count(*) FROM judgements",
                "schema": "PRAGMA user_version",
            }
            result: dict[str, Any] = {name: connection.execute(sql).fetchone()[0] for name, sql in total.items()}
        result["namespaces"] = {
            name: {"segments": segments, "tokens": tokens, "position": position, "pending": pending}
            for name, segments, tokens, position, pending in spaces
        }
        return result

    def problems(self, *, log_only: bool = False) -> Iterator[tuple[int, int, str | None]]:
        """Re-read and re-hash every row and vector as searches read them, or only what the log says of them: yields
        (done, total, problem or None)."""
        with self.reading() as connection:
            done = total = 0
            for done, total, problem in () if log_only else find_problems(connection):
                yield done, total, problem
            for problem in log.problems(connection):
                yield done, total, problem
            for problem in () if log_only else self.tensor_problems():
                yield done, total, problem

    def tidy(self) -> None:
        """Fold the write-ahead log into the database file and let SQLite refresh its statistics."""
        with self.writing() as connection:  # a lock taken half-way, as these do alone, is refused and not waited for
            connection.execute("INSERT INTO lexical_tail (lexical_tail) VALUES ('optimize')")
            connection.execute("PRAGMA optimize")
        self.fold()


def _replayed(connection: sqlite3.Connection, number: int, idempotency: Idempotency) -> Added | None:
    row = connection.execute(
        "SELECT payload, result FROM operations WHERE namespace = ? AND key = ?", (number, idempotency.key)
    ).fetchone()
    if row is None:
        return None
    if row[0] and row[0] != idempotency.payload:  # empty: a part of it was erased, and every hash of it
        raise IdempotencyConflict(
            "idempotency_key",
            f"{idempotency.key!r} was used before with another payload",
            mend="use a new key for new content; nothing was written",
        )
    ids, document_id, *operation = json.loads(
        row[1]
    )  # the last is not there in what was written before there was a log
    keys = [uuid.UUID(id).bytes for id in ids]
    there = "SELECT 1 FROM segments WHERE namespace = ? AND id = ? AND ended_at IS NULL"
    alive = any(connection.execute(there, (number, key)).fetchone() for key in keys)
    if not alive:  # all of it was deleted since: the same words said again are a new memory
        return None
    return Added(
        ids=tuple(ids), added=0, repeated=len(ids), document_id=document_id, operation=next(iter(operation), None)
    )


def _open_document(connection: sqlite3.Connection, number: int, document: DocumentDraft, moment: int) -> list[Change]:
    """Begin a document; what that ended."""
    key, ended = uuid.UUID(document.id).bytes, list[tuple[Any, ...]]()
    if document.uri is not None:  # a file read again: what it said before is history now
        earlier = "namespace = ? AND owner = ? AND id <> ? AND ended_at IS NULL"
        where = (number, document.owner, key)
        ended = connection.execute(
            f"{END} WHERE namespace = ? AND ended_at IS NULL AND document IN"
            f" (SELECT id FROM documents WHERE {earlier}) {ENDED}",
            (moment, number, *where),
        ).fetchall()
        connection.execute(f"UPDATE documents SET ended_at = ? WHERE {earlier}", (moment, *where))
    connection.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)"
        " ON CONFLICT (namespace, id) DO UPDATE SET ended_at = NULL",
        (key, number, document.owner, document.uri, document.title, document.media, document.sha256, moment),
    )
    return [Change(id, version) for id, version, _ in ended]


def _made_way(connection: sqlite3.Connection, seq: int, moment: int) -> Change:
    """Have the row of what is not so any more let go of its identity, as the same was said anew: its repeat is not
    counted, and it stays as a version of its own that nothing can be a repeat of."""
    connection.execute("UPDATE segments SET repeats = repeats - 1 WHERE seq = ?", (seq,))
    names = [name.strip() for name in PROVEN.split(",")]
    values = connection.execute(f"SELECT {PROVEN} FROM segments WHERE seq = ?", (seq,)).fetchone()
    row = dict(zip(names, values, strict=True))
    row["identity"] = sha256(row["identity"] + row["id"] + str(moment).encode()).digest()[:16]
    proof = checksum(list(row.values()))
    connection.execute("UPDATE segments SET identity = ?, checksum = ? WHERE seq = ?", (row["identity"], proof, seq))
    return Change(row["id"], row["version"], row["version"], proof)


def _position(
    connection: sqlite3.Connection, number: int, draft: Draft, positions: dict[tuple[str | None, ...], int]
) -> int:
    """The draft's own position, or the next one in its session."""
    if draft.position is not None:
        return draft.position
    scope = (draft.scope.user_id, draft.scope.agent_id, draft.scope.run_id, draft.scope.session)
    if scope not in positions:
        last = connection.execute(
            "SELECT max(position) FROM segments WHERE namespace = ? AND user_id IS ? AND session IS ?"
            " AND agent_id IS ? AND run_id IS ? AND (document IS NULL OR role IS NOT NULL)",
            (number, scope[0], scope[3], scope[1], scope[2]),
        ).fetchone()[0]
        positions[scope] = 0 if last is None else last + 1
    return positions[scope]


def _advance(draft: Draft, position: int, positions: dict[tuple[str | None, ...], int]) -> None:
    scope = (draft.scope.user_id, draft.scope.agent_id, draft.scope.run_id, draft.scope.session)
    if draft.position is None:
        positions[scope] = position + 1
