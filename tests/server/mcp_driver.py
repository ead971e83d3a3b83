"""The SDK's own client at a server of ours, driven from tests that are plain functions."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

import memspan
from memspan import Memory
from memspan.server.app import create_app
from memspan.server.door import Settings

RUN = "from memspan.cli import main; main()"


class Driver:
    """An open connection; ``called`` are the tools that were called over it."""

    def __init__(self, portal: BlockingPortal, client: Client) -> None:
        self.portal = portal
        self.client = client
        self.called: set[str] = set()

    def do(self, verb: str, *arguments: Any) -> Any:
        """What a method of the SDK's client returns."""
        return self.portal.call(getattr(self.client, verb), *arguments)

    def ask(self, tool: str, /, **arguments: Any) -> CallToolResult:
        """The whole answer of a tool."""
        self.called.add(tool)
        answer: CallToolResult = self.do("call_tool", tool, arguments)
        return answer

    def call(self, tool: str, /, **arguments: Any) -> Any:
        """What a tool gives; the test fails where it fails."""
        answer = self.ask(tool, **arguments)
        assert not answer.is_error, answer.content
        return answer.structured_content

    def error(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """How a tool fails: as its answer tells programs, with what it tells the model under ``text``."""
        answer = self.ask(tool, **arguments)
        assert answer.is_error
        assert answer.structured_content is None  # clients compare it with the schema of what does not fail
        assert answer.meta is not None
        return {**answer.meta["memspan/error"], "text": answer.content[0].text}  # type: ignore[union-attr]


@contextmanager
def driven(target: Any, **options: Any) -> Iterator[Driver]:
    """A client connected to ``target``: a server in this process, a transport, or a URL."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Client(target, **options)) as client:
        yield Driver(portal, client)


def on_stdio(store: Path, *options: str) -> Any:
    """The transport to ``memspan mcp serve`` in a process of its own."""
    return stdio_client(
        StdioServerParameters(
            command=sys.executable,
            args=["-c", RUN, "mcp", "serve", "--store", str(store), "--encoder", "hash", *options],
            env=environment(),
        )
    )


def environment(**more: str) -> dict[str, str]:
    """That of this process, in which another one finds this very memspan."""
    return {**os.environ, "PYTHONPATH": str(Path(memspan.__file__).parent.parent), **more}


@asynccontextmanager
async def over_http(url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Any]:
    """The transport to ``url``, with these headers in every request."""
    async with (
        httpx.AsyncClient(headers=headers, timeout=30) as http,
        streamable_http_client(url, http_client=http) as streams,
    ):
        yield streams


@contextmanager
def served(memory: Memory, **settings: Any) -> Iterator[str]:
    """A real server over ``memory`` at the URL this gives."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(memory, Settings(logs=False, **settings)), log_config=None, lifespan="on")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def said(answer: CallToolResult) -> Any:
    """The first text of an answer as JSON."""
    return json.loads(answer.content[0].text)  # type: ignore[union-attr]
