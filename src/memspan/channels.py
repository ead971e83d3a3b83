"""All retrievers side by side. A channel proposes rows and can score any row of the selection; a follower does the same
from what the channels found, along the graph.

A new one is one class here, a name in a recipe of ``recipes.RECIPES``, and its weight there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs, names_in
from memspan.views.association import Graph, Origin, Reached
from memspan.views.base import Scored, Scorer, Selection
from memspan.views.lexical import LexicalIndex
from memspan.views.tree import TreeView
from memspan.views.vectors import VectorIndex


@dataclass(frozen=True, slots=True)
class Question:
    """A query as the channels need it: analysed ``terms``, its ``vector`` float32[dim] where there is an encoder, and
    ``tokens``, float32[q, d] as ``TokenCodec.project`` gives them, where token activations are kept."""

    text: str
    terms: Sequence[str]
    vector: NDArray[np.float32] | None
    tokens: NDArray[np.float32] | None = None


def _nowhere(seq: int) -> Sequence[Origin]:
    return ()


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: its best rows; the score float32[n] it gives to any (NaN: it cannot say); how it came to a row."""

    best: Scored
    score: Scorer
    path: Callable[[int], Sequence[Origin]] = _nowhere


class Channel(Protocol):
    """Scores are in [0, 1], higher is better."""

    name: str

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        """The ``k`` best rows of ``selection``."""


class Follower(Protocol):
    """Scores are in [0, 1], higher is better."""

    name: str

    def follow(self, question: Question, selection: Selection, seeds: Scored, found: Mapping[str, Found]) -> Found:
        """What the question and the ``seeds``, best first, lead to in ``selection``; ``found`` is what the channels
        answered."""


class SemanticChannel:
    """Cosine between the pooled vectors of query and segment; negative ones count as 0.

    In a large store both the graph of vectors and the tree propose: the graph is better where the question is like what
    is stored, the tree where it is not (docs/decisions/0007-tree.md).
    """

    name = "semantic"

    def __init__(self, view: VectorIndex, tree: TreeChannel) -> None:
        self._view = view
        self._tree = tree

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        vector = question.vector
        if vector is None:
            return Found(_NONE, lambda seqs: np.full(len(seqs), np.nan, np.float32))
        best = self._view.search(selection, vector, k)
        if not self._view.scans(selection):
            routed = self._tree.search(question, selection, k).best
            more = ~np.isin(routed.seqs, best.seqs)
            every = np.concatenate([best.seqs, routed.seqs[more]])
            best = Scored(every, np.concatenate([best.scores, routed.scores[more]])).top(k)
        return Found(best, lambda seqs: self._view.score(selection.namespace, vector, seqs).clip(0, 1))


class TreeChannel:
    """The semantic channel among the rows that beam search in the category tree leads to; says nothing of scores."""

    name = "tree"
    BEAM = 256  # leaves of at most 256 rows: a query compares 65,536 rows at most

    def __init__(self, tree: TreeView, vectors: VectorIndex) -> None:
        self._tree = tree
        self._vectors = vectors

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        if question.vector is None:
            return _found(_NONE)
        routed = self._tree.route(selection, question.vector, self.BEAM)
        return _found(self._vectors.among(selection, routed.seqs, question.vector, k))


class KeywordChannel:
    """BM25 over the selection, as a share of the best score any row could have for this query."""

    name = "keyword"

    def __init__(self, view: LexicalIndex) -> None:
        self._view = view

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        matches = self._view.search(selection, question.terms)
        return Found(matches.top(k), matches.scorer())


class NextFollower:
    """The best keyword score of the turns before and after: an answer often stands beside the words of its question."""

    name = "next"
    SEEDS = 20

    def __init__(self, view: Graph) -> None:
        self._view = view

    def follow(self, question: Question, selection: Selection, seeds: Scored, found: Mapping[str, Found]) -> Found:
        if "keyword" not in found:
            return _found(_NONE)
        _, beside, _ = self._view.beside(selection, seeds.seqs[: self.SEEDS])
        keyword = found["keyword"].score

        def score(seqs: Seqs) -> NDArray[np.float32]:
            scores = np.zeros(len(seqs), np.float32)
            index, neighbours, _ = self._view.beside(selection, seqs)
            np.maximum.at(scores, index, keyword(neighbours))
            return scores

        def path(seq: int) -> Sequence[Origin]:
            _, neighbours, _ = self._view.beside(selection, np.array([seq], np.int64))
            scores = keyword(neighbours)
            return (Origin(int(neighbours[scores.argmax()]), "next"),) if scores.max(initial=0) > 0 else ()

        proposed = np.unique(beside)
        return Found(Scored(proposed, np.zeros(len(proposed), np.float32)), score, path)


class MentionsFollower:
    """Rows that share a name with a strong seed: the seed's score, times how telling the name is."""

    name = "mentions"
    SEEDS = 10
    MOST = 30

    def __init__(self, view: Graph) -> None:
        self._view = view

    def follow(self, question: Question, selection: Selection, seeds: Scored, found: Mapping[str, Found]) -> Found:
        reached = self._view.expand(
            selection, seeds.first(self.SEEDS), kinds=("mentions",), most=self.MOST, among_seeds=True
        )
        return _found(Scored(reached.seqs, reached.activation), reached)


class NamedFollower:
    """Rows that mention a name in the question: how telling the best of them is."""

    name = "named"
    MOST = 30

    def __init__(self, view: Graph) -> None:
        self._view = view

    def follow(self, question: Question, selection: Selection, seeds: Scored, found: Mapping[str, Found]) -> Found:
        return _found(self._view.naming(selection, names_in(question.text)).top(self.MOST))


class GraphFollower:
    """How near any edges bring a row to a strong seed: 1 for a seed, then 1 / (1 + hops), for two hops at most."""

    name = "graph"
    SEEDS = 10
    MOST = 30

    def __init__(self, view: Graph) -> None:
        self._view = view

    def follow(self, question: Question, selection: Selection, seeds: Scored, found: Mapping[str, Found]) -> Found:
        first = seeds.first(self.SEEDS)
        reached = self._view.expand(selection, first, hops=2, decay=0.5, most=self.MOST)
        seqs = np.concatenate([first.seqs, reached.seqs])
        near = np.concatenate([np.ones(len(first.seqs)), 1 / (1 + reached.hops)]).astype(np.float32)
        return _found(Scored(seqs, near), reached)


def _found(scored: Scored, reached: Reached | None = None) -> Found:
    """An answer that scores the rows in ``scored``, and 0 any other."""
    score = scored.scorer()
    return Found(scored, score) if reached is None else Found(scored, score, reached.path)


_NONE = Scored(np.zeros(0, np.int64), np.zeros(0, np.float32))
