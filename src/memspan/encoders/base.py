"""The encoder port: texts in, vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from memspan.segmenting import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder makes of n texts.

    ``pooled``: float32[n, dim], each row of length 1 (a row of zeros where a text holds nothing to encode).
    ``tokens``: n arrays float32[t_i, dim], the last hidden state of each token the model read, not normalised; empty
    when the encoder has no token activations.
    """

    pooled: NDArray[np.float32]
    tokens: Sequence[NDArray[np.float32]] = ()


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors. ``id`` names model and precision: two encoders with one id give the same vectors."""

    @property
    def id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def window(self) -> int:
        """How many tokens of a text it reads; the rest would be cut off."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Encode ``texts`` in order. Raises EncoderError when that cannot be done."""
