"""``DynamicSegmentedMemory``: the public API of DSM (narelabs/dsm) over the engine.

Code written for it runs with the import changed. Segments, categories and links live in a ``Memory``, which is
``engine`` here: a segment is a session of it, and each of its pieces fits the encoder. What differs from the original:

- A write does work for itself alone; the original scores every segment of the store on each write.
- White space is kept, also when a text is split at ``segment_token_limit`` words.
- A near-duplicate is added to the segment it repeats as a piece of its own: what was there stays, word for word. Where
  the original would cut the oldest words to stay within the limit, the new text begins a segment of its own.
- Contexts are counted as a whole by the encoder's tokenizer, and their texts are quoted.
- What is returned are values: they are changed by ``write`` and the like, not by assignment.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from memspan import arguments
from memspan.channels import Question
from memspan.context import pack_active
from memspan.drafting import Batch, Common
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import BudgetTooSmall, InvalidInput, NewerStore, NotAStore, NotFound, StoreCorrupt, StoreError
from memspan.filtering import parse_filter
from memspan.ledger.base import Standing, Use, instant
from memspan.ledger.connections import translated
from memspan.memory import MOST_TOKENS, Memory
from memspan.records import NOTHING, Added, Hit, Message, Segment
from memspan.retrieval import RECIPES
from memspan.segmenting import Tokenizer, WordTokenizer, check_text, messages, parse_time, shown
from memspan.store import AUTO

__all__ = ["ActiveContext", "DynamicSegmentedMemory", "MemorySegment", "PriorityVector", "RouteResult",
           "sparse_attention_cost"]  # fmt: skip

USER = "dsm"  # whose memory it is in the engine
TEXT, ABOUT = "user", "system"  # roles of a segment's pieces: of its text, and of a description somebody gave
RECIPE = "dsm"
SAME = 0.84  # cosine from which a text is a near-duplicate
ANSWERED = 0.62  # cosine of a question with the segment that its answer is added to
RELATED = 0.58  # cosine from which segments are linked, and a text without a category joins that of its nearest one
MOST_LINKS = 4
NEAREST = 16  # pieces looked at for a write, however large the store is
NOT_REACHED = 99
UNSORTED = ("General",)
SUMMARY_WORDS = 24
MOST_PIECES = 100_000
DAY = 86_400.0
VERSION = 1  # of the file
LIMITS = ("segment_token_limit", "active_segment_limit", "active_token_budget")
TOLD = ("created_at", "updated_at", "description")

Vectors = NDArray[np.float32]
T = TypeVar("T")


@runtime_checkable
class EmbeddingModel(Protocol):
    """The original's: one text in, its vector out."""

    @property
    def dim(self) -> int: ...

    def encode(self, text: str) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class PriorityVector:
    """How much a segment matters, each in [0, 1]."""

    relevance: float = 0.5
    importance: float = 0.5
    recency: float = 1.0
    frequency: float = 0.0

    def total(self, similarity: float, age_seconds: float) -> float:
        """The original's score in [0, 1] for a similarity, ``age_seconds`` after the last access."""
        recency = (self.recency + 1 / (1 + max(age_seconds, 0.0) / DAY)) / 2
        parts = (similarity, self.relevance, self.importance, recency, self.frequency)
        return _unit(sum(weight * part for weight, part in zip((0.42, 0.22, 0.18, 0.10, 0.08), parts, strict=True)))

    def touched(self, similarity: float, boost: float = 0.08) -> PriorityVector:
        """As it is after an access."""
        relevance = max(self.relevance, _unit(similarity))
        return replace(self, relevance=relevance, recency=1.0, frequency=_unit(self.frequency + boost))

    def decayed(self, amount: float) -> PriorityVector:
        """As it is after a decay: recency loses ``amount``, relevance two fifths of it."""
        return replace(self, recency=_unit(self.recency - amount), relevance=_unit(self.relevance - 0.4 * amount))


