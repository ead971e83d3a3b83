"""A whole store from one place to another, whatever kind either is, while others go on writing to the first.

Most of it is brought page by page, each in a moment of its own, until little more comes than came meanwhile. Then one
moment of the source is held: all that is not yet the same is taken over from it, what is gone there goes, and both are
compared. Where a run got to is what stands in the target, so one that was killed goes on when it is run again.
Why rows and not archives, and what becomes of the log: docs/decisions/0023-copy.md.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from memspan import arguments, opening
from memspan.activations.tokens import LATER, Activation
from memspan.analysis import VERSION as ANALYSER
from memspan.config import Config, Database
from memspan.drafting import draft_of
from memspan.errors import InvalidInput, NotAStore, StoreBusy
from memspan.keys import FILE, Key
from memspan.ledger.base import Ledger, Seqs
from memspan.ledger.removing import DUE
from memspan.ledger.tables import CHANGES, LOG, SEGMENTS, TABLES, Entry, Table, Whole
from memspan.opening import COPIED
from memspan.records import Draft
from memspan.reports import Copied
from memspan.store import Store
from memspan.views.base import Progress

Row = tuple[Any, ...]
Place = Path | Database

PAGE = 1_000  # rows in one transaction
SHORT = 100  # entries of the log, each of which may tell of many rows
PASSES = 8  # of bringing what came meanwhile, before a moment is held all the same
STRIDE = 1_000_003  # a prime, so that no even spacing of seqs passes over a namespace
OWN = frozenset(("store_id", "analyser", "encoding", "next", "dropping", "backup", DUE, COPIED))
"""Values of a store that say something of its own files or what it is at, and mean nothing in another."""
MADE = frozenset(("encoder", "basis", "unlogged"))
"""Values that may come to be others in a copy though nothing was written to it."""

ENTRIES = replace(LOG, rest=())


def copy(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    key: Key | None = None,
    target_key: Key | None = None,
    plaintext: bool = False,
    verify_only: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Copy the store at ``source`` to ``target``, both what ``Memory`` takes: a directory, or "postgresql://...".

    Everything comes along: every namespace, version, time, link, judgement, tombstone, idempotency key and log entry,
    vectors and token matrices as they are, what was learned, API keys. No encoder is loaded. Others go on reading and
    writing the source; the copy is of one moment of it, to which it is compared in the end. ``target`` is new, or was
    begun by a copy of the same source, which then goes on; nobody can open it until it is whole. Run again after that,
    it takes over what has changed in the source since, deletions too, unless anything was written to the copy.

    ``key`` opens an encrypted source; its copy is a directory encrypted by ``target_key``, else by the same key, unless
    ``plaintext`` says that it may stand in clear. ``verify_only`` compares the two as they are and writes nothing.
    Raises InvalidInput where ``target`` holds anything else, or the copy was written to since; NotAStore, KeyNeeded,
    StoreBusy and other StoreErrors.
    """
    arguments.flags(plaintext=plaintext, verify_only=verify_only)
    arguments.progress(progress)
    places = (_place("source", source), _place("target", target))
    if os.path.realpath(_address(places[0])) == os.path.realpath(_address(places[1])):
        raise InvalidInput("target", f"{places[1]} is the source", mend="name a new place")
    with ExitStack() as opened:
        first = opened.enter_context(closing(_source(places[0], key)))
        if first.keys is not None and not plaintext:
            target_key = key if target_key is None else target_key
            if isinstance(places[1], Database) or (target_key is None and not _encrypted(places[1])):
                problem = f"{places[0]} is encrypted, and {places[1]} would hold all of it in clear"
                raise InvalidInput("plaintext", problem, mend="give target_key, or plaintext=True if it may")
        second = opened.enter_context(closing(_target(places[1], target_key, made=not verify_only)))
        if not opened.enter_context(second.turn("copy")):
            raise StoreBusy(f"{places[1]} is being copied to by another process", mend="let it finish")
        return _Copy(first, second, places, progress).run(target_key, verify_only=verify_only)


