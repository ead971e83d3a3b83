"""Files of other systems are told apart, and none is taken for another's."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from memspan import Memory, archives
from memspan.errors import InvalidInput

CHATGPT = [
    {"title": "A", "create_time": 1.5, "mapping": {"a": {"id": "a", "message": None, "children": []}}, "id": "c"}
]
CLAUDE = [{"uuid": "c", "name": "A", "chat_messages": []}]
MEM0 = [{"id": "a", "memory": 'Quotes "mapping": {} and "chat_messages": [].', "hash": "x", "created_at": "2025-01-01"}]
LANGGRAPH = [{"namespace": ["a"], "key": "k", "value": {"id": "x", "memory": "text", "user_id": "u"}}]
DSM = {"version": 1, "segment_token_limit": 9, "segments": [{"id": "a", "text": "x", "category_path": ["A"]}]}


def text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def zipped(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("conversations.json", content)
        return folder / name

    return make


def unpacked(content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "export").mkdir()
        (folder / "export" / "README.md").write_text("About this export.")
        (folder / "export" / "conversations.json").write_text(content)
        return folder / "export"

    return make


def database(table: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        connection = sqlite3.connect(folder / "a.db")
        connection.execute(table)
        connection.commit()
        connection.close()
        return folder / "a.db"

    return make


def vault(folder: Path) -> Path:
    (folder / "vault" / "notes").mkdir(parents=True)
    (folder / "vault" / "notes" / "a.md").write_text("A note.")
    return folder / "vault"


def qdrant(folder: Path) -> Path:
    (folder / "qdrant" / "collection").mkdir(parents=True)
    (folder / "qdrant" / "meta.json").write_text("{}")
    return folder / "qdrant"


SAMPLES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "memory.jsonl": ("mcp", text("m.jsonl", '{"type":"entity","name":"A","entityType":"b","observations":[]}\n')),
    "a graph": ("mcp", text("m.json", '{\n  "entities": [\n    {"name": "A", "entityType": "b"}]}')),
    "get_all": ("mem0", text("m.json", json.dumps({"results": MEM0}))),
    "a list of memories": ("mem0", text("m.json", json.dumps(MEM0, indent=4))),
    "history.db": (
        "mem0",
        database("CREATE TABLE history (memory_id, old_memory, new_memory, event, created_at, updated_at)"),
    ),
    "a Qdrant folder": ("mem0", qdrant),
    "ChatGPT": ("chatgpt", text("conversations.json", json.dumps(CHATGPT))),
    "ChatGPT's zip": ("chatgpt", zipped("a.zip", json.dumps(CHATGPT))),
    "ChatGPT's folder": ("chatgpt", unpacked(json.dumps(CHATGPT))),
    "Claude": ("claude", text("conversations.json", json.dumps(CLAUDE))),
    "Claude's zip": ("claude", zipped("a.zip", json.dumps(CLAUDE))),
    "Claude's folder": ("claude", unpacked(json.dumps(CLAUDE))),
    "LangGraph": ("langgraph", text("s.json", json.dumps(LANGGRAPH))),
    "LangGraph's lines": ("langgraph", text("s.jsonl", json.dumps(LANGGRAPH[0]) + "\n")),
    "LangGraph's file": ("langgraph", database("CREATE TABLE store (prefix text, key text, value text)")),
    "DSM": ("dsm", text("storage.json", json.dumps(DSM))),
    "a vault": ("markdown", vault),
    "a note": ("markdown", text("a.md", "Ana: hi\nBen: hi\nAna: ok\nAna: well\nBen: no\n")),
    "a chat": ("chatlog", text("a.txt", "31/12/2023, 21:15 - Ana: hi\n31/12/2023, 21:16 - Ben: hi\n")),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_known_by_what_is_in_it(tmp_path: Path, name: str) -> None:
    format, make = SAMPLES[name]
    assert archives.of(make(tmp_path), None).name == format


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "7", "[[[[", '{"type": "other"}', "PK\3\4", "SQLite format 3\0", "\0" * 100]
)
def test_what_is_none_of_them_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidInput, match="looks like none that is known"):
        archives.of(text("a.bin", content)(tmp_path), None)


@pytest.mark.parametrize("format", ["mcp", "mem0", "langgraph", "chatgpt", "claude", "dsm"])
@pytest.mark.parametrize("content", ['{\n  "other": [1, 2],\n  "more": {}\n}', '{"other": [1, 2]}', "[7]", "no JSON\n"])
def test_another_file_under_a_format_that_is_named_is_told_or_refused(
    memory: Memory, tmp_path: Path, format: str, content: str
) -> None:
    file = text("other.json", content)(tmp_path)
    try:
        failed = memory.import_from(file, format).failed
    except InvalidInput as error:
        failed = int("other.json" in str(error))
    assert failed
    assert memory.get_all() == []


@pytest.mark.parametrize("format", ["mcp", "mem0"])
def test_a_graph_or_a_list_that_is_empty_is_read(memory: Memory, tmp_path: Path, format: str) -> None:
    content = json.dumps({"entities": [], "relations": [], "results": []}, indent=1)
    done = memory.import_from(text("empty.json", content)(tmp_path), format)
    assert (done.read, done.failed) == (0, 0)


def test_a_note_that_says_again_what_it_said_before_says_it_now(tmp_path: Path) -> None:
    note = tmp_path / "notes" / "plan.md"
    note.parent.mkdir()
    with Memory(tmp_path / "store", encoder=None) as memory:
        for day in ("Monday", "Friday", "Monday", "Monday"):
            note.write_text(f"# Plan\n\nWe meet on {day}.\n")
            done = memory.import_from(note.parent)
            assert [each.text.splitlines()[-1] for each in memory.get_all()] == [f"We meet on {day}."]
        assert (done.added, done.there) == (0, 1)
        (segment,) = memory.get_all()
        memory.update(segment.id, "We meet on Sunday, as I know better.")
        memory.import_from(note.parent)
        assert [each.text for each in memory.get_all()] == ["We meet on Sunday, as I know better."]
        assert memory.verify()["ok"]


def test_what_changed_without_a_time_of_its_own_is_the_newer_one(tmp_path: Path) -> None:
    file = tmp_path / "mem0.json"

    def memories(color: str) -> str:
        known = {"created_at": "2026-01-01T00:00:00+00:00", "user_id": "ana"}
        return json.dumps(
            [{"id": str(at), "memory": f"Fact {at}.", "metadata": {"c": color}, **known} for at in range(9)]
        )

    with Memory(tmp_path / "store", encoder=None) as memory:
        for color in ("red", "blue", "blue"):
            file.write_text(memories(color))
            done = memory.import_from(file, "mem0")
        assert (done.added, done.there) == (0, 9)
        assert {each.metadata["c"] for each in memory.get_all()} == {"blue"}
        assert [event.version for event in memory.history(memory.get_all()[0].id)] == [1, 2]
