"""The lexical view on PostgreSQL: BM25 over what an inverted index proposes, computed here as everywhere.

In a selection of at most ``EXACT`` rows each row that holds one of the terms is scored, by the true frequencies. In a
larger one the rare terms propose the rows that hold them, the others those that hold several of them, so that some
thousands of rows are read however many there are. How common a term is there is counted in what was read, or else in a
sample of the selection: its rows of least content hash (a bottom-k sketch: E. Cohen and H. Kaplan, "Summarizing data
using bottom-k sketches", PODC 2007), which are the same whatever others write
(docs/decisions/0024-postgres-lexical.md).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs
from memspan.ledger.postgres.connections import PostgresConnection
from memspan.ledger.postgres.ledger import PostgresLedger
from memspan.ledger.postgres.words import OCCURRENCE, words_of
from memspan.ledger.rows import namespace_number
from memspan.views.base import Matches, Progress, Scored, Scorer, Selection
from memspan.views.lexical import Weighing, outdated
from memspan.views.postgres.selections import PostgresSelection, on_server

EXACT = 8_192  # rows of a selection in which all that hold a term are read
SAMPLE = 2_048  # rows of a larger one of which the words are kept here, some 250 KB
BUDGET = 2_048  # rows that the rare terms propose at most, and each set of others, as the sample has it
SHARE = 16  # and one of so many of the selection's rows: the index is of the whole namespace, of which it may be a part
COMMON = 4  # of the terms that are not rare, the rarest, which propose the rows that hold several of them
LEAST = 256  # rows to be proposed, where there are so many: as many as a search asks for
ANEW = 1_024  # rows that are indexed once more in one transaction, for which the namespace's writers wait
MOST = 16_384  # rows that are read, whatever the sample said
UNSEEN = 1 / 16  # of a row in the sample: how common a term is taken to be that is in none
KEPT = 64  # samples
DRIFT = 8  # a sample is read anew when an eighth of the selection's rows came or went

Words = NDArray[np.int64]

_ROWS = (  # one value a column, as sending a value a row takes longer than finding it
    "SELECT string_agg(int8send(seq), ''), string_agg(int4send(octet_length(occurrences)), ''),"
    " string_agg(occurrences, '') FROM"
)


class _Findings(NamedTuple):
    """Which of a query's terms rows hold, one entry for each: the index of the row and of the term, how often."""

    rows: NDArray[np.int64]
    terms: NDArray[np.int64]
    counts: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """Rows in any order, and their words: ``seqs`` int64[n]; ``lengths`` int32[n], how many words each has; and these,
    one row after the other."""

    seqs: Seqs
    lengths: NDArray[np.int32]
    words: Words

    @classmethod
    def of(cls, seqs: bytes | None, sizes: bytes | None, occurrences: bytes | None) -> _Read:
        """From what ``_ROWS`` gives: None where it found no row."""
        return cls(
            np.frombuffer(seqs or b"", ">i8").astype(np.int64),
            np.frombuffer(sizes or b"", ">i4").astype(np.int32) // OCCURRENCE.itemsize,
            np.frombuffer(occurrences or b"", OCCURRENCE).astype(np.int64),
        )

    def find(self, words: Words) -> _Findings:
        inside = np.isin(self.words, words)
        order = np.argsort(words)
        terms = order[np.searchsorted(words[order], self.words[inside])]
        rows = np.repeat(np.arange(len(self.seqs)), self.lengths)[inside]
        found, counts = np.unique(rows * len(words) + terms, return_counts=True)
        return _Findings(*np.divmod(found, len(words)), counts.astype(np.float32))

    def scored(self, found: _Findings, weighing: Weighing) -> Scored:
        """Every row with its score, 0 where it holds none of the terms."""
        parts = weighing.parts(found.terms, found.counts, self.lengths[found.rows])
        scores = np.bincount(found.rows, weights=parts, minlength=len(self.seqs)) / weighing.best
        return Scored(self.seqs, scores.clip(0, 1).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Proposals:
    """Which rows are read: those with one of the words ``rare``, those with all words of one of ``together``, and, of
    those with all of ``newest``, the rows after ``after``."""

    rare: Words
    together: Sequence[Words] = ()
    newest: Words | None = None
    after: int = 0

    def clause(self) -> tuple[str, list[Any]]:
        clauses = ["words && CAST(? AS BIGINT[])"] * bool(len(self.rare))
        values: list[Any] = [self.rare.tolist()] * bool(len(self.rare))
        for words in self.together:
            clauses.append("words @> CAST(? AS BIGINT[])")
            values.append(words.tolist())
        if self.newest is not None:
            clauses.append("(words @> CAST(? AS BIGINT[]) AND seq > ?)")
            values += [self.newest.tolist(), self.after]
        return " OR ".join(clauses) or "FALSE", values


class _Sample:
    """Some rows of a selection that had ``size`` rows: ``seqs`` int64[s], and which words they hold."""

    def __init__(self, size: int, read: _Read) -> None:
        self.size = size
        self.seqs = read.seqs
        order = np.argsort(read.words)
        self._words = read.words[order]
        self._rows = np.repeat(np.arange(len(read.seqs), dtype=np.int32), read.lengths)[order]

    def holding(self, words: Words) -> NDArray[np.bool_]:
        """bool[q, s]: which row holds which of ``words``."""
        held = np.zeros((len(words), len(self.seqs)), bool)
        spans = zip(np.searchsorted(self._words, words), np.searchsorted(self._words, words, side="right"), strict=True)
        for term, (start, stop) in enumerate(spans):
            held[term, self._rows[start:stop]] = True
        return held

    def proposals(self, words: Words, held: NDArray[np.bool_], rows: int) -> tuple[_Proposals, NDArray[np.bool_]]:
        """What to read for ``words`` of a selection of so many rows, and of which of them that is every row."""
        each = rows / max(len(self.seqs), 1)
        most = min(BUDGET, rows / SHARE) / each  # rows of the sample
        expected = np.maximum(held.sum(axis=1), UNSEEN)
        order = np.argsort(expected, kind="stable")
        few = order[np.cumsum(expected[order]) <= most]
        rest = order[len(few) :][:COMMON]
        together = list(_together(held, rest.tolist(), most))
        found = held[few].any(axis=0)
        for terms in together:
            found |= held[terms].all(axis=0)
        whole = np.zeros(len(words), bool)
        whole[few] = True
        proposals = _Proposals(words[few], [words[terms] for terms in together])
        if len(rest) and found.sum() * each < LEAST:
            telling = rest[:1] if together else rest
            seqs = np.sort(self.seqs[held[telling].all(axis=0)])[::-1]
            after = int(seqs[int(most)]) if len(seqs) > most else 0
            proposals = _Proposals(proposals.rare, proposals.together, words[telling], after)
        return proposals, whole


def _together(
    held: NDArray[np.bool_], terms: Sequence[int], most: float, chosen: tuple[int, ...] = ()
) -> Iterator[list[int]]:
    """The smallest sets of at least two of ``terms`` that no more than ``most`` rows hold together."""
    for at, term in enumerate(terms):
        wanted = (*chosen, term)
        if chosen and held[list(wanted)].all(axis=0).sum() <= most:
            yield list(wanted)
        else:
            yield from _together(held, terms[at + 1 :], most, wanted)


class _Proposed:
    """``Matches`` of which the rows that were proposed have been read; others are when their score is asked."""

    def __init__(self, view: PostgresLexical, namespace: str, words: Words, weighing: Weighing, best: Scored) -> None:
        self._view = view
        self._namespace = namespace
        self._words = words
        self._weighing = weighing
        self._best = self._known = best

    def top(self, k: int) -> Scored:
        return self._best.top(k)

    def scorer(self) -> Scorer:
        return self._score

    def _score(self, rows: Seqs) -> NDArray[np.float32]:
        unknown = np.setdiff1d(rows, self._known.seqs)
        if len(unknown):
            more = self._view.scored(self._namespace, unknown, self._words, self._weighing)
            seqs, scores = np.concatenate([self._known.seqs, unknown]), more.scorer()(unknown)
            self._known = Scored(seqs, np.concatenate([self._known.scores, scores]))
        return self._known.scorer()(rows)


class PostgresLexical:
    """``View`` by words. Scores are BM25 as a share of the best any row could have for the query: in [0, 1]."""

    name = "lexical"

    def __init__(self, ledger: PostgresLedger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._samples: OrderedDict[Hashable, _Sample] = OrderedDict()
        self.failure: str | None = None

    def search(self, selection: Selection, terms: Sequence[str]) -> Matches:
        """The best rows of ``selection`` that hold one of ``terms``, at least ``LEAST`` where there are so many, in one
        round trip; in a selection of at most ``EXACT`` rows all."""
        wanted = list(dict.fromkeys(terms))
        if not selection.rows or not wanted:
            return Scored(np.zeros(0, np.int64), np.zeros(0, np.float32))
        asked = on_server(selection)
        words = words_of(asked.number, wanted)
        with self._ledger.reading() as connection:
            namespace_number(connection, asked.namespace)
            if _listed(asked):
                return self._all(connection, asked, words)
            return self._best(connection, asked, words)

    def _all(self, connection: PostgresConnection, selection: PostgresSelection, words: Words) -> Scored:
        read = _proposed(connection, selection, _Proposals(words))
        found = read.find(words)
        frequencies = np.bincount(found.terms, minlength=len(words)).clip(max=selection.rows)
        return read.scored(found, Weighing.among(selection.rows, selection.total_terms, frequencies))

    def _best(self, connection: PostgresConnection, selection: PostgresSelection, words: Words) -> _Proposed:
        sample = self._sample(connection, selection)
        held = sample.holding(words)
        proposals, whole = sample.proposals(words, held, selection.rows)
        read = _proposed(connection, selection, proposals)
        found = read.find(words)
        counted = np.bincount(found.terms, minlength=len(words))
        common = np.maximum(counted, held.sum(axis=1) * (selection.rows / max(len(sample.seqs), 1)))
        frequencies = np.where(whole, counted, common).clip(max=selection.rows)
        weighing = Weighing.among(selection.rows, selection.total_terms, frequencies)
        return _Proposed(self, selection.namespace, words, weighing, read.scored(found, weighing))

    def scored(self, namespace: str, seqs: Seqs, words: Words, weighing: Weighing) -> Scored:
        """These rows with their scores."""
        with self._ledger.reading() as connection:
            number = namespace_number(connection, namespace)
            sql = f"{_ROWS} lexical WHERE namespace = ? AND seq = ANY(?)"
            read = _Read.of(*connection.binary(sql, (number, seqs.tolist()))[0])
        return read.scored(read.find(words), weighing)

    def _sample(self, connection: PostgresConnection, selection: PostgresSelection) -> _Sample:
        with self._lock:
            kept = self._samples.get(selection.key)
            if kept is not None and abs(selection.rows - kept.size) * DRIFT <= kept.size:
                self._samples.move_to_end(selection.key)
                return kept
        inner, values = selection.source("seq, content")
        sql = f"{_ROWS} lexical WHERE namespace = ? AND seq = ANY(ARRAY(SELECT seq FROM {inner} AS s"
        rows = connection.binary(f"{sql} ORDER BY content LIMIT {SAMPLE}))", (selection.number, *values))
        sample = _Sample(selection.rows, _Read.of(*rows[0]))
        with self._lock:
            self._samples[selection.key] = sample
            while len(self._samples) > KEPT:
                self._samples.popitem(last=False)
        return sample

    def due(self, namespace: str) -> bool:
        """Never: words are searched where they are written."""
        return False

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """``force`` indexes all texts anew."""
        if not force:
            return False
        total, done, after = self._ledger.count_after(namespace, 0), 0, 0
        while (last := self._ledger.index_anew(namespace, after, ANEW)) > after:
            done, after = min(done + ANEW, total), last
            if progress is not None:
                progress(done, total, self.name)
        with self._lock:
            self._samples.clear()
        self.failure = None
        return total > 0

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` are all there are, the ``tail`` is empty; the last ``failure``."""
        position, rows = self._ledger.last_row(namespace), self._ledger.count_after(namespace, 0)
        return {"position": position, "rows": rows, "tail": 0, "failure": self.failure or outdated(self._ledger)}

    def problems(self, namespace: str) -> list[str]:
        """Why words are not found as they should be, if so."""
        problem = outdated(self._ledger)
        return [] if problem is None else [problem]

    def size(self) -> int:
        """Bytes of the words and their indexes in the database, of all namespaces."""
        with self._ledger.reading() as connection:
            return int(connection.execute("SELECT pg_total_relation_size('lexical')").fetchone()[0])


def _listed(selection: PostgresSelection) -> bool:
    """Whether it is small enough that all its rows may be read."""
    return selection.rows <= EXACT or selection.given is not None


def _proposed(connection: PostgresConnection, selection: PostgresSelection, proposals: _Proposals) -> _Read:
    """The rows of ``selection`` that are proposed."""
    wanted, words = proposals.clause()
    clause, values = selection.clause, selection.values
    if selection.filters is not None or selection.as_of is not None:  # which `lexical` cannot say
        if _listed(selection):
            clause, values = "seq = ANY(?)", (selection.seqs.tolist(),)
        else:
            within = "s.namespace = lexical.namespace AND s.seq = lexical.seq"
            clause = f"EXISTS (SELECT 1 FROM segments AS s WHERE {within} AND {clause} OFFSET 0)"
    inner = f"(SELECT seq, occurrences FROM lexical WHERE namespace = ? AND ({wanted}) AND {clause} LIMIT {MOST})"
    rows = connection.binary(f"{_ROWS} {inner} AS l", (selection.number, *words, *values))
    return _Read.of(*rows[0])
