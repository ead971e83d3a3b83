"""Writes: what one costs when the store is small and when it is large, with everything that follows from it.

The clock runs over the adds and over what they leave to be done: the tree's and the graph's part of the new rows, which
the next search does, and similar rows. The encoder is left out: its vectors come from a table, so that what is told is
the engine's own. Folding tails into snapshots is done before, and told apart.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from memspan.bench.measures import Wrapped, encoder_of, machine
from memspan.bench.speed import LEAST, texts
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import InvalidInput
from memspan.memory import Memory
from memspan.records import Scope

Progress = Callable[[int, int, str], None]

SIZES = (1_000, 10_000, 100_000)
SAMPLE = 256  # writes that are timed at each size, one text a call
BATCH = 1_024


def run(
    sizes: Sequence[int] = SIZES, *, encoder: str | Encoder | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Time ``SAMPLE`` writes at each of ``sizes`` (ascending), in one growing store; a report of plain values.

    ``encoder`` gives the vectors, as many as the largest size: "hash" is quick. Raises InvalidInput, EncoderError.
    """
    measured_on = machine()
    model = encoder_of(encoder)
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise InvalidInput("sizes", f"{list(sizes)} are not sizes that grow", mend="give them ascending: 1000,10000")
    total = max(sizes) + SAMPLE * len(sizes)
    found = texts(max(total, LEAST))
    if len(found) < total:
        problem = f"there are only {len(found):,} texts here, and {total:,} are needed"
        raise InvalidInput("sizes", problem, mend="give smaller ones")
    stream = iter(found)
    report: dict[str, Any] = {"benchmark": "time per write", "sizes": {}, "machine": measured_on}
    with tempfile.TemporaryDirectory(prefix="memspan-writes-") as directory:
        known = None if model is None else Known(model)
        with Memory(Path(directory, "store"), encoder=known) as memory:
            held = 0
            for size in sizes:
                while held < size:
                    batch = list(islice(stream, min(BATCH, size - held)))
                    if known is not None:
                        known.learn(batch)
                    memory.add([{"role": "user", "content": text} for text in batch], session=f"session {held}")
                    held += len(batch)
                    if progress is not None:
                        progress(held, total, f"{size:,}")
                started = time.perf_counter()
                memory.compact()
                folded = time.perf_counter() - started
                report["sizes"][size] = _timed(memory, list(islice(stream, SAMPLE)), known)
                report["sizes"][size]["compact_s"] = round(folded, 2)
                held += SAMPLE
    first, last = (report["sizes"][size]["per_write_ms"] for size in (sizes[0], sizes[-1]))
    report["ratio"] = round(last / first, 2)
    return report


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, in aligned columns."""
    rows = [f"{'segments':>10} {'add':>9} {'tree, graph':>12} {'together':>10}   ms a write; {'folding before':>14}"]
    for size, found in report["sizes"].items():
        rows.append(
            f"{size:>10,} {found['add_ms']:>9.3f} {found['views_ms']:>12.3f} {found['per_write_ms']:>10.3f}"
            f"   {'':<11} {found['compact_s']:>12.1f} s"
        )
    return "\n".join([*rows, f"largest over smallest: {report['ratio']:.2f}"])


class Known(Wrapped):
    """An encoder whose vectors are there already: what ``learn`` was given costs nothing to encode."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner)
        self._vectors: dict[str, np.ndarray[Any, np.dtype[np.float16]]] = {}

    def learn(self, batch: Sequence[str]) -> None:
        """Encode a batch as the engine will ask for it."""
        for text, vector in zip(batch, self.inner.encode(batch).pooled.astype(np.float16), strict=True):
            self._vectors[text] = vector

    def encode(self, batch: Sequence[str]) -> Encoded:
        missing = [text for text in batch if text not in self._vectors]
        if missing:
            self.learn(missing)
        return Encoded(pooled=np.stack([self._vectors[text] for text in batch]).astype(np.float32))


def _timed(memory: Memory, sample: Sequence[str], known: Known | None) -> dict[str, float]:
    """Milliseconds a write: the adds, one text a call, and after them what the views make of the new rows."""
    if known is not None:
        known.learn(sample)
    memory.search("one search, so that every view is in memory", recipe="dsm")
    first = memory.add(sample[0]).ids[0]
    memory.neighbors(first)
    adding = following = 0.0
    nothing = np.zeros((0, 1), np.float32)
    for start in range(1, len(sample), 32):
        batch = sample[start : start + 32]
        began = time.perf_counter()
        for text in batch:
            last = memory.add(text, session="writes").ids[0]
        added = time.perf_counter()
        memory.neighbors(last)  # brings the graph up to date, similar rows too; the next line does the tree
        memory._tree.around(memory._selections.of(Scope(namespace=memory.namespace)), nothing, 1)
        following += time.perf_counter() - added
        adding += added - began
    count = len(sample) - 1
    return {
        "add_ms": round(adding / count * 1000, 4),
        "views_ms": round(following / count * 1000, 4),
        "per_write_ms": round((adding + following) / count * 1000, 4),
    }
