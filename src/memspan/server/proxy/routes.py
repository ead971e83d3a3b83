"""A request of an OpenAI client from top to bottom: admit, recall, ask the upstream, pass its answer on, remember."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote

import httpx
from fastapi import APIRouter, Request
from fastapi.responses import Response

from memspan.access import Right
from memspan.errors import InvalidInput, MemspanError, NotFound, StoreBusy
from memspan.records import Context
from memspan.routes import VERSION
from memspan.segmenting import shown
from memspan.server.door import Caller, Door
from memspan.server.proxy.dialects import DIALECTS, Dialect, Turn, query, said_anew
from memspan.server.proxy.upstream import Headers, Passing, Upstream

T = TypeVar("T")
log = logging.getLogger(__name__)

FORWARDED: Final = (
    "completions", "embeddings", "moderations", "rerank", "audio/speech", "audio/transcriptions", "audio/translations",
    "images/generations", "images/edits", "images/variations", "responses/input_tokens",
)  # fmt: skip
"""What is passed on without memory. Nothing that keeps a state at the upstream (files, batches, stored responses): with
one key for all clients, each would see the others'. And no path that is not named here: a mistyped one of this server's
own would carry memory to somebody else's."""
MODES: Final[Mapping[str, tuple[Right, ...]]] = {
    "on": ("read", "write"),
    "read": ("read",),
    "write": ("write",),
    "off": (),
}
"""What the header X-Memory can say: what is done with memory in this request."""
MOST_IDS: Final = 50  # in a header, of which others allow some 4 KB
READ: Final = 200_000  # characters of a conversation, its latest, that are not quoted to it again
GONE: Final = 499  # nobody reads this status, but logs and metrics tell it


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A request as it was read: its ``body``, its ``turns``, and whose memory it concerns."""

    body: dict[str, Any]
    turns: list[Turn]
    user_id: Any
    session: Any

    def whose(self, caller: Caller) -> tuple[str, str]:
        """The memory that it is remembered in, for a dict; what is no name is refused when it comes to that."""
        return (caller.namespace, repr(self.user_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """The request as it goes to the upstream, and what of memory is in it; ``error`` names what failed."""

    body: bytes
    context: Context | None = None
    error: str | None = None


def router(door: Door) -> APIRouter:
    """The routes of the proxy; they answer 404 where the settings name no upstream. They are OpenAI's to describe, and
    not part of the OpenAPI description of this server."""
    proxy = Proxy(door)
    api = APIRouter(prefix=VERSION, include_in_schema=False, lifespan=proxy.living)
    for dialect in DIALECTS:
        api.add_api_route(dialect.path, partial(proxy.converse, dialect), methods=["POST"], response_model=None)
    for path in FORWARDED:
        api.add_api_route(f"/{path}", partial(proxy.forward, f"/{path}"), methods=["POST"], response_model=None)
    api.add_api_route("/models", partial(proxy.forward, "/models"), methods=["GET"], response_model=None)
    api.add_api_route("/models/{model:path}", proxy.model, methods=["GET"], response_model=None)
    return api


class Proxy:
    """The memory between clients and an upstream."""

    def __init__(self, door: Door) -> None:
        self._door = door
        settings = door.settings
        self._upstream = None if settings.upstream is None else Upstream(settings.upstream, settings.upstream_key)
        self._late = set[asyncio.Task[Any]]()  # recalls that nobody waits for any more
        self._remembering: dict[tuple[str, str], asyncio.Task[None]] = {}  # the last of each user

    @asynccontextmanager
    async def living(self, app: object) -> AsyncIterator[None]:
        """Around the life of the application: what was said is remembered before it ends."""
        try:
            yield
        finally:
            while waiting := [*self._remembering.values(), *self._late]:
                await asyncio.wait(waiting)
            if self._upstream is not None:
                await self._upstream.close()

    async def converse(self, dialect: Dialect, request: Request) -> Response:
        """A request with memory."""
        mode = request.headers.get("x-memory", "on").strip().lower()
        if mode not in MODES:
            raise InvalidInput("X-Memory", f"there is no {shown(mode)}", mend=f"use one of {', '.join(MODES)}")
        caller = await self._door.admit(request, "write" if mode == "write" else "read")
        if mode == "on" and caller.key is not None and "write" not in caller.key.rights:
            mode = "read"
        budget = self._budget(request)
        upstream, body = self._known(), await request.body()
        begun = time.perf_counter()
        said = await self._door.call(caller, _read, dialect, body, request.headers.get) if MODES[mode] else None
        sent = Recalled(body=body)
        if said is not None and "read" in MODES[mode]:
            sent = await self._recalled(request, dialect, caller, said, sent, budget)
        headers = _told(mode, sent, time.perf_counter() - begun)
        answer = await upstream.ask(request, dialect.path, sent.body, plain=True)
        if answer is None:
            return Response(status_code=GONE)
        over = None
        if said is not None and "write" in MODES[mode] and answer.is_success:
            over = partial(self._remember, request, dialect, caller, said)
        return Passing(answer, headers, over)

    async def forward(self, path: str, request: Request) -> Response:
        """A request that has nothing to do with memory."""
        await self._door.admit(request, "read")
        answer = await self._known().ask(request, path, await request.body())
        return Response(status_code=GONE) if answer is None else Passing(answer, [], None)

    async def model(self, model: str, request: Request) -> Response:
        """What the upstream says of a model."""
        if not all(step.strip(".") for step in model.split("/")):  # "..": another of its paths
            raise NotFound(f"there is no model {shown(model)}", mend="GET /v1/models lists them")
        return await self.forward(f"/models/{model}", request)

    def _known(self) -> Upstream:
        if self._upstream is None:
            raise NotFound("this server has no upstream", mend="start it with `memspan serve --proxy URL`")
        return self._upstream

    def _budget(self, request: Request) -> int:
        given = request.headers.get("x-memory-budget")
        if given is None:
            return self._door.settings.recall_budget
        if not (given.isascii() and given.isdigit()):
            raise InvalidInput("X-Memory-Budget", f"{shown(given)} is not a whole number", mend="give tokens")
        self._door.within("budget", int(given))
        return int(given)

    # Recalling

    async def _recalled(
        self, request: Request, dialect: Dialect, caller: Caller, said: Said, sent: Recalled, budget: int
    ) -> Recalled:
        """The request with its memory; as it came, with what failed, where memory fails or takes too long."""
        asked = query(said.turns)
        if not asked:
            return sent
        try:
            return await self._in_time(self._recall(dialect, caller, said, sent, asked, budget))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with memory, the chat goes on
            return Recalled(body=sent.body, error=self._failed(request, "recall", error))

    async def _recall(
        self, dialect: Dialect, caller: Caller, said: Said, sent: Recalled, asked: str, budget: int
    ) -> Recalled:
        before = self._remembering.get(said.whose(caller))
        if before is not None:  # what this user said a moment ago is known when the next question comes
            await asyncio.wait({before})

        def recall() -> Recalled:
            context = self._door.memory.context(
                asked,
                budget=budget,
                namespace=caller.namespace,
                user_id=said.user_id,
                threshold=self._door.settings.recall_threshold,
                recipe=self._door.settings.recall_recipe,
                without=_latest(said.turns),
            )
            if not context.text:
                return Recalled(body=sent.body, context=context)
            changed = dialect.with_block(said.body, context.text)
            return Recalled(body=json.dumps(changed, separators=(",", ":")).encode(), context=context)

        return await self._door.call(caller, recall)

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives. Raises StoreBusy where it takes longer than a recall may; it then goes on unheard, and
        while half of all threads do, no other is begun."""
        if len(self._late) >= max(1, self._door.settings.threads // 2):
            work.close()
            raise StoreBusy("too many recalls have not come back", mend="see what holds the store")
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=self._door.settings.recall_timeout)
        if task.done():
            return task.result()
        self._late.add(task)
        task.add_done_callback(self._came_late)
        raise StoreBusy("the recall took too long", mend="see what holds the store, or allow it more time")

    def _came_late(self, task: asyncio.Task[Any]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # told as late already

    # Remembering

    def _remember(
        self, request: Request, dialect: Dialect, caller: Caller, said: Said, answer: httpx.Response, raw: bytes,
        whole: bool,
    ) -> None:  # fmt: skip
        """Have what was said remembered, after what the same user said before, while the client goes its way."""
        whose = said.whose(caller)
        before = self._remembering.get(whose)

        def remember() -> None:
            turns = [_message(turn) for turn in said_anew(said.turns)]
            told = _answered(dialect, answer, raw) if whole else None
            if told:
                model = said.body.get("model")
                about = {"model": model} if isinstance(model, str) else {}
                turns.append({"role": "assistant", "content": told, "metadata": about})
            if turns:
                self._door.memory.add(
                    turns, namespace=caller.namespace, user_id=said.user_id, session=said.session, wait=False
                )

        async def remembering() -> None:
            try:
                if before is not None:
                    await asyncio.wait({before})
                await self._door.call(caller, remember)
            except Exception as error:  # noqa: BLE001 - the answer was given; what failed is counted and logged
                self._failed(request, "capture", error)
            finally:
                if self._remembering.get(whose) is task:
                    del self._remembering[whose]

        task = self._remembering[whose] = asyncio.ensure_future(remembering())

    @staticmethod
    def _failed(request: Request, step: str, error: Exception) -> str:
        """Count and log an error, without what was said; its name."""
        name = type(error).__name__
        request.app.state.observing.failures.labels(name).inc()
        unforeseen = None if isinstance(error, MemspanError) else error
        log.warning("memspan: the proxy went on without memory, its %s failed: %s", step, name, exc_info=unforeseen)
        return name


def _read(dialect: Dialect, body: bytes, header: Any) -> Said | None:
    """The request in ``body``; None where it is none that can be read: what the upstream says of it is then told."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict) or not (turns := dialect.turns(read)):
        return None
    user, session = (header(f"x-memory-{name}") for name in ("user", "session"))
    conversation = read.get("conversation")
    return Said(
        body=read,
        turns=turns,
        user_id=unquote(user) if user is not None else read.get("user", read.get("safety_identifier")),
        session=unquote(session) if session is not None else conversation if isinstance(conversation, str) else None,
    )


def _latest(turns: list[Turn]) -> list[str]:
    """The texts of a conversation from its end, as far as they are looked through for what need not be quoted."""
    texts, left = list[str](), READ
    for turn in reversed(turns):
        left -= len(turn.text)
        if left < 0:
            break
        texts.append(turn.text)
    return texts


def _message(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": turn.text, "name": turn.name}


def _answered(dialect: Dialect, answer: httpx.Response, raw: bytes) -> str | None:
    """What the model said, where it came to its end; an upstream may compress though it was asked not to."""
    kind = answer.headers.get("content-type", "")
    try:
        plain = httpx.Response(200, headers=answer.headers, content=raw).content
    except httpx.DecodingError:
        return None
    read = dialect.answer(plain, events=kind.startswith("text/event-stream"))
    return read.text if read.ended and read.text.strip() else None


def _told(mode: str, sent: Recalled, seconds: float) -> Headers:
    """The headers by which a client sees what was done."""
    told = {"x-memory": mode, "x-memory-ms": f"{seconds * 1000:.1f}"}
    if sent.context is not None:
        ids = [id for citation in sent.context.citations for id in citation.ids]
        told["x-memory-tokens"] = str(sent.context.tokens)
        told["x-memory-segments"] = str(len(ids))
        told["x-memory-ids"] = ",".join(ids[:MOST_IDS])
    if sent.error is not None:
        told["x-memory-error"] = sent.error
    return [(name.encode(), value.encode()) for name, value in told.items()]
