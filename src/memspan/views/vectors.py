"""The vector view: cosine similarity over exactly the rows a query may see.

Small namespaces are scanned in memory. Beyond that a snapshot holds 8-bit vectors, all of which are compared; beyond
150,000 a faiss HNSW graph over them is walked (Malkov and Yashunin, arXiv:1603.09320), which finds what is like the
rest and may miss what is not (docs/decisions/0007-tree.md). Rows after the snapshot are scanned. A selection that
leaves few of a graph's rows is scanned too, so a selective filter never comes back short.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memspan.errors import StoreCorrupt
from memspan.ledger.base import Ledger, Seqs, Snapshot, Vectors
from memspan.views.base import (
    Places,
    Progress,
    Scored,
    Selection,
    SnapshotFiles,
    View,
    find_sorted,
    forgotten_if_broken,
)

SNAPSHOT_ROWS = 10_000  # up to here an exact scan costs less than a millisecond and no graph is kept
LINKS = 32
BUILD_BEAM = 80
SEARCH_BEAM = 128
SCANNED_ROWS = 150_000  # up to here every row's 8 bits are compared: a walk misses what is unlike the rest
EXACT_SHARE = 0.1  # a selection that keeps less than this share of the graph is scanned instead of walked
BATCH = 16_384
BLOCK = 4_000_000  # cosines held at once while the nearest rows of many are looked for, 16 MB
ZERO = 127  # the 8-bit code of 0.0, the middle of the range; a removed row must not draw a walk toward it
MOST_ROWS = 200_000  # rows held as float32 over all namespaces, 300 MB at 384 dimensions

_NO_SEQS = np.zeros(0, np.int64)
_NO_SCORES = np.zeros(0, np.float32)


@dataclass(slots=True)
class _State:
    """One namespace in memory: the snapshot's graph, and the rows after it as a matrix, sorted by seq."""

    file: str | None
    graph: Any
    graph_seqs: Seqs
    tail: Vectors
    seqs: Seqs
    last: int
    places: Places
    waiting: set[int] = field(default_factory=set)
    used: int = 0
    moment: object | None = None  # of the ledger, in which it was brought up to date

    def insert(self, seqs: Seqs, vectors: Vectors) -> None:
        """Add rows. Room is doubled when it runs out, so that adding one by one stays cheap."""
        end = self.used + len(seqs)
        if end > len(self.seqs) or (self.used and seqs[0] < self.seqs[self.used - 1]):
            every = np.concatenate([self.seqs[: self.used], seqs])
            order = np.argsort(every, kind="stable")
            room = max(2 * self.used, end, 64)
            tail = np.empty((room, vectors.shape[1]), np.float32)
            tail[:end] = np.concatenate([self.tail[: self.used], vectors])[order]
            self.seqs, self.tail = np.empty(room, np.int64), tail
            self.seqs[:end] = every[order]
        else:
            self.seqs[self.used : end], self.tail[self.used : end] = seqs, vectors
        self.used = end


class VectorIndex(View, Protocol):
    """``View`` by meaning: what ``VectorView`` says of these."""

    def search(self, selection: Selection, vector: NDArray[np.float32], k: int) -> Scored: ...
    def scans(self, selection: Selection) -> bool: ...
    def among(self, selection: Selection, seqs: Seqs, vector: NDArray[np.float32], k: int) -> Scored: ...
    def score(self, namespace: str, vector: NDArray[np.float32], seqs: Seqs) -> NDArray[np.float32]: ...
    def own(self, namespace: str, seqs: Seqs) -> tuple[Vectors, NDArray[np.bool_]]: ...
    def nearest(self, selection: Selection, seqs: Seqs, k: int) -> tuple[Seqs, NDArray[np.float32]]: ...


