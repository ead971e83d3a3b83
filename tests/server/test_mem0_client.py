"""mem0's own Python client, pointed at this server: what it does there, it does here."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from served import served

from memspan import Memory
from memspan.encoders.hash import HashEncoder

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def mem0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package, without telemetry, and with a folder of its own for what it writes."""
    with pytest.MonkeyPatch.context() as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment.setenv("MEM0_TELEMETRY", "False")
        environment.setenv("MEM0_DIR", str(tmp_path_factory.mktemp("mem0")))
        yield pytest.importorskip("mem0", reason="mem0ai is not installed")


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder=HashEncoder()) as memory:
        memory.create_api_key("owner", namespaces="*", rights=["read", "write", "admin"])
        yield memory


@pytest.fixture(scope="module")
def url(memory: Memory) -> Iterator[str]:
    with served(memory) as url:
        yield url


@pytest.fixture
def secret(memory: Memory, request: pytest.FixtureRequest) -> str:
    """A key for a namespace of the test's own: all that the client is told."""
    return str(memory.create_api_key("client", namespaces=request.node.name).secret)


@pytest.fixture
def client(mem0: ModuleType, url: str, secret: str) -> Iterator[Any]:
    with httpx.Client(timeout=60) as http:
        yield mem0.MemoryClient(api_key=secret, host=url, client=http)


ROOT = Path(__file__).resolve().parents[2]
TALK = [
    {"role": "user", "name": "Ana", "content": "I moved to Lisbon in May."},
    {"role": "assistant", "content": "Which quarter do you live in?"},
]


def texts(answer: dict[str, Any]) -> list[str]:
    return [item["memory"] for item in answer["results"]]


def test_it_adds_searches_updates_lists_tells_the_history_and_deletes(client: Any) -> None:
    added = client.add(TALK, user_id="ana", metadata={"topic": "home"})
    assert [item["event"] for item in added["results"]] == ["ADD", "ADD"]
    id = added["results"][0]["id"]
    found = client.search("where does Ana live?", filters={"user_id": "ana"}, top_k=1)
    assert texts(found) == ["I moved to Lisbon in May."]
    assert 0 <= found["results"][0]["score"] <= 1

    item = client.get(id)
    assert (item["user_id"], item["metadata"], item["role"]) == ("ana", {"topic": "home"}, "user")
    assert client.update(id, text="I moved to Porto in May.", metadata={"sure": True})["text"].startswith(
        "I moved to P"
    )
    assert client.get(id)["metadata"] == {"topic": "home", "sure": True}

    listed = client.get_all(filters={"user_id": "ana"})
    assert (listed["count"], listed["next"], listed["previous"]) == (2, None, None)
    assert set(texts(listed)) == {"I moved to Porto in May.", "Which quarter do you live in?"}

    entries = client.history(id)
    assert [entry["event"] for entry in entries] == ["ADD", "UPDATE"]
    assert (entries[1]["old_memory"], entries[1]["new_memory"]) == (TALK[0]["content"], "I moved to Porto in May.")
    assert {entry["user_id"] for entry in entries} == {"ana"}

    assert client.delete(id) == {"message": "Memory deleted successfully!"}
    assert texts(client.get_all(filters={"user_id": "ana"})) == ["Which quarter do you live in?"]


def test_it_pages_through_what_it_lists(client: Any) -> None:
    client.add([{"role": "user", "content": f"note {number}"} for number in range(5)], user_id="ana")
    pages = [client.get_all(filters={"user_id": "ana"}, page=page, page_size=2) for page in (1, 2, 3, 4)]
    assert [texts(page) for page in pages] == [["note 0", "note 1"], ["note 2", "note 3"], ["note 4"], []]
    assert {page["count"] for page in pages} == {5}
    assert httpx.URL(pages[0]["next"]).params["page"] == httpx.URL(pages[2]["previous"]).params["page"] == "2"
    assert pages[2]["next"] is pages[0]["previous"] is None


