"""A file of each format is known by what is in it, and to no other format."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from memspan import InvalidInput, Memory, archives

from .conftest import table, written

CHATGPT = [
    {"title": "A", "create_time": 1.5, "mapping": {"a": {"id": "a", "message": None, "children": []}}, "id": "c"}
]
CLAUDE = [{"uuid": "c", "name": "A", "chat_messages": []}]
MEM0 = [{"id": "a", "memory": 'Quotes "mapping": {} and "chat_messages": [].', "hash": "x", "created_at": "2025-01-01"}]
LANGGRAPH = [{"namespace": ["a"], "key": "k", "value": {"id": "x", "memory": "text", "user_id": "u"}}]
DSM = {"version": 1, "segment_token_limit": 9, "segments": [{"id": "a", "text": "x", "category_path": ["A"]}]}


def text(name: str, content: str) -> Callable[[Path], Path]:
    return lambda folder: written(folder / name, content)


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


def exported(name: str, format: str | None = None) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with Memory(":memory:", encoder="hash") as memory:
            memory.add("Prefers tea.")
            memory.export_to(folder / name, format)
        return folder / name

    return make


def database(script: str) -> Callable[[Path], Path]:
    return lambda folder: table(folder / "a.db", script)


def vault(folder: Path) -> Path:
    (folder / "vault" / "notes").mkdir(parents=True)
    (folder / "vault" / "notes" / "a.md").write_text("A note.")
    return folder / "vault"


def qdrant(folder: Path) -> Path:
    (folder / "qdrant" / "collection").mkdir(parents=True)
    (folder / "qdrant" / "meta.json").write_text("{}")
    return folder / "qdrant"


RECORDS = [{"conversation_id": "c", "title": "A", "timestamp": "March 28th, 11am", "summary": "Tea was had."}]
SAMPLES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "our lines": ("jsonl", exported("m.jsonl")),
    "a cube": ("cube", exported("m.memspan")),
    "a table": ("parquet", exported("m.parquet")),
    "vectors as CSV": ("csv", exported("m", "csv")),
    "vectors as NPY": ("npy", exported("m", "npy")),
    "vectors as HDF5": ("hdf5", exported("m.h5")),
    "a pickle": ("pickle", exported("m.pkl")),
    "an index of FAISS": ("faiss", exported("m", "faiss")),
    "summaries": ("records", text("s.json", json.dumps(RECORDS, indent=2))),
    "summaries as YAML": ("records", text("s.yaml", "- conversation_id: 7\n  title: A\n  summary: Tea was had.\n")),
    "summaries as a table": ("records", database("CREATE TABLE conversation_summaries (conversation_id, summary)")),
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


SHARED = {"ChatGPT's folder": ["markdown"], "Claude's folder": ["markdown"]}
"""A folder with Markdown beside what is known is asked last whether it is one of notes."""


@pytest.mark.parametrize("name", SAMPLES)
def test_a_file_is_known_by_what_is_in_it_to_its_own_format_alone(tmp_path: Path, name: str) -> None:
    format, make = SAMPLES[name]
    place = make(tmp_path)
    assert archives.of(place, None).name == format
    head = place.read_bytes()[: archives.HEAD] if place.is_file() else b""
    knowing = [each.name for each in archives.FORMATS if each.module.recognises(place, head)]
    assert knowing == [format, *SHARED.get(name, ())]


def test_every_format_has_a_sample() -> None:
    assert {format for format, _ in SAMPLES.values()} == {each.name for each in archives.FORMATS}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "7", "[[[[", '{"type": "other"}', "PK\3\4", "SQLite format 3\0", "\0" * 100]
)
def test_what_is_none_of_them_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InvalidInput, match="looks like none that is known"):
        archives.of(text("a.bin", content)(tmp_path), None)
