"""Latent Memory's own way: its three steps run with only the imports changed, and files go both ways."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import h5py
import numpy as np
import pytest

from memspan import EncoderMismatch, InvalidInput, Memory, latent
from memspan.latent import csv, hdf5, npy, pkl
from memspan.testing import WordEncoder

CONVERSATIONS = [
    "You requested an artistic image illustrating algorithmic feedback loops, including references to LLMs.",
    "Can you explain how reinforcement learning works in the context of LLMs?",
    "I need a summary of recent papers on Tool-augmented Reinforcement Learning (TRL).",
    "What’s the weather like today? I’m planning a trip.",
    "How can I use LLMs to improve my coding workflow?",
]
KINDS = {"csv": csv, "npy": npy, "hdf5": hdf5, "pkl": pkl}
FILES = {"csv": "embeddings.csv", "npy": "embeddings.npy", "hdf5": "latent_memory.h5", "pkl": "latent_memory.pkl"}
EACH = pytest.mark.parametrize("kind", KINDS)

STEPS = """
from memspan.latent.{kind} import convert_to_embeddings, save_data
embeddings, metadata = convert_to_embeddings(conversations)
save_data(embeddings, metadata)
print(len(embeddings), embeddings[0].shape, sorted(metadata[0]))

from memspan.latent.{kind} import create_faiss_index, load_data
embeddings, metadata = load_data()
index = create_faiss_index(embeddings)
print(index.ntotal)

from memspan.latent.{kind} import load_index as load_data, format_for_inference, retrieve_relevant_conversations
index, metadata = load_data()
relevant_conversations = retrieve_relevant_conversations("reinforcement learning in LLMs", index, metadata, k=2)
context = format_for_inference(relevant_conversations)
print(context)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMSPAN_ENCODER", "hash:64")


def the_originals_reader(kind: str) -> tuple[Any, list[dict[str, Any]]]:
    """What Step2.py of the original makes of the files, and Step3.py of the rows."""
    if kind == "hdf5":
        with h5py.File("latent_memory.h5", "r") as f:
            embeddings, table = np.array(f["embeddings"]), np.array(f["metadata"])
        keys = ("conversation_id", "summary", "timestamp")
        return embeddings, [{key: table[at][key].decode("utf-8") for key in keys} for at in range(len(table))]
    if kind == "pkl":
        with open("latent_memory.pkl", "rb") as f:
            data = pickle.load(f)
        return data["embeddings"], data["metadata"]
    with open("metadata.json") as f:
        metadata = json.load(f)
    if kind == "npy":
        return np.load("embeddings.npy"), metadata
    with open("embeddings.csv") as f:  # as pandas' read_csv(...).to_numpy()
        columns, *lines = [line.rstrip("\n").split(",") for line in f]
    assert columns == [str(at) for at in range(len(columns))]
    return np.array(lines, float), metadata


def the_originals_writer(kind: str, embeddings: Any, metadata: list[dict[str, str]]) -> None:
    """The files of Step1.py."""
    if kind == "hdf5":
        table = np.dtype([("conversation_id", "S10"), ("summary", "S200"), ("timestamp", "S20")])
        with h5py.File("latent_memory.h5", "w") as f:
            f.create_dataset("embeddings", data=embeddings)
            f.create_dataset("metadata", data=np.array([tuple(row.values()) for row in metadata], dtype=table))
    elif kind == "pkl":
        with open("latent_memory.pkl", "wb") as f:
            pickle.dump({"embeddings": embeddings, "metadata": metadata}, f)
    else:
        with open("metadata.json", "w") as f:
            json.dump(metadata, f, indent=2)
        if kind == "npy":
            np.save("embeddings.npy", embeddings)
        else:  # as pandas' DataFrame(embeddings).to_csv(index=False)
            lines = [",".join(map(str, range(embeddings.shape[1])))]
            lines += [",".join(map(repr, row)) for row in embeddings.tolist()]
            Path("embeddings.csv").write_text("\n".join(lines) + "\n")


@EACH
def test_the_three_steps_run_with_only_the_imports_changed(kind: str) -> None:
    script = f"conversations = {CONVERSATIONS!r}\n" + STEPS.format(kind=kind)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    first, count, *context = done.stdout.splitlines()
    assert first == "5 (64,) ['conversation_id', 'summary', 'timestamp']"
    assert count == "5"
    assert context[0] == "Relevant past conversations:"
    assert context[1].startswith(f"- {CONVERSATIONS[1]} (Timestamp: 20")
    assert os.path.exists(FILES[kind])
    assert type(faiss.read_index("faiss_index.bin")) is faiss.IndexFlatIP


