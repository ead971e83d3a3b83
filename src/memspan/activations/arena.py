"""Arena files: records appended one after the other, mapped, and read without a copy.

A file begins with 16 bytes that say what it is. A record is a header of 16 bytes (a mark, the CRC-32 of the payload,
its size) and the payload, both at multiples of 16. Who appends says where: the end of what was committed is kept
beside the files (in the ledger, in a registry), so what a crash left after it is written over and never read.

Files are mapped extent by extent and grow by whole steps, without taking that space on the disk: what is appended
within one is seen through the maps readers hold already. Growing moves nothing: what readers hold stays where it is.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput, StoreCorrupt

MARK: Final = b"memspan arena 1\n"
START: Final = len(MARK)  # where the first record begins
EXTENT: Final = 64 << 20
STEP: Final = 1 << 20  # bytes an arena of a store grows by: a small store stays small, also where it is copied
ALIGNED: Final = 16

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Payload = bytes | memoryview | NDArray[np.uint8]

_HEADER: Final = struct.Struct("<4sIQ")
_HEADS: Final = np.dtype([("mark", "S4"), ("sum", "<u4"), ("size", "<u8")])
_RECORD: Final = b"rec\n"


class ArenaFile:
    """One file of records, or one in memory where ``path`` is None.

    ``extent``: bytes mapped at a time, rounded up to what the system maps; no payload can be larger than that less 32
    bytes. ``step``: bytes the file grows by, an extent where None is given; a part of an extent is mapped again as a
    whole when it has grown, and what readers hold of the old map stays as it is. ``create``: make the file where there
    is none. Reading is safe from any thread and process; of those who append, one at a time may. Raises StoreCorrupt
    when the file is another program's or, without ``create``, gone.
    """

    def __init__(
        self, path: Path | None, extent: int = EXTENT, *, step: int | None = None, create: bool = True
    ) -> None:
        least = mmap.ALLOCATIONGRANULARITY
        self.path = path
        self.extent = _up(max(extent, least), least)
        self.step = self.extent if step is None else min(_up(max(step, least), least), self.extent)
        self._lock = threading.Lock()
        self._extents: list[Bytes] = []
        self._file = None if path is None else _opened(path, create, self.step)
        # unclosed, as a Memory that nobody closed, it is closed with the last reference
        self._close = None if self._file is None else weakref.finalize(self, os.close, self._file)

    def append(self, payloads: Sequence[Payload], at: int) -> tuple[list[int], int]:
        """Write ``payloads`` as records from ``at`` on; returns the offset of each payload, and where the next record
        may begin. Nothing is on the disk for certain before ``sync``. Raises InvalidInput, OSError."""
        offsets: list[int] = []
        parts: list[bytes | memoryview] = []
        end = begin = at
        for payload in map(_flat, payloads):
            size = payload.nbytes
            if size > self.extent - 2 * ALIGNED:
                mend = f"give at most {self.extent - 2 * ALIGNED} bytes, or make the arena with a larger extent"
                raise InvalidInput("payload", f"has {size} bytes", mend=mend)
            if end // self.extent < (end + _HEADER.size + size - 1) // self.extent:  # it would cross into the next
                self._put(parts, begin)
                begin = end = _up(end, self.extent)
                parts = []
            parts += [_HEADER.pack(_RECORD, zlib.crc32(payload), size), payload, bytes(-size % ALIGNED)]
            offset, end = placed(end, size)
            offsets.append(offset)
        self._put(parts, begin)
        return offsets, end

    def _put(self, parts: Sequence[bytes | memoryview], at: int) -> None:
        raw = b"".join(parts)
        if not raw:
            return
        whole = _up(at + len(raw), self.step)
        with self._lock:
            if self._file is None:
                while len(self._extents) * self.extent < whole:
                    self._extents.append(np.zeros(self.extent, np.uint8))
                start = at % self.extent
                self._extents[at // self.extent][start : start + len(raw)] = np.frombuffer(raw, np.uint8)
                return
            if os.fstat(self._file).st_size < whole:
                os.ftruncate(self._file, whole)
            os.lseek(self._file, at, os.SEEK_SET)
            left = memoryview(raw)
            while left:
                left = left[os.write(self._file, left) :]

    def read(self, offset: int, size: int) -> Bytes:
        """The payload at ``offset``: uint8[size], read-only, on the map itself. Raises StoreCorrupt when the file is
        shorter than that."""
        start = offset % self.extent
        view = self._map(offset // self.extent, start + size)[start : start + size]
        view.flags.writeable = False
        return view

    def gather(self, offsets: Places, sizes: Places) -> Bytes:
        """The payloads at ``offsets`` int64[n] of the first extent, ``sizes`` int64[n], one after the other."""
        unit = int(np.gcd.reduce(sizes, initial=ALIGNED))
        mapped = self._map(0, int((offsets + sizes).max(initial=0)))
        return np.take(mapped.reshape(-1, unit), ranges(offsets // unit, sizes // unit), axis=0).reshape(-1)

    def whole(self, offset: int, size: int) -> bool:
        """Whether the payload of ``size`` bytes at ``offset`` is there and what was written."""
        try:
            mark, checksum, length = _HEADER.unpack(self.read(offset - _HEADER.size, _HEADER.size).data)
            return bool(mark == _RECORD and length == size and zlib.crc32(self.read(offset, size).data) == checksum)
        except StoreCorrupt:
            return False

    def check(self, offset: int, size: int) -> None:
        """Raises StoreCorrupt, naming file and place, unless the record is there and what was written."""
        if not self.whole(offset, size):
            where = "the arena in memory" if self.path is None else str(self.path)
            raise StoreCorrupt(f"{where} is damaged at byte {offset} ({size} bytes)", mend="encode that text again")

    def scan(self, *, damaged: bool = False) -> Iterator[tuple[int, int]]:
        """Offset and size of each whole record in order, up to the first that is torn; with ``damaged`` also of those
        whose payload is not what was written, up to where no record begins."""
        at, total = START, self.size()
        while at + _HEADER.size <= total:
            mark, _, size = _HEADER.unpack(self.read(at, _HEADER.size).data) if _fits(at, self.extent) else (b"", 0, 0)
            offset = at + _HEADER.size
            fits = mark == _RECORD and at % self.extent + _HEADER.size + size <= self.extent and offset + size <= total
            if fits and (damaged or self.whole(offset, size)):
                yield offset, size
                at = offset + _up(size, ALIGNED)
            elif at % self.extent:  # the rest of this extent was too small for what came next
                at = _up(at, self.extent)
            else:
                return

    def erase(self, offset: int, size: int) -> None:
        """Write a record of zeros over one of ``size`` bytes at ``offset``, so that nobody can read what it held."""
        zeros = bytes(size)
        self._put([_HEADER.pack(_RECORD, zlib.crc32(zeros), size), zeros], offset - _HEADER.size)

    def cut(self, finish: int) -> None:
        """Write zeros over what stands after ``finish``, where anything does."""
        for start in range(finish, self.size(), STEP):
            end = min(start + STEP, self.size())
            if self._rest(start, end).strip(b"\0"):
                self._put([bytes(end - start)], start)
                self.sync()

    def unaccounted(self, finish: int, places: Iterable[tuple[int, int]]) -> Iterator[int]:
        """Offsets of what stands up to ``finish`` beside the payloads at ``places`` (offset, size), their headers, and
        records that were erased."""
        living = dict(places)
        at = START
        while at + _HEADER.size <= min(finish, self.size()):
            room = at % self.extent + _HEADER.size <= self.extent
            mark, _, size = _HEADER.unpack(self.read(at, _HEADER.size).data) if room else (b"", 0, 0)
            if mark != _RECORD:  # the rest of an extent, too small for what came next
                offset, end = at, min(_up(at + 1, self.extent), finish)
            else:
                offset = at + _HEADER.size
                end = offset + _up(size, ALIGNED)
            if offset not in living and (left := self._rest(offset, end).lstrip(b"\0")):
                yield end - len(left)
            at = end

    def _rest(self, start: int, end: int) -> bytes:
        """What stands there, wherever extents begin."""
        parts = []
        while start < end:
            part = min(end, _up(start + 1, self.extent)) - start
            parts.append(self.read(start, part).tobytes())
            start += part
        return b"".join(parts)

    def size(self) -> int:
        """How long the file is, in bytes; most of it may take no space."""
        return len(self._extents) * self.extent if self._file is None else os.fstat(self._file).st_size

    def present(self) -> bool:
        """Whether this file is still in its directory, and not removed by another process."""
        return self._file is None or os.fstat(self._file).st_nlink > 0

    def forked(self) -> ArenaFile:
        """One in memory as a forked child finds it: with a lock of its own, the parent may have been holding this."""
        other = ArenaFile(None, self.extent)
        other._extents = self._extents
        return other

    def sync(self) -> None:
        """Returns when what was appended is on the disk."""
        if self._file is not None:
            getattr(os, "fdatasync", os.fsync)(self._file)

    def close(self) -> None:
        """Let the file go; views that were read stay as they are for as long as somebody holds them."""
        with self._lock:
            if self._close is not None:
                self._extents = []  # a view that somebody holds keeps its map
                self._close()

    def _map(self, number: int, reach: int) -> Bytes:
        """Extent ``number`` as far as the file goes, at least ``reach`` bytes; mapped once, and again when it grew."""
        while number >= len(self._extents) or len(self._extents[number]) < reach:
            with self._lock:
                if self._file is None:
                    raise StoreCorrupt(f"the arena in memory has no extent {number}", mend="encode that text again")
                while len(self._extents) <= number:
                    self._extents.append(_UNMAPPED)
                if len(self._extents[number]) < reach:
                    start = number * self.extent
                    there = min(os.fstat(self._file).st_size - start, self.extent)
                    if there < reach:
                        raise StoreCorrupt(f"{self.path} was cut short", mend="what is missing is encoded again")
                    view = mmap.mmap(self._file, there, access=mmap.ACCESS_READ, offset=start)
                    self._extents[number] = np.frombuffer(view, np.uint8)
        return self._extents[number]


class Arenas:
    """The arena files of a store, by number: each at most one extent long; or in memory, where ``directory`` is None.

    Whoever appends, erases or removes holds the ledger's write lock.
    """

    overhead = 0  # bytes that a payload has more in its file

    def __init__(self, directory: Path | None, extent: int | None = None) -> None:
        self.directory = directory
        self.extent = extent or EXTENT
        self._files: dict[int, ArenaFile] = {}
        self._lock = threading.Lock()

    def forked(self) -> Arenas:
        """The same in a forked child, which has none of the parent's threads and so cannot wait for their locks."""
        other = Arenas(self.directory, self.extent)
        if self.directory is None:
            other._files = {number: file.forked() for number, file in self._files.items()}
        return other

    def name(self, number: int) -> str:
        """Arena ``number`` as people should read of it."""
        return "the arena in memory" if self.directory is None else str(self._path(number))

    def append(
        self, number: int, finish: int, following: int, payloads: Sequence[tuple[bytes, bytes]]
    ) -> Iterator[tuple[int, int, list[tuple[bytes, int]]]]:
        """Append ``payloads``, (key, payload) each, from the place ``finish`` of arena ``number`` on, and where that is
        full in new arenas, numbered from ``following`` on. Yields, once its part is on the disk, each arena's number,
        its new finish, and (key, offset) of what it was given. Raises InvalidInput, OSError."""
        room: list[tuple[bytes, bytes]] = []
        end = finish
        for key, payload in payloads:
            need = 3 * ALIGNED + len(payload) + self.overhead
            if end + need > self.extent and end > START:
                yield self._append(number, finish, room)
                number, following, finish, end, room = following, following + 1, START, START, []
            room.append((key, payload))
            end += need
        yield self._append(number, finish, room)

    def _append(
        self, number: int, at: int, payloads: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, int, list[tuple[bytes, int]]]:
        file = self._file(number, create=True)
        offsets, finish = file.append([payload for _, payload in payloads], at)
        file.sync()
        return number, finish, [(key, offset) for (key, _), offset in zip(payloads, offsets, strict=True)]

    def gather(self, places: Places) -> Bytes:
        """The payloads at ``places`` int64[n, 3] (arena, offset, size), one after the other: uint8[sum of sizes]."""
        arenas, offsets, sizes = places.T
        numbers = np.unique(arenas)
        if len(numbers) == 1:
            return self._file(int(numbers[0])).gather(offsets, sizes)
        whole = np.empty(int(sizes.sum()), np.uint8)
        starts = np.cumsum(sizes) - sizes
        for number in numbers:
            here = arenas == number
            whole[ranges(starts[here], sizes[here])] = self._file(int(number)).gather(offsets[here], sizes[here])
        return whole

    def whole(self, number: int, offset: int, size: int) -> bool:
        """Whether this payload is there and what was written."""
        try:
            return self._file(number).whole(offset, size)
        except StoreCorrupt:
            return False

    def digest(self, number: int, offset: int, size: int) -> bytes:
        """SHA-256 of a payload."""
        return hashlib.sha256(self._file(number).read(offset, size).data).digest()

    def reaches(self, number: int, finish: int) -> bool:
        """Whether the file of arena ``number`` is there and reaches to ``finish``."""
        if self.directory is None:
            return True
        try:
            return self._path(number).stat().st_size >= finish
        except FileNotFoundError:
            return False

    def read(self, number: int, offset: int, size: int) -> bytes:
        """A copy of a payload."""
        return self._file(number).read(offset, size).tobytes()

    def erase(self, number: int, offset: int, size: int) -> None:
        """Write zeros over a payload; of a file that is gone nothing is left to erase."""
        with suppress(StoreCorrupt):
            self._file(number).erase(offset, size)

    def sync(self, number: int) -> None:
        """Returns when what was erased in arena ``number`` is on the disk."""
        with suppress(StoreCorrupt):
            self._file(number).sync()

    def sweep(self, known: Mapping[int, int]) -> None:
        """Remove files of arenas that are not among the ``known`` ones, and write zeros over what stands in those after
        the finish of each: what a crash left behind."""
        if self.directory is None:
            return
        names = {self._path(number).name for number in known}
        for file in self.directory.glob("arena-*.bin"):
            if file.name not in names:
                file.unlink(missing_ok=True)
        for number, finish in known.items():
            with suppress(StoreCorrupt):
                self._file(number).cut(finish)

    def unaccounted(self, number: int, finish: int, places: Iterable[tuple[int, int]]) -> Iterator[int]:
        """Where in an arena, up to ``finish``, something stands beside the payloads at ``places`` (offset, size)."""
        with suppress(StoreCorrupt):
            yield from self._file(number).unaccounted(finish, places)

    def remove(self, number: int) -> None:
        """Remove an arena. Who reads in it goes on; its space comes back when the last one has let go."""
        with self._lock:
            self._files.pop(number, None)
        if self.directory is not None:
            self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Let every file go."""
        with self._lock:
            files, self._files = self._files, {}
        if self.directory is not None:
            for file in files.values():
                file.close()

    def _path(self, number: int) -> Path:
        return (self.directory or Path()) / f"arena-{number:06d}.bin"

    def _file(self, number: int, *, create: bool = False) -> ArenaFile:
        file = self._files.get(number)
        if file is None or (create and not file.present()):
            with self._lock:
                file = self._files.get(number)
                if file is None or not file.present():
                    path = None if self.directory is None else self._path(number)
                    if (
                        path is not None
                    ):  # what other processes have removed since takes space for as long as it is open
                        self._files = {other: each for other, each in self._files.items() if each.present()}
                    file = self._files[number] = ArenaFile(path, self.extent, step=STEP, create=create)
        return file


def placed(begin: int, size: int) -> tuple[int, int]:
    """Where the payload of ``size`` bytes lies of a record that begins at ``begin``, and where the next one begins."""
    offset = begin + _HEADER.size
    return offset, offset + _up(size, ALIGNED)


def ranges(starts: Places, counts: Places) -> Places:
    """int64[sum of counts]: the whole numbers from each of ``starts`` on, as many as its count."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def record(payload: bytes) -> bytes:
    """A payload with its header, as it is written."""
    return _HEADER.pack(_RECORD, zlib.crc32(payload), len(payload)) + payload


