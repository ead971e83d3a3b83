"""Any sentence-transformers model, by that library and torch: the extra ``sentence-transformers``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from memspan.encoders.base import Encoded
from memspan.encoders.running import sound
from memspan.errors import EncoderError, MissingExtra


class SentenceTransformersEncoder:
    """``name``: a model on the Hugging Face hub, or a directory. ``device``: as torch calls it; None lets it choose.

    The model is loaded at once. Safe to use from many threads, which wait for one another. Raises MissingExtra when
    the library is not installed, EncoderError when the model cannot be loaded.
    """

    def __init__(self, name: str, *, device: str | None = None) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra(
                "the encoder 'sentence-transformers' needs the library of that name",
                mend="pip install 'memspan[sentence-transformers]'",
            ) from error
        self.name = name
        self.id = f"sentence-transformers-{name}"
        self.spec = f"sentence-transformers:{name}"
        try:
            self._model: Any = SentenceTransformer(name, device=device)
        except Exception as error:  # the library's errors have no common root below Exception
            raise EncoderError(
                f"sentence-transformers cannot load {name!r} ({error})",
                mend="give the name of a model on huggingface.co, or a directory that holds one",
            ) from error
        size = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        self.dim = int(size())
        self.window = int(self._model.max_seq_length or 512)
        self.tokenizer = _Tokens(name, self._model.tokenizer)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"SentenceTransformersEncoder({self.name!r})"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """``texts`` in order → Encoded, with the token activations of the last layer. Raises EncoderError."""
        pooled = np.zeros((len(texts), self.dim), np.float32)
        if not texts:
            return Encoded(pooled)
        clean = [sound(text) for text in texts]
        with self._lock:
            try:
                found = self._model.encode(clean, output_value=None, show_progress_bar=False)
            except Exception as error:  # torch and the model's own code raise what they like
                raise EncoderError(f"{self.name!r} cannot encode {len(texts)} texts ({error})") from error
        for row, one in zip(pooled, found, strict=True):
            row[:] = one["sentence_embedding"].float().cpu().numpy()
        pooled /= np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), np.float32(1e-12))
        tokens = [one["token_embeddings"][one["attention_mask"].bool()].float().cpu().numpy() for one in found]
        return Encoded(pooled, tokens)


class _Tokens:
    """Counts with a transformers tokenizer."""

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name.rstrip("/").rpartition("/")[2]
        self._tokenizer = tokenizer

    def count(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        clean = [sound(text) for text in texts]
        ids = self._tokenizer(clean, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [len(row) for row in ids]
