"""The integrations over ``Memory("http://...")``: the same class, so the same answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs fastapi")
pytest.importorskip("langgraph", reason="needs langgraph")
pytest.importorskip("langchain_core", reason="needs langchain_core")
pytest.importorskip("agents", reason="needs agents")
pytest.importorskip("anthropic", reason="needs anthropic")

import uvicorn
from langchain_core.documents import Document

from memspan import Memory
from memspan.integrations.anthropic import MemspanMemoryTool
from memspan.integrations.langchain import MemspanRetriever, MemspanVectorStore
from memspan.integrations.langgraph import MemspanStore
from memspan.integrations.openai_agents import MemspanSession
from memspan.server.app import create_app
from memspan.server.door import Settings


@pytest.fixture
def remote(memory: Memory) -> Iterator[Memory]:
    server = uvicorn.Server(uvicorn.Config(create_app(memory, Settings(logs=False)), port=0, log_config=None))
    running = threading.Thread(target=server.run)
    running.start()
    while not server.started and running.is_alive():
        running.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with Memory(f"http://127.0.0.1:{port}") as client:
        yield client
    server.should_exit = True
    running.join()


def test_they_work_over_a_memory_of_a_server(remote: Memory) -> None:
    text = "  Ana drinks green tea. \n" + "And much more of the like.\n" * 400
    store = MemspanStore(remote)
    store.put(("users", "ana"), "drink", {"text": text, "sure": 0.9}, ttl=10)
    (item,) = store.search(("users",), query="tea", filter={"sure": {"$gt": 0.5}})
    assert item.value == {"text": text, "sure": 0.9}
    assert store.sweep_ttl() == 0
    documents = MemspanVectorStore(remote)
    documents.add_documents([Document(id="trip", page_content="The train leaves at nine.\n", metadata={"day": 1})])
    assert documents.max_marginal_relevance_search("train", k=1)[0].page_content == "The train leaves at nine.\n"
    assert "train" in MemspanRetriever(memory=remote, k=1).invoke("when does the train leave?")[0].page_content
    session, items = MemspanSession("s", remote, user_id="ben"), list[Any]([{"role": "user", "content": " hi \n"}])
    asyncio.run(session.add_items(items))
    assert asyncio.run(session.get_items()) == items
    tool = MemspanMemoryTool(remote)
    tool.call({"command": "create", "path": "/memories/a.txt", "file_text": " one\n"})
    assert tool.call({"command": "view", "path": "/memories/a.txt"}).endswith("     1\t one\n     2\t")  # type: ignore[union-attr]
