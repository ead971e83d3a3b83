"""``Erasing``: the part of ``Memory`` by which what it holds goes for good, and by which that is proven.

The rows go in one transaction. What no transaction reaches is scrubbed after it, and what cannot be scrubbed at once
stays due: ``memspan.scrubbing``. The proof looks for the content itself in the raw files: ``memspan.traces``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from memspan import arguments, traces
from memspan.activations.tokens import Activation
from memspan.archives import cube, jsonl
from memspan.drafting import content_key, identity_of
from memspan.errors import InvalidInput, NotFound
from memspan.filtering import parse_filter
from memspan.ledger.base import cites, encoded_text
from memspan.ledger.rows import id_bytes
from memspan.records import Filter, Scope, Segment, Version
from memspan.reports import Erased, Receipt, Trace
from memspan.revising import Revising, named
from memspan.scrubbing import archived, cubes, headers, records, remaining
from memspan.segmenting import shown
from memspan.views.base import Progress

COMPARED = 512  # texts that are encoded again to look for their vectors
BATCH = 8_192


class Erasing(Revising):
    """An open store from which things go for good."""

    def erase(
        self,
        id: str | Sequence[str] | None = None,
        *,
        namespace: str | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session: str | None = None,
        filters: Mapping[str, Any] | None = None,
        vacuum: bool = False,
        verify: bool = False,
        progress: Progress | None = None,
    ) -> Erased:
        """Remove segments for good, those named or everything in a scope: every version with its text, history, links,
        feedback, vectors, token matrices and index entries, what was derived from it, and what of it lies in archives
        that ``prune`` made in the store. What is left is a tombstone without content; ``undo`` cannot bring it back.

        ``vacuum`` writes the database anew, so that its free space holds nothing of it either: that takes as long as
        copying it. ``verify`` looks through all files afterwards, as ``verify_erasure`` does, for all that was removed.
        Raises InvalidInput when neither ids nor a scope is said.
        """
        scope = self._scope(namespace, user_id, agent_id, run_id, session)
        arguments.flags(vacuum=vacuum, verify=verify)
        arguments.progress(progress)
        ids, parsed = None if id is None else arguments.ids(id), parse_filter(filters)
        if ids is None:
            named(scope, namespace, filters, "erase")
        away = self._archived(scope, parsed, ids)
        content = self._content(scope, parsed, ids, away) if verify else []
        before = self._ledger.due()
        if ids is None:
            gone = self._ledger.erase_scope(scope, parsed, archived=sorted(away), vacuum=vacuum)
        else:
            gone = self._ledger.erase(scope.namespace, ids, archived=sorted(away), vacuum=vacuum)
        own = {scope.namespace: gone.first} if gone.first is not None else {}
        scrubbed = self._scrub(own if before is None else None, wait=True)
        return Erased(
            namespace=scope.namespace,
            segments=gone.segments + len(away),
            versions=gone.versions,
            derived=gone.derived,
            archived=len(away),
            operation=gone.operation,
            rewritten=tuple(scrubbed.rewritten),
            vacuumed=vacuum and not scrubbed.due,
            due=tuple(scrubbed.due),
            receipt=self.verify_erasure(content, operation=gone.operation, namespace=scope.namespace, progress=progress)
            if verify
            else None,
        )

    def verify_erasure(
        self,
        erased: str | Segment | Iterable[str | Segment],
        *,
        operation: str | None = None,
        namespace: str | None = None,
        progress: Progress | None = None,
    ) -> Receipt:
        """Look for what was erased, which the caller has kept, in the raw bytes of every file of the store, or of every
        table where it is in a database.

        ``erased``: texts, or segments as they were; of those also metadata, categories and names are looked for. Found
        is a text or a part of it of some 100 characters, a word of 6 bytes or more, a term or a name it was indexed by,
        in any case, as UTF-8, UTF-16 or escaped; hashes of them, in indexes; its vector and its token matrix, where the
        encoder is there and it is among the first 512 texts; and any row that an index or an arena holds and the ledger
        does not. What something says that is still stored is no trace. ``operation``: what erased it, for the receipt.
        Nothing of what is given is kept. Raises InvalidInput, NotFound.
        """
        scope = self._scope(namespace, None, None, None, None)
        arguments.progress(progress)
        given = _given(erased)
        told = None if operation is None else self._ledger.operation(scope.namespace, operation)[0]
        head = self._ledger.log_head()
        encoded = list(dict.fromkeys(each.encoded for each in given))[:COMPARED]
        activations: dict[str, Activation] = {}
        if encoded and self._encoder is not None:
            activations = dict(zip(encoded, self._projection.activate(encoded), strict=True))
        wanted = traces.needles(given, activations)
        directory = self.path
        files = () if directory is None else traces.files(directory, progress)
        looked = traces.look(chain(files, self._ledger.contents()), wanted)
        alike = lambda text: self._ledger.keeps(activations[text])  # noqa: E731
        found = traces.unsaid(looked.found, self._said(), self._encoded, alike)
        if directory is not None:
            found += [Trace(file=file, offset=0, what="index") for file in remaining(self._ledger, directory)]
            found += [
                Trace(file=Path(file).relative_to(directory).as_posix(), offset=offset, what="tokens")
                for file, offset in self._ledger.unaccounted()
            ]
        return Receipt(
            path=self.where,
            checked_at=datetime.now(UTC),
            operation=told,
            log_entries=head["entries"],
            log_hash=head["hash"],
            texts=len(given),
            needles=len(wanted),
            vectors=bool(activations),
            files=tuple(looked.files),
            bytes=looked.bytes,
            found=tuple(found),
        )

    def _archived(self, scope: Scope, filters: Filter | None, ids: Sequence[str] | None) -> dict[str, list[Segment]]:
        """The versions of segments that are meant and lie in archives in the store, but not in it."""
        asked = {str(uuid.UUID(bytes=raw)) for id in ids or () if (raw := id_bytes(id))}
        found: dict[str, list[Segment]] = {}
        for file in cubes(self.path):
            if cube.inspect(file).namespace != scope.namespace:
                continue
            versions = [record.segment for record in records(file) if isinstance(record, Version)]
            meant = _inside(file, scope, filters) if ids is None else asked
            for segment in versions:
                if segment.id in meant:
                    found.setdefault(segment.id, []).append(segment)
        there = self._ledger.versions(scope.namespace, list(found))
        return {id: versions for id, versions in found.items() if id not in there}

    def _content(
        self, scope: Scope, filters: Filter | None, ids: Sequence[str] | None, away: Mapping[str, Sequence[Segment]]
    ) -> list[str | Segment]:
        """All that is about to go, and the titles of documents of which no part stays."""
        with self._ledger.reading():
            if ids is None:
                seqs = self._ledger.archive(scope, filters, history=True)
                ids = sorted(self._ledger.named(scope.namespace, seqs.tolist())[0])
            ids = sorted({*ids, *self._ledger.derived(scope.namespace, {*ids, *away})})
            rows = [row for versions in self._ledger.versions(scope.namespace, ids).values() for row in versions]
            content: list[str | Segment] = [*rows, *(row for versions in away.values() for row in versions)]
            for id in dict.fromkeys(row.document_id for row in rows if row.document_id is not None):
                with suppress(NotFound):  # it was read again since
                    document = self._ledger.document(scope.namespace, id)
                    content += [each for each in (document.title, document.uri) if each]
        return content

    def _said(self) -> Iterator[str]:
        yield from self._ledger.said()
        if self.path is not None:
            yield from headers(self.path)
            for record in archived(self._ledger, self.path):
                yield jsonl.line_of(record).decode()

    def _encoded(self) -> Iterator[str]:
        for namespace in self._ledger.namespaces():
            after = 0
            while rows := self._ledger.texts(namespace, after, 2**62, BATCH):
                for row in rows:
                    yield row.encoded_text
                    yield row.analysed_text
                after = rows[-1].seq
        if self.path is not None:
            for record in archived(self._ledger, self.path):
                if isinstance(record, Version):
                    yield _encoded(record.segment)


def _given(erased: object) -> list[traces.Erasable]:
    """What to look for. Raises InvalidInput."""
    several = [erased] if isinstance(erased, (str, Segment)) else erased
    if not isinstance(several, Iterable) or isinstance(several, (bytes, bytearray, Mapping)):
        mend = "give the texts, or the segments, that were erased"
        raise InvalidInput("erased", f"{shown(erased)} is no text and no segment", mend=mend)
    found: list[traces.Erasable] = []
    for each in several:
        if isinstance(each, Segment):
            encoded = _encoded(each)
            found.append(traces.Erasable(each.text, encoded, (content_key(encoded), identity_of(each))))
            beside = (each.speaker, *each.heading, *each.category, *_texts(each.metadata))
            sources = set(cites(each.metadata))  # ids, of which parts are those of others made in the same minute
            found += [traces.Erasable(text, text) for text in beside if text and text not in sources]
        elif isinstance(each, str):
            found.append(traces.Erasable(each, each, (content_key(each),)))
        else:
            mend = "give the texts, or the segments, that were erased"
            raise InvalidInput("erased", f"{shown(each)} is no text and no segment", mend=mend)
    return found


def _encoded(segment: Segment) -> str:
    return encoded_text(segment.text, segment.speaker, segment.heading)


def _texts(value: Any) -> Iterator[str]:
    """The texts among JSON values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _inside(file: Path, scope: Scope, filters: Filter | None) -> set[str]:
    """The ids of the segments in an archive that are in ``scope`` and pass ``filters``."""
    with Erasing(":memory:", encoder=None) as held:
        held.import_from(file, "cube", namespace=scope.namespace, vectors=False)
        seqs = held._ledger.archive(scope, filters, history=True)
        return held._ledger.named(scope.namespace, seqs.tolist())[0]
