"""What is added to a ledger, and what is read of it: the part that every SQL dialect has whole."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from memspan.activations.tokens import Activation
from memspan.errors import IdempotencyConflict
from memspan.ledger import log
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
    now,
)
from memspan.ledger.changing import Changing, back, current, derive_from, missing
from memspan.ledger.feeding import given
from memspan.ledger.log import Change
from memspan.ledger.rows import (
    COLUMNS,
    INSERT,
    PAST,
    PROVEN,
    checksum,
    chunks,
    id_bytes,
    id_text,
    marks,
    metadata_of,
    namespace_number,
    row_of,
    segment_of,
    uuid7,
)
from memspan.ledger.transactions import Connection
from memspan.ledger.values import ENCODING, agreed, put_value
from memspan.records import NOW, Added, AsOf, Document, Draft, Event, Filter, Judgement, Operation, Scope, Segment


class Recording(Changing):
    """The part of a ledger that adds segments, and reads them."""

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
            number = namespace_number(connection, namespace, create=True)
            agreed(connection, encoder)
            if idempotency is not None and (done := _replayed(connection, number, idempotency)) is not None:
                return done
            moment = now()
            changes = [
                change for document in documents for change in self._open_document(connection, number, document, moment)
            ]
            there = _there(connection, number, [draft.identity for draft in drafts])
            first = self.next_seqs(connection, number, len(drafts))
            positions: dict[tuple[str | None, ...], int] = {}
            ids: list[str] = []
            rows: list[tuple[Any, ...]] = []
            written: list[tuple[int, Draft]] = []
            for draft in drafts:
                known = there.get(draft.identity)
                if known is not None and known.seq >= first:  # it is said twice in this very call
                    connection.executemany(INSERT, rows)
                    rows.clear()
                if known is not None and not connection.execute(PAST, (known.seq, moment, number)).fetchone():
                    again = "UPDATE segments SET repeats = repeats + 1 WHERE namespace = ? AND seq = ?"
                    connection.execute(again, (number, known.seq))
                    ids.append(id_text(known.id))
                    changes.append(Change(known.id, known.version, known.version, known.proof))
                    continue
                if known is not None:
                    changes.append(_made_way(connection, number, known.seq, moment))
                position = _position(connection, number, draft, positions)
                row = row_of(first + len(written), number, uuid7(), 1, draft, position, moment)
                new = there[draft.identity] = _There(row[0], row[2], 1, row[-2])
                ids.append(id_text(new.id))
                changes.append(Change(new.id, None, 1, new.proof))
                rows.append(row)
                written.append((new.seq, draft))
                _advance(draft, position, positions)
            connection.executemany(INSERT, rows)
            pending = self.derive(connection, number, written, activations)
            changes += derive_from(connection, number, namespace, ids, drafts)
            self.keep(connection, number, given(activations, (draft for _, draft in written)))
            document_id = documents[0].id if len(documents) == 1 else None
            added = Added(
                ids=tuple(ids),
                added=len(written),
                repeated=len(drafts) - len(written),
                document_id=document_id,
                pending=pending,
                operation=self.logged(connection, number, why, changes),
            )
            if idempotency is not None:
                told = json.dumps([ids, document_id, added.operation])
                connection.execute(
                    "INSERT INTO operations VALUES (?, ?, ?, ?, ?) ON CONFLICT (namespace, key) DO UPDATE"
                    " SET payload = excluded.payload, result = excluded.result, at = excluded.at",
                    (number, idempotency.key, idempotency.payload, told, moment),
                )
            return added

    def used(self, namespace: str, uses: Mapping[str, Use]) -> None:
        """Count that searches returned these segments; what is gone meanwhile is left out."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            connection.executemany(
                "INSERT INTO usage SELECT ?1, ?2, ?3, ?4, greatest(0.5, ?5) WHERE EXISTS"
                " (SELECT 1 FROM segments WHERE namespace = ?1 AND id = ?2)"
                " ON CONFLICT (namespace, id) DO UPDATE SET"
                " accesses = usage.accesses + excluded.accesses,"
                " accessed_at = greatest(usage.accessed_at, excluded.accessed_at),"
                " relevance = greatest(usage.relevance, ?5)",
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
                    "INSERT INTO judgements VALUES (?, ?, ?, ?, ?) ON CONFLICT (namespace, query, id) DO UPDATE"
                    " SET useful = excluded.useful, judged_at = excluded.judged_at",
                    (number, said.query, id_bytes(said.id), int(said.useful), at),
                )

    def forget_judgements(self, namespace: str, query: str | None, id: str | None) -> int:
        """Remove what was said, of one query or all, of one segment or all; returns how many there were."""
        with self.writing() as connection:
            clause, values = "namespace = ?", list[Any]((namespace_number(connection, namespace),))
            for column, wanted in (("query", query), ("id", None if id is None else id_bytes(id))):
                if wanted is not None:
                    clause, values = f"{clause} AND {column} = ?", [*values, wanted]
            return connection.execute(f"DELETE FROM judgements WHERE {clause}", values).rowcount

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
        clause, values = self.where(scope, filters, as_of)
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
                "SELECT 1 FROM log AS l JOIN changes AS c ON c.namespace = l.namespace AND c.entry = l.entry"
                " WHERE l.namespace = ? AND operation = ?"
                f" AND other IS NOT NULL AND link IS NULL AND {there.format('id')} AND {there.format('other')} LIMIT 1",
                (namespace_number(connection, namespace), id_bytes(operation)),
            ).fetchone()
        return row is not None

    def relinked(self, namespace: str, since: datetime) -> list[Relink]:
        """The links that changed after ``since`` as they were before, the last first."""
        with self.reading() as connection:
            return [back(each) for each in log.relinked(connection, namespace, microseconds(since))]

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
            " AND coalesce(role, '') <> 'assistant' AND NOT EXISTS"
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

    def _open_document(self, connection: Connection, number: int, document: DocumentDraft, moment: int) -> list[Change]:
        """Begin a document; what that ended."""
        key, changes = uuid.UUID(document.id).bytes, list[Change]()
        if document.uri is not None:  # a file read again: what it said before is history now
            earlier = "namespace = ? AND owner = ? AND id <> ? AND ended_at IS NULL"
            where = (number, document.owner, key)
            clause = f"ended_at IS NULL AND document IN (SELECT id FROM documents WHERE {earlier})"
            ended = self.end(connection, number, clause, where, moment)
            connection.execute(f"UPDATE documents SET ended_at = ? WHERE {earlier}", (moment, *where))
            changes = [Change(id, version) for id, version, _ in ended]
        connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)"
            " ON CONFLICT (namespace, id) DO UPDATE SET ended_at = NULL",
            (key, number, document.owner, document.uri, document.title, document.media, document.sha256, moment),
        )
        return changes

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
        done = "UPDATE SET value = excluded.value" if replace else "NOTHING"
        with self.writing() as connection:
            sql = f"INSERT INTO store VALUES (?, ?) ON CONFLICT (key) DO {done}"
            connection.executemany(sql, list(values.items()))

    def change_value(self, key: str, change: Callable[[str | None], str]) -> None:
        """Make a value of the store what ``change`` makes of it, None where it has none; nobody writes meanwhile."""
        with self.writing() as connection:
            self.alone(connection, key)
            row = connection.execute("SELECT value FROM store WHERE key = ?", (key,)).fetchone()
            put_value(connection, key, change(None if row is None else str(row[0])))

    def covers(self) -> list[str] | None:
        """Which namespaces are meant by the whole store, where that is not all of them."""
        return None

    def counts(self) -> dict[str, Any]:
        """How much there is, store-wide and per namespace."""
        with self.reading() as connection:
            spaces = connection.execute("SELECT number, name FROM namespaces ORDER BY number").fetchall()
            held = {
                number: about
                for number, *about in connection.execute(
                    "SELECT namespace, count(*), sum(tokens), max(seq) FROM segments WHERE ended_at IS NULL"
                    " GROUP BY namespace"
                )
            }
            waiting = dict(connection.execute("SELECT namespace, count(*) FROM pending GROUP BY namespace").fetchall())
            total = {
                "documents": "SELECT count(*) FROM documents WHERE ended_at IS NULL",
                "versions": "SELECT count(*) FROM segments",
                "repeats": "SELECT coalesce(sum(repeats), 0) FROM segments",
                "vectors": f"SELECT count(*) FROM activations WHERE encoding = {ENCODING}",
                "tombstones": "SELECT count(*) FROM tombstones",
                "judgements": "SELECT count(*) FROM judgements",
            }
            result: dict[str, Any] = {name: connection.execute(sql).fetchone()[0] for name, sql in total.items()}
            result["schema"] = self.schema(connection)
        result["namespaces"] = {
            name: {"segments": segments, "tokens": tokens, "position": position, "pending": waiting.get(number, 0)}
            for number, name in spaces
            for segments, tokens, position in (held.get(number, (0, 0, 0)),)
        }
        return result


