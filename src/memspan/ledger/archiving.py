"""What a ledger gives to archives, and takes back from them: every version with its id and its times."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from memspan.activations.tokens import Activation
from memspan.ledger import log
from memspan.ledger.base import (
    IMPORT,
    Reference,
    Restorable,
    Restored,
    Seqs,
    Stamp,
    Taking,
    Why,
    instant,
    microseconds,
    now,
)
from memspan.ledger.feeding import Feeding, given
from memspan.ledger.log import Change
from memspan.ledger.rows import ADD, LAST, PROVEN, checksum, chunks, id_bytes, id_text, marks, namespace_number, row_of
from memspan.ledger.rows import after as after_time
from memspan.ledger.transactions import Connection
from memspan.ledger.values import agreed
from memspan.records import Draft, Edge, Filing, Filter, Judgement, Scope, Tombstone, Usage, Verdict

# what makes two versions of a segment the same one, whoever counted them, beside when they were recorded
SAID = (
    "user_id, agent_id, run_id, session, document, role, speaker, heading, category, importance, source, occurred_at,"
    " metadata, gap, text, tail, kind, state, valid_from, valid_to, expires_at"
)
REOPEN = (  # a document that was deleted, and not replaced by another one
    "UPDATE documents AS d SET ended_at = NULL WHERE namespace = ? AND id = ? AND NOT EXISTS (SELECT 1 FROM documents"
    " AS o WHERE o.namespace = d.namespace AND o.owner = d.owner AND o.id <> d.id AND o.ended_at IS NULL)"
)
RESTORE = (
    ADD.format(", ended_at, repeats", ", ".join("?" * 35))
    + " ON CONFLICT (namespace, identity) WHERE ended_at IS NULL DO NOTHING RETURNING seq"
)
_PLACE = {name: at for at, name in enumerate(PROVEN.replace(" ", "").split(","))}
_SAID = [_PLACE[name] for name in SAID.replace(" ", "").split(",")]


@dataclass(slots=True)
class _Kept:
    """A version that is here: enough to find its place among others."""

    seq: int
    version: int
    recorded_at: int
    ended_at: int | None
    repeats: int
    document: bytes | None
    said: bytes


class Archiving(Feeding):
    """The part of a ledger that archives read and write. ``actor`` is who the log says changed something."""

    actor: str | None = None

    def logged(self, connection: Connection, number: int, why: Why, changes: Sequence[Change]) -> str:
        """Write down what this transaction changed; the id of the operation."""
        goes_on, undoes = (None if id is None else id_bytes(id) for id in (why.operation, why.undoes))
        return log.record(
            connection,
            number,
            why.verb,
            changes,
            self.last_entry(connection, number),
            detail=why.detail,
            operation=goes_on,
            undoes=undoes,
            actor=log.ACTING.get() or self.actor,
        )

    def end(
        self, connection: Connection, number: int, clause: str, values: Sequence[Any], moment: int
    ) -> list[tuple[bytes, int, bytes | None]]:
        """Have the current rows that the clause is about end now: (id, version, document) of each."""
        rows = connection.execute(
            f"UPDATE segments SET ended_at = greatest(recorded_at, ?) WHERE namespace = ? AND {clause}"
            " RETURNING id, version, document, seq",
            (moment, number, *values),
        ).fetchall()
        self.ended(connection, number, [seq for *_, seq in rows])
        return [(id, version, document) for id, version, document, _ in rows]

    # Giving

    def archive(self, scope: Scope, filters: Filter | None, *, history: bool) -> Seqs:
        """The rows an archive of ``scope`` holds, sorted by when they were recorded, id and version: int64[n]. With
        ``history`` also the versions that those were before, and for a whole namespace all that are only history."""
        clause, values = self.where(scope, filters, None)
        with self.reading() as connection:
            number = namespace_number(connection, scope.namespace)
            if history and filters is None and scope == Scope(namespace=scope.namespace):
                clause = "TRUE"
            elif history:
                clause, values = f"id IN (SELECT id FROM segments WHERE namespace = ? AND {clause})", [number, *values]
            rows = connection.execute(
                f"SELECT seq FROM segments WHERE namespace = ? AND {clause} ORDER BY recorded_at, id, version",
                (number, *values),
            )
            return np.fromiter((seq for (seq,) in rows), np.int64)

    def rows_of(self, namespace: str, ids: Sequence[str]) -> Seqs:
        """Every version of these segments, sorted as ``archive`` does: int64[n]."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            rows = [
                row
                for chunk in chunks(ids)
                for row in connection.execute(
                    "SELECT recorded_at, id, version, seq FROM segments"
                    f" WHERE namespace = ? AND id IN ({marks(chunk)})",
                    (number, *map(id_bytes, chunk)),
                )
            ]
        return np.array([row[-1] for row in sorted(rows)], np.int64)

    def stamps(self, namespace: str, ids: Sequence[str]) -> dict[str, Stamp]:
        """Of each of these segments that is there what changes with anything that is written of it."""
        with self.reading() as connection:
            return stamps_of(connection, namespace_number(connection, namespace), ids)

    def named(self, namespace: str, seqs: Sequence[int]) -> tuple[set[str], set[str]]:
        """The ids of these rows, and of the documents they belong to."""
        ids: set[str] = set()
        documents: set[str] = set()
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            for chunk in chunks(seqs):
                for id, document in connection.execute(
                    f"SELECT id, document FROM segments WHERE seq IN ({marks(chunk)}) AND namespace = ?",
                    (*map(int, chunk), number),
                ):
                    ids.add(id_text(id))
                    documents.update(() if document is None else (id_text(document),))
        return ids, documents

    def identities(self, namespace: str, seqs: Sequence[int]) -> dict[int, bytes]:
        """What makes each of these rows the same when it is added again, by seq."""
        with self.reading() as connection:
            number = namespace_number(connection, namespace)
            return {
                seq: identity
                for chunk in chunks(seqs)
                for seq, identity in connection.execute(
                    f"SELECT seq, identity FROM segments WHERE seq IN ({marks(chunk)}) AND namespace = ?",
                    (*map(int, chunk), number),
                )
            }

    def filings(self, namespace: str) -> Iterator[Filing]:
        """The documents of a namespace, by when they were recorded and id."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT id, owner, uri, title, media, sha256, recorded_at, ended_at FROM documents WHERE namespace = ?"
                " ORDER BY recorded_at, id",
                (namespace_number(connection, namespace),),
            )
            for id, owner, uri, title, media, digest, recorded_at, ended_at in rows:
                yield Filing(
                    id=id_text(id),
                    owner=owner,
                    uri=uri,
                    title=title,
                    media=media,
                    sha256=digest,
                    recorded_at=instant(recorded_at),
                    ended_at=None if ended_at is None else instant(ended_at),
                )

    def verdicts(self, namespace: str) -> list[Verdict]:
        """What was decided of pairs of segments, sorted by the older and the newer."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT older, newer, accepted, decided_at FROM verdicts WHERE namespace = ? ORDER BY older, newer",
                (namespace_number(connection, namespace),),
            ).fetchall()
        return [
            Verdict(older=id_text(older), newer=id_text(newer), accepted=bool(accepted), at=instant(at))
            for older, newer, accepted, at in rows
        ]

    def references(self, namespace: str) -> Iterator[Reference]:
        """What refers to segments of a namespace: links, judgements, verdicts, use and tombstones, each sorted."""
        with self.reading() as connection:
            where = (namespace_number(connection, namespace),)
            of = "FROM {} WHERE namespace = ? ORDER BY {}"
            rows = connection.execute(
                "SELECT source, target, kind, weight, created_at " + of.format("edges", "source, target, kind"), where
            )
            for source, target, kind, weight, at in rows:
                yield Edge(source=id_text(source), target=id_text(target), kind=kind, weight=weight, at=instant(at))
            rows = connection.execute(
                "SELECT query, id, useful, judged_at " + of.format("judgements", "id, query"), where
            )
            for query, id, useful, at in rows:
                yield Judgement(query=query, id=id_text(id), useful=bool(useful), at=instant(at))
            yield from self.verdicts(namespace)
            rows = connection.execute("SELECT id, accesses, accessed_at, relevance " + of.format("usage", "id"), where)
            for id, times, at, relevance in rows:
                yield Usage(id=id_text(id), times=times, at=instant(at), relevance=relevance)
            rows = connection.execute("SELECT id, version, deleted_at " + of.format("tombstones", "id"), where)
            for id, version, at in rows:
                yield Tombstone(id=id_text(id), version=version, at=instant(at))

    # Taking

    def restore(
        self,
        namespace: str,
        batch: Taking,
        activations: Mapping[bytes, Activation] | None = None,
        encoder: str | None = None,
        *,
        revive: bool = False,
        dry_run: bool = False,
        why: Why = IMPORT,
    ) -> Restored:
        """Take over what an archive holds, all or nothing; what is here already is passed over.

        The versions of a segment stand by when they were recorded, whoever recorded them, and the last is current; one
        that comes to stand between others has those after it counted anew. What is ended here stays ended. A new
        segment that says what another current one of the same scope says already is left out, and told under ``same``.
        What was deleted or erased here stays so unless ``revive``. With ``dry_run`` nothing is kept. ``activations``,
        ``encoder``: as in ``append``. Raises EncoderMismatch.
        """
        restored = Restored()
        with self.writing() as connection:
            connection.execute("SAVEPOINT restoring")
            number = namespace_number(connection, namespace, create=True)
            agreed(connection, encoder)
            for filing in batch.filings:
                self._file(connection, number, filing, reopen=False)
            for filing in batch.refiled:
                self._file(connection, number, filing, reopen=True)
            self._restore_versions(connection, number, batch.versions, activations, revive, restored)
            _restore_references(connection, number, batch, restored)
            if restored.changes or restored.links:
                restored.operation = self.logged(connection, number, why, restored.changes)
            if dry_run:
                connection.execute("ROLLBACK TO restoring")
            connection.execute("RELEASE restoring")
        return restored

    def _restore_versions(
        self,
        connection: Connection,
        number: int,
        versions: Sequence[Restorable],
        activations: Mapping[bytes, Activation] | None,
        revive: bool,
        restored: Restored,
    ) -> None:
        ids = list({id_bytes(each.id) for each in versions})
        here, gone = _here(connection, number, ids), _deleted(connection, number, ids)
        if revive:
            connection.executemany(
                "DELETE FROM tombstones WHERE namespace = ? AND id = ?", [(number, id) for id in gone]
            )
            gone.clear()
        documents = {id_bytes(each.draft.document_id) for each in versions if each.draft.document_id is not None}
        if revive:
            connection.executemany(REOPEN, [(number, id) for id in documents])
        ended = _ended(connection, number, documents)
        written: list[tuple[int, Draft]] = []
        for each in versions:
            known = here.setdefault(id_bytes(each.id), [])
            if (id_bytes(each.id) in gone and not known) or (
                not revive and _after_the_end(connection, number, each, known, ended)
            ):
                restored.deleted += 1
            elif (seq := self._placed(connection, number, each, known, ended, restored, revive)) is not None:
                written.append((seq, each.draft))
        restored.pending += self.derive(connection, number, written, activations)
        self.keep(connection, number, given(activations, (draft for _, draft in written)))
        settle(connection, number, documents, now())

    def _placed(
        self,
        connection: Connection,
        number: int,
        new: Restorable,
        known: list[_Kept],
        ended: Mapping[str, int],
        restored: Restored,
        revive: bool,
    ) -> int | None:
        """Write a version in its place among the ``known`` ones of its segment: its seq; None where it is there
        already."""
        draft, id, recorded_at = new.draft, id_bytes(new.id), microseconds(new.recorded_at)
        heard_at = None if new.heard_at in (None, new.recorded_at) else microseconds(new.heard_at)
        row = row_of(0, number, id, new.version, draft, draft.position or 0, recorded_at, heard_at)
        said = _digest([row[2:][at] for at in _SAID])
        document = None if draft.document_id is None else id_bytes(draft.document_id)
        same = _same(new, known, recorded_at, said, document)
        deleted = same is not None and same is known[-1] and new.ended_at is None and new.draft.document_id not in ended
        if revive and deleted and same is not None and same.ended_at is not None:  # it is said once more
            heard_at = microseconds(new.heard_at or new.recorded_at)
            new = replace(new, version=same.version + 1)
            recorded_at, same = after_time(same.ended_at), None
        if same is not None:
            restored.there += 1
            if new.repeats > same.repeats:
                connection.execute(
                    "UPDATE segments SET repeats = ? WHERE namespace = ? AND seq = ?", (new.repeats, number, same.seq)
                )
            return None
        if not new.counted and any(kept.recorded_at == recorded_at for kept in known):
            recorded_at = now()  # it changed since, and nobody said when
        if known and not new.dated:
            recorded_at = max(recorded_at, min(known[-1].recorded_at + 1, LAST))
        if new.counted and any(kept.version == new.version for kept in known):
            restored.conflicts.add(new.id)
        place = _standing(recorded_at, None if new.ended_at is None else microseconds(new.ended_at), said)
        at = sum(_standing(kept.recorded_at, kept.ended_at, kept.said) < place for kept in known)
        before, after = known[:at], known[at:]
        ended_at = None if new.ended_at is None else microseconds(new.ended_at)
        if after:
            ended_at = min(after[0].recorded_at, after[0].recorded_at if ended_at is None else ended_at)
        if ended_at is None and draft.document_id is not None and draft.document_id in ended:
            ended_at = max(recorded_at, ended[draft.document_id])
        least = before[-1].version + 1 if before else 1
        version = max(least, new.version)
        if after and version >= after[0].version:
            version = least
            restored.changes += _count_anew(connection, number, id, after, version + 1)
        standing = known[-1].version if known and known[-1].ended_at is None else None
        if before and (before[-1].ended_at is None or before[-1].ended_at > recorded_at):
            sql = "UPDATE segments SET ended_at = ? WHERE namespace = ? AND seq = ?"
            connection.execute(sql, (recorded_at, number, before[-1].seq))
            self.ended(connection, number, [before[-1].seq] if before[-1].ended_at is None else ())
            before[-1].ended_at = recorded_at
        # a segment that is here goes on being here, even where another one says the same by now
        for again in (draft, replace(draft, identity=_digest([draft.identity, id])))[: 2 if known else 1]:
            seq = self.next_seqs(connection, number, 1)
            row = row_of(seq, number, id, version, again, draft.position or 0, recorded_at, heard_at)
            if (found := connection.execute(RESTORE, (*row, ended_at, new.repeats)).fetchone()) is not None:
                known.insert(at, _Kept(found[0], version, recorded_at, ended_at, new.repeats, document, said))
                restored.added += 1
                restored.updated += bool(before) and ended_at is None
                restored.changes.append(Change(id, standing if ended_at is None else None, version, row[-2]))
                return int(found[0])
        (other,) = connection.execute(
            "SELECT id FROM segments WHERE namespace = ? AND identity = ? AND ended_at IS NULL",
            (number, draft.identity),
        ).fetchone()
        restored.there += 1
        restored.same[new.id] = id_text(other)
        return None

    def _file(self, connection: Connection, number: int, filing: Filing, *, reopen: bool) -> None:
        """Take over a document. Of the documents from one place the last is current, or the one to ``reopen``."""
        key, recorded_at = id_bytes(filing.id), microseconds(filing.recorded_at)
        here = connection.execute(
            "SELECT ended_at FROM documents WHERE namespace = ? AND id = ?", (number, key)
        ).fetchone()
        if here is not None and not (reopen and here[0] is not None):
            return
        ended_at = None if filing.ended_at is None else microseconds(filing.ended_at)
        if filing.uri is not None and ended_at is None:
            others = "namespace = ? AND owner = ? AND ended_at IS NULL"
            (last,) = connection.execute(
                f"SELECT max(recorded_at) FROM documents WHERE {others}", (number, filing.owner)
            ).fetchone()
            if last is not None and last > recorded_at and not reopen:
                ended_at = last
            else:
                clause = f"ended_at IS NULL AND document IN (SELECT id FROM documents WHERE {others})"
                self.end(connection, number, clause, (number, filing.owner), recorded_at)
                connection.execute(
                    f"UPDATE documents SET ended_at = ? WHERE {others}", (recorded_at, number, filing.owner)
                )
        connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (namespace, id) DO UPDATE SET ended_at = NULL",
            (key, number, filing.owner, filing.uri, filing.title, filing.media, filing.sha256, recorded_at, ended_at),
        )


