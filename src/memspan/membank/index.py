"""A plain index of vectors by cosine."""

from __future__ import annotations

import importlib.util
import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memspan import arguments
from memspan.activations.hgns import MOST_DIM
from memspan.errors import InvalidInput

MOST_RESULTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A vector that was found. ``score``: cosine, in [-1, 1]; ``rank``: 0 is the best."""

    ptr_id: str
    score: float
    hgns_level: int
    rank: int


class VectorIndex:
    """Cosines with whole vectors of one length, one after the other.

    What ``MemBank`` searches is ``QueryEngine``: vectors of a compressed level hold entries from different positions,
    which only make sense beside the query's entries at the same ones. ``backend``: "faiss", or "numpy" where that is
    not installed. ``dim``: 1 to 65,536. Safe to use from many threads. Raises InvalidInput (a ValueError).
    """

    def __init__(self, dim: int, hgns_level: int = 0) -> None:
        self.dim = arguments.count("dim", dim, most=MOST_DIM)
        self.hgns_level = hgns_level
        self.backend = "faiss" if importlib.util.find_spec("faiss") else "numpy"
        self._ids: list[str] = []
        self._rows = np.zeros((0, self.dim), np.float32)
        self._lock = threading.Lock()
        self._faiss: Any = None
        if self.backend == "faiss":
            import faiss

            self._faiss = faiss.IndexFlatIP(self.dim)

    def __repr__(self) -> str:
        return f"VectorIndex(dim={self.dim}, hgns_level={self.hgns_level}, size={self.size}, backend={self.backend!r})"

    @property
    def size(self) -> int:
        """How many vectors it holds."""
        return len(self._ids)

    def add(self, vector: ArrayLike, ptr_id: str) -> None:
        """Add float32[dim]. Raises InvalidInput (a ValueError) for another length and for what is not finite."""
        row = self._unit(vector)
        with self._lock:
            if self._faiss is not None:
                self._faiss.add(row)
            else:
                if len(self._ids) == len(self._rows):
                    more = np.zeros((max(64, len(self._rows)), self.dim), np.float32)
                    self._rows = np.concatenate([self._rows, more])
                self._rows[len(self._ids)] = row
            self._ids.append(ptr_id)

    def search(self, vector: ArrayLike, top_k: int = 5) -> list[SearchResult]:
        """The ``top_k`` nearest, best first; fewer where there are fewer. Raises InvalidInput (a ValueError)."""
        row = self._unit(vector)
        with self._lock:
            count = min(arguments.count("top_k", top_k, most=MOST_RESULTS), len(self._ids))
            if not count:
                return []
            if self._faiss is not None:
                scores, places = (found[0] for found in self._faiss.search(row, count))
            else:
                cosines = self._rows[: len(self._ids)] @ row[0]
                places = np.argsort(-cosines, kind="stable")[:count]
                scores = cosines[places]
            return [
                SearchResult(self._ids[place], max(-1.0, min(1.0, float(score))), self.hgns_level, rank)
                for rank, (place, score) in enumerate(zip(places, scores, strict=True))
            ]

    def _unit(self, vector: ArrayLike) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            row = np.asarray(vector, np.float32)
        if row.shape != (self.dim,):
            raise InvalidInput("vector", f"has shape {row.shape}", mend=f"give float32[{self.dim}]")
        if not np.isfinite(row).all():
            raise InvalidInput("vector", "is not finite", mend="look for overflows in the model")
        wide = row.astype(np.float64)  # which holds the square of any float32
        unit: NDArray[np.float32] = (wide / (np.linalg.norm(wide) or 1)).astype(np.float32)
        return unit[None]
