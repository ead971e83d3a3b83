"""A query from top to bottom: encode, channels, followers, features, fusion, fetch."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import terms
from memspan.channels import Channel, Follower, Found, Question
from memspan.evidence import Evidence, LateInteraction
from memspan.forgetting import strength
from memspan.fusion import Features, Ranker, fuse, or_zero, probability, ranker
from memspan.ledger.base import Ledger, Seqs, encoded_text
from memspan.projection import Projection
from memspan.recipes import RANKED, RERANK, USUAL, Recipe, recipe_named
from memspan.records import Hit, Query, Scope, Segment, Step
from memspan.rerankers.base import Reranker, scores_of
from memspan.tuning import adjusted, current, key
from memspan.updates import newer_first
from memspan.views.association import Graph, Origin
from memspan.views.base import Scored, Selecting, Selection, find_sorted
from memspan.views.tree import TreeView

CATCH_UP = 256  # segments a search encodes itself before it looks, some 0.3 s at most
STANDING = 64  # rows of which more is asked than what they say
HALF_LIFE = 30 * 86_400e6  # microseconds after which half of a segment's recency is left
STANDING_OUT = 5  # how many rows may stand out by meaning
USES = 10.0  # accesses after which a segment's frequency is 1 - 1/e
TIES = np.float32(0.01)  # of the linear logit: trees give what differs little the same
UPDATES = 10  # of the best, among which the newer goes first
RANKERS = (("late", LateInteraction.name), ("pooled", "semantic"))
"""The shipped ones, and the feature that rows must have for each."""

log = logging.getLogger("memspan")


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows with their score, best first, and each feature: all float32[n], NaN where a row has none."""

    seqs: Seqs
    scores: NDArray[np.float32]
    features: Features
    found: Mapping[str, Found]

    def parts(self, at: int) -> dict[str, float]:
        """The features that row number ``at`` has."""
        return {name: float(part[at]) for name, part in self.features.items() if not np.isnan(part[at])}