class _Copy:
    """A copy from ``source`` to ``target`` that is being made or compared, at ``places``."""

    def __init__(self, source: Ledger, target: Ledger, places: tuple[Place, Place], progress: Progress | None) -> None:
        self._source = source
        self._target = target
        self._places = places
        self._progress = progress
        self._spread = source.apart and not target.apart
        self._offsets: dict[str, int] = {}
        self._encoded = True  # whether the source keeps activations
        self._brought = self._removed = 0

    def run(self, key: Key | None, *, verify_only: bool) -> Copied:
        store_id = str(self._source.value("store_id"))
        begun = self._begun(store_id, verify_only)
        if not verify_only:
            self._target.put_values({COPIED: json.dumps({**begun, "at": None})}, replace=True)
            self._take_values(self._source.values())
            for _ in range(PASSES):
                if self._bring() <= PAGE:
                    break
        with self._source.reading():
            at, entries = datetime.now(UTC), self._source.log_head()["entries"]
            if not verify_only:
                self._even_out()
            told = self._told(self._target)
            differences = [*self._unlike(told), *self._unlike_activations(), *self._problems()]
            counts = self._source.counts()
        if not verify_only and not differences:
            whole = {**begun, "at": at.isoformat(), "told": _but_use(told)}
            self._target.put_values({COPIED: json.dumps(whole)}, replace=True)
            with Store(_address(self._places[1]), encoder=None, key=key, config=Config()):
                pass  # it opens, and clears away what is left of what was removed
        return Copied(
            source=str(self._places[0]),
            target=str(self._places[1]),
            at=at,
            namespaces=len(counts["namespaces"]),
            segments=sum(space["segments"] for space in counts["namespaces"].values()),
            versions=counts["versions"],
            brought=self._brought,
            removed=self._removed,
            behind=self._source.log_head()["entries"] - entries,
            differences=tuple(differences),
        )

    def _begun(self, store_id: str, verify_only: bool) -> dict[str, Any]:
        """What the target says of the copy it is, or is to be. Raises InvalidInput where it is none of this source."""
        told = self._target.value(COPIED)
        if told is None and (self._target.value("store_id") is not None or verify_only):
            raise InvalidInput("target", f"{self._places[1]} is no copy of a store", mend="name a new place")
        if told is None:
            own = {"store_id": str(uuid.uuid4()), "analyser": ANALYSER}
            about = {"store_id": store_id, "from": str(self._places[0]), "begun_at": datetime.now(UTC).isoformat()}
            self._target.put_values({COPIED: json.dumps({**about, "at": None}), **own}, replace=True)
            return about
        about = json.loads(told)
        if about["store_id"] != store_id:
            problem = f"{self._places[1]} is a copy of another store, {about['from']}"
            raise InvalidInput("target", problem, mend="name a new place")
        if not verify_only and about["at"] is not None and about["told"] != _but_use(self._told(self._target)):
            problem = f"{self._places[1]} was written to since it was copied, which would be lost"
            raise InvalidInput("target", problem, mend="name a new place")
        return {name: about[name] for name in ("store_id", "from", "begun_at")}

    # Bringing over

    def _take_values(self, values: Mapping[str, str]) -> None:
        """What the source keeps of itself and means something in another store; encodings are those of its encoder."""
        carried = {name: value for name, value in values.items() if name not in OWN}
        if self._spread:
            carried["unlogged"] = str((int(carried.get("unlogged", 0)) + 1) * STRIDE - 1)
        recorded = self._target.value("encoder")
        if recorded is not None and recorded != carried["encoder"]:  # it was encoded anew meanwhile
            self._target.forget_activations(carried["encoder"])
        self._target.put_values(carried, replace=True)
        self._encoded = carried["encoder"] != "null"

    def _bring(self) -> int:
        """Take over rows that came since, page by page; how many came."""
        namespaces = self._settle_in()
        came, total = 0, self._source.counts()["versions"]
        for namespace in namespaces:
            after = self._back(self._target.last_row(namespace))
            while True:
                with self._source.reading():
                    seqs = [row[0] for row in self._source.table(namespace, SEGMENTS, (after,), PAGE)]
                    self._take_whole(namespace, seqs)
                if not seqs:
                    break
                came, after = came + len(seqs), seqs[-1]
                self._tell(min(self._brought, total), total, "copying")
        return came

    def _take_whole(self, namespace: str, seqs: Sequence[int]) -> None:
        """Take over these rows of the source with what is kept of their texts."""
        rows = self._source.whole(namespace, seqs)
        contents = list({row.content for row in rows})
        activations = self._activations(namespace, contents) if self._encoded else None
        placed = [
            (row._replace(values=(self._there(namespace, row.values[0]), *row.values[1:])), _draft(row)) for row in rows
        ]
        self._brought += self._target.take_whole(namespace, placed, activations)

    def _activations(self, namespace: str, contents: Sequence[bytes]) -> dict[bytes, Activation]:
        """What the source keeps of those of these texts of which the target has nothing yet."""
        known = self._target.known(namespace, contents)
        return self._source.activations(namespace, [each for each in contents if each not in known])

    def _even_out(self) -> None:
        """Have the target be what the source is in this moment."""
        self._take_values(self._source.values())
        namespaces = self._settle_in()
        for done, namespace in enumerate(namespaces, 1):
            while gone := self._even_segments(namespace):
                self._target.put_values({DUE: json.dumps(["", False])}, replace=True)
                self._target.change_whole(namespace, [], gone)
                self._removed += len(gone)
            if self._encoded:
                self._even_activations(namespace)
            for table in TABLES:
                self._even_table(namespace, table)
            self._tell(done, len(namespaces), "evening out")
        self._carry_log(namespaces)

    def _even_segments(self, namespace: str) -> list[bytes]:
        """Change rows that are here and take over those that are not; or only tell which segments are gone."""
        gone: set[bytes] = set()
        missing: list[int] = []
        changed: list[Row] = []
        wanted = ((self._there(namespace, row[0]), *row[1:]) for row in _rows(self._source, namespace, SEGMENTS))
        for want, here in differences(wanted, _rows(self._target, namespace, SEGMENTS), 1):
            if here is not None and (want is None or (want[1], want[3]) != (here[1], here[3])):
                gone.add(here[1])
            elif want is not None and here is not None:
                changed.append(want)
            elif want is not None:
                missing.append(self._back(want[0]))
        if not gone:
            self._target.change_whole(namespace, changed, [])
            for start in range(0, len(missing), PAGE):
                self._take_whole(namespace, missing[start : start + PAGE])
        return sorted(gone)

    def _even_activations(self, namespace: str) -> None:
        for page in _pages(self._source, namespace, SEGMENTS):
            contents = {row[3] for row in page}
            left = contents - self._target.known(namespace, list(contents))
            if not left:
                continue
            found = self._source.activations(namespace, list(left))
            waiting = [(self._there(namespace, row[0]), row[3]) for row in page if row[3] in left - found.keys()]
            self._target.take_activations(namespace, found, waiting)
        lost = [each.content for each in self._target.lost(PAGE) if each.namespace == namespace]
        if lost:
            self._target.take_activations(namespace, self._source.activations(namespace, lost), [])

    def _even_table(self, namespace: str, table: Table) -> None:
        width = len(table.key)
        put: list[Row] = []
        gone: list[Row] = []
        wanted, ours = (_rows(ledger, namespace, table) for ledger in (self._source, self._target))
        for want, here in differences(wanted, ours, width):
            if want is not None:
                put.append(want)
            elif here is not None:
                gone.append(here[:width])
            if len(put) + len(gone) >= PAGE:
                self._target.take_rows(namespace, table, put, gone)
                put, gone = [], []
        if put or gone:
            self._target.take_rows(namespace, table, put, gone)

    def _carry_log(self, namespaces: Sequence[str]) -> None:
        """Take over the log's entries that are not here yet: where all namespaces share one, in its order."""
        told = {namespace: _entries(self._source, namespace) for namespace in namespaces}
        left = sum(map(len, told.values()))
        streams: list[Iterator[tuple[int, str, Entry]]] = []
        for namespace, entries in told.items():
            here = len(_entries(self._target, namespace))
            left -= here
            if here < len(entries):
                streams.append(_log(self._source, namespace, int(entries[here]) - 1))
        page: list[tuple[str, Entry]] = []
        done = 0
        for _, namespace, entry in chain.from_iterable(streams) if self._source.apart else heapq.merge(*streams):
            page.append((namespace, entry))
            if len(page) == SHORT:
                self._target.take_entries(page)
                done += len(page)
                page = []
                self._tell(done, left, "copying the log")
        if page:
            self._target.take_entries(page)

    # Comparing

    def _unlike(self, ours: Mapping[str, list[Any]]) -> Iterator[str]:
        """Which tables are not the same in both, for people; ``ours`` are those of the target."""
        theirs = self._told(self._source)
        for name in sorted(theirs.keys() | ours.keys()):
            there, here = (each.get(name, [0, None]) for each in (theirs, ours))
            if there[0] != here[0]:
                yield f"{name}: {there[0]:,} in the source, {here[0]:,} in the copy"
            elif there != here:
                yield f"{name}: not the same"

    def _unlike_activations(self) -> Iterator[str]:
        if self._source.value("encoder") == "null":
            return
        for namespace in self._source.namespaces():
            unlike = 0
            for page in _pages(self._source, namespace, SEGMENTS):
                contents = list({row[3] for row in page})
                wanted, found = (each.activations(namespace, contents) for each in (self._source, self._target))
                unlike += sum(not _alike(each, found.get(content)) for content, each in wanted.items())
                self._tell(0, 0, "comparing")
            if unlike:
                yield f"{namespace}: activations: {unlike:,} are not the same"

    def _problems(self) -> Iterator[str]:
        """What of the target is not what was written."""
        for done, total, problem in self._target.problems():
            self._tell(done, total, "verifying")
            if problem is not None:
                yield problem

    def _told(self, ledger: Ledger) -> dict[str, list[Any]]:
        """Of each table how many rows it has of each namespace, and a hash of what they say in their order, whatever
        they are numbered."""
        values = sorted((name, value) for name, value in ledger.values().items() if name not in OWN | MADE)
        told: dict[str, list[Any]] = {"values": [len(values), hashlib.sha256(repr(values).encode()).hexdigest()]}
        for namespace in sorted(ledger.namespaces()):
            entries = _entries(ledger, namespace)
            for table in (SEGMENTS, *TABLES, LOG, CHANGES):
                count, digest = 0, hashlib.sha256()
                for row in _rows(ledger, namespace, table):
                    if table is SEGMENTS or table is LOG:
                        row = (count, *row[1:])
                    elif table is CHANGES:
                        row = (int(np.searchsorted(entries, row[0])), *row[1:])
                    digest.update(repr(row).encode())
                    count += 1
                told[f"{namespace}: {table.name}"] = [count, digest.hexdigest()]
        return told

    def _there(self, namespace: str, seq: int) -> int:
        """The seq in the target of a row of the source. Where only the source counts each namespace by itself, those of
        each are spread out to stand between those of the others."""
        return seq * STRIDE + self._offsets[namespace] if self._spread else seq

    def _back(self, seq: int) -> int:
        return seq // STRIDE if self._spread else seq

    def _settle_in(self) -> list[str]:
        """Have the source's namespaces in the target, in the same order, so that their logs are chained alike."""
        namespaces = self._source.namespaces()
        self._target.settle_in(namespaces)
        self._offsets = {namespace: at for at, namespace in enumerate(self._target.namespaces())}
        return namespaces

    def _tell(self, done: int, total: int, what: str) -> None:
        if self._progress is not None:
            self._progress(done, total, what)


