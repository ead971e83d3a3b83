"""``Remote``: what ``Memory("http://HOST:PORT")`` is: the same calls, answered by the memory of a server.

Every verb sends its arguments as ROUTES say and returns what the server's ``Memory`` returned; its errors are raised
here as if that were here. ``AsyncMemory`` is the same to be awaited.
"""

from __future__ import annotations

import base64
import functools
import inspect
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from numbers import Integral, Real
from typing import Any, Final, NoReturn, Self, get_type_hints
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import NDArray

from memspan import archives, arguments
from memspan.config import Config
from memspan.endpoint import retry_after
from memspan.errors import (
    InvalidInput,
    MemspanError,
    NotFound,
    StoreBusy,
    StoreClosed,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unreachable,
)
from memspan.memory import Memory
from memspan.reading import read_file
from memspan.records import Added, Segment
from memspan.reports import BackedUp, Exported, Imported
from memspan.revising import named
from memspan.routes import EXPORTED, HEADER, OWN, ROUTES, SPACE, SWEEPING, VERSION, Route
from memspan.segmenting import check_text
from memspan.wire import PROBLEM, decode, encode, raised

KEY: Final = "MEMSPAN_SERVER_KEY"
"""The variable that holds the API key of a server."""
TIMEOUT: Final = 60.0  # seconds without a byte; care of a large store takes longer and says so with timeout=
LONGEST_WAIT: Final = 10.0
RETRIES: Final = 3
HERE: Final = frozenset({"tokenizer", "encoder", "llm", "archive"})
"""Arguments that name functions, files or servers of where the store is."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]{0,254}")
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_SERVERS: Final = ("encoder", "tokens", "reranker", "tokenizer", "redact", "actor")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """One request: the path below the server's address, and what goes with it."""

    route: Route
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: httpx.QueryParams = field(default_factory=httpx.QueryParams)
    body: Any = None


