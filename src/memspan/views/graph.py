"""The graph in memory: a snapshot holds the rows up to a position as flat arrays, the rows after it are beside it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.errors import MissingExtra, StoreCorrupt
from memspan.ledger.base import SEPARATOR, Ledger, Seqs, Snapshot, names_in
from memspan.records import Scope
from memspan.views import association
from memspan.views.adjacency import Adjacency, Growing, Rows
from memspan.views.association import Edges, Graph, Holders, Mentions, NearestIn, unnamed
from memspan.views.base import Progress, Selection, SnapshotFiles, forgotten_if_broken

VERSION = "2"  # of the names that `memspan.entities` finds
SNAPSHOT_ROWS = 2_048
MOST_ROWS = 200_000  # after their snapshots, held in memory over all namespaces: some 2.7 KB each
BATCH = 8_192


class GraphView(Graph):
    """``View`` by association, all edges in memory and in a snapshot of the store's."""

    def __init__(self, ledger: Ledger, directory: Path | None, nearest: NearestIn | None) -> None:
        super().__init__(ledger, nearest)
        self._files = SnapshotFiles(ledger, self.name, directory)
        self._lock = threading.RLock()
        self._states: OrderedDict[str, Growing] = OrderedDict()
        self.failure: str | None = None

    # Where the edges are

    def beside(self, selection: Selection, seqs: Seqs, reach: int = 1) -> tuple[Rows, Seqs, Rows]:
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            index, rows = state.find(seqs)
            origin, target, steps = state.beside(rows, reach=reach, turns=True)
            found = state.all_seqs()[target]
        inside = selection.inside(found)
        return index[origin[inside]], found[inside], steps[inside]

    def _following(self, selection: Selection, seqs: Seqs) -> Edges:
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            index, rows = state.find(seqs)
            origin, target, _ = state.beside(rows)
            keep = state.inside(selection)(target)
            origin, target = index[origin[keep]], state.all_seqs()[target[keep]]
        return unnamed(origin, target, np.ones(len(origin), np.float32), "next")

    def _mentioned(self, selection: Selection, seqs: Seqs) -> tuple[Mentions, NDArray[np.uint64], Holders]:
        with self._ledger.reading(), self._lock:
            index, rows = (state := self._state(selection.namespace)).find(seqs)
            origins, keys, titles = state.mentioned(rows)
            distinct = np.unique(keys)
            return Mentions(index[origins], keys, titles), distinct, self._holders(selection, distinct)

    def _holders(self, selection: Selection, keys: NDArray[np.uint64]) -> Holders:
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            owner, held = state.holders(keys, association.MOST_HELD)
            seen = state.inside(selection)(held >> 1)
            owner, held = owner[seen], held[seen]
            return Holders(owner, state.all_seqs()[held >> 1], (held & 1).astype(bool))

    def _similar(self, selection: Selection, seqs: Seqs, nearest: NearestIn) -> Edges:
        near = partial(nearest, selection.namespace)
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            index, rows = state.find(seqs)
            with self._ledger.newest(), forgotten_if_broken(self._states, selection.namespace):
                state.forget(*self._ledger.removals(selection.namespace, state.entry))
                state.link(near)
                origin, target, cosines = state.near_to(rows)
                keep = state.inside(selection)(target)
                if state.ask_again(np.setdiff1d(rows, rows[origin[keep]])):
                    state.link(near)
                    origin, target, cosines = state.near_to(rows)
                    keep = state.inside(selection)(target)
            origin, target = index[origin[keep]], state.all_seqs()[target[keep]]
        return unnamed(origin, target, cosines[keep].clip(0, 1), "similar")

    def _known(self, namespace: str, seqs: Seqs) -> Seqs:
        with self._ledger.reading(), self._lock:
            index, _ = self._state(namespace).find(seqs)
        return seqs[index]

    # Keeping up with the ledger

    def _state(self, namespace: str) -> Growing:
        state, moment = self._states.get(namespace), self._ledger.moment()
        if state is not None and state.moment is moment is not None:
            return state
        with self._ledger.newest():  # what threads share only ever goes forward
            snapshot = self._ledger.snapshot(namespace, self.name)
            file = None if snapshot is None else snapshot.file
            if state is None or state.file != file:
                state = self._states[namespace] = self._load(snapshot)
                state.entry = self._ledger.last_removal(namespace)
            with forgotten_if_broken(self._states, namespace):
                reread = self._catch_up(namespace, state, analyse=False)
        if reread > SNAPSHOT_ROWS and self.failure is None and self._files.enabled:
            self.failure = f"the names in {reread:,} rows had to be read from their texts: run `memspan compact`"
        state.moment = moment
        self._states.move_to_end(namespace)
        held = sum(len(each.seqs) for each in self._states.values())
        while held > MOST_ROWS and len(self._states) > 1:  # the namespace not asked for longest is read again
            held -= len(self._states.popitem(last=False)[1].seqs)
        return state

    def _load(self, snapshot: Snapshot | None) -> Growing:
        if snapshot is None:
            return Growing(None, Adjacency.empty(), 0)
        try:
            arrays = dict(self._files.load(snapshot))
            if arrays.pop("version").tobytes().decode() != VERSION:
                raise StoreCorrupt(f"{snapshot.file} was made by another version", mend="run `memspan compact`")
            return Growing(snapshot.file, Adjacency(**arrays), snapshot.position)
        except (StoreCorrupt, KeyError, TypeError, ValueError) as error:  # the ledger has every text
            self.failure = str(error)
            return Growing(snapshot.file, Adjacency.empty(), 0)

    def _catch_up(self, namespace: str, state: Growing, *, analyse: bool) -> int:
        """Add the rows after the last one seen; returns how many had to be analysed, which with ``analyse`` are all."""
        analysed = 0
        while rows := self._ledger.structure(namespace, state.last, BATCH):
            unread = {row.seq for row in rows if analyse or row.names is None}
            texts: dict[int, tuple[str, ...]] = {}
            if unread:
                found = self._ledger.texts(namespace, rows[0].seq - 1, rows[-1].seq, len(rows))
                texts = {row.seq: names_in(row.encoded_text) for row in found if row.seq in unread}
                analysed += len(unread)
            for row in rows:
                state.insert(row, texts[row.seq] if row.seq in unread else (row.names or "").split(SEPARATOR))
        return analysed

    # Snapshots

    def due(self, namespace: str) -> bool:
        """Whether the rows after the snapshot have become many."""
        return self._files.outgrown(namespace, SNAPSHOT_ROWS) or self._swollen(namespace)

    def _swollen(self, namespace: str) -> bool:
        """Whether most of what is held in memory is of rows that are gone."""
        state = self._states.get(namespace)
        return state is not None and self._files.swollen(namespace, len(state.seqs))

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Fold the rows after the snapshot into it and drop removed rows; ``force`` reads every row from the ledger."""
        if self._swollen(namespace):
            with self._ledger.reading(), self._lock:
                self._states.pop(namespace, None)
        if not self._files.enabled:
            return False
        with self._files.lock():
            with self._ledger.reading():
                with self._lock:
                    state = self._state(namespace)
                alive = self._ledger.rows(namespace)
                current, _ = self._ledger.select(Scope(namespace=namespace), None, None, -1)
                broken = self.failure is not None or bool(self._files.problems(namespace))
                tail, dead = len(state.seqs), len(state.all_seqs()) - len(alive)
                changed = tail >= SNAPSHOT_ROWS or (state.file is not None and (tail > 0 or dead > 0))
                if not (changed or force or broken):
                    return False
                # a state of its own: searches go on adding rows to the other one
                state = Growing(None, Adjacency.empty(), 0) if force else Growing(None, state.base, state.start)
                self._catch_up(namespace, state, analyse=force)
            nearest = None if self._nearest is None else partial(self._nearest, namespace)
            folded = state.folded(alive, current, nearest, progress)
            version = np.frombuffer(VERSION.encode(), np.uint8)
            position = int(alive[-1]) if len(alive) else state.start
            self._files.save(namespace, position, len(folded.seqs), {**folded.arrays(), "version": version})
            self.failure = None
            while self._ledger.trim_mentions(namespace, position):
                pass
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


def communities(count: int, a: Rows, b: Rows, weight: NDArray[np.float32], *, resolution: float = 1.0) -> list[Rows]:
    """The communities of a graph of ``count`` nodes and the edges a-b, largest first: the numbers of their nodes.

    Leiden (Traag, Waltman, van Eck, arXiv:1810.08473) with modularity; the same graph gives the same communities. A
    node without an edge is in none. Raises MissingExtra.
    """
    try:
        from graspologic_native import leiden_csr
    except ImportError as error:
        raise MissingExtra("themes need graspologic-native", mend='pip install "memspan[themes]"') from error
    if not len(a):
        return []
    order = np.lexsort((np.concatenate([b, a]), np.concatenate([a, b])))
    rows, columns = np.concatenate([a, b])[order], np.concatenate([b, a])[order]
    first = np.flatnonzero(np.concatenate([[True], (np.diff(rows) != 0) | (np.diff(columns) != 0)]))
    values = np.add.reduceat(np.concatenate([weight, weight])[order].astype(np.float64), first)
    starts = np.searchsorted(rows[first], np.arange(count + 1)).astype(np.int64)
    _, found = leiden_csr(starts, columns[first].astype(np.int32), values, count, resolution=resolution, seed=1)
    number = np.full(count, -1, np.int64)
    number[list(found)] = list(found.values())
    linked = np.flatnonzero(np.diff(starts))
    ordered = linked[np.argsort(number[linked], kind="stable")]
    groups = np.split(ordered, np.flatnonzero(np.diff(number[ordered])) + 1)
    return sorted(groups, key=len, reverse=True)
