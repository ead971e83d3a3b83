"""Pointers to activations, and the buffer they point into."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from memspan.activations.arena import ALIGNED, START, ArenaFile, Payload, record, sound
from memspan.errors import InvalidInput, NotAStore, StoreClosed, StoreCorrupt
from memspan.ledger.connections import translated

CAPACITY: Final = 128 << 20

_UNIT: Final = np.dtype(np.complex128)  # 16 bytes that numpy moves as one


def hash_activation(activation: bytes | memoryview | NDArray[Any]) -> str:
    """64 hex digits: the SHA-256 of an activation's bytes."""
    raw = np.ascontiguousarray(activation).data if isinstance(activation, np.ndarray) else activation
    return hashlib.sha256(raw).hexdigest()


def hash_text(text: str) -> str:
    """64 hex digits: the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class PointerRecord:
    """Where an activation lies and what it is.

    ``ptr_id``: 64 hex digits, the hash of its bytes. ``buffer_offset``: byte in the buffer. ``hgns_level``: 0 whole,
    1 or 2 compressed. ``source_text_hash``: of the text it came from, the first one where several texts have the same
    activation. ``ref_count``: how often it was stored and not released.
    """

    ptr_id: str
    buffer_offset: int
    shape: tuple[int, ...]
    dtype: str
    model_id: str
    hgns_level: int
    source_text_hash: str
    ref_count: int = 1
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether somebody still holds it."""
        return self.ref_count > 0

    @property
    def nbytes(self) -> int:
        """Bytes of the activation."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def retain(self) -> int:
        """Count one more who holds it; the new count."""
        self.ref_count += 1
        return self.ref_count

    def release(self) -> bool:
        """Count one less; True when it is dead by that. Of a dead pointer nothing is left to release."""
        self.ref_count = max(0, self.ref_count - 1)
        return not self.is_alive

    def to_json(self) -> str:
        """The record as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PointerRecord:
        """The record of ``to_json``. Raises InvalidInput (a ValueError) for anything else."""
        try:
            fields = json.loads(text)
            return checked(cls(**fields | {"shape": tuple(fields["shape"])}))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidInput("text", f"is no pointer record ({error})", mend="give what to_json returned") from error


def checked(pointer: PointerRecord) -> PointerRecord:
    """The pointer itself, if its fields are of the right kinds. Raises InvalidInput (a ValueError)."""
    numbers = [pointer.buffer_offset, pointer.hgns_level, pointer.ref_count]
    numbers += pointer.shape if isinstance(pointer.shape, tuple) else [None]
    if any(isinstance(number, bool) or not isinstance(number, int) for number in numbers) or min(numbers) < 0:
        problem = "has an offset, level, count or shape that is not of whole numbers"
        raise InvalidInput("pointer", problem, mend="give numbers of at least 0, and the shape as a tuple of them")
    if max(numbers) >= 1 << 63:
        raise InvalidInput("pointer", "holds a number of more than 63 bits", mend="give a smaller one")
    for argument, value in (("ptr_id", pointer.ptr_id), ("source_text_hash", pointer.source_text_hash)):
        if not isinstance(value, str):
            raise InvalidInput(argument, f"is a {type(value).__name__}", mend="give 64 hex digits")
    if not isinstance(pointer.model_id, str):
        raise InvalidInput("model_id", f"is a {type(pointer.model_id).__name__}", mend="give a str")
    if not isinstance(pointer.metadata, dict):
        raise InvalidInput("metadata", f"is a {type(pointer.metadata).__name__}", mend="give a dict")
    try:
        plain(np.dtype(pointer.dtype) if isinstance(pointer.dtype, str) else np.dtype(object))
    except (TypeError, ValueError) as error:
        raise InvalidInput("dtype", f"{pointer.dtype!r} is none of numbers", mend="give one such as float32") from error
    return pointer


def plain(dtype: np.dtype[Any]) -> None:
    """Raises InvalidInput unless its items are single numbers, which bytes alone can give back."""
    if dtype.hasobject or dtype.kind == "V":
        raise InvalidInput("array", f"has dtype {dtype}", mend="give an array of numbers")