class Remote(Memory):
    """The memory of a server. ``key`` is an API key of it, as ``memspan keys create`` makes one; None is that of the
    variable MEMSPAN_SERVER_KEY. It is sent to that server only. ``timeout``: seconds without an answer.

    Where nothing was done, or the same asked twice does the same, a request is repeated after a lost connection or when
    the server is busy. What only makes sense where the store is (``backup``, an encoder or a tokenizer of one's own)
    raises StoreError or InvalidInput. Raises Unreachable, Unauthorized, AccessDenied, TooManyRequests besides what
    ``Memory`` raises.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str | None = None,
        key: str | None = None,
        timeout: float = TIMEOUT,
        config: Config | None = None,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if name not in _SERVERS:
                raise TypeError(f"Memory({url!r}) got an unexpected keyword argument {name!r}")
            if value not in (None, "auto"):
                raise InvalidInput(name, "is what the server was started with", mend=f"start it with that {name}")
        named = (config or Config.load()).namespace if namespace is None else namespace
        self.namespace = arguments.scope(named, None, None, None, None).namespace
        self.path = None
        self.url, headers = _address(url), _headers(key)
        self._closed = False
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, limits=_LIMITS)

    def add_file(self, path: str | os.PathLike[str], **given: Any) -> Added:
        """As ``Memory.add_file``; the file is read here, and its text sent."""
        file = arguments.path(path)
        document = read_file(file)
        text = check_text(document.text, "path")
        return self.add_document(text, uri=file.resolve().as_uri(), title=document.title, media=document.media, **given)

    def export_to(self, path: str | os.PathLike[str], format: str | None = None, **given: Any) -> Exported:
        """As ``Memory.export_to``, in one file; the archive is made there and written here."""
        target = arguments.path(path)
        chosen = archives.for_writing(target, format)
        if not chosen.suffixes:
            raise InvalidInput("format", f"{chosen.name} is a folder", mend="use jsonl, cube or parquet")
        ask = self._asked(_route("export_to", "GET", "/export"), given)
        ask = replace(ask, query=ask.query.set("format", chosen.name))
        handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file, self._streaming(ask) as response:
                done: Exported = decode(Exported, json.loads(response.headers[EXPORTED]))
                for chunk in response.iter_bytes():
                    file.write(chunk)
            os.replace(aside, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(aside)
        return replace(done, path=str(target))

    def import_from(self, path: str | os.PathLike[str], format: str | None = None, **given: Any) -> Imported:
        """As ``Memory.import_from``, from one file, which is sent there."""
        source = arguments.path(path)
        chosen = archives.of(source, format)
        if not source.is_file():
            raise InvalidInput("path", f"{source} is no single file", mend="import it where the store is")
        ask = self._asked(_route("import_from", "GET", "/import"), given)
        with source.open("rb") as file:
            headers = {**ask.headers, "Content-Type": "application/octet-stream"}
            query = ask.query.set("format", chosen.name)
            response = self._send(lambda: self._client.post(ask.path, params=query, headers=headers, content=file))
        done: Imported = decode(Imported, _answered(response))
        return replace(done, path=str(source))

    def embeddings(self, **given: Any) -> tuple[list[Segment], NDArray[np.float32]]:
        """As ``Memory.embeddings``, of at most so many as the server gives at once."""
        told = self._done(self._asked(_route("embeddings", "GET", "/embeddings"), given))
        flat = np.frombuffer(base64.b64decode(told["vectors"]), "<f4").astype(np.float32)
        return decode(list[Segment], told["segments"]), flat.reshape(-1, told["dim"])

    def backup(self, path: str | os.PathLike[str], **given: Any) -> BackedUp:
        """Raises StoreError: a backup is made where the store is."""
        raise StoreError("a backup is made where the store is", mend="run `memspan backup` on that machine")

    def api_key(self, secret: str) -> NoReturn:
        """Raises StoreError: a server tells nobody of what a secret is the key."""
        raise StoreError("a server does not tell of secrets", mend="ask where the store is")

    def acting_as(self, actor: str | None) -> NoReturn:
        """Raises StoreError: ``operations`` names the API key that was used."""
        raise StoreError("the server knows who acts by the API key", mend="make a key for each who acts")

    def close(self) -> None:
        """Close the connections. Calling it twice does nothing."""
        if not self._closed:
            self._closed = True
            self._client.close()

    def __repr__(self) -> str:
        return f"<Memory {self.url!r} namespace={self.namespace!r}>"

    def _asked(self, route: Route, given: Mapping[str, Any]) -> _Ask:
        if self._closed:
            raise StoreClosed("this memory was closed", mend="open a new Memory on the same address")
        return _asked(route, given, self.namespace)

    def _call(self, route: Route, given: Mapping[str, Any]) -> Any:
        return _returned(route, self._done(self._asked(route, given)))

    def _done(self, ask: _Ask) -> Any:
        options: dict[str, Any] = {"params": ask.query, "headers": ask.headers}
        if ask.route.body:
            options["json"] = ask.body
        return _answered(
            self._send(lambda: self._client.request(ask.route.method, ask.path, **options), again=ask.route.retry)
        )

    def _send(self, send: Callable[[], httpx.Response], *, again: bool = False) -> httpx.Response:
        attempt = 0
        while True:
            try:
                response = send()
            except httpx.HTTPError as error:
                wait = _lost(self.url, attempt, error, again)
            else:
                if (busy := _busy(response, attempt)) is None:
                    return response
                wait = busy
            time.sleep(wait)
            attempt += 1

    def _streaming(self, ask: _Ask) -> AbstractContextManager[httpx.Response]:
        return _Streaming(self, ask)


class _Streaming:
    """An answer that is read as it comes. Raises what a server told instead."""

    def __init__(self, remote: Remote, ask: _Ask) -> None:
        self._remote = remote
        self._opened = remote._client.stream("GET", ask.path, params=ask.query, headers=ask.headers)

    def __enter__(self) -> httpx.Response:
        try:
            response = self._opened.__enter__()
        except httpx.HTTPError as error:
            raise _unreachable(self._remote.url, error) from error
        if response.status_code != 200:
            response.read()
            _answered(response)
        return response

    def __exit__(self, *about: Any) -> None:
        self._opened.__exit__(*about)
        if isinstance(about[1], httpx.HTTPError):
            raise _unreachable(self._remote.url, about[1]) from about[1]


class AsyncMemory:
    """The memory of a server, for programs that await: every verb of ``Memory`` that goes over HTTP, as a coroutine.

        async with AsyncMemory("http://localhost:8767") as memory:
            await memory.add("Ana lives in Porto.")

    ``namespace``, ``key``, ``timeout`` and errors: as in ``Remote``.
    """

    def __init__(
        self, url: str, *, namespace: str | None = None, key: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        named = Config.load().namespace if namespace is None else namespace
        self.namespace = arguments.scope(named, None, None, None, None).namespace
        self.url, headers = _address(url), _headers(key)
        self._client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, limits=_LIMITS)

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        route = _BY_VERB.get(verb)
        if route is None:
            raise AttributeError(f"AsyncMemory has no {verb!r}")
        return functools.partial(self._call, route)

    async def _call(self, route: Route, *args: Any, **keywords: Any) -> Any:
        import asyncio

        if self._client.is_closed:
            raise StoreClosed("this memory was closed", mend="make a new AsyncMemory on the same address")
        ask = _asked(route, _bound(route, args, keywords), self.namespace)
        options: dict[str, Any] = {"params": ask.query, "headers": ask.headers}
        if route.body:
            options["json"] = ask.body
        attempt = 0
        while True:
            try:
                response = await self._client.request(route.method, ask.path, **options)
            except httpx.HTTPError as error:
                wait = _lost(self.url, attempt, error, route.retry)
            else:
                if (busy := _busy(response, attempt)) is None:
                    return _returned(route, _answered(response))
                wait = busy
            await asyncio.sleep(wait)
            attempt += 1

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()


_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20)
_BY_VERB: Final = {route.verb: route for route in ROUTES}


def _address(url: str) -> str:
    mend = "give one such as http://localhost:8767"
    try:
        parsed = httpx.URL(url.rstrip("/"))
    except httpx.InvalidURL as error:
        raise InvalidInput("path", f"{url!r} is no address", mend=mend) from error
    if parsed.userinfo or parsed.query or parsed.fragment or not parsed.host:
        raise InvalidInput("path", "the address holds more than a host, a port and a path, or no host", mend=mend)
    return str(parsed)


def _headers(key: str | None) -> dict[str, str]:
    given = os.environ.get(KEY) if key is None else key
    if not given:
        return {}
    if not given.startswith("ms_") or not given.isascii():  # a passphrase must not be sent anywhere
        raise InvalidInput("key", "is no API key", mend="`memspan keys create` makes one: it begins with ms_")
    return {"Authorization": f"Bearer {given}"}


def _route(verb: str, method: Any, path: str) -> Route:
    return Route(verb=verb, method=method, path=path, right="read", retry=True)


def _bound(route: Route, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    bound = _signature(route.verb).bind(None, *args, **keywords).arguments
    bound.pop("self")
    return bound


@functools.cache
def _signature(verb: str) -> inspect.Signature:
    return inspect.signature(getattr(Memory, verb))


@functools.cache
def _answer_type(verb: str) -> Any:
    return get_type_hints(getattr(Memory, verb))["return"]


def _asked(route: Route, given: Mapping[str, Any], namespace: str) -> _Ask:
    """The request that asks a server for what a call of a verb with these arguments would do."""
    told, headers = dict(given), dict[str, str]()
    space = told.pop("namespace", None)
    arguments.progress(told.pop("progress", None))
    if route.verb in SWEEPING and told.get("id") is None:
        whose = {name: told.get(name) for name in ("user_id", "agent_id", "run_id", "session")}
        named(arguments.scope(space or namespace, **whose), space, told.get("filters"), route.verb)
        told["all"] = True
    space = arguments.scope(namespace if space is None else space, None, None, None, None).namespace
    for name in [name for name in told if name in HERE or (route.verb, name) == ("extract", "budget")]:
        default = _signature(route.verb).parameters[name].default
        if told.pop(name) is not default:
            raise InvalidInput(name, "cannot be sent to a server", mend="leave it out: the server's own is used")
    path = VERSION if route.whole else f"{SPACE}/{space}"
    if not route.whole and not _PLAIN.fullmatch(space):
        path, headers[HEADER] = f"{SPACE}/{OWN}", quote(space, safe="")
    for part in route.path.split("/")[1:]:
        if part.startswith("{"):
            name = part[1:-1]
            part = told.pop(name)
            if not isinstance(part, str) or not _ID.fullmatch(part):
                what = "operation" if name == "operation" else "segment"
                raise NotFound(f"no {what} {part!r} in namespace {space!r}", mend="check the id and the namespace")
        path += f"/{part}"
    sent = {name: _json(name, value) for name, value in told.items()}
    if route.body:
        return _Ask(route=route, path=path, headers=headers, body=sent)
    query: list[tuple[str, Any]] = [(name, _worded(each)) for name, value in sent.items() for each in _several(value)]
    return _Ask(route=route, path=path, headers=headers, query=httpx.QueryParams(query))


def _json(name: str, value: Any) -> Any:
    """``value`` as JSON can say it. Raises InvalidInput."""
    if value is None or isinstance(value, (str, bool)):
        if isinstance(value, str):
            arguments.encodable(name, value)
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if float(value) in (float("inf"), float("-inf")) or value != value:
            raise InvalidInput(name, f"is {value}", mend="give a finite number")
        return float(value)
    if isinstance(value, date):  # and so a datetime
        return value.isoformat()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(name, f"has the key {key!r}, which is no string", mend="use strings as keys")
        return {key: _json(f"{name}.{key}", item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {key: item for key, item in encode(value).items() if item not in (None, {})}
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds()) / 86_400  # as older_than counts, in days
    if hasattr(value, "__iter__") and not isinstance(value, (bytes, bytearray)):
        return [_json(name, item) for item in value]
    raise InvalidInput(name, f"is a {type(value).__name__}, which JSON cannot say", mend="give text, numbers or lists")


def _several(value: Any) -> list[Any]:
    """The values of a query; a list of one goes as JSON, so that it is not taken for its item."""
    if isinstance(value, list):
        return value if len(value) > 1 else [json.dumps(value)]
    return [] if value is None else [value]


def _worded(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _answered(response: httpx.Response) -> Any:
    """The JSON of an answer. Raises the error that it tells of."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    failure: MemspanError | None = None
    with suppress(ValueError, AttributeError):
        told = response.json()
        if response.is_success and kind == "application/json":
            return told
        if kind == PROBLEM:
            failure = raised(told, _asks_for(response))
    if failure is not None:
        raise failure
    if response.status_code == 413:  # by what comes before any route, here or in a reverse proxy
        raise TooLarge("request", "is larger than this server takes", mend="send less at once, or raise --max-body")
    problem = f"{response.url.copy_with(query=None)} answered {response.status_code}, not as a server of memspan"
    raise Unreachable(problem, mend="check the address; `memspan serve` prints the one it listens on")


