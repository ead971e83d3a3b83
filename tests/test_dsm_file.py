"""Where DSM keeps its segments: a directory, or the file of the original, which goes both ways."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memspan import Memory
from memspan.dsm import DynamicSegmentedMemory
from memspan.errors import (
    EncoderMismatch,
    InvalidInput,
    NewerStore,
    NotAStore,
    NotFound,
    NotWritable,
    StoreCorrupt,
    StoreError,
)

RUST = "Rust websocket backpressure is handled with bounded channels and async cancellation."
HISTORY = "Medieval history contains dynasties, battles and trade routes."
GARDEN = "Tomatoes in the garden want water every evening."

# A file as the original writes it, field by field: its models' to_dict, its limits, two of its own empty categories.
GOLDEN: dict[str, Any] = {
    "version": 1,
    "segment_token_limit": 1000,
    "active_segment_limit": 3,
    "active_token_budget": 4000,
    "embedding_dim": 4,
    "segments": [
        {
            "id": "5f0c6f7e8b7a4c3d9e2f1a0b9c8d7e6f",
            "text": RUST,
            "description": "How the websocket service breathes",
            "category_path": ["Programming", "Rust", "Async"],
            "embedding": [0.5, 0.5, 0.5, 0.5],
            "links": ["a7b2c3d4e5f60718293a4b5c6d7e8f90"],
            "priorities": {"relevance": 0.61, "importance": 0.9, "recency": 0.75, "frequency": 0.16},
            "created_at": 1716000000.123456,
            "updated_at": 1716000100.25,
            "last_accessed_at": 1716000200.5,
            "access_count": 2,
            "metadata": {"source": "notes.md", "dsm": {"nested": [1, 2.5, None, "ü"]}},
        },
        {
            "id": "a7b2c3d4e5f60718293a4b5c6d7e8f90",
            "text": HISTORY,
            "description": HISTORY,
            "category_path": ["History", "Medieval"],
            "embedding": [0.5, -0.5, 0.5, -0.5],
            "links": ["5f0c6f7e8b7a4c3d9e2f1a0b9c8d7e6f"],
            "priorities": {"relevance": 0.5, "importance": 0.5, "recency": 1.0, "frequency": 0.0},
            "created_at": 1716000001.0,
            "updated_at": 1716000001.0,
            "last_accessed_at": 1716000001.0,
            "access_count": 0,
            "metadata": {},
        },
    ],
    "categories": {
        "name": "Memory",
        "path": [],
        "embedding": [0.0, 0.0, 0.0, 0.0],
        "segment_ids": [],
        "created_at": 1716000000.0,
        "updated_at": 1716000000.0,
        "children": {
            "Programming": {
                "name": "Programming",
                "path": ["Programming"],
                "embedding": [1.0, 0.0, 0.0, 0.0],
                "segment_ids": [],
                "created_at": 1716000000.0,
                "updated_at": 1716000000.0,
                "children": {
                    "Api": {
                        "name": "Api",
                        "path": ["Programming", "Api"],
                        "embedding": [1.0, 0.0, 0.0, 0.0],
                        "segment_ids": [],
                        "created_at": 1716000000.0,
                        "updated_at": 1716000000.0,
                        "children": {},
                    }
                },
            }
        },
    },
    "graph": {
        "5f0c6f7e8b7a4c3d9e2f1a0b9c8d7e6f": ["a7b2c3d4e5f60718293a4b5c6d7e8f90"],
        "a7b2c3d4e5f60718293a4b5c6d7e8f90": ["5f0c6f7e8b7a4c3d9e2f1a0b9c8d7e6f"],
    },
}


def opened(path: object = None, **options: Any) -> DynamicSegmentedMemory:
    options.setdefault("embedding_model", "hash")
    return DynamicSegmentedMemory(path, **options)  # type: ignore[arg-type]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    file = tmp_path / "golden.json"
    file.write_text(json.dumps(GOLDEN), encoding="utf-8")
    return file


def texts(memory: DynamicSegmentedMemory) -> set[str]:
    return {segment.text for segment in memory.segments.values()}


# Where it is kept


def test_without_a_path_nothing_is_written_until_save_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened() as memory:
        memory.write(RUST)
        with pytest.raises(InvalidInput, match=r"save\('memory.json'\)"):
            memory.save()
        with pytest.raises(InvalidInput, match="storage_path"):
            memory.load()
        assert list(tmp_path.iterdir()) == []
        memory.save("kept.json")
    with opened("kept.json") as restored:
        assert texts(restored) == {RUST}


def test_a_directory_is_durable_at_every_write(tmp_path: Path) -> None:
    memory = opened(tmp_path / "store", segment_token_limit=50)
    (first,) = memory.write(RUST, category_path="Programming", description="Sockets", metadata={"a": 1})
    (second,) = memory.write(HISTORY, category_path="Programming")
    memory.decay_priorities(0.25)
    with opened(tmp_path / "store", embedding_model=None) as other:  # not closed, not saved
        assert dict(other.segments) == {first.id: memory.segments[first.id], second.id: memory.segments[second.id]}
        assert other.segments[first.id].description == "Sockets"
        assert other.segments[first.id].priorities.recency == 0.75
        assert other.segments[first.id].links == {second.id}
        assert other.route("Rust websocket backpressure", k=1)[0].segment.id == first.id
        other.save()
    memory.close()
    with opened(tmp_path / "store") as later:
        assert later.segments[first.id].access_count == 1
    with Memory(tmp_path / "store") as plain:
        assert plain.search("Rust websocket backpressure", k=1)[0].category == ("Programming",)


def test_a_store_of_another_encoder_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "store").close()
    with pytest.raises(EncoderMismatch):
        opened(tmp_path / "store", embedding_model="hash:64")


class Counting:
    """A model of the original's kind: one text at a time, vectors of any length."""

    dim = 4

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, text: str) -> list[float]:
        self.texts.append(text)
        words = text.casefold().split()
        return [
            float(sum(word[0] in letters for word in words)) for letters in ("abcdef", "ghijkl", "mnopqr", "stuvwxyz")
        ]


