"""The plain systems that stand beside the engine: cosine, BM25, their reciprocal rank fusion, MaxSim over everything.

Each ranks all segments that a store has of a collection, and so all its items: an item is as good as its best segment,
and of equal ones the earlier comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memspan.activations.tokens import DEFAULT, Matrices, TokenCodec, shipped
from memspan.analysis import terms
from memspan.encoders.base import Encoder
from memspan.ledger.base import encoded_text
from memspan.memory import Memory
from memspan.records import Segment

K1, B = 0.9, 0.4  # Anserini's defaults
RANKS: Final = 60  # of reciprocal rank fusion (Cormack et al. 2009)
CHUNK: Final = 256  # texts whose tokens are held at once

SYSTEMS: Final = ("dense", "bm25", "rrf", "maxsim")

Scores = NDArray[np.floating]


class BM25:
    """Plain BM25 over lists of terms, with the always positive idf of Lucene; all in memory."""

    def __init__(self, documents: Sequence[Sequence[str]], k1: float = K1, b: float = B) -> None:
        lengths = np.array([len(words) for words in documents], np.float64)
        self._k1 = k1
        self._length = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))
        self._postings: dict[str, list[tuple[int, int]]] = {}
        for row, words in enumerate(documents):
            for word, count in Counter(words).items():
                self._postings.setdefault(word, []).append((row, count))

    def scores(self, query: Sequence[str]) -> NDArray[np.float64]:
        """float64[n]: of each document, 0 where it shares no term with ``query``."""
        n = len(self._length)
        scores = np.zeros(n)
        for word in dict.fromkeys(query):
            if pairs := self._postings.get(word):
                rows, counts = np.array(pairs).T
                idf = np.log1p((n - len(rows) + 0.5) / (len(rows) + 0.5))
                scores[rows] += idf * counts * (self._k1 + 1) / (counts + self._length[rows])
        return scores


class MaxSim:
    """Every one of n texts scored by late interaction, the plain mean over the question's tokens."""

    def __init__(self, texts: Sequence[str], encoder: Encoder, codec: TokenCodec) -> None:
        self._encoder = encoder
        self._codec = codec
        self._held = []
        for start in range(0, len(texts), CHUNK):
            packed = codec.pack(encoder.encode(texts[start : start + CHUNK]).tokens)
            sizes = np.array([len(each) for each in packed], np.int64)
            codes = np.frombuffer(b"".join(packed), np.uint8)
            self._held.append(Matrices(np.arange(len(packed)), sizes, codes))

    def scores(self, questions: Sequence[str]) -> NDArray[np.float32]:
        """float32[m, n], in [0, 1]; of eight questions in half the time that one by one takes."""
        tokens = [self._codec.project(each) for each in self._encoder.encode(questions).tokens]
        starts = np.cumsum([0, *map(len, tokens[:-1])])
        best = np.concatenate([self._codec.best(np.concatenate(tokens), part) for part in self._held], axis=1)
        lengths = np.array([[len(each)] for each in tokens], np.float32)
        return np.asarray(np.add.reduceat(best, starts, axis=0) / lengths, np.float32)


class Plain:
    """The plain systems over the segments of ``memory``, whose metadata name their ``item``.

    ``systems``: those there are: without an encoder no dense and no fusion with it, without token activations no
    MaxSim, which reads them as a new store would keep them.
    """

    def __init__(self, memory: Memory, encoder: Encoder | None) -> None:
        segments = list(segments_of(memory))
        texts = [text for text, _ in segments]
        places = {item: place for place, item in enumerate(dict.fromkeys(item for _, item in segments))}
        self._items = list(places)
        self._of = np.array([places[item] for _, item in segments], np.intp)
        self._words = BM25([terms(text) for text in texts])
        self._encoder = encoder
        self._vectors = np.zeros((len(texts), 0), np.float32)
        self._maxsim: MaxSim | None = None
        self._ready: dict[str, Scores] = {}
        if encoder is not None:
            chunks = (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
            self._vectors = np.concatenate([encoder.encode(chunk).pooled for chunk in chunks])
            basis = shipped(encoder.id)
            if basis is not None:
                self._maxsim = MaxSim(texts, encoder, TokenCodec(DEFAULT, basis))
        self.systems = systems_of(encoder)

    def prepare(self, questions: Sequence[str]) -> None:
        """Let MaxSim look at ``questions`` together, which is quicker; it is for the next ranking of each."""
        if self._maxsim is not None:
            self._ready = dict(zip(questions, self._maxsim.scores(questions), strict=True))

    def ranking(self, system: str, question: str) -> tuple[list[str], float]:
        """All items that ``system`` of ``systems`` finds, best first, and the score of the first, 0 where there is
        none. BM25 finds those that share a word with the question."""
        scores = self._scores(system, question)
        best = np.full(len(self._items), -np.inf)
        np.maximum.at(best, self._of, scores)
        order = np.argsort(-best, kind="stable")
        if system == "bm25":
            order = order[: np.count_nonzero(best > 0)]
        return [self._items[place] for place in order], float(best[order[0]]) if len(order) else 0.0

    def _scores(self, system: str, question: str) -> Scores:
        """Of each segment."""
        if system == "bm25":
            return self._words.scores(terms(question))
        if system == "rrf":
            words = self._scores("bm25", question)
            return _reciprocal(self._scores("dense", question)) + np.where(words > 0, _reciprocal(words), 0.0)
        if system == "dense" and self._encoder is not None:
            cosines: Scores = self._vectors @ self._encoder.encode([question]).pooled[0]
            return cosines
        if system == "maxsim" and self._maxsim is not None:
            ready = self._ready.pop(question, None)
            return self._maxsim.scores([question])[0] if ready is None else ready
        raise KeyError(system)


def systems_of(encoder: Encoder | None) -> tuple[str, ...]:
    """Those of SYSTEMS that there are with this encoder."""
    if encoder is None:
        return ("bm25",)
    return SYSTEMS if shipped(encoder.id) is not None else tuple(name for name in SYSTEMS if name != "maxsim")


def _reciprocal(scores: Scores) -> NDArray[np.float64]:
    """1 / (60 + rank) of each."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return 1 / (RANKS + ranks)


def segments_of(memory: Memory) -> Iterator[tuple[str, str]]:
    """What was encoded of each segment, and its item."""
    return ((encoded_text(row.text, row.speaker, row.heading), str(row.metadata["item"])) for row in rows_of(memory))


def rows_of(memory: Memory) -> Iterator[Segment]:
    """Every current segment, in the order they were written."""
    after = None
    while page := memory.get_all(limit=1_000, after=after):
        after = page[-1].id
        yield from page
