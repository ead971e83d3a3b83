"""``MemBank``: texts as activations that are pointed to, recalled from coarse to fine."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np

from memspan import arguments
from memspan.activations.arena import ALIGNED, START
from memspan.activations.hgns import HGNSHierarchy, Saliency
from memspan.errors import InvalidInput, StoreCorrupt
from memspan.ledger.connections import translated
from memspan.membank.adapters import ModelAdapter, activations
from memspan.membank.pointers import CAPACITY, MemMapBuffer, PointerRecord, closed, hash_activation, hash_text
from memspan.membank.query import Multiplier, QueryEngine, RecallResult, places, scaled
from memspan.membank.registry import LEVELS, MEMORY, Known, Record, Registry

CONTEXT: Final = "[MemBank Context]"
QUERY: Final = "[Query]"
BUFFER: Final = "./mambank_buffer.mmap"
COPIED: Final = 1_024  # records that compaction copies, and texts that mending looks at, at once
MARK: Final = struct.Struct("<16sq8s")  # a buffer's first record: what it is, whose, and where that registry is
NAME: Final = b"memspan membank\n"
IN_MEMORY: Final = b"memory"


class _Prepared(NamedTuple):
    """A text as it will be stored: the bytes of levels 0, 1 and 2 and of its places, and the ids of the levels."""

    text: str
    payloads: tuple[bytes, bytes, bytes, bytes]
    ids: tuple[str, str, str]


class MemBank:
    """Pointer-based memory of activations: the API of MemBank, made right.

    ``adapter``: what turns texts into activations. ``buffer_path``: the file of activations, by default
    ``./mambank_buffer.mmap``, or none at all where the registry is in memory, as no registry would know what it holds.
    ``registry_path``: an SQLite file, or ``":memory:"``. With two files everything is durable when ``ingest`` returns,
    and several processes may use them at once. ``buffer_capacity_bytes``: as in ``MemMapBuffer``.
    ``hgns_k``, ``hgns_gradient_levels``, ``saliency``: as in ``HGNSHierarchy``; "magnitude" finds more than the paper's
    "gradient". ``candidate_multiplier``: as in ``QueryEngine``; "adaptive" finds nearly what an exact search does.
    ``min_recall_score``: results below it are dropped. ``auto_validate_adapter``: try the adapter first.

    A buffer belongs to one registry, and one that a registry in memory made to nobody once that is gone. Texts whose
    activations are missing or damaged when the files are opened are encoded again.

    Safe to use from several threads. Raises what ``ModelAdapter.validate`` does, InvalidInput, NotAStore when the
    buffer belongs to another registry or the registry is another database, and StoreError when the files are not what
    they should be.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        buffer_path: str | os.PathLike[str] | None = None,
        registry_path: str | os.PathLike[str] = MEMORY,
        buffer_capacity_bytes: int = CAPACITY,
        hgns_k: int = 10,
        hgns_gradient_levels: int = 4,
        candidate_multiplier: Multiplier = 5,
        min_recall_score: float = 0.0,
        auto_validate_adapter: bool = True,
        *,
        saliency: Saliency = "gradient",
    ) -> None:
        if auto_validate_adapter:
            adapter.validate()
        self.adapter = adapter
        self.hierarchy = HGNSHierarchy(hgns_k, hgns_gradient_levels, saliency=saliency)
        self.dims = self.hierarchy.dims_for(adapter.hidden_dim)
        self.registry = Registry(registry_path)
        if buffer_path is None and self.registry.path is not None:
            buffer_path = BUFFER
        self._buffer_path = None if buffer_path is None else Path(buffer_path)
        self._capacity = buffer_capacity_bytes
        self._lock = threading.RLock()
        self._closed = False
        self._end = START  # where the next record goes, in a write transaction
        self._ingested = self._recalled = self._deduplicated = 0
        self._since = time.monotonic()
        try:
            with self.registry.writing():
                self._file, end = self.registry.states("file", "end")
                self.buffer = self._open(self._file, end or START)
                self.registry.set_state(end=self.buffer.end)
                self._end = self.buffer.end
            self.query_engine = QueryEngine(
                self.hierarchy,
                self.registry,
                self.buffer,
                adapter.model_id(),
                adapter.hidden_dim,
                candidate_multiplier=candidate_multiplier,
                min_score=min_recall_score,
            )
            try:
                self.query_engine.follow()
            except StoreCorrupt:
                self.rebuild_indexes()
        except BaseException:
            if hasattr(self, "buffer"):
                self.buffer.close()
            self.registry.close()
            raise

    def __repr__(self) -> str:
        where = "in memory" if self.registry.path is None else str(self.registry.path)
        return (
            f"MemBank({self.adapter.model_id()!r}, {where}, texts={self.query_engine.size:,}, "
            f"ingested={self._ingested:,}, recalled={self._recalled:,})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Remembering

    def ingest(self, text: str, metadata: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Encode, compress and store a text, which may be empty: three pointers, one for each level.

        A text that is there already is neither encoded nor written again, unless what was written is damaged: its
        pointers are held once more, and its first metadata stays. Returns ``ptr_ids`` {l0, l1, l2: 64 hex digits},
        ``is_new``, ``dims`` {level0, level1, level2} and ``ingest_ms``. Raises InvalidInput, AdapterError, StoreError;
        nothing is stored then.
        """
        return self.ingest_batch([text], None if metadata is None else [metadata])[0]

    def ingest_batch(
        self, texts: Sequence[str], metadata: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """``ingest`` of many in one transaction, and one call of the adapter: all of them or none.

        ``metadata``: one for each text. ``ingest_ms`` is the time of the batch, shared out.
        """
        started = time.perf_counter()
        self._usable()
        if isinstance(texts, str):
            raise InvalidInput("texts", "is one text", mend="give a list, or use ingest")
        if metadata is None:
            metadata = [None] * len(texts)
        elif len(metadata) != len(texts):
            raise InvalidInput("metadata", f"has {len(metadata)} entries for {len(texts)} texts", mend="give one each")
        about = [dict(arguments.metadata(one)) for one in metadata]
        hashes = [hash_text(_checked(text)) for text in texts]
        if not hashes:
            return []
        given = dict(zip(hashes, texts, strict=True))
        first = dict(zip(reversed(hashes), reversed(about), strict=True))
        model = self.adapter.model_id()
        seen = self.registry.changes()
        known = self.registry.known(model, list(given))
        prepared = self._prepare({hash: text for hash, text in given.items() if hash not in known})
        with self._writing():
            if seen is None or seen != self.registry.changes():  # others may have stored or collected some meanwhile
                known = self.registry.known(model, list(given))
            if self._restore({hash: given[hash] for hash, one in known.items() if not self._sound(one)}, known):
                known = self.registry.known(model, list(given))
            lacking = {hash: text for hash, text in given.items() if hash not in known and hash not in prepared}
            prepared |= self._prepare(lacking)
            new = {hash: one for hash, one in prepared.items() if hash not in known}
            ids = {hash: one.ids for hash, one in known.items()} | {hash: one.ids for hash, one in new.items()}
            times = Counter(hashes)
            counts = Counter(id for hash in hashes for id in ids[hash])
            if known:
                self.registry.held(model, [(hash, times[hash]) for hash in known])
            written = self._store(new, counts, times, first)
        self._deduplicated += 3 * len(hashes) - written
        self._ingested += len(hashes)
        each = round((time.perf_counter() - started) * 1000 / len(hashes), 4)
        results = []
        for hash in hashes:
            l0, l1, l2 = ids[hash]
            results.append(
                {
                    "ptr_ids": {"l0": l0, "l1": l1, "l2": l2},
                    "is_new": new.pop(hash, None) is not None,
                    "dims": dict(self.dims),
                    "ingest_ms": each,
                }
            )
        return results

    def _prepare(self, texts: Mapping[str, str]) -> dict[str, _Prepared]:
        """Encode and compress texts, by hash."""
        if not texts:
            return {}
        whole = activations(self.adapter, list(texts.values()))
        made = self.hierarchy.compress_batch(whole)
        _, lengths, by = scaled(whole)
        where = places(lengths.astype(np.float64) * by, made.level1_indices, made.level2_indices)
        rows = zip(*(_bytes(array) for array in (made.level0, made.level1, made.level2, where)), strict=True)
        prepared = {}
        for (hash, text), (l0, l1, l2, rest) in zip(texts.items(), rows, strict=True):
            ids = hash_activation(l0), hash_activation(l1), hash_activation(l2)
            prepared[hash] = _Prepared(text, (l0, l1, l2, rest), ids)
        return prepared

    def _store(
        self,
        new: Mapping[str, _Prepared],
        counts: Counter[str],
        times: Counter[str],
        about: Mapping[str, dict[str, Any]],
    ) -> int:
        """Write new texts and count who holds what, in a write transaction; how many activations were written."""
        rows = self.registry.rows_of([id for one in new.values() for id in one.ids])
        payloads: list[bytes] = []
        lacking: dict[str, tuple[str, int]] = {}  # of each activation to be written, its first text and level
        for hash, one in new.items():
            for level, id in enumerate(one.ids):
                if id not in rows and id not in lacking:
                    lacking[id] = hash, level
                    payloads.append(one.payloads[level])
        payloads += [one.payloads[3] for one in new.values()]
        offsets, end = self.buffer.append(payloads, self._end)
        model = self.adapter.model_id()
        pointers = [
            PointerRecord(
                ptr_id=id,
                buffer_offset=offset,
                shape=(self.dims[f"level{level}"],),
                dtype="float32",
                model_id=model,
                hgns_level=level,
                source_text_hash=hash,
                ref_count=counts[id],
                metadata=about[hash],
            )
            for (id, (hash, level)), offset in zip(lacking.items(), offsets, strict=False)
        ]
        rows |= self.registry.put_many(pointers)
        self.registry.hold([(id, count) for id, count in counts.items() if id not in lacking])
        chunks = (
            (hash, one.text, about[hash], times[hash], offset, [rows[id] for id in one.ids])
            for (hash, one), offset in zip(new.items(), offsets[len(lacking) :], strict=True)
        )
        self.registry.add_chunks(model, self._places_bytes, chunks)
        self._end = end
        return len(lacking)

    # Mending

    def _sound(self, known: Known) -> bool:
        """Whether all records of a text are what was written."""
        sizes = (4 * self.dims[f"level{level}"] for level in LEVELS)
        pointers = zip(known.offsets, sizes, known.ids, strict=True)
        return self.buffer.holds(known.places, self._places_bytes) and all(
            self.buffer.holds(offset, size, id) for offset, size, id in pointers
        )

    def _sound_of(self, known: Mapping[str, Known]) -> set[str]:
        """Those of many texts that ``_sound`` is true of."""
        offsets = np.array([(one.places, *one.offsets) for one in known.values()], np.int64).reshape(-1, 4)
        _, good = self.buffer.gather(offsets[:, 0], self._places_bytes, np.uint8)
        for level in LEVELS:
            values, whole = self.buffer.gather(offsets[:, 1 + level], self.dims[f"level{level}"], np.float32)
            right = [hash_activation(row) == one.ids[level] for row, one in zip(values, known.values(), strict=True)]
            good &= whole & np.array(right, bool)
        return {hash for hash, fine in zip(known, good.tolist(), strict=True) if fine}

    def _mend(self) -> None:
        """Encode again those of this model's texts of which a record is missing or damaged."""
        model, after = self.adapter.model_id(), 0
        while True:
            with self._reading():
                some = self.registry.texts(model, after, COPIED)
                known = self.registry.known(model, [hash for _, hash, _ in some])
                sound = self._sound_of(known)
                damaged = {hash: text for _, hash, text in some if hash not in sound}
            if damaged:
                with self._writing():  # another process may have mended or collected them meanwhile
                    known = self.registry.known(model, list(damaged))
                    self._restore({hash: damaged[hash] for hash, one in known.items() if not self._sound(one)}, known)
            if not some:
                return
            after = some[-1][0]

    def _restore(self, texts: Mapping[str, str], known: Mapping[str, Known]) -> bool:
        """Encode texts that are there again and write what of them is damaged, in a write transaction; whether there
        were any. Their pointers move, or are others where the adapter or the saliency now gives others."""
        if not texts:
            return False
        prepared = self._prepare(texts)
        there = self.registry.offsets_of([id for one in prepared.values() for id in one.ids])
        lacking: dict[str, tuple[str, int]] = {}
        holds: Counter[str] = Counter()
        payloads: list[bytes] = []
        for hash, one in prepared.items():
            for level, id in enumerate(one.ids):
                payload = one.payloads[level]
                if id not in lacking and not (id in there and self.buffer.holds(there[id][1], len(payload), id)):
                    lacking[id] = hash, level
                    payloads.append(payload)
                if id != known[hash].ids[level]:
                    holds[id] += known[hash].holds
        payloads += [one.payloads[3] for one in prepared.values()]
        offsets, self._end = self.buffer.append(payloads, self._end)
        places = offsets[len(lacking) :]
        new, moved = [], []
        for (id, (hash, level)), offset in zip(lacking.items(), offsets, strict=False):
            if id in there:
                moved.append((offset, there[id][0]))
            elif before := self.registry.get(known[hash].ids[level]):
                new.append(replace(before, ptr_id=id, buffer_offset=offset, ref_count=holds[id]))
        self.registry.move(moved, [])
        self.registry.hold([(id, count) for id, count in holds.items() if id in there])
        rows = {id: row for id, (row, _) in there.items()} | self.registry.put_many(new)
        changes = [
            (known[hash], offset, [rows[id] for id in one.ids])
            for (hash, one), offset in zip(prepared.items(), places, strict=True)
        ]
        self.registry.point_anew(changes)
        return True

    # Recalling

    def recall(self, query: str, top_k: int = 5, levels: Sequence[int] | None = None) -> list[RecallResult]:
        """The ``top_k`` texts nearest to ``query``, best first; ``levels`` as in ``QueryEngine.search``.

        Texts that other processes stored are among them. Raises InvalidInput, AdapterError, StoreError.
        """
        self._usable()
        vector = activations(self.adapter, [_checked(query, "query")])[0]
        with self._reading():
            results = self.query_engine.search(vector, top_k, levels)
            self._recalled += 1
        return results

    def integrate(self, text: str, top_k: int = 3, recall_first: bool = True) -> dict[str, Any]:
        """Recall for a text and ingest it: ``query``, ``recalled``, ``augmented_prompt`` and ``ingest_result``.

        ``recall_first=False`` lets it recall itself. In the prompt each recalled text is a JSON string on one line
        after its rank, score and the beginning of its hash: it is data, and cannot pass for another line of the prompt.
        """
        recalled = self.recall(text, top_k) if recall_first else []
        ingested = self.ingest(text)
        if not recall_first:
            recalled = self.recall(text, top_k)
        return {
            "query": text,
            "recalled": recalled,
            "augmented_prompt": prompt(text, recalled),
            "ingest_result": ingested,
        }

    # Care

    def rebuild_indexes(self) -> int:
        """Look at every record, encode texts again of which one is damaged or missing, and read the search index anew;
        how many pointers, three per text. Raises AdapterError, StoreError."""
        self._mend()
        with self._reading():
            return 3 * self.query_engine.rebuild()

    def gc(self) -> dict[str, int]:
        """Forget dead pointers (``ref_count`` 0) and the texts they were part of: ``collected``, ``registry_deleted``.

        Where by then at least half of the buffer is dead, what lives is copied to a new file, named in the registry,
        and the old one removed; views on it that somebody holds stay as they are. Raises StoreCorrupt, and nothing
        changes, when an activation that would be copied is damaged.
        """
        with self._lock:
            fresh = None
            try:
                with self._writing():
                    deleted = self.registry.delete_dead()
                    records = self.registry.records() if deleted else []
                    live = sum(ALIGNED + record.size + -record.size % ALIGNED for record in records)
                    if deleted and self._end - START >= 2 * live:
                        fresh = self._open(self._file + 1, START)
                        self._copy(records, fresh)
            except BaseException:
                if fresh is not None:
                    _discard(fresh)
                raise
            if fresh is not None:
                old, self.buffer = self.buffer, fresh
                self.query_engine.buffer = fresh
                self._file += 1
                _discard(old)
        return {"collected": deleted, "registry_deleted": deleted}

    def stats(self) -> dict[str, Any]:
        """What there is and was done.

        ``adapter``, ``model_id``, ``dims``, ``ingest_count``, ``recall_count``, ``dedup_count`` (activations that were
        there already), ``uptime_seconds``; ``buffer``, ``registry`` and ``indexes`` as those tell it.
        """
        with self._reading():
            self.query_engine.follow()
            if self.registry.path is not None:
                self.buffer.end = max(self.buffer.end, self.registry.states("end")[0])
            return {
                "adapter": repr(self.adapter),
                "model_id": self.adapter.model_id(),
                "dims": dict(self.dims),
                "ingest_count": self._ingested,
                "recall_count": self._recalled,
                "dedup_count": self._deduplicated,
                "uptime_seconds": round(time.monotonic() - self._since, 3),
                "buffer": self.buffer.stats(),
                "registry": self.registry.stats(),
                "indexes": self.query_engine.stats(),
            }

    def close(self) -> None:
        """Put everything on the disk and close both files. Calling it twice does nothing."""
        with self._lock:
            self._closed = True
            self.buffer.close()
            self.registry.close()

    # One moment at a time

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One moment of registry and buffer."""
        with self._lock:
            self._usable()
            while True:
                with self.registry.reading():
                    if self.registry.path is None or self.registry.states("file")[0] == self._file:
                        yield
                        return
                with self.registry.writing():  # nobody can move the buffer on meanwhile
                    self._reopen()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A write transaction, in which records go to ``_end``; they are on the disk before it is committed."""
        with self._lock:
            self._usable()
            with self.registry.writing():
                begin = self._end = max(self._reopen(), self.buffer.end)
                self.buffer.claim(self._mark)
                yield
                if self._end != begin:
                    if self._durable:
                        self.buffer.sync()
                    if self.registry.path is not None:
                        self.registry.set_state(end=self._end)
            self.buffer.end = self._end

    @property
    def _durable(self) -> bool:
        return self._buffer_path is not None and self.registry.path is not None

    @property
    def _places_bytes(self) -> int:
        return 2 * (2 + self.dims["level1"] + self.dims["level2"])

    def _open(self, file: int, end: int | None) -> MemMapBuffer:
        """The buffer's file of this number: compaction begins a new one each time."""
        path = self._buffer_path
        if path is not None and file:
            path = path.with_name(f"{path.name}.{file}")
        if path is not None and self.registry.path is None and _made_in_memory(path):
            with translated(path):
                path.unlink()  # and a new file: a bank that still has the old one goes on with that
        buffer = MemMapBuffer(path, self._capacity, end=end)
        try:
            buffer.claim(self._mark)
        except BaseException:
            buffer.close()
            raise
        return buffer

    @property
    def _mark(self) -> bytes:
        """The first record of this registry's buffers."""
        return MARK.pack(NAME, self.registry.store, b"a file" if self.registry.path is not None else IN_MEMORY)

    def _reopen(self) -> int:
        """Follow another process that compacted the buffer; where its next record goes."""
        if self.registry.path is None:  # nobody else has this registry
            return self.buffer.end
        file, end = self.registry.states("file", "end")
        if file != self._file:
            fresh = self._open(file, end)
            self.buffer.close()
            self.buffer = self.query_engine.buffer = fresh
            self._file = file
        return end

    def _copy(self, records: Sequence[Record], fresh: MemMapBuffer) -> None:
        """Copy records to an empty buffer, checked, and note in the registry where they are now."""
        moved: dict[str, list[tuple[int, int]]] = {"pointer": [], "places": []}
        for start in range(0, len(records), COPIED):
            some = records[start : start + COPIED]
            offsets, fresh.end = fresh.append([self.buffer.raw(each.offset, each.size) for each in some], fresh.end)
            for record, offset in zip(some, offsets, strict=True):
                moved[record.kind].append((offset, record.row))
        if self._durable:
            fresh.sync()
        self.registry.move(moved["pointer"], moved["places"])
        self.registry.set_state(file=self._file + 1)
        self._end = fresh.end

    def _usable(self) -> None:
        if self._closed:
            raise closed()


def prompt(query: str, recalled: Sequence[RecallResult]) -> str:
    """The query with what was recalled for it, in MemBank's layout, each text as a JSON string on one line."""
    lines = [
        f"[{result.rank + 1}] (score={result.final_score:.4f}) "
        f"chunk:{result.source_text_hash[:12]}... {_quoted(result.text)}"
        for result in recalled
    ]
    return "\n".join([CONTEXT, *lines, QUERY, query])


def _quoted(text: str) -> str:
    """A JSON string in which nothing ends a line, moves the cursor, turns the direction of writing, or reads as a
    heading of the prompt."""
    line = json.dumps(text, ensure_ascii=False)
    for heading in (CONTEXT, QUERY):
        line = line.replace(heading, f"\\u005b{heading[1:]}")
    return line if line.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _checked(text: object, argument: str = "text") -> str:
    if not isinstance(text, str):
        raise InvalidInput(argument, f"{type(text).__name__} is not text", mend="give a str")
    arguments.encodable(argument, text)
    return text


def _bytes(array: np.ndarray[Any, Any]) -> list[bytes]:
    """The bytes of each row."""
    raw, width = array.tobytes(), array.shape[1] * array.itemsize
    return [raw[start : start + width] for start in range(0, len(raw), width)]


def _made_in_memory(path: Path) -> bool:
    """Whether a bank whose registry was in memory made this file: nobody knows any more what it holds."""
    try:
        with path.open("rb") as file:
            head = file.read(START + ALIGNED + MARK.size)[START + ALIGNED :]
    except OSError:
        return False
    return len(head) == MARK.size and MARK.unpack(head)[::2] == (NAME, IN_MEMORY.ljust(8, b"\0"))


def _discard(buffer: MemMapBuffer) -> None:
    """Close a buffer whose file nobody needs, and remove that."""
    buffer.close()
    if buffer.path is not None:
        with suppress(OSError):  # where the system keeps an open file, another process of this store still has it
            buffer.path.unlink()
