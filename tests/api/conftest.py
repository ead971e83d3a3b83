"""Memories to test with: no model, no network, nothing of the user's own settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memspan import Memory

Open = Callable[..., Memory]


@pytest.fixture(scope="session", autouse=True)
def _no_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the machine's user has set must not reach the tests, nor the tests their directories."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MEMSPAN_")]:
            patch.delenv(name)
        for name in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        patch.setenv("MEMSPAN_ENCODER", "hash")
        yield


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(":memory:", encoder="hash") as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store can be made."""
    return tmp_path / "store"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens stores and closes them at the end: the one at ``path`` with the hash encoder unless told otherwise."""
    every: list[Memory] = []

    def at(where: object = None, **options: object) -> Memory:
        options.setdefault("encoder", "hash")
        every.append(Memory(path if where is None else where, **options))  # type: ignore[arg-type]
        return every[-1]

    yield at
    for each in every:
        each.close()
