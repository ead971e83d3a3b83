"""The lexical view: BM25 over exactly the rows a query may see.

Snapshot: an inverted index as flat arrays. Tail: SQLite's FTS5 inside the ledger, whose posting lists are read through
``fts5vocab``. Both give term frequencies, so scores are computed here in one place and do not change when the tail is
folded into a snapshot. N, document frequencies and the mean length are those of the selection: what other tenants write
or delete never moves a score (docs/decisions/0002-own-postings.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memspan.analysis import VERSION, key_of
from memspan.analysis import terms as analyse
from memspan.errors import StoreCorrupt
from memspan.ledger.base import Ledger, Seqs, Snapshot
from memspan.views.base import Matches, Places, Progress, Scored, Selection, SnapshotFiles, View, counting

K1 = 0.9
B = 0.4
SNAPSHOT_ROWS = 4_096  # below this many tail rows FTS5 alone is as fast, and a snapshot would be rewritten too often
BATCH = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Weighing:
    """How much the terms of a query tell, among ``rows`` rows of ``mean`` terms: ``idf`` float64[q].

    BM25 as in Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the always
    positive idf of Lucene. ``best`` is what scores are a share of: words that no row holds count against a match, but
    never for more than the words that some row does hold.
    """

    mean: float
    idf: NDArray[np.float64]
    best: float

    @classmethod
    def among(cls, rows: int, terms: int, frequencies: NDArray[Any]) -> Weighing:
        """In ``rows`` rows of together ``terms`` terms, of which ``frequencies`` hold each of the query's."""
        idf = np.log1p((rows - frequencies + 0.5) / (frequencies + 0.5))
        best = max(idf[frequencies > 0].sum(), idf.sum() / 2) * (K1 + 1)
        return cls(max(terms / rows, 1e-9), idf, float(best))

    def parts(
        self, terms: NDArray[np.intp], counts: NDArray[np.float32], lengths: NDArray[np.int32]
    ) -> NDArray[np.float64]:
        """What each finding adds to its row: of the term with that index, ``counts`` times, in a row of so many."""
        length = np.float32(K1 * (1 - B)) + np.float32(K1 * B / self.mean) * lengths
        return (self.idf * (K1 + 1)).astype(np.float32)[terms] * (counts / (counts + length))


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """An inverted index: term i, of hash ``keys[i]``, is in ``rows[starts[i]:starts[i + 1]]``, ``counts`` times each.

    ``keys`` uint64[t] ascending, ``starts`` int64[t + 1], ``rows`` uint32[p], ``counts`` uint16[p]; row r is the
    segment ``seqs[r]``, int64[n] ascending.
    """

    seqs: Seqs
    keys: NDArray[np.uint64]
    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    counts: NDArray[np.uint16]

    def find(self, term: str) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
        """The rows that hold ``term``, and how often each does."""
        key = np.uint64(key_of(term))
        at = int(np.searchsorted(self.keys, key))
        if at == len(self.keys) or self.keys[at] != key:
            return self.rows[:0], self.counts[:0]
        span = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return self.rows[span], self.counts[span]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in ("seqs", "keys", "starts", "rows", "counts")}

    @classmethod
    def empty(cls) -> Postings:
        return cls.build(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint16))

    @classmethod
    def build(
        cls, seqs: Seqs, keys: NDArray[np.uint64], rows: NDArray[np.uint32], counts: NDArray[np.uint16]
    ) -> Postings:
        """From one entry per (term, row), in any order."""
        order = np.lexsort((rows, keys))
        keys, rows, counts = keys[order], rows[order], counts[order]
        distinct, starts = np.unique(keys, return_index=True)
        return cls(seqs, distinct, np.append(starts, len(keys)).astype(np.int64), rows, counts)

    def extended(self, documents: Iterable[tuple[int, Sequence[str]]], alive: Seqs) -> Postings:
        """With ``documents`` (seq, terms), all after the last seq here, and without the rows not in ``alive``."""
        stays = np.isin(self.seqs, alive, assume_unique=True)
        renumbered = np.cumsum(stays) - 1
        kept = stays[self.rows]
        keys = [np.repeat(self.keys, np.diff(self.starts))[kept]]
        rows = [renumbered[self.rows[kept]].astype(np.uint32)]
        counts = [self.counts[kept]]
        seqs = self.seqs[stays].tolist()
        for batch in _batches(documents):
            lengths = np.array([len(words) for _, words in batch])
            flat = np.array([key_of(word) for _, words in batch for word in words], np.uint64)
            where = np.repeat(np.arange(len(seqs), len(seqs) + len(batch), dtype=np.uint64), lengths)
            order = np.lexsort((where, flat))
            flat, where = flat[order], where[order]
            begins = np.ones(len(flat), bool)
            begins[1:] = (np.diff(flat) != 0) | (np.diff(where) != 0)
            first = np.flatnonzero(begins)
            keys.append(flat[first])
            rows.append(where[first].astype(np.uint32))
            counts.append(np.diff(np.append(first, len(flat))).clip(max=65_535).astype(np.uint16))
            seqs.extend(seq for seq, _ in batch)
        built = (np.concatenate(keys), np.concatenate(rows), np.concatenate(counts))
        return Postings.build(np.array(seqs, np.int64), *built)


