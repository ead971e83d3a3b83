"""``Door``: what every way into the server stands on: the memory, the limits, and who is let in to which namespace."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from memspan import arguments
from memspan.access import EVERY, ApiKey, Right
from memspan.errors import AccessDenied, InvalidInput, TooManyRequests, Unauthorized
from memspan.memory import Memory
from memspan.routes import HEADER, OWN

P = ParamSpec("P")
T = TypeVar("T")

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers by which a reverse proxy tells that somebody else is asking."""
LONG: Final = 8  # calls at once that may take long, and must not keep the quick ones waiting
BUCKETS: Final = 10_000  # callers of which it is remembered how often they asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server behaves. Sizes in bytes, times in seconds.

    ``local``: it listens on loopback only, so that without any API key whoever is on this machine may use it.
    ``rate``: requests a minute and caller, 0 for any number. ``cors``: origins that a browser may ask from.
    ``namespace``: the one used where neither URL, header nor key name one. ``threads``: quick calls at once, as more
    only take the interpreter's lock from each other.
    ``upstream``: the base URL that the proxy asks, such as ``http://localhost:11434/v1``, with ``upstream_key``.
    What it recalls, by ``recall_recipe``, has at most ``recall_budget`` tokens, each segment a score of at least
    ``recall_threshold``, and is waited for ``recall_timeout`` seconds at most.
    ``mcp_profile``: the tools at ``/mcp``. ``logs``: a line of JSON for each request, on stderr. ``traces``: spans by
    OpenTelemetry.
    """

    local: bool = True
    max_body: int = 16 << 20
    max_import: int = 4 << 30
    max_k: int = 1_000
    max_limit: int = 10_000
    max_budget: int = 1_000_000
    rate: int = 0
    cors: tuple[str, ...] = ()
    namespace: str = "default"
    threads: int = 2
    upstream: str | None = None
    upstream_key: str | None = field(default=None, repr=False)
    recall_budget: int = 500
    recall_threshold: float = 0.0
    recall_recipe: str = "flat"
    recall_timeout: float = 1.0
    mcp_profile: str = "default"
    logs: bool = True
    traces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, for which namespace; ``key`` is None on a server without keys."""

    namespace: str
    key: ApiKey | None = None

    @property
    def name(self) -> str | None:
        """The name of the key."""
        return None if self.key is None else self.key.name


