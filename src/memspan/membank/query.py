"""From coarse to fine: the compressed level proposes, the pointers of what it proposed are followed.

A compressed level holds an activation's most salient entries, which stand elsewhere in each activation. So they are
compared with the query's entries at the same indices: the score is the cosine of the query with the activation of which
everything but those entries is taken as zero.

Level 2 is all that is kept in memory. Levels 1 and 0 are read from the buffer for the candidates alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan import arguments
from memspan.activations.hgns import HGNSHierarchy
from memspan.errors import EncoderMismatch, InvalidInput
from memspan.membank.index import MOST_RESULTS
from memspan.membank.pointers import MemMapBuffer, PointerRecord
from memspan.membank.registry import Registry

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Multiplier = int | Literal["adaptive"]

DEVIATIONS: Final = 2.0  # of what entries that were not seen may add, within which an adaptive candidate stays
BLOCK: Final = 4_096  # activations read from the buffer at once
PAGE: Final = 16_384  # texts taken into the index at once


@dataclass(frozen=True, slots=True)
class RecallResult:
    """A text that was recalled.

    ``rank``: 0 is the best. ``final_score``: cosine in [-1, 1] at the finest level that was asked; ``score_l0`` to
    ``score_l2`` at each, 0 at those that were not. ``ptr_level0`` to ``ptr_level2``: its pointers, for the buffer's
    ``deref``, with the text's own hash and metadata. ``source_text_hash`` is ``hash_text(text)``, ``metadata`` what the
    text was first ingested with.
    """

    rank: int
    final_score: float
    source_text_hash: str
    text: str
    ptr_level0: PointerRecord
    ptr_level1: PointerRecord
    ptr_level2: PointerRecord
    score_l0: float = 0.0
    score_l1: float = 0.0
    score_l2: float = 0.0
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def best_ptr(self) -> PointerRecord:
        """The pointer to the activation at its finest."""
        return self.ptr_level0


class Found(NamedTuple):
    """What a level says of some activations.

    ``cosine``: float32[n], with the rest of the activation taken as zero. ``share``: how much of the activation's
    length its entries make up. ``seen``: float32[n], how much of the query's length stands at their indices.
    """

    cosine: Vectors
    share: Vectors
    seen: Vectors


def places(lengths: NDArray[np.float64], level1: NDArray[np.uint16], level2: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """uint16[n, 2 + m1 + m2]: the record that says where the entries of levels 1 and 2 stand, and how long (float32)
    the whole activation is, of n activations float32[n, dim]."""
    told = np.minimum(lengths, np.finfo(np.float32).max).astype(np.float32)
    return np.concatenate([told[:, None].view(np.uint16), level1, level2], axis=1)


class QueryEngine:
    """Search over the texts of one model in ``registry``, whose activations lie in ``buffer``.

    ``candidate_multiplier``: how many candidates of a level go on to the next one for each result, at least 1; or
    ``"adaptive"``: those that could still be among the results, if the entries that were not looked at point anywhere.
    Their share of the cosine has mean 0 then, and a known spread (as for random directions: Gao and Long 2023,
    "High-Dimensional Approximate Nearest Neighbor Search", where this is ADSampling); candidates within ``DEVIATIONS``
    of it stay. ``min_score``: results below it are dropped.

    One thread at a time may use it; ``MemBank`` sees to that.
    """

    def __init__(
        self,
        hierarchy: HGNSHierarchy,
        registry: Registry,
        buffer: MemMapBuffer,
        model_id: str,
        dim: int,
        *,
        candidate_multiplier: Multiplier = 5,
        min_score: float = 0.0,
    ) -> None:
        if candidate_multiplier != "adaptive":
            arguments.count("candidate_multiplier", candidate_multiplier)
        self.candidate_multiplier = candidate_multiplier
        self.min_score = arguments.number("min_recall_score", min_score)
        self.registry = registry
        self.buffer = buffer
        self.model_id = model_id
        self.dims = hierarchy.dims_for(dim)
        self._epoch = self._newest = -1
        self._forget()

    def __repr__(self) -> str:
        return f"QueryEngine(model_id={self.model_id!r}, texts={self._size:,})"

    @property
    def size(self) -> int:
        """How many texts it searches."""
        return self._size

    def stats(self) -> dict[str, int]:
        """``level0_size`` to ``level2_size``: activations that can be found at each level."""
        return {f"level{level}_size": self._size for level in (0, 1, 2)}

    # Keeping up

    def rebuild(self) -> int:
        """Read everything anew from registry and buffer; how many texts."""
        self._forget()
        self.follow()
        return self._size

    def follow(self) -> None:
        """Take in what was stored since the last time, by whatever process.

        Raises StoreError; StoreCorrupt, naming a place, for as long as a text's records are not what was written."""
        with self.registry.reading():
            epoch, newest = self.registry.position()
            if epoch != self._epoch:
                self._forget()
                self._epoch = epoch
            if newest != self._newest:
                fresh = self.registry.places(self.model_id, self._newest)
                for start in range(0, len(fresh), PAGE):
                    self._take_in(fresh[start : start + PAGE])
                    self._newest = int(fresh[: PAGE + start][-1, 0])
                self._newest = newest
        if self._damaged:
            raise self.buffer.damaged(*self._damaged[0])

    def _forget(self) -> None:
        self._epoch = self._newest = -1
        self._size = 0
        self._damaged: list[tuple[int, int]] = []  # offsets and sizes of records that are not what was written
        width = self.dims["level2"]
        self._rows = np.zeros(0, np.int64)
        self._offsets = np.zeros((0, 4), np.int64)  # places, levels 0, 1 and 2
        self._values = np.zeros((0, width), np.float32)  # of level 2, of length 1
        self._indices = np.zeros((0, width), np.intp)  # as numpy gathers by, twice as quick as by 16 bits
        self._shares = np.zeros(0, np.float32)

    def _take_in(self, fresh: Rows) -> None:
        width = 2 + self.dims["level1"] + self.dims["level2"]
        if (fresh[:, 1] != 2 * width).any():
            raise EncoderMismatch(
                f"the registry holds activations of {self.model_id} that do not have {self.dims['level0']} dimensions",
                mend="give the adapter a model_id of its own",
            )
        offsets = fresh[:, 2:]
        where, right = self._where(offsets)
        values, whole = self._values_at(offsets, 2)
        for column, good, size in ((0, right, where), (3, whole, values)):
            row = size.shape[1] * size.itemsize
            self._damaged += [(int(offset), row) for offset in offsets[~good, column]]
        good = right & whole
        if not good.all():
            fresh, offsets, where, values = fresh[good], offsets[good], where[good], values[good]
        values, lengths, by = scaled(values)
        end = self._size + len(fresh)
        if end > len(self._rows):
            capacity = max(end, 2 * len(self._rows), 256)
            for name in ("_rows", "_offsets", "_values", "_indices", "_shares"):
                old = getattr(self, name)
                new = np.empty((capacity, *old.shape[1:]), old.dtype)
                new[: self._size] = old[: self._size]
                setattr(self, name, new)
        new_ones = slice(self._size, end)
        self._rows[new_ones] = fresh[:, 0]
        self._offsets[new_ones] = offsets
        self._values[new_ones] = values / lengths[:, None]
        self._indices[new_ones] = where[:, 2 + self.dims["level1"] :]
        self._shares[new_ones] = _share(lengths, by, where)
        self._size = end

    def _where(self, offsets: Rows) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """The places of texts, and which of them are what was written and can be used."""
        where, good = self.buffer.gather(offsets[:, 0], 2 + self.dims["level1"] + self.dims["level2"], np.uint16)
        good &= (where[:, 2:] < self.dims["level0"]).all(axis=1) & np.isfinite(_whole(where))
        return where, good

    def _values_at(self, offsets: Rows, level: int) -> tuple[Vectors, NDArray[np.bool_]]:
        """The entries of texts at a level, and which are what was written and can be used."""
        values, good = self.buffer.gather(offsets[:, 1 + level], self.dims[f"level{level}"], np.float32)
        good &= np.isfinite(values).all(axis=1)
        return values, good

    # Searching

    def search(self, vector: Vectors, top_k: int = 5, levels: Sequence[int] | None = None) -> list[RecallResult]:
        """The ``top_k`` texts nearest to an activation float32[dim], best first.

        ``levels``: which to go through, coarse to fine whatever their order; None is 2, 1 and 0. The first one looks at
        every text. Raises InvalidInput (a ValueError); StoreCorrupt when a result's activation is damaged.
        """
        top_k = arguments.count("top_k", top_k, most=MOST_RESULTS)
        asked = _levels(levels)
        query = np.asarray(vector, np.float32)
        if query.shape != (self.dims["level0"],):
            raise InvalidInput("vector", f"has shape {query.shape}", mend=f"give float32[{self.dims['level0']}]")
        if not np.isfinite(query).all():
            raise InvalidInput("vector", "is not finite", mend="look for overflows in the model")
        (query,), length, _ = scaled(query[None])
        query = query / length
        with self.registry.reading():  # one moment: what is found is where the registry says
            self.follow()
            places, scores = self._ranked(query, top_k, asked)
            return self._results(places, scores, asked[-1])

    def _ranked(self, query: Vectors, top_k: int, asked: Sequence[int]) -> tuple[Rows, dict[int, Vectors]]:
        """Places in the index, best first, and their scores at each level."""
        candidates: Rows = np.arange(self._size)
        scores: dict[int, Vectors] = {}
        for level in asked:
            found = self._look(level, query, candidates)
            scores[level] = found.cosine
            if level == asked[-1]:
                kept = _best(found.cosine, top_k)
            elif self.candidate_multiplier == "adaptive":
                kept = self._possible(level, found, top_k)
            else:
                kept = _best(found.cosine, top_k * int(self.candidate_multiplier))
            candidates = candidates[kept]
            scores = {each: values[kept] for each, values in scores.items()}
        return candidates, scores

    def _look(self, level: int, query: Vectors, candidates: Rows) -> Found:
        if level == 2 and len(candidates) == self._size:
            there = query.take(self._indices[: self._size])
            cosine = np.einsum("ij,ij->i", self._values[: self._size], there)
            adaptive = self.candidate_multiplier == "adaptive"
            return Found(cosine, self._shares[: self._size], _lengths(there) if adaptive else cosine)
        parts = [self._read(level, query, block) for block in _blocks(candidates)]
        return Found(*(np.concatenate([part[i] for part in parts]) for i in range(3)))

    def _read(self, level: int, query: Vectors, candidates: Rows) -> Found:
        """Follow the pointers of candidates."""
        offsets = self._offsets[candidates]
        values, good = self._values_at(offsets, level)
        if not good.all():
            raise self.buffer.damaged(int(offsets[~good, 1 + level][0]), 4 * values.shape[1])
        values, lengths, by = scaled(values)
        if level == 0:
            cosine = values @ query / lengths
            return Found(cosine, np.ones_like(cosine), np.ones_like(cosine))
        where, good = self._where(offsets)
        if not good.all():
            raise self.buffer.damaged(int(offsets[~good, 0][0]), 2 * where.shape[1])
        first = self.dims["level1"]
        there = query.take(where[:, 2 : 2 + first] if level == 1 else where[:, 2 + first :])
        cosine = np.einsum("ij,ij->i", values, there) / lengths
        return Found(cosine, _share(lengths, by, where), _lengths(there))

    def _possible(self, level: int, found: Found, top_k: int) -> Rows:
        """Candidates that may be among the ``top_k`` best, best first."""
        if len(found.cosine) <= top_k:
            return _best(found.cosine, top_k)
        unseen = self.dims["level0"] - self.dims[f"level{level}"]
        spread = np.sqrt(np.maximum(1 - found.share**2, 0) * np.maximum(1 - found.seen**2, 0) / unseen)
        expected = found.cosine * found.share
        bar = np.partition(expected, -top_k)[-top_k]
        return np.flatnonzero(expected + DEVIATIONS * spread >= bar)

    def _results(self, places: Rows, scores: Mapping[int, Vectors], finest: int) -> list[RecallResult]:
        keep = scores[finest] >= self.min_score
        rows = self._rows[places[keep]].tolist()
        chunks = self.registry.chunks(rows)
        told = {level: np.clip(values[keep], -1, 1).tolist() for level, values in scores.items()}
        results = []
        for at, row in enumerate(rows):
            chunk = chunks[row]
            best = chunk.pointers[finest]
            if not self.buffer.holds(best.buffer_offset, best.nbytes, best.ptr_id):
                raise self.buffer.damaged(best.buffer_offset, best.nbytes)
            l0, l1, l2 = (told[level][at] if level in told else 0.0 for level in (0, 1, 2))
            result = RecallResult(
                at, told[finest][at], chunk.text_hash, chunk.text, *chunk.pointers, l0, l1, l2, chunk.metadata
            )
            results.append(result)
        return results


