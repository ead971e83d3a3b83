"""A memory is the same memory embedded, on PostgreSQL and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import served

from memspan import Memory
from memspan.testing import MemoryContract


class TestEmbedded(MemoryContract):
    @pytest.fixture
    def memory(self) -> Iterator[Memory]:
        with Memory(":memory:", encoder="hash") as memory:
            yield memory


class TestOnPostgres(MemoryContract):
    @pytest.fixture
    def memory(self, postgres: str) -> Iterator[Memory]:
        with Memory(postgres, encoder="hash") as memory:
            yield memory


class TestServed(MemoryContract):
    @pytest.fixture
    def memory(self) -> Iterator[Memory]:
        with Memory(":memory:", encoder="hash") as inner, served(inner) as url, Memory(url) as memory:
            yield memory
