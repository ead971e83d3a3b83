"""``memspan mcp``: a memory as tools for an assistant, on standard input and output, and in the settings of clients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from memspan.cli import clients, output
from memspan.cli import options as o
from memspan.config import Config, Database
from memspan.errors import InvalidInput

mcp = typer.Typer(help="Give a memory to Claude, ChatGPT, Cursor and other assistants, over MCP.", no_args_is_help=True)

Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="NAME",
        help="default (8 tools), full, chatgpt (search, fetch) or reference (the reference memory server's).",
    ),
]


@mcp.command()
def serve(
    profile: Profile = "default",
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    reranker: o.Reranker = None,
    redact: o.Redact = None,
) -> None:
    """Serve one namespace on standard input and output, for a client that starts this itself.

    Over HTTP, for several clients, it is at /mcp of memspan serve.
    """
    from memspan.server.mcp import mcp_server, talk

    with o.open_memory(store, encoder, namespace, reranker=reranker, redact=redact, create=True) as memory:
        talk(mcp_server(memory, profile))


@mcp.command()
def install(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="CLIENT...", help="Which; without any, they are listed.", show_default=False),
    ] = None,
    profile: Profile = "default",
    namespace: o.Namespace = None,
    store: o.Store = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change.", show_default=False)
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,
    json: o.Json = False,
) -> None:
    """Write memspan into the settings of clients, after showing what changes there.

    Everything else in a file stays. One with comments is not touched: the lines to paste are shown, and the exit code
    is 1.
    """
    if not names:
        _list(json)
        return
    command = clients.command_for(_arguments(profile, namespace, store))
    wanted = [clients.named(name) for name in dict.fromkeys(names)]
    changes, refused = list[clients.Change](), list[InvalidInput]()
    for client in wanted:
        try:
            changes.append(clients.change(client, _path(client), command))
        except InvalidInput as error:
            refused.append(error)
    pending = [each for each in changes if each.needed]
    if not json:
        _show(changes, refused)
    written = not dry_run and bool(pending) and (yes or _agreed(json))
    if written:
        for each in pending:
            each.write()
    if json:
        told = [
            {"client": each.client.name, "path": str(each.path), "diff": each.diff, "changed": written and each.needed}
            for each in changes
        ]
        left = [{"client": each.argument, "problem": each.problem, "mend": each.mend} for each in refused]
        output.emit({"clients": told, "refused": left, "dry_run": dry_run})
    elif written:
        print(f"Wrote {output.plural(len(pending), 'file')}. Start {_titles(pending)} again to have it.")
    if refused:
        raise typer.Exit(1)


def _arguments(profile: str, namespace: str | None, store: str | None) -> list[str]:
    """What the client calls memspan with. The store is always named: a client has not the environment of this shell."""
    config = Config.load(store=store, namespace=namespace)
    from memspan.server.mcp import check_profile

    check_profile(profile)
    place = config.store.url if isinstance(config.store, Database) else str(config.store.expanduser().absolute())
    given = ["mcp", "serve", "--store", place]
    given += ["--namespace", config.namespace] if config.namespace != "default" else []
    return [*given, *(["--profile", profile] if profile != "default" else [])]


def _path(client: clients.Client) -> Path:
    return client.path(Path.home(), clients.this_system(), platformdirs.user_data_path(roaming=True))


def _list(json: bool) -> None:
    known = [(client, _path(client)) for client in clients.CLIENTS]
    if json:
        told = [{"client": each.name, "path": str(path), "there": path.exists()} for each, path in known]
        output.emit({"clients": told})
        return
    for each, path in known:
        print(each.name, each.title, path, "there" if path.exists() else "not there", sep="\t")


def _show(changes: list[clients.Change], refused: list[InvalidInput]) -> None:
    for each in changes:
        print(output.clean(each.diff) if each.needed else f"{each.path}: has it already\n", end="")
    for error in refused:
        typer.secho(f"{output.clean(error.problem)}\n{output.clean(error.mend)}", err=True, fg=o.color("yellow"))


def _agreed(json: bool) -> bool:
    if json or not sys.stdin.isatty():
        raise InvalidInput("--yes", "is missing, and nobody can be asked here", mend="give --yes, or --dry-run")
    return typer.confirm("Write this?")


def _titles(changes: list[clients.Change]) -> str:
    return ", ".join(each.client.title for each in changes)
