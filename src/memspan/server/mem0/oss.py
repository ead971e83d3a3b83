"""The paths of mem0's open server, as its ``server/main.py`` has them, under the same names."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel

from memspan.errors import InvalidInput, Unsupported
from memspan.server.door import Door
from memspan.server.mem0 import bodies
from memspan.server.mem0.filters import ENTITIES, asked
from memspan.server.mem0.memories import Memories, through

MOST: Final = 1_000
TOP: Final = 20  # memories that a search gives where nobody says how many


class Results(BaseModel):
    """Memories, each with id, memory, user_id, metadata and so on."""

    results: list[dict[str, Any]]


class Told(BaseModel):
    """That it was done."""

    message: str


def router(door: Door) -> APIRouter:
    """``/memories``, ``/search``, ``/reset``, ``/entities``, ``/configure``."""
    paths = APIRouter()

    @paths.post("/memories", response_model=Results, summary="Create memories")
    async def add_memory(
        request: Request, body: bodies.Adding, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Any:
        return {"results": await through(door, request, "write", Memories.add, body, idempotency_key)}

    @paths.get("/memories", response_model=Results, summary="Get memories")
    async def get_all_memories(
        request: Request,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        top_k: Annotated[int, Query(ge=0, le=MOST)] = MOST,
        show_expired: bool = False,
    ) -> Any:
        """Those of one owner, or where none is named, all in the namespace; in the order they were written."""
        wanted = asked(None, _whose(user_id, agent_id, run_id), show_expired=show_expired, anybody=True)
        return {"results": await through(door, request, "read", Memories.listing, wanted, top_k)}

    @paths.get("/memories/{memory_id}", response_model=dict[str, Any], summary="Get a memory")
    async def get_memory(request: Request, memory_id: str) -> Any:
        return await through(door, request, "read", Memories.get, memory_id)

    @paths.put("/memories/{memory_id}", response_model=Told, summary="Update a memory")
    async def update_memory(request: Request, memory_id: str, body: bodies.Updating) -> Any:
        await through(door, request, "write", Memories.update, memory_id, body)
        return {"message": "Memory updated successfully!"}

    @paths.delete("/memories/{memory_id}", response_model=Told, summary="Delete a memory")
    async def delete_memory(request: Request, memory_id: str) -> Any:
        await through(door, request, "write", Memories.delete, memory_id)
        return {"message": "Memory deleted successfully"}

    @paths.delete("/memories", response_model=Told, summary="Delete all memories of an owner")
    async def delete_all_memories(
        request: Request, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> Any:
        whose = _whose(user_id, agent_id, run_id)
        await through(door, request, "write", Memories.delete_all, None, whose)
        return {"message": "All relevant memories deleted"}

    @paths.get("/memories/{memory_id}/history", response_model=list[dict[str, Any]], summary="Get a memory's history")
    async def memory_history(request: Request, memory_id: str) -> Any:
        return await through(door, request, "read", Memories.history, memory_id)

    @paths.post("/search", response_model=Results, summary="Search memories")
    async def search_memories(request: Request, body: bodies.Searching) -> Any:
        k = TOP if body.top_k is None else body.top_k
        door.within("k", k)
        return {"results": await through(door, request, "read", Memories.search, body, k)}

    @paths.post("/reset", response_model=Told, summary="Delete everything in the namespace")
    async def reset_memory(request: Request) -> Any:
        await through(door, request, "admin", Memories.reset)
        return {"message": "All memories reset"}

    @paths.get("/entities", response_model=list[dict[str, Any]], summary="List users, agents, apps and runs")
    async def list_entities(request: Request) -> Any:
        return await through(door, request, "read", Memories.entities)

    @paths.delete("/entities/{kind}/{name:path}", response_model=Told, summary="Delete all memories of an entity")
    async def delete_entity(request: Request, kind: str, name: str) -> Any:
        await through(door, request, "write", Memories.delete_all, None, owner(kind, name))
        return {"message": "Entity deleted"}

    @paths.get("/configure", response_model=dict[str, Any], summary="Get the configuration")
    async def get_config(request: Request) -> Any:
        caller = await door.admit_whole(request, "read")
        stats = await door.call(caller, door.memory.stats)
        return {
            "version": "v1.1",
            "vector_store": {"provider": "memspan", "config": {"collection_name": caller.namespace}},
            "embedder": {"provider": "memspan", "config": {"model": stats["encoder"] and stats["encoder"]["id"]}},
            "reranker": {"provider": "memspan", "config": {"model": stats["reranker"] and stats["reranker"]["id"]}},
        }

    for path in ("/configure", "/configure/providers", "/generate-instructions"):
        not_offered(
            paths, door, path, "a server does not change its own settings", "set them where it starts: memspan serve"
        )
    return paths


def owner(kind: str, name: str) -> dict[str, str]:
    """Whose memories an entity's are. Raises InvalidInput."""
    if kind not in ENTITIES:
        raise InvalidInput("entity_type", "there is no such kind of entity", mend=f"use {', '.join(ENTITIES)}")
    return {ENTITIES[kind]: name}


def not_offered(paths: APIRouter, door: Door, path: str, problem: str, mend: str) -> None:
    """A path of mem0's that has no meaning here: it answers with what to do instead."""

    async def refuse(request: Request) -> Any:
        await door.admit(request, "read")
        raise Unsupported(problem, mend=mend)

    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    paths.add_api_route(path, refuse, methods=every, include_in_schema=False)


def _whose(user_id: str | None, agent_id: str | None, run_id: str | None) -> dict[str, str]:
    given = {"user_id": user_id, "agent_id": agent_id, "run_id": run_id}
    return {name: value for name, value in given.items() if value is not None}
