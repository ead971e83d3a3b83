"""What care costs: the log, deleting and erasing a user, undo, backups, sleep.

Texts are those of ``memspan bench speed``. The cost of the log is that of two stores side by side, written to in turns,
of which one keeps none; the encoder is the one asked for, since the share depends on what else an add does.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from memspan.backups import restore
from memspan.bench.measures import machine
from memspan.bench.speed import texts
from memspan.memory import Memory
from memspan.views.base import Progress

ENCODER = "hash:384"  # as many dimensions as the default model has, without its time
ROUNDS = 40  # of adds with and without a log
SIZES = (1, 100)  # texts in one add
OTHERS = 5_000  # segments of somebody else, who must not notice


def run(segments: int = 100_000, *, encoder: str = "minilm", progress: Progress | None = None) -> dict[str, Any]:
    """Measure with a user of so many segments; a report of plain values. ``encoder`` is for the cost of the log.

    Raises InvalidInput, EncoderError.
    """
    found = texts(max(segments + OTHERS, 2 * ROUNDS * sum(SIZES)))
    mine, theirs = found[:segments], found[segments : segments + OTHERS]
    report: dict[str, Any] = {"benchmark": "lifecycle", "segments": len(mine), "seconds": {}}
    with tempfile.TemporaryDirectory(prefix="memspan-lifecycle-") as scratch:
        report["log"] = _log(Path(scratch, "log"), found, encoder, progress)
        with Memory(Path(scratch, "store"), encoder=ENCODER) as memory:
            clock = _Clock(report["seconds"], progress)
            clock("add", lambda: memory.add(_turns(mine), user_id="ana", session="all"))
            memory.add(_turns(theirs), user_id="ben", session="all")
            memory.compact()
            _care(memory, Path(scratch), clock)
    report["machine"] = machine()
    return report


class _Clock:
    """Calls, and how long each took, by name."""

    def __init__(self, seconds: dict[str, float], progress: Progress | None) -> None:
        self._seconds = seconds
        self._progress = progress

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        if self._progress is not None:
            self._progress(len(self._seconds), 0, name)
        began = time.perf_counter()
        made = call()
        self._seconds[name] = time.perf_counter() - began
        return made


def _care(memory: Memory, scratch: Path, clock: _Clock) -> None:
    """What happens to the user, in the order in which it would."""
    clock("delete", lambda: memory.delete_all(user_id="ana"))
    clock("undo", lambda: memory.undo(memory.operations(limit=1)[0].id))
    clock("backup", lambda: memory.backup(scratch / "backups"))
    memory.add(_turns([f"Something new, number {n}." for n in range(100)]), user_id="ben", session="new")
    clock("backup after 100 more", lambda: memory.backup(scratch / "backups"))
    clock("restore of a backup", lambda: restore(scratch / "backups", scratch / "restored"))
    clock("sleep", memory.sleep)
    clock("verify", memory.verify)
    clock("erase", lambda: memory.erase(user_id="ana"))
    clock("erase with vacuum", lambda: memory.erase(user_id="ben", session="new", vacuum=True))


def _log(place: Path, found: list[str], encoder: str, progress: Progress | None) -> dict[str, float]:
    """Seconds for an add with and without a log: one text at a time, and 100."""
    told: dict[str, float] = {}
    with Memory(place / "with", encoder=encoder) as logged, Memory(place / "without", encoder=encoder) as bare:
        bare._ledger.logged = lambda *_: ""  # type: ignore[attr-defined]
        at = 0
        for size in SIZES:
            spent = {"with": 0.0, "without": 0.0}
            for done in range(ROUNDS):
                if progress is not None:
                    progress(done, ROUNDS, f"adds of {size}")
                # new texts for each, and in turns, so that neither has the warmer cache
                pair = [("with", logged), ("without", bare)]
                for name, memory in pair if done % 2 else pair[::-1]:
                    turns, at = _turns(found[at : at + size]), at + size
                    began = time.perf_counter()
                    memory.add(turns, session="log")
                    spent[name] += time.perf_counter() - began
            for name, seconds in spent.items():
                told[f"{name}_{size}"] = seconds / ROUNDS
    return told


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, as Markdown."""
    log, seconds = report["log"], report["seconds"]
    rows = [
        f"A user of {report['segments']:,} segments, beside another of {OTHERS:,}",
        "",
        "| what | time |",
        "|---|---|",
    ]
    rows += [f"| {name} | {taken:,.2f} s |" for name, taken in seconds.items()]
    for size in SIZES:
        share = log[f"with_{size}"] / log[f"without_{size}"] - 1
        rows.append(f"| the log, of an add of {size} | {log[f'with_{size}'] * 1000:.2f} ms, {share:+.1%} |")
    return "\n".join(rows)


def _turns(found: list[str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in found]
