"""Learning from judgements: what is added to the logit of a score, fitted to what was found useful in one namespace.

The shipped model stays as it is. On top of it comes ``sum of weight * feature + bias``, with weights fitted listwise:
of the candidates of a question the useful ones shall be likely under a softmax of the logits (ListNet, Cao et al., ICML
2007), against those said to be useless and, less, those nobody judged. A quadratic pull holds the weights at 0, so few
judgements move little. How strong it is, and whether anything is changed at all, is decided by cross-validation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from memspan.errors import InvalidInput
from memspan.fusion import Features
from memspan.records import Judgement

DEPTH = 10  # of nDCG, and of the searches whose candidates are looked at
LEAST = 10  # questions: of fewer the noise cannot be told from the gain
FOLDS = 5
PULLS = (
    300.0,
    100.0,
    30.0,
    10.0,
)  # of weights per spread of a feature, against the sum over questions; no change first
USELESS = 4.0  # how many candidates that nobody judged one counts for that is said to be useless
SURE = 1.0  # standard errors by which the gain must stand out; docs/decisions/0012-tuning.md
KEPT = 8  # adjustments of a namespace: as many steps ``untune`` goes back
STEPS = 50
LIMIT = 60.0  # of a logit: beyond, float32 knows only 0 and 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What is added to the logits of a namespace: ``bias``, and for each feature its weight times its value.

    Fitted at a time to so many judgements of so many questions; ``before`` and ``after``: their nDCG@10 by the shipped
    model, and by weights that were fitted without the question.
    """

    weights: Mapping[str, float]
    bias: float
    fitted_at: datetime
    questions: int
    judgements: int
    before: float
    after: float

    def plain(self) -> dict[str, object]:
        """As JSON-ready values."""
        values = {name: getattr(self, name) for name in Adjustment.__slots__}
        return values | {"weights": dict(self.weights), "fitted_at": self.fitted_at.isoformat()}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Examined:
    """A judged question and its candidates, best first: ``scores`` float32[n] as shipped, the ``features``, which are
    ``useful`` and ``useless`` (bool[n]); ``wanted`` counts all useful segments, candidates or not."""

    scores: NDArray[np.float32]
    features: Features
    useful: NDArray[np.bool_]
    useless: NDArray[np.bool_]
    wanted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Weights by feature, {} where no change was best, and the bias; nDCG@10 before and after, cross-validated, and the
    standard error of their difference. ``effects``: weights times how far the candidates of a question are spread."""

    weights: Mapping[str, float]
    effects: Mapping[str, float]
    bias: float
    before: float
    after: float
    noise: float

    @property
    def better(self) -> bool:
        """Whether there is a change, and its gain greater than the noise."""
        return bool(self.weights) and self.after - self.before > SURE * self.noise


# Kept as a value of the store, newest last


def key(namespace: str) -> str:
    """The name of the value that holds a namespace's adjustments."""
    return f"tuning:{namespace}"


@lru_cache(maxsize=256)
def history(raw: str | None) -> tuple[Adjustment, ...]:
    """The adjustments in a value, None or one ``changed`` made: the last one holds."""
    known = [] if raw is None else json.loads(raw)
    values = ({name: one[name] for name in Adjustment.__slots__} for one in known)
    return tuple(Adjustment(**{**each, "fitted_at": datetime.fromisoformat(each["fitted_at"])}) for each in values)


def current(raw: str | None) -> Adjustment | None:
    """The adjustment that holds, if any."""
    return (history(raw) or (None,))[-1]


def changed(raw: str | None, new: Adjustment | None) -> str:
    """The value with one more adjustment, the oldest beyond KEPT dropped; for None with the last one taken back."""
    known = history(raw)
    kept = known[:-1] if new is None else (*known, new)[-KEPT:]
    return json.dumps([each.plain() for each in kept])


# Used


