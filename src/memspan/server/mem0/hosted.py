"""The paths that mem0's client calls: those of its hosted platform, which its open server does not have.

The client of this day (2.2) asks ``/v3`` to add, list and search; older ones ask ``/v1`` and ``/v2`` for the same, and
get a list alone unless they say ``output_format: v1.1``. What belongs to the platform itself has no meaning here.
"""

from __future__ import annotations

import ast
import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel

from memspan.errors import InvalidInput
from memspan.server.door import Door
from memspan.server.mem0 import bodies
from memspan.server.mem0.memories import PAGE, Memories, through
from memspan.server.mem0.oss import Results, Told, not_offered, owner

TOP: Final = 10  # memories that a search gives where nobody says how many
LONGEST_FILTER: Final = 4_096  # characters of one in a URL
NOT_OFFERED: Final = (
    ("/api/v1/orgs/{rest:path}", "there are no organizations or projects", "a namespace is a tenant; the key names it"),
    ("/api/v1/webhooks/{rest:path}", "there are no webhooks", "GET /v1/namespaces/-/operations tells what was done"),
    ("/v1/exports/", "no language model fills in a schema here", "GET /v1/namespaces/-/export gives everything"),
    ("/v1/exports/get/", "no language model fills in a schema here", "GET /v1/namespaces/-/export gives everything"),
    ("/v2/profiles/{rest:path}", "there are no profiles", "POST /v1/namespaces/-/context tells what is known"),
    ("/v2/entities/user/{id}/profile/", "there are no profiles", "POST /v1/namespaces/-/context tells what is known"),
)
"""Paths of the platform that have no meaning here: which, why, and what has."""


class Page(Results):
    """One page of memories."""

    count: int
    next: str | None
    previous: str | None


class Pong(BaseModel):
    """That the key is good."""

    status: str
    message: str
    org_id: str
    project_id: str
    user_email: str | None


class Summed(BaseModel):
    """A summary."""

    summary: str


Answer = dict[str, Any] | list[dict[str, Any]]