USUAL = asdict(PriorityVector())


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySegment:
    """A segment as it was when it was asked for. Times are seconds since 1970.

    ``embedding`` has length 1: the mean of the vectors of its pieces; it is empty while they wait for the encoder.
    ``links`` are the ids of the segments that ``write`` linked it to.
    """

    id: str
    text: str
    description: str
    category_path: tuple[str, ...]
    embedding: tuple[float, ...] = field(repr=False)
    links: frozenset[str] = frozenset()
    priorities: PriorityVector = PriorityVector()
    created_at: float
    updated_at: float
    last_accessed_at: float
    access_count: int = 0
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    @property
    def estimated_tokens(self) -> int:
        """Its words."""
        return max(1, len(self.text.split()))

    def to_dict(self) -> dict[str, Any]:
        """The segment as the original's file has it."""
        return {
            "id": self.id,
            "text": self.text,
            "description": self.description,
            "category_path": list(self.category_path),
            "embedding": _decimals(np.array(self.embedding, np.float64)),
            "links": sorted(self.links),
            "priorities": asdict(self.priorities),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "last_accessed_at": self.last_accessed_at,
            "access_count": self.access_count,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class RouteResult:
    """A segment a query led to. ``similarity``: cosine of its best piece, negative ones as 0. ``priority_score``: by
    its PriorityVector, before this access. ``graph_distance``: hops from what the query found itself, 99 when the graph
    did not reach it. ``total_score``: the engine's, in [0, 1].
    """

    segment: MemorySegment
    similarity: float
    priority_score: float
    graph_distance: int
    total_score: float
    category_score: float = 0.0


@dataclass(frozen=True, slots=True)
class ActiveContext:
    """What a model should read. ``estimated_tokens`` counts ``context_text`` whole, and is at most ``token_budget``."""

    query: str
    selected: list[RouteResult]
    context_text: str
    token_budget: int
    estimated_tokens: int
    global_summary: str

    @property
    def segment_ids(self) -> list[str]:
        """The ids of the selected segments, best first."""
        return [result.segment.id for result in self.selected]


def sparse_attention_cost(active_tokens: int, total_tokens: int) -> dict[str, float]:
    """Attention operations over all tokens and over the active ones, each the square of their number, and the ratio."""
    active = max(0, active_tokens)
    dense, sparse = float(max(active, total_tokens)) ** 2, float(active) ** 2
    ratio = dense / sparse if sparse else math.inf
    return {"dense_attention_ops": dense, "active_attention_ops": sparse, "reduction_ratio": ratio}


class DynamicSegmentedMemory:
    """Segments in a category tree and a graph, routed to by a query and packed into an active context.

    ``storage_path``: a ``.json`` file of the original, which is read now if it is there and written by ``save`` alone;
    or a directory, which is a memspan store and durable at every write. None keeps everything in memory and writes
    nowhere, where the original would use a file in the working directory: ``save(path)`` then says where.
    ``embedding_model``: None for memspan's default encoder or the store's own, a memspan Encoder or its spec such as
    ``"minilm"``, or an object with the original's ``encode(text) -> list[float]`` and ``dim``.
    ``segment_token_limit``: words of one segment. ``active_segment_limit``: segments of a route or context.
    ``active_token_budget``: tokens of a context. A file's own limits replace these, as in the original.

    Safe to use from several threads. Raises StoreCorrupt or NotAStore for a file that is not as it should be, which is
    never overwritten; and what ``Memory`` raises.
    """

    def __init__(
        self,
        storage_path: str | os.PathLike[str] | None = None,
        embedding_model: EmbeddingModel | Encoder | str | None = None,
        segment_token_limit: int = 20_000,
        active_segment_limit: int = 5,
        active_token_budget: int = 100_000,
    ) -> None:
        self._limit(segment_token_limit, active_segment_limit, active_token_budget)
        with _argument("storage_path", "path"):
            path = None if storage_path is None else arguments.path(storage_path)
        is_file = path is not None and (path.is_file() or (path.suffix.lower() == ".json" and not path.is_dir()))
        self._file = _File(path) if path is not None and is_file else None
        self._directory = None if is_file else path
        self._lock = threading.RLock()
        self._uses: dict[str, _Used] = {}
        self._told: dict[str, dict[str, Any]] = {}  # what a file says of segments that the engine does not keep
        self._nodes: dict[tuple[str, ...], tuple[float, float]] = {}  # a file's categories: made at, changed at
        with _argument("embedding_model", "encoder"):
            self.engine = _Engine(self._directory or ":memory:", encoder=_encoder(embedding_model))
        try:
            self._decays: list[tuple[float, float]] = self.engine.settings().get("decays", [])  # when, and by how much
            if self._file is not None and self._file.exists():
                self.load()
        except BaseException:
            self.engine.close()
            raise

    def _limit(self, segment: object, active: object, budget: object) -> None:
        self.segment_token_limit = arguments.count("segment_token_limit", segment, most=MOST_TOKENS)
        self.active_segment_limit = arguments.count("active_segment_limit", active)
        self.active_token_budget = arguments.count("active_token_budget", budget, most=MOST_TOKENS)

    @property
    def segments(self) -> Mapping[str, MemorySegment]:
        """All segments by id, oldest first. Each is read when it is asked for."""
        return _Segments(self)

    # Writing

    def write(
        self,
        text: str,
        *,
        description: str | None = None,
        category_path: tuple[str, ...] | list[str] | str | None = None,
        metadata: Mapping[str, Any] | None = None,
        importance: float = 0.5,
        update_existing: bool = True,
        link_related: bool = True,
    ) -> list[MemorySegment]:
        """Remember a text, split into segments at ``segment_token_limit`` words; returns the segments it is in now.

        With ``update_existing`` a near-duplicate (cosine of at least 0.84) is merged into the segment it repeats. With
        ``link_related`` a segment is linked to at most four of the nearest that are related to it. Without a category
        it joins the one of the nearest related segment, else "General". Raises InvalidInput, StoreError.
        """
        if isinstance(text, str) and not text.strip():
            return []
        about = _About(
            description=check_text(description, "description") if description else None,
            category=_category(category_path),
            metadata=arguments.metadata(metadata),
            importance=arguments.importance(importance),
        )
        with self._lock:
            chunks = _chunks(check_text(text, "text"), self.segment_token_limit)
            ids = [self._write(chunk, about, update_existing, link_related) for chunk in chunks]
            return [self.segments[id] for id in ids]

    def _write(self, text: str, about: _About, update_existing: bool, link_related: bool) -> str:
        id = uuid.uuid4().hex
        batch = self.engine.draft(id, text, about)
        vectors = self.engine.encoded(batch)
        own = [vectors[draft.content] for draft in batch.drafts if draft.role == TEXT and draft.content in vectors]
        near = self.engine.near(_mean(np.stack(own)), NEAREST) if own else []
        twin = self._twin(text, np.stack(own), near) if own and update_existing else None
        if twin is not None:
            id, similarity = twin
            self._merge(id, text, about, similarity, 0.05, vectors)
            category = self.engine.pieces(id)[0].category
        else:
            category = _joined_category(near) if about.category is None else about.category
            batch.drafts = [replace(draft, category=category) for draft in batch.drafts]
            self.engine.remember([batch], vectors)
        if link_related:
            self._link(id, category, near)
        return id

    def _twin(self, text: str, own: Vectors, near: Sequence[_Near]) -> tuple[str, float] | None:
        """The segment that ``text`` is a near-duplicate of and fits into, and their similarity."""
        best: tuple[str, float] | None = None
        for candidate in near[:MOST_LINKS]:
            if candidate.cosine >= RELATED:
                pieces = [piece for piece in self.engine.pieces(candidate.id) if piece.role == TEXT]
                similarity = _likeness(own, self.engine.vectors(pieces))
                if similarity >= (best[1] if best else SAME) and self._fits(_text(pieces), text):
                    best = candidate.id, similarity
        return best

    def _fits(self, before: str, text: str) -> bool:
        return text in before or len(before.split()) + len(text.split()) <= self.segment_token_limit

    def _merge(
        self, id: str, text: str, about: _About, similarity: float, boost: float, vectors: Mapping[bytes, Vectors]
    ) -> None:
        """Add to a segment what it does not say yet; its metadata and importance are kept with its first piece."""
        pieces = self.engine.pieces(id)
        head = pieces[0]
        used = self._used({id: pieces})[id]
        more = replace(about, category=head.category, importance=max(head.importance, about.importance))
        if text not in _text(pieces):
            batch = self.engine.draft(id, text, more)
            self.engine.remember([batch], vectors or self.engine.encoded(batch))
        metadata = {**head.metadata, **about.metadata}
        if (more.importance, metadata) != (head.importance, dict(head.metadata)):
            self.engine.update(head.id, importance=more.importance, metadata=metadata)
        priorities = replace(used.priorities.touched(similarity, boost), importance=more.importance)
        self._uses[id] = replace(used, priorities=priorities)
        if id in self._told:
            self._told[id] = {"created_at": self._told[id]["created_at"]}

    def _link(self, id: str, category: tuple[str, ...], near: Sequence[_Near]) -> None:
        """Link a segment to the nearest of those that are close enough or share the first two steps of its category."""
        anchor = self.engine.pieces(id)[0]
        related = [
            other
            for other in near
            if other.id != id and (other.cosine >= RELATED or (category and other.category[:2] == category[:2]))
        ]
        for other in related[:MOST_LINKS]:
            with suppress(NotFound):  # removed since it was found
                self.engine.link(anchor.id, other.piece, weight=min(max(other.cosine, 0.01), 1.0))

    def update_from_interaction(
        self, query: str, answer: str, *, importance: float = 0.6, metadata: Mapping[str, Any] | None = None
    ) -> list[MemorySegment]:
        """Remember an answer with the segment its question leads to (cosine of at least 0.62), else as a new one.

        Raises InvalidInput, StoreError.
        """
        text = f"Query: {check_text(query, 'query')}\nAnswer: {check_text(answer, 'answer')}"
        about = _About(metadata=arguments.metadata(metadata), importance=arguments.importance(importance))
        with self._lock:
            routed = self.route(query, k=1, similarity_floor=ANSWERED)
            if routed and self._fits(routed[0].segment.text, text):
                id = routed[0].segment.id
                self._merge(id, text, about, routed[0].similarity, 0.08, {})
                return [self.segments[id]]
            return self.write(text, importance=importance, metadata=metadata)

    # Reading

    def route(
        self,
        query: str,
        *,
        k: int | None = None,
        category_beam: int = 4,
        graph_hops: int = 2,
        similarity_floor: float = -1.0,
    ) -> list[RouteResult]:
        """The ``k`` segments that answer ``query`` best, best first, by tree, vectors, words, graph and priorities.

        ``category_beam``: how many of the categories in the answer lend their score. ``graph_hops``: distances beyond
        it count as not reached; the engine follows two at most, and none at 0. ``similarity_floor``: the least
        similarity. Raises InvalidInput, StoreError.
        """
        count = self.active_segment_limit if k is None else arguments.count("k", k)
        beam = arguments.count("category_beam", category_beam)
        if isinstance(graph_hops, bool) or not isinstance(graph_hops, int) or graph_hops < 0:
            raise InvalidInput("graph_hops", f"{shown(graph_hops)} is no number of hops", mend="give 0, 1 or 2")
        best: dict[str, Hit] = {}
        for asked in (count, 8 * count, 64 * count):  # more pieces where several of the best are of one segment
            asked = min(asked, arguments.MOST_HITS)
            recipe = RECIPE if graph_hops else f"{RECIPE}-graph"
            hits = self.engine.search(query, k=asked, user_id=USER, recipe=recipe, explain=True)
            for hit in hits:
                if _part(hit, "semantic") >= similarity_floor:
                    best.setdefault(str(hit.session), hit)
            if len(best) >= count or len(hits) < asked:
                break
        with self._lock:
            found = {id: (hit, pieces) for id, hit in islice(best.items(), count) if (pieces := self.engine.pieces(id))}
            by_score = sorted(((_part(hit, "category"), pieces[0].category) for hit, pieces in found.values()))
            lending = list(dict.fromkeys(category for _, category in reversed(by_score)))[:beam]
            return [
                self._result(id, hit, pieces, graph_hops, pieces[0].category in lending)
                for id, (hit, pieces) in found.items()
            ]

    def _result(self, id: str, hit: Hit, pieces: Sequence[Segment], hops: int, lends: bool) -> RouteResult:
        """A hit as a result; that it was returned counts as an access."""
        used = self._used({id: pieces})[id]
        now, similarity, nearness = time.time(), _part(hit, "semantic"), _part(hit, "graph")
        distance = round(1 / nearness) - 1 if nearness > 0 else NOT_REACHED
        self._uses[id] = _Used(used.priorities.touched(similarity), now, used.access_count + 1)
        return RouteResult(
            segment=self._segment(id, pieces),
            similarity=similarity,
            priority_score=used.priorities.total(similarity, now - used.last_accessed_at),
            graph_distance=distance if distance <= hops else NOT_REACHED,
            total_score=hit.score,
            category_score=_part(hit, "category") if lends else 0.0,
        )

    def active_context(self, query: str, *, k: int | None = None, token_budget: int | None = None) -> ActiveContext:
        """The query, a summary line for each segment, then each with category, description, scores and quoted text.

        At most ``token_budget`` tokens as a whole string. A segment that does not fit is passed over; when not even the
        best one does, its beginning is taken. Raises BudgetTooSmall, InvalidInput, StoreError.
        """
        budget = self.active_token_budget if token_budget is None else token_budget
        budget = arguments.count("token_budget", budget, most=MOST_TOKENS)
        results = {result.segment.id: result for result in self.route(query, k=k)}
        with _argument("token_budget", "budget"):
            packed = pack_active(
                [_hit(result) for result in results.values()],
                query=query,
                budget=budget,
                tokenizer=self.engine.tokenizer,
                describe=lambda hit: results[hit.id].segment.description,
            )
        _, summary = packed.text.split("\n\n---\n\n")[1].split("GLOBAL SUMMARY:\n")
        return ActiveContext(
            query=query,
            selected=[results[citation.ids[0]] for citation in packed.citations],
            context_text=packed.text,
            token_budget=budget,
            estimated_tokens=packed.tokens,
            global_summary=summary,
        )

    def _segment(self, id: str, pieces: Sequence[Segment]) -> MemorySegment:
        said = [piece for piece in pieces if piece.role == TEXT]
        described = _parts([piece for piece in pieces if piece.role == ABOUT])
        text, head, used = _text(said), pieces[0], self._used({id: pieces})[id]
        vectors = self.engine.vectors(said)
        values: dict[str, Any] = {
            "text": text,
            "description": described[-1] if described else _summary(text),
            "category_path": head.category or UNSORTED,
            "embedding": tuple(_mean(vectors).tolist()) if len(vectors) else (),
            "links": frozenset(self._links({id: pieces})[id]),
            "priorities": used.priorities,
            "created_at": self.engine.created_at(head),
            "updated_at": max(piece.recorded_at for piece in pieces).timestamp(),
            "last_accessed_at": used.last_accessed_at,
            "access_count": used.access_count,
            "metadata": head.metadata,
        }
        return MemorySegment(id=id, **{**values, **self._told.get(id, {})})

    def _used(self, groups: Mapping[str, Sequence[Segment]]) -> dict[str, _Used]:
        """How segments were used: as this process knows it, else as the engine does, faded by the decays since."""
        unknown = {id: pieces for id, pieces in groups.items() if id not in self._uses}
        found = {id: self._uses[id] for id in groups if id in self._uses}
        known = self.engine.standing([piece.seq for pieces in unknown.values() for piece in pieces])
        start = 0
        for id, pieces in unknown.items():
            of = slice(start, start + len(pieces))
            start += len(pieces)
            count, heard = int(known.accesses[of].max()), pieces[0].recorded_at.timestamp()
            accessed = instant(int(known.accessed_at[of].max())).timestamp() if count else heard
            priorities = PriorityVector(
                relevance=float(known.relevance[of].max()),
                importance=pieces[0].importance,
                frequency=_unit(0.08 * count),
            )
            since = sum(amount for at, amount in self._decays if at > accessed)
            found[id] = _Used(priorities.decayed(since), accessed, count)
        return found

    def _links(self, groups: Mapping[str, Sequence[Segment]]) -> dict[str, set[str]]:
        """The ids of the segments that each is linked to."""
        owner = {piece.seq: id for id, pieces in groups.items() for piece in pieces}
        links: dict[str, set[str]] = {id: set() for id in groups}
        pairs = self.engine.linked(list(owner))
        owner |= self.engine.owners({seq for pair in pairs for seq in pair} - owner.keys())
        for pair in pairs:
            for near, far in (pair, pair[::-1]):
                if owner.get(near) in links and far in owner and owner[near] != owner[far]:
                    links[owner[near]].add(owner[far])
        return links

    # Care

    def rebuild_structure(self) -> int:
        """Build the engine's views anew, link what has no links, and place what has no category.

        A category that somebody named is kept. Returns how many segments were moved.
        """
        self.engine.rebuild()
        moved = 0
        with self._lock:
            for id, pieces in self.engine.groups().items():
                vectors = self.engine.vectors([piece for piece in pieces if piece.role == TEXT])
                near = self.engine.near(_mean(vectors), NEAREST) if len(vectors) else []
                placed = [other for other in near if other.id != id and other.category]
                category = pieces[0].category or _joined_category(placed)
                if category != pieces[0].category:
                    moved += 1
                    for piece in pieces:
                        self.engine.update(piece.id, category=category)
                if not self._links({id: pieces})[id]:
                    self._link(id, category, near)
        return moved

    def prune(
        self,
        *,
        max_segments: int | None = None,
        min_priority: float = 0.08,
        archive_path: str | os.PathLike[str] | None = None,
    ) -> list[MemorySegment]:
        """Remove the segments whose priority is below ``min_priority``, then the lowest until ``max_segments`` are left.

        They are first added to the file ``archive_path``, which opens like a storage path: when that cannot be written,
        nothing is removed. Returns what was removed. Raises InvalidInput, StoreError.
        """
        if max_segments is not None and (not isinstance(max_segments, int) or max_segments < 0):
            raise InvalidInput("max_segments", f"{shown(max_segments)} is no count", mend="give 0 or more, or None")
        least = _number("min_priority", min_priority)
        with _argument("archive_path", "path"):
            archive = None if archive_path is None else _File(arguments.path(archive_path))
        with self._lock:
            groups, now = self.engine.groups(), time.time()
            totals = {
                id: use.priorities.total(0.0, now - use.last_accessed_at) for id, use in self._used(groups).items()
            }
            ranked = sorted(totals, key=lambda id: totals[id])
            low = sum(total < least for total in totals.values())
            over = 0 if max_segments is None else len(ranked) - max_segments
            removed = [self._segment(id, groups[id]) for id in ranked[: max(low, over)]]
            if removed and archive is not None:
                kept = archive.archived()
                archive.write({"segments": kept + [segment.to_dict() for segment in removed]})
            self.engine.delete([piece.id for segment in removed for piece in groups[segment.id]])
            for segment in removed:
                self._uses.pop(segment.id, None)
                self._told.pop(segment.id, None)
        return removed

    def decay_priorities(self, amount: float = 0.02) -> None:
        """Lower the recency of every segment by ``amount`` in [0, 1], and its relevance by two fifths of it.

        Segments that were not used since this memory was opened are not touched one by one: the decay is noted once.
        """
        if not 0 <= _number("amount", amount) <= 1:
            raise InvalidInput("amount", f"{shown(amount)} is outside [0, 1]", mend="give a number from 0 to 1")
        with self._lock:
            self._decays.append((time.time(), amount))
            self._uses = {id: replace(use, priorities=use.priorities.decayed(amount)) for id, use in self._uses.items()}
            if self._directory is not None:
                self.engine.put_settings({"decays": self._decays})

    def stats(self) -> dict[str, Any]:
        """How many segments, categories (with the root) and links, words in all, pieces indexed, and the limits."""
        groups = self.engine.groups()
        paths = {pieces[0].category or UNSORTED for pieces in groups.values()}
        return {
            "segments": len(groups),
            "categories": len(_prefixes(paths | self._nodes.keys())),
            "graph_edges": sum(map(len, self._links(groups).values())) // 2,
            "estimated_tokens": sum(len(_text(pieces).split()) for pieces in groups.values()),
            "index_size": sum(map(len, groups.values())) - self.engine.waiting(),
            "segment_token_limit": self.segment_token_limit,
            "active_segment_limit": self.active_segment_limit,
            "active_token_budget": self.active_token_budget,
        }

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the original's file: the one this memory was opened with, or a new one at ``path``.

        Written aside and put in place whole. A directory is durable without it: then it folds new writes into the
        indexes. Raises InvalidInput when it is not known where, and StoreError for a file that somebody else changed.
        """
        with self._lock:
            file = self._file
            if path is not None:
                with _argument("path", "path"):
                    named = arguments.path(path)
                file = file if file is not None and file.path == named else _File(named)
            if file is not None:
                file.write(self._contents())
            elif self._directory is not None:
                self.engine.compact()
            else:
                raise InvalidInput(
                    "path", "is missing: this memory has no storage_path", mend="say save('memory.json')"
                )

    def load(self) -> None:
        """Read the file again, and let go of what was not saved; a directory is always read as it is.

        Raises InvalidInput without a storage_path, NotFound without the file, StoreCorrupt, NotAStore, NewerStore.
        """
        if self._file is None:
            if self._directory is None:
                raise InvalidInput("storage_path", "is None: there is nothing to load", mend="open it with a path")
            return
        stored = self._file.read()
        with self._lock:
            engine = _Engine(":memory:", encoder=self.engine.encoder)
            try:
                _restore(engine, stored)
            except BaseException:
                engine.close()
                raise
            self.engine.close()
            self.engine = engine
            self._limit(*(stored.limits.get(name, getattr(self, name)) for name in LIMITS))
            self._nodes, self._decays = stored.nodes, []
            self._uses, self._told = {}, {}
            for segment in stored.segments:
                self._uses[segment.id] = _Used(segment.priorities, segment.last_accessed_at, segment.access_count)
                self._told[segment.id] = {name: getattr(segment, name) for name in TOLD}
            self._file.seen = stored.digest

    def _contents(self) -> dict[str, Any]:
        groups = self.engine.groups()
        segments = [self._segment(id, pieces) for id, pieces in groups.items()]
        return {
            "version": VERSION,
            **{name: getattr(self, name) for name in LIMITS},
            "embedding_dim": self.engine.dim,
            "segments": [segment.to_dict() for segment in segments],
            "categories": self._tree(segments),
            "graph": {segment.id: sorted(segment.links) for segment in sorted(segments, key=lambda each: each.id)},
        }

    def _tree(self, segments: Sequence[MemorySegment]) -> dict[str, Any]:
        """The categories as the original's file has them; each with the mean vector of what is in it, or of its name."""
        members: dict[tuple[str, ...], list[MemorySegment]] = {}
        for segment in segments:
            members.setdefault(segment.category_path, []).append(segment)
        below: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
        node: dict[str, Any] = {}
        for path in sorted(_prefixes(members.keys() | self._nodes.keys()), key=lambda path: (-len(path), path)):
            inside, children = members.get(path, []), below.pop(path, {})
            vectors = [each.embedding for each in inside if each.embedding]
            vectors += [child["embedding"] for child in children.values() if any(child["embedding"])]
            named = self.engine.vector(path[-1] if path else "Memory") if not vectors else np.zeros(0, np.float32)
            times = [time for each in inside for time in (each.created_at, each.updated_at)] or [time.time()]
            made, changed = self._nodes.get(path, (min(times), max(times)))
            node = {
                "name": path[-1] if path else "Memory",
                "path": list(path),
                "embedding": _decimals(_mean(np.array(vectors, np.float32)) if vectors else named),
                "segment_ids": sorted(each.id for each in inside),
                "created_at": made,
                "updated_at": max(changed, max(times) if inside else changed),
                "children": dict(sorted(children.items())),
            }
            below.setdefault(path[:-1], {})[node["name"]] = node
        return node

    def close(self) -> None:
        """Close the engine. What was not saved to a file is gone; a directory holds everything."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Segments(Mapping[str, MemorySegment]):
    """The segments by id, as they are when each is asked for."""

    def __init__(self, memory: DynamicSegmentedMemory) -> None:
        self._memory = memory

    def __getitem__(self, id: str) -> MemorySegment:
        pieces = self._memory.engine.pieces(id) if isinstance(id, str) and id.strip() else []
        if not pieces:
            raise KeyError(id)
        return self._memory._segment(id, pieces)

    def __iter__(self) -> Iterator[str]:
        return iter(self._memory.engine.ids())

    def __len__(self) -> int:
        return len(self._memory.engine.heads())


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What a write says of its text; ``category`` None where it does not say."""

    description: str | None = None
    category: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    importance: float = 0.5


@dataclass(frozen=True, slots=True)
class _Used:
    """How a segment was used."""

    priorities: PriorityVector
    last_accessed_at: float
    access_count: int


class _Near(NamedTuple):
    """A segment near to a text, by its nearest piece."""

    id: str
    piece: str
    cosine: float
    category: tuple[str, ...]


class _Engine(Memory):
    """A ``Memory``, with what the segments of the original need beside its verbs."""

    # Writing

    def draft(self, id: str, text: str, about: _About, occurred_at: float | None = None) -> Batch:
        """The pieces of a text of segment ``id``, after those of its description."""
        common = Common(
            scope=self._scope(None, USER, None, None, id),
            category=about.category or (),
            importance=about.importance,
            metadata=about.metadata,
            occurred_at=parse_time(occurred_at, "created_at"),
        )
        batch = Batch(self._cut, common)
        if about.description is not None:
            batch.message(Message(content=about.description, role=ABOUT), "description")
        batch.message(Message(content=text, role=TEXT), "text")
        return batch

    def encoded(self, batch: Batch) -> dict[bytes, Vectors]:
        """Vectors by content; none while the encoder fails, which the background worker reports and tries again."""
        with suppress(Exception):
            return dict(zip(batch.texts, self._projection.encode(list(batch.texts.values())), strict=True))
        return {}

    def vector(self, text: str) -> Vectors:
        """float32[dim] of a text, zeros while the encoder fails."""
        with suppress(Exception):
            return self._projection.encode([text])[0]
        return np.zeros(self.dim, np.float32)

    def remember(self, batches: Sequence[Batch], vectors: Mapping[bytes, Vectors]) -> Added:
        """Write drafts with their vectors in one transaction; what has none waits for the encoder."""
        halves = {content: vector.astype(np.float16) for content, vector in vectors.items()}
        added = self._ledger.append(
            self.namespace,
            [draft for batch in batches for draft in batch.drafts],
            documents=[document for batch in batches for document in batch.documents],
            vectors=None if self._recorded == "null" else halves,
        )
        self._projection.written(self.namespace, added.added, pending=added.pending)
        return added

    def settle(self) -> None:
        """Encode what waits."""
        self._projection.settle(self.namespace)

    def mark(self, uses: Mapping[str, Use]) -> None:
        """Count uses that were counted elsewhere."""
        self._ledger.used(self.namespace, uses)

    def settings(self) -> dict[str, Any]:
        """What ``put_settings`` kept in the store."""
        values: dict[str, Any] = json.loads(self._ledger.value("dsm") or "{}")
        return values

    def put_settings(self, values: Mapping[str, Any]) -> None:
        self._ledger.put_values({"dsm": json.dumps(values)}, replace=True)

    # Reading

    @property
    def encoder(self) -> Encoder | None:
        return self._encoder

    @property
    def dim(self) -> int:
        return 0 if self._encoder is None else self._encoder.dim

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def near(self, vector: Vectors, k: int) -> list[_Near]:
        """The segments of the ``k`` pieces nearest to a vector, nearest first; it does not count as a use."""
        selection = self._selections.of(self._scope(None, USER, None, None, None))
        ranked = self._retrieval.rank(Question("", (), vector), RECIPES["semantic"], selection, k)
        rows = {row.seq: row for row in self._ledger.fetch(self.namespace, ranked.seqs[:k].tolist())}
        found: dict[str, _Near] = {}
        for seq, cosine in zip(ranked.seqs[:k].tolist(), ranked.features.get("semantic", ()), strict=False):
            if (row := rows.get(seq)) is not None and not math.isnan(cosine):
                id = str(row.session)
                found.setdefault(id, _Near(id, row.id, float(cosine), row.category))
        return list(found.values())

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
        return groups

    def heads(self) -> list[int]:
        """The seq of the first piece of each segment."""
        first = parse_filter({"position": 0})
        seqs: list[int] = self._selections.of(self._scope(None, USER, None, None, None), first).seqs.tolist()
        return seqs

    def ids(self) -> list[str]:
        """Every segment's id, oldest first."""
        return [str(row.session) for row in self._ledger.fetch(self.namespace, self.heads())]

    def owners(self, seqs: Collection[int]) -> dict[int, str]:
        """The segment that each piece belongs to."""
        return {row.seq: str(row.session) for row in self._ledger.fetch(self.namespace, list(seqs))}

    def vectors(self, pieces: Sequence[Segment]) -> Vectors:
        """float32[n, dim]: the vectors of those pieces that have one."""
        return self._ledger.vectors_of(self.namespace, [piece.seq for piece in pieces])[1]

    def linked(self, seqs: Sequence[int]) -> list[tuple[int, int]]:
        """The stated edges from and to pieces."""
        return [(link.source, link.target) for link in self._ledger.links(self.namespace, seqs)]

    def standing(self, seqs: Sequence[int]) -> Standing:
        """How pieces were used."""
        return self._ledger.standing(self.namespace, seqs)

    def created_at(self, head: Segment) -> float:
        """When a piece was first written."""
        return (head.recorded_at if head.version == 1 else self.history(head.id)[0].at).timestamp()

    def waiting(self) -> int:
        """Pieces that wait for the encoder."""
        return self._ledger.count_pending(self.namespace)


class _OneByOne:
    """The original's kind of model as an Encoder. Rows are brought to length 1."""

    window = 256

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model
        self.dim = int(model.dim)
        self.id = f"{type(model).__module__}.{type(model).__qualname__}-{self.dim}"
        self.tokenizer = WordTokenizer()

    def encode(self, texts: Sequence[str]) -> Encoded:
        rows = np.array([self._model.encode(text) for text in texts], np.float32)
        norms = np.linalg.norm(rows, axis=-1, keepdims=True)
        return Encoded(rows / np.where(norms > 0, norms, 1))


def _encoder(model: EmbeddingModel | Encoder | str | None) -> Encoder | str:
    if model is None:
        return AUTO
    if isinstance(model, (str, Encoder)):
        return model
    if isinstance(model, EmbeddingModel):
        return _OneByOne(model)
    mend = "give a spec such as 'minilm', an Encoder, or an object with encode(text) -> list[float] and dim"
    raise InvalidInput("encoder", f"{type(model).__name__} is no encoder", mend=mend)


# The original's file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What a file holds: ``nodes`` are its categories with when they were made and changed, ``edges`` its links."""

    digest: bytes
    limits: Mapping[str, int]
    segments: Sequence[MemorySegment]
    nodes: dict[tuple[str, ...], tuple[float, float]]
    edges: Collection[tuple[str, str]]


class _File:
    """A file of the original. ``seen`` is the hash of what this process last read or wrote there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: bytes | None = None

    def exists(self) -> bool:
        return self.path.exists()

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {self.path}", mend="save() makes it") from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read ({error.strerror})", mend="make it readable") from error

    def data(self) -> tuple[dict[str, Any], bytes]:
        """The file's JSON and its hash."""
        raw = self._raw()
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            problem = f"{self.path} is no JSON ({error})"
            raise StoreCorrupt(problem, mend="restore it from a backup; it was not touched") from error
        if not isinstance(data, dict) or not isinstance(data.get("segments"), list):
            raise NotAStore(f"{self.path} holds no list of segments", mend="name a file that DSM wrote")
        version = data.get("version", VERSION)
        if isinstance(version, int) and version > VERSION:
            raise NewerStore(f"{self.path} is of version {version}", mend=f"this reads version {VERSION}")
        return data, hashlib.sha256(raw).digest()

    def read(self) -> _Stored:
        """Everything in it, checked."""
        data, digest = self.data()
        try:
            segments = [_segment_from(item, f"segments[{at}]") for at, item in enumerate(data["segments"])]
            ids = {segment.id for segment in segments}
            if len(ids) < len(segments):
                raise InvalidInput("segments", "hold an id twice")
            graph = _take(data, "graph", dict, {}, "the file")
            edges = {tuple(sorted((a, b))) for a in graph for b in _names(graph, a, "graph")}
            edges |= {tuple(sorted((segment.id, other))) for segment in segments for other in segment.links}
            return _Stored(
                digest=digest,
                limits={name: arguments.count(name, data[name], most=MOST_TOKENS) for name in LIMITS if name in data},
                segments=segments,
                nodes=_nodes_from(_take(data, "categories", dict, {}, "the file")),
                edges=sorted((a, b) for a, b in edges if a != b and {a, b} <= ids),
            )
        except InvalidInput as error:
            problem = f"{self.path} is not as DSM writes it: {error.problem}"
            raise StoreCorrupt(problem, mend="restore it from a backup; it was not touched") from error

    def archived(self) -> list[Any]:
        """The segments in an archive as they stand there; it may be written from now on."""
        if not self.exists():
            return []
        data, self.seen = self.data()
        segments: list[Any] = data["segments"]
        return segments

    def write(self, data: Mapping[str, Any]) -> None:
        """Put ``data`` in the file's place, whole or not at all. Raises StoreError when it is not as it was left."""
        if self.exists() and hashlib.sha256(self._raw()).digest() != self.seen:
            problem = f"{self.path} was not written by this memory, or changed since"
            raise StoreError(problem, mend="load() what it holds, or save to another path")
        raw = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:8]}.part")
        with translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with aside.open("wb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(self.path)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
        self.seen = hashlib.sha256(raw).digest()


def _restore(engine: _Engine, stored: _Stored) -> None:
    """Write what a file holds into an empty engine, with the file's own vectors where they come from its encoder."""
    segments = stored.segments
    abouts = [
        _About(
            description=None if _is_summary(segment.description, segment.text) else segment.description,
            category=() if segment.category_path == UNSORTED else segment.category_path,
            metadata=segment.metadata,
            importance=segment.priorities.importance,
        )
        for segment in segments
    ]
    batches = [engine.draft(s.id, s.text, about, s.created_at) for s, about in zip(segments, abouts, strict=True)]
    own: dict[bytes, Vectors] = {}
    sample: dict[bytes, str] = {}
    for segment, batch in zip(segments, batches, strict=True):
        said = [draft.content for draft in batch.drafts if draft.role == TEXT]
        if len(said) == 1 and engine.dim and len(segment.embedding) == engine.dim:
            own[said[0]] = np.array(segment.embedding, np.float32)
            sample[said[0]] = batch.texts[said[0]]
    tried = list(sample)[:: max(1, len(sample) // 4)]
    if any(float(engine.vector(sample[content]) @ own[content]) < 0.999 for content in tried):
        own = {}
    added = engine.remember(batches, own)
    engine.settle()
    ids = iter(added.ids)
    heads = {s.id: list(islice(ids, len(batch.drafts)))[0] for s, batch in zip(segments, batches, strict=True)}
    for a, b in stored.edges:
        engine.link(heads[a], heads[b])
    engine.mark(
        {
            heads[segment.id]: Use(
                times=segment.access_count,
                at=instant(round(segment.last_accessed_at * 1e6)),
                relevance=segment.priorities.relevance,
            )
            for segment in segments
            if segment.access_count
        }
    )


def _segment_from(item: object, at: str) -> MemorySegment:
    """A segment of a file. Raises InvalidInput that says where it is not as it should be."""
    if not isinstance(item, dict):
        raise InvalidInput(at, f"is a {type(item).__name__}")
    now = time.time()
    priorities = _take(item, "priorities", dict, {}, at)
    with _argument(f"{at}.category_path", "category"):
        category = arguments.category(_names(item, "category_path", at) if "category_path" in item else UNSORTED)
    id = arguments.name(f"{at}.id", item.get("id"))
    if id is None:
        raise InvalidInput(f"{at}.id", "is missing")
    text = check_text(item.get("text"), f"{at}.text")
    return MemorySegment(
        id=id,
        text=text,
        description=_take(item, "description", str, "", at) or _summary(text),
        category_path=category or UNSORTED,
        embedding=tuple(_number(f"{at}.embedding", value) for value in _take(item, "embedding", list, [], at)),
        links=frozenset(_names(item, "links", at)),
        priorities=PriorityVector(
            **{name: _unit(_number(f"{at}.{name}", priorities.get(name, usual))) for name, usual in USUAL.items()}
        ),
        created_at=_moment(item, "created_at", now, at),
        updated_at=_moment(item, "updated_at", now, at),
        last_accessed_at=_moment(item, "last_accessed_at", now, at),
        access_count=_take(item, "access_count", int, 0, at),
        metadata=arguments.metadata(_take(item, "metadata", dict, {}, at), f"{at}.metadata"),
    )


def _nodes_from(root: Mapping[str, Any]) -> dict[tuple[str, ...], tuple[float, float]]:
    """The categories of a file, below a root that has no name, with when they were made and changed."""
    nodes: dict[tuple[str, ...], tuple[float, float]] = {}
    todo: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), root)] if root else []
    while todo:
        path, node = todo.pop()
        at = " / ".join(("categories", *path))
        nodes[path] = (_moment(node, "created_at", time.time(), at), _moment(node, "updated_at", time.time(), at))
        for name, child in _take(node, "children", dict, {}, at).items():
            with _argument(at, "category"):
                below = arguments.category([*path, name])
            if not isinstance(child, dict) or len(below) != len(path) + 1:
                raise InvalidInput(at, f"has a child {shown(name)} that is no category")
            todo.append((below, child))
    return nodes


