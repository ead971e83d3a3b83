"""A picture of a memory: its tree as a treemap to zoom into, and the graph around what a query finds.

Everything is laid out here, once, in units of one canvas; the page (``map.html``) and the static picture only draw what
they are given. What is too small to be seen is counted together, so a picture of any store stays small.
"""

from __future__ import annotations

import colorsys
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from memspan.arguments import DERIVED
from memspan.errors import NotFound
from memspan.memory import Memory
from memspan.pictures import files
from memspan.pictures.files import INK, PALE, PAPER, SOFT, line
from memspan.records import Hit, Node, Segment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1_200.0, 680.0  # of either drawing, in its own units
MOST_PARTS = 1_500  # of the tree in one picture
MOST_CHILDREN = 60  # of one part
HEAD, GAP = 26.0, 3.0  # units kept for the label of an opened part, and between parts
LEVELS = 3  # of parts inside one another that are drawn at once
ROOM = 1_500.0  # square units that a part's children need each for it to be opened: two short words
HITS, AROUND = 10, 11  # of a query, and what each leads to: at most 120 dots
STEPS = 300
MARGIN = 24.0  # around either drawing in a static picture
COLORS = {"next": "#6b7fb8", "mentions": "#c98a2b", "similar": "#3f9c8f", "stated": "#c0567d"}

Box = tuple[float, float, float, float]
"""Left, top, width, height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A node of the tree in the picture. ``kind`` "rest" stands for all that is too small, or in no cluster yet.

    ``parent`` is its place in the list of parts (-1: none). ``hue`` in degrees is shared by a branch (-1: none).
    """

    label: str
    kind: str
    segments: int
    parent: int = -1
    hue: int = -1
    examples: tuple[str, ...] = ()


class Cell(NamedTuple):
    """Where the part number ``part`` is drawn; ``opened`` parts hold the cells of their children."""

    part: int
    x: float
    y: float
    width: float
    height: float
    level: int
    opened: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """A segment in the graph at ``x``, ``y``. ``rank`` is its place among the hits, 0 for what they lead to."""

    text: str
    about: str
    rank: int
    x: float = 0.0
    y: float = 0.0


class Line(NamedTuple):
    """An edge between two dots, by their numbers; ``via`` is the name that both mention."""

    a: int
    b: int
    kind: str
    via: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All that is drawn. ``views`` are the cells when a part fills the canvas, for each part that has children."""

    title: str
    parts: Sequence[Part]
    views: Mapping[int, Sequence[Cell]]
    query: str | None
    dots: Sequence[Dot]
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What ``draw`` wrote: the file, its size, and how much of the memory is in it."""

    path: str
    bytes: int
    segments: int
    parts: int
    hits: int
    dots: int
    lines: int


def draw(
    memory: Memory,
    path: str | os.PathLike[str],
    *,
    query: str | None = None,
    depth: int = 4,
    namespace: str | None = None,
) -> Drawing:
    """Draw a namespace of ``memory`` into the file ``path``, replacing it: a page (.html), or a picture (.svg, .png).

    The page is one file that works offline: the tree to ``depth`` levels, and with ``query`` the graph around its
    hits. The same memory gives the same file. Pictures need ``memspan[pictures]``. Raises InvalidInput, MissingExtra,
    NotFound when there is nothing to draw, StoreError; then no file was written.
    """
    file = files.target(path)
    root = memory.tree(depth=depth, examples=3, namespace=namespace)
    if not root.segments:
        raise NotFound("there is nothing to draw in this namespace", mend='store something first (memspan add "...")')
    parts, children = outline(root)
    dots, lines = ((), ()) if query is None else neighbourhood(memory, query, namespace)
    picture = Picture(
        title=f"{root.segments:,} segments in {line(namespace or memory.namespace, 60)}",
        parts=parts,
        views={at: tuple(cells(parts, children, at, (0.0, 0.0, WIDTH, HEIGHT))) for at in sorted(children)},
        query=None if query is None else line(query, 200),
        dots=dots,
        lines=lines,
    )
    raw = page(picture) if files.is_page(file) else still(picture, file.suffix[1:].lower())
    files.put(file, raw)
    return Drawing(
        path=str(file),
        bytes=len(raw),
        segments=root.segments,
        parts=len(parts),
        hits=sum(dot.rank > 0 for dot in dots),
        dots=len(dots),
        lines=len(lines),
    )


# The tree


