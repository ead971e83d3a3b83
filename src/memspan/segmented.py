"""``Segmented``: a ``Memory`` whose segments may be of any length: each is a session of it, made of pieces that fit the
encoder, and is found by its best piece."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.activations.tokens import LATER, Activation
from memspan.archives.dsm import UNSORTED, CategoryPath, MemorySegment, PriorityVector, Stored
from memspan.channels import Question
from memspan.drafting import Batch, Common
from memspan.encoders.base import Encoder
from memspan.filtering import parse_filter
from memspan.ledger.base import Use, instant
from memspan.memory import Memory
from memspan.recipes import RECIPES
from memspan.records import NOTHING, Added, Hit, Message, Query, Segment
from memspan.retrieval import hit_of
from memspan.segmenting import Tokenizer, check_text, parse_time, summary

USER = "dsm"  # whose memory it is in the engine
TEXT, ABOUT = "user", "system"  # roles of a segment's pieces: of its text, and of a description somebody gave
MOST_PIECES = 100_000
NEAREST = (16, 128, 1_024)  # pieces looked at for a write, however large the store is: more where few segments own them
DEPTH = 8  # pieces looked at for each segment that is asked for, and so many times more where few segments own them
PAGE = 64
FADED = 2.5  # decays of this much in all leave no recency and no relevance
MOST_DECAYS = 1_000
TOLD_WORDS = 12  # words from which a description that begins like the text says nothing more than that

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a write says of its text; ``category`` is None where it does not say."""

    description: str | None = None
    category: CategoryPath | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    importance: float = 0.5


@dataclass(frozen=True, slots=True)
class Used:
    """How a segment was used; decays until ``at`` are counted in its priorities."""

    priorities: PriorityVector
    last_accessed_at: float
    access_count: int
    at: float = 0.0


class Near(NamedTuple):
    """A segment near to a text, by its nearest piece."""

    id: str
    piece: str
    cosine: float
    category: CategoryPath


