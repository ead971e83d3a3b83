"""What the tests of archives share: a memory in which everything has happened, and what it gives out."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from memspan import Memory


def lived_in(path: Path, encoder: Any = "hash") -> Memory:
    """A memory with documents, turns, equal turns, versions, links, feedback, use and a deleted segment."""
    memory = Memory(path, encoder=encoder)
    core = memory.add("The core logic resides in dsm/memory.py.", category="Software / Core", importance=0.9).ids[0]
    turns = memory.add(
        [
            {"role": "user", "name": "Ana", "content": "yes"},
            {"role": "user", "name": "Ana", "content": "yes"},
            {"role": "assistant", "content": "A long answer.\n\n" * 400, "metadata": {"ü": ["\u2028", 1.5, None]}},
        ],
        session="s",
        user_id="ana",
        occurred_at="2026-05-30T12:00:00.000001Z",
    ).ids
    memory.update(core, "The core logic has moved to core.py.")
    memory.update(core, category="Software / Kernel")
    memory.update(turns[0], "yes, gladly")
    memory.add("=cmd|' /C calc'!A0\t'quoted', \"twice\"\r\nand more \u2028 \U0001f600 مرحبا 你好")
    memory.link(core, turns[0], "reply", 0.5)
    memory.feedback("where is the logic?", core)
    document = path.with_name(f"{path.name}.md")
    for text in ("# Title\n\nFirst words.\n\n## Part\n\nMore of it.", "# Title\n\nOther words."):
        document.write_text(text)
        memory.add_file(document)
    memory.erase(memory.add("to be deleted").ids)
    memory.search("core logic")
    memory.close()
    return Memory(path, encoder=encoder)


def out(memory: Memory, path: Path, **part: Any) -> bytes:
    """The bytes of an export."""
    memory.export_to(path, **part)
    return path.read_bytes()


def written(path: Path, text: str) -> Path:
    """A file with this text."""
    path.write_text(text, encoding="utf-8", newline="")
    return path


def table(path: Path, script: str) -> Path:
    """An SQLite file that a script made."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def at(*parts: int) -> datetime:
    """A time in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@contextmanager
def in_little_memory(most: int) -> Iterator[None]:
    """What is done takes less than ``most`` bytes at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


class Gadget:
    """Pickled as a call of anything."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]