def differences(
    wanted: Iterable[Row], here: Iterable[Row], width: int
) -> Iterator[tuple[Row, None] | tuple[None, Row] | tuple[Row, Row]]:
    """Rows that are not the same in both, or only in one: each comes in the order of its key, its first ``width``
    values."""
    ours = iter(here)
    own = next(ours, None)
    for want in wanted:
        while own is not None and own[:width] < want[:width]:
            yield None, own
            own = next(ours, None)
        if own is None or own[:width] != want[:width]:
            yield want, None
            continue
        if own != want:
            yield want, own
        own = next(ours, None)
    while own is not None:
        yield None, own
        own = next(ours, None)


def _pages(ledger: Ledger, namespace: str, table: Table) -> Iterator[list[Row]]:
    after: Row | None = None
    while page := ledger.table(namespace, table, after, PAGE):
        yield page
        after = page[-1][: len(table.key)]


def _rows(ledger: Ledger, namespace: str, table: Table) -> Iterator[Row]:
    return chain.from_iterable(_pages(ledger, namespace, table))


def _entries(ledger: Ledger, namespace: str) -> Seqs:
    """The numbers of the log's entries on a namespace: int64[n] ascending."""
    return np.fromiter((row[0] for row in _rows(ledger, namespace, ENTRIES)), np.int64)


