"""What can be seen of a server from outside: health, metrics for Prometheus, a log line and a span for each request.

None of them holds what is in memory or what was asked: of a request they tell the route, not the path or the query.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter
from fastapi.responses import Response
from opentelemetry import propagate, trace
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memspan.server.door import Door

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
REQUEST_ID: Final = "X-Request-ID"
_ID: Final = re.compile(r"[\w.:-]{1,128}")
MANY: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The directory in which several workers keep their counts together."""


class Health(BaseModel):
    """Whether the server answers, and whether its store does."""

    status: str


class Observing:
    """The counts of this process, and its log."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "memspan_request_seconds",
            "Time to answer a request",
            ("method", "route", "status"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tracer = trace.get_tracer("memspan")
        self.failures = Counter("memspan_failures_total", "Errors by kind", ("code",), registry=self.registry)

    def router(self) -> APIRouter:
        """The routes of health and metrics; they want no key and tell of no memory."""
        api = APIRouter(tags=["health"])

        @api.get("/health/live", response_model=Health, operation_id="live")
        async def live() -> Mapping[str, str]:
            """The process answers."""
            return {"status": "live"}

        @api.get("/health/ready", response_model=Health, operation_id="ready")
        async def ready() -> Mapping[str, str]:
            """The store can be read."""
            await self._door.call(None, self._door.memory.operations, limit=1)
            return {"status": "ready"}

        @api.get("/metrics", response_class=Response, operation_id="metrics")
        async def metrics() -> Response:
            """Counts and times, as Prometheus reads them."""
            registry = self.registry
            if MANY in os.environ:
                registry = CollectorRegistry()
                multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

        return api

    def tell(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        """Count a request that was answered, and log it."""
        route = _route(scope)
        self.requests.labels(scope["method"], route, str(status)).observe(seconds)
        if self._door.settings.logs:
            line = {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 1),
                "request": request_id,
            }
            print(json.dumps(line), file=sys.stderr, flush=True)

    @contextmanager
    def traced(self, scope: Scope) -> Iterator[trace.Span]:
        """A span around a request, below that of who asks. FastAPI's own would hold the path, the query and errors."""
        if not self._door.settings.traces:
            yield trace.INVALID_SPAN
            return
        above = propagate.extract(Headers(scope=scope))
        with self._tracer.start_as_current_span(
            scope["method"],
            context=above,
            kind=trace.SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    class Middleware:
        """Times every request, and gives it an id: its own where it comes with one."""

        def __init__(self, app: ASGIApp, observing: Observing) -> None:
            self._app = app
            self._observing = observing

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await self._app(scope, receive, send)
            given = Headers(scope=scope).get(REQUEST_ID, "")
            request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
            begun, status = time.perf_counter(), 500

            async def named(message: Message) -> None:
                nonlocal status, request_id
                if message["type"] == "http.response.start":
                    status = message["status"]
                    request_id = MutableHeaders(scope=message).setdefault(REQUEST_ID, request_id)  # an upstream's own
                await send(message)

            with self._observing.traced(scope) as span:
                try:
                    return await self._app(scope, receive, named)
                finally:
                    self._observing.tell(scope, status, time.perf_counter() - begun, request_id)
                    _name(span, scope, status, request_id)


def _route(scope: Scope) -> str:
    """The pattern of the path, never the path: that holds ids, and what people type."""
    route = scope.get("route")
    return str(getattr(route, "path", None) or "other")


def _name(span: trace.Span, scope: Scope, status: int, request_id: str) -> None:
    """What a span tells of its request, in OpenTelemetry's words for HTTP."""
    route = _route(scope)
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes(
        {
            "http.request.method": scope["method"],
            "http.route": route,
            "http.response.status_code": status,
            "memspan.request_id": request_id,
        }
    )
    if status >= 500:
        span.set_status(trace.StatusCode.ERROR)


@asynccontextmanager
async def exporting() -> AsyncIterator[None]:
    """Have spans sent to where OTEL_EXPORTER_OTLP_ENDPOINT says, until the end of the block. Needs extra ``otel``."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
