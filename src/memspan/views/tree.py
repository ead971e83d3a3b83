"""The tree view: the categories that users name, and under each the clusters that its rows form by themselves.

A query goes down from the root by beam search and is compared with the rows of a few leaves instead of with all. The
tree of a namespace is small (no vectors, only centroids and the numbers of rows) and held in memory; it follows the
ledger row by row, and each row changes only what is on its path.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memspan.errors import StoreCorrupt
from memspan.ledger.base import Ledger, Placed, Seqs, Snapshot, Vectors
from memspan.records import Node
from memspan.views.base import Lineage, Progress, Selection, SnapshotFiles, Snapshots, find_sorted, forgotten_if_broken
from memspan.views.forest import CATEGORY, GONE, LEAVES, ROOT, Forest
from memspan.views.labels import Words, label

VERSION = "1"  # of what a snapshot holds
SNAPSHOT_ROWS = 2_048  # so many are read from the ledger and put in their places in a tenth of a second
BATCH = 8_192
MOST_BYTES = 256 << 20  # of trees held in memory over all namespaces; one of a million rows takes some 30 MB
GROWTH = 4  # a tree that has grown so many times over, or shrunk to half, since it was built whole is built anew
SAMPLE = 32  # rows that stand for a node
BACKGROUND = 512  # rows that stand for the store

_NO_SEQS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Routed:
    """Where a query was led. ``seqs`` int64[n] ascending: the rows of the leaves it came to that are in the selection.

    ``comparisons`` is what a search costs this way: the centroids compared, and these rows. ``visited`` counts nodes.
    """

    seqs: Seqs
    comparisons: int
    visited: int


@dataclass(slots=True)
class _State:
    """One namespace in memory: everything up to the row ``last`` and the entry ``entry`` of the removal log."""

    file: str | None
    forest: Forest
    last: int
    entry: int
    built: int  # rows when it was last built whole
    waiting: Seqs  # rows here that have no vector
    changed: bool = False
    seen: weakref.WeakKeyDictionary[Lineage, NDArray[np.bool_]] = field(default_factory=weakref.WeakKeyDictionary)

    def inside(self, selection: Selection) -> NDArray[np.bool_]:
        """Of the first rows whether each is in ``selection``; later ones are not."""
        last = selection.seqs[-1] if len(selection.seqs) else -1
        end = int(np.searchsorted(self.forest.seqs, last, "right"))
        known = self.seen.get(selection.lineage, np.zeros(0, bool))
        if end > len(known):  # up to its own last row, a selection of this lineage has said all there is to say
            _, more = selection.find(self.forest.seqs[len(known) : end])
            self.seen[selection.lineage] = known = np.concatenate([known, more])
        return known[:end]


class TreeView:
    """``View`` by category and cluster. ``dim`` is the encoder's."""

    name = "tree"

    def __init__(self, ledger: Ledger, directory: Path | None, dim: int) -> None:
        self.dim = dim
        self._ledger = ledger
        self._files: Snapshots = SnapshotFiles(ledger, self.name, directory)
        self._lock = threading.RLock()
        self._states: OrderedDict[str, _State] = OrderedDict()
        self.failure: str | None = None

    # Asking

    def route(
        self, selection: Selection, vector: NDArray[np.float32], beam: int, *, under: tuple[str, ...] = ()
    ) -> Routed:
        """The rows that beam search for ``vector`` float32[dim] leads to, below the category ``under``.

        The ``beam`` (1 or more) nearest nodes of each level are kept, so the cost is O(beam x fan-out x depth) and at
        most ``beam`` leaves of rows. A selection that keeps a share of the rows widens the beam in proportion, so that
        as many rows come of it; where the beam would take in every leaf, all its rows come without a look at the tree.
        """
        with self._ledger.reading(), self._lock:
            forest, inside = self._seen(selection)
            start = forest.at.get(tuple(under))
            if start is None or not inside.any():
                return Routed(seqs=_NO_SEQS, comparisons=0, visited=0)
            width = ceil(beam * max(1.0, float(forest.counts[start]) / len(selection.seqs)))
            if start == ROOT and width >= np.count_nonzero(forest.heights[: forest.size] == LEAVES):
                rows, known = find_sorted(forest.seqs, selection.seqs)
                rows = rows[known]
                rows = rows[forest.placed(rows)]
                return Routed(seqs=forest.seqs[rows], comparisons=len(rows), visited=1)
            leaves, compared, opened = forest.route(start, vector, width)
            below = self._rows(forest, inside, leaves)
            return Routed(seqs=forest.seqs[below], comparisons=compared + len(below), visited=opened + len(leaves))

    def around(self, selection: Selection, vectors: Vectors, beam: int) -> list[Seqs]:
        """For each of ``vectors`` the rows that beam search leads to, as ``route`` does from the root."""
        with self._ledger.reading(), self._lock:
            forest, inside = self._seen(selection)
            return [forest.seqs[self._rows(forest, inside, forest.route(ROOT, each, beam)[0])] for each in vectors]

    @staticmethod
    def _rows(forest: Forest, inside: NDArray[np.bool_], leaves: Sequence[int]) -> NDArray[np.int32]:
        """The rows of ``leaves`` that are in a selection, ascending."""
        rows = np.concatenate([np.zeros(0, np.int32), *(forest.members[leaf] for leaf in leaves)])
        rows = rows[rows < len(inside)]
        return np.sort(rows[inside[rows]])

    def prior(self, namespace: str, vector: NDArray[np.float32], seqs: Seqs) -> NDArray[np.float32]:
        """How well the category of each row suits ``vector``: float32[n] in [0, 1], NaN for a row without one.

        The cosine with the centroid of the category or of one above it, whichever is nearest; NaN too where none of
        the rows in it has a vector yet.
        """
        with self._ledger.reading(), self._lock:
            forest = self._state(namespace).forest
            rows, known = find_sorted(forest.seqs, seqs)
            homes, of = np.unique(forest.categories_of(rows[known]), return_inverse=True)
            best = np.full(len(homes), np.nan, np.float32)
            at = homes
            while (on := at > ROOT).any():  # all categories a level up at a time
                counted = on & (forest.counts[at] > 0)
                best[counted] = np.fmax(best[counted], forest.cosines(at[counted], vector))
                at = np.where(on, forest.parents[at], ROOT)
        scores = np.full(len(seqs), np.nan, np.float32)
        scores[known] = best[of].clip(0, 1)
        return scores

    def outline(self, selection: Selection, path: tuple[str, ...] = (), depth: int = 2, examples: int = 1) -> Node:
        """The category ``path`` and ``depth`` levels below it, as they look in the selection: only what has rows in it.

        Categories come first, by name, then clusters, the largest first; each with up to ``examples`` texts. A cluster
        that is alone under its parent says nothing that the parent does not: what is below it stands there instead.
        The key of a cluster stays as rows come, until they split it. Without rows it is a category of 0 segments.
        """
        with self._ledger.reading(), self._lock:
            forest, inside = self._seen(selection)
            rows = np.flatnonzero(inside)
            rows = rows[forest.holders[rows] != GONE]
            start = forest.at.get(tuple(path))
            part = None if start is None else _Sketch(forest, rows).part(start, depth)
            chosen = _spread(forest.seqs[rows], BACKGROUND)
        if part is None:
            return Node(key=" / ".join(path), kind="category", path=tuple(path), label="".join(path[-1:]), segments=0)
        clusters = any(child.kind == "cluster" for child in part.every())
        background = Words.of(self._texts(selection.namespace, chosen.tolist()) if clusters else ())
        return self._shown(selection.namespace, part, background, examples)

    def _shown(self, namespace: str, part: _Part, background: Words, examples: int) -> Node:
        named = part.kind == "category"
        texts = self._texts(namespace, part.sample[:examples] if named else part.sample)
        return Node(
            key=part.key,
            kind=part.kind,
            path=part.path,
            label="".join(part.path[-1:]) if named else label(Words.of(texts), background),
            segments=part.segments,
            children=tuple(self._shown(namespace, child, background, examples) for child in part.children),
            examples=tuple(texts[:examples]),
        )

    def _texts(self, namespace: str, seqs: Sequence[int]) -> list[str]:
        return [row.text for row in self._ledger.fetch(namespace, seqs)]

    def _seen(self, selection: Selection) -> tuple[Forest, NDArray[np.bool_]]:
        state = self._state(selection.namespace)
        return state.forest, state.inside(selection)

    # Keeping up with the ledger

    def _state(self, namespace: str) -> _State:
        # what threads share only ever goes forward
        with self._ledger.newest(), forgotten_if_broken(self._states, namespace):
            return self._caught_up(namespace)

    def _caught_up(self, namespace: str) -> _State:
        snapshot = self._ledger.snapshot(namespace, self.name) if self._files.enabled else None
        state = self._states.get(namespace)
        file = None if snapshot is None else snapshot.file
        if state is not None and state.file == file:
            self._catch_up(namespace, state)
            self._states.move_to_end(namespace)
            return state
        self._states.pop(namespace, None)
        state = self._load(namespace, snapshot)
        self._catch_up(namespace, state)
        self._states[namespace] = state
        held = sum(each.forest.bytes for each in self._states.values())
        while held > MOST_BYTES and len(self._states) > 1:  # the namespace not asked for longest is read again
            held -= self._states.popitem(last=False)[1].forest.bytes
        return state

    def _load(self, namespace: str, snapshot: Snapshot | None) -> _State:
        if snapshot is not None:
            try:
                return self._read(snapshot)
            except StoreCorrupt as error:  # the ledger has every row: slower once, but nothing is missing
                self.failure = str(error)
        file = None if snapshot is None else snapshot.file
        return _State(file, Forest(self.dim), 0, self._ledger.last_removal(namespace), 0, _NO_SEQS)

    def _read(self, snapshot: Snapshot) -> _State:
        arrays = self._files.load(snapshot)
        try:
            if arrays["version"].tobytes() != self._version():
                raise ValueError("made by another version or encoder")
            forest = Forest.of(arrays, self.dim)
            entry, built = arrays["state"].tolist()
        except (KeyError, IndexError, ValueError, TypeError) as error:
            mend = "it is rebuilt from the ledger"
            raise StoreCorrupt(f"{snapshot.file} is no tree of this store ({error})", mend=mend) from error
        loose = forest.seqs[forest.heights[forest.holders] == CATEGORY]
        return _State(snapshot.file, forest, snapshot.position, entry, built, loose)

    def _version(self) -> bytes:
        """Centroids are of no use with another encoder."""
        return f"{VERSION} {self._ledger.value('encoder')}".encode()

    def _catch_up(self, namespace: str, state: _State) -> None:
        """Take out what was deleted, place the rows whose vectors have come, add those after the last one seen."""
        forest, fetch = state.forest, partial(self._fetch, namespace)
        state.entry, gone = self._ledger.removals(namespace, state.entry)
        gone = np.unique(gone[gone <= state.last])
        if len(gone):  # rows that only ended stay: a search as of an earlier time still sees them
            deleted = np.isnan(self._ledger.standing(namespace, gone.tolist()).importance)
            state.changed |= forest.remove(gone[deleted], fetch)
        pending = self._ledger.pending_seqs(namespace)
        come = np.setdiff1d(state.waiting, pending, assume_unique=True)
        if len(come):
            seqs, vectors = self._ledger.vectors_of(namespace, come.tolist())
            forest.place(seqs, self._checked(vectors), fetch)
            state.changed |= len(seqs) > 0
        for rows, seqs, vectors in self._batches(namespace, state.last):
            self._insert(forest, rows, seqs, vectors, fetch)
            state.last, state.changed = rows[-1].seq, True
        state.waiting = pending

    def _batches(self, namespace: str, after: int) -> Iterator[tuple[list[Placed], Seqs, Vectors]]:
        """The rows after ``after``, and the vectors of those that have one, with their seqs."""
        rows = self._ledger.structure(namespace, after, BATCH)
        while rows:
            seqs, vectors = self._ledger.vectors(namespace, after, len(rows))
            after = rows[-1].seq
            inside = seqs <= after
            yield rows, seqs[inside], self._checked(vectors)[inside]
            rows = self._ledger.structure(namespace, after, BATCH) if len(rows) == BATCH else []

    @staticmethod
    def _insert(forest: Forest, rows: Sequence[Placed], seqs: Seqs, vectors: Vectors, fetch: Any) -> None:
        homes = np.array([forest.category(row.category) for row in rows], np.int32)
        forest.append(np.array([row.seq for row in rows], np.int64), homes)
        forest.place(seqs, vectors, fetch)

    def _fetch(self, namespace: str, seqs: Seqs) -> Vectors:
        """The vectors of rows that are in leaves; zeros where a row was deleted meanwhile."""
        found, vectors = self._ledger.vectors_of(namespace, seqs.tolist())
        if len(found) == len(seqs):
            return self._checked(vectors)
        whole = np.zeros((len(seqs), self.dim), np.float32)
        whole[np.searchsorted(seqs, found)] = self._checked(vectors)
        return whole

    def _checked(self, vectors: Vectors) -> Vectors:
        if len(vectors) and vectors.shape[1] != self.dim:
            problem = f"a vector has {vectors.shape[1]} dimensions, not {self.dim}"
            raise StoreCorrupt(problem, mend="run `memspan rebuild`")
        return vectors if len(vectors) else np.zeros((0, self.dim), np.float32)

    # Snapshots

    def due(self, namespace: str) -> bool:
        """Whether the rows after the snapshot have become many."""
        return self._files.outgrown(namespace, SNAPSHOT_ROWS) or self._swollen(namespace)

    def _swollen(self, namespace: str) -> bool:
        """Whether most of what is held in memory is of rows that are gone."""
        state = self._states.get(namespace)
        return state is not None and self._files.swollen(namespace, state.forest.rows, whole=True)

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Write the tree as it has grown. ``force`` builds it anew from the ledger, as is done for one that has grown
        or shrunk much since it was: every row then goes to the leaf that is nearest in the whole tree."""
        if self._swollen(namespace):
            with self._ledger.reading(), self._lock:
                self._states.pop(namespace, None)
        if not self._files.enabled:
            return False
        with self._files.lock():
            done = self._fold(namespace, force, progress)
            self.failure = None
        return done

    def _fold(self, namespace: str, force: bool, progress: Progress | None) -> bool:
        snapshot, rows = self._ledger.snapshot(namespace, self.name), self._ledger.rows(namespace)
        if not len(rows) and snapshot is not None:
            self._ledger.drop_snapshot(namespace, self.name)
            self._files.sweep(namespace)
            return True
        if not len(rows) or (snapshot is None and len(rows) < SNAPSHOT_ROWS and not force):
            return False
        built = self._built_for(snapshot)
        if force or not built / 2 <= len(rows) <= GROWTH * built:
            last, built = int(rows[-1]), len(rows)
            forest, entry = self._build(namespace, last, 2 * built, progress)
            arrays = forest.arrays()
        else:
            with self._ledger.reading(), self._lock:
                state = self._state(namespace)
                if not state.changed:
                    return False
                last, entry, arrays = state.last, state.entry, state.forest.arrays()
        arrays["version"] = np.frombuffer(self._version(), np.uint8)
        arrays["state"] = np.array([entry, built], np.int64)
        self._files.save(namespace, last, len(arrays["seqs"]), arrays)
        return True

    def _built_for(self, snapshot: Snapshot | None) -> int:
        """For how many rows the tree was last built whole; 0 where there is none that can be read."""
        try:
            return 0 if snapshot is None else self._read(snapshot).built
        except StoreCorrupt:
            return 0

    def _build(self, namespace: str, upto: int, total: int, progress: Progress | None) -> tuple[Forest, int]:
        """A tree of the rows up to ``upto``, and the entry of the removal log from which it has to catch up.

        It grows from the rows in their order, as it does row by row; then each goes where it belongs by now.
        """
        entry = self._ledger.last_removal(namespace)
        forest, fetch, done = Forest(self.dim), partial(self._fetch, namespace), 0

        def reading() -> Iterator[tuple[list[Placed], Seqs, Vectors]]:
            nonlocal done
            for rows, seqs, vectors in self._batches(namespace, 0):
                some = [row for row in rows if row.seq <= upto]
                yield some, seqs, vectors  # vectors of rows that are not in the forest are passed over
                done += len(some)
                if progress is not None and some:
                    progress(min(done, total), total, self.name)
                if len(some) < len(rows):
                    return

        for rows, seqs, vectors in reading():
            self._insert(forest, rows, seqs, vectors, fetch)
        forest.settle(((seqs, vectors) for _, seqs, vectors in reading()), fetch)
        return forest, entry

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the snapshot, rows in the ``tail``, and the last ``failure``."""
        return {**self._files.status(namespace), "failure": self.failure}

    def problems(self, namespace: str) -> list[str]:
        """What is wrong with the snapshot, if there is one."""
        snapshot = self._ledger.snapshot(namespace, self.name)
        if snapshot is None or not self._files.enabled:
            return []
        try:
            self._read(snapshot)
        except StoreCorrupt as error:
            return [str(error)]
        return []

    def size(self) -> int:
        """Bytes of the snapshots on disk."""
        return self._files.size()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A node to be shown; ``sample`` is the seqs of some of its rows, spread evenly, oldest first."""

    kind: Literal["category", "cluster"]
    path: tuple[str, ...]
    key: str
    segments: int
    sample: tuple[int, ...]
    children: tuple[_Part, ...]

    def every(self) -> Iterator[_Part]:
        yield self
        for child in self.children:
            yield from child.every()


class _Sketch:
    """A forest as ``rows``, some of its rows, see it: sorted so that what is below a node lies side by side."""

    def __init__(self, forest: Forest, rows: NDArray[np.int64]) -> None:
        self._forest = forest
        self._first = np.zeros(forest.size, np.int64)  # the number of each node, parents before children
        self._end = np.zeros(forest.size, np.int64)  # the number after the last one below it
        self._number(ROOT, 0)
        places = self._first[forest.holders[rows]]
        order = np.argsort(places, kind="stable")
        self._places, self._seqs = places[order], forest.seqs[rows[order]]

    def _number(self, node: int, number: int) -> int:
        self._first[node] = number
        number += 1
        for child in (*self._forest.categories[node], *self._forest.clusters[node]):
            number = self._number(child, number)
        self._end[node] = number
        return number

    def _below(self, node: int) -> Seqs:
        start, end = np.searchsorted(self._places, [self._first[node], self._end[node]])
        return self._seqs[start:end]

    def part(self, node: int, depth: int) -> _Part | None:
        seqs, forest = self._below(node), self._forest
        if not len(seqs):
            return None
        path, height = forest.paths[int(forest.homes[node])], int(forest.heights[node])
        below = (*sorted(forest.categories[node], key=forest.paths.__getitem__), *self._clusters(node))
        parts = [self.part(child, depth - 1) for child in below] if depth > 0 else []
        return _Part(
            kind="category" if height == CATEGORY else "cluster",
            path=path,
            key=" / ".join(path) if height == CATEGORY else f"{int(seqs.min())}.{height}",
            segments=len(seqs),
            sample=tuple(_spread(seqs, SAMPLE).tolist()),
            children=tuple(part for part in parts if part is not None),
        )

    def _clusters(self, node: int) -> list[int]:
        found = [child for child in self._forest.clusters[node] if len(self._below(child))]
        if len(found) == 1:
            return self._clusters(found[0])
        return sorted(found, key=lambda child: (-len(self._below(child)), child))


def _spread(seqs: Seqs, most: int) -> Seqs:
    """At most ``most`` of ``seqs``, ascending: those whose scrambled number is least, so that a few more or fewer rows
    change few of them."""
    if len(seqs) > most:
        scrambled = seqs.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        seqs = seqs[np.argpartition(scrambled, most)[:most]]
    return np.sort(seqs)
