"""Signed feature hashing: vectors without a model, for tests and tiny machines.

Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"; character n-grams with word
borders after Bojanowski et al. 2017 (fastText).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from memspan.encoders.base import Encoded
from memspan.errors import InvalidInput
from memspan.segmenting import WordTokenizer

_WORDS: Final = re.compile(r"\w+|[^\w\s]")
_WINDOW: Final = 512
_LETTERS: Final = 64
"""Characters read of a word."""


class HashEncoder:
    """Words and their character 3- to 5-grams, each hashed to one of ``dim`` signed buckets; rows of length 1.

    ``dim``: 8 to 65,536. Texts that share words are close, and words that share most letters a little. The same text
    gives the same vector in every process and on every machine. Only the first 512 words of a text are read. There
    are no token activations.
    """

    window = _WINDOW

    def __init__(self, dim: int = 256) -> None:
        if not isinstance(dim, int) or not 8 <= dim <= 65_536:
            raise InvalidInput("dim", f"{dim!r} is out of range", mend="give a whole number from 8 to 65536")
        self.dim = dim
        self.id = f"hash-{dim}"
        self.spec = "hash" if dim == 256 else f"hash:{dim}"
        self.tokenizer = WordTokenizer()

    def __repr__(self) -> str:
        return f"HashEncoder(dim={self.dim})"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """``texts`` in order → Encoded; a text without a word or sign gives a row of zeros."""
        hashes: list[NDArray[np.uint32]] = []
        values: list[NDArray[np.float64]] = []
        sizes = np.zeros(len(texts), np.int64)
        for i, text in enumerate(texts):
            for match in islice(_WORDS.finditer(text[: _WINDOW * _LETTERS].casefold()), _WINDOW):
                found, weights = _features(match[0][:_LETTERS])
                hashes.append(found)
                values.append(weights)
                sizes[i] += len(found)
        if not hashes:
            return Encoded(np.zeros((len(texts), self.dim), np.float32))
        buckets = np.repeat(np.arange(len(texts)), sizes) * self.dim + np.concatenate(hashes) % self.dim
        sums = np.bincount(buckets, np.concatenate(values), len(texts) * self.dim).reshape(len(texts), self.dim)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        return Encoded((sums / np.where(norms > 0, norms, 1)).astype(np.float32))


@lru_cache(maxsize=1 << 16)
def _features(word: str) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Hashes of the word and of its n-grams, and their signed weights: the word weighs 1, its n-grams together 1/2."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1) if n < len(marked)]
    hashes = np.array([zlib.crc32(g.encode("utf-8", "surrogatepass")) for g in (marked, *grams)], np.uint32)
    weights = np.full(len(hashes), 0.5 / max(len(grams), 1) ** 0.5)
    weights[0] = 1.0
    return hashes // 2, np.where(hashes % 2, weights, -weights)
