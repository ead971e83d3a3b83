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
    from memspan.access import ApiKey
    from memspan.backups import restore
    from memspan.config import Config
    from memspan.errors import (
        AccessDenied,
        AdapterError,
        BudgetTooSmall,
        ClusterError,
        EncoderError,
        EncoderMismatch,
        IdempotencyConflict,
        InDoubt,
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
        TooLarge,
        TooManyRequests,
        Unauthorized,
        Unreachable,
        Unsupported,
        VersionConflict,
        WrongKey,
    )
    from memspan.memory import Memory
    from memspan.records import (
        Added,
        Citation,
        Context,
        Document,
        Edge,
        Event,
        Hit,
        Judgement,
        Message,
        Neighbor,
        Node,
        Operation,
        Scope,
        Segment,
        Step,
        Theme,
        Timeline,
        as_dict,
    )
    from memspan.reports import BackedUp, Conflict, Erased, Receipt, Resolved, Trace, Trust, Tuned

_HOMES = {
    "memspan.backups": ("restore",),
    "memspan.memory": ("Memory",),
    "memspan.config": ("Config",),
    "memspan.records": (
        "Added", "Citation", "Context", "Document", "Edge", "Event", "Hit", "Judgement", "Message", "Neighbor",
        "Node", "Operation", "Scope", "Segment", "Step", "Theme", "Timeline", "as_dict",
    ),
    "memspan.access": ("ApiKey",),
    "memspan.reports": (
        "BackedUp", "Conflict", "Erased", "Receipt", "Resolved", "Trace", "Trust", "Tuned",
    ),
    "memspan.errors": (
        "AccessDenied", "AdapterError", "BudgetTooSmall", "ClusterError", "EncoderError", "EncoderMismatch",
        "IdempotencyConflict", "InDoubt", "InvalidFilter", "InvalidInput", "KeyNeeded", "LLMError", "MemspanError",
        "MissingExtra", "ModelNotFound", "NewerStore", "NotAStore", "NotEncrypted", "NotFound", "NotUndoable",
        "NotWritable", "RerankerError", "StoreBusy", "StoreClosed", "StoreCorrupt", "StoreError", "StoreFull",
        "TooLarge", "TooManyRequests", "Unauthorized", "Unreachable", "Unsupported", "VersionConflict", "WrongKey",
    ),
}  # fmt: skip

__all__ = [
    "AccessDenied",
    "AdapterError",
    "Added",
    "ApiKey",
    "BackedUp",
    "BudgetTooSmall",
    "Citation",
    "ClusterError",
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
    "InDoubt",
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
    "Timeline",
    "TooLarge",
    "TooManyRequests",
    "Trace",
    "Trust",
    "Tuned",
    "Unauthorized",
    "Unreachable",
    "Unsupported",
    "VersionConflict",
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
