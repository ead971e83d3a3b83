"""HGNS, the Hierarchical Gradient Number System of MemBank: which entries of an activation its coarse levels keep.

Source: "A Recursive Framework for Multiscale Tensor Calculations Tames the Butterfly Effect" (chickenpie347, 2025), as
MemBank's README quotes it. The index axis is the axis x, and between two entries the activation is a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from memspan.errors import InvalidInput

Saliency = Literal["gradient", "magnitude"]
Vectors = NDArray[np.float32]
Indices = NDArray[np.uint16]

LEVEL1: Final = 0.33  # share of the entries that level 1 keeps; level 2 keeps a quarter of those
QUARTER: Final = 4
MOST_DIM: Final = 1 << 16  # indices are 16 bits


def hgns_gradient_1d(values: Vectors, k: int = 10, level: int = 1) -> Vectors:
    """float32[dim] of a vector float32[dim]: [f(x + 1/kˡ) − f(x)] / (1/kˡ) at every entry.

    Between entries f is a straight line, and after the last one it stays: so for whole k ≥ 1 and level ≥ 0 the
    quotient is the difference to the next entry, whatever the step, and 0 at the last. It is computed as that
    difference, since dividing by a tiny step would only add rounding. Raises InvalidInput (a ValueError).
    """
    _at_least("k", k, 1)
    _at_least("level", level, 0)
    return _gradient(_vector(values))


def multilevel_gradient(values: Vectors, k: int = 10, levels: int = 4) -> Vectors:
    """Σ ∂⁽ˡ⁾f / kˡ over l = 1..``levels``, float32[dim] as ``values``. Raises InvalidInput (a ValueError)."""
    _at_least("levels", levels, 1)
    _at_least("k", k, 1)
    return _multilevel(_vector(values), k, levels)


def saliency_mask(
    values: Vectors, target_dim: int, k: int = 10, levels: int = 4, *, saliency: Saliency = "gradient"
) -> NDArray[np.bool_]:
    """bool[dim] of float32[dim]: True at the ``target_dim`` most salient entries.

    ``saliency``: ``"gradient"``, the size of the multilevel gradient (the paper's); or ``"magnitude"``, the size of the
    entry itself, which keeps more of what a cosine is made of. Raises InvalidInput (a ValueError) unless
    1 ≤ target_dim < dim.
    """
    vector = _vector(values)
    mask = np.zeros(vector.shape, bool)
    mask[_checked_salient(vector, target_dim, k, levels, saliency)] = True
    return mask


def hgns_compress(
    values: Vectors, target_dim: int, k: int = 10, levels: int = 4, *, saliency: Saliency = "gradient"
) -> Vectors:
    """float32[target_dim]: the most salient entries, in the order in which they stand. As ``saliency_mask``."""
    return hgns_compress_with_indices(values, target_dim, k, levels, saliency=saliency)[0]


def hgns_compress_with_indices(
    values: Vectors, target_dim: int, k: int = 10, levels: int = 4, *, saliency: Saliency = "gradient"
) -> tuple[Vectors, Indices]:
    """float32[target_dim] and uint16[target_dim]: the most salient entries and their ascending indices."""
    vector = _vector(values)
    indices = _checked_salient(vector, target_dim, k, levels, saliency)
    return vector[indices], indices.astype(np.uint16)


def hgns_attribute_convergence(
    values: Vectors, eta: float = 0.1, epsilon: float = 1e-4, max_iterations: int = 10_000, k: int = 10
) -> Vectors:
    """float32[dim]: v ← v + η∇v until ‖Δ‖ < ε, at most ``max_iterations`` times.

    Each entry moves towards the next one, so that all of them end near the last. 0 < eta ≤ 1, which is where that
    converges, and epsilon > 0. Raises InvalidInput (a ValueError).
    """
    if not 0 < eta <= 1:
        raise InvalidInput("eta", f"{eta!r} does not converge", mend="give a number above 0 and at most 1")
    if not epsilon > 0:
        raise InvalidInput("epsilon", f"{epsilon!r} is never reached", mend="give a number above 0")
    _at_least("k", k, 1)
    vector = _vector(values).copy()
    for _ in range(max_iterations):
        change = np.float32(eta) * _gradient(vector)
        vector += change
        if float(np.linalg.norm(change)) < epsilon:
            break
    return vector


@dataclass(frozen=True, slots=True, eq=False)
class HierarchicalActivation:
    """An activation at three resolutions: ``level0`` float32[dim], the whole; ``level1`` and ``level2`` its most
    salient entries, with their indices uint16. Those of level 2 are among those of level 1. All of a batch at once have
    one axis more, in front."""

    level0: Vectors
    level1: Vectors
    level2: Vectors
    level1_indices: Indices
    level2_indices: Indices
    source_text: str = ""
    model_id: str = ""

    def get_level(self, level: int) -> Vectors:
        """The entries of level 0, 1 or 2. Raises InvalidInput (a ValueError)."""
        if level not in (0, 1, 2):
            raise InvalidInput("level", f"{level!r} is none", mend="give 0, 1 or 2")
        return (self.level0, self.level1, self.level2)[level]


class HGNSHierarchy:
    """Compresses activations to three levels.

    ``k``: graduations per level, at least 1. ``num_gradient_levels``: how deep the gradient goes, at least 1. As long
    as entries are joined by straight lines neither changes which entries are kept (see ``hgns_gradient_1d``).
    ``saliency``: as in ``saliency_mask``.
    """

    def __init__(self, k: int = 10, num_gradient_levels: int = 4, *, saliency: Saliency = "gradient") -> None:
        _at_least("k", k, 1)
        _at_least("num_gradient_levels", num_gradient_levels, 1)
        if saliency not in get_args(Saliency):
            raise InvalidInput("saliency", f"{saliency!r} is unknown", mend="give 'gradient' or 'magnitude'")
        self.k = k
        self.num_gradient_levels = num_gradient_levels
        self.saliency = saliency

    def __repr__(self) -> str:
        return f"HGNSHierarchy(k={self.k}, num_gradient_levels={self.num_gradient_levels}, saliency={self.saliency!r})"

    def compress(self, vector: Vectors, source_text: str = "", model_id: str = "") -> HierarchicalActivation:
        """The three levels of float32[dim], dim 2 to 65,536. Raises InvalidInput (a ValueError) for anything else."""
        if not isinstance(vector, np.ndarray) or vector.ndim != 1:
            raise InvalidInput("vector", f"is no 1-D array but {_told(vector)}", mend="give float32[dim]")
        return self._levels(vector, source_text, model_id)

    def compress_batch(self, vectors: Vectors) -> HierarchicalActivation:
        """The three levels of float32[n, dim], all in one: ``level1`` is then float32[n, m], and so on."""
        if not isinstance(vectors, np.ndarray) or vectors.ndim != 2:
            raise InvalidInput("vectors", f"is no 2-D array but {_told(vectors)}", mend="give float32[n, dim]")
        return self._levels(vectors)

    def _levels(self, vectors: Vectors, source_text: str = "", model_id: str = "") -> HierarchicalActivation:
        if vectors.dtype != np.float32:
            raise InvalidInput("vector", f"is {vectors.dtype}", mend="give float32: vector.astype(np.float32)")
        dims = self.dims_for(vectors.shape[-1])
        wanted = [dims["level1"], dims["level2"]]
        kept = _salient(vectors, wanted, self.k, self.num_gradient_levels, self.saliency)
        level1, level2 = (_taken(vectors, indices) for indices in kept)
        first, second = (indices.astype(np.uint16) for indices in kept)
        return HierarchicalActivation(vectors, level1, level2, first, second, source_text, model_id)

    @staticmethod
    def dims_for(dim: int) -> dict[str, int]:
        """How many entries ``level0`` (all), ``level1`` (33%) and ``level2`` (8%) hold. Raises InvalidInput."""
        if not 2 <= dim <= MOST_DIM:
            raise InvalidInput("dim", f"{dim!r} cannot be compressed", mend=f"give 2 to {MOST_DIM:,} dimensions")
        level1 = max(1, int(dim * LEVEL1))
        return {"level0": dim, "level1": level1, "level2": max(1, level1 // QUARTER)}

    def compression_ratio(self, dim: int) -> dict[str, float]:
        """``level1_ratio`` and ``level2_ratio``: shares of the entries that those levels keep, in (0, 1)."""
        dims = self.dims_for(dim)
        return {"level1_ratio": dims["level1"] / dim, "level2_ratio": dims["level2"] / dim}

    @staticmethod
    def cosine_similarity(a: ArrayLike, b: ArrayLike) -> float:
        """Cosine of two finite vectors of one length, in [-1, 1]; 0 where one is all zeros. Raises InvalidInput."""
        left, right = _finite("a", a), _finite("b", b)
        if left.shape != right.shape:
            raise InvalidInput("b", f"has shape {right.shape}, not {left.shape}", mend="compare vectors of one length")
        return _cosine(left, right, left, right)

    @staticmethod
    def aligned_cosine_similarity(a: ArrayLike, a_idx: ArrayLike, b: ArrayLike, b_idx: ArrayLike) -> float:
        """Cosine of two vectors of which only the entries at ``a_idx`` and ``b_idx`` are known, the rest counted as
        zeros: entries are compared where both stand at one index. In [-1, 1]. Raises InvalidInput."""
        left, right, at, bt = _finite("a", a), _finite("b", b), np.asarray(a_idx), np.asarray(b_idx)
        for name, values, indices in (("a_idx", left, at), ("b_idx", right, bt)):
            if values.shape != indices.shape:
                problem = f"has shape {indices.shape}, not {values.shape}"
                raise InvalidInput(name, problem, mend="give one index for each entry")
        _, mine, other = np.intersect1d(at, bt, assume_unique=True, return_indices=True)
        return _cosine(left[mine], right[other], left, right)


def _gradient(vectors: Vectors) -> Vectors:
    """Of one vector or of each row."""
    gradient = np.empty(vectors.shape, np.float32)
    with np.errstate(over="ignore"):  # the difference of huge entries is infinite, and still the most salient
        np.subtract(vectors[..., 1:], vectors[..., :-1], out=gradient[..., :-1])
    gradient[..., -1] = 0
    return gradient


def _multilevel(vectors: Vectors, k: int, levels: int) -> Vectors:
    # every ∂⁽ˡ⁾f is the same (see hgns_gradient_1d), so the sum is it times the sum of the weights
    weights: float = sum(float(k) ** -level for level in range(1, levels + 1))
    with np.errstate(over="ignore"):
        return _gradient(vectors) * np.float32(weights)


def _cosine(a: Vectors, b: Vectors, whole_a: Vectors, whole_b: Vectors) -> float:
    """Of what is compared of two vectors, by the lengths of the whole ones; float64 holds the square of any float32."""
    lengths = float(np.linalg.norm(whole_a.astype(np.float64))) * float(np.linalg.norm(whole_b.astype(np.float64)))
    product = float(a.astype(np.float64) @ b.astype(np.float64))
    return max(-1.0, min(1.0, product / lengths)) if lengths else 0.0


def _checked_salient(vector: Vectors, target: int, k: int, levels: int, saliency: Saliency) -> NDArray[np.intp]:
    _at_least("k", k, 1)
    _at_least("levels", levels, 1)
    if saliency not in get_args(Saliency):
        raise InvalidInput("saliency", f"{saliency!r} is unknown", mend="give 'gradient' or 'magnitude'")
    return _salient(vector, [target], k, levels, saliency)[0]


def _salient(vectors: Vectors, wanted: list[int], k: int, levels: int, saliency: Saliency) -> list[NDArray[np.intp]]:
    """For each number in ``wanted``, descending, the ascending indices of so many of the most salient entries."""
    dim = vectors.shape[-1]
    for target in wanted:
        if not 1 <= target < dim:
            raise InvalidInput("target_dim", f"{target!r} is not below {dim}", mend=f"give 1 to {dim - 1}")
    salience = np.abs(_multilevel(vectors, k, levels) if saliency == "gradient" else vectors)
    order = np.argpartition(salience, [dim - target for target in wanted], axis=-1)
    kept = [order[..., dim - target :].copy() for target in wanted]
    for indices in kept:
        indices.sort(axis=-1)
    return kept


def _taken(vectors: Vectors, indices: NDArray[np.intp]) -> Vectors:
    if vectors.ndim == 2:
        rows = np.arange(len(vectors))[:, None] * vectors.shape[1]
        indices = indices + rows
        vectors = vectors.reshape(-1)  # less overhead than take_along_axis for a batch of one
    taken: Vectors = vectors[indices]
    return taken


def _vector(values: Vectors) -> Vectors:
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != np.float32 or not values.size:
        told = f"{values.dtype}{list(values.shape)}" if isinstance(values, np.ndarray) else type(values).__name__
        raise InvalidInput("values", f"is {told}", mend="give float32[dim]")
    return values


def _finite(argument: str, values: ArrayLike) -> Vectors:
    with np.errstate(over="ignore"):
        try:
            vector = np.asarray(values, np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidInput(argument, f"is no vector ({error})", mend="give float32[dim]") from error
    if vector.ndim != 1 or not vector.size:
        raise InvalidInput(argument, f"has shape {vector.shape}", mend="give float32[dim]")
    if not np.isfinite(vector).all():
        raise InvalidInput(argument, "is not finite", mend="look for overflows in the model")
    return vector


def _at_least(argument: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidInput(argument, f"{value!r} is none", mend=f"give a whole number of at least {least}")


def _told(value: Any) -> str:
    return f"{value.ndim}-D" if isinstance(value, np.ndarray) else type(value).__name__
