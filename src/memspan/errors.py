"""Every error memspan raises on purpose.

    MemspanError
    ├── InvalidInput (ValueError)       an argument is wrong; names it and says what would be right
    │   ├── InvalidFilter               a filter has an unknown operator, field or value
    │   ├── BudgetTooSmall              a context cannot hold even one citation in the given budget
    │   ├── IdempotencyConflict         the same idempotency key came with another payload
    │   ├── NotUndoable                 an operation cannot be taken back, or only after later ones
    │   ├── VersionConflict             a segment has another version than the caller had read
    │   └── TooLarge                    more was sent to a server than it takes at once
    ├── NotFound (LookupError)          no such segment or document in this namespace
    ├── AccessDenied (PermissionError)  the API key does not allow this
    │   └── Unauthorized                no API key was given, or one that is not valid
    ├── TooManyRequests                 a server is asked more often than it allows
    ├── StoreError                      the store on disk cannot be used as asked
    │   ├── NotAStore                   the path exists and is something else
    │   ├── NotWritable                 the directory or database cannot be written
    │   ├── StoreFull                   the disk is full; nothing of the write was kept
    │   ├── StoreBusy                   another process held the write lock for longer than the timeout
    │   ├── InDoubt                     the server was lost while it committed: whether it did is not known
    │   ├── StoreCorrupt                bytes on disk are not what was written
    │   ├── StoreClosed                 the memory was closed
    │   ├── Unreachable                 the server that holds the store does not answer as one
    │   ├── NewerStore                  the store was written by a newer memspan
    │   ├── KeyNeeded                   the store is encrypted and no key was given
    │   ├── WrongKey                    the store is encrypted with another key
    │   ├── NotEncrypted                a key was given for a store that is in clear
    │   └── EncoderMismatch             the store's vectors come from another encoder
    ├── EncoderError                    texts could not be turned into vectors
    │   ├── AdapterError (RuntimeError) an adapter of MemBank's failed
    │   ├── ClusterError                the machines of a cluster that encode could not be had, or were lost
    │   └── ModelNotFound               the model file is nowhere to be found
    ├── RerankerError                   candidates could not be scored by a reranker
    ├── LLMError                        a language model could not be asked, or did not answer
    ├── Unsupported                     a server is asked what has no meaning here; ``mend`` says what has
    └── MissingExtra (ImportError)      an optional dependency is not installed; says the pip line

Messages have one shape, so that a tired person finds the mend where it always is:
``what is wrong (argument, value); how to mend it``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MemspanError(Exception):
    """Root of everything memspan raises on purpose. ``mend`` says what to do, in one sentence."""

    def __init__(self, problem: str, *, mend: str = "") -> None:
        self.problem = problem
        self.mend = mend
        super().__init__(f"{problem}; {mend}" if mend else problem)

    def __reduce__(self) -> tuple[Any, ...]:
        """So that another process gets it whole; what an exception is made anew from otherwise is its message alone."""
        return _again, (type(self), self.args, self.__dict__)


class InvalidInput(MemspanError, ValueError):
    """A wrong argument. ``argument`` is its name as the caller wrote it; nothing was written."""

    def __init__(self, argument: str, problem: str, *, mend: str = "") -> None:
        self.argument = argument
        super().__init__(f"{argument}: {problem}", mend=mend)


class InvalidFilter(InvalidInput):
    """A filter that cannot be understood."""


class BudgetTooSmall(InvalidInput):
    """The token budget cannot hold one citation with any text."""


class IdempotencyConflict(InvalidInput):
    """The idempotency key was used before with another payload."""


class NotUndoable(InvalidInput):
    """The operation removed what it would need to bring back, or something has changed since. Nothing was changed."""


class VersionConflict(InvalidInput):
    """The segment has another version than the one that the change was meant for. Nothing was changed."""


class TooLarge(InvalidInput):
    """More was sent to a server than it takes at once. Nothing was written."""


class NotFound(MemspanError, LookupError):
    """Nothing with that id in this namespace."""


class AccessDenied(MemspanError, PermissionError):
    """The API key does not reach this namespace, or does not allow this."""


class Unauthorized(AccessDenied):
    """A server wants an API key, and none was given, or one that is unknown, revoked or expired."""


class TooManyRequests(MemspanError):
    """A server is asked more often than it allows; ``retry_after``: seconds to wait."""

    retry_after: float = 1.0


class StoreError(MemspanError):
    """The store on disk cannot be used as asked."""


class NotAStore(StoreError):
    """The path exists but holds no memspan store, so nothing in it was touched."""


class NotWritable(StoreError):
    """The directory or database cannot be written by this user."""


class StoreFull(StoreError):
    """The disk or quota is full. The write was rolled back whole."""


class StoreBusy(StoreError):
    """The write lock was not free within the timeout. Nothing was written."""


class InDoubt(StoreError):
    """The server of the store was lost while it committed a write, and cannot be asked whether that was done. To repeat
    it with the same ``idempotency_key`` is safe."""


class StoreCorrupt(StoreError):
    """Bytes read back are not the bytes that were written."""


class StoreClosed(StoreError):
    """The memory was closed before this call."""


class Unreachable(StoreError):
    """The server that holds the store cannot be reached, or what answers is none of memspan's."""


class NewerStore(StoreError):
    """The store's schema is newer than this memspan understands; it was not touched."""


class KeyNeeded(StoreError):
    """The store is encrypted, and neither the caller nor the environment nor the keyring has its key."""


class WrongKey(StoreError):
    """The key is not the one that opens the store; it was not touched."""


class NotEncrypted(StoreError):
    """A key was given for a store that is in clear; nothing was written to it."""


class EncoderMismatch(StoreError):
    """The store's vectors come from another encoder; mixing them would compare unlike things."""


class EncoderError(MemspanError):
    """Texts could not be turned into vectors."""


class AdapterError(EncoderError, RuntimeError):
    """An adapter of MemBank's raised when it was to encode a text."""


class ClusterError(EncoderError):
    """The machines of a cluster that read and encode could not be had, or were lost. What was written is whole."""


class ModelNotFound(EncoderError):
    """The model's files are nowhere to be found."""


class RerankerError(MemspanError):
    """Candidates could not be scored by a reranker, or it answered what is no score. A search goes on without it."""


class LLMError(MemspanError):
    """A language model could not be asked, or did not answer. Nothing depends on it: what was said is as it was."""


class Unsupported(MemspanError):
    """A server is asked for something that another system offers and this one does not; ``mend`` says what to use."""


class MissingExtra(MemspanError, ImportError):
    """An optional dependency is missing. ``mend`` holds the exact pip line."""


def _again(kind: type[MemspanError], told: tuple[Any, ...], about: Mapping[str, Any]) -> MemspanError:
    error = kind.__new__(kind, *told)
    error.args = told  # which an OSError otherwise takes in its __init__
    error.__dict__.update(about)
    return error
