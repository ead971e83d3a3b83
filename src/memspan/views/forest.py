"""Categories and the clusters that grow under them, as arrays.

Under each category its rows form a K-tree: a B+-tree of centroids (S. Geva, "K-tree: a height balanced tree structured
vector quantizer", 2000). A row goes down to the nearest leaf; a leaf with more than LEAF rows, or a node with more than
FAN children, is split by balanced 2-means; all leaves under one category are equally deep. A centroid is a sum and a
count, changed only along the path of a row. Unlike Geva's, a row goes down by a narrow beam and not by the single
nearest child: among a million rows of sentences a search then misses a third fewer of the nearest ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.ledger.base import Seqs, Vectors
from memspan.views.base import find_sorted

LEAF = 256  # rows of a leaf at most: 256 leaves are the 65,536 comparisons that a query may cost
FAN = 32  # clusters directly under a node at most
DESCENT = 8  # nodes kept on each level while a row looks for its leaf
SHARE = 0.25  # of what is split, the least that either half gets
ROUNDS = 8  # of 2-means: by then hardly anything changes sides

ROOT: Final = 0
GONE: Final = -1

# What a node is: a leaf has height 0, clusters above it have theirs.
LEAVES: Final = 0
CATEGORY: Final = -1
FREE: Final = -2

Nodes = NDArray[np.int32]
Rows = NDArray[np.int32]
Fetch = Callable[[Seqs], Vectors]
"""seqs int64[n] ascending → their vectors, float32[n, dim]; zeros for those that have none any more."""


class Forest:
    """The tree of one namespace. Rows are numbered in the order of their seqs, ``seqs`` int64[n] ascending.

    A row is in one node: a leaf, or its category as long as it has no vector. Of each node: ``parents``, ``heights``,
    ``homes`` (the category it belongs to), ``counts`` and ``sums`` of the vectors below it, the lengths of these sums,
    ``clusters`` and ``categories`` (children of both kinds), ``members`` (the rows in it).
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.size = self.rows = 0
        self._seqs = np.zeros(0, np.int64)
        self._holders = np.zeros(0, np.int32)  # the node of each row, GONE where it was removed
        self.parents = np.zeros(0, np.int32)
        self.homes = np.zeros(0, np.int32)
        self.heights = np.zeros(0, np.int8)
        self.counts = np.zeros(0, np.int64)
        self.sums = np.zeros((0, dim), np.float32)
        self._lengths = np.zeros(0, np.float32)
        self.clusters: list[list[int]] = []
        self.categories: list[list[int]] = []
        self.members: list[Rows] = []
        self.paths: dict[int, tuple[str, ...]] = {}
        self.at: dict[tuple[str, ...], int] = {}
        self._free: list[int] = []
        self._named(GONE, ())

    @property
    def seqs(self) -> Seqs:
        """int64[n], ascending: the seq of each row, removed ones among them."""
        return self._seqs[: self.rows]

    @property
    def holders(self) -> Nodes:
        """int32[n]: the node that each row is in, GONE where it was removed."""
        return self._holders[: self.rows]

    @property
    def bytes(self) -> int:
        """What the arrays take in memory, roughly."""
        return self.sums.nbytes + 2 * self._seqs.nbytes + 500 * self.size

    def categories_of(self, rows: NDArray[np.integer[Any]]) -> Nodes:
        """The node of the category that each row is in, GONE where it was removed."""
        holders = self.holders[rows]
        return np.where(holders == GONE, GONE, self.homes[holders]).astype(np.int32)

    def placed(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Which of the rows are in a leaf."""
        holders = self.holders[rows]
        leaves: NDArray[np.bool_] = (holders != GONE) & (self.heights[holders] == LEAVES)
        return leaves

    # Adding and removing rows

    def category(self, path: tuple[str, ...]) -> int:
        """The node of the category ``path``, made where there is none yet."""
        known = self.at.get(path)
        return self._named(self.category(path[:-1]), path) if known is None else known

    def append(self, seqs: Seqs, homes: Nodes) -> None:
        """Add rows after all others, each to its category, where those stay that are not placed."""
        end = self.rows + len(seqs)
        if end > len(self._seqs):
            self._seqs = _grown(self._seqs, end)
            self._holders = _grown(self._holders, end)
        self._seqs[self.rows : end], self._holders[self.rows : end] = seqs, homes
        rows = np.arange(self.rows, end, dtype=np.int32)
        self.rows = end
        for home, index in _groups(homes):
            self.members[home] = np.concatenate([self.members[home], rows[index]])

    def place(self, seqs: Seqs, vectors: Vectors, fetch: Fetch) -> None:
        """Give rows that are in their category a leaf, by their ``vectors`` float32[n, dim]; others are left alone."""
        found, known = find_sorted(self.seqs, seqs)
        homes = self.holders[found]
        known &= (homes != GONE) & (self.heights[homes] == CATEGORY)
        rows, homes, vectors = found[known].astype(np.int32), homes[known], vectors[known]
        for home, index in _groups(homes):
            self.members[home] = np.setdiff1d(self.members[home], rows[index], assume_unique=True)
            if not self.clusters[home]:
                self._cluster(home, LEAVES)
        for leaf in self._put(rows, vectors, self._nearest(homes, vectors)):
            if len(self.members[leaf]) > LEAF:
                self._split(leaf, fetch)

    def remove(self, seqs: Seqs, fetch: Fetch) -> bool:
        """Take rows away, and what they leave empty; whether there were any. The vectors of removed rows may be gone
        already: a leaf's sum is made anew of those that stay."""
        found, known = find_sorted(self.seqs, seqs)
        rows = found[known].astype(np.int32)
        rows = rows[self.holders[rows] != GONE]
        for node, index in _groups(self.holders[rows]):
            self.members[node] = np.setdiff1d(self.members[node], rows[index], assume_unique=True)
            if self.heights[node] == LEAVES:
                stay = fetch(self.seqs[self.members[node]]).sum(axis=0) if len(self.members[node]) else 0
                self._add(np.array([node]), (stay - self.sums[node])[None], np.array([-len(index)]))
            self._prune(node)
        self._holders[rows] = GONE
        return len(rows) > 0

    def settle(self, batches: Iterable[tuple[Seqs, Vectors]], fetch: Fetch) -> None:
        """Move every row to the leaf that is nearest now that the tree has grown, as a round of k-means does.

        ``batches`` are all rows that have vectors; those in leaves that do not come are removed.
        """
        leaves = np.full(self.rows, GONE, np.int32)
        sums, counts = np.zeros((self.size, self.dim), np.float32), np.zeros(self.size, np.int64)
        holders = self.holders
        for seqs, vectors in batches:
            rows, known = find_sorted(self.seqs, seqs)
            known[known] = holders[rows[known]] != GONE
            rows, vectors = rows[known], vectors[known]
            homes = self.homes[holders[rows]]
            for home in np.unique(homes).tolist():
                if not self.clusters[home]:  # its first vector has come meanwhile
                    self._cluster(home, LEAVES)
            if self.size > len(counts):
                sums, counts = _grown(sums, self.size), _grown(counts, self.size)
            found = self._nearest(homes, vectors)
            leaves[rows] = found
            for leaf, index in _groups(found):
                sums[leaf] += vectors[index].sum(0)
                counts[leaf] += len(index)
        loose = (holders != GONE) & (self.heights[holders] == CATEGORY) & (leaves == GONE)
        leaves[loose] = holders[loose]
        self._holders[: self.rows] = leaves
        self.members = [np.zeros(0, np.int32)] * self.size
        for node, index in _groups(leaves):
            if node != GONE:
                self.members[node] = index.astype(np.int32)
        self.sums[: self.size], self.counts[: self.size] = 0, 0
        full = np.flatnonzero(counts)
        self._add(full, sums[full], counts[full])
        for node in np.flatnonzero(self.heights[: self.size] == LEAVES).tolist():
            if len(self.members[node]) > LEAF:
                self._split(node, fetch)
            elif not len(self.members[node]):
                self._prune(node)

    # Going down

    def route(self, start: int, vector: NDArray[np.float32], beam: int) -> tuple[list[int], int, int]:
        """The leaves that beam search below ``start`` comes to: (leaves, centroids compared, nodes opened).

        The ``beam`` nodes nearest by cosine are kept on each level; leaves that are reached early compete on.
        """
        front, scores = np.array([start]), np.zeros(1, np.float32)
        compared = opened = 0
        while (inner := self.heights[front] != LEAVES).any():
            nodes = front[inner].tolist()
            below = np.array([child for node in nodes for child in (*self.categories[node], *self.clusters[node])], int)
            compared += len(below)
            opened += len(nodes)
            front = np.concatenate([front[~inner], below])
            scores = np.concatenate([scores[~inner], self.cosines(below, vector)])
            if len(front) > beam:
                best = np.argpartition(-scores, beam - 1)[:beam]
                front, scores = front[best], scores[best]
        return front.tolist(), compared, opened

    def cosines(self, nodes: NDArray[np.integer[Any]], vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of ``vector`` with the centroid of each node, float32[n]; 0 where no vector is below it."""
        cosines: NDArray[np.float32] = (self.sums[nodes] @ vector) / self._lengths[nodes]
        return cosines

    def _nearest(self, starts: Nodes, vectors: Vectors) -> Nodes:
        """For each of ``vectors`` the nearest leaf below its node of ``starts``, all rows a level at a time."""
        rows, nodes = np.arange(len(starts)), starts
        scores = np.zeros(len(starts), np.float32)
        while (inner := self.heights[nodes] != LEAVES).any():
            found = [(rows[~inner], nodes[~inner], scores[~inner])]
            waiting = rows[inner]
            for node, index in _groups(nodes[inner]):
                below = np.array(self.clusters[node], np.int32)
                cosines = vectors[waiting[index]] @ (self.sums[below] / self._lengths[below, None]).T
                best = np.argpartition(-cosines, min(DESCENT, len(below)) - 1, axis=1)[:, :DESCENT]
                origin = np.repeat(waiting[index], best.shape[1])
                found.append((origin, below[best].ravel(), np.take_along_axis(cosines, best, axis=1).ravel()))
            rows, nodes, scores = (np.concatenate(part) for part in zip(*found, strict=True))
            order = np.lexsort((nodes, -scores, rows))
            rank = np.arange(len(rows)) - np.searchsorted(rows[order], rows[order])
            kept = order[rank < DESCENT]
            rows, nodes, scores = rows[kept], nodes[kept], scores[kept]
        best = np.lexsort((nodes, -scores, rows))
        return nodes[best[np.searchsorted(rows[best], np.arange(len(starts)))]]

    # Changing shape

    def _put(self, rows: Rows, vectors: Vectors, leaves: Nodes) -> list[int]:
        """Add rows to their leaves; returns these leaves."""
        groups = list(_groups(leaves))
        for leaf, index in groups:
            self.members[leaf] = np.sort(np.concatenate([self.members[leaf], rows[index]]))
        self._holders[rows] = leaves
        if groups:
            sums = np.stack([vectors[index].sum(0) for _, index in groups])
            self._add(np.array([leaf for leaf, _ in groups]), sums, np.array([len(index) for _, index in groups]))
        return [leaf for leaf, _ in groups]

    def _add(self, nodes: NDArray[np.int64], sums: Vectors, counts: NDArray[np.int64]) -> None:
        """Add ``sums`` of ``counts`` vectors to nodes and to all that are above them."""
        while len(nodes):
            np.add.at(self.sums, nodes, sums)
            np.add.at(self.counts, nodes, counts)
            self._measure(np.unique(nodes))
            parents = self.parents[nodes]
            above = parents != GONE
            nodes, sums, counts = parents[above], sums[above], counts[above]

    def _measure(self, nodes: NDArray[np.integer[Any]]) -> None:
        self.sums[nodes[self.counts[nodes] == 0]] = 0  # and not what rounding leaves of taking all away again
        self._lengths[nodes] = np.maximum(np.linalg.norm(self.sums[nodes], axis=1), 1e-9)

    def _split(self, leaf: int, fetch: Fetch) -> None:
        rows, parent = self.members[leaf], int(self.parents[leaf])
        vectors = fetch(self.seqs[rows])
        for number, part in enumerate(_parts(vectors, LEAF)):
            node = self._cluster(parent, LEAVES) if number else leaf
            self.members[node] = rows[part]
            self._holders[rows[part]] = node
            self.counts[node], self.sums[node] = len(part), vectors[part].sum(0)
            self._measure(np.array([node]))
        self._spread(parent)

    def _spread(self, parent: int) -> None:
        """Split a node that has too many clusters; a category stays, and its clusters get nodes between."""
        if len(self.clusters[parent]) <= FAN:
            return
        children = np.array(self.clusters[parent], np.int32)
        height = int(self.heights[children[0]]) + 1
        stays = self.heights[parent] == CATEGORY
        above = parent if stays else int(self.parents[parent])
        self.clusters[parent] = []
        for number, part in enumerate(_parts(self.sums[children] / self._lengths[children, None], FAN)):
            node = self._cluster(above, height) if number or stays else parent
            self.clusters[node] = children[part].tolist()
            self.parents[children[part]] = node
            self.counts[node] = self.counts[children[part]].sum()
            self.sums[node] = self.sums[children[part]].sum(0)
            self._measure(np.array([node]))
        self._spread(above)

    def _prune(self, node: int) -> None:
        """Free a node that holds nothing, and those above it that hold nothing then."""
        while node != ROOT and not (len(self.members[node]) or self.clusters[node] or self.categories[node]):
            parent = int(self.parents[node])
            if self.heights[node] == CATEGORY:
                self.categories[parent].remove(node)
                del self.at[self.paths.pop(node)]
            else:
                self.clusters[parent].remove(node)
            self.heights[node], self.counts[node], self.sums[node] = FREE, 0, 0
            self._free.append(node)
            node = parent

    def _named(self, parent: int, path: tuple[str, ...]) -> int:
        node = self._node(parent, CATEGORY)
        self.homes[node] = node
        self.paths[node], self.at[path] = path, node
        if parent != GONE:
            self.categories[parent].append(node)
        return node

    def _cluster(self, parent: int, height: int) -> int:
        node = self._node(parent, height)
        self.homes[node] = self.homes[parent]
        self.clusters[parent].append(node)
        return node

    def _node(self, parent: int, height: int) -> int:
        if self._free:
            node = self._free.pop()
            self.clusters[node], self.categories[node], self.members[node] = [], [], np.zeros(0, np.int32)
        else:
            node, self.size = self.size, self.size + 1
            if self.size > len(self.parents):
                for name in ("parents", "homes", "heights", "counts", "sums", "_lengths"):
                    setattr(self, name, _grown(getattr(self, name), self.size))
            self.clusters.append([])
            self.categories.append([])
            self.members.append(np.zeros(0, np.int32))
        self.parents[node], self.heights[node], self.counts[node], self.sums[node] = parent, height, 0, 0
        self._lengths[node] = 1e-9
        return node

    # As a file

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, rows and nodes numbered anew without those that are gone."""
        nodes = np.flatnonzero(self.heights[: self.size] != FREE)
        number = np.full(self.size + 1, GONE, np.int32)  # the last one for the parent of the root
        number[nodes] = np.arange(len(nodes))
        alive = self.holders != GONE
        paths = [self.paths[node] for node in nodes.tolist() if node in self.paths]
        return {
            "seqs": self.seqs[alive],
            "holders": number[self.holders[alive]],
            "parents": number[self.parents[nodes]],
            "heights": self.heights[nodes],
            "counts": self.counts[nodes],
            "sums": self.sums[nodes],
            "paths": np.frombuffer(json.dumps(paths).encode(), np.uint8),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], dim: int) -> Forest:
        """What ``arrays`` were made from. Raises KeyError, IndexError or ValueError when they are anything else."""
        forest = cls(dim)
        paths = iter(json.loads(arrays["paths"].tobytes()))
        parents, heights = arrays["parents"].tolist(), arrays["heights"].tolist()
        if next(paths) != [] or arrays["sums"].shape != (len(parents), dim):
            raise ValueError("not a tree of this encoder")
        for height in heights[1:]:
            forest._node(GONE, height)
        for node, (parent, height) in enumerate(zip(parents[1:], heights[1:], strict=True), 1):
            forest.parents[node] = parent
            if height == CATEGORY:
                path = tuple(next(paths))
                forest.paths[node], forest.at[path] = path, node
            (forest.categories if height == CATEGORY else forest.clusters)[parent].append(node)
        for node in forest.paths:  # a cluster may have a lower number than its parent
            below = [node]
            while below:
                forest.homes[below] = node
                below = [child for each in below for child in forest.clusters[each]]
        forest.counts[: forest.size], forest.sums[: forest.size] = arrays["counts"], arrays["sums"]
        forest._measure(np.arange(forest.size))
        forest.rows, forest._seqs, forest._holders = len(arrays["seqs"]), arrays["seqs"], arrays["holders"]
        for node, index in _groups(forest.holders):
            forest.members[node] = index.astype(np.int32)
        return forest


def _parts(vectors: Vectors, most: int) -> list[NDArray[np.int64]]:
    """Indexes of ``vectors`` in parts of at most ``most``, by halving what is larger."""
    parts, whole = [], [np.arange(len(vectors))]
    while whole:
        index = whole.pop()
        if len(index) <= most:
            parts.append(index)
            continue
        second = _halves(vectors[index])
        whole += [index[second], index[~second]]
    return parts


def _halves(vectors: Vectors) -> NDArray[np.bool_]:
    """Which of ``vectors`` are in the second of two clusters: 2-means by cosine from two that lie far apart; neither
    gets less than SHARE of them."""
    n = len(vectors)
    first = vectors[(vectors @ vectors.mean(0)).argmin()]
    second = vectors[(vectors @ first).argmin()]
    sides = np.zeros(n, bool)
    for _ in range(ROUNDS):
        margin = vectors @ (second - first)
        count = int(np.clip(np.count_nonzero(margin > 0), max(1, int(SHARE * n)), n - max(1, int(SHARE * n))))
        before, sides = sides, np.zeros(n, bool)
        sides[np.argsort(-margin, kind="stable")[:count]] = True
        if (before == sides).all():
            break
        first, second = _unit(vectors[~sides].sum(0)), _unit(vectors[sides].sum(0))
    return sides


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def _groups(keys: NDArray[np.integer[Any]]) -> list[tuple[int, NDArray[np.int64]]]:
    """Each distinct key with the indexes at which it stands, ascending."""
    if not len(keys):
        return []
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order[0]] - 1))
    return list(zip(keys[order[starts]].tolist(), np.split(order, starts[1:]), strict=True))


def _grown(array: NDArray[Any], least: int) -> NDArray[Any]:
    """A copy with room for at least ``least``, and for twice what it had, so that adding one by one stays cheap."""
    room = np.zeros((max(2 * len(array), least, 4), *array.shape[1:]), array.dtype)
    room[: len(array)] = array
    return room