def sound(rows: Bytes, size: int) -> NDArray[np.bool_]:
    """Which of the records uint8[n, 16 + size and what aligns it] have a payload of ``size`` bytes that is whole."""
    heads = np.ascontiguousarray(rows[:, : _HEADER.size]).view(_HEADS)[:, 0]
    raw, width = np.ascontiguousarray(rows).reshape(-1).data, rows.shape[1]
    begins = range(_HEADER.size, _HEADER.size + len(rows) * width, width)
    sums = np.fromiter((zlib.crc32(raw[begin : begin + size]) for begin in begins), np.uint32, len(rows))
    whole: NDArray[np.bool_] = (heads["mark"] == _RECORD) & (heads["size"] == size) & (heads["sum"] == sums)
    return whole


_UNMAPPED: Final = np.zeros(0, np.uint8)


def _flat(payload: Payload) -> memoryview:
    """The payload's bytes, without a copy."""
    return memoryview(payload if isinstance(payload, (bytes, memoryview)) else payload.data).cast("B")


def _up(size: int, step: int) -> int:
    """``size``, or the next multiple of ``step`` above it."""
    return -(-size // step) * step


def _fits(at: int, extent: int) -> bool:
    return at % extent + _HEADER.size <= extent


def _opened(path: Path, create: bool, extent: int) -> int:
    """A descriptor of the file, which begins as an arena does and is as long as whole extents."""
    flags = os.O_RDWR | getattr(os, "O_BINARY", 0) | (os.O_CREAT if create else 0)
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, flags, 0o666)
    except FileNotFoundError as error:
        raise StoreCorrupt(f"{path} is gone", mend="what it held is encoded again") from error
    try:
        head = os.read(file, START)
        if head.strip(b"\0") and head != MARK:
            raise StoreCorrupt(f"{path} is not an arena", mend="move it away; what it held is encoded again")
        if head != MARK:  # several may do this at once: they write the same
            os.lseek(file, 0, os.SEEK_SET)
            os.write(file, MARK)
            sync_directory(path.parent)
        size = os.fstat(file).st_size
        if size % extent:  # cut by somebody: what is not there reads as damaged
            os.ftruncate(file, _up(size, extent))
    except BaseException:
        os.close(file)
        raise
    return file


def sync_directory(directory: Path) -> None:
    """Have the name of a new file on the disk, where the system knows such a thing."""
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
