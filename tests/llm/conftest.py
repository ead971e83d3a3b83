"""A scripted chat server, and the endpoint that asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memspan.llm import ChatEndpoint

from .chat import Server, serving

Connect = Callable[..., ChatEndpoint]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda messages, most: '{"nothing": true}') as state:
        yield state


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    made: list[ChatEndpoint] = []

    def connected(**options: Any) -> ChatEndpoint:
        made.append(ChatEndpoint(server.url, "m", **{"delay": 0.0, "timeout": 10, **options}))
        return made[-1]

    yield connected
    for endpoint in made:
        endpoint.close()
