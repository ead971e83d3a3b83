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
from memspan.channels import Channel, Follower, Found, LateInteraction, Question
from memspan.errors import InvalidInput
from memspan.fusion import Features, Model, fuse, or_zero
from memspan.ledger.base import Ledger, Seqs, encoded_text
from memspan.projection import Projection
from memspan.records import Hit, Query, Scope, Segment, Step
from memspan.rerankers.base import Reranker, scores_of
from memspan.segmenting import shown
from memspan.tuning import adjusted, current, key
from memspan.views.base import Scored, Selection, Selections
from memspan.views.graph import GraphView, Origin
from memspan.views.tree import TreeView

CANDIDATES = 64  # per channel: recall@10 is on every set what it is with 100
CATCH_UP = 256  # segments a search encodes itself before it looks, some 0.3 s at most
LATE = 64  # of which the token matrices are read: recall@10 is on every set what it is with 200
RERANK = "rerank"
TUNING = "tuning"
RERANKED = 32  # of which a reranker reads the text: some 0.6 s of a model of six layers on two busy cores
RERANKER = 2 / 3  # its part: it decides but between what it finds alike; by judgement, docs/decisions/0011-reranker.md
STANDING = 64  # rows of which more is asked than what they say
HALF_LIFE = 30 * 86_400e6  # microseconds after which half of a segment's recency is left
STANDING_OUT = 5  # how many rows may stand out by meaning
USES = 10.0  # accesses after which a segment's frequency is 1 - 1/e
STATED = ("category", "importance", "recency", "frequency", "relevance")