class Retrieval:
    """Answers queries from the ledger's views. ``failure`` says why the semantic channel was last left out,
    ``unranked`` why the reranker was, ``recorded`` what the store said of the encoder when this was made."""

    def __init__(
        self,
        ledger: Ledger,
        selections: Selecting,
        channels: Sequence[Channel],
        followers: Sequence[Follower],
        tree: TreeView,
        graph: Graph,
        evidence: Evidence,
        projection: Projection,
        reranker: Reranker | None = None,
    ) -> None:
        self.failure: str | None = None
        self.unranked: str | None = None
        self.recorded = projection.recorded
        self._ledger = ledger
        self._selections = selections
        self._channels = {channel.name: channel for channel in channels}
        self._followers = {follower.name: follower for follower in followers}
        self._tree = tree
        self._graph = graph
        self._evidence = evidence
        self._projection = projection
        self._reranker = reranker

    def search(self, query: Query) -> list[Hit]:
        """At most ``query.k`` hits of at least ``query.threshold``, best first; of equal scores the newer first."""
        hits = self._hits(query, self.ranked(query))
        self._projection.used(query.scope.namespace, hits)
        return hits

    def ranked(self, query: Query) -> Ranked:
        """All candidates for ``query``, at least ``query.k`` where there are so many; they do not count as used."""
        recipe = recipe_named(query.recipe)
        question = self._question(query.text, recipe, query.scope.namespace)
        whole = query.scope == Scope(namespace=query.scope.namespace)
        with self._ledger.reading():
            selection = self.select(query)
            ranked = self.rank(question, recipe, selection, query.k, whole=whole)
            if recipe.wider is not None and ranked.scores.max(initial=0.0) < recipe.gate:
                ranked = self.rank(question, recipe.wider, selection, query.k, whole=whole)
        self._projection.mend(query.scope.namespace)
        return self._reranked(ranked, query, recipe)

    def select(self, query: Query) -> Selection:
        """The rows the query may see."""
        return self._selections.of(query.scope, query.filters, query.as_of)

    def active(self, recipe: str = "default") -> list[str]:
        """The channels and followers a recipe has on this store."""
        chosen = recipe_named(recipe)
        late = [LateInteraction.name] if LateInteraction.name in chosen.evidence and self._evidence.late else []
        last = [RERANK] if chosen.rerank and self._reranker is not None else []
        return [name for name in chosen.channels if name in self._channels] + list(chosen.followers) + late + last

    def _question(self, text: str, recipe: Recipe, namespace: str) -> Question:
        vector = tokens = None
        if "semantic" in self._channels and (recipe.ranked or "semantic" in recipe.channels):
            try:
                encoded = self._projection.encode([text])
                vector = encoded.pooled[0]
                late = self._evidence.late
                if LateInteraction.name in recipe.evidence and late is not None and encoded.tokens:
                    tokens = late.codec.project(encoded.tokens[0])
                self.failure = None
                self._projection.settle(namespace, limit=CATCH_UP)
            except Exception as error:  # noqa: BLE001 - an encoder may be anyone's code; words still find
                message = f"{type(error).__name__}: {error}"
                if message != self.failure:
                    log.warning("memspan: searching by keywords only, the encoder failed: %s", message)
                self.failure = message
        return Question(text, terms(text), vector, tokens)

    def rank(self, question: Question, recipe: Recipe, selection: Selection, k: int, *, whole: bool = True) -> Ranked:
        """The candidates of the recipe's channels and of its followers, scored by all of them, fused and sorted.

        ``whole``: the query may see whatever is in the namespace. Else categories say nothing: what they are about
        follows from what others put in them, and nobody's writes may move another's scores. As of a time they say
        nothing either: they are about what is in them now.
        """
        depth = max(recipe.candidates, k)
        known = (whole or recipe.shared) and selection.as_of is None
        with self._ledger.reading():
            learned = current(self._ledger.value(key(selection.namespace))) if recipe.tuned else None
            found = {
                name: self._channels[name].search(question, selection, depth)
                for name in recipe.channels
                if name in self._channels
            }
            seqs = _union(found)
            own = {name: each.score(seqs) for name, each in found.items() if name in recipe.features}
            features = _with_margin(own)
            logits = fuse(recipe.seeding if recipe.followers else recipe.models, features, len(seqs))
            for _ in range(recipe.rounds if recipe.followers and len(seqs) else 0):
                seeds = Scored(seqs, probability(logits)).top(depth)
                along = {
                    name: self._followers[name].follow(question, selection, seeds, found) for name in recipe.followers
                }
                found |= along
                more = np.setdiff1d(_union(along), seqs, assume_unique=True)
                seqs = np.concatenate([seqs, more])
                own = {name: np.concatenate([part, found[name].score(more)]) for name, part in own.items()}
                features = _with_margin(own) | {name: each.score(seqs) for name, each in along.items()}
                logits = fuse(recipe.models, features, len(seqs))
                if recipe.ranked and question.vector is not None:
                    features |= self._told_apart(question, recipe, selection, seqs, features, logits, found)
            first = np.argsort(-logits, kind="stable")[: max(STANDING, 2 * k)]
            features |= self._standing(question if known else None, recipe, selection.namespace, seqs, first)
        for name, weight in recipe.priorities.items():
            if name in features:
                logits += np.float32(weight) * (or_zero(features[name]) - np.float32(USUAL.get(name, 0.0)))
        logits = adjusted(logits, features, learned)
        order = np.lexsort((-seqs, -logits))
        told = {name: part[order] for name, part in features.items() if name in recipe.features}
        return Ranked(seqs[order], probability(logits[order]), told, found)

    def _told_apart(
        self,
        question: Question,
        recipe: Recipe,
        selection: Selection,
        seqs: Seqs,
        features: Features,
        logits: NDArray[np.float32],
        found: Mapping[str, Found],
    ) -> dict[str, NDArray[np.float32]]:
        """The best by ``logits`` ranked anew, which changes ``logits`` in place; the features that it went by.

        All others keep their order, below the last of these.
        """
        first = np.argsort(-logits, kind="stable")[: recipe.ranked]
        few = {name: part[first] for name, part in features.items()}
        keyword = found["keyword"].score if "keyword" in found else None
        more = self._evidence.of(question, selection, seqs[first], few, keyword, recipe.evidence)
        few |= more
        chosen = next((name for name, needed in RANKERS if needed in few and not np.isnan(few[needed]).all()), None)
        if chosen is not None:
            ranked = _ranked_anew(ranker(chosen), few) + TIES * logits[first].clip(-20)
            np.minimum(logits, ranked.min(), out=logits)
            logits[first] = ranked
            if recipe.updates:
                best = first[np.argsort(-ranked, kind="stable")[:UPDATES]]
                logits[best] = self._newer_first(question.text, selection, seqs[best], logits[best])
        return {name: _spread(part, first, len(seqs), np.nan) for name, part in more.items()}

    def _newer_first(
        self, question: str, selection: Selection, seqs: Seqs, logits: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Of these rows, best first: where two say something of the same thing, the newer above the older."""
        rows = {row.seq: row for row in self._ledger.fetch(selection.namespace, seqs.tolist())}
        known, vectors = self._ledger.vectors_of(selection.namespace, seqs.tolist())
        at, there = find_sorted(known, seqs)
        there &= np.array([seq in rows for seq in seqs.tolist()], bool)
        if there.sum() > 1:
            logits[there] = newer_first(
                question, logits[there], [rows[seq] for seq in seqs[there].tolist()], vectors[at[there]]
            )
        return logits

    def _standing(
        self, question: Question | None, recipe: Recipe, namespace: str, seqs: Seqs, first: NDArray[np.intp]
    ) -> dict[str, NDArray[np.float32]]:
        """What is known of rows beside what they say: how their category suits the question, and their priorities.

        Asked of the ``first`` of ``seqs`` only: it moves a row by little, the others stay as if nothing was known.
        Recency halves every 30 days since a segment was last returned, or else since it happened; strength is what the
        curve of forgetting leaves of it.
        """
        features: dict[str, NDArray[np.float32]] = {}
        if recipe.priorities:
            known = self._ledger.standing(namespace, seqs[first].tolist())
            named = first[known.categorised > 0]
            if question is not None and question.vector is not None and len(named) and "category" in recipe.priorities:
                prior = self._tree.prior(namespace, question.vector, seqs[named])
                features["category"] = _spread(prior, named, len(seqs), np.nan)
            now = time.time() * 1e6
            age = (now - np.maximum(known.heard_at, known.accessed_at)).clip(min=0)
            values = {
                "importance": known.importance,
                "recency": np.exp2(-age / HALF_LIFE),
                "frequency": 1 - np.exp(-known.accesses / USES),
                "relevance": known.relevance,
            }
            if "strength" in recipe.priorities:
                values["strength"] = strength(known, now)
            for name, value in values.items():  # in this order, whatever a set's is in this process
                if name in recipe.priorities:
                    features[name] = _spread(value, first, len(seqs), USUAL.get(name, 0.0))
        return features

    def _reranked(self, ranked: Ranked, query: Query, recipe: Recipe) -> Ranked:
        """With what the reranker makes of the best: their score's logit is the mean of both logits, by the recipe.

        It reads what the encoder read. A row it did not read is lowered as far as the one it lowered most, so that it
        stays below all it read and keeps its place among the rest. When it fails everything stays as it was.
        """
        if self._reranker is None or not recipe.rerank or not len(ranked.seqs):
            return ranked
        first = ranked.seqs[: recipe.rerank].tolist()
        rows = {
            row.seq: encoded_text(row.text, row.speaker, row.heading)
            for row in self._ledger.fetch(query.scope.namespace, first)
            if query.as_of.known is not None or row.ended_at is None
        }
        read = [at for at, seq in enumerate(first) if seq in rows]
        try:
            given = scores_of(self._reranker, query.text, [rows[first[at]] for at in read])
        except Exception as error:  # noqa: BLE001 - a reranker may be anyone's code; its order is not all we have
            message = f"{type(error).__name__}: {error}"
            if message != self.unranked:
                log.warning("memspan: searching without the reranker, it failed: %s", message)
            self.unranked = message
            return ranked
        self.unranked = None
        if not read:
            return ranked
        before = _logit(ranked.scores)
        moved = recipe.reranker * (_logit(given) - before[read])
        after = before + min(moved.min(), 0.0)
        after[read] = before[read] + moved
        scores = probability(after)
        order = np.lexsort((-ranked.seqs, -scores))
        features = {**ranked.features, RERANK: _spread(given, np.array(read, np.intp), len(scores), np.nan)}
        told = {name: part[order] for name, part in features.items()}
        return Ranked(ranked.seqs[order], scores[order], told, ranked.found)

    def _hits(self, query: Query, ranked: Ranked) -> list[Hit]:
        """The best that are still there: what was removed since the views looked makes way for the next."""
        hits: list[Hit] = []
        namespace = query.scope.namespace
        good = int(np.count_nonzero(ranked.scores >= query.threshold))
        start = 0
        while len(hits) < query.k and start < good:
            stop = min(good, start + query.k - len(hits))
            rows = {row.seq: row for row in self._ledger.fetch(namespace, ranked.seqs[start:stop].tolist())}
            for at in range(start, stop):
                row = rows.get(int(ranked.seqs[at]))
                if row is not None and (query.as_of.known is not None or row.ended_at is None):
                    hit = hit_of(row, float(ranked.scores[at]))
                    hits.append(self._explained(namespace, hit, ranked, at) if query.explain else hit)
            start = stop
        return hits

    def _explained(self, namespace: str, hit: Hit, ranked: Ranked, at: int) -> Hit:
        """With the features of the row, and the hops by the follower that gave it most of those that led there."""
        parts = ranked.parts(at)
        strongest = sorted((name for name in self._followers if parts.get(name, 0) > 0), key=lambda name: -parts[name])
        paths = (ranked.found[name].path(hit.seq) for name in strongest)
        return replace(hit, channels=parts, path=self.steps(namespace, next(filter(None, paths), ())))

    def steps(self, namespace: str, path: Sequence[Origin]) -> tuple[Step, ...]:
        """Hops between rows as steps between segments."""
        rows = {row.seq: row.id for row in self._ledger.fetch(namespace, [origin.seq for origin in path])}
        return tuple(
            Step(
                id=rows[origin.seq],
                kind=origin.kind,
                via=self._graph.name_of(namespace, origin.seq, origin.via) if origin.via else None,
            )
            for origin in path
            if origin.seq in rows
        )


def hit_of(row: Segment, score: float) -> Hit:
    """A segment as a hit."""
    return Hit(**{field.name: getattr(row, field.name) for field in fields(row)}, score=score)


def _logit(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n]: of 0 and 1 those of what rounds to them."""
    clipped = probabilities.astype(np.float64).clip(1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _spread(values: NDArray[Any], at: NDArray[np.intp], rows: int, other: float) -> NDArray[np.float32]:
    """float32[rows]: ``values`` at their places, ``other`` everywhere else."""
    whole = np.full(rows, other, np.float32)
    whole[at] = values
    return whole


def _with_margin(own: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """And ``margin``: by how much each row is nearer to the question than the fifth nearest, 0 for the rest.

    Where an answer stands out by meaning, it need not share a word with its question.
    """
    if "semantic" not in own:
        return own
    near = or_zero(own["semantic"])
    rest = len(near) - STANDING_OUT
    bar = np.partition(near, rest)[rest] if rest >= 0 else np.float32(0)
    return own | {"margin": (near - bar).clip(min=0)}


def _ranked_anew(trees: Ranker, features: Features) -> NDArray[np.float32]:
    """float32[n], logits. What the trees were learned on is how rows differ among so many: of more, the best of all are
    ranked once more among themselves, the others below them."""
    logits = trees.logits(features)
    if len(logits) > RANKED:
        best = np.argsort(-logits, kind="stable")[:RANKED]
        again = trees.logits({name: part[best] for name, part in features.items()})
        logits = np.minimum(logits, again.min())
        logits[best] = again
    return logits


def _union(found: Mapping[str, Found]) -> Seqs:
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(each.best.seqs for each in found.values())]))