def _take(item: Mapping[str, Any], name: str, kind: type[T], usual: T, at: str) -> T:
    value = item.get(name, usual)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidInput(f"{at}.{name}", f"is a {type(value).__name__}")
    return value


def _names(item: Mapping[str, Any], name: str, at: str) -> list[str]:
    names = _take(item, name, list, [], at)
    if not all(isinstance(each, str) for each in names):
        raise InvalidInput(f"{at}.{name}", "holds something that is no text")
    return names


def _moment(item: Mapping[str, Any], name: str, usual: float, at: str) -> float:
    seconds = _number(f"{at}.{name}", item.get(name, usual))
    parse_time(seconds, f"{at}.{name}")
    return seconds


# Texts, vectors and arguments


def _chunks(text: str, words: int) -> Iterator[str]:
    """Stretches of ``words`` words, as they stand in the text."""
    spans = (match.span() for match in re.finditer(r"\S+", text))
    while some := list(islice(spans, words)):
        yield text[some[0][0] : some[-1][1]]


def _parts(pieces: Sequence[Segment]) -> list[str]:
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


def _text(pieces: Sequence[Segment]) -> str:
    return "\n\n".join(_parts([piece for piece in pieces if piece.role == TEXT]))


def _summary(text: str) -> str:
    words = text.split(maxsplit=SUMMARY_WORDS)
    return " ".join(words[:SUMMARY_WORDS]) + ("…" if len(words) > SUMMARY_WORDS else "")


