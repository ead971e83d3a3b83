"""Routing: beam search in the tree, width by width: what it finds, what it compares, how long it takes.

The tree is that of a real ledger. Its vectors are an encoder's, or those of a file, which saves the hours of encoding a
million texts. The queries are of the same source, and the ledger does not hold them. What is right is the exact top 10
by cosine over all rows.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memspan.activations.tokens import Activation
from memspan.bench.measures import encoder_of, interval, machine, milliseconds
from memspan.bench.speed import texts
from memspan.drafting import Batch, Common
from memspan.encoders.base import Encoded, Encoder
from memspan.errors import InvalidInput
from memspan.ledger.base import Ledger, Seqs, Vectors
from memspan.ledger.sqlite import SqliteLedger
from memspan.records import Piece, Scope
from memspan.segmenting import WordTokenizer
from memspan.views.base import Progress, Selection, Selections
from memspan.views.tree import TreeView

BEAMS = (16, 32, 64, 128, 192, 256, 320, 384)
NEAREST = 10
MOST_COMPARISONS = 65_536  # a query, what DSM's reference implementation names for a million tokens
LEAST_RECALL = 0.95
LEAST = 1_000
BATCH = 1_024
READ = 16_384
NAMESPACE = "default"


def run(
    *,
    segments: int = 1_000_000,
    vectors: Path | None = None,
    queries: int = 500,
    encoder: str | Encoder | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fill a ledger with ``segments``, route ``queries`` in its tree for each of BEAMS; a report of plain values.

    ``vectors`` is a .npy file of float16 or float32[n, dim], rows of length 1. Without it the texts of
    ``memspan.bench.speed`` are encoded by ``encoder`` (a spec, an Encoder, or None for the configured one). Where there
    are too few for both, it holds all that are no queries; the report says how many. The tree is measured twice:
    as it grows from row to row, and as compaction builds it. Times are wall times.

    Raises InvalidInput naming ``segments``, ``queries`` or ``vectors``, EncoderError, StoreError.
    """
    measured_on = machine()
    if segments < LEAST:
        raise InvalidInput("segments", f"{segments} are too few to measure", mend=f"give at least {LEAST:,}")
    if not 0 < queries <= segments // 2:
        raise InvalidInput("queries", f"cannot ask {queries}", mend=f"give 1 to {segments // 2:,}")
    tell = progress or (lambda done, total, what: None)
    every, model = _source(segments + queries, vectors, encoder)
    chosen = set(np.linspace(0, len(every) - 1, queries).astype(int).tolist())
    held = [text for at, text in enumerate(every) if at not in chosen]
    questions = model.encode([every[at] for at in sorted(chosen)]).pooled
    with tempfile.TemporaryDirectory(prefix="memspan-routing-") as directory:
        ledger = SqliteLedger(Path(directory, "ledger.db"))
        try:
            for at in range(0, len(held), BATCH):
                tell(at, len(held), "adding")
                _add(ledger, held[at : at + BATCH], model)
            report = _trees(ledger, Path(directory, "views"), questions, tell)
        finally:
            ledger.close()
    return {"benchmark": "routing", "encoder": model.id, **report, "machine": measured_on}


def _add(ledger: Ledger, some: Sequence[str], model: Encoder) -> None:
    """To the ledger alone: no other view shall work beside the one that is measured."""
    batch = Batch(lambda text, media: [Piece(text=text)], Common(scope=Scope(namespace=NAMESPACE)))
    for text in some:
        batch.text(text)
    pooled = model.encode(list(batch.texts.values())).pooled.astype(np.float16)
    ledger.append(NAMESPACE, batch.drafts, activations=dict(zip(batch.texts, map(Activation, pooled), strict=True)))


def _source(count: int, vectors: Path | None, encoder: str | Encoder | None) -> tuple[Sequence[str], Encoder]:
    """At most ``count`` texts, and what encodes them."""
    if vectors is not None:
        table = _table(vectors)
        return [f"row {number}" for number in range(min(count, len(table)))], Rows(table)
    model = encoder_of(encoder)
    if model is None:
        raise InvalidInput("encoder", "without one there is nothing to route", mend="leave it out, or name one")
    return texts(count), model


def _table(file: Path) -> NDArray[Any]:
    try:
        table: NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InvalidInput("vectors", f"{file} cannot be read ({error})", mend="give a .npy file") from error
    if table.ndim != 2 or table.dtype not in (np.float16, np.float32) or len(table) < LEAST:
        problem = f"{file} holds {table.dtype}{list(table.shape)}"
        raise InvalidInput("vectors", problem, mend=f"give float16 or float32[n, dim], at least {LEAST:,} rows")
    return table


class Rows:
    """An encoder for texts that end in a number: the vector of "row 7" is row 7 of a table."""

    window = 256

    def __init__(self, table: NDArray[Any]) -> None:
        self._table = table
        self.id = f"rows of a table of {len(table)} vectors"
        self.dim = int(table.shape[1])
        self.tokenizer = WordTokenizer()

    def encode(self, texts: Sequence[str]) -> Encoded:
        """A text without a number is row 0: the engine may try the encoder with a word of its own."""
        last = [text.split()[-1:] for text in texts]
        rows = np.array([int(word[0]) if word and word[0].isdecimal() else 0 for word in last], np.int64)
        return Encoded(pooled=self._table[rows].astype(np.float32))


