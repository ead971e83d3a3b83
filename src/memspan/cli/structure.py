"""The commands about how memories hang together: tree, neighbors, themes, move-category, link, unlink; a summary; and
the context in DSM's layout.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.cli.memories import Id, Query, nothing
from memspan.records import as_dict

From = Annotated[str, typer.Argument(metavar="FROM", help="The id of the segment that the link goes out from.")]
To = Annotated[str, typer.Argument(metavar="TO", help="The id of the segment that it leads to.")]


def tree(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help='A category, such as "Work / Plans"; nothing is all.', show_default=False),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", "-d", help="How many levels below it.")] = 2,
    examples: Annotated[int, typer.Option("--examples", help="How many texts of each part.")] = 1,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Show the tree: categories, and the clusters that grow by themselves, with their sizes and what is in them."""
    with o.open_memory(store, encoder, namespace) as memory:
        root = memory.tree(
            path,
            depth=depth,
            examples=examples,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
        )
    output.emit(as_dict(root)) if json else output.show_tree(root)
    if not root.segments:
        mend = "store something first, or take a wider scope (memspan stats shows what is there)"
        nothing("Nothing is there", mend, json=json)


def summary(
    budget: Annotated[int, typer.Option("--budget", "-b", metavar="TOKENS", help="Never exceeded.")] = 200,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Tell what a session, or all that is in scope, is about, in its own sentences."""
    with o.open_memory(store, encoder, namespace) as memory:
        told = memory.summary(budget=budget, **o.scope(user, agent, run, session), filters=o.filters_from(filters))
    if json:
        output.emit(as_dict(told))
    elif told.text:
        print(output.clean(told.text))
    if not told.segments:
        nothing("Nothing is there", "store something first, or take a wider scope", json=json)


def neighbors(
    id: Id,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="Follow only these: next, mentions, similar, or what link stated.",
            show_default=False,
        ),
    ] = None,
    hops: Annotated[int, typer.Option("--hops", help="How far to follow, 1 to 4.")] = 1,
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 20,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Show what a memory leads to, strongest first, and by which way."""
    with o.open_memory(store, encoder, namespace) as memory:
        found = memory.neighbors(id, kinds or None, hops, limit=limit)
    if json:
        output.emit({"id": id, "neighbors": output.segment_dicts(found)})
    else:
        output.show_neighbors(found)
    if not found:
        nothing("Nothing found", "try more --hops, or leave out --kind", json=json)


def themes(
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 20,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Show what the memories are about: the communities of the graph, largest first."""
    with o.open_memory(store, encoder, namespace) as memory:
        found = memory.themes(limit=limit, **o.scope(user, agent, run, session), filters=o.filters_from(filters))
    if json:
        output.emit({"themes": [as_dict(theme) for theme in found]})
    else:
        output.show_themes(found)
    if not found:
        nothing("No themes yet", "store more that hangs together, then try again", json=json)


def move_category(
    old: Annotated[str, typer.Argument(metavar="OLD", help='The category, such as "Work / Plans".')],
    new: Annotated[str, typer.Argument(metavar="NEW", help='Where it goes; "" takes the category away.')],
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Rename a category, move it, or merge it into another, with all that is in it and below it."""
    with o.open_memory(store, encoder, namespace) as memory:
        moved = memory.move_category(old, new)
    if json:
        output.emit({"moved": moved})
    else:
        print(f"{output.plural(moved, 'segment')} moved")


def link(
    source: From,
    target: To,
    relation: Annotated[str, typer.Option("--relation", "-r", metavar="NAME", help="How they hang together.")] = (
        "related"
    ),
    weight: Annotated[float, typer.Option("--weight", metavar="0..1", help="How strongly.")] = 1.0,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """State that one memory is linked to another: "reply", "supersedes", or a word of your own."""
    with o.open_memory(store, "none", namespace) as memory:
        edge = memory.link(source, target, relation, weight)
    if json:
        output.emit({name: value for name, value in as_dict(edge).items() if value is not None})
    else:
        print(f"{edge.source} {output.line(edge.kind)} {edge.target}")


def unlink(
    source: From,
    target: To,
    relation: Annotated[
        str | None,
        typer.Option("--relation", "-r", metavar="NAME", help="Only this one; else all.", show_default=False),
    ] = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Take back what link stated."""
    with o.open_memory(store, "none", namespace) as memory:
        removed = memory.unlink(source, target, relation)
    if json:
        output.emit({"removed": removed})
    else:
        print(f"{output.plural(removed, 'link')} removed")
    if not removed:
        nothing("No such link", "links go one way: try the two ids the other way round", json=json)


def active_context(
    query: Query = None,
    budget: Annotated[int, typer.Option("--budget", "-b", metavar="TOKENS", help="Never exceeded.")] = 1000,
    k: Annotated[
        int | None,
        typer.Option("--k", "-k", help="How many segments at most; else as the budget allows.", show_default=False),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="FILE", help="Count by this tokenizer.json.", show_default=False),
    ] = None,
    recipe: o.Recipe = "dsm",
    threshold: o.Threshold = 0.0,
    as_of: o.AsOf = None,
    redact: o.Redact = None,
    valid_at: o.ValidAt = None,
    superseded: o.Superseded = False,
    filters: o.Filters = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    reranker: o.Reranker = None,
    json: o.Json = False,
) -> None:
    """Pack a context in DSM's layout: the query, a line for each segment, then each with category, scores and text."""
    text = o.text_from(query, "QUERY")
    with o.open_memory(store, encoder, namespace, reranker=reranker) as memory:
        started = time.perf_counter()
        packed = memory.active_context(
            text,
            budget=budget,
            k=k,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
            threshold=threshold,
            as_of=as_of,
            valid_at=valid_at,
            include_superseded=superseded,
            tokenizer=tokenizer,
            recipe=recipe,
            redact=redact,
        )
        milliseconds = (time.perf_counter() - started) * 1000
    if json:
        output.emit(as_dict(packed) | {"milliseconds": round(milliseconds, 3)})
    elif packed.citations:
        output.show_context(packed, milliseconds)
    if not packed.citations:
        nothing("Nothing found", "try other words or a wider scope (memspan stats shows what is there)", json=json)
