"""Vectors that come in an archive: used where they are what the store's own encoder would make, and only there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from memspan import Memory
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.testing import WordEncoder

TURNS = [{"role": "user", "content": f"Turn {number} is about the {number % 7} of them."} for number in range(100)]


class Counting(WordEncoder):
    """Counts the texts it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts = 0

    def encode(self, texts: Sequence[str]) -> Encoded:
        self.texts += len(texts)
        return super().encode(texts)


class Lying(WordEncoder):
    """Says that it is the same, and makes something else of texts."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        turned = super().encode(texts)
        return Encoded(np.ascontiguousarray(turned.pooled[:, ::-1]), turned.tokens)


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Token activations of WordEncoder are kept."""
    basis = WordEncoder().basis()
    monkeypatch.setattr("memspan.store.shipped", lambda id: basis if id == "words-128" else None)


def cube(path: Path, encoder: WordEncoder, tokens: str = "auto") -> Path:
    with Memory(path, encoder=encoder, tokens=tokens) as memory:
        memory.add(TURNS, session="s")
        memory.export_to(path.with_suffix(".memspan"))
    return path.with_suffix(".memspan")


def found(memory: Memory) -> list[tuple[str, float]]:
    return [(hit.id, round(hit.score, 4)) for hit in memory.search("about the 3 of them", k=5)]


def test_what_comes_with_vectors_and_tokens_is_not_encoded_again(tmp_path: Path) -> None:
    file, encoder = cube(tmp_path / "a", WordEncoder()), Counting()
    with Memory(tmp_path / "a", encoder=WordEncoder()) as memory, Memory(tmp_path / "b", encoder=encoder) as other:
        done = other.import_from(file)
        assert (done.vectors, done.pending, done.notes) == (100, 0, ())
        assert encoder.texts <= 8
        assert found(other) == found(memory)
        assert other.verify()["ok"]
        assert other.stats()["activations"]["lost"] == 0


def test_without_believing_them_every_text_is_encoded_here(tmp_path: Path) -> None:
    file, encoder = cube(tmp_path / "a", WordEncoder()), Counting()
    with Memory(tmp_path / "b", encoder=encoder) as other:
        done = other.import_from(file, vectors=False)
        assert (done.vectors, done.pending) == (0, 0)
        assert encoder.texts == 100


def test_vectors_that_are_not_what_the_encoder_makes_are_not_used(tmp_path: Path) -> None:
    file = cube(tmp_path / "a", Lying())
    with Memory(tmp_path / "b", encoder=WordEncoder()) as other, Memory(tmp_path / "c", encoder=WordEncoder()) as plain:
        done = other.import_from(file)
        assert (done.vectors, done.pending) == (0, 0)
        assert "not what the encoder makes" in done.notes[0]
        plain.import_from(file, vectors=False)
        assert found(other) == found(plain)


def test_vectors_of_another_encoder_are_not_used(tmp_path: Path) -> None:
    file = cube(tmp_path / "a", WordEncoder())
    with Memory(tmp_path / "b", encoder=HashEncoder(128)) as other, Memory(tmp_path / "c", encoder=None) as none:
        done = other.import_from(file)
        assert (done.vectors, done.pending, done.added) == (0, 0, 100)
        assert "words-128" in done.notes[0]
        assert other.verify()["ok"]
        assert "has no encoder" in none.import_from(file).notes[0]


def test_tokens_of_another_level_are_made_here(tmp_path: Path) -> None:
    file = cube(tmp_path / "a", WordEncoder(), "int8")
    with Memory(tmp_path / "b", encoder=WordEncoder(), tokens="1bit") as other:
        assert other.import_from(file).vectors == 100
        stats = other.stats()
        assert (stats["activations"]["lost"], stats["activations"]["tensors"] > 0) == (0, True)
        with Memory(tmp_path / "c", encoder=WordEncoder(), tokens="1bit") as plain:
            plain.import_from(file, vectors=False)
            assert found(other) == found(plain)


def test_a_store_that_was_opened_without_its_encoder_takes_them_too(tmp_path: Path) -> None:
    file = cube(tmp_path / "a", WordEncoder())
    Memory(tmp_path / "b", encoder=WordEncoder()).close()
    with Memory(tmp_path / "b", encoder="none") as other:
        assert other.import_from(file).vectors == 100
    with Memory(tmp_path / "b", encoder=WordEncoder()) as other:
        assert other.stats()["pending"] == 0
        assert found(other)


def test_a_vector_that_an_archive_brought_is_nobody_elses(tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    with Memory(forged, encoder=WordEncoder()) as memory:
        memory.add(TURNS, session="s")
        memory.add("The vault is in the cellar.")
        folder = Path(memory.export_to(tmp_path / "folder", "npy").path)
    matrix = np.load(folder / "embeddings.npy")
    matrix[-1] = -matrix[-1]  # one of a hundred: no comparison of a few finds it
    np.save(folder / "embeddings.npy", matrix)
    with Memory(tmp_path / "store", encoder=WordEncoder(), namespace="victim") as memory:
        assert memory.import_from(folder, namespace="guest").vectors == 101
        memory.add("The vault is in the cellar.")
        memory.add("The vault is in the cellar.", namespace="guest", session="mine")
        (_, true), (_, others) = memory.embeddings(), memory.embeddings(namespace="guest")
        true = true[0]
        assert true @ WordEncoder().encode(["The vault is in the cellar."]).pooled[0] > 0.99
        assert sorted(round(float(other @ true)) for other in others[-2:]) == [-1, 1]
        assert memory.verify()["ok"]
        memory.erase(namespace="guest")
        assert memory.verify()["ok"]
