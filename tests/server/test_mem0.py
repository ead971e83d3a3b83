"""mem0's open server's paths: who uses them changes the base URL and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from llm.chat import serving as chatting
from served import served

from memspan import Memory
from memspan.encoders.hash import HashEncoder

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder=HashEncoder()) as memory:
        yield memory


@pytest.fixture(scope="module")
def url(memory: Memory) -> Iterator[str]:
    with served(memory) as url:
        yield url


@pytest.fixture
def http(url: str, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client in a namespace of the test's own."""
    with httpx.Client(base_url=url, headers={"X-Memory-Namespace": request.node.name}) as client:
        yield client


def added(http: httpx.Client, text: str, **more: Any) -> str:
    body = {"messages": [{"role": "user", "content": text}], **({"user_id": "ana"} | more)}
    answer = http.post("/memories", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["id"])


def found(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["memory"] for item in answer.json()["results"]]


def refused(answer: httpx.Response, status: int, argument: str | None = None) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    if argument is not None:
        assert told["argument"] == argument, told
    assert told["mend"], told
    return str(told["detail"])


def test_a_memory_lives_by_the_paths_of_the_open_server(http: httpx.Client) -> None:
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "name": "Ana", "content": "I moved to Lisbon in May."},
        {"role": "assistant", "content": "How do you like it there?"},
    ]
    more = {"agent_id": "guide", "run_id": "r1", "metadata": {"topic": "home"}, "expiration_date": "2999-12-31"}
    answer = http.post("/memories", json={"messages": messages, "user_id": "ana", **more}).json()
    said, asked = answer["results"]
    assert (said["memory"], said["event"], said["role"], said["actor_id"]) == (
        "I moved to Lisbon in May.", "ADD", "user", "Ana",
    )  # fmt: skip
    assert asked["role"] == "assistant"

    item = http.get(f"/memories/{said['id']}").json()
    expected = {"id": said["id"], "user_id": "ana", "agent_id": "guide", "run_id": "r1", "metadata": {"topic": "home"}}
    assert expected.items() <= item.items()
    assert item["expiration_date"] == "2999-12-31"
    assert item["hash"] == "b2753bafaa833324fbeea285a9e528cf"
    assert datetime.now(UTC) - datetime.fromisoformat(item["created_at"]) < timedelta(hours=1)

    assert found(http.get("/memories", params={"user_id": "ana"})) == [said["memory"], asked["memory"]]
    (hit, *_) = http.post("/search", json={"query": "where to?", "filters": {"user_id": "ana"}}).json()["results"]
    assert 0 <= hit["score"] <= 1
    assert item.keys() <= hit.keys()

    told = http.put(f"/memories/{said['id']}", json={"text": "I moved to Porto.", "metadata": {"checked": True}})
    assert told.json() == {"message": "Memory updated successfully!"}
    after = http.get(f"/memories/{said['id']}").json()
    assert (after["memory"], after["metadata"]) == ("I moved to Porto.", {"topic": "home", "checked": True})
    assert (after["created_at"], after["expiration_date"]) == (item["created_at"], "2999-12-31")
    assert after["updated_at"] > item["updated_at"]

    assert http.delete(f"/memories/{said['id']}").json() == {"message": "Memory deleted successfully"}
    refused(http.get(f"/memories/{said['id']}"), 404)
    refused(http.delete(f"/memories/{said['id']}"), 404)
    entries = http.get(f"/memories/{said['id']}/history").json()
    assert [(entry["event"], entry["old_memory"], entry["new_memory"]) for entry in entries] == [
        ("ADD", None, "I moved to Lisbon in May."),
        ("UPDATE", "I moved to Lisbon in May.", "I moved to Porto."),
        ("DELETE", "I moved to Porto.", None),
    ]
    assert [entry["is_deleted"] for entry in entries] == [False, False, True]


