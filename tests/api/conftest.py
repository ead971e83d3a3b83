"""Memories to test with: no model, no network, nothing of the user's own settings.

With MEMSPAN_TEST_SERVED=1 they are memories of a server, over real sockets; with MEMSPAN_TEST_POSTGRES=1 they are kept
in databases of a PostgreSQL server, one for each place: the same tests, the same answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres import database
from served import served

from memspan import Memory

Open = Callable[..., Memory]
Place = Callable[[object], object]


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
POSTGRES = bool(os.environ.get("MEMSPAN_TEST_POSTGRES"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if POSTGRES and (about := item.get_closest_marker("embedded")) is not None:
            item.add_marker(pytest.mark.skip(reason=about.args[0]))


@pytest.fixture
def placed(request: pytest.FixtureRequest) -> Iterator[Place]:
    """What opens the store at a place: the place itself, or where that is asked for the database that stands for it."""
    if not POSTGRES:
        yield lambda where: where
        return
    server = request.getfixturevalue("postgres_server")
    with ExitStack() as stack:
        known: dict[str, str] = {}

        def at(where: object) -> object:
            if where == ":memory:":
                return stack.enter_context(database(server))
            if str(where) not in known:
                known[str(where)] = stack.enter_context(database(server))
            return known[str(where)]

        yield at


@pytest.fixture
def memory(placed: Place) -> Iterator[Memory]:
    with ExitStack() as stack:
        yield over_http(stack, stack.enter_context(Memory(placed(":memory:"), encoder="hash")))  # type: ignore[arg-type]


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
def opened(path: Path, placed: Place) -> Iterator[Open]:
    """Opens stores and closes them at the end: the one at ``path`` with the hash encoder unless told otherwise."""
    with ExitStack() as stack:

        def at(where: object = None, **options: object) -> Memory:
            options.setdefault("encoder", "hash")
            made = stack.enter_context(Memory(placed(path if where is None else where), **options))  # type: ignore[arg-type]
            return over_http(stack, made)

        yield at