def settle(connection: Connection, number: int, documents: Collection[bytes], moment: int) -> None:
    """A document is current as long as any of its segments is."""
    current = (
        "SELECT 1 FROM segments AS s WHERE s.namespace = documents.namespace AND s.document = documents.id"
        " AND s.ended_at IS NULL"
    )
    for chunk in chunks(list(documents)):
        connection.execute(
            f"UPDATE documents SET ended_at = CASE WHEN EXISTS ({current}) THEN NULL ELSE coalesce(ended_at, ?) END"
            f" WHERE namespace = ? AND id IN ({marks(chunk)})",
            (moment, number, *chunk),
        )


def stamps_of(connection: Connection, number: int, ids: Sequence[str]) -> dict[str, Stamp]:
    """As ``Archiving.stamps``, within a transaction."""
    near = " FROM edges AS e WHERE e.namespace = s.namespace AND e.{} = s.id)"
    links = ", ".join(f"(SELECT {{}}{near.format(end)}" for end in ("source", "target"))
    parts = ", ".join(
        links.replace("{}", each) for each in ("count(*)", "coalesce(sum(weight), 0.0)", "max(created_at)")
    )
    pair = " FROM verdicts AS v WHERE v.namespace = s.namespace AND v.{} = s.id)"
    parts += "".join(
        f", (SELECT {what}{pair.format(end)}" for end in ("older", "newer") for what in ("count(*)", "max(decided_at)")
    )
    said = " FROM judgements AS j WHERE j.namespace = s.namespace AND j.id = s.id)"
    sql = (
        "SELECT s.id, max(seq), max(version), count(*), count(ended_at), sum(repeats),"
        " (SELECT accesses FROM usage AS u WHERE u.namespace = s.namespace AND u.id = s.id),"
        f" (SELECT count(*){said}, (SELECT coalesce(sum(useful), 0){said}, (SELECT max(judged_at){said}, {parts}"
        " FROM segments AS s WHERE s.namespace = ? AND s.id IN ({}) GROUP BY s.namespace, s.id"
    )
    return {
        id_text(id): tuple(values)
        for chunk in chunks(ids)
        for id, *values in connection.execute(sql.format(marks(chunk)), (number, *map(id_bytes, chunk)))
    }