log = logging.getLogger("memspan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which channels propose, which followers go on from what they found, and how their scores become one.

    ``models`` by the features a row has, most first. ``seeding`` scores what the channels found, for the followers.
    ``late``: how many of the best by those models are scored by late interaction too, where tokens are kept.
    ``rerank``: of how many of the best of all that a reranker, where the store has one, reads the text, and
    ``reranker`` in [0, 1] its part in their score, in logits.
    ``shared``: what others put in the namespace may move scores in a narrower scope: what categories are about.
    ``tuned``: what was learned from judgements in the namespace is added.
    """

    channels: tuple[str, ...]
    models: tuple[Model, ...]
    followers: tuple[str, ...] = ()
    seeding: tuple[Model, ...] = ()
    candidates: int = CANDIDATES
    late: int = 0
    rerank: int = RERANKED
    reranker: float = RERANKER
    shared: bool = False
    tuned: bool = False

    @property
    def features(self) -> frozenset[str]:
        """The names of all features that its models read."""
        return frozenset(name for model in self.models for name in (*model.weights, *model.extras))


_FITTED = (
    "fitted by logistic regression on the candidates of the tuning halves of LoCoMo, RealTalk, BEAM 100K, MuSiQue,"
    " HotpotQA and Cranfield, each set weighing the same, rounded; 2026-11-21, docs/decisions/0005-first-fusion.md"
)
BOTH = Model(bias=-6.7, weights={"semantic": 5.0, "keyword": 5.5}, provenance=_FITTED)
KEYWORD = Model(bias=-5.2, weights={"keyword": 8.1}, provenance=_FITTED)
SEMANTIC = Model(bias=-7.0, weights={"semantic": 7.7}, provenance=_FITTED)

_ALONG = (
    "weights of margin, next and mentions chosen on the same sets and on 100 needles, scale and bias fitted;"
    " 2026-11-24, docs/decisions/0008-graph.md; category and priorities by judgement: no set tells"
)
_LATE = (
    "fitted listwise on the candidates of the tuning halves of LoCoMo, RealTalk, BEAM 100K, MuSiQue, HotpotQA and"
    " Cranfield, each set weighing the same, rounded; scale and bias by logistic regression; margin for needles;"
    " 2026-11-26, docs/decisions/0010-activations.md"
)
INTERACTING = Model(
    bias=-7.7,
    weights={"semantic": 0.6, "keyword": 2.0, "maxsim": 3.9, "window": 3.6},
    extras={"margin": 5.8, "next": 1.75, "mentions": 1.3, "named": 0.4},
    provenance=_LATE,
)
SEEDING = (replace(BOTH, extras={"margin": 10.0}), KEYWORD)
ASSOCIATED = {"margin": 10.0, "next": 2.3, "mentions": 1.15, "named": 0.6, "category": 0.5, "importance": 0.5}
PRIORITISED = ASSOCIATED | {"recency": 0.3, "frequency": 0.3, "relevance": 0.3, "graph": 0.3}


def _models(extras: Mapping[str, float]) -> tuple[Model, ...]:
    """With ``extras`` on top; importance and relevance count from 0.5, what a segment has unless somebody says."""
    usual = 0.5 * sum(extras.get(name, 0.0) for name in ("importance", "relevance"))
    late = replace(INTERACTING, bias=INTERACTING.bias - usual, extras={**extras, **INTERACTING.extras})
    return (
        late,
        Model(bias=-5.9 - usual, weights={"semantic": 3.8, "keyword": 4.2}, extras=extras, provenance=_ALONG),
        Model(bias=-4.8 - usual, weights={"keyword": 6.2}, extras=extras, provenance=_ALONG),
    )


RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(
        channels=("semantic", "keyword"),
        followers=("next", "mentions", "named"),
        seeding=SEEDING,
        models=_models(ASSOCIATED),
        late=LATE,
        tuned=True,
    ),
    "dsm": Recipe(
        channels=("tree", "semantic", "keyword"),
        followers=("next", "mentions", "named", "graph"),
        seeding=SEEDING,
        models=_models(PRIORITISED),
        late=LATE,
        shared=True,
        tuned=True,
    ),
    "flat": Recipe(channels=("semantic", "keyword"), models=(BOTH, KEYWORD)),
    "semantic": Recipe(channels=("semantic",), models=(SEMANTIC,)),
    "keyword": Recipe(channels=("keyword",), models=(KEYWORD,)),
}


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
        selections: Selections,
        channels: Sequence[Channel],
        followers: Sequence[Follower],
        tree: TreeView,
        graph: GraphView,
        late: LateInteraction | None,
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
        self._late = late
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
        ranked = self.rank(question, recipe, self.select(query), query.k, whole=whole)
        self._projection.mend(query.scope.namespace)
        return self._reranked(ranked, query, recipe)

    def select(self, query: Query) -> Selection:
        """The rows the query may see."""
        return self._selections.of(query.scope, query.filters, query.as_of)

    def active(self, recipe: str = "default") -> list[str]:
        """The channels and followers a recipe has on this store."""
        chosen = recipe_named(recipe)
        late = [self._late.name] if chosen.late and self._late is not None else []
        last = [RERANK] if chosen.rerank and self._reranker is not None else []
        return [name for name in chosen.channels if name in self._channels] + list(chosen.followers) + late + last

    def _question(self, text: str, recipe: Recipe, namespace: str) -> Question:
        vector = tokens = None
        if "semantic" in recipe.channels and "semantic" in self._channels:
            try:
                encoded = self._projection.encode([text])
                vector = encoded.pooled[0]
                if recipe.late and self._late is not None and encoded.tokens:
                    tokens = self._late.codec.project(encoded.tokens[0])
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
            if recipe.followers and len(seqs):
                seeds = Scored(seqs, fuse(recipe.seeding, features, len(seqs))).top(depth)
                along = {
                    name: self._followers[name].follow(question, selection, seeds, found) for name in recipe.followers
                }
                more = np.setdiff1d(_union(along), seqs, assume_unique=True)
                seqs = np.concatenate([seqs, more])
                features = _with_margin(
                    {name: np.concatenate([part, found[name].score(more)]) for name, part in own.items()}
                )
                features |= {name: each.score(seqs) for name, each in along.items()}
                found |= along
                if recipe.late and self._late is not None:
                    features |= self._interaction(self._late, question, recipe, selection, seqs, features)
                first = np.argsort(-fuse(recipe.models, features, len(seqs)))[: max(STANDING, 2 * k)]
                features |= self._standing(question if known else None, recipe, selection.namespace, seqs, first)
        scores = adjusted(fuse(recipe.models, features, len(seqs)), features, learned)
        order = np.lexsort((-seqs, -scores))
        told = {name: part[order] for name, part in features.items() if name in recipe.features}
        return Ranked(seqs[order], scores[order], told, found)

    def _interaction(
        self,
        late: LateInteraction,
        question: Question,
        recipe: Recipe,
        selection: Selection,
        seqs: Seqs,
        features: Features,
    ) -> dict[str, NDArray[np.float32]]:
        """MaxSim of the best of ``seqs`` by what is known so far, and of each with the turns beside it as one text."""
        first = np.argsort(-fuse(recipe.models, features, len(seqs)))[: recipe.late]
        beside = self._graph.beside(selection, seqs[first])
        own, window = late.score(question, selection.namespace, seqs[first], beside)
        return {
            "maxsim": _spread(own, first, len(seqs), np.nan),
            "window": _spread(window, first, len(seqs), np.nan),
        }

    def _standing(
        self, question: Question | None, recipe: Recipe, namespace: str, seqs: Seqs, first: NDArray[np.intp]
    ) -> dict[str, NDArray[np.float32]]:
        """What is known of rows beside what they say: how their category suits the question, and their priorities.

        Asked of the ``first`` of ``seqs`` only: it moves a row by little, the others stay as if nothing was known.
        Recency halves every 30 days since a segment was last returned, or else since it happened.
        """
        features: dict[str, NDArray[np.float32]] = {}
        if recipe.features.intersection(STATED):
            known = self._ledger.standing(namespace, seqs[first].tolist())
            named = first[known.categorised > 0]
            if question is not None and question.vector is not None and len(named) and "category" in recipe.features:
                prior = self._tree.prior(namespace, question.vector, seqs[named])
                features["category"] = _spread(prior, named, len(seqs), np.nan)
            age = (time.time() * 1e6 - np.maximum(known.heard_at, known.accessed_at)).clip(min=0)
            values = {
                "importance": (known.importance, 0.5),
                "recency": (np.exp2(-age / HALF_LIFE), 0.0),
                "frequency": (1 - np.exp(-known.accesses / USES), 0.0),
                "relevance": (known.relevance, 0.5),
            }
            for name, (value, usual) in values.items():  # in this order, whatever a set's is in this process
                if name in recipe.features:
                    features[name] = _spread(value, first, len(seqs), usual)
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
            if query.as_of is not None or row.ended_at is None
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
        scores = np.asarray(1 / (1 + np.exp(-after)), np.float32)
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
                if row is not None and (query.as_of is not None or row.ended_at is None):
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


def recipe_named(name: str) -> Recipe:
    """The recipe called ``name``; "default-next" is the default one without the follower ``next``, "default-maxsim" the
    one without late interaction, "default-rerank" the one without a reranker, "default-tuning" as it is shipped.

    Raises InvalidInput.
    """
    known, *without = name.split("-") if isinstance(name, str) else ("",)
    recipe = RECIPES.get(known)
    late = [LateInteraction.name] if recipe is not None and recipe.late else []
    if recipe is None or not set(without) <= {*recipe.followers, *late, RERANK, TUNING}:
        raise InvalidInput("recipe", f"there is no {shown(name)}", mend=f"use one of {', '.join(RECIPES)}")
    followers = tuple(part for part in recipe.followers if part not in without)
    return replace(
        recipe,
        followers=followers,
        late=0 if LateInteraction.name in without else recipe.late,
        rerank=0 if RERANK in without else recipe.rerank,
        tuned=recipe.tuned and TUNING not in without,
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


def _with_margin(features: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """And ``margin``: by how much each row is nearer to the question than the fifth nearest, 0 for the rest.

    Where an answer stands out by meaning, it need not share a word with its question.
    """
    if "semantic" not in features:
        return features
    near = or_zero(features["semantic"])
    rest = len(near) - STANDING_OUT
    bar = np.partition(near, rest)[rest] if rest >= 0 else np.float32(0)
    return features | {"margin": (near - bar).clip(min=0)}


def _union(found: Mapping[str, Found]) -> Seqs:
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(each.best.seqs for each in found.values())]))
