"""What every test stands on: no settings of this user, a store of its own, an encoder without a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from postgres import postgres, postgres_server, tenant

from memspan import Memory
from memspan.encoders.hash import HashEncoder

__all__ = ["postgres", "postgres_server", "tenant"]

# A property is shown by a few examples each time the tests run; `make soak` looks for the rare ones.
settings.register_profile("suite", settings(), max_examples=20, deadline=None)
settings.register_profile("soak", settings(), max_examples=500, deadline=None)
settings.load_profile("suite")


IN_MEMORY, ROOM = Path("/dev/shm"), 2 << 30


def campaigning(config: pytest.Config) -> bool:
    """Whether long campaigns are asked for: ``-m soak`` (as ``make soak`` does) or MEMSPAN_SOAK=1."""
    chosen = str(config.getoption("markexpr"))
    return ("soak" in chosen and "not soak" not in chosen) or bool(os.environ.get("MEMSPAN_SOAK"))


def pytest_configure(config: pytest.Config) -> None:
    """Stores lie in memory where there is room, as the suite has no test that a disk's waiting shows; campaigns, whose
    stores grow and are killed by the hundred, lie on the disk."""
    if not campaigning(config) and IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if campaigning(config):
        return
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="a long campaign; `make soak` runs it"))


@pytest.fixture(autouse=True)
def _no_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "ENCODER", "TOKENS", "LLM", "NAMESPACE", "REDACT", "CONFIG", "KEY", "KEY_FILE"):
        monkeypatch.delenv(f"MEMSPAN_{name}", raising=False)
    home = tmp_path_factory.getbasetemp() / "nobody"
    for name in ("DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture
def memory(tmp_path: Path, encoder: HashEncoder) -> Iterator[Memory]:
    with Memory(tmp_path / "store", encoder=encoder) as memory:
        yield memory


@pytest.fixture
def small_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views fold their tails into snapshots from 8 rows on, so that a handful of segments goes every way."""
    for view in ("lexical", "vectors", "tree", "graph"):
        monkeypatch.setattr(f"memspan.views.{view}.SNAPSHOT_ROWS", 8)
    monkeypatch.setattr("memspan.views.vectors.SCANNED_ROWS", 100)
