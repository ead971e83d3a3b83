"""The measures: ranks of the gold evidence → recall, MRR, nDCG; bootstrap intervals; percentiles; what is measured on.

A question is judged by the 1-based ranks of its gold items, None where an item was not found; every measure follows
from them, so publishing the ranks publishes the measures.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from memspan.config import Config
from memspan.encoders import make
from memspan.encoders.base import Encoded, Encoder
from memspan.segmenting import Tokenizer

Ranks = Sequence[int | None]

RESAMPLES = 10_000
BUDGETS = (512, 1_024, 2_048, 4_096)  # tokens


def ranks_of(found: Sequence[str], gold: Sequence[str]) -> list[int | None]:
    """For each gold id its 1-based place in ``found``, None where it is not there; of an id found twice the first."""
    places: dict[str, int] = {}
    for place, id in enumerate(found, start=1):
        places.setdefault(id, place)
    return [places.get(id) for id in gold]


def measures(ranks: Ranks) -> dict[str, float]:
    """One question's measures, each in [0, 1], from the ranks of all its gold items (at least one).

    recall@k: share of the gold within the first k. hit@k: any of it. all@k: all of it. mrr@10: 1 / rank of the first.
    ndcg@10: binary gains discounted by log2(rank + 1), over the best possible (Järvelin and Kekäläinen 2002).
    """
    if not ranks:
        raise ValueError("a question without gold cannot be scored")

    def within(k: int) -> list[int]:
        return [rank for rank in ranks if rank is not None and rank <= k]

    ten = within(10)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(10, len(ranks)) + 1))
    return {
        "recall@5": len(within(5)) / len(ranks),
        "recall@10": len(ten) / len(ranks),
        "recall@50": len(within(50)) / len(ranks),
        "hit@10": float(bool(ten)),
        "all@10": float(len(ten) == len(ranks)),
        "mrr@10": 1 / min(ten) if ten else 0.0,
        "ndcg@10": sum(1 / math.log2(rank + 1) for rank in ten) / ideal,
    }


def averages(questions: Sequence[Ranks]) -> dict[str, Any]:
    """How many ``questions``, at least one, and the mean over them of each of their ``measures``."""
    each = [measures(ranks) for ranks in questions]
    return {"questions": len(each)} | {name: round(float(np.mean([one[name] for one in each])), 4) for name in each[0]}


def within_budgets(found: Sequence[str], gold: Collection[str], tokens: Mapping[str, int]) -> tuple[float, ...]:
    """RB@T for each of BUDGETS: the share of ``gold`` inside the longest prefix of ``found`` that T tokens hold.

    ``tokens``: what each id takes.
    """
    wanted, used = set(gold), 0
    held = [0] * len(BUDGETS)
    for id in found:
        used += tokens[id]
        if used > BUDGETS[-1]:
            break
        if id in wanted:
            held = [count + (used <= budget) for count, budget in zip(held, BUDGETS, strict=True)]
    return tuple(count / len(wanted) for count in held)


def updated(originals: Ranks, updates: Ranks) -> float:
    """UO, a knowledge update: 1 where one of ``updates`` is among the first ten and above all of ``originals``.

    What was not found is below everything.
    """
    best = min((rank for rank in updates if rank is not None), default=math.inf)
    old = min((rank for rank in originals if rank is not None), default=math.inf)
    return float(best <= 10 and best < old)


def both_stated(first: Ranks, second: Ranks) -> float:
    """CP@10, a contradiction: 1 where a message of each of its two statements is among the first ten."""
    return float(all(any(rank is not None and rank <= 10 for rank in ranks) for ranks in (first, second)))


def auroc(answered: Sequence[float], unanswered: Sequence[float]) -> float:
    """How often the score of a question that has an answer is above that of one that has none, a tie counting half: the
    area under the ROC curve (Hanley and McNeil 1982). Both hold at least one."""
    order = np.sort(np.asarray(unanswered, np.float64))
    scores = np.asarray(answered, np.float64)
    below, upto = np.searchsorted(order, scores, "left"), np.searchsorted(order, scores, "right")
    return float((below + upto).mean() / 2 / len(order))


def interval(values: Sequence[float]) -> tuple[float, float]:
    """``intervals`` of one sample."""
    return intervals([values])[0]


def intervals(samples: Sequence[Sequence[float]], *, resamples: int = RESAMPLES) -> list[tuple[float, float]]:
    """95 % percentile bootstrap interval of the mean of each of ``samples``, all of one size (Efron 1979), always drawn
    the same. Of paired differences, give those."""
    values = np.asarray(samples, np.float64).T
    size = len(values)
    generator = np.random.default_rng(0)
    batch = max(1, 2**22 // max(1, size))
    means = []
    for start in range(0, resamples, batch):
        rows = min(batch, resamples - start)
        drawn = generator.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        means.append(counts.astype(np.float64) @ values / size)
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5), axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of durations given in seconds, in milliseconds."""
    p50, p95, p99 = np.percentile(np.asarray(seconds, np.float64) * 1000, (50, 95, 99))
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3), "p99_ms": round(float(p99), 3)}


def encoder_of(encoder: str | Encoder | None) -> Encoder | None:
    """The encoder to measure with: one, the one of this spec, or for None the configured one."""
    if encoder is not None and not isinstance(encoder, str):
        return encoder
    spec = Config.load(encoder=encoder).encoder
    return make("minilm" if spec == "auto" else spec)


class Wrapped:
    """An encoder to all appearances ``inner``; its subclasses do something more when it encodes."""

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def spec(self) -> str | None:
        spec: str | None = getattr(self.inner, "spec", None)
        return spec

    @property
    def dim(self) -> int:
        return self.inner.dim

    @property
    def window(self) -> int:
        return self.inner.window

    @property
    def tokenizer(self) -> Tokenizer:
        return self.inner.tokenizer

    def encode(self, texts: Sequence[str]) -> Encoded:
        return self.inner.encode(texts)


def machine() -> Mapping[str, Any]:
    """What is measured on: processor, cores this process may use, memory, system, Python and libraries.

    ``load`` is the system's load average over the last minute: called before a run, it says how quiet the machine was.
    """
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "memory_gb": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "memspan": _version("memspan"),
        "numpy": _version("numpy"),
        "onnxruntime": _version("onnxruntime"),
        "faiss": _version("faiss-cpu"),
    }


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
