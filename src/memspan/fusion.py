"""Features → one score in [0, 1]: a logistic model with few, absolute features, so that a score means the same on every
store and does not depend on which other candidates happen to be there.

The weights are data with their provenance. A feature that is NaN (a row without a vector yet) is left out and the model
fitted without it is used for that row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """score = sigmoid(bias + sum of weight * feature). ``provenance`` says on what it was fitted, and how well."""

    bias: float
    weights: Mapping[str, float]
    provenance: str


def score(model: Model, features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """float32[n] in [0, 1] from features float32[n] by name."""
    total = np.full(len(next(iter(features.values()))), model.bias, np.float32)
    for name, weight in model.weights.items():
        total += np.float32(weight) * features[name]
    probability: NDArray[np.float32] = np.divide(1, 1 + np.exp(-total), dtype=np.float32)
    return probability