def closed() -> StoreClosed:
    """What a bank and its parts say once they were closed."""
    return StoreClosed("this MemBank was closed", mend="open it again: a new MemBank on the same files")


def make_pointer(
    activation_bytes: bytes,
    buffer_offset: int,
    shape: Sequence[int],
    dtype: str,
    model_id: str,
    hgns_level: int,
    source_text: str,
    metadata: Mapping[str, Any] | None = None,
) -> PointerRecord:
    """A pointer to ``activation_bytes`` at ``buffer_offset``; hashes both them and ``source_text``."""
    return PointerRecord(
        ptr_id=hash_activation(activation_bytes),
        buffer_offset=buffer_offset,
        shape=tuple(shape),
        dtype=dtype,
        model_id=model_id,
        hgns_level=hgns_level,
        source_text_hash=hash_text(source_text),
        metadata=dict(metadata or {}),
    )


class MemMapBuffer:
    """One mapped file of activations that only grows: an arena, with pointers into it.

    ``path``: the file, made where it is missing; None keeps it in memory. ``initial_capacity_bytes``: how far it may
    be filled before ``capacity_bytes`` grows; it takes space on the disk only as it is written. ``end``: where the
    next record goes, as somebody noted it; None looks for the last record, so that it reopens after a crash.

    Safe to use from several threads; who writes to one file from several processes passes the end between them, as
    ``MemBank`` does. Raises InvalidInput, StoreCorrupt when the file is another program's, NotWritable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        initial_capacity_bytes: int = CAPACITY,
        *,
        end: int | None = None,
    ) -> None:
        if initial_capacity_bytes < 1:
            problem = f"{initial_capacity_bytes!r} holds nothing"
            raise InvalidInput("initial_capacity_bytes", problem, mend="give a number of bytes")
        self.path = None if path is None else Path(path)
        self._capacity = initial_capacity_bytes
        self._closed = False
        self._lock = threading.Lock()
        with translated(self.path):
            self._arena = ArenaFile(self.path)
        if end is None:
            end = START
            for offset, size in self._arena.scan(damaged=True):
                end = offset + size + -size % ALIGNED
        self.end = end

    def __repr__(self) -> str:
        return f"MemMapBuffer({str(self.path or 'in memory')!r}, used_bytes={self.used_bytes:,})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def used_bytes(self) -> int:
        """Bytes that records take."""
        return self.end - START

    def write(
        self,
        array: NDArray[Any],
        model_id: str,
        hgns_level: int,
        source_text: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> PointerRecord:
        """Append an array of any shape and plain dtype; the pointer to it. It is on the disk after ``sync`` or
        ``close``. Raises InvalidInput, StoreClosed, OSError."""
        array = np.asarray(array, order="C")  # which leaves an array without axes as it is
        plain(array.dtype)
        raw = array.tobytes()
        with self._lock:
            (offset,), self.end = self.append([raw], self.end)
        return make_pointer(raw, offset, array.shape, array.dtype.str, model_id, hgns_level, source_text, metadata)

    def append(self, payloads: Sequence[Payload], at: int) -> tuple[list[int], int]:
        """Write records from ``at`` on: the offset of each, and where the next one goes. Moves ``end`` not."""
        self._usable()
        return self._arena.append(payloads, at)

    def deref(self, pointer: PointerRecord) -> NDArray[Any]:
        """The activation itself: a read-only view on the map, without a copy.

        Raises StoreCorrupt, naming file and place, when it is not what was written; InvalidInput when another
        activation lies there; StoreClosed.
        """
        raw = self.raw(pointer.buffer_offset, pointer.nbytes)
        if hash_activation(raw) != pointer.ptr_id:
            problem = f"{pointer.buffer_offset} holds another activation"
            raise InvalidInput("pointer", problem, mend="take the pointer anew from the registry: gc moves activations")
        view: NDArray[Any] = np.ndarray(pointer.shape, pointer.dtype, raw)
        return view

    def check(self, offset: int, size: int) -> None:
        """Raises StoreCorrupt, naming file and place, unless the record is there and what was written."""
        self._usable()
        if offset < START + ALIGNED:
            raise InvalidInput("pointer", f"offset {offset} is before the first record", mend="give a pointer of here")
        if not self._arena.whole(offset, size):
            raise self.damaged(offset, size)

    def damaged(self, offset: int, size: int) -> StoreCorrupt:
        """The error that says so of a record."""
        problem = f"{self.path or 'the buffer in memory'} is damaged at byte {offset} ({size} bytes)"
        return StoreCorrupt(problem, mend="call rebuild_indexes of its MemBank, which encodes that text again")

    def raw(self, offset: int, size: int) -> memoryview:
        """The bytes of a record, checked."""
        self.check(offset, size)
        return self._arena.read(offset, size).data

    def holds(self, offset: int, size: int, ptr_id: str | None = None) -> bool:
        """Whether a whole record of ``size`` bytes is at ``offset``, and the one that ``ptr_id`` is the hash of."""
        self._usable()
        if not self._arena.whole(offset, size):
            return False
        return ptr_id is None or hash_activation(self._arena.read(offset, size).data) == ptr_id

    def gather(
        self, offsets: NDArray[np.int64], count: int, dtype: DTypeLike
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """dtype[n, count], the records of ``count`` numbers at ``offsets``, copied together; and bool[n], which of them
        are what was written. The others may be anything."""
        self._usable()
        size = count * np.dtype(dtype).itemsize
        units = 1 + -(-size // ALIGNED)  # the header and the payload
        per = self._arena.extent // ALIGNED
        first = offsets // ALIGNED - 1
        there = (offsets % ALIGNED == 0) & (first > 0) & (first % per + units <= per)
        numbers, within = first // per, np.arange(units)
        rows = np.zeros((len(offsets), units), _UNIT)
        for number in set(numbers[there].tolist()):
            mine = there & (numbers == number)
            try:
                extent = self._arena.read(number * self._arena.extent, self._arena.extent).view(_UNIT)
            except StoreCorrupt:  # the file does not reach there
                there &= ~mine
                continue
            if mine.all():
                rows = extent[first[:, None] + (within - number * per)]
            else:
                rows[mine] = extent[first[mine, None] + (within - number * per)]
        raw = rows.view(np.uint8)
        found: NDArray[Any] = raw[:, ALIGNED : ALIGNED + size].view(dtype)
        return found, there & sound(raw, size)

    def claim(self, mark: bytes) -> None:
        """See to it that the first record of the file is ``mark``: write it where nothing is, mend it where it is
        damaged, and raise NotAStore where the file is somebody else's."""
        if self.path is None:
            return
        own = record(mark)
        head = self._arena.read(START, len(own)).tobytes()
        if head != own:  # one flipped bit leaves either the header, with its checksum, or the mark
            ours = own.startswith(head.rstrip(b"\0")) or head[:ALIGNED] == own[:ALIGNED] or head[ALIGNED:] == mark
            if not ours:
                problem = f"{self.path} holds activations that are not of this registry"
                raise NotAStore(problem, mend="give another buffer_path, or delete that file if nobody needs it")
            self._arena.append([mark], START)
        self.end = max(self.end, START + len(own))

    def sync(self) -> None:
        """Returns when what was written is on the disk."""
        self._usable()
        self._arena.sync()

    def stats(self) -> dict[str, Any]:
        """``used_bytes``, ``capacity_bytes``, and ``utilization``: the one by the other."""
        capacity = max(self._capacity, self._arena.size())
        used = self.used_bytes
        return {"used_bytes": used, "capacity_bytes": capacity, "utilization": used / capacity}

    def close(self) -> None:
        """Put everything on the disk and let the file go. Calling it twice does nothing."""
        if not self._closed:
            self._arena.sync()
            self._closed = True
            self._arena.close()

    def _usable(self) -> None:
        if self._closed:
            raise closed()
