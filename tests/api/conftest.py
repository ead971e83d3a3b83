"""Memories to test with: no model, no network, nothing of the user's own settings.

With MEMSPAN_TEST_SERVED=1 they are memories of a server, over real sockets: the same tests, the same answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from served import served

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


SERVED = bool(os.environ.get("MEMSPAN_TEST_SERVED"))


@pytest.fixture
def memory() -> Iterator[Memory]:
    with ExitStack() as stack:
        yield over_http(stack, stack.enter_context(Memory(":memory:", encoder="hash")))


def over_http(stack: ExitStack, memory: Memory) -> Memory:
    """The memory itself, or where that is asked for a client of a server over it."""
    if not SERVED:
        return memory
    return stack.enter_context(Memory(stack.enter_context(served(memory)), namespace=memory.namespace))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store can be made."""
    return tmp_path / "store"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens stores and closes them at the end: the one at ``path`` with the hash encoder unless told otherwise."""
    with ExitStack() as stack:

        def at(where: object = None, **options: object) -> Memory:
            options.setdefault("encoder", "hash")
            made = stack.enter_context(Memory(path if where is None else where, **options))  # type: ignore[arg-type]
            return over_http(stack, made)

        yield at
