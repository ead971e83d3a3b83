"""The commands about what may have taken the place of what: conflicts, accept, reject, resolve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.cli.memories import nothing
from memspan.records import Operation, as_dict
from memspan.reports import Conflict

Older = Annotated[str, typer.Argument(metavar="OLD", help="The id of what was said first.")]
Newer = Annotated[str, typer.Argument(metavar="NEW", help="The id of what was said since.")]


def conflicts(
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 20,
    threshold: Annotated[float, typer.Option("--threshold", metavar="0..1", help="Leave out weaker ones.")] = 0.5,
    recent: Annotated[
        int | None,
        typer.Option("--recent", metavar="N", help="Only what the last N memories replaced.", show_default=False),
    ] = None,
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
    """List pairs of which the later may have taken the place of the earlier, likeliest first. Nothing is changed."""
    with o.open_memory(store, encoder, namespace) as memory:
        found = memory.conflicts(
            limit=limit,
            threshold=threshold,
            recent=recent,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
        )
    output.emit({"conflicts": _plain(found)}) if json else _show(found)
    if not found:
        nothing("Nothing contradicts what was said before", "a lower --threshold shows less likely pairs", json=json)


def accept(
    older: Older,
    newer: Newer,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Decide that one memory took the place of another: searches leave the old one out from now on."""
    with o.open_memory(store, "auto", namespace) as memory:
        _decided(memory.accept(older, newer), f"{newer} took the place of {older}", json)


def reject(
    older: Older,
    newer: Newer,
    namespace: o.Namespace = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Decide that both hold: the pair is not proposed again."""
    with o.open_memory(store, "auto", namespace) as memory:
        _decided(memory.reject(older, newer), f"{older} and {newer} both hold", json)


def resolve(
    threshold: Annotated[float, typer.Option("--threshold", metavar="0..1", help="Only pairs as likely as that.")] = (
        0.9
    ),
    apply: Annotated[bool, typer.Option("--apply", help="Do it; otherwise it is only shown.", show_default=False)] = (
        False
    ),
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
    """Have the newer take the place of the older wherever that is likely enough; without --apply, show where."""
    with o.open_memory(store, encoder, namespace) as memory:
        done = memory.resolve(
            threshold=threshold,
            dry_run=not apply,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
        )
    if json:
        told = {"accepted": _plain(done.accepted), "operation": done.operation, "dry_run": done.dry_run}
        output.emit(told)
        return
    _show(done.accepted)
    verb = "would be accepted" if done.dry_run else "accepted"
    print(f"{output.plural(len(done.accepted), 'pair')} {verb}")
    if done.operation is not None:
        _undoing(done.operation)


def _decided(operation: Operation, told: str, json: bool) -> None:
    if json:
        output.emit(as_dict(operation))
        return
    print(told)
    _undoing(operation.id)


def _undoing(operation: str) -> None:
    typer.secho(f"To take it back: memspan undo {operation}", err=True, fg=o.color("bright_black"))


def _show(found: Sequence[Conflict]) -> None:
    """A line for each pair, score and reasons, then both, each with its id and day."""
    for pair in found:
        print(f"{pair.score:.2f}  {', '.join(pair.reasons)}")
        for sign, said in (("-", pair.older), ("+", pair.newer)):
            print(f"  {sign} {said.id}  {said.time:%Y-%m-%d}  {output.line(said.text, 200)}")


def _plain(found: Sequence[Conflict]) -> list[dict[str, Any]]:
    return [
        {
            "score": round(pair.score, 4),
            "reasons": list(pair.reasons),
            "older": output.segment_dicts([pair.older])[0],
            "newer": output.segment_dicts([pair.newer])[0],
        }
        for pair in found
    ]