def test_it_narrows_what_it_reads(client: Any) -> None:
    filters = {"user_id": "ana"}
    client.add("Booked the flight.", filters=filters, timestamp=1767225600, metadata={"topic": "travel"})
    client.add("Booked a table.", filters=filters, timestamp=1769904000, categories=["leisure"])
    assert texts(client.get_all(filters=filters, start_date="2026-01-01", end_date="2026-01-01")) == [
        "Booked the flight."
    ]
    assert texts(client.get_all(filters=filters, start_date="2026-01-02")) == ["Booked a table."]
    assert texts(client.get_all(filters=filters, categories=["leisure"])) == ["Booked a table."]
    assert texts(client.search("booked", filters=filters, metadata={"topic": "travel"})) == ["Booked the flight."]
    (item,) = client.search("booked", filters=filters, categories=["leisure"], fields=["memory", "score"])["results"]
    assert set(item) == {"memory", "score"}
    assert client.get_all(filters=filters)["results"][0]["created_at"] == "2026-01-01T00:00:00+00:00"


def test_it_lists_and_deletes_owners(client: Any) -> None:
    client.add("I like tea.", user_id="ana", agent_id="guide")
    client.add("I like coffee.", user_id="ben/sales")
    client.add("Sold out.", user_id="ben/sales", app_id="shop")
    told = {(one["type"], one["name"]): one["total_memories"] for one in client.users()["results"]}
    assert told == {("agent", "guide"): 1, ("app", "shop"): 1, ("user", "ana"): 1, ("user", "ben/sales"): 2}
    assert client.delete_users(user_id="ben/sales") == {"message": "Entity deleted successfully."}
    assert [one["name"] for one in client.users()["results"]] == ["guide", "ana"]
    client.add("I like water.", user_id="cy")
    assert client.delete_all(user_id="ana") == {"message": "Memories deleted successfully!"}
    assert [one["name"] for one in client.users()["results"]] == ["cy"]
    client.add("I like water.", user_id="dan")
    client.delete_all(filters={"user_id": "dan"})
    assert [one["name"] for one in client.users()["results"]] == ["cy"]
    client.reset()
    assert client.users()["results"] == []


def test_it_deletes_everything_when_every_owner_is_meant(client: Any) -> None:
    client.add("I like tea.", user_id="ana")
    client.add("I like coffee.", agent_id="guide")
    client.delete_all(user_id="*")
    assert [one["name"] for one in client.users()["results"]] == ["guide"]
    client.add("I like tea.", user_id="ana")
    client.delete_all(user_id="*", agent_id="*", app_id="*", run_id="*")
    assert client.users()["results"] == []


def test_it_updates_and_deletes_several_at_once(client: Any, mem0: ModuleType) -> None:
    added = client.add([{"role": "user", "content": f"note {number}"} for number in range(3)], user_id="ana")
    ids = [item["id"] for item in added["results"]]
    changes = [{"memory_id": ids[0], "text": "note A"}, {"memory_id": ids[1], "metadata": {"topic": "b"}}]
    assert client.batch_update(changes) == {"message": "Successfully updated 2 memories"}
    assert set(texts(client.get_all(filters={"user_id": "ana"}))) == {"note A", "note 1", "note 2"}
    with pytest.raises(mem0.exceptions.MemoryNotFoundError):
        client.batch_update([{"memory_id": ids[0], "text": "note Z"}, {"memory_id": "nothing", "text": "note Y"}])
    assert client.get(ids[0])["memory"] == "note A"
    gone = client.batch_delete([{"memory_id": id} for id in ids[:2]])
    assert gone == {"message": "Successfully deleted 2 memories"}
    assert texts(client.get_all(filters={"user_id": "ana"})) == ["note 2"]


def test_it_says_what_a_memory_is_worth(client: Any) -> None:
    id = client.add("I like tea.", user_id="ana", metadata={"topic": "drinks"})["results"][0]["id"]
    assert client.feedback(id, "negative", "not any more")["feedback"] == "NEGATIVE"
    told = {"topic": "drinks", "feedback": "NEGATIVE", "feedback_reason": "not any more"}
    assert client.get(id)["metadata"] == told
    assert len(client.get_all(filters={"user_id": "ana", "feedback": "NEGATIVE"})["results"]) == 1
    client.feedback(id, None)
    assert client.get(id)["metadata"] == {"topic": "drinks"}


