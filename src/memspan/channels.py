"""All first-stage retrievers side by side. A channel proposes rows and can score any row of the selection.

A new channel is one class here, a name in a recipe of ``retrieval.RECIPES``, and its weight there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs
from memspan.views.base import Scored, Selection, find_sorted
from memspan.views.lexical import LexicalView
from memspan.views.vectors import VectorView


@dataclass(frozen=True, slots=True)
class Question:
    """A query as the channels need it: analysed ``terms``, and ``vector`` float32[dim] where there is an encoder."""

    text: str
    terms: Sequence[str]
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Found:
    """A channel's answer: its best rows, and the score float32[n] it gives to any rows (NaN: it cannot say)."""

    best: Scored
    score: Callable[[Seqs], NDArray[np.float32]]


class Channel(Protocol):
    """Scores are in [0, 1], higher is better."""

    name: str

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        """The ``k`` best rows of ``selection``."""


class SemanticChannel:
    """Cosine between the pooled vectors of query and segment; negative ones count as 0."""

    name = "semantic"

    def __init__(self, view: VectorView) -> None:
        self._view = view

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        vector = question.vector
        if vector is None:
            return Found(_NONE, lambda seqs: np.full(len(seqs), np.nan, np.float32))
        return Found(
            self._view.search(selection, vector, k),
            lambda seqs: self._view.score(selection.namespace, vector, seqs).clip(0, 1),
        )


class KeywordChannel:
    """BM25 over the selection, as a share of the best score any row could have for this query."""

    name = "keyword"

    def __init__(self, view: LexicalView) -> None:
        self._view = view

    def search(self, question: Question, selection: Selection, k: int) -> Found:
        matches = self._view.search(selection, question.terms)

        def score(seqs: Seqs) -> NDArray[np.float32]:
            at, inside = find_sorted(matches.seqs, seqs)
            scores = np.zeros(len(seqs), np.float32)
            scores[inside] = matches.scores[at[inside]]
            return scores

        return Found(matches.top(k), score)


_NONE = Scored(np.zeros(0, np.int64), np.zeros(0, np.float32))
