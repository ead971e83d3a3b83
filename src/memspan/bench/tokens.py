"""What token activations are worth at each level: bytes a token against recall@10, on every data set that is there.

Two figures a level: ``alone``, all segments of a collection ranked by MaxSim, the plain mean over the question's tokens
(the score of an item is that of its best segment); and ``engine``, the default recipe in a store that keeps its tokens
at that level, or none. Below the encoder's own dimensions, kept bits are those of a random rotation. Each text is
encoded once: the stores are taken from level to level by ``Memory.reencode`` over the same activations.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from memspan.activations.tokens import BITS, Basis, Matrices, TokenCodec, shipped
from memspan.bench import sets
from memspan.bench.embeddings import Cached
from memspan.bench.measures import encoder_of, interval, machine, measures, milliseconds, ranks_of
from memspan.bench.plain import MaxSim, segments_of
from memspan.encoders.base import Encoder
from memspan.errors import InvalidInput
from memspan.memory import Memory

Progress = Callable[[int, int, str], None]

DEPTH: Final = 50
FEWER: Final = (128, 256)  # dimensions, of 384, at one bit
EXACT: Final = "f16"


def run(
    data: str | Path,
    *,
    names: Sequence[str] = sets.NAMES,
    encoder: str | Encoder | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure on the sets ``names`` under the folder ``data``; a report of plain values, ready for JSON.

    A set that is not there is skipped by name. Raises InvalidInput naming ``names``, ``data`` (where none is there) or
    ``encoder``.
    """
    measured_on = machine()
    if unknown := set(names) - set(sets.NAMES):
        raise InvalidInput("names", f"there is no {sorted(unknown)[0]!r}", mend=f"use {', '.join(sets.NAMES)}")
    model = encoder_of(encoder)
    basis = None if model is None else shipped(model.id)
    if model is None or basis is None:
        raise InvalidInput("encoder", "has no token activations that memspan can keep", mend="use minilm")
    found: list[sets.Set] = []
    skipped: dict[str, str] = {}
    for name in names:
        try:
            found.append(sets.load(name, Path(data)))
        except sets.Absent as error:
            skipped[name] = error.mend
    if not found:
        raise InvalidInput("data", f"{data} holds none of the sets", mend=next(iter(skipped.values())))
    codecs = _codecs(basis)
    total = sum(len(each.collections) for each in found)
    done = 0
    results: dict[str, Any] = {}
    for each in found:
        alone: dict[str, list[float]] = {name: [] for name in codecs}
        engine: dict[str, list[float]] = {name: [] for name in ("none", *BITS)}
        for collection in each.collections:
            if progress is not None:
                progress(done, total, f"{each.name} {collection.id}")
            done += 1
            recorded = Cached(model)
            with tempfile.TemporaryDirectory() as folder, Memory(Path(folder, "s"), encoder=recorded) as memory:
                sets.remember(memory, collection)
                for name, codec in codecs.items():
                    alone[name] += _alone(memory, recorded, collection, codec)
                for level, recalls in engine.items():
                    memory.reencode(tokens=level)
                    recalls += _engine(memory, collection)
        results[each.name] = {
            "questions": sum(len(collection.asks) for collection in each.collections),
            "alone": _compared(alone, f"{EXACT} {len(basis.mean)}"),
            "engine": _compared(engine, EXACT),
        }
    if progress is not None:
        progress(total, total, "")
    return {
        "benchmark": "tokens: bytes a token against recall@10",
        "encoder": model.id,
        "bytes": {name: codec.width for name, codec in codecs.items()},
        "300_matrices_of_35_tokens": {name: maxsim_time(codec) for name, codec in codecs.items()},
        "sets": results,
        "skipped": skipped,
        "data": {each.name: each.sha256 for each in found},
        "machine": measured_on,
    }