class Segmented(Memory):
    """A ``Memory`` of segments that are made of pieces.

    ``uses``: how segments were used, as far as this process knows better than the ledger. ``told``: what a file said of
    segments that the ledger has no place for.
    """

    def __init__(self, path: str | os.PathLike[str], *, encoder: str | Encoder | None) -> None:
        super().__init__(path, encoder=encoder)
        self.uses: dict[str, Used] = {}
        self.told: dict[str, dict[str, Any]] = {}

    @property
    def model(self) -> Encoder | None:
        return self._encoder

    @property
    def dim(self) -> int:
        return 0 if self._encoder is None else self._encoder.dim

    @property
    def counter(self) -> Tokenizer:
        return self._tokenizer

    # Writing

    def draft(self, id: str, text: str, about: About, created_at: float | None = None) -> Batch:
        """The pieces of a text of segment ``id``, after those of its description; the first one has the metadata."""
        common = Common(
            scope=self._scope(None, USER, None, None, id),
            category=about.category or (),
            importance=about.importance,
            metadata=about.metadata,
            occurred_at=parse_time(created_at, "created_at"),
        )
        batch = self._batch(common)
        if about.description is not None:
            batch.message(Message(content=about.description, role=ABOUT), "description")
        batch.message(Message(content=self._admitted(check_text(text, "text"), "text"), role=TEXT), "text")
        batch.drafts[1:] = [replace(draft, metadata=NOTHING) for draft in batch.drafts[1:]]
        return batch

    def encoded(self, batch: Batch) -> dict[bytes, Activation]:
        """Activations by content; none while the encoder fails, which the background worker reports and tries again."""
        with suppress(Exception):
            return dict(zip(batch.texts, self._projection.activate(list(batch.texts.values())), strict=True))
        return {}

    def vector(self, text: str) -> Vectors:
        """float32[dim] of a text, zeros while the encoder fails."""
        with suppress(Exception):
            return np.asarray(self._projection.encode([text]).pooled[0])
        return np.zeros(self.dim, np.float32)

    def remember(self, batches: Sequence[Batch], activations: Mapping[bytes, Activation]) -> Added:
        """Write drafts with their activations in one transaction; what has none waits for the encoder."""
        added = self._ledger.append(
            self.namespace,
            [draft for batch in batches for draft in batch.drafts],
            documents=[document for batch in batches for document in batch.documents],
            activations=None if self._recorded == "null" else activations,
            encoder=self._recorded,
        )
        unfinished = added.pending + sum(each.tokens == LATER for each in activations.values())
        self._projection.written(self.namespace, added.added, pending=unfinished)
        return added

    def describe(self, id: str, pieces: Sequence[Segment], about: About) -> None:
        """Call a segment what ``about`` says; what it was called before stays in the history."""
        called = [piece for piece in pieces if piece.role == ABOUT]
        if about.description is None or parts(called)[-1:] == [about.description]:
            return
        if len(called) == 1 and len(self._cut(about.description, "text")) == 1:
            self.update(called[0].id, about.description)
            return
        batch = self.draft(id, text_of(pieces), about)
        batch.drafts = [draft for draft in batch.drafts if draft.role == ABOUT]
        batch.texts = {draft.content: batch.texts[draft.content] for draft in batch.drafts}
        kept = {draft.document_id for draft in batch.drafts}
        batch.documents = [document for document in batch.documents if document.id in kept]
        self.remember([batch], self.encoded(batch))

    def repeated(self, head: Segment, similarity: float) -> None:
        """Note that a text so near to a segment was written again."""
        self._ledger.used(self.namespace, {head.id: Use(times=0, at=datetime.now(UTC), relevance=similarity)})

    def decay(self, amount: float) -> None:
        """Note a decay in the store; it is counted where a segment is read."""

        def more(known: str | None) -> str:
            decays = [*json.loads(known or "[]"), (time.time(), amount)]
            total = 0.0
            for start in reversed(range(len(decays))):
                total += decays[start][1]
                if total >= FADED:  # nothing is left that one before could fade
                    decays = decays[start:]
                    break
            if len(decays) > MOST_DECAYS:
                first, second, *rest = decays
                decays = [(second[0], first[1] + second[1]), *rest]
            return json.dumps(decays)

        self._ledger.change_value("dsm_decays", more)

    def take_over(self, stored: Stored) -> None:
        """Write what a file holds, with the file's own vectors where they are those of this encoder."""
        batches = []
        for segment in stored.segments:
            about = About(
                description=None if _says_no_more(segment.description, segment.text) else segment.description,
                category=() if segment.category_path == UNSORTED else segment.category_path,
                metadata=segment.metadata,
                importance=segment.priorities.importance,
            )
            batches.append(self.draft(segment.id, segment.text, about, segment.created_at))
        added = self.remember(batches, self._given(stored, batches))
        self._projection.settle(self.namespace)
        ids = iter(added.ids)
        heads = {}
        for segment, batch in zip(stored.segments, batches, strict=True):
            heads[segment.id], *_ = islice(ids, len(batch.drafts))
            self.uses[segment.id] = Used(segment.priorities, segment.last_accessed_at, segment.access_count)
            self.told[segment.id] = {
                "description": segment.description,
                "created_at": segment.created_at,
                "updated_at": segment.updated_at,
            }
        for a, b in stored.edges:
            self.link(heads[a], heads[b])
        uses = {
            heads[segment.id]: Use(
                times=segment.access_count,
                at=instant(round(segment.last_accessed_at * 1e6)),
                relevance=segment.priorities.relevance,
            )
            for segment in stored.segments
            if segment.access_count
        }
        self._ledger.used(self.namespace, uses)

    def _given(self, stored: Stored, batches: Sequence[Batch]) -> dict[bytes, Activation]:
        """The vectors of a file for texts of one piece; none unless the encoder makes the same of some of them. What it
        makes of their tokens comes later."""
        given: dict[bytes, Vectors] = {}
        texts: dict[bytes, str] = {}
        for segment, batch in zip(stored.segments, batches, strict=True):
            said = [draft.content for draft in batch.drafts if draft.role == TEXT]
            vector = np.array(segment.embedding, np.float32)
            length = float(np.linalg.norm(vector))
            if len(said) == 1 and self.dim and len(vector) == self.dim and length > 1e-6:
                given[said[0]] = vector if abs(length - 1) < 0.01 else vector / length  # or rounding would add up
                texts[said[0]] = batch.texts[said[0]]
        tried = list(texts)[:: max(1, len(texts) // 4)]
        if any(float(self.vector(texts[key]) @ given[key]) <= 0.999 for key in tried):
            return {}
        tokens = None if self._projection.codec is None else LATER
        return {content: Activation(vector.astype(np.float16), tokens) for content, vector in given.items()}

    # Reading

    def near(self, vector: Vectors, segments: int, full: Callable[[str], bool] = lambda id: False) -> list[Near]:
        """The segments nearest to a vector by their nearest pieces, nearest first; it does not count as a use.

        At least so many ``segments`` that are not ``full``, where there are, unless a thousand pieces are all of fewer.
        """
        selection = self._selections.of(self._scope(None, USER, None, None, None))
        found: dict[str, Near] = {}
        for k in NEAREST:
            ranked = self._retrieval.rank(Question("", (), vector), RECIPES["semantic"], selection, k)
            seqs = ranked.seqs[:k].tolist()
            rows = {row.seq: row for row in self._ledger.fetch(self.namespace, seqs)}
            for seq, cosine in zip(seqs, ranked.features.get("semantic", ()), strict=False):
                if (row := rows.get(seq)) is not None and not math.isnan(cosine):
                    id = str(row.session)
                    found.setdefault(id, Near(id, row.id, float(cosine), row.category))
            if sum(not full(id) for id in found) >= segments or len(seqs) < k:
                break
        return list(found.values())

    def answers(self, query: str, k: int, recipe: str, floor: float) -> list[Hit]:
        """The best piece of each of the ``k`` segments that answer ``query`` best, with its channels, best first.

        A piece whose cosine with ``query`` is below ``floor`` is no answer. What is returned counts as used, once.
        """
        scope = self._scope(None, USER, None, None, None)
        best: dict[str, Hit] = {}
        depth = DEPTH * k
        while True:
            ranked = self._retrieval.ranked(Query(text=query, scope=scope, k=depth, recipe=recipe))
            for start in range(0, len(ranked.seqs), PAGE):
                page = ranked.seqs[start : start + PAGE].tolist()
                rows = {row.seq: row for row in self._ledger.fetch(self.namespace, page)}
                for at, seq in enumerate(page, start):
                    if len(best) == k or seq not in rows or str(rows[seq].session) in best:
                        continue
                    channels = ranked.parts(at)
                    if channels.get("semantic", 0.0) >= floor:
                        hit = hit_of(rows[seq], float(ranked.scores[at]))
                        best[str(hit.session)] = replace(hit, channels=channels)
                if len(best) == k:
                    break
            if len(best) == k or len(ranked.seqs) < depth:
                break
            depth *= DEPTH
        self._projection.used(self.namespace, list(best.values()))
        return list(best.values())

    def pieces(self, id: str) -> list[Segment]:
        """The pieces of a segment in their order; none when there is no such segment."""
        rows = self.get_all(user_id=USER, session=id, limit=MOST_PIECES)
        return sorted(rows, key=lambda row: row.position)

    def groups(self) -> dict[str, list[Segment]]:
        """Every segment's pieces, oldest segment first."""
        seqs = self._selections.of(self._scope(None, USER, None, None, None)).seqs
        groups: dict[str, list[Segment]] = {}
        for row in sorted(self._ledger.fetch(self.namespace, seqs.tolist()), key=lambda row: row.position):
            groups.setdefault(str(row.session), []).append(row)
        return dict(sorted(groups.items(), key=lambda group: group[1][0].id))  # ids rise, seqs change with the version

    def heads(self) -> list[int]:
        """The seq of the first piece of each segment."""
        first = parse_filter({"position": 0})
        seqs: list[int] = self._selections.of(self._scope(None, USER, None, None, None), first).seqs.tolist()
        return seqs

    def ids(self) -> list[str]:
        """Every segment's id, oldest first."""
        rows = self._ledger.fetch(self.namespace, self.heads())
        return [str(row.session) for row in sorted(rows, key=lambda row: row.id)]

    def vectors(self, pieces: Sequence[Segment]) -> Vectors:
        """float32[n, dim]: the vectors of a segment's text, as far as they are there."""
        return self._ledger.vectors_of(self.namespace, [piece.seq for piece in pieces if piece.role == TEXT])[1]

    def segment(self, id: str, pieces: Sequence[Segment]) -> MemorySegment:
        """A segment from its pieces."""
        head, text, vectors, used = pieces[0], text_of(pieces), self.vectors(pieces), self.used({id: pieces})[id]
        described = parts([piece for piece in pieces if piece.role == ABOUT])
        values: dict[str, Any] = {
            "description": described[-1] if described else summary(text),
            "created_at": self._first(head),
            "updated_at": max(piece.recorded_at for piece in pieces).timestamp(),
        }
        return MemorySegment(
            id=id,
            text=text,
            category_path=head.category or UNSORTED,
            embedding=tuple(mean(vectors).tolist()) if len(vectors) else (),
            links=frozenset(self.links({id: pieces})[id]),
            priorities=used.priorities,
            last_accessed_at=used.last_accessed_at,
            access_count=used.access_count,
            metadata=head.metadata,
            **(values | self.told.get(id, {})),
        )

    def used(self, groups: Mapping[str, Sequence[Segment]]) -> dict[str, Used]:
        """How segments were used: as this process knows it, else as the ledger does, faded by the decays since."""
        decays: list[tuple[float, float]] = json.loads(self._ledger.value("dsm_decays") or "[]")
        until = decays[-1][0] if decays else 0.0
        unknown = {id: pieces for id, pieces in groups.items() if id not in self.uses}
        known = self._ledger.standing(self.namespace, [piece.seq for pieces in unknown.values() for piece in pieces])
        found = {id: self.uses[id] for id in groups if id in self.uses}
        start = 0
        for id, pieces in unknown.items():
            of = slice(start, start + len(pieces))
            start += len(pieces)
            count, accessed = int(known.accesses[of].sum()), float(known.accessed_at[of].max()) / 1e6
            accessed = accessed or self._first(pieces[0])
            priorities = PriorityVector(relevance=float(known.relevance[of].max()), frequency=min(1.0, 0.08 * count))
            found[id] = Used(priorities, accessed, count, at=accessed)
        for id, use in found.items():
            since = sum(amount for moment, amount in decays if moment > use.at)
            priorities = replace(use.priorities.decayed(since), importance=groups[id][0].importance)
            found[id] = replace(use, priorities=priorities, at=max(until, use.at))
        return found

    def _first(self, head: Segment) -> float:
        """When a segment was first written."""
        first = head.recorded_at if head.version == 1 else self.history(head.id)[0].at
        return first.timestamp()

    def links(self, groups: Mapping[str, Sequence[Segment]]) -> dict[str, set[str]]:
        """The ids of the segments that each is linked to."""
        owner = {piece.seq: id for id, pieces in groups.items() for piece in pieces}
        links: dict[str, set[str]] = {id: set() for id in groups}
        pairs = [(link.source, link.target) for link in self._ledger.links(self.namespace, list(owner))]
        others = {seq for pair in pairs for seq in pair} - owner.keys()
        owner |= {row.seq: str(row.session) for row in self._ledger.fetch(self.namespace, sorted(others))}
        for pair in pairs:
            for near, far in (pair, pair[::-1]):
                if owner.get(near) in links and far in owner and owner[near] != owner[far]:
                    links[owner[near]].add(owner[far])
        return links

    def waiting(self) -> int:
        """Pieces that wait for the encoder."""
        return self._ledger.count_pending(self.namespace)


def parts(pieces: Sequence[Segment]) -> list[str]:
    """The texts that pieces were cut from, each to the character."""
    parts: list[str] = []
    before: str | None = None
    for piece in pieces:
        text = piece.gap + piece.text + piece.tail
        if piece.document_id is not None and piece.document_id == before:
            parts[-1] += text
        else:
            parts.append(text)
        before = piece.document_id
    return parts


def _says_no_more(description: str, text: str) -> bool:
    """Whether a description is but the beginning of the text, or all of it."""
    said, whole = description.rstrip("…. "), " ".join(text.split())
    return whole.startswith(said) and (len(said.split()) >= TOLD_WORDS or said == whole.rstrip("…. "))


def text_of(pieces: Sequence[Segment]) -> str:
    return "\n\n".join(parts([piece for piece in pieces if piece.role == TEXT]))


def mean(vectors: Vectors) -> Vectors:
    """float32[dim] of length 1: the mean of float32[n, dim], n at least 1."""
    if len(vectors) == 1:
        return np.asarray(vectors[0])
    total: Vectors = vectors.sum(axis=0)
    return total / max(float(np.linalg.norm(total)), 1e-12)


def likeness(a: Vectors, b: Vectors) -> float:
    """How near two texts are, piece by piece: the cosine of each piece with the nearest of the other, on average, the
    lesser of both ways. Of two texts of one piece it is their cosine."""
    if not len(a) or not len(b):
        return 0.0
    cosines = a @ b.T
    return float(min(cosines.max(axis=1).mean(), cosines.max(axis=0).mean()))
