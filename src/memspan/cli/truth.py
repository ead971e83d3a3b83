"""The commands about what is true and what was done: supersede, operations, undo, rewind."""

from __future__ import annotations

from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.cli.memories import nothing
from memspan.records import Operation, as_dict


def supersede(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The id of what was so.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The id of what is so since.")],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Since when; else when the new one happened.", show_default=False),
    ] = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """State that one memory took the place of another; the old one is found by --valid-at and --superseded only."""
    with o.open_memory(store, "auto", namespace) as memory:
        _told(memory.supersede(old, new, at=at), json)


def operations(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="Only what changed this memory.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 20,
    before: Annotated[
        str | None, typer.Option("--before", metavar="OPERATION", help="Older than this one.", show_default=False)
    ] = None,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """List what was done, the last first, with the id that undo takes."""
    with o.open_memory(store, "none", namespace) as memory:
        found = memory.operations(id, limit=limit, before=before)
    if json:
        output.emit({"operations": [as_dict(each) for each in found]})
    else:
        for each in found:
            print(_line(each))
    if not found:
        nothing("Nothing was done yet", "memspan add stores something", json=json)


def undo(
    operation: Annotated[str, typer.Argument(metavar="OPERATION", help="An id, as operations and history print it.")],
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Take back an operation: what it changed says again what it said before. Undo that, and it is done again."""
    with o.open_memory(store, "auto", namespace) as memory:
        _told(memory.undo(operation), json)


def rewind(
    to: Annotated[str, typer.Argument(metavar="TIME", help="ISO 8601; without a zone, UTC.")],
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Have everything in scope say again what it said at a time; undo takes that back."""
    with o.open_memory(store, "auto", namespace) as memory:
        _told(memory.restore(to, **o.scope(user, agent, run, session)), json)


def _told(done: Operation, json: bool) -> None:
    if json:
        output.emit(as_dict(done))
        return
    print(f"{output.plural(done.segments, 'segment')} changed")
    typer.secho(f"To take it back: memspan undo {done.id}", err=True, fg=o.color("bright_black"))


def _line(each: Operation) -> str:
    about = [f"{each.at:%Y-%m-%d %H:%M:%S} UTC", each.verb, output.plural(each.segments, "segment")]
    about += [f"by {output.line(each.actor, 40)}"] if each.actor else []
    about += [f"undoes {each.undoes}"] if each.undoes else []
    about += [f"undone by {each.undone_by}"] if each.undone_by else []
    return "  ".join((each.id, *about))