def _best(scores: Vectors, count: int) -> Rows:
    """Places of the ``count`` highest scores, best first; of equal ones the earlier first."""
    if count < len(scores):
        bar = np.partition(scores, -count)[-count]
        among = np.flatnonzero(scores >= bar)
    else:
        among = np.arange(len(scores))
    return among[np.argsort(-scores[among], kind="stable")[:count]]


def _levels(levels: Sequence[int] | None) -> list[int]:
    if levels is None:
        return [2, 1, 0]
    given = list(levels) if isinstance(levels, Iterable) else []
    if not given or not all(isinstance(level, Integral) and not isinstance(level, bool) for level in given):
        raise InvalidInput("levels", f"{levels!r} are none", mend="give a list of some of 2, 1 and 0")
    asked = sorted({int(level) for level in given}, reverse=True)
    if not set(asked) <= {0, 1, 2}:
        raise InvalidInput("levels", f"{levels!r} are none", mend="give a list of some of 2, 1 and 0")
    return asked


def _blocks(rows: Rows) -> Iterator[Rows]:
    for start in range(0, max(1, len(rows)), BLOCK):
        yield rows[start : start + BLOCK]


def _lengths(rows: Vectors) -> Vectors:
    lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return lengths


def _whole(where: NDArray[np.uint16]) -> Vectors:
    """The length of the whole activation, which stands in front of its places."""
    return np.ascontiguousarray(where[:, :2]).view(np.float32)[:, 0]


def _share(lengths: Vectors, by: Vectors, where: NDArray[np.uint16]) -> Vectors:
    """How much of the length of whole activations entries make up that ``scaled`` gave these lengths and factors."""
    whole = _whole(where)
    share: Vectors = np.minimum(lengths * (by / np.where(whole > 0, whole, 1)), 1)
    return share


def scaled(rows: Vectors) -> tuple[Vectors, Vectors, Vectors]:
    """Finite rows, their lengths, and what they were divided by so that no square is too large or too small for a
    float32: 1 as a rule, else the largest entry. To divide by, the length of a row of zeros is 1: it is like nothing.
    """
    with np.errstate(over="ignore", under="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    by = np.ones_like(squares)
    if squares.min(initial=1) < 1e-24 or squares.max(initial=1) > 1e30:
        largest = np.abs(rows).max(axis=1, initial=0)
        by[largest > 0] = largest[largest > 0]
        rows = rows / by[:, None]
        squares = np.einsum("ij,ij->i", rows, rows)
    lengths = np.sqrt(squares)
    lengths[lengths == 0] = 1
    return rows, lengths, by
