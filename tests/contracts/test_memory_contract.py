"""A memory is the same memory embedded, on PostgreSQL and over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import served

from memspan import Memory
from memspan.errors import NotWritable
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


class TestOnPostgresAsTenant(MemoryContract):
    """For a role that row-level security applies to."""

    @pytest.fixture
    def memory(self, postgres: str, tenant: str) -> Iterator[Memory]:
        Memory(postgres, encoder="hash").close()  # the owner decides on the encoder
        with Memory(tenant, encoder="hash") as memory:
            yield memory

    def test_keys_are_made_listed_and_revoked(self, memory: Memory) -> None:
        with pytest.raises(NotWritable, match="have its owner do it"):
            memory.create_api_key("laptop", namespaces="*", rights=["read"])
        assert memory.api_keys() == []


class TestServed(MemoryContract):
    @pytest.fixture
    def memory(self) -> Iterator[Memory]:
        with Memory(":memory:", encoder="hash") as inner, served(inner) as url, Memory(url) as memory:
            yield memory
