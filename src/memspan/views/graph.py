"""The graph view: what leads from one row to another.

Four kinds of edges. ``next``: the rows before and after in the same session or document. ``mentions``: rows that share
a name, over the name as a node of its own; names that many rows share count little, and hubs not at all. ``similar``:
the nearest rows by meaning, a bounded number, both ways. And what users state themselves, which the ledger keeps.

Spreading activation is that of Collins and Loftus (1975) as bounded hops with decay; ``pagerank`` is the personalised
PageRank of HippoRAG (arXiv:2405.14831), over the part of the graph that the seeds reach.

A snapshot holds the rows up to a position as flat arrays, the rows after it are in memory; no edge decides what may be
seen: each is followed only between rows of the selection.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.arguments import DERIVED
from memspan.errors import MissingExtra, StoreCorrupt
from memspan.ledger.base import SEPARATOR, Ledger, Seqs, Snapshot, names_in
from memspan.records import Scope
from memspan.views.adjacency import DEGREE, FEWEST, Adjacency, Growing, Rows, key_of, spans
from memspan.views.base import Progress, Scored, Selection, SnapshotFiles, forgotten_if_broken

VERSION = "2"  # of the names that `memspan.entities` finds
HUB = 100  # a name that more rows of the selection share says nothing about any of them
MOST_HELD = 64 * HUB  # rows of a name beyond which not even its share in the selection is worth finding out
TITLE = 2.0  # how much more a name counts where it is the title: that row is about it
SNAPSHOT_ROWS = 2_048
MOST_ROWS = 200_000  # after their snapshots, held in memory over all namespaces: some 2.7 KB each
BATCH = 8_192
MOST_ALONE = 16_384  # rows of a selection that are compared with one another, in a second or so
STATED = {"reply": 0.9, "supersedes": 0.9}  # kinds whose meaning is known; of others the weight is what was stated

NearestIn = Callable[[str | Selection, Seqs, int], tuple[Seqs, NDArray[np.float32]]]
"""(a namespace's current rows or a selection, seqs int64[n] ascending, k) → the nearest rows of each: seqs int64[n, k]
(-1: none) and cosines float32[n, k]."""


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Edges out of some rows: from ``origin`` (an index into those rows) to ``target`` (a row), all int64[m];
    ``weight`` float32[m] in (0, 1]; ``via`` uint64[m], the key of the name they share, 0 where there is none."""

    origin: Rows
    target: Rows
    weight: NDArray[np.float32]
    via: NDArray[np.uint64]
    kind: str


class Origin(NamedTuple):
    """One hop: from the row ``seq`` by the edge ``kind``, over the name with the key ``via`` (0: none)."""

    seq: int
    kind: str
    via: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """Rows that seeds lead to, strongest first.

    ``seqs`` int64[m], ``activation`` float32[m] in [0, 1], ``hops`` int64[m]; ``paths[m]`` are the hops from a seed to
    each, the first one first.
    """

    seqs: Seqs
    activation: NDArray[np.float32]
    hops: Rows
    paths: tuple[tuple[Origin, ...], ...]

    def path(self, seq: int) -> tuple[Origin, ...]:
        """The path to the row ``seq``; none for a row that was not reached."""
        at = np.flatnonzero(self.seqs == seq)
        return self.paths[at[0]] if len(at) else ()


class GraphView:
    """``View`` by association. ``nearest`` finds similar rows; None where there are no vectors."""

    name = "graph"

    def __init__(self, ledger: Ledger, directory: Path | None, nearest: NearestIn | None) -> None:
        self._ledger = ledger
        self._nearest = nearest
        self._files = SnapshotFiles(ledger, self.name, directory)
        self._lock = threading.RLock()
        self._states: OrderedDict[str, Growing] = OrderedDict()
        self.failure: str | None = None

    # Following edges

    def beside(self, selection: Selection, seqs: Seqs, reach: int = 1) -> tuple[Rows, Seqs, Rows]:
        """The turns of conversations in the selection up to ``reach`` before and after those among ``seqs``, no parts
        of documents.

        (index into ``seqs``, seq, how many turns after it, below 0 for before), int64[m] each.
        """
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            index, rows = state.find(seqs)
            origin, target, steps = state.beside(rows, reach=reach, turns=True)
            found = state.all_seqs()[target]
        _, inside = selection.find(found)
        return index[origin[inside]], found[inside], steps[inside]

    def naming(self, selection: Selection, names: Sequence[str]) -> Scored:
        """The rows of the selection that mention one of ``names``; scores are its weight as between rows, in (0, 1]."""
        keys = np.array(sorted({key_of(name) for name in names if name}), np.uint64)
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            owner, held = state.holders(keys, MOST_HELD)
            seen = state.inside(selection)(held >> 1)
            owner, held = owner[seen], held[seen]
            counts = np.bincount(owner, minlength=len(keys))
            telling = counts[owner] <= HUB
            owner, held = owner[telling], held[telling]
            total = len(selection.seqs)
            weight = np.log1p(total / counts[owner]) / max(float(np.log1p(total)), 1e-9)
            weight = (weight * np.where(held & 1, TITLE, 1.0)).clip(0, 1).astype(np.float32)
            rows, number = np.unique(held >> 1, return_inverse=True)
            best = np.zeros(len(rows), np.float32)
            np.maximum.at(best, number, weight)
            return Scored(state.all_seqs()[rows], best)

    def expand(
        self,
        selection: Selection,
        seeds: Scored,
        *,
        kinds: Sequence[str] | None = None,
        hops: int = 1,
        decay: float = 1.0,
        most: int = 200,
        among_seeds: bool = False,
    ) -> Reached:
        """Rows of the selection within ``hops`` of the seeds, at most ``most`` a hop.

        The activation of a row is that of its best path: the seed's score (in [0, 1]), times each edge's weight, times
        ``decay`` for each hop. ``kinds`` are the edges to follow, of the derived and the stated ones; None is all.
        ``among_seeds`` tells too how strongly the seeds lead to one another; else they are left out.
        """
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            every = state.all_seqs()
            index, rows = state.find(seeds.seqs)
            active = seeds.scores[index].astype(np.float32).clip(0, 1)
            start = set() if among_seeds else set(rows.tolist())
            paths: dict[int, tuple[Origin, ...]] = dict.fromkeys(rows.tolist(), ())
            found: dict[int, tuple[float, tuple[Origin, ...]]] = {}
            for _ in range(hops):
                fresh: dict[int, tuple[float, tuple[Origin, ...]]] = {}
                for edges in self._edges(state, selection, rows, kinds):
                    values = active[edges.origin] * edges.weight * np.float32(decay)
                    order = np.argsort(-values, kind="stable")
                    _, first = np.unique(edges.target[order], return_index=True)
                    for at in order[np.sort(first)[: 4 * most]].tolist():
                        target, value = int(edges.target[at]), float(values[at])
                        if value > fresh.get(target, found.get(target, (0.0,)))[0] and target not in start:
                            origin = int(rows[edges.origin[at]])
                            step = Origin(int(every[origin]), edges.kind, int(edges.via[at]))
                            fresh[target] = value, (*paths[origin], step)
                kept = sorted(fresh, key=lambda row: (-fresh[row][0], -row))[:most]
                found |= {row: fresh[row] for row in kept}
                paths = {row: fresh[row][1] for row in kept}
                rows = np.array(kept, np.int64)
                active = np.array([fresh[row][0] for row in kept], np.float32)
                if not len(rows):
                    break
        ranked = sorted(found, key=lambda row: (-found[row][0], -row))
        return Reached(
            every[np.array(ranked, np.int64)],
            np.array([found[row][0] for row in ranked], np.float32),
            np.array([len(found[row][1]) for row in ranked], np.int64),
            tuple(found[row][1] for row in ranked),
        )

    def pagerank(
        self,
        selection: Selection,
        seeds: Scored,
        *,
        kinds: Sequence[str] | None = None,
        hops: int = 2,
        restart: float = 0.5,
        most: int = 200,
    ) -> Scored:
        """Personalised PageRank from the seeds over what they reach within ``hops``: each row's mass over the greatest.

        ``restart`` is the chance to start anew at a seed, by its score. Twenty steps: by then (1 - restart) ** 20 of
        the mass is still to move, with a half less than a millionth.
        """
        reached = self.expand(selection, seeds, kinds=kinds, hops=hops, most=most)
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            seqs = np.unique(np.concatenate([seeds.seqs, reached.seqs]))
            index, rows = state.find(seqs)
            seqs, n = seqs[index], len(rows)
            where = np.full(len(state.all_seqs()), -1, np.int64)
            where[rows] = np.arange(n)
            parts = [
                (edges.origin, where[edges.target], edges.weight)
                for edges in self._edges(state, selection, rows, kinds)
            ]
        if not n:
            return Scored(seqs, np.zeros(0, np.float32))
        origin, target, weight = (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else ([], [], [])
        inside = np.asarray(target, np.int64) >= 0
        origin, target = np.asarray(origin, np.int64)[inside], np.asarray(target, np.int64)[inside]
        weight = np.asarray(weight, np.float64)[inside]
        out = np.bincount(origin, weight, n)
        share = weight / out[origin] if len(origin) else weight
        start = np.zeros(n)
        at = np.searchsorted(seqs, seeds.seqs)
        known = (at < n) & (seqs[np.minimum(at, n - 1)] == seeds.seqs)
        np.add.at(start, at[known], seeds.scores[known])
        start /= max(start.sum(), 1e-12)
        mass = start
        for _ in range(20):
            flowing = np.bincount(target, mass[origin] * share, n)
            mass = restart * start + (1 - restart) * (flowing + start * (1 - flowing.sum()))
        return Scored(seqs, (mass / max(mass.max(), 1e-12)).astype(np.float32))

    def name_of(self, namespace: str, seq: int, key: int) -> str | None:
        """The name with this key that the row ``seq`` mentions."""
        for row in self._ledger.texts(namespace, seq - 1, seq, 1):
            for name in names_in(row.encoded_text):
                if name and key_of(name) == key:
                    return name
        return None

    def neighbourhood(
        self, selection: Selection, *, whole: bool = True
    ) -> tuple[Seqs, Rows, Rows, NDArray[np.float32]]:
        """The graph of a selection: seqs int64[n], and each edge once (from, to: indexes into seqs; weight).

        ``whole``: it is the namespace. Else similar rows are looked for in it alone, where it is not too large: the
        nearest in the namespace may be somebody else's.
        """
        alone = None if whole or len(selection.seqs) > MOST_ALONE else self._nearest
        with self._ledger.reading(), self._lock:
            state = self._state(selection.namespace)
            index, rows = state.find(selection.seqs)
            where = np.full(len(state.all_seqs()), -1, np.int64)
            where[rows] = index
            n = max(len(selection.seqs), 1)
            pairs: dict[str, list[tuple[Rows, NDArray[np.float32]]]] = {}
            if alone is not None and n > 1:
                near, cosines = alone(selection, selection.seqs, DEGREE + 1)
                at, known = selection.find(near.ravel())
                ends = np.sort([np.repeat(np.arange(n), near.shape[1]), at], axis=0)
                real = known & (ends[0] != ends[1]) & (cosines.ravel() >= FEWEST)
                pairs["similar"] = [((ends[0] * n + ends[1])[real], cosines.ravel()[real].clip(0, 1))]
            for start in range(0, len(rows), BATCH):
                some = rows[start : start + BATCH]
                for edges in self._edges(state, selection, some, None, similar=alone is None):
                    ends = np.sort([index[start + edges.origin], where[edges.target]], axis=0)
                    pairs.setdefault(edges.kind, []).append((ends[0] * n + ends[1], edges.weight))
        every = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
        for several in pairs.values():  # most are known to both ends, of the similar ones some to one end only
            both, weights = (np.concatenate(part) for part in zip(*several, strict=True))
            pair, first = np.unique(both, return_index=True)
            every.append((pair, weights[first]))
        pair, weight = (np.concatenate(part) for part in zip(*every, strict=True))
        return selection.seqs, pair // n, pair % n, weight

    def _edges(
        self, state: Growing, selection: Selection, rows: Rows, kinds: Sequence[str] | None, *, similar: bool = True
    ) -> Iterator[Edges]:
        """The edges out of ``rows`` that stay in the selection, a kind at a time."""
        inside = state.inside(selection)
        if kinds is None or "next" in kinds:
            origin, target, _ = state.beside(rows)
            yield _within(Edges(origin, target, np.ones(len(origin), np.float32), _no_names(origin), "next"), inside)
        if kinds is None or "mentions" in kinds:
            yield self._mentions(state, rows, inside, len(selection.seqs))
        if (kinds is None or "similar" in kinds) and similar and self._nearest is not None:
            nearest = partial(self._nearest, selection.namespace)
            with self._ledger.newest(), forgotten_if_broken(self._states, selection.namespace):
                state.forget(*self._ledger.removals(selection.namespace, state.entry))
                state.link(nearest)
                edges = _similar(state, rows, inside)
                if state.ask_again(np.setdiff1d(rows, rows[edges.origin])):
                    state.link(nearest)
                    edges = _similar(state, rows, inside)
            yield edges
        if kinds is None or set(kinds).difference(DERIVED):
            yield from (_within(edges, inside) for edges in self._stated(selection, state, rows, kinds))

    @staticmethod
    def _mentions(state: Growing, rows: Rows, inside: Callable[[Rows], NDArray[np.bool_]], total: int) -> Edges:
        """Weight: the name's inverse document frequency in the selection, over that of a name only one row has; doubled
        where it is the title of either row, and cut at 1; of several shared names the strongest."""
        origins, keys, titles = state.mentioned(rows)
        distinct, number = np.unique(keys, return_inverse=True)
        owner, held = state.holders(distinct, MOST_HELD)
        seen = inside(held >> 1)
        owner, held = owner[seen], held[seen]
        counts = np.bincount(owner, minlength=len(distinct))
        ends = np.cumsum(counts)
        telling = (counts > 1) & (counts <= HUB)
        idf = np.log1p(total / np.maximum(counts, 1)) / max(float(np.log1p(total)), 1e-9)
        low = (ends - counts)[number]
        flat, pair = spans(low, np.where(telling[number], ends[number], low))
        origin, target, via = origins[pair], held[flat] >> 1, keys[pair]
        weight = idf[number[pair]] * np.where(held[flat] & 1, TITLE, 1.0) * np.where(titles[pair], TITLE, 1.0)
        order = np.lexsort((-weight, target, origin))
        first = np.ones(len(order), bool)
        first[1:] = (np.diff(origin[order]) != 0) | (np.diff(target[order]) != 0)
        keep = order[first]
        keep = keep[rows[origin[keep]] != target[keep]]
        return Edges(origin[keep], target[keep], weight[keep].clip(0, 1).astype(np.float32), via[keep], "mentions")

    def _stated(self, selection: Selection, state: Growing, rows: Rows, kinds: Sequence[str] | None) -> Iterator[Edges]:
        every = state.all_seqs()
        at = {int(seq): index for index, seq in enumerate(every[rows].tolist())}
        groups: dict[str, list[tuple[int, int, float]]] = {}
        for link in self._ledger.links(selection.namespace, list(at), selection.as_of):
            if kinds is None or link.kind in kinds:
                weight = link.weight * STATED.get(link.kind, 1.0)
                for near, far in ((link.source, link.target), (link.target, link.source)):
                    if near in at:
                        groups.setdefault(link.kind, []).append((at[near], far, weight))
        for kind, edges in groups.items():
            index, target = state.find(np.array([far for _, far, _ in edges], np.int64))
            origin = np.array([edges[i][0] for i in index.tolist()], np.int64)
            weights = np.array([edges[i][2] for i in index.tolist()], np.float32)
            yield Edges(origin, target, weights, np.zeros(len(origin), np.uint64), kind)

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


def _similar(state: Growing, rows: Rows, inside: Callable[[Rows], NDArray[np.bool_]]) -> Edges:
    origin, target, cosines = state.near_to(rows)
    return _within(Edges(origin, target, cosines.clip(0, 1), _no_names(origin), "similar"), inside)


def _within(edges: Edges, inside: Callable[[Rows], NDArray[np.bool_]]) -> Edges:
    keep = inside(edges.target)
    if keep.all():
        return edges
    return Edges(edges.origin[keep], edges.target[keep], edges.weight[keep], edges.via[keep], edges.kind)


def _no_names(rows: Rows) -> NDArray[np.uint64]:
    return np.zeros(len(rows), np.uint64)
