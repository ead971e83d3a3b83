"""The application: every door over one memory, with its middleware, its health and its OpenAPI description."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memspan.errors import InvalidInput, MemspanError, NotFound, StoreBusy, TooLarge, TooManyRequests
from memspan.memory import Memory
from memspan.routes import HEADER, SPACE
from memspan.server import mcp, mem0, page, proxy, rest
from memspan.server.door import Door, Settings
from memspan.server.observing import Observing, exporting
from memspan.wire import PROBLEM, problem

ENVIRONMENT: Final = "MEMSPAN_SERVER"
"""What ``memspan serve`` tells its workers: the arguments of ``Memory`` and of ``Settings``, as JSON."""
IMPORT: Final = re.compile(f"{SPACE}/[^/]+/import")
"""Where the one body comes that may be as large as an archive."""
ABOUT: Final = """Long-term memory for language models. Scores are in [0, 1], higher is better; times are ISO 8601 in
UTC; errors are problems (RFC 9457) whose `code` names the error, `argument` what was wrong, and `mend` what to do."""


def create_app(memory: Memory, settings: Settings | None = None) -> FastAPI:
    """The server over ``memory``, which stays the caller's to close."""
    door = Door(memory, settings or Settings())
    observing = Observing(door)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for start in app.state.starts:
                await stack.enter_async_context(start())
            yield

    app = FastAPI(
        title="memspan",
        version=version("memspan"),
        description=ABOUT,
        docs_url=None,  # its page comes from a CDN
        redoc_url=None,
        lifespan=living,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # it would tell of paths and queries
        responses=_problems(),
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.observing = observing
    app.state.starts = []  # context managers that doors want around the life of the application
    for kind, respond in ((MemspanError, _told), (RequestValidationError, _unread), (HTTPException, _unknown)):
        app.add_exception_handler(kind, respond)
    app.add_middleware(_Limited, settings=door.settings)
    if door.settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(door.settings.cors),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "Idempotency-Key", "If-Match", HEADER],
            expose_headers=["ETag", "X-Request-ID"],
        )
    app.add_middleware(observing.Middleware, observing=observing)
    app.include_router(observing.router())
    app.include_router(rest.router(door))
    app.include_router(mem0.router(door))
    app.include_router(page.router(door))
    mcp.mount(app, door)
    app.include_router(proxy.router(door))
    _described(app)
    return app


def from_environment() -> FastAPI:
    """The server of one worker of ``memspan serve``; it opens its own memory, and closes it at the end."""
    told = json.loads(os.environ[ENVIRONMENT])
    memory = Memory(**told["memory"])
    settings: dict[str, Any] = {**told["settings"], "cors": tuple(told["settings"]["cors"])}
    chosen = Settings(**settings, upstream_key=os.environ.get("MEMSPAN_UPSTREAM_KEY"))
    app = create_app(memory, chosen)

    @asynccontextmanager
    async def closing() -> AsyncIterator[None]:
        try:
            yield
        finally:
            memory.close()

    app.state.starts.insert(0, closing)
    if chosen.traces:
        app.state.starts.append(exporting)
    return app


class _Limited:
    """Takes no larger body than the settings say, whether its length was told before or not.

    FastAPI's own limit would say so in plain text, and past the log.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        archive = IMPORT.fullmatch(scope["path"]) is not None
        most = self._settings.max_import if archive else self._settings.max_body
        left, length = most, Headers(scope=scope).get("content-length", "")

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413)
            return message

        if length.isdecimal() and int(length) > most:
            refused = await _unknown(Request(scope), HTTPException(413))
            return await refused(scope, receive, send)
        return await self._app(scope, counted, send)


async def _told(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MemspanError)  # noqa: S101 - what it is registered for
    told, headers = problem(error), {}
    request.app.state.observing.failures.labels(told["code"]).inc()
    if told["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, (TooManyRequests, StoreBusy)):
        headers["Retry-After"] = str(max(1, round(getattr(error, "retry_after", 1.0))))
    return JSONResponse(told, told["status"], headers, media_type=PROBLEM)


async def _unread(request: Request, error: Exception) -> JSONResponse:
    """What does not fit the description of the request, as the first thing that is wrong with it."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    first: Mapping[str, Any] = error.errors()[0]
    place = next((str(part) for part in first["loc"][1:]), "body")  # what is below it may name a type, not a place
    wrong = str(first["msg"])
    mend = "see /openapi.json for what this takes"
    return await _told(request, InvalidInput(place, wrong[:1].lower() + wrong[1:], mend=mend))


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    if error.status_code == 404:
        return await _told(request, NotFound(f"there is nothing at {request.url.path}", mend="see /openapi.json"))
    if error.status_code == 413:
        mend = "send less at once, or raise --max-body"
        return await _told(request, TooLarge("body", "is larger than this server takes", mend=mend))
    told = {"type": "about:blank", "title": str(error.detail), "status": error.status_code, "code": "HTTP"}
    told |= {"detail": str(error.detail), "mend": "see /openapi.json", "argument": None}
    return JSONResponse(told, error.status_code, error.headers, media_type=PROBLEM)


def _problems() -> dict[int | str, dict[str, Any]]:
    """How every error is answered, for the OpenAPI description."""
    properties = {name: {"type": "string"} for name in ("type", "title", "code", "detail", "mend")}
    schema = {
        "type": "object",
        "title": "Problem",
        "required": [*properties, "status"],
        "properties": {
            **properties,
            "status": {"type": "integer"},
            "argument": {"type": ["string", "null"]},
        },
    }
    return {"default": {"description": "A problem", "content": {PROBLEM: {"schema": schema}}}}


def _described(app: FastAPI) -> None:
    """Have the OpenAPI description say what the verbs answer and how keys are sent."""
    made = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = made()
            schemes = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            rest.describe(told)
            told["components"]["securitySchemes"] = schemes
            told["security"] = [{"bearer": []}, {"key": []}, {}]
            for path in told["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            app.openapi_schema = told
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
