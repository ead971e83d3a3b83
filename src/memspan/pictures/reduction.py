"""Vectors of many dimensions as places in a plane."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput, MissingExtra
from memspan.views.base import Progress

CHUNK = 8_192  # rows at once, so that no second copy of all vectors is made
ALIKE = 1e-6  # up to here a difference is rounding
NEIGHBORS = 15  # of UMAP


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plane:
    """``places`` float64[n, 2]; ``explained``: the share of the variance along either axis, empty where not known."""

    places: NDArray[np.float64]
    explained: tuple[float, ...] = ()


def pca(vectors: NDArray[np.float32], progress: Progress | None = None) -> Plane:
    """The two directions in which ``vectors`` float32[n >= 1, dim] differ most, each pointing where its largest
    component is positive, so that the same vectors always look the same.

    K. Pearson, "On Lines and Planes of Closest Fit", 1901; by the eigenvectors of the covariance.
    """
    n, dim = vectors.shape
    starts = range(0, n, CHUNK)
    mean = sum((vectors[at : at + CHUNK].sum(axis=0, dtype=np.float64) for at in starts), np.zeros(dim)) / n
    spread = np.zeros((dim, dim))
    for at in starts:
        part = vectors[at : at + CHUNK] - mean
        spread += part.T @ part
        if progress is not None:
            progress(min(at + CHUNK, n), n, "projecting")
    values, directions = np.linalg.eigh(spread / n)
    axes = directions[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    total = float(np.trace(spread)) / n
    if total <= ALIKE**2:  # all in one place; what is left is rounding
        return Plane(places=np.zeros((n, 2)), explained=(0.0, 0.0))
    places = np.zeros((n, 2))
    for at in starts:
        places[at : at + CHUNK, : axes.shape[1]] = (vectors[at : at + CHUNK] - mean) @ axes
    shares = [max(float(value), 0.0) / total for value in values[::-1][:2]]
    return Plane(places=places, explained=(shares[0], shares[1] if dim > 1 else 0.0))


def umap(vectors: NDArray[np.float32], progress: Progress | None = None) -> Plane:
    """Neighbours stay neighbours: L. McInnes, J. Healy, J. Melville, "UMAP", arXiv:1802.03426, by cosine.

    Raises MissingExtra without ``memspan[umap]``, InvalidInput for fewer vectors than it looks at around each.
    """
    if len(vectors) <= NEIGHBORS:
        problem = f"umap needs more than {NEIGHBORS} segments, there are {len(vectors)}"
        raise InvalidInput("method", problem, mend="use pca")
    try:
        from umap import UMAP
    except ImportError as error:
        raise MissingExtra("drawing by umap needs umap-learn", mend='pip install "memspan[umap]"') from error
    if progress is not None:
        progress(0, len(vectors), "projecting")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it does by itself about few or equal vectors
        made = UMAP(n_neighbors=NEIGHBORS, metric="cosine", random_state=0, n_jobs=1).fit_transform(vectors)
    return Plane(places=np.nan_to_num(np.asarray(made, np.float64)))


METHODS: Mapping[str, Callable[[NDArray[np.float32], Progress | None], Plane]] = {"pca": pca, "umap": umap}


def quantised(places: NDArray[np.float64]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """x and y as uint16[n], on one scale for both, the middle of each in the middle of the range."""
    low, high = places.min(axis=0), places.max(axis=0)
    span = float((high - low).max())
    unit = (places - (low + high) / 2) / max(span, ALIKE) + 0.5
    whole = np.clip(np.round(unit * 65_535), 0, 65_535).astype(np.uint16)
    return whole[:, 0], whole[:, 1]
