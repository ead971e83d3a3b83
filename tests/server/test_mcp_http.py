"""MCP over HTTP: whose namespace it is, what a key may do, and who is let in at all."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from memspan import Memory
from tests.server.mcp_driver import driven, over_http, served

LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder="hash") as memory:
        for namespace in ("red", "blue"):
            memory.add(f"The {namespace} secret.", namespace=namespace)
        yield memory


@pytest.fixture(scope="module")
def keys(memory: Memory) -> dict[str, str]:
    """A key of each sort, by name."""
    made = {
        "red": memory.create_api_key("red", namespaces="red"),
        "reader": memory.create_api_key("reader", namespaces="red", rights="read"),
        "writer": memory.create_api_key("writer", namespaces="red", rights="write"),
        "both": memory.create_api_key("both", namespaces=["red", "blue"]),
    }
    return {name: str(key.secret) for name, key in made.items()}


@pytest.fixture(scope="module")
def url(memory: Memory, keys: dict[str, str]) -> Iterator[str]:
    with served(memory) as url:
        yield url


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("path", "key", "header", "sees"),
    [
        ("/mcp", "red", {}, "red"),
        ("/mcp/red", "red", {}, "red"),
        ("/mcp/blue", "both", {}, "blue"),
        ("/mcp", "both", {"X-Memory-Namespace": "blue"}, "blue"),
        ("/mcp/red", "both", {"X-Memory-Namespace": "blue"}, "red"),
    ],
)
def test_the_namespace_is_that_of_the_url_the_header_or_the_key(
    url: str, keys: dict[str, str], path: str, key: str, header: dict[str, str], sees: str
) -> None:
    with driven(over_http(f"{url}{path}", {**bearer(keys[key]), **header})) as driver:
        texts = [each["text"] for each in driver.call("list_memories")["memories"]]
        assert texts == [f"The {sees} secret."]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_old_and_new_clients_are_served(url: str, keys: dict[str, str], mode: str) -> None:
    with driven(over_http(f"{url}/mcp/red", bearer(keys["red"])), mode=mode) as driver:
        assert len(driver.do("list_tools").tools) == 8
        assert driver.call("memory_status")["memories"] == 1


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/mcp", {}, 401, "Unauthorized"),
        ("/mcp/red", {"Authorization": "Bearer ms_0000000000000000_" + "x" * 43}, 401, "Unauthorized"),
        ("/mcp/blue", "red", 403, "AccessDenied"),
        ("/mcp?profile=everything", "red", 400, "InvalidInput"),
    ],
)
def test_who_is_not_let_in_is_told_why_as_a_problem(
    url: str, keys: dict[str, str], path: str, headers: dict[str, str] | str, status: int, code: str
) -> None:
    sent = bearer(keys[headers]) if isinstance(headers, str) else headers
    answer = httpx.post(f"{url}{path}", json=LIST, headers={**ACCEPT, **sent})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["mend"]


def test_no_namespace_is_reached_by_any_name_in_a_call(url: str, keys: dict[str, str]) -> None:
    with driven(over_http(f"{url}/mcp?profile=full", bearer(keys["red"]))) as driver:
        for arguments in (
            {"namespace": "blue"},
            {"user_id": "blue"},
            {"filters": {"namespace": "blue"}},
            {"filters": {"OR": [{"namespace": "blue"}, {"user_id": None}]}},
            {"filters": {"metadata.namespace": "blue"}},
        ):
            assert "blue" not in str(driver.ask("list_memories", **arguments).structured_content)
            found = driver.ask("search_memories", query="the blue secret", **arguments)
            assert "The blue" not in str(found.structured_content)


def test_a_key_that_may_only_read_reads(url: str, keys: dict[str, str], memory: Memory) -> None:
    with driven(over_http(f"{url}/mcp", bearer(keys["reader"]))) as driver:
        assert driver.call("search_memories", query="secret")["memories"]
        told = driver.error("add_memory", content="not allowed")
        assert told["type"] == "AccessDenied"
        assert "no right to write" in told["text"]
        assert driver.error("delete_memory", id=memory.get_all(namespace="red")[0].id)["type"] == "AccessDenied"
    assert len(memory.get_all(namespace="red")) == 1


def test_a_key_that_may_only_write_writes(url: str, keys: dict[str, str], memory: Memory) -> None:
    with driven(over_http(f"{url}/mcp", bearer(keys["writer"]))) as driver:
        assert driver.error("list_memories")["type"] == "AccessDenied"
        with pytest.raises(MCPError, match="no right to read"):
            driver.do("read_resource", "memory://status")
        (id,) = driver.call("add_memory", content="dropped in")["ids"]
        assert memory.operations(id, namespace="red")[0].actor == "writer"
        assert driver.call("delete_memory", id=id) == {"deleted": 1}


def test_a_result_of_search_has_the_url_of_this_server(url: str, keys: dict[str, str]) -> None:
    with driven(over_http(f"{url}/mcp?profile=chatgpt", bearer(keys["red"]))) as driver:
        (result,) = driver.call("search", query="secret")["results"]
        assert result["url"] == f"{url}/v1/namespaces/red/segments/{result['id']}"
        answer = httpx.get(result["url"], headers=bearer(keys["red"]))
        assert "The red secret." in json.dumps(answer.json())


def test_nothing_but_post_is_answered_and_nothing_is_kept_between_calls(url: str, keys: dict[str, str]) -> None:
    for method in ("GET", "DELETE"):
        assert httpx.request(method, f"{url}/mcp", headers=bearer(keys["red"])).status_code == 405
    answer = httpx.post(f"{url}/mcp", json=LIST, headers={**ACCEPT, **bearer(keys["red"])})
    assert "mcp-session-id" not in answer.headers
    assert len(answer.json()["result"]["tools"]) == 8


def test_profile_and_limits_of_a_server_are_those_of_its_settings() -> None:
    with (
        Memory(":memory:", encoder="hash") as memory,
        served(memory, mcp_profile="reference", max_k=5) as url,
        driven(f"{url}/mcp") as driver,
        driven(f"{url}/mcp?profile=default") as other,
    ):
        assert "the most that this server gives" in other.error("search_memories", query="x", k=6)["text"]
        assert len(driver.do("list_tools").tools) == 9
        answer = httpx.post(f"{url}/mcp", json=LIST, headers={**ACCEPT, "Origin": "https://evil.example"})
        assert answer.status_code == 401
