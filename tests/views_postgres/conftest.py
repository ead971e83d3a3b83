"""Memories on PostgreSQL, alone and beside an embedded one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgres import database

from memspan import Memory


@pytest.fixture(scope="module")
def pair(postgres_server: str) -> Iterator[tuple[Memory, Memory]]:
    """An embedded memory and one on PostgreSQL."""
    embedded = Memory(":memory:", encoder="hash")
    with database(postgres_server) as url, embedded, Memory(url, encoder="hash") as served:
        yield embedded, served


@pytest.fixture
def served(postgres: str) -> Iterator[Memory]:
    with Memory(postgres, encoder="hash") as memory:
        yield memory