def outline(root: Node) -> tuple[list[Part], dict[int, range]]:
    """The largest parts of a tree, at most MOST_PARTS, and for each that is divided the numbers of its children.

    Children come largest first; what is beyond MOST_CHILDREN, or in no child, is one part more. So the segments of the
    children are always those of the parent. A branch has a hue of its own once it holds no more than half of all.
    """
    said = tuple(line(text, 240) for text in root.examples[:3])
    parts = [Part(label=line(root.label, 60) or "everything", kind=root.kind, segments=root.segments, examples=said)]
    children: dict[int, range] = {}
    hues = itertools.count(215, 137.508)  # the golden angle: any few in a row are far apart
    waiting = [(-root.segments, 0, root)]
    while waiting:
        _, at, node = heappop(waiting)
        known = sorted((child for child in node.children if child.segments), key=lambda child: -child.segments)
        shown, more = known[:MOST_CHILDREN], len(known) - MOST_CHILDREN
        if not shown or len(parts) + len(shown) >= MOST_PARTS:
            continue
        first, hue = len(parts), parts[at].hue
        for child in shown:
            own = hue < 0 and 2 * child.segments <= root.segments
            heappush(waiting, (-child.segments, len(parts), child))
            parts.append(
                Part(
                    label=line(child.label, 60) or "unnamed",
                    kind=child.kind,
                    segments=child.segments,
                    parent=at,
                    hue=round(next(hues)) % 360 if own else hue,
                    examples=tuple(line(text, 240) for text in child.examples[:3]),
                )
            )
        if (rest := node.segments - sum(child.segments for child in shown)) > 0:
            label = f"{more:,} more" if more > 0 else "not grouped"
            parts.append(Part(label=label, kind="rest", segments=rest, parent=at))
        children[at] = range(first, len(parts))
    return parts, children


def cells(parts: Sequence[Part], children: Mapping[int, range], focus: int, box: Box, level: int = 0) -> Iterator[Cell]:
    """The cells of what is in the part ``focus``, outer ones first, in areas that follow their numbers of segments."""
    order = sorted(children[focus], key=lambda at: -parts[at].segments)
    for at, (x, y, width, height) in zip(order, squarified([parts[at].segments for at in order], box), strict=True):
        gap = min(GAP, width / 4, height / 4)
        x, y, width, height = x + gap / 2, y + gap / 2, width - gap, height - gap
        inner = (x + gap, y + HEAD, width - 2 * gap, height - HEAD - gap)
        opened = (
            level + 1 < LEVELS
            and at in children
            and min(inner[2:]) > HEAD
            and inner[2] * inner[3] >= ROOM * len(children[at])
        )
        yield Cell(at, round(x, 1), round(y, 1), round(width, 1), round(height, 1), level, opened)
        if opened:
            yield from cells(parts, children, at, inner, level + 1)


def squarified(sizes: Sequence[int], box: Box) -> list[Box]:
    """Boxes that fill ``box``, in areas that follow ``sizes`` (above 0, largest first), as square as it goes.

    Row by row along the shorter side: M. Bruls, K. Huizing, J. van Wijk, "Squarified Treemaps", VisSym 2000.
    """
    x, y, width, height = box
    scale = width * height / sum(sizes)
    areas = [size * scale for size in sizes]
    boxes: list[Box] = []
    while rest := areas[len(boxes) :]:
        side = min(width, height)
        count, total = 1, rest[0]
        while count < len(rest) and _worst(rest, count + 1, side) <= _worst(rest, count, side):
            total += rest[count]
            count += 1
        deep, along = total / side, 0.0
        for area in rest[:count]:
            length = area / deep
            boxes.append((x + along, y, length, deep) if width < height else (x, y + along, deep, length))
            along += length
        if width < height:
            y, height = y + deep, height - deep
        else:
            x, width = x + deep, width - deep
    return boxes


def _worst(areas: Sequence[float], count: int, side: float) -> float:
    """The ratio of the longer side to the shorter one of the least square of the first ``count`` in one row."""
    total = sum(areas[:count])
    return max(side * side * areas[0] / total**2, total**2 / (side * side * areas[count - 1]))


# The graph


