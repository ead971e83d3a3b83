"""What every view shares: the rows a query may see, and snapshots as files that can be lost without loss.

A view is an immutable snapshot up to a position in the ledger plus the tail after it, which lives in the ledger's own
file. Views score rows; which rows exist and may be seen is only ever decided by a ``Selection`` from the ledger.
"""

from __future__ import annotations

import hashlib
import os
import threading
import uuid
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from memspan.errors import StoreCorrupt
from memspan.ledger.base import Ledger, Seqs, Snapshot
from memspan.ledger.connections import translated
from memspan.records import NOW, AsOf, Filter, Junction, Scope

SLACK = 8_192  # rows that are gone and are kept in memory all the same

Progress = Callable[[int, int, str], None]
Scorer = Callable[[Seqs], NDArray[np.float32]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scored:
    """Rows with a score each: ``seqs`` int64[n], ``scores`` float32[n], in no particular order."""

    seqs: Seqs
    scores: NDArray[np.float32]

    def first(self, k: int) -> Scored:
        """The first ``k`` as they are."""
        return Scored(self.seqs[:k], self.scores[:k])

    def top(self, k: int) -> Scored:
        """The k best, best first; of equal scores the newer row first."""
        if len(self.seqs) > 4 * k:  # only what can be among the k best is worth sorting
            least = np.partition(self.scores, len(self.scores) - k)[len(self.scores) - k]
            keep = self.scores >= least
            return Scored(self.seqs[keep], self.scores[keep]).top(k) if keep.sum() < len(keep) else self._sorted(k)
        return self._sorted(k)

    def _sorted(self, k: int) -> Scored:
        order = np.lexsort((-self.seqs, -self.scores))[:k]
        return Scored(self.seqs[order], self.scores[order])

    def scorer(self) -> Scorer:
        """Gives any rows their score, 0 to those that are not here."""
        order = np.argsort(self.seqs)
        seqs, values = self.seqs[order], self.scores[order]

        def score(rows: Seqs) -> NDArray[np.float32]:
            at, inside = find_sorted(seqs, rows)
            scores = np.zeros(len(rows), np.float32)
            scores[inside] = values[at[inside]]
            return scores

        return score


class Matches(Protocol):
    """Rows that a view found for a query."""

    def top(self, k: int) -> Scored:
        """The k best, best first; of equal scores the newer row first."""

    def scorer(self) -> Scorer:
        """Gives any rows of the selection their score, 0 to those that do not match."""


class Lineage:
    """Marks selections that differ only by rows added at the end."""


class Selection(Protocol):
    """The rows one query may see. Counted when it is made; which ones they are may be read only when it is asked.

    ``seqs`` int64[rows] ascending; ``terms`` int32[rows], how many terms each row has, ``total_terms`` their sum.
    ``lineage`` stays the same while rows are only added at the end, so that what a view works out about older rows can
    be kept from one search to the next. ``as_of``: they are seen as they were known then, None for now.
    """

    @property
    def namespace(self) -> str: ...
    @property
    def as_of(self) -> datetime | None: ...
    @property
    def rows(self) -> int: ...
    @property
    def total_terms(self) -> int: ...
    @property
    def seqs(self) -> Seqs: ...
    @property
    def terms(self) -> NDArray[np.int32]: ...
    @property
    def lineage(self) -> Lineage: ...

    def part(self, seqs: Seqs) -> Selection:
        """Only those of its rows: ``seqs`` ascending, all of them in it."""

    def find(self, seqs: Seqs) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """For each of ``seqs`` its index in this selection and whether it is in it at all."""

    def inside(self, seqs: Seqs) -> NDArray[np.bool_]:
        """Whether each of ``seqs`` is in this selection."""


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """A ``Selection`` whose rows are all in memory."""

    namespace: str
    seqs: Seqs
    terms: NDArray[np.int32]
    total_terms: int
    lineage: Lineage
    as_of: datetime | None = None

    @property
    def rows(self) -> int:
        return len(self.seqs)

    def part(self, seqs: Seqs) -> Listed:
        index, _ = self.find(seqs)
        terms = self.terms[index]
        return Listed(self.namespace, seqs, terms, int(terms.sum()), Lineage(), self.as_of)

    def find(self, seqs: Seqs) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        return find_sorted(self.seqs, seqs)

    def inside(self, seqs: Seqs) -> NDArray[np.bool_]:
        return self.find(seqs)[1]


def find_sorted(within: NDArray[Any], seqs: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """For each of ``seqs`` (or other whole numbers) its index in the ascending ``within``, and whether it is there."""
    if not len(within):
        return np.zeros(len(seqs), np.intp), np.zeros(len(seqs), bool)
    index = np.searchsorted(within, seqs)
    index[index == len(within)] = 0
    return index, within[index] == seqs


class Selecting(Protocol):
    """Who gives selections."""

    def of(self, scope: Scope, filters: Filter | None = None, as_of: AsOf | None = NOW) -> Selection:
        """The rows in ``scope`` that pass ``filters``, as of then; None: all that are current, whatever became of
        them."""


class _Kept(NamedTuple):
    """A selection, the last entry of the removal log and the last row that it knows of, and until when it holds where
    no row is written."""

    selection: Listed
    entry: int
    last: int
    until: datetime | None


class Selections:
    """Selections, each read from the ledger once and then kept up with by its new rows and removals."""

    MOST = 64
    MOST_ROWS = 4_000_000  # 12 bytes each

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._kept: OrderedDict[object, _Kept] = OrderedDict()

    def of(self, scope: Scope, filters: Filter | None = None, as_of: AsOf | None = NOW) -> Listed:
        """The rows in ``scope`` that pass ``filters``, as of then; None: all that are current, whatever became of
        them."""
        if changing(filters):
            return self._read(scope, filters, as_of, None).selection
        key = (scope, repr(filters), as_of)  # by repr: 1 and True are equal, and not the same in a filter
        with self._ledger.reading(), self._lock:  # in this order everywhere: in memory, reading is a lock too
            fresh = self._read(scope, filters, as_of, self._kept.get(key))
            self._kept[key] = fresh
            self._kept.move_to_end(key)
            rows = sum(len(kept.selection.seqs) for kept in self._kept.values())
            while len(self._kept) > 1 and (len(self._kept) > self.MOST or rows > self.MOST_ROWS):
                rows -= len(self._kept.popitem(last=False)[1].selection.seqs)
        return fresh.selection

    def _read(self, scope: Scope, filters: Filter | None, as_of: AsOf | None, kept: _Kept | None) -> _Kept:
        then = None if as_of is None else as_of.known
        with self._ledger.reading():
            last = self._ledger.last_row(scope.namespace)
            # what is valid now is asked before the rows are, so that none changes in between unseen
            until = self._ledger.changes_at(scope.namespace) if as_of == NOW else None
            if kept is None or (kept.until is not None and kept.until <= datetime.now(UTC)):
                entry = self._ledger.last_removal(scope.namespace)
                seqs, terms = self._ledger.select(scope, filters, as_of, -1)
                selection = Listed(scope.namespace, seqs, terms, int(terms.sum()), Lineage(), then)
                return _Kept(selection, entry, last, until)
            old, entry, known, _ = kept
            last = max(last, known)  # another thread may have read a later moment
            entry, gone = self._ledger.removals(scope.namespace, entry)
            seqs, terms = self._ledger.select(scope, filters, as_of, known)
            index, inside = old.find(gone)
            if then is not None and inside.any():  # an ended row may still be seen as of then: read it all again
                return self._read(scope, filters, as_of, None)
        if not len(seqs) and not inside.any():
            return _Kept(old, entry, last, until)
        stay = np.ones(len(old.seqs), bool)
        stay[index[inside]] = False
        lineage = old.lineage if stay.all() else Lineage()
        seqs, terms = np.concatenate([old.seqs[stay], seqs]), np.concatenate([old.terms[stay], terms])
        return _Kept(Listed(scope.namespace, seqs, terms, int(terms.sum()), lineage, then), entry, last, until)


def changing(filters: Filter | None) -> bool:
    """Whether a row can come to pass ``filters`` after it was written: only its count of repeats ever changes."""
    if isinstance(filters, Junction):
        return any(changing(part) for part in filters.parts)
    return filters is not None and filters.field == "repeats"


class Places:
    """Where the rows of a snapshot, ``seqs`` int64[n] ascending, stand in selections; kept from search to search."""

    def __init__(self, seqs: Seqs) -> None:
        self._seqs = seqs
        self._kept: weakref.WeakKeyDictionary[Lineage, tuple[int, NDArray[np.int32]]] = weakref.WeakKeyDictionary()

    def of(self, selection: Selection) -> NDArray[np.int32]:
        """int32[n]: the index of each row in the selection, -1 where it is not in it.

        A selection may have been read before the snapshot was, so what is kept holds for another selection of the same
        lineage only when both reach to the end of the snapshot, or equally far.
        """
        end = int(self._seqs[-1]) if len(self._seqs) else -1
        reach = min(end, int(selection.seqs[-1])) if len(selection.seqs) else -1
        kept, places = self._kept.get(selection.lineage, (-2, None))
        if places is None or kept != reach:
            index, inside = selection.find(self._seqs)
            places = np.where(inside, index, -1).astype(np.int32)
            self._kept[selection.lineage] = (reach, places)
        return places


@contextmanager
def forgotten_if_broken(states: MutableMapping[str, Any], namespace: str) -> Iterator[None]:
    """What is kept of a namespace is read anew when keeping up with the ledger was broken off halfway, by any error."""
    try:
        yield
    except BaseException:
        states.pop(namespace, None)
        raise


class View(Protocol):
    """A derived index. It never decides what exists; it can be dropped and rebuilt at any time."""

    name: str
    failure: str | None

    def due(self, namespace: str) -> bool:
        """Whether the tail has grown so long that folding it in now makes searches faster."""

    def compact(self, namespace: str, *, force: bool = False, progress: Progress | None = None) -> bool:
        """Fold the tail into a new snapshot where that pays; True when it did. ``force`` rebuilds from the ledger."""

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the snapshot, rows in the ``tail``, and the last ``failure``."""

    def problems(self, namespace: str) -> list[str]:
        """What is wrong with the snapshot, if there is one."""

    def size(self) -> int:
        """Bytes of the snapshots on disk."""


class Snapshots(ABC):
    """The snapshots of one view: written aside, checksummed, registered in the ledger, never changed."""

    def __init__(self, ledger: Ledger, view: str) -> None:
        self._ledger = ledger
        self._view = view
        self._encoder = ledger.value("encoder")  # what the view is made for: snapshots of another are refused

    @property
    @abstractmethod
    def enabled(self) -> bool:
        """Whether there is a place for them."""

    @abstractmethod
    def lock(self) -> AbstractContextManager[object]:
        """Held by the one process that compacts this view."""

    @abstractmethod
    def size(self) -> int:
        """Bytes of this view's snapshots, of all namespaces."""

    @abstractmethod
    def sweep(self, namespace: str | None = None) -> None:
        """Remove what no snapshot names, at least in ``namespace``, None: anywhere: replaced ones, and what a crash
        while writing left. Only under the lock."""

    @abstractmethod
    def _read(self, snapshot: Snapshot) -> bytes:
        """Raises StoreCorrupt when they are not there."""

    @abstractmethod
    def _write(self, namespace: str, name: str, raw: bytes) -> None:
        """Whole and durable when it returns."""

    @abstractmethod
    def _remove(self, namespace: str, name: str) -> None:
        """What was written under this name, if anything."""

    def load(self, snapshot: Snapshot) -> Mapping[str, NDArray[Any]]:
        """The arrays of a snapshot. Raises StoreCorrupt when it is missing or not what was written."""
        from safetensors.numpy import load

        raw = self._read(snapshot)
        if _digest(raw) != snapshot.checksum:
            raise StoreCorrupt(f"{snapshot.file} is not what was written", mend="it is rebuilt from the ledger")
        return load(raw)

    def save(self, namespace: str, position: int, rows: int, arrays: Mapping[str, NDArray[Any]]) -> Snapshot:
        """Write a snapshot and make it the one every process uses; others are removed. Only under the lock."""
        from safetensors.numpy import save

        raw = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        name = f"{self._view}-{uuid.uuid4().hex[:12]}.safetensors"
        try:
            self._write(namespace, name, raw)
            snapshot = Snapshot(
                namespace=namespace, view=self._view, position=position, rows=rows, file=name, checksum=_digest(raw)
            )
            self._ledger.put_snapshot(snapshot, self._encoder)
        except BaseException:
            self._remove(namespace, name)
            raise
        self.sweep(namespace)
        return snapshot

    def status(self, namespace: str) -> dict[str, Any]:
        """``position`` and ``rows`` of the snapshot, and how many rows are in the ``tail`` after it."""
        snapshot = self._ledger.snapshot(namespace, self._view)
        position, rows = (snapshot.position, snapshot.rows) if snapshot else (0, 0)
        return {"position": position, "rows": rows, "tail": self._ledger.count_after(namespace, position)}

    def outgrown(self, namespace: str, least: int) -> bool:
        """Whether the tail has ``least`` rows and a fifth of the snapshot's, so that folding it in pays."""
        status = self.status(namespace)
        return self.enabled and status["tail"] >= max(least, status["rows"] // 5)

    def swollen(self, namespace: str, held: int, *, whole: bool = False) -> bool:
        """Whether of ``held`` rows in memory, after the snapshot or with it (``whole``), most are gone by now."""
        status = self.status(namespace)
        return bool(held > 2 * (status["tail"] + status["rows"] * whole) + SLACK)

    def problems(self, namespace: str) -> list[str]:
        """Why the namespace's snapshot cannot be used, if it cannot."""
        snapshot = self._ledger.snapshot(namespace, self._view)
        if snapshot is None or not self.enabled:
            return []
        try:
            self.load(snapshot)
        except StoreCorrupt as error:
            return [str(error)]
        return []


class SnapshotFiles(Snapshots):
    """Snapshots as files in ``directory``; None for a store in memory, which keeps none."""

    def __init__(self, ledger: Ledger, view: str, directory: Path | None) -> None:
        super().__init__(ledger, view)
        self._directory = directory

    @property
    def enabled(self) -> bool:
        return self._directory is not None

    def folder(self) -> Path:
        if self._directory is None:
            raise StoreCorrupt("a store in memory has no snapshots", mend="open a store on disk")
        with translated(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    def lock(self) -> FileLock:
        """Beside the directory, which may be deleted meanwhile."""
        return FileLock(self.folder().with_name(f"{self._view}.lock"))

    def size(self) -> int:
        if self._directory is None or not self._directory.is_dir():
            return 0
        size = 0
        for file in self._directory.glob(f"{self._view}-*"):
            with suppress(FileNotFoundError):  # another process has just put a newer one in its place
                size += file.stat().st_size
        return size

    def sweep(self, namespace: str | None = None) -> None:
        named = {
            snapshot.file
            for space in self._ledger.namespaces()
            if (snapshot := self._ledger.snapshot(space, self._view)) is not None
        }
        for file in self.folder().glob(f"{self._view}-*"):
            if file.name not in named:
                file.unlink(missing_ok=True)

    def _read(self, snapshot: Snapshot) -> bytes:
        path = self.folder() / snapshot.file
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise StoreCorrupt(f"{path} cannot be read ({error})", mend="it is rebuilt from the ledger") from error
        return raw if self._ledger.keys is None else self._ledger.keys.opened(path, raw)

    def _write(self, namespace: str, name: str, raw: bytes) -> None:
        path = self.folder() / name
        aside = path.with_suffix(".part")
        with translated(path):
            with aside.open("wb") as file:
                file.writelines([raw] if self._ledger.keys is None else self._ledger.keys.sealed(name, raw))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)

    def _remove(self, namespace: str, name: str) -> None:
        path = self.folder() / name
        path.with_suffix(".part").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()  # with the processor's own instructions twice as fast as blake2b


def counting(items: Iterable[T], total: int, what: str, progress: Progress | None) -> Iterator[T]:
    """``items``, telling ``progress`` how many have passed, now and then."""
    for done, item in enumerate(items, 1):
        if progress is not None and (done % 512 == 0 or done == total):
            progress(done, total, what)
        yield item
