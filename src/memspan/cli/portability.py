"""The commands by which a memory goes out and comes in: export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.records import as_dict
from memspan.reports import Exported, Imported

SHOWN = 20  # problems told one by one


def export(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file or folder to write; replaced.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="jsonl, cube, parquet, csv, npy, hdf5, pickle or faiss; without it the suffix says.",
            show_default=False,
        ),
    ] = None,
    filters: o.Filters = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="With what segments said before, or only what they say now.")
    ] = True,
    compat: Annotated[
        bool,
        typer.Option("--compat", help="csv, npy, hdf5, pickle: exactly as Latent Memory wrote it.", show_default=False),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign a cube with this private key.", show_default=False),
    ] = None,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Write a memory, or the part that the options name, to an archive.

    .jsonl is for exchange and version control, .memspan (a cube) for carrying all of it about, .parquet for analysis.
    Others that load a pickle run whatever is in it: write one only for a program that wants it.
    """
    with o.open_memory(store, encoder, namespace) as memory, output.progress("Exporting", show=not json) as advance:
        done = memory.export_to(
            path,
            format,
            **o.scope(user, agent, run, session),
            filters=o.filters_from(filters),
            history=history,
            compat=compat,
            key=key,
            progress=advance,
        )
    if json:
        output.emit(as_dict(done))
    else:
        print(_written(done))


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An archive, or what another system wrote.")],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Without it the file is looked at. Those of export, and records, mcp, mem0, chatgpt, claude,"
            " langgraph, dsm, markdown, chatlog.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would happen.", show_default=False)
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Import nothing if anything cannot be read.", show_default=False)
    ] = False,
    restore_deleted: Annotated[
        bool, typer.Option("--restore-deleted", help="Bring back what was deleted here.", show_default=False)
    ] = False,
    signed_by: Annotated[
        str | None,
        typer.Option("--signed-by", metavar="KEY", help="Only a cube signed with this key.", show_default=False),
    ] = None,
    vectors: Annotated[
        bool, typer.Option("--vectors/--no-vectors", help="Use vectors in the archive, or encode every text here.")
    ] = True,
    namespace: o.Namespace = None,
    user: o.User = None,
    agent: o.Agent = None,
    run: o.Run = None,
    session: o.Session = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    json: o.Json = False,
) -> None:
    """Take over an archive, or the memories another system kept: mem0, MCP, ChatGPT, Claude, LangGraph, notes, chats.

    Times are kept. What is here already is passed over, so an import that was interrupted is run again and goes on.
    --user, --agent, --run and --session say whose it is where the file does not. Exit code 1 if anything could not be
    read.
    """
    with o.open_memory(store, encoder, namespace, create="nothing" if dry_run else True) as memory:
        try:
            with output.progress("Importing", show=not json) as advance:
                done = memory.import_from(
                    path,
                    format,
                    **o.scope(user, agent, run, session),
                    restore_deleted=restore_deleted,
                    signed_by=signed_by,
                    vectors=vectors,
                    strict=strict,
                    dry_run=dry_run,
                    progress=advance,
                )
        except KeyboardInterrupt:
            said = "Interrupted. What was imported is safe; run the same command again to go on."
            typer.secho(said, err=True, fg=o.color("yellow"))
            raise
    if json:
        output.emit(as_dict(done))
    else:
        _show(done)
    if done.failed:
        raise typer.Exit(1)


def _written(done: Exported) -> str:
    older = done.versions - done.segments
    history = f", {output.plural(older, 'older version')}" if older else ""
    vectors = f", vectors of {done.encoder}" if done.encoder else ""
    size = output.size(done.bytes)
    return f"{done.path} ({done.format}, {size}): {output.plural(done.segments, 'segment')}{history}{vectors}"


def _show(done: Imported) -> None:
    for problem in done.problems[:SHOWN]:
        told = f"left out {output.line(problem.where)}: {output.line(problem.problem)}"
        typer.secho(told, err=True, fg=o.color("yellow"))
    if done.failed > SHOWN:
        more = f"... and {done.failed - SHOWN:,} more"
        typer.secho(more, err=True, fg=o.color("yellow"))
    for note in done.notes:
        typer.secho(output.line(note), err=True, fg=o.color("yellow"))
    parts = [f"{done.added:,} {'would be ' if done.dry_run else ''}new"]
    parts += [
        f"{count:,} {what}"
        for count, what in (
            (done.updated, "of them updates"),
            (done.there, "here already"),
            (done.deleted, "deleted here and left out (--restore-deleted brings them back)"),
            (len(done.conflicts), "changed here and there, the later counts"),
            (done.links, "links"),
            (done.failed, "could not be read"),
            (done.pending, "waiting to be indexed"),
        )
        if count
    ]
    print(f"{done.path} ({done.format}): {output.plural(done.read, 'segment')} read, {', '.join(parts)}")
    if done.signed_by is not None:
        print(f"Signed by {done.signed_by}")
