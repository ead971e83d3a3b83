"""How what a ledger holds changes: new versions, ends, links; each with its log entry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, NamedTuple

from memspan.activations.tokens import Activation
from memspan.errors import InvalidInput, NotFound
from memspan.ledger.archiving import settle
from memspan.ledger.base import UPDATE, VERDICT, Relink, Revised, Revision, Why, now
from memspan.ledger.feeding import given
from memspan.ledger.log import Change
from memspan.ledger.removing import DERIVED_FROM, Removing
from memspan.ledger.rows import INSERT, after, chunks, id_bytes, id_text, marks, namespace_number, row_of
from memspan.ledger.transactions import Connection
from memspan.ledger.values import agreed
from memspan.records import Draft, Edge, Filter, Scope


class Changing(Removing):
    """The part of a ledger that changes segments and links that are there."""

    def revise(
        self,
        namespace: str,
        revisions: Sequence[Revision],
        activations: Mapping[bytes, Activation] | None,
        encoder: str | None = None,
        *,
        relinks: Sequence[Relink] = (),
        distinct: bool = False,
        why: Why = UPDATE,
    ) -> Revised | None:
        """New versions of segments, or none any more, and what becomes of links: all or nothing. An empty identity
        keeps the old one. ``activations``, ``encoder``: as in ``append``.

        None, and nothing written, when one of them has another version by now. Raises NotFound, EncoderMismatch, and
        InvalidInput when another segment of the same scope says exactly this already, unless they shall stay
        ``distinct``.
        """
        with self.writing() as connection:
            number = namespace_number(connection, namespace, create=not revisions)  # the log tells of what changed none
            agreed(connection, encoder)
            olds = [_last(connection, number, revision, namespace) for revision in revisions]
            if any(
                (old.version, old.ended_at is not None) != (revision.version, revision.ended)
                for old, revision in zip(olds, revisions, strict=True)
            ):
                return None
            # versions stand by their times wherever an archive takes them
            moment = after(max((max(old.recorded_at, old.ended_at or 0) for old in olds), default=0))
            changes: list[Change] = []
            seqs: list[int] = []
            documents: set[bytes] = set()
            following = self.next_seqs(connection, number, len(revisions))
            written: list[tuple[int, Draft]] = []
            for old, revision in zip(olds, revisions, strict=True):
                documents.update(() if old.document is None else (old.document,))
                if old.ended_at is None:
                    self.end(connection, number, "seq = ?", (old.seq,), moment)
                before = None if revision.ended else old.version
                if revision.draft is None:
                    changes.append(Change(old.id, before))
                    continue
                draft = replace(revision.draft, identity=revision.draft.identity or old.identity)
                seq = following + len(seqs)
                proof = _revised(connection, number, seq, old, draft, moment, distinct=distinct)
                changes.append(Change(old.id, before, old.version + 1, proof))
                written.append((seq, draft))
                seqs.append(seq)
            self.derive(connection, number, written, activations)
            self.keep(connection, number, given(activations, (draft for _, draft in written)))
            settle(connection, number, documents, moment)
            changes += _relink(connection, number, relinks)
            operation = self.logged(connection, number, why, changes)
        return Revised(segments=self.fetch(namespace, seqs), operation=operation)

    def link(self, namespace: str, edge: Edge) -> None:
        """State an edge between two current segments; said again, its weight is replaced. Raises NotFound."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            for id in (edge.source, edge.target):
                current(connection, number, id, namespace)
            new = Relink(source=edge.source, target=edge.target, kind=edge.kind, weight=edge.weight)
            self.logged(connection, number, Why(verb="link"), _relink(connection, number, [new]))

    def unlink(self, namespace: str, source: str, target: str, kind: str | None) -> int:
        """Take back edges from ``source`` to ``target``, of one kind or of all; returns how many there were."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            kinds = connection.execute(
                "SELECT kind FROM edges WHERE namespace = ? AND source = ? AND target = ?",
                (number, id_bytes(source), id_bytes(target)),
            ).fetchall()
            gone = [
                Relink(source=source, target=target, kind=each, weight=None)
                for (each,) in kinds
                if kind in (None, each)
            ]
            if gone:
                self.logged(connection, number, Why(verb="unlink"), _relink(connection, number, gone))
        return len(gone)

    def delete(self, namespace: str, ids: Sequence[str]) -> int:
        """End segments: no search finds them, their history stays. Returns how many there were."""
        with self.writing() as connection:
            number = namespace_number(connection, namespace)
            ended = [
                row
                for chunk in chunks(ids)
                for row in self.end(
                    connection, number, f"ended_at IS NULL AND id IN ({marks(chunk)})", [*map(id_bytes, chunk)], now()
                )
            ]
            self._deleted(connection, number, ended)
        return len(ended)

    def delete_scope(self, scope: Scope, filters: Filter | None) -> int:
        """End everything in ``scope`` (that passes ``filters``) in one statement; returns how many segments it held."""
        with self.writing() as connection:
            number = namespace_number(connection, scope.namespace)
            clause, values = self.where(scope, filters, None)
            ended = self.end(connection, number, clause, values, now())
            self._deleted(connection, number, ended)
        return len(ended)

    def _deleted(self, connection: Connection, number: int, ended: Sequence[tuple[Any, ...]]) -> None:
        if ended:
            settle(connection, number, {document for _, _, document in ended if document is not None}, now())
            self.logged(connection, number, Why(verb="delete"), [Change(id, version) for id, version, _ in ended])


class _Last(NamedTuple):
    """The last version of a segment."""

    id: bytes
    seq: int
    version: int
    position: int
    document: bytes | None
    identity: bytes
    text: str
    recorded_at: int
    heard_at: int | None
    ended_at: int | None


def _last(connection: Connection, number: int, revision: Revision, namespace: str) -> _Last:
    """Raises NotFound where there is none, or none any more and the revision does not know that."""
    row = connection.execute(
        "SELECT id, seq, version, position, document, identity, text, recorded_at, heard_at, ended_at FROM segments"
        " WHERE namespace = ? AND id = ? ORDER BY version DESC LIMIT 1",
        (number, id_bytes(revision.id)),
    ).fetchone()
    if row is None or (row[-1] is not None and not revision.ended):
        raise missing(revision.id, namespace)
    return _Last(*row)


def current(connection: Connection, number: int, id: str, namespace: str) -> bytes:
    """The id of a segment that is there now. Raises NotFound."""
    row = connection.execute(
        "SELECT id FROM segments WHERE namespace = ? AND id = ? AND ended_at IS NULL", (number, id_bytes(id))
    ).fetchone()
    if row is None:
        raise missing(id, namespace)
    return bytes(row[0])


def _revised(
    connection: Connection, number: int, seq: int, old: _Last, draft: Draft, moment: int, *, distinct: bool
) -> bytes:
    """Write the version after ``old`` at ``seq``: its checksum. Raises InvalidInput."""
    heard_at = (old.recorded_at if old.heard_at is None else old.heard_at) if draft.piece.text == old.text else None
    other = connection.execute(
        "SELECT id FROM segments WHERE namespace = ? AND identity = ? AND ended_at IS NULL", (number, draft.identity)
    ).fetchone()
    if other is not None and not distinct:
        mend = "delete one of the two"
        raise InvalidInput("text", f"segment {uuid.UUID(bytes=other[0])} already says exactly this", mend=mend)
    if other is not None:
        draft = replace(draft, identity=sha256(draft.identity + old.id).digest()[:16])
    row = row_of(seq, number, old.id, old.version + 1, draft, old.position, moment, heard_at)
    connection.execute(INSERT, row)
    return bytes(row[-2])


def _relink(connection: Connection, number: int, relinks: Sequence[Relink]) -> list[Change]:
    """Have links and verdicts as told; how they were before goes to the log. What is of segments that are not there any
    more is left out."""
    changes: list[Change] = []
    for each in relinks:
        tied = _VERDICT if each.kind == VERDICT else _LINK
        key = (number, id_bytes(each.source), each.kind, id_bytes(each.target))
        known = connection.execute(tied.known, key).fetchone()
        before = None if known is None else known[0]
        if each.weight is None:
            connection.execute(tied.gone, key)
        elif not connection.execute(tied.said, (*key, each.weight, now())).rowcount:
            continue
        told = json.dumps([each.kind, before, each.weight], ensure_ascii=False)
        changes.append(Change(key[1], other=key[3], link=told))
    return changes


class _Tied(NamedTuple):
    """How what ties two segments is read, taken away and written: ?1 the namespace, ?2 from, ?3 the kind, ?4 to."""

    known: str
    gone: str
    said: str


_THERE = " AND ".join(f"EXISTS (SELECT 1 FROM segments WHERE namespace = ?1 AND id = {id})" for id in ("?2", "?4"))
_OF_LINK = "FROM edges WHERE namespace = ?1 AND source = ?2 AND kind = ?3 AND target = ?4"
_OF_VERDICT = "FROM verdicts WHERE namespace = ?1 AND newer = ?2 AND ?3 = '' AND older = ?4"
_LINK = _Tied(
    known=f"SELECT weight {_OF_LINK}",
    gone=f"DELETE {_OF_LINK}",
    said="INSERT INTO edges (namespace, source, kind, target, weight, created_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6"
    f" WHERE {_THERE} ON CONFLICT (namespace, source, kind, target) DO UPDATE SET weight = excluded.weight",
)
_VERDICT = _Tied(
    known=f"SELECT CAST(accepted AS DOUBLE PRECISION) {_OF_VERDICT}",
    gone=f"DELETE {_OF_VERDICT}",
    said="INSERT INTO verdicts (namespace, newer, older, accepted, decided_at)"
    " SELECT ?1, ?2, ?4, CAST(?5 AS INTEGER), ?6"
    f" WHERE {_THERE} AND ?3 = '' ON CONFLICT (namespace, older, newer) DO UPDATE"
    " SET accepted = excluded.accepted, decided_at = excluded.decided_at",
)


def derive_from(
    connection: Connection, number: int, namespace: str, ids: Sequence[str], drafts: Sequence[Draft]
) -> list[Change]:
    """Link what was just written to what it is derived from. Raises NotFound where that is not there any more."""
    links = [
        Relink(source=id, target=target, kind=DERIVED_FROM, weight=1.0)
        for id, draft in zip(ids, drafts, strict=True)
        for target in draft.derived_from
    ]
    for link in links:
        current(connection, number, link.target, namespace)
    return _relink(connection, number, links)


def back(change: Change) -> Relink:
    """What takes back what became of a link."""
    kind, before, _ = json.loads(change.link or "")
    source, target = (id_text(each) for each in (change.id, change.other or b""))
    return Relink(source=source, target=target, kind=kind, weight=before)


def missing(id: str, namespace: str, what: str = "segment") -> NotFound:
    return NotFound(f"no {what} {id!r} in namespace {namespace!r}", mend="check the id and the namespace")
