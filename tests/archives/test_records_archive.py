"""Summaries of conversations as JSON, YAML and SQLite, as Latent Memory shows them, and what only looks like them."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from memspan import InvalidInput, Memory
from memspan.archives import named
from memspan.errors import MissingExtra

from .conftest import in_little_memory, table, written

SUMMARY = (
    "You requested an artistic image illustrating algorithmic feedback loops, specifically including references to"
    " LLMs and RL."
)
JSON = f"""  {{
    "conversation_id": "0328711",
    "title": "Visualization of Algorithmic Loops",
    "timestamp": "March 28th, 11am",
    "type": "image generation",
    "summary": "{SUMMARY}"
  }}
"""
YAML = f"""- conversation_id: "0328711"
  title: "Visualization of Algorithmic Loops"
  timestamp: "March 28th, 11am"
  type: "image generation"
  summary: "{SUMMARY}"
"""
SQL = f"""
CREATE TABLE conversation_summaries (
  conversation_id TEXT PRIMARY KEY,
  title TEXT,
  timestamp TEXT,
  type TEXT,
  summary TEXT
);
INSERT INTO conversation_summaries VALUES (
  '0328711',
  'Visualization of Algorithmic Loops',
  'March 28th, 11am',
  'image generation',
  '{SUMMARY}'
);
"""


FILES: dict[str, Any] = {
    "JSON": lambda place: written(place / "a.json", JSON),
    "a JSON list": lambda place: written(place / "b.json", f"\ufeff[{JSON}]"),
    "YAML": lambda place: written(place / "a.yaml", YAML),
    "one YAML object": lambda place: written(place / "b.yml", YAML.replace("- ", "  ")),
    "JSON lines": lambda place: written(place / "c.jsonl", json.dumps(json.loads(JSON)) + "\n"),
    "SQLite": lambda place: table(place / "a b?#.db", SQL),
}


def read(tmp_path: Path, place: Path) -> Any:
    with Memory(tmp_path / "m", encoder="hash") as memory:
        return memory.import_from(place, "records"), memory.get_all()


@pytest.mark.parametrize("kind", FILES)
def test_the_summary_is_the_text_and_all_else_is_kept(tmp_path: Path, kind: str) -> None:
    place = FILES[kind](tmp_path)
    assert named("records").module.recognises(place, place.read_bytes()[: 1 << 16])
    done, (segment,) = read(tmp_path, place)
    assert (done.added, done.failed) == (1, 0)
    assert (segment.text, segment.session, segment.occurred_at) == (SUMMARY, "0328711", None)
    assert segment.metadata == {
        "title": "Visualization of Algorithmic Loops",
        "type": "image generation",
        "timestamp": "March 28th, 11am",
    }
    assert read(tmp_path, place)[0].added == 0


def test_the_same_conversation_in_another_notation_is_the_same_memory(tmp_path: Path) -> None:
    for make in FILES.values():
        _, segments = read(tmp_path, make(tmp_path))
    assert len(segments) == 1


def test_a_summary_that_has_changed_is_a_new_version(tmp_path: Path) -> None:
    read(tmp_path, written(tmp_path / "a.json", JSON))
    done, (segment,) = read(tmp_path, written(tmp_path / "a.json", JSON.replace(SUMMARY, "Something else.")))
    assert (done.updated, segment.text, segment.version) == (1, "Something else.", 2)


def test_metadata_of_our_own_is_read_without_the_vectors_beside_it(tmp_path: Path) -> None:
    with Memory(tmp_path / "a", encoder="hash") as memory:
        id = memory.add("Prefers tea.", category="Taste / Drinks", user_id="ana").ids[0]
        memory.export_to(tmp_path / "csv", "csv")
    place = tmp_path / "csv" / "metadata.json"
    assert named("records").module.recognises(place, place.read_bytes())
    _, (segment,) = read(tmp_path, place)
    assert (segment.id, segment.category, segment.user_id) == (id, ("Taste", "Drinks"), "ana")


@pytest.mark.parametrize(
    "said",
    [
        '[{"title": "t", "create_time": 1.5, "mapping": {}, "conversation_id": "c"}]',
        '[{"uuid": "u", "name": "n", "summary": "s", "chat_messages": []}]',
        '{"conversation_id": "c", "summary": {"text": "no text"}}',
        '{"type": "memspan", "format": 1}',
        "[]",
        "[1",
        "[" * 100_000,
        "",
    ],
)
def test_other_json_is_not_taken_for_it(tmp_path: Path, said: str) -> None:
    place = written(tmp_path / "conversations.json", said)
    assert not named("records").module.recognises(place, said.encode()[: 1 << 16])


def test_rows_that_cannot_be_read_are_told_by_their_number(tmp_path: Path) -> None:
    rows = [{"conversation_id": "a", "summary": "Fine."}, [], {"summary": "Whose?"}, {"conversation_id": "b"}, {
        "conversation_id": "c", "summary": "a NUL \0"}, {"conversation_id": "d", "summary": " "}]  # fmt: skip
    done, segments = read(tmp_path, written(tmp_path / "a.json", json.dumps(rows)))
    assert [each.text for each in segments] == ["Fine."]
    assert [each.where for each in done.problems] == ["a.json[1]", "a.json[2]", "a.json[b]", "a.json[c]", "a.json[d]"]


LAUGHS = "a: &a [ha, ha]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
)
BAD_YAML = {
    "billion laughs": (LAUGHS, "aliases"),
    "an object of Python's": ("- !!python/object/apply:os.system [echo]\n", None),
    "nested without end": ("[" * 100_000, "nested over 32|maximum nesting"),
    "nested deeper than is kept": ("[" * 40 + "]" * 40, "nested over 32"),
    "too many values": ("[" + "a," * 30_000 + "]", "over 20,000 values"),
    "too long": ("- a: " + "b" * (5 << 20), "over 4 MiB"),
    "as the seed's page shows it, without its indent": (YAML.replace("\n  ", "\n"), "is not YAML"),
    "control characters": ("a: \x01", "is not YAML"),
}


@pytest.mark.parametrize("what", BAD_YAML)
def test_yaml_that_is_more_than_data_is_refused_in_little_memory(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.archives.yaml.MOST_VALUES", 20_000)
    said, told = BAD_YAML[what]
    place = written(tmp_path / "a.yaml", said)
    with in_little_memory(40 << 20):
        if told is None:  # a list with one text in it, which is no row
            assert read(tmp_path, place)[0].failed == 1
        else:
            with pytest.raises(InvalidInput, match=told):
                read(tmp_path, place)


def test_a_view_or_a_virtual_table_is_not_asked(tmp_path: Path) -> None:
    endless = (
        "CREATE VIEW conversation_summaries AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT i AS conversation_id, 'text' AS summary FROM n;"
    )
    for number, script in enumerate([endless, "CREATE TABLE other (a);", "CREATE VIRTUAL TABLE conversation_summaries"
                                     " USING fts5(conversation_id, summary);"]):  # fmt: skip
        with pytest.raises(InvalidInput, match="has no table"):
            read(tmp_path, table(tmp_path / f"{number}.db", script))


def test_columns_that_are_computed_are_left_alone_and_what_is_no_text_is_told(tmp_path: Path) -> None:
    script = """
    CREATE TABLE conversation_summaries (conversation_id TEXT PRIMARY KEY, summary TEXT, "a ""b" REAL,
        more AS (hex(zeroblob(100000000))));
    INSERT INTO conversation_summaries VALUES ('c', 'Text.', 1.5), ('d', CAST(x'ff41' AS TEXT), NULL), (5, x'00', 1);
    """
    done, segments = read(tmp_path, table(tmp_path / "a.db", script))
    assert [(each.text, each.metadata) for each in segments] == [("Text.", {'a "b': 1.5}), ("\ufffdA", {})]
    assert [each.where for each in done.problems] == ["a.db[5]"]


def test_a_damaged_table_is_refused_and_the_file_stays_as_it_was(tmp_path: Path) -> None:
    place = table(tmp_path / "a.db", SQL)
    before = place.read_bytes()
    read(tmp_path, place)
    assert place.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.db", "m"]
    place.write_bytes(before[:4096] + bytes(len(before) - 4096))
    with pytest.raises(InvalidInput, match=r"a\.db"):
        read(tmp_path, place)


def test_what_is_still_in_the_log_of_a_table_is_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SQL)
        assert [each.text for each in read(tmp_path, tmp_path / "a.db")[1]] == [SUMMARY]


def test_without_pyyaml_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra, match=r"memspan\[yaml\]"):
        read(tmp_path, written(tmp_path / "a.yaml", YAML))
