"""An archive into a namespace: read as a stream, written in batches, each whole or not at all.

What an archive of memspan's own holds keeps its ids and times; what another system kept gets ids that follow from the
keys it has there. So an import that was interrupted is run again and goes on, and one that is run twice adds nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from memspan import archives, arguments
from memspan.activations.tokens import LATER, Activation
from memspan.archives.base import Header, Item, Record, Tie, Vectors, attempt
from memspan.drafting import Batch, Common, draft_of, hashed, identity_of, uuid8
from memspan.errors import InvalidInput
from memspan.ledger.base import (
    IMPORT,
    Ledger,
    Reference,
    Restorable,
    Taking,
    Why,
    encoded_text,
    instant,
    microseconds,
)
from memspan.projection import Projection
from memspan.records import Draft, Edge, Filing, Judgement, Message, Piece, Scope, Version
from memspan.redaction import Redactor, redacted
from memspan.reports import Imported, Problem
from memspan.segmenting import check_text, parse_time
from memspan.views.base import Progress

BATCH = 512  # records in one transaction
MOST_PROBLEMS = 1_000  # told one by one
COMPARED = 8  # texts encoded to see whether the vectors of an archive are those of the store's encoder
ALIKE = 0.98  # cosine from which they are: quantised models differ a little from processor to processor


@dataclass(slots=True)
class _Gathered:
    """What the next transaction takes over, with activations by content, and the texts they are of."""

    filings: list[Filing] = field(default_factory=list)
    refiled: list[Filing] = field(default_factory=list)
    versions: list[Restorable] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    activations: dict[bytes, Activation] = field(default_factory=dict)
    texts: dict[bytes, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.filings) + len(self.refiled) + len(self.versions) + len(self.references)


class Import:
    """One archive at ``path``, to be taken into ``scope`` of a ledger; what names a user, an agent, a run or a session
    there counts before what ``scope`` names, and an archive of memspan's own keeps them all.

    ``cut`` cuts texts into pieces. ``signed_by``: the public key, in hexadecimal, that must have signed it.
    ``vectors`` False: every text is encoded here. ``redactor`` replaces what must not be stored.
    """

    def __init__(
        self,
        ledger: Ledger,
        projection: Projection,
        path: Path,
        format: archives.Format,
        scope: Scope,
        cut: Callable[[str, str], list[Piece]],
        signed_by: str | None,
        vectors: bool = True,
        redactor: Redactor | None = None,
    ) -> None:
        self._ledger = ledger
        self._projection = projection
        self._path = path
        self._format = format
        self._scope = scope
        self._cut = cut
        self._required = signed_by
        self._believing = vectors
        self._redactor = redactor
        self._moment = instant(microseconds(datetime.now(UTC)))
        self._begin()

    def _begin(self) -> None:
        self._header: Header | None = None
        self._vectors: Vectors | None = None
        self._compared = False
        self._failed = 0
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._said: Scope | None = None
        self._seen: Counter[bytes] = Counter()
        self._turns: Counter[Scope] = Counter()

    def check(self, progress: Progress | None) -> None:
        """Read all of it and write nothing. Raises InvalidInput naming the first thing that cannot be taken over."""
        read = 0
        for gathered in self._batches():
            read += len(gathered.versions)
            if self._problems:
                first = self._problems[0]
                mend = "nothing was imported; correct it, or import without strict to leave such records out"
                raise InvalidInput("path", f"{first.where}: {first.problem}", mend=mend)
            if progress is not None:
                progress(read, 0, "checking")
        self._begin()

    def run(self, *, revive: bool, dry_run: bool, progress: Progress | None, why: Why = IMPORT) -> Imported:
        """Take it over, as one operation.

        Raises InvalidInput, MissingExtra, StoreError; what was written until then is whole.
        """
        done = Imported(path=str(self._path), format=self._format.name, dry_run=dry_run)
        same: dict[str, str] = {}
        conflicts: set[str] = set()
        try:
            for gathered in self._batches():
                self._compare(gathered)
                given = {} if dry_run else gathered.activations
                restored = self._ledger.restore(
                    self._scope.namespace,
                    Taking(
                        filings=gathered.filings,
                        refiled=gathered.refiled,
                        versions=gathered.versions,
                        references=gathered.references,
                        same=same,
                    ),
                    None if self._projection.recorded == "null" else given,
                    self._projection.recorded,
                    revive=revive,
                    dry_run=dry_run,
                    why=replace(why, operation=done.operation),
                )
                same.update(restored.same)
                conflicts |= restored.conflicts
                done = replace(
                    done,
                    read=done.read + len(gathered.versions),
                    added=done.added + restored.added,
                    updated=done.updated + restored.updated,
                    there=done.there + restored.there,
                    deleted=done.deleted + restored.deleted,
                    links=done.links + restored.links,
                    vectors=done.vectors + len(gathered.activations),
                    operation=None if dry_run else restored.operation or done.operation,
                )
                if progress is not None:
                    progress(done.read, 0, "importing")
        finally:  # once, and not for each batch: views that fold what is new meanwhile would take half the time
            if not dry_run:
                self._projection.written(self._scope.namespace, done.added, pending=0)
        return replace(
            done,
            conflicts=tuple(sorted(conflicts)),
            failed=self._failed,
            problems=tuple(self._problems),
            notes=tuple(self._notes),
            signed_by=None if self._header is None else self._header.signed_by,
        )

    def _report(self, problem: Problem) -> None:
        self._failed += 1
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(problem)

    # Vectors

    def _expect(self) -> None:
        """Look whether the vectors of the archive are said to come from the store's encoder."""
        about = None if self._header is None or not self._believing else self._header.vectors
        self._vectors = about
        if about is None:
            return
        own = json.loads(self._projection.recorded)
        if own is None or (about.encoder, about.dim) != (own["id"], own["dim"]):
            self._vectors = None
            here = "has no encoder" if own is None else f"has the encoder {own['id']!r}"
            self._notes.append(f"its vectors are of {about.encoder!r} and the store {here}: they were not used")
        elif (about.tokens, about.basis) != (own.get("tokens", "none"), own.get("basis")):
            self._vectors = replace(about, tokens="none")

    def _compare(self, gathered: _Gathered) -> None:
        """Look, once, whether the vectors are what the encoder makes of some of these texts; if not, use none."""
        if self._projection.encoder is not None and gathered.activations and not self._compared:
            self._compared = True
            some = list(gathered.activations)[:COMPARED]
            made = self._projection.activations(
                self._scope.namespace, {content: gathered.texts[content] for content in some}
            )
            if any(_cosine(each, gathered.activations[content]) < ALIKE for content, each in made.items()):
                self._vectors = None
                self._notes.append("its vectors are not what the encoder makes of its texts: they were not used")
        if self._vectors is None:
            gathered.activations.clear()

    # Reading

    def _batches(self) -> Iterator[_Gathered]:
        gathered = _Gathered()
        for record in archives.reading(self._format, self._path, self._report):
            if isinstance(record, Header):
                self._header = record
                self._expect()
                continue
            self._signed()
            self._gather(record, gathered)
            if len(gathered) >= BATCH:
                yield gathered
                gathered = _Gathered()
        self._signed()
        yield gathered

    def _signed(self) -> None:
        by = None if self._header is None else self._header.signed_by
        if self._required not in (None, by):
            problem = f"{self._path} was signed by {by or 'nobody'}, not by {self._required}"
            raise InvalidInput("signed_by", problem, mend="do not trust it; nothing was imported")

    def _gather(self, record: Record, gathered: _Gathered) -> None:
        match record:
            case Version():
                self._version(record, gathered)
            case Item():
                with attempt(self._report, f"{self._path.name}[{record.key}]"):
                    self._item(record, gathered)
            case Tie():
                ends = self._id(record.source, 0), self._id(record.target, 0)
                with attempt(self._report, f"{self._path.name}[{record.source}]"):
                    kind, weight = arguments.relation(record.kind), arguments.weight(record.weight)
                    gathered.references.append(Edge(source=ends[0], target=ends[1], kind=kind, weight=weight))
            case Filing():
                gathered.filings.append(replace(record, title=record.title and redacted(record.title, self._redactor)))
            case Judgement():
                gathered.references.append(replace(record, query=redacted(record.query, self._redactor)))
            case Header():
                pass
            case _:
                gathered.references.append(record)

    def _version(self, version: Version, gathered: _Gathered) -> None:
        version = self._admitted(version)
        segment = version.segment
        draft = draft_of(segment, version.identity or identity_of(segment))
        if (believed := self._activation(version)) is not None:
            # kept apart from what the store's encoder makes of the same text, here and in other namespaces: nobody
            # else shall search by a vector that an archive brought
            draft = replace(draft, content=hashed("memspan archive", self._scope.namespace, draft.content))
            gathered.activations[draft.content] = believed
            gathered.texts[draft.content] = encoded_text(segment.text, segment.speaker, segment.heading)
        gathered.versions.append(
            Restorable(
                id=segment.id,
                draft=draft,
                version=segment.version,
                recorded_at=segment.recorded_at,
                heard_at=segment.heard_at,
                ended_at=segment.ended_at,
                repeats=segment.repeats,
            )
        )

    def _admitted(self, version: Version) -> Version:
        """A version as it may be stored. Where that is another text, neither its vector nor a hash of the first is."""
        old = version.segment
        text, *heading = (redacted(each, self._redactor) for each in (old.text, *old.heading))
        if (text, tuple(heading)) == (old.text, tuple(old.heading)):
            return version
        new = replace(old, text=text, heading=tuple(heading))
        identity = hashed("memspan redacted", identity_of(new).hex(), new.id) if version.identity else b""
        return replace(version, segment=new, identity=identity, pooled=None, tokens=None)

    def _activation(self, version: Version) -> Activation | None:
        """What the archive has of a version in place of what the store's encoder would make, where that can be used."""
        about = self._vectors
        if about is None or version.pooled is None or not version.pooled.any():
            return None
        if version.pooled.shape != (about.dim,) or not np.isfinite(version.pooled).all():
            where = f"{self._path.name}[{version.segment.id}]"
            problem = "its vector has another length or is not finite, and was not used"
            self._report(Problem(where=where, problem=problem))
            return None
        codec = self._projection.codec
        tokens = version.tokens if about.tokens != "none" else None
        if codec is not None and (tokens is None or len(tokens) % codec.width):
            tokens = LATER  # they are made here
        return Activation(version.pooled.astype(np.float16), tokens)

    def _item(self, item: Item, gathered: _Gathered) -> None:
        """What another system kept, as the first version of one segment or several."""
        scope = Scope(
            namespace=self._scope.namespace,
            user_id=arguments.name("user_id", item.user_id) or self._scope.user_id,
            agent_id=arguments.name("agent_id", item.agent_id) or self._scope.agent_id,
            run_id=arguments.name("run_id", item.run_id) or self._scope.run_id,
            session=arguments.name("session", item.session) or self._scope.session,
        )
        if scope != self._said:  # equal turns are told apart within one conversation, so that memory stays bounded
            self._said = scope
            self._seen.clear()
        common = Common(
            scope=scope,
            category=arguments.category(item.category),
            importance=arguments.importance(item.importance),
            metadata=arguments.metadata(item.metadata),
            occurred_at=parse_time(item.occurred_at, "occurred_at"),
            expires_at=parse_time(item.expires_at, "expires_at"),
            source=None if item.source is None else arguments.source(item.source),
        )
        recorded_at = parse_time(item.recorded_at, "recorded_at")
        batch = Batch(lambda text, media: self._pieces(item, text, media), common, self._seen, self._redactor)
        text = check_text(item.text, "text")
        if item.role is not None or item.speaker is not None:
            turn = Message(
                content=text,
                role=arguments.name("role", item.role) or "user",
                name=arguments.name("speaker", item.speaker),
                time=common.occurred_at,
            )
            batch.message(turn, "item")
        elif item.uri is not None or item.media != "text":
            title = None if item.title is None else redacted(item.title, self._redactor)
            if text := batch.admitted(text):
                batch.document(text, item.media, batch.claim(text, item.media, uri=item.uri, title=title))
        else:
            batch.text(text)
        for document in batch.documents:
            values = {name: getattr(document, name) for name in document.__dataclass_fields__}
            gathered.refiled.append(Filing(**values, recorded_at=recorded_at or self._moment))
        for number, draft in enumerate(batch.drafts):
            gathered.versions.append(
                Restorable(
                    id=self._id(item.key, number),
                    draft=replace(draft, position=self._position(draft)),
                    recorded_at=recorded_at or self._moment,
                    dated=recorded_at is not None,
                    counted=False,
                )
            )

    def _pieces(self, item: Item, text: str, media: str) -> list[Piece]:
        pieces = self._cut(text, media)
        if not item.heading:
            return pieces
        return [replace(piece, heading=(*item.heading, *piece.heading)) for piece in pieces]

    def _position(self, draft: Draft) -> int:
        """Its own in its document, or the next of its session."""
        if draft.position is not None:
            return draft.position
        self._turns[draft.scope] += 1
        return self._turns[draft.scope] - 1

    def _id(self, key: str, number: int) -> str:
        """The id of a piece of what has this key there."""
        return str(uuid8(hashed("memspan import", self._format.name, key, number)))


def _cosine(a: Activation, b: Activation) -> float:
    one, other = a.pooled.astype(np.float32), b.pooled.astype(np.float32)
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))
