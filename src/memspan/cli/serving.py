"""The commands about serving a memory to others: serve, and the API keys that let them in."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memspan.cli import options as o
from memspan.cli import output
from memspan.config import Config
from memspan.errors import InvalidInput, MissingExtra, NotWritable
from memspan.records import as_dict

if TYPE_CHECKING:
    from memspan.access import ApiKey

PORT = 8767
HOW, WHO = "How it listens", "What it allows"

keys = typer.Typer(name="keys", help="API keys of a server: made, listed, revoked.", no_args_is_help=True)


def serve(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.", rich_help_panel=HOW)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.", rich_help_panel=HOW)
    ] = PORT,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Processes over the one store.", rich_help_panel=HOW)
    ] = 1,
    proxy: Annotated[
        str | None,
        typer.Option(
            "--proxy",
            metavar="URL",
            help="An OpenAI-compatible server such as http://localhost:11434/v1, to which chats are passed on with "
            "memory. Its key, if not the client's: MEMSPAN_UPSTREAM_KEY.",
            show_default=False,
        ),
    ] = None,
    recall_budget: Annotated[
        int, typer.Option("--recall-budget", min=50, metavar="TOKENS", help="What the proxy adds to a chat at most.")
    ] = 500,
    recall_recipe: Annotated[
        str, typer.Option("--recall-recipe", help="How the proxy recalls; default finds more and takes longer.")
    ] = "flat",
    recall_threshold: Annotated[
        float, typer.Option("--recall-threshold", metavar="0..1", help="Weaker hits are left out by the proxy.")
    ] = 0.0,
    mcp: Annotated[str, typer.Option("--mcp", metavar="PROFILE", help="The tools at /mcp.")] = "default",
    rate: Annotated[
        int, typer.Option("--rate", min=0, help="Requests a minute and caller; 0 for any.", rich_help_panel=WHO)
    ] = 0,
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors", metavar="ORIGIN", help="An origin browsers may ask from.", rich_help_panel=WHO, show_default=False
        ),
    ] = None,
    max_body: Annotated[
        int, typer.Option("--max-body", min=1, metavar="BYTES", help="The largest request.", rich_help_panel=WHO)
    ] = 16 << 20,
    max_k: Annotated[
        int, typer.Option("--max-k", min=1, help="The most hits of a search.", rich_help_panel=WHO)
    ] = 1000,
    max_budget: Annotated[
        int, typer.Option("--max-budget", min=1, help="The largest context, in tokens.", rich_help_panel=WHO)
    ] = 1_000_000,
    logs: Annotated[bool, typer.Option("--logs/--no-logs", help="A line of JSON for each request, on stderr.")] = True,
    traces: Annotated[
        bool, typer.Option("--traces", help="OpenTelemetry spans, to where OTEL_EXPORTER_OTLP_ENDPOINT says.")
    ] = False,
    namespace: o.Namespace = None,
    store: o.Store = None,
    encoder: o.Encoder = None,
    reranker: o.Reranker = None,
    redact: o.Redact = None,
) -> None:
    """Serve the memory: REST, mem0's paths, MCP at /mcp, an OpenAI-compatible proxy, and a page to look inside at /.

    Without API keys it listens on this machine only: memspan keys create makes one.
    """
    try:
        import uvicorn

        from memspan.recipes import recipe_named
        from memspan.server.app import ENVIRONMENT
        from memspan.server.door import LOOPBACK, Settings
        from memspan.server.observing import MANY
    except ImportError as error:
        raise MissingExtra(f"serving needs {error.name}", mend='pip install "memspan[server]"') from error
    if traces:
        try:
            import opentelemetry.exporter.otlp.proto.http  # noqa: F401
        except ImportError as error:
            raise MissingExtra("--traces needs OpenTelemetry's exporter", mend='pip install "memspan[otel]"') from error
    with o.open_memory(store, encoder, namespace, reranker=None, redact=redact, create=True) as memory:
        guarded = bool(memory.api_keys())  # and here what is wrong with the store is told, not by each worker
        path, where, space = memory.address, memory.where, memory.namespace
    local = host in LOOPBACK
    if not local and not guarded:
        problem = f"{host} can be reached from other machines, and the store has no API key"
        mend = "make one first (memspan keys create NAME --namespace NAMESPACE), or leave --host out"
        raise InvalidInput("--host", problem, mend=mend)
    recipe_named(recall_recipe)
    if proxy is not None and not proxy.startswith(("http://", "https://")):
        raise InvalidInput("--proxy", f"{proxy!r} is no address", mend="give one such as http://localhost:11434/v1")
    settings = Settings(
        local=local,
        max_body=max_body,
        max_k=max_k,
        max_budget=max_budget,
        rate=rate,
        cors=tuple(cors or ()),
        namespace=space,
        upstream=proxy,
        recall_budget=recall_budget,
        recall_recipe=recall_recipe,
        recall_threshold=recall_threshold,
        mcp_profile=mcp,
        logs=logs,
        traces=traces,
    )
    told = asdict(settings)
    del told["upstream_key"]  # it stays in its own variable
    opening: dict[str, Any] = {"path": path, "namespace": space}
    opening |= {name: value for name, value in (("encoder", encoder), ("reranker", reranker)) if value is not None}
    opening |= {} if redact is None else {"redact": redact}
    os.environ[ENVIRONMENT] = json.dumps({"memory": opening, "settings": told})
    with tempfile.TemporaryDirectory(prefix="memspan-metrics-") as shared:
        if workers > 1:
            os.environ[MANY] = shared
        config = uvicorn.Config(
            "memspan.server.app:from_environment",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=10,
            server_header=False,
        )
        _run(config, where, guarded)


def _run(config: Any, store: str, guarded: bool) -> None:
    """Listen, say where, and serve until the process is told to stop; what has begun is answered first."""
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    try:  # before it is said where it listens, so that who comes at once waits instead of being refused
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        listening = socket.create_server((config.host, config.port), family=family, backlog=config.backlog)
    except OSError as error:
        problem = f"{config.port} on {config.host} cannot be used ({error.strerror})"
        raise InvalidInput("--port", problem, mend="choose another, or 0 for a free one") from error
    # Head and body of an answer are written one after the other: the second must not wait for the first to be
    # acknowledged (40 ms). asyncio would see to that if the socket named its protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name, port = listening.getsockname()[:2]
    where = f"http://{f'[{name}]' if ':' in name else name}:{port}"
    typer.secho(f"memspan serves {store} at {where}", err=True, bold=True)
    if not guarded:
        typer.secho("No API keys: only programs on this machine are answered.", err=True)
    typer.secho(f"Look inside: {where}/   MCP: {where}/mcp   API: {where}/openapi.json", err=True)
    server = uvicorn.Server(config)
    signal.signal(signal.SIGTERM, server.handle_exit)  # uvicorn raises it again once all is done; that is no failure
    try:
        if config.workers > 1:
            Multiprocess(config, sockets=[listening]).run()
        else:
            server.run(sockets=[listening])
    except KeyboardInterrupt:  # it has shut down by then
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    finally:
        listening.close()
    if not server.started and config.workers == 1:
        raise NotWritable("the server could not start", mend="see what it said above")


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    namespace: Annotated[
        list[str],
        typer.Option("--namespace", "-n", metavar="NAME", help="For which; '*' is all. May be repeated."),
    ],
    right: Annotated[
        list[str] | None,
        typer.Option("--right", help="read, write, admin; read and write if not said.", show_default=False),
    ] = None,
    expires: o.Expires = None,
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Make an API key. It is shown once, and only its hash is kept."""
    fresh = o.nothing_at(Config.load(store=store).store)  # then its encoder is chosen here, once and for all
    with o.open_memory(store, None if fresh else "none", None, create=True) as memory:
        made = memory.create_api_key(name, namespaces=namespace, rights=right or ("read", "write"), expires_at=expires)
    if json:
        output.emit(as_dict(made))
    else:
        typer.secho("Keep it now, it is not shown again:", err=True)
        print(made.secret)


@keys.command("list")
def list_(store: o.Store = None, json: o.Json = False) -> None:
    """List the API keys, without their secrets."""
    with o.open_memory(store, "none", None) as memory:
        found = memory.api_keys()
    if json:
        output.emit({"keys": [as_dict(each) for each in found]})
        return
    for each in found:
        print(_line(each))
    if not found:
        typer.secho("No API keys: a server answers programs on its own machine only.", err=True)


@keys.command("revoke")
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The id, as list prints it.")],
    store: o.Store = None,
    json: o.Json = False,
) -> None:
    """Have a key open nothing any more, from the next request on."""
    with o.open_memory(store, "none", None) as memory:
        revoked = memory.revoke_api_key(id)
    if json:
        output.emit(as_dict(revoked))
    else:
        print(_line(revoked))


def _line(key: ApiKey) -> str:
    state = "revoked" if key.revoked_at else "valid" if key.valid else "expired"
    about = (key.id, state, output.line(key.name, 40), ",".join(key.rights), ", ".join(key.namespaces))
    return "  ".join((*about, f"since {key.created_at:%Y-%m-%d}"))