def _log(ledger: Ledger, namespace: str, after: int) -> Iterator[tuple[int, str, Entry]]:
    while page := ledger.entries(namespace, after, SHORT):
        yield from ((entry.entry, namespace, entry) for entry in page)
        after = page[-1].entry


def _but_use(told: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """What was told of a store, without how often it was searched."""
    return {name: each for name, each in told.items() if not name.endswith(": usage")}


def _draft(row: Whole) -> Draft:
    """What a row was written from; an archive may have brought its activation, which goes by a hash of its own."""
    return replace(draft_of(row.segment, row.identity), content=row.content)


def _alike(one: Activation, other: Activation | None) -> bool:
    """Whether two activations are the same; a token matrix that is to be made again is like any."""
    if other is None:
        return False
    tokens = one.tokens == other.tokens or LATER in (one.tokens, other.tokens)
    return tokens and one.pooled.tobytes() == other.pooled.tobytes()


def _place(argument: str, value: object) -> Place:
    place = arguments.place(value)
    if isinstance(value, str) and isinstance(place, Path) and (value == ":memory:" or "://" in value):
        raise InvalidInput(argument, f"{value} is no place to copy", mend="name a directory, or postgresql://...")
    return place


def _address(place: Place) -> str:
    return place.url if isinstance(place, Database) else str(place)


def _encrypted(place: Place) -> bool:
    return isinstance(place, Path) and (place / FILE).exists()


def _source(place: Place, key: Key | None) -> Ledger:
    """The ledger to copy. Raises NotAStore, StoreBusy where it is a copy itself that is not whole yet."""
    nothing = NotAStore(f"there is no memory at {place}", mend="name the directory of a store, or its database")
    if not opening.exists(place):
        raise nothing
    ledger = opening.ledger_at(place, None, key if _encrypted(place) else None)
    try:
        if ledger.value("encoder") is None:
            raise nothing
        opening.whole(ledger, place)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _target(place: Place, key: Key | None, *, made: bool) -> Ledger:
    """The ledger to copy to, which is ``made`` where there is none. Raises NotAStore."""
    if key is not None and isinstance(place, Database):
        problem = "is for directories: memspan does not encrypt what a database keeps"
        raise InvalidInput("target_key", problem, mend="leave it out, and have the server's disk encrypted")
    if not opening.exists(place) and not made:
        raise NotAStore(f"there is no memory at {place}", mend="copy one there first, without verify_only")
    return opening.ledger_at(place, None, key)
