"""Speed, memory and disk on this machine: writes, searches among many segments, start-up, resident memory, bytes.

The texts are real and on every machine: the documentation topics and the source files of Python's own standard
library, in pieces of a sentence or a few lines, always the same for one installation of Python. Queries are runs of
words out of those texts. Nothing is asserted: ``bars`` says what was aimed at and whether it was reached.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from memspan.bench.measures import Wrapped, machine, milliseconds
from memspan.bench.places import Places, places
from memspan.config import Config
from memspan.encoders import make
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import InvalidInput, MemspanError
from memspan.memory import Memory
from memspan.store import AUTO

Progress = Callable[[int, int, str], None]

BATCH = 256  # texts per call where many are added
SAMPLE = 2_048  # texts whose adding is timed in batches; a quarter of them one by one
QUERIES = 500
WARMING = 20  # searches before the clock runs
QUERY_WORDS = 8
SMALL = 6_000  # segments at which resident memory and disk are compared with other systems
STARTS = 5  # of each fresh process; the median counts
LEAST = 1_000
LONGEST = 200  # characters of a text, unless one line is longer

RATIO = "add.ratio_to_encoder"
BARS: dict[str, tuple[str, float]] = {
    RATIO: ("at least", 0.85),
    "durable_add.p95_ms": ("below", 5.0),
    "search.p50_ms": ("below", 6.0),
    "small.resident_mb": ("at most", 300.0),
    "small.bytes_per_segment": ("at most", 3_072.0),
    "start.import_ms": ("below", 150.0),
    "start.cold_search_ms": ("below", 1_000.0),
}
SERVED: dict[str, tuple[str, float]] = {
    RATIO: ("at least", 0.7),
    "search.p50_ms": ("below", 25.0),
    "namespaces.ratio": ("at most", 1.2),
}
"""Of stores on a server."""


def run(
    *,
    segments: int = 100_000,
    encoder: str | None = None,
    store: str | None = None,
    namespaces: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure on this machine; a report of plain values, ready for JSON. Times are wall times, sizes are bytes or MiB.

    ``segments`` is how many to search among, at least 1,000; where this Python's library gives fewer, those (the report
    says how many). ``encoder`` is a spec or None for the configured one; ``"hash"`` makes a quick run without a model,
    ``"none"`` one by keywords only. Takes about as long as encoding all the texts. ``store`` is the address of a
    server, ``postgresql://...``, on which the stores are databases of their own that are dropped in the end; None
    measures stores in a directory. ``namespaces``: also search among so many, each of 1,000 segments, and in one alone.

    Raises InvalidInput naming ``segments`` or ``store``, EncoderError, StoreError, MemspanError when a fresh process
    fails.
    """
    measured_on = machine()
    found = texts(segments)
    spec = encoder or Config.load().encoder
    spec = "minilm" if spec == "auto" else spec
    inner = make(spec)
    model = None if inner is None else Timed(inner)
    tell = progress or (lambda done, total, what: None)
    asked = queries(found)
    with places(store, "memspan-speed-") as room:
        small, large = room.new("small"), room.new("large")
        report: dict[str, Any] = {
            "segments": len(found),
            "encoder": None if model is None else model.id,
            "characters_per_segment": round(sum(map(len, found)) / len(found), 1),
        }
        tell(0, 1, "adding in batches")
        report["add"] = _adds(room.new("adds"), found[:SAMPLE], model)
        tell(0, 1, "adding one by one")
        report["add_one_by_one"] = _single_adds(room.new("singles"), found[: SAMPLE // 4], model)
        tell(0, 1, "adding without waiting")
        report["durable_add"] = _durable_adds(room.new("durable"), found[: SAMPLE // 4], model)
        report["build"], report["search"] = _search(large, found, asked, model, tell)
        tell(0, 1, "measuring fresh processes")
        few = min(SMALL, len(found))
        report["small"] = _visited(small, few, spec, asked)
        report["small"] |= {"segments": few, "bytes_per_segment": round(room.bytes("small") / few)}
        report["large"] = _visited(large, 0, spec, asked)
        parts = {name: round(size / len(found), 1) for name, size in room.parts("large").items()}
        report["large"] |= {"bytes_per_segment": round(sum(parts.values())), "parts": parts}
        report["start"] = _starts(small, large, asked[0])
        if namespaces:
            report["namespaces"] = _namespaces(room, namespaces, found[:LEAST], model, tell)
        report["bars"] = _bars(report, SERVED if store else BARS)
        report["machine"] = measured_on
        tell(1, 1, "")
        return report


class Timed(Wrapped):
    """An encoder that adds up the seconds it spends encoding."""

    def __init__(self, inner: Encoder) -> None:
        super().__init__(inner)
        self.seconds = 0.0

    def encode(self, texts: Sequence[str]) -> Encoded:
        started = time.perf_counter()
        try:
            return self.inner.encode(texts)
        finally:
            self.seconds += time.perf_counter() - started


# The texts


def texts(count: int) -> list[str]:
    """The first ``count`` distinct texts of 20 to some 200 characters from this Python's library, or all there are.

    Raises InvalidInput naming ``segments`` when ``count`` is below 1,000.
    """
    if count < LEAST:
        raise InvalidInput("segments", f"{count} are too few to measure", mend=f"give at least {LEAST:,}")
    return list(islice(_distinct(), count))


def _distinct() -> Iterator[str]:
    seen: set[str] = set()
    for text in _pieces():
        if text not in seen:
            seen.add(text)
            yield text


def queries(found: Sequence[str], count: int = QUERIES) -> list[str]:
    """Runs of up to eight words from the middle of ``count`` texts spread evenly over ``found``."""
    chosen = []
    for text in found[:: max(1, len(found) // count)][:count]:
        words = text.split()
        start = max(0, (len(words) - QUERY_WORDS) // 2)
        chosen.append(" ".join(words[start : start + QUERY_WORDS]))
    return chosen


def _pieces() -> Iterator[str]:
    """Sentences of the documentation, then the library's sources in groups of lines, its own tests last."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            yield from filter(_worth, re.split(r"(?<=[.!?])\s+", " ".join(paragraph.split())))
    library = Path(sysconfig.get_path("stdlib"))
    files = (file for file in library.rglob("*.py") if "site-packages" not in file.parts)
    for file in sorted(files, key=lambda file: ("test" in str(file.relative_to(library)), str(file))):
        try:
            source = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):  # the library's tests hold sources that are broken on purpose
            continue
        for block in re.split(r"\n\s*\n", source):
            yield from filter(_worth, _groups(block))


def _groups(block: str) -> Iterator[str]:
    """The lines of ``block``, joined as long as they stay within LONGEST characters."""
    group = ""
    for line in block.splitlines():
        line = " ".join(line.split())
        if group and len(group) + len(line) > LONGEST:
            yield group
            group = ""
        group = f"{group} {line}".strip()
    yield group


def _worth(text: str) -> bool:
    return 20 <= len(text) <= 5 * LONGEST and len(text.split()) >= 4


# What is measured


def _adds(path: str, sample: Sequence[str], model: Timed | None) -> dict[str, Any]:
    """Adds of BATCH texts a call, in turns with the encoder alone on the same texts, so that both see the same machine.

    The turns alternate in order, as the second of two runs over the same texts finds warmer caches.
    """
    alone = whole = 0.0
    with Memory(path, encoder=model) as memory:
        memory.add("A first segment, so that what happens only once is not measured.")
        for number, batch in enumerate(sample[at : at + BATCH] for at in range(0, len(sample), BATCH)):
            for step in ("alone", "whole") if number % 2 else ("whole", "alone"):
                started = time.perf_counter()
                if step == "whole":
                    memory.add(_messages(batch))
                    whole += time.perf_counter() - started
                elif model is not None:
                    model.encode(batch)
                    alone += time.perf_counter() - started
    report = {"texts": len(sample), "per_call": BATCH, "per_second": round(len(sample) / whole, 1)}
    if model is not None:
        report |= {
            "encoder_alone_per_second": round(len(sample) / alone, 1),
            "ratio_to_encoder": round(alone / whole, 3),
        }
    return report


def _single_adds(path: str, sample: Sequence[str], model: Timed | None) -> dict[str, Any]:
    """Adds of one text a call, and how much of that is not encoding."""
    whole, beyond = [], []
    with Memory(path, encoder=model) as memory:
        memory.add("A first segment, so that what happens only once is not measured.")
        for text in sample:
            before = 0.0 if model is None else model.seconds
            started = time.perf_counter()
            memory.add(text)
            whole.append(time.perf_counter() - started)
            beyond.append(whole[-1] - (0.0 if model is None else model.seconds - before))
    return milliseconds(whole) | {"beyond_encoding": milliseconds(beyond)}


def _durable_adds(path: str, sample: Sequence[str], model: Timed | None) -> dict[str, Any]:
    """Adds with ``wait=False``: durable when they return; the encoder works in the background at the same time."""
    each = []
    with Memory(path, encoder=model) as memory:
        memory.add("A first segment, so that what happens only once is not measured.", wait=False)
        for text in sample:
            started = time.perf_counter()
            memory.add(text, wait=False)
            each.append(time.perf_counter() - started)
    return milliseconds(each)


def _search(
    path: str, found: Sequence[str], asked: Sequence[str], model: Timed | None, tell: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the store of all texts, compact it, search it: time beyond encoding the query, and the whole."""
    before = 0.0 if model is None else model.seconds
    with Memory(path, encoder=model) as memory:
        started = time.perf_counter()
        for at in range(0, len(found), BATCH):
            tell(at, len(found), "adding")
            memory.add(_messages(found[at : at + BATCH]))
        filled = time.perf_counter() - started
        encoding = None if model is None else round(model.seconds - before, 1)
        tell(0, 1, "compacting")
        started = time.perf_counter()
        memory.compact(progress=tell)
        build = {
            "seconds": round(filled, 1),
            "seconds_encoding": encoding,
            "compact_seconds": round(time.perf_counter() - started, 1),
        }
        for query in asked[:WARMING]:
            memory.search(query)
        whole, beyond = [], []
        for number, query in enumerate(asked):
            tell(number, len(asked), "searching")
            before = 0.0 if model is None else model.seconds
            started = time.perf_counter()
            memory.search(query, k=10)
            whole.append(time.perf_counter() - started)
            beyond.append(whole[-1] - (0.0 if model is None else model.seconds - before))
    return build, milliseconds(beyond) | {"queries": len(asked), "with_encoding": milliseconds(whole)}


def _messages(batch: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in batch]


def _namespaces(room: Places, count: int, found: Sequence[str], model: Timed | None, tell: Progress) -> dict[str, Any]:
    """Searches beyond encoding in one namespace of ``found`` that is alone in its store, and among ``count`` such ones,
    a different one each time."""
    told: dict[str, Any] = {"namespaces": count, "segments_each": len(found)}
    asked = queries(found)
    known = None if model is None else Known(model, [*found, *asked])
    for name, several in (("lone", 1), ("many", count)):
        with Memory(room.new(name), encoder=known) as memory:
            for number in range(several):
                tell(number, several, "filling namespaces")
                for at in range(0, len(found), BATCH):
                    memory.add(_messages(found[at : at + BATCH]), namespace=f"space {number}")
            memory.compact(progress=tell)
            each = []
            for number, query in enumerate([*asked[:WARMING], *asked]):
                started = time.perf_counter()
                memory.search(query, k=10, namespace=f"space {number * 7919 % several}")
                each.append(time.perf_counter() - started)
        told[name] = milliseconds(each[WARMING:])
    return told | {"ratio": round(told["many"]["p50_ms"] / told["lone"]["p50_ms"], 2)}


class Known(Wrapped):
    """An encoder that knows what it makes of some texts, so that a search costs no encoding."""

    def __init__(self, inner: Encoder, texts: Sequence[str]) -> None:
        super().__init__(inner)
        encoded = inner.encode(texts)
        tokens = encoded.tokens or np.zeros(len(texts))
        self._known = dict(zip(texts, zip(encoded.pooled, tokens, strict=True), strict=True))
        self._tokens = bool(len(encoded.tokens))

    def encode(self, texts: Sequence[str]) -> Encoded:
        if any(text not in self._known for text in texts):
            return self.inner.encode(texts)
        pooled, tokens = zip(*(self._known[text] for text in texts), strict=True)
        return Encoded(np.stack(pooled), tokens if self._tokens else ())


# In fresh processes


def _starts(small: str, large: str, question: str) -> dict[str, float]:
    """Medians over fresh processes, files already in the system's cache: importing, and a whole ``memspan search``."""
    imports = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    return {
        "import_ms": _median(lambda: float(fresh(imports.format("memspan")))),
        "import_memory_ms": _median(lambda: float(fresh(imports.format("memspan.memory")))),
        "help_ms": _median(lambda: _timed_cli("--help")),
        "cold_search_ms": _median(lambda: _timed_cli("search", question, "--store", large, "--json")),
        "cold_search_small_ms": _median(lambda: _timed_cli("search", question, "--store", small, "--json")),
    }


def _median(measure: Callable[[], float]) -> float:
    return round(statistics.median(measure() for _ in range(STARTS)) * 1000, 1)


def _timed_cli(*arguments: str) -> float:
    started = time.perf_counter()
    fresh("import sys; from memspan.cli import main; main(sys.argv[1:])", *arguments)
    return time.perf_counter() - started


def _visited(store: str, count: int, spec: str, asked: Sequence[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        fresh("from memspan.bench import speed; speed.visit()", store, str(count), spec, json.dumps(asked[:100]))
    )
    return report


def visit() -> None:
    """What a fresh process does to have its memory measured; its arguments are those of the process.

    Adds ``count`` texts to ``store`` with the encoder ``spec``, or opens it as it is where ``count`` is 0; compacts;
    searches; prints its own peak resident memory as JSON.
    """
    store, count, spec, asked = sys.argv[1:5]
    with Memory(store, encoder=spec if int(count) else AUTO) as memory:
        remaining = islice(_distinct(), int(count))
        while batch := list(islice(remaining, BATCH)):
            memory.add(_messages(batch))
        memory.compact()
        for query in json.loads(asked):
            memory.search(query)
        print(json.dumps({"resident_mb": peak()}))


def peak() -> float | None:
    """Peak resident memory of this process in MiB, None where the system does not say.

    Linux: VmHWM rather than getrusage, whose peak a child process inherits from its parent.
    """
    status = Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return round(int(match[1]) / 1024, 1)
    try:
        import resource
    except ImportError:
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024), 1)


def fresh(code: str, *arguments: str) -> str:
    """What ``code`` prints in a new interpreter. Raises MemspanError when it fails."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise MemspanError(f"a fresh process failed ({last})", mend="run the memspan command by hand to see why")
    return done.stdout


def _bars(report: Mapping[str, Any], bars: Mapping[str, tuple[str, float]]) -> dict[str, str]:
    """For each bar: what was measured, what was aimed at, and whether it holds.

    Hashing is no model: next to it every write is slow, so the ratio is then no bar.
    """
    told = {}
    for name, (relation, bar) in bars.items():
        if name == RATIO and str(report["encoder"]).startswith("hash"):
            continue
        part, key = name.split(".")
        value = report.get(part, {}).get(key)
        if value is not None:
            holds = value >= bar if relation == "at least" else value <= bar if relation == "at most" else value < bar
            told[name] = f"{value:g}, {relation} {bar:g}: {'holds' if holds else 'MISSED'}"
    return told