def test_a_model_of_the_original_gives_the_vectors(tmp_path: Path) -> None:
    with opened(tmp_path / "own.json", embedding_model=Counting()) as memory:
        (segment,) = memory.write("alpha beta gamma")
        assert segment.embedding == pytest.approx(np.array([2, 1, 0, 0]) / math.sqrt(5), abs=1e-3)
        assert memory.route("alpha delta gamma", k=1)[0].similarity == pytest.approx(1, abs=1e-3)
        memory.save()
    assert json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))["embedding_dim"] == 4
    model = Counting()
    with opened(tmp_path / "own.json", embedding_model=model) as restored:
        assert restored.segments[segment.id].embedding == segment.embedding


def test_a_file_with_the_models_own_vectors_is_opened_without_encoding_every_text(tmp_path: Path) -> None:
    with opened(tmp_path / "own.json", embedding_model=Counting()) as memory:
        for i in range(60):
            memory.write(f"{'amgs'[i % 4]} entry {i}", update_existing=False, link_related=False)
        memory.save()
    model = Counting()
    with opened(tmp_path / "own.json", embedding_model=model) as restored:
        assert len(restored.segments) == 60
        assert restored.stats()["index_size"] == 60
    assert len(model.texts) < 10


def test_without_an_encoder_words_still_find(tmp_path: Path) -> None:
    with opened(tmp_path / "words.json", embedding_model="none") as memory:
        memory.write(RUST)
        memory.write(HISTORY)
        (found,) = memory.route("battles and dynasties", k=1)
        assert (found.segment.text, found.similarity, found.segment.embedding) == (HISTORY, 0.0, ())
        memory.save()
    with opened(tmp_path / "words.json") as restored:
        assert texts(restored) == {RUST, HISTORY}


# The file


