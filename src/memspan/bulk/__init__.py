"""Many files into a memory at once, read and encoded by the machines of a Ray cluster.

    from memspan.bulk import BulkMemory

    with BulkMemory("my-memory") as memory:
        for done in memory.ingest(["notes.jsonl"], ray="auto"):
            print(done.done, done.parts, done.segments)

The machines read and cut and encode, and never open the store: this process asks it what it has already, hands out only
texts it has no vectors for, and writes, block by block and in the order of reading, each in one transaction. So a block
is written once or not at all, whoever dies; run again, it goes on, and nothing that was written is encoded again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memspan.bulk.memory import BulkMemory
    from memspan.bulk.sources import Columns

__all__ = ["BulkMemory", "Columns"]


def __getattr__(name: str) -> Any:
    """The names are loaded when they are first used: the machines that encode need no memory."""
    if name not in __all__:
        raise AttributeError(f"module 'memspan.bulk' has no attribute {name!r}")
    from memspan.bulk import memory

    return getattr(memory, name)