def _here(connection: Connection, number: int, ids: Sequence[bytes]) -> dict[bytes, list[_Kept]]:
    """The versions of these segments that are here, each in the order of their times."""
    found: dict[bytes, list[_Kept]] = {}
    for chunk in chunks(ids):
        for id, seq, version, recorded_at, ended_at, repeats, document, *said in connection.execute(
            f"SELECT id, seq, version, recorded_at, ended_at, repeats, document, {SAID} FROM segments"
            f" WHERE namespace = ? AND id IN ({marks(chunk)}) ORDER BY id, version",
            (number, *chunk),
        ):
            found.setdefault(id, []).append(
                _Kept(seq, version, recorded_at, ended_at, repeats, document, _digest(said))
            )
    return found


def _deleted(connection: Connection, number: int, ids: Sequence[bytes]) -> set[bytes]:
    return {
        id
        for chunk in chunks(ids)
        for (id,) in connection.execute(
            f"SELECT id FROM tombstones WHERE namespace = ? AND id IN ({marks(chunk)})", (number, *chunk)
        )
    }


def _ended(connection: Connection, number: int, documents: Collection[bytes]) -> dict[str, int]:
    """When those of these documents were replaced that were."""
    keys = list(documents)
    replaced = "SELECT id, ended_at FROM documents WHERE namespace = ? AND ended_at IS NOT NULL AND id IN "
    return {
        id_text(id): ended_at
        for chunk in chunks(keys)
        for id, ended_at in connection.execute(f"{replaced}({marks(chunk)})", (number, *chunk))
    }


