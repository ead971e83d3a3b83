"""What holds of all files of other systems: those that are none of them, and what is read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memspan import InvalidInput, Memory

from .conftest import written


@pytest.mark.parametrize("format", ["mcp", "mem0", "langgraph", "chatgpt", "claude", "dsm"])
@pytest.mark.parametrize("content", ['{\n  "other": [1, 2],\n  "more": {}\n}', '{"other": [1, 2]}', "[7]", "no JSON\n"])
def test_another_file_under_a_format_that_is_named_is_told_or_refused(
    memory: Memory, tmp_path: Path, format: str, content: str
) -> None:
    file = written(tmp_path / "other.json", content)
    try:
        failed = memory.import_from(file, format).failed
    except InvalidInput as error:
        failed = int("other.json" in str(error))
    assert failed
    assert memory.get_all() == []


@pytest.mark.parametrize("format", ["mcp", "mem0"])
def test_a_graph_or_a_list_that_is_empty_is_read(memory: Memory, tmp_path: Path, format: str) -> None:
    content = json.dumps({"entities": [], "relations": [], "results": []}, indent=1)
    done = memory.import_from(written(tmp_path / "empty.json", content), format)
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