@EACH
def test_what_is_written_here_is_read_by_the_original(kind: str) -> None:
    embeddings, metadata = latent.convert_to_embeddings(CONVERSATIONS)
    KINDS[kind].save_data(embeddings, metadata)
    read, rows = the_originals_reader(kind)
    assert np.array_equal(read.astype(np.float32), embeddings)
    assert rows == metadata


@EACH
def test_what_the_original_writes_is_read_here(kind: str) -> None:
    embeddings = np.random.default_rng(0).random((5, 384))
    said = [text.replace("’", "'") for text in CONVERSATIONS] if kind == "hdf5" else CONVERSATIONS
    metadata = [
        {"conversation_id": f"conv_{i}", "summary": text, "timestamp": f"2025-04-{i + 1} 10:00:00"}
        for i, text in enumerate(said)
    ]
    the_originals_writer(kind, embeddings, metadata)
    read, rows = KINDS[kind].load_data()
    assert read.dtype == np.float32
    assert np.array_equal(read, embeddings.astype(np.float32))
    assert rows == metadata
    index = faiss.IndexFlatIP(384)
    index.add(read)
    faiss.write_index(index, "faiss_index.bin")
    again, rows = KINDS[kind].load_index()
    assert np.array_equal(again.reconstruct_n(0, 5), read)
    assert rows == metadata


@EACH
def test_any_text_and_more_keys_come_back(kind: str) -> None:
    rows = [
        {"conversation_id": "=1+1", "summary": "ü\r\n\u2028 😀 " + "x" * 1000, "timestamp": "March 28th", "type": None},
        {"conversation_id": "b", "summary": '"', "timestamp": "", "more": {"a": [1, 2.5, True]}},
    ]
    KINDS[kind].save_data(np.eye(2, 7, dtype="f8"), rows)
    assert KINDS[kind].load_data()[1] == rows
    KINDS[kind].save_data(np.eye(2), [("a", "text", date(2026, 1, 2)), ("b", "text", "then")])
    assert [row["timestamp"] for row in KINDS[kind].load_data()[1]] == ["2026-01-02", "then"]


@EACH
def test_what_a_memory_exports_is_read_here(kind: str) -> None:
    with Memory("m", encoder="hash:64") as memory:
        memory.add("Ana prefers tea.", category="Taste", metadata={"sure": True})
        memory.add("The boat is blue.")
        format, place = ("pickle" if kind == "pkl" else kind), "." if kind in ("csv", "npy") else FILES[kind]
        memory.export_to(place, format)
    embeddings, metadata = KINDS[kind].load_data()
    index = latent.create_faiss_index(embeddings)
    (found,) = latent.retrieve_relevant_conversations("what does Ana like to drink, tea?", index, metadata, k=1)
    assert (found["summary"], found["category"]) == ("Ana prefers tea.", ["Taste"])


@EACH
def test_what_is_saved_here_is_imported_by_a_memory(kind: str) -> None:
    conversations = [
        {"summary": "Ana prefers tea.", "timestamp": "2026-05-30", "conversation_id": "c7", "type": "chat"}
    ]
    KINDS[kind].save_data(*latent.convert_to_embeddings(conversations))
    with Memory("m", encoder="hash") as memory:
        memory.import_from("." if kind in ("csv", "npy") else FILES[kind], "pickle" if kind == "pkl" else kind)
        (segment,) = memory.get_all()
    assert (segment.text, segment.session, segment.metadata) == ("Ana prefers tea.", "c7", {"type": "chat"})
    assert segment.occurred_at is not None
    assert segment.occurred_at.date() == date(2026, 5, 30)


def test_conversations_are_texts_or_objects_and_each_embedding_has_length_one() -> None:
    long = "The harbour is quiet at night. " * 300 + "The tomatoes want water."
    given = ["One.", {"summary": "Two.", "conversation_id": 7, "timestamp": "then", "title": "T"}, long]
    embeddings, metadata = latent.convert_to_embeddings(given, encoder=WordEncoder())
    assert (embeddings.shape, embeddings.dtype) == ((3, 128), np.float32)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert [row["conversation_id"] for row in metadata] == ["conv_0", 7, "conv_2"]
    assert metadata[1] == {"conversation_id": 7, "summary": "Two.", "timestamp": "then", "title": "T"}
    beginning, _ = latent.convert_to_embeddings([long[:9000]], encoder=WordEncoder())
    assert not np.array_equal(embeddings[2], beginning[0])  # the end of it counts
    nothing, none = latent.convert_to_embeddings([])
    assert (nothing.shape, none) == ((0, 64), [])