# What is measured


def _trees(ledger: Ledger, views: Path, questions: Vectors, tell: Progress) -> dict[str, Any]:
    selection = Selections(ledger).of(Scope(namespace=NAMESPACE))
    nearest = _nearest(ledger, len(selection.seqs), questions, tell)
    dim = questions.shape[1]
    report: dict[str, Any] = {"segments": len(selection.seqs), "queries": len(questions), "dim": dim}
    grown = TreeView(ledger, None, dim)  # reads no snapshot: every row comes to it in its turn
    tell(0, 1, "growing")
    started = time.perf_counter()
    grown.route(selection, questions[0], 1)
    seconds = time.perf_counter() - started
    report["grown"] = {"seconds": round(seconds, 1), "beams": _beams(grown, selection, questions, nearest, tell)}
    del grown
    built = TreeView(ledger, views, dim)
    started = time.perf_counter()
    built.compact(NAMESPACE, force=True, progress=tell)
    seconds = time.perf_counter() - started
    report["built"] = {"seconds": round(seconds, 1), "bytes": built.size()}
    report["built"]["beams"] = _beams(built, selection, questions, nearest, tell)
    report["bar"] = _bar(report["built"]["beams"])
    tell(1, 1, "")
    return report


def _beams(
    view: TreeView, selection: Selection, questions: Vectors, nearest: Seqs, tell: Progress
) -> list[dict[str, Any]]:
    view.route(selection, questions[0], 1)  # reads the snapshot
    found = []
    for number, beam in enumerate(BEAMS):
        tell(number, len(BEAMS), "routing")
        recall, compared, seconds = [], [], []
        for question, right in zip(questions, nearest, strict=True):
            started = time.perf_counter()
            routed = view.route(selection, question, beam)
            seconds.append(time.perf_counter() - started)
            compared.append(routed.comparisons)
            recall.append(float(np.isin(right, routed.seqs).mean()))
        low, high = interval(recall)
        found.append(
            {
                "beam": beam,
                "recall@10": round(float(np.mean(recall)), 4),
                "recall@10_95": [round(low, 4), round(high, 4)],
                "comparisons": {"mean": round(float(np.mean(compared))), "most": max(compared)},
                **milliseconds(seconds),
            }
        )
    return found


def _nearest(ledger: Ledger, total: int, questions: Vectors, tell: Progress) -> Seqs:
    """The seqs of the 10 rows nearest to each question, int64[queries, 10], by comparing with every row."""
    seqs = np.zeros((len(questions), 0), np.int64)
    cosines = np.zeros((len(questions), 0), np.float32)
    done = 0
    for found, vectors in _vectors(ledger):
        every = np.concatenate([cosines, questions @ vectors.T], axis=1)
        rows = np.concatenate([seqs, np.broadcast_to(found, (len(questions), len(found)))], axis=1)
        best = np.argpartition(-every, NEAREST - 1, axis=1)[:, :NEAREST]
        seqs, cosines = np.take_along_axis(rows, best, axis=1), np.take_along_axis(every, best, axis=1)
        done += len(found)
        tell(min(done, total), total, "comparing with all")
    return seqs


def _vectors(ledger: Ledger) -> Iterator[tuple[Seqs, Vectors]]:
    after = 0
    while True:
        seqs, vectors = ledger.vectors(NAMESPACE, after, READ)
        if not len(seqs):
            return
        yield seqs, vectors
        after = int(seqs[-1])


def _bar(beams: Sequence[Mapping[str, Any]]) -> str:
    """Whether some beam finds enough and never compares too much, and which."""
    aim = f"recall@10 of at least {LEAST_RECALL} with at most {MOST_COMPARISONS:,} comparisons for any query"
    for found in beams:
        if found["recall@10"] >= LEAST_RECALL and found["comparisons"]["most"] <= MOST_COMPARISONS:
            return f"{aim}: holds from a beam of {found['beam']}"
    return f"{aim}: MISSED"


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, in aligned columns."""
    lines = [
        f"{report['segments']:,} segments, {report['queries']:,} queries that are none of them; {report['encoder']}"
    ]
    for name, what in (("grown", "as it grows from row to row"), ("built", "as compaction builds it")):
        lines += ["", f"{what}, in {report[name]['seconds']:,.1f} s"]
        lines.append(f"{'beam':>6} {'recall@10':>10} {'comparisons':>12} {'at most':>9} {'p50':>9} {'p99':>9}")
        for found in report[name]["beams"]:
            compared = found["comparisons"]
            lines.append(
                f"{found['beam']:>6} {found['recall@10']:>10.4f} {compared['mean']:>12,} {compared['most']:>9,}"
                f" {found['p50_ms']:>6.2f} ms {found['p99_ms']:>6.2f} ms"
            )
    return "\n".join([*lines, "", report["bar"]])
