"""Features → one score in [0, 1]: a logistic model with few, absolute features, so that a score means the same on
every store and does not depend on which other candidates happen to be there, but by how much it stands out among them.

The weights are data with their provenance. A row that lacks a feature of ``weights`` (without a vector yet it lacks the
semantic one) is scored by a model fitted without it; one that lacks a feature of ``extras`` gets nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Features = Mapping[str, NDArray[np.float32]]
"""Of the same rows, by name: float32[n], NaN where a row has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """score = sigmoid(bias + sum of weight * feature). ``provenance`` says on what it was fitted, and how well."""

    bias: float
    weights: Mapping[str, float]
    extras: Mapping[str, float] = field(default_factory=dict)
    provenance: str


def fuse(models: Sequence[Model], features: Features, rows: int) -> NDArray[np.float32]:
    """float32[n] in [0, 1]: each row by the first model all of whose ``weights`` it has features for; 0 without one."""
    scores = np.zeros(rows, np.float32)
    left = np.ones(rows, bool)
    for model in models:
        if all(name in features for name in model.weights):
            has = left & ~np.any([np.isnan(features[name]) for name in model.weights], axis=0)
            scores[has] = score(model, {name: values[has] for name, values in features.items()})
            left &= ~has
    return scores


def or_zero(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``values`` with 0 where there is none."""
    return np.where(np.isnan(values), np.float32(0), values)


def score(model: Model, features: Features) -> NDArray[np.float32]:
    """float32[n] in [0, 1] of rows that have all of the model's ``weights``."""
    total = np.full(len(next(iter(features.values()))), model.bias, np.float32)
    for name, weight in model.weights.items():
        total += np.float32(weight) * features[name]
    for name, weight in model.extras.items():
        if name in features:
            total += np.float32(weight) * or_zero(features[name])
    probability: NDArray[np.float32] = np.divide(1, 1 + np.exp(-total), dtype=np.float32)
    return probability
