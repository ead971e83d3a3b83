"""MemBank's own benchmark over ``memspan.membank``: writes, recalls, bytes, and how much each level finds.

The texts are real and on every machine (``bench.speed.texts``); those that are asked with are never stored. Precision@5
is the share of the five nearest by an exact search with whole activations that is found, too. Nothing is asserted:
``bars`` says what was aimed at and whether it was reached, ``seed_says`` what MemBank's README measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from memspan import arguments
from memspan.activations.hgns import HGNSHierarchy, Saliency
from memspan.activations.tokens import unit
from memspan.bench.measures import machine, milliseconds
from memspan.bench.speed import LEAST, texts
from memspan.errors import InvalidInput
from memspan.membank import MemBank, MockAdapter, ModelAdapter
from memspan.membank.adapters import Vectors, activations
from memspan.membank.query import Multiplier

Progress = Callable[[int, int, str], None]

SIZES: Final = (500, 100_000)
DIM: Final = 256
TOP: Final = 5
BATCH: Final = 1_024
SINGLE: Final = 2_000  # texts ingested one a call
QUERIES: Final = 300
WARMING: Final = 20
LEVELS: Final = {"L2": [2], "L2+L1": [2, 1], "L2+L1+L0": [2, 1, 0]}
SEED_SAYS: Final = {
    "ingest_per_second": 165,
    "p50_ms": 15.6,
    "p99_ms": 26.7,
    "precision@5": {"L2": 0.08, "L2+L1": 0.12, "L2+L1+L0": 0.16},
}


def run(
    sizes: Sequence[int] = SIZES,
    *,
    queries: int = QUERIES,
    encoder: str = "mock",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure banks of ``sizes`` chunks (ascending); a report of plain values. Times are wall times.

    ``queries``: how many texts are asked with, held out. ``encoder``: ``"mock"`` is MockAdapter(256); ``"minilm"`` the
    model itself, whose vectors come from a table, so that what is told is the bank's own time. Raises InvalidInput,
    EncoderError.
    """
    measured_on = machine()
    if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 2 * TOP:
        raise InvalidInput("sizes", f"{list(sizes)} are not sizes that grow", mend="give them ascending: 500,100000")
    arguments.count("queries", queries)
    tell = progress or (lambda done, total, what: None)
    adapter = adapter_of(encoder)
    adapter.warmup()
    found = texts(max(sizes[-1] + queries, LEAST))
    if len(found) < sizes[-1] + queries:
        raise InvalidInput("sizes", f"there are only {len(found):,} texts here", mend="give smaller ones")
    report: dict[str, Any] = {"benchmark": "membank", "model": adapter.model_id(), "bytes": _bytes(adapter.hidden_dim)}
    tell(0, 1, "one by one")
    report["ingest_one_by_one_per_second"] = _single(adapter, found[:SINGLE])
    report["sizes"] = {}
    for size in sizes:
        stored, asked = _split(found, size, queries)
        report["sizes"][size] = _size(adapter, stored, asked, tell)
    report["seed_says"] = SEED_SAYS
    report["bars"] = _bars(report)
    report["machine"] = measured_on
    return report


def table(report: Mapping[str, Any]) -> str:
    """The results of ``run`` for people, in aligned columns."""
    single = report["ingest_one_by_one_per_second"]
    rows = [f"{report['model']}: {single:,.0f} texts a second one by one", ""]
    heads = "".join(f"{level + ' bytes':>10}" for level in report["bytes"])
    rows += [f"{'bytes a text':<26}{heads}", f"{'':<26}" + "".join(f"{n:>10}" for n in report["bytes"].values()), ""]
    for size, found in report["sizes"].items():
        rows.append(f"{size:,} chunks: {found['ingest_per_second']:,.0f} texts a second in batches")
        rows.append(
            f"  {'saliency':<10} {'candidates':<10} {'L2':>6} {'L2+L1':>6} {'+L0':>6}   {'p50':>8} {'p99':>8} ms"
        )
        for one in found["recall"]:
            shares = "".join(f" {one['precision@5'][levels]:>6.2f}" for levels in LEVELS)
            name = f"x{one['candidates']}" if one["candidates"] != "adaptive" else "adaptive"
            rows.append(f"  {one['saliency']:<10} {name:<10}{shares}   {one['p50_ms']:>8.2f} {one['p99_ms']:>8.2f}")
        rows.append("")
    on = report["machine"]
    rows.append(f"{on['cores']} cores of {on['cpu']}, load average {on['load']} before\n")
    return "\n".join([*rows, *(f"{name}: {told}" for name, told in report["bars"].items())])


def adapter_of(encoder: str) -> ModelAdapter:
    """The adapter of this name. Raises InvalidInput, EncoderError."""
    if encoder == "mock":
        return MockAdapter(DIM)
    if encoder == "minilm":
        return MiniLM()
    raise InvalidInput("encoder", f"{encoder!r} is unknown", mend="give 'mock' or 'minilm'")