def router(door: Door) -> APIRouter:
    """``/v1/ping/``, ``/v1|v2|v3/memories/...``, ``/v1/entities/``, ``/v1/batch/``, ``/v1/feedback/``."""
    paths = APIRouter()

    @paths.get("/v1/ping/", response_model=Pong, summary="Check the API key")
    async def ping(request: Request) -> Any:
        caller = await door.admit(request, "read")
        told = {"org_id": "memspan", "project_id": caller.namespace, "user_email": None}
        return {"status": "ok", "message": "pong", **told}

    async def add(
        request: Request, body: bodies.Adding, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Any:
        """Messages are remembered as they were said, before this answers."""
        return {"results": await through(door, request, "write", Memories.add, body, idempotency_key)}

    for path in ("/v1/memories/", "/v3/memories/add/"):
        paths.add_api_route(path, add, methods=["POST"], response_model=Results, summary="Add memories")

    async def paged(request: Request, body: bodies.Listing, number: int | None, size: int | None) -> dict[str, Any]:
        number, size = number or body.page or 1, size or body.page_size or PAGE
        door.within("limit", size)
        found, count = await through(door, request, "read", Memories.page, body, number, size)

        def beside(other: int) -> str:
            return str(request.url.include_query_params(page=other, page_size=size))

        after = beside(number + 1) if number * size < count else None
        return {"count": count, "next": after, "previous": beside(number - 1) if number > 1 else None, "results": found}

    @paths.post("/v3/memories/", response_model=Page, summary="List memories, page by page")
    async def list_memories(
        request: Request,
        body: bodies.Listing,
        page: Annotated[int | None, Query(ge=1)] = None,
        page_size: Annotated[int | None, Query(ge=1)] = None,
    ) -> Any:
        return await paged(request, body, page, page_size)

    @paths.post("/v2/memories/", response_model=Answer, summary="List memories (v2)")
    async def list_memories_v2(
        request: Request,
        body: bodies.Listing,
        page: Annotated[int | None, Query(ge=1)] = None,
        page_size: Annotated[int | None, Query(ge=1)] = None,
    ) -> Any:
        found = await paged(request, body, page, page_size)
        return found if page or body.page else _told(found["results"], body.output_format)

    @paths.get("/v1/memories/", response_model=Answer, summary="List memories (v1)")
    async def list_memories_v1(
        request: Request,
        user_id: str | None = None,
        agent_id: str | None = None,
        app_id: str | None = None,
        run_id: str | None = None,
        page: Annotated[int | None, Query(ge=1)] = None,
        page_size: Annotated[int | None, Query(ge=1)] = None,
        output_format: str | None = None,
    ) -> Any:
        body = bodies.Listing(user_id=user_id, agent_id=agent_id, app_id=app_id, run_id=run_id)
        found = await paged(request, body, page, page_size)
        return found if page else _told(found["results"], output_format)

    async def searched(request: Request, body: bodies.Searching) -> list[dict[str, Any]]:
        k = next((count for count in (body.top_k, body.limit) if count is not None), TOP)
        door.within("k", k)
        return await through(door, request, "read", Memories.search, body, k)

    @paths.post("/v3/memories/search/", response_model=Results, summary="Search memories")
    async def search(request: Request, body: bodies.Searching) -> Any:
        return {"results": await searched(request, body)}

    async def search_before(request: Request, body: bodies.Searching) -> Any:
        return _told(await searched(request, body), body.output_format)

    for version in ("v1", "v2"):
        path, summary = f"/{version}/memories/search/", f"Search memories ({version})"
        paths.add_api_route(path, search_before, methods=["POST"], response_model=Answer, summary=summary)

    @paths.delete("/v1/memories/", response_model=Told, summary="Delete all memories of an owner")
    async def delete_all(
        request: Request,
        user_id: str | None = None,
        agent_id: str | None = None,
        app_id: str | None = None,
        run_id: str | None = None,
        filters: str | None = None,
    ) -> Any:
        given = {"user_id": user_id, "agent_id": agent_id, "app_id": app_id, "run_id": run_id}
        whose = {name: value for name, value in given.items() if value is not None}
        wanted = None if filters is None else _filter(filters)
        await through(door, request, "write", Memories.delete_all, wanted, whose)
        return {"message": "Memories deleted successfully!"}

    @paths.get("/v1/memories/{memory_id}/", response_model=dict[str, Any], summary="Get a memory")
    async def get(request: Request, memory_id: str) -> Any:
        return await through(door, request, "read", Memories.get, memory_id)

    @paths.put("/v1/memories/{memory_id}/", response_model=dict[str, Any], summary="Update a memory")
    async def update(request: Request, memory_id: str, body: bodies.Updating) -> Any:
        item = await through(door, request, "write", Memories.update, memory_id, body)
        return {**item, "text": item["memory"]}

    @paths.delete("/v1/memories/{memory_id}/", response_model=Told, summary="Delete a memory")
    async def delete(request: Request, memory_id: str) -> Any:
        await through(door, request, "write", Memories.delete, memory_id)
        return {"message": "Memory deleted successfully!"}

    @paths.get("/v1/memories/{memory_id}/history/", response_model=list[dict[str, Any]], summary="Get its history")
    async def history(request: Request, memory_id: str) -> Any:
        return await through(door, request, "read", Memories.history, memory_id)

    @paths.get("/v1/entities/", response_model=Page, summary="List users, agents, apps and runs")
    async def entities(request: Request) -> Any:
        found = await through(door, request, "read", Memories.entities)
        return {"count": len(found), "next": None, "previous": None, "results": found}

    async def delete_entity(request: Request, kind: str, name: str) -> Any:
        await through(door, request, "write", Memories.delete_all, None, owner(kind, name))
        return {"message": "Entity deleted successfully!"}

    for version in ("v1", "v2"):
        path, summary = f"/{version}/entities/{{kind}}/{{name:path}}/", f"Delete an entity's memories ({version})"
        paths.add_api_route(path, delete_entity, methods=["DELETE"], response_model=Told, summary=summary)

    @paths.put("/v1/batch/", response_model=Told, summary="Update several memories")
    async def update_batch(request: Request, body: bodies.BatchUpdating) -> Any:
        done = await through(door, request, "write", Memories.update_all, body.memories)
        return {"message": f"Successfully updated {done} memories"}

    @paths.delete("/v1/batch/", response_model=Told, summary="Delete several memories")
    async def delete_batch(request: Request, body: bodies.BatchDeleting) -> Any:
        ids = [each.memory_id for each in body.memories]
        done = await through(door, request, "write", Memories.delete_several, ids)
        return {"message": f"Successfully deleted {done} memories"}

    @paths.post("/v1/feedback/", response_model=dict[str, Any], summary="Say what a memory is worth")
    async def feedback(request: Request, body: bodies.Feedback) -> Any:
        return await through(door, request, "write", Memories.feedback, body)

    @paths.post("/v1/summary/", response_model=Summed, summary="What the memories are about")
    async def summarise(request: Request, body: bodies.Filtered) -> Any:
        return {"summary": await through(door, request, "read", Memories.summary, body.filters)}

    for path, problem, mend in NOT_OFFERED:
        not_offered(paths, door, path, problem, mend)
    return paths


def _told(found: list[dict[str, Any]], output_format: str | None) -> Answer:
    """What older clients get."""
    return {"results": found} if output_format == "v1.1" else found


def _filter(given: str) -> dict[str, Any]:
    """A filter in a URL: JSON, or the dict of Python that mem0's client writes there. Raises InvalidInput."""
    if len(given) <= LONGEST_FILTER:
        for read in (json.loads, ast.literal_eval):
            try:
                if isinstance(found := read(given), dict):
                    return found
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
    raise InvalidInput("filters", "is no JSON object", mend='write {"user_id": "ana"}')