@dataclass(slots=True)
class _State:
    position: int
    file: str | None
    postings: Postings
    places: Places


class LexicalIndex(View, Protocol):
    """``View`` by words."""

    def search(self, selection: Selection, terms: Sequence[str]) -> Matches:
        """The rows of ``selection`` that hold ``terms``, as a share of the best score any row could have: in [0, 1]."""


def outdated(ledger: Ledger) -> str | None:
    """Why words are not found as they would be today, if so."""
    analyser = ledger.value("analyser")
    if analyser in (None, VERSION):
        return None
    return f"the words were analysed by version {analyser}, this is {VERSION}: run `memspan compact`"


class LexicalView:
    """``View`` by words. Scores are BM25 as a share of the best any row could have for the query: in [0, 1]."""

    name = "lexical"

    def __init__(self, ledger: Ledger, directory: Path | None) -> None:
        self._ledger = ledger
        self._files = SnapshotFiles(ledger, self.name, directory)
        self._lock = threading.RLock()
        self._states: dict[str, _State] = {}
        self.failure: str | None = None

    def search(self, selection: Selection, terms: Sequence[str]) -> Scored:
        """Every row of ``selection`` that holds one of ``terms``, with its score."""
        n = len(selection.seqs)
        wanted = list(dict.fromkeys(terms))
        if not n or not wanted:
            return Scored(np.zeros(0, np.int64), np.zeros(0, np.float32))
        with self._ledger.reading():
            state = self._state(selection.namespace)
            places = state.places.of(selection)
            found = [self._postings(selection, state, places, term) for term in wanted]
        frequencies = np.array([len(index) for index, _ in found])
        weighing = Weighing.among(n, selection.total_terms, frequencies)
        index = np.concatenate([index for index, _ in found])
        counts = np.concatenate([counts for _, counts in found]).astype(np.float32)
        which = np.repeat(np.arange(len(wanted)), frequencies)
        parts = weighing.parts(which, counts, selection.terms[index])
        if len(index) * 8 > n:
            dense = np.bincount(index, weights=parts, minlength=n)
            hit = np.flatnonzero(dense)
            scores = dense[hit] / weighing.best
        else:
            hit, where = np.unique(index, return_inverse=True)
            scores = np.bincount(where, weights=parts, minlength=len(hit)) / weighing.best
        return Scored(selection.seqs[hit], scores.clip(0, 1).astype(np.float32))

    def _postings(
        self, selection: Selection, state: _State, places: NDArray[np.int32], term: str
    ) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Indexes into the selection of the rows that hold ``term``, and how often each does."""
        rows, counts = state.postings.find(term)
        index = places[rows]
        inside = index >= 0
        if not inside.all():
            index, counts = index[inside], counts[inside]
        occurrences = self._ledger.tail_postings(selection.namespace, term, state.position)
        if not len(occurrences):
            return index, counts
        tail, tail_counts = np.unique(occurrences, return_counts=True)
        where, inside = selection.find(tail)
        return np.concatenate([index, where[inside]]), np.concatenate([counts, tail_counts[inside]])

    def _state(self, namespace: str) -> _State:
        """The snapshot in use, loaded when another process has made a new one, rebuilt when it cannot be read."""
        with self._ledger.reading(), self._lock:  # in this order everywhere: in memory, reading is a lock too
            state = self._states.get(namespace)
            if state is not None and state.file == self._file(namespace):
                return state
            with self._ledger.newest():  # what threads share only ever goes forward
                snapshot = self._ledger.snapshot(namespace, self.name)
                if state is None or state.file != (None if snapshot is None else snapshot.file):
                    postings = Postings.empty() if snapshot is None else self._load(snapshot)
                    position, file = (snapshot.position, snapshot.file) if snapshot else (0, None)
                    state = self._states[namespace] = _State(position, file, postings, Places(postings.seqs))
            return state

    def _file(self, namespace: str) -> str | None:
        snapshot = self._ledger.snapshot(namespace, self.name)
        return None if snapshot is None else snapshot.file

    def _load(self, snapshot: Snapshot) -> Postings:
        try:
            return Postings(**self._files.load(snapshot))
        except (StoreCorrupt, TypeError) as error:  # the ledger has every text: slower once, but nothing is missing
            self.failure = str(error)
            documents = self._analysed(snapshot.namespace, snapshot.position)
            return Postings.empty().extended(documents, np.zeros(0, np.int64))

    def due(self, namespace: str) -> bool:
        """Whether the tail has grown so long that folding it in now makes searches faster."""
        return self._files.outgrown(namespace, SNAPSHOT_ROWS)

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Fold the tail into the snapshot and drop removed rows from it; small tails without a snapshot stay.

        ``force`` builds a new snapshot from the ledger's texts alone.
        """
        if not self._files.enabled:
            return False
        with self._files.lock():
            with self._ledger.reading():
                state = self._state(namespace)
                alive = self._ledger.rows(namespace)
            tail = len(alive) - int(np.searchsorted(alive, state.position, "right"))
            dead = len(state.postings.seqs) + tail - len(alive)
            changed = tail >= SNAPSHOT_ROWS or (state.file is not None and (tail > 0 or dead > 0))
            if not (changed or force or self._files.problems(namespace)):
                self.failure = None
                return False
            last = int(alive[-1]) if len(alive) else state.position
            if force:
                base, documents = Postings.empty(), self._analysed(namespace, last)
            else:
                base, documents = state.postings, self._tail(namespace, state.position, last)
            counted = counting(documents, len(alive) if force else tail, self.name, progress)
            postings = base.extended(counted, alive)
            self._files.save(namespace, last, len(postings.seqs), postings.arrays())
            self.failure = None
            while self._ledger.trim_tail(namespace, last):
                pass
        return True

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the snapshot, rows in the ``tail``, and the last ``failure``."""
        return {**self._files.status(namespace), "failure": self.failure or outdated(self._ledger)}

    def problems(self, namespace: str) -> list[str]:
        """What is wrong with the snapshot, if there is one."""
        stale = outdated(self._ledger)
        return [*self._files.problems(namespace), *([stale] if stale else [])]

    def size(self) -> int:
        """Bytes of the snapshots on disk."""
        return self._files.size()

    def _tail(self, namespace: str, after: int, upto: int) -> Iterator[tuple[int, Sequence[str]]]:
        while rows := self._ledger.tail_terms(namespace, after, BATCH):
            for seq, words in rows:
                if seq > upto:
                    return
                yield seq, words
            after = rows[-1][0]

    def _analysed(self, namespace: str, upto: int) -> Iterator[tuple[int, Sequence[str]]]:
        """Every row up to ``upto`` from the ledger's own text: slower than the tail, and never lost."""
        after = 0
        while rows := self._ledger.texts(namespace, after, upto, BATCH):
            for row in rows:
                yield row.seq, analyse(row.analysed_text)
            after = rows[-1].seq


def _batches(documents: Iterable[tuple[int, Sequence[str]]]) -> Iterator[list[tuple[int, Sequence[str]]]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH)):
        yield batch