class Door:
    """The memory behind a server, and the way to it. One for each process."""

    def __init__(self, memory: Memory, settings: Settings) -> None:
        self.memory = memory
        self.settings = settings
        self._limiter = CapacityLimiter(settings.threads)
        self._patient = CapacityLimiter(LONG)
        self._asked: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def admit(self, request: Request, right: Right | None, namespace: str | None = None) -> Caller:
        """Who asks, where the key allows that: it comes as ``Authorization: Bearer`` or ``X-API-Key``.

        ``right`` None: what is asked for shows only later, and ``allow`` is asked then. ``namespace`` is what the URL
        names; None, or "-": that of the header X-Memory-Namespace, else the only one the key is for, else that of the
        settings. Raises Unauthorized, AccessDenied, TooManyRequests, InvalidInput.
        """
        key = self.identify(request)
        caller = Caller(namespace=self._space(request, key, namespace), key=key)
        if key is not None:
            if not key.reaches(caller.namespace):
                problem = f"the API key {key.name!r} is not for namespace {caller.namespace!r}"
                raise AccessDenied(problem, mend="use a key for it: `memspan keys create --namespace NAME`")
            if right is not None:
                self.allow(key, right)
        return caller

    async def admit_whole(self, request: Request, right: Right = "admin") -> Caller:
        """Who asks about the whole store: that needs a key for every namespace. Raises as ``admit``."""
        key = self.identify(request)
        if key is not None:
            if EVERY not in key.namespaces:
                problem = f"the API key {key.name!r} is not for the whole store"
                raise AccessDenied(problem, mend="use a key made with --namespace '*'")
            self.allow(key, right)
        return Caller(namespace=self.settings.namespace, key=key)

    def identify(self, request: Request) -> ApiKey | None:
        """The key that a request came with; None on a server without keys. Raises Unauthorized, AccessDenied,
        TooManyRequests."""
        secret = secret_of(request)
        key = None if secret is None else self.memory.api_key(secret)
        if key is None and self.memory.api_keys():
            problem = "this server wants an API key" if secret is None else "the API key is not valid"
            raise Unauthorized(problem, mend="send one as `Authorization: Bearer KEY`; `memspan keys create` makes one")
        if key is None:
            self._at_home(request)
        self._count(key.id if key is not None else request.client.host if request.client else "")
        return key

    @staticmethod
    def allow(key: ApiKey | None, right: Right) -> None:
        """Raises AccessDenied where ``key`` does not have that right."""
        if key is not None and right not in key.rights:
            mend = f"use a key made with --right {right}"
            raise AccessDenied(f"the API key {key.name!r} has no right to {right}", mend=mend)

    async def call(self, caller: Caller | None, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T:
        """What ``function`` returns, run in a worker thread, in the name of ``caller``."""
        return await to_thread.run_sync(partial(self._as, caller, function, *args, **keywords), limiter=self._limiter)

    async def labour(
        self, caller: Caller | None, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs
    ) -> T:
        """``call``, for what may take as long as the store is large."""
        return await to_thread.run_sync(partial(self._as, caller, function, *args, **keywords), limiter=self._patient)

    def _as(self, caller: Caller | None, function: Callable[P, T], /, *args: P.args, **keywords: P.kwargs) -> T:
        with self.memory.acting_as(None if caller is None else caller.name):
            return function(*args, **keywords)

    def within(self, argument: str, value: int) -> None:
        """Raises InvalidInput where ``k``, ``limit`` or ``budget`` is more than this server gives."""
        most = getattr(self.settings, f"max_{argument}")
        if value > most:
            raise InvalidInput(argument, f"is over {most:,}, the most that this server gives", mend=f"give {most:,}")

    def _space(self, request: Request, key: ApiKey | None, namespace: str | None) -> str:
        if namespace not in (None, OWN):
            named = namespace
        elif (header := request.headers.get(HEADER)) is not None:
            named = unquote(header)
        elif key is not None and len(key.namespaces) == 1 and key.namespaces[0] != EVERY:
            named = key.namespaces[0]
        else:
            named = self.settings.namespace
        return arguments.scope(named or "", None, None, None, None).namespace

    def _at_home(self, request: Request) -> None:
        """Without keys only this machine is served, and no page of another origin that its browser shows: neither a
        foreign Host (a name made to point here) nor a foreign Origin is, nor whom a reverse proxy speaks for."""
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname
        origin = request.headers.get("origin")
        foreign = origin is not None and urlsplit(origin).hostname not in LOOPBACK and origin not in self.settings.cors
        passed_on = any(name in request.headers for name in FORWARDED)
        if not self.settings.local or host not in LOOPBACK or foreign or passed_on:
            problem = "without API keys this server only answers programs on its own machine"
            raise Unauthorized(problem, mend="make a key: `memspan keys create NAME --namespace NAMESPACE`")

    def _count(self, who: str) -> None:
        """A token bucket that fills in a minute. Raises TooManyRequests where it is empty."""
        if not self.settings.rate:
            return
        per_second, now = self.settings.rate / 60, time.monotonic()
        left, then = self._asked.pop(who, (float(self.settings.rate), now))
        left = min(float(self.settings.rate), left + (now - then) * per_second)
        self._asked[who] = (max(0.0, left - 1.0), now)
        while len(self._asked) > BUCKETS:
            self._asked.popitem(last=False)
        if left < 1.0:
            mend = "wait, or start the server with a higher --rate"
            error = TooManyRequests(f"more than {self.settings.rate} requests a minute", mend=mend)
            error.retry_after = (1.0 - left) / per_second
            raise error


def secret_of(request: Request) -> str | None:
    """The API key that a request came with: as X-API-Key, else as a bearer token (mem0's client says Token)."""
    if (given := request.headers.get("x-api-key")) is not None:
        return given.strip()
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() in ("bearer", "token") and token.strip() else None
