"""``Memory.embeddings``: the vectors of a scope in bulk are those that were stored, beside their segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memspan import Memory
from memspan.encoders.hash import HashEncoder
from memspan.errors import EncoderMismatch, InvalidInput


def test_they_are_the_vectors_of_the_texts_in_the_order_they_were_written(memory: Memory, encoder: HashEncoder) -> None:
    texts = [f"page {number} of the {'ledger' if number % 3 else 'garden'} book" for number in range(50)]
    for text in texts:
        memory.add(text)
    segments, vectors = memory.embeddings()
    assert [segment.text for segment in segments] == texts
    assert (vectors.shape, vectors.dtype) == ((50, encoder.dim), np.float32)
    np.testing.assert_allclose(vectors, encoder.encode(texts).pooled, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_more_than_are_read_at_once_are_all_there_and_progress_is_told(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memspan.memory.BULK", 7)
    memory.add([{"role": "user", "content": f"turn {number}"} for number in range(40)])
    told: list[tuple[int, int, str]] = []
    segments, vectors = memory.embeddings(progress=lambda *step: told.append(step))
    assert [segment.text for segment in segments] == [f"turn {number}" for number in range(40)]
    assert len(vectors) == 40
    assert [step[0] for step in told] == [7, 14, 21, 28, 35, 40]
    assert {step[1] for step in told} == {40}


def test_a_scope_and_a_filter_hold(memory: Memory) -> None:
    memory.add("Tea for Ana.", user_id="ana", metadata={"cup": 1})
    memory.add("Coffee for Ana.", user_id="ana", metadata={"cup": 2})
    memory.add("Coffee for Ben.", user_id="ben", metadata={"cup": 2})
    memory.add("A secret.", namespace="other", user_id="ana")

    def texts(**scope: object) -> list[str]:
        return [segment.text for segment in memory.embeddings(**scope)[0]]  # type: ignore[arg-type]

    assert texts(user_id="ana") == ["Tea for Ana.", "Coffee for Ana."]
    assert texts(filters={"cup": 2}) == ["Coffee for Ana.", "Coffee for Ben."]
    assert texts(namespace="other") == ["A secret."]


def test_only_what_is_current_is_there(memory: Memory) -> None:
    first, second, third = (memory.add(text).ids[0] for text in ("One.", "Two.", "Three."))
    memory.update(first, "Another one.")
    memory.erase(second)
    segments, vectors = memory.embeddings()
    assert {segment.text for segment in segments} == {"Another one.", "Three."}
    assert {segment.id for segment in segments} == {first, third}
    assert len(vectors) == 2


def test_a_limit_is_spread_over_all_and_always_takes_the_same(memory: Memory) -> None:
    memory.add([{"role": "user", "content": f"turn {number}"} for number in range(101)])
    segments, vectors = memory.embeddings(limit=11)
    assert [segment.text for segment in segments] == [f"turn {number}" for number in range(0, 101, 10)]
    assert len(vectors) == 11
    assert memory.embeddings(limit=11)[0] == segments
    assert len(memory.embeddings(limit=101)[0]) == len(memory.embeddings(limit=500)[0]) == 101
    assert len(memory.embeddings(limit=1)[0]) == 1
    with pytest.raises(InvalidInput, match="limit"):
        memory.embeddings(limit=0)


def test_nothing_in_scope_is_an_empty_matrix_of_the_right_width(memory: Memory, encoder: HashEncoder) -> None:
    segments, vectors = memory.embeddings(namespace="nobody")
    assert segments == []
    assert (vectors.shape, vectors.dtype) == ((0, encoder.dim), np.float32)


def test_they_are_read_without_the_model_and_what_waits_for_one_is_left_out(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder="hash") as memory:
        memory.add([{"role": "user", "content": f"It has a vector, {number}."} for number in range(2)])
    with Memory(tmp_path / "store", encoder=None) as words:
        words.add([{"role": "user", "content": f"It waits, {number}."} for number in range(9)])
        assert [row.text for row in words.embeddings(limit=5)[0]] == ["It has a vector, 0.", "It has a vector, 1."]


def test_a_store_without_an_encoder_says_so(tmp_path: Path) -> None:
    with Memory(tmp_path / "store", encoder=None) as words:
        words.add("Only words.")
        with pytest.raises(EncoderMismatch, match="no encoder") as told:
            words.embeddings()
    assert "reencode" in told.value.mend
