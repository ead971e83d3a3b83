"""Proposed conflicts: how many there are in chats, for which reasons, and which of BEAM's updates are among them.

Each chat is a store of its own that holds what people said; ``Memory.conflicts`` is asked for everything. BEAM names
for some questions the messages that were true first and those that changed it, or that contradict each other; a pair
is found where a proposal names a message of each. Whether the other proposals are right nobody has marked.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from memspan.bench import sets
from memspan.bench.embeddings import Cached
from memspan.bench.measures import encoder_of, machine
from memspan.bench.standings import CONTRADICTION, UPDATE
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput
from memspan.memory import Memory
from memspan.records import Conflict
from memspan.views.base import Progress

SETS: Final = ("beam", "locomo", "realtalk")
THRESHOLDS: Final = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
EVERY: Final = 100_000
MARKED: Final[Mapping[str, tuple[str, str]]] = {"updates": UPDATE, "contradictions": CONTRADICTION}


def run(
    data: str | Path,
    names: Sequence[str] = SETS,
    *,
    encoder: str | Encoder | None = None,
    cache: str | Path | None = None,
    pairs: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure on the sets ``names`` in the folder ``data``; a report of plain values, ready for JSON.

    ``encoder``, ``cache``: as in ``bench.recall``. ``pairs`` names a file that gets a JSON line for each proposal: set,
    collection, the items of the older and the newer, reasons and score; no texts. Raises InvalidInput, EncoderError,
    StoreError.
    """
    measured_on, tell = machine(), progress or (lambda done, total, what: None)
    model = encoder_of(encoder)
    if model is None:
        raise InvalidInput("encoder", "without one nothing is compared", mend="leave it out, or name one")
    cached = Cached(model, None if cache is None else Path(cache))
    lines: list[str] = []
    report: dict[str, Any] = {"benchmark": "proposed conflicts", "encoder": model.id, "sets": {}}
    for name in names:
        found: list[Conflict] = []
        marked: dict[str, list[float]] = {what: [] for what in MARKED}
        statements, seconds = 0, 0.0
        collections = sets.load(name, Path(data)).collections
        for done, each in enumerate(collections):
            tell(done, len(collections), f"{name} {each.id}")
            said = replace(each, items=tuple(item for item in each.items if item.speaker != "assistant"))
            with (
                tempfile.TemporaryDirectory(prefix="memspan-conflicts-") as folder,
                Memory(Path(folder, "store"), encoder=cached, tokens="none") as memory,
            ):
                sets.remember(memory, said)
                statements += memory.stats()["segments"]
                started = time.perf_counter()
                proposed = memory.conflicts(threshold=0.0, limit=EVERY)
                seconds += time.perf_counter() - started
            cached.forget()
            found += proposed
            for what, of in MARKED.items():
                marked[what] += _scores(said, of, proposed)
            lines += [json.dumps({"set": name, "collection": each.id, **_named(pair)}) for pair in proposed]
        report["sets"][name] = {
            "collections": len(collections),
            "statements": statements,
            "proposals": {str(least): sum(pair.score >= least for pair in found) for least in THRESHOLDS},
            "reasons": dict(Counter(reason for pair in found if pair.score >= 0.5 for reason in pair.reasons)),
            **{
                what: {"pairs": len(scores), **{str(t): sum(score >= t for score in scores) for t in THRESHOLDS}}
                for what, scores in marked.items()
                if scores
            },
            "seconds": round(seconds, 2),
        }
    if pairs is not None:
        _write(Path(pairs), lines)
    return {**report, "machine": measured_on}


def _scores(said: sets.Collection, of: tuple[str, str], proposed: Sequence[Conflict]) -> Iterator[float]:
    """For each question that marks two different messages, the best score of a proposal that names both."""
    scores: dict[frozenset[str], float] = {}
    for pair in proposed:
        key = frozenset(str(each.metadata["item"]) for each in (pair.older, pair.newer))
        scores[key] = max(pair.score, scores.get(key, 0.0))
    for ask in said.asks:
        one, other = (ask.groups.get(part, ()) for part in of)
        ends = [frozenset((a, b)) for a in one for b in other if a != b]
        if ends:
            yield max(scores.get(pair, 0.0) for pair in ends)


def _named(pair: Conflict) -> dict[str, Any]:
    older, newer = (each.metadata["item"] for each in (pair.older, pair.newer))
    return {"older": older, "newer": newer, "reasons": list(pair.reasons), "score": round(pair.score, 4)}


def _write(file: Path, lines: Sequence[str]) -> None:
    try:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise InvalidInput("pairs", f"{file} cannot be written ({error.strerror})", mend="name another file") from error


def table(report: Mapping[str, Any]) -> str:
    """The report as a Markdown table: proposals at each threshold, and how many of the marked pairs are among them."""
    rows = [["set", "statements", "", *(f"from {least}" for least in THRESHOLDS)]]
    for name, one in report["sets"].items():
        rows.append([name, f"{one['statements']:,}", "proposals", *(str(n) for n in one["proposals"].values())])
        for what in MARKED:
            if what in one:
                count, *found = one[what].values()
                rows.append(["", "", f"{what}, of {count}", *map(str, found)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