def _is_summary(description: str, text: str) -> bool:
    """Whether a description only repeats how the text begins, so that it need not be found by itself."""
    return description.startswith(_summary(text).removesuffix("…"))


def _mean(vectors: Vectors) -> Vectors:
    """float32[dim] of length 1: the mean of float32[n, dim], n at least 1."""
    mean: Vectors = vectors[0] if len(vectors) == 1 else vectors.mean(axis=0)
    return mean if len(vectors) == 1 else mean / max(float(np.linalg.norm(mean)), 1e-12)


def _likeness(a: Vectors, b: Vectors) -> float:
    """How near two texts are, piece by piece: the cosine of each piece with the nearest of the other, on average, the
    lesser of both ways. Of two texts of one piece it is their cosine."""
    if not len(a) or not len(b):
        return 0.0
    cosines = a @ b.T
    return float(min(cosines.max(axis=1).mean(), cosines.max(axis=0).mean()))


def _decimals(vector: NDArray[Any]) -> list[float]:
    """Six decimals, a tenth of what the 16 bits kept of a vector distinguish."""
    values: list[float] = np.round(vector.astype(np.float64), 6).tolist()
    return values


def _joined_category(near: Sequence[_Near]) -> tuple[str, ...]:
    """The category of the nearest segment, if it is related at all."""
    return near[0].category if near and near[0].cosine >= RELATED else ()


