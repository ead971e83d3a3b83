"""mem0's HTTP API over this memory, so that who uses mem0 changes the base URL: the paths of its open server
(``oss``) and those that its client calls (``hosted``)."""

from __future__ import annotations

import re

from fastapi import APIRouter
from fastapi.routing import APIRoute

from memspan.server.door import Door
from memspan.server.mem0 import hosted, oss


def router(door: Door) -> APIRouter:
    """All of mem0's paths."""
    every = APIRouter(tags=["mem0"], generate_unique_id_function=_called)
    every.include_router(oss.router(door))
    every.include_router(hosted.router(door))
    return every


def _called(route: APIRoute) -> str:
    """The name of an operation in the OpenAPI document: two versions of a path are two operations."""
    return "_".join(["mem0", *sorted(map(str.lower, route.methods or ())), *re.findall(r"\w+", route.path)])
