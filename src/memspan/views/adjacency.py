"""The graph's edges as arrays: those of a snapshot, and in memory the rows after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.entities import key_of
from memspan.ledger.base import Placed, Seqs
from memspan.views.base import Places, Progress, Selection, find_sorted

DEGREE = 8  # nearest rows kept for each row
FEWEST = 0.2  # cosine below which two rows are not similar
BATCH = 1_024
DOCUMENTS = np.uint64(1 << 63)  # from here on places are in documents, below in sessions

Rows = NDArray[np.int64]
Nearest = Callable[[Seqs, int], tuple[Seqs, NDArray[np.float32]]]
"""(seqs int64[n], k) → the nearest rows of each: seqs int64[n, k] (-1: none) and cosines float32[n, k]."""

NO_ROWS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Adjacency:
    """A snapshot's arrays; row r is the segment ``seqs[r]``.

    ``places`` uint64[n]: group and position in one number, 0 where there is none, so that the next row has the next
    number; ``by_place`` uint32[n] sorts them. Name i, of hash ``keys[i]`` (uint64[k] ascending), is in rows
    ``holders[starts[i]:starts[i + 1]] >> 1``, the last bit set where it is their title; row r holds the names
    ``names[row_starts[r]:row_starts[r + 1]] >> 1``, likewise. ``near`` uint32[n, DEGREE] are nearest rows, a row itself
    where there are no more, with cosines ``near_weights`` float16[n, DEGREE].
    """

    seqs: Seqs
    places: NDArray[np.uint64]
    by_place: NDArray[np.uint32]
    keys: NDArray[np.uint64]
    starts: NDArray[np.int64]
    holders: NDArray[np.uint32]
    row_starts: NDArray[np.int64]
    names: NDArray[np.uint32]
    near: NDArray[np.uint32]
    near_weights: NDArray[np.float16]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def build(
        cls,
        seqs: Seqs,
        places: NDArray[np.uint64],
        keys: NDArray[np.uint64],
        holders: NDArray[np.uint32],
        near: NDArray[np.uint32],
        near_weights: NDArray[np.float16],
    ) -> Adjacency:
        """From one entry (key, row << 1 | title) for each name of each row, in any order."""
        order = np.lexsort((holders, keys))
        distinct, starts, number = np.unique(keys[order], return_index=True, return_inverse=True)
        by_name = holders[order]
        back = np.lexsort((number, by_name >> 1))
        names = (number << 1 | by_name & 1)[back].astype(np.uint32)
        row_starts = np.concatenate([[0], np.cumsum(np.bincount(by_name >> 1, minlength=len(seqs)))]).astype(np.int64)
        by_place = np.argsort(places, kind="stable").astype(np.uint32)
        ends = np.append(starts, len(keys)).astype(np.int64)
        return cls(seqs, places, by_place, distinct, ends, by_name, row_starts, names, near, near_weights)

    @classmethod
    def empty(cls) -> Adjacency:
        none, rows = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
        return cls.build(
            np.zeros(0, np.int64), none, none, rows, rows.reshape(0, DEGREE), np.zeros((0, DEGREE), np.float16)
        )


@dataclass(slots=True)
class Growing:
    """One namespace in memory: a snapshot, and the rows after it by seq, place and name.

    Rows are numbered on through both. ``ordered`` are the snapshot's places, ascending.
    """

    file: str | None
    base: Adjacency
    start: int  # the snapshot's position
    last: int = field(init=False)
    at: Places = field(init=False)
    ordered: NDArray[np.uint64] = field(init=False)
    seqs: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    names: list[tuple[int, ...]] = field(default_factory=list)  # key of each name; the first is the title's, or 0
    by_place: dict[int, list[int]] = field(default_factory=dict)
    by_name: dict[int, list[int]] = field(default_factory=dict)  # row << 1 | title
    near: dict[int, list[tuple[int, float]]] = field(default_factory=dict)  # of rows after the snapshot, both ways
    known_by: dict[int, set[int]] = field(default_factory=dict)  # the rows that have this one in ``near``
    unlinked: list[int] = field(default_factory=list)  # rows whose nearest ones are to be found, some more than once
    asked: set[int] = field(default_factory=set)  # rows of the snapshot whose nearest were looked for again
    entry: int = 0  # of the removal log, up to which rows that went are forgotten
    every: Seqs | None = None
    moment: object | None = None  # of the ledger, in which it was brought up to date

    def __post_init__(self) -> None:
        self.last = self.start
        self.at = Places(self.base.seqs)
        self.ordered = self.base.places[self.base.by_place]

    def all_seqs(self) -> Seqs:
        """int64[n]: the seq of each row, of the snapshot and after it."""
        if self.every is None or len(self.every) != len(self.base.seqs) + len(self.seqs):
            self.every = np.concatenate([self.base.seqs, np.array(self.seqs, np.int64)])
        return self.every

    def find(self, seqs: Seqs) -> tuple[Rows, Rows]:
        """Which of ``seqs`` are rows here (indexes into ``seqs``), and which rows they are."""
        at, known = find_sorted(self.all_seqs(), seqs)
        index = np.flatnonzero(known)
        return index, at[index]

    def inside(self, selection: Selection) -> Callable[[Rows], NDArray[np.bool_]]:
        """Tells of rows whether they are in ``selection``."""
        n, before = len(self.base.seqs), self.at.of(selection)
        _, after = selection.find(np.array(self.seqs, np.int64))

        def tell(rows: Rows) -> NDArray[np.bool_]:
            if not self.seqs:
                return before[rows] >= 0
            told = np.zeros(len(rows), bool)
            old = rows < n
            told[old] = before[rows[old]] >= 0
            told[~old] = after[rows[~old] - n]
            return told

        return tell

    def insert(self, row: Placed, names: Sequence[str]) -> None:
        """Add a row after all others; ``names`` are its title or an empty text, and what else it mentions."""
        at = len(self.base.seqs) + len(self.seqs)
        keys = tuple(key_of(name) if name else 0 for name in names)
        self.seqs.append(row.seq)
        self.places.append(place := place_of(row))
        self.names.append(keys)
        self.unlinked.append(at)
        if place:
            self.by_place.setdefault(place, []).append(at)
        for key in dict.fromkeys(keys):
            if key:
                self.by_name.setdefault(key, []).append(at << 1 | (key == keys[0]))
        self.last = row.seq

    def beside(self, rows: Rows, *, reach: int = 1, turns: bool = False) -> tuple[Rows, Rows, Rows]:
        """The rows up to ``reach`` places from ``rows``: (index into ``rows``, row, by how many places after it),
        int64[m] each; of ``turns`` of conversations only."""
        n = len(self.base.seqs)
        old = rows < n
        places = np.zeros(len(rows), np.uint64)
        places[old] = self.base.places[rows[old]]
        places[~old] = [self.places[row - n] for row in rows[~old].tolist()]
        index = np.flatnonzero((places > 0) & (places < DOCUMENTS) if turns else places)
        origins, targets, steps = [NO_ROWS], [NO_ROWS], [NO_ROWS]
        for step in (step for away in range(1, reach + 1) for step in (away, -away)):
            wanted = places[index] + np.uint64(step % 2**64)
            flat, owner = spans(np.searchsorted(self.ordered, wanted), np.searchsorted(self.ordered, wanted, "right"))
            origins.append(index[owner])
            targets.append(self.base.by_place[flat].astype(np.int64))
            steps.append(np.full(len(flat), step, np.int64))
            if self.by_place:
                pairs = zip(index.tolist(), wanted.tolist(), strict=True)
                found = [(at, row) for at, place in pairs for row in self.by_place.get(place, ())]
                origins.append(np.array([at for at, _ in found], np.int64))
                targets.append(np.array([row for _, row in found], np.int64))
                steps.append(np.full(len(found), step, np.int64))
        return np.concatenate(origins), np.concatenate(targets), np.concatenate(steps)

    def mentioned(self, rows: Rows) -> tuple[Rows, NDArray[np.uint64], NDArray[np.bool_]]:
        """The names in ``rows``: (index into ``rows``, key, whether it is that row's title), one entry for each."""
        base, n = self.base, len(self.base.seqs)
        old = np.flatnonzero(rows < n)
        flat, owner = spans(base.row_starts[rows[old]], base.row_starts[rows[old] + 1])
        names = base.names[flat]
        after = [
            (at, key, key == keys[0])
            for at in np.flatnonzero(rows >= n).tolist()
            for keys in (self.names[int(rows[at]) - n],)
            for key in dict.fromkeys(keys)
            if key
        ]
        return (
            np.concatenate([old[owner], np.array([at for at, _, _ in after], np.int64)]),
            np.concatenate([base.keys[names >> 1], np.array([key for _, key, _ in after], np.uint64)]),
            np.concatenate([(names & 1).astype(bool), np.array([title for _, _, title in after], bool)]),
        )

    def holders(self, keys: NDArray[np.uint64], most: int) -> tuple[Rows, Rows]:
        """The rows that mention ``keys`` (distinct): (index into ``keys``, row << 1 | title), in the order of ``keys``.

        None for a name that more than ``most`` rows of the snapshot mention.
        """
        base = self.base
        at, known = find_sorted(base.keys, keys)
        low, high = base.starts[at], base.starts[np.minimum(at + 1, len(base.starts) - 1)]
        tail = [self.by_name.get(key, []) for key in keys.tolist()]
        few = np.where(known, high - low, 0) + np.array([len(rows) for rows in tail], np.int64) <= most
        flat, owner = spans(low, np.where(known & few, high, low))
        tagged = base.holders[flat].astype(np.int64)
        after = [(index, row) for index, rows in enumerate(tail) if few[index] for row in rows]
        if after:
            owner = np.concatenate([owner, np.array([index for index, _ in after], np.int64)])
            tagged = np.concatenate([tagged, np.array([row for _, row in after], np.int64)])
            order = np.argsort(owner, kind="stable")
            owner, tagged = owner[order], tagged[order]
        return owner, tagged

    def near_to(self, rows: Rows) -> tuple[Rows, Rows, NDArray[np.float32]]:
        """The similar rows of ``rows``: (index into ``rows``, row, cosine)."""
        old = np.flatnonzero(rows < len(self.base.seqs))
        target = self.base.near[rows[old]].astype(np.int64)
        real = target != rows[old][:, None]
        after = [(at, *edge) for at, row in enumerate(rows.tolist()) for edge in self.near.get(row, ())]
        return (
            np.concatenate([np.repeat(old, DEGREE)[real.ravel()], np.array([at for at, _, _ in after], np.int64)]),
            np.concatenate([target[real], np.array([row for _, row, _ in after], np.int64)]),
            np.concatenate(
                [self.base.near_weights[rows[old]][real], np.array([cosine for _, _, cosine in after], np.float32)]
            ).astype(np.float32),
        )

    def link(self, nearest: Nearest) -> None:
        """Find the nearest rows of the rows after the snapshot, once each, and let those know of it too.

        A row without a vector yet stays unlinked.
        """
        every = self.all_seqs()
        waiting: list[int] = []
        unlinked = np.unique(np.array(self.unlinked, np.int64))
        for start in range(0, len(unlinked), BATCH):
            rows = unlinked[start : start + BATCH]
            near, cosines = nearest(every[rows], DEGREE + 1)
            index, found = self.find(near.ravel())
            owner = rows[index // near.shape[1]]
            for row, other, cosine in zip(owner.tolist(), found.tolist(), cosines.ravel()[index].tolist(), strict=True):
                if row != other and cosine >= FEWEST:
                    self._link(row, other, cosine)
                    self._link(other, row, cosine)
            waiting += rows[(near < 0).all(axis=1)].tolist()
        self.unlinked = waiting

    def _link(self, row: int, other: int, cosine: float) -> None:
        known = self.near.setdefault(row, [])
        if any(other == there for there, _ in known):
            return
        if len(known) == 2 * DEGREE:
            weakest = min(range(len(known)), key=lambda at: known[at][1])
            if cosine <= known[weakest][1]:
                return
            self.known_by[known.pop(weakest)[0]].discard(row)
        known.append((other, cosine))
        self.known_by.setdefault(other, set()).add(row)

    def ask_again(self, rows: Rows) -> bool:
        """Have the nearest rows of ``rows``, which know none, looked for, once each; whether there were any such rows.

        A snapshot may have been written before a row had its vector, or its nearest ones went since.
        """
        fresh = set(rows[rows < len(self.base.seqs)].tolist()) - self.asked
        self.asked |= fresh
        self.unlinked += fresh
        return bool(fresh)

    def forget(self, entry: int, seqs: Seqs) -> None:
        """Rows that went, up to ``entry`` of the removal log, take no place among the nearest rows of others.

        A row that knew no others looks for its nearest again.
        """
        for row in self.find(seqs)[1].tolist():
            for other, _ in self.near.pop(row, ()):
                self.known_by[other].discard(row)
            for other in sorted(self.known_by.pop(row, ())):
                self.near[other] = [edge for edge in self.near[other] if edge[0] != row]
                if not self.near[other]:  # of the snapshot's rows it is asked when they are
                    self.asked.discard(other)
                    self.unlinked += [other] if other >= len(self.base.seqs) else []
        self.entry = entry

    def folded(self, alive: Seqs, current: Seqs, nearest: Nearest | None, progress: Progress | None) -> Adjacency:
        """All rows that are still there, as one set of arrays, with the nearest of the ``current`` ones."""
        base, n = self.base, len(self.base.seqs)
        every = self.all_seqs()
        stays = np.isin(every, alive, assume_unique=True)
        number = np.cumsum(stays) - 1
        old = stays[:n]
        after = [row for row in range(n, len(every)) if stays[row]]
        seqs = every[stays]
        places = np.concatenate([base.places[old], np.array([self.places[row - n] for row in after], np.uint64)])
        kept = old[base.holders >> 1] if n else np.zeros(0, bool)
        holders = [(number[base.holders[kept] >> 1] << 1 | base.holders[kept] & 1).astype(np.uint32)]
        keys = [np.repeat(base.keys, np.diff(base.starts))[kept]]
        tail = [(key, number[row] << 1 | (key == self.names[row - n][0]))
                for row in after for key in dict.fromkeys(self.names[row - n]) if key]  # fmt: skip
        keys.append(np.array([key for key, _ in tail], np.uint64))
        holders.append(np.array([holder for _, holder in tail], np.uint32))
        now = old & np.isin(base.seqs, current, assume_unique=True)
        near, cosines = _nearest_of(base, seqs, number, old, now, nearest, progress)
        return Adjacency.build(seqs, places, np.concatenate(keys), np.concatenate(holders), near, cosines)


def _nearest_of(
    base: Adjacency,
    seqs: Seqs,
    number: Rows,
    old: NDArray[np.bool_],
    now: NDArray[np.bool_],
    nearest: Nearest | None,
    progress: Progress | None,
) -> tuple[NDArray[np.uint32], NDArray[np.float16]]:
    """The nearest rows of each row: those known, and for new rows those found now, told to the other end too.

    Of the snapshot's rows those in ``old`` are still there, those in ``now`` current.
    """
    count = len(seqs)
    near = np.repeat(np.arange(count, dtype=np.uint32)[:, None], DEGREE, axis=1)
    cosines = np.zeros((count, DEGREE), np.float16)
    if old.any():
        target = base.near[old]
        there = now[target]
        near[: len(target)] = np.where(there, number[target], near[: len(target)])
        cosines[: len(target)] = np.where(there, base.near_weights[old], 0)
    first = np.flatnonzero((near == np.arange(count)[:, None]).all(axis=1))  # new ones, and those that had no vector
    if nearest is None or not len(first):
        return near, cosines
    pairs: list[tuple[Rows, Rows, NDArray[np.float32]]] = []
    for start in range(0, len(first), 1024):
        rows = first[start : start + 1024]
        others, found = nearest(seqs[rows], DEGREE + 1)
        at = np.searchsorted(seqs, others.ravel())
        at[at == count] = 0
        owner = np.repeat(rows, others.shape[1])
        good = (seqs[at] == others.ravel()) & (at != owner) & (found.ravel() >= FEWEST)
        pairs.append((owner[good], at[good], found.ravel()[good]))
        if progress is not None:
            progress(start + len(rows), len(first), "linking")
    a, b, weight = (np.concatenate(part) for part in zip(*pairs, strict=True))
    held = cosines > 0  # what rows knew before competes with what they are told now
    old_a = np.repeat(np.arange(count), held.sum(1))
    a, b, weight = (
        np.concatenate([old_a, a, b]),
        np.concatenate([near[held].astype(np.int64), b, a]),
        np.concatenate([cosines[held].astype(np.float32), weight, weight]),
    )
    order = np.lexsort((-weight, b, a))
    once = np.ones(len(order), bool)
    once[1:] = (np.diff(a[order]) != 0) | (np.diff(b[order]) != 0)
    a, b, weight = a[order[once]], b[order[once]], weight[order[once]]
    order = np.lexsort((b, -weight, a))
    a, b, weight = a[order], b[order], weight[order]
    rank = np.arange(len(a)) - np.searchsorted(a, a)
    best = rank < DEGREE
    near[a[best], rank[best]], cosines[a[best], rank[best]] = b[best], weight[best]
    return near, cosines


def spans(low: NDArray[Any], high: NDArray[Any]) -> tuple[Rows, Rows]:
    """The numbers low[i] .. high[i] - 1 of each i in one array, and which i each belongs to."""
    counts = (high - low).astype(np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    flat = np.arange(counts.sum()) + np.repeat(low - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return flat.astype(np.int64), owner


def place_of(row: Placed) -> int:
    """Group and position in one number of 64 bits, never 0: the next position has the next number."""
    if row.group is None:
        return 0
    return (int.from_bytes(row.group) + row.position) % 2**64 or 1