def _category(path: object) -> tuple[str, ...] | None:
    with _argument("category_path", "category"):
        category = arguments.category(path)
    return None if not category else () if category == UNSORTED else category


def _prefixes(paths: Collection[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {path[:length] for path in paths for length in range(len(path) + 1)} | {()}


def _part(hit: Hit, name: str) -> float:
    return (hit.channels or {}).get(name, 0.0)


def _hit(result: RouteResult) -> Hit:
    """A result as the packer of contexts takes it."""
    segment = result.segment
    return Hit(
        id=segment.id,
        seq=0,
        version=1,
        text=segment.text,
        namespace=USER,
        category=segment.category_path,
        occurred_at=parse_time(segment.created_at, "created_at"),
        recorded_at=datetime.now(UTC),
        score=result.total_score,
        channels={"sim": result.similarity, "priority": result.priority_score, "category": result.category_score},
    )


def _unit(value: float) -> float:
    return min(1.0, max(0.0, float(value)))


def _number(argument: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput(argument, f"{shown(value)} is no finite number", mend="give a number")
    return float(value)


@contextmanager
def _argument(name: str, inner: str) -> Iterator[None]:
    """An InvalidInput of ``inner`` under the name the caller knows."""
    try:
        yield
    except InvalidInput as error:
        if error.argument != inner:
            raise
        raise type(error)(name, error.problem.removeprefix(f"{inner}: "), mend=error.mend) from error