def test_it_gets_a_summary(client: Any) -> None:
    client.add(TALK, user_id="ana")
    assert "Lisbon" in client.get_summary(filters={"user_id": "ana"})["summary"]


def test_it_is_told_what_went_wrong(client: Any, mem0: ModuleType, url: str) -> None:
    with pytest.raises(mem0.exceptions.MemoryNotFoundError):
        client.get("nothing")
    with pytest.raises(mem0.exceptions.ValidationError, match="user_id"):
        client.search("tea", filters={"topic": "drinks"})
    with httpx.Client() as http, pytest.raises(ValueError, match="the API key is not valid"):
        mem0.MemoryClient(api_key="ms_0000000000000000_x", host=url, client=http)


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda client: client.project.get(), "a namespace is a tenant"),
        (lambda client: client.get_webhooks("p"), "operations"),
        (lambda client: client.create_memory_export("{}", filters={"user_id": "ana"}), "export"),
        (lambda client: client.get_profile("ana"), "context"),
        (lambda client: client.generate_profile("ana"), "context"),
    ],
)
def test_what_belongs_to_the_platform_is_answered_with_what_to_do_instead(
    client: Any, mem0: ModuleType, call: Any, instead: str
) -> None:
    with pytest.raises(mem0.exceptions.MemoryError, match=instead) as told:
        call(client)
    assert told.value.debug_info["status_code"] == 501


def test_the_asynchronous_client_does_the_same(mem0: ModuleType, url: str, secret: str) -> None:
    async def live() -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            client = mem0.AsyncMemoryClient(api_key=secret, host=url, client=http)
            several = await asyncio.gather(*(client.add(f"note {number}", user_id="ana") for number in range(4)))
            ids = [added["results"][0]["id"] for added in several]
            found = await client.search("note 2", filters={"AND": [{"user_id": "ana"}]}, top_k=4)
            assert set(texts(found)) == {f"note {number}" for number in range(4)}
            await client.update(ids[0], text="note A")
            assert [entry["event"] for entry in await client.history(ids[0])] == ["ADD", "UPDATE"]
            await client.batch_delete([{"memory_id": ids[1]}])
            assert (await client.get_all(filters={"user_id": "ana"}))["count"] == 3
            assert [one["name"] for one in (await client.users())["results"]] == ["ana"]
            await client.delete(ids[0])
            await client.delete_all(user_id="ana")
            assert (await client.get_all(filters={"user_id": "ana"}))["results"] == []

    asyncio.run(live())


def test_older_clients_get_lists_unless_they_ask_for_objects(url: str, secret: str) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": f"Token {secret}"}) as http:
        http.post("/v1/memories/", json={"messages": TALK, "user_id": "ana", "output_format": "v1.1"})
        asked = {"query": "Lisbon", "user_id": "ana", "limit": 1}
        for path, body in (
            ("/v1/memories/search/", asked),
            ("/v2/memories/search/", {"query": "Lisbon", "filters": {"user_id": "ana"}, "top_k": 1}),
            ("/v2/memories/", {"filters": {"AND": [{"user_id": "ana"}, {"role": "user"}]}}),
        ):
            plain, wrapped = (http.post(path, json={**body, "output_format": form}).json() for form in ("v1.0", "v1.1"))
            assert [item["memory"] for item in plain] == texts(wrapped) == [TALK[0]["content"]]
        assert len(http.get("/v1/memories/", params={"user_id": "ana"}).json()) == 2
        assert http.get("/v1/memories/", params={"user_id": "ana", "page": 1, "page_size": 1}).json()["count"] == 2


def test_the_documented_example_runs_as_it_stands(mem0: ModuleType, url: str, secret: str) -> None:
    page = (ROOT / "docs" / "mem0.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(code.replace("ms_...", secret).replace("http://127.0.0.1:8765", url), names)
    names["client"].client.close()