def as_the_original_reads(data: dict[str, Any]) -> None:
    """What its loader takes for granted."""
    assert list(data) == list(GOLDEN)
    assert all(isinstance(data[name], int) for name in list(GOLDEN)[:5])
    places = {}
    for segment in data["segments"]:
        assert list(segment) == list(GOLDEN["segments"][0])
        assert list(segment["priorities"]) == ["relevance", "importance", "recency", "frequency"]
        assert len(segment["embedding"]) == data["embedding_dim"]
        assert all(isinstance(value, float) for value in segment["embedding"])
        assert isinstance(segment["access_count"], int)
        assert segment["links"] == sorted(segment["links"])
        places[segment["id"]] = segment["category_path"]
    assert {id: sorted(ids) for id, ids in data["graph"].items()} == {s["id"]: s["links"] for s in data["segments"]}
    todo = [([], "Memory", data["categories"])]
    while todo:
        path, name, node = todo.pop()
        assert list(node) == list(GOLDEN["categories"])
        assert (node["name"], node["path"]) == (name, path)
        assert len(node["embedding"]) == data["embedding_dim"]
        for id in node["segment_ids"]:
            assert places.pop(id) == path
        todo += [([*path, below], below, child) for below, child in node["children"].items()]
    assert places == {}  # every segment stands at its place in the tree


def test_a_file_of_the_original_opens_with_every_field(golden: Path) -> None:
    with opened(golden) as memory:
        assert list(memory.segments) == [segment["id"] for segment in GOLDEN["segments"]]
        for wanted in GOLDEN["segments"]:
            segment = memory.segments[wanted["id"]]
            assert {**segment.to_dict(), "embedding": None} == {**wanted, "embedding": None}
            assert len(segment.embedding) == 256  # the vectors are of the encoder in use
        assert (memory.segment_token_limit, memory.active_segment_limit) == (1000, 3)
        assert memory.active_token_budget == 4000
        assert memory.route("how does the websocket service breathe?", k=1)[0].segment.text == RUST


def test_a_file_goes_through_unchanged_but_for_vectors_and_times_of_the_tree(golden: Path) -> None:
    with opened(golden) as memory:
        memory.save()
    written = json.loads(golden.read_text(encoding="utf-8"))
    as_the_original_reads(written)
    again = {**written, "embedding_dim": 4, "categories": None}
    again["segments"] = [
        {**segment, "embedding": wanted["embedding"]}
        for segment, wanted in zip(written["segments"], GOLDEN["segments"], strict=True)
    ]
    assert again == {**GOLDEN, "categories": None}
    programming = written["categories"]["children"]["Programming"]
    assert set(programming["children"]) == {"Rust", "Api"}  # an empty category stays
    with opened(golden) as memory:
        memory.save()
    assert json.loads(golden.read_text(encoding="utf-8"))["segments"] == written["segments"]


def test_what_is_written_here_is_in_the_file_as_the_original_has_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "own.json"
    with opened(file) as memory:
        (a,) = memory.write(RUST, category_path="Programming / Rust", metadata={"ü": "漢"})
        memory.write("Tokio tasks end at an await.", category_path="Programming / Rust", description="Tokio")
        memory.write("naïve café 漢字 🦀 \u0421\u043b\u043e\u0432\u043e", importance=1.0)
        memory.route("Rust websocket backpressure", k=1)
        memory.save()
        saved = {id: segment.to_dict() for id, segment in memory.segments.items()}
    data = json.loads(file.read_text(encoding="utf-8"))
    as_the_original_reads(data)
    assert {segment["id"]: segment for segment in data["segments"]} == saved
    assert data["embedding_dim"] == 256
    assert list(file.parent.iterdir()) == [file]
    with opened(file) as restored:
        assert {id: segment.to_dict() for id, segment in restored.segments.items()} == saved
        assert restored.segments[a.id].metadata == {"ü": "漢"}
        restored.write(HISTORY)
        restored.load()
        assert len(restored.segments) == 3  # what was not saved is let go


