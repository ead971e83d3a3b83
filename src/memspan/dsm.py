"""``DynamicSegmentedMemory``: the public API of DSM (narelabs/dsm) over the engine.

Code written for it runs with the import changed. Segments, categories and links live in a ``Memory``, here called
``engine``: a segment is a session of it, and each of its pieces fits the encoder. What differs from the original:

- A write looks its nearest segments up in the vector index, and reads and scores those alone; the original scores every
  segment of the store on each write. A merge takes longer the more has been merged into that segment.
- White space is kept, also when a text is split at ``segment_token_limit`` words.
- A near-duplicate is added to the segment it repeats as a piece of its own: what was there stays, word for word. Where
  the original would cut the oldest words to stay within the limit, the new text begins a segment of its own.
- Contexts are counted as a whole by the encoder's tokenizer, and their texts are quoted.
- What is returned are values: they are changed by ``write`` and the like, not by assignment.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from memspan import arguments
from memspan.activations.tokens import Activation
from memspan.archives.dsm import (
    LIMITS,
    MOST_TOKENS,
    UNSORTED,
    CategoryPath,
    MemorySegment,
    PriorityVector,
    SegmentFile,
    contents,
    prefixes,
)
from memspan.context import pack_active
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import InvalidInput, NotFound
from memspan.quotation import SUMMARY
from memspan.records import Hit, Segment
from memspan.segmented import TEXT, USER, About, Near, Segmented, Vectors, likeness, mean, text_of
from memspan.segmenting import WordTokenizer, check_text, parse_time, shown, summary
from memspan.store import AUTO

__all__ = [
    "ActiveContext",
    "DynamicSegmentedMemory",
    "MemorySegment",
    "PriorityVector",
    "RouteResult",
    "sparse_attention_cost",
]

RECIPE = "dsm"
SAME = 0.84  # cosine from which a text is a near-duplicate
BARELY = 0.83  # the same, of a vector that was rounded to 16 bits
REPEATED = 0.999  # cosine of a text with itself, at least
ANSWERED = 0.62  # cosine of a question with the segment that its answer is added to
RELATED = 0.58  # cosine from which segments are linked, and a text without a category joins that of its nearest one
MOST_LINKS = 4
NOT_REACHED = 99


@runtime_checkable
class EmbeddingModel(Protocol):
    """The original's: one text in, its vector out."""

    @property
    def dim(self) -> int: ...

    def encode(self, text: str) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class RouteResult:
    """A segment a query led to. ``similarity``: cosine of the piece that answers best, negative ones as 0.
    ``priority_score``: by its PriorityVector, before this access. ``graph_distance``: hops from what the query found by
    itself, 99 where the graph does not reach. ``total_score``: the engine's, in [0, 1].
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

    ``storage_path``: a ``.json`` file of the original, read now if it is there and written by ``save`` alone; or a
    directory, which is a memspan store and durable at every write. None keeps everything in memory and writes nowhere,
    where the original would use a file in the working directory: ``save(path)`` then says where.
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
        self._file = SegmentFile(path) if path is not None and is_file else None
        self._directory = None if is_file else path
        self._targets = {} if self._file is None else {self._file.path: self._file}  # the files that save() writes
        self._paths: list[CategoryPath] = []  # a file's categories, of which some may be empty
        self._room: dict[str, int] = {}  # words that segments have room for, of those that had no room for a text
        self._lock = threading.RLock()
        with _argument("embedding_model", "encoder"):
            self.engine = Segmented(self._directory or ":memory:", encoder=_encoder(embedding_model))
        try:
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
        with _argument("category_path", "category"):
            category = arguments.category(category_path) or None
        about = About(
            description=check_text(description, "description") if description else None,
            category=() if category == UNSORTED else category,
            metadata=arguments.metadata(metadata),
            importance=arguments.importance(importance),
        )
        with self._lock:
            ids: list[str] = []
            for chunk in _chunks(check_text(text, "text"), self.segment_token_limit):
                ids.append(self._write(chunk, about, update_existing, link_related, ids))
            return [self.segments[id] for id in ids]

    def _write(self, text: str, about: About, update_existing: bool, link_related: bool, beside: Sequence[str]) -> str:
        """The id of the segment that ``text`` is in now; none of those ``beside`` it, which are of the same write."""
        id = uuid.uuid4().hex
        batch = self.engine.draft(id, text, about)
        given = self.engine.encoded(batch)
        own = np.array([given[draft.content].pooled for draft in batch.drafts if draft.role == TEXT and given])
        own = own.astype(np.float32)
        words = len(text.split())
        near = self.engine.near(mean(own), MOST_LINKS, lambda id: self._full(id, words)) if len(own) else []
        twin = self._twin(text, own, [each for each in near if each.id not in beside]) if update_existing else None
        if twin is not None:
            pieces, similarity = twin
            id, head, category = str(pieces[0].session), pieces[0].id, pieces[0].category
            self._merge(pieces, text, about, similarity, 0.05, given)
        else:
            category = _joined(near) if about.category is None else about.category
            batch.drafts = [replace(draft, category=category) for draft in batch.drafts]
            head = self.engine.remember([batch], given).ids[0]
        if link_related:
            self._link(id, head, category, near)
        return id

    def _twin(self, text: str, own: Vectors, near: Sequence[Near]) -> tuple[list[Segment], float] | None:
        """The pieces of the segment that ``text`` is a near-duplicate of and fits into, and their similarity."""
        best: tuple[list[Segment], float] | None = None
        words, read = len(text.split()), 0
        least = BARELY if len(own) == 1 else RELATED
        for candidate in near:
            no_room = candidate.cosine < REPEATED and self._full(candidate.id, words)
            if candidate.cosine < least or no_room or read == MOST_LINKS:
                continue
            read += 1
            if not (pieces := self.engine.pieces(candidate.id)):  # removed since it was found
                continue
            before = text_of(pieces)
            similarity = 1.0 if text in before else likeness(own, self.engine.vectors(pieces))
            if similarity < (best[1] if best else SAME):
                continue
            if self._fits(before, text):
                best = pieces, similarity
            else:
                self._room[candidate.id] = self.segment_token_limit - len(before.split())
        return best

    def _full(self, id: str, words: int) -> bool:
        """Whether a segment is known to have no room for so many more words."""
        return self._room.get(id, words) < words

    def _fits(self, before: str, text: str) -> bool:
        return text in before or len(before.split()) + len(text.split()) <= self.segment_token_limit

    def _merge(
        self,
        pieces: Sequence[Segment],
        text: str,
        about: About,
        similarity: float,
        boost: float,
        given: Mapping[bytes, Activation],
    ) -> None:
        """Add to a segment what it does not say yet; its metadata and importance are those of its first piece."""
        head, id = pieces[0], str(pieces[0].session)
        metadata = arguments.metadata({**head.metadata, **about.metadata})
        importance = max(head.importance, about.importance)
        used = self.engine.used({id: pieces})[id]
        if text not in text_of(pieces):
            batch = self.engine.draft(id, text, About(category=head.category, importance=importance))
            self.engine.remember([batch], given or self.engine.encoded(batch))
        self.engine.describe(id, pieces, replace(about, category=head.category, importance=importance))
        if (importance, metadata) != (head.importance, head.metadata):
            self.engine.update(head.id, importance=importance, metadata=metadata)
        self.engine.repeated(head, similarity)
        self.engine.uses[id] = replace(used, priorities=used.priorities.touched(similarity, boost))
        told = self.engine.told.get(id, {})
        told.pop("updated_at", None)
        if about.description is not None:
            told.pop("description", None)

    def _link(self, id: str, head: str, category: CategoryPath, near: Sequence[Near]) -> None:
        """Link a segment, whose first piece is ``head``, to the nearest of those that are close enough or share the
        first two steps of its category."""
        related = [
            other
            for other in near
            if other.id != id and (other.cosine >= RELATED or (category and other.category[:2] == category[:2]))
        ]
        for other in related[:MOST_LINKS]:
            with suppress(NotFound):  # removed since it was found
                self.engine.link(head, other.piece, weight=min(max(other.cosine, 0.01), 1.0))

    def update_from_interaction(
        self, query: str, answer: str, *, importance: float = 0.6, metadata: Mapping[str, Any] | None = None
    ) -> list[MemorySegment]:
        """Remember an answer with the segment its question leads to (cosine of at least 0.62), else as a new one.

        Raises InvalidInput, StoreError.
        """
        text = f"Query: {check_text(query, 'query')}\nAnswer: {check_text(answer, 'answer')}"
        about = About(metadata=arguments.metadata(metadata), importance=arguments.importance(importance))
        with self._lock:
            for best in self.route(query, k=1):
                if best.similarity >= ANSWERED and self._fits(best.segment.text, text):
                    self._merge(self.engine.pieces(best.segment.id), text, about, best.similarity, 0.08, {})
                    return [self.segments[best.segment.id]]
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
        it count as not reached; the engine follows two at most, and at 0 the graph is not asked. ``similarity_floor``:
        what is less similar is left out. Raises InvalidInput, StoreError.
        """
        count = self.active_segment_limit if k is None else arguments.count("k", k)
        beam = arguments.count("category_beam", category_beam)
        hops = arguments.count("graph_hops", graph_hops, least=0)
        floor = arguments.number("similarity_floor", similarity_floor)
        asked = check_text(query, "query")
        with self._lock:
            best = self.engine.answers(asked, count, RECIPE if hops else f"{RECIPE}-graph", floor)
            found = [(hit, pieces) for hit in best if (pieces := self.engine.pieces(str(hit.session)))]
            scored = sorted(((_part(hit, "category"), pieces[0].category) for hit, pieces in found), reverse=True)
            lending = list(dict.fromkeys(category for _, category in scored))[:beam]
            return [self._result(hit, pieces, hops, pieces[0].category in lending) for hit, pieces in found]

    def _result(self, hit: Hit, pieces: Sequence[Segment], hops: int, lends: bool) -> RouteResult:
        """A hit as a result; that it was returned counts as an access."""
        id = str(hit.session)
        used = self.engine.used({id: pieces})[id]
        now, similarity, nearness = time.time(), _part(hit, "semantic"), _part(hit, "graph")
        distance = round(1 / nearness) - 1 if nearness > 0 else NOT_REACHED
        self.engine.uses[id] = replace(
            used,
            priorities=used.priorities.touched(similarity),
            last_accessed_at=now,
            access_count=used.access_count + 1,
        )
        return RouteResult(
            segment=self.engine.segment(id, pieces),
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
                tokenizer=self.engine.counter,
                describe=lambda hit: summary(results[hit.id].segment.description),
            )
        return ActiveContext(
            query=query,
            selected=[results[citation.ids[0]] for citation in packed.citations],
            context_text=packed.text,
            token_budget=budget,
            estimated_tokens=packed.tokens,
            global_summary=packed.text.split("\n\n---\n\n")[1].split(f"{SUMMARY}\n")[1],
        )

    # Care

    def rebuild_structure(self) -> int:
        """Build the engine's views anew, link what has no links, and place what has no category.

        A category that somebody named is kept. Returns how many segments were moved.
        """
        self.engine.rebuild()
        moved = 0
        with self._lock:
            for id, pieces in self.engine.groups().items():
                vectors = self.engine.vectors(pieces)
                near = self.engine.near(mean(vectors), MOST_LINKS + 1) if len(vectors) else []
                placed = [other for other in near if other.id != id and other.category]
                category = pieces[0].category or _joined(placed)
                if category != pieces[0].category:
                    moved += 1
                    for piece in pieces:
                        self.engine.update(piece.id, category=category)
                if not self.engine.links({id: pieces})[id]:
                    self._link(id, pieces[0].id, category, near)
        return moved

    def prune(
        self,
        *,
        max_segments: int | None = None,
        min_priority: float = 0.08,
        archive_path: str | os.PathLike[str] | None = None,
    ) -> list[MemorySegment]:
        """Remove the segments with a priority below ``min_priority``, then the lowest until ``max_segments`` are left.

        They are first added to the file ``archive_path``, which opens like a storage path: when that cannot be written,
        nothing is removed. Returns what was removed. Raises InvalidInput, StoreError.
        """
        given = sys.maxsize if max_segments is None else max_segments
        most = arguments.count("max_segments", given, least=0, most=sys.maxsize)
        least = arguments.number("min_priority", min_priority)
        with _argument("archive_path", "path"):
            archive = None if archive_path is None else SegmentFile(arguments.path(archive_path))
        if archive is not None and self._file is not None and archive.path.resolve() == self._file.path.resolve():
            raise InvalidInput("archive_path", "is the file of this memory", mend="name another file")
        with self._lock:
            groups, now = self.engine.groups(), time.time()
            used = self.engine.used(groups).items()
            totals = {id: use.priorities.total(0.0, now - use.last_accessed_at) for id, use in used}
            low = sum(total < least for total in totals.values())
            over = len(totals) - most
            ids = sorted(totals, key=lambda id: totals[id])[: max(low, over)]
            removed = [self.engine.segment(id, groups[id]) for id in ids]
            if removed and archive is not None:
                archive.archive(removed)
            self.engine.erase([piece.id for id in ids for piece in groups[id]])
            for id in ids:
                self.engine.uses.pop(id, None)
                self.engine.told.pop(id, None)
                self._room.pop(id, None)
        return removed

    def decay_priorities(self, amount: float = 0.02) -> None:
        """Lower the recency of every segment by ``amount`` in [0, 1], and its relevance by two fifths of it.

        However many segments there are, the decay is noted once, and counted where a segment is read.
        """
        by = arguments.number("amount", amount)
        if not 0 <= by <= 1:
            raise InvalidInput("amount", f"{shown(amount)} is outside [0, 1]", mend="give a number from 0 to 1")
        with self._lock:
            self.engine.decay(by)

    def stats(self) -> dict[str, Any]:
        """How many segments, categories (with the root) and links, words in all, pieces indexed, and the limits."""
        with self._lock:
            groups = self.engine.groups()
            paths = {pieces[0].category or UNSORTED for pieces in groups.values()}
            return {
                "segments": len(groups),
                "categories": len(prefixes(paths.union(self._paths))),
                "graph_edges": sum(map(len, self.engine.links(groups).values())) // 2,
                "estimated_tokens": sum(len(text_of(pieces).split()) for pieces in groups.values()),
                "index_size": sum(map(len, groups.values())) - self.engine.waiting(),
                **self._limits(),
            }

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the original's file: the one this memory was opened with, or a new one at ``path``.

        Written aside and put in place whole. A directory is durable without it: then it folds new writes into the
        indexes. Raises InvalidInput when it is not known where, and StoreError for a file that somebody else changed.
        """
        target = None if path is None else arguments.path(path)
        with self._lock:
            file = self._file if target is None else self._targets.setdefault(target, SegmentFile(target))
            if file is not None:
                segments = [self.engine.segment(id, pieces) for id, pieces in self.engine.groups().items()]
                file.write(contents(segments, self._limits(), self.engine.dim, self._paths, self.engine.vector))
            elif self._directory is not None:
                self.engine.compact()
            else:
                mend = "say save('memory.json'), or open it with a storage_path"
                raise InvalidInput("path", "is missing: this memory was opened without one", mend=mend)

    def _limits(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in LIMITS}

    def load(self) -> None:
        """Read the file again and let go of what was not saved; a directory is always read as it is.

        Raises InvalidInput without a storage_path, NotFound without the file, StoreCorrupt, NotAStore, NewerStore.
        """
        if self._file is None:
            if self._directory is None:
                raise InvalidInput("storage_path", "is None: there is nothing to load", mend="open it with a path")
            return
        stored = self._file.read()
        with self._lock:
            engine = Segmented(":memory:", encoder=self.engine.model)
            try:
                engine.take_over(stored)
            except BaseException:
                engine.close()
                raise
            before, self.engine = self.engine, engine
            before.close()
            self._room = {}
            self._limit(*(stored.limits.get(name, getattr(self, name)) for name in LIMITS))
            self._paths = list(stored.paths)
            self._file.seen = stored.digest

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
        with self._memory._lock, suppress(InvalidInput):  # what cannot be an id is none
            if pieces := self._memory.engine.pieces(id):
                return self._memory.engine.segment(id, pieces)
        raise KeyError(id)

    def __iter__(self) -> Iterator[str]:
        with self._memory._lock:
            return iter(self._memory.engine.ids())

    def __len__(self) -> int:
        with self._memory._lock:
            return len(self._memory.engine.heads())


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
        norms: NDArray[np.float32] = np.linalg.norm(rows, axis=-1, keepdims=True)
        return Encoded(np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0))


def _encoder(model: EmbeddingModel | Encoder | str | None) -> Encoder | str:
    if model is None:
        return AUTO
    if isinstance(model, (str, Encoder)):
        return model
    if isinstance(model, EmbeddingModel):
        return _OneByOne(model)
    mend = "give a spec such as 'minilm', an Encoder, or an object with encode(text) -> list[float] and dim"
    raise InvalidInput("encoder", f"{type(model).__name__} is no encoder", mend=mend)


def _chunks(text: str, words: int) -> Iterator[str]:
    """Stretches of ``words`` words, as they stand in the text."""
    spans = (match.span() for match in re.finditer(r"\S+", text))
    while some := list(islice(spans, words)):
        yield text[some[0][0] : some[-1][1]]


def _joined(near: Sequence[Near]) -> CategoryPath:
    """The category of the nearest segment, if it is related at all."""
    return near[0].category if near and near[0].cosine >= RELATED else ()


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


@contextmanager
def _argument(name: str, inner: str) -> Iterator[None]:
    """An InvalidInput of ``inner`` under the name the caller knows."""
    try:
        yield
    except InvalidInput as error:
        if error.argument != inner:
            raise
        raise type(error)(name, error.problem.removeprefix(f"{inner}: "), mend=error.mend) from error