def neighbourhood(memory: Memory, query: str, namespace: str | None) -> tuple[list[Dot], list[Line]]:
    """The hits of ``query``, what led to them and what the strongest edges of each lead to: at most 120 dots."""
    hits = memory.search(query, k=HITS, explain=True, namespace=namespace)
    dots = {hit.id: Dot(text=line(hit.text, 600), about=_about(hit), rank=rank) for rank, hit in enumerate(hits, 1)}
    lines: dict[tuple[int, int, str], Line] = {}
    number = {id: at for at, id in enumerate(dots)}

    def number_of(segment: Segment) -> int:
        if segment.id not in number:
            number[segment.id] = len(dots)
            dots[segment.id] = Dot(text=line(segment.text, 600), about=_about(segment), rank=0)
        return number[segment.id]

    def join(segments: Sequence[Segment], path: Sequence[Any]) -> None:
        """Lines along ``segments``, each led to by the step of ``path`` before it."""
        for near, far, step in zip(segments, segments[1:], path, strict=False):
            a, b = sorted((number_of(near), number_of(far)))
            lines.setdefault((a, b, step.kind), Line(a, b, step.kind, line(step.via, 80) if step.via else None))

    for hit in hits:
        if hit.path:
            join([*(memory.get(step.id, namespace=namespace) for step in hit.path), hit], hit.path)
    for hit in hits:
        room = HITS * (AROUND + 1) - len(dots)
        for near in memory.neighbors(hit.id, limit=AROUND, namespace=namespace):
            if near.id in number or room > 0:
                room -= near.id not in number
                join([hit, near], near.path)
    found = list(lines.values())
    places = spread([dot.rank > 0 for dot in dots.values()], [(edge.a, edge.b) for edge in found])
    placed = [
        Dot(text=dot.text, about=dot.about, rank=dot.rank, x=round(float(x), 1), y=round(float(y), 1))
        for dot, (x, y) in zip(dots.values(), places, strict=True)
    ]
    return placed, found


def _about(segment: Segment) -> str:
    """When it was, who said it, where it belongs; of a hit also its score and what it is made of."""
    parts = [f"{segment.time:%Y-%m-%d}", segment.speaker or segment.role or "", " / ".join(segment.category)]
    if isinstance(segment, Hit):
        parts.append(f"score {segment.score:.2f}")
        parts += [f"{name} {value:.2f}" for name, value in (segment.channels or {}).items()]
    return " · ".join(line(part, 80) for part in parts if part)