def adjusted(logits: NDArray[np.float32], features: Features, adjustment: Adjustment | None) -> NDArray[np.float32]:
    """float32[n]: the ``logits`` of scores with the adjustment, to the bit as they are where there is none.

    A row that lacks a feature counts as the average one in that; one that this version does not know adds nothing.
    """
    if adjustment is None:
        return logits
    total = logits + adjustment.bias
    for name, weight in adjustment.weights.items():
        if name in features:
            total += weight * _filled(features[name])
    return np.asarray(total, np.float32)


# Fitted


def questions(said: Iterable[Judgement], seqs: Mapping[str, int]) -> dict[str, dict[int, bool]]:
    """The queries of which a segment in ``seqs`` (by id) is useful, each with what was said of those by seq.

    Raises InvalidInput where there are fewer than LEAST.
    """
    asked: dict[str, dict[int, bool]] = {}
    for each in said:
        if each.id in seqs:
            asked.setdefault(each.query, {})[seqs[each.id]] = each.useful
    asked = {query: marks for query, marks in asked.items() if any(marks.values())}
    if len(asked) < LEAST:
        held = f"are of {len(asked)} questions with a useful segment, and {LEAST} are needed"
        raise InvalidInput("judgements", held, mend=f"say of {LEAST - len(asked)} more what was useful: feedback()")
    return asked


