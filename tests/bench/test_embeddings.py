"""Embeddings kept by content: encoded once, read back by any process, never taken from a file that is not theirs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from memspan.bench.embeddings import Cached
from memspan.encoders.base import Encoded
from memspan.encoders.hash import HashEncoder
from memspan.errors import InvalidInput
from memspan.testing import EncoderContract, WordEncoder

TEXTS = ("I keep bees.", "They fly.", "I keep bees.", "")


class TestCachedEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, tmp_path: Path) -> Cached:
        return Cached(HashEncoder(), tmp_path / "cache")


class Silent(WordEncoder):
    """One that must not be asked."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        assert not texts
        return super().encode(texts)


def test_what_was_encoded_once_is_read_back_the_same(tmp_path: Path) -> None:
    first = Cached(WordEncoder(), tmp_path / "folder" / "cache")
    made = first.encode(TEXTS)
    assert first.encoded == 3
    first.close()
    second = Cached(Silent(), tmp_path / "folder" / "cache")
    for _ in range(2):
        read = second.encode(TEXTS)
        assert second.encoded == 0
        assert np.array_equal(read.pooled, made.pooled)
        assert all(np.array_equal(one, other) for one, other in zip(read.tokens, made.tokens, strict=True))
        second.forget()


def test_an_encoder_without_tokens_and_one_of_another_name_are_kept_apart(tmp_path: Path) -> None:
    for dim in (64, 32, 64):
        cached = Cached(HashEncoder(dim), tmp_path / "cache")
        encoded = cached.encode(TEXTS)
        assert encoded.pooled.shape == (4, dim)
        assert not encoded.tokens
        cached.close()
    assert cached.encoded == 0


def test_without_a_file_it_remembers_until_it_is_told_to_forget() -> None:
    cached = Cached(WordEncoder())
    cached.encode(TEXTS)
    cached.encode(TEXTS)
    assert cached.encoded == 3
    cached.forget()
    cached.encode(TEXTS[:1])
    assert cached.encoded == 4


def fill(file: Path, number: int) -> int:
    """What another process does: texts of its own, and some that all have."""
    cached = Cached(HashEncoder(64), file)
    for step in range(20):
        cached.encode([f"of process {number}, step {step}", f"of all, step {step}"])
    cached.close()
    return cached.encoded


def test_several_processes_may_fill_one_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cache"
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        encoded = list(pool.map(fill, [file] * 2, range(2)))
    assert 60 <= sum(encoded) <= 80
    assert fill(file, 0) == fill(file, 1) == 0


def test_a_file_that_is_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    note, other = tmp_path / "note.txt", tmp_path / "other.sqlite"
    note.write_text("Dear Ana, " * 1_000, encoding="utf-8")
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE letters (text)")
    database.close()
    for file in (note, other, tmp_path):
        before = file.read_bytes() if file.is_file() else b""
        with pytest.raises(InvalidInput, match=r"^cache: .*; name another file|^cache: .*; name a file"):
            Cached(HashEncoder(64), file)
        assert (file.read_bytes() if file.is_file() else b"") == before


def test_a_damaged_file_is_told_and_nothing_of_it_is_used(tmp_path: Path) -> None:
    file = tmp_path / "cache"
    cached = Cached(HashEncoder(64), file)
    pooled = cached.encode(TEXTS).pooled
    cached.close()
    raw = file.read_bytes()
    place = raw.index(pooled[0].tobytes())
    file.write_bytes(raw[: place + 8] + b"\0\1\2\3" + raw[place + 12 :])
    damaged = Cached(HashEncoder(64), file)
    with pytest.raises(InvalidInput, match=r"^cache: .*damaged.*delete"):
        damaged.encode(TEXTS)
    damaged.close()
