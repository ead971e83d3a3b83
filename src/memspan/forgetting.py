"""How strong a memory still is: curves of forgetting over what the ledger keeps of a segment's use, as arrays.

The ledger counts recalls and knows the last; it keeps no list of them. So both curves take recalls as spread evenly
from when a segment was heard to when it was last recalled, and several on one day as one: what comes up ten times in an
afternoon is not remembered ten times longer (the spacing effect, Cepeda et al. 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput, MissingExtra
from memspan.kinds import KINDS, USUAL_KIND
from memspan.ledger.base import Standing
from memspan.segmenting import shown

DAY = 86_400e6  # microseconds
REVIEWS = 64  # of a segment that FSRS computes one by one; of more, as many stand for all
GOOD, EASY = 3, 4  # FSRS's ratings

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Traces:
    """What is left of how segments were heard and recalled: float64[n] each, times in days.

    ``stability`` and ``growth`` are their kind's. ``importance`` in [0, 1]; NaN for a segment that is gone. ``span``:
    from when they were heard to the last recall, 0 where never recalled. ``recalls``: how many, counting at most one
    for each day of ``span``. ``idle``: how long since the last, or else since they were heard.
    """

    stability: Floats
    growth: Floats
    importance: Floats
    recalls: Floats
    span: Floats
    idle: Floats


class ForgettingCurve(Protocol):
    """``name`` is what it is called by. ``faded``: strength below which a memory is as good as forgotten."""

    name: ClassVar[str]
    faded: ClassVar[float]

    def strength(self, traces: Traces) -> Floats:
        """float64[n] in [0, 1]: how likely each is still remembered; NaN where importance is."""
        ...


@dataclass(frozen=True, slots=True)
class Ebbinghaus:
    """MemoryBank's curve (arXiv:2305.10250): R = exp(-t / S), t since it was heard or last recalled; S grows on recall.

    There S is 1 day at first and each recall adds 1. Here it is the kind's stability, 30 days for what was said, and
    each recall adds that much again; importance halves it at 0 and doubles it at 1.
    """

    name: ClassVar[str] = "ebbinghaus"
    faded: ClassVar[float] = 0.05

    def strength(self, traces: Traces) -> Floats:
        stability = traces.stability * (1 + traces.growth * traces.recalls) * 4 ** (traces.importance - 0.5)
        return np.asarray(np.exp(-traces.idle / stability))


class Fsrs:
    """FSRS-6 (Ye, Su and Cao, KDD 2022), the scheduler of Anki, with the parameters of the library ``fsrs``.

    Hearing is the first review, rated Again, Hard, Good or Easy by the quarter of [0, 1] that importance lies in; each
    recall is one rated Good. Another kind lasts as much longer at first as its stability is above an episode's; its
    growth does not count. The curve falls as a power of time, in the end much slower than an exponential.

    ``parameters``: 21 of one's own, such as the library's optimizer finds; else the library's, which fit most people.
    Raises InvalidInput for others, MissingExtra where the library is not there.
    """

    name: ClassVar[str] = "fsrs"
    faded: ClassVar[float] = 0.5

    def __init__(self, parameters: Sequence[float] | None = None) -> None:
        try:
            from fsrs import Scheduler
        except ImportError as error:
            raise MissingExtra("the FSRS curve needs fsrs", mend='pip install "memspan[fsrs]"') from error
        try:
            scheduler = Scheduler() if parameters is None else Scheduler(parameters=parameters)
        except ValueError as error:
            raise InvalidInput("parameters", str(error), mend="give those that the optimizer of fsrs found") from error
        self.parameters = tuple(map(float, scheduler.parameters))

    def strength(self, traces: Traces) -> Floats:
        kept = self._recalled(traces.idle, self._stability(traces))
        return np.asarray(np.where(np.isnan(traces.importance), np.nan, kept))

    def _recalled(self, days: Floats, stability: Floats) -> Floats:
        """FSRS's retrievability ``days`` after a review: 0.9 after ``stability`` days."""
        decay = self.parameters[20]
        return np.asarray((1 + (0.9 ** (-1 / decay) - 1) * days / stability) ** -decay)

    def _stability(self, traces: Traces) -> Floats:
        """float64[n], in days: after the last review of each."""
        w = self.parameters
        recalls = np.minimum(traces.recalls, REVIEWS)
        order = np.argsort(-recalls, kind="stable")  # who has more reviews first, so that each round takes a slice
        recalls = recalls[order]
        gap = traces.span[order] / np.maximum(recalls, 1)
        rating = 1 + (4 * np.nan_to_num(traces.importance[order])).astype(np.intp).clip(0, 3)
        stability = np.array(w[:4])[rating - 1] * (traces.stability[order] / KINDS[USUAL_KIND].stability)
        difficulty = (w[4] - np.exp(w[5] * (rating - 1)) + 1).clip(1, 10)
        easiest = w[4] - np.exp(w[5] * (EASY - 1)) + 1
        for done in range(int(recalls.max(initial=0))):
            to = np.searchsorted(-recalls, -done)
            now, hard = stability[:to], difficulty[:to]
            forgotten = 1 - self._recalled(gap[:to], now)
            apart = 1 + np.exp(w[8]) * (11 - hard) * now ** -w[9] * np.expm1(forgotten * w[10])
            same_day = np.maximum(np.exp(w[17] * w[18]) * now ** -w[19], 1)
            stability[:to] = now * np.where(gap[:to] < 1, same_day, apart)
            difficulty[:to] = (w[7] * easiest + (1 - w[7]) * hard).clip(1, 10)
        after: Floats = np.empty_like(stability)
        after[order] = stability
        return after


CURVES: Final[Mapping[str, Callable[[], ForgettingCurve]]] = MappingProxyType(
    {Ebbinghaus.name: Ebbinghaus, Fsrs.name: Fsrs}
)


def curve_named(name: str) -> ForgettingCurve:
    """The curve called ``name``. Raises InvalidInput, MissingExtra."""
    make = CURVES.get(name) if isinstance(name, str) else None
    if make is None:
        raise InvalidInput("curve", f"there is no {shown(name)}", mend=f"use one of {', '.join(CURVES)}")
    return make()


def traces(standing: Standing, now: float | Floats) -> Traces:
    """What ``standing`` says of n segments at ``now``, in microseconds since 1970."""
    table = {name: (kind.stability, kind.growth) for name, kind in KINDS.items()}
    stability, growth = np.array([table[kind] for kind in standing.kinds], np.float64).reshape(-1, 2).T
    used = standing.accesses > 0
    span = np.where(used, standing.accessed_at - standing.stored_at, 0.0).clip(min=0) / DAY
    return Traces(
        stability=stability,
        growth=growth,
        importance=standing.importance,
        recalls=np.minimum(standing.accesses, np.maximum(np.floor(span), 1)),
        span=span,
        idle=(now - np.maximum(standing.stored_at, standing.accessed_at)).clip(min=0) / DAY,
    )


def strength(standing: Standing, now: float | Floats, curve: ForgettingCurve | None = None) -> Floats:
    """float64[n] in [0, 1]: how much is left of each of n segments at ``now``, in microseconds since 1970.

    By Ebbinghaus's curve unless another is given. NaN for a segment that is gone.
    """
    chosen = Ebbinghaus() if curve is None else curve
    return chosen.strength(traces(standing, now))
