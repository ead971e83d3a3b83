"""The reranker port: a question and texts in, one score for each text out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from memspan.errors import RerankerError

_ROUNDING: Final = 1e-5
"""By how much a score may lie outside [0, 1]: a mean of cosines does, by the last bits."""


@runtime_checkable
class Reranker(Protocol):
    """Reads a question and a text together. ``id`` names the model."""

    @property
    def id(self) -> str: ...

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n] in [0, 1]: how well each of n ``texts`` answers ``query``, best as a probability.

        A text's score does not depend on the other texts. Raises RerankerError when that cannot be done.
        """


def scores_of(reranker: Reranker, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """What ``reranker`` says, float32[n] in [0, 1]. Raises RerankerError where it is anything else, or what it raises
    itself."""
    if not texts:
        return np.zeros(0, np.float32)
    given = reranker.rerank(query, texts)
    try:
        scores = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise _wrong(reranker, f"answered a {type(given).__name__} that is no row of numbers") from error
    if scores.shape != (len(texts),):
        raise _wrong(reranker, f"answered numbers of shape {list(scores.shape)} for {len(texts)} texts")
    if not np.isfinite(scores).all():
        raise _wrong(reranker, "answered numbers that are not finite")
    if scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING:
        raise _wrong(reranker, f"answered numbers from {scores.min():.4g} to {scores.max():.4g}")
    clipped: NDArray[np.float32] = scores.clip(0, 1)
    return clipped


def _wrong(reranker: Reranker, problem: str) -> RerankerError:
    mend = "rerank must return one number from 0 to 1 for each text; of logits it is the sigmoid"
    return RerankerError(f"reranker {reranker.id!r} {problem}", mend=mend)


def probabilities(logits: Any, id: str) -> NDArray[np.float32]:
    """A cross-encoder's logits for n pairs as float32[n] in [0, 1]: the sigmoid of one each, [n] or [n, 1]; of two,
    [n, 2], the softmax's part of the second, which stands for "relevant". Raises RerankerError naming ``id``."""
    given = np.asarray(logits, np.float64)
    if given.ndim == 2 and given.shape[1] == 2:
        given = given[:, 1] - given[:, 0]
    elif given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1:
        raise RerankerError(
            f"reranker {id!r} gives logits of shape {list(given.shape)}",
            mend="give a cross-encoder with one output, or two (not relevant, relevant)",
        )
    if not np.isfinite(given).all():
        raise RerankerError(f"reranker {id!r} gives logits that are not finite", mend="give another model, or fp32")
    return np.asarray(1 / (1 + np.exp(-given.clip(-700, 700))), np.float32)
