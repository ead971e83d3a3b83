"""What leads from one row to another, wherever the edges lie: in memory, or in a database.

Four kinds of edges. ``next``: the rows before and after in the same session or document. ``mentions``: rows that share
a name, over the name as a node of its own; names that many rows share count little, and hubs not at all. ``similar``:
the nearest rows by meaning, a bounded number, both ways. And what users state themselves, which the ledger keeps.

Spreading activation is that of Collins and Loftus (1975) as bounded hops with decay; ``pagerank`` is the personalised
PageRank of HippoRAG (arXiv:2405.14831), over the part of the graph that the seeds reach. No edge decides what may be
seen: each is followed only between rows of the selection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.arguments import DERIVED
from memspan.entities import key_of
from memspan.ledger.base import Ledger, Seqs, names_in
from memspan.views.adjacency import DEGREE, FEWEST, Rows, spans
from memspan.views.base import Scored, Selection, View, find_sorted

HUB = 100  # a name that more rows of the selection share says nothing about any of them
MOST_HELD = 64 * HUB  # rows of a name beyond which not even its share in the selection is worth finding out
TITLE = 2.0  # how much more a name counts where it is the title: that row is about it
BATCH = 8_192
MOST_ALONE = 16_384  # rows of a selection that are compared with one another, in a second or so
STATED = {"reply": 0.9, "supersedes": 0.9}  # kinds whose meaning is known; of others the weight is what was stated
STEPS = 20  # of PageRank

NearestIn = Callable[[str | Selection, Seqs, int], tuple[Seqs, NDArray[np.float32]]]
"""(a namespace's current rows or a selection, seqs int64[n] ascending, k) → the nearest rows of each: seqs int64[n, k]
(-1: none) and cosines float32[n, k]."""


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Edges out of some rows: from ``origin`` (an index into those rows) to ``target`` (a seq), all int64[m];
    ``weight`` float32[m] in (0, 1]; ``via`` uint64[m], the key of the name they share, 0 where there is none."""

    origin: Rows
    target: Seqs
    weight: NDArray[np.float32]
    via: NDArray[np.uint64]
    kind: str

    def to(self, keep: NDArray[np.bool_]) -> Edges:
        """Only those of ``keep``."""
        if keep.all():
            return self
        return Edges(self.origin[keep], self.target[keep], self.weight[keep], self.via[keep], self.kind)


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


class Mentions(NamedTuple):
    """Names in some rows: (index into those rows int64[n], key uint64[n], whether it is that row's title)."""

    rows: Rows
    keys: NDArray[np.uint64]
    titles: NDArray[np.bool_]


class Holders(NamedTuple):
    """Rows of a selection that mention some names: (index into those names int64[n] ascending, seq, whether it is that
    row's title). A name that too many rows mention has none."""

    names: Rows
    seqs: Seqs
    titles: NDArray[np.bool_]


class Graph(View, ABC):
    """``View`` by association. ``nearest`` finds similar rows; None where there are no vectors.

    A subclass says where the edges are: those ``beside`` a row, who mentions a name, the nearest rows of each.
    """

    name = "graph"

    def __init__(self, ledger: Ledger, nearest: NearestIn | None) -> None:
        self._ledger = ledger
        self._nearest = nearest

    # Where the edges are

    @abstractmethod
    def beside(self, selection: Selection, seqs: Seqs, reach: int = 1) -> tuple[Rows, Seqs, Rows]:
        """The turns of conversations in the selection up to ``reach`` before and after those among ``seqs``, no parts
        of documents.

        (index into ``seqs``, seq, how many turns after it, below 0 for before), int64[m] each.
        """

    @abstractmethod
    def _following(self, selection: Selection, seqs: Seqs) -> Edges:
        """The rows of the selection right before and after ``seqs``, in conversations and documents."""

    @abstractmethod
    def _mentioned(self, selection: Selection, seqs: Seqs) -> tuple[Mentions, NDArray[np.uint64], Holders]:
        """The names in ``seqs``; the distinct keys among them, ascending; and who of the selection mentions those."""

    @abstractmethod
    def _holders(self, selection: Selection, keys: NDArray[np.uint64]) -> Holders:
        """Who of the selection mentions ``keys``, distinct and ascending."""

    @abstractmethod
    def _similar(self, selection: Selection, seqs: Seqs, nearest: NearestIn) -> Edges:
        """The rows of the selection that are similar to ``seqs``."""

    @abstractmethod
    def _known(self, namespace: str, seqs: Seqs) -> Seqs:
        """Those of ``seqs``, ascending, that are rows of the namespace."""

    # Following edges

    def naming(self, selection: Selection, names: Sequence[str]) -> Scored:
        """The rows of the selection that mention one of ``names``; scores are its weight as between rows, in (0, 1]."""
        keys = np.array(sorted({key_of(name) for name in names if name}), np.uint64)
        if not len(keys):
            return Scored(np.zeros(0, np.int64), np.zeros(0, np.float32))
        held = self._holders(selection, keys)
        telling, idf = _telling(held, len(keys), selection.rows)
        keep = telling[held.names]
        weight = idf[held.names[keep]] * np.where(held.titles[keep], TITLE, 1.0)
        rows, number = np.unique(held.seqs[keep], return_inverse=True)
        best = np.zeros(len(rows), np.float32)
        np.maximum.at(best, number, weight.clip(0, 1).astype(np.float32))
        return Scored(rows, best)

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
        rows, active = seeds.seqs, seeds.scores.astype(np.float32).clip(0, 1)
        start = set() if among_seeds else set(rows.tolist())
        paths: dict[int, tuple[Origin, ...]] = dict.fromkeys(rows.tolist(), ())
        found: dict[int, tuple[float, tuple[Origin, ...]]] = {}
        with self._ledger.reading():
            for _ in range(hops):
                fresh: dict[int, tuple[float, tuple[Origin, ...]]] = {}
                for edges in self.edges(selection, rows, kinds):
                    values = active[edges.origin] * edges.weight * np.float32(decay)
                    order = np.argsort(-values, kind="stable")
                    _, first = np.unique(edges.target[order], return_index=True)
                    for at in order[np.sort(first)[: 4 * most]].tolist():
                        target, value = int(edges.target[at]), float(values[at])
                        if value > fresh.get(target, found.get(target, (0.0,)))[0] and target not in start:
                            origin = int(rows[edges.origin[at]])
                            fresh[target] = value, (*paths[origin], Origin(origin, edges.kind, int(edges.via[at])))
                kept = sorted(fresh, key=lambda row: (-fresh[row][0], -row))[:most]
                found |= {row: fresh[row] for row in kept}
                paths = {row: fresh[row][1] for row in kept}
                rows = np.array(kept, np.int64)
                active = np.array([fresh[row][0] for row in kept], np.float32)
                if not len(rows):
                    break
        ranked = sorted(found, key=lambda row: (-found[row][0], -row))
        return Reached(
            np.array(ranked, np.int64),
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
        with self._ledger.reading():
            reached = self.expand(selection, seeds, kinds=kinds, hops=hops, most=most)
            seqs = self._known(selection.namespace, np.unique(np.concatenate([seeds.seqs, reached.seqs])))
            every = list(self.edges(selection, seqs, kinds)) if len(seqs) else []
        if not (n := len(seqs)):
            return Scored(seqs, np.zeros(0, np.float32))
        origin = np.concatenate([np.zeros(0, np.int64), *(edges.origin for edges in every)])
        weight = np.concatenate([np.zeros(0), *(edges.weight for edges in every)])
        target, inside = find_sorted(seqs, np.concatenate([np.zeros(0, np.int64), *(edges.target for edges in every)]))
        origin, target, weight = origin[inside], target[inside], weight[inside]
        share = weight / np.bincount(origin, weight, n)[origin]
        start = np.zeros(n)
        at, known = find_sorted(seqs, seeds.seqs)
        np.add.at(start, at[known], seeds.scores[known])
        start /= max(start.sum(), 1e-12)
        mass = start
        for _ in range(STEPS):
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
        seqs = selection.seqs
        alone = None if whole or len(seqs) > MOST_ALONE else self._nearest
        n = max(len(seqs), 1)
        pairs: dict[str, list[tuple[Rows, NDArray[np.float32]]]] = {}
        with self._ledger.reading():
            if alone is not None and n > 1:
                near, cosines = alone(selection, seqs, DEGREE + 1)
                at, known = find_sorted(seqs, near.ravel())
                ends = np.sort([np.repeat(np.arange(n), near.shape[1]), at], axis=0)
                real = known & (ends[0] != ends[1]) & (cosines.ravel() >= FEWEST)
                pairs["similar"] = [((ends[0] * n + ends[1])[real], cosines.ravel()[real].clip(0, 1))]
            for start in range(0, len(seqs), BATCH):
                some = seqs[start : start + BATCH]
                for edges in self.edges(selection, some, None, similar=alone is None):
                    at, known = find_sorted(seqs, edges.target)
                    ends = np.sort([start + edges.origin[known], at[known]], axis=0)
                    pairs.setdefault(edges.kind, []).append((ends[0] * n + ends[1], edges.weight[known]))
        every = [(np.zeros(0, np.int64), np.zeros(0, np.float32))]
        for several in pairs.values():  # most are known to both ends, of the similar ones some to one end only
            both, weights = (np.concatenate(part) for part in zip(*several, strict=True))
            pair, first = np.unique(both, return_index=True)
            every.append((pair, weights[first]))
        pair, weight = (np.concatenate(part) for part in zip(*every, strict=True))
        return seqs, pair // n, pair % n, weight

    def edges(
        self, selection: Selection, seqs: Seqs, kinds: Sequence[str] | None, *, similar: bool = True
    ) -> Iterator[Edges]:
        """The edges out of ``seqs`` that stay in the selection, a kind at a time."""
        if kinds is None or "next" in kinds:
            yield self._following(selection, seqs)
        if kinds is None or "mentions" in kinds:
            said, keys, held = self._mentioned(selection, seqs)
            yield _shared_names(seqs, said, keys, held, selection.rows)
        if (kinds is None or "similar" in kinds) and similar and self._nearest is not None:
            yield self._similar(selection, seqs, self._nearest)
        if kinds is None or set(kinds).difference(DERIVED):
            yield from self._stated(selection, seqs, kinds)

    def _stated(self, selection: Selection, seqs: Seqs, kinds: Sequence[str] | None) -> Iterator[Edges]:
        at = {seq: index for index, seq in enumerate(seqs.tolist())}
        groups: dict[str, list[tuple[int, int, float]]] = {}
        for link in self._ledger.links(selection.namespace, list(at), selection.as_of):
            if kinds is None or link.kind in kinds:
                weight = link.weight * STATED.get(link.kind, 1.0)
                for near, far in ((link.source, link.target), (link.target, link.source)):
                    if near in at:
                        groups.setdefault(link.kind, []).append((at[near], far, weight))
        for kind, every in groups.items():
            origin, target, weights = zip(*every, strict=True)
            edges = unnamed(np.array(origin, np.int64), np.array(target, np.int64), np.array(weights, np.float32), kind)
            yield edges.to(selection.inside(edges.target))


def unnamed(origin: Rows, target: Seqs, weight: NDArray[np.float32], kind: str) -> Edges:
    """Edges over no name."""
    return Edges(origin, target, weight, np.zeros(len(origin), np.uint64), kind)


def _telling(held: Holders, names: int, total: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Of each name whether it is no hub in a selection of ``total`` rows, and its inverse document frequency there over
    that of a name only one row has."""
    counts = np.bincount(held.names, minlength=names)
    idf = np.log1p(total / np.maximum(counts, 1)) / max(float(np.log1p(total)), 1e-9)
    return counts <= HUB, idf


def _shared_names(seqs: Seqs, said: Mentions, keys: NDArray[np.uint64], held: Holders, total: int) -> Edges:
    """Weight: how telling the name is, doubled where it is the title of either row, and cut at 1; of several shared
    names the strongest."""
    number = np.searchsorted(keys, said.keys)
    telling, idf = _telling(held, len(keys), total)
    ends = np.searchsorted(held.names, np.arange(len(keys)), "right")
    low = np.searchsorted(held.names, np.arange(len(keys)))[number]
    flat, pair = spans(low, np.where(telling[number], ends[number], low))
    origin, target, via = said.rows[pair], held.seqs[flat], said.keys[pair]
    weight = idf[number[pair]] * np.where(held.titles[flat], TITLE, 1.0) * np.where(said.titles[pair], TITLE, 1.0)
    order = np.lexsort((via, -weight, target, origin))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(origin[order]) != 0) | (np.diff(target[order]) != 0)
    keep = order[first]
    keep = keep[seqs[origin[keep]] != target[keep]]
    return Edges(origin[keep], target[keep], weight[keep].clip(0, 1).astype(np.float32), via[keep], "mentions")