def _after_the_end(
    connection: Connection, number: int, new: Restorable, known: Sequence[_Kept], ended: Mapping[str, int]
) -> bool:
    """Whether a segment was deleted here, which the log tells, and this version is later than all that are."""
    if not known or known[-1].ended_at is None or (new.draft.document_id or "") in ended:
        return False
    if microseconds(new.recorded_at) <= known[-1].recorded_at:
        return False
    deleted = connection.execute(
        "SELECT 1 FROM changes WHERE namespace = ? AND id = ? AND before = ? AND after IS NULL AND other IS NULL",
        (number, id_bytes(new.id), known[-1].version),
    )
    return deleted.fetchone() is not None


def _same(
    new: Restorable, known: Sequence[_Kept], recorded_at: int, said: bytes, document: bytes | None
) -> _Kept | None:
    """Which of the ``known`` versions the new one is. What another system says it may have said for longer than the
    version here was recorded; unless it is in a document that its source has again, after another one: that is new."""
    if not new.counted and document and known and (known[-1].document != document or known[-1].ended_at is not None):
        return None
    for kept in known:
        longer = not new.counted and (not new.dated or kept.recorded_at > recorded_at)
        if kept.said == said and (kept.recorded_at == recorded_at or longer):
            return kept
    return None


def _standing(recorded_at: int, ended_at: int | None, said: bytes) -> tuple[int, bool, bytes]:
    """What a version is sorted by among those of its segment: when it was recorded, or where it ended before that,
    because a clock was put back, when it ended."""
    if ended_at is not None and ended_at < recorded_at:
        return ended_at, False, said
    return recorded_at, True, said


