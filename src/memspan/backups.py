"""Backups of a store on disk, and the way back: a directory of chunks, each kept once, and a list of them per backup.

    memspan-backups.json     says what the directory is, and of which store
    000001.pack              the chunks that were new in backup 1, one after the other
    000001.backup            backup 1: a line of JSON, then for each chunk of each file its SHA-256 and where it lies,
                             then the SHA-256 of all that

A file is cut into chunks of 4 KiB, SQLite's pages; what has not changed since the last backup is named again and not
written again. The list is put there last, by a rename: a backup is there whole or not at all, and what an interrupted
one left is removed by the next. Nothing that is there is ever written to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from memspan import arguments
from memspan.errors import InvalidInput, NewerStore, NotFound, StoreBusy, StoreCorrupt, StoreError
from memspan.ledger.connections import translated
from memspan.ledger.copying import Moment, Part, copy
from memspan.ledger.sqlite import SqliteLedger
from memspan.reports import BackedUp
from memspan.segmenting import parse_time, shown
from memspan.views.base import Progress

FORMAT = 1
CHUNK = 4096
BLOCK = 256 * CHUNK  # bytes read at a time
MARKER = "memspan-backups.json"
LOCK = "backup.lock"
WORTH = 0.5  # share of a pack that no backup needs from which the rest of it is moved and the pack removed
_ROW = struct.Struct("<32sIQ")  # of a chunk: its SHA-256, the number of its pack, where in that it begins
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")  # of a file in a store
_LIST = re.compile(r"(\d{6,})\.backup")
_SUM = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _List:
    """A backup as it lies in its directory: of each file, by name, the ``rows`` of its chunks and its size in bytes."""

    about: BackedUp
    rows: Mapping[str, bytes]
    sizes: Mapping[str, int]

    def packs(self) -> dict[int, tuple[int, int]]:
        """Of each pack it needs how long that must be at least, and how many of its bytes it needs."""
        found: dict[int, tuple[int, int]] = {}
        for _, _, pack, at, size in self.chunks():
            reach, needed = found.get(pack, (0, 0))
            found[pack] = max(reach, at + size), needed + size
        return found

    def chunks(self) -> Iterator[tuple[str, bytes, int, int, int]]:
        """(file, SHA-256, pack, where it begins there, size) of each chunk in order."""
        for name, rows in self.rows.items():
            left = self.sizes[name]
            for digest, pack, at in _ROW.iter_unpack(rows):
                yield name, digest, pack, at, min(CHUNK, left)
                left -= CHUNK


def make(
    ledger: SqliteLedger, store: Path, path: Path, *, keep: int | None = None, progress: Progress | None = None
) -> BackedUp:
    """Back the store up into the directory ``path``, which is made where it is not there.

    ``keep``: how many backups there are to be afterwards, the newest ones; None keeps all. Raises InvalidInput,
    StoreError.
    """
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(store)):
        problem = f"{path} is inside the store, and would be lost with it"
        raise InvalidInput("path", problem, mend="give a directory elsewhere, on another disk if there is one")
    store_id = str(ledger.value("store_id"))
    with _alone(path):
        if not (path / MARKER).exists():
            with translated(path):
                _write_aside(path / MARKER, json.dumps({"format": FORMAT, "store_id": store_id}).encode() + b"\n")
        if (other := _owner(path)) != store_id:
            mend = "give each store a directory of its own"
            raise InvalidInput("path", f"{path} holds the backups of another store ({other})", mend=mend)
        lists = _lists(path)
        _sweep(path, lists)
        last = next((found for found in map(_readable, reversed(lists)) if found is not None), None)
        number = 1 + max(map(_number, lists), default=0)
        rows = {} if last is None else _there(path, last, pruning=keep is not None)
        making = _Making(path, number, rows, _weight(ledger, store), progress)
        try:
            done = making.finish(copy(ledger, store / "ledger.db", making.take, CHUNK))
        except BaseException:
            making.give_up()
            raise
        if keep is not None:
            _prune(path, keep)
    return done


class _Making:
    """A backup that is being made: its pack, and the rows of each file so far."""

    def __init__(
        self, path: Path, number: int, known: Mapping[str, bytes], total: int, progress: Progress | None
    ) -> None:
        self._path = path
        self._number = number
        self._known = known  # the rows of the last backup
        self._progress = progress
        self._total = total
        self._rows: dict[str, bytearray] = {}
        self._sizes: dict[str, int] = {}
        self._part = path / f"{number:06d}.pack.part"
        with translated(path):
            self._pack = self._part.open("xb", buffering=BLOCK)
        self._written = self._done = 0

    def take(self, part: Part) -> None:
        """Read a part of a file, and write what the last backup does not have."""
        rows = self._rows.setdefault(part.name, bytearray())
        known = self._known.get(part.name, b"")
        del rows[part.begin // CHUNK * _ROW.size :]
        at = part.begin
        while at < part.end and (block := part.read(at, min(BLOCK, part.end - at))):
            for begin in range(0, len(block), CHUNK):
                chunk = block[begin : begin + CHUNK]
                digest = hashlib.sha256(chunk).digest()
                place = len(rows)
                if known[place : place + len(digest)] == digest:
                    rows += known[place : place + _ROW.size]
                else:
                    rows += _ROW.pack(digest, self._number, self._written)
                    with translated(self._path):
                        self._pack.write(chunk)
                    self._written += len(chunk)
            at += len(block)
            self._done += len(block)
            if self._progress is not None:
                self._progress(self._done, max(self._total, self._done), "backing up")
        self._sizes[part.name] = at

    def finish(self, moment: Moment) -> BackedUp:
        """Have it on the disk, and only then in the list of what there is."""
        self._sizes = {name: self._sizes[name] for name in moment.files if name in self._sizes}
        done = BackedUp(
            path=str(self._path),
            number=self._number,
            at=moment.at,
            store_id=moment.store_id,
            schema=moment.schema,
            memspan=version("memspan"),
            segments=moment.segments,
            bytes=sum(self._sizes.values()),
            written=self._written,
        )
        with translated(self._path):
            _settle(self._pack)
            if self._written:
                self._part.replace(_pack(self._path, self._number))
            else:
                self._part.unlink()
            _sync(self._path)
            _put(
                self._path,
                _List(about=done, rows={name: bytes(self._rows[name]) for name in self._sizes}, sizes=self._sizes),
            )
        if self._progress is not None:
            self._progress(done.bytes, done.bytes, "backing up")
        return done

    def give_up(self) -> None:
        with suppress(OSError):
            self._pack.close()
        self._part.unlink(missing_ok=True)


def kept(path: str | os.PathLike[str]) -> list[BackedUp]:
    """The backups in the directory ``path``, the oldest first. Raises InvalidInput, StoreCorrupt."""
    place = _known(path)
    return [_read(file).about for file in _lists(place)]


def check(
    path: str | os.PathLike[str], at: int | str | datetime | None = None, *, progress: Progress | None = None
) -> BackedUp:
    """Read a backup whole and compare it with its checksums. ``at`` as in ``restore``. Raises as that does."""
    found = _chosen(_known(path), at)
    for _ in _contents(found, progress, "checking"):
        pass
    return found.about


def restore(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    at: int | str | datetime | None = None,
    progress: Progress | None = None,
) -> BackedUp:
    """Make the store of a backup anew in the directory ``target``, which must be new or empty; returns that backup.

    ``source`` is the directory of the backups. ``at`` is the number of one, or a time: the last backup up to then is
    taken; None takes the newest. Everything is compared with its checksums on the way, and ``target`` is there whole or
    not at all. Raises InvalidInput, NotFound where there is no such backup, NewerStore where a newer memspan made it,
    StoreCorrupt naming the chunk and the file it is of where one is damaged, and other StoreErrors.
    """
    found = _chosen(_known(source), at)
    place = arguments.path(target)
    if Path(os.path.realpath(place)).is_relative_to(os.path.realpath(found.about.path)):
        raise InvalidInput("target", f"{place} is among the backups", mend="give a directory elsewhere")
    with translated(place):
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            mend = "name a new or empty directory; nothing is ever restored over something"
            raise InvalidInput("target", f"{place} is not empty", mend=mend)
        place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with translated(part):
            _write(found, part, progress)
            with suppress(FileNotFoundError):
                place.rmdir()
            part.replace(place)
            _sync(place.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found.about


def _write(found: _List, target: Path, progress: Progress | None) -> None:
    target.mkdir()
    with ExitStack() as opened:
        files: dict[str, IO[bytes]] = {}
        for name in found.sizes:
            file = target / name
            file.parent.mkdir(exist_ok=True)
            files[name] = opened.enter_context(file.open("xb"))
        for name, chunk in _contents(found, progress, "restoring"):
            files[name].write(chunk)
        for written in files.values():
            _settle(written)


def _contents(found: _List, progress: Progress | None, what: str) -> Iterator[tuple[str, bytes]]:
    """(file, chunk) of every chunk of a backup, each as it was written. Raises StoreCorrupt."""
    directory = Path(found.about.path)
    mend = "restore another backup (--at); what this one shares with others may be damaged there too"
    done = 0
    with ExitStack() as opened:
        packs: dict[int, IO[bytes]] = {}
        for pack in found.packs():
            file = _pack(directory, pack)
            try:
                packs[pack] = opened.enter_context(file.open("rb"))
            except FileNotFoundError as error:
                raise StoreCorrupt(f"{file} is gone, and backup {found.about.number} needs it", mend=mend) from error
        for name, digest, pack, at, size in found.chunks():
            packs[pack].seek(at)
            chunk = packs[pack].read(size)
            if hashlib.sha256(chunk).digest() != digest:
                where = f"{_pack(directory, pack)} is damaged at byte {at} ({size} bytes)"
                raise StoreCorrupt(f"{where}: it is part of {name} in backup {found.about.number}", mend=mend)
            yield name, chunk
            done += size
            if progress is not None and (done % BLOCK == 0 or done == found.about.bytes):
                progress(done, found.about.bytes, what)


def _chosen(path: Path, at: int | str | datetime | None) -> _List:
    """The backup that is meant. Raises NotFound, InvalidInput."""
    lists = _lists(path)
    if not lists:
        raise NotFound(f"there is no backup in {path} yet", mend="make one: memspan backup DIR")
    if isinstance(at, str) and at.isdecimal():
        at = int(at)
    if at is None:
        return _read(lists[-1])
    if isinstance(at, int) and not isinstance(at, bool):
        for file in lists:
            if _number(file) == at:
                return _read(file)
        mend = f"there are {', '.join(str(_number(file)) for file in lists)}"
        raise NotFound(f"there is no backup {at} in {path}", mend=mend)
    moment = parse_time(at, "at")
    for found in map(_read, reversed(lists)):
        if moment is not None and found.about.at <= moment:
            return found
    first = _read(lists[0]).about.at.isoformat(timespec="seconds")
    raise NotFound(f"there is no backup from before {shown(at)} in {path}", mend=f"the first is of {first}")


def _known(path: str | os.PathLike[str]) -> Path:
    """The directory of backups at ``path``. Raises InvalidInput where there is none."""
    place = arguments.path(path)
    if not (place / MARKER).is_file():
        raise InvalidInput("path", f"{place} holds no backups", mend="name the directory given to memspan backup")
    _owner(place)
    return place


def _owner(path: Path) -> str:
    """The id of the store whose backups are in the directory. Raises StoreCorrupt, NewerStore."""
    marker = path / MARKER
    with translated(path):
        raw = marker.read_bytes()
    try:
        told = json.loads(raw)
        newer, store_id = told["format"] > FORMAT, str(told["store_id"])
    except (ValueError, KeyError, TypeError) as error:
        about = {"format": FORMAT, "store_id": "the store_id that memspan stats tells"}
        raise StoreCorrupt(f"{marker} is damaged", mend=f"write into it {json.dumps(about)}") from error
    if newer:
        raise NewerStore(f"{path} holds backups of a newer memspan", mend="upgrade memspan (pip install -U memspan)")
    return store_id


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """The only one who writes to the directory of backups, which is made where it is not there. Raises InvalidInput
    where it is something else, StoreBusy, NotWritable."""
    with translated(path):
        if path.exists() and not path.is_dir():
            raise InvalidInput("path", f"{path} is a file", mend="give a directory (it is created)")
        path.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in path.iterdir()}
        if MARKER not in names and (others := sorted(names - {LOCK, f"{MARKER}.part"})):
            problem = f"{path} holds other files ({others[0]}) and no backups"
            raise InvalidInput("path", problem, mend="give a new or empty directory")
        lock = FileLock(path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreBusy(f"another backup into {path} is being made", mend="wait until it is done") from error
    try:
        yield
    finally:
        lock.release()


def _lists(path: Path) -> list[Path]:
    with translated(path):
        return sorted((file for file in path.iterdir() if _LIST.fullmatch(file.name)), key=_number)


def _number(file: Path) -> int:
    return int(file.name.partition(".")[0])


def _pack(path: Path, number: int) -> Path:
    return path / f"{number:06d}.pack"


def _put(path: Path, made: _List) -> None:
    """Write the list of a backup: from then on there is this backup."""
    told = {
        **{
            name: getattr(made.about, name)
            for name in ("number", "store_id", "schema", "memspan", "segments", "written")
        },
        "format": FORMAT,
        "at": made.about.at.isoformat(),
        "chunk": CHUNK,
        "files": [[name, size] for name, size in made.sizes.items()],
    }
    raw = b"".join([json.dumps(told).encode(), b"\n", *made.rows.values()])
    _write_aside(path / f"{made.about.number:06d}.backup", raw + hashlib.sha256(raw).digest())


def _read(file: Path) -> _List:
    """A backup's list. Raises StoreCorrupt where it is not what was written, NewerStore."""
    with translated(file):
        raw = file.read_bytes()
    mend = "restore another backup (--at)"
    if hashlib.sha256(raw[:-_SUM]).digest() != raw[-_SUM:]:
        raise StoreCorrupt(f"{file} is damaged", mend=mend)
    head, _, body = raw[:-_SUM].partition(b"\n")
    told: dict[str, Any] = json.loads(head)
    if told["format"] > FORMAT or told["chunk"] != CHUNK:
        raise NewerStore(f"{file} was made by memspan {told['memspan']}", mend="upgrade memspan")
    rows: dict[str, bytes] = {}
    begin = 0
    for name, size in told["files"]:
        if not _NAME.fullmatch(name):
            raise StoreCorrupt(f"{file} names {shown(name)}, which is no file of a store", mend=mend)
        end = begin + -(-size // CHUNK) * _ROW.size
        rows[name] = body[begin:end]
        begin = end
    about = BackedUp(
        path=str(file.parent),
        at=datetime.fromisoformat(told["at"]),
        bytes=sum(size for _, size in told["files"]),
        **{name: told[name] for name in ("number", "store_id", "schema", "memspan", "segments", "written")},
    )
    return _List(about=about, rows=rows, sizes=dict(told["files"]))


def _readable(file: Path) -> _List | None:
    """A backup's list, None where it is damaged: what it shares with a new one is written again."""
    try:
        return _read(file)
    except StoreError:
        return None


def _there(path: Path, last: _List, *, pruning: bool) -> Mapping[str, bytes]:
    """The rows of the last backup that a new one may name again: not those of a pack that is gone or was cut short,
    nor, where old ones are pruned, of one that is mostly not needed any more, so that it can go some day."""
    left = set()
    for pack, (reach, needed) in last.packs().items():
        size = _size(_pack(path, pack))
        if size < reach or (pruning and needed < WORTH * size):
            left.add(pack)
    if not left:
        return last.rows
    blank = bytes(_ROW.size)
    return {
        name: b"".join(
            blank if pack in left else _ROW.pack(*row, pack, at) for *row, pack, at in _ROW.iter_unpack(rows)
        )
        for name, rows in last.rows.items()
    }


def _sweep(path: Path, lists: Sequence[Path]) -> None:
    """Remove what an interrupted backup left: half-written files, and a pack newer than every list."""
    newest = max(map(_number, lists), default=0)
    with translated(path):
        for file in path.iterdir():
            if file.name.endswith(".part") or (
                file.suffix == ".pack" and file.stem.isdecimal() and _number(file) > newest
            ):
                file.unlink(missing_ok=True)


def _prune(path: Path, keep: int) -> None:
    """Remove all backups but the newest ``keep`` that can be read, and the packs that none of those needs."""
    lists = [found for found in map(_readable, _lists(path)) if found is not None][-keep:]
    needed = {pack for found in lists for pack in found.packs()}
    with translated(path):
        for file in _lists(path):
            if _number(file) < lists[0].about.number:
                file.unlink()
        for file in path.glob("*.pack"):
            if _number(file) not in needed:
                file.unlink()


def _weight(ledger: SqliteLedger, store: Path) -> int:
    """About how many bytes there are to read."""
    files = [store / "ledger.db", *(store / "views").glob("*.safetensors")]
    return sum(map(_size, files)) + sum(end for _, end in ledger.arenas())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1


def _write_aside(file: Path, raw: bytes) -> None:
    """Write a file that is there whole or not at all, and on the disk when this returns."""
    part = file.with_name(file.name + ".part")
    with part.open("wb") as opened:
        opened.write(raw)
        _settle(opened)
    part.replace(file)
    _sync(file.parent)


def _settle(file: IO[bytes]) -> None:
    """Have on the disk what was written to a file, and close it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync(directory: Path) -> None:
    """Have the names in a directory on the disk, where the system knows such a thing."""
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
