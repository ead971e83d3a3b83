"""REST: every verb of ``Memory`` under ``/v1``, made from ROUTES, and the few that move files."""

from __future__ import annotations

import base64
import inspect
import json
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from anyio import open_file
from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from memspan import archives
from memspan.access import EVERY
from memspan.errors import InvalidInput, NotFound
from memspan.records import Segment
from memspan.reports import Imported
from memspan.routes import EXPORTED, LONG, ROUTES, SPACE, SWEEPING, VERSION, Route
from memspan.server import schema
from memspan.server.door import Caller, Door
from memspan.wire import encode

CHUNK: Final = 1 << 20
BELOW: Final = f"{SPACE}/{{namespace}}"
TAGS: Final[Mapping[str, str]] = {"read": "recall", "write": "remember", "admin": "care"}
Tag = Annotated[
    str | None, Header(description='Only where that is the version now, as "3"; ETag of an answer gives it.')
]
Once = Annotated[str | None, Header(description="Makes a retry safe: the same key is carried out once.")]


class Space(BaseModel):
    """A namespace, and how many segments and tokens are current in it."""

    name: str
    segments: int
    tokens: int
    pending: int


class Spaces(BaseModel):
    """The namespaces that the key is for."""

    namespaces: list[Space]


class Deleted(BaseModel):
    """How many segments were deleted."""

    deleted: int


class Embeddings(BaseModel):
    """Segments and their vectors: little-endian float32[n, dim] in base64."""

    segments: list[Segment]
    dim: int
    vectors: str


def router(door: Door) -> APIRouter:
    """The routes of REST."""
    api = APIRouter()
    for route in ROUTES:
        api.add_api_route(
            _path(route),
            _endpoint(door, route),
            methods=[route.method],
            response_model=None,
            status_code=route.status,
            summary=route.verb.replace("_", " "),
            description=(inspect.getdoc(getattr(type(door.memory), route.verb)) or "").replace("``", "`"),
            operation_id=route.verb,
            tags=[TAGS[route.right]],
        )
    _spaces(api, door)
    _files(api, door)
    return api


def describe(told: dict[str, Any]) -> None:
    """Have an OpenAPI description tell what each route answers; as models of FastAPI they would cost at each start."""
    answers = {(_path(route), route.method, str(route.status)): schema.given(route) for route in ROUTES}
    answers |= {(f"{BELOW}/import", "POST", "200"): Imported, (f"{BELOW}/embeddings", "GET", "200"): Embeddings}
    made, definitions = schema.described(answers)
    if twice := definitions.keys() & told["components"]["schemas"].keys():
        raise TypeError(f"two schemas are called {min(twice)}")
    told["components"]["schemas"] |= definitions
    for (path, method, status), answered in made.items():
        content = {"application/json": {"schema": answered}}
        told["paths"][path][method.lower()]["responses"][status] = {"description": "Done", "content": content}


def answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of what ``encode`` can tell."""
    content = json.dumps(encode(value), ensure_ascii=False, separators=(",", ":"))
    return Response(content.encode("utf-8", "backslashreplace"), status, headers, media_type="application/json")


def _endpoint(door: Door, route: Route) -> Any:
    """The function that answers a route, with the signature that FastAPI reads."""
    function = getattr(door.memory, route.verb)
    model = schema.taken(route.verb, tuple(_inside(route.path)), route.body)

    async def respond(request: Request, asked: BaseModel, **named: Any) -> Response:
        if route.whole:
            caller, space = await door.admit_whole(request, route.right), {}
        else:
            caller = await door.admit(request, route.right, named.pop("namespace"))
            space = {"namespace": caller.namespace}
        given = schema.sent(asked)
        named = {name: value for name, value in named.items() if value is not None}
        if "if_match" in named:
            given["if_version"] = _version(named.pop("if_match"))
        for limit in ("k", "limit", "budget"):
            if limit in given and given[limit] is not None:
                door.within(limit, given[limit])
        if route.verb in SWEEPING and not (given.pop("all", False) or _named(given)):
            mend = 'name user_id, agent_id, run_id, session or filters, or say "all": true'
            raise InvalidInput("scope", f"{route.verb} would remove the whole namespace", mend=mend)
        given |= {**named, **space}  # a header goes before the body
        limit = given.get("limit", _PAGE)

        def told() -> Response:  # in the worker thread too: a long answer must not keep others from being heard
            return _told(route, function(**given), limit)

        return await (door.labour if route.whole or route.verb in LONG else door.call)(caller, told)

    asked = Annotated[model, Body()] if route.body else Annotated[model, Query()]
    needed = any(field.is_required() for field in model.model_fields.values())
    named = dict.fromkeys((*(() if route.whole else ("namespace",)), *_inside(route.path)), (str, ...))
    headers = {"update": {"if_match": (Tag, None)}, "add": {"idempotency_key": (Once, None)}}.get(route.verb, {})
    return _signed(respond, asked=(asked, ... if needed else model()), **named, **headers)


_PAGE: Final = 100


def _path(route: Route) -> str:
    return (VERSION if route.whole else BELOW) + route.path


def _named(given: Mapping[str, Any]) -> bool:
    """Whether something says which part of a namespace is meant."""
    return bool(given.get("filters")) or any(
        given.get(name) is not None for name in ("id", "user_id", "agent_id", "run_id", "session")
    )


def _signed(function: Any, **parameters: tuple[Any, Any]) -> Any:
    """``function``, telling FastAPI of these parameters: the type and the default of each, ... for none."""
    function.__signature__ = inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if default is ... else default,
                annotation=kind,
            )
            for name, (kind, default) in {"request": (Request, ...), **parameters}.items()
        ]
    )
    return function


def _inside(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _version(tag: str) -> int:
    """The version that an entity tag (RFC 9110, 8.8.3) names. Raises InvalidInput."""
    try:
        return int(tag.strip().removeprefix("W/").strip('"'))
    except ValueError:
        mend = "send the ETag that came with the segment"
        raise InvalidInput("If-Match", f"{tag[:40]!r} is no version", mend=mend) from None


def _told(route: Route, found: Any, limit: int) -> Response:
    headers = {"ETag": f'"{found.version}"'} if isinstance(found, Segment) else None
    if route.answer is None:
        return answer(found, status=route.status, headers=headers)
    told: dict[str, Any] = {route.answer: True if found is None else found}
    if route.verb in schema.PAGED:
        told["next"] = found[-1].id if len(found) == limit else None
    return answer(told, status=route.status, headers=headers)


def _spaces(api: APIRouter, door: Door) -> None:
    @api.get(SPACE, response_model=Spaces, operation_id="namespaces", tags=["recall"])
    async def namespaces(request: Request) -> Response:
        """The namespaces that the key is for, with how much is in them."""
        key = door.identify(request)
        door.allow(key, "read")
        caller = Caller(namespace=door.settings.namespace, key=key)
        known = (await door.call(caller, door.memory.stats))["namespaces"]
        wanted = [name for name in known if key is None or key.reaches(name)]
        if key is not None:
            wanted += [name for name in key.namespaces if name not in (*wanted, EVERY)]
        empty = {"segments": 0, "tokens": 0, "pending": 0}
        told = [{"name": name, **empty, **_counted(known.get(name, {}))} for name in wanted]
        return answer({"namespaces": told})

    @api.delete(f"{BELOW}/segments/{{id}}", response_model=Deleted, operation_id="delete_one", tags=["remember"])
    async def delete_one(request: Request, namespace: str, id: str) -> Response:
        """Take one segment away; undo brings it back."""
        caller = await door.admit(request, "write", namespace)
        count = await door.call(caller, door.memory.delete, id, namespace=caller.namespace)
        if not count:
            raise NotFound(
                f"no segment {id!r} in namespace {caller.namespace!r}", mend="check the id and the namespace"
            )
        return answer({"deleted": count})


def _counted(space: Mapping[str, Any]) -> dict[str, int]:
    return {name: space[name] for name in ("segments", "tokens", "pending") if name in space}


def _files(api: APIRouter, door: Door) -> None:
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

    async def export(request: Request, namespace: str, asked: BaseModel) -> Response:
        """The namespace, or the part in scope, as one archive of one moment, streamed."""
        caller = await door.admit(request, "read", namespace)
        given = {"format": "jsonl", **schema.sent(asked), "namespace": caller.namespace}
        if given["format"] not in schema.WRITABLE:
            raise InvalidInput("format", "cannot be sent", mend=f"use one of {', '.join(schema.WRITABLE)}")
        suffix = archives.named(given["format"]).suffixes[0]
        file = Path(tempfile.mkdtemp(prefix="memspan-export-")) / f"memory{suffix}"
        try:
            done = await door.labour(caller, door.memory.export_to, file, **given)
        except BaseException:
            _cleared(file)
            raise
        headers = {"Content-Disposition": f'attachment; filename="{file.name}"'}
        headers |= {"Content-Length": str(file.stat().st_size), EXPORTED: json.dumps(encode(replace(done, path="")))}
        return StreamingResponse(_streamed(file), headers=headers, media_type="application/octet-stream")

    async def taking(request: Request, namespace: str, asked: BaseModel) -> Response:
        """Take over what is in an archive, sent as the body. What is here already is passed over."""
        caller = await door.admit(request, "admin", namespace)
        given = {**schema.sent(asked), "namespace": caller.namespace}
        suffixes = archives.named(given["format"]).suffixes if given.get("format") else ()
        file = Path(tempfile.mkdtemp(prefix="memspan-import-")) / f"memory{suffixes[0] if suffixes else ''}"
        try:
            async with await open_file(file, "wb") as written:
                async for chunk in request.stream():
                    await written.write(chunk)
            return answer(await door.labour(caller, door.memory.import_from, file, **given))
        finally:
            _cleared(file)

    async def embeddings(request: Request, namespace: str, asked: BaseModel) -> Response:
        """Segments and their vectors, spread evenly over all."""
        caller = await door.admit(request, "read", namespace)
        most = door.settings.max_limit
        given = schema.sent(asked)
        door.within("limit", given.get("limit") or 0)
        given = {**given, "limit": given.get("limit") or most + 1, "namespace": caller.namespace}

        def told() -> Response:
            rows, vectors = door.memory.embeddings(**given)
            door.within("limit", len(rows))
            packed = base64.b64encode(vectors.astype("<f4").tobytes()).decode()
            return answer({"segments": rows, "dim": int(vectors.shape[1]), "vectors": packed})

        return await door.labour(caller, told)

    def asked(verb: str) -> tuple[Any, Any]:
        model = schema.taken(verb, ("path", "about", "key", "signed_by"), False)
        return Annotated[model, Query()], ...

    space = {"namespace": (str, ...)}
    api.add_api_route(
        f"{BELOW}/export",
        _signed(export, **space, asked=asked("export_to")),
        response_class=StreamingResponse,
        responses={200: {"content": octets}},
        operation_id="export",
        tags=["recall"],
    )
    api.add_api_route(
        f"{BELOW}/import",
        _signed(taking, **space, asked=asked("import_from")),
        methods=["POST"],
        response_model=None,
        operation_id="import",
        tags=["care"],
        openapi_extra={"requestBody": {"required": True, "content": octets}},
    )
    api.add_api_route(
        f"{BELOW}/embeddings",
        _signed(embeddings, **space, asked=asked("embeddings")),
        response_model=None,
        operation_id="embeddings",
        tags=["recall"],
    )


async def _streamed(file: Path) -> AsyncIterator[bytes]:
    try:
        async with await open_file(file, "rb") as read:
            while chunk := await read.read(CHUNK):
                yield chunk
    finally:
        _cleared(file)


def _cleared(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.rmdir(file.parent)
