"""What mem0 leaves, read: the JSON of get_all, history.db, and the folder of a local Qdrant."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sqlite3
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memspan import Memory
from memspan.archives import qdrant
from memspan.errors import InvalidInput

from .conftest import Gadget, at, table

TEA: dict[str, Any] = {
    "id": "7f1f6a3e-6c1f-4a52-9a0e-3e1f7b0a1c11",
    "memory": "Prefers tea.",
    "hash": "0cc175b9c0f1b6a831c399e269772661",
    "metadata": {"topic": "drinks"},
    "categories": ["food"],
    "score": None,
    "created_at": "2025-03-01T10:00:00-08:00",
    "updated_at": "2025-03-02T10:00:00-08:00",
    "user_id": "ana",
    "agent_id": "helper",
    "run_id": "r1",
    "role": "user",
    "actor_id": "Ana",
}
CHESS: dict[str, Any] = {
    "id": "11111111-6c1f-4a52-9a0e-3e1f7b0a1c11",
    "memory": "Plays chess.",
    "created_at": "2025-03-01T10:00:00+00:00",
    "updated_at": None,
    "user_id": "ben",
}
HISTORY = (
    "CREATE TABLE history (id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, new_memory TEXT, event TEXT,"
    " created_at DATETIME, updated_at DATETIME, is_deleted INTEGER, actor_id TEXT, role TEXT)"
)


@pytest.mark.parametrize("form", ["list", "results", "page", "lines"])
def test_what_get_all_returns_keeps_owner_metadata_and_times(memory: Memory, tmp_path: Path, form: str) -> None:
    relation = {"source": "ana", "relationship": "lives_in", "target": "lisbon"}
    whole = {
        "list": json.dumps([TEA, CHESS]),
        "results": json.dumps({"results": [TEA, CHESS], "relations": [relation]}, indent=2),
        "page": json.dumps({"count": 2, "next": None, "results": [TEA, CHESS]}),
        "lines": json.dumps(TEA) + "\n" + json.dumps(CHESS),
    }
    (tmp_path / "mem0.json").write_text(whole[form])
    done = memory.import_from(tmp_path / "mem0.json")
    assert (done.format, done.added, done.failed) == ("mem0", 3 if form == "results" else 2, 0)
    (tea,) = memory.get_all(user_id="ana")
    assert (tea.text, tea.agent_id, tea.run_id, tea.role, tea.speaker) == (
        "Prefers tea.",
        "helper",
        "r1",
        "user",
        "Ana",
    )
    assert tea.recorded_at == at(2025, 3, 2, 18)
    assert tea.metadata == {"topic": "drinks", "categories": ["food"], "created_at": "2025-03-01T18:00:00+00:00"}
    (chess,) = memory.get_all(user_id="ben")
    assert (chess.recorded_at, dict(chess.metadata)) == (at(2025, 3, 1, 10), {})
    if form == "results":
        assert memory.search("lives in lisbon", k=1)[0].text == "ana lives in lisbon"


def test_an_export_that_has_grown_adds_only_what_is_new(memory: Memory, tmp_path: Path) -> None:
    file = tmp_path / "mem0.json"
    file.write_text(json.dumps({"results": [TEA]}))
    memory.import_from(file)
    assert memory.import_from(file).added == 0
    later = {**TEA, "memory": "Prefers coffee.", "updated_at": "2025-05-01T00:00:00Z"}
    file.write_text(json.dumps({"results": [CHESS, later]}))
    done = memory.import_from(file)
    assert (done.added, done.updated) == (2, 1)
    assert [each.text for each in memory.get_all(user_id="ana")] == ["Prefers coffee."]


def test_a_memory_that_is_none_is_told_with_its_number(memory: Memory, tmp_path: Path) -> None:
    odd = [
        TEA,
        "no",
        {**CHESS, "id": 7},
        {**CHESS, "memory": ""},
        {**CHESS, "created_at": "soon"},
        {**CHESS, "metadata": 3},
    ]
    (tmp_path / "mem0.json").write_text(json.dumps(odd))
    done = memory.import_from(tmp_path / "mem0.json")
    assert [each.where for each in done.problems] == [f"mem0.json[{number}]" for number in range(1, 6)]
    assert done.added == 1


def test_history_gives_every_version_in_the_order_of_time_and_nothing_deleted(memory: Memory, tmp_path: Path) -> None:
    first, later = "2025-01-01T00:00:00+00:00", "2025-02-01T00:00:00+00:00"
    rows = [
        ("1", "a", None, "Lives in Porto.", "ADD", first, None, 0, "Ana", "user"),
        ("2", "b", None, "Has a cat.", "ADD", first, None, 0, None, None),
        ("3", "a", "Lives in Porto.", "Lives in Lisbon.", "UPDATE", first, later, 0, "Ana", "user"),
        ("4", "b", "Has a cat.", None, "DELETE", first, later, 1, None, None),
        ("5", "c", "Has a boat.", "Sold the boat.", "UPDATE", first, later, 0, None, None),
        ("6", "d", None, "Sings.", "ADD", "soon", None, 0, None, None),
    ]
    connection = sqlite3.connect(tmp_path / "history.db")
    connection.execute(HISTORY)
    connection.executemany(f"INSERT INTO history VALUES ({', '.join('?' * 10)})", rows)
    connection.commit()
    connection.close()
    done = memory.import_from(tmp_path / "history.db", user_id="ana")
    assert (done.format, done.added, [each.where for each in done.problems]) == ("mem0", 4, ["history.db[6]"])
    kept = {each.text: each for each in memory.get_all(user_id="ana")}
    assert set(kept) == {"Lives in Lisbon.", "Sold the boat."}
    lisbon = kept["Lives in Lisbon."]
    assert (lisbon.version, lisbon.speaker, lisbon.recorded_at) == (2, "Ana", at(2025, 2, 1))
    assert [(event.text, event.at) for event in memory.history(lisbon.id)] == [
        ("Lives in Porto.", at(2025, 1, 1)),
        ("Lives in Lisbon.", at(2025, 2, 1)),
    ]
    then = memory.search("Where does she live?", user_id="ana", as_of="2025-01-15")
    assert "Lives in Porto." in [hit.text for hit in then]
    assert memory.import_from(tmp_path / "history.db", user_id="ana").added == 0


# Qdrant pickles its points as instances of its own classes; these have their names and their state.


class PointStruct:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def __getstate__(self) -> dict[str, Any]:
        return {"__dict__": self.__dict__, "__pydantic_extra__": None, "__pydantic_fields_set__": set(self.__dict__),
                "__pydantic_private__": None}  # fmt: skip


class SparseVector(PointStruct):
    pass


MODELS = "qdrant_client.http.models.models"


@pytest.fixture
def _qdrant(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(MODELS)
    for each in (PointStruct, SparseVector):
        monkeypatch.setattr(each, "__module__", MODELS)
        setattr(module, each.__name__, each)
    for name in ("qdrant_client", "qdrant_client.http", "qdrant_client.http.models"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, MODELS, module)


def folder(path: Path, **collections: list[bytes]) -> Path:
    (path / "collection").mkdir(parents=True)
    (path / "meta.json").write_text(json.dumps({"collections": dict.fromkeys(collections), "aliases": {}}))
    for name, blobs in collections.items():
        (path / "collection" / name).mkdir()
        connection = sqlite3.connect(path / "collection" / name / "storage.sqlite")
        connection.execute("CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)")
        rows = [(base64.b64encode(pickle.dumps(number)).decode(), blob) for number, blob in enumerate(blobs)]
        connection.executemany("INSERT INTO points VALUES (?, ?)", rows)
        connection.commit()
        connection.close()
    return path


def point(id: Any, payload: Any, vector: Any = (0.1, 0.2)) -> bytes:
    return pickle.dumps(PointStruct(id=id, vector=vector, payload=payload))


@pytest.mark.usefixtures("_qdrant")
def test_the_folder_of_a_local_qdrant_holds_what_get_all_returns(memory: Memory, tmp_path: Path) -> None:
    payload = {
        "data": "Prefers tea.",
        "user_id": "ana",
        "hash": "x",
        "created_at": "2025-03-01T10:00:00+00:00",
        "topic": "drinks",
    }
    sparse = {"": [0.1] * 8, "bm25": SparseVector(indices=[1], values=[2.0])}
    blobs = [point(TEA["id"], payload, sparse), point(5, {"data": "Plays chess."}, [0.5] * 1536)]
    entity = point(6, {"data": "tea", "entity_type": "drink", "linked_memory_ids": [TEA["id"]]})
    done = memory.import_from(
        folder(tmp_path / "qdrant", mem0=blobs, mem0_entities=[entity], mem0migrations=[point(1, {"user_id": "u"})])
    )
    assert (done.format, done.added, done.failed) == ("mem0", 2, 0)
    (tea,) = memory.get_all(user_id="ana")
    assert (tea.text, dict(tea.metadata), tea.recorded_at) == ("Prefers tea.", {"topic": "drinks"}, at(2025, 3, 1, 10))
    assert memory.import_from(tmp_path / "qdrant").added == 0


@pytest.mark.usefixtures("_qdrant")
def test_ids_that_are_uuids_and_times_that_are_no_texts_are_read(memory: Memory, tmp_path: Path) -> None:
    made = {"data": "Prefers tea.", "created_at": at(2025, 3, 1, 10)}
    memory.import_from(folder(tmp_path / "qdrant", mem0=[point(uuid.UUID(TEA["id"]), made, np.zeros(2))]))
    memory.import_from(folder(tmp_path / "again", mem0=[point(TEA["id"], made)]))
    (tea,) = memory.get_all()
    assert tea.recorded_at == at(2025, 3, 1, 10)


@pytest.mark.usefixtures("_qdrant")
def test_a_collection_that_is_damaged_is_told_and_the_others_come_in(memory: Memory, tmp_path: Path) -> None:
    place = folder(tmp_path / "qdrant", bad=[point(1, {"data": "Lost."})], good=[point(2, {"data": "Kept."})])
    (place / "collection" / "bad" / "storage.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4096))
    done = memory.import_from(place)
    assert [each.where for each in done.problems] == ["bad/storage.sqlite"]
    assert [each.text for each in memory.get_all()] == ["Kept."]


def test_the_folder_of_the_real_client_is_read(memory: Memory, tmp_path: Path) -> None:
    client_module = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    models = client_module.models
    client = client_module.QdrantClient(path=str(tmp_path / "qdrant"))
    client.create_collection("mem0", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    payload = {"data": "Prefers tea.", "user_id": "ana", "created_at": "2025-03-01T10:00:00+00:00"}
    client.upsert("mem0", points=[models.PointStruct(id=TEA["id"], vector=[0.1, 0.2], payload=payload)])
    client.close()
    assert memory.import_from(tmp_path / "qdrant").added == 1
    assert [each.text for each in memory.get_all(user_id="ana")] == ["Prefers tea."]


def doubled() -> bytes:
    """A tuple that holds the one before twice, a hundred times: its hash and its text would never end."""
    return b"K\x01" + b"".join(b"q%ch%c\x86" % (number, number) for number in range(100, 200))


def endless() -> Any:
    """The same as a value."""
    value: Any = (1, 1)
    for _ in range(100):
        value = (value, value)
    return value


HOSTILE = {
    "a command": (
        lambda: pickle.dumps(Gadget(os.system, "touch /tmp/never")),
        "holds posix.system, which was refused",
    ),
    "an import": (lambda: pickle.dumps(Gadget(eval, "1")), "holds builtins.eval, which was refused"),
    "an old pickle": (lambda: b"cos\nsystem\n(S'true'\ntR.", "holds os.system, which was refused"),
    "bytes there are not": (lambda: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "is no whole pickle"),
    "a far memo": (lambda: b"\x80\x04Nr\xff\xff\xff\xff.", "is none of Qdrant's"),
    "deep tuples": (
        lambda: b"\x80\x04\x8f(K\x01" + b"\x85" * 100_000 + b"\x90.",
        "holds a tuple as a key, which was refused",
    ),
    "tuples without end": (
        lambda: b"\x80\x04\x8f(" + doubled() + b"\x90.",
        "holds a tuple as a key, which was refused",
    ),
    "an id without end": (lambda: point(endless(), {"data": "x"}), "has a tuple as its id"),
    "a text without end": (lambda: point("i", {"data": endless()}), "tuple is not text"),
    "metadata without end": (lambda: point("i", {"data": "x", "more": endless()}), "holds over 524,288 values"),
    "no pickle": (lambda: b"hello", "is no whole pickle"),
    "nothing": (lambda: b"", "is no whole pickle"),
    "a plain value": (lambda: pickle.dumps({"data": "x"}), "is none of Qdrant's"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("_qdrant")
def test_a_pickle_that_wants_more_is_refused_and_the_others_come_in(memory: Memory, tmp_path: Path, name: str) -> None:
    make, problem = HOSTILE[name]
    blobs = [point(1, {"data": "Before."}), make(), point(2, {"data": "After."})]
    done = memory.import_from(folder(tmp_path / "qdrant", mem0=blobs))
    told = [(each.where, each.problem.partition(" (")[0]) for each in done.problems]
    ((where, said),) = told
    assert said.endswith(problem)
    assert where in ("mem0/storage.sqlite[2]", "qdrant[i]")
    assert sorted(each.text for each in memory.get_all()) == ["After.", "Before."]


@pytest.mark.usefixtures("_qdrant")
def test_reading_points_imports_nothing_of_qdrants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [point(1, {"data": "Here."})]
    for name in [each for each in sys.modules if each.startswith("qdrant_client")]:
        monkeypatch.delitem(sys.modules, name)
    made = list(qdrant.points(folder(tmp_path / "qdrant", mem0=blobs), lambda problem: None))
    assert [payload for *_, payload in made] == [{"data": "Here."}]
    assert not any(name.startswith("qdrant_client") for name in sys.modules)


def test_a_folder_without_collections_and_a_database_without_a_history_are_refused(
    memory: Memory, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="has no collection"):
        memory.import_from(folder(tmp_path / "qdrant"))
    table(tmp_path / "other.db", "CREATE TABLE other (a)")
    with pytest.raises(InvalidInput, match="has no table of mem0's history"):
        memory.import_from(tmp_path / "other.db", "mem0")
