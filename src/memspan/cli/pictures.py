"""The commands that draw a memory into a file: map, plot, timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.errors import InvalidInput
from memspan.records import as_dict

Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="A page (.html) or a picture (.svg, .png); replaced.")
]


def map_(
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", metavar="TEXT", help="Draw the graph around its hits too.", show_default=False),
    ] = None,
    out: Out = Path("map.html"),
    depth: Annotated[int, typer.Option("--depth", "-d", help="How many levels of the tree.")] = 4,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Draw the tree, and the graph around a query, as one page to look at offline.

    A picture needs the extra "pictures".
    """
    from memspan.pictures.map import draw

    with o.open_memory(store, encoder, namespace, reranker=None if query else "none") as memory:
        drawn = draw(memory, out, query=query, depth=depth)
    graph = f", {drawn.hits} hits and {drawn.dots - drawn.hits} around them" if query is not None else ""
    told = f"{output.plural(drawn.segments, 'segment')} in {output.plural(drawn.parts, 'part')}{graph}"
    _show(drawn, told, json=json)


def plot(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="A page (.html) or a picture (.svg, .png); replaced. Else plot.html or heatmap.html.",
            show_default=False,
        ),
    ] = None,
    color: Annotated[
        str | None,
        typer.Option(
            "--color",
            "-c",
            metavar="FIELD",
            help="category, session, speaker, user or time; else the first by which they differ.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help='pca, or umap: the extra "umap".')] = "pca",
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Draw the matrix itself: a row a segment.", show_default=False)
    ] = False,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Draw the embeddings as a map: each memory a point, near those that mean about the same.

    A picture needs the extra "pictures".
    """
    if heatmap and (color is not None or method != "pca"):
        mend = "leave out --color and --method, or --heatmap"
        raise InvalidInput("--heatmap", "has colours of its own and no method", mend=mend)
    from memspan.pictures import heatmap as heat
    from memspan.pictures import plot as points

    where = {**o.scope(user, agent, run, session), "filters": o.filters_from(filters)}
    drawn: points.Plotted | heat.Heated
    with (
        o.open_memory(store, "none", namespace) as memory,
        output.progress("Drawing", show=not json) as progress,
    ):
        if heatmap:
            drawn = heat.draw(memory, out or "heatmap.html", **where, progress=progress)
            told = f"{output.plural(drawn.rows, 'row')} of {output.plural(drawn.dims, 'dimension')}"
        else:
            drawn = points.draw(memory, out or "plot.html", color=color, method=method, **where, progress=progress)
            told = f"{output.plural(drawn.points, 'point')} by {drawn.method}, coloured by {drawn.color}"
    _show(drawn, told, json=json)


def timeline(
    out: Out = Path("timeline.html"),
    color: Annotated[
        str | None,
        typer.Option(
            "--color",
            "-c",
            metavar="FIELD",
            help="user, category or speaker; else the first by which they differ.",
            show_default=False,
        ),
    ] = None,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Draw when it was said: how much over time, and each session from its start to its end.

    A picture needs the extra "pictures".
    """
    from memspan.pictures.timeline import draw

    where = {**o.scope(user, agent, run, session), "filters": o.filters_from(filters)}
    with (
        o.open_memory(store, "none", namespace) as memory,
        output.progress("Drawing", show=not json) as progress,
    ):
        drawn = draw(memory, out, color=color, **where, progress=progress)
    told = f"{output.plural(drawn.segments, 'segment')} by the {drawn.unit}, {output.plural(drawn.sessions, 'session')}"
    _show(drawn, told, json=json)


def _show(drawn: Any, told: str, *, json: bool) -> None:
    """What was drawn, as JSON; or the file on stdout and what is in it on stderr."""
    if json:
        output.emit(as_dict(drawn))
        return
    print(drawn.path)
    typer.secho(told, err=True, fg=o.color("green"))