def table(report: dict[str, Any]) -> str:
    """The report for people: a line for each level, a column for each set."""
    names = list(report["sets"])
    rows = [f"{'recall@10':<22} {'bytes':>5} " + " ".join(f"{name:>10}" for name in names)]
    for part in ("alone", "engine"):
        for level in next(iter(report["sets"].values()))[part]:
            width = max(
                (size for name, size in report["bytes"].items() if f"{name} ".startswith(f"{level} ")), default=0
            )
            cells = (f"{report['sets'][name][part][level]['recall@10']:>10.3f}" for name in names)
            rows.append(f"{part + ' ' + level:<22} {width:>5} " + " ".join(cells))
    times = (f"{name} {each['p50_ms']:.1f}" for name, each in report["300_matrices_of_35_tokens"].items())
    rows.append("MaxSim of 300 matrices of 35 tokens, p50 in ms: " + ", ".join(times))
    rows += [f"{name} was skipped: {mend}" for name, mend in report["skipped"].items()]
    return "\n".join(rows)


def maxsim_time(codec: TokenCodec, matrices: int = 300, tokens: int = 35, asked: int = 14) -> dict[str, float]:
    """Milliseconds to score so many matrices of so many tokens for a question of ``asked``, made-up values all; at one
    bit on one core."""
    random = np.random.default_rng(0)
    dim = len(codec.basis.mean)
    texts = [random.standard_normal((tokens, dim)).astype(np.float32) for _ in range(matrices)]
    packed = codec.pack(texts)
    sizes = np.array([len(each) for each in packed], np.int64)
    held = Matrices(np.arange(matrices), sizes, np.frombuffer(b"".join(packed), np.uint8))
    question = codec.project(random.standard_normal((asked, dim)).astype(np.float32))
    taken = []
    for _ in range(50):
        started = time.perf_counter()
        codec.best(question, held).mean(axis=0)
        taken.append(time.perf_counter() - started)
    return milliseconds(taken)


def _codecs(basis: Basis) -> dict[str, TokenCodec]:
    """By "level dimensions": every level of the shipped basis, and one bit of fewer dimensions."""
    dims = len(basis.mean)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((dims, dims)))[0].astype(np.float32)
    fewer = {f"1bit {n}": TokenCodec("1bit", Basis("", basis.mean, turn[:, :n], "")) for n in FEWER if n < dims}
    return fewer | {f"{level} {dims}": TokenCodec(level, basis) for level in BITS}


def _alone(memory: Memory, model: Encoder, collection: sets.Collection, codec: TokenCodec) -> list[float]:
    """recall@10 of each question by MaxSim over every segment."""
    segments = list(segments_of(memory))
    maxsim = MaxSim([text for text, _ in segments], model, codec)
    items, where = np.unique([item for _, item in segments], return_inverse=True)
    recalls = []
    for ask in collection.asks:
        best = np.zeros(len(items), np.float32)
        np.maximum.at(best, where, maxsim.scores([ask.text])[0])
        first = np.argsort(-best, kind="stable")[:DEPTH]
        recalls.append(measures(ranks_of([str(items[at]) for at in first], ask.gold))["recall@10"])
    return recalls


def _engine(memory: Memory, collection: sets.Collection) -> list[float]:
    """recall@10 of each question by the default recipe."""
    recalls = []
    for ask in collection.asks:
        found = dict.fromkeys(str(hit.metadata["item"]) for hit in memory.search(ask.text, k=DEPTH))
        recalls.append(measures(ranks_of(list(found), ask.gold))["recall@10"])
    return recalls


def _compared(recalls: dict[str, list[float]], exact: str) -> dict[str, Any]:
    """Means, and of each the paired difference to ``exact`` with its 95 % interval."""
    report = {}
    for name, each in recalls.items():
        differences = [a - b for a, b in zip(each, recalls[exact], strict=True)]
        low, high = interval(differences)
        gap = {"mean": round(float(np.mean(differences)), 4), "95": [round(low, 4), round(high, 4)]}
        report[name] = {"recall@10": round(float(np.mean(each)), 4), f"against {exact}": gap}
    return report
