"""Features → one score in [0, 1].

Two steps. What the channels found is scored by a linear model with few, absolute features. The best of it are told
apart by a ``Ranker``: shallow trees, learned, over features that are standardised among these rows, so that nothing
depends on how large a store is or how long its texts are; a logistic model of how good the best evidence is makes its
rank a score that means the same for every query and store.

All weights are data with their provenance. A row that lacks a feature of a model's ``weights`` (without a vector yet it
lacks the semantic one) is scored by a model fitted without it; one that lacks a feature of ``extras`` gets nothing for
it; to a ranker it is like the average row in that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = Mapping[str, NDArray[np.float32]]
"""Of the same rows, by name: float32[n], NaN where a row has none."""

LOWEST, HIGHEST = -4.0, 6.0  # standard deviations: what lies farther out says no more
RANKERS = "fusion.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """score = sigmoid(bias + sum of weight * feature). ``provenance`` says on what it was fitted, and how well."""

    bias: float
    weights: Mapping[str, float]
    extras: Mapping[str, float] = field(default_factory=dict)
    provenance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranker:
    """Gradient-boosted trees of depth two (LambdaMART, Burges 2010), and what makes their sum a probability.

    ``standard`` are the features taken by how many standard deviations they lie above the mean of the rows, ``plain``
    those taken as they are. Tree t first asks whether column ``columns[t, 0]`` exceeds ``bounds[t, 0]``, then the
    second question of its row (no) or the third (yes), and adds ``leaves[t]``: no-no, no-yes, yes-no, yes-yes. All
    arrays have t rows, of 3, 3 and 4. ``bias``, ``scale`` and ``certainty`` make it a logit: the scaled distance to the
    best row, and how good the best evidence is: the trees' sum for the best row ("rank"), and of other features the
    greatest value.
    """

    standard: tuple[str, ...]
    plain: tuple[str, ...]
    columns: NDArray[np.int64]
    bounds: NDArray[np.float32]
    leaves: NDArray[np.float32]
    bias: float
    scale: float
    certainty: Mapping[str, float]
    provenance: Mapping[str, Any]

    @property
    def features(self) -> frozenset[str]:
        return frozenset((*self.standard, *self.plain))

    def rank(self, features: Features) -> NDArray[np.float32]:
        """float32[n]: the trees' sum for each row; only differences between rows of one query mean anything."""
        return self.rank_table(table(features, self.standard, self.plain))

    def rank_table(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of float32[n, f], as ``table`` gives them."""
        first = rows[:, self.columns[:, 0]] > self.bounds[:, 0]
        no, yes = (rows[:, self.columns[:, at]] > self.bounds[:, at] for at in (1, 2))
        leaf = 2 * first + np.where(first, yes, no)
        return np.asarray(self.leaves[np.arange(len(self.leaves)), leaf].sum(axis=1), np.float32)

    def logits(self, features: Features) -> NDArray[np.float32]:
        """float32[n]: of the probability that a row is evidence; in the order of ``rank``."""
        rank = self.rank(features)
        best = rank.max() if len(rank) else np.float32(0)
        sure = sum(weight * _greatest(features, name) for name, weight in self.certainty.items() if name != "rank")
        logits = self.bias + self.scale * (rank - best) + self.certainty.get("rank", 0.0) * best + sure
        return np.asarray(logits, np.float32)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Ranker:
        """From the values of ``RANKERS``."""
        trees = np.array(data["trees"], np.float64).reshape(-1, 10)
        return cls(
            standard=tuple(data["standard"]),
            plain=tuple(data["plain"]),
            columns=trees[:, 0:3].astype(np.int64),
            bounds=trees[:, 3:6].astype(np.float32),
            leaves=trees[:, 6:10].astype(np.float32),
            bias=data["bias"],
            scale=data["scale"],
            certainty=data["certainty"],
            provenance=data["provenance"],
        )


@cache
def ranker(name: str) -> Ranker:
    """A shipped one: "late" for rows with late interaction, "pooled" for those without."""
    return Ranker.of(_shipped()[name])


@cache
def _shipped() -> Mapping[str, Any]:
    data: Mapping[str, Any] = json.loads(resources.files("memspan").joinpath(RANKERS).read_text("utf-8"))
    return data


def table(features: Features, standard: Sequence[str], plain: Sequence[str]) -> NDArray[np.float32]:
    """float32[n, f]: the features ``standard`` and ``plain`` of n rows, a row that has none counted as the average one,
    a feature that nobody has as 0."""
    rows = len(next(iter(features.values())))
    none = np.zeros(rows, np.float32)
    columns = [standardised(features[name]) if name in features else none for name in standard]
    columns += [_filled(features[name]) if name in features else none for name in plain]
    return np.stack(columns, axis=1)


def standardised(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """By how many standard deviations each lies above the mean, clipped; 0 for NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), np.float32)
    apart = (values - known.mean()) / (known.std() + np.float32(1e-6))
    return or_zero(apart.clip(LOWEST, HIGHEST))


def fuse(models: Sequence[Model], features: Features, rows: int) -> NDArray[np.float32]:
    """float32[n], logits: each row by the first model all of whose ``weights`` it has features for, else -inf."""
    logits = np.full(rows, -np.inf, np.float32)
    left = np.ones(rows, bool)
    for model in models:
        if all(name in features for name in model.weights):
            has = left & ~np.any([np.isnan(features[name]) for name in model.weights], axis=0)
            logits[has] = _linear(model, {name: values[has] for name, values in features.items()})
            left &= ~has
    return logits


def probability(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """float32[n] in [0, 1]: the logistic function."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def or_zero(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``values`` with 0 where there is none."""
    return np.where(np.isnan(values), np.float32(0), values)


def _linear(model: Model, features: Features) -> NDArray[np.float32]:
    """float32[n], logits of rows that have all of the model's ``weights``."""
    total = np.full(len(next(iter(features.values()))), model.bias, np.float32)
    for name, weight in model.weights.items():
        total += np.float32(weight) * features[name]
    for name, weight in model.extras.items():
        if name in features:
            total += np.float32(weight) * or_zero(features[name])
    return total


def _filled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    missing = np.isnan(values)
    if not missing.any():
        return values
    mean = np.float32(0) if missing.all() else values[~missing].mean()
    return np.asarray(np.where(missing, mean, values), np.float32)


def _greatest(features: Features, name: str) -> float:
    return float(or_zero(features[name]).max(initial=0.0)) if name in features else 0.0