class MiniLM(ModelAdapter):
    """The pooled activations of all-MiniLM-L6-v2, by memspan's own encoder; what was encoded once costs nothing."""

    def __init__(self) -> None:
        from memspan.encoders.minilm import BertEncoder

        self._encoder = BertEncoder()
        self._known: dict[str, Vectors] = {}

    @property
    def hidden_dim(self) -> int:
        return self._encoder.dim

    def model_id(self) -> str:
        return self._encoder.id

    def encode(self, text: str) -> Vectors:
        vector: Vectors = self.encode_batch([text])[0]
        return vector

    def encode_batch(self, texts: Sequence[str]) -> Vectors:
        lacking = [text for text in texts if text not in self._known]
        self._known.update(zip(lacking, self._encoder.encode(lacking).pooled, strict=True))
        return np.stack([self._known[text] for text in texts])


def _split(found: Sequence[str], size: int, queries: int) -> tuple[list[str], list[str]]:
    """``size`` texts to store and ``queries`` to ask with, both spread evenly over ``found``; none is both."""
    total = size + queries
    taken = [found[at * len(found) // total] for at in range(total)]
    held_out = {at * total // queries for at in range(queries)}
    return [text for at, text in enumerate(taken) if at not in held_out], [taken[at] for at in sorted(held_out)]


def _size(adapter: ModelAdapter, stored: Sequence[str], asked: Sequence[str], tell: Progress) -> dict[str, Any]:
    """One corpus: the writes of the bank with the paper's saliency; precision and times of every setting."""
    whole, questions = activations(adapter, stored), activations(adapter, asked)
    nearest = np.argpartition(-unit(questions) @ unit(whole).T, TOP, axis=1)[:, :TOP]
    truth = [{stored[at] for at in row} for row in nearest.tolist()]
    report: dict[str, Any] = {"ingest_per_second": 0.0, "recall": []}
    kinds: tuple[Saliency, Saliency] = ("gradient", "magnitude")
    for saliency in kinds:
        with MemBank(adapter, saliency=saliency) as bank:
            started = time.perf_counter()
            for start in range(0, len(stored), BATCH):
                tell(start, len(stored), f"storing {len(stored):,}, {saliency}")
                bank.ingest_batch(stored[start : start + BATCH])
            if saliency == "gradient":
                report["ingest_per_second"] = round(len(stored) / (time.perf_counter() - started), 1)
            multipliers: tuple[Multiplier, ...] = (5, 20, "adaptive")
            for multiplier in multipliers:
                tell(0, 1, f"asking {len(stored):,}, {saliency}, {multiplier}")
                bank.query_engine.candidate_multiplier = multiplier
                shares = {name: _precision(bank, asked, truth, levels) for name, levels in LEVELS.items()}
                one = {"saliency": saliency, "candidates": multiplier, "precision@5": shares}
                report["recall"].append(one | _times(bank, asked))
    return report


def _precision(bank: MemBank, asked: Sequence[str], truth: Sequence[set[str]], levels: Sequence[int]) -> float:
    hits = 0
    for question, nearest in zip(asked, truth, strict=True):
        hits += sum(result.text in nearest for result in bank.recall(question, TOP, levels))
    return round(hits / (TOP * len(asked)), 4)


def _times(bank: MemBank, asked: Sequence[str]) -> dict[str, float]:
    """Of whole recalls, the encoding of the question among them."""
    for question in asked[:WARMING]:
        bank.recall(question, TOP)
    seconds = []
    for question in asked:
        started = time.perf_counter()
        bank.recall(question, TOP)
        seconds.append(time.perf_counter() - started)
    return milliseconds(seconds)


def _single(adapter: ModelAdapter, found: Sequence[str]) -> float:
    with MemBank(adapter) as bank:
        bank.ingest_batch(found)  # so that the adapter has seen the words: what is told is the bank's own
    with MemBank(adapter) as bank:
        started = time.perf_counter()
        for text in found:
            bank.ingest(text)
        return round(len(found) / (time.perf_counter() - started), 1)


def _bytes(dim: int) -> dict[str, int]:
    """Of an activation at each level: its entries, as MemBank counts; where they stand takes 2 bytes an entry more."""
    return {f"L{level[-1]}": 4 * count for level, count in HGNSHierarchy.dims_for(dim).items()}


def _bars(report: Mapping[str, Any]) -> dict[str, str]:
    """For each bar: what was measured, what was aimed at, and whether it holds."""
    bars: list[tuple[str, float, str, float]] = []
    for size, found in report["sizes"].items():
        settings = {(one["saliency"], one["candidates"]): one for one in found["recall"]}
        usual = settings["gradient", 5]
        bars.append((f"{size} ingest_per_second", found["ingest_per_second"], "at least", 5_000))
        if size <= 100_000:
            bars.append((f"{size} p50_ms", usual["p50_ms"], "below", 1.0 if size <= 500 else 5.0))
        if size == 500:
            for (name, share), bar in zip(usual["precision@5"].items(), (0.25, 0.40, 0.50), strict=True):
                bars.append((f"{size} precision@5 {name}", share, "at least", bar))
            for saliency in ("gradient", "magnitude"):
                share = settings[saliency, "adaptive"]["precision@5"]["L2+L1+L0"]
                bars.append((f"{size} precision@5 adaptive, {saliency}", share, "at least", 0.95))
    told = {}
    for name, value, relation, bar in bars:
        holds = value >= bar if relation == "at least" else value < bar
        told[name] = f"{value:g}, {relation} {bar:g}: {'holds' if holds else 'MISSED'}"
    return told
