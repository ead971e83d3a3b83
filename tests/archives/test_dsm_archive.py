"""DSM's file, imported into a memory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory
from memspan.dsm import DynamicSegmentedMemory
from memspan.errors import InvalidInput, NewerStore

RUST: dict[str, Any] = {
    "id": "a" * 32,
    "text": "Rust websocket backpressure is handled with bounded channels.",
    "description": "How the websocket service breathes",
    "category_path": ["Programming", "Rust"],
    "embedding": [0.5, 0.5],
    "links": ["b" * 32],
    "priorities": {"importance": 0.9},
    "created_at": 1716000000.5,
    "updated_at": 1716000100.25,
    "last_accessed_at": 1716000200.5,
    "metadata": {"source": "notes.md"},
}
GARDEN: dict[str, Any] = {
    "id": "b" * 32,
    "text": "Tomatoes want water every evening.",
    "category_path": ["General"],
    "links": ["a" * 32],
    "created_at": 1716000001.0,
    "updated_at": 1716000001.0,
}


def written(path: Path, *segments: Any, **more: Any) -> Path:
    data = {"version": 1, "segment_token_limit": 1000, "segments": segments, "categories": {}, **more}
    path.write_text(json.dumps({**data, "graph": {"a" * 32: ["b" * 32], "b" * 32: ["a" * 32]}}))
    return path


def test_segments_keep_category_importance_description_and_times(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(written(tmp_path / "storage.json", RUST, GARDEN))
    assert (done.format, done.added, done.links, done.failed) == ("dsm", 2, 1, 0)
    rust, garden = sorted(memory.get_all(), key=lambda each: each.text)
    assert (rust.category, rust.importance) == (("Programming", "Rust"), 0.9)
    assert dict(rust.metadata) == {"description": "How the websocket service breathes", "source": "notes.md"}
    assert rust.occurred_at == datetime.fromtimestamp(1716000000.5, UTC)
    assert rust.recorded_at == datetime.fromtimestamp(1716000100.25, UTC)
    assert (garden.category, dict(garden.metadata)) == ((), {})
    assert [each.text for each in memory.neighbors(rust.id, kinds="related")] == [garden.text]


def test_what_dsm_itself_saves_comes_in(memory: Memory, tmp_path: Path) -> None:
    dsm = DynamicSegmentedMemory(tmp_path / "storage.json", embedding_model="hash")
    dsm.write("The core logic resides in dsm/memory.py.", category_path="Software / Core", importance=0.9)
    dsm.save()
    dsm.close()
    done = memory.import_from(tmp_path / "storage.json")
    assert done.format == "dsm"
    assert [(each.text, each.category) for each in memory.get_all()] == [
        ("The core logic resides in dsm/memory.py.", ("Software", "Core"))
    ]


def test_a_file_that_has_grown_adds_only_what_is_new(memory: Memory, tmp_path: Path) -> None:
    file = written(tmp_path / "storage.json", RUST)
    memory.import_from(file)
    assert memory.import_from(file).added == 0
    done = memory.import_from(written(file, GARDEN, RUST))
    assert (done.added, done.updated, done.links) == (1, 0, 1)


def test_a_segment_that_is_none_is_told_with_its_number(memory: Memory, tmp_path: Path) -> None:
    done = memory.import_from(written(tmp_path / "storage.json", RUST, {**GARDEN, "text": 7}, "no"))
    assert [each.where for each in done.problems] == [f"storage.json segments[{number}]" for number in (1, 2)]
    assert done.added == 1


def test_a_later_version_and_a_file_cut_short_are_refused(memory: Memory, tmp_path: Path) -> None:
    with pytest.raises(NewerStore):
        memory.import_from(written(tmp_path / "storage.json", RUST, version=2))
    file = written(tmp_path / "storage.json", RUST)
    file.write_text(file.read_text()[:-30])
    with pytest.raises(InvalidInput, match="is not JSON"):
        memory.import_from(file)
