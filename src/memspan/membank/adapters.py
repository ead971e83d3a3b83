"""Adapters: what turns a text into one activation. ``MockAdapter`` needs no model."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from memspan.errors import AdapterError, InvalidInput

Vectors = NDArray[np.float32]

PROBES: Final = ("The quick brown fox jumps over the lazy dog.", "")

_BATCH: Final = 256  # texts added up at once
_WORDS: Final = re.compile(r"\w+")


class ModelAdapter(ABC):
    """What MemBank asks of a model. A new one says its ``hidden_dim``, its ``model_id`` and how to ``encode``."""

    @property
    @abstractmethod
    def hidden_dim(self) -> int:
        """Dimensions of an activation, at least 2."""

    @abstractmethod
    def model_id(self) -> str:
        """A name that is the same in every process; activations of two names are never compared."""

    @abstractmethod
    def encode(self, text: str) -> Vectors:
        """float32[hidden_dim] of a text, which may be empty."""

    def encode_batch(self, texts: Sequence[str]) -> Vectors:
        """float32[n, hidden_dim] of texts in order; one by one, where a model cannot do better."""
        if not texts:
            return np.zeros((0, self.hidden_dim), np.float32)
        return np.stack([self.encode(text) for text in texts])

    def validate(self) -> None:
        """Encode a sentence and the empty text, and see whether that is as it should be.

        Raises InvalidInput (a ValueError) for a wrong shape, dtype or number of axes or for what is not finite, and
        AdapterError (a RuntimeError) when encoding fails.
        """
        for text in PROBES:
            try:
                activation = self.encode(text)
            except Exception as error:  # a model raises what it likes
                raise _failed(self, 1, error) from error
            _check(activation, (self.hidden_dim,))

    def warmup(self) -> None:
        """Do once what the first text would wait for."""
        self.encode(PROBES[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model_id={self.model_id()!r}, hidden_dim={self.hidden_dim})"


def activations(adapter: ModelAdapter, texts: Sequence[str]) -> Vectors:
    """float32[n, hidden_dim] of ``texts`` by ``adapter``, contiguous. Raises what ``ModelAdapter.validate`` does."""
    try:
        found = adapter.encode_batch(texts)
    except Exception as error:  # a model raises what it likes
        raise _failed(adapter, len(texts), error) from error
    _check(found, (len(texts), adapter.hidden_dim))
    return np.ascontiguousarray(found)


class MockAdapter(ModelAdapter):
    """Bags of words without a model: each word is hashed to a random direction, a text is the sum of its words.

    ``hidden_dim``: 2 to 65,536. ``model_version``: another one gives unlike activations. The same text gives the same
    activation of length 1 in every process and on every machine, and texts are the closer the more words they share. A
    text without words is a word of its own. Safe to use from many threads.
    """

    def __init__(self, hidden_dim: int = 256, model_version: str = "v1") -> None:
        if isinstance(hidden_dim, bool) or not isinstance(hidden_dim, int) or not 2 <= hidden_dim <= 65_536:
            raise InvalidInput("hidden_dim", f"{hidden_dim!r} is out of range", mend="give 2 to 65536")
        self._dim = hidden_dim
        self.model_version = model_version

    @property
    def hidden_dim(self) -> int:
        return self._dim

    def model_id(self) -> str:
        return f"mock-{self._dim}-{self.model_version}"

    def encode(self, text: str) -> Vectors:
        vector: Vectors = self.encode_batch([text])[0]
        return vector

    def encode_batch(self, texts: Sequence[str]) -> Vectors:
        sums = np.zeros((len(texts), self._dim), np.float32)
        for start in range(0, len(texts), _BATCH):
            words = [_WORDS.findall(text.casefold()) or [text] for text in texts[start : start + _BATCH]]
            raw = b"".join([_direction(word, self._dim, self.model_version) for one in words for word in one])
            directions = np.frombuffer(raw, np.uint8).reshape(-1, self._dim)
            if len(words) == 1:  # the same whole numbers, without what reduceat costs
                sums[start] = 2 * directions.sum(axis=0, dtype=np.int32) - 255 * len(words[0])
                continue
            counts = [len(one) for one in words]
            found = np.add.reduceat(directions, [0, *accumulate(counts[:-1])], axis=0, dtype=np.int32)
            found = 2 * found - 255 * np.array(counts)[:, None]
            sums[start : start + len(words)] = found  # whole numbers, which are exact in any order
        lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        sums /= np.maximum(lengths, np.float32(1e-12))[:, None]
        return sums


@lru_cache(maxsize=1 << 16)
def _direction(word: str, dim: int, version: str) -> bytes:
    """The direction of a word: of each byte, 2 * byte - 255."""
    return hashlib.shake_128(f"{version}\0{word}".encode("utf-8", "surrogatepass")).digest(dim)


def _check(found: Any, shape: tuple[int, ...]) -> None:
    mend = f"return float32[{', '.join(map(str, shape))}]"
    if not isinstance(found, np.ndarray):
        raise InvalidInput("adapter", f"encodes to a {type(found).__name__}", mend=mend)
    if found.shape != shape:
        raise InvalidInput("adapter", f"encodes to shape {found.shape}, not {shape}", mend=mend)
    if found.dtype != np.float32:
        raise InvalidInput("adapter", f"encodes to {found.dtype}", mend=mend)
    if not np.isfinite(found).all():
        raise InvalidInput("adapter", "encodes to what is not finite", mend="look for overflows in the model")


def _failed(adapter: ModelAdapter, count: int, error: Exception) -> AdapterError:
    return AdapterError(
        f"{adapter.model_id()} failed to encode {count} texts ({type(error).__name__}: {error})",
        mend="call adapter.encode by hand to see why",
    )