def test_many_conversations_are_embedded_in_batches_in_their_order() -> None:
    texts = [f"Conversation number {i}" for i in range(600)]
    embeddings, metadata = latent.convert_to_embeddings(texts)
    assert [row["summary"] for row in metadata] == texts
    assert np.array_equal(embeddings[599], latent.convert_to_embeddings(texts[599:])[0][0])


def test_fewer_conversations_than_k_are_all_there_is() -> None:
    embeddings, metadata = latent.convert_to_embeddings(CONVERSATIONS[:2])
    index = latent.create_faiss_index(embeddings)
    assert len(latent.retrieve_relevant_conversations("LLMs", index, metadata, k=10)) == 2
    assert latent.retrieve_relevant_conversations("LLMs", latent.create_faiss_index(np.zeros((0, 64))), [], k=2) == []
    assert latent.format_for_inference([]) == "Relevant past conversations:\n"


def test_an_index_by_distance_is_read_as_one() -> None:
    index = faiss.IndexFlatL2(4)
    index.add(np.eye(3, 4, dtype="f4"))
    faiss.write_index(index, "faiss_index.bin")
    Path("metadata.json").write_text(json.dumps([{"conversation_id": "a", "summary": "b", "timestamp": "c"}] * 3))
    assert type(latent.load_index()[0]) is faiss.IndexFlatL2


def test_an_index_of_another_encoder_is_refused() -> None:
    embeddings, metadata = latent.convert_to_embeddings(CONVERSATIONS, encoder="hash:32")
    index = latent.create_faiss_index(embeddings)
    with pytest.raises(EncoderMismatch, match="32 numbers"):
        latent.retrieve_relevant_conversations("LLMs", index, metadata)
    assert latent.retrieve_relevant_conversations("LLMs", index, metadata, encoder="hash:32")


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: latent.convert_to_embeddings("one text"), "conversations"),
        (lambda: latent.convert_to_embeddings([1]), r"conversations\[0\]"),  # type: ignore[list-item]
        (lambda: latent.convert_to_embeddings(["a", {"title": "b"}]), r"conversations\[1\]"),
        (lambda: latent.convert_to_embeddings(["a\0"]), r"conversations\[0\]"),
        (lambda: latent.convert_to_embeddings(["a"], encoder="none"), "encoder"),
        (lambda: latent.save_data(np.ones(3), []), "embeddings"),
        (lambda: latent.save_data([["a"]], []), "embeddings"),
        (lambda: latent.save_data([[np.nan]], [("a", "b", "c")]), "embeddings"),
        (lambda: latent.save_data([[1.0]], []), "metadata"),
        (lambda: latent.save_data([[1.0]], [{"summary": "a"}]), r"metadata\[0\]"),
        (lambda: latent.save_data([[1.0]], [("a", "b\0", "c")], "a.h5"), "metadata"),
        (lambda: latent.save_data([[1.0]], [("a", "b", float("nan"))], "a.npy"), "metadata"),
        (lambda: latent.save_data([[1.0]], [("a", "b", "c")], "a.txt"), "embeddings_file"),
        (lambda: latent.load_data("a.txt"), "embeddings_file"),
        (lambda: latent.load_data("a.npy"), "path"),
        (lambda: latent.load_index("a.bin"), "path"),
        (lambda: latent.format_for_inference([{"summary": "a"}]), r"relevant_conversations\[0\]"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(tmp_path: Path, call: Any, argument: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^{argument}: "):
        call()
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_agree_or_lie_are_refused() -> None:
    embeddings, metadata = latent.convert_to_embeddings(CONVERSATIONS)
    latent.save_data(embeddings, metadata)
    latent.create_faiss_index(embeddings[:4])
    with pytest.raises(InvalidInput, match="4 vectors"):
        latent.load_index()
    Path("faiss_index.bin").write_bytes(struct.pack("<4siqqq?iQ", b"IxFI", 64, 10**12, 0, 0, True, 0, 64 * 10**12))
    with pytest.raises(InvalidInput, match="says 1,000,000,000,000 vectors"):
        latent.load_index()
    matrix = np.load("embeddings.npy")
    matrix[3, 3] = np.inf
    np.save("embeddings.npy", matrix)
    with pytest.raises(InvalidInput, match=r"embeddings\.npy\[3\]"):
        latent.load_data()
    with open("latent_memory.pkl", "wb") as file:
        pickle.dump({"embeddings": matrix, "metadata": os.getcwd, "more": 1}, file)
    with pytest.raises(InvalidInput, match=r"posix\.getcwd"):
        pkl.load_data()


def test_the_modules_have_the_same_functions() -> None:
    modules: list[ModuleType] = [latent, *KINDS.values()]
    for module in modules:
        assert sorted(module.__all__) == sorted(latent.__all__)
        assert all(callable(getattr(module, name)) for name in module.__all__)