def test_what_is_there_already_is_no_new_memory(http: httpx.Client) -> None:
    body = {"messages": "I like tea.", "user_id": "ana"}
    (first,), (again,) = (http.post("/memories", json=body).json()["results"] for _ in range(2))
    assert (first["event"], again["event"]) == ("ADD", "NONE")
    assert first["id"] == again["id"]
    assert found(http.get("/memories", params={"user_id": "ana"})) == ["I like tea."]


def test_a_retry_with_the_same_idempotency_key_adds_nothing(http: httpx.Client) -> None:
    body = {"messages": "I like tea.", "user_id": "ana"}
    first, again = (http.post("/memories", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.json()["results"][0]["id"] == again.json()["results"][0]["id"]
    refused(http.post("/memories", json={**body, "messages": "Coffee."}, headers={"Idempotency-Key": "k1"}), 409)


def test_whose_memory_it_is_must_be_said(http: httpx.Client) -> None:
    refused(http.post("/memories", json={"messages": [{"role": "user", "content": "Hello."}]}), 400, "user_id")
    refused(http.post("/memories", json={"messages": "Hello.", "user_id": "*"}), 400, "user_id")
    refused(http.delete("/memories"), 400, "filters")
    refused(http.post("/search", json={"query": "hello"}), 400, "filters")
    refused(http.post("/search", json={"query": "hello", "filters": {"NOT": [{"user_id": "ben"}]}}), 400, "filters")
    assert found(http.get("/memories")) == []


def test_ids_in_the_metadata_do_not_say_whose_a_memory_is(http: httpx.Client) -> None:
    id = added(http, "I like tea.", metadata={"user_id": "ben", "topic": "drinks"})
    http.put(f"/memories/{id}", json={"metadata": {"run_id": "r9", "sure": True}})
    item = http.get(f"/memories/{id}").json()
    assert (item["user_id"], item["run_id"], item["metadata"]) == ("ana", None, {"topic": "drinks", "sure": True})


@pytest.mark.parametrize(
    ("filters", "texts"),
    [
        ({"user_id": "ana"}, "abc"),
        ({"user_id": "*"}, "abcd"),
        ({"user_id": ["ana", "ben"]}, "abcd"),
        ({"user_id": {"ne": "ana"}}, "d"),
        ({"agent_id": "*"}, "b"),
        ({"user_id": "ana", "topic": "travel"}, "a"),
        ({"user_id": "ana", "metadata": {"topic": {"in": ["travel", "food"]}}}, "ab"),
        ({"user_id": "ana", "topic": "*"}, "ab"),
        ({"user_id": "ana", "cost": {"gt": 50, "lte": 120}}, "ab"),
        ({"user_id": "ana", "cost": {"gte": 100}}, "a"),
        ({"user_id": "ana", "topic": {"icontains": "TRAV"}}, "a"),
        ({"user_id": "ana", "topic": {"nin": ["travel"]}}, "bc"),
        ({"AND": [{"user_id": "ana"}, {"OR": [{"topic": "food"}, {"cost": {"gt": 100}}]}]}, "ab"),
        ({"AND": [{"user_id": "ana"}, {"NOT": [{"topic": "food"}, {"topic": "travel"}]}]}, "c"),
        ({"user_id": "ana", "NOT": {"topic": "food"}}, "ac"),
        ({"OR": [{"user_id": "ben"}, {"user_id": "ana", "topic": "food"}]}, "bd"),
        ({"user_id": "ana", "AND": []}, "abc"),
        ({"user_id": "*", "app_id": "shop"}, "c"),
        ({"user_id": "*", "categories": {"in": ["leisure"]}}, "a"),
        ({"user_id": "*", "categories": {"contains": "leisure"}}, "a"),
        ({"user_id": "*", "categories": {"ne": "leisure"}}, "bcd"),
        ({"user_id": "*", "categories": "*"}, "a"),
        ({"user_id": "*", "keywords": {"contains": "flight"}}, "a"),
        ({"user_id": "ana", "created_at": {"gte": "2026-01-01", "lt": "2026-02-01"}}, "b"),
        ({"user_id": "ana", "created_at": {"gte": "2100-01-01"}}, ""),
        ({"user_id": "*", "expiration_date": "2999-01-31"}, "d"),
        ({"user_id": "*", "expiration_date": {"lte": "2999-01-31"}}, "d"),
        ({"user_id": "*", "expiration_date": {"lt": "2999-01-31"}}, ""),
        ({"user_id": "*", "namespace": "*"}, ""),
        ({"user_id": "*", "session": "s"}, "c"),
    ],
    ids=json.dumps,
)
def test_filters_mean_what_they_mean_there(url: str, memory: Memory, filters: dict[str, Any], texts: str) -> None:
    with httpx.Client(base_url=url, headers={"X-Memory-Namespace": "filters"}) as http:
        if not found(http.get("/memories")):
            metadata = {"topic": "travel", "cost": 120}
            added(http, "a: booked the flight", metadata=metadata, categories=["leisure", "plans"])
            metadata = {"topic": "food", "cost": 80}
            added(http, "b: a table for two", metadata=metadata, agent_id="guide", timestamp=1767571200)
            added(http, "c: tea", app_id="shop", metadata={"session": "s"})
            added(http, "d: coffee", user_id="ben", expiration_date="2999-01-31")
        answer = http.post("/search", json={"query": "what was said?", "filters": filters})
        assert "".join(sorted(text[0] for text in found(answer))) == texts
        if filters != {"user_id": "*", "namespace": "*"}:
            several = http.post("/v3/memories/", json={"filters": filters})
            assert "".join(text[0] for text in found(several)) == texts


@pytest.mark.parametrize(
    ("filters", "argument"),
    [
        ({"user_id": "ana", "cost": {"around": 5}}, "filters.metadata.cost"),
        ({"user_id": "ana", "OR": []}, "filters.OR"),
        ({"user_id": "ana", "AND": "x"}, "filters.AND"),
        ({"user_id": "ana", "cost": {}}, "filters.metadata.cost"),
        ({"user_id": "ana", "categories": {"gt": "a"}}, "filters.categories"),
        ({"user_id": "ana", "expiration_date": "soon"}, "filters.expiration_date"),
        ({"user_id": "ana", "metadata": "x"}, "filters.metadata"),
    ],
    ids=json.dumps,
)
def test_a_filter_that_means_nothing_is_refused(http: httpx.Client, filters: dict[str, Any], argument: str) -> None:
    refused(http.post("/search", json={"query": "x", "filters": filters}), 400, argument)


def test_a_filter_as_deep_as_a_request_can_be_is_refused(http: httpx.Client) -> None:
    deep: dict[str, Any] = {"user_id": "ana"}
    for _ in range(100):
        deep = {"AND": [deep, {"topic": "x"}]}
    refused(http.post("/search", json={"query": "x", "filters": deep}), 400, "filters")


def test_what_has_expired_is_found_only_when_it_is_asked_for(http: httpx.Client) -> None:
    yesterday, today = ((datetime.now(UTC) - timedelta(days=back)).date().isoformat() for back in (1, 0))
    gone, kept = added(http, "A parcel came.", expiration_date=yesterday), added(http, "Tea.", expiration_date=today)
    asked = {"query": "what?", "filters": {"user_id": "ana"}}
    assert found(http.post("/search", json=asked)) == ["Tea."]
    assert found(http.get("/memories?user_id=ana")) == ["Tea."]
    assert set(found(http.post("/search", json={**asked, "show_expired": True}))) == {"Tea.", "A parcel came."}
    assert found(http.get("/memories?user_id=ana&show_expired=true")) == ["A parcel came.", "Tea."]
    http.put(f"/memories/{gone}", json={"expiration_date": None})
    assert len(found(http.get("/memories?user_id=ana"))) == 2
    http.put(f"/memories/{kept}", json={"expiration_date": yesterday})
    assert found(http.get("/memories?user_id=ana")) == ["A parcel came."]
    refused(http.put(f"/memories/{kept}", json={"expiration_date": "tomorrow"}), 400, "expiration_date")


def test_what_was_superseded_is_found_only_when_it_is_asked_for(http: httpx.Client, memory: Memory) -> None:
    old, new = added(http, "Ana lives in Rome."), added(http, "Ana lives in Lisbon.")
    memory.supersede(old, new, namespace=http.headers["X-Memory-Namespace"])
    asked = {"query": "where?", "filters": {"user_id": "ana"}}
    assert found(http.post("/search", json=asked)) == ["Ana lives in Lisbon."]
    assert found(http.post("/search", json={**asked, "show_expired": True})) == ["Ana lives in Lisbon."]
    assert len(found(http.post("/search", json={**asked, "latest_only": False}))) == 2


def test_how_many_are_found_is_bounded(http: httpx.Client) -> None:
    for number in range(3):
        added(http, f"note number {number}")
    asked = {"query": "note", "filters": {"user_id": "ana"}}
    assert [len(found(http.post("/search", json={**asked, "top_k": k}))) for k in (0, 2, 5)] == [0, 2, 3]
    assert found(http.get("/memories?user_id=ana&top_k=2")) == ["note number 0", "note number 1"]
    refused(http.post("/search", json={**asked, "top_k": 100_000}), 400, "k")
    refused(http.post("/search", json={**asked, "threshold": 2}), 400, "threshold")
    details = http.post("/search", json={**asked, "explain": True}).json()["results"][0]["score_details"]
    assert all(isinstance(value, float) for value in details.values())


def test_a_procedure_is_kept_as_one(http: httpx.Client, memory: Memory) -> None:
    id = added(http, "Deploy by tagging the release.", memory_type="procedural_memory")
    assert memory.get(id, namespace=http.headers["X-Memory-Namespace"]).kind == "procedural"
    refused(http.post("/memories", json={"messages": "x", "user_id": "ana", "memory_type": "core"}), 400, "memory_type")


def test_entities_are_listed_and_deleted(http: httpx.Client) -> None:
    added(http, "I like tea.", agent_id="guide")
    added(http, "I like coffee.", user_id="ben / sales")
    added(http, "Sold out.", user_id="ben / sales", run_id="r1", app_id="shop")
    told = {(one["type"], one["id"]): one["total_memories"] for one in http.get("/entities").json()}
    assert told == {
        ("agent", "guide"): 1, ("app", "shop"): 1, ("run", "r1"): 1, ("user", "ana"): 1, ("user", "ben / sales"): 2,
    }  # fmt: skip
    assert http.delete("/entities/user/ben%20%2F%20sales").json() == {"message": "Entity deleted"}
    assert found(http.get("/memories")) == ["I like tea."]
    refused(http.delete("/entities/team/a"), 400, "entity_type")


def test_deleting_everything_of_an_owner_leaves_the_rest_and_can_be_undone(http: httpx.Client, memory: Memory) -> None:
    added(http, "I like tea.")
    added(http, "I like coffee.", user_id="ben")
    assert http.delete("/memories?user_id=ana").json() == {"message": "All relevant memories deleted"}
    assert found(http.get("/memories")) == ["I like coffee."]
    space = http.headers["X-Memory-Namespace"]
    memory.undo(memory.operations(namespace=space)[0].id, namespace=space)
    assert len(found(http.get("/memories"))) == 2
    assert http.post("/reset").json() == {"message": "All memories reset"}
    assert found(http.get("/memories")) == []


def test_the_configuration_is_told_and_not_changed(http: httpx.Client) -> None:
    assert http.get("/configure").json()["embedder"]["config"]["model"]
    assert "memspan serve" in refused(http.post("/configure", json={"llm": {}}), 501) + http.post("/configure").text
    refused(http.get("/configure/providers"), 501)


def test_what_comes_from_a_file_of_mem0_is_told_as_mem0_told_it(
    http: httpx.Client, memory: Memory, tmp_path: Path
) -> None:
    item = {
        "id": "0b0e1c1e-1f5e-4a3f-9f1c-1d1c1b1a1918", "memory": "Likes tea.", "hash": "x", "user_id": "ana",
        "app_id": "shop", "actor_id": "Ana", "role": "user", "expiration_date": "2999-12-31",
        "metadata": {"topic": "drinks"}, "categories": ["food"],
        "created_at": "2024-01-01T00:00:00+00:00", "updated_at": "2024-02-01T00:00:00+00:00",
    }  # fmt: skip
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"results": [item]}))
    memory.import_from(file, "mem0", namespace=http.headers["X-Memory-Namespace"])
    (told,) = http.get("/memories").json()["results"]
    del item["id"], item["hash"]
    assert item.items() <= told.items()