def fit(examined: Sequence[Examined]) -> Fitted:
    """The adjustment for these questions, deterministic, and what it is worth on questions it was not fitted on.

    Each fold of questions is ranked by weights fitted on the others, their pull chosen on the others too. The bias is
    such that the mean over the questions of the best row's score is what it was.
    """
    names = sorted({name for each in examined for name in each.features})
    spread = _spread(examined, names)
    lists = [_listed(each, names, spread) for each in examined]
    nothing = np.zeros(len(names))
    before = np.array([_ndcg(each, nothing) for each in lists])
    after = before.copy()
    for held in _folds(len(lists)):
        weights = _best([each for at, each in enumerate(lists) if at not in held])
        for at in held:
            after[at] = _ndcg(lists[at], weights)
    weights = _best(lists)
    effects = {name: float(weight) for name, weight in zip(names, weights, strict=True) if weight}
    units = dict(zip(names, spread, strict=True))
    return Fitted(
        weights={name: effect / float(units[name]) for name, effect in effects.items()},
        effects=effects,
        bias=_bias(lists, weights) if weights.any() else 0.0,
        before=float(before.mean()),
        after=float(after.mean()),
        noise=float((after - before).std(ddof=1) / np.sqrt(len(lists))),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Listed:
    """A question's candidates, best first: features float64[n, f] in units of their spread, logits float64[n]."""

    x: NDArray[np.float64]
    logits: NDArray[np.float64]
    useful: NDArray[np.bool_]
    prior: NDArray[np.float64]  # of the softmax, in logits
    wanted: int


def _listed(each: Examined, names: Sequence[str], spread: NDArray[np.float64]) -> _Listed:
    return _Listed(
        _matrix(each, names) / spread,
        _logit(each.scores),
        each.useful,
        np.where(each.useless, np.log(USELESS), 0.0),
        each.wanted,
    )


def _matrix(each: Examined, names: Sequence[str]) -> NDArray[np.float64]:
    rows = len(each.scores)
    parts = [_filled(each.features[name]) if name in each.features else np.zeros(rows) for name in names]
    return np.column_stack([np.zeros((rows, 0)), *parts]).astype(np.float64)


def _spread(examined: Sequence[Examined], names: Sequence[str]) -> NDArray[np.float64]:
    """float64[f]: the standard deviation among the candidates of a question; infinite where a feature tells none apart,
    so that it gets no weight."""
    squares, rows = np.zeros(len(names)), 0
    for each in examined:
        x = _matrix(each, names)
        if len(x):
            squares += ((x - x.mean(axis=0)) ** 2).sum(axis=0)
            rows += len(x)
    spread = np.sqrt(squares / max(rows, 1))
    return np.where(spread > 1e-6, spread, np.inf)


def _folds(count: int) -> list[range]:
    return [range(first, count, FOLDS) for first in range(FOLDS)]


def _best(lists: Sequence[_Listed]) -> NDArray[np.float64]:
    """Weights float64[f] with the pull that does best on questions held out; zeros where no change does."""
    nothing = np.zeros(lists[0].x.shape[1])
    parts = [([lists[at] for at in held], [each for at, each in enumerate(lists) if at not in held])
             for held in _folds(len(lists))]  # fmt: skip
    best, chosen = sum(_ndcg(each, nothing) for each in lists), None
    starts = [nothing] * len(parts)
    for pull in PULLS:
        starts = [_weights(rest, pull, start) for (_, rest), start in zip(parts, starts, strict=True)]
        worth = sum(_ndcg(each, weights) for (held, _), weights in zip(parts, starts, strict=True) for each in held)
        if worth > best + 1e-9:
            best, chosen = worth, pull
    return nothing if chosen is None else _weights(lists, chosen, nothing)


def _weights(lists: Sequence[_Listed], pull: float, start: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method from ``start`` on a convex loss: the cross-entropy of the useful rows, each list's alike, under
    the softmax, and half of ``pull`` times the square of the weights."""
    lists = [each for each in lists if each.useful.any()]
    if not lists:
        return np.zeros_like(start)
    x = np.concatenate([each.x for each in lists])
    base = np.concatenate([each.logits + each.prior for each in lists])
    target = np.concatenate([each.useful / each.useful.sum() for each in lists])
    sizes = np.array([len(each.x) for each in lists])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """And the softmax at ``weights``."""
        logits = base + x @ weights
        top = np.maximum.reduceat(logits, starts)
        odds = np.exp(logits - np.repeat(top, sizes))
        total = np.add.reduceat(odds, starts)
        entropy = (top + np.log(total)).sum() - target @ logits
        return float(entropy + pull / 2 * (weights @ weights)), odds / np.repeat(total, sizes)

    weights = start
    value, likely = loss(weights)
    for _ in range(STEPS):
        weighed = x * likely[:, None]
        means = np.add.reduceat(weighed, starts)
        gradient = means.sum(axis=0) - target @ x + pull * weights
        curvature = weighed.T @ x - means.T @ means + pull * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        while np.abs(step).max(initial=0.0) > 1e-7:
            new, there = loss(weights - step)
            if new < value:
                weights, value, likely = weights - step, new, there
                break
            step = step / 2
        else:
            break
    return weights


def _ndcg(each: _Listed, weights: NDArray[np.float64]) -> float:
    """nDCG@10 with gain 1 for each useful segment (Järvelin and Kekäläinen 2002)."""
    order = np.argsort(-(each.logits + each.x @ weights), kind="stable")[:DEPTH]
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    return float(discounts[: len(order)] @ each.useful[order] / discounts[: each.wanted].sum())


def _bias(lists: Sequence[_Listed], weights: NDArray[np.float64]) -> float:
    """By bisection: with it the best rows' scores are on average what they were."""
    found = [each for each in lists if len(each.logits)]
    usual = float(np.mean([_probability(each.logits).max() for each in found]))
    tops = np.array([(each.logits + each.x @ weights).max() for each in found])
    low, high = -LIMIT, LIMIT
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(tops + middle).mean() < usual else (low, middle)
    return (low + high) / 2


def _filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``values`` with the mean of the others where there is none; 0 where there are no others."""
    missing = np.isnan(values)
    mean = np.float32(0) if missing.all() else values[~missing].mean()
    return np.asarray(np.where(missing, mean, values), np.float32)


def _logit(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64[n]: of 0 and 1 those of what rounds to them."""
    clipped = scores.astype(np.float64).clip(1e-7, 1 - 1e-7)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logits.clip(-LIMIT, LIMIT))))
