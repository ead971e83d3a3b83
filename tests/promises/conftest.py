"""An encoder with token activations for the tests here and for the processes they start."""

from __future__ import annotations

from pathlib import Path

import pytest

from memspan.testing import WordEncoder


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> WordEncoder:
    """As ``processes.py`` uses it where MEMSPAN_TOKENS is set, as it is from here on."""
    basis = WordEncoder().basis()
    monkeypatch.setattr("memspan.store.shipped", lambda id: basis if id == "words-128" else None)
    monkeypatch.setattr("memspan.activations.arena.EXTENT", 1 << 16)
    monkeypatch.setenv("MEMSPAN_TOKENS", "1bit")
    return WordEncoder()


@pytest.fixture
def store(tmp_path: Path) -> Path | str:
    """Where a store can be made."""
    return tmp_path / "store"