def test_a_key_reaches_its_own_namespace_and_no_other() -> None:
    with Memory(":memory:", encoder=HashEncoder()) as memory, served(memory) as url:
        keys = {name: memory.create_api_key(name, namespaces=name, rights=["read", "write", "admin"]) for name in "ab"}
        reader = memory.create_api_key("reader", namespaces="a", rights="read")
        a, b, only = (
            httpx.Client(base_url=url, headers={"X-API-Key": str(key.secret)}) for key in (*keys.values(), reader)
        )
        with a, b, only:
            id = added(a, "A secret of a.")
            refused(httpx.get(f"{url}/memories"), 401)
            refused(httpx.get(f"{url}/memories", headers={"Authorization": "Bearer x"}), 401)
            refused(b.get("/memories", headers={"X-Memory-Namespace": "a"}), 403)
            refused(b.get(f"/memories/{id}"), 404)
            refused(b.get(f"/memories/{id}/history"), 404)
            refused(b.put(f"/memories/{id}", json={"text": "Mine."}), 404)
            refused(b.delete(f"/memories/{id}"), 404)
            refused(b.post("/v1/feedback/", json={"memory_id": id, "feedback": "POSITIVE"}), 404)
            assert b.get("/entities").json() == []
            for filters in ({"user_id": "*"}, {"namespace": "a", "user_id": "ana"}):
                assert found(b.post("/search", json={"query": "secret", "filters": filters, "namespace": "a"})) == []
            b.post("/reset")
            b.delete("/memories?user_id=ana")
            b.request("DELETE", "/v1/batch/", json={"memories": [{"memory_id": id}]})
            assert found(a.get("/memories")) == found(only.get("/memories")) == ["A secret of a."]
            refused(only.post("/memories", json={"messages": "x", "user_id": "ana"}), 403)
            refused(only.delete("/memories?user_id=ana"), 403)
            refused(only.post("/reset"), 403)
            as_mem0_sends_it = {"Authorization": f"Token {reader.secret}"}
            assert httpx.get(f"{url}/v1/ping/", headers=as_mem0_sends_it).json()["project_id"] == "a"


def test_a_configured_language_model_adds_facts_beside_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(messages: list[dict[str, str]], _: int) -> str:
        return json.dumps({"fact": "Ana moved to Lisbon in May.", "sources": [1], "quote": "I moved to Lisbon in May."})

    said = {"role": "user", "name": "Ana", "content": "I moved to Lisbon in May."}
    with chatting(model) as chat:
        monkeypatch.setenv("MEMSPAN_LLM", f"http:m@{chat.url}")
        with Memory(":memory:", encoder=HashEncoder()) as memory, served(memory) as url:
            raw = httpx.post(f"{url}/memories", json={"messages": [said], "user_id": "ana", "infer": False}).json()
            assert [item["memory"] for item in raw["results"]] == [said["content"]]
            assert not chat.requests
            answer = httpx.post(f"{url}/memories", json={"messages": [said], "user_id": "ana"}).json()
            assert [item["memory"] for item in answer["results"]] == [said["content"], "Ana moved to Lisbon in May."]
            assert len(chat.requests) == 1
