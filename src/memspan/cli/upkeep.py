"""The commands about a whole store: stats, compact, verify, rebuild."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output


def stats(
    namespace: o.Namespace = None, store: o.Store = None, encoder: o.Encoder = None, json: o.Json = False
) -> None:
    """Show where the store is, what is in it, how large it is and whether every view is up to date."""
    with o.open_memory(store, encoder, namespace) as memory:
        _show(memory.stats(), json)


def compact(
    namespace: o.Namespace = None, store: o.Store = None, encoder: o.Encoder = None, json: o.Json = False
) -> None:
    """Index what is waiting and fold it into fresh index snapshots. Searching goes on meanwhile."""
    with (
        o.open_memory(store, encoder, namespace) as memory,
        output.progress("Compacting", show=not json) as advance,
    ):
        report = memory.compact(progress=advance)
    _show(report, json)


def verify(store: o.Store = None, encoder: o.Encoder = None, json: o.Json = False) -> None:
    """Read and hash everything again, through the same path a search reads by. Exit code 1 if anything is wrong.

    Where the model is missing, --encoder none checks all but the vector index.
    """
    with o.open_memory(store, encoder, None) as memory, output.progress("Verifying", show=not json) as advance:
        report = memory.verify(progress=advance)
    _show(report, json)
    if not report["ok"]:
        raise typer.Exit(1)


def rebuild(
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", metavar="NAME", help="Encode everything again with this one.", show_default=False),
    ] = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Make every view anew from the ledger; with --encoder, move the store to another model."""
    # Moving to another model must not need the one that is left behind.
    opened_with = "auto" if encoder is None else "none"
    with o.open_memory(store, opened_with, None) as memory, output.progress("Rebuilding", show=not json) as advance:
        report = memory.rebuild(encoder=encoder or "auto", progress=advance)
    _show(report, json)


def _show(report: dict[str, Any], json: bool) -> None:
    output.emit(report) if json else output.show_mapping(report)
