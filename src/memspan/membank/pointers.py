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

from memspan.activations.arena import ALIGNED, START, ArenaFile, Payload
from memspan.errors import InvalidInput, StoreClosed, StoreCorrupt

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
            return cls(**fields | {"shape": tuple(fields["shape"])})
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput("text", f"is no pointer record ({error})", mend="give what to_json returned") from error


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
    next record goes, as somebody noted it; None looks for the last whole record, so that it reopens after a crash.

    Safe to use from several threads; who writes to one file from several processes passes the end between them, as
    ``MemBank`` does. Raises StoreCorrupt when the file is another program's, or shorter than ``end``.
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
        there = self.path.stat().st_size if self.path is not None and self.path.exists() else 0
        if self.path is not None and end is not None and end > max(START, there):
            raise StoreCorrupt(f"{self.path} was cut short before byte {end}", mend="restore it from a backup")
        self._arena = ArenaFile(self.path)
        if end is None:
            end = START
            for offset, size in self._arena.scan():
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
        array = np.ascontiguousarray(array)
        if array.dtype.hasobject:
            raise InvalidInput("array", f"has dtype {array.dtype}", mend="give an array of numbers")
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
        view: NDArray[Any] = np.frombuffer(raw, pointer.dtype)
        return view.reshape(pointer.shape)

    def check(self, offset: int, size: int) -> None:
        """Raises StoreCorrupt, naming file and place, unless the record is there and what was written."""
        self._usable()
        if offset < START + ALIGNED:
            raise InvalidInput("pointer", f"offset {offset} is before the first record", mend="give a pointer of here")
        self._arena.check(offset, size)

    def raw(self, offset: int, size: int) -> memoryview:
        """The bytes of a record, checked."""
        self.check(offset, size)
        return self._arena.read(offset, size).data

    def gather(self, offsets: NDArray[np.int64], count: int, dtype: DTypeLike) -> NDArray[Any]:
        """dtype[n, count]: the first ``count`` numbers of the records at ``offsets``, copied together; unchecked."""
        self._usable()
        if not len(offsets):
            return np.zeros((0, count), dtype)
        size = count * np.dtype(dtype).itemsize
        within = np.arange(-(-size // ALIGNED))
        first = (offsets // ALIGNED)[:, None] + within
        per = self._arena.extent // ALIGNED
        numbers = range(int(offsets.min()) // self._arena.extent, int(offsets.max()) // self._arena.extent + 1)
        if len(numbers) == 1:
            rows = self._units(numbers[0])[first - numbers[0] * per]
        else:
            rows = np.empty(first.shape, _UNIT)
            for number in numbers:
                mine = first[:, 0] // per == number
                if mine.any():
                    rows[mine] = self._units(number)[first[mine] - number * per]
        found: NDArray[Any] = rows.view(np.uint8)[:, :size].view(dtype)
        return found

    def _units(self, number: int) -> NDArray[np.complex128]:
        """An extent, 16 bytes at a time."""
        extent = self._arena.extent
        return self._arena.read(number * extent, extent).view(np.complex128)

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
            raise StoreClosed("this buffer was closed", mend="open a new one on the same path")