def _replayed(connection: Connection, number: int, idempotency: Idempotency) -> Added | None:
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


class _There(NamedTuple):
    """A current row that says just what a draft does."""

    seq: int
    id: bytes
    version: int
    proof: bytes


def _there(connection: Connection, number: int, identities: Sequence[bytes]) -> dict[bytes, _There]:
    """The current rows of these identities."""
    return {
        identity: _There(*row)
        for chunk in chunks(identities)
        for identity, *row in connection.execute(
            "SELECT identity, seq, id, version, checksum FROM segments"
            f" WHERE namespace = ? AND ended_at IS NULL AND identity IN ({marks(chunk)})",
            (number, *chunk),
        )
    }


def _made_way(connection: Connection, number: int, seq: int, moment: int) -> Change:
    """Have the row of what is not so any more let go of its identity, as the same was said anew: it stays as a version
    of its own that nothing can be a repeat of."""
    where = "WHERE namespace = ? AND seq = ?"
    names = [name.strip() for name in PROVEN.split(",")]
    values = connection.execute(f"SELECT {PROVEN} FROM segments {where}", (number, seq)).fetchone()
    row = dict(zip(names, values, strict=True))
    row["identity"] = sha256(row["identity"] + row["id"] + str(moment).encode()).digest()[:16]
    proof = checksum(list(row.values()))
    connection.execute(f"UPDATE segments SET identity = ?, checksum = ? {where}", (row["identity"], proof, number, seq))
    return Change(row["id"], row["version"], row["version"], proof)


def _position(connection: Connection, number: int, draft: Draft, positions: dict[tuple[str | None, ...], int]) -> int:
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
