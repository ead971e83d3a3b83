"""The server behind the proxy: what is sent to it and what is not, and how its answer is passed on as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import quote

import httpx
from anyio import CancelScope
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Send

from memspan.access import KEY
from memspan.errors import InvalidInput, LLMError

CONNECTING: Final = 10.0  # seconds
SILENT: Final = 600.0  # seconds without a byte, as long as the openai client waits
KEPT: Final = 64  # connections that stay open
MOST_READ: Final = 32 << 20  # bytes of an answer that are kept to be read when it has ended
HOPS: Final = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
"""What concerns one connection only (RFC 9110, section 7.6.1)."""
OURS: Final = "x-memory"
KEPT_BACK: Final = HOPS | {"host", "content-length", "x-api-key", "cookie", "expect", "forwarded", "via"}
REPLACED: Final = HOPS | {"date", "server", "set-cookie"}
"""Of an answer: this server says these itself, and the cookies of another are not its own."""

Headers = list[tuple[bytes, bytes]]


class Upstream:
    """``base_url``: what ``/chat/completions`` is appended to. ``key``: sent in place of what a client sent.

    Connections stay open between requests. Raises InvalidInput.
    """

    def __init__(self, base_url: str, key: str | None) -> None:
        mend = "give one such as http://localhost:11434/v1"
        try:
            url = httpx.URL(base_url.rstrip("/"))
        except httpx.InvalidURL as error:
            raise InvalidInput("upstream", "is not an address", mend=mend) from error
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise InvalidInput("upstream", "is no plain http address", mend=mend)
        self._url = url
        self._key = key
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(SILENT, connect=CONNECTING),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=KEPT),
        )

    async def ask(self, request: Request, path: str, body: bytes, *, plain: bool = False) -> httpx.Response | None:
        """The beginning of the answer to ``request``, with ``body`` for its own; None where the client went away
        before. ``plain``: not compressed, so that it can be read. Raises LLMError.
        """
        query: bytes = request.scope["query_string"]
        whole = self._url.raw_path.rstrip(b"/") + quote(path).encode() + (b"?" + query if query else b"")
        asked = httpx.Request(
            request.method,
            self._url.copy_with(raw_path=whole),
            headers=self._headers(request.headers.raw, plain=plain),
            content=body if body or request.method == "POST" else None,
            extensions={"timeout": self._client.timeout.as_dict()},  # of a request that has no more than was sent
        )
        answer = asyncio.ensure_future(self._client.send(asked, stream=True))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await answer if answer.done() else None
        except httpx.HTTPError as error:
            late = isinstance(error, httpx.TimeoutException)
            problem = "did not answer in time" if late else f"cannot be asked ({type(error).__name__})"
            raise LLMError(f"{self._url} {problem}", mend="start it, or correct `memspan serve --proxy`") from error
        finally:
            for task in (answer, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, httpx.HTTPError):
                    await task

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _headers(self, given: Iterable[tuple[bytes, bytes]], *, plain: bool) -> Headers:
        """What of a request's headers goes on: nothing that concerns this server, and never a key of its own, in
        whatever header it came."""
        sent: Headers = []
        for name, value in given:
            kept = name.decode("latin-1").lower()
            replaced = (kept == "authorization" and self._key is not None) or (kept == "accept-encoding" and plain)
            if kept in KEPT_BACK or kept.startswith((OURS, "x-forwarded-")) or replaced:
                continue
            if not KEY.search(value.decode("latin-1")):
                sent.append((name, value))
        if self._key is not None:
            sent.append((b"authorization", b"Bearer " + self._key.encode()))
        if plain:
            sent.append((b"accept-encoding", b"identity"))
        return sent


class Passing(StreamingResponse):
    """The upstream's ``answer`` as it comes, byte for byte, with ``headers`` of our own besides.

    ``over`` is called once when no more is sent: with what came of the answer, and whether it came to its end.
    """

    def __init__(
        self, answer: httpx.Response, headers: Headers, over: Callable[[httpx.Response, bytes, bool], None] | None
    ) -> None:
        super().__init__((), answer.status_code)
        told = ((name.lower(), value) for name, value in answer.headers.raw)
        self.raw_headers = [*((name, value) for name, value in told if not _replaced(name.decode("latin-1"))), *headers]
        self._answer = answer
        self._over = over

    async def stream_response(self, send: Send) -> None:
        kept, size, whole = list[bytes](), 0, False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                size += len(chunk)
                if self._over is not None and size <= MOST_READ:
                    kept.append(chunk)
            whole = size <= MOST_READ
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if self._over is not None:
                self._over(self._answer, b"".join(kept), whole)
            with CancelScope(shield=True):
                await self._answer.aclose()


def _replaced(name: str) -> bool:
    return name in REPLACED or name.startswith(OURS)


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection; its request was read whole before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
