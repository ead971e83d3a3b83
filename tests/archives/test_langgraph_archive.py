"""The store of LangGraph, read: its items as JSON, and the file of its SqliteStore."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from memspan import Memory
from memspan.errors import InvalidInput

TEA = {
    "namespace": ["memories", "ana"],
    "key": "7f1f6a3e",
    "value": {"text": "Prefers tea.", "topic": "drinks"},
    "created_at": "2025-03-01T10:00:00+00:00",
    "updated_at": "2025-03-02T10:00:00+01:00",
}
LANGMEM = {
    "namespace": ["memories", "ben"],
    "key": "b",
    "value": {"kind": "Memory", "content": {"content": "Plays chess."}},
    "created_at": "2025-03-01T10:00:00+00:00",
    "updated_at": "2025-03-01T10:00:00+00:00",
}
PROFILE = {
    "namespace": ["profile"],
    "key": "ana",
    "value": {"name": "Ana", "home": {"city": "Lisbon", "floor": 3}, "likes": ["tea", "bees"], "empty": None},
    "created_at": "2025-03-01T10:00:00+00:00",
    "updated_at": "2025-03-01T10:00:00+00:00",
}


def kept(memory: Memory) -> dict[str, Any]:
    return {each.metadata["key"]: each for each in memory.get_all()}


@pytest.mark.parametrize("form", ["list", "lines", "search"])
def test_items_keep_text_value_namespace_and_times(memory: Memory, tmp_path: Path, form: str) -> None:
    items = [TEA, LANGMEM, PROFILE]
    whole = {
        "list": json.dumps(items, indent=1),
        "lines": "\n".join(map(json.dumps, items)),
        "search": json.dumps({"items": items}),
    }
    (tmp_path / "store.json").write_text(whole[form])
    done = memory.import_from(tmp_path / "store.json")
    assert (done.format, done.added, done.failed) == ("langgraph", 3, 0)
    tea = kept(memory)["7f1f6a3e"]
    assert (tea.text, tea.category) == ("Prefers tea.", ("memories", "ana"))
    assert tea.recorded_at == datetime(2025, 3, 2, 9, tzinfo=UTC)
    assert tea.metadata["created_at"] == "2025-03-01T10:00:00+00:00"
    assert (tea.metadata["value"], tea.metadata["field"]) == ({"topic": "drinks"}, ["text"])
    assert [hit.text for hit in memory.search("drinks", filters={"value.topic": "drinks"})] == ["Prefers tea."]
    assert kept(memory)["b"].text == "Plays chess."
    assert kept(memory)["b"].metadata["value"] == {"kind": "Memory", "content": {}}
    profile = kept(memory)["ana"]
    assert profile.text == "name: Ana\nhome.city: Lisbon\nhome.floor: 3\nlikes: tea, bees"
    assert profile.metadata["value"] == PROFILE["value"]


def test_an_item_that_was_put_again_is_a_new_version(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "store.json"
    file.write_text(json.dumps([TEA]))
    memory.import_from(file)
    assert memory.import_from(file).added == 0
    later = {**TEA, "value": {"text": "Prefers coffee."}, "updated_at": "2025-04-01T00:00:00+00:00"}
    file.write_text(json.dumps([later, PROFILE]))
    done = memory.import_from(file)
    assert (done.added, done.updated) == (2, 1)
    (coffee,) = (each for each in memory.get_all() if each.metadata["key"] == "7f1f6a3e")
    assert coffee.text == "Prefers coffee."
    assert [event.text for event in memory.history(coffee.id)] == ["Prefers tea.", "Prefers coffee."]


def store(path: Path, *rows: tuple[str, str, str, str, str]) -> Path:
    """A file with the tables that SqliteStore of langgraph-checkpoint-sqlite 3.1 makes, left in WAL mode as it does."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(
        "CREATE TABLE store (prefix text NOT NULL, key text NOT NULL, value text NOT NULL,"
        " created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,"
        " expires_at TIMESTAMP, ttl_minutes REAL, PRIMARY KEY (prefix, key));"
        "CREATE TABLE store_migrations (v INTEGER PRIMARY KEY);"
    )
    insert = "INSERT INTO store (prefix, key, value, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"
    connection.executemany(insert, rows)
    connection.commit()
    connection.close()
    return path


def test_the_file_of_a_sqlite_store_is_read_and_left_as_it_is(memory: Memory, tmp_path: Path) -> None:
    when = ("2025-03-01 10:00:00", "2025-03-01 10:00:00")
    file = store(
        tmp_path / "store.db",
        ("memories.ana", "tea", json.dumps({"memory": "Prefers tea."}), *when),
        ("memories.ana", "bad", "{", *when),
        ("memories.ben", "chess", json.dumps({"content": "Plays chess."}), *when),
    )
    before = file.read_bytes(), sorted(tmp_path.glob("store.db*"))
    done = memory.import_from(file)
    assert (done.format, done.added, [each.where for each in done.problems]) == ("langgraph", 2, ["store.db[2]"])
    tea = kept(memory)["tea"]
    assert (tea.category, tea.recorded_at) == (("memories", "ana"), datetime(2025, 3, 1, 10, tzinfo=UTC))
    assert (file.read_bytes(), sorted(tmp_path.glob("store.db*"))) == before
    assert memory.import_from(file).added == 0


def test_what_is_only_in_the_log_of_an_open_store_is_read_too(memory: Memory, tmp_path: Path) -> None:
    file = store(tmp_path / "store.db")
    writer = sqlite3.connect(file)
    try:
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        writer.execute("INSERT INTO store (prefix, key, value) VALUES ('a', 'k', '{\"text\": \"In the log.\"}')")
        writer.commit()
        memory.import_from(file)
    finally:
        writer.close()
    assert [each.text for each in memory.get_all()] == ["In the log."]


def test_a_view_that_poses_as_the_table_is_not_asked(memory: Memory, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute(
        "CREATE VIEW store AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT 'a' AS prefix, i AS key, '{}' AS value FROM n"
    )
    connection.commit()
    connection.close()
    with pytest.raises(InvalidInput, match="has no table of a LangGraph store"):
        memory.import_from(tmp_path / "store.db", "langgraph")


def test_items_that_are_none_are_told_with_their_number(memory: Memory, tmp_path: Path) -> None:
    odd: list[Any] = [
        TEA,
        7,
        {**TEA, "namespace": "a"},
        {**TEA, "value": []},
        {**TEA, "key": "k", "created_at": "soon"},
    ]
    (tmp_path / "store.json").write_text(json.dumps(odd))
    done = memory.import_from(tmp_path / "store.json")
    assert [each.where for each in done.problems] == [f"store.json[{number}]" for number in (1, 2, 3, 4)]
    assert done.added == 1


def test_a_database_that_is_cut_short_is_refused(memory: Memory, tmp_path: Path) -> None:
    rows = [("a", str(number), json.dumps({"text": "word " * 400}), "2025-03-01", "2025-03-01") for number in range(50)]
    file = store(tmp_path / "store.db", *rows)
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(InvalidInput):
        memory.import_from(file, "langgraph")
