"""A browser for all tests of pictures, and what they draw."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memspan import Memory

from .chromium import Chromium, find
from .pages import HOSTILE

SKIPPED = "there is no Chromium on this machine"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if (program := find()) is None:
        pytest.skip(SKIPPED)
    with Chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def browser_without_webgl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if (program := find()) is None:
        pytest.skip(SKIPPED)
    with Chromium(program, tmp_path_factory.mktemp("profile"), ["--disable-3d-apis"]) as browser:
        yield browser


@pytest.fixture
def told(memory: Memory) -> Memory:
    """Forty notes in two categories, two sessions of two users over a month, and texts that would like to act."""
    for number in range(20):
        memory.add(
            f"The ledger writes page {number} once.", category="Work / Core", occurred_at=f"2024-03-{number + 1:02}"
        )
        memory.add(f"The tomatoes of row {number} want water.", category="Home", occurred_at=f"2024-04-{number + 1:02}")
    for user, day in (("ana", "03-05"), ("ben", "04-02")):
        turns = [
            {"role": "user", "name": user.title(), "content": f"{user} says {word}", "time": f"2024-{day}T1{number}:00"}
            for number, word in enumerate(("hello", "well", "goodbye"))
        ]
        memory.add(turns, user_id=user, session=f"{user}'s talk")
    for text in HOSTILE:
        memory.add(text, category=["Home", text], user_id=text[:200], session=text, occurred_at="2024-03-20")
    return memory
