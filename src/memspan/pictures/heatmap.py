"""The embeddings of a memory as Latent Memory drew them: the matrix itself, a row a segment, a column a dimension."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspan.memory import Memory
from memspan.pictures import files
from memspan.pictures.files import INK, PAPER, SOFT, line, packed, packed_lines
from memspan.pictures.plot import TEXT, embedded
from memspan.records import Segment
from memspan.views.base import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BANDS = 1_000
COLD, WARM = ("#2f6fb5", "#84bdf7"), ("#c8502e", "#ff9a6e")  # of values below and above 0, on light and dark paper
CLIPPED = 0.995  # share of the values that the scale of colours covers; the few beyond it are as strong as its ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Heated:
    """What ``draw`` wrote: ``rows`` of the ``segments`` in scope in ``bands``, each the mean of as many of them, by
    ``dims`` columns; the colours reach from -``limit`` to ``limit``."""

    path: str
    bytes: int
    segments: int
    rows: int
    bands: int
    dims: int
    limit: float


def draw(
    memory: Memory,
    path: str | os.PathLike[str],
    *,
    namespace: str | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    run_id: str | None = None,
    session: str | None = None,
    filters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Heated:
    """Draw the matrix of embeddings of a scope, in the order of time, into the file ``path``, replacing it.

    A page (.html) that works offline and tells text and value under the pointer, or a picture (.svg, .png). Up to
    1,000 rows are drawn each by itself; of more, neighbours in time are averaged. Raises as ``plot.draw``.
    """
    file = files.target(path)
    scope: dict[str, Any] = {
        "namespace": namespace,
        "user_id": user_id,
        "agent_id": agent_id,
        "run_id": run_id,
        "session": session,
        "filters": filters,
    }
    segments, vectors, total = embedded(memory, scope, progress)
    order = sorted(range(len(segments)), key=lambda at: (segments[at].time, segments[at].seq))
    borders = bands(len(order))
    matrix = np.stack([vectors[order[a:b]].mean(axis=0) for a, b in pairwise(borders)])  # float32[bands, dims]
    limit = float(np.quantile(np.abs(matrix), CLIPPED)) or 1.0
    title = files.titled(len(segments), total, namespace or memory.namespace)
    if files.is_page(file):
        raw = page([segments[at] for at in order], borders, matrix, limit, title)
    else:
        raw = still(file.suffix[1:].lower(), borders, matrix, limit, title)
    files.put(file, raw)
    return Heated(
        path=str(file),
        bytes=len(raw),
        segments=total,
        rows=len(segments),
        bands=len(matrix),
        dims=matrix.shape[1],
        limit=round(limit, 6),
    )


def bands(rows: int) -> list[int]:
    """The borders of at most MOST_BANDS bands of as many rows each (the last of what is left): their first rows, and
    the end."""
    return [*range(0, rows, -(-rows // MOST_BANDS)), rows]


def page(
    segments: Sequence[Segment], borders: Sequence[int], matrix: NDArray[np.float32], limit: float, title: str
) -> bytes:
    """The matrix as one HTML file; ``segments`` in the order of its rows. Values are kept as int16 of the largest."""
    top = float(np.abs(matrix).max()) or 1.0
    data = {
        "title": title,
        "bands": len(matrix),
        "dims": matrix.shape[1],
        "top": top,
        "limit": limit,
        "cold": COLD,
        "warm": WARM,
        "borders": packed(np.array(borders, np.uint32)),
        "values": packed(np.round(matrix * (32_767 / top)).astype(np.int16)),
        "times": packed(np.array([segments[at].time.timestamp() for at in _ends(borders)], np.float64)),
        "texts": packed_lines(line(segments[at].text, TEXT) for at in borders[:-1]),
    }
    return files.page("heatmap.html", data)


def _ends(borders: Sequence[int]) -> list[int]:
    """The first and the last row of each band, one after the other."""
    return [at for a, b in pairwise(borders) for at in (a, b - 1)]


def still(kind: str, borders: Sequence[int], matrix: NDArray[np.float32], limit: float, title: str) -> bytes:
    """The matrix as "svg" or "png". Raises MissingExtra."""

    def paint(figure: Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.add_axes((0.06, 0.08, 0.84, 0.83))
        colors = LinearSegmentedColormap.from_list("memspan", [COLD[0], PAPER, WARM[0]])
        dims, rows = matrix.shape[1], borders[-1]
        place: Any = {"extent": (0, dims, rows, 0), "aspect": "auto", "interpolation": "nearest"}
        image = axes.imshow(matrix, cmap=colors, vmin=-limit, vmax=limit, **place)
        axes.set_xlabel("dimension")
        axes.set_ylabel("segment, in the order of time")
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, cax=figure.add_axes((0.92, 0.08, 0.012, 0.83)))
        bar.outline.set_visible(False)
        figure.text(0.06, 0.945, line(title, 100), fontsize=11, color=INK, weight="bold")
        if len(matrix) < rows:
            told = f"{rows:,} rows, averaged in {len(matrix):,} bands"
            figure.text(0.932, 0.945, told, fontsize=8, color=SOFT, ha="right")

    return files.still(kind, (12, 7.2), paint)