def spread(heavy: Sequence[bool], edges: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """float64[n, 2]: places of n dots on the canvas, joined ones near each other; ``heavy`` ones get more room.

    T. Fruchterman and E. Reingold, "Graph Drawing by Force-Directed Placement", 1991, with a pull to the middle that
    keeps together what no edge joins. It starts from a sunflower spiral, so the same graph always looks the same.
    """
    n = len(heavy)
    if n == 0:
        return np.zeros((0, 2))
    turn = np.arange(n) * np.pi * (3 - 5**0.5)
    place = np.sqrt((np.arange(n)[:, None] + 0.5) / n) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    mass = np.where(heavy, 3.0, 1.0)
    ends = np.array(edges, np.int64).reshape(-1, 2)
    pull = np.zeros((n, n))
    pull[ends[:, 0], ends[:, 1]] = pull[ends[:, 1], ends[:, 0]] = 1.0
    room = 1.6 / n**0.5
    for step in range(STEPS):
        away = place[:, None] - place[None]
        far = np.sqrt((away**2).sum(axis=2)) + 1e-9
        push = room**2 * mass[:, None] * mass[None] / far**2 - pull * far / room
        force = (push[:, :, None] * away).sum(axis=1) - 1.2 * mass[:, None] * place
        size = np.sqrt((force**2).sum(axis=1, keepdims=True)) + 1e-9
        place = place + force / size * np.minimum(size, 0.15 * (1 - step / STEPS))
    low, high = place.min(axis=0), place.max(axis=0)
    margin = np.array([90.0, 50.0])
    unit = (place - low) / np.maximum(high - low, 1e-9) if n > 1 else np.full((1, 2), 0.5)
    shown: NDArray[np.float64] = margin + unit * (np.array([WIDTH, HEIGHT]) - 2 * margin)
    return shown


# The page


def page(picture: Picture) -> bytes:
    """The picture as one HTML file."""
    data = {
        "title": picture.title,
        "parts": [
            [part.label, part.kind, part.segments, part.parent, part.hue, part.examples] for part in picture.parts
        ],
        "views": picture.views,
        "query": picture.query,
        "dots": [[dot.x, dot.y, dot.rank, dot.text, dot.about] for dot in picture.dots],
        "lines": picture.lines,
    }
    return files.page("map.html", data)


# The static picture


def still(picture: Picture, kind: str) -> bytes:
    """The picture as "svg" or "png": the whole tree, and under it the graph. Raises MissingExtra."""
    drawings = [(picture.title, _tree)]
    if picture.query is not None:
        drawings.append((f"around “{picture.query}”", _graph))
    wide, high = WIDTH + 2 * MARGIN, HEIGHT + 3 * MARGIN
    tall = high * len(drawings)

    def paint(figure: Figure) -> None:
        for number, (title, draw_in) in enumerate(drawings, 1):
            axes = figure.add_axes((MARGIN / wide, (tall - number * high + MARGIN) / tall, WIDTH / wide, HEIGHT / tall))
            axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
            axes.axis("off")
            axes.text(2, -12, line(title, 120), fontsize=11, color=INK, weight="bold")
            draw_in(axes, picture)

    return files.still(kind, (wide / 100, tall / 100), paint)


def _tree(axes: Axes, picture: Picture) -> None:
    from matplotlib.patches import FancyBboxPatch

    for cell in picture.views.get(0, (Cell(0, 0, 0, WIDTH, HEIGHT, 0, False),)):
        part = picture.parts[cell.part]
        hue, color = max(part.hue, 0) / 360, float(part.hue >= 0)
        width, height = max(cell.width - 4, 1.0), max(cell.height - 4, 1.0)
        axes.add_patch(
            FancyBboxPatch(
                (cell.x + 2, cell.y + 2),
                width,
                height,
                boxstyle=f"round,pad=0,rounding_size={min(3.0, width / 3, height / 3)}",
                facecolor=colorsys.hls_to_rgb(hue, 0.93 - 0.05 * cell.level, 0.42 * color),
                edgecolor=colorsys.hls_to_rgb(hue, 0.78, 0.3 * color),
                linewidth=0.6,
            )
        )
        named, flat, count = part.kind == "category", cell.opened or cell.height < 38, f"{part.segments:,}"
        letters = int((cell.width - 14) / (7.2 if named else 6.4))
        room = letters - (len(count) + 2 if flat else 0)
        if letters < 4 or cell.height < 18:
            continue
        label = line(part.label, room) + ("  " if flat else "\n") + count if room >= 4 else line(part.label, letters)
        place: Any = {"va": "top", "linespacing": 1.35}
        axes.text(cell.x + 8, cell.y + 7, label, weight="bold" if named else "normal", color=INK, fontsize=7.5, **place)
        many = int((cell.height - 52) / 12.5)
        if not flat and cell.width > 110 and many > 1:
            said = "\n".join([row for text in part.examples for row in wrap(text, int((cell.width - 16) / 5.3))][:many])
            axes.text(cell.x + 8, cell.y + 42, said, color=SOFT, fontsize=6.2, **place)


def _graph(axes: Axes, picture: Picture) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    dots = picture.dots
    if not dots:
        axes.text(WIDTH / 2, HEIGHT / 2, "nothing was found", ha="center", color=INK, fontsize=10)
        return
    ends = [[(dots[at].x, dots[at].y) for at in edge[:2]] for edge in picture.lines]
    colors = [color_of(edge.kind) for edge in picture.lines]
    axes.add_collection(LineCollection(ends, colors=colors, linewidths=1.1, alpha=0.5, zorder=1))
    x, y = [dot.x for dot in dots], [dot.y for dot in dots]
    sizes, fills = zip(*((190, INK) if dot.rank else (34, PALE) for dot in dots), strict=True)
    axes.scatter(x, y, s=sizes, c=fills, edgecolors=PAPER, linewidths=1, zorder=2)
    for dot in dots:
        if dot.rank:
            axes.text(dot.x, dot.y, str(dot.rank), color=PAPER, fontsize=7.5, ha="center", va="center_baseline")
            under = {"facecolor": PAPER, "alpha": 0.75, "linewidth": 0, "pad": 0.6}
            place: Any = {"ha": "center", "va": "top", "zorder": 1.5}  # a label must not hide another dot
            axes.text(dot.x, dot.y + 17, line(dot.text, 34), color=INK, fontsize=7, bbox=under, **place)
    kinds = sorted({edge.kind for edge in picture.lines})
    if kinds:
        samples = [Line2D([], [], color=color_of(kind)) for kind in kinds]
        names = [line(kind, 30) for kind in kinds]
        axes.legend(samples, names, loc="upper right", ncols=len(kinds), frameon=False, fontsize=8)


def color_of(kind: str) -> str:
    """The colour of an edge: one for each kind that the graph finds, one for all that were stated."""
    return COLORS[kind if kind in DERIVED else "stated"]