class VectorView:
    """``View`` by meaning. Scores are cosines in [-1, 1]; ``dim`` is the encoder's."""

    name = "vectors"

    def __init__(self, ledger: Ledger, directory: Path | None, dim: int) -> None:
        self.dim = dim
        self._ledger = ledger
        self._files = SnapshotFiles(ledger, self.name, directory)
        self._lock = threading.RLock()
        self._states: OrderedDict[str, _State] = OrderedDict()
        self.failure: str | None = None

    def search(self, selection: Selection, vector: NDArray[np.float32], k: int) -> Scored:
        """The ``k`` rows of ``selection`` nearest to ``vector`` float32[dim], best first."""
        state = self._state(selection.namespace)
        _, inside = selection.find(state.seqs)
        tail = Scored(state.seqs[inside], (state.tail @ vector)[inside] if inside.any() else _NO_SCORES)
        graph = self._walk(state, selection, vector, k)
        both = Scored(np.concatenate([graph.seqs, tail.seqs]), np.concatenate([graph.scores, tail.scores]))
        return both.top(k)

    def scans(self, selection: Selection) -> bool:
        """Whether ``search`` compares every row, and does not walk a graph that may miss some."""
        return not _walkable(self._state(selection.namespace).graph)

    def among(self, selection: Selection, seqs: Seqs, vector: NDArray[np.float32], k: int) -> Scored:
        """The ``k`` nearest to ``vector`` of ``seqs``, rows of ``selection`` in ascending order; all are compared."""
        state = self._state(selection.namespace)
        at, inside = find_sorted(state.seqs, seqs)
        tail = Scored(seqs[inside], _cosines(state.tail[at[inside]], vector))
        if not len(state.graph_seqs):
            return tail.top(k)
        import faiss

        at, inside = find_sorted(state.graph_seqs, seqs)
        members = np.zeros(len(state.graph_seqs), bool)
        members[at[inside]] = True
        only = faiss.IDSelectorBitmap(np.packbits(members, bitorder="little"))
        scores, rows = _storage(state.graph).search(vector[None, :], k, params=faiss.SearchParameters(sel=only))
        found = rows[0] >= 0
        every = np.concatenate([state.graph_seqs[rows[0][found]], tail.seqs])
        return Scored(every, np.concatenate([scores[0][found], tail.scores])).top(k)

    def score(self, namespace: str, vector: NDArray[np.float32], seqs: Seqs) -> NDArray[np.float32]:
        """Cosine of ``vector`` with each of ``seqs``, float32[n]; NaN where a row has no vector yet."""
        state = self._state(namespace)
        scores = np.full(len(seqs), np.nan, np.float32)
        at, inside = find_sorted(state.seqs, seqs)
        scores[inside] = _cosines(state.tail[at[inside]], vector)
        _, inside = find_sorted(state.graph_seqs, seqs)
        if inside.any():  # the graph only finds: its 8 bits depend on all rows in it, a score on the row alone
            found, vectors = self._ledger.vectors_of(namespace, seqs[inside].tolist())
            at, there = find_sorted(found, seqs)
            there &= inside
            if there.any():  # what somebody has deleted since has no vector any more
                scores[there] = _cosines(vectors[at[there]], vector)
        return scores

    def own(self, namespace: str, seqs: Seqs) -> tuple[Vectors, NDArray[np.bool_]]:
        """The vectors of those of ``seqs`` (ascending) that have one, and of all of them whether they do."""
        found, vectors = self._ledger.vectors_of(namespace, seqs.tolist())
        return vectors, np.isin(seqs, found, assume_unique=True)

    def nearest(self, selection: Selection, seqs: Seqs, k: int) -> tuple[Seqs, NDArray[np.float32]]:
        """The ``k`` rows of ``selection`` nearest to each of ``seqs``: seqs int64[n, k], cosines float32[n, k].

        Where there are fewer, and for rows without a vector, seqs are -1. A row is near itself.
        """
        near = np.full((len(seqs), k), -1, np.int64)
        cosines = np.zeros((len(seqs), k), np.float32)
        state = self._state(selection.namespace)
        _, inside = selection.find(state.seqs)
        tail_seqs, tail = state.seqs[inside], state.tail[inside]
        block = max(1, BLOCK // max(1, len(tail_seqs)))
        for start in range(0, len(seqs), block):
            found, vectors = self._ledger.vectors_of(selection.namespace, seqs[start : start + block].tolist())
            if not len(found):
                continue
            scores = vectors @ tail.T
            best = np.argpartition(-scores, k, axis=1)[:, :k] if len(tail_seqs) > k else np.argsort(-scores, axis=1)
            walked, values = self._walk_all(state, selection, vectors, k)
            every = np.concatenate([tail_seqs[best], walked], axis=1)
            values = np.concatenate([np.take_along_axis(scores, best, axis=1), values], axis=1)
            order = np.argsort(-values, axis=1, kind="stable")[:, :k]
            rows = np.searchsorted(seqs, found)
            near[rows, : order.shape[1]] = np.take_along_axis(every, order, axis=1)
            cosines[rows, : order.shape[1]] = np.take_along_axis(values, order, axis=1)
        return near, cosines

    def _walk_all(
        self, state: _State, selection: Selection, vectors: Vectors, k: int
    ) -> tuple[Seqs, NDArray[np.float32]]:
        """Of the graph's rows in the selection the ``k`` nearest to each of ``vectors``; -1 where there are fewer."""
        if not len(state.graph_seqs):
            return np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0), np.float32)
        import faiss

        members = state.places.of(selection) >= 0
        only = None if members.all() else faiss.IDSelectorBitmap(np.packbits(members, bitorder="little"))
        parameters = (
            faiss.SearchParametersHNSW(sel=only, efSearch=SEARCH_BEAM // 2)
            if _walkable(state.graph)
            else faiss.SearchParameters(sel=only)
        )
        scores, rows = state.graph.search(vectors, k, params=parameters)
        return np.where(rows >= 0, state.graph_seqs[rows], -1), np.where(rows >= 0, scores, -1).astype(np.float32)

    def _walk(self, state: _State, selection: Selection, vector: NDArray[np.float32], k: int) -> Scored:
        total = len(state.graph_seqs)
        if not total:
            return Scored(_NO_SEQS, _NO_SCORES)
        import faiss

        members = state.places.of(selection) >= 0
        count = int(np.count_nonzero(members))
        if not count:
            return Scored(_NO_SEQS, _NO_SCORES)
        only = None if count == total else faiss.IDSelectorBitmap(np.packbits(members, bitorder="little"))
        if not _walkable(state.graph) or count <= max(EXACT_SHARE * total, k):
            index, parameters = _storage(state.graph), faiss.SearchParameters(sel=only)
        else:
            beam = min(int(max(SEARCH_BEAM, k) * total / count), 2_048)
            index, parameters = state.graph, faiss.SearchParametersHNSW(sel=only, efSearch=beam)
        scores, rows = index.search(vector[None, :], min(k, count), params=parameters)
        found = rows[0] >= 0
        return Scored(state.graph_seqs[rows[0][found]], scores[0][found])

    # Keeping up with the ledger

    def _state(self, namespace: str) -> _State:
        with self._ledger.reading(), self._lock:
            state, moment = self._states.get(namespace), self._ledger.moment()
            if state is None or moment is None or state.moment is not moment:
                with self._ledger.newest():  # what threads share only ever goes forward
                    snapshot = self._ledger.snapshot(namespace, self.name)
                    file = None if snapshot is None else snapshot.file
                    if state is None or state.file != file:
                        state = self._states[namespace] = self._load(snapshot)
                    with forgotten_if_broken(self._states, namespace):
                        self._catch_up(namespace, state)
                    state.moment = moment
            self._states.move_to_end(namespace)
            held = sum(each.used for each in self._states.values())
            while held > MOST_ROWS and len(self._states) > 1:  # the namespace not asked for longest is read again
                held -= self._states.popitem(last=False)[1].used
            # a moment of it: other threads go on adding rows
            return replace(state, seqs=state.seqs[: state.used], tail=state.tail[: state.used])

    def _load(self, snapshot: Snapshot | None) -> _State:
        none = np.zeros((0, self.dim), np.float32)
        if snapshot is not None:
            try:
                graph, seqs = self._read(snapshot)
                return _State(snapshot.file, graph, seqs, none, _NO_SEQS, snapshot.position, Places(seqs))
            except (StoreCorrupt, KeyError, RuntimeError) as error:  # the ledger has every vector: scan those
                self.failure = str(error)
        file = None if snapshot is None else snapshot.file
        return _State(file, None, _NO_SEQS, none, _NO_SEQS, 0, Places(_NO_SEQS))

    def _read(self, snapshot: Snapshot) -> tuple[Any, Seqs]:
        import faiss

        arrays = self._files.load(snapshot)
        graph = faiss.deserialize_index(arrays["graph"])
        if graph.d != self.dim or graph.ntotal != len(arrays["seqs"]):
            raise StoreCorrupt(f"{snapshot.file} is of another encoder", mend="it is rebuilt from the ledger")
        return graph, arrays["seqs"]

    def _catch_up(self, namespace: str, state: _State) -> None:
        """Add the rows after the last one seen, and those whose vector has come since."""
        waiting = set(self._ledger.pending_seqs(namespace).tolist())
        come = sorted(seq for seq in state.waiting - waiting)
        if come:
            self._insert(state, *self._ledger.vectors_of(namespace, come))
        while True:
            seqs, vectors = self._ledger.vectors(namespace, state.last, BATCH)
            if not len(seqs):
                break
            self._insert(state, seqs, vectors)
            state.last = int(seqs[-1])
        state.waiting = waiting
        state.last = max([state.last, *waiting])

    def _insert(self, state: _State, seqs: Seqs, vectors: Vectors) -> None:
        if not len(seqs):
            return
        if vectors.shape[1] != self.dim:
            problem = f"a vector has {vectors.shape[1]} dimensions, not {self.dim}"
            raise StoreCorrupt(problem, mend="run `memspan rebuild`")
        state.insert(seqs, vectors)

    # Snapshots

    def due(self, namespace: str) -> bool:
        """Whether the tail has grown so long that folding it in now makes searches faster."""
        return self._files.outgrown(namespace, SNAPSHOT_ROWS) or self._swollen(namespace)

    def _swollen(self, namespace: str) -> bool:
        """Whether most of what is held in memory is of rows that are gone."""
        state = self._states.get(namespace)
        return state is not None and self._files.swollen(namespace, state.used)

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Fold the tail into the graph; a graph with over a fifth of its rows removed is built anew.

        ``force`` builds it anew from the ledger's vectors. Nothing is kept below SNAPSHOT_ROWS.
        """
        if self._swollen(namespace):
            with self._ledger.reading(), self._lock:
                self._states.pop(namespace, None)
        if not self._files.enabled:
            return False
        with self._files.lock():
            with self._ledger.reading():
                state = self._state(namespace)
                ready = self._ledger.rows(namespace)
                waiting = self._ledger.pending_seqs(namespace)
            kept = np.isin(state.graph_seqs, ready, assume_unique=True)
            if len(waiting):  # a snapshot holds every row up to its position
                ready = ready[ready < waiting[0]]
            fresh = ready[ready > (int(state.graph_seqs[-1]) if len(state.graph_seqs) else 0)]
            if len(ready) < SNAPSHOT_ROWS:
                if state.file is not None:
                    self._ledger.drop_snapshot(namespace, self.name)
                    self._files.sweep()
                self.failure = None
                return state.file is not None
            anew = force or state.graph is None or kept.mean() < 0.8 or len(ready) > 4 * len(state.graph_seqs)
            anew = anew or _walkable(state.graph) != (len(ready) > SCANNED_ROWS)
            anew = anew or self._largest(namespace, fresh) > _reach(state.graph)
            # removed rows whose vectors are still in the file
            gone = not anew and bool((_codes(state.graph)[~kept] != ZERO).any())
            if not (anew or len(fresh) or gone or self._files.problems(namespace)):
                self.failure = None
                return False
            todo = ready if anew else fresh
            graph = self._new_graph(namespace, ready) if anew else _without(state.graph, ~kept)
            for start in range(0, len(todo), BATCH):
                batch = todo[start : start + BATCH]
                seqs, vectors = self._ledger.vectors_of(namespace, batch.tolist())
                if len(seqs) < len(batch):  # removed meanwhile: their place is taken by nothing
                    whole = np.zeros((len(batch), self.dim), np.float32)
                    whole[np.searchsorted(batch, seqs)] = vectors
                    vectors = whole
                graph.add(vectors)
                if progress is not None:
                    progress(start + len(batch), len(todo), self.name)
            import faiss

            seqs = todo if anew else np.concatenate([state.graph_seqs, fresh])
            arrays = {"graph": faiss.serialize_index(graph), "seqs": seqs}
            self._files.save(namespace, int(seqs[-1]), len(seqs), arrays)
            self.failure = None
        return True

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the snapshot, rows in the ``tail``, and the last ``failure``."""
        return {**self._files.status(namespace), "failure": self.failure}

    def problems(self, namespace: str) -> list[str]:
        """What is wrong with the snapshot, if there is one."""
        return self._files.problems(namespace)

    def size(self) -> int:
        """Bytes of the snapshots on disk."""
        return self._files.size()

    def _new_graph(self, namespace: str, ready: Seqs) -> Any:
        import faiss

        form = (self.dim, faiss.ScalarQuantizer.QT_8bit)
        if len(ready) <= SCANNED_ROWS:
            graph = faiss.IndexScalarQuantizer(*form, faiss.METRIC_INNER_PRODUCT)
        else:
            graph = faiss.IndexHNSWSQ(*form, LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = BUILD_BEAM
        # one range for all dimensions, and some to spare: what is quiet in these rows may speak in those added later
        reach = np.full(self.dim, 1.25 * self._largest(namespace, ready) + 1e-6, np.float32)
        graph.train(np.stack([-reach, reach]))
        return graph

    def _largest(self, namespace: str, seqs: Seqs) -> float:
        """The largest absolute value in the vectors of these rows."""
        batches = (seqs[start : start + BATCH].tolist() for start in range(0, len(seqs), BATCH))
        found = (self._ledger.vectors_of(namespace, batch)[1] for batch in batches)
        return max((float(np.abs(vectors).max(initial=0)) for vectors in found), default=0.0)


def _walkable(graph: Any) -> bool:
    """Whether the vectors have links between them; a scan is all there is for few."""
    return hasattr(graph, "hnsw")


def _storage(graph: Any) -> Any:
    """The 8-bit vectors, as an index that compares all of them."""
    import faiss

    return faiss.downcast_index(graph.storage) if _walkable(graph) else graph


def _reach(graph: Any) -> float:
    """Values beyond plus or minus this are cut off by the graph's 8-bit codes."""
    import faiss

    return float(faiss.vector_to_array(_storage(graph).sq.trained)[-1]) / 2


def _in_forked_child() -> None:
    """The threads of faiss did not survive the fork: a child that gave them work would wait for ever."""
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)


def _cosines(rows: Vectors, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row by row, where ``rows @ vector`` rounds each row by how many others there are: a score is the row's own."""
    cosines: NDArray[np.float32] = np.einsum("ij,j->i", rows, vector)
    return cosines


def holds(serialised: NDArray[np.uint8], rows: NDArray[np.bool_]) -> bool:
    """Whether the graph of a snapshot holds a vector of any of these of its rows."""
    import faiss

    graph = faiss.deserialize_index(serialised)  # whose memory the codes are
    return bool((_codes(graph)[rows] != ZERO).any())


def _codes(graph: Any) -> NDArray[np.uint8]:
    """The graph's 8-bit vectors, uint8[n, code size], without a copy."""
    import faiss

    storage = _storage(graph)
    flat = faiss.rev_swig_ptr(storage.codes.data(), storage.codes.size())
    codes: NDArray[np.uint8] = flat.reshape(storage.ntotal, -1)
    return codes


def _without(graph: Any, removed: NDArray[np.bool_]) -> Any:
    """A copy of ``graph`` in which the vectors of ``removed`` rows are zero: their links stay as a way through."""
    import faiss

    copy = faiss.clone_index(graph)
    if removed.any():
        _codes(copy)[removed] = ZERO
    return copy
