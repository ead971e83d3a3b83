"""memspan: infinite memory for all LLMs.

    from memspan import Memory

    memory = Memory("my-memory")
    memory.add("The core logic resides in dsm/memory.py.")
    print(memory.context("Where is the core logic?", budget=500).text)

Names are loaded when they are first used, so that ``import memspan`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memspan.backups import restore
    from memspan.config import Config
    from memspan.errors import (
        AdapterError,
        BudgetTooSmall,
        EncoderError,
        EncoderMismatch,
        IdempotencyConflict,
        InvalidFilter,
        InvalidInput,
        KeyNeeded,
        LLMError,
        MemspanError,
        MissingExtra,
        ModelNotFound,
        NewerStore,
        NotAStore,
        NotEncrypted,
        NotFound,
        NotUndoable,
        NotWritable,
        RerankerError,
        StoreBusy,
        StoreClosed,
        StoreCorrupt,
        StoreError,
        StoreFull,
        WrongKey,
    )
    from memspan.memory import Memory
    from memspan.records import (
        Added,
        BackedUp,
        Citation,
        Conflict,
        Context,
        Document,
        Edge,
        Erased,
        Event,
        Hit,
        Judgement,
        Message,
        Neighbor,
        Node,
        Operation,
        Receipt,
        Resolved,
        Scope,
        Segment,
        Step,
        Theme,
        Trace,
        Trust,
        Tuned,
        as_dict,
    )

_HOMES = {
    "memspan.backups": ("restore",),
    "memspan.memory": ("Memory",),
    "memspan.config": ("Config",),
    "memspan.records": (
        "Added", "BackedUp", "Citation", "Conflict", "Context", "Document", "Edge", "Erased", "Event", "Hit",
        "Judgement", "Message", "Neighbor", "Node", "Operation", "Receipt", "Resolved", "Scope", "Segment", "Step",
        "Theme", "Trace", "Trust", "Tuned", "as_dict",
    ),
    "memspan.errors": (
        "AdapterError", "BudgetTooSmall", "EncoderError", "EncoderMismatch", "IdempotencyConflict", "InvalidFilter",
        "InvalidInput", "KeyNeeded", "LLMError", "MemspanError", "MissingExtra", "ModelNotFound", "NewerStore",
        "NotAStore", "NotEncrypted", "NotFound", "NotUndoable", "NotWritable", "RerankerError", "StoreBusy",
        "StoreClosed", "StoreCorrupt", "StoreError", "StoreFull", "WrongKey",
    ),
}  # fmt: skip

__all__ = [
    "AdapterError",
    "Added",
    "BackedUp",
    "BudgetTooSmall",
    "Citation",
    "Config",
    "Conflict",
    "Context",
    "Document",
    "Edge",
    "EncoderError",
    "EncoderMismatch",
    "Erased",
    "Event",
    "Hit",
    "IdempotencyConflict",
    "InvalidFilter",
    "InvalidInput",
    "Judgement",
    "KeyNeeded",
    "LLMError",
    "Memory",
    "MemspanError",
    "Message",
    "MissingExtra",
    "ModelNotFound",
    "Neighbor",
    "NewerStore",
    "Node",
    "NotAStore",
    "NotEncrypted",
    "NotFound",
    "NotUndoable",
    "NotWritable",
    "Operation",
    "Receipt",
    "RerankerError",
    "Resolved",
    "Scope",
    "Segment",
    "Step",
    "StoreBusy",
    "StoreClosed",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "Theme",
    "Trace",
    "Trust",
    "Tuned",
    "WrongKey",
    "as_dict",
    "restore",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("memspan")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'memspan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