def _count_anew(connection: Connection, number: int, id: bytes, versions: Sequence[_Kept], least: int) -> list[Change]:
    """Have these versions, in order, count from ``least`` on, no two the same."""
    changes: list[Change] = []
    for kept in versions:
        kept.version = least = max(kept.version, least)
        least += 1
    for kept in reversed(versions):
        where = "WHERE namespace = ? AND seq = ?"
        proven = list(connection.execute(f"SELECT {PROVEN} FROM segments {where}", (number, kept.seq)).fetchone())
        proven[_PLACE["version"]] = kept.version
        proof = checksum(proven)
        connection.execute(
            f"UPDATE segments SET version = ?, checksum = ? {where}", (kept.version, proof, number, kept.seq)
        )
        changes.append(Change(id, kept.version, kept.version, proof))
    return changes


THERE = "EXISTS (SELECT 1 FROM segments WHERE namespace = ?1 AND id = ?{})"
TAKING = {
    Edge: f"INSERT INTO edges SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE {THERE.format(2)} AND {THERE.format(3)}"
    " ON CONFLICT (namespace, source, kind, target) DO UPDATE"
    " SET weight = excluded.weight, created_at = excluded.created_at"
    " WHERE ?7 = 1 AND (excluded.created_at, excluded.weight) > (edges.created_at, edges.weight)",
    Judgement: f"INSERT INTO judgements SELECT ?1, ?2, ?3, ?4, ?5 WHERE {THERE.format(3)}"
    " ON CONFLICT (namespace, query, id) DO UPDATE SET"
    " useful = excluded.useful, judged_at = excluded.judged_at WHERE excluded.judged_at > judgements.judged_at",
    Verdict: f"INSERT INTO verdicts SELECT ?1, ?2, ?3, ?4, ?5 WHERE {THERE.format(2)} AND {THERE.format(3)}"
    " ON CONFLICT (namespace, older, newer) DO UPDATE SET accepted = excluded.accepted,"
    " decided_at = excluded.decided_at WHERE excluded.decided_at > verdicts.decided_at",
    Usage: f"INSERT INTO usage SELECT ?1, ?2, ?3, ?4, ?5 WHERE {THERE.format(2)}"
    " ON CONFLICT (namespace, id) DO UPDATE SET accesses = greatest(usage.accesses, excluded.accesses),"
    " accessed_at = greatest(usage.accessed_at, excluded.accessed_at),"
    " relevance = greatest(usage.relevance, excluded.relevance)",
    Tombstone: f"INSERT INTO tombstones SELECT ?1, ?2, ?3, ?4 WHERE NOT {THERE.format(2)} ON CONFLICT DO NOTHING",
}


def _restore_references(connection: Connection, number: int, batch: Taking, restored: Restored) -> None:
    """Take over what refers to segments that are here; of two statements of the same the later counts."""

    def key(id: str) -> bytes:
        return id_bytes(restored.same.get(id) or batch.same.get(id, id))

    for record in batch.references:
        values: tuple[Any, ...]
        match record:
            case Edge():
                values = (key(record.source), key(record.target), record.kind, record.weight)
            case Judgement():
                values = (record.query, key(record.id), int(record.useful))
            case Verdict():
                values = (key(record.older), key(record.newer), int(record.accepted))
            case Usage():
                values = (key(record.id), record.times, microseconds(record.at), record.relevance)
            case Tombstone():
                values = (key(record.id), record.version)
        if not isinstance(record, Usage):
            values += (now() if record.at is None else microseconds(record.at),)
        if isinstance(record, Edge):  # what somebody states now, and not then, is no news of a link that is here
            values += (int(record.at is not None),)
        done = connection.execute(TAKING[type(record)], (number, *values)).rowcount
        restored.links += isinstance(record, Edge) and done > 0


def _digest(values: Sequence[Any]) -> bytes:
    return sha256(repr(tuple(values)).encode()).digest()[:16]