def _returned(route: Route, told: Any) -> Any:
    try:
        found = told if route.answer is None else told[route.answer]
        kind = _answer_type(route.verb)
        return None if kind is type(None) else decode(kind, found)
    except (KeyError, TypeError, ValueError) as error:
        problem = f"the server's answer to {route.verb} cannot be read ({error})"
        raise Unreachable(problem, mend="install the same version of memspan on both sides") from error


def _lost(url: str, attempt: int, error: httpx.HTTPError, again: bool) -> float:
    """Seconds to wait before asking again where no answer came. Raises Unreachable where that is not safe, or was
    tried often enough."""
    if attempt == RETRIES or not (again or isinstance(error, httpx.ConnectError)):
        raise _unreachable(url, error) from error
    return _pause(attempt)


def _busy(response: httpx.Response, attempt: int) -> float | None:
    """Seconds to wait before asking again where nothing was done for this answer, None where it is the answer."""
    if response.status_code not in (429, 503) or attempt == RETRIES:
        return None
    try:
        _answered(response)
    except (TooManyRequests, StoreBusy):
        asked = _asks_for(response)
        return max(asked, _pause(attempt)) if asked <= LONGEST_WAIT else None
    except MemspanError:
        pass
    return None


def _asks_for(response: httpx.Response) -> float:
    """Seconds that a server asks to wait, 1 where it does not say."""
    return retry_after(response.headers.get("Retry-After", "1"))


def _pause(attempt: int) -> float:
    longest: float = min(LONGEST_WAIT, 0.1 * 2**attempt)
    return longest * random.uniform(0.5, 1.0)


def _unreachable(url: str, error: httpx.HTTPError) -> Unreachable:
    late = isinstance(error, httpx.TimeoutException)
    told = "did not answer in time" if late else f"cannot be reached ({error or type(error).__name__})"
    mend = "give a longer timeout=" if late else "start it with `memspan serve`, or correct the address"
    return Unreachable(f"the server at {url} {told}", mend=mend)


def _verb(route: Route) -> Callable[..., Any]:
    @functools.wraps(getattr(Memory, route.verb))
    def call(self: Remote, *args: Any, **keywords: Any) -> Any:
        return self._call(route, _bound(route, args, keywords))

    return call


for _each in ROUTES:
    setattr(Remote, _each.verb, _verb(_each))
