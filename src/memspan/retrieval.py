"""A query from top to bottom: encode, channels, features, fusion, fetch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from memspan import fusion
from memspan.analysis import terms
from memspan.channels import Channel, Question
from memspan.errors import InvalidInput
from memspan.fusion import Model
from memspan.ledger.base import Ledger, Seqs
from memspan.projection import Projection
from memspan.records import Hit, Query, Segment
from memspan.segmenting import shown
from memspan.views.base import Selection, Selections

CANDIDATES = 100  # per channel: recall of the union is within 0.5 points of taking 300
CATCH_UP = 256  # segments a search encodes itself before it looks, some 0.3 s at most

log = logging.getLogger("memspan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which channels propose and how their scores become one. ``models`` by the features a row has, most first."""

    channels: tuple[str, ...]
    models: tuple[Model, ...]
    candidates: int = CANDIDATES


_FITTED = (
    "fitted by logistic regression on the candidates of the tuning halves of LoCoMo, RealTalk, BEAM 100K, MuSiQue,"
    " HotpotQA and Cranfield, each set weighing the same, rounded; 2026-11-21, docs/decisions/0005-first-fusion.md"
)
BOTH = Model(bias=-6.7, weights={"semantic": 5.0, "keyword": 5.5}, provenance=_FITTED)
KEYWORD = Model(bias=-5.2, weights={"keyword": 8.1}, provenance=_FITTED)
SEMANTIC = Model(bias=-7.0, weights={"semantic": 7.7}, provenance=_FITTED)

RECIPES: Mapping[str, Recipe] = {
    "default": Recipe(channels=("semantic", "keyword"), models=(BOTH, KEYWORD)),
    "semantic": Recipe(channels=("semantic",), models=(SEMANTIC,)),
    "keyword": Recipe(channels=("keyword",), models=(KEYWORD,)),
}


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows with their score, best first, and each channel's part: all float32[n], NaN where a channel has none."""

    seqs: Seqs
    scores: NDArray[np.float32]
    parts: Mapping[str, NDArray[np.float32]]


class Retrieval:
    """Answers queries from the ledger's views. ``failure`` says why the semantic channel was last left out."""

    def __init__(
        self, ledger: Ledger, selections: Selections, channels: Sequence[Channel], projection: Projection
    ) -> None:
        self.failure: str | None = None
        self._ledger = ledger
        self._selections = selections
        self._channels = {channel.name: channel for channel in channels}
        self._projection = projection

    def search(self, query: Query) -> list[Hit]:
        """At most ``query.k`` hits of at least ``query.threshold``, best first; of equal scores the newer first."""
        recipe = recipe_named(query.recipe)
        question = self._question(query.text, recipe, query.scope.namespace)
        ranked = self.rank(question, recipe, self.select(query), query.k)
        self._projection.mend(query.scope.namespace)
        return self._hits(query, ranked)

    def select(self, query: Query) -> Selection:
        """The rows the query may see."""
        return self._selections.of(query.scope, query.filters, query.as_of)

    def active(self, recipe: str = "default") -> list[str]:
        """The channels a recipe has on this store."""
        return [name for name in recipe_named(recipe).channels if name in self._channels]

    def _question(self, text: str, recipe: Recipe, namespace: str) -> Question:
        vector = None
        if "semantic" in recipe.channels and "semantic" in self._channels:
            try:
                vector = self._projection.encode([text])[0]
                self.failure = None
                self._projection.settle(namespace, limit=CATCH_UP)
            except Exception as error:  # noqa: BLE001 - an encoder may be anyone's code; words still find
                message = f"{type(error).__name__}: {error}"
                if message != self.failure:
                    log.warning("memspan: searching by keywords only, the encoder failed: %s", message)
                self.failure = message
        return Question(text, terms(text), vector)

    def rank(self, question: Question, recipe: Recipe, selection: Selection, k: int) -> Ranked:
        """The candidates of all the recipe's channels, each scored by all of them, fused and sorted."""
        depth = max(recipe.candidates, k)
        found = {
            name: self._channels[name].search(question, selection, depth)
            for name in recipe.channels
            if name in self._channels
        }
        seqs = np.unique(np.concatenate([np.zeros(0, np.int64), *(each.best.seqs for each in found.values())]))
        parts = {name: each.score(seqs) for name, each in found.items()}
        scores = _fuse(recipe, parts, len(seqs))
        order = np.lexsort((-seqs, -scores))
        return Ranked(seqs[order], scores[order], {name: part[order] for name, part in parts.items()})

    def _hits(self, query: Query, ranked: Ranked) -> list[Hit]:
        """The best that are still there: what was removed since the views looked makes way for the next."""
        hits: list[Hit] = []
        good = int(np.count_nonzero(ranked.scores >= query.threshold))
        start = 0
        while len(hits) < query.k and start < good:
            stop = min(good, start + query.k - len(hits))
            rows = {row.seq: row for row in self._ledger.fetch(query.scope.namespace, ranked.seqs[start:stop].tolist())}
            for at in range(start, stop):
                row = rows.get(int(ranked.seqs[at]))
                if row is not None and (query.as_of is not None or row.ended_at is None):
                    parts = {name: float(part[at]) for name, part in ranked.parts.items() if not np.isnan(part[at])}
                    hits.append(hit_of(row, float(ranked.scores[at]), parts if query.explain else None))
            start = stop
        return hits


def recipe_named(name: str) -> Recipe:
    """The recipe called ``name``. Raises InvalidInput."""
    if not isinstance(name, str) or name not in RECIPES:
        raise InvalidInput("recipe", f"there is no {shown(name)}", mend=f"use one of {', '.join(RECIPES)}")
    return RECIPES[name]


def hit_of(row: Segment, score: float, channels: Mapping[str, float] | None = None) -> Hit:
    """A segment as a hit."""
    return Hit(**{field.name: getattr(row, field.name) for field in fields(row)}, score=score, channels=channels)


def _fuse(recipe: Recipe, parts: Mapping[str, NDArray[np.float32]], rows: int) -> NDArray[np.float32]:
    """Each row by the first model all of whose features it has; 0 where it has none."""
    scores = np.zeros(rows, np.float32)
    left = np.ones(rows, bool)
    for model in recipe.models:
        if all(name in parts for name in model.weights):
            has = left & ~np.any([np.isnan(parts[name]) for name in model.weights], axis=0)
            scores[has] = fusion.score(model, {name: parts[name][has] for name in model.weights})
            left &= ~has
    return scores
