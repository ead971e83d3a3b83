"""The embeddings of a memory as a map: each segment a point, near those that mean about the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from memspan.errors import EncoderMismatch, NotFound
from memspan.ledger.base import microseconds
from memspan.memory import Memory
from memspan.pictures import files, groups
from memspan.pictures.files import INK, SOFT, line, packed, packed_lines
from memspan.pictures.groups import FIELDS, Grouping
from memspan.pictures.reduction import METHODS, Plane, quantised
from memspan.records import Segment
from memspan.views.base import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 100_000
TEXT = 160  # characters of a segment in the page
BY = ("category", "session", "speaker", "user", "time")  # in the order in which one is chosen
FEW = 5_000  # points that a drawing (.svg) holds one by one; more are drawn as one image in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Plotted:
    """What ``draw`` wrote: ``points`` of the ``segments`` in scope, by which ``method``, the share of the variance that
    either axis shows (empty where the method does not say), and how many points are in each group by ``color``."""

    path: str
    bytes: int
    segments: int
    points: int
    dim: int
    method: str
    explained: tuple[float, ...]
    color: str
    groups: Mapping[str, int]


def draw(
    memory: Memory,
    path: str | os.PathLike[str],
    *,
    color: str | None = None,
    method: str = "pca",
    namespace: str | None = None,
    user_id: str | None = None,
    agent_id: str | None = None,
    run_id: str | None = None,
    session: str | None = None,
    filters: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Plotted:
    """Draw the embeddings of a scope into the file ``path``, replacing it: a page (.html), or a picture (.svg, .png).

    ``color`` is "category", "session", "speaker", "user" or "time", None the first by which segments differ;
    ``method`` "pca" or "umap". The page is one file that works offline; above MOST_POINTS it shows so many, spread
    evenly over all. The same memory gives the same file. Pictures need ``memspan[pictures]``, UMAP ``memspan[umap]``.
    Raises InvalidInput, MissingExtra, NotFound when there is nothing to draw, StoreError; then no file was written.
    """
    file = files.target(path)
    by = groups.one_of("color", color, BY)
    method = groups.one_of("method", method, tuple(METHODS)) or "pca"
    scope: dict[str, Any] = {
        "namespace": namespace,
        "user_id": user_id,
        "agent_id": agent_id,
        "run_id": run_id,
        "session": session,
        "filters": filters,
    }
    segments, vectors, total = embedded(memory, scope, progress)
    plane = METHODS[method](vectors, progress)
    grouping = coloured(segments, by)
    title = files.titled(len(segments), total, namespace or memory.namespace)
    note = method.upper()
    if plane.explained:
        note += f", {sum(plane.explained):.0%} of the variance"
    if files.is_page(file):
        raw = page(segments, plane, grouping, title, note)
    else:
        raw = still(file.suffix[1:].lower(), plane, grouping, title, note)
    files.put(file, raw)
    return Plotted(
        path=str(file),
        bytes=len(raw),
        segments=total,
        points=len(segments),
        dim=vectors.shape[1],
        method=method,
        explained=tuple(round(share, 4) for share in plane.explained),
        color=grouping.field,
        groups={group.label: group.count for group in grouping.groups},
    )


def embedded(
    memory: Memory, scope: Mapping[str, Any], progress: Progress | None
) -> tuple[list[Segment], NDArray[np.float32], int]:
    """At most MOST_POINTS segments of a scope with their vectors, and how many segments there are in all.

    Raises NotFound where there are none, or none has a vector.
    """
    total = memory.tree(depth=1, examples=0, **scope).segments
    if not total:
        raise NotFound("there is nothing to draw in this scope", mend='store something first (memspan add "...")')
    try:
        segments, vectors = memory.embeddings(**scope, limit=MOST_POINTS, progress=progress)
    except EncoderMismatch as error:
        mend = "give it an encoder (memspan rebuild --encoder minilm)"
        raise NotFound(f"there is nothing to draw: {error.problem}", mend=mend) from error
    if not segments:
        mend = "encode what waits (memspan compact)"
        raise NotFound("there is nothing to draw: no segment has a vector yet", mend=mend)
    return segments, vectors, total


def coloured(segments: Sequence[Segment], by: str | None) -> Grouping:
    """The groups by a field, or by the first in which the segments differ."""
    values = {field: [value(each) for each in segments] for field, value in FIELDS.items() if by in (field, None)}
    by = by or groups.telling(values) or "time"
    if by == "time":
        return groups.by_time(np.array([microseconds(segment.time) for segment in segments], np.int64))
    return groups.by_value(by, values[by])


# The page


def page(segments: Sequence[Segment], plane: Plane, grouping: Grouping, title: str, note: str) -> bytes:
    """The map as one HTML file."""
    x, y = quantised(plane.places)
    data = {
        "title": title,
        "note": note,
        "by": grouping.field,
        "groups": [[group.label, group.count, group.color] for group in grouping.groups],
        "x": packed(x),
        "y": packed(y),
        "group": packed(grouping.of),
        "time": packed(np.array([segment.time.timestamp() for segment in segments], np.float64)),
        "speaker": _table([line(segment.speaker or segment.role or "", 60) for segment in segments]),
        "category": _table([line(" / ".join(segment.category), 80) for segment in segments]),
        "session": _table([line(segment.session or "", 60) for segment in segments]),
        "texts": packed_lines(line(segment.text, TEXT) for segment in segments),
    }
    return files.page("plot.html", data)


def _table(values: Sequence[str]) -> list[Any]:
    """The different values, and of each segment which."""
    number = {value: at for at, value in enumerate(dict.fromkeys(values))}
    return [list(number), packed(np.fromiter((number[value] for value in values), np.uint32, len(values)))]


# The static picture


def still(kind: str, plane: Plane, grouping: Grouping, title: str, note: str) -> bytes:
    """The map as "svg" or "png". Raises MissingExtra."""
    x, y = (axis / 65_535 for axis in quantised(plane.places))
    size = float(np.clip(15_000 / len(x), 2, 60))

    def paint(figure: Figure) -> None:
        axes = figure.add_axes((0.03, 0.04, 0.73, 0.86))
        axes.set_axis_off()
        axes.set_aspect("equal", adjustable="datalim")
        style: dict[str, Any] = {"linewidths": 0, "alpha": 0.75, "rasterized": kind == "svg" and len(x) > FEW}
        colors = np.array([group.color for group in grouping.groups])[grouping.of]
        axes.scatter(x, y, s=size, c=colors.tolist(), **style)
        for group in grouping.groups:
            axes.scatter([], [], s=30, c=group.color, linewidths=0, label=f"{line(group.label, 34)}  {group.count:,}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, title=grouping.field, alignment="left")
        figure.text(0.03, 0.945, line(title, 100), fontsize=11, color=INK, weight="bold")
        figure.text(0.97, 0.945, note, fontsize=8, color=SOFT, ha="right")

    return files.still(kind, (12, 7.2), paint)
