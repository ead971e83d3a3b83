"""Late interaction by any encoder with token activations, computed when it is asked: nothing is kept of the texts.

Source: Khattab & Zaharia 2020, ColBERT (arXiv:2004.12832), section 3.3, with the mean in place of the sum, so that long
questions score as short ones do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.base import Encoder
from memspan.errors import EncoderError, RerankerError


class LateReranker:
    """Scores a text by MaxSim: for each token of the question the best cosine with any token of the text, negative ones
    as 0, and the mean of that.

    ``encoder`` need not be the one a store was encoded by. It should be trained for this, as ColBERT is: any other
    makes searches worse (docs/decisions/0011-reranker.md). As safe to use from many threads as it is.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.id = f"late-{encoder.id}"
        self.spec = f"late:{getattr(encoder, 'spec', '')}"

    def __repr__(self) -> str:
        return f"LateReranker({self.encoder!r})"

    def rerank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n] in [0, 1], in the order of ``texts``; 0 where the question or a text has no tokens.

        Raises RerankerError, also for an encoder without token activations.
        """
        if not texts:
            return np.zeros(0, np.float32)
        try:
            (question,) = self._tokens([query])  # alone: what is beside it in a batch may move its last bits
            found = self._tokens(texts)
        except EncoderError as error:
            raise RerankerError(f"{self.id} cannot read the texts: {error.problem}", mend=error.mend) from error
        if not len(question):
            return np.zeros(len(texts), np.float32)
        best = [(tokens @ question.T).max(axis=0).clip(0, 1).mean() if len(tokens) else 0.0 for tokens in found]
        return np.array(best, np.float32)

    def _tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        tokens = self.encoder.encode(texts).tokens
        if len(tokens) != len(texts):
            raise RerankerError(
                f"the encoder {self.encoder.id!r} gives no token activations",
                mend="name one that does: late:sentence-transformers:NAME, or another kind of reranker",
            )
        return [each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), np.float32(1e-12)) for each in tokens]