@given(text=st.text(min_size=1, max_size=300), name=st.text(min_size=1, max_size=20))
def test_any_text_comes_back_from_the_file_to_the_character(
    text: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("any") / "own.json"
    with opened(file) as memory:
        try:
            written = memory.write(text, category_path=[name], metadata={name: text})
        except InvalidInput:  # a NUL character, half of a pair
            return
        memory.save()
    with opened(file) as restored:
        assert [segment.to_dict() for segment in restored.segments.values()] == [
            {**segment.to_dict(), "links": []} for segment in written
        ]


BROKEN: dict[str, tuple[Any, type[StoreError]]] = {
    "not json": ("{", StoreCorrupt),
    "cut": (json.dumps(GOLDEN)[:-40], StoreCorrupt),
    "not text": (b"\xff\xfe\x00", StoreCorrupt),
    "too deep": ("[" * 100_000, StoreCorrupt),
    "a list": ([], NotAStore),
    "something else": ({"name": "a package", "version": "1.0"}, NotAStore),
    "newer": ({**GOLDEN, "version": 2}, NewerStore),
    "a segment is no object": ({"segments": [1]}, StoreCorrupt),
    "no id": ({"segments": [{"text": "a"}]}, StoreCorrupt),
    "no text": ({"segments": [{"id": "a"}]}, StoreCorrupt),
    "an id twice": ({"segments": [{"id": "a", "text": "a"}, {"id": "a", "text": "b"}]}, StoreCorrupt),
    "a time that is none": ({"segments": [{"id": "a", "text": "a", "created_at": "now"}]}, StoreCorrupt),
    "a time that is not finite": ('{"segments": [{"id": "a", "text": "a", "created_at": Infinity}]}', StoreCorrupt),
    "links of numbers": ({"segments": [{"id": "a", "text": "a", "links": [1]}]}, StoreCorrupt),
    "a limit of none": ({"segments": [], "active_segment_limit": 0}, StoreCorrupt),
    "a category of nothing": ({"segments": [], "categories": {"children": {"A": 1}}}, StoreCorrupt),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_not_as_it_should_be_is_refused_and_never_overwritten(kind: str, tmp_path: Path) -> None:
    content, expected = BROKEN[kind]
    raw = (
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    file = tmp_path / "store.json"
    file.write_bytes(raw)
    with pytest.raises(expected, match=r"store\.json"):
        opened(file)
    with opened() as memory:
        memory.write(RUST)
        with pytest.raises(StoreError):
            memory.save(file)
    assert file.read_bytes() == raw
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_somebody_else_changed_is_not_overwritten(golden: Path) -> None:
    with opened(golden) as mine, opened(golden) as theirs:
        theirs.write(GARDEN)
        theirs.save()
        theirs.save()
        mine.write("Something else entirely.")
        with pytest.raises(StoreError, match=r"load\(\)"):
            mine.save()
        golden.write_text("{", encoding="utf-8")
        with pytest.raises(StoreCorrupt):
            mine.load()
        with pytest.raises(StoreError):
            mine.save()
        assert "Something else entirely." in texts(mine)  # a load that fails changes nothing
    assert golden.read_text(encoding="utf-8") == "{"


def test_a_file_that_is_gone_is_missed_by_load_and_made_by_save(golden: Path) -> None:
    with opened(golden) as memory:
        golden.unlink()
        with pytest.raises(NotFound):
            memory.load()
        memory.save()
    as_the_original_reads(json.loads(golden.read_text(encoding="utf-8")))


# Counting and pruning


def test_nothing_is_pruned_when_the_archive_cannot_be_written(golden: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{", encoding="utf-8")
    with opened(golden) as memory:
        with pytest.raises(StoreCorrupt):
            memory.prune(max_segments=0, archive_path=broken)
        with pytest.raises(NotWritable):
            memory.prune(max_segments=0, archive_path=broken / "below" / "old.json")
        with pytest.raises(InvalidInput, match="archive_path"):
            memory.prune(max_segments=0, archive_path=golden)
        assert len(memory.segments) == 2
    assert broken.read_text(encoding="utf-8") == "{"
    assert json.loads(golden.read_text(encoding="utf-8")) == GOLDEN


def test_stats_count_what_is_there(golden: Path) -> None:
    with opened(golden) as memory:
        assert memory.stats() == {
            "segments": 2,
            "categories": 7,  # the root, Programming with Rust, Async and the empty Api, History with Medieval
            "graph_edges": 1,
            "estimated_tokens": len(RUST.split()) + len(HISTORY.split()),
            "index_size": 3,  # the texts, and a description that does not repeat its text
            "segment_token_limit": 1000,
            "active_segment_limit": 3,
            "active_token_budget": 4000,
        }
